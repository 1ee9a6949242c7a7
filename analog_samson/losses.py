"""Losses that look back: the trajectory loss of SAF and MESA (Du et al., arXiv 2205.14083).

Both add to the cross entropy a penalty on departing from earlier outputs for the same image,

    weight * tau^2 * mean_i KL( softmax(past_i / tau) || softmax(logits_i / tau) ).

SAF remembers the logits of every training image over a few epochs; MESA asks a moving average of
the network. The factor tau^2 is the authors' code's (AngusDujw/SAF).
"""

import math
from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim import swa_utils

from analog_samson.algorithm import Algorithm, Batch, Setting, Tensors


def trajectory_loss(logits: Tensor, past: Tensor, *, temperature: float = 5.0) -> Tensor:
    """Departure of the outputs from earlier ones.

    Args:
        logits: (n, classes), now.
        past: (n, classes), earlier or of a teacher; no gradient flows into it. Rows of NaN are
            images without a past and count as no departure.
        temperature: tau, above 0; the authors' value is 5.

    Returns:
        tau^2 times the mean over the n images of the Kullback-Leibler divergence [nat].
    """
    past = torch.where(past.isfinite(), past, logits).detach()
    return temperature**2 * F.kl_div(
        F.log_softmax(logits / temperature, dim=1),
        F.log_softmax(past / temperature, dim=1),
        reduction="batchmean",
        log_target=True,
    )


@dataclass(frozen=True)
class TrajectoryMemory:
    """The logits of every training image over the last epochs, in a ring.

    It takes 4 bytes for each of (lag + 1) * images * classes: 6 MB for CIFAR-10 with a lag of 2,
    60 MB for CIFAR-100, 15 GB for ImageNet.

    Attributes:
        logits: (lag + 1, images, classes); NaN where nothing has been remembered.
    """

    logits: Tensor

    @classmethod
    def empty(
        cls, n_images: int, n_classes: int, *, lag: int, accelerator: torch.device | str = "cpu"
    ) -> Self:
        """Make a memory that holds nothing yet.

        Args:
            n_images: Size of the training split.
            n_classes: Number of classes.
            lag: Epochs between remembering and recalling, at least 1.
            accelerator: Where it is stored.
        """
        return cls(torch.full((lag + 1, n_images, n_classes), torch.nan, device=accelerator))

    @property
    def lag(self) -> int:
        """Epochs between remembering and recalling."""
        return len(self.logits) - 1

    def remember(self, epoch: int, indices: Tensor, logits: Tensor) -> None:
        """Keep this epoch's outputs for some images.

        Args:
            epoch: Counted from 0.
            indices: (n,) places of the images in the training split.
            logits: (n, classes).
        """
        self.logits[epoch % len(self.logits), indices] = logits.detach().float()

    def recall(self, epoch: int, indices: Tensor) -> Tensor:
        """Outputs of `lag` epochs ago; older ones for an image that was left out then.

        Args:
            epoch: Now, counted from 0.
            indices: (n,) places of the images in the training split.

        Returns:
            (n, classes); rows of NaN for images that have no past.
        """
        return self.logits[(epoch - self.lag) % len(self.logits), indices]


class OwnTrajectory(Algorithm):
    """SAF: the trajectory loss with the network's own outputs of earlier epochs.

    Args:
        setting: The training.
        temperature: tau, above 0.
        trajectory_start: Share of the epochs that pass before the loss begins.
        trajectory_lag: Epochs between the remembered outputs and now, at least 1.
    """

    def __init__(
        self, setting: Setting, *, temperature: float, trajectory_start: float, trajectory_lag: int
    ) -> None:
        self._temperature = temperature
        self._first_epoch = math.ceil(trajectory_start * setting.epochs)
        self._memory = TrajectoryMemory.empty(
            setting.n_images, setting.n_classes, lag=trajectory_lag, accelerator=setting.accelerator
        )

    def penalty(self, batch: Batch, logits: Tensor, epoch: int) -> Tensor | None:
        """Departure from the remembered outputs; remembers these."""
        past = self._memory.recall(epoch, batch.indices)
        self._memory.remember(epoch, batch.indices, logits)
        if epoch < self._first_epoch:
            return None
        return trajectory_loss(logits, past, temperature=self._temperature)

    def tensors(self) -> dict[str, Tensor]:
        """The remembered outputs."""
        return {"memory": self._memory.logits}

    def load(self, tensors: Tensors) -> None:
        """Take up the remembered outputs."""
        self._memory = TrajectoryMemory(tensors["memory"])


class AveragedTeacher(Algorithm):
    """MESA: the trajectory loss with the outputs of a moving average of the network.

    Args:
        setting: The training.
        temperature: tau, above 0.
        trajectory_start: Share of the epochs that pass before the loss begins.
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
        self._temperature = temperature
        self._first_epoch = math.ceil(trajectory_start * setting.epochs)
        self._model = setting.model
        self._teacher = moving_average(setting.model, teacher_decay).eval()

    def penalty(self, batch: Batch, logits: Tensor, epoch: int) -> Tensor | None:
        """Departure from the outputs of the moving average."""
        if epoch < self._first_epoch:
            return None
        with torch.no_grad():
            past = self._teacher(batch.images)
        return trajectory_loss(logits, past, temperature=self._temperature)

    def after_update(self) -> None:
        """Follow the weights."""
        self._teacher.update_parameters(self._model)

    def tensors(self) -> dict[str, Tensor]:
        """State of the moving average."""
        return {f"teacher.{name}": t for name, t in self._teacher.state_dict().items()}

    def load(self, tensors: Tensors) -> None:
        """Take up the moving average."""
        self._teacher.load_state_dict({n.removeprefix("teacher."): t for n, t in tensors.items()})


def moving_average(model: nn.Module, decay: float) -> swa_utils.AveragedModel:
    """A copy of a network whose weights and statistics follow it, as an exponential average.

    Args:
        model: The network.
        decay: Share of the average that stays in a step, in [0, 1].
    """
    average = swa_utils.get_ema_multi_avg_fn(decay)  # type: ignore[no-untyped-call]
    return swa_utils.AveragedModel(model, multi_avg_fn=average, use_buffers=True)
