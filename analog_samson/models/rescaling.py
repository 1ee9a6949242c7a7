"""One digital factor per layer, fitted by least squares to the outputs of the digital network.

alpha = <y_digital, y> / <y, y> minimises |alpha y - y_digital|^2 over training images. Here y are
the products, without bias, of the layer's present weights with its inputs in the digital network. A
gain common to a layer is removed exactly; independent errors of weights reduce alpha by their share
of the power of the outputs.
"""

from collections.abc import Collection

import torch
from torch import Tensor, nn
from torch.func import functional_call

from analog_samson.models.calibration import record_inputs

RESCALING_IMAGES = 64
"""Training images for the fit: our choice; each gives many outputs per layer."""


class DigitalProducts:
    """Inputs of layers of a digital network on some images, to compare products with.

    Args:
        network: The network, in evaluation mode; not changed.
        layers: Names of the layers.
        images: Training images as network inputs, shape (n, ...); at most ``RESCALING_IMAGES`` are
            used: each k-th from the first, k = n // ``RESCALING_IMAGES``, so the first ones of
            fewer than twice as many.

    Example:
        >>> products = DigitalProducts(model, ["fc1"], images)
        >>> products.gain("fc1", 0.5 * model.fc1.weight)  # weights that are half as large
        tensor([2.])
    """

    def __init__(self, network: nn.Module, layers: Collection[str], images: Tensor) -> None:
        step = max(1, len(images) // RESCALING_IMAGES)
        chosen = images[::step][:RESCALING_IMAGES]
        self._layers = {name: network.get_submodule(name) for name in layers}
        self._inputs: dict[str, list[Tensor]] = {name: [] for name in layers}
        for name, values in record_inputs(network, self._layers, chosen, len(chosen)):
            self._inputs[name].append(values)

    @torch.no_grad()
    def gain(self, layer: str, weight: Tensor) -> Tensor:
        """Least-squares factor of a layer.

        Args:
            layer: Name of the layer.
            weight: Its present weights, shape as in the layer, model units.

        Returns:
            The factor, shape (1,); 1 if all products are zero.
        """
        module = self._layers[layer]
        cross, power = 0.0, 0.0
        for x in self._inputs[layer]:
            wanted, found = (self._products(module, w, x) for w in (module.weight, weight))
            cross += float((wanted * found).sum(dtype=torch.float64))
            power += float(found.square().sum(dtype=torch.float64))
        return torch.tensor([cross / power if power else 1.0])

    @staticmethod
    def _products(module: nn.Module, weight: object, x: Tensor) -> Tensor:
        replaced = {"weight": weight}
        if module.bias is not None:
            replaced["bias"] = torch.zeros_like(module.bias)  # type: ignore[arg-type]
        products: Tensor = functional_call(module, replaced, (x,))  # type: ignore[arg-type]
        return products
