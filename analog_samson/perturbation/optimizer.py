"""An optimizer around any of torch's that takes the gradient at perturbed weights."""

import contextlib
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn

from analog_samson.perturbation.applying import (
    Rule,
    frozen_batch_norm,
    offset_by,
    random_states,
    set_random_states,
)


class Perturbed(torch.optim.Optimizer):
    """A rule of this package around a base optimizer, with the calls of the public SAM optimizers.

        optimizer = Perturbed(
            model.named_parameters(), partial(samson, rho=0.5), torch.optim.SGD, model=model, lr=0.1
        )
        loss(model, batch).backward()          # gradients for the rule
        optimizer.first_step(zero_grad=True)   # weights + offset
        loss(model, batch).backward()          # gradients at the perturbed weights
        optimizer.second_step(zero_grad=True)  # the weights are back, bit for bit; then the update

    or, with a closure that computes the loss, calls ``backward`` and returns the loss:

        optimizer.step(closure)                # both passes, with the same dropout mask

    Accumulation: call ``backward`` for every part of a batch, divided by their number, before each
    of the two steps. Clipping: clip the gradients right before ``second_step`` (a closure clips
    them itself). AMP with bfloat16 needs nothing; with a ``GradScaler`` scale both losses, call
    ``restore()`` after the second ``backward``, then ``scaler.step(optimizer)`` and
    ``scaler.update()``: rules of the SAM family do not depend on the scale of the gradient.
    Distributed training (DDP): offsets follow from the averaged gradients and are equal on all
    processes; a random rule needs a generator of equal seed on each.

    Args:
        params: Parameters, or groups of them, as for torch's optimizers. With
            ``model.named_parameters()`` rules know what is a weight by its name, as in this
            package's training; without names, parameters of two or more dimensions are weights and
            all others biases.
        rule: Maps ({name: weight}, {name: gradient}) to {name: offset}; the attribute ``rule`` may
            be set anew before each step, for a schedule of its strength.
        base_optimizer: A class of torch's optimizers.
        model: Network whose statistics of batch normalisation are those of the first pass only;
            None: both passes update them.
        needs_gradient: Whether the rule needs a first pass. With False (``rwp``) a closure is
            called once, ``first_step`` comes before the only pass, and that pass updates the
            statistics.
        **options: Options of the base optimizer.

    Raises:
        ValueError: If the base optimizer is no class of an optimizer.

    Example:
        >>> from functools import partial
        >>> from analog_samson.perturbation import sam
        >>> layer, rule = nn.Linear(2, 1), partial(sam, rho=0.05)
        >>> _ = nn.init.ones_(layer.weight)
        >>> parameters = layer.named_parameters()
        >>> optimizer = Perturbed(parameters, rule, torch.optim.SGD, model=layer, lr=0.1)
        >>> def closure():
        ...     loss = layer(torch.ones(1, 2)).square().sum()
        ...     loss.backward()
        ...     return loss
        >>> before = optimizer.step(closure).item()
        >>> closure().item() < before
        True
    """

    def __init__(
        self,
        params: Any,
        rule: Rule,
        base_optimizer: type[torch.optim.Optimizer],
        *,
        model: nn.Module | None = None,
        needs_gradient: bool = True,
        **options: Any,
    ) -> None:
        is_class = isinstance(base_optimizer, type)
        if not is_class or not issubclass(base_optimizer, torch.optim.Optimizer):
            raise ValueError(
                "base_optimizer is a class of torch's optimizers, such as torch.optim.SGD, whose "
                f"options follow as keyword arguments; got {base_optimizer!r}."
            )
        if not callable(rule):
            raise ValueError(
                "rule is a function of weights and gradients, such as partial(samson, rho=0.5); "
                f"got {rule!r}."
            )
        self.base_optimizer = base_optimizer(params, **options)
        super().__init__(self.base_optimizer.param_groups, self.base_optimizer.defaults)
        self.base_optimizer.param_groups = self.param_groups
        self.rule, self.needs_gradient, self._model = rule, needs_gradient, model
        self._offset: contextlib.ExitStack | None = None

    @property
    def is_perturbed(self) -> bool:
        """Whether the weights are perturbed now."""
        return self._offset is not None

    def first_step(self, zero_grad: bool = False) -> None:
        """Move the weights to weight + offset.

        Args:
            zero_grad: Whether to reset the gradients afterwards.

        Raises:
            RuntimeError: If the weights are perturbed already.
            ValueError: If the rule needs gradients and there are none, or its offsets do not fit.
        """
        if self.is_perturbed:
            raise RuntimeError(
                "The weights are perturbed already; call second_step() or restore() before the "
                "next first_step()."
            )
        if not self.needs_gradient:  # gradients of the last step must not be used
            self.zero_grad()
        with contextlib.ExitStack() as stack:
            stack.enter_context(offset_by(self.rule, self._named()))
            if self._model is not None:
                frozen = frozen_batch_norm(self._model, frozen=self.needs_gradient)
                stack.enter_context(frozen)
            self._offset = stack.pop_all()
        if zero_grad:
            self.zero_grad()

    def restore(self) -> None:
        """Bring the weights back, bit for bit, without an update; keeps the gradients."""
        offset, self._offset = self._offset, None
        if offset is not None:
            offset.close()

    def second_step(self, zero_grad: bool = False) -> None:
        """Bring the weights back and update them with the gradients at the perturbed weights.

        Args:
            zero_grad: Whether to reset the gradients afterwards.

        Raises:
            RuntimeError: If the weights are not perturbed.
        """
        if not self.is_perturbed:
            raise RuntimeError("The weights are not perturbed; call first_step() before.")
        self.restore()
        self.base_optimizer.step()
        if zero_grad:
            self.zero_grad()

    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Both passes by a closure; without one, the update at the restored weights.

        Args:
            closure: Computes the loss, calls ``backward`` and returns the loss; gradients are reset
                before each call.

        Returns:
            The loss of the first pass.

        Raises:
            RuntimeError: If there is no closure and the weights are perturbed.
        """
        if closure is None:
            if self.is_perturbed:
                raise RuntimeError(
                    "The weights are perturbed: call second_step(), or restore() before step()."
                )
            self.base_optimizer.step()
            return None
        closure = torch.enable_grad()(closure)
        self.zero_grad()
        if not self.needs_gradient:
            self.first_step()
            try:
                loss = closure()
            except BaseException:
                self.restore()
                raise
            self.second_step()
            return loss
        before = random_states({"cpu", *(p.device.type for p in self._parameters())})
        loss = closure()
        self.first_step(zero_grad=True)
        try:
            set_random_states(before)
            closure()
        except BaseException:
            self.restore()
            raise
        self.second_step()
        return loss

    def state_dict(self) -> dict[str, Any]:
        """The state of the base optimizer."""
        return self.base_optimizer.state_dict()

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore the state of the base optimizer."""
        self.base_optimizer.load_state_dict(state_dict)
        self.param_groups = self.base_optimizer.param_groups

    def _parameters(self) -> Iterable[Tensor]:
        return (p for group in self.param_groups for p in group["params"])

    def _named(self) -> dict[str, nn.Parameter]:
        """Trainable parameters by name."""
        named: dict[str, nn.Parameter] = {}
        for group in self.param_groups:
            names = group.get("param_names") or [None] * len(group["params"])
            for name, parameter in zip(names, group["params"], strict=True):
                kind = "weight" if parameter.ndim > 1 else "bias"
                if parameter.requires_grad:
                    named[name or f"{len(named)}.{kind}"] = parameter
        return named
