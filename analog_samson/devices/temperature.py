"""Temperature of a chip after programming: an Arrhenius factor of the time that drift sees."""

import math
from typing import Annotated, Self

import pydantic
from pydantic import Field

from analog_samson.devices.section import Section, neutral
from analog_samson.times import LONGEST_S

ZERO_CELSIUS_K = 273.15
BOLTZMANN_EV_PER_K = 1.380649e-23 / 1.602176634e-19
"""Boltzmann's constant over the elementary charge, both exact by definition of the SI."""

Celsius = Annotated[float, Field(gt=-ZERO_CELSIUS_K, le=2000, allow_inf_nan=False)]
ActivationEnergy = Annotated[float, Field(ge=0, le=10, allow_inf_nan=False)]


class Temperature(Section):
    """Time since programming counts exp(E_a / k (1 / T_reference - 1 / T)) times at a temperature.

    The noise model is evaluated at this effective time, accumulated read noise included.

    Example:
        >>> hot = dict(temperature_C=85.0, reference_C=25.0, activation_energy_eV=0.6)
        >>> Temperature(source="our choice", **hot).temperature_C
        85.0
    """

    source: str = neutral(
        "", "key of references.bib, or a sentence that the numbers are your choice"
    )
    temperature_C: Celsius | None = neutral(None, "of the chip after programming; none: reference")
    reference_C: Celsius | None = neutral(None, "temperature at which the cells were measured")
    activation_energy_eV: ActivationEnergy | None = neutral(None, "E_a of what changes with time")

    @pydantic.model_validator(mode="after")
    def _is_complete(self) -> Self:
        given = self.temperature_C, self.reference_C, self.activation_energy_eV
        if given == (None, None, None):
            return self
        if not self.source:
            raise ValueError(
                "source is missing: give a key of references.bib, or a sentence that the "
                "activation energy is your choice"
            )
        if self.activation_energy_eV is None or self.reference_C is None:
            named = ("reference_C", "activation_energy_eV")
            missing = " and ".join(name for name in named if getattr(self, name) is None)
            raise ValueError(
                "a temperature needs reference_C, at which the cells were measured, and "
                f"activation_energy_eV; {missing} {'are' if ' and ' in missing else 'is'} missing"
            )
        if not abs(self._exponent) <= math.log(LONGEST_S):
            raise ValueError(
                f"activation_energy_eV = {self.activation_energy_eV:g} at {self.temperature_C:g} "
                f"°C would multiply the time by e^{self._exponent:.3g}; a factor lies between "
                f"{1 / LONGEST_S:g} and {LONGEST_S:g}"
            )
        return self

    @property
    def _exponent(self) -> float:
        if None in (self.temperature_C, self.reference_C, self.activation_energy_eV):
            return 0.0
        now, reference = (
            1 / (BOLTZMANN_EV_PER_K * (celsius + ZERO_CELSIUS_K))  # type: ignore[operator]
            for celsius in (self.temperature_C, self.reference_C)
        )
        return self.activation_energy_eV * (reference - now)  # type: ignore[operator]

    @property
    def time_factor(self) -> float:
        """Effective time over time since programming; 1 at the reference temperature."""
        return math.exp(self._exponent)

    @property
    def label(self) -> str:
        """Name for datasheets: "85 °C (measured at 25 °C), E_a = 0.2 eV"; "" if neutral."""
        if self.time_factor == 1:
            return ""
        return (
            f"{self.temperature_C:g} °C (measured at {self.reference_C:g} °C), "
            f"E_a = {self.activation_energy_eV:g} eV"
        )
