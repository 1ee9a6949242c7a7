"""Batch normalisation in evaluation mode: one multiplication and one addition per number.

With torch's own modules, torch.compile keeps the square root of the variance, and a division by it,
in the innermost loop.
"""

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from analog_samson.models import batch_norm


class AffineNorm(_BatchNorm):
    """A batch normalisation that shares the parameters and statistics of another.

    In training mode it computes the same as the other. In evaluation mode it computes
    ``x * gain + shift``; :meth:`refresh` updates both when the statistics have changed.
    """

    def __init__(self, norm: _BatchNorm) -> None:
        nn.Module.__init__(self)
        self.__dict__ |= {key: value for key, value in vars(norm).items() if key[0] != "_"}
        self._parameters |= norm._parameters
        self._buffers |= norm._buffers
        self.register_buffer("gain", torch.empty_like(self.running_mean), persistent=False)
        self.register_buffer("shift", torch.empty_like(self.running_mean), persistent=False)
        self._known: tuple[int, ...] = ()
        self.refresh()

    gain: Tensor
    shift: Tensor
    running_mean: Tensor
    running_var: Tensor
    num_batches_tracked: Tensor  # training updates the statistics and this counter

    def refresh(self) -> None:
        """Recompute gain and shift if the statistics have changed since the last call."""
        held = self.running_mean, self.running_var, self.num_batches_tracked
        versions = tuple(n for tensor in held for n in (id(tensor), tensor._version))
        if versions == self._known:
            return
        gain = torch.rsqrt(self.running_var + self.eps)
        if self.weight is not None:
            gain = gain * self.weight
        shift = -self.running_mean * gain
        self.gain.copy_(gain)
        self.shift.copy_(shift if self.bias is None else shift + self.bias)
        self._known = versions

    def forward(self, x: Tensor) -> Tensor:
        """Normalised inputs, shape (n, channels, ...)."""
        if self.training:
            return super().forward(x)
        shape = (-1, *[1] * (x.ndim - 2))
        return x * self.gain.view(shape) + self.shift.view(shape)

    def _check_input_dim(self, x: Tensor) -> None:
        """Accept any number of dimensions: it depends on the original module."""


def affine_norms(network: nn.Module) -> dict[int, AffineNorm]:
    """Replacements of batch normalisations with running statistics: {id of module: new module}."""
    return {
        id(norm): AffineNorm(norm)
        for norm in batch_norm.batch_norms(network).values()
        if type(norm)
        in (
            nn.BatchNorm1d,
            nn.BatchNorm2d,
            nn.BatchNorm3d,
        )  # not subclasses with a forward of their own
    }
