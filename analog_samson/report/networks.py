"""Digital networks: training curves, and sharpness of the minima."""

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from analog_samson.report import words
from analog_samson.report.axes import WIDE_RANGE, beside, finish, head, log_axis, share
from analog_samson.report.figures import moment, panel_grid, times_note
from analog_samson.report.methods import KNOWN_METHODS
from analog_samson.report.style import (
    among,
    by_strengths,
    is_wide,
    line_width,
    order,
    plot_options,
    strength_options,
    style,
)
from analog_samson.results.comparison import holm
from analog_samson.results.correlation import Correlation, rank_correlation
from analog_samson.results.scores import score_of

CURVES = (
    ("loss", "training loss [nat]"),
    ("offset_ratio", "offset / weights"),
    ("update_gradient_norm", "gradient norm"),
)
"""Columns of a training log, and the label of each axis."""

MOST_LINES = 3
"""Most trainings of a method that are drawn one by one: our choice."""

MEASURES = ("average_sharpness", "adaptive_sharpness", "hessian_eigenvalue")
"""Measures of sharpness that are drawn; the first alone where there is one column."""

_TEXT_OF = {
    "average_sharpness": "rise of the loss [nat]\nunder noise of {sigma:g} max|w|",
    "sam_sharpness": "rise of the loss [nat]\nwithin radius {rho_sam:g}",
    "adaptive_sharpness": "adaptive sharpness [nat]\nwithin radius {rho_adaptive:g}",
    "samson_sharpness": "SAMSON sharpness [nat]\nwithin radius {rho_samson:g}",
    "hessian_eigenvalue": "largest eigenvalue\nof the Hessian",
    "gradient_norm": "gradient norm",
}


def training_curves(paths: Iterable[str | Path], methods: Iterable[str] = ()) -> pd.DataFrame:
    """Read the logs of several trainings into one tidy table.

    Args:
        paths: CSV files beside checkpoints, with the names of these
            ("mnist-lenet5-samson-rho=0.5-seed0.csv").
        methods: Import names of methods of other packages among them.

    Returns:
        The rows of all logs with the columns ``method``, ``strength`` and ``training_seed`` in
        front; ``strength_in_epoch`` is the strength used in the epoch.

    Raises:
        FileNotFoundError: If a file does not exist.
        ValueError: If a file's name contains no known method, or there are no files.

    Example:
        >>> from pathlib import Path
        >>> curves = training_curves(sorted(Path("digits/networks").glob("*.csv")))
        >>> curves.groupby("method")["epoch"].max().to_dict()
        {'sam': 2, 'sgd': 2}
    """
    called = {re.sub(r"[^\w.]", "_", name): name for name in (*KNOWN_METHODS, *methods)}
    logs = [_read_log(Path(path), called) for path in paths]
    if not logs:
        raise ValueError("There are no training logs; give at least one.")
    return pd.concat(logs, ignore_index=True)


def training_curve(ax: Axes, curves: pd.DataFrame, column: str, title: str) -> list[Line2D]:
    """Draw one column of training logs against the epoch.

    Up to `MOST_LINES` trainings of a method have a line each; of more their median is drawn, and
    the range from the smallest to the largest is shaded.

    Args:
        ax: Where to draw.
        curves: As `training_curves` gives: ``method``, ``strength``, ``training_seed``, ``epoch``
            (counted from 0), ``layer`` (empty for the whole network) and the column drawn.
        column: Column to draw.
        title: Label of the vertical axis.

    Returns:
        One handle per method.

    Raises:
        ValueError: If columns are missing or there are no rows.

    Example:
        >>> from pathlib import Path
        >>> curves = training_curves(sorted(Path("digits/networks").glob("*.csv")))
        >>> [handle.get_label() for handle in training_curve(ax, curves, "loss", "loss [nat]")]
        ['sgd', 'sam rho=0.1']
    """
    check_columns(curves, ("method", "strength", "training_seed", "epoch", column))
    whole = _whole(curves)
    handles = _draw_curves(ax, whole, column, {})
    _scale(ax, whole[column])
    ax.set_ylabel(title)
    return handles


def training_figure(
    curves: pd.DataFrame,
    baseline: str = "sgd",
    *,
    task: str = "",
    width: str | float = "two columns",
    look: str = "paper",
) -> Figure:
    """Loss, size of the perturbation and gradient norm against the epoch.

    A method with more than two strengths has a row of panels of its own, with the baseline; all
    others share one.

    Args:
        curves: As for `training_curve`.
        baseline: Method that stands in every row.
        task: Data set and network in words ("LeNet-5 on MNIST"), for the caption; "": not said.
        width: "one column", "two columns" or inches.
        look: "paper", "talk" or the path of a style sheet (.mplstyle).

    Returns:
        The figure.

    Raises:
        ValueError: If columns are missing, there are no rows, or a name is unknown.

    Example:
        >>> from pathlib import Path
        >>> figure = training_figure(training_curves(sorted(Path("digits/networks").glob("*.csv"))))
        >>> [ax.get_ylabel() for ax in figure.axes]
        ['training loss [nat]', 'offset / weights', 'gradient norm']
    """
    check_columns(curves, ("method", "strength", "training_seed", "epoch", *dict(CURVES)))
    whole = _whole(curves)
    recipes = {name: re.sub(r"=[\d.e+-]+", "=", name) for name in whole["name"].unique()}
    strengths, others = by_strengths(recipes, baseline, 3)
    rows = [*strengths, others] if others else strengths
    with style(look), among(whole["name"].unique()):
        is_across = is_wide(width, look)
        figure, axes = panel_grid(
            3 * len(rows), width, look, aspect=0.85, share_y=False, across=3 if is_across else 1
        )
        handles: dict[str, Line2D] = {}
        for k, names in enumerate(rows):
            own = whole[whole["name"].isin(names)]
            has_shades = k < len(strengths)
            shaded = [name for name in names if has_shades and name != baseline]
            drawn: dict[str, Line2D] = {}
            for ax, (column, title) in zip(axes[3 * k : 3 * k + 3], CURVES, strict=True):
                for handle in _draw_curves(ax, own, column, strength_options(shaded)):
                    drawn[str(handle.get_label())] = handle
                ax.set_ylabel(title)
            if not has_shades:
                handles = drawn
                continue
            called = {words.method_text(name): drawn[name] for name in names}
            beside(axes[3 * k + 2 * is_across], called)
        for n, (column, _) in enumerate(CURVES):
            for ax in axes[n::3]:
                _scale(ax, whole[column])
            share(axes[n::3])
        trainings = whole.groupby("name").apply(lambda own: len(set(_training(own))))
        shown = "one line each"
        if trainings.max() > MOST_LINES:
            shown = f"medians of more than {MOST_LINES} (shaded: smallest to largest)"
        note = f"{words.led_by(task)}n = {trainings.sum()} trainings, {shown}. Offset / weights: "
        finish(figure, handles, note + "their norms, one by the other.")
    return figure


def sharpness_vs_robustness(
    ax: Axes,
    networks: pd.DataFrame,
    sharpness: pd.DataFrame,
    measure: str,
    p_value: float | None = None,
) -> list[Line2D]:
    """Scatter every network: sharpness of its minimum against the accuracy that its chips lose.

    Args:
        ax: Where to draw.
        networks: As `results.network_means` gives, of one panel at one time.
        sharpness: Columns ``checkpoint`` and the measure, as in ``sharpness.csv``.
        measure: Column of ``sharpness``.
        p_value: That of the correlation within methods, corrected for the number of panels (see
            `correlations`); None takes that of this panel alone.

    Returns:
        One handle per method.

    Raises:
        ValueError: If no network has the measure.

    Example:
        >>> from analog_samson.results import network_means
        >>> networks = network_means(chips[chips["t_inference_s"] == 3600.0])
        >>> sharpness = networks[["checkpoint"]].assign(sam_sharpness=range(6), rho_sam=0.05)
        >>> handles = sharpness_vs_robustness(ax, networks, sharpness, "sam_sharpness")
        >>> [handle.get_label() for handle in handles]
        ['sgd', 'sam rho=0.1']
    """
    check_columns(sharpness, ("checkpoint", measure))
    settings = sharpness.columns[sharpness.columns.str.match("sigma$|rho_")]
    rows = networks.merge(sharpness[["checkpoint", measure, *settings]], on="checkpoint")
    if rows.empty:
        raise ValueError(
            f"No network of the study has a value of {measure!r}; measure its own networks "
            "(experiments/landscape.py)."
        )
    score = score_of(rows)
    rows["lost"] = score.shown_loss(score.lost(rows[score.digital], rows[score.column]))
    names = words.method_names(rows)
    handles = []
    for name in sorted(names.unique(), key=order):
        options = {**plot_options(name, names.unique()), "linestyle": "none"}
        own = rows[names == name]
        ax.plot(own[measure], own["lost"], **options)
        handles.append(Line2D([], [], label=name, **options))
    if (rows[measure] > 0).all():
        log_axis(ax.set_xscale, ax.xaxis)
    found = rank_correlation(rows[measure].to_numpy(), rows["lost"].to_numpy(), names.to_numpy())
    text = correlation_text(found if p_value is None else found._replace(p_within=p_value))
    ax.set_title(text, weight="normal", fontsize="small")
    ax.margins(0.1)
    ax.grid(True, axis="x")
    text = _TEXT_OF.get(measure, measure.replace("_", " "))
    ax.set_xlabel(text.format(**rows[settings].iloc[0]))
    ax.set_ylabel(score.lost_axis(f" at {moment(rows)}"))
    return handles


def sharpness_figure(
    networks: pd.DataFrame,
    sharpness: pd.DataFrame,
    *,
    measures: tuple[str, ...] = MEASURES,
    width: str | float = "two columns",
    look: str = "paper",
) -> Figure:
    """Sharpness against the accuracy that chips lose, a row per device, a panel per measure.

    Args:
        networks: As `results.network_means` gives, at one time a device.
        sharpness: As in ``sharpness.csv``.
        measures: Columns of ``sharpness``; a figure of one column shows the first only.
        width: "one column", "two columns" or inches.
        look: "paper", "talk" or the path of a style sheet (.mplstyle).

    Returns:
        The figure.

    Raises:
        ValueError: If no network has a measure, or a name is unknown.

    Example:
        >>> from analog_samson.results import network_means
        >>> networks = network_means(chips[chips["t_inference_s"] == 3600.0])
        >>> sharpness = networks[["checkpoint"]].assign(sam_sharpness=range(6), rho_sam=0.05)
        >>> figure = sharpness_figure(networks, sharpness, measures=("sam_sharpness",))
        >>> len(figure.axes)  # one device, one measure
        1
    """
    measures = measures if is_wide(width, look) else measures[:1]
    columns = words.varying(networks)
    groups = list(networks.groupby(["device", *columns], observed=True, sort=True))
    with style(look), among(words.method_names(networks).unique()):
        n = len(groups) * len(measures)
        figure, axes = panel_grid(n, width, look, aspect=0.85, share_y=False, across=len(measures))
        handles: dict[str, Line2D] = {}
        panels = [(part, measure) for _, part in groups for measure in measures]
        found = correlations(panels, sharpness)
        for k, (ax, (part, measure), one) in enumerate(zip(axes, panels, found, strict=True)):
            for handle in sharpness_vs_robustness(ax, part, sharpness, measure, one.p_within):
                handles[str(handle.get_label())] = handle
            title = "\n" + ax.get_title(loc="left")
            ax.set_title(title, weight="normal", fontsize="small")
            if k % len(measures) == 0:
                head(ax, words.group_title(part.iloc[0], columns, networks["device"].unique()))
            else:
                ax.set_ylabel("")
        n_tests = sum(not math.isnan(one.p_within) for one in found)
        n = networks.loc[
            networks["checkpoint"].isin(sharpness["checkpoint"]), "checkpoint"
        ].nunique()
        note = (
            f"n = {n} networks × {words.range_text(networks['n_chips'])} chips: one point a "
            "trained network, its chips averaged; sharpness on training images; "
            "Spearman's rank correlation over all points | "
            "within methods (differences between methods removed; p of permutations, Holm's "
            f"correction over the {n_tests} panels). {words.fixed_text(networks)}."
            f"{times_note(networks)}"
        )
        finish(figure, handles, note)
    return figure


def correlations(
    panels: Sequence[tuple[pd.DataFrame, str]], sharpness: pd.DataFrame
) -> list[Correlation]:
    """Rank correlations of sharpness with what is lost, their p-values corrected by Holm.

    Args:
        panels: Networks at one time on one device, and a column of ``sharpness``, of each panel.
        sharpness: As in ``sharpness.csv``.

    Returns:
        One for each panel; `p_within` is corrected for the number of panels with one.
    """
    found = []
    for networks, measure in panels:
        rows = networks.merge(sharpness[["checkpoint", measure]], on="checkpoint")
        score = score_of(rows)
        lost = score.lost(rows[score.digital], rows[score.column]).to_numpy()
        names = words.method_names(rows).to_numpy()
        found.append(rank_correlation(rows[measure].to_numpy(), lost, names))
    corrected = holm(np.array([one.p_within for one in found]))
    return [one._replace(p_within=float(p)) for one, p in zip(found, corrected, strict=True)]


def correlation_text(found: Correlation) -> str:
    """Rank correlation over all networks | within methods, where there are several."""
    text = f"Spearman {found.overall:+.2f}"
    if not math.isnan(found.within):
        text += f" | {found.within:+.2f} (p = {found.p_within:.2g})"
    return text.replace("-", "−")


def check_columns(rows: pd.DataFrame, columns: tuple[str, ...]) -> None:
    """Check that rows have the columns that a figure needs.

    Raises:
        ValueError: If columns are missing or there are no rows.
    """
    missing = sorted(set(columns) - set(rows.columns))
    if missing:
        raise ValueError(f"The columns {missing} are missing; there are {list(rows.columns)}.")
    if rows.empty:
        raise ValueError("There are no rows to draw.")


def _whole(curves: pd.DataFrame) -> pd.DataFrame:
    """Rows of whole networks, with the ``name`` of the method with its strength."""
    whole = curves[curves["layer"].isin([np.nan, ""])] if "layer" in curves else curves
    if whole.empty:
        raise ValueError("There are no rows of whole networks (without a layer); give some.")
    whole = whole.assign(strength=whole["strength"].astype(object).fillna(""))
    return whole.assign(name=words.method_names(whole))


def _training(rows: pd.DataFrame) -> "pd.Series[Any]":
    """What tells the trainings of one method apart: the network, or else its seed."""
    return rows["checkpoint"] if "checkpoint" in rows else rows["training_seed"]


def _draw_curves(
    ax: Axes, whole: pd.DataFrame, column: str, options_of: Mapping[str, Mapping[str, Any]]
) -> list[Line2D]:
    """Draw a column of whole networks; methods without options have colour and marker of their own.

    Returns:
        One handle per method.
    """
    handles = []
    names = sorted(whole["name"].unique(), key=order)
    for name in names:
        options = options_of.get(name) or plot_options(name, names)
        own = whole[whole["name"] == name].dropna(subset=[column])
        own = own.assign(training=_training(own))
        by_epoch = own.pivot(index="epoch", columns="training", values=column)
        by_epoch.index += 1
        lines = by_epoch
        if by_epoch.shape[1] > MOST_LINES:
            lines = by_epoch.median(axis=1).to_frame()
            low, high = by_epoch.min(axis=1), by_epoch.max(axis=1)
            ax.fill_between(by_epoch.index, low, high, color=options["color"], alpha=0.15, lw=0)
        thin = {"color": options["color"], "linestyle": options["linestyle"], "alpha": 0.8}
        for line in (line.dropna() for _, line in lines.items()):
            ax.plot(line.index, line, lw=line_width(0.8), **thin)
            ax.plot(line.index[-1:], line.tail(1), **options)
        handles.append(Line2D([], [], label=name, **options))
    if whole[column].isna().all():
        ax.text(0.5, 0.5, "none", transform=ax.transAxes, ha="center", color="0.4")
        ax.set_xlim(1, whole["epoch"].max() + 1)
    ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    ax.set_xlabel("epoch")
    return handles


def _scale(ax: Axes, values: "pd.Series[float]") -> None:
    """Make the axis of a training log logarithmic where its values are positive and far apart."""
    known = values[np.isfinite(values)]
    if len(known) and known.min() > 0 and known.max() > WIDE_RANGE * known.min():
        log_axis(ax.set_yscale, ax.yaxis)
    else:
        ax.set_ylim(bottom=0.0)


def _read_log(path: Path, methods: Mapping[str, str]) -> pd.DataFrame:
    if not path.is_file():
        raise FileNotFoundError(f"No training log at {str(path)!r}.")
    parts = path.stem.split("-")
    at = next((k for k, part in enumerate(parts) if part in methods), None)
    seed = re.search(r"-seed(\d+)", path.stem)
    if at is None or seed is None:
        raise ValueError(
            f"The name {path.name!r} holds no training method and seed; expected a name such as "
            "'mnist-lenet5-samson-rho=0.5-seed0.csv'."
        )
    strength = [part.replace(",", " ") for part in parts[at + 1 :] if "=" in part]
    strength += ["fine-tuned"] * ("finetuned" in parts[at + 1 :])
    log = pd.read_csv(path).rename(columns={"strength": "strength_in_epoch"})
    log.insert(0, "method", methods[parts[at]])
    log.insert(1, "strength", " ".join(strength))
    log.insert(2, "training_seed", int(seed.group(1)))
    return log
