"""A study of methods, network by network, by one process of any number."""

import time
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from analog_samson.checkpoint import Checkpoint, TrainingSpec, load_checkpoint
from analog_samson.files import made_folder
from analog_samson.locks import InUseError, Lease
from analog_samson.methods_study.checking import check_unchanged
from analog_samson.methods_study.definition import (
    CANDIDATES,
    NETWORKS,
    STRENGTHS,
    Key,
    MethodsStudy,
    Training,
    key_of,
)
from analog_samson.methods_study.evaluating import add_training_curves, evaluate
from analog_samson.methods_study.tables import (
    add_row,
    done,
    failures,
    holder,
    keys,
    read_table,
    write_table,
    writing,
)
from analog_samson.methods_study.training import train_and_validate
from analog_samson.provenance import package_tree
from analog_samson.results import COLUMNS, read_trials
from analog_samson.results.checking import read_text_table
from analog_samson.results.columns import DIGEST_LENGTH
from analog_samson.results.trials import tables_in
from analog_samson.study.definition import SETTING
from analog_samson.training import choose_strengths

IDENTITY = ("digest", "n_correct_digital", "n_test", "package")
"""Columns of the table of networks that are empty where the training failed."""

LOOKED_EVERY_S = 2.0
"""How often a process that waits for others looks whether they have finished."""

Train = Callable[[MethodsStudy, TrainingSpec, Path], dict[str, Any]]
Evaluate = Callable[[MethodsStudy, Path], None]


def run(
    study: MethodsStudy,
    *,
    steps: int | None = None,
    train: Train = train_and_validate,
    evaluate: Evaluate = evaluate,
) -> None:
    """Choose strengths, then train and evaluate the networks that are missing.

    Finished steps are in the study's folder and are not repeated, on any machine; rows that are
    missing (lost, or of a study that has grown) are computed. Networks that other processes train
    are waited for.

    Args:
        study: The study.
        steps: Number of networks to train; all by default.
        train: Called with the study, a training and the folder of its variant; returns a row of
            `CANDIDATES` or `NETWORKS`, with the name of its ``checkpoint`` and its ``failure``.
        evaluate: Called with the study and a checkpoint; writes its tables.

    Raises:
        ValueError: If the number of steps is not positive, or the folder holds networks of other
            settings.
        InUseError: If another process does not end writing a table.

    Example:
        An evaluation of one's own, of two networks:

        >>> text = '''
        ... seeds = [0]
        ... kept_seeds = []
        ... noise_sigma = 0.1
        ... noise_draws = 1
        ... common = {dataset = "digits", model = "mlp", epochs = 1}
        ... methods = {sgd = "sgd", sam = "sam:rho=0.05"}
        ... '''
        >>> n_written = Path("protocol.toml").write_text(text)
        >>> study = MethodsStudy.load(Path(), needed=(), evaluated_with=())
        >>> def show(study, path):
        ...     print(path.parent.name, path.name)
        >>> run(study, evaluate=show)
        sgd digits-mlp-sgd-seed0.safetensors
        sam digits-mlp-sam-rho=0.05-seed0.safetensors
        >>> list(pd.read_csv("networks.csv")["variant"])
        ['sgd', 'sam']
    """
    if steps is not None and steps < 1:
        raise ValueError(f"--steps must be at least 1; got {steps}.")
    folder = study.folder
    made_folder(folder, "folder of the study")
    check_unchanged(study)

    def train_candidate(variant: str, spec: TrainingSpec) -> dict[str, Any]:
        path = study.networks / "grid" / variant
        row = train(study, spec, path)
        if not row["failure"]:
            checkpoint = path / row["checkpoint"]
            add_training_curves(folder / "candidate_curves.csv", checkpoint, study.trust)
        return row | {"epochs": spec.epochs}

    def train_network(variant: str, spec: TrainingSpec) -> dict[str, Any]:
        path = study.networks / variant
        row = train(study, spec, path) | dict.fromkeys(IDENTITY, "")
        if not row["failure"]:
            checkpoint = path / row["checkpoint"]
            evaluate(study, checkpoint)
            row |= _identity(load_checkpoint(checkpoint, study.trust))
        return row

    left = -1 if steps is None else steps
    left = _shared(study, CANDIDATES, study.candidates(), train_candidate, left)
    if not left:
        return
    if study.has_grid:
        _choose_missing(folder)
    wanted = study.chosen()
    left = _shared(study, NETWORKS, wanted, train_network, left, lambda: _lacking(study))
    if left:
        failed = failures(folder / NETWORKS)
        study.say(f"{folder}: finished, {len(wanted)} networks{failed}.")


def _identity(network: Checkpoint) -> dict[str, Any]:
    return {
        "digest": network.digest,
        "n_correct_digital": network.n_correct_digital,
        "n_test": network.n_test,
        "package": package_tree(),
    }


def _shared(
    study: MethodsStudy,
    name: str,
    wanted: Sequence[Training],
    work: Callable[[str, TrainingSpec], dict[str, Any]],
    left: int,
    lacking: Callable[[], set[Key]] = set,
) -> int:
    """Add the rows that a table lacks, each by one of the processes that work on the study.

    Args:
        study: The study.
        name: Name of the table.
        wanted: The trainings that it must have.
        work: Trains one; returns its row.
        left: How many this process may still train; negative: all.
        lacking: Gives the trainings whose row is there, but not all that belongs to it.

    Returns:
        How many it may train after these. Those that other processes train are waited for.

    Raises:
        ValueError: If settings have changed since networks were trained, or since this process
            started.
    """
    table = study.folder / name
    again, told = lacking(), ""
    while open_ := _not_in(table, wanted, again):
        n_before, held = left, ""
        for variant, spec in open_:
            if not left:
                return left
            key = key_of(variant, spec)
            try:
                claim = Lease(study.claim_of(variant, spec))
            except InUseError as error:
                held = held or holder(error)
                continue
            with claim:
                if key in again:
                    again &= lacking()  # another process may have made it meanwhile
                if _not_in(table, [(variant, spec)], again):
                    check_unchanged(study)
                    add_row(table, variant, work(variant, spec))
                    study.say(
                        f"{table}: {' '.join(filter(None, key[:2]))} of seed {spec.seed}, "
                        f"{len(done(table))} of {len(wanted)}.",
                    )
                    again.discard(key)
                    left -= 1
        if left == n_before:
            if held and held != told:
                study.say(f"{study.folder}: waiting for networks of other processes: {held}.")
                told = held
            time.sleep(LOOKED_EVERY_S)
    return left


def _not_in(table: Path, wanted: Sequence[Training], again: set[Key]) -> list[Training]:
    """The trainings without a row, or whose row is made again."""
    finished = done(table) - again
    return [one for one in wanted if key_of(*one) not in finished]


def _lacking(study: MethodsStudy) -> set[Key]:
    """Networks of the table that lack rows in a study: some were lost, or it has grown."""
    table = study.folder / NETWORKS
    if not table.exists():
        return set()
    networks = read_table(table)
    lacking = set()
    for name, one in study.studies().items():
        there = (study.folder / name).parent
        is_asked = networks["variant"].isin(study.methods_in(name))
        own = networks[is_asked & (networks["failure"] == "")]
        asked = Counter(one.settings_of_rows())
        rows = read_trials(there) if tables_in(there) else pd.DataFrame(columns=COLUMNS)
        n_rows = rows.groupby(["checkpoint", *SETTING]).size().to_dict()
        is_lacking = [
            any(n_rows.get((digest, *setting), 0) < n for setting, n in asked.items())
            for digest in own["digest"].str[:DIGEST_LENGTH]
        ]
        lacking |= set(keys(own[is_lacking]))
    return lacking


def _choose_missing(folder: Path) -> None:
    """Choose strengths of the variants that have none yet; those that are chosen stay."""
    strengths = folder / STRENGTHS
    with writing(strengths):
        chosen = _choose(folder / CANDIDATES)
        if strengths.exists():
            there = read_text_table(strengths, ["variant", "strength"])
            new = chosen[~chosen["variant"].isin(there["variant"])]
            if new.empty:
                return
            chosen = pd.concat([there, new], ignore_index=True)
        write_table(chosen, strengths)


def _choose(table: Path) -> pd.DataFrame:
    """Choose every variant's strength on the validation samples."""
    rows = read_text_table(table)
    for name in ("validation_clean", "validation_noisy"):
        rows[name] = pd.to_numeric(rows[name], errors="coerce")
        if (wrong := rows[name].isna() & (rows["failure"] == "")).any():
            raise ValueError(f"{table}, line {int(wrong.argmax()) + 2}, has no {name}; delete it.")
    return pd.concat(
        [
            choose_strengths(group.drop(columns="variant")).assign(variant=variant)
            for variant, group in rows.groupby("variant", sort=False)
        ],
        ignore_index=True,
    )
