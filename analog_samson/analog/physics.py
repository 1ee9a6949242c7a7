"""Conductances of cells: programming, faults, drift and reads, each with its random seed."""

import contextlib
import functools
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Self, cast

import torch
from torch import Tensor

from analog_samson.analog.noise_models import noise_model
from analog_samson.analog.versions import check_versions
from analog_samson.devices import Device

_check_versions_once = functools.cache(check_versions)

Seeds = Callable[..., int]
"""Maps the words of a purpose to a seed, for one layer, array and cell index of a chip."""


@contextlib.contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Seed torch's global CPU generator within a block and restore its state afterwards."""
    generator = torch.default_generator  # `torch.manual_seed` also seeds every accelerator: slow
    before = generator.get_state()
    try:
        generator.manual_seed(seed)
        yield
    finally:
        generator.set_state(before)


@dataclass
class CellState:
    """State of one cell of every weight of an array after programming: conductances in µS.

    All tensors have the array's shape (columns, rows). ``target_uS`` is stored only if reads are
    computed from it. ``stuck_uS`` holds the conductances of stuck cells and NaN for the others.
    """

    target_uS: Tensor | None
    programmed_uS: Tensor
    drift_exponent: Tensor | None
    stuck_uS: Tensor | None = None

    @classmethod
    def of_chips(cls, states: Sequence[Self]) -> Self:
        """The states of several chips in one, shape (chips, ...)."""
        quantities = zip(*[vars(state).values() for state in states], strict=True)
        stacked: list[Any] = [None if of[0] is None else torch.stack(of) for of in quantities]
        return cls(*stacked)

    def by_chip(self) -> list[Self]:
        """The state of each of several chips: views."""
        n_chips = len(self.programmed_uS)
        quantities = ([None] * n_chips if of is None else of for of in vars(self).values())
        return [type(self)(*of_chip) for of_chip in zip(*quantities, strict=True)]


class Physics:
    """The noise model of a device, called at conductance level with one seed per purpose.

    The scale between weights and conductances is fixed by the target weights: nothing is
    renormalised by a noisy maximum, and every cell has its own state.
    """

    def __init__(self, device: Device) -> None:
        _check_versions_once()
        self.noise = device.noise
        self.faults = device.faults
        self.time_factor = device.temperature.time_factor
        self.model = noise_model(device)

    def to_conductances(self, weights: Tensor) -> tuple[list[Tensor], Any]:
        """Map target weights of an array to target conductances [µS], one tensor per cell.

        Leading dimensions are groups of a convolution: each is an array and is mapped by its own
        largest weight (1 in all of them) or its own range.
        """
        convert = self.model.g_converter.convert_to_conductances
        conductances, scale = self._by_array(convert, weights)(weights)
        single = isinstance(conductances, Tensor)
        return [conductances] if single else list(conductances), (scale, single)

    def to_weights(self, conductances: Sequence[Tensor], scale: Any) -> Tensor:
        """Map conductances [µS] back to weights with the scale of the targets."""
        converter_scale, single = scale
        given = conductances[0] if single else list(conductances)
        convert = self.model.g_converter.convert_back_to_weights
        weights: Tensor = self._by_array(convert, conductances[0])(given, converter_scale)
        return weights

    def _by_array(self, convert: Callable[..., Any], values: Tensor) -> Callable[..., Any]:
        """The conversion, applied to each array separately if it depends on the array's range."""
        needed = self.noise.cells == "single" and values.ndim > 2
        return torch.vmap(convert) if needed else convert

    def program(self, target_uS: Tensor, seeds: Seeds) -> CellState:
        """Program target conductances; programming error and drift exponents are drawn here."""
        exponent, target_uS = None, target_uS.contiguous()  # numbers are drawn in this order
        with seeded(seeds("programming")):
            programmed = self.model.apply_programming_noise_to_conductance(target_uS.clone())
        if self.noise.keeps_exponents:
            with seeded(seeds("drift")):
                exponent = self.model.generate_drift_coefficients(target_uS.clone())
        stuck = self.stuck(target_uS.shape, seeds)
        kept = target_uS if self.noise.keeps_quantile else None
        return CellState(kept, hold_stuck(programmed, stuck), exponent, stuck)

    def stuck(self, shape: torch.Size, seeds: Seeds) -> Tensor | None:
        """Conductances [µS] of stuck cells, NaN for the others; None if the device has none."""
        low, high = self.faults.stuck_low, self.faults.stuck_high
        if low == 0 and high == 0:
            return None
        with seeded(seeds("faults")):
            lot = torch.rand(shape, dtype=torch.float64)
        g_min, g_max = self.noise.conductance_range
        if self.noise.cells == "signed":
            g_min = -g_max
        stuck = torch.full(shape, math.nan)
        stuck[lot < low] = g_min
        stuck[lot >= 1 - high] = g_max
        return stuck

    def read(self, state: CellState, t_inference_s: float, read: int, seeds: Seeds) -> Tensor:
        """Conductances [µS] read at a time; t = 0 is the programmed state, before any read.

        The accumulated read noise is drawn once per read, for the whole array. The model is
        evaluated at the effective time; the seed of a read is that of the time, so that chips at
        different temperatures share their draws.
        """
        if t_inference_s == 0 or not self.noise.drifts:
            return state.programmed_uS
        effective_s, seed = self.time_factor * t_inference_s, seeds("read", t_inference_s, read)
        if self.noise.keeps_quantile:
            aged = self._read_marginal(state, t_inference_s, seeds)
        elif self.noise.reads_in_two_steps:
            with seeded(seeds("drift")):
                relaxed = self.model.relax(state.programmed_uS.clone(), effective_s)
            with seeded(seed):
                aged = self.model.read(relaxed, effective_s)
        else:
            aged = self._age(state.programmed_uS, state.drift_exponent, effective_s, seed)
        return hold_stuck(aged, state.stuck_uS)

    def _read_marginal(self, state: CellState, t_inference_s: float, seeds: Seeds) -> Tensor:
        # The model draws one normal number per cell around the target. With the seed of programming
        # it is the same number at every time, so a cell keeps its quantile.
        is_new = self.noise.draws_each_time_anew
        seed = seeds("drift", t_inference_s) if is_new else seeds("programming")
        target_uS = cast(Tensor, state.target_uS)
        return self._age(target_uS, target_uS, self.time_factor * t_inference_s, seed)

    def _age(
        self, start_uS: Tensor, parameter: Tensor | None, t_inference_s: float, seed: int
    ) -> Tensor:
        with seeded(seed):
            aged: Tensor = self.model.apply_drift_noise_to_conductance(
                start_uS.clone(), parameter, _number_as_key(self.model, t_inference_s)
            )
        return aged


def _number_as_key(model: Any, t_inference_s: float) -> float:
    known = getattr(model, "coeff_dic", {})
    return next((time for time in known if time == t_inference_s), t_inference_s)


def hold_stuck(conductances_uS: Tensor, stuck_uS: Tensor | None) -> Tensor:
    """Insert the conductances of stuck cells."""
    if stuck_uS is None:
        return conductances_uS
    return torch.where(stuck_uS.isnan(), conductances_uS, stuck_uS)
