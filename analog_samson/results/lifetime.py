"""Lifetime until a given loss of the score, and normalised (iso-)accuracy."""

import json
import math
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import pandas as pd
from scipy.interpolate import PchipInterpolator

from analog_samson.results import spread
from analog_samson.results.definitions import COMPARED_UNDER, METHOD
from analog_samson.results.scores import Score, score_of, with_score_of
from analog_samson.results.subsets import digital_score
from analog_samson.results.summary import GROUP, chip_means, estimate

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
    pool: bool | None = None,
) -> pd.DataFrame:
    """Time until a method has lost a given accuracy, interpolated in log time.

    The mean loss is interpolated in log time between the measured times (t > 0) by
    monotone cubics (PCHIP: Fritsch and Carlson 1980, SIAM J. Numer. Anal. 17, 238); its first
    crossing is the lifetime.

    The interval begins at the last time before the upper confidence bound of the loss exceeds the
    given loss for the first time, and ends at the first time from which on the lower bound exceeds
    it. It uses measured times only, so it contains the error of the interpolation: each side misses
    the true crossing of a loss that grows with time, whatever its shape, only if the bound of the
    loss at one time does.

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
        pool: Whether the spread is pooled over methods, as in `summarise`.

    Returns:
        One row per curve: the columns of `CURVE`, ``loss``, ``reference``,
        ``lifetime_s``, ``low_s``, ``high_s`` [s], ``censored``: "" (crossed within the measured
        times), "right" (never lost as much: ``lifetime_s`` is the last time, a lower bound),
        "left" (lost before the first time t > 0, an upper bound); ``low_s`` is 0 and ``high_s``
        infinite where the data give no bound; ``further_times`` (how many more times between
        ``low_s`` and ``high_s``, equally spaced in log time, would make the steps between times as
        short as the interval that the spread alone leaves; 0 where an end is open), ``level``,
        ``confidence``, ``spread``, ``n_networks``, ``n_chips``, ``n_images_per_chip``, ``n_test``,
        ``extrapolated`` (whether the crossing, or the last time
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
    later = chips[chips["t_inference_s"] > 0]
    if later.empty:
        return pd.DataFrame()
    losses = estimate(later.assign(**{score.column: later["loss"]}), confidence, pool=pool)
    losses = losses.rename(columns={score.column: "mean_loss"})
    records = []
    for curve, group in losses.groupby(list(CURVE), observed=True, sort=True):
        row: dict[str, object] = dict(zip(CURVE, curve, strict=True))
        row.update({"loss": loss, "reference": reference})
        row.update(_life(group, score.threshold(loss)))
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
    pool: bool | None = None,
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
        pool: Whether the spread is pooled over methods, as in `summarise`.

    Returns:
        One row per group: the columns of `GROUP`, ``normalised``,
        ``low``, ``high``, ``is_iso`` (the mean is above the threshold), ``is_iso_surely`` (the
        whole interval is), ``level``, ``spread``, ``confidence``, ``n_networks``, ``n_chips``,
        ``n_chips_max``, ``half_width``, ``n_images_per_chip``, ``n_test``, ``extrapolated``.

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
    width = chips[score.digital] - chance
    chips[score.column] = (chips[score.column] - chance) / width
    chips["resolution"] /= width.abs()
    found = estimate(chips, confidence, pool=pool).rename(columns={score.column: "normalised"})
    found["is_iso"] = found["normalised"] > threshold
    found["is_iso_surely"] = (found["level"] == "networks") & (found["low"] > threshold)
    kept = [*GROUP, "normalised", "low", "high", "half_width", "confidence", "is_iso"]
    kept += ["is_iso_surely", "level", "spread", "n_networks", "n_chips", "n_chips_max"]
    return with_score_of(rows, found[[*kept, "n_images_per_chip", "n_test", "extrapolated"]].copy())


def _guessing(rows: pd.DataFrame, score: Score, n_classes: Mapping[str, int]) -> "pd.Series[float]":
    """Score of guessing of each row's data set; NaN where its classes are not known."""
    guess = {dataset: score.guessing(n) for dataset, n in n_classes.items() if score.guessing}
    return rows["dataset"].astype(str).map(guess).astype(float)


def _complete(chips: pd.DataFrame) -> pd.DataFrame:
    """Chips measured at every time of their curve: others would bias the mean curve."""
    n_times = chips.groupby(list(CURVE), observed=True)["t_inference_s"].transform("nunique")
    own = chips.groupby("chip_id", observed=True)["t_inference_s"].transform("nunique")
    return chips[own == n_times]


def _life(losses: pd.DataFrame, level: float) -> dict[str, object]:
    """Crossing of one curve, its interval, and its properties."""
    losses = losses.sort_values("t_inference_s")
    t = losses["t_inference_s"].to_numpy(dtype=float)
    mean, width = losses["mean_loss"].to_numpy(), losses["half_width"].to_numpy()
    late = losses["extrapolated"].to_numpy(dtype=bool)
    crossing, censored = _crossing(t, mean, level)
    low, high, further = 0.0, float("inf"), 0
    if not np.isnan(width).any():
        low, high = _interval(t, mean - width, mean + width, level)
        early, _ = _crossing(t, mean + width, level)
        later, _ = _crossing(t, mean - width, level)
        if low > 0 and np.isfinite(high) and later > early:
            steps = np.log(high / low) / np.log(later / early)
            between = int(np.sum((t > low) & (t < high)))
            further = max(0, int(np.ceil(steps - spread.ROUNDING)) - 1 - between)
    first = losses.iloc[0]
    beyond = np.interp(np.log(crossing), np.log(t), late.astype(float)) > 0
    return {
        "lifetime_s": crossing,
        "low_s": low,
        "high_s": high,
        "further_times": further,
        "censored": censored,
        "level": first["level"],
        "confidence": first["confidence"],
        "n_networks": first["n_networks"],
        "spread": "pooled" if (losses["spread"] == "pooled").any() else "own",
        "n_chips": int(losses["n_chips"].min()),
        "n_images_per_chip": first["n_images_per_chip"],
        "n_test": first["n_test"],
        "extrapolated": bool(beyond),
    }


def _interval(
    t: spread.Floats, lower: spread.Floats, upper: spread.Floats, level: float
) -> spread.Bounds:
    """Times between which a growing loss inside a band crosses a level; 0 and inf: no bound."""
    above, below = np.flatnonzero(upper > level), np.flatnonzero(lower <= level)
    first = int(above[0]) if len(above) else len(t)
    last = int(below[-1]) if len(below) else -1
    return (
        float(t[first - 1]) if first > 0 else 0.0,
        float(t[last + 1]) if last + 1 < len(t) else float("inf"),
    )


def _crossing(t: spread.Floats, curve: spread.Floats, level: float) -> tuple[float, str]:
    """First time at which a curve, monotone between its times, exceeds a level; how censored."""
    above = np.flatnonzero(curve > level)
    if len(above) == 0:
        return float(t[-1]), "right"
    k = int(above[0])
    if k == 0:
        return float(t[0]), "left"
    x = np.log(t)
    found = PchipInterpolator(x, curve - level).roots(extrapolate=False)
    inside = found[(found >= x[k - 1]) & (found <= x[k])]
    return float(np.exp(inside[0])) if len(inside) else float(t[k]), ""
