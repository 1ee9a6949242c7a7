"""Lifetime until a given loss of the score, and normalised (iso-)accuracy."""

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.interpolate import PchipInterpolator

from analog_samson.results import spread
from analog_samson.results.definitions import COMPARED_UNDER, METHOD
from analog_samson.results.scale import Scale, is_logit, scales_of
from analog_samson.results.scores import Score, score_of, with_score_of
from analog_samson.results.subsets import digital_score
from analog_samson.results.summary import GROUP, chip_means, estimate, split, typical_chips

CURVE = (*COMPARED_UNDER[:-1], *METHOD)
"""Columns that identify an accuracy-vs-time curve: `GROUP` without the time."""

BISECTIONS = 60
"""Halvings of a step between two times: more than the bits of a double."""

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
    """Time until a method has lost a given accuracy for the first time, interpolated in log time.

    The mean loss is interpolated in log time between the measured times (t > 0) by
    monotone cubics (PCHIP: Fritsch and Carlson 1980, SIAM J. Numer. Anal. 17, 238); its first
    crossing is the lifetime. A mean loss that exceeds the given one, and is below it again at a
    later measured time (as where drift compensation or relaxation improves a chip), has ended its
    lifetime at the first crossing, too; ``returns`` says so.

    The interval begins at the last time before the upper confidence bound of the loss exceeds the
    given loss for the first time, and ends at the first time at which the lower bound exceeds it.
    It uses measured times only, so it contains the error of the interpolation, whatever the shape
    of the curve until its first crossing.

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
        ``returns`` (whether the mean loss is not above the given one at a later time),
        ``measured_s`` (the last time that is not extrapolated; infinite where all times are
        measured ones), ``extrapolated`` (whether the crossing, or the last time when censored, lies
        beyond the device's measured times).

    Raises:
        ValueError: If the loss is not between 0 and 1 (a relative one: not above 0), it is relative
            to 0, the reference is unknown, or the times of a device are independent draws, or those
            of refreshed chips (see :func:`has_trajectories`).

    Example:
        >>> lives = lifetime(rows, loss=0.2)
        >>> lives[["method", "lifetime_s", "censored"]].values.tolist()
        [['sam', 2592000.0, 'right'], ['sgd', 2592000.0, 'right']]
    """
    if rows.empty:
        return pd.DataFrame()
    score = score_of(rows)
    if not 0 < loss < (math.inf if score.has_relative_losses else 1):
        allowed = "positive" if score.has_relative_losses else "a fraction between 0 and 1"
        raise ValueError(f"Loss must be {allowed}, such as {score.losses[0]}; got {loss!r}.")
    if reference not in ("digital", "first"):
        raise ValueError(f"Reference must be 'digital' or 'first'; got {reference!r}.")
    torn = rows.loc[~has_trajectories(rows), ["device", "condition"]]
    if len(torn):
        device, condition = torn.iloc[0]
        why = (
            "are independent draws (times_share = 'independent'): no chip is simulated from one to "
            "the next"
        )
        if _is_refreshed(condition):
            why = "are those of chips that are programmed again in between (refresh_every)"
        raise ValueError(
            f"The times of device {device!r} {why}, so there is no lifetime; leave its rows out, "
            "as rows[has_trajectories(rows)] does."
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
    curves = split(losses.groupby(list(CURVE), observed=True, sort=True).ngroup().to_numpy())
    t = losses["t_inference_s"].to_numpy(dtype=float)
    of_times: dict[tuple[float, ...], list[int]] = {}
    for number, own in enumerate(curves):
        of_times.setdefault(tuple(t[own]), []).append(number)
    found = pd.concat(
        [
            _lives(losses, np.stack([curves[k] for k in numbers]), score.threshold(loss), numbers)
            for numbers in of_times.values()
        ]
    ).sort_index()
    named = losses.iloc[[own[0] for own in curves]][list(CURVE)].reset_index(drop=True)
    lives = pd.concat([named.assign(loss=loss, reference=reference), found], axis=1)
    return with_score_of(rows, lives)


def has_trajectories(rows: pd.DataFrame) -> "pd.Series[bool]":
    """Whether the cells of each row's chip keep their state over time.

    False if the cells are drawn independently at each time (``times_share = "independent"``), or
    chips are programmed again at intervals (``refresh_every``); such rows record it in
    ``condition``, whether it was swept or not.

    Args:
        rows: Rows of trials, or of chips.

    Example:
        >>> bool(has_trajectories(rows).all())
        True
    """
    conditions = rows["condition"].unique()
    is_one_chip = {
        text: json.loads(text).get("times_share") != "independent" and not _is_refreshed(text)
        for text in conditions
    }
    return rows["condition"].map(is_one_chip).astype(bool)


def _is_refreshed(condition: str) -> bool:
    return not isinstance(json.loads(condition).get("refresh_every", "never"), str)


def known_classes(manifests: Iterable[Mapping[str, Any]]) -> dict[str, int]:
    """Number of classes of each data set, from the manifests of studies.

    Args:
        manifests: Contents of ``manifest.json``; those of earlier versions do not state it.

    Returns:
        Data set to its number of classes; without data sets on which the networks disagree.

    Example:
        >>> checkpoints = {"my.safetensors": {"spec": {"dataset": "digits"}, "n_classes": 10}}
        >>> known_classes([{"checkpoints": checkpoints}])
        {'digits': 10}
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

    Example:
        >>> no_better_than_guessing(rows, {"digits": 10})
        []
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
    scale: Scale = "auto",
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
        scale: As in `lost`: on the logit scale that of the typical chip and digital network.

    Returns:
        One row per group: the columns of `GROUP`, ``normalised``,
        ``low``, ``high``, ``is_iso`` (the mean is above the threshold), ``is_iso_surely`` (the
        whole interval is), ``level``, ``spread``, ``scale``, ``confidence``, ``n_networks``,
        ``n_chips``, ``n_chips_max``, ``half_width``, ``n_images_per_chip``, ``n_test``,
        ``extrapolated``.

    Raises:
        ValueError: If guessing is not defined for the score, the number of classes of a data set is
            not known, or a digital network is no better than guessing.

    Example:
        >>> iso = iso_accuracy(rows, n_classes={"digits": 10})
        >>> iso.loc[iso["t_inference_s"] == 1.0, ["method", "level", "n_networks"]].values.tolist()
        [['sam', 'networks', 3], ['sgd', 'networks', 3]]
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
    scales = scales_of(chips, scale)
    chips = typical_chips(chips, scales)
    chance = _guessing(chips, score, n_classes)
    width = chips[score.digital] - chance
    chips[score.column] = (chips[score.column] - chance) / width
    chips["resolution"] /= width.abs()
    found = estimate(chips, confidence, pool=pool).rename(columns={score.column: "normalised"})
    found["scale"] = np.where(is_logit(found, scales), "logit", score.column)
    found["is_iso"] = found["normalised"] > threshold
    found["is_iso_surely"] = (found["level"] == "networks") & (found["low"] > threshold)
    kept = [*GROUP, "normalised", "low", "high", "half_width", "confidence", "is_iso"]
    kept += ["is_iso_surely", "level", "spread", "scale", "n_networks", "n_chips", "n_chips_max"]
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


def _lives(
    losses: pd.DataFrame, own: NDArray[Any], level: float, numbers: Sequence[int]
) -> pd.DataFrame:
    """Crossings of curves with the same times, their intervals, and their properties.

    Args:
        losses: The mean loss of every curve at every time, with its interval.
        own: Positions of the rows of each curve in the order of time, shape (curves, times).
        level: The loss that is crossed.
        numbers: Index of the result.
    """
    taken = {
        name: losses[name].to_numpy()[own]
        for name in ("mean_loss", "half_width", "extrapolated", "n_chips", "spread")
    }
    t = losses["t_inference_s"].to_numpy(dtype=float)[own[0]]
    mean, width = taken["mean_loss"].astype(float), taken["half_width"].astype(float)
    returns = (np.logical_or.accumulate(mean > level, axis=1) & (mean <= level)).any(axis=1)
    late = taken["extrapolated"].astype(bool)
    measured = np.where(late.any(axis=1), np.where(late, 0.0, t).max(axis=1), np.inf)
    crossing, censored = _crossings(t, mean, level)
    low, high = np.zeros(len(own)), np.full(len(own), np.inf)
    further = np.zeros(len(own), dtype=int)
    known = np.flatnonzero(~np.isnan(width).any(axis=1))
    if len(known):
        mean, width = mean[known], width[known]
        low[known], high[known] = _intervals(t, mean - width, mean + width, level)
        early, _ = _crossings(t, mean + width, level)
        later, _ = _crossings(t, mean - width, level)
        begin, end = low[known], high[known]
        is_wide = (begin > 0) & np.isfinite(end) & (later > early)
        begin, end = begin[is_wide], end[is_wide]
        steps = np.log(end / begin) / np.log(later[is_wide] / early[is_wide])
        between = np.sum((t > begin[:, None]) & (t < end[:, None]), axis=1)
        more = np.ceil(steps - spread.ROUNDING).astype(int) - 1 - between
        further[known[is_wide]] = np.maximum(more, 0)
    firsts = losses.iloc[own[:, 0]]
    x = np.log(t)
    beyond = [
        bool(np.interp(at, x, is_late) > 0)
        for at, is_late in zip(np.log(crossing), late, strict=True)
    ]
    return pd.DataFrame(
        {
            "lifetime_s": crossing,
            "low_s": low,
            "high_s": high,
            "further_times": further,
            "censored": censored,
            "level": firsts["level"].to_numpy(),
            "confidence": firsts["confidence"].to_numpy(),
            "n_networks": firsts["n_networks"].to_numpy(),
            "spread": np.where((taken["spread"] == "pooled").any(axis=1), "pooled", "own"),
            "n_chips": taken["n_chips"].min(axis=1),
            "n_images_per_chip": firsts["n_images_per_chip"].to_numpy(),
            "n_test": firsts["n_test"].to_numpy(),
            "returns": returns,
            "measured_s": measured,
            "extrapolated": beyond,
        },
        index=list(numbers),
    )


def _intervals(
    t: spread.Floats, lower: spread.Floats, upper: spread.Floats, level: float
) -> tuple[spread.Floats, spread.Floats]:
    """Times between which losses inside bands cross a level first; 0 and inf: no bound."""
    may, must = _first(upper > level), _first(lower > level)
    return np.append(0.0, t)[may], np.append(t, np.inf)[must]


def _first(has_crossed: NDArray[np.bool_]) -> NDArray[np.int64]:
    """Number of the first time at which each curve has crossed; that of times where none has."""
    number: NDArray[np.int64] = has_crossed.argmax(axis=1)
    number[~has_crossed.any(axis=1)] = has_crossed.shape[1]
    return number


def _crossings(
    t: spread.Floats, curves: spread.Floats, level: float
) -> tuple[spread.Floats, NDArray[Any]]:
    """First times at which curves, monotone between their times, exceed a level; how censored."""
    first = _first(curves > level)
    censored = np.select([first == len(t), first == 0], ["right", "left"], "")
    found = t[np.minimum(first, len(t) - 1)]
    inside = np.flatnonzero(censored == "")
    if len(inside):
        x, segment = np.log(t), first[inside] - 1
        cubics = PchipInterpolator(x, curves[inside] - level, axis=1).c
        shift = _root(cubics[:, segment, np.arange(len(inside))], np.diff(x)[segment])
        found[inside] = np.exp(x[segment] + shift)
    return found, censored


def _root(cubics: spread.Floats, width: spread.Floats) -> spread.Floats:
    """Where monotone cubics become positive between 0 and a width: bisection to the last bit.

    Args:
        cubics: Coefficients, the highest power first, shape (4, n).
        width: Where each of them is positive, shape (n,).
    """
    low, high = np.zeros(len(width)), width.astype(float)
    for _ in range(BISECTIONS):
        middle = (low + high) / 2
        value = np.polyval(cubics, middle)
        low, high = np.where(value > 0, low, middle), np.where(value > 0, middle, high)
    return high
