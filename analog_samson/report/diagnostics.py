"""Why a number is what it is: training curves, waterfall, single layers, sharpness."""

from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from analog_samson import times
from analog_samson.report import words
from analog_samson.report.axes import finish
from analog_samson.report.figures import grid
from analog_samson.report.style import METHOD_STYLES, looks, order, style

CURVES = (
    ("loss", "training loss"),
    ("offset_ratio", "offset / weights"),
    ("update_gradient_norm", "gradient norm"),
)
"""Columns of a training log, and what its axis says."""


_PANEL = ("checkpoint", "device", "t_inference_s")

MAX_PANELS = 12
"""Networks on devices beyond this many are left out of one figure: nobody reads it."""


def read_logs(paths: Iterable[str | Path]) -> dict[str, pd.DataFrame]:
    """Read training logs, named by method and strength.

    Args:
        paths: CSV files that lie beside checkpoints, named as those
            ("mnist-lenet5-samson-rho=0.5-seed0.csv").

    Returns:
        What `training_curve` takes: "samson rho=0.5#<file>" to log.

    Raises:
        FileNotFoundError: If a file does not exist.
        ValueError: If a file's name holds no known method.
    """
    logs = {}
    for path in map(Path, paths):
        if not path.is_file():
            raise FileNotFoundError(f"No training log at {str(path)!r}.")
        parts = path.stem.split("-")
        at = next((k for k, part in enumerate(parts) if part in METHOD_STYLES), None)
        if at is None:
            raise ValueError(
                f"The name {path.name!r} holds no training method; expected a name such as "
                "'mnist-lenet5-samson-rho=0.5-seed0.csv'."
            )
        strength = [part.replace(",", " ") for part in parts[at + 1 :] if "=" in part]
        logs[f"{' '.join([parts[at], *strength])}#{path.stem}"] = pd.read_csv(path)
    return logs


def training_curve(
    ax: Axes, logs: Mapping[str, pd.DataFrame], column: str, title: str
) -> list[Line2D]:
    """Draw one column of training logs against the epoch, one line a training.

    Args:
        ax: Where to draw.
        logs: Method with its strength (several trainings of one: any suffix after "#") to its log:
            columns ``epoch``, ``layer`` (empty for the whole network) and the one drawn.
        column: Column to draw.
        title: Label of the vertical axis.

    Returns:
        One handle per method.

    Raises:
        ValueError: If there are no logs, or one lacks the columns.
    """
    if not logs:
        raise ValueError("There are no training logs; give at least one.")
    handles: dict[str, Line2D] = {}
    names = {key.split("#")[0] for key in logs}
    for key, log in logs.items():
        missing = {"epoch", column} - set(log.columns)
        if missing:
            raise ValueError(f"The training log of {key!r} lacks the columns {sorted(missing)}.")
        name = key.split("#")[0]
        look = looks(name, names)
        whole = log[log["layer"].fillna("") == ""] if "layer" in log else log
        whole = whole.dropna(subset=[column])
        ax.plot(whole["epoch"], whole[column], color=look["color"], lw=0.9, alpha=0.8)
        last = whole.tail(1)
        ax.plot(last["epoch"], last[column], linestyle="none", **look)
        handles[name] = Line2D([], [], label=name, **look)
    ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    if column == "loss":
        ax.set_yscale("log")
    else:
        ax.set_ylim(bottom=0.0)
    ax.set_xlabel("epoch")
    ax.set_ylabel(title)
    return [handles[name] for name in sorted(handles, key=order)]


def training_figure(
    logs: Mapping[str, pd.DataFrame], *, width: str = "two columns", look: str = "paper"
) -> Figure:
    """Loss, size of the perturbation and gradient norm against the epoch.

    Args:
        logs: As for `training_curve`.
        width: "one column" or "two columns".
        look: Style sheet, "paper" or "talk".

    Returns:
        The figure.

    Raises:
        ValueError: If there are no logs or a name is unknown.
    """
    with style(look):
        across = 3 if width == "two columns" else 1
        figure, axes = grid(3, width, look, aspect=0.85, share_y=False, across=across)
        handles: dict[str, Line2D] = {}
        for ax, (column, title) in zip(axes, CURVES, strict=True):
            for handle in training_curve(ax, logs, column, title):
                handles[str(handle.get_label())] = handle
        note = "One line a training. Offset / weights: their norms, one by the other."
        finish(figure, handles, note)
    return figure


def waterfall(ax: Axes, stages: pd.DataFrame) -> None:
    """Draw how accuracy is lost from the digital network to the chip, stage by stage.

    Args:
        ax: Where to draw.
        stages: Rows in order with the columns ``stage`` ("digital", "mapped", ...) and
            ``accuracy`` (fraction); several rows a stage (chips) are averaged.

    Raises:
        ValueError: If there are no stages.
    """
    _check_columns(stages, ("stage", "accuracy"))
    mean = 100 * stages.groupby("stage", sort=False)["accuracy"].mean()
    spread = 100 * stages.groupby("stage", sort=False)["accuracy"].std().fillna(0.0)
    values = mean.to_numpy()
    before = np.append(values[0], values[:-1])
    for k, (value, last) in enumerate(zip(values, before, strict=True)):
        if k:
            colour = "#D55E00" if value < last else "#009E73"
            ax.bar(k, value - last, bottom=last, color=colour, width=0.6, zorder=2)
            ax.plot([k - 1.3, k + 0.3], [last, last], color="0.6", lw=0.6, zorder=1)
        text = f"{value:.1f}" if k == 0 else f"{value - last:+.1f}".replace("-", "−")
        ax.annotate(
            text,
            (k, max(value, last)),
            xytext=(0, 3),
            textcoords="offset points",
            ha="center",
            fontsize="small",
        )
    ax.errorbar(range(len(values)), values, spread, fmt="k.", markersize=4, zorder=3)
    ax.set_xticks(range(len(values)), list(mean.index), rotation=20, ha="right")
    room = 0.15 * max(float(np.ptp(values)), 0.1)
    ax.set_ylim(values.min() - spread.max() - room, max(values.max(), values[0]) + 2 * room)
    ax.set_ylabel("accuracy [%]")


def layer_sensitivity(ax: Axes, layers: pd.DataFrame) -> None:
    """Draw the accuracy with one layer analog at a time, in the order of the network.

    Args:
        ax: Where to draw.
        layers: Rows with the columns ``layer``, ``accuracy`` and ``clean_accuracy`` (fractions);
            several rows a layer (chips) are averaged.

    Raises:
        ValueError: If there are no layers.
    """
    _check_columns(layers, ("layer", "accuracy", "clean_accuracy"))
    loss = 100 * (layers["clean_accuracy"] - layers["accuracy"])
    groups = loss.groupby(layers["layer"], sort=False)
    mean, spread = groups.mean(), groups.std().fillna(0.0)
    places = range(len(mean))
    ax.barh(
        places,
        mean,
        xerr=spread,
        color="#56B4E9",
        height=0.65,
        error_kw={"elinewidth": 0.8},
        zorder=2,
    )
    ax.set_yticks(places, list(mean.index))
    ax.invert_yaxis()
    ax.grid(False, axis="y")
    ax.grid(True, axis="x")
    ax.set_xlabel("accuracy lost with this layer alone analog [points]")


def beside_figures(
    folder: str | Path, *, width: str = "two columns", look: str = "paper"
) -> dict[str, Figure]:
    """Figures of the files that may lie beside ``trials.csv``: waterfall.csv and layers.csv.

    Args:
        folder: Folder of the study.
        width: "one column" or "two columns".
        look: Style sheet, "paper" or "talk".

    Returns:
        File stem to figure, one panel a network, device and time; empty without such files.

    Raises:
        ValueError: If a file lacks columns.
    """
    drawn = {}
    for stem, draw in (("waterfall", waterfall), ("layers", layer_sensitivity)):
        file = Path(folder) / f"{stem}.csv"
        if file.is_file():
            rows = pd.read_csv(file)
            _check_columns(rows, _PANEL)
            groups = list(rows.groupby(list(_PANEL), sort=False))[:MAX_PANELS]
            with style(look):
                figure, axes = grid(len(groups), width, look, aspect=0.75, share_y=False)
                for ax, ((network, device, t), part) in zip(axes, groups, strict=True):
                    draw(ax, part)
                    ax.set_title(f"{device}, {times.label(float(str(t)))}\n{network}")
                n = int(rows.groupby(list(_PANEL))["chip"].nunique().min())
                finish(figure, {}, f"Mean and standard deviation over {n} chips of each network.")
            drawn[stem] = figure
    return drawn


def sharpness_vs_accuracy(
    ax: Axes, networks: pd.DataFrame, sharpness: pd.DataFrame, measure: str
) -> list[Line2D]:
    """Scatter every network: how sharp its minimum is against its accuracy on chips.

    Args:
        ax: Where to draw.
        networks: As `results.network_means` gives, of one condition at one time.
        sharpness: Columns ``checkpoint`` and the measure.
        measure: Column of ``sharpness``.

    Returns:
        One handle per method.

    Raises:
        ValueError: If no network has the measure.
    """
    _check_columns(sharpness, ("checkpoint", measure))
    rows = networks.merge(sharpness[["checkpoint", measure]], on="checkpoint")
    if rows.empty:
        raise ValueError(f"No network of the study has a value of {measure!r}.")
    names = words.method_names(rows)
    handles = []
    for name in sorted(names.unique(), key=order):
        look = looks(name, names.unique())
        own = rows[names == name]
        ax.plot(own[measure], 100 * own["accuracy"], linestyle="none", **look)
        handles.append(Line2D([], [], label=name, linestyle="none", **look))
    if (rows[measure] > 0).all():
        ax.set_xscale("log")
    correlation = rows[measure].corr(rows["accuracy"], method="spearman")
    ax.annotate(
        f"Spearman {correlation:+.2f}, {len(rows)} networks",
        (1, 1),
        xytext=(-2, -2),
        xycoords="axes fraction",
        textcoords="offset points",
        ha="right",
        va="top",
        fontsize="small",
        color="0.3",
    )
    ax.margins(y=0.15)
    ax.set_xlabel(measure.replace("_", " "))
    ax.set_ylabel(f"accuracy at {times.label(rows['t_inference_s'].iloc[0])} [%]")
    return handles


def _check_columns(rows: pd.DataFrame, columns: tuple[str, ...]) -> None:
    missing = sorted(set(columns) - set(rows.columns))
    if missing:
        raise ValueError(f"The columns {missing} are missing; there are {list(rows.columns)}.")
    if rows.empty:
        raise ValueError("There are no rows to draw.")
