"""A study: trained networks on devices over time, from a question to a table.

One trial is one chip. The stream of a chip derives from (study seed, training seed, chip number):
every method meets the same chips, so gains are paired, and networks of different training seeds
meet other chips, so that they are independent samples. Nothing else enters: adding a time, a
method, a worker or another order changes no other number.
"""

import functools
import hashlib
import itertools
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

import pandas as pd
import torch

from analog_samson.checkpoint import Checkpoint, TrainingSpec, load_checkpoint
from analog_samson.chip import Engine, check_precision, choose_engine, program
from analog_samson.compiled import Precision
from analog_samson.data import Split, full_scale, load_test, normalise
from analog_samson.devices import Device, load_device
from analog_samson.evaluation import count_correct
from analog_samson.models import analog_share
from analog_samson.provenance import audit_rows, write_audit, write_manifest
from analog_samson.results import COLUMNS, append_rows, next_look, read_trials
from analog_samson.results.definitions import check_definitions
from analog_samson.results.planning import LOOKS
from analog_samson.running import run_jobs
from analog_samson.streams import derive_seed

NUMERICS_VERSION = 1
"""Raised when the same definition gives other numbers; part of every chip's identity."""

TRIALS_FILE = "trials.csv"

Point = tuple[float, int]
"""A time since programming [s] and the number of the read at that time."""


@dataclass(frozen=True)
class Trial:
    """One chip of a study: one programming of one trained network on one device.

    Attributes:
        study: Name of the study.
        checkpoint_path: Where the trained network lies; not part of the chip's identity.
        checkpoint: SHA-256 of the trained network's contents.
        spec: How it was trained.
        device: The device with the swept axes already applied.
        axes: What was swept, one JSON object with sorted keys.
        chip: Number of the chip.
        programming_seed: What every draw of the chip derives from.
        data_folder: Where the images lie; not part of the chip's identity.
        evaluation_set: SHA-256 of the images it is tested on.
        n_images: How many of them, counted from the first.
        engine: What runs the forward pass.
        precision: Precision of its products.
        points: Times and reads wanted.
    """

    study: str
    checkpoint_path: Path
    checkpoint: str
    spec: TrainingSpec
    device: Device
    axes: str
    chip: int
    programming_seed: int
    data_folder: Path | None
    evaluation_set: str
    n_images: int
    engine: Engine
    precision: Precision
    points: tuple[Point, ...]

    @functools.cached_property
    def chip_id(self) -> str:
        """Hash of all that changes an answer: contents, never paths, never the times."""
        identity = [
            self.checkpoint,
            self.device.digest,
            self.programming_seed,
            self.engine,
            self.precision,
            self.evaluation_set,
            self.n_images,
            NUMERICS_VERSION,
        ]
        return hashlib.sha256(json.dumps(identity).encode()).hexdigest()[:16]

    @property
    def labels(self) -> dict[str, Any]:
        """The columns of ``results.COLUMNS`` that are known before anything runs."""
        return {
            "study": self.study,
            "chip_id": self.chip_id,
            "dataset": self.spec.dataset,
            "model": self.spec.model,
            "method": self.spec.method,
            "strength": self.spec.strength,
            "training_seed": self.spec.seed,
            "checkpoint": self.checkpoint[:16],
            "device": self.device.name,
            "compensation": self.device.drift_compensation.label,
            "engine": self.engine,
            "precision": self.precision,
            "axes": self.axes,
            "chip": self.chip,
            "programming_seed": self.programming_seed,
            "n_images": self.n_images,
        }

    def __str__(self) -> str:
        return f"chip {self.chip} of {self.checkpoint_path.name} on {self.device.name} {self.axes}"


@dataclass(frozen=True)
class Study:
    """Which networks, on which devices, at which times, how many chips each.

    Attributes:
        name: Name of the study; stands in every row.
        checkpoints: Paths of trained networks.
        devices: Names or paths of device files, or devices.
        times_s: Times since programming finished [s]; one list, or one a device by its name.
        n_chips: Chips of every network on every device.
        axes: Axis name (``devices.AXES``) to the values it takes; the grid of all of them.
        n_reads: Reads of every chip at every time.
        seed: Seed of the study: another seed draws other chips.
        engine: What runs the forward pass; None takes the best that supports the device.
        precision: Precision of the products of the compiled engine.
        data_folder: Where the images lie, if not where ``load_dataset`` looks by itself.
        n_images: Test images counted from the first; None takes the whole set.
    """

    name: str
    checkpoints: Sequence[str | Path]
    devices: Sequence[str | Path | Device]
    times_s: Sequence[float] | Mapping[str, Sequence[float]]
    n_chips: int = 10
    axes: Mapping[str, Sequence[Any]] = field(default_factory=dict)
    n_reads: int = 1
    seed: int = 0
    engine: Engine | None = None
    precision: Precision = "fp32"
    data_folder: Path | None = None
    n_images: int | None = None

    def trials(self) -> list[Trial]:
        """All chips of the study with all their times, checked before anything runs.

        Raises:
            ValueError: If the study has no checkpoints, devices, times or chips, a time is outside
                a device's domain, an axis does not exist or apply, or something is given twice.
            FileNotFoundError: If a checkpoint, device or data set is missing.
        """
        self._check_counts()
        devices = self._devices()
        trials = [
            Trial(
                study=self.name,
                checkpoint_path=path,
                checkpoint=checkpoint.digest,
                spec=checkpoint.spec,
                device=device,
                axes=axes,
                chip=chip,
                programming_seed=derive_seed(self.seed, checkpoint.spec.seed, chip),
                data_folder=self.data_folder,
                evaluation_set=test.digest,
                n_images=self._n_images(test, checkpoint.spec.dataset),
                engine=choose_engine(device, self.engine),
                precision=self.precision,
                points=points,
            )
            for path, checkpoint, test in self._networks()
            for device, axes, points in devices
            for chip in range(self.n_chips)
        ]
        seen: dict[str, Trial] = {}
        for trial in trials:
            if trial.chip_id in seen:
                raise ValueError(
                    f"The study asks twice for the same thing: {trial} and {seen[trial.chip_id]} "
                    "have equal contents; give every checkpoint, device and axis value once."
                )
            seen[trial.chip_id] = trial
        return trials

    def loaded_devices(self) -> list[Device]:
        """The devices as they are in their files, before any axis."""
        return [d if isinstance(d, Device) else load_device(d) for d in self.devices]

    def _check_counts(self) -> None:
        for what, given in (("checkpoints", self.checkpoints), ("devices", self.devices)):
            if not given:
                raise ValueError(f"Study {self.name!r} has no {what}; give at least one.")
        for what, number in (("n_chips", self.n_chips), ("n_reads", self.n_reads)):
            if number < 1:
                raise ValueError(f"{what} must be at least 1; got {number}.")

    def _networks(self) -> Iterator[tuple[Path, Checkpoint, Split]]:
        for given in self.checkpoints:
            path = Path(given)
            checkpoint = load_checkpoint(path)
            test = _test_set(checkpoint.spec.dataset, self.data_folder)
            shape = tuple(test.images.shape[1:])
            if shape != checkpoint.image_shape:
                raise ValueError(
                    f"{path} was trained on images of shape {checkpoint.image_shape}; "
                    f"{checkpoint.spec.dataset} has {shape}."
                )
            yield path, checkpoint, test

    def _n_images(self, test: Split, dataset: str) -> int:
        available = len(test)
        if self.n_images is None:
            return available
        if not 1 <= self.n_images <= available:
            raise ValueError(
                f"n_images must lie between 1 and {available}, the test images of {dataset}; "
                f"got {self.n_images}."
            )
        return self.n_images

    def _devices(self) -> list[tuple[Device, str, tuple[Point, ...]]]:
        found = []
        for device in self.loaded_devices():
            points = self._points(device)
            for values in itertools.product(*self.axes.values()):
                axes = dict(zip(self.axes, values, strict=True))
                swept = device.with_axes(axes)
                axes.pop("compensation", None)  # it has a column of its own
                found.append((swept, json.dumps(axes, sort_keys=True), points))
        return found

    def _points(self, device: Device) -> tuple[Point, ...]:
        if isinstance(self.times_s, Mapping):
            if device.name not in self.times_s:
                raise ValueError(
                    f"times_s has no entry for device {device.name!r}; it has "
                    f"{', '.join(self.times_s)}."
                )
            times = self.times_s[device.name]
        else:
            times = self.times_s
        if not times:
            raise ValueError(f"Study {self.name!r} has no times for device {device.name!r}.")
        for time in times:
            device.check_time(float(time))
        check_precision(choose_engine(device, self.engine), self.precision)
        return tuple((float(time), read) for time in times for read in range(self.n_reads))


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
    for rows in run_jobs(
        _run_pending,
        pending,
        jobs=jobs,
        describe=lambda job: str(job[0]),
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


def run_trial(trial: Trial, points: Sequence[Point] | None = None) -> pd.DataFrame:
    """Program one chip and read it at its times.

    Args:
        trial: The chip.
        points: Times and reads; None takes all of the trial's.

    Returns:
        One row a point, columns ``results.COLUMNS``.
    """
    n_threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        return _run_trial(trial, trial.points if points is None else points)
    finally:
        torch.set_num_threads(n_threads)


def _run_pending(job: tuple[Trial, tuple[Point, ...]]) -> pd.DataFrame:
    return run_trial(*job)


def _run_trial(trial: Trial, points: Sequence[Point]) -> pd.DataFrame:
    checkpoint = _checkpoint(trial.checkpoint_path, trial.checkpoint)
    spec = checkpoint.spec
    test = _test_set(spec.dataset, trial.data_folder)
    count = functools.partial(
        count_correct,
        images=test.images[: trial.n_images],
        labels=test.labels[: trial.n_images],
        normalise=functools.partial(
            normalise,
            mean=checkpoint.mean,
            std=checkpoint.std,
            full_scale=full_scale(spec.dataset),
        ),
    )
    n_correct_digital, share = _digital(trial, checkpoint, count)
    chip = program(
        checkpoint,
        trial.device,
        seed=trial.programming_seed,
        engine=trial.engine,
        precision=trial.precision,
    )
    rows = []
    for time, read in points:
        chip.drift_to(time, read)
        alphas = torch.cat(list(chip.compensation().values()))
        rows.append(
            {
                **trial.labels,
                "t_inference_s": time,
                "read": read,
                "n_correct": count(chip),
                "n_correct_digital": n_correct_digital,
                "analog_share": share,
                "alpha": float(alphas.double().mean()),
                "extrapolated": trial.device.is_extrapolated(time),
                "reproducible": True,
            }
        )
    return pd.DataFrame(rows, columns=list(COLUMNS))


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


def _write_provenance(study: Study, trials: Sequence[Trial], folder: Path) -> None:
    """Write manifest and audit; the audit takes the first network of every architecture."""
    paths = {trial.checkpoint_path: trial.checkpoint for trial in trials}
    networks = {path.name: _checkpoint(path, digest) for path, digest in paths.items()}
    devices = study.loaded_devices()
    times = study.times_s
    write_manifest(
        folder,
        study={f.name: getattr(study, f.name) for f in fields(study)}
        | {
            "checkpoints": sorted(networks),
            "devices": [device.name for device in devices],
            "times_s": {name: list(given) for name, given in times.items()}
            if isinstance(times, Mapping)
            else list(times),
            "axes": {axis: list(given) for axis, given in study.axes.items()},
            "data_folder": None,
        },
        devices=devices,
        networks=networks,
        evaluation_sets={trial.spec.dataset: trial.evaluation_set for trial in trials},
    )
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
            for row in audit_rows(name, networks[name], device)
        ],
    )


@functools.lru_cache(maxsize=4)
def _checkpoint(path: Path, digest: str) -> Checkpoint:
    checkpoint = load_checkpoint(path)
    if checkpoint.digest != digest:
        raise ValueError(f"{path} has changed since the study began; start the study again.")
    return checkpoint


@functools.lru_cache(maxsize=2)
def _test_set(name: str, folder: Path | None) -> Split:
    return load_test(name, folder)


_digital_counts: dict[tuple[str, str, int], tuple[int, float]] = {}


def _digital(trial: Trial, checkpoint: Checkpoint, count: Callable[..., int]) -> tuple[int, float]:
    """The digital network's correct answers and its share of analog weights, once a worker."""
    key = (trial.checkpoint, trial.evaluation_set, trial.n_images)
    if key not in _digital_counts:
        network = checkpoint.build()
        n_correct = count(lambda batch, first_index: network(batch))
        _digital_counts[key] = n_correct, analog_share(network, checkpoint.keep_digital)
    return _digital_counts[key]
