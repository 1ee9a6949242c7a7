"""Trained networks and test images, read once a process."""

import functools
from pathlib import Path

import torch
from torch import Tensor

from analog_samson.checkpoint import Checkpoint, load_checkpoint
from analog_samson.data import Dataset, Split, load_dataset, load_test

RECALIBRATION_IMAGES = 1024
"""Training images that batch normalisation is recalibrated on: Joshi et al. (2020) use a few
hundred; 1024 in batches of 32 is our choice."""


@functools.lru_cache(maxsize=4)
def the_checkpoint(path: Path, digest: str) -> Checkpoint:
    """Read a trained network once a process.

    Raises:
        ValueError: If the file is no longer what the study began with.
    """
    checkpoint = load_checkpoint(path)
    if checkpoint.digest != digest:
        raise ValueError(f"{path} has changed since the study began; start the study again.")
    return checkpoint


@functools.lru_cache(maxsize=2)
def the_test_set(name: str, folder: Path | None) -> Split:
    """Read the test images once a process."""
    return load_test(name, folder)


def recalibration_images(dataset: Dataset, split: Split | None = None) -> Tensor:
    """Choose images for the recalibration of batch normalisation: training images, never others.

    Args:
        dataset: The data set.
        split: Its training part, which is also what None takes.

    Returns:
        Up to ``RECALIBRATION_IMAGES`` images as stored, evenly spread over the part, uint8.

    Raises:
        ValueError: If the split is the validation or the test part of the data set.
    """
    for name in ("test", "validation"):
        part: Split = getattr(dataset, name)
        same = split is not None and torch.equal(split.images, part.images)
        if same and split is not dataset.train:
            raise ValueError(
                f"Recalibration must not see the {name} images of {dataset.name}; give its "
                "training images."
            )
    images = (dataset.train if split is None else split).images
    step = max(1, len(images) // RECALIBRATION_IMAGES)
    return images[::step][:RECALIBRATION_IMAGES]


@functools.lru_cache(maxsize=1)
def the_recalibration_images(path: Path, digest: str, folder: Path | None) -> Tensor:
    """Training images as a trained network takes them, read once a process."""
    checkpoint = the_checkpoint(path, digest)
    dataset = load_dataset(checkpoint.spec.dataset, folder)
    return checkpoint.normalise(recalibration_images(dataset))
