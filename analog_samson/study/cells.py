"""Cells and converters of the chips of a study: conductances, and what is cut off."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from analog_samson.checkpoint import Checkpoint, load_checkpoint
from analog_samson.chip import Chip, program
from analog_samson.devices import Device, load_device
from analog_samson.study.breakdown import Readings
from analog_samson.study.definition import programming_seed
from analog_samson.study.trial import one_thread

CONDUCTANCE_COLUMNS = (
    "checkpoint",
    "device",
    "t_inference_s",
    "extrapolated",
    "chip",
    "layer",
    "state",
    "target_uS",
    "conductance_uS",
    "width_uS",
    "count",
)
CLIPPING_COLUMNS = (
    "checkpoint",
    "device",
    "t_inference_s",
    "extrapolated",
    "chip",
    "layer",
    "array",
    "n_inputs",
    "n_clipped",
    "n_outputs",
    "n_saturated",
)
BEYOND = 1.25
"""Upper end of the bins, relative to the largest target: our choice; larger values are in the last
bin."""

BATCH = 256

_ANY_SCORE = {"classification": "accuracy", "tokens": "cross_entropy", "regression": "mse"}


def conductance_counts(
    checkpoint: Checkpoint | str | Path,
    device: Device | str | Path,
    t_inference_s: float,
    *,
    chips: int = 1,
    seed: int = 0,
    bins: int = 50,
    trust: Sequence[str] = (),
) -> pd.DataFrame:
    """Count cells by their target and by their conductance, as programmed and as read at a time.

    Args:
        checkpoint: The trained network, or its path.
        device: The device, its name or its path.
        t_inference_s: Time since programming finished [s].
        chips: Number of chips: those of these numbers in a study with this seed.
        seed: Seed of the study.
        bins: Number of bins of target and conductance, of equal width, from the lowest to 1.25
            times the highest conductance of a target; cells beyond are in the first or last bin.
        trust: Packages that checkpoint and device file may import from.

    Returns:
        One row per chip, layer, state ("programmed", where the device has data for t = 0, and
        "read") and pair of bins that is not empty, columns ``CONDUCTANCE_COLUMNS``; targets and
        conductances [µS] are the middles of bins of ``width_uS``.

    Raises:
        ValueError: If the device has no data for the time, or uses aihwkit's weight-level path,
            which has no conductances.

    Example:
        >>> counts = conductance_counts(network, "pcm_like", 3600.0)
        >>> counts.groupby("state")["count"].sum().to_dict()  # cells
        {'programmed': 17664, 'read': 17664}
    """
    if chips < 1 or bins < 1:
        raise ValueError(f"chips and bins must be at least 1; got {chips} and {bins}.")
    device = device if isinstance(device, Device) else load_device(device, trust)
    device.check_time(t_inference_s)
    network = (
        checkpoint if isinstance(checkpoint, Checkpoint) else load_checkpoint(checkpoint, trust)
    )
    low, high = device.noise.conductance_range
    edges = np.linspace(low, low + BEYOND * (high - low), bins + 1)
    start = (
        network.short_digest,
        device.name,
        t_inference_s,
        device.is_extrapolated(t_inference_s),
    )
    rows = []
    for chip in range(chips):
        programmed = program(network, device, seed=programming_seed(seed, network.spec.seed, chip))
        times_s = {"read": t_inference_s}
        if device.noise.has_programmed_state:
            times_s = {"programmed": 0.0, **times_s}
        for state, time_s in times_s.items():
            for layer, counts in _counts(programmed.drift_to(time_s), edges).items():
                for target, value in zip(*counts.nonzero(), strict=True):
                    middles = ((edges[k] + edges[k + 1]) / 2 for k in (target, value))
                    found = (state, *middles, edges[1] - edges[0], int(counts[target, value]))
                    rows.append((*start, chip, layer, *found))
    return pd.DataFrame(rows, columns=list(CONDUCTANCE_COLUMNS))


def clipping_counts(
    checkpoint: Checkpoint | str | Path,
    device: Device | str | Path,
    t_inference_s: float,
    *,
    chips: int = 1,
    seed: int = 0,
    data_folder: Path | None = None,
    n_test: int | None = None,
    trust: Sequence[str] = (),
) -> pd.DataFrame:
    """Count clipped inputs and saturated ADC outputs of every array on the test images.

    Args:
        checkpoint: The trained network, or its path.
        device: The device, its name or its path.
        t_inference_s: Time since programming finished [s].
        chips: Number of chips: those of these numbers in a study with this seed.
        seed: Seed of the study.
        data_folder: Folder of the data sets; None takes the default of ``load_test``.
        n_test: Test images, counted from the first; None takes all.
        trust: Packages that checkpoint and device file may import from.

    Returns:
        One row per chip and array, columns ``CLIPPING_COLUMNS``; arrays of a layer are numbered by
        row block, then column block.

    Raises:
        ValueError: If the device has no data for the time, or its periphery has no converters of
            fixed ranges.

    Example:
        >>> counts = clipping_counts(network, "pcm_like", 3600.0)
        >>> counts[["layer", "array", "n_inputs"]].values.tolist()
        [['fc1', 0, 22976], ['fc2', 0, 22976], ['fc3', 0, 22976]]
    """
    if not isinstance(checkpoint, Checkpoint):
        checkpoint = load_checkpoint(checkpoint, trust)
    score = _ANY_SCORE[checkpoint.task]  # none is computed
    of = Readings.on(checkpoint, device, t_inference_s, data_folder, n_test, score, trust)
    late = of.device.is_extrapolated(t_inference_s)
    start = (of.network.short_digest, of.device.name, t_inference_s, late)
    rows = []
    for chip, chip_seed in enumerate(of.seeds(seed, chips)):
        on_chip = of.programmed(of.device, chip_seed).drift_to(t_inference_s)
        totals: dict[tuple[str, int], np.ndarray] = {}
        with one_thread(), torch.no_grad():
            for first in range(0, len(of.images), BATCH):
                images = of.network.normalise(of.images[first : first + BATCH])
                for layer, arrays in on_chip.count_clipped(images, first).items():
                    for number, one in enumerate(arrays):
                        counts = np.array(list(vars(one).values()))
                        totals[layer, number] = totals.get((layer, number), 0) + counts
        rows += [(*start, chip, *where, *map(int, counts)) for where, counts in totals.items()]
    return pd.DataFrame(rows, columns=list(CLIPPING_COLUMNS))


def _counts(chip: Chip, edges: np.ndarray) -> dict[str, np.ndarray]:
    """Cells of each layer by the bins of target and conductance, shape (bins, bins)."""
    targets, n = chip.target_conductances(), len(edges) - 1
    found: dict[str, np.ndarray] = {}
    for layer, arrays in chip.conductances().items():
        found[layer] = np.zeros((n, n))
        for of_targets, of_values in zip(targets[layer], arrays, strict=True):
            for pair in zip(of_targets, of_values, strict=True):
                x, y = (np.clip(one.numpy().ravel(), edges[0], edges[-1]) for one in pair)
                found[layer] += np.histogram2d(x, y, bins=(edges, edges))[0]
    return found
