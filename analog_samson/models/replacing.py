"""Replacement of modules of a network, wherever they are registered."""

from collections.abc import Mapping

from torch import nn


def replace_everywhere(network: nn.Module, replacements: Mapping[int, nn.Module]) -> nn.Module:
    """Replace modules wherever they are registered, so that shared layers stay shared.

    The fast path of torch's transformer encoders is disabled: it reads the weights of linear
    layers without calling their forward.

    Args:
        network: The network, changed in place.
        replacements: {`id` of a module: its replacement}.

    Returns:
        The network, or its replacement.

    Example:
        >>> old = nn.ReLU()
        >>> network = nn.Sequential(nn.Linear(2, 2), old, nn.Linear(2, 2), old)
        >>> replace_everywhere(network, {id(old): nn.Tanh()})
        Sequential(
          (0): Linear(in_features=2, out_features=2, bias=True)
          (1): Tanh()
          (2): Linear(in_features=2, out_features=2, bias=True)
          (3): Tanh()
        )
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
