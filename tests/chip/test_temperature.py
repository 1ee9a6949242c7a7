"""Temperature: an Arrhenius factor of the time since programming."""

import math

import pytest
import torch
from torch import nn

from analog_samson import analog, load_device, program
from analog_samson.analog.moments import default_times_s
from analog_samson.devices import validated
from analog_samson.devices.temperature import BOLTZMANN_EV_PER_K
from analog_samson.report.captions import caption
from analog_samson.report.datasheet import datasheet
from analog_samson.results import read_trials, summarise
from analog_samson.study import Study, collect
from analog_samson.times import DAY, HOUR, MONTH, YEAR

WARM = {"temperature_C": 85.0, "reference_C": 25.0, "activation_energy_eV": 0.2}


@pytest.fixture(scope="module")
def network() -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return nn.Sequential(nn.Linear(80, 24), nn.ReLU(), nn.Linear(24, 10, bias=False))


def at(name="pcm_like", celsius=85.0, **axes):
    return load_device(name).with_axes(WARM | {"temperature_C": celsius} | axes)


@pytest.mark.parametrize(("celsius", "kelvin"), [(85.0, 358.15), (-20.0, 253.15), (25.0, 298.15)])
def test_the_effective_time_follows_arrhenius(celsius, kelvin):
    factor = math.exp(0.2 / 8.617333262e-5 * (1 / 298.15 - 1 / kelvin))
    device = at(celsius=celsius)
    assert device.temperature.time_factor == pytest.approx(factor, rel=1e-9)
    assert device.effective_time_s(DAY) == pytest.approx(factor * DAY, rel=1e-9)
    assert pytest.approx(8.617333262e-5, rel=1e-9) == BOLTZMANN_EV_PER_K


@pytest.mark.parametrize("engine", ["compiled", "aihwkit"])
@pytest.mark.parametrize("celsius", [85.0, 40.0])
@pytest.mark.parametrize(
    ("name", "axes"),
    [
        ("pcm_like", {"read_noise_1f_scale": 0.0}),
        ("sonos_agrawal2022", {}),  # all draws are those of programming
        ("reram_cmo", {"read_noise_1f_scale": 0.0}),
    ],
)
def test_a_warm_chip_is_a_chip_at_the_effective_time_bit_for_bit(
    name, axes, celsius, engine, network
):
    cool = load_device(name).with_axes(axes)
    warm = at(name, celsius, **axes)
    chip = program(network, warm, seed=3, engine=engine)
    shifted = program(network, cool, seed=3, engine=engine)
    for time in (0.0, HOUR):
        chip.drift_to(time), shifted.drift_to(warm.effective_time_s(time))
        for layer, weight in shifted.weights().items():
            assert torch.equal(chip.weights()[layer], weight)
            assert torch.equal(chip.compensation()[layer], shifted.compensation()[layer])


def test_arrays_in_a_row_age_as_arrays_alone(network):
    """Arrays of 64 or more cells stand in a row; those of 80 rows and 24 columns do."""
    device = at(read_noise_1f_scale=0.0)
    chip = program(network, device, seed=3).drift_to(DAY)
    for array in chip._conductance_arrays():
        for state, aged in zip(array.states, array.conductances(), strict=True):
            t_0 = device.noise.t_0_s
            by_formula = state.programmed_uS * ((device.effective_time_s(DAY) + t_0) / t_0) ** (
                -state.drift_exponent
            )
            torch.testing.assert_close(aged, by_formula, rtol=1e-5, atol=1e-6)


def test_aihwkits_own_path_ages_by_the_effective_time(network):
    cool = load_device("pcm_like_as_in_aihwkit").with_axes({"read_noise_1f_scale": 0.0})
    warm = cool.with_axes(WARM)
    chip, shifted = (program(network, device, seed=3) for device in (warm, cool))
    chip.drift_to(DAY), shifted.drift_to(warm.effective_time_s(DAY))
    for layer, weight in shifted.weights().items():
        assert torch.equal(chip.weights()[layer], weight)


@pytest.mark.parametrize(
    "axes",
    [{"temperature_C": 85.0}, {"refresh_every": "1 d"}, {"compensation_times": "1 h"}],
)
def test_a_converted_chip_says_what_its_ageing_does_not_follow(network, axes):
    device = at(celsius=25.0).with_axes(axes)
    chip = program(network, device, input_ranges={"0": 2.0, "2": 2.0}, seed=1).drift_to(HOUR)
    with pytest.warns(UserWarning, match="drift_analog_weights does not follow (temper|refr|drif)"):
        chip.to_aihwkit()


def test_chips_at_two_temperatures_share_their_draws(network):
    """At the reference temperature nothing changes, read noise included."""
    plain = program(network, "pcm_like", seed=3).drift_to(DAY)
    same = program(network, at(celsius=25.0), seed=3).drift_to(DAY)
    for layer, weight in plain.weights().items():
        assert torch.equal(same.weights()[layer], weight)
    barely = program(network, at(celsius=25.001), seed=3).drift_to(DAY)
    for layer, weight in plain.weights().items():
        assert (barely.weights()[layer] - weight).abs().max() < 1e-4


def test_times_are_extrapolated_by_their_effective_times():
    device, cool = at(), load_device("pcm_like")
    last = cool.times.measured_to_s
    factor = device.temperature.time_factor
    assert not cool.is_extrapolated(0.9 * last) and device.is_extrapolated(0.9 * last)
    assert not device.is_extrapolated(0.99 * last / factor)
    assert at(celsius=0.0).is_extrapolated(1.5 * last) is False
    sonos = at("sonos_agrawal2022")
    assert max(default_times_s(sonos)) * sonos.temperature.time_factor <= sonos.times.valid_to_s
    words = r"no data at .* the effective time of 432000 s at 85 °C \(measured at 25 °C\)"
    with pytest.raises(ValueError, match=words):
        sonos.check_time(5 * DAY)


def test_rows_record_the_temperature_and_captions_name_effective_times(digits_checkpoint, tmp_path):
    axes = {"reference_C": [25.0], "activation_energy_eV": [0.2], "temperature_C": [25.0, 85.0]}
    given = [digits_checkpoint], ["pcm_like"], ["1 d", "2 mo"]
    collect(Study("warm", *given, axes=axes, n_chips=2, n_test=50), tmp_path)
    rows = read_trials(tmp_path)
    late = rows.groupby(["condition", "t_inference_s"])["extrapolated"].all()
    assert late.tolist() == [False, True, False, True]
    fixed = at()
    trial = Study("warm", [digits_checkpoint], [fixed], ["1 d"]).trials()[0]
    assert trial.condition == '{"temperature_C": 85.0}'
    said = caption(summarise(rows), [], [])
    assert "which the effective time at a temperature is compared with (extrapolated)" in said
    assert at(celsius=25.0).always_recorded_axes == {}


def test_the_datasheet_says_at_which_temperature_it_is_drawn():
    device = at()
    page = datasheet(device, analog.moments.measure(device, [1.0], n_levels=3, n=20))
    said = " ".join(page._supxlabel.get_text().split())
    assert "At 85 °C (measured at 25 °C), E_a = 0.2 eV" in said.replace("\u00a0", " ")


WRONG = [
    ("pcm_like", {"activation_energy_eV": 0.2, "reference_C": 25}, r"temperature: source is missi"),
    (
        "pcm_like",
        {"temperature_C": 85.0, "source": "m"},
        r"needs reference_C, at which .* act",
    ),
    ("pcm_like", WARM | {"source": "m", "temperature_C": -300.0}, r"temperature_C = -300.0 is not"),
    ("pcm_like", WARM | {"source": "m", "activation_energy_eV": -0.1}, r"energy_eV = -0.1 is not"),
    ("pcm_like", WARM | {"source": "m", "temperature_C": "85 C"}, r"should be a valid number"),
    ("pcm_like", WARM | {"source": "m", "temperature_c": 85.0}, r"did you mean 'temperature_C'"),
    (
        "pcm_like",
        WARM | {"source": "m", "activation_energy_eV": 9.0},
        r"would multiply the time by e\^58.7; a factor lies between 1e-12 and 1e\+12",
    ),
    (
        "reram_wan2022",
        WARM | {"source": "m"},
        r"changes the time that drift sees, and the device is known only at 1, 86400, 172800 s",
    ),
]


@pytest.mark.parametrize(("name", "section", "words"), WRONG)
def test_a_wrong_temperature_is_refused_in_one_sentence(name, section, words):
    content = load_device(name).model_dump() | {"temperature": section}
    with pytest.raises(ValueError, match=words) as error:
        validated(content, "mine.toml")
    assert "\n" not in str(error.value)


def test_times_far_away_are_refused():
    with pytest.raises(ValueError, match="lies between 1e-12 and 1e"):
        at(celsius=800.0, activation_energy_eV=0.9).check_time(1000 * YEAR)
    with pytest.raises(ValueError, match="reference_C and activation_energy_eV are missing"):
        load_device("pcm_like").with_axes({"temperature_C": 85.0})
    assert at(celsius=-50.0).check_time(MONTH) is None
