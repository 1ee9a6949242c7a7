"""Converters of a fixed range: inputs are converted to DAC levels once for the whole layer.

Every block of rows is a convolution over its channels. Noise, ADC, bound and scale follow in one
pass over memory (:func:`analog_samson.compiled.kernels.adc`).
"""

import math
from collections.abc import Sequence
from typing import cast

import torch
from torch import Tensor

from analog_samson.compiled import kernels
from analog_samson.compiled.computing import Computing, Pass
from analog_samson.compiled.mapped import Array, MappedLayer
from analog_samson.compiled.operations import Converter


class StaticRange(Computing):
    """DAC and ADC with ranges fixed by calibration, and output noise."""

    def __init__(self, mapped: MappedLayer) -> None:
        super().__init__(mapped)
        periphery, step = mapped.periphery, mapped.adc_step or 1.0
        self._noise_and_bound = torch.tensor(
            [periphery.output_noise / step, periphery.output_bound / step]
        )
        self._dac_gain = 1 / (torch.tensor(mapped.input_range) * (mapped.dac_step or 1.0))
        self._dac_levels = round(1 / (mapped.dac_step or 1.0))
        # a traced graph must not depend on values of the device: only on whether they are zero
        self._has_dac, self._has_adc = mapped.dac_step > 0, mapped.adc_step > 0
        self._is_noisy = mapped.is_noisy
        self._blocks: list[tuple[Tensor, Converter]] = []  # weights and converter

    @property
    def structure(self) -> tuple[object, ...]:
        """What a traced graph depends on in addition to shapes."""
        return self._dac_levels, self._has_dac, self._has_adc, self._is_noisy

    def load(self, arrays: Sequence[Array], where: torch.device) -> None:
        """Load weights and scales per block of rows: all its channels, zeros outside its rows."""
        mapped = self.mapped
        whole, scales = mapped.weights_in_steps(arrays), mapped.scales(arrays)
        limits = self._noise_and_bound.to(where)
        offset = whole.new_zeros(len(whole)) if mapped.bias is None else mapped.bias
        how = self._has_adc, self._is_noisy, self._innermost
        self._blocks = []
        for block, weight in enumerate(self._by_block(whole, where)):
            scale = scales[:, block] * mapped.input_range * (mapped.adc_step or 1.0)
            converter = Converter(scale.to(where), offset.to(where), limits, *how)
            self._blocks.append((weight, converter))
            offset = torch.zeros_like(offset)  # the bias is added once
        self._dac_gain = self._dac_gain.to(where)

    def _by_block(self, whole: Tensor, where: torch.device) -> list[Tensor]:
        """A matrix (columns of all groups, rows) as one operand for each block of rows."""
        geometry, n, first = self.geometry, len(whole), 0
        kernel, blocks = math.prod(geometry.shape[2:]), []
        for size, (low, high) in zip(geometry.rows, geometry.channels, strict=True):
            weight = whole.new_zeros(n, (high - low) * kernel)
            start = first - low * kernel
            weight[:, start : start + size] = whole[:, first : first + size]
            weight = self._laid_out(weight.view(n, high - low, *geometry.shape[2:]))
            blocks.append(weight.to(where))
            first += size
        return blocks

    @property
    def _innermost(self) -> bool:
        """Whether channels are the innermost dimension of products."""
        return self.geometry.rank == 0 or (self.geometry.rank == 2 and self.channels_last)

    def __call__(self, x: Tensor, now: Pass) -> Tensor:
        """DAC; for every block of rows product, noise, ADC, bound, scale; their sum."""
        geometry, innermost = self.geometry, self._innermost
        levels = self._inputs(kernels.dac(x, self._dac_gain, self._dac_levels, self._has_dac))
        total: Tensor | None = None
        for block, (weight, converter) in enumerate(self._blocks):
            product = self._product(geometry.channels_of_block(levels, block), weight)
            product = self._outputs(product, levels, block, now)
            product = product.movedim(1, -1) if innermost and geometry.rank else product
            shape = product.shape
            # the first dimension may be images times tokens or windows
            last = shape[-1] if innermost else math.prod(shape[2:])
            product = product.reshape(now.n_images, -1, last).contiguous()
            total = self._adc(product, total, converter, now, block)
        now.call += 1  # the next use of the layer in this pass draws other noise
        out = cast(Tensor, total).view(shape)
        return out.movedim(-1, 1) if innermost and geometry.rank else out

    def _inputs(self, levels: Tensor) -> Tensor:
        """Inputs of the arrays, in DAC steps."""
        return levels

    def _outputs(self, product: Tensor, levels: Tensor, block: int, now: Pass) -> Tensor:
        """Inputs of the ADC before noise, in ADC steps, of the inputs of the layer in DAC steps."""
        return product

    def _adc(
        self, product: Tensor, previous: Tensor | None, how: Converter, now: Pass, block: int
    ) -> Tensor:
        """Noise, ADC, bound and scale of a block of rows, added to the sum of earlier blocks."""
        return kernels.adc(product, previous, how, now.stream, block=block, call=now.call)
