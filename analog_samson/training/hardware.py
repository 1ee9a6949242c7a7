"""Hardware-aware training: every pass uses weights with the errors of a device.

The recipe of Rasch et al., Nat. Commun. 14, 5282 (2023): the programming error of the device's
statistical model, multiplied by a factor that grows from 0 over the first epochs, some weights
dropped, gradients applied to the clean weights. The noise is that of a device file, from the same
code as for chips. The other methods do not depend on a device.
"""

from collections.abc import Collection, Mapping, Sequence
from functools import partial
from types import MappingProxyType
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from analog_samson.algorithm import Algorithm, Setting
from analog_samson.devices import Device, load_device
from analog_samson.perturbation import Tensors, drop_connect, filters_first
from analog_samson.streams import derive_seed

if TYPE_CHECKING:
    from analog_samson.chip.programmed import PhysicsOfLayers


class HardwareAware(Algorithm):
    """The noise of a device on the weights, multiplied by the strength.

    Args:
        setting: The training.
        device: Name or path of the device.
        drop_share: Probability that a weight is zero in a pass.
        device_time_s: As `t_inference_s` of `HardwareNoise`.
    """

    def __init__(
        self,
        setting: Setting,
        *,
        device: str,
        drop_share: float,
        device_time_s: float | None,
    ) -> None:
        loaded = load_device(device, setting.trust)
        modules = [name for name, _ in setting.model.named_modules() if name]
        loaded.check_overrides([*modules, *(n for names in setting.layers.values() for n in names)])
        self._noise = HardwareNoise(
            loaded,
            setting.analog_weights,
            device_time_s,
            setting.transposed_groups,
            setting.layers,
        )
        self._drop_share = drop_share

    def offsets(
        self, weights: Tensors, gradients: Tensors, *, strength: float, generator: torch.Generator
    ) -> Tensors:
        """Program the weights again."""
        return self._noise(
            weights, factor=strength, drop_share=self._drop_share, generator=generator
        )


class HardwareNoise:
    """The programming and read errors of a device as a rule; drawn again in every pass.

    Every pass is another chip: with the device's overrides for layers, its variation, and after a
    time its drift compensation, from the same code as for chips. Row blocks of large layers and
    the periphery are not modelled: this is noise on weights, one array a parameter, and factors of
    compensation are exact.

    Args:
        device: The device.
        names: Parameters that are mapped to it.
        t_inference_s: Time of the read after programming [s]; None: 0, or the first time for which
            the device has data.
        transposed_groups: Groups of the transposed convolutions by name, whose columns on arrays
            are not their rows (see `perturbation.transposed_groups`).
        layers: Layers on arrays by the name of the parameter, which decide its overrides; of a
            parameter without an entry the module that has it.

    Raises:
        ValueError: If the device has no data for that time, compensates by layer at a time after
            programming, or has different overrides for layers that hold one parameter.
        ImportError: If the installed aihwkit and torch do not work together.
    """

    def __init__(
        self,
        device: Device,
        names: Collection[str],
        t_inference_s: float | None = None,
        transposed_groups: Mapping[str, int] = MappingProxyType({}),
        layers: Mapping[str, tuple[str, ...]] = MappingProxyType({}),
    ) -> None:
        from analog_samson.chip import programmed  # aihwkit is imported only if it is used

        valid = device.times.valid_times_s
        if t_inference_s is None:
            t_inference_s = 0.0 if valid is None else min(valid)
        device.check_time(t_inference_s)
        self._by_column = device.mapping.scale == "column"
        self._groups = transposed_groups
        self._physics, self._read_out = programmed.PhysicsOfLayers(device), programmed.read_out
        _, self._age_s = device.cycle_and_age(float(t_inference_s))
        self._places: dict[str, tuple[str, int]] = {}  # layer and number of the array
        for number, name in enumerate(sorted(names)):
            own = layers.get(name) or (name.rpartition(".")[0],)
            if _is_on_arrays(device, name, own):
                self._places[name] = own[0], number
                self._check(device.with_overrides_for(own[0]), own[0], t_inference_s)

    def __call__(
        self,
        weights: Tensors,
        gradients: Tensors | None = None,
        *,
        factor: float,
        drop_share: float,
        generator: torch.Generator,
    ) -> dict[str, Tensor]:
        """Errors of the weights on the device, times a factor.

        Args:
            weights: Parameters by name.
            gradients: Not used.
            factor: Factor of the device's error; Rasch et al. use up to 3.
            drop_share: Probability that a weight is zero instead.
            generator: Random generator.

        Returns:
            Offsets of the parameters that are mapped to the device.
        """
        seed = int(torch.randint(2**62, (), generator=generator, device=generator.device))
        chosen = {name: weight for name, weight in weights.items() if name in self._places}
        chip = self._physics.of_chip(seed)
        offsets = {
            name: (self._held(weight, seed, name, chip) - weight).mul_(factor)
            for name, weight in chosen.items()
        }
        drop_connect(offsets, chosen, share=drop_share, generator=generator)
        return offsets

    def _check(self, device: Device, layer: str, t_inference_s: float) -> None:
        device.check_time(t_inference_s)
        if device.drift_compensation.kind == "per_layer" and self._age_s > 0:
            raise ValueError(
                f"Layer {layer!r} of device {device.name!r} has drift_compensation.kind = "
                "'per_layer', which is measured on outputs of the programmed network, and training "
                f"at {t_inference_s:g} s after programming perturbs weights only; give a device "
                "with 'global', 'per_column' or 'none', or train at device_time_s = 0."
            )

    def _held(self, weight: Tensor, seed: int, name: str, chip: "PhysicsOfLayers") -> Tensor:
        device, physics = chip.of(*self._places[name])
        groups = self._groups.get(name)
        filters = filters_first(weight.detach(), groups)
        matrix = filters.flatten(1).cpu()
        largest = matrix.abs().amax(dim=1, keepdim=True) if self._by_column else matrix.abs().max()
        largest = largest.clamp(min=torch.finfo(matrix.dtype).tiny)
        used = matrix.abs().amax(dim=1, keepdim=True) > 0
        targets_uS, scale = physics.to_conductances(matrix / largest)
        streams = [partial(derive_seed, seed, name, number) for number in range(len(targets_uS))]
        states = [
            physics.program(target_uS, seeds)
            for target_uS, seeds in zip(targets_uS, streams, strict=True)
        ]

        def at(t_inference_s: float) -> Tensor:
            """Normalised weights at a time; at 0 as programmed."""
            cells = zip(states, streams, strict=True)
            read = [physics.read(state, t_inference_s, 0, seeds) for state, seeds in cells]
            return torch.where(used, physics.to_weights(read, scale), 0.0)

        held = at(self._age_s) * largest
        compensation = device.drift_compensation
        measured_s = compensation.last_measured(self._age_s)
        if compensation.kind in ("global", "per_column") and measured_s:
            n_read_out = used.sum().clamp(min=1)[None] * matrix.shape[1]
            before, now = (
                self._read_out(at(time_s), compensation.kind, n_read_out)
                for time_s in (0.0, measured_s)
            )
            held = held * (before / now)[:, None]
        return filters_first(held.view(filters.shape), groups).to(weight)


def _is_on_arrays(device: Device, name: str, layers: Sequence[str]) -> bool:
    """Whether the layers that hold a parameter are analog; the same override must apply to all."""
    digital = {any(o.digital and o.matches(layer) for o in device.layers) for layer in layers}
    own = [device.with_overrides_for(layer) for layer in layers]
    if len(digital) > 1 or (digital == {False} and any(one != own[0] for one in own)):
        raise ValueError(
            f"The parameter {name!r} becomes the layers {', '.join(map(repr, layers))} on arrays, "
            f"for which device {device.name!r} has different entries of [[layers]]; training with "
            "its noise needs one entry for all of them."
        )
    return digital == {False}
