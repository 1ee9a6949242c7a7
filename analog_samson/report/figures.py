"""Complete figures: one panel for each device, legend above, n and kind of interval below."""

import io
import math
import re
import textwrap
from collections.abc import Callable, Sequence
from pathlib import Path

import pandas as pd
from matplotlib import rcParams
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from analog_samson import times
from analog_samson.files import replacing
from analog_samson.report import panels, words
from analog_samson.report.axes import (
    TimeAxis,
    finish,
    head,
    label_outer,
    share_comparable,
    y_label,
)
from analog_samson.report.pgf import save_pgf
from analog_samson.report.shown import ShownFigure
from analog_samson.report.style import among, is_wide, order, style, width_in
from analog_samson.report.typeset import EXTRAPOLATED
from analog_samson.results.definitions import METHOD
from analog_samson.results.scores import score_of
from analog_samson.results.variants import TASK
from analog_samson.results.yields import WORSE, Target, targets_of

FORMATS = ("pdf", "png")
SIDE_BY_SIDE = " Methods of one time stand side by side."
OWN_AXES = " Vertical axes differ."


def accuracy_figure(
    summary: pd.DataFrame,
    *,
    width: str | float = "two columns",
    interval: str = "bars",
    look: str = "paper",
    programmed: bool = False,
    same_times: bool = False,
) -> Figure:
    """Accuracy against time, one panel per device (and every other setting that varies).

    Args:
        summary: As `results.summarise` gives.
        width: "one column", "two columns" or inches.
        interval: "bars" or "band".
        look: "paper", "talk" or the path of a style sheet (.mplstyle).
        programmed: Whether the programmed state (t = 0) is drawn, too.
        same_times: Whether all panels have one time axis; else each has that of its own times.

    Returns:
        The figure, with n and the kind of interval below it.

    Raises:
        ValueError: If the summary is empty or a name is unknown.

    Example:
        >>> figure = accuracy_figure(summary)
        >>> [ax.get_ylabel() for ax in figure.axes]
        ['accuracy [%]']
    """
    return _over_time(
        summary,
        panels.accuracy_vs_time,
        footnote,
        width=width,
        interval=interval,
        look=look,
        programmed=programmed,
        same_times=same_times,
    )


def gain_figure(
    gains: pd.DataFrame,
    *,
    width: str | float = "two columns",
    interval: str = "bars",
    look: str = "paper",
    programmed: bool = False,
    same_times: bool = False,
) -> Figure:
    """Paired gain over the baseline against time, one panel per device.

    Args:
        gains: As `results.paired_gain` gives.
        width: "one column", "two columns" or inches.
        interval: "bars" or "band".
        look: "paper", "talk" or the path of a style sheet (.mplstyle).
        programmed: Whether the programmed state (t = 0) is drawn, too.
        same_times: Whether all panels have one time axis; else each has that of its own times.

    Returns:
        The figure.

    Raises:
        ValueError: If there are no gains or a name is unknown.

    Example:
        >>> gain_figure(gains).axes[0].get_ylabel()
        'gain over SGD [points]'
    """
    return _over_time(
        gains,
        panels.gain_vs_time,
        gain_note,
        width=width,
        interval=interval,
        look=look,
        programmed=programmed,
        same_times=same_times,
    )


def lost_figure(
    losses: pd.DataFrame,
    *,
    width: str | float = "two columns",
    interval: str = "bars",
    look: str = "paper",
    programmed: bool = False,
    same_times: bool = False,
) -> Figure:
    """Accuracy lost since the digital network against time, one panel per device.

    Args:
        losses: As `results.lost` gives.
        width: "one column", "two columns" or inches.
        interval: "bars" or "band".
        look: "paper", "talk" or the path of a style sheet (.mplstyle).
        programmed: Whether the programmed state (t = 0) is drawn, too.
        same_times: Whether all panels have one time axis; else each has that of its own times.

    Returns:
        The figure.

    Raises:
        ValueError: If there are no rows or a name is unknown.

    Example:
        >>> from analog_samson.results import lost
        >>> lost_figure(lost(rows)).axes[0].get_ylabel()
        'accuracy lost [points]'
    """
    return _over_time(
        losses,
        panels.lost_vs_time,
        footnote,
        width=width,
        interval=interval,
        look=look,
        programmed=programmed,
        same_times=same_times,
    )


def yield_figure(
    chips: pd.DataFrame,
    target: Target | None = None,
    *,
    is_default: bool = False,
    width: str | float = "two columns",
    look: str = "paper",
) -> Figure:
    """Fraction of chips that reach an accuracy, a curve a method, at the last time of each device.

    Args:
        chips: As `results.chip_means` gives.
        target: Accuracy to mark, as a fraction, or one of each data set and model; None marks
            nothing.
        is_default: Whether the target is that of `results.default_targets`, for the caption.
        width: "one column", "two columns" or inches.
        look: "paper", "talk" or the path of a style sheet (.mplstyle).

    Returns:
        The figure.

    Raises:
        ValueError: If there are no chips or a name is unknown.

    Example:
        >>> yield_figure(chips, target=0.8).axes[0].get_xlabel()
        'accuracy reached [%]'
    """
    late = at_last_time(chips)
    marked = " Markers: quarter, half and three quarters of the chips."
    if target is not None:
        what = ", the default target" if is_default else ", the target"
        shown = words.each_text(target, lambda one: words.with_unit(score_of(chips), one))
        if is_default and not score_of(chips).has_relative_losses:
            what += " (one point below the digital networks)"
        elif is_default:
            what += f" ({100 * WORSE:g} % worse than the digital networks)"
        marked += f" Vertical line, where in range: {shown}{what}."
    return by_panel(
        late,
        lambda ax, rows: panels.yield_curves(ax, rows, target=target_of(rows, target)),
        with_time=True,
        note=f"{n_note(late)}{marked} {words.fixed_text(chips)}.",
        width=width,
        look=look,
    )


def target_of(rows: pd.DataFrame, target: Target | None) -> float | None:
    """The one target of rows of one data set and model; None where they have none."""
    if target is None:
        return None
    (one,) = targets_of(rows.iloc[:1], target)
    return None if math.isnan(one) else float(one)


def chips_figure(
    chips: pd.DataFrame,
    *,
    width: str | float = "two columns",
    look: str = "paper",
    programmed: bool = False,
    same_times: bool = False,
) -> Figure:
    """Every chip as a thin line over time, a row per device, one panel per method.

    Args:
        chips: As `results.chip_means` gives.
        width: "one column", "two columns" or inches.
        look: "paper", "talk" or the path of a style sheet (.mplstyle).
        programmed: Whether the programmed state (t = 0) is drawn, too.
        same_times: Whether all panels have one time axis; else each has that of its own times.

    Returns:
        The figure.

    Raises:
        ValueError: If there are no chips or a name is unknown.

    Example:
        >>> len(chips_figure(chips).axes)  # one device, two methods
        2
    """
    chips = at_shown_times(chips, programmed)
    axis = TimeAxis(chips["t_inference_s"]) if same_times else None
    rows = chips.assign(name=words.method_names(chips))
    names = sorted(rows["name"].unique(), key=order)
    columns = words.varying(rows)
    groups = dict(list(rows.groupby(["device", *columns], observed=True, sort=True)))
    across = min(len(names), 4 if is_wide(width, look) else 2)
    with style(look), among(names):
        down = -(-len(names) // across)
        figure, axes = panel_grid(
            len(groups) * down * across, width, look, aspect=0.9, share_y=False, across=across
        )
        for place, ax in enumerate(axes):
            row, column = divmod(place, across)
            k = row % down * across + column
            part = list(groups.values())[row // down]
            own = part[part["name"] == names[k]] if k < len(names) else part.iloc[:0]
            if own.empty:
                ax.set_axis_off()
                continue
            panels.chips_over_time(ax, own, axis=axis or TimeAxis(part["t_inference_s"]))
            first_row = "\n" if row % down == 0 else ""
            ax.set_title(first_row + words.method_text(names[k]), weight="normal")
        size = down * across
        rows_of = [axes[k : k + size] for k in range(0, len(axes), size)]
        is_shared = share_comparable([[ax for ax in own if ax.axison] for own in rows_of])
        label_outer([ax for ax in axes if ax.axison])
        for own, part in zip(rows_of, groups.values(), strict=True):
            first = next(ax for ax in own if ax.axison)
            first.tick_params(axis="y", labelleft=True)
            first.set_ylabel(y_label(score_of(part).axis(), longest=0))
            head(first, words.group_title(part.iloc[0], columns, rows["device"].unique()))
        note = "Thin lines: chips (reads averaged). Thick lines: mean of all chips."
        if chips["extrapolated"].any():
            note += f" Shaded: {words.beyond_text(chips)}"
        note += "" if is_shared else OWN_AXES
        finish(figure, {}, f"{n_note(chips)} {note} {words.fixed_text(chips)}.")
    return figure


def strips_figure(
    chips: pd.DataFrame, *, width: str | float = "two columns", look: str = "paper"
) -> Figure:
    """Every chip as a point at the last time of its device, one panel per device.

    Args:
        chips: As `results.chip_means` gives.
        width: "one column", "two columns" or inches.
        look: "paper", "talk" or the path of a style sheet (.mplstyle).

    Returns:
        The figure.

    Raises:
        ValueError: If there are no chips or a name is unknown.

    Example:
        >>> len(strips_figure(chips).axes)  # one device
        1
    """
    late = at_last_time(chips)
    seeds = sorted(late["training_seed"].unique())
    named = f" ({seeds[0]} to {seeds[-1]})" if len(seeds) > 1 else f" ({seeds[0]})"
    note = (
        f"{n_note(late)} Points: chips. Bars: mean of a trained network, in order of the training "
        f"seed{named}, the same place for the same seed."
    )
    return by_panel(
        late,
        panels.chip_strips,
        with_time=True,
        note=f"{note} {words.fixed_text(chips)}.",
        width=width,
        look=look,
    )


def lifetime_figure(
    lives: pd.DataFrame, *, width: str | float = "two columns", look: str = "paper"
) -> Figure:
    """Time until a given accuracy is lost, one row per method, one panel per device.

    Args:
        lives: As `results.lifetime` gives.
        width: "one column", "two columns" or inches.
        look: "paper", "talk" or the path of a style sheet (.mplstyle).

    Returns:
        The figure.

    Raises:
        ValueError: If there are no lifetimes or a name is unknown.

    Example:
        >>> from analog_samson.results import lifetime
        >>> lifetime_figure(lifetime(rows, loss=0.05)).axes[0].get_xlabel()
        'time until 5 points of accuracy are lost'
    """
    reference = {
        "digital": "the same network without analog noise",
        "first": "the chip's first measurement",
    }
    note = ""
    if len(lives):
        n = lives.assign(n_chips_max=lives["n_chips"])
        late = lives.assign(extrapolated=True)
        note = (
            f"n = {words.n_text(n)}. Loss counted from {reference[lives['reference'].iloc[0]]}; "
            "time of its first crossing, interpolated in log time. "
            f"Bars: {words.per_cent_of(lives)} interval, from one simulated time to another; "
            f"arrows: no bound by the simulated times. {words.returns_text(lives)}"
            f"1 mo = 30 d; 1 y = 365 d. {words.fixed_text(lives)}."
        )
        if (lives["measured_s"] < math.inf).any():
            note += f" Shaded and {EXTRAPOLATED}:{late_note(late)[2:]}"
    n_methods = len(_names(lives))
    return by_panel(
        lives,
        panels.lifetimes,
        note=note,
        width=width,
        look=look,
        aspect=max(0.45, 0.2 + 0.04 * n_methods),
        share_y=False,
    )


def scatter_figure(
    networks: pd.DataFrame, *, width: str | float = "two columns", look: str = "paper"
) -> Figure:
    """Digital accuracy against the accuracy at the last time, one point per network.

    Args:
        networks: As `results.network_means` gives.
        width: "one column", "two columns" or inches.
        look: "paper", "talk" or the path of a style sheet (.mplstyle).

    Returns:
        The figure.

    Raises:
        ValueError: If there are no networks or a name is unknown.

    Example:
        >>> from analog_samson.results import network_means
        >>> scatter_figure(network_means(chips)).axes[0].get_xlabel()
        'digital accuracy [%]'
    """
    late = at_last_time(networks)
    sizes = late.groupby(["device", *METHOD], observed=True)["checkpoint"].nunique()
    n = late.assign(n_networks=int(sizes.max()), n_chips_max=late["n_chips"].max())
    n.loc[n.index[0], "n_networks"] = int(sizes.min())
    return by_panel(
        late,
        panels.clean_vs_late,
        with_time=True,
        note=f"n = {words.n_text(n)}.{calendar_note(late)} One point a trained network; bars: "
        "standard deviation over its chips; grey line: nothing lost (y = x). "
        f"{words.fixed_text(networks)}.",
        width=width,
        look=look,
        aspect=0.8,
        share_y=False,
    )


def _over_time(
    rows: pd.DataFrame,
    draw: Callable[..., Sequence[Line2D]],
    note: Callable[[pd.DataFrame], str],
    *,
    width: str | float,
    interval: str,
    look: str,
    programmed: bool,
    same_times: bool,
) -> Figure:
    """Something against time, one panel per device; `draw` is one of `panels`' functions."""
    rows = at_shown_times(rows, programmed)
    axis = TimeAxis(rows["t_inference_s"]) if same_times else None
    return by_panel(
        rows,
        lambda ax, part: draw(ax, part, interval=interval, axis=axis),
        note=note(rows) + SIDE_BY_SIDE if len(rows) else "",
        width=width,
        look=look,
        dashes_late=True,
    )


def by_panel(
    rows: pd.DataFrame,
    draw: Callable[[Axes, pd.DataFrame], Sequence[Line2D]],
    *,
    note: str,
    width: str | float = "two columns",
    look: str = "paper",
    aspect: float = 0.72,
    share_y: bool = True,
    besides: Sequence[str] = (),
    with_time: bool = False,
    dashes_late: bool = False,
) -> Figure:
    """One panel per device (and every other setting that varies), one legend above, one note below.

    Args:
        rows: What is drawn, of any number of panels.
        draw: Draws the rows of one panel and returns handles for the legend.
        note: Text below the panels.
        width: "one column", "two columns" or inches.
        look: "paper", "talk" or the path of a style sheet (.mplstyle).
        aspect: Height of a panel by its width.
        share_y: Whether panels share their vertical axis, where their ranges are comparable.
        besides: Columns of `COMPARED_UNDER` that do not separate panels.
        with_time: Whether a panel's title contains its (one) time.
        dashes_late: Whether lines to extrapolated times are dashed, for the legend.

    Returns:
        The figure.

    Raises:
        ValueError: If there are no rows, or a name is unknown.
    """
    if rows.empty:
        raise ValueError("The summary is empty; there is nothing to draw.")
    columns = [column for column in words.varying(rows) if column not in besides]
    groups = list(rows.groupby(["device", *columns], observed=True, sort=True))
    with style(look), among(_names(rows)):
        figure, axes = panel_grid(len(groups), width, look, aspect=aspect, share_y=False)
        handles: dict[str, Line2D] = {}
        for ax, (_, part) in zip(axes, groups, strict=True):
            for handle in draw(ax, part):
                handles.setdefault(str(handle.get_label()), handle)
        is_shared = share_y and share_comparable([[ax] for ax in axes])
        for ax, (_, part) in zip(axes, groups, strict=True):
            title = words.group_title(part.iloc[0], columns, rows["device"].unique())
            title = f"{title}, {moment(part)}" if with_time else title
            ax.set_title(
                _wrapped(title, figure, axes, 0.88 if is_shared else 0.8 if share_y else 0.7)
            )
        if share_y:
            label_outer(axes, shares_y=is_shared)
            note += "" if is_shared else OWN_AXES
        figure.align_xlabels(axes)
        marks = late_mark(rows) if dashes_late else {}
        finish(figure, handles, note + (late_note(rows) if with_time else ""), marks=marks)
    return figure


def _names(rows: pd.DataFrame) -> list[str]:
    """Methods of rows, and the baseline that they are compared with."""
    names = words.method_names(rows).tolist() if set(METHOD) <= set(rows) else []
    return sorted({*names, *rows.get("baseline", [])})


def late_mark(rows: pd.DataFrame) -> dict[str, Line2D]:
    """The entry of a legend for dashed lines; empty where no time is extrapolated."""
    text = "extrapolated"
    mark = Line2D([], [], color="0.35", linestyle=(0, panels.LATE), label=text)
    return {text: mark} if rows["extrapolated"].any() else {}


def footnote(summary: pd.DataFrame) -> str:
    """Kind of the intervals of a summary, number of networks and chips."""
    parts = [
        f"n = {words.n_text(summary)}; {words.interval_text(summary)}.{calendar_note(summary)}",
        words.typical_text(summary),
        f"{words.fixed_text(summary)}.",
    ]
    return " ".join(filter(None, parts))


def gain_note(gains: pd.DataFrame) -> str:
    """Kind of the intervals of gains, number of networks and chips."""
    per_cent = words.per_cent_of(gains)
    of_networks = gains["level"] == "networks"
    over = "trained networks" if of_networks.any() else "chips only (one network)"
    if of_networks.any() and not of_networks.all():
        over += ", with one network over chips only"
    networks = words.range_text(gains["n_networks"])
    if (gains["spread"] == "pooled").any():
        over += ", spread pooled over methods (few networks)"
    unpaired = "" if gains["paired"].all() else " Networks from elsewhere are compared unpaired."
    score = score_of(gains)
    if not score.is_higher_better:
        unpaired = f" Positive: better, a lower {score.label}.{unpaired}"
    return (
        f"Paired on the same chips; n = {networks} networks × {words.range_text(gains['n_chips'])} "
        f"chips; {per_cent} interval (Student t) over {over}.{unpaired}"
        f"{calendar_note(gains)} "
        f"{' '.join(filter(None, [words.typical_text(gains), words.fixed_text(gains)]))}."
    )


def calendar_note(rows: pd.DataFrame) -> str:
    """Lengths of months and years among the times, as a sentence with a space in front."""
    text = words.calendar_text(rows["t_inference_s"].unique())
    return f" {text}." if text else ""


def times_note(rows: pd.DataFrame) -> str:
    """What labels and marks of times mean, each sentence with a space in front."""
    return calendar_note(rows) + late_note(rows)


def n_note(chips: pd.DataFrame) -> str:
    """Numbers of networks and chips of every method: "n = 5 networks × 10 chips."."""
    keys = ["device", *words.varying(chips), *METHOD]
    own = chips.drop_duplicates([*keys, "checkpoint", "chip"])
    sizes = own.groupby([*keys, "checkpoint"], observed=True).size()
    networks = sizes.groupby(keys, observed=True).size()
    n = pd.DataFrame({"n_networks": networks, "n_chips": int(sizes.min())})
    return f"n = {words.n_text(n.assign(n_chips_max=int(sizes.max())))}.{calendar_note(chips)}"


def at_shown_times(rows: pd.DataFrame, programmed: bool) -> pd.DataFrame:
    """The rows after t = 0, or all where the programmed state is asked for or the only time."""
    later = rows["t_inference_s"] > 0
    return rows if programmed or not later.any() else rows[later]


def at_last_time(rows: pd.DataFrame) -> pd.DataFrame:
    """The rows of the last time that each device was simulated at, for every task."""
    last = rows.groupby(["device", *TASK], observed=True)["t_inference_s"].transform("max")
    return rows[rows["t_inference_s"] == last]


def save(
    figure: Figure, stem: str | Path, formats: Sequence[str] = FORMATS, *, look: str = "paper"
) -> list[Path]:
    """Write a figure; equal figures give equal bytes.

    Args:
        figure: The figure.
        stem: Path without ending; its folder must exist.
        formats: Any of "pdf", "png", "svg", "pgf".
        look: Style sheet, which sets resolution and embedded fonts.

    Returns:
        The files written, one per format.

    Raises:
        FileNotFoundError: If the folder does not exist, or there is no pdflatex for "pgf".
        ValueError: If a format is unknown.

    Example:
        >>> [path.name for path in save(accuracy_figure(summary), "accuracy", ["png", "svg"])]
        ['accuracy.png', 'accuracy.svg']
    """
    stem = Path(stem)
    if not stem.parent.is_dir():
        raise FileNotFoundError(f"Folder {str(stem.parent)!r} does not exist; make it first.")
    undated: dict[str, dict[str, None]] = {
        "pdf": {"CreationDate": None},
        "svg": {"Date": None},
        "png": {},
    }
    unknown = [kind for kind in formats if kind not in (*undated, "pgf")]
    if unknown:
        raise ValueError(f"Formats must be among {[*undated, 'pgf']}; got {unknown}.")
    paths = []
    with style(look):
        for kind in formats:
            path = stem.with_name(f"{stem.name}.{kind}")
            with replacing(path) as temporary:
                if kind == "pgf":
                    save_pgf(figure, temporary)
                else:
                    drawn = io.BytesIO()  # matplotlib's own errors of a full disk are no OSError
                    figure.savefig(drawn, format=kind, metadata=undated[kind] or None)
                    temporary.write_bytes(drawn.getvalue())
            paths.append(path)
    return paths


def panel_grid(
    n: int,
    width: str | float,
    look: str,
    *,
    aspect: float,
    share_y: bool,
    across: int | None = None,
) -> tuple[Figure, list[Axes]]:
    """An empty figure of panels; called within `style`.

    Args:
        n: Number of panels.
        width: "one column", "two columns" or inches.
        look: "paper", "talk" or the path of a style sheet (.mplstyle).
        aspect: Height of a panel by its width.
        share_y: Whether panels share their vertical axis.
        across: Panels in a row; None takes one in one column, two in two.

    Returns:
        The figure and its panels.

    Raises:
        ValueError: If the width or style is unknown.
    """
    whole_in, has_room = width_in(width, look), is_wide(width, look)
    across = across or min(n, 2 if has_room else 1)
    down = -(-n // across)
    panel_in = aspect * whole_in / across
    if n == 1 and has_room:
        panel_in *= 0.6
    figure = ShownFigure(figsize=(whole_in, max(down * panel_in, 1.2)), layout="constrained")
    panels_ = figure.subplots(down, across, squeeze=False, sharey=share_y)
    for ax in panels_.flat[n:]:
        ax.set_axis_off()
    return figure, list(panels_.flat[:n])


def _wrapped(title: str, figure: Figure, axes: Sequence[Axes], share: float) -> str:
    """Break a title that is wider than its panel."""
    specification = axes[0].get_subplotspec()
    across = specification.get_gridspec().ncols if specification else 1
    panel_in = share * figure.get_size_inches()[0] / across
    title = re.sub(r"(?<=\d) (?=[a-z]+\b)", "\u00a0", title)
    return textwrap.fill(title, int(panel_in * 72 / (0.62 * float(rcParams["axes.titlesize"]))))


def moment(rows: pd.DataFrame) -> str:
    """The one time of rows: "1 y", "1 y†" where it is extrapolated."""
    late = EXTRAPOLATED if "extrapolated" in rows and rows["extrapolated"].any() else ""
    return times.label(rows["t_inference_s"].iloc[0]) + late


def late_note(rows: pd.DataFrame) -> str:
    """What the mark of extrapolated times means, with a space in front; "" where there is none."""
    if "extrapolated" not in rows or not rows["extrapolated"].any():
        return ""
    return f" {EXTRAPOLATED} {words.beyond_text(rows)}"
