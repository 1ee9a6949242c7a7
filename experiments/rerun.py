"""Reproduce a committed study.

    python experiments/rerun.py results/mnist-methods           # tables and figures, from the rows
    python experiments/rerun.py results/mnist-methods --verify  # and a random 1 % of the rows

`--verify` programs the chips of some rows again and compares every count, or sum of a score. It
takes rows whose networks are committed (`study.toml` has their paths; without it, those in
`networks` with the settings of the manifest). With the processor and versions of the manifest, rows
must be equal; otherwise ADC ties may round differently, and 5 of 10,000 images may differ. Tables
in the study's folder must be reproduced byte for byte; a finished study of methods has tables of
its networks, and of chips on training images, besides; a study of requirements has its searches,
repeated on its rows. Of a study of thermal drift (`thermal_drift.py`) all rows of the committed
networks are evaluated again. About 0.2 s per row of LeNet-5, 0.3 s of ResNet-8, 0.7 s with
recalibrated batch normalisation.
"""

import itertools
import json
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import numpy as np
import pandas as pd
import tyro
from analog_samson.experiments import thermal_drift
from matplotlib.figure import Figure

from analog_samson.commands import run_command
from analog_samson.files import replacing
from analog_samson.provenance import TOLERANCE_ELSEWHERE, is_made_here
from analog_samson.report import (
    Table,
    check_tables,
    networks_table,
    noisy_gap_figure,
    noisy_gap_table,
    requirements_of,
    study_figures,
    study_tables,
    table_texts,
    write_figures,
)
from analog_samson.report.methods import shows_methods
from analog_samson.report.requirements import STEM as REQUIREMENTS
from analog_samson.results import read_trials, tables_in
from analog_samson.results.checking import csv_in
from analog_samson.results.columns import KEY, SUMS
from analog_samson.results.measures import TRAINING_IMAGES, IncompleteError
from analog_samson.results.scores import ACCURACY, score_of
from analog_samson.running import run_jobs
from analog_samson.study import (
    Study,
    Trial,
    load_study,
    run_trial,
    study_of_manifest,
    tolerances,
)
from analog_samson.study.definition import Point
from analog_samson.study.requirements import TOLERANCES_FILE
from analog_samson.study.scoring import find_score
from analog_samson.training import OWN_PACKAGE, PROTOCOL_FILE, evidence_of, load_protocol

COMPARED = ("n_correct", "n_correct_digital", "n_changed", "n_images_per_chip", "n_test")


def main(
    folder: Annotated[Path, tyro.conf.Positional],
    verify: bool = False,
    share: float = 0.01,
    seed: int = 0,
    data_folder: Path | None = None,
    jobs: int = 2,
    trust: tuple[str, ...] = (),
) -> None:
    """Redraw a study from its rows; with `--verify`, evaluate some of them again first.

    Args:
        folder: Folder of the study, with `trials.csv` or `thermal_drift.csv`.
        verify: Whether rows are evaluated again.
        share: Share of the rows with committed networks that is evaluated again.
        seed: Random seed of the selection of rows.
        data_folder: Folder that holds the images.
        jobs: Worker processes.
        trust: Packages that networks, methods and scores may be imported from; a protocol that
            names code needs them without `--verify`, too.
    """
    if not 0 < share <= 1:
        raise ValueError(f"--share is above 0 and at most 1 (all rows); got {share:g}.")
    if (folder / thermal_drift.DRIFT).is_file():
        if verify:
            print(thermal_drift.verified(folder, data_folder, trust))
        print(compared(folder, *thermal_drift.shown(folder)))
        return
    rows = read_trials(folder)
    if verify:
        study = study_in(folder, (OWN_PACKAGE, *trust))
        study = replace(study, data_folder=data_folder or study.data_folder)
        print(verified(folder, rows, chosen(rows, trials_behind(study, rows), share, seed), jobs))
        if (folder / TOLERANCES_FILE).is_file():
            print(searched_again(folder, study, jobs))
    print(redrawn(folder, rows, trust))


def study_in(folder: Path, trust: Sequence[str]) -> Study:
    """The study of a folder, by its `study.toml`, or by its manifest.

    Raises:
        FileNotFoundError: If none of its networks is there.
    """
    try:
        if (folder / "study.toml").is_file():
            return load_study(folder / "study.toml", trust)
        return study_of_manifest(folder, trust)
    except FileNotFoundError as error:
        raise FileNotFoundError(
            f"{error} Train them first (by the commands in {folder / 'README.md'}, if it has one), "
            "or leave --verify out: tables and figures are those of the rows."
        ) from None


def trials_behind(study: Study, rows: pd.DataFrame) -> list[Trial]:
    """Chips of a study; of one without axes also those under the other conditions of its rows."""
    nominal = study.trials()
    if study.axes or len(study.devices) > 1:
        return nominal
    others = set(rows["condition"]) - {trial.condition for trial in nominal}
    settings = (
        {name: value for name, value in json.loads(one).items() if name not in study.maintenance}
        for one in sorted(others)
    )
    scaled = (study.under(one, nominal) for one in settings)
    return [*nominal, *itertools.chain.from_iterable(scaled)]


def searched_again(folder: Path, study: Study, jobs: int) -> str:
    """Search the tolerances of the networks that are there again on the rows, and compare them.

    Raises:
        ValueError: If they differ.
    """
    keys = ["checkpoint", "source"]
    asked = pd.read_csv(folder / TOLERANCES_FILE)
    first = asked.iloc[0]
    score = find_score(study.score)
    with tempfile.TemporaryDirectory() as name:
        copy = Path(name)
        for table in tables_in(folder):
            shutil.copy(table, copy)
        again = tolerances(
            study,
            copy,
            float(score.shown_loss(first["lose"])),
            share=None if pd.isna(first["share"]) else float(first["share"]),
            confidence=float(first["confidence"]),
            sources=asked["source"].unique().tolist(),
            others=first["others"],
            jobs=jobs,
        )
        found = pd.read_csv(copy / TOLERANCES_FILE).sort_values(keys, ignore_index=True)
        there = asked[asked["checkpoint"].isin(found["checkpoint"])]
        there = there.sort_values(keys, ignore_index=True)
        try:
            pd.testing.assert_frame_equal(found, there, check_dtype=False)
        except AssertionError:
            raise ValueError(
                f"{folder}: the searches, repeated on the rows, end at other tolerances than those "
                f"of {TOLERANCES_FILE}; restore the rows that it is of, or start the command of "
                "the study again."
            ) from None
    return f"{folder}: {len(again)} searches again, with the same tolerances."


def chosen(
    rows: pd.DataFrame, trials: Sequence[Trial], share: float, seed: int
) -> list[tuple[Trial, tuple[Point, ...]]]:
    """Draw rows whose networks are available, at least one, and group them by chip.

    Raises:
        ValueError: If no row belongs to a chip of the study as its file describes it.
    """
    chips = {trial.chip_id: trial for trial in trials}
    there = rows[rows["chip_id"].isin(list(chips))]
    if there.empty:
        raise ValueError(
            "No row belongs to an available network; the rows come from other files, or from a "
            "version with other numerics."
        )
    n = max(1, round(share * len(there)))
    picked = np.random.default_rng(seed).choice(len(there), size=n, replace=False)
    return [
        (chips[str(chip)], tuple(zip(group["t_inference_s"], group["read"], strict=True)))
        for chip, group in there.iloc[np.sort(picked)].groupby("chip_id", sort=False)
    ]


def verified(
    folder: Path, rows: pd.DataFrame, again: Sequence[tuple[Trial, tuple[Point, ...]]], jobs: int
) -> str:
    """Evaluate chips again and compare their rows.

    Raises:
        ValueError: If a row differs by more than it may.
    """
    new = pd.concat(run_jobs(_run, again, jobs=jobs, progress="rows"), ignore_index=True)
    both = new.merge(rows, on=list(KEY), suffixes=("", "_committed"), validate="one_to_one")
    differ = np.zeros(len(both), dtype=bool)
    is_counted = "n_correct" in rows
    for name in COMPARED if is_counted else (*SUMS, "n_images_per_chip", "n_test"):
        differ |= (both[name] != both[f"{name}_committed"]).to_numpy()
    value = "n_correct" if is_counted else "sum"
    off = (both[value] - both[f"{value}_committed"]).abs()
    n = both["n_images_per_chip"]
    allowed = (
        np.ceil(TOLERANCE_ELSEWHERE * n)
        if is_counted
        else TOLERANCE_ELSEWHERE * np.sqrt(n * both["sum_squares"])
    )
    same_machine = is_made_here(folder)
    too_far = differ if same_machine else off > allowed
    machine = "the same" if same_machine else "another"
    said = (
        f"{folder}: {len(both)} rows of {both['checkpoint'].nunique()} networks again: "
        f"{int((~differ).sum())} equal, largest difference {off.max():g} of "
        f"{int(n.max())} images ({machine} processor and versions)."
    )
    if too_far.any():
        row = both[too_far].iloc[0]
        raise ValueError(
            f"{said} Chip {row['chip_id']} at {row['t_inference_s']} s: {value} = {row[value]}, "
            f"{row[f'{value}_committed']} in the table."
        )
    return said


@shows_methods
def redrawn(folder: Path, rows: pd.DataFrame, trust: Sequence[str] = ()) -> str:
    """Redraw figures in the folder, and compare its tables with new ones.

    Labels of methods, data sets, devices and scores are those of the manifest, as in the report.

    Raises:
        ValueError: If a table differs.
    """
    if (folder / TOLERANCES_FILE).is_file():
        return compared(folder, *requirements_again(folder))
    own_figures, own_tables = of_methods(folder, trust)
    tables = study_tables(rows, folders=[folder]) | own_tables
    return compared(folder, study_figures(rows, folders=[folder]) | own_figures, tables)


def compared(folder: Path, figures: Mapping[str, Figure], tables: Mapping[str, Table]) -> str:
    """Write figures and new tables to a folder, and compare the tables that are there.

    Raises:
        ValueError: If a table differs.
    """
    texts = table_texts(tables)
    new = [name for name in texts if not (folder / name).exists()]
    check_tables(texts, folder)
    for name in new:
        with replacing(folder / name) as temporary:
            temporary.write_text(texts[name], encoding="utf-8", newline="\n")
    drawn = write_figures(figures, folder, ("pdf", "png"), look="paper")
    return (
        f"{folder}: {len(texts) - len(new)} tables unchanged, {len(new)} new, {len(drawn)} figures."
    )


def requirements_again(folder: Path) -> tuple[dict[str, Figure], dict[str, Table]]:
    """Figure and table of a study of requirements, with the baseline of the table that is there."""
    rows, written = pd.read_csv(folder / TOLERANCES_FILE), folder / f"{REQUIREMENTS}.csv"
    named = pd.read_csv(written)["baseline"].dropna() if written.is_file() else pd.Series()
    baseline = str(named.iloc[0]) if len(named) else "sgd"
    return requirements_of(rows, folder, baseline=baseline)


def of_methods(folder: Path, trust: Sequence[str]) -> tuple[dict[str, Figure], dict[str, Table]]:
    """Figures and tables that a finished study of methods has besides; none of other studies."""
    if not (folder / PROTOCOL_FILE).is_file():
        return {}, {}
    plan = load_protocol(folder, trust=trust)
    if not {"methods", "seeds", "studies"} <= set(plan):
        return {}, {}
    figures, tables = {}, {}
    try:
        evidence = evidence_of(folder, plan)
        if csv_in(folder, "sharpness.csv"):
            tables["methods"] = networks_table(evidence)
        if csv_in(folder, TRAINING_IMAGES) and score_of(evidence.rows) == ACCURACY:
            tables["noisy_gap"] = noisy_gap_table(evidence)
            if figure := noisy_gap_figure(evidence):
                figures["noisy_gap"] = figure
    except IncompleteError as reason:
        print(f"{folder}: no tables of all networks, {reason}.")
        return {}, {}
    return figures, tables


def _run(job: tuple[Trial, tuple[Point, ...]]) -> pd.DataFrame:
    return run_trial(*job)


if __name__ == "__main__":
    run_command(main)
