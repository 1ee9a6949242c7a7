"""Why is it low? The accuracy of a chip stage by stage, and with one layer analog at a time.

Every stage adds one cause to the one before, on the same chip: the draws of programming, drift and
read noise are those of the whole chip, because each has a stream of its own.
"""

from pathlib import Path
from typing import Any

import pandas as pd
import torch

from analog_samson.checkpoint import Checkpoint, load_checkpoint
from analog_samson.chip import program
from analog_samson.data import Dataset, load_test
from analog_samson.devices import Device, load_device
from analog_samson.evaluation import count_correct
from analog_samson.models import analog_layers
from analog_samson.study.sources import the_training_images

STAGES = (
    "digital",
    "mapped",
    "quantised",
    "programmed",
    "drifted",
    "read",
    "compensated",
)
"""What each adds: conductances without any noise and exact products; converters, bounds and output
noise; programming error (t = 0); drift; read noise; drift compensation. A device without data for
t = 0 has no stage "programmed", one without drift or read noise shows no change there."""

WATERFALL_COLUMNS = ("checkpoint", "device", "t_inference_s", "chip", "stage", "accuracy")
LAYER_COLUMNS = (
    "checkpoint",
    "device",
    "t_inference_s",
    "chip",
    "layer",
    "accuracy",
    "clean_accuracy",
)


def waterfall(
    checkpoint: Checkpoint | str | Path,
    device: Device | str | Path,
    t_inference_s: float,
    *,
    chips: int = 3,
    data_folder: Path | None = None,
    n_images: int | None = None,
) -> pd.DataFrame:
    """Accuracy of chips stage by stage, at one time.

    Args:
        checkpoint: The trained network, or its path.
        device: The device, its name or its path.
        t_inference_s: Time since programming finished [s], above 0.
        chips: Number of chips.
        data_folder: Where the images lie, if not where ``load_test`` looks by itself.
        n_images: Test images, counted from the first; None takes all.

    Returns:
        One row a chip and stage, columns ``WATERFALL_COLUMNS``, accuracy in [0, 1].

    Raises:
        ValueError: If the device has no data for the time, or works on aihwkit's weight level,
            where the stages cannot be told apart.
    """
    device, network, accuracy = _ready(checkpoint, device, t_inference_s, data_folder, n_images)
    if device.noise_level != "conductance":
        raise ValueError(
            f"Device {device.name!r} follows aihwkit's weight-level path, where stages cannot be "
            "told apart; use a device at conductance level."
        )
    digital = network.build()
    images = _training_images(device, network, data_folder)
    rows = []
    for chip in range(chips):
        for stage in STAGES:
            if stage == "digital":
                value = accuracy(lambda images, first_index: digital(images))
            else:
                variant, time = _variant(device, stage, t_inference_s)
                if variant is None:
                    continue
                on_chip = program(network, variant, seed=chip, recalibration=images)
                value = accuracy(on_chip.drift_to(time))
            rows.append((network.digest[:16], device.name, t_inference_s, chip, stage, value))
    return pd.DataFrame(rows, columns=list(WATERFALL_COLUMNS))


def layer_sensitivity(
    checkpoint: Checkpoint | str | Path,
    device: Device | str | Path,
    t_inference_s: float,
    *,
    chips: int = 3,
    data_folder: Path | None = None,
    n_images: int | None = None,
) -> pd.DataFrame:
    """Accuracy with one layer on the chip at a time and all others digital.

    Args:
        checkpoint: As for :func:`waterfall`.
        device: As for :func:`waterfall`.
        t_inference_s: Time since programming finished [s].
        chips: Number of chips.
        data_folder: As for :func:`waterfall`.
        n_images: As for :func:`waterfall`.

    Returns:
        One row a chip and layer, columns ``LAYER_COLUMNS``, accuracies in [0, 1].

    Raises:
        ValueError: If the device has no data for the time.
    """
    device, network, accuracy = _ready(checkpoint, device, t_inference_s, data_folder, n_images)
    digital = network.build()
    clean = accuracy(lambda images, first_index: digital(images))
    images = _training_images(device, network, data_folder)
    layers = list(analog_layers(digital, network.keep_digital))
    rows = []
    for chip in range(chips):
        for layer in layers:
            others = [name for name in layers if name != layer]
            one = program(network, device, seed=chip, keep_digital=others, recalibration=images)
            value = accuracy(one.drift_to(t_inference_s))
            rows.append(
                (network.digest[:16], device.name, t_inference_s, chip, layer, value, clean)
            )
    return pd.DataFrame(rows, columns=list(LAYER_COLUMNS))


def _ready(
    checkpoint: Checkpoint | str | Path,
    device: Device | str | Path,
    t_inference_s: float,
    data_folder: Path | None,
    n_images: int | None,
) -> tuple[Device, Checkpoint, Any]:
    network = checkpoint if isinstance(checkpoint, Checkpoint) else load_checkpoint(checkpoint)
    device = device if isinstance(device, Device) else load_device(device)
    device.check_time(t_inference_s)
    test = load_test(network.spec.dataset, data_folder)
    images, labels = test.images[:n_images], test.labels[:n_images]

    @torch.no_grad()
    def accuracy(forward: Any) -> float:
        return count_correct(forward, images, labels, network.normalise) / len(labels)

    return device, network, accuracy


def _training_images(device: Device, network: Checkpoint, folder: Path | None) -> Dataset | None:
    if not device.needs_training_images:
        return None
    return the_training_images(network.spec.dataset, folder)


def _variant(device: Device, stage: str, t_inference_s: float) -> tuple[Device | None, float]:
    """The device with only the causes up to a stage, and the time at which to read it."""
    time = t_inference_s
    changes: dict[str, dict[str, Any]] = {"drift_compensation": {"kind": "none"}}
    if stage == "compensated":
        return device, time
    if stage in ("mapped", "quantised", "programmed"):
        time = 0.0
    if stage in ("mapped", "quantised"):
        ideal = load_device("ideal")
        largest = getattr(device.noise, "g_max_uS", 25.0)
        content = device.model_dump()
        content["noise"] = ideal.noise.model_dump() | {"g_max_uS": largest}
        content["times"] = {}
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
