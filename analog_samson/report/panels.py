"""Drawing into one `Axes`: the score of chips over time and methods."""

from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any

import numpy as np
import pandas as pd
from matplotlib import rcParams
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.collections import LineCollection
from matplotlib.lines import Line2D
from numpy.typing import NDArray

from analog_samson import times
from analog_samson.report import words
from analog_samson.report.axes import TimeAxis, fit_scale, y_label
from analog_samson.report.style import line_width, marker_size, order, plot_options
from analog_samson.report.typeset import EXTRAPOLATED
from analog_samson.results.scores import score_of

LATE = (2.5, 1.5)
"""Dashes of lines to extrapolated times; dashes mean nothing else."""

DIGITAL = 0.05
"""Half the length of the line of digital networks, as a fraction of the time axis."""

ROOM = 0.05
"""Room for an arrow beside a time axis, as a fraction of it."""

MARKED = (0.25, 0.5, 0.75)
"""Shares of the chips at which curves of the yield have a marker: quartiles and the median."""

MOST_NAMES, LONGEST_NAME = 6, 20
"""Most methods that are named at an axis, and letters of the longest name: our choice."""

MANY_CHIPS = 300
"""Above this many chips of a method their thin lines are stored as pixels, not as vectors."""


def accuracy_vs_time(
    ax: Axes,
    summary: pd.DataFrame,
    *,
    interval: str = "bars",
    axis: TimeAxis | None = None,
) -> list[Line2D]:
    """Draw accuracy [%], or another score, against time on a logarithmic axis, one line per method.

    The programmed state (t = 0) and the digital networks are drawn left of breaks, because the axis
    is logarithmic; times beyond the device's measured range are shaded, and their lines are dashed.
    Markers of methods stand side by side.

    Args:
        ax: Where to draw.
        summary: As `results.summarise` gives, of one panel.
        interval: "bars" or "band".
        axis: Time axis shared by several panels; None makes one for these times.

    Returns:
        One handle per method for a legend, in the usual order.

    Raises:
        ValueError: If the summary is empty or holds rows of several panels, or the interval is
            neither "bars" nor "band".

    Example:
        >>> handles = accuracy_vs_time(ax, summary, interval="band")
        >>> [handle.get_label() for handle in handles]
        ['sgd', 'sam rho=0.1']
    """
    check_one(summary, "accuracy_vs_time", interval)
    score = score_of(summary)
    rows = summary.assign(
        name=words.method_names(summary), value=score.shown(summary[score.column])
    )
    digital = score.shown(rows.groupby("name")[score.digital].mean())
    handles = _over_time(ax, rows, interval, axis, score.shown, dict(digital))
    fit_scale(ax, score, rows["value"])
    ax.set_ylabel(y_label(score.axis()))
    return handles


def gain_vs_time(
    ax: Axes,
    gains: pd.DataFrame,
    *,
    interval: str = "bars",
    axis: TimeAxis | None = None,
) -> list[Line2D]:
    """Draw the paired gain over the baseline against time, positive where the method is better.

    Args:
        ax: Where to draw.
        gains: As `results.paired_gain` gives, of one panel.
        interval: "bars" or "band".
        axis: As in `accuracy_vs_time`.

    Returns:
        One handle per method.

    Raises:
        ValueError: As `accuracy_vs_time`.

    Example:
        >>> [handle.get_label() for handle in gain_vs_time(ax, gains)]
        ['sam rho=0.1']
    """
    check_one(gains, "gain_vs_time", interval)
    score = score_of(gains)
    baseline = words.method_text(gains["baseline"].iloc[0])
    label = f"gain over {baseline}{score.difference(short=True)}"
    if (gains["endpoint"] == "lost").all():
        label = f"lost less than by {baseline}{score.difference(short=True)}"
    shown = score.shown_gain
    rows = gains.assign(name=words.method_names(gains), value=shown(gains["gain"]))
    ax.axhline(0.0, color="black", linewidth=line_width(0.55), zorder=1)
    handles = _over_time(ax, rows, interval, axis, shown)
    ax.set_ylabel(label)
    return handles


def lost_vs_time(
    ax: Axes,
    losses: pd.DataFrame,
    *,
    interval: str = "bars",
    axis: TimeAxis | None = None,
) -> list[Line2D]:
    """Draw the score lost since the digital network, in its unit of losses, against time.

    Args:
        ax: Where to draw.
        losses: As `results.lost` gives, of one panel.
        interval: "bars" or "band".
        axis: As in `accuracy_vs_time`.

    Returns:
        One handle per method.

    Raises:
        ValueError: As `accuracy_vs_time`.

    Example:
        >>> from analog_samson.results import lost
        >>> [handle.get_label() for handle in lost_vs_time(ax, lost(rows))]
        ['sgd', 'sam rho=0.1']
    """
    check_one(losses, "lost_vs_time", interval)
    score = score_of(losses)
    rows = losses.assign(name=words.method_names(losses), value=score.shown_loss(losses["lost"]))
    ax.axhline(0.0, color="black", linewidth=line_width(0.55), zorder=1)
    handles = _over_time(ax, rows, interval, axis, score.shown_loss)
    ax.set_ylabel(score.lost_axis())
    return handles


def yield_curves(ax: Axes, chips: pd.DataFrame, *, target: float | None = None) -> list[Line2D]:
    """Draw the fraction of chips that reach a score against the score, a step a chip.

    Markers are at the quartiles and the median of the chips (`MARKED`).

    Args:
        ax: Where to draw.
        chips: As `results.chip_means` gives, of one panel at one time.
        target: Score to mark, in the table's unit; None marks nothing.

    Returns:
        One handle per method.

    Raises:
        ValueError: If there are no chips, rows of several panels or several times.

    Example:
        >>> handles = yield_curves(ax, chips[chips["t_inference_s"] == 3600.0], target=0.8)
        >>> ax.get_ylabel()
        'chips [%]'
    """
    check_one(chips, "yield_curves")
    if chips["t_inference_s"].nunique() > 1:
        raise ValueError("yield_curves draws one time; filter the chips by t_inference_s.")
    score = score_of(chips)
    names = words.method_names(chips)
    values = score.shown(chips[score.column])
    room = 0.04 * max(float(values.max() - values.min()), 0.1)
    ends = float(values.min()) - room, float(values.max()) + room
    handles = []
    for name in sorted(names.unique(), key=order):
        look = plot_options(name, names.unique())
        own = np.sort(values[names == name].to_numpy())
        reached = np.arange(len(own) + 1) / len(own)
        share = 100 * (1 - reached if score.is_higher_better else reached)
        end = 0.0 if score.is_higher_better else 100.0
        x = np.concatenate([[ends[0]], own, [ends[1]]])
        ax.step(x, np.append(share, end), where="post", color=look["color"])
        marked = np.unique([int(part * len(own)) for part in MARKED])
        ax.plot(own[marked], share[marked], **{**look, "linestyle": "none"})
        handles.append(Line2D([], [], label=name, **look))
    if target is not None and ends[0] <= score.shown(target) <= ends[1]:
        ax.axvline(score.shown(target), color="0.3", linestyle=":", lw=line_width(0.7), zorder=1)
    ax.set_xlim(*ends)
    ax.set_ylim(-3, 103)
    ax.set_xlabel(score.reached_axis)
    ax.set_ylabel("chips [%]")
    return handles


def chips_over_time(ax: Axes, chips: pd.DataFrame, *, axis: TimeAxis | None = None) -> list[Line2D]:
    """Draw every chip as a thin line, to show the spread of the chips of one method.

    Times beyond the device's measured range are shaded.

    Args:
        ax: Where to draw.
        chips: As `results.chip_means` gives, of one panel.
        axis: As in `accuracy_vs_time`.

    Returns:
        One handle per method.

    Raises:
        ValueError: If there are no chips or rows of several panels.

    Example:
        >>> handles = chips_over_time(ax, chips)
        >>> [handle.get_label() for handle in handles]
        ['sgd', 'sam rho=0.1']
    """
    check_one(chips, "chips_over_time")
    axis = axis or TimeAxis(chips["t_inference_s"])
    score = score_of(chips)
    handles = []
    names = words.method_names(chips)
    for name in sorted(names.unique(), key=order):
        style = plot_options(name, names.unique())
        own = chips[names == name]
        n_chips = own["chip_id"].nunique()
        alpha = float(np.clip(8 / n_chips, 0.15, 0.7))
        later = own[own["t_inference_s"] > 0].sort_values(["chip_id", "t_inference_s"])
        points = np.column_stack([later["t_inference_s"], score.shown(later[score.column])])
        begins = np.flatnonzero(~later["chip_id"].duplicated())
        lines = np.split(points, begins[1:])
        thin = {"color": style["color"], "alpha": alpha, "rasterized": n_chips > MANY_CHIPS}
        ax.add_collection(LineCollection(lines, linewidths=line_width(0.45), zorder=2, **thin))
        start = own[own["t_inference_s"] == 0]
        x = axis.place(start["t_inference_s"].to_numpy(dtype=float))
        ax.plot(x, score.shown(start[score.column]), ".", markersize=marker_size(0.5), **thin)
        mean = score.shown(own.groupby("t_inference_s")[score.column].mean())
        later = mean[mean.index > 0]
        ax.plot(later.index, later, color="white", lw=line_width(2.2), zorder=3)
        ax.plot(later.index, later, color=style["color"], zorder=4)
        ax.plot(axis.place(mean.index.to_numpy()), mean, zorder=5, **{**style, "linestyle": "none"})
        handles.append(Line2D([], [], label=name, **style))
    axis.dress(ax)
    axis.shade(ax, chips, named=False)
    fit_scale(ax, score, score.shown(chips[score.column]))
    ax.set_ylabel(y_label(score.axis(), longest=0))  # panels are low
    return handles


def chip_strips(ax: Axes, chips: pd.DataFrame) -> list[Line2D]:
    """Draw every chip at one time as a point, one strip per method.

    Networks stand side by side in order of their training seed, equal seeds at equal places.

    Args:
        ax: Where to draw.
        chips: As `results.chip_means` gives, of one panel at one time.

    Returns:
        An empty list, where methods are named below their strips; where these names are long or
        many, one handle per method, whose marker stands below its strip.

    Raises:
        ValueError: If there are no chips, rows of several panels or several times.

    Example:
        >>> chip_strips(ax, chips[chips["t_inference_s"] == 3600.0])
        []
        >>> len(ax.get_xticks())  # a strip a method
        2
    """
    check_one(chips, "chip_strips")
    if chips["t_inference_s"].nunique() > 1:
        raise ValueError(
            f"chip_strips draws one time; these chips hold {chips['t_inference_s'].nunique()}: "
            "filter them by t_inference_s."
        )
    score = score_of(chips)
    names = words.method_names(chips)
    ordered = sorted(names.unique(), key=order)
    slots = _slots(chips, names)
    n_slots = len(set(slots.values()))
    for k, name in enumerate(ordered):
        style = plot_options(name, ordered)
        networks = chips[names == name].groupby("checkpoint", observed=True, sort=True)
        for checkpoint, own in networks:
            place = k + (slots[str(checkpoint)] - (n_slots - 1) / 2) * 0.7 / n_slots
            value = score.shown(own[score.column].to_numpy())
            rank = np.argsort(np.argsort(own["chip"].to_numpy()))
            x = place + (rank - (len(rank) - 1) / 2) / max(len(rank) - 1, 1) * 0.4 / n_slots
            ax.plot(
                x,
                value,
                ".",
                color=style["color"],
                markersize=marker_size(0.62),
                alpha=0.6,
                zorder=2,
            )
            if len(own) > 1:
                ends = [place - 0.25 / n_slots, place + 0.25 / n_slots]
                mean = score.shown(own[score.column].mean())
                ax.plot(
                    ends, [mean] * 2, color=rcParams["text.color"], lw=line_width(0.9), zorder=3
                )
    ax.set_xlim(-0.6, len(ordered) - 0.4)
    fit_scale(ax, score, score.shown(chips[score.column]))
    ax.set_ylabel(y_label(score.axis()))
    texts = [words.method_text(name).replace(" ", "\n", 1) for name in ordered]
    return _name_places(ax.xaxis, ordered, texts)


def _slots(chips: pd.DataFrame, names: "pd.Series[str]") -> dict[str, int]:
    """Place of each network in the strip of its method: by training seed, the same for all."""
    networks = pd.DataFrame(
        {"name": names, "seed": chips["training_seed"], "checkpoint": chips["checkpoint"]}
    )
    networks = networks.drop_duplicates().sort_values(["name", "seed", "checkpoint"])
    again = networks.groupby(["name", "seed"], observed=True).cumcount()  # networks of one seed
    keys = list(zip(networks["seed"], again, strict=True))
    places_ = {key: place for place, key in enumerate(sorted(set(keys)))}
    return dict(zip(networks["checkpoint"], map(places_.__getitem__, keys), strict=True))


def lifetimes(ax: Axes, lives: pd.DataFrame) -> list[Line2D]:
    """Draw lifetimes with their intervals, one row per method; arrows to the edge: no bound.

    Times beyond the device's measured range are shaded and carry a dagger.

    Args:
        ax: Where to draw.
        lives: As `results.lifetime` gives, of one panel.

    Returns:
        An empty list, where methods are named beside their rows; where these names are long or
        many, one handle per method, whose marker stands there.

    Raises:
        ValueError: If there are no lifetimes or rows of several panels.

    Example:
        >>> from analog_samson.results import lifetime
        >>> lifetimes(ax, lifetime(rows, loss=0.05))
        []
        >>> [label.get_text() for label in ax.get_yticklabels()]
        ['SGD', 'SAM ρ = 0.1']
    """
    check_one(lives, "lifetimes")
    finite = lives[["lifetime_s", "low_s", "high_s"]].replace([0.0, np.inf], np.nan)
    ends = pd.Series(np.append(finite.to_numpy().ravel(), [1.0, times.YEAR])).dropna()
    axis = TimeAxis(ends, named_ticks=True)
    axis.dress(ax, ROOM)
    names = words.method_names(lives)
    ordered = sorted(names.unique(), key=order)
    for place, name in enumerate(ordered):
        row = lives[names == name].iloc[0]
        style = plot_options(name, ordered)
        known = row["lifetime_s"]
        begin = row["low_s"] if row["low_s"] > 0 else known
        end = row["high_s"] if np.isfinite(row["high_s"]) else max(known, row["low_s"])
        ax.plot([begin, end], [place, place], color=style["color"], zorder=2)
        arrow = {"arrowstyle": "-|>", "color": style["color"], "shrinkA": 0, "shrinkB": 0}
        arrow |= {"linewidth": line_width(1.0), "mutation_scale": marker_size(1.8)}
        for is_open, start, side in (
            (row["low_s"] == 0, begin, 0),
            (np.isinf(row["high_s"]), end, 1),
        ):
            if is_open:
                ax.annotate(
                    "",
                    (side, place),
                    (start, place),
                    xycoords=ax.get_yaxis_transform(),
                    textcoords="data",
                    arrowprops=arrow,
                ).set_in_layout(False)
        if row["censored"] == "":
            ax.plot(known, place, zorder=4, **style)
        sign = {"right": "> ", "left": "< ", "": ""}[row["censored"]]
        late = EXTRAPOLATED if row["extrapolated"] else ""
        ax.annotate(
            f"{sign}{times.label(known)}{late}",
            (known, place),
            xytext=(0, marker_size(0.9)),
            textcoords="offset points",
            ha={"right": "right", "left": "left", "": "center"}[row["censored"]],
            fontsize="small",
            color="0.3",
        )
    measured = float(lives["measured_s"].min())
    if np.isfinite(measured):
        late_s = ends[ends > measured].min()
        edges = lives.iloc[[0, 0]].assign(
            t_inference_s=[measured, late_s], extrapolated=[False, True]
        )
        axis.shade(ax, edges, named=False)
    ax.set_ylim(len(ordered) - 0.4, -0.6)
    ax.grid(False, axis="y")
    ax.grid(True, axis="x")
    ax.set_xlabel(f"time until {score_of(lives).loss_clause(lives['loss'].iloc[0])}")
    return _name_places(ax.yaxis, ordered, [words.method_text(name) for name in ordered])


def _name_places(axis: Axis, names: Sequence[str], texts: Sequence[str]) -> list[Line2D]:
    """Name the methods at 0, 1, 2, ... of an axis; by their markers where texts have no room.

    Returns:
        Handles of a legend; none where the texts stand at the axis.
    """
    axis.set_tick_params(length=0)
    longest = max(len(line) for text in texts for line in text.split("\n"))
    if len(texts) <= MOST_NAMES and longest <= LONGEST_NAME:
        axis.set_ticks(range(len(texts)), texts)
        return []
    axis.set_ticks([])
    ax = axis.axes
    looks = {name: {**plot_options(name, names), "linestyle": "none"} for name in names}
    for place, look in enumerate(looks.values()):
        is_below = axis is ax.xaxis
        at = ([place], [-0.05]) if is_below else ([-0.03], [place])
        across = ax.get_xaxis_transform() if is_below else ax.get_yaxis_transform()
        ax.plot(*at, transform=across, clip_on=False, **look)
    return [Line2D([], [], label=name, **look) for name, look in looks.items()]


def clean_vs_late(ax: Axes, networks: pd.DataFrame) -> list[Line2D]:
    """Scatter every network: digital accuracy against its accuracy on chips at one time.

    On the grey line, y = x, nothing is lost.

    Args:
        ax: Where to draw.
        networks: As `results.network_means` gives, of one panel at one time.

    Returns:
        One handle per method.

    Raises:
        ValueError: If there are no networks, rows of several panels or several times.

    Example:
        >>> from analog_samson.results import network_means
        >>> networks = network_means(chips[chips["t_inference_s"] == 3600.0])
        >>> [handle.get_label() for handle in clean_vs_late(ax, networks)]
        ['sgd', 'sam rho=0.1']
    """
    check_one(networks, "clean_vs_late")
    if networks["t_inference_s"].nunique() > 1:
        raise ValueError("clean_vs_late draws one time; filter the networks by t_inference_s.")
    score = score_of(networks)
    names = words.method_names(networks)
    handles = []
    ordered = sorted(names.unique(), key=order)
    for name in ordered:
        style = plot_options(name, ordered)
        own = networks[names == name]
        x, y = score.shown(own[score.digital]), score.shown(own[score.column])
        spread = own["std_chips"].fillna(0.0)
        low, high = (score.shown(own[score.column] + sign * spread) for sign in (-1, 1))
        ax.vlines(
            x,
            low,
            high,
            color=style["color"],
            lw=line_width(0.55),
            alpha=0.5,
        )
        ax.plot(x, y, **{**style, "linestyle": "none"})
        handles.append(Line2D([], [], label=name, **{**style, "linestyle": "none"}))
    ax.margins(0.08)
    shown = score.shown(networks[score.digital])
    ends = [float(shown.min()), float(shown.max())]
    ax.plot(ends, ends, color="0.5", lw=line_width(0.7), zorder=1)  # nothing lost: y = x
    ax.grid(True, axis="x")
    ax.set_xlabel(f"digital {score.axis()}")
    fit_scale(ax, score, score.shown(networks[score.column]))
    ax.set_ylabel(y_label(score.axis(times.label(networks["t_inference_s"].iloc[0]))))
    return handles


def _over_time(
    ax: Axes,
    rows: pd.DataFrame,
    interval: str,
    axis: TimeAxis | None,
    show: Callable[[Any], Any],
    digital: Mapping[str, float] = MappingProxyType({}),
) -> list[Line2D]:
    names = sorted(rows["name"].unique(), key=order)
    looks = {name: plot_options(name, names) for name in names}
    draw_series(ax, rows, looks, interval, axis, show, digital)
    return [Line2D([], [], label=name, **look) for name, look in looks.items()]


def draw_series(
    ax: Axes,
    rows: pd.DataFrame,
    looks: Mapping[str, dict[str, Any]],
    interval: str,
    axis: TimeAxis | None,
    show: Callable[[Any], Any],
    digital: Mapping[str, float] = MappingProxyType({}),
) -> None:
    """Draw series with their intervals against time, side by side.

    Args:
        ax: Where to draw.
        rows: Columns ``name``, ``t_inference_s``, ``value`` (as shown), ``low`` and ``high`` (as
            `show` converts them) and ``extrapolated``.
        looks: Name of each series to its line and marker, for `Axes.plot`.
        interval: "bars" or "band".
        axis: Time axis; None makes one for these times.
        show: Converts the ends of intervals to the unit that is shown.
        digital: Name of a series to the score of its digital networks, as shown.
    """
    axis = axis or TimeAxis(rows["t_inference_s"])
    names = list(looks)
    shifts = axis.shifts(len(names), ax)
    for name, shift in zip(names, shifts, strict=True):
        own = rows[rows["name"] == name].sort_values("t_inference_s")
        style = looks[name]
        t = own["t_inference_s"].to_numpy(dtype=float)
        timed = t > 0
        barred = np.ones_like(timed) if interval == "bars" else ~timed
        x, y = axis.place(t, shift * barred), own["value"].to_numpy()
        low, high = (show(own[end].to_numpy()) for end in ("low", "high"))
        late = own["extrapolated"].to_numpy(dtype=bool)
        line = {"color": style["color"], "zorder": 3}
        for part, is_late in _lines(late[timed]):
            dashes = (0, LATE) if is_late else style["linestyle"]
            ax.plot(x[timed][part], y[timed][part], linestyle=dashes, **line)
        if interval == "band":
            line["zorder"] = 2
            ax.fill_between(
                x[timed], low[timed], high[timed], alpha=0.12, lw=0, color=line["color"]
            )
            for edge in (low, high):
                ax.plot(x[timed], edge[timed], lw=line_width(0.4), alpha=0.7, **line)
        ax.errorbar(
            x[barred],
            y[barred],
            [(y - low)[barred], (high - y)[barred]],
            fmt="none",
            ecolor=style["color"],
            elinewidth=line_width(0.7),
            zorder=3,
        )
        ax.plot(x, y, zorder=4, **{**style, "linestyle": "none"})
        if name in digital:
            thin = {"color": style["color"], "lw": line_width(0.6), "zorder": 2}
            x = axis.place(np.full(3, axis.digital_s), np.array([-DIGITAL, shift, DIGITAL]))
            ax.plot(x[[0, 2]], [digital[name]] * 2, **thin)
            ax.plot(x[1], digital[name], zorder=4, **{**style, "linestyle": "none"})
    axis.dress(ax, float(shifts[-1]), has_digital=bool(digital))
    axis.shade(ax, rows)


def _lines(late: NDArray[np.bool_]) -> list[tuple[slice, bool]]:
    """Parts of a line through points in the order of time, and whether their ends are late."""
    is_dashed = late[1:] | late[:-1]
    edges = np.flatnonzero(np.diff(is_dashed)) + 1
    firsts, lasts = [0, *edges.tolist()], [*edges.tolist(), len(is_dashed)]
    return [
        (slice(first, last + 1), bool(is_dashed[first]))
        for first, last in zip(firsts, lasts, strict=True)
        if last > first
    ]


def check_one(
    rows: pd.DataFrame, what: str, interval: str = "bars", besides: tuple[str, ...] = ()
) -> None:
    """Check that the rows can be drawn into one panel.

    Raises:
        ValueError: If there are no rows, rows of several panels, or the interval is unknown.
    """
    if interval not in ("bars", "band"):
        raise ValueError(f"Interval must be 'bars' or 'band'; got {interval!r}.")
    if rows.empty:
        raise ValueError("The summary is empty; there is nothing to draw.")
    several = ["device"] * (rows["device"].nunique() > 1)
    several += [column for column in words.varying(rows) if column not in besides]
    if several:
        raise ValueError(
            f"{what} draws one panel; this summary holds several in {several}: "
            "filter it, or use a figure with panels."
        )
