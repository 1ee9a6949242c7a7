"""A network on aihwkit's tiles: configuration, input ranges, the forward pass."""

import copy
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from analog_samson import models
from analog_samson.analog.effects import WithEffects, effects_of
from analog_samson.analog.noise_models import noise_model
from analog_samson.analog.physics import seeded
from analog_samson.analog.versions import check_versions
from analog_samson.devices import Device
from analog_samson.evaluation import exact_products

TILE_BLOCK = 32
"""Images per forward pass of the tiles: the batch size at which aihwkit's torch tile is fastest."""


@dataclass
class Tile:
    """One crossbar array of a layer: aihwkit's tile and what its weights are meant to be.

    Attributes:
        layer: Dotted name of the layer.
        index: Number of the array within its layer, row blocks outermost.
        aihwkit_tile: The simulator's tile.
        target: Normalised target weights, shape (columns, rows), largest of a column +-1.
        used: Columns that hold any weight, shape (columns,).
    """

    layer: str
    index: int
    aihwkit_tile: Any
    target: Tensor
    used: Tensor

    def set_weights(self, weights: Tensor) -> None:
        """Put normalised weights (columns, rows) on the array."""
        self.aihwkit_tile.tile.set_weights(weights)

    @property
    def alpha(self) -> Tensor:
        """Compensation factor now, shape (1,) or (columns,)."""
        alpha: Tensor = self.aihwkit_tile.alpha.detach()
        return alpha

    def set_compensation(self, alpha: Tensor) -> None:
        """Set the factor (or one a column) that multiplies the array's outputs."""
        buffer = self.aihwkit_tile.alpha
        self.aihwkit_tile.alpha = alpha.to(device=buffer.device, dtype=buffer.dtype)


class TiledNetwork:
    """A copy of a network whose layers run on aihwkit's tiles: torch's where they can, else C++.

    Args:
        network: The digital network; it is copied, not changed. Layers that are used in several
            places stay one layer.
        device: The device whose mapping and periphery the tiles get.
        keep_digital: Names of layers to leave digital.
        input_ranges: Layer name to the largest input its DAC takes, model units; may be None
            where the periphery is ideal or no forward pass is wanted.

    Raises:
        ValueError: If a layer cannot become tiles and is not to be kept digital, or weights are
            NaN, infinite or all zero.
        ImportError: If the installed aihwkit and torch do not work together.
    """

    def __init__(
        self,
        network: nn.Module,
        device: Device,
        keep_digital: Sequence[str] = (),
        input_ranges: Mapping[str, float] | None = None,
    ) -> None:
        check_versions()
        self.device = device
        self.network = copy.deepcopy(network).eval()
        self.has_input_ranges = input_ranges is not None
        layers = models.analog_layers(self.network, keep_digital)
        models.check_weights(self.network, list(layers))
        self._shapes = {name: layer.weight.shape for name, layer in layers.items()}
        configuration = tile_configuration(device)
        with seeded(0):  # aihwkit initialises every layer before it takes over the weights
            self.layers: dict[str, Any] = {
                name: _analog_layer(name, layer, configuration) for name, layer in layers.items()
            }
        self.network = models.replace_everywhere(
            self.network, {id(layer): self.layers[name] for name, layer in layers.items()}
        )
        self.network.eval()
        self.network.requires_grad_(False)
        self.arrays = [
            _tile(name, index, aihwkit_tile)
            for name, layer in self.layers.items()
            for index, aihwkit_tile in enumerate(layer.analog_tiles())
        ]
        for tile in self.arrays:  # its hook on gradients, which nobody takes here, does not pickle
            if handle := getattr(tile.aihwkit_tile, "_backward_hook_handle", None):
                handle.remove()
                tile.aihwkit_tile._backward_hook_handle = None
        if effects := effects_of(device.periphery, "aihwkit"):
            for tile in self.arrays:
                tile.aihwkit_tile.tile._analog_mvm = WithEffects(effects)
        if input_ranges is not None and device.periphery.needs_input_ranges:
            self._set_input_ranges(input_ranges)

    def _set_input_ranges(self, input_ranges: Mapping[str, float]) -> None:
        check_input_ranges(input_ranges, self.layers)
        for tile in self.arrays:
            tile.aihwkit_tile.set_input_range(float(input_ranges[tile.layer]))

    def weights(self) -> dict[str, Tensor]:
        """Weights on the arrays in model units and the layers' shapes, without compensation."""
        return {
            name: layer.get_weights()[0].detach().clone().reshape(self._shapes[name])
            for name, layer in self.layers.items()
        }

    @torch.no_grad()
    def forward(self, images: Tensor, first_index: int, seeds: Callable[[int], int]) -> Tensor:
        """Outputs of the network, drawn so that an image's noise does not depend on its batch.

        Images run in fixed blocks of ``TILE_BLOCK``, counted over the whole set and padded where
        the set begins or ends in the middle of one; every block has its own seed.

        Args:
            images: Network inputs, shape (n, ...).
            first_index: Number of the first image in the whole set.
            seeds: Block number to seed.

        Returns:
            Outputs, shape (n, ...).
        """
        before = first_index % TILE_BLOCK
        after = -(before + len(images)) % TILE_BLOCK
        padded = torch.cat(
            [
                images.new_zeros(before, *images.shape[1:]),
                images,
                images.new_zeros(after, *images.shape[1:]),
            ]
        )
        first_block = first_index // TILE_BLOCK
        outputs = []
        for number, block in enumerate(torch.split(padded, TILE_BLOCK)):
            with seeded(seeds(first_block + number)), exact_products(images.device):
                outputs.append(models.one_tensor(self.network(block)))
        return torch.cat(outputs)[before : before + len(images)]


def check_input_ranges(input_ranges: Mapping[str, float], layers: Iterable[str]) -> None:
    """Raise ValueError unless every layer has an input range."""
    missing = sorted(set(layers) - set(input_ranges))
    if missing:
        raise ValueError(
            f"No input range for layer {missing[0]!r}; calibrated layers: "
            f"{', '.join(sorted(input_ranges))}. Calibrate on images of the training set."
        )


def draws_from_the_clock(device: Device) -> bool:
    """Whether aihwkit's tiles of a device draw noise that no seed repeats.

    The C++ tile seeds the noise of its forward pass from the clock; the torch tile from torch.
    """
    periphery = device.periphery
    is_noisy = periphery.output_noise > 0 or periphery.mvm_read_noise > 0
    return is_noisy and periphery.is_by_vector


def why_not_on_tiles(device: Device) -> str:
    """Say why aihwkit's tiles cannot run a device; "" if they can."""
    if device.periphery.effects and device.periphery.is_by_vector:
        return "effects of the periphery need its torch tile, per-vector computing its C++ tile"
    return device.periphery.without_implementation("aihwkit")


def tile_configuration(device: Device) -> Any:
    """Translate a device's mapping and periphery into aihwkit's configuration of a tile.

    Args:
        device: The device.

    Returns:
        A ``TorchInferenceRPUConfig``, or an ``InferenceRPUConfig`` where the periphery needs the
        C++ tile; its noise model and compensation are those of the device and act only where the
        device asks for aihwkit's own path.
    """
    from aihwkit.inference.compensation.drift import (
        GlobalDriftCompensation,
        PerColumnDriftCompensation,
    )
    from aihwkit.simulator.configs import InferenceRPUConfig, TorchInferenceRPUConfig

    compensations = {
        "none": None,
        "global": GlobalDriftCompensation(),
        "per_column": PerColumnDriftCompensation(),
        "per_layer": GlobalDriftCompensation(),  # the tile multiplies by what the chip sets
    }
    configuration = TorchInferenceRPUConfig()
    if device.periphery.is_by_vector:  # only the C++ tile knows it, or does it vector by vector
        configuration = InferenceRPUConfig()
    configuration.noise_model = noise_model(device)
    configuration.drift_compensation = compensations[device.drift_compensation.kind]
    configuration.mapping.weight_scaling_omega = 1.0  # the default of 0 maps weights as they are
    configuration.mapping.weight_scaling_columnwise = device.mapping.scale == "column"
    configuration.mapping.digital_bias = True
    configuration.mapping.max_input_size = _unlimited_is_zero(device.mapping.max_rows)
    configuration.mapping.max_output_size = _unlimited_is_zero(device.mapping.max_columns)
    _set_periphery(configuration.forward, device)
    input_range = configuration.pre_post.input_range
    input_range.enable = device.periphery.needs_input_ranges
    input_range.init_from_data = 0
    return configuration


def _set_periphery(forward: Any, device: Device) -> None:
    from aihwkit.simulator.parameters.enums import (
        BoundManagementType,
        NoiseManagementType,
        WeightNoiseType,
    )

    periphery = device.periphery
    iterative = periphery.bound_management == "iterative"
    forward.is_perfect = periphery.is_ideal
    forward.noise_management = NoiseManagementType.NONE
    if periphery.input_scaling == "per_vector":
        forward.noise_management = NoiseManagementType.ABS_MAX
    elif periphery.is_by_vector:  # as in aihwkit's preset: inputs come scaled by their range
        forward.noise_management, forward.nm_thres = NoiseManagementType.CONSTANT, 1.0
    forward.bound_management = BoundManagementType[("NONE", "ITERATIVE")[iterative]]
    forward.inp_bound = 1.0
    forward.inp_res = _steps(periphery.dac_bits)
    forward.out_res = _steps(periphery.adc_bits)
    forward.out_bound = 0.0 if math.isinf(periphery.output_bound) else periphery.output_bound
    forward.out_noise = periphery.output_noise
    if periphery.mvm_read_noise > 0:
        kinds = {"pcm_read": "PCM_READ", "additive": "ADDITIVE_CONSTANT"}
        forward.w_noise_type = WeightNoiseType[kinds[periphery.mvm_read_noise_kind]]
        forward.w_noise = periphery.mvm_read_noise
    forward.ir_drop = periphery.ir_drop


def _unlimited_is_zero(size: int | str) -> int:
    return 0 if isinstance(size, str) else size


def _steps(bits: int | str) -> float:
    return -1.0 if isinstance(bits, str) else float(2**bits - 2)


def _analog_layer(name: str, layer: nn.Module, configuration: Any) -> Any:
    from aihwkit.nn import AnalogConv2d, AnalogLinear

    kinds = {nn.Linear: AnalogLinear, nn.Conv2d: AnalogConv2d}
    groups = getattr(layer, "groups", 1)
    if type(layer) not in kinds or groups > 1:
        what = type(layer).__name__ + (f" of {groups} groups" if groups > 1 else "")
        raise ValueError(
            f"Layer {name!r} is a {what}, which aihwkit's tiles cannot run; "
            "use engine='compiled' on a device it supports, or keep the layer digital."
        )
    return kinds[type(layer)].from_digital(layer, configuration)


def _tile(layer: str, index: int, aihwkit_tile: Any) -> Tile:
    target = aihwkit_tile.tile.get_weights().detach().clone()
    return Tile(layer, index, aihwkit_tile, target, used=target.abs().amax(dim=1) > 0)
