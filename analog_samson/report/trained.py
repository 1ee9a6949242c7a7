"""The methods of a finished study: their networks, and chips on training and on test images."""

import itertools
from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from analog_samson.report import words
from analog_samson.report.advice import networks_beside
from analog_samson.report.axes import finish, fit_scale
from analog_samson.report.estimates import Estimate
from analog_samson.report.figures import panel_grid
from analog_samson.report.methods import device_label
from analog_samson.report.methods_map import task_text
from analog_samson.report.style import is_wide, line_width, order, plot_options, style
from analog_samson.report.sweeps import swept_axes, with_axis
from analog_samson.report.typeset import BLANK, Block, Table
from analog_samson.report.variants import variant_labels
from analog_samson.results.comparison import method_names
from analog_samson.results.endpoints import CONFIDENCE, TRAINING_IMAGES, Evidence
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

    Example:
        >>> networks_table(evidence).blocks[0].cells["method"].tolist()
        ['SGD', 'SAM']
    """
    keys = ["checkpoint", *TASK, "method", "strength", "training_seed"]
    first = evidence.rows.drop_duplicates("checkpoint")
    own, score = first[keys].assign(digital=digital_score(first)), score_of(first)
    measured = evidence.table("sharpness.csv", None, {})
    for name in SHARPNESS:
        measured[name] = pd.to_numeric(measured[name])
    own = own.merge(measured[["checkpoint", *SHARPNESS]], on="checkpoint", validate="one_to_one")
    variants = _variants(evidence)
    labels = variant_labels(variants)
    own.insert(0, "name", method_names(with_variants(own, variants)))
    costs = training_costs(variants, baseline)
    cost_of = dict(zip(method_names(costs), costs["cost"].astype(float), strict=True))
    task = task_text(own[list(TASK)].iloc[0].tolist())
    head_of_score = f"digital [{score.unit}]" if score.unit else f"digital {score.label}"
    decimals = score.decimals_for(score.shown(own["digital"]))
    lines, data = [], []
    for name in sorted(own["name"].unique(), key=order):
        rows = own[own["name"] == name]
        setting = rows["strength"].iloc[0]
        found: dict[str, Any] = {
            "method": rows["method"].iloc[0], "strength": setting, "n_networks": len(rows)
        }  # fmt: skip
        digital = Estimate.of(rows["digital"])
        found |= digital.columns("digital")
        line = {
            "method": labels[name],
            "strength": setting.split(" ")[0] if "=" in setting else BLANK,
            "n": str(len(rows)),
            head_of_score: digital.text(f"{{:.{decimals}f}}", score.shown),
        }
        for column, head_ in SHARPNESS.items():
            sharp = Estimate.of(rows[column], geometric=True)
            found |= sharp.columns(column)
            line[head_] = sharp.text("{:.2g}")
        found["cost"] = cost_of[name]
        line["cost"] = BLANK if np.isnan(found["cost"]) else f"{found['cost']:.3g}×"
        lines.append(line)
        data.append(found)
    n_images = measured["n_training_images"].iloc[0]
    settings = {name: f"{float(measured[name].iloc[0]):g}" for name in ("sigma", "rho_sam",
                                                                      "rho_adaptive")}  # fmt: skip
    caption = (
        f"{task}. n: trained networks. Digital: {score.label} on the test "
        "samples without analog noise, mean ± half-width of the "
        f"{100 * CONFIDENCE:g} % interval over networks (Student t). Sharpness, rise of the cross "
        f"entropy [nat] on {int(n_images):,} training samples, geometric means with intervals: "
        f"average, under noise of {settings['sigma']} of the largest weight; SAM, within radius "
        f"{settings['rho_sam']}; adaptive, within radius {settings['rho_adaptive']} relative to "
        "every weight; Hessian: its largest eigenvalue. "
        f"Cost: backward passes of a training relative to {baseline}."
    )
    block = Block.plain(task, lines)
    return Table("Trained networks", caption, (block,), pd.DataFrame(data), "tab:methods")


def noisy_accuracies(evidence: Evidence) -> pd.DataFrame:
    """Mean accuracies of each network's chips on training images and on test images.

    Returns:
        One row per network, device and condition: ``training``, ``test``, ``gap`` (their
        difference), ``n_chips``. Chips that have answered test images alone are left out.
    """
    images = evidence.table(TRAINING_IMAGES, None, {})
    chips = chip_means(evidence.rows)
    images = images.assign(
        t_inference_s=pd.to_numeric(images["t_inference_s"]),
        training=pd.to_numeric(images["n_correct_training"])
        / pd.to_numeric(images["n_training_images"]),
    )
    kept = ["chip_id", "t_inference_s", "training"]
    both = chips.merge(images[kept], on=kept[:2], validate="one_to_one")
    both[_GAP] = both["training"] - both["accuracy"]
    keys = [*TASK, "method", "strength", "training_seed", "device", "condition"]
    both = both.rename(columns={"accuracy": "test"})
    grouped = both.groupby(keys, observed=True, sort=False)
    found = grouped[["training", "test", _GAP]].mean().assign(n_chips=grouped.size()).reset_index()
    found["name"] = method_names(found)
    return found


def noisy_gap_table(evidence: Evidence, baseline: str = "sgd") -> Table:
    """Accuracy of noisy networks on training and on test images, and the gap between them.

    Args:
        evidence: The tables of the finished study, with ``training_images.csv``.
        baseline: Method that gaps are compared with, paired by training seed.

    Returns:
        The table, one block per device and condition, one line per method and strength.
    """
    found = noisy_accuracies(evidence)
    labels = _labels(evidence)
    devices, blocks, data = list(found["device"].unique()), [], []
    for (device, condition), rows in found.groupby(["device", "condition"], sort=False):
        own_gap = rows[rows["name"] == baseline].set_index("training_seed")[_GAP]
        lines = []
        for name in (name for name in labels if (rows["name"] == name).any()):
            own = rows[rows["name"] == name]
            line: dict[str, Any] = {
                "device": device, "condition": condition, "method": own["method"].iloc[0],
                "strength": own["strength"].iloc[0], "n_networks": len(own),
                "n_chips": own["n_chips"].min(),
            }  # fmt: skip
            over = (own.set_index("training_seed")[_GAP] - own_gap).dropna()
            found_of = {column: Estimate.of(own[column]) for column in ("training", "test", _GAP)}
            found_of["gap_over"] = Estimate.of(over)
            for column, one in found_of.items():
                line |= one.columns(column)
            data.append(line)
            shown = {
                "method": labels[name],
                "n": str(len(own)),
                "training [%]": found_of["training"].text("{:.2f}", 100),
                "test [%]": found_of["test"].text("{:.2f}", 100),
                "gap": found_of[_GAP].text("{:+.2f}", 100),
            }
            if baseline in labels:
                compared = found_of["gap_over"].text("{:+.2f}", 100)
                shown[f"gap − {labels[baseline]}"] = BLANK if name == baseline else compared
            lines.append(shown)
        text = f"{device_label(str(device), devices)}, {words.condition_text(str(condition))}"
        blocks.append(Block.plain(text, lines))
    caption = (
        f"{_said(evidence, found)}. The same chips on training images (not augmented) and on test "
        f"images, {words.range_text(found['n_chips'])} chips a network; gap: their difference in "
        "points; the last column: paired by training seed. Means ± half-widths of "
        f"{100 * CONFIDENCE:g} % intervals over networks (Student t)."
    )
    title = "Accuracy of noisy networks on training and on test images"
    return Table(title, caption, tuple(blocks), pd.DataFrame(data), "tab:noisy-gap")


def noisy_gap_figure(
    evidence: Evidence,
    baseline: str = "sgd",
    *,
    width: str | float = "two columns",
    look: str = "paper",
) -> Figure | None:
    """Accuracy on test images, and the gap to training images, against the size of the noise.

    A pair of panels for every method with several strengths, beside the baseline; otherwise one
    pair for all methods.

    Args:
        evidence: The tables of the finished study, with ``training_images.csv``.
        baseline: Method that stands in every panel.
        width: "one column", "two columns" or inches.
        look: "paper", "talk" or the path of a style sheet (.mplstyle).

    Returns:
        The figure; None where not one axis alone is swept.
    """
    found = noisy_accuracies(evidence)
    axes_ = swept_axes(found)
    if len(axes_) != 1 or found["device"].nunique() > 1:
        return None
    (axis,) = axes_
    found = with_axis(found, [axis])
    variants = evidence.networks.set_index("checkpoint")["variant"]
    first = evidence.rows.drop_duplicates("checkpoint")
    group_of = first["checkpoint"].map(variants).set_axis(method_names(first))
    group_of = group_of[~group_of.index.duplicated()]
    several = group_of[group_of.duplicated(keep=False)].unique()
    groups = [list(group_of.index)]
    if len(several):
        groups = [[baseline, *group_of.index[group_of == one]] for one in several]
    with style(look):
        across = 2 if is_wide(width, look) else 1
        figure, panels = panel_grid(
            2 * len(groups), width, look, aspect=0.62, share_y=False, across=across
        )
        labels, handles = _labels(evidence), {}
        for k, group in enumerate(groups):
            names = [name for name in labels if name in group]
            options = {name: plot_options(name, labels) for name in names}
            if len(several):
                options |= _shades([name for name in names if name != baseline])
            own = found[found["name"].isin(names)]
            for ax, column in zip(panels[2 * k : 2 * k + 2], ("test", _GAP), strict=True):
                handles = _against_noise(ax, own, axis, column, options)
            shown = {labels[name]: handles[name] for name in names}
            if len(several):
                panels[2 * k].legend(shown.values(), shown, loc="lower left", fontsize="small")
        n = found.groupby("name")["training_seed"].nunique()
        note = (
            f"n = {words.range_text(n)} networks × {words.range_text(found['n_chips'])} chips, "
            f"{100 * CONFIDENCE:g} % intervals over networks (Student t). "
            f"{_said(evidence, found)}. "
            "Gap: accuracy on training images minus that on test images, the same chips."
        )
        finish(figure, {} if len(several) else shown, note, are_methods=False)
    return figure


def _shades(names: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Lines and markers of the strengths of one method, from dark to light."""
    shades = matplotlib.colormaps["viridis"](np.linspace(0.0, 0.85, len(names)))
    markers = itertools.cycle("osD^vP")
    return {
        name: {"color": tuple(shade), "linestyle": "-", "marker": marker,
               "markeredgecolor": "white", "markeredgewidth": line_width(0.45)}
        for name, shade, marker in zip(names, shades, markers, strict=False)
    }  # fmt: skip


def _against_noise(
    ax: Axes,
    rows: pd.DataFrame,
    axis: str,
    column: str,
    options_of: Mapping[str, Mapping[str, Any]],
) -> dict[str, Line2D]:
    """Draw one line per method and strength; return names to handles."""
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


def _said(evidence: Evidence, found: pd.DataFrame) -> str:
    """What all rows of the devices have in common."""
    return words.fixed_text(evidence.rows[evidence.rows["device"].isin(found["device"])])


def _variants(evidence: Evidence) -> pd.DataFrame:
    return variants_of(evidence.rows, networks_beside([evidence.folder]))


def _labels(evidence: Evidence) -> dict[str, str]:
    """Names with strengths to labels of variants."""
    variants = _variants(evidence)
    names = method_names(variants)
    shown = variant_labels(variants)
    kinds = method_names(variants.drop(columns="strength").rename(columns={"variant": "strength"}))
    of_names = dict(zip(names, kinds, strict=True))
    return {
        name: shown[of_names[name]]
        for name in sorted(of_names, key=lambda one: (order(of_names[one]), one))
    }
