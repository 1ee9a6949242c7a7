r"""Figures as LaTeX commands, typeset by ``\input`` in the font of the paper."""

import re
import shutil
from pathlib import Path
from typing import Any

import matplotlib
from matplotlib.figure import Figure
from matplotlib.text import Text

from analog_samson.report.typeset import LATEX

_LETTERS = {letter: text for letter, text in LATEX.items() if not letter.isascii()}
_PREAMBLE = "\n".join(
    rf"\DeclareUnicodeCharacter{{{ord(letter):04X}}}{{{text}}}" for letter, text in _LETTERS.items()
)
_SPECIAL = {**_LETTERS, **{letter: LATEX[letter] for letter in "_|<>&#"}}


def save_pgf(figure: Figure, path: Path) -> None:
    r"""Write a figure for ``\input`` into a paper that loads the package pgf, and no other.

    Args:
        figure: The figure.
        path: Where to.

    Raises:
        FileNotFoundError: If there is no pdflatex, which measures text widths.
    """
    if shutil.which("pdflatex") is None:
        raise FileNotFoundError(
            "The format pgf needs pdflatex, to measure letters; install LaTeX with the package "
            "pgf, or choose among pdf, svg and png."
        )
    settings: Any = {
        "pgf.texsystem": "pdflatex",
        "pgf.rcfonts": False,
        "pgf.preamble": _PREAMBLE,
        "axes.unicode_minus": False,
    }
    texts = [text for text in figure.findobj(Text) if not text.get_parse_math()]
    as_they_are = [text.get_text() for text in texts]
    for text, words in zip(texts, as_they_are, strict=True):
        text.set_text(re.sub(r"[\\$^~{}]", lambda found: LATEX[found.group()], words))
    try:
        with matplotlib.rc_context(settings):
            figure.savefig(path, format="pgf")
    finally:
        for text, words in zip(texts, as_they_are, strict=True):
            text.set_text(words)
    lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
    drawn = [line for line in lines if not line.startswith("%%")]
    path.write_text("".join(map(_plain, drawn)), encoding="utf-8")


def _plain(line: str) -> str:
    """A line of the file, its text in plain LaTeX."""
    setup, font, text = line.partition(r"\selectfont")
    return setup + font + re.sub("[^ -~\n]|[_|<>&#]", lambda found: _SPECIAL[found.group()], text)
