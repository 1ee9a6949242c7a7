"""Coverage of the intervals and rate of false positives, on simulated studies with known truth.

    python benchmarks/coverage.py --studies 2000                # all cells: about half an hour
    python benchmarks/coverage.py --studies 200 --networks 2 3  # a first look: a minute

Every cell simulates studies of four equal methods and counts how often the interval of a mean
covers the truth, how often a gain carries a star, a method is bold, or a method lacks the sign of
a tie. The chips are drawn here, by the formulas in this file; the package only computes what is
tested. From 3 networks on at least 93 % must be covered for what a caption says is estimated, and
at most 5 % of the studies may have a star, a bold method, or a method called worse, each within
three standard errors of the simulation. With 2 networks nothing is tested.
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
    next_look,
    paired_gain,
    summarise,
    yields,
)
from analog_samson.times import DAY, HOUR, YEAR

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
    chip's is that of its random seed, shared by the methods, and by the networks where the design
    is crossed.

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


def rows_of(
    counts: NDArray[np.int64], cell: Cell, times_s: tuple[float, ...] = (DAY,)
) -> pd.DataFrame:
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
        is_tested = marks["p_value"].notna().any() or marks["is_tied"].any()
        flags["worse"] += bool(is_tested and (~marks["is_tied"] & ~marks["is_best"]).any())
    return {name: number / n_studies for name, number in flags.items()}


TIMES_S = (1.0, HOUR, DAY, YEAR)
MANY_TIMES_S = tuple(float(t) for t in np.geomspace(1.0, YEAR, 15))

LOSSES = {
    "straight": lambda t: 0.01 + 0.005 * np.log10(t),
    "convex": lambda t: 0.01 + 0.035 * (np.log10(t) / 7.5) ** 4,
    "concave": lambda t: 0.01 + 0.035 * np.sqrt(np.log10(t) / 7.5),
    "sudden": lambda t: 0.01 + 0.035 / (1 + np.exp(-4 * (np.log10(t) - 5.5))),
}
"""Loss of accuracy against time [s], from 1 to 4.5 points (or nearly) within a year."""


def run_lifetimes(
    shape: str, n_networks: int, times_s: tuple[float, ...], n_studies: int, seed: int
) -> dict[str, float]:
    """Coverage of the lifetime until 2.5 points are lost, and the bias of its estimate.

    Networks spread by 0.4 points and chips by 0.2, at all times alike; N = 10,000.
    """
    random = np.random.default_rng(seed)
    cell = Cell("normal", n_networks, 10_000, crossed=False, n_chips=2)
    curve = LOSSES[shape](np.array(times_s))
    fine = np.geomspace(1.0, YEAR, 100_001)
    true = fine[np.argmax(LOSSES[shape](fine) > 0.025)]
    size = (n_studies, 1, n_networks, cell.n_chips, 1)
    network = 0.004 * random.standard_normal((*size[:3], 1, 1))
    accuracy = 0.99 - curve + network + 0.002 * random.standard_normal(size)
    rows = rows_of(counted(accuracy, cell.n_images), cell, times_s)
    rows["n_correct_digital"] = rows["n_correct_digital_test"] = 9_900
    rows["n_changed"] = 9_900 - rows["n_correct"]
    lives = lifetime(rows, 0.025)
    hits = (lives["low_s"] <= true) & (true <= lives["high_s"])
    return {"covered": float(hits.mean()), "ratio": float(lives["lifetime_s"].median() / true)}


def run_two_stages(n_networks: int, n_studies: int, seed: int) -> dict[str, float]:
    """Coverage of the interval of a study whose second stage is sized by its first.

    Networks spread by 0.5 points, chips by 1.5; of one network the truth is its own mean.
    """
    random = np.random.default_rng(seed)
    looks = (10, 20, 40, 80)
    cell = Cell("normal", n_networks, 10_000, crossed=False, n_chips=max(looks))
    hits: dict[int, list[bool]] = {}
    for _ in range(n_studies):
        network = 0.005 * random.standard_normal((1, 1, n_networks, 1))
        chip = 0.015 * random.standard_normal((1, 1, n_networks, cell.n_chips))
        rows = rows_of(counted(0.9 + network + chip, cell.n_images), cell)
        first = rows[rows["chip"] < looks[0]]
        n_chips = next_look(first, TARGETS[n_networks], looks=looks) or looks[0]
        mean = summarise(rows[rows["chip"] < n_chips]).iloc[0]
        truth_here = 0.9 if n_networks > 1 else 0.9 + float(network.item())
        hits.setdefault(n_chips, []).append(bool(mean["low"] <= truth_here <= mean["high"]))
    every = [hit for own in hits.values() for hit in own]
    at = {f"{n} chips": float(np.mean(own)) for n, own in sorted(hits.items()) if len(own) >= 20}
    return {"covered": float(np.mean(every)), **at}


TARGETS = {1: 0.007, 3: 0.0095, 5: 0.0045}
"""Target half-widths [fraction] at which the second stages of `run_two_stages` differ in size."""


def run_yields(n_networks: int, share: float, n_studies: int, seed: int) -> dict[str, float]:
    """Coverage of the share of chips above a target, where networks differ.

    The probability of a chip differs between networks by a beta distribution with an intraclass
    correlation of 0.1; 10 chips of each network.
    """
    random = np.random.default_rng(seed)
    cell = Cell("normal", n_networks, 10_000, crossed=False, n_chips=10)
    strength = 1 / 0.1 - 1
    chance = random.beta(
        share * strength, (1 - share) * strength, size=(n_studies, 1, n_networks, 1)
    )
    passed = random.uniform(size=(n_studies, 1, n_networks, cell.n_chips)) < chance
    rows = rows_of(counted(np.where(passed, 0.95, 0.93), cell.n_images), cell)
    found = yields(rows, 0.94)
    hits = (found["low"] <= share) & (share <= found["high"])
    return {"covered": float(hits.mean())}


def main(
    studies: int = 2000,
    networks: tuple[int, ...] = (2, 3, 5, 10),
    images: tuple[int, ...] = (360, 10_000),
    kinds: tuple[str, ...] = ("normal", "lognormal", "left-tailed"),
    parts: tuple[Literal["means", "tables", "lifetimes", "stages", "yields"], ...] = (
        "means",
        "tables",
        "lifetimes",
        "stages",
        "yields",
    ),
    seed: int = 1,
) -> None:
    """Simulate studies and print coverage and false positives.

    Args:
        studies: Simulated studies of every cell; a tenth of them where every study has tables of
            its own.
        networks: Numbers of trained networks.
        images: Numbers of test images.
        kinds: Distributions: normal, lognormal, left-tailed.
        parts: What is simulated.
        seed: Random seed; cells add their number.
    """
    cells = [
        Cell(kind, n, n_images, crossed)
        for kind in kinds
        for n in networks
        for n_images in images
        for crossed in (False, True)
    ]
    error = 100 * math.sqrt(0.05 * 0.95 / studies)
    print(f"{studies:,} studies a cell; seed {seed}; standard error at 5 or 95 %: {error:.2f} %")
    if "means" in parts:
        print("Coverage [%] and studies with a false positive [%], accuracy | logit scale")
        for k, cell in enumerate(cells):
            print(cell, _line(run_cell(cell, studies, seed + k)), flush=True)
    if "tables" in parts:
        print("Studies [%] whose own tables have a false star, a bold method, a missing tie")
        for k, n in enumerate(n for n in networks if n <= 5):
            cell = Cell("normal", n, 360, crossed=False, n_chips=2)
            print(cell, _line(table_flags(cell, max(studies // 10, 1), seed + k)), flush=True)
    if "lifetimes" in parts:
        print("Lifetimes: coverage [%], median estimate / truth")
        for shape in LOSSES:
            for n in (n for n in networks if n > 2):
                for times_s in (TIMES_S, MANY_TIMES_S):
                    found = run_lifetimes(shape, n, times_s, studies, seed)
                    text = f"{100 * found['covered']:5.1f} %  x {found['ratio']:.2f}"
                    print(f"{shape:9} {n:2} networks, {len(times_s):2} times  {text}", flush=True)
    if "stages" in parts:
        print("Two stages: coverage [%] of all studies, and of those with so many chips")
        for n in TARGETS:
            print(f"{n} networks", _line(run_two_stages(n, max(studies // 4, 1), seed)), flush=True)
    if "yields" in parts:
        print("Yield: coverage [%] of the share of chips above a target")
        for n in networks:
            for share in (0.5, 0.9, 0.98):
                found = run_yields(n, share, studies, seed)
                print(f"{n:2} networks, {share:.2f}: {_line(found)}", flush=True)


def _line(found: dict[str, float]) -> str:
    return "  ".join(f"{name} {100 * value:.1f}" for name, value in found.items())


if __name__ == "__main__":
    tyro.cli(main)
