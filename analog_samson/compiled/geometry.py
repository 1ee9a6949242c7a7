"""Geometry of a layer: computation of its product, and splitting of its weights into arrays."""

import itertools
import math
from collections.abc import Callable
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from analog_samson.compiled import few_channels
from analog_samson.compiled.structs import Walk
from analog_samson.devices.array import WeightMapping

_HOW = ("stride", "padding", "dilation", "groups")


class Geometry:
    """Geometry of a linear or convolutional layer on arrays.

    Attributes:
        shape: Shape of its weights: (outputs, inputs of a group, kernel ...).
        rank: Number of dimensions of its kernel; 0 for a linear layer.
        how: Stride, padding, dilation and groups of a convolution; () for a linear layer.
        groups: Groups of channels; 1 for a linear layer.
        n_columns: Outputs of a group.
        rows: Sizes of the row blocks; rows are ordered (channel, kernel position).
        columns: Sizes of the column blocks of a group.
        channels: Input channels of every row block: (first, last + 1).
    """

    def __init__(self, layer: nn.Module, mapping: WeightMapping) -> None:
        weight = cast(Tensor, layer.weight)
        self.shape = weight.shape
        self.rank = weight.ndim - 2
        self.how = tuple(getattr(layer, key) for key in _HOW) if self.rank else ()
        self.groups = int(getattr(layer, "groups", 1))
        self.n_columns = self.shape[0] // self.groups
        self.rows = _pieces(weight[0].numel(), mapping.max_rows)
        self.columns = _pieces(self.n_columns, mapping.max_columns)
        kernel = math.prod(self.shape[2:])
        ends = list(itertools.accumulate(self.rows, initial=0))
        self.channels = [(a // kernel, -(-b // kernel)) for a, b in itertools.pairwise(ends)]
        self._has_few_channels = self.groups == 1 and few_channels.is_faster(
            self.shape, self.how[:3]
        )

    @property
    def structure(self) -> tuple[object, ...]:
        """What a traced graph of the layer depends on."""
        return self.shape, self.how, tuple(self.rows), tuple(self.columns)

    def cut(self, weight: Tensor) -> list[Tensor]:
        """Split the weights of a layer into its arrays, ordered by row block, then column block.

        Returns:
            Tensors of shape (columns, rows); of a grouped layer (groups, columns, rows).
        """
        groups = (self.groups,) if self.groups > 1 else ()
        matrix = weight.reshape(*groups, self.n_columns, -1)
        return [
            part
            for block in torch.split(matrix, self.rows, dim=-1)
            for part in torch.split(block, self.columns, dim=-2)
        ]

    def join(self, parts: list[Tensor]) -> Tensor:
        """Join tensors of arrays, shape (columns, rows), to (columns of all groups, rows)."""
        if len(parts) == 1:
            return parts[0].reshape(-1, parts[0].shape[-1])
        values = iter(parts)
        blocks = [torch.cat([next(values) for _ in self.columns], dim=-2) for _ in self.rows]
        whole = torch.cat(blocks, dim=-1)
        return whole.reshape(-1, whole.shape[-1])

    def product(
        self, x: Tensor, weight: Tensor, bias: Tensor | None, channels_last: bool
    ) -> Tensor:
        """Multiply inputs with weights of this layer, or of some of its input channels."""
        if not self.rank:
            return F.linear(x, weight, bias)
        if self._has_few_channels and not channels_last:
            return few_channels.convolve(x, weight, bias, self.how[1])
        convolution: Callable[..., Tensor] = F.conv2d if self.rank == 2 else F.conv1d
        return convolution(x, weight, bias, *self.how)

    def channels_of_block(self, x: Tensor, block: int) -> Tensor:
        """The input channels, of every group, of a block of rows."""
        low, high = self.channels[block]
        if (low, high) == (0, self.shape[1]):
            return x
        if self.rank < 1:
            return x[..., low:high]
        if self.groups == 1:
            return x[:, low:high]
        n, channels, *size = x.shape
        grouped = x.reshape(n, self.groups, channels // self.groups, *size)
        return grouped[:, :, low:high].flatten(1, 2)

    def walk(self, size: tuple[int, int, int], inputs_an_image: int) -> Walk:
        """How the kernel moves over inputs of ``size`` (height, width, channels)."""
        kernel = (1, 1, *self.shape[2:])[-2:]
        stride, padding, dilation = ((1, 1), (0, 0), (1, 1))
        if self.rank:
            stride, padding, dilation = (_pair(value) for value in self.how[:3])
            padding = padding if self.rank == 2 else (0, padding[1])
        height, width = (
            (n + 2 * p - d * (k - 1) - 1) // s + 1
            for n, k, s, p, d in zip(size[:2], kernel, stride, padding, dilation, strict=True)
        )
        return Walk(
            *size,
            *(height, width),
            *(kernel[0], kernel[1]),
            *stride,
            *padding,
            *dilation,
            groups=self.groups,
            columns=self.n_columns,
            inputs_an_image=inputs_an_image,
        )


def channels_last(x: Tensor) -> Tensor:
    """Make channels innermost, with matching strides even if there is only one channel."""
    if x.ndim != 4:
        return x.contiguous()
    if x.stride(1) == 1 and x.is_contiguous(memory_format=torch.channels_last):
        return x
    return x.clone(memory_format=torch.channels_last)


def _pair(value: tuple[int, ...]) -> tuple[int, int]:
    """A setting of a convolution as a pair; one-dimensional inputs are images of height 1."""
    return (value[0], value[1]) if len(value) == 2 else (1, value[0])


def _pieces(size: int, largest: int | str) -> list[int]:
    """Split into nearly equal pieces of at most the largest size, as aihwkit splits a layer."""
    if isinstance(largest, str):
        return [size]
    n_pieces = -(-size // largest)
    base, extra = divmod(size, n_pieces)
    return [base + (i < extra) for i in range(n_pieces)]
