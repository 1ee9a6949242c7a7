"""Variation between chips and between arrays: how much the scales of the noise model differ."""

import math
from typing import Annotated, Self

import pydantic
from pydantic import Field

from analog_samson.devices.noise import NoiseSection
from analog_samson.devices.section import Section, neutral

RelativeSpread = Annotated[float, Field(ge=0, le=10, allow_inf_nan=False)]
"""A standard deviation relative to the mean."""

SCALES = {"programming": "programming_noise_scale", "drift": "drift_scale"}
"""What varies, and the key of the noise section that is multiplied."""


class Variation(Section):
    """Differences between chips and between arrays, as factors of two scales of the noise model.

    The factors are log-normal with mean 1, drawn once: one of each kind for a chip, one for each of
    its arrays. The scale of an array is that of the device times both. ``drift_scale`` multiplies
    the drift exponents of all cells, or what the model has in their place.

    Example:
        >>> Variation(source="our choice", drift_by_chip=0.1).is_used, Variation().is_used
        (True, False)
    """

    source: str = neutral(
        "", "key of references.bib, or a sentence that the numbers are your choice"
    )
    programming_by_chip: RelativeSpread = neutral(
        0.0, "relative standard deviation of a chip's factor of noise.programming_noise_scale"
    )
    programming_by_array: RelativeSpread = neutral(0.0, "the same, of an array's factor")
    drift_by_chip: RelativeSpread = neutral(
        0.0, "relative standard deviation of a chip's factor of noise.drift_scale: all exponents"
    )
    drift_by_array: RelativeSpread = neutral(0.0, "the same, of an array's factor")

    @pydantic.model_validator(mode="after")
    def _has_a_source(self) -> Self:
        if self.is_used and not self.source:
            raise ValueError(
                "source is missing: give a key of references.bib, or a sentence that the numbers "
                "are your choice"
            )
        return self

    @property
    def is_used(self) -> bool:
        """Whether chips or arrays differ."""
        return any(self.of(kind) > 0 for kind in SCALES)

    @property
    def is_by_array(self) -> bool:
        """Whether arrays of a chip differ."""
        return self.programming_by_array > 0 or self.drift_by_array > 0

    def of(self, kind: str) -> float:
        """Relative standard deviation of a scale over arrays of different chips.

        Args:
            kind: "programming" or "drift".
        """
        by_chip, by_array = getattr(self, f"{kind}_by_chip"), getattr(self, f"{kind}_by_array")
        return math.sqrt((1 + by_chip**2) * (1 + by_array**2) - 1)

    def check_applies(self, noise: NoiseSection) -> None:
        """Raise ValueError if a noise model lacks a scale that is to vary."""
        for kind, key in SCALES.items():
            if self.of(kind) > 0 and not hasattr(noise, key):
                raise ValueError(
                    f"variation.{kind}_by_chip and {kind}_by_array multiply noise.{key}, which "
                    f"{noise.model} does not have; leave them out"
                )

    @property
    def label(self) -> str:
        """Name for datasheets: "programming 10 % by chip, drift 5 % by array"; "" if unused."""
        return ", ".join(
            f"{kind} {100 * spread:g} % by {unit}"
            for kind in SCALES
            for unit in ("chip", "array")
            if (spread := getattr(self, f"{kind}_by_{unit}")) > 0
        )
