"""Cells and converters of chips: conductances before and after, and what is cut off."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
from matplotlib import rcParams
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure
from matplotlib.image import AxesImage
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator

from analog_samson import times
from analog_samson.report import words
from analog_samson.report.axes import finish, head, log_axis
from analog_samson.report.diagnostics import MAX_PANELS, first_groups
from analog_samson.report.figures import moment, panel_grid, times_note
from analog_samson.report.methods import device_label
from analog_samson.report.networks import check_columns
from analog_samson.report.style import is_wide, line_width, order, style

SHARES = (
    ("n_clipped", "n_inputs", "clipped inputs of the DAC", "#E69F00"),
    ("n_saturated", "n_outputs", "saturated outputs of the ADC", "#0072B2"),
)
"""Counted, out of which, in words, colour."""

STATES: Mapping[str, tuple[str, Any]] = {
    "programmed": ("#D55E00", "-"),
    "read": ("#0072B2", (0, (3, 1))),
}
_KEYS = ("device", "t_inference_s", "rank")


def conductance_histogram(ax: Axes, counts: pd.DataFrame) -> list[Line2D]:
    """Draw the number of cells against the conductance: targets, as programmed, as read.

    Args:
        ax: Where to draw.
        counts: As `study.conductance_counts` gives.

    Returns:
        One handle per state.

    Raises:
        ValueError: If there are no counts or columns are missing.

    Example:
        >>> [handle.get_label() for handle in conductance_histogram(ax, conductances)]
        ['target', 'programmed', 'after 1 h']
    """
    check_columns(counts, ("state", "target_uS", "conductance_uS", "width_uS", "count"))
    width = float(counts["width_uS"].iloc[0])
    states = [state for state in STATES if state in set(counts["state"])]
    target = counts[counts["state"] == states[-1]].groupby("target_uS")["count"].sum()
    ax.bar(target.index, target, width=width, color="0.8", lw=0, zorder=1)
    late = times.label(counts["t_inference_s"].iloc[0]) if "t_inference_s" in counts else ""
    handles = [Line2D([], [], color="0.8", lw=line_width(4.0), label="target")]
    for state in states:
        own = counts[counts["state"] == state].groupby("conductance_uS")["count"].sum()
        colour, line = STATES[state]
        edges, heights = _outline(own, width)
        ax.plot(edges, heights, color=colour, linestyle=line, drawstyle="steps-post", zorder=2)
        text = state if state == "programmed" else f"after {late}".strip()
        handles.append(Line2D([], [], color=colour, linestyle=line, label=text))
    log_axis(ax.set_yscale, ax.yaxis)
    ax.yaxis.set_major_locator(LogLocator())
    ax.set_ylim(bottom=0.5)
    ax.set_xlabel("conductance [µS]")
    ax.set_ylabel("cells")
    return handles


def conductance_map(
    ax: Axes, counts: pd.DataFrame, state: str, *, most: float | None = None
) -> AxesImage:
    """Draw the number of cells by target and conductance; on the line cells are at their target.

    Args:
        ax: Where to draw.
        counts: As `study.conductance_counts` gives.
        state: "programmed" or "read".
        most: Upper end of the colours [cells]; None takes the largest count.

    Returns:
        The image, for a colour bar.

    Raises:
        ValueError: If the state has no counts.

    Example:
        >>> image = conductance_map(ax, conductances, "read")
        >>> ax.get_xlabel(), ax.get_ylabel()
        ('target [µS]', 'conductance [µS]')
    """
    own = counts[counts["state"] == state]
    check_columns(own, ("target_uS", "conductance_uS", "width_uS", "count"))
    width = float(own["width_uS"].iloc[0])
    values = np.concatenate([own["target_uS"], own["conductance_uS"]])
    low, high = values.min() - width / 2, values.max() + width / 2
    n = round((high - low) / width)
    grid = np.zeros((n, n))
    places = [((own[c] - low) / width).astype(int) for c in ("conductance_uS", "target_uS")]
    np.add.at(grid, tuple(places), own["count"])
    image = ax.imshow(
        np.where(grid > 0, grid, np.nan),
        origin="lower",
        extent=(low, high, low, high),
        norm=LogNorm(vmin=1, vmax=most or max(float(grid.max()), 2.0)),
        cmap="viridis",
        aspect="auto",
        interpolation="nearest",
    )
    ax.plot([low, high], [low, high], color=rcParams["text.color"], lw=line_width(0.5))
    ax.grid(False)
    ax.set_xlabel("target [µS]")
    ax.set_ylabel("conductance [µS]")
    return image


def conductances_figure(
    counts: pd.DataFrame,
    names: Mapping[str, str],
    *,
    task: str = "",
    width: str | float = "two columns",
    look: str = "paper",
) -> Figure:
    """Conductances before and after: histograms, and conductances against targets.

    Args:
        counts: As in ``conductances.csv``.
        names: Labels of networks by their ``checkpoint``; networks of equal label are added.
        task: Data set and network in words ("LeNet-5 on MNIST"), for the caption; "": not said.
        width: "one column", "two columns" or inches.
        look: "paper", "talk" or the path of a style sheet (.mplstyle).

    Returns:
        The figure, a row per device, time and method.

    Raises:
        ValueError: If columns or rows are missing, or a name is unknown.

    Example:
        >>> len(conductances_figure(conductances, label_of_network).axes)  # 3 panels, a colour bar
        4
    """
    rows = _named(counts, names, ("state", "layer", "chip"))
    groups, left_out = first_groups(rows, _KEYS, MAX_PANELS // 3)
    states = [state for state in STATES if state in set(rows["state"])]
    across = 1 + len(states) if is_wide(width, look) else 1
    with style(look):
        n = len(groups) * (1 + len(states))
        figure, axes = panel_grid(n, width, look, aspect=0.85, share_y=False, across=across)
        handles: dict[str, Line2D] = {}
        pairs = [*_KEYS, "state", "target_uS", "conductance_uS"]
        half = rows["width_uS"].iloc[0] / 2
        values = rows[["target_uS", "conductance_uS"]]
        low, high = values.min(axis=None) - half, values.max(axis=None) + half
        most = max(float(rows.groupby(pairs)["count"].sum().max()), 2.0)
        for k, part in enumerate(groups):
            first, *others = axes[k * (1 + len(states)) : (k + 1) * (1 + len(states))]
            for handle in conductance_histogram(first, part):
                handles[str(handle.get_label())] = handle
            first.set_title(" ", weight="normal")
            head(first, _title(part, rows))
            for ax, state in zip(others, states, strict=True):
                image = conductance_map(ax, part, state, most=most)
                late = f"after {moment(part)}"
                ax.set_title("programmed" if state == "programmed" else late, weight="normal")
            for ax in others:
                ax.set(xlim=(low, high), ylim=(low, high))
            bar = figure.colorbar(image, ax=others, label="cells", ticks=LogLocator())
            bar.ax.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
            bar.ax.minorticks_off()
        cells = rows[rows["state"] == states[-1]].groupby(list(_KEYS))["count"].sum()
        note = (
            f"{_n_text(rows, task)}, together {words.range_text(cells)} cells. Bins of "
            f"{rows['width_uS'].iloc[0]:.3g} µS, the last one with all beyond."
            f"{left_out}{words.devices_note(rows)}{times_note(rows)}"
        )
        finish(figure, handles, note, are_methods=False)
    return figure


def clipping_by_layer(ax: Axes, counts: pd.DataFrame) -> list[Patch]:
    """Draw the shares of clipped inputs and saturated outputs of every layer.

    Args:
        ax: Where to draw.
        counts: As `study.clipping_counts` gives; chips are averaged.

    Returns:
        A handle for each of the two.

    Raises:
        ValueError: If there are no counts or columns are missing.

    Example:
        >>> [handle.get_label() for handle in clipping_by_layer(ax, clipping)]
        ['clipped inputs of the DAC', 'saturated outputs of the ADC']
    """
    check_columns(counts, ("layer", "chip", *(c for share in SHARES for c in share[:2])))
    layers = list(dict.fromkeys(counts["layer"]))
    chip = [c for c in ("checkpoint", "chip") if c in counts]
    handles = []
    for k, (cut, out_of, text, colour) in enumerate(SHARES):
        sums = counts.groupby([*chip, "layer"], sort=False)[[cut, out_of]].sum()
        shares = 100 * (sums[cut] / sums[out_of]).groupby("layer").agg(["mean", "std"]).loc[layers]
        shares = shares.fillna({"std": 0.0}).assign(place=np.arange(len(layers)) + 0.36 * (k - 0.5))
        ax.barh(
            shares["place"],
            shares["mean"],
            xerr=shares["std"],
            height=0.34,
            color=colour,
            error_kw={"elinewidth": line_width(0.7)},
            zorder=2,
        )
        for _, share in shares.iterrows():
            ax.annotate(
                f"{share['mean']:.2g}",
                (share["mean"] + share["std"], share["place"]),
                xytext=(3, 0),
                textcoords="offset points",
                va="center",
                fontsize="small",
            )
        handles.append(Patch(color=colour, label=text))
    ax.set_yticks(range(len(layers)), layers)
    ax.set_ylim(len(layers) - 0.4, -0.6)
    ax.margins(x=0.15)
    ax.set_xlim(left=0.0)
    ax.grid(False, axis="y")
    ax.grid(True, axis="x")
    ax.set_xlabel("cut off [%]")
    return handles


def clipping_figure(
    counts: pd.DataFrame,
    names: Mapping[str, str],
    *,
    task: str = "",
    width: str | float = "two columns",
    look: str = "paper",
) -> Figure:
    """Shares of clipped inputs and saturated outputs by layer, a panel per device and method.

    Args:
        counts: As in ``clipping.csv``.
        names: As for `conductances_figure`; networks of equal label are averaged.
        task: Data set and network in words ("LeNet-5 on MNIST"), for the caption; "": not said.
        width: "one column", "two columns" or inches.
        look: "paper", "talk" or the path of a style sheet (.mplstyle).

    Returns:
        The figure.

    Raises:
        ValueError: If columns or rows are missing, or a name is unknown.

    Example:
        >>> clipping_figure(clipping, label_of_network).axes[0].get_xlabel()
        'cut off [%]'
    """
    rows = _named(counts, names, ("layer", "chip"))
    groups, left_out = first_groups(rows, _KEYS, MAX_PANELS)
    with style(look):
        figure, axes = panel_grid(len(groups), width, look, aspect=0.7, share_y=False)
        handles: dict[str, Artist] = {}
        for ax, part in zip(axes, groups, strict=True):
            for handle in clipping_by_layer(ax, part):
                handles[str(handle.get_label())] = handle
            ax.set_title(_title(part, rows))
        note = (
            f"{_n_text(rows, task)}: mean and standard deviation over all chips. Saturated: at the "
            f"largest or smallest code.{left_out}{words.devices_note(rows)}{times_note(rows)}"
        )
        finish(figure, handles, note, are_methods=False)
    return figure


def clipping_map(ax: Axes, counts: pd.DataFrame, *, most: float | None = None) -> AxesImage:
    """Draw the share of saturated outputs of every array, a row a layer.

    Args:
        ax: Where to draw.
        counts: As `study.clipping_counts` gives; chips are averaged.
        most: Upper end of the colours [%]; None takes the largest share.

    Returns:
        The image, for a colour bar.

    Raises:
        ValueError: If there are no counts or columns are missing.

    Example:
        >>> clipping_map(ax, clipping).get_array().shape  # layers, arrays of a layer
        (3, 1)
    """
    check_columns(counts, ("layer", "array", "n_saturated", "n_outputs"))
    layers = list(dict.fromkeys(counts["layer"]))
    share = _saturated(counts, "layer", "array").unstack("array").loc[layers]
    image = ax.imshow(
        share.to_numpy(),
        cmap="cividis",
        vmin=0.0,
        vmax=most or max(float(np.nanmax(share)), 1e-6),
        aspect="auto",
        interpolation="nearest",
    )
    ax.set_yticks(range(len(layers)), layers)
    ax.set_xlabel("array of the layer")
    ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    ax.grid(False)
    return image


def arrays_figure(
    counts: pd.DataFrame,
    names: Mapping[str, str],
    *,
    task: str = "",
    width: str | float = "two columns",
    look: str = "paper",
) -> Figure:
    """Share of saturated outputs of every array, a map per device and method.

    Args:
        counts: As in ``clipping.csv``.
        names: As for `clipping_figure`.
        task: Data set and network in words ("LeNet-5 on MNIST"), for the caption; "": not said.
        width: "one column", "two columns" or inches.
        look: "paper", "talk" or the path of a style sheet (.mplstyle).

    Returns:
        The figure, its panels with one colour bar.

    Raises:
        ValueError: If columns or rows are missing, or a name is unknown.

    Example:
        >>> len(arrays_figure(clipping, label_of_network).axes)  # one map, and the colour bar
        2
    """
    rows = _named(counts, names, ("layer", "chip"))
    groups, left_out = first_groups(rows, _KEYS, MAX_PANELS)
    most = max(float(_saturated(rows, *_KEYS, "layer", "array").max()), 1e-6)
    with style(look):
        figure, axes = panel_grid(len(groups), width, look, aspect=0.7, share_y=False)
        for ax, part in zip(axes, groups, strict=True):
            image = clipping_map(ax, part, most=most)
            ax.set_title(_title(part, rows))
        figure.colorbar(image, ax=axes, label="saturated outputs [%]", shrink=0.9)
        note = (
            f"{_n_text(rows, task)}, averaged. Arrays of a layer: by blocks of rows, then of "
            f"columns.{left_out}{words.devices_note(rows)}{times_note(rows)}"
        )
        finish(figure, {}, note)
    return figure


def _named(rows: pd.DataFrame, names: Mapping[str, str], needed: tuple[str, ...]) -> pd.DataFrame:
    check_columns(rows, ("checkpoint", "device", "t_inference_s", *needed))
    known = rows["checkpoint"].map(names).fillna("network " + rows["checkpoint"].str[:8])
    return rows.assign(name=known, rank=known.map(order))


def _saturated(counts: pd.DataFrame, *columns: str) -> "pd.Series[float]":
    """Share of saturated outputs [%] by some columns, all chips together."""
    sums = counts.groupby(list(columns))[["n_saturated", "n_outputs"]].sum()
    return 100 * sums["n_saturated"] / sums["n_outputs"]


def _title(part: pd.DataFrame, rows: pd.DataFrame) -> str:
    first = part.iloc[0]
    device = device_label(first["device"], rows["device"].unique())
    return f"{words.method_text(first['name'])}\n{device}, {moment(part)}"


def _n_text(rows: pd.DataFrame, task: str) -> str:
    networks = rows.groupby(list(_KEYS))["checkpoint"].nunique()
    chips = rows.groupby("checkpoint")["chip"].nunique()
    n = pd.DataFrame({"n_networks": networks, "n_chips": chips.min(), "n_chips_max": chips.max()})
    return f"{words.led_by(task)}n = {words.n_text(n)}"


def _outline(counts: "pd.Series[int]", width: float) -> tuple[np.ndarray, np.ndarray]:
    """Left edges of bins and their counts, with empty bins between and after them."""
    first, last = float(counts.index.min()), float(counts.index.max())
    middles = first + width * np.arange(round((last - first) / width) + 1)
    places = np.rint((counts.index.to_numpy() - first) / width).astype(int)
    heights = np.zeros(len(middles) + 1)
    heights[places] = counts
    return np.append(middles, last + width) - width / 2, heights
