"""aihwkit in and out: configurations, converted and trained networks, chips."""

import copy
import dataclasses
import math
import warnings
from collections.abc import Iterator
from enum import Enum
from typing import Any

import pytest
import torch
from aihwkit.inference.compensation.drift import PerColumnDriftCompensation
from aihwkit.inference.converter.conductance import (
    DualPairConductanceConverter,
    NPairConductanceConverter,
    SinglePairConductanceConverter,
)
from aihwkit.inference.noise.custom import StateIndependentNoiseModel
from aihwkit.inference.noise.hermes import HermesNoiseModel
from aihwkit.inference.noise.pcm import PCMLikeNoiseModel
from aihwkit.inference.noise.reram import ReRamCMONoiseModel, ReRamWan2022NoiseModel
from aihwkit.nn import AnalogLinear, AnalogLSTMCell, AnalogRNN, AnalogSequential
from aihwkit.nn.conversion import convert_to_analog
from aihwkit.optim import AnalogSGD
from aihwkit.simulator.configs import (
    InferenceRPUConfig,
    SingleRPUConfig,
    TorchInferenceRPUConfig,
)
from aihwkit.simulator.parameters.enums import (
    BoundManagementType,
    NoiseManagementType,
    WeightNoiseType,
)
from aihwkit.simulator.presets import FloatingPointPreset, StandardHWATrainingPreset
from torch import Tensor, nn

from analog_samson import checkpoint_from, device_from, load_device, program, rpu_config_of
from analog_samson.analog import digital_from, left_out_of
from analog_samson.checkpoint import load_checkpoint, save_checkpoint
from analog_samson.chip import load_chip
from analog_samson.devices import Device, device_names

QUIET = {"output_noise": 0.0, "mvm_read_noise": 0.0}
STILL = {"programming_noise_scale": 0.0, "read_noise_1f_scale": 0.0, "drift_scale": 0.0}


def static_range(**changes: Any) -> TorchInferenceRPUConfig:
    """A configuration of aihwkit's torch tile: fixed ranges, small arrays, 64 and 256 steps."""
    configuration = TorchInferenceRPUConfig()
    forward = configuration.forward
    forward.noise_management = NoiseManagementType.NONE
    forward.bound_management = BoundManagementType.NONE
    forward.inp_res, forward.out_res = 1 / 64, 1 / 256
    configuration.pre_post.input_range.enable = True
    configuration.mapping.weight_scaling_omega = 1.0
    configuration.mapping.learn_out_scaling = True
    configuration.mapping.out_scaling_columnwise = True
    configuration.mapping.max_input_size, configuration.mapping.max_output_size = 200, 64
    for key, value in changes.items():
        setattr(configuration.forward, key, value)
    return configuration


def unscaled() -> InferenceRPUConfig:
    """aihwkit's defaults, which do not scale weights, with fixed input ranges."""
    configuration = InferenceRPUConfig()
    configuration.forward.noise_management = NoiseManagementType.NONE
    configuration.forward.bound_management = BoundManagementType.NONE
    configuration.pre_post.input_range.enable = True
    return configuration


def per_vector() -> InferenceRPUConfig:
    """aihwkit's defaults with scaled weights: ABS_MAX and iterative bound management."""
    configuration = InferenceRPUConfig()
    configuration.mapping.weight_scaling_omega = 1.0
    return configuration


CONFIGURATIONS = {
    "hwa": StandardHWATrainingPreset,
    "static_range": static_range,
    "unscaled": unscaled,
    "per_vector": per_vector,
}


def lenet() -> nn.Module:
    """The LeNet-5 of aihwkit's examples, with a batch normalisation."""
    return nn.Sequential(
        nn.Conv2d(1, 16, 5),
        nn.Tanh(),
        nn.MaxPool2d(2),
        nn.Conv2d(16, 32, 5),
        nn.BatchNorm2d(32),
        nn.Tanh(),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(512, 128),
        nn.Tanh(),
        nn.Linear(128, 10),
    )


class Lstm(nn.Module):
    """The LSTM of aihwkit's examples, over the rows of an image; it exists only converted."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        configuration = CONFIGURATIONS[kind]()
        self.lstm = AnalogRNN(AnalogLSTMCell, 8, 16, True, configuration, num_layers=2)
        self.decoder = AnalogLinear(16, 10, True, configuration)

    def forward(self, x: Tensor) -> Tensor:
        outputs, _ = self.lstm(x.flatten(0, 1).transpose(0, 1))
        return self.decoder(outputs[-1])


def lstm(kind: str = "hwa") -> nn.Module:
    return Lstm(kind)


def trained(model: nn.Module, shape: tuple[int, ...]) -> nn.Module:
    """A few steps of hardware-aware training; input ranges then differ from array to array."""
    images, labels = torch.randn(16, *shape), torch.randint(10, (16,))
    optimizer = AnalogSGD(model.parameters(), lr=0.05)
    optimizer.regroup_param_groups(model)
    for _ in range(3):
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(images), labels).backward()
        optimizer.step()
    for _, tile in tiles_of(model):
        if tile.input_range is not None:
            tile.input_range.data *= 0.7 + 0.3 * torch.rand(())
    return model.eval()


def tiles_of(model: nn.Module) -> list[tuple[str, Any]]:
    return [(name, module) for name, module in model.named_modules() if hasattr(module, "tile")]


@pytest.fixture(scope="module")
def models() -> dict[tuple[str, str], nn.Module]:
    found = {}
    with torch.random.fork_rng():
        torch.manual_seed(0)
        for kind, configuration in CONFIGURATIONS.items():
            found["lenet", kind] = trained(convert_to_analog(lenet(), configuration()), (1, 28, 28))
            found["lstm", kind] = trained(Lstm(kind), (1, 8, 8))
    return found


def imported(model: nn.Module) -> Device:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        return device_from(model, name="theirs")


def quiet(model: nn.Module) -> nn.Module:
    """A copy whose tiles have no noise in their products."""
    model = copy.deepcopy(model)
    for _, tile in tiles_of(model):
        configuration = copy.deepcopy(tile.rpu_config)
        configuration.forward.out_noise = configuration.forward.w_noise = 0.0
        tile.to(configuration)
    return model.eval()


@torch.no_grad()
def calls(model: nn.Module, images: Tensor, names: list[str]) -> dict[str, tuple[Tensor, Tensor]]:
    """Inputs and outputs of the last call of each layer."""
    seen = {}
    handles = [
        model.get_submodule(name).register_forward_hook(
            lambda _, given, out, name=name: seen.__setitem__(name, (given[0], out))
        )
        for name in names
    ]
    model(images)
    for handle in handles:
        handle.remove()
    return seen


@pytest.mark.slow
@pytest.mark.parametrize("engine", ["compiled", "aihwkit"])
@pytest.mark.parametrize("kind", CONFIGURATIONS)
@pytest.mark.parametrize("network", ["lenet", "lstm"])
def test_without_noise_every_layer_equals_that_of_aihwkit(models, network, kind, engine):
    """An output at an ADC tie may round the other way: at most one in 1,000."""
    model = models[network, kind]
    digital, keep_digital, arrays = digital_from(model)
    assert keep_digital == ()
    device = imported(model).with_axes(QUIET | STILL)
    shape = (1, 28, 28) if network == "lenet" else (1, 8, 8)
    images = torch.randn(64, *shape, generator=torch.Generator().manual_seed(1))
    compared = 0
    for name, (inputs, expected) in calls(quiet(model), images, list(arrays)).items():
        chip = program(nn.Sequential(digital.get_submodule(name)), device, engine=engine)
        errors = (chip(inputs) - expected).abs() / expected.abs().max()
        assert float((errors > 1e-5).float().mean()) < 1e-3, name
        compared += 1
    assert compared == len(arrays) == {"lenet": 4, "lstm": 5}[network]


@pytest.mark.slow
def test_arrays_of_one_layer_have_their_own_input_ranges(models):
    digital, _, arrays = digital_from(models["lenet", "static_range"])
    assert arrays["8"] == (3, 2)
    chip = program(digital, imported(models["lenet", "static_range"]))
    ranges = torch.tensor(chip.input_ranges["8"])
    tiles = tiles_of(models["lenet", "static_range"])
    expected = [float(t.input_range.detach()) for name, t in tiles if name.startswith("8.")]
    assert ranges.flatten().tolist() == expected
    assert len(set(expected)) == 6


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["hwa", "static_range"])
def test_with_noise_a_layer_has_the_statistics_of_aihwkit(models, kind):
    """n = 400 passes of 32 inputs, seeds 0 and 2; false alarms below 1e-5.

    The squared differences of the 320 means are 2 / n of the variances, with a relative spread
    of sqrt(2 / 320) = 8 %; spreads agree within 1 / sqrt(2 x 400 x 320) = 0.2 %. Limits are five
    times as wide. aihwkit's C++ tile cannot be seeded.
    """
    model, n = models["lenet", kind], 400
    digital, _, _ = digital_from(model)
    device = imported(model).with_axes(STILL)
    layer, theirs = digital.get_submodule("10"), model.get_submodule("10")
    inputs = torch.randn(32, 128, generator=torch.Generator().manual_seed(2)).clamp(-1, 1)
    chip = program(nn.Sequential(layer), device)
    with torch.no_grad(), torch.random.fork_rng():
        torch.manual_seed(0)
        expected = theirs(inputs.repeat(n, 1)).view(n, 32, 10)
    found = chip(inputs.repeat(n, 1)).view(n, 32, 10)
    variance = (expected.var(0) + found.var(0)) / 2
    squares = (found.mean(0) - expected.mean(0)).square()
    assert float(squares.sum() / variance.sum()) * n / 2 == pytest.approx(1, abs=0.4)
    ratio = found.var(0).sum() / expected.var(0).sum()
    assert math.sqrt(float(ratio)) == pytest.approx(1, abs=0.01)


@pytest.mark.slow
def test_programming_and_drift_have_the_statistics_of_aihwkit():
    """65,536 weights, seeds 0 and 1, one day; the relative error of a spread is 0.3 %.

    Limits are five times that, which both together exceed with a probability below 1e-5.
    """
    configuration = static_range()
    configuration.mapping.max_input_size = configuration.mapping.max_output_size = 0
    layer = nn.Linear(256, 256, bias=False)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        nn.init.uniform_(layer.weight, -1, 1)
        model = convert_to_analog(nn.Sequential(layer), configuration).eval()
        digital, _, _ = digital_from(model)
        device = device_from(configuration, name="theirs", as_in_aihwkit=True)
        model.drift_analog_weights(86400.0)
        theirs = model[0].get_weights()[0]
    ours = program(digital, device, seed=1).drift_to(86400.0).weights()["0"]
    target = layer.weight.detach()
    for low, high in ((0.0, 0.3), (0.3, 0.7), (0.7, 1.0)):
        chosen = (target.abs() >= low) & (target.abs() < high)
        found, expected = ((w - target)[chosen] for w in (ours, theirs))
        n = int(chosen.sum())
        assert float(found.std() / expected.std()) == pytest.approx(1, abs=5 / math.sqrt(n))
        signs = target[chosen].sign()
        limit = 5 * float(expected.std()) * math.sqrt(2 / n)
        assert float((found * signs).mean() - (expected * signs).mean()) < limit


@pytest.mark.slow
@pytest.mark.parametrize("network", ["lenet", "lstm"])
def test_a_network_comes_in_and_goes_out_again(models, network):
    model = models[network, "hwa"]
    digital, _, arrays = digital_from(model)
    device = imported(model).with_axes(QUIET)
    shape = (1, 28, 28) if network == "lenet" else (1, 8, 8)
    images = torch.randn(32, *shape, generator=torch.Generator().manual_seed(3))
    chip = program(digital, device, seed=5).drift_to(3600.0)
    out = chip.to_aihwkit()
    again, _, of_again = digital_from(unprogrammed(out))
    assert of_again == arrays
    assert [name for name, _ in tiles_of(out)]
    on_tiles = program(digital, device, seed=5, engine="aihwkit").drift_to(3600.0)
    with torch.no_grad():
        torch.testing.assert_close(out(images), on_tiles(images), rtol=0, atol=0)
    weights = dict(again.named_parameters())
    for name, weight in chip.weights().items():
        torch.testing.assert_close(weights[f"{name}.weight"].data, weight, rtol=1e-5, atol=1e-6)


def unprogrammed(model: nn.Module) -> nn.Module:
    model = copy.deepcopy(model)
    for _, tile in tiles_of(model):
        tile.programmed_weights = tile.reference_combined_weights = None
    return model


@pytest.mark.slow
def test_a_chip_that_went_out_ages_with_its_own_exponents():
    """Without read noise, aihwkit's drift of the network equals that of the chip."""
    layer = nn.Linear(64, 32)
    device = load_device("pcm_like").with_axes({"read_noise_1f_scale": 0.0, "output_noise": 0.0})
    chip = program(nn.Sequential(layer), device, seed=1, input_ranges={"0": 3.0})
    out = chip.to_aihwkit()
    out.drift_analog_weights(86400.0)
    found = out[0].get_weights()[0]
    expected = chip.drift_to(86400.0).weights()["0"]
    # aihwkit keeps the difference of a pair, not both cells: the second one is lost
    errors = (found - expected).abs() / expected.abs().max()
    assert float(errors.max()) < 0.05
    assert float(errors.mean()) < 0.005


@pytest.mark.parametrize("name", device_names())
def test_shipped_devices_go_out_and_come_in_again(name):
    device = load_device(name)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        configuration = rpu_config_of(device)
        if not type(configuration.noise_model).__mro__[1].__module__.startswith("aihwkit.infer"):
            pytest.skip("a noise model that aihwkit lacks")
        if device.noise.model not in _KNOWN:
            with pytest.raises(ValueError, match="noise_model is a"):
                device_from(configuration, name=name)
            return
        as_in_aihwkit = device.noise_level != "conductance"
        again = device_from(configuration, name=name, as_in_aihwkit=as_in_aihwkit)
    assert again.digest == device.digest
    assert again.times == device.times


_KNOWN = ("PCMLikeNoiseModel", "CustomDriftPCMLikeNoiseModel", "HermesNoiseModel")
_KNOWN += ("StateIndependentNoiseModel", "ReRamWan2022NoiseModel", "ReRamCMONoiseModel")

NOISE_MODELS = [
    PCMLikeNoiseModel(g_max=20.0, t_0=30.0, t_read=1e-6, prog_noise_scale=0.5, drift_scale=2.0),
    PCMLikeNoiseModel(g_converter=SinglePairConductanceConverter(g_max=25.0, g_min=3.0)),
    PCMLikeNoiseModel(g_converter=NPairConductanceConverter([1.0, 2.0, 4.0], 25.0, 0.0)),
    PCMLikeNoiseModel(g_converter=DualPairConductanceConverter([1.0, 3.0], 25.0, 1.0)),
    HermesNoiseModel(num_devices=1, read_noise_scale=0.3),
    StateIndependentNoiseModel(g_max=30.0, drift_nu_mean=0.05, drift_nu_std=0.01),
    ReRamWan2022NoiseModel(g_max=40.0, noise_scale=2.0),
    ReRamCMONoiseModel(acceptance_range=2, read_noise_scale=0.1),
]


@pytest.mark.parametrize("model", NOISE_MODELS, ids=lambda model: type(model).__name__)
def test_noise_models_come_in_and_go_out_again(model):
    configuration = per_vector()
    configuration.noise_model = model
    configuration.drift_compensation = PerColumnDriftCompensation()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        device = device_from(configuration, name="theirs", as_in_aihwkit=True)
        again = rpu_config_of(device)
    assert type(again.drift_compensation) is PerColumnDriftCompensation
    theirs, ours = vars(model), vars(again.noise_model)
    for key in set(theirs) - {"g_converter", "prog_coeff_g_max_reference"}:
        assert ours[key] == theirs[key], key
    for key in ("g_max", "g_min", "f_lst"):
        of_converters = [getattr(m.g_converter, key, None) for m in (model, again.noise_model)]
        assert of_converters[0] == of_converters[1], key


CHANGES = {
    "forward.inp_res": [1 / 32, 254.0, -1.0],
    "forward.out_res": [1 / 64, 1022.0, -1.0],
    "forward.out_bound": [7.0],
    "forward.out_noise": [0.0, 0.1],
    "forward.is_perfect": [True],
    "forward.bound_management": [BoundManagementType.NONE],
    "forward.ir_drop": [0.5],
    "mapping.max_input_size": [0, 100],
    "mapping.max_output_size": [0, 100],
    "mapping.weight_scaling_columnwise": [True],
}


@pytest.mark.parametrize(
    ("field", "value"), [(field, value) for field, some in CHANGES.items() for value in some]
)
def test_every_mapped_field_comes_in_and_goes_out_again(field, value):
    configuration, (section, key) = per_vector(), field.split(".")
    setattr(getattr(configuration, section), key, value)
    before = imported(per_vector())
    device = imported(configuration)
    assert device.digest != before.digest
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        again = rpu_config_of(device)
    found = getattr(getattr(again, section), key)
    steps = {1 / 32: 32.0, 1 / 64: 64.0}
    assert found == (steps.get(value, value) if key.endswith("res") else value)


def test_a_fixed_range_comes_in_and_goes_out_again():
    device = imported(static_range())
    assert (device.periphery.dac_steps, device.periphery.adc_steps) == (64, 256)
    with pytest.warns(UserWarning):
        again = rpu_config_of(device)
    assert type(again) is TorchInferenceRPUConfig
    assert again.forward.noise_management == NoiseManagementType.NONE
    assert again.pre_post.input_range.enable
    assert (again.forward.inp_res, again.forward.out_res) == (64.0, 256.0)


def test_read_noise_of_products_comes_in_and_goes_out_again():
    configuration = per_vector()
    configuration.forward.w_noise = 0.01
    configuration.forward.w_noise_type = WeightNoiseType.ADDITIVE_CONSTANT
    device = imported(configuration)
    assert device.periphery.mvm_read_noise_kind == "additive"
    with pytest.warns(UserWarning, match="does not hold the state of single cells"):
        again = rpu_config_of(device).forward
    assert again.w_noise == 0.01
    assert again.w_noise_type == WeightNoiseType.ADDITIVE_CONSTANT


def leaves(section: Any, prefix: str = "") -> Iterator[tuple[str, Any, Any]]:
    skipped = ("tile_class", "tile_array_class", "device", "noise_model", "drift_compensation")
    for field in dataclasses.fields(section):
        value, name = getattr(section, field.name), f"{prefix}{field.name}"
        if dataclasses.is_dataclass(value):
            yield from leaves(value, f"{name}.")
        elif name not in skipped:
            yield name, value, section


def other(value: Any) -> Any:
    if isinstance(value, bool):
        return not value
    if isinstance(value, Enum):
        return next(one for one in type(value) if one != value)
    if isinstance(value, int | float):
        return 3 * value + 5
    return "something else"


def test_no_field_is_dropped_silently():
    """Changing any field changes the device, or is named in the sentence."""
    names = [name for name, _, _ in leaves(InferenceRPUConfig())]
    assert len(names) > 100
    belongs_to_the_network = {"mapping.learn_out_scaling", "mapping.out_scaling_columnwise"}
    needs_a_noise = {"forward.w_noise", "forward.w_noise_type"}
    before = imported(per_vector())
    for name in set(names) - belongs_to_the_network - needs_a_noise:
        configuration = per_vector()
        for found, value, section in leaves(configuration):
            if found == name:
                setattr(section, name.rpartition(".")[2], other(value))
        try:
            device = imported(configuration)
        except ValueError:
            continue
        key = name.rpartition(".")[2]
        assert device.digest != before.digest or key in left_out_of(configuration).sentence, name


def test_what_is_left_out_is_one_sentence_in_the_warning_and_in_the_file(tmp_path):
    configuration = per_vector()
    configuration.forward.inp_noise = 0.1
    configuration.modifier.std_dev = 0.2
    with pytest.warns(UserWarning) as caught:
        device = device_from(configuration, name="theirs", path=tmp_path / "theirs.toml")
    sentence = (
        "Not carried over (no counterpart: forward.inp_noise = 0.1; "
        "in training only: modifier.std_dev = 0.2)."
    )
    assert str(caught[0].message) == f"Device 'theirs': {sentence}"
    assert device.limits == sentence
    assert load_device(tmp_path / "theirs.toml") == device


def test_nothing_left_out_is_no_warning():
    assert device_from(per_vector(), name="theirs").limits.startswith("Every field")


def test_the_hardware_aware_preset_differs_from_ours_in_texts_alone():
    with pytest.warns(UserWarning, match="clip.type = FIXED_VALUE"):
        theirs = device_from(StandardHWATrainingPreset(), name="theirs")
    ours = load_device("pcm_like_hwa_preset")
    assert theirs.digest == ours.digest
    assert left_out_of(StandardHWATrainingPreset()).without_counterpart == ()


def test_a_preset_without_noise_is_an_ideal_periphery():
    assert imported(FloatingPointPreset()).periphery.is_ideal


def test_layers_that_aihwkit_left_digital_stay_digital():
    network = nn.Sequential(nn.Linear(8, 8), nn.Linear(8, 8), nn.Flatten(), nn.Linear(8, 4))
    model = convert_to_analog(network, static_range(), exclude_modules=["1"])
    digital, keep_digital, arrays = digital_from(model)
    assert keep_digital == ("1",)
    assert set(arrays) == {"0", "3"}
    torch.testing.assert_close(digital[1].weight, network[1].weight)


@pytest.mark.slow
def test_a_checkpoint_of_a_trained_network_is_saved_and_loaded(models, tmp_path):
    model = models["lstm", "hwa"]
    checkpoint = checkpoint_from(
        model, factory="test_aihwkit:lstm", options={"kind": "hwa"}, dataset="digits", seed=3
    )
    path = save_checkpoint(tmp_path / "lstm.safetensors", checkpoint)
    with pytest.raises(ValueError, match="import of 'test_aihwkit:lstm'"):
        load_checkpoint(path)
    loaded = load_checkpoint(path, trust=("test_aihwkit",))
    assert loaded.digest == checkpoint.digest
    device = imported(model)
    images = torch.randn(8, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    chip = program(loaded, device, seed=2).drift_to(60.0)
    expected = program(digital_from(model).network, device, seed=2).drift_to(60.0)
    assert torch.equal(chip(images), expected(images))
    again = load_chip(chip.save(tmp_path / "chip.safetensors"), loaded)
    assert again.input_ranges == chip.input_ranges
    assert torch.equal(again(images), chip(images))


def converted(network: nn.Module | None = None) -> nn.Module:
    return convert_to_analog(network or nn.Sequential(nn.Linear(300, 10)), static_range())


def programmed() -> nn.Module:
    model = converted().eval()
    model.program_analog_weights()
    return model


def with_scale(value: float) -> nn.Module:
    model = converted()
    tiles_of(model)[0][1].out_scaling_alpha.data.fill_(value)
    return model


def with_range(value: float) -> nn.Module:
    model = converted()
    tiles_of(model)[0][1].input_range.data.fill_(value)
    return model


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (lambda: nn.Linear(3, 3), "no tiles of aihwkit; give one that convert_to_analog"),
        (lambda: torch.zeros(3), "is an nn.Module that aihwkit converted; got Tensor"),
        (programmed, "'0.analog_module.array.0.0' was programmed"),
        (lambda: with_scale(0.0), "Layer '0' has an output scale of 0"),
        (lambda: with_range(0.0), "Layer '0' has input ranges"),
        (lambda: with_range(math.nan), "Layer '0' has input ranges"),
        (
            lambda: convert_to_analog(nn.Sequential(nn.Linear(3, 3)), SingleRPUConfig()),
            "a tile for analog training",
        ),
        (
            lambda: convert_to_analog(nn.Sequential(nn.Conv3d(1, 2, 3)), InferenceRPUConfig()),
            "is a AnalogConv3d, which cannot be mapped",
        ),
    ],
)
def test_networks_that_cannot_be_imported_are_one_sentence(model, message):
    with pytest.raises(ValueError, match=message) as caught:
        digital_from(model())
    assert "\n" not in str(caught.value)


def with_noise(model: Any) -> InferenceRPUConfig:
    configuration = per_vector()
    configuration.noise_model = model
    return configuration


class OwnNoise(PCMLikeNoiseModel):
    """Somebody's own model."""


@pytest.mark.parametrize(
    ("configuration", "message"),
    [
        (SingleRPUConfig(), "SingleRPUConfig describes no array for inference"),
        (InferenceRPUConfig, "InferenceRPUConfig describes no array.*give an instance"),
        ({"g_max": 25}, "dict describes no array"),
        (with_noise(OwnNoise()), "noise_model is a test_aihwkit.OwnNoise"),
        (with_noise(HermesNoiseModel(g_max=20.7)), ""),
        (with_noise(PCMLikeNoiseModel(t_0=-1.0)), "noise.t_0_s = -1.0 is not allowed"),
        (static_range(out_noise=math.nan), "periphery.output_noise = nan is not allowed"),
    ],
)
def test_configurations_without_counterpart_are_one_sentence(configuration, message):
    if not message:
        assert device_from(configuration, name="theirs").noise.g_max_uS == 20.7
        return
    with pytest.raises(ValueError, match=message) as caught:
        imported(configuration)
    assert "\n" not in str(caught.value)


def test_another_split_than_that_of_the_training_is_one_sentence():
    digital, _, _ = digital_from(trained(converted(), (300,)))
    device = imported(static_range()).with_axes({"mapping.max_rows": 100})
    with pytest.raises(ValueError, match="was trained on 2 block.* of rows"):
        program(digital, device)
    plain = digital_from(converted(), own_arrays=False).network
    program(plain, device, input_ranges={"0": 1.0})


def test_odd_steps_are_refused_in_a_device_file():
    with pytest.raises(ValueError, match="steps are an even number"):
        load_device("pcm_like").with_axes({"periphery.dac_steps": 255})


def test_converted_sequences_keep_their_class():
    assert isinstance(converted(), AnalogSequential)
    assert type(digital_from(converted()).network) is nn.Sequential
