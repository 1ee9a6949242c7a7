"""Chips of one network programmed, read and run together: the oracle is each chip alone."""

import pytest
import torch
from torch import Tensor, nn

from analog_samson import load_device
from analog_samson.chip import ChipGroup, MappedNetwork, why_not_batched
from analog_samson.chip.chip import read_together
from analog_samson.compiled import kernels
from analog_samson.compiled.per_vector import PerVector
from analog_samson.devices import Device
from analog_samson.times import DAY, HOUR, YEAR

SEEDS = (3, 1, 2)

NETWORKS = {
    "linear layers": lambda: nn.Sequential(
        *(nn.Flatten(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 32), nn.ReLU()),
        nn.Linear(32, 10),
    ),
    "convolutions": lambda: nn.Sequential(
        *(nn.Conv2d(1, 8, 3), nn.ReLU(), nn.Conv2d(8, 8, 3, groups=2)),
        *(nn.ReLU(), nn.Flatten(), nn.Linear(128, 10)),
    ),
}

CHANGES: dict[str, dict[str, object]] = {
    "stuck cells": {"faults": {"stuck_low": 0.1, "stuck_high": 0.05}},
    "two pairs a weight": {"mapping": {"pair_significances": (1.0, 2.0)}},
    "lowest conductance": {"noise": {"g_min_uS": 5.0}},
    "noise scales": {"noise": {"programming_noise_scale": 2.5, "drift_scale": 0.0}},
    "a factor for each column": {"drift_compensation": {"kind": "per_column"}},
    "a factor for each layer": {"drift_compensation": {"kind": "per_layer"}},
    "no compensation": {"drift_compensation": {"kind": "none"}},
    "recalibrated input ranges": {"input_ranges": {"of": "chip"}},
    "compensation measured once": {"drift_compensation": {"measured_at": "30 min"}},
    "refreshed": {"refresh_every": DAY},
    "chips that vary": {
        "variation": {"programming_by_chip": 0.2, "drift_by_array": 0.2, "source": "our choice"}
    },
    "split arrays": {"mapping": {"max_rows": 24, "max_columns": 16}},
    "split arrays of whole vectors": {"mapping": {"max_rows": 32, "max_columns": 32}},
    "one scale an array": {"mapping": {"scale": "tile"}},
    "no noise in products": {"periphery": {"output_noise": 0.0}},
}

NAMES = (
    *("pcm_like", "pcm_like_hwa_preset", "pcm_like_abs_max", "pcm_hermes", "pcm_custom_drift"),
    *("pcm_state_independent", "reram_cmo", "reram_wan2022", "reram_milo2021_nonlinear"),
    *("sonos_agrawal2022_crosssim_3_2", "gaussian_max_layer", "ideal", "pcm_like_as_in_aihwkit"),
)


def changed(sections: dict[str, object]) -> Device:
    content = load_device("pcm_like").model_dump()
    for section, values in sections.items():
        is_section = isinstance(values, dict)
        content[section] = (content.get(section) or {}) | values if is_section else values
    return Device.model_validate(content)


def images(n: int) -> Tensor:
    return torch.rand(n, 1, 8, 8, generator=torch.Generator().manual_seed(1))


def mapped(kind: str, device: Device) -> MappedNetwork:
    """The network, with an unused column, on a device."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = NETWORKS[kind]().eval()
    with torch.no_grad():
        network[1 if kind == "linear layers" else 0].weight[3] = 0
    recalibration = images(40) if device.needs_training_images else None
    return MappedNetwork(network, device, calibration=images(40), recalibration=recalibration)


def points_of(device: Device) -> list[tuple[float, int]]:
    """Points in any order, the first time among them; at one time several reads."""
    times = device.times.valid_times_s or (0.0, HOUR, device.times.valid_to_s or YEAR)
    if not device.changes_with_time:
        times = (device.first_time_s,)
    return [(times[-1], 0), (times[0], 0), (times[-1], 1), (times[len(times) // 2], 2)]


def assert_equal_alone(of: MappedNetwork) -> None:
    """Weights, factors, cells and outputs of chips, to the bit."""
    alone = [of.program(seed) for seed in SEEDS]
    together = of.program_together(SEEDS)
    is_batched = not why_not_batched(of.device, together[0].engine)
    group = ChipGroup(together) if is_batched else None
    few = images(5)
    for time, read in [(of.device.first_time_s, 0), *points_of(of.device)]:
        if group is None:
            read_together(together, time, read)
        else:
            group.drift_to(time, read)
        outputs = [chip(few, 7) for chip in together] if group is None else group(few, 7)
        for one, chip, found in zip(alone, together, outputs, strict=True):
            one.drift_to(time, read)
            assert (chip.seed, chip.t_inference_s, chip.read) == (one.seed, time, read)
            assert torch.equal(found, one(few, 7))
            for what in ("weights", "compensation"):
                ours, theirs = getattr(chip, what)(), getattr(one, what)()
                assert all(torch.equal(ours[name], own) for name, own in theirs.items())
            if chip.device.noise_level == "conductance":
                cells, expected = chip._state(), one._state()
                assert list(cells) == list(expected)
                for name, tensor in expected.items():
                    assert torch.equal(cells[name].nan_to_num(-1), tensor.nan_to_num(-1)), name
    assert not torch.equal(outputs[0], outputs[1]) or of.device.name == "ideal"


@pytest.mark.parametrize("kind", NETWORKS)
@pytest.mark.parametrize("name", NAMES)
def test_chips_together_are_the_chips_alone_to_the_bit(name, kind):
    assert_equal_alone(mapped(kind, load_device(name)))


@pytest.mark.parametrize("kind", NETWORKS)
@pytest.mark.parametrize("change", CHANGES)
def test_every_setting_gives_the_chips_alone_to_the_bit(change, kind):
    assert_equal_alone(mapped(kind, changed(CHANGES[change])))


@pytest.mark.parametrize("threads", [1, 2])
def test_threads_change_no_bit(threads):
    torch.set_num_threads(threads)
    try:
        assert_equal_alone(mapped("linear layers", load_device("pcm_like")))
    finally:
        torch.set_num_threads(1)


def test_small_networks_of_linear_layers_run_in_one_call_a_layer(monkeypatch):
    """And so do their batches, whose size changes no bit."""
    if kernels.library() is None:
        pytest.skip("no C compiler here")
    group = ChipGroup(mapped("linear layers", load_device("pcm_like")).program_together(SEEDS))
    group.drift_to(DAY)
    whole = group(images(30))
    assert group.is_batch_invariant
    calls = []
    multiply = PerVector._multiply
    monkeypatch.setattr(
        PerVector, "_multiply", lambda own, x, now: calls.append(len(x)) or multiply(own, x, now)
    )
    parts = torch.cat([group(images(30)[:11]), group(images(30)[11:], 11)], dim=1)
    assert torch.equal(parts, whole)
    assert calls == [33] * 3 + [57] * 3


def test_a_chip_of_a_group_that_is_read_alone_is_used_as_read():
    of = mapped("linear layers", load_device("pcm_like"))
    group = ChipGroup(of.program_together(SEEDS)).drift_to(DAY)
    few = images(5)
    before = group(few)
    group.chips[1].drift_to(YEAR)
    after = group(few)
    assert torch.equal(after[::2], before[::2]) and not torch.equal(after[1], before[1])
    assert torch.equal(after[1], of.program(SEEDS[1]).drift_to(YEAR)(few))
