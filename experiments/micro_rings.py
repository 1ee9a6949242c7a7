"""Network and training methods of Xu et al. (Nat. Commun. 17, 1766 (2026)) by import name.

The weights of their LeNet-5 are transmissions of micro-rings, which lie between -1 and 1. `pruning`
and `noise_injection` show what a training method of one's own looks like: an entry, and a function
or class that it names. The facts are those of the authors' notebooks.
"""

from collections import OrderedDict

import torch
from torch import Tensor, nn

from analog_samson.methods import Method
from analog_samson.perturbation import MicroRing, Tensors, rwp
from analog_samson.perturbation.control import LARGEST_SHARE
from analog_samson.training import Algorithm, Batch, Setting
from analog_samson.training.control import parametrised

_CITATION = """@article{xu2026,
  title = {Physical neural networks using sharpness-aware training},
  author = {Xu, Tengji and others},
  journal = {Nature Communications}, volume = {17}, pages = {1766}, year = {2026},
  doi = {10.1038/s41467-026-68470-9}
}"""


def lenet5_bn(image_shape: tuple[int, int, int], n_classes: int) -> nn.Module:
    """LeNet-5 with batch normalisation after every layer but the last, as in the notebooks.

    Args:
        image_shape: Channels, height and width: 28 x 28, or 8 x 8 with kernels of 3 x 3.
        n_classes: Number of outputs.

    Raises:
        ValueError: If the images have another size.
    """
    kernels = {(28, 28): (5, 0, 5), (8, 8): (3, 1, 2)}
    channels, *size = image_shape
    if tuple(size) not in kernels:
        raise ValueError(f"lenet5_bn takes images of 28 x 28 or 8 x 8 pixels; got {size}.")
    kernel, padding, side = kernels[size[0], size[1]]
    return nn.Sequential(
        OrderedDict(
            conv1=nn.Conv2d(channels, 6, kernel, padding=kernel // 2),
            norm1=nn.BatchNorm2d(6),
            relu1=nn.ReLU(),
            pool1=nn.MaxPool2d(2),
            conv2=nn.Conv2d(6, 16, kernel, padding=padding),
            norm2=nn.BatchNorm2d(16),
            relu2=nn.ReLU(),
            pool2=nn.MaxPool2d(2),
            flatten=nn.Flatten(),
            fc1=nn.Linear(16 * side * side, 120),
            norm3=nn.BatchNorm1d(120),
            relu3=nn.ReLU(),
            fc2=nn.Linear(120, 84),
            norm4=nn.BatchNorm1d(84),
            relu4=nn.ReLU(),
            fc3=nn.Linear(84, n_classes),
        )
    )


class Steepness(Algorithm):
    """Sum over layers of the 2-norm of dW/dtheta: rings are moved to where their line is flat.

    The notebooks' derivative is half of dW/dtheta, so that their factor 1e-2 is 5e-3 here.

    Args:
        setting: The training; its weights must be set by micro-rings.

    Raises:
        ValueError: If the weights are trained themselves.
    """

    def __init__(self, setting: Setting) -> None:
        self._rings = [
            (ring, own.original)
            for module, name, _ in parametrised(setting.model)
            for own in [module.parametrizations[name]]
            for ring in own
            if isinstance(ring, MicroRing)
        ]
        if not self._rings:
            raise ValueError(
                "Method 'pruning' penalises the slope of micro-rings, and here the weights are "
                "trained themselves; add parametrisation='microring'."
            )

    def penalty(self, batch: Batch, logits: Tensor, epoch: int) -> Tensor:
        """Return the sum, in units of weight / theta."""
        norms = [torch.linalg.vector_norm(ring.slope(theta)) for ring, theta in self._rings]
        return torch.stack(norms).sum()


class BoundedNoise(Algorithm):
    """Gaussian noise on the weights, which stay between the ends of a ring's range.

    The size of the noise is in units of the weight, not relative to a layer's largest.

    Args:
        setting: The training, of weights.
    """

    def __init__(self, setting: Setting) -> None:
        self._weights = {
            name: p
            for name, p in setting.model.named_parameters()
            if name in setting.analog_weights
        }

    def offsets(
        self, weights: Tensors, gradients: Tensors, *, strength: float, generator: torch.Generator
    ) -> Tensors:
        """Draw the noise of a step."""
        return rwp(weights, sigma=strength, scale="constant", generator=generator)

    @torch.no_grad()
    def after_update(self) -> None:
        """Move weights back into the range."""
        for weight in self._weights.values():
            weight.clamp_(-LARGEST_SHARE, LARGEST_SHARE)


pruning = Method(
    summary="Penalty on the slope of the weight over the control parameter.",
    label="pruning",
    step="loss",
    build="analog_samson.experiments.micro_rings:Steepness",
    strength="slope_weight",
    symbol="λ",
    colour="#661100",
    marker="d",
    citation=_CITATION,
)

noise_injection = Method(
    summary="Gaussian noise on weights that stay in the range of a micro-ring.",
    label="noise injection",
    step="one pass",
    build="analog_samson.experiments.micro_rings:BoundedNoise",
    strength="sigma",
    symbol="σ",
    trains_weights=True,
    colour="#E69F00",
    marker="h",
    citation=_CITATION,
)
