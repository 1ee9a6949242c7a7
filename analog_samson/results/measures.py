"""What tests of claims measure: values of networks, and the estimate that they give.

A measure of its own is one entry of `MEASURES`, with the function that computes it.
"""

import functools
import json
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import stats

from analog_samson.results import spread
from analog_samson.results.checking import csv_in, read_text_table
from analog_samson.results.columns import DIGEST_LENGTH
from analog_samson.results.correlation import rank_correlation
from analog_samson.results.definitions import COMPARED_UNDER
from analog_samson.results.subsets import digital_score
from analog_samson.results.summary import chip_means
from analog_samson.times import seconds

CONFIDENCE = 0.95

DRAWS = 9999
"""Resamplings of training seeds for the interval of a correlation."""

DIGITAL = "digital"
"""Name of the device of a network without analog noise."""

TRAINING_IMAGES = "training_images.csv"

SETTING_KEYS = ("device", "compensation", "condition", "time_s")

"""Keys of a setting: of tests, and of their ``minus``."""

_CHIP = ("training_seed", "chip", "programming_seed")


Test = Mapping[str, Any]
"""A test of a protocol."""


class IncompleteError(ValueError):
    """Rows that an endpoint needs are not there yet."""


class OtherIncompleteError(IncompleteError):
    """Rows of the other study, which a test names, are not there yet."""


class Estimate(NamedTuple):
    """What a measure gives.

    Attributes:
        value: The estimate.
        low: Lower end of its interval; NaN with fewer than two values.
        high: Upper end.
        n: Number of training seeds (or values of ``by``); of a correlation networks.
        n_chips: Chips of each network, the smallest number; 0 where there is none.
        p_value: Gives the two-sided p-value of the hypothesis that a number is the truth.
        beside: What is reported beside it.
    """

    value: float
    low: float
    high: float
    n: int
    n_chips: int
    p_value: Callable[[float], float]
    beside: str = ""


@dataclass(frozen=True)
class Evidence:
    """The tables of a finished study.

    Attributes:
        folder: Folder of the study, with its CSV files.
        networks: Trained networks, with ``variant``, ``strength``, ``training_seed`` and
            ``checkpoint`` (as in ``trials.csv``); empty for a study of other tables alone.
        rows: Rows of trials of these networks.
        seeds: Training seeds that a table must have where there are no networks.
        methods: Methods that may be without rows, because every training failed.
        beside: Other studies that tests name, by folder as written there.
    """

    folder: Path
    networks: pd.DataFrame
    rows: pd.DataFrame
    seeds: Collection[int] = ()
    methods: Collection[str] = ()
    beside: Mapping[str, "Evidence"] = field(default_factory=dict)

    def trials(self, method: str) -> pd.DataFrame:
        """Rows of trials of a method."""
        return self._of(method, self._with_variant(self.rows))

    def table(self, name: str, method: str | None, where: Mapping[str, Any]) -> pd.DataFrame:
        """Rows of a CSV file, all values as text.

        Args:
            name: Its name in the folder.
            method: The method whose rows are taken; None takes all.
            where: Columns and the value that each must have.

        Raises:
            IncompleteError: If there is no such file.
            ValueError: If it has no such column, no row with a value, or none of the method.
        """
        file = csv_in(self.folder, name)
        if file is None:
            raise IncompleteError(f"{self.folder / name} is not there")
        rows = read_text_table(file)
        if "checkpoint" in rows and len(self.networks):
            rows["checkpoint"] = rows["checkpoint"].str[:DIGEST_LENGTH]
            rows = self._with_variant(rows)
        is_meant = pd.Series(True, index=rows.index)
        for column, value in where.items():
            cells = _column(rows, column, name)
            if isinstance(value, str | bool):
                has_value = cells == str(value)
            else:
                has_value = pd.to_numeric(cells, errors="coerce") == value
            if len(rows) and not has_value.any():
                found = sorted(cells.unique())[:10]
                raise ValueError(f"{name} has no row with {column} = {value!r}; there are {found}.")
            is_meant &= has_value
        rows = rows if method is None else self._of(method, rows)
        return rows[is_meant.reindex(rows.index)]

    def training_images(self, method: str | None = None) -> pd.DataFrame:
        """Accuracy of chips on training images, averaged over the reads of a time.

        Args:
            method: The method whose chips are taken; None takes all.

        Returns:
            One row per chip and time: ``checkpoint``, ``chip_id``, ``t_inference_s`` [s] and
            ``training`` (a fraction).

        Raises:
            IncompleteError: If no chip has answered training images.
        """
        rows = self.table(TRAINING_IMAGES, method, {})
        counts = pd.to_numeric(_column(rows, "n_correct_training", TRAINING_IMAGES))
        shares = counts / pd.to_numeric(rows["n_training_images"])
        rows = rows.assign(training=shares, t_inference_s=pd.to_numeric(rows["t_inference_s"]))
        keys = ["checkpoint", "chip_id", "t_inference_s"]
        return rows.groupby(keys, sort=False)["training"].mean().reset_index()

    def seeds_of(self, method: str | None) -> set[int]:
        """Training seeds of which a value is needed."""
        if not len(self.networks):
            return set(self.seeds)
        own = self.networks if method is None else self._of(method, self.networks)
        return set(own["training_seed"])

    def _with_variant(self, rows: pd.DataFrame) -> pd.DataFrame:
        """Rows of the study's networks, with variant, strength and training seed of each."""
        kept = ["checkpoint", "variant", "strength", "training_seed"]
        rows = rows.drop(columns=[name for name in kept[1:] if name in rows])
        return rows.merge(self.networks[kept], on="checkpoint")

    def _of(self, method: str, rows: pd.DataFrame) -> pd.DataFrame:
        name, _, strength = method.partition(" ")
        column = "variant" if "variant" in rows else "method"
        own = rows[_column(rows, column, "the table") == name]
        if strength:
            own = own[own["strength"] == strength]
        elif "strength" in own and own["strength"].nunique() > 1:
            names = sorted(f"{name} {one}" for one in own["strength"].unique())
            raise ValueError(f"{method!r} is there in {len(names)} strengths; give one of {names}.")
        if own.empty and name not in self.methods:
            raise ValueError(f"No row of {method!r}; there are {sorted(set(rows[column]))}.")
        return own


@dataclass(frozen=True)
class Measure:
    """What a test measures.

    Attributes:
        estimate: Gives the estimate of a test from a study's tables.
        needed: Keys that a test needs.
        others: Keys that it may have besides.
        one_of: Keys one of which it needs, among the others.
        unit: Unit of the estimate; "" is that which the test names.
        words: How a description of a test begins.
        is_of_chips: Whether its ``minus`` names a setting of chips, also of another study;
            otherwise values of ``where``.
    """

    estimate: Callable[[Test, Evidence], Estimate]
    needed: tuple[str, ...]
    others: tuple[str, ...]
    one_of: tuple[str, ...] = ()
    unit: str = ""
    words: str = ""
    is_of_chips: bool = True


def other_study(test: Test) -> str | None:
    """Folder of the study whose networks ``minus`` takes; None: those of the same study."""
    is_of_chips = MEASURES[test["measure"]].is_of_chips
    study: str | None = test.get("minus", {}).get("study") if is_of_chips else None
    return study


def with_minus(test: Test) -> dict[str, Any]:
    """The test under the setting of ``minus``."""
    minus = dict(test["minus"])
    if MEASURES[test["measure"]].is_of_chips:
        minus.pop("study", None)
    else:
        minus = {"where": {**test.get("where", {}), **minus}}
    return {**test, **minus}


def setting_words(setting: Mapping[str, Any]) -> list[str]:
    """A setting in words: ["pcm_like", "compensation global", "1 y"]."""
    words = [setting["device"]] if "device" in setting else []
    words += [f"compensation {setting['compensation']}"] if "compensation" in setting else []
    words += pairs(setting.get("condition", {}))
    return words + ([str(setting["time_s"])] if "time_s" in setting else [])


def pairs(values: Mapping[str, Any]) -> list[str]:
    """Names and values: ["sigma 0.1"]."""
    return [f"{name} {value if value != '' else 'empty'}" for name, value in values.items()]


_Values = Callable[[Test, Evidence, str | None], "pd.Series[float]"]
"""Values of a method, by training seed, or by training seed, chip and its random seed."""


def _mean(test: Test, evidence: Evidence, values: _Values) -> Estimate:
    """Mean over training seeds of the values, or of their differences, with Student's t."""
    by_seed, n_chips = _by_seed(_compared(test, evidence, values))
    if "minus" in test:
        of_study = other_study(test)
        there = evidence if of_study is None else evidence.beside[of_study]
        try:
            other, n = _by_seed(_compared(with_minus(test), there, values))
        except IncompleteError as reason:
            if of_study is None:
                raise
            raise OtherIncompleteError(f"{of_study}: {reason}") from None
        by_seed, n_chips = (by_seed - other).dropna(), min(n_chips, n)
    found = np.asarray(by_seed, dtype=np.float64)
    mean, low, high = spread.mean_interval(found, CONFIDENCE)
    error = spread.of_independent(found)
    return Estimate(
        mean, low, high, len(by_seed), n_chips, lambda limit: _p_value(mean - limit, error)
    )


def _p_value(distance: float, error: spread.StandardError) -> float:
    """Two-sided p-value of an estimate at a distance from the limit; without spread 0 or 1."""
    if error.dof > 0 and error.value == 0:
        return float(distance == 0)
    return float(error.p_value(distance))


def _compared(test: Test, evidence: Evidence, values_of: _Values) -> "pd.Series[float]":
    """Values of the method, or their differences to those of ``over``, of chips that both have."""
    values = values_of(test, evidence, test.get("method"))
    if "over" not in test:
        return values
    others = values_of(test, evidence, test["over"])
    gains = (values - others).dropna()
    seeds, others_seeds, kept = (
        set(one.index.get_level_values(0)) for one in (values, others, gains)
    )
    if lost := sorted((seeds & others_seeds) - kept):
        raise ValueError(
            f"{test['method']} and {test['over']} have no chip in common in {lost}; evaluate both "
            "with the same study seed."
        )
    return gains


def _of_every_seed(
    values: "pd.Series[float]", test: Test, evidence: Evidence, method: str | None
) -> "pd.Series[float]":
    """The values; raises `IncompleteError` if a training seed has none."""
    missing = evidence.seeds_of(method) - set(values.index.get_level_values(0))
    if missing:
        what = method or f"{test['column']} in {test['table']}"
        raise IncompleteError(f"{what} has no value of the seeds {sorted(missing)}")
    return values


def _points(test: Test, evidence: Evidence, method: str | None) -> "pd.Series[float]":
    """Accuracy in points."""
    values = 100 * _accuracies(test, evidence, str(method))
    return _of_every_seed(values, test, evidence, method)


def _normalised(test: Test, evidence: Evidence, method: str | None) -> "pd.Series[float]":
    """Accuracy between chance and the digital reference; a failed reference leaves its seed out."""
    chance = 1 / test["n_classes"]
    one = _accuracies({"device": DIGITAL}, evidence, test["reference"]) - chance
    own = _accuracies(test, evidence, str(method)) - chance
    values: pd.Series[float] = own / one.reindex(own.index.get_level_values(0)).to_numpy()
    return values.dropna()


def _gaps(test: Test, evidence: Evidence, method: str | None) -> "pd.Series[float]":
    """Accuracy on training images minus that on test images, in points, of chips that have both."""
    images = evidence.training_images(method).set_index(["chip_id", "t_inference_s"])
    chips = _chips(test, evidence.trials(str(method)))
    keys = pd.MultiIndex.from_frame(chips[["chip_id", "t_inference_s"]])
    gaps = images["training"].reindex(keys).set_axis(chips.index) - chips["accuracy"]
    return _of_every_seed(100 * gaps.dropna(), test, evidence, method)


def _accuracies(setting: Mapping[str, Any], evidence: Evidence, method: str) -> "pd.Series[float]":
    rows = evidence.trials(method)
    if setting["device"] == DIGITAL:
        firsts = rows.drop_duplicates("checkpoint").set_index("training_seed")
        return digital_score(firsts)
    chips = _chips(setting, rows)
    return chips["accuracy"]


def _chips(setting: Mapping[str, Any], rows: pd.DataFrame) -> pd.DataFrame:
    """Chips under a setting, by training seed, chip and its random seed."""
    if rows.empty:  # all networks of the method failed
        empty = pd.MultiIndex.from_arrays([[], [], []], names=_CHIP)
        return pd.DataFrame({"accuracy": [], "chip_id": [], "t_inference_s": []}, index=empty)
    rows = _under(setting, rows)
    kinds = rows[list(COMPARED_UNDER)].drop_duplicates()
    if kinds.empty:
        raise IncompleteError(f"no row of {', '.join(setting_words(setting))!r}")
    differ = [name for name in COMPARED_UNDER if kinds[name].nunique() > 1]
    if differ:
        found = kinds[differ].to_dict("records")
        raise ValueError(
            f"Rows of {', '.join(setting_words(setting))!r} differ in {', '.join(differ)}: "
            f"{found[:3]}; name one."
        )
    return chip_means(rows).set_index(list(_CHIP))


def _under(setting: Mapping[str, Any], rows: pd.DataFrame) -> pd.DataFrame:
    """Rows with the values that a setting names."""
    for key in ("device", "compensation"):
        if key in setting:
            rows = rows[rows[key] == setting[key]]
    if "condition" in setting:
        kinds = [k for k in rows["condition"].unique() if json.loads(k) == setting["condition"]]
        rows = rows[rows["condition"].isin(kinds)]
    if "time_s" in setting:
        time_s = seconds(setting["time_s"])
        rows = rows[np.isclose(rows["t_inference_s"].to_numpy(dtype=float), time_s, rtol=1e-9)]
    return rows


def _from_table(test: Test, evidence: Evidence, method: str | None) -> "pd.Series[float]":
    rows = evidence.table(test["table"], method, test.get("where", {}))
    by = test.get("by", "training_seed")
    keys = _column(rows, by, test["table"])
    if rows.empty and by != "training_seed":
        raise ValueError(f"{test['table']} has no row that the test is about.")
    values = _numbers(rows, test).groupby(keys.astype(int) if by == "training_seed" else keys)
    means = values.mean()
    if test.get("log10", False):
        if (means <= 0).any():
            raise ValueError(f"{test['column']} in {test['table']} has values without logarithm.")
        means = pd.Series(np.log10(means))
    means = means * float(test.get("scale", 1.0))
    return _of_every_seed(means, test, evidence, method) if by == "training_seed" else means


def _numbers(rows: pd.DataFrame, test: Test) -> "pd.Series[float]":
    numbers = pd.to_numeric(_column(rows, test["column"], test["table"]), errors="coerce")
    is_none = ~np.isfinite(numbers)
    if is_none.any():
        raise ValueError(
            f"{int(is_none.sum())} of {len(numbers)} values of {test['column']} in "
            f"{test['table']} are no finite numbers; choose rows by 'where'."
        )
    return numbers


def _column(rows: pd.DataFrame, name: str, table: str) -> "pd.Series[Any]":
    if name not in rows:
        raise ValueError(f"{table} has no column {name!r}; it has {sorted(rows.columns)}.")
    return rows[name]


def _by_seed(values: "pd.Series[float]") -> tuple["pd.Series[float]", int]:
    """Mean of the chips of each training seed, and the smallest number of them."""
    if values.index.nlevels == 1:
        return values, 0
    groups = values.groupby(level=0)
    return groups.mean(), int(groups.size().min()) if len(values) else 0


def _correlation(test: Test, evidence: Evidence) -> Estimate:
    """Spearman's correlation over networks, with correlations within and between methods."""
    rows = evidence.table(test["table"], None, test.get("where", {}))
    property_ = _numbers(rows, test).groupby(_column(rows, "checkpoint", test["table"])).mean()
    trials = evidence.rows[evidence.rows["checkpoint"].isin(evidence.networks["checkpoint"])]
    chips = _chips(test, trials)
    groups = (chips["clean_accuracy"] - chips["accuracy"]).groupby(chips["checkpoint"])
    networks = evidence.networks.set_index("checkpoint")
    networks = networks.assign(x=property_, y=groups.mean())
    if networks[["x", "y"]].isna().any(axis=None):
        n = int(networks[["x", "y"]].isna().any(axis=1).sum())
        raise IncompleteError(f"{n} networks are not in {test['table']}, or have no chips")
    x, y = networks["x"].to_numpy(), networks["y"].to_numpy()
    seeds = networks.groupby("training_seed", sort=True).indices.values()
    of_seed = [np.asarray(own, dtype=np.int64) for own in seeds]
    middle, error = _fishers_z(_spearman(x, y)), _error_of_z(x, y, of_seed)
    half_width = error.half_width(CONFIDENCE)
    low, high = float(np.tanh(middle - half_width)), float(np.tanh(middle + half_width))
    methods = networks["variant"] + " " + networks["strength"]
    correlation = rank_correlation(x, y, methods.to_numpy())
    means = networks.groupby(methods)[["x", "y"]].mean().to_numpy().T
    beside = (
        f"between methods {float(_spearman(*means)):.2f} ({means.shape[1]} methods), "
        f"within methods {correlation.within:.2f} (p = {correlation.p_within:.4f})"
    )
    return Estimate(
        correlation.overall,
        low,
        high,
        len(x),
        int(groups.size().min()),
        lambda limit: _p_value(float(middle - _fishers_z(limit)), error),
        beside,
    )


def _error_of_z(
    x: spread.Floats, y: spread.Floats, of_seed: Sequence[NDArray[np.int64]]
) -> spread.StandardError:
    """Standard error of Fisher's z of Spearman's correlation; training seeds are the sample.

    From resampled training seeds (`DRAWS`, seed 0), with one degree of freedom less than seeds.
    Percentiles of as few seeds cover too rarely: 77 to 91 % with 5 and 10 seeds, this 92 to 99 %
    (simulation, test_endpoints.py).
    """
    n_seeds = len(of_seed)
    if n_seeds < 2:
        return spread.UNKNOWN
    picked = np.random.default_rng(0).integers(n_seeds, size=(DRAWS, n_seeds))
    resampled = [np.concatenate([of_seed[seed] for seed in seeds]) for seeds in picked]
    found = np.concatenate(
        [
            _spearman(x[own], y[own])
            for n in {len(one) for one in resampled}
            for own in [np.stack([one for one in resampled if len(one) == n])]
        ]
    )
    error = _fishers_z(found).std() * np.sqrt(n_seeds / (n_seeds - 1))
    return spread.StandardError(error, n_seeds - 1)


def _fishers_z(correlation: spread.Floats | float) -> spread.Floats:
    largest = 1 - 1e-9  # of a finite z
    return np.asarray(np.arctanh(np.clip(correlation, -largest, largest)), dtype=np.float64)


def _spearman(x: spread.Floats, y: spread.Floats) -> spread.Floats:
    """Rank correlations of the last axis."""
    ranks = stats.rankdata(np.stack([x, y]), axis=-1)
    a, b = ranks - ranks.mean(axis=-1, keepdims=True)
    products = (a * b).sum(axis=-1), (a**2).sum(axis=-1) * (b**2).sum(axis=-1)
    return np.asarray(products[0] / np.sqrt(products[1]), dtype=np.float64)


MEASURES: Mapping[str, Measure] = {
    "gain": Measure(
        functools.partial(_mean, values=_points),
        needed=("method", "device"),
        others=("over", "minus", *SETTING_KEYS),
        one_of=("over", "minus"),
        unit="points",
        words="gain",
    ),
    "normalised": Measure(
        functools.partial(_mean, values=_normalised),
        needed=("method", "reference", "n_classes", "device"),
        others=("minus", *SETTING_KEYS),
        words="normalised accuracy",
    ),
    "gap": Measure(
        functools.partial(_mean, values=_gaps),
        needed=("method", "device"),
        others=("over", "minus", *SETTING_KEYS),
        unit="points",
        words="gap",
    ),
    "table": Measure(
        functools.partial(_mean, values=_from_table),
        needed=("table", "column"),
        others=("method", "over", "minus", "where", "by", "log10", "scale", "unit"),
        is_of_chips=False,
    ),
    "rank_correlation": Measure(
        _correlation,
        needed=("table", "column", "device"),
        others=("where", *SETTING_KEYS),
        words="rank correlation of",
    ),
}
"""Measures, by the name that a test gives.

- ``gain``: accuracy of ``method`` on ``device``, in points, paired by training seed and chip. With
  ``over``, that of another method is subtracted; with ``minus``, the mean of each training seed
  under another setting.
- ``normalised``: accuracy of ``method`` between chance (0) and the digital network of ``reference``
  with the same training seed (1).
- ``gap``: accuracy on training images (`TRAINING_IMAGES`) minus that on test images of the same
  chips, in points; ``over`` and ``minus`` as above.
- ``table``: a column of a CSV file of the study, averaged over the rows of a ``method`` (or
  ``where``) with the same value in column ``by`` (training_seed by default); its ``log10``, then
  times ``scale``. ``over`` as above; ``minus`` replaces values of ``where``.
- ``rank_correlation``: Spearman's, over all networks, of a column of a CSV file with the accuracy
  lost on ``device``; its interval resamples training seeds (Fisher's z, Student's t).

A setting is a ``device`` ("digital": the network itself), ``compensation``, ``condition`` (swept
axes) and ``time_s``; what is left out must be the same in all rows that are meant. In ``minus``,
``study`` names the folder of another study with the same training seeds. A method is a
variant of the protocol, with its strength where there are several ("rwp sigma=0.2").
"""
