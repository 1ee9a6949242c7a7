"""Checkpoints of networks that were trained elsewhere."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

import torch
from torch import nn

from analog_samson import models
from analog_samson.analog import digital_from
from analog_samson.checkpoint import AIHWKIT_TWIN, Checkpoint, TrainingSpec
from analog_samson.data import Dataset, load_dataset, path_in
from analog_samson.training.loop import check_runs, digital_checkpoint, range_images


def checkpoint_of(
    model: nn.Module, spec: TrainingSpec, images: Dataset, made_with: Mapping[str, str]
) -> Checkpoint:
    """Check a trained network, evaluate it digitally and measure its input ranges.

    Args:
        model: The network, as the specification builds it, with its weights; changed to evaluation
            mode, and to the packing and output of the specification.
        spec: Its specification, of method "external".
        images: Its data set, with the normalisation that it was trained with.
        made_with: For information.

    Returns:
        The checkpoint. Input ranges of layers that hold those of their training are the largest of
        these.

    Raises:
        ValueError: If it does not run, cannot be mapped onto arrays, or has no finite weights.

    Example:
        >>> spec = TrainingSpec(dataset="digits", model="mlp", method="external")
        >>> made = checkpoint_of(checkpoint.build(), spec, dataset, made_with={})
        >>> made.n_correct_digital == checkpoint.n_correct_digital
        True
    """
    models.take_packed(models.select_output(model, spec.output), spec.packing).eval()
    calibration = range_images(images)
    rewriting = models.rewrite(model, spec.rewrites, spec.keep_digital)
    rewriting.check(calibration[:1])
    network = rewriting.network
    models.check_forward(network, calibration[:1], spec.keep_digital)
    check_runs(model, calibration[:1], images, name=spec.model)
    layers = models.analog_layers(network, spec.keep_digital)
    models.check_weights(network, layers)
    held = {
        name: max(max(row) for row in ranges)  # type: ignore[union-attr]
        for name, ranges in models.held_ranges(layers).items()
    }
    ranges = models.input_ranges(network, calibration, spec.keep_digital) | held
    largest = models.input_ranges(network, calibration, spec.keep_digital, quantile=1.0)
    return digital_checkpoint(model, network, spec, images, ranges, largest, made_with)


def checkpoint_from(
    analog_model: nn.Module,
    *,
    factory: str,
    options: Mapping[str, Any] = MappingProxyType({}),
    dataset: str | Dataset = "digits",
    data_folder: str | Path | None = None,
    mean: Sequence[float] = (),
    std: Sequence[float] = (),
    keep_digital: Sequence[str] = (),
    own_arrays: bool = True,
    imported_from: str = "a network of aihwkit",
    **specification: Any,
) -> Checkpoint:
    """Turn a network that aihwkit converted and trained into a checkpoint.

    Args:
        analog_model: The network; not changed. Layers that aihwkit left digital stay digital.
        factory: "package.module:function" that builds the network again, converted or digital.
        options: Keyword arguments of the factory.
        dataset: Data set that it was trained for: its name, or the data set itself.
        data_folder: Folder that holds the data.
        mean: Mean of each channel that it was trained with, in [0, 1]; by default that of the
            training images.
        std: Standard deviation of each channel, likewise.
        keep_digital: More layers that are kept digital.
        own_arrays: Whether chips have the mapping scales, learned output scales and input ranges
            of its tiles; False: devices choose them, as for any network.
        imported_from: Where it comes from, for information.
        **specification: Other fields of ``TrainingSpec``: seed, augmentation, output, inputs.

    Returns:
        The checkpoint, of method "external".

    Raises:
        ValueError: If it has no tiles for inference, was programmed before, or cannot be used.

    Example:
        >>> from aihwkit.nn.conversion import convert_to_analog
        >>> from aihwkit.simulator.presets import StandardHWATrainingPreset
        >>> analog_model = convert_to_analog(checkpoint.build(), StandardHWATrainingPreset())
        >>> factory = "analog_samson.models.networks:mlp"  # builds the network again
        >>> checkpoint_from(analog_model, factory=factory).spec.method
        'external'
    """
    images = (
        dataset
        if isinstance(dataset, Dataset)
        else load_dataset(path_in(dataset, data_folder), data_folder)
    )
    if bool(mean) != bool(std):
        raise ValueError(f"mean and std belong together; got mean={mean}, std={std}.")
    images = replace(images, mean=tuple(mean) or images.mean, std=tuple(std) or images.std)
    found = digital_from(analog_model, own_arrays=own_arrays)
    spec = TrainingSpec(
        dataset=images.name,
        model=AIHWKIT_TWIN,
        model_kwargs={
            "factory": factory,
            "options": dict(options),
            "arrays": {name: list(shape) for name, shape in found.arrays.items()},
        },
        method="external",
        epochs=0,
        keep_digital=tuple(dict.fromkeys((*found.keep_digital, *keep_digital))),
        **specification,
    )
    made_with = {"imported_from": imported_from, "torch": torch.__version__}
    checkpoint = checkpoint_of(found.network, spec, images, made_with)
    checkpoint.build()  # the factory must build a network that the weights fit
    return checkpoint
