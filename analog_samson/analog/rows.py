"""Cells of several small arrays in one row: one call of the noise model, with the same bits.

Calls, not arithmetic, take the time of small arrays.
"""

import functools
from collections.abc import Callable, Sequence
from typing import Any, Self

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from analog_samson.analog.physics import CellState, Physics, Seeds, hold_stuck

_VECTORS = 64
"""Torch computes multiples of this many numbers in vectors alone, without a scalar rest, whose last
bits may differ: only such arrays stand in a row with others."""

_AT_ONCE = 32_768
"""Torch computes this many numbers in one piece, whatever the number of threads; of larger arrays
the calls cost nothing that counts."""

_KEPT_DRAWS = 512
"""Rows of standard normals that a process keeps, at most 64 MB: our choice. A grid of conditions
meets those of a chip again for every condition."""


def fits_in_row(target: Tensor) -> bool:
    """Whether target weights of an array may stand in a row with others."""
    return target.numel() % _VECTORS == 0


class Row:
    """Target conductances of arrays, one behind the other; the same for all chips.

    First lie the first cells of the weights of all arrays, then the second cells.

    Args:
        physics: Physics of all the arrays.
        targets_uS: Target conductances [µS] of every array, one tensor per cell of a weight.
        scale: Scale between weights and conductances, the same for all.

    Attributes:
        n_cells: Cells of a weight.
    """

    def __init__(
        self, physics: Physics, targets_uS: Sequence[Sequence[Tensor]], scale: Any
    ) -> None:
        self._physics, self._scale = physics, scale
        self._shapes = [cells[0].shape for cells in targets_uS]
        self.n_cells = len(targets_uS[0])
        self._sizes = [shape.numel() for shape in self._shapes]
        pieces = [
            cell.flatten() for of_arrays in zip(*targets_uS, strict=True) for cell in of_arrays
        ]
        self._targets_uS = torch.cat(pieces)

    @classmethod
    def of(cls, physics: Physics, targets: Sequence[Tensor]) -> Self | None:
        """The row of arrays with these target weights; None if they are computed one by one."""
        joins = getattr(physics.model, "is_elementwise", False) and physics.noise.cells == "pair"
        if not joins or len(targets) < 2 or sum(t.numel() for t in targets) > _AT_ONCE:
            return None
        found = [physics.to_conductances(target) for target in targets]
        n_cells = sum(cell.numel() for cells, _ in found for cell in cells)
        ratios = {float(params["scale_ratio"]) for _, (params, _) in found}
        if n_cells > _AT_ONCE or len(ratios) > 1:
            return None
        return cls(physics, [cells for cells, _ in found], found[0][1])

    def program(self, seeds: Sequence[Seeds]) -> CellState:
        """Program all cells, as ``Physics.program``; seeds by cell, then array."""
        model, target = self._physics.model, self._targets_uS
        programmed = self._drawn(
            [own("programming") for own in seeds],
            model.apply_programming_noise_to_conductance,
            target,
        )
        exponent = self._drawn(
            [own("drift") for own in seeds], model.generate_drift_coefficients, target
        )
        sizes = self._sizes * self.n_cells
        drawn = [self._physics.stuck(torch.Size([n]), s) for n, s in zip(sizes, seeds, strict=True)]
        held = [each for each in drawn if each is not None]
        stuck = torch.cat(held) if held else None
        return CellState(None, hold_stuck(programmed, stuck), exponent, stuck)

    def read(
        self, state: CellState, t_inference_s: float, read: int, seeds: Sequence[Seeds]
    ) -> Tensor:
        """Conductances [µS] of all cells as read at a time, as ``Physics.read``."""
        if t_inference_s == 0:
            return state.programmed_uS
        aged = self._drawn(
            [own("read", t_inference_s, read) for own in seeds],
            self._physics.model.apply_drift_noise_to_conductance,
            state.programmed_uS,
            state.drift_exponent,
            self._physics.time_factor * t_inference_s,
        )
        return hold_stuck(aged, state.stuck_uS)

    def weights(self, conductances_uS: Tensor) -> tuple[Tensor, list[Tensor]]:
        """Weights that follow from conductances [µS], in a row and array by array."""
        cells = conductances_uS.view(self.n_cells, -1).unbind()
        whole = self._physics.to_weights(cells, self._scale)
        parts = zip(torch.split(whole, self._sizes), self._shapes, strict=True)
        return whole, [part.view(shape) for part, shape in parts]

    def by_array(self, state: CellState) -> list[list[CellState]]:
        """The state of every array, one entry per cell of a weight: views of the row."""
        quantities = state.programmed_uS, state.drift_exponent, state.stuck_uS
        pieces = [self._pieces(quantity) for quantity in quantities]
        states = [CellState(None, *of_cell) for of_cell in zip(*pieces, strict=True)]
        n_arrays = len(self._shapes)
        return [states[array::n_arrays] for array in range(n_arrays)]

    def _pieces(self, quantity: Tensor | None) -> list[Any]:
        sizes, shapes = self._sizes * self.n_cells, self._shapes * self.n_cells
        if quantity is None:
            return [None] * len(sizes)
        return [
            p.view(shape) for p, shape in zip(torch.split(quantity, sizes), shapes, strict=True)
        ]

    def _drawn(self, seeds: Sequence[int], call: Callable[..., Tensor], *given: Any) -> Tensor:
        """Call the noise model; every piece of the row draws from the stream of its own seed."""
        with _Drawn(_normals(tuple(self._sizes) * self.n_cells, tuple(seeds))):
            return call(*given)


@functools.lru_cache(maxsize=_KEPT_DRAWS)
def _normals(sizes: tuple[int, ...], seeds: tuple[int, ...]) -> Tensor:
    """Standard normals of a row; chips whose conditions differ in scales only share them."""
    generators = [torch.Generator().manual_seed(seed) for seed in seeds]
    return torch.cat([torch.randn(n, generator=g) for n, g in zip(sizes, generators, strict=True)])


class _Drawn(TorchFunctionMode):
    """Within a block ``randn_like`` returns the standard normals of a row."""

    def __init__(self, normals: Tensor) -> None:
        super().__init__()
        self._normals = normals

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is torch.randn_like:
            return self._normals
        return func(*args, **(kwargs or {}))
