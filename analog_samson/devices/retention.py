"""Laws of retention: their shape over time, estimated from cells, and compared by cross-validation.

Every law is linear in a function f of time with two coefficients a cell, y = a + b f(t):

* power law: y = ln g, f = -ln((t + t_0) / t_0), b the drift exponent;
* log-linear: y = g, f = log10((t + t_0) / t_0), b the slope per decade;
* stretched exponential: y = g, f = 1 - exp(-(t / tau)^beta), b the change after a long time.

The constants of f are common to all cells. They are estimated by least squares over all cells, each
with its own a and b, of the residuals relative to the mean conductance of the cell.
"""

from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import optimize

from analog_samson.times import LONGEST_S

LawName = Literal["power_law", "log_linear", "stretched_exponential"]

LAW_NAMES: tuple[LawName, ...] = get_args(LawName)
"""From the simplest; of laws that explain measurements equally well, the first is chosen."""

FEWEST_TIMES = 5
"""Times that a comparison needs: our choice; a cell keeps more than it has coefficients."""

_N_BLOCKS = 10
_NEARLY = 1.01
"""Errors up to this ratio are called nearly as good: our choice."""
_LEAST = 1e-12
_SMALLEST_BETA, _LARGEST_BETA = 0.1, 1.0
_SMALLEST_T_0 = 0.01
"""Relative to the first time after 0."""

_Array = NDArray[np.float64]


@dataclass(frozen=True)
class Shape:
    """A law with the constants that all cells share.

    Attributes:
        law: Its name.
        t_0_s: First read after programming [s].
        tau_s: Time constant of a stretched exponential [s]; NaN for other laws.
        beta: Its exponent; NaN for other laws.
    """

    law: LawName
    t_0_s: float
    tau_s: float = float("nan")
    beta: float = float("nan")

    @property
    def words(self) -> str:
        """Name and constants, for a reader."""
        name = words_of(self.law)
        if self.law == "stretched_exponential":
            return f"{name}, tau = {self.tau_s:.4g} s, beta = {self.beta:.3g}"
        return f"{name}, t_0 = {self.t_0_s:.4g} s"

    @property
    def is_logarithmic(self) -> bool:
        """Whether ln g is linear in the function of time, and not g."""
        return self.law == "power_law"

    def function(self, t_s: _Array) -> _Array:
        """The function of time, 0 at t = 0."""
        if self.law == "stretched_exponential":
            return np.asarray(-np.expm1(-((t_s / self.tau_s) ** self.beta)))
        if self.law == "log_linear":
            return np.asarray(np.log10(1 + t_s / self.t_0_s))
        return np.asarray(-np.log1p(t_s / self.t_0_s))


def words_of(law: str) -> str:
    """A law's name for a reader: "power law", "log-linear", "stretched exponential"."""
    return {"log_linear": "log-linear"}.get(law, law.replace("_", " "))


@dataclass(frozen=True)
class Comparison:
    """Errors of the laws at times that were left out of their fits.

    Attributes:
        errors: {law: root mean square of the error, relative to the mean conductance of the cell}.
        without_drift: The same if every cell keeps the mean of its other times.
        drifts: Whether a law predicts better than that, by more than one standard error.
        chosen: The law with the smallest error, or a simpler one whose mean squared error exceeds
            it by no more than one standard error of the difference over cells; the simplest if no
            law predicts better than cells without drift.
        n_cells: Number of cells.
        n_blocks: Number of blocks of neighbouring times, left out one after the other.
    """

    errors: dict[LawName, float]
    without_drift: float
    drifts: bool
    chosen: LawName
    n_cells: int
    n_blocks: int

    @property
    def choice(self) -> str:
        """How the law was chosen, in one clause."""
        if not self.drifts:
            return "the simplest, since no law predicts better than no drift"
        best = min(self.errors, key=self.errors.__getitem__)
        if best != self.chosen:
            return (
                "chosen by cross-validation as the simplest within one standard error of the best "
                f"({self._error(self.chosen)} against {self._error(best)})"
            )
        nearly = [
            law
            for law, error in self.errors.items()
            if law != best and error <= _NEARLY * self.errors[best]
        ]
        also = f"; nearly as good: {', '.join(map(self._error, nearly))}" if nearly else ""
        return f"chosen by cross-validation{also}"

    def _error(self, law: LawName) -> str:
        return f"{words_of(law)} {100 * self.errors[law]:.3g} %"

    @property
    def words(self) -> str:
        """The errors in one clause."""
        of_laws = ", ".join(map(self._error, self.errors))
        return (
            f"rms error at left-out times (cross-validation, {self.n_blocks} blocks of times, "
            f"{self.n_cells} cells), relative to the mean conductance of a cell: {of_laws}, no "
            f"drift {100 * self.without_drift:.3g} %"
        )


@dataclass(frozen=True)
class _Lines:
    """Lines y = mean_y + slope (f(t) - mean_x), one a cell."""

    mean_x: _Array
    mean_y: _Array
    slope: _Array


@dataclass(frozen=True)
class _Cells:
    """Conducting cells as flat arrays, one entry a measurement.

    Attributes:
        cell: Number of the cell.
        t_s: Time [s].
        relative: Conductance over the mean of the cell.
        group: Number of the target, one entry a cell.
    """

    cell: NDArray[np.intp]
    t_s: _Array
    relative: _Array
    group: NDArray[np.intp]

    def part(self, kept: NDArray[np.bool_]) -> "_Cells":
        """Some of the measurements."""
        return _Cells(self.cell[kept], self.t_s[kept], self.relative[kept], self.group)

    def sums(self, values: _Array) -> _Array:
        """Sums over the measurements of each cell."""
        return np.asarray(np.bincount(self.cell, values, minlength=len(self.group)), dtype=float)

    @property
    def counts(self) -> _Array:
        """Number of measurements of each cell."""
        return self.sums(np.ones(len(self.cell)))

    def y(self, shape: Shape) -> _Array:
        """Values that are linear in the function of time."""
        return np.log(self.relative) if shape.is_logarithmic else self.relative

    def lines(self, shape: Shape) -> tuple[_Lines, _Array]:
        """Least-squares lines of all cells, and for each the sum of squares of f(t)."""
        x, y, counts = shape.function(self.t_s), self.y(shape), np.maximum(self.counts, 1)
        mean_x, mean_y = self.sums(x) / counts, self.sums(y) / counts
        dx = x - mean_x[self.cell]
        squares = self.sums(dx**2)
        products = self.sums(dx * (y - mean_y[self.cell]))
        slope = np.divide(products, squares, out=np.zeros_like(products), where=squares > 0)
        return _Lines(mean_x, mean_y, slope), squares

    def predicting_lines(self, shape: Shape) -> _Lines:
        """The lines with slopes drawn towards the mean of the target by what reads add to them."""
        lines, squares = self.lines(shape)
        freedom = max(1, len(self.cell) - 2 * len(self.group))
        residual = self.y(shape) - self.expected(shape, lines)
        noise = np.square(residual).sum() / freedom / np.maximum(squares, _LEAST)
        n = np.maximum(np.bincount(self.group), 1)

        def mean(values: _Array) -> _Array:
            return (np.bincount(self.group, values) / n)[self.group]

        away = lines.slope - mean(lines.slope)
        true = np.maximum(mean(away**2) - mean(noise), 0.0)
        share = noise / np.maximum(true + noise, _LEAST)
        return _Lines(lines.mean_x, lines.mean_y, lines.slope - away * share)

    def expected(self, shape: Shape, lines: _Lines) -> _Array:
        """Values of every measurement from the lines of the cells, as ``y``."""
        dx = shape.function(self.t_s) - lines.mean_x[self.cell]
        return lines.mean_y[self.cell] + lines.slope[self.cell] * dx

    def misfit(self, shape: Shape) -> float:
        """Sum of squared residuals, each cell with its own line."""
        lines, _ = self.lines(shape)
        return float(np.square(self.y(shape) - self.expected(shape, lines)).sum())


def estimate(rows: pd.DataFrame, law: LawName, t_0_s: float | None = None) -> Shape:
    """Estimate the constants that all cells share.

    Args:
        rows: Measurements, as from ``read_measurements``; cells that do not conduct at every time
            are left out.
        law: Name of the law.
        t_0_s: First read after programming [s]; None estimates it, between a hundredth of the first
            time after 0 and the last time. An estimate before the first time is taken only if it
            predicts left-out times better than both the first time and a hundredth of it, by more
            than one standard error; otherwise t_0 is the first time: from then on laws of all
            smaller t_0 are nearly the same, but the conductance at t = 0 is extrapolated and
            depends on the slope of the cell. A stretched exponential has its t_0 for read noise
            only: by default the first time after 0.

    Returns:
        The law with its constants.

    Raises:
        ValueError: If no cell conducts at every time, there is no time after 0, or t_0 is out of
            range.
    """
    cells = _conducting(rows, t_0_s)
    return _estimate(cells, law, _decided_t_0(cells, law) if t_0_s is None else t_0_s)


def compare(rows: pd.DataFrame, t_0_s: float | None = None) -> Comparison:
    """Compare the laws by cross-validation over left-out times.

    The times are cut into at most 10 blocks of neighbours. One block after the other is left out:
    the constants of a law are estimated from the other times of all cells, the coefficients of a
    cell from its other times (its slope drawn towards the mean of its target by the share that read
    noise has in it), and the conductances at the times left out are predicted. The first
    and the last block are extrapolated.

    Args:
        rows: As in :func:`estimate`; at least 5 different times.
        t_0_s: As in :func:`estimate`.

    Returns:
        The errors and the chosen law.

    Raises:
        ValueError: If there are fewer than 5 times, or as :func:`estimate`.
    """
    cells = _conducting(rows, t_0_s)
    times = np.unique(cells.t_s)
    if len(times) < FEWEST_TIMES:
        raise ValueError(
            f"A comparison of laws needs at least {FEWEST_TIMES} different times; got {len(times)}."
        )
    found = {
        law: _left_out(cells, law, _decided_t_0(cells, law) if t_0_s is None else t_0_s)
        for law in LAW_NAMES
    }
    means = {law: one.means for law, one in found.items()}
    without = found[LAW_NAMES[0]].means_without_drift
    best = min(LAW_NAMES, key=lambda law: float(means[law].mean()))
    drifts = not _is_as_good(without - means[best])
    as_good = [law for law in LAW_NAMES if not drifts or _is_as_good(means[law] - means[best])]
    return Comparison(
        errors={law: float(np.sqrt(means[law].mean())) for law in LAW_NAMES},
        without_drift=float(np.sqrt(without.mean())),
        drifts=drifts,
        chosen=as_good[0],
        n_cells=len(without),
        n_blocks=len(_blocks(cells)),
    )


@dataclass(frozen=True)
class _LeftOut:
    """Sums over left-out measurements, one entry a cell: their number, and squared errors."""

    counts: _Array
    squares: _Array
    without_drift: _Array

    @property
    def means(self) -> _Array:
        return self._by_cell(self.squares)

    @property
    def means_without_drift(self) -> _Array:
        return self._by_cell(self.without_drift)

    def _by_cell(self, sums: _Array) -> _Array:
        known = self.counts > 0
        return np.asarray(sums[known] / self.counts[known])


def _blocks(cells: _Cells) -> list[_Array]:
    times = np.unique(cells.t_s)
    return np.array_split(times, min(_N_BLOCKS, len(times)))


def _left_out(cells: _Cells, law: LawName, t_0_s: float | None) -> _LeftOut:
    """Errors of a law at times that were left out, block by block."""
    counts, squares, without = (np.zeros(len(cells.group)) for _ in range(3))
    for block in _blocks(cells):
        is_left_out = np.isin(cells.t_s, block)
        kept = cells.part(~is_left_out)
        tested = cells.part(is_left_out & (kept.counts >= 2)[cells.cell])
        counts += tested.counts
        mean = kept.sums(kept.relative) / np.maximum(kept.counts, 1)
        without += tested.sums((mean[tested.cell] - tested.relative) ** 2)
        shape = _estimate(kept, law, t_0_s)
        y = tested.expected(shape, kept.predicting_lines(shape))
        predicted = np.exp(y) if shape.is_logarithmic else y
        squares += tested.sums((predicted - tested.relative) ** 2)
    return _LeftOut(counts, squares, without)


def _decided_t_0(cells: _Cells, law: LawName) -> float | None:
    """The first time, where the measurements do not show a smaller t_0; None: it is estimated."""
    first = float(cells.t_s[cells.t_s > 0].min())
    if law == "stretched_exponential" or _estimate(cells, law, None).t_0_s >= first:
        return None
    if len(np.unique(cells.t_s)) < FEWEST_TIMES:
        return first
    own = _left_out(cells, law, None).means
    others = (_left_out(cells, law, t_0_s).means for t_0_s in (first, _SMALLEST_T_0 * first))
    return first if any(_is_as_good(other - own) for other in others) else None


def _is_as_good(excess: _Array) -> bool:
    """Whether an excess of squared errors is within one standard error of its mean over cells."""
    spread = float(excess.std(ddof=1)) if len(excess) > 1 else 0.0
    return bool(excess.mean() <= spread / np.sqrt(len(excess)))


def _conducting(rows: pd.DataFrame, t_0_s: float | None) -> _Cells:
    if t_0_s is not None and not 0 < t_0_s <= LONGEST_S:
        raise ValueError(f"t_0 is a time above 0 s and at most {LONGEST_S:g} s; got {t_0_s!r}.")
    alive = rows.groupby("device")["conductance_uS"].transform("min") > 0
    if not alive.any():
        raise ValueError("No cell conducts at every time; laws of retention need such cells.")
    if not (rows.loc[alive, "time_s"] > 0).any():
        raise ValueError("The measurements have no time after 0 s; laws of retention need some.")
    kept = rows[alive]
    cell, _ = pd.factorize(kept["device"])
    group, _ = pd.factorize(kept.groupby("device", sort=False)["target_uS"].first())
    g = kept["conductance_uS"].to_numpy(dtype=float)
    means = np.bincount(cell, g) / np.bincount(cell)
    return _Cells(cell, kept["time_s"].to_numpy(dtype=float), g / means[cell], group)


def _estimate(cells: _Cells, law: LawName, t_0_s: float | None) -> Shape:
    after_0 = cells.t_s[cells.t_s > 0]
    first, last = float(after_0.min()), float(after_0.max())
    if law == "stretched_exponential":
        return _estimate_stretched(cells, first, last, first if t_0_s is None else t_0_s)
    if t_0_s is not None:
        return Shape(law, t_0_s)

    def misfit(log_t_0: float) -> float:
        return cells.misfit(Shape(law, float(np.exp(log_t_0))))

    grid = np.linspace(np.log(_SMALLEST_T_0 * first), np.log(last), 25)
    start = int(np.argmin([misfit(one) for one in grid]))
    bounds = grid[max(0, start - 1)], grid[min(len(grid) - 1, start + 1)]
    found = optimize.minimize_scalar(misfit, bounds=bounds, method="bounded")
    return Shape(law, float(np.exp(found.x)))


def _estimate_stretched(cells: _Cells, first: float, last: float, t_0_s: float) -> Shape:
    """By search from the best point of a grid; tau from the first time to ten times the last."""

    def shape(point: _Array) -> Shape:
        log_tau, beta = map(float, point)
        return Shape("stretched_exponential", t_0_s, float(np.exp(log_tau)), beta)

    def misfit(point: _Array) -> float:
        return cells.misfit(shape(point))

    bounds = (np.log(first), np.log(10 * last)), (_SMALLEST_BETA, _LARGEST_BETA)
    axes = [np.linspace(low, high, n) for (low, high), n in zip(bounds, (13, 7), strict=True)]
    grid = np.stack(np.meshgrid(*axes), axis=-1).reshape(-1, 2)
    start = grid[int(np.argmin([misfit(point) for point in grid]))]
    found = optimize.minimize(misfit, start, bounds=bounds, method="Nelder-Mead")
    return shape(found.x)
