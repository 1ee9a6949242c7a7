"""Batch normalisation in evaluation: one product and one sum a number.

As torch writes it, torch.compile leaves the root of a channel's variance, and a division by it, in
the innermost loop.
"""

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from analog_samson.models import batch_norm


class AffineNorm(_BatchNorm):
    """A batch normalisation with the parameters and statistics of another, which it shares.

    In training it is what it was. In evaluation it gives ``x * gain + shift``;
    :meth:`refresh` takes both from statistics that have changed.
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
    num_batches_tracked: Tensor  # training writes the statistics and counts here what it wrote

    def refresh(self) -> None:
        """Take gain and shift anew if statistics were written since the last time."""
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
        """Any number of dimensions: the network chose its normalisation."""


def affine_norms(network: nn.Module) -> dict[int, AffineNorm]:
    """Id of every batch normalisation with running statistics to what takes its place."""
    return {
        id(norm): AffineNorm(norm)
        for norm in batch_norm.batch_norms(network).values()
        if type(norm) in (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)  # forward as torch's
    }
