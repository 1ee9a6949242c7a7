"""A chip: one programming of one trained network on one device, and its ageing.

Programming error, drift exponents and faults belong to the chip and stay with it; read noise
belongs to a read at a time. ``drift_to`` is a pure function of (time, read): any order, never
cumulative, and t = 0 is the programmed state before any read.
"""

import contextlib
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Literal, Self, get_args

import torch
from torch import Tensor, nn

from analog_samson import models
from analog_samson.analog import DeviceState, Physics, Tile, TiledNetwork, seeded
from analog_samson.checkpoint import Checkpoint, load_checkpoint, read_tensors, write_tensors
from analog_samson.compiled import Array, FunctionalNetwork, Precision, why_not
from analog_samson.devices import Device, load_device, validated
from analog_samson.models import batch_norm
from analog_samson.streams import derive_seed

Engine = Literal["aihwkit", "compiled"]

_CHIP_FILE = "programmed chip"


def choose_engine(device: Device, engine: Engine | None = None) -> Engine:
    """Say what runs the forward pass of a device's chips; builds nothing.

    Args:
        device: The device.
        engine: What is wanted; None takes "compiled" where it supports the device, else "aihwkit".

    Returns:
        "compiled", or "aihwkit" (the tile itself, the reference).

    Raises:
        ValueError: If there is no such engine, or "compiled" is wanted and cannot run the device.
    """
    if engine is not None and engine not in get_args(Engine):
        raise ValueError(
            f"Unknown engine {engine!r}; allowed: 'aihwkit', 'compiled', or None to choose."
        )
    reason = why_not(device)
    if engine == "compiled" and reason:
        raise ValueError(
            f"The compiled engine cannot run device {device.name!r}: {reason}; use engine="
            "'aihwkit', or None to choose."
        )
    return engine or ("aihwkit" if reason else "compiled")


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
    recalibration: Tensor | None = None,
) -> "Chip":
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
        recalibration: Training images as the network takes them, shape (n, ...), for a device that
            recalibrates batch normalisation at every read.

    Returns:
        The chip in its programmed state, t = 0 (a device without data there: at its first time).

    Raises:
        ValueError: If a layer cannot become tiles and is not kept digital, weights are NaN,
            infinite or all zero, or the engine or precision is unknown or cannot run the device.
        FileNotFoundError: If there is no such device or checkpoint.
    """
    if not isinstance(device, Device):
        device = load_device(device)
    engine = choose_engine(device, engine)
    check_precision(engine, precision)
    if isinstance(model, str | Path):
        model = load_checkpoint(model)
    ranges = input_ranges
    keep_digital = (*keep_digital, *device.digital_layers)
    if isinstance(model, Checkpoint):
        keep_digital = (*model.keep_digital, *keep_digital)
        ranges = ranges or model.input_ranges
        model = model.build()
    if device.mapping.batch_norm == "folded":
        model = batch_norm.fold(model)
    if device.mapping.clip_quantile < 1:
        model = models.clipped(
            model,
            device.mapping.clip_quantile,
            columnwise=device.mapping.scale == "column",
            keep_digital=keep_digital,
        )
    if calibration is not None and device.periphery.needs_input_ranges:
        ranges = models.input_ranges(model, calibration, keep_digital)
    network: TiledNetwork | FunctionalNetwork
    if engine == "aihwkit":
        network = TiledNetwork(model, device, keep_digital, ranges)
    else:
        network = FunctionalNetwork(model, device, keep_digital, ranges, precision, expected_images)
    return Chip(network, device, seed, ranges, keep_digital, recalibration)


def load_chip(
    path: str | Path,
    model: nn.Module | Checkpoint | str | Path,
    *,
    recalibration: Tensor | None = None,
) -> "Chip":
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
    if header.get("kind") != _CHIP_FILE:
        raise ValueError(f"The file {str(path)!r} holds no chip; give one that Chip.save wrote.")
    if isinstance(model, str | Path):
        model = load_checkpoint(model)
    network = model.build() if isinstance(model, Checkpoint) else model
    if header.get("measurements"):
        header["device"]["noise"]["measurements"] = header["measurements"]
    chip = program(
        network,
        validated(header["device"], str(path)),
        seed=header["seed"],
        engine=header["engine"],
        precision=header["precision"],
        keep_digital=header["keep_digital"],
        input_ranges=header["input_ranges"],
        recalibration=recalibration,
    )
    chip._restore(tensors, str(path))
    return chip.drift_to(header["t_inference_s"], header["read"])


def check_precision(engine: Engine, precision: str) -> None:
    """Raise ValueError unless an engine offers a precision."""
    allowed = get_args(Precision) if engine == "compiled" else ("fp32",)
    if precision not in allowed:
        raise ValueError(
            f"The {engine} engine has no precision {precision!r}; allowed: {', '.join(allowed)}."
        )


class Chip:
    """One programming of one network on one device; made by :func:`program`.

    Attributes:
        device: The device.
        seed: What every draw of this chip derives from.
        engine: What runs the forward pass.
        precision: Precision of its products.
        input_ranges: Layer name to the largest input its DAC takes; None: not calibrated.
        keep_digital: Layers that are not on the chip.
        t_inference_s: Time since programming finished [s] at which the chip is read.
        read: Which draw of the read noise.
    """

    def __init__(
        self,
        network: TiledNetwork | FunctionalNetwork,
        device: Device,
        seed: int,
        input_ranges: Mapping[str, float] | None = None,
        keep_digital: Sequence[str] = (),
        recalibration: Tensor | None = None,
    ) -> None:
        self.engine: Engine = "aihwkit"
        self.precision: Precision = "fp32"
        if isinstance(network, FunctionalNetwork):
            self.engine, self.precision = "compiled", network.precision
        self.device = device
        self.seed = seed
        self.input_ranges = input_ranges
        self.keep_digital = tuple(keep_digital)
        self._network = network
        self._recalibration = recalibration
        self._trained_statistics = batch_norm.statistics(network.network)
        self._needs_recalibration = False
        by_layer = {tile.layer: device.for_layer(tile.layer) for tile in network.tiles}
        shared = Physics(device)
        physics = {
            layer: shared if own is device else Physics(own) for layer, own in by_layer.items()
        }
        self._arrays = [
            _array(
                tile,
                by_layer[tile.layer],
                physics[tile.layer],
                partial(derive_seed, seed, tile.layer, tile.index),
            )
            for tile in network.tiles
        ]
        self.t_inference_s = math.nan
        self.read = 0
        self.drift_to(device.first_time_s)

    def drift_to(self, t_inference_s: float, read: int = 0) -> Self:
        """Age this chip to a time and read it: any order, never cumulative.

        Args:
            t_inference_s: Time since programming finished [s]; 0 is the programmed state, not read.
            read: Which draw of the read noise at that time, 0 upward.

        Returns:
            The chip itself.

        Raises:
            ValueError: If the device has no data for that time, or the read is negative.
        """
        self.device.check_time(t_inference_s)
        if read < 0:
            raise ValueError(f"read counts draws of the read noise from 0; got {read}.")
        for array in self._arrays:
            array.drift_to(float(t_inference_s), read)
        self.t_inference_s, self.read = float(t_inference_s), read
        self._needs_recalibration = (
            self.device.drift_compensation.batch_norm == "recalibrated"
            and bool(self._trained_statistics)
        )
        return self

    def __call__(self, images: Tensor, first_index: int = 0) -> Tensor:
        """Run the network on the chip, digital periphery and compensation included.

        Args:
            images: Inputs as the digital network takes them, shape (n, ...).
            first_index: Number of the first image in the whole set: forward noise belongs to
                (chip, time, read, image), whatever the batch size.

        Returns:
            Outputs of the network, shape (n, ...).

        Raises:
            ValueError: If the device's DAC needs input ranges and the chip was not calibrated.
        """
        if self.device.periphery.needs_input_ranges and not self._network.has_input_ranges:
            raise ValueError(
                f"Device {self.device.name!r} has a DAC of fixed range and this chip was not "
                "calibrated; give program(..., calibration=images of the training set)."
            )
        if self._needs_recalibration:
            self._recalibrate()
        seeds = partial(derive_seed, self.seed, "forward", self.t_inference_s, self.read)
        return self._network.forward(images, first_index, seeds)

    def _recalibrate(self) -> None:
        """Take the statistics of batch normalisation anew, from the trained ones, at this read."""
        images = self._recalibration
        if images is None:
            raise ValueError(
                f"Device {self.device.name!r} recalibrates batch normalisation and this chip has "
                "no images for it; give program(..., recalibration=images of the training set)."
            )
        network = self._network
        batch_norm.restore(network.network, self._trained_statistics)
        seeds = partial(derive_seed, self.seed, "recalibration", self.t_inference_s, self.read)
        with step_by_step(network, images[:1], seeds):
            batch_norm.recalibrate(
                network.network, lambda batch, first: network.forward(batch, first, seeds), images
            )
        self._needs_recalibration = False

    def weights(self) -> dict[str, Tensor]:
        """Effective weights now, {layer: tensor of the layer's shape}, model units.

        Drift compensation is not contained; see :meth:`compensation`.
        """
        return self._network.weights()

    def compensation(self) -> dict[str, Tensor]:
        """Compensation factors now, {layer: tensor}: one entry an array or a column; 1 is none."""
        factors: dict[str, list[Tensor]] = {}
        for array in self._arrays:
            factors.setdefault(array.tile.layer, []).append(array.alpha.reshape(-1))
        return {layer: torch.cat(values) for layer, values in factors.items()}

    def save(self, path: str | Path) -> Path:
        """Write the chip to a safetensors file: every device as programmed, ranges, seed, time.

        The digital part of the network is not contained; :func:`load_chip` is given it again.

        Args:
            path: Where to; a file of that name is replaced only when the new one is complete.

        Returns:
            The path.

        Raises:
            ValueError: If the device uses aihwkit's own weight-level path, which keeps no devices.
            OSError: If the file cannot be written.
        """
        header = {
            "kind": _CHIP_FILE,
            "device": json.loads(self.device.model_dump_json()),
            "measurements": getattr(self.device.noise, "measurements", None),
            "seed": self.seed,
            "engine": self.engine,
            "precision": self.precision,
            "keep_digital": list(self.keep_digital),
            "input_ranges": None if self.input_ranges is None else dict(self.input_ranges),
            "t_inference_s": self.t_inference_s,
            "read": self.read,
        }
        return write_tensors(path, self._state(), header)

    def _state(self) -> dict[str, Tensor]:
        """Every device of every array as programmed, by (layer, array, device, quantity)."""
        return {
            f"{array.tile.layer}/{array.tile.index}/{number}/{quantity}": tensor
            for array in self._conductance_arrays()
            for number, state in enumerate(array.states)
            for quantity, tensor in vars(state).items()
            if tensor is not None
        }

    def _restore(self, tensors: Mapping[str, Tensor], where: str) -> None:
        expected = self._state()
        for name, tensor in expected.items():
            if name not in tensors or tensors[name].shape != tensor.shape:
                raise ValueError(
                    f"{where}: {name!r} is missing or has another shape than the network."
                )
            if name.endswith("target_uS") and not torch.equal(tensors[name], tensor):
                raise ValueError(
                    f"{where}: the network's weights are not those that were programmed "
                    f"({name.split('/')[0]!r} differs); give the network the chip was made from."
                )
        for array in self._conductance_arrays():
            for number, state in enumerate(array.states):
                prefix = f"{array.tile.layer}/{array.tile.index}/{number}/"
                found = {quantity: tensors.get(prefix + quantity) for quantity in vars(state)}
                array.states[number] = DeviceState(**found)  # type: ignore[arg-type]

    def conductances(self) -> dict[str, list[tuple[Tensor, ...]]]:
        """Conductances as read now [µS], {layer: [one tuple an array: a tensor a device]}.

        Raises:
            ValueError: If the device uses aihwkit's own weight-level path, which keeps none.
        """
        found: dict[str, list[tuple[Tensor, ...]]] = {}
        for array in self._conductance_arrays():
            found.setdefault(array.tile.layer, []).append(tuple(array.conductances_uS))
        return found

    def _conductance_arrays(self) -> list["_ConductanceArray"]:
        arrays = [array for array in self._arrays if isinstance(array, _ConductanceArray)]
        if len(arrays) < len(self._arrays):
            raise ValueError(
                f"Device {self.device.name!r} follows aihwkit's weight-level path, which keeps "
                "no conductances; use a device at conductance level."
            )
        return arrays


@contextlib.contextmanager
def step_by_step(
    network: TiledNetwork | FunctionalNetwork, image: Tensor, seeds: Any
) -> Iterator[None]:
    """Keep the compiled engine from tracing a network whose modules are for once in training."""
    if not isinstance(network, FunctionalNetwork):
        yield
        return
    if network._is_traced is None:
        network._probe(image, 0, seeds)
    is_traced, network._is_traced = network._is_traced, False
    try:
        yield
    finally:
        network._is_traced = is_traced


def _array(tile: Tile | Array, device: Device, physics: Physics, seeds: Any) -> "_Array":
    if device.noise_level == "weight_as_in_aihwkit" and isinstance(tile, Tile):
        return _AihwkitArray(tile, seeds)
    return _ConductanceArray(tile, device, physics, seeds)


class _Array:
    """One crossbar array of a chip: its tile and its compensation factor."""

    def __init__(self, tile: Tile | Array) -> None:
        self.tile = tile
        self.alpha = torch.ones(1)

    def drift_to(self, t_inference_s: float, read: int) -> None:
        raise NotImplementedError


class _ConductanceArray(_Array):
    """Both devices of every pair keep their own conductance, exponent and place through time."""

    def __init__(self, tile: Tile | Array, device: Device, physics: Physics, seeds: Any) -> None:
        super().__init__(tile)
        self._physics = physics
        self._kind = device.drift_compensation.kind
        targets, self._scale = self._physics.to_conductances(tile.target)
        self._seeds = [partial(_device_seed, seeds, number) for number in range(len(targets))]
        self.states: list[DeviceState] = [
            self._physics.program(target, device_seeds)
            for target, device_seeds in zip(targets, self._seeds, strict=True)
        ]
        self.conductances_uS = [state.programmed_uS for state in self.states]
        self._reference = self._read_out(self._weights())

    def drift_to(self, t_inference_s: float, read: int) -> None:
        self.conductances_uS = [
            self._physics.read(state, t_inference_s, read, seeds)
            for state, seeds in zip(self.states, self._seeds, strict=True)
        ]
        weights = self._weights()
        self.tile.set_weights(weights)
        if self._kind != "none":
            self.alpha = self._reference / self._read_out(weights)
            self.tile.set_compensation(self.alpha)

    def _weights(self) -> Tensor:
        weights = self._physics.to_weights(self.conductances_uS, self._scale)
        return weights * self.tile.used[:, None]  # an all-zero column is unused, not noise

    def _read_out(self, weights: Tensor) -> Tensor:
        """Mean |output| for one-hot inputs, exact: mean |w| of the array, or of each column."""
        smallest = 1e-4  # aihwkit's guard against a division by zero
        sums = weights.abs().sum(dim=1)
        if self._kind == "per_column":
            return (sums / weights.shape[1]).clamp(min=smallest)
        n_used = max(1, int(self.tile.used.sum()))
        return (sums.sum() / (n_used * weights.shape[1])).clamp(min=smallest).reshape(1)


def _device_seed(array_seeds: Any, number: int, *words: str | int | float) -> int:
    seed: int = array_seeds(number, *words)
    return seed


class _AihwkitArray(_Array):
    """aihwkit's own weight-level path: the tile programs, drifts and compensates itself.

    The stream of an array is seeded before each of aihwkit's two calls: by "programming" before
    ``program_weights`` (errors, exponents, reference read-out) and by ("read", time, read) before
    ``drift_weights`` (read noise, read-out).
    """

    def __init__(self, tile: Tile, seeds: Any) -> None:
        super().__init__(tile)
        self._aihwkit_tile = tile.aihwkit_tile
        self._seeds = seeds
        with seeded(seeds("programming")):
            self._aihwkit_tile.program_weights()

    def drift_to(self, t_inference_s: float, read: int) -> None:
        with seeded(self._seeds("read", t_inference_s, read)):
            self._aihwkit_tile.drift_weights(t_inference_s)
        self.alpha = self._aihwkit_tile.alpha.detach().clone()
