"""A convolution of given weights."""

from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn


def convolution(
    weight: Tensor,
    bias: Tensor | None,
    *,
    stride: Sequence[int],
    dilation: Sequence[int],
    groups: int,
    padding: Sequence[int] | int = 0,
) -> nn.Conv1d | nn.Conv2d:
    """Make a convolution with copies of weights.

    Args:
        weight: Shape (outputs, inputs / groups, kernel), kernel of one or two dimensions.
        bias: Shape (outputs,); None: none.
        stride: One number a dimension, as of `nn.Conv2d`; likewise the dilation.
        dilation: See `stride`.
        groups: Groups of inputs and outputs.
        padding: Zeros on both sides of each dimension.

    Returns:
        The layer; no random number is drawn.
    """
    uninitialised: Any = nn.utils.skip_init  # torch has no types for it
    layer: nn.Conv1d | nn.Conv2d = uninitialised(
        {3: nn.Conv1d, 4: nn.Conv2d}[weight.ndim],
        groups * weight.shape[1],
        weight.shape[0],
        tuple(weight.shape[2:]),
        stride=tuple(stride),
        padding=padding,
        dilation=tuple(dilation),
        groups=groups,
        bias=bias is not None,
        device=weight.device,
        dtype=weight.dtype,
    )
    layer.weight = nn.Parameter(weight.detach().clone())
    if bias is not None:
        layer.bias = nn.Parameter(bias.detach().clone())
    return layer
