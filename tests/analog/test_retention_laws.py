"""Claims about retention that is linear in log time or saturates, against the formulas.

Normalised errors are standard normal: their mean is normal, and their sum of squares is chi-square
with n degrees of freedom. n = 3880 cells a level and 10 statistics a level at most; seed 1. Each
statistic has a false-alarm rate of 1e-9, so that the file fails by chance with less than 1e-6.
"""

import math

import numpy as np
import pytest
import torch
from scipy import stats
from torch import nn

from analog_samson import load_device, program
from analog_samson.analog import rpu_config_of
from analog_samson.analog.moments import measure
from analog_samson.devices import validated
from analog_samson.devices.describe import parameters
from analog_samson.devices.writing import device_file
from analog_samson.report.datasheet import save_datasheet
from analog_samson.study.requirements import physical
from analog_samson.times import DAY, HOUR, YEAR

ALPHA = 1e-9
LEVELS = (0.0, 0.25, 0.5, 0.75, 1.0)  # of the largest weight: 5, 10, ..., 25 µS
TARGETS = np.array([5.0, 10.0, 15.0, 20.0, 25.0])
T_0_S, T_READ_S, TAU_S, BETA = 20.0, 250e-9, 3e4, 0.4
SHARED = {
    "source": "made-up numbers of this test",
    "g_min_uS": 5.0,
    "g_max_uS": 25.0,
    "t_0_s": T_0_S,
    "t_read_s": T_READ_S,
    "table_uS": [5.0, 15.0, 25.0],
    "programming_offset_uS": [0.1, 0.0, -0.3],
    "programming_spread_uS": [0.2, 0.5, 0.4],
    "read_spread_relative": [0.02, 0.01, 0.005],
}
SLOPES = [0.05, -0.2, -0.3], [0.02, 0.05, 0.06]
CHANGES = [0.5, -2.0, -3.0], [0.1, 0.5, 0.6]
NOISE = {
    "LogTimeNoiseModel": dict(
        zip(("slope_mean_uS", "slope_spread_uS"), SLOPES, strict=True),
    ),
    "StretchedExponentialNoiseModel": {
        **dict(zip(("change_mean_uS", "change_spread_uS"), CHANGES, strict=True)),
        "tau_s": TAU_S,
        "beta": BETA,
    },
}
LAWS = {
    "LogTimeNoiseModel": (lambda t: math.log10((t + T_0_S) / T_0_S), SLOPES),
    "StretchedExponentialNoiseModel": (lambda t: 1 - math.exp(-((t / TAU_S) ** BETA)), CHANGES),
}


def device(model, **changes):
    content = load_device("pcm_like").model_dump()
    content["noise"] = {"model": model, **SHARED, **NOISE[model], **changes}
    return validated(content, "made up")


def cells(device, times_s, **options):
    """Conductances [µS] of the cells of positive weights, shape (times, levels, n)."""
    row = torch.tensor(LEVELS).repeat(97)
    layer = nn.Linear(1 + len(row), 40, bias=False)
    layer.weight.data.copy_(torch.cat([torch.ones(1), row]).expand(40, -1))
    chip = program(layer, device, seed=1, **options)
    read = [chip.drift_to(t).conductances()[""][0][0][:, 1:].double() for t in times_s]
    return torch.stack([one.reshape(-1, len(LEVELS)).T for one in read]).numpy()


def at(table):
    return np.interp(TARGETS, SHARED["table_uS"], table)[:, None]


def assert_standard_normal(z):
    n = z.shape[1]
    assert n == 3880
    assert (2 * stats.norm.sf(np.abs(z.mean(axis=1)) * math.sqrt(n)) > ALPHA).all()
    squares = np.square(z).sum(axis=1)
    assert (2 * np.minimum(stats.chi2.sf(squares, n), stats.chi2.cdf(squares, n)) > ALPHA).all()


@pytest.mark.parametrize("model", LAWS)
def test_conductances_follow_the_formula_with_one_coefficient_a_cell(model):
    function, (mean, spread) = LAWS[model]
    quiet = device(model, read_noise_1f_scale=0.0)
    times_s = (0.0, 1.0, HOUR, DAY, YEAR)
    written, *aged = cells(quiet, times_s)
    offset, error = (at(SHARED[f"programming_{key}_uS"]) for key in ("offset", "spread"))
    assert_standard_normal((written - TARGETS[:, None] - offset) / error)
    coefficients = [(g - written) / function(t) for t, g in zip(times_s[1:], aged, strict=True)]
    for one in coefficients[1:]:
        np.testing.assert_allclose(one, coefficients[-1], atol=1e-4)
        assert_standard_normal((one - at(mean)) / at(spread))
    half = cells(device(model, read_noise_1f_scale=0.0, drift_scale=0.5), times_s)
    np.testing.assert_allclose(half[-1] - half[0], (aged[-1] - written) / 2, atol=1e-4)


@pytest.mark.parametrize("model", LAWS)
def test_a_read_adds_noise_relative_to_the_conductance(model):
    for t in (HOUR, YEAR):
        (quiet,) = cells(device(model, read_noise_1f_scale=0.0), [t])
        written, seen = cells(device(model), [0.0, t])
        q = np.interp(written, SHARED["table_uS"], SHARED["read_spread_relative"])
        accumulated = math.sqrt(math.log((t + T_0_S + T_READ_S) / (2 * T_READ_S)))
        assert_standard_normal((seen - quiet) / (quiet * q * accumulated))


def test_conductances_stay_within_the_bounds_of_the_file():
    quiet = {"read_noise_1f_scale": 0.0, "slope_mean_uS": [-2.0] * 3, "slope_spread_uS": [2.0] * 3}
    bounded = device("LogTimeNoiseModel", lowest_uS=4.0, highest_uS=25.5, **quiet)
    written, aged = cells(bounded, [0.0, YEAR])
    free = cells(device("LogTimeNoiseModel", **quiet), [0.0, YEAR])
    assert written.min() >= 4 and written.max() == aged.max() == 25.5 and aged.min() == 4
    inside = (free[0] > 4) & (free[0] < 25.5) & (free[1] > 4) & (free[1] < 25.5)
    np.testing.assert_array_equal(aged[inside], free[1][inside])
    assert free[1].min() == 0  # the bound that a file does not have to give


@pytest.mark.parametrize("model", LAWS)
def test_both_engines_have_the_same_cells(model):
    ours, theirs = (
        cells(device(model), [0.0, DAY], engine=name) for name in ("compiled", "aihwkit")
    )
    np.testing.assert_array_equal(ours, theirs)


def test_compensation_removes_a_common_loss():
    """All cells lose the same share per decade: the factor is its inverse, without spread."""
    slopes = {"slope_mean_uS": [0.0, -0.5, -1.0], "slope_spread_uS": [0.0] * 3}
    quiet = {"programming_noise_scale": 0.0, "read_noise_1f_scale": 0.0, "g_min_uS": 0.0}
    flat = {"table_uS": [0.0, 12.5, 25.0], **slopes, **quiet}
    layer = nn.Linear(64, 8)
    chip = program(layer, device("LogTimeNoiseModel", **flat)).drift_to(DAY)
    kept = 1 - math.log10((DAY + T_0_S) / T_0_S) / 25
    torch.testing.assert_close(chip.weights()[""], layer.weight.detach() * kept)
    torch.testing.assert_close(chip.compensation()[""], torch.full((1,), 1 / kept))


def test_aihwkit_runs_the_law_on_its_own_tiles():
    """``rpu_config_of`` carries the model: mean loss as the formula, n = 9600, seed 0, 1e-9."""
    from aihwkit.nn import AnalogLinear

    slopes = {"slope_mean_uS": [-0.4] * 3, "slope_spread_uS": [0.1] * 3}
    quiet = {"programming_noise_scale": 0.0, "read_noise_1f_scale": 0.0, **slopes}
    with pytest.warns(UserWarning, match="does not hold the state of single cells"):
        config = rpu_config_of(device("LogTimeNoiseModel", **quiet))
    config.drift_compensation = None
    torch.manual_seed(0)
    layer = AnalogLinear(300, 32, bias=False, rpu_config=config)
    layer.set_weights(torch.ones(32, 300), None)
    layer.eval()
    layer.program_analog_weights()
    layer.drift_analog_weights(DAY)
    decades = math.log10((DAY + T_0_S) / T_0_S)
    # the slopes of both cells of a pair cancel on average; their spreads add
    change = (layer.get_weights()[0] - 1).double().flatten() * 20
    z = change / (math.sqrt(2) * 0.1 * decades)
    assert abs(float(z.mean())) * math.sqrt(9600) < stats.norm.isf(ALPHA / 2)
    squares = float(z.square().sum())
    assert ALPHA / 2 < stats.chi2.sf(squares, 9600) < 1 - ALPHA / 2


@pytest.mark.slow
@pytest.mark.parametrize("model", LAWS)
def test_such_a_device_is_described_drawn_and_written(model, tmp_path):
    made = device(model)
    listed = parameters(made).set_index("parameter")
    assert listed.loc["noise.lowest_uS", "default"] == "0"
    moments = measure(made, [HOUR], n_levels=5, n=400)
    name, unit = made.noise.drift_parameter
    rows = moments[moments["quantity"] == name]
    assert len(rows) == 5 and set(rows["unit"]) == {unit}
    mean, spread = LAWS[model][1]
    np.testing.assert_allclose(rows["mean"], at(mean)[:, 0], atol=6 * max(spread) / 20)
    assert all(path.stat().st_size > 500 for path in save_datasheet(made, moments, tmp_path))
    (tmp_path / "again.toml").write_text(device_file(made), encoding="utf-8")
    assert load_device(tmp_path / "again.toml") == made


@pytest.mark.parametrize(
    ("model", "words", "unit"),
    [
        ("LogTimeNoiseModel", "mean decline at 25 µS", "µS per decade"),
        ("StretchedExponentialNoiseModel", "mean decline at 25 µS after a long time", "µS"),
    ],
)
def test_scaled_drift_has_the_unit_of_its_law(model, words, unit):
    """20,000 cells, spread 0.2 of the mean: 0.14 % of it."""
    text, value, given = physical(device(model), "drift_scale", 1.0, DAY)
    assert (text, given) == (words, unit)
    assert value == pytest.approx(-LAWS[model][1][0][-1], rel=0.01)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"slope_spread_uS": [0.1, -0.1, 0.1]}, "slope_spread_uS holds -0.1; every entry"),
        ({"slope_mean_uS": [0.1, 0.1]}, "slope_mean_uS has 2 entries and table_uS 3"),
        ({"highest_uS": 20.0}, r"highest_uS = 20.0 must enclose g_min_uS = 5.0 to g_max_uS = 25"),
        ({"lowest_uS": 6.0}, "lowest_uS = 6.0 and highest_uS = None must enclose"),
        ({"table_uS": [6.0, 15.0, 25.0]}, "table_uS spans 6.0 to 25.0"),
        ({"t_0_s": 0.0}, r"noise.t_0_s = 0.0 is not allowed"),
        ({"nu_mean": [0.1] * 3}, "unknown key 'noise.nu_mean'"),
    ],
)
def test_wrong_log_time_sections_are_one_sentence(changes, words):
    with pytest.raises(ValueError, match=words) as caught:
        device("LogTimeNoiseModel", **changes)
    assert "\n" not in str(caught.value)


def test_wrong_stretched_exponentials_are_one_sentence():
    for changes, words in (({"beta": 0.0}, "beta = 0.0"), ({"tau_s": -1.0}, "tau_s = -1.0")):
        with pytest.raises(ValueError, match=words) as caught:
            device("StretchedExponentialNoiseModel", **changes)
        assert "\n" not in str(caught.value)
