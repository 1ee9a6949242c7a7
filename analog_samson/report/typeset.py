"""Output of tables: Markdown, LaTeX (booktabs), HTML and full-precision CSV."""

import html
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Self

import pandas as pd

BLANK = "–"
EXTRAPOLATED = "†"
TIED = "°"
SIGNIFICANT = "*"
PRIMARY = "‡"
ISO = "§"

COLUMN_PT = 229.0
"""Width of a column of the two-column class ``article`` [pt], a narrow one."""

SIZES = (
    ("table", r"\small", 9.0, 6.0),
    ("table", r"\footnotesize\setlength{\tabcolsep}{3pt}", 8.0, 3.0),
)
"""Environment, commands, size of letters and half the distance of columns [pt], by preference."""

DIGITS = 10
"""Significant digits, and decimals, of a number in a CSV file: few enough to hide rounding errors
of library versions, so that the same rows give the same bytes with every version."""


@dataclass(frozen=True)
class Block:
    """One block of a table: the methods on one device.

    Attributes:
        title: Title of the block, such as the device.
        cells: Finished text, one row per method, one column per time.
        bold: Same shape, whether a cell is the best of its column.
    """

    title: str
    cells: pd.DataFrame
    bold: pd.DataFrame

    @classmethod
    def plain(cls, title: str, lines: Sequence[Mapping[str, str]] | pd.DataFrame) -> Self:
        """A block of lines, nothing of it bold."""
        cells = pd.DataFrame(lines)
        return cls(title, cells, pd.DataFrame(False, cells.index, cells.columns))


@dataclass(frozen=True)
class Table:
    r"""A finished table: text for print, numbers for machines.

    Attributes:
        title: Short title.
        caption: Intervals, n, and every mark explained.
        blocks: The blocks, in print order.
        data: Its data in full precision, as fractions.
        label: Name for ``\ref`` in LaTeX.

    Example:
        >>> from analog_samson.report import table
        >>> finished = table(summary)
        >>> finished.title, finished.label
        ('Accuracy [%] against time since programming', 'tab:accuracy')
        >>> list(finished.blocks[0].cells)
        ['method', 'n', 'digital', '1 s', '1 h', '1 mo†']
    """

    title: str
    caption: str
    blocks: tuple[Block, ...]
    data: pd.DataFrame
    label: str = "tab:accuracy"

    def markdown(self) -> str:
        """The table as GitHub Markdown, caption below."""
        parts = [f"### {markdown_text(self.title)}"]
        for block in self.blocks:
            cells = block.cells.map(markdown_text)
            cells.columns = pd.Index([markdown_text(name) for name in cells.columns])
            bold = block.bold.set_axis(cells.columns, axis=1)
            cells = cells.where(~bold, "**" + cells + "**")
            text = cells.to_markdown(index=False, disable_numparse=True, stralign="left")
            parts.append(f"**{markdown_text(block.title)}**\n\n{text}")
        return "\n\n".join([*parts, markdown_text(self.caption)]) + "\n"

    def latex(self) -> str:
        """The table as LaTeX: needs only the package booktabs.

        A table stays in one column where it fits, in smaller letters if need be; a wider one is a
        ``table*``.
        """
        fitting = (
            (environment, size)
            for environment, size, letter_pt, apart_pt in SIZES
            if max(_width_pt(block, letter_pt, apart_pt) for block in self.blocks) <= COLUMN_PT
        )
        wide = "table*", r"\footnotesize\setlength{\tabcolsep}{3pt}"
        environment, size = next(fitting, wide)
        caption = f"{self.title}. {self.caption}"
        if any(_sides(text) for block in self.blocks for text in block.cells.to_numpy().ravel()):
            caption += " Raised and lowered: distances to the bounds."
            size += r"\renewcommand{\arraystretch}{1.3}"
        parts = [rf"\begin{{{environment}}}", r"\centering", size]
        parts.append(rf"\caption{{{latex_text(caption)}}}")
        parts.append(rf"\label{{{self.label}}}")
        for block in self.blocks:
            cells = block.cells.map(_latex_cell)
            bold = block.bold.set_axis(cells.columns, axis=1)
            cells = cells.where(~bold, r"\textbf{" + cells + "}")
            lines = [map(latex_text, cells.columns), *cells.itertuples(index=False, name=None)]
            head, *body = [" & ".join(line) + r" \\" for line in lines]
            columns = "l" + "c" * (len(cells.columns) - 1)
            tabular = [rf"\begin{{tabular}}{{{columns}}}", r"\toprule", head, r"\midrule", *body]
            parts.append(rf"\par\medskip\textbf{{{latex_text(block.title)}}}\par\smallskip")
            parts += [*tabular, r"\bottomrule", r"\end{tabular}"]
        return "\n".join([*parts, rf"\end{{{environment}}}"]) + "\n"

    def html(self) -> str:
        """The table as an HTML fragment, caption above."""
        parts = [f"<figure class='table'><figcaption><b>{html.escape(self.title)}.</b> "]
        parts.append(f"{html.escape(self.caption)}</figcaption>")
        for block in self.blocks:
            cells = block.cells.map(html.escape).rename(columns=html.escape)
            bold = block.bold.set_axis(cells.columns, axis=1)
            cells = cells.where(~bold, "<b>" + cells + "</b>")
            text = cells.to_html(index=False, escape=False, border=0)
            parts.append(f"<h4>{html.escape(block.title)}</h4>\n{text}")
        return "\n".join([*parts, "</figure>\n"])

    def csv(self) -> str:
        """The data of the table: fractions and seconds, to `DIGITS` digits."""
        numbers = [str(name) for name, kind in self.data.dtypes.items() if kind == "float64"]
        rounded = self.data.assign(**{name: self.data[name].map(_rounded) for name in numbers})
        text: str = rounded.to_csv(index=False, lineterminator="\n")
        return text


_INTERVAL = re.compile(r"([+−]?\d+(?:\.(\d+))?) \(([+−]?[\d.]+) to ([+−]?[\d.]+)\)(.*)")
"""A value with its bounds, "98.87 (98.60 to 99.09) °": value, its decimals, bounds, marks."""


def _sides(text: str) -> tuple[str, str, str, str] | None:
    """Value, distances to its bounds, and marks of a cell; None for other cells."""
    found = _INTERVAL.fullmatch(text)
    if found is None:
        return None
    value, decimals, *bounds, marks = found.groups(default="")
    digits = len(decimals)
    if any(len(bound.partition(".")[2]) != digits for bound in bounds):
        return None
    middle, low, high = (float(one.replace("−", "-")) for one in (value, *bounds))
    return value, f"+{high - middle:z.{digits}f}", f"−{middle - low:z.{digits}f}", marks


def _latex_cell(text: str) -> str:
    """A cell as LaTeX, with narrow spaces, and an uneven interval by its two sides."""
    sides = _sides(text)
    if sides is not None:
        value, up, down, marks = sides
        return f"{latex_text(value)}$^{{{up}}}_{{{down.replace('−', '-')}}}${latex_text(marks)}"
    cell = latex_text(text).replace(r" $\pm$ ", r"\,$\pm$\,")
    for mark in (TIED, PRIMARY, ISO):
        cell = cell.replace(" " + LATEX[mark], LATEX[mark])
    return cell


def _width_pt(block: Block, letter_pt: float, apart_pt: float) -> float:
    """Width of a block in Computer Modern [pt], by the widths of its letters."""
    widest = [max(map(_ems, [str(name), *block.cells[name]])) for name in block.cells]
    return sum(widest) * letter_pt + 2 * apart_pt * len(widest)


def _ems(text: str) -> float:
    """Width of a cell in Computer Modern [em]: digits 0.5, wide letters 0.78, others by class."""
    sides = _sides(text)
    if sides is not None:
        value, up, down, marks = sides
        return _ems(value) + 0.75 * max(_ems(up), _ems(down)) + _ems(marks)
    narrow, wide = ".,:;il|'†°‡§* ", "±−+=×<>mwMWABCDEGHNOPQRSTUVXYZ"
    return sum(0.28 if one in narrow else 0.78 if one in wide else 0.53 for one in text)


def _rounded(number: float) -> float:
    return float(f"{round(number, DIGITS):.{DIGITS}g}")


_GREEK = """alpha beta gamma delta epsilon zeta eta theta iota kappa lambda mu nu xi o pi rho
varsigma sigma tau upsilon phi chi psi omega"""
"""Letters from α to ω, in the order of Unicode."""

LATEX = {
    **{chr(ord("α") + k): f"$\\{name}$" for k, name in enumerate(_GREEK.split()) if name != "o"},
    "Δ": r"$\Delta$",
    "Σ": r"$\Sigma$",
    "Φ": r"$\Phi$",
    "Ω": r"$\Omega$",
    "→": r"$\rightarrow$",
    "≤": r"$\leq$",
    "≥": r"$\geq$",
    "≈": r"$\approx$",
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
    "|": "$|$",
    "±": r"$\pm$",
    "×": r"$\times$",
    "µ": r"$\mu$",
    BLANK: "--",
    EXTRAPOLATED: r"$^\dagger$",
    TIED: r"$^\circ$",
    PRIMARY: r"$^\ddagger$",
    ISO: r"$^\S$",
    "∞": r"$\infty$",
    "\u00a0": "~",
    "−": "$-$",
}


def markdown_text(text: str) -> str:
    """Plain text with all Markdown syntax escaped."""
    text = re.sub(r"[|$`]|\\(?=[!-/:-@\[-`{-~])|\](?=\()", r"\\\g<0>", text)
    return re.sub(r"<(?=[A-Za-z/!?])|&(?=#?\w+;)", lambda one: html.escape(one.group()), text)


def latex_text(text: str) -> str:
    """Plain text as LaTeX: ASCII, with special characters escaped."""
    return "".join(LATEX.get(letter, letter) for letter in text)
