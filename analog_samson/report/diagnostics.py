"""Where accuracy, or another score, is lost: the stages of a chip's error, and single layers."""

from collections.abc import Callable, Mapping

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator

from analog_samson import times
from analog_samson.report import words
from analog_samson.report.axes import finish, y_label
from analog_samson.report.figures import panel_grid
from analog_samson.report.networks import check_columns
from analog_samson.report.style import line_width, marker_size, order, style
from analog_samson.results.scores import score_of

MAX_PANELS = 12
"""Largest number of panels of one figure. Further networks and devices are left out; figures over
time are omitted, as the table of swept axes shows all values."""


def waterfall(ax: Axes, stages: pd.DataFrame) -> None:
    """Draw how accuracy is lost from the digital network to the chip, stage by stage.

    Args:
        ax: Where to draw.
        stages: Rows in order with the columns ``stage`` ("digital", "mapped", ...) and
            ``accuracy`` (fraction; or that of another score); several rows per stage (chips) are
            averaged.

    Raises:
        ValueError: If there are no stages.
    """
    score = score_of(stages)
    check_columns(stages, ("stage", score.column))
    groups = stages.groupby("stage", sort=False)[score.column]
    mean, spread = groups.mean(), groups.std().fillna(0.0)
    values = score.shown(mean.to_numpy())
    lows, highs = (score.shown((mean + sign * spread).to_numpy()) for sign in (-1, 1))
    decimals = score.decimals_for(values, fewer=1)
    before = np.append(values[0], values[:-1])
    for k, (value, last) in enumerate(zip(values, before, strict=True)):
        if k:
            colour = "#D55E00" if score.lost(last, value) > 0 else "#56B4E9"
            ax.bar(k, value - last, bottom=last, color=colour, width=0.6, zorder=2)
            ax.plot([k - 1.3, k + 0.3], [last, last], color="0.6", lw=line_width(0.55), zorder=1)
        ax.annotate(
            f"{value:.{decimals}f}" if k == 0 else _change(value - last, decimals),
            (k, max(highs[k], last)),
            xytext=(0, 3),
            textcoords="offset points",
            ha="center",
            fontsize="small",
        )
    bars = [values - lows, highs - values]
    ax.errorbar(range(len(values)), values, bars, fmt="k.", markersize=marker_size(1.0), zorder=3)
    ax.set_xticks(range(len(values)), list(mean.index), rotation=20, ha="right")
    room = 0.15 * max(float(np.ptp(values)), 0.001 * abs(float(values[0])))
    spread_shown = max(float((highs - values).max()), float((values - lows).max()))
    top = values.max() + spread_shown
    ax.set_ylim(values.min() - spread_shown - room, top + 1.5 * room)
    lowest, highest = (score.shown(limit) for limit in score.limits)
    ticks = [t for t in ax.get_yticks() if lowest <= t <= highest]
    ax.yaxis.set_major_locator(FixedLocator(ticks))
    ax.set_ylabel(y_label(score.axis()))


def layer_sensitivity(ax: Axes, layers: pd.DataFrame) -> None:
    """Draw the accuracy with one layer analog at a time, in the order of the network.

    Args:
        ax: Where to draw.
        layers: Rows with the columns ``layer``, ``accuracy`` and ``clean_accuracy`` (fractions);
            or of another score; several rows per layer (chips) are averaged.

    Raises:
        ValueError: If there are no layers.
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
        color="#56B4E9",
        height=0.65,
        error_kw={"elinewidth": line_width(0.7)},
        zorder=2,
    )
    ax.set_yticks(places, list(mean.index))
    ax.invert_yaxis()
    ax.grid(False, axis="y")
    ax.grid(True, axis="x")
    ax.set_xlabel(score.lost_axis(" with this layer alone analog"))


def waterfall_figure(
    stages: pd.DataFrame,
    names: Mapping[str, str],
    *,
    width: str = "two columns",
    look: str = "paper",
) -> Figure:
    """Stage by stage, one panel per device, time and method.

    Args:
        stages: As in ``waterfall.csv``.
        names: Labels of networks by their ``checkpoint``; networks of equal label are averaged.
        width: "one column" or "two columns".
        look: Style sheet, "paper" or "talk".

    Returns:
        The figure.

    Raises:
        ValueError: If columns or rows are missing, or a name is unknown.
    """
    return _by_network(stages, names, waterfall, width, look)


def layers_figure(
    layers: pd.DataFrame,
    names: Mapping[str, str],
    *,
    width: str = "two columns",
    look: str = "paper",
) -> Figure:
    """One layer analog at a time, one panel per device, time and method.

    Args:
        layers: As in ``layers.csv``.
        names: As for `waterfall_figure`.
        width: "one column" or "two columns".
        look: Style sheet, "paper" or "talk".

    Returns:
        The figure.

    Raises:
        ValueError: If columns or rows are missing, or a name is unknown.
    """
    return _by_network(layers, names, layer_sensitivity, width, look, share_x=True)


def _change(points: float, decimals: int) -> str:
    """A change of the score, with more digits where it is small: "−66.3", "+0.08", "0"."""
    text = f"{points:+.{decimals}f}" if abs(points) >= 1 else f"{points:+.{decimals + 1}f}"
    return text.replace("-", "−") if float(text) else "0"


def _by_network(
    rows: pd.DataFrame,
    names: Mapping[str, str],
    draw: Callable[[Axes, pd.DataFrame], None],
    width: str,
    look: str,
    *,
    share_x: bool = False,
) -> Figure:
    check_columns(rows, ("checkpoint", "device", "t_inference_s", "chip"))
    known = rows["checkpoint"].map(names).fillna("network " + rows["checkpoint"].str[:8])
    rows = rows.assign(name=known)
    keys = ["device", "t_inference_s", "name"]
    rows["rank"] = rows["name"].map(order)
    groups = list(rows.groupby([*keys[:2], "rank"], sort=True))[:MAX_PANELS]
    with style(look):
        figure, axes = panel_grid(len(groups), width, look, aspect=0.75, share_y=False)
        for ax, (_, part) in zip(axes, groups, strict=True):
            draw(ax, part)
            first = part.iloc[0]
            moment = times.label(first["t_inference_s"])
            ax.set_title(f"{words.method_text(first['name'])}\n{first['device']}, {moment}")
        if share_x:
            ends = np.array([ax.get_xlim() for ax in axes])
            for ax in axes:
                ax.set_xlim(ends.min(), ends.max())
        chips = rows.groupby("checkpoint")["chip"].nunique()
        networks = rows.groupby(keys)["checkpoint"].nunique()
        note = (
            f"Mean and standard deviation over {words.range_text(networks)} networks × "
            f"{words.range_text(chips)} chips."
        )
        finish(figure, {}, note)
    return figure
