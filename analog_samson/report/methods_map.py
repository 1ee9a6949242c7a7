"""The map of methods: which one is best on which task, device, compensation and time."""

import itertools
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import matplotlib.colors
import numpy as np
import pandas as pd
from matplotlib import rcParams
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties
from matplotlib.lines import Line2D
from matplotlib.patches import Patch, Rectangle
from matplotlib.textpath import TextPath

from analog_samson import times
from analog_samson.report import words
from analog_samson.report.axes import finish
from analog_samson.report.methods import (
    dataset_label,
    device_label,
    model_label,
    task_text,
    technology_of,
)
from analog_samson.report.shown import ShownFigure
from analog_samson.report.style import (
    base_style,
    line_width,
    marker_size,
    plot_options,
    style,
    width_in,
)
from analog_samson.report.tables import check_not_empty
from analog_samson.report.typeset import BLANK, EXTRAPOLATED
from analog_samson.results.comparison import method_names
from analog_samson.results.scores import score_of
from analog_samson.results.spread import FEWEST_TESTED
from analog_samson.results.variants import TASK
from analog_samson.times import DAY, HOUR, YEAR

TIMES_S = (HOUR, DAY, YEAR)
"""Columns of the map: an hour, a day, a year."""

LABELS_CELLS = 2.2
"""Width of the row labels, in cells of a map of `USUAL_CELLS`."""

USUAL_CELLS = 9
"""Columns below which cells grow and the row labels keep their width."""

HEAD_LETTERS = 4.4
"""Height of the heads of the columns, in letters."""

GAP_CELLS = 0.12
"""Distance of tasks, and of devices, in cells."""

HEIGHT_LETTERS = 4.1
"""Height of a cell, in letters of the map."""

LETTERS = {"paper": 0.86, "talk": 0.76}
"""Size of the letters of the map, as a share of the style's font: our choice."""

BAND = 0.15
"""Width of the band of a cell that has the full colour and the marker."""

STRIP = 0.11
"""Width of the text that names another time than that of the column."""

CLEAR = 0.06
"""Distance of texts from the ends of a cell, both together."""

SMALLEST = 0.7
"""Smallest letters of cells of one kind, as a share of the map's."""

PALE = 0.82
"""Share of white in the colour of a cell that is not decided."""

SOLID = 0.2
"""Share of white in that of a decided cell with black letters."""

MOST_ROWS = 40
"""Rows that a map has at most: our choice, a page."""


class Slot(NamedTuple):
    """A place in the map.

    Attributes:
        row: Number of the device and compensation.
        task: Number of the task.
        column: Number of the time.
    """

    row: int
    task: int
    column: int


def time_slots(
    available_s: Sequence[float], wanted_s: Sequence[float] = TIMES_S
) -> dict[float, float]:
    """Which of a device's times stands in which column of the map.

    A wanted time that the device has stands in its column. Other columns take further times of the
    device, as many as fit in order, by the smallest sum of distances in the logarithm.

    Args:
        available_s: Times of the device [s].
        wanted_s: Times of the columns [s].

    Returns:
        Time of the device to time of its column [s].

    Example:
        >>> time_slots([1.0, DAY, 2 * DAY])  # columns of 1 h, 1 d, 1 y
        {1.0: 3600.0, 86400.0: 86400.0, 172800.0: 31536000.0}
    """
    wanted = sorted(set(wanted_s))
    available = sorted(time for time in set(available_s) if time > 0)
    exact = {(time, time) for time in available if time in wanted}
    for n in range(min(len(wanted), len(available)), 0, -1):
        ways = [
            tuple(zip(times_s, columns, strict=True))
            for times_s in itertools.combinations(available, n)
            for columns in itertools.combinations(wanted, n)
        ]
        ways = [way for way in ways if exact <= set(way)]
        if ways:
            return dict(min(ways, key=lambda way: sum(abs(np.log(a / b)) for a, b in way)))
    return {}


def rows_of_map(rows: pd.DataFrame, times_s: Sequence[float] = TIMES_S) -> pd.DataFrame:
    """The rows of the times that a map shows, with the column ``column_s`` [s].

    Args:
        rows: Rows of trials, or of chips.
        times_s: Times of the columns [s].

    Raises:
        ValueError: If there are no rows at these times.
    """
    slots = {
        device: time_slots(own.unique().tolist(), times_s)
        for device, own in rows.groupby("device", observed=True)["t_inference_s"]
    }
    pairs = zip(rows["device"], rows["t_inference_s"], strict=True)
    columns = pd.Series([slots[device].get(time, np.nan) for device, time in pairs], rows.index)
    if columns.isna().all():
        raise ValueError(
            "There are no rows after programming (t > 0), and the map shows the best method "
            f"around {', '.join(map(times.label, times_s))}; simulate such times."
        )
    return rows[columns.notna()].assign(column_s=columns[columns.notna()])


def methods_map(
    best: pd.DataFrame,
    labels: Mapping[str, str],
    short: Mapping[str, str],
    costs: Mapping[str, str],
    *,
    note: str = "",
    tasks: Sequence[tuple[str, str]] = (),
    times_s: Sequence[float] = TIMES_S,
    width: str | float = "two columns",
    look: str = "paper",
) -> Figure:
    """The best method of every cell: rows of devices and compensation, columns of tasks and times.

    Args:
        best: As `results.winners` gives.
        labels: Names of all methods that were compared, and their labels.
        short: Names and short labels.
        costs: Names and costs of a training in words, as "2×"; "" where it is not known.
        note: Text at the end of the caption.
        tasks: Data sets and models in their order; empty: by name.
        times_s: Times of the columns [s].
        width: "one column", "two columns" or inches.
        look: "paper", "talk" or the path of a style sheet (.mplstyle).

    Returns:
        The figure, with a legend of the methods that are best somewhere.

    Raises:
        ValueError: If there are no cells, several at one place, or too many rows.
    """
    check_not_empty(best)
    best = rows_of_map(best, times_s).reset_index(drop=True)
    found = best[list(TASK)].drop_duplicates().sort_values(list(TASK))
    tasks = list(tasks) or list(found.itertuples(index=False, name=None))
    lines = _lines(best)
    if len(lines) > MOST_ROWS:
        raise ValueError(
            f"A map has at most {MOST_ROWS} rows of devices and compensation; got {len(lines)}. "
            "Select devices, or leave swept studies out."
        )
    wanted = sorted(times_s)
    placed = _placed(best, tasks, lines, wanted)
    names = method_names(best)
    others = [labels[name] for name in labels if name not in set(names)]
    with style(look):
        whole_in = width_in(width, look)
        letter_pt = LETTERS[base_style(look)] * float(rcParams["font.size"])
        n, devices = len(wanted), [line[0] for line in lines]
        is_next = [a != b for a, b in itertools.pairwise(devices)]
        tops = np.arange(len(lines)) + 1.6 * GAP_CELLS * np.cumsum([0, *is_next])
        lefts = np.arange(len(tasks)) * (n + GAP_CELLS)
        right, bottom = lefts[-1] + n, tops[-1] + 1
        height_in = HEIGHT_LETTERS * letter_pt / 72
        head = HEAD_LETTERS / HEIGHT_LETTERS
        legend_in = 2.2 * float(rcParams["legend.fontsize"]) / 72
        figure = ShownFigure(
            figsize=(whole_in, (bottom + head) * height_in + legend_in + 0.1), layout="constrained"
        )
        ax = figure.subplots()
        ax.set_axis_off()
        beside = LABELS_CELLS * min(right / USUAL_CELLS, 1.0)
        ax.set(xlim=(-beside, right), ylim=(bottom, -head))
        writer = _Writer(ax, 0.98 * whole_in * 72 / (right + beside), letter_pt)
        _write_heads(writer, tasks, lefts, wanted, head, beside)
        _write_lines(writer, lines, tops, best["device"].unique(), beside)
        cells = [_Cell.of(best.iloc[at], short[names[at]]) for at in placed.values()]
        sizes = {
            kind: max(SMALLEST, min(writer.fit(getattr(c, kind), c.share, weight) for c in cells))
            for kind, weight in (("label", "bold"), ("mean", "normal"), ("gain", "normal"))
        }
        free = set(itertools.product(range(len(lines)), range(len(tasks)), range(n)))
        for slot in sorted(free - set(placed)):
            _draw_blank(writer, (lefts[slot[1]] + slot[2], tops[slot[0]]))
        for slot, at, cell in zip(placed, placed.values(), cells, strict=True):
            corner = (lefts[slot.task] + slot.column, tops[slot.row])
            _draw_cell(writer, corner, cell, plot_options(names[at], labels), sizes)
        is_brief = base_style(look) == "talk"
        marks: dict[str, Artist] = {}
        if best["is_decided"].any():
            marks["better than all others"] = Patch(fc="0.45", ec="0.45")
            marks["not decided"] = Patch(fc="0.93", ec="0.45")
        if free - set(placed):
            note = f"{BLANK}: not simulated. {note}"
        handles = _handles(names, labels, short, costs)
        in_order = [at for _, at in sorted((slot.task, at) for slot, at in placed.items())]
        text = map_note(best.loc[in_order], others, note, is_brief=is_brief)
        finish(figure, handles, text, are_methods=False, marks=marks)
    return figure


def map_note(
    best: pd.DataFrame,
    others: Sequence[str] = (),
    more: str = "",
    *,
    is_brief: bool = False,
    n_tested: int | None = None,
) -> str:
    """What the numbers and colours of a map say, with n.

    Args:
        best: As `results.winners` gives.
        others: Labels of compared methods that are best nowhere.
        more: Text at the end.
        is_brief: Whether details of tests and the methods that are best nowhere are left out.
        n_tested: Number of cells that the tests are corrected over; None: those of ``best``.
    """
    score = score_of(best)
    baseline = words.method_text(best["baseline"].iloc[0])
    per_cent = words.per_cent_of(best)
    unit = score.difference_unit or score.unit
    only_chips = best["level"] == "chips only"
    is_exact = ~only_chips & best["half_width"].notna()
    text = [
        f"Colour: method with the best mean {score.label}; numbers: that mean, and its gain over "
    ]
    text[0] += f"{baseline} [{unit}]"
    if is_exact.any():
        kind = "with" if score.is_exponential else "± half-width of"
        simultaneous = "simultaneous " if is_brief else ""
        text[0] += f" {kind} its {simultaneous}{per_cent} interval over trained networks"
        if not is_brief:
            text[0] += (
                " (Student t; simultaneous over the methods of a cell by Bonferroni, since the "
                "best is chosen by the same data)"
            )
    text[0] += "."
    if only_chips.any():
        which = "" if only_chips.all() else f" on {_tasks_text(best[only_chips])}"
        text.append(f"One trained network{which}: no interval and no test.")
    if best["is_tested"].any() and not is_brief:
        p = f"p < {1 - best['confidence'].iloc[0]:.2g}"
        text.append(
            f"Solid: better than every other method, paired t tests, {p} after Holm's correction "
            f"over the {n_tested or int(best['is_tested'].sum())} cells; pale: not decided"
            f"{'' if best['is_decided'].any() else ', here all of them'}."
        )
    elif best["is_tested"].any() and not best["is_decided"].any():
        text.append("No method is significantly better than every other one.")
    if (best["n_networks"].between(2, FEWEST_TESTED - 1)).any():
        text.append(f"Nothing is tested with fewer than {FEWEST_TESTED} trained networks.")
    text.append(f"n = trained networks × chips per network: {n_by_task(best)}.")
    if typical := words.typical_text(best):
        text.append(typical)
    if others and not is_brief:
        text.append(f"Best nowhere: {', '.join(others)}.")
    if best["extrapolated"].any():
        text.append(f"{EXTRAPOLATED} {words.beyond_text(best)}")
    return " ".join([*text, more]).strip()


def n_by_task(best: pd.DataFrame) -> str:
    """Networks and chips of every task: "LeNet-5 on MNIST 10 × 20 (14 methods)"."""
    parts = []
    for task, own in best.groupby(list(TASK), observed=True, sort=False):
        n = f"{words.range_text(own['n_networks'])} × {words.range_text(own['n_chips'])}"
        parts.append(f"{task_text(task)} {n} ({words.range_text(own['n_methods'])} methods)")
    return "; ".join(parts)


def sort_key(line: Sequence[str]) -> tuple[Any, ...]:
    """Order of rows: by technology, device, then no compensation before others."""
    device, compensation, condition = line
    return technology_of(device), device, condition != "{}", condition, compensation != "none"


def compensation_label(compensation: str, condition: str) -> str:
    """Compensation and condition of a row, short: "none", "global", "global, recalibrated BN"."""
    condition = words.condition_text(condition)
    condition = condition.replace("batch norm = recalibrated", "recalibrated BN")
    return ", ".join(filter(None, [compensation.replace("_", " "), condition]))


def _lines(best: pd.DataFrame) -> list[tuple[str, str, str]]:
    found = best[["device", "compensation", "condition"]].drop_duplicates()
    return sorted(found.itertuples(index=False, name=None), key=sort_key)


def _placed(
    best: pd.DataFrame,
    tasks: list[Any],
    lines: list[tuple[str, str, str]],
    wanted: list[float],
) -> dict[Slot, int]:
    """The row of ``best`` at every place of the map."""
    placed: dict[Slot, int] = {}
    for at, (_, cell) in enumerate(best.iterrows()):
        slot = Slot(
            lines.index((cell["device"], cell["compensation"], cell["condition"])),
            tasks.index(tuple(cell[key] for key in TASK)),
            wanted.index(cell["column_s"]),
        )
        if slot in placed:
            raise ValueError(
                "Two comparisons would stand at one place of the map: "
                f"{task_text(tasks[slot.task])} on {cell['device']!r} at "
                f"{times.label(cell['t_inference_s'])} was simulated with several engines or "
                "precisions; give studies of one."
            )
        placed[slot] = at
    return placed


class _Writer:
    """Texts on the map, made smaller where they would be wider than their place."""

    def __init__(self, ax: Axes, cell_pt: float, letter_pt: float):
        self.ax = ax
        self.cell_pt = cell_pt
        self.letter_pt = letter_pt

    def fit(self, text: str, share: float, weight: str = "normal", size: float = 1.0) -> float:
        """Size of letters at which a text is at most ``share`` cells wide; at most ``size``."""
        font = FontProperties(
            size=size * self.letter_pt, weight=weight, family=rcParams["font.family"]
        )
        lines = filter(None, text.split("\n"))
        widest = max(TextPath((0, 0), line, prop=font).get_extents().width for line in lines)
        return size * min(1.0, share * self.cell_pt / widest)

    def write(
        self, place: Sequence[float], text: str, *, share: float, size: float = 1.0, **options: Any
    ) -> None:
        """Write a text at most ``share`` cells wide, its letters at most ``size``."""
        size = self.fit(text, share, options.get("weight", "normal"), size)
        options = {"va": "center", "ha": "center", "fontsize": size * self.letter_pt, **options}
        self.ax.text(float(place[0]), float(place[1]), text, **options)


def _write_heads(
    writer: _Writer,
    tasks: Sequence[Any],
    lefts: np.ndarray,
    wanted: Sequence[float],
    head: float,
    beside: float,
) -> None:
    n = len(wanted)
    for (dataset, model), left in zip(tasks, lefts, strict=True):
        middle = left + n / 2
        name = dataset_label(str(dataset))
        writer.write((middle, -0.84 * head), name, share=n, size=1.25, weight="bold")
        writer.write((middle, -0.50 * head), model_label(str(model)), share=n)
        for k, time in enumerate(wanted):
            writer.write((left + k + 0.485, -0.16 * head), times.label(time), share=0.95)
    place = (-0.045 * beside, -0.16 * head)
    writer.write(place, "compensation", share=0.55 * beside, ha="right", size=0.9)


def _write_lines(
    writer: _Writer,
    lines: list[tuple[str, str, str]],
    tops: np.ndarray,
    among: Any,
    beside: float,
) -> None:
    share = 0.48 * beside
    for k, (device, compensation, condition) in enumerate(lines):
        text = compensation_label(compensation, condition).replace(", ", ",\n")
        place = (-0.045 * beside, tops[k] + 0.475)
        writer.write(place, text, share=share, ha="right", ma="right", linespacing=1.0)
        if k and lines[k - 1][0] == device:
            continue
        title, _, name = device_label(device, among).partition(" (")
        place = (-beside, tops[k] + (0.26 if name else 0.475))
        writer.write(place, title, share=share, size=1.15, weight="bold", ha="left")
        if name:
            place = (-beside, tops[k] + 0.74)
            writer.write(place, name.removesuffix(")"), share=share, size=0.9, ha="left")


class _Cell(NamedTuple):
    """The texts of a cell.

    Attributes:
        label: Short label of the best method.
        mean: Its mean score.
        gain: Its gain with the interval.
        at: Time, where it is not that of the column; else "".
        is_decided: Whether the best method is significantly better than every other one.
    """

    label: str
    mean: str
    gain: str
    at: str
    is_decided: bool

    @classmethod
    def of(cls, row: "pd.Series[Any]", label: str) -> "_Cell":
        """The texts for a row of `results.winners`."""
        is_elsewhere = row["t_inference_s"] != row["column_s"]
        at = f"at {times.label(row['t_inference_s'])}" if is_elsewhere else ""
        unit = score_of(row.to_frame().T).unit
        mean = f"{mean_text(row, fewer=1)} {unit}".strip()
        return cls(label, mean, gain_text(row), at, bool(row["is_decided"]))

    @property
    def left(self) -> float:
        """Where the texts begin, from the left edge."""
        return BAND + (STRIP if self.at else 0.0)

    @property
    def share(self) -> float:
        """Width of the texts, in cells."""
        return 0.97 - self.left - CLEAR


def _draw_blank(writer: _Writer, corner: tuple[float, float]) -> None:
    frame = Rectangle(corner, 0.97, 0.95, facecolor="none", edgecolor="0.85", lw=line_width(0.4))
    writer.ax.add_patch(frame)
    writer.write((corner[0] + 0.485, corner[1] + 0.475), BLANK, share=0.9, color="0.6")


def _draw_cell(
    writer: _Writer,
    corner: tuple[float, float],
    cell: _Cell,
    options: Mapping[str, Any],
    sizes: Mapping[str, float],
) -> None:
    x, y = corner
    colour = np.array(matplotlib.colors.to_rgb(options["color"]))
    white = PALE if not cell.is_decided else SOLID if _ink(colour) == "black" else 0.0
    ground = white + (1 - white) * colour
    ink = _ink(ground)
    frame = Rectangle(corner, 0.97, 0.95, facecolor=ground, edgecolor=colour, lw=line_width(0.5))
    writer.ax.add_patch(frame)
    writer.ax.add_patch(Rectangle(corner, BAND, 0.95, facecolor=colour, lw=0))
    writer.ax.plot([x + BAND / 2], [y + 0.475], **_on_band(options))
    if cell.at:
        place = (x + BAND + 0.55 * STRIP, y + 0.475)
        writer.write(place, cell.at, share=0.9, size=0.9, color=ink, rotation=90, style="italic")
    middle = x + (cell.left + 0.97) / 2
    weight = "bold" if cell.is_decided else "normal"
    for text, down, size, kind in (
        (cell.label, 0.20, sizes["label"], weight),
        (cell.mean, 0.49, sizes["mean"], "normal"),
        (cell.gain, 0.78, sizes["gain"], "normal"),
    ):
        place = (middle, y + down)
        writer.write(place, text, share=cell.share, size=size, color=ink, weight=kind)


def _on_band(options: Mapping[str, Any]) -> dict[str, Any]:
    """How the marker of a method is drawn on a band of its colour."""
    ink = _ink(np.array(matplotlib.colors.to_rgb(options["color"])))
    return {
        "linestyle": "none",
        "marker": options["marker"],
        "markersize": marker_size(0.85),
        "fillstyle": options["fillstyle"],
        "markerfacecolor": "none" if options["markerfacecolor"] == "white" else ink,
        "markerfacecoloralt": "none",
        "markeredgecolor": ink,
        "markeredgewidth": line_width(0.7),
    }


def gain_text(cell: "pd.Series[Any]") -> str:
    """The gain of a cell with its interval: "+1.23±0.45†"; "no gain" where the baseline is best.

    A digit less where the half-width, or the gain without one, is 1 or more.
    """
    score = score_of(cell.to_frame().T)
    late = EXTRAPOLATED if cell["extrapolated"] else ""
    if f"{cell['method']} {cell['strength']}".strip() == cell["baseline"]:
        return f"no gain{late}"
    gain, low, high = (score.shown_gain(float(cell[one])) for one in ("gain", "low", "high"))
    has_interval = cell["level"] != "chips only" and not pd.isna(cell["half_width"])
    half_width = (high - low) / 2
    digits = score.decimals_of_gains(gain)
    digits = max(digits - (abs(half_width if has_interval else gain) >= 1), 0)
    value, bottom, top = (f"{one:+z.{digits}f}" for one in (gain, low, high))
    text = value
    if has_interval:
        is_even = not score.is_exponential
        text += f"±{half_width:.{digits}f}" if is_even else f" ({bottom} to {top})"
    return text.replace("-", "−") + late


def mean_text(cell: "pd.Series[Any]", *, fewer: int = 0) -> str:
    """The mean score of the best method of a cell, in its unit: "98.18".

    Args:
        cell: A row of `results.winners`.
        fewer: How many digits fewer than in a table.
    """
    score = score_of(cell.to_frame().T)
    shown = float(score.shown(float(cell["best_mean"])))
    return f"{shown:.{score.decimals_for(shown, fewer=fewer)}f}"


def _ink(ground: np.ndarray) -> str:
    """Black or white, whichever contrasts more (relative luminance of WCAG 2.1)."""
    linear = np.where(ground <= 0.04045, ground / 12.92, ((ground + 0.055) / 1.055) ** 2.4)
    luminance = float(linear @ [0.2126, 0.7152, 0.0722])
    return "black" if (luminance + 0.05) ** 2 > 1.05 * 0.05 else "white"


def _handles(
    names: "pd.Series[str]",
    labels: Mapping[str, str],
    short: Mapping[str, str],
    costs: Mapping[str, str],
) -> dict[str, tuple[Artist, ...]]:
    """What the legend shows: the methods that are best somewhere, with the cost of a training."""
    handles: dict[str, tuple[Artist, ...]] = {}
    for name in (one for one in labels if one in set(names)):
        options = plot_options(name, labels)
        text = labels[name]
        if text.split()[0] != short[name].split()[0]:
            text = f"{short[name]}: {text.partition(' (')[0]}"
        text += f", {costs[name]}" if costs.get(name) else ""
        band = Patch(facecolor=options["color"], linewidth=0)
        handles[text] = (band, Line2D([], [], **_on_band(options)))
    return handles


def _tasks_text(best: pd.DataFrame) -> str:
    tasks = best[list(TASK)].drop_duplicates().itertuples(index=False, name=None)
    return ", ".join(task_text(task) for task in tasks)
