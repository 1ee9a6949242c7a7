r"""Tolerance: the largest scale of a noise source at which a network loses no more than it may.

With L(s) the loss of a random chip of one network at the scale s of a noise source, relative to the
device, the tolerance is the first scale at which the mean of L(s) exceeds the allowed loss; or, for
a yield y, the first at which less than a share y of the chips lose no more than that. It is sought
on a grid of scales s = 2^(k/8), k = -32 ... 32. The chips of all scales share their random numbers.

**Tests.** At a scale, chips are evaluated in looks of n_1 < n_2 < ... < N (5, 10, 20, ...). At look
j two one-sided tests ask whether the scale is tolerable, or too much: Student's t of the losses
against the allowed one, or the exact binomial test of the number of chips against the yield. Their
level is

    alpha_j = (1 - confidence) / 65 * (n_j - n_(j-1)) / N

so that the looks spend the error of a scale in proportion to the chips (Lan and DeMets 1983,
Biometrika 70, 659; Kim and DeMets 1987, Biometrika 74, 149), and all looks at all 65 scales of the
grid together are wrong with a probability of at most 1 - confidence (Bonferroni). At a scale only
one of the two tests can be wrong. The bound needs no independence: the order in which scales are
tested may depend on all results, and chips may be shared between scales.

**Search.** Five scales, 1/16, 1/4, 1, 4 and 16, are scanned with the chips of the first look; their
paired differences show whether the loss rises with the scale. Bisection then looks for the largest
tolerable scale and for the smallest one that is too much, which are the ends of the interval: it
contains the tolerance with at least the stated confidence (the lower end: if every scale below a
tolerable one is tolerable). Student's test is exact for normal losses.

**Methods.** Chips of one network are no sample of a training method. The tolerance of a method is
the geometric mean over networks, with Student's interval on the logarithmic scale; methods are
compared by the ratios of networks of one training seed.
"""

import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import optimize, special

from analog_samson.methods import EXTERNAL
from analog_samson.results import spread
from analog_samson.results.comparison import baseline_name, holm, method_names
from analog_samson.results.spread import FEWEST_TESTED
from analog_samson.results.summary import check_confidence

Floats = NDArray[np.float64]

Verdict = Literal["tolerable", "too much", "open"]

STEPS_PER_OCTAVE = 8
"""Scales of the grid per factor of two: neighbours differ by 9 %. Our choice."""

SCAN = tuple(range(-4 * STEPS_PER_OCTAVE, 4 * STEPS_PER_OCTAVE + 1, 2 * STEPS_PER_OCTAVE))
"""Steps of the coarse scan: 1/16, 1/4, 1, 4 and 16. Our choice."""

N_SCALES = SCAN[-1] - SCAN[0] + 1
"""Scales of the grid."""

FIRST_LOOK = 5
"""Chips of the first look, doubled from look to look: our choice."""

_FEWEST_CHIPS = 2

_ROUNDING = 1e-9


def scale_of(step: int) -> float:
    """The scale of a step of the grid: 0 is the device as it is, 8 twice as much."""
    return float(2 ** (step / STEPS_PER_OCTAVE))


@dataclass(frozen=True)
class Rule:
    """What a network may lose, and the sequential test that decides it at a scale.

    Attributes:
        lose: Largest loss, in the table's unit: 0.01 is one point of accuracy.
        share: Share of the chips that may lose no more than that; None: their mean.
        confidence: Probability with which all decisions of a search are right.
        chips_at_most: Most chips at a scale, those of the last look.
        resolution: Smallest difference of two losses; the spread is at least that of rounding.

    Raises:
        ValueError: If a value is out of range, or so few chips can never show the share.

    Example:
        >>> rule = Rule(lose=0.01, chips_at_most=40)
        >>> rule.looks
        (5, 10, 20, 40)
        >>> rule.verdict(np.array([0.1, 0.2, 0.3, 0.2, 0.1]))  # open so far: more chips
        (None, 10)
        >>> rule.verdict(np.array([0.1, 0.102, 0.101, 0.1, 0.1]))
        ('too much', 5)
    """

    lose: float
    share: float | None = None
    confidence: float = 0.95
    chips_at_most: int = 100
    resolution: float = 0.0

    def __post_init__(self) -> None:
        """Check the values.

        Raises:
            ValueError: As the class.
        """
        check_confidence(self.confidence)
        if not (self.lose > 0 and math.isfinite(self.lose)):
            raise ValueError(
                f"The loss that is allowed must be above 0, such as 1 point; got {self.lose!r}."
            )
        if self.share is not None and not 0 < self.share < 1:
            raise ValueError(
                f"The yield is a fraction between 0 and 1, such as 0.9; got {self.share!r}."
            )
        if self.chips_at_most < _FEWEST_CHIPS:
            raise ValueError(
                "One chip shows no spread: the number of chips at a scale must be at least "
                f"{_FEWEST_CHIPS}, better 20 or more; got {self.chips_at_most}."
            )
        if self.share is not None:
            fewest = math.ceil(math.log(self._last_level) / math.log(self.share))
            if self.chips_at_most < fewest:
                raise ValueError(
                    f"A yield of {self.share:g} cannot be shown with {self.chips_at_most} chips at "
                    f"a confidence of {self.confidence:g}, even if all of them reach it: allow at "
                    f"least {self._needed_chips()} chips, or give a smaller yield."
                )

    @cached_property
    def looks(self) -> tuple[int, ...]:
        """Numbers of chips after which a scale is tested."""
        sizes = []
        n = FIRST_LOOK
        while 3 * n <= 2 * self.chips_at_most:
            sizes.append(n)
            n *= 2
        return (*sizes, self.chips_at_most)

    @cached_property
    def levels(self) -> tuple[float, ...]:
        """Level of each of the two tests at each look."""
        per_chip = (1 - self.confidence) / N_SCALES / self.chips_at_most
        return tuple(per_chip * n for n in np.diff([0, *self.looks]).tolist())

    @property
    def _last_level(self) -> float:
        return self.levels[-1]

    def _needed_chips(self) -> int:
        n = self.chips_at_most
        share = float(self.share or 0.5)
        while share**n > Rule(self.lose, None, self.confidence, n).levels[-1]:
            n += 1
        return n

    @cached_property
    def _critical(self) -> tuple[float, ...]:
        pairs = zip(self.looks, self.levels, strict=True)
        return tuple(float(-special.stdtrit(n - 1, level)) for n, level in pairs)

    def verdict(self, losses: Floats) -> tuple[Verdict | None, int]:
        """Decide whether a scale is tolerable, at the first look that shows it.

        Args:
            losses: Losses of the chips at this scale, in the order of their numbers; those after
                the deciding look are not used.

        Returns:
            The verdict, "open" after the last look, and the chips that it took; None and the
            number of chips of the next look where more chips are needed.
        """
        for place, n in enumerate(self.looks):
            if len(losses) < n:
                return None, n
            found = self._at_look(losses[:n], place)
            if found != "open":
                return found, n
        return "open", self.looks[-1]

    def _at_look(self, losses: Floats, place: int) -> Verdict:
        n = len(losses)
        if self.share is None:
            error = max(float(losses.std(ddof=1)), self.resolution / math.sqrt(12)) / math.sqrt(n)
            beyond = float(losses.mean()) - self.lose
            if abs(beyond) <= max(self._critical[place] * error, _ROUNDING * self.lose):
                return "open"
            return "too much" if beyond > 0 else "tolerable"
        reach = int((losses <= self.lose * (1 + _ROUNDING)).sum())
        if special.bdtrc(reach - 1, n, self.share) <= self.levels[place]:
            return "tolerable"
        if special.bdtr(reach, n, self.share) <= self.levels[place]:
            return "too much"
        return "open"

    def excess(self, losses: Floats) -> float:
        """By how much chips miss the target: positive where too much is lost."""
        if self.share is None:
            return float(losses.mean()) - self.lose
        return self.share - float((losses <= self.lose * (1 + _ROUNDING)).mean())


class Asked(NamedTuple):
    """Chips that a search needs next.

    Attributes:
        step: Step of the grid (see :func:`scale_of`).
        n_chips: Number of chips at that scale, those that are there included.
    """

    step: int
    n_chips: int


@dataclass(frozen=True)
class Tolerance:
    """The tolerance of a network for a noise source.

    Attributes:
        factor: Estimate, relative to the device; where it is beyond the range searched, the end of
            the range.
        low: Largest scale that was shown to be tolerable; 0 if none was.
        high: Smallest scale that was shown to be too much; infinity if none was.
        bound: "above" or "below" where the tolerance was shown to be beyond the range.
        falls: Neighbouring scales of the scan between which the loss was shown to fall.
        coefficient_of_variation: The largest of the chips' losses near the tolerance: at tested
            scales within the interval at which the mean is half of the allowed loss or more; NaN
            where there is none.
        n_chips: Chips that were evaluated, over all scales.
        n_scales: Scales that were tested.
    """

    factor: float
    low: float
    high: float
    bound: Literal["", "above", "below"]
    falls: tuple[tuple[float, float], ...]
    coefficient_of_variation: float
    n_chips: int
    n_scales: int


class _ChipsMissingError(Exception):
    def __init__(self, asked: Asked) -> None:
        super().__init__()
        self.asked = asked


def search(losses: Mapping[int, Floats], rule: Rule) -> list[Asked] | Tolerance:
    """Continue the search for the tolerance of a network.

    It depends on the losses alone, so that a search that was stopped continues where it was.

    Args:
        losses: Step of the grid to the losses of the chips at that scale, in the order of their
            numbers.
        rule: The allowed loss, and the test.

    Returns:
        The chips that are needed next, or the tolerance.

    Example:
        >>> rule = Rule(lose=0.01, chips_at_most=20)
        >>> def chip_losses(step, n_chips):
        ...     errors = np.random.default_rng(0).normal(1.0, 0.2, size=n_chips)
        ...     return 0.004 * scale_of(step) ** 2 * errors
        >>> losses = {}
        >>> while isinstance(found := search(losses, rule), list):
        ...     losses |= {step: chip_losses(step, n_chips) for step, n_chips in found}
        >>> found.low < (0.01 / 0.004) ** 0.5 < found.high
        True
    """
    first = [Asked(step, rule.looks[0]) for step in SCAN if step not in losses]
    if first:
        return first
    is_bad = [rule.excess(losses[step][: rule.looks[0]]) > 0 for step in SCAN]
    begin = is_bad.index(True) if True in is_bad else len(SCAN)

    def judge(step: int) -> Verdict:
        found, n = rule.verdict(losses.get(step, np.empty(0)))
        if found is None:
            raise _ChipsMissingError(Asked(step, n))
        return found

    try:
        low, high = _ends(begin, judge)
    except _ChipsMissingError as needed:
        return [needed.asked]
    return Tolerance(
        factor=_estimate(losses, rule, low, high),
        low=0.0 if low is None else scale_of(low),
        high=math.inf if high is None else scale_of(high),
        bound="above" if low == SCAN[-1] else "below" if high == SCAN[0] else "",
        falls=_falls(losses, rule),
        coefficient_of_variation=_variation(losses, rule, low, high),
        n_chips=sum(len(own) for own in losses.values()),
        n_scales=len(losses),
    )


def _ends(begin: int, judge: Callable[[int], Verdict]) -> tuple[int | None, int | None]:
    """The largest tolerable step, and the smallest one that is too much; None where there is none.

    Args:
        begin: Place in the scan of the first scale that seems too much.
        judge: Verdict of a step.
    """
    if begin == len(SCAN) and judge(SCAN[-1]) == "tolerable":
        return SCAN[-1], None
    if begin == 0 and judge(SCAN[0]) == "too much":
        return None, SCAN[0]
    begin -= begin == len(SCAN) and judge(SCAN[-1]) == "too much"
    begin += begin == 0 and judge(SCAN[0]) == "tolerable"
    low = _nearest(SCAN[: begin + 1][::-1], "tolerable", judge)
    return low, _nearest(SCAN[max(begin - 1, 0) :], "too much", judge)


def _nearest(places: Sequence[int], wanted: Verdict, judge: Callable[[int], Verdict]) -> int | None:
    """The step with a verdict that is nearest to the first of some steps, by bisection.

    Args:
        places: Steps of the scan, in the direction in which the verdict becomes more certain.
        wanted: The verdict.
        judge: Verdict of a step.

    Returns:
        The step; None if no place after the first has the verdict.
    """
    for beyond, place in itertools.pairwise(places):
        not_yet, found = beyond, place
        while abs(found - not_yet) > 1:
            middle = (found + not_yet) // 2
            if judge(middle) == wanted:
                found = middle
            else:
                not_yet = middle
        if found != place or judge(place) == wanted:
            return found
    return None


def _estimate(losses: Mapping[int, Floats], rule: Rule, low: int | None, high: int | None) -> float:
    """The scale at which the excess, fitted by a rising function, crosses 0, within the interval.

    Values are weighted by their chips and interpolated linearly in the logarithm of the scale.
    """
    if low == SCAN[-1]:
        return scale_of(SCAN[-1])
    if high == SCAN[0]:
        return scale_of(SCAN[0])
    steps = [step for step in sorted(losses) if high is None or step <= high]
    excess = np.array([rule.excess(losses[step]) for step in steps])
    weights = np.array([len(losses[step]) for step in steps], dtype=float)
    rising = optimize.isotonic_regression(excess, weights=weights).x
    above = np.flatnonzero(rising > 0)
    if not len(above):
        crossing = float(steps[-1])
    elif above[0] == 0:
        crossing = float(steps[0])
    else:
        k = int(above[0])
        part = -rising[k - 1] / (rising[k] - rising[k - 1])
        crossing = steps[k - 1] + float(part) * (steps[k] - steps[k - 1])
    ends = (SCAN[0] if low is None else low, SCAN[-1] if high is None else high)
    return float(2 ** (min(max(crossing, ends[0]), ends[1]) / STEPS_PER_OCTAVE))


def _falls(losses: Mapping[int, Floats], rule: Rule) -> tuple[tuple[float, float], ...]:
    """Neighbours of the scan between which the loss of the same chips falls (paired t tests)."""
    level = (1 - rule.confidence) / (len(SCAN) - 1)
    found = []
    for step, later in itertools.pairwise(SCAN):
        n = min(len(losses[step]), len(losses[later]))
        change = losses[later][:n] - losses[step][:n]
        error = max(float(change.std(ddof=1)), rule.resolution / math.sqrt(12)) / math.sqrt(n)
        if float(change.mean()) < min(float(special.stdtrit(n - 1, level)) * error, -_ROUNDING):
            found.append((scale_of(step), scale_of(later)))
    return tuple(found)


def _variation(
    losses: Mapping[int, Floats], rule: Rule, low: int | None, high: int | None
) -> float:
    """Largest coefficient of variation of the losses at scales within the interval."""
    near = [
        own
        for step, own in losses.items()
        if (low is None or step >= low) and (high is None or step <= high)
        if own.mean() >= rule.lose / 2
    ]
    return max((float(own.std(ddof=1) / own.mean()) for own in near), default=math.nan)


LIKE = ("dataset", "model", "device", "source")
"""Columns in which tolerances of methods agree where they are compared."""

ASKED = ("score", "t_inference_s", "lose", "share", "confidence", "others", "condition")
"""Columns of what was asked, in which tolerances that are averaged or compared agree."""

_TEXTS = ("strength", "bound", "falls", "quantity", "unit", "chips_vary")

_ADDED: dict[str, float | str] = {
    "coefficient_of_variation": math.nan,
    "missed": False,
    "condition": "{}",
    "chips_vary": "",
}
"""Columns that tables of an earlier version lack."""


def method_tolerances(rows: pd.DataFrame) -> pd.DataFrame:
    """Tolerance of every method: the geometric mean over its networks.

    Args:
        rows: A row per network and noise source, as ``study.requirements.tolerances`` gives.

    Returns:
        One row per method and source: the columns that its rows share, ``factor``, ``low`` and
        ``high`` (Student's interval over networks on the logarithmic scale; NaN where a network is
        beyond the range), ``bound`` ("above" or "below": the estimate is at least, or at most, the
        factor; "both": it is unknown), ``level`` ("networks", or "these networks only" below three:
        the ends of their own intervals), ``coefficient_of_variation`` (the largest),
        ``missed`` (whether a network misses the target with the source off), ``n_networks`` and
        ``n_chips`` (mean per network).

    Raises:
        ValueError: If there are no rows, or they answer different questions.

    Example:
        >>> found = method_tolerances(tolerated)
        >>> found["source"].to_list(), found["level"].iloc[0]  # of sgd and sam
        (['drift_scale', 'drift_scale'], 'these networks only')
    """
    if rows.empty:
        raise ValueError("There are no tolerances; run the study first.")
    rows, records = with_bounds(_of_one_question(rows)), []
    for _, own in rows.groupby([*LIKE, "method", "strength"], observed=True, sort=False):
        logs, confidence = np.log(own["factor"].to_numpy()), float(own["confidence"].iloc[0])
        bound = _bound_of(own["beyond"])
        low, high = float(own["low"].min()), float(own["high"].max())
        level = "these networks only"
        if len(own) >= FEWEST_TESTED:
            level = "networks"
            low, high = _interval(logs, confidence) if not bound else (math.nan, math.nan)
        first = own.iloc[0].drop(["training_seed", "checkpoint", "n_scales", "beyond"]).to_dict()
        records.append(
            first
            | {
                "factor": math.nan if bound == "both" else math.exp(logs.mean()),
                "low": low,
                "high": high,
                "bound": bound,
                "falls": "; ".join(dict.fromkeys(filter(None, own["falls"]))),
                "coefficient_of_variation": float(own["coefficient_of_variation"].max()),
                "missed": bool(own["missed"].any()),
                "level": level,
                "n_networks": len(own),
                "n_chips": float(own["n_chips"].mean()),
            }
        )
    return pd.DataFrame(records)


def tolerance_ratios(rows: pd.DataFrame, baseline: str = "sgd") -> pd.DataFrame:
    """Tolerance of every method relative to that of a baseline, paired by training seed.

    Args:
        rows: As for :func:`method_tolerances`.
        baseline: A method, with its strength where it has several.

    Returns:
        One row per other method that is not "external" and source: the columns of `LIKE`,
        ``method``, ``strength``, ``baseline``, ``ratio`` (geometric mean), ``low``, ``high``
        (Student's interval on the logarithmic scale; NaN below three pairs, or where a tolerance
        is beyond the range), ``bound`` (as in :func:`method_tolerances`), ``n_pairs``, ``p_value``
        (of a ratio of 1), ``p_holm`` (corrected over all rows by Holm) and ``significant``; no rows
        without the baseline.

    Example:
        >>> tolerance_ratios(tolerated)[["method", "baseline"]].iloc[0].to_list()
        ['sam', 'sgd']
    """
    rows, records = with_bounds(_of_one_question(rows)), []
    names = method_names(rows)
    is_base = pd.Series(False, rows.index)
    if baseline in {*names, *rows["method"]}:
        is_base = names == baseline_name(rows, baseline)
    for key, own in rows.groupby(list(LIKE), observed=True, sort=False):
        base = own[is_base[own.index]]
        others = own[~is_base[own.index] & (own["method"] != EXTERNAL)]
        for (method, strength), other in others.groupby(
            ["method", "strength"], observed=True, sort=False
        ):
            pairs = other.merge(base, on="training_seed", suffixes=("", "_base"))
            if pairs.empty:
                continue
            logs = np.log(pairs["factor"].to_numpy() / pairs["factor_base"].to_numpy())
            opposite = pairs["beyond_base"].replace({"above": "below", "below": "above"})
            bound = _bound_of(pd.concat([pairs["beyond"], opposite]))
            confidence = float(pairs["confidence"].iloc[0])
            is_tested = not bound and len(pairs) >= FEWEST_TESTED
            low, high, p_value = math.nan, math.nan, math.nan
            if is_tested:
                low, high = _interval(logs, confidence)
                p_value = float(spread.of_independent(logs).p_value(logs.mean()))
            records.append(
                {
                    **dict(zip(LIKE, key, strict=True)),
                    "method": method,
                    "strength": strength,
                    "baseline": baseline,
                    "ratio": math.nan if bound == "both" else math.exp(logs.mean()),
                    "low": low,
                    "high": high,
                    "bound": bound,
                    "n_pairs": len(pairs),
                    "p_value": p_value,
                    "confidence": confidence,
                }
            )
    columns = [*LIKE, "method", "strength", "baseline", "ratio", "low", "high", "bound", "n_pairs"]
    found = pd.DataFrame(records, columns=[*columns, "p_value", "confidence"])
    found["p_holm"] = holm(found["p_value"].to_numpy(dtype=float))
    found["significant"] = found["p_holm"] < 1 - found["confidence"]
    return found[[*columns, "p_value", "p_holm", "significant"]]


def _of_one_question(rows: pd.DataFrame) -> pd.DataFrame:
    """The rows with empty texts where pandas has read them as missing.

    Raises:
        ValueError: If they answer different questions.
    """
    rows = rows.assign(**{name: value for name, value in _ADDED.items() if name not in rows})
    rows = rows.assign(**{name: rows[name].astype(object).fillna("") for name in _TEXTS})
    different = [name for name in ASKED if name in rows and rows[name].nunique(dropna=False) > 1]
    if different:
        raise ValueError(
            f"These tolerances answer different questions (they differ in {', '.join(different)}); "
            "give the rows of one question at a time."
        )
    return rows


def with_bounds(rows: pd.DataFrame) -> pd.DataFrame:
    """The rows with ``beyond``: "", "above", "below", or "both" where nothing is known.

    An estimate at an end of the range whose interval is open there is a bound and no value: the
    factor becomes the end of the interval, which was shown. Where no scale was shown to be
    tolerable and none to be too much, nothing is known.

    Args:
        rows: A row per network, with ``factor``, ``low``, ``high`` and ``bound``.
    """
    is_above = (rows["factor"] >= scale_of(SCAN[-1])) & np.isinf(rows["high"])
    is_below = (rows["factor"] <= scale_of(SCAN[0])) & (rows["low"] == 0)
    is_unknown = (rows["low"] == 0) & np.isinf(rows["high"])
    shown = rows["bound"].astype(object).fillna("")
    found = shown.mask(is_above, "above").mask(is_below, "below").mask(is_unknown, "both")
    factor = rows["factor"].mask(found == "above", rows["low"]).mask(found == "below", rows["high"])
    return rows.assign(beyond=found, factor=factor)


def _interval(logs: Floats, confidence: float) -> tuple[float, float]:
    half = float(spread.of_independent(logs).half_width(confidence))
    return math.exp(logs.mean() - half), math.exp(logs.mean() + half)


def _bound_of(bounds: "pd.Series[str]") -> str:
    """How a mean is bounded if some of its values are: "", "above", "below" or "both"."""
    known = sorted(set(bounds) - {""})
    return known[0] if len(known) == 1 else "both" if known else ""
