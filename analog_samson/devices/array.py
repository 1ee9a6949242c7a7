"""The sections of device files around the memory cell: times, mapping, periphery, compensation."""

import fnmatch
import math
from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal, Self

import pydantic
from pydantic import BeforeValidator, Field, PlainValidator, SerializeAsAny

from analog_samson.deprecated import warn_renamed
from analog_samson.devices.maintenance import EVERY_TIME, MeasuringTimes, last_measured
from analog_samson.devices.named import OpenSection, named_section
from analog_samson.devices.section import (
    Conductance,
    Duration,
    Moment,
    Number,
    Scale,
    Section,
    Table,
    Voltage,
    neutral,
)

WIRE_OHM, LARGEST_CELL_S = 0.35, 5e-6
"""Resistance of a wire between two cells and conductance of the largest weight, for an ``ir_drop``
of 1: aihwkit's."""

LARGEST_WEIGHT_ERROR = 1e-4
"""Error of a weight by tables of conductances, relative to the largest weight: aihwkit's."""

Bits = Annotated[int, Field(ge=2, le=16)] | Literal["ideal"]
Steps = Annotated[int, Field(ge=2, le=65_534)]
Fraction = Annotated[float, Field(ge=0, le=1)]
Lines = Annotated[int, Field(ge=1, le=1_000_000)] | Literal["unlimited"]
Bound = Annotated[float, Field(ge=1e-6, le=1e6)] | Annotated[float, Field(ge=math.inf)]


def no_truth_value(given: Any) -> Any:
    """Refuse true and false, which Python treats as 1 and 0."""
    if isinstance(given, bool):
        raise ValueError(f"{str(given).lower()} is not a number")
    return given


class Times(Section):
    """Times after programming at which the model is valid [s].

    Example:
        >>> from analog_samson import load_device
        >>> load_device("reram_wan2022").times.valid_times_s
        (1.0, 86400.0, 172800.0)
    """

    not_swept: ClassVar[Mapping[str, str]] = dict.fromkeys(
        ("valid_from_s", "valid_to_s", "measured_to_s", "valid_times_s"),
        "it sets the times at which the model is valid and does not change results",
    )

    valid_from_s: Moment = Field(
        default=0.0, description="earlier times are an error, except 0, the programmed state"
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
                f"valid_from_s = {self.valid_from_s:g} is later than valid_to_s = "
                f"{self.valid_to_s:g}; no time is valid"
            )
        return self


class WeightMapping(Section):
    """How a weight matrix is mapped to crossbar arrays.

    Example:
        >>> mapping = WeightMapping(max_rows=256)
        >>> mapping.scale, mapping.max_columns
        ('column', 'unlimited')
    """

    scale: Literal["column", "tile"] = Field(
        default="column",
        description='column or array ("tile") whose largest weight is mapped to g_max',
    )
    max_rows: Lines = Field(
        default=512,
        description="inputs of an array; larger layers are split, partial sums added digitally",
    )
    max_columns: Lines = Field(
        default="unlimited", description="outputs of an array; larger layers are split"
    )
    clip_quantile: Annotated[float, Field(gt=0, le=1)] = neutral(
        1.0, "before mapping, weights are clipped at this quantile of |w| of their column or layer"
    )
    batch_norm: Literal["digital", "folded"] = neutral(
        "digital", "folded: into the weights of the preceding layer, before mapping"
    )
    pair_significances: Annotated[
        tuple[Annotated[float, Field(ge=1e-6, le=1e6)], ...], Field(strict=False, min_length=1)
    ] = neutral((1.0,), "one differential pair per significance, lowest first")
    pair_tables_uS: Annotated[tuple[Table, ...], Field(strict=False)] = neutral(
        (), "G+ and G- of each pair over evenly spaced weights from -max|w| to max|w|"
    )
    reference_column: bool = neutral(
        False, "single cells: outputs minus those of a column programmed to the middle conductance"
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

    @pydantic.model_validator(mode="after")
    def _tables_reproduce_weights(self) -> Self:
        """Conductances are linear between entries, so that what holds at each holds everywhere."""
        tables = self.pair_tables_uS
        if not tables:
            return self
        pairs = list(zip(self.pair_significances, tables[::2], tables[1::2], strict=True))
        n = len(tables[0])
        weights_uS = [sum(f * (plus[i] - minus[i]) for f, plus, minus in pairs) for i in range(n)]
        largest = max(map(abs, weights_uS))
        for i, weight in enumerate(weights_uS):
            expected = largest * (2 * i / max(n - 1, 1) - 1)
            if largest == 0 or abs(weight - expected) > LARGEST_WEIGHT_ERROR * largest:
                raise ValueError(
                    "pair_tables_uS does not reproduce the weights; the weighted differences "
                    "G+ - G- must be proportional to the weight at every entry: entry "
                    f"{i + 1} of {n} is {weight:g} µS and not {expected:g}"
                )
        return self


class EffectSection(OpenSection):
    """The base of sections that describe an effect of the periphery; always named by import.

    Attributes:
        aihwkit_by: Importable name of its implementation on aihwkit's tiles,
            ``"package.module:name"``: called with the section, it returns an ``analog.Effect``. ""
            if there is none.
        compiled_by: The same for the compiled engine.

    Example:
        >>> class Offset(EffectSection):
        ...     aihwkit_by = "mine:OffsetOnTiles"
        ...     offset: float
        >>> Offset(model="mine:Offset", source="our choice", offset=0.1).implementation("aihwkit")
        'mine:OffsetOnTiles'
    """

    aihwkit_by: ClassVar[str] = ""
    compiled_by: ClassVar[str] = ""

    source: str = Field(description="key of references.bib")

    def implementation(self, engine: str) -> str:
        """Importable name of its implementation for an engine; "" if there is none."""
        return {"aihwkit": self.aihwkit_by, "compiled": self.compiled_by}[engine]


def _named_effect(given: Any) -> EffectSection:
    if (section := named_section(given, EffectSection)) is None:
        raise ValueError(
            "the key 'model' of an effect is its importable name, 'package.module:Name'"
        )
    return section


Effect = Annotated[SerializeAsAny[EffectSection], PlainValidator(_named_effect)]


class Periphery(Section):
    """Converters and bounds around an array; outputs in units of normalised weight x input.

    Example:
        >>> from analog_samson import load_device
        >>> periphery = load_device("pcm_like").periphery
        >>> periphery.dac_bits, periphery.adc_bits, periphery.output_bound
        (8, 8, 10.0)
    """

    source: str
    dac_bits: Bits
    adc_bits: Bits
    output_bound: Bound = Field(description="largest output of an array; inf: none")
    output_noise: Scale = Field(description="standard deviation, normalised output units")
    input_scaling: Literal["calibrated", "per_vector"] = neutral(
        "calibrated", "DAC range: fixed by calibration, or max|x| of each input vector (ABS_MAX)"
    )
    bound_management: Literal["none", "iterative"] = neutral(
        "none",
        "iterative: outputs that reach the bound are computed again with half the input",
    )
    mvm_read_noise: Scale = neutral(
        0.0,
        "weight read noise in every matrix-vector product, relative to the largest weight",
    )
    mvm_read_noise_kind: Literal["pcm_read", "additive"] = neutral(
        "pcm_read",
        "standard deviation of an output: mvm_read_noise sqrt(sum |w| x^2), or "
        "mvm_read_noise sqrt(sum x^2) (additive)",
    )
    mvm_read_noise_uS: Scale = neutral(
        0.0,
        "read noise of each cell in every product, of single pairs: standard deviation "
        "mvm_read_noise_uS (1 - exp(-g / mvm_read_noise_knee_uS)); other cell of a pair: g_min",
    )
    mvm_read_noise_knee_uS: Conductance | None = neutral(
        None, "conductance from which that noise hardly grows"
    )
    iv_voltage_V: Voltage | None = neutral(
        None, "voltage of the largest input, where the current is not proportional to voltage"
    )
    iv_square_powers: Annotated[tuple[Number, ...], Field(strict=False)] = neutral(
        (), "term of the current in V^2 [A/V^2]: coefficients of the powers of log10(g / S)"
    )
    iv_cube_powers: Annotated[tuple[Number, ...], Field(strict=False)] = neutral(
        (), "the same in V^3 [A/V^3]"
    )
    ir_drop: Scale = neutral(
        0.0,
        f"scale of the voltage drop along columns, for wires of {WIRE_OHM:g} ohm and cells of 5 uS",
    )

    effects: Annotated[tuple[Effect, ...], Field(strict=False)] = neutral(
        (), "effects of other packages, in the order in which they are applied"
    )
    dac_steps: Steps | None = neutral(
        None, "steps of the DAC between its bounds, where they are not 2^dac_bits - 2"
    )
    adc_steps: Steps | None = neutral(
        None, "steps of the ADC between its bounds, where they are not 2^adc_bits - 2"
    )

    @pydantic.model_validator(mode="after")
    def _steps_are_finite(self) -> Self:
        if self.adc_bits != "ideal" and math.isinf(self.output_bound):
            raise ValueError(
                f"adc_bits = {self.adc_bits} needs a finite output_bound, the range of its levels; "
                "give one, or adc_bits = 'ideal'"
            )
        return self

    @pydantic.model_validator(mode="after")
    def _bits_hold_the_steps(self) -> Self:
        for kind in ("dac", "adc"):
            steps, bits = getattr(self, f"{kind}_steps"), getattr(self, f"{kind}_bits")
            if steps is None:
                continue
            most = _steps_of(bits)
            if steps % 2 or steps > most:
                raise ValueError(
                    f"{kind}_steps = {steps} with {kind}_bits = {bits!r}: steps are an even "
                    f"number, so that 0 is a level, and at most 2^{kind}_bits - 2"
                    + (f" = {most}" if most else "")
                )
        return self

    @pydantic.model_validator(mode="after")
    def _currents_are_complete(self) -> Self:
        if (self.mvm_read_noise_uS > 0) > (self.mvm_read_noise_knee_uS is not None):
            raise ValueError(
                f"mvm_read_noise_uS = {self.mvm_read_noise_uS} needs mvm_read_noise_knee_uS, the "
                "conductance from which it hardly grows; give it"
            )
        if any((*self.iv_square_powers, *self.iv_cube_powers)) and self.iv_voltage_V is None:
            raise ValueError(
                "iv_square_powers and iv_cube_powers need iv_voltage_V, the voltage of the largest "
                "input; give it"
            )
        if self.has_cell_currents and (self.is_per_vector or self.effects):
            raise ValueError(
                "mvm_read_noise_uS, iv_square_powers and iv_cube_powers need an input range that "
                "is the same for all vectors; input_scaling = 'per_vector', bound_management = "
                "'iterative', mvm_read_noise, ir_drop and effects exclude them"
            )
        return self

    @property
    def has_cell_currents(self) -> bool:
        """Whether currents of cells differ from conductance times voltage."""
        is_curved = any((*self.iv_square_powers, *self.iv_cube_powers))
        return self.mvm_read_noise_uS > 0 or is_curved

    @property
    def n_dac_steps(self) -> int:
        """Steps of the DAC between its bounds; 0: ideal."""
        return self.dac_steps or _steps_of(self.dac_bits)

    @property
    def n_adc_steps(self) -> int:
        """Steps of the ADC between its bounds; 0: ideal."""
        return self.adc_steps or _steps_of(self.adc_bits)

    @property
    def is_ideal(self) -> bool:
        """Whether the array multiplies exactly: no converter, bound, noise, IR drop or effect."""
        return (
            not self.effects
            and not self.has_cell_currents
            and self.mvm_read_noise == 0
            and self.ir_drop == 0
            and self.dac_bits == "ideal"
            and self.adc_bits == "ideal"
            and math.isinf(self.output_bound)
            and self.output_noise == 0
        )

    @property
    def is_per_vector(self) -> bool:
        """Whether scales, currents or noise are computed per input vector of an array."""
        return not self.is_ideal and (
            self.input_scaling == "per_vector"
            or self.bound_management == "iterative"
            or self.mvm_read_noise > 0
            or self.ir_drop > 0
        )

    @property
    def has_fixed_ranges(self) -> bool:
        """Whether there are converters or bounds whose ranges are the same for all inputs."""
        return not self.is_ideal and not self.is_per_vector

    @property
    def is_by_vector(self) -> bool:
        """The old name of ``is_per_vector``."""
        warn_renamed("Periphery.is_by_vector", "Periphery.is_per_vector")
        return self.is_per_vector

    @property
    def needs_input_ranges(self) -> bool:
        """Whether inputs are clipped to a calibrated range before the DAC."""
        return not self.is_ideal and self.input_scaling == "calibrated"

    def without_implementation(self, engine: str) -> str:
        """Describe the first effect that has no implementation for an engine, or return ""."""
        for effect in self.effects:
            if not effect.implementation(engine):
                return f"the effect {effect.model!r} has no implementation for it"
        return ""


def _steps_of(bits: int | str) -> int:
    return 0 if isinstance(bits, str) else 2**bits - 2


class InputRanges(Section):
    """Input range of the DAC of a layer, measured once on training images.

    Example:
        >>> InputRanges(statistic="largest").quantile
        1.0
    """

    statistic: Literal["percentile", "largest"] = Field(
        default="percentile", description="99.995 % of |x|, or the largest |x|"
    )
    of: Literal["network", "chip"] = Field(
        default="network",
        description="network: inputs of the digital network, the same for all chips; chip: inputs "
        "of the network with the weights of the chip as programmed",
    )

    @property
    def quantile(self) -> float:
        """Fraction of |x| within the range."""
        return {"percentile": 0.99995, "largest": 1.0}[self.statistic]


class Faults(Section):
    """Stuck cells: their conductance is fixed, whatever is written; drawn once per chip.

    With the same seed, cells that are stuck at a smaller fraction are stuck at a larger one, too.

    Example:
        >>> from analog_samson import load_device
        >>> load_device("pcm_like").with_axes({"faults.stuck_low": 0.01}).faults
        Faults(stuck_low=0.01, stuck_high=0.0)
    """

    stuck_low: Fraction = Field(default=0.0, description="fraction of cells stuck at g_min")
    stuck_high: Fraction = Field(default=0.0, description="fraction of cells stuck at g_max")

    @pydantic.model_validator(mode="after")
    def _at_most_all(self) -> Self:
        if self.stuck_low + self.stuck_high > 1:
            raise ValueError(
                f"stuck_low = {self.stuck_low} and stuck_high = {self.stuck_high} are more than "
                "all cells; their sum must be at most 1"
            )
        return self


class LayerOverride(Section):
    """Overrides for the layers that match a pattern; the first pattern that matches applies.

    ``noise`` replaces the whole section if it names another model, and single keys otherwise.
    """

    pattern: str = Field(
        min_length=1, description='name of a layer, with wildcards: "head", "stage3.*"'
    )
    digital: bool = False
    noise: dict[str, Any] = Field(default_factory=dict)
    faults: dict[str, float] = Field(default_factory=dict)
    drift_compensation: dict[str, Any] = Field(default_factory=dict)

    @pydantic.model_validator(mode="after")
    def _is_not_empty(self) -> Self:
        on_chip = bool(self.noise or self.faults or self.drift_compensation)
        if self.digital == on_chip:
            raise ValueError(
                f"the entry for {self.pattern!r} must either be digital or change noise, faults or "
                "drift_compensation"
            )
        return self

    def matches(self, name: str) -> bool:
        """Whether a layer of this dotted name has the pattern, or lies in a module that has it."""
        shapes = (self.pattern, f"{self.pattern}.*")
        return any(fnmatch.fnmatchcase(name, shape) for shape in shapes)


class DriftCompensation(Section):
    """Digital rescaling of an array's outputs by a factor alpha measured at read time.

    Example:
        >>> compensation = DriftCompensation(kind="global", measured_at="1 h, 1 mo")
        >>> compensation.last_measured(86400.0)  # measured at 1 h, kept at 1 d [s]
        3600.0
    """

    kind: Literal["none", "global", "per_column", "per_layer"] = Field(
        description="one factor per array, column or layer (least squares on training images)"
    )
    read_outs: Annotated[
        Literal[1] | Annotated[float, Field(ge=math.inf)], BeforeValidator(no_truth_value)
    ] = Field(
        default=math.inf,
        description="inf: exact, without the periphery's noise; 1: one noisy read-out (aihwkit)",
    )
    batch_norm: Literal["trained", "recalibrated"] = neutral(
        "trained", "recalibrated: statistics are measured again on training images at every read"
    )
    measured_at: MeasuringTimes = neutral(
        EVERY_TIME,
        'times since programming at which alpha is measured: "1 h", "1 h, 1 mo", "every 1 week"; '
        "until the next it is kept, before the first it is 1",
    )

    @pydantic.model_validator(mode="after")
    def _something_is_measured(self) -> Self:
        if self.measured_at == EVERY_TIME:
            return self
        if self.kind == "none":
            raise ValueError(
                f"measured_at = {self.measured_at!r} needs a compensation that is measured; kind "
                "is 'none'"
            )
        if self.batch_norm == "recalibrated":
            raise ValueError(
                f"measured_at = {self.measured_at!r} needs batch_norm = 'trained'; recalibration "
                "measures statistics at every read"
            )
        return self

    def last_measured(self, age_s: float) -> float | None:
        """The time since programming [s] at which the factor in use was measured; None: never."""
        return last_measured(self.measured_at, age_s)

    @property
    def label(self) -> str:
        """Name for tables: "global", "global, noisy read-out", "global, measured at 1 h", ..."""
        noisy = self.kind != "none" and not math.isinf(self.read_outs)
        parts: list[str] = [self.kind]
        if noisy:
            parts.append("noisy read-out")
        if self.measured_at != EVERY_TIME:
            at = "" if self.measured_at.startswith("every") else "at "
            parts.append(f"measured {at}{self.measured_at}")
        if self.batch_norm == "recalibrated":
            parts.append("batch norm recalibrated")
        return ", ".join(parts)
