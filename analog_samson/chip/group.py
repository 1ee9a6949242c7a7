"""Batched inference over chips of one network and device, for GPUs and for small networks.

The batched layers are in :mod:`analog_samson.compiled.stacked`.
"""

import functools
from collections.abc import Sequence
from typing import Self

import torch
from torch import Tensor

from analog_samson.chip.chip import Chip, read_together
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

    Random numbers are those of every chip alone. On a GPU, which one chip does not fully use,
    floating-point results differ in the last bits, so that an ADC tie may round the other way. On a
    CPU results are those of every chip alone to the bit: arrays and layers that take less time than
    the calls of them are computed together, others one after the other. Each chip can still be used
    alone.

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

    @functools.cached_property
    def _in_torch(self) -> StackedNetwork:
        return StackedNetwork(_networks(self._places))

    @functools.cached_property
    def _in_c(self) -> StackedNetwork:
        return StackedNetwork(_networks(self.chips), in_c=True)

    @property
    def is_batch_invariant(self) -> bool:
        """Whether outputs are known to be bit-identical for every batch size."""
        return all(chip.is_batch_invariant for chip in self.chips)

    def drift_to(self, t_inference_s: float, read: int = 0) -> Self:
        """Age all chips to a time and read them, as :meth:`Chip.drift_to`."""
        read_together(self.chips, t_inference_s, read)
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
        images = self.chips[0].checked(images)
        if images.device.type == "cpu" and kernels.library() is not None:
            if self.chips[0].is_traced is None:
                self.chips[0](images, first_index)  # decides on layout and tracing, for this shape
            if not self.is_batch_invariant:
                return torch.stack([chip(images, first_index) for chip in self.chips])
            seeds = [chip.forward_seeds for chip in self.chips]
            return self._in_c.forward(images, first_index, seeds)
        seeds = [chip.forward_seeds for chip in self._places]
        return self._in_torch.forward(images, first_index, seeds)[: len(self.chips)]


def _networks(chips: Sequence[Chip]) -> list[FunctionalNetwork]:
    return [chip.network for chip in chips if isinstance(chip.network, FunctionalNetwork)]


def _difference(chip: Chip, other: Chip) -> str:
    """How two chips differ in network or device; "" if they do not."""
    if chip.is_of_the_same_network(other):
        return ""
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
