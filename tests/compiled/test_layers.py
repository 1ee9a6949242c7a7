"""Claims about the compiled engine: aihwkit's torch tile as the oracle, layer by layer."""

from functools import partial

import pytest
import torch
from scipy import stats
from torch import nn

from analog_samson import load_device, program
from analog_samson.analog import TiledNetwork
from analog_samson.chip import choose_engine
from analog_samson.compiled import FunctionalLayer, FunctionalNetwork, kernels, operations
from analog_samson.compiled import network as network_module
from analog_samson.models import build_model, input_ranges
from analog_samson.streams import derive_seed
from analog_samson.times import DAY, YEAR

SEEDS = partial(derive_seed, 1)
FALSE_ALARM = 1e-6


def device(name="pcm_like", periphery=(), mapping=(), compensation=None):
    content = load_device(name).model_dump()
    content["periphery"].update(periphery)
    content["mapping"].update(mapping)
    if compensation:
        content["drift_compensation"]["kind"] = compensation
    return type(load_device(name)).model_validate(content)


QUIET = {"output_noise": 0.0}
SMALL = {"max_rows": 40, "max_columns": 7}

LAYERS = {
    "linear": (lambda: nn.Linear(100, 20), (100,)),
    "linear on tokens": (lambda: nn.Linear(100, 20), (5, 100)),
    "conv": (lambda: nn.Conv2d(12, 20, 3, padding=1), (12, 9, 9)),
    "conv of one channel": (lambda: nn.Conv2d(1, 6, 5, padding=2, bias=False), (1, 12, 12)),
    "conv, strides": (lambda: nn.Conv2d(12, 20, (3, 2), (2, 1), (1, 0), bias=False), (12, 9, 8)),
    "conv, dilated": (lambda: nn.Conv2d(12, 8, 3, padding=2, dilation=2), (12, 9, 9)),
    "conv, pointwise": (lambda: nn.Conv2d(64, 10, 1, stride=2), (64, 6, 6)),
    "conv of one dimension": (lambda: nn.Conv1d(12, 20, 3, padding=1), (12, 9)),
    "conv, groups": (lambda: nn.Conv2d(12, 20, 3, padding=1, groups=4), (12, 9, 9)),
    "conv, depthwise": (lambda: nn.Conv2d(12, 12, 3, padding=1, groups=12), (12, 9, 9)),
    "conv of one dimension, depthwise": (
        lambda: nn.Conv1d(12, 12, 3, padding=1, groups=12, bias=False),
        (12, 9),
    ),
}
PERIPHERIES = {
    "ideal": device("ideal"),
    "converters": device(periphery=QUIET),
    "6 and 5 bits": device(periphery={**QUIET, "dac_bits": 6, "adc_bits": 5, "output_bound": 3}),
    "DAC alone": device(periphery={**QUIET, "adc_bits": "ideal"}),
    "ADC alone": device(periphery={**QUIET, "dac_bits": "ideal"}),
    "scale of the tile": device(periphery=QUIET, mapping={"scale": "tile"}),
}


def on_both(layer, example, on, seed=3):
    """The layer on tiles and on compiled arrays, with the inputs of its calibration."""
    network = nn.Sequential(layer).eval()
    ranges = input_ranges(network, example)
    chips = [
        program(network, on, seed=seed, calibration=example, engine=engine)
        for engine in ("aihwkit", "compiled")
    ]
    return *chips, ranges["0"]


def assert_equal_but_for_ties(own, oracle, n_steps_allowed=1.01, *, largest_step):
    """Equal to 1e-5 of the largest output, except rounding ties of one ADC step (share < 1e-3).

    One tie is allowed where there are fewer than 1000 outputs.
    """
    error = (own - oracle).abs()
    differs = error > 1e-5 * oracle.abs().max()
    assert int(differs.sum()) <= max(1, differs.numel() // 1000)
    assert float(error.max()) <= n_steps_allowed * largest_step


@pytest.mark.slow
@pytest.mark.parametrize("mapping", [{}, SMALL], ids=["one array", "split"])
@pytest.mark.parametrize("periphery", PERIPHERIES)
@pytest.mark.parametrize("kind", LAYERS)
def test_a_layer_computes_what_its_aihwkit_tiles_compute(kind, periphery, mapping):
    on = PERIPHERIES[periphery]
    on = on.model_copy(update={"mapping": on.mapping.model_copy(update=mapping)})
    make, shape = LAYERS[kind]
    with torch.random.fork_rng():
        torch.manual_seed(5)
        layer, example = make(), torch.randn(40, *shape)
    tile, own, input_range = on_both(layer, example, on)
    for t in () if periphery == "ideal" else (0.0, DAY, YEAR):
        tile.drift_to(t)
        own.drift_to(t)
        assert torch.equal(tile.weights()["0"], own.weights()["0"])
        assert torch.equal(tile.compensation()["0"], own.compensation()["0"])
    step = 0.0
    if on.periphery.adc_bits != "ideal":
        largest = float(layer.weight.detach().abs().max() * own.compensation()["0"].max())
        step = 2 * on.periphery.output_bound / (2**on.periphery.adc_bits - 2)
        step *= input_range * largest
    tolerance = 1e-5 * float(tile(example).abs().max())
    assert_equal_but_for_ties(own(example), tile(example), largest_step=step + tolerance)


@pytest.mark.parametrize("compensation", ["none", "global", "per_column"])
@pytest.mark.parametrize("name", ["pcm_like", "pcm_hermes", "reram_cmo"])
def test_weights_and_factors_are_those_of_the_tiles_to_the_bit(name, compensation):
    on = device(name, mapping=SMALL, compensation=compensation)
    network = build_model("lenet5", image_shape=(1, 8, 8), n_classes=10, seed=0).eval()
    tile, own = (program(network, on, seed=4, engine=engine) for engine in ("aihwkit", "compiled"))
    for t in (0.0, DAY, YEAR):
        for of in ("weights", "compensation"):
            expected, found = (getattr(chip.drift_to(t), of)() for chip in (tile, own))
            assert list(found) == list(expected)
            assert all(torch.equal(found[layer], expected[layer]) for layer in expected)


@pytest.mark.parametrize(("model", "shape"), [("lenet5", (1, 28, 28)), ("resnet20", (3, 32, 32))])
def test_whole_networks_with_an_ideal_periphery_are_equal(model, shape):
    network = build_model(model, image_shape=shape, n_classes=10, seed=0).eval()
    images = torch.rand(8, *shape, generator=torch.Generator().manual_seed(0))
    on = device(periphery={**QUIET, "dac_bits": "ideal", "adc_bits": "ideal"} | {
        "output_bound": float("inf")
    })  # fmt: skip
    tile, own = (
        program(network, on, seed=2, engine=engine).drift_to(YEAR)(images)
        for engine in ("aihwkit", "compiled")
    )
    torch.testing.assert_close(own, tile, rtol=0, atol=1e-4 * float(tile.abs().max()))


def test_forward_noise_has_the_mean_and_spread_of_the_tile():
    """n = 4000 draws of 12 outputs: z test of means, F test of variances, 1e-6 over all."""
    n = 4000
    with torch.random.fork_rng():
        torch.manual_seed(5)
        layer, example = nn.Linear(90, 12), torch.randn(1, 90)
    tile, own, _ = on_both(layer, example, device(mapping={"max_rows": 50}))
    images = example.expand(n, -1)
    expected, found = tile(images).double(), own(images).double()
    alarm = FALSE_ALARM / 24
    error = (expected.var(0) / n + found.var(0) / n).sqrt()
    z = (found.mean(0) - expected.mean(0)) / error
    assert float(z.abs().max()) < stats.norm.isf(alarm / 2)
    ratio = float((found.var(0) / expected.var(0)).log().abs().max().exp())
    assert ratio < stats.f.isf(alarm / 2, n - 1, n - 1)
    assert float(found.std(0).min()) > 0


def test_threefry_gives_the_published_words():
    """Test vectors of Random123 (Salmon et al., 2011)."""
    known = {
        (0, 0, 0, 0): (0x6B200159, 0x99BA4EFE),
        (0xFFFFFFFF,) * 4: (0x1CB996FC, 0xBB002BE7),
        (0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344): (0xC4923A9C, 0x483DF7A0),
    }
    for (counter0, counter1, key0, key1), words in known.items():
        found = operations.threefry2x32(
            key0 | key1 << 32, torch.tensor(counter0), torch.tensor(counter1)
        )
        assert tuple(int(word) for word in found) == words


def draw(n, key, image=0):
    library = kernels.library()
    if library is None:
        return operations.normals(key, image, (1, n), torch.device("cpu"))[0]
    out = torch.empty(n)
    library.normals(out.data_ptr(), n, key, image)
    return out


@pytest.mark.parametrize("n", [1, 2, 31, 1000, 100_001])
def test_the_c_library_and_torch_draw_the_same(n):
    if kernels.library() is None:
        pytest.skip("no C compiler here")
    for key, image in ((0, 0), (2**63 - 1, 9999), (derive_seed("a"), 12)):
        torch_draw = operations.normals(key, image, (1, n), torch.device("cpu"))[0]
        torch.testing.assert_close(draw(n, key, image), torch_draw, rtol=1e-5, atol=2e-6)


@pytest.mark.slow
def test_noise_is_normal_in_its_middle_and_its_tails():
    """n = 2**22: Kolmogorov-Smirnov, moments to the sixth, counts beyond 4 and 5 sigma."""
    n = 2**22
    noise = torch.cat([draw(2**16, derive_seed("normal"), image) for image in range(n // 2**16)])
    noise = noise.double().numpy()
    assert stats.kstest(noise, "norm").pvalue > FALSE_ALARM
    moments = {1: (0, 1), 2: (1, 2), 3: (0, 15), 4: (3, 96), 6: (15, 10170)}
    limit = stats.norm.isf(FALSE_ALARM / 2)
    for power, (mean, variance) in moments.items():
        assert abs((noise**power).mean() - mean) < limit * (variance / n) ** 0.5, power
    for sigmas in (4, 5):
        expected = 2 * n * stats.norm.sf(sigmas)
        count = int((abs(noise) > sigmas).sum())
        low, high = stats.poisson.interval(1 - FALSE_ALARM, expected)
        assert low <= count <= high


def test_neighbouring_keys_images_and_outputs_are_uncorrelated():
    """n = 2**18 a pair: |r| sqrt(n) is a standard normal; also of squares."""
    n = 2**18
    base = draw(n, 12345)
    neighbours = {
        "key + 1": draw(n, 12346),
        "key + 2**32": draw(n, 12345 + 2**32),
        "next image": draw(n, 12345, 1),
        "next output": base.roll(1),
        "other half": base.roll(n // 2),
    }
    limit = stats.norm.isf(FALSE_ALARM / len(neighbours) / 4)
    for what, other in neighbours.items():
        for a, b in ((base, other), (base**2, other**2)):
            r = float(torch.corrcoef(torch.stack([a, b]).double())[0, 1])
            assert abs(r) * n**0.5 < limit, what


class TinyResidual(nn.Module):
    """Own forward code, a `view`, one layer that is used twice."""

    def __init__(self):
        super().__init__()
        self.first = nn.Conv2d(1, 6, 3, padding=1)
        self.twice = nn.Conv2d(6, 6, 3, padding=1)
        self.head = nn.Linear(6 * 64, 10)

    def forward(self, x):
        x = torch.relu(self.first(x))
        x = x + torch.relu(self.twice(x))
        x = x + torch.relu(self.twice(x))
        return self.head(x.view(x.size(0), -1))


@pytest.fixture(scope="module")
def images():
    return torch.rand(150, 1, 8, 8, generator=torch.Generator().manual_seed(1))


@pytest.fixture(scope="module")
def residual():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return TinyResidual().eval()


def test_batches_threads_and_order_change_nothing_but_the_last_bits(residual, images):
    chip = program(residual, "pcm_like", calibration=images, engine="compiled").drift_to(DAY)
    whole = chip(images)
    parts = {a: chip(images[a:b], first_index=a) for a, b in ((64, 150), (0, 1), (1, 64))}
    torch.set_num_threads(2)
    try:
        two_threads = chip(images)
    finally:
        torch.set_num_threads(1)
    for other in (torch.cat([parts[a] for a in sorted(parts)]), two_threads):
        assert float(((other - whole).abs() > 1e-5 * whole.abs().max()).double().mean()) < 1e-3
    moved = chip(images, first_index=1)
    assert float((moved - whole).abs().mean()) > 1e-3 * float(whole.abs().mean())


def test_a_layer_used_twice_draws_other_noise_the_second_time():
    """The same inputs twice in one pass; the first time as in a network that uses it once."""

    class Uses(nn.Module):
        def __init__(self, layer, n):
            super().__init__()
            self.layer, self.n = layer, n

        def forward(self, x):
            return torch.stack([self.layer(x) for _ in range(self.n)], dim=1)

    with torch.random.fork_rng():
        torch.manual_seed(0)
        layer = nn.Linear(64, 64)
    example = torch.randn(50, 64, generator=torch.Generator().manual_seed(1))
    once, twice = (
        program(Uses(layer, n), "pcm_like", calibration=example, engine="compiled")(example)
        for n in (1, 2)
    )
    assert torch.equal(twice[:, 0], once[:, 0])
    assert float((twice[:, 1] - twice[:, 0]).abs().mean()) > 0


def test_noise_of_tokens_belongs_to_their_image(images):
    """A network that folds windows into the batch: an image's noise is that of its own number."""

    class Windows(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Linear(16, 5)

        def forward(self, x):
            return self.layer(x.reshape(-1, 16)).view(len(x), -1)

    chip = program(Windows().eval(), "pcm_like", calibration=images, engine="compiled")
    torch.testing.assert_close(
        chip(images)[100:], chip(images[100:], first_index=100), rtol=0, atol=1e-6
    )
    same = chip(images[:1].expand(50, -1, -1, -1))
    assert len(torch.unique(same[:, 0])) > 1


@pytest.mark.parametrize("groups", [2, 12])
@pytest.mark.parametrize("on", ["ideal", "converters"])
def test_a_grouped_convolution_is_separate_convolutions_on_aihwkit_tiles(groups, on):
    on = PERIPHERIES[on].model_copy(
        update={"mapping": PERIPHERIES[on].mapping.model_copy(update={"max_rows": 20})}
    )
    with torch.random.fork_rng():
        torch.manual_seed(2)
        layer = nn.Conv2d(12, 24, 3, padding=1, groups=groups).eval()
        x = torch.randn(10, 12, 7, 7)
    input_range = float(x.abs().max()) * 0.9
    grouped = FunctionalLayer("g", layer, on, input_range)
    n_in, n_out = 12 // groups, 24 // groups
    outputs = []
    for group in range(groups):
        alone = nn.Conv2d(n_in, n_out, 3, padding=1)
        with torch.no_grad():
            alone.weight.copy_(layer.weight[group * n_out : (group + 1) * n_out])
            alone.bias.copy_(layer.bias[group * n_out : (group + 1) * n_out])
        tiled = TiledNetwork(nn.Sequential(alone), on, (), {"0": input_range})
        inputs = x[:, group * n_in : (group + 1) * n_in]
        outputs.append(tiled.forward(inputs, 0, SEEDS))
    with torch.no_grad():
        grouped.prepare(len(x), 0, SEEDS)
        own = grouped(x)
    assert all(len(array.target) == groups for array in grouped.arrays)
    oracle = torch.cat(outputs, dim=1)
    step = input_range * float(layer.weight.detach().abs().max()) * 20 / 254
    assert_equal_but_for_ties(own, oracle, largest_step=step)


def test_a_convolution_of_sequences_is_one_of_flat_images():
    with torch.random.fork_rng():
        torch.manual_seed(2)
        flat = nn.Sequential(nn.Conv2d(6, 9, (1, 5), stride=(1, 2), padding=(0, 2))).eval()
        x = torch.randn(20, 6, 1, 30)
    line = nn.Sequential(nn.Conv1d(6, 9, 5, stride=2, padding=2)).eval()
    with torch.no_grad():
        line[0].weight.copy_(flat[0].weight[:, :, 0])
        line[0].bias.copy_(flat[0].bias)
    on, ranges = device(periphery=QUIET, mapping={"max_rows": 20}), {"0": 2.5}
    one, two = (FunctionalNetwork(n, on, (), ranges) for n in (line, flat))
    found, expected = one.forward(x[:, :, 0], 0, SEEDS), two.forward(x, 0, SEEDS)[:, :, 0]
    assert float(((found - expected).abs() > 1e-5).double().mean()) < 1e-3


@pytest.mark.parametrize("engine", ["aihwkit", "compiled"])
def test_a_convolution_of_one_dimension_is_that_of_the_digital_network(images, engine):
    network = nn.Sequential(nn.Flatten(2), nn.Conv1d(1, 2, 3), nn.Flatten(), nn.Linear(124, 3))
    with torch.no_grad():
        torch.testing.assert_close(
            program(network.eval(), "ideal", engine=engine)(images),
            network(images),
            rtol=1e-5,
            atol=1e-6,
        )


def test_bf16_is_close_and_says_so(residual, images):
    exact, coarse = (
        program(residual, "ideal", engine="compiled", precision=p) for p in ("fp32", "bf16")
    )
    assert coarse.precision == "bf16"
    difference = (exact(images) - coarse(images)).abs().max()
    assert float(difference) < 0.03 * float(exact(images).abs().max())
    with pytest.raises(ValueError, match=r"aihwkit engine has no precision 'bf16'.*fp32"):
        program(residual, "ideal", engine="aihwkit", precision="bf16")


def test_the_engine_is_chosen_by_the_device():
    assert choose_engine(load_device("pcm_like")) == "compiled"
    assert choose_engine(load_device("pcm_like"), "aihwkit") == "aihwkit"
    own_path = load_device("pcm_like_as_in_aihwkit")
    assert choose_engine(own_path) == "aihwkit"
    with pytest.raises(
        ValueError, match=r"cannot run device 'pcm_like_as_in_aihwkit'.*weight-level path"
    ):
        choose_engine(own_path, "compiled")
    with pytest.raises(ValueError, match=r"Unknown engine 'fast'.*'compiled'"):
        choose_engine(own_path, "fast")


@pytest.mark.slow
def test_one_trace_serves_all_chips_times_and_checkpoints(images, monkeypatch):
    """Counted by torch itself; outputs as in eager execution."""
    if kernels.library() is None:
        pytest.skip("no C compiler here, torch.compile needs one")
    from torch._dynamo.utils import counters

    monkeypatch.setattr(network_module, "LONG_JOB", 0)
    counters.clear()
    on = device(mapping={"max_rows": 40})
    for seed in (0, 1):
        network = build_model(
            "mlp", image_shape=(1, 8, 8), n_classes=10, seed=seed, hidden=(16,)
        ).eval()
        kwargs = {"calibration": images, "engine": "compiled", "seed": seed}
        traced = program(network, on, expected_images=1, **kwargs)
        plain = program(network, on, **kwargs)
        for t in (0.0, DAY):
            for first in (0, 100):
                found = traced.drift_to(t)(images, first_index=first)
                expected = plain.drift_to(t)(images, first_index=first)
                differs = (found - expected).abs() > 1e-5 * expected.abs().max()
                assert float(differs.double().mean()) < 1e-3
    assert counters["stats"]["unique_graphs"] == 1


def test_a_network_that_cannot_be_traced_falls_back_to_eager_execution(images, monkeypatch, caplog):
    class DataDependent(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Linear(64, 10)

        def forward(self, x):
            x = self.layer(x.flatten(1))
            return x if float(x.sum().item()) > 1e9 else -x

    monkeypatch.setattr(network_module, "LONG_JOB", 0)
    network = DataDependent().eval()
    chip = program(network, "ideal", engine="compiled", expected_images=1)
    with torch.no_grad():
        torch.testing.assert_close(chip(images), network(images), rtol=1e-5, atol=1e-6)
    assert "falling back to eager execution" in caplog.text


def test_a_compiler_that_fails_is_said(tmp_path, monkeypatch, caplog):
    compiler = tmp_path / "cc"
    compiler.write_text("#!/bin/sh\necho 'unknown flag' >&2\nexit 1\n")
    compiler.chmod(0o755)
    monkeypatch.setenv("CC", str(compiler))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert kernels.library.__wrapped__() is None
    assert "torch operations are used instead" in caplog.text and "unknown flag" in caplog.text


def test_without_a_compiler_the_numbers_are_the_same(residual, images, monkeypatch):
    chip = program(residual, "pcm_like", calibration=images, engine="compiled").drift_to(DAY)
    built = chip(images)
    monkeypatch.setattr(kernels, "library", lambda: None)
    other = chip(images)
    differs = (other - built).abs() > 1e-4 * built.abs().max()
    assert float(differs.double().mean()) < 5e-3
