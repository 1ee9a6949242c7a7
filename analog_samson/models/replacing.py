"""Replacement of modules of a network, wherever they are registered."""

import copy
from collections.abc import Mapping

import torch
from torch import nn
from torch.nn.utils import parametrize


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


@torch.no_grad()
def with_plain_weights(network: nn.Module) -> nn.Module:
    """Copy a network, with weights that parametrisations compute as parameters.

    In such a copy a weight can be changed; in place of a computed one a temporary tensor would be.

    Args:
        network: Any network; not changed.

    Returns:
        The copy; layers keep their names.

    Example:
        >>> layer = torch.nn.utils.parametrizations.weight_norm(nn.Linear(2, 2))
        >>> sorted(name for name, _ in with_plain_weights(nn.Sequential(layer)).named_parameters())
        ['0.bias', '0.weight']
    """
    memo = {
        id(module): _plain(module)
        for module in network.modules()
        if parametrize.is_parametrized(module)
    }
    return copy.deepcopy(network, memo)


def _plain(module: nn.Module) -> nn.Module:
    # remove_parametrizations would change the class, which copies share with the network
    kind: type[nn.Module] = parametrize.type_before_parametrizations(module)
    plain = kind.__new__(kind)
    plain.__dict__.update(copy.deepcopy(module).__dict__)
    computed = plain._modules.pop("parametrizations")
    assert isinstance(computed, nn.ModuleDict)  # a parametrised module has them
    for name in computed:
        plain.register_parameter(name, nn.Parameter(getattr(module, name).detach().clone()))
    return plain
