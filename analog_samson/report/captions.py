"""Captions of tables: meaning of the numbers, common properties, marks."""

from collections.abc import Iterable, Sequence

import pandas as pd

from analog_samson import times
from analog_samson.report import words
from analog_samson.report.typeset import BLANK, EXTRAPOLATED, SIGNIFICANT, Block
from analog_samson.results.scores import score_of


def caption(rows: pd.DataFrame, blocks: Sequence[Block], parts: Iterable[str]) -> str:
    """Join common properties, the meaning of the numbers, and the marks that are used."""
    fixed = words.fixed_text(rows)
    text = [f"{fixed}.", *parts]
    units = {times.label(t).split()[-1] for t in rows["t_inference_s"].unique()}
    if "mo" in units:
        text.append("1 mo = 30 d.")
    if "y" in units:
        text.append("1 y = 365 d.")
    if "programmed" in units:
        text.append("Programmed: before any drift and read noise.")
    if rows["extrapolated"].any():
        text.append(
            f"{EXTRAPOLATED} beyond the time to which the device was measured (extrapolated)."
        )
    if any((block.cells == BLANK).any(axis=None) for block in blocks):
        text.append(f"{BLANK} no trials.")
    missing = words.missing_text(rows)
    if missing:
        text.append(f"Without trials: {missing}.")
    return " ".join(text)


def tests_text(gains: pd.DataFrame) -> str:
    """Explain the stars, and over how many comparisons they are corrected."""
    n = int(gains["p_value"].notna().sum())
    if n == 0:
        return "No test could be made."
    p = f"p < {1 - gains['confidence'].iloc[0]:.2g}"
    which = f"Holm's correction over the {n} comparisons of this table"
    if gains["significant"].any():
        return f"{SIGNIFICANT} {p} after {which}."
    return f"No difference has {p} after {which}."


def mean_text(summary: pd.DataFrame) -> str:
    """Explain the numbers of a cell: a mean and its interval."""
    interval = words.interval_text(summary)
    if summary["half_width"].isna().all():
        return f"{interval[:1].upper()}{interval[1:]}."
    is_resampled = (summary["spread"] == "bootstrap").any() or score_of(summary).is_exponential
    return f"Mean ± {'wider side' if is_resampled else 'half-width'} of the {interval}."


def share_text(summary: pd.DataFrame) -> str:
    """Smallest and largest share of analog weights."""
    low, high = 100 * summary["analog_share"].min(), 100 * summary["analog_share"].max()
    return f"{low:.3g} %" if f"{low:.3g}" == f"{high:.3g}" else f"{low:.3g} to {high:.3g} %"
