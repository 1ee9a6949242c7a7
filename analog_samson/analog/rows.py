"""Cells of several small arrays, and chips, in one call of the noise model, with the same bits.

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

    First lie the first cells of the weights of all arrays, then the second cells. States and
    conductances of chips have the shape (chips, cells).

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

    def takes(self, n_chips: int) -> bool:
        """Whether the cells of so many chips are computed in one piece."""
        n_cells = n_chips * len(self._targets_uS)
        return n_chips == 1 or n_cells <= _AT_ONCE or torch.get_num_threads() == 1

    def program(self, seeds: Sequence[Sequence[Seeds]]) -> CellState:
        """Program all cells, as ``Physics.program``; seeds of every chip by cell, then array."""
        model, target = self._physics.model, self._targets_uS
        programmed = self._drawn(
            seeds, ("programming",), model.apply_programming_noise_to_conductance, target
        )
        exponent = self._drawn(seeds, ("drift",), model.generate_drift_coefficients, target)
        stuck = self._stuck(seeds)
        return CellState(None, hold_stuck(programmed, stuck), exponent, stuck)

    def _stuck(self, seeds: Sequence[Sequence[Seeds]]) -> Tensor | None:
        shapes = [torch.Size([n]) for n in self._sizes * self.n_cells]
        drawn = [
            self._physics.stuck(shape, own)
            for of_chip in seeds
            for shape, own in zip(shapes, of_chip, strict=True)
        ]
        held = [each for each in drawn if each is not None]
        return torch.cat(held).view(len(seeds), -1) if held else None

    def read(
        self, state: CellState, t_inference_s: float, read: int, seeds: Sequence[Sequence[Seeds]]
    ) -> Tensor:
        """Conductances [µS] of all cells as read at a time, as ``Physics.read``."""
        if t_inference_s == 0:
            return state.programmed_uS
        aged = self._drawn(
            seeds,
            ("read", t_inference_s, read),
            self._physics.model.apply_drift_noise_to_conductance,
            state.programmed_uS,
            state.drift_exponent,
            self._physics.time_factor * t_inference_s,
        )
        return hold_stuck(aged, state.stuck_uS)

    def weights(self, conductances_uS: Tensor) -> tuple[Tensor, list[Tensor]]:
        """Weights that follow from conductances [µS], in a row and array by array."""
        n_chips = len(conductances_uS)
        cells = conductances_uS.view(n_chips, self.n_cells, -1).unbind(dim=1)
        whole = self._physics.to_weights(cells, self._scale)
        parts = zip(torch.split(whole, self._sizes, dim=1), self._shapes, strict=True)
        return whole, [part.view(n_chips, *shape) for part, shape in parts]

    def by_array(self, state: CellState) -> list[list[CellState]]:
        """The state of every array of one chip, by cell of a weight: views of its row."""
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

    def _drawn(
        self,
        seeds: Sequence[Sequence[Seeds]],
        words: tuple[str | float, ...],
        call: Callable[..., Tensor],
        *given: Any,
    ) -> Tensor:
        """Call the noise model; every piece of a row draws from the stream of its own seed."""
        sizes = tuple(self._sizes) * self.n_cells
        normals = [_normals(sizes, tuple(of_chip), words) for of_chip in seeds]
        with _Drawn(torch.stack(normals)):
            return call(*given)


@functools.lru_cache(maxsize=_KEPT_DRAWS)
def _normals(
    sizes: tuple[int, ...], seeds: tuple[Seeds, ...], words: tuple[str | float, ...]
) -> Tensor:
    """Standard normals of a row; chips whose conditions differ in scales only share them."""
    generators = [torch.Generator().manual_seed(own(*words)) for own in seeds]
    return torch.cat([torch.randn(n, generator=g) for n, g in zip(sizes, generators, strict=True)])


class _Drawn(TorchFunctionMode):
    """Within a block ``randn_like`` returns the standard normals of a row."""

    def __init__(self, normals: Tensor) -> None:
        super().__init__()
        self._normals, self._is_drawn = normals, False

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is torch.randn_like:
            if self._is_drawn:
                raise RuntimeError("A noise model that draws twice in a call is not elementwise.")
            self._is_drawn = True
            return self._normals
        return func(*args, **(kwargs or {}))
