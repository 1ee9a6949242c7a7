"""Hardware-aware training: every pass uses weights with the errors of a device.

The recipe of Rasch et al., Nat. Commun. 14, 5282 (2023): the programming error of the device's
statistical model, multiplied by a factor that grows from 0 over the first epochs, some weights
dropped, gradients applied to the clean weights. The noise is that of a device file, from the same
code as for chips. The other methods do not depend on a device.
"""

from collections.abc import Collection, Mapping
from types import MappingProxyType

import torch
from torch import Tensor

from analog_samson.algorithm import Algorithm, Setting
from analog_samson.devices import Device, load_device
from analog_samson.perturbation import Tensors, drop_connect, filters_first
from analog_samson.streams import derive_seed


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
        self._noise = HardwareNoise(
            loaded, setting.analog_weights, device_time_s, setting.transposed_groups
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

    Row blocks of large layers and the periphery are not modelled: this is noise on weights.

    Args:
        device: The device.
        names: Parameters that are mapped to it.
        t_inference_s: Time of the read after programming [s]; None: 0, or the first time for which
            the device has data.
        transposed_groups: Groups of the transposed convolutions by name, whose columns on arrays
            are not their rows (see `perturbation.transposed_groups`).

    Raises:
        ValueError: If the device has no data for that time.
        ImportError: If the installed aihwkit and torch do not work together.
    """

    def __init__(
        self,
        device: Device,
        names: Collection[str],
        t_inference_s: float | None = None,
        transposed_groups: Mapping[str, int] = MappingProxyType({}),
    ) -> None:
        from analog_samson.analog import Physics  # aihwkit is imported only if it is used

        valid = device.times.valid_times_s
        if t_inference_s is None:
            t_inference_s = 0.0 if valid is None else min(valid)
        device.check_time(t_inference_s)
        self._by_column = device.mapping.scale == "column"
        self._names = frozenset(names)
        self._groups = transposed_groups
        self._physics = Physics(device)
        _, self._age_s = device.cycle_and_age(float(t_inference_s))

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
        chosen = {name: weight for name, weight in weights.items() if name in self._names}
        offsets = {
            name: (self._held(weight, seed, name) - weight).mul_(factor)
            for name, weight in chosen.items()
        }
        drop_connect(offsets, chosen, share=drop_share, generator=generator)
        return offsets

    def _held(self, weight: Tensor, seed: int, name: str) -> Tensor:
        groups = self._groups.get(name)
        filters = filters_first(weight.detach(), groups)
        matrix = filters.flatten(1).cpu()
        largest = matrix.abs().amax(dim=1, keepdim=True) if self._by_column else matrix.abs().max()
        largest = largest.clamp(min=torch.finfo(matrix.dtype).tiny)
        targets_uS, scale = self._physics.to_conductances(matrix / largest)
        read = []
        for number, target_uS in enumerate(targets_uS):

            def seeds(*words: str | float | int, number: int = number) -> int:
                return derive_seed(seed, name, number, *words)

            state = self._physics.program(target_uS, seeds)
            read.append(self._physics.read(state, self._age_s, 0, seeds))
        held = self._physics.to_weights(read, scale) * largest
        unused = matrix.abs().amax(dim=1, keepdim=True) == 0
        held = torch.where(unused, torch.zeros_like(held), held)
        return filters_first(held.view(filters.shape), groups).to(weight)
