"""A device: its sections, its digest, its valid times, and copies with swept settings."""

import functools
import hashlib
import html
import json
import math
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, ClassVar, Literal, Self

import pydantic
from pydantic import Field

from analog_samson.deprecated import warn_renamed
from analog_samson.devices.array import (
    DriftCompensation,
    Faults,
    InputRanges,
    LayerOverride,
    Periphery,
    Times,
    WeightMapping,
)
from analog_samson.devices.maintenance import (
    EVERY_TIME,
    MOST_CYCLES,
    NEVER,
    RefreshEvery,
    cycle_and_age,
)
from analog_samson.devices.named import names_in
from analog_samson.devices.noise import Noise
from analog_samson.devices.section import PROSE, Name, Section, neutral
from analog_samson.devices.sentences import did_you_mean, explain
from analog_samson.devices.settings import find_setting, settings_of
from analog_samson.devices.temperature import Temperature
from analog_samson.devices.variation import Variation
from analog_samson.importing import check_trust
from analog_samson.times import LONGEST_S, SHORTEST_S, label

SWEPT = "the user's choice: set by an axis"
"""Source of a section whose file gives none, after an axis has set one of its numbers."""


class Device(Section):
    """A memory technology with its array: all that the programming of a chip depends on.

    Example:
        >>> from analog_samson import load_device
        >>> device = load_device("pcm_like").with_axes({"adc_bits": 6})
        >>> device.periphery.adc_bits, device.is_extrapolated(86400.0)
        (6, False)
    """

    not_swept: ClassVar[Mapping[str, str]] = dict.fromkeys(
        ("name", "technology", "summary", "limits"), PROSE
    )

    name: Name
    technology: str
    summary: str
    limits: str = Field(description="effects that the model does not include")
    noise: Noise
    times: Times = Times()
    mapping: WeightMapping = WeightMapping()
    periphery: Periphery
    input_ranges: InputRanges = neutral(InputRanges(), "input range of a layer")
    drift_compensation: DriftCompensation
    faults: Faults = neutral(Faults(), "stuck cells")
    variation: Variation = neutral(Variation(), "differences between chips and between arrays")
    temperature: Temperature = neutral(Temperature(), "temperature of the chip after programming")
    refresh_every: RefreshEvery = neutral(
        NEVER, 'interval after which chips are programmed again, in s or as a text such as "1 mo"'
    )
    noise_level: Literal["conductance", "weight_as_in_aihwkit"] = Field(
        default="conductance",
        description="level at which programming and drift are computed; the second as in aihwkit",
    )

    layers: Annotated[tuple[LayerOverride, ...], Field(strict=False)] = neutral(
        (), "overrides for layers, by name pattern"
    )

    @pydantic.model_validator(mode="after")
    def _layers_are_devices(self) -> "Device":
        if self.layers and self.noise_level == "weight_as_in_aihwkit":
            raise ValueError("layers: overrides need noise_level = 'conductance'")
        for override in self.layers:
            self._overridden(override)
        return self

    def __repr__(self) -> str:
        """Name, technology and noise model; ``describe.parameters`` lists all settings."""
        noise, times = self.noise, self.times
        measured = (
            "" if times.measured_to_s is None else f", measured to {label(times.measured_to_s)}"
        )
        return f"Device({self.name}: {self.technology}, {noise.model}{measured})"

    def _repr_html_(self) -> str:
        """Summary, limits and every parameter with its unit and source, for notebooks."""
        from analog_samson.devices.describe import parameters  # it needs this class

        table = parameters(self).to_html(index=False, border=0)
        name, summary, limits = map(html.escape, (self.name, self.summary, self.limits))
        return f"<p><b>{name}</b>: {summary}<br>Limits: {limits}</p>\n{table}"

    @property
    def digital_layers(self) -> tuple[str, ...]:
        """Patterns of the layers that stay digital."""
        return tuple(override.pattern for override in self.layers if override.digital)

    def with_overrides_for(self, name: str) -> "Device":
        """Apply the overrides for a layer.

        Args:
            name: Dotted name of the layer.

        Returns:
            The device itself, or a copy with the first override whose pattern matches.
        """
        for override in self.layers:
            if override.matches(name):
                return self._overridden(override)
        return self

    def check_overrides(self, names: Sequence[str]) -> None:
        """Raise if an override for layers would change nothing, as one with a typing error.

        Args:
            names: Dotted names of all modules of a network.

        Raises:
            ValueError: If a pattern matches none of them.
        """
        for override in self.layers:
            if not override.digital and not any(map(override.matches, names)):
                raise ValueError(
                    f"The entry of [[layers]] (or the axis) with the pattern {override.pattern!r} "
                    f"matches no layer of the network{did_you_mean(override.pattern, names)}"
                )

    @property
    def _devices_of_layers(self) -> tuple["Device", ...]:
        """The device itself, and its copies with the overrides of layers that are not digital."""
        return (self, *(self._overridden(one) for one in self.layers if not one.digital))

    def _overridden(self, override: LayerOverride) -> "Device":
        content = self.model_dump(exclude={"layers"})
        for section in ("noise", "faults", "drift_compensation"):
            changes = getattr(override, section)
            if changes.get("model", self.noise.model) != self.noise.model:
                content[section] = changes
            else:
                content[section] = {**content[section], **changes}
        for key in ("measured_at", "batch_norm"):
            if key in override.drift_compensation:
                raise ValueError(
                    f"layers, {override.pattern!r}: drift_compensation.{key} is one for all "
                    "layers; give it for the device"
                )
        if content["drift_compensation"].get("kind") == "none":
            content["drift_compensation"]["measured_at"] = EVERY_TIME
        return _device(content, f"layers, {override.pattern!r}")

    @pydantic.model_validator(mode="after")
    def _as_in_aihwkit(self) -> "Device":
        kind, read_outs = self.drift_compensation.kind, self.drift_compensation.read_outs
        if self.noise_level == "conductance":
            if kind != "none" and read_outs == 1:
                raise ValueError(
                    "drift_compensation.read_outs = 1 needs noise_level = 'weight_as_in_aihwkit'; "
                    "at conductance level use read_outs = inf"
                )
            return self
        if self.faults != Faults():
            raise ValueError(
                "faults are those of single cells, which noise_level = 'weight_as_in_aihwkit' does "
                "not simulate; use a device at conductance level"
            )
        if kind == "per_layer":
            raise ValueError(
                "drift_compensation.kind = 'per_layer' needs noise_level = 'conductance'; aihwkit "
                "has 'none', 'global' and 'per_column'"
            )
        if kind != "none" and read_outs != 1:
            raise ValueError(
                "noise_level = 'weight_as_in_aihwkit' measures alpha as aihwkit does: "
                "drift_compensation.read_outs must be 1"
            )
        return self

    @pydantic.model_validator(mode="after")
    def _variation_applies(self) -> "Device":
        if self.variation.is_used and self.noise_level == "weight_as_in_aihwkit":
            raise ValueError(
                "variation is that of single arrays, which noise_level = 'weight_as_in_aihwkit' "
                "does not simulate; use a device at conductance level"
            )
        self.variation.check_applies(self.noise)
        return self

    @pydantic.model_validator(mode="after")
    def _temperature_applies(self) -> "Device":
        if self.temperature.time_factor != 1 and self.times.valid_times_s is not None:
            known = ", ".join(f"{time:g}" for time in self.times.valid_times_s)
            raise ValueError(
                f"temperature.temperature_C = {self.temperature.temperature_C:g} changes the time "
                f"that drift sees, and the device is known only at {known} s; leave it out"
            )
        return self

    @pydantic.model_validator(mode="after")
    def _mapping_fits_the_cell(self) -> "Device":
        single, signed = self.noise.cells == "single", self.noise.cells == "signed"
        pairs = self.mapping.pair_significances != (1.0,) or self.mapping.pair_tables_uS
        if self.mapping.reference_column and not single:
            raise ValueError(
                f"mapping.reference_column is for one cell per weight; {self.noise.model} has "
                "differential pairs"
            )
        if pairs and (single or signed):
            raise ValueError(
                f"mapping.pair_significances and pair_tables_uS are for pairs; {self.noise.model} "
                "has none"
            )
        if self.periphery.has_cell_currents and (pairs or single or signed):
            raise ValueError(
                "periphery.mvm_read_noise_uS, iv_square_powers and iv_cube_powers are for one "
                "differential pair per weight, whose conductances follow from it; "
                + (f"{self.noise.model} has none" if single or signed else "mapping has several")
            )
        for table in self.mapping.pair_tables_uS:
            allowed = self.noise.conductance_range
            if min(table) < allowed[0] or max(table) > allowed[1]:
                raise ValueError(
                    f"mapping.pair_tables_uS spans {min(table)} to {max(table)} µS and must stay "
                    f"within noise.g_min_uS and g_max_uS, {allowed[0]} to {allowed[1]}"
                )
        return self

    @pydantic.model_validator(mode="after")
    def _folded_or_recalibrated(self) -> "Device":
        folded = self.mapping.batch_norm == "folded"
        if folded and self.drift_compensation.batch_norm == "recalibrated":
            raise ValueError(
                "mapping.batch_norm = 'folded' leaves no statistics; drift_compensation.batch_norm "
                "must be 'trained' with it"
            )
        return self

    @pydantic.model_validator(mode="after")
    def _times_with_data(self) -> "Device":
        self.noise.check_times(self.times)
        return self

    @property
    def needs_training_images(self) -> bool:
        """Whether its chips need training images: to recalibrate, rescale or calibrate ranges."""
        per_chip = self.periphery.needs_input_ranges and self.input_ranges.of == "chip"
        kinds = {device.drift_compensation.kind for device in self._devices_of_layers}
        recalibrated = self.drift_compensation.batch_norm == "recalibrated"
        return per_chip or recalibrated or "per_layer" in kinds

    @property
    def first_time_s(self) -> float:
        """The earliest time with data [s]: 0, the programmed state, if the model describes it."""
        if self.times.valid_times_s is not None:
            return min(self.times.valid_times_s)
        return 0.0 if self.noise.has_programmed_state else self.times.valid_from_s

    @property
    def always_recorded_axes(self) -> dict[str, Any]:
        """Axes that the column ``condition`` records even if not swept, with their values."""
        axes: dict[str, Any] = {}
        if any(device.noise.draws_each_time_anew for device in self._devices_of_layers):
            axes["times_share"] = "independent"
        if self.temperature.time_factor != 1:
            axes["temperature_C"] = self.temperature.temperature_C
        if self.refresh_every != NEVER:
            axes["refresh_every"] = self.refresh_every
        return axes

    def for_layer(self, name: str) -> "Device":
        """The old name of ``with_overrides_for``."""
        warn_renamed("Device.for_layer", "Device.with_overrides_for")
        return self.with_overrides_for(name)

    @property
    def said_in_every_row(self) -> dict[str, Any]:
        """The old name of ``always_recorded_axes``."""
        warn_renamed("Device.said_in_every_row", "Device.always_recorded_axes")
        return self.always_recorded_axes

    def model_copy(self, *, update: Mapping[str, Any] | None = None, deep: bool = False) -> Self:
        """A copy with other values, as pydantic makes it, without the digest of this device."""
        copied = super().model_copy(update=update, deep=deep)
        vars(copied).pop("digest", None)
        return copied

    @functools.cached_property
    def digest(self) -> str:
        """SHA-256 of every setting that predictions depend on; name and texts are excluded.

        Keys of later versions are included only if they differ from their neutral default, so
        that a new key does not change the digest of devices that do not use it.
        """
        numbers = self.model_dump(
            mode="json", exclude={"name", "technology", "summary", "limits", "times"}
        )
        for key in ("source", "fit_source", "measurements"):
            numbers = _without(numbers, key)
        _drop_neutral(self, numbers)
        text = json.dumps(numbers, sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()

    def check_time(self, t_inference_s: float) -> None:
        """Raise unless the device has data, or an allowed extrapolation, for a time.

        Args:
            t_inference_s: Time since programming finished [s]; 0 is the programmed state.

        Raises:
            ValueError: If the time is negative or not finite, or the device has no data for it.
        """
        if not (math.isfinite(t_inference_s) and t_inference_s >= 0):
            raise ValueError(
                f"A time must be finite and at least 0 s after programming; got {t_inference_s!r}."
            )
        if t_inference_s > LONGEST_S or 0 < t_inference_s < SHORTEST_S:
            raise ValueError(
                f"A time lies between {SHORTEST_S:g} and {LONGEST_S:g} s after programming, or is "
                f"0; got {t_inference_s!r}."
            )
        cycle, age_s = self.cycle_and_age(t_inference_s)
        if cycle > MOST_CYCLES:
            raise ValueError(
                f"Device {self.name!r} is refreshed every {self.refresh_every} s, more than "
                f"{MOST_CYCLES:,} times before {label(t_inference_s)}; give a longer interval."
            )
        since = ""
        if cycle:
            since = f", the time since the refresh before {t_inference_s:g} s"
        self._check_data(age_s, since)
        measured_s = self.drift_compensation.last_measured(age_s)
        if measured_s not in (None, age_s):
            self._check_data(measured_s, ", at which drift compensation is measured")

    def _check_data(self, age_s: float, why: str) -> None:
        """Raise ValueError unless the noise model has data for a time, as an effective time."""
        at = self.effective_time_s(age_s)
        what = f"{at:g} s ({label(at)})"
        if at != age_s:
            what += f", the effective time of {age_s:g} s at {self.temperature.label}"
        what += why
        valid = self.times.valid_times_s
        if valid is not None and at not in valid:
            allowed = ", ".join(f"{t:g} s ({label(t)})" for t in valid)
            raise ValueError(
                f"Device {self.name!r} has no data at {what}; it is known only at {allowed}. Use "
                "those times."
            )
        if at > LONGEST_S or 0 < at < SHORTEST_S:
            raise ValueError(
                f"A time lies between {SHORTEST_S:g} and {LONGEST_S:g} s after programming; got "
                f"{what}."
            )
        if at == 0:
            if not self.noise.has_programmed_state:
                raise ValueError(
                    f"Device {self.name!r} has no data for the programmed state (0 s{why}); "
                    "use a time at which it was measured."
                )
        elif self.times.valid_to_s is not None and at > self.times.valid_to_s:
            raise ValueError(
                f"Device {self.name!r} has no data at {what}; use times up to "
                f"{self.times.valid_to_s:g} s ({label(self.times.valid_to_s)})."
            )
        elif at < self.times.valid_from_s:
            raise ValueError(
                f"Device {self.name!r} has no data at {what}; use 0 s (programmed) or times from "
                f"{self.times.valid_from_s:g} s."
            )

    def cycle_and_age(self, t_inference_s: float) -> tuple[int, float]:
        """Refreshes until a time since the first programming [s], and time since the last [s]."""
        return cycle_and_age(self.refresh_every, t_inference_s)

    def effective_time_s(self, t_inference_s: float) -> float:
        """Time since programming [s] at the reference temperature with the same drift."""
        return self.temperature.time_factor * t_inference_s

    @property
    def changes_with_time(self) -> bool:
        """Whether the cells of any layer drift or their read noise grows with time."""
        return any(device.noise.drifts for device in self._devices_of_layers)

    def is_extrapolated(self, t_inference_s: float) -> bool:
        """Whether a time is later than the measurements of the model.

        What counts is the effective time since the last programming.
        """
        measured_to, (_, age_s) = self.times.measured_to_s, self.cycle_and_age(t_inference_s)
        return measured_to is not None and self.effective_time_s(age_s) > measured_to

    def with_axes(self, axes: Mapping[str, Any]) -> "Device":
        """Override settings by the names of axes.

        Args:
            axes: Axis name to value: any setting (``settings``), with its section or, if the
                name is unique, without; or one of layers, "layers.PATTERN.drift_scale": an override
                of this pattern is changed, or added before the others.

        Returns:
            A validated copy; the device itself does not change.

        Raises:
            ValueError: If an axis is unknown, given twice, does not apply to this device or cannot
                be swept, or a value is invalid.
        """
        content = self.model_dump()
        seen: set[str] = set()
        for axis, value in axes.items():
            name, path = find_setting(axis, self, self.name)
            if name in seen:
                raise ValueError(f"Axis {name!r} is given twice, once as {axis!r}; give it once.")
            seen.add(name)
            section: Any = content
            if path[0] == "layers":
                section = _override_of(content, str(path[1]))
                path = path[2:]
            for part in path[:-1]:
                section = section[part]
            section[path[-1]] = value
            if section.get("source") == "":
                section["source"] = SWEPT
        content["layers"] = [one for one in content["layers"] if _changes_something(one)]
        return _device(content, f"device {self.name!r} with {dict(axes)}")

    def axis_name(self, axis: str) -> str:
        """The name of an axis in tables, given any of its names."""
        return find_setting(axis, self, self.name)[0]

    @property
    def settings(self) -> dict[str, str]:
        """Every setting, ``"section.key"``, and the reason why it cannot be swept: "" if it can."""
        return {name: reason for name, (_, reason) in settings_of(self).items()}


def _override_of(content: dict[str, Any], pattern: str) -> dict[str, Any]:
    """The override with a pattern, in the content of a device; a new one goes first."""
    content["layers"] = list(content["layers"])
    for override in content["layers"]:
        if override["pattern"] == pattern:
            found: dict[str, Any] = override
            return found
    override = {"pattern": pattern, "noise": {}, "faults": {}, "drift_compensation": {}}
    content["layers"].insert(0, override)
    return override


def _changes_something(override: Mapping[str, Any]) -> bool:
    """Whether an override is more than its pattern and ``digital = false``."""
    return any(value for key, value in override.items() if key != "pattern")


def validated(
    content: dict[str, Any], where: str, *, from_json: bool = False, trust: Sequence[str] = ()
) -> Device:
    """Validate the content of a device file.

    Args:
        content: Sections and keys.
        where: Name of the file, for the error.
        from_json: Whether it comes from ``model_dump_json``, which writes infinity as a string.
        trust: Packages that it may import sections from, in addition to those of the environment
            variable ``ANALOG_SAMSON_TRUST``.

    Returns:
        The device.

    Raises:
        ValueError: If a key is missing, unknown or out of range, or the content names code of a
            package that is not trusted; one sentence.

    Example:
        >>> from analog_samson import load_device
        >>> content = load_device("pcm_like").model_dump(exclude_defaults=True)
        >>> validated(content, "my device").name
        'pcm_like'
    """
    check_trust(names_in(content), source=where, trust=trust)
    return _device(_with_infinity(content) if from_json else content, where)


def _device(content: dict[str, Any], where: str) -> Device:
    """The device of a content that may import what it names."""
    try:
        return Device.model_validate(content)
    except pydantic.ValidationError as error:
        raise ValueError(f"{where}: {explain(error.errors(), Device)}") from None


def _with_infinity(value: Any, key: str = "") -> Any:
    if isinstance(value, dict):
        return {name: _with_infinity(one, name) for name, one in value.items()}
    if isinstance(value, list):
        return [_with_infinity(one) for one in value]
    return math.inf if value == "Infinity" and key in ("output_bound", "read_outs") else value


def _without(value: Any, key: str) -> Any:
    if isinstance(value, dict):
        return {k: _without(v, key) for k, v in value.items() if k != key}
    if isinstance(value, list):
        return [_without(one, key) for one in value]
    return value


def _drop_neutral(section: Section, numbers: dict[str, Any]) -> None:
    """Remove keys that are neutral at their default, in place, from a dumped section."""
    for key, field in type(section).model_fields.items():
        value = getattr(section, key)
        extra = field.json_schema_extra
        if isinstance(extra, dict) and "neutral_at_default" in extra and value == field.default:
            numbers.pop(key, None)
        elif isinstance(value, Section) and key in numbers:
            _drop_neutral(value, numbers[key])
            if not numbers[key]:
                del numbers[key]
