"""Modules of a network replaced by others, at every place that holds them."""

from collections.abc import Mapping

from torch import nn


def replace_everywhere(network: nn.Module, replacements: Mapping[int, nn.Module]) -> nn.Module:
    """Replace modules at every place that holds them, so that shared layers stay shared.

    Torch's transformer encoders are told not to take their fast path: it reads the weights of their
    linear layers past the layers' forward.

    Args:
        network: The network, changed in place.
        replacements: `id` of a module to what takes its place.

    Returns:
        The network, or what replaces it.
    """
    if id(network) in replacements:
        return replacements[id(network)]
    for module in list(network.modules()):
        if isinstance(module, nn.TransformerEncoderLayer):
            module.activation_relu_or_gelu = 0
        elif isinstance(module, nn.TransformerEncoder):
            module.use_nested_tensor = False
        for name, child in list(module._modules.items()):
            if id(child) in replacements:
                module._modules[name] = replacements[id(child)]
    return network
