"""Yield: the share of chips that reach a target, and the score of the worst chips."""

from collections.abc import Mapping

import numpy as np
import pandas as pd
from scipy import special, stats

from analog_samson.results import spread
from analog_samson.results.scores import Score, score_of, with_score_of
from analog_samson.results.summary import GROUP, check_confidence, chip_means, split
from analog_samson.results.variants import TASK

WORST = 0.05
"""Share of chips that are called the worst."""

FEWEST_OF_TAIL = 100
"""Fewest chips from which `WORST` of them are described: five chips, our choice."""


WORSE = 0.1
"""Relative loss of the default target of a score that is no fraction: our choice."""


Target = float | Mapping[tuple[str, str], float]
"""What chips must reach: one value, or one of each data set and model."""


def default_targets(rows: pd.DataFrame) -> dict[tuple[str, str], float]:
    """The target of each data set and model: one point below the mean of its digital networks.

    It depends on the digital networks alone and is rounded down to a tenth of a point. Of scores
    that are no fractions it is `WORSE` than the digital networks.

    Args:
        rows: Rows of trials, or of chips (`chip_means`).

    Returns:
        Data set and model to the target.

    Example:
        >>> list(default_targets(rows))
        [('digits', 'mlp')]
    """
    score = score_of(rows)
    networks = chip_means(rows).groupby([*TASK, "checkpoint"], observed=True)[score.digital].first()
    means = networks.groupby(list(TASK), observed=True).mean()
    tasks = ((str(dataset), str(model)) for dataset, model in means.index)
    return {task: _below(score, mean) for task, mean in zip(tasks, means, strict=True)}


def default_target(rows: pd.DataFrame) -> float:
    """The target of a study of one data set and model (see `default_targets`).

    Args:
        rows: Rows of trials, or of chips (`chip_means`).

    Raises:
        ValueError: If there are several data sets or models, each with a target of its own.

    Example:
        >>> digital = chips.groupby("checkpoint")["clean_accuracy"].first().mean()
        >>> bool(0 < digital - default_target(rows) < 0.02)
        True
    """
    targets = default_targets(rows)
    if len(targets) > 1:
        named = ", ".join(f"{model} on {dataset}" for dataset, model in targets)
        raise ValueError(f"Each data set and model has its target ({named}); use default_targets.")
    return next(iter(targets.values()))


def _below(score: Score, digital: float) -> float:
    if not score.has_relative_losses:
        return float(np.floor(1000 * (digital - 0.01) + 1e-9) / 1000)
    loss = score.threshold(WORSE) * (1.0 if score.is_exponential else abs(digital))
    return float(digital - loss if score.is_higher_better else digital + loss)


def yields(rows: pd.DataFrame, target: Target, confidence: float = 0.95) -> pd.DataFrame:
    """Share of chips of every group whose score reaches a target.

    The share is averaged over chips, then over networks. Its interval is that of Clopper and
    Pearson (1934, Biometrika 26, 404) for the effective number of independent chips (Korn and
    Graubard 1998, Survey Methodology 24, 193): the number of chips that would give the standard
    error over networks, with its degrees of freedom. Where all chips agree, the standard error is
    unknown, and each network counts as one chip. With one network the interval is over its chips.

    Args:
        rows: Rows of trials, or of chips (`chip_means`).
        target: Accuracy that a chip must reach, as a fraction; or another score, in its unit. One
            value, or one of each data set and model; rows of others are left out.
        confidence: Probability with which an interval covers the share over all networks and chips.

    Returns:
        One row per group, sorted: the columns of `GROUP`, ``target``, ``share``, ``low``, ``high``
        (fractions), ``confidence``, ``worst`` (score that all but the worst 5 % of chips reach;
        NaN with fewer than 100 chips), ``level``, ``n_networks``, ``n_chips`` (per network, the
        smallest), ``n_chips_max``, ``n_images_per_chip``, ``n_test``, ``extrapolated``.

    Raises:
        ValueError: If a target is beyond the limits of the score, no row has one, or the
            confidence is not between 0 and 1.

    Example:
        >>> shares = yields(rows[rows["t_inference_s"] == 1.0], target=0.5)
        >>> shares[["method", "share", "n_chips"]].values.tolist()
        [['sam', 1.0, 2], ['sgd', 1.0, 2]]
    """
    check_confidence(confidence)
    score = score_of(rows)
    lowest, highest = score.limits
    for one in target.values() if isinstance(target, Mapping) else [target]:
        if not lowest < one < highest:
            what = "a fraction between 0 and 1" if highest == 1 else f"above {lowest:g}"
            raise ValueError(f"The target must be {what}; got {one!r}.")
    chips = chip_means(rows)
    asked = targets_of(chips, target)
    chips, targets = chips[asked.notna()], asked.dropna().to_numpy(dtype=float)
    if chips.empty:
        raise ValueError("The targets are those of other data sets and models than the rows.")
    network = pd.factorize(chips["checkpoint"])[0]
    number, seed = chips["chip"].to_numpy(), chips["programming_seed"].to_numpy()
    sign = 1.0 if score.is_higher_better else -1.0
    value = sign * chips[score.column].to_numpy(dtype=float)
    least = sign * targets - spread.ROUNDING * np.abs(targets)
    groups = chips.groupby(list(GROUP), observed=True, sort=True)
    late = chips["extrapolated"].to_numpy(dtype=bool)
    parts = split(groups.ngroup().to_numpy())
    records = []
    for own in parts:
        shares_chips = len(np.unique(seed[own])) < len(own)
        table = spread.table_of(
            network[own],
            (seed if shares_chips else number)[own],
            (value[own] >= least[own]).astype(float),
        )
        share = float(spread.means_of(table).mean())
        low, high = _interval(table, share, confidence, shares_chips=shares_chips)
        sizes = (~np.isnan(table)).sum(axis=1)
        is_enough = len(own) >= FEWEST_OF_TAIL
        worst = np.quantile(value[own], WORST, method="inverted_cdf") if is_enough else np.nan
        records.append(
            {
                "target": float(targets[own[0]]),
                "share": share,
                "low": low,
                "high": high,
                "confidence": confidence,
                "worst": float(sign * worst),
                "level": "networks" if len(table) > 1 else "chips only",
                "n_networks": len(table),
                "n_chips": int(sizes.min()),
                "n_chips_max": int(sizes.max()),
                "extrapolated": bool(late[own].any()),
            }
        )
    firsts = chips.iloc[[own[0] for own in parts]].reset_index(drop=True)
    found = pd.concat([firsts[list(GROUP)], pd.DataFrame(records)], axis=1)
    sizes = firsts[["n_images_per_chip", "n_test"]]
    place = list(found.columns).index("extrapolated")
    found = pd.concat([found.iloc[:, :place], sizes, found.iloc[:, place:]], axis=1)
    return with_score_of(rows, found)


def targets_of(rows: pd.DataFrame, target: Target) -> "pd.Series[float]":
    """The target of each row; NaN where its data set and model have none."""
    if not isinstance(target, Mapping):
        return pd.Series(float(target), index=rows.index)
    tasks = zip(*(rows[name].astype(str) for name in TASK), strict=True)
    return pd.Series([target.get(task, np.nan) for task in tasks], index=rows.index, dtype=float)


def _interval(
    table: spread.Floats, share: float, confidence: float, *, shares_chips: bool
) -> spread.Bounds:
    n_networks, n_chips = len(table), int((~np.isnan(table)).sum())
    effective = float(n_chips)
    if n_networks > 1:
        error = spread.of_networks(table, shares_chips=shares_chips)
        effective = float(n_networks)
        if error.value > 0 and 0 < share < 1:
            tail = 0.5 + confidence / 2
            ratio = spread.quantile(stats.t, tail, max(n_chips - 1, 1)) / spread.quantile(
                stats.t, tail, error.dof
            )
            effective = min(share * (1 - share) / error.value**2 * ratio**2, float(n_chips))
    hits, tail = share * effective, (1 - confidence) / 2
    low = special.betaincinv(hits, effective - hits + 1, tail) if share > 0 else 0.0
    high = special.betaincinv(hits + 1, effective - hits, 1 - tail) if share < 1 else 1.0
    return float(low), float(high)
