"""aihwkit out: devices as its configurations, chips as its converted networks."""

import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from analog_samson import models
from analog_samson.analog.physics import CellState, seeded
from analog_samson.analog.tiles import (
    Tile,
    TiledNetwork,
    TilesOfGroups,
    tile_configuration,
    why_not_on_tiles,
)
from analog_samson.analog.versions import check_versions
from analog_samson.devices import Device, InputRanges
from analog_samson.devices.maintenance import EVERY_TIME, NEVER


def rpu_config_of(device: Device) -> Any:
    """Turn a device into a configuration of aihwkit.

    Args:
        device: The device.

    Returns:
        A ``TorchInferenceRPUConfig``, or an ``InferenceRPUConfig`` where the periphery needs
        aihwkit's C++ tile (ranges, bounds or noise of every vector, IR drop). What aihwkit does not
        have is listed in a warning.

    Raises:
        ValueError: If aihwkit's tiles cannot run the device.

    Example:
        >>> from analog_samson import load_device
        >>> configuration = rpu_config_of(load_device("pcm_like_as_in_aihwkit"))
        >>> type(configuration).__name__, type(configuration.noise_model).__name__
        ('TorchInferenceRPUConfig', 'PCMLikeNoiseModel')
    """
    check_versions()
    if reason := why_not_on_tiles(device):
        raise ValueError(f"Device {device.name!r} has no configuration of aihwkit: {reason}.")
    if missing := _not_in_aihwkit(device):
        warnings.warn(
            f"Device {device.name!r}: aihwkit's configuration does not hold {', '.join(missing)}.",
            stacklevel=2,
        )
    return tile_configuration(device)


def _not_in_aihwkit(device: Device) -> list[str]:
    """Settings of a device that no configuration of aihwkit has."""
    mapping, compensation = device.mapping, device.drift_compensation
    found = []
    if device.noise_level == "conductance" and device.noise.cells == "pair":
        found.append("the state of single cells (noise_level = 'conductance')")
    if device.periphery.has_cell_currents:
        found.append("read noise and nonlinearity of cells (mvm_read_noise_uS, iv_...)")
    if device.periphery.effects:
        found.append("periphery.effects")
    if mapping.clip_quantile < 1:
        found.append(f"mapping.clip_quantile = {mapping.clip_quantile:g}")
    if mapping.batch_norm == "folded":
        found.append("mapping.batch_norm = 'folded'")
    if device.faults.stuck_low or device.faults.stuck_high:
        found.append("faults")
    if device.variation.is_used:
        found.append("variation")
    found += not_in_ageing(device)
    if device.layers:
        found.append("layers")
    if compensation.kind == "per_layer":
        found.append("drift_compensation.kind = 'per_layer' (global instead)")
    if compensation.kind != "none" and compensation.read_outs != 1:
        found.append("drift_compensation.read_outs = inf (one noisy read-out instead)")
    if compensation.batch_norm == "recalibrated":
        found.append("drift_compensation.batch_norm = 'recalibrated'")
    if device.input_ranges != InputRanges():
        found.append("input_ranges")
    return found


def not_in_ageing(device: Device) -> list[str]:
    """Settings of a device that aihwkit's ``drift_analog_weights`` does not follow."""
    found = []
    if device.temperature.time_factor != 1:
        found.append(f"temperature.temperature_C = {device.temperature.temperature_C:g}")
    if device.refresh_every != NEVER:
        found.append(f"refresh_every = {device.refresh_every}")
    if device.drift_compensation.measured_at != EVERY_TIME:
        found.append(f"drift_compensation.measured_at = {device.drift_compensation.measured_at!r}")
    return found


@torch.no_grad()
def on_tiles(
    network: nn.Module,
    device: Device,
    keep_digital: Sequence[str],
    input_ranges: Mapping[str, models.Range] | None,
) -> tuple[nn.Module, list[Tile | TilesOfGroups]]:
    """Convert a digital network to aihwkit's tiles, as for the engine "aihwkit".

    Returns:
        The network, with aihwkit's methods for converted networks, and its arrays in the order of
        the compiled engine.
    """
    tiled = TiledNetwork(network, device, keep_digital, input_ranges)
    return as_converted(tiled.network), tiled.arrays


def as_converted(network: nn.Module) -> nn.Module:
    """Give a network on tiles aihwkit's methods for converted networks."""
    from aihwkit.nn.modules.base import AnalogLayerBase
    from aihwkit.nn.modules.container import AnalogWrapper

    converted: nn.Module = (
        network if isinstance(network, AnalogLayerBase) else AnalogWrapper(network)
    )
    return converted


@torch.no_grad()
def hand_over(
    tile: Tile, weights: Tensor, alpha: Tensor, programmed: Tensor, cells: Sequence[CellState]
) -> None:
    """Give one of aihwkit's tiles the state of a chip's array.

    Args:
        tile: The tile.
        weights: Normalised weights now, shape (columns, rows).
        alpha: Compensation factor, shape (1,) or (columns,).
        programmed: Normalised weights as programmed.
        cells: State of both cells of every pair, whose drift exponents are handed over; empty for
            other cells.
    """
    own = tile.aihwkit_tile
    own.reference_combined_weights = tile.target.clone()
    own.programmed_weights = programmed.clone()
    own.drift_noise_parameters = [
        cell.target_uS if cell.drift_exponent is None else cell.drift_exponent.clone()
        for cell in cells
    ] or [None] * len(weights)  # aihwkit takes an array of single cells row by row
    compensation = own.rpu_config.drift_compensation
    own.eval()
    if compensation is not None:
        own.tile.set_weights(programmed.clone())
        with seeded(0):
            own.drift_baseline = compensation.init_baseline(own)
    own.tile.set_weights(weights.clone())
    tile.set_compensation(alpha.clone())
