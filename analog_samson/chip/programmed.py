"""The crossbar arrays of a chip: programmed once, aged to any time, read out, compensated."""

import functools
import math
from collections.abc import Iterator, Sequence
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


def _of_cycle(stream: Stream, cycle: int) -> Seeds:
    """Seeds after a number of refreshes; stuck cells are the same in all cycles."""
    if cycle == 0:
        return stream

    def seeds(*words: str | int | float) -> int:
        return stream(*words) if words[0] == "faults" else stream("cycle", cycle, *words)

    return seeds


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

    Args:
        mapped: Arrays with their target weights, not yet programmed.
        physics: Physics of the layers.
        seed: Seed of the chip.
    """

    def __init__(
        self, mapped: Sequence[Tile | TilesOfGroups | Array], physics: PhysicsOfLayers, seed: int
    ) -> None:
        self._arrays: list[ChipArray] = []
        self._parts: list[AihwkitArray | ConductanceArray | _ArraysInRow] = []
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
                self._parts += on_tiles
                continue
            at_cells = ConductanceArray(array, kind, of_array, words)
            self._arrays.append(at_cells)
            if fits_in_row(array.target):
                in_row.setdefault(of_array, []).append(at_cells)
            else:
                self._parts.append(at_cells)
        for shared, arrays in in_row.items():
            row = physics.row(shared, [array.mapped.target for array in arrays])
            self._parts += arrays if row is None else [_ArraysInRow(row, arrays)]
        self._cycle = 0
        self._program()

    def _program(self) -> None:
        for part in self._parts:
            part.program(self._cycle)

    def __iter__(self) -> Iterator["ChipArray"]:
        return iter(self._arrays)

    def drift_to(self, t_inference_s: float, read: int, cycle: int = 0) -> None:
        """Age to a time [s] since programming and read; `read` numbers the read noise.

        `cycle` counts how often the chip was programmed again before.
        """
        if cycle != self._cycle:
            self._cycle = cycle
            self._program()
        for part in self._parts:
            part.drift_to(t_inference_s, read)


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

    The state of a cell is its programmed conductance, drift exponent and quantile.

    Attributes:
        physics: Physics of its cells.
        states: State of the cells as programmed, one entry per cell of a weight.
        point: Time since programming [s] and read number of the present weights.
        cycle: How often it was programmed again.
    """

    def __init__(
        self,
        mapped: Tile | TilesOfGroups | Array,
        kind: str,
        physics: Physics,
        words: tuple[int, str, int],
    ) -> None:
        super().__init__(mapped, kind)
        self.physics, self._words, self.cycle = physics, words, 0
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
        self.start(states, self._weights([state.programmed_uS for state in states]))

    def start(self, states: list[CellState], weights: Tensor) -> None:
        """Take programmed cells and their weights, whose read-out is the reference."""
        self.states = states
        self._reference = self._read_out(self._used(weights))

    def drift_to(self, t_inference_s: float, read: int) -> None:
        """Age to a time [s] and read."""
        self.point = t_inference_s, read
        self.check_finite(self.take(self._weights(self.conductances())))

    def take(self, weights: Tensor) -> Tensor:
        """Set weights as read; return those in use. Measures the array's own factor."""
        weights = self._used(weights)
        self.mapped.set_weights(weights)
        if self.kind in ("global", "per_column"):
            self.set_compensation(self._reference / self._read_out(weights))
        return weights

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
        smallest = 1e-4  # aihwkit's guard against a division by zero
        sums = weights.abs().sum(dim=-1)
        if self.kind == "per_column":
            return (sums / weights.shape[-1]).clamp(min=smallest)
        return (sums.sum(dim=-1, keepdim=True) / self._n_read_out).clamp(min=smallest)


class _ArraysInRow:
    """Arrays at conductance level that are programmed and read in one call."""

    def __init__(self, row: Row, arrays: Sequence[ConductanceArray]) -> None:
        self._row, self._arrays = row, arrays

    def program(self, cycle: int) -> None:
        """As ``ConductanceArray.program``."""
        for array in self._arrays:
            array.cycle = cycle
        cells = range(self._row.n_cells)
        self._seeds = [array.stream(cell) for cell in cells for array in self._arrays]
        self._state = self._row.program(self._seeds)
        _, weights = self._row.weights(self._state.programmed_uS)
        states = self._row.by_array(self._state)
        for array, own, held in zip(self._arrays, states, weights, strict=True):
            array.start(own, held)

    def drift_to(self, t_inference_s: float, read: int) -> None:
        """As ``ConductanceArray.drift_to``."""
        aged = self._row.read(self._state, t_inference_s, read, self._seeds)
        whole, weights = self._row.weights(aged)
        held = []
        for array, own in zip(self._arrays, weights, strict=True):
            array.point = t_inference_s, read
            held.append(array.take(own))
        factors = [float(array.mapped.alpha.sum()) for array in self._arrays]
        if not math.isfinite(float(whole.sum()) + sum(factors)):
            for array, own in zip(self._arrays, held, strict=True):
                array.check_finite(own)


class AihwkitArray(ChipArray):
    """An array on aihwkit's own weight-level path: its tile programs, drifts and compensates.

    Random numbers are seeded before each of aihwkit's two calls: with "programming" before
    ``program_weights`` (errors, exponents, reference read-out), and with ("read", time, read)
    before ``drift_weights`` (read noise, read-out).
    """

    def __init__(self, tile: Tile, kind: str, seeds: Stream, time_factor: float) -> None:
        super().__init__(tile, kind)
        self._aihwkit_tile = tile.aihwkit_tile
        self._stream, self._time_factor = seeds, time_factor

    def program(self, cycle: int) -> None:
        """Program the tile."""
        self._seeds = _of_cycle(self._stream, cycle)
        with seeded(self._seeds("programming")):
            self._aihwkit_tile.program_weights()

    def drift_to(self, t_inference_s: float, read: int) -> None:
        """Drift, read and compensate the tile; time in s."""
        with seeded(self._seeds("read", t_inference_s, read)):
            self._aihwkit_tile.drift_weights(self._time_factor * t_inference_s)
        self.check_finite(self._aihwkit_tile.tile.get_weights())
