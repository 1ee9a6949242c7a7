"""From mapped arrays to a functional network: a digital forward pass with the same numbers.

An array with an ideal periphery is a matrix; a layer of them is one convolution with the matrices
put together. Where converters have a fixed range, inputs become DAC levels once for the whole layer
(not for every patch), every block of rows is a convolution of its own over its channels, and noise,
ADC and scaling follow in one pass (:mod:`analog_samson.compiled.kernels`).
"""

import contextlib
import copy
import functools
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Literal, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from analog_samson import models
from analog_samson.analog import check_input_ranges, replace_everywhere
from analog_samson.compiled import kernels
from analog_samson.devices import Device

Precision = Literal["fp32", "bf16"]

_PERIPHERY = {"source", "dac_bits", "adc_bits", "output_bound", "output_noise"}
_MAPPING = {"scale", "max_rows", "max_columns"}


def why_not(device: Device) -> str:
    """Say why this engine cannot run a device; "" if it can.

    Options of a device that this engine has not heard of must be at their defaults.
    """
    if device.noise_level != "conductance":
        return f"noise_level = {device.noise_level!r} is aihwkit's own path"
    for section, known in ((device.periphery, _PERIPHERY), (device.mapping, _MAPPING)):
        for key, field in type(section).model_fields.items():
            value = getattr(section, key)
            if key not in known and value != field.get_default(call_default_factory=True):
                return f"it does not know {key} = {value!r}"
    return ""


class Array:
    """One crossbar array of a layer: what its weights are meant to be and what they are.

    Attributes:
        layer: Dotted name of the layer.
        index: Number of the array within its layer: group, then row block, then column block.
        target: Normalised target weights, shape (columns, rows), largest of a column +-1.
        used: Columns that hold any weight, shape (columns,).
        scale: Model units of a normalised weight, shape (columns,).
        weights: Normalised weights now, shape (columns, rows).
        alpha: Compensation factor, shape (1,) or (columns,).
    """

    def __init__(self, layer: str, index: int, weights: Tensor, columnwise: bool) -> None:
        largest = weights.abs().amax(dim=1) if columnwise else weights.abs().amax().reshape(1)
        scale = torch.where(largest == 0, 1.0, largest)
        self.layer = layer
        self.index = index
        self.target = weights / (scale[:, None] if columnwise else scale)
        self.used = self.target.abs().amax(dim=1) > 0
        self.scale = scale.expand(len(weights))
        self.weights = self.target
        self.alpha = torch.ones(1)
        self.has_changed = True

    def set_weights(self, weights: Tensor) -> None:
        """Put normalised weights (columns, rows) on the array."""
        self.weights = weights
        self.has_changed = True

    def set_compensation(self, alpha: Tensor) -> None:
        """Set the factor (or one a column) that multiplies the array's outputs."""
        self.alpha = alpha
        self.has_changed = True


class FunctionalNetwork:
    """A copy of a network whose analog layers compute what their arrays would, without tiles.

    Args:
        network: The digital network; it is copied, not changed.
        device: The device whose mapping and periphery the layers get.
        keep_digital: Names of layers to leave digital.
        input_ranges: Layer name to the largest input its DAC takes, model units; may be None
            where the periphery is ideal or no forward pass is wanted.
        precision: "bf16" multiplies with weights and inputs of 8 bits precision and adds in fp32.

    Raises:
        ValueError: If a layer cannot become arrays and is not to be kept digital, weights are NaN,
            infinite or all zero, or a layer has no input range.
    """

    def __init__(
        self,
        network: nn.Module,
        device: Device,
        keep_digital: Sequence[str] = (),
        input_ranges: Mapping[str, float] | None = None,
        precision: Precision = "fp32",
    ) -> None:
        self.device = device
        self.precision = precision
        self.has_input_ranges = input_ranges is not None
        network = copy.deepcopy(network).eval().requires_grad_(False)
        digital = models.analog_layers(network, keep_digital)
        models.check_weights(network, list(digital))
        if input_ranges is not None and device.periphery.needs_input_ranges:
            check_input_ranges(input_ranges, list(digital))
        else:
            input_ranges = dict.fromkeys(digital, math.nan)
        self.layers = {
            name: FunctionalLayer(name, layer, device, float(input_ranges[name]))
            for name, layer in digital.items()
        }
        self.tiles = [array for layer in self.layers.values() for array in layer.arrays]
        self.network = replace_everywhere(
            network, {id(layer): self.layers[name] for name, layer in digital.items()}
        )
        self._channels_last = True

    def weights(self) -> dict[str, Tensor]:
        """Weights on the arrays in model units and the layers' shapes, without compensation."""
        return {name: layer.model_weights() for name, layer in self.layers.items()}

    @torch.no_grad()
    def forward(self, images: Tensor, first_index: int, seeds: Callable[..., int]) -> Tensor:
        """Outputs of the network; an image's noise does not depend on its batch.

        Args:
            images: Network inputs, shape (n, ...).
            first_index: Number of the first image in the whole set.
            seeds: Layer name and number of the row block to the key of its noise.

        Returns:
            Outputs, shape (n, ...).
        """
        with _products_in(self.precision):
            if self._channels_last:
                try:
                    return self._run(images, first_index, seeds)
                except RuntimeError:  # `view` of what is not contiguous, most often
                    self._channels_last = False
            return self._run(images, first_index, seeds)

    def _run(self, images: Tensor, first_index: int, seeds: Callable[..., int]) -> Tensor:
        for layer in self.layers.values():
            layer.prepare(len(images), first_index, seeds)
            layer.channels_last = self._channels_last
        if images.ndim == 4 and self._channels_last:
            images = images.contiguous(memory_format=torch.channels_last)
        outputs: Tensor = self.network(images)
        return outputs


class FunctionalLayer(nn.Module):
    """A linear or convolutional layer on arrays.

    Attributes:
        arrays: Its arrays, ordered by group, row block and column block.
        channels_last: Whether outputs stay in the order in which they are computed.
    """

    bias: Tensor | None

    def __init__(self, name: str, layer: nn.Module, device: Device, input_range: float) -> None:
        super().__init__()
        self.name = name
        weight = cast(Tensor, layer.weight).detach()
        self.shape = weight.shape
        self.groups = int(getattr(layer, "groups", 1))
        self._multiply = _product(layer)
        self._rank = weight.ndim - 2
        bias = cast(Tensor | None, layer.bias)
        self.register_buffer("bias", None if bias is None else bias.detach().clone())
        mapping, periphery = device.mapping, device.periphery
        columns, rows = weight.shape[0] // self.groups, weight[0].numel()
        self._rows = _pieces(rows, mapping.max_rows)
        self._columns = _pieces(columns, mapping.max_columns)
        matrices = weight.reshape(self.groups, columns, rows)
        self.arrays: list[Array] = []
        for matrix in matrices:
            for block in matrix.split(self._rows, dim=1):
                for part in block.split(self._columns, dim=0):
                    self.arrays.append(
                        Array(name, len(self.arrays), part, mapping.scale == "column")
                    )
        self._is_ideal = periphery.is_ideal
        self._input_step = _step(periphery.dac_bits, 1.0)
        self._output_step = _step(periphery.adc_bits, periphery.output_bound)
        self._output_bound = periphery.output_bound
        self._output_noise = periphery.output_noise
        self._input_range = torch.tensor(input_range)
        self._n_images, self._first_image, self._call = 0, 0, 0
        self._key: Callable[..., int]
        self._channels: list[tuple[int, int]] = []
        self._weights: list[Tensor] = []
        self._scales: list[Tensor] = []
        self.channels_last = True

    def model_weights(self) -> Tensor:
        """Weights in model units, the layer's shape, without compensation."""
        return self._together(lambda array: array.weights * array.scale[:, None]).view(self.shape)

    def prepare(self, n_images: int, first_image: int, seeds: Callable[..., int]) -> None:
        """Set what the next forward pass needs: weights, keys of the noise, number of the image."""
        self._n_images, self._first_image, self._call = n_images, first_image, 0
        self._key = functools.partial(seeds, self.name)
        if not any(array.has_changed for array in self.arrays):
            return
        if self._is_ideal:
            whole = self._together(lambda a: a.weights * (a.scale * a.alpha)[:, None])
            self._weights = [_channels_last(whole.view(self.shape))]
        else:
            self._prepare_blocks()
        for array in self.arrays:
            array.has_changed = False

    def forward(self, x: Tensor) -> Tensor:
        """Outputs of the layer, bias included."""
        if self._is_ideal:
            out = self._multiply(x, self._weights[0], self.bias)
            return out if self.channels_last else out.contiguous()
        return self._through_converters(x)

    def _together(self, of: Callable[[Array], Tensor]) -> Tensor:
        """Put what every array holds, (columns, its rows), together: (all columns, rows)."""
        values = iter([of(array) for array in self.arrays])
        groups = [
            torch.cat([torch.cat([next(values) for _ in self._columns]) for _ in self._rows], dim=1)
            for _ in range(self.groups)
        ]
        return torch.cat(groups)

    def _prepare_blocks(self) -> None:
        """One weight and one scale for every block of rows: its channels, zeros around its rows."""
        whole = self._together(lambda array: array.weights)
        # Inputs arrive in DAC levels, outputs are wanted in ADC steps.
        whole = whole * ((self._input_step or 1.0) / (self._output_step or 1.0))
        scales = self._together(lambda a: (a.scale * a.alpha)[:, None].expand(-1, 1))
        kernel = math.prod(self.shape[2:])
        self._weights, self._scales, self._channels = [], [], []
        first = 0
        for number, size in enumerate(self._rows):
            low, high = first // kernel, -(-(first + size) // kernel)
            block = whole.new_zeros(len(whole), (high - low) * kernel)
            start = first - low * kernel
            block[:, start : start + size] = whole[:, first : first + size]
            shape = (len(whole), high - low, *self.shape[2:])
            self._weights.append(_channels_last(block.view(shape)))
            self._scales.append(
                scales[:, number] * float(self._input_range) * (self._output_step or 1.0)
            )
            self._channels.append((low, high))
            first += size

    def _through_converters(self, x: Tensor) -> Tensor:
        levels = kernels.dac(x, self._input_range, self._input_step)
        step = self._output_step or 1.0
        total: Tensor | None = None
        for number, weight in enumerate(self._weights):
            scale = self._scales[number]
            offset = self.bias if number == 0 and self.bias is not None else torch.zeros_like(scale)
            product = self._multiply(self._slice(levels, number), weight, None)
            product = product.movedim(1, -1) if self._rank else product
            shape = product.shape
            # The first dimension may be images times something (tokens, windows).
            total = kernels.adc(
                product.reshape(self._n_images, -1, shape[-1]).contiguous(),
                total,
                scale,
                offset,
                key=self._key(number, self._call) if self._output_noise else 0,
                first_image=self._first_image,
                noise=self._output_noise / step,
                rounds=self._output_step > 0,
                levels=self._output_bound / step,
            )
        self._call += 1  # a layer used twice meets other noise the second time
        out = cast(Tensor, total).view(shape)
        out = out.movedim(-1, 1) if self._rank else out
        return out if self.channels_last else out.contiguous()

    def _slice(self, levels: Tensor, number: int) -> Tensor:
        """The channels, of every group, that a block of rows takes."""
        low, high = self._channels[number]
        if (low, high) == (0, self.shape[1]):
            return levels
        if self._rank < 1:
            return levels[..., low:high]
        if self.groups == 1:
            return levels[:, low:high]
        n, channels, *size = levels.shape
        grouped = levels.reshape(n, self.groups, channels // self.groups, *size)
        return grouped[:, :, low:high].flatten(1, 2)


def _product(layer: nn.Module) -> Callable[[Tensor, Tensor, Tensor | None], Tensor]:
    """Multiply as a layer does, with other weights."""
    if isinstance(layer, nn.Linear):
        return F.linear
    convolution: Any = F.conv2d if isinstance(layer, nn.Conv2d) else F.conv1d
    how = {key: getattr(layer, key) for key in ("stride", "padding", "dilation", "groups")}
    return lambda x, weight, bias: convolution(x, weight, bias, **how)


def _pieces(size: int, largest: int | str) -> list[int]:
    """Near-equal pieces of at most the largest size, as aihwkit cuts a layer."""
    if isinstance(largest, str):
        return [size]
    n_pieces = -(-size // largest)
    base, extra = divmod(size, n_pieces)
    return [base + (i < extra) for i in range(n_pieces)]


def _step(bits: int | str, bound: float) -> float:
    """Distance of two levels of a converter; 0 for an ideal one."""
    return 0.0 if isinstance(bits, str) else 1 / (2**bits - 2) * 2 * bound


def _channels_last(weight: Tensor) -> Tensor:
    if weight.ndim != 4:
        return weight.contiguous()
    return weight.contiguous(memory_format=torch.channels_last)


@contextlib.contextmanager
def _products_in(precision: Precision) -> Iterator[None]:
    """Let products of fp32 tensors run in another precision (sums stay in fp32)."""
    if precision == "fp32":
        yield
        return
    backend: Any = torch.backends.mkldnn
    settings = backend.conv, backend.matmul
    before = [setting.fp32_precision for setting in settings]
    try:
        for setting in settings:
            setting.fp32_precision = precision
        yield
    finally:
        for setting, value in zip(settings, before, strict=True):
            setting.fp32_precision = value
