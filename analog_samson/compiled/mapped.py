"""Weights of a layer mapped onto arrays: target weights, scales, converters."""

import copy
from collections.abc import Callable, Sequence
from typing import Self, cast

import torch
from torch import Tensor, nn

from analog_samson.compiled.geometry import Geometry
from analog_samson.devices import Device


class Array:
    """One crossbar array of a layer: its target weights and its present weights.

    In a grouped layer it represents the arrays of all groups at one position (there may be
    thousands). Every shape then begins with the groups; scales and factors are separate per array.

    Attributes:
        layer: Dotted name of the layer.
        index: Number of the array within its layer: row block, then column block.
        target: Normalised target weights, shape (columns, rows), largest of a column +-1.
        used: Whether each column has any weight other than 0, shape (columns,).
        scale: Model units of a normalised weight, shape (columns,).
        weights: Normalised weights now, shape (columns, rows).
        alpha: Compensation factor, shape (1,) or (columns,).
        version: Number of times that weights or factor were set.
    """

    def __init__(self, layer: str, index: int, weights: Tensor, columnwise: bool) -> None:
        largest = weights.abs().amax(dim=-1)
        if not columnwise:
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
        input_range: Largest input of the DAC, model units; NaN if there is none.
        dac_step: Step between two levels of the DAC, normalised; 0: ideal.
        adc_step: Step between two levels of the ADC, normalised; 0: ideal.
        dtype: Type that inputs, weights and products are rounded to.
    """

    def __init__(
        self, name: str, layer: nn.Module, device: Device, input_range: float, dtype: torch.dtype
    ) -> None:
        self.name = name
        self.geometry = Geometry(layer, device.mapping)
        columnwise = device.mapping.scale == "column"
        self.arrays = [
            Array(name, index, part, columnwise)
            for index, part in enumerate(self.geometry.cut(cast(Tensor, layer.weight).detach()))
        ]
        bias = cast(Tensor | None, layer.bias)
        self.bias = None if bias is None else bias.detach().clone()
        self.periphery = device.periphery
        self.input_range = input_range
        self.dac_step = _step(device.periphery.dac_bits, 1.0)
        self.adc_step = _step(device.periphery.adc_bits, device.periphery.output_bound)
        self.dtype = dtype

    @property
    def is_noisy(self) -> bool:
        """Whether every product draws noise."""
        return self.periphery.output_noise > 0 or self.periphery.mvm_read_noise > 0

    def weights_in_steps(self, arrays: Sequence[Array]) -> Tensor:
        """Weights in ADC steps per DAC step, shape (columns of all groups, rows)."""
        whole = self.join(arrays, lambda array: array.weights)
        return whole * ((self.dac_step or 1.0) / (self.adc_step or 1.0))

    def scales(self, arrays: Sequence[Array]) -> Tensor:
        """Model units of a normalised output, shape (columns of all groups, row blocks)."""
        return self.join(arrays, lambda array: (array.scale * array.alpha)[..., None])

    def join(self, arrays: Sequence[Array], of: Callable[[Array], Tensor]) -> Tensor:
        """Join a quantity of all arrays; see ``Geometry.join``."""
        return self.geometry.join([of(array) for array in arrays])


def _step(bits: int | str, bound: float) -> float:
    """Step between two levels of a converter; 0 for an ideal one."""
    return 0.0 if isinstance(bits, str) else 1 / (2**bits - 2) * 2 * bound
