"""Training images for the calibration of a chip, plain and augmented as in training."""

from typing import NamedTuple

import torch
from torch import Tensor, nn

from analog_samson import models
from analog_samson.checkpoint import Checkpoint
from analog_samson.data import Dataset, augmented
from analog_samson.streams import derive_seed

TRAINING_IMAGES = 1024
"""Number of training images for calibration: our choice. Joshi et al. (2020) recalibrate batch
normalisation on a few hundred."""

_DRAWS = derive_seed("recalibration", "augmentation")


class TrainingImages(NamedTuple):
    """The same training images, plain and augmented, as network inputs of shape (n, ...).

    Attributes:
        plain: Not augmented, as test images are. Input ranges and compensation factors of layers
            are fitted to these.
        as_trained: Augmented as in training. Statistics of batch normalisation are recomputed on
            these. The random augmentation is the same for all chips and networks.
    """

    plain: Tensor
    as_trained: Tensor


def training_images(
    given: Dataset | Tensor | None, model: nn.Module | Checkpoint
) -> TrainingImages | None:
    """Prepare the training images of a chip; without a checkpoint they are not augmented.

    Args:
        given: A data set, or training images as network inputs; None: no images.
        model: The network.

    Raises:
        ValueError: If they are from another data set, or not known to be training images.
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
            f"recalibration must not use test images, and {what} may contain them: "
            "give the data set itself, whose training images are used"
            + ("." if isinstance(model, Checkpoint) else ", or training images as normalised.")
        )
    return TrainingImages(given, given)


def evenly_spread(images: Tensor) -> Tensor:
    """Select ``TRAINING_IMAGES`` evenly spaced images, or all if there are fewer.

    Of twice as many or more they are a whole number apart, counted from the first, so that up to a
    third at the end is not reached (n = 3071); of fewer one or two apart, from first to last.

    Example:
        >>> evenly_spread(torch.arange(10_000)).shape
        torch.Size([1024])
    """
    n = len(images)
    if spreads_over_all(n):
        return images[torch.arange(TRAINING_IMAGES) * (n - 1) // (TRAINING_IMAGES - 1)]
    step = max(1, n // TRAINING_IMAGES)
    return images[::step][:TRAINING_IMAGES]


def spreads_over_all(n_images: int) -> bool:
    """Whether ``TRAINING_IMAGES`` of so many are one or two apart.

    They were the first ones once: chips that are calibrated on such a number have an identity of
    their own.

    Example:
        >>> spreads_over_all(1295), spreads_over_all(45_000)
        (True, False)
    """
    return TRAINING_IMAGES < n_images < 2 * TRAINING_IMAGES


def input_for(checkpoint: Checkpoint) -> Tensor:
    """Return one network input, shape (1, ...): noise or tokens of a fixed seed.

    Example:
        >>> input_for(checkpoint).shape
        torch.Size([1, 1, 8, 8])
    """
    return models.any_input(checkpoint.image_shape, checkpoint.n_tokens, checkpoint.spec.packing)
