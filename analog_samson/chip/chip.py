"""A programmed chip: drift to any time, run the network, save."""

import contextlib
import copy
import json
import math
import operator
import warnings
from collections.abc import Callable, Mapping, Sequence
from numbers import Real
from pathlib import Path
from typing import NamedTuple, Self

import torch
from torch import Tensor, nn

from analog_samson.analog import (
    CellState,
    Tile,
    TiledNetwork,
    TilesOfGroups,
    as_converted,
    hand_over,
    not_in_ageing,
    on_tiles,
    why_not_on_tiles,
)
from analog_samson.checkpoint import write_tensors
from analog_samson.chip.engines import Engine
from analog_samson.chip.programmed import (
    ConductanceArray,
    PhysicsOfLayers,
    ProgrammedArrays,
    drift_together,
)
from analog_samson.compiled import ArrayCounts, FunctionalNetwork, Precision, counted
from analog_samson.devices import Device
from analog_samson.evaluation import exact_products
from analog_samson.models import (
    DigitalProducts,
    Range,
    Rewriting,
    batch_norm,
    check_forward,
    packing_of,
)
from analog_samson.streams import Stream

CHIP_FILE = "programmed chip"
"""Value of ``kind`` in the header of a saved chip."""


def whole_number(name: str, value: object) -> int:
    """Convert an argument to an integer; raise ValueError if it is none (True is none)."""
    try:
        if not isinstance(value, bool):
            return operator.index(value)  # type: ignore[arg-type]
    except TypeError:
        pass
    raise ValueError(f"{name} is a whole number; got {value!r}.")


def _seconds(value: object) -> float:
    """Convert a time to a float; raise ValueError if it is no number."""
    try:
        if not isinstance(value, bool | str):
            return float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError, OverflowError, RuntimeError):
        pass
    raise ValueError(f"t_inference_s is a time since programming, a number of s; got {value!r}.")


class Unchecked(NamedTuple):
    """A network whose forward pass is checked when the first input is known.

    Attributes:
        network: As it is mapped.
        rewriting: As it was before, and rewritten.
        folding: As it was then, and with batch normalisation folded where the device does so.
    """

    network: nn.Module
    rewriting: Rewriting
    folding: batch_norm.Folding


class Chip:
    """One programming of one network on one device; made by ``program``.

    Attributes:
        device: The device.
        seed: Random seed of the chip, from which all its random streams are derived.
        engine: What runs the forward pass.
        precision: Precision of its products.
        input_ranges: {layer: input range of its DAC, or of each array, model units}; None: not
            calibrated.
        keep_digital: Layers that are not on the chip.
        t_inference_s: Time since programming finished [s] at which the chip is read.
        read: Number of the read, which selects the draw of the read noise.

    Example:
        >>> from analog_samson import program
        >>> network, inputs = nn.Sequential(nn.Linear(8, 2)), torch.rand(16, 8)
        >>> chip = program(network, "pcm_like", calibration=inputs)
        >>> chip.drift_to(86400.0).t_inference_s  # any order of times
        86400.0
        >>> chip.weights()["0"].shape, chip.compensation()["0"].shape
        (torch.Size([2, 8]), torch.Size([1]))
    """

    def __init__(
        self,
        network: TiledNetwork | FunctionalNetwork,
        device: Device,
        physics: PhysicsOfLayers,
        seed: int,
        input_ranges: Mapping[str, Range] | None = None,
        keep_digital: Sequence[str] = (),
        recalibration: Tensor | None = None,
        products: DigitalProducts | None = None,
        unchecked: Unchecked | None = None,
        analog_share: float = math.nan,
        digital: nn.Module | None = None,
    ) -> None:
        self._digital = digital
        self.engine: Engine = "aihwkit"
        self.precision: Precision = "fp32"
        if isinstance(network, FunctionalNetwork):
            self.engine, self.precision = "compiled", network.precision
        self.device = device
        self.seed = seed
        self.input_ranges = input_ranges
        self.keep_digital = tuple(keep_digital)
        self.analog_share = analog_share
        self.network = network
        self.recalibration = recalibration
        self._products = products
        self._unchecked = unchecked
        self.trained_statistics = batch_norm.statistics(network.network)
        self._needs_recalibration = False
        self._shape_run: torch.Size | None = None  # of an image
        self._physics = physics
        self._arrays = ProgrammedArrays(network.arrays, physics, seed)
        self._measured: tuple[tuple[float, int], list[Tensor]] | None = None
        self.t_inference_s = math.nan
        self.read = 0

    def drift_to(self, t_inference_s: float, read: int = 0) -> Self:
        """Age this chip to a time and read it; the result does not depend on earlier calls.

        Args:
            t_inference_s: Time since programming finished [s]; 0 is the programmed state, without
                read noise. A chip that is refreshed is programmed again at the last multiple of
                ``refresh_every`` up to this time.
            read: Number of the read at that time, from 0; selects the draw of the read noise.

        Returns:
            The chip itself.

        Raises:
            ValueError: If the device has no data for that time, the read is negative, or a weight
                or compensation factor is then NaN or infinite.
        """
        read_together([self], t_inference_s, read)
        return self

    def _take_as_read(
        self, t_inference_s: float, read: int, factors: Sequence[Tensor] | None
    ) -> None:
        """Complete a read of the arrays; factors: of an earlier read, None: of this one."""
        if factors is None:
            self._rescale_layers()
        else:
            self._set_factors(factors)
        self.t_inference_s, self.read = t_inference_s, read
        self.forward_seeds = Stream(self.seed, "forward", t_inference_s, read)
        self._needs_recalibration = (
            self.device.drift_compensation.batch_norm == "recalibrated"
            and bool(self.trained_statistics)
        )

    def is_of_the_same_network(self, other: Self) -> bool:
        """Whether two chips are of one mapped network, so that only their seeds differ."""
        return self._physics is other._physics and self.input_ranges is other.input_ranges

    def _factors_at(self, measured_s: float | None, cycle: int) -> list[Tensor]:
        """Compensation factors measured at a time since programming [s]; None: 1, not measured."""
        if measured_s is None:
            return [torch.ones_like(array.mapped.alpha) for array in self._arrays]
        if self._measured is None or self._measured[0] != (measured_s, cycle):
            drift_together([self._arrays], measured_s, 0, cycle)
            self._rescale_layers()
            factors = [array.mapped.alpha.clone() for array in self._arrays]
            self._measured = (measured_s, cycle), factors
        return self._measured[1]

    def _set_factors(self, factors: Sequence[Tensor]) -> None:
        for array, alpha in zip(self._arrays, factors, strict=True):
            array.mapped.set_compensation(alpha)

    def _rescale_layers(self) -> None:
        """Set the least-squares factor of each layer with compensation ``per_layer``."""
        rescaled = [array for array in self._arrays if array.kind == "per_layer"]
        if not rescaled or self._products is None:
            return
        weights = self.network.weights()
        gains = {
            name: self._products.gain(name, weights[name])
            for name in dict.fromkeys(array.mapped.layer for array in rescaled)
        }
        for array in rescaled:
            array.set_compensation(gains[array.mapped.layer])

    def __call__(
        self, images: Tensor | tuple[Tensor, ...] | Mapping[str, Tensor], first_index: int = 0
    ) -> Tensor:
        """Run the network on the chip, including digital periphery and compensation.

        A chip computes in fp32, also under autocast.

        Args:
            images: One tensor of inputs as for the digital network, shape (n, ...); floating-point
                inputs are converted to fp32. For a network of several inputs the tuple or
                dictionary of them, as in ``calibration``.
            first_index: Index of the first image in the whole set. Forward noise depends on
                (chip, time, read, image) and not on the batch size.

        Returns:
            Outputs of the network, shape (n, ...).

        Raises:
            ValueError: If the device's DAC needs input ranges and the chip was not calibrated, the
                input is not one dense tensor of at least one image without NaN (NaN is found on
                the CPU only), or the network's forward cannot run on arrays (checked at the first
                call if no input was known when the chip was programmed).
        """
        if isinstance(images, Tensor) and images.is_meta:
            raise ValueError("The images are on the meta device, without values; give them values.")
        images = self.checked(images)
        if self._needs_recalibration:
            self._recalibrate(images.device)
        first_index = whole_number("first_index", first_index)
        try:
            outputs = self.network.forward(images, first_index, self.forward_seeds)
        except Exception as error:  # any exception that the code of the network raises
            if images.shape[1:] == self._shape_run or isinstance(error, torch.OutOfMemoryError):
                raise
            raise ValueError(
                f"The chip does not run inputs of shape {tuple(images.shape)} and type "
                f"{images.dtype} ({error}); give images as the network was trained on."
            ) from error
        self._shape_run = images.shape[1:]
        return outputs

    def checked(self, images: Tensor | tuple[Tensor, ...] | Mapping[str, Tensor]) -> Tensor:
        """Convert inputs to fp32; raise ValueError if the chip cannot run them."""
        packing = packing_of(self.network.network)
        if packing is not None and isinstance(images, tuple | Mapping):
            images = packing.pack(images)
        if not isinstance(images, Tensor):
            raise ValueError(
                f"A chip takes one tensor of shape (n, ...); got {type(images).__name__}. For a "
                "network of several inputs give a tuple or dictionary of them as calibration."
            )
        if images.layout != torch.strided or images.is_complex():
            raise ValueError(
                "A chip takes a dense tensor of real numbers; got one of layout "
                f"{images.layout}, type {images.dtype}."
            )
        if images.ndim == 0 or len(images) == 0:
            raise ValueError(
                f"A chip takes at least one image, shape (n, ...); got shape {tuple(images.shape)}."
            )
        self.check_calibrated()
        if self._unchecked is not None:
            self._unchecked.rewriting.check(images[:2])
            self._unchecked.folding.check(images[:2])
            check_forward(self._unchecked.network, images[:2], self.keep_digital)
            self._unchecked = None
        if not images.is_floating_point():
            return images
        images = images.float()
        # the sum is fast; on a GPU it would wait for all queued kernels
        if images.device.type == "cpu" and math.isnan(images.sum()) and bool(images.isnan().any()):
            raise ValueError(
                "The images hold NaN; a chip takes numbers: check their normalisation."
            )
        return images

    @property
    def is_traced(self) -> bool | None:
        """Whether the network is traced by torch.compile; None before the first input."""
        network = self.network
        return network.execution.is_traced if isinstance(network, FunctionalNetwork) else False

    def __repr__(self) -> str:
        """Device, engine, and how much of the network is on the chip."""
        traced = {None: "tracing not decided yet", True: "traced", False: "not traced"}
        n_layers = len({array.mapped.layer for array in self._arrays})
        return (
            f"Chip({self.device.name}, seed {self.seed}, t_inference_s={self.t_inference_s:g}, "
            f"read={self.read}; {self.engine} engine, {traced[self.is_traced]}; {n_layers} layers "
            f"with {100 * self.analog_share:.1f} % of the weights)"
        )

    @property
    def is_batch_invariant(self) -> bool:
        """Whether outputs are known to be bit-identical for every batch size."""
        network = self.network
        return isinstance(network, FunctionalNetwork) and network.is_batch_invariant

    def check_calibrated(self) -> None:
        """Raise ValueError if the device's DAC needs input ranges and there are none."""
        if self.device.periphery.needs_input_ranges and not self.network.has_input_ranges:
            raise ValueError(
                f"Device {self.device.name!r} has a DAC of fixed range and this chip was not "
                "calibrated; give program(..., calibration=images of the training set)."
            )

    def _recalibrate(self, accelerator: torch.device) -> None:
        """Recompute the running statistics of batch normalisation at this read."""
        images = self.recalibration
        if images is None:
            raise ValueError(
                f"Device {self.device.name!r} recalibrates batch normalisation and this chip has "
                "no images for it; give program(..., recalibration=images of the training set)."
            )
        network, images = self.network, images.to(accelerator)
        batch_norm.restore(network.network, self.trained_statistics)
        seeds = Stream(self.seed, "recalibration", self.t_inference_s, self.read)
        untraced = (
            network.eager(images[:1], seeds)
            if isinstance(network, FunctionalNetwork)
            else contextlib.nullcontext()
        )
        with untraced:
            batch_norm.recalibrate(
                network.network, lambda batch, first: network.forward(batch, first, seeds), images
            )
        self._needs_recalibration = False

    def weights(self) -> dict[str, Tensor]:
        """Effective weights now, {layer: tensor of the layer's shape}, model units.

        Drift compensation is not included; see :meth:`compensation`.
        """
        return self.network.weights()

    def compensation(self) -> dict[str, Tensor]:
        """Compensation factors now, {layer: tensor}, one per array or column; 1 without any."""
        factors: dict[str, list[Tensor]] = {}
        for array in self._arrays:
            factors.setdefault(array.mapped.layer, []).append(array.mapped.alpha.reshape(-1))
        return {layer: torch.cat(values) for layer, values in factors.items()}

    def save(self, path: str | Path) -> Path:
        """Write the chip to a safetensors file: every cell as programmed, ranges, seed, time.

        The digital part of the network is not saved; :func:`load_chip` needs it again.

        Args:
            path: The file. An existing file is replaced only when the new one is complete.

        Returns:
            The path.

        Raises:
            ValueError: If the device uses aihwkit's own weight-level path, which has no cells.
            OSError: If the file cannot be written.
        """
        header = {
            "kind": CHIP_FILE,
            "device": json.loads(self.device.model_dump_json()),
            "measurements": getattr(self.device.noise, "measurements", None),
            "seed": self.seed,
            "engine": self.engine,
            "precision": self.precision,
            "keep_digital": list(self.keep_digital),
            "input_ranges": self.input_ranges
            and {name: own for name, own in self.input_ranges.items() if isinstance(own, Real)},
            "t_inference_s": self.t_inference_s,
            "read": self.read,
        }
        ranges = self.input_ranges or {}
        of_arrays = {name: own for name, own in ranges.items() if not isinstance(own, Real)}
        if of_arrays:
            header["array_ranges"] = of_arrays
        return write_tensors(path, self._state(), header)

    def to_aihwkit(self) -> nn.Module:
        """Convert this chip, as it is now, to a network of aihwkit for scripts of your own.

        Returns:
            The network in evaluation mode on aihwkit's tiles, with its methods for converted
            networks. It computes what the chip computes with the engine "aihwkit": weights as read
            now, compensation factors, input ranges. ``drift_analog_weights(t)`` ages the programmed
            weights with the drift exponents of this chip by aihwkit's own weight-level path, which
            follows no temperature, refresh or times of compensation: a warning names them.

        Raises:
            ValueError: If aihwkit's tiles cannot run the device.
        """
        device = self.device
        if reason := why_not_on_tiles(device):
            raise ValueError(f"Device {device.name!r} cannot run on aihwkit's tiles: {reason}.")
        if missing := not_in_ageing(device):
            warnings.warn(
                f"Device {device.name!r}: the converted network holds this chip as it is now; its "
                f"drift_analog_weights does not follow {', '.join(missing)}.",
                stacklevel=2,
            )
        if self._digital is None or device.noise_level == "weight_as_in_aihwkit":
            return as_converted(copy.deepcopy(self.network.network))
        converted, arrays = on_tiles(self._digital, device, self.keep_digital, self.input_ranges)
        for own, array in zip(self._conductance_arrays(), arrays, strict=True):
            _hand_over(own, array)
        return converted

    def _state(self) -> dict[str, Tensor]:
        """Every cell of every array as programmed, by (layer, array, cell, quantity)."""
        return {
            f"{array.mapped.layer}/{array.mapped.index}/{number}/{quantity}": tensor
            for array in self._conductance_arrays()
            for number, (state, target) in enumerate(
                zip(array.states, array.targets(), strict=True)
            )
            for quantity, tensor in (vars(state) | {"target_uS": target}).items()
            if tensor is not None
        }

    def _restore(self, tensors: Mapping[str, Tensor]) -> None:
        expected = self._state()
        if extra := sorted(set(tensors) - set(expected)):
            raise ValueError(
                f"It holds {extra[0]!r}, which this network on this device does not have."
            )
        for name, tensor in expected.items():
            given = tensors.get(name)
            if given is None or (given.shape, given.dtype) != (tensor.shape, tensor.dtype):
                raise ValueError(
                    f"{name!r} is missing or has another shape or type than in the network."
                )
            if name.endswith("target_uS") and not torch.equal(given, tensor):
                raise ValueError(
                    "The network's weights are not those that were programmed "
                    f"({name.split('/')[0]!r} differs); give the network the chip was made from."
                )
            if name.endswith("stuck_uS"):  # NaN where a cell is not stuck
                given = given.nan_to_num(nan=0.0, posinf=math.inf, neginf=-math.inf)
            if not bool(given.isfinite().all()):
                raise ValueError(f"{name!r} holds NaN or infinity; the cells of a chip are finite.")
            self._check_plausible(name, given, tensor)
        for name, tensor in expected.items():
            if not name.endswith("target_uS"):
                tensor.copy_(tensors[name])
        for array in self._conductance_arrays():
            array.read_out_as_programmed()
        self._measured = None

    def _check_plausible(self, name: str, given: Tensor, programmed: Tensor) -> None:
        """Raise ValueError if loaded cells are far from those that the device programs."""
        largest = float(programmed.nan_to_num().abs().max())
        if name.endswith("drift_exponent"):
            high = max(10.0, 100 * largest)
            low = -high
        elif name.endswith(("programmed_uS", "stuck_uS")):
            high = 100 * max(largest, *self.device.noise.conductance_range)
            low = 0.0 if bool((programmed.nan_to_num() >= 0).all()) else -high
        else:
            return
        smallest, largest = float(given.min()), float(given.max())
        if smallest < low or largest > high:
            raise ValueError(
                f"{name!r} holds {smallest:g} to {largest:g}; cells of this device lie within "
                f"{low:g} to {high:g}."
            )

    def conductances(self) -> dict[str, list[tuple[Tensor, ...]]]:
        """Conductances as read now [µS], {layer: [one tuple per array: one tensor per cell]}.

        Raises:
            ValueError: If the device uses aihwkit's own weight-level path, which has none.
        """
        return self._by_layer(lambda array: array.conductances())

    def target_conductances(self) -> dict[str, list[tuple[Tensor, ...]]]:
        """Target conductances [µS] of every cell, in the structure of :meth:`conductances`.

        Raises:
            ValueError: As :meth:`conductances`.
        """
        return self._by_layer(lambda array: array.targets())

    def _by_layer(
        self, of: Callable[["ConductanceArray"], list[Tensor]]
    ) -> dict[str, list[tuple[Tensor, ...]]]:
        found: dict[str, list[tuple[Tensor, ...]]] = {}
        for array in self._conductance_arrays():
            cells = [g.reshape(-1, *g.shape[-2:]) for g in of(array)]
            found.setdefault(array.mapped.layer, []).extend(zip(*cells, strict=True))
        return found

    def count_clipped(
        self, images: Tensor | tuple[Tensor, ...] | Mapping[str, Tensor], first_index: int = 0
    ) -> dict[str, list[ArrayCounts]]:
        """Count clipped inputs and saturated outputs of every array in one forward pass.

        Args:
            images: As for a call of the chip.
            first_index: As for a call of the chip.

        Returns:
            {layer: counts of its arrays, ordered by row block and column block}.

        Raises:
            ValueError: If the chip runs on the engine "aihwkit", or its periphery has no converters
                of fixed ranges.
        """
        network = self.network
        if not isinstance(network, FunctionalNetwork):
            raise ValueError(
                "Clipping is counted on the compiled engine; give program(..., engine='compiled')."
            )
        inputs = self.checked(images)
        self(inputs[:1])  # decides on layout and tracing
        with counted(network) as counts:
            self(inputs, first_index)
        return counts

    def _conductance_arrays(self) -> list["ConductanceArray"]:
        arrays = [array for array in self._arrays if isinstance(array, ConductanceArray)]
        if len(arrays) < len(list(self._arrays)):
            raise ValueError(
                f"Device {self.device.name!r} follows aihwkit's weight-level path, which has "
                "no conductances; use a device at conductance level."
            )
        return arrays


@exact_products(torch.device("cpu"))
def read_together(chips: Sequence[Chip], t_inference_s: float, read: int = 0) -> None:
    """Age chips of one device to a time and read them, as :meth:`Chip.drift_to` does one."""
    device = chips[0].device
    t_inference_s = _seconds(t_inference_s)
    device.check_time(t_inference_s)
    read = whole_number("read", read)
    if read < 0:
        raise ValueError(f"read counts draws of the read noise from 0; got {read}.")
    cycle, age_s = device.cycle_and_age(t_inference_s)
    measured_s = device.drift_compensation.last_measured(age_s)
    factors = [
        None if measured_s == age_s else chip._factors_at(measured_s, cycle) for chip in chips
    ]
    drift_together([chip._arrays for chip in chips], age_s, read, cycle)
    for chip, own in zip(chips, factors, strict=True):
        chip._take_as_read(t_inference_s, read, own)


def _hand_over(own: ConductanceArray, array: Tile | TilesOfGroups) -> None:
    """Give tiles the state of an array of a chip, group by group."""
    tiles = array.tiles if isinstance(array, TilesOfGroups) else (array,)
    shape = len(tiles), *own.mapped.target.shape[-2:]
    cells = own.states if own.physics.noise.cells == "pair" else []
    now, before = (w.view(shape) for w in (own.normalised_weights(), own.programmed_weights()))
    alphas = own.mapped.alpha.view(len(tiles), -1)
    for number, tile in enumerate(tiles):
        states = [_of_group(cell, number, shape) for cell in cells]
        hand_over(tile, now[number], alphas[number], before[number], states)


def _of_group(cell: CellState, number: int, shape: tuple[int, ...]) -> CellState:
    target, exponent = (
        None if tensor is None else tensor.view(shape)[number]
        for tensor in (cell.target_uS, cell.drift_exponent)
    )
    return CellState(target, cell.programmed_uS.view(shape)[number], exponent)
