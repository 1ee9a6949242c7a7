"""How good must a device be: tolerances of methods as a table and a figure."""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

from analog_samson import times
from analog_samson.devices.noise_sources import ALL_TOGETHER
from analog_samson.report import words
from analog_samson.report.axes import finish, places
from analog_samson.report.captions import caption
from analog_samson.report.contents import write_figures, write_tables
from analog_samson.report.figures import panel_grid
from analog_samson.report.methods import described_in
from analog_samson.report.sensitivity import source_text
from analog_samson.report.style import among, line_width, marker_size, order, plot_options, style
from analog_samson.report.sweeps import mark_nominal
from analog_samson.report.typeset import BLANK, EXTRAPOLATED, SIGNIFICANT, Block, Table
from analog_samson.results.comparison import baseline_name
from analog_samson.results.scores import score_of
from analog_samson.results.spread import FEWEST_TESTED
from analog_samson.results.tolerance import (
    LIKE,
    SCAN,
    method_tolerances,
    scale_of,
    tolerance_ratios,
    with_bounds,
)

STEM = "requirements"

_ENDS = scale_of(SCAN[0]), scale_of(SCAN[-1])

_UNKNOWN = "not determined"

_APART = 0.3
"""Distance of methods around a source, in rows."""

_SKEWED = 1.0
"""Coefficient of variation of the chips' losses from which the caption warns: our choice; simulated
intervals contain the tolerance of a network in 98 % of the cases at 1, in 91 % at 2."""

_MARKERS = {"above": ">", "below": "<", "both": "x"}
"""Markers of values that are beyond the scales searched, and of unknown ones."""

_BELOW = 0.13
"""How far networks are drawn below their method, in rows."""


def write_requirements(
    rows: pd.DataFrame, folder: str | Path, *, baseline: str = "sgd", look: str = "paper"
) -> list[Path]:
    """Write table (Markdown, LaTeX, CSV) and figure (PDF, PNG) of tolerances.

    Args:
        rows: A row per network and noise source, as ``study.requirements.tolerances`` gives.
        folder: Where the files ``requirements.*`` go.
        baseline: Method that the others are compared with.
        look: Style sheet of the figure.

    Returns:
        The paths.

    Raises:
        ValueError: If there are no rows.
        OSError: If the folder cannot be written.

    Example:
        >>> [path.name for path in write_requirements(tolerated, ".")][:3]
        ['requirements.md', 'requirements.tex', 'requirements.csv']
    """
    figures, tables = requirements_of(rows, folder, baseline=baseline, look=look)
    return [*write_tables(tables, folder), *write_figures(figures, folder, look=look)]


def requirements_of(
    rows: pd.DataFrame, folder: str | Path, *, baseline: str = "sgd", look: str = "paper"
) -> tuple[dict[str, Figure], dict[str, Table]]:
    """Figure and table that `write_requirements` writes, by the stems of their files.

    Args:
        rows: See `write_requirements`.
        folder: Folder of the study, whose networks name the methods.
        baseline: See `write_requirements`.
        look: See `write_requirements`.

    Raises:
        ValueError: If there are no rows.

    Example:
        >>> figures, tables = requirements_of(tolerated, ".")
        >>> list(figures), list(tables)
        (['requirements'], ['requirements'])
    """
    with described_in([Path(folder)]):
        table, figure = requirements_table(rows, baseline), requirements_figure(rows, look=look)
    return {STEM: figure}, {STEM: table}


def requirements_table(rows: pd.DataFrame, baseline: str = "sgd") -> Table:
    """Tolerated scale of every noise source, and what it is physically: sources x methods.

    Args:
        rows: As for :func:`write_requirements`.
        baseline: Method that the others are compared with.

    Returns:
        The table; its data have the tolerances of methods with the ratios to the baseline.

    Raises:
        ValueError: If there are no rows.

    Example:
        >>> list(requirements_table(tolerated).blocks[0].cells)[:3]
        ['noise source', 'method', 'n']
    """
    methods = _named(method_tolerances(rows))
    ratios = tolerance_ratios(rows, baseline)
    keys = [*LIKE, "method", "strength"]
    renamed = {"low": "ratio_low", "high": "ratio_high", "bound": "ratio_bound"}
    data = methods.merge(ratios.rename(columns=renamed), on=keys, how="left")
    data["is_baseline"] = len(ratios) > 0
    if len(ratios):
        data["is_baseline"] = data["name"] == baseline_name(data, baseline)
    blocks = []
    sources = list(dict.fromkeys(data["source"]))
    pairs = zip(data["source"], data["name"], strict=True)
    ranks = [(sources.index(source), order(name)) for source, name in pairs]
    data = data.iloc[sorted(range(len(data)), key=ranks.__getitem__)]
    for _, part in data.groupby(["device", "dataset", "model"], observed=True, sort=False):
        lines = [_line(row, baseline, has_ratios=len(ratios) > 0) for _, row in part.iterrows()]
        cells = pd.DataFrame(lines)
        several = [c for c in ("dataset", "model") if data[c].nunique() > 1]
        title = words.group_title(part.iloc[0], several, data["device"].unique())
        blocks.append(Block.plain(title, cells))
    parts = [_meaning(methods), _of_methods(methods), _limits_text()]
    if len(ratios):
        parts.append(_ratios_text(ratios, baseline, float(methods["confidence"].iloc[0])))
    elif methods["name"].nunique() > 1 and baseline not in set(methods["method"]):
        parts.append(f"Not compared: no network was trained by {words.method_text(baseline)}.")
    parts += filter(None, (_falls_text(methods), _skewed_text(methods), _missed_text(methods)))
    if any((block.cells == _UNKNOWN).any(axis=None) for block in blocks):
        parts.append(
            f"{_UNKNOWN.capitalize()}: with so few chips no scale was shown to be tolerable and "
            "none to be too much, or networks are beyond the one end and others beyond the other."
        )
    if any((block.cells == BLANK).any(axis=None) for block in blocks):
        parts.append(f"{BLANK} not defined.")
    return Table(
        title=f"How good must the device be, to lose no more than {_loss_text(methods)}?",
        caption=caption(methods, (), parts),
        blocks=tuple(blocks),
        data=data.drop(columns=["name", "is_baseline"]),
        label="tab:requirements",
    )


def requirements_figure(
    rows: pd.DataFrame, *, width: str | float = "one column", look: str = "paper"
) -> Figure:
    """Tolerated scale of every noise source by method, on a logarithmic axis.

    Large markers with intervals are methods, small ones their networks; a triangle points to where
    a tolerance, or the end of an interval, is beyond the range searched.

    Args:
        rows: As for :func:`write_requirements`.
        width: "one column", "two columns" or inches.
        look: "paper", "talk" or the path of a style sheet (.mplstyle).

    Returns:
        The figure.

    Raises:
        ValueError: If there are no rows.

    Example:
        >>> requirements_figure(tolerated).axes[0].get_xlabel()
        'tolerated scale, relative to the device'
    """
    methods, networks = _named(method_tolerances(rows)), _named(rows)
    groups = list(methods.groupby(["device", "dataset", "model"], observed=True, sort=False))
    with style(look), among(methods["name"].unique()):
        n_lines = methods["source"].nunique() * (1 + methods["name"].nunique())
        aspect = min(0.3 + 0.03 * n_lines, 1.2)
        figure, axes = panel_grid(len(groups), width, look, aspect=aspect, share_y=False)
        handles: dict[str, Line2D] = {}
        for ax, (key, part) in zip(axes, groups, strict=True):
            own = networks
            for column, value in zip(("device", "dataset", "model"), key, strict=True):
                own = own[own[column] == value]
            for handle in draw_requirements(ax, part, own):
                handles[str(handle.get_label())] = handle
            several = [c for c in ("dataset", "model") if methods[c].nunique() > 1]
            ax.set_title(words.group_title(part.iloc[0], several, methods["device"].unique()))
        note = f"{_meaning(methods)} {_of_methods(methods)} Small markers: networks. Vertical "
        note += f"line: the device as it is. {words.fixed_text(methods)}."
        if (with_bounds(rows)["beyond"] != "").any() or np.isinf(methods["high"]).any():
            note += " Triangles: may be beyond the scales searched; crosses: not determined."
        late = " Extrapolated beyond the measurements." if methods["extrapolated"].any() else ""
        finish(figure, dict(handles), note + late)
    return figure


def draw_requirements(ax: Axes, methods: pd.DataFrame, networks: pd.DataFrame) -> list[Line2D]:
    """Draw tolerances, a row a noise source, a colour and marker a method.

    Args:
        ax: Where to draw.
        methods: As `results.tolerance.method_tolerances` gives, with the column ``name``.
        networks: The rows of their networks, with the column ``name``.

    Returns:
        One handle per method.

    Example:
        >>> from analog_samson.results import method_tolerances
        >>> found = method_tolerances(tolerated)
        >>> found, networks = (rows.assign(name=rows["method"]) for rows in (found, tolerated))
        >>> [handle.get_label() for handle in draw_requirements(ax, found, networks)]
        ['sgd', 'sam']
    """
    sources = list(dict.fromkeys(methods["source"]))
    apart = min(_APART, 0.8 / methods["name"].nunique())
    names = sorted(methods["name"].unique(), key=order)
    handles = []
    for name, shift in zip(names, places(len(names)) * apart, strict=True):
        look = plot_options(name, names) | {"linestyle": "none"}
        own = methods[methods["name"] == name].set_index("source")
        single = with_bounds(networks[networks["name"] == name])
        for place, source in enumerate(sources):
            if source not in own.index:
                continue
            of_networks = single[single["source"] == source]
            pale = look | {"alpha": 0.55, "markersize": marker_size(0.5), "zorder": 3}
            for beyond, alike in of_networks.groupby("beyond") if len(of_networks) > 1 else ():
                below = np.full(len(alike), place + shift + _BELOW)
                marker = _MARKERS.get(str(beyond), look["marker"])
                ax.plot(alike["factor"], below, **pale | {"marker": marker})
            _draw_one(ax, own.loc[source].to_dict(), place + shift, look)
        handles.append(Line2D([], [], label=name, **look))
    mark_nominal(ax, 1.0)
    ax.set_xscale("log")
    seen = networks[["factor", "low", "high"]].replace([0.0, np.inf], np.nan)
    low, high = min(float(seen.min().min()), 1.0), max(float(seen.max().max()), 1.0)
    ax.set_xlim(low / 1.3, high * 1.3)
    ticks = [2.0**power for power in range(-4, 5) if low / 1.3 <= 2.0**power <= high * 1.3]
    ax.xaxis.set_major_locator(FixedLocator(ticks))
    ax.xaxis.set_minor_locator(NullLocator())
    ax.xaxis.set_major_formatter(FuncFormatter(lambda value, _: _bound_text(value)))
    ax.set_yticks(range(len(sources)), [_source(source) for source in sources])
    ax.set_ylim(len(sources) - 0.5, -0.5)
    ax.grid(visible=False, axis="y")
    ax.set_xlabel("tolerated scale, relative to the device")
    return handles


def _draw_one(ax: Axes, row: Mapping[str, Any], y: float, look: Mapping[str, Any]) -> None:
    if row["bound"] == "both":
        return
    if row["bound"]:
        look = {**look, "marker": _MARKERS[row["bound"]]}
    elif not math.isnan(row["low"]):
        ends = [max(row["low"], _ENDS[0]), min(row["high"], _ENDS[1])]
        ax.plot(ends, [y, y], color=look["color"], lw=line_width(0.9), zorder=3.5)
        arrow = {"color": look["color"], "linestyle": "none", "markersize": marker_size(0.7)}
        for end, open_end, marker in zip(ends, (0.0, math.inf), "<>", strict=True):
            if open_end in (row["low"], row["high"]):
                ax.plot([end], [y], **arrow, marker=marker, zorder=3.5)
    ax.plot([row["factor"]], [y], **{**look, "zorder": 4})


def _named(rows: pd.DataFrame) -> pd.DataFrame:
    rows = rows.assign(strength=rows["strength"].astype(object).fillna(""))
    return rows.assign(name=words.method_names(rows))


def _line(row: "pd.Series[Any]", baseline: str, *, has_ratios: bool) -> dict[str, str]:
    extrapolated = f" {EXTRAPOLATED}" if row["extrapolated"] else ""
    line = {
        "noise source": _source(row["source"]),
        "method": words.method_text(row["name"]),
        "n": f"{row['n_networks']} × {row['n_chips']:.0f}",
        f"scale {_when(row['t_inference_s'], 'at')}{extrapolated}": _between(row),
        "that is, up to": _physical(row),
    }
    if has_ratios:
        ratio = {"factor": row["ratio"], "low": row["ratio_low"], "high": row["ratio_high"]}
        bound = row["ratio_bound"] if isinstance(row["ratio_bound"], str) else ""
        text = "1" if row["is_baseline"] else _between({**ratio, "bound": bound})
        text += SIGNIFICANT if row["significant"] == 1 else ""
        line[f"relative to {words.method_text(baseline)}"] = text
    return line


def _when(t_inference_s: float, before: str) -> str:
    label = times.label(t_inference_s)
    return f"{before} {label}" if t_inference_s > 0 else f"as {label}"


def _between(row: "Mapping[str, Any] | pd.Series[Any]", factor: float = 1.0) -> str:
    """A factor and its interval: "1.62 (1.31 to 2)", "> 16", "< 1/16", "not determined"."""
    value = row["factor"]
    if row["bound"] == "both":
        return _UNKNOWN
    if math.isnan(value):
        return BLANK
    if row["bound"]:
        sign = ">" if row["bound"] == "above" else "<"
        return f"{sign} {_bound_text(value) if factor == 1 else _number(value * factor)}"
    if math.isnan(row["low"]):
        return _number(value * factor)
    low = _number(row["low"] * factor) if row["low"] > 0 else f"< {_number(_ENDS[0] * factor)}"
    high = row["high"]
    top = _number(high * factor) if high < math.inf else f"> {_number(_ENDS[1] * factor)}"
    return f"{_number(value * factor)} ({low} to {top})"


def _physical(row: "pd.Series[Any]") -> str:
    if not row["quantity"] or math.isnan(row["nominal"]):
        return BLANK
    value = _between(row, row["nominal"])
    return (
        BLANK
        if value in (BLANK, _UNKNOWN)
        else f"{row['quantity']}: {value} {row['unit']}".rstrip()
    )


def _number(value: float) -> str:
    """Three digits: "0.0489", "1.60", "16.0"."""
    return f"{value:#.3g}".removesuffix(".")


def _bound_text(value: float) -> str:
    """A scale: 0.0625 -> "1/16", 2.0 -> "2", 0.315 -> "0.315"."""
    is_round = value > 0 and (1 / value).is_integer()
    return f"1/{1 / value:g}" if value < 1 and is_round else f"{value:.3g}"


def _source(source: str) -> str:
    own = {ALL_TOGETHER: ALL_TOGETHER, "mvm_read_noise_uS": "read noise of cells in products"}
    return own.get(source) or source_text(source)


def _loss_text(methods: pd.DataFrame) -> str:
    score, lose = score_of(methods), float(methods["lose"].iloc[0])
    amount = f"{score.shown_loss(lose):.3g}"
    if score.is_exponential:
        return f"{amount} % of {score.label}"
    unit = score.difference_unit or score.unit
    unit = unit.removesuffix("s") if amount == "1" and unit.endswith("points") else unit
    return f"{amount} {unit} of {score.label}".replace("  ", " ")


def _meaning(methods: pd.DataFrame) -> str:
    first = methods.iloc[0]
    when = _when(first["t_inference_s"], "after")
    who = "the mean over chips loses"
    if not math.isnan(first["share"]):
        who = f"{100 * first['share']:g} % of the chips lose"
    others = "the other sources are off"
    if first["others"] == "nominal":
        others = "the other sources are as on the device"
    return (
        f"Largest scale of a noise source, relative to the device, at which {who} no more than "
        f"{_loss_text(methods)} {when}, since the digital network; {others}; converters, "
        f"bounds and compensation are as on the device.{_vary_text(methods)}"
    )


def _of_methods(methods: pd.DataFrame) -> str:
    per_cent = words.per_cent_of(methods)
    n_chips = words.range_text(methods["n_chips"].round())
    of_networks = f"{per_cent} interval (Student t over trained networks, on the log scale)"
    own = (
        f"{per_cent} interval of a network (sequential tests on its chips; of two networks the "
        "outer ends); these networks only"
    )
    is_own = (methods["level"] == "these networks only").to_numpy()
    which = own if is_own.all() else of_networks
    if is_own.any() and not is_own.all():
        which = f"{of_networks}, with fewer than three networks the {own}"
    n = words.range_text(methods["n_networks"])
    return (
        f"Geometric mean over networks and {which}. n = trained networks ({n}) × chips "
        f"per network, over all scales ({n_chips})."
    )


def _limits_text() -> str:
    low, high = _ENDS
    return (
        f"> and <: beyond; the scales searched are {_bound_text(low)} to {high:g}, and a network "
        "that may be beyond them counts with the last scale that was shown."
    )


def _falls_text(methods: pd.DataFrame) -> str:
    found = [
        f"{_source(row['source'])}, {words.method_text(row['name'])}: {row['falls']}"
        for _, row in methods.iterrows()
        if row["falls"]
    ]
    if not found:
        return (
            "Between no two of the scanned scales was the mean loss shown to fall (paired t tests)."
        )
    return (
        "The loss does not rise everywhere with the scale, so that the first crossing is given; it "
        f"was shown to fall from {'; '.join(found)}."
    )


def _ratios_text(ratios: pd.DataFrame, baseline: str, confidence: float) -> str:
    text = (
        f"Relative to {words.method_text(baseline)}: geometric mean over networks of one training "
        f"seed, paired, with its {100 * confidence:g} % interval."
    )
    n, p = ratios["p_value"].notna().sum(), f"p < {1 - confidence:.2g}"
    after = f" after Holm's correction over the {n} ratios of this table" if n > 1 else ""
    if ratios["significant"].any():
        text += f" {SIGNIFICANT} {p}{after}{'; the intervals are not corrected' if n > 1 else ''}."
    elif n:
        text += f" No ratio differs from 1 with {p}{after}."
    if (ratios["n_pairs"] < FEWEST_TESTED).any():
        text += f" Nothing is tested with fewer than {FEWEST_TESTED} pairs; a ratio of one or two "
        text += "has no interval."
    return text


def _skewed_text(methods: pd.DataFrame) -> str:
    found = methods[methods["coefficient_of_variation"] > _SKEWED]
    if found.empty or not methods["share"].isna().all():
        return ""
    return (
        "The chips' losses are skewed (their coefficient of variation is up to "
        f"{found['coefficient_of_variation'].max():.2g}: {_listed(found)}), and the lower end of a "
        "network's interval is then too high more often than stated: ask for a yield."
    )


def _missed_text(methods: pd.DataFrame) -> str:
    found = methods[methods["missed"].astype(bool)]
    if found.empty:
        return ""
    return (
        "Without the source itself, the other sources alone lose more than that (mean over the "
        f"first chips of a network): {_listed(found)}."
    )


def _listed(methods: pd.DataFrame) -> str:
    return "; ".join(
        f"{_source(row['source'])}, {words.method_text(row['name'])}"
        for _, row in methods.iterrows()
    )


def _vary_text(methods: pd.DataFrame) -> str:
    found = dict.fromkeys(filter(None, methods["chips_vary"]))
    return f" Scales vary between chips and arrays: {'; '.join(found)}." if found else ""
