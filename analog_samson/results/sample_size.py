"""Variance components, and the number of networks or chips that an interval needs."""

import math
from collections.abc import Sequence

import numpy as np
import pandas as pd
from scipy import stats

from analog_samson.results.columns import KEY
from analog_samson.results.scores import score_of, with_score_of
from analog_samson.results.spread import quantile, t_quantile
from analog_samson.results.subsets import estimated_score
from analog_samson.results.summary import GROUP, chip_means, summarise

LOOKS = (10, 20, 40, 80)
"""Numbers of chips of a study in two stages: the first stage, then what the second may have."""

MAX_NETWORKS = 1000

_PARTS = ("std_networks", "std_chips", "std_reads", "std_sampling", "n_reads")


def variance_components(rows: pd.DataFrame) -> pd.DataFrame:
    """Variance components: training, programming, reading, and sampling of images.

    Nested analysis of variance: reads within chips within networks (for unequal numbers with the
    harmonic mean, Searle, Casella, McCulloch, *Variance Components*, 1992). The
    sampling variance of the subsets of images is known (`subsets`) and subtracted from the
    variance over chips. A negative estimate is reported as 0.

    Args:
        rows: Rows of trials.

    Returns:
        One row per group: the columns of `GROUP`, ``std_networks``,
        ``std_chips``, ``std_reads`` (standard deviations of the *true* effects, fractions; NaN
        where a level has no repeats), ``std_sampling`` (of a chip's accuracy over subsets of
        images; 0 where all are used), ``n_networks``, ``n_chips``, ``n_reads`` (harmonic
        means per network and chip).

    Example:
        >>> parts = variance_components(rows)
        >>> parts[["method", "n_networks", "n_chips", "n_reads"]].drop_duplicates().values.tolist()
        [['sam', 3.0, 2.0, 1.0], ['sgd', 3.0, 2.0, 1.0]]
    """
    chips = chip_means(rows)
    value = score_of(rows).column
    reads = estimated_score(rows).groupby([rows[c] for c in KEY[:2]], observed=True).var()
    chips = chips.join(reads.rename("var_reads"), on=list(KEY[:2]))
    records = []
    for key, group in chips.groupby(list(GROUP), observed=True, sort=True):
        row = dict(zip(GROUP, key, strict=True))
        row.update(_components(group, value))
        records.append(row)
    return with_score_of(rows, pd.DataFrame(records))


def needed(rows: pd.DataFrame, half_width: float, confidence: float = 0.95) -> pd.DataFrame:
    """Number of networks, or of chips per network, that brings every half-width below a target.

    Args:
        rows: Rows of trials of a first study.
        half_width: Target, as a fraction (0.005 is half a per cent of accuracy), or in the unit of
            the score: of perplexity, relative (0.01 is 1 %).
        confidence: Probability with which the interval covers the true mean.

    Returns:
        One row per group: the columns of `GROUP`, ``half_width``,
        ``n_networks``, ``n_chips``, ``n_images_per_chip`` and ``n_test`` as they are,
        ``needed_chips`` (per network, with the networks there are; missing when no number of chips
        is enough), ``needed_networks`` (with the chips there are; missing above 1000 or with one
        network),
        ``advice`` in words. More chips also use more images; both are accounted for.

    Raises:
        ValueError: If the target is not positive.

    Example:
        >>> plan = needed(rows, half_width=0.5)
        >>> plan["advice"].unique().tolist()
        ['enough']
    """
    if not half_width > 0:
        raise ValueError(
            f"The target half-width must be positive, such as 0.005; got {half_width!r}."
        )
    summary = summarise(rows, confidence, scale="accuracy")
    summary = summary.drop(columns=["std_networks", "std_chips", "n_reads"])
    keys = list(GROUP)
    parts = variance_components(rows)[[*keys, *_PARTS]]
    records = []
    for row in summary.merge(parts, on=keys).to_dict("records"):
        n, k = int(row["n_networks"]), int(row["n_chips"])
        reads = row["std_reads"] ** 2 / row["n_reads"]
        chips = float(np.nansum([row["std_chips"] ** 2, row["std_sampling"] ** 2, reads]))
        networks = row["std_networks"] ** 2
        enough_chips = _needed_chips(networks, chips, n, row["dof"], half_width, confidence)
        enough_networks = _needed_networks(networks + chips / k, half_width, confidence)
        records.append(
            {
                **{column: row[column] for column in GROUP},
                "half_width": row["half_width"],
                "n_networks": n,
                "n_chips": k,
                "n_images_per_chip": row["n_images_per_chip"],
                "n_test": row["n_test"],
                "needed_chips": enough_chips,
                "needed_networks": enough_networks,
                "advice": _advice(row["half_width"], half_width, n, enough_chips, enough_networks),
            }
        )
    plan = pd.DataFrame(records)
    return with_score_of(rows, plan.astype({"needed_chips": "Int64", "needed_networks": "Int64"}))


def next_look(
    rows: pd.DataFrame,
    half_width: float,
    *,
    looks: Sequence[int] = LOOKS,
    confidence: float = 0.95,
) -> int | None:
    """Number of chips per network of the second stage of a study that runs to a target half-width.

    Two stages as in Stein (1945, Ann. Math. Statist. 16, 243): the chips of the first look alone
    determine the final number of chips, once, for all groups together. Only their spread within
    networks is used: of normal scores it is independent of every network mean, so that the
    intervals of the finished study keep their coverage, at every number of chips. A rule that uses
    the half-width itself, or that looks repeatedly, stops where the networks agree by chance.
    With one network the interval is over the chips whose spread determines their number: 95 %
    intervals then cover 93.4 to 95 % over all studies, but only 80 % in the worst case of those
    that end after 10 chips.

    The number of chips brings the chips' part of every half-width below the target. What networks
    contribute does not shrink with more chips: `needed` gives the number of networks.

    Args:
        rows: Rows of trials so far, with all chips of the first look.
        half_width: Target for the chips' part of every half-width, as a fraction, or in the unit of
            the score.
        looks: Numbers of chips: of the first stage (the smallest), and allowed for the second.
        confidence: Probability with which the interval covers the true mean.

    Returns:
        The smallest of the looks that is enough, or the largest; None where the rows have as many
        chips already.

    Raises:
        ValueError: If the target is not positive, or there are no looks.

    Example:
        >>> next_look(rows, half_width=0.001, looks=(2, 5, 10))
        10
    """
    if not half_width > 0:
        raise ValueError(
            f"The target half-width must be positive, such as 0.005; got {half_width!r}."
        )
    if not looks:
        raise ValueError("next_look needs at least one number of chips in looks; got none.")
    chips = chip_means(rows)
    first = chips[chips["chip"] < min(looks)]
    wanted = chips_for(first, half_width, confidence).max()
    final = min((look for look in looks if look >= wanted), default=max(looks))
    n_chips = chips.groupby([*GROUP, "checkpoint"], observed=True).size().min()
    return final if final > n_chips else None


def chips_for(first: pd.DataFrame, half_width: float, confidence: float) -> "pd.Series[int]":
    """Chips per network that bring the chips' part of the half-width of every group to a target.

    Args:
        first: Chips of the first stage, as `chip_means` gives.
        half_width: Target, as in `next_look`.
        confidence: Probability with which the interval covers the true mean.

    Returns:
        The number for each group; 1 where no network has two chips.
    """
    value = score_of(first).column
    networks = first.groupby([*GROUP, "checkpoint"], observed=True)[value].agg(["var", "size"])
    networks["dof"] = networks["size"] - 1
    networks["squares"] = networks["var"].fillna(0.0) * networks["dof"]
    groups = networks.groupby(list(GROUP), observed=True, sort=True)
    n, dof, squares = groups.size(), groups["dof"].sum(), groups["squares"].sum()
    factor = t_quantile(0.5 + confidence / 2, np.where(n > 1, n - 1, dof))
    within = squares / dof.where(dof > 0)
    wanted: pd.Series[float] = np.ceil(factor**2 * within / (n * half_width**2))
    return wanted.fillna(1.0).astype(int)


def _components(chips: pd.DataFrame, value: str) -> dict[str, float]:
    groups = chips.groupby("checkpoint", observed=True)
    means, sizes = groups[value].mean(), groups[value].size()
    n_reads = float(stats.hmean(chips["n_reads"]))
    n_chips = float(stats.hmean(sizes))
    reads = float(chips["var_reads"].mean())
    dof = len(chips) - len(means)
    deviations = chips[value] - groups[value].transform("mean")
    within = float((deviations**2).sum() / dof) if dof else math.nan
    between = float(means.var(ddof=1)) if len(means) > 1 else math.nan
    sampling = float(chips["sampling_variance"].mean())
    known = sampling + (0.0 if math.isnan(reads) else reads / n_reads)
    chip_part = within - known
    network_part = between - (within if dof else known) / n_chips
    return {
        "std_networks": math.sqrt(max(network_part, 0.0)) if len(means) > 1 else math.nan,
        "std_chips": math.sqrt(max(chip_part, 0.0)) if dof else math.nan,
        "std_reads": math.sqrt(reads) if not math.isnan(reads) else math.nan,
        "std_sampling": math.sqrt(sampling),
        "n_networks": float(len(means)),
        "n_chips": n_chips,
        "n_reads": n_reads,
    }


def _needed_chips(
    networks: float, chips: float, n: int, dof: float, target: float, confidence: float
) -> int | None:
    if n == 1:
        return _needed_networks(chips, target, confidence)
    if not dof > 0:
        return None
    allowed = n * (target / quantile(stats.t, 0.5 + confidence / 2, dof)) ** 2 - networks
    if not allowed > 0:
        return None
    return max(2, math.ceil(chips / allowed))


def _needed_networks(variance: float, target: float, confidence: float) -> int | None:
    if math.isnan(variance):
        return None
    n = np.arange(2, MAX_NETWORKS + 1)
    widths = stats.t.ppf(0.5 + confidence / 2, n - 1) * np.sqrt(variance / n)
    enough = np.flatnonzero(widths <= target)
    return int(n[enough[0]]) if len(enough) else None


def _advice(width: float, target: float, n: int, chips: int | None, networks: int | None) -> str:
    if width <= target:
        return "enough"
    if n == 1:
        return "one network: train more seeds to assess the method"
    if chips is not None:
        return f"{chips} chips per network"
    if networks is not None:
        return f"limited by networks: at least {networks} training seeds needed"
    return f"limited by networks: more than {MAX_NETWORKS} training seeds needed"
