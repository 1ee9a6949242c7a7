"""Running a study: missing points are computed and appended to its table by one process."""

import json
import shlex
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import asdict, fields, replace
from pathlib import Path
from typing import Any

import pandas as pd

from analog_samson.analog.moments import measure
from analog_samson.checkpoint import Checkpoint
from analog_samson.chip import Engine
from analog_samson.devices import Device
from analog_samson.files import made_folder, replacing
from analog_samson.locks import sole_writer
from analog_samson.memory import freed_memory_kept, return_freed_memory
from analog_samson.progress import Watch
from analog_samson.provenance import (
    MANIFEST_FILE,
    audit_rows,
    environment,
    manifest_of,
    read_audit,
    read_manifest,
    table_of,
    write_audit,
    write_manifest,
)
from analog_samson.results import (
    COLUMNS,
    SCORE_COLUMNS,
    as_lines,
    next_look,
    read_trials,
    score_of,
    tables_in,
)
from analog_samson.results.columns import DIGEST_LENGTH
from analog_samson.results.definitions import check_definitions
from analog_samson.results.sample_size import LOOKS
from analog_samson.running import check_jobs, run_jobs
from analog_samson.study.axes import plain_axis
from analog_samson.study.definition import Point, Study, Trial
from analog_samson.study.jobs import Job, Part, jobs_to_run, trials_of
from analog_samson.study.scoring import find_score, is_counted
from analog_samson.study.sources import the_checkpoint, the_test_set
from analog_samson.study.trial import one_thread, run_together
from analog_samson.study.writing import TableWriter

TRIALS_FILE = "trials.csv"

PROVENANCE_TAKES_S = 600.0
"""Longest wait for another process that writes the manifest [s]: our choice."""

DATASHEET_DEVICES = 1000
"""Simulated cells per conductance in ``device_<name>.csv``: standard deviations to 2 %."""


def collect(
    study: Study,
    folder: str | Path,
    *,
    part: str | None = None,
    jobs: int = 1,
    progress: bool = False,
) -> pd.DataFrame:
    """Compute the missing points of a study and return its whole table.

    This process appends rows to ``folder/trials.csv`` in batches at most half a second apart;
    existing points are not computed again. Killing the run loses at most the points in progress
    and one batch.

    Several processes, on one or several machines, divide a study into parts: each computes its
    part and appends to its own table, ``trials-part3of16.csv``. Points in any table of the folder
    are not computed again, so that a study can be continued with another number of parts.

    Args:
        study: The study.
        folder: Folder of its tables; made if it does not exist.
        part: The part to compute, such as "3/16", the third of sixteen; None computes all.
        jobs: Worker processes; each uses one thread. -1 takes every core.
        progress: Whether to show a progress bar with the remaining time; where there is neither a
            terminal nor a notebook, one line a minute. ``progress.json`` beside the table holds
            the same in any case, for :func:`progress.status`.

    Returns:
        The rows of this study that are in the folder, those of other parts included, columns
        ``results.COLUMNS`` (``SCORE_COLUMNS`` for a score other than accuracy), sorted.

    Raises:
        ValueError: If the study is invalid (see ``Study.trials``), the folder holds another
            study, or there is no such part.
        InUseError: If another process writes this table; the message names it.
        OSError: If the folder cannot be written.

    Example:
        >>> from analog_samson.checkpoint import TrainingSpec
        >>> from analog_samson.training import train
        >>> network = train(TrainingSpec(dataset="digits", epochs=1), "networks")
        >>> study = Study("example", [network], ["pcm_like"], [1.0, 3600.0], n_chips=2)
        >>> len(collect(study, "results/example"))  # 2 chips x 2 times
        4
        >>> len(collect(replace(study, n_chips=3), "results/example"))  # the third one is computed
        6
    """
    mine = None if part is None else Part.parse(part)
    trials = study.trials()
    wanted = trials if mine is None else trials_of(mine, trials, study.chips_together)
    rows = collect_trials(
        study, trials, folder, wanted=wanted, part=_name(mine), jobs=jobs, progress=progress
    )
    return rows.sort_values(list(_columns(study)), ignore_index=True)


def collect_trials(
    study: Study,
    trials: Sequence[Trial],
    folder: str | Path,
    *,
    wanted: Sequence[Trial] | None = None,
    part: str = "",
    jobs: int = 1,
    progress: bool = False,
) -> pd.DataFrame:
    """Compute the missing points of given chips, as :func:`collect` does those of a study.

    Args:
        study: The study, for its name, its manifest and the way its chips are run.
        trials: The chips, of networks and devices of the study; their conditions may be others.
        folder: As for :func:`collect`.
        wanted: Those of the chips that are computed; None computes all.
        part: Name of the part of the study that they are, such as "part3of16".
        jobs: As for :func:`collect`.
        progress: As for :func:`collect`.

    Returns:
        The rows of the chips that are in the folder, in the order of its tables.

    Raises:
        ValueError: As :func:`collect`.
        InUseError: As :func:`collect`.
        OSError: As :func:`collect`.
    """
    wanted = trials if wanted is None else wanted
    folder = Path(folder)
    rows = _rows_there(folder, study, trials)
    if not _pending(wanted, rows) and _says_otherwise(study, folder):
        _write_provenance(study, trials, folder, part, rows)
    if _pending(wanted, rows):
        check_jobs(jobs)
        made_folder(folder, "results folder")
        table = table_of(manifest_of(folder, part))
        with sole_writer(table) as lease:
            rows = _rows_there(
                folder, study, trials
            )  # another process may have finished in between
            pending = _pending(wanted, rows)
            if pending:
                _write_provenance(study, trials, folder, part, rows)
                return_freed_memory()
            with (
                TableWriter(table, lease, _columns(study)) as writer,
                one_thread(),
                freed_memory_kept(),
                closing(
                    run_jobs(_run, jobs_to_run(pending, study.chips_together), jobs=jobs)
                ) as finished,
                Watch(
                    study.name,
                    table,
                    sum(len(trial.points) for trial in wanted),
                    sum(len(points) for _, points in pending),
                    is_shown=progress,
                ) as watch,
            ):
                for lines in finished:
                    writer.add(lines)
                    watch.add(lines)
    rows = read_trials(folder)
    asked = {(trial.chip_id, *point) for trial in trials for point in trial.points}
    return rows[[key in asked for key in _keys(rows)]]


def unfinished(study: Study, rows: pd.DataFrame) -> str:
    """A sentence about points that other parts still compute; empty if the study is complete.

    Args:
        study: The study.
        rows: What :func:`collect` returned.

    Example:
        >>> unfinished(study, rows)
        ''
        >>> unfinished(study, rows[:9])
        "This part is finished; 9 of the study's 36 points are done. ..."
    """
    n_points = sum(len(trial.points) for trial in study.trials())
    if len(rows) == n_points:
        return ""
    return (
        f"This part is finished; {len(rows)} of the study's {n_points} points are done. The part "
        "that ends last writes the report, as does the same command without --part."
    )


def collect_until(
    study: Study,
    folder: str | Path,
    half_width: float,
    *,
    looks: Sequence[int] = LOOKS,
    jobs: int = 1,
    progress: bool = False,
) -> pd.DataFrame:
    """Run a study in two stages, the second with enough chips for a target half-width.

    The number of chips is determined once, for all methods together, from the spread of the chips
    of the first stage within networks (see ``results.next_look``), so that intervals keep their
    coverage. Where trained networks differ, intervals stay wider than the target:
    ``results.needed`` gives the number of training seeds needed.

    Args:
        study: The study; its ``n_chips`` is replaced by the looks.
        folder: As for :func:`collect`.
        half_width: Target for the chips' part of the half-width of every interval, as a fraction
            of accuracy, or in the unit of the score.
        looks: Numbers of chips: of the first stage (the smallest), and allowed for the second.
        jobs: As for :func:`collect`.
        progress: As for :func:`collect`.

    Returns:
        The rows at the final number of chips.

    Raises:
        ValueError: If there are no looks, or as for :func:`collect`.

    Example:
        >>> found = collect_until(study, "results/precise", half_width=0.5, looks=(2, 5))
        >>> found["chip"].nunique()  # two are enough for this target
        2
    """
    if not looks:
        raise ValueError("collect_until needs at least one number of chips in looks; got none.")
    n_chips: int | None = min(looks)
    while n_chips is not None:
        rows = collect(replace(study, n_chips=n_chips), folder, jobs=jobs, progress=progress)
        n_chips = next_look(rows, half_width, looks=looks)
    return rows


def _run(job: Job) -> str:
    """Simulate a job; its rows are validated here, in the worker."""
    return as_lines(run_together(*job))


def _name(part: Part | None) -> str:
    return "" if part is None else str(part)


def _keys(rows: pd.DataFrame) -> Iterator[tuple[str, float, int]]:
    return zip(rows["chip_id"], rows["t_inference_s"], rows["read"], strict=True)


def _pending(
    trials: Sequence[Trial], rows: pd.DataFrame | None
) -> list[tuple[Trial, tuple[Point, ...]]]:
    """Chips and the points that they lack."""
    done = set() if rows is None else set(_keys(rows))
    return [
        (trial, missing)
        for trial in trials
        if (missing := tuple(p for p in trial.points if (trial.chip_id, *p) not in done))
    ]


def _says_otherwise(study: Study, folder: Path) -> bool:
    """Whether the manifest has another question or primary endpoint than a study."""
    told = read_manifest(folder / MANIFEST_FILE).get("study")
    primary = None if study.primary is None else asdict(study.primary)
    asked = json.loads(json.dumps({"question": study.question, "primary": primary}))
    return told is not None and any((told.get(k) or None) != (v or None) for k, v in asked.items())


def _rows_there(folder: Path, study: Study, trials: Sequence[Trial]) -> pd.DataFrame | None:
    """Existing rows; raises if the study uses one name for two different chips."""
    tables = tables_in(folder)
    planned = pd.DataFrame(
        [trial.labels | {_measured(study): 0, "t_inference_s": 0.0} for trial in trials]
    )
    if not tables:
        check_definitions(planned)
        return None
    rows = read_trials(folder)
    others = sorted(set(rows["study"]) - {study.name})
    if others:
        raise ValueError(
            f"{tables[0]} holds the study {others[0]!r}, not {study.name!r}; give another folder."
        )
    there = score_of(rows).name
    if len(rows) and there != study.score:
        raise ValueError(
            f"{tables[0]} holds the score {there!r}, and the study has {study.score!r}; tables of "
            "different scores are not merged: give another folder."
        )
    check_definitions(pd.concat([rows[planned.columns], planned], ignore_index=True))
    return rows


def _measured(study: Study) -> str:
    """A column that holds results of the score of a study."""
    return "n_correct" if is_counted(study.score) else "sum"


def _columns(study: Study) -> tuple[str, ...]:
    return COLUMNS if is_counted(study.score) else SCORE_COLUMNS


def _command() -> str:
    """The command line of this process, if it is a script or the command of this package."""
    program, *arguments = sys.argv
    if program.endswith(".py"):
        return shlex.join(["python", program, *arguments])
    name = Path(program).name
    return shlex.join([name, *arguments]) if name == "analog-samson" else ""


def _write_provenance(
    study: Study, trials: Sequence[Trial], folder: Path, part: str, rows: pd.DataFrame | None
) -> None:
    """Write manifests, datasheets and audit; processes do so one after the other."""
    networks = _networks(study, trials)
    devices = study.loaded_devices()
    times = study.times_s
    with sole_writer(folder / MANIFEST_FILE, wait_s=PROVENANCE_TAKES_S):
        before = read_manifest(folder / MANIFEST_FILE)
        write_manifest(
            folder,
            study={
                f.name: getattr(study, f.name)
                for f in fields(study)
                if f.name not in ("trust", "primary", "refresh_every", "compensation_times")
            }
            | study.maintenance
            | ({} if study.primary is None else {"primary": asdict(study.primary)})
            | {
                "checkpoints": sorted(networks),
                "devices": [device.name for device in devices],
                "times_s": {name: list(given) for name, given in times.items()}
                if isinstance(times, Mapping)
                else list(times),
                "axes": {axis: plain_axis(given) for axis, given in study.axes.items()},
                "data_folder": None,
                "dataset": None,
                "command": _command(),
            },
            devices=devices,
            networks=networks,
            scores={} if is_counted(study.score) else {study.score: find_score(study.score)},
            evaluation_sets={trial.spec.dataset: trial.evaluation_set for trial in trials},
            encodings={
                name: the_test_set(name, folder_of_data).encoding
                for name, folder_of_data in {t.spec.dataset: t.data_folder for t in trials}.items()
            },
            part=part,
            rows=rows,
        )
        current = _up_to_date(devices, before, environment(study.accelerator))
        for device in devices:
            path = folder / f"device_{device.name}.csv"
            if device.name not in current or not path.is_file():
                with replacing(path) as temporary:
                    measure(device, n=DATASHEET_DEVICES).to_csv(temporary, index=False)
        engines = {trial.device.name: trial.engine for trial in trials}
        n_images = max(trial.n_images_per_chip for trial in trials)
        _write_audit(study, networks, engines, current, folder, n_images)


def _up_to_date(
    devices: Sequence[Device], manifest: dict[str, Any], now: dict[str, str]
) -> set[str]:
    """Devices whose files were written from the same definition, by the same versions."""
    if now not in manifest.get("environments", []):
        return set()
    digests = manifest.get("device_digests", {})
    return {device.name for device in devices if digests.get(device.name) == device.digest}


def _write_audit(
    study: Study,
    networks: Mapping[str, Checkpoint],
    engines: Mapping[str, Engine],
    current: set[str],
    folder: Path,
    n_images: int,
) -> None:
    """Audit the first network of every architecture on every device."""
    manifest, kept = read_manifest(folder / MANIFEST_FILE), read_audit(folder)
    devices = {device.name: device for device in study.loaded_devices()}
    specs = manifest["checkpoints"]
    is_kept = kept["checkpoint"].isin(list(specs)) & kept["device"].isin(
        [name for name in manifest["devices"] if name in current or name not in devices]
    )
    kept = kept[is_kept]
    audited = {
        (_architecture(specs[name]), device)
        for name, device in zip(kept["checkpoint"], kept["device"], strict=True)
    }
    rows = []
    for name, network in networks.items():
        for device in devices.values():
            what = _architecture(specs[name]), device.name
            if what not in audited:
                audited.add(what)
                rows += audit_rows(name, network, device, engines[device.name], n_images)
    write_audit(folder, rows, kept)


def _architecture(network: Mapping[str, Any]) -> str:
    """Key of an architecture: networks with equal keys have equal audits."""
    spec = network["spec"]
    taken = [spec.get(name) for name in ("rewrites", "output", "inputs")]
    return json.dumps([spec["model"], spec["model_kwargs"], network["keep_digital"], taken])


def _networks(study: Study, trials: Sequence[Trial]) -> dict[str, Checkpoint]:
    """The networks by file name; with a digest where two files have the same name."""
    paths = {trial.checkpoint_path: trial.checkpoint for trial in trials}
    names = [path.name for path in paths]
    return {
        path.name
        if names.count(path.name) == 1
        else f"{path.name} {digest[:DIGEST_LENGTH]}": the_checkpoint(path, digest, study.trust)
        for path, digest in paths.items()
    }
