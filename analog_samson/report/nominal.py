"""A device's own values of swept settings, which figures mark."""

from collections.abc import Iterable, Mapping
from typing import Any

from analog_samson.devices import SHORT_AXIS_NAMES, device_names, load_device
from analog_samson.results.definitions import tied_settings


def nominal_values(
    manifests: Iterable[Mapping[str, Any]], device: str, axes: Iterable[str]
) -> dict[str, Any]:
    """A device's own values of swept settings.

    Args:
        manifests: Contents of ``manifest.json`` of the studies; a shipped device that is in none is
            read from its file.
        device: Name of the device.
        axes: Names of axes; one that ties settings has a value where the settings have one of its
            values.

    Returns:
        Axis to value, of the axes whose value is known.
    """
    manifests = list(manifests)
    given = [found["devices"][device] for found in manifests if device in found.get("devices", {})]
    if not given and device in device_names():
        given = [load_device(device).model_dump(mode="json")]
    tied: dict[str, Any] = {}
    for manifest in manifests:
        tied |= manifest.get("study", {}).get("axes", {})
    found: dict[str, Any] = {}
    for definition in given[:1]:
        for axis in axes:
            if isinstance(tied.get(axis), Mapping):
                for value, settings in tied_settings(tied[axis]):
                    if all(_setting(definition, s) == v for s, v in settings.items()):
                        found.setdefault(axis, value)
            elif (value := _setting(definition, axis)) is not None:
                found[axis] = value
    return found


def _setting(value: Any, axis: str) -> Any:
    for key in SHORT_AXIS_NAMES.get(axis) or tuple(axis.split(".")):
        if isinstance(value, list):
            value = dict(enumerate(value)).get(int(key)) if key.isdigit() else None
        value = value.get(key) if isinstance(value, Mapping) else None
    if value is None and axis.endswith("_scale"):
        return 1.0  # left out of manifests of earlier versions
    return None if isinstance(value, Mapping | list) else value
