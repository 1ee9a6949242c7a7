"""Apply a rule within a `with` block and restore the weights afterwards."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from types import MappingProxyType

import torch
from torch import Tensor, nn

from analog_samson.algorithm import Tensors

Rule = Callable[[Tensors, Tensors], Tensors]


@contextmanager
def perturbed(model: nn.Module, rule: Rule, *, freeze_batch_norm: bool = True) -> Iterator[None]:
    """Set the weights of a network to weight + offset within a `with` block.

    >>> from functools import partial
    >>> from analog_samson.perturbation import samson
    >>> model, x = nn.Linear(4, 2), torch.rand(8, 4)
    >>> optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    >>> model(x).square().sum().backward()  # gradients for the rule
    >>> with perturbed(model, partial(samson, rho=0.5)):
    ...     optimizer.zero_grad()
    ...     model(x).square().sum().backward()  # gradients at the perturbed weights
    >>> optimizer.step()  # the weights are back, bit for bit

    Works with every optimizer, with gradient accumulation and under autocast (whose cache of cast
    weights is cleared before and after the block).

    Args:
        model: Network whose trainable parameters are perturbed in place.
        rule: Maps ({name: weight}, {name: gradient}) to {name: offset}; it must not change either.
        freeze_batch_norm: Whether running statistics are restored after the block. Use True if a
            clean pass has updated them. With a rule that needs no clean pass (`rwp`) use False, and
            recompute the statistics before validation (`torch.optim.swa_utils.update_bn`).

    Raises:
        ValueError: If the rule returns an unknown name or a wrong shape.
    """
    parameters = {n: p for n, p in model.named_parameters() if p.requires_grad}
    with offset_by(rule, parameters), frozen_batch_norm(model, frozen=freeze_batch_norm):
        yield


@contextmanager
def offset_by(rule: Rule, parameters: Mapping[str, nn.Parameter]) -> Iterator[None]:
    """Set parameters to parameter + offset within a block, as :func:`perturbed`.

    Args:
        rule: As for :func:`perturbed`.
        parameters: The parameters by name; their gradients are given to the rule.

    Raises:
        ValueError: If the rule returns an unknown name or a wrong shape.
    """
    with torch.no_grad():
        offsets = rule(
            MappingProxyType({name: p.detach() for name, p in parameters.items()}),
            MappingProxyType(
                {name: p.grad.detach() for name, p in parameters.items() if p.grad is not None}
            ),
        )
    for name, offset in offsets.items():
        if name not in parameters or offset.shape != parameters[name].shape:
            raise ValueError(
                f"The rule gave an offset {name!r} of shape {tuple(offset.shape)}; allowed are the "
                "names and shapes of the model's trainable parameters."
            )
    moved = [parameters[name].detach() for name in offsets]
    saved = [weight.clone() for weight in moved]
    torch.clear_autocast_cache()
    try:
        if moved:
            torch._foreach_add_(moved, list(offsets.values()))
        yield
    finally:
        if moved:
            torch._foreach_copy_(moved, saved)
        torch.clear_autocast_cache()


@contextmanager
def frozen_batch_norm(model: nn.Module, *, frozen: bool = True) -> Iterator[None]:
    """Restore running statistics after a block in which layers in training mode update them.

    Args:
        model: Network, with or without batch or instance normalisation.
        frozen: Whether to restore; False does nothing.

    Example:
        >>> layer = nn.BatchNorm1d(1)
        >>> with frozen_batch_norm(layer):
        ...     outputs = layer(torch.tensor([[2.0], [4.0]]))
        >>> layer.running_mean
        tensor([0.])
    """
    buffers = [
        buffer
        for module in model.modules()
        if frozen and isinstance(module, nn.modules.batchnorm._NormBase) and module.training
        for buffer in module.buffers(recurse=False)
    ]
    saved = [buffer.clone() for buffer in buffers]
    try:
        yield
    finally:
        for buffer, copy in zip(buffers, saved, strict=True):
            buffer.detach().copy_(copy)


def random_states(kinds: Iterable[str]) -> dict[str, Tensor]:
    """States of torch's generators by kind of device, which dropout draws from.

    Example:
        >>> states = random_states(["cpu"])
        >>> first = torch.rand(3)
        >>> set_random_states(states)
        >>> torch.equal(first, torch.rand(3))
        True
    """
    return {
        kind: torch.cuda.get_rng_state() if kind == "cuda" else torch.get_rng_state()
        for kind in kinds
    }


def set_random_states(states: Mapping[str, Tensor]) -> None:
    """Set the generators to the states of `random_states`: the next pass has the same dropout.

    Example:
        >>> states = random_states(["cpu"])
        >>> first = torch.rand(3)
        >>> set_random_states(states)
        >>> torch.equal(first, torch.rand(3))
        True
    """
    for kind, state in states.items():
        if kind == "cuda":
            torch.cuda.set_rng_state(state)
        else:
            torch.set_rng_state(state)
