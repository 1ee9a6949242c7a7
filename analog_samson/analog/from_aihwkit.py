"""aihwkit in: its configurations as devices, and its trained networks as digital networks.

A configuration describes an array, a converted network holds weights, scales and input ranges of
its tiles. What of a configuration has no counterpart in a device is listed, never dropped silently.
"""

import dataclasses
import math
import warnings
from collections.abc import Iterator, Mapping, Sequence
from enum import Enum
from importlib import metadata
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from analog_samson import models
from analog_samson.analog.versions import check_versions
from analog_samson.devices import Device, load_device, validated
from analog_samson.devices.writing import device_file
from analog_samson.files import replacing

_SHIPPED = {
    "PCMLikeNoiseModel": "pcm_like",
    "CustomDriftPCMLikeNoiseModel": "pcm_custom_drift",
    "HermesNoiseModel": "pcm_hermes",
    "StateIndependentNoiseModel": "pcm_state_independent",
    "ReRamWan2022NoiseModel": "reram_wan2022",
    "ReRamCMONoiseModel": "reram_cmo",
}
"""aihwkit's noise model to the shipped device whose source, technology and times it has."""

_NOISE_KEYS = {
    "t_0": "t_0_s",
    "t_read": "t_read_s",
    "prog_noise_scale": "programming_noise_scale",
    "noise_scale": "programming_noise_scale",
    "read_noise_scale": "read_noise_1f_scale",
    "drift_scale": "drift_scale",
    "num_devices": "devices_per_conductance",
    "drift_nu_mean": "nu_mean",
    "drift_nu_std": "nu_spread",
}
_NOISE_CARRIED = {*_NOISE_KEYS, "g_converter", "g_max", "g_min", "custom_drift_model"}
_NOISE_CARRIED |= {"acceptance_range", "coeff_g_max_reference"}

_CARRIED = {f"mapping.{key}" for key in ("max_input_size", "max_output_size", "digital_bias")}
_CARRIED |= {"mapping.weight_scaling_omega", "mapping.weight_scaling_columnwise"}
_CARRIED |= {"mapping.learn_out_scaling", "mapping.out_scaling_columnwise"}
_CARRIED |= {f"forward.{key}" for key in ("is_perfect", "inp_res", "out_res", "out_bound")}
_CARRIED |= {f"forward.{key}" for key in ("out_noise", "w_noise", "w_noise_type", "ir_drop")}
_CARRIED |= {f"forward.{key}" for key in ("noise_management", "bound_management", "nm_thres")}
_CARRIED |= {"pre_post.input_range.enable"}
"""Fields that a device or an imported network has, or that are treated one by one below."""

_ONLY_IN_TRAINING = (
    *("clip.", "remap.", "modifier.", "backward.", "update.", "runtime.", "device."),
    *("pre_post.input_range.", "mapping.weight_scaling_lr_compensation"),
)


class LeftOut(NamedTuple):
    """Fields of a configuration that a device does not have, as "field = value".

    Attributes:
        without_counterpart: Fields that change what arrays compute.
        only_in_training: Fields without effect on inference.
    """

    without_counterpart: tuple[str, ...]
    only_in_training: tuple[str, ...]

    @property
    def sentence(self) -> str:
        """All of them in one sentence; "" if there are none."""
        parts = []
        if self.without_counterpart:
            parts.append("no counterpart: " + ", ".join(self.without_counterpart))
        if self.only_in_training:
            parts.append("in training only: " + ", ".join(self.only_in_training))
        return f"Not carried over ({'; '.join(parts)})." if parts else ""


def device_from(
    configuration: Any,
    *,
    name: str,
    path: str | Path | None = None,
    as_in_aihwkit: bool = False,
) -> Device:
    """Turn a configuration of aihwkit into a device.

    Args:
        configuration: An ``InferenceRPUConfig`` or ``TorchInferenceRPUConfig``, presets included,
            or a network that was converted with one.
        name: Name of the device.
        path: Device file (.toml) to write.
        as_in_aihwkit: Whether programming and drift act on weights and drift compensation reads
            through the periphery once, as in aihwkit; by default cells keep their conductances.

    Returns:
        The device. Fields that are not at their default and have no counterpart are listed in one
        sentence, in its ``limits`` and in a warning.

    Raises:
        ValueError: If it is no such configuration, or its noise model, converter, compensation or
            mode of inference has no counterpart at all.
        OSError: If the file cannot be written.

    Example:
        >>> from aihwkit.simulator.configs import InferenceRPUConfig
        >>> from aihwkit.simulator.presets import StandardHWATrainingPreset
        >>> configuration = InferenceRPUConfig(mapping=StandardHWATrainingPreset().mapping)
        >>> device_from(configuration, name="mine").noise.model
        'PCMLikeNoiseModel'
    """
    configurations = _configurations(configuration)
    first = configurations[0]
    noise, base = _noise(first.noise_model, as_in_aihwkit)
    left_out = left_out_of(first)
    if not all(_is_same(other, first) for other in configurations[1:]):
        others = "configurations of other layers than the first, which differ from it"
        left_out = left_out._replace(without_counterpart=(*left_out.without_counterpart, others))
    if left_out.sentence:
        warnings.warn(f"Device {name!r}: {left_out.sentence}", stacklevel=2)
    version = metadata.version("aihwkit")
    content = {
        "name": name,
        "technology": base.technology,
        "summary": f"A configuration of aihwkit {version}, {type(first).__name__}.",
        "limits": left_out.sentence or "Every field of the configuration is carried over.",
        "noise_level": "weight_as_in_aihwkit" if as_in_aihwkit else "conductance",
        "noise": noise,
        "times": base.times.model_dump(),
        "mapping": _mapping(first),
        "periphery": _periphery(first),
        "drift_compensation": _compensation(first.drift_compensation, as_in_aihwkit),
    }
    device = validated(content, f"The configuration for device {name!r}")
    if path is not None:
        with replacing(Path(path)) as temporary:
            temporary.write_text(device_file(device), encoding="utf-8")
    return device


def left_out_of(configuration: Any) -> LeftOut:
    """List the fields of a configuration of aihwkit that a device does not have.

    Args:
        configuration: As for :func:`device_from`, not a network.
    """
    from aihwkit.simulator.configs import InferenceRPUConfig, TorchInferenceRPUConfig
    from aihwkit.simulator.parameters.enums import BoundManagementType

    forward = configuration.forward
    found = dict(_differences(configuration, InferenceRPUConfig()))
    in_training = [one for one in found if one.startswith(_ONLY_IN_TRAINING)]
    if configuration.modifier.enable_during_test:
        in_training = [one for one in in_training if not one.startswith("modifier.")]
    if forward.is_perfect:
        found = {key: value for key, value in found.items() if not key.startswith("forward.")}
    lines = [
        f"{key} = {value}"
        for key, value in found.items()
        if key not in in_training and key not in _CARRIED
    ]
    lines += _unlike_ours(configuration)
    is_managed = forward.bound_management == BoundManagementType.ITERATIVE
    if isinstance(configuration, TorchInferenceRPUConfig) and is_managed and not forward.is_perfect:
        lines.append("bound management of a whole batch (here: of each vector)")
    in_training = [one for one in in_training if one in found and one not in _CARRIED]
    return LeftOut(tuple(lines), tuple(f"{key} = {found[key]}" for key in in_training))


def _unlike_ours(configuration: Any) -> list[str]:
    """Carried fields whose value has no counterpart, whether it is aihwkit's default or not."""
    from aihwkit.inference.compensation.drift import GlobalDriftCompensationWithExactReference
    from aihwkit.simulator.parameters.enums import NoiseManagementType

    forward, mapping = configuration.forward, configuration.mapping
    lines = []
    if mapping.weight_scaling_omega != 1:
        lines.append(
            f"mapping.weight_scaling_omega = {mapping.weight_scaling_omega:g} (the largest weight "
            "is g_max; an imported network keeps its scales)"
        )
    if not mapping.digital_bias:
        lines.append("mapping.digital_bias = False (biases are digital)")
    if isinstance(configuration.drift_compensation, GlobalDriftCompensationWithExactReference):
        lines.append("drift_compensation = GlobalDriftCompensationWithExactReference (as Global)")
    model = configuration.noise_model
    default = _default_noise_model(model)
    for key, value in vars(model).items():
        if key not in _NOISE_CARRIED and value != vars(default).get(key):
            lines.append(f"noise_model.{key} = {value}")
    if forward.is_perfect:
        return lines
    for kind, bound in (("inp_res", 1.0), ("out_res", forward.out_bound)):
        steps = _steps(getattr(forward, kind))
        taken = 0 if bound <= 0 else 2 * round(steps / 2)
        if abs(steps - taken) > 1e-4 * steps:
            lines.append(f"forward.{kind} = {getattr(forward, kind):g} (taken as {taken} steps)")
    known = ("NONE", "CONSTANT", "ABS_MAX")
    management = forward.noise_management
    is_constant = management == NoiseManagementType.CONSTANT
    if management.name not in known:
        lines.append(f"forward.noise_management = {management.name} (taken as ABS_MAX)")
    if forward.nm_thres and not is_constant and management != NoiseManagementType.NONE:
        lines.append(f"forward.nm_thres = {forward.nm_thres:g}")
    if forward.bound_management.name not in ("NONE", "ITERATIVE"):
        lines.append(f"forward.bound_management = {forward.bound_management.name}")
    if forward.w_noise and forward.w_noise_type.name not in _READ_KINDS:
        lines.append(f"forward.w_noise_type = {forward.w_noise_type.name}")
    if configuration.pre_post.input_range.enable and _is_per_vector(forward):
        lines.append("pre_post.input_range.enable = True (ranges are those of each vector)")
    return lines


def _configurations(given: Any) -> list[Any]:
    """The configuration given, or those of the tiles of a network."""
    check_versions()
    from aihwkit.simulator.configs import InferenceRPUConfig
    from aihwkit.simulator.configs.configs import (
        QuantizedTorchInferenceRPUConfig,
        TorchInferenceRPUConfigIRDropT,
    )

    configurations = (
        [tile.rpu_config for _, tile in _tiles(given)] if isinstance(given, nn.Module) else [given]
    )
    for one in configurations:
        refused = QuantizedTorchInferenceRPUConfig, TorchInferenceRPUConfigIRDropT
        if not isinstance(one, InferenceRPUConfig) or isinstance(one, refused):
            kind = one.__name__ if isinstance(one, type) else type(one).__name__
            raise ValueError(
                f"{kind} describes no array for inference that a device can; give an instance of "
                "InferenceRPUConfig or TorchInferenceRPUConfig (or a preset derived from them)."
            )
    return configurations


def _differences(given: Any, default: Any, prefix: str = "") -> Iterator[tuple[str, object]]:
    """Fields of a dataclass, and of those in it, that differ from a default, by dotted name."""
    skipped = {"tile_class", "tile_array_class", "simulator_tile_class"}
    skipped |= {"noise_model", "drift_compensation"}
    for field in dataclasses.fields(given):
        value, name = getattr(given, field.name), f"{prefix}{field.name}"
        usual = getattr(default, field.name, None)
        if name in skipped:
            continue
        if dataclasses.is_dataclass(value) and dataclasses.is_dataclass(usual):
            yield from _differences(value, usual, f"{name}.")
        elif value != usual:
            yield name, value.name if isinstance(value, Enum) else value


def _is_same(one: Any, other: Any) -> bool:
    kinds = [(type(c.noise_model), type(c.drift_compensation)) for c in (one, other)]
    is_same_noise = kinds[0] == kinds[1] and one.noise_model == other.noise_model
    return is_same_noise and not list(_differences(one, other))


_READ_KINDS = {"PCM_READ": "pcm_read", "ADDITIVE_CONSTANT": "additive"}


def _steps(resolution: float) -> float:
    """Steps of a converter: aihwkit takes their number, or its inverse; 0: ideal."""
    if resolution <= 0:
        return 0.0
    return resolution if resolution > 1 else 1 / resolution


def _is_per_vector(forward: Any) -> bool:
    return forward.noise_management.name not in ("NONE", "CONSTANT")


def _periphery(configuration: Any) -> dict[str, Any]:
    forward = configuration.forward
    ideal = {"source": "rasch2021", "dac_bits": "ideal", "adc_bits": "ideal"}
    if forward.is_perfect:
        return ideal | {"output_bound": math.inf, "output_noise": 0.0}
    bound = forward.out_bound if forward.out_bound > 0 else math.inf
    section = ideal | _converter_keys("dac", forward.inp_res)
    if math.isfinite(bound):
        section |= _converter_keys("adc", forward.out_res)
    section |= {"output_bound": float(bound), "output_noise": float(forward.out_noise)}
    section["input_scaling"] = "per_vector" if _is_per_vector(forward) else "calibrated"
    iterative = forward.bound_management.name == "ITERATIVE"
    section["bound_management"] = "iterative" if iterative else "none"
    if forward.w_noise and forward.w_noise_type.name in _READ_KINDS:
        section["mvm_read_noise"] = float(forward.w_noise)
        section["mvm_read_noise_kind"] = _READ_KINDS[forward.w_noise_type.name]
    section["ir_drop"] = float(forward.ir_drop)
    return section


def _converter_keys(kind: str, resolution: float) -> dict[str, Any]:
    steps = 2 * round(_steps(resolution) / 2)
    if not steps:
        return {}
    bits = max(2, (steps + 1).bit_length())
    keys: dict[str, Any] = {f"{kind}_bits": bits}
    return keys if steps == 2**bits - 2 else keys | {f"{kind}_steps": steps}


def _mapping(configuration: Any) -> dict[str, Any]:
    mapping, converter = configuration.mapping, configuration.noise_model.g_converter
    section: dict[str, Any] = {
        "scale": "column" if mapping.weight_scaling_columnwise else "tile",
        "max_rows": mapping.max_input_size or "unlimited",
        "max_columns": mapping.max_output_size or "unlimited",
    }
    if type(converter).__name__ == "ReferenceColumnConverter":
        section["reference_column"] = True
    if hasattr(converter, "f_lst"):
        section["pair_significances"] = [float(f) for f in converter.f_lst]
    if hasattr(converter, "g_lst"):
        section["pair_tables_uS"] = [[float(g) for g in table] for table in converter.g_lst]
    return section


def _compensation(given: Any, as_in_aihwkit: bool) -> dict[str, Any]:
    from aihwkit.inference.compensation.drift import (
        GlobalDriftCompensation,
        PerColumnDriftCompensation,
    )

    if given is None:
        return {"kind": "none"}
    kinds = {GlobalDriftCompensation: "global", PerColumnDriftCompensation: "per_column"}
    kind = next((text for known, text in kinds.items() if isinstance(given, known)), None)
    if kind is None:
        raise ValueError(
            f"drift_compensation is a {type(given).__name__}; a device has those of aihwkit, "
            "GlobalDriftCompensation and PerColumnDriftCompensation, or None."
        )
    return {"kind": kind, "read_outs": 1 if as_in_aihwkit else math.inf}


def _noise(model: Any, as_in_aihwkit: bool) -> tuple[dict[str, Any], Device]:
    """The noise section of a model, and the shipped device of the same model."""
    kind = _kind(model)
    if kind not in _SHIPPED:
        raise ValueError(
            f"noise_model is a {type(model).__module__}.{type(model).__name__}; devices have "
            "aihwkit's "
            f"{', '.join(_SHIPPED)}. For one of your own write a noise section (docs/OWN.md)."
        )
    is_single = kind == "HermesNoiseModel" and model.num_devices == 1
    base = load_device("pcm_hermes_single" if is_single else _SHIPPED[kind])
    converter = model.g_converter
    expected = {"SingleDeviceConductanceConverter", "SingleCellConverter"}
    expected |= {"ReferenceColumnConverter"}
    if kind != "ReRamCMONoiseModel":
        expected = {"SinglePairConductanceConverter", "NPairConductanceConverter"}
        expected |= {"DualPairConductanceConverter", "CustomPairConductanceConverter"}
    if type(converter).__name__ not in expected:
        raise ValueError(
            f"The conductance converter of the {kind} is a {type(converter).__name__}; a device "
            f"has {', '.join(sorted(expected))}."
        )
    section: dict[str, Any] = {"model": kind, "source": base.noise.source}
    section |= {"g_max_uS": float(converter.g_max), "g_min_uS": float(converter.g_min)}
    for theirs, ours in _NOISE_KEYS.items():
        if hasattr(model, theirs):
            value = getattr(model, theirs)
            section[ours] = value if ours == "devices_per_conductance" else float(value)
    if kind == "StateIndependentNoiseModel":
        section["programming_spread_uS"] = float(model.prog_coeff[0])
    elif kind == "CustomDriftPCMLikeNoiseModel":
        table = model.custom_drift_model
        keys = {"nu_at_uS": "g_lst", "nu_mean": "nu_mean_lst", "nu_spread": "nu_std_lst"}
        section |= {ours: [float(x) for x in table[theirs]] for ours, theirs in keys.items()}
    elif kind == "ReRamWan2022NoiseModel":
        section["g_max_reference_uS"] = float(model.coeff_g_max_reference)
        section["times_share"] = "independent" if as_in_aihwkit else "one_normal_a_device"
    elif kind == "ReRamCMONoiseModel":
        section["acceptance_percent"] = float(model.acceptance_range)
    return section, base


def _kind(model: Any) -> str:
    """Class of a noise model: aihwkit's, also of our own classes derived from it; "" of others."""
    classes = type(model).__mro__
    if classes[0].__module__.startswith(f"{__package__}."):
        classes = classes[1:2]
    is_aihwkits = classes[0].__module__.startswith("aihwkit.")
    return classes[0].__name__ if is_aihwkits else ""


def _default_noise_model(model: Any) -> Any:
    """A model of the same class with its own coefficients."""
    from aihwkit.inference.noise.reram import ReRamCMONoiseModel

    if _kind(model) == "CustomDriftPCMLikeNoiseModel":
        return type(model)(model.custom_drift_model, g_converter=model.g_converter)
    if _kind(model) == "HermesNoiseModel":
        return type(model)(num_devices=model.num_devices, g_converter=model.g_converter)
    if _kind(model) == "ReRamCMONoiseModel":
        return ReRamCMONoiseModel(g_max=model.g_max, g_min=model.g_min)
    return type(model)(g_converter=model.g_converter)


class Imported(NamedTuple):
    """A network of aihwkit as a digital one.

    Attributes:
        network: The digital network, on the CPU, in evaluation mode; its layers hold the scales
            and input ranges of their arrays.
        keep_digital: Layers that aihwkit left digital and that could be mapped.
        arrays: {layer: (blocks of rows, blocks of columns of input ranges, or 0 without ranges)}.
    """

    network: nn.Module
    keep_digital: tuple[str, ...]
    arrays: Mapping[str, tuple[int, int]]


@torch.no_grad()
def digital_from(analog_model: nn.Module, *, own_arrays: bool = True) -> Imported:
    """Turn a network that aihwkit converted, trained or not, into a digital one.

    Weights are those of the tiles times mapping scales and learned output scales.

    Args:
        analog_model: The network; not changed.
        own_arrays: Whether layers hold the scales and input ranges that their tiles have; False:
            devices choose them, as for any network.

    Returns:
        The network; see :class:`Imported`.

    Raises:
        ValueError: If it has no tiles for inference, was programmed before, or a layer, scale or
            range cannot be imported.

    Example:
        >>> from aihwkit.nn import AnalogLinear
        >>> from aihwkit.simulator.presets import StandardHWATrainingPreset
        >>> analog_model = nn.Sequential(AnalogLinear(8, 2, rpu_config=StandardHWATrainingPreset()))
        >>> digital_from(analog_model).network
        Sequential(
          (0): Linear(in_features=8, out_features=2, bias=True)
        )
    """
    from aihwkit.nn.conversion import convert_to_digital

    layers = _layers(analog_model)
    network: nn.Module = convert_to_digital(analog_model).cpu().eval()
    network.requires_grad_(True)
    _give_cells_a_parameter(network)
    arrays: dict[str, tuple[int, int]] = {}
    for name, layer in layers.items():
        digital = network.get_submodule(name)
        if type(digital) not in models.ANALOG_KINDS:
            raise ValueError(
                f"Layer {name!r} is a {type(layer).__name__}, which cannot be mapped onto arrays "
                "here; convert the network with exclude_modules=[...] for it."
            )
        if own_arrays:
            scales, ranges = _scales_and_ranges(name, layer)
            models.hold_arrays(digital, scales, ranges)
            arrays[name] = len(scales), 0 if ranges is None else ranges.shape[1]
    rewriting = models.rewrite(network)
    left = [name for name in rewriting.kinds if name not in layers]
    entries = models.audit(network)
    left += [e.name for e in entries if (e.analog or e.is_refused) and e.name not in layers]
    return Imported(network, tuple(dict.fromkeys(left)), MappingProxyType(arrays))


def twin(
    image_shape: Sequence[int],
    n_classes: int,
    *,
    factory: str,
    options: Mapping[str, Any] = MappingProxyType({}),
    arrays: Mapping[str, Sequence[int]] = MappingProxyType({}),
) -> nn.Module:
    """Build the digital network of a checkpoint that was imported from aihwkit, without weights.

    Args:
        image_shape: As for ``models.build_model``.
        n_classes: As for ``models.build_model``.
        factory: Importable name of the function that builds the network, converted or not.
        options: Its keyword arguments.
        arrays: As in :class:`Imported`.

    Returns:
        The network; its layers hold scales and input ranges of 1.
    """
    network = models.build_model(
        factory, image_shape=image_shape, n_classes=n_classes, options=options
    )
    if _has_tiles(network):
        network = digital_from(network, own_arrays=False).network
    _give_cells_a_parameter(network)
    for name, (n_rows, n_columns) in arrays.items():
        layer = network.get_submodule(name)
        outputs = len(layer.weight)  # type: ignore[arg-type]
        ranges = torch.ones(n_rows, n_columns) if n_columns else None
        models.hold_arrays(layer, torch.ones(n_rows, outputs), ranges)
    return network


def _give_cells_a_parameter(network: nn.Module) -> None:
    """Register an empty parameter in aihwkit's recurrent cells.

    They take the type of their first state from their first parameter, and have none on arrays.
    """
    for module in network.modules():
        if type(module).__module__ == "aihwkit.nn.modules.rnn.cells":
            module.register_parameter("type_of_state", nn.Parameter(torch.zeros(0)))


def read_file(path: str | Path, trust: Sequence[str]) -> Any:
    """Read a file that was written with ``torch.save``, which may run any code that it holds.

    Args:
        path: The file: a state dict of a network of aihwkit, or the network itself.
        trust: Must name "aihwkit".

    Returns:
        What it holds.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it is not trusted, or cannot be read.
    """
    if not Path(path).is_file():
        raise FileNotFoundError(
            f"There is no file {str(path)!r}; give one that aihwkit's users "
            "wrote with torch.save(model.state_dict(), path)."
        )
    if "aihwkit" not in trust:
        raise ValueError(
            f"{str(path)!r} is a pickled file of aihwkit, and reading it runs any code that it "
            "holds. If you trust its author: --trust aihwkit on the command line, or "
            "trust=('aihwkit',) in Python."
        )
    check_versions()
    try:
        return torch.load(path, map_location="cpu", weights_only=False)
    except Exception as error:  # whatever the code of the file raises
        raise ValueError(
            f"{str(path)!r} cannot be read ({type(error).__name__}: {error}); write it with "
            "torch.save(model.state_dict(), path)."
        ) from error


def load_into(network: nn.Module, state: Mapping[str, Any], where: str) -> nn.Module:
    """Give a network the state of one that aihwkit converted.

    Args:
        network: The network, converted or digital; a digital one is converted as the state says.
        state: Its ``state_dict()``.
        where: Name of the file, for messages.

    Returns:
        The converted network, in evaluation mode.

    Raises:
        ValueError: If the state is none of aihwkit, or does not fit.
    """
    from aihwkit.nn.conversion import convert_to_analog

    of_tiles = {
        key.removesuffix(".analog_tile_state"): value["rpu_config"]
        for key, value in state.items()
        if key.endswith(".analog_tile_state") and isinstance(value, Mapping)
    }
    if not of_tiles:
        raise ValueError(
            f"{where} holds no tiles of aihwkit; for the state dict of a digital network use "
            "--state."
        )
    if not _has_tiles(network):
        of_layers = {key.rpartition(".analog_module")[0]: one for key, one in of_tiles.items()}
        kept = [name for name, _ in network.named_modules() if name not in of_layers]
        kept = [n for n in kept if isinstance(network.get_submodule(n), models.ANALOG_KINDS)]
        network = convert_to_analog(
            network,
            next(iter(of_layers.values())),
            specific_rpu_config_fun=lambda name, _, usual: of_layers.get(name, usual),
            exclude_modules=kept,
        )
    try:
        network.load_state_dict(dict(state))
    except Exception as error:  # aihwkit's errors, and torch's
        said = str(error).split("\n")
        raise ValueError(
            f"The state of {where} does not fit the network ({' '.join(said[:2]).strip()}); give "
            "the --factory and --kwargs that it was trained with."
        ) from error
    return network.eval()


def _has_tiles(network: nn.Module) -> bool:
    from aihwkit.simulator.tiles.module import TileModule

    return any(isinstance(module, TileModule) for module in network.modules())


def _tiles(model: nn.Module) -> list[tuple[str, Any]]:
    from aihwkit.simulator.tiles.inference import InferenceTileWithPeriphery
    from aihwkit.simulator.tiles.module import TileModule

    if not isinstance(model, nn.Module):
        raise ValueError(
            f"The network is an nn.Module that aihwkit converted; got {type(model).__name__}."
        )
    found = [(n, tile) for n, tile in model.named_modules() if isinstance(tile, TileModule)]
    if not found:
        raise ValueError(
            "The network has no tiles of aihwkit; give one that convert_to_analog returned, and a "
            "digital one to program(...) itself."
        )
    for name, tile in found:
        if not isinstance(tile, InferenceTileWithPeriphery):
            raise ValueError(
                f"{name!r} is a {type(tile).__name__}, a tile for analog training; convert the "
                "network with an InferenceRPUConfig or TorchInferenceRPUConfig."
            )
        if tile.programmed_weights is not None:
            raise ValueError(
                f"{name!r} was programmed (program_analog_weights, drift_analog_weights) and "
                "holds noisy weights; import the network before, or load its trained state into "
                "a fresh one."
            )
    return found


def _layers(model: nn.Module) -> dict[str, Any]:
    """The layers of a network that own its tiles, by name."""
    layers: dict[str, Any] = {}
    for name, _ in _tiles(model):
        owner, found, _ = name.rpartition(".analog_module")
        if not found and not name.startswith("analog_module"):
            raise ValueError(
                f"The tile {name!r} belongs to no layer of aihwkit (AnalogLinear, AnalogConv2d, "
                "...); its class is not known here."
            )
        layers[owner if found else ""] = model.get_submodule(owner if found else "")
    return layers


def _scales_and_ranges(name: str, layer: Any) -> tuple[Tensor, Tensor | None]:
    """Scales (row blocks, outputs) and input ranges (row blocks, column blocks) of a layer."""
    module = layer.analog_module
    blocks = [list(row) for row in module.array] if hasattr(module, "array") else [[module]]
    scales = torch.stack([torch.cat([_scale(tile) for tile in row]) for row in blocks])
    if bool((scales == 0).any()):
        raise ValueError(
            f"Layer {name!r} has an output scale of 0, so that its weights are lost; train it "
            "again, or import with own_arrays=False."
        )
    if any(_range(tile) is None for row in blocks for tile in row):
        return scales, None
    ranges = torch.tensor([[_range(tile) for tile in row] for row in blocks])
    if not bool(((ranges > 0) & ranges.isfinite()).all()):
        raise ValueError(
            f"Layer {name!r} has input ranges {ranges.flatten().tolist()}; each must be positive "
            "and finite: train it again, or import with own_arrays=False."
        )
    return scales, ranges


def _scale(tile: Any) -> Tensor:
    scales: Tensor | None = tile.get_scales()
    if scales is None:
        return torch.ones(tile.out_size)
    return scales.detach().float().cpu().flatten().expand(tile.out_size).clone()


def _range(tile: Any) -> float | None:
    """The largest input that the DAC of a tile converts, model units; None: that of each vector."""
    forward, learned = tile.rpu_config.forward, tile.input_range
    if forward.is_perfect and learned is None:
        return None
    if not forward.is_perfect and _is_per_vector(forward):
        return None
    value = 1.0 if learned is None else abs(float(learned.detach()))
    if not forward.is_perfect and forward.noise_management.name == "CONSTANT":
        value *= forward.nm_thres if forward.nm_thres > 0 else 1.0
    return value
