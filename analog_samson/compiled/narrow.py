"""Convolutions of images with few channels (a first layer): in C, vectors over pixels.

Torch's kernels fill vectors with channels. Where there are one to four, ``narrow.c`` is two to four
times as fast on CPUs; channels are outermost in memory. Sums run in one order whatever the batch.
"""

import torch
from torch import Tensor
from torch.nn import functional as F

from analog_samson.compiled import kernels

MOST_INPUTS, MOST_OUTPUTS = 4, 16
"""Channels up to which the C kernel is faster than torch's (measured, AVX-512): our choice."""


def suits(shape: torch.Size, geometry: tuple[tuple[int, ...], ...]) -> bool:
    """Say whether a two-dimensional convolution can run here and is faster.

    Args:
        shape: Of its weights: (outputs, inputs, height, width).
        geometry: Its stride, padding and dilation.
    """
    if len(shape) != 4 or shape[1] > MOST_INPUTS or shape[0] > MOST_OUTPUTS:
        return False
    stride, _, dilation = geometry
    return set(stride) == {1} and set(dilation) == {1}


def convolve(x: Tensor, weight: Tensor, bias: Tensor | None, padding: tuple[int, int]) -> Tensor:
    """Convolve with stride 1 and one group, as ``torch.nn.functional.conv2d``.

    Args:
        x: Inputs, shape (n, inputs, height, width).
        weight: Shape (outputs, inputs, kernel height, kernel width).
        bias: Shape (outputs,), or None.
        padding: Zeros around the image.

    Returns:
        Outputs, channels outermost.
    """
    built = None if torch.compiler.is_compiling() else kernels.library_for(x)
    if built is None or not x.is_contiguous():
        return F.conv2d(x, weight, bias, padding=padding)
    n_images, n_in, height, width = x.shape
    n_out, _, kernel_height, kernel_width = weight.shape
    size = height + 2 * padding[0] - kernel_height + 1, width + 2 * padding[1] - kernel_width + 1
    if min(size) < 1:
        return F.conv2d(x, weight, bias, padding=padding)  # its error says why
    out = x.new_empty(n_images, n_out, *size)
    side = built.narrow_side()
    packed = F.pad(weight.flatten(1), (0, 0, 0, -n_out % side))
    packed = packed.view(-1, side, packed.shape[1]).transpose(1, 2).contiguous()

    def run(first: int, count: int) -> int:
        return int(
            built.narrow(
                *(x[first].data_ptr(), packed.data_ptr(), 0 if bias is None else bias.data_ptr()),
                *(out[first].data_ptr(), count, n_in, height, width, n_out),
                *(kernel_height, kernel_width, *padding),
            )
        )

    kernels.share(run, n_images)
    return out
