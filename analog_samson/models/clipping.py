"""Clipping a network's analog weights before they are mapped, so that outliers set no scale."""

import copy
from collections.abc import Sequence

import torch
from torch import nn

from analog_samson.models.auditing import analog_layers


@torch.no_grad()
def clipped(
    network: nn.Module,
    quantile: float,
    *,
    columnwise: bool,
    keep_digital: Sequence[str] = (),
) -> nn.Module:
    """Clip every analog weight to a quantile of the magnitudes around it.

    Args:
        network: The network; left unchanged.
        quantile: Share of the magnitudes that stays, in (0, 1]; 1 clips nothing.
        columnwise: Whether the quantile is taken in every output column, or in the whole layer.
        keep_digital: Layers whose weights stay as they are.

    Returns:
        A copy with clipped weights.
    """
    network = copy.deepcopy(network)
    for layer in analog_layers(network, keep_digital).values():
        weight = layer.weight
        if not isinstance(weight, torch.Tensor):
            continue
        rows = weight.abs().reshape(len(weight) if columnwise else 1, -1)
        # torch.quantile refuses large tensors; the k-th smallest magnitude needs no interpolation
        k = max(1, round(quantile * rows.shape[1]))
        bound = rows.kthvalue(k, dim=1).values.reshape(-1, *[1] * (weight.ndim - 1))
        weight.copy_(weight.clamp(min=-bound, max=bound))
    return network
