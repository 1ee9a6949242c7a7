"""Trained networks and test images, read once a process."""

import functools
from dataclasses import replace
from pathlib import Path

from analog_samson.checkpoint import Checkpoint, load_checkpoint
from analog_samson.chip import evenly_spread
from analog_samson.data import Dataset, Split, load_dataset, load_test


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


@functools.lru_cache(maxsize=1)
def the_training_images(name: str, folder: Path | None) -> Dataset:
    """The data set with those of its training images only that a chip looks at, once a process."""
    dataset = load_dataset(name, folder)
    train = dataset.train
    few = Split(evenly_spread(train.images), evenly_spread(train.labels))
    return replace(dataset, train=few, validation=few)
