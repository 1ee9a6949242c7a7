"""The evaluation of one network of a study of methods."""

import json
import shutil
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
from torch import Tensor

from analog_samson.checkpoint import load_checkpoint
from analog_samson.data import Dataset
from analog_samson.evaluation import count_correct, score_by_sample
from analog_samson.files import replacing
from analog_samson.landscape import sharpness
from analog_samson.methods_study.checking import check_definitions
from analog_samson.methods_study.definition import MethodsStudy
from analog_samson.methods_study.tables import replace_rows, writing
from analog_samson.provenance import (
    MANIFEST_FILE,
    read_audit,
    read_manifest,
    union,
    write_audit,
    write_json,
)
from analog_samson.report import training_curves
from analog_samson.results import append_rows, read_trials, tables_in
from analog_samson.results.columns import DIGEST_LENGTH, KEY
from analog_samson.study import TRIALS_FILE, collect, load_study
from analog_samson.study.scoring import function_of, is_counted
from analog_samson.study.trial import mapped, one_thread
from analog_samson.training.control import CONTROL
from analog_samson.training.loop import dataset_of


def evaluate(study: MethodsStudy, path: Path) -> None:
    """Evaluate a network in all studies; every file is replaced or appended to as a whole.

    Args:
        study: The study of methods.
        path: The checkpoint, in a folder of its variant's name.

    Raises:
        ValueError: If a device or a setting has changed since other networks were evaluated.
        InUseError: If another process does not end writing a table.
    """
    folder, protocol = study.folder, study.protocol
    network = load_checkpoint(path, study.trust)
    digest = network.short_digest
    if network.spec.seed in protocol["kept_seeds"]:
        keep(path, folder)
    for name in protocol["studies"]:
        if path.parent.name in study.methods_in(name):
            _collect(study, name, path)
    add_training_curves(folder / "training_curves.csv", path, study.trust)
    dataset = dataset_of(network.spec.dataset, study.data_folder, network.spec.validation_fraction)
    sharp = sharpness(network, dataset, n_training_images=protocol["sharpness_images"])
    replace_rows(folder / "sharpness.csv", digest, pd.DataFrame([sharp]))
    if "training_images" in protocol:
        on_training = _on_training_images(study, path, dataset)
        replace_rows(folder / "training_images.csv", digest, on_training)


def keep(path: Path, folder: Path) -> None:
    """Copy a checkpoint, with its control parameters if there are any, into a study's folder."""
    (folder / "networks").mkdir(exist_ok=True)
    for file in (path, path.with_suffix(CONTROL)):
        if file.exists():
            _copy(file, folder / "networks" / file.name)


def add_training_curves(table: Path, path: Path, trust: Sequence[str] = ()) -> None:
    """Add the training log of a network to a table.

    Args:
        table: The table.
        path: The checkpoint; its log is beside it.
        trust: Packages that the network may be imported from.
    """
    network = load_checkpoint(path, trust)
    curves = training_curves([path.with_suffix(".csv")], [network.spec.method])
    digest = network.short_digest
    replace_rows(table, digest, curves.assign(checkpoint=digest))


def add_protocol(manifest: Path, study: MethodsStudy) -> None:
    """Write the claims of a study, and what networks are evaluated with, into a manifest."""
    write_json(manifest, read_manifest(manifest) | _of_protocol(study))


def _of_protocol(study: MethodsStudy) -> dict[str, Any]:
    return {"claims": study.protocol["claims"], "protocol": study.evaluation_settings}


def _collect(study: MethodsStudy, name: str, path: Path) -> None:
    """Evaluate a network in a folder beside the study; then add its rows and manifest."""
    toml = study.folder / name
    asked = replace(
        load_study(toml, study.trust, checkpoints=[path]), data_folder=study.data_folder
    )
    check_definitions(study, name, asked)
    part = path.parent / toml.parent.resolve().name / path.stem
    rows = collect(asked, part)
    with writing(toml.with_name(TRIALS_FILE)):
        _add_rows_of(part, rows, toml.parent, _of_protocol(study))


def _add_rows_of(part: Path, rows: pd.DataFrame, folder: Path, of_protocol: dict[str, Any]) -> None:
    """Add rows, and the manifest and tables that stand beside them."""
    if tables_in(folder):  # also one that is compressed
        there = read_trials(folder).set_index(list(KEY)).index
        rows = rows[~rows.set_index(list(KEY)).index.isin(there)]
    append_rows(rows, folder / TRIALS_FILE)
    whole = folder / MANIFEST_FILE
    manifest = read_manifest(part / MANIFEST_FILE)
    if whole.exists():
        manifest = union(manifest, [read_manifest(whole)])
        manifest["environments"] = _different(manifest["environments"])
    write_json(whole, manifest | of_protocol)
    for file in part.glob("device_*.csv"):
        if not (folder / file.name).exists():
            _copy(file, folder / file.name)
    audit, own = read_audit(folder), read_audit(part)  # all networks have one architecture
    more = own[~own["device"].isin(audit["device"])]
    write_audit(folder, [dict(row) for _, row in more.iterrows()], audit)


def _different(environments: list[dict[str, str]]) -> list[dict[str, str]]:
    """Environments that differ in more than the commit."""
    kinds = {
        json.dumps(one | {"git_commit": ""}, sort_keys=True): one for one in environments[::-1]
    }
    return list(kinds.values())[::-1]


def _copy(file: Path, to: Path) -> None:
    with replacing(to) as temporary:
        shutil.copyfile(file, temporary)


def _on_training_images(study: MethodsStudy, path: Path, dataset: Dataset) -> pd.DataFrame:
    """Score of some chips of a study on training samples, to compare with test samples."""
    asked = study.protocol["training_images"]
    images = dataset.train.images[: asked["n_images"]]
    labels = dataset.train.labels[: asked["n_images"]]
    part = replace(
        load_study(study.folder / asked["study"], study.trust, checkpoints=[path]),
        data_folder=study.data_folder,
        n_chips=asked["n_chips"],
    )
    rows = []
    with one_thread():
        for trial in part.trials():
            if trial.device.name != asked["device"]:
                continue
            chip = mapped(trial).program(trial.programming_seed)
            for time, read in trial.points:
                forward = chip.drift_to(time, read)
                measured = _measured(part.score, forward, images, labels, dataset.normalise)
                rows.append(
                    {"checkpoint": trial.checkpoint[:DIGEST_LENGTH], "chip_id": trial.chip_id,
                     "device": trial.device.name, "condition": trial.condition, "chip": trial.chip,
                     "t_inference_s": time, **measured, "n_training_images": len(labels)}
                )  # fmt: skip
    return pd.DataFrame(rows)


def _measured(
    score: str,
    forward: Callable[[Tensor, int], Tensor],
    images: Tensor,
    labels: Tensor,
    normalise: Callable[[Tensor], Tensor],
) -> dict[str, Any]:
    """Correct predictions, or the sum of another score, of training samples."""
    if is_counted(score):
        return {"n_correct_training": count_correct(forward, images, labels, normalise)}
    values = score_by_sample(function_of(score), forward, images, labels, normalise, name=score)
    return {"score": score, "sum_training": float(values.sum())}
