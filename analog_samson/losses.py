"""The loss of each task, and the trajectory loss of SAF and MESA (Du et al., arXiv 2205.14083).

SAF and MESA add a penalty to the cross entropy: the divergence from earlier outputs for an image,

    weight * tau^2 * mean_i KL( softmax(past_i / tau) || softmax(logits_i / tau) ).

SAF stores the logits of every training image over a few epochs; MESA evaluates a moving average of
the network. The factor tau^2 is that of the authors' code (AngusDujw/SAF).
"""

import math
from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim import swa_utils

from analog_samson.algorithm import Algorithm, Batch, Setting, Tensors
from analog_samson.tasks import IGNORED


def task_loss(
    outputs: Tensor,
    targets: Tensor,
    task: str,
    *,
    label_smoothing: float = 0.0,
    reduction: str = "mean",
) -> Tensor:
    """Loss of a task.

    Args:
        outputs: Shape (n, classes), (n, length, tokens) or (n, outputs).
        targets: As `data.Split.labels` holds them: classes, tokens (-100 counts in no loss), or
            numbers of shape (n, outputs).
        task: "classification" and "tokens": cross entropy [nat]; "regression": squared error.
        label_smoothing: Share of the target that is spread over all classes, in [0, 1).
        reduction: "mean" over samples, tokens with a target, or outputs; "sum" over the same.

    Returns:
        The loss.
    """
    if task == "regression":
        return F.mse_loss(outputs, targets, reduction=reduction)
    if task == "tokens":
        outputs, targets = outputs.flatten(0, -2), targets.flatten()
    return F.cross_entropy(outputs, targets, label_smoothing=label_smoothing, reduction=reduction)


def trajectory_loss(logits: Tensor, past: Tensor, *, temperature: float = 5.0) -> Tensor:
    """Divergence of the outputs from earlier ones.

    Args:
        logits: Present logits, shape (n, classes) or (n, length, tokens).
        past: Earlier logits, or those of a teacher, of the same shape; detached. A row of NaN
            means no earlier logits and contributes 0.
        temperature: tau, above 0; the authors' value is 5.

    Returns:
        tau^2 times the mean over images, or tokens, of the Kullback-Leibler divergence [nat].
    """
    past = torch.where(past.isfinite(), past, logits).detach().flatten(0, -2)
    logits = logits.flatten(0, -2)
    return temperature**2 * F.kl_div(
        F.log_softmax(logits / temperature, dim=1),
        F.log_softmax(past / temperature, dim=1),
        reduction="batchmean",
        log_target=True,
    )


@dataclass(frozen=True)
class TrajectoryMemory:
    """Ring buffer of the logits of every training image over the last epochs.

    Memory: 4 bytes * (lag + 1) * images * classes, which is 6 MB for CIFAR-10 with a lag of 2.

    Attributes:
        logits: Shape (lag + 1, images, ..., classes); NaN where nothing is stored yet.
    """

    logits: Tensor

    @classmethod
    def empty(
        cls,
        n_training_images: int,
        n_classes: int,
        *,
        lag: int,
        accelerator: torch.device | str = "cpu",
        positions: tuple[int, ...] = (),
    ) -> Self:
        """Create an empty buffer.

        Args:
            n_training_images: Size of the training split.
            n_classes: Number of classes.
            lag: Epochs between storing and reading, at least 1.
            accelerator: Where it is stored.
            positions: (length,) where a token a position is predicted; otherwise empty.
        """
        shape = lag + 1, n_training_images, *positions, n_classes
        return cls(torch.full(shape, torch.nan, device=accelerator))

    @property
    def lag(self) -> int:
        """Epochs between storing and reading."""
        return len(self.logits) - 1

    def remember(self, epoch: int, indices: Tensor, logits: Tensor) -> None:
        """Store the outputs of this epoch for some images.

        Args:
            epoch: Epoch, from 0.
            indices: Indices of the images in the training split, shape (n,).
            logits: Shape (n, classes).
        """
        self.logits[epoch % len(self.logits), indices] = logits.detach().float()

    def recall(self, epoch: int, indices: Tensor) -> Tensor:
        """Outputs of `lag` epochs ago; older ones for images that were left out in that epoch.

        Args:
            epoch: Present epoch, from 0.
            indices: Indices of the images in the training split, shape (n,).

        Returns:
            Shape (n, classes); rows of NaN for images without earlier outputs.
        """
        return self.logits[(epoch - self.lag) % len(self.logits), indices]


class OwnTrajectory(Algorithm):
    """SAF: the trajectory loss with the network's own outputs of earlier epochs.

    Args:
        setting: The training.
        temperature: tau, above 0.
        trajectory_start: Share of the epochs without the loss at the beginning, in [0, 1].
        trajectory_lag: Epochs between the stored outputs and the present, at least 1.
    """

    def __init__(
        self, setting: Setting, *, temperature: float, trajectory_start: float, trajectory_lag: int
    ) -> None:
        _check_probabilities(setting)
        self._temperature = temperature
        self._first_epoch = math.ceil(trajectory_start * setting.epochs)
        self._memory = TrajectoryMemory.empty(
            setting.n_training_images,
            setting.n_classes,
            lag=trajectory_lag,
            accelerator=setting.accelerator,
            positions=setting.positions,
        )

    def penalty(self, batch: Batch, logits: Tensor, epoch: int) -> Tensor | None:
        """Divergence from the stored outputs; stores the present ones."""
        past = self._memory.recall(epoch, batch.indices)
        self._memory.remember(epoch, batch.indices, logits)
        if epoch < self._first_epoch:
            return None
        return _trajectory_loss(batch, logits, past, self._temperature)

    def tensors(self) -> dict[str, Tensor]:
        """The stored outputs."""
        return {"memory": self._memory.logits}

    def load(self, tensors: Tensors) -> None:
        """Restore the stored outputs."""
        self._memory = TrajectoryMemory(tensors["memory"])


class AveragedTeacher(Algorithm):
    """MESA: the trajectory loss with the outputs of a moving average of the network.

    Args:
        setting: The training.
        temperature: tau, above 0.
        trajectory_start: Share of the epochs without the loss at the beginning, in [0, 1].
        teacher_decay: Decay of the moving average, in [0, 1].
    """

    def __init__(
        self,
        setting: Setting,
        *,
        temperature: float,
        trajectory_start: float,
        teacher_decay: float,
    ) -> None:
        _check_probabilities(setting)
        self._temperature = temperature
        self._first_epoch = math.ceil(trajectory_start * setting.epochs)
        self._model = setting.model
        self._teacher = moving_average(setting.model, teacher_decay).eval()

    def penalty(self, batch: Batch, logits: Tensor, epoch: int) -> Tensor | None:
        """Divergence from the outputs of the moving average."""
        if epoch < self._first_epoch:
            return None
        with torch.no_grad():
            past = self._teacher(batch.images)
        return _trajectory_loss(batch, logits, past, self._temperature)

    def after_update(self) -> None:
        """Update the moving average."""
        self._teacher.update_parameters(self._model)

    def tensors(self) -> dict[str, Tensor]:
        """State of the moving average."""
        return {f"teacher.{name}": t for name, t in self._teacher.state_dict().items()}

    def load(self, tensors: Tensors) -> None:
        """Restore the moving average."""
        self._teacher.load_state_dict({n.removeprefix("teacher."): t for n, t in tensors.items()})


def _trajectory_loss(batch: Batch, logits: Tensor, past: Tensor, temperature: float) -> Tensor:
    """The trajectory loss; of tokens, of those with a target."""
    if batch.labels.ndim > 1:
        has_target = batch.labels != IGNORED
        logits, past = logits[has_target], past[has_target]
    return trajectory_loss(logits, past, temperature=temperature)


def _check_probabilities(setting: Setting) -> None:
    if setting.task == "regression":
        raise ValueError(
            "The trajectory loss (saf, mesa) compares probabilities of classes, and a regression "
            "has none; choose another method."
        )


def moving_average(model: nn.Module, decay: float) -> swa_utils.AveragedModel:
    """A copy of a network that holds the exponential moving average of its weights and buffers.

    Args:
        model: The network.
        decay: Weight of the old average in each update, in [0, 1].
    """
    average = swa_utils.get_ema_multi_avg_fn(decay)  # type: ignore[no-untyped-call]
    return swa_utils.AveragedModel(model, multi_avg_fn=average, use_buffers=True)
