"""How a layer computes with what its arrays hold: one class for each kind of periphery.

Each class shows the chain of its periphery in ``__call__``. :class:`Ideal` is here; converters of a
fixed input range are in :mod:`~analog_samson.compiled.static_range`, per-vector input scaling, IR
drop and read noise of products in :mod:`~analog_samson.compiled.per_vector`.
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
    """What one forward pass tells a layer; no attributes of a module, which are slow to set.

    Attributes:
        n_images: Images in the batch.
        call: How often the layer was used in this pass already.
        stream: int64: number of the first image in the whole set, then a key for every row block.
    """

    def __init__(self, n_row_blocks: int) -> None:
        self.n_images, self.call = 0, 0
        self.stream = torch.zeros(1 + n_row_blocks, dtype=torch.int64)


class Computing:
    """How a layer computes: constants of the periphery, and what the arrays hold.

    Whatever differs between chips, times, networks and values of a swept axis is a tensor, so that
    the graph of a network depends on its shapes only.

    Attributes:
        mapped: The layer as mapped.
        channels_last: Whether images have their channels innermost. The number of an output, which
            its noise derives from, is its place in memory.
        is_batch_invariant: Whether outputs are the same bits whatever the size of the batch.
    """

    is_batch_invariant = False

    def __init__(self, mapped: MappedLayer) -> None:
        self.mapped, self.geometry = mapped, mapped.geometry
        self.channels_last = True

    @property
    def structure(self) -> tuple[object, ...]:
        """What a graph depends on besides shapes."""
        raise NotImplementedError

    def load(self, arrays: Sequence[Array], where: torch.device) -> None:
        """Take what arrays hold now; what is multiplied goes to a device of torch."""
        raise NotImplementedError

    def __call__(self, x: Tensor, now: Pass) -> Tensor:
        """Outputs of the layer, bias included."""
        raise NotImplementedError

    def fresh(self) -> Self:
        """The same for another chip; constants are shared."""
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
        """What a graph depends on besides shapes."""
        return ("ideal",)

    def load(self, arrays: Sequence[Array], where: torch.device) -> None:
        """Take weights and compensation as one matrix."""
        whole = self.mapped.join(arrays, lambda a: a.weights * (a.scale * a.alpha)[..., None])
        self._weight = self._laid_out(whole.view(self.geometry.shape)).to(where)
        self._bias = None if self.mapped.bias is None else self.mapped.bias.to(where)

    def __call__(self, x: Tensor, now: Pass) -> Tensor:
        """Product and bias."""
        if self.mapped.dtype == torch.float32:
            return self._product(x, self._weight, self._bias)
        product = self._product(x, self._weight).to(x.dtype)
        if self._bias is None:
            return product
        return product + self._bias.view(-1, *[1] * self.geometry.rank)
