"""Losses that look back: the trajectory loss of SAF and MESA (Du et al., arXiv 2205.14083).

Both add to the cross entropy a penalty on departing from earlier outputs for the same image,

    weight * tau^2 * mean_i KL( softmax(past_i / tau) || softmax(logits_i / tau) ).

SAF remembers the logits of every training image over a few epochs; MESA asks a moving average of
the network. The factor tau^2 is the authors' code's (AngusDujw/SAF).
"""

from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor
from torch.nn import functional as F


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
        cls, n_images: int, n_classes: int, *, lag: int, device: torch.device | str = "cpu"
    ) -> Self:
        """Make a memory that holds nothing yet.

        Args:
            n_images: Size of the training split.
            n_classes: Number of classes.
            lag: Epochs between remembering and recalling, at least 1.
            device: Where it is kept.
        """
        return cls(torch.full((lag + 1, n_images, n_classes), torch.nan, device=device))

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
