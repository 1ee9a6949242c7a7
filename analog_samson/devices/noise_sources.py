"""Noise sources of a device: the settings that scale one, each with what it means physically."""

from collections.abc import Sequence
from typing import Literal

from analog_samson.devices.device import Device
from analog_samson.devices.sentences import did_you_mean
from analog_samson.devices.settings import SHORT_AXIS_NAMES

NOISE_SOURCES = (
    "programming_noise_scale",
    "read_noise_1f_scale",
    "drift_scale",
    "sigma",
    "output_noise",
    "mvm_read_noise",
    "mvm_read_noise_uS",
    "ir_drop",
    "stuck_low",
    "stuck_high",
)
"""Settings that scale a noise source and are 0 where it is off. Converters, bounds and mapping are
no noise sources."""

ALL_TOGETHER = "all together"
"""All noise sources of a device, scaled by one factor."""

Others = Literal["off", "nominal"]
"""The sources that are not scaled: switched off, or as on the device."""


def noise_sources(device: Device) -> dict[str, float]:
    """The noise sources of a device and their own values, all above 0.

    Args:
        device: The device.

    Raises:
        ValueError: If it has none, or some layers have noise of their own, which is not scaled.

    Example:
        >>> from analog_samson.devices import load_device
        >>> noise_sources(load_device("pcm_like"))  # doctest: +NORMALIZE_WHITESPACE
        {'programming_noise_scale': 1.0, 'read_noise_1f_scale': 1.0, 'drift_scale': 1.0,
         'output_noise': 0.04}
    """
    for override in device.layers:
        if override.noise or override.faults:
            raise ValueError(
                f"Device {device.name!r} has noise of its own for the layers "
                f"{override.pattern!r}, which would not be scaled; give a device without such "
                "[[layers]]."
            )
    found = {}
    for source in NOISE_SOURCES:
        value = _own_value(device, source)
        if value is not None and value > 0:
            found[source] = value
    if not found:
        raise ValueError(
            f"Device {device.name!r} has no noise source to scale (none of "
            f"{', '.join(NOISE_SOURCES)} is above 0); give a device with noise."
        )
    return found


def chosen_sources(device: Device, names: Sequence[str]) -> dict[str, float]:
    """The named noise sources of a device and their own values.

    Args:
        device: The device.
        names: Names in `NOISE_SOURCES` or `ALL_TOGETHER`; none takes all sources, and all together
            if there are several.

    Returns:
        Name to value; all together have 1.

    Raises:
        ValueError: If the device has no such source, it is off, or a name is given twice; or as
            :func:`noise_sources`.
    """
    known = noise_sources(device)
    if not names:
        return known | ({ALL_TOGETHER: 1.0} if len(known) > 1 else {})
    if len(set(names)) < len(names):
        raise ValueError(f"Give every noise source once; got {', '.join(names)}.")
    for name in names:
        if name in NOISE_SOURCES and name not in known:
            raise ValueError(
                f"The noise source {name!r} is off on device {device.name!r}, or not part of it; "
                f"it has {', '.join(known)}."
            )
        if name != ALL_TOGETHER and name not in known:
            raise ValueError(
                f"Unknown noise source {name!r}{did_you_mean(name, [*known, ALL_TOGETHER])}"
            )
    return {name: known.get(name, 1.0) for name in names}


def scaled_settings(
    device: Device, source: str, factor: float, others: Others = "off"
) -> dict[str, float]:
    """The settings of a device with one noise source scaled.

    Args:
        device: The device.
        source: One of its :func:`noise_sources`, or `ALL_TOGETHER`.
        factor: Scale relative to the device; 0 switches it off. Fractions of stuck cells grow until
            all cells are stuck.
        others: What the other sources are: "off", or "nominal", as on the device.

    Returns:
        All noise sources of the device to their values, with six digits where the factor is not 1.

    Example:
        >>> from analog_samson.devices import load_device
        >>> scaled_settings(load_device("gaussian_max"), "sigma", 2.0)
        {'sigma': 0.076}
    """
    known = noise_sources(device)
    of_others = dict.fromkeys(known, 0.0) if others == "off" else known
    found = {
        name: _scaled(value, factor) if source in (name, ALL_TOGETHER) else of_others[name]
        for name, value in known.items()
    }
    low, high = found.get("stuck_low", 0.0), found.get("stuck_high", 0.0)
    if low + high > 1:
        low = {"stuck_low": 1 - high, "stuck_high": low}.get(source, low / (low + high))
        all_stuck = {"stuck_low": round(low, 6), "stuck_high": round(1 - low, 6)}
        found |= {name: value for name, value in all_stuck.items() if name in known}
    return found


def _scaled(value: float, factor: float) -> float:
    return value if factor == 1 else float(f"{value * factor:.6g}")


def _own_value(device: Device, source: str) -> float | None:
    section, key = SHORT_AXIS_NAMES.get(source, ("periphery", source))
    value = getattr(getattr(device, section), key, None)
    return float(value) if isinstance(value, int | float) else None
