"""LaTeX of tables: every rule that a compiler checks, without a compiler."""

import re

import pandas as pd
import pytest
from places import GOLDEN

from analog_samson.report.typeset import LATEX, Block, Table, latex_text

GREEK = (
    "alpha beta gamma delta epsilon zeta eta theta iota kappa lambda mu nu xi pi rho varsigma "
    "sigma tau upsilon phi chi psi omega Delta Sigma Phi Omega"
)
COMMANDS = {
    "begin", "end", "centering", "small", "footnotesize", "setlength", "tabcolsep", "caption",
    "label", "par", "medskip", "smallskip", "textbf", "toprule", "midrule", "bottomrule", "pm",
    "rightarrow", "S", "circ", "times", "dagger", "ddagger", "textasciitilde", "textasciicircum",
    "textbackslash",
    "renewcommand", "arraystretch",
    "textless", "textgreater", "geq", "leq", "approx", "infty", *GREEK.split(),
}  # fmt: skip
"""Commands of LaTeX itself, without packages, and of booktabs."""


def check(text: str) -> None:
    """Braces, environments, columns, escapes and commands."""
    assert text.isascii(), sorted({c for c in text if not c.isascii()})
    bare = re.sub(r"\\\\|\\[{}%&#_$]", "", text)  # without line ends and escaped characters
    depth = 0
    for letter in bare:
        depth += {"{": 1, "}": -1}.get(letter, 0)
        assert depth >= 0
    assert depth == 0
    assert bare.count("$") % 2 == 0
    outside = "".join(bare.split("$")[::2])  # of formulas
    assert not set(outside) & set("%#~^_"), "special characters are escaped"
    assert not set(outside) & set("<>|"), "other letters in LaTeX's own encoding"
    open_ones = []
    for kind, name in re.findall(r"\\(begin|end)\{(\w+\*?)\}", text):
        if kind == "begin":
            open_ones.append(name)
        else:
            assert open_ones.pop() == name
    assert not open_ones
    unknown = set(re.findall(r"\\([A-Za-z]+)", text)) - COMMANDS
    assert not unknown
    for columns, body in re.findall(
        r"\\begin\{tabular\}\{([lcr]+)\}\n(.*?)\\end\{tabular\}", text, re.DOTALL
    ):
        lines = [line for line in body.splitlines() if not re.fullmatch(r"\\\w+rule", line)]
        for line in lines:
            assert line.endswith(r" \\"), line
            assert len(re.findall(r"(?<!\\)&", line)) == len(columns) - 1, line


@pytest.mark.parametrize("path", sorted(GOLDEN.glob("*.tex")), ids=lambda path: path.stem)
def test_tables_are_well_formed_latex(path):
    check(path.read_text(encoding="utf-8"))


def test_every_letter_is_escaped():
    nasty = r"50 % of a_b & c#1 {x} $y$ ~z ^2 \n <tag> a|b 'q' \"r\" ± µS → °"
    cells = pd.DataFrame({nasty: [nasty], "1 y†": [f"{nasty} ‡"]})
    block = Block(nasty, cells, cells.map(lambda _: True))
    check(Table(nasty, nasty, (block,), cells).latex())
    check("".join(latex_text(letter) for letter in LATEX if letter != "\u00a0"))
    assert latex_text("1\u00a0d") == "1~d"
