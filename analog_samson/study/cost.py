"""How long will a study take, and how large will its table be?"""

import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

from analog_samson.chip import Chip, ChipGroup
from analog_samson.evaluation import device_of, exact_products
from analog_samson.study.definition import Study, Trial
from analog_samson.study.jobs import Job, jobs_of
from analog_samson.study.sources import the_checkpoint
from analog_samson.study.trial import answering, one_thread, programmed, reading
from analog_samson.times import label

T = TypeVar("T")

TIMED_IMAGES = 1280
"""Images of a timed reading, ten batches: our choice; a point's time grows with its images."""

_MEASURED_BYTES = 80
"""What stands in a row beside the labels of its trial: counts, shares, alpha, two flags."""


@dataclass(frozen=True)
class CostEstimate:
    """What a study needs, from one chip timed for every architecture and device.

    Attributes:
        n_chips: Chips that are programmed.
        n_points: Rows of the table.
        seconds: Duration with the workers asked for [s], start-up left out.
        table_bytes: Size of ``trials.csv``.
    """

    n_chips: int
    n_points: int
    seconds: float
    table_bytes: int

    def __str__(self) -> str:
        return (
            f"{self.n_chips:,} chips, {self.n_points:,} points: about {label(self.seconds)}, "
            f"{self.table_bytes / 1e6:.1f} MB"
        )


def estimate_cost(study: Study, *, jobs: int = 1) -> CostEstimate:
    """Time one chip of every architecture on every device, on some images, and add up.

    Args:
        study: The study; nothing of it is written.
        jobs: Workers it will have, each on a core of its own.

    Raises:
        ValueError: If the study is not sound (see ``Study.trials``), or ``jobs`` is below 1.
    """
    if jobs < 1:
        raise ValueError(f"The cost is estimated for at least one worker; got jobs={jobs}.")
    trials = study.trials()
    kinds: dict[tuple[str, str, str], list[Trial]] = {}
    for trial in trials:
        options = json.dumps(dict(trial.spec.model_kwargs), sort_keys=True)
        kinds.setdefault((trial.spec.model, options, trial.device.name), []).append(trial)
    seconds, digital_seconds, table_bytes = 0.0, 0.0, 0
    met: set[str] = set()
    for alike in kinds.values():
        job = jobs_of([(trial, trial.points) for trial in alike], study.chips_together)[0]
        a_chip, a_point, a_network = _timed(job)
        points = sum(len(trial.points) for trial in alike)
        seconds += a_chip * len(alike) + a_point * points
        new = {trial.checkpoint for trial in alike} - met
        digital_seconds += a_network * len(new)
        met |= new
        row = ",".join(str(value) for value in alike[0].labels.values())
        table_bytes += (len(row) + _MEASURED_BYTES) * points
    n_points = sum(len(trial.points) for trial in trials)
    seconds = seconds / jobs + digital_seconds  # every worker meets every network
    return CostEstimate(len(trials), n_points, seconds, table_bytes)


def _timed(job: Job) -> tuple[float, float, float]:
    """Seconds to program a chip, seconds a chip and point, and seconds a digital network once."""
    trial, n_chips = job.trials[0], len(job.trials)
    n_timed = min(TIMED_IMAGES, trial.n_test)
    time_s, read = trial.points[-1]
    network = the_checkpoint(trial.checkpoint_path, trial.checkpoint, trial.trust).build()
    network = network.to(trial.accelerator)

    def new() -> Chip | ChipGroup:
        return reading([programmed(trial) for trial in job.trials], job.chips_together)

    with one_thread(), exact_products(device_of(trial.accelerator)):
        answers = answering(trial, slice(n_timed))
        answers(new())  # a first reading traces the network
        chips, programming = _seconds(new)
        _, drifting = _seconds(lambda: chips.drift_to(time_s, read))
        _, answering_s = _seconds(lambda: answers(chips))
        _, digital = _seconds(lambda: answers(lambda batch, first_index: network(batch)))
    a_point = drifting + answering_s * trial.n_images_per_chip / n_timed
    return programming / n_chips, a_point / n_chips, digital * trial.n_test / n_timed


def _seconds(work: Callable[[], T]) -> tuple[T, float]:
    start = time.perf_counter()
    done = work()
    return done, time.perf_counter() - start
