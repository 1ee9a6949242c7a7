"""Noise models that aihwkit lacks or that need additional constants, as ``BaseNoiseModel``.

Conductances are in µS and times in seconds, as in aihwkit.
"""

import contextlib
import math
from collections.abc import Iterator

import numpy as np
import torch
from aihwkit.inference import ReRamCMONoiseModel
from aihwkit.inference.converter.base import BaseConductanceConverter
from aihwkit.inference.noise.base import BaseNoiseModel
from torch import Tensor

from analog_samson.devices import (
    Ideal,
    LogTime,
    PiecewiseWeightError,
    PolynomialError,
    ReRAMCMO,
    Resampled,
    Sonos,
    StretchedExponential,
    Tabulated,
    WeightNoise,
)
from analog_samson.devices.measurements import load_trajectories
from analog_samson.times import DAY

LARGEST_PER_uS = 1e-12  # avoids a division by zero in an array of zeros


class SignedConverter(BaseConductanceConverter):
    """One signed value per weight, unchanged: for errors defined on weights."""

    def convert_to_conductances(self, weights: Tensor) -> tuple[list[Tensor], dict[str, float]]:
        """Return the weights as they are."""
        return [weights.clone()], {}

    def convert_back_to_weights(self, conductances: list[Tensor], params: object) -> Tensor:
        """Return the values as weights."""
        return conductances[0]


class SingleCellConverter(BaseConductanceConverter):
    """One cell per weight: the smallest weight of an array at g_min, the largest at g_max.

    Unlike aihwkit's, it returns one tensor instead of a list (noise models then draw column by
    column), and it maps arrays of equal weights, for which aihwkit's divides by zero. The
    range of such an array includes 0: a positive constant is mapped to g_max and a negative one to
    g_min, with the noise of these conductances. Otherwise the digital offset would represent the
    weights without error.

    Args:
        g_max: Conductance of the largest weight [µS].
        g_min: Conductance of the smallest weight [µS].
    """

    def __init__(self, g_max: float, g_min: float) -> None:
        self.g_max, self.g_min = g_max, g_min

    def convert_to_conductances(self, weights: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """Map weights, shape (columns, rows), to conductances [µS]."""
        smallest, largest = weights.min(), weights.max()
        is_constant = smallest == largest
        low = torch.where(is_constant, smallest.clamp(max=0), smallest)
        span = torch.where(is_constant, smallest.abs(), largest - smallest)
        span = torch.where(span == 0, 1, span)  # all zero
        scale = (self.g_max - self.g_min) / span
        return (weights - low) * scale + self.g_min, {"scale": scale, "low": low}

    def convert_back_to_weights(
        self, conductances: Tensor | list[Tensor], params: dict[str, Tensor]
    ) -> Tensor:
        """Map conductances, a tensor or a list of its columns, back to weights."""
        given = conductances if isinstance(conductances, Tensor) else torch.stack(conductances)
        return params["low"] + (given - self.g_min) / params["scale"]


class ReferenceColumnConverter(BaseConductanceConverter):
    """One cell per weight, and a reference column that is subtracted from all outputs.

    A weight of zero and the reference lie at the middle of the range, so a shift common to
    all cells cancels; the noise of the reference is common to all columns.

    Args:
        g_max: Conductance of the largest weight [µS].
        g_min: Conductance of its negative [µS].
    """

    def __init__(self, g_max: float, g_min: float) -> None:
        self.g_max, self.g_min = g_max, g_min

    def convert_to_conductances(self, weights: Tensor) -> tuple[list[Tensor], dict[str, Tensor]]:
        """Map weights, shape (columns, rows), to the array and its reference, shape (1, rows)."""
        middle = (self.g_max + self.g_min) / 2
        scale = (self.g_max - middle) / weights.abs().max().clamp(min=LARGEST_PER_uS)
        reference = torch.full_like(weights[:1], middle)
        return [middle + scale * weights, reference], {"scale": scale}

    def convert_back_to_weights(
        self, conductances: list[Tensor], params: dict[str, Tensor]
    ) -> Tensor:
        """Map an array and its reference back to weights."""
        return (conductances[0] - conductances[1]) / params["scale"]


class _WithoutDrift(BaseNoiseModel):
    """Models in which the programmed conductances do not change."""

    def apply_drift_noise_to_conductance(
        self, g_prog: Tensor, drift_noise_param: Tensor | None, t_inference: float
    ) -> Tensor:
        """Return the programmed conductances."""
        return g_prog


class IdealNoiseModel(_WithoutDrift):
    """No error of any kind.

    Args:
        noise: The section of the device file.
        g_converter: From weights to conductances.
    """

    def __init__(self, noise: Ideal, g_converter: BaseConductanceConverter) -> None:
        super().__init__(g_converter)

    def apply_programming_noise_to_conductance(self, g_target: Tensor) -> Tensor:
        """Return the targets."""
        return g_target


class PolynomialErrorNoiseModel(_WithoutDrift):
    """A programming error whose spread is a polynomial of the conductance; no drift.

    Args:
        noise: The section of the device file.
        g_converter: From weights to conductances.
    """

    def __init__(self, noise: PolynomialError, g_converter: BaseConductanceConverter) -> None:
        super().__init__(g_converter)
        self.noise = noise
        self.g_max, self.g_min = noise.g_max_uS, noise.g_min_uS

    def apply_programming_noise_to_conductance(self, g_target: Tensor) -> Tensor:
        """Add a normal error; conductances stay at least 0."""
        spread = _polynomial(self.noise.spread_powers_uS, g_target).clamp(min=0)
        error = self.noise.programming_noise_scale * spread * torch.randn_like(g_target)
        return (g_target + error).clamp(min=0)


class _AroundTargets(BaseNoiseModel):
    """Models that give the distribution around the targets at every time, including t = 0."""

    def apply_programming_noise_to_conductance(self, g_target: Tensor) -> Tensor:
        """Draw from the distribution at 0 s."""
        drawn: Tensor = self.apply_drift_noise_to_conductance(g_target, g_target, 0.0)
        return drawn

    def generate_drift_coefficients(self, g_target: Tensor) -> Tensor:
        """Return the targets, from which reads are computed."""
        return g_target


class SonosNoiseModel(_AroundTargets):
    """Charge-trap memory: mean shift and spread of the current by days after programming.

    Between the days of the tables their coefficients are interpolated linearly. The error of a
    cell is one normal draw: with the same seed, it keeps its quantile over time.

    Args:
        noise: The section of the device file.
        g_converter: From weights to conductances.
    """

    def __init__(self, noise: Sonos, g_converter: BaseConductanceConverter) -> None:
        super().__init__(g_converter)
        self.noise = noise
        self.g_max, self.g_min = noise.g_max_uS, noise.g_min_uS

    def apply_drift_noise_to_conductance(
        self, g_prog: Tensor, drift_noise_param: Tensor, t_inference: float
    ) -> Tensor:
        """Draw from the distribution at a time around the targets ``drift_noise_param``."""
        noise, day = self.noise, t_inference / DAY
        nA_per_uS = 1e3 * noise.read_voltage_V
        current = drift_noise_param.double() * nA_per_uS
        powers = [
            float(np.interp(day, noise.days, [table[power] for table in noise.shift_powers_nA]))
            for power in range(len(noise.shift_powers_nA[0]))
        ]
        if day > 0:
            current = current + noise.drift_scale * _polynomial(powers, current)
        a = float(np.interp(day, noise.days, noise.spread_A_nA))
        b = float(np.interp(day, noise.days, noise.spread_B_nA))
        spread = (a * (1 - torch.exp(-current / b))).clamp(min=0)
        draw = torch.randn_like(drift_noise_param).double()
        current = current + noise.programming_noise_scale * spread * draw
        return (current / nA_per_uS).clamp(min=0).to(drift_noise_param.dtype)


class _Measured(BaseNoiseModel):
    """Programming error and 1/f noise from tables of measured cells; subclasses add the drift.

    Args:
        noise: The section of the device file.
        g_converter: From weights to conductances.
    """

    noise: Tabulated | LogTime | StretchedExponential

    def __init__(
        self,
        noise: Tabulated | LogTime | StretchedExponential,
        g_converter: BaseConductanceConverter,
    ) -> None:
        super().__init__(g_converter)
        self.noise = noise
        self.g_max, self.g_min = noise.g_max_uS, noise.g_min_uS

    def _law(self, values: tuple[float, ...], conductances: Tensor) -> Tensor:
        found = np.interp(conductances.cpu().double().numpy(), self.noise.table_uS, values)
        return torch.from_numpy(found).to(conductances)

    def _drawn(
        self, mean: tuple[float, ...], spread: tuple[float, ...], target_uS: Tensor
    ) -> Tensor:
        """One normal number a cell, from tables of its mean and spread over the targets."""
        return self._law(mean, target_uS) + self._law(spread, target_uS) * torch.randn_like(
            target_uS
        )

    def _within(self, conductances: Tensor) -> Tensor:
        """Conductances that cells can have."""
        return conductances.clamp(min=0)

    def _drifted(self, g_prog: Tensor, parameter: Tensor, t_inference: float) -> Tensor:
        """Conductances at a time, before they are read."""
        raise NotImplementedError

    def apply_programming_noise_to_conductance(self, g_target: Tensor) -> Tensor:
        """Add the mean error and a normal one."""
        noise = self.noise
        error = self._drawn(noise.programming_offset_uS, noise.programming_spread_uS, g_target)
        return self._within(g_target + noise.programming_noise_scale * error)

    def generate_drift_coefficients(self, g_target: Tensor) -> Tensor:
        """Draw the exponent, slope [µS per decade] or change [µS] of every cell."""
        mean, spread = (getattr(self.noise, key) for key in self.noise.drift_tables)
        return self.noise.drift_scale * self._drawn(mean, spread, g_target)

    def apply_drift_noise_to_conductance(
        self, g_prog: Tensor, drift_noise_param: Tensor, t_inference: float
    ) -> Tensor:
        """Apply the drift and add one draw of the accumulated 1/f noise."""
        noise = self.noise
        t = t_inference + noise.t_0_s
        drifted = self._drifted(g_prog, drift_noise_param, t_inference)
        accumulated = math.sqrt(math.log((t + noise.t_read_s) / (2 * noise.t_read_s)))
        spread = self._law(noise.read_spread_relative, g_prog) * accumulated
        read = noise.read_noise_1f_scale * spread * torch.randn_like(g_prog)
        return (drifted * (1 + read)).clamp(min=0)


class TabulatedNoiseModel(_Measured):
    """Power-law drift with normally distributed exponents."""

    noise: Tabulated

    def _drifted(self, g_prog: Tensor, parameter: Tensor, t_inference: float) -> Tensor:
        ratio = (t_inference + self.noise.t_0_s) / self.noise.t_0_s
        return g_prog * ratio ** (-parameter)


class _LinearInLawNoiseModel(_Measured):
    """Conductances that change by a coefficient of the cell times a function of time."""

    noise: LogTime | StretchedExponential

    def _within(self, conductances: Tensor) -> Tensor:
        return conductances.clamp(min=self.noise.lowest_uS, max=self.noise.highest_uS)

    def _drifted(self, g_prog: Tensor, parameter: Tensor, t_inference: float) -> Tensor:
        return self._within(g_prog + parameter * self._function(t_inference))

    def _function(self, t_inference: float) -> float:
        """Function of time that conductances are linear in; 0 at t = 0."""
        raise NotImplementedError


class LogTimeNoiseModel(_LinearInLawNoiseModel):
    """Retention that is linear in log time, with one normally distributed slope a cell."""

    noise: LogTime

    def _function(self, t_inference: float) -> float:
        return math.log10((t_inference + self.noise.t_0_s) / self.noise.t_0_s)


class StretchedExponentialNoiseModel(_LinearInLawNoiseModel):
    """Retention that saturates, with one normally distributed final change a cell."""

    noise: StretchedExponential

    def _function(self, t_inference: float) -> float:
        return -math.expm1(-((t_inference / self.noise.tau_s) ** self.noise.beta))


class ResampledNoiseModel(_AroundTargets):
    """Resampling of measured cells: each simulated cell follows the trajectory of a measured one.

    One of the two nearest targets is drawn with probabilities that are linear in the distance, then
    one of its cells uniformly. With the same seed a cell follows the same trajectory at every time,
    including programming error, drift and read noise. All reads at a time are equal.

    Args:
        noise: The section of the device file.
        g_converter: From weights to conductances.

    Raises:
        FileNotFoundError: If the measurements are no longer there.
        ValueError: If they have changed.
    """

    def __init__(self, noise: Resampled, g_converter: BaseConductanceConverter) -> None:
        super().__init__(g_converter)
        self.g_max, self.g_min = noise.g_max_uS, noise.g_min_uS
        self.measured = load_trajectories(noise.measurements, noise.sha256)
        targets = self.measured.targets_uS
        self._targets = torch.from_numpy(targets)
        self._counts = torch.from_numpy(self.measured.counts)
        self._firsts = self._counts.cumsum(0) - self._counts

    def apply_drift_noise_to_conductance(
        self, g_prog: Tensor, drift_noise_param: Tensor, t_inference: float
    ) -> Tensor:
        """Conductances at a time of the measured cells drawn for targets ``drift_noise_param``."""
        target = drift_noise_param.double()
        which, lot = torch.rand((2, *target.shape), dtype=torch.float64)
        above = torch.bucketize(target, self._targets).clamp(max=len(self._targets) - 1)
        below = (above - 1).clamp(min=0)
        low, high = self._targets[below], self._targets[above]
        share = ((target - low) / (high - low).clamp(min=LARGEST_PER_uS)).clamp(0, 1)
        level = torch.where(which < share, above, below)
        device = self._firsts[level] + (lot * self._counts[level]).long()
        measured = torch.from_numpy(self.measured.at(t_inference))[device]
        own = self._targets[level]
        scaled = measured * target / own.clamp(min=LARGEST_PER_uS)
        followed = torch.where(own > 0, scaled, target + measured)
        return followed.clamp(min=0).to(drift_noise_param.dtype)


class WeightNoiseModel(_WithoutDrift):
    """Generic errors of normalised weights, whose largest is 1.

    Args:
        noise: The section of the device file.
        g_converter: A converter that does not change weights.
    """

    def __init__(self, noise: WeightNoise, g_converter: BaseConductanceConverter) -> None:
        super().__init__(g_converter)
        self.noise = noise

    def apply_programming_noise_to_conductance(self, g_target: Tensor) -> Tensor:
        """Add the error of every weight."""
        sigma = self.noise.sigma
        if self.noise.law == "uniform":
            return g_target + sigma * (2 * torch.rand_like(g_target) - 1)
        draw = torch.randn_like(g_target)
        if self.noise.law == "gaussian_max":
            return g_target + sigma * draw
        if self.noise.law == "proportional":
            return g_target + sigma * g_target.abs() * draw
        return g_target * torch.exp(sigma * draw)


class PiecewiseWeightErrorNoiseModel(_WithoutDrift):
    """A published error of signed weights: its spread is a polynomial of |w| in each of its ranges.

    Args:
        noise: The section of the device file.
        g_converter: A converter that does not change weights.
    """

    def __init__(self, noise: PiecewiseWeightError, g_converter: BaseConductanceConverter) -> None:
        super().__init__(g_converter)
        self.noise = noise

    def apply_programming_noise_to_conductance(self, g_target: Tensor) -> Tensor:
        """Add a normal error; small weights become exactly 0."""
        noise = self.noise
        weights = g_target * noise.full_scale
        size = weights.abs()
        pieces = [_polynomial(powers, size) for powers in noise.spread_powers]
        number = torch.bucketize(size, torch.tensor(noise.splits, dtype=size.dtype))
        spread = torch.stack(pieces).gather(0, number[None])[0].clamp(min=0)
        noisy = weights + noise.programming_noise_scale * spread * torch.randn_like(weights)
        return noisy.where(size >= noise.zero_below, 0) / noise.full_scale


class CMONoiseModel(ReRamCMONoiseModel):
    """aihwkit's ``ReRamCMONoiseModel``, with relaxation and read in two calls.

    aihwkit draws both in one call. Relaxation is drawn once per chip and read noise at every read,
    so the same law is applied in two steps, each with the other noise set to zero.

    Args:
        noise: The section of the device file.
        g_converter: From weights to conductances.
    """

    def __init__(self, noise: ReRAMCMO, g_converter: BaseConductanceConverter) -> None:
        # aihwkit would interpret a float that is no key of its table, such as 0.02, as 0.2 %.
        accepted = 0.2 if noise.acceptance_percent == 0.2 else 2
        super().__init__(
            g_max=noise.g_max_uS,
            g_min=noise.g_min_uS,
            acceptance_range=accepted,
            prog_noise_scale=noise.programming_noise_scale,
            read_noise_scale=noise.read_noise_1f_scale,
            drift_scale=noise.drift_scale,
        )
        self.g_converter = g_converter

    def relax(self, programmed_uS: Tensor, t_inference_s: float) -> Tensor:
        """Draw the relaxation until a time, before the bounds of the read are applied."""
        with self._changed(read_noise_scale=0.0, g_min=-math.inf, g_max=math.inf):
            relaxed: Tensor = self.apply_drift_noise_to_conductance(
                programmed_uS, None, t_inference_s
            )
        return relaxed

    def read(self, relaxed_uS: Tensor, t_inference_s: float) -> Tensor:
        """Draw the noise of one read."""
        with self._changed(drift_scale=0.0):
            read: Tensor = self.apply_drift_noise_to_conductance(relaxed_uS, None, t_inference_s)
        return read

    @contextlib.contextmanager
    def _changed(self, **values: float) -> Iterator[None]:
        before = {name: getattr(self, name) for name in values}
        try:
            for name, value in values.items():
                setattr(self, name, value)
            yield
        finally:
            for name, value in before.items():
                setattr(self, name, value)


def _polynomial(powers: list[float] | tuple[float, ...], x: Tensor) -> Tensor:
    value = torch.zeros_like(x)
    for coefficient in reversed(powers):
        value = value * x + coefficient
    return value
