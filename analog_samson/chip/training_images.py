"""The training images that a chip looks at, plain and as its network was trained on them."""

from typing import NamedTuple

import torch
from torch import Tensor, nn

from analog_samson import models
from analog_samson.checkpoint import Checkpoint
from analog_samson.data import Dataset, augmented
from analog_samson.streams import derive_seed

TRAINING_IMAGES = 1024
"""Training images of a data set that a chip looks at: Joshi et al. (2020) recalibrate batch
normalisation on a few hundred; 1024, evenly spread, is our choice."""

_DRAWS = derive_seed("recalibration", "augmentation")


class TrainingImages(NamedTuple):
    """The same training images twice, as the network takes them, shape (n, ...).

    Attributes:
        plain: As the images are that the chip will answer to: what is fitted to how large inputs
            and products get there (input ranges, factors of layers) is fitted to these.
        as_trained: Augmented as in training: the statistics of batch normalisation are part of
            what the network learned on these. The draws are the same for all chips and networks.
    """

    plain: Tensor
    as_trained: Tensor


def training_images(
    given: Dataset | Tensor | None, model: nn.Module | Checkpoint
) -> TrainingImages | None:
    """Take a chip's training images; those of a network that is no checkpoint stay plain.

    Args:
        given: A data set, or training images as the network takes them; None: none.
        model: The network.

    Raises:
        ValueError: If they are of another data set, or may be no training images.
    """
    if given is None:
        return None
    if isinstance(given, Dataset):
        images = evenly_spread(given.train.images)
        if not isinstance(model, Checkpoint):
            plain = given.normalise(images)
            return TrainingImages(plain, plain)
        if given.name != model.spec.dataset:
            raise ValueError(
                f"recalibration is the data set {given.name!r}; the network was trained on "
                f"{model.spec.dataset!r}: give that."
            )
        model.check_fits(given.train)
        draws = torch.Generator().manual_seed(_DRAWS)
        plain, shifted = model.normalise(images), augmented(images, model.spec.augmentation, draws)
        return TrainingImages(plain, plain if shifted is images else model.normalise(shifted))
    is_known = isinstance(given, Tensor) and given.is_floating_point()
    if not is_known or isinstance(model, Checkpoint):
        what = f"a tensor of {given.dtype}" if isinstance(given, Tensor) else type(given).__name__
        raise ValueError(
            f"recalibration must never see test images, and {what} does not say what it holds: "
            "give the data set itself, whose training images are taken"
            + ("." if isinstance(model, Checkpoint) else ", or training images as normalised.")
        )
    return TrainingImages(given, given)


def evenly_spread(images: Tensor) -> Tensor:
    """Take ``TRAINING_IMAGES`` of a data set's training images, or all where there are fewer."""
    step = max(1, len(images) // TRAINING_IMAGES)
    return images[::step][:TRAINING_IMAGES]


def any_input(checkpoint: Checkpoint) -> Tensor:
    """Return one input as a network takes it, shape (1, C, H, W): normal noise, always the same."""
    return models.any_input(checkpoint.image_shape)
