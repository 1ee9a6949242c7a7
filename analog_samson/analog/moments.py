"""Moments of a device, by Monte Carlo simulation of its noise model."""

from collections.abc import Sequence
from functools import partial

import pandas as pd
import torch
from torch import Tensor

from analog_samson.analog.physics import Physics
from analog_samson.devices import Device
from analog_samson.devices.maintenance import NEVER
from analog_samson.streams import derive_seed
from analog_samson.times import DAY, HOUR, MONTH, YEAR

MOMENT_COLUMNS = ("quantity", "g_uS", "t_inference_s", "mean", "spread", "unit", "n")
"""Columns of ``device_<name>.csv``.

Quantities: "programming" (error of a programmed cell), "exponent" (of the power law; "slope" or
"change" for other laws, as ``NoiseSection.drift_parameter`` names it), "drift" (conductance at a
time before it is read, relative to the mean programmed one, or to the target if that is not known),
"read" (change by a read), "weight" (error of a weight relative to the largest of its column, all
weights together, g_uS empty) and "weight, best gain" (the same after the best-fitting factor).
"""

TIMES_S = (1.0, 60.0, HOUR, DAY, MONTH, YEAR)


def default_times_s(device: Device) -> tuple[float, ...]:
    """Times [s] of a datasheet: those of the device, or one second to one year where valid."""
    times, at = device.times, device.effective_time_s
    if times.valid_times_s is not None:
        return times.valid_times_s
    last = times.valid_to_s or at(YEAR)
    days = tuple(day * DAY for day in range(1, 6)) if times.valid_to_s else ()
    return tuple(sorted({t for t in (*TIMES_S, *days) if times.valid_from_s <= at(t) <= last}))


@torch.no_grad()
def measure(
    device: Device,
    times_s: Sequence[float] | None = None,
    *,
    n_levels: int = 21,
    n: int = 4000,
    seed: int = 0,
) -> pd.DataFrame:
    """Program many cells and weights and compute the moments of their conductances and errors.

    Args:
        device: The device.
        times_s: Times after programming [s]; None takes ``default_times_s``.
        n_levels: Number of weights from the lowest to the largest.
        n: Number of cells at each; a spread has the relative error 1 / sqrt(2 n).
        seed: Seed of all draws.

    Returns:
        Columns ``MOMENT_COLUMNS``.

    Raises:
        ValueError: If the device has no data for a time.
    """
    device = device.with_axes({"refresh_every": NEVER})  # cells since their last programming
    times_s = default_times_s(device) if times_s is None else tuple(times_s)
    for t in times_s:
        device.check_time(t)
    physics = Physics(device)
    quiet = physics
    if hasattr(device.noise, "read_noise_1f_scale"):
        quiet = Physics(device.with_axes({"read_noise_1f_scale": 0.0}))
    rows = _of_cells(device, physics, quiet, times_s, n_levels, n, seed)
    rows += _of_weights(device, physics, times_s, n_levels, n, seed)
    return pd.DataFrame(rows, columns=list(MOMENT_COLUMNS))


_Row = tuple[str | float | int | None, ...]


def _of_cells(
    device: Device,
    physics: Physics,
    quiet: Physics,
    times_s: Sequence[float],
    n_levels: int,
    n: int,
    seed: int,
) -> list[_Row]:
    """Moments of single cells at evenly spaced targets."""
    level = torch.linspace(*device.noise.conductance_range, n_levels)
    seeds = partial(derive_seed, seed, "datasheet", 0)
    target = level[:, None].expand(-1, n).clone()
    state = physics.program(target, seeds)
    known = device.noise.has_programmed_state
    start = state.programmed_uS if known else target
    unit = "" if device.noise.cells == "signed" else "µS"
    rows = []
    if known:
        rows += _moments("programming", level, 0.0, state.programmed_uS - target, unit)
    if state.drift_exponent is not None:
        name, of_parameter = device.noise.drift_parameter
        rows += _moments(name, level, None, state.drift_exponent, of_parameter)
    for t in times_s if device.noise.drifts else ():
        if t == 0:
            continue
        drifted = quiet.read(state, t, 0, seeds)
        ratio = drifted / start.mean(dim=1, keepdim=True).clamp(min=1e-9)
        rows += _moments("drift", level, t, ratio, "")
        rows += _moments("read", level, t, physics.read(state, t, 0, seeds) - drifted, unit)
    return rows


def _of_weights(
    device: Device, physics: Physics, times_s: Sequence[float], n_levels: int, n: int, seed: int
) -> list[_Row]:
    """Errors of evenly spaced weights, mapped to cells."""
    lowest = -1 if device.noise.cells == "single" else 0
    weights = torch.linspace(lowest, 1, n_levels)[:, None].expand(-1, n).clone()
    targets, scale = physics.to_conductances(weights)
    seeds = [partial(derive_seed, seed, "datasheet", number) for number in range(len(targets))]
    states = [
        physics.program(target, stream) for target, stream in zip(targets, seeds, strict=True)
    ]
    rows = []
    for t in times_s:
        observed = [
            physics.read(state, t, 0, stream) for state, stream in zip(states, seeds, strict=True)
        ]
        read = physics.to_weights(observed, scale)
        gain = (weights * read).sum() / read.square().sum()
        for name, error in (
            ("weight", read - weights),
            ("weight, best gain", gain * read - weights),
        ):
            rows += _moments(name, [None], t, error.reshape(1, -1), "")
    return rows


def _moments(
    quantity: str,
    levels_uS: Tensor | Sequence[None],
    t_inference_s: float | None,
    values: Tensor,
    unit: str,
) -> list[_Row]:
    values = values.double()
    return [
        (
            quantity,
            None if level is None else float(level),
            t_inference_s,
            float(row.mean()),
            float(row.std()),
            unit,
            row.numel(),
        )
        for level, row in zip(levels_uS, values, strict=True)
    ]
