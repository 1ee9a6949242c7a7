"""Tables: accuracy against time as Markdown, LaTeX (booktabs), HTML and full-precision CSV."""

import html
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import pandas as pd

from analog_samson import times
from analog_samson.report import words

BLANK = "–"
EXTRAPOLATED = "†"
TIED = "°"


@dataclass(frozen=True)
class Block:
    """One block of a table: the methods on one device.

    Attributes:
        title: What the block holds, such as the device.
        cells: Finished text, one row per method, one column per time.
        bold: Same shape, whether a cell is the best of its column.
    """

    title: str
    cells: pd.DataFrame
    bold: pd.DataFrame


@dataclass(frozen=True)
class Table:
    r"""A finished table: text for print, numbers for machines.

    Attributes:
        title: What is shown, in a few words.
        caption: Intervals, n, and every mark explained.
        blocks: The blocks, in print order.
        data: The numbers behind it, full precision, fractions.
        label: Name for ``\ref`` in LaTeX.
    """

    title: str
    caption: str
    blocks: tuple[Block, ...]
    data: pd.DataFrame
    label: str = "tab:accuracy"

    def markdown(self) -> str:
        """The table as GitHub Markdown, caption below."""
        parts = [f"### {self.title}"]
        for block in self.blocks:
            cells = block.cells.where(~block.bold, "**" + block.cells + "**")
            text = cells.to_markdown(index=False, disable_numparse=True, stralign="left")
            parts.append(f"**{block.title}**\n\n{text}")
        return "\n\n".join([*parts, self.caption]) + "\n"

    def latex(self) -> str:
        """The table as LaTeX: one ``table`` environment, needs only the package booktabs."""
        parts = [r"\begin{table}", r"\centering", r"\small"]
        parts.append(rf"\caption{{{_latex_text(f'{self.title}. {self.caption}')}}}")
        parts.append(rf"\label{{{self.label}}}")
        for block in self.blocks:
            cells = block.cells.map(_latex_text)
            cells.columns = pd.Index([_latex_text(name) for name in cells.columns])
            bold = block.bold.set_axis(cells.columns, axis=1)
            styler = cells.style.hide(axis="index").apply(
                lambda _, bold=bold: bold.map(lambda best: "textbf:--rwrap;" if best else ""),
                axis=None,
            )
            tabular = styler.to_latex(
                hrules=True, column_format="l" + "c" * (len(cells.columns) - 1)
            )
            parts.append(rf"\par\medskip\textbf{{{_latex_text(block.title)}}}\par\smallskip")
            parts.append(tabular.rstrip())
        return "\n".join([*parts, r"\end{table}"]) + "\n"

    def html(self) -> str:
        """The table as an HTML fragment, caption above."""
        parts = [f"<figure class='table'><figcaption><b>{html.escape(self.title)}.</b> "]
        parts.append(f"{html.escape(self.caption)}</figcaption>")
        for block in self.blocks:
            cells = block.cells.map(html.escape)
            cells = cells.where(~block.bold, "<b>" + cells + "</b>")
            text = cells.to_html(index=False, escape=False, border=0)
            parts.append(f"<h4>{html.escape(block.title)}</h4>\n{text}")
        return "\n".join([*parts, "</figure>\n"])

    def csv(self) -> str:
        """The numbers behind the table: fractions, full precision."""
        text: str = self.data.to_csv(index=False, lineterminator="\n")
        return text


def table(summary: pd.DataFrame, best: pd.DataFrame | None = None, *, decimals: int = 2) -> Table:
    """Accuracy against time: methods x times, one block a device.

    Args:
        summary: As `results.summarise` gives.
        best: As `results.best_methods` gives: the significantly best is set bold, ties are
            marked; None marks nothing.
        decimals: Digits after the point, in per cent.

    Returns:
        The table; a cell without trials is blank and the caption says so.

    Raises:
        ValueError: If the summary is empty.
    """
    if summary.empty:
        raise ValueError("The summary is empty; there is nothing to put in a table.")
    summary = summary.assign(name=words.method_names(summary))
    if best is not None:
        keys = [c for c in best.columns if c not in ("is_best", "is_tied", "p_holm")]
        summary = summary.merge(best, on=keys, how="left")
    else:
        summary = summary.assign(is_best=False, is_tied=False)
    summary = summary.assign(
        is_best=summary["is_best"].eq(True), is_tied=summary["is_tied"].eq(True)
    )
    columns = words.varying(summary)
    blocks = []
    for _, rows in summary.groupby(["device", *columns], observed=True, sort=True):
        title = words.condition_text(rows.iloc[0], columns)
        blocks.append(_block(title, rows, decimals))
    data = summary.drop(
        columns=["name", *(("is_best", "is_tied", "p_holm") if best is None else ())],
        errors="ignore",
    )
    return Table(
        title="Accuracy [%] against time since programming",
        caption=_caption(summary, blocks, decimals, marked=best is not None),
        blocks=tuple(blocks),
        data=data,
    )


def _block(title: str, rows: pd.DataFrame, decimals: int) -> Block:
    moments = sorted(rows["t_inference_s"].unique())
    late = set(rows.loc[rows["extrapolated"], "t_inference_s"])
    heads = [times.label(t) + (EXTRAPOLATED if t in late else "") for t in moments]
    cells, bold = [], []
    for name in in_order(rows["name"].unique()):
        own = rows[rows["name"] == name].set_index("t_inference_s")
        line = {"method": name, "n": words.n_short(own.reset_index())}
        line["digital"] = f"{100 * own['clean_accuracy'].mean():.{decimals}f}"
        is_bold = dict.fromkeys(line, False)
        for t, head in zip(moments, heads, strict=True):
            line[head] = _cell(own.loc[t], decimals) if t in own.index else BLANK
            is_bold[head] = bool(t in own.index and own.at[t, "is_best"])
        cells.append(line)
        bold.append(is_bold)
    return Block(title, pd.DataFrame(cells), pd.DataFrame(bold))


def _cell(row: pd.Series, decimals: int) -> str:
    text = f"{100 * row['accuracy']:.{decimals}f}"
    if pd.notna(row["half_width"]):
        text += f" ± {100 * row['half_width']:.{decimals}f}"
    return text + (f" {TIED}" if row["is_tied"] else "")


def _caption(summary: pd.DataFrame, blocks: Sequence[Block], decimals: int, *, marked: bool) -> str:
    fixed = words.fixed_text(summary)
    parts = [
        f"{fixed[:1].upper()}{fixed[1:]}.",
        f"Mean ± half-width of the {words.interval_text(summary)}.",
        "n = trained networks × chips per network.",
    ]
    if summary["half_width"].isna().any():
        parts.append("No interval where one chip of one network was measured.")
    parts.append(
        "Digital: the same networks without analog noise. "
        f"Share of analog weights: {_share(summary)}."
    )
    labels = {times.label(t) for t in summary["t_inference_s"]}
    if any("mo" in label.split() for label in labels):
        parts.append("1 mo = 30 d.")
    if any("y" in label.split() for label in labels):
        parts.append("1 y = 365 d.")
    if 0.0 in set(summary["t_inference_s"]):
        parts.append("Programmed: before any drift and read noise.")
    if summary["extrapolated"].any():
        parts.append(
            f"{EXTRAPOLATED} beyond the time to which the device was measured (extrapolated)."
        )
    if marked and summary["is_best"].any():
        parts.append(
            "Bold: better than every other method of its block at that time (paired t test, Holm)."
        )
    if marked and summary["is_tied"].any():
        parts.append(f"{TIED} not distinguishable from the best.")
    if any((block.cells == BLANK).any(axis=None) for block in blocks):
        parts.append(f"{BLANK} no trials.")
    uneven = summary["n_chips"] < summary["n_chips_max"]
    if uneven.any():
        parts.append("Some networks have fewer chips than others: the study is incomplete.")
    if not summary["reproducible"].all():
        parts.append("Some rows come from an engine that cannot be seeded.")
    return " ".join(parts)


def _share(summary: pd.DataFrame) -> str:
    low, high = 100 * summary["analog_share"].min(), 100 * summary["analog_share"].max()
    return f"{low:.3g} %" if f"{low:.3g}" == f"{high:.3g}" else f"{low:.3g} to {high:.3g} %"


def in_order(names: Iterable[str]) -> list[str]:
    """Methods in the order in which every table and legend shows them."""
    from analog_samson.report.style import order

    return sorted(names, key=order)


_LATEX = {
    "\\": r"\textbackslash{}",
    "&": r"\&",
    "%": r"\%",
    "$": r"\$",
    "#": r"\#",
    "_": r"\_",
    "{": r"\{",
    "}": r"\}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "±": r"$\pm$",
    "×": r"$\times$",
    "µ": r"$\mu$",
    BLANK: "--",
    EXTRAPOLATED: r"$^\dagger$",
    TIED: r"$^\circ$",
}


def _latex_text(text: str) -> str:
    return "".join(_LATEX.get(letter, letter) for letter in text)
