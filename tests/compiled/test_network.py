"""Claims about whole networks on the compiled engine: groups, layouts, tracing, noise, devices."""

import itertools
import sys
from dataclasses import replace
from functools import partial

import pandas as pd
import pytest
import torch
from torch import Tensor, nn

from analog_samson import Study, collect, load_device, program
from analog_samson.checkpoint import TrainingSpec
from analog_samson.compiled import FunctionalNetwork, few_channels, is_traced_for, kernels
from analog_samson.compiled import network as network_module
from analog_samson.compiled.operations import Converter
from analog_samson.models import analog_layers, build_model
from analog_samson.times import DAY, YEAR
from analog_samson.training import train

CONVERTERS = {"dac_bits": 8, "adc_bits": 8, "output_bound": 10.0, "output_noise": 0.0}


def device(name="pcm_like", **periphery):
    content = load_device(name).model_dump()
    content["periphery"].update(periphery)
    return type(load_device(name)).model_validate(content)


def build(factory):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return factory().eval()


def random_images(n, *shape, seed=1):
    return torch.rand(n, *shape, generator=torch.Generator().manual_seed(seed))


# groups


class Grouped(nn.Module):
    """A stem, a convolution in groups of channels, pooling, a head."""

    def __init__(self, groups: int) -> None:
        super().__init__()
        self.stem = nn.Conv2d(1, 12, 3, padding=1)
        self.filter = nn.Conv2d(12, 24, 3, padding=1, groups=groups)
        self.head = nn.Linear(24, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.filter(torch.relu(self.stem(x))))
        return self.head(x.mean(dim=(2, 3)))


class Split(nn.Module):
    """The same with a convolution of its own for every group."""

    def __init__(self, whole: Grouped) -> None:
        super().__init__()
        self.stem, self.head = whole.stem, whole.head
        groups = whole.filter.groups
        parts = []
        for weight, bias in zip(
            whole.filter.weight.chunk(groups), whole.filter.bias.chunk(groups), strict=True
        ):
            part = nn.Conv2d(12 // groups, 24 // groups, 3, padding=1)
            with torch.no_grad():
                part.weight.copy_(weight)
                part.bias.copy_(bias)
            parts.append(part)
        self.filters = nn.ModuleList(parts)

    def forward(self, x: Tensor) -> Tensor:
        pieces = torch.relu(self.stem(x)).chunk(len(self.filters), dim=1)
        x = torch.cat([f(piece) for f, piece in zip(self.filters, pieces, strict=True)], dim=1)
        return self.head(torch.relu(x).mean(dim=(2, 3)))


@pytest.mark.parametrize("converters", [{}, CONVERTERS], ids=["ideal", "converters"])
@pytest.mark.parametrize("groups", [3, 12])
def test_groups_are_separate_convolutions_on_aihwkit_tiles(groups, converters):
    """Noise off. With converters up to 1 in 1000 outputs may differ by a rounding tie."""
    whole = build(lambda: Grouped(groups))
    split = Split(whole).eval()
    images = random_images(40, 1, 8, 8)
    on = device("ideal", **converters)
    ranges = {"stem": 1.0, "filter": 1.5, "head": 1.0}
    of_parts = ranges | {f"filters.{group}": 1.5 for group in range(groups)}
    own = program(whole, on, input_ranges=ranges, engine="compiled")
    tiles = program(split, on, input_ranges=of_parts, engine="aihwkit")
    assert len(own.compensation()["filter"]) == groups
    largest = float(tiles(images).abs().max())
    differs = (own(images) - tiles(images)).abs() > 1e-5 * largest
    assert int(differs.any(dim=1).sum()) <= (2 if converters else 0)


def test_aihwkits_own_path_programs_the_arrays_of_every_group():
    chip = program(build(lambda: Grouped(12)), "pcm_like_as_in_aihwkit")
    factors = chip.drift_to(3600.0).compensation()["filter"]
    assert len(factors) == len(set(factors.tolist())) == 12


FACTORY = """
from torch import nn
def build():
    return nn.Sequential(
        nn.Conv2d(1, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(),
        nn.Conv2d(8, 8, 3, stride=2, padding=1, groups=8), nn.BatchNorm2d(8), nn.ReLU(),
        nn.Conv2d(8, 16, 1), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, 10),
    )
"""


def test_a_network_with_depthwise_layers_runs_from_training_to_report(tmp_path, monkeypatch):
    (tmp_path / "depthwise_for_a_test.py").write_text(FACTORY)
    monkeypatch.syspath_prepend(tmp_path)
    spec = TrainingSpec(dataset="digits", model="depthwise_for_a_test:build", epochs=2, lr=0.05)
    try:
        checkpoint = train(spec, tmp_path)
        study = Study(
            "line",
            [checkpoint],
            ["pcm_like"],
            [1.0, YEAR],
            n_chips=2,
            n_test=100,
            trust=["depthwise_for_a_test"],
        )
        rows = collect(study, tmp_path / "study")
        tiles = Study(
            "tiles", [checkpoint], ["ideal"], [1.0], n_chips=1, n_test=100, engine="aihwkit"
        )
        ideal = collect(replace(tiles, trust=study.trust), tmp_path / "tiles")
        assert set(ideal["n_correct"]) == set(ideal["n_correct_digital"])
        of_tiles = pd.read_csv(tmp_path / "tiles" / "audit.csv", dtype={"layer": str})
        assert int(of_tiles.set_index("layer").loc["3", "n_arrays"]) == 8
    finally:
        sys.modules.pop("depthwise_for_a_test", None)
    assert set(rows["engine"]) == {"compiled"} and set(rows["analog_share"]) == {1.0}
    assert rows["n_correct"].between(0, 100).all() and rows["n_correct"].nunique() > 1
    layers = pd.read_csv(tmp_path / "study" / "audit.csv", dtype={"layer": str}).set_index("layer")
    filtered = layers.loc["3"]
    assert filtered[["n_arrays", "array_rows", "array_columns"]].tolist() == [8, 9, 1]


# what cannot be run


def test_an_unknown_kind_of_layer_is_named_and_can_stay_digital():
    network = nn.Sequential(nn.Linear(64, 16), nn.Unflatten(1, (16, 1)), nn.Conv1d(16, 4, 1))
    network.extend([nn.Unflatten(2, (1, 1, 1)), nn.ConvTranspose3d(4, 2, 3)])
    images = random_images(5, 64)
    with pytest.raises(ValueError, match=r"'4' \(ConvTranspose3d\): .*keep_digital=\['4'\]"):
        program(network, "ideal", engine="compiled")
    chip = program(network, "ideal", engine="compiled", keep_digital=["4"])
    with torch.no_grad():
        torch.testing.assert_close(chip(images), network(images), rtol=1e-5, atol=1e-6)


# layout


class Pooled(nn.Module):
    """LeNet-like; pools as it is told."""

    def __init__(self, pool) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(1, 6, 3, padding=1), nn.Conv2d(6, 16, 3)
        self.head = nn.Linear(16 * 4, 10)
        self.pool = pool

    def forward(self, x: Tensor) -> Tensor:
        x = self.pool(torch.relu(self.first(x)))
        return self.head(torch.relu(self.second(x)).flatten(1))


def every_second(x: Tensor) -> Tensor:
    return x[..., ::2, ::2]


@pytest.mark.parametrize(
    ("pool", "is_torchs"),
    [(every_second, False), (nn.MaxPool2d(2), False), (nn.MaxPool2d(3, 2, padding=1), True)],
    ids=["slices", "halves", "torch pools"],
)
def test_networks_of_few_channels_compute_the_same_in_whichever_layout_is_fast(pool, is_torchs):
    if kernels.library() is None:
        is_torchs = isinstance(pool, nn.Module)
    network = build(lambda: Pooled(pool))
    images = random_images(30, 1, 8, 8)
    on = device("ideal", **CONVERTERS)
    own, tile = (
        program(network, on, calibration=images, engine=engine, expected_images=10**9)
        for engine in ("compiled", "aihwkit")
    )
    network = own.network
    with network.eager(images[:1], lambda *words: 0):
        assert network.execution.channels_last == is_torchs
        assert network.execution.has_few_channels != is_torchs
        found = own(images)
    differs = (found - tile(images)).abs() > 1e-5 * float(tile(images).abs().max())
    assert int(differs.any(dim=1).sum()) <= 2


@pytest.mark.parametrize("shape", [(3, 4, 14, 10), (2, 1, 2, 2), (70, 2, 6, 68), (2, 3, 5, 4)])
def test_max_pool_2x2_pools_as_torch_does_and_hides_no_nan(shape):
    x = random_images(*shape) - 0.5
    x[0, 0, 0, 1] = x[-1, -1, -2, -2] = torch.nan
    with torch.no_grad():
        found = few_channels.MaxPool2x2()(x)
    assert torch.equal(found.nan_to_num(9), nn.functional.max_pool2d(x, 2).nan_to_num(9))
    assert int(found.isnan().sum()) == 2


# tracing


@pytest.mark.parametrize(
    ("model", "n_images", "is_traced"),
    [("ds_cnn", 600, True), ("ds_cnn", 60, False), ("mobilenet_v2", 10_000, True),
     ("resnet20", 100, False), ("lenet5", 10_000, False)],
)  # fmt: skip
def test_chips_are_traced_where_it_pays_back_and_the_audit_says_the_same(
    model, n_images, is_traced
):
    """At 0.6 ns an output, within 40 reads of one network."""
    if kernels.library() is None:
        pytest.skip("no C compiler here")
    shape = {"ds_cnn": (1, 40, 64), "lenet5": (1, 28, 28)}.get(model, (3, 32, 32))
    network = build_model(model, image_shape=shape, n_classes=10, seed=0).eval()
    image, ranges = torch.rand(1, *shape), dict.fromkeys(analog_layers(network, ()), 1.0)
    on = load_device("pcm_like")
    assert is_traced_for(network, on, image, (), n_images, ranges) == is_traced
    chip = FunctionalNetwork(network, on, input_ranges=ranges, expected_images=n_images)
    with chip.eager(image, lambda *words: 0):
        assert chip.execution.is_traced == is_traced


@pytest.mark.slow
def test_one_process_traces_any_number_of_structures(monkeypatch, caplog):
    if kernels.library() is None:
        pytest.skip("no C compiler here, torch.compile needs one")
    monkeypatch.setattr(network_module, "LONG_JOB", 0)
    images = random_images(3, 1, 8, 8)
    with torch._dynamo.config.patch(recompile_limit=2):
        for width in (17, 18, 19, 20):
            network = build(lambda width=width: nn.Sequential(nn.Conv2d(1, width, 3), nn.ReLU()))
            chip = program(network, device("ideal"), engine="compiled", expected_images=9)
            torch.testing.assert_close(chip(images), network(images), rtol=1e-5, atol=1e-5)
            assert chip.network.execution.is_traced
    assert "Tracing failed" not in caplog.text


@pytest.mark.slow
def test_values_of_a_swept_axis_share_one_trace(monkeypatch):
    if kernels.library() is None:
        pytest.skip("no C compiler here, torch.compile needs one")
    from torch._dynamo.utils import counters

    monkeypatch.setattr(network_module, "LONG_JOB", 0)
    counters.clear()
    network = build(lambda: nn.Sequential(nn.Conv2d(1, 21, 3), nn.ReLU()))
    images = random_images(3, 1, 8, 8)
    outputs = []
    for noise, bound in ((0.02, 10.0), (0.06, 10.0), (0.06, 0.5)):
        on = device(output_noise=noise, output_bound=bound)
        chip = program(network, on, calibration=images, engine="compiled", expected_images=9)
        outputs.append(chip(images))
    assert counters["stats"]["unique_graphs"] == 1
    assert not any(torch.equal(a, b) for a, b in itertools.combinations(outputs, 2))


@pytest.mark.slow
def test_the_second_chip_of_a_study_compiles_nothing(tmp_path, monkeypatch):
    """Graphs counted by torch: as many for three chips at two times as for the first."""
    if kernels.library() is None:
        pytest.skip("no C compiler here, torch.compile needs one")
    from torch._dynamo.utils import counters

    monkeypatch.setattr(network_module, "LONG_JOB", 0)
    options = {"hidden": [16]}
    checkpoints = [
        train(TrainingSpec(model_kwargs=options, epochs=0, seed=seed), tmp_path) for seed in (0, 1)
    ]
    counters.clear()
    counts = []
    for n_chips in (1, 3):
        study = Study("s", checkpoints, ["pcm_like"], [1.0, YEAR], n_chips=n_chips, n_test=150)
        rows = collect(study, tmp_path / "study")
        counts.append(counters["stats"]["unique_graphs"])
    assert len(rows) == 12 and set(rows["engine"]) == {"compiled"}
    assert counts == [1, 1]


# noise


def noise_of(first: int, n: int, innermost: bool) -> Tensor:
    """What the ADC adds to zeros, images first to first + n."""
    y = torch.zeros(n, 50, 6) if innermost else torch.zeros(n, 6, 50)
    stream = torch.tensor([first, 123456789])
    limits = torch.tensor([0.5, float("inf")])
    how = Converter(
        torch.ones(6), torch.zeros(6), limits, rounds=False, draws=True, innermost=innermost
    )
    with torch.no_grad():
        kernels.adc(y, None, how, stream, block=0, call=1)
    return y


@pytest.mark.parametrize("innermost", [True, False])
def test_draws_are_the_same_bits_for_batches_of_64_and_1000_any_threads_and_order(innermost):
    n = 1000
    whole = noise_of(0, n, innermost)
    assert float(whole.std()) > 0.4
    blocks = {first: min(64, n - first) for first in range(0, n, 64)}
    for n_threads, order in ((1, list(blocks)), (2, list(reversed(blocks)))):
        torch.set_num_threads(n_threads)
        try:
            parts = {first: noise_of(first, blocks[first], innermost) for first in order}
            again = noise_of(0, n, innermost)
        finally:
            torch.set_num_threads(1)
        assert torch.equal(torch.cat([parts[first] for first in sorted(parts)]), whole)
        assert torch.equal(again, whole)


@pytest.mark.parametrize("innermost", [True, False])
def test_torch_operations_and_the_c_library_agree_to_a_millionth(innermost, monkeypatch):
    if kernels.library() is None:
        pytest.skip("no C compiler here")
    built = noise_of(3, 40, innermost)
    monkeypatch.setattr(kernels, "library", lambda: None)
    torch.testing.assert_close(noise_of(3, 40, innermost), built, rtol=1e-6, atol=1e-6)


# devices


@pytest.mark.parametrize("name", ["ideal", "pcm_like", "pcm_like_hwa_preset"])
def test_a_forward_pass_leaves_no_tensor_on_the_cpu(name):
    """torch's "meta" device raises when mixed with tensors of another device, as a GPU does."""
    network = build(partial(build_model, "resnet8", image_shape=(3, 8, 8), n_classes=10))
    images = random_images(8, 3, 8, 8)
    chip = program(network, name, calibration=images, engine="compiled").drift_to(DAY)
    before = chip(images)
    programmed = {layer: weight.clone() for layer, weight in chip.weights().items()}
    out = chip.network.forward(images.to("meta"), 5, chip.forward_seeds)
    assert out.device.type == "meta" and out.shape == before.shape
    assert all(torch.equal(chip.weights()[layer], programmed[layer]) for layer in programmed)


# size


@pytest.mark.slow
def test_resnet18_gives_the_logits_of_aihwkits_tiles():
    network = build(partial(build_model, "resnet18", image_shape=(3, 16, 16), n_classes=10))
    images = random_images(2, 3, 16, 16)
    ideal = {"dac_bits": "ideal", "adc_bits": "ideal", "output_noise": 0.0}
    on = device(**ideal, output_bound=float("inf"))
    own, tile = (
        program(network, on, seed=2, engine=engine).drift_to(YEAR)(images)
        for engine in ("compiled", "aihwkit")
    )
    torch.testing.assert_close(own, tile, rtol=0, atol=1e-4 * float(tile.abs().max()))


@pytest.mark.parametrize(
    ("n_in", "n_out", "kernel", "padding", "size"),
    [
        (1, 6, (5, 5), (2, 2), (28, 28)),
        (1, 16, (3, 3), (0, 0), (7, 9)),
        (3, 13, (5, 3), (1, 2), (32, 31)),
        (4, 1, (1, 1), (0, 0), (3, 50)),
        (2, 7, (4, 2), (3, 1), (4, 2)),
    ],
)
def test_convolutions_of_few_channels_are_torchs(n_in, n_out, kernel, padding, size):
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(9, n_in, *size, generator=generator)
    weight = torch.randn(n_out, n_in, *kernel, generator=generator)
    bias = torch.randn(n_out, generator=generator)
    exact = nn.functional.conv2d(x.double(), weight.double(), bias.double(), padding=padding)
    with torch.no_grad():
        found = few_channels.convolve(x, weight, bias, padding)
        plain = few_channels.convolve(x, weight, None, padding) + bias[:, None, None]
        one_by_one = torch.cat(
            [few_channels.convolve(a, weight, bias, padding) for a in x.split(1)]
        )
        torch.set_num_threads(2)
        try:
            two_threads = few_channels.convolve(x, weight, bias, padding)
        finally:
            torch.set_num_threads(1)
    tolerance = 1e-6 * float(exact.abs().max())
    for own in (found, plain):
        torch.testing.assert_close(own.double(), exact, rtol=0, atol=tolerance)
    assert torch.equal(one_by_one, found) and torch.equal(two_threads, found)
