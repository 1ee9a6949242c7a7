"""Maps: the score, gain or loss over two or three swept settings, with contour lines and a target.

Values between the points of the grid are interpolated linearly, along an axis with even steps of
the logarithm in the logarithm.
"""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.collections import QuadMesh
from matplotlib.contour import QuadContourSet
from matplotlib.figure import Figure
from matplotlib.patheffects import AbstractPathEffect, withStroke
from matplotlib.ticker import FixedLocator, MaxNLocator, NullLocator
from numpy.typing import NDArray

from analog_samson import results, times
from analog_samson.devices.sentences import did_you_mean
from analog_samson.report import words
from analog_samson.report.axes import finish
from analog_samson.report.captions import caption
from analog_samson.report.content import Content
from analog_samson.report.figures import moment, panel_grid, target_of, times_note
from analog_samson.report.nominal import nominal_values
from analog_samson.report.panels import check_one
from analog_samson.report.style import line_width, marker_size, order, style
from analog_samson.report.sweeps import are_crossed, swept_axes, with_axis
from analog_samson.report.typeset import BLANK, Block, Table
from analog_samson.results.scores import Score, score_of
from analog_samson.results.yields import Target, targets_of

Floats = NDArray[np.float64]

Kind = Literal["score", "gain", "lost"]

MOST_ACROSS = 5
"""Panels side by side; of a third axis with more values, this many are drawn: our choice."""

MOST_PANELS = 30
"""Panels of one figure: our choice."""

N_LEVELS = 5
"""Contour lines of a panel, about: our choice."""

N_TICKS = 6
"""Labelled values of an axis, at most: our choice."""

REFINED = 8
"""Steps between two points of the grid when regions are drawn: our choice."""

LABEL_MARGIN = 0.06
"""Distance of the label of a contour line from the edges / size of the panel: our choice."""

_FADED = 0.62
"""How far the colours of the region that misses the target are faded: our choice."""


@dataclass(frozen=True)
class Surface:
    """What is mapped, of one method at one time, in the unit that is shown.

    Attributes:
        x: Values of the horizontal axis, ascending.
        y: Values of the vertical axis, ascending.
        mean: Shape (y, x); NaN where there are no trials.
        low: Lower bound of the interval; the mean where there is no interval.
        high: Upper bound.
    """

    x: list[Any]
    y: list[Any]
    mean: Floats
    low: Floats
    high: Floats

    @cached_property
    def across(self) -> Floats:
        """Where the values of the horizontal axis stand."""
        return _positions(self.x)

    @cached_property
    def up(self) -> Floats:
        """Where the values of the vertical axis stand."""
        return _positions(self.y)


def map_figure(
    rows: pd.DataFrame,
    axes: Sequence[str],
    *,
    target: float | None = None,
    nominal: Mapping[str, Any] | None = None,
    width: str | float = "two columns",
    look: str = "paper",
) -> Figure:
    """Map a score, gain or loss of one device over two swept axes, or three.

    Over two axes a row of panels shows a method, a column a time. Over three, at one time, a column
    shows a value of the third axis.

    Args:
        rows: As `results.summarise`, `results.paired_gain` or `results.lost` gives, of one device.
        axes: Names of the horizontal and the vertical axis, and of a third one; the end of a name
            is enough ("g_min_uS"). Other swept axes stay at the nominal value.
        target: Value to reach, in the unit of the table (as a fraction); None marks no region.
        nominal: The device's own value of each axis, where it is known; it is marked.
        width: "one column" or "two columns".
        look: Style sheet, "paper" or "talk".

    Returns:
        The figure, its panels with one colour bar.

    Raises:
        ValueError: If an axis was not swept, there are several devices, or several times with a
            third axis, or too many panels.

    Example:
        >>> figure = map_figure(swept_twice, ["adc_bits", "programming_noise_scale"], target=0.8)
        >>> figure.axes[0].get_xlabel()
        'adc bits'
    """
    if rows.empty:
        raise ValueError("There are no rows to map; run the study first.")
    nominal = {} if nominal is None else nominal
    rows, axes, fixed = _on_axes(rows, axes, nominal)
    names = words.method_names(rows)
    methods = sorted(names.unique(), key=order)
    what, columns, note = _columns(rows, axes)
    if len(methods) * len(columns) > MOST_PANELS:
        raise ValueError(
            f"A map of {len(methods)} methods and {len(columns)} {what} has more than "
            f"{MOST_PANELS} panels; select methods or times."
        )
    shown = _Shown.of(rows)
    values = shown.show(rows[shown.column].to_numpy(dtype=float))
    colour_range = float(np.nanmin(values)), float(np.nanmax(values))
    with style(look):
        figure, panels = panel_grid(
            len(methods) * len(columns),
            width,
            look,
            aspect=0.85,
            share_y=True,
            across=len(columns) if len(columns) > 1 else None,
        )
        places = [(name, column) for name in methods for column in columns]
        for ax, (name, (title, is_column)) in zip(panels, places, strict=True):
            part = rows[(names == name) & is_column]
            parts = [words.method_text(name), title]
            ax.set_title(("\n" if len(columns) > 2 else ", ").join(filter(None, parts)))
            if part.empty:
                ax.set_axis_off()
                continue
            third = part[axes[2]].iloc[0] if len(axes) > 2 else None
            is_own = len(axes) < 3 or third == nominal.get(axes[2])
            own = nominal if is_own else {}
            image = draw_map(
                ax, part, *axes[:2], target=target, nominal=own, colour_range=colour_range
            )
            ax.label_outer()
        figure.colorbar(image, ax=panels, label=shown.label, shrink=0.9, aspect=30)
        texts = [words.device_text(rows), note, shown.target_note(target)]
        if all(axis in nominal for axis in axes):
            texts.append("Cross: the device as it is.")
        if fixed:
            texts.append(f"At {fixed}.")
        texts += [
            f"n = {words.n_text(rows)}; {words.interval_text(rows)}.",
            words.typical_text(rows),
        ]
        texts.append(f"{words.fixed_text(rows.assign(condition='{}'))}.{times_note(rows)}")
        finish(figure, {}, " ".join(filter(None, texts)))
    return figure


def map_figures(
    rows: pd.DataFrame,
    axes: Sequence[str],
    *,
    target: Target | None = None,
    manifests: Sequence[Mapping[str, Any]] = (),
    width: str | float = "two columns",
    look: str = "paper",
) -> dict[str, Figure]:
    """One map of every device and every other setting that varies; over three axes of every time.

    Devices on which the axes were not swept together are left out; `map_table` names them.

    Args:
        rows: As in `map_figure`, of any number of devices.
        axes: As in `map_figure`.
        target: As in `map_figure`, or one of each data set and model.
        manifests: Contents of ``manifest.json``, for the devices' own values.
        width: "one column" or "two columns".
        look: Style sheet, "paper" or "talk".

    Returns:
        What is mapped ("pcm_like", "pcm_like, 1 y") to its figure.

    Raises:
        ValueError: As `map_figure`.
    """
    _check_number(axes)
    names = [full_name(rows, axis) for axis in axes]
    besides = [column for column in words.varying(rows) if column != "condition"]
    drawn = {}
    for _, part in rows.groupby(["device", *besides], observed=True, sort=True):
        if not _are_mapped(part, names):
            continue
        title = ", ".join(map(str, part.iloc[0][["device", *besides]]))
        known = swept_axes(with_axis(part, names))
        is_one_time = len(names) > 2 or len(known) == 3
        nominal = nominal_values(manifests, str(part["device"].iloc[0]), known)
        moments = sorted(part["t_inference_s"].unique())
        for t in moments if is_one_time else [None]:
            own = part if t is None else part[part["t_inference_s"] == t]
            key = title if t is None or len(moments) == 1 else f"{title}, {times.label(t)}"
            drawn[key] = map_figure(
                own, names, target=target_of(own, target), nominal=nominal, width=width, look=look
            )
    if not drawn:
        raise ValueError(f"{_joined(names)} were not swept together on any device: no map.")
    return drawn


def _are_mapped(rows: pd.DataFrame, names: Sequence[str]) -> bool:
    """Whether rows of one device have points over all of some axes."""
    if not are_crossed(rows, list(names)):
        return False
    return set(names) <= set(swept_axes(with_axis(rows, list(names))))


def _joined(names: Sequence[str]) -> str:
    """Axes in words: "adc bits and noise scale"."""
    *first, last = map(words.axis_name, names)
    return f"{', '.join(first)} and {last}"


def study_maps(
    content: Content, axes: Sequence[str], *, of: Kind = "score"
) -> tuple[dict[str, Figure], Table]:
    """Maps of a study, and the table beside them.

    Args:
        content: Content of a report.
        axes: As in `map_figure`.
        of: "score", "gain" over the baseline, or "lost" since the digital network.

    Returns:
        The figures, by the stems of their files, and the table (see `map_table`). The target is
        that of the content; without one, of a score that of the yield, of gains 0, of losses the
        smallest loss of the lifetimes.

    Raises:
        ValueError: As `map_figure`, or if there are no gains.

    Example:
        >>> from analog_samson import read_trials
        >>> content = Content(read_trials("digits/two"), target=0.5)
        >>> figures, table = study_maps(content, ["adc_bits", "programming_noise_scale"])
        >>> list(figures)
        ['map_adc_bits_programming_noise_scale']
    """
    rows = {"score": content.summary, "gain": content.gains, "lost": content.lost}[of]
    if rows.empty and content.baseline in set(content.rows["method"]):
        raise ValueError(
            f"There are no gains to map: {content.baseline!r} is the only method, and gains are "
            "counted from it; give a study with another method."
        )
    if rows.empty:
        raise ValueError(
            f"There are no gains to map: {content.baseline!r} is not among the methods; give "
            "another baseline."
        )
    target: Target | None = content.table_target if of == "score" else content.target
    if target is None:
        least = {"gain": 0.0, "lost": content.score.losses[0]}
        target = least[of] if of in least else results.default_targets(content.chips)
    lowest, highest = content.score.limits
    for one in target.values() if isinstance(target, Mapping) else [target]:
        if of == "score" and not lowest < one < highest:
            allowed = f"above {lowest:g}"
            if highest < np.inf:
                allowed = f"between {lowest:g} and {highest:g}"
            raise ValueError(f"The target of a map of the score must be {allowed}; got {one!r}.")
    names = [full_name(rows, axis) for axis in axes]
    stem = "_".join(["map", *([] if of == "score" else [of]), *axes])
    how: Any = {"target": target, "manifests": content.manifests, **content.how}
    drawn = map_figures(rows, names, **how)
    named = {
        stem if len(drawn) == 1 else re.sub(r"[^\w.-]+", "_", f"{stem}_{key}"): figure
        for key, figure in drawn.items()
    }
    return named, map_table(rows, names, target)


def chosen_axes(rows: pd.DataFrame) -> list[str]:
    """The axes of a report's map: those with most values, the third one in panels; or none."""
    points = [json.loads(text) for text in rows["condition"].unique()]
    n_values = {
        axis: len({point[axis] for point in points if axis in point}) for axis in swept_axes(rows)
    }
    return sorted(n_values, key=lambda axis: (-n_values[axis], axis))[:3]


def draw_map(
    ax: Axes,
    rows: pd.DataFrame,
    x: str,
    y: str,
    *,
    target: float | None = None,
    nominal: Mapping[str, Any] | None = None,
    colour_range: tuple[float, float] | None = None,
    levels: Sequence[float] | None = None,
) -> QuadMesh:
    """Draw a score, gain or loss over two swept axes, of one method at one time.

    Full colour where the whole interval meets the target, hatched where it contains the target,
    faded and dotted where it misses it; a thick line where the mean is the target.

    Args:
        ax: Where to draw.
        rows: As in `map_figure`, of one method at one time.
        x: Name of the horizontal axis.
        y: Name of the vertical axis.
        target: Value to reach, in the unit of the table; None marks no region.
        nominal: The device's own value of each axis.
        colour_range: Lowest and highest shown value of the colours, for panels that share them.
        levels: Shown values of the contour lines; None takes about `N_LEVELS` round numbers.

    Returns:
        The image, for a colour bar.

    Raises:
        ValueError: If an axis was not swept, or other settings or the time vary, too.

    Example:
        >>> image = draw_map(ax, swept_twice, "adc_bits", "programming_noise_scale", target=0.8)
        >>> image.get_array().shape
        (2, 2)
    """
    shown = _Shown.of(rows)
    surface = surface_of(rows, x, y)
    mean = np.ma.masked_invalid(surface.mean)
    low, high = colour_range or (float(mean.min()), float(mean.max()))
    image = ax.pcolormesh(
        _edges(surface.across),
        _edges(surface.up),
        mean,
        cmap="cividis",
        vmin=low,
        vmax=max(high, low + 1e-9),
        rasterized=mean.size > 400,
    )
    if min(mean.shape) > 1:
        if levels is None:
            levels = [float(v) for v in MaxNLocator(N_LEVELS).tick_values(low, high)]
        at = np.nan
        if target is not None:
            at = shown.show(target)
            _draw_target(ax, surface, at, is_higher_better=shown.is_higher_better)
        inside = [v for v in levels if mean.min() < v < mean.max() and not np.isclose(v, at)]
        if inside:
            how: Any = {"levels": inside, "colors": "0.1", "linewidths": line_width(0.4)}
            lines = ax.contour(surface.across, surface.up, mean, **how)
            halo: list[AbstractPathEffect] = [
                withStroke(linewidth=line_width(1.2), foreground=(1, 1, 1, 0.6))
            ]
            lines.set_path_effects(halo)
            spots = _inner_points(lines, surface)
            how = {"fontsize": "small", "fmt": "%g", "inline_spacing": 2, "manual": spots}
            for label in ax.clabel(lines, **how) if spots else ():
                label.set_path_effects(halo)
    _mark_nominal(ax, surface, (x, y), nominal or {})
    _dress(ax.xaxis, x, surface.x, surface.across)
    _dress(ax.yaxis, y, surface.y, surface.up)
    ax.set_xlim(*_limits(surface.across))
    ax.set_ylim(*_limits(surface.up))
    ax.grid(False)
    ax.set_xlabel(_label(x))
    ax.set_ylabel(_label(y))
    return image


def _inner_points(lines: QuadContourSet, surface: Surface) -> list[tuple[float, float]]:
    """The point of every contour line farthest from the edges, where a label is not cut."""
    (left, right), (bottom, top) = _limits(surface.across), _limits(surface.up)
    found = []
    for path in lines.get_paths():
        for part in map(np.asarray, path.to_polygons(closed_only=False)):
            share = (part - (left, bottom)) / (right - left, top - bottom)
            margin = np.minimum(share, 1 - share).min(axis=1)
            best = int(np.argmax(margin))
            if margin[best] > LABEL_MARGIN:
                found.append((float(part[best][0]), float(part[best][1])))
    return found


def map_table(rows: pd.DataFrame, axes: Sequence[str], target: Target) -> Table:
    """Share of the swept points that meet a target; the CSV file has every point.

    Args:
        rows: As in `map_figure`, of any number of devices.
        axes: Names of swept axes, which become columns of the data.
        target: Value to reach, in the unit of the table, or one of each data set and model; rows
            of others are left out.

    Returns:
        The table; its data have a column for each axis, and ``meets``: "yes" where the whole
        interval meets the target, "no" where it misses it, "uncertain" between.

    Raises:
        ValueError: If an axis was not swept.

    Example:
        >>> table = map_table(swept_twice, ["adc_bits", "programming_noise_scale"], target=0.5)
        >>> sorted(table.data["meets"].unique())
        ['uncertain', 'yes']
    """
    shown = _Shown.of(rows)
    names = [full_name(rows, axis) for axis in axes]
    data = with_axis(rows, names)
    data = data.assign(target=targets_of(data, target)).dropna(subset="target")
    mean, low, high = (data[name].to_numpy(dtype=float) for name in (shown.column, "low", "high"))
    low, high = np.where(np.isnan(low), mean, low), np.where(np.isnan(high), mean, high)
    worst, best = (low, high) if shown.is_higher_better else (-high, -low)
    least = data["target"].to_numpy() * (1.0 if shown.is_higher_better else -1.0)
    meets = np.select([worst >= least, best < least], ["yes", "no"], "uncertain")
    data = data.assign(meets=meets, name=words.method_names(data))
    columns = [column for column in words.varying(data) if column != "condition"]
    blocks = []
    for _, part in data.groupby(["device", *columns], observed=True, sort=True):
        lines = []
        for name in sorted(part["name"].unique(), key=order):
            line = {"method": words.method_text(name)}
            for t in sorted(part["t_inference_s"].unique()):
                own = part.loc[(part["name"] == name) & (part["t_inference_s"] == t), "meets"]
                share = 100 * (own != "no").mean()
                text = f"{100 * (own == 'yes').mean():.0f} to {share:.0f}"
                line[moment(part[part["t_inference_s"] == t])] = text if len(own) else BLANK
            lines.append(line)
        title = words.group_title(part.iloc[0], columns, data["device"].unique())
        blocks.append(Block.plain(title, lines))
    goal = f"{shown.word} {shown.relation} {words.each_text(target, shown.text)}"
    n = data["condition"].nunique()
    parts = [
        f"Share of the {n:,} swept points with {goal} at that time: surely (the whole "
        f"{words.per_cent_of(data)} interval), to perhaps (some of it). All points are in the CSV "
        "file.",
    ]
    every = ["device", *(column for column in words.varying(rows) if column != "condition")]
    left_out = [
        words.group_title(part.iloc[0], every[1:], rows["device"].unique())
        for _, part in rows.groupby(every, observed=True, sort=True)
        if not _are_mapped(part, names)
    ]
    if left_out:
        parts.append(
            f"Not mapped: {'; '.join(left_out)}, where {_joined(names)} were not swept together."
        )
    plain = data.assign(condition="{}")
    return Table(
        title=f"Swept points with {goal} [%]",
        caption=caption(plain, blocks, parts),
        blocks=tuple(blocks),
        data=data.drop(columns="name"),
        label="tab:map",
    )


def surface_of(rows: pd.DataFrame, x: str, y: str) -> Surface:
    """The mapped values on the grid of two axes.

    Args:
        rows: As in `draw_map`.
        x: Name of the horizontal axis.
        y: Name of the vertical axis.

    Raises:
        ValueError: As `draw_map`.
    """
    shown = _Shown.of(rows)
    rows = with_axis(rows, [x, y])
    check_one(rows, "A map", besides=("condition",))
    if x == y or rows.duplicated([x, y]).any():
        raise ValueError(
            "A map has two different axes, one method and one time; filter the summary by method, "
            "t_inference_s and the other axes."
        )
    right, up = (sorted(rows[axis].unique(), key=words.by_value) for axis in (x, y))
    place = rows[y].map({v: k for k, v in enumerate(up)}).to_numpy(dtype=int)
    across = rows[x].map({v: k for k, v in enumerate(right)}).to_numpy(dtype=int)
    grids = np.full((3, len(up), len(right)), np.nan)
    for grid, column in zip(grids, (shown.column, "low", "high"), strict=True):
        grid[place, across] = shown.show(rows[column].to_numpy(dtype=float))
    mean, low, high = grids
    bare = np.isnan(low) | np.isnan(high)
    return Surface(right, up, mean, np.where(bare, mean, low), np.where(bare, mean, high))


def full_name(rows: pd.DataFrame, axis: str) -> str:
    """Name of a swept axis, given in full or by its end ("g_min_uS" of "noise.g_min_uS").

    Raises:
        ValueError: If no axis, or several, have that name.
    """
    known = swept_axes(rows)
    found = [name for name in known if name == axis]
    found = found or [name for name in known if name.rpartition(".")[2] == axis]
    if not found and known:
        raise ValueError(f"No trial sweeps {axis!r}{did_you_mean(axis, known)}")
    if not found:
        raise ValueError(f"No trial sweeps {axis!r}: nothing was swept; a map needs two axes.")
    if len(found) > 1:
        raise ValueError(f"Axis {axis!r} is {' or '.join(found)}; give the whole name.")
    return found[0]


@dataclass(frozen=True)
class _Shown:
    """How the values of rows are shown: of a score, of gains, or of losses."""

    kind: Kind
    score: Score
    column: str
    label: str

    @classmethod
    def of(cls, rows: pd.DataFrame) -> "_Shown":
        score = score_of(rows)
        if "gain" in rows:
            baseline = words.method_text(rows["baseline"].iloc[0])
            label = f"gain over {baseline}{score.difference(short=True)}"
            return cls("gain", score, "gain", label)
        if "lost" in rows:
            return cls("lost", score, "lost", score.lost_axis())
        return cls("score", score, score.column, score.axis())

    @property
    def is_higher_better(self) -> bool:
        return self.kind == "gain" or (self.kind == "score" and self.score.is_higher_better)

    @property
    def word(self) -> str:
        return {"score": self.score.label, "gain": "gain", "lost": "loss"}[self.kind]

    @property
    def relation(self) -> str:
        return "of at least" if self.is_higher_better else "of at most"

    def show(self, value: Any) -> Any:
        how = {
            "score": self.score.shown,
            "gain": self.score.shown_gain,
            "lost": self.score.shown_loss,
        }
        return how[self.kind](value)

    def text(self, target: float) -> str:
        if self.kind == "score":
            return words.with_unit(self.score, target)
        unit = "%" if self.score.is_exponential else self.score.difference_unit or self.score.unit
        return f"{self.show(target):.4g} {unit}".rstrip()

    def target_note(self, target: float | None) -> str:
        if target is None:
            return ""
        return (
            f"Target: {self.word} {self.relation} {self.text(target)}; full colour: the whole "
            "interval meets it; hatched: the interval contains it; faded and dotted: missed; "
            "thick line: the mean is the target."
        )


def _on_axes(
    rows: pd.DataFrame, axes: Sequence[str], nominal: Mapping[str, Any]
) -> tuple[pd.DataFrame, list[str], str]:
    """Rows on the axes, their full names, and the values at which the other axes stay."""
    _check_number(axes)
    if rows["device"].nunique() > 1:
        devices = ", ".join(sorted(rows["device"].unique()))
        raise ValueError(f"A map shows one device; these rows have {devices}: select one.")
    full = [full_name(rows, axis) for axis in axes]
    if len(set(full)) < len(full):
        raise ValueError(f"A map has different axes; got {', '.join(full)}.")
    rows = with_axis(rows, full)
    others = [axis for axis in swept_axes(rows) if axis not in full]
    if len(full) == 2 and len(others) == 1:
        full, others = [*full, *others], []
    rows = with_axis(rows, [*full, *others])
    fixed = []
    for axis in others:
        values = sorted(rows[axis].unique(), key=words.by_value)
        value = _nearest(values, nominal.get(axis))
        rows = rows[rows[axis] == value]
        fixed.append(f"{_label(axis)} = {_short(value, axis)}")
    return rows, full, ", ".join(fixed)


def _check_number(axes: Sequence[str]) -> None:
    if not 2 <= len(axes) <= 3:
        raise ValueError(f"A map has two axes, or three; got {len(axes)}: {', '.join(axes)}.")


def _columns(
    rows: pd.DataFrame, axes: Sequence[str]
) -> tuple[str, list[tuple[str, "pd.Series[bool]"]], str]:
    """What the columns of panels are, the title and rows of each, and a note."""
    moments = sorted(rows["t_inference_s"].unique())
    if len(axes) == 2:
        at = [rows["t_inference_s"] == t for t in moments]
        return "times", [(moment(rows[one]), one) for one in at], ""
    if len(moments) > 1:
        found = ", ".join(times.label(t) for t in moments)
        raise ValueError(f"A map over three axes shows one time; these rows have {found}.")
    values = sorted(rows[axes[2]].unique(), key=words.by_value)
    taken = values
    note = f"At {moment(rows)}."
    if len(values) > MOST_ACROSS:
        places = np.linspace(0, len(values) - 1, MOST_ACROSS).round().astype(int)
        taken = [values[k] for k in places]
        note += f" {MOST_ACROSS} of {len(values)} values of {_label(axes[2])}."
    name = _label(axes[2])
    return "values", [(f"{name} = {_short(v, axes[2])}", rows[axes[2]] == v) for v in taken], note


def _label(axis: str) -> str:
    """An axis in words, without the section of the device file: "g min [µS]"."""
    return words.axis_name(axis if axis.startswith("layers.") else axis.rpartition(".")[2])


def _short(value: Any, axis: str) -> str:
    """A value of an axis to three digits."""
    is_plain = isinstance(value, float) and axis != words.REFRESH
    return f"{value:.3g}" if is_plain else words.value_text(value, axis)


def _nearest(values: Sequence[Any], nominal: Any) -> Any:
    numbers = [v for v in values if not isinstance(v, str)]
    if isinstance(nominal, int | float) and numbers:
        return min(numbers, key=lambda v: abs(v - nominal))
    return nominal if nominal in values else values[0]


def _positions(values: Sequence[Any]) -> Floats:
    """Where values stand: at their number, its logarithm if its steps are more even, or in turn."""
    if any(isinstance(v, str | bool) for v in values):
        return np.arange(len(values), dtype=float)
    numbers = np.array(values, dtype=float)
    return np.log10(numbers) if _is_logarithmic(values) else numbers


def _is_logarithmic(values: Sequence[Any]) -> bool:
    if any(isinstance(v, str | bool) for v in values) or len(values) < 3 or min(values) <= 0:
        return False
    steps, ratios = np.diff(values), np.diff(np.log(np.array(values, dtype=float)))
    return bool(np.std(ratios) / np.mean(ratios) < np.std(steps) / np.mean(steps) - 0.05)


def _edges(positions: Floats) -> Floats:
    """Borders of the cells around positions."""
    if len(positions) == 1:
        return np.array([positions[0] - 0.5, positions[0] + 0.5])
    middle = (positions[1:] + positions[:-1]) / 2
    first, last = 2 * positions[0] - middle[0], 2 * positions[-1] - middle[-1]
    return np.concatenate([np.array([first]), middle, np.array([last])])


def _limits(positions: Floats) -> Floats:
    """Ends of an axis: its first and last value, where contour lines end, too."""
    return positions[[0, -1]] if len(positions) > 1 else _edges(positions)


def _refined(positions: Floats) -> Floats:
    """Positions with `REFINED` steps between two of them."""
    number = np.arange(REFINED * (len(positions) - 1) + 1) / REFINED
    refined: Floats = np.interp(number, np.arange(len(positions)), positions)
    return refined


def _draw_target(ax: Axes, surface: Surface, target: float, *, is_higher_better: bool) -> None:
    sign = 1.0 if is_higher_better else -1.0
    bounds = (surface.low, surface.high) if is_higher_better else (surface.high, surface.low)
    across, up = _refined(surface.across), _refined(surface.up)

    def above(values: Floats) -> Any:
        """How far values, interpolated linearly, are above the target."""
        along = np.array([np.interp(across, surface.across, line) for line in values])
        both = np.array([np.interp(up, surface.up, column) for column in along.T]).T
        return np.ma.masked_invalid(sign * (both - target))

    worst, best = (above(bound) for bound in bounds)
    far = float(np.abs(best).max() + np.abs(worst).max()) + 1.0
    if best.min() < 0:
        ax.contourf(across, up, best, levels=[-far, 0.0], colors=["white"], alpha=_FADED)
        _hatch(ax.contourf(across, up, best, levels=[-far, 0.0], colors="none", hatches=["."]))
    between = np.ma.maximum(worst, -best)
    if between.min() < 0:
        _hatch(
            ax.contourf(across, up, between, levels=[-far, 0.0], colors="none", hatches=["/////"]),
            "0.25",
        )
    mean = above(surface.mean)
    if mean.min() < 0 < mean.max():
        for colour, share in (("white", 2.0), ("black", 1.1)):
            ax.contour(across, up, mean, levels=[0.0], colors=colour, linewidths=line_width(share))


def _hatch(regions: Any, colour: str = "0.6") -> None:
    regions.set_edgecolor(colour)
    regions.set_linewidth(0.0)


def _mark_nominal(
    ax: Axes, surface: Surface, axes: tuple[str, str], nominal: Mapping[str, Any]
) -> None:
    """A cross at the device's own values, where they are inside the map."""
    at = []
    for axis, values, positions in zip(
        axes, (surface.x, surface.y), (surface.across, surface.up), strict=True
    ):
        value = nominal.get(axis)
        if value in values:
            at.append(positions[values.index(value)])
        elif isinstance(value, int | float) and not isinstance(values[0], str | bool):
            if not values[0] <= value <= values[-1]:
                return
            at.append(np.log10(value) if _is_logarithmic(values) else float(value))
        else:
            return
    for colour, size, width in (("white", 1.7, 2.0), ("black", 1.5, 1.0)):
        cross: Any = {"ms": marker_size(size), "mew": line_width(width), "clip_on": False}
        ax.plot(*at, "x", color=colour, zorder=6, **cross)


def _dress(axis: Any, name: str, values: Sequence[Any], positions: Floats) -> None:
    """Label at most `N_TICKS` values, evenly chosen."""
    step = -(-(len(values) - 1) // (N_TICKS - 1)) if len(values) > N_TICKS else 1
    chosen = list(range(0, len(values), step))
    axis.set_major_locator(FixedLocator([positions[k] for k in chosen]))
    axis.set_ticklabels([_short(values[k], name) for k in chosen])
    axis.set_minor_locator(NullLocator())
