"""Device files: one TOML file a device, validated and frozen, read without loading torch.

A device file holds the noise model of the memory cell and its constants, the periphery around the
array, how weights are mapped, how drift is compensated and at which times the model holds. Units are
part of the key (``g_max_uS``, ``t_0_s``) and every section with numbers names its source, a key of
``device_configs/references.bib``.
"""

import difflib
import hashlib
import importlib.resources
import json
import math
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

import pydantic
from pydantic import Field, NonNegativeFloat, PositiveFloat, PositiveInt

from analog_samson.times import label

Bits = Annotated[int, Field(ge=2, le=16)] | Literal["ideal"]
Scale = Annotated[float, Field(ge=0, allow_inf_nan=False)]


class _Section(pydantic.BaseModel):
    model_config = pydantic.ConfigDict(
        frozen=True, extra="forbid", allow_inf_nan=True, protected_namespaces=()
    )


class _NoiseSection(_Section):
    source: str = Field(description="key of references.bib")

    @property
    def has_programmed_state(self) -> bool:
        """Whether the model describes the devices right after programming (t = 0)."""
        return True

    @property
    def drifts(self) -> bool:
        """Whether anything changes with time."""
        return True


class Ideal(_NoiseSection):
    """No noise of any kind: what is programmed is what is read, for ever."""

    model: Literal["Ideal"]
    source: str = "this project's reference device"
    g_max_uS: PositiveFloat = 25.0

    @property
    def drifts(self) -> bool:
        return False


class PCMLike(_NoiseSection):
    """aihwkit's ``PCMLikeNoiseModel``: programming noise, power-law drift, accumulated 1/f noise."""

    model: Literal["PCMLikeNoiseModel"]
    g_max_uS: PositiveFloat = Field(description="conductance of the largest weight of a column")
    t_0_s: PositiveFloat = Field(description="first read after programming, drift fit")
    t_read_s: PositiveFloat = Field(description="duration of a read, 1/f fit")
    programming_noise_scale: Scale = 1.0
    read_noise_1f_scale: Scale = 1.0
    drift_scale: Scale = 1.0


class Hermes(_NoiseSection):
    """aihwkit's ``HermesNoiseModel``: one or two devices a conductance, HERMES chip."""

    model: Literal["HermesNoiseModel"]
    devices_per_conductance: Literal[1, 2]
    g_max_uS: PositiveFloat
    t_0_s: PositiveFloat
    t_read_s: PositiveFloat
    programming_noise_scale: Scale = 1.0
    read_noise_1f_scale: Scale = 1.0
    drift_scale: Scale = 1.0


class ReRAMWan2022(_NoiseSection):
    """aihwkit's ``ReRamWan2022NoiseModel``: spread around the target at three measured times."""

    model: Literal["ReRamWan2022NoiseModel"]
    g_max_uS: PositiveFloat
    g_max_reference_uS: PositiveFloat = Field(description="g_max of the published fit")
    times_share: Literal["one_normal_a_device", "independent"] = "one_normal_a_device"
    programming_noise_scale: Scale = 1.0

    @property
    def has_programmed_state(self) -> bool:
        return False


class ReRAMCMO(_NoiseSection):
    """aihwkit's ``ReRamCMONoiseModel``: one device a weight, no reference device."""

    model: Literal["ReRamCMONoiseModel"]
    g_min_uS: NonNegativeFloat
    g_max_uS: PositiveFloat
    acceptance_percent: Literal[0.2, 2.0] = Field(description="program-and-verify acceptance")
    programming_noise_scale: Scale = 1.0
    read_noise_1f_scale: Scale = 1.0
    drift_scale: Scale = 1.0

    @pydantic.model_validator(mode="after")
    def _range(self) -> "ReRAMCMO":
        if self.g_min_uS >= self.g_max_uS:
            raise ValueError(
                f"g_min_uS = {self.g_min_uS} must be below g_max_uS = {self.g_max_uS}"
            )
        return self


Noise = Annotated[
    Ideal | PCMLike | Hermes | ReRAMWan2022 | ReRAMCMO, Field(discriminator="model")
]


class Times(_Section):
    """When the model holds: times after programming [s]."""

    valid_from_s: NonNegativeFloat = 0.0
    measured_to_s: PositiveFloat | None = Field(
        default=None, description="later times are allowed and flagged as extrapolated"
    )
    valid_times_s: tuple[NonNegativeFloat, ...] | None = Field(
        default=None, description="the only times with data; others are an error"
    )


class WeightMapping(_Section):
    """How a weight matrix lies on crossbar arrays."""

    scale: Literal["column", "tile"] = "column"
    max_rows: PositiveInt | Literal["unlimited"] = 512
    max_columns: PositiveInt | Literal["unlimited"] = "unlimited"


class Periphery(_Section):
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


class DriftCompensation(_Section):
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


_SECTIONS: dict[str, type[_Section] | None] = {
    "noise": None,
    "times": Times,
    "mapping": WeightMapping,
    "periphery": Periphery,
    "drift_compensation": DriftCompensation,
}

AXES = {
    "programming_noise_scale": ("noise", "programming_noise_scale"),
    "read_noise_1f_scale": ("noise", "read_noise_1f_scale"),
    "drift_scale": ("noise", "drift_scale"),
    "g_max_uS": ("noise", "g_max_uS"),
    "t_0_s": ("noise", "t_0_s"),
    "output_noise": ("periphery", "output_noise"),
    "compensation": ("drift_compensation", "kind"),
}
"""Axes that a study can sweep, and where each stands in a device file."""


class Device(_Section):
    """One memory technology with its array: everything that turns weights into a chip."""

    name: str
    technology: str
    summary: str
    limits: str = Field(description="what the model does not hold")
    noise: Noise
    times: Times = Times()
    mapping: WeightMapping = WeightMapping()
    periphery: Periphery
    drift_compensation: DriftCompensation
    noise_level: Literal["conductance", "weight_as_in_aihwkit"] = Field(
        default="conductance",
        description="where programming and drift act; the second reproduces aihwkit's own path",
    )

    @pydantic.model_validator(mode="after")
    def _as_in_aihwkit(self) -> "Device":
        noisy = self.drift_compensation.kind != "none" and self.drift_compensation.read_outs == 1
        if self.noise_level == "conductance" and noisy:
            raise ValueError(
                "drift_compensation.read_outs = 1 needs noise_level = 'weight_as_in_aihwkit'; "
                "at conductance level use read_outs = inf"
            )
        if self.noise_level == "weight_as_in_aihwkit" and self.drift_compensation.kind != "none":
            if not noisy:
                raise ValueError(
                    "noise_level = 'weight_as_in_aihwkit' measures alpha as aihwkit does: "
                    "drift_compensation.read_outs must be 1"
                )
        return self

    @property
    def digest(self) -> str:
        """SHA-256 of every number that changes an answer; name and prose do not count."""
        numbers = self.model_dump(
            mode="json", exclude={"name", "technology", "summary", "limits", "times"}
        )
        text = json.dumps(_without(numbers, "source"), sort_keys=True)
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
        valid = self.times.valid_times_s
        if valid is not None and t_inference_s not in valid:
            allowed = ", ".join(f"{t:g} s ({label(t)})" for t in valid)
            raise ValueError(
                f"Device {self.name!r} has no data at {t_inference_s:g} s "
                f"({label(t_inference_s)}); it is known only at {allowed}. Use those times."
            )
        if t_inference_s == 0:
            if not self.noise.has_programmed_state:
                raise ValueError(
                    f"Device {self.name!r} has no data for the programmed state (0 s); "
                    "use a time at which it was measured."
                )
        elif t_inference_s < self.times.valid_from_s:
            raise ValueError(
                f"Device {self.name!r} has no data at {t_inference_s:g} s; use 0 s (programmed) "
                f"or times from {self.times.valid_from_s:g} s."
            )

    def is_extrapolated(self, t_inference_s: float) -> bool:
        """Whether a time lies beyond the measurements the model was fitted to."""
        measured_to = self.times.measured_to_s
        return measured_to is not None and t_inference_s > measured_to

    def with_axes(self, axes: Mapping[str, Any]) -> "Device":
        """Override parameters by the names a study sweeps.

        Args:
            axes: Axis name to value, names from ``AXES``.

        Returns:
            A validated copy; the device itself does not change.

        Raises:
            ValueError: If an axis is unknown, does not apply to this device, or its value is invalid.
        """
        content = self.model_dump()
        for axis, value in axes.items():
            if axis not in AXES:
                raise ValueError(f"Unknown axis {axis!r}{_did_you_mean(axis, AXES)}")
            section, key = AXES[axis]
            if key not in content[section]:
                raise ValueError(
                    f"Axis {axis!r} does not apply to device {self.name!r}: its "
                    f"{section} section ({content[section].get('model', section)}) has no {key!r}."
                )
            content[section][key] = value
        return _validate(content, f"device {self.name!r} with {dict(axes)}")


def device_names() -> list[str]:
    """Return the names of the devices that come with the package, sorted."""
    return sorted(
        entry.name.removesuffix(".toml")
        for entry in importlib.resources.files("analog_samson.device_configs").iterdir()
        if entry.name.endswith(".toml")
    )


def load_device(name_or_path: str | Path) -> Device:
    """Load and validate a device by name or from a file of one's own.

    Args:
        name_or_path: A name from ``device_names()``, or the path of a TOML file (anything that ends
            in ``.toml`` or contains a path separator is a path).

    Returns:
        The validated, frozen device.

    Raises:
        FileNotFoundError: If there is no such file, or no device of that name.
        ValueError: If the file is not valid TOML, or a key is missing, unknown or out of range.
    """
    text = str(name_or_path)
    if isinstance(name_or_path, Path) or text.endswith(".toml") or "/" in text:
        path = Path(name_or_path)
        if not path.is_file():
            raise FileNotFoundError(f"No device file {path}; give an existing .toml file.")
        return _parse(path.read_text(encoding="utf-8"), str(path))
    names = device_names()
    if text not in names:
        raise FileNotFoundError(f"Unknown device {text!r}{_did_you_mean(text, names)}")
    resource = importlib.resources.files("analog_samson.device_configs") / f"{text}.toml"
    return _parse(resource.read_text(encoding="utf-8"), f"{text}.toml")


def _parse(text: str, where: str) -> Device:
    try:
        content = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ValueError(f"{where}: not valid TOML: {error}.") from None
    return _validate(content, where)


def _validate(content: dict[str, Any], where: str) -> Device:
    try:
        return Device.model_validate(content)
    except pydantic.ValidationError as error:
        problem = error.errors()[0]
        raise ValueError(f"{where}: {_explain(problem, content)}") from None


def _explain(problem: Any, content: dict[str, Any]) -> str:
    models = {_model_name(noise) for noise in _noise_sections()}
    keys = _key_path(problem["loc"], models)
    spelled = ".".join(keys) or "device"
    match problem["type"]:
        case "extra_forbidden":
            allowed = _allowed_keys(keys[:-1], content)
            return f"unknown key {spelled!r}{_did_you_mean(keys[-1], allowed)}"
        case "missing":
            return f"key {spelled!r} is missing; add it."
        case "union_tag_invalid":
            given = problem["ctx"]["tag"]
            return f"unknown noise.model {given!r}{_did_you_mean(given, models)}"
        case "union_tag_not_found":
            return f"key 'noise.model' is missing; allowed: {', '.join(sorted(models))}."
        case "value_error":
            return f"{problem['msg'].removeprefix('Value error, ')}."
    given = problem["input"]
    return f"{spelled} = {given!r} is not allowed: {problem['msg'][0].lower()}{problem['msg'][1:]}."


def _key_path(location: tuple[str | int, ...], models: set[str]) -> list[str]:
    """Keep a section and a key of pydantic's location, not its words for branches of a union."""
    keys = [part for part in location if isinstance(part, str) and part not in models]
    in_section = bool(keys) and keys[0] in _SECTIONS
    return keys[: 2 if in_section else 1]


def _model_name(noise: type[_NoiseSection]) -> str:
    name: str = get_args(noise.model_fields["model"].annotation)[0]
    return name


def _noise_sections() -> tuple[type[_NoiseSection], ...]:
    return get_args(get_args(Noise)[0])


def _allowed_keys(section: list[str], content: dict[str, Any]) -> list[str]:
    model: type[pydantic.BaseModel] = Device
    if section == ["noise"]:
        named = content.get("noise", {}).get("model")
        for noise in _noise_sections():
            if _model_name(noise) == named:
                model = noise
    elif section:
        model = _SECTIONS[section[0]] or Device
    return list(model.model_fields)


def _did_you_mean(given: str, allowed: Any) -> str:
    close = difflib.get_close_matches(given, list(allowed), n=1)
    guess = f"; did you mean {close[0]!r}?" if close else "."
    return f"{guess} Allowed: {', '.join(sorted(allowed))}."


def _without(value: Any, key: str) -> Any:
    if isinstance(value, dict):
        return {k: _without(v, key) for k, v in value.items() if k != key}
    return value
