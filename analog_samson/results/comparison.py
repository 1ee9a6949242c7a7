"""Paired comparison of methods on the same chips, with corrected significance tests."""

import difflib
import math
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike

from analog_samson.methods import EXTERNAL
from analog_samson.results import spread
from analog_samson.results.definitions import COMPARED_UNDER, METHOD
from analog_samson.results.scores import score_of, with_score_of
from analog_samson.results.summary import FEW_NETWORKS, chip_means

GAIN_GROUP = (*COMPARED_UNDER[:-1], *METHOD, "baseline", "t_inference_s")


def paired_gain(
    rows: pd.DataFrame,
    baseline: str = "sgd",
    confidence: float = 0.95,
    *,
    pool: bool | None = None,
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
        rows: Rows of trials, or of chips (`chip_means`); filter them to one time (the primary
            endpoint) to correct for fewer comparisons.
        baseline: A method, with its strength where it was trained with several ("sam rho=0.5").
        confidence: Probability with which an interval covers the true difference.
        pool: Whether the spread of the differences is pooled over the methods that are compared,
            as in `summarise`; None pools only where a method has 2 or 3 networks.

    Returns:
        One row per group of the other methods: the columns of `GAIN_GROUP`, ``gain`` (fraction,
        or in the unit of the score; positive when the method is better), ``low``, ``high``,
        ``half_width``, ``confidence``, ``p_value`` (two-sided t test), ``p_holm`` (corrected over
        all rows), ``significant`` (``p_holm < 1 - confidence``, and more than one network),
        ``level`` ("networks" or "chips only"), ``spread`` ("own" or "pooled"), ``paired``,
        ``n_networks``, ``n_chips`` (per network, the smallest), ``n_images_per_chip``, ``n_test``,
        ``extrapolated``.

    Raises:
        ValueError: If the baseline is not among the methods, or is there in several strengths.
    """
    if not 0 < confidence < 1:
        raise ValueError(f"Confidence must be between 0 and 1, such as 0.95; got {confidence!r}.")
    chips = _with_value(chip_means(rows))
    chips["name"] = method_names(chips)
    reference = baseline_name(chips, baseline)
    records = []
    for settings, group in chips.groupby(list(COMPARED_UNDER), observed=True, sort=True):
        base = group[group["name"] == reference]
        if base.empty:
            continue
        here = []
        for method, others in group[group["name"] != reference].groupby(
            list(METHOD), observed=True
        ):
            row = dict(zip(COMPARED_UNDER, settings, strict=True))
            row.update(zip(METHOD, method, strict=True))
            row["baseline"] = reference
            row.update(_compare(others, base, confidence))
            row["n_images_per_chip"], row["n_test"] = (
                group["n_images_per_chip"].iloc[0],
                group["n_test"].iloc[0],
            )
            row["extrapolated"] = bool(group["extrapolated"].any())
            here.append(row)
        if pool is not False:
            _pool(here, confidence, FEW_NETWORKS if pool is None else None)
        records += here
    columns = [*GAIN_GROUP, "gain", "low", "high", "half_width", "confidence", "p_value", "p_holm"]
    columns += ["significant", "level", "spread", "paired", "n_networks", "n_chips"]
    columns += ["n_images_per_chip", "n_test", "extrapolated"]
    gains = pd.DataFrame(records, columns=columns)
    gains["p_holm"] = holm(gains["p_value"].to_numpy(dtype=float))
    gains["significant"] = (gains["p_holm"] < 1 - confidence) & (gains["level"] == "networks")
    return with_score_of(chips, gains.sort_values(list(GAIN_GROUP), ignore_index=True))


def best_methods(rows: pd.DataFrame, confidence: float = 0.95) -> pd.DataFrame:
    """Find the best method of each comparison, and the methods tied with it.

    Methods whose rows agree in `COMPARED_UNDER` are compared. The method with the best mean is
    the best when it differs significantly from *every* other one (intersection-union test: the
    largest of its paired p-values), corrected by Holm over all comparisons. Otherwise the methods
    that are not significantly worse than it are tied.

    Args:
        rows: Rows of trials, or of chips (`chip_means`).
        confidence: One minus the probability of any false bold cell in the table.

    Returns:
        One row per group: the columns of `GROUP`, ``is_best``,
        ``is_tied`` (both False where there is one method only), ``p_holm`` of the
        comparison.
    """
    chips = _with_value(chip_means(rows))
    cells, p_cells = [], []
    for settings, group in chips.groupby(list(COMPARED_UNDER), observed=True, sort=True):
        networks = group.groupby([*METHOD, "checkpoint"], observed=True)["value"].mean()
        means = networks.groupby(list(METHOD), observed=True).mean()
        if len(means) < 2:
            continue
        parts = {key: part for key, part in group.groupby(list(METHOD), observed=True)}  # noqa: C416
        leader = list(parts)[int(means.to_numpy().argmax())]
        p = {leader: float("nan")}
        over_networks = True
        for key, part in parts.items():
            if key != leader:
                compared = _compare(parts[leader], part, confidence)
                p[key] = compared["p_value"]
                over_networks &= compared["level"] == "networks"
        worst = max(value if value == value else 1.0 for key, value in p.items() if key != leader)
        p_cells.append(worst if over_networks else 1.0)
        cells.append((settings, leader, p))
    corrected = holm(p_cells)
    records = []
    for (settings, leader, p), p_cell in zip(cells, corrected, strict=True):
        is_decided = bool(p_cell < 1 - confidence)
        for key, value in p.items():
            row = dict(zip(COMPARED_UNDER, settings, strict=True))
            row.update(zip(METHOD, key, strict=True))
            row["is_best"] = is_decided and key == leader
            is_close = key == leader or not value * len(cells) < 1 - confidence
            row["is_tied"] = not is_decided and is_close
            row["p_holm"] = p_cell
            records.append(row)
    columns = [*COMPARED_UNDER, *METHOD, "is_best", "is_tied", "p_holm"]
    return pd.DataFrame(records, columns=columns)


def holm(p_values: ArrayLike) -> np.ndarray:
    """Holm's step-down correction for many comparisons (Holm 1979, Scand. J. Statist. 6, 65).

    Args:
        p_values: Raw p-values, shape (m,); NaN (no test was possible) stays NaN and is not counted.

    Returns:
        Corrected p-values, same shape: rejecting those below alpha keeps the probability of any
        false rejection below alpha, whatever the dependence between the tests.
    """
    p = np.asarray(p_values, dtype=float)
    corrected = np.full(p.shape, np.nan)
    known = np.flatnonzero(~np.isnan(p))
    order = known[np.argsort(p[known], kind="stable")]
    factors = np.arange(len(order), 0, -1)
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


def _with_value(chips: pd.DataFrame) -> pd.DataFrame:
    """Add the column ``value``: the score, its sign such that larger is better."""
    score = score_of(chips)
    value = chips[score.column]
    return chips.assign(value=value if score.is_higher_better else -value)


def _compare(chips: pd.DataFrame, base: pd.DataFrame, confidence: float) -> dict[str, Any]:
    external = EXTERNAL in (chips["method"].iloc[0], base["method"].iloc[0])
    if not external:
        pairs = chips.merge(base, on=["training_seed", "chip"], suffixes=("", "_base"))
        pairs = pairs[pairs["programming_seed"] == pairs["programming_seed_base"]]
        if len(pairs):
            return _paired(pairs, confidence)
    first = chips.groupby("checkpoint", observed=True)["value"].agg(["mean", "size"])
    second = base.groupby("checkpoint", observed=True)["value"].agg(["mean", "size"])
    gain = float(first["mean"].mean() - second["mean"].mean())
    n_networks = min(len(first), len(second))
    if n_networks > 1:
        error = spread.welch(first["mean"].to_numpy(), second["mean"].to_numpy())
    else:
        error = spread.welch(chips["value"].to_numpy(), base["value"].to_numpy())
    n_chips = int(min(first["size"].min(), second["size"].min()))
    return _row(gain, error, confidence, n_networks, n_chips, paired=False)


def _paired(pairs: pd.DataFrame, confidence: float) -> dict[str, Any]:
    pairs = pairs.assign(difference=pairs["value"] - pairs["value_base"])
    networks = pairs.groupby("training_seed", observed=True)["difference"].agg(["mean", "size"])
    gain = float(networks["mean"].mean())
    is_nested = False
    if len(networks) == 1:
        error = spread.of_independent(pairs["difference"].to_numpy())
    elif pairs["programming_seed"].nunique() < len(pairs):
        table = pairs.pivot(index="training_seed", columns="programming_seed", values="difference")
        error = spread.of_shared_chips(table.to_numpy())
    else:
        is_nested = True
        error = spread.of_independent(networks["mean"].to_numpy())
    row = _row(gain, error, confidence, len(networks), int(networks["size"].min()), paired=True)
    if is_nested:
        row["differences"] = networks["mean"]
    return row


def _pool(rows: list[dict[str, Any]], confidence: float, few: int | None) -> None:
    """Replace the spread of few differences by the one pooled over the methods compared."""
    differences = {k: row["differences"] for k, row in enumerate(rows) if "differences" in row}
    if len(differences) < 2:
        return
    spreads = spread.pooled_spreads(pd.DataFrame(differences).to_numpy())
    for (k, values), pooled in zip(differences.items(), spreads, strict=True):
        n = len(values)
        if n > 1 and (few is None or n < few) and pooled.dof > n - 1:
            error = spread.StandardError(pooled.value / math.sqrt(n), pooled.dof)
            rows[k].update(_uncertainty(rows[k]["gain"], error, confidence), spread="pooled")


def _row(
    gain: float,
    error: spread.StandardError,
    confidence: float,
    n_networks: int,
    n_chips: int,
    *,
    paired: bool,
) -> dict[str, Any]:
    return {
        "gain": gain,
        **_uncertainty(gain, error, confidence),
        "confidence": confidence,
        "level": "networks" if n_networks > 1 else "chips only",
        "spread": "own",
        "paired": paired,
        "n_networks": n_networks,
        "n_chips": n_chips,
    }


def _uncertainty(gain: float, error: spread.StandardError, confidence: float) -> dict[str, float]:
    half_width = error.half_width(confidence)
    return {
        "low": gain - half_width,
        "high": gain + half_width,
        "half_width": half_width,
        "p_value": error.p_value(gain),
    }
