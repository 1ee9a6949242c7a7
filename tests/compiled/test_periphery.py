"""Claims about the options of mapping and periphery, against formulas written out here."""

import pytest
import torch
from torch import nn

from analog_samson import load_device, program
from analog_samson.analog import tile_configuration
from analog_samson.devices import validated

N_STEPS = 127  # 254 steps between -1 and 1


def changed(name="pcm_like", **sections):
    content = load_device(name).model_dump()
    for section, keys in sections.items():
        content[section].update(keys)
    return validated(content, "mine")


QUIET = {"programming_noise_scale": 0.0, "read_noise_1f_scale": 0.0, "drift_scale": 0.0}


@pytest.fixture
def layer() -> nn.Linear:
    torch.manual_seed(0)
    return nn.Linear(40, 12)


@pytest.fixture
def inputs() -> torch.Tensor:
    generator = torch.Generator().manual_seed(1)
    sizes = torch.logspace(-2, 2, 32)[:, None]
    return sizes * torch.randn(32, 40, generator=generator)


def by_hand(layer, x, scale, *, dac=True, adc=True, bound=10.0, halvings=None):
    """Output of an array without noise: DAC, product, ADC, bound, scales, bias."""
    weights, largest = layer.weight.detach(), layer.weight.detach().abs().amax(1, keepdim=True)
    halving = torch.ones_like(scale) if halvings is None else halvings
    u = (x / (scale * halving)).clamp(-1, 1)
    u = torch.round(u * N_STEPS) / N_STEPS if dac else u
    y = u @ (weights / largest).T
    y = (torch.round(y / bound * N_STEPS) * bound / N_STEPS).clamp(-bound, bound) if adc else y
    return y * scale * halving * largest.T + layer.bias.detach()


def test_a_range_of_every_vector_is_its_largest_input(layer, inputs):
    quiet = {"input_scaling": "per_vector", "output_noise": 0.0}
    chip = program(layer, changed(noise=QUIET, periphery=quiet), engine="aihwkit")
    expected = by_hand(layer, inputs, inputs.abs().amax(1, keepdim=True))
    found = chip(inputs)  # no calibration is needed
    # a value between two ADC levels may fall to either side: one level at most, and rarely
    level = 10 / N_STEPS * inputs.abs().amax(1, keepdim=True) * layer.weight.detach().abs().max()
    assert ((found - expected).abs() <= 1.01 * level).all()
    assert ((found - expected).abs() > 1e-3 * level).float().mean() < 0.02


def test_iterative_bounds_halve_inputs_until_nothing_clips(layer):
    """Torch tiles take one factor for a whole block: with equal vectors it is that of each."""
    x = torch.sign(layer.weight.detach()[3])[None].repeat(32, 1) * 2
    keys = {"input_scaling": "per_vector", "bound_management": "iterative", "output_noise": 0.0}
    device = changed(noise=QUIET, periphery=keys | {"output_bound": 4.0})
    largest = layer.weight.detach().abs().amax(1)
    clipped = float(layer.weight.detach()[3].abs().sum() / largest[3])
    assert clipped > 8, "two halvings at least"
    exact = nn.functional.linear(x, layer.weight, layer.bias).detach()
    plain = program(
        layer,
        changed(noise=QUIET, periphery=keys | {"output_bound": 4.0, "bound_management": "none"}),
        engine="aihwkit",
    )
    managed = program(layer, device, engine="aihwkit")
    assert (plain(x) - exact)[:, 3].abs().min() > 1, "clipped"
    assert (managed(x) - exact)[:, 3].abs().max() < 0.2


def test_converters_can_be_ideal_one_by_one(layer, inputs):
    scale = torch.full((32, 1), float(inputs.abs().max()))
    for dac, adc in ((True, False), (False, True), (False, False)):
        keys = {"output_noise": 0.0, "output_bound": 100.0}
        keys |= {"dac_bits": 8 if dac else "ideal", "adc_bits": 8 if adc else "ideal"}
        device = changed(noise=QUIET, periphery=keys)
        chip = program(
            layer, device, input_ranges={"": float(inputs.abs().max())}, engine="aihwkit"
        )
        expected = by_hand(layer, inputs, scale, dac=dac, adc=adc, bound=100.0)
        off = (chip(inputs) - expected).abs() > 1e-3
        assert off.float().mean() < 0.02


def test_the_preset_is_the_preset():
    """Its device file and its forward pass, key by key, as aihwkit ships them."""
    from aihwkit.simulator.configs import InferenceRPUConfig
    from aihwkit.simulator.presets import StandardHWATrainingPreset

    shipped = {
        "pcm_like_hwa_preset": StandardHWATrainingPreset(),
        "pcm_like_abs_max": InferenceRPUConfig(),
    }
    for name, expected in shipped.items():
        found = tile_configuration(load_device(name))
        for key, value in vars(expected.forward).items():
            own = getattr(found.forward, key)
            if key in ("inp_res", "out_res"):  # 254 and 1/254 mean the same
                own, value = (1 / res if res > 1 else res for res in (own, value))
            assert own == value, key
        for key in ("max_input_size", "max_output_size", "digital_bias"):
            assert getattr(found.mapping, key) == getattr(expected.mapping, key)


@pytest.mark.parametrize("key", ["mvm_read_noise", "ir_drop"])
def test_effects_that_torch_tiles_lack_run_on_the_cpp_tile(layer, inputs, key):
    """Read noise: n = 256 answers to one input differ; IR drop: they agree, and lack something."""
    exact = {"output_noise": 0.0, "adc_bits": "ideal"}
    device = changed(noise=QUIET, periphery=exact).with_axes({key: 0.5})
    ranges = {"": float(inputs.abs().max())}
    chip = program(layer, device, engine="aihwkit", input_ranges=ranges)
    answers = chip(inputs[-1:].expand(256, -1))
    assert (answers.std(dim=0).min() > 0) == (key == "mvm_read_noise")
    plain = program(layer, device.with_axes({key: 0}), engine="aihwkit", input_ranges=ranges)
    assert (answers.mean(dim=0) - plain(inputs[-1:])[0]).abs().max() > 1e-4


@pytest.mark.parametrize("engine", ["aihwkit", "compiled"])
def test_outliers_clipped_before_mapping_set_no_scale(layer, engine):
    with torch.no_grad():
        layer.weight[3, 7] = 50.0
    chip = program(layer, changed("ideal", mapping={"clip_quantile": 0.975}), engine=engine)
    weights = chip.weights()[""]
    expected = layer.weight.detach().clone()
    bound = expected.abs().sort(dim=1).values[:, 38:39]  # 39th of 40
    torch.testing.assert_close(weights, expected.clamp(-bound, bound))
    assert weights[3].abs().max() < 1 and layer.weight[3, 7] == 50
    by_layer = changed("ideal", mapping={"clip_quantile": 0.99, "scale": "tile"})
    one_bound = expected.abs().flatten().sort().values[round(0.99 * 480) - 1]
    found = program(layer, by_layer, engine=engine).weights()[""]
    torch.testing.assert_close(found, expected.clamp(-one_bound, one_bound))


def test_options_are_refused_where_they_mean_nothing():
    with pytest.raises(ValueError, match=r"mine: .*clip_quantile = 0.0 .*greater than 0"):
        changed(mapping={"clip_quantile": 0.0})
    with pytest.raises(ValueError, match=r"mine: .*reference_column is for one cell per weight"):
        changed(mapping={"reference_column": True})
    with pytest.raises(ValueError, match=r"mine: .*are for pairs"):
        changed("reram_cmo", mapping={"pair_significances": (1.0, 2.0)})
    with pytest.raises(ValueError, match=r"adc_bits = 8 needs a finite output_bound"):
        changed(periphery={"output_bound": float("inf")})
    with pytest.raises(ValueError, match=r"input_scaling = 'sometimes'.*'per_vector'"):
        changed(periphery={"input_scaling": "sometimes"})
