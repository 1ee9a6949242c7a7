"""Map, calibrate and program a trained network onto a chip; load a saved chip."""

import copy
import functools
import warnings
from collections.abc import Iterable, Mapping, Sequence
from numbers import Real
from pathlib import Path
from typing import Any

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
from analog_samson.chip.chip import CHIP_FILE, Chip, Unchecked, read_together, whole_number
from analog_samson.chip.engines import Engine, check_precision, choose_engine
from analog_samson.chip.programmed import PhysicsOfLayers
from analog_samson.chip.training_images import input_for, training_images
from analog_samson.compiled import FunctionalNetwork, Precision
from analog_samson.data import Dataset
from analog_samson.devices import Device, load_device, validated
from analog_samson.evaluation import exact_products
from analog_samson.models import batch_norm
from analog_samson.models.replacing import with_plain_weights


@exact_products(torch.device("cpu"))
def program(
    model: nn.Module | Checkpoint | str | Path,
    device: Device | str | Path,
    *,
    seed: int = 0,
    calibration: Tensor | tuple[Tensor, ...] | Mapping[str, Tensor] | None = None,
    engine: Engine | None = None,
    precision: Precision = "fp32",
    keep_digital: Sequence[str] = (),
    expected_images: int = 0,
    input_ranges: Mapping[str, models.Range] | None = None,
    recalibration: Dataset | Tensor | None = None,
    rewrites: Sequence[str] = (),
    output: models.Output = None,
    trust: Sequence[str] = (),
) -> Chip:
    """Program a trained network onto a new chip.

    Args:
        model: A network (not changed), or a checkpoint or its path, which contains its input ranges
            and its list of digital layers. Wrappers of torch.compile are removed; a network of
            another precision is converted to fp32, with a warning.
        device: A device, its name, or the path of a device file.
        seed: Random seed of the chip. Programming errors, drift exponents, read noise and forward
            noise have separate random streams derived from it.
        calibration: Training images as network inputs, shape (n, ...), on which the input range of
            every layer is measured. Without it, and without a checkpoint, a forward pass through
            a DAC of fixed range raises an error; weights and drift can still be used. For a network
            of several inputs a tuple of them, or a dictionary by the names of its arguments; the
            chip then takes the same.
        engine: The engine that runs the forward pass; None chooses the fastest one that supports
            the device (see :func:`choose_engine`).
        precision: "bf16" makes the compiled engine round weights and inputs of products to bfloat16
            (8 bits of precision). For what this changes, see ``docs/MEASUREMENTS.md``.
        keep_digital: Names of layers that stay digital.
        expected_images: Number of images evaluated after each read. If it is large, the compiled
            engine traces the network with torch.compile at the first image: this takes seconds,
            once per architecture, and makes the forward pass faster.
        input_ranges: Instead of ``calibration``: {layer: input range of its DAC, model units}, or
            a range for each array of the layer, (blocks of rows, blocks of columns).
        recalibration: Images for devices that recalibrate batch normalisation or rescale layers at
            every read, or that calibrate input ranges for each chip: the data set, of which
            ``TRAINING_IMAGES`` training images are used, never others. Batch normalisation is
            recalibrated on images augmented as in training, with random numbers shared by all
            chips. For a network without a checkpoint, a tensor of training images as network
            inputs is also allowed, shape (n, ...).
        rewrites: Importable names of rules that rewrite layers of other kinds into layers that can
            be mapped (see ``models.rewriting``); a checkpoint has its own in its specification.
        output: Which output counts where the network gives several: an index in a tuple, or a name
            in a dictionary; a checkpoint has its own in its specification.
        trust: Packages that a checkpoint or device file given by its path may import from (see
            :func:`load_checkpoint`).

    Returns:
        The chip in its programmed state, t = 0 (a device without data there: at its first time).

    Raises:
        ValueError: If a layer cannot be mapped onto arrays and is not kept digital, the network's
            forward multiplies by weights that are neither in an analog layer nor kept digital,
            weights are NaN, infinite or all zero, the engine or precision is unknown or cannot run
            the device, the images for recalibration are missing or not known to be training images,
            or rewrites are given for a checkpoint or change what the network computes.
        FileNotFoundError: If there is no such device or checkpoint.

    Example:
        >>> network = nn.Sequential(nn.Flatten(), nn.Linear(64, 10))
        >>> images = torch.rand(32, 1, 8, 8)
        >>> chip = program(network, "pcm_like", seed=0, calibration=images)
        >>> chip.drift_to(3600.0)(images).shape
        torch.Size([32, 10])
    """
    mapped = MappedNetwork(
        model,
        device,
        calibration=calibration,
        engine=engine,
        precision=precision,
        keep_digital=keep_digital,
        expected_images=expected_images,
        input_ranges=input_ranges,
        recalibration=recalibration,
        trust=trust,
        rewrites=rewrites,
        output=output,
    )
    return mapped.program(seed, only=True)


class MappedNetwork:
    """A trained network mapped onto a device; checked once, then used for any number of chips.

    Arguments and errors are those of :func:`program`.

    Example:
        >>> mapped = MappedNetwork(network, "pcm_like")  # input ranges are measured once
        >>> first, second = (mapped.program(seed) for seed in (0, 1))
        >>> torch.equal(first.weights()["fc1"], second.weights()["fc1"])
        False
    """

    def __init__(
        self,
        model: nn.Module | Checkpoint | str | Path,
        device: Device | str | Path,
        *,
        calibration: Tensor | tuple[Tensor, ...] | Mapping[str, Tensor] | None = None,
        engine: Engine | None = None,
        precision: Precision = "fp32",
        keep_digital: Sequence[str] = (),
        expected_images: int = 0,
        input_ranges: Mapping[str, models.Range] | None = None,
        recalibration: Dataset | Tensor | None = None,
        trust: Sequence[str] = (),
        rewrites: Sequence[str] = (),
        output: models.Output = None,
    ) -> None:
        models.check_output(output)
        device = device if isinstance(device, Device) else load_device(device, trust)
        self.device = device
        self._engine = choose_engine(device, engine)
        check_precision(self._engine, precision, device)
        self._precision, self._expected_images = precision, expected_images
        model = _trained(model, trust)
        keep_digital = _names(keep_digital)
        _check_ranges(input_ranges)
        packing = model.spec.packing if isinstance(model, Checkpoint) else None
        if isinstance(calibration, tuple | Mapping):
            packing = packing or models.Packing.of(calibration)
            calibration = packing.pack(calibration)
        if calibration is not None and not isinstance(calibration, Tensor):
            raise ValueError(
                "calibration is one tensor of training images, shape (n, ...); got "
                f"{type(calibration).__name__}."
            )
        training = training_images(recalibration, model)
        plain = training and training.plain
        self._as_trained = training and training.as_trained
        checkpoint = model if isinstance(model, Checkpoint) else None
        of_network = checkpoint.keep_digital if checkpoint else ()
        names = (*of_network, *keep_digital, *device.digital_layers)
        self._keep_digital = tuple(dict.fromkeys(names))
        if isinstance(model, Checkpoint):
            rewriting = _rewriting_of(model, rewrites, output)
        else:
            plain_model = _plain(model)
            if output is not None or packing is not None:
                plain_model = models.select_output(copy.deepcopy(plain_model), output)
                models.take_packed(plain_model, packing)
            rewriting = models.rewrite(plain_model, rewrites, self._keep_digital)
        folding = _folding(rewriting.network, device)
        self._network = _mapped(folding.network, device, self._keep_digital)
        if device.layers:
            modules = self._network.named_modules(remove_duplicate=False)
            device.check_overrides([name for name, _ in modules if name])
        unchecked = Unchecked(self._network, rewriting, folding)
        self._unchecked = _checked(
            unchecked, device, self._keep_digital, checkpoint, calibration, plain
        )
        self._products = _products(self._network, device, self._keep_digital, plain)
        self._ranges, self._range_images = input_ranges, None
        if input_ranges is not None or not device.periphery.needs_input_ranges:
            return
        how = device.input_ranges
        if how.of == "chip":
            images = plain if calibration is None else calibration
            self._range_images = _needed(images, device, "calibrates input ranges for each chip")
        elif calibration is not None:
            self._ranges = self._measured(self._network, calibration)
        else:
            layers = models.analog_layers(self._network, self._keep_digital)
            learned = models.held_ranges(layers) if how.statistic == "percentile" else {}
            if checkpoint is not None:
                self._ranges = {**checkpoint.ranges(how.statistic), **learned}
            elif len(learned) == len(layers):
                self._ranges = learned

    def program(self, seed: int, *, only: bool = False) -> Chip:
        """Program a new chip.

        Args:
            seed: As for :func:`program`.
            only: Whether it is the only chip; then nothing is copied.

        Returns:
            The chip in its programmed state, as :func:`program` gives it.
        """
        seed = whole_number("seed", seed)
        if self._range_images is None:
            return self._programmed([self._chip(self._on_arrays(only), seed, self._ranges)])[0]
        first = self._programmed([self._chip(self._on_arrays(only), seed, None)])[0]
        ranges = self._measured(_holding(self._network, first.weights()), self._range_images)
        return self._programmed([self._chip(self._new_on_arrays(ranges), seed, ranges)])[0]

    def program_together(self, seeds: Sequence[int]) -> list[Chip]:
        """Program several new chips; small ones in less time than one after the other.

        Args:
            seeds: One per chip, as for :func:`program`.

        Returns:
            The chips, each as :meth:`program` gives it.
        """
        if self._range_images is not None:
            return [self.program(seed) for seed in seeds]
        chips = [
            self._chip(self._on_arrays(only=False), whole_number("seed", seed), self._ranges)
            for seed in seeds
        ]
        return self._programmed(chips)

    def _programmed(self, chips: list[Chip]) -> list[Chip]:
        read_together(chips, self.device.first_time_s)
        return chips

    def _measured(self, network: nn.Module, images: Tensor) -> dict[str, float]:
        quantile = self.device.input_ranges.quantile
        return models.input_ranges(network, images, self._keep_digital, quantile)

    def _chip(
        self,
        on_arrays: TiledNetwork | FunctionalNetwork,
        seed: int,
        ranges: Mapping[str, models.Range] | None,
    ) -> Chip:
        given = ranges, self._keep_digital, self._as_trained, self._products, self._unchecked
        share = self._analog_share, self._network
        return Chip(on_arrays, self.device, self._physics, seed, *given, *share)

    @functools.cached_property
    def _analog_share(self) -> float:
        return models.analog_share(self._network, self._keep_digital)

    def _on_arrays(self, only: bool) -> TiledNetwork | FunctionalNetwork:
        if only or self._engine == "aihwkit":
            return self._new_on_arrays(self._ranges)
        return self._blank.fresh()

    def _new_on_arrays(
        self, ranges: Mapping[str, models.Range] | None
    ) -> TiledNetwork | FunctionalNetwork:
        given = self._network, self.device, self._keep_digital, ranges
        if self._engine == "aihwkit":
            return TiledNetwork(*given)
        return FunctionalNetwork(*given, self._precision, self._expected_images)

    @functools.cached_property
    def _blank(self) -> FunctionalNetwork:
        """The network that chips on the compiled engine are copied from; never run itself."""
        given = self._network, self.device, self._keep_digital, self._ranges
        return FunctionalNetwork(*given, self._precision, self._expected_images)

    @functools.cached_property
    def _physics(self) -> PhysicsOfLayers:
        return PhysicsOfLayers(self.device)


def load_chip(
    path: str | Path,
    model: nn.Module | Checkpoint | str | Path,
    *,
    recalibration: Dataset | Tensor | None = None,
    rewrites: Sequence[str] = (),
    output: models.Output = None,
    trust: Sequence[str] = (),
) -> Chip:
    """Load a chip written by :meth:`Chip.save`, at the time and read at which it was saved.

    Args:
        path: The file.
        model: The network that was programmed; its digital part is used.
        recalibration: As in :func:`program`.
        rewrites: As in :func:`program`.
        output: As in :func:`program`.
        trust: As in :func:`program`.

    Returns:
        The chip; it drifts bit for bit as the saved one.

    Raises:
        FileNotFoundError: If there is no such file, or no such checkpoint.
        ValueError: If it is damaged, or the network's weights are not those that were programmed.

    Example:
        >>> chip = program(network, "pcm_like", seed=1).drift_to(3600.0)
        >>> path = chip.save("chip.safetensors")
        >>> again = load_chip("chip.safetensors", network)
        >>> again.t_inference_s, torch.equal(again(images), chip(images))
        (3600.0, True)
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
            validated(header["device"], "its device", from_json=True, trust=trust),
            seed=header["seed"],
            engine=header["engine"],
            precision=header["precision"],
            keep_digital=header["keep_digital"],
            input_ranges=_joined(header["input_ranges"], header.get("array_ranges", {})),
            recalibration=recalibration,
            rewrites=rewrites,
            output=output,
        )
        if chip.device.cycle_and_age(header["t_inference_s"])[0]:
            chip.drift_to(header["t_inference_s"])  # the cells of a refresh are those in the file
        chip._restore(tensors)
        chip.drift_to(header["t_inference_s"], header["read"])
        for name, weight in chip.weights().items():
            if not bool(weight.isfinite().all()):
                raise ValueError(f"its cells give weights of layer {name!r} that are not finite.")
        return chip
    except ValueError as error:
        raise ValueError(f"The {where} cannot be loaded: {error}") from error


def _trained(model: object, trust: Sequence[str]) -> nn.Module | Checkpoint:
    """The network, or the checkpoint, which is loaded from its path."""
    if isinstance(model, str | Path):
        return load_checkpoint(model, trust)
    if isinstance(model, nn.Module | Checkpoint):
        return model
    raise ValueError(
        "model is a network (an instance of torch.nn.Module), a checkpoint or its path; got "
        f"{_kind(model)}."
    )


def _rewriting_of(
    checkpoint: Checkpoint, rewrites: Sequence[str], output: models.Output
) -> models.Rewriting:
    """The network of a checkpoint; raise ValueError if rewrites or an output are given, too."""
    if rewrites:
        raise ValueError(
            f"A checkpoint names its own rewrites, {list(checkpoint.spec.rewrites)}; got "
            f"rewrites={list(rewrites)}: give them when it is trained or imported."
        )
    if output is not None:
        raise ValueError(
            f"A checkpoint names its own output, {checkpoint.spec.output!r}; got "
            f"output={output!r}: give it when it is trained or imported."
        )
    return checkpoint.rewriting()


def _kind(value: object) -> str:
    """The kind of an invalid argument: a class by its name, others by their type."""
    return f"the class {value.__name__}" if isinstance(value, type) else type(value).__name__


def _names(keep_digital: object) -> tuple[str, ...]:
    given = (keep_digital,) if isinstance(keep_digital, str) else keep_digital
    if not isinstance(given, Iterable) or not all(isinstance(name, str) for name in given):
        raise ValueError(f"keep_digital is a list of names of layers; got {keep_digital!r}.")
    return tuple(given)


def _check_ranges(input_ranges: object) -> None:
    """Raise ValueError unless input ranges are None or {layer: positive number}."""
    if input_ranges is None:
        return
    if not isinstance(input_ranges, Mapping):
        raise ValueError(
            "input_ranges is a dictionary {layer: input range of its DAC}; got "
            f"{type(input_ranges).__name__}."
        )
    for name, value in input_ranges.items():
        for one in _flat(value):
            is_number = isinstance(one, Real) and not isinstance(one, bool)
            if not is_number or not SMALLEST_RANGE <= one < LARGEST_RANGE:
                raise ValueError(
                    f"The input range of layer {name!r} is a number from {SMALLEST_RANGE:g} to "
                    f"{LARGEST_RANGE:g}, or one for each array; got {value!r}."
                )


def _joined(
    of_layers: Mapping[str, float] | None, of_arrays: Mapping[str, list[list[float]]]
) -> Mapping[str, models.Range] | None:
    tuples = {name: tuple(map(tuple, ranges)) for name, ranges in of_arrays.items()}
    return None if of_layers is None else {**of_layers, **tuples}


def _flat(value: Any) -> list[Any]:
    """The numbers of an input range: one, or one for each array."""
    is_table = isinstance(value, list | tuple) and value and all(map(_is_row, value))
    if is_table and len({len(row) for row in value}) == 1:
        return [one for row in value for one in row]
    return [value]


def _is_row(row: object) -> bool:
    return isinstance(row, list | tuple) and len(row) > 0


def _check_can_be_copied(model: nn.Module) -> None:
    """Raise ValueError if an attribute of a network cannot be copied, or it holds no values."""
    tensors = [*model.parameters(), *model.buffers()]
    if any(tensor.is_meta for tensor in tensors):
        raise ValueError(
            "The network is on the meta device, without values; load its weights first (to_empty, "
            "load_state_dict)."
        )
    memo: dict[int, object] = {id(known): known for known in (*tensors, *model.modules())}
    for name, module in model.named_modules():
        for key, value in vars(module).items():
            if key in _CONTENTS or (key in _HOOKS and not value):
                continue
            try:
                copy.deepcopy(value, memo)
            except Exception as error:  # any exception that the code of an attribute raises
                where = f"{name}.{key}" if name else key
                raise ValueError(
                    f"The network cannot be copied, because its attribute {where!r} "
                    f"({type(value).__name__}) cannot ({error}). Remove it, or detach() a tensor."
                ) from error


_CONTENTS = "_parameters", "_buffers", "_modules"
_HOOKS = frozenset(key for key, value in vars(nn.Module()).items() if value == {})
"""Attributes of every module that are usually empty, most of them for hooks."""


def _plain(model: nn.Module) -> nn.Module:
    """The network without wrappers of torch.compile, in fp32; the given one is not changed."""
    _check_can_be_copied(model)
    wrapped = [module for module in model.modules() if "_orig_mod" in module._modules]
    if wrapped or any(module._compiled_call_impl is not None for module in model.modules()):
        memo: dict[int, nn.Module] = {}
        for module in reversed(wrapped):  # the innermost first
            memo[id(module)] = copy.deepcopy(module.get_submodule("_orig_mod"), memo)
        model = copy.deepcopy(model, memo)  # without what module.compile() left, too
    tensors = [*model.parameters(), *model.buffers()]
    if any(tensor.is_complex() for tensor in tensors):
        raise ValueError(
            "The network has complex weights; arrays hold real weights: keep to real parameters."
        )
    if others := models.other_types(model):
        warnings.warn(
            f"The network holds {others} and is converted to float32, in which chips compute.",
            stacklevel=5,
        )
        model = copy.deepcopy(model).float()
    return model


SMALLEST_RANGE, LARGEST_RANGE = 1e-30, 1e30
"""Bounds of input ranges, as in files: quotients stay finite in single precision."""

_known_to_run: WeakIdKeyDictionary = WeakIdKeyDictionary()
"""Checkpoints whose forward pass was checked in this process, and with which digital layers."""


def _checked(
    unchecked: Unchecked,
    device: Device,
    keep_digital: tuple[str, ...],
    checkpoint: Checkpoint | None,
    *images: Tensor | None,
) -> Unchecked | None:
    """Check the forward pass of a network; return what is to check if no input is known yet."""
    known = next((given[:2] for given in images if given is not None and len(given)), None)
    network, rewriting, folding = unchecked
    if checkpoint is None:
        if known is None:
            return unchecked
        rewriting.check(known)
        folding.check(known)
        models.check_forward(network, known, keep_digital)
        return None
    done = _known_to_run.setdefault(checkpoint, set())  # type: ignore[no-untyped-call]
    folded, kept = device.mapping.batch_norm, frozenset(keep_digital)
    # a network that runs with few digital layers also runs with more
    if not any(folded == how and fewer <= kept for how, fewer in done):
        folding.check(input_for(checkpoint))
        models.check_forward(network, input_for(checkpoint), keep_digital)
        done.add((folded, kept))
    return None


def _folding(model: nn.Module, device: Device) -> batch_norm.Folding:
    """The network, and with batch normalisation folded if specified."""
    is_folded = device.mapping.batch_norm == "folded"
    return batch_norm.Folding(model, batch_norm.fold(model) if is_folded else model)


def _mapped(model: nn.Module, device: Device, keep_digital: Sequence[str]) -> nn.Module:
    """The network to map: weights clipped if specified."""
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
    """Reference products of layers with compensation ``per_layer``; None if there are none."""
    if not (device.layers or device.drift_compensation.kind == "per_layer"):
        return None  # without a search for layers, which takes time
    layers = [
        name
        for name in models.analog_layers(model, keep_digital)
        if device.with_overrides_for(name).drift_compensation.kind == "per_layer"
    ]
    if not layers:
        return None
    images = _needed(training, device, "rescales layers")
    return models.DigitalProducts(model, layers, images)


def _needed(images: Tensor | None, device: Device, why: str) -> Tensor:
    if images is None:
        raise ValueError(
            f"Device {device.name!r} {why} and has no training images; give "
            "program(..., recalibration=the data set)."
        )
    return images


@torch.no_grad()
def _holding(model: nn.Module, weights: Mapping[str, Tensor]) -> nn.Module:
    """A copy of a network with the weights that a chip holds."""
    held = with_plain_weights(model)
    for name, weight in weights.items():
        parameter = held.get_submodule(name).weight
        parameter.copy_(weight)  # type: ignore[operator]
    return held
