"""Clipping of analog weights before mapping, so that outliers do not determine the scale."""

from collections.abc import Sequence

import torch
from torch import nn

from analog_samson.models.auditing import analog_layers
from analog_samson.models.replacing import with_plain_weights


@torch.no_grad()
def clipped(
    network: nn.Module,
    quantile: float,
    *,
    columnwise: bool,
    keep_digital: Sequence[str] = (),
) -> nn.Module:
    """Clip analog weights to a quantile of their magnitudes.

    Args:
        network: The network; not changed.
        quantile: Quantile of the magnitudes, in (0, 1]; 1 does not clip.
        columnwise: Whether the quantile is per output column; False: per layer.
        keep_digital: Layers whose weights are not clipped.

    Returns:
        A copy with clipped weights.

    Example:
        >>> layer = nn.Linear(4, 1, bias=False)
        >>> weight = layer.weight.detach().copy_(torch.tensor([1.0, 2.0, 3.0, 100.0]))
        >>> clipped(nn.Sequential(layer), 0.75, columnwise=False)[0].weight.tolist()
        [[1.0, 2.0, 3.0, 3.0]]
    """
    network = with_plain_weights(network)
    for layer in analog_layers(network, keep_digital).values():
        weight = layer.weight
        if not isinstance(weight, torch.Tensor):
            continue
        rows = weight.abs().reshape(len(weight) if columnwise else 1, -1)
        # torch.quantile does not accept large tensors; kthvalue does
        k = max(1, round(quantile * rows.shape[1]))
        bound = rows.kthvalue(k, dim=1).values.reshape(-1, *[1] * (weight.ndim - 1))
        weight.copy_(weight.clamp(min=-bound, max=bound))
    return network
