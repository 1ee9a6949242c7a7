"""Weights of a layer mapped onto arrays: target weights, scales, converters."""

import copy
import math
from collections.abc import Callable, Sequence
from typing import Self, cast

import torch
from torch import Tensor, nn

from analog_samson.analog import currents_of
from analog_samson.compiled.geometry import Geometry
from analog_samson.devices import Device
from analog_samson.models import Range, ranges_for, scales_for


class Array:
    """One crossbar array of a layer: its target weights and its present weights.

    In a grouped layer it represents the arrays of all groups at one position (there may be
    thousands). Every shape then begins with the groups; scales and factors are separate per array.

    Attributes:
        layer: Dotted name of the layer.
        index: Number of the array within its layer: row block, then column block.
        target: Normalised target weights, shape (columns, rows), largest of a column +-1 unless
            training fixed the scale.
        used: Whether each column has any weight other than 0, shape (columns,).
        scale: Model units of a normalised weight, shape (columns,).
        weights: Normalised weights now, shape (columns, rows).
        alpha: Compensation factor, shape (1,) or (columns,).
        version: Number of times that weights or factor were set.
    """

    def __init__(
        self,
        layer: str,
        index: int,
        weights: Tensor,
        columnwise: bool,
        scale: Tensor | None = None,
    ) -> None:
        largest = weights.abs().amax(dim=-1) if scale is None else scale
        if scale is None and not columnwise:
            largest = largest.amax(dim=-1, keepdim=True).expand(largest.shape)
        self.layer = layer
        self.index = index
        self.scale = torch.where(largest == 0, 1.0, largest)
        self.target = weights / self.scale[..., None]
        self.used = self.target.abs().amax(dim=-1) > 0
        self.weights = self.target
        self.alpha = torch.ones(*weights.shape[:-2], 1)
        self.version = 0

    def fresh(self) -> Self:
        """An array for another chip, with the same targets (shared) and nothing programmed."""
        other = copy.copy(self)
        other.weights, other.alpha = self.target, torch.ones_like(self.alpha)
        other.version = 0
        return other

    def set_weights(self, weights: Tensor) -> None:
        """Set the normalised weights, shape as the targets."""
        self.weights = weights
        self.version += 1

    def set_compensation(self, alpha: Tensor) -> None:
        """Set the factor that multiplies the outputs, shape (1,) or (columns,)."""
        self.alpha = alpha
        self.version += 1


class MappedLayer:
    """A layer as mapped: what all chips of a network on a device share.

    Attributes:
        name: Dotted name of the layer.
        geometry: Its shape and blocks.
        arrays: Its arrays with their targets, ordered by row block and column block.
        bias: Shape (outputs,), or None.
        periphery: Periphery of the device.
        currents: Currents of the cells; None if they are conductance times voltage.
        input_range: Largest input of the DAC, model units; NaN if there is none. Of several (see
            ``by_range``) that of the first array.
        dac_step: Step between two levels of the DAC, normalised; 0: ideal.
        adc_step: Step between two levels of the ADC, normalised; 0: ideal.
        dtype: Type that inputs, weights and products are rounded to.
    """

    def __init__(
        self, name: str, layer: nn.Module, device: Device, input_range: Range, dtype: torch.dtype
    ) -> None:
        self.name = name
        self.geometry = Geometry(layer, device.mapping)
        columnwise = device.mapping.scale == "column"
        rows, columns = self.geometry.rows, self.geometry.columns
        trained = scales_for(name, layer, len(rows))
        parts = self.geometry.cut(cast(Tensor, layer.weight).detach())
        scales: list[Tensor | None] = [None] * len(parts)
        if trained is not None:
            scales = [part for row in trained for part in torch.split(row, columns)]
        self.arrays = [
            Array(name, index, part, columnwise, scale)
            for index, (part, scale) in enumerate(zip(parts, scales, strict=True))
        ]
        bias = cast(Tensor | None, layer.bias)
        self.bias = None if bias is None else bias.detach().clone()
        self.periphery = device.periphery
        self.currents = currents_of(device, name)
        ranges = ranges_for(name, input_range, len(rows), len(columns))
        self.input_range = float(ranges[0, 0])
        self._of_columns = ranges.repeat_interleave(torch.tensor(columns), dim=1)
        self._shown: Tensor | None = None
        self.dac_step = _step(device.periphery.n_dac_steps, 1.0)
        self.adc_step = _step(device.periphery.n_adc_steps, device.periphery.output_bound)
        self.dtype = dtype

    @property
    def is_noisy(self) -> bool:
        """Whether every product draws noise."""
        of_cells = self.currents is not None and self.currents.is_noisy
        return self.periphery.output_noise > 0 or self.periphery.mvm_read_noise > 0 or of_cells

    def weights_in_steps(self, arrays: Sequence[Array]) -> Tensor:
        """Weights in ADC steps per DAC step, shape (columns of all groups, rows)."""
        whole = self.join(arrays, lambda array: array.weights)
        return whole * ((self.dac_step or 1.0) / (self.adc_step or 1.0))

    def scales(self, arrays: Sequence[Array]) -> Tensor:
        """Model units of a normalised output, shape (columns of all groups, row blocks)."""
        scales = self.join(arrays, lambda array: (array.scale * array.alpha)[..., None])
        return scales if self._shown is None else scales * self._shown

    def by_range(self) -> list[Self]:
        """The layer once for each input range of its arrays; outputs of other arrays are 0.

        The bias is that of the first. One entry, the layer itself, if all ranges are equal.
        """
        values = sorted(set(self._of_columns.flatten().tolist()))
        if len(values) < 2 or math.isnan(self.input_range):
            return [self]
        found = []
        for number, value in enumerate(values):
            part = copy.copy(self)
            part.input_range, part.bias = value, None if number else self.bias
            part._shown = (self._of_columns == value).T.repeat(self.geometry.groups, 1)
            part._of_columns = torch.full_like(self._of_columns, value)
            found.append(part)
        return found

    def join(self, arrays: Sequence[Array], of: Callable[[Array], Tensor]) -> Tensor:
        """Join a quantity of all arrays; see ``Geometry.join``."""
        return self.geometry.join([of(array) for array in arrays])


def _step(n_steps: int, bound: float) -> float:
    """Step between two levels of a converter; 0 for an ideal one."""
    return 1 / n_steps * 2 * bound if n_steps else 0.0
