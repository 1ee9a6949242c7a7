"""Sweeps of a device's settings: the score along one axis, and over two."""

import json
from collections.abc import Mapping
from types import MappingProxyType
from typing import NamedTuple

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.image import AxesImage
from matplotlib.lines import Line2D
from matplotlib.ticker import FixedLocator, NullLocator

from analog_samson.deprecated import accepts_old_names
from analog_samson.report import words
from analog_samson.report.axes import finish, fit_scale, log_axis, places, y_label
from analog_samson.report.figures import (
    at_last_time,
    by_panel,
    footnote,
    moment,
    panel_grid,
    times_note,
)
from analog_samson.report.methods import device_label
from analog_samson.report.panels import check_one
from analog_samson.report.style import line_width, order, plot_options, style
from analog_samson.results.scores import score_of


def axis_figure(
    summary: pd.DataFrame,
    axis: str,
    *,
    width: str | float = "two columns",
    look: str = "paper",
    log: bool = False,
    nominal: Mapping[str, float | str] = MappingProxyType({}),
) -> Figure:
    """Accuracy against one swept axis at the last time, one panel per device.

    Args:
        summary: As `results.summarise` gives.
        axis: Name of the axis.
        width: "one column", "two columns" or inches.
        look: "paper", "talk" or the path of a style sheet (.mplstyle).
        log: Whether the axis is logarithmic.
        nominal: Device to its own value of the axis, which is marked.

    Returns:
        The figure.

    Raises:
        ValueError: If the axis was not swept or a name is unknown.

    Example:
        >>> axis_figure(swept, "programming_noise_scale").axes[0].get_xlabel()
        'programming noise scale'
    """
    rows = with_axis(at_last_time(summary), [axis])
    marked = " Vertical line: the device as it is." if nominal else ""
    return by_panel(
        rows,
        lambda ax, part: accuracy_vs_axis(
            ax, part, axis, log=log, nominal=nominal.get(part["device"].iloc[0])
        ),
        note=footnote(rows) + marked,
        width=width,
        look=look,
        besides=("condition",),
        with_time=True,
    )


def heat_figure(
    summary: pd.DataFrame,
    x: str,
    y: str,
    *,
    width: str | float = "two columns",
    look: str = "paper",
) -> Figure:
    """Accuracy over two swept axes at the last time, one panel per method, of one device.

    Args:
        summary: As `results.summarise` gives, of one device.
        x: Name of the horizontal axis.
        y: Name of the vertical axis.
        width: "one column", "two columns" or inches.
        look: "paper", "talk" or the path of a style sheet (.mplstyle).

    Returns:
        The figure, its panels with one colour bar.

    Raises:
        ValueError: If an axis was not swept, or several devices are given.

    Example:
        >>> figure = heat_figure(swept_twice, "adc_bits", "programming_noise_scale")
        >>> len(figure.axes)  # one method, and the colour bar
        2
    """
    rows = with_axis(at_last_time(summary), [x, y])
    names = words.method_names(rows)
    ordered = sorted(names.unique(), key=order)
    score = score_of(rows)
    shown = score.shown(rows[score.column])
    colour_range = (shown.min(), shown.max())
    with style(look):
        figure, axes = panel_grid(len(ordered), width, look, aspect=0.75, share_y=True)
        for ax, name in zip(axes, ordered, strict=True):
            image = heat_map(ax, rows[names == name], x, y, colour_range=colour_range)
            ax.set_title(words.method_text(name))
            ax.label_outer()
        figure.colorbar(image, ax=axes, label=score.axis(moment(rows)), shrink=0.9)
        note = f"{device_label(rows['device'].iloc[0])}. {words.typical_text(rows) or 'Means.'} "
        note += f"n = {words.n_text(rows)}. "
        finish(figure, {}, f"{note}{words.fixed_text(rows)}.{times_note(rows)}")
    return figure


def accuracy_vs_axis(
    ax: Axes,
    summary: pd.DataFrame,
    axis: str,
    *,
    log: bool = False,
    nominal: float | str | None = None,
) -> list[Line2D]:
    """Draw accuracy [%], or another score, against one swept axis at one time, one line per method.

    Numbers stand at their true place; markers of methods at words stand side by side.

    Args:
        ax: Where to draw.
        summary: As `results.summarise` gives, of one device at one time, swept over the axis.
        axis: Name of the axis, as in the column ``condition``.
        log: Whether the axis is logarithmic.
        nominal: The device's own value, marked by a vertical line; None marks none.

    Returns:
        One handle per method.

    Raises:
        ValueError: If the axis was not swept, or other settings vary, too.

    Example:
        >>> handles = accuracy_vs_axis(ax, swept, "programming_noise_scale")
        >>> [handle.get_label() for handle in handles]
        ['sgd']
    """
    rows = with_axis(summary, [axis])
    check_one(rows, "accuracy_vs_axis", besides=("condition",))
    values = sorted(rows[axis].unique(), key=words.by_value)
    # as "ideal" among numbers of bits, and intervals by their names
    has_words = axis == words.REFRESH or any(isinstance(value, str) for value in values)
    stands_at = {value: k if has_words else value for k, value in enumerate(values)}
    if rows.groupby(["method", "strength", axis], observed=True).size().max() > 1:
        raise ValueError(
            f"accuracy_vs_axis draws one time and one axis; besides {axis!r} other "
            "axes or the time vary: filter the summary."
        )
    score = score_of(rows)
    names = words.method_names(rows)
    ordered = sorted(names.unique(), key=order)
    handles = []
    step = 0.5 / max(len(ordered), 6)  # of the distance between two words
    for name, place in zip(ordered, places(len(ordered)) * step * has_words, strict=True):
        own = rows[names == name]
        own = own.assign(x=own[axis].map(stands_at).astype(float) + place).sort_values("x")
        style = plot_options(name, ordered)
        x, y = own["x"].to_numpy(), score.shown(own[score.column].to_numpy())
        low, high = (score.shown(own[end].to_numpy()) for end in ("low", "high"))
        bars = {"fmt": "none", "ecolor": style["color"], "elinewidth": line_width(0.7)}
        ax.errorbar(x, y, [y - low, high - y], zorder=3, **bars)
        ax.plot(x, y, zorder=4, **style)
        handles.append(Line2D([], [], label=name, **style))
    if nominal in stands_at:
        mark_nominal(ax, stands_at[nominal])
    elif not has_words and isinstance(nominal, int | float):
        mark_nominal(ax, nominal)
    if has_words:
        ax.set_xticks(range(len(values)), [words.value_text(value, axis) for value in values])
    elif log:
        log_axis(ax.set_xscale, ax.xaxis)
    ax.set_xlabel(words.axis_name(axis))
    fit_scale(ax, score, score.shown(rows[score.column]))
    ax.set_ylabel(y_label(score.axis(moment(rows))))
    return handles


def mark_nominal(ax: Axes, value: float) -> None:
    """Mark the value of a swept setting that the device itself has."""
    ax.axvline(value, color="0.5", lw=line_width(0.7), zorder=1)


@accepts_old_names(limits="colour_range")
def heat_map(
    ax: Axes,
    summary: pd.DataFrame,
    x: str,
    y: str,
    *,
    colour_range: tuple[float, float] | None = None,
) -> AxesImage:
    """Draw accuracy [%], or another score, over two swept axes, of one method at one time.

    The values are written in the cells.

    Args:
        ax: Where to draw.
        summary: As `results.summarise` gives, of one method on one device at one time.
        x: Name of the horizontal axis.
        y: Name of the vertical axis.
        colour_range: Lowest and highest shown value of the colours, for panels that share them.

    Returns:
        The image, for a colour bar.

    Raises:
        ValueError: If an axis was not swept, or other settings vary, too.

    Example:
        >>> image = heat_map(ax, swept_twice, "adc_bits", "programming_noise_scale")
        >>> image.get_array().shape
        (2, 2)
    """
    rows = with_axis(summary, [x, y])
    check_one(rows, "heat_map", besides=("condition",))
    if rows.duplicated([x, y]).any():
        raise ValueError(
            "heat_map draws one method at one time over two axes; filter the summary by method, "
            "t_inference_s and the other axes."
        )
    score = score_of(rows)
    grid = score.shown(rows.pivot(index=y, columns=x, values=score.column))
    decimals = score.decimals_for(
        grid.to_numpy() if colour_range is None else colour_range, fewer=1
    )
    up, right = (sorted(values, key=words.by_value) for values in (grid.index, grid.columns))
    grid = grid.reindex(index=up, columns=right)
    image = ax.imshow(grid.to_numpy(), origin="lower", aspect="auto", cmap="cividis")
    if colour_range is not None:
        image.set_clim(*colour_range)
    low, high = image.get_clim()
    for row, line in enumerate(grid.to_numpy()):
        for column, value in enumerate(line):
            if np.isfinite(value):
                is_dark = value < (low + high) / 2
                ax.text(
                    column,
                    row,
                    f"{value:.{decimals}f}",
                    ha="center",
                    va="center",
                    fontsize="small",
                    color="white" if is_dark else "black",
                )
    ax.xaxis.set_major_locator(FixedLocator(range(grid.shape[1])))
    ax.set_xticks(range(grid.shape[1]), [words.value_text(value, x) for value in grid.columns])
    ax.set_yticks(range(grid.shape[0]), [words.value_text(value, y) for value in grid.index])
    ax.xaxis.set_minor_locator(NullLocator())
    ax.tick_params(length=0)
    ax.spines[:].set_visible(False)
    ax.grid(False)
    ax.set_xlabel(words.axis_name(x))
    ax.set_ylabel(words.axis_name(y))
    return image


def with_axis(rows: pd.DataFrame, axes: list[str]) -> pd.DataFrame:
    """Add a column for each of some swept axes.

    Args:
        rows: Rows with the JSON column ``condition``.
        axes: Names of axes.

    Returns:
        The rows in which all of the axes are set, with one more column for each.

    Raises:
        ValueError: If no row has the axes.
    """
    points = rows["condition"].map(json.loads)
    has = points.map(lambda point: all(axis in point for axis in axes))
    if not has.any():
        known = sorted({name for point in points for name in point})
        raise ValueError(f"No trial sweeps {axes}; the axes that are swept are {known}.")
    return rows[has].assign(
        **{axis: points[has].map(lambda point, axis=axis: point[axis]) for axis in axes}
    )


def are_crossed(rows: pd.DataFrame, axes: list[str]) -> bool:
    """Whether some rows set all of the axes, as in a grid."""
    points = [json.loads(text) for text in rows["condition"].unique()]
    return any(all(axis in point for axis in axes) for point in points)


class Grid(NamedTuple):
    """The points of one device, and one of every other setting, that set the same axes.

    Attributes:
        name: Device, and other settings that vary, as in the rows.
        axes: Those of which the points have several values.
        rows: Their rows.
    """

    name: str
    axes: tuple[str, ...]
    rows: pd.DataFrame


def grids_of(rows: pd.DataFrame) -> list[Grid]:
    """The grids of rows, in which points of several devices and sweeps may be mixed.

    Example:
        >>> [(grid.name, grid.axes) for grid in grids_of(swept_twice)]
        [('pcm_like', ('adc_bits', 'programming_noise_scale'))]
    """
    settings = ["device", *(column for column in words.varying(rows) if column != "condition")]
    set_in = rows["condition"].map(lambda text: ", ".join(sorted(json.loads(text))))
    return [
        Grid(", ".join(map(str, own.iloc[0][settings])), tuple(swept_axes(own)), own)
        for _, own in rows.groupby([*settings, set_in.rename("set_in")], observed=True, sort=True)
    ]


def swept_axes(rows: pd.DataFrame) -> list[str]:
    """Names of the axes whose values differ between rows, sorted."""
    points = [json.loads(text) for text in rows["condition"].unique()]
    names = sorted({name for point in points for name in point})
    return [n for n in names if len({str(point.get(n)) for point in points if n in point}) > 1]
