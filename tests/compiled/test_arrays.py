"""Claims about peripheries that look at every input vector; aihwkit's C++ tile is the oracle.

The C++ tile seeds its noise from the clock: statistical tests state their false-alarm rate. Its
normals come from a table of 32768, whose own mean is off by 0.0055 standard deviations.
"""

import pandas as pd
import pytest
import torch
from scipy import stats
from test_layers import LAYERS, SMALL, TinyResidual, assert_equal_but_for_ties, device
from torch import nn

from analog_samson import Study, collect, load_device, program
from analog_samson.analog import TiledNetwork
from analog_samson.analog import tiles as tiles_module
from analog_samson.checkpoint import TrainingSpec
from analog_samson.chip import choose_engine
from analog_samson.compiled import FunctionalNetwork, kernels
from analog_samson.compiled import network as network_module
from analog_samson.devices.array import Periphery
from analog_samson.streams import derive_seed
from analog_samson.times import DAY, YEAR
from analog_samson.training import train

FALSE_ALARM = 1e-6
QUIET = {"output_noise": 0.0, "mvm_read_noise": 0.0}
HWA, ABS_MAX = "pcm_like_hwa_preset", "pcm_like_abs_max"
TABLE = 32768  # normals that a C++ tile draws from

PERIPHERIES = {
    "preset": (HWA, QUIET),
    "strong IR drop": (HWA, QUIET | {"ir_drop": 20.0}),
    "IR drop, converters ideal": (HWA, QUIET | {"dac_bits": "ideal", "adc_bits": "ideal"}),
    "preset, managed": (HWA, QUIET | {"bound_management": "iterative", "output_bound": 2.0}),
    "absolute maximum": (ABS_MAX, QUIET),
    "tight bounds": (ABS_MAX, QUIET | {"output_bound": 3.0}),
    "not managed": (ABS_MAX, QUIET | {"output_bound": 3.0, "bound_management": "none"}),
    "managed, ideal": (
        ABS_MAX,
        QUIET | {"output_bound": 3.0, "dac_bits": "ideal", "adc_bits": "ideal"},
    ),
    "all at once": (ABS_MAX, QUIET | {"output_bound": 3.0, "ir_drop": 20.0}),
}


def seeds(*words):
    return derive_seed(1, *words)


def example_of(kind, n=40):
    make, shape = LAYERS[kind]
    with torch.random.fork_rng():
        torch.manual_seed(5)
        return nn.Sequential(make()).eval(), torch.randn(n, *shape)


def on_both(network, example, on, seed=3):
    return [
        program(network, on, seed=seed, calibration=example, engine=engine)
        for engine in ("aihwkit", "compiled")
    ]


@pytest.mark.slow
@pytest.mark.parametrize("mapping", [{}, SMALL], ids=["one array", "split"])
@pytest.mark.parametrize("periphery", PERIPHERIES)
@pytest.mark.parametrize("kind", LAYERS)
def test_a_layer_computes_what_its_cpp_tiles_compute(kind, periphery, mapping):
    name, changes = PERIPHERIES[periphery]
    network, example = example_of(kind)
    compensation = {"linear": "per_column", "conv": "none"}.get(kind, "global")
    on = device(name, changes, mapping, compensation)
    tile, own = on_both(network, example, on)
    for t in (0.0, YEAR):
        expected, found = tile.drift_to(t)(example), own.drift_to(t)(example)
        assert torch.equal(tile.weights()["0"], own.weights()["0"])
        assert torch.equal(tile.compensation()["0"], own.compensation()["0"])
        tolerance = 1e-5 * float(expected.abs().max())
        step = 0.0
        if on.periphery.adc_bits != "ideal":
            step = 2 * on.periphery.output_bound / (2**on.periphery.adc_bits - 2)
            step *= float(network[0].weight.detach().abs().max() * own.compensation()["0"].max())
            step *= float(example.abs().max())
            step *= 16 if on.periphery.bound_management == "iterative" else 1
        assert_equal_but_for_ties(found, expected, largest_step=step + tolerance)


def test_the_ir_drop_of_those_tests_changes_outputs():
    network, example = example_of("conv")
    with_drop = device(HWA, PERIPHERIES["strong IR drop"][1])
    without = device(HWA, QUIET)
    one, other = (program(network, on, calibration=example)(example) for on in (with_drop, without))
    assert float(((one - other).abs() > 1e-3).double().mean()) > 0.1


def test_ir_drop_follows_its_formula():
    """y_i - c_i sum_j w_ij x_j (1 - (1 - j/n)^2), c = a (a (0.05 a - 0.2) + 0.5)."""
    n, scale = 400, 3.0
    with torch.random.fork_rng():
        torch.manual_seed(0)
        layer, x = nn.Linear(n, 7, bias=False), torch.randn(20, n)
    converters = {"dac_bits": "ideal", "adc_bits": "ideal", "output_bound": float("inf")}
    on = device("ideal", converters | {"ir_drop": scale})
    bound = float(x.abs().max())
    found = program(layer, on, input_ranges={"": bound})(x).double()
    largest = layer.weight.detach().double().abs().amax(1, keepdim=True)
    w, u = layer.weight.detach().double() / largest, x.double() / bound
    a = n / (1 / 0.35 / 5e-6) * u.abs() @ w.abs().T
    c = a * (a * (0.05 * a - 0.2) + 0.5)
    place = 1 - (1 - torch.arange(n) / n) ** 2
    expected = (u @ w.T - scale * c * (u @ (w * place).T)) * bound * largest.T
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)
    assert float((u @ w.T * bound * largest.T - expected).abs().max()) > 1e-2


@pytest.mark.parametrize("kind", ["pcm_read", "additive"])
@pytest.mark.parametrize("engine", ["aihwkit", "compiled"])
def test_read_noise_of_products_follows_its_formula(engine, kind):
    """n = 4000: chi-square test of the spread of 8 outputs; 1e-6 over all, as for the means."""
    n = 4000
    with torch.random.fork_rng():
        torch.manual_seed(0)
        layer, x = nn.Linear(60, 8, bias=False), torch.randn(60)
    converters = {"dac_bits": "ideal", "adc_bits": "ideal", "output_bound": float("inf")}
    on = device("ideal", converters | {"mvm_read_noise": 0.05, "mvm_read_noise_kind": kind})
    chip = program(layer, on, input_ranges={"": 3.0}, engine=engine)
    found = chip(x.expand(n, -1)).double()
    w = layer.weight.detach().double()
    largest, u = w.abs().amax(1), x.double().clamp(-3, 3) / 3.0
    sums = (w.abs() / largest[:, None]) @ u**2 if kind == "pcm_read" else (u**2).sum()
    expected = (0.05 * sums.sqrt() * largest * 3.0) ** 2
    mean = w @ (u * 3.0)
    alarm = FALSE_ALARM / 16
    table = 1 / TABLE if engine == "aihwkit" else 0.0
    z = (found.mean(0) - mean) / (expected * (1 / n + table)).sqrt()
    assert float(z.abs().max()) < stats.norm.isf(alarm / 2)
    z = (found.var(0) / expected).log() / (2 / n + 2 * table) ** 0.5
    assert float(z.abs().max()) < stats.norm.isf(alarm / 2)


NOISY = {
    "preset": (HWA, {}),
    "additive": (HWA, {"mvm_read_noise_kind": "additive", "mvm_read_noise": 0.05}),
    "absolute maximum": (ABS_MAX, {}),
    "clipped now and then": (ABS_MAX, {"output_bound": 3.0, "output_noise": 0.3}),
}


@pytest.mark.parametrize("noise", NOISY)
def test_outputs_are_distributed_as_those_of_the_tile(noise):
    """n = 4000 outputs, 12 outputs of 2 arrays: two-sample KS test of each, 1e-6 over all."""
    n = 4000
    name, changes = NOISY[noise]
    with torch.random.fork_rng():
        torch.manual_seed(5)
        layer, example = nn.Linear(90, 12), torch.randn(1, 90)
    on = device(name, changes | {"adc_bits": "ideal"}, {"max_rows": 50})
    tile, own = on_both(nn.Sequential(layer), example, on)
    images = example.expand(n, -1)
    expected, found = tile(images).double(), own(images).double()
    assert float(found.std(0).min()) > 0
    for i in range(12):
        assert stats.ks_2samp(expected[:, i], found[:, i]).pvalue > FALSE_ALARM / 12
    relative = ((found.mean(0) - expected.mean(0)) / expected.std(0)).abs()
    assert float(relative.max()) < stats.norm.isf(FALSE_ALARM / 24) * (2 / n + 2 / TABLE) ** 0.5


def test_without_a_compiler_noise_and_repeats_are_the_same(monkeypatch):
    changes = [*NOISY.values(), (ABS_MAX, {"output_bound": 3.0, "mvm_read_noise": 0.05})]
    for kind in ("conv", "conv, strides", "linear on tokens"):
        network, example = example_of(kind, 10)
        for name, change in changes:
            on = device(name, change, SMALL)
            chip = program(network, on, calibration=example, engine="compiled").drift_to(DAY)
            built = chip(example)
            with monkeypatch.context() as patch:
                patch.setattr(kernels, "library", lambda: None)
                plain = chip(example)
            differs = (plain - built).abs() > 1e-4 * built.abs().max()
            assert float(differs.double().mean()) < 2e-3


@pytest.fixture(scope="module")
def residual():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return TinyResidual().eval()


@pytest.fixture(scope="module")
def images():
    return torch.rand(150, 1, 8, 8, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("name", [HWA, ABS_MAX])
def test_batches_threads_and_order_change_no_bit(name, residual, images):
    on = device(name, {"output_bound": 2.0})  # clips often
    chip = program(residual, on, calibration=images, engine="compiled").drift_to(DAY)
    whole = chip(images)
    parts = {a: chip(images[a:b], first_index=a) for a, b in ((64, 150), (0, 1), (1, 64))}
    assert torch.equal(torch.cat([parts[a] for a in sorted(parts)]), whole)
    torch.set_num_threads(2)
    try:
        assert torch.equal(chip(images), whole)
    finally:
        torch.set_num_threads(1)
    again = program(residual, on, calibration=images, engine="compiled").drift_to(DAY)
    assert torch.equal(again(images), whole)
    moved = chip(images, first_index=1)
    assert float((moved - whole).abs().mean()) > 1e-3 * float(whole.abs().mean())


def test_one_hot_vector_changes_no_other():
    """In aihwkit's torch tile it halves the scale of its whole batch."""
    with torch.random.fork_rng():
        torch.manual_seed(2)
        layer, x = nn.Sequential(nn.Linear(50, 9)), torch.randn(30, 50)
    chip = program(layer, device(ABS_MAX, QUIET | {"output_bound": 4.0}))
    alone = chip(x)
    hot = torch.cat([x, 100 * torch.sign(layer[0].weight.detach()[:1])])
    assert torch.equal(chip(hot)[:30], alone)


def test_a_zero_vector_gives_the_bias_and_no_noise():
    with torch.random.fork_rng():
        torch.manual_seed(2)
        layer, x = nn.Sequential(nn.Linear(50, 9)), torch.randn(4, 50)
    x[2] = 0
    outputs = program(layer, ABS_MAX)(x)
    assert torch.equal(outputs[2], layer[0].bias.detach())
    assert (outputs[1] != layer[0].bias.detach()).any()


@pytest.mark.parametrize("name", [HWA, ABS_MAX])
def test_nan_stays_nan(name):
    with torch.random.fork_rng():
        torch.manual_seed(2)
        layer, x = nn.Sequential(nn.Linear(50, 9)), torch.randn(4, 50)
    x[2, 7] = float("nan")
    outputs = FunctionalNetwork(layer, load_device(name), (), {"0": 2.0}).forward(x, 0, seeds)
    assert outputs.isnan().all(dim=1).tolist() == [False, False, True, False]


@pytest.mark.parametrize("groups", [2, 12])
@pytest.mark.parametrize("name", [HWA, ABS_MAX])
def test_a_grouped_convolution_is_separate_convolutions_on_cpp_tiles(groups, name):
    on = device(name, QUIET | {"output_bound": 2.0}, {"max_rows": 20})
    with torch.random.fork_rng():
        torch.manual_seed(2)
        layer = nn.Conv2d(12, 24, 3, padding=1, groups=groups).eval()
        x = torch.randn(10, 12, 7, 7)
    ranges = {"0": float(x.abs().max()) * 0.9}
    own = FunctionalNetwork(nn.Sequential(layer), on, (), ranges).forward(x, 0, seeds)
    n_in, n_out = 12 // groups, 24 // groups
    outputs = []
    for group in range(groups):
        alone = nn.Conv2d(n_in, n_out, 3, padding=1)
        with torch.no_grad():
            alone.weight.copy_(layer.weight[group * n_out : (group + 1) * n_out])
            alone.bias.copy_(layer.bias[group * n_out : (group + 1) * n_out])
        tiled = TiledNetwork(nn.Sequential(alone), on, (), ranges)
        outputs.append(tiled.forward(x[:, group * n_in : (group + 1) * n_in], 0, seeds))
    step = float(x.abs().max() * layer.weight.detach().abs().max()) * 16 * 4 / 254
    assert_equal_but_for_ties(own, torch.cat(outputs, dim=1), largest_step=step)


@pytest.mark.parametrize("name", [HWA, ABS_MAX])
def test_a_convolution_of_sequences_is_one_of_flat_images_on_cpp_tiles(name):
    with torch.random.fork_rng():
        torch.manual_seed(2)
        flat = nn.Sequential(nn.Conv2d(6, 9, (1, 5), (1, 2), (0, 4), (1, 2))).eval()
        x = torch.randn(20, 6, 1, 30)
    line = nn.Sequential(nn.Conv1d(6, 9, 5, 2, 4, 2)).eval()
    with torch.no_grad():
        line[0].weight.copy_(flat[0].weight[:, :, 0])
        line[0].bias.copy_(flat[0].bias)
    on, ranges = device(name, QUIET | {"output_bound": 2.0}, {"max_rows": 20}), {"0": 2.5}
    found = FunctionalNetwork(line, on, (), ranges).forward(x[:, :, 0], 0, seeds)
    expected = TiledNetwork(flat, on, (), ranges).forward(x, 0, seeds)[:, :, 0]
    step = float(x.abs().max() * flat[0].weight.detach().abs().max()) * 16 * 4 / 254
    assert_equal_but_for_ties(found, expected, largest_step=step)


@pytest.mark.parametrize("name", [HWA, ABS_MAX])
def test_alpha_is_what_the_tile_would_read_through_a_quiet_periphery(name):
    """Its identity read-out, IR drop on, against the closed form of the chip."""
    with torch.random.fork_rng():
        torch.manual_seed(2)
        network = nn.Sequential(nn.Linear(300, 20)).eval()
    ideal = {"adc_bits": "ideal", "dac_bits": "ideal", "ir_drop": 0.0}
    on = device(name, QUIET | ideal, {"max_rows": 160})
    chip = program(network, on, input_ranges={"0": 1.0}, engine="aihwkit").drift_to(0.0)
    tiles = [tile.aihwkit_tile for tile in chip.network.arrays]
    before = [tile.rpu_config.drift_compensation.init_baseline(tile) for tile in tiles]
    chip.drift_to(YEAR)
    alphas = chip.compensation()["0"]
    assert float(alphas.min()) > 1.5
    for tile, reference, alpha in zip(tiles, before, alphas, strict=True):
        read = tile._forward_drift_readout_tensor()
        own = tile.rpu_config.drift_compensation.apply(read, reference)
        torch.testing.assert_close(alpha, own.squeeze(), rtol=1e-5, atol=0)


@pytest.mark.slow
def test_one_trace_serves_all_chips_times_and_peripheries(images, monkeypatch):
    """Counted by torch itself; outputs as step by step."""
    if kernels.library() is None:
        pytest.skip("no C compiler here, torch.compile needs one")
    from torch._dynamo.utils import counters

    monkeypatch.setattr(network_module, "LONG_JOB", 0)
    torch.compiler.reset()
    counters.clear()
    network = nn.Sequential(nn.Conv2d(1, 3, 3), nn.ReLU(), nn.Flatten(), nn.Linear(108, 4)).eval()
    for name, seed in ((HWA, 0), (HWA, 1), (ABS_MAX, 0)):
        kwargs = {"calibration": images, "engine": "compiled", "seed": seed}
        traced = program(network, device(name, {}, SMALL), expected_images=1, **kwargs)
        plain = program(network, device(name, {}, SMALL), **kwargs)
        for t in (0.0, DAY):
            for first in (0, 100):
                found = traced.drift_to(t)(images, first_index=first)
                expected = plain.drift_to(t)(images, first_index=first)
                torch.testing.assert_close(found, expected, rtol=0, atol=1e-6)
    assert counters["stats"]["unique_graphs"] == 1


def test_the_compiled_engine_supports_every_key_of_the_periphery():
    assert set(Periphery.model_fields) == network_module._PERIPHERY
    for name in (HWA, ABS_MAX):
        assert choose_engine(load_device(name)) == "compiled"
        with pytest.raises(ValueError, match=rf"{name}.*every input vector.*fp32 only.*'bf16'"):
            program(nn.Linear(2, 2), name, precision="bf16")


@pytest.mark.slow
def test_chips_are_as_accurate_as_on_the_tile(tmp_path):
    """20 chips, 359 images: KS test of counts, t test of the same chips' differences, 1e-6 each.

    The differences of a chip between engines spread by about 4 images, so that a difference of the
    means of 2 % of the images would be found.
    """
    checkpoint = train(TrainingSpec(epochs=1), tmp_path)
    for name in (HWA, ABS_MAX):
        counts = {}
        for engine in ("aihwkit", "compiled"):
            study = Study("s", [checkpoint], [name], [DAY], n_chips=20, engine=engine)
            rows = collect(study, tmp_path / f"{name}-{engine}").sort_values("chip")
            counts[engine] = rows["n_correct"].to_numpy()
        assert counts["compiled"].std() > 0
        assert stats.ks_2samp(*counts.values()).pvalue > FALSE_ALARM
        assert stats.ttest_rel(*counts.values()).pvalue > FALSE_ALARM


@pytest.mark.slow
def test_sources_are_axes_and_rows_say_what_a_seed_repeats(tmp_path):
    """All off is the programmed state; each source alone changes outputs, on both engines."""
    checkpoint = train(TrainingSpec(epochs=1), tmp_path)
    off = {"programming_noise_scale": [0.0], "read_noise_1f_scale": [0.0], "drift_scale": [0.0]}
    off |= {"output_noise": [0.0]}
    tables = []
    for number, (sweep, value) in enumerate((("mvm_read_noise", 2.0), ("ir_drop", 2000.0))):
        other = {"mvm_read_noise": "ir_drop", "ir_drop": "mvm_read_noise"}[sweep]
        axes = off | {other: [0.0], sweep: [0.0, value]}
        for engine in ("aihwkit", "compiled"):
            study = Study("s", [checkpoint], [HWA], [1.0], axes=axes, engine=engine, n_test=200)
            folder = tmp_path / f"{number}-{engine}"
            rows = collect(study, folder)
            tables.append(
                rows.assign(sweep=sweep, is_on=rows["condition"].str.contains(str(value)))
            )
    trials = pd.concat(tables)
    at_rest = trials[~trials["is_on"]]
    assert at_rest["n_correct"].nunique() == 1
    assert (trials[trials["is_on"]]["n_correct"] < at_rest["n_correct"].iloc[0]).all()
    from_the_clock = (trials["engine"] == "aihwkit") & (trials["sweep"] == "mvm_read_noise")
    from_the_clock &= trials["is_on"]
    assert (trials["reproducible"] == ~from_the_clock).all()
    assert tiles_module.draws_from_the_clock(load_device(HWA))
