"""The crossbar arrays of a chip: programmed once, aged to any time, read out, compensated."""

import functools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Self

import torch
from torch import Tensor

from analog_samson.analog import CellState, Physics, Tile, TilesOfGroups, seeded
from analog_samson.analog.physics import Seeds
from analog_samson.analog.rows import Row, fits_in_row
from analog_samson.compiled import Array
from analog_samson.devices import Device
from analog_samson.devices.variation import SCALES
from analog_samson.streams import Stream, derive_seed


class PhysicsOfLayers:
    """Device and physics of the arrays of a network, shared by all chips unless these differ.

    Args:
        device: The device.
        seed: Seed of a chip, whose factors of variation are applied; None: none are.
    """

    def __init__(self, device: Device, seed: int | None = None) -> None:
        self._device, self._seed = device, seed
        self._devices: dict[str, Device] = {}
        self._physics: dict[tuple[str, ...], Physics] = {}
        self._rows: dict[Physics, Row | None] = {}

    def of_chip(self, seed: int) -> Self:
        """Those of the arrays of a chip, with its factors of variation."""
        return type(self)(self._device, seed) if self._device.variation.is_used else self

    def of(self, layer: str, index: int) -> tuple[Device, Physics]:
        """Device of a layer, and physics of one of its arrays."""
        if layer not in self._devices:
            self._devices[layer] = self._device.with_overrides_for(layer)
        own = self._devices[layer]
        array = (layer, str(index)) if self._device.variation.is_by_array else ()
        key = ("" if own is self._device else layer, *array)
        if key not in self._physics:
            varied = own if self._seed is None else _varied(own, self._seed, array)
            self._physics[key] = Physics(varied)
        return own, self._physics[key]

    def row(self, physics: Physics, targets: Sequence[Tensor]) -> Row | None:
        """The row of all arrays of a physics that may stand in one, the same for all chips."""
        if physics not in self._rows:
            self._rows[physics] = Row.of(physics, targets)
        return self._rows[physics]


@dataclass(frozen=True)
class _AfterRefreshes:
    """Seeds after a number of refreshes; stuck cells are the same in all cycles."""

    stream: Stream
    cycle: int

    def __call__(self, *words: str | int | float) -> int:
        if words[0] == "faults":
            return self.stream(*words)
        return self.stream("cycle", self.cycle, *words)


def _of_cycle(stream: Stream, cycle: int) -> Seeds:
    return stream if cycle == 0 else _AfterRefreshes(stream, cycle)


def _varied(device: Device, seed: int, array: tuple[str, ...]) -> Device:
    """The device with the scales of a chip, or of one of its arrays."""
    scales = {
        key: getattr(device.noise, key)
        * _factor(getattr(device.variation, f"{kind}_by_chip"), seed, kind)
        * _factor(getattr(device.variation, f"{kind}_by_array"), seed, kind, *array)
        for kind, key in SCALES.items()
        if device.variation.of(kind) > 0
    }
    return device.model_copy(update={"noise": device.noise.model_copy(update=scales)})


def _factor(spread: float, seed: int, *words: str) -> float:
    """A log-normal factor with mean 1 and a relative standard deviation.

    Factors of different spreads of one chip are derived from the same normal number.
    """
    draws = torch.Generator().manual_seed(derive_seed(seed, "variation", *words))
    normal = float(torch.randn((), generator=draws, dtype=torch.float64))
    variance = math.log1p(spread**2)
    return math.exp(math.sqrt(variance) * normal - variance / 2)


class ProgrammedArrays:
    """All arrays of a chip, at conductance level or on aihwkit's own weight-level path.

    They are programmed when they are read first (:func:`drift_together`).

    Args:
        mapped: Arrays with their target weights, not yet programmed.
        physics: Physics of the layers.
        seed: Seed of the chip.
    """

    def __init__(
        self, mapped: Sequence[Tile | TilesOfGroups | Array], physics: PhysicsOfLayers, seed: int
    ) -> None:
        self._arrays: list[ChipArray] = []
        self.parts: list[AihwkitArray | ConductanceArray | _ArraysInRow] = []
        in_row: dict[Physics, list[ConductanceArray]] = {}
        physics = physics.of_chip(seed)
        for array in mapped:
            device, of_array = physics.of(array.layer, array.index)
            kind, words = device.drift_compensation.kind, (seed, array.layer, array.index)
            factor = device.temperature.time_factor
            if device.noise_level == "weight_as_in_aihwkit" and not isinstance(array, Array):
                on_tiles = (
                    [AihwkitArray(array, kind, Stream(*words), factor)]
                    if isinstance(array, Tile)
                    else [
                        AihwkitArray(tile, kind, Stream(*words, number), factor)
                        for number, tile in enumerate(array.tiles)
                    ]
                )
                self._arrays += on_tiles
                self.parts += on_tiles
                continue
            at_cells = ConductanceArray(array, kind, of_array, words)
            self._arrays.append(at_cells)
            if fits_in_row(array.target):
                in_row.setdefault(of_array, []).append(at_cells)
            else:
                self.parts.append(at_cells)
        for shared, arrays in in_row.items():
            row = physics.row(shared, [array.mapped.target for array in arrays])
            self.parts += arrays if row is None else [_ArraysInRow(row, arrays)]

    def __iter__(self) -> Iterator["ChipArray"]:
        return iter(self._arrays)


def drift_together(
    chips: Sequence[ProgrammedArrays], t_inference_s: float, read: int, cycle: int = 0
) -> None:
    """Age chips to a time [s] since programming and read them; `read` numbers the read noise.

    `cycle` counts how often the chips were programmed again before. Rows of several chips are
    computed in one call.
    """
    in_row: dict[Row, list[_ArraysInRow]] = {}
    for chip in chips:
        for part in chip.parts:
            if isinstance(part, _ArraysInRow):
                in_row.setdefault(part.row, []).append(part)
            else:
                part.drift_to(t_inference_s, read, cycle)
    for row, parts in in_row.items():
        for several in [parts] if row.takes(len(parts)) else [[part] for part in parts]:
            _drift_rows(several, t_inference_s, read, cycle)


class ChipArray:
    """One programmed crossbar array of a chip.

    In a grouped layer it represents the arrays of all groups at one position, which are drawn and
    aged together.

    Attributes:
        mapped: The array as mapped, which holds the weights and the compensation factor now.
        kind: Kind of the drift compensation.
    """

    def __init__(self, mapped: Tile | TilesOfGroups | Array, kind: str) -> None:
        self.mapped = mapped
        self.kind = kind

    def check_finite(self, weights: Tensor) -> None:
        """Raise ValueError if a weight or a compensation factor is NaN or infinite."""
        if not math.isfinite(float(weights.sum()) + float(self.mapped.alpha.sum())):
            raise ValueError(
                f"Layer {self.mapped.layer!r} has weights or a compensation factor on the chip "
                "that are NaN or infinite. Check the noise and mapping of the device file (a law "
                "that is not finite at some conductance), or keep the layer digital."
            )

    def set_compensation(self, alpha: Tensor) -> None:
        """Set the factor that multiplies the outputs, shape (..., 1) or (..., columns)."""
        self.mapped.set_compensation(alpha.expand(*self.mapped.target.shape[:-2], -1))


class ConductanceArray(ChipArray):
    """An array at conductance level: every cell keeps its state over time.

    The state of a cell is what it was programmed to, its exponent of drift, and where it is stuck.

    Attributes:
        physics: Physics of its cells.
        states: State of the cells as programmed, one entry per cell of a weight.
        reference: Read-out of its weights as programmed.
        point: Time since programming [s] and read number of the present weights.
        cycle: How often it was programmed again; -1: not programmed yet.
    """

    reference: Tensor

    def __init__(
        self,
        mapped: Tile | TilesOfGroups | Array,
        kind: str,
        physics: Physics,
        words: tuple[int, str, int],
    ) -> None:
        super().__init__(mapped, kind)
        self.physics, self._words, self.cycle = physics, words, -1
        self.states: list[CellState] = []
        self.point = 0.0, 0
        self._are_all_used = bool(mapped.used.all())
        n_used = mapped.used.sum(dim=-1, keepdim=True).clamp(min=1)
        self._n_read_out = n_used * mapped.target.shape[-1]

    @functools.cached_property
    def _scale(self) -> Any:
        """Scale between weights and conductances, fixed by the targets."""
        return self.physics.to_conductances(self.mapped.target)[1]

    def stream(self, cell: int) -> Seeds:
        """Random stream of one cell of every weight, since it was programmed last."""
        return _of_cycle(Stream(*self._words, cell), self.cycle)

    def program(self, cycle: int) -> None:
        """Program the cells: programming errors, drift exponents and faults are drawn."""
        self.cycle = cycle
        targets, self._scale = self.physics.to_conductances(self.mapped.target)
        states = [self.physics.program(uS, self.stream(cell)) for cell, uS in enumerate(targets)]
        self.states = states
        self.read_out_as_programmed()

    def drift_to(self, t_inference_s: float, read: int, cycle: int) -> None:
        """Age to a time [s] and read; program before, if the number of refreshes is another."""
        if cycle != self.cycle:
            self.program(cycle)
        self.point = t_inference_s, read
        weights, _ = self.take(self._weights(self.conductances())[None], [self])
        self.check_finite(weights)

    def read_out_as_programmed(self) -> None:
        """Take the read-out of the programmed cells as reference."""
        self.set_reference(self.programmed_weights()[None], [self])

    def set_reference(self, weights: Tensor, chips: Sequence["ConductanceArray"]) -> None:
        """Take the read-out of programmed weights of this array on several chips as reference."""
        read_out = self._read_out(self._used(weights))
        for array, reference in zip(chips, read_out, strict=True):
            array.reference = reference

    def take(
        self, weights: Tensor, chips: Sequence["ConductanceArray"]
    ) -> tuple[Tensor, Tensor | None]:
        """Set weights as read of this array on several chips, and measure the factor of each.

        Returns:
            Weights in use, shape (chips, ...), and factors; None if arrays do not have their own.
        """
        weights = self._used(weights)
        for array, own in zip(chips, weights, strict=True):
            array.mapped.set_weights(own)
        if self.kind not in ("global", "per_column"):
            return weights, None
        references = torch.stack([array.reference for array in chips])
        factors = references / self._read_out(weights)
        for array, alpha in zip(chips, factors, strict=True):
            array.mapped.set_compensation(alpha)
        return weights, factors

    def targets(self) -> list[Tensor]:
        """Target conductances [µS], one tensor per cell of a weight."""
        return self.physics.to_conductances(self.mapped.target)[0]

    def conductances(self) -> list[Tensor]:
        """Conductances [µS] as read now, one tensor per cell of a weight; drawn anew."""
        return [
            self.physics.read(state, *self.point, self.stream(cell))
            for cell, state in enumerate(self.states)
        ]

    def normalised_weights(self) -> Tensor:
        """Normalised weights as read now, shape of the targets."""
        return self._used(self._weights(self.conductances()))

    def programmed_weights(self) -> Tensor:
        """Normalised weights as programmed, shape of the targets."""
        return self._used(self._weights([state.programmed_uS for state in self.states]))

    def _weights(self, conductances_uS: list[Tensor]) -> Tensor:
        return self.physics.to_weights(conductances_uS, self._scale)

    def _used(self, weights: Tensor) -> Tensor:
        """Weights with 0 in all-zero columns, which are unused and not noise."""
        if self._are_all_used:
            return weights
        return weights.where(self.mapped.used[..., None], 0)

    def _read_out(self, weights: Tensor) -> Tensor:
        """Mean |output| for one-hot inputs, without noise: mean |w| of the array or each column."""
        return read_out(weights, self.kind, self._n_read_out)


def read_out(weights: Tensor, kind: str, n_read_out: Tensor) -> Tensor:
    """Mean |output| for one-hot inputs, without noise, from which compensation factors follow.

    Args:
        weights: Normalised weights, shape (..., columns, rows), 0 in unused columns.
        kind: Kind of the drift compensation.
        n_read_out: Weights in the used columns of each array, shape (..., 1).

    Returns:
        Mean |w| of each column ("per_column"), shape (..., columns), or of the array, (..., 1).
    """
    smallest = 1e-4  # aihwkit's guard against a division by zero
    sums = weights.abs().sum(dim=-1)
    if kind == "per_column":
        return (sums / weights.shape[-1]).clamp(min=smallest)
    return (sums.sum(dim=-1, keepdim=True) / n_read_out).clamp(min=smallest)


class _ArraysInRow:
    """Arrays of a chip at conductance level that are programmed and read in one call.

    Attributes:
        row: Their targets.
        arrays: The arrays.
        cycle: How often they were programmed again; -1: not programmed yet.
        state: State of all cells as programmed.
        seeds: Random streams since then, by cell, then array.
    """

    state: CellState
    seeds: list[Seeds]

    def __init__(self, row: Row, arrays: Sequence[ConductanceArray]) -> None:
        self.row, self.arrays, self.cycle = row, arrays, -1

    def renew(self, cycle: int) -> None:
        """Take the random streams of a number of refreshes."""
        self.cycle = cycle
        for array in self.arrays:
            array.cycle = cycle
        cells = range(self.row.n_cells)
        self.seeds = [array.stream(cell) for cell in cells for array in self.arrays]

    def start(self, state: CellState) -> None:
        """Take programmed cells."""
        self.state = state
        for array, own in zip(self.arrays, self.row.by_array(state), strict=True):
            array.states = own


def _program_rows(chips: Sequence[_ArraysInRow], cycle: int) -> None:
    """As ``ConductanceArray.program``, for the same arrays of several chips."""
    for chip in chips:
        chip.renew(cycle)
    row = chips[0].row
    state = row.program([chip.seeds for chip in chips])
    for chip, own in zip(chips, state.by_chip(), strict=True):
        chip.start(own)
    for held, arrays in zip(row.weights(state.programmed_uS)[1], _by_array(chips), strict=True):
        arrays[0].set_reference(held, arrays)


def _drift_rows(chips: Sequence[_ArraysInRow], t_inference_s: float, read: int, cycle: int) -> None:
    """As ``ConductanceArray.drift_to``, for the same arrays of several chips."""
    if stale := [chip for chip in chips if chip.cycle != cycle]:
        _program_rows(stale, cycle)
    row = chips[0].row
    state = CellState.of_chips([chip.state for chip in chips])
    whole, weights = row.weights(
        row.read(state, t_inference_s, read, [chip.seeds for chip in chips])
    )
    held, total = [], float(whole.sum())
    for own, arrays in zip(weights, _by_array(chips), strict=True):
        for array in arrays:
            array.point = t_inference_s, read
        used, factors = arrays[0].take(own, arrays)
        held.append(used)
        total += 0.0 if factors is None else float(factors.sum())
    if not math.isfinite(total):
        for used, arrays in zip(held, _by_array(chips), strict=True):
            for array, own in zip(arrays, used, strict=True):
                array.check_finite(own)


def _by_array(chips: Sequence[_ArraysInRow]) -> Iterator[tuple[ConductanceArray, ...]]:
    """Every array, on all chips."""
    return zip(*[chip.arrays for chip in chips], strict=True)


class AihwkitArray(ChipArray):
    """An array on aihwkit's own weight-level path: its tile programs, drifts and compensates.

    Random numbers are seeded before each of aihwkit's two calls: with "programming" before
    ``program_weights`` (errors, exponents, reference read-out), and with ("read", time, read)
    before ``drift_weights`` (read noise, read-out).
    """

    def __init__(self, tile: Tile, kind: str, seeds: Stream, time_factor: float) -> None:
        super().__init__(tile, kind)
        self._aihwkit_tile = tile.aihwkit_tile
        self._stream, self._time_factor, self._cycle = seeds, time_factor, -1

    def program(self, cycle: int) -> None:
        """Program the tile."""
        self._cycle, self._seeds = cycle, _of_cycle(self._stream, cycle)
        with seeded(self._seeds("programming")):
            self._aihwkit_tile.program_weights()

    def drift_to(self, t_inference_s: float, read: int, cycle: int) -> None:
        """Drift, read and compensate the tile, as ``ConductanceArray.drift_to``; time in s."""
        if cycle != self._cycle:
            self.program(cycle)
        with seeded(self._seeds("read", t_inference_s, read)):
            self._aihwkit_tile.drift_weights(self._time_factor * t_inference_s)
        self.check_finite(self._aihwkit_tile.tile.get_weights())
