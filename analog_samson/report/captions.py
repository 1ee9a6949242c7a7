"""Captions of tables: meaning of the numbers, common properties, marks."""

from collections.abc import Iterable, Mapping, Sequence
from types import MappingProxyType

import numpy as np
import pandas as pd

from analog_samson.report import words
from analog_samson.report.typeset import BLANK, EXTRAPOLATED, PRIMARY, SIGNIFICANT, Block
from analog_samson.results.scores import score_of
from analog_samson.results.spread import FEWEST_TESTED


def caption(
    rows: pd.DataFrame,
    blocks: Sequence[Block],
    parts: Iterable[str],
    *,
    blank: str = "no trials",
    blank_in: Mapping[str, str] = MappingProxyType({}),
) -> str:
    """Join common properties, the meaning of the numbers, and the marks that are used.

    Args:
        rows: Rows of the table.
        blocks: Its blocks.
        parts: Sentences on its numbers.
        blank: What a cell without a number means.
        blank_in: What it means in some columns, by their heads.
    """
    fixed = words.fixed_text(rows)
    text = [f"{fixed}.", *parts]
    moments = [rows["t_inference_s"].unique()]
    moments += [rows[c].unique() for c in ("lifetime_s", "low_s", "high_s") if c in rows]
    if calendar := words.calendar_text(np.concatenate(moments)):
        text.append(f"{calendar}.")
    if (rows["t_inference_s"] == 0).any() and "lifetime_s" not in rows:
        text.append("Programmed: before any drift and read noise.")
    if rows["extrapolated"].any():
        text.append(f"{EXTRAPOLATED} {words.beyond_text(rows)}")
    text += [f"{BLANK} {reason}." for reason in _blanks(blocks, blank, blank_in)]
    missing = words.missing_text(rows)
    if missing:
        text.append(f"Without trials: {missing}.")
    return " ".join(text)


def _blanks(blocks: Sequence[Block], blank: str, blank_in: Mapping[str, str]) -> list[str]:
    """What the blank cells of a table mean; where columns differ in it, with their heads."""
    heads = [
        str(head) for block in blocks for head in block.cells if (block.cells[head] == BLANK).any()
    ]
    found = {head: f"in the column {head}: {blank_in[head]}" for head in heads if head in blank_in}
    return [blank] * any(head not in blank_in for head in heads) + list(found.values())


def tests_text(gains: pd.DataFrame) -> str:
    """Explain the stars, over how many comparisons they are corrected, and the primary one."""
    few = gains["n_networks"] < FEWEST_TESTED
    p = f"p < {1 - gains['confidence'].iloc[0]:.2g}"
    primary = gains[gains["is_primary"]]
    text = []
    for value in primary["p_value"]:
        found = f"p = {value:.2g}" if pd.notna(value) else "not tested"
        text.append(f"{PRIMARY} primary endpoint, tested alone: {found}.")
    rest = gains[~gains["is_primary"]]
    n = int(rest["p_value"].notna().sum())
    plural = "" if n == 1 else "s"
    which = f"Holm's correction over the {n} {'other ' if len(primary) else ''}comparison{plural} "
    which += "of this table"
    if primary["significant"].any():
        text.append(f"{SIGNIFICANT} {p}.")
    if rest["significant"].any():
        others = "Others: " if primary["significant"].any() else ""
        text.append(f"{others}{SIGNIFICANT} {p} after {which}.")
    elif n and primary["significant"].any():
        text.append(f"No other difference has {p} after {which}.")
    elif n:
        text.append(f"No difference has {p} after {which}.")
    elif primary["p_value"].isna().all():
        text.append("No test could be made.")
    if few.any():
        text.append(f"Nothing is tested with fewer than {FEWEST_TESTED} trained networks.")
    return " ".join(text)


def mean_text(summary: pd.DataFrame) -> str:
    """Explain the numbers of a cell: a mean or typical chip, and its interval."""
    interval, typical = words.interval_text(summary), words.typical_text(summary)
    if summary["half_width"].isna().all():
        return f"{interval[:1].upper()}{interval[1:]}. {typical}".rstrip()
    score, is_typical = score_of(summary), words.are_typical(summary)
    what = "Mean" if not typical else "Typical chip" if is_typical.all() else "Mean or typical chip"
    is_uneven = (summary["spread"] == "bootstrap") | score.is_exponential
    is_uneven |= is_typical & (score.column in summary)
    how = "half-width, or bounds," if is_uneven.any() else "half-width"
    text = (
        f"{what} with its {interval}." if is_uneven.all() else f"{what} ± {how} of the {interval}."
    )
    return f"{text} {typical}".rstrip()


def share_text(summary: pd.DataFrame) -> str:
    """Smallest and largest share of analog weights."""
    low, high = 100 * summary["analog_share"].min(), 100 * summary["analog_share"].max()
    return f"{low:.3g} %" if f"{low:.3g}" == f"{high:.3g}" else f"{low:.3g} to {high:.3g} %"
