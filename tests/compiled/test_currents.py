"""Claims about currents of cells that are not conductance times voltage, against the formulas.

Read noise: the error of an output over n = 4000 products is normal with the sum of the variances of
its cells. Each statistic has a false-alarm rate of 1e-9; seeds are fixed.
"""

import math

import numpy as np
import pytest
import torch
from scipy import stats
from torch import nn

from analog_samson import load_device, program
from analog_samson.analog import rpu_config_of
from analog_samson.chip import ChipGroup
from analog_samson.chip.engines import choose_engine
from analog_samson.chip.group import why_not_batched
from analog_samson.devices import Device, validated
from analog_samson.models import hold_arrays

ENGINES = ("aihwkit", "compiled")
ALPHA = 1e-9
A_uS, B_uS = 1.2, 4.0  # larger than measured ones, so that all terms count
CURVED = {"iv_voltage_V": 0.5, "iv_square_powers": [2e-6, 5e-7], "iv_cube_powers": [0.0, 1e-5]}
NOISY = {"mvm_read_noise_uS": A_uS, "mvm_read_noise_knee_uS": B_uS}
EXACT = {"dac_bits": "ideal", "adc_bits": "ideal", "output_bound": math.inf, "output_noise": 0.0}
G_MIN, G_MAX = 5.0, 25.0


def device(name="pcm_like", **periphery):
    content = load_device(name).model_dump()
    content["noise"] |= {"programming_noise_scale": 0.0, "g_min_uS": G_MIN}
    content["periphery"] |= {**EXACT, **periphery}
    return Device.model_validate(content)


def pair_of(w):
    """Conductances [µS] of the two cells of normalised weights."""
    on, off = G_MIN + w.abs() * (G_MAX - G_MIN), torch.full_like(w, G_MIN)
    return torch.where(w > 0, on, off), torch.where(w > 0, off, on)


def current(g, x):
    """Current of cells in µA at inputs from -1 to 1, which are -0.5 to 0.5 V."""
    v, log = 0.5 * x, torch.log10(g * 1e-6)
    return g * v + 1e6 * ((2e-6 + 5e-7 * log) * v**2 + 1e-5 * log * v**3)


def linear():
    torch.manual_seed(0)
    return nn.Linear(24, 5).double().float()


@pytest.mark.parametrize("engine", ENGINES)
def test_currents_are_summed_cell_by_cell(engine):
    """Arrays of 24 rows and of 10: the current of every cell, in double precision by hand."""
    layer, x = linear(), 2 * torch.rand(40, 24) - 1
    for rows in (512, 10):
        bent = device(**CURVED).with_axes({"max_rows": rows})
        chip = program(layer, bent, engine=engine, input_ranges={"": 0.8})
        u = (x / 0.8).clamp(-1, 1).double()
        expected = layer.bias.detach().double().expand(40, -1)
        for block, of_block in zip(
            layer.weight.split(chip_rows(24, rows), 1), u.split(chip_rows(24, rows), 1), strict=True
        ):
            scale = block.abs().amax(dim=1).double().detach()
            plus, minus = pair_of(block.detach().double() / scale[:, None])
            added = current(plus, of_block[:, None]) - current(minus, of_block[:, None])
            unit = 0.5 * (G_MAX - G_MIN)
            expected = expected + 0.8 * scale * added.sum(dim=2) / unit
        torch.testing.assert_close(chip(x).double(), expected, rtol=1e-4, atol=1e-5)
    straight = program(layer, device(), engine=engine, input_ranges={"": 0.8})
    assert (straight(x) - chip(x)).abs().max() > 0.01


def chip_rows(n, most):
    """Sizes of blocks of rows: as equal as possible."""
    count = -(-n // most)
    return [n // count + (number < n % count) for number in range(count)]


@pytest.mark.parametrize("engine", ENGINES)
def test_read_noise_of_a_product_has_the_variances_of_its_cells(engine):
    layer = linear()
    x = (2 * torch.rand(1, 24) - 1).expand(4000, -1).contiguous()
    noisy = device(**NOISY | {"output_noise": 0.1})
    chip = program(layer, noisy, engine=engine, input_ranges={"": 1.0})
    exact = program(layer, device(), engine=engine, input_ranges={"": 1.0})
    error = (chip(x) - exact(x)).detach().double().numpy()
    scale = layer.weight.detach().abs().amax(dim=1)
    spreads = [
        A_uS * (1 - torch.exp(-g / B_uS)) for g in pair_of(layer.weight.detach() / scale[:, None])
    ]
    variance = (x[0] ** 2 * (spreads[0] ** 2 + spreads[1] ** 2)).sum(dim=1)
    variance = variance / (G_MAX - G_MIN) ** 2 + 0.1**2  # and output noise
    sigma = (scale * variance.sqrt()).double().numpy()
    z = error / sigma
    squares = np.square(z).sum(axis=0)
    assert (2 * stats.norm.sf(np.abs(z.mean(axis=0)) * math.sqrt(4000)) > ALPHA).all()
    assert (
        2 * np.minimum(stats.chi2.sf(squares, 4000), stats.chi2.cdf(squares, 4000)) > ALPHA
    ).all()
    assert all(stats.kstest(column, "norm").pvalue > ALPHA for column in z.T)
    correlation = np.corrcoef(z.T)[np.triu_indices(5, 1)]
    assert np.abs(correlation).max() < 7 / math.sqrt(4000)
    assert np.abs((z[1:] * z[:-1]).mean(axis=0)).max() < 7 / math.sqrt(4000)


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("rows", [512, 10])
def test_currents_are_those_of_the_conductances_where_training_fixed_the_scales(engine, rows):
    """Oracle: the conductances of the programmed chip, array by array, in double precision."""
    layer, x = linear(), 2 * torch.rand(40, 24) - 1
    largest = [block.abs().amax(dim=1) for block in layer.weight.split(chip_rows(24, rows), 1)]
    scales = torch.stack([(2.0 + i) * one for i, one in enumerate(largest)]).detach()
    hold_arrays(layer, scales, None)
    bent, noisy = (
        device(**how).with_axes({"max_rows": rows}) for how in (CURVED, NOISY | {"dac_bits": 8})
    )
    chip = program(layer, bent, engine=engine, input_ranges={"": 1.0})
    cells = [array for of_layer in chip.conductances().values() for array in of_layer]
    expected = layer.bias.detach().double().expand(40, -1)
    variance = torch.zeros(5, dtype=torch.float64)
    sizes = chip_rows(24, rows)
    for of_block, (plus, minus), scale, block in zip(
        x.split(sizes, 1), cells, scales, layer.weight.detach().split(sizes, 1), strict=True
    ):
        assert max(float(plus.max()), float(minus.max())) == pytest.approx(G_MAX)
        of_weight = (block / scale[:, None]).abs().max() / (G_MAX - G_MIN)  # 1 µS as a weight
        plus, minus = plus.double(), minus.double()
        added = current(plus, of_block[:, None].double()) - current(minus, of_block[:, None])
        expected = expected + scale.double() * of_weight * added.sum(dim=2) / 0.5
        spreads = [A_uS * (1 - torch.exp(-g / B_uS)) for g in (plus, minus)]
        variance += (scale * of_weight) ** 2 * (spreads[0] ** 2 + spreads[1] ** 2).sum(dim=1)
    torch.testing.assert_close(chip(x).double(), expected, rtol=1e-4, atol=1e-5)
    chip = program(layer, noisy, engine=engine, input_ranges={"": 1.0})
    outputs = chip(torch.ones(4000, 24)).double()
    squares = (outputs - outputs.mean(dim=0)).square().sum(dim=0) / variance
    assert (2 * stats.chi2.sf(squares.numpy(), 3999) > ALPHA).all()
    assert (2 * stats.chi2.cdf(squares.numpy(), 3999) > ALPHA).all()


def convolutions():
    torch.manual_seed(1)
    return nn.Sequential(
        *(nn.Conv2d(4, 8, 3, padding=1, stride=2, groups=2), nn.ReLU()),
        *(nn.Flatten(), nn.Linear(8 * 4 * 4, 7)),
    ).eval()


@pytest.mark.parametrize("expected_images", [0, 10**6])
def test_both_engines_compute_the_same_network(expected_images):
    """Noise off, arrays of 15 rows, converters of many bits; the second case is traced."""
    network, images = convolutions(), torch.rand(16, 4, 8, 8)
    bent = device(**CURVED | {"dac_bits": 12, "adc_bits": 16, "output_bound": 20.0})
    bent = bent.with_axes({"max_rows": 15})
    given = {"calibration": images, "expected_images": expected_images}
    theirs, ours = (program(network, bent, engine=name, **given)(images) for name in ENGINES)
    assert (ours - theirs).abs().max() < 0.02 * ours.std()
    plain = program(network, device(), calibration=images)(images)
    assert (ours - plain).abs().max() > 0.2 * ours.std()


@pytest.mark.parametrize("expected_images", [0, 10**6])
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.filterwarnings("ignore:precision=")
def test_noise_depends_on_the_chip_and_the_image_and_not_on_the_batch(expected_images, precision):
    network, images = convolutions(), torch.rand(16, 4, 8, 8)
    both = device(**CURVED | NOISY)
    given = {"calibration": images, "expected_images": expected_images, "precision": precision}
    chip, other = (program(network, both, seed=seed, **given) for seed in (1, 2))
    whole = chip(images)
    assert whole.isfinite().all() and not torch.equal(whole, other(images))
    parts = torch.cat([chip(images[:8], 0), chip(images[8:], 8)])
    torch.testing.assert_close(parts, whole, rtol=2e-2, atol=2e-2)
    assert torch.equal(program(network, both, seed=1, **given)(images), whole)
    again = chip(images[:1].expand(16, -1, -1, -1).contiguous())
    assert again.std(dim=0).min() > 0


def test_one_cell_law_for_every_layer_and_no_group_of_chips():
    layers = [{"pattern": "3", "noise": {"g_min_uS": 0.0}}]
    content = device(**NOISY).model_dump() | {"layers": layers}
    own = Device.model_validate(content)
    chip = program(convolutions(), own, calibration=torch.rand(4, 4, 8, 8))
    ranges = {name: layer.mapped.currents.g_min_uS for name, layer in chip.network.layers.items()}
    assert ranges == {"0": G_MIN, "3": 0.0}
    assert "currents of cells" in why_not_batched(own, "compiled")
    with pytest.raises(ValueError, match="currents of cells are computed for each chip"):
        ChipGroup([chip])
    assert choose_engine(own) == "compiled"
    with pytest.warns(UserWarning, match="read noise and nonlinearity of cells"):
        rpu_config_of(device(**NOISY))


@pytest.mark.parametrize(
    ("name", "periphery", "words"),
    [
        ("pcm_like", {"mvm_read_noise_uS": 1.0}, "needs mvm_read_noise_knee_uS"),
        ("pcm_like", {"iv_square_powers": [1e-6]}, "need iv_voltage_V"),
        ("pcm_like", {**NOISY, "input_scaling": "per_vector"}, "'per_vector'.* exclude them"),
        ("pcm_like", {**NOISY, "mvm_read_noise": 0.01}, "mvm_read_noise, .*exclude them"),
        ("pcm_like", {**NOISY, "ir_drop": 1.0}, "exclude them"),
        ("pcm_like", {**NOISY, "mvm_read_noise_uS": -1.0}, "mvm_read_noise_uS = -1.0 is not"),
        ("pcm_like", {**CURVED, "iv_voltage_V": 0.0}, "iv_voltage_V = 0.0 is not allowed"),
        ("pcm_n_pairs", NOISY, "one differential pair per weight.* mapping has several"),
        ("reram_cmo", NOISY, "ReRamCMONoiseModel has none"),
        ("gaussian_max", CURVED, "WeightNoiseModel has none"),
    ],
)
def test_wrong_currents_are_one_sentence(name, periphery, words):
    content = load_device(name).model_dump()
    content["periphery"] |= periphery
    with pytest.raises(ValueError, match=words) as caught:
        validated(content, name)
    assert "\n" not in str(caught.value)
