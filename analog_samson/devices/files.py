"""Finding and reading device files, without loading torch."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

from analog_samson.devices.device import Device, validated
from analog_samson.devices.sentences import did_you_mean
from analog_samson.devices.toml import parse_toml
from analog_samson.files import top_folder
from analog_samson.importing import is_import_name
from analog_samson.messages import shortened

NEWEST_VERSION: Mapping[str, str] = MappingProxyType(
    {"sonos_agrawal2022": "sonos_agrawal2022_crosssim_3_2"}
)
"""Names of devices whose published fit has several versions, and the file of the newest."""


def device_names() -> list[str]:
    """Return the names of the devices that come with the package, sorted.

    Example:
        >>> device_names()[:3]
        ['gaussian_max', 'gaussian_max_layer', 'ideal']
    """
    return sorted(
        entry.name.removesuffix(".toml")
        for entry in top_folder("device_configs").iterdir()
        if entry.name.endswith(".toml")
    )


def load_device(name_or_path: str | Path, trust: Sequence[str] = ()) -> Device:
    """Load and validate a device by name or from another file.

    Args:
        name_or_path: A name from ``device_names()`` or ``NEWEST_VERSION``, or the path of a TOML
            file (anything that ends in ``.toml`` or contains a path separator is a path).
        trust: Packages that a file may import sections from, in addition to those of the
            environment variable ``ANALOG_SAMSON_TRUST``.

    Returns:
        The validated, frozen device.

    Raises:
        FileNotFoundError: If there is no such file, no device of that name, or no file of
            measurements at the path that it names.
        ValueError: If the file is not valid TOML, a key is missing, unknown or out of range, or it
            names code of a package that is not trusted.

    Example:
        >>> device = load_device("pcm_like")
        >>> device.noise.g_max_uS, device.times.measured_to_s
        (25.0, 2000000.0)
    """
    text = str(name_or_path)
    if isinstance(name_or_path, Path) or text.endswith(".toml") or "/" in text:
        path = Path(name_or_path)
        if not path.is_file():
            raise FileNotFoundError(f"No device file {path}; give an existing .toml file.")
        return _parse(path.read_bytes(), str(path), path.parent, trust)
    names, text = device_names(), NEWEST_VERSION.get(text, text)
    if text not in names:
        raise FileNotFoundError(f"Unknown device {text!r}{did_you_mean(text, names)}")
    resource = top_folder("device_configs") / f"{text}.toml"
    return _parse(resource.read_bytes(), f"{text}.toml")


def _parse(
    text: bytes, where: str, folder: Path | None = None, trust: Sequence[str] = ()
) -> Device:
    content = parse_toml(text, where)
    if "trust" in content:
        raise ValueError(
            f"{where}: the key 'trust' is not allowed in a file: leave it out and give --trust on "
            "the command line, or load_device(path, trust=...)."
        )
    overrides = content.get("layers", [])
    sections = [content, *overrides] if isinstance(overrides, list) else [content]
    for section in sections:
        noise = section.get("noise") if isinstance(section, dict) else None
        if not isinstance(noise, dict) or is_import_name(str(noise.get("model"))):
            continue
        if isinstance(noise.get("measurements"), str):
            _add_measurements(noise, folder or Path(), where)
            times = content.setdefault("times", {})
            if section is content and isinstance(times, dict):
                _add_times(times, noise)
    return validated(content, where, trust=trust)


def _add_measurements(noise: dict[str, Any], folder: Path, where: str) -> None:
    """Add the values of its file of measurements to a noise section, in place."""
    from analog_samson.devices.measurements import digest_of, load_trajectories

    path = folder.absolute() / noise["measurements"]
    try:
        digest = noise.get("sha256", digest_of(path))
        measured = load_trajectories(path, digest)
    except ValueError as error:
        raise ValueError(f"{where}: noise.measurements: {error}") from None
    except OSError as error:
        raise FileNotFoundError(f"{where}: noise.measurements: {error}") from None
    facts = {
        "sha256": digest,
        "targets_uS": [float(target) for target in measured.targets_uS],
        "first_s": measured.first_s,
        "last_s": measured.last_s,
    }
    for key, value in facts.items():
        if noise.get(key, value) != value:
            raise ValueError(
                f"{where}: noise.{key} = {shortened(noise[key])} differs from that of {path}, "
                f"{value!r}; leave it out: it is read from there."
            )
    noise |= facts | {"measurements": str(path)}


def _add_times(times: dict[str, Any], noise: dict[str, Any]) -> None:
    """Add times that a device file does not give from its measurements, in place."""
    if "valid_times_s" in times:
        return
    if noise.get("extrapolate") is True:
        times.setdefault("measured_to_s", noise["last_s"])
        return
    times.setdefault("valid_from_s", noise["first_s"])
    times.setdefault("valid_to_s", noise["last_s"])
