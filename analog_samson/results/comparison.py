"""Paired comparison of methods on the same chips, with corrected significance tests."""

import difflib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from analog_samson.methods import EXTERNAL
from analog_samson.results import spread
from analog_samson.results.definitions import COMPARED_UNDER, METHOD
from analog_samson.results.scale import Scale, is_logit, scales_of
from analog_samson.results.scores import score_of, with_score_of
from analog_samson.results.summary import FEW_NETWORKS, check_confidence, chip_means, typical_chips

GAIN_GROUP = (*COMPARED_UNDER[:-1], *METHOD, "baseline", "t_inference_s")

ENDPOINTS = ("gain", "lost")
"""What methods are compared by: accuracy, or the accuracy lost since the digital network."""


def paired_gain(
    rows: pd.DataFrame,
    baseline: str = "sgd",
    confidence: float = 0.95,
    *,
    pool: bool | None = None,
    endpoint: str = "gain",
    scale: Scale = "auto",
    primary: Mapping[str, Any] | None = None,
) -> pd.DataFrame:
    """Gain of each method over the baseline, on the same chips at the same time.

    The gain is the score of the method minus the baseline's, or the reverse where lower values
    are better.

    Rows that agree in `COMPARED_UNDER` are compared. Chips are paired by training seed and chip
    number: all methods share the random seeds of their chips (common random numbers), so that
    errors common to both cancel. Differences are averaged over reads, then chips, then networks;
    the interval is over networks. Imported networks (method "external") are not paired: they are
    compared by Welch's test.

    Args:
        rows: Rows of trials, or of chips (`chip_means`); filter them to one time to correct for
            fewer comparisons, or name a primary endpoint.
        baseline: A method, with its strength where it was trained with several ("sam rho=0.5").
        confidence: Probability with which an interval covers the true difference.
        pool: Whether the spread of the differences is pooled over the methods that are compared,
            as in `summarise`; None pools only where a method has 2 or 3 networks.
        endpoint: "gain" compares accuracies; "lost" compares what each network has lost of its own
            digital accuracy, so that differences of the digital networks cancel.
        scale: "accuracy", "logit" or "auto", as in `summarise`. On the logit scale typical chips
            are compared, see `typical_chips`.
        primary: The comparison named before the study (`Study.primary`), with the keys ``method``,
            ``device``, ``time_s`` and ``endpoint``; it is tested alone, the others under Holm.

    Returns:
        One row per group of the other methods: the columns of `GAIN_GROUP`, ``gain`` (fraction,
        or in the unit of the score; positive when the method is better), ``low``, ``high``,
        ``half_width``, ``confidence``, ``p_value`` (two-sided t test; NaN with fewer networks than
        `spread.FEWEST_TESTED`), ``p_holm`` (corrected over all rows but the primary one),
        ``significant`` (``p_holm < 1 - confidence``), ``is_primary``, ``level`` ("networks" or
        "chips only"), ``spread`` ("own", "pooled" or "floor"), ``paired``, ``n_networks``,
        ``n_chips`` (per network, the smallest), ``n_images_per_chip``, ``n_test``,
        ``extrapolated``, ``endpoint``, ``scale``.

    Raises:
        ValueError: If the baseline is not among the methods, or is there in several strengths, or
            endpoint or scale are unknown.

    Example:
        >>> gains = paired_gain(rows, baseline="sgd")
        >>> gains[["method", "t_inference_s", "n_networks", "paired"]].values.tolist()
        [['sam', 1.0, 3, True], ['sam', 3600.0, 3, True], ['sam', 2592000.0, 3, True]]
    """
    check_confidence(confidence)
    if endpoint not in ENDPOINTS:
        raise ValueError(f"The endpoint must be one of {list(ENDPOINTS)}; got {endpoint!r}.")
    chips = chip_means(rows)
    scales = scales_of(chips, scale)
    chips = _with_value(typical_chips(chips, scales), endpoint)
    reference = baseline_name(chips, baseline)
    samples = _Samples.of(chips)
    of_reference = np.flatnonzero(method_names(samples.firsts).to_numpy() == reference)[::-1]
    base_of_setting = np.full(samples.setting.max() + 1, -1)
    base_of_setting[samples.setting[of_reference]] = of_reference
    found, base = _compared(samples, base_of_setting, confidence, pool)
    gains = samples.firsts.iloc[found.index][[*COMPARED_UNDER, *METHOD]].reset_index(drop=True)
    gains = pd.concat([gains.assign(baseline=reference), found.reset_index(drop=True)], axis=1)
    for column in ("n_images_per_chip", "n_test"):
        gains[column] = samples.firsts[column].to_numpy()[base]
    is_late = np.bincount(samples.setting, samples.extrapolated) > 0
    gains["extrapolated"] = is_late[samples.setting[base]]
    gains["is_primary"] = _is_primary(gains, endpoint, primary)
    p = gains["p_value"].to_numpy(dtype=float)
    is_primary = gains["is_primary"].to_numpy(dtype=bool)
    gains["p_holm"] = np.where(is_primary, p, holm(np.where(is_primary, np.nan, p)))
    gains["significant"] = gains["p_holm"] < 1 - confidence
    gains["endpoint"], gains["scale"] = endpoint, score_of(chips).column
    gains["scale"] = gains["scale"].where(~is_logit(gains, scales), "logit")
    columns = [*GAIN_GROUP, "gain", "low", "high", "half_width", "confidence", "p_value", "p_holm"]
    columns += ["significant", "is_primary", "level", "spread", "paired", "n_networks", "n_chips"]
    columns += ["n_images_per_chip", "n_test", "extrapolated", "endpoint", "scale"]
    gains = gains.sort_values(list(GAIN_GROUP), ignore_index=True)
    return with_score_of(chips, gains[columns])


def best_methods(
    rows: pd.DataFrame,
    confidence: float = 0.95,
    *,
    pool: bool | None = None,
    scale: Scale = "auto",
) -> pd.DataFrame:
    """Find the best method of each comparison, and the methods tied with it.

    Methods whose rows agree in `COMPARED_UNDER` are compared. The method with the best mean is
    the best when it differs significantly from *every* other one (intersection-union test: the
    largest of its paired p-values), corrected by Holm over all comparisons. Otherwise the methods
    that are not significantly worse than it are tied. It is chosen by the data, so "worse" is
    corrected by Holm over all pairs of methods of all comparisons. Nothing is tested where a
    method has fewer networks than `spread.FEWEST_TESTED`.

    Args:
        rows: Rows of trials, or of chips (`chip_means`).
        confidence: One minus the probability of any false bold cell in the table, and of any
            method that is falsely not tied.
        pool: As in `paired_gain`, over the differences to the highest method.
        scale: As in `summarise`.

    Returns:
        One row per group: the columns of `GROUP`, ``is_best``,
        ``is_tied`` (both False where there is one method only, or nothing is tested), ``p_value``
        (of the difference to the highest; of the highest the largest of them), ``p_holm`` of the
        comparison, ``p_worse`` (corrected over all pairs; NaN for the highest).

    Example:
        >>> best = best_methods(rows[rows["t_inference_s"] == 3600.0])
        >>> best[["method", "is_best", "is_tied"]].to_dict("list")
        {'method': ['sgd', 'sam'], 'is_best': [False, False], 'is_tied': [True, True]}
    """
    check_confidence(confidence)
    chips = chip_means(rows)
    chips = _with_value(typical_chips(chips, scales_of(chips, scale)), "gain")
    samples = _Samples.of(chips)
    n_methods = np.bincount(samples.setting)
    ranked = np.lexsort((-samples.mean, samples.setting))
    leader = ranked[np.cumsum(n_methods) - n_methods]
    found, _ = _compared(samples, leader, confidence, pool)
    other = found.index.to_numpy()
    p, p_worse = np.full((2, len(samples.setting)), np.nan)
    p[other] = found["p_value"]
    is_untested = np.bincount(samples.setting[other], np.isnan(p[other]), len(leader)) > 0
    largest = np.zeros(len(leader))
    np.maximum.at(largest, samples.setting[other], np.nan_to_num(p[other]))
    p[leader] = np.where((n_methods > 1) & ~is_untested, largest, np.nan)
    n_pairs = int(np.sum(n_methods * (n_methods - 1) // 2))
    p_worse[other] = holm(p[other], n_tests=n_pairs)
    p_holm = holm(p[leader])[samples.setting]
    is_leader = np.isin(np.arange(len(p)), leader)
    alpha = 1 - confidence
    is_decided = p_holm < alpha
    marks = samples.firsts[[*COMPARED_UNDER, *METHOD]].assign(
        is_best=is_decided & is_leader,
        is_tied=~np.isnan(p_holm) & ~is_decided & ~(p_worse < alpha),
        p_value=p,
        p_holm=p_holm,
        p_worse=p_worse,
    )
    order = np.lexsort((~is_leader, samples.setting))
    kept = n_methods[samples.setting[order]] > 1
    return marks.iloc[order[kept]].reset_index(drop=True)


def holm(p_values: ArrayLike, *, n_tests: int | None = None) -> np.ndarray:
    """Holm's step-down correction for many comparisons (Holm 1979, Scand. J. Statist. 6, 65).

    Args:
        p_values: Raw p-values, shape (m,); NaN (no test was possible) stays NaN and is not counted.
        n_tests: Number of tests of the family where not all are given, those left out as if their
            p-value was 1; None counts the given ones.

    Returns:
        Corrected p-values, same shape: rejecting those below alpha keeps the probability of any
        false rejection below alpha, whatever the dependence between the tests.

    Example:
        >>> holm([0.01, 0.04, 0.03])
        array([0.03, 0.06, 0.06])
    """
    p = np.asarray(p_values, dtype=float)
    corrected = np.full(p.shape, np.nan)
    known = np.flatnonzero(~np.isnan(p))
    order = known[np.argsort(p[known], kind="stable")]
    factors = max(n_tests or 0, len(order)) - np.arange(len(order))
    corrected[order] = np.minimum(1.0, np.maximum.accumulate(factors * p[order]))
    return corrected


def method_names(rows: pd.DataFrame) -> "pd.Series[str]":
    """Method and strength as one name: "sam rho=0.5", "sgd"."""
    names = rows["method"].astype(str) + " " + rows["strength"].astype(str)
    return names.str.strip()


def baseline_name(rows: pd.DataFrame, baseline: str) -> str:
    """The method, with its strength, that a baseline names.

    Args:
        rows: Rows with ``method`` and ``strength``.
        baseline: A method, or a method with its strength.

    Returns:
        Method and strength as one name.

    Raises:
        ValueError: If there is none, or more than one.
    """
    rows = rows[list(METHOD)].drop_duplicates()
    names: list[str] = sorted(set(method_names(rows)))
    if baseline in names:
        return baseline
    kinds = sorted(set(method_names(rows[rows["method"] == baseline])))
    if len(kinds) == 1:
        return kinds[0]
    if kinds:
        raise ValueError(
            f"Baseline {baseline!r} is there in {len(kinds)} strengths; choose from {kinds}."
        )
    close = difflib.get_close_matches(baseline, names, n=1)
    hint = f" Did you mean {close[0]!r}?" if close else ""
    raise ValueError(f"Baseline {baseline!r} is not among the methods {names}.{hint}")


def _with_value(chips: pd.DataFrame, endpoint: str) -> pd.DataFrame:
    """Chips with the column ``value``: what is compared, its sign such that larger is better."""
    score = score_of(chips)
    value = chips[score.column]
    if endpoint == "lost":
        value = value - chips[score.digital]
    return chips.assign(value=value if score.is_higher_better else -value)


@dataclass(frozen=True)
class _Samples:
    """The chips of every method under every setting: one sample each, sorted, with a number.

    Attributes:
        of_chip: Sample of each chip.
        network: Number of the network of each chip.
        seed: Training seed of each chip.
        chip: Number of each chip within its network.
        programming_seed: Random seed of each chip.
        value: Score of each chip, its sign such that larger is better.
        firsts: First chip of each sample.
        setting: Number of the setting (`COMPARED_UNDER`) of each sample.
        mean: Mean of each sample, over networks of the means of their chips.
        resolution: Smallest difference of two scores of each sample.
        extrapolated: Whether the time of each sample is beyond the device's measurements.
    """

    of_chip: spread.Labels
    network: spread.Labels
    seed: spread.Labels
    chip: spread.Labels
    programming_seed: spread.Labels
    value: spread.Floats
    firsts: pd.DataFrame
    setting: spread.Labels
    mean: spread.Floats
    resolution: spread.Floats
    extrapolated: NDArray[np.bool_]

    @classmethod
    def of(cls, chips: pd.DataFrame) -> "_Samples":
        """The samples of chips with the column ``value``."""
        groups = chips.groupby([*COMPARED_UNDER, *METHOD], observed=True, sort=True)
        of_chip = groups.ngroup().to_numpy()
        firsts = chips.iloc[np.unique(of_chip, return_index=True)[1]]
        network = pd.factorize(chips["checkpoint"])[0]
        value = chips["value"].to_numpy(dtype=float)
        networks, of_network = np.unique(
            of_chip * (network.max() + 1) + network, return_inverse=True
        )
        means = np.bincount(of_network, value) / np.bincount(of_network)
        of_sample = networks // (network.max() + 1)
        sizes = np.bincount(of_chip)
        return cls(
            of_chip=of_chip,
            network=network,
            seed=chips["training_seed"].to_numpy(),
            chip=chips["chip"].to_numpy(),
            programming_seed=chips["programming_seed"].to_numpy(),
            value=value,
            firsts=firsts,
            setting=firsts.groupby(list(COMPARED_UNDER), observed=True).ngroup().to_numpy(),
            mean=np.bincount(of_sample, means) / np.bincount(of_sample),
            resolution=np.bincount(of_chip, chips["resolution"]) / sizes,
            extrapolated=np.bincount(of_chip, chips["extrapolated"]) > 0,
        )


def _is_primary(
    gains: pd.DataFrame, endpoint: str, primary: Mapping[str, Any] | None
) -> "pd.Series[bool]":
    """Which rows are the comparison that was named before the study."""
    if primary is None or primary["endpoint"] != endpoint:
        return pd.Series(False, index=gains.index)
    names, wanted = method_names(gains), str(primary["method"])
    is_method = (names == wanted) | (gains["method"] == wanted)
    is_time = np.isclose(gains["t_inference_s"].to_numpy(dtype=float), primary["time_s"], rtol=1e-9)
    is_device = (gains["device"] == primary["device"]).to_numpy(dtype=bool)
    found = is_method.to_numpy(dtype=bool) & is_device & is_time
    return pd.Series(found & (found.sum() == 1), index=gains.index)  # of several none was named


def _compared(
    samples: _Samples, base_of_setting: spread.Labels, confidence: float, pool: bool | None
) -> tuple[pd.DataFrame, spread.Labels]:
    """Differences of the samples of every setting to one of them.

    Args:
        samples: The samples.
        base_of_setting: The sample of each setting to compare with; -1 for none.
        confidence: Probability with which an interval covers the true difference.
        pool: As in `paired_gain`.

    Returns:
        One row per sample, by its number, with the columns of `paired_gain` that depend on it
        alone; and the sample that each is compared with.
    """
    base = base_of_setting[samples.setting]
    base[base == np.arange(len(base))] = -1
    found = _Differences.of(len(base))
    differences = _pair(samples, base, found)
    _compare_means(samples, base, found)
    if pool is not False:
        _pool(samples, found, differences, FEW_NETWORKS if pool is None else None)
    own = np.flatnonzero(base >= 0)
    gain, n_networks = found.gain[own], found.n_networks[own]
    error = spread.StandardError(found.error[own], found.dof[own])
    half_width = error.half_width(confidence)
    is_tested = n_networks >= spread.FEWEST_TESTED
    rows = {
        "gain": gain,
        "low": gain - half_width,
        "high": gain + half_width,
        "half_width": half_width,
        "confidence": confidence,
        "p_value": np.where(is_tested, error.p_value(gain), np.nan),
        "level": np.where(n_networks > 1, "networks", "chips only"),
        "spread": found.kind[own],
        "paired": found.paired[own],
        "n_networks": n_networks,
        "n_chips": found.n_chips[own],
    }
    return pd.DataFrame(rows, index=own), base[own]


@dataclass(frozen=True)
class _Differences:
    """Differences of samples to the one that each is compared with, one value per sample.

    Attributes:
        gain: Mean difference.
        error: Its standard error.
        dof: Degrees of freedom of the standard error.
        floor: Smallest standard error (`spread.floor_of`).
        kind: Where the standard error comes from: "own", "pooled" or "floor".
        paired: Whether chips are paired.
        n_networks: Networks of the difference.
        n_chips: Chips per network, the smallest.
    """

    gain: spread.Floats
    error: spread.Floats
    dof: spread.Floats
    floor: spread.Floats
    kind: NDArray[np.object_]
    paired: NDArray[np.bool_]
    n_networks: spread.Labels
    n_chips: spread.Labels

    @classmethod
    def of(cls, n: int) -> "_Differences":
        """Room for n differences."""
        gain, error, dof, floor = np.full((4, n), np.nan)
        n_networks, n_chips = np.zeros((2, n), dtype=np.int64)
        kind, paired = np.full(n, "own", dtype=object), np.zeros(n, dtype=bool)
        return cls(gain, error, dof, floor, kind, paired, n_networks, n_chips)


def _pair(
    samples: _Samples, base: spread.Labels, found: _Differences
) -> tuple[spread.Labels, spread.Labels, spread.Floats]:
    """Differences of chips with the same training seed, number and random seed.

    Returns:
        Sample, training seed and mean difference of each network that shares no chips.
    """
    is_external = (samples.firsts["method"] == EXTERNAL).to_numpy()
    can_pair = (base >= 0) & ~is_external & ~is_external[base]
    labels = [samples.seed, samples.chip, samples.programming_seed]
    label = pd.DataFrame(dict(enumerate(labels))).groupby([0, 1, 2]).ngroup().to_numpy()
    name = samples.of_chip * (label.max() + 1) + label
    order = np.argsort(name)
    mine = np.flatnonzero(can_pair[samples.of_chip])
    wanted = base[samples.of_chip[mine]] * (label.max() + 1) + label[mine]
    at = order[np.searchsorted(name[order], wanted).clip(max=len(order) - 1)]
    mine, theirs = mine[name[at] == wanted], at[name[at] == wanted]
    parts = []
    for tables, error, floor, shares_chips in _errors(
        samples.of_chip[mine],
        samples.seed[mine],
        samples.chip[mine],
        samples.programming_seed[mine],
        samples.value[mine] - samples.value[theirs],
        np.hypot(samples.resolution, samples.resolution[base]),
    ):
        own, means = tables.groups, spread.means_of(tables.values)
        found.gain[own] = means.mean(axis=1)
        found.error[own], found.dof[own], found.floor[own] = error.value, error.dof, floor
        found.kind[own] = np.where(error.value <= floor, "floor", "own")
        found.paired[own] = True
        found.n_networks[own], found.n_chips[own] = _sizes(tables)
        if means.shape[1] > 1 and not shares_chips:
            parts.append((np.repeat(own, means.shape[1]), tables.rows.ravel(), means.ravel()))
    if not parts:
        return np.empty(0, dtype=np.int64), np.empty(0, dtype=np.int64), np.empty(0)
    sample, seed, mean = (np.concatenate(part) for part in zip(*parts, strict=True))
    return sample, seed, mean


def _compare_means(samples: _Samples, base: spread.Labels, found: _Differences) -> None:
    """Differences of means, where no chips are paired (Welch's test)."""
    unpaired = np.flatnonzero((base >= 0) & ~found.paired)
    if len(unpaired) == 0:
        return
    base = base[unpaired]
    own = np.isin(samples.of_chip, np.concatenate([unpaired, base]))
    alone = _Differences.of(len(samples.setting))
    for tables, error, _, _ in _errors(
        samples.of_chip[own],
        samples.network[own],
        samples.chip[own],
        samples.programming_seed[own],
        samples.value[own],
        samples.resolution,
    ):
        k = tables.groups
        alone.error[k], alone.dof[k] = error.value, error.dof
        alone.n_networks[k], alone.n_chips[k] = _sizes(tables)
    error = spread.of_difference(
        *(spread.StandardError(alone.error[k], alone.dof[k]) for k in (unpaired, base))
    )
    found.gain[unpaired] = samples.mean[unpaired] - samples.mean[base]
    found.error[unpaired], found.dof[unpaired] = error.value, error.dof
    fewer = np.where(alone.n_networks[unpaired] <= alone.n_networks[base], unpaired, base)
    found.n_networks[unpaired], found.n_chips[unpaired] = (
        alone.n_networks[fewer],
        alone.n_chips[fewer],
    )


def _errors(
    sample: spread.Labels,
    row: spread.Labels,
    chip: spread.Labels,
    programming_seed: spread.Labels,
    values: spread.Floats,
    resolution: spread.Floats,
) -> Iterator[tuple[spread.Tables, spread.StandardError, spread.Floats, bool]]:
    """Tables of samples, their standard errors and floors, and whether networks share chips.

    Args:
        sample: Sample of each value.
        row: Network of each value.
        chip: Number of each value's chip.
        programming_seed: Random seed of each value's chip.
        values: The values.
        resolution: Smallest difference of two values of each sample.
    """
    seeds, seed = np.unique(programming_seed, return_inverse=True)
    of_chips = np.unique(sample * len(seeds) + seed) // max(len(seeds), 1)
    shares = np.bincount(of_chips, minlength=len(resolution)) < np.bincount(
        sample, minlength=len(resolution)
    )
    for shares_chips, column in ((False, chip), (True, programming_seed)):
        own = shares[sample] == shares_chips
        for tables in spread.tables_of(sample[own], row[own], column[own], values[own]):
            table, step = tables.values, resolution[tables.groups]
            error = spread.of_networks(table, shares_chips=shares_chips, resolution=step)
            floor = spread.floor_of(table, shares_chips=shares_chips, resolution=step)
            yield tables, error, floor, shares_chips


def _sizes(tables: spread.Tables) -> tuple[int, int]:
    """Number of networks, and smallest number of chips of one, of tables of one shape."""
    return tables.values.shape[1], int((~np.isnan(tables.values[0])).sum(axis=1).min())


def _pool(
    samples: _Samples,
    found: _Differences,
    differences: tuple[spread.Labels, spread.Labels, spread.Floats],
    few: int | None,
) -> None:
    """Replace the spread of few differences by the one pooled over the methods compared."""
    sample, seed, mean = differences
    for tables in spread.tables_of(samples.setting[sample], seed, sample, mean):
        pooled, own = spread.pooled_spreads(tables.values), tables.columns
        n = found.n_networks[own]
        is_better = (pooled.dof > n - 1) & ((n < few) if few is not None else True)
        own, n = own[is_better], n[is_better]
        error = pooled.value[is_better] / np.sqrt(n)
        floor = found.floor[own]
        is_pooled = error >= floor * (1 - spread.ROUNDING)
        found.error[own], found.dof[own] = np.maximum(error, floor), pooled.dof[is_better]
        found.kind[own] = np.where(is_pooled, "pooled", "floor")
