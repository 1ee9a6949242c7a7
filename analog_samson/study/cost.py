"""Estimate of the duration of a study and of the size of its table."""

import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

from analog_samson.chip import Chip, ChipGroup
from analog_samson.evaluation import exact_products, find_accelerator
from analog_samson.study.definition import Study, Trial
from analog_samson.study.jobs import Job, jobs_to_run
from analog_samson.study.sources import the_checkpoint
from analog_samson.study.trial import mapped, one_thread, reading, values_of_images
from analog_samson.times import duration

T = TypeVar("T")

TIMED_IMAGES = 1280
"""Images of a timed evaluation, ten batches: our choice; time is proportional to images."""

_MEASURED_BYTES = 80
"""Bytes of a row besides the labels of its trial: counts, fractions, alpha, two flags."""


@dataclass(frozen=True)
class CostEstimate:
    """Cost of a study, from one timed chip of every architecture and device.

    Attributes:
        n_chips: Chips that are programmed.
        n_points: Rows of the table.
        seconds: Duration with the given number of workers [s], without start-up.
        table_bytes: Size of ``trials.csv``.

    Example:
        >>> str(CostEstimate(n_chips=1200, n_points=6000, seconds=7200.0, table_bytes=900_000))
        '1,200 chips, 6,000 points: about 2 h, 0.9 MB'
    """

    n_chips: int
    n_points: int
    seconds: float
    table_bytes: int

    def __str__(self) -> str:
        return (
            f"{self.n_chips:,} chips, {self.n_points:,} points: about {duration(self.seconds)}, "
            f"{self.table_bytes / 1e6:.1f} MB"
        )


def estimate_cost(study: Study, *, jobs: int = 1) -> CostEstimate:
    """Estimate the cost of a study by timing one chip of every architecture and device.

    Args:
        study: The study; no files are written.
        jobs: Number of workers, each on its own core.

    Raises:
        ValueError: If the study is invalid (see ``Study.trials``), or ``jobs`` is below 1.

    Example:
        >>> cost = estimate_cost(study, jobs=2)
        >>> cost.n_chips, cost.n_points
        (12, 36)
    """
    if jobs < 1:
        raise ValueError(f"The cost is estimated for at least one worker; got jobs={jobs}.")
    trials = study.trials()
    kinds: dict[tuple[str, str, str], list[Trial]] = {}
    for trial in trials:
        options = json.dumps(dict(trial.spec.model_kwargs), sort_keys=True)
        kinds.setdefault((trial.spec.model, options, trial.device.name), []).append(trial)
    seconds, digital_seconds, table_bytes = 0.0, 0.0, 0
    known: set[str] = set()
    for alike in kinds.values():
        job = jobs_to_run([(trial, trial.points) for trial in alike], study.chips_together)[0]
        a_chip, a_point, a_network = _timed(job)
        points = sum(len(trial.points) for trial in alike)
        seconds += a_chip * len(alike) + a_point * points
        new = {trial.checkpoint for trial in alike} - known
        digital_seconds += a_network * len(new)
        known |= new
        row = ",".join(str(value) for value in alike[0].labels.values())
        table_bytes += (len(row) + _MEASURED_BYTES) * points
    n_points = sum(len(trial.points) for trial in trials)
    seconds = seconds / jobs + digital_seconds  # every worker evaluates every digital network
    return CostEstimate(len(trials), n_points, seconds, table_bytes)


def _timed(job: Job) -> tuple[float, float, float]:
    """Seconds per programmed chip, per chip and point, and per digital network."""
    trial, n_chips = job.trials[0], len(job.trials)
    n_timed = min(TIMED_IMAGES, trial.n_test)
    time_s, read = trial.points[-1]
    network = the_checkpoint(trial.checkpoint_path, trial.checkpoint, trial.trust).build()
    network = network.to(trial.accelerator)

    def new() -> Chip | ChipGroup:
        seeds = [each.programming_seed for each in job.trials]
        return reading(mapped(trial).program_together(seeds), job.chips_together)

    with one_thread(), exact_products(find_accelerator(trial.accelerator)):
        evaluate = values_of_images(trial, slice(n_timed))
        evaluate(new())  # the first evaluation traces the network
        chips, programming = _seconds(new)
        _, drifting = _seconds(lambda: chips.drift_to(time_s, read))
        _, inference = _seconds(lambda: evaluate(chips))
        _, digital = _seconds(lambda: evaluate(lambda batch, first_index: network(batch)))
    a_point = drifting + inference * trial.n_images_per_chip / n_timed
    return programming / n_chips, a_point / n_chips, digital * trial.n_test / n_timed


def _seconds(work: Callable[[], T]) -> tuple[T, float]:
    start = time.perf_counter()
    done = work()
    return done, time.perf_counter() - start
