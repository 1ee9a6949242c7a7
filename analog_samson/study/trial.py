"""One trial: a chip is programmed once and read at its times."""

import contextlib
import functools
from collections.abc import Callable, Iterator, Sequence

import pandas as pd
import torch
from torch import Tensor

from analog_samson.analog import draws_from_the_clock
from analog_samson.checkpoint import Checkpoint
from analog_samson.chip import Chip, program
from analog_samson.data import Dataset
from analog_samson.evaluation import count_correct
from analog_samson.models import analog_share
from analog_samson.results import COLUMNS
from analog_samson.running import return_freed_memory
from analog_samson.study.definition import Point, Trial
from analog_samson.study.sources import (
    the_checkpoint,
    the_test_inputs,
    the_test_set,
    the_training_images,
)

KEPT_BYTES = 64e6
"""Test images whose network inputs take no more are normalised once a process, larger sets batch by
batch: our choice. MNIST takes 31 MB; where images are larger, so are networks."""


def run_trial(trial: Trial, points: Sequence[Point] | None = None) -> pd.DataFrame:
    """Program one chip and read it at its times.

    Args:
        trial: The chip.
        points: Times and reads; None takes all of the trial's.

    Returns:
        One row a point, columns ``results.COLUMNS``.
    """
    with one_thread():
        return _run_trial(trial, trial.points if points is None else points)


@contextlib.contextmanager
def one_thread() -> Iterator[None]:
    """Let torch use one thread, as every worker of a study does.

    Where it does already nothing is set: to set it makes torch forget its compiled products.
    """
    n_threads = torch.get_num_threads()
    if n_threads == 1:
        yield
        return
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(n_threads)


def programmed(trial: Trial) -> Chip:
    """The chip of a trial as programmed."""
    return program(
        the_checkpoint(trial.checkpoint_path, trial.checkpoint),
        trial.device,
        seed=trial.programming_seed,
        engine=trial.engine,
        precision=trial.precision,
        expected_images=trial.n_images,
        recalibration=_training_images(trial),
    )


def counting(trial: Trial, n_images: int) -> Callable[[Callable[..., Tensor]], int]:
    """A function that counts a network's correct answers to the first images of the test set."""
    checkpoint = the_checkpoint(trial.checkpoint_path, trial.checkpoint)
    where = trial.spec.dataset, trial.data_folder
    test = the_test_set(*where)
    images, normalise = test.images, checkpoint.normalise
    if images.numel() * torch.float32.itemsize <= KEPT_BYTES:
        images, normalise = the_test_inputs(*where, checkpoint.mean, checkpoint.std), _as_it_is
    return functools.partial(
        count_correct,
        images=images[:n_images],
        labels=test.labels[:n_images],
        normalise=normalise,
    )


def _as_it_is(images: Tensor) -> Tensor:
    return images


def _run_trial(trial: Trial, points: Sequence[Point]) -> pd.DataFrame:
    checkpoint = the_checkpoint(trial.checkpoint_path, trial.checkpoint)
    count = counting(trial, trial.n_images)
    n_correct_digital, share = _digital(trial, checkpoint, count)
    chip = programmed(trial)
    return_freed_memory()
    rows = []
    for time, read in points:
        chip.drift_to(time, read)
        alphas = torch.cat(list(chip.compensation().values()))
        rows.append(
            {
                **trial.labels,
                "t_inference_s": time,
                "read": read,
                "n_correct": count(chip),
                "n_correct_digital": n_correct_digital,
                "analog_share": share,
                "alpha": float(alphas.double().mean()),
                "extrapolated": trial.device.is_extrapolated(time),
                "reproducible": chip.engine == "compiled" or not draws_from_the_clock(trial.device),
            }
        )
    return pd.DataFrame(rows, columns=list(COLUMNS))


def _training_images(trial: Trial) -> Dataset | None:
    if not trial.device.needs_training_images:
        return None
    return the_training_images(trial.spec.dataset, trial.data_folder)


_digital_counts: dict[tuple[str, str, int, tuple[str, ...]], tuple[int, float]] = {}


def _digital(trial: Trial, checkpoint: Checkpoint, count: Callable[..., int]) -> tuple[int, float]:
    """The digital network's correct answers and its share of analog weights, once a worker."""
    keep_digital = (*checkpoint.keep_digital, *trial.device.digital_layers)
    key = (trial.checkpoint, trial.evaluation_set, trial.n_images, keep_digital)
    if key not in _digital_counts:
        network = checkpoint.build()
        n_correct = count(lambda batch, first_index: network(batch))
        _digital_counts[key] = n_correct, analog_share(network, keep_digital)
    return _digital_counts[key]
