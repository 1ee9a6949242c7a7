"""One digital factor a layer: what brings its outputs closest to those of the digital network.

alpha = <y_digital, y> / <y, y>, the least squares of alpha y - y_digital over training images, with
y the products of the layer's weights as they are now and the inputs that the layer has in the
digital network, bias left out. A gain common to a layer is removed exactly; errors of single
weights shrink alpha by their share of the outputs' power, which is best in the mean square.
"""

from collections.abc import Collection

import torch
from torch import Tensor, nn
from torch.func import functional_call

from analog_samson.models.calibration import record_inputs

RESCALING_IMAGES = 64
"""Training images that factors are measured on: our choice; thousands of outputs a layer each."""


class DigitalProducts:
    """Inputs and products of the layers of a digital network on some images.

    Args:
        network: The network, in eval mode; left unchanged.
        layers: Names of the layers.
        images: Training images as the network takes them, shape (n, ...); of more than
            ``RESCALING_IMAGES`` as many, evenly spread, are used.
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
        """Factor that fits a layer best.

        Args:
            layer: Its name.
            weight: Its weights as they are now, of the layer's shape, model units.

        Returns:
            Shape (1,); 1 where the weights answer nothing.
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
