"""A fixed-range periphery with cells whose currents are not conductance times voltage."""

from collections.abc import Sequence
from typing import cast

import torch
from torch import Tensor

from analog_samson.analog import CellCurrents, largest_of
from analog_samson.compiled import kernels
from analog_samson.compiled.computing import Pass
from analog_samson.compiled.mapped import Array, MappedLayer
from analog_samson.compiled.static_range import StaticRange


class WithCurrents(StaticRange):
    """Products of powers of the inputs, and read noise of cells, before the ADC.

    The read noise of one product is normal with the sum of the variances of its cells. It is drawn
    at the output, as one normal with output noise; noise of every cell has the same distribution.
    """

    def __init__(self, mapped: MappedLayer) -> None:
        super().__init__(mapped)
        self._currents = cast(CellCurrents, mapped.currents)
        self._dac_step, self._adc_step = mapped.dac_step or 1.0, mapped.adc_step or 1.0
        self._output_variance = self._noise_and_bound[:1] ** 2
        if self._currents.is_noisy:  # output noise is part of it
            self._noise_and_bound[0], self._is_noisy = 0.0, False
        self._added: list[list[tuple[int, Tensor]]] = []  # by block: power and weights
        self._variances: list[Tensor] = []

    @property
    def structure(self) -> tuple[object, ...]:
        """What a traced graph depends on in addition to shapes."""
        return *super().structure, self._currents, self._dac_step, self._adc_step

    def load(self, arrays: Sequence[Array], where: torch.device) -> None:
        """Load weights and scales, and what the currents add to them."""
        super().load(arrays, where)
        currents, adc = self._currents, self._adc_step
        whole = self.mapped.join(arrays, lambda array: array.weights)
        largest = self.mapped.join(
            arrays, lambda array: largest_of(array.target).expand_as(array.target)
        )
        powers = [
            [(power, block) for block in self._by_block(added / adc, where)]
            for power, added in currents.added(whole, largest)
        ]
        self._added = [list(of_block) for of_block in zip(*powers, strict=True)]
        self._variances = []
        if currents.is_noisy:
            self._variances = self._by_block(currents.variance(whole, largest) / adc**2, where)
            self._output_variance = self._output_variance.to(where)

    def _outputs(self, product: Tensor, levels: Tensor, block: int, now: Pass) -> Tensor:
        x = self.geometry.channels_of_block(levels, block) * self._dac_step
        for power, weights in self._added[block] if self._added else ():
            product = product + self._product(x**power, weights)
        if not self._variances:
            return product
        variance = self._product(x**2, self._variances[block]).float().clamp(min=0)
        drawn = kernels.normals(variance, now.n_images, now.stream, block=block, call=now.call)
        return product + (variance + self._output_variance).sqrt() * drawn
