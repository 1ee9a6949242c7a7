"""The door to aihwkit: devices become configurations, layers become tiles, noise gets its seeds.

Noise models are aihwkit's own objects, called at the level of conductances under seeds of ours
(:class:`Physics`); the forward pass is aihwkit's torch tile (:class:`TiledNetwork`). Nothing
else in the package but the compiled engine knows aihwkit.
"""

import contextlib
import copy
import math
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib import metadata
from typing import Any

import torch
from torch import Tensor, nn

from analog_samson import models
from analog_samson.devices import (
    Device,
    Hermes,
    Ideal,
    PCMLike,
    ReRAMCMO,
    ReRAMWan2022,
)

WORKING_PAIRS = {
    "1.1.0": ((2, 10), (2, 13)),
    "1.2.0": ((2, 13), (2, 16)),
}
"""aihwkit version to the torch versions [from, below) whose binary interface it works with."""

TILE_BLOCK = 32
"""Images per forward pass of the tiles: the batch size at which aihwkit's torch tile is fastest."""

Seeds = Callable[..., int]
"""Maps the words of a purpose to a seed, for one layer, array and device of a chip."""


def check_versions() -> None:
    """Raise unless the installed aihwkit and torch work together.

    aihwkit's wheels are tied to torch's binary interface; a wrong pair crashes at the first tile.

    Raises:
        ImportError: If aihwkit is missing or the pair cannot work; says what to install.
    """
    wanted = "1.1.0" if sys.version_info < (3, 12) else "1.2.0"
    low, below = WORKING_PAIRS[wanted]
    advice = (
        f'install with: pip install "aihwkit=={wanted}" '
        f'"torch>={low[0]}.{low[1]},<{below[0]}.{below[1]}"'
    )
    try:
        installed = metadata.version("aihwkit")
    except metadata.PackageNotFoundError:
        raise ImportError(f"aihwkit is not installed; {advice}") from None
    torch_version = metadata.version("torch")
    major, minor = (int(part) for part in torch_version.split(".")[:2])
    pair = WORKING_PAIRS.get(installed)
    if pair is None or not pair[0] <= (major, minor) < pair[1]:
        raise ImportError(
            f"aihwkit {installed} and torch {torch_version} are installed and do not work "
            f"together; {advice}"
        )


@contextlib.contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Run a block under a seed of torch's global generator and leave the generator as it was."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        yield


# --- what a device does to conductances ---------------------------------------------------------


@dataclass
class DeviceState:
    """One device of every weight of an array, from programming on: conductances in µS.

    All tensors have the array's shape (columns, rows).
    """

    target_uS: Tensor
    programmed_uS: Tensor
    drift_exponent: Tensor | None


class Physics:
    """aihwkit's noise model of a device, called at conductance level under seeds by purpose.

    The scale between weights and conductances is fixed by the target weights, so nothing is
    renormalised by a noisy maximum and every device keeps its own state.
    """

    def __init__(self, device: Device) -> None:
        check_versions()
        self.noise = device.noise
        self.model = _noise_model(device)

    def to_conductances(self, weights: Tensor) -> tuple[list[Tensor], Any]:
        """Map target weights of an array onto target conductances [µS], one tensor a device."""
        conductances, scale = self.model.g_converter.convert_to_conductances(weights)
        single = isinstance(conductances, Tensor)
        return [conductances] if single else list(conductances), (scale, single)

    def to_weights(self, conductances: Sequence[Tensor], scale: Any) -> Tensor:
        """Map conductances [µS] back onto weights with the scale of the targets."""
        converter_scale, single = scale
        given = conductances[0] if single else list(conductances)
        weights: Tensor = self.model.g_converter.convert_back_to_weights(given, converter_scale)
        return weights

    def program(self, target_uS: Tensor, seeds: Seeds) -> DeviceState:
        """Write target conductances once: programming error and drift exponents are drawn here."""
        if isinstance(self.noise, Ideal):
            return DeviceState(target_uS, target_uS, None)
        with seeded(seeds("programming")):
            programmed = self.model.apply_programming_noise_to_conductance(target_uS.clone())
        exponent = None
        if isinstance(self.noise, PCMLike | Hermes):
            with seeded(seeds("drift")):
                exponent = self.model.generate_drift_coefficients(target_uS.clone())
        return DeviceState(target_uS, programmed, exponent)

    def read(self, state: DeviceState, t_inference_s: float, read: int, seeds: Seeds) -> Tensor:
        """Conductances [µS] as read at a time; t = 0 is the programmed state, before any read.

        A read freezes one draw of the accumulated read noise for the whole array.
        """
        if t_inference_s == 0 or isinstance(self.noise, Ideal):
            return state.programmed_uS
        if isinstance(self.noise, ReRAMWan2022):
            return self._read_wan(state, t_inference_s, seeds)
        if isinstance(self.noise, ReRAMCMO):
            return self._read_cmo(state, t_inference_s, read, seeds)
        return self._age(
            state.programmed_uS,
            state.drift_exponent,
            t_inference_s,
            seeds("read", t_inference_s, read),
        )

    def _read_wan(self, state: DeviceState, t_inference_s: float, seeds: Seeds) -> Tensor:
        # The model draws one normal a device around the target. Under the seed of the programming
        # it is the same normal at every time, so a device keeps its place in the distribution.
        shared = isinstance(self.noise, ReRAMWan2022) and (
            self.noise.times_share == "one_normal_a_device"
        )
        seed = seeds("programming") if shared else seeds("drift", t_inference_s)
        return self._age(state.target_uS, state.target_uS, t_inference_s, seed)

    def _read_cmo(
        self, state: DeviceState, t_inference_s: float, read: int, seeds: Seeds
    ) -> Tensor:
        # aihwkit draws relaxation and read noise in one call. Relaxation belongs to the device and
        # read noise to the read, so the same law is applied in two steps with one of them at zero.
        scales = self.model.drift_scale, self.model.read_noise_scale
        bounds = self.model.g_min, self.model.g_max
        try:
            self.model.read_noise_scale = 0.0
            self.model.g_min, self.model.g_max = -math.inf, math.inf
            relaxed = self._age(state.programmed_uS, None, t_inference_s, seeds("drift"))
            self.model.drift_scale, self.model.read_noise_scale = 0.0, scales[1]
            self.model.g_min, self.model.g_max = bounds
            return self._age(relaxed, None, t_inference_s, seeds("read", t_inference_s, read))
        finally:
            self.model.drift_scale, self.model.read_noise_scale = scales
            self.model.g_min, self.model.g_max = bounds

    def _age(
        self, start_uS: Tensor, parameter: Tensor | None, t_inference_s: float, seed: int
    ) -> Tensor:
        with seeded(seed):
            aged: Tensor = self.model.apply_drift_noise_to_conductance(
                start_uS.clone(), parameter, _number_as_key(self.model, t_inference_s)
            )
        return aged


def _number_as_key(model: Any, t_inference_s: float) -> float:
    known = getattr(model, "coeff_dic", {})
    return next((time for time in known if time == t_inference_s), t_inference_s)


def _noise_model(device: Device) -> Any:
    from aihwkit.inference import PCMLikeNoiseModel, ReRamCMONoiseModel, ReRamWan2022NoiseModel
    from aihwkit.inference.noise.hermes import HermesNoiseModel

    noise = device.noise
    if isinstance(noise, ReRAMWan2022):
        model = ReRamWan2022NoiseModel(
            g_max=noise.g_max_uS, noise_scale=noise.programming_noise_scale
        )
        # The constructor stores the fit's reference under another name than the model reads.
        model.coeff_g_max_reference = noise.g_max_reference_uS
        return model
    if isinstance(noise, ReRAMCMO):
        # A float such as 0.02 is no key of aihwkit's table and would silently mean 0.2 %.
        accepted = 0.2 if noise.acceptance_percent == 0.2 else 2
        return ReRamCMONoiseModel(
            g_max=noise.g_max_uS,
            g_min=noise.g_min_uS,
            acceptance_range=accepted,
            **_scales(noise),
        )
    if isinstance(noise, Hermes):
        return HermesNoiseModel(
            num_devices=noise.devices_per_conductance,
            g_max=noise.g_max_uS,
            t_0=noise.t_0_s,
            t_read=noise.t_read_s,
            **_scales(noise),
        )
    if isinstance(noise, PCMLike):
        return PCMLikeNoiseModel(
            g_max=noise.g_max_uS, t_0=noise.t_0_s, t_read=noise.t_read_s, **_scales(noise)
        )
    return PCMLikeNoiseModel(g_max=noise.g_max_uS)  # Ideal: only its converter is used


def _scales(noise: PCMLike | Hermes | ReRAMCMO) -> dict[str, float]:
    return {
        "prog_noise_scale": noise.programming_noise_scale,
        "read_noise_scale": noise.read_noise_1f_scale,
        "drift_scale": noise.drift_scale,
    }


# --- the network on tiles -----------------------------------------------------------------------


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

    def set_compensation(self, alpha: Tensor) -> None:
        """Set the factor (or one a column) that multiplies the array's outputs."""
        buffer = self.aihwkit_tile.alpha
        self.aihwkit_tile.alpha = alpha.to(device=buffer.device, dtype=buffer.dtype)


class TiledNetwork:
    """A copy of a network whose layers run on aihwkit's torch tiles.

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
                name: _analog_layer(layer, configuration) for name, layer in layers.items()
            }
        self.network = replace_everywhere(
            self.network, {id(layer): self.layers[name] for name, layer in layers.items()}
        )
        self.network.eval()
        self.network.requires_grad_(False)
        self.tiles = [
            _tile(name, index, aihwkit_tile)
            for name, layer in self.layers.items()
            for index, aihwkit_tile in enumerate(layer.analog_tiles())
        ]
        if input_ranges is not None and device.periphery.needs_input_ranges:
            self._set_input_ranges(input_ranges)

    def _set_input_ranges(self, input_ranges: Mapping[str, float]) -> None:
        check_input_ranges(input_ranges, self.layers)
        for tile in self.tiles:
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
            with seeded(seeds(first_block + number)):
                outputs.append(self.network(block))
        return torch.cat(outputs)[before : before + len(images)]


def check_input_ranges(input_ranges: Mapping[str, float], layers: Iterable[str]) -> None:
    """Raise ValueError unless every layer has an input range."""
    missing = sorted(set(layers) - set(input_ranges))
    if missing:
        raise ValueError(
            f"No input range for layer {missing[0]!r}; calibrated layers: "
            f"{', '.join(sorted(input_ranges))}. Calibrate on images of the training set."
        )


def tile_configuration(device: Device) -> Any:
    """Translate a device's mapping and periphery into aihwkit's configuration of a torch tile.

    Args:
        device: The device.

    Returns:
        A ``TorchInferenceRPUConfig``; its noise model and compensation are those of the device and
        act only where the device asks for aihwkit's own path.
    """
    from aihwkit.inference.compensation.drift import (
        GlobalDriftCompensation,
        PerColumnDriftCompensation,
    )
    from aihwkit.simulator.configs import TorchInferenceRPUConfig
    from aihwkit.simulator.parameters.enums import BoundManagementType, NoiseManagementType

    compensations = {
        "none": None,
        "global": GlobalDriftCompensation(),
        "per_column": PerColumnDriftCompensation(),
    }
    configuration = TorchInferenceRPUConfig()
    configuration.noise_model = _noise_model(device)
    configuration.drift_compensation = compensations[device.drift_compensation.kind]
    configuration.mapping.weight_scaling_omega = 1.0  # the default of 0 maps weights as they are
    configuration.mapping.weight_scaling_columnwise = device.mapping.scale == "column"
    configuration.mapping.digital_bias = True
    configuration.mapping.max_input_size = _unlimited_is_zero(device.mapping.max_rows)
    configuration.mapping.max_output_size = _unlimited_is_zero(device.mapping.max_columns)
    periphery = device.periphery
    forward = configuration.forward
    forward.is_perfect = periphery.is_ideal
    forward.noise_management = NoiseManagementType.NONE
    forward.bound_management = BoundManagementType.NONE
    forward.inp_bound = 1.0
    forward.inp_res = _steps(periphery.dac_bits)
    forward.out_res = _steps(periphery.adc_bits)
    forward.out_bound = 0.0 if math.isinf(periphery.output_bound) else periphery.output_bound
    forward.out_noise = periphery.output_noise
    input_range = configuration.pre_post.input_range
    input_range.enable = periphery.needs_input_ranges
    input_range.init_from_data = 0
    return configuration


def _unlimited_is_zero(size: int | str) -> int:
    return 0 if isinstance(size, str) else size


def _steps(bits: int | str) -> float:
    return -1.0 if isinstance(bits, str) else float(2**bits - 2)


def _analog_layer(layer: nn.Module, configuration: Any) -> Any:
    from aihwkit.nn import AnalogConv2d, AnalogLinear

    kinds = {nn.Linear: AnalogLinear, nn.Conv2d: AnalogConv2d}
    return kinds[type(layer)].from_digital(layer, configuration)


def replace_everywhere(network: nn.Module, replacements: Mapping[int, nn.Module]) -> nn.Module:
    """Replace modules at every place that holds them, so that shared layers stay shared."""
    if id(network) in replacements:
        return replacements[id(network)]
    for module in list(network.modules()):
        for name, child in list(module._modules.items()):
            if id(child) in replacements:
                module._modules[name] = replacements[id(child)]
    return network


def _tile(layer: str, index: int, aihwkit_tile: Any) -> Tile:
    target = aihwkit_tile.tile.get_weights().detach().clone()
    return Tile(layer, index, aihwkit_tile, target, used=target.abs().amax(dim=1) > 0)
