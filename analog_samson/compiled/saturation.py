"""Counts of clipped inputs and saturated outputs of every array in forward passes of a chip."""

import contextlib
import itertools
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from analog_samson.compiled import kernels
from analog_samson.compiled.computing import Pass
from analog_samson.compiled.effects import WithEffects
from analog_samson.compiled.mapped import MappedLayer
from analog_samson.compiled.network import FunctionalNetwork
from analog_samson.compiled.operations import Converter


@dataclass
class ArrayCounts:
    """Counts of one array.

    Attributes:
        n_inputs: Inputs of the DAC. Each activation of a convolution counts once, not for every
            position of the kernel.
        n_clipped: Those beyond the input range.
        n_outputs: Outputs of the ADC.
        n_saturated: Those at its largest or smallest code; without converter, at the output bound.
    """

    n_inputs: int = 0
    n_clipped: int = 0
    n_outputs: int = 0
    n_saturated: int = 0


class _Counting(WithEffects):
    """The computation of a layer with fixed ranges; counts what its converters cut off."""

    def __init__(self, mapped: MappedLayer) -> None:
        super().__init__(mapped)
        geometry = mapped.geometry
        self.counts = [ArrayCounts() for _ in itertools.product(geometry.rows, geometry.columns)]

    def __call__(self, x: Tensor, now: Pass) -> Tensor:
        geometry = self.geometry
        is_beyond = x.abs() > self.mapped.input_range
        for block in range(len(geometry.rows)):
            beyond = geometry.channels_of_block(is_beyond, block)
            for part in self._of_block(block):
                part.n_inputs += beyond.numel()
                part.n_clipped += int(beyond.sum())
        return super().__call__(x, now)

    def _adc(
        self, product: Tensor, previous: Tensor | None, how: Converter, now: Pass, block: int
    ) -> Tensor:
        unit = how._replace(scale=torch.ones_like(how.scale), offset=torch.zeros_like(how.offset))
        codes = kernels.adc(product.clone(), None, unit, now.stream, block=block, call=now.call)
        is_cut = codes.abs() >= float(how.noise_and_bound[1]) * (1 - 1e-6)
        others = (0, 1) if self._innermost else (0, 2)
        of_columns = is_cut.sum(dim=others).view(self.geometry.groups, -1)
        parts = torch.split(of_columns, self.geometry.columns, dim=1)
        positions = is_cut.numel() // of_columns.numel()
        for counts, part in zip(self._of_block(block), parts, strict=True):
            counts.n_outputs += positions * part.numel()
            counts.n_saturated += int(part.sum())
        return super()._adc(product, previous, how, now, block)

    def _of_block(self, block: int) -> list[ArrayCounts]:
        n = len(self.geometry.columns)
        return self.counts[block * n : (block + 1) * n]


@contextlib.contextmanager
def counted(network: FunctionalNetwork) -> Iterator[dict[str, list[ArrayCounts]]]:
    """Count what the converters of a network cut off in the forward passes inside.

    Arrays of a grouped layer at one position are counted together, and so are all uses of a layer.

    Args:
        network: The network, after its first forward pass; passes inside run untraced.

    Yields:
        {layer: counts of its arrays, ordered by row block and column block}, which grow with every
        forward pass.

    Raises:
        ValueError: If the periphery is ideal, computes scales, currents or noise for each input
            vector, or arrays of a layer differ in their input range.
    """
    periphery = network.device.periphery
    if not periphery.has_fixed_ranges:
        kind = "cuts nothing off" if periphery.is_ideal else "has ranges for each input vector"
        raise ValueError(
            f"The periphery of device {network.device.name!r} {kind}; clipping is counted for "
            "converters of fixed ranges."
        )
    for name, layer in network.layers.items():
        if layer.mapped.currents is not None or len(layer.mapped.by_range()) > 1:
            raise ValueError(
                f"Layer {name!r} of device {network.device.name!r} has currents of cells, or input "
                "ranges of single arrays; clipping is counted for arrays without."
            )
    if not network.has_input_ranges:
        raise ValueError("The chip was not calibrated; give program(..., calibration=images).")
    layers = network.layers
    before = {name: layer.computing for name, layer in layers.items()}
    counting = {name: _Counting(layer.mapped) for name, layer in layers.items()}
    try:
        for name, layer in layers.items():
            counting[name].channels_last = layer.computing.channels_last
            layer.replace_computing(counting[name])
        with network.untraced():
            yield {name: one.counts for name, one in counting.items()}
    finally:
        for name, layer in layers.items():
            layer.replace_computing(before[name])
