"""Do the papers' claims hold? Verdicts on the claims of all protocols, from the committed rows.

    python experiments/verdicts.py           # says what is found
    python experiments/verdicts.py --write   # results/verdicts.csv, and docs/STUDIES.md

A study is a folder of `results/` with a `protocol.toml`, and a study of claims has in it

    symbol = "M"                         # on the page; none is needed for one study of a claim
    seeds = [10, 11, 12]
    studies = ["study.toml"]             # whose trials.csv are read, relative to the folder
    [methods]                            # networks.csv must have each with every seed
    [claims.name]
    number = 1                           # on the page; without, in verdicts.csv alone
    tests = [{ measure = "gain", method = "sam", over = "sgd", device = "digital", above = 0.0 }]

with the measures of `analog_samson.results.measures`. A claim holds if all of its tests do. Column
`p_holm` is the p-value after Holm's correction over the tests of a study, the open ones too; on the
page a ‡ marks the verdicts that it leaves decided. Of a study that lacks a network, a row or a
table nothing is computed: its claims are open. A test that names another study is open, alone,
until that study has all networks and rows, and the tables that the test reads. Without `[methods]`,
methods are those of the trials' or tables' column `method`.
"""

import math
import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd

from analog_samson.commands import run_command
from analog_samson.files import replacing
from analog_samson.results import holm
from analog_samson.results.endpoints import (
    LIMITS,
    VERDICTS,
    Endpoint,
    described,
    endpoint,
    limit_of,
)
from analog_samson.results.measures import (
    CONFIDENCE,
    Evidence,
    IncompleteError,
    OtherIncompleteError,
    other_study,
)
from analog_samson.training import PROTOCOL_FILE, evidence_of, load_protocol, tests_of

VERDICTS_FILE = "verdicts.csv"

OPEN = "open"

N_CELLS = 8
"""Parts of a line of the page, which has six columns, between its bars."""

COLUMNS = ("number", "symbol", "study", "claim", "test", "n", "n_of", "n_chips", "unit", "value",
           "low", "high", "limit", "verdict", "p_value", "p_holm", "beside")  # fmt: skip

NUMBERS = ("value", "low", "high", "p_value", "p_holm")

STAYS_DECIDED = "\N{DOUBLE DAGGER}"
"""Mark of a verdict that stays decided under Holm's correction over the tests of its study."""


def main(
    results: Path = Path("results"),
    page: Path = Path("docs/STUDIES.md"),
    write: bool = False,
    trust: tuple[str, ...] = (),
) -> None:
    """Judge the claims of all studies.

    Args:
        results: Folder of the studies.
        page: Page whose columns "ours" and "verdict" are filled.
        write: Whether `verdicts.csv` is written, and the page if a claim has a number.
        trust: Packages that networks and methods of protocols may be imported from.
    """
    table = verdicts(results, trust)
    if write:
        filled = _filled(page, table)
        with replacing(results / VERDICTS_FILE) as temporary:
            table.to_csv(temporary, index=False, lineterminator="\n")
        if filled is not None:
            with replacing(page) as temporary:
                temporary.write_text(filled, encoding="utf-8")
    shown = table[["number", "study", "test", "n", "value", "low", "high", "verdict"]]
    print(shown.to_markdown(index=False, disable_numparse=True))


def _filled(page: Path, table: pd.DataFrame) -> str | None:
    """The page with its verdicts; None if no claim has a number."""
    if (table["number"] == "").all():
        return None
    if not page.is_file():
        raise FileNotFoundError(
            f"No page {str(page)!r}; give one by --page, or claims without 'number'."
        )
    return with_verdicts(page.read_text(encoding="utf-8"), table)


def verdicts(results: Path, trust: Sequence[str] = ()) -> pd.DataFrame:
    """Every test of every claim, as text; sorted by the claim's number, then by study.

    Args:
        results: Folder of the studies.
        trust: Packages that networks and methods of protocols may be imported from.

    Raises:
        FileNotFoundError: If no folder in it has a protocol.
        ValueError: If a protocol or table is wrong; the message names it, and the claim.
    """
    files = sorted(results.glob(f"*/{PROTOCOL_FILE}"))
    if not files:
        raise FileNotFoundError(
            f"No folder in {str(results)!r} has a {PROTOCOL_FILE}; give the folder of the studies "
            "by --results."
        )
    found = [row for file in files for row in _judged(file, trust)]
    found = sorted(found, key=lambda row: row["number"] or math.inf)
    return pd.DataFrame(found, columns=list(COLUMNS)).astype(str)


def _judged(file: Path, trust: Sequence[str]) -> list[dict[str, Any]]:
    plan = load_protocol(file.parent, trust=trust)
    if without := [name for name, claim in plan["claims"].items() if not claim.get("tests")]:
        raise ValueError(f"{file}: claim {without[0]!r} has no 'tests'; add them.")
    tests = tests_of(file.parent, plan)
    try:
        ends = _endpoints(file, plan, tests, trust)
    except IncompleteError as reason:
        print(f"{file.parent}: open, {reason}.")
        ends = [None] * len(tests)
    p_values = [math.nan if end is None else end.p_value for end in ends]
    n_tests = sum(end is None or not math.isnan(end.p_value) for end in ends)
    corrected = holm(p_values, n_tests=n_tests)
    rows = []
    for (claim, test), end, p_holm in zip(tests, ends, corrected, strict=True):
        kind = next(key for key in LIMITS if key in test)
        label = {
            "number": plan["claims"][claim].get("number", ""),
            "symbol": plan.get("symbol", ""),
            "study": file.parent.name,
            "claim": claim,
            "test": described(test),
            "limit": f"{kind.replace('at_least', 'above').replace('_', ' ')} {limit_of(test):g}",
        }
        result = dict.fromkeys(COLUMNS, "") | {"verdict": OPEN}
        if end is not None:
            numbers = end._asdict() | {"p_holm": p_holm}
            by = test.get("by", "training_seed")
            result = numbers | {key: _number(numbers[key]) for key in NUMBERS}
            result["n_of"] = "networks" if by == "training_seed" else f"{by}s"
        rows.append(result | label)
    return rows


def _endpoints(
    file: Path, plan: dict[str, Any], tests: list[tuple[str, dict[str, Any]]], trust: Sequence[str]
) -> list[Endpoint | None]:
    """The endpoint of every test; None where another study that it names is not finished."""
    own = evidence_of(file.parent, plan)
    lacking, beside = {}, {}
    for name in sorted({name for _, test in tests if (name := other_study(test)) is not None}):
        try:
            beside[name] = evidence_of(file.parent / name, trust=trust)
        except IncompleteError as reason:
            lacking[name] = f"{name}: {reason}"
    evidence, ends = replace(own, beside=beside), []
    for claim, test in tests:
        try:
            if (name := other_study(test)) in lacking:
                raise OtherIncompleteError(lacking[name])
            ends.append(_endpoint(file, claim, test, evidence))
        except OtherIncompleteError as reason:
            print(f"{file.parent}: claim {claim!r} is open, {reason}.")
            ends.append(None)
    return ends


def _endpoint(file: Path, claim: str, test: dict[str, Any], evidence: Evidence) -> Endpoint:
    """The endpoint of a test; an error names its claim."""
    try:
        return endpoint(test, evidence)
    except IncompleteError:
        raise
    except ValueError as error:
        raise ValueError(f"{file}: claim {claim!r}: {error}") from None


def _number(value: float) -> str:
    return "" if math.isnan(value) else f"{value + 0.0:.6g}"


def with_verdicts(text: str, table: pd.DataFrame) -> str:
    """The page, the last two columns of each claim filled.

    Args:
        text: The page; a claim is a line of a table that begins with its number.
        table: As `verdicts` gives, or as it is read from its file, all values as text.

    Raises:
        ValueError: If the page has no line for a claim, several, or one with other columns.
    """
    lines = text.split("\n")
    numbers: dict[str, int] = {}
    for k, line in enumerate(lines):
        if found := re.match(r"\| (\d+) \|", line):
            if found[1] in numbers:
                raise ValueError(f"The page has two lines for claim {found[1]}; leave one.")
            numbers[found[1]] = k
    for number, claims in table[table["number"] != ""].groupby("number", sort=False):
        if number not in numbers:
            raise ValueError(f"The page has no line for claim {number}; add '| {number} | ...'.")
        cells = re.split(r"(?<!\\)\|", lines[numbers[str(number)]])
        if len(cells) != N_CELLS:
            raise ValueError(
                f"The page's line for claim {number} has {len(cells) - 2} columns, not 6: number, "
                "claim, what is run, primary endpoint, ours, verdict."
            )
        studies = sorted(  # in the order of the column "what is run"
            claims.groupby("study"), key=lambda one: cells[3].find(one[1]["symbol"].iloc[0])
        )
        ours, said = [], []
        for _, tests in studies:
            symbol, own = tests["symbol"].iloc[0], _verdict(tests)
            said.append(f"{symbol} {own}" if symbol and len(studies) > 1 else own)
            if own != OPEN:
                ours.append(f"{symbol}: {_numbers(tests)}" if symbol else _numbers(tests))
        cells[-3] = f" {'; '.join(ours)} " if ours else " "
        cells[-2] = f" {'; '.join(said) if ours else OPEN} "
        lines[numbers[str(number)]] = "|".join(cells)
    return "\n".join(lines)


def _verdict(tests: pd.DataFrame) -> str:
    """A claim's verdict from those of its tests."""
    said = list(tests["verdict"])
    if OPEN in said:
        return OPEN
    marked = {one: one + _mark(tests[tests["verdict"] == one]) for one in VERDICTS if one in said}
    if set(said) == {VERDICTS[0]}:
        return marked[VERDICTS[0]]
    if set(said) <= {VERDICTS[0], VERDICTS[3]}:
        return f"cannot be judged ({VERDICTS[3]})"
    counts = [f"{said.count(one)} {words}" for one, words in marked.items()]
    return f"does not hold ({marked[said[0]] if len(said) == 1 else ', '.join(counts)})"


def _mark(tests: pd.DataFrame) -> str:
    """`STAYS_DECIDED` where it is true of all of these tests."""
    p_holm = pd.to_numeric(tests["p_holm"], errors="coerce")
    return STAYS_DECIDED if (p_holm < 1 - CONFIDENCE).all() else ""


def _numbers(tests: pd.DataFrame) -> str:
    """Values with intervals and n: "+0.13 ± 0.05, -0.02 ± 0.04 (n = 10 networks)"."""
    ns = [
        f" (n = {n} {of.removesuffix('s') if str(n) == '1' else of})"
        for n, of in zip(tests["n"], tests["n_of"], strict=True)
    ]
    shown = [_value(test) for test in tests.to_dict("records")]
    if len(set(ns)) == 1:
        return ", ".join(shown) + ns[0] + "; ".join(["", *filter(None, tests["beside"])])
    return ", ".join(value + n for value, n in zip(shown, ns, strict=True))


def _value(test: dict[str, str]) -> str:
    sign = "+" if " over " in test["test"] or " minus " in test["test"] else ""
    if not test["low"]:
        return f"{float(test['value']):{sign}.3g}" if test["value"] else "no value"
    value, low, high = (float(test[name]) for name in ("value", "low", "high"))
    half = max(high - value, value - low)
    digits = min(max(1 - math.floor(math.log10(half)), 0), 4) if half > 0 else 4
    if abs(high - value - (value - low)) < 0.01 * half:
        return f"{value:{sign}.{digits}f} ± {half:.{digits}f}"
    return f"{value:{sign}.{digits}f} ({low:{sign}.{digits}f} to {high:{sign}.{digits}f})"


if __name__ == "__main__":
    run_command(main)
