"""Recurrent layers: a linear layer for the inputs and one for the state of the last step.

`ih` multiplies the inputs of all time steps in one call; `hh` is used once a step. Every step is a
use of the array of its own, with its own noise. Gates, and sums and products of states, are
digital. A projection of the output (`proj_size`) is a third linear layer, `hr`.
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.rnn import PackedSequence

from analog_samson.models.rewriting.linear import linear

State = tuple[Tensor, ...]
"""Output of the last step, shape (batch, outputs); of an LSTM also its cell, (batch, hidden)."""


def unrolled(layer: nn.RNNBase) -> nn.Module:
    """Rewrite `nn.LSTM`, `nn.GRU` or `nn.RNN`: `l0.ih`, `l0.hh`, `l0_reverse.ih`, `l1.ih`, ..."""
    return Recurrent(layer)


def cell(layer: nn.RNNCellBase) -> nn.Module:
    """Rewrite `nn.LSTMCell`, `nn.GRUCell` or `nn.RNNCell` as `ih` and `hh`."""
    return _Cell(layer)


class _Step(nn.Module):
    """The layers of one direction and what one time step computes with them."""

    def __init__(self, gates: "_Gates", layer: nn.Module, suffix: str = "") -> None:
        super().__init__()
        self.gates = gates
        self.ih, self.hh = (
            linear(getattr(layer, f"weight_{of}{suffix}"), getattr(layer, f"bias_{of}{suffix}"))
            if layer.bias
            else linear(getattr(layer, f"weight_{of}{suffix}"), None)
            for of in ("ih", "hh")
        )
        self.hr: nn.Linear | None = None
        if getattr(layer, "proj_size", 0):
            self.hr = linear(getattr(layer, f"weight_hr{suffix}"), None)

    def step(self, given: Tensor, state: State) -> State:
        """The next state.

        Args:
            given: Product of the inputs of this step, shape (batch, gates x hidden).
            state: The state before it.
        """
        state = self.gates(given, self.hh(state[0]), state)
        return state if self.hr is None else (self.hr(state[0]), *state[1:])


class _Direction(_Step):
    """One layer in one direction."""

    def forward(self, x: Tensor, state: State) -> tuple[Tensor, State]:
        """Outputs of all steps, shape (batch, steps, outputs), and the last state."""
        outputs = []
        for given in self.ih(x).transpose(0, 1).contiguous():  # a step in a row: faster to read
            state = self.step(given, state)
            outputs.append(state[0])
        return torch.stack(outputs, 1), state


class Recurrent(nn.Module):
    """What `nn.LSTM`, `nn.GRU` and `nn.RNN` compute; the noise of arrays needs the batch first."""

    def __init__(self, layer: nn.RNNBase) -> None:
        super().__init__()
        self.mode, self.is_lstm = layer.mode, layer.mode == "LSTM"
        self.input_size, self.hidden_size = layer.input_size, layer.hidden_size
        self.num_layers, self.batch_first = layer.num_layers, layer.batch_first
        self.bidirectional, self.dropout = layer.bidirectional, layer.dropout
        self.proj_size = layer.proj_size
        gates = _gates_of(layer)
        self._names = [
            [f"l{number}{direction}" for direction in ("", "_reverse")[: 1 + layer.bidirectional]]
            for number in range(layer.num_layers)
        ]
        for name in (name for names in self._names for name in names):
            self.add_module(name, _Direction(gates, layer, f"_{name}"))

    def flatten_parameters(self) -> None:
        """Nothing: torch's own layers arrange their memory here."""

    def forward(self, input: Tensor, hx: Any = None) -> tuple[Tensor, Any]:
        """As the layer that was rewritten.

        Raises:
            ValueError: If the input is a packed sequence.
        """
        _refuse_packed(input)
        is_batched = input.ndim == 3
        x = input if is_batched else input[None]
        if is_batched and not self.batch_first:
            x = x.transpose(0, 1)
        first = self._first_states(x, hx, is_batched)
        if (weights := self._exact_weights(x)) is not None:
            x, states = self._at_once(x, first, weights)
            return self._as_given(x, states, is_batched)
        last: list[State] = []
        for number, names in enumerate(self._names):
            if number:
                x = F.dropout(x, self.dropout, self.training)
            outputs = []
            for name in names:
                is_reverse = name.endswith("_reverse")
                direction = getattr(self, name)
                out, state = direction(x.flip(1) if is_reverse else x, first[len(last)])
                outputs.append(out.flip(1) if is_reverse else out)
                last.append(state)
            x = torch.cat(outputs, -1) if len(outputs) > 1 else outputs[0]
        states = [torch.stack(kind) for kind in zip(*last, strict=True)]
        return self._as_given(x, states, is_batched)

    def _as_given(
        self, x: Tensor, states: Sequence[Tensor], is_batched: bool
    ) -> tuple[Tensor, Any]:
        if not is_batched:
            x, states = x[0], [state[:, 0] for state in states]
        elif not self.batch_first:
            x = x.transpose(0, 1)
        return x, tuple(states) if self.is_lstm else states[0]

    def _exact_weights(self, x: Tensor) -> list[Tensor] | None:
        """Weights and biases in torch's order, if all layers are arrays whose products are exact.

        Such a layer gives its matrix by a method `exact_matrix`; a digital layer has none, and one
        that has hooks is called.
        """
        if x.device.type != "cpu" or self.proj_size or self.training:
            return None
        weights: list[Tensor] = []
        for name in (name for names in self._names for name in names):
            found = []
            for layer in (getattr(self, name).ih, getattr(self, name).hh):
                matrix = getattr(layer, "exact_matrix", lambda: None)()
                if matrix is None or layer._forward_hooks or layer._forward_pre_hooks:
                    return None
                found.append(matrix)
            weights += [weight for weight, _ in found]
            weights += [bias for _, bias in found if bias is not None]
        return weights

    def _at_once(
        self, x: Tensor, first: Sequence[State], weights: list[Tensor]
    ) -> tuple[Tensor, list[Tensor]]:
        """Outputs and last states by torch's own operation, which runs all steps in one call."""
        states = [torch.stack(kind) for kind in zip(*first, strict=True)]
        operation: Any = getattr(torch, self.mode.lower())
        has_bias = len(weights) == 4 * len(first)
        how = has_bias, self.num_layers, 0.0, False, self.bidirectional, True
        given = states if self.is_lstm else states[0]
        out, *last = operation(x, given, weights, *how)
        return out, last

    def _first_states(self, x: Tensor, hx: Any, is_batched: bool) -> Sequence[State]:
        if hx is None:
            sizes = [self.proj_size or self.hidden_size, *[self.hidden_size] * self.is_lstm]
            zeros = tuple(x.new_zeros(len(x), size) for size in sizes)
            return [zeros] * sum(map(len, self._names))
        given = hx if self.is_lstm else (hx,)
        batched = given if is_batched else [state[:, None] for state in given]
        return list(zip(*batched, strict=True))

    def extra_repr(self) -> str:
        """What was rewritten."""
        return f"{self.mode}, batch_first={self.batch_first}"


class _Cell(_Step):
    """What `nn.LSTMCell`, `nn.GRUCell` and `nn.RNNCell` compute."""

    def __init__(self, layer: nn.RNNCellBase) -> None:
        super().__init__(_gates_of(layer), layer)
        self.input_size, self.hidden_size = layer.input_size, layer.hidden_size
        self.is_lstm = isinstance(layer, nn.LSTMCell)

    def forward(self, input: Tensor, hx: Any = None) -> Any:
        """As the cell that was rewritten.

        Raises:
            ValueError: If the input is a packed sequence.
        """
        _refuse_packed(input)
        is_batched = input.ndim == 2
        x = input if is_batched else input[None]
        if hx is None:
            state: State = (x.new_zeros(len(x), self.hidden_size),) * (1 + self.is_lstm)
        else:
            state = tuple(hx) if self.is_lstm else (hx,)
            state = state if is_batched else tuple(part[None] for part in state)
        state = self.step(self.ih(x), state)
        state = state if is_batched else tuple(part[0] for part in state)
        return state if self.is_lstm else state[0]


_Gates = Callable[[Tensor, Tensor, State], State]
"""From the products of the inputs and of the last output, and the last state, to the next state."""


def _gates_of(layer: nn.Module) -> _Gates:
    if isinstance(layer, nn.LSTM | nn.LSTMCell):
        return _lstm
    if isinstance(layer, nn.GRU | nn.GRUCell):
        return _gru
    return _relu if layer.nonlinearity == "relu" else _tanh


def _lstm(given: Tensor, fed_back: Tensor, state: State) -> State:
    gates = given + fed_back
    i, f, _, o = torch.sigmoid(gates).chunk(4, -1)  # one call is faster than one a gate
    c = torch.addcmul(f * state[1], i, torch.tanh(gates.chunk(4, -1)[2]))
    return o * torch.tanh(c), c


def _gru(given: Tensor, fed_back: Tensor, state: State) -> State:
    given_rz, given_n = given.tensor_split([2 * given.shape[-1] // 3], -1)
    fed_rz, fed_n = fed_back.tensor_split([2 * given.shape[-1] // 3], -1)
    r, z = torch.sigmoid(given_rz + fed_rz).chunk(2, -1)
    n = torch.tanh(given_n + r * fed_n)
    return (n + z * (state[0] - n),)


def _tanh(given: Tensor, fed_back: Tensor, _: State) -> State:
    return (torch.tanh(given + fed_back),)


def _relu(given: Tensor, fed_back: Tensor, _: State) -> State:
    return (torch.relu(given + fed_back),)


def _refuse_packed(given: object) -> None:
    if isinstance(given, PackedSequence):
        raise ValueError(
            "Packed sequences cannot run on arrays; give padded sequences, a tensor (pad_sequence "
            "or pad_packed_sequence of torch.nn.utils.rnn), and take the outputs that count."
        )
