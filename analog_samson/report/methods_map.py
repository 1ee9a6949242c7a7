"""The map of methods: which one is best on which task, device, compensation and time."""

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
    technology_of,
)
from analog_samson.report.shown import ShownFigure
from analog_samson.report.style import line_width, marker_size, plot_options, style, width_in
from analog_samson.report.tables import check_not_empty
from analog_samson.report.typeset import BLANK, EXTRAPOLATED
from analog_samson.results.comparison import method_names
from analog_samson.results.scores import score_of
from analog_samson.results.spread import FEWEST_TESTED
from analog_samson.results.variants import TASK
from analog_samson.times import DAY, HOUR, YEAR

TIMES_S = (HOUR, DAY, YEAR)
"""Columns of the map: an hour, a day, a year."""

LABELS_CELLS = 2.35
"""Width of the row labels, in cells."""

GAP_CELLS = 0.12
"""Distance of tasks, and of devices, in cells."""

HEIGHT_LETTERS = 3.7
"""Height of a cell in letters of the style's small font."""

BAND = 0.17
"""Width of the band of a cell that has the full colour and the marker."""

PALE = 0.82
"""Share of white in the colour of a cell that is not decided."""

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

    A wanted time that the device has stands in its column. Another column takes the device's
    nearest time (in the logarithm) that lies between those of the neighbouring columns.

    Args:
        available_s: Times of the device [s].
        wanted_s: Times of the columns [s].

    Returns:
        Time of the device to time of its column [s].

    Example:
        >>> {times.label(t): times.label(column) for t, column in time_slots([1.0, DAY, 2 * DAY]).items()}
        {'1 s': '1 h', '1 d': '1 d', '2 d': '1 y'}
    """
    available = sorted(time for time in set(available_s) if time > 0)
    wanted = sorted(wanted_s)
    found = {time: time for time in available if time in wanted}
    for k, column in enumerate(wanted):
        if column in found.values():
            continue
        before = [time for time, placed in found.items() if placed < column]
        after = [time for time, placed in found.items() if placed in wanted[k + 1 :]]
        low, high = max(before, default=0.0), min(after, default=np.inf)
        between = [time for time in available if low < time < high and time not in found]
        if between:
            nearest = min(between, key=lambda time: abs(np.log(time / column)))
            found[nearest] = column
    return dict(sorted(found.items()))


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
        times_s: Times of the columns [s].
        width: "one column", "two columns" or inches.
        look: "paper", "talk" or the path of a style sheet (.mplstyle).

    Returns:
        The figure, with a legend of the methods that are best somewhere.

    Raises:
        ValueError: If there are no cells, several at one place, or too many rows.
    """
    check_not_empty(best)
    best = rows_of_map(best, times_s)
    tasks = list(best.groupby(list(TASK), observed=True, sort=True).groups)
    lines = _lines(best)
    if len(lines) > MOST_ROWS:
        raise ValueError(
            f"A map has at most {MOST_ROWS} rows of devices and compensation; got {len(lines)}. "
            "Select devices, or leave swept studies out."
        )
    placed = _placed(best, tasks, lines, sorted(times_s))
    drawn = list(labels)
    names = method_names(best)
    with style(look):
        whole_in = width_in(width, look)
        letter_pt = 0.86 * float(rcParams["font.size"])
        devices = [line[0] for line in lines]
        tops = np.arange(len(lines)) + GAP_CELLS * 1.6 * np.cumsum(
            [0, *(a != b for a, b in zip(devices, devices[1:], strict=False))]
        )
        n = len(times_s)
        lefts = [task * (n + GAP_CELLS) for task in range(len(tasks))]
        right, bottom = lefts[-1] + n, tops[-1] + 1
        cell_in = 0.98 * whole_in / (right + LABELS_CELLS)
        height_in = HEIGHT_LETTERS * letter_pt / 72
        head = 3.4 * letter_pt * 1.3 / 72 / height_in
        figure = ShownFigure(
            figsize=(whole_in, (bottom + head) * height_in + 0.1), layout="constrained"
        )
        ax = figure.subplots()
        ax.set_axis_off()
        ax.set(xlim=(-LABELS_CELLS, right), ylim=(bottom, -head))
        writer = _Writer(ax, cell_in * 72, letter_pt)
        _write_heads(writer, tasks, lefts, sorted(times_s), head)
        _write_lines(writer, lines, tops, best["device"].unique())
        score = score_of(best)
        shown = score.shown_gain(best["gain"].to_numpy())
        digits = score.decimals_of_gains(shown)
        for row, top in enumerate(tops):
            for task, left in enumerate(lefts):
                for column in range(n):
                    corner = (left + column, float(top))
                    at = placed.get(Slot(row, task, column))
                    if at is None:
                        _draw_blank(writer, corner)
                        continue
                    name = names[at]
                    options = plot_options(name, drawn)
                    _draw_cell(writer, corner, best.loc[at], short[name], options, digits)
        handles = _handles(names, labels, short, costs, drawn)
        others = [labels[name] for name in labels if name not in set(names)]
        text = map_note(best, others, note)
        marks: dict[str, Artist] = {
            "significantly better than every other method": Patch(fc="0.45", ec="0.45"),
            "not decided (≈ k: k others not worse)": Patch(fc="0.93", ec="0.45"),
        }
        finish(figure, handles, text, are_methods=False, marks=marks)
    return figure


def map_note(best: pd.DataFrame, others: Sequence[str] = (), more: str = "") -> str:
    """What the numbers and colours of a map say, with n.

    Args:
        best: As `results.winners` gives.
        others: Labels of compared methods that are best nowhere.
        more: Text at the end.
    """
    score = score_of(best)
    baseline = words.method_text(best["baseline"].iloc[0])
    per_cent = words.per_cent_of(best)
    unit = score.difference_unit or score.unit
    only_chips = best["level"] == "chips only"
    is_exact = ~only_chips & best["half_width"].notna()
    text = [f"Colour: method with the best mean {score.label}; number: its gain over {baseline}"]
    text[0] += f" [{unit}]"
    if is_exact.any():
        kind = "with" if score.is_exponential else "± half-width of"
        text[0] += (
            f" {kind} its {per_cent} interval over trained networks (Student t; simultaneous over "
            "the methods of a cell by Bonferroni, because the best is chosen by the same data)"
        )
    text[0] += "."
    if only_chips.any():
        which = "" if only_chips.all() else f" on {_tasks_text(best[only_chips])}"
        text.append(f"One trained network{which}: no interval and no test.")
    if best["is_tested"].any():
        p = f"p < {1 - best['confidence'].iloc[0]:.2g}"
        text.append(
            f"Decided: paired t test against every other method, {p} after Holm's correction over "
            f"the {int(best['is_tested'].sum())} cells."
        )
    if (best["n_networks"].between(2, FEWEST_TESTED - 1)).any():
        text.append(f"Nothing is tested with fewer than {FEWEST_TESTED} trained networks.")
    text.append(f"n = trained networks × chips per network: {n_by_task(best)}.")
    if typical := words.typical_text(best):
        text.append(typical)
    if others:
        text.append(f"Best nowhere: {', '.join(others)}.")
    if best["extrapolated"].any():
        text.append(f"{EXTRAPOLATED} {words.beyond_text(best)}")
    return " ".join([*text, more]).strip()


def n_by_task(best: pd.DataFrame) -> str:
    """Networks and chips of every task: "LeNet-5 on MNIST 10 × 20 (14 methods)"."""
    parts = []
    for task, own in best.groupby(list(TASK), observed=True, sort=True):
        n = f"{words.range_text(own['n_networks'])} × {words.range_text(own['n_chips'])}"
        parts.append(f"{task_text(task)} {n} ({words.range_text(own['n_methods'])} methods)")
    return "; ".join(parts)


def task_text(task: Sequence[str]) -> str:
    """A task in words: ("mnist", "lenet5") -> "LeNet-5 on MNIST"."""
    return f"{model_label(str(task[1]))} on {dataset_label(str(task[0]))}"


def sort_key(line: Sequence[str]) -> tuple[Any, ...]:
    """Order of rows: by technology, device, then no compensation before others."""
    device, compensation, condition = line
    return technology_of(device), device, condition, compensation != "none", compensation


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
) -> dict[Slot, Any]:
    """The row of ``best`` at every place of the map."""
    placed: dict[Slot, Any] = {}
    for at, cell in best.iterrows():
        slot = Slot(
            lines.index((cell["device"], cell["compensation"], cell["condition"])),
            tasks.index(tuple(cell[key] for key in TASK)),
            wanted.index(cell["column_s"]),
        )
        if slot in placed:
            raise ValueError(
                f"Two comparisons would stand at one place of the map: {task_text(tasks[slot.task])} "
                f"on {cell['device']!r} at {times.label(cell['t_inference_s'])} was simulated with "
                "several engines or precisions; give studies of one."
            )
        placed[slot] = at
    return placed


class _Writer:
    """Texts on the map, made smaller where they would be wider than their place."""

    def __init__(self, ax: Axes, cell_pt: float, letter_pt: float):
        self.ax = ax
        self.cell_pt = cell_pt
        self.letter_pt = letter_pt

    def write(
        self,
        x: float,
        y: float,
        text: str,
        *,
        share: float = 1.0,
        size: float = 1.0,
        **options: Any,
    ) -> None:
        """Write a text at most ``share`` cells wide, ``size`` letters high."""
        size_pt = size * self.letter_pt
        font = FontProperties(
            size=size_pt, weight=options.get("weight", "normal"), family=rcParams["font.family"]
        )
        widest = max(
            TextPath((0, 0), line, prop=font).get_extents().width
            for line in text.split("\n")
            if line
        )
        size_pt *= min(1.0, share * self.cell_pt / widest)
        self.ax.text(x, y, text, fontsize=size_pt, **{"va": "center", **options})


def _write_heads(
    writer: _Writer, tasks: list[Any], lefts: list[float], wanted: list[float], head: float
) -> None:
    for task, left in zip(tasks, lefts, strict=True):
        n = len(wanted)
        middle = left + n / 2
        writer.write(
            middle,
            -0.84 * head,
            dataset_label(str(task[0])),
            share=n,
            size=1.2,
            weight="bold",
            ha="center",
        )
        writer.write(middle, -0.50 * head, model_label(str(task[1])), share=n, ha="center")
        for k, time in enumerate(wanted):
            writer.write(left + k + 0.5, -0.16 * head, times.label(time), ha="center")
    writer.write(-0.1, -0.16 * head, "compensation", share=1.2, ha="right", size=0.9)


def _write_lines(writer: _Writer, lines: list[tuple[str, str, str]], tops: Any, among: Any) -> None:
    for k, (device, compensation, condition) in enumerate(lines):
        text = compensation_label(compensation, condition).replace(", ", ",\n")
        writer.write(-0.1, tops[k] + 0.5, text, share=1.15, ha="right", ma="right")
        if k and lines[k - 1][0] == device:
            continue
        title, _, name = device_label(device, among).partition(" (")
        writer.write(
            -LABELS_CELLS, tops[k] + 0.32, title, share=1.1, size=1.1, weight="bold", ha="left"
        )
        if name:
            writer.write(
                -LABELS_CELLS,
                tops[k] + 0.74,
                name.removesuffix(")"),
                share=1.1,
                size=0.9,
                ha="left",
            )


def _draw_blank(writer: _Writer, corner: tuple[float, float]) -> None:
    writer.ax.add_patch(
        Rectangle(corner, 0.97, 0.95, facecolor="none", edgecolor="0.85", lw=line_width(0.4))
    )
    writer.write(corner[0] + 0.485, corner[1] + 0.475, BLANK, ha="center", color="0.6")


def _draw_cell(
    writer: _Writer,
    corner: tuple[float, float],
    cell: "pd.Series[Any]",
    label: str,
    options: Mapping[str, Any],
    digits: int,
) -> None:
    x, y = corner
    colour = np.array(matplotlib.colors.to_rgb(options["color"]))
    is_decided = bool(cell["is_decided"])
    ground = colour if is_decided else PALE + (1 - PALE) * colour
    add = writer.ax.add_patch
    add(Rectangle(corner, 0.97, 0.95, facecolor=ground, edgecolor=colour, lw=line_width(0.5)))
    add(Rectangle(corner, BAND, 0.95, facecolor=colour, lw=0))
    ink, on_band = _ink(ground), _ink(colour)
    is_hollow = options["markerfacecolor"] == "white"
    writer.ax.plot(
        [x + BAND / 2],
        [y + 0.475],
        marker=options["marker"],
        color=on_band,
        ms=marker_size(0.85),
        mfc="none" if is_hollow else on_band,
        mec=on_band,
        mew=line_width(0.7),
    )
    middle, share = x + (BAND + 0.97) / 2, 0.97 - BAND - 0.06
    is_elsewhere = cell["t_inference_s"] != cell["column_s"]
    heights = (0.17, 0.47, 0.77) if is_elsewhere else (0.3, 0.3, 0.68)
    if is_elsewhere:
        at = f"at {times.label(cell['t_inference_s'])}"
        writer.write(
            middle,
            y + heights[0],
            at,
            share=share,
            size=0.8,
            ha="center",
            color=ink,
            style="italic",
        )
    tied = f" ≈{cell['n_tied']}" if not is_decided and cell["n_tied"] else ""
    text = f"{label}{tied}"
    writer.write(middle, y + heights[1], text, share=share, ha="center", color=ink, weight="bold")
    writer.write(
        middle, y + heights[2], gain_text(cell, digits), share=share, ha="center", color=ink
    )


def gain_text(cell: "pd.Series[Any]", digits: int) -> str:
    """The gain of a cell with its interval: "+1.23±0.45†"; "no gain" where the baseline is best."""
    score = score_of(cell.to_frame().T)
    late = EXTRAPOLATED if cell["extrapolated"] else ""
    best = f"{cell['method']} {cell['strength']}".strip()
    if best == cell["baseline"]:
        return f"no gain{late}"
    ends = [score.shown_gain(cell[column]) for column in ("gain", "low", "high")]
    value, low, high = (f"{one:+z.{digits}f}" for one in ends)
    if cell["level"] == "chips only" or pd.isna(cell["half_width"]):
        text = value
    elif score.is_exponential:
        text = f"{value} ({low} to {high})"
    else:
        text = f"{value}±{score.shown_gain(cell['half_width']):.{digits}f}"
    return text.replace("-", "−") + late


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
    drawn: list[str],
) -> dict[str, Artist]:
    """What the legend shows: the methods that are best somewhere, with the cost of a training."""
    handles: dict[str, Artist] = {}
    for name in (one for one in labels if one in set(names)):
        options = plot_options(name, drawn)
        text = labels[name] if short[name] == labels[name] else f"{short[name]}: {labels[name]}"
        text += f", cost {costs[name]}" if costs.get(name) else ""
        handles[text] = Line2D([], [], **{**options, "linestyle": "none"}, ms=marker_size(1.3))
    return handles


def _tasks_text(best: pd.DataFrame) -> str:
    tasks = best[list(TASK)].drop_duplicates().itertuples(index=False, name=None)
    return ", ".join(task_text(task) for task in tasks)
