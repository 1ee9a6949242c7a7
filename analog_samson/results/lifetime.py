"""Lifetime until a given loss of the score, and normalised (iso-)accuracy."""

import json
import math
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import pandas as pd

from analog_samson.results import spread
from analog_samson.results.definitions import COMPARED_UNDER, METHOD
from analog_samson.results.scores import Score, score_of, with_score_of
from analog_samson.results.subsets import digital_score
from analog_samson.results.summary import GROUP, chip_means

CURVE = (*COMPARED_UNDER[:-1], *METHOD)
"""Columns that identify an accuracy-vs-time curve: `GROUP` without the time."""

TIE = 1e-12
"""Relative difference below which a digital accuracy equals that of guessing: rounding errors."""


def lifetime(
    rows: pd.DataFrame,
    loss: float = 0.01,
    *,
    reference: str = "digital",
    confidence: float = 0.95,
) -> pd.DataFrame:
    """Time until a method has lost a given accuracy, interpolated in log time.

    The mean loss is interpolated linearly in log time between the measured times
    (t > 0); its first crossing is the lifetime. The bounds of its interval are the crossings of
    the confidence band of the loss (Student t over networks).

    Only chips that were measured at every time of their curve are used.

    Args:
        rows: Rows of trials, or of chips (`chip_means`), at two times or more.
        loss: Accuracy that may be lost, as a fraction (0.01 is one per cent); of other scores than
            fractions the relative change that may occur (0.1: a perplexity, or mean squared error,
            10 % above the reference; averages and interpolation of perplexity are those of its
            logarithm).
        reference: What the loss is measured from: "digital", the same network without analog
            noise, or "first", the same chip at its first time (programmed, where there is t = 0).
        confidence: Probability with which the interval covers.

    Returns:
        One row per curve: the columns of `CURVE`, ``loss``, ``reference``,
        ``lifetime_s``, ``low_s``, ``high_s`` [s], ``censored``: "" (crossed within the measured
        times), "right" (never lost as much: ``lifetime_s`` is the last time, a lower bound),
        "left" (lost before the first time t > 0, an upper bound); ``low_s`` is 0 and ``high_s``
        infinite where the data give no bound; ``level``, ``n_networks``, ``n_chips``,
        ``n_images_per_chip``, ``n_test``, ``extrapolated`` (whether the crossing, or the last time
        when censored, lies beyond the device's measured times).

    Raises:
        ValueError: If the loss is not between 0 and 1 (a relative one: not above 0), it is relative
            to 0, the reference is unknown, or the times of a device are independent draws (see
            :func:`has_trajectories`).
    """
    if rows.empty:
        return pd.DataFrame()
    score = score_of(rows)
    if not 0 < loss < (math.inf if score.has_relative_losses else 1):
        allowed = "positive" if score.has_relative_losses else "a fraction between 0 and 1"
        raise ValueError(f"Loss must be {allowed}, such as {score.losses[0]}; got {loss!r}.")
    if reference not in ("digital", "first"):
        raise ValueError(f"Reference must be 'digital' or 'first'; got {reference!r}.")
    torn = rows.loc[~has_trajectories(rows), "device"]
    if len(torn):
        raise ValueError(
            f"The times of device {torn.iloc[0]!r} are independent draws (times_share = "
            "'independent'): no chip is simulated from one to the next, so there is no lifetime; "
            "leave its rows out, as rows[has_trajectories(rows)] does."
        )
    chips = _complete(chip_means(rows))
    start = chips[score.digital]
    if reference == "first":
        in_time = chips.sort_values("t_inference_s").groupby("chip_id")
        start = in_time[score.column].transform("first")
    chips["loss"] = score.loss_of_lifetime(start, chips[score.column])
    records = []
    for curve, group in chips[chips["t_inference_s"] > 0].groupby(
        list(CURVE), observed=True, sort=True
    ):
        row: dict[str, object] = dict(zip(CURVE, curve, strict=True))
        row.update({"loss": loss, "reference": reference})
        row.update(_life(group, score.threshold(loss), confidence))
        records.append(row)
    return with_score_of(rows, pd.DataFrame(records))


def has_trajectories(rows: pd.DataFrame) -> "pd.Series[bool]":
    """Whether the cells of each row's chip keep their state over time.

    False if the cells are drawn independently at each time (``times_share = "independent"``); such
    rows record it in ``condition``, whether it was swept or not.

    Args:
        rows: Rows of trials, or of chips.
    """
    conditions = rows["condition"].unique()
    is_one_chip = {
        text: json.loads(text).get("times_share") != "independent" for text in conditions
    }
    return rows["condition"].map(is_one_chip).astype(bool)


def known_classes(manifests: Iterable[Mapping[str, Any]]) -> dict[str, int]:
    """Number of classes of each data set, from the manifests of studies.

    Args:
        manifests: Contents of ``manifest.json``; those of earlier versions do not state it.

    Returns:
        Data set to its number of classes; without data sets on which the networks disagree.
    """
    found: dict[str, set[int]] = {}
    for manifest in manifests:
        for network in manifest.get("checkpoints", {}).values():
            if "n_classes" in network:
                found.setdefault(network["spec"]["dataset"], set()).add(network["n_classes"])
    return {dataset: n for dataset, (n, *others) in found.items() if not others}


def no_better_than_guessing(rows: pd.DataFrame, n_classes: Mapping[str, int]) -> list[str]:
    """Networks whose digital score is no better than that of guessing, by their ``checkpoint``.

    Args:
        rows: Rows of trials, or of chips (`chip_means`).
        n_classes: Classes of each data set, as in the manifest of a study; networks of other
            data sets are left out.

    Returns:
        The networks; none where guessing is not defined for the score.
    """
    score = score_of(rows)
    if score.guessing is None:
        return []
    chance = _guessing(rows, score, n_classes)
    clean = rows[score.digital] if score.digital in rows else digital_score(rows)
    guesses = score.lost(chance, clean) >= -TIE * chance
    return sorted(set(rows.loc[guesses, "checkpoint"].astype(str)))


def iso_accuracy(
    rows: pd.DataFrame,
    threshold: float = 0.99,
    *,
    n_classes: Mapping[str, int],
    confidence: float = 0.95,
) -> pd.DataFrame:
    """Normalised score, and whether it counts as "iso-accurate" (Rasch et al. 2023).

    ``A = 1 - (error - error_digital) / (error_chance - error_digital)``: 1 is the digital
    network, 0 is guessing. For other scores the error is the score itself; that of perplexity is
    the cross entropy, for which a guess has the logarithm of the number of classes.

    Args:
        rows: Rows of trials, or of chips (`chip_means`).
        threshold: Normalised accuracy above which a network is called iso-accurate.
        n_classes: Classes of each data set, as in the manifest of a study.
        confidence: Probability with which the interval covers.

    Returns:
        One row per group: the columns of `GROUP`, ``normalised``,
        ``low``, ``high``, ``is_iso`` (the mean is above the threshold), ``is_iso_surely`` (the
        whole interval is), ``level``, ``n_networks``, ``n_images_per_chip``, ``n_test``,
        ``extrapolated``.

    Raises:
        ValueError: If guessing is not defined for the score, the number of classes of a data set is
            not known, or a digital network is no better than guessing.
    """
    score = score_of(rows)
    if score.guessing is None:
        raise ValueError(
            f"The score {score.name!r} has no value for guessing, so it cannot be normalised."
        )
    unknown = sorted(set(rows["dataset"]) - set(n_classes))
    if unknown:
        raise ValueError(
            f"The number of classes of {unknown} is not known (known: {sorted(n_classes)}); pass "
            f"n_classes, such as n_classes={{{unknown[0]!r}: 10}}."
        )
    guessing = no_better_than_guessing(rows, n_classes)
    if guessing:
        raise ValueError(
            f"The digital network {guessing[0]!r} is no better than guessing; its normalised "
            "accuracy is undefined; leave its rows out."
        )
    chips = chip_means(rows)
    chance = _guessing(chips, score, n_classes)
    value = (chips[score.column] - chance) / (chips[score.digital] - chance)
    chips = chips.assign(value=value)
    records = []
    for key, group in chips.groupby(list(GROUP), observed=True, sort=True):
        mean, error, level = _mean(group, "value")
        half = error.half_width(confidence)
        records.append(
            {
                **dict(zip(GROUP, key, strict=True)),
                "normalised": mean,
                "low": mean - half,
                "high": mean + half,
                "is_iso": mean > threshold,
                "is_iso_surely": level == "networks" and mean - half > threshold,
                "level": level,
                "n_networks": group["checkpoint"].nunique(),
                "n_images_per_chip": group["n_images_per_chip"].iloc[0],
                "n_test": group["n_test"].iloc[0],
                "extrapolated": bool(group["extrapolated"].any()),
            }
        )
    return with_score_of(rows, pd.DataFrame(records))


def _guessing(rows: pd.DataFrame, score: Score, n_classes: Mapping[str, int]) -> "pd.Series[float]":
    """Score of guessing of each row's data set; NaN where its classes are not known."""
    guess = {dataset: score.guessing(n) for dataset, n in n_classes.items() if score.guessing}
    return rows["dataset"].astype(str).map(guess).astype(float)


def _complete(chips: pd.DataFrame) -> pd.DataFrame:
    """Chips measured at every time of their curve: others would bias the mean curve."""
    n_times = chips.groupby(list(CURVE), observed=True)["t_inference_s"].transform("nunique")
    own = chips.groupby("chip_id", observed=True)["t_inference_s"].transform("nunique")
    return chips[own == n_times]


def _mean(chips: pd.DataFrame, column: str) -> tuple[float, spread.StandardError, str]:
    networks = chips.groupby("checkpoint", observed=True)[column].mean()
    if len(networks) == 1:
        return (
            float(networks.iloc[0]),
            spread.of_independent(chips[column].to_numpy()),
            "chips only",
        )
    if chips["programming_seed"].nunique() < len(chips):
        table = chips.pivot_table(
            index="checkpoint", columns="programming_seed", values=column, observed=True
        )
        return float(networks.mean()), spread.of_shared_chips(table.to_numpy()), "networks"
    return float(networks.mean()), spread.of_independent(networks.to_numpy()), "networks"


def _life(chips: pd.DataFrame, loss: float, confidence: float) -> dict[str, object]:
    moments, mean, half, late = [], [], [], []
    level = "networks"
    for moment, group in chips.groupby("t_inference_s", sort=True):
        value, error, level = _mean(group, "loss")
        moments.append(float(str(moment)))
        mean.append(value)
        half.append(error.half_width(confidence))
        late.append(bool(group["extrapolated"].any()))
    t, curve, width = np.array(moments), np.array(mean), np.array(half)
    crossing, censored = _crossing(t, curve, loss)
    low, low_censored = _crossing(t, curve + width, loss)
    high, high_censored = _crossing(t, curve - width, loss)
    is_known = not np.isnan(width).any()
    beyond = np.interp(np.log(crossing), np.log(t), np.array(late, dtype=float)) > 0
    return {
        "lifetime_s": crossing,
        "low_s": 0.0 if low_censored == "left" or not is_known else low,
        "high_s": float("inf") if high_censored == "right" or not is_known else high,
        "censored": censored,
        "level": level,
        "n_networks": chips["checkpoint"].nunique(),
        "n_chips": int(chips.groupby("checkpoint", observed=True)["chip_id"].nunique().min()),
        "n_images_per_chip": chips["n_images_per_chip"].iloc[0],
        "n_test": chips["n_test"].iloc[0],
        "extrapolated": bool(beyond),
    }


def _crossing(t: spread.Floats, curve: spread.Floats, level: float) -> tuple[float, str]:
    """First time at which a curve, linear in log time, rises above a level; how censored."""
    above = np.flatnonzero(curve > level)
    if len(above) == 0:
        return float(t[-1]), "right"
    k = int(above[0])
    if k == 0:
        return float(t[0]), "left"
    share = (level - curve[k - 1]) / (curve[k] - curve[k - 1])
    return float(t[k - 1] * (t[k] / t[k - 1]) ** share), ""
