"""Trained networks and test images, read once a process."""

import functools
from pathlib import Path

from analog_samson.checkpoint import Checkpoint, load_checkpoint
from analog_samson.data import Split, load_test


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
