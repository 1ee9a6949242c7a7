"""From a trained network to a chip: mapped, calibrated, programmed; and from a file of one."""

import copy
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from analog_samson import models
from analog_samson.analog import TiledNetwork
from analog_samson.checkpoint import Checkpoint, load_checkpoint, read_tensors
from analog_samson.chip.chip import CHIP_FILE, Chip
from analog_samson.chip.engines import Engine, check_precision, choose_engine
from analog_samson.compiled import FunctionalNetwork, Precision
from analog_samson.data import Dataset
from analog_samson.devices import Device, load_device, validated
from analog_samson.models import batch_norm

TRAINING_IMAGES = 1024
"""Training images of a data set that a chip looks at: Joshi et al. (2020) recalibrate batch
normalisation on a few hundred; 1024, evenly spread, is our choice."""


def program(
    model: nn.Module | Checkpoint | str | Path,
    device: Device | str | Path,
    *,
    seed: int = 0,
    calibration: Tensor | None = None,
    engine: Engine | None = None,
    precision: Precision = "fp32",
    keep_digital: Sequence[str] = (),
    expected_images: int = 0,
    input_ranges: Mapping[str, float] | None = None,
    recalibration: Dataset | Tensor | None = None,
) -> Chip:
    """Program a trained network onto a new chip.

    Args:
        model: A network (left unchanged), or a checkpoint or its path, which brings its own input
            ranges and its own list of digital layers.
        device: A device, its name, or the path of a device file.
        seed: The chip's number in the lottery: programming error, drift exponents, read noise and
            forward noise all derive from it, each by its purpose.
        calibration: Training images as the network takes them, shape (n, ...), on which the range
            of every layer's inputs is measured. Without it, and without a checkpoint, weights and
            drift work and a forward pass through a static-range DAC raises.
        engine: What runs the forward pass; None takes the best that supports the device (see
            :func:`choose_engine`).
        precision: "bf16" lets the compiled engine round the factors of every product to 8 bits.
        keep_digital: Names of layers that stay digital.
        expected_images: How many images every reading will meet. Where they are many, the compiled
            engine traces the network with torch.compile at the first of them (seconds, once an
            architecture), then runs faster.
        input_ranges: Instead of ``calibration``: layer name to the largest input its DAC takes.
        recalibration: What a device looks at that recalibrates batch normalisation or rescales
            layers at every read, or finds input ranges chip by chip: the data set, of which
            ``TRAINING_IMAGES`` training images are taken, never others. For a network that is no
            checkpoint also training images as it takes them, shape (n, ...).

    Returns:
        The chip in its programmed state, t = 0 (a device without data there: at its first time).

    Raises:
        ValueError: If a layer cannot become tiles and is not kept digital, weights are NaN,
            infinite or all zero, the engine or precision is unknown or cannot run the device, or
            the images for recalibration are missing or not known to be training images.
        FileNotFoundError: If there is no such device or checkpoint.
    """
    if not isinstance(device, Device):
        device = load_device(device)
    engine = choose_engine(device, engine)
    check_precision(engine, precision, device)
    if isinstance(model, str | Path):
        model = load_checkpoint(model)
    training = _training_images(recalibration, model)
    keep_digital = (*keep_digital, *device.digital_layers)
    checkpoint = model if isinstance(model, Checkpoint) else None
    if isinstance(model, Checkpoint):
        keep_digital = (*model.keep_digital, *keep_digital)
        model = model.build()
    network = _mapped(model, device, keep_digital)
    products = _products(network, device, keep_digital, training)

    def chip(ranges: Mapping[str, float] | None) -> Chip:
        on_arrays: TiledNetwork | FunctionalNetwork
        if engine == "aihwkit":
            on_arrays = TiledNetwork(network, device, keep_digital, ranges)
        else:
            on_arrays = FunctionalNetwork(
                network, device, keep_digital, ranges, precision, expected_images
            )
        return Chip(on_arrays, device, seed, ranges, keep_digital, training, products)

    if input_ranges is not None or not device.periphery.needs_input_ranges:
        return chip(input_ranges)
    how = device.input_ranges
    if how.of == "chip":
        images = training if calibration is None else calibration
        images = _needed(images, device, "finds input ranges chip by chip")
        held = _holding(network, chip(None).weights())
        return chip(models.input_ranges(held, images, keep_digital, how.quantile))
    if calibration is not None:
        return chip(models.input_ranges(network, calibration, keep_digital, how.quantile))
    return chip(None if checkpoint is None else checkpoint.ranges(how.statistic))


def load_chip(
    path: str | Path,
    model: nn.Module | Checkpoint | str | Path,
    *,
    recalibration: Dataset | Tensor | None = None,
) -> Chip:
    """Load a chip that :meth:`Chip.save` wrote, at the time and read it was saved at.

    Args:
        path: The file.
        model: The network that was programmed: the digital part comes from it.
        recalibration: As in :func:`program`.

    Returns:
        The chip; ageing it gives what ageing the saved one gives, bit for bit.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it is damaged, or the network's weights are not those that were programmed.
    """
    tensors, header = read_tensors(path)
    if header.get("kind") != CHIP_FILE:
        raise ValueError(f"The file {str(path)!r} holds no chip; give one that Chip.save wrote.")
    if isinstance(model, str | Path):
        model = load_checkpoint(model)
    if header.get("measurements"):
        header["device"]["noise"]["measurements"] = header["measurements"]
    chip = program(
        model.build() if isinstance(model, Checkpoint) else model,
        validated(header["device"], str(path)),
        seed=header["seed"],
        engine=header["engine"],
        precision=header["precision"],
        keep_digital=header["keep_digital"],
        input_ranges=header["input_ranges"],
        recalibration=_training_images(recalibration, model),
    )
    chip._restore(tensors, str(path))
    return chip.drift_to(header["t_inference_s"], header["read"])


def evenly_spread(images: Tensor) -> Tensor:
    """Take ``TRAINING_IMAGES`` of a data set's training images, or all where there are fewer."""
    step = max(1, len(images) // TRAINING_IMAGES)
    return images[::step][:TRAINING_IMAGES]


def _training_images(
    given: Dataset | Tensor | None, model: nn.Module | Checkpoint
) -> Tensor | None:
    """Images of the training set as the network takes them; raises where they may be others."""
    if given is None:
        return None
    if isinstance(given, Dataset):
        images = evenly_spread(given.train.images)
        if not isinstance(model, Checkpoint):
            return given.normalise(images)
        if given.name != model.spec.dataset:
            raise ValueError(
                f"recalibration is the data set {given.name!r}; the network was trained on "
                f"{model.spec.dataset!r}: give that."
            )
        return model.normalise(images)
    is_known = isinstance(given, Tensor) and given.is_floating_point()
    if not is_known or isinstance(model, Checkpoint):
        what = f"a tensor of {given.dtype}" if isinstance(given, Tensor) else type(given).__name__
        raise ValueError(
            f"recalibration must never see test images, and {what} does not say what it holds: "
            "give the data set itself, whose training images are taken"
            + ("." if isinstance(model, Checkpoint) else ", or training images as normalised.")
        )
    return given


def _mapped(model: nn.Module, device: Device, keep_digital: Sequence[str]) -> nn.Module:
    """The network whose weights go onto the arrays: folded and clipped as the device wants."""
    if device.mapping.batch_norm == "folded":
        model = batch_norm.fold(model)
    if device.mapping.clip_quantile < 1:
        model = models.clipped(
            model,
            device.mapping.clip_quantile,
            columnwise=device.mapping.scale == "column",
            keep_digital=keep_digital,
        )
    return model


def _products(
    model: nn.Module, device: Device, keep_digital: Sequence[str], training: Tensor | None
) -> models.DigitalProducts | None:
    """What layers that are compensated as one are compared with; None where none is."""
    layers = [
        name
        for name in models.analog_layers(model, keep_digital)
        if device.for_layer(name).drift_compensation.kind == "per_layer"
    ]
    if not layers:
        return None
    images = _needed(training, device, "rescales layers")
    return models.DigitalProducts(model, layers, images)


def _needed(images: Tensor | None, device: Device, why: str) -> Tensor:
    if images is None:
        raise ValueError(
            f"Device {device.name!r} {why} and has no training images to look at; give "
            "program(..., recalibration=the data set)."
        )
    return images


@torch.no_grad()
def _holding(model: nn.Module, weights: Mapping[str, Tensor]) -> nn.Module:
    """A copy of a network with the weights that a chip holds."""
    held = copy.deepcopy(model)
    for name, weight in weights.items():
        parameter = held.get_submodule(name).weight
        parameter.copy_(weight)  # type: ignore[operator]
    return held
