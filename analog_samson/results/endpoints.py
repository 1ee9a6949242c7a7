"""Endpoints of claims: what a test of a protocol measures, its interval over seeds, its verdict.

A test is a table of a ``protocol.toml``, such as

    {measure = "gain", method = "samson", over = "sam", device = "pcm_like",
     compensation = "global", time_s = "1 y", above = 0.0}

Its keys are in `MEASURES`, its limit is one of `LIMITS`. Chips of a network are averaged, values
are paired by training seed (and chip), and the interval is Student's t over training seeds.
"""

import json
import math
from collections.abc import Collection, Mapping, Sequence
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
from analog_samson.results.scores import ACCURACY, score_of
from analog_samson.results.subsets import digital_score
from analog_samson.results.summary import chip_means
from analog_samson.times import seconds

CONFIDENCE = 0.95

DRAWS = 9999
"""Resamplings of training seeds for the interval of a correlation."""

DIGITAL = "digital"
"""Name of the device of a network without analog noise."""

TRAINING_IMAGES = "training_images.csv"

_SETTING = ("device", "compensation", "condition", "time_s")

_CHIP = ("training_seed", "chip", "programming_seed")

MEASURES: Mapping[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "gain": (("method", "device"), ("over", "minus", *_SETTING)),
    "normalised": (("method", "reference", "n_classes", "device"), ("minus", *_SETTING)),
    "gap": (("method", "device"), ("over", "minus", *_SETTING)),
    "table": (("table", "column"), ("method", "over", "minus", "where", "by", "log10",
                                    "scale", "unit")),
    "rank_correlation": (("table", "column", "device"), ("where", *_SETTING)),
}  # fmt: skip
"""Measures, the keys that each needs, and those that it may have besides.

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

LIMITS = ("above", "below", "differs_from", "at_least")
"""Kinds of limits; "at_least" needs a ``margin``, and is "above" the limit minus the margin."""

VERDICTS = ("holds", "not shown", "the opposite", "too few networks")
"""The interval lies wholly on the claimed side; contains the limit; lies on the other side; there
is none."""


class IncompleteError(ValueError):
    """Rows that an endpoint needs are not there yet."""


class OtherIncompleteError(IncompleteError):
    """Rows of the other study, which a test names, are not there yet."""


class Endpoint(NamedTuple):
    """The result of a test.

    Attributes:
        value: The estimate.
        low: Lower end of its interval; NaN with fewer than two values.
        high: Upper end.
        n: Number of training seeds (or values of ``by``); of a correlation networks.
        n_chips: Chips of each network, the smallest number; 0 where there is none.
        unit: Unit of the value.
        verdict: One of `VERDICTS`.
        p_value: Two-sided, of the hypothesis that the limit is the truth: below 0.05 where the
            interval does not contain the limit; NaN without an interval.
        beside: What is reported beside it.
    """

    value: float
    low: float
    high: float
    n: int
    n_chips: int
    unit: str
    verdict: str
    p_value: float
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


def check_test(test: Mapping[str, Any], names: Collection[str] = ()) -> None:
    """Refuse a test that cannot be understood.

    Args:
        test: The test.
        names: Methods of the protocol, with strengths where there are several; empty where it
            has none.

    Raises:
        ValueError: If the measure is unknown, a key is missing or unknown, a method is not among
            the names, or there is not exactly one limit.
    """
    measure = str(test.get("measure"))
    if measure not in MEASURES:
        raise ValueError(f"measure must be one of {sorted(MEASURES)}; got {measure!r}.")
    needed, others = MEASURES[measure]
    missing = [key for key in needed if key not in test]
    if missing:
        raise ValueError(f"A test of {measure!r} needs the keys {missing}; add them.")
    unknown = sorted(set(test) - {"measure", "margin", *needed, *others, *LIMITS})
    if unknown:
        raise ValueError(
            f"Unknown keys {unknown} of a test of {measure!r}; allowed are "
            f"{sorted({*needed, *others})} and a limit."
        )
    if measure == "gain" and not {"over", "minus"} & set(test):
        raise ValueError("A gain needs 'over' (a method) or 'minus' (a setting); add one.")
    minus = test.get("minus")
    if "minus" in test and (not isinstance(minus, Mapping) or not minus):
        raise ValueError(f"'minus' is a table of settings that differ; got {minus!r}.")
    study = other_study(test)
    if study is not None and (not isinstance(study, str) or not study):
        raise ValueError(f"'study' of 'minus' is the folder of a study; got {study!r}.")
    unknown = sorted(set(minus or {}) - {"study", *_SETTING})
    if unknown and measure != "table":
        raise ValueError(f"Unknown keys {unknown} of 'minus'; allowed are {['study', *_SETTING]}.")
    limits = [key for key in LIMITS if key in test]
    if len(limits) != 1 or ("margin" in test) != (limits == ["at_least"]):
        raise ValueError(
            f"A test needs one limit of {list(LIMITS)}, and 'margin' with 'at_least' only; got "
            f"{[*limits, *(['margin'] if 'margin' in test else [])]}."
        )
    for setting in (test, test.get("minus", {})):
        more = [key for key in _SETTING[1:] if key in setting]
        if setting.get("device") == DIGITAL and more:
            raise ValueError(f"Digital networks have no {more}; leave them out.")
    for key in ("method", "over", "reference"):
        if key in test and names and test[key] not in names:
            raise ValueError(f"{key} = {test[key]!r} is not in the protocol: {sorted(names)}.")


def endpoint(test: Mapping[str, Any], evidence: Evidence) -> Endpoint:
    """Compute the endpoint of a test.

    Args:
        test: The test, which `check_test` accepts.
        evidence: The tables.

    Returns:
        Estimate, interval and verdict.

    Raises:
        IncompleteError: If a value of a network is missing; `OtherIncompleteError` if it is one of
            the other study.
        ValueError: If the tables do not have what the test names.
    """
    if test["measure"] != "table" and score_of(evidence.rows) != ACCURACY:
        raise ValueError(
            f"{test['measure']!r} is of accuracies, and these rows are of "
            f"{score_of(evidence.rows).name!r}; write a CSV file and use the measure 'table'."
        )
    if test["measure"] == "rank_correlation":
        return _correlation(test, evidence)
    by_seed, n_chips = _by_seed(_compared(test, evidence))
    if "minus" in test:
        of_study = other_study(test)
        there = evidence if of_study is None else evidence.beside[of_study]
        try:
            other, n = _by_seed(_compared(with_minus(test), there))
        except IncompleteError as reason:
            if of_study is None:
                raise
            raise OtherIncompleteError(f"{of_study}: {reason}") from None
        by_seed, n_chips = (by_seed - other).dropna(), min(n_chips, n)
    values = np.asarray(by_seed, dtype=np.float64)
    mean, low, high = spread.mean_interval(values, CONFIDENCE)
    p = _p_value(mean - limit_of(test), spread.of_independent(values))
    unit = "points" if test["measure"] in ("gain", "gap") else test.get("unit", "")
    return Endpoint(mean, low, high, len(by_seed), n_chips, unit, verdict(low, high, test), p)


def _p_value(distance: float, error: spread.StandardError) -> float:
    """Two-sided p-value of an estimate at a distance from the limit; without spread 0 or 1."""
    if error.dof > 0 and error.value == 0:
        return float(distance == 0)
    return float(error.p_value(distance))


def verdict(low: float, high: float, test: Mapping[str, Any]) -> str:
    """One of `VERDICTS` of an interval."""
    if math.isnan(low) or math.isnan(high):
        return VERDICTS[3]
    if "differs_from" in test:
        limit = test["differs_from"]
        return VERDICTS[0] if low > limit or high < limit else VERDICTS[1]
    is_below = "below" in test
    limit = test["below"] if is_below else limit_of(test)
    is_lower, is_higher = high < limit, low > limit
    if not (is_lower or is_higher):
        return VERDICTS[1]
    return VERDICTS[0] if is_lower == is_below else VERDICTS[2]


def limit_of(test: Mapping[str, Any]) -> float:
    """The number that the interval is compared with."""
    kind = next(key for key in LIMITS if key in test)
    return float(test[kind] - test.get("margin", 0.0))


def other_study(test: Mapping[str, Any]) -> str | None:
    """Folder of the study whose networks ``minus`` takes; None: those of the same study."""
    return None if test["measure"] == "table" else test.get("minus", {}).get("study")


def described(test: Mapping[str, Any]) -> str:
    """A test in words: "gain of samson over sam, pcm_like, compensation global, 1 y"."""
    words = [{"normalised": "normalised accuracy"}.get(test["measure"], test["measure"])]
    if "column" in test:
        words = ["log10 of " * bool(test.get("log10")) + test["column"], f"in {test['table']}"]
        words = ["rank correlation of", *words] if "device" in test else words
    if "method" in test:
        words.append(f"of {test['method']}")
    words += [f"{key} {test[key]}" for key in ("over",) if key in test]
    words += [f"(1: {test['reference']} digital)" for key in ("reference",) if key in test]
    parts = [" ".join(words), *_setting_words(test), *_pairs(test.get("where", {}))]
    text = ", ".join(parts)
    if "minus" in test:
        other = test["minus"]
        known = _setting_words(other) if "table" not in test else _pairs(other)
        known = [*filter(None, [other_study(test)]), *known]
        text += " minus " + ", ".join(known or ["condition {}"])
    return text


def _setting_words(setting: Mapping[str, Any]) -> list[str]:
    words = [setting["device"]] if "device" in setting else []
    words += [f"compensation {setting['compensation']}"] if "compensation" in setting else []
    words += _pairs(setting.get("condition", {}))
    return words + ([str(setting["time_s"])] if "time_s" in setting else [])


def _pairs(values: Mapping[str, Any]) -> list[str]:
    return [f"{name} {value if value != '' else 'empty'}" for name, value in values.items()]


def with_minus(test: Mapping[str, Any]) -> dict[str, Any]:
    """The test under the setting of ``minus``."""
    minus = dict(test["minus"])
    if test["measure"] == "table":
        minus = {"where": {**test.get("where", {}), **minus}}
    else:
        minus.pop("study", None)
    return {**test, **minus}


def _compared(test: Mapping[str, Any], evidence: Evidence) -> "pd.Series[float]":
    """Values of the method, or their differences to those of ``over``, of chips that both have."""
    values = _values(test, evidence, test.get("method"))
    if "over" not in test:
        return values
    others = _values(test, evidence, test["over"])
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


def _values(test: Mapping[str, Any], evidence: Evidence, method: str | None) -> "pd.Series[float]":
    """Values of a method, by training seed, or by training seed, chip and its random seed."""
    if test["measure"] == "table":
        values = _from_table(test, evidence, method)
    elif test["measure"] == "gap":
        values = 100 * _gaps(test, evidence, str(method))
    elif test["measure"] == "normalised":
        chance = 1 / test["n_classes"]
        one = _accuracies({"device": DIGITAL}, evidence, test["reference"]) - chance
        own = _accuracies(test, evidence, str(method)) - chance
        values = (own / one.reindex(own.index.get_level_values(0)).to_numpy()).dropna()
    else:
        values = 100 * _accuracies(test, evidence, str(method))
    if test.get("by", "training_seed") == "training_seed":
        missing = evidence.seeds_of(method) - set(values.index.get_level_values(0))
        if missing and test["measure"] != "normalised":  # a failed reference leaves its seed out
            what = method or described(test)
            raise IncompleteError(f"{what} has no value of the seeds {sorted(missing)}")
    return values


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
        raise IncompleteError(f"no row of {', '.join(_setting_words(setting))!r}")
    differ = [name for name in COMPARED_UNDER if kinds[name].nunique() > 1]
    if differ:
        found = kinds[differ].to_dict("records")
        raise ValueError(
            f"Rows of {', '.join(_setting_words(setting))!r} differ in {', '.join(differ)}: "
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


def _gaps(setting: Mapping[str, Any], evidence: Evidence, method: str) -> "pd.Series[float]":
    """Accuracy on training images minus that on test images, of chips that have both."""
    images = evidence.training_images(method).set_index(["chip_id", "t_inference_s"])
    chips = _chips(setting, evidence.trials(method))
    keys = pd.MultiIndex.from_frame(chips[["chip_id", "t_inference_s"]])
    return (images["training"].reindex(keys).set_axis(chips.index) - chips["accuracy"]).dropna()


def _from_table(
    test: Mapping[str, Any], evidence: Evidence, method: str | None
) -> "pd.Series[float]":
    rows = evidence.table(test["table"], method, test.get("where", {}))
    by = test.get("by", "training_seed")
    keys = _column(rows, by, test["table"])
    if rows.empty and by != "training_seed":
        raise ValueError(f"{test['table']} has no row of {described(test)!r}.")
    values = _numbers(rows, test).groupby(keys.astype(int) if by == "training_seed" else keys)
    means = values.mean()
    if test.get("log10", False):
        if (means <= 0).any():
            raise ValueError(f"{test['column']} in {test['table']} has values without logarithm.")
        means = pd.Series(np.log10(means))
    return means * float(test.get("scale", 1.0))


def _numbers(rows: pd.DataFrame, test: Mapping[str, Any]) -> "pd.Series[float]":
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


def _correlation(test: Mapping[str, Any], evidence: Evidence) -> Endpoint:
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
    n_chips = int(groups.size().min())
    said = verdict(low, high, test)
    p = _p_value(float(middle - _fishers_z(limit_of(test))), error)
    return Endpoint(correlation.overall, low, high, len(x), n_chips, "", said, p, beside)


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
