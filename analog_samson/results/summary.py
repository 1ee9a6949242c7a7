"""Score against time: reads, then chips, then networks; an interval at the right level.

Columns are named after the score (`Score.column`): ``accuracy`` and ``clean_accuracy``, or
``cross_entropy`` and ``clean_cross_entropy``. Tables of a score other than accuracy begin with the
columns ``score`` and ``higher_is_better``.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import special

from analog_samson.results import spread
from analog_samson.results.definitions import COMPARED_UNDER, METHOD, check_definitions
from analog_samson.results.scale import Scale, from_logit, is_logit, scales_of, to_logit
from analog_samson.results.scores import score_of, with_score_of
from analog_samson.results.subsets import digital_score, estimated_score, sampling_variance

GROUP = (*COMPARED_UNDER[:-1], *METHOD, "t_inference_s")
"""Columns that a summary groups by: rows of one method that are averaged."""

FEW_NETWORKS = 4
"""Below this many networks the spread is pooled over methods: our choice. Student's factor is
12.7, 4.3 and 3.2 at 2, 3 and 4 networks; from 4 networks on a method's own spread is used rather
than the assumption of equal variances."""

_ESTIMATED = ["accuracy", "low", "high", "spread", "standard_error", "dof", "clean_accuracy"]


def chip_means(rows: pd.DataFrame) -> pd.DataFrame:
    """Average the reads: one row per chip and time.

    Args:
        rows: Rows of trials; rows returned by this function are copied, so that all functions that
            take rows of trials also take chips.

    Returns:
        Columns of `GROUP`, ``training_seed``, ``checkpoint``, ``chip``, ``chip_id``,
        ``programming_seed``, ``n_images_per_chip``, ``n_test``, ``analog_share``, ``reproducible``
        and, averaged over reads, ``accuracy``, ``clean_accuracy`` (fractions; named after the
        score, see above), ``alpha``,
        ``extrapolated`` (whether any), ``sampling_variance`` (of the accuracy over
        subsets of images; reads share their images, so that averaging reduces it little, and the
        mean over reads is an upper bound), ``n_reads``, ``resolution`` (smallest difference of two
        accuracies, one image).

    Example:
        >>> chips = chip_means(rows)
        >>> len(chips), chips["n_reads"].unique()  # 6 networks x 2 chips x 3 times
        (36, array([1]))
    """
    if "n_reads" in rows:
        return rows.copy()
    check_definitions(rows)
    score = score_of(rows)
    groups = rows.groupby(["chip_id", "t_inference_s"], sort=False, observed=True)
    code = groups.ngroup().to_numpy()
    reads_in_order = np.lexsort((rows["read"].to_numpy(), code))
    rows, code = rows.iloc[reads_in_order], code[reads_in_order]
    first = np.flatnonzero(np.diff(code, prepend=-1))
    kept = [*GROUP, "training_seed", "checkpoint", "chip", "chip_id", "programming_seed"]
    kept += ["n_images_per_chip", "n_test", "analog_share", "reproducible"]
    chips = rows.iloc[first][kept]
    chips = chips.reset_index(drop=True)
    n_reads = np.bincount(code)

    def mean(values: "pd.Series[float]") -> spread.Floats:
        totals = np.bincount(code, values.to_numpy(dtype=float)).astype(np.float64)
        return totals / n_reads

    chips[score.column] = mean(estimated_score(rows))
    chips[score.digital] = mean(digital_score(rows))
    chips["sampling_variance"] = mean(sampling_variance(rows))
    chips["alpha"] = mean(rows["alpha"])
    chips["extrapolated"] = mean(rows["extrapolated"]) > 0
    chips["n_reads"] = n_reads
    chips["resolution"] = score_of(rows).step / chips["n_images_per_chip"]
    chips = chips.sort_values([*GROUP, "training_seed", "checkpoint", "chip"], ignore_index=True)
    return with_score_of(rows, chips)


def network_means(chips: pd.DataFrame) -> pd.DataFrame:
    """Average the chips: one row per network and time.

    Args:
        chips: As `chip_means` gives.

    Returns:
        Columns of `GROUP`, ``training_seed``, ``checkpoint``, ``accuracy``, ``std_chips`` (the mean
        sampling variance is subtracted, down to 0), ``var_measured``
        (variance of their accuracies as they are), ``sampling_variance`` (mean over chips),
        ``n_chips``, ``clean_accuracy``, ``alpha``, ``extrapolated``, ``analog_share``,
        ``n_reads`` (smallest), ``n_images_per_chip``, ``n_test``, ``reproducible``.

    Example:
        >>> means = network_means(chips)
        >>> len(means), means["n_chips"].unique()  # 6 networks x 3 times
        (18, array([2]))
    """
    score = score_of(chips)
    groups = chips.groupby(
        [*GROUP, "training_seed", "checkpoint"], observed=True, sort=True, dropna=False
    )
    networks = groups.agg(
        **{score.column: (score.column, "mean")},
        var_measured=(score.column, "var"),
        sampling_variance=("sampling_variance", "mean"),
        n_chips=(score.column, "size"),
        **{score.digital: (score.digital, "mean")},
        alpha=("alpha", "mean"),
        extrapolated=("extrapolated", "max"),
        analog_share=("analog_share", "first"),
        n_reads=("n_reads", "min"),
        n_images_per_chip=("n_images_per_chip", "first"),
        n_test=("n_test", "first"),
        reproducible=("reproducible", "min"),
    ).reset_index()
    own = networks["var_measured"] - networks["sampling_variance"]
    networks["std_chips"] = np.sqrt(own.clip(lower=0.0))
    return with_score_of(chips, networks)


def summarise(
    rows: pd.DataFrame,
    confidence: float = 0.95,
    *,
    pool: bool | None = None,
    bootstrap: bool = False,
    scale: Scale = "auto",
) -> pd.DataFrame:
    """Mean score of every group of rows, with its confidence interval.

    Reads are averaged within a chip, chips within a network; the interval is Student's over
    networks, because chips of one network are not independent samples of the training method.
    Where networks share their chips (one programming seed used for several networks), and thereby
    the subset of images of each chip, the interval includes the shared variance.

    Args:
        rows: Rows of trials (`read_trials`), or of chips (`chip_means`).
        confidence: Probability with which an interval covers the true mean, between 0 and 1.
        pool: Whether the spread over networks is pooled over the methods that are
            compared (mixed model with shared training seeds); None pools only where a method has
            2 or 3 networks. A method with a larger spread than the others keeps its own.
        bootstrap: Whether intervals come from a bootstrap over networks instead of Student's t,
            for scores that are far from normal. It requires that
            networks do not share chips, and enough networks (10 for 95 %, see
            `spread.fewest_resampled`); a method with fewer keeps Student's interval, as its
            ``spread`` shows. Neither are networks of which several agree.
        scale: Scale on which means and intervals are computed: "accuracy"; "logit", whose
            intervals stay within [0, 1] and which estimates the typical chip, the accuracy at the
            mean of ``log(accuracy / error)``, instead of the mean; or "auto", for each data set
            the one of both that `scales_of` names.

    Returns:
        One row per group, sorted, with the columns of `GROUP` and

        - ``accuracy``, ``low``, ``high`` (fractions; the bounds are cut at 0 and 1; of another
          score its own column, unit and limits),
          ``half_width`` (not cut, of a bootstrap or on the logit scale the wider side; NaN when a
          single chip was measured), ``confidence``, ``scale`` ("logit", or the score's column);
        - ``level``: "networks", or "chips only" when one network was measured: then the interval
          does not cover another training of the same method;
        - ``spread``: "own", "pooled" over methods, "floor" (`spread.floor_of`: the networks agree
          better than their chips or the resolution of the counts allow), or "bootstrap";
        - ``standard_error``, ``dof`` (degrees of freedom), on the scale;
        - ``n_networks``, ``n_chips`` (per network, the smallest), ``n_chips_max``, ``n_reads``;
        - ``std_networks`` (of the network means), ``std_chips`` (within a network; without
          the sampling variance of the images, which intervals include);
        - ``clean_accuracy`` (the digital networks, on the same scale), ``alpha`` (drift
          compensation), ``analog_share``, ``n_images_per_chip``, ``n_test``,
          ``extrapolated``, ``reproducible``.

    Raises:
        ValueError: If there is no row, the rows mix definitions, or the confidence is not
            between 0 and 1.

    Example:
        >>> from analog_samson import Study, collect
        >>> from analog_samson.checkpoint import TrainingSpec
        >>> from analog_samson.training import train
        >>> specs = [TrainingSpec(dataset="digits", epochs=1, seed=seed) for seed in range(3)]
        >>> networks = [train(spec, "networks") for spec in specs]
        >>> rows = collect(Study("example", networks, ["pcm_like"], [1.0], n_chips=2), "results")
        >>> summarise(rows)[["method", "level", "n_networks", "n_chips"]].to_dict("records")
        [{'method': 'sgd', 'level': 'networks', 'n_networks': 3, 'n_chips': 2}]
    """
    check_confidence(confidence)
    chips = _chips_of(rows)
    scales = scales_of(chips, scale)
    on_logit = is_logit(chips, scales)
    summary = estimate(chips, confidence, pool=pool, bootstrap=bootstrap)
    bent = is_logit(summary, scales)
    if bent.any():
        logits = to_logit(chips[on_logit])
        logits = estimate(logits, confidence, pool=pool, bootstrap=bootstrap)
        for column in ("accuracy", "low", "high", "clean_accuracy"):
            logits[column] = from_logit(logits[column], logits["n_images_per_chip"])
        summary.loc[bent, _ESTIMATED] = logits[_ESTIMATED].to_numpy()
        sides = summary["high"] - summary["accuracy"], summary["accuracy"] - summary["low"]
        summary["half_width"] = summary["half_width"].where(~bent, np.maximum(*sides))
    lowest, highest = score_of(rows).limits
    mean = summary[score_of(rows).column]  # of subsets it may be beyond the limits
    summary["low"] = np.minimum(summary["low"].clip(lower=lowest), mean)
    summary["high"] = np.maximum(summary["high"].clip(upper=highest), mean)
    summary["scale"] = np.where(bent, "logit", score_of(rows).column)
    return summary


def lost(
    rows: pd.DataFrame,
    confidence: float = 0.95,
    *,
    pool: bool | None = None,
    scale: Scale = "auto",
) -> pd.DataFrame:
    """Mean score that every group of rows has lost, each network from its digital one.

    Args:
        rows: Rows of trials, or of chips (`chip_means`).
        confidence: Probability with which an interval covers the true mean.
        pool: As in `summarise`.
        scale: As in `summarise`. On the logit scale it is what lies between the typical digital
            network and the typical chip, see `typical_chips`.

    Returns:
        As `summarise`, with ``lost`` (fraction, or in the unit of the score; positive where the
        analog network is worse) in place of the score; intervals are not cut.

    Raises:
        ValueError: As `summarise`.

    Example:
        >>> losses = lost(rows)
        >>> bool((losses["lost"] > 0).all()), losses["n_networks"].unique()
        (True, array([3]))
    """
    check_confidence(confidence)
    chips = _chips_of(rows)
    scales = scales_of(chips, scale)
    score = score_of(chips)
    chips = typical_chips(chips, scales)
    chips[score.column] = score.lost(chips[score.digital], chips[score.column])
    losses = estimate(chips, confidence, pool=pool)
    losses["scale"] = np.where(is_logit(losses, scales), "logit", score.column)
    return losses.rename(columns={score.column: "lost"})


def typical_chips(chips: pd.DataFrame, scales: Mapping[str, str]) -> pd.DataFrame:
    """Accuracies whose means are those of the typical chip and the typical digital network.

    On the logit scale: accuracy as a linear function of ``log(accuracy / error)``, the tangent at
    the mean of each group's networks. Means and their differences are then those of typical chips,
    in accuracy, and spreads are as normal as those of the logits (delta method).

    Args:
        chips: As `chip_means` gives.
        scales: As `scales_of` gives; data sets on the scale of the score itself stay as they are.

    Returns:
        A copy, with ``accuracy``, ``clean_accuracy`` and ``resolution`` replaced.

    Example:
        >>> typical = typical_chips(chips, {"digits": "logit"})
        >>> bool((typical["accuracy"] - chips["accuracy"]).abs().max() < 0.05)
        True
    """
    replaced, on_logit = chips.copy(), is_logit(chips, scales)
    if not on_logit.any():
        return replaced
    chips = to_logit(chips[on_logit])
    n_images = chips["n_images_per_chip"]
    group = chips.groupby(list(GROUP), observed=True, sort=False).ngroup()
    for column in ("accuracy", "clean_accuracy"):
        networks = chips[column].groupby([group, chips["checkpoint"]], observed=True).mean()
        typical = group.map(networks.groupby(level=0).mean())
        moved = special.expit(typical)
        slope = moved * (1 - moved) * (n_images + 1) / n_images
        line = from_logit(typical, n_images) + slope * (chips[column] - typical)
        replaced.loc[on_logit, column] = line
        if column == "accuracy":
            replaced.loc[on_logit, "resolution"] = slope * chips["resolution"]
    return replaced


def _chips_of(rows: pd.DataFrame) -> pd.DataFrame:
    if rows.empty:
        raise ValueError("There are no rows to summarise; run the study first.")
    return chip_means(rows)


def estimate(
    chips: pd.DataFrame,
    confidence: float,
    *,
    pool: bool | None = None,
    bootstrap: bool = False,
) -> pd.DataFrame:
    """Mean of every group of chips with its interval, for any value of a chip.

    Args:
        chips: As `chip_means` gives; the column of the score may hold another value, in whose unit
            ``resolution`` is given.
        confidence: Probability with which an interval covers the true mean.
        pool: As in `summarise`.
        bootstrap: As in `summarise`.

    Returns:
        As `summarise`, without ``scale``; intervals are not cut.
    """
    networks = network_means(chips)
    score = score_of(chips)
    groups = networks.groupby(list(GROUP), observed=True, sort=True)
    summary = groups.agg(
        **{score.column: (score.column, "mean")},
        n_networks=(score.column, "size"),
        n_chips=("n_chips", "min"),
        n_chips_max=("n_chips", "max"),
        n_reads=("n_reads", "min"),
        std_networks=(score.column, "std"),
        **{score.digital: (score.digital, "mean")},
        alpha=("alpha", "mean"),
        analog_share=("analog_share", "mean"),
        n_images_per_chip=("n_images_per_chip", "first"),
        n_test=("n_test", "first"),
        extrapolated=("extrapolated", "max"),
        reproducible=("reproducible", "min"),
    )
    dof = networks["n_chips"] - 1
    squares = networks["var_measured"].fillna(0) * dof
    sampling = networks["sampling_variance"] * dof
    within = pd.DataFrame({"measured": squares, "own": squares - sampling, "dof": dof})
    within["inverse"] = 1 / networks["n_chips"]
    within = within.groupby(groups.ngroup().to_numpy()).sum()
    per_dof = within["dof"].where(within["dof"] > 0)
    within["measured"] /= per_dof
    within["own"] = (within["own"] / per_dof).clip(lower=0.0)
    summary["std_chips"] = np.sqrt(within["own"].to_numpy())
    summary["level"] = np.where(summary["n_networks"] > 1, "networks", "chips only")
    summary["spread"] = "own"
    n = summary["n_networks"].where(summary["n_networks"] > 1, summary["n_chips"])
    std = summary["std_networks"].where(
        summary["n_networks"] > 1, np.sqrt(within["measured"].to_numpy())
    )
    summary["standard_error"] = std / np.sqrt(n)
    summary["dof"] = (n - 1).astype(float)
    resolution = chips.groupby(list(GROUP), observed=True, sort=True)["resolution"].mean()
    summary = summary.reset_index()
    shared = _account_for_shared_chips(summary, chips)
    _pool(summary, networks, pool, shared)
    # as spread.floor_of
    n = summary["n_networks"]
    of_chips = (within["measured"] * within["inverse"] / n**2).where(~shared)
    floor = np.sqrt(np.fmax(of_chips, resolution.to_numpy() ** 2 / 12 / n))
    is_low = (summary["standard_error"] < floor * (1 - spread.ROUNDING)) & (summary["dof"] > 0)
    summary["standard_error"] = summary["standard_error"].where(~is_low, floor)
    summary["spread"] = summary["spread"].where(~is_low, "floor")
    error = spread.StandardError(*(summary[c].to_numpy() for c in ("standard_error", "dof")))
    summary["half_width"] = error.half_width(confidence)
    summary["low"] = summary[score.column] - summary["half_width"]
    summary["high"] = summary[score.column] + summary["half_width"]
    if bootstrap:
        _resample(summary, networks, confidence, ~shared)
    summary["confidence"] = confidence
    summary = summary[
        [
            *GROUP,
            score.column,
            "low",
            "high",
            "half_width",
            "confidence",
            "level",
            "spread",
            "n_networks",
            "n_chips",
            "n_chips_max",
            "n_reads",
            "std_networks",
            "std_chips",
            "standard_error",
            "dof",
            score.digital,
            "alpha",
            "analog_share",
            "n_images_per_chip",
            "n_test",
            "extrapolated",
            "reproducible",
        ]
    ]
    return with_score_of(chips, summary)


def check_confidence(confidence: float) -> None:
    """Check the probability with which intervals cover.

    Raises:
        ValueError: If it is not between 0 and 1.
    """
    if not 0 < confidence < 1:
        raise ValueError(f"Confidence must be between 0 and 1, such as 0.95; got {confidence!r}.")


def _account_for_shared_chips(summary: pd.DataFrame, chips: pd.DataFrame) -> NDArray[np.bool_]:
    """Replace the standard error where several networks were programmed on the same chips."""
    value = score_of(chips).column
    groups = chips.groupby(list(GROUP), observed=True, sort=True)
    counts = groups["programming_seed"].agg(["nunique", "size"])
    shared = (counts["nunique"] < counts["size"]).to_numpy() & (summary["n_networks"] > 1)
    if not shared.any():
        return shared
    errors = summary[["standard_error", "dof"]].to_numpy(copy=True)
    group = groups.ngroup().to_numpy()
    own = shared[group]
    network, seed = (pd.factorize(chips[c])[0][own] for c in ("checkpoint", "programming_seed"))
    values = chips[value].to_numpy(dtype=float)[own]
    for tables in spread.tables_of(group[own], network, seed, values):
        error = spread.of_shared_chips(tables.values)
        errors[tables.groups] = np.stack([error.value, error.dof], axis=1)
    summary[["standard_error", "dof"]] = errors
    return shared


def split(code: NDArray[Any]) -> list[NDArray[Any]]:
    """Positions of the rows of every group.

    Args:
        code: Number of the group of each row, as ``groupby(...).ngroup()``: none is left out.
    """
    rank = np.argsort(code, kind="stable")
    return np.split(rank, np.flatnonzero(np.diff(code[rank])) + 1)


def _resample(
    summary: pd.DataFrame, networks: pd.DataFrame, confidence: float, allowed: NDArray[np.bool_]
) -> None:
    """Replace the interval by a bootstrap over networks where there are enough of them."""
    value = score_of(networks).column
    groups = networks.groupby(list(GROUP), observed=True, sort=True)[value]
    low, high = summary["low"].to_numpy(copy=True), summary["high"].to_numpy(copy=True)
    is_resampled = (groups.size() >= spread.fewest_resampled(confidence)).to_numpy() & allowed
    for group, (_, values) in enumerate(groups):
        is_resampled[group] &= spread.can_be_resampled(values.to_numpy(), confidence)
        if is_resampled[group]:
            low[group], high[group] = spread.of_resampled(values.to_numpy(), confidence)
    mean = summary[value].to_numpy()
    wider = np.maximum(high - mean, mean - low)
    summary["low"], summary["high"] = low, high
    summary["half_width"] = np.where(is_resampled, wider, summary["half_width"])
    summary["spread"] = np.where(is_resampled, "bootstrap", summary["spread"])


def _pool(
    summary: pd.DataFrame, networks: pd.DataFrame, pool: bool | None, shared: NDArray[np.bool_]
) -> None:
    """Replace the spread of methods with few networks by the one pooled over methods."""
    wanted = (summary["n_networks"] > 1) & (summary["method"] != "external") & ~shared
    if pool is None:
        wanted &= summary["n_networks"] < FEW_NETWORKS
    if pool is False or not wanted.any():
        return
    value = score_of(networks).column
    own = networks[networks["method"] != "external"]
    # networks and summary are sorted by GROUP: a group has one number in both
    place = networks.groupby(list(GROUP), observed=True, sort=True).ngroup().to_numpy()
    place = place[(networks["method"] != "external").to_numpy()]
    seeds = own["training_seed"].to_numpy()
    values = own[value].to_numpy(dtype=float)
    setting = own.groupby(list(COMPARED_UNDER), observed=True).ngroup().to_numpy()
    error, dof = (summary[name].to_numpy(dtype=float).copy() for name in ("standard_error", "dof"))
    n_networks, is_wanted = summary["n_networks"].to_numpy(), wanted.to_numpy()
    is_pooled = np.zeros(len(summary), dtype=bool)
    for tables in spread.tables_of(setting, seeds, place, values):
        pooled, names = spread.pooled_spreads(tables.values), tables.columns
        is_better = is_wanted[names] & (dof[names] < pooled.dof)
        names = names[is_better]
        error[names] = pooled.value[is_better] / np.sqrt(n_networks[names])
        dof[names] = pooled.dof[is_better]
        is_pooled[names] = True
    summary["standard_error"], summary["dof"] = error, dof
    summary["spread"] = summary["spread"].where(~is_pooled, "pooled")
