"""The figures and tables of a report: one list, in the order in which its page shows them.

The page, the exported files, titles and captions all follow this list. A new figure or table is a
function of the report's `Content` and an `Item` here, or in another package, named
``package.module:name``.
"""

import functools
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

import pandas as pd
from matplotlib.figure import Figure

from analog_samson import results
from analog_samson.importing import import_named
from analog_samson.report import (
    cells,
    diagnostics,
    figures,
    findings,
    maps,
    networks,
    overlay,
    overview,
    sensitivity,
    sweeps,
    tables,
    words,
)
from analog_samson.report.content import Content
from analog_samson.report.style import among, style
from analog_samson.report.typeset import Table
from analog_samson.results.definitions import METHOD
from analog_samson.results.scores import ACCURACY, Score, score_of

FILES = (
    "trials.csv",
    "audit.csv",
    "waterfall.csv",
    "layers.csv",
    "sharpness.csv",
    "training_curves.csv",
    "conductances.csv",
    "clipping.csv",
)
"""Data of a study, which tables of a report may not overwrite (nor ``device_<name>.csv``)."""

MOST_CELLS = 100
"""Swept points above which a map takes the place of numbers in cells: our choice."""

Figures = Figure | Mapping[str, Figure] | None
Tables = Table | Mapping[str, Table] | None


@dataclass(frozen=True)
class Item:
    """A figure, a table, or both, under one heading of a report.

    Attributes:
        name: Stem of its files and anchor of its heading on the page; "accuracy" in it stands for
            the column of the score.
        title: Its heading on the page. In title and caption "{score}" stands for the label of the
            score, "{Score}" for the same at the beginning of a sentence, and "{is lost}" for what a
            lifetime ends with.
        figure: Function that draws it. Several figures are a mapping: each key is added to name
            and title (none, where it is empty). None, or an empty mapping, where there is nothing
            to draw.
        table: Function that makes its table, or several, as figures; None where there is nothing
            to show.
        caption: What the figure shows, in a sentence, printed below it. A function takes the
            content. Tables have their own captions.
        finding: The main number of its figures, in a sentence; with title and caption it is their
            alternative text.
        needs: Files beside ``trials.csv`` without which the item is left out ("waterfall.csv").

    Raises:
        ValueError: If the name cannot be a file name, a table would overwrite data of the study, or
            there is neither figure nor table.

    Example:
        >>> from matplotlib.figure import Figure
        >>> mine = Item("histogram", "Accuracy of all chips", figure=lambda content: Figure())
        >>> mine.name
        'histogram'
    """

    name: str
    title: str
    figure: Callable[[Content], Figures] | None = None
    table: Callable[[Content], Tables] | None = None
    caption: str | Callable[[Content], str] = ""
    finding: Callable[[Content], str] | None = None
    needs: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        """Check the name and that there is something to show."""
        if not re.fullmatch(r"[A-Za-z]\w*(-\w+)*", self.name, re.ASCII):
            raise ValueError(
                f"The name of an item is the stem of its files; got {self.name!r}: begin with a "
                "letter and use letters, digits, '_' and '-'."
            )
        if self.figure is None and self.table is None:
            raise ValueError(f"Item {self.name!r} shows nothing; give it a figure or a table.")
        is_data = f"{self.name}.csv" in (*FILES, *self.needs) or self.name.startswith("device_")
        if self.table is not None and is_data:
            raise ValueError(
                f"The table of item {self.name!r} would overwrite the file {self.name}.csv, which "
                "holds data of the study; give the item another name."
            )

    def figures(self, content: Content) -> dict[str, Figure]:
        """Draw the item in the report's style: file stem to figure; empty without data."""
        if self.figure is None or not self._applies(content):
            return {}
        with style(content.look), among(content.names.values()):
            drawn = self.figure(content)
        stem = self.stem(content.score)
        if isinstance(drawn, Figure):
            return {stem: drawn}
        if not isinstance(drawn, Mapping | None):
            raise ValueError(
                f"The figure of item {self.name!r} is a {type(drawn).__name__}; return a "
                "matplotlib Figure, a mapping of names to Figures, or None."
            )
        named = (drawn or {}).items()
        return {_stem(f"{stem}_{key}" if key else stem): figure for key, figure in named}

    def tables(self, content: Content) -> dict[str, Table]:
        """Make the item's table: file stem to table; empty without data."""
        made = self.table(content) if self.table and self._applies(content) else None
        stem = self.stem(content.score)
        named = {"": made} if isinstance(made, Table) else made or {}
        return {_stem(f"{stem}_{key}" if key else stem): one for key, one in named.items()}

    def stem(self, score: Score) -> str:
        """Stem of its files for a score."""
        return self.name.replace(ACCURACY.column, score.column)

    def title_of(self, stem: str, score: Score = ACCURACY) -> str:
        """Title of one of its figures."""
        key = stem.removeprefix(self.stem(score)).removeprefix("_")
        title = score.fill(self.title)
        return f"{title}: {key}" if key else title

    def caption_of(self, content: Content) -> str:
        """Caption of its figures."""
        if isinstance(self.caption, str):
            return content.score.fill(self.caption)
        return self.caption(content)

    def finding_of(self, content: Content) -> str:
        """Main number of its figures; "" where none is given."""
        return self.finding(content) if self.finding is not None else ""

    def _applies(self, content: Content) -> bool:
        return all(content.files(name) for name in self.needs)


def with_extra(extra_items: Iterable[Item | str] = ()) -> tuple[Item, ...]:
    """The items of every report, then extra items.

    Args:
        extra_items: Items, or their import names: ``package.module:name``.

    Returns:
        All of them, in the order of the page.

    Raises:
        ValueError: If one cannot be imported, is no `Item`, or has the name of another.

    Example:
        >>> mine = Item("histogram", "Accuracy of all chips", figure=lambda content: {})
        >>> [item.name for item in with_extra([mine])][-1]
        'histogram'
    """
    items = list(ITEMS)
    for given in extra_items:
        item = import_named(given, "report item") if isinstance(given, str) else given
        if not isinstance(item, Item):
            raise ValueError(
                f"The report item {given!r} is a {type(item).__name__}; give an "
                "analog_samson.report.Item(name, title, figure=..., caption=...)."
            )
        if item.name in {other.name for other in items}:
            raise ValueError(
                f"Two items of the report are called {item.name!r}, and their files would be, too; "
                "give the item another name."
            )
        items.append(item)
    return tuple(items)


def _stem(name: str) -> str:
    """A name with characters allowed in file names."""
    return re.sub(r"[^\w .+=,@()-]", "_", name)[:100]


def _in_few_panels(draw: Callable[[Content], Figure | None]) -> Callable[[Content], Figure | None]:
    """Draw only where there are at most `diagnostics.MAX_PANELS` panels."""

    @functools.wraps(draw)
    def drawn(content: Content) -> Figure | None:
        summary = content.summary
        panels = summary.groupby(["device", *words.varying(summary)], observed=True)
        return draw(content) if len(panels) <= diagnostics.MAX_PANELS else None

    return drawn


@_in_few_panels
def _accuracy(content: Content) -> Figure:
    return figures.accuracy_figure(content.summary, interval=content.interval, **content.over_time)


def _overlay(content: Content) -> Figure | None:
    if not content.overlay:
        return None
    return overlay.overlay_figure(
        content.laid_over, content.overlay, interval=content.interval, **content.over_time
    )


def _accuracy_table(content: Content) -> Table:
    return tables.table(content.summary, content.best)


@_in_few_panels
def _gain(content: Content) -> Figure | None:
    if content.gains.empty:
        return None
    return figures.gain_figure(content.gains, interval=content.interval, **content.over_time)


def _gain_table(content: Content) -> Table | None:
    if content.gains.empty:
        return None
    alone = sorted(set(content.rows["device"]) - set(content.gains["device"]))
    return tables.gain_table(content.gains, alone=alone)


@_in_few_panels
def _lost(content: Content) -> Figure:
    return figures.lost_figure(content.lost, interval=content.interval, **content.over_time)


def _lost_table(content: Content) -> Table:
    return tables.lost_table(content.lost)


@_in_few_panels
def _saved(content: Content) -> Figure | None:
    if content.saved.empty:
        return None
    return figures.gain_figure(content.saved, interval=content.interval, **content.over_time)


def _saved_table(content: Content) -> Table | None:
    return None if content.saved.empty else tables.gain_table(content.saved)


@_in_few_panels
def _yield(content: Content) -> Figure | None:
    if content.yields.empty:
        return None
    is_default = content.target is None
    return figures.yield_figure(
        content.chips, content.targets, is_default=is_default, **content.how
    )


def _yield_table(content: Content) -> Table | None:
    return None if content.yields.empty else tables.yield_table(content.yields)


@_in_few_panels
def _lifetime(content: Content) -> Figure | None:
    lives = findings.telling(content.lives)
    if lives.empty:
        return None
    return figures.lifetime_figure(lives, **content.how)


def _lifetime_table(content: Content) -> Table | None:
    return None if content.lives[0].empty else tables.lifetime_table(content.lives)


def _iso_table(content: Content) -> Table | None:
    is_defined = content.score.guessing is not None
    if not is_defined or content.datasets_without_classes or content.guessing:
        return None
    return tables.iso_table(
        results.iso_accuracy(
            content.chips,
            n_classes=content.known_classes,
            confidence=content.confidence,
            scale=content.scales,
        )
    )


@_in_few_panels
def _chips(content: Content) -> Figure | None:
    if content.ageing.empty:
        return None
    return figures.chips_figure(content.ageing, **content.over_time)


@_in_few_panels
def _strips(content: Content) -> Figure:
    return figures.strips_figure(content.chips, **content.how)


@_in_few_panels
def _scatter(content: Content) -> Figure:
    return figures.scatter_figure(content.networks, **content.how)


def _grid_table(content: Content) -> Table | None:
    return tables.grid_table(content.summary) if words.is_swept(content.summary) else None


def _axis(content: Content) -> Figures:
    grids = [grid for grid in sweeps.grids_of(content.summary) if len(grid.axes) == 1]
    axes = {grid.axes for grid in grids}
    if len(axes) != 1:  # several that are swept alone have the figure of sensitivities
        return None
    ((axis,),) = axes
    rows = content.summary
    if len(sweeps.swept_axes(rows)) > 1:  # others are crossed
        rows = pd.concat([grid.rows for grid in grids])
    known = {device: content.nominal(device, axis) for device in rows["device"].unique()}
    nominal = {device: value for device, value in known.items() if value is not None}
    return {axis: sweeps.axis_figure(rows, axis, nominal=nominal, **content.how)}


def _heat(content: Content) -> Figures:
    grids = [grid for grid in _crossed(content) if not _is_mapped(grid)]
    names = [grid.name for grid in grids]
    return {
        grid.name
        if names.count(grid.name) == 1
        else f"{grid.name}, {' and '.join(grid.axes)}": sweeps.heat_figure(
            grid.rows, *grid.axes, **content.how
        )
        for grid in grids
    }


def _crossed(content: Content) -> list[sweeps.Grid]:
    """Points over two axes or more."""
    return [grid for grid in sweeps.grids_of(content.summary) if len(grid.axes) > 1]


def _is_mapped(grid: sweeps.Grid) -> bool:
    """Whether there are too many swept points for numbers in cells."""
    return len(grid.axes) > 2 or grid.rows["condition"].nunique() > MOST_CELLS


def _mapped(content: Content) -> dict[str, pd.DataFrame]:
    """What is mapped: the axes, where there are several sets of them, to the rows over them."""
    found: dict[tuple[str, ...], list[pd.DataFrame]] = {}
    for grid in filter(_is_mapped, _crossed(content)):
        found.setdefault(grid.axes, []).append(grid.rows)
    rows = {" and ".join(axes): pd.concat(own).sort_index() for axes, own in found.items()}
    return {"": next(iter(rows.values()))} if len(rows) == 1 else rows


def _map(content: Content) -> Figures:
    """The last times that fit side by side; over three axes the last one."""
    return {
        ", ".join(filter(None, (key, over))): figure
        for over, rows in _mapped(content).items()
        for key, figure in _maps_of(content, rows).items()
    }


def _maps_of(content: Content, rows: pd.DataFrame) -> dict[str, Figure]:
    axes = maps.chosen_axes(rows)
    n_times = 1 if len(axes) > 2 else maps.MOST_ACROSS
    moments = sorted(rows["t_inference_s"].unique())
    n_panels = max(n_times, maps.MOST_ACROSS) * rows[["method", "strength"]].nunique().max()
    rows = rows[rows["t_inference_s"].isin(moments[-n_times:])]
    target = content.targets or None
    names = words.method_names(rows)
    parts = {"": rows} if n_panels <= maps.MOST_PANELS else dict(list(rows.groupby(names)))
    return {
        f"{key}, {words.method_text(name)}" if name else key: figure
        for name, part in parts.items()
        for key, figure in maps.map_figures(
            part, axes, target=target, manifests=content.manifests, **content.how
        ).items()
    }


def _map_table(content: Content) -> Tables:
    if not content.targets:
        return None
    return {
        over: maps.map_table(rows, maps.chosen_axes(rows), content.targets)
        for over, rows in _mapped(content).items()
    }


def _sensitivity(content: Content) -> Figure | None:
    found = {key: content.nominal(*key) for key in sensitivity.known_sources(content.summary)}
    nominal = {key: value for key, value in found.items() if isinstance(value, int | float)}
    late = figures.at_last_time(content.summary)
    rows = sensitivity.normalised(late, nominal)
    if rows["source"].nunique() < 2:  # one alone has its figure along the axis
        return None
    return sensitivity.sensitivity_figure(content.summary, nominal, **content.how)


def _overview_table(content: Content) -> Table | None:
    networks_ = content.summary[["dataset", "model"]].drop_duplicates()
    if len(networks_) < 2 or words.is_swept(content.summary):
        return None
    return overview.overview_table(content.summary, content.best)


def _of_tasks(
    content: Content, rows: pd.DataFrame, draw: Callable[[pd.DataFrame, str], Figure | None]
) -> Figures:
    """A figure of every data set and model; of one alone without its name."""
    found = {name: draw(own, name) for name, own in content.by_task(rows).items()}
    return {name: figure for name, figure in found.items() if figure is not None}


def _conductances(content: Content) -> Figures:
    def draw(counts: pd.DataFrame, task: str) -> Figure:
        return cells.conductances_figure(counts, content.names, task=task, **content.how)

    return _of_tasks(content, _cells(content), draw)


def _cells(content: Content) -> pd.DataFrame:
    return _of_the_study(content, content.beside("conductances.csv"))


def _clipping(content: Content) -> Figures:
    def draw(counts: pd.DataFrame, task: str) -> Figure:
        return cells.clipping_figure(counts, content.names, task=task, **content.how)

    return _of_tasks(content, _clipped(content), draw)


def _arrays(content: Content) -> Figures:
    def draw(counts: pd.DataFrame, task: str) -> Figure | None:
        if counts["array"].max() == 0:  # one array a layer: the figure by layer shows all
            return None
        return cells.arrays_figure(counts, content.names, task=task, **content.how)

    return _of_tasks(content, _clipped(content), draw)


def _clipped(content: Content) -> pd.DataFrame:
    return _of_the_study(content, content.beside("clipping.csv"))


def _planning_table(content: Content) -> Table | None:
    if content.half_width is None:
        return None
    plan = results.needed(content.rows, content.half_width, content.confidence)
    return tables.planning_table(plan, content.half_width)


def _waterfall(content: Content) -> Figures:
    def draw(stages: pd.DataFrame, task: str) -> Figure:
        same = diagnostics.are_chips_of(stages, content.chips)
        return diagnostics.waterfall_figure(
            stages, content.names, are_of_study=same, task=task, **content.how
        )

    return _of_tasks(content, _stages(content), draw)


def _layers(content: Content) -> Figures:
    def draw(layers: pd.DataFrame, task: str) -> Figure:
        return diagnostics.layers_figure(layers, content.names, task=task, **content.how)

    return _of_tasks(content, _layer_rows(content), draw)


def _stages(content: Content) -> pd.DataFrame:
    return _of_the_study(content, content.beside("waterfall.csv"))


def _layer_rows(content: Content) -> pd.DataFrame:
    return _of_the_study(content, content.beside("layers.csv"))


def _sharpness(content: Content) -> Figure | None:
    sharpness = content.beside("sharpness.csv")
    late = figures.at_last_time(content.networks)
    measured = late[late["checkpoint"].isin(sharpness["checkpoint"])]
    if measured.empty:
        return None
    return networks.sharpness_figure(measured, sharpness, **content.how)


def _training(content: Content) -> Figures:
    def draw(curves: pd.DataFrame, task: str) -> Figure:
        return networks.training_figure(curves, content.baseline, task=task, **content.how)

    return _of_tasks(content, _curves(content), draw)


def _curves(content: Content) -> pd.DataFrame:
    curves = content.beside("training_curves.csv")
    curves = curves.assign(strength=curves["strength"].astype(object).fillna(""))
    if "checkpoint" not in curves:  # of earlier versions
        curves = _with_networks(content, curves)
    if "checkpoint" not in curves:
        called = words.method_names(curves)
        return _known(curves, called.isin(set(content.names.values())))
    # tables of earlier versions lack settings of the strength
    strengths = dict(zip(content.chips["checkpoint"], content.chips["strength"], strict=True))
    curves = _known(curves, curves["checkpoint"].isin(strengths))
    strength = curves["checkpoint"].map(strengths).fillna(curves["strength"])
    return curves.assign(strength=strength)


def _with_networks(content: Content, curves: pd.DataFrame) -> pd.DataFrame:
    """Curves that name no network, on a page of several tasks: those that one network can have."""
    if len(set(content.tasks.values())) < 2:
        return curves
    keys = [*METHOD, "training_seed"]
    known = content.chips[[*keys, "checkpoint"]].drop_duplicates()
    alone = known[~known.duplicated(keys, keep=False)]
    return curves.merge(alone, on=keys)


def _of_the_study(content: Content, rows: pd.DataFrame) -> pd.DataFrame:
    known = _known(rows, rows["checkpoint"].isin(content.names))
    if "extrapolated" not in known:  # of earlier versions
        late = content.rows[content.rows["extrapolated"]]
        first = late.groupby("device", observed=True)["t_inference_s"].min()
        known = known.assign(extrapolated=known["t_inference_s"] >= known["device"].map(first))
    if "score" not in known:
        return known
    score = score_of(known)
    if score.function and score.function == content.score.function:  # the same, shown as the rows
        return known.assign(score=content.score.name)
    return known


def _known(rows: pd.DataFrame, is_known: "pd.Series[bool]") -> pd.DataFrame:
    """The rows of networks of the study; all where it has none of them."""
    return rows[is_known] if is_known.any() else rows


ITEMS = (
    Item(
        "accuracy",
        "{Score} over time",
        _accuracy,
        _accuracy_table,
        "The {score} of each method against the time since programming, with its "
        "interval; one panel for each device.",
        findings.accuracy,
    ),
    Item("overview", "Every network and data set", table=_overview_table),
    Item(
        "overlay",
        "{Score} over time on one axes",
        _overlay,
        caption="The {score} against the time since programming, with its interval; a line for "
        "each method and each of the settings that are laid over each other.",
        finding=findings.accuracy,
    ),
    Item(
        "gain",
        "Gain over the baseline, on the same chips",
        _gain,
        _gain_table,
        "Difference of {score} to the baseline on the same chips, with its interval, "
        "against the time since programming; one panel for each device.",
        findings.gain,
    ),
    Item(
        "lost",
        "{Score} lost since the digital network",
        _lost,
        _lost_table,
        "{Score} that each method has lost since its digital networks, with its "
        "interval, against the time since programming; one panel for each device.",
        findings.lost,
    ),
    Item(
        "saved",
        "{Score} lost less than by the baseline",
        _saved,
        _saved_table,
        "How much less {score} each method loses since its digital networks than the "
        "baseline, on the same chips, with its interval; one panel for each device.",
        findings.saved,
    ),
    Item(
        "yield",
        "Yield: share of chips that reach a target",
        _yield,
        _yield_table,
        "Fraction of chips that reach a given {score} at the last simulated time, a curve for "
        "each method; one panel for each device.",
        findings.yields,
    ),
    Item(
        "lifetime",
        "Lifetime",
        _lifetime,
        _lifetime_table,
        "Time until {is lost}, with its interval, for each method; one panel for each device.",
        findings.lifetime,
    ),
    Item("iso_accuracy", "Normalised {score}", table=_iso_table),
    Item(
        "chips",
        "Every chip over time",
        _chips,
        caption="{Score} of each chip and their mean against the time since "
        "programming; one panel for each device and method.",
        finding=findings.chips,
    ),
    Item(
        "strips",
        "Every chip at the last time",
        _strips,
        caption="{Score} of each chip at the last simulated time, by method and "
        "trained network; one panel for each device.",
        finding=findings.chips,
    ),
    Item(
        "scatter",
        "Digital {score} against {score} at the last time",
        _scatter,
        caption="{Score} of each trained network at the last simulated time, mean "
        "and spread of its chips, against its digital {score}.",
        finding=findings.scatter,
    ),
    Item("grid", "Swept axes", table=_grid_table),
    Item(
        "axis",
        "Along the swept axis",
        _axis,
        caption="The {score} of each method at the last simulated time against the "
        "swept setting, with its interval; one panel for each device.",
        finding=findings.accuracy,
    ),
    Item(
        "sensitivity",
        "Sensitivity to every noise source",
        _sensitivity,
        caption="The {score} at the last simulated time, with its interval, against the size of "
        "each noise source relative to the device; one panel for each method.",
        finding=findings.sensitivity,
    ),
    Item(
        "heat",
        "Over both swept axes",
        _heat,
        caption="The {score} at the last simulated time for all values of the two swept "
        "settings; one panel for each method.",
        finding=findings.accuracy,
    ),
    Item(
        "map",
        "Maps over the swept axes",
        _map,
        _map_table,
        "The {score} over two swept settings, with contour lines; one row of panels for each "
        "method, one column for each time or value of a third setting. Hatched: the interval "
        "contains the target; faded and dotted: the target is missed.",
    ),
    Item("planning", "How many more chips or networks", table=_planning_table),
    Item(
        "waterfall",
        "Where {score} is lost, stage by stage",
        _waterfall,
        caption="Mean {score} of the chips as each cause of error is added to those "
        "before it, with the standard deviation over chips.",
        finding=lambda content: findings.stages(content, _stages(content)),
        needs=("waterfall.csv",),
    ),
    Item(
        "layers",
        "One layer analog at a time",
        _layers,
        caption="{Score} lost where one layer alone is analog, mean and standard "
        "deviation over chips, in the order of the network.",
        finding=lambda content: findings.layers(content, _layer_rows(content)),
        needs=("layers.csv",),
    ),
    Item(
        "conductances",
        "Conductances before and after",
        _conductances,
        caption="Number of cells by conductance: targets, as programmed, and as read after a time; "
        "and conductances against their targets.",
        finding=lambda content: findings.conductances(content, _cells(content)),
        needs=("conductances.csv",),
    ),
    Item(
        "clipping",
        "Clipped inputs and saturated outputs by layer",
        _clipping,
        caption="Share of inputs beyond the range of the DAC and of outputs at the ends of the "
        "ADC, for each layer, mean and standard deviation over chips.",
        finding=lambda content: findings.clipping(content, _clipped(content)),
        needs=("clipping.csv",),
    ),
    Item(
        "arrays",
        "Saturated outputs by array",
        _arrays,
        caption="Share of outputs at the ends of the ADC for each array of each layer, mean over "
        "chips.",
        finding=lambda content: findings.clipping(content, _clipped(content)),
        needs=("clipping.csv",),
    ),
    Item(
        "sharpness",
        "Sharpness against robustness",
        _sharpness,
        caption="{Score} that the chips of each trained network lose at the last "
        "simulated time against the sharpness of its minimum.",
        finding=findings.sharpness,
        needs=("sharpness.csv",),
    ),
    Item(
        "training",
        "How the networks were trained",
        _training,
        caption="Training loss, relative size of the perturbation and gradient norm against the "
        "epoch; one line for each training, or the median of more than three.",
        finding=lambda content: findings.training(content, _curves(content)),
        needs=("training_curves.csv",),
    ),
)
"""Figures and tables of every report."""
