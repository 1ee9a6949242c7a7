"""Counts of clipped inputs and saturated outputs against direct computation and aihwkit's tiles."""

import math

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from analog_samson import program
from analog_samson.compiled import counted
from analog_samson.devices import Device, load_device

BOUND = 1.0


def device(**periphery):
    content = load_device("pcm_like").model_dump()
    content["mapping"] |= {"max_rows": 20, "max_columns": 4}
    content["periphery"] |= {"output_bound": BOUND, "output_noise": 0.0, **periphery}
    return Device.model_validate(content)


@pytest.fixture(scope="module")
def network():
    torch.manual_seed(3)
    return nn.Sequential(
        nn.Conv2d(2, 6, 3, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(6 * 16, 5)
    ).eval()


@pytest.fixture(scope="module")
def images():
    return 2 * torch.randn(40, 2, 4, 4, generator=torch.Generator().manual_seed(4))


def direct(chip, layer, x, input_range):
    """Outputs and saturated outputs of every array of a convolution, by the definition."""
    levels = 127  # 8 bits
    patches = F.unfold(x, 3, padding=1).transpose(1, 2)
    inputs = (patches / input_range * levels).clamp(-levels, levels).round() / levels
    found = []
    for array in chip.network.layers[layer].arrays:
        codes = (inputs @ array.weights.T / (BOUND / levels)).round().abs()
        found.append((codes.numel(), int((codes >= levels).sum())))
    return found


def test_saturated_outputs_are_those_of_the_definition(network, images):
    chip = program(network, device(), seed=5, calibration=images[:8]).drift_to(1e5)
    counts = chip.count_clipped(images)
    expected = direct(chip, "0", images, chip.input_ranges["0"])
    measured = [(one.n_outputs, one.n_saturated) for one in counts["0"]]
    assert [n for n, _ in measured] == [n for n, _ in expected]
    assert sum(n for _, n in expected) > 20
    for (_, ours), (_, theirs) in zip(measured, expected, strict=True):
        assert abs(ours - theirs) <= 1  # a tie of the ADC may fall to the other side


def test_clipped_inputs_are_those_beyond_the_range(network, images):
    chip = program(network, device(), seed=5, calibration=images[:8] / 2)
    counts = chip.count_clipped(images)["0"]
    beyond = images.abs() > chip.input_ranges["0"]
    assert counts[0].n_inputs == beyond.numel()
    assert counts[0].n_clipped == int(beyond.sum()) > 0


def test_arrays_add_up_to_all_outputs(network, images):
    chip = program(network, device(), seed=5, calibration=images[:8])
    counts = chip.count_clipped(images)
    assert len(counts["3"]) == 5 * 2
    assert sum(one.n_outputs for one in counts["3"]) == 40 * 5 * 5  # row blocks convert apart
    assert sum(one.n_outputs for one in counts["0"]) == 40 * 16 * 6


def test_counting_changes_no_output(network, images):
    chip = program(network, device(output_noise=0.05), seed=5, calibration=images[:8])
    chip.drift_to(1e5)
    before = chip(images)
    with counted(chip.network):
        counted_outputs = chip(images)
    apart = (counted_outputs - before).abs()
    assert (apart < 1e-4).float().mean() > 0.95  # elsewhere a tie of the ADC fell differently
    assert apart.max() < 0.05
    assert torch.equal(chip(images), before)


def test_a_wider_bound_saturates_less_and_none_saturates_without_bound(network, images):
    def share(**periphery):
        chip = program(network, device(**periphery), seed=5, calibration=images[:8])
        return sum(one.n_saturated for one in chip.count_clipped(images)["0"])

    assert share() > share(output_bound=2.0) > share(output_bound=30.0) == 0
    assert share(adc_bits="ideal", output_bound=math.inf) == 0
    clipped_only = share(adc_bits="ideal")
    assert 0 < clipped_only <= share()  # without rounding only what is beyond the bound


def test_aihwkits_tile_saturates_as_often(images):
    torch.manual_seed(3)
    layer = nn.Sequential(nn.Linear(32, 8, bias=False))
    flat = images.flatten(1)
    content = device().model_dump()
    content["mapping"] |= {"max_rows": 64, "max_columns": 64}
    whole = Device.model_validate(content)
    chips = {
        engine: program(layer, whole, seed=5, calibration=flat[:8], engine=engine)
        for engine in ("aihwkit", "compiled")
    }
    (ours,) = chips["compiled"].count_clipped(flat)["0"]
    (array,) = chips["compiled"].network.layers["0"].arrays
    scale = chips["compiled"].input_ranges["0"] * array.scale * array.alpha
    tile = (chips["aihwkit"](flat) / scale).abs()
    theirs = int((tile >= BOUND * (1 - 1e-4)).sum())
    assert theirs > 10
    assert abs(ours.n_saturated - theirs) <= 1


@pytest.mark.parametrize(
    ("name", "message"), [("ideal", "cuts nothing off"), ("per_vector", "each input vector")]
)
def test_devices_without_fixed_ranges_are_refused(network, images, name, message):
    which = load_device("ideal") if name == "ideal" else device(input_scaling="per_vector")
    chip = program(network, which, seed=5, calibration=images[:8])
    with pytest.raises(ValueError, match=message):
        chip.count_clipped(images)


def test_tiles_are_refused(network, images):
    chip = program(network, device(), seed=5, calibration=images[:8], engine="aihwkit")
    with pytest.raises(ValueError, match="compiled engine"):
        chip.count_clipped(images)
