"""One trial: a chip is programmed once and read at its times."""

import functools
from collections.abc import Callable, Sequence

import pandas as pd
import torch

from analog_samson.analog import draws_from_the_clock
from analog_samson.checkpoint import Checkpoint
from analog_samson.chip import program
from analog_samson.data import Dataset
from analog_samson.evaluation import count_correct
from analog_samson.models import analog_share
from analog_samson.results import COLUMNS
from analog_samson.study.definition import Point, Trial
from analog_samson.study.sources import the_checkpoint, the_test_set, the_training_images


def run_trial(trial: Trial, points: Sequence[Point] | None = None) -> pd.DataFrame:
    """Program one chip and read it at its times.

    Args:
        trial: The chip.
        points: Times and reads; None takes all of the trial's.

    Returns:
        One row a point, columns ``results.COLUMNS``.
    """
    n_threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        return _run_trial(trial, trial.points if points is None else points)
    finally:
        torch.set_num_threads(n_threads)


def _run_trial(trial: Trial, points: Sequence[Point]) -> pd.DataFrame:
    checkpoint = the_checkpoint(trial.checkpoint_path, trial.checkpoint)
    test = the_test_set(trial.spec.dataset, trial.data_folder)
    count = functools.partial(
        count_correct,
        images=test.images[: trial.n_images],
        labels=test.labels[: trial.n_images],
        normalise=checkpoint.normalise,
    )
    n_correct_digital, share = _digital(trial, checkpoint, count)
    chip = program(
        checkpoint,
        trial.device,
        seed=trial.programming_seed,
        engine=trial.engine,
        precision=trial.precision,
        expected_images=trial.n_images,
        recalibration=_training_images(trial),
    )
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
