"""How tables and figures show a score: its label, unit, direction and digits."""

from dataclasses import dataclass
from typing import TypeVar

Value = TypeVar("Value")
"""A number, or an array or column of numbers."""


@dataclass(frozen=True)
class Score:
    """A measure of the quality of a network, and how it is shown.

    Attributes:
        name: Column of a summary.
        label: Text in titles and on axes.
        unit: Unit that it is shown in.
        difference_unit: Unit of a difference, in full.
        short_difference_unit: Unit of a difference on an axis.
        scale: Factor from the table's unit to the one shown.
        decimals: Digits after the point in tables.
        is_higher_better: Whether a larger value is the better one.
    """

    name: str
    label: str
    unit: str
    difference_unit: str
    short_difference_unit: str
    scale: float
    decimals: int
    is_higher_better: bool

    def shown(self, value: Value) -> Value:
        """A value, or a difference of values, in the unit that is shown."""
        return self.scale * value  # type: ignore[operator, return-value]

    def lost(self, before: Value, after: Value) -> Value:
        """How much worse ``after`` is than ``before``; negative where it is better."""
        worse, better = (after, before) if self.is_higher_better else (before, after)
        return better - worse  # type: ignore[operator, no-any-return]

    @property
    def capitalised(self) -> str:
        """The label at the beginning of a sentence or title."""
        return self.label[:1].upper() + self.label[1:]

    def axis(self, when: str = "") -> str:
        """Label of an axis: "accuracy [%]", "accuracy at 1 y [%]".

        Args:
            when: The time, where the axis is for one time alone.
        """
        return f"{self.label}{f' at {when}' if when else ''} [{self.unit}]"


ACCURACY = Score(
    name="accuracy",
    label="accuracy",
    unit="%",
    difference_unit="percentage points",
    short_difference_unit="points",
    scale=100,
    decimals=2,
    is_higher_better=True,
)
"""Fraction of the test images whose largest output is that of their label."""
