"""Adaptive random weight perturbation, which stores squared gradients between steps."""

import torch
from torch import Tensor

from analog_samson.algorithm import Algorithm, Setting, Tensors
from analog_samson.perturbation.rules import arwp, update_fisher


class AdaptiveRandomPerturbation(Algorithm):
    """The rule `arwp` with a running sum of squared gradients.

    Args:
        setting: The training.
        eta: Strength of the adaptation.
        fisher_decay: Decay of the squared gradients, in [0, 1].

    Example:
        >>> from analog_samson.checkpoint import TrainingSpec
        >>> from analog_samson.training import train
        >>> spec = TrainingSpec(dataset="digits", method="arwp", sigma=0.01, epochs=1)
        >>> train(spec, "networks").name  # trained with this rule
        'digits-mlp-arwp-sigma=0.01-seed0.safetensors'
    """

    def __init__(self, setting: Setting, *, eta: float, fisher_decay: float) -> None:
        self._eta, self._decay = eta, fisher_decay
        self._groups = setting.transposed_groups
        self._fisher: dict[str, Tensor] = {}

    def offsets(
        self, weights: Tensors, gradients: Tensors, *, strength: float, generator: torch.Generator
    ) -> Tensors:
        """Draw offsets; they are smaller where gradients were large."""
        return arwp(
            weights,
            sigma=strength,
            fisher=self._fisher,
            eta=self._eta,
            transposed_groups=self._groups,
            generator=generator,
        )

    def before_update(self, gradients: Tensors) -> None:
        """Add the squared gradients of this step."""
        self._fisher = update_fisher(
            self._fisher, gradients, decay=self._decay, transposed_groups=self._groups
        )

    def tensors(self) -> dict[str, Tensor]:
        """The squared gradients, by parameter."""
        return {f"fisher.{name}": tensor for name, tensor in self._fisher.items()}

    def load(self, tensors: Tensors) -> None:
        """Restore the squared gradients."""
        self._fisher = {name.removeprefix("fisher."): t for name, t in tensors.items()}
