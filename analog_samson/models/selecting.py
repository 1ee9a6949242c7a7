"""One tensor of the outputs of a network that gives several."""

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor, nn

Output = int | str | None
"""Index in a tuple or list, or key in a dictionary; None: the network gives one tensor."""


class Selection:
    """A forward hook that takes one of a network's outputs."""

    def __init__(self, output: int | str) -> None:
        self.output = output

    def __call__(self, module: nn.Module, given: Any, outputs: Any) -> Tensor:
        """The output.

        Raises:
            ValueError: If there is none of that index or name.
        """
        try:
            found: Tensor = outputs[self.output]
        except (KeyError, IndexError, TypeError):
            found = getattr(outputs, str(self.output), None)  # type: ignore[assignment]
        if isinstance(outputs, Tensor) or not isinstance(found, Tensor):
            raise ValueError(
                f"The network gives {kind_of_outputs(outputs)}, and output={self.output!r} is no "
                "tensor of it."
            )
        return found


def select_output(network: nn.Module, output: Output) -> nn.Module:
    """Make a network give one of its outputs.

    Args:
        network: The network, changed in place by a forward hook.
        output: See ``Output``.

    Returns:
        The network.

    Example:
        >>> import torch
        >>> network = select_output(nn.LSTM(4, 8), 0)  # the first of (outputs, states)
        >>> network(torch.rand(5, 1, 4)).shape
        torch.Size([5, 1, 8])
    """
    if output is not None:
        network.register_forward_hook(Selection(output))
    return network


def check_output(output: object) -> None:
    """Raise ValueError unless ``output`` is an index, a name or None.

    Example:
        >>> check_output(0)
        >>> check_output("")
        Traceback (most recent call last):
            ...
        ValueError: output is the index or the name of the output to take, or None ...; got ''.
    """
    if isinstance(output, bool) or not isinstance(output, Output) or output == "":
        raise ValueError(
            "output is the index or the name of the output to take, or None for a network that "
            f"gives one tensor; got {output!r}."
        )


def one_tensor(outputs: Any) -> Tensor:
    """The outputs of a network.

    Raises:
        ValueError: If they are not one tensor.

    Example:
        >>> import torch
        >>> one_tensor(torch.ones(2))
        tensor([1., 1.])
        >>> one_tensor([torch.ones(2), torch.ones(2)])
        Traceback (most recent call last):
            ...
        ValueError: The network gives a list of 2; say which to take: output=an index or a name.
    """
    if not isinstance(outputs, Tensor):
        raise ValueError(
            f"The network gives {kind_of_outputs(outputs)}; say which to take: "
            "output=an index or a name."
        )
    return outputs


def kind_of_outputs(outputs: Any) -> str:
    """What a network gives, for messages."""
    kind = type(outputs).__name__
    if isinstance(outputs, Mapping):
        return f"a {kind} with the keys {', '.join(map(repr, outputs))}"
    if isinstance(outputs, Sequence) and not isinstance(outputs, str):
        return f"a {kind} of {len(outputs)}"
    shape = f" of shape {tuple(outputs.shape)}" if isinstance(outputs, Tensor) else ""
    return f"a {kind}{shape}"
