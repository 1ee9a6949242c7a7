"""The sections of device files around the memory cell: times, mapping, periphery, compensation."""

import math
from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal, Self

import pydantic
from pydantic import BeforeValidator, Field, PlainValidator, SerializeAsAny

from analog_samson.devices.named import OpenSection, named_section
from analog_samson.devices.section import Duration, Moment, Scale, Section, Table, neutral

Bits = Annotated[int, Field(ge=2, le=16)] | Literal["ideal"]
Fraction = Annotated[float, Field(ge=0, le=1)]
Lines = Annotated[int, Field(ge=1, le=1_000_000)] | Literal["unlimited"]
Bound = Annotated[float, Field(ge=1e-6, le=1e6)] | Annotated[float, Field(ge=math.inf)]


def no_truth_value(given: Any) -> Any:
    """Refuse true and false, which Python takes for 1 and 0 in a list of allowed numbers."""
    if isinstance(given, bool):
        raise ValueError(f"{str(given).lower()} is no number")
    return given


class Times(Section):
    """When the model holds: times after programming [s]."""

    not_swept: ClassVar[Mapping[str, str]] = dict.fromkeys(
        ("valid_from_s", "valid_to_s", "measured_to_s", "valid_times_s"),
        "it says at which times the model holds and changes no number",
    )

    valid_from_s: Moment = Field(
        default=0.0, description="earlier times, but for the programmed state, are an error"
    )
    valid_to_s: Duration | None = Field(default=None, description="later times are an error")
    measured_to_s: Duration | None = Field(
        default=None, description="later times are allowed and flagged as extrapolated"
    )
    valid_times_s: Annotated[tuple[Moment, ...], Field(strict=False, min_length=1)] | None = Field(
        default=None, description="the only times with data; others are an error"
    )

    @pydantic.model_validator(mode="after")
    def _in_order(self) -> Self:
        if self.valid_to_s is not None and self.valid_from_s > self.valid_to_s:
            raise ValueError(
                f"valid_from_s = {self.valid_from_s:g} lies after valid_to_s = "
                f"{self.valid_to_s:g}; no time would be left"
            )
        return self


class WeightMapping(Section):
    """How a weight matrix lies on crossbar arrays."""

    scale: Literal["column", "tile"] = Field(
        default="column", description="whose largest weight is given the largest conductance"
    )
    max_rows: Lines = Field(
        default=512, description="inputs of an array; a layer of more has several, added digitally"
    )
    max_columns: Lines = Field(
        default="unlimited", description="outputs of an array; a layer of more has several"
    )
    clip_quantile: Annotated[float, Field(gt=0, le=1)] = neutral(
        1.0, "weights are clipped at this quantile of |w| of their column or layer before mapping"
    )
    batch_norm: Literal["digital", "folded"] = neutral(
        "digital", "folded: into the weights of the layer before, ahead of mapping"
    )
    pair_significances: Annotated[
        tuple[Annotated[float, Field(ge=1e-6, le=1e6)], ...], Field(strict=False, min_length=1)
    ] = neutral((1.0,), "one differential pair a weight for each, lowest significance first")
    pair_tables_uS: Annotated[tuple[Table, ...], Field(strict=False)] = neutral(
        (), "G+ and G- of each pair over evenly spaced weights from -max|w| to max|w|"
    )
    reference_column: bool = neutral(
        False, "single devices: outputs minus those of a column held at the middle conductance"
    )

    @pydantic.model_validator(mode="after")
    def _two_tables_a_pair(self) -> Self:
        tables = self.pair_tables_uS
        if tables and (
            len(tables) != 2 * len(self.pair_significances) or len({len(t) for t in tables}) != 1
        ):
            raise ValueError(
                f"pair_tables_uS holds {len(tables)} tables; give two of equal length for each of "
                f"the {len(self.pair_significances)} pair_significances"
            )
        return self


class EffectSection(OpenSection):
    """The base of sections that describe an effect of the periphery; always named by import.

    Attributes:
        aihwkit_by: Importable name of its implementation on aihwkit's tiles,
            ``"package.module:name"``: called with the section, it gives an ``analog.Effect``. ""
            where there is none.
        compiled_by: The same for the compiled engine.
    """

    aihwkit_by: ClassVar[str] = ""
    compiled_by: ClassVar[str] = ""

    source: str = Field(description="key of references.bib")

    def implementation(self, engine: str) -> str:
        """Importable name of its implementation for an engine; "" where there is none."""
        return {"aihwkit": self.aihwkit_by, "compiled": self.compiled_by}[engine]


def _named_effect(given: Any) -> EffectSection:
    if (section := named_section(given, EffectSection)) is None:
        raise ValueError(
            "the key 'model' of an effect is its importable name, 'package.module:Name'"
        )
    return section


Effect = Annotated[SerializeAsAny[EffectSection], PlainValidator(_named_effect)]


class Periphery(Section):
    """Converters and bounds around an array; outputs in units of normalised weight x input."""

    source: str
    dac_bits: Bits
    adc_bits: Bits
    output_bound: Bound = Field(description="largest output of an array; inf: none")
    output_noise: Scale = Field(description="standard deviation, normalised output units")
    input_scaling: Literal["calibrated", "per_vector"] = neutral(
        "calibrated", "DAC range: fixed by calibration, or max|x| of every input vector (ABS_MAX)"
    )
    bound_management: Literal["none", "iterative"] = neutral(
        "none", "iterative: outputs that reach the bound are computed again at half the input"
    )
    mvm_read_noise: Scale = neutral(
        0.0, "weight read noise drawn anew in every product, relative to the largest weight"
    )
    mvm_read_noise_kind: Literal["pcm_read", "additive"] = neutral(
        "pcm_read",
        "standard deviation of an output: mvm_read_noise sqrt(sum |w| x^2), or "
        "mvm_read_noise sqrt(sum x^2) (additive)",
    )
    ir_drop: Scale = neutral(
        0.0, "scale of the voltage drop along columns, for wires of 0.35 ohm and cells of 5 uS"
    )

    effects: Annotated[tuple[Effect, ...], Field(strict=False)] = neutral(
        (), "effects of other packages, in the order in which they act"
    )

    @pydantic.model_validator(mode="after")
    def _steps_are_finite(self) -> Self:
        if self.adc_bits != "ideal" and math.isinf(self.output_bound):
            raise ValueError(
                f"adc_bits = {self.adc_bits} needs a finite output_bound, which its levels share; "
                "give one, or adc_bits = 'ideal'"
            )
        return self

    @property
    def is_ideal(self) -> bool:
        """Whether the array multiplies exactly: no converter, bound, noise, IR drop or effect."""
        return (
            not self.effects
            and self.mvm_read_noise == 0
            and self.ir_drop == 0
            and self.dac_bits == "ideal"
            and self.adc_bits == "ideal"
            and math.isinf(self.output_bound)
            and self.output_noise == 0
        )

    @property
    def is_by_vector(self) -> bool:
        """Whether scales, currents or noise depend on the single input vector of an array."""
        return not self.is_ideal and (
            self.input_scaling == "per_vector"
            or self.bound_management == "iterative"
            or self.mvm_read_noise > 0
            or self.ir_drop > 0
        )

    @property
    def needs_input_ranges(self) -> bool:
        """Whether inputs are clipped to a calibrated range before the DAC."""
        return not self.is_ideal and self.input_scaling == "calibrated"

    def without_implementation(self, engine: str) -> str:
        """Say which effect an engine ("aihwkit" or "compiled") has no implementation of, or ""."""
        for effect in self.effects:
            if not effect.implementation(engine):
                return f"the effect {effect.model!r} names no implementation for it"
        return ""


class InputRanges(Section):
    """How large an input the DAC of a layer takes, measured once on training images."""

    statistic: Literal["percentile", "largest"] = Field(
        default="percentile", description="99.995 % of |x|, or the largest |x|"
    )
    of: Literal["network", "chip"] = Field(
        default="network",
        description="where inputs are taken from: the digital network, the same for all chips, or "
        "the network with the weights that the chip holds when it is programmed",
    )

    @property
    def quantile(self) -> float:
        """The share of |x| that stays within the range."""
        return {"percentile": 0.99995, "largest": 1.0}[self.statistic]


class Faults(Section):
    """Devices that hold one conductance for ever, whatever is written; drawn with the chip.

    With the same seed, the devices that fail at a smaller fraction fail at a larger one too.
    """

    stuck_low: Fraction = Field(default=0.0, description="fraction of devices stuck at g_min")
    stuck_high: Fraction = Field(default=0.0, description="fraction of devices stuck at g_max")

    @pydantic.model_validator(mode="after")
    def _at_most_all(self) -> Self:
        if self.stuck_low + self.stuck_high > 1:
            raise ValueError(
                f"stuck_low = {self.stuck_low} and stuck_high = {self.stuck_high} are more than "
                "all devices; their sum must be at most 1"
            )
        return self


class LayerOverride(Section):
    """What is different in the layers that a pattern names; the first pattern that fits counts.

    ``noise`` replaces the section where it names another model, and single keys otherwise.
    """

    pattern: str = Field(
        min_length=1, description='name of a layer, with wildcards: "head", "stage3.*"'
    )
    digital: bool = False
    noise: dict[str, Any] = Field(default_factory=dict)
    faults: dict[str, float] = Field(default_factory=dict)
    drift_compensation: dict[str, Any] = Field(default_factory=dict)

    @pydantic.model_validator(mode="after")
    def _says_something(self) -> Self:
        on_chip = bool(self.noise or self.faults or self.drift_compensation)
        if self.digital == on_chip:
            raise ValueError(
                f"the entry for {self.pattern!r} must either be digital or change noise, faults or "
                "drift_compensation"
            )
        return self


class DriftCompensation(Section):
    """Digital rescaling of an array's outputs by a factor alpha measured at read time."""

    kind: Literal["none", "global", "per_column", "per_layer"] = Field(
        description="one factor an array, a column, or a layer (least squares on training images)"
    )
    read_outs: Annotated[
        Literal[1] | Annotated[float, Field(ge=math.inf)], BeforeValidator(no_truth_value)
    ] = Field(
        default=math.inf,
        description="inf: exact, without the periphery's noise; 1: one noisy read-out, as aihwkit",
    )
    batch_norm: Literal["trained", "recalibrated"] = neutral(
        "trained", "recalibrated: statistics taken anew on training images at every read"
    )

    @property
    def label(self) -> str:
        """Name for tables: "global", "global, noisy read-out", "none", ..."""
        noisy = self.kind != "none" and not math.isinf(self.read_outs)
        parts: list[str] = [self.kind]
        if noisy:
            parts.append("noisy read-out")
        if self.batch_norm == "recalibrated":
            parts.append("batch norm recalibrated")
        return ", ".join(parts)
