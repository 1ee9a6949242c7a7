"""Running a study: what is missing is computed and appended, by one writer."""

import json
import shlex
import sys
from collections.abc import Mapping, Sequence
from dataclasses import fields, replace
from pathlib import Path

import pandas as pd

from analog_samson.analog.moments import measure
from analog_samson.provenance import audit_rows, write_audit, write_manifest
from analog_samson.results import COLUMNS, append_rows, next_look, read_trials
from analog_samson.results.definitions import check_definitions
from analog_samson.results.planning import LOOKS
from analog_samson.running import return_freed_memory, run_jobs
from analog_samson.study.definition import Study, Trial
from analog_samson.study.jobs import Job, jobs_of
from analog_samson.study.sources import the_checkpoint
from analog_samson.study.trial import one_thread, run_together

TRIALS_FILE = "trials.csv"

DATASHEET_DEVICES = 1000
"""Devices a conductance that a study's ``device_<name>.csv`` is measured on: a spread to 2 %."""


def collect(
    study: Study, folder: str | Path, *, jobs: int = 1, progress: bool = False
) -> pd.DataFrame:
    """Run what a study still lacks and return its whole table.

    Rows are appended to ``folder/trials.csv`` as they are finished, by this process alone; what is
    there already is not computed again. Killing the run costs at most the points in flight.

    Args:
        study: The study.
        folder: Where its table lies; made if it does not exist.
        jobs: Worker processes; each uses one thread. -1 takes every core.
        progress: Whether to show a progress bar with the time left.

    Returns:
        The rows of this study, columns ``results.COLUMNS``, sorted.

    Raises:
        ValueError: If the study is not sound (see ``Study.trials``) or the folder holds another.
        OSError: If the folder cannot be written.
    """
    trials = study.trials()
    table = Path(folder) / TRIALS_FILE
    try:
        table.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OSError(
            f"The results folder {str(table.parent)!r} cannot be made ({error.strerror}); "
            "give a folder that can be written."
        ) from error
    done = _points_done(table, study, trials)
    pending = [
        (trial, missing)
        for trial in trials
        if (missing := tuple(p for p in trial.points if (trial.chip_id, *p) not in done))
    ]
    if pending:
        _write_provenance(study, trials, table.parent)
        return_freed_memory()
    with one_thread():
        for rows in run_jobs(
            _run,
            jobs_of(pending, study.chips_together),
            jobs=jobs,
            progress=study.name if progress else None,
        ):
            append_rows(rows, table)
    rows = read_trials(table)
    wanted = {(trial.chip_id, *point) for trial in trials for point in trial.points}
    keys = zip(rows["chip_id"], rows["t_inference_s"], rows["read"], strict=True)
    rows = rows[[key in wanted for key in keys]]
    return rows.sort_values(list(COLUMNS), ignore_index=True)


def collect_until(
    study: Study,
    folder: str | Path,
    half_width: float,
    *,
    looks: Sequence[int] = LOOKS,
    jobs: int = 1,
    progress: bool = False,
) -> pd.DataFrame:
    """Run a study with more and more chips until every interval is narrow enough.

    Whether to go on is decided at fixed numbers of chips only, for all methods together, so that
    the intervals stay honest. Where more chips cannot help, because trained networks differ, it
    stops; ``results.needed`` then says how many training seeds would do.

    Args:
        study: The study; its ``n_chips`` is replaced by the looks.
        folder: As for :func:`collect`.
        half_width: Target for the half-width of every interval, as a fraction of accuracy.
        looks: Numbers of chips at which to look.
        jobs: As for :func:`collect`.
        progress: As for :func:`collect`.

    Returns:
        The rows at the look where it stopped.

    Raises:
        ValueError: If there are no looks, or as for :func:`collect`.
    """
    if not looks:
        raise ValueError("collect_until needs at least one number of chips to look at; got none.")
    n_chips: int | None = min(looks)
    while n_chips is not None:
        rows = collect(replace(study, n_chips=n_chips), folder, jobs=jobs, progress=progress)
        n_chips = next_look(rows, half_width, looks=looks)
    return rows


def _run(job: Job) -> pd.DataFrame:
    return run_together(*job)


def _points_done(table: Path, study: Study, trials: Sequence[Trial]) -> set[tuple[str, float, int]]:
    """What is there already; raises where the study would call two things by one name."""
    if not table.exists():
        return set()
    rows = read_trials(table)
    others = sorted(set(rows["study"]) - {study.name})
    if others:
        raise ValueError(
            f"{table} holds the study {others[0]!r}, not {study.name!r}; give another folder."
        )
    planned = pd.DataFrame(
        [trial.labels | {"n_correct": 0, "t_inference_s": 0.0} for trial in trials]
    )
    check_definitions(pd.concat([rows[planned.columns], planned], ignore_index=True))
    return set(zip(rows["chip_id"], rows["t_inference_s"], rows["read"], strict=True))


def _command() -> str:
    """What was typed to run this process, where that was a script."""
    is_script = sys.argv[0].endswith(".py")
    return shlex.join(["python", *sys.argv]) if is_script else ""


def _write_provenance(study: Study, trials: Sequence[Trial], folder: Path) -> None:
    """Write manifest and audit; the audit takes the first network of every architecture."""
    paths = {trial.checkpoint_path: trial.checkpoint for trial in trials}
    networks = {
        path.name: the_checkpoint(path, digest, study.trust) for path, digest in paths.items()
    }
    devices = study.loaded_devices()
    times = study.times_s
    write_manifest(
        folder,
        study={f.name: getattr(study, f.name) for f in fields(study) if f.name != "trust"}
        | {
            "checkpoints": sorted(networks),
            "devices": [device.name for device in devices],
            "times_s": {name: list(given) for name, given in times.items()}
            if isinstance(times, Mapping)
            else list(times),
            "axes": {axis: list(given) for axis, given in study.axes.items()},
            "data_folder": None,
            "command": _command(),
        },
        devices=devices,
        networks=networks,
        evaluation_sets={trial.spec.dataset: trial.evaluation_set for trial in trials},
    )
    for device in devices:
        path = folder / f"device_{device.name}.csv"
        measure(device, n=DATASHEET_DEVICES).to_csv(path, index=False)
    architectures: dict[tuple[str, str, tuple[str, ...]], str] = {}
    for name, network in networks.items():
        options = json.dumps(dict(network.spec.model_kwargs), sort_keys=True)
        architectures.setdefault((network.spec.model, options, network.keep_digital), name)
    write_audit(
        folder,
        [
            row
            for name in architectures.values()
            for device in devices
            for row in audit_rows(name, networks[name], device, study.engine)
        ],
    )
