"""Pictures for the page "Reading the tables": what an interval covers, and why gains are paired.

    python benchmarks/interval_pictures.py

Simulated studies with known truth: five networks, five chips of each; a third of the variance of a
network is that of its training seed. A few seconds.
"""

from pathlib import Path

import numpy as np
import pandas as pd
import tyro
from coverage import Cell, Truth, accuracies, by_study, counted, rows_of
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from scipy import stats

from analog_samson.report.style import style
from analog_samson.results import chip_means, paired_gain, summarise

CELL = Cell("normal", n_networks=5, n_images=10_000, crossed=False, n_chips=5)
N_STUDIES, N_DRAWN = 2000, 60
COVERS, MISSES = "#7A8B99", "#D55E00"
SEED = 3


def main(folder: Path = Path("docs")) -> None:
    """Write both pictures.

    Args:
        folder: Where they go.
    """
    random = np.random.default_rng(SEED)
    with style("paper"):
        figure = Figure(figsize=(7.0, 2.9), layout="constrained")
        draw_coverage(figure, random)
        figure.savefig(folder / "intervals.png", dpi=150)
        figure = Figure(figsize=(7.0, 2.5), layout="constrained")
        draw_pairing(figure, random)
        figure.savefig(folder / "pairing.png", dpi=150)


def draw_coverage(figure: Figure, random: np.random.Generator) -> None:
    """Intervals over networks and, from the same rows, over all chips as if independent."""
    rows = rows_of(counted(accuracies(CELL, N_STUDIES, random)[1][:, :1], CELL.n_images), CELL)
    over_networks = summarise(rows, scale="accuracy").assign(study=by_study).sort_values("study")
    chips = chip_means(rows).assign(study=by_study).groupby("study")["accuracy"]
    n = CELL.n_networks * CELL.n_chips
    half_width = stats.t.ppf(0.975, n - 1) * chips.std() / np.sqrt(n)
    over_chips = pd.DataFrame({"low": chips.mean() - half_width, "high": chips.mean() + half_width})
    left, right = figure.subplots(1, 2, sharey=True)
    true = Truth.of(CELL.kind).accuracy
    draw_intervals(left, over_networks, true, "over 5 networks (every table here)")
    draw_intervals(right, over_chips, true, "over 25 chips as if independent")
    left.set_ylabel("accuracy [%]")


def draw_intervals(ax: Axes, intervals: pd.DataFrame, true: float, title: str) -> None:
    """One line a study; those that miss the truth in colour."""
    low, high = (100 * intervals[end].to_numpy() for end in ("low", "high"))
    covers = (low <= 100 * true) & (100 * true <= high)
    for study in range(N_DRAWN):
        colour = COVERS if covers[study] else MISSES
        ax.plot([study] * 2, [low[study], high[study]], color=colour, linewidth=1.6)
    ax.axhline(100 * true, color="black", linewidth=0.8)
    ax.set_ylim(bottom=92.0)
    ax.set(title=title, xlabel=f"{N_DRAWN} of {N_STUDIES} simulated studies", xticks=[])
    share = f"{100 * covers.mean():.1f} % cover the truth"
    ax.text(0.02, 0.03, share, transform=ax.transAxes)


def draw_pairing(figure: Figure, random: np.random.Generator) -> None:
    """Two methods with overlapping intervals whose paired gain is significant."""
    seeds = 0.008 * random.standard_normal((1, 1, 5, 1))
    own = 0.0015 * random.standard_normal((1, 2, 5, 1))
    chip = 0.003 * random.standard_normal((1, 2, 5, 5))
    gain = np.array([0.0, 0.006]).reshape(1, 2, 1, 1)
    rows = rows_of(counted(0.95 + gain + seeds + own + chip, CELL.n_images), CELL)
    names = list(dict.fromkeys(rows["method"]))
    summary = summarise(rows, scale="accuracy").set_index("method").loc[names]
    of_networks = chip_means(rows).groupby(["method", "training_seed"])["accuracy"].mean().unstack()
    left, right = figure.subplots(1, 2, width_ratios=(2, 1))
    for seed in of_networks:
        left.plot(
            [0.15, 0.85], 100 * of_networks.loc[names, seed], "o-", color=COVERS, markersize=4
        )
    for x, (_, row) in zip((-0.1, 1.1), summary.iterrows(), strict=True):
        interval(left, x, row["accuracy"], row["low"], row["high"])
    left.set(
        title="accuracy: mean ± interval, and the five networks of each method",
        ylabel="accuracy [%]",
        xticks=(0, 1),
        xticklabels=("baseline", "method"),
        xlim=(-0.3, 1.3),
    )
    found = paired_gain(rows, scale="accuracy").set_index("method").loc[names[1]]
    interval(right, 0, found["gain"], found["low"], found["high"])
    right.axhline(0, color="black", linewidth=0.8)
    right.set(
        title="gain, paired by training seed",
        ylabel="points",
        xticks=(),
        xlim=(-1, 1),
        ylim=(-0.2, None),
    )


def interval(ax: Axes, x: float, mean: float, low: float, high: float) -> None:
    """A mean with its interval."""
    ax.errorbar(
        [x], [100 * mean], [[100 * (mean - low)], [100 * (high - mean)]],
        fmt="s", color="black", markersize=5, capsize=4,
    )  # fmt: skip


if __name__ == "__main__":
    tyro.cli(main)
