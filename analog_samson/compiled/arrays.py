"""A layer of arrays, vector by vector: what scales, currents or noise depend on the input vector.

Follows aihwkit's C++ tile: the range of the DAC may be that of every vector (a patch of a
convolution), products that clip may be repeated at half the input, products may lose to the IR drop
along columns and gain read noise of weights. Row blocks of a layer have scales, ADC and noise of
their own. In C (``arrays.c``), or in torch operations where there is no compiler.
"""

import ctypes
import itertools
import math
from collections.abc import Iterator, Sequence
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from analog_samson.compiled import kernels, operations
from analog_samson.devices.array import Periphery

_WIRE_TO_CELL = 1 / 0.35 / 5e-6
"""Conductance of the wire between two cells over that of the largest weight (aihwkit's default)."""
_FINEST_INPUT = 0.25
"""Products are repeated while a DAC step is at most this share of an input (max_bm_res there)."""
_MOST_HALVINGS = 1000.0
_NEXT_ROUND = 0xD1B54A32D192ED03  # added to the key of the noise when a product is repeated


class Walk(NamedTuple):
    """How the kernels of a layer walk over an input; the fields of ``struct layer`` in C."""

    height: int
    width: int
    channels: int
    out_height: int
    out_width: int
    kernel_height: int
    kernel_width: int
    stride_y: int
    stride_x: int
    top: int
    left: int
    dilation_y: int
    dilation_x: int
    groups: int
    columns: int
    inputs_an_image: int


def limits(periphery: Periphery, input_range: float, steps: tuple[float, float]) -> Tensor:
    """Collect the numbers of a periphery, in DAC and ADC steps.

    Args:
        periphery: The periphery.
        input_range: Largest input; counts where the range is calibrated.
        steps: Of DAC and ADC, in normalised units; 0: ideal.

    Returns:
        Tensor on the CPU, as :class:`_Limits`.
    """
    dac, adc = (step or 1.0 for step in steps)
    additive = periphery.mvm_read_noise_kind == "additive"
    managed = periphery.bound_management == "iterative"
    finest = _FINEST_INPUT / steps[0] if steps[0] else _MOST_HALVINGS
    variance = periphery.mvm_read_noise**2
    output_levels = periphery.output_bound / adc
    # aihwkit compares in single precision: the last level itself may lie above the bound
    level = torch.tensor(1 / (2 * output_levels)) * (2 * periphery.output_bound)
    is_above = steps[1] > 0 and bool(round(output_levels) * level > periphery.output_bound)
    values = _Limits(
        input_range=0.0 if periphery.input_scaling == "per_vector" else input_range,
        step=steps[0],
        levels=round(1 / dac),
        most_halvings=min(finest, _MOST_HALVINGS) if managed else 0.0,
        output_noise=periphery.output_noise / adc,
        output_levels=output_levels,
        largest_fit=output_levels - is_above / 2,
        read_variance=0.0 if additive else variance * dac / adc,
        additive_variance=variance * (dac / adc) ** 2 if additive else 0.0,
        drop=periphery.ir_drop,
        current=adc / _WIRE_TO_CELL,
        rounds=float(steps[1] > 0),
    )
    return torch.tensor(values)


class _Limits(NamedTuple):
    input_range: float
    """Of the DAC, model units; 0: that of every vector."""
    step: float
    levels: float
    most_halvings: float
    """Largest factor by which inputs are reduced until outputs fit; 0: never."""
    output_noise: float
    output_levels: float
    largest_fit: float
    """Larger outputs count as clipped."""
    read_variance: float
    """Times sum |w| x^2, in steps."""
    additive_variance: float
    """Times sum x^2, in steps."""
    drop: float
    current: float
    """Times rows and sum |w| |x|: the current of a column."""
    rounds: float


def pack(weights: Tensor, rows: Sequence[int], columns: Sequence[int], walk: Walk) -> Tensor:
    """Lay weights out as the C kernel reads them: tiles of columns, rows in the order of memory.

    Args:
        weights: Shape (columns of all groups, rows); rows numbered (channel, kernel).
        rows: Sizes of the row blocks.
        columns: Sizes of the column blocks of a group.
        walk: The layer's geometry.

    Returns:
        All numbers in one row; empty where there is no C library.
    """
    built = kernels.library()
    if built is None:
        return weights.new_zeros(0)
    lanes = built.lanes()
    parts = []
    blocks = torch.split(weights, list(rows), dim=1)
    for block, order in zip(blocks, _orders(rows, walk), strict=True):
        for group in torch.split(block[:, order], walk.columns):
            for part in torch.split(group, list(columns)):
                tiles = F.pad(part, (0, 0, 0, -len(part) % lanes)).view(-1, lanes, len(order))
                parts.append(tiles.transpose(1, 2).flatten())
    return torch.cat(parts)


def places(rows: Sequence[int], walk: Walk) -> Tensor:
    """Say how much of the IR drop every row sees, rows as :func:`pack` lays them out."""
    blocks = []
    for order in _orders(rows, walk):
        far = 1 - order / len(order)
        blocks.append(1 - far * far)
    return torch.cat(blocks)


def _orders(rows: Sequence[int], walk: Walk) -> Iterator[Tensor]:
    """Rows of every block as its patches lie in memory: by place in the kernel, then channel."""
    taps = walk.kernel_height * walk.kernel_width
    for first, end in itertools.pairwise(itertools.accumulate(rows, initial=0)):
        numbers = torch.arange(first, end)
        yield torch.argsort(numbers % taps, stable=True)


class Contents(NamedTuple):
    """What the arrays of a layer hold.

    Attributes:
        weights: DAC steps to ADC steps, shape (columns of all groups, rows).
        packed: The same as :func:`pack` gives it.
        places: As :func:`places` gives it.
        scales: Model units an ADC step, shape (row blocks, columns of all groups).
        offsets: Added to the sum of the row blocks, shape (columns of all groups,).
    """

    weights: Tensor
    packed: Tensor
    places: Tensor
    scales: Tensor
    offsets: Tensor


def through(
    x: Tensor,
    contents: Contents,
    stream: Tensor,
    numbers: Tensor,
    *,
    rows: Sequence[int],
    columns: Sequence[int],
    walk: Walk,
    call: int,
) -> Tensor:
    """Send inputs through the arrays of a layer.

    Args:
        x: Inputs, shape (n, height, width, channels).
        contents: What the arrays hold.
        stream: int64: number of the first image in the whole set, then a key for every row block.
        numbers: As :func:`limits` gives them, on the CPU.
        rows: Sizes of the row blocks.
        columns: Sizes of the column blocks of a group.
        walk: The layer's geometry.
        call: How often the layer was used before in this forward pass.

    Returns:
        Outputs, shape (n, out_height, out_width, columns of all groups).
    """
    apply = _operation if torch.compiler.is_compiling() else _through
    geometry = list(walk)
    sizes = list(rows), list(columns), geometry
    out: Tensor = apply(x, *contents, stream, numbers, *sizes, call)
    return out


def _through(
    x: Tensor,
    weights: Tensor,
    packed: Tensor,
    row_places: Tensor,
    scales: Tensor,
    offsets: Tensor,
    stream: Tensor,
    numbers: Tensor,
    rows: list[int],
    columns: list[int],
    geometry: list[int],
    call: int,
) -> Tensor:
    walk = Walk(*geometry)
    values = _Limits(*numbers.tolist())
    x = x.contiguous()
    built = kernels.library_for(x)
    if built is None or not packed.numel():
        keys = operations.key_of_call(stream[1:], call)
        return _by_torch(x, weights, scales, offsets, keys, stream[0], values, rows, columns, walk)
    out = x.new_empty(len(x), walk.out_height, walk.out_width, walk.groups * walk.columns)
    if not out.numel():
        return out
    first_image, *streams = stream.tolist()
    keys_of_call = [operations.key_of_call(key, call) for key in streams]
    layer = _Layer(
        *geometry,
        len(rows),
        len(columns),
        (ctypes.c_int64 * len(rows))(*rows),
        (ctypes.c_int64 * len(columns))(*columns),
        *(t.data_ptr() for t in (packed, row_places, scales, offsets)),
        (ctypes.c_uint64 * len(streams))(*keys_of_call),
        *values,
    )
    n = walk.inputs_an_image

    def run(first: int, count: int) -> int:
        a, b = x[first * n], out[first * n]
        pointer = ctypes.byref(layer)
        return int(built.arrays(pointer, a.data_ptr(), b.data_ptr(), count, first_image + first))

    kernels.share(run, len(x) // n)
    return out


def _by_torch(
    x: Tensor,
    weights: Tensor,
    scales: Tensor,
    offsets: Tensor,
    keys: Tensor,
    first_image: Tensor,
    values: _Limits,
    rows: list[int],
    columns: list[int],
    walk: Walk,
) -> Tensor:
    if values.input_range:
        x = (x / values.input_range).clamp(-1, 1)
    patches = F.unfold(
        x.movedim(-1, 1),
        (walk.kernel_height, walk.kernel_width),
        dilation=(walk.dilation_y, walk.dilation_x),
        padding=(walk.top, walk.left),
        stride=(walk.stride_y, walk.stride_x),
    )
    # (inputs, positions, groups, rows); weights: (groups, columns, rows)
    patches = patches.transpose(1, 2)
    patches = patches.reshape(*patches.shape[:2], walk.groups, -1)
    whole = weights.view(walk.groups, walk.columns, -1)
    shape = (*patches.shape[:3], walk.columns)
    total = offsets.view(walk.groups, walk.columns).expand(shape)
    for key, block, block_weights, scale in zip(
        keys,
        torch.split(patches, rows, dim=3),
        torch.split(whole, rows, dim=2),
        scales,
        strict=True,
    ):
        outputs = []
        for part in torch.split(torch.arange(walk.columns, device=x.device), columns):
            noise = partial(_noise, key, first_image, shape, walk, part)
            outputs.append(_multiply(block, block_weights[:, part], noise, values))
        total = total + torch.cat(outputs, dim=-1) * scale.view(walk.groups, -1)
    return total.reshape(len(x), walk.out_height, walk.out_width, -1)


def _noise(
    key: Tensor,
    first_image: Tensor,
    shape: tuple[int, ...],
    walk: Walk,
    part: Tensor,
    repeated: int,
) -> Tensor:
    n_images = shape[0] // walk.inputs_an_image
    of_an_image = (n_images, math.prod(shape) // n_images)
    round_key = operations.shifted(key, repeated * _NEXT_ROUND)
    drawn = operations.normals(round_key, first_image, of_an_image, part.device)
    return drawn.view(shape)[..., part]


def _multiply(x: Tensor, weights: Tensor, noise: "partial[Tensor]", values: _Limits) -> Tensor:
    """Products of one array in every group: x (..., groups, rows), weights (groups, columns, rows).

    Returns outputs in ADC steps, times what inputs were divided by.
    """
    largest = x.new_ones(*x.shape[:-1], 1)
    if not values.input_range:
        largest = x.abs().amax(dim=-1, keepdim=True)
    halving, repeated = torch.ones_like(largest), 0
    done = largest == 0
    out = x.new_zeros(*x.shape[:-1], weights.shape[1])
    while True:
        levels = x * (1 / largest / halving)
        if values.step:
            levels = (levels / values.step).round().clamp(-values.levels, values.levels)
        y = _noisy_product(levels, weights, noise, repeated, values)
        y = y.round() if values.rounds else y
        is_clipped = (y.abs() > values.largest_fit).any(dim=-1, keepdim=True)
        y = y.clamp(-values.output_levels, values.output_levels) * (largest * halving)
        out = torch.where(done, out, y)
        done = done | ~is_clipped
        if 2.0**repeated > values.most_halvings or bool(done.all()):
            return out
        repeated += 1
        halving = torch.where(done, halving, 2.0**repeated)


def _noisy_product(
    levels: Tensor, weights: Tensor, noise: "partial[Tensor]", repeated: int, values: _Limits
) -> Tensor:
    def times(inputs: Tensor, matrices: Tensor) -> Tensor:
        return torch.einsum("...gk,gck->...gc", inputs, matrices)

    y = times(levels, weights)
    if values.drop:
        n = weights.shape[-1]
        far = 1 - torch.arange(n, device=weights.device) / n
        a = values.current * n * times(levels.abs(), weights.abs())
        y = y - values.drop * (a * (a * (0.05 * a - 0.2) + 0.5)) * times(
            levels, weights * (1 - far * far)
        )
    variance = torch.full_like(y[..., :1], values.output_noise**2)
    if values.additive_variance:
        variance = variance + values.additive_variance * (levels**2).sum(dim=-1, keepdim=True)
    if values.read_variance:
        variance = variance + values.read_variance * times(levels**2, weights.abs())
    if values.output_noise or values.additive_variance or values.read_variance:
        y = y + variance.sqrt() * noise(repeated)
    return y


class _Layer(ctypes.Structure):
    _fields_ = [
        *((name, ctypes.c_int64) for name in Walk._fields),
        ("n_row_blocks", ctypes.c_int64),
        ("n_column_blocks", ctypes.c_int64),
        ("row_blocks", ctypes.POINTER(ctypes.c_int64)),
        ("column_blocks", ctypes.POINTER(ctypes.c_int64)),
        *((name, ctypes.c_void_p) for name in ("weights", "places", "scales", "offsets")),
        ("keys", ctypes.POINTER(ctypes.c_uint64)),
        *((name, ctypes.c_float) for name in _Limits._fields),
    ]


_operation = torch.library.custom_op("analog_samson::arrays", _through, mutates_args=())


@_operation.register_fake
def _(
    x: Tensor,
    weights: Tensor,
    packed: Tensor,
    row_places: Tensor,
    scales: Tensor,
    offsets: Tensor,
    stream: Tensor,
    numbers: Tensor,
    rows: list[int],
    columns: list[int],
    geometry: list[int],
    call: int,
) -> Tensor:
    walk = Walk(*geometry)
    return x.new_empty(len(x), walk.out_height, walk.out_width, walk.groups * walk.columns)
