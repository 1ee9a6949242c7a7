"""Several devices, compensations or studies over each other on one axes, each with its colour."""

import itertools
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import matplotlib.colors
import pandas as pd
from matplotlib import rcParams, rcParamsDefault
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from analog_samson.report import words
from analog_samson.report.axes import TimeAxis, finish, fit_scale, label_outer, y_label
from analog_samson.report.figures import (
    SIDE_BY_SIDE,
    at_shown_times,
    footnote,
    late_mark,
    panel_grid,
)
from analog_samson.report.methods import device_label
from analog_samson.report.panels import draw_series
from analog_samson.report.style import line_width, order, plot_options, style
from analog_samson.results.scores import score_of

COLUMNS = (
    "device",
    "compensation",
    "condition",
    "dataset",
    "model",
    "engine",
    "precision",
    "study",
)
"""Columns whose values can be laid over each other."""

COLOURS = ("#000000", "#D55E00", "#56B4E9", "#009E73", "#CC79A7", "#E69F00", "#0072B2", "#999999")
MARKERS = ("o", "D", "s", "v", "P", "h", "^", "X")


def overlay_figure(
    summary: pd.DataFrame,
    over: Sequence[str],
    *,
    width: str | float = "two columns",
    look: str = "paper",
    interval: str = "bars",
    programmed: bool = False,
    same_times: bool = False,
) -> Figure:
    """Accuracy against time, with several devices, compensations or studies on one axes.

    Args:
        summary: As `results.summarise` gives; for ``study`` with a column of that name.
        over: Columns whose values are laid over each other; others that vary have panels.
        width: "one column", "two columns" or inches.
        look: "paper", "talk" or the path of a style sheet (.mplstyle).
        interval: "bars" or "band".
        programmed: Whether the programmed state (t = 0) is drawn, too.
        same_times: Whether all panels have one time axis.

    Returns:
        The figure; every combination of method and of the columns has its colour and marker,
        methods of the first combination those that they have in all figures.

    Raises:
        ValueError: If there are no rows, or a column cannot be laid over.

    Example:
        >>> both = pd.concat([summary.assign(study="first"), summary.assign(study="second")])
        >>> len(overlay_figure(both, ["study"]).axes)  # both on one axes
        1
    """
    check_over(over)
    if summary.empty:
        raise ValueError("The summary is empty; there is nothing to draw.")
    rows = at_shown_times(summary, programmed)
    over = [*over, *_following(rows, over)]
    rows = rows.assign(name=_names(rows, over), rank=words.method_names(rows).map(order))
    apart = [c for c in ("device", *words.varying(rows)) if c not in over and rows[c].nunique() > 1]
    groups = list(rows.groupby(apart, observed=True, sort=True)) if apart else [((), rows)]
    score = score_of(rows)
    axis = TimeAxis(rows["t_inference_s"]) if same_times else None
    with style(look):
        names = dict.fromkeys(rows.sort_values([*over, "rank"], kind="stable")["name"])
        looks = _looks(rows, list(names), over)
        figure, axes = panel_grid(len(groups), width, look, aspect=0.72, share_y=True)
        for ax, (_, part) in zip(axes, groups, strict=True):
            part = part.assign(value=score.shown(part[score.column]))
            own = {name: one for name, one in looks.items() if name in set(part["name"])}
            digital = score.shown(part.groupby("name")[score.digital].mean())
            draw_series(ax, part, own, interval, axis, score.shown, dict(digital))
            fit_scale(ax, score, part["value"])
            ax.set_ylabel(y_label(score.axis()))
            if apart:
                title = words.settings_text(part.iloc[0], [c for c in apart if c != "device"])
                if "device" in apart:
                    title.insert(0, device_label(part["device"].iloc[0], rows["device"].unique()))
                ax.set_title(", ".join(title))
        label_outer(axes)
        figure.align_xlabels(axes)
        handles = {name: Line2D([], [], **one) for name, one in looks.items()}
        note = footnote(rows) + SIDE_BY_SIDE
        finish(figure, handles, note, are_methods=False, marks=late_mark(rows))
    return figure


def check_over(over: Sequence[str]) -> None:
    """Check columns that are to be laid over each other.

    Raises:
        ValueError: If one cannot be.
    """
    unknown = [column for column in over if column not in COLUMNS]
    if unknown or not over:
        raise ValueError(f"Overlay takes some of {list(COLUMNS)}; got {list(over)}.")


def _following(rows: pd.DataFrame, over: Sequence[str]) -> list[str]:
    """Columns that vary with those laid over and not beside them."""
    others = [c for c in ("device", *words.varying(rows)) if c not in over]
    groups = rows.groupby(list(over), observed=True)
    return [c for c in others if rows[c].nunique() > 1 and groups[c].nunique().max() == 1]


def _names(rows: pd.DataFrame, over: Sequence[str]) -> "pd.Series[str]":
    """Name of the series of each row: what differs, the method first."""
    methods = words.method_names(rows)
    differ = [column for column in over if rows[column].nunique() > 1]
    devices = rows["device"].unique()

    def named(method: str, row: "pd.Series[str]") -> str:
        parts = [words.method_text(method)] if methods.nunique() > 1 or not differ else []
        parts += [device_label(row["device"], devices)] if "device" in differ else []
        parts += words.settings_text(row, [c for c in differ if c not in ("device", "study")])
        return ", ".join([*parts, *([str(row["study"])] if "study" in differ else [])])

    found = [named(method, row) for method, (_, row) in zip(methods, rows.iterrows(), strict=True)]
    return pd.Series(found, index=rows.index)


def _looks(
    rows: pd.DataFrame, names: Sequence[str], over: Sequence[str]
) -> dict[str, dict[str, Any]]:
    """Colour and marker of every series."""
    methods = words.method_names(rows)
    columns = rows[list(over)]
    first = (columns == columns.sort_values(list(over), kind="stable").iloc[0]).all(axis=1)
    looks = {
        series: plot_options(method, methods.unique())
        for series, method in zip(rows.loc[first, "name"], methods[first], strict=True)
        if methods.nunique() > 1
    }
    taken = {_pair(one) for one in looks.values()}
    others = (one for one in series_looks() if _pair(one) not in taken)
    return {name: looks.get(name) or next(others) for name in names}


def _pair(look: Mapping[str, Any]) -> tuple[str, str]:
    return matplotlib.colors.to_hex(look["color"]), str(look["marker"])


def series_looks() -> Iterator[dict[str, Any]]:
    """Colours and markers of series, all different until the pairs are used up."""
    cycle = rcParams["axes.prop_cycle"]
    own = cycle != rcParamsDefault["axes.prop_cycle"]
    colours = cycle.by_key().get("color", COLOURS) if own else COLOURS
    for k in itertools.count():
        colour = colours[k % len(colours)]
        yield {
            "color": colour,
            "marker": MARKERS[(k + k // len(colours)) % len(MARKERS)],
            "linestyle": "-",
            "markeredgecolor": "white",
            "markeredgewidth": line_width(0.45),
            "markerfacecolor": colour,
        }
