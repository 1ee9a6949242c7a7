"""Seconds and their names: time since the end of programming is a plain float in seconds."""

MINUTE = 60.0
HOUR = 3600.0
DAY = 86_400.0
MONTH = 30 * DAY
YEAR = 365 * DAY

_UNITS = (
    (YEAR, "y"),
    (MONTH, "mo"),
    (DAY, "d"),
    (HOUR, "h"),
    (MINUTE, "min"),
    (1.0, "s"),
)


def label(t_inference_s: float) -> str:
    """Name a time as figures do: 3600 -> "1 h", 31_536_000 -> "1 y"; 0 is "programmed".

    Args:
        t_inference_s: Time since programming finished [s], at least 0.

    Returns:
        The time in the largest unit that fits, with at most three significant digits.
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
