"""Sensitivity to every noise source on one axis: each source scaled, the others as they are."""

import json
from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from analog_samson.report import words
from analog_samson.report.axes import finish, fit_scale, y_label
from analog_samson.report.figures import at_last_time, footnote, late_note, moment, panel_grid
from analog_samson.report.methods import device_label
from analog_samson.report.overlay import series_looks
from analog_samson.report.panels import check_one
from analog_samson.report.style import line_width, order, style
from analog_samson.report.sweeps import mark_nominal
from analog_samson.results.scores import score_of

Nominal = Mapping[tuple[str, str], float]
"""(device, axis) to the device's own value."""


def normalised(summary: pd.DataFrame, nominal: Nominal) -> pd.DataFrame:
    """Rows in which one numeric setting alone is swept, with the setting relative to the device's.

    Args:
        summary: As `results.summarise` gives, of one or several studies.
        nominal: (device, axis) to the device's own value; axes without one, or with 0, are left
            out.

    Returns:
        The rows with the columns ``source`` (the axis) and ``scale`` (1: the device as it is).
    """
    points = summary["condition"].map(json.loads)
    alone = summary[points.map(len) == 1]
    pairs = [next(iter(point.items())) for point in points[alone.index]]
    sources = [axis for axis, _ in pairs]
    own = [nominal.get(key, 0.0) for key in zip(alone["device"], sources, strict=True)]
    scales = [
        value / one if one and isinstance(value, int | float) else np.nan
        for (_, value), one in zip(pairs, own, strict=True)
    ]
    found = alone.assign(source=sources, scale=scales)
    return found[found["scale"].notna()]


def sensitivity(
    ax: Axes, rows: pd.DataFrame, looks: Mapping[str, Mapping[str, Any]] | None = None
) -> list[Line2D]:
    """Draw accuracy [%], or another score, against the scale of every source, a line a source.

    Args:
        ax: Where to draw.
        rows: As `normalised` gives, of one method on one device at one time.
        looks: Source to its line and marker; None chooses them.

    Returns:
        One handle per source.

    Raises:
        ValueError: If there are no rows, or several methods, devices or times.

    Example:
        >>> own = {("pcm_like", "programming_noise_scale"): 1.0}
        >>> handles = sensitivity(ax, normalised(swept, own))
        >>> [handle.get_label() for handle in handles]
        ['programming noise']
    """
    check_one(rows, "sensitivity", besides=("condition",))
    if rows.duplicated(["source", "scale"]).any():
        raise ValueError(
            "sensitivity draws one method at one time; filter the rows by method and t_inference_s."
        )
    score = score_of(rows)
    sources = sorted(rows["source"].unique())
    looks = looks or dict(zip(sources, series_looks(), strict=False))
    handles = []
    for source in sources:
        own, look = rows[rows["source"] == source].sort_values("scale"), dict(looks[source])
        x, y = own["scale"].to_numpy(), score.shown(own[score.column].to_numpy())
        low, high = (score.shown(own[end].to_numpy()) for end in ("low", "high"))
        bars: dict[str, Any] = {"ecolor": look["color"], "elinewidth": line_width(0.7)}
        ax.errorbar(x, y, [y - low, high - y], fmt="none", zorder=3, **bars)
        ax.plot(x, y, zorder=4, **look)
        handles.append(Line2D([], [], label=source_text(source), **look))
    mark_nominal(ax, 1.0)
    fit_scale(ax, score, score.shown(rows[score.column]))
    ax.set_xlabel("size of the source, relative to the device")
    ax.set_ylabel(y_label(score.axis(moment(rows))))
    return handles


def sensitivity_figure(
    summary: pd.DataFrame,
    nominal: Nominal,
    *,
    width: str | float = "two columns",
    look: str = "paper",
) -> Figure:
    """Accuracy at the last time against the size of every noise source, a panel per method.

    Args:
        summary: As `results.summarise` gives, of studies in which one setting each is swept.
        nominal: As for `normalised`.
        width: "one column", "two columns" or inches.
        look: "paper", "talk" or the path of a style sheet (.mplstyle).

    Returns:
        The figure.

    Raises:
        ValueError: If no setting was swept alone whose own value is known.

    Example:
        >>> own = {("pcm_like", "programming_noise_scale"): 1.0}
        >>> sensitivity_figure(swept, own).axes[0].get_xlabel()
        'size of the source, relative to the device'
    """
    rows = normalised(at_last_time(summary), nominal)
    if rows.empty:
        raise ValueError("No numeric setting with a known value above 0 was swept alone.")
    rows = rows.assign(name=words.method_names(rows))
    rows["rank"] = rows["name"].map(order)
    apart = [c for c in words.varying(rows) if c != "condition"]
    groups = list(rows.groupby(["device", *apart, "rank"], observed=True, sort=True))
    left_out = sorted({a for _, a in _swept(summary)} - set(rows["source"]))
    with style(look):
        looks = dict(zip(sorted(rows["source"].unique()), series_looks(), strict=False))
        figure, axes = panel_grid(len(groups), width, look, aspect=0.75, share_y=True)
        handles: dict[str, Line2D] = {}
        for ax, (_, part) in zip(axes, groups, strict=True):
            for handle in sensitivity(ax, part, looks):
                handles[str(handle.get_label())] = handle
            first = part.iloc[0]
            device = device_label(first["device"], rows["device"].unique())
            title = ", ".join([device, *words.settings_text(first, apart)])
            ax.set_title(f"{words.method_text(first['name'])}\n{title}, {moment(part)}")
            ax.label_outer()
        note = f"{footnote(rows)} One source is scaled, the others are as the device has them "
        note += "(vertical line)."
        if left_out:
            note += f" Not shown, of no size or unknown: {', '.join(map(source_text, left_out))}."
        finish(figure, handles, note + late_note(rows), are_methods=False)
    return figure


def source_text(axis: str) -> str:
    """A noise source in words: "programming_noise_scale" -> "programming noise"."""
    return words.axis_name(axis.removesuffix("_scale"))


def known_sources(summary: pd.DataFrame) -> list[tuple[str, str]]:
    """(device, axis) of every setting that is swept alone, sorted."""
    return sorted(_swept(summary))


def _swept(summary: pd.DataFrame) -> set[tuple[str, str]]:
    pairs = summary[["device", "condition"]].drop_duplicates().itertuples(index=False)
    points = [(str(device), json.loads(condition)) for device, condition in pairs]
    return {(device, next(iter(point))) for device, point in points if len(point) == 1}
