"""Simulation of a trial: a chip is programmed once and evaluated at its times."""

import contextlib
import functools
import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import pandas as pd
import torch
from torch import Tensor

from analog_samson.analog import draws_from_the_clock
from analog_samson.checkpoint import Checkpoint
from analog_samson.chip import Chip, ChipGroup, MappedNetwork
from analog_samson.data import Dataset
from analog_samson.evaluation import (
    EVALUATION_BATCH,
    exact_products,
    find_accelerator,
    is_correct,
    score_by_sample,
)
from analog_samson.importing import is_import_name
from analog_samson.memory import freed_memory_kept, return_freed_memory
from analog_samson.models import analog_share
from analog_samson.provenance import TOLERANCE_ELSEWHERE
from analog_samson.results import COLUMNS, SCORE_COLUMNS
from analog_samson.streams import derive_seed
from analog_samson.study.definition import Point, Trial
from analog_samson.study.scoring import function_of, is_counted
from analog_samson.study.sources import (
    the_checkpoint,
    the_test_images,
    the_test_inputs,
    the_test_set,
    the_training_images,
)

MOST_BATCHES = 16
"""Evaluation batches that run as one where results are bitwise equal: our choice, for caches."""

KEPT_BYTES = 64e6
"""Up to this size normalised test images are kept in the process; larger sets are normalised batch
by batch: our choice (MNIST has 31 MB)."""


def run_trial(trial: Trial, points: Sequence[Point] | None = None) -> pd.DataFrame:
    """Program one chip and evaluate it at its times.

    Args:
        trial: The chip.
        points: Times and reads; None takes all of the trial's.

    Returns:
        One row per point, columns ``results.COLUMNS``.

    Example:
        >>> points = run_trial(study.trials()[0])
        >>> points["t_inference_s"].tolist(), points["n_images_per_chip"].unique()
        ([1.0, 3600.0, 2592000.0], array([359]))
    """
    return pd.DataFrame(run_together([trial], trial.points if points is None else points))


def run_together(
    trials: Sequence[Trial], points: Sequence[Point], chips_together: int = 1
) -> dict[str, list[Any]]:
    """Program chips of one network on one device and evaluate them with batched inference.

    Args:
        trials: The chips.
        points: Times and reads.
        chips_together: Number of chips whose inference is batched; a smaller group is padded.

    Returns:
        The columns ``results.COLUMNS``, one value per chip and point.

    Raises:
        ValueError: If the chips cannot be batched, or the accelerator is not available.
    """
    accelerator = find_accelerator(trials[0].accelerator)
    with one_thread(), freed_memory_kept(), exact_products(accelerator):
        return _run_together(trials, points, chips_together)


@contextlib.contextmanager
def one_thread() -> Iterator[None]:
    """Set torch to one thread, as in every worker of a study.

    Nothing is set where torch has one thread already: setting it would discard compiled kernels.
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


_latest_mapped: list[tuple[tuple[object, ...], MappedNetwork]] = []


def mapped(trial: Trial) -> MappedNetwork:
    """The network of a trial mapped to its device; the latest is cached for the next chip."""
    key = trial.checkpoint, trial.device, trial.engine, trial.precision, trial.n_images_per_chip
    if not _latest_mapped or _latest_mapped[0][0] != key:
        is_other = not _latest_mapped or _latest_mapped[0][0][0] != trial.checkpoint
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
        if is_other:  # another condition of the same network uses the memory again
            return_freed_memory()
    return _latest_mapped[0][1]


def reading(chips: Sequence[Chip], chips_together: int) -> Chip | ChipGroup:
    """The chip, or the group of chips whose inference is batched."""
    return chips[0] if chips_together == 1 else ChipGroup(chips, size=chips_together)


def images_of(trial: Trial) -> slice | Tensor:
    """Indices in the test set of the images that a chip is evaluated on, ascending.

    All of them, or a random subset without replacement. It derives from the chip's
    seed: it is the same at all times and reads, and for all methods.
    """
    if trial.n_images_per_chip == trial.n_test:
        return slice(trial.n_test)
    draws = torch.Generator().manual_seed(derive_seed(trial.programming_seed, "images"))
    return torch.randperm(trial.n_test, generator=draws)[: trial.n_images_per_chip].sort().values


def _batch_size(read_at: Chip | ChipGroup, trial: Trial) -> int:
    """Images per batch: larger batches save calls; used where results are bitwise equal."""
    if not read_at.is_batch_invariant or trial.accelerator != "cpu":
        return EVALUATION_BATCH
    return min(trial.n_images_per_chip, MOST_BATCHES * EVALUATION_BATCH)


def values_of_images(trial: Trial, chosen: slice | Tensor) -> Callable[..., Tensor]:
    """A function of a forward pass: the value of the score on each of some test images.

    Its result has shape (n,), or (chips, n) for a group of chips; for accuracy it is bool, whether
    the prediction is correct, for other scores float64.

    Args:
        trial: The trial, whose network normalises the images.
        chosen: Indices of the images. Forward noise, whose seeds derive from (chip, time, read,
            image), numbers them from 0.
    """
    checkpoint = the_checkpoint(trial.checkpoint_path, trial.checkpoint, trial.trust)
    where = trial.spec.dataset, trial.data_folder
    test = the_test_set(*where)
    images, normalise = the_test_images(*where, trial.accelerator), checkpoint.normalise
    if images.numel() * torch.float32.itemsize <= KEPT_BYTES:
        statistics = checkpoint.mean, checkpoint.std, checkpoint.pixel_scale
        images, normalise = the_test_inputs(*where, trial.accelerator, *statistics), _as_it_is
    if is_counted(trial.score):
        return functools.partial(
            is_correct,
            images=images[chosen],
            labels=test.labels[chosen],
            normalise=normalise,
        )
    function = function_of(trial.score)
    samples, targets = images[chosen], test.labels[chosen]

    def values(forward: Callable[..., Tensor], batch_size: int = EVALUATION_BATCH) -> Tensor:
        return score_by_sample(
            function,
            forward,
            samples,
            targets,
            normalise,
            name=trial.score,
            n_chips=len(forward.chips) if isinstance(forward, ChipGroup) else None,
            batch_size=batch_size,
        )

    return values


def _as_it_is(images: Tensor) -> Tensor:
    return images


def _run_together(
    trials: Sequence[Trial], points: Sequence[Point], chips_together: int
) -> dict[str, list[Any]]:
    first = trials[0]  # network, device and images are those of all
    chosen = images_of(first)
    evaluate = values_of_images(first, chosen)
    all_digital, share = _digital(first)
    digital = all_digital[chosen]
    of_network = _digital_totals(first, digital, all_digital) | {"analog_share": share}
    chips = mapped(first).program_together([trial.programming_seed for trial in trials])
    from_a_seed = chips[0].engine == "compiled" or not draws_from_the_clock(first.device)
    labels = [trial.labels | of_network | {"reproducible": from_a_seed} for trial in trials]
    read_at = reading(chips, chips_together)
    rows = []
    for time, read in points:
        read_at.drift_to(time, read)
        found = evaluate(read_at, batch_size=_batch_size(read_at, first)).view(len(trials), -1)
        for chip, known, values in zip(chips, labels, found, strict=True):
            alphas = torch.cat(list(chip.compensation().values()))
            rows.append(
                known
                | {
                    "t_inference_s": time,
                    "read": read,
                    **_chip_totals(first, values, digital),
                    "alpha": float(alphas.double().mean()),
                    "extrapolated": first.device.is_extrapolated(time),
                }
            )
    columns = COLUMNS if is_counted(first.score) else SCORE_COLUMNS
    return {name: [row[name] for row in rows] for name in columns}


def _digital_totals(trial: Trial, digital: Tensor, all_digital: Tensor) -> dict[str, int | float]:
    """Columns of the digital network: on the images of a chip, and on all."""
    if is_counted(trial.score):
        return {
            "n_correct_digital": int(digital.sum()),
            "n_correct_digital_test": int(all_digital.sum()),
        }
    return {
        "sum_digital": float(digital.sum()),
        "sum_squares_digital": float(digital.square().sum()),
        "sum_digital_test": float(all_digital.sum()),
    }


def _chip_totals(trial: Trial, values: Tensor, digital: Tensor) -> dict[str, int | float]:
    """Columns of a chip, from its values on its images."""
    if is_counted(trial.score):
        return {"n_correct": int(values.sum()), "n_changed": int((values != digital).sum())}
    return {
        "sum": float(values.sum()),
        "sum_squares": float(values.square().sum()),
        "sum_products": float((values * digital).sum()),
    }


def _training_images(trial: Trial) -> Dataset | None:
    if not trial.device.needs_training_images:
        return None
    return the_training_images(trial.spec.dataset, trial.data_folder)


_digital_results: dict[tuple[str, str, int, tuple[str, ...], str, str], tuple[Tensor, float]] = {}


def _digital(trial: Trial) -> tuple[Tensor, float]:
    """Values of the digital network on all images, and its analog share; cached."""
    checkpoint = the_checkpoint(trial.checkpoint_path, trial.checkpoint, trial.trust)
    keep_digital = (*checkpoint.keep_digital, *trial.device.digital_layers)
    what = trial.checkpoint, trial.evaluation_set, trial.n_test, keep_digital
    key = (*what, trial.accelerator, trial.score)
    if key not in _digital_results:
        network = checkpoint.build().to(trial.accelerator)
        evaluate = values_of_images(trial, slice(trial.n_test))
        values = evaluate(lambda batch, first_index: network(batch))
        if is_counted(trial.score):
            _check_is_the_same(checkpoint, int(values.sum()), trial)
        _digital_results[key] = values, analog_share(network, keep_digital)
    return _digital_results[key]


def _check_is_the_same(checkpoint: Checkpoint, n_correct: int, trial: Trial) -> None:
    """Raise ValueError if a network of other code is not the one that was evaluated when saved.

    The count was of all test images; of the first n it lies between bounds.
    """
    n, all_images, recorded = trial.n_test, checkpoint.n_test, checkpoint.n_correct_digital
    allowed = math.ceil(TOLERANCE_ELSEWHERE * n)
    fewest, most = max(0, recorded - (all_images - n)), min(n, recorded)
    if not is_import_name(trial.spec.model) or fewest - allowed <= n_correct <= most + allowed:
        return
    raise ValueError(
        f"The network {trial.spec.model!r}, built again from {trial.checkpoint_path}, classifies "
        f"{n_correct} of {n} test images correctly; when the checkpoint was written it was "
        f"{recorded} of {all_images}. It has state that its state dict does not hold (register "
        "buffers), its code has changed, or the images are others: train or import it again."
    )
