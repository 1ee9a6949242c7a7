"""A network on aihwkit's tiles: configuration, input ranges, the forward pass."""

import copy
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from analog_samson import models
from analog_samson.analog.currents import CellCurrents, WithCurrents, currents_of, largest_of
from analog_samson.analog.effects import WithEffects, effects_of
from analog_samson.analog.noise_models import noise_model
from analog_samson.analog.physics import seeded
from analog_samson.analog.versions import check_versions
from analog_samson.devices import Device
from analog_samson.evaluation import exact_products
from analog_samson.models.rewriting.convolution import convolution

TILE_BLOCK = 32
"""Images per forward pass of the tiles: the batch size at which aihwkit's torch tile is fastest."""


@dataclass
class Tile:
    """One array of a layer: aihwkit's tile and its target weights.

    Attributes:
        layer: Dotted name of the layer.
        index: Number of the array within its layer, row blocks outermost.
        aihwkit_tile: The simulator's tile.
        target: Normalised target weights, shape (columns, rows), largest of a column +-1.
        used: Columns with a nonzero weight, shape (columns,).
    """

    layer: str
    index: int
    aihwkit_tile: Any
    target: Tensor
    used: Tensor

    def set_weights(self, weights: Tensor) -> None:
        """Set the normalised weights of the array, shape (columns, rows)."""
        self.aihwkit_tile.tile.set_weights(weights)

    @property
    def alpha(self) -> Tensor:
        """Current drift compensation factor, shape (1,) or (columns,)."""
        alpha: Tensor = self.aihwkit_tile.alpha.detach()
        return alpha

    def set_compensation(self, alpha: Tensor) -> None:
        """Set the factor (or one per column) that the outputs of the array are multiplied by."""
        buffer = self.aihwkit_tile.alpha
        self.aihwkit_tile.alpha = alpha.to(device=buffer.device, dtype=buffer.dtype)


class TilesOfGroups:
    """The crossbar arrays of all groups of a grouped convolution at one position.

    Shapes are those of one array, after the groups; the arrays are programmed and aged together, as
    in the compiled engine.

    Attributes:
        layer: Dotted name of the layer.
        index: Number of the position: row block, then column block.
        tiles: One a group.
        target: Normalised target weights, shape (groups, columns, rows).
        used: Columns that hold any weight, shape (groups, columns).
    """

    def __init__(self, layer: str, index: int, tiles: Sequence[Tile]) -> None:
        self.layer, self.index, self.tiles = layer, index, tuple(tiles)
        self.target = torch.stack([tile.target for tile in tiles])
        self.used = torch.stack([tile.used for tile in tiles])

    def set_weights(self, weights: Tensor) -> None:
        """Put normalised weights (groups, columns, rows) on the arrays."""
        for tile, own in zip(self.tiles, weights, strict=True):
            tile.set_weights(own)

    @property
    def alpha(self) -> Tensor:
        """Compensation factors now, shape (groups, 1) or (groups, columns)."""
        return torch.stack([tile.alpha for tile in self.tiles])

    def set_compensation(self, alpha: Tensor) -> None:
        """Set the factors, shape (groups, 1) or (groups, columns)."""
        for tile, own in zip(self.tiles, alpha, strict=True):
            tile.set_compensation(own)


class OfGroups(nn.Module):
    """A grouped convolution as one layer of tiles for each group.

    Args:
        layer: The digital layer.
        convert: Makes a layer of tiles of a digital one.
    """

    def __init__(self, layer: Any, convert: Callable[[nn.Module], Any]) -> None:
        super().__init__()
        n_groups = layer.groups
        biases = [None] * n_groups if layer.bias is None else layer.bias.chunk(n_groups)
        how = {key: getattr(layer, key) for key in ("stride", "padding", "dilation")}
        self.groups = nn.ModuleList(
            convert(convolution(weight, bias, groups=1, **how))
            for weight, bias in zip(layer.weight.chunk(n_groups), biases, strict=True)
        )

    def forward(self, x: Tensor) -> Tensor:
        """Outputs of all groups."""
        parts = x.chunk(len(self.groups), dim=-3 if x.ndim == 4 else -2)
        return torch.cat(
            [group(part) for group, part in zip(self.groups, parts, strict=True)], dim=1
        )

    def get_weights(self) -> tuple[Tensor, None]:
        """Weights of all groups, in model units."""
        groups: Any = self.groups
        return torch.cat([group.get_weights()[0] for group in groups]), None


class OfOneDimension(nn.Module):
    """A convolution of one dimension: aihwkit's own needs the C++ tile, that of images does not."""

    def __init__(self, conv: Any) -> None:
        super().__init__()
        self.conv = conv

    def forward(self, x: Tensor) -> Tensor:
        """Outputs, shape (n, channels, length)."""
        outputs: Tensor = self.conv(x.unsqueeze(-2)).squeeze(-2)
        return outputs

    def analog_tiles(self) -> Any:
        """The tiles."""
        return self.conv.analog_tiles()

    def get_weights(self) -> tuple[Tensor, None]:
        """Weights in model units."""
        return self.conv.get_weights()[0], None


class TiledNetwork:
    """A copy of a network whose layers run on aihwkit's tiles: torch's if possible, otherwise C++.

    Args:
        network: The digital network; it is copied, not changed. A layer that is used several
            times stays one layer.
        device: The device whose mapping and periphery the tiles get.
        keep_digital: Names of layers to leave digital.
        input_ranges: Layer name to the input range of its DAC, or of each array, in model units;
            may be None if the periphery is ideal or no forward pass is run.

    Raises:
        ValueError: If a layer cannot be mapped to tiles and is not kept digital, or weights are
            NaN, infinite or all zero.
        ImportError: If the installed aihwkit and torch do not work together.
    """

    def __init__(
        self,
        network: nn.Module,
        device: Device,
        keep_digital: Sequence[str] = (),
        input_ranges: Mapping[str, models.Range] | None = None,
    ) -> None:
        check_versions()
        self.device = device
        self.network = copy.deepcopy(network).eval()
        self.has_input_ranges = input_ranges is not None
        layers = models.analog_layers(self.network, keep_digital)
        models.check_weights(self.network, list(layers))
        self._shapes = {name: layer.weight.shape for name, layer in layers.items()}
        configuration = tile_configuration(device)
        with seeded(0):  # aihwkit initialises every layer before the weights are copied
            self.layers: dict[str, Any] = {
                name: _analog_layer(layer, configuration) for name, layer in layers.items()
            }
        for name, layer in layers.items():
            _set_trained_scales(name, layer, self.layers[name])
        self.network = models.replace_everywhere(
            self.network, {id(layer): self.layers[name] for name, layer in layers.items()}
        )
        self.network.eval()
        self.network.requires_grad_(False)
        self.arrays = [a for name, layer in self.layers.items() for a in _arrays_of(name, layer)]
        self._tiles = [
            tile
            for array in self.arrays
            for tile in (array.tiles if isinstance(array, TilesOfGroups) else (array,))
        ]
        for tile in self._tiles:  # its hook on gradients, unused here, cannot be pickled
            if handle := getattr(tile.aihwkit_tile, "_backward_hook_handle", None):
                handle.remove()
                tile.aihwkit_tile._backward_hook_handle = None
        if effects := effects_of(device.periphery, "aihwkit"):
            for tile in self._tiles:
                tile.aihwkit_tile.tile._analog_mvm = WithEffects(effects)
        if device.periphery.has_cell_currents:
            for array in self.arrays:
                currents = cast(CellCurrents, currents_of(device, array.layer))
                products = WithCurrents(currents, float(largest_of(array.target)))
                for tile in array.tiles if isinstance(array, TilesOfGroups) else (array,):
                    tile.aihwkit_tile.tile._analog_mvm = products
        if input_ranges is not None and device.periphery.needs_input_ranges:
            self._set_input_ranges(input_ranges)

    def _set_input_ranges(self, input_ranges: Mapping[str, models.Range]) -> None:
        check_input_ranges(input_ranges, self.layers)
        ranges = {
            name: models.ranges_for(name, input_ranges[name], *map(len, _blocks(layer))).flatten()
            for name, layer in self.layers.items()
        }
        for tile in self._tiles:
            tile.aihwkit_tile.set_input_range(float(ranges[tile.layer][tile.index]))

    def weights(self) -> dict[str, Tensor]:
        """Weights of the arrays in model units, in the shapes of the layers, not compensated."""
        return {
            name: layer.get_weights()[0].detach().clone().reshape(self._shapes[name])
            for name, layer in self.layers.items()
        }

    @torch.no_grad()
    def forward(self, images: Tensor, first_index: int, seeds: Callable[[int], int]) -> Tensor:
        """Outputs of the network; the noise of an image does not depend on its batch.

        Images are evaluated in fixed blocks of ``TILE_BLOCK``, counted over the whole set and
        padded if the set begins or ends within a block; every block has its own seed.

        Args:
            images: Network inputs, shape (n, ...).
            first_index: Index of the first image in the whole set.
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


def check_input_ranges(input_ranges: Mapping[str, object], layers: Iterable[str]) -> None:
    """Raise ValueError unless every layer has an input range."""
    missing = sorted(set(layers) - set(input_ranges))
    if missing:
        raise ValueError(
            f"No input range for layer {missing[0]!r}; calibrated layers: "
            f"{', '.join(sorted(input_ranges))}. Calibrate on images of the training set."
        )


def draws_from_the_clock(device: Device) -> bool:
    """Whether aihwkit's tiles of a device draw noise that is not reproducible with a seed.

    The C++ tile seeds the noise of its forward pass from the clock; the torch tile uses torch's
    generator.
    """
    periphery = device.periphery
    is_noisy = periphery.output_noise > 0 or periphery.mvm_read_noise > 0
    return is_noisy and periphery.is_per_vector


def why_not_on_tiles(device: Device) -> str:
    """The reason why aihwkit's tiles cannot run a device; "" if they can."""
    if device.periphery.effects and device.periphery.is_per_vector:
        return "effects of the periphery need its torch tile, per-vector computation its C++ tile"
    return device.periphery.without_implementation("aihwkit")


def tile_configuration(device: Device) -> Any:
    """Translate a device's mapping and periphery into aihwkit's configuration of a tile.

    Args:
        device: The device.

    Returns:
        A ``TorchInferenceRPUConfig``, or an ``InferenceRPUConfig`` if the periphery needs the
        C++ tile; its noise model and compensation are those of the device and are used only if the
        device selects aihwkit's weight-level path.
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
        "per_layer": GlobalDriftCompensation(),  # the chip sets the tile's factor
    }
    configuration = TorchInferenceRPUConfig()
    if device.periphery.is_per_vector:  # only the C++ tile supports this, or computes it per vector
        configuration = InferenceRPUConfig()
    configuration.noise_model = noise_model(device)
    configuration.drift_compensation = compensations[device.drift_compensation.kind]
    configuration.mapping.weight_scaling_omega = (
        1.0  # with the default of 0, weights are not scaled
    )
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
    elif periphery.is_per_vector:  # as in aihwkit's preset: inputs are scaled by their range
        forward.noise_management, forward.nm_thres = NoiseManagementType.CONSTANT, 1.0
    forward.bound_management = BoundManagementType[("NONE", "ITERATIVE")[iterative]]
    forward.inp_bound = 1.0
    forward.inp_res = float(periphery.n_dac_steps or -1)
    forward.out_res = float(periphery.n_adc_steps or -1)
    forward.out_bound = 0.0 if math.isinf(periphery.output_bound) else periphery.output_bound
    forward.out_noise = periphery.output_noise
    if periphery.mvm_read_noise > 0:
        kinds = {"pcm_read": "PCM_READ", "additive": "ADDITIVE_CONSTANT"}
        forward.w_noise_type = WeightNoiseType[kinds[periphery.mvm_read_noise_kind]]
        forward.w_noise = periphery.mvm_read_noise
    forward.ir_drop = periphery.ir_drop


def _unlimited_is_zero(size: int | str) -> int:
    return 0 if isinstance(size, str) else size


def _analog_layer(layer: Any, configuration: Any) -> Any:
    from aihwkit.nn import AnalogConv2d, AnalogLinear

    if getattr(layer, "groups", 1) > 1:
        return OfGroups(layer, partial(_analog_layer, configuration=configuration))
    kind = parametrize.type_before_parametrizations(layer)
    if kind is nn.Conv1d:
        return OfOneDimension(AnalogConv2d.from_digital(_of_height_1(layer), configuration))
    convert: Any = AnalogLinear if kind is nn.Linear else AnalogConv2d
    return convert.from_digital(layer, configuration)


def _of_height_1(layer: nn.Conv1d) -> nn.Module:
    """The convolution of two dimensions that computes the same for images of height 1."""
    how = {"stride": (1, *layer.stride), "dilation": (1, *layer.dilation)}
    padding = (0, *cast(tuple[int, ...], layer.padding))
    weight = layer.weight.unsqueeze(-2)
    return convolution(weight, layer.bias, groups=1, padding=padding, **how)


def _blocks(layer: Any) -> tuple[list[int], list[int]]:
    """Sizes of the blocks of rows and of columns that aihwkit splits a layer (of a group) into."""
    if isinstance(layer, OfGroups):
        return _blocks(layer.groups[0])
    tiles = list(layer.analog_tiles())
    outputs = layer.get_weights()[0].shape[0]
    columns: list[int] = []
    while sum(columns) < outputs:
        columns.append(tiles[len(columns)].out_size)
    return [tile.in_size for tile in tiles[:: len(columns)]], columns


def _set_trained_scales(name: str, layer: Any, analog: Any) -> None:
    """Give tiles the scales that the digital layer holds, and the weights that follow from them."""
    rows, columns = _blocks(analog)
    scales = models.scales_for(name, layer, len(rows))
    if scales is None:
        return
    matrix = layer.weight.detach().reshape(len(layer.weight), -1)
    tiles = iter(analog.analog_tiles())
    for block, of_block in zip(torch.split(matrix, rows, dim=1), scales, strict=True):
        parts = zip(torch.split(block, columns), torch.split(of_block, columns), strict=True)
        for weights, scale in parts:
            scale = torch.where(scale == 0, 1.0, scale)
            tile = next(tiles)
            tile.tile.set_weights((weights / scale[:, None]).contiguous())
            tile.set_mapping_scales(scale.clone())


def _arrays_of(name: str, layer: Any) -> list["Tile | TilesOfGroups"]:
    if not isinstance(layer, OfGroups):
        return [_tile(name, index, one) for index, one in enumerate(layer.analog_tiles())]
    groups: Any = layer.groups
    of_groups = zip(*(group.analog_tiles() for group in groups), strict=True)
    return [
        TilesOfGroups(name, index, [_tile(name, index, one) for one in tiles])
        for index, tiles in enumerate(of_groups)
    ]


def _tile(layer: str, index: int, aihwkit_tile: Any) -> Tile:
    target = aihwkit_tile.tile.get_weights().detach().clone()
    return Tile(layer, index, aihwkit_tile, target, used=target.abs().amax(dim=1) > 0)
