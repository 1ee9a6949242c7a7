"""One trial: a chip is programmed once and read at its times; or several chips together."""

import contextlib
import functools
from collections.abc import Callable, Iterator, Sequence

import pandas as pd
import torch
from torch import Tensor

from analog_samson.analog import draws_from_the_clock
from analog_samson.chip import Chip, ChipGroup, MappedNetwork
from analog_samson.data import Dataset
from analog_samson.evaluation import EVALUATION_BATCH, device_of, exact_products, is_correct
from analog_samson.models import analog_share
from analog_samson.results import COLUMNS
from analog_samson.running import return_freed_memory
from analog_samson.streams import derive_seed
from analog_samson.study.definition import Point, Trial
from analog_samson.study.sources import (
    the_checkpoint,
    the_test_images,
    the_test_inputs,
    the_test_set,
    the_training_images,
)

MOST_BATCHES = 16
"""Batches of evaluation that run as one where that changes no bit: our choice, for the caches."""

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
    return run_together([trial], trial.points if points is None else points)


def run_together(
    trials: Sequence[Trial], points: Sequence[Point], chips_together: int = 1
) -> pd.DataFrame:
    """Program chips of one network on one device and read them at their times, all at once.

    Args:
        trials: The chips; one, where chips answer alone.
        points: Times and reads.
        chips_together: How many chips answer in one forward pass; fewer are filled up to it.

    Returns:
        One row a chip and point, columns ``results.COLUMNS``.

    Raises:
        ValueError: If the chips cannot answer together, or there is no such accelerator here.
    """
    with one_thread(), exact_products(device_of(trials[0].accelerator)):
        return _run_together(trials, points, chips_together)


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
    return _mapped(trial).program(trial.programming_seed)


_latest_mapped: list[tuple[object, MappedNetwork]] = []


def _mapped(trial: Trial) -> MappedNetwork:
    """The network of a trial on its device; the latest is kept, for the next chip of both."""
    key = trial.checkpoint, trial.device, trial.engine, trial.precision, trial.n_images_per_chip
    if not _latest_mapped or _latest_mapped[0][0] != key:
        _latest_mapped[:] = []  # two at a time may not fit into memory
        mapped = MappedNetwork(
            the_checkpoint(trial.checkpoint_path, trial.checkpoint, trial.trust),
            trial.device,
            engine=trial.engine,
            precision=trial.precision,
            expected_images=trial.n_images_per_chip,
            recalibration=_training_images(trial),
        )
        _latest_mapped[:] = [(key, mapped)]
        return_freed_memory()
    return _latest_mapped[0][1]


def reading(chips: Sequence[Chip], chips_together: int) -> Chip | ChipGroup:
    """What is read at a time: a chip, or several that answer together."""
    return chips[0] if chips_together == 1 else ChipGroup(chips, size=chips_together)


def images_of(trial: Trial) -> slice | Tensor:
    """Positions in the test set of the images that a chip answers, ascending.

    All of them, or a random subset without replacement. It derives from the chip's stream
    alone: it is the same at all its times and reads, and for every method that meets the chip.
    """
    if trial.n_images_per_chip == trial.n_test:
        return slice(trial.n_test)
    draws = torch.Generator().manual_seed(derive_seed(trial.programming_seed, "images"))
    return torch.randperm(trial.n_test, generator=draws)[: trial.n_images_per_chip].sort().values


def _batch_size(read_at: Chip | ChipGroup, trial: Trial) -> int:
    """Images in a batch: larger ones save calls and are used where they change no bit."""
    is_free = isinstance(read_at, Chip) and read_at.is_batch_invariant
    if not is_free or trial.accelerator != "cpu":
        return EVALUATION_BATCH
    return min(-(-trial.n_images_per_chip // EVALUATION_BATCH), MOST_BATCHES) * EVALUATION_BATCH


def answering(trial: Trial, chosen: slice | Tensor) -> Callable[..., Tensor]:
    """A function that says which of some test images a network gets right.

    It gives bool of shape (n,), or (chips, n) where several chips answer together.

    Args:
        trial: Its network normalises the images.
        chosen: Positions of the images. For forward noise, which belongs to (chip, time, read,
            image), they are numbered anew from 0.
    """
    checkpoint = the_checkpoint(trial.checkpoint_path, trial.checkpoint, trial.trust)
    where = trial.spec.dataset, trial.data_folder
    test = the_test_set(*where)
    images, normalise = the_test_images(*where, trial.accelerator), checkpoint.normalise
    if images.numel() * torch.float32.itemsize <= KEPT_BYTES:
        statistics = checkpoint.mean, checkpoint.std
        images, normalise = the_test_inputs(*where, trial.accelerator, *statistics), _as_it_is
    return functools.partial(
        is_correct,
        images=images[chosen],
        labels=test.labels[chosen],
        normalise=normalise,
    )


def _as_it_is(images: Tensor) -> Tensor:
    return images


def _run_together(
    trials: Sequence[Trial], points: Sequence[Point], chips_together: int
) -> pd.DataFrame:
    first = trials[0]  # network, device and images are those of all
    chosen = images_of(first)
    answers = answering(first, chosen)
    all_digital, share = _digital(first)
    digital = all_digital[chosen]
    digital_counts = {
        "n_correct_digital": int(digital.sum()),
        "n_correct_digital_test": int(all_digital.sum()),
    }
    chips = [programmed(trial) for trial in trials]
    read_at = reading(chips, chips_together)
    rows = []
    for time, read in points:
        read_at.drift_to(time, read)
        correct = answers(read_at, batch_size=_batch_size(read_at, first)).view(len(trials), -1)
        for trial, chip, right in zip(trials, chips, correct, strict=True):
            alphas = torch.cat(list(chip.compensation().values()))
            from_a_seed = chip.engine == "compiled" or not draws_from_the_clock(trial.device)
            rows.append(
                {
                    **trial.labels,
                    "t_inference_s": time,
                    "read": read,
                    "n_correct": int(right.sum()),
                    **digital_counts,
                    "n_changed": int((right != digital).sum()),
                    "analog_share": share,
                    "alpha": float(alphas.double().mean()),
                    "extrapolated": trial.device.is_extrapolated(time),
                    "reproducible": from_a_seed,
                }
            )
    return pd.DataFrame(rows, columns=list(COLUMNS))


def _training_images(trial: Trial) -> Dataset | None:
    if not trial.device.needs_training_images:
        return None
    return the_training_images(trial.spec.dataset, trial.data_folder)


_digital_answers: dict[tuple[str, str, int, tuple[str, ...], str], tuple[Tensor, float]] = {}


def _digital(trial: Trial) -> tuple[Tensor, float]:
    """Which images the digital network gets right, its share of analog weights; once a worker."""
    checkpoint = the_checkpoint(trial.checkpoint_path, trial.checkpoint, trial.trust)
    keep_digital = (*checkpoint.keep_digital, *trial.device.digital_layers)
    what = trial.checkpoint, trial.evaluation_set, trial.n_test, keep_digital
    key = (*what, trial.accelerator)
    if key not in _digital_answers:
        network = checkpoint.build().to(trial.accelerator)
        answers = answering(trial, slice(trial.n_test))
        correct = answers(lambda batch, first_index: network(batch))
        _digital_answers[key] = correct, analog_share(network, keep_digital)
    return _digital_answers[key]
