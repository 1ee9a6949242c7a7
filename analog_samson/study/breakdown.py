"""Breakdown of the score of a chip: stage by stage, and with one layer analog at a time.

Every stage adds one cause of error to the one before, on the same chip: programming, drift and read
noise have separate random streams. The chips are those of a study: a chip is identified by the
study's seed, the network's training seed and its number.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Self

import pandas as pd
import torch
from torch import Tensor

from analog_samson.checkpoint import Checkpoint, load_checkpoint
from analog_samson.chip import Chip, program
from analog_samson.data import Dataset, load_test
from analog_samson.deprecated import accepts_old_names
from analog_samson.devices import Device, load_device
from analog_samson.devices.maintenance import EVERY_TIME
from analog_samson.evaluation import count_correct, score_by_sample
from analog_samson.models import analog_layers
from analog_samson.results.scores import ACCURACY, Score
from analog_samson.study.definition import programming_seed
from analog_samson.study.scoring import check_score, find_score, function_of, is_counted
from analog_samson.study.sources import the_training_images
from analog_samson.study.trial import one_thread

STAGES = (
    "digital",
    "mapped",
    "quantised",
    "programmed",
    "drifted",
    "read",
    "compensated",
)
"""What each stage adds: conductances without any noise and exact products; converters, bounds and
output noise; programming error (t = 0); drift; read noise; drift compensation. A device without
data for t = 0 has no stage "programmed"; without drift or read noise that stage changes nothing."""

WATERFALL_COLUMNS = (
    "checkpoint",
    "device",
    "t_inference_s",
    "chip",
    "stage",
    "accuracy",
    "extrapolated",
)
LAYER_COLUMNS = (
    "checkpoint",
    "device",
    "t_inference_s",
    "chip",
    "layer",
    "accuracy",
    "clean_accuracy",
    "extrapolated",
)


@accepts_old_names(n_images="n_test")
def accuracy_by_stage(
    checkpoint: Checkpoint | str | Path,
    device: Device | str | Path,
    t_inference_s: float,
    *,
    chips: int = 3,
    seed: int = 0,
    data_folder: Path | None = None,
    n_test: int | None = None,
    score: str = ACCURACY.name,
    trust: Sequence[str] = (),
) -> pd.DataFrame:
    """Accuracy of chips stage by stage, at one time.

    Args:
        checkpoint: The trained network, or its path.
        device: The device, its name or its path.
        t_inference_s: Time since programming finished [s], above 0.
        chips: Number of chips: those of these numbers in a study with this seed.
        seed: Seed of the study. The last stage is the chip of that study in ``trials.csv``, first
            read, if the study evaluates its chips on the same images.
        data_folder: Folder of the data sets; None takes the default of ``load_test``.
        n_test: Test images, counted from the first; None takes all.
        score: What is measured, as for :class:`Study`.
        trust: Packages that checkpoint and device file may import from (see
            :func:`load_checkpoint`).

    Returns:
        One row per chip and stage, columns ``WATERFALL_COLUMNS``, accuracy in [0, 1]. Another score
        has its own column, and the columns ``score`` and ``higher_is_better`` in front.

    Raises:
        ValueError: If the device has no data for the time, or uses aihwkit's weight-level path,
            where the stages cannot be separated.

    Example:
        >>> stages = accuracy_by_stage(network, "pcm_like", 3600.0, chips=1)
        >>> list(stages["stage"])
        ['digital', 'mapped', 'quantised', 'programmed', 'drifted', 'read', 'compensated']
    """
    of = Readings.on(checkpoint, device, t_inference_s, data_folder, n_test, score, trust)
    device, network = of.device, of.network
    if device.noise_level != "conductance":
        raise ValueError(
            f"Device {device.name!r} follows aihwkit's weight-level path, where stages cannot be "
            "separated; use a device at conductance level."
        )
    seeds, late = of.seeds(seed, chips), device.is_extrapolated(t_inference_s)
    rows = []
    for chip in range(chips):
        for stage in STAGES:
            value = of.digital
            if stage != "digital":
                variant, time = _variant(device, stage, t_inference_s)
                if variant is None:
                    continue
                on_chip = of.programmed(variant, seeds[chip])
                value = of.mean(on_chip.drift_to(time))
            rows.append(
                (network.short_digest, device.name, t_inference_s, chip, stage, value, late)
            )
    return of.table(rows, WATERFALL_COLUMNS)


@accepts_old_names(n_images="n_test")
def accuracy_by_layer(
    checkpoint: Checkpoint | str | Path,
    device: Device | str | Path,
    t_inference_s: float,
    *,
    chips: int = 3,
    seed: int = 0,
    data_folder: Path | None = None,
    n_test: int | None = None,
    score: str = ACCURACY.name,
    trust: Sequence[str] = (),
) -> pd.DataFrame:
    """Accuracy with one layer on the chip at a time and all others digital.

    Args:
        checkpoint: As for :func:`accuracy_by_stage`.
        device: As for :func:`accuracy_by_stage`.
        t_inference_s: Time since programming finished [s].
        chips: As for :func:`accuracy_by_stage`.
        seed: As for :func:`accuracy_by_stage`.
        data_folder: As for :func:`accuracy_by_stage`.
        n_test: As for :func:`accuracy_by_stage`.
        score: As for :func:`accuracy_by_stage`.
        trust: As for :func:`accuracy_by_stage`.

    Returns:
        One row per chip and layer, columns ``LAYER_COLUMNS``, accuracies in [0, 1]; of another
        score as for :func:`accuracy_by_stage`.

    Raises:
        ValueError: If the device has no data for the time.

    Example:
        >>> layers = accuracy_by_layer(network, "pcm_like", 3600.0, chips=1)
        >>> list(layers["layer"])
        ['fc1', 'fc2', 'fc3']
    """
    of = Readings.on(checkpoint, device, t_inference_s, data_folder, n_test, score, trust)
    device, network = of.device, of.network
    layers = list(analog_layers(network.build(), network.keep_digital))
    seeds, late = of.seeds(seed, chips), device.is_extrapolated(t_inference_s)
    rows = []
    for chip in range(chips):
        for layer in layers:
            others = [name for name in layers if name != layer]
            one = of.programmed(device, seeds[chip], keep_digital=others)
            value = of.mean(one.drift_to(t_inference_s))
            point = network.short_digest, device.name, t_inference_s
            rows.append((*point, chip, layer, value, of.digital, late))
    return of.table(rows, LAYER_COLUMNS)


@dataclass(frozen=True)
class Readings:
    """A network on a device, its test images, and the mean score of a forward pass."""

    network: Checkpoint
    device: Device
    training: Dataset | None
    images: Tensor
    labels: Tensor
    score: Score

    @classmethod
    def on(
        cls,
        checkpoint: Checkpoint | str | Path,
        device: Device | str | Path,
        t_inference_s: float,
        data_folder: Path | None,
        n_test: int | None,
        score_name: str,
        trust: Sequence[str],
    ) -> Self:
        """Load the network and the test images of its data set; errors as `accuracy_by_stage`."""
        score = find_score(score_name)
        network = (
            checkpoint if isinstance(checkpoint, Checkpoint) else load_checkpoint(checkpoint, trust)
        )
        device = device if isinstance(device, Device) else load_device(device, trust)
        device.check_time(t_inference_s)
        name = network.spec.dataset
        test = load_test(name, data_folder)
        network.check_fits(test)
        check_score(score, network, test)
        training = None
        if device.needs_training_images:
            training = the_training_images(name, data_folder)
        return cls(network, device, training, test.images[:n_test], test.labels[:n_test], score)

    def seeds(self, study_seed: int, n_chips: int) -> list[int]:
        """Programming seeds of the first chips of a study with this seed."""
        training_seed = self.network.spec.seed
        return [programming_seed(study_seed, training_seed, chip) for chip in range(n_chips)]

    def programmed(self, device: Device, seed: int, keep_digital: Sequence[str] = ()) -> Chip:
        """A chip as a study programs it."""
        return program(
            self.network,
            device,
            seed=seed,
            keep_digital=keep_digital,
            expected_images=len(self.labels),
            recalibration=self.training,
        )

    @torch.no_grad()
    def mean(self, forward: Callable[[Tensor, int], Tensor]) -> float:
        """Mean score of a forward pass."""
        what = forward, self.images, self.labels, self.network.normalise
        name = self.score.name
        with one_thread():
            if is_counted(name):
                return count_correct(*what) / len(self.labels)
            return float(score_by_sample(function_of(name), *what, name=name).mean())

    def table(self, rows: Sequence[tuple[Any, ...]], columns: Sequence[str]) -> pd.DataFrame:
        """Rows as a table, the columns of accuracy named after the score."""
        score = self.score
        named = {"accuracy": score.column, "clean_accuracy": score.digital}
        table = pd.DataFrame(rows, columns=[named.get(name, name) for name in columns])
        if not is_counted(score.name):
            table.insert(0, "score", score.name)
            table.insert(1, "higher_is_better", score.is_higher_better)
        return table

    @cached_property
    def digital(self) -> float:
        """Mean score of the digital network."""
        network = self.network.build()
        return self.mean(lambda images, first_index: network(images))


def _variant(device: Device, stage: str, t_inference_s: float) -> tuple[Device | None, float]:
    """The device with the causes of error up to a stage, and the time at which it is read."""
    time = t_inference_s
    plain = {"kind": "none", "measured_at": EVERY_TIME}
    changes: dict[str, dict[str, Any]] = {"drift_compensation": plain}
    if stage == "compensated":
        return device, time
    if stage in ("mapped", "quantised", "programmed"):
        time -= device.cycle_and_age(time)[1]
    if stage in ("mapped", "quantised"):
        ideal = load_device("ideal")
        largest = getattr(device.noise, "g_max_uS", 25.0)
        content = device.model_dump()
        content["noise"] = ideal.noise.model_dump() | {"g_max_uS": largest}
        content["times"] = {}
        content["variation"] = {}
        content["mapping"]["reference_column"] = False  # exact pairs need none
        content["drift_compensation"] = {"kind": "none"}
        if stage == "mapped":
            content["periphery"] = ideal.periphery.model_dump()
        return Device.model_validate(content), time
    if stage == "programmed" and not device.noise.has_programmed_state:
        return None, time
    if stage == "drifted" and hasattr(device.noise, "read_noise_1f_scale"):
        changes["noise"] = {"read_noise_1f_scale": 0.0}
    content = device.model_dump()
    for section, values in changes.items():
        content[section].update(values)
    return Device.model_validate(content), time
