"""Variation between chips and arrays: moments of the factors, what they multiply, yield."""

import itertools
import math
import tomllib

import pytest
import torch
from torch import nn

from analog_samson import analog, load_device, program
from analog_samson.chip import load_chip
from analog_samson.chip.programmed import PhysicsOfLayers
from analog_samson.devices import Device, validated
from analog_samson.devices.describe import parameters
from analog_samson.devices.writing import device_file
from analog_samson.report.datasheet import datasheet
from analog_samson.results import yields
from analog_samson.study import Study, collect, load_study
from analog_samson.times import DAY, YEAR

BOTH = ("programming_noise_scale", "drift_scale")


@pytest.fixture(scope="module")
def network() -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return nn.Sequential(nn.Linear(80, 24), nn.ReLU(), nn.Linear(24, 10, bias=False))


def varied(name="pcm_like", max_rows=40, **spreads):
    return load_device(name).with_axes({"max_rows": max_rows, **spreads})


def scales(chip):
    return [
        tuple(getattr(array.physics.noise, key) for key in BOTH)
        for array in chip._conductance_arrays()
    ]


@pytest.mark.slow
@pytest.mark.parametrize("spread", [0.05, 0.6])
def test_factors_are_log_normal_with_mean_one_and_the_given_spread(spread):
    """n = 2000 chips, each with 2 arrays; four standard errors, false alarms 6e-5 a comparison."""
    n = 2000
    device = varied(drift_by_chip=spread, programming_by_array=spread)
    physics = PhysicsOfLayers(device)
    of_chips, of_arrays = [], []
    for seed in range(n):
        own = physics.of_chip(seed)
        found = [own.of("layer", index)[1].noise for index in (0, 1)]
        assert found[0].drift_scale == found[1].drift_scale
        of_chips.append(found[0].drift_scale)
        of_arrays.append([noise.programming_noise_scale for noise in found])
    variance = math.log1p(spread**2)
    for factors in (torch.tensor(of_chips), *torch.tensor(of_arrays).T):
        factors = factors.double()
        assert abs(factors.mean() - 1) < 4 * spread / math.sqrt(n)
        logs = factors.log()
        assert abs(logs.mean() + variance / 2) < 4 * math.sqrt(variance / n)
        assert abs(logs.var() / variance - 1) < 4 * math.sqrt(2 / n)
    logs = torch.tensor(of_arrays).log()
    assert abs(torch.corrcoef(logs.T)[0, 1]) < 4 / math.sqrt(n), "arrays are independent"


def test_a_chip_has_one_factor_and_each_of_its_arrays_another(network):
    by_chip = scales(program(network, varied(programming_by_chip=0.2, drift_by_chip=0.3), seed=4))
    assert len(by_chip) == 3 and len(set(by_chip)) == 1
    programming, drift = by_chip[0]
    assert programming != drift and programming != 1 and drift != 1
    by_array = scales(program(network, varied(programming_by_array=0.2), seed=4))
    assert len({p for p, _ in by_array}) == 3
    assert {d for _, d in by_array} == {1.0}
    device = varied(programming_by_chip=0.2, programming_by_array=0.2)
    both = scales(program(network, device, seed=4))
    for (total, _), (own, _) in zip(both, by_array, strict=True):
        assert total == pytest.approx(programming * own, rel=1e-12)
    assert scales(program(network, device, seed=5)) != both
    assert device.variation.of("programming") == pytest.approx(math.sqrt(1.04**2 - 1))


@pytest.mark.parametrize("engine", ["compiled", "aihwkit"])
def test_a_chip_is_one_of_the_device_with_these_scales_bit_for_bit(engine, network):
    """All draws are those of the device without variation; both engines have the same cells."""
    device = varied(programming_by_chip=0.2, drift_by_chip=0.3)
    chip = program(network, device, seed=4, engine=engine).drift_to(DAY)
    own = dict(zip(BOTH, scales(chip)[0], strict=True))
    by_hand = program(network, varied().with_axes(own), seed=4, engine="compiled").drift_to(DAY)
    for name, weight in by_hand.weights().items():
        assert torch.equal(chip.weights()[name], weight)
        assert torch.equal(chip.compensation()[name], by_hand.compensation()[name])


def test_arrays_that_vary_keep_the_draws_of_those_that_do_not(network):
    device = varied("pcm_state_independent", drift_by_array=0.3)
    plain = program(network, varied("pcm_state_independent"), seed=1)
    chip = program(network, device, seed=1)
    cells = zip(chip._conductance_arrays(), plain._conductance_arrays(), strict=True)
    for own, other in cells:
        factor = own.physics.noise.drift_scale
        for state, before in zip(own.states, other.states, strict=True):
            assert torch.equal(state.programmed_uS, before.programmed_uS)
            torch.testing.assert_close(
                state.drift_exponent, factor * before.drift_exponent, rtol=1e-5, atol=1e-8
            )


def test_a_saved_chip_keeps_its_factors(network, tmp_path):
    chip = program(network, varied(programming_by_chip=0.2, drift_by_array=0.3), seed=4)
    loaded = load_chip(chip.drift_to(DAY).save(tmp_path / "chip"), network)
    assert scales(loaded) == scales(chip)
    for time in (DAY, YEAR):
        for name, weight in chip.drift_to(time).weights().items():
            assert torch.equal(loaded.drift_to(time).weights()[name], weight)


def test_no_variation_is_the_device_as_it_was():
    device = load_device("pcm_like")
    for spreads in ({"programming_by_chip": 0.0}, {"drift_by_array": 0, "drift_by_chip": 0.0}):
        assert device.with_axes(spreads).digest == device.digest
    changed = device.with_axes({"drift_by_chip": 0.1})
    assert changed.digest != device.digest
    assert changed.variation.source == "the user's choice: set by an axis"


@pytest.mark.slow
def test_the_variance_of_chips_follows_the_law_of_total_variance():
    """y = mean of ln g(t)/g(0) of the cells of a chip, linear in its exponents: with a factor f of
    mean 1 and relative spread r, Var y = E[Var y | f] + Var E[y | f]
    = ln(1 + t / t_0)^2 (sigma^2 (1 + r^2) / n + mu^2 r^2), mu and sigma those of an exponent.

    400 chips a spread, n = 2048 cells; four standard errors, false alarms about 1e-4.
    """
    n_chips, time = 400, YEAR
    weight = torch.ones(32, 64)
    network = nn.Sequential(nn.Linear(64, 32, bias=False))
    with torch.no_grad():
        network[0].weight.copy_(weight)
    quiet = {"programming_noise_scale": 0.0, "read_noise_1f_scale": 0.0}
    for spread in (0.0, 0.02, 0.2):
        device = load_device("pcm_state_independent").with_axes({**quiet, "drift_by_chip": spread})
        found, exponents = [], []
        for seed in range(n_chips):
            chip = program(network, device, seed=seed)
            exponents.append(chip._conductance_arrays()[0].states[0].drift_exponent)
            found.append(float(chip.drift_to(time).weights()["0"].double().log().mean()))
        drawn = torch.stack(exponents).double()
        within = float(drawn.var(dim=(1, 2)).mean())  # sigma^2 (1 + r^2)
        strength = math.log(1 + time / device.noise.t_0_s)
        expected = strength**2 * (within / weight.numel() + (float(drawn.mean()) * spread) ** 2)
        y = torch.tensor(found).double()
        kurtosis = float(((y - y.mean()) ** 4).mean() / y.var() ** 2)
        error = math.sqrt((kurtosis - 1) / n_chips) + 2 * spread / math.sqrt(n_chips)
        assert abs(float(y.var()) / expected - 1) < 4 * error, spread


@pytest.mark.slow
def test_variation_by_chip_spreads_accuracies_and_lowers_yield(digits_checkpoint, tmp_path):
    """One network of digits / mlp, 60 chips a condition, one year, no compensation.

    F test of the variances of 60 and 60 chips: 2.5 is exceeded by chance with p < 0.0005.
    """
    study = Study(
        "variation",
        [digits_checkpoint],
        ["pcm_like"],
        ["1 y"],
        n_chips=60,
        axes={"drift_by_chip": [0.0, 0.5], "compensation": ["none"]},
    )
    rows = collect(study, tmp_path / "study")
    accuracy = rows["n_correct"] / rows["n_images_per_chip"]
    variance = accuracy.groupby(rows["condition"]).var()
    plain, changed = sorted(variance.index)
    assert changed == '{"variation.drift_by_chip": 0.5}'
    assert variance[changed] > 2.5 * variance[plain]
    goal = accuracy[rows["condition"] == plain].quantile(0.05)
    shares = yields(rows, float(goal)).set_index("condition")["share"]
    assert shares[changed] < shares[plain]


def test_the_page_and_the_table_of_a_device_say_how_it_varies():
    device = load_device("pcm_like").with_axes({"drift_by_chip": 0.1, "programming_by_array": 0.05})
    table = parameters(device).set_index("parameter")
    assert table.loc["variation.drift_by_chip", "value"] == "0.1"
    assert table.loc["variation.drift_by_chip", "source"] == device.variation.source
    page = datasheet(device, analog.moments.measure(device, [1.0], n_levels=3, n=20))
    said = " ".join(page._supxlabel.get_text().split())
    assert "variation (programming 5 % by array, drift 10 % by chip; the user's choice" in said


def test_a_device_with_variation_is_written_and_read():
    device = load_device("pcm_like").with_axes({"drift_by_chip": 0.1})
    assert validated(tomllib.loads(device_file(device)), "mine") == device


WRONG = [
    ("pcm_like", {"drift_by_chip": -0.1, "source": "mine"}, r"variation.drift_by_chip = -0.1 is"),
    ("pcm_like", {"drift_by_chip": 0.1}, r"variation: source is missing: give a key"),
    ("pcm_like", {"drift_by_chips": 0.1}, r"'variation.drift_by_chips'; did you mean"),
    ("pcm_like", {"drift_by_chip": "10 %", "source": "mine"}, r"should be a valid number"),
    ("pcm_like", {"drift_by_chip": math.inf, "source": "mine"}, r"variation.drift_by_chip = inf"),
    (
        "reram_wan2022",
        {"drift_by_chip": 0.1, "source": "mine"},
        r"drift_by_array multiply noise.drift_scale, which ReRamWan2022NoiseModel does not have",
    ),
    ("ideal", {"programming_by_chip": 0.1, "source": "mine"}, r"programming_noise_scale, which I"),
    (
        "pcm_like_as_in_aihwkit",
        {"drift_by_array": 0.1, "source": "mine"},
        r"use a device at conductance level",
    ),
]


@pytest.mark.parametrize(("name", "section", "words"), WRONG)
def test_wrong_variation_is_refused_in_one_sentence(name, section, words):
    content = load_device(name).model_dump() | {"variation": section}
    with pytest.raises(ValueError, match=words) as error:
        validated(content, "mine.toml")
    assert "\n" not in str(error.value)


def test_what_a_model_has_in_the_place_of_exponents_varies():
    for name, axis in (("reram_wan2022", "programming_by_chip"), ("reram_cmo", "drift_by_array")):
        device = load_device(name).with_axes({axis: 0.2})
        assert isinstance(device, Device) and device.variation.is_used


def test_a_study_file_sweeps_variation(digits_checkpoint, tmp_path):
    file = tmp_path / "study.toml"
    file.write_text(
        f'name = "spread"\ncheckpoints = ["{digits_checkpoint}"]\ndevices = ["pcm_like"]\n'
        'times_s = ["1 s"]\nn_chips = 1\n[axes]\n"variation.drift_by_chip" = [0.0, 0.1]\n'
        "programming_by_array = [0.0, 0.2]\n"
    )
    trials = load_study(file).trials()
    found = {
        (t.device.variation.drift_by_chip, t.device.variation.programming_by_array): t.chip_id
        for t in trials
    }
    assert set(found) == set(itertools.product((0.0, 0.1), (0.0, 0.2)))
    plain = Study("plain", [digits_checkpoint], ["pcm_like"], ["1 s"], n_chips=1).trials()
    assert found[0.0, 0.0] == plain[0].chip_id
