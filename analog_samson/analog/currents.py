"""Currents of cells that are not conductance times voltage: read noise of products, curved I-V.

The two cells of a pair conduct g_min + |w| / w_max (g_max - g_min) and g_min at a normalised weight
w, where w_max is the largest target weight of the array: 1, unless the scales of the array were
fixed by training. So everything here is a function of the weight as read. Outputs are in units of
weight x input.
"""

import functools
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from analog_samson.devices import Device


@dataclass(frozen=True)
class CellCurrents:
    """What the currents of pairs add to the product of weights and inputs.

    Attributes:
        g_min_uS: Conductance of a weight of zero [µS].
        g_max_uS: Conductance of the largest weight [µS].
        noise_uS: Spread of the conductance of a cell from product to product, at large g [µS].
        knee_uS: Conductance below which that spread is smaller [µS].
        voltage_V: Voltage of the largest input [V].
        iv_powers: For V^2, V^3, ...: coefficients over the powers of log10(g / S).
    """

    g_min_uS: float
    g_max_uS: float
    noise_uS: float
    knee_uS: float
    voltage_V: float
    iv_powers: tuple[tuple[float, ...], ...]

    @property
    def is_noisy(self) -> bool:
        """Whether every product draws noise."""
        return self.noise_uS > 0

    def added(self, weights: Tensor, largest: Tensor) -> list[tuple[int, Tensor]]:
        """Powers of the inputs, and the weights that they are multiplied with.

        Args:
            weights: Normalised weights, any shape.
            largest: Largest target weight of the array of each, which has g_max; broadcast.

        Returns:
            For every power above 1 of the current, its matrix, shape of the weights.
        """
        found = []
        for power, coefficients in enumerate(self.iv_powers, start=2):
            if any(coefficients):
                of_pair = self._term(self._g(weights, largest), coefficients) - self._term(
                    torch.full_like(weights, self.g_min_uS), coefficients
                )
                # a current in A is 1e6 µS V; relative to that of the largest weight and input
                factor = 1e6 * self.voltage_V ** (power - 1) / self._range
                matrix = (weights.sign() * of_pair.to(weights)) * factor
                found.append((power, matrix * largest))
        return found

    def variance(self, weights: Tensor, largest: Tensor) -> Tensor:
        """Variance of each weight from product to product; arguments as those of ``added``."""
        both = self._spread(self._g(weights, largest)) ** 2
        both = both + self._spread(torch.full_like(weights, self.g_min_uS)) ** 2
        return both / self._range**2 * largest**2

    @property
    def _range(self) -> float:
        return self.g_max_uS - self.g_min_uS

    def _g(self, weights: Tensor, largest: Tensor) -> Tensor:
        return self.g_min_uS + weights.abs() / largest * self._range

    def _spread(self, g_uS: Tensor) -> Tensor:
        return -self.noise_uS * torch.expm1(-g_uS / self.knee_uS)

    def _term(self, g_uS: Tensor, coefficients: tuple[float, ...]) -> Tensor:
        """Polynomial of log10(g / S), in double precision: its terms nearly cancel."""
        logarithm = (g_uS.double() * 1e-6).clamp(min=_LEAST_S).log10()
        value = torch.zeros_like(logarithm)
        for coefficient in reversed(coefficients):
            value = value * logarithm + coefficient
        return value.where(g_uS >= _LEAST_uS, 0.0)


_LEAST_uS = 1e-3  # below it the current is that of Ohm's law, as in CrossSim
_LEAST_S = 1e-16


def largest_of(target: Tensor) -> Tensor:
    """Largest target weight of an array, or of those of all groups at one position; above 0."""
    largest = target.abs().max()
    return torch.where(largest == 0, 1.0, largest)


def currents_of(device: Device, layer: str = "") -> CellCurrents | None:
    """The currents of the cells of a layer; None if they are conductance times voltage."""
    periphery = device.periphery
    if not periphery.has_cell_currents:
        return None
    g_min, g_max = device.with_overrides_for(layer).noise.conductance_range
    return CellCurrents(
        g_min_uS=g_min,
        g_max_uS=g_max,
        noise_uS=periphery.mvm_read_noise_uS,
        knee_uS=periphery.mvm_read_noise_knee_uS or 1.0,
        voltage_V=periphery.iv_voltage_V or 0.0,
        iv_powers=(periphery.iv_square_powers, periphery.iv_cube_powers),
    )


class WithCurrents:
    """Products of aihwkit's torch tile with currents of cells; replaces its ``AnalogMVM``.

    Args:
        currents: The currents.
        largest: Largest target weight of the array.
    """

    def __init__(self, currents: CellCurrents, largest: float) -> None:
        self._currents, self._largest = currents, largest

    def matmul(self, *arguments: Any, **options: Any) -> Tensor:
        """Compute aihwkit's product, with what the currents add to it."""
        product: Tensor = _mvm_with(self._currents, self._largest).matmul(*arguments, **options)
        return product


@functools.lru_cache(maxsize=256)
def _mvm_with(currents: CellCurrents, largest: float) -> Any:
    from aihwkit.simulator.tiles.analog_mvm import AnalogMVM

    of_array = torch.tensor(largest)

    class MVM(AnalogMVM):  # type: ignore[misc]
        @classmethod
        def _matmul(cls, weight: Tensor, input_: Tensor, trans: bool = False) -> Tensor:
            product: Tensor = super()._matmul(weight, input_, trans)
            for power, added in currents.added(weight, of_array):
                product = product + super()._matmul(added, input_**power, trans)
            if currents.is_noisy:
                variance = super()._matmul(currents.variance(weight, of_array), input_**2, trans)
                product = product + variance.clamp(min=0).sqrt() * torch.randn_like(product)
            return product

    return MVM
