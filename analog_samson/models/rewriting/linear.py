"""A linear layer of given weights."""

from typing import Any

from torch import Tensor, nn


def linear(weight: Tensor, bias: Tensor | None) -> nn.Linear:
    """Make a linear layer with copies of weights.

    Args:
        weight: Shape (outputs, inputs).
        bias: Shape (outputs,); None: none.

    Returns:
        The layer; no random number is drawn.
    """
    uninitialised: Any = nn.utils.skip_init  # torch has no types for it
    layer: nn.Linear = uninitialised(
        nn.Linear,
        weight.shape[1],
        weight.shape[0],
        bias=bias is not None,
        device=weight.device,
        dtype=weight.dtype,
    )
    layer.weight = nn.Parameter(weight.detach().clone())
    if bias is not None:
        layer.bias = nn.Parameter(bias.detach().clone())
    return layer
