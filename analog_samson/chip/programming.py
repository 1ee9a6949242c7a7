"""From a trained network to a chip: mapped, calibrated, programmed; and from a file of one."""

import copy
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.utils.weak import WeakIdKeyDictionary

from analog_samson import models
from analog_samson.analog import TiledNetwork
from analog_samson.checkpoint import (
    Checkpoint,
    ChipHeader,
    check_header,
    load_checkpoint,
    read_tensors,
)
from analog_samson.chip.chip import CHIP_FILE, Chip, Unchecked
from analog_samson.chip.engines import Engine, check_precision, choose_engine
from analog_samson.chip.training_images import any_input, training_images
from analog_samson.compiled import FunctionalNetwork, Precision
from analog_samson.data import Dataset
from analog_samson.devices import Device, load_device, validated
from analog_samson.evaluation import exact_products
from analog_samson.models import batch_norm


@exact_products(torch.device("cpu"))
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
    rewrites: Sequence[str] = (),
    trust: Sequence[str] = (),
) -> Chip:
    """Program a trained network onto a new chip.

    Args:
        model: A network (left unchanged), or a checkpoint or its path, which brings its own input
            ranges and its own list of digital layers. What torch.compile made of a network is taken
            as the network; one of another precision is converted to fp32, with a warning.
        device: A device, its name, or the path of a device file.
        seed: The chip's number in the lottery: programming error, drift exponents, read noise and
            forward noise all derive from it, each by its purpose.
        calibration: Training images as the network takes them, shape (n, ...), on which the range
            of every layer's inputs is measured. Without it, and without a checkpoint, weights and
            drift work and a forward pass through a static-range DAC raises.
        engine: What runs the forward pass; None takes the best that supports the device (see
            :func:`choose_engine`).
        precision: "bf16" lets the compiled engine round the factors of every product to 8 bits.
            Measured against fp32 (5 chips of ``pcm_like`` at one day and one year, 10,000 images):
            of ResNet-8 on CIFAR-10 0.4 % of the predictions differ where products are exact and
            3.4 % where they are quantised and noisy (another draw of that noise: 10 to 16 %);
            accuracies differ by 0.00 and 0.09 points on average, with standard deviations of 0.05
            and 0.16 where chips spread by 0.6 to 2.4. LeNet-5 on MNIST: 0.01 % and 0.06 %; 0.00
            and 0.01 points, 0.01 and 0.02, chips 0.05 to 0.13.
        keep_digital: Names of layers that stay digital.
        expected_images: How many images every reading will meet. Where they are many, the compiled
            engine traces the network with torch.compile at the first of them (seconds, once an
            architecture), then runs faster.
        input_ranges: Instead of ``calibration``: layer name to the largest input its DAC takes.
        recalibration: What a device looks at that recalibrates batch normalisation or rescales
            layers at every read, or finds input ranges chip by chip: the data set, of which
            ``TRAINING_IMAGES`` training images are taken, never others; batch normalisation sees
            them augmented as the network's training did, with draws that all chips share. For a
            network that is no checkpoint also training images as it takes them, shape (n, ...).
        rewrites: Importable names of rules that rewrite layers of other kinds into layers that
            become tiles (see ``models.rewriting``); a checkpoint has its own in its specification.
        trust: Packages that a checkpoint given by its path may import from (see
            :func:`load_checkpoint`).

    Returns:
        The chip in its programmed state, t = 0 (a device without data there: at its first time).

    Raises:
        ValueError: If a layer cannot become tiles and is not kept digital, the network's forward
            multiplies by what neither is an analog layer nor kept digital, weights are NaN,
            infinite or all zero, the engine or precision is unknown or cannot run the device, the
            images for recalibration are missing or not known to be training images, or rewrites are
            given for a checkpoint or change what the network computes.
        FileNotFoundError: If there is no such device or checkpoint.
    """
    if not isinstance(device, Device):
        device = load_device(device)
    engine = choose_engine(device, engine)
    check_precision(engine, precision, device)
    if isinstance(model, str | Path):
        model = load_checkpoint(model, trust)
    training = training_images(recalibration, model)
    plain, as_trained = training or (None, None)
    checkpoint = model if isinstance(model, Checkpoint) else None
    of_network = checkpoint.keep_digital if checkpoint else ()
    keep_digital = tuple(dict.fromkeys((*of_network, *keep_digital, *device.digital_layers)))
    if calibration is not None and not isinstance(calibration, Tensor):
        raise ValueError(
            "calibration is one tensor of training images, shape (n, ...); got "
            f"{type(calibration).__name__}."
        )
    if isinstance(model, Checkpoint):
        if rewrites:
            raise ValueError(
                f"A checkpoint names its own rewrites, {list(model.spec.rewrites)}; got "
                f"rewrites={list(rewrites)}: give them when it is trained or imported."
            )
        rewriting = model.rewriting()
    else:
        rewriting = models.rewrite(_plain(model), rewrites, keep_digital)
    network = _mapped(rewriting.network, device, keep_digital)
    unchecked = _checked(network, device, keep_digital, checkpoint, rewriting, calibration, plain)
    products = _products(network, device, keep_digital, plain)

    def chip(ranges: Mapping[str, float] | None) -> Chip:
        on_arrays: TiledNetwork | FunctionalNetwork
        if engine == "aihwkit":
            on_arrays = TiledNetwork(network, device, keep_digital, ranges)
        else:
            on_arrays = FunctionalNetwork(
                network, device, keep_digital, ranges, precision, expected_images
            )
        return Chip(on_arrays, device, seed, ranges, keep_digital, as_trained, products, unchecked)

    if input_ranges is not None or not device.periphery.needs_input_ranges:
        return chip(input_ranges)
    how = device.input_ranges
    if how.of == "chip":
        images = plain if calibration is None else calibration
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
    rewrites: Sequence[str] = (),
    trust: Sequence[str] = (),
) -> Chip:
    """Load a chip that :meth:`Chip.save` wrote, at the time and read it was saved at.

    Args:
        path: The file.
        model: The network that was programmed: the digital part comes from it.
        recalibration: As in :func:`program`.
        rewrites: As in :func:`program`.
        trust: As in :func:`program`.

    Returns:
        The chip; ageing it gives what ageing the saved one gives, bit for bit.

    Raises:
        FileNotFoundError: If there is no such file, or no such checkpoint.
        ValueError: If it is damaged, or the network's weights are not those that were programmed.
    """
    tensors, header = read_tensors(path, "chip")
    where = f"chip {str(path)!r}"
    if header.get("kind") != CHIP_FILE:
        raise ValueError(f"The file {str(path)!r} holds no chip; give one that Chip.save wrote.")
    check_header(ChipHeader, header, where)
    noise = header["device"].get("noise")
    if header.get("measurements") and isinstance(noise, dict):
        noise["measurements"] = header["measurements"]
    if isinstance(model, str | Path):
        model = load_checkpoint(model, trust)
    try:
        chip = program(
            model,
            validated(header["device"], "its device", from_json=True),
            seed=header["seed"],
            engine=header["engine"],
            precision=header["precision"],
            keep_digital=header["keep_digital"],
            input_ranges=header["input_ranges"],
            recalibration=recalibration,
            rewrites=rewrites,
        )
        chip._restore(tensors)
        chip.drift_to(header["t_inference_s"], header["read"])
        for name, weight in chip.weights().items():
            if not bool(weight.isfinite().all()):
                raise ValueError(f"its devices give weights of layer {name!r} that are not finite.")
        return chip
    except ValueError as error:
        raise ValueError(f"The {where} cannot be loaded: {error}") from error


def _plain(model: nn.Module) -> nn.Module:
    """The network as it was before torch.compile, in fp32; the one given is left unchanged."""
    wrapped = [module for module in model.modules() if "_orig_mod" in module._modules]
    if wrapped or any(module._compiled_call_impl is not None for module in model.modules()):
        memo: dict[int, nn.Module] = {}
        for module in reversed(wrapped):  # the innermost first
            memo[id(module)] = copy.deepcopy(module.get_submodule("_orig_mod"), memo)
        model = copy.deepcopy(model, memo)  # without what module.compile() left, too
    tensors = [*model.parameters(), *model.buffers()]
    if any(tensor.is_complex() for tensor in tensors):
        raise ValueError("The network has complex weights; arrays hold real ones.")
    others = {t.dtype for t in tensors if t.is_floating_point()} - {torch.float32}
    if others:
        listed = ", ".join(sorted(str(dtype).removeprefix("torch.") for dtype in others))
        warnings.warn(
            f"The network holds {listed} and is converted to float32, in which chips compute.",
            stacklevel=4,
        )
        model = copy.deepcopy(model).float()
    return model


_known_to_run: WeakIdKeyDictionary = WeakIdKeyDictionary()
"""Checkpoints whose forward was checked in this process: with which digital layers."""


def _checked(
    network: nn.Module,
    device: Device,
    keep_digital: tuple[str, ...],
    checkpoint: Checkpoint | None,
    rewriting: models.Rewriting,
    *images: Tensor | None,
) -> Unchecked | None:
    """Check the forward pass of a network on an input; return it where none is known yet."""
    known = next((given[:1] for given in images if given is not None and len(given)), None)
    if checkpoint is None:
        if known is None:
            return Unchecked(network, rewriting)
        rewriting.check(known)
        models.check_forward(network, known, keep_digital)
        return None
    done = _known_to_run.setdefault(checkpoint, set())  # type: ignore[no-untyped-call]
    folded, kept = device.mapping.batch_norm, frozenset(keep_digital)
    # where a network runs with few layers digital, it runs with more
    if not any(folded == how and fewer <= kept for how, fewer in done):
        models.check_forward(network, any_input(checkpoint), keep_digital)
        done.add((folded, kept))
    return None


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
