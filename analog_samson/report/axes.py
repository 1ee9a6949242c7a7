"""Time axis of all figures over time, and the legend and note of a figure."""

import itertools
import math
import re
import textwrap
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType

import matplotlib.transforms
import numpy as np
import pandas as pd
from matplotlib import rcParams
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties
from matplotlib.textpath import TextPath
from matplotlib.ticker import (
    FixedFormatter,
    FixedLocator,
    FuncFormatter,
    LogLocator,
    MaxNLocator,
    NullFormatter,
    NullLocator,
)

from analog_samson import times
from analog_samson.report.methods import measured_age_s
from analog_samson.report.style import line_width, marker_size, order
from analog_samson.report.words import method_text
from analog_samson.results.scores import Score

LONGEST_Y_LABEL = 40
"""Characters that fit beside a panel of a grid."""

TICKS_S = (1.0, times.MINUTE, times.HOUR, times.DAY, times.MONTH, times.YEAR, 10 * times.YEAR)
WIDE_RANGE = 5.0
"""Ratio of the largest to the smallest value from which an axis is logarithmic: our choice."""

GAP = 0.15
"""Width of a gap left of the first time, as a fraction of the time axis."""

APART_PT = 2.5
"""Distance of the labels of neighbouring ticks [pt], at least."""

LONGEST_ENTRY = 32
"""Letters of a line of a legend's entry: our choice."""

HINTED = 1.1
"""Width of a text on a screen, where letters take whole pixels, relative to its outline."""

MOST_TICKS = 8
"""Most times that each have a tick of their own: our choice."""

FEWEST_TICKS = 2
"""Fewest ticks from which the scale of a logarithmic axis can be read."""

_FEW = MaxNLocator(3, steps=[1, 2, 2.5, 5, 10])
"""Ticks of a narrow range: few, since their numbers are long."""

MOST_CYCLES = 100
"""Most refreshes between which times are shaded one by one: our choice."""


class TimeAxis:
    """A logarithmic axis of times; what is before all times is drawn left of breaks.

    Left of the first time stands the programmed state (t = 0) where there is one, and left of it
    the digital networks where a panel draws them.

    Attributes:
        zero_s: Position of t = 0 [s].
        digital_s: Position of the digital networks [s].
        decades: Length of the axis between first and last time, in decades, at least 1.
    """

    def __init__(self, t_inference_s: "pd.Series[float]", *, named_ticks: bool = False):
        """Fit the axis to times.

        Args:
            t_inference_s: The times to be drawn [s], of all panels that share the axis.
            named_ticks: Whether ticks are at `TICKS_S` rather than at these times.
        """
        later = t_inference_s[t_inference_s > 0]
        self._times = np.unique(later.to_numpy(dtype=float))
        first, last = later.min(), later.max()
        if not first > 0:
            first, last = 1.0, times.YEAR
        self._first, self._last = float(first), float(last)
        self.decades = max(float(np.log10(last / first)), 1.0)
        gap = 10 ** (GAP * self.decades)
        self.zero_s = self._first / gap
        self._has_zero = bool((t_inference_s == 0).any())
        self.digital_s = (self.zero_s if self._has_zero else self._first) / gap
        self._named_ticks = named_ticks or len(self._times) > MOST_TICKS

    def place(self, t_inference_s: np.ndarray, shift: float | np.ndarray = 0.0) -> np.ndarray:
        """Positions of times [s]; the shift is a fraction of the axis, to separate bars."""
        placed: np.ndarray = np.where(t_inference_s > 0, t_inference_s, self.zero_s)
        return placed * 10 ** (shift * self.decades)

    def shifts(self, n: int, ax: Axes) -> np.ndarray:
        """Offsets that separate the markers of n methods, as fractions of the axis, around 0.

        Markers stand side by side; where the next time, or what is drawn before all, is near, they
        overlap by up to a half.
        """
        step_pt = 1.1 * marker_size(1.0)
        shown = 1.08 + GAP * (self._has_zero + 1)
        panel_pt = 72 * ax.get_window_extent().width / ax.figure.dpi
        apart = np.diff(np.log10(self._times)) / self.decades
        nearest_pt = float(min([GAP, *apart])) / shown * panel_pt
        step_pt = max(min(step_pt, nearest_pt / max(n, 1)), 0.5 * marker_size(1.0))
        return np.asarray(places(n) * step_pt / panel_pt * shown)

    def dress(self, ax: Axes, beside: float = 0.0, *, has_digital: bool = False) -> None:
        """Set scale, ticks, limits, label and the breaks.

        Ticks are at the times themselves where they are few; labels without room beside others take
        a second line, or are left out. Of many times, named ones have a tick and the others a minor
        one.

        Args:
            ax: The axes.
            beside: Largest shift of a marker from its time, as a fraction of the axis.
            has_digital: Whether the digital networks are drawn.
        """
        ax.set_xscale("log")
        margin = 10 ** ((0.03 + max(0.01, beside)) * self.decades)
        ticks = [t for t in TICKS_S if self._first / margin <= t <= self._last * margin]
        if not self._named_ticks or len(ticks) < 2:
            ticks = sorted({self._first, *self._times, self._last})
        before = {self.digital_s: "digital"} if has_digital else {}
        before |= {self.zero_s: "prog."} if self._has_zero else {}
        texts = self._texts([*before, *ticks], before, ax)
        ax.xaxis.set_major_locator(FixedLocator(list(texts)))
        others = [t for t in self._times if t not in texts] if self._named_ticks else []
        ax.xaxis.set_minor_locator(FixedLocator(others) if others else NullLocator())
        ax.xaxis.set_minor_formatter(NullFormatter())
        ax.xaxis.set_major_formatter(FixedFormatter(list(texts.values())))
        left = min(before, default=self._first)
        ax.set_xlim(left / margin, self._last * margin)
        ax.set_xlabel("time since programming")
        for one, other in itertools.pairwise([*before, self._first]):
            self._break(ax, float(np.sqrt(one * other)))

    def shade(self, ax: Axes, rows: pd.DataFrame, *, named: bool = True) -> None:
        """Shade and label the times beyond the measurements of the device.

        They begin at its limit where the manifest of the study tells it, otherwise between the
        times of the rows.
        """
        drifted = rows[rows["t_inference_s"] > 0]
        late_at = drifted.groupby("t_inference_s")["extrapolated"].any()
        times_s, is_late = late_at.index.to_numpy(dtype=float), late_at.to_numpy(dtype=bool)
        if not is_late.any():
            return
        begin, end = times_s[0] / 10 ** (0.04 * self.decades), ax.get_xlim()[1]
        spans = _late_spans(rows, begin, end)
        if not spans:
            middles = np.sqrt(times_s[1:] * times_s[:-1])
            begins, ends = np.array([begin, *middles]), np.array([*middles, end])
            # after a refresh times are within the measurements again
            changes = np.flatnonzero(np.diff(is_late, prepend=False, append=False))
            spans = [(begins[first], ends[after - 1]) for first, after in changes.reshape(-1, 2)]
        for span in spans:
            ax.axvspan(*span, color="0.94", lw=0, zorder=0)
        if not named:
            return
        for panel in ax.get_shared_y_axes().get_siblings(ax):  # where shared from the start
            panel.margins(y=0.14)
        ax.annotate(
            "extrapolated",
            (spans[-1][1], 1.0),
            xycoords=ax.get_xaxis_transform(),
            xytext=(-2, -2),
            textcoords="offset points",
            ha="right",
            va="top",
            fontsize="small",
            color="0.4",
            fontstyle="italic",
        )

    def _texts(self, ticks: list[float], before: Mapping[float, str], ax: Axes) -> dict[float, str]:
        """Positions of the ticks and their labels, in two lines where they would overlap.

        The first time comes first, then a day, a year, an hour, a month, and the last time.
        """
        panel_pt = 72 * ax.get_window_extent().width / ax.figure.dpi
        font = FontProperties(size=rcParams["xtick.labelsize"])
        point = self.decades * (1.08 + GAP * len(before)) / panel_pt
        usual = [times.DAY, times.YEAR, times.HOUR, times.MONTH, ticks[-1]]
        first = [*before, *(t for t in (self._first, *usual) if t in ticks)]
        lines: tuple[list[float], list[float]] = ([], [])
        said = {tick: before.get(tick) or times.label(tick) for tick in ticks}
        halves = {
            tick: point * (TextPath((0, 0), text, prop=font).get_extents().width / 2 + APART_PT / 2)
            for tick, text in said.items()
        }
        texts = {}
        for tick in dict.fromkeys([*first, *ticks]):
            room = [
                all(abs(np.log10(tick / o)) >= halves[tick] + halves[o] for o in line)
                for line in lines
            ]
            if room[0] or (room[1] and not self._named_ticks):
                lines[0 if room[0] else 1].append(tick)
                texts[tick] = said[tick] if room[0] else f"\n{said[tick]}"
            elif not self._named_ticks:
                texts[tick] = ""
        return dict(sorted(texts.items()))

    def _break(self, ax: Axes, middle: float) -> None:
        across = matplotlib.transforms.blended_transform_factory(ax.transData, ax.transAxes)
        slant = 10 ** (0.006 * self.decades)
        for side in (10 ** (-0.008 * self.decades), 10 ** (0.008 * self.decades)):
            ax.plot(
                [middle * side / slant, middle * side * slant],
                [-0.02, 0.02],
                transform=across,
                color=rcParams["axes.edgecolor"],
                linewidth=line_width(0.65),
                clip_on=False,
                zorder=5,
            )


def _late_spans(rows: pd.DataFrame, begin_s: float, end_s: float) -> list[tuple[float, float]]:
    """Times on an axis that are beyond the measurements, by the manifest; none if it has none."""
    if not {"device", "condition"} <= set(rows):
        return []
    row = rows.iloc[0]
    limits = measured_age_s(str(row["device"]), str(row["condition"]))
    if limits is None:
        return []
    age_s, refresh_s = limits
    if refresh_s == np.inf:
        return [(max(age_s, begin_s), end_s)] if age_s < end_s else []
    n = int(end_s / refresh_s) + 1
    if n > MOST_CYCLES:
        return []
    starts = [(k * refresh_s + age_s, min((k + 1) * refresh_s, end_s)) for k in range(n)]
    return [(max(start, begin_s), stop) for start, stop in starts if max(start, begin_s) < stop]


def places(n: int) -> np.ndarray:
    """Positions around 0 at unit distance."""
    return np.arange(n) - (n - 1) / 2


def y_label(text: str, longest: int = LONGEST_Y_LABEL) -> str:
    """A label of a y axis; what is in brackets at its end takes a second line in a long one."""
    start, _, end = text.rpartition(" (")
    return f"{start}\n({end}" if start and len(text) > longest else text


def share_comparable(groups: Sequence[Sequence[Axes]]) -> bool:
    """Let all panels share their vertical axis if all can be read on a common one.

    Otherwise, where the common axis is more than `WIDE_RANGE` times as long as that of a panel, the
    panels of each group share one.

    Args:
        groups: Panels with their limits, in groups.

    Returns:
        Whether all share it.
    """
    for panels in groups:
        share(panels)
    firsts = [panels[0] for panels in groups if any(ax.has_data() for ax in panels)]
    if len({ax.get_yscale() for ax in firsts}) > 1:
        return False
    ends = np.array([ax.get_ylim() for ax in firsts])
    if firsts and firsts[0].get_yscale() == "log":
        ends = np.log10(ends)
    if len(ends) and np.ptp(ends) > WIDE_RANGE * np.diff(ends).min():
        return False
    share([panels[0] for panels in groups])
    return True


def share(panels: Sequence[Axes]) -> None:
    """Let panels share a vertical axis that holds what all show; logarithmic if one is.

    Args:
        panels: Panels with their limits, of which at most the first shares its axis already.
    """
    if any(ax.get_yscale() == "log" for ax in panels):
        for ax in panels:
            if ax.get_yscale() != "log":
                log_axis(ax.set_yscale, ax.yaxis)
    ends = np.array([ax.get_ylim() for ax in panels if ax.has_data()])
    for ax in panels[1:]:
        ax.sharey(panels[0])
    if len(ends):
        panels[0].set_ylim(ends.min(), ends.max())


def label_outer(axes: Sequence[Axes], *, shares_y: bool = True) -> None:
    """Label the outer panels of a grid; where axes differ, each keeps the labels of its own."""
    ends = np.array([ax.get_xlim() for ax in axes])
    texts = {tuple(label.get_text() for label in ax.get_xticklabels()) for ax in axes}
    shares_x = len(texts) == 1 and bool(np.allclose(ends, ends[0], rtol=1e-9))
    places = [place for ax in axes if (place := ax.get_subplotspec()) is not None]
    for ax, place in zip(axes, places, strict=True):
        is_lowest = not any(
            other.colspan.start == place.colspan.start and other.rowspan.start > place.rowspan.start
            for other in places
        )
        if not place.is_first_col():
            ax.set_ylabel("")
            ax.tick_params(axis="y", labelleft=not shares_y)
        if shares_x and not is_lowest:
            ax.set_xlabel("")
            ax.tick_params(axis="x", labelbottom=False)


def head(ax: Axes, text: str) -> None:
    """Write a heading above the (two-line) title of the first panel of a row."""
    size = float(rcParams["axes.titlesize"])
    above = ax.annotate(
        text,
        (0, 1),
        xytext=(0, float(rcParams["axes.titlepad"]) + 1.25 * size),
        xycoords="axes fraction",
        textcoords="offset points",
        fontsize=size,
        weight=rcParams["axes.titleweight"],
        annotation_clip=False,
    )
    above.set_in_layout(False)


class _Decades(LogLocator):
    """Ticks at 1, 2 and 5 of every decade; from two decades on at their beginnings.

    Where fewer than two of them are in a narrow range, a few evenly spaced ones.
    """

    def tick_values(self, vmin: float, vmax: float) -> Sequence[float]:
        is_wide = vmin > 0 and vmax > 100 * vmin
        self.set_params(subs=(1.0,) if is_wide else (1.0, 2.0, 5.0))
        if not is_wide and 0 < vmin < vmax:
            first, last = math.floor(math.log10(vmin)), math.ceil(math.log10(vmax))
            ticks = (m * 10.0**k for k in range(first, last + 1) for m in (1, 2, 5))
            if sum(vmin <= tick <= vmax for tick in ticks) < FEWEST_TICKS:
                return [float(tick) for tick in _FEW.tick_values(vmin, vmax)]
        return [float(tick) for tick in super().tick_values(vmin, vmax)]


def log_axis(set_scale: Callable[[str], None], axis: Axis) -> None:
    """Make an axis logarithmic, with plain numbers at 1, 2 and 5 of every decade.

    From two decades on, the decades alone have ticks.
    """
    set_scale("log")
    axis.set_major_locator(_Decades())
    axis.set_minor_locator(NullLocator())
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))


def fit_scale(ax: Axes, score: Score, shown: "pd.Series[float]") -> None:
    """Make the vertical axis logarithmic where a score without upper limit covers a wide range.

    Args:
        ax: The axes.
        score: The score.
        shown: The values that are drawn.
    """
    known = shown[np.isfinite(shown)]
    is_positive = score.limits == (0.0, np.inf) and len(known) > 0 and known.min() > 0
    if is_positive and known.max() > WIDE_RANGE * known.min():
        log_axis(ax.set_yscale, ax.yaxis)


def finish(
    figure: Figure,
    handles: Mapping[str, Artist | tuple[Artist, ...]],
    note: str,
    *,
    are_methods: bool = True,
    marks: Mapping[str, Artist] = MappingProxyType({}),
) -> None:
    """Put the legend above and the note below the panels, without overlap.

    Args:
        figure: The figure.
        handles: Names to what the legend shows; several artists lie on each other.
        note: Text below the panels.
        are_methods: Whether the names are those of methods; others are shown as they are.
        marks: What is shown after them in the legend, such as `EXTRAPOLATED_MARK`.
    """
    names = sorted(handles, key=order) if are_methods else list(handles)
    texts = {name: _in_lines(method_text(name)) if are_methods else name for name in names}
    handles, texts = {**handles, **marks}, {**texts, **{name: name for name in marks}}
    names += marks
    width_in = figure.get_size_inches()[0]
    extra_in = 0.0
    if names:
        columns = _legend_columns([texts[name] for name in names], 72 * width_in)
        in_rows = [name for k in range(columns) for name in names[k::columns]]
        figure.legend(  # type: ignore[call-overload]  # its types do not know tuples of artists
            [handles[name] for name in in_rows],
            [texts[name] for name in in_rows],
            loc="outside upper center",
            ncols=columns,
        )
        rows = [names[k : k + columns] for k in range(0, len(names), columns)]
        n_lines = sum(max(texts[name].count("\n") + 1 for name in row) for row in rows)
        extra_in += (n_lines - 1) * rcParams["legend.fontsize"] * 1.6 / 72
    size = 0.85 * rcParams["font.size"]
    unbroken = re.sub(r"(?<=\d) (?=(mo|y|d)\b)", "\u00a0", note).replace(" = ", "\u00a0=\u00a0")
    lines = textwrap.wrap(unbroken, int(width_in * 72 / (0.57 * size)))
    extra_in += len(lines) * size * 1.35 / 72
    figure.set_size_inches(width_in, figure.get_size_inches()[1] + extra_in)
    figure.supxlabel("\n".join(lines), fontsize=size, color="0.3", x=0.01, ha="left")


def beside(ax: Axes, handles: Mapping[str, Artist]) -> None:
    """Put a legend at the right of a panel, outside."""
    ax.legend(
        list(handles.values()), [_in_lines(name) for name in handles],
        loc="center left", bbox_to_anchor=(1.0, 0.5), fontsize="small",
    )  # fmt: skip


def _in_lines(text: str) -> str:
    """A long name in several lines, each with some of its settings."""
    lines = [""]
    for part in text.split(", "):
        if lines[-1] and len(lines[-1]) + len(part) > LONGEST_ENTRY:
            lines.append("")
        lines[-1] += f"{', ' if lines[-1] else ''}{part}"
    return ",\n".join(lines)


def _legend_columns(texts: Sequence[str], room_pt: float) -> int:
    """Most columns, filled row by row, that a legend of these texts has room for."""
    font = FontProperties(size=rcParams["legend.fontsize"])
    size = font.get_size_in_points()
    handle = rcParams["legend.handlelength"] + rcParams["legend.handletextpad"]
    beside = size * (handle + rcParams["legend.columnspacing"])
    outlines = [
        max(TextPath((0, 0), line, prop=font).get_extents().width for line in text.split("\n"))
        for text in texts
    ]
    widths = [beside + HINTED * width for width in outlines]
    room_pt -= 2 * size * (rcParams["legend.borderpad"] + rcParams["legend.borderaxespad"])
    for columns in range(len(texts), 1, -1):
        if sum(max(widths[k::columns]) for k in range(columns)) <= room_pt:
            return columns
    return 1
