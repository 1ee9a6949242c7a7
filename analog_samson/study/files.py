"""Studies from a file, or from the manifest of one that has run."""

import glob
import os
from collections.abc import Sequence
from dataclasses import MISSING, fields, replace
from pathlib import Path
from typing import Any

from analog_samson.data import DATASETS
from analog_samson.deprecated import warn_renamed
from analog_samson.devices.device import validated
from analog_samson.devices.sentences import did_you_mean
from analog_samson.devices.toml import parse_toml
from analog_samson.importing import check_trust, is_import_name
from analog_samson.messages import shortened
from analog_samson.provenance import MANIFEST_FILE, read_manifest
from analog_samson.study.definition import OLD_NAMES, Primary, Study


def load_study(
    path: str | Path, trust: Sequence[str] = (), *, checkpoints: Sequence[Path] | None = None
) -> Study:
    r"""Read a study from a TOML file whose keys are the fields of :class:`Study`.

    Paths are absolute or relative to the file; ``checkpoints`` may hold patterns
    (``"nets/*.safetensors"``), and a text that is the path of a file means that file.

        name = "drift"
        question = "Does SAMSON still help after a year?"
        checkpoints = ["checkpoints/*.safetensors"]
        devices = ["pcm_like", "my_device.toml"]
        times_s = ["1 s", "1 h", "1 d", "1 week", "1 y"]  # or seconds, or a grid such as "rasch"
        n_chips = 10

        [axes]
        drift_scale = [0.0, 1.0]
        noise_scale = {programming_noise_scale = [0.5, 1.0, 2.0], read_noise_1f_scale = "same"}

        [primary]                       # tested alone; in a study without axes
        method = "samson"
        device = "pcm_like"
        time_s = "1 y"
        endpoint = "lost"

    Args:
        path: The file.
        trust: Packages that the score, checkpoints and device files may import from.
        checkpoints: Networks to take instead of those of the file, which then need not exist.

    Returns:
        The study; nothing has run.

    Raises:
        FileNotFoundError: If there is no such file, or a pattern matches no checkpoint.
        ValueError: If it is not valid TOML, a key is missing or unknown, a value has the wrong
            kind, or its score is of a package that is not trusted.

    Example:
        >>> text = f'name = "drift"\ncheckpoints = ["{network}"]\ndevices = ["pcm_like"]\n'
        >>> path = Path("study.toml")
        >>> n_written = path.write_text(text + 'times_s = ["1 s", "1 y"]')
        >>> load_study(path).times_s
        [1.0, 31536000.0]
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"No study file {path}; give an existing .toml file.")
    content = parse_toml(path.read_bytes(), str(path))
    if "trust" in content:
        raise ValueError(
            f"{path}: a study file cannot grant trust, only its user can: remove the key 'trust' "
            "and give --trust on the command line, or load_study(path, trust=...)."
        )
    for old in [key for key in content if key in OLD_NAMES]:
        new = OLD_NAMES[old]
        if new in content:
            raise ValueError(f"{path}: {old!r} is the old name of {new!r}; give {new!r} only.")
        warn_renamed(f"{path}: key {old!r}", repr(new))
        content[new] = content.pop(old)
    allowed = [f.name for f in fields(Study) if f.name != "trust"]
    for key in content:
        if key not in allowed:
            raise ValueError(f"{path}: unknown key {key!r}{did_you_mean(key, allowed)}")
    for key in ("name", "checkpoints", "devices", "times_s"):
        if key not in content:
            raise ValueError(f"{path}: key {key!r} is missing; add it.")
    try:
        if "primary" in content:
            content["primary"] = _primary(path, content["primary"])
        study = Study(**content)
    except ValueError as error:
        text = str(error)
        raise ValueError(text if text.startswith(str(path)) else f"{path}: {text}") from None
    study.check(str(path))
    check_trust([study.score], source=str(path), trust=trust)
    folder = path.parent
    return replace(
        study,
        trust=tuple(trust),
        checkpoints=[found for text in study.checkpoints for found in _matching(path, str(text))]
        if checkpoints is None
        else checkpoints,
        devices=[_device(folder, str(device)) for device in content["devices"]],
        data_folder=None if study.data_folder is None else folder / study.data_folder,
        dataset=None if study.dataset is None else _dataset(folder, str(study.dataset)),
    )


def study_of_manifest(folder: str | Path, trust: Sequence[str] = ()) -> Study:
    """The study of chips that the manifest of a folder describes, by whatever command it was run.

    Args:
        folder: Folder with ``manifest.json``, and with those of its networks that are there in
            ``networks``.
        trust: Packages that the score, checkpoints and devices may import from.

    Returns:
        The study with these networks, and with the devices as they are in the manifest.

    Raises:
        FileNotFoundError: If there is no manifest, or none of the networks.
        ValueError: If the manifest cannot be read, is not of a study of chips, or names code of a
            package that is not trusted.

    Example:
        >>> from analog_samson.training import train
        >>> network = train(TrainingSpec(dataset="digits", epochs=1), "results/own/networks")
        >>> rows = collect(Study("own", [network], ["pcm_like"], [1.0], n_chips=3), "results/own")
        >>> again = study_of_manifest("results/own").trials()
        >>> {trial.chip_id for trial in again} == set(rows["chip_id"])
        True
    """
    folder = Path(folder)
    path = folder / MANIFEST_FILE
    manifest = read_manifest(path)
    if not manifest:
        raise FileNotFoundError(f"There is no manifest {str(path)!r}.")
    content = {OLD_NAMES.get(name, name): value for name, value in manifest["study"].items()}
    if missing := {"name", "devices", "times_s"} - set(content):
        raise ValueError(f"{str(path)!r} is not that of a study of chips: it has no {missing}.")
    paths = [folder / "networks" / name for name in manifest["checkpoints"]]
    there = [one for one in paths if one.is_file()]
    if not there:
        raise FileNotFoundError(
            f"None of the networks of {str(path)!r} is in {str(folder / 'networks')!r}."
        )
    known = {field.name for field in fields(Study)} - {"trust", "data_folder", "dataset"}
    content = {name: value for name, value in content.items() if name in known}
    if "primary" in content:
        content["primary"] = _primary(path, content["primary"])
    content["checkpoints"] = there
    content["devices"] = [
        validated(manifest["devices"][name], str(path), from_json=True, trust=trust)
        for name in content["devices"]
    ]
    study = Study(**content, trust=tuple(trust))
    check_trust([study.score], source=str(path), trust=trust)
    return study


def _matching(path: Path, pattern: str) -> list[Path]:
    """The file of that name, or the files that match the pattern."""
    folder = path.parent
    if os.path.isfile(folder / pattern):  # noqa: PTH113 (Path.is_file raises for odd names)
        return [folder / pattern]
    try:
        names = glob.glob(pattern, root_dir=folder, recursive=True, include_hidden=True)  # noqa: PTH207 (also absolute patterns)
    except (OSError, ValueError):  # a null byte, a name that is too long
        names = []
    matches = [folder / name for name in sorted(names) if (folder / name).is_file()]
    if not matches:
        raise FileNotFoundError(f"{path}: no checkpoint matches {shortened(pattern)}.")
    return matches


def _device(folder: Path, device: str) -> str | Path:
    return folder / device if device.endswith(".toml") else device


def _dataset(folder: Path, dataset: str) -> str:
    is_name = dataset in DATASETS or is_import_name(dataset)
    return dataset if is_name else str(folder / dataset)


def _primary(path: Path, given: Any) -> Primary:
    """The primary endpoint; its values are checked with those of the study."""
    if not isinstance(given, dict):
        raise ValueError(f"{path}: 'primary' must be a table, [primary]; got {shortened(given)}.")
    allowed = {f.name: f.default is MISSING for f in fields(Primary)}
    for key in given:
        if key not in allowed:
            raise ValueError(f"{path}: unknown key 'primary.{key}'{did_you_mean(key, allowed)}")
    for key, is_needed in allowed.items():
        if is_needed and key not in given:
            raise ValueError(f"{path}: key 'primary.{key}' is missing; add it.")
    return Primary(**given)
