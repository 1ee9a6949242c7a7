"""Batched inference over chips: the oracle is each chip alone."""

from functools import partial

import pytest
import torch
from test_layers import LAYERS, SMALL, TinyResidual, assert_equal_but_for_ties, device
from test_network import Pooled, build, every_second, random_images
from torch import Tensor, nn

import analog_samson.chip
from analog_samson import load_device, program
from analog_samson.chip import ChipGroup, choose_engine, why_not_batched
from analog_samson.compiled import kernels, operations
from analog_samson.compiled import network as network_module
from analog_samson.models import build_model
from analog_samson.streams import derive_seed
from analog_samson.times import DAY, HOUR, YEAR

KINDS = LAYERS | {
    "conv of sequences": (lambda: nn.Conv1d(6, 9, 5, stride=2, padding=2), (6, 30)),
    "conv in groups": (lambda: nn.Conv2d(12, 24, 3, padding=1, groups=3), (12, 7, 7)),
    "conv, depthwise": (lambda: nn.Conv2d(12, 12, 3, bias=False, groups=12), (12, 7, 7)),
    "conv of sequences in groups": (lambda: nn.Conv1d(6, 12, 3, groups=2), (6, 20)),
}
PERIPHERIES = {
    "weight-only": device("ideal"),
    "drifting weights": device(
        periphery={"dac_bits": "ideal", "adc_bits": "ideal", "output_noise": 0.0}
        | {"output_bound": float("inf")}
    ),
    "converters": device(periphery={"output_noise": 0.0}),
    "noisy converters": device(),
    "read noise and IR drop": load_device("pcm_like_hwa_preset"),
    "managed bounds": load_device("pcm_like_abs_max"),
}


def group_of(network, on, images, n_chips=3, **options):
    return ChipGroup(
        [
            program(network, on, seed=seed, calibration=images, engine="compiled", **options)
            for seed in range(n_chips)
        ]
    )


def alone(group, images, first_index=0):
    return torch.stack([chip(images, first_index) for chip in group.chips])


@pytest.fixture(params=["C", "torch operations"])
def library(request, monkeypatch):
    """One after the other in C, and all at once in the operations that a GPU runs."""
    if request.param == "torch operations":
        monkeypatch.setattr(kernels, "library", lambda: None)
    elif kernels.library() is None:
        pytest.skip("no C compiler here")
    return request.param


@pytest.mark.slow
@pytest.mark.parametrize("mapping", [{}, SMALL], ids=["one array", "split"])
@pytest.mark.parametrize("periphery", PERIPHERIES)
@pytest.mark.parametrize("kind", KINDS)
def test_a_stacked_layer_equals_the_layer_of_each_chip(kind, periphery, mapping, monkeypatch):
    """All at once in torch operations; a step of the ADC may be decided otherwise by a tie."""
    monkeypatch.setattr(kernels, "library", lambda: None)
    on = PERIPHERIES[periphery]
    on = on.model_copy(update={"mapping": on.mapping.model_copy(update=mapping)})
    make, shape = KINDS[kind]
    images = random_images(9, *shape) - 0.3
    group = group_of(nn.Sequential(build(make)).eval(), on, images)
    if periphery != "weight-only":
        group.drift_to(DAY)
    expected, found = alone(group, images, 4), group(images, 4)
    step = float(expected.abs().max()) / 20
    for own, oracle in zip(found, expected, strict=True):
        assert_equal_but_for_ties(own, oracle, largest_step=step)
    if periphery != "weight-only":
        assert float((expected[0] - expected[1]).abs().max()) > 0


def a_network(name: str, shape: tuple[int, ...]) -> nn.Module:
    return build_model(name, image_shape=shape, n_classes=10)


NETWORKS = {
    "residual, a layer twice": (lambda shape: TinyResidual(), (1, 8, 8)),
    "ResNet-8": (partial(a_network, "resnet8"), (3, 12, 12)),
    "channels outermost": (lambda shape: Pooled(every_second), (1, 8, 8)),
    "LeNet-5": (partial(a_network, "lenet5"), (1, 28, 28)),
}


@pytest.mark.slow
@pytest.mark.parametrize("kind", NETWORKS)
@pytest.mark.parametrize("on", ["pcm_like", "pcm_like_hwa_preset"])
def test_a_stacked_network_equals_the_network_of_each_chip(kind, on, library):
    make, shape = NETWORKS[kind]
    images = random_images(12, *shape)
    group = group_of(build(partial(make, shape)), on, images)
    for time in (YEAR, 0.0, HOUR):
        group.drift_to(time)
        expected, found = alone(group, images, 30), group(images, 30)
        differs = (found - expected).abs() > 1e-5 * float(expected.abs().max())
        assert int(differs.any(dim=2).sum()) <= 1
    assert int(differs.numel()) == 3 * 12 * 10
    parts = torch.cat([group(images[:5], 30), group(images[5:], 35)], dim=1)
    assert int(((parts - found).abs() > 1e-5 * float(found.abs().max())).any(dim=2).sum()) <= 1


def test_a_chip_that_is_read_by_itself_is_used_as_read(library):
    images = random_images(6, 1, 8, 8)
    group = group_of(build(TinyResidual), "pcm_like", images).drift_to(HOUR)
    before = group(images)
    group.chips[1].drift_to(YEAR)
    after, expected = group(images), alone(group, images)
    assert torch.equal(after[0], before[0]) and not torch.equal(after[1], before[1])
    torch.testing.assert_close(after, expected, rtol=0, atol=1e-5 * float(expected.abs().max()))


def test_all_chips_draw_the_integers_they_draw_alone():
    keys = [derive_seed("chip", number) for number in range(5)] + [2**63 - 1, 0]
    together = torch.tensor(keys)
    counter, image = torch.arange(40), torch.arange(7, 19)[:, None]
    for call in (0, 1, 3):
        words = operations.threefry2x32(
            operations.key_of_call(together, call)[:, None, None], counter, image
        )
        for number, key in enumerate(keys):
            own = (key + call * 0x9E3779B97F4A7C15) % 2**64
            expected = operations.threefry2x32(own, counter, image)
            assert torch.equal(words[0][number], expected[0])
            assert torch.equal(words[1][number], expected[1])


@pytest.mark.slow
def test_one_trace_serves_all_groups_of_a_size(monkeypatch):
    """Graphs counted by torch: a second group adds none; outputs as in eager execution."""
    if kernels.library() is None:
        pytest.skip("no C compiler here, torch.compile needs one")
    from torch._dynamo.utils import counters

    monkeypatch.setattr(network_module, "LONG_JOB", 0)
    monkeypatch.setattr(kernels, "library", lambda: None)
    images = random_images(10, 8, 8, 8)
    network = build(lambda: nn.Sequential(nn.Conv2d(8, 16, 3), nn.Flatten(), nn.Linear(576, 10)))
    counts = []
    counters.clear()
    for seeds in ((0, 1), (2, 3)):
        made = [
            [
                program(network, "pcm_like", seed=seed, calibration=images, expected_images=n)
                for seed in seeds
            ]
            for n in (0, 10)
        ]
        step_by_step, traced = (ChipGroup(chips) for chips in made)
        for time in (HOUR, DAY):
            found = traced.drift_to(time)(images)
            counts.append(counters["stats"]["unique_graphs"])
            expected = step_by_step.drift_to(time)(images)
            differs = (found - expected).abs() > 1e-5 * float(expected.abs().max())
            assert int(differs.sum()) <= 1
    assert counts[0] > 0 and len(set(counts[1:])) == 1


@pytest.mark.slow
def test_noise_is_one_kernel_for_layers_of_all_shapes_or_none_if_none_can_be_built(
    monkeypatch, caplog
):
    """What a GPU runs, on this CPU: the same outputs, from two kernels at most."""
    if kernels.library() is None:
        pytest.skip("no C compiler here, torch.compile needs one")
    from torch._dynamo.utils import counters

    generator = torch.Generator().manual_seed(0)
    counters.clear()
    for n_chips, n_images, n in ((3, 20, 1024), (2, 7, 786), (5, 9, 10), (3, 6, 64)):
        y = torch.randn(n_chips, n_images, n, generator=generator)
        scale, offset = torch.rand(2, n_chips, n, generator=generator)
        keys = torch.tensor([derive_seed(number) for number in range(n_chips)])
        given = y, scale, offset, keys, torch.tensor(5), torch.tensor([0.5, 3.0]), True, True
        with torch.no_grad():
            found = operations.convert_operation(*given)
        torch.testing.assert_close(found, operations.convert(*given), rtol=1e-6, atol=1e-6)
    assert counters["stats"]["unique_graphs"] <= 2

    def fails(*_):
        raise RuntimeError("no compiler")

    monkeypatch.setattr(torch, "compile", lambda *_, **__: fails)
    assert operations.fused_for.__wrapped__(torch.device("cpu")) is operations.convert
    assert "falling back to eager" in caplog.text


@pytest.mark.slow
@pytest.mark.parametrize("model", ["resnet8", "lenet5"])
@pytest.mark.parametrize("name", ["ideal", "pcm_like", "pcm_like_hwa_preset"])
def test_a_forward_pass_neither_synchronises_nor_leaves_tensors_on_the_cpu(name, model):
    """torch's "meta" device raises on reads by the host, and on mixing with tensors of another."""
    shape = {"resnet8": (3, 8, 8), "lenet5": (1, 28, 28)}[model]
    images = random_images(8, *shape)
    group = group_of(build(partial(a_network, model, shape)), name, images).drift_to(DAY)
    ChipGroup(group.chips[:1])(images)  # a chip that ran on the CPU before
    out = group(images.to("meta"), first_index=5)
    assert out.device.type == "meta" and out.shape == (3, 8, 10)
    again = group(images.to("meta"), first_index=13)
    assert again.shape == out.shape


class Recorded(nn.Module):
    """Records the batch that its layer gets."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Conv2d(2, 4, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x).flatten(1)


def test_what_is_the_same_for_all_chips_is_multiplied_once(monkeypatch):
    """The first layer turns into DAC levels only the images, not a copy of them for every chip."""
    monkeypatch.setattr(kernels, "library", lambda: None)
    images = random_images(5, 2, 6, 6)
    group = group_of(build(Recorded), "pcm_like", images, 4).drift_to(DAY)
    group(images)
    sizes = []
    dac = kernels.dac
    monkeypatch.setattr(kernels, "dac", lambda x, *rest: sizes.append(len(x)) or dac(x, *rest))
    group(images)
    assert sizes == [5]


def test_chips_that_cannot_be_batched_are_refused():
    images = random_images(40, 1, 8, 8)
    network = build(TinyResidual)
    made = {"calibration": images, "engine": "compiled"}
    chip = program(network, "pcm_like", **made)
    with pytest.raises(ValueError, match="at least one chip; got none"):
        ChipGroup([])
    other = program(network, device(periphery={"adc_bits": 6}), **made)
    with pytest.raises(ValueError, match="one device; got devices .* of different contents"):
        ChipGroup([chip, other])
    with pytest.raises(ValueError, match="got different networks"):
        ChipGroup([chip, program(build(lambda: Pooled(every_second)), "pcm_like", **made)])
    moved = build(TinyResidual)
    with torch.no_grad():
        moved.head.bias.add_(1)
    ranges = {"input_ranges": chip.input_ranges, "engine": "compiled"}
    with pytest.raises(ValueError, match="digital parts differ"):
        ChipGroup([program(network, "pcm_like", **ranges), program(moved, "pcm_like", **ranges)])
    with pytest.raises(ValueError, match="different input ranges"):
        ChipGroup([chip, program(network, "pcm_like", calibration=images * 2, engine="compiled")])
    with pytest.raises(ValueError, match="one chip at a time; run each chip alone"):
        ChipGroup([program(network, "ideal", engine="aihwkit")])
    uncalibrated = ChipGroup([program(network, "pcm_like", engine="compiled")])
    with pytest.raises(ValueError, match="was not calibrated"):
        uncalibrated(images)


def test_chips_with_statistics_or_ranges_of_their_own_run_alone():
    content = load_device("pcm_like").model_dump()
    kind = type(load_device("pcm_like"))
    recalibrated = kind.model_validate(
        content
        | {"drift_compensation": content["drift_compensation"] | {"batch_norm": "recalibrated"}}
    )
    own_ranges = kind.model_validate(
        content | {"input_ranges": content["input_ranges"] | {"of": "chip"}}
    )
    assert "belong to one chip" in why_not_batched(recalibrated, choose_engine(recalibrated))
    assert "for each chip" in why_not_batched(own_ranges, choose_engine(own_ranges))
    assert why_not_batched(load_device("pcm_like"), "compiled") == ""
    assert "one chip at a time" in why_not_batched(load_device("pcm_like"), "aihwkit")
    network = build(partial(a_network, "resnet8", (3, 8, 8)))
    images = random_images(64, 3, 8, 8)
    chip = program(network, recalibrated, calibration=images, recalibration=images)
    with pytest.raises(ValueError, match="belong to one chip"):
        ChipGroup([chip, chip])


def test_the_old_name_of_why_not_batched_still_works_and_names_the_new_one():
    with pytest.warns(FutureWarning, match="why_not_batched"):
        assert analog_samson.chip.why_alone is why_not_batched
