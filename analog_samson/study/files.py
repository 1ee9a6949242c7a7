"""The same study as one TOML file."""

import tomllib
from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

from analog_samson.devices.sentences import did_you_mean
from analog_samson.study.definition import Study
from analog_samson.times import TIME_GRIDS


def load_study(path: str | Path) -> Study:
    """Read a study from a TOML file whose keys are the fields of :class:`Study`.

    Paths are relative to the file; ``checkpoints`` may hold patterns (``"nets/*.safetensors"``);
    a time grid may be given by its name in ``times.TIME_GRIDS``.

        name = "drift"
        question = "Does SAMSON still help after a year?"
        checkpoints = ["checkpoints/*.safetensors"]
        devices = ["pcm_like", "my_device.toml"]
        times_s = "rasch"
        n_chips = 10

        [axes]
        drift_scale = [0.0, 1.0]

    Args:
        path: The file.

    Returns:
        The study; nothing has run.

    Raises:
        FileNotFoundError: If there is no such file, or a pattern matches no checkpoint.
        ValueError: If it is not valid TOML, a key is missing or unknown, or a value has the wrong
            kind.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"No study file {path}; give an existing .toml file.")
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8"))
    except tomllib.TOMLDecodeError as error:
        raise ValueError(f"{path}: not valid TOML: {error}.") from None
    if "trust" in content:
        raise ValueError(
            f"{path}: a file cannot trust packages, only who runs it can: leave the key 'trust' "
            "out and give --trust on the command line, or replace(load_study(path), trust=...)."
        )
    allowed = [f.name for f in fields(Study) if f.name != "trust"]
    for key in content:
        if key not in allowed:
            raise ValueError(f"{path}: unknown key {key!r}{did_you_mean(key, allowed)}")
    for key in ("name", "checkpoints", "devices", "times_s"):
        if key not in content:
            raise ValueError(f"{path}: key {key!r} is missing; add it.")
    for key, kind in (("name", str), ("checkpoints", list), ("devices", list), ("axes", dict)):
        if not isinstance(content.get(key, kind()), kind):
            raise ValueError(f"{path}: {key} must be a {kind.__name__}; got {content[key]!r}.")
    content["checkpoints"] = _matching(path, content["checkpoints"])
    content["devices"] = [_device(path.parent, device) for device in content["devices"]]
    content["times_s"] = _times(path, content["times_s"])
    if "data_folder" in content:
        content["data_folder"] = path.parent / content["data_folder"]
    return Study(**content)


def _matching(path: Path, patterns: Sequence[str]) -> list[Path]:
    found: list[Path] = []
    for pattern in patterns:
        matches = sorted(path.parent.glob(pattern))
        if not matches:
            raise FileNotFoundError(f"{path}: no checkpoint matches {pattern!r}.")
        found += matches
    return found


def _device(folder: Path, device: str) -> str | Path:
    return folder / device if device.endswith(".toml") else device


def _times(path: Path, given: Any) -> Any:
    if isinstance(given, dict):
        return {device: _times(path, times) for device, times in given.items()}
    if not isinstance(given, str):
        return given
    if given not in TIME_GRIDS:
        raise ValueError(
            f"{path}: unknown time grid {given!r}; allowed: {', '.join(TIME_GRIDS)}, or seconds."
        )
    return TIME_GRIDS[given]
