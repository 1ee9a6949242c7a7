"""Means of a few networks with their intervals, as numbers and as text."""

from collections.abc import Callable
from typing import Any, NamedTuple, Self

import numpy as np

from analog_samson.report.typeset import BLANK
from analog_samson.results.measures import CONFIDENCE
from analog_samson.results.spread import mean_interval

INTERVALS = f"{100 * CONFIDENCE:g} % intervals over trained networks (Student t)"
"""What the intervals are, for captions."""


class Estimate(NamedTuple):
    """A mean and its interval over networks (Student t).

    Attributes:
        value: The mean; NaN without values.
        low: Lower end; NaN with fewer than two values.
        high: Upper end.

    Example:
        >>> Estimate.of([0.97, 0.98, 0.99]).text("{:.1f}", 100)
        '98.0 ± 2.5'
        >>> Estimate.of([1.0, 10.0, 100.0], geometric=True).text("{:.2g}")
        '10 (0.033 to 3e+03)'
    """

    value: float
    low: float
    high: float

    @classmethod
    def of(cls, values: Any, *, geometric: bool = False) -> Self:
        """Estimate a mean.

        Args:
            values: One value a network.
            geometric: Whether the mean and its interval are those of the logarithms; NaN where a
                value is not positive.
        """
        values = np.asarray(values, dtype=np.float64)
        if geometric:
            values = np.log(np.where(values > 0, values, np.nan))
        found = mean_interval(values, CONFIDENCE)
        return cls(*(np.exp(found) if geometric else found))

    def columns(self, name: str) -> dict[str, float]:
        """Its numbers as columns of a table."""
        return {name: self.value, f"{name}_low": self.low, f"{name}_high": self.high}

    def text(self, style: str, show: float | Callable[[float], float] = 1.0) -> str:
        """The mean with its half-width, or with its ends where they are not symmetric.

        Args:
            style: Format of a number, as "{:.2f}".
            show: Converts a number to the unit that is shown, or a factor.
        """
        value, low, high = (show(end) if callable(show) else show * end for end in self)
        if np.isnan(value):
            return BLANK
        text = _number(style, value)
        if np.isnan(low):
            return text
        if np.isclose(high - value, value - low, rtol=1e-6, atol=0):
            return f"{text} ± {style.replace('+', '').format(high - value)}"
        ends = (_number(style, end) for end in sorted((low, high)))
        return f"{text} ({' to '.join(ends)})"


def _number(style: str, value: float) -> str:
    """A number with a minus sign; the "-" of an exponent stays."""
    text = style.format(value)
    return f"−{text[1:]}" if text.startswith("-") else text
