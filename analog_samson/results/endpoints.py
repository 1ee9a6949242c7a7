"""Endpoints of claims: what a test of a protocol measures, its interval over seeds, its verdict.

A test is a table of a ``protocol.toml``, such as

    {measure = "gain", method = "samson", over = "sam", device = "pcm_like",
     compensation = "global", time_s = "1 y", above = 0.0}

Its keys are those of its measure in `MEASURES`, its limit is one of `LIMITS`. Chips of a network
are averaged, values are paired by training seed (and chip), and the interval is Student's t over
training seeds.
"""

import math
from collections.abc import Collection, Mapping
from typing import NamedTuple

from analog_samson.results.measures import (
    DIGITAL,
    MEASURES,
    SETTING_KEYS,
    Evidence,
    Test,
    other_study,
    pairs,
    setting_words,
)
from analog_samson.results.scores import ACCURACY, score_of

LIMITS = ("above", "below", "differs_from", "at_least")
"""Kinds of limits; "at_least" needs a ``margin``, and is "above" the limit minus the margin."""

VERDICTS = ("holds", "not shown", "the opposite", "too few networks")
"""The interval lies wholly on the claimed side; contains the limit; lies on the other side; there
is none."""


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


def check_test(test: Test, names: Collection[str] = ()) -> None:
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
    kind = MEASURES[measure]
    missing = [key for key in kind.needed if key not in test]
    if missing:
        raise ValueError(f"A test of {measure!r} needs the keys {missing}; add them.")
    unknown = sorted(set(test) - {"measure", "margin", *kind.needed, *kind.others, *LIMITS})
    if unknown:
        raise ValueError(
            f"Unknown keys {unknown} of a test of {measure!r}; allowed are "
            f"{sorted({*kind.needed, *kind.others})} and a limit."
        )
    if kind.one_of and not set(kind.one_of) & set(test):
        one_of = list(kind.one_of)
        raise ValueError(f"A test of {measure!r} needs one of the keys {one_of}; add one.")
    minus = test.get("minus")
    if "minus" in test and (not isinstance(minus, Mapping) or not minus):
        raise ValueError(f"'minus' is a table of settings that differ; got {minus!r}.")
    study = other_study(test)
    if study is not None and (not isinstance(study, str) or not study):
        raise ValueError(f"'study' of 'minus' is the folder of a study; got {study!r}.")
    unknown = sorted(set(minus or {}) - {"study", *SETTING_KEYS})
    if unknown and kind.is_of_chips:
        allowed = ["study", *SETTING_KEYS]
        raise ValueError(f"Unknown keys {unknown} of 'minus'; allowed are {allowed}.")
    limits = [key for key in LIMITS if key in test]
    if len(limits) != 1 or ("margin" in test) != (limits == ["at_least"]):
        raise ValueError(
            f"A test needs one limit of {list(LIMITS)}, and 'margin' with 'at_least' only; got "
            f"{[*limits, *(['margin'] if 'margin' in test else [])]}."
        )
    for setting in (test, test.get("minus", {})):
        more = [key for key in SETTING_KEYS[1:] if key in setting]
        if setting.get("device") == DIGITAL and more:
            raise ValueError(f"Digital networks have no {more}; leave them out.")
    for key in ("method", "over", "reference"):
        if key in test and names and test[key] not in names:
            raise ValueError(f"{key} = {test[key]!r} is not in the protocol: {sorted(names)}.")


def endpoint(test: Test, evidence: Evidence) -> Endpoint:
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
    measure = MEASURES[test["measure"]]
    if measure.is_of_chips and score_of(evidence.rows) != ACCURACY:
        raise ValueError(
            f"{test['measure']!r} is of accuracies, and these rows are of "
            f"{score_of(evidence.rows).name!r}; write a CSV file and use the measure 'table'."
        )
    value, low, high, n, n_chips, p_value, beside = measure.estimate(test, evidence)
    unit = measure.unit or test.get("unit", "")
    said, p = verdict(low, high, test), p_value(limit_of(test))
    return Endpoint(value, low, high, n, n_chips, unit, said, p, beside)


def verdict(low: float, high: float, test: Test) -> str:
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


def limit_of(test: Test) -> float:
    """The number that the interval is compared with."""
    kind = next(key for key in LIMITS if key in test)
    return float(test[kind] - test.get("margin", 0.0))


def described(test: Test) -> str:
    """A test in words: "gain of samson over sam, pcm_like, compensation global, 1 y"."""
    measure = MEASURES[test["measure"]]
    words = [measure.words] * bool(measure.words)
    if "column" in test:
        words += ["log10 of " * bool(test.get("log10")) + test["column"], f"in {test['table']}"]
    if "method" in test:
        words.append(f"of {test['method']}")
    words += [f"{key} {test[key]}" for key in ("over",) if key in test]
    words += [f"(1: {test['reference']} digital)" for key in ("reference",) if key in test]
    parts = [" ".join(words), *setting_words(test), *pairs(test.get("where", {}))]
    text = ", ".join(parts)
    if "minus" in test:
        other = test["minus"]
        known = setting_words(other) if measure.is_of_chips else pairs(other)
        known = [*filter(None, [other_study(test)]), *known]
        text += " minus " + ", ".join(known or ["condition {}"])
    return text
