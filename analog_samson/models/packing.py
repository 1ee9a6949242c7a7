"""Several inputs of a network as one tensor: their numbers in a row."""

import math
import re
from collections.abc import Mapping, Sequence
from typing import Any, Self

import torch
from torch import Tensor, nn

_SHAPE = re.compile(r"([1-9]\d*(?:x[1-9]\d*)*)(?: of ([1-9]\d*))?")

MOST_TOKENS = 2**24
"""Largest vocabulary beside real inputs: fp32 holds whole numbers up to here."""


class Packing:
    """The inputs of a network by name, and a hook that takes them out of one tensor.

    Args:
        shapes: {name of an argument: shape of one sample}; names "0", "1", ... are positions.
        n_tokens: {name: size of the vocabulary} of inputs that are tokens; others are real.

    Example:
        >>> packing = Packing({"image": (3, 8, 8), "words": (16,)}, n_tokens={"words": 500})
        >>> inputs = {"image": torch.rand(2, 3, 8, 8), "words": torch.randint(500, (2, 16))}
        >>> packing.pack(inputs).shape
        torch.Size([2, 208])
    """

    def __init__(
        self, shapes: Mapping[str, Sequence[int]], n_tokens: Mapping[str, int] | None = None
    ) -> None:
        self.shapes = {name: tuple(shape) for name, shape in shapes.items()}
        self.n_tokens = dict(n_tokens or {})
        self.sizes = [math.prod(shape) for shape in self.shapes.values()]

    @classmethod
    def of(cls, inputs: Mapping[str, Tensor] | Sequence[Tensor]) -> Self:
        """The packing of given inputs, each of shape (n, ...); those of integers are tokens."""
        named = _named(inputs)
        return cls(
            {name: tensor.shape[1:] for name, tensor in named.items()},
            {name: MOST_TOKENS for name, tensor in named.items() if is_whole(tensor)},
        )

    @classmethod
    def read(cls, given: Mapping[str, str] | Sequence[tuple[str, str]]) -> Self:
        """The packing of shapes as text, {"image": "3x32x32", "words": "16 of 500"} or pairs.

        "16 of 500" are 16 tokens of a vocabulary of 500.

        Raises:
            ValueError: If a shape is none, or there is one input only.
        """
        try:
            shapes = dict(given)
        except (TypeError, ValueError):
            shapes = {"": ""}
        read = {
            name: _SHAPE.fullmatch(shape) if isinstance(shape, str) else None
            for name, shape in shapes.items()
            if isinstance(name, str)
        }
        found = {name: match.groups() for name, match in read.items() if match}
        n_tokens = {name: int(vocabulary) for name, (_, vocabulary) in found.items() if vocabulary}
        is_read = len(found) == len(shapes) and max(n_tokens.values(), default=0) <= MOST_TOKENS
        if not is_read or len(shapes) == 1:
            raise ValueError(
                "inputs gives the shapes of two or more inputs by the names of forward's arguments "
                "(or their positions), {'image': '3x32x32', 'speed': '5'}, tokens with their "
                f"vocabulary (up to {MOST_TOKENS}), {{'words': '16 of 500'}}, or is empty for a "
                f"network of one; got {given!r}."
            )
        sizes = {name: tuple(map(int, shape.split("x"))) for name, (shape, _) in found.items()}
        return cls(sizes, n_tokens)

    def written(self) -> tuple[tuple[str, str], ...]:
        """What `read` reads, in order."""
        of = {name: f" of {n_tokens}" for name, n_tokens in self.n_tokens.items()}
        return tuple(
            (name, "x".join(map(str, shape)) + of.get(name, ""))
            for name, shape in self.shapes.items()
        )

    def pack(self, inputs: Any) -> Tensor:
        """Several inputs as one tensor, shape (n, numbers of all).

        Raises:
            ValueError: If they are not those of the network, or tokens are not integers, or others
                are.
        """
        named = _named(inputs)
        is_fit = named.keys() == self.shapes.keys() and all(
            isinstance(tensor, Tensor)
            and tensor.shape[1:] == self.shapes[name]
            and (is_whole(tensor) if name in self.n_tokens else tensor.is_floating_point())
            for name, tensor in named.items()
        )
        if not is_fit or len({len(tensor) for tensor in named.values()}) != 1:
            raise ValueError(
                f"The network takes {self}, tensors of as many samples each, floating-point or, "
                "for tokens, of integers; got "
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
        found = {
            name: (part.long() if name in self.n_tokens else part.float()).reshape(
                -1, *self.shapes[name]
            )
            for name, part in parts.items()
        }
        by_position = tuple(found.pop(name) for name in self.shapes if name.isdigit())
        return by_position, found

    def any_input(self, draws: torch.Generator) -> Tensor:
        """One sample, shape (1, numbers of all): normal noise, and any tokens."""
        parts = [
            torch.randint(self.n_tokens[name], (1, size), generator=draws).float()
            if name in self.n_tokens
            else torch.randn(1, size, generator=draws)
            for name, size in zip(self.shapes, self.sizes, strict=True)
        ]
        return torch.cat(parts, dim=1)

    def with_last_tokens(self, samples: Tensor) -> Tensor:
        """The same samples, with the last token of each vocabulary everywhere."""
        parts = list(samples.flatten(1).split(self.sizes, dim=1))  # type: ignore[no-untyped-call]
        for place, name in enumerate(self.shapes):
            if name in self.n_tokens:
                parts[place] = torch.full_like(parts[place], self.n_tokens[name] - 1)
        return torch.cat(parts, dim=1).reshape(samples.shape)

    def check(self, samples: Tensor) -> None:
        """Check that the tokens of samples are tokens.

        Args:
            samples: Inputs as the network takes them, shape (n, ...).

        Raises:
            ValueError: If some are not whole numbers of their vocabulary.
        """
        parts = samples.flatten(1).split(self.sizes, dim=1)  # type: ignore[no-untyped-call]
        for name, part in zip(self.shapes, parts, strict=True):
            if name not in self.n_tokens:
                continue
            n_tokens = self.n_tokens[name]
            wrong = part[(part != part.round()) | (part < 0) | (part >= n_tokens)]
            if wrong.numel():
                raise ValueError(
                    f"Input {name!r} holds tokens, whole numbers from 0 to {n_tokens - 1}; got "
                    f"{float(wrong[0]):.6g}. If the data set normalises its inputs, load it with "
                    "normalise=none."
                )

    def __str__(self) -> str:
        """Names and shapes, for messages."""
        return "inputs " + ", ".join(
            f"{name!r} {shape}{' of tokens' if name in self.n_tokens else ''}"
            for name, shape in self.shapes.items()
        )


def is_whole(tensor: Any) -> bool:
    """Whether it is a tensor of integers."""
    return isinstance(tensor, Tensor) and not (tensor.is_floating_point() or tensor.is_complex())


def take_packed(network: nn.Module, packing: Packing | None) -> nn.Module:
    """Make a network of several inputs take one tensor, in place; None: it takes one.

    Example:
        >>> network, packing = nn.Bilinear(3, 4, 2), Packing({"0": (3,), "1": (4,)})
        >>> take_packed(network, packing)(torch.rand(5, 7)).shape
        torch.Size([5, 2])
    """
    if packing is not None:
        network.register_forward_pre_hook(packing, with_kwargs=True)
    return network


def packing_of(network: nn.Module) -> Packing | None:
    """How a network takes several inputs; None if it takes one.

    Example:
        >>> network = take_packed(nn.Bilinear(3, 4, 2), Packing({"0": (3,), "1": (4,)}))
        >>> packing_of(network).shapes
        {'0': (3,), '1': (4,)}
        >>> packing_of(model) is None  # of one input
        True
    """
    hooks = network._forward_pre_hooks.values()
    return next((hook for hook in hooks if isinstance(hook, Packing)), None)


def _named(inputs: Any) -> dict[str, Any]:
    if isinstance(inputs, Mapping):
        return dict(inputs)
    return {str(position): tensor for position, tensor in enumerate(inputs)}
