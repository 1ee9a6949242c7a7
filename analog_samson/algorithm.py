"""Hooks by which a training method changes the steps of a training."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from inspect import signature
from typing import Any, Self

import torch
from torch import Tensor, nn

from analog_samson.importing import import_named
from analog_samson.methods import Method

Tensors = Mapping[str, Tensor]


@dataclass(frozen=True)
class Setting:
    """The training that a method is used in.

    Attributes:
        model: The network that is trained, on the accelerator.
        analog_weights: Names of the parameters that are mapped to arrays.
        n_training_images: Images in the training split.
        n_classes: Number of classes.
        epochs: Passes over the training split.
        accelerator: The accelerator that the training runs on.
        trust: Packages that files which the method reads may import from.
        task: "classification", "tokens" or "regression".
        positions: (length,) where a token a position is predicted; otherwise empty.
        transposed_groups: Groups of the transposed convolutions, by the names of their weights,
            whose second dimension and not the first is that of the outputs.
        layers: Layers on arrays that hold each parameter, by its name; of a layer that is rewritten
            for arrays all that it becomes.

    Example:
        >>> setting = Setting(model, frozenset({"fc1.weight"}), 1295, 10, 3, torch.device("cpu"))
        >>> setting.task, setting.epochs
        ('classification', 3)
    """

    model: nn.Module
    analog_weights: frozenset[str]
    n_training_images: int
    n_classes: int
    epochs: int
    accelerator: torch.device
    trust: tuple[str, ...] = ()
    task: str = "classification"
    positions: tuple[int, ...] = ()
    transposed_groups: Mapping[str, int] = field(default_factory=dict)
    layers: Mapping[str, tuple[str, ...]] = field(default_factory=dict)


@dataclass(frozen=True)
class Batch:
    """Normalised training inputs with their targets and their indices in the split.

    Example:
        >>> batch = Batch(torch.zeros(10, 1, 8, 8), torch.zeros(10), torch.arange(10))
        >>> [len(part.labels) for part in batch.parts(4)]
        [4, 4, 2]
    """

    images: Tensor
    labels: Tensor
    indices: Tensor

    def parts(self, size: int) -> list[Self]:
        """Split into batches of one size."""
        if size == len(self.labels):
            return [self]
        tensors = (self.images, self.labels, self.indices)
        split = zip(*(torch.split(tensor, size) for tensor in tensors), strict=True)
        return [replace(self, images=i, labels=y, indices=k) for i, y, k in split]


class Algorithm:
    """The hooks of a training step; each does nothing unless a method overrides it.

    Built once per training.

    Args:
        setting: The training.
        **options: Options of the method.

    Example:
        >>> class Sign(Algorithm):
        ...     def offsets(self, weights, gradients, *, strength, generator):
        ...         return {name: strength * g.sign() for name, g in gradients.items()}
        >>> Method(label="sign", step="two passes", strength="rho", build="mine:Sign").step
        'two passes'
    """

    def __init__(self, setting: Setting, **options: Any) -> None: ...

    def offsets(
        self, weights: Tensors, gradients: Tensors, *, strength: float, generator: torch.Generator
    ) -> Tensors:
        """Offsets that the weights are moved by (steps "one pass" and "two passes").

        Args:
            weights: Parameters by name; must not be changed.
            gradients: Gradients of the clean pass by name; empty in a step of one pass.
            strength: The strength in this step.
            generator: Random number generator on the accelerator of the weights.

        Returns:
            Offsets by name; a parameter without one is not moved.
        """
        return {}

    def penalty(self, batch: Batch, logits: Tensor, epoch: int) -> Tensor | None:
        """Penalty that is multiplied by the strength and added to the loss (step "loss").

        Args:
            batch: The images; called under the autocast of the forward pass.
            logits: Shape (n, classes), fp32.
            epoch: Epoch, from 0.

        Returns:
            A scalar; None for no penalty.
        """
        return None

    def before_update(self, gradients: Tensors) -> None:
        """Called with the gradients by name, before they are clipped and the weights change."""

    def after_update(self) -> None:
        """Called after the optimizer has updated the weights."""

    def tensors(self) -> dict[str, Tensor]:
        """State between steps, saved so that a training can be resumed.

        Names must not begin with "model.", "average." or "optimizer.".
        """
        return {}

    def load(self, tensors: Tensors) -> None:
        """Restore the state that `tensors` returned, on the accelerator of the training."""


class _Rule(Algorithm):
    """A pure rule with its options."""

    def __init__(self, rule: Callable[..., Tensors], strength: str) -> None:
        self._rule, self._strength = rule, strength
        self._draws = "generator" in signature(rule).parameters

    def offsets(
        self, weights: Tensors, gradients: Tensors, *, strength: float, generator: torch.Generator
    ) -> Tensors:
        arguments: dict[str, Any] = {self._strength: strength}
        if self._draws:
            arguments["generator"] = generator
        return self._rule(weights, gradients, **arguments)


class _Loss(Algorithm):
    """A pure loss with its options."""

    def __init__(self, loss: Callable[..., Tensor]) -> None:
        self._loss = loss

    def penalty(self, batch: Batch, logits: Tensor, epoch: int) -> Tensor:
        return self._loss(logits, batch.labels)


def build_algorithm(method: Method, options: Mapping[str, Any], setting: Setting) -> Algorithm:
    """Build the algorithm of a method for one training.

    Args:
        method: The method.
        options: Values of its options.
        setting: The training.

    Raises:
        ValueError: If the object that the method names cannot be imported or called.
    """
    if method.step == "plain":
        return Algorithm(setting)
    arguments = {
        option.argument or name: options[name]
        for name, option in method.options.items()
        if name in options
    }
    built = import_named(method.build, f"method {method.label!r}")
    if isinstance(built, type) and issubclass(built, Algorithm):
        return built(setting, **arguments)
    if isinstance(built, type) or not callable(built):
        raise ValueError(
            f"Method {method.label!r} is built from {method.build!r}, which is neither a function "
            "nor a class derived from analog_samson.training.Algorithm."
        )
    if method.perturbs_weights and "transposed_groups" in signature(built).parameters:
        arguments.setdefault("transposed_groups", setting.transposed_groups)
    function = partial(built, **arguments)
    return _Loss(function) if method.step == "loss" else _Rule(function, method.strength)
