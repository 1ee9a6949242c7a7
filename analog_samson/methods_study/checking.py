"""What may not change while a study of methods is worked on, and what is checked before it."""

import json
import math
from collections.abc import Mapping
from typing import Any

from analog_samson.methods_study.definition import (
    CANDIDATES,
    NETWORKS,
    STRENGTHS,
    MethodsStudy,
    key_of,
)
from analog_samson.methods_study.tables import keys, read_table
from analog_samson.provenance import MANIFEST_FILE, read_manifest
from analog_samson.results.checking import read_text_table
from analog_samson.results.definitions import first_difference
from analog_samson.results.measures import DIGITAL, other_study, with_minus
from analog_samson.study import Study
from analog_samson.times import seconds
from analog_samson.training import PROTOCOL_FILE, load_protocol, tests_of

_SETTINGS = ("common", "grid_epochs", "noise_sigma", "noise_draws", "start_from")
"""Keys of the protocol that may not change; seeds and methods may be added."""

_MEASURED_WITH = ("noise_sigma", "noise_draws")
"""How candidates are measured: columns of their table and keys of the protocol."""

_SAME_ROWS = ("seed", "n_images_per_chip", "n_test", "score", "precision", "refresh_every",
              "compensation_times")  # fmt: skip
"""Settings of a study that all its rows share."""


def check_studies(study: MethodsStudy) -> None:
    """Read the studies and the claims' tests before anything is trained.

    Raises:
        FileNotFoundError: If a study file is missing.
        ValueError: If one cannot be read, a claim is tested on a device or at a time that no study
            has, or chips for training samples are not among a study's chips.

    Example:
        >>> from pathlib import Path
        >>> text = '''
        ... studies = ["study.toml"]
        ... methods = {sgd = "sgd"}
        ... '''
        >>> n_written = Path("protocol.toml").write_text(text)
        >>> check_studies(MethodsStudy(Path(), load_protocol("."), Path("checkpoints")))
        Traceback (most recent call last):
        FileNotFoundError: No study file study.toml; give an existing .toml file.
    """
    studies = study.studies()
    times: dict[str, set[float]] = {}
    for one in studies.values():
        for device in one.loaded_devices():
            given = one.times_s
            own = given.get(device.name, ()) if isinstance(given, Mapping) else given
            times.setdefault(device.name, set()).update(map(float, own))
    for claim, test in tests_of(study.folder, study.protocol):
        try:
            _check_setting(test, times)
            if "minus" in test and other_study(test) is None:
                _check_setting(with_minus(test), times)
        except ValueError as error:
            raise ValueError(f"{study.folder / PROTOCOL_FILE}: claim {claim!r}: {error}") from None
    if asked := study.protocol.get("training_images"):
        one = studies[asked["study"]]
        devices = [device.name for device in one.loaded_devices()]
        if asked["device"] not in devices or asked["n_chips"] > one.n_chips:
            raise ValueError(
                f"[training_images] asks for {asked['n_chips']} chips of {asked['device']!r}; "
                f"{asked['study']} has {one.n_chips} chips of {devices}."
            )


def check_unchanged(study: MethodsStudy) -> None:
    """Check that networks are trained and evaluated with the settings that others were.

    Raises:
        ValueError: If settings of the protocol, a device or a study changed.
    """
    _check_protocol(study)
    _check_candidates(study)
    studies = study.studies()
    for name, one in studies.items():
        check_definitions(study, name, one)
    table = study.folder / NETWORKS
    if not table.exists():
        return
    networks = read_table(table)
    digests = dict(zip(keys(networks), networks["digest"], strict=True))
    settings: dict[str, Any] = {}
    for folder in [(study.folder / name).parent for name in studies] or [study.folder]:
        manifest = read_manifest(folder / MANIFEST_FILE)
        _check_evaluation_settings(study, manifest)
        settings |= {one["digest"]: one["spec"] for one in manifest.get("checkpoints", {}).values()}
    for variant, spec in study.trainings():
        theirs = settings.get(digests.get(key_of(variant, spec), ""), {})
        ours = json.loads(spec.to_json())
        differ = [
            f"{key} {value!r} there, {ours[key]!r} asked" for key, value in theirs.items()
            if key in ours and key not in ("dataset", "start_from") and value != ours[key]
        ]  # fmt: skip
        if differ:
            raise ValueError(
                f"{study.folder}: {variant} of seed {spec.seed} was trained with other settings "
                f"({'; '.join(differ)}); restore {PROTOCOL_FILE}, or give it a folder of its own."
            )


def check_definitions(study: MethodsStudy, name: str, one: Study) -> None:
    """Check that rows that are there are of the same devices and settings.

    Args:
        study: The study of methods.
        name: File of one of its studies, relative to its folder.
        one: That study.

    Raises:
        ValueError: If a device or a setting of one name is another one.
    """
    toml = study.folder / name
    manifest = read_manifest(toml.with_name(MANIFEST_FILE))
    digests, known = manifest.get("device_digests", {}), manifest.get("devices", {})
    for device in one.loaded_devices():
        if digests.get(device.name, device.digest) != device.digest:
            now = json.loads(device.model_dump_json())
            raise ValueError(
                f"{toml}: the device {device.name!r} has changed since the rows of this study were "
                f"computed ({first_difference(known.get(device.name, {}), now)}); restore it, or "
                "give the changed device another name."
            )
    before = manifest.get("study", {})
    if not before:
        return
    asked = {key: getattr(one, key) for key in _SAME_ROWS} | {"axes": sorted(one.axes)}
    there = {key: before.get(key) for key in _SAME_ROWS} | {"axes": sorted(before.get("axes", {}))}
    there, asked = (json.loads(json.dumps(each, default=str)) for each in (there, asked))
    if there != asked:
        raise ValueError(
            f"{toml}: rows of this study were computed with other settings "
            f"({first_difference(there, asked)}); restore it, or add a study with a folder of its "
            "own to `studies`."
        )


def _check_setting(test: Mapping[str, Any], times: Mapping[str, set[float]]) -> None:
    """Raise ValueError if no study simulates the device of a test, or not at its time."""
    device = test.get("device", DIGITAL)
    if device == DIGITAL:
        return
    if device not in times:
        raise ValueError(f"no study has the device {device!r}; there are {sorted(times)}.")
    time_s = test.get("time_s")
    if time_s is not None and not any(
        math.isclose(seconds(time_s), time, rel_tol=1e-9) for time in times[device]
    ):
        raise ValueError(
            f"no study has {device!r} at {time_s!r}; there are {sorted(times[device])} s."
        )


def _check_evaluation_settings(study: MethodsStudy, manifest: Mapping[str, Any]) -> None:
    there, asked = manifest.get("protocol"), study.evaluation_settings
    if there is not None and there != asked:
        raise ValueError(
            f"{study.folder}: networks were evaluated with other settings of {PROTOCOL_FILE} "
            f"({first_difference(there, asked)}); restore it, or give it a folder of its own."
        )


def _check_protocol(study: MethodsStudy) -> None:
    now = load_protocol(study.folder, trust=study.trust)
    asked = (*_SETTINGS, *study.evaluated_with)
    differ = [key for key in asked if now.get(key) != study.protocol.get(key)]
    if differ:
        raise ValueError(
            f"{study.folder}: {', '.join(differ)} of {PROTOCOL_FILE} changed since this process "
            "started; restore it, or start again, with a folder of its own for other networks."
        )


def _check_candidates(study: MethodsStudy) -> None:
    """Raise ValueError if candidates were trained for other epochs, or measured otherwise."""
    table, strengths = study.folder / CANDIDATES, study.folder / STRENGTHS
    if not table.exists() or not study.has_grid:
        return
    rows = read_table(table)
    asked = {key_of(variant, spec): str(spec.epochs) for variant, spec in study.candidates()}
    if strengths.exists():
        chosen = set(read_text_table(strengths, ["variant"])["variant"])
        for variant, strength, seed in sorted(set(asked) - set(keys(rows))):
            if variant in chosen:
                raise ValueError(
                    f"{strengths}: {variant} was chosen without its candidate {strength or '–'!r} "
                    f"of seed {seed}; restore {PROTOCOL_FILE} or {table.name}, or give the study a "
                    "folder of its own."
                )
    measured_with = {name: study.protocol[name] for name in _MEASURED_WITH}
    for key, row in zip(keys(rows), rows.to_dict("records"), strict=True):
        own = {"epochs": asked.get(key, ""), **measured_with}
        differ = [
            f"{name} {row[name]} there, {value} asked" for name, value in own.items()
            if row.get(name, "") != "" and value != "" and float(row[name]) != float(value)
        ]  # fmt: skip
        if differ:
            raise ValueError(
                f"{table}: {' '.join(filter(None, key[:2]))} of seed {key[2]} has other settings "
                f"({'; '.join(differ)}); restore {PROTOCOL_FILE}, or give it a folder of its own."
            )
