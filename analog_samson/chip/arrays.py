"""The crossbar arrays of a chip: programmed once, aged to any time, read out, compensated."""

from functools import partial
from typing import Any

import torch
from torch import Tensor

from analog_samson.analog import DeviceState, Physics, Tile, seeded
from analog_samson.compiled import Array
from analog_samson.devices import Device


class PhysicsOfLayers:
    """The device of every layer and its physics, for all chips of a mapped network."""

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


def array_of(tile: Tile | Array, device: Device, physics: Physics, seeds: Any) -> "ChipArray":
    """Program an array: at the level of its conductances, or on aihwkit's own path."""
    if device.noise_level == "weight_as_in_aihwkit" and isinstance(tile, Tile):
        return AihwkitArray(tile, device, seeds)
    return ConductanceArray(tile, device, physics, seeds)


class ChipArray:
    """One crossbar array of a chip: its tile, the kind of its compensation and its factor.

    Of a grouped layer it is the arrays of all groups at one place, drawn and aged together.
    """

    def __init__(self, tile: Tile | Array, kind: str) -> None:
        self.tile = tile
        self.kind = kind
        self.alpha = torch.ones(*tile.target.shape[:-2], 1)

    def drift_to(self, t_inference_s: float, read: int) -> None:
        """Age to a time and read; measure the factor of an array that has one of its own."""
        raise NotImplementedError

    def set_compensation(self, alpha: Tensor) -> None:
        """Set the factor (or one a column) that multiplies the outputs."""
        self.alpha = alpha.expand(*self.tile.target.shape[:-2], -1)
        self.tile.set_compensation(self.alpha)


class ConductanceArray(ChipArray):
    """Both devices of every pair keep their own conductance, exponent and place through time."""

    def __init__(self, tile: Tile | Array, device: Device, physics: Physics, seeds: Any) -> None:
        super().__init__(tile, device.drift_compensation.kind)
        self._physics = physics
        targets, self._scale = self._physics.to_conductances(tile.target)
        self._seeds = [partial(_device_seed, seeds, number) for number in range(len(targets))]
        self.states: list[DeviceState] = [
            self._physics.program(target, device_seeds)
            for target, device_seeds in zip(targets, self._seeds, strict=True)
        ]
        self._reference = self._read_out(self._weights([s.programmed_uS for s in self.states]))
        self._point = 0.0, 0

    def targets(self) -> list[Tensor]:
        """Conductances [µS] that were to be written, one tensor a device."""
        return self._physics.to_conductances(self.tile.target)[0]

    def conductances(self) -> list[Tensor]:
        """Conductances [µS] as read now, one tensor a device: drawn again, not kept."""
        return [
            self._physics.read(state, *self._point, seeds)
            for state, seeds in zip(self.states, self._seeds, strict=True)
        ]

    def drift_to(self, t_inference_s: float, read: int) -> None:
        """Read every device at a time and put the weights they make on the tile."""
        self._point = t_inference_s, read
        weights = self._weights(self.conductances())
        self.tile.set_weights(weights)
        if self.kind in ("global", "per_column"):
            self.set_compensation(self._reference / self._read_out(weights))

    def _weights(self, conductances_uS: list[Tensor]) -> Tensor:
        weights = self._physics.to_weights(conductances_uS, self._scale)
        return weights.where(self.tile.used[..., None], 0)  # all-zero columns are unused, not noise

    def _read_out(self, weights: Tensor) -> Tensor:
        """Mean |output| for one-hot inputs, exact: mean |w| of the array, or of each column."""
        smallest = 1e-4  # aihwkit's guard against a division by zero
        n_rows = weights.shape[-1]
        sums = weights.abs().sum(dim=-1)
        if self.kind == "per_column":
            return (sums / n_rows).clamp(min=smallest)
        n_used = self.tile.used.sum(dim=-1, keepdim=True).clamp(min=1)
        return (sums.sum(dim=-1, keepdim=True) / (n_used * n_rows)).clamp(min=smallest)


def _device_seed(array_seeds: Any, number: int, *words: str | int | float) -> int:
    seed: int = array_seeds(number, *words)
    return seed


class AihwkitArray(ChipArray):
    """aihwkit's own weight-level path: the tile programs, drifts and compensates itself.

    The stream of an array is seeded before each of aihwkit's two calls: by "programming" before
    ``program_weights`` (errors, exponents, reference read-out) and by ("read", time, read) before
    ``drift_weights`` (read noise, read-out).
    """

    def __init__(self, tile: Tile, device: Device, seeds: Any) -> None:
        super().__init__(tile, device.drift_compensation.kind)
        self._aihwkit_tile = tile.aihwkit_tile
        self._seeds = seeds
        with seeded(seeds("programming")):
            self._aihwkit_tile.program_weights()

    def drift_to(self, t_inference_s: float, read: int) -> None:
        """Let the tile drift, read and compensate itself."""
        with seeded(self._seeds("read", t_inference_s, read)):
            self._aihwkit_tile.drift_weights(t_inference_s)
        self.alpha = self._aihwkit_tile.alpha.detach().clone()
