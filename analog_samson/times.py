"""Times since the end of programming, plain floats in seconds, and their labels."""

import math

MINUTE = 60.0
HOUR = 3600.0
DAY = 86_400.0
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


def label(t_inference_s: float) -> str:
    """Label a time as in figures: 3600 -> "1 h", 31_536_000 -> "1 y"; 0 is "programmed".

    Args:
        t_inference_s: Time since programming finished [s], at least 0.

    Returns:
        The time in the largest unit not above it, with at most three significant digits.
        A month is 30 days, a year 365 days.

    Raises:
        ValueError: If the time is negative or not finite.
    """
    if not 0 <= t_inference_s < float("inf"):
        raise ValueError(f"A time must be finite and at least 0 s; got {t_inference_s!r}.")
    if t_inference_s == 0:
        return "programmed"
    for seconds, unit in _UNITS:
        if t_inference_s >= seconds:
            return f"{t_inference_s / seconds:.3g} {unit}"
    return f"{t_inference_s:.3g} s"


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
