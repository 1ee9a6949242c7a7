"""Paired comparison of methods on the same chips, with corrected significance tests."""

import difflib
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from analog_samson.methods import EXTERNAL
from analog_samson.results import spread
from analog_samson.results.definitions import COMPARED_UNDER, METHOD
from analog_samson.results.scale import check_scale, to_scale
from analog_samson.results.scores import score_of, with_score_of
from analog_samson.results.summary import FEW_NETWORKS, check_confidence, chip_means

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
    scale: str = "accuracy",
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
        scale: "accuracy", or "logit": differences of ``log(accuracy / error)``, see `summarise`.
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
    """
    check_confidence(confidence)
    if endpoint not in ENDPOINTS:
        raise ValueError(f"The endpoint must be one of {list(ENDPOINTS)}; got {endpoint!r}.")
    chips = _with_value(chip_means(rows), scale, endpoint)
    reference = baseline_name(chips, baseline)
    records = []
    for settings, samples in _cells(chips):
        base = samples.pop(next((key for key in samples if _name(key) == reference), ("",)), None)
        if base is None:
            continue
        here = []
        for method, sample in samples.items():
            row = dict(zip(COMPARED_UNDER, settings, strict=True))
            row.update(zip(METHOD, method, strict=True))
            row["baseline"] = reference
            row.update(_compare(sample, base, confidence))
            row["n_images_per_chip"], row["n_test"] = base.n_images_per_chip, base.n_test
            row["extrapolated"] = base.extrapolated or any(s.extrapolated for s in samples.values())
            here.append(row)
        if pool is not False:
            _pool(here, confidence, FEW_NETWORKS if pool is None else None)
        records += here
    columns = [*GAIN_GROUP, "gain", "low", "high", "half_width", "confidence", "p_value", "p_holm"]
    columns += ["significant", "is_primary", "level", "spread", "paired", "n_networks", "n_chips"]
    columns += ["n_images_per_chip", "n_test", "extrapolated"]
    gains = pd.DataFrame(records, columns=columns)
    gains["is_primary"] = _is_primary(gains, endpoint, primary)
    p = gains["p_value"].to_numpy(dtype=float)
    is_primary = gains["is_primary"].to_numpy(dtype=bool)
    gains["p_holm"] = np.where(is_primary, p, holm(np.where(is_primary, np.nan, p)))
    gains["significant"] = gains["p_holm"] < 1 - confidence
    gains["endpoint"], gains["scale"] = endpoint, scale
    return with_score_of(chips, gains.sort_values(list(GAIN_GROUP), ignore_index=True))


def best_methods(
    rows: pd.DataFrame,
    confidence: float = 0.95,
    *,
    pool: bool | None = None,
    scale: str = "accuracy",
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
    """
    check_confidence(confidence)
    chips = _with_value(chip_means(rows), scale)
    cells: list[tuple[tuple[Any, ...], list[tuple[str, ...]], list[float]]] = []
    n_pairs = 0
    for settings, samples in _cells(chips):
        if len(samples) < 2:
            continue
        means = {key: sample.mean for key, sample in samples.items()}
        leader = max(means, key=means.__getitem__)
        others = [key for key in samples if key != leader]
        compared = [_compare(samples[leader], samples[other], confidence) for other in others]
        if pool is not False:
            _pool(compared, confidence, FEW_NETWORKS if pool is None else None)
        p = [row["p_value"] for row in compared]
        n_pairs += len(samples) * (len(samples) - 1) // 2
        cells.append(
            (settings, [leader, *others], [max(p) if all(v == v for v in p) else math.nan, *p])
        )
    alpha = 1 - confidence
    p_cells = holm([p[0] for _, _, p in cells])
    p_worse = iter(holm([v for _, _, p in cells for v in p[1:]], n_tests=n_pairs))
    records = []
    for (settings, keys, p), p_cell in zip(cells, p_cells, strict=True):
        is_decided = bool(p_cell < alpha)
        worse = [math.nan, *(next(p_worse) for _ in p[1:])]
        is_tested = not math.isnan(p_cell)
        for place, key in enumerate(keys):
            row = dict(zip(COMPARED_UNDER, settings, strict=True))
            row.update(zip(METHOD, key, strict=True))
            row["is_best"] = is_decided and place == 0
            row["is_tied"] = is_tested and not is_decided and not worse[place] < alpha
            row.update(p_value=p[place], p_holm=p_cell, p_worse=worse[place])
            records.append(row)
    columns = [*COMPARED_UNDER, *METHOD, "is_best", "is_tied", "p_value", "p_holm", "p_worse"]
    return pd.DataFrame(records, columns=columns)


def holm(p_values: ArrayLike, *, n_tests: int | None = None) -> np.ndarray:
    """Holm's step-down correction for many comparisons (Holm 1979, Scand. J. Statist. 6, 65).

    Args:
        p_values: Raw p-values, shape (m,); NaN (no test was possible) stays NaN and is not counted.
        n_tests: Number of tests of the family where not all are given, those left out as if their
            p-value was 1; None counts the given ones.

    Returns:
        Corrected p-values, same shape: rejecting those below alpha keeps the probability of any
        false rejection below alpha, whatever the dependence between the tests.
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


def _with_value(chips: pd.DataFrame, scale: str, endpoint: str = "gain") -> pd.DataFrame:
    """Chips with the column ``value``: what is compared, its sign such that larger is better."""
    check_scale(scale, score_of(chips))
    chips = to_scale(chips, scale)
    score = score_of(chips)
    value = chips[score.column]
    if endpoint == "lost":
        value = value - chips[score.digital]
    return chips.assign(value=value if score.is_higher_better else -value)


@dataclass(frozen=True)
class _Sample:
    """The chips of one method under one setting.

    Attributes:
        network: Number of the network of each chip.
        seed: Training seed of each chip.
        chip: Number of each chip within its network.
        programming_seed: Random seed of each chip.
        value: Score of each chip, its sign such that larger is better.
        resolution: Smallest difference of two scores.
        is_external: Whether the networks come from elsewhere.
        n_images_per_chip: Images that each chip was evaluated on.
        n_test: Test images of the study.
        extrapolated: Whether the time is beyond the device's measurements.
    """

    network: NDArray[np.int64]
    seed: NDArray[np.int64]
    chip: NDArray[np.int64]
    programming_seed: NDArray[np.int64]
    value: spread.Floats
    resolution: float
    is_external: bool
    n_images_per_chip: int
    n_test: int
    extrapolated: bool

    @property
    def mean(self) -> float:
        """Mean over networks of the means of their chips."""
        numbers = np.unique(self.network, return_inverse=True)[1]
        means = np.bincount(numbers, self.value) / np.bincount(numbers)
        return float(means.mean())


def _cells(
    chips: pd.DataFrame,
) -> Iterator[tuple[tuple[Any, ...], dict[tuple[str, ...], _Sample]]]:
    """Settings under which methods are compared, and the chips of each method."""
    code = chips.groupby([*COMPARED_UNDER, *METHOD], observed=True, sort=True).ngroup().to_numpy()
    rank = np.argsort(code, kind="stable")
    begins = np.flatnonzero(np.diff(code[rank], prepend=-1))
    firsts = chips.iloc[rank[begins]]
    columns = {
        "network": pd.factorize(chips["checkpoint"])[0],
        "seed": chips["training_seed"].to_numpy(),
        "chip": chips["chip"].to_numpy(),
        "programming_seed": chips["programming_seed"].to_numpy(),
        "value": chips["value"].to_numpy(dtype=float),
    }
    late = chips["extrapolated"].to_numpy(dtype=bool)
    resolution = chips["resolution"].to_numpy(dtype=float)
    settings = list(firsts[list(COMPARED_UNDER)].itertuples(index=False, name=None))
    methods = list(firsts[list(METHOD)].itertuples(index=False, name=None))
    sizes = firsts[["n_images_per_chip", "n_test"]].to_numpy()
    here: dict[tuple[str, ...], _Sample] = {}
    for k, own in enumerate(np.split(rank, begins[1:])):
        here[methods[k]] = _Sample(
            **{name: values[own] for name, values in columns.items()},
            resolution=float(resolution[own].mean()),
            is_external=methods[k][0] == EXTERNAL,
            n_images_per_chip=sizes[k, 0],
            n_test=sizes[k, 1],
            extrapolated=bool(late[own].any()),
        )
        if k + 1 == len(settings) or settings[k + 1] != settings[k]:
            yield settings[k], here
            here = {}


def _name(method: Sequence[str]) -> str:
    return " ".join(method).strip()


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
    return pd.Series(is_method.to_numpy(dtype=bool) & is_device & is_time, index=gains.index)


def _error(
    rows: NDArray[np.int64],
    chip: NDArray[np.int64],
    programming_seed: NDArray[np.int64],
    values: spread.Floats,
    resolution: float,
) -> tuple[spread.StandardError, spread.Floats, bool]:
    """Standard error of the mean, its table, and whether networks share their chips."""
    shares_chips = len(np.unique(programming_seed)) < len(values)
    table = spread.table_of(rows, programming_seed if shares_chips else chip, values)
    error = spread.of_networks(table, shares_chips=shares_chips, resolution=resolution)
    return error, table, shares_chips


def _compare(sample: _Sample, base: _Sample, confidence: float) -> dict[str, Any]:
    resolution = math.hypot(sample.resolution, base.resolution)
    if not (sample.is_external or base.is_external):
        key, other = (
            np.stack([s.seed, s.chip, s.programming_seed], axis=1) for s in (sample, base)
        )
        mine, theirs = _matching(key, other)
        if len(mine):
            difference = sample.value[mine] - base.value[theirs]
            seed, chip, programming_seed = key[mine].T
            error, table, shared = _error(seed, chip, programming_seed, difference, resolution)
            row = _row(error, table, float(spread.means_of(table).mean()), confidence, paired=True)
            floor = spread.floor_of(table, resolution=resolution, shares_chips=shared)
            if error.value <= floor:
                row["spread"] = "floor"
            if len(table) > 1 and not shared:
                means = spread.means_of(table)
                row |= {"differences": (np.unique(seed), means), "floor": floor}
            return row
    (error, table, _), (other_error, other_table, _) = (
        _error(s.network, s.chip, s.programming_seed, s.value, s.resolution) for s in (sample, base)
    )
    error = spread.of_difference(error, other_error)
    gain = sample.mean - base.mean
    fewer = min(table, other_table, key=len)
    return _row(error, fewer, gain, confidence, paired=False)


def _matching(
    first: NDArray[np.int64], second: NDArray[np.int64]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Positions of the rows that two tables have in common; every row is there once."""
    if np.array_equal(first, second):
        everything = np.arange(len(first))
        return everything, everything
    place = {tuple(row): k for k, row in enumerate(second.tolist())}
    pairs = [(k, place[row]) for k, row in enumerate(map(tuple, first.tolist())) if row in place]
    both = np.array(pairs, dtype=np.int64).reshape(-1, 2)
    return both[:, 0], both[:, 1]


def _pool(rows: list[dict[str, Any]], confidence: float, few: int | None) -> None:
    """Replace the spread of few differences by the one pooled over the methods compared."""
    differences = {k: row["differences"] for k, row in enumerate(rows) if "differences" in row}
    if len(differences) < 2:
        return
    places = [np.full(len(means), k) for k, (_, means) in differences.items()]
    seeds, values = (np.concatenate(part) for part in zip(*differences.values(), strict=True))
    spreads = spread.pooled_spreads(spread.table_of(seeds, np.concatenate(places), values))
    for (k, (_, means)), pooled in zip(differences.items(), spreads, strict=True):
        n = len(means)
        if n > 1 and (few is None or n < few) and pooled.dof > n - 1:
            error = spread.StandardError(pooled.value / math.sqrt(n), pooled.dof)
            kind = "pooled" if error.value >= rows[k]["floor"] * (1 - spread.ROUNDING) else "floor"
            error = error.at_least(rows[k]["floor"])
            rows[k].update(_uncertainty(rows[k]["gain"], error, n, confidence), spread=kind)


def _row(
    error: spread.StandardError,
    table: spread.Floats,
    gain: float,
    confidence: float,
    *,
    paired: bool,
) -> dict[str, Any]:
    n_networks = len(table)
    return {
        "gain": gain,
        **_uncertainty(gain, error, n_networks, confidence),
        "confidence": confidence,
        "level": "networks" if n_networks > 1 else "chips only",
        "spread": "own",
        "paired": paired,
        "n_networks": n_networks,
        "n_chips": int((~np.isnan(table)).sum(axis=1).min()),
    }


def _uncertainty(
    gain: float, error: spread.StandardError, n_networks: int, confidence: float
) -> dict[str, float]:
    half_width = error.half_width(confidence)
    is_tested = n_networks >= spread.FEWEST_TESTED
    return {
        "low": gain - half_width,
        "high": gain + half_width,
        "half_width": half_width,
        "p_value": error.p_value(gain) if is_tested else math.nan,
    }
