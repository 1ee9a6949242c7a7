"""The periphery in torch operations: on GPUs, and on CPUs without a C compiler.

Random integers are the same as in C; floating-point results differ in the last bits. Nothing here
synchronises with a GPU. On a GPU, and within a traced network, the noise is one kernel, compiled
once for all layers, instead of about a hundred operations per layer.
"""

import functools
import logging
import math
from collections.abc import Callable
from typing import Any, NamedTuple, TypeVar

import torch
from torch import Tensor

_WORD = 0xFFFFFFFF

Key = TypeVar("Key", int, Tensor)

_log = logging.getLogger(__name__)


def dac(x: Tensor, gain: Tensor, levels: int, rounds: bool) -> Tensor:
    """Convert inputs to DAC levels, as ``kernels.dac``."""
    x = x * gain
    return (x.round() if rounds else x).clamp(-levels, levels)


class Converter(NamedTuple):
    """Steps from the product of a row block to its outputs: noise, ADC, scale; in ADC steps.

    Attributes:
        scale: Model units per step, shape (channels,); of several chips (chips, channels).
        offset: Added to the result, shape of scale.
        noise_and_bound: Standard deviation of the noise, and largest output (may be infinite).
        rounds: Whether there is an ADC.
        draws: Whether there is noise.
        innermost: Whether channels are the last dimension of products.
    """

    scale: Tensor
    offset: Tensor
    noise_and_bound: Tensor
    rounds: bool
    draws: bool
    innermost: bool


def adc(
    y: Tensor, previous: Tensor | None, how: Converter, keys: Tensor, first_image: Tensor
) -> Tensor:
    """Add noise to the products of arrays of several chips, round, clip and scale them.

    Args:
        y: As for ``kernels.adc``; images of all chips, chip after chip.
        previous: Added to the result, shape of y; or None.
        how: Converters of all chips.
        keys: Random key of the noise of each chip, int64, shape (chips,).
        first_image: Index of the first image in the whole set, for all chips, shape ().

    Returns:
        Outputs, shape of y.
    """
    scale, offset, limits, rounds, draws, innermost = how
    n_chips, n_channels = scale.shape
    outputs = y.view(n_chips, len(y) // n_chips, -1)
    n_inner = 1 if innermost else y.shape[2]
    n_times = outputs.shape[2] // n_channels // n_inner
    scale, offset = (
        each.repeat(1, n_times).repeat_interleave(n_inner, dim=1) for each in (scale, offset)
    )
    is_one_kernel = draws and (torch.compiler.is_compiling() or y.device.type == "cuda")
    steps: Callable[..., Tensor] = convert_operation if is_one_kernel else convert
    out = steps(outputs, scale, offset, keys, first_image, limits, rounds, draws).view_as(y)
    return out if previous is None else out + previous


def convert(
    y: Tensor,
    scale: Tensor,
    offset: Tensor,
    keys: Tensor,
    first_image: Tensor,
    noise_and_bound: Tensor,
    rounds: bool,
    draws: bool,
) -> Tensor:
    """The same for flat outputs, shape (chips, images, n); scale and offset (chips, n)."""
    noise, levels = noise_and_bound.unbind()
    if draws:
        y = y + noise * normals(keys[:, None, None], first_image, y.shape[1:], y.device)
    y = (y.round() if rounds else y).clamp(-levels, levels)
    return y * scale[:, None] + offset[:, None]


@functools.cache
def fused_for(where: torch.device) -> Callable[..., Tensor]:
    """The same as one kernel for all shapes; falls back to eager execution."""
    fused = torch.compile(convert, dynamic=True, options={"compile_threads": 1})
    y = torch.ones(2, 4, 8, device=where)  # sizes of 1 would get separate kernels
    keys, limits = torch.arange(2, device=where), torch.ones(2, device=where)
    try:
        fused(y, y[:, 0], y[:, 1], keys, keys[0].clone(), limits, True, True)
    except RuntimeError as error:
        _log.warning("No kernel for the noise can be built; falling back to eager: %s", error)
        return convert
    return fused


@torch.library.custom_op("analog_samson::convert", mutates_args=())
@functools.wraps(convert)  # the operation has the same arguments
def convert_operation(y: Any, scale: Any, offset: Any, keys: Any, first: Any, *how: Any) -> Any:
    """As :func:`convert`, as one kernel."""
    # clone: for a view, torch.compile would also depend on the shape of its base
    return fused_for(y.device)(y, scale, offset, keys, first.clone(), *how)


convert_operation.register_fake(lambda y, *others: torch.empty_like(y))


def key_of_call(key: Key, call: int) -> Key:
    """Key of the noise for use number ``call`` of a layer in one forward pass."""
    return shifted(key, call * 0x9E3779B97F4A7C15)  # the golden ratio: far from other keys


def shifted(key: Key, by: int) -> Key:
    """Add to a key, modulo 2^64 as in a tensor of int64."""
    return key + ((by + 2**63) % 2**64 - 2**63)


def normals(
    key: int | Tensor,
    first_image: int | Tensor,
    shape: torch.Size | tuple[int, ...],
    where: torch.device,
) -> Tensor:
    """Draw the standard normals of a block of images.

    Args:
        key: Random key, 64 bits; or one per chip, int64, shape (chips, 1, 1).
        first_image: Index of the first image.
        shape: (images, ...).
        where: Accelerator to draw on.

    Returns:
        Normals, float32, shape ``shape`` or (chips, *shape). Each depends only on the key, the
        index of the image and the index within the image.
    """
    n_images, n = shape[0], math.prod(shape[1:])
    half = (n + 1) // 2
    counter = torch.arange(half, device=where)
    image = (torch.arange(n_images, device=where) + first_image)[:, None]
    word0, word1 = threefry2x32(key, counter, image)
    uniform = (word0 >> 1).float() * 2.0**-31 + 2.0**-32
    turn = (word1 - ((word1 >> 31) << 32)).float() * (math.pi * 2.0**-31)
    radius = (-2.0 * uniform.log()).sqrt()
    both = torch.cat([radius * turn.cos(), radius * turn.sin()], dim=-1)
    return both[..., :n].reshape(*both.shape[:-2], *shape)


def threefry2x32(key: int | Tensor, counter0: Tensor, counter1: Tensor) -> tuple[Tensor, Tensor]:
    """Threefry2x32 with 20 rounds on 32-bit words held in int64 tensors, which broadcast."""
    keys = [key & _WORD, key >> 32 & _WORD]
    keys.append(0x1BD11BDA ^ keys[0] ^ keys[1])
    rotations = (13, 15, 26, 6), (17, 29, 16, 24)
    x0, x1 = (counter0 + keys[0]) & _WORD, (counter1 + keys[1]) & _WORD
    for group in range(5):
        for bits in rotations[group % 2]:
            x0 = (x0 + x1) & _WORD
            x1 = ((x1 << bits) | (x1 >> (32 - bits))) & _WORD ^ x0
        x0 = (x0 + keys[(group + 1) % 3]) & _WORD
        x1 = (x1 + keys[(group + 2) % 3] + group + 1) & _WORD
    return x0, x1
