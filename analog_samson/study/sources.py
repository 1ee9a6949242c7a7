"""Trained networks and images, read once per process."""

import functools
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from torch import Tensor

from analog_samson.checkpoint import Checkpoint, load_checkpoint
from analog_samson.chip import evenly_spread, spreads_over_all
from analog_samson.data import Dataset, Split, is_published, load_dataset, load_test, normalise


def the_checkpoint(path: Path, digest: str | None = None, trust: Sequence[str] = ()) -> Checkpoint:
    """Read a trained network once per process.

    Args:
        path: Its file.
        digest: SHA-256 of its contents when the study began; None: not checked.
        trust: As for :func:`load_checkpoint`.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If the file has changed since the study began, is damaged, or names code of a
            package that is not trusted.
    """
    written = path.stat().st_mtime_ns if path.is_file() else 0
    checkpoint = _read(path, written, tuple(trust))
    if digest is not None and checkpoint.digest != digest:
        raise ValueError(f"{path} has changed since the study began; start the study again.")
    return checkpoint


@functools.lru_cache(maxsize=4)
def _read(path: Path, written: int, trust: tuple[str, ...]) -> Checkpoint:
    return load_checkpoint(path, trust)


@functools.lru_cache(maxsize=2)
def the_test_set(name: str, folder: Path | None) -> Split:
    """Read the test images once per process."""
    return load_test(name, folder)


@functools.lru_cache(maxsize=1)
def the_test_images(name: str, folder: Path | None, accelerator: str) -> Tensor:
    """The test images on the accelerator, once per process."""
    return the_test_set(name, folder).images.to(accelerator)


@functools.lru_cache(maxsize=1)
def the_test_inputs(
    name: str,
    folder: Path | None,
    accelerator: str,
    mean: tuple[float, ...],
    std: tuple[float, ...],
    full_scale: float,
) -> Tensor:
    """The test images normalised with these statistics, once per process."""
    images = the_test_images(name, folder, accelerator)
    return normalise(images, mean=mean, std=std, full_scale=full_scale)


def the_training_images(name: str, folder: Path | None) -> Dataset:
    """The data set with only the training images that a chip is calibrated on, once per process."""
    return _training_images(name, folder)[0]


@functools.lru_cache(maxsize=8)
def training_images_spread(name: str, folder: Path | None) -> bool:
    """Whether the training images that a chip is calibrated on are one or two apart.

    The published sets are larger and not read for it.
    """
    return not is_published(name) and spreads_over_all(_training_images(name, folder)[1])


@functools.lru_cache(maxsize=1)
def _training_images(name: str, folder: Path | None) -> tuple[Dataset, int]:
    """The data set with few training images, and how many it has."""
    dataset = load_dataset(name, folder)
    train = dataset.train
    few = Split(evenly_spread(train.images), evenly_spread(train.labels))
    return replace(dataset, train=few, validation=few), len(train)
