"""A layer on arrays: the module that takes the place of a linear or convolutional layer."""

from collections.abc import Callable
from typing import Self

import torch
from torch import Tensor, nn

from analog_samson.compiled import kernels
from analog_samson.compiled.computing import CPU, Computing, Ideal, Pass
from analog_samson.compiled.effects import WithEffects
from analog_samson.compiled.mapped import Array, MappedLayer
from analog_samson.compiled.per_vector import PerVector
from analog_samson.compiled.static_range import StaticRange
from analog_samson.devices import Device

Seeds = Callable[..., int]
"""Maps the name of a layer and the number of a row block to the key of its noise."""


def computing_for(mapped: MappedLayer, where: torch.device) -> Computing:
    """Choose how a layer computes on a device of torch."""
    periphery = mapped.periphery
    if periphery.is_ideal:
        return Ideal(mapped)
    if periphery.effects:
        return WithEffects(mapped)
    is_flat = mapped.geometry.rank == 0 and mapped.dtype == torch.float32
    in_c = where == CPU and kernels.library() is not None
    if periphery.is_by_vector or (is_flat and in_c):
        return PerVector(mapped)
    return StaticRange(mapped)


class FunctionalLayer(nn.Module):
    """A linear or convolutional layer on arrays.

    Args:
        name: Its dotted name.
        layer: The digital layer.
        device: The device whose mapping and periphery it gets.
        input_range: Largest input its DAC takes, model units; NaN where there is none.
        dtype: What inputs, weights and their product are rounded to.

    Attributes:
        mapped: What all chips have in common.
        arrays: Its arrays, those of all groups as one, ordered by row block and column block.
        computing: How it computes.
    """

    bias: Tensor | None

    def __init__(
        self,
        name: str,
        layer: nn.Module,
        device: Device,
        input_range: float,
        dtype: torch.dtype = torch.float32,
    ) -> None:
        mapped = MappedLayer(name, layer, device, input_range, dtype)
        self._start(mapped, mapped.arrays, computing_for(mapped, CPU))

    def fresh(self) -> Self:
        """The same layer for another chip, on arrays that hold their targets."""
        other = type(self).__new__(type(self))
        arrays = [array.fresh() for array in self.mapped.arrays]
        other._start(self.mapped, arrays, self.computing.fresh())
        return other

    def _start(self, mapped: MappedLayer, arrays: list[Array], computing: Computing) -> None:
        super().__init__()
        self.register_buffer("bias", mapped.bias)
        self.mapped, self.arrays, self.computing = mapped, arrays, computing
        self._now = Pass(len(mapped.geometry.rows))
        self._seeds: Seeds | None = None  # those that the stream holds
        self._loaded = -1
        self._where = CPU

    @property
    def structure(self) -> tuple[object, ...]:
        """What a graph of this layer depends on; all else are tensors."""
        how = self.computing.channels_last, self.mapped.dtype
        return *self.mapped.geometry.structure, *how, *self.computing.structure

    def set_layout(self, channels_last: bool) -> None:
        """Say whether images have their channels innermost."""
        self.computing.channels_last = channels_last
        self._loaded = -1

    def model_weights(self) -> Tensor:
        """Weights in model units, the layer's shape, without compensation."""
        whole = self.mapped.join(self.arrays, lambda a: a.weights * a.scale[..., None])
        return whole.view(self.mapped.geometry.shape)

    def keys(self, seeds: Seeds) -> list[int]:
        """Keys of the noise, one a row block; 0 where there is none."""
        mapped, n_blocks = self.mapped, len(self.mapped.geometry.rows)
        if not mapped.is_noisy:
            return [0] * n_blocks
        return [seeds(mapped.name, block) for block in range(n_blocks)]

    def prepare(
        self, n_images: int, first_image: int, seeds: Seeds, where: torch.device = CPU
    ) -> None:
        """Set what the next forward pass needs: weights, keys of the noise, number of the image.

        The arrays themselves stay on the CPU; what is multiplied goes to ``where``. Keys are asked
        for again where ``seeds`` is another object than the last time.
        """
        now, mapped = self._now, self.mapped
        now.n_images, now.call = n_images, 0
        if where != self._where:
            self._move_to(where)
        if mapped.is_noisy and seeds is not self._seeds:
            now.stream[1:] = torch.tensor(self.keys(seeds))
            self._seeds = seeds
        now.stream[0] = first_image
        if (version := sum(array.version for array in self.arrays)) != self._loaded:
            self.computing.load(self.arrays, where)
            self._loaded = version

    def _move_to(self, where: torch.device) -> None:
        is_last = self.computing.channels_last
        self.computing = computing_for(self.mapped, where)
        self.set_layout(is_last)
        self._now.stream = self._now.stream.to(where)
        self._where = where

    def forward(self, x: Tensor) -> Tensor:
        """Outputs of the layer, bias included."""
        return self.computing(x, self._now)
