"""One colour and marker per method, in every figure; style sheets by name."""

import difflib
import zlib
from collections.abc import Iterable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, NamedTuple

import matplotlib.colors
import matplotlib.style
from matplotlib import rcParams

from analog_samson.report.methods import KNOWN_METHODS, appearance


class MethodStyle(NamedTuple):
    """Appearance of a method in every figure; dashes distinguish methods in greyscale prints."""

    colour: str
    marker: str
    line: Any = "-"


_SPARE_COLOURS = ("#AA4499", "#661100", "#6699CC", "#DDCC77", "#CC6677")
_SPARE_MARKERS = ("8", "H", "1", "2", "+")

STYLES = ("paper", "talk")
WIDTHS_IN = {
    "paper": {"one column": 3.4, "two columns": 7.0},
    "talk": {"one column": 6.8, "two columns": 12.5},
}


def method_style(method: str) -> MethodStyle:
    """Colour, marker and line of a method; defaults derive from its name."""
    shown = appearance(method)
    number = zlib.crc32(method.encode())
    return MethodStyle(
        shown.colour or _SPARE_COLOURS[number % len(_SPARE_COLOURS)],
        shown.marker or _SPARE_MARKERS[number // 7 % len(_SPARE_MARKERS)],
        (0, shown.dashes) if shown.dashes else "-",
    )


def plot_options(name: str, drawn: Iterable[str]) -> dict[str, Any]:
    """Line and marker of a method with its strength, for matplotlib.

    Args:
        name: Method and strength, such as "sam rho=0.5".
        drawn: All that one figure draws: the strengths of one method share colour and marker, the
            second one hollow, the further ones paler.

    Returns:
        Keyword arguments of ``Axes.plot``.
    """
    method = name.split(" ")[0]
    colour, marker, line = method_style(method)
    rank = sorted(other for other in drawn if other.split(" ")[0] == method).index(name)
    red, green, blue = matplotlib.colors.to_rgb(colour)
    pale = 1 - 0.75 ** (rank // 2)
    shade = tuple(part + (1 - part) * pale for part in (red, green, blue))
    is_hollow = rank % 2 == 1
    return {
        "color": shade,
        "linestyle": line,
        "marker": marker,
        "markeredgecolor": shade if is_hollow else "white",
        "markeredgewidth": line_width(0.9 if is_hollow else 0.45),
        "markerfacecolor": "white" if is_hollow else shade,
    }


def line_width(share: float) -> float:
    """Line width [pt], as a fraction of that of the style sheet."""
    return share * float(rcParams["lines.linewidth"])


def marker_size(share: float) -> float:
    """Marker size [pt], as a fraction of that of the style sheet."""
    return share * float(rcParams["lines.markersize"])


def order(name: str) -> tuple[int, str]:
    """Sort key of a method with its strength: known methods first, in their usual order."""
    method = name.split(" ")[0]
    known = list(KNOWN_METHODS)
    return (known.index(method) if method in known else len(known), name)


def style(name: str = "paper") -> AbstractContextManager[None]:
    """The style sheet of that name, as a context.

    Args:
        name: "paper" (print size) or "talk" (slides).

    Returns:
        A context manager, inside of which figures take the style.

    Raises:
        ValueError: If there is no such style.
    """
    if name not in STYLES:
        close = difflib.get_close_matches(name, STYLES, n=1)
        hint = f" Did you mean {close[0]!r}?" if close else ""
        raise ValueError(f"Style must be one of {list(STYLES)}; got {name!r}.{hint}")
    sheet = Path(__file__).parent.parent / f"{name}.mplstyle"
    context: AbstractContextManager[None] = matplotlib.style.context(sheet)
    return context
