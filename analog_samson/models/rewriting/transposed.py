"""Transposed convolutions: zeros between the inputs, then a convolution with the turned kernel.

Dumoulin and Visin, "A guide to convolution arithmetic for deep learning", arXiv:1603.07285 (2016),
section 4.
"""

from collections import OrderedDict
from collections.abc import Sequence
from typing import cast

from torch import Tensor, nn
from torch.nn import functional as F

from analog_samson.models.rewriting.convolution import convolution


def zeros_inserted(layer: nn.ConvTranspose1d | nn.ConvTranspose2d) -> nn.Module:
    """Rewrite a transposed convolution as `zeros` and `conv` in a row.

    Called with `output_size` it cannot be rewritten; `output_padding` is equivalent.
    """
    weight, groups = layer.weight, layer.groups  # (inputs, outputs / groups, kernel)
    kernel = weight.shape[2:]
    flipped = weight.flip(tuple(range(2, weight.ndim)))
    per_group = flipped.reshape(groups, -1, *weight.shape[1:])
    turned = per_group.transpose(1, 2).flatten(0, 1)  # (outputs, inputs / groups, kernel)
    reach = [d * (k - 1) for d, k in zip(layer.dilation, kernel, strict=True)]
    padding = cast(tuple[int, ...], layer.padding)  # never a string here
    sides = [
        (r - p, r - p + extra)
        for r, p, extra in zip(reach, padding, layer.output_padding, strict=True)
    ]
    conv = convolution(
        turned, layer.bias, stride=(1,) * len(kernel), dilation=layer.dilation, groups=groups
    )
    return nn.Sequential(OrderedDict(zeros=_Zeros(layer.stride, sides), conv=conv))


class _Zeros(nn.Module):
    """Zeros between the pixels of images and around them.

    Args:
        stride: Distance of the pixels afterwards, one number a dimension.
        sides: Zeros before and after each dimension; negative: so many pixels are cut off.
    """

    def __init__(self, stride: Sequence[int], sides: Sequence[tuple[int, int]]) -> None:
        super().__init__()
        self.stride = tuple(stride)
        # stride - 1 zeros also follow the last pixel of each dimension
        cut = [(before, after - s + 1) for s, (before, after) in zip(stride, sides, strict=True)]
        self.sides = tuple(pixels for side in reversed(cut) for pixels in side)

    def forward(self, x: Tensor) -> Tensor:
        """Images of shape (..., length) or (..., height, width)."""
        if len(self.stride) == 1:
            spread = F.pad(x.unsqueeze(-1), (0, self.stride[0] - 1)).flatten(-2)
        else:
            down, right = self.stride
            apart = F.pad(x.unsqueeze(-1).unsqueeze(-3), (0, right - 1, 0, 0, 0, down - 1))
            spread = apart.flatten(-2).flatten(-3, -2)
        return F.pad(spread, self.sides)

    def extra_repr(self) -> str:
        """The stride and the zeros around."""
        return f"stride={self.stride}, sides={self.sides}"
