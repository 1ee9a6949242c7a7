"""The crossbar arrays of a chip: programmed once, aged to any time, read out, compensated."""

import math
from collections.abc import Sequence
from functools import partial
from typing import Any

from torch import Tensor

from analog_samson.analog import DeviceState, Physics, Tile, TilesOfGroups, seeded
from analog_samson.compiled import Array
from analog_samson.devices import Device
from analog_samson.streams import derive_seed


class PhysicsOfLayers:
    """Device and physics of every layer, shared by all chips of a mapped network."""

    def __init__(self, device: Device) -> None:
        self._device, self._shared = device, Physics(device)
        self._of_layers: dict[str, tuple[Device, Physics]] = {}

    def of(self, layer: str) -> tuple[Device, Physics]:
        """Device and physics of a layer."""
        if layer not in self._of_layers:
            own = self._device.for_layer(layer)
            physics = self._shared if own is self._device else Physics(own)
            self._of_layers[layer] = own, physics
        return self._of_layers[layer]


def program_arrays(
    mapped: Sequence[Tile | TilesOfGroups | Array], physics: PhysicsOfLayers, seed: int
) -> list["ChipArray"]:
    """Program arrays, at conductance level or on aihwkit's own weight-level path.

    Args:
        mapped: Arrays with their target weights.
        physics: Physics of the layers.
        seed: Seed of the chip.

    Returns:
        One programmed array for each, in order.
    """
    programmed: list[ChipArray] = []
    for array in mapped:
        device, of_layer = physics.of(array.layer)
        seeds = partial(derive_seed, seed, array.layer, array.index)
        if device.noise_level == "weight_as_in_aihwkit" and isinstance(array, Tile):
            programmed.append(AihwkitArray(array, device, seeds))
        elif device.noise_level == "weight_as_in_aihwkit" and isinstance(array, TilesOfGroups):
            programmed += [
                AihwkitArray(tile, device, partial(seeds, number))
                for number, tile in enumerate(array.tiles)
            ]
        else:
            programmed.append(ConductanceArray(array, device, of_layer, seeds))
    for of_layer, alike in _by_physics(programmed):
        targets = [target for one in alike for target in one.targets()]
        states = iter(of_layer.program_all(targets, [own for one in alike for own in one.seeds]))
        for one in alike:
            one.start([next(states) for _ in one.seeds])
    return programmed


def drift_arrays(arrays: Sequence["ChipArray"], t_inference_s: float, read: int) -> None:
    """Age arrays to a time [s] since programming and read them; `read` numbers the read noise."""
    for array in arrays:
        if isinstance(array, AihwkitArray):
            array.drift_to(t_inference_s, read)
    for of_layer, alike in _by_physics(arrays):
        states = [state for array in alike for state in array.states]
        seeds = [own for array in alike for own in array.seeds]
        conductances = iter(of_layer.read_all(states, t_inference_s, read, seeds))
        for array in alike:
            array.point = t_inference_s, read
            array.take([next(conductances) for _ in array.seeds])


def _by_physics(
    arrays: Sequence["ChipArray"],
) -> list[tuple[Physics, list["ConductanceArray"]]]:
    alike: dict[int, tuple[Physics, list[ConductanceArray]]] = {}
    for array in arrays:
        if isinstance(array, ConductanceArray):
            alike.setdefault(id(array.physics), (array.physics, []))[1].append(array)
    return list(alike.values())


class ChipArray:
    """One programmed crossbar array of a chip.

    In a grouped layer it stands for the arrays of all groups at one position, which are drawn and
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
        seeds: Random streams, one per cell of a weight.
        states: State of the cells as programmed, one entry per cell of a weight.
        point: Time since programming [s] and read number of the present weights.
    """

    def __init__(
        self, mapped: Tile | TilesOfGroups | Array, device: Device, physics: Physics, seeds: Any
    ) -> None:
        super().__init__(mapped, device.drift_compensation.kind)
        self.physics = physics
        targets, self._scale = physics.to_conductances(mapped.target)
        self._targets: list[Tensor] | None = targets
        self.seeds = [partial(_cell_seed, seeds, number) for number in range(len(targets))]
        self.states: list[DeviceState] = []
        self.point = 0.0, 0
        self._are_all_used = bool(mapped.used.all())
        n_used = mapped.used.sum(dim=-1, keepdim=True).clamp(min=1)
        self._n_read_out = n_used * mapped.target.shape[-1]

    def start(self, states: list[DeviceState]) -> None:
        """Take the programmed cells; their read-out is the reference of the compensation."""
        self.states, self._targets = states, None
        self._reference = self._read_out(self._weights([s.programmed_uS for s in states]))

    def targets(self) -> list[Tensor]:
        """Target conductances [µS], one tensor per cell of a weight."""
        kept = self._targets
        return self.physics.to_conductances(self.mapped.target)[0] if kept is None else kept

    def conductances(self) -> list[Tensor]:
        """Conductances [µS] as read now, one tensor per cell of a weight; drawn anew."""
        return [
            self.physics.read(state, *self.point, seeds)
            for state, seeds in zip(self.states, self.seeds, strict=True)
        ]

    def take(self, conductances_uS: list[Tensor]) -> None:
        """Set the weights that follow from conductances [µS]; measure the array's own factor."""
        weights = self._weights(conductances_uS)
        self.mapped.set_weights(weights)
        if self.kind in ("global", "per_column"):
            self.set_compensation(self._reference / self._read_out(weights))
        self.check_finite(weights)

    def _weights(self, conductances_uS: list[Tensor]) -> Tensor:
        weights = self.physics.to_weights(conductances_uS, self._scale)
        if self._are_all_used:
            return weights
        return weights.where(
            self.mapped.used[..., None], 0
        )  # all-zero columns are unused, not noise

    def _read_out(self, weights: Tensor) -> Tensor:
        """Mean |output| for one-hot inputs, without noise: mean |w| of the array or each column."""
        smallest = 1e-4  # aihwkit's guard against a division by zero
        sums = weights.abs().sum(dim=-1)
        if self.kind == "per_column":
            return (sums / weights.shape[-1]).clamp(min=smallest)
        return (sums.sum(dim=-1, keepdim=True) / self._n_read_out).clamp(min=smallest)


def _cell_seed(array_seeds: Any, number: int, *words: str | int | float) -> int:
    seed: int = array_seeds(number, *words)
    return seed


class AihwkitArray(ChipArray):
    """An array on aihwkit's own weight-level path: its tile programs, drifts and compensates.

    Random numbers are seeded before each of aihwkit's two calls: with "programming" before
    ``program_weights`` (errors, exponents, reference read-out), and with ("read", time, read)
    before ``drift_weights`` (read noise, read-out).
    """

    def __init__(self, tile: Tile, device: Device, seeds: Any) -> None:
        super().__init__(tile, device.drift_compensation.kind)
        self._aihwkit_tile = tile.aihwkit_tile
        self._seeds = seeds
        with seeded(seeds("programming")):
            self._aihwkit_tile.program_weights()

    def drift_to(self, t_inference_s: float, read: int) -> None:
        """Drift, read and compensate the tile; time in s."""
        with seeded(self._seeds("read", t_inference_s, read)):
            self._aihwkit_tile.drift_weights(t_inference_s)
        self.check_finite(self._aihwkit_tile.tile.get_weights())
