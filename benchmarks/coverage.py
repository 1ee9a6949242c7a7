"""Coverage of the intervals and rate of false positives, on simulated studies with known truth.

    python benchmarks/coverage.py --studies 2000                # all cells: about half an hour
    python benchmarks/coverage.py --studies 200 --networks 2 3  # a first look: a minute

Every cell simulates studies of four equal methods and counts how often the interval of a mean
covers the truth, how often a gain carries a star, a method is bold, or a method lacks the sign of a
tie. The chips are drawn here, by the formulas in this file; the package only computes what is
tested. From 3 networks on at least 93 % must be covered for what a caption says is estimated, and at
most 5 % of the studies may have a star, a bold method, or a method called worse, each within three
standard errors of the simulation. With 2 networks nothing is tested.
"""

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np
import pandas as pd
import tyro
from numpy.typing import NDArray

from analog_samson.results import (
    COLUMNS,
    best_methods,
    lifetime,
    paired_gain,
    summarise,
)
from analog_samson.times import DAY, HOUR, MONTH, YEAR

Floats = NDArray[np.float64]

METHODS = ("sgd", "sam", "asam", "samson")
ALPHA = 0.05
TRUTH_DRAWS = 2_000_000
"""Draws of a chip for the true mean and median: the mean is known to 1e-5."""


@dataclass(frozen=True)
class Cell:
    """One setting of the simulation.

    Attributes:
        kind: Distribution of networks and chips (see `accuracies`).
        n_networks: Trained networks of each method.
        n_images: Test images; accuracies are multiples of 1 / n_images.
        crossed: Whether all networks are programmed on the same chips.
        n_chips: Chips of each network.
    """

    kind: str
    n_networks: int
    n_images: int
    crossed: bool
    n_chips: int = 4

    def __str__(self) -> str:
        design = "crossed" if self.crossed else "nested"
        return f"{self.kind:12} {self.n_networks:2} networks  N = {self.n_images:6,}  {design:7}"


def accuracies(cell: Cell, n_studies: int, random: np.random.Generator) -> Floats:
    """Accuracies before counting, shape (studies, methods, networks, chips).

    A third of a network's variance is that of its training seed, shared by the methods; half of a
    chip's is that of its random seed, shared by the methods, and by the networks where the design is
    crossed.

    - "normal": 95 % + 1.0 network + 0.7 chip, in points;
    - "lognormal": error 3 % x exp(0.5 network + 0.35 chip);
    - "left-tailed": 95 % + 1.0 network - 0.7 (exponential chip - 1), in points.
    """
    shape = (n_studies, len(METHODS), cell.n_networks, cell.n_chips)
    seeds = random.standard_normal((n_studies, 1, cell.n_networks, 1))
    network = math.sqrt(1 / 3) * seeds + math.sqrt(2 / 3) * random.standard_normal((*shape[:3], 1))
    of_seed = (n_studies, 1, 1 if cell.crossed else cell.n_networks, cell.n_chips)
    if cell.kind == "left-tailed":  # Exp(1) = Gamma(1/2) + Gamma(1/2)
        chip = random.gamma(0.5, size=of_seed) + random.gamma(0.5, size=shape)
        return 0.95 + 0.01 * network - 0.007 * (chip - 1)
    chip = math.sqrt(0.5) * random.standard_normal(of_seed)
    chip = chip + math.sqrt(0.5) * random.standard_normal(shape)
    if cell.kind == "lognormal":
        return 1 - 0.03 * np.exp(0.5 * network + 0.35 * chip)
    return 0.95 + 0.01 * network + 0.007 * chip


def counted(accuracy: Floats, n_images: int) -> NDArray[np.int64]:
    """Correct predictions: whole numbers from 0 to the number of images."""
    return np.clip(np.rint(accuracy * n_images), 0, n_images).astype(np.int64)


def truth(kind: str) -> dict[str, float]:
    """True mean accuracy, and true accuracy of the typical chip on the logit scale."""
    one = Cell(kind, 1, 10_000, crossed=False, n_chips=1)
    draws = accuracies(one, TRUTH_DRAWS // len(METHODS), np.random.default_rng(12345)).ravel()
    inside = np.clip(draws, 0.5 / 10_000, 1 - 0.5 / 10_000)
    mean_logit = np.log(inside / (1 - inside)).mean()
    return {"accuracy": float(draws.mean()), "logit": float(1 / (1 + np.exp(-mean_logit)))}


def rows_of(counts: NDArray[np.int64], cell: Cell, times_s: tuple[float, ...] = (DAY,)) -> pd.DataFrame:
    """Rows of trials of many studies, told apart by their condition.

    Args:
        counts: Correct predictions, shape (studies, methods, networks, chips[, times]).
        cell: The setting.
        times_s: Times of the last axis.
    """
    counts = counts[..., None] if counts.ndim == 4 else counts
    study, method, network, chip, time = (
        index.ravel() for index in np.indices(counts.shape, dtype=np.int64)
    )
    names = np.array(METHODS)[method]
    checkpoint = method * 100 + network
    n = cell.n_images
    rows = pd.DataFrame(
        {
            "chip_id": ((study * 1000 + checkpoint) * 1000 + chip).astype(str),
            "method": names,
            "training_seed": network,
            "checkpoint": np.char.add("net", checkpoint.astype(str)),
            "condition": np.char.add(np.char.add('{"study": ', study.astype(str)), "}"),
            "chip": chip,
            "programming_seed": chip if cell.crossed else 1000 * network + chip,
            "t_inference_s": np.array(times_s)[time],
            "n_correct": counts.ravel(),
        }
    )
    constants = {
        "study": "simulated", "dataset": "digits", "model": "mlp", "strength": "",
        "device": "pcm_like", "compensation": "none", "engine": "compiled", "precision": "fp32",
        "read": 0, "n_images_per_chip": n, "n_correct_digital": n, "n_test": n,
        "n_correct_digital_test": n, "analog_share": 1.0, "alpha": 1.0, "extrapolated": False,
        "reproducible": True,
    }  # fmt: skip
    rows = rows.assign(**constants, n_changed=n - rows["n_correct"])
    return rows[list(COLUMNS)]


def by_study(rows: pd.DataFrame) -> "pd.Series[int]":
    """Number of the study of each row."""
    return rows["condition"].str.extract(r"(\d+)")[0].astype(int)


def run_cell(cell: Cell, n_studies: int, seed: int, batch: int = 1000) -> dict[str, float]:
    """Rates of one cell.

    Returns:
        ``mean`` and ``logit``: coverage of the intervals on both scales, ``gain``: of the gain
        between two methods; ``floor``: share of intervals with a floor; ``star``, ``bold``,
        ``worse``: share of studies of equal methods with one (NaN: nothing was tested), and with
        "_logit" the same on the logit scale.
    """
    random = np.random.default_rng(seed)
    true = truth(cell.kind)
    found: dict[str, list[float]] = {}

    def add(name: str, values: "pd.Series[bool] | NDArray[np.bool_]") -> None:
        found.setdefault(name, []).extend(np.asarray(values, dtype=float))

    done = 0
    while done < n_studies:
        n = min(batch, n_studies - done)
        rows = rows_of(counted(accuracies(cell, n, random), cell.n_images), cell)
        for scale, name in (("accuracy", "mean"), ("logit", "logit")):
            means = summarise(rows, scale=scale)
            add(name, (means["low"] <= true[scale]) & (true[scale] <= means["high"]))
            gains = paired_gain(rows, scale=scale)
            tail = "" if scale == "accuracy" else "_logit"
            add(f"gain{tail}", (gains["low"] <= 0) & (gains["high"] >= 0))
            if scale == "accuracy":
                add("floor", means["spread"] == "floor")
            if cell.n_networks < 3:
                if gains["p_value"].notna().any() or gains["significant"].any():
                    raise RuntimeError(f"{cell}: a test was made from two networks.")
                marks = best_methods(rows, scale=scale)
                if marks["is_best"].any() or marks["p_value"].notna().any():
                    raise RuntimeError(f"{cell}: bold from two networks.")
                continue
            p = gains["p_value"].groupby(by_study(gains)).min() * (len(METHODS) - 1)
            add(f"star{tail}", p < ALPHA)
            marks = best_methods(rows, scale=scale)
            leader = marks["p_worse"].isna()
            add(f"bold{tail}", marks.loc[leader, "p_value"] < ALPHA)
            others = marks[~leader]
            n_pairs = len(METHODS) * (len(METHODS) - 1) / 2
            add(f"worse{tail}", others["p_value"].groupby(by_study(others)).min() * n_pairs < ALPHA)
        done += n
    return {name: float(np.mean(values)) for name, values in found.items()}


def table_flags(cell: Cell, n_studies: int, seed: int) -> dict[str, float]:
    """Share of studies with a star, a bold method, or a missing tie, as their own tables show."""
    random = np.random.default_rng(seed)
    counts = counted(accuracies(cell, n_studies, random), cell.n_images)
    flags = {"star": 0, "bold": 0, "worse": 0}
    for study in range(n_studies):
        rows = rows_of(counts[study : study + 1], cell)
        flags["star"] += bool(paired_gain(rows)["significant"].any())
        marks = best_methods(rows)
        flags["bold"] += bool(marks["is_best"].any())
        flags["worse"] += bool((~marks["is_tied"] & ~marks["is_best"]).any())
    return {name: number / n_studies for name, number in flags.items()}
