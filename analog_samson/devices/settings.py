"""Settings of a device that a study can sweep: the fields of its sections, by their names."""

from collections.abc import Iterable, Mapping
from types import MappingProxyType

from analog_samson.devices.named import OpenSection
from analog_samson.devices.section import Section
from analog_samson.devices.sentences import did_you_mean

SHORT_AXIS_NAMES: Mapping[str, tuple[str, str]] = MappingProxyType(
    {
        "programming_noise_scale": ("noise", "programming_noise_scale"),
        "read_noise_1f_scale": ("noise", "read_noise_1f_scale"),
        "drift_scale": ("noise", "drift_scale"),
        "g_max_uS": ("noise", "g_max_uS"),
        "t_0_s": ("noise", "t_0_s"),
        "output_noise": ("periphery", "output_noise"),
        "compensation": ("drift_compensation", "kind"),
        "compensation_times": ("drift_compensation", "measured_at"),
        "batch_norm": ("drift_compensation", "batch_norm"),
        "stuck_low": ("faults", "stuck_low"),
        "stuck_high": ("faults", "stuck_high"),
        "sigma": ("noise", "sigma"),
        "times_share": ("noise", "times_share"),
        "mvm_read_noise": ("periphery", "mvm_read_noise"),
        "mvm_read_noise_kind": ("periphery", "mvm_read_noise_kind"),
        "ir_drop": ("periphery", "ir_drop"),
        "output_bound": ("periphery", "output_bound"),
        "adc_bits": ("periphery", "adc_bits"),
        "dac_bits": ("periphery", "dac_bits"),
        "input_range": ("input_ranges", "statistic"),
        "input_range_of": ("input_ranges", "of"),
        "temperature_C": ("temperature", "temperature_C"),
    }
)
"""Settings that tables name without their section, or by another name; all others are named
``section.key``."""

_SHORT = {f"{section}.{key}": axis for axis, (section, key) in SHORT_AXIS_NAMES.items()}

OF_LAYERS = "layers."
"""What the axis of an override for layers begins with: "layers.PATTERN.drift_scale"."""

OVERRIDDEN = ("noise", "faults", "drift_compensation")
"""Sections that overrides for layers may change."""

Path = tuple[str | int, ...]
"""Position of a setting in the content of a device file."""


def settings_of(section: Section, path: Path = ()) -> dict[str, tuple[Path, str]]:
    """List the settings of a section and of the sections in it.

    Args:
        section: A device, or one of its sections.
        path: Its position in the device.

    Returns:
        Name of each setting (``"mapping.max_rows"``; of an effect of the periphery
        ``"periphery.effects.0.key"``) to its position, and why it cannot be swept: "" if it can.
    """
    found: dict[str, tuple[Path, str]] = {}
    for key in type(section).model_fields:
        value, at = getattr(section, key), (*path, key)
        parts: Iterable[object] = value if isinstance(value, tuple) else ()
        reason = section.not_swept.get(key, "")
        if isinstance(value, Section):
            found |= settings_of(value, at)
            continue
        for number, part in enumerate(parts):
            if isinstance(part, OpenSection):
                found |= settings_of(part, (*at, number))
        if not reason and isinstance(value, tuple):
            reason = "it is a list, and values of an axis are numbers, strings or booleans"
        found[".".join(map(str, at))] = at, reason
    return found


def find_setting(axis: str, section: Section, device: str) -> tuple[str, Path]:
    """Find a setting by its name, with or without its section.

    Args:
        axis: The name.
        section: The device.
        device: Its name, for messages.

    Returns:
        Its name in tables, and its position.

    Raises:
        ValueError: If there is no such setting, several have the name, or it cannot be swept.
    """
    if axis.startswith(OF_LAYERS):
        return _setting_of_layers(axis, section, device)
    settings = settings_of(section)
    wanted = ".".join(SHORT_AXIS_NAMES[axis]) if axis in SHORT_AXIS_NAMES else axis
    matching = [name for name in settings if name == wanted]
    matching = matching or [name for name in settings if name.endswith(f".{wanted}")]
    if len(matching) > 1:
        raise ValueError(
            f"Axis {axis!r} of device {device!r} is ambiguous: {' or '.join(matching)}; give one "
            "of these names."
        )
    if not matching and axis in SHORT_AXIS_NAMES:
        part, key = SHORT_AXIS_NAMES[axis]
        model = getattr(getattr(section, part), "model", part)
        raise ValueError(
            f"Axis {axis!r} does not apply to device {device!r}: its {part} section ({model}) has "
            f"no {key!r}."
        )
    if not matching:
        known = {_SHORT.get(name, name) for name, (_, reason) in settings.items() if not reason}
        raise ValueError(f"Unknown axis {axis!r}{did_you_mean(axis, known)}")
    path, reason = settings[matching[0]]
    if reason:
        raise ValueError(f"Axis {axis!r}: {matching[0]} cannot be swept: {reason}.")
    return _SHORT.get(matching[0], matching[0]), path


def _setting_of_layers(axis: str, section: Section, device: str) -> tuple[str, Path]:
    """Find "layers.PATTERN.key" or "layers.PATTERN.section.key"; a pattern may contain points."""
    known: dict[str, tuple[str, Path]] = {"digital": ("digital", ("digital",))}
    for name, (path, reason) in settings_of(section).items():
        if path[0] in OVERRIDDEN and not reason:
            shown = _SHORT.get(name, name)
            for called in (name, shown, name.rpartition(".")[2]):
                known.setdefault(called, (shown, path))
    parts = axis.removeprefix(OF_LAYERS).split(".")
    for n in (2, 1):
        pattern, key = ".".join(parts[:-n]), ".".join(parts[-n:])
        if pattern and key in known:
            shown, path = known[key]
            return f"{OF_LAYERS}{pattern}.{shown}", ("layers", pattern, *path)
    shown_names = {shown for shown, _ in known.values()}
    raise ValueError(
        f"Axis {axis!r} of device {device!r}: a setting of layers is named 'layers.PATTERN.key', "
        f"such as 'layers.conv*.digital'; unknown key {parts[-1]!r}"
        f"{did_you_mean(parts[-1], shown_names)}"
    )
