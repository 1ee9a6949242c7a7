"""Networks with few channels, such as LeNet-5: convolution and pooling in C, channels outermost.

Torch's kernels vectorise over channels; ``few_channels.c`` vectorises over pixels. The order of
summation does not depend on the batch size. Speed-ups: ``docs/MEASUREMENTS.md``.
"""

from collections.abc import Iterable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from analog_samson.compiled import kernels

MOST_INPUTS, MOST_OUTPUTS = 4, 16
"""Largest numbers of channels for which the C kernel is used: our choice. Up to these it was
faster than torch's (AVX-512)."""

MANY_CHANNELS = 16
"""Input channels or features from which bf16 and channels-last layout are faster: our choice."""


def has_few_channels(shapes: Iterable[torch.Size]) -> bool:
    """Whether all two-dimensional convolutions of a network have few channels.

    Args:
        shapes: Shapes of the weights of its layers. False if there is no 4-d weight.
    """
    kernels_2d = [shape for shape in shapes if len(shape) == 4]
    return bool(kernels_2d) and all(
        n_out <= MANY_CHANNELS and n_in < MANY_CHANNELS / 2 for n_out, n_in, *_ in kernels_2d
    )


def is_faster(shape: torch.Size, geometry: tuple[tuple[int, ...], ...]) -> bool:
    """Whether a two-dimensional convolution can run here and is faster than torch's.

    Args:
        shape: Shape of its weights: (outputs, inputs, height, width).
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
        return F.conv2d(x, weight, bias, padding=padding)  # its error states why
    out = x.new_empty(n_images, n_out, *size)
    side = built.few_channels_side()
    packed = F.pad(weight.flatten(1), (0, 0, 0, -n_out % side))
    packed = packed.view(-1, side, packed.shape[1]).transpose(1, 2).contiguous()

    def run(first: int, count: int) -> int:
        return int(
            built.few_channels(
                *(x[first].data_ptr(), packed.data_ptr(), 0 if bias is None else bias.data_ptr()),
                *(out[first].data_ptr(), count, n_in, height, width, n_out),
                *(kernel_height, kernel_width, *padding),
            )
        )

    kernels.share(run, n_images)
    return out


class MaxPool2x2(nn.Module):
    """``torch.nn.MaxPool2d(2)``, with the same results."""

    def forward(self, x: Tensor) -> Tensor:
        """Pool images, shape (n, channels, height, width) to (n, channels, height/2, width/2)."""
        built = None if torch.compiler.is_compiling() else kernels.library_for(x)
        n_images, planes, height, width = x.shape
        if built is None or height % 2 or width % 2 or not x.is_contiguous():
            return F.max_pool2d(x, 2)
        out = x.new_empty(n_images, planes, height // 2, width // 2)

        def run(first: int, count: int) -> int:
            pointers = x[first].data_ptr(), out[first].data_ptr()
            return int(built.max_pool_2x2(*pointers, count, planes, *out.shape[2:]))

        if out.numel():
            kernels.share(run, n_images)
        return out


def max_pools(network: nn.Module) -> dict[int, nn.Module]:
    """Replacements of all ``MaxPool2d(2)`` of a network: {id of the module: new module}."""
    return {id(module): MaxPool2x2() for module in network.modules() if _is_max_pool_2x2(module)}


def _is_max_pool_2x2(module: nn.Module) -> bool:
    if not isinstance(module, nn.MaxPool2d) or module.ceil_mode or module.return_indices:
        return False
    geometry = module.kernel_size, module.stride, module.padding, module.dilation
    wanted = zip(geometry, (2, 2, 0, 1), strict=True)
    return all(value in (number, (number, number)) for value, number in wanted)
