"""A layer on arrays: how its weights are cut into arrays, and what the arrays compute together.

With an ideal periphery the arrays of a layer are one matrix. Where converters have a fixed range,
inputs become DAC levels once for the whole layer (not for every patch of a convolution), every
block of rows is a convolution of its own over its channels, and noise, ADC and scaling follow in
one pass (:mod:`analog_samson.compiled.kernels`). What depends on the single input vector (its own
range, its currents, read noise) goes through :mod:`analog_samson.compiled.arrays`.
"""

import itertools
import math
from collections.abc import Callable
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from analog_samson.compiled import arrays, kernels, narrow
from analog_samson.devices import Device

CPU = torch.device("cpu")
_GEOMETRY = ("stride", "padding", "dilation", "groups")


class Array:
    """One crossbar array of a layer: what its weights are meant to be and what they are.

    Of a grouped layer it stands for the arrays of all groups at one place, thousands in a depthwise
    network: every shape then begins with the groups, and every array keeps its scales and factors.

    Attributes:
        layer: Dotted name of the layer.
        index: Number of the array within its layer: row block, then column block.
        target: Normalised target weights, shape (columns, rows), largest of a column +-1.
        used: Columns that hold any weight, shape (columns,).
        scale: Model units of a normalised weight, shape (columns,).
        weights: Normalised weights now, shape (columns, rows).
        alpha: Compensation factor, shape (1,) or (columns,).
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
        self.has_changed = True

    def set_weights(self, weights: Tensor) -> None:
        """Put normalised weights on the array, of the shape of its targets."""
        self.weights = weights
        self.has_changed = True

    def set_compensation(self, alpha: Tensor) -> None:
        """Set the factor (or one a column) that multiplies an array's outputs."""
        self.alpha = alpha
        self.has_changed = True


class Pass:
    """What one forward pass needs of a layer; no attributes of a module, which are slow to set.

    Attributes:
        n_images: How many images it meets.
        call: How often the layer was used in it already.
    """

    def __init__(self) -> None:
        self.n_images, self.call = 0, 0


class FunctionalLayer(nn.Module):
    """A linear or convolutional layer on arrays.

    Attributes:
        arrays: Its arrays, those of all groups as one, ordered by row block and column block.
        channels_last: Whether images have their channels innermost. The number of an output, which
            its noise derives from, is its place in memory.
        dtype: What inputs, weights and their product are rounded to.
    """

    bias: Tensor | None

    def __init__(self, name: str, layer: nn.Module, device: Device, input_range: float) -> None:
        super().__init__()
        self.name = name
        weight = cast(Tensor, layer.weight).detach()
        self.shape = weight.shape
        self.groups = int(getattr(layer, "groups", 1))
        self._rank = weight.ndim - 2
        self._how = tuple(getattr(layer, key) for key in _GEOMETRY) if self._rank else ()
        self._is_narrow = self.groups == 1 and narrow.suits(self.shape, self._how[:3])
        bias = cast(Tensor | None, layer.bias)
        self.register_buffer("bias", None if bias is None else bias.detach().clone())
        mapping, periphery = device.mapping, device.periphery
        columns, rows = weight.shape[0] // self.groups, weight[0].numel()
        self._rows = _pieces(rows, mapping.max_rows)
        self._columns = _pieces(columns, mapping.max_columns)
        groups = (self.groups,) if self.groups > 1 else ()
        parts = [
            part
            for block in torch.split(weight.reshape(*groups, columns, rows), self._rows, dim=-1)
            for part in torch.split(block, self._columns, dim=-2)
        ]
        self.arrays = [
            Array(name, index, part, mapping.scale == "column") for index, part in enumerate(parts)
        ]
        self._is_ideal = periphery.is_ideal
        self._is_by_vector = periphery.is_by_vector
        self._by_vector = self._is_by_vector
        self._input_step = _step(periphery.dac_bits, 1.0)
        self._output_step = _step(periphery.adc_bits, periphery.output_bound)
        self._rounds = self._output_step > 0
        self._is_noisy = periphery.output_noise > 0 or periphery.mvm_read_noise > 0
        # Whatever differs between chips, times, networks and values of a swept axis is a tensor:
        # the graph of a network depends on its shapes only.
        step = self._output_step or 1.0
        in_steps = [periphery.output_noise / step, periphery.output_bound / step]
        self._limits = torch.tensor(in_steps)
        steps = self._input_step, self._output_step
        self._array_limits = arrays.limits(periphery, input_range, steps)
        self._largest_input = input_range
        self._dac_gain = 1 / (torch.tensor(input_range) * (self._input_step or 1.0))
        self._dac_levels = round(1 / (self._input_step or 1.0))
        self._stream = torch.zeros(1 + len(self._rows), dtype=torch.int64)
        self._seeds: Callable[..., int] | None = None  # those that the stream holds
        self._weights: list[Tensor] = []
        self._scales: list[Tensor] = []
        self._offsets: list[Tensor] = []
        self._contents: arrays.Contents
        self._channels = _channels_of(self._rows, math.prod(self.shape[2:]))
        self._now = Pass()
        self._where = CPU
        self.channels_last = True
        self.dtype = torch.float32

    @property
    def structure(self) -> tuple[object, ...]:
        """What a graph of this layer depends on; all else are tensors."""
        form: tuple[object, ...] = ("vectors",) if self._by_vector else ("ideal",)
        if not (self._by_vector or self._is_ideal):
            form = (self._dac_levels, self._input_step > 0, self._rounds, self._is_noisy)
        cut = self.shape, self._how, self._rows, self._columns
        return *cut, self.channels_last, self.dtype, *form

    def model_weights(self) -> Tensor:
        """Weights in model units, the layer's shape, without compensation."""
        return self._together(lambda a: a.weights * a.scale[..., None]).view(self.shape)

    def prepare(
        self,
        n_images: int,
        first_image: int,
        seeds: Callable[..., int],
        where: torch.device = CPU,
        *,
        in_blocks: bool = False,
    ) -> None:
        """Set what the next forward pass needs: weights, keys of the noise, number of the image.

        The arrays themselves stay on the CPU; what is multiplied goes to ``where``. Keys are asked
        for again where ``seeds`` is another object than the last time. A linear layer with
        converters runs vector by vector where there is C, in one call, unless ``in_blocks``.
        """
        self._now.n_images, self._now.call = n_images, 0
        if self._is_noisy and seeds is not self._seeds:
            keys = [seeds(self.name, block) for block in range(len(self._rows))]
            self._stream[1:] = torch.tensor(keys)
            self._seeds = seeds
        self._stream[0] = first_image
        is_flat = not (self._rank or self._is_ideal or in_blocks) and self.dtype == torch.float32
        is_in_c = where == CPU and kernels.library() is not None
        by_vector = self._is_by_vector or (is_flat and is_in_c)
        is_known = where == self._where and by_vector == self._by_vector
        if is_known and not any(array.has_changed for array in self.arrays):
            return
        self._by_vector = by_vector
        if self._is_ideal:
            whole = self._together(lambda a: a.weights * (a.scale * a.alpha)[..., None])
            self._weights = [self._laid_out(whole.view(self.shape))]
        elif self._by_vector:
            self._prepare_arrays()
        else:
            self._prepare_blocks()
        for array in self.arrays:
            array.has_changed = False
        self._move_to(where)

    def _move_to(self, where: torch.device) -> None:
        self._where = where
        self.to(where)
        self._dac_gain, self._stream = self._dac_gain.to(where), self._stream.to(where)
        for held in (self._weights, self._scales, self._offsets):
            held[:] = [tensor.to(where) for tensor in held]
        if self._by_vector:
            self._contents = arrays.Contents(*(tensor.to(where) for tensor in self._contents))
        else:
            self._limits = self._limits.to(where)

    def forward(self, x: Tensor) -> Tensor:
        """Outputs of the layer, bias included."""
        if self._is_ideal:
            return self._multiply(x, self._weights[0], self.bias)
        return self._vector_by_vector(x) if self._by_vector else self._through_converters(x)

    def _together(self, of: Callable[[Array], Tensor]) -> Tensor:
        """Put what every array holds, (columns, its rows), together: (all columns, rows)."""
        values = iter([of(array) for array in self.arrays])
        blocks = [torch.cat([next(values) for _ in self._columns], dim=-2) for _ in self._rows]
        whole = torch.cat(blocks, dim=-1)
        return whole.reshape(-1, whole.shape[-1])

    def _prepare_blocks(self) -> None:
        """One weight and one scale for every block of rows: its channels, zeros around its rows."""
        whole = self._together(lambda array: array.weights)
        # Inputs arrive in DAC levels, outputs are wanted in ADC steps.
        whole = whole * ((self._input_step or 1.0) / (self._output_step or 1.0))
        scales = self._together(lambda a: (a.scale * a.alpha)[..., None])
        kernel = math.prod(self.shape[2:])
        self._weights, self._scales = [], []
        first = 0
        for number, (size, (low, high)) in enumerate(zip(self._rows, self._channels, strict=True)):
            block = whole.new_zeros(len(whole), (high - low) * kernel)
            start = first - low * kernel
            block[:, start : start + size] = whole[:, first : first + size]
            shape = (len(whole), high - low, *self.shape[2:])
            self._weights.append(self._laid_out(block.view(shape)))
            self._scales.append(
                scales[:, number] * self._largest_input * (self._output_step or 1.0)
            )
            first += size
        zeros = torch.zeros_like(self._scales[0])
        bias = zeros if self.bias is None else self.bias
        self._offsets = [bias, *[zeros] * (len(self._rows) - 1)]

    def _prepare_arrays(self) -> None:
        """All weights from DAC to ADC steps, and as the kernel reads them."""
        whole = self._together(lambda array: array.weights)
        whole = whole * ((self._input_step or 1.0) / (self._output_step or 1.0))
        scales = self._together(lambda a: (a.scale * a.alpha)[..., None]).T
        in_range = 1.0 if math.isnan(self._largest_input) else self._largest_input
        scales = scales * (in_range * (self._output_step or 1.0))
        walk = self._walk((1, 1, self.shape[1] * self.groups), 1)
        packed = arrays.pack(whole, self._rows, self._columns, walk)
        bias = scales.new_zeros(len(whole)) if self.bias is None else self.bias
        self._contents = arrays.Contents(
            whole, packed, arrays.places(self._rows, walk), scales.contiguous(), bias
        )

    def _walk(self, size: tuple[int, int, int], inputs_an_image: int) -> arrays.Walk:
        """Geometry of the layer on inputs of some height, width and channels."""
        kernel = (1, 1, *self.shape[2:])[-2:]
        stride, padding, dilation = ((1, 1), (0, 0), (1, 1))
        if self._rank:
            stride, padding, dilation = (_pair(value) for value in self._how[:3])
            padding = padding if self._rank == 2 else (0, padding[1])
        height, width = (
            (n + 2 * p - d * (k - 1) - 1) // s + 1
            for n, k, s, p, d in zip(size[:2], kernel, stride, padding, dilation, strict=True)
        )
        return arrays.Walk(
            *size,
            *(height, width),
            *(kernel[0], kernel[1]),
            *stride,
            *padding,
            *dilation,
            groups=self.groups,
            columns=self.shape[0] // self.groups,
            inputs_an_image=inputs_an_image,
        )

    def _vector_by_vector(self, x: Tensor) -> Tensor:
        # images (or several pieces of each), height, width, channels
        if self._rank == 2:
            inputs = x.permute(0, 2, 3, 1)
        elif self._rank == 1:
            inputs = x.transpose(1, 2)[:, None]
        else:
            inputs = x.reshape(self._now.n_images, 1, -1, x.shape[-1])
        n, *size = inputs.shape
        if size[2] != self.shape[1] * self.groups:
            raise RuntimeError(
                f"Layer {self.name!r} takes {self.shape[1] * self.groups} channels; got {size[2]}."
            )
        out = arrays.through(
            inputs,
            self._contents,
            self._stream,
            self._array_limits,
            rows=self._rows,
            columns=self._columns,
            walk=self._walk((size[0], size[1], size[2]), n // self._now.n_images),
            call=self._now.call,
        )
        self._now.call += 1
        if self._rank == 2:
            out = out.permute(0, 3, 1, 2)
            return out if self.channels_last else out.contiguous()
        if self._rank == 1:
            return out[:, 0].transpose(1, 2).contiguous()
        return out.view(*x.shape[:-1], -1)

    def _through_converters(self, x: Tensor) -> Tensor:
        levels = kernels.dac(x, self._dac_gain, self._dac_levels, self._input_step > 0)
        innermost = self._rank == 0 or (self._rank == 2 and self.channels_last)
        total: Tensor | None = None
        for number, weight in enumerate(self._weights):
            product = self._product(self._slice(levels, number).to(self.dtype), weight, None)
            product = product.movedim(1, -1) if innermost and self._rank else product
            shape = product.shape
            # The first dimension may be images times something (tokens, windows).
            last = shape[-1] if innermost else math.prod(shape[2:])
            product = product.reshape(self._now.n_images, -1, last).contiguous()
            total = self._convert(product, total, number, innermost)
        self._now.call += 1  # a layer used twice meets other noise the second time
        out = cast(Tensor, total).view(shape)
        return out.movedim(-1, 1) if innermost and self._rank else out

    def _convert(
        self, product: Tensor, previous: Tensor | None, number: int, innermost: bool
    ) -> Tensor:
        """Noise, ADC and scale of a block of rows, added to what the blocks before gave."""
        return kernels.adc(
            product,
            previous,
            self._scales[number],
            self._offsets[number],
            self._stream,
            self._limits,
            block=number,
            call=self._now.call,
            rounds=self._rounds,
            innermost=innermost,
            draws=self._is_noisy,
        )

    def _multiply(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        if self.dtype != torch.float32:
            product = self._product(x.to(self.dtype), weight, None).to(x.dtype)
            return product if bias is None else product + bias.view(-1, *[1] * self._rank)
        return self._product(x, weight, bias)

    def _product(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        if not self._rank:
            return F.linear(x, weight, bias)
        if self._is_narrow and not self.channels_last:
            return narrow.convolve(x, weight, bias, self._how[1])
        convolution = F.conv2d if self._rank == 2 else F.conv1d
        product: Tensor = convolution(x, weight, bias, *self._how)
        return product

    def _laid_out(self, weight: Tensor) -> Tensor:
        weight = weight.to(self.dtype)
        return channels_last(weight) if self.channels_last else weight.contiguous()

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


def _pair(value: tuple[int, ...]) -> tuple[int, int]:
    """Of a geometry of one or two dimensions: that of images of height 1."""
    return (value[0], value[1]) if len(value) == 2 else (1, value[0])


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


def channels_last(x: Tensor) -> Tensor:
    """Put channels innermost, strides included: one channel alone would keep those it has."""
    if x.ndim != 4:
        return x.contiguous()
    if x.stride(1) == 1 and x.is_contiguous(memory_format=torch.channels_last):
        return x
    return x.clone(memory_format=torch.channels_last)


def _channels_of(rows: list[int], kernel: int) -> list[tuple[int, int]]:
    """First and one past the last channel that a block of rows needs, for every block."""
    ends = list(itertools.accumulate(rows, initial=0))
    return [(a // kernel, -(-b // kernel)) for a, b in itertools.pairwise(ends)]
