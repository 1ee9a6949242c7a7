"""Where accuracy, or another score, is lost: the stages of a chip's error, and single layers."""

import functools
from collections.abc import Callable, Mapping, Sequence

import numpy as np
import pandas as pd
from matplotlib import rcParams
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

from analog_samson.report import words
from analog_samson.report.axes import finish
from analog_samson.report.figures import calendar_note, late_note, moment, panel_grid
from analog_samson.report.methods import device_label
from analog_samson.report.networks import check_columns
from analog_samson.report.style import line_width, order, style
from analog_samson.results.scores import score_of

WORSE, BETTER = "#D55E00", "#56B4E9"
UNEVEN = 30.0
"""Ratio of the largest change to the smallest from which the axis is logarithmic: our choice."""

MAX_PANELS = 12
"""Largest number of panels of one figure. Further networks and devices are left out; figures over
time are omitted, as the table of swept axes shows all values."""


def waterfall(ax: Axes, stages: pd.DataFrame, *, decimals: int | None = None) -> None:
    """Draw what each stage from the digital network to the chip changes, a bar a stage.

    The axis is logarithmic on both sides of a linear part around 0 where the changes differ much in
    size. Right of the bars: the change and the score after the stage, to the digits that the chips
    justify.

    Args:
        ax: Where to draw.
        stages: Rows in order with the columns ``stage`` ("digital", "mapped", ...) and
            ``accuracy`` (fraction; or that of another score); several rows per stage (chips) are
            averaged.
        decimals: Digits after the point; None takes those that the chips justify.

    Raises:
        ValueError: If there are no stages.

    Example:
        >>> waterfall(ax, stages)
        >>> [label.get_text() for label in ax.get_yticklabels()]
        ['digital', 'mapped', 'quantised', 'programmed', 'drifted', 'read', 'compensated']
    """
    score = score_of(stages)
    check_columns(stages, ("stage", score.column))
    mean = stages.groupby("stage", sort=False)[score.column].mean()
    values = score.shown(mean.to_numpy())
    changes, spread = np.diff(values), _spread_of_changes(stages, list(mean.index))
    decimals = _decimals(stages) if decimals is None else decimals
    scale = _fit_changes(ax, changes, spread)
    ax.axvline(0.0, color=rcParams["axes.edgecolor"], lw=line_width(0.55), zorder=3)
    is_worse = score.lost(values[:-1], values[1:]) > 0
    ax.barh(
        range(1, len(values)),
        changes,
        xerr=spread,
        color=np.where(is_worse, WORSE, BETTER),
        height=0.6,
        error_kw={"elinewidth": line_width(0.7)},
        zorder=2,
    )
    ax.set_yticks(range(len(values)), list(mean.index))
    ax.set_ylim(len(values) - 0.4, -0.6)
    for k, value in enumerate(values):
        text = f"{value:.{decimals}f}"
        if k:
            text = f"{_change(changes[k - 1], decimals)} → {text}"
        ax.annotate(
            text,
            (1.0, k),
            xycoords=("axes fraction", "data"),
            xytext=(2, 0),
            textcoords="offset points",
            va="center",
            fontsize="small",
        )
    ax.grid(False, axis="y")
    ax.grid(True, axis="x")
    unit = "points" if score.unit == "%" else score.unit
    ax.set_xlabel(f"change of {score.label}{score.direction}{f' [{unit}]' if unit else ''}{scale}")


def _spread_of_changes(stages: pd.DataFrame, order_: list[str]) -> np.ndarray:
    """Standard deviation over chips of the change by each stage; 0 of one chip."""
    score = score_of(stages)
    chip = [column for column in ("checkpoint", "chip") if column in stages]
    if not chip:
        return np.zeros(len(order_) - 1)
    wide = stages.assign(shown=score.shown(stages[score.column])).pivot_table(
        index=chip, columns="stage", values="shown"
    )
    changes = wide[order_].diff(axis=1).iloc[:, 1:]
    return np.asarray(changes.std().fillna(0.0))


def _fit_changes(ax: Axes, changes: np.ndarray, spread: np.ndarray) -> str:
    """Choose the scale of an axis of changes; returns a note for its label."""
    sizes = np.abs(changes)
    small = sizes[sizes > 0]
    largest = float((sizes + spread).max(initial=0.0))
    if not len(small) or largest < UNEVEN * small.min():
        ax.margins(x=0.1)
        return ""
    linear = 10.0 ** np.floor(np.log10(max(float(small.min()), 1e-3 * largest)))
    ax.set_xscale("symlog", linthresh=linear, linscale=0.6)
    ends = (
        3 * max(float((changes + spread).max()), linear),
        3 * max(float((spread - changes).max()), linear),
    )
    ax.set_xlim(-ends[1], ends[0])
    decades = np.arange(np.log10(linear), np.log10(max(ends)) + 1)
    at = 10.0 ** (decades[1::2] if len(decades) > 3 else decades)
    ticks = [*-at[::-1], 0.0, *at]
    ax.xaxis.set_major_locator(FixedLocator([t for t in ticks if -ends[1] <= t <= ends[0]]))
    ax.xaxis.set_minor_locator(NullLocator())
    ax.xaxis.set_major_formatter(FuncFormatter(lambda t, _: f"{t:g}".replace("-", "−")))
    return f"\nlogarithmic beyond ±{linear:g}"


def layer_sensitivity(ax: Axes, layers: pd.DataFrame) -> None:
    """Draw the accuracy with one layer analog at a time, in the order of the network.

    Args:
        ax: Where to draw.
        layers: Rows with the columns ``layer``, ``accuracy`` and ``clean_accuracy`` (fractions);
            or of another score; several rows per layer (chips) are averaged.

    Raises:
        ValueError: If there are no layers.

    Example:
        >>> layer_sensitivity(ax, layers)
        >>> [label.get_text() for label in ax.get_yticklabels()]
        ['fc1', 'fc2', 'fc3']
    """
    score = score_of(layers)
    check_columns(layers, ("layer", score.column, score.digital))
    loss = score.lost(layers[score.digital], layers[score.column])
    groups = loss.groupby(layers["layer"], sort=False)
    mean, spread = groups.mean(), groups.std().fillna(0.0)
    shown = score.shown_loss(mean)
    places = range(len(mean))
    ax.barh(
        places,
        shown,
        xerr=[shown - score.shown_loss(mean - spread), score.shown_loss(mean + spread) - shown],
        color=BETTER,
        height=0.65,
        error_kw={"elinewidth": line_width(0.7)},
        zorder=2,
    )
    ax.set_yticks(places, list(mean.index))
    ax.invert_yaxis()
    ax.grid(False, axis="y")
    ax.grid(True, axis="x")
    ax.set_xlabel(score.lost_axis("\nwith this layer alone analog"))


def waterfall_figure(
    stages: pd.DataFrame,
    names: Mapping[str, str],
    *,
    are_of_study: bool | None = None,
    task: str = "",
    width: str | float = "two columns",
    look: str = "paper",
) -> Figure:
    """Stage by stage, one panel per device, time and method.

    Args:
        stages: As in ``waterfall.csv``.
        names: Labels of networks by their ``checkpoint``; networks of equal label are averaged.
        are_of_study: Whether the chips are those of the study's table (see `are_chips_of`), for
            the caption; None: not said.
        task: Data set and network in words ("LeNet-5 on MNIST"), for the caption; "": not said.
        width: "one column", "two columns" or inches.
        look: "paper", "talk" or the path of a style sheet (.mplstyle).

    Returns:
        The figure.

    Raises:
        ValueError: If columns or rows are missing, or a name is unknown.

    Example:
        >>> waterfall_figure(stages, label_of_network).axes[0].get_xlabel()
        'change of accuracy [points]'
    """
    said = ""
    if are_of_study is not None:
        said = " The chips are those of trials.csv."
        if not are_of_study:
            said = " The chips are not those of trials.csv, or saw other samples."
    named = stages["checkpoint"].map(names).fillna(stages["checkpoint"])
    keys = [stages["device"], stages["t_inference_s"], named]
    decimals = min((_decimals(part) for _, part in stages.groupby(keys)), default=0)
    draw = functools.partial(waterfall, decimals=decimals)
    return _by_network(stages, names, draw, width, look, task=task, said=said)


def layers_figure(
    layers: pd.DataFrame,
    names: Mapping[str, str],
    *,
    task: str = "",
    width: str | float = "two columns",
    look: str = "paper",
) -> Figure:
    """One layer analog at a time, one panel per device, time and method.

    Args:
        layers: As in ``layers.csv``.
        names: As for `waterfall_figure`.
        task: Data set and network in words ("LeNet-5 on MNIST"), for the caption; "": not said.
        width: "one column", "two columns" or inches.
        look: "paper", "talk" or the path of a style sheet (.mplstyle).

    Returns:
        The figure.

    Raises:
        ValueError: If columns or rows are missing, or a name is unknown.

    Example:
        >>> " ".join(layers_figure(layers, label_of_network).axes[0].get_xlabel().split())
        'accuracy lost with this layer alone analog [points]'
    """
    return _by_network(layers, names, layer_sensitivity, width, look, task=task, share_x=True)


def are_chips_of(stages: pd.DataFrame, chips: pd.DataFrame) -> bool:
    """Whether the last stage of every chip is the score of that chip in the study.

    Args:
        stages: As in ``waterfall.csv``.
        chips: As `results.chip_means` gives.
    """
    keys = ["checkpoint", "device", "t_inference_s", "chip"]
    column = score_of(stages).column
    if column != score_of(chips).column:
        return False
    last = stages[stages["stage"] == stages["stage"].iloc[-1]][[*keys, column]]
    known = chips[chips["condition"] == "{}"][[*keys, column]]
    both = last.merge(known, on=keys, how="left", suffixes=("_here", ""))
    return bool(np.isclose(both[f"{column}_here"], both[column], rtol=0, atol=1e-9).all())


def _decimals(stages: pd.DataFrame) -> int:
    """Digits after the point, the same for all stages: none beyond the typical standard error."""
    groups = stages.groupby("stage", sort=False)[score_of(stages).column]
    means = groups.mean()
    values = score_of(stages).shown(means.to_numpy())
    most = score_of(stages).decimals_for(values, fewer=1)
    errors = _spread_of_changes(stages, list(means.index)) / np.sqrt(groups.size().min())
    if not (errors > 0).any():
        return most
    return int(np.clip(-np.floor(np.log10(np.median(errors[errors > 0]))), 0, most))


def _change(points: float, decimals: int) -> str:
    """A change of the score: "−66.3", "+0.1", "0.0"."""
    text = f"{points:+.{decimals}f}".replace("-", "−")
    return text if float(f"{points:.{decimals}f}") else text[1:]


def first_groups(
    rows: pd.DataFrame, keys: Sequence[str], most: int
) -> tuple[list[pd.DataFrame], str]:
    """The rows of the first panels, and a sentence, a space in front, if there are more."""
    groups = [part for _, part in rows.groupby(list(keys), sort=True)]
    said = f" Drawn are the first {most} of {len(groups)}." if len(groups) > most else ""
    return groups[:most], said


def _by_network(
    rows: pd.DataFrame,
    names: Mapping[str, str],
    draw: Callable[[Axes, pd.DataFrame], None],
    width: str | float,
    look: str,
    *,
    task: str,
    share_x: bool = False,
    said: str = "",
) -> Figure:
    check_columns(rows, ("checkpoint", "device", "t_inference_s", "chip"))
    known = rows["checkpoint"].map(names).fillna("network " + rows["checkpoint"].str[:8])
    rows = rows.assign(name=known)
    keys = ["device", "t_inference_s", "name"]
    rows["rank"] = rows["name"].map(order)
    groups, left_out = first_groups(rows, [*keys[:2], "rank"], MAX_PANELS)
    with style(look):
        figure, axes = panel_grid(len(groups), width, look, aspect=0.75, share_y=False)
        for ax, part in zip(axes, groups, strict=True):
            draw(ax, part)
            first = part.iloc[0]
            device = device_label(first["device"], rows["device"].unique())
            ax.set_title(f"{words.method_text(first['name'])}\n{device}, {moment(part)}")
        if share_x:
            ends = np.array([ax.get_xlim() for ax in axes])
            for ax in axes:
                ax.set_xlim(ends.min(), ends.max())
        chips = rows.groupby("checkpoint")["chip"].nunique()
        networks = rows.groupby(keys)["checkpoint"].nunique()
        n = pd.DataFrame({"n_networks": networks, "n_chips": chips.min()})
        n_text = words.n_text(n.assign(n_chips_max=chips.max()))
        note = (
            f"{words.led_by(task)}n = {n_text}: mean and standard deviation over all chips."
            f"{said}{left_out}{calendar_note(rows)}{words.devices_note(rows)}"
            f"{late_note(rows)}"
        )
        finish(figure, {}, note)
    return figure
