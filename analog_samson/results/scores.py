"""Scores: what is measured on each sample, its direction, and how tables and figures show it.

A score is a number a sample and a direction. Tables hold its sums over samples (`columns`); all
statistics are computed in the unit of these sums and converted by `Score.shown` for display. This
module does not import torch: the function of a score is imported where chips are evaluated. A score
of another package is a function with the decorator `score`, named "package.module:function".
"""

import math
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Literal, TypeVar, get_args

import numpy as np
import pandas as pd

from analog_samson.tasks import Task

Value = TypeVar("Value")
"""A number, or an array or column of numbers."""

Function = TypeVar("Function", bound=Callable[..., Any])

Direction = Literal["higher", "lower"]

SIGNIFICANT_DIGITS = 4
"""Significant digits of a score whose size is not known beforehand: our choice."""

FEWEST_CLASSES = 6
"""Fewest classes of ``top5``: with 5 every sample counts as right."""


@dataclass(frozen=True, kw_only=True)
class Score:
    """A measure of the quality of a network, and how it is shown.

    Attributes:
        name: Its name in studies and in the column ``score``; "package.module:function" for one of
            another package.
        label: Text in titles and on axes.
        is_higher_better: Whether a larger value is the better one.
        unit: Unit that it is shown in.
        difference_unit: Unit of a difference, in full; empty: the unit.
        short_difference_unit: Unit of a difference on an axis; empty: the unit.
        scale: Factor from the table's unit to the one shown.
        decimals: Digits after the point in tables; None takes `SIGNIFICANT_DIGITS` digits.
        is_exponential: Whether exp(value) is shown: perplexity is exp of the mean cross entropy.
            Differences are then shown in per cent of the value.
        averaged: What is averaged, where that is not what is shown.
        limits: Smallest and largest possible value, in the table's unit; intervals are cut there.
        step: Smallest difference of two values of a sample: 1 where samples are right or wrong, 0
            where the value is continuous.
        losses: Losses of the lifetimes in reports.
        has_relative_losses: Whether the loss of a lifetime is a fraction of the reference's shown
            value (0.1: 10 % worse) rather than a difference in the table's unit.
        guessing: Its value for guessing, from the number of classes; None where that is not
            defined.
        tasks: Tasks that it is defined for; empty: any.
        function: Import name of ``function(outputs, targets)``, which gives a number a sample;
            empty for accuracy, which the evaluation counts itself.

    Example:
        >>> SCORES["cross_entropy"].is_higher_better, SCORES["bits_per_token"].unit
        (False, 'bits per token')
    """

    name: str
    label: str
    is_higher_better: bool
    unit: str = ""
    difference_unit: str = ""
    short_difference_unit: str = ""
    scale: float = 1.0
    decimals: int | None = None
    is_exponential: bool = False
    averaged: str = ""
    limits: tuple[float, float] = (-math.inf, math.inf)
    step: float = 0.0
    losses: tuple[float, ...] = (0.05, 0.1, 0.2)
    has_relative_losses: bool = True
    guessing: Callable[[int], float] | None = None
    tasks: tuple[Task, ...] = ()
    function: str = ""

    @property
    def column(self) -> str:
        """Its column in summaries: what is averaged, or the name without the package."""
        return re.sub(r"\W", "_", self.averaged or self.name.rpartition(":")[2])

    @property
    def digital(self) -> str:
        """Column of the digital network's value in summaries."""
        return f"clean_{self.column}"

    @property
    def description(self) -> dict[str, Any]:
        """How it is shown, as JSON types."""
        return {name: getattr(self, name) for name in DESCRIBED}

    # values

    def shown(self, value: Value) -> Value:
        """A value in the unit that is shown."""
        if self.is_exponential:
            with np.errstate(over="ignore"):
                return np.exp(self.scale * value)  # type: ignore[operator, no-any-return]
        return self.scale * value  # type: ignore[operator, return-value]

    def in_table(self, shown: float) -> float:
        """The value of the table that is shown as this; of a score in % the fraction itself.

        Raises:
            ValueError: If nothing is shown as this.
        """
        if self.unit == "%":
            return shown
        if not self.is_exponential:
            return shown / self.scale
        if not shown > 0:
            raise ValueError(f"A {self.label} is greater than 0; got {shown!r}.")
        return math.log(shown) / self.scale

    def shown_gain(self, gain: Value) -> Value:
        """A difference, positive where it is better, in its unit.

        An exponential score has the relative change: 5 is a perplexity 5 % lower.
        """
        if self.is_exponential:
            return -self.shown_loss(-gain)  # type: ignore[operator, no-any-return]
        return self.scale * gain  # type: ignore[operator, return-value]

    def shown_loss(self, loss: Value) -> Value:
        """A difference, positive where it is worse, in its unit."""
        if self.is_exponential:
            with np.errstate(over="ignore"):
                return 100 * np.expm1(self.scale * loss)  # type: ignore[operator, no-any-return]
        return self.scale * loss  # type: ignore[operator, return-value]

    def lost(self, before: Value, after: Value) -> Value:
        """How much worse ``after`` is than ``before``; negative where it is better."""
        worse, better = (after, before) if self.is_higher_better else (before, after)
        return better - worse  # type: ignore[operator, no-any-return]

    def loss_of_lifetime(self, before: "pd.Series[float]", after: "pd.Series[float]") -> Any:
        """The loss that lifetimes interpolate; `threshold` converts theirs to its unit.

        Raises:
            ValueError: If it is relative to a value of 0.
        """
        lost = self.lost(before, after)
        if not self.has_relative_losses or self.is_exponential:
            return lost
        if (before == 0).any():
            raise ValueError(
                f"A loss relative to a {self.label} of 0 is not defined, and a network has a "
                "reference of 0; leave its rows out, or give reference='first'."
            )
        return lost / before.abs()

    def threshold(self, loss: float) -> float:
        """The loss of a lifetime in the unit of `loss_of_lifetime`."""
        return math.log1p(loss) / self.scale if self.is_exponential else loss

    def shown_width(self, show: Callable[[float], float], value: float, half_width: float) -> float:
        """The half-width of an interval in the unit that is shown; of two sides the wider one.

        Args:
            show: `shown`, or `shown_gain`.
            value: Centre of the interval.
            half_width: In the table's unit.
        """
        if not self.is_exponential:
            return self.scale * half_width
        middle = show(value)
        return max(show(value + half_width) - middle, middle - show(value - half_width))

    def decimals_of_gains(self, shown: Any) -> int:
        """Digits after the point of differences in their unit."""
        return 2 if self.is_exponential else self.decimals_for(shown)

    def decimals_for(self, shown: Any, *, fewer: int = 0) -> int:
        """Digits after the point of values in the unit that is shown.

        Args:
            shown: The values; the largest one decides where the digits are not fixed.
            fewer: How many digits fewer than in a table.
        """
        if self.decimals is not None:
            return max(self.decimals - fewer, 0)
        sizes = np.abs(np.asarray(shown, dtype=float).ravel())
        largest = np.max(sizes, initial=0.0, where=np.isfinite(sizes))
        before_point = math.floor(math.log10(largest)) + 1 if largest > 0 else 1
        return min(max(SIGNIFICANT_DIGITS - fewer - before_point, 0), 12)

    # words

    @property
    def capitalised(self) -> str:
        """The label at the beginning of a sentence or title."""
        return self.label[:1].upper() + self.label[1:]

    @property
    def direction(self) -> str:
        """Which values are better, in brackets; empty where larger ones are known to be."""
        if self.is_higher_better:
            return "" if self.name in SCORES else " (higher is better)"
        return " (lower is better)"

    def axis(self, when: str = "") -> str:
        """Label of an axis: "accuracy [%]", "accuracy at 1 y [%]".

        Args:
            when: The time, where the axis is for one time alone.
        """
        return f"{self.label}{f' at {when}' if when else ''}{_in(self.unit)}{self.direction}"

    @property
    def title(self) -> str:
        """Label of an axis at the beginning of a title."""
        return self.capitalised + self.axis().removeprefix(self.label)

    @property
    def averaged_label(self) -> str:
        """What is averaged: "cross entropy" where perplexity is shown."""
        return self.averaged or self.label

    def difference(self, *, short: bool = False) -> str:
        """Unit of a difference, with a space before it and in brackets."""
        return _in((self.short_difference_unit if short else self.difference_unit) or self.unit)

    @property
    def change_label(self) -> str:
        """What is worse than digital, at the beginning of a title."""
        return f"{self.capitalised} lost" if self.is_higher_better else f"Rise of {self.label}"

    def loss_unit(self, *, short: bool = False) -> str:
        """Unit of `shown_loss`, with a space before it and in brackets."""
        return " [%]" if self.is_exponential else self.difference(short=short)

    @property
    def reached_axis(self) -> str:
        """Label of an axis of targets: "accuracy reached [%]"."""
        return f"{self.label} reached{_in(self.unit)}{self.direction}"

    def lost_axis(self, when: str = "") -> str:
        """Label of an axis of losses: "accuracy lost at 1 y [points]"."""
        if self.is_exponential:
            return f"rise of {self.label}{when} [%]"
        what = f"{self.label} lost" if self.is_higher_better else f"rise of {self.label}"
        return f"{what}{when}{self.difference(short=True)}"

    def loss_head(self, loss: float) -> str:
        """Heading of a column of lifetimes: "1 point lost", "10 % above"."""
        if self.has_relative_losses:
            return f"{100 * loss:g} % {self._beyond}"
        return f"{self._lost_text(loss)} lost"

    def loss_clause(self, loss: float) -> str:
        """When a lifetime ends: "1 point of accuracy is lost", "loss is 10 % above digital"."""
        if self.has_relative_losses:
            return f"{self.label} is {100 * loss:g} % {self._beyond} digital"
        verb = "is" if f"{self.shown(loss):g}" == "1" else "are"
        return f"{self._lost_text(loss)} of {self.label} {verb} lost"

    def _lost_text(self, loss: float) -> str:
        value, unit = f"{self.shown(loss):g}", self.short_difference_unit or self.unit
        return f"{value} {unit.removesuffix('s') if value == '1' else unit}"

    @property
    def is_lost(self) -> str:
        """What a lifetime ends with, in general: "accuracy is lost"."""
        if not self.has_relative_losses:
            return f"{self.label} is lost"
        return f"{self.label} is a given share {self._beyond} digital"

    @property
    def _beyond(self) -> str:
        return "below" if self.is_higher_better else "above"

    def fill(self, text: str) -> str:
        """A text with "{score}", "{Score}" (at its beginning) and "{is lost}" filled in."""
        words = {"{score}": self.label, "{Score}": self.capitalised, "{is lost}": self.is_lost}
        for place, word in words.items():
            text = text.replace(place, word)
        return text


DESCRIBED = ("label", "is_higher_better", "unit", "decimals")
"""What the manifest of a study says about its score."""


def _in(unit: str) -> str:
    return f" [{unit}]" if unit else ""


def _fraction(name: str, label: str, **others: Any) -> Score:
    """A score that is a fraction of samples or tokens, shown in per cent."""
    return Score(
        name=name,
        label=label,
        unit="%",
        difference_unit="percentage points",
        short_difference_unit="points",
        scale=100,
        decimals=2,
        is_higher_better=True,
        limits=(0.0, 1.0),
        losses=(0.01, 0.02, 0.05),
        has_relative_losses=False,
        **others,
    )


ACCURACY = _fraction(
    "accuracy",
    "accuracy",
    step=1.0,
    guessing=lambda n_classes: 1 / n_classes,
    tasks=("classification",),
)
"""Fraction of the test images whose largest output is that of their label."""

_CROSS_ENTROPY: dict[str, Any] = {
    "is_higher_better": False,
    "averaged": "cross entropy",
    "limits": (0.0, math.inf),
    "guessing": math.log,
    "tasks": ("classification", "tokens"),
    "function": "analog_samson.evaluation:cross_entropy",
}

SCORES: Mapping[str, Score] = MappingProxyType(
    {
        one.name: one
        for one in (
            ACCURACY,
            _fraction(
                "top5",
                "top-5 accuracy",
                step=1.0,
                guessing=lambda n_classes: 5 / n_classes,
                tasks=("classification",),
                function="analog_samson.evaluation:top5",
            ),
            _fraction(
                "token_accuracy",
                "token accuracy",
                guessing=lambda n_classes: 1 / n_classes,
                tasks=("tokens",),
                function="analog_samson.evaluation:token_accuracy",
            ),
            Score(
                name="cross_entropy",
                label="perplexity",
                difference_unit="% of perplexity",
                short_difference_unit="% of perplexity",
                is_exponential=True,
                **_CROSS_ENTROPY,
            ),
            Score(
                name="bits",
                label="cross entropy",
                unit="bits",
                scale=1 / math.log(2),
                **_CROSS_ENTROPY,
            ),
            Score(
                name="bits_per_token",
                label="cross entropy",
                unit="bits per token",
                scale=1 / math.log(2),
                **_CROSS_ENTROPY | {"tasks": ("tokens",)},
            ),
            Score(
                name="mse",
                label="mean squared error",
                is_higher_better=False,
                limits=(0.0, math.inf),
                tasks=("regression",),
                function="analog_samson.evaluation:squared_error",
            ),
        )
    }
)
"""The scores of this package by name. ``cross_entropy``, ``bits`` and ``bits_per_token`` are one
number, shown as perplexity or in bits."""

_described: ContextVar[Mapping[str, Score]] = ContextVar("_described", default=MappingProxyType({}))


def score(
    direction: Direction,
    *,
    label: str = "",
    unit: str = "",
    decimals: int | None = None,
) -> Callable[[Function], Function]:
    """Decorate a function so that studies can use it as a score.

    The function takes outputs and targets of some samples, shapes (n, ...), and returns a finite
    number a sample, shape (n,), that does not depend on the other samples:

    >>> import torch
    >>> @score("lower", label="Brier score", decimals=3)
    ... def brier(outputs, targets):
    ...     wanted = torch.nn.functional.one_hot(targets, outputs.shape[-1])
    ...     return ((outputs.softmax(-1) - wanted) ** 2).sum(-1)
    >>> brier(torch.zeros(1, 2), torch.tensor([1]))
    tensor([0.5000])

    Args:
        direction: Which values are better, "higher" or "lower".
        label: Text in titles and on axes; empty: the function's name.
        unit: Unit of its values.
        decimals: Digits after the point in tables; None takes `SIGNIFICANT_DIGITS` digits.

    Returns:
        The decorator; the function itself is not changed.

    Raises:
        ValueError: If the direction is unknown or the number of digits negative.
    """
    if direction not in get_args(Direction):
        raise ValueError(f"The direction of a score is 'higher' or 'lower'; got {direction!r}.")
    if decimals is not None and not (isinstance(decimals, int) and 0 <= decimals <= 12):
        raise ValueError(f"decimals of a score must lie between 0 and 12; got {decimals!r}.")

    def declare(function: Function) -> Function:
        name = f"{function.__module__}:{function.__qualname__}"
        function.score = Score(  # type: ignore[attr-defined]
            name=name,
            label=label or function.__name__.replace("_", " "),
            is_higher_better=direction == "higher",
            unit=unit,
            decimals=decimals,
            function=name,
        )
        return function

    return declare


def score_of(rows: pd.DataFrame) -> Score:
    """The score of rows of trials, or of a summary of them.

    Args:
        rows: Rows without a column ``score`` are of accuracy.

    Raises:
        ValueError: If they are of several scores.

    Example:
        >>> score_of(rows).name
        'accuracy'
    """
    if "higher_is_better" not in rows or rows.empty:
        return ACCURACY
    names = rows["score"].fillna(ACCURACY.name).unique()
    if len(names) > 1:
        raise ValueError(
            f"The rows are of {len(names)} scores, {', '.join(map(repr, sorted(names)))}, which "
            "have no common statistics; read the studies of each score separately."
        )
    name = str(names[0])
    found = SCORES.get(name) or _described.get().get(name)
    label = name.rpartition(":")[2].replace("_", " ")
    is_higher_better = bool(rows["higher_is_better"].iloc[0])
    return found or Score(name=name, label=label, is_higher_better=is_higher_better)


def with_score_of(rows: pd.DataFrame, made: pd.DataFrame) -> pd.DataFrame:
    """Put the score of rows into the first columns of a table made from them.

    Tables of accuracy stay as they are.
    """
    if "higher_is_better" in rows and len(rows):
        made.insert(0, "score", rows["score"].iloc[0])
        made.insert(1, "higher_is_better", rows["higher_is_better"].iloc[0])
    return made


def is_shown_as(rows: pd.DataFrame, name: str) -> bool:
    """Whether a name is one of the rows' score: of a score that measures the same."""
    function = score_of(rows).function
    return bool(function) and name in SCORES and SCORES[name].function == function


def shown_as(rows: pd.DataFrame, name: str) -> pd.DataFrame:
    """Rows of a score under the name of another one that measures the same.

    Args:
        rows: Rows of trials.
        name: "bits_per_token" for rows of ``cross_entropy``, or the reverse.

    Raises:
        ValueError: If the other score measures something else.

    Example:
        >>> tokens = pd.DataFrame({"score": ["cross_entropy"], "higher_is_better": [False]})
        >>> score_of(shown_as(tokens, "bits_per_token")).unit
        'bits per token'
    """
    if not is_shown_as(rows, name):
        allowed = [other for other in SCORES if is_shown_as(rows, other)]
        raise ValueError(
            f"Rows of {score_of(rows).name!r} cannot be shown as {name!r}; allowed: "
            f"{', '.join(allowed) or 'nothing else'}."
        )
    return rows.assign(score=name)


@contextmanager
def described(scores: Mapping[str, Mapping[str, Any]]) -> Iterator[None]:
    """Show scores of other packages as manifests describe them.

    Args:
        scores: Name of a score to its `Score.description`.

    Raises:
        ValueError: If a description is not sound.
    """
    known = {name: _read(name, given) for name, given in scores.items() if name not in SCORES}
    token = _described.set({**_described.get(), **known})
    try:
        yield
    finally:
        _described.reset(token)


def _read(name: str, given: Mapping[str, Any]) -> Score:
    names = set(DESCRIBED)
    is_sound = (
        isinstance(given, Mapping)
        and set(given) == names
        and isinstance(given["label"], str)
        and isinstance(given["unit"], str)
        and isinstance(given["is_higher_better"], bool)
        and (given["decimals"] is None or given["decimals"] in range(13))
    )
    if not is_sound:
        raise ValueError(
            f"The description of score {name!r} must give {', '.join(DESCRIBED)}; got {given!r}."
        )
    return Score(name=name, **given)
