"""Which chips of a study answer together, and which belong to a part of it."""

import json
import re
from collections.abc import Hashable, Iterable, Sequence
from typing import NamedTuple, Self

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
            key = trial.checkpoint, trial.device.digest, trial.condition, points
        alike.setdefault(key, []).append(trial)
        points_of[key] = points
    return [
        Job(tuple(trials[i : i + chips_together]), points_of[key], size)
        for key, trials in alike.items()
        for size in [1 if key == trials[0].chip_id else chips_together]
        for i in range(0, len(trials), chips_together)
    ]


class Part(NamedTuple):
    """One of the parts that processes share a study by.

    Attributes:
        number: Which one, from 1.
        of: How many there are.
    """

    number: int
    of: int

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read "3/16".

        Raises:
            ValueError: If that is no part.
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

    Groups of chips are dealt to the parts in turn, kind after kind (network, device and setting
    of the axes), so that every part gets its share of every kind, and of the whole, within one.

    Args:
        part: The part.
        trials: All chips of the study.
        chips_together: How many chips answer in one forward pass where they can.
    """
    groups = jobs_of(((trial, trial.points) for trial in trials), chips_together)
    groups.sort(key=lambda group: _kind(group.trials[0]))
    dealt = groups[part.number - 1 :: part.of]
    mine = {trial.chip_id for group in dealt for trial in group.trials}
    return [trial for trial in trials if trial.chip_id in mine]


def _kind(trial: Trial) -> tuple[str, ...]:
    options = json.dumps(dict(trial.spec.model_kwargs), sort_keys=True)
    device = trial.device
    return trial.spec.model, options, device.name, device.drift_compensation.label, trial.condition


def _can_join(trial: Trial) -> bool:
    return trial.n_images_per_chip == trial.n_test and not why_alone(trial.device, trial.engine)
