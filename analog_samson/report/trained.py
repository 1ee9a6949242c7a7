"""The methods of a finished study: their networks, and chips on training and on test images."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from analog_samson import times
from analog_samson.report import words
from analog_samson.report.advice import cost_texts, networks_beside, uncounted_text
from analog_samson.report.axes import beside, finish, fit_scale
from analog_samson.report.estimates import INTERVALS, Estimate
from analog_samson.report.figures import panel_grid
from analog_samson.report.methods import device_label, task_text
from analog_samson.report.style import (
    by_strengths,
    is_wide,
    line_width,
    order,
    plot_options,
    strength_options,
    style,
)
from analog_samson.report.sweeps import swept_axes, with_axis
from analog_samson.report.typeset import BLANK, Block, Table
from analog_samson.report.variants import variant_labels
from analog_samson.results.comparison import method_names
from analog_samson.results.definitions import COMPARED_UNDER, METHOD
from analog_samson.results.measures import TRAINING_IMAGES, Evidence, IncompleteError
from analog_samson.results.scores import ACCURACY, score_of
from analog_samson.results.subsets import digital_score
from analog_samson.results.summary import chip_means
from analog_samson.results.variants import TASK, training_costs, variants_of, with_variants

SHARPNESS = {
    "average_sharpness": "average",
    "sam_sharpness": "SAM",
    "adaptive_sharpness": "adaptive",
    "hessian_eigenvalue": "Hessian",
}
"""Columns of ``sharpness.csv`` that the table of networks has, and their heads."""

_GAP = "gap"


def networks_table(evidence: Evidence, baseline: str = "sgd") -> Table:
    """Strength, digital accuracy, sharpness and cost of every method of a study.

    Args:
        evidence: The tables of the finished study.
        baseline: Method that the cost is relative to.

    Returns:
        The table, one line per method and strength; accuracies are means over networks, values of
        sharpness geometric means, both with Student t intervals.

    Raises:
        IncompleteError: If a network has no sharpness.
    """
    first = evidence.rows.drop_duplicates("checkpoint")
    measured = evidence.table("sharpness.csv", None, {})
    _check_all(first, measured, "sharpness.csv")
    for name in SHARPNESS:
        measured[name] = pd.to_numeric(measured[name])
    own = first[["checkpoint", *TASK, *METHOD]].assign(digital=digital_score(first))
    own = own.merge(measured[["checkpoint", *SHARPNESS]], on="checkpoint", validate="one_to_one")
    score, variants = score_of(first), _variants(evidence)
    own["name"] = method_names(with_variants(own, variants))
    labels, costs = variant_labels(variants), training_costs(variants, baseline)
    cost_of = dict(zip(method_names(costs), costs["cost"].astype(float), strict=True))
    cost_shown = cost_texts(costs)
    head = f"digital [{score.unit}]" if score.unit else f"digital {score.label}"
    decimals = score.decimals_for(score.shown(own["digital"]))
    lines, data = [], []
    for name in sorted(set(own["name"]), key=order):
        rows = own[own["name"] == name]
        method, strength = rows["method"].iloc[0], rows["strength"].iloc[0]
        found = {"digital": Estimate.of(rows["digital"])}
        found |= {column: Estimate.of(rows[column], geometric=True) for column in SHARPNESS}
        lines.append(
            {
                "method": labels[name],
                "strength": BLANK if strength in name else _strength_text(method, strength),
                "n": str(len(rows)),
                head: found["digital"].text(f"{{:.{decimals}f}}", score.shown),
            }
            | {shown: found[column].text("{:.2g}") for column, shown in SHARPNESS.items()}
            | {"cost": cost_shown[name] or BLANK}
        )
        numbers = {"method": method, "strength": strength, "n_networks": len(rows)}
        data.append(numbers | _columns(found) | {"cost": cost_of[name]})
    settings = {
        name: f"{float(measured[name].iloc[0]):g}" for name in ("sigma", "rho_sam", "rho_adaptive")
    }
    averaged = ""
    if score.is_exponential:
        averaged = f" {score.capitalised} is averaged as {score.averaged_label}."
    caption = (
        f"n: trained networks. Means, of sharpness geometric means, with {INTERVALS}. Digital: "
        f"{score.label} on the test samples without analog noise.{averaged} Sharpness, rise of the "
        f"cross entropy [nat] on {int(measured['n_training_images'].iloc[0]):,} training samples: "
        f"average, under noise of {settings['sigma']} of the largest weight; SAM, within radius "
        f"{settings['rho_sam']}; adaptive, within radius {settings['rho_adaptive']} relative to "
        "every weight; Hessian: its largest eigenvalue. "
        f"Cost: backward passes of a training relative to {baseline}."
        f"{uncounted_text(own['method'])}"
    )
    block = Block.plain(task_text(own[list(TASK)].iloc[0].tolist()), lines)
    return Table("Trained networks", caption, (block,), pd.DataFrame(data), "tab:methods")


def noisy_accuracies(evidence: Evidence) -> pd.DataFrame:
    """Mean accuracies of each network's chips on training images and on test images.

    Returns:
        One row per network, device, condition and time: ``training``, ``test``, ``gap`` (their
        difference), ``n_chips``, ``name`` (the variant). Chips that have answered test images alone
        are left out.

    Raises:
        IncompleteError: If chips of a network have not answered training images.
    """
    images = evidence.training_images()
    _check_all(evidence.networks, images, TRAINING_IMAGES)
    chips = chip_means(evidence.rows).rename(columns={"accuracy": "test"})
    key = ["checkpoint", "chip_id", "t_inference_s"]
    both = chips.merge(images, on=key, validate="one_to_one")
    both[_GAP] = both["training"] - both["test"]
    keys = [*COMPARED_UNDER, *METHOD, "training_seed", "n_test", "n_images_per_chip"]
    grouped = both.groupby(keys, observed=True, sort=False)
    found = grouped[["training", "test", _GAP]].mean()
    found = found.assign(n_chips=grouped["chip"].nunique()).reset_index()
    found["name"] = method_names(with_variants(found, _variants(evidence)))
    return found


def noisy_gap_table(evidence: Evidence, baseline: str = "sgd") -> Table:
    """Accuracy of noisy networks on training and on test images, and the gap between them.

    Args:
        evidence: The tables of the finished study, with ``training_images.csv``.
        baseline: Method that gaps are compared with, paired by training seed.

    Returns:
        The table, a block for every setting, one line per method and strength.

    Raises:
        IncompleteError: If chips of a network have not answered training images.
    """
    found = noisy_accuracies(evidence)
    labels = variant_labels(_variants(evidence))
    columns, devices = words.varying(found), list(found["device"].unique())
    are_times = found["t_inference_s"].nunique() > 1
    blocks, data = [], []
    for _, rows in sorted(found.groupby(list(COMPARED_UNDER)), key=_by_setting):
        gaps = rows[rows["name"] == baseline].set_index("training_seed")[_GAP]
        lines = []
        for name in sorted(set(rows["name"]), key=order):
            own = rows[rows["name"] == name]
            over = (own.set_index("training_seed")[_GAP] - gaps).dropna()
            means = {column: Estimate.of(own[column]) for column in ("training", "test", _GAP)}
            means["gap_over"] = Estimate.of(over)
            line = {
                "method": labels[name],
                "n": str(len(own)),
                "training [%]": means["training"].text("{:.2f}", 100),
                "test [%]": means["test"].text("{:.2f}", 100),
                "gap": means[_GAP].text("{:+z.2f}", 100),
            }
            if baseline in labels:
                compared = means["gap_over"].text("{:+z.2f}", 100)
                line[f"gap − {labels[baseline]}"] = BLANK if name == baseline else compared
            lines.append(line)
            settings = own[[*COMPARED_UNDER, *METHOD]].iloc[0].to_dict()
            counts = {"n_networks": len(own), "n_pairs": len(over), "n_chips": own["n_chips"].min()}
            data.append(settings | counts | _columns(means))
        title = words.group_title(rows.iloc[0], columns, devices)
        moment = f", {times.label(rows['t_inference_s'].iloc[0])}" if are_times else ""
        blocks.append(Block.plain(title + moment, lines))
    table = pd.DataFrame(data)
    pairs = " (where both have it)" if (table["n_pairs"] < table["n_networks"]).any() else ""
    caption = (
        f"{words.fixed_text(found)}. The same chips on training images (not augmented) and on test "
        f"images, {words.range_text(found['n_chips'])} chips a network; gap: their difference in "
        f"points; the last column: paired by training seed{pairs}. Means with {INTERVALS}."
    )
    title = "Accuracy of noisy networks on training and on test images"
    return Table(title, caption, tuple(blocks), table, "tab:noisy-gap")


def noisy_gap_figure(
    evidence: Evidence,
    baseline: str = "sgd",
    *,
    width: str | float = "two columns",
    look: str = "paper",
) -> Figure | None:
    """Accuracy on test images, and the gap to training images, against the size of the noise.

    A pair of panels for every method with several strengths, and one for all that have one, each
    with the baseline.

    Args:
        evidence: The tables of the finished study, with ``training_images.csv``.
        baseline: Method that stands in every panel.
        width: "one column", "two columns" or inches.
        look: "paper", "talk" or the path of a style sheet (.mplstyle).

    Returns:
        The figure; None where there is not one swept axis of numbers, or other settings vary.

    Raises:
        IncompleteError: If chips of a network have not answered training images.
    """
    found = noisy_accuracies(evidence)
    axes_ = swept_axes(found)
    others = found[[name for name in COMPARED_UNDER if name != "condition"]].drop_duplicates()
    if len(axes_) != 1 or len(others) > 1:
        return None
    (axis,) = axes_
    found = with_axis(found, [axis])
    if not pd.api.types.is_numeric_dtype(found[axis]):
        return None
    variants = _variants(evidence)
    labels = variant_labels(variants)
    variant_of = _variants_by_name(evidence, variants)
    recipes = {name: variant_of[name] for name in found["name"]}
    strengths, single = by_strengths(recipes, baseline, 2)
    groups = [*strengths, single] if single else strengths
    handles: dict[str, Line2D] = {}
    with style(look):
        figure, panels = panel_grid(
            2 * len(groups),
            width,
            look,
            aspect=0.62,
            share_y=False,
            across=2 if is_wide(width, look) else 1,
        )
        for k, names in enumerate(groups):
            options = {name: plot_options(name, found["name"].unique()) for name in names}
            if k < len(strengths):
                options |= strength_options([name for name in names if name != baseline])
            for ax, column in zip(panels[2 * k : 2 * k + 2], ("test", _GAP), strict=True):
                drawn = _against_noise(ax, found, axis, column, options)
            shown = {labels[name]: handle for name, handle in drawn.items()}
            if strengths:
                beside(panels[2 * k + is_wide(width, look)], shown)
            else:
                handles = shown
        seeds = found.groupby("name")["training_seed"].nunique()
        counts = pd.DataFrame(
            {"n_networks": seeds, "n_chips": found.groupby("name")["n_chips"].min()}
        ).assign(n_chips_max=found.groupby("name")["n_chips"].max())
        note = (
            f"n = {words.n_text(counts)}{f', {INTERVALS}' if seeds.max() > 1 else ''}. "
            f"{words.fixed_text(found)}. "
            "Gap: accuracy on training images minus that on test images, the same chips."
        )
        finish(figure, handles, note, are_methods=False)
    return figure


def _variants_by_name(evidence: Evidence, variants: pd.DataFrame) -> dict[str, str]:
    """Names of methods with strength, to the variant of the protocol that each belongs to."""
    of_checkpoint = evidence.networks.set_index("checkpoint")["variant"]
    first = evidence.rows.drop_duplicates("checkpoint")
    called = method_names(with_variants(first, variants))
    return dict(zip(called, first["checkpoint"].map(of_checkpoint), strict=True))


def _against_noise(
    ax: Axes,
    rows: pd.DataFrame,
    axis: str,
    column: str,
    options_of: Mapping[str, Mapping[str, Any]],
) -> dict[str, Line2D]:
    """Draw one line per name; return names to handles."""
    handles = {}
    for name, options in options_of.items():
        groups = rows[rows["name"] == name].groupby(axis)[column]
        sizes = [float(str(size)) for size, _ in groups]
        means, low, high = (100 * np.array([Estimate.of(own) for _, own in groups])).T
        if column == "test":
            low, high = low.clip(min=0.0), high.clip(max=100.0)
        bars = {"fmt": "none", "ecolor": options["color"], "elinewidth": line_width(0.7)}
        ax.errorbar(sizes, means, [means - low, high - means], zorder=3, **bars)
        ax.plot(sizes, means, zorder=4, **options)
        handles[name] = Line2D([], [], **options)
    ax.set_xlabel(f"{words.axis_name(axis)} of {device_label(rows['device'].iloc[0], [])}")
    ax.set_ylabel("gap [points]" if column == _GAP else "accuracy on test images [%]")
    if column == "test":
        fit_scale(ax, ACCURACY, 100 * rows[column])
    return handles


def _variants(evidence: Evidence) -> pd.DataFrame:
    return variants_of(evidence.rows, networks_beside([evidence.folder]))


def _check_all(networks: pd.DataFrame, measured: pd.DataFrame, file: str) -> None:
    """Refuse a table that lacks networks."""
    if missing := set(networks["checkpoint"]) - set(measured["checkpoint"]):
        raise IncompleteError(f"{len(missing)} networks are not in {file}")


def _columns(found: Mapping[str, Estimate]) -> dict[str, float]:
    """Numbers of a line: each mean with its ends."""
    return {name: value for key, one in found.items() for name, value in one.columns(key).items()}


def _by_setting(group: tuple[Any, pd.DataFrame]) -> tuple[Any, ...]:
    """Sort key of a setting: conditions by their numbers."""
    row = group[1].iloc[0]
    names = [name for name in COMPARED_UNDER if name not in ("condition", "t_inference_s")]
    settings = [str(row[name]) for name in names]
    return *settings, words.by_number(row["condition"]), row["t_inference_s"]


def _strength_text(method: str, strength: str) -> str:
    """The tuned value of a strength, its first one: ρ = 0.1; a blank where there is none."""
    first = strength.split(" ")[0]
    if "=" not in first:
        return BLANK
    shown = words.method_text(f"{method} {first}").removeprefix(words.method_text(method))
    return shown.strip() or BLANK
