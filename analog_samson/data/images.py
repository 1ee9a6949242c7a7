"""From stored values to network inputs: normalisation and augmentation."""

from collections.abc import Sequence

import torch
from torch import Tensor

from analog_samson.data.encoded import decoded

AUGMENTATIONS = ("none", "crop", "crop_flip")
"""Allowed augmentations; "crop" is for images that must not be mirrored."""


def normalise(
    images: Tensor, *, mean: Sequence[float], std: Sequence[float], full_scale: float = 255.0
) -> Tensor:
    """Convert stored values to network inputs: (images / full_scale - mean) / std.

    Args:
        images: uint8 images, shape (n, C, H, W), also encoded ones, or features (floats, shape
            (n, channels, ...)), on any accelerator. Tokens (int64) are returned as they are.
        mean: One number per channel, in units of full scale.
        std: One positive number per channel, in units of full scale.
        full_scale: Pixel value that means 1.0; 1 for features.

    Returns:
        float32 of the same shape, on the same accelerator.

    Raises:
        ValueError: If the number of means or standard deviations differs from the number of
            channels, or a standard deviation is not positive.

    Example:
        >>> pixels = torch.tensor([[[[0, 255]]]], dtype=torch.uint8)
        >>> normalise(pixels, mean=[0.5], std=[0.25])
        tensor([[[[-2.,  2.]]]])
    """
    images = decoded(images)
    if images.dtype == torch.int64:
        return images
    channels = images.shape[1]
    if len(mean) != channels or len(std) != channels or not all(value > 0 for value in std):
        raise ValueError(
            f"Images with {channels} channel(s) need {channels} mean(s) and as many positive "
            f"standard deviations; got mean={tuple(mean)}, std={tuple(std)}."
        )
    shape = (1, channels, *[1] * (images.ndim - 2))
    centre = torch.tensor(mean, dtype=torch.float32, device=images.device).view(shape)
    spread = torch.tensor(std, dtype=torch.float32, device=images.device).view(shape)
    inputs = images.to(torch.float32, copy=True)
    return inputs.div_(full_scale).sub_(centre).div_(spread)


def augmented(images: Tensor, augmentation: str, generator: torch.Generator) -> Tensor:
    """Augment images as in training.

    Args:
        images: As for :func:`augment`.
        augmentation: A name from `AUGMENTATIONS`.
        generator: Random generator; not used with "none".

    Returns:
        Images of the same shape and dtype.

    Raises:
        ValueError: If the inputs are not images.

    Example:
        >>> generator = torch.Generator().manual_seed(0)
        >>> torch.equal(augmented(images, "none", generator), images)
        True
    """
    if augmentation == "none":
        return images
    check_augmentation(augmentation, images)
    images = decoded(images)
    return augment(images, generator=generator, flip=augmentation == "crop_flip")


def check_augmentation(augmentation: str, images: Tensor) -> None:
    """Raise ValueError if inputs that are not images, uint8 (n, C, H, W), would be augmented.

    Example:
        >>> check_augmentation("none", torch.zeros(4, 16, dtype=torch.int64))  # tokens
        >>> check_augmentation("crop+flip", torch.zeros(4, 16, dtype=torch.int64))
        Traceback (most recent call last):
            ...
        ValueError: augmentation='crop+flip' shifts and mirrors images, ...
    """
    if augmentation != "none" and (images.dtype != torch.uint8 or images.ndim != 4):
        raise ValueError(
            f"augmentation={augmentation!r} shifts and mirrors images, and the inputs are "
            f"{images.dtype} of shape {tuple(images.shape[1:])}; give 'none'."
        )


def augment(
    images: Tensor, *, generator: torch.Generator, padding: int = 4, flip: bool = True
) -> Tensor:
    """Shift each image at random and mirror it with probability 1/2, independently per image.

    The usual augmentation of CIFAR (He et al., CVPR 2016, section 4.2): zero padding, a random crop
    of the original size, a horizontal flip with probability 1/2. With uint8 images the border is
    black.

    Args:
        images: Shape (n, C, H, W), any dtype and accelerator.
        generator: Random generator; three draws per image, always in the same order.
        padding: Largest shift in each direction [pixels]; 0 for none.
        flip: Whether to mirror; not for digits.

    Returns:
        New images of the same shape and dtype.

    Raises:
        ValueError: If the padding is negative.

    Example:
        >>> generator = torch.Generator().manual_seed(0)
        >>> augment(dataset.train.images[:16], generator=generator, padding=1, flip=False).shape
        torch.Size([16, 1, 8, 8])
    """
    if padding < 0:
        raise ValueError(f"padding must be at least 0 pixels; got {padding}.")
    n, _, height, width = images.shape
    accelerator = images.device

    def draw(values: int) -> Tensor:
        drawn = torch.randint(values, (n, 1), generator=generator, device=generator.device)
        return drawn.to(accelerator)

    top, left, mirrored = draw(2 * padding + 1), draw(2 * padding + 1), draw(2)
    rows = top + torch.arange(height, device=accelerator)
    columns = torch.arange(width, device=accelerator).expand(n, width)
    if flip:
        columns = torch.where(mirrored.bool(), width - 1 - columns, columns)
    columns = left + columns
    padded = torch.nn.functional.pad(images, (padding,) * 4).permute(0, 2, 3, 1)
    picture = torch.arange(n, device=accelerator)[:, None, None]
    cropped = padded[picture, rows[:, :, None], columns[:, None, :]]
    return cropped.permute(0, 3, 1, 2).contiguous()
