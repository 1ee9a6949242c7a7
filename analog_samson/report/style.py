"""One colour and marker per method, in every figure; style sheets by name."""

import difflib
import itertools
import re
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import Any, NamedTuple

import matplotlib
import matplotlib.colors
import matplotlib.style
import numpy as np
from matplotlib import rcParams, rcParamsDefault

from analog_samson.report.methods import KNOWN_METHODS, appearance


class MethodStyle(NamedTuple):
    """Colour and marker of a method in every figure; dashes mean extrapolated times."""

    colour: str
    marker: str


_SPARE_COLOURS = ("#AA4499", "#661100", "#6699CC", "#DDCC77", "#CC6677")
_SPARE_MARKERS = ("8", "H", "d", ">")

STYLES = ("paper", "talk")
WIDTHS_IN = {
    "paper": {"one column": 3.4, "two columns": 7.0},
    "talk": {"one column": 6.8, "two columns": 12.5},
}
_among: ContextVar[tuple[str, ...]] = ContextVar("_among", default=())

FILLS = ("full", "none", "left", "bottom")
"""How the markers of the strengths of one method are filled, in turn."""

OWN_COLUMNS_IN = 5.0
"""Width of a figure from which panels stand side by side [in]: our choice."""

CALLERS = re.compile(r"(font|text|mathtext)\.|.*(color|cycle|labelsize|titlesize|fontsize)$")
"""Settings of matplotlib (fonts and colours) that a style sheet leaves as the caller set them."""


def method_style(method: str) -> MethodStyle:
    """Colour and marker of a method alone; defaults derive from its name."""
    shown = appearance(method)
    number = zlib.crc32(method.encode())
    return MethodStyle(
        shown.colour or _SPARE_COLOURS[number % len(_SPARE_COLOURS)],
        shown.marker or _SPARE_MARKERS[number // 7 % len(_SPARE_MARKERS)],
    )


def styles_of(methods: Iterable[str]) -> dict[str, MethodStyle]:
    """Colour and marker of methods that are drawn together, no two alike.

    Each has its `method_style`, unless an earlier one has the same: then the methods that state
    none take the next spare colour, or the next marker where all colours are taken, in the order of
    their names.

    Example:
        >>> styles_of(["sgd", "mine:tilted"])["mine:tilted"] == method_style("mine:tilted")
        True
    """
    shown = {method: appearance(method) for method in set(methods)}
    chosen = {m: method_style(m) for m, one in shown.items() if one.colour and one.marker}
    for method in sorted(set(shown) - set(chosen), key=lambda one: (not shown[one].colour, one)):
        own = method_style(method)
        taken = {(one.colour.upper(), one.marker) for one in chosen.values()}
        colours = [own.colour] if shown[method].colour else _from(own.colour, _SPARE_COLOURS)
        markers = [own.marker] if shown[method].marker else _from(own.marker, _SPARE_MARKERS)
        used = {colour for colour, _ in taken}
        free = [MethodStyle(c, own.marker) for c in colours if c.upper() not in used]
        free += [MethodStyle(c, m) for c in colours for m in markers if (c.upper(), m) not in taken]
        chosen[method] = next(iter(free), own)
    return chosen


def _from(first: str, values: Sequence[str]) -> list[str]:
    """Values in turn, from one of them on."""
    place = values.index(first)
    return [*values[place:], *values[:place]]


@contextmanager
def among(names: Iterable[str]) -> Iterator[None]:
    """Methods keep the look that they have among these, also in figures that do not draw all."""
    token = _among.set((*_among.get(), *names))
    try:
        yield
    finally:
        _among.reset(token)


def plot_options(name: str, drawn: Iterable[str]) -> dict[str, Any]:
    """Line and marker of a method with its strength, for matplotlib.

    Args:
        name: Method and strength, such as "sam rho=0.5".
        drawn: All that one figure draws, besides those of `among`: no two methods are alike
            (`styles_of`); the strengths of one method share colour and marker, which is full,
            hollow, or half full, and of further ones paler.

    Returns:
        Keyword arguments of ``Axes.plot``.
    """
    method = name.split(" ")[0]
    drawn = [*drawn, *_among.get()]
    colour, marker = styles_of(other.split(" ")[0] for other in (name, *drawn))[method]
    if (cycle := rcParams["axes.prop_cycle"]) != rcParamsDefault["axes.prop_cycle"]:
        colours = cycle.by_key().get("color", [colour])
        methods = sorted({other.split(" ")[0] for other in drawn}, key=order)
        colour = colours[methods.index(method) % len(colours)]
    own = {other for other in drawn if other.split(" ")[0] == method}
    rank = sorted(own, key=lambda one: (one.count(" "), order(one), one)).index(name)
    red, green, blue = matplotlib.colors.to_rgb(colour)
    pale = 1 - 0.75 ** (rank // 2)
    shade = tuple(part + (1 - part) * pale for part in (red, green, blue))
    fill = FILLS[rank % len(FILLS)]
    is_hollow = fill == "none"
    return {
        "color": shade,
        "linestyle": "-",
        "marker": marker,
        "fillstyle": "full" if is_hollow else fill,
        "markeredgecolor": "white" if fill == "full" else shade,
        "markeredgewidth": line_width(0.45 if fill == "full" else 0.9),
        "markerfacecolor": "white" if is_hollow else shade,
        "markerfacecoloralt": "white",
    }


def strength_options(names: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Lines and markers of the strengths of one method, from dark to light.

    Args:
        names: Method with its strength, from the weakest on.

    Returns:
        Name to keyword arguments of ``Axes.plot``.
    """
    shades = matplotlib.colormaps["viridis"](np.linspace(0.0, 0.85, len(names)))
    markers = itertools.cycle("osD^vP")
    return {
        name: {"color": tuple(shade), "linestyle": "-", "marker": marker,
               "markeredgecolor": "white", "markeredgewidth": line_width(0.45)}
        for name, shade, marker in zip(names, shades, markers, strict=False)
    }  # fmt: skip


def line_width(share: float) -> float:
    """Line width [pt], as a fraction of that of the style sheet."""
    return share * float(rcParams["lines.linewidth"])


def marker_size(share: float) -> float:
    """Marker size [pt], as a fraction of that of the style sheet."""
    return share * float(rcParams["lines.markersize"])


def order(name: str) -> tuple[Any, ...]:
    """Sort key of a method with its strength: known methods first, strengths by their numbers."""
    method = name.split(" ")[0]
    known = list(KNOWN_METHODS)
    parts = re.split(r"(\d+\.?\d*(?:e-?\d+)?)", name)
    numbered = tuple(float(one) if k % 2 else one for k, one in enumerate(parts))
    return (known.index(method) if method in known else len(known), numbered)


def by_strengths(
    recipes: Mapping[str, str], baseline: str, fewest: int
) -> tuple[list[list[str]], list[str]]:
    """Methods that share panels: the strengths of each method with many, and all others.

    Args:
        recipes: Names of methods with strength, to what their strengths have in common.
        baseline: Name that is drawn beside the strengths of a method, too, if it is among the
            others.
        fewest: Number of strengths from which a method has panels of its own.

    Returns:
        Names of each method with panels of its own, and of the others, sorted as `order` says; no
        others if that is the baseline alone, which stands beside strengths.

    Example:
        >>> by_strengths({"rwp sigma=0.2": "rwp", "rwp sigma=0.1": "rwp", "sgd": "sgd"}, "sgd", 2)
        ([['sgd', 'rwp sigma=0.1', 'rwp sigma=0.2']], [])
    """
    own: dict[str, list[str]] = {}
    for name in sorted(recipes, key=order):
        own.setdefault(recipes[name], []).append(name)
    others = [name for names in own.values() if len(names) < fewest for name in names]
    before = [baseline] if baseline in others else []
    several = [[*before, *names] for names in own.values() if len(names) >= fewest]
    return several, [] if several and others == before else others


def style(name: str = "paper") -> AbstractContextManager[None]:
    """The style sheet of that name, as a context; fonts and colours set by the caller are kept.

    Args:
        name: "paper" (print size), "talk" (slides), or the path of a style sheet of matplotlib
            (".mplstyle"), which is applied on top of "paper".

    Returns:
        A context manager, inside of which figures take the style.

    Raises:
        FileNotFoundError: If there is no such style sheet.
        ValueError: If there is no such style.
    """
    own = Path(name)
    if own.suffix == ".mplstyle" and not own.is_file():
        raise FileNotFoundError(f"There is no style sheet {name!r}.")
    if own.suffix != ".mplstyle" and name not in STYLES:
        close = difflib.get_close_matches(name, STYLES, n=1)
        hint = f" Did you mean {close[0]!r}?" if close else ""
        raise ValueError(
            f"Style must be one of {list(STYLES)} or the path of a .mplstyle file; got {name!r}."
            f"{hint}"
        )
    sheets = [own] if own.suffix == ".mplstyle" else []
    kept: dict[str, Any] = {
        str(key): value
        for key, value in rcParams.items()
        if CALLERS.match(key) and value != rcParamsDefault[key]
    }
    first = Path(__file__).parent.parent / f"{base_style(name)}.mplstyle"
    context: AbstractContextManager[None] = matplotlib.style.context([first, *sheets, kept])
    return context


def base_style(name: str) -> str:
    """The package's style that a style is, or is based on."""
    return name if name in STYLES else "paper"


def width_in(width: str | float, look: str) -> float:
    """Width of a figure [in].

    Args:
        width: "one column", "two columns", or a number of inches, also as a text.
        look: Style, as for `style`.

    Raises:
        ValueError: If the width is neither, or not within 1 to 40 inches.
    """
    named = WIDTHS_IN[base_style(look)]
    if width in named:
        return named[str(width)]
    try:
        inches = float(width)
    except (TypeError, ValueError):
        inches = float("nan")
    if not 1.0 <= inches <= 40.0:
        raise ValueError(f"Width must be one of {list(named)} or 1 to 40 inches; got {width!r}.")
    return inches


def is_wide(width: str | float, look: str) -> bool:
    """Whether panels of a figure of this width stand side by side."""
    share = WIDTHS_IN[base_style(look)]["two columns"] / WIDTHS_IN["paper"]["two columns"]
    return width_in(width, look) >= OWN_COLUMNS_IN * share
