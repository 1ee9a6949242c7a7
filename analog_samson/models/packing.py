"""Several inputs of a network as one tensor: their numbers in a row."""

import math
import re
from collections.abc import Mapping, Sequence
from typing import Any, Self

import torch
from torch import Tensor, nn

_SHAPE = re.compile(r"[1-9]\d*(x[1-9]\d*)*")


class Packing:
    """The inputs of a network by name, and a hook that takes them out of one tensor.

    Args:
        shapes: {name of an argument: shape of one sample}; names "0", "1", ... are positions.
    """

    def __init__(self, shapes: Mapping[str, Sequence[int]]) -> None:
        self.shapes = {name: tuple(shape) for name, shape in shapes.items()}
        self.sizes = [math.prod(shape) for shape in self.shapes.values()]

    @classmethod
    def of(cls, inputs: Mapping[str, Tensor] | Sequence[Tensor]) -> Self:
        """The packing of given inputs, each of shape (n, ...)."""
        return cls({name: tensor.shape[1:] for name, tensor in _named(inputs).items()})

    @classmethod
    def read(cls, given: Mapping[str, str] | Sequence[tuple[str, str]]) -> Self:
        """The packing of shapes as text, {"image": "3x32x32", "speed": "5"} or pairs of these.

        Raises:
            ValueError: If a shape is none, or there is one input only.
        """
        try:
            shapes = dict(given)
        except (TypeError, ValueError):
            shapes = {"": ""}
        is_read = all(
            isinstance(name, str) and isinstance(shape, str) and _SHAPE.fullmatch(shape)
            for name, shape in shapes.items()
        )
        if not is_read or len(shapes) == 1:
            raise ValueError(
                "inputs gives the shapes of two or more inputs by the names of forward's arguments "
                "(or their positions), {'image': '3x32x32', 'speed': '5'}, or is empty for a "
                f"network of one; got {given!r}."
            )
        return cls({name: tuple(map(int, shape.split("x"))) for name, shape in shapes.items()})

    def written(self) -> tuple[tuple[str, str], ...]:
        """What `read` reads, in order."""
        return tuple((name, "x".join(map(str, shape))) for name, shape in self.shapes.items())

    def pack(self, inputs: Any) -> Tensor:
        """Several inputs as one tensor, shape (n, numbers of all).

        Raises:
            ValueError: If they are not those of the network, or not of real numbers.
        """
        named = _named(inputs)
        is_fit = named.keys() == self.shapes.keys() and all(
            isinstance(tensor, Tensor)
            and tensor.shape[1:] == self.shapes[name]
            and tensor.is_floating_point()
            for name, tensor in named.items()
        )
        if not is_fit or len({len(tensor) for tensor in named.values()}) != 1:
            raise ValueError(
                f"The network takes {self}, floating-point tensors of as many samples each; got "
                f"{ {name: tuple(getattr(t, 'shape', ())) for name, t in named.items()} }."
            )
        return torch.cat([named[name].flatten(1).float() for name in self.shapes], dim=1)

    def __call__(self, module: nn.Module, args: Any, kwargs: Any) -> Any:
        """The hook: one tensor becomes the arguments of the network."""
        (x,) = args
        n_given, n_taken = x[:1].numel(), sum(self.sizes)
        if n_given != n_taken and len(x):
            raise ValueError(f"a sample holds {n_given} numbers, and the {self} take {n_taken}")
        parts = dict(zip(self.shapes, x.flatten(1).split(self.sizes, dim=1), strict=True))
        found = {name: part.reshape(-1, *self.shapes[name]) for name, part in parts.items()}
        by_position = tuple(found.pop(name) for name in self.shapes if name.isdigit())
        return by_position, found

    def __str__(self) -> str:
        """Names and shapes, for messages."""
        return "inputs " + ", ".join(f"{name!r} {shape}" for name, shape in self.shapes.items())


def take_packed(network: nn.Module, packing: Packing | None) -> nn.Module:
    """Make a network of several inputs take one tensor, in place; None: it takes one."""
    if packing is not None:
        network.register_forward_pre_hook(packing, with_kwargs=True)
    return network


def packing_of(network: nn.Module) -> Packing | None:
    """How a network takes several inputs; None if it takes one."""
    hooks = network._forward_pre_hooks.values()
    return next((hook for hook in hooks if isinstance(hook, Packing)), None)


def _named(inputs: Any) -> dict[str, Any]:
    if isinstance(inputs, Mapping):
        return dict(inputs)
    return {str(position): tensor for position, tensor in enumerate(inputs)}
