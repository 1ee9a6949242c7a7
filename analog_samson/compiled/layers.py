"""A layer on arrays: the module that replaces a linear or convolutional layer."""

from collections.abc import Callable
from typing import Self

import torch
from torch import Tensor, nn

from analog_samson.compiled import kernels
from analog_samson.compiled.computing import CPU, Computing, Ideal, Pass, SeveralRanges
from analog_samson.compiled.currents import WithCurrents
from analog_samson.compiled.effects import WithEffects
from analog_samson.compiled.mapped import Array, MappedLayer
from analog_samson.compiled.per_vector import PerVector
from analog_samson.compiled.static_range import StaticRange
from analog_samson.devices import Device
from analog_samson.models import Range

Seeds = Callable[..., int]
"""Maps the name of a layer and the index of a row block to the random key of its noise."""


def computing_for(mapped: MappedLayer, where: torch.device) -> Computing:
    """Choose the computation of a layer on an accelerator."""
    periphery = mapped.periphery
    if periphery.is_ideal:
        return Ideal(mapped)
    if periphery.needs_input_ranges and len(parts := mapped.by_range()) > 1:
        return SeveralRanges(mapped, [computing_for(part, where) for part in parts])
    if mapped.currents is not None:
        return WithCurrents(mapped)
    if periphery.effects:
        return WithEffects(mapped)
    is_flat = mapped.geometry.rank == 0 and mapped.dtype == torch.float32
    in_c = where == CPU and kernels.library() is not None
    if periphery.is_per_vector or (is_flat and in_c):
        return PerVector(mapped)
    return StaticRange(mapped)


class FunctionalLayer(nn.Module):
    """A linear or convolutional layer on arrays.

    Args:
        name: Its dotted name.
        layer: The digital layer.
        device: The device, which gives mapping and periphery.
        input_range: Input range of the DAC, or of each array, model units; NaN if there is none.
        dtype: Type that inputs, weights and products are rounded to.

    Attributes:
        mapped: What all chips share.
        arrays: Its arrays, all groups in one, ordered by row block and column block.
        computing: Its computation.
    """

    bias: Tensor | None

    def __init__(
        self,
        name: str,
        layer: nn.Module,
        device: Device,
        input_range: Range,
        dtype: torch.dtype = torch.float32,
    ) -> None:
        mapped = MappedLayer(name, layer, device, input_range, dtype)
        self._start(mapped, mapped.arrays, computing_for(mapped, CPU))

    def fresh(self) -> Self:
        """A copy for another chip, on arrays that hold their target weights."""
        other = type(self).__new__(type(self))
        arrays = [array.fresh() for array in self.mapped.arrays]
        other._start(self.mapped, arrays, self.computing.fresh())
        return other

    def _start(self, mapped: MappedLayer, arrays: list[Array], computing: Computing) -> None:
        super().__init__()
        self.register_buffer("bias", mapped.bias)
        self.mapped, self.arrays, self.computing = mapped, arrays, computing
        self._now = Pass(len(mapped.geometry.rows))
        self._where = CPU

    @property
    def structure(self) -> tuple[object, ...]:
        """What a traced graph of this layer depends on; everything else is a tensor."""
        how = self.computing.channels_last, self.mapped.dtype
        return *self.mapped.geometry.structure, *how, *self.computing.structure

    def set_layout(self, channels_last: bool) -> None:
        """Set whether channels are the innermost dimension of images."""
        self.computing.channels_last = channels_last
        self._now.loaded = -1

    def replace_computing(self, computing: Computing) -> None:
        """Compute with another computation of the same layer, which loads the arrays anew."""
        self.computing = computing
        self._now.loaded = -1

    def model_weights(self) -> Tensor:
        """Weights in model units, shape of the layer's weights, without compensation."""
        whole = self.mapped.join(self.arrays, lambda a: a.weights * a.scale[..., None])
        return whole.view(self.mapped.geometry.shape)

    def keys(self, seeds: Seeds) -> list[int]:
        """Random keys of the noise, one per row block; 0 without noise."""
        mapped, n_blocks = self.mapped, len(self.mapped.geometry.rows)
        if not mapped.is_noisy:
            return [0] * n_blocks
        return [seeds(mapped.name, block) for block in range(n_blocks)]

    def prepare(
        self, n_images: int, first_image: int, seeds: Seeds, where: torch.device = CPU
    ) -> None:
        """Prepare the next forward pass: weights, keys of the noise, index of the first image.

        The arrays stay on the CPU; operands are moved to the accelerator ``where``. Keys are
        derived again if ``seeds`` is not the same object as in the previous call.
        """
        now, mapped = self._now, self.mapped
        now.n_images, now.call = n_images, 0
        if where != self._where:
            self._move_to(where)
        if mapped.is_noisy and seeds is not now.seeds:
            now.stream = torch.tensor([first_image, *self.keys(seeds)], device=where)
            now.seeds = seeds
        else:
            now.stream[0] = first_image
        if (version := sum(array.version for array in self.arrays)) != now.loaded:
            self.computing.load(self.arrays, where)
            now.loaded = version

    def _move_to(self, where: torch.device) -> None:
        is_last = self.computing.channels_last
        self.computing = computing_for(self.mapped, where)
        self.set_layout(is_last)
        self._now.stream = self._now.stream.to(where)
        self._where = where

    def exact_matrix(self) -> tuple[Tensor, Tensor | None] | None:
        """Weights with compensation, and bias; None if outputs are not exactly their product."""
        is_exact = isinstance(self.computing, Ideal) and self.mapped.dtype == torch.float32
        return self.computing.matrix if is_exact else None  # type: ignore[attr-defined]

    def forward(self, x: Tensor) -> Tensor:
        """Outputs of the layer, including the bias."""
        return self.computing(x, self._now)
