"""The tables of a study: score, gain, loss, yield, lifetime, normalised score, noise grid."""

import json
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import pandas as pd

from analog_samson import times
from analog_samson.report import words
from analog_samson.report.captions import caption, mean_text, share_text, tests_text
from analog_samson.report.methods import device_label
from analog_samson.report.style import order
from analog_samson.report.typeset import (
    BLANK,
    EXTRAPOLATED,
    ISO,
    PRIMARY,
    SIGNIFICANT,
    TIED,
    Block,
    Table,
)
from analog_samson.results.scores import ACCURACY, Score, score_of
from analog_samson.results.spread import FEWEST_TESTED
from analog_samson.results.summary import split
from analog_samson.results.yields import FEWEST_OF_TAIL, WORST

MOST_BLOCKS = 50
"""Blocks that a printed table has at most; all are in its CSV file. Our choice: four methods make
200 lines, about four pages."""

MOST_LINES = 200
"""Lines that a block has at most: our choice, as above."""


def _in_per_cent(value: float) -> float:
    return 100 * value


def table(
    summary: pd.DataFrame,
    best: pd.DataFrame | None = None,
    *,
    decimals: int | None = None,
) -> Table:
    """Accuracy against time: methods x times, one block per device.

    Args:
        summary: As `results.summarise` gives.
        best: As `results.best_methods` gives: the significantly best is set bold, ties are
            marked; None marks nothing.
        decimals: Digits after the point; None takes those of the score.

    Returns:
        The table; a cell without trials is blank and is explained in the caption.

    Raises:
        ValueError: If the summary is empty.

    Example:
        >>> finished = table(summary)
        >>> finished.blocks[0].cells[["method", "n"]].values.tolist()
        [['SGD', '3 × 2'], ['SAM ρ = 0.1', '3 × 2']]
    """
    check_not_empty(summary)
    rows = with_best(summary, best)
    score = score_of(summary)
    digits = digits_of(score, summary, decimals)

    def lead(own: pd.DataFrame) -> dict[str, str]:
        digital = f"{score.shown(own[score.digital].mean()):.{digits}f}"
        return {"n": words.n_short(own), "digital": digital}

    def cell(row: "pd.Series[Any]") -> str:
        mark = f" {TIED}" if row["is_tied"] else ""
        return mean_of(score, row, digits) + mark

    blocks = _over_time(rows, lead, cell, is_bold=lambda row: bool(row["is_best"]))
    parts = [
        mean_text(summary),
        "n = trained networks × chips per network.",
        "Digital: the same networks without analog noise.",
        f"Share of analog weights: {share_text(summary)}.",
    ]
    if summary["half_width"].isna().any() and not summary["half_width"].isna().all():
        parts.append("No interval where one chip of one network was measured.")
    if rows["is_best"].any():
        parts.append(
            "Bold: better than every other method of its block at that time (paired t test, Holm)."
        )
    if rows["is_tied"].any():
        parts.append(
            f"{TIED} not distinguishable from the highest (Holm over all pairs of the table)."
        )
    if best is not None and (summary["n_networks"] < FEWEST_TESTED).any():
        parts.append(f"Nothing is tested with fewer than {FEWEST_TESTED} trained networks.")
    if (summary["n_chips"] < summary["n_chips_max"]).any():
        parts.append("Some networks have fewer chips than others: the study is incomplete.")
    if not summary["reproducible"].all():
        parts.append("Some rows come from an engine that cannot be seeded.")
    data = rows if best is not None else summary
    return Table(
        title=f"{score.title} against time since programming",
        caption=caption(rows, blocks, [*parts, *_cut_text(rows)]),
        blocks=tuple(blocks),
        data=data.drop(columns="name", errors="ignore"),
        label=f"tab:{score.column}",
    )


def gain_table(
    gains: pd.DataFrame, *, decimals: int | None = None, alone: Sequence[str] = ()
) -> Table:
    """Paired gain over the baseline: methods x times, one block per device.

    Args:
        gains: As `results.paired_gain` gives.
        decimals: Digits after the point; None takes those of the score.
        alone: Devices on which the baseline was not simulated, so that there is no gain.

    Returns:
        The table; significant gains (Holm over the whole table) carry a star.

    Raises:
        ValueError: If there are no gains.

    Example:
        >>> gain_table(gains).title
        'Gain over SGD [percentage points]'
    """
    check_not_empty(gains)
    rows = gains.assign(name=words.method_names(gains))
    score = score_of(gains)
    shown = score.shown_gain(gains["gain"])
    digits = score.decimals_of_gains(shown) if decimals is None else decimals

    def cell(row: "pd.Series[Any]") -> str:
        mark = f" {SIGNIFICANT}" if row["significant"] else ""
        mark += f" {PRIMARY}" if row["is_primary"] else ""
        return mean_of(score, row, digits, "gain", show=score.shown_gain, sign="+") + mark

    blocks = _over_time(rows, lambda own: {"n": _n_short(own)}, cell)
    per_cent = words.per_cent_of(gains)
    is_loss = (gains["endpoint"] == "lost").all()
    baseline = words.method_text(gains["baseline"].iloc[0])
    what = "Difference"
    title = f"Gain over {baseline}{score.difference()}"
    if is_loss:
        what = f"What {baseline} loses since its digital networks, minus what the method loses,"
        title = f"{score.capitalised} lost less than by {baseline}{score.difference()}"
    typical = words.typical_text(rows)
    is_uneven = score.is_exponential
    how = f" with its {per_cent} interval"
    how = how if is_uneven else f" ± half-width of its {per_cent} interval"
    over = "chips" if (gains["level"] == "chips only").all() else "trained networks"
    parts = [
        f"{what} on the same chips{how} (Student t over {over}). n = "
        "trained networks × chips per network.",
        *([typical] if typical else []),
        tests_text(gains),
    ]
    if not score.is_higher_better:
        parts.insert(1, f"Positive: better, a lower {score.label}.")
    if (gains["level"] == "chips only").any():
        parts.append("With one network the interval is over chips only and no test is made.")
    if (gains["spread"] == "pooled").any():
        parts.append("Spread pooled over methods where there are 2 or 3 networks.")
    if (gains["spread"] == "floor").any():
        parts.append(f"Intervals are {words.floor_text(score)}.")
    if not gains["paired"].all():
        parts.append("Networks from elsewhere: unpaired (Welch).")
    if alone:
        devices = sorted({*alone, *gains["device"]})
        named = ", ".join(device_label(device, devices) for device in alone)
        parts.append(f"No {baseline} on {named}, so no gain there.")
    return Table(
        title=title,
        caption=caption(
            rows,
            blocks,
            [*parts, *_cut_text(rows)],
            blank=f"no trials that could be compared with {baseline}",
        ),
        blocks=tuple(blocks),
        data=gains,
        label="tab:saved" if is_loss else "tab:gain",
    )


def lost_table(losses: pd.DataFrame, *, decimals: int | None = None) -> Table:
    """Score lost since the digital network: methods x times, one block per device.

    Args:
        losses: As `results.lost` gives.
        decimals: Digits after the point; None takes those of the score.

    Returns:
        The table.

    Raises:
        ValueError: If there are no rows.

    Example:
        >>> from analog_samson.results import lost
        >>> lost_table(lost(rows)).title
        'Accuracy lost since the digital network [percentage points]'
    """
    check_not_empty(losses)
    rows = losses.assign(name=words.method_names(losses))
    score = score_of(losses)
    show = score.shown_loss
    digits = score.decimals_of_gains(show(losses["lost"])) if decimals is None else decimals
    blocks = _over_time(
        rows,
        lambda own: {"n": words.n_short(own)},
        lambda row: mean_of(score, row, digits, "lost", show=show),
    )
    first, second = ("Digital", "analog") if score.is_higher_better else ("Analog", "digital")
    lost = f"{first} minus {second} {score.averaged_label} of the same networks"
    if score.is_exponential:
        lost = f"exp({lost[0].lower()}{lost[1:]}) - 1, in per cent"
    parts = [
        f"{lost}.",
        mean_text(losses),
        "n = trained networks × chips per network.",
    ]
    return Table(
        title=f"{score.change_label} since the digital network{score.loss_unit()}",
        caption=caption(rows, blocks, [*parts, *_cut_text(rows)]),
        blocks=tuple(blocks),
        data=losses,
        label="tab:lost",
    )


def yield_table(yields: pd.DataFrame, *, decimals: int | None = None) -> Table:
    """Share of chips that reach a target: methods x times, one block per device.

    Args:
        yields: As `results.yields` gives.
        decimals: Digits after the point of the score of the worst chips; None takes those of the
            score.

    Returns:
        The table, with the score of the worst chips at the last time where there are enough.

    Raises:
        ValueError: If there are no rows.

    Example:
        >>> from analog_samson.results import yields
        >>> yield_table(yields(rows, target=0.5)).title
        'Yield: chips with accuracy of 50 % or more [%]'
    """
    check_not_empty(yields)
    rows = yields.assign(name=words.method_names(yields))
    score = score_of(yields)
    digits = score.decimals_for(score.shown(yields["target"])) if decimals is None else decimals
    has_tail = bool(rows["worst"].notna().any())
    worst = f"worst {100 * WORST:g} %"

    def lead(own: pd.DataFrame) -> dict[str, str]:
        line = {"n": words.n_short(own)}
        if has_tail:
            value = own.sort_values("t_inference_s").iloc[-1]["worst"]
            text = f"{score.shown(value):.{digits}f}" if pd.notna(value) else BLANK
            line[worst] = text
        return line

    blocks = _over_time(rows, lead, lambda row: _between(row["share"], row["low"], row["high"], 0))
    target = words.target_text(score, words.targets_in(rows))
    parts = [
        f"Share of chips with {target}, with its "
        f"{words.per_cent_of(rows)} interval (Clopper and Pearson, for the effective number of "
        "chips by the spread over networks; over chips only with one network). n = trained "
        "networks × chips per network."
    ]
    if has_tail:
        parts.append(
            f"Worst {100 * WORST:g} %: {score.axis()} that all but the worst "
            f"{100 * WORST:g} % of the chips reach at the last time."
        )
    else:
        parts.append(
            f"The worst {100 * WORST:g} % of the chips are described from {FEWEST_OF_TAIL} chips "
            "of a method on."
        )
    return Table(
        title=f"Yield: chips with {target} [%]",
        caption=caption(
            rows,
            blocks,
            [*parts, *_cut_text(rows)],
            blank_in={worst: f"fewer than {FEWEST_OF_TAIL} chips of the method"},
        ),
        blocks=tuple(blocks),
        data=yields,
        label="tab:yield",
    )


def lifetime_table(lives: Sequence[pd.DataFrame]) -> Table:
    """Lifetimes: methods x losses, one block per device.

    Args:
        lives: As `results.lifetime` gives, one frame per loss.

    Returns:
        The table; "> 1 y" where the loss was not reached, "< 1 s" where it was reached before the
        first time.

    Raises:
        ValueError: If there are no lifetimes.

    Example:
        >>> from analog_samson.results import lifetime
        >>> lifetime_table([lifetime(rows, loss=loss) for loss in (0.05, 0.1)]).title
        'Lifetime: time until accuracy is lost'
    """
    rows = pd.concat(list(lives), ignore_index=True)
    check_not_empty(rows)
    rows["name"] = words.method_names(rows)
    score = score_of(rows)
    blocks = []
    for title, part in _by_block(rows):
        cells = []
        for name in in_order(part["name"]):
            own = part[part["name"] == name]
            line = {"method": words.method_text(name), "n": _n_short(own)}
            for _, row in own.sort_values("loss").iterrows():
                line[score.loss_head(row["loss"])] = _life(row)
            cells.append(line)
        blocks.append(Block.plain(title, pd.DataFrame(cells).fillna(BLANK)))
    reference = {
        "digital": "the same network without analog noise",
        "first": "the chip's first measurement",
    }[rows["reference"].iloc[0]]
    counted = f"The mean {score.label} lost is counted from {reference}, in "
    counted += f"{score.difference_unit} of {score.label}, and"
    if score.has_relative_losses:
        counted = f"Counted from {reference}, relative to it, and"
    parts = [
        f"{counted} interpolated in log time to the first crossing; in "
        f"brackets the {words.per_cent_of(rows)} interval, from one simulated time to another "
        f"({BLANK}: no bound). > and <: beyond the simulated times. n = trained networks × "
        "chips per network, of chips simulated at all times."
    ]
    for loss, own in rows.groupby("loss"):
        if said := words.returns_text(own).strip():
            parts.append(f"{score.loss_head(float(str(loss)))}: {said[0].lower()}{said[1:]}")
    if (rows["spread"] == "pooled").any():
        parts.append("Spread pooled over methods where there are 2 or 3 networks.")
    more = rows.iloc[int(rows["further_times"].to_numpy().argmax())]
    if more["further_times"] > 0:
        n = more["further_times"]
        parts.append(
            f"Further times narrow the intervals: {n} more between {times.label(more['low_s'])} "
            f"and {times.label(more['high_s'])} bring that of {words.method_text(more['name'])} at "
            f"{score.loss_head(more['loss'])} near what the spread allows."
        )
    return Table(
        title=f"Lifetime: time until {score.is_lost}",
        caption=caption(
            _with_late_bounds(rows),
            blocks,
            [*parts, *_cut_text(rows)],
            blank="not evaluated for this loss",
        ),
        blocks=tuple(blocks),
        data=rows.drop(columns="name"),
        label="tab:lifetime",
    )


def iso_table(iso: pd.DataFrame, *, decimals: int = 2, threshold: float = 0.99) -> Table:
    """Normalised accuracy: methods x times, one block per device.

    Args:
        iso: As `results.iso_accuracy` gives.
        decimals: Digits after the point; None takes those of the score.
        threshold: The one that ``iso`` was computed with.

    Returns:
        The table; iso-accurate cells are marked.

    Raises:
        ValueError: If there are no rows.

    Example:
        >>> from analog_samson.results import iso_accuracy
        >>> iso_table(iso_accuracy(rows, n_classes={"digits": 10})).title
        'Normalised accuracy [%] against time since programming'
    """
    check_not_empty(iso)
    score = score_of(iso)
    rows = iso.assign(name=words.method_names(iso))

    def cell(row: "pd.Series[Any]") -> str:
        mark = f" {ISO}" if row["is_iso"] else ""
        return mean_of(ACCURACY, row, decimals, "normalised") + mark

    blocks = _over_time(rows, lambda own: {}, cell)
    error = "error" if score.is_higher_better else score.averaged_label
    parts = [
        f"1 − ({error} − digital {error}) / ({error} of guessing − digital {error}).",
        mean_text(iso.drop(columns=["score", "higher_is_better"], errors="ignore")),
    ]
    if rows["is_iso"].any():
        name = "iso-accurate: " if score == ACCURACY else ""
        parts.append(f"{ISO} {name}above {100 * threshold:g} %.")
    return Table(
        title=f"Normalised {score.averaged_label} [%] against time since programming",
        caption=caption(rows, blocks, [*parts, *_cut_text(rows)]),
        blocks=tuple(blocks),
        data=iso,
        label="tab:iso",
    )


def grid_table(summary: pd.DataFrame, *, decimals: int | None = None) -> Table:
    """Accuracy over the swept axes: swept points x methods, one block per device and time.

    Args:
        summary: As `results.summarise` gives, with swept axes.
        decimals: Digits after the point; None takes those of the score.

    Returns:
        The table.

    Raises:
        ValueError: If the summary is empty or nothing was swept.

    Example:
        >>> grid_table(swept_twice).blocks[0].cells.columns.tolist()
        ['adc bits', 'programming noise scale', 'SGD']
    """
    check_not_empty(summary)
    rows = summary.assign(name=words.method_names(summary))
    if not words.is_swept(rows):
        raise ValueError("Nothing was swept in this study; a noise grid needs axes.")
    score = score_of(rows)
    digits = digits_of(score, rows, decimals)
    columns = [column for column in words.varying(rows) if column != "condition"]
    names = sorted({name for condition in rows["condition"] for name in json.loads(condition)})
    blocks = []
    most_points = 0
    for part in _first_groups(rows, ["device", *columns, "t_inference_s"]):
        cells = []
        methods = in_order(part["name"])
        points = sorted(part["condition"].unique(), key=words.by_number)
        most_points = max(most_points, len(points))
        part = part[part["condition"].isin(points[:MOST_LINES])]
        at = dict(list(part.groupby("condition", sort=False)))
        for point in points[:MOST_LINES]:
            line = _point(point, names)
            own = {row["name"]: row for _, row in at[point].iterrows()}
            for name in methods:
                line[words.method_text(name)] = BLANK
                if name in own:
                    line[words.method_text(name)] = mean_of(score, own[name], digits)
            cells.append(line)
        late = EXTRAPOLATED if part["extrapolated"].any() else ""
        title = words.group_title(part.iloc[0], columns, rows["device"].unique())
        moment = times.label(part["t_inference_s"].iloc[0])
        blocks.append(Block.plain(f"{title}, {moment}{late}", pd.DataFrame(cells)))
    parts = [
        mean_text(summary),
        f"n = {words.n_text(summary)}.",
        *_cut_text(rows, ["device", *columns, "t_inference_s"]),
    ]
    if most_points > MOST_LINES:
        parts.append(
            f"Cut: the first {MOST_LINES} of {most_points:,} lines of a block; all are in the CSV "
            "file."
        )
    return Table(
        title=f"{score.title} over the swept axes",
        caption=caption(
            rows,
            blocks,
            parts,
            blank_in={words.axis_name(name): "as the device is" for name in names},
        ),
        blocks=tuple(blocks),
        data=summary,
        label="tab:grid",
    )


def planning_table(plan: pd.DataFrame, target: float, *, decimals: int | None = None) -> Table:
    """Number of chips or networks needed for a half-width, one block per device.

    Args:
        plan: As `results.needed` gives.
        target: The target half-width, as a fraction.
        decimals: Digits after the point; None takes those of the score.

    Returns:
        The table: for every method its widest interval over time, and the number needed.

    Raises:
        ValueError: If the plan is empty.

    Example:
        >>> from analog_samson.results import needed
        >>> planning_table(needed(rows, half_width=0.5), target=0.5).title
        'How many more chips or networks'
    """
    check_not_empty(plan)
    rows = plan.assign(name=words.method_names(plan))
    score = score_of(plan)
    shown = score.shown_loss(plan["half_width"])
    digits = score.decimals_of_gains(shown) if decimals is None else decimals
    blocks = []
    for title, part in _by_block(rows):
        cells = []
        for name in in_order(part["name"]):
            own = part[part["name"] == name]
            widest = own.sort_values("half_width", na_position="last", kind="stable").iloc[-1]
            width = "unknown"
            if pd.notna(widest["half_width"]):
                width = f"{score.shown_loss(widest['half_width']):.{digits}f}"
            moment = times.label(widest["t_inference_s"])
            line = {"method": words.method_text(name), "n": _n_short(own), "half-width": width}
            cells.append({**line, "at": moment, "needed": widest["advice"]})
        blocks.append(Block.plain(title, pd.DataFrame(cells)))
    unit = score.difference_unit or score.unit
    parts = [
        f"Widest interval over time, and what would bring it to {score.shown_loss(target):.3g}"
        f"{' ' + unit if unit else ''}, by the variances found here: an estimate from few networks "
        "is rough."
    ]
    return Table(
        title="How many more chips or networks",
        caption=caption(rows.assign(extrapolated=False), blocks, [*parts, *_cut_text(rows)]),
        blocks=tuple(blocks),
        data=plan,
        label="tab:planning",
    )


def in_order(names: Iterable[str]) -> list[str]:
    """Methods in the order in which every table and legend shows them, each once."""
    return sorted(set(names), key=order)


def _over_time(
    rows: pd.DataFrame,
    lead: Callable[[pd.DataFrame], dict[str, str]],
    cell: Callable[["pd.Series[Any]"], str],
    is_bold: Callable[["pd.Series[Any]"], bool] = lambda row: False,
) -> list[Block]:
    """One block per device: methods down, times across."""
    blocks = []
    for title, part in _by_block(rows):
        late = set(part.loc[part["extrapolated"], "t_inference_s"])
        moments = sorted(part["t_inference_s"].unique())
        named = [times.label(t) for t in moments]
        heads = {
            t: (name if named.count(name) == 1 else f"{t:.10g} s")
            + (EXTRAPOLATED if t in late else "")
            for t, name in zip(moments, named, strict=True)
        }
        cells, bold = [], []
        for name in in_order(part["name"]):
            own = part[part["name"] == name]
            line = {"method": words.method_text(name), **lead(own)}
            marks = dict.fromkeys(line, False)
            at = {row["t_inference_s"]: row for _, row in own.iterrows()}
            for t, head in heads.items():
                line[head] = cell(at[t]) if t in at else BLANK
                marks[head] = t in at and is_bold(at[t])
            cells.append(line)
            bold.append(marks)
        blocks.append(Block(title, pd.DataFrame(cells), pd.DataFrame(bold)))
    return blocks


def _by_block(rows: pd.DataFrame) -> Iterator[tuple[str, pd.DataFrame]]:
    """Title and rows of every printed block: one per device and other settings that vary."""
    columns = words.varying(rows)
    for part in _first_groups(rows, ["device", *columns]):
        yield words.group_title(part.iloc[0], columns, rows["device"].unique()), part


def _first_groups(rows: pd.DataFrame, columns: list[str]) -> Iterator[pd.DataFrame]:
    """The groups that are printed, in the order of their values: numbers by their size."""
    code = rows.groupby(columns, observed=True, sort=False, dropna=False).ngroup().to_numpy()
    parts = split(code)
    firsts = rows.iloc[[own[0] for own in parts]].reset_index(drop=True)
    ordered = firsts.sort_values(
        columns, key=lambda one: one.map(words.by_number) if one.name == "condition" else one
    )
    for number in ordered.index[:MOST_BLOCKS]:
        yield rows.iloc[parts[number]]


def _cut_text(rows: pd.DataFrame, columns: list[str] | None = None) -> list[str]:
    """Say that only the first blocks are printed, where there are more."""
    columns = ["device", *words.varying(rows)] if columns is None else columns
    n = rows.groupby(columns, observed=True, dropna=False).ngroups
    if n <= MOST_BLOCKS:
        return []
    return [f"Cut: the first {MOST_BLOCKS} of {n:,} blocks; all are in the CSV file."]


def with_best(summary: pd.DataFrame, best: pd.DataFrame | None) -> pd.DataFrame:
    """A summary with names of methods and whether each is the best, or tied with it."""
    rows = summary.assign(name=words.method_names(summary))
    if best is None:
        return rows.assign(is_best=False, is_tied=False)
    marks = ("is_best", "is_tied", "p_value", "p_holm", "p_worse")
    rows = rows.merge(best, on=[c for c in best.columns if c not in marks], how="left")
    return rows.assign(is_best=rows["is_best"].eq(True), is_tied=rows["is_tied"].eq(True))


def digits_of(score: Score, summary: pd.DataFrame, decimals: int | None) -> int:
    """Digits after the point of a summary's values."""
    if decimals is not None:
        return decimals
    return score.decimals_for(score.shown(summary[score.column]))


def _value(
    score: Score,
    value: float,
    half_width: float,
    decimals: int,
    *,
    show: Callable[[float], float] | None = None,
    sign: str = "",
) -> str:
    """A value with its half-width, as `show` converts it: by default as `Score.shown`."""
    show = show or score.shown
    text = f"{show(value):{sign}z.{decimals}f}".replace("-", "−")
    if pd.isna(half_width):
        return text
    return f"{text} ± {score.shown_width(show, value, half_width):.{decimals}f}"


def mean_of(
    score: Score,
    row: "pd.Series[Any]",
    decimals: int,
    column: str | None = None,
    *,
    show: Callable[[float], float] | None = None,
    sign: str = "",
) -> str:
    """A mean with its half-width, or with its interval where that is not symmetric.

    Args:
        score: The score.
        row: Row with the mean, ``low``, ``high``, ``half_width``, ``spread`` and ``scale``.
        decimals: Digits after the point.
        column: Column of the mean; None takes that of the score.
        show: As in `_value`.
        sign: "+" shows the sign of positive values, too.
    """
    value, show = row[column or score.column], show or score.shown
    is_bent = row.get("scale") == "logit" and column is None
    if is_bent or row["spread"] == "bootstrap" or score.is_exponential:
        return _between(value, row["low"], row["high"], decimals, show=show, sign=sign)
    return _value(score, value, row["half_width"], decimals, show=show, sign=sign)


def _between(
    value: float,
    low: float,
    high: float,
    decimals: int,
    *,
    show: Callable[[float], float] = _in_per_cent,
    sign: str = "",
) -> str:
    """A value with its interval in brackets: "98.32 (97.61 to 98.77)"."""
    ends = sorted((show(low), show(high)))
    shown = [f"{one:{sign}z.{decimals}f}".replace("-", "−") for one in (show(value), *ends)]
    return f"{shown[0]} ({shown[1]} to {shown[2]})" if pd.notna(low) else shown[0]


def _life(row: "pd.Series[Any]") -> str:
    late = EXTRAPOLATED if row["extrapolated"] else ""
    sign = {"right": "> ", "left": "< ", "": ""}[row["censored"]]
    ends = [
        times.label(t) + EXTRAPOLATED * bool(t > row["measured_s"]) if 0 < t < math.inf else BLANK
        for t in (row["low_s"], row["high_s"])
    ]
    return f"{sign}{times.label(row['lifetime_s'])}{late} ({ends[0]} to {ends[1]})"


def _with_late_bounds(lives: pd.DataFrame) -> pd.DataFrame:
    """Lifetimes for a caption: extrapolated where a bound of the interval is."""
    bounds = lives[["low_s", "high_s"]].where(lambda t: t < math.inf, 0.0).max(axis=1)
    late = lives["extrapolated"] | (bounds > lives["measured_s"])
    return lives.assign(t_inference_s=0.0, extrapolated=late)


def _n_short(rows: pd.DataFrame) -> str:
    networks, chips = words.range_text(rows["n_networks"]), words.range_text(rows["n_chips"])
    return f"{networks} × {chips}".replace(" to ", "–")


def _point(condition: str, names: Iterable[str]) -> dict[str, str]:
    """The values of a swept point, one column per axis."""
    values = json.loads(condition)
    return {
        words.axis_name(name): words.value_text(values[name], name) if name in values else BLANK
        for name in names
    }


def check_not_empty(rows: pd.DataFrame) -> None:
    """Raise ValueError if there are no rows."""
    if rows.empty:
        raise ValueError("The summary is empty; there is nothing to put in a table.")
