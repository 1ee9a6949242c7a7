"""All tables and figures of a study, from its trials."""

import difflib
import re
from collections.abc import Iterable, Sequence
from pathlib import Path

import pandas as pd
from matplotlib.figure import Figure

from analog_samson import results
from analog_samson.report import figures, sweeps, tables, words
from analog_samson.report.typeset import Table

LOSSES = (0.01, 0.02, 0.05)
"""Losses of accuracy that lifetimes are given for; the figure shows the one that tells most."""

MAX_PANELS = 12
"""A figure with more panels than this is left to the noise grid: nobody reads it."""


def select(
    trials: pd.DataFrame,
    *,
    devices: Sequence[str] = (),
    methods: Sequence[str] = (),
    times_s: Sequence[float] = (),
) -> pd.DataFrame:
    """Keep some devices, methods and times; nothing named keeps all.

    Args:
        trials: Rows of trials.
        devices: Names of devices.
        methods: Names of methods, with or without strength ("sam", "sam rho=0.5").
        times_s: Times since programming [s].

    Returns:
        The rows that match.

    Raises:
        ValueError: If a name or time is not among the trials.
    """
    names = words.method_names(trials)
    _check_known("device", devices, trials["device"].unique())
    _check_known("method", methods, {*names, *trials["method"]})
    _check_known("time", list(map(str, times_s)), map(str, trials["t_inference_s"].unique()))
    kept = pd.Series(True, index=trials.index)
    if devices:
        kept &= trials["device"].isin(devices)
    if methods:
        kept &= names.isin(methods) | trials["method"].isin(methods)
    if times_s:
        kept &= trials["t_inference_s"].isin(times_s)
    return trials[kept]


def study_tables(
    trials: pd.DataFrame,
    *,
    baseline: str = "sgd",
    confidence: float = 0.95,
    bootstrap: bool = False,
    half_width: float | None = None,
) -> dict[str, Table]:
    """Every table that the trials have data for.

    Args:
        trials: Rows of trials.
        baseline: Method that gains are counted from; without it there is no gain table.
        confidence: Probability with which intervals cover.
        bootstrap: Whether intervals of the accuracy come from a bootstrap over networks.
        half_width: A half-width to plan for, as a fraction: a table says which chips or networks
            are missing for it.

    Returns:
        File stem to table: "accuracy" always, "gain", "lifetime", "iso_accuracy", "grid" where
        there are data, "planning" for a half-width.

    Raises:
        ValueError: If there are no trials, or they mix definitions.
    """
    summary = results.summarise(trials, confidence, bootstrap=bootstrap)
    finished = {"accuracy": tables.table(summary, results.best_methods(trials, confidence))}
    gains = _gains(trials, baseline, confidence)
    if len(gains):
        alone = sorted(set(trials["device"]) - set(gains["device"]))
        finished["gain"] = tables.gain_table(gains, alone=alone)
    ageing = trials[results.has_trajectories(trials)]
    lives = [results.lifetime(ageing, loss, confidence=confidence) for loss in LOSSES]
    if len(lives[0]):
        finished["lifetime"] = tables.lifetime_table(lives)
    judged = set(trials["dataset"]) <= set(results.N_CLASSES)
    if judged and not results.no_better_than_guessing(trials):
        finished["iso_accuracy"] = tables.iso_table(
            results.iso_accuracy(trials, confidence=confidence)
        )
    if words.is_swept(summary):
        finished["grid"] = tables.grid_table(summary)
    if half_width is not None:
        plan = results.needed(trials, half_width, confidence)
        finished["planning"] = tables.planning_table(plan, half_width)
    return finished


def study_figures(
    trials: pd.DataFrame,
    *,
    baseline: str = "sgd",
    confidence: float = 0.95,
    bootstrap: bool = False,
    interval: str = "bars",
    width: str = "two columns",
    look: str = "paper",
) -> dict[str, Figure]:
    """Every figure that the trials have data for.

    Args:
        trials: Rows of trials.
        baseline: Method that gains are counted from.
        confidence: Probability with which intervals cover.
        bootstrap: Whether intervals of the accuracy come from a bootstrap over networks.
        interval: "bars" or "band", over time.
        width: "one column" or "two columns".
        look: Style sheet, "paper" or "talk".

    Returns:
        File stem to figure: "accuracy", "gain", "lifetime", "chips", "strips", "scatter", and per
        swept axis (or pair of axes) one more.

    Raises:
        ValueError: If there are no trials, they mix definitions, or a name is unknown.
    """
    how = {"width": width, "look": look}
    summary = results.summarise(trials, confidence, bootstrap=bootstrap)
    chips = results.chip_means(trials)
    drawn: dict[str, Figure] = {}
    if len(summary.groupby(["device", *words.varying(summary)], observed=True)) <= MAX_PANELS:
        drawn["accuracy"] = figures.accuracy_figure(summary, interval=interval, **how)
        gains = _gains(trials, baseline, confidence)
        if len(gains):
            drawn["gain"] = figures.gain_figure(gains, interval=interval, **how)
        ageing = trials[results.has_trajectories(trials)]
        lives = _telling([results.lifetime(ageing, loss, confidence=confidence) for loss in LOSSES])
        if len(lives):
            drawn["lifetime"] = figures.lifetime_figure(lives, **how)
        if len(ageing):
            drawn["chips"] = figures.chips_figure(results.chip_means(ageing), **how)
        drawn["strips"] = figures.strips_figure(chips, **how)
        drawn["scatter"] = figures.scatter_figure(results.network_means(chips), **how)
    axes = sweeps.swept_axes(summary)
    if len(axes) == 1:
        drawn[_stem(f"axis_{axes[0]}")] = sweeps.axis_figure(
            summary, axes[0], width=width, look=look
        )
    if len(axes) == 2:
        for device, rows in summary.groupby("device", observed=True):
            drawn[_stem(f"heat_{device}")] = sweeps.heat_figure(rows, *axes, **how)
    return drawn


def write_tables(finished: dict[str, Table], folder: str | Path) -> list[Path]:
    """Write tables as Markdown, LaTeX and CSV.

    Args:
        finished: File stem to table.
        folder: Where to; it must exist.

    Returns:
        The files written.

    Raises:
        FileNotFoundError: If the folder does not exist.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise FileNotFoundError(f"Folder {str(folder)!r} does not exist; make it first.")
    paths = []
    for stem, table in finished.items():
        texts = {"md": table.markdown(), "tex": table.latex(), "csv": table.csv()}
        for ending, text in texts.items():
            path = folder / f"{stem}.{ending}"
            path.write_text(text, encoding="utf-8", newline="\n")
            paths.append(path)
    return paths


def write_figures(
    drawn: dict[str, Figure],
    folder: str | Path,
    formats: Sequence[str] = figures.FORMATS,
    *,
    look: str = "paper",
) -> list[Path]:
    """Write figures.

    Args:
        drawn: File stem to figure.
        folder: Where to; it must exist.
        formats: Any of "pdf", "png", "svg", "pgf".
        look: Style sheet that the figures were drawn with.

    Returns:
        The files written.

    Raises:
        FileNotFoundError: If the folder does not exist.
        ValueError: If a format is unknown.
    """
    paths = []
    for stem, figure in drawn.items():
        paths += figures.save(figure, Path(folder) / stem, formats, look=look)
    return paths


def warnings_of(trials: pd.DataFrame, summary: pd.DataFrame) -> list[str]:
    """What a reader must know before believing the numbers.

    Args:
        trials: Rows of trials.
        summary: Their summary.

    Returns:
        One sentence a warning; empty when there is nothing to warn of.
    """
    found = []
    if (summary["n_networks"] == 1).any():
        alone = set(words.method_names(summary[summary["n_networks"] == 1]))
        names = [words.said(name) for name in sorted(alone)]
        found.append(
            f"One trained network for {', '.join(names)}: intervals are over chips only and say "
            "nothing about another training."
        )
    elif (summary["n_networks"] < 5).any():
        found.append(
            f"Only {summary['n_networks'].min()} trained networks for some methods: intervals are "
            "wide and lean on assumptions."
        )
    if (summary["n_chips"] < 5).any():
        found.append(f"Only {summary['n_chips'].min()} chips of some networks.")
    if (summary["n_chips"] < summary["n_chips_max"]).any() or _has_gaps(summary):
        found.append("The study is incomplete: some points are missing.")
    missing = words.missing_text(summary)
    if missing:
        found.append(f"Without trials: {missing}.")
    bare = summary[(summary["compensation"] == "none") & (summary["t_inference_s"] > 0)]
    if len(bare):
        found.append(f"No drift compensation on {', '.join(sorted(set(bare['device'])))}.")
    guessing = results.no_better_than_guessing(trials)
    if guessing:
        found.append(
            f"Digital networks no better than guessing: {', '.join(guessing)}; there is no table "
            "of normalised accuracy."
        )
    torn = trials[~results.has_trajectories(trials)]
    if len(torn):
        found.append(
            f"Every time of {', '.join(sorted(set(torn['device'])))} is an independent draw: the "
            "curves are no chip's and have no lifetime."
        )
    late = summary[summary["extrapolated"]]
    if len(late):
        found.append(
            f"Times beyond the measurements of {', '.join(sorted(set(late['device'])))} are "
            "extrapolated by the device model."
        )
    if not trials["reproducible"].all():
        found.append("Some rows come from an engine that cannot be seeded: not reproducible.")
    if trials["n_test"].min() < 1000:
        found.append(f"The evaluation set has only {trials['n_test'].min()} images.")
    return found


def _stem(name: str) -> str:
    """A name as part of a file name, whatever an edited table holds."""
    return re.sub(r"[^\w .+=,@()-]", "_", name)[:100]


def _telling(lives: Sequence[pd.DataFrame]) -> pd.DataFrame:
    """The lifetimes of the loss that most methods reach in time; of several the smallest."""
    if lives[0].empty:
        return lives[0]
    return max(lives, key=lambda one: (one["censored"] == "").sum())


def _has_gaps(summary: pd.DataFrame) -> bool:
    curves = summary.groupby(["device", *words.varying(summary)], observed=True)
    return any(
        len(rows) < rows["t_inference_s"].nunique() * words.method_names(rows).nunique()
        for _, rows in curves
    )


def _gains(trials: pd.DataFrame, baseline: str, confidence: float) -> pd.DataFrame:
    if baseline not in {*words.method_names(trials), *trials["method"]}:
        return pd.DataFrame()
    return results.paired_gain(trials, baseline, confidence)


def _check_known(kind: str, wanted: Iterable[str], known: Iterable[str]) -> None:
    known = sorted(known)
    for name in wanted:
        if name not in known:
            close = difflib.get_close_matches(name, known, n=1)
            hint = f" Did you mean {close[0]!r}?" if close else ""
            raise ValueError(f"No trial has the {kind} {name!r}; there are {known}.{hint}")
