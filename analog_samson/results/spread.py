"""Standard errors of means and their degrees of freedom."""

from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import special, stats

Floats = NDArray[np.float64]
Bounds = tuple[float, float]


SHARING_BOUND = 0.75
"""Our choice, by simulation with 2 to 5 seeds, 2 to 8 methods and correlations from 0 to 0.99: 95 %
intervals cover 94 to 98 %; with the plug-in estimate they cover as little as 89 %."""


ALIKE = 0.7
"""Our choice, by simulation with 2 and 3 seeds, 2 and 4 methods: 95 % intervals cover at least 93 %
also for a method whose spread is up to five times that of the others; without this test 74 %."""


ROUNDING = 1e-9
"""Relative difference of two numbers that only rounding causes."""

FEWEST_TESTED = 3
"""Fewest networks with a test: our choice. From two networks the spread has one degree of freedom,
and two differences that are equal by the resolution of the counts would decide the test."""


@dataclass(frozen=True)
class StandardError:
    """Standard error of a mean.

    Attributes:
        value: Standard error, in the unit of the mean.
        dof: Degrees of freedom of the estimate; 0 when there is none.
    """

    value: float
    dof: float

    def half_width(self, confidence: float) -> float:
        """Half of the Student t interval; NaN without degrees of freedom."""
        if not self.dof > 0:
            return float("nan")
        return quantile(stats.t, 0.5 + confidence / 2, self.dof) * self.value

    def p_value(self, mean: float) -> float:
        """Two-sided p-value of the hypothesis that the mean is 0; NaN without spread estimate."""
        if not self.dof > 0 or not self.value > 0:
            return float("nan")
        return float(2 * special.stdtr(self.dof, -abs(mean) / self.value))

    def at_least(self, floor: float) -> "StandardError":
        """The larger one of this standard error and a floor, with the same degrees of freedom."""
        return replace(self, value=floor) if self.value < floor else self


UNKNOWN = StandardError(float("nan"), 0.0)


def of_independent(values: Floats) -> StandardError:
    """Standard error of the mean of independent values."""
    n = len(values)
    if n < 2:
        return UNKNOWN
    return StandardError(float(np.std(values, ddof=1) / np.sqrt(n)), n - 1)


def of_networks(table: Floats, *, shares_chips: bool, resolution: float = 0.0) -> StandardError:
    """Standard error of the mean over networks, each the mean of its chips.

    Student's over the network means, or `of_shared_chips`; with one network over its chips. The
    result is at least `floor_of` the table.

    Args:
        table: Scores, shape (networks, chips); NaN where a chip is missing.
        shares_chips: Whether a column is the same chip for all networks.
        resolution: Smallest difference of two scores, 1 / N of counts out of N; 0 without one.

    Returns:
        The standard error; `UNKNOWN` for a single score.
    """
    known = ~np.isnan(table)
    if len(table) == 1:
        error = of_independent(table[known])
    elif shares_chips:
        error = of_shared_chips(table)
    else:
        error = of_independent(means_of(table))
    return error.at_least(floor_of(table, resolution=resolution, shares_chips=shares_chips))


def table_of(rows: NDArray[Any], columns: NDArray[Any], values: Floats) -> Floats:
    """Values in a table by the labels of their rows and columns; NaN where there is none."""
    row, row_of = np.unique(rows, return_inverse=True)
    column, column_of = np.unique(columns, return_inverse=True)
    table = np.full((len(row), len(column)), np.nan)
    table[row_of, column_of] = values
    return table


def means_of(table: Floats) -> Floats:
    """Mean of every row of a table, without its missing values."""
    known = ~np.isnan(table)
    means: Floats = np.where(known, table, 0.0).sum(axis=1) / known.sum(axis=1)
    return means


def floor_of(table: Floats, *, resolution: float, shares_chips: bool = False) -> float:
    """The smallest standard error that the scores of a table allow.

    Few network means may agree by chance, or because counts are whole numbers. Their variance is
    at least what the chips within networks cause (the variance component of networks is not
    negative: Searle, Casella, McCulloch, *Variance Components*, 1992), and at least the variance
    ``resolution^2 / 12`` of rounding (Sheppard 1898). Chips of one network may be rounded alike,
    so that rounding is averaged over networks only.

    Args:
        table: Scores, shape (networks, chips); NaN where a chip is missing.
        resolution: Smallest difference of two scores; 0 without one.
        shares_chips: Whether networks share their chips; `of_shared_chips` contains their spread.

    Returns:
        The floor, in the unit of the scores.
    """
    known = ~np.isnan(table)
    sizes = known.sum(axis=1)
    floor = resolution**2 / 12 / len(table)
    dof = int(sizes.sum()) - len(table)
    if dof > 0 and not shares_chips:
        deviations = np.where(known, table - means_of(table)[:, None], 0.0)
        within = float(np.sum(deviations**2)) / dof
        floor = max(floor, within * float(np.mean(1 / sizes)) / len(table))
    return float(np.sqrt(floor))


def of_shared_chips(table: Floats) -> StandardError:
    """Standard error of the mean of networks that were all programmed on the same chips.

    The error of a chip is common to all networks on it, so the networks are not
    independent: two-way random effects, ``V = (MS_networks + MS_chips - MS_rest) / (a b)``, with
    Satterthwaite's degrees of freedom (Searle, Casella, McCulloch, *Variance Components*, 1992).

    Args:
        table: Scores, shape (networks a, chips b); NaN where a chip is missing.

    Returns:
        The standard error; at least that of networks alone and that of chips alone.
    """
    known = ~np.isnan(table)
    a, b = table.shape
    if a < 2 or b < 2:
        return of_independent(np.nanmean(table, axis=1 if b < 2 else 0))
    n_each = known.sum() / (a * b)
    rows, columns = np.nanmean(table, axis=1), np.nanmean(table, axis=0)
    rest = np.where(known, table - rows[:, None] - columns[None, :] + np.nanmean(table), 0.0)
    rest_dof = max(int(known.sum()) - a - b + 1, 1)
    ms = np.array(
        [
            b * n_each * np.var(rows, ddof=1),
            a * n_each * np.var(columns, ddof=1),
            np.sum(rest**2) / rest_dof,
        ]
    )
    dof = np.array([a - 1, b - 1, rest_dof], dtype=float)
    total = max(ms[0] + ms[1] - ms[2], ms[0], ms[1])
    if total == 0:
        return StandardError(0.0, float(a - 1))
    parts = ms if total > max(ms[0], ms[1]) else np.where(ms[:2].max() == ms, ms, 0.0)
    effective = float(total**2 / np.sum(parts**2 / dof))
    return StandardError(float(np.sqrt(total / (a * b * n_each))), effective)


def pooled_variance(table: Floats) -> StandardError:
    """Standard deviation over networks, pooled over methods with the same training seeds.

    Mixed model ``y = method + seed + rest``: the variance of one method's networks is
    ``(MS_seeds + (m - 1) MS_rest) / m``, which is the plain average of the methods' variances;
    shared seeds lower its degrees of freedom (Satterthwaite; the shared part enters by its upper
    `SHARING_BOUND` confidence bound, because few seeds estimate it poorly). Equal variances of the
    methods are assumed.

    Args:
        table: Network means, shape (seeds n, methods m); NaN where a network is missing.

    Returns:
        The standard deviation of one network (not of the mean), and its degrees of freedom.
    """
    counts = np.sum(~np.isnan(table), axis=0)
    table = table[:, counts >= 2]
    counts = counts[counts >= 2]
    if table.shape[1] == 0:
        return UNKNOWN
    deviations = table - np.nanmean(table, axis=0)
    own_dof = float(np.sum(counts - 1))
    variance = float(np.nansum(deviations**2) / own_dof)
    common = deviations[~np.isnan(deviations).any(axis=1)]
    n, m = common.shape
    if n < 2 or variance == 0:
        return StandardError(float(np.sqrt(variance)), float(np.max(counts) - 1))
    if m == 1:
        return StandardError(float(np.sqrt(variance)), float(np.max(counts) - 1))
    common = common - common.mean(axis=0)
    ms_seeds = m * np.var(common.mean(axis=1), ddof=1)
    rest = common - common.mean(axis=1, keepdims=True)
    dof = np.array([n - 1, (n - 1) * (m - 1)])
    ms_rest = np.sum(rest**2) / dof[1]
    if ms_rest == 0:
        return StandardError(float(np.sqrt(variance)), float(n - 1))
    ratio = ms_seeds / ms_rest / quantile(stats.f, 1 - SHARING_BOUND, *dof)
    parts = np.array([ratio / m, (m - 1) / m])
    shared = float(parts.sum() ** 2 / np.sum(parts**2 / dof))
    return StandardError(float(np.sqrt(variance)), shared * own_dof / float(dof.sum()))


def pooled_spreads(table: Floats) -> list[StandardError]:
    """The pooled standard deviation for every method whose variance is not larger than the others'.

    Args:
        table: Network means, shape (seeds n, methods m); NaN where a network is missing.

    Returns:
        One per method: `pooled_variance`, or `UNKNOWN` for a method that keeps its own spread,
        because its variance exceeds the others' by more than the `ALIKE` quantile of F.
    """
    pooled = pooled_variance(table)
    dof = np.sum(~np.isnan(table), axis=0) - 1
    squares = np.nansum((table - np.nanmean(table, axis=0)) ** 2, axis=0)
    spreads = []
    for own, own_dof in zip(squares, dof, strict=True):
        rest, rest_dof = squares.sum() - own, np.maximum(dof, 0).sum() - own_dof
        if own_dof < 1 or rest_dof < 1:
            spreads.append(UNKNOWN)
            continue
        limit = quantile(stats.f, ALIKE, own_dof, rest_dof)
        is_alike = own / own_dof <= limit * rest / rest_dof
        spreads.append(pooled if is_alike else UNKNOWN)
    return spreads


def of_difference(first: StandardError, second: StandardError) -> StandardError:
    """Standard error of the difference of two independent means (Welch 1947).

    Args:
        first: Standard error of one mean.
        second: Standard error of the other.

    Returns:
        The standard error with Welch's degrees of freedom; `UNKNOWN` if one of them is.
    """
    if not (first.dof > 0 and second.dof > 0):
        return UNKNOWN
    parts = np.array([first.value**2, second.value**2])
    total = float(parts.sum())
    if total == 0:
        return StandardError(0.0, first.dof + second.dof)
    dof = total**2 / np.sum(parts**2 / np.array([first.dof, second.dof]))
    return StandardError(float(np.sqrt(total)), float(dof))


def fewest_resampled(confidence: float) -> int:
    """Fewest values that a bootstrap interval needs: 5 for 95 %, 6 for 99 % (our choice).

    All resampled values are the same one with probability ``n^(1 - n)``; this
    probability may be at most a tenth of that outside the interval.
    """
    n = 2
    while n ** (1 - n) > 0.1 * (1 - confidence) / 2:
        n += 1
    return n


def can_be_resampled(values: Floats, confidence: float) -> bool:
    """Whether enough of the values differ for a bootstrap interval.

    The rule of `fewest_resampled`, for values of which some may be equal.
    """
    _, counts = np.unique(values, return_counts=True)
    n = len(values)
    return bool(np.sum((counts / n) ** n) <= 0.1 * (1 - confidence) / 2)


def of_resampled(values: Floats, confidence: float, *, draws: int = 9999, seed: int = 0) -> Bounds:
    """Bootstrap interval of the mean of independent values, normal or not.

    The studentised bootstrap (Efron and Tibshirani 1993, An Introduction to the Bootstrap, 12.5):
    the quantiles of ``(mean* - mean) / standard error*`` over resampled values replace
    Student's quantiles.

    Args:
        values: The values, shape (n,); n at least `fewest_resampled`.
        confidence: Probability with which the interval covers the true mean.
        draws: Resamplings.
        seed: Seed of the resampling, the same for all methods.

    Returns:
        The lower and the upper bound.

    Raises:
        ValueError: If there are too few values.
    """
    n = len(values)
    if n < fewest_resampled(confidence):
        raise ValueError(
            f"A bootstrap interval of {100 * confidence:g} % needs "
            f"{fewest_resampled(confidence)} networks or more; got {n}: use Student's t."
        )
    resampled = values[np.random.default_rng(seed).integers(n, size=(draws, n))]
    shift = resampled.mean(axis=1) - values.mean()
    error = resampled.std(axis=1, ddof=1) / np.sqrt(n)
    without = np.where(shift == 0, 0.0, np.copysign(np.inf, shift))
    ratio = np.divide(shift, error, out=without, where=error > 0)
    tail = (1 - confidence) / 2
    low, high = np.quantile(ratio, [tail, 1 - tail], method="inverted_cdf")
    scale = float(np.std(values, ddof=1) / np.sqrt(n))
    return float(values.mean() - high * scale), float(values.mean() - low * scale)


@lru_cache(maxsize=4096)
def quantile(distribution: Any, probability: float, *shape: float) -> float:
    """Quantile of a scipy distribution, to the accuracy of its distribution function.

    One Newton step refines scipy's value, which some versions give to ten digits only, so that
    tables do not depend on the version.
    """
    x = distribution.ppf(probability, *shape)
    return float(x - (distribution.cdf(x, *shape) - probability) / distribution.pdf(x, *shape))
