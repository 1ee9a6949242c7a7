"""Batched inference over chips of one network and device, for GPUs.

The batched layers are in :mod:`analog_samson.compiled.stacked`.
"""

from collections.abc import Sequence
from typing import Self

import torch
from torch import Tensor

from analog_samson.chip.chip import Chip
from analog_samson.chip.engines import Engine
from analog_samson.compiled import FunctionalNetwork, StackedNetwork, kernels
from analog_samson.devices import Device


def why_not_batched(device: Device, engine: Engine) -> str:
    """Return the reason why batched inference over chips is not possible; "" if it is.

    Example:
        >>> from analog_samson import load_device
        >>> why_not_batched(load_device("pcm_like"), "aihwkit")
        "aihwkit's tiles run one chip at a time"
    """
    if engine != "compiled":
        return "aihwkit's tiles run one chip at a time"
    if device.drift_compensation.batch_norm == "recalibrated":
        return "recalibrated statistics of batch normalisation belong to one chip"
    if device.periphery.has_cell_currents:
        return "currents of cells are computed for each chip"
    if device.periphery.effects:
        return "effects of the periphery are computed for each chip"
    if device.periphery.needs_input_ranges and device.input_ranges.of == "chip":
        return "its input ranges are calibrated for each chip"
    return ""


class ChipGroup:
    """Batched inference over chips of one network on one device.

    Random numbers are those of every chip alone; floating-point results differ in the last bits,
    so that an ADC tie may round the other way. It is for GPUs, which one chip does not fully use;
    on a CPU the chips run one after the other. Each chip can still be used alone.

    Args:
        chips: At least one, made by ``program`` from one network on one device.
        size: Group size on a GPU. A smaller group is filled up with copies of the last chip, so
            that shapes, and with them the last bits, do not depend on the number of chips.

    Attributes:
        chips: The chips.

    Raises:
        ValueError: If there are none, they are not of one network and device, or the device does
            not allow it (see :func:`why_not_batched`).

    Example:
        >>> from analog_samson.chip import program
        >>> group = ChipGroup([program(network, "pcm_like", seed=seed) for seed in range(3)])
        >>> [logits.shape for logits in group.drift_to(3600.0)(images)]
        [torch.Size([359, 10]), torch.Size([359, 10]), torch.Size([359, 10])]
    """

    def __init__(self, chips: Sequence[Chip], size: int = 1) -> None:
        if not chips:
            raise ValueError("A group needs at least one chip; got none.")
        self.chips = tuple(chips)
        first = chips[0]
        for chip in chips:
            if reason := why_not_batched(chip.device, chip.engine):
                raise ValueError(
                    f"Inference cannot be batched over chips of device {chip.device.name!r}: "
                    f"{reason}; run each chip alone."
                )
            if what := _difference(chip, first):
                raise ValueError(f"Batched chips must be of one network on one device; got {what}.")
        self._places = [*chips, *[chips[-1]] * (size - len(chips))]
        networks = [chip.network for chip in self._places]
        self._network = StackedNetwork([n for n in networks if isinstance(n, FunctionalNetwork)])

    def drift_to(self, t_inference_s: float, read: int = 0) -> Self:
        """Age all chips to a time and read them, as :meth:`Chip.drift_to`."""
        for chip in self.chips:
            chip.drift_to(t_inference_s, read)
        return self

    def __call__(self, images: Tensor, first_index: int = 0) -> Tensor:
        """Run the network on all chips.

        Args:
            images: As for a chip, shape (n, ...); the same for all chips.
            first_index: As for a chip.

        Returns:
            Outputs, shape (chips, n, ...).

        Raises:
            ValueError: As for a chip.
        """
        for chip in self.chips:
            images = chip.checked(images)
        if images.device.type == "cpu" and kernels.library() is not None:
            return torch.stack([chip(images, first_index) for chip in self.chips])
        seeds = [chip.forward_seeds for chip in self._places]
        return self._network.forward(images, first_index, seeds)[: len(self.chips)]


def _difference(chip: Chip, other: Chip) -> str:
    """How two chips differ in network or device; "" if they do not."""
    if chip.device.digest != other.device.digest:
        return f"devices {other.device.name!r} and {chip.device.name!r} of different contents"
    if chip.precision != other.precision:
        return f"precisions {other.precision!r} and {chip.precision!r}"
    ours, theirs = chip.network, other.network
    shapes, others = ([array.target.shape for array in n.arrays] for n in (ours, theirs))
    if str(ours.network) != str(theirs.network) or shapes != others:
        return "different networks"
    if chip.input_ranges != other.input_ranges:
        return "different input ranges"
    digital, expected = ours.network.state_dict(), theirs.network.state_dict()
    if any(
        tensor.shape != expected[name].shape or not torch.equal(tensor.cpu(), expected[name].cpu())
        for name, tensor in digital.items()
    ):
        return "networks whose digital parts differ"
    return ""
