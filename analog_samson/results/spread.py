"""Standard errors of means and their degrees of freedom.

Functions of a table also take a stack of tables, shape (..., rows, columns), in which the same
values are missing; they compute all tables at once. `tables_of` makes such stacks.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import special, stats

Floats = NDArray[np.float64]
Labels = NDArray[Any]
Bounds = tuple[float, float]

SHARING_BOUND = 0.5
"""Quantile at which the seeds' share of the variance enters; the estimate at 0.5 is
median-unbiased. By simulation with 3 and 5 seeds, 2 to 8 methods and correlations from 0 to 0.99,
95 % intervals cover 95 to 98 %; with the plug-in estimate they cover as little as 89 %."""


ALIKE, ALIKE_OF_TWO = 0.6, 0.75
"""Quantiles of F above which a method keeps its own spread, of several methods and of two. Our
choice, by simulation with 3 seeds, 2 to 8 methods: 95 % intervals of equal methods cover at most
97.5 %, and those of a method whose spread is up to five times that of the others at least 93 %;
without this test 74 %. Of two methods the test has few degrees of freedom, so that at 0.6 equal
methods too often kept their own spreads, and their intervals covered 97.8 %."""


ROUNDING = 1e-9
"""Relative difference of two numbers that only rounding causes."""

FEWEST_TESTED = 3
"""Fewest networks with a test: our choice. From two networks the spread has one degree of freedom,
and two differences that are equal by the resolution of the counts would decide the test."""


@dataclass(frozen=True)
class StandardError:
    """Standard error of a mean, or of many.

    Attributes:
        value: Standard error, in the unit of the mean.
        dof: Degrees of freedom of the estimate; 0 when there is none.
    """

    value: Any
    dof: Any

    def half_width(self, confidence: float) -> Any:
        """Half of the Student t interval; NaN without degrees of freedom."""
        return t_quantile(0.5 + confidence / 2, self.dof) * self.value

    def p_value(self, mean: Any) -> Any:
        """Two-sided p-value of the hypothesis that the mean is 0; NaN without spread estimate."""
        value, dof = np.broadcast_arrays(*map(_floats, (self.value, self.dof)))
        is_known = (dof > 0) & (value > 0)
        ratio = np.abs(mean) / np.where(is_known, value, np.nan)
        return 2 * special.stdtr(np.where(is_known, dof, np.nan), -ratio)

    def at_least(self, floor: Any) -> "StandardError":
        """The larger one of this standard error and a floor, with the same degrees of freedom."""
        return replace(self, value=np.where(self.value < floor, floor, self.value)[()])


UNKNOWN = StandardError(float("nan"), 0.0)


class Tables(NamedTuple):
    """Tables of several groups that have the same shape and the same missing values.

    Attributes:
        groups: Number of each table's group, shape (tables,).
        rows: Labels of the rows, shape (tables, rows).
        columns: Labels of the columns, shape (tables, columns).
        values: The tables, shape (tables, rows, columns); NaN where there is no value.
    """

    groups: Labels
    rows: Labels
    columns: Labels
    values: Floats


def tables_of(group: Labels, row: Labels, column: Labels, values: Floats) -> Iterator[Tables]:
    """Values in one table for every group, in stacks of like tables.

    Args:
        group: Group of each value.
        row: Label of each value's row.
        column: Label of each value's column.
        values: The values, at most one for each group, row and column.

    Returns:
        Stacks that hold each group once; rows and columns are sorted by their labels.
    """
    groups, group = np.unique(group, return_inverse=True)
    rows, row_of = _ranks(group, row)
    columns, column_of = _ranks(group, column)
    n_rows, n_columns = (np.bincount(labels[:, 0]) for labels in (rows, columns))
    kinds, kind = np.unique(np.stack([n_rows, n_columns]), axis=1, return_inverse=True)
    place = np.empty(len(groups), dtype=np.int64)
    for number, (a, b) in enumerate(kinds.T):
        of_kind = np.flatnonzero(kind == number)
        place[of_kind] = np.arange(len(of_kind))
        own = np.flatnonzero(kind[group] == number)
        tables = np.full((len(of_kind), a, b), np.nan)
        tables[place[group[own]], row_of[own], column_of[own]] = values[own]
        labels = [
            one[kind[one[:, 0]] == number, 1].reshape(len(of_kind), -1) for one in (rows, columns)
        ]
        missing = np.isnan(tables).reshape(len(of_kind), -1)
        pattern = np.zeros(len(of_kind), dtype=np.int64)
        if missing.any():
            pattern = np.unique(missing, axis=0, return_inverse=True)[1]
        for k in range(pattern.max() + 1):
            like = pattern == k
            yield Tables(groups[of_kind[like]], labels[0][like], labels[1][like], tables[like])


def _ranks(group: Labels, label: Labels) -> tuple[Labels, Labels]:
    """Sorted pairs of group and label, and the rank of each label within its group."""
    names, number = np.unique(label, return_inverse=True)
    codes, pair = np.unique(group * len(names) + number, return_inverse=True)
    pairs = np.stack([codes // len(names), names[codes % len(names)]], axis=1)
    return pairs, (np.arange(len(codes)) - np.searchsorted(pairs[:, 0], pairs[:, 0]))[pair]


def mean_interval(values: Floats, confidence: float) -> tuple[float, float, float]:
    """Mean of independent values and the ends of its Student t interval; NaN where there is none.

    Example:
        >>> [round(end, 4) for end in mean_interval(np.array([1.0, 2.0, 3.0]), 0.95)]
        [2.0, -0.4841, 4.4841]
    """
    if len(values) == 0:
        return float("nan"), float("nan"), float("nan")
    mean = float(values.mean())
    half_width = float(of_independent(values).half_width(confidence))
    return mean, mean - half_width, mean + half_width


def of_independent(values: Floats) -> StandardError:
    """Standard error of the mean of independent values, shape (..., n)."""
    n = values.shape[-1]
    if n < 2:
        return _unknown(values.shape[:-1])
    return StandardError(np.std(values, axis=-1, ddof=1) / np.sqrt(n), _dof(values, n - 1)[()])


def of_networks(table: Floats, *, shares_chips: bool, resolution: Any = 0.0) -> StandardError:
    """Standard error of the mean over networks, each the mean of its chips.

    Student's over the network means, or `of_shared_chips`; with one network over its chips. The
    result is at least `floor_of` the table.

    Args:
        table: Scores, shape (..., networks, chips); NaN where a chip is missing.
        shares_chips: Whether a column is the same chip for all networks.
        resolution: Smallest difference of two scores, 1 / N of counts out of N; 0 without one.

    Returns:
        The standard error; `UNKNOWN` for a single score.
    """
    if table.shape[-2] == 1:
        error = of_independent(table[..., 0, ~_missing(table)[0]])
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
    means: Floats = np.where(known, table, 0.0).sum(axis=-1) / known.sum(axis=-1)
    return means


def floor_of(table: Floats, *, resolution: Any, shares_chips: bool = False) -> Any:
    """The smallest standard error that the scores of a table allow.

    Few network means may agree by chance, or because counts are whole numbers. Their variance is
    at least what the chips within networks cause (the variance component of networks is not
    negative: Searle, Casella, McCulloch, *Variance Components*, 1992), and at least the variance
    ``resolution^2 / 12`` of rounding (Sheppard 1898). Chips of one network may be rounded alike,
    so that rounding is averaged over networks only.

    Args:
        table: Scores, shape (..., networks, chips); NaN where a chip is missing.
        resolution: Smallest difference of two scores; 0 without one.
        shares_chips: Whether networks share their chips; `of_shared_chips` contains their spread.

    Returns:
        The floor, in the unit of the scores.
    """
    known = ~_missing(table)
    sizes, n = known.sum(axis=1), len(known)
    floor = np.broadcast_to(np.asarray(resolution) ** 2 / 12 / n, table.shape[:-2])
    dof = int(sizes.sum()) - n
    if dof > 0 and not shares_chips:
        deviations = np.where(known, table - means_of(table)[..., None], 0.0)
        within = np.sum(deviations**2, axis=(-2, -1)) / dof
        floor = np.maximum(floor, within * float(np.mean(1 / sizes)) / n)
    return np.sqrt(floor)[()]


def of_shared_chips(table: Floats) -> StandardError:
    """Standard error of the mean of networks that were all programmed on the same chips.

    The error of a chip is common to all networks on it, so the networks are not
    independent: two-way random effects, ``V = (MS_networks + MS_chips - MS_rest) / (a b)``, with
    Satterthwaite's degrees of freedom (Searle, Casella, McCulloch, *Variance Components*, 1992).

    Args:
        table: Scores, shape (..., networks a, chips b); NaN where a chip is missing.

    Returns:
        The standard error; at least that of networks alone and that of chips alone.
    """
    known = ~_missing(table)
    a, b = known.shape
    if a < 2 or b < 2:
        return of_independent(np.nanmean(table, axis=-1 if b < 2 else -2))
    n_each = known.sum() / (a * b)
    rows, columns = np.nanmean(table, axis=-1), np.nanmean(table, axis=-2)
    mean = np.nanmean(table, axis=(-2, -1))[..., None, None]
    rest = np.where(known, table - rows[..., :, None] - columns[..., None, :] + mean, 0.0)
    rest_dof = max(int(known.sum()) - a - b + 1, 1)
    ms_rows = b * n_each * np.var(rows, axis=-1, ddof=1)
    ms_columns = a * n_each * np.var(columns, axis=-1, ddof=1)
    ms_rest = np.sum(rest**2, axis=(-2, -1)) / rest_dof
    larger = np.maximum(ms_rows, ms_columns)
    total = np.maximum(ms_rows + ms_columns - ms_rest, larger)
    ms = np.stack([ms_rows, ms_columns, ms_rest], axis=-1)
    is_whole = (total > larger)[..., None]
    parts = ms**2 * (is_whole | (ms == larger[..., None])) / np.array([a - 1, b - 1, rest_dof])
    without = _dof(table, a - 1, n_axes=2)
    dof = np.divide(total**2, parts.sum(axis=-1), out=without, where=total > 0)
    return StandardError(np.sqrt(total / (a * b * n_each)), dof[()])


def pooled_variance(table: Floats) -> StandardError:
    """Standard deviation over networks, pooled over methods with the same training seeds.

    Mixed model ``y = method + seed + rest``: the variance of one method's networks is
    ``(MS_seeds + (m - 1) MS_rest) / m``, which is the plain average of the methods' variances;
    shared seeds lower its degrees of freedom (Satterthwaite; the shared part enters by its
    `SHARING_BOUND` quantile, because few seeds estimate it poorly). Equal variances of the methods
    are assumed.

    Args:
        table: Network means, shape (..., seeds n, methods m); NaN where a network is missing.

    Returns:
        The standard deviation of one network (not of the mean), and its degrees of freedom.
    """
    counts = (~_missing(table)).sum(axis=0)
    table = table[..., counts >= 2]
    counts = counts[counts >= 2]
    if len(counts) == 0:
        return _unknown(table.shape[:-2])
    deviations = table - np.nanmean(table, axis=-2, keepdims=True)
    own_dof = float(np.sum(counts - 1))
    variance = np.nansum(deviations**2, axis=(-2, -1)) / own_dof
    common = deviations[..., ~_missing(deviations).any(axis=1), :]
    n, m = common.shape[-2:]
    std, alone = np.sqrt(variance), _dof(table, np.max(counts) - 1, n_axes=2)
    if n < 2 or m == 1:
        return StandardError(std, alone[()])
    common = common - common.mean(axis=-2, keepdims=True)
    ms_seeds = m * np.var(common.mean(axis=-1), axis=-1, ddof=1)
    rest = common - common.mean(axis=-1, keepdims=True)
    dof = np.array([n - 1, (n - 1) * (m - 1)])
    ms_rest = np.sum(rest**2, axis=(-2, -1)) / dof[1]
    ratio = np.divide(ms_seeds, ms_rest, out=np.zeros_like(ms_rest), where=ms_rest > 0)
    ratio = ratio / quantile(stats.f, 1 - SHARING_BOUND, *dof)
    parts = np.stack(np.broadcast_arrays(ratio / m, (m - 1) / m), axis=-1)
    shared = parts.sum(axis=-1) ** 2 / np.sum(parts**2 / dof, axis=-1) * own_dof / dof.sum()
    shared = np.where(ms_rest > 0, shared, n - 1.0)
    return StandardError(std, np.where(variance > 0, shared, alone)[()])


def pooled_spreads(table: Floats) -> StandardError:
    """The pooled standard deviation for every method whose variance is not larger than the others'.

    Args:
        table: Network means, shape (..., seeds n, methods m); NaN where a network is missing.

    Returns:
        `pooled_variance` for every method, shape (..., methods m); `UNKNOWN` for a method that
        keeps its own spread, because its variance exceeds the others' by more than the `ALIKE`
        quantile of F.
    """
    pooled = pooled_variance(table)
    dof = (~_missing(table)).sum(axis=0) - 1
    squares = np.nansum((table - np.nanmean(table, axis=-2, keepdims=True)) ** 2, axis=-2)
    rest, rest_dof = squares.sum(axis=-1, keepdims=True) - squares, dof.clip(0).sum() - dof
    is_alike = np.zeros(squares.shape, dtype=bool)
    alike = ALIKE_OF_TWO if np.sum(dof >= 1) == 2 else ALIKE
    for k in np.flatnonzero((dof >= 1) & (rest_dof >= 1)):
        limit = quantile(stats.f, alike, dof[k], rest_dof[k])
        is_alike[..., k] = squares[..., k] / dof[k] <= limit * rest[..., k] / rest_dof[k]
    return StandardError(
        np.where(is_alike, _floats(pooled.value)[..., None], np.nan),
        np.where(is_alike, _floats(pooled.dof)[..., None], 0.0),
    )


def of_difference(first: StandardError, second: StandardError) -> StandardError:
    """Standard error of the difference of two independent means (Welch 1947).

    Args:
        first: Standard error of one mean.
        second: Standard error of the other.

    Returns:
        The standard error with Welch's degrees of freedom; `UNKNOWN` if one of them is.
    """
    variances = [_floats(one.value) ** 2 for one in (first, second)]
    dofs = [_floats(one.dof) for one in (first, second)]
    is_known = (dofs[0] > 0) & (dofs[1] > 0)
    total = np.where(is_known, variances[0] + variances[1], np.nan)
    with np.errstate(divide="ignore", invalid="ignore"):
        dof = total**2 / (variances[0] ** 2 / dofs[0] + variances[1] ** 2 / dofs[1])
    dof = np.where(total == 0, dofs[0] + dofs[1], dof)
    return StandardError(np.sqrt(total)[()], np.where(is_known, dof, 0.0)[()])


def fewest_resampled(confidence: float) -> int:
    """Fewest values that a bootstrap interval needs: 10 up to 95 %, 12 above (our choice).

    From so many normal values on, by simulation, at most one interval in twenty has a side more
    than twice as long as Student's (of 5 values, one in twenty has one 6 times as long); see
    docs/STATISTICS.md.
    """
    return 10 if confidence <= 0.95 else 12


def can_be_resampled(values: Floats, confidence: float) -> bool:
    """Whether enough of the values differ for a bootstrap interval.

    All resampled values are equal with a probability of at most a tenth of that outside the
    interval.
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
    return float(_quantile(distribution, probability, *shape))


def t_quantile(probability: float, dof: Any) -> Any:
    """Student's quantile for any number of degrees of freedom; NaN for 0 or NaN of them."""
    distinct, place = np.unique(_floats(dof), return_inverse=True)
    factors = np.full(len(distinct), np.nan)
    is_known = distinct > 0
    if is_known.any():
        factors[is_known] = _quantile(stats.t, probability, distinct[is_known])
    return factors[place].reshape(np.shape(dof))[()]


def _quantile(distribution: Any, probability: float, *shape: Any) -> Any:
    x = distribution.ppf(probability, *shape)
    return x - (distribution.cdf(x, *shape) - probability) / distribution.pdf(x, *shape)


def _floats(values: Any) -> Floats:
    return np.asarray(values, dtype=float)


def _missing(table: Floats) -> NDArray[np.bool_]:
    """Where values are missing, shape (rows, columns), in all tables of a stack alike."""
    first: Floats = table.reshape(-1, *table.shape[-2:])[0]
    return np.isnan(first)


def _dof(values: Floats, dof: float, *, n_axes: int = 1) -> Floats:
    """The same degrees of freedom for all of a stack."""
    return np.full(values.shape[:-n_axes], float(dof))


def _unknown(shape: tuple[int, ...]) -> StandardError:
    return StandardError(np.full(shape, np.nan)[()], np.zeros(shape)[()])
