"""Maintenance of chips: programming them again, and when drift compensation is measured."""

import functools
import math
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator

from analog_samson.devices.section import Duration
from analog_samson.times import LONGEST_S, SHORTEST_S, exact_label, seconds

NEVER: Literal["never"] = "never"
EVERY_TIME = "every time"
_EVERY = "every "

SAME_TIME = 1e-12
"""Relative difference of times below which they are the same: rounding errors of sums."""

MOST_CYCLES = 1_000_000
"""Refreshes before a time, our choice: one every half a minute of a year."""


def _interval(given: Any) -> Any:
    is_text = isinstance(given, str) and given != NEVER
    return seconds(given) if is_text else given


RefreshEvery = Annotated[Literal["never"] | Duration, BeforeValidator(_interval)]
"""Interval [s], as a number or a text such as "1 mo", or "never"."""


def _measuring_times(given: Any) -> str:
    """Spell times of measurement in one way: "every time", "every 7 d" or "1 h, 7 d"."""
    if given == EVERY_TIME:
        return EVERY_TIME
    if isinstance(given, str) and given.startswith(_EVERY):
        return _EVERY + _spelled(given.removeprefix(_EVERY))
    times = given.split(",") if isinstance(given, str) else given
    times = list(times) if isinstance(times, list | tuple) else [times]
    if not times:
        raise ValueError(f"give one time or more, 'every 1 week' or {EVERY_TIME!r}")
    found = sorted({_spelled(one) for one in times}, key=seconds)
    if len(found) < len(times):
        raise ValueError("a time is given twice; give each once")
    return ", ".join(found)


def _spelled(given: Any) -> str:
    time = seconds(given.strip() if isinstance(given, str) else given)
    if not SHORTEST_S <= time <= LONGEST_S:
        raise ValueError(
            f"compensation is measured at times between {SHORTEST_S:g} and {LONGEST_S:g} s after "
            f"programming, or {EVERY_TIME!r}; got {given!r}"
        )
    return exact_label(time)


MeasuringTimes = Annotated[str, BeforeValidator(_measuring_times)]
"""When drift compensation is measured: "every time" a chip is read, at one time or a list of times
since programming, or at multiples of an interval, "every 1 week"."""


def cycle_and_age(refresh_every: float | str, t_inference_s: float) -> tuple[int, float]:
    """Number of refreshes before a time, and the time since the last programming [s].

    Args:
        refresh_every: Interval [s], or "never".
        t_inference_s: Time since the first programming [s].
    """
    if isinstance(refresh_every, str):
        return 0, t_inference_s
    cycle = math.floor(t_inference_s / refresh_every * (1 + SAME_TIME))
    age = t_inference_s - cycle * refresh_every
    return cycle, age if age > SAME_TIME * t_inference_s else 0.0


@functools.lru_cache(maxsize=1000)
def last_measured(times: str, age_s: float) -> float | None:
    """The last time of measurement up to a time since programming [s]; None: there is none.

    Args:
        times: As :data:`MeasuringTimes` spells them.
        age_s: Time since the last programming [s].
    """
    if times == EVERY_TIME:
        return age_s
    if times.startswith(_EVERY):
        interval = seconds(times.removeprefix(_EVERY))
        known = [interval * math.floor(age_s / interval * (1 + SAME_TIME))]
    else:
        known = [seconds(one) for one in times.split(", ")]
    before = [time for time in known if 0 < time <= age_s * (1 + SAME_TIME)]
    if not before:
        return None
    return age_s if math.isclose(max(before), age_s, rel_tol=SAME_TIME) else max(before)
