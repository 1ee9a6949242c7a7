"""Times since the end of programming, plain floats in seconds, and their labels."""

import math
import re
from typing import Any

from analog_samson.messages import shortened

MINUTE = 60.0
HOUR = 3600.0
DAY = 86_400.0
WEEK = 7 * DAY
MONTH = 30 * DAY
YEAR = 365 * DAY

SHORTEST_S = 1e-12
LONGEST_S = 1e12
"""Limits of times since programming and of durations, which may also be 0: our choice. A picosecond
is shorter than any read; 30,000 years are beyond any extrapolation."""

_UNITS = (
    (YEAR, "y"),
    (MONTH, "mo"),
    (DAY, "d"),
    (HOUR, "h"),
    (MINUTE, "min"),
    (1.0, "s"),
)


_MOST_UNITS = 10_000


def label(t_inference_s: float) -> str:
    """Label a time as in figures: 3600 -> "1 h", 31_536_000 -> "1 y"; 0 is "programmed".

    Args:
        t_inference_s: Time since programming finished [s], at least 0.

    Returns:
        The time in the largest unit not above it, with at most three significant digits; where
        these are not exact, in the largest smaller unit in which it is a whole number of at most
        four digits, if there is one: 359 days are "359 d" and not "12 mo". A month is 30 days, a
        year 365 days.

    Raises:
        ValueError: If the time is negative or not finite.

    Example:
        >>> label(3600.0), label(359 * DAY), label(0.0)
        ('1 h', '359 d', 'programmed')
    """
    if not 0 <= t_inference_s < float("inf"):
        raise ValueError(f"A time must be finite and at least 0 s; got {t_inference_s!r}.")
    if t_inference_s == 0:
        return "programmed"
    rounded = duration(t_inference_s)
    units = {unit: unit_s for unit_s, unit in _UNITS}
    number, unit = rounded.split()
    if not math.isclose(float(number) * units[unit], t_inference_s, rel_tol=1e-12):
        for smaller, smaller_s in units.items():
            n = t_inference_s / smaller_s
            if smaller_s < units[unit] and n.is_integer() and n < _MOST_UNITS:
                return f"{n:.0f} {smaller}"
    return rounded


def duration(seconds: float) -> str:
    """A duration in the largest unit not above it, rounded to three digits.

    Example:
        >>> duration(340.0), duration(7201.0)
        ('5.67 min', '2 h')
    """
    unit_s, unit = next((one for one in _UNITS if seconds >= one[0]), _UNITS[-1])
    return f"{seconds / unit_s:.3g} {unit}"


def exact_label(t_inference_s: float) -> str:
    """Spell a time above 0 so that :func:`seconds` reads the same number: 604_800 -> "7 d".

    Args:
        t_inference_s: The time [s].

    Returns:
        The time in the largest unit not above it in which it has at most four digits, or in
        seconds.

    Example:
        >>> exact_label(604_800.0)
        '7 d'
    """
    for unit_s, unit in _UNITS:
        text = f"{t_inference_s / unit_s:.4g} {unit}"
        if t_inference_s >= unit_s and seconds(text) == t_inference_s:
            return text
    return f"{t_inference_s!r} s"


_SECONDS_IN = {"week": WEEK} | {unit: length for length, unit in _UNITS}

_TIME = re.compile(r"([0-9]+(?:\.[0-9]*)?(?:[eE][+-]?[0-9]+)?) ?([a-z]+)")


def seconds(time: float | str) -> float:
    """Read a time: "1 h" -> 3600.0, "1 week", "1.5 mo", "20 s"; a number is in seconds.

    Args:
        time: A number [s], or a text: a number and one of the units s, min, h, d, week, mo (30
            days) and y (365 days), with or without a space.

    Returns:
        The time [s].

    Raises:
        ValueError: If it is not a time.

    Example:
        >>> seconds("1 h"), seconds("1.5 mo"), seconds(20)
        (3600.0, 3888000.0, 20.0)
    """
    if isinstance(time, int | float) and not isinstance(time, bool):
        return float(time)
    found = _TIME.fullmatch(time) if isinstance(time, str) else None
    unit = _SECONDS_IN.get(found[2]) if found else None
    if found is None or unit is None:
        units = ", ".join(sorted(_SECONDS_IN, key=_SECONDS_IN.__getitem__))
        raise ValueError(
            f"A time is a number of seconds or a text such as '1 h', with one of the units "
            f"{units}; got {shortened(time)}."
        )
    return float(found[1]) * unit


def times_of(given: Any) -> Any:
    """Read a list of times, or the name of a grid; anything else is returned as it is.

    Args:
        given: A list of times (see :func:`seconds`), or a name in `TIME_GRIDS`.

    Returns:
        The times [s].

    Raises:
        ValueError: If a text is not a time, or not the name of a grid.

    Example:
        >>> times_of(["1 s", "1 h", 86400.0])
        [1.0, 3600.0, 86400.0]
    """
    if isinstance(given, str):
        if given not in TIME_GRIDS:
            raise ValueError(
                f"unknown time grid {shortened(given)}; allowed: {', '.join(TIME_GRIDS)}, or a "
                "list of times."
            )
        return TIME_GRIDS[given]
    if isinstance(given, list | tuple):
        return type(given)(seconds(one) if isinstance(one, str) else one for one in given)
    return given


TIME_GRIDS: dict[str, tuple[float, ...]] = {
    "rasch": (1.0, HOUR, DAY, YEAR),
    "aihwkit_notebooks": (MINUTE, HOUR, DAY, MONTH, 360 * DAY),
    "analognas": (MINUTE, HOUR, DAY, MONTH),
    "wan": (1.0, DAY, 2 * DAY),
    "cmo": (0.0, 1.0, HOUR, DAY, 10 * YEAR),
    "decades": tuple(10.0**power for power in range(9)),
}
"""Times since programming [s] by convention: Rasch et al. 2023; aihwkit's tutorials (their year has
360 days); AnalogNAS; the points of Wan et al. 2022; aihwkit's CMO example; one point per decade."""


def log_times(first_s: float, last_s: float, per_decade: int = 2) -> tuple[float, ...]:
    """Times spaced evenly on a logarithmic axis, both ends included.

    Args:
        first_s: First time [s], above 0.
        last_s: Last time [s], above the first.
        per_decade: Minimum number of points per factor of ten; the spacing is adjusted to the ends.

    Returns:
        Times [s], with three significant digits except for the ends.

    Raises:
        ValueError: If the times are not in order or ``per_decade`` is below 1.

    Example:
        >>> log_times(1.0, 1000.0, per_decade=1)
        (1.0, 10.0, 100.0, 1000.0)
    """
    if not 0 < first_s < last_s < float("inf") or per_decade < 1:
        raise ValueError(
            "log_times needs 0 < first_s < last_s and at least one point per decade; got "
            f"{first_s!r}, {last_s!r}, {per_decade!r}."
        )
    decades = math.log10(last_s / first_s)
    steps = max(1, math.ceil(decades * per_decade - 1e-9))
    between = [first_s * 10 ** (decades * step / steps) for step in range(1, steps)]
    return (float(first_s), *(float(f"{time:.3g}") for time in between), float(last_s))
