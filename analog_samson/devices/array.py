"""The sections of device files around the memory cell: times, mapping, periphery, compensation."""

import math
from typing import Annotated, Literal

from pydantic import Field, NonNegativeFloat, PositiveFloat, PositiveInt

from analog_samson.devices.section import Scale, Section

Bits = Annotated[int, Field(ge=2, le=16)] | Literal["ideal"]


class Times(Section):
    """When the model holds: times after programming [s]."""

    valid_from_s: NonNegativeFloat = 0.0
    measured_to_s: PositiveFloat | None = Field(
        default=None, description="later times are allowed and flagged as extrapolated"
    )
    valid_times_s: Annotated[tuple[NonNegativeFloat, ...], Field(min_length=1)] | None = Field(
        default=None, description="the only times with data; others are an error"
    )


class WeightMapping(Section):
    """How a weight matrix lies on crossbar arrays."""

    scale: Literal["column", "tile"] = "column"
    max_rows: PositiveInt | Literal["unlimited"] = 512
    max_columns: PositiveInt | Literal["unlimited"] = "unlimited"


class Periphery(Section):
    """Converters and bounds around an array; outputs in units of normalised weight x input."""

    source: str
    dac_bits: Bits
    adc_bits: Bits
    output_bound: PositiveFloat = Field(description="largest output of an array; inf: none")
    output_noise: Scale = Field(description="standard deviation, normalised output units")

    @property
    def is_ideal(self) -> bool:
        """Whether the array multiplies exactly: no converter, no bound, no output noise."""
        return (
            self.dac_bits == "ideal"
            and self.adc_bits == "ideal"
            and math.isinf(self.output_bound)
            and self.output_noise == 0
        )

    @property
    def needs_input_ranges(self) -> bool:
        """Whether inputs are clipped to a calibrated range before the DAC."""
        return not self.is_ideal


class DriftCompensation(Section):
    """Digital rescaling of an array's outputs by a factor alpha measured at read time."""

    kind: Literal["none", "global", "per_column"]
    read_outs: Literal[1] | Annotated[float, Field(ge=math.inf)] = Field(
        default=math.inf,
        description="inf: exact, without the periphery's noise; 1: one noisy read-out, as aihwkit",
    )

    @property
    def label(self) -> str:
        """Name for tables: "global", "global, noisy read-out", "none", ..."""
        noisy = self.kind != "none" and not math.isinf(self.read_outs)
        return f"{self.kind}, noisy read-out" if noisy else self.kind
