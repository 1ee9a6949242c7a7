"""Division of a study into jobs of chips, and into parts."""

import json
import math
import re
from collections.abc import Hashable, Iterable, Sequence
from typing import NamedTuple, Self

from analog_samson.chip import why_not_batched
from analog_samson.study.definition import Point, Trial
from analog_samson.study.sources import the_checkpoint

SMALL_CHIPS_TOGETHER = 8
"""Chips of a small network that share a job on a CPU: our choice, so that they fit into caches."""

SMALL = 3e8
"""Weights x numbers of an input x images up to which a network is small: our choice. It is a bound
of the multiplications at one time: calls, not arithmetic, take the time of such a chip."""


class Job(NamedTuple):
    """Chips that a worker simulates in one call.

    Attributes:
        trials: The chips: one, or several of one network and device with the same images.
        points: Times and reads.
        chips_together: Number of chips whose inference is batched; at least that of ``trials``.
    """

    trials: tuple[Trial, ...]
    points: tuple[Point, ...]
    chips_together: int

    def __str__(self) -> str:
        others = f" and {len(self.trials) - 1} more" if len(self.trials) > 1 else ""
        return f"{self.trials[0]}{others}"


def jobs_of(pending: Iterable[tuple[Trial, tuple[Point, ...]]], chips_together: int) -> list[Job]:
    """Group chips of the same network and device that lack the same points.

    Args:
        pending: Chips and the points they lack.
        chips_together: Number of chips whose inference is batched where possible.

    Returns:
        The jobs, in the order of their first chips.
    """
    alike: dict[Hashable, list[Trial]] = {}
    points_of = {}
    for trial, points in pending:
        key: Hashable = trial.chip_id
        if chips_together > 1 and _can_join(trial):
            key = trial.checkpoint, trial.device.digest, trial.condition, points
        alike.setdefault(key, []).append(trial)
        points_of[key] = points
    return [
        Job(tuple(trials[i : i + chips_together]), points_of[key], size)
        for key, trials in alike.items()
        for size in [1 if key == trials[0].chip_id else chips_together]
        for i in range(0, len(trials), chips_together)
    ]


def jobs_to_run(
    pending: Iterable[tuple[Trial, tuple[Point, ...]]], chips_together: int
) -> list[Job]:
    """As :func:`jobs_of`; where chips are not batched, those of small networks on a CPU share jobs.

    That takes less time and gives the same bits.
    """
    if chips_together > 1:
        return jobs_of(pending, chips_together)
    small: list[tuple[Trial, tuple[Point, ...]]] = []
    others: list[tuple[Trial, tuple[Point, ...]]] = []
    for trial, points in pending:
        (small if _is_small(trial) else others).append((trial, points))
    joined = jobs_of(small, SMALL_CHIPS_TOGETHER)
    return [job._replace(chips_together=len(job.trials)) for job in joined] + jobs_of(others, 1)


class Part(NamedTuple):
    """One part of a study that is divided between processes.

    Attributes:
        number: Number of the part, from 1.
        of: Number of parts.
    """

    number: int
    of: int

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read "3/16".

        Raises:
            ValueError: If the text is not of that form.
        """
        found = re.fullmatch(r"([0-9]{1,9})/([0-9]{1,9})", text)
        part = cls(*map(int, found.groups())) if found else cls(0, 0)
        if not 1 <= part.number <= part.of:
            raise ValueError(
                f"A part is written i/n with 1 <= i <= n, such as '3/16'; got {text!r}."
            )
        return part

    def __str__(self) -> str:
        return f"part{self.number}of{self.of}"


def trials_of(part: Part, trials: Sequence[Trial], chips_together: int) -> list[Trial]:
    """The chips of a part, in the order of the study.

    Groups of chips are assigned to the parts in turn, sorted by kind (network, device and
    condition), so that the numbers of groups of each kind differ by at most one between parts.

    Args:
        part: The part.
        trials: All chips of the study.
        chips_together: Number of chips whose inference is batched where possible.
    """
    groups = jobs_of(((trial, trial.points) for trial in trials), chips_together)
    groups.sort(key=lambda group: _kind(group.trials[0]))
    assigned = groups[part.number - 1 :: part.of]
    mine = {trial.chip_id for group in assigned for trial in group.trials}
    return [trial for trial in trials if trial.chip_id in mine]


def _kind(trial: Trial) -> tuple[str, ...]:
    options = json.dumps(dict(trial.spec.model_kwargs), sort_keys=True)
    device = trial.device
    return trial.spec.model, options, device.name, device.drift_compensation.label, trial.condition


def _is_small(trial: Trial) -> bool:
    if trial.accelerator != "cpu":
        return False
    checkpoint = the_checkpoint(trial.checkpoint_path, trial.checkpoint, trial.trust)
    n_weights = sum(tensor.numel() for tensor in checkpoint.state.values())
    return n_weights * math.prod(checkpoint.image_shape) * trial.n_images_per_chip <= SMALL


def _can_join(trial: Trial) -> bool:
    return trial.n_images_per_chip == trial.n_test and not why_not_batched(
        trial.device, trial.engine
    )
