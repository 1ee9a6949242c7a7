"""The noise sections of device files: one class per model of the memory cell.

A section does not import torch. It names the implementation of its model (``built_by``), which is
imported when chips are programmed and called with the section and a converter from weights to
conductances; it returns a noise model as aihwkit's ``BaseNoiseModel``. Properties of the section
describe the model to the simulation.

A device file names a section of another package: ``model = "my_package.my_module:MySection"``.
"""

import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, Self

import pydantic
from pydantic import BeforeValidator, Field, SerializeAsAny, WrapValidator

from analog_samson.deprecated import warn_renamed
from analog_samson.devices.array import Times, no_truth_value
from analog_samson.devices.named import OpenSection, named_section
from analog_samson.devices.section import (
    Conductance,
    Duration,
    Exponent,
    LowConductance,
    Moment,
    Number,
    Scale,
    Table,
    Voltage,
    neutral,
)
from analog_samson.times import DAY


class NoiseSection(OpenSection):
    """The base class of noise sections, also of those of other packages.

    Attributes:
        built_by: Importable name of the model's implementation, ``"package.module:name"``: called
            with the section and an aihwkit conductance converter that follows ``cells`` and the
            mapping, it returns an aihwkit noise model (``BaseNoiseModel``).
        cells: How a weight is stored: a differential "pair" of cells, a "single" cell between g_min
            and g_max, or one "signed" value in units of the largest weight.
        drift_parameter: Name and unit of the number that every cell keeps over time, if it keeps
            one (``keeps_exponents``).
        reads_in_two_steps: Whether relaxation, drawn once per chip, and the noise of a read are
            separate methods of the implementation: ``relax(programmed_uS, t_inference_s)`` and
            ``read(relaxed_uS, t_inference_s)``.

    Example:
        >>> class Mine(NoiseSection):
        ...     built_by = "mine:MyNoiseModel"
        ...     g_max_uS: float
        >>> Mine(model="mine:Mine", source="our choice", g_max_uS=20.0).conductance_range
        (0.0, 20.0)
    """

    built_by: ClassVar[str]
    cells: ClassVar[Literal["pair", "single", "signed"]] = "pair"
    drift_parameter: ClassVar[tuple[str, str]] = ("exponent", "")
    reads_in_two_steps: ClassVar[bool] = False

    model: str = Field(description="name of the noise model")
    source: str = Field(description="key of references.bib")

    @property
    def conductance_range(self) -> tuple[float, float]:
        """Lowest and highest conductance of a cell [µS]; 0 and 1 if the section has none."""
        return getattr(self, "g_min_uS", 0.0), getattr(self, "g_max_uS", 1.0)

    @property
    def has_programmed_state(self) -> bool:
        """Whether the model describes the cells right after programming (t = 0)."""
        return True

    @property
    def known_times_s(self) -> tuple[float, ...] | None:
        """The only times the model has data for; None: any."""
        return None

    @property
    def drifts(self) -> bool:
        """Whether anything changes with time."""
        return True

    @property
    def keeps_exponents(self) -> bool:
        """Whether every cell has its own drift exponent or slope, drawn when it is programmed."""
        return False

    @property
    def keeps_quantile(self) -> bool:
        """Whether a cell keeps its quantile in the distribution around its target over time."""
        return False

    @property
    def keeps_its_place(self) -> bool:
        """The old name of ``keeps_quantile``."""
        warn_renamed("NoiseSection.keeps_its_place", "NoiseSection.keeps_quantile")
        return self.keeps_quantile

    @property
    def draws_each_time_anew(self) -> bool:
        """Whether a cell's quantile is drawn anew at each time (``keeps_quantile`` only)."""
        return False

    def check_times(self, times: Times) -> None:
        """Raise ValueError if a device file allows times that the model has no data for."""
        known = self.known_times_s
        if known is None:
            return
        given = times.valid_times_s
        unknown = sorted(set(given or ()) - set(known))
        if given is None or unknown:
            raise ValueError(
                f"times.valid_times_s must name times that {self.model} has "
                f"data for, {', '.join(f'{t:g}' for t in known)} s; "
                + (f"{unknown[0]:g} s is none of them" if unknown else "it is missing")
            )


class _PairSection(NoiseSection):
    """Models of cells in differential pairs."""

    g_max_uS: Conductance = Field(description="conductance of the largest weight of a column")
    g_min_uS: LowConductance = neutral(0.0, "conductance of a weight of zero")

    @pydantic.model_validator(mode="after")
    def _g_min_below_g_max(self) -> Self:
        if self.g_min_uS >= self.g_max_uS:
            raise ValueError(f"g_min_uS = {self.g_min_uS} must be below g_max_uS = {self.g_max_uS}")
        return self


class _Drifting(_PairSection):
    """Models with one drift parameter per cell and 1/f noise; scale factors from 0 (off)."""

    t_0_s: Duration = Field(description="first read after programming, drift fit")
    t_read_s: Duration = Field(description="duration of a read, 1/f fit")
    programming_noise_scale: Scale = 1.0
    read_noise_1f_scale: Scale = 1.0
    drift_scale: Scale = 1.0

    @property
    def drifts(self) -> bool:
        """Whether anything changes with time: yes, unless both scales are 0."""
        return self.drift_scale > 0 or self.read_noise_1f_scale > 0

    @property
    def keeps_exponents(self) -> bool:
        """Whether every cell has its own drift parameter: yes."""
        return True


class Ideal(NoiseSection):
    """No noise of any kind: every read gives the target conductances.

    Example:
        >>> noise = Ideal(model="Ideal")
        >>> noise.drifts, noise.conductance_range
        (False, (0.0, 25.0))
    """

    built_by = "analog_samson.analog.own_models:IdealNoiseModel"

    model: Literal["Ideal"]
    source: str = "this project's reference device"
    g_max_uS: Conductance = 25.0

    @property
    def drifts(self) -> bool:
        """Whether anything changes with time: no."""
        return False


class PCMLike(_Drifting):
    """aihwkit's ``PCMLikeNoiseModel``: programming noise, power-law drift, 1/f noise.

    Example:
        >>> from analog_samson import load_device
        >>> noise = load_device("pcm_like").noise
        >>> type(noise).__name__, noise.g_max_uS
        ('PCMLike', 25.0)
    """

    built_by = "analog_samson.analog.noise_models:pcm_like"

    model: Literal["PCMLikeNoiseModel"]


class CustomDriftPCMLike(_Drifting):
    """aihwkit's ``CustomDriftPCMLikeNoiseModel``: PCM-like, exponents from a table.

    Example:
        >>> from analog_samson import load_device
        >>> noise = load_device("pcm_custom_drift").noise
        >>> noise.nu_at_uS[-1], noise.nu_mean[-1]
        (25.0, 0.049)
    """

    built_by = "analog_samson.analog.noise_models:custom_drift"

    model: Literal["CustomDriftPCMLikeNoiseModel"]
    nu_at_uS: Table = Field(description="conductances of the table, ascending, from g_min to g_max")
    nu_mean: Table = Field(description="mean exponent at each")
    nu_spread: Table = Field(description="standard deviation of the exponent at each")

    @pydantic.model_validator(mode="after")
    def _table(self) -> Self:
        _check_table(self, "nu_at_uS", "nu_mean", "nu_spread")
        return self


class StateIndependent(_Drifting):
    """aihwkit's ``StateIndependentNoiseModel``: spread and exponent do not depend on conductance.

    Its 1/f law has the unit of a conductance: the spread of a read is
    ``read_noise_1f_scale`` g / g_max sqrt(ln((t + t_0 + t_read) / (2 t_read))) µS.

    Example:
        >>> from analog_samson import load_device
        >>> noise = load_device("pcm_state_independent").noise
        >>> noise.nu_mean, noise.programming_spread_uS
        (0.1, 0.2)
    """

    built_by = "analog_samson.analog.noise_models:state_independent"

    model: Literal["StateIndependentNoiseModel"]
    programming_spread_uS: Scale
    nu_mean: Exponent
    nu_spread: Exponent


class Tabulated(_Drifting):
    """Laws of measured cells: tables over conductance with linear interpolation.

    Example:
        >>> device = Tabulated(
        ...     model="TabulatedNoiseModel",
        ...     source="our cells",
        ...     g_max_uS=20.0,
        ...     t_0_s=20.0,
        ...     t_read_s=1e-6,
        ...     table_uS=(0.0, 20.0),
        ...     programming_offset_uS=(0.0, 0.0),
        ...     programming_spread_uS=(0.4, 1.0),
        ...     nu_mean=(0.08, 0.05),
        ...     nu_spread=(0.02, 0.01),
        ...     read_spread_relative=(0.01, 0.01),
        ... )
        >>> device.drifts
        True
    """

    built_by = "analog_samson.analog.own_models:TabulatedNoiseModel"
    drift_tables: ClassVar[tuple[str, str]] = ("nu_mean", "nu_spread")

    model: Literal["TabulatedNoiseModel"]
    table_uS: Table = Field(description="conductances of the tables, ascending, g_min to g_max")
    programming_offset_uS: Table = Field(description="mean programming error at each")
    programming_spread_uS: Table = Field(description="standard deviation of that error at each")
    nu_mean: Table = Field(description="mean exponent at each target")
    nu_spread: Table = Field(description="standard deviation of the exponent at each target")
    read_spread_relative: Table = Field(
        description="Q at each: a read spreads by Q g sqrt(ln((t + t_0 + t_read) / (2 t_read)))"
    )

    @pydantic.model_validator(mode="after")
    def _tables(self) -> Self:
        _check_measured(self, self.drift_tables)
        return self


class _LinearInLaw(_Drifting):
    """Models whose conductance is linear in a function of time, with one coefficient a cell.

    Attributes:
        drift_tables: Keys of the tables of the coefficient's mean and standard deviation.
    """

    drift_tables: ClassVar[tuple[str, str]]

    table_uS: Table = Field(description="conductances of the tables, ascending, g_min to g_max")
    programming_offset_uS: Table = Field(description="mean programming error at each")
    programming_spread_uS: Table = Field(description="standard deviation of that error at each")
    read_spread_relative: Table = Field(
        description="Q at each: a read spreads by Q g sqrt(ln((t + t_0 + t_read) / (2 t_read)))"
    )
    lowest_uS: LowConductance = Field(
        default=0.0, description="no cell is programmed or drifts below it; our choice: 0"
    )
    highest_uS: Conductance | None = Field(
        default=None, description="no cell is programmed or drifts above it; none: no such bound"
    )

    @pydantic.model_validator(mode="after")
    def _targets_within_bounds(self) -> Self:
        highest = math.inf if self.highest_uS is None else self.highest_uS
        if self.lowest_uS > self.g_min_uS or highest < self.g_max_uS:
            raise ValueError(
                f"lowest_uS = {self.lowest_uS} and highest_uS = {self.highest_uS} must enclose "
                f"g_min_uS = {self.g_min_uS} to g_max_uS = {self.g_max_uS}"
            )
        return self

    @pydantic.model_validator(mode="after")
    def _tables(self) -> Self:
        _check_measured(self, self.drift_tables)
        return self


class LogTime(_LinearInLaw):
    """Retention linear in log time (charge traps, ferroelectrics): one slope a cell.

    g(t) = g_prog + s log10((t + t_0) / t_0), within lowest_uS and highest_uS; the slope s is drawn
    at programming from a normal distribution.

    Example:
        >>> cells = LogTime(
        ...     model="LogTimeNoiseModel",
        ...     source="our cells",
        ...     g_max_uS=20.0,
        ...     t_0_s=1.0,
        ...     t_read_s=1e-6,
        ...     table_uS=(0.0, 20.0),
        ...     programming_offset_uS=(0.0, 0.0),
        ...     programming_spread_uS=(0.4, 1.0),
        ...     slope_mean_uS=(0.0, -0.3),
        ...     slope_spread_uS=(0.0, 0.1),
        ...     read_spread_relative=(0.01, 0.01),
        ... )
        >>> cells.drift_parameter
        ('slope', 'µS per decade')
    """

    built_by = "analog_samson.analog.own_models:LogTimeNoiseModel"
    drift_parameter = ("slope", "µS per decade")
    drift_tables = ("slope_mean_uS", "slope_spread_uS")

    model: Literal["LogTimeNoiseModel"]
    slope_mean_uS: Table = Field(description="mean slope at each target, per decade of time")
    slope_spread_uS: Table = Field(description="standard deviation of the slope at each target")


class StretchedExponential(_LinearInLaw):
    """Retention that saturates as a stretched exponential: one final change a cell.

    g(t) = g_prog + c (1 - exp(-(t / tau)^beta)), within lowest_uS and highest_uS; the change c is
    drawn at programming from a normal distribution.

    Example:
        >>> cells = StretchedExponential(
        ...     model="StretchedExponentialNoiseModel",
        ...     source="our cells",
        ...     g_max_uS=20.0,
        ...     t_0_s=1.0,
        ...     t_read_s=1e-6,
        ...     tau_s=1e4,
        ...     beta=0.5,
        ...     table_uS=(0.0, 20.0),
        ...     programming_offset_uS=(0.0, 0.0),
        ...     programming_spread_uS=(0.4, 1.0),
        ...     change_mean_uS=(0.0, -3.0),
        ...     change_spread_uS=(0.0, 0.5),
        ...     read_spread_relative=(0.01, 0.01),
        ... )
        >>> cells.drift_parameter
        ('change', 'µS')
    """

    built_by = "analog_samson.analog.own_models:StretchedExponentialNoiseModel"
    drift_parameter = ("change", "µS")
    drift_tables = ("change_mean_uS", "change_spread_uS")

    model: Literal["StretchedExponentialNoiseModel"]
    tau_s: Duration = Field(description="time after which 63 % of the change have happened")
    beta: Annotated[float, Field(ge=0.01, le=10)] = Field(description="exponent of t / tau")
    change_mean_uS: Table = Field(description="mean change at each target, after a long time")
    change_spread_uS: Table = Field(description="standard deviation of the change at each target")


class Resampled(_PairSection):
    """Resampling of measured cells: each simulated cell follows the trajectory of a measured one.

    The measured cell is drawn from those of the two nearest targets, with probabilities that are
    linear in the distance; its conductance is scaled by the ratio of the targets (for a measured
    target of 0, the own target is added). Between measurements it is linear in ln(1 + t). Keys that
    the device file does not give are read from the file of measurements.

    Example:
        >>> noise = Resampled(
        ...     model="ResampledNoiseModel",
        ...     source="our cells",
        ...     g_max_uS=20.0,
        ...     measurements="cells.csv",
        ...     sha256="0" * 64,
        ...     targets_uS=(0.0, 10.0, 20.0),
        ...     first_s=1.0,
        ...     last_s=86400.0,
        ... )
        >>> noise.cells, noise.conductance_range
        ('pair', (0.0, 20.0))
    """

    built_by = "analog_samson.analog.own_models:ResampledNoiseModel"
    not_swept: ClassVar[Mapping[str, str]] = {
        **NoiseSection.not_swept,
        **dict.fromkeys(
            ("measurements", "sha256", "targets_uS", "first_s", "last_s"),
            "it is read from the file of measurements; give one device file for each",
        ),
    }

    model: Literal["ResampledNoiseModel"]
    measurements: str = Field(description="CSV file of measured cells, relative to this one")
    sha256: str = Field(description="digest of that file's content")
    targets_uS: Table = Field(description="targets that were measured")
    first_s: Moment = Field(description="earliest time at which every cell was measured")
    last_s: Moment = Field(description="latest time at which every cell was measured")
    extrapolate: bool = Field(
        default=False,
        description="whether cells may keep their last value at times after the measurements",
    )

    @pydantic.model_validator(mode="after")
    def _between_targets(self) -> Self:
        low, high = self.targets_uS[0], self.targets_uS[-1]
        if not self.extrapolate and not low <= self.g_min_uS < self.g_max_uS <= high:
            raise ValueError(
                f"g_min_uS = {self.g_min_uS} to g_max_uS = {self.g_max_uS} must lie within the "
                f"measured targets, {low:g} to {high:g} µS; or allow noise.extrapolate"
            )
        return self

    @pydantic.field_serializer("measurements", when_used="json")
    def _without_folder(self, path: str) -> str:
        return Path(path).name

    @property
    def has_programmed_state(self) -> bool:
        """Whether the cells were measured right after programming (t = 0)."""
        return self.extrapolate or self.first_s == 0

    @property
    def keeps_quantile(self) -> bool:
        """Whether a cell keeps its quantile over time: it follows one trajectory."""
        return True

    def check_times(self, times: Times) -> None:
        """Raise ValueError if a device file allows times outside the measurements."""
        listed = times.valid_times_s
        first, last = (
            (times.valid_from_s, times.valid_to_s) if listed is None else (min(listed), max(listed))
        )
        if self.extrapolate:
            if times.measured_to_s is None or times.measured_to_s > self.last_s:
                raise ValueError(
                    f"times.measured_to_s must be given, at most {self.last_s:g} s, so that "
                    "extrapolated times are flagged"
                )
        elif first < self.first_s or last is None or last > self.last_s:
            raise ValueError(
                f"times.valid_from_s = {first:g} and valid_to_s = {last} must lie within the "
                f"measurements, {self.first_s:g} to {self.last_s:g} s; or allow noise.extrapolate"
            )


class PolynomialError(_PairSection):
    """A published programming error: its spread is a polynomial of the conductance in µS.

    Example:
        >>> from analog_samson import load_device
        >>> noise = load_device("pcm_joshi2020").noise
        >>> noise.spread_powers_uS, noise.drifts
        ((0.28638599, 0.07585724, -0.00178767), False)
    """

    built_by = "analog_samson.analog.own_models:PolynomialErrorNoiseModel"

    model: Literal["PolynomialErrorNoiseModel"]
    fit_source: str = Field(description="who fitted the published figure")
    spread_powers_uS: Table = Field(description="coefficients of g^0, g^1, ..., g and spread in µS")
    characterised_to_uS: Conductance
    programming_noise_scale: Scale = 1.0

    @pydantic.model_validator(mode="after")
    def _characterised(self) -> Self:
        if self.g_max_uS > self.characterised_to_uS:
            raise ValueError(
                f"g_max_uS = {self.g_max_uS} lies above {self.characterised_to_uS}, the largest "
                "conductance that was characterised"
            )
        return self

    @property
    def drifts(self) -> bool:
        """Whether anything changes with time: not in the model."""
        return False


class Sonos(_PairSection):
    """Charge-trap memory: mean shift and spread of the current, tabulated over days.

    Spread at a current I: A (1 - exp(-I / B)) after the mean has shifted by a polynomial of I.

    Example:
        >>> from analog_samson import load_device
        >>> load_device("sonos_agrawal2022_crosssim_3_1").noise.days
        (0.0, 1.0, 2.0, 3.0, 4.0, 5.0)
    """

    built_by = "analog_samson.analog.own_models:SonosNoiseModel"

    model: Literal["SonosNoiseModel"]
    read_voltage_V: Voltage = Field(description="turns currents [nA] into conductances")
    fit_source: str = Field(description="who fitted the published figure")
    days: Table
    spread_A_nA: Table
    spread_B_nA: Table
    shift_powers_nA: Annotated[tuple[Table, ...], Field(strict=False)] = Field(
        description="for each day, coefficients of I^k"
    )
    programming_noise_scale: Scale = 1.0
    drift_scale: Scale = 1.0

    @pydantic.model_validator(mode="after")
    def _one_entry_a_day(self) -> Self:
        for key in ("spread_A_nA", "spread_B_nA", "shift_powers_nA"):
            if len(getattr(self, key)) != len(self.days):
                raise ValueError(
                    f"{key} has {len(getattr(self, key))} entries; days has {len(self.days)}, "
                    "and the numbers must be equal"
                )
        if list(self.days) != sorted(set(self.days)):
            raise ValueError(f"days = {list(self.days)} must ascend")
        lengths = [len(powers) for powers in self.shift_powers_nA]
        if len(set(lengths)) > 1:
            raise ValueError(
                f"shift_powers_nA has days of {lengths} coefficients; give all the same number, "
                "with 0.0 where a power is missing"
            )
        return self

    @property
    def keeps_quantile(self) -> bool:
        """Whether a cell keeps its quantile over time: assumed."""
        return True


class WeightNoise(NoiseSection):
    """Generic weight errors, drawn once, relative to the largest weight or to each.

    gaussian_max: w + sigma max|w| n; proportional: w + sigma |w| n; multiplicative:
    w exp(sigma n); uniform: w + sigma max|w| u with u uniform in [-1, 1]; n standard normal.

    Example:
        >>> from analog_samson import load_device
        >>> noise = load_device("gaussian_max").noise
        >>> noise.law, noise.drifts
        ('gaussian_max', False)
    """

    built_by = "analog_samson.analog.own_models:WeightNoiseModel"
    cells = "signed"

    model: Literal["WeightNoiseModel"]
    law: Literal["gaussian_max", "proportional", "multiplicative", "uniform"]
    sigma: Scale

    @property
    def drifts(self) -> bool:
        """Whether anything changes with time: no."""
        return False


class PiecewiseWeightError(NoiseSection):
    """A published error of signed weights: its spread is a polynomial of |w| in each of its ranges.

    Weights are in units in which the largest is ``full_scale``; those with |w| below ``zero_below``
    are exactly 0, whatever ``programming_noise_scale`` is.

    Example:
        >>> from analog_samson import load_device
        >>> error = load_device("pcm_buchel2025").noise
        >>> error.zero_below, error.splits, error.full_scale
        (0.6, (52.5,), 180.0)
    """

    built_by = "analog_samson.analog.own_models:PiecewiseWeightErrorNoiseModel"
    cells = "signed"

    model: Literal["PiecewiseWeightErrorNoiseModel"]
    fit_source: str = Field(description="who published the coefficients")
    full_scale: Annotated[float, Field(ge=1e-6, le=1e6)] = Field(
        description="the largest weight, in the unit of the polynomials"
    )
    zero_below: Annotated[float, Field(ge=0, le=1e6)] = Field(
        description="weights of smaller magnitude are exactly 0"
    )
    splits: Annotated[tuple[Number, ...], Field(strict=False)] = Field(
        description="|w| at which one polynomial ends and the next begins, ascending"
    )
    spread_powers: Annotated[tuple[Table, ...], Field(strict=False, min_length=1)] = Field(
        description="for each range, coefficients of |w|^0, |w|^1, ..."
    )
    programming_noise_scale: Scale = 1.0

    @pydantic.model_validator(mode="after")
    def _ranges(self) -> Self:
        if len(self.spread_powers) != len(self.splits) + 1:
            raise ValueError(
                f"spread_powers has {len(self.spread_powers)} polynomials and splits "
                f"{len(self.splits)} entries; there must be one polynomial more"
            )
        ends = (self.zero_below, *self.splits, self.full_scale)
        if list(ends) != sorted(set(ends)):
            raise ValueError(
                f"splits = {list(self.splits)} must ascend, from above zero_below = "
                f"{self.zero_below} to below full_scale = {self.full_scale}"
            )
        return self

    @property
    def drifts(self) -> bool:
        """Whether anything changes with time: not in the model."""
        return False


class Hermes(_Drifting):
    """aihwkit's ``HermesNoiseModel``: one or two cells per conductance, HERMES chip.

    Example:
        >>> from analog_samson import load_device
        >>> load_device("pcm_hermes").noise.devices_per_conductance
        2
    """

    built_by = "analog_samson.analog.noise_models:hermes"

    model: Literal["HermesNoiseModel"]
    devices_per_conductance: Annotated[Literal[1, 2], BeforeValidator(no_truth_value)]

    @pydantic.model_validator(mode="after")
    def _characterised(self) -> "Hermes":
        largest = 20.7 if self.devices_per_conductance == 2 else 10.35
        if self.g_max_uS > largest:
            raise ValueError(
                f"g_max_uS = {self.g_max_uS} lies above {largest}, the largest conductance "
                f"characterised with {self.devices_per_conductance} cell(s) per conductance"
            )
        return self


class ReRAMWan2022(_PairSection):
    """aihwkit's ``ReRamWan2022NoiseModel``: spread around the target at three measured times.

    Example:
        >>> from analog_samson import load_device
        >>> load_device("reram_wan2022").noise.known_times_s
        (1.0, 86400.0, 172800.0)
    """

    built_by = "analog_samson.analog.noise_models:wan2022"

    model: Literal["ReRamWan2022NoiseModel"]
    g_max_reference_uS: Conductance = Field(description="g_max of the published fit")
    times_share: Literal["one_normal_a_device", "independent"] = "one_normal_a_device"
    programming_noise_scale: Scale = 1.0

    @property
    def has_programmed_state(self) -> bool:
        """Whether the state right after programming was measured: no."""
        return False

    @property
    def known_times_s(self) -> tuple[float, ...]:
        """One second, one day and two days."""
        return (1.0, DAY, 2 * DAY)

    @property
    def keeps_quantile(self) -> bool:
        """Whether each time is a distribution around the target: yes."""
        return True

    @property
    def draws_each_time_anew(self) -> bool:
        """Whether a cell's quantile is drawn anew at each time: set by ``times_share``."""
        return self.times_share == "independent"


class ReRAMCMO(NoiseSection):
    """aihwkit's ``ReRamCMONoiseModel``: one cell per weight, no reference cell.

    Mean and spread of the relaxation are linear in ln(t / 1 s), which holds from 1 s on: before,
    the mean would rise above the programmed one, and the spread fall below 0.

    Example:
        >>> from analog_samson import load_device
        >>> noise = load_device("reram_cmo").noise
        >>> noise.conductance_range, noise.acceptance_percent
        ((9.0, 88.2), 2.0)
    """

    built_by = "analog_samson.analog.own_models:CMONoiseModel"
    cells = "single"
    reads_in_two_steps = True

    model: Literal["ReRamCMONoiseModel"]
    g_min_uS: LowConductance
    g_max_uS: Conductance
    acceptance_percent: float = Field(description="program-and-verify acceptance, 0.2 or 2.0")
    programming_noise_scale: Scale = 1.0
    read_noise_1f_scale: Scale = 1.0
    drift_scale: Scale = 1.0

    @pydantic.model_validator(mode="after")
    def _range(self) -> "ReRAMCMO":
        if self.acceptance_percent not in (0.2, 2.0):
            raise ValueError(
                f"acceptance_percent = {self.acceptance_percent} was not measured; "
                "allowed: 0.2 or 2"
            )
        if self.g_min_uS >= self.g_max_uS:
            raise ValueError(f"g_min_uS = {self.g_min_uS} must be below g_max_uS = {self.g_max_uS}")
        return self

    def check_times(self, times: Times) -> None:
        """Raise ValueError if a device file allows times below 1 s, except the programmed state."""
        key, first = "valid_from_s", times.valid_from_s
        if times.valid_times_s is not None:
            after_programming = (time for time in times.valid_times_s if time > 0)
            key, first = "valid_times_s", min(after_programming, default=1.0)
        if first < 1.0:
            raise ValueError(
                f"times.{key} allows {first:g} s, and the logarithmic law of {self.model} holds "
                "from 1 s on; give valid_from_s = 1.0, or valid_times_s of 1 s and more (0, the "
                "programmed state, is allowed)"
            )


ShippedNoise = Annotated[
    Ideal
    | PCMLike
    | CustomDriftPCMLike
    | Hermes
    | StateIndependent
    | ReRAMWan2022
    | ReRAMCMO
    | PolynomialError
    | Sonos
    | Tabulated
    | LogTime
    | StretchedExponential
    | Resampled
    | WeightNoise
    | PiecewiseWeightError,
    Field(discriminator="model"),
]


def _shipped_or_named(given: Any, handler: Callable[[Any], NoiseSection]) -> NoiseSection:
    section = named_section(given, NoiseSection)
    if section is not None and not hasattr(section, "built_by"):
        raise ValueError(
            f"the section {section.model!r} names no noise model; give its class the attribute "
            "built_by = 'package.module:Model'"
        )
    return section or handler(given)


Noise = Annotated[SerializeAsAny[ShippedNoise], WrapValidator(_shipped_or_named)]
"""A noise section of this package, or one of another package by its importable name."""


def _check_measured(section: NoiseSection, drift_tables: tuple[str, str]) -> None:
    """Check the tables of measured cells, among them mean and spread of the drift."""
    mean, spread = drift_tables
    laws = ("programming_spread_uS", spread, "read_spread_relative")
    _check_table(section, "table_uS", *laws, signed=("programming_offset_uS", mean))


def _check_table(section: Any, at: str, *laws: str, signed: tuple[str, ...] = ()) -> None:
    """Raise ValueError unless a table spans g_min to g_max and its laws have its length."""
    points = getattr(section, at)
    if len(points) < 2 or list(points) != sorted(set(points)):
        raise ValueError(f"{at} = {list(points)} must be two or more ascending conductances")
    if points[0] > section.g_min_uS or points[-1] < section.g_max_uS:
        raise ValueError(
            f"{at} spans {points[0]} to {points[-1]} µS and must span g_min_uS = "
            f"{section.g_min_uS} to g_max_uS = {section.g_max_uS}"
        )
    for law in (*laws, *signed):
        values = getattr(section, law)
        if len(values) != len(points):
            raise ValueError(
                f"{law} has {len(values)} entries and {at} {len(points)}; the numbers must be equal"
            )
        if law not in signed and min(values) < 0:
            raise ValueError(f"{law} holds {min(values)}; every entry must be at least 0")
