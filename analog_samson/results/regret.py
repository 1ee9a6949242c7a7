"""Which method to choose: the best one of every cell, and what a choice costs elsewhere.

A cell is one setting under which methods are compared (`COMPARED_UNDER`: task, device,
compensation, time). The regret of a method in a cell is how far its score is behind that of the
best method there. The method with the smallest largest regret over many cells is Savage's choice
(1951, J. Am. Stat. Assoc. 46, 55).

The best of many methods is chosen by the data that its gain is computed from. Its interval is
therefore one of Bonferroni's simultaneous intervals over all methods of the cell, which covers
whichever is chosen; the gain itself is too large on average, see `held_out_gains`.
"""

import itertools
from collections.abc import Iterable, Iterator

import numpy as np
import pandas as pd

from analog_samson.methods import EXTERNAL
from analog_samson.results import spread
from analog_samson.results.comparison import baseline_name, holm, method_names, paired_gain
from analog_samson.results.definitions import COMPARED_UNDER, METHOD
from analog_samson.results.scale import Scale, scales_of
from analog_samson.results.scores import score_of, with_score_of
from analog_samson.results.summary import check_confidence, chip_means, summarise, typical_chips
from analog_samson.results.variants import TASK

CELL = list(COMPARED_UNDER)

DRAWS = 2000
"""Resamples of networks: our choice; a share of 50 % has a standard error of 1.1 points."""

_SAME_CHIP = [*CELL, "training_seed", "chip", "programming_seed"]


def winners(
    rows: pd.DataFrame,
    baseline: str = "sgd",
    confidence: float = 0.95,
    *,
    pool: bool | None = None,
    scale: Scale = "auto",
) -> pd.DataFrame:
    """The best method of every cell, its gain over the baseline, and whether it is decided.

    Args:
        rows: Rows of trials, or of chips (`chip_means`); the strengths of tasks must agree (see
            `with_variants`).
        baseline: A method, with its strength where it was trained with several.
        confidence: Probability with which the interval of a cell covers the true gain of the method
            chosen there; one minus the probability of any cell that is falsely decided.
        pool: As in `paired_gain`.
        scale: As in `summarise`.

    Returns:
        One row per cell: the columns of `COMPARED_UNDER`, method and strength of the best,
        ``baseline``, ``best_mean`` (its mean score, as `summarise` gives), ``gain`` (positive is
        better; 0 where the baseline is the best), ``low``,
        ``high``, ``half_width`` (simultaneous over the methods of the cell; NaN for the baseline
        itself), ``n_methods``, ``runner_up`` (name; "" for one method) and ``margin`` (to it),
        ``p_value`` (largest over all others, paired t tests; NaN where nothing can be tested),
        ``p_holm`` (corrected over the cells), ``is_decided``, ``n_tied`` (other methods that are
        not significantly worse, Holm over all pairs; 0 where the best is decided or nothing is
        tested), ``is_tested``, ``n_networks`` and ``n_chips`` (the smallest), ``level``,
        ``spread``, ``scale``, ``extrapolated``, ``confidence``.

    Raises:
        ValueError: If the baseline is not there, or some networks have no training method.

    Example:
        >>> best = winners(rows[rows["t_inference_s"] == 3600.0])
        >>> best[["n_methods", "n_networks", "n_chips", "is_tested"]].values.tolist()
        [[2, 3, 2, True]]
    """
    chips, scales, reference = _prepared(rows, baseline, confidence, scale)
    gains = simultaneous_gains(chips, reference, confidence, pool=pool, scale=scales)
    best = gains[gains["regret"] == 0].drop_duplicates(CELL).reset_index(drop=True)
    keys = [*CELL, *METHOD]
    means = summarise(chips, confidence, pool=False, scale=scales)
    means = means.rename(columns={score_of(chips).column: "best_mean"})[[*keys, "best_mean"]]
    best = best.merge(means, on=keys, how="left", validate="one_to_one")
    names = method_names(best)
    chips_of = chips.merge(best[CELL].assign(leader=names), on=CELL)
    parts = [
        paired_gain(own.drop(columns="leader"), str(leader), confidence, pool=pool, scale=scales)
        for leader, own in chips_of.groupby("leader", sort=True)
        if own[list(METHOD)].drop_duplicates().shape[0] > 1
    ]
    against = pd.concat(parts, ignore_index=True) if parts else pd.DataFrame(columns=gains.columns)
    against["rival"] = method_names(against) if len(against) else ""
    n_pairs = int((best["n_methods"] * (best["n_methods"] - 1) // 2).sum())
    against["p_worse"] = holm(against["p_value"].to_numpy(dtype=float), n_tests=n_pairs)
    found = [_tested(own, 1 - confidence) for own in _cells(against, best)]
    best = pd.concat([best.drop(columns="regret"), pd.DataFrame(found)], axis=1)
    best["p_holm"] = holm(best["p_value"].to_numpy(dtype=float))
    best["is_decided"] = best["p_holm"] < 1 - confidence
    best["n_tied"] = best["n_tied"].where(~best["is_decided"], 0)
    return best


def simultaneous_gains(
    rows: pd.DataFrame,
    baseline: str = "sgd",
    confidence: float = 0.95,
    *,
    pool: bool | None = None,
    scale: Scale = "auto",
) -> pd.DataFrame:
    """Gains of all methods over the baseline with simultaneous intervals, and their regrets.

    Args:
        rows: As for `winners`.
        baseline: As for `winners`.
        confidence: Probability with which all intervals of a cell cover (Bonferroni).
        pool: As in `paired_gain`.
        scale: As in `summarise`.

    Returns:
        One row per cell and method, the baseline included (its gain is 0): the columns of
        `COMPARED_UNDER`, method, strength, ``gain``, ``low``, ``high``, ``half_width``, ``regret``
        (difference to the largest gain of the cell), ``n_methods``, ``n_networks``, ``n_chips``,
        ``level``, ``spread``, ``scale``, ``extrapolated``, ``confidence``.

    Raises:
        ValueError: As for `winners`.

    Example:
        >>> found = simultaneous_gains(rows)
        >>> float(found["regret"].min()), len(found)  # 3 times x 2 methods
        (0.0, 6)
    """
    chips, scales, reference = _prepared(rows, baseline, confidence, scale)
    names = method_names(chips)
    n_methods = chips.assign(name=names).groupby(CELL, observed=True)["name"].nunique()
    has_baseline = chips[names == reference][CELL].drop_duplicates()
    chips = chips.merge(has_baseline, on=CELL)
    chips = chips.merge(n_methods.rename("n_methods").reset_index(), on=CELL)
    parts = []
    for n in sorted(set(chips["n_methods"]) - {1}):
        own = chips[chips["n_methods"] == n].drop(columns="n_methods")
        each = 1 - (1 - confidence) / (n - 1)
        gains = paired_gain(own, reference, each, pool=pool, scale=scales)
        parts.append(gains.assign(n_methods=n, confidence=confidence))
    kept = ["gain", "low", "high", "half_width", "level", "spread", "scale"]
    kept += ["n_networks", "n_chips", "extrapolated", "confidence"]
    own = _of_baseline(chips, reference, confidence)
    found = pd.concat([*parts, own], ignore_index=True)[[*CELL, *METHOD, "n_methods", *kept]]
    largest = found.groupby(CELL, observed=True)["gain"].transform("max")
    found["regret"] = largest - found["gain"]
    found["baseline"] = reference
    found["scale"] = found.groupby("dataset", observed=True)["scale"].transform("first")
    return with_score_of(chips, found.sort_values([*CELL, *METHOD], ignore_index=True))


def network_gains(
    rows: pd.DataFrame, baseline: str = "sgd", *, scale: Scale = "auto"
) -> pd.DataFrame:
    """Gain of every network over the baseline's of the same training seed, on the same chips.

    Args:
        rows: As for `winners`.
        baseline: As for `winners`.
        scale: As in `summarise`.

    Returns:
        One row per cell, method (the baseline included) and training seed: ``gain``, averaged over
        chips, ``extrapolated``, and ``baseline`` (its name). Networks without one of the baseline
        to compare with are left out.

    Raises:
        ValueError: As for `winners`.

    Example:
        >>> gains = network_gains(rows)
        >>> len(gains), float(gains.loc[gains["method"] == "sgd", "gain"].abs().max())
        (18, 0.0)
    """
    chips, scales, reference = _prepared(rows, baseline, 0.95, scale)
    chips = typical_chips(chips, scales)
    score = score_of(chips)
    sign = 1.0 if score.is_higher_better else -1.0
    chips["value"] = sign * chips[score.column]
    own = chips.loc[method_names(chips) == reference, [*_SAME_CHIP, "value"]]
    paired = chips.merge(own, on=_SAME_CHIP, suffixes=("", "_of_baseline"))
    paired["gain"] = paired["value"] - paired["value_of_baseline"]
    keys = [*CELL, *METHOD, "training_seed"]
    gains = paired.groupby(keys, observed=True).agg({"gain": "mean", "extrapolated": "max"})
    gains = gains.reset_index()
    gains["baseline"] = reference
    return with_score_of(chips, gains)


def held_out_gains(gains: pd.DataFrame) -> pd.DataFrame:
    """Gain of the method chosen without a network, on that network, averaged over networks.

    The best of many methods is the luckiest, too: its gain is too large on average. Chosen by the
    other networks, a method is not favoured by the network that it is evaluated on.

    Args:
        gains: As `network_gains` gives.

    Returns:
        One row per cell: ``gain_held_out``; NaN for fewer than two networks.

    Example:
        >>> len(held_out_gains(network_gains(rows)))  # 3 times
        3
    """
    found = []
    for cell, own in gains.groupby(CELL, observed=True, sort=True):
        table = _table(own)
        known = ~np.isnan(table)
        others = np.nansum(table, axis=1, keepdims=True) - np.where(known, table, 0.0)
        with np.errstate(invalid="ignore", divide="ignore"):
            others /= known.sum(axis=1, keepdims=True) - known
        others = np.where(known, others, -np.inf)
        chosen = others.argmax(axis=0)
        is_enough = np.isfinite(others.max(axis=0)).all()
        value = table[chosen, np.arange(table.shape[1])].mean() if is_enough else np.nan
        found.append({**dict(zip(CELL, cell, strict=True)), "gain_held_out": value})
    return pd.DataFrame(found, columns=[*CELL, "gain_held_out"])


def regret_of_choice(
    gains: pd.DataFrame,
    eligible: Iterable[str] | None = None,
    confidence: float = 0.95,
    *,
    draws: int = DRAWS,
    seed: int = 0,
) -> pd.DataFrame:
    """Regrets of every method over cells and tasks, the choice with the smallest largest one first.

    Args:
        gains: As `network_gains` gives, of the cells.
        eligible: Names of the methods that may be chosen; None: all. Regrets are counted from the
            best of all methods in every cell, also from those that may not be chosen.
        confidence: Probability with which the intervals of the mean gains cover together
            (Bonferroni over the eligible methods), so that of the chosen one does.
        draws: Resamples of networks (bootstrap, within tasks) that the choice is repeated in.
        seed: Random seed of the resamples.

    Returns:
        One row per eligible method that was run in every cell: method, strength, ``name``,
        ``largest_regret``, ``extrapolated`` (whether that is in a cell beyond the time to which its
        device was measured), ``mean_regret``, ``mean_gain`` (over the cells), ``low``, ``high``,
        ``half_width`` (Student's t over the training seeds of every task, Welch's degrees of
        freedom; NaN for one network or the baseline), ``chosen_share`` (of the resamples; NaN with
        fewer than `spread.FEWEST_TESTED` networks), ``n_cells``, ``n_tasks``, ``n_networks``
        (smallest). Sorted by largest regret, then mean regret.

    Example:
        >>> found = regret_of_choice(network_gains(rows))
        >>> sorted(found["name"]), bool(found["largest_regret"].is_monotonic_increasing)
        (['sam rho=0.1', 'sgd'], True)
    """
    check_confidence(confidence)
    kinds = gains[list(METHOD)].drop_duplicates().sort_values(list(METHOD), ignore_index=True)
    names = method_names(kinds).to_numpy()
    by_task = [own for _, own in gains.groupby(list(TASK), observed=True, sort=True)]
    tasks = [_tensor(own, kinds) for own in by_task]
    late = [own.groupby(CELL, observed=True, sort=True)["extrapolated"].max() for own in by_task]
    means = np.concatenate([_means(values) for values in tasks])
    allowed = set(names) if eligible is None else set(eligible)
    is_run = ~np.isnan(means).any(axis=0) & np.isin(names, list(allowed))
    is_baseline = names == gains["baseline"].iloc[0]
    n_compared = int((is_run & ~is_baseline).sum())
    mean, half_width = _mean_gain(tasks, 1 - (1 - confidence) / max(n_compared, 1))
    half_width = np.where(is_baseline, np.nan, half_width)
    regret = np.nanmax(means, axis=1, keepdims=True) - means
    found = kinds.assign(
        name=names,
        largest_regret=regret.max(axis=0),
        extrapolated=np.concatenate(late)[np.nan_to_num(regret).argmax(axis=0)],
        mean_regret=regret.mean(axis=0),
        mean_gain=mean,
        low=mean - half_width,
        high=mean + half_width,
        half_width=half_width,
        chosen_share=_chosen_share(tasks, is_run, draws, seed),
        n_cells=len(means),
        n_tasks=len(tasks),
        n_networks=min(values.shape[2] for values in tasks),
    )
    order = ["largest_regret", "mean_regret", "name"]
    ranked: pd.DataFrame = found[is_run].sort_values(order, ignore_index=True)
    return ranked


def _prepared(
    rows: pd.DataFrame, baseline: str, confidence: float, scale: Scale
) -> tuple[pd.DataFrame, dict[str, str], str]:
    """Chips, the scale of each data set, and the name of the baseline."""
    check_confidence(confidence)
    if rows.empty:
        raise ValueError("There are no rows to compare; run the study first.")
    if (rows["method"] == EXTERNAL).any():
        raise ValueError(
            f"Some networks are from elsewhere (method {EXTERNAL!r}), without a training method to "
            "choose; leave them out."
        )
    chips = chip_means(rows)
    return chips, scales_of(chips, scale), baseline_name(chips, baseline)


def _of_baseline(chips: pd.DataFrame, reference: str, confidence: float) -> pd.DataFrame:
    """The baseline's own rows: no gain, no interval."""
    own = chips[method_names(chips) == reference]
    of_network = own.groupby([*CELL, "checkpoint"], observed=True)["chip"].transform("size")
    cells = own.assign(n_of_network=of_network).groupby(
        [*CELL, *METHOD, "n_methods"], observed=True
    )
    found: pd.DataFrame = cells.agg(
        n_networks=("checkpoint", "nunique"),
        n_chips=("n_of_network", "min"),
        extrapolated=("extrapolated", "max"),
    ).reset_index()
    nothing = dict.fromkeys(("low", "high", "half_width"), np.nan)
    level = np.where(found["n_networks"] > 1, "networks", "chips only")
    return found.assign(gain=0.0, level=level, spread="own", confidence=confidence, **nothing)


def _cells(against: pd.DataFrame, best: pd.DataFrame) -> Iterator[pd.DataFrame]:
    """The comparisons with the others of every cell, in the order of the best ones."""
    numbers = pd.MultiIndex.from_frame(best[CELL]).get_indexer(
        pd.MultiIndex.from_frame(against[CELL])
    )
    order = np.argsort(numbers, kind="stable")
    ends = np.searchsorted(numbers[order], np.arange(len(best) + 1))
    for first, after in itertools.pairwise(ends):
        yield against.iloc[order[first:after]]


def _tested(rivals: pd.DataFrame, alpha: float) -> dict[str, object]:
    """What the comparison of the best method of a cell with all others says."""
    p = rivals["p_value"].to_numpy(dtype=float)
    is_tested = len(p) > 0 and not np.isnan(p).any()
    if len(rivals) == 0:
        runner_up, margin = "", np.nan
    else:
        second = rivals.iloc[int(rivals["gain"].to_numpy(dtype=float).argmax())]
        runner_up, margin = second["rival"], -second["gain"]
    return {
        "runner_up": runner_up,
        "margin": margin,
        "p_value": p.max() if is_tested else np.nan,
        "is_tested": is_tested,
        "n_tied": int((~(rivals["p_worse"] < alpha)).sum()) if is_tested else 0,
    }


def _table(own: pd.DataFrame) -> spread.Floats:
    """Gains of one cell, shape (methods, training seeds); NaN where a network is missing."""
    names = method_names(own).to_numpy()
    return spread.table_of(names, own["training_seed"].to_numpy(), own["gain"].to_numpy())


def _tensor(own: pd.DataFrame, kinds: pd.DataFrame) -> spread.Floats:
    """Gains of one task, shape (cells, methods, training seeds); NaN where there is none."""
    cell = own.groupby(CELL, observed=True, sort=True).ngroup().to_numpy()
    method = pd.MultiIndex.from_frame(kinds).get_indexer(
        pd.MultiIndex.from_frame(own[list(METHOD)])
    )
    seeds, seed = np.unique(own["training_seed"], return_inverse=True)
    values = np.full((cell.max() + 1, len(kinds), len(seeds)), np.nan)
    values[cell, method, seed] = own["gain"]
    return values


def _means(values: spread.Floats) -> spread.Floats:
    """Means over the last axis without missing values; NaN where all are missing."""
    known = ~np.isnan(values)
    with np.errstate(invalid="ignore", divide="ignore"):
        means: spread.Floats = np.where(known, values, 0.0).sum(axis=-1) / known.sum(axis=-1)
    return means


def _mean_gain(
    tasks: list[spread.Floats], confidence: float
) -> tuple[spread.Floats, spread.Floats]:
    """Mean gain over all cells of every method, and its half-width over networks.

    A task counts by its cells. Its networks are averaged over cells first, so that the errors that
    a network has in common on all devices do not cancel by their number.
    """
    total = sum(len(values) for values in tasks)
    mean, variance, per_dof = np.zeros((3, tasks[0].shape[1]))
    for values in tasks:
        weight = len(values) / total
        networks = values.mean(axis=0)  # a network that lacks a cell is left out
        mean += weight * _means(values).mean(axis=0)
        for k, own in enumerate(networks):
            error = spread.of_independent(own[~np.isnan(own)])
            part = (weight * error.value) ** 2 if error.dof else np.nan
            variance[k] += part
            per_dof[k] += part**2 / error.dof if error.dof else np.nan
    with np.errstate(invalid="ignore", divide="ignore"):
        dof = np.nan_to_num(variance**2 / per_dof)
    return mean, spread.StandardError(np.sqrt(variance), dof).half_width(confidence)


def _chosen_share(
    tasks: list[spread.Floats], is_run: np.ndarray, draws: int, seed: int
) -> spread.Floats:
    """Share of resamples of the networks in which every method is the choice."""
    if min(values.shape[2] for values in tasks) < spread.FEWEST_TESTED:
        return np.full(len(is_run), np.nan)
    random = np.random.default_rng(seed)
    largest = np.zeros((draws, len(is_run)))
    sums = np.zeros((draws, len(is_run)))
    for values in tasks:
        n = values.shape[2]
        weights = random.multinomial(n, np.full(n, 1 / n), size=draws).astype(float)
        known = ~np.isnan(values)
        with np.errstate(invalid="ignore", divide="ignore"):
            means = np.einsum("ds,cms->dcm", weights, np.where(known, values, 0.0))
            means /= np.einsum("ds,cms->dcm", weights, known.astype(float))
        regret = np.fmax.reduce(means, axis=2, keepdims=True) - means
        is_unknown = np.isnan(regret).any(axis=1)  # none of its networks was drawn
        largest = np.fmax(largest, np.where(is_unknown, np.inf, np.fmax.reduce(regret, axis=1)))
        sums += np.nansum(regret, axis=1)
    largest[:, ~is_run] = np.inf
    tied = largest <= largest.min(axis=1, keepdims=True)
    chosen = np.where(tied, sums, np.inf).argmin(axis=1)
    return np.bincount(chosen, minlength=len(is_run)) / draws
