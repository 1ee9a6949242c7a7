"""Coverage of the intervals and rate of false positives, on simulated studies with known truth.

    python benchmarks/coverage.py --studies 20000               # all cells: about an hour
    python benchmarks/coverage.py --studies 500 --networks 2 3  # a first look: a minute

Every cell simulates studies of four equal methods and counts how often the interval of a mean
covers the truth, how often a gain carries a star, a method is bold, or a method lacks the sign of
a tie. The chips are drawn here, by the formulas in this file; the package only computes what is
tested. From 3 networks on at least 93 % must be covered for what a caption says is estimated, and
at most 5 % of the studies may have a star, a bold method, or a method called worse, each within
three standard errors of the simulation. With 2 networks nothing is tested.
"""

import itertools
import json
import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
import pandas as pd
import tyro
from numpy.typing import NDArray
from scipy import special, stats

from analog_samson.results import (
    COLUMNS,
    best_methods,
    chip_means,
    lifetime,
    lost,
    paired_gain,
    spread,
    summarise,
    yields,
)
from analog_samson.results.sample_size import chips_for
from analog_samson.results.scale import LOGIT_FROM
from analog_samson.results.summary import GROUP
from analog_samson.times import DAY, HOUR, YEAR

Floats = NDArray[np.float64]

METHODS = ("sgd", "sam", "asam", "samson")
ALPHA = 0.05
DIGITAL = 0.95 + 0.05 / 3
"""Mean accuracy of the digital networks where chips have 95 %."""

TRUTH_DRAWS = 2_000_000
"""Draws of a chip for the true mean and median: the mean is known to 1e-5."""


CONSTANTS = {
    "study": "simulated",
    "dataset": "digits",
    "model": "mlp",
    "strength": "",
    "device": "pcm_like",
    "compensation": "none",
    "engine": "compiled",
    "precision": "fp32",
}
"""Texts that all rows share."""


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


def accuracies(cell: Cell, n_studies: int, random: np.random.Generator) -> tuple[Floats, Floats]:
    """Accuracies before counting: of digital networks, and of chips.

    Returns:
        Shapes (studies, methods, networks, 1) and (studies, methods, networks, chips).

    A third of a network's variance is that of its training seed, shared by the methods; half of a
    chip's is that of its random seed, shared by the methods, and by the networks where the design
    is crossed.

    - "normal": 95 % + 1.0 network + 0.7 chip, in points;
    - "lognormal": error 3 % x exp(0.5 network + 0.35 chip);
    - "left-tailed": 95 % + 1.0 network - 0.7 (exponential chip - 1), in points.

    A digital network makes two thirds of the errors that its chips make, and half of what it
    differs by from others is there already: 1.67 points fewer errors + 0.5 network, or error
    2 % x exp(0.25 network).
    """
    shape = (n_studies, len(METHODS), cell.n_networks, cell.n_chips)
    seeds = random.standard_normal((n_studies, 1, cell.n_networks, 1))
    network = math.sqrt(1 / 3) * seeds + math.sqrt(2 / 3) * random.standard_normal((*shape[:3], 1))
    of_seed = (n_studies, 1, 1 if cell.crossed else cell.n_networks, cell.n_chips)
    if cell.kind == "left-tailed":  # Exp(1) = Gamma(1/2) + Gamma(1/2)
        chip = random.gamma(0.5, size=of_seed) + random.gamma(0.5, size=shape)
        return DIGITAL + 0.005 * network, 0.95 + 0.01 * network - 0.007 * (chip - 1)
    chip = math.sqrt(0.5) * random.standard_normal(of_seed)
    chip = chip + math.sqrt(0.5) * random.standard_normal(shape)
    if cell.kind == "lognormal":
        return 1 - 0.02 * np.exp(0.25 * network), 1 - 0.03 * np.exp(0.5 * network + 0.35 * chip)
    return DIGITAL + 0.005 * network, 0.95 + 0.01 * network + 0.007 * chip


def counted(accuracy: Floats, n_images: int) -> NDArray[np.int64]:
    """Correct predictions: whole numbers from 0 to the number of images."""
    return np.clip(np.rint(accuracy * n_images), 0, n_images).astype(np.int64)


@dataclass(frozen=True)
class Truth:
    """True means over networks and chips.

    Attributes:
        accuracy: Mean accuracy of chips.
        lost: Digital minus chips' accuracy.
        logit: Mean of log(accuracy / error) of chips.
        logit_lost: Digital minus chips' log(accuracy / error).
    """

    accuracy: float
    lost: float
    logit: float
    logit_lost: float

    @classmethod
    def of(cls, kind: str) -> "Truth":
        """The means of `TRUTH_DRAWS` draws."""
        one = Cell(kind, 1, 10_000, crossed=False, n_chips=1)
        drawn = accuracies(one, TRUTH_DRAWS // len(METHODS), np.random.default_rng(12345))
        digital, chips = (float(values.mean()) for values in drawn)
        inside = (np.clip(values, 0.5 / 10_000, 1 - 0.5 / 10_000) for values in drawn)
        u, a = (float(special.logit(values).mean()) for values in inside)
        return cls(chips, digital - chips, a, u - a)

    @property
    def typical(self) -> float:
        """Accuracy of the typical chip."""
        return float(special.expit(self.logit))

    @property
    def typical_lost(self) -> float:
        """Accuracy between the typical digital network and the typical chip."""
        return float(special.expit(self.logit + self.logit_lost)) - self.typical


def rows_of(
    counts: NDArray[np.int64],
    cell: Cell,
    times_s: tuple[float, ...] = (DAY,),
    digital: NDArray[np.int64] | None = None,
) -> pd.DataFrame:
    """Rows of trials of many studies, told apart by their condition.

    Args:
        counts: Correct predictions, shape (studies, methods, networks, chips[, times]).
        cell: The setting.
        times_s: Times of the last axis.
        digital: Correct predictions of the digital networks, shape (studies, methods, networks,
            1); None: all.
    """
    counts = counts[..., None] if counts.ndim == 4 else counts
    study, method, network, chip, time = (
        index.ravel() for index in np.indices(counts.shape, dtype=np.int64)
    )
    n_methods, n_networks, n_chips = counts.shape[1:4]
    checkpoint = method * n_networks + network
    n = cell.n_images

    def text(codes: NDArray[np.int64], names: Iterable[object]) -> pd.Categorical:
        return pd.Categorical.from_codes(codes, [str(name) for name in names])

    rows = pd.DataFrame(
        {
            "chip_id": text(
                np.repeat(np.arange(counts[..., 0].size), counts.shape[-1]),
                range(counts[..., 0].size),
            ),
            "method": text(method, METHODS[:n_methods]),
            "training_seed": network,
            "checkpoint": text(checkpoint, range(n_methods * n_networks)),
            "condition": text(study, (f'{{"study": {k}}}' for k in range(len(counts)))),
            "chip": chip,
            "programming_seed": chip if cell.crossed else n_chips * network + chip,
            "t_inference_s": np.array(times_s)[time],
            "n_correct": counts.ravel(),
        }
    )
    constants = {
        **{
            name: text(np.zeros(len(rows), dtype=np.int64), [value])
            for name, value in CONSTANTS.items()
        },
        "read": 0, "n_images_per_chip": n, "n_correct_digital": n, "n_test": n,
        "n_correct_digital_test": n, "analog_share": 1.0, "alpha": 1.0, "extrapolated": False,
        "reproducible": True,
    }  # fmt: skip
    rows = rows.assign(**constants, n_changed=n - rows["n_correct"])
    if digital is not None:
        own = digital[..., 0][study, method, network]
        rows["n_correct_digital"] = rows["n_correct_digital_test"] = own
        rows["n_changed"] = np.abs(own - rows["n_correct"])
    return rows[list(COLUMNS)]


def smallest_p(rows: pd.DataFrame) -> "pd.Series[float]":
    """Smallest p-value of each study."""
    return rows["p_value"].groupby(rows["condition"], observed=True).min()


def batches(n_studies: int, size: int = 1000) -> Iterator[int]:
    """Sizes of batches of studies, so that few are in memory at once."""
    for done in range(0, n_studies, size):
        yield min(size, n_studies - done)


def run_cell(cell: Cell, n_studies: int, seed: int) -> dict[str, float]:
    """Rates of one cell.

    Returns:
        ``mean``, ``lost``, ``gain``: coverage of the intervals of the accuracy, of the accuracy
        lost since the digital networks, of the gain between two methods, and of the difference of
        their losses (``saved``); ``floor`` and ``floor_lost``: share of intervals of accuracies and
        losses with a floor; ``star``, ``star_saved``, ``bold``, ``worse``: share of studies of
        equal methods with one (NaN: nothing was tested); and with "_logit" the same on the logit
        scale, which is the default here, where digital
        networks make fewer than 20 % errors.
    """
    random = np.random.default_rng(seed)
    true = Truth.of(cell.kind)
    found: dict[str, list[float]] = {}

    def add(name: str, values: "pd.Series[bool] | NDArray[np.bool_]") -> None:
        found.setdefault(name, []).extend(np.asarray(values, dtype=float))

    for n in batches(n_studies):
        digital, analog = (counted(own, cell.n_images) for own in accuracies(cell, n, random))
        chips = chip_means(rows_of(analog, cell, digital=digital))
        for scale in ("accuracy", "auto"):
            tail = "" if scale == "accuracy" else "_logit"
            means = summarise(chips, scale=scale)
            wanted = "accuracy" if scale == "accuracy" else "logit"
            if (means["scale"] != wanted).any():
                raise RuntimeError(f"{cell}: {scale!r} is not the {wanted} scale.")
            value = true.accuracy if scale == "accuracy" else true.typical
            add(f"mean{tail}", (means["low"] <= value) & (value <= means["high"]))
            losses = lost(chips, scale=scale)
            loss = true.lost if scale == "accuracy" else true.typical_lost
            add(f"lost{tail}", (losses["low"] <= loss) & (loss <= losses["high"]))
            gains = paired_gain(chips, scale=scale)
            add(f"gain{tail}", (gains["low"] <= 0) & (gains["high"] >= 0))
            saved = paired_gain(chips, scale=scale, endpoint="lost")
            add(f"saved{tail}", (saved["low"] <= 0) & (saved["high"] >= 0))
            add(f"floor{tail}", means["spread"] == "floor")
            add(f"floor_lost{tail}", losses["spread"] == "floor")
            if cell.n_networks < 3:
                if gains["p_value"].notna().any() or gains["significant"].any():
                    raise RuntimeError(f"{cell}: a test was made from two networks.")
                marks = best_methods(chips, scale=scale)
                if marks["is_best"].any() or marks["p_value"].notna().any():
                    raise RuntimeError(f"{cell}: bold from two networks.")
                continue
            for name, differences in (("star", gains), ("star_saved", saved)):
                p = smallest_p(differences) * (len(METHODS) - 1)
                add(f"{name}{tail}", p < ALPHA)
            marks = best_methods(chips, scale=scale)
            leader = marks["p_worse"].isna()
            add(f"bold{tail}", marks.loc[leader, "p_value"] < ALPHA)
            others = marks[~leader]
            n_pairs = len(METHODS) * (len(METHODS) - 1) / 2
            add(f"worse{tail}", smallest_p(others) * n_pairs < ALPHA)
    return {name: float(np.mean(values)) for name, values in found.items()}


def own_tables(cell: Cell, n_studies: int, seed: int) -> dict[str, float]:
    """Share of studies with a star, a bold method, or a missing tie, each in tables of its own."""
    random = np.random.default_rng(seed)
    digital, analog = (counted(own, cell.n_images) for own in accuracies(cell, n_studies, random))
    flags = {"star": 0, "bold": 0, "worse": 0}
    for study in range(n_studies):
        own = slice(study, study + 1)
        rows = rows_of(analog[own], cell, digital=digital[own])
        flags["star"] += bool(paired_gain(rows, scale="accuracy")["significant"].any())
        marks = best_methods(rows, scale="accuracy")
        flags["bold"] += bool(marks["is_best"].any())
        is_tested = marks["p_value"].notna().any()
        flags["worse"] += bool(is_tested and (marks["p_worse"] < ALPHA).any())
    return {name: number / n_studies for name, number in flags.items()}


RISKS = {
    "normal": (0.6, lambda z: 0.6 + 0.1 * z),
    "lognormal": (0.9, lambda z: 1 - 0.1 * np.exp(z)),
    "left-tailed": (0.9, lambda z: 0.9 - 0.05 * z),
}
"""Accuracy about which chips spread, and that of chips with normal or exponential deviations."""


def run_risk(kind: str, n_networks: int, n_studies: int, seed: int) -> dict[str, float]:
    """Share of studies of two equal methods in which one is bold, by its spread.

    One method spreads three times as much as the other. Two methods are the hardest case: bold
    then has a single test. They are equal on the scale that the rule picks: "normal" as
    accuracies around 60 %; "lognormal" (errors around 10 %) and "left-tailed" (exponential networks
    and chips around 90 %) on the logit scale.
    """
    random = np.random.default_rng(seed)
    cell = Cell(kind, n_networks, 10_000, crossed=False)
    middle, accuracy = RISKS[kind]
    is_logit = middle > LOGIT_FROM
    spreads = np.array([0.1, 0.3])[:, None, None]

    def draw(*shape: int) -> Floats:
        if kind == "left-tailed":
            return random.exponential(size=shape) - 1
        return random.standard_normal(shape)

    def on_scale(n: int, n_networks: int, n_chips: int) -> Floats:
        size = (n, len(spreads), n_networks, n_chips)
        values = accuracy(spreads * (draw(*size[:3], 1) + 0.7 * draw(*size)))
        return special.logit(np.clip(values, 1e-4, 1 - 1e-4)) if is_logit else values

    true = on_scale(TRUTH_DRAWS // 4, 1, 1).mean(axis=(0, 2, 3))[:, None, None]
    found = []
    for n in batches(n_studies):
        values = on_scale(n, n_networks, cell.n_chips) - true + true[0]
        values = special.expit(values) if is_logit else values
        digital = np.full((*values.shape[:3], 1), middle)
        analog, digital = (counted(own, cell.n_images) for own in (values, digital))
        marks = best_methods(chip_means(rows_of(analog, cell, digital=digital)))
        found.append(marks[marks["p_worse"].isna()])
    leader = pd.concat(found)
    is_bold, is_wide = leader["p_value"] < ALPHA, leader["method"] == METHODS[1]
    return {
        "bold": float(is_bold.mean()),
        "narrow": float((is_bold & ~is_wide).mean()),
        "wide": float((is_bold & is_wide).mean()),
    }


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
    hits, estimates = [], []
    for n in batches(n_studies):
        size = (n, 1, n_networks, cell.n_chips, 1)
        network = 0.004 * random.standard_normal((*size[:3], 1, 1))
        accuracy = 0.99 - curve + network + 0.002 * random.standard_normal(size)
        rows = rows_of(counted(accuracy, cell.n_images), cell, times_s)
        rows["n_correct_digital"] = rows["n_correct_digital_test"] = 9_900
        rows["n_changed"] = 9_900 - rows["n_correct"]
        lives = lifetime(rows, 0.025)
        hits.append((lives["low_s"] <= true) & (true <= lives["high_s"]))
        estimates.append(lives["lifetime_s"])
    ratio = float(pd.concat(estimates).median() / true)
    return {"covered": float(pd.concat(hits).mean()), "ratio": ratio}


def run_two_stages(n_networks: int, n_studies: int, seed: int) -> dict[str, float]:
    """Coverage of the interval of a study whose second stage is sized by its first.

    Networks spread by 0.5 points, chips by 1.5; of one network the truth is its own mean.
    """
    random = np.random.default_rng(seed)
    cell = Cell("normal", n_networks, 10_000, crossed=False, n_chips=max(LOOKS))
    covered, ended = [], []
    for n in batches(n_studies, 200):
        network = 0.005 * random.standard_normal((n, 1, n_networks, 1))
        chip = 0.015 * random.standard_normal((n, 1, n_networks, cell.n_chips))
        chips = chip_means(rows_of(counted(0.9 + network + chip, cell.n_images), cell))
        wanted = chips_for(chips[chips["chip"] < LOOKS[0]], TARGETS[n_networks], 0.95)
        wanted = wanted.clip(upper=LOOKS[-1]).droplevel([g for g in GROUP if g != "condition"])
        n_chips = pd.Series(LOOKS[0], index=wanted.index)
        for look, larger in itertools.pairwise(LOOKS):
            n_chips[wanted > look] = larger
        number = chips["condition"].astype(str).map(n_chips.rename(index=str))
        means = summarise(chips[chips["chip"] < number], scale="accuracy")
        truth_here = np.where(n_networks > 1, 0.9, 0.9 + network[:, 0, 0, 0])
        truth_here = truth_here[[json.loads(text)["study"] for text in means["condition"]]]
        covered.append((means["low"] <= truth_here) & (truth_here <= means["high"]))
        ended.append(means["n_chips"])
    hits, numbers = pd.concat(covered), pd.concat(ended)
    at = hits.groupby(numbers).agg(["mean", "size"])
    at = at[at["size"] >= 20]
    return {"covered": float(hits.mean()), **{f"{k} chips": v for k, v in at["mean"].items()}}


LOOKS = (10, 20, 40, 80)
"""Numbers of chips of the two stages."""

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
    hits = []
    for n in batches(n_studies):
        chance = random.beta(share * strength, (1 - share) * strength, size=(n, 1, n_networks, 1))
        passed = random.uniform(size=(n, 1, n_networks, cell.n_chips)) < chance
        rows = rows_of(counted(np.where(passed, 0.95, 0.93), cell.n_images), cell)
        found = yields(rows, 0.94)
        hits.append((found["low"] <= share) & (share <= found["high"]))
    return {"covered": float(pd.concat(hits).mean())}


def run_bootstrap(kind: str, n_networks: int, n_studies: int, seed: int) -> dict[str, float]:
    """Coverage of the bootstrap and of Student's interval, and the width of one by the other's.

    Means of networks around 0: normal, lognormal (- exp(0.5 z)) or exponential (- e).

    Returns:
        ``bootstrap`` and ``Student``: coverage; ``median`` and ``95 %``: quantiles of the ratio of
        the longer side of the bootstrap's interval to Student's half-width.
    """
    random = np.random.default_rng(seed)
    size = (n_studies, n_networks)
    values, true = {
        "normal": lambda: (random.standard_normal(size), 0.0),
        "lognormal": lambda: (-np.exp(0.5 * random.standard_normal(size)), -math.exp(0.125)),
        "exponential": lambda: (-random.exponential(size=size), -1.0),
    }[kind]()
    bounds = np.array([_resampled(own, random) for own in values])
    mean = values.mean(axis=1)
    student = stats.t.ppf(0.975, n_networks - 1) * values.std(axis=1, ddof=1)
    student /= math.sqrt(n_networks)
    ratio = np.maximum(mean - bounds[:, 0], bounds[:, 1] - mean) / student
    return {
        "bootstrap": float(np.mean((bounds[:, 0] <= true) & (true <= bounds[:, 1]))),
        "Student": float(np.mean(np.abs(mean - true) <= student)),
        "median": float(np.median(ratio)),
        "95 %": float(np.quantile(ratio, 0.95)),
    }


def _resampled(values: Floats, random: np.random.Generator) -> tuple[float, float]:
    """The studentised bootstrap of one sample, for any number of values."""
    n = len(values)
    draws = values[random.integers(n, size=(1999, n))]
    shift, error = draws.mean(axis=1) - values.mean(), draws.std(axis=1, ddof=1) / math.sqrt(n)
    without = np.where(np.abs(shift) < 1e-12, 0.0, np.copysign(np.inf, shift))
    ratio = np.divide(shift, error, out=without, where=error > 0)
    low, high = np.quantile(ratio, [0.025, 0.975], method="inverted_cdf")
    scale = values.std(ddof=1) / math.sqrt(n)
    return float(values.mean() - high * scale), float(values.mean() - low * scale)


def run_pooled(n_methods: int, shared: float, n_studies: int, seed: int) -> dict[str, float]:
    """Coverage of pooled intervals of three networks, by the share of the seeds in the variance.

    Returns:
        ``equal``: all methods spread alike; ``x 1.5`` and so on: the first method spreads as many
        times as much as the others, coverage of its own interval.
    """
    found = {}
    for factor in (1.0, 1.5, 2.0, 3.0, 5.0):
        random = np.random.default_rng(seed)
        networks = math.sqrt(shared) * random.standard_normal((n_studies, 3, 1))
        own = random.standard_normal((n_studies, 3, n_methods))
        networks = networks + math.sqrt(1 - shared) * own
        networks[..., 0] *= factor
        pooled, alone = spread.pooled_spreads(networks), networks.std(axis=1, ddof=1)
        is_pooled = pooled.dof > 2
        error = spread.StandardError(
            np.where(is_pooled, pooled.value, alone) / math.sqrt(3),
            np.where(is_pooled, pooled.dof, 2.0),
        )
        hits = np.abs(networks.mean(axis=1)) <= error.half_width(0.95)
        if factor == 1:
            found["equal"] = float(hits.mean())
        else:
            found[f"x {factor:g}"] = float(hits[:, 0].mean())
    return found


Part = Literal["means", "tables", "risk", "lifetimes", "stages", "yields", "pooled", "bootstrap"]


def main(
    studies: int = 2000,
    networks: tuple[int, ...] = (2, 3, 5, 10),
    images: tuple[int, ...] = (360, 10_000),
    kinds: tuple[str, ...] = ("normal", "lognormal", "left-tailed"),
    parts: tuple[Part, ...] = get_args(Part),
    seed: int = 1,
) -> None:
    """Simulate studies and print coverage and false positives.

    Args:
        studies: Simulated studies of every cell.
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
    tested = [n for n in networks if n >= 3]
    print(f"{studies:,} studies a cell; seed {seed}; standard error at 5 or 95 %: {error:.2f} %")
    if "means" in parts:
        print("Coverage [%] and studies with a false positive [%], accuracy and logit (default)")
        for k, cell in enumerate(cells):
            print(cell, _line(run_cell(cell, studies, seed + k)), flush=True)
    if "tables" in parts:
        print("The same of 2 chips a network; the first studies also in tables of their own")
        for k, n in enumerate(n for n in networks if n <= 5):
            cell = Cell("normal", n, 360, crossed=False, n_chips=2)
            few = min(studies // 100, 1000)
            own, together = own_tables(cell, few, seed + k), run_cell(cell, few, seed + k)
            if any(own[name] != together.get(name, 0.0) for name in own):
                raise RuntimeError(f"{cell}: own tables have {own}, one table {together}.")
            print(cell, _line(run_cell(cell, studies, seed + k)), flush=True)
    if "pooled" in parts:
        print("Pooled spreads of 3 networks: coverage [%], equal methods, then of one that spreads")
        for n_methods, shared in itertools.product((2, 3, 4, 8), (0.0, 0.33, 0.67, 0.9)):
            found = run_pooled(n_methods, shared, studies, seed)
            print(f"{n_methods} methods, seeds' share {shared:.2f}:", _line(found), flush=True)
    if "bootstrap" in parts:
        print("Bootstrap: coverage [%]; longer side / Student's half-width, median and 95 %")
        for kind in ("normal", "lognormal", "exponential"):
            for n in (5, 8, 10, 15, 20):
                found = run_bootstrap(kind, n, studies, seed)
                text = f"bootstrap {100 * found['bootstrap']:.1f}  Student "
                text += (
                    f"{100 * found['Student']:.1f}  x {found['median']:.2f}, {found['95 %']:.2f}"
                )
                print(f"{kind:11} {n:2} networks: {text}", flush=True)
    if "risk" in parts:
        print("Studies [%] of two equal methods with a bold one: the one that spreads less, more")
        for kind in RISKS:
            for n in tested:
                found = run_risk(kind, n, studies, seed)
                print(f"{kind:12} {n:2} networks", _line(found), flush=True)
    if "stages" in parts:
        print("Two stages: coverage [%] of all studies, and of those with so many chips")
        for n in TARGETS:
            print(f"{n} networks", _line(run_two_stages(n, studies, seed)), flush=True)
    if "yields" in parts:
        print("Yield: coverage [%] of the share of chips above a target")
        for n in networks:
            for share in (0.5, 0.9, 0.98):
                found = run_yields(n, share, studies, seed)
                print(f"{n:2} networks, {share:.2f}: {_line(found)}", flush=True)
    if "lifetimes" in parts:
        print("Lifetimes: coverage [%], median estimate / truth")
        for shape in LOSSES:
            for n in tested:
                for times_s in (TIMES_S, MANY_TIMES_S):
                    found = run_lifetimes(shape, n, times_s, studies, seed)
                    text = f"{100 * found['covered']:5.1f} %  x {found['ratio']:.2f}"
                    print(f"{shape:9} {n:2} networks, {len(times_s):2} times  {text}", flush=True)


def _line(found: dict[str, float]) -> str:
    return "  ".join(f"{name} {100 * value:.1f}" for name, value in found.items())


if __name__ == "__main__":
    tyro.cli(main)
