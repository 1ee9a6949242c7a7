"""Which chips of a study answer together: the jobs that its workers get."""

from collections.abc import Hashable, Iterable
from typing import NamedTuple

from analog_samson.chip import why_alone
from analog_samson.study.definition import Point, Trial


class Job(NamedTuple):
    """Chips that one worker programs and reads.

    Attributes:
        trials: The chips: of one network and device with the same images; or one.
        points: Times and reads.
        chips_together: How many chips answer in one forward pass, at least as many as there are.
    """

    trials: tuple[Trial, ...]
    points: tuple[Point, ...]
    chips_together: int

    def __str__(self) -> str:
        others = f" and {len(self.trials) - 1} more" if len(self.trials) > 1 else ""
        return f"{self.trials[0]}{others}"


def jobs_of(pending: Iterable[tuple[Trial, tuple[Point, ...]]], chips_together: int) -> list[Job]:
    """Put chips together that lack the same points of the same network and device.

    Args:
        pending: Chips and the points they lack.
        chips_together: How many chips answer in one forward pass where they can.

    Returns:
        The jobs, in the order of their first chips.
    """
    alike: dict[Hashable, list[Trial]] = {}
    points_of = {}
    for trial, points in pending:
        key: Hashable = trial.chip_id
        if chips_together > 1 and _can_join(trial):
            key = trial.checkpoint, trial.device.digest, trial.axes, points
        alike.setdefault(key, []).append(trial)
        points_of[key] = points
    return [
        Job(tuple(trials[i : i + chips_together]), points_of[key], size)
        for key, trials in alike.items()
        for size in [1 if key == trials[0].chip_id else chips_together]
        for i in range(0, len(trials), chips_together)
    ]


def _can_join(trial: Trial) -> bool:
    return trial.n_images == trial.n_test and not why_alone(trial.device, trial.engine)
