"""Accuracy against time: the figure that the project is for."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib.transforms
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

from analog_samson import times
from analog_samson.report import words
from analog_samson.report.style import WIDTHS_IN, method_style, order, style

TICKS_S = (1.0, times.MINUTE, times.HOUR, times.DAY, times.MONTH, times.YEAR, 10 * times.YEAR)
FORMATS = ("pdf", "png")
GAP = 0.13
"""Width of the gap left of the first time, as a share of the time axis."""


def accuracy_vs_time(
    ax: Axes,
    summary: pd.DataFrame,
    *,
    interval: str = "bars",
    limits_s: tuple[float, float] | None = None,
) -> list[Line2D]:
    """Draw accuracy [%] against time on a logarithmic axis, one line per method.

    The programmed state (t = 0) stands left of a break, because 0 has no place on a logarithmic
    axis; times beyond the device's measured range are shaded, and their lines are dashed.

    Args:
        ax: Where to draw.
        summary: As `results.summarise` gives, of one condition (one device).
        interval: "bars" or "band".
        limits_s: First and last time of the axis [s], for panels that share it; None takes the
            summary's.

    Returns:
        One handle per method for a legend, in the usual order.

    Raises:
        ValueError: If the summary is empty or holds several conditions, or the interval is
            neither "bars" nor "band".
    """
    if interval not in ("bars", "band"):
        raise ValueError(f"Interval must be 'bars' or 'band'; got {interval!r}.")
    if summary.empty:
        raise ValueError("The summary is empty; there is nothing to draw.")
    several = ["device"] * (summary["device"].nunique() > 1) + words.varying(summary)
    if several:
        raise ValueError(
            f"accuracy_vs_time draws one condition; this summary holds several in {several}: "
            "filter it, or use accuracy_figure for panels."
        )
    summary = summary.assign(name=words.method_names(summary))
    drawn = summary.loc[summary["t_inference_s"] > 0, "t_inference_s"]
    first, last = limits_s or (drawn.min(), drawn.max())
    if not first > 0:
        first, last = 1.0, times.YEAR
    decades = max(np.log10(last / first), 1.0)
    zero = 10 ** (np.log10(first) - GAP * decades)
    names = sorted(summary["name"].unique(), key=order)
    shifts = (np.arange(len(names)) - (len(names) - 1) / 2) * min(0.012, 0.06 / len(names))
    handles = []
    for name, shift in zip(names, shifts * decades * (interval == "bars"), strict=True):
        rows = summary[summary["name"] == name].sort_values("t_inference_s")
        handles.append(_line(ax, rows, name, zero, float(shift), interval))
    _time_axis(ax, first, last, decades, zero, broken=bool((summary["t_inference_s"] == 0).any()))
    _shade(ax, summary, last, decades)
    ax.set_ylabel("accuracy [%]")
    return handles


def accuracy_figure(
    summary: pd.DataFrame,
    *,
    width: str = "two columns",
    interval: str = "bars",
    look: str = "paper",
) -> Figure:
    """Accuracy against time, one panel a device (and whatever else varies), one legend on top.

    Args:
        summary: As `results.summarise` gives.
        width: "one column" or "two columns".
        interval: "bars" or "band".
        look: Style sheet, "paper" or "talk".

    Returns:
        The figure; n and the kind of interval stand below it.

    Raises:
        ValueError: If the summary is empty or a name is unknown.
    """
    if summary.empty:
        raise ValueError("The summary is empty; there is nothing to draw.")
    columns = words.varying(summary)
    groups = list(summary.groupby(["device", *columns], observed=True, sort=True))
    width_in = _width(look, width)
    across = min(len(groups), 2 if width == "two columns" else 1)
    down = -(-len(groups) // across)
    with style(look):
        panel_in = width_in / across
        height = down * min(panel_in * 0.72, width_in * 0.42)
        figure = Figure(figsize=(width_in, height), layout="constrained")
        axes = figure.subplots(down, across, squeeze=False, sharey=True)
        drawn = summary.loc[summary["t_inference_s"] > 0, "t_inference_s"]
        limits = (drawn.min(), drawn.max()) if len(drawn) else None
        handles: dict[str, Line2D] = {}
        for ax, (_, rows) in zip(axes.flat, groups, strict=False):
            for handle in accuracy_vs_time(ax, rows, interval=interval, limits_s=limits):
                handles.setdefault(str(handle.get_label()), handle)
            ax.set_title(words.condition_text(rows.iloc[0], columns))
            ax.label_outer()
        for ax in axes.flat[len(groups) :]:
            ax.set_axis_off()
        finish(figure, handles, footnote(summary))
    return figure


def finish(figure: Figure, handles: dict[str, Line2D], note: str) -> None:
    """Put the legend above and the note below the panels, where they hide nothing."""
    import textwrap

    from matplotlib import rcParams

    names = sorted(handles, key=order)
    width_in = figure.get_size_inches()[0]
    letters = width_in * 72 / (0.56 * rcParams["legend.fontsize"])
    longest = max(len(name) for name in names) + 6
    figure.legend(
        handles=[handles[name] for name in names],
        loc="outside upper center",
        ncols=max(1, min(len(names), int(letters // longest))),
    )
    size = 0.85 * rcParams["font.size"]
    lines = textwrap.wrap(note, int(width_in * 72 / (0.53 * size)))
    extra_in = len(lines) * size * 1.35 / 72
    figure.set_size_inches(width_in, figure.get_size_inches()[1] + extra_in)
    figure.supxlabel("\n".join(lines), fontsize=size, color="0.3", x=0.01, ha="left")


def footnote(summary: pd.DataFrame) -> str:
    """What the intervals are and what they rest on, in one or two lines."""
    text = words.interval_text(summary)
    return f"n = {words.n_text(summary)}; {text}; 1 y = 365 d. {words.fixed_text(summary)}."


def save(
    figure: Figure, stem: str | Path, formats: Sequence[str] = FORMATS, *, look: str = "paper"
) -> list[Path]:
    """Write a figure, the same bytes for the same figure.

    Args:
        figure: The figure.
        stem: Path without ending; its folder must exist.
        formats: Any of "pdf", "png", "svg", "pgf".
        look: Style sheet that decides resolution and embedded fonts.

    Returns:
        The files written, one per format.

    Raises:
        FileNotFoundError: If the folder does not exist.
    """
    stem = Path(stem)
    if not stem.parent.is_dir():
        raise FileNotFoundError(f"Folder {str(stem.parent)!r} does not exist; make it first.")
    undated: dict[str, dict[str, None]] = {
        "pdf": {"CreationDate": None},
        "svg": {"Date": None},
        "png": {},
    }
    paths = []
    with style(look):
        for kind in formats:
            path = stem.with_name(f"{stem.name}.{kind}")
            figure.savefig(path, metadata=undated.get(kind))
            paths.append(path)
    return paths


def _width(look: str, width: str) -> float:
    if look not in WIDTHS_IN or width not in WIDTHS_IN[look]:
        allowed = {name: list(widths) for name, widths in WIDTHS_IN.items()}
        raise ValueError(
            f"Style and width must be one of {json.dumps(allowed)}; got {look!r}, {width!r}."
        )
    return WIDTHS_IN[look][width]


def _line(
    ax: Axes, rows: pd.DataFrame, name: str, zero: float, shift: float, interval: str
) -> Line2D:
    colour, marker = method_style(name.split(" ")[0])
    t = rows["t_inference_s"].to_numpy(dtype=float)
    x = np.where(t > 0, t, zero) * 10**shift
    y = 100 * rows["accuracy"].to_numpy()
    half = 100 * rows["half_width"].to_numpy()
    timed, late = t > 0, rows["extrapolated"].to_numpy(dtype=bool)
    solid = timed & ~late
    ax.plot(x[solid], y[solid], color=colour, zorder=3)
    dashed = timed & (late | np.append(late[1:], False))
    ax.plot(x[dashed], y[dashed], color=colour, linestyle=(0, (4, 2)), zorder=3)
    if interval == "band":
        ax.fill_between(
            x[timed], (y - half)[timed], (y + half)[timed], color=colour, alpha=0.15, lw=0
        )
    barred = np.ones_like(timed) if interval == "bars" else ~timed
    ax.errorbar(
        x[barred], y[barred], half[barred], fmt="none", ecolor=colour, elinewidth=0.8, zorder=3
    )
    fill: dict[str, Any] = {
        "color": colour,
        "marker": marker,
        "markeredgecolor": "white",
        "markeredgewidth": 0.5,
    }
    ax.plot(x, y, linestyle="none", zorder=4, **fill)
    return Line2D([], [], label=name, **fill)


def _time_axis(
    ax: Axes, first: float, last: float, decades: float, zero: float, *, broken: bool
) -> None:
    ax.set_xscale("log")
    margin = 10 ** (0.04 * decades)
    ticks = [t for t in TICKS_S if first / margin <= t <= last * margin]
    if len(ticks) < 2:
        ticks = sorted({first, last})
    if broken:
        ticks = [zero, *ticks]
    ax.xaxis.set_major_locator(FixedLocator(ticks))
    ax.xaxis.set_minor_locator(NullLocator())
    ax.xaxis.set_major_formatter(
        FuncFormatter(lambda t, _: "prog." if t <= zero * 1.0001 and broken else times.label(t))
    )
    ax.set_xlim((zero if broken else first) / margin, last * margin)
    ax.set_xlabel("time since programming")
    if broken:
        middle = float(np.sqrt(zero * first))
        across = matplotlib.transforms.blended_transform_factory(ax.transData, ax.transAxes)
        for factor in (10 ** (-0.008 * decades), 10 ** (0.008 * decades)):
            ax.plot(
                [
                    middle * factor / 10 ** (0.006 * decades),
                    middle * factor * 10 ** (0.006 * decades),
                ],
                [-0.02, 0.02],
                transform=across,
                color="black",
                linewidth=0.7,
                clip_on=False,
                zorder=5,
            )


def _shade(ax: Axes, summary: pd.DataFrame, last: float, decades: float) -> None:
    late = summary.loc[summary["extrapolated"], "t_inference_s"]
    if late.empty:
        return
    known = summary.loc[~summary["extrapolated"] & (summary["t_inference_s"] > 0), "t_inference_s"]
    begin = known.max() if len(known) else late.min() / 10 ** (0.04 * decades)
    begin = float(np.sqrt(begin * late.min())) if len(known) else begin
    end = last * 10 ** (0.04 * decades)
    ax.axvspan(begin, end, color="0.94", lw=0, zorder=0)
    ax.annotate(
        "extrapolated",
        (begin, 1.0),
        xycoords=matplotlib.transforms.blended_transform_factory(ax.transData, ax.transAxes),
        xytext=(2, -2),
        textcoords="offset points",
        va="top",
        fontsize="small",
        color="0.4",
        fontstyle="italic",
    )
