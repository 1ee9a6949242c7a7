"""Which training method to choose: the map of methods and a table of advice, of several studies."""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

import pandas as pd
from matplotlib.figure import Figure

from analog_samson import times
from analog_samson.devices.toml import parse_toml
from analog_samson.methods import METHODS
from analog_samson.report import words
from analog_samson.report.methods import device_label, labelled, task_text, technology_of
from analog_samson.report.methods_map import (
    TIMES_S,
    compensation_label,
    gain_text,
    map_note,
    mean_text,
    methods_map,
    n_by_task,
    rows_of_map,
    sort_key,
)
from analog_samson.report.tables import mean_of
from analog_samson.report.typeset import BLANK, EXTRAPOLATED, Block, Table
from analog_samson.report.variants import short_labels, variant_labels
from analog_samson.results.checking import read_text_table
from analog_samson.results.comparison import baseline_name, method_names
from analog_samson.results.regret import (
    CELL,
    DRAWS,
    held_out_gains,
    network_gains,
    regret_of_choice,
    winners,
)
from analog_samson.results.scale import Scale, scales_of
from analog_samson.results.scores import Score, score_of, with_score_of
from analog_samson.results.variants import TASK, training_costs, variants_of, with_variants

NETWORKS_FILE = "networks.csv"
"""Trained networks of a study of methods: names of variants, and what they cost."""

CHEAP = 1.0
"""Cost, relative to the baseline, up to which a method is cheap."""

MEASURED = "measured times alone"
"""Column of choices without cells beyond the times to which devices were measured."""


@dataclass(frozen=True)
class Situation:
    """What somebody who trains a network knows of the hardware.

    Attributes:
        title: In words.
        technology: Technology of the cells; "" if it is not known.
        cells: Which cells of the map it includes, by their columns ``device``, ``compensation`` and
            ``condition``.
    """

    title: str
    technology: str
    cells: tuple[tuple[str, str, str], ...]

    def of(self, rows: pd.DataFrame) -> pd.DataFrame:
        """The rows of its cells."""
        keys = zip(rows["device"], rows["compensation"], rows["condition"], strict=True)
        return rows[[key in self.cells for key in keys]]


def study_advice(
    rows: pd.DataFrame,
    *,
    folders: Sequence[str | Path] = (),
    baseline: str = "sgd",
    confidence: float = 0.95,
    scale: Scale = "auto",
    times_s: Sequence[float] = TIMES_S,
    width: str | float = "two columns",
    look: str = "paper",
    labels: Mapping[str, str] = MappingProxyType({}),
) -> tuple[dict[str, Figure], dict[str, Table]]:
    """The map of methods over all tasks of some studies, as figure and table, and the advice.

    Args:
        rows: Rows of trials, of one or several tasks.
        folders: Folders of the studies; their ``networks.csv`` names variants and has their costs.
        baseline: Method that gains are counted from, by its variant ("sgd", "samson p=2").
        confidence: Probability with which intervals cover; tests use the rest.
        scale: Scale of means, gains and tests: "auto", "accuracy" or "logit".
        times_s: Times of the columns [s].
        width: "one column", "two columns" or inches.
        look: "paper", "talk" or the path of a style sheet (.mplstyle).
        labels: Names of methods, variants, devices, networks and data sets to labels.

    Returns:
        "methods_map" to its figure; "methods_map", of several tasks "methods_map_<data
        set>_<model>", to the table of each task, and "advice".

    Raises:
        ValueError: If there are no rows at these times, no baseline, or a file lacks columns.

    Example:
        >>> figures, tables = study_advice(rows, times_s=[3600.0])
        >>> tables["advice"].blocks[0].cells["situation"].tolist()
        ['no idea of the hardware', 'PCM, global compensation']
    """
    scales = scales_of(rows, scale)
    shown = rows_of_map(rows, times_s).drop(columns="column_s")
    variants = variants_of(rows, networks_beside(folders))
    shown = with_variants(shown, variants)
    tasks = list(shown[list(TASK)].drop_duplicates().itertuples(index=False, name=None))
    reference = baseline_name(shown, baseline)
    if set(method_names(shown)) == {reference}:
        raise ValueError(
            f"Only the method {reference!r} is there, and a map compares methods; give rows of "
            "another one."
        )
    best = winners(shown, reference, confidence, scale=scales)
    gains = network_gains(shown, reference, scale=scales)
    best = best.merge(held_out_gains(gains), on=CELL, how="left")
    costs = training_costs(variants, reference)
    with labelled(labels):
        names, short = variant_labels(variants), short_labels(variants)
        said = cost_texts(costs)
        note = ""
        if any(said.values()):
            note = f"1×, 2×: backward passes of a training, relative to {names[reference]}."
            note += uncounted_text(best["method"])
        figure = methods_map(
            best,
            names,
            short,
            said,
            note=note,
            tasks=tasks,
            times_s=times_s,
            width=width,
            look=look,
        )
        of_task = {
            _stem(task, tasks): best[(best[list(TASK)] == list(task)).all(axis=1)] for task in tasks
        }
        tables = {
            stem: replace(
                map_table(own, short, n_tested=int(best["is_tested"].sum())), label=f"tab:{stem}"
            )
            for stem, own in of_task.items()
            if len(own)
        }
        tables["advice"] = advice_table(gains, best, variants, costs, confidence)
    return {"methods_map": figure}, tables


def networks_beside(folders: Sequence[str | Path]) -> pd.DataFrame | None:
    """The trained networks of the studies that list them; None if none does.

    Backward passes of a fine-tuned network include those of the network that it starts from.

    Raises:
        ValueError: If a table is damaged.
    """
    files = [Path(folder) / NETWORKS_FILE for folder in folders]
    tables = [_with_starts(file) for file in files if file.is_file()]
    return pd.concat(tables, ignore_index=True) if tables else None


def _with_starts(file: Path) -> pd.DataFrame:
    networks = read_text_table(file)
    cost = "gradient_evaluations"
    if cost not in networks or "training_seed" not in networks:
        return networks
    networks[cost] = pd.to_numeric(networks[cost], errors="coerce")
    networks["digest"] = networks["digest"].replace("", None)
    protocol = file.with_name("protocol.toml")
    plan = parse_toml(protocol.read_bytes(), str(protocol)) if protocol.is_file() else {}
    spent = networks.groupby(["variant", "training_seed"])[cost].first()
    for variant, first in plan.get("start_from", {}).items():
        own = networks["variant"] == variant
        starts = [(first, seed) for seed in networks.loc[own, "training_seed"]]
        networks.loc[own, cost] += spent.reindex(starts).to_numpy()
    return networks


def cost_texts(costs: pd.DataFrame) -> dict[str, str]:
    """Names to costs in words, as "2×", "1 to 2×"; "" where it is not known."""
    found = {}
    for name, (_, row) in zip(method_names(costs), costs.iterrows(), strict=True):
        ends = pd.Series([row["cost_low"], row["cost_high"]]).astype(float).round(2)
        found[name] = "" if ends.isna().any() else f"{words.range_text(ends)}×"
    return found


def uncounted_text(methods: Iterable[str]) -> str:
    """A sentence on the passes that costs leave out, with a space before it; "" if there are none.

    Args:
        methods: Names of methods.
    """
    passes = [
        f"{entry.label}: {entry.extra_forward_passes} a step"
        for name, entry in METHODS.items()
        if name in set(methods) and entry.extra_forward_passes
    ]
    if not passes:
        return ""
    return f" Not counted: forward passes that no backward pass follows ({', '.join(passes)})."


def map_table(
    best: pd.DataFrame, labels: Mapping[str, str], *, n_tested: int | None = None
) -> Table:
    """The map of methods as a table: best method, gain, runner-up, a block for each task.

    Args:
        best: As `results.winners` gives, with ``gain_held_out``.
        labels: Names of variants to short labels.
        n_tested: Number of cells that the tests are corrected over; None: those of ``best``.

    Returns:
        The table, one line per device, compensation and time.
    """
    score, unit = score_of(best), score_of(best).difference(short=True)
    devices, names = best["device"].unique(), method_names(best)
    blocks = []
    for task, own in best.groupby(list(TASK), observed=True, sort=True):
        keys = own[["device", "compensation", "condition"]].itertuples(index=False, name=None)
        order = sorted(zip(keys, own["t_inference_s"], own.index, strict=True), key=_line_key)
        cells = []
        for (device, compensation, condition), time, at in order:
            row = own.loc[at]
            rival = labels[row["runner_up"]] if row["runner_up"] else BLANK
            late = EXTRAPOLATED if row["extrapolated"] else ""
            cells.append(
                {
                    "device": device_label(device, devices),
                    "compensation": compensation_label(compensation, condition),
                    "time": times.label(time) + late,
                    "best": labels[names[at]],
                    score.axis(): mean_text(row),
                    f"gain{unit}": gain_text(row).removesuffix(EXTRAPOLATED).replace("±", " ± "),
                    "held out": _shown(score, row["gain_held_out"]),
                    "next": rival,
                    f"ahead{unit}": _shown(score, row["margin"]),
                    "tied": str(row["n_tied"]) if row["is_tested"] else BLANK,
                }
            )
        text = pd.DataFrame(cells)
        bold = pd.DataFrame(False, text.index, text.columns)
        bold["best"] = [bool(best.loc[at, "is_decided"]) for *_, at in order]
        blocks.append(Block(f"{task_text(task)}, {own['n_methods'].max()} methods", text, bold))
    n = int(best["is_decided"].sum())
    parts = [
        f"Best of the methods in {len(best)} cells; in {n} it is significantly better than every "
        "other one (bold).",
        map_note(best, n_tested=n_tested)
        .replace("Colour: method", "Best: method")
        .replace("numbers:", "mean, gain:"),
        "Held out: gain of the method that is chosen without a network, on that network: the gain "
        "of the best is too large on average, since the best is chosen by the same data"
        f"{_bias_text(best, score)}. Next, ahead: the second best method, and the difference to "
        "it. Tied: other methods that are not significantly worse than the best (Holm over all "
        "pairs).",
    ]
    if calendar := words.calendar_text(best["t_inference_s"].unique()):
        parts.append(f"{calendar}.")
    return Table(
        title="The best training method by task, device, compensation and time",
        caption=" ".join(parts),
        blocks=tuple(blocks),
        data=best,
        label="tab:methods_map",
    )


def advice_table(
    gains: pd.DataFrame,
    best: pd.DataFrame,
    variants: pd.DataFrame,
    costs: pd.DataFrame,
    confidence: float = 0.95,
) -> Table:
    """Which method to choose, by what is known of the hardware: the smallest largest regret.

    Methods trained with the noise of a device of another technology than the one known are not
    chosen; the best of them is named apart.

    Args:
        gains: As `results.network_gains` gives, of all cells.
        best: As `results.winners` gives.
        variants: As `results.variants_of` gives.
        costs: As `results.training_costs` gives.
        confidence: Probability with which the intervals cover.

    Returns:
        The table, one line per situation; its data have all methods of every situation.
    """
    score, labels = score_of(gains), short_labels(variants)
    known = _devices_known(variants)
    costs_of = dict(zip(method_names(costs), costs["cost_high"], strict=True))
    texts = cost_texts(costs)
    baseline = labels[str(gains["baseline"].iloc[0])]
    lines, others_of, data = [], [], []
    is_any_late = bool(gains["extrapolated"].any())
    for situation in situations(gains):
        own = situation.of(gains)
        allowed = [
            name
            for name, device in known.items()
            if not device or technology_of(device) == situation.technology != ""
        ]
        ranked = regret_of_choice(own, allowed, confidence)
        others = [name for name in known if name not in allowed]
        apart = regret_of_choice(own, others, confidence)
        choice = ranked.iloc[0]
        cheap = ranked[[costs_of[name] <= CHEAP for name in ranked["name"]]]
        row = choice.to_dict() | {"spread": "own", "scale": ""}
        digits = score.decimals_of_gains(score.shown_gain(choice["mean_gain"]))
        is_baseline = choice["name"] == gains["baseline"].iloc[0]
        share = choice["chosen_share"]
        lines.append(
            {
                "situation": situation.title,
                "cells": str(choice["n_cells"]),
                "choose": labels[choice["name"]],
                "regret": _largest(score, choice),
                "mean": _regret(score, choice["mean_regret"]),
                "gain": BLANK
                if is_baseline
                else mean_of(
                    score, pd.Series(row), digits, "mean_gain", show=score.shown_gain, sign="+"
                ).removesuffix(" ± nan"),
                "cost": texts[choice["name"]] or BLANK,
                "again": BLANK if pd.isna(share) else f"{100 * share:.0f} %",
            }
        )
        same = "the same" if costs_of[choice["name"]] <= CHEAP else ""
        other = {
            "situation": situation.title,
            f"at {CHEAP:g}×": same or _with_regret(score, labels, cheap),
            "knows a device": _with_regret(score, labels, apart),
        }
        if is_any_late:
            early = own[~own["extrapolated"].astype(bool)]
            if len(early):  # the share of resamples with this choice is not shown
                early = regret_of_choice(early, allowed, confidence, draws=1)
            other[MEASURED] = _with_regret(score, labels, early)
        others_of.append(other)
        for frame, is_allowed in ((ranked, True), (apart, False)):
            part = frame.assign(situation=situation.title, is_eligible=is_allowed)
            data.append(part.assign(is_choice=is_allowed & (part["name"] == choice["name"])))
    found = pd.concat([part for part in data if len(part)], ignore_index=True)
    found["cost"] = found["name"].map(costs_of)
    found["device_known"] = found["name"].map(known)
    found["baseline"], found["confidence"] = gains["baseline"].iloc[0], confidence
    first = ["situation", "is_choice", "is_eligible"]
    found = found[[*first, *(name for name in found if name not in (*first, "name"))]]
    found = with_score_of(gains, found)
    return Table(
        title="Which training method to choose",
        caption=_advice_caption(score, best, variants, not_everywhere(gains), baseline, confidence),
        blocks=(
            Block.plain(n_by_task(best), lines),
            Block.plain(
                "Cheaper, with knowledge of a device, and by other cells: method and largest regret"
                if is_any_late
                else "Cheaper, and with knowledge of a device: method and largest regret",
                others_of,
            ),
        ),
        data=found,
        label="tab:advice",
    )


def situations(gains: pd.DataFrame) -> list[Situation]:
    """All hardware, also by its compensation, every technology by its, every device; none twice.

    Args:
        gains: Rows with ``device``, ``compensation`` and ``condition``.
    """
    kinds = gains[["device", "compensation", "condition"]].drop_duplicates()
    cells = sorted(kinds.itertuples(index=False, name=None), key=sort_key)
    found = [Situation("no idea of the hardware", "", tuple(cells))]
    for corrected in dict.fromkeys(cell[1:] for cell in sorted(cells, key=_compensation_key)):
        alike = tuple(cell for cell in cells if cell[1:] == corrected)
        if alike != found[0].cells and len({technology_of(cell[0]) for cell in alike}) > 1:
            title = ", ".join(["any hardware", *_compensation(*corrected)])
            found.append(Situation(title, "", alike))
    groups: dict[tuple[str, str, str], list[tuple[str, str, str]]] = {}
    for cell in sorted(cells, key=lambda one: (sort_key(one)[0], *_compensation_key(one))):
        groups.setdefault((technology_of(cell[0]) or cell[0], *cell[1:]), []).append(cell)
    for (technology, compensation, condition), own in groups.items():
        title = ", ".join([technology, *_compensation(compensation, condition)])
        found.append(Situation(title, technology_of(own[0][0]), tuple(own)))
    among = kinds["device"].unique()
    for device in dict.fromkeys(cell[0] for cell in cells):
        of_device = tuple(cell for cell in cells if cell[0] == device)
        if of_device not in [one.cells for one in found]:
            title = device_label(device, among)
            found.append(Situation(title, technology_of(device), of_device))
    return found


def _compensation_key(cell: tuple[str, str, str]) -> tuple[Any, ...]:
    """Order of compensations and conditions, of any device."""
    return sort_key(cell)[2:]


def not_everywhere(gains: pd.DataFrame) -> list[str]:
    """Names of the methods that were not run in every cell."""
    n = len(gains[CELL].drop_duplicates())
    runs = gains.assign(name=method_names(gains)).drop_duplicates([*CELL, "name"])
    counts = runs["name"].value_counts()
    return sorted(str(name) for name in counts.index[counts < n])


def _advice_caption(
    score: Score,
    best: pd.DataFrame,
    variants: pd.DataFrame,
    partial: Sequence[str],
    baseline: str,
    confidence: float,
) -> str:
    labels, full = short_labels(variants), variant_labels(variants)
    explained = [f"{labels[name]}: {text}" for name, text in full.items() if labels[name] != text]
    unit = score.difference_unit or score.unit
    is_one = (best["n_networks"] == 1).any()
    text = [
        f"Regrets and gains in {unit}. Regret: how far the mean {score.label} is behind that of "
        "the best of all methods in a cell (a task on a device with a compensation at a time). "
        "Choose: the method with the smallest largest regret over the cells of all tasks; mean: "
        "its mean regret. Regrets "
        f"include chance: those of equal methods are above 0. Gain: over {baseline}, mean over the "
        f"cells, ± half-width of its {100 * confidence:g} % interval (Student t over trained "
        "networks, simultaneous over the methods by Bonferroni, since the method is chosen by the "
        "same data).",
        f"Cost: backward passes of a training relative to {baseline}."
        f"{uncounted_text(variants['method'])} Again: share of {DRAWS:,} "
        "resamples of the trained networks with the same choice. "
        f"At {CHEAP:g}×: the best choice of this cost, with its largest regret. Knows a device: "
        "the best choice, with its largest regret, among the methods trained with the noise of a "
        "device that the situation does not name; it is apart, since what it knows may be wrong. "
        "Such methods of the situation's technology are among the others.",
    ]
    if is_one:
        text.append("No interval with one trained network.")
    if explained:
        text.append(f"{'; '.join(explained)}.")
    if partial:
        named = ", ".join(labels[name] for name in partial)
        text.append(f"Not run in every cell, and chosen only where all cells have them: {named}.")
    if typical := words.typical_text(best):
        text.append(typical)
    if best["extrapolated"].any():
        text.append(
            f"{EXTRAPOLATED} in a cell beyond the time to which its device was measured "
            f"(extrapolated); {MEASURED}: the choice without such cells."
        )
    return " ".join(text)


def _compensation(compensation: str, condition: str) -> list[str]:
    if condition == "{}":
        return [words.compensation_text(compensation)]
    return [compensation_label(compensation, condition)]


def _devices_known(variants: pd.DataFrame) -> dict[str, str]:
    names = method_names(variants.drop(columns="strength").rename(columns={"variant": "strength"}))
    return dict(zip(names, variants["device_known"], strict=True))


def _stem(task: tuple[str, str], tasks: Sequence[tuple[str, str]]) -> str:
    """File stem of the table of a task."""
    if len(tasks) == 1:
        return "methods_map"
    names = [re.sub(r"\W+", "_", "_".join((a.partition("@")[0], b))) for a, b in tasks]
    number = tasks.index(task)
    again = "" if names.count(names[number]) == 1 else f"_{number + 1}"
    return f"methods_map_{names[number]}{again}"


def _with_regret(score: Score, labels: Mapping[str, str], ranked: pd.DataFrame) -> str:
    if ranked.empty:
        return BLANK
    first = ranked.iloc[0]
    return f"{labels[first['name']]}: {_largest(score, first)}"


def _largest(score: Score, choice: pd.Series) -> str:
    """The largest regret of a choice, marked where it is extrapolated."""
    late = EXTRAPOLATED if choice["extrapolated"] else ""
    return _regret(score, choice["largest_regret"]) + late


def _regret(score: Score, value: float) -> str:
    shown = score.shown_loss(value)
    return f"{shown:z.{score.decimals_of_gains(shown)}f}"


def _shown(score: Score, value: Any) -> str:
    if pd.isna(value):
        return BLANK
    shown = score.shown_gain(float(value))
    return f"{shown:z.{score.decimals_of_gains(shown)}f}".replace("-", "−")


def _bias_text(best: pd.DataFrame, score: Score) -> str:
    pairs = best[["gain", "gain_held_out"]].dropna().astype(float)
    if pairs.empty:
        return ""
    excess = float((pairs["gain"] - pairs["gain_held_out"]).mean())
    unit = score.difference_unit or score.unit
    return f", here by {_shown(score, excess)} {unit} in the mean over the cells"


def _line_key(line: tuple[Any, ...]) -> tuple[Any, ...]:
    return (*sort_key(line[0]), line[1])
