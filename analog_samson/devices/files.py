"""Finding and reading device files, without loading torch."""

import importlib.resources
import tomllib
from pathlib import Path

from analog_samson.devices.device import Device, validated
from analog_samson.devices.sentences import did_you_mean


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
        raise FileNotFoundError(f"Unknown device {text!r}{did_you_mean(text, names)}")
    resource = importlib.resources.files("analog_samson.device_configs") / f"{text}.toml"
    return _parse(resource.read_text(encoding="utf-8"), f"{text}.toml")


def _parse(text: str, where: str) -> Device:
    try:
        content = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ValueError(f"{where}: not valid TOML: {error}.") from None
    return validated(content, where)
