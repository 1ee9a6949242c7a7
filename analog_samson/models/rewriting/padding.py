"""Convolutions whose padding is no number of zeros: padded digitally, then convolved."""

from collections import OrderedDict
from collections.abc import Mapping
from typing import Any

from torch import nn

from analog_samson.models.rewriting.convolution import convolution

_PADS: Mapping[tuple[str, int], Any] = {
    ("zeros", 1): nn.ZeroPad1d,
    ("zeros", 2): nn.ZeroPad2d,
    ("reflect", 1): nn.ReflectionPad1d,
    ("reflect", 2): nn.ReflectionPad2d,
    ("replicate", 1): nn.ReplicationPad1d,
    ("replicate", 2): nn.ReplicationPad2d,
    ("circular", 1): nn.CircularPad1d,
    ("circular", 2): nn.CircularPad2d,
}


def padded_digitally(layer: nn.Conv1d | nn.Conv2d) -> nn.Module | None:
    """Rewrite padding "same" or "valid", and the padding modes other than zeros.

    Returns:
        A plain convolution where the padding is a number of zeros, else `pad` and `conv` in a row;
        None for a convolution that is plain already.
    """
    if layer.padding_mode == "zeros" and not isinstance(layer.padding, str):
        return None
    sides = _sides(layer)
    same = {"stride": layer.stride, "dilation": layer.dilation, "groups": layer.groups}
    if layer.padding_mode == "zeros" and all(before == after for before, after in sides):
        padding = tuple(before for before, _ in sides)
        return convolution(layer.weight, layer.bias, padding=padding, **same)  # type: ignore[arg-type]
    pad = _PADS[layer.padding_mode, len(sides)]
    flat = tuple(pixels for side in reversed(sides) for pixels in side)  # the last dimension first
    plain = convolution(layer.weight, layer.bias, **same)  # type: ignore[arg-type]
    return nn.Sequential(OrderedDict(pad=pad(flat), conv=plain))


def _sides(layer: nn.Conv1d | nn.Conv2d) -> list[tuple[int, int]]:
    """Pixels before and after each dimension; torch puts the odd one of "same" after."""
    if layer.padding == "valid":
        return [(0, 0)] * len(layer.kernel_size)
    if layer.padding == "same":
        totals = [d * (k - 1) for d, k in zip(layer.dilation, layer.kernel_size, strict=True)]
        return [(total // 2, total - total // 2) for total in totals]
    return [(int(pixels), int(pixels)) for pixels in layer.padding]
