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
from analog_samson.files import replacing
from analog_samson.report import words
from analog_samson.report.axes import finish, places
from analog_samson.report.captions import caption
from analog_samson.report.figures import panel_grid, save
from analog_samson.report.methods import described_in
from analog_samson.report.sensitivity import source_text
from analog_samson.report.style import line_width, marker_size, order, plot_options, style
from analog_samson.report.sweeps import mark_nominal
from analog_samson.report.typeset import BLANK, EXTRAPOLATED, Block, Table
from analog_samson.results.scores import score_of
from analog_samson.results.tolerance import (
    LIKE,
    SCAN,
    method_tolerances,
    scale_of,
    tolerance_ratios,
)

STEM = "requirements"

_ENDS = scale_of(SCAN[0]), scale_of(SCAN[-1])

_APART = 0.3
"""Distance of methods around a source, in rows."""

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
        ['requirements.md', 'requirements.csv', 'requirements.tex']
    """
    folder = Path(folder)
    with described_in([folder]):
        made, figure = requirements_table(rows, baseline), requirements_figure(rows, look=look)
    texts = {"md": made.markdown(), "csv": made.csv(), "tex": made.latex()}
    for ending, text in texts.items():
        with replacing(folder / f"{STEM}.{ending}") as temporary:
            temporary.write_text(text, encoding="utf-8")
    drawn = save(figure, folder / STEM)
    return [*(folder / f"{STEM}.{ending}" for ending in texts), *drawn]


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
        blocks.append(Block(title, cells, cells.map(lambda _: False)))
    parts = [_meaning(methods), _of_methods(methods), _limits_text()]
    if ratios["ratio"].notna().any():
        parts.append(
            f"Relative to {words.method_text(baseline)}: geometric mean over networks of one "
            "training seed, paired."
        )
    elif methods["name"].nunique() > 1 and baseline not in set(methods["method"]):
        parts.append(f"Not compared: no network was trained by {words.method_text(baseline)}.")
    parts.append(_falls_text(methods))
    plain = methods.assign(condition="{}")
    return Table(
        title=f"How good must the device be, to lose no more than {_loss_text(methods)}?",
        caption=caption(plain, (), [*parts, f"{BLANK} not defined."]),
        blocks=tuple(blocks),
        data=data.drop(columns=["name"]),
        label="tab:requirements",
    )


def requirements_figure(
    rows: pd.DataFrame, *, width: str | float = "one column", look: str = "paper"
) -> Figure:
    """Tolerated scale of every noise source by method, on a logarithmic axis.

    Large markers with intervals are methods, small ones their networks; a triangle points to where
    a tolerance is beyond the range searched.

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
    with style(look):
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
        note += f"line: the device as it is. {words.fixed_text(methods.assign(condition='{}'))}."
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
        single = networks[networks["name"] == name]
        for place, source in enumerate(sources):
            if source not in own.index:
                continue
            of_networks = single.loc[single["source"] == source, "factor"]
            pale = look | {"alpha": 0.55, "markersize": marker_size(0.5), "zorder": 3}
            if len(of_networks) > 1:
                below = np.full(len(of_networks), place + shift + _BELOW)
                ax.plot(of_networks, below, **pale)
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
        look = {**look, "marker": ">" if row["bound"] == "above" else "<"}
    elif not math.isnan(row["low"]):
        ends = [max(row["low"], _ENDS[0]), min(row["high"], _ENDS[1])]
        ax.plot(ends, [y, y], color=look["color"], lw=line_width(0.9), zorder=3.5)
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
        text = "1" if row["method"] == baseline else _between({**ratio, "bound": bound})
        line[f"relative to {words.method_text(baseline)}"] = text
    return line


def _when(t_inference_s: float, before: str) -> str:
    label = times.label(t_inference_s)
    return f"{before} {label}" if t_inference_s > 0 else f"as {label}"


def _between(row: "Mapping[str, Any] | pd.Series[Any]", factor: float = 1.0) -> str:
    """A factor and its interval: "1.62 (1.31 to 2)", "> 16", "< 1/16"; BLANK where unknown."""
    value = row["factor"]
    if row["bound"] == "both" or math.isnan(value):
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
    return BLANK if value == BLANK else f"{row['quantity']}: {value} {row['unit']}".rstrip()


def _number(value: float) -> str:
    """Three digits: "0.0489", "1.60", "16.0"."""
    return f"{value:#.3g}".removesuffix(".")


def _bound_text(value: float) -> str:
    """A round scale: 0.0625 -> "1/16", 2.0 -> "2"."""
    return f"1/{1 / value:.3g}" if 0 < value < 1 else f"{value:.3g}"


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
        "bounds and compensation are as on the device."
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
    return f"> and <: beyond the scales searched, {_bound_text(low)} to {high:g}."


def _falls_text(methods: pd.DataFrame) -> str:
    found = [
        f"{_source(row['source'])}, {words.method_text(row['name'])}: {row['falls']}"
        for _, row in methods.iterrows()
        if row["falls"]
    ]
    if not found:
        return "Between no two of the scanned scales does the mean loss fall (paired t tests)."
    return (
        "The loss does not rise everywhere with the scale, so that the first crossing is given; it "
        f"falls from {'; '.join(found)}."
    )
