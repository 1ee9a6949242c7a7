"""Computation of a layer on arrays: one class for each kind of periphery.

``__call__`` of each class shows the steps of its periphery. :class:`Ideal` is here. Converters of a
fixed input range are in :mod:`~analog_samson.compiled.static_range`; per-vector input scaling, IR
drop and read noise of products are in :mod:`~analog_samson.compiled.per_vector`.
"""

import copy
from collections.abc import Sequence
from typing import Self

import torch
from torch import Tensor

from analog_samson.compiled.geometry import channels_last
from analog_samson.compiled.mapped import Array, MappedLayer

CPU = torch.device("cpu")


class Pass:
    """State of a layer in one forward pass; not a module, whose attributes are slow to set.

    Attributes:
        n_images: Number of images in the batch.
        call: Number of earlier uses of the layer in this pass.
        stream: int64, shape (1 + row blocks,): index of the first image in the whole set, then the
            random key of every row block.
        seeds: What the keys in the stream were derived from.
        loaded: Version of the arrays whose contents are loaded; -1: none.
    """

    def __init__(self, n_row_blocks: int) -> None:
        self.n_images, self.call = 0, 0
        self.stream = torch.zeros(1 + n_row_blocks, dtype=torch.int64)
        self.seeds: object = None
        self.loaded = -1


class Computing:
    """Computation of a layer: constants of the periphery, and contents of the arrays.

    Everything that differs between chips, times, networks and values of a swept axis is a tensor,
    so that the graph of a network depends on its shapes only.

    Attributes:
        mapped: The layer as mapped.
        channels_last: Whether channels are the innermost dimension of images. The noise of an
            output depends on its index in memory.
        is_batch_invariant: Whether outputs are bit-identical for every batch size.
    """

    is_batch_invariant = False

    def __init__(self, mapped: MappedLayer) -> None:
        self.mapped, self.geometry = mapped, mapped.geometry
        self.channels_last = True

    @property
    def structure(self) -> tuple[object, ...]:
        """What a traced graph depends on in addition to shapes."""
        raise NotImplementedError

    def load(self, arrays: Sequence[Array], where: torch.device) -> None:
        """Load the present contents of arrays; operands go to the accelerator ``where``."""
        raise NotImplementedError

    def __call__(self, x: Tensor, now: Pass) -> Tensor:
        """Outputs of the layer, including the bias."""
        raise NotImplementedError

    def fresh(self) -> Self:
        """A copy for another chip; constants are shared."""
        return copy.copy(self)

    def _product(self, x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
        """Multiply in the layer's precision."""
        return self.geometry.product(x.to(self.mapped.dtype), weight, bias, self.channels_last)

    def _laid_out(self, weight: Tensor) -> Tensor:
        weight = weight.to(self.mapped.dtype)
        return channels_last(weight) if self.channels_last else weight.contiguous()


class Ideal(Computing):
    """Ideal periphery: the arrays of a layer are one matrix."""

    @property
    def structure(self) -> tuple[object, ...]:
        """What a traced graph depends on in addition to shapes."""
        return ("ideal",)

    def load(self, arrays: Sequence[Array], where: torch.device) -> None:
        """Load weights times compensation as one matrix."""
        whole = self.mapped.join(arrays, lambda a: a.weights * (a.scale * a.alpha)[..., None])
        self._weight = self._laid_out(whole.view(self.geometry.shape)).to(where)
        self._bias = None if self.mapped.bias is None else self.mapped.bias.to(where)

    @property
    def matrix(self) -> tuple[Tensor, Tensor | None]:
        """Weights times compensation, and bias."""
        return self._weight, self._bias

    def __call__(self, x: Tensor, now: Pass) -> Tensor:
        """Product and bias."""
        if self.mapped.dtype == torch.float32:
            return self._product(x, self._weight, self._bias)
        product = self._product(x, self._weight).to(x.dtype)
        if self._bias is None:
            return product
        return product + self._bias.view(-1, *[1] * self.geometry.rank)


class SeveralRanges(Computing):
    """Arrays of one layer with different input ranges: one computation for each range.

    Args:
        mapped: The layer as mapped.
        parts: One computation for each entry of ``mapped.by_range()``.
    """

    def __init__(self, mapped: MappedLayer, parts: Sequence[Computing]) -> None:
        super().__init__(mapped)
        self._parts = list(parts)
        self.is_batch_invariant = all(part.is_batch_invariant for part in parts)

    @property
    def structure(self) -> tuple[object, ...]:
        """What a traced graph depends on in addition to shapes."""
        return "ranges", *(part.structure for part in self._parts)

    def load(self, arrays: Sequence[Array], where: torch.device) -> None:
        """Load the present contents of arrays into every part."""
        for part in self._parts:
            part.channels_last = self.channels_last
            part.load(arrays, where)

    def fresh(self) -> Self:
        """A copy for another chip; constants are shared."""
        other = super().fresh()
        other._parts = [part.fresh() for part in self._parts]
        return other

    def __call__(self, x: Tensor, now: Pass) -> Tensor:
        """The sum of all parts, which draw the same noise: each array counts in one of them."""
        call = now.call
        total = self._parts[0](x, now)
        for part in self._parts[1:]:
            now.call = call
            total = total + part(x, now)
        return total
