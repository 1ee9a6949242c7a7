"""Which training methods are robust on analog memory, each at its best strength, on new seeds?

    python experiments/methods_study.py results/mnist-methods

The folder holds `protocol.toml`: methods with candidate strengths, common settings, seeds, and the
studies (TOML files) in which every network is evaluated. First a grid search: every strength, a
fraction of the epochs, a seed (or a list of seeds) that is not used again; the strength with the
best validation accuracy, clean and under generic weight noise, is chosen. Then all methods are
trained seed by seed; a network is evaluated as soon as it is trained. Devices and test images are
not used before `strengths.csv` is written. Without `grid_seed` there is no grid search: every
strength is trained on every seed.

Finished steps are in the folder and are not repeated, on any machine; `--steps 1` trains one more
network and ends. In `[start_from]`, `samson_tuned = "sgd"` starts every network of `samson_tuned`
from that of `sgd` with the same seed; in `[only]`, `"../other/study.toml" = ["sgd"]` restricts a
study to some methods. Written: `candidates.csv` and `candidate_curves.csv`
(the grid), `strengths.csv` (the chosen strengths), `networks.csv` (trained networks, with digests),
`sharpness.csv`, `training_curves.csv`, `training_images.csv` (chips on training images), the
studies' `trials.csv` and `manifest.json`, and the networks of a few seeds in `networks/`.
"""

import json
import shutil
import subprocess
import tomllib
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import pandas as pd
import tyro
from torch import Tensor

from analog_samson.checkpoint import Checkpoint, TrainingSpec, load_checkpoint, named_packages
from analog_samson.commands import run_command
from analog_samson.data import Dataset, path_in
from analog_samson.evaluation import count_correct, score_by_sample
from analog_samson.landscape import sharpness
from analog_samson.report import training_curves
from analog_samson.results import append_rows, read_trials, tables_in
from analog_samson.results.columns import KEY
from analog_samson.study import TRIALS_FILE, collect, load_study
from analog_samson.study.scoring import function_of, is_counted
from analog_samson.study.trial import mapped, one_thread
from analog_samson.training import choose_strengths, grid, train, train_grid
from analog_samson.training.control import CONTROL
from analog_samson.training.loop import dataset_of

OLD_COLUMNS = {
    "networks.csv": {"n_images": "n_test"},
    "sharpness.csv": {"n_images": "n_training_images"},
    "training_images.csv": {"axes": "condition"},
}
"""Tables of unfinished studies may have columns of earlier names."""


def main(
    folder: Annotated[Path, tyro.conf.Positional],
    networks: Path = Path("checkpoints"),
    data_folder: Path | None = None,
    steps: int | None = None,
) -> None:
    """Train and evaluate the missing networks of a study of methods.

    Args:
        folder: Folder of the study, with `protocol.toml`.
        networks: Folder for networks and unfinished trainings.
        data_folder: Folder that holds the images.
        steps: Number of networks to train; all by default.
    """
    run_study(folder, networks, data_folder, steps, train=trained, evaluate=_evaluated)


def run_study(
    folder: Path,
    networks: Path,
    data_folder: Path | None,
    steps: int | None,
    *,
    train: Callable[[dict[str, Any], TrainingSpec, Path, Path | None], dict[str, Any]],
    evaluate: Callable[[dict[str, Any], Path, Path, Path | None], dict[str, Any]],
) -> None:
    """Choose strengths, then train and evaluate network by network; arguments as for `main`.

    Args:
        folder: See `main`.
        networks: See `main`.
        data_folder: See `main`.
        steps: See `main`.
        train: Called with the protocol, a specification and the folder of its variant; returns a
            row of `candidates.csv` or `networks.csv`.
        evaluate: Called with the protocol, the study's folder and a checkpoint, which lies in a
            folder of its variant's name; writes its tables and returns more columns of the row.
    """
    plan = tomllib.loads((folder / "protocol.toml").read_text(encoding="utf-8"))
    plan["networks"] = networks = networks / folder.name
    if "dataset" in plan["common"]:
        plan["common"]["dataset"] = path_in(plan["common"]["dataset"], data_folder)
    left = -1 if steps is None else steps
    for variant, spec in grid_specs(plan):
        if left and not _is_there(folder / "candidates.csv", variant, spec):
            path = networks / "grid" / variant
            row = train(plan, spec, path, data_folder)
            if not row["failure"]:
                checkpoint = path / row["checkpoint"]
                add_curves(folder / "candidate_curves.csv", checkpoint, named_packages(spec))
            _add_row(folder / "candidates.csv", variant, row)
            left -= 1
    if not left:
        return
    strengths = folder / "strengths.csv"
    if "grid_seed" in plan and not strengths.exists():
        _write(choose(folder / "candidates.csv"), strengths)
    wanted = chosen_specs(plan, strengths) if strengths.exists() else all_specs(plan)
    for variant, spec in wanted:
        if left and not _is_there(folder / "networks.csv", variant, spec):
            path = networks / variant
            row = train(plan, spec, path, data_folder)
            if not row["failure"]:
                row |= evaluate(plan, folder, path / row["checkpoint"], data_folder)
            _add_row(folder / "networks.csv", variant, row)
            left -= 1
    if left:
        print(f"{folder}: finished, {len(wanted)} networks.")


def grid_specs(plan: dict[str, Any]) -> list[tuple[str, TrainingSpec]]:
    """Every candidate of every method, trained for the grid's epochs with the grid's seeds."""
    seeds = plan.get("grid_seed", [])
    seeds = seeds if isinstance(seeds, list) else [seeds]
    return [one for seed in seeds for one in _specs(plan, seed, plan["grid_epochs"])]


def all_specs(plan: dict[str, Any]) -> list[tuple[str, TrainingSpec]]:
    """Every candidate of every method, seed by seed, without a choice."""
    epochs = plan["common"]["epochs"]
    return [one for seed in plan["seeds"] for one in _specs(plan, seed, epochs)]


def choose(table: Path) -> pd.DataFrame:
    """Choose every method's strength on the validation images, as `train_methods.py` does."""
    rows = pd.read_csv(table, keep_default_na=False, na_values={"validation_clean": "",
                       "validation_noisy": ""})  # fmt: skip
    return pd.concat(
        [
            choose_strengths(group.drop(columns="variant")).assign(variant=variant)
            for variant, group in rows.groupby("variant", sort=False)
        ],
        ignore_index=True,
    )


def chosen_specs(plan: dict[str, Any], strengths: Path) -> list[tuple[str, TrainingSpec]]:
    """Trainings with the chosen strengths, seed by seed, with all methods of a seed."""
    table = pd.read_csv(strengths, keep_default_na=False).set_index("variant")
    return [
        (variant, spec)
        for variant, spec in all_specs(plan)
        if spec.strength == table.loc[variant, "strength"]
    ]


def _specs(plan: dict[str, Any], seed: int, epochs: int) -> list[tuple[str, TrainingSpec]]:
    common = plan["common"] | {"epochs": epochs}
    return [
        (variant, spec)
        for variant, text in plan["methods"].items()
        for spec in grid([text], [seed], common | _start_of(plan, variant, seed))
    ]


def _start_of(plan: dict[str, Any], variant: str, seed: int) -> dict[str, str]:
    """The network that a training starts from, which is trained in full even for the grid."""
    first = plan.get("start_from", {}).get(variant)
    if first is None:
        return {}
    (spec,) = grid([plan["methods"][first]], [seed], plan["common"])
    return {"start_from": str(plan["networks"] / first / f"{spec.file_stem}.safetensors")}


def trained(
    plan: dict[str, Any], spec: TrainingSpec, path: Path, data_folder: Path | None
) -> dict[str, Any]:
    """Train a network, and measure it on validation images under generic weight noise."""
    if spec.start_from is not None:
        first = Path(spec.start_from).parent
        (start,) = grid([plan["methods"][first.name]], [spec.seed], plan["common"])
        train(start, first, data_folder=data_folder)
    table = train_grid(
        [spec],
        path,
        noise_sigma=plan["noise_sigma"],
        noise_draws=plan["noise_draws"],
        data_folder=data_folder,
    )
    return dict(table.iloc[0])


def _evaluated(
    plan: dict[str, Any], folder: Path, path: Path, data_folder: Path | None
) -> dict[str, Any]:
    """Evaluate a network in all studies; every file is replaced or appended to as a whole."""
    network = load_checkpoint(path)
    digest = network.digest[:16]
    if network.spec.seed in plan["kept_seeds"]:
        keep(path, folder)
    variant, only = path.parent.name, plan.get("only", {})
    for name in [name for name in plan["studies"] if variant in only.get(name, [variant])]:
        _collect(folder / name, path, data_folder, plan["claims"])
    add_curves(folder / "training_curves.csv", path)
    dataset = dataset_of(network.spec.dataset, data_folder, network.spec.validation_fraction)
    sharp = sharpness(network, dataset, n_training_images=plan["sharpness_images"])
    replace_rows(folder / "sharpness.csv", digest, pd.DataFrame([sharp]))
    if asked := plan.get("training_images"):
        on_training = _on_training_images(asked, folder, path, dataset, data_folder)
        replace_rows(folder / "training_images.csv", digest, on_training)
    return identity(network)


def keep(path: Path, folder: Path) -> None:
    """Copy a checkpoint, with its control parameters if there are any, into a study's folder."""
    (folder / "networks").mkdir(exist_ok=True)
    for file in (path, path.with_suffix(CONTROL)):
        if file.exists():
            shutil.copyfile(file, folder / "networks" / file.name)


def identity(network: Checkpoint) -> dict[str, Any]:
    """Columns of `networks.csv` that identify a network."""
    return {
        "digest": network.digest,
        "n_correct_digital": network.n_correct_digital,
        "n_test": network.n_test,
        "package": _package_tree(),
    }


def _collect(toml: Path, path: Path, data_folder: Path | None, claims: dict[str, Any]) -> None:
    """Evaluate a network in a folder beside the study; then add its rows and manifest."""
    part, study = path.parent / toml.parent.name / path.stem, toml.parent
    asked = replace(load_study(toml), checkpoints=[path], data_folder=data_folder)
    rows = collect(asked, part)
    if tables_in(study):  # also one that is compressed
        there = read_trials(study).set_index(list(KEY)).index
        rows = rows[~rows.set_index(list(KEY)).index.isin(there)]
    append_rows(rows, study / TRIALS_FILE)
    manifest = json.loads((part / "manifest.json").read_text(encoding="utf-8"))
    whole = study / "manifest.json"
    if whole.exists():
        before = json.loads(whole.read_text(encoding="utf-8"))
        manifest["checkpoints"] |= before["checkpoints"]
        manifest["environments"] = _different(before["environments"] + manifest["environments"])
    manifest["claims"] = claims
    manifest["study"]["checkpoints"] = sorted(manifest["checkpoints"])
    whole.write_text(json.dumps(manifest, indent=1, sort_keys=True) + "\n", encoding="utf-8")
    for file in [*part.glob("device_*.csv"), part / "audit.csv"]:
        if not (study / file.name).exists():
            shutil.copyfile(file, study / file.name)


def _different(environments: list[dict[str, str]]) -> list[dict[str, str]]:
    """Environments that differ in more than the commit."""
    kinds = {
        json.dumps(one | {"git_commit": ""}, sort_keys=True): one for one in environments[::-1]
    }
    return list(kinds.values())[::-1]


def _on_training_images(
    asked: dict[str, Any],
    folder: Path,
    path: Path,
    dataset: Dataset,
    data_folder: Path | None,
) -> pd.DataFrame:
    """Score of some chips of a study on training images, to compare with test images."""
    images = dataset.train.images[: asked["n_images"]]
    labels = dataset.train.labels[: asked["n_images"]]
    study = replace(
        load_study(folder / asked["study"]),
        checkpoints=[path],
        data_folder=data_folder,
        n_chips=asked["n_chips"],
    )
    rows = []
    with one_thread():
        for trial in study.trials():
            if trial.device.name != asked["device"]:
                continue
            chip = mapped(trial).program(trial.programming_seed)
            for time, read in trial.points:
                forward = chip.drift_to(time, read)
                measured = _measured(study.score, forward, images, labels, dataset.normalise)
                rows.append(
                    {"checkpoint": trial.checkpoint[:16], "chip_id": trial.chip_id,
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
) -> dict[str, float]:
    """Correct predictions, or the sum of another score, of training images."""
    if is_counted(score):
        return {"n_correct_training": count_correct(forward, images, labels, normalise)}
    values = score_by_sample(function_of(score), forward, images, labels, normalise, name=score)
    return {"score": score, "sum_training": float(values.sum())}


def add_curves(table: Path, path: Path, trust: Sequence[str] = ()) -> None:
    """Add the training log of a network."""
    network = load_checkpoint(path, trust)
    curves = training_curves([path.with_suffix(".csv")], [network.spec.method])
    digest = network.digest[:16]
    replace_rows(table, digest, curves.assign(checkpoint=digest))


def _package_tree() -> str:
    """Git's hash of the package's files at this commit."""
    if shutil.which("git") is None:
        return ""
    command = ["git", "rev-parse", "HEAD:analog_samson"]
    answer = subprocess.run(command, cwd=Path(__file__).parents[1], capture_output=True, text=True)
    return answer.stdout.strip()


def _is_there(table: Path, variant: str, spec: TrainingSpec) -> bool:
    if not table.exists():
        return False
    rows = pd.read_csv(table, usecols=["variant", "strength", "training_seed"], dtype=str)
    wanted = [variant, spec.strength, str(spec.seed)]
    return bool((rows.fillna("") == wanted).all(axis=1).any())


def _add_row(table: Path, variant: str, row: dict[str, Any]) -> None:
    there = [_read(table)] if table.exists() else []
    new = pd.DataFrame([{"variant": variant} | row])
    _write(pd.concat([*there, new], ignore_index=True), table)


def replace_rows(table: Path, digest: str, rows: pd.DataFrame) -> None:
    """Add the rows of a network, replacing those of an interrupted run."""
    if table.exists():
        there = _read(table)
        rows = pd.concat([there[there["checkpoint"] != digest], rows], ignore_index=True)
    _write(rows, table)


def _read(table: Path) -> pd.DataFrame:
    rows = pd.read_csv(table, dtype=str, keep_default_na=False)
    return rows.rename(columns=OLD_COLUMNS.get(table.name, {}))


def _write(rows: pd.DataFrame, table: Path) -> None:
    temporary = table.with_name(f".{table.name}.tmp")
    rows.to_csv(temporary, index=False)
    temporary.replace(table)


if __name__ == "__main__":
    run_command(main)
