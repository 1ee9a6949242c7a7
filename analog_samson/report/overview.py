"""One table over many networks and data sets: a row for each, the methods side by side."""

import pandas as pd

from analog_samson.report import tables, words
from analog_samson.report.captions import caption, mean_text
from analog_samson.report.figures import at_last_time, moment
from analog_samson.report.methods import task_text
from analog_samson.report.typeset import BLANK, Block, Table
from analog_samson.results.scores import score_of


def overview_table(
    summary: pd.DataFrame, best: pd.DataFrame | None = None, *, decimals: int | None = None
) -> Table:
    """Score at the last time: networks on data sets x methods, one block per device.

    Args:
        summary: As `results.summarise` gives, of several networks or data sets.
        best: As `results.best_methods` gives: the significantly best of a row is set bold; None
            marks nothing.
        decimals: Digits after the point; None takes those of the score.

    Returns:
        The table.

    Raises:
        ValueError: If the summary is empty.

    Example:
        >>> from analog_samson.results import best_methods
        >>> overview_table(summary, best_methods(rows)).title
        'Accuracy [%] of every network'
    """
    tables.check_not_empty(summary)
    rows = tables.with_best(at_last_time(summary), best)
    score = score_of(rows)
    digits = tables.digits_of(score, rows, decimals)
    of_block = [c for c in words.varying(rows) if c not in ("dataset", "model")]
    names = tables.in_order(rows["name"])
    blocks = []
    keys = ["device", *of_block, "t_inference_s"]  # tasks may end at different times
    for _, part in rows.groupby(keys, observed=True, sort=True):
        cells, bold = [], []
        for (dataset, model), own in part.groupby(["dataset", "model"], observed=True, sort=True):
            low, high = (score.shown(own[score.digital].agg(end)) for end in ("min", "max"))
            digital = f"{low:.{digits}f}"
            digital += f" to {high:.{digits}f}" if high > low else ""
            line = {
                "network": task_text((dataset, model)),
                "n": words.n_short(own),
                "digital": digital,
            }
            marks = dict.fromkeys(line, False)
            at = {row["name"]: row for _, row in own.iterrows()}
            for name in names:
                head = words.method_text(name)
                line[head], marks[head] = BLANK, False
                if name in at:
                    line[head] = tables.mean_of(score, at[name], digits)
                    marks[head] = bool(at[name]["is_best"])
            cells.append(line)
            bold.append(marks)
        title = words.group_title(part.iloc[0], of_block, rows["device"].unique())
        blocks.append(Block(f"{title}, {moment(part)}", pd.DataFrame(cells), pd.DataFrame(bold)))
    parts = [
        mean_text(rows),
        "n = trained networks × chips per network of every method.",
        "Digital: the same networks without analog noise, of the methods.",
    ]
    if rows["is_best"].any():
        parts.append("Bold: better than every other method of its row (paired t test, Holm).")
    return Table(
        title=f"{score.title} of every network",
        caption=caption(rows, blocks, parts),
        blocks=tuple(blocks),
        data=rows.drop(columns="name"),
        label="tab:overview",
    )
