"""Description of a device: every effective parameter with its unit, source and default."""

from collections.abc import Iterable, Iterator
from typing import Any

import pandas as pd
from pydantic_core import PydanticUndefined

from analog_samson.devices.device import Device
from analog_samson.devices.named import OpenSection
from analog_samson.devices.section import Section
from analog_samson.times import label

PARAMETER_COLUMNS = ("parameter", "value", "unit", "default", "source", "meaning")

_UNITS = {"_uS": "µS", "_nA": "nA", "_s": "s", "_V": "V", "_percent": "%", "_C": "°C", "_eV": "eV"}
_PROSE = {"name", "technology", "summary", "limits", "source", "fit_source", "model"}


def parameters(device: Device) -> pd.DataFrame:
    """List every effective parameter of a device.

    Args:
        device: The device.

    Returns:
        One row per parameter, columns ``PARAMETER_COLUMNS``; the default is "required" if a file
        must give the value; the source is empty if the file does not give the value or its
        section needs none.
    """
    return pd.DataFrame(list(_rows(device, "", "")), columns=list(PARAMETER_COLUMNS))


def device_table(devices: Iterable[Device]) -> pd.DataFrame:
    """Tabulate devices for the documentation.

    Args:
        devices: The devices.

    Returns:
        One row per device: name, technology, model, conductances, times, compensation, sources and
        the summary.
    """
    return pd.DataFrame(
        [
            {
                "device": f"`{device.name}`",
                "technology": device.technology,
                "model": device.noise.model,
                "conductance [µS]": _range(device),
                "times": _times(device),
                "compensation": device.drift_compensation.label,
                "source": ", ".join(_sources(device)),
                "what it is": device.summary,
            }
            for device in devices
        ]
    )


def _rows(section: Section, prefix: str, source: str) -> Iterator[tuple[str, ...]]:
    source = (
        ", ".join(
            str(given) for key in ("source", "fit_source") if (given := getattr(section, key, ""))
        )
        or source
    )
    for key, field in type(section).model_fields.items():
        value = getattr(section, key)
        if isinstance(value, Section):
            yield from _rows(value, f"{prefix}{key}.", "")
        elif isinstance(value, tuple) and value and isinstance(value[0], OpenSection):
            for number, part in enumerate(value):
                yield from _rows(part, f"{prefix}{key}.{number}.", "")
        elif key not in _PROSE or key == "model":
            default = field.get_default(call_default_factory=True)
            yield (
                f"{prefix}{key}",
                _spell(value),
                next((unit for end, unit in _UNITS.items() if key.endswith(end)), ""),
                "required" if default is PydanticUndefined else _spell(default),
                source if key in section.model_fields_set else "",
                field.description or "",
            )


def _spell(value: Any) -> str:
    if isinstance(value, tuple):
        return "[" + ", ".join(_spell(one) for one in value) + "]"
    if isinstance(value, float):
        return f"{value:g}"
    return "" if value is None else str(value)


def _range(device: Device) -> str:
    g_max = getattr(device.noise, "g_max_uS", None)
    return "" if g_max is None else f"{getattr(device.noise, 'g_min_uS', 0.0):.3g} to {g_max:g}"


def _times(device: Device) -> str:
    times = device.times
    if times.valid_times_s is not None:
        return "only " + ", ".join(label(t) for t in times.valid_times_s)
    parts = []
    if times.valid_from_s:
        parts.append(f"from {label(times.valid_from_s)}")
    if times.valid_to_s is not None:
        parts.append(f"to {label(times.valid_to_s)}")
    elif times.measured_to_s is not None:
        parts.append(f"measured to {label(times.measured_to_s)}")
    return ", ".join(parts) or "any"


def _sources(device: Device) -> list[str]:
    noise = device.noise
    given = [noise.source, getattr(noise, "fit_source", ""), device.periphery.source]
    return list(dict.fromkeys(source for source in given if source))
