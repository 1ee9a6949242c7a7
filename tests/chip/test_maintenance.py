"""Maintenance: refresh by programming again, drift compensation that is measured at given times."""

import json
import math
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from matplotlib.figure import Figure
from torch import nn

from analog_samson import analog, load_device, program
from analog_samson.checkpoint import read_tensors, write_tensors
from analog_samson.chip import load_chip
from analog_samson.devices import validated
from analog_samson.devices.maintenance import cycle_and_age, last_measured
from analog_samson.report.axes import TimeAxis
from analog_samson.report.datasheet import datasheet
from analog_samson.report.sweeps import axis_figure
from analog_samson.report.tables import table
from analog_samson.report.words import condition_text, fixed_text
from analog_samson.results import has_trajectories, lifetime, summarise
from analog_samson.study import Study, accuracy_by_stage, collect, load_study
from analog_samson.times import DAY, HOUR, MONTH, WEEK, YEAR, exact_label, seconds

ENGINES = ["compiled", "aihwkit"]


@pytest.fixture(scope="module")
def network() -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return nn.Sequential(nn.Linear(80, 24), nn.ReLU(), nn.Linear(24, 10, bias=False))


def with_(name="pcm_like", **axes):
    return load_device(name).with_axes({"max_rows": 40, **axes})


def weights(chip):
    return torch.cat([weight.flatten() for weight in chip.weights().values()])


def alphas(chip):
    return torch.cat(list(chip.compensation().values()))


# --- times --------------------------------------------------------------------------------------


@pytest.mark.parametrize("time", [1.0, HOUR, WEEK, MONTH, YEAR, 1.5 * HOUR, 0.1, 1e-9, 123456.7])
def test_a_time_is_spelled_so_that_it_is_read_again(time):
    assert seconds(exact_label(time)) == time


def test_the_age_of_a_refreshed_chip_counts_from_the_last_multiple():
    assert cycle_and_age("never", YEAR) == (0, YEAR)
    assert cycle_and_age(MONTH, YEAR) == (12, 5 * DAY)
    assert cycle_and_age(MONTH, MONTH) == (1, 0.0)
    assert cycle_and_age(YEAR, MONTH) == (0, MONTH)
    assert cycle_and_age(0.1, 0.3) == (3, 0.0), "rounding errors make no age"


@pytest.mark.parametrize(
    ("times", "age", "expected"),
    [
        ("every time", 5.0, 5.0),
        ("1 h", HOUR / 2, None),
        ("1 h", HOUR, HOUR),
        ("1 h", YEAR, HOUR),
        ("1 h, 7 d", 6 * DAY, HOUR),
        ("1 h, 7 d", 8 * DAY, WEEK),
        ("every 7 d", 6 * DAY, None),
        ("every 7 d", 15 * DAY, 2 * WEEK),
        ("every 7 d", 2 * WEEK, 2 * WEEK),
    ],
)
def test_the_factor_in_use_is_that_of_the_last_time_of_measurement(times, age, expected):
    assert last_measured(times, age) == expected


def test_intervals_and_times_have_one_spelling():
    device = load_device("pcm_like")
    assert device.with_axes({"refresh_every": "1 mo"}) == with_times(device, refresh_every=MONTH)
    for given in ("1 h, 1 week", ["1 week", 3600], ["1 h", "7 d"], "7 d,1 h"):
        swept = device.with_axes({"compensation_times": given})
        assert swept.drift_compensation.measured_at == "1 h, 7 d"
        assert swept.drift_compensation.label == "global, measured at 1 h, 7 d"
    weekly = device.with_axes({"compensation_times": "every 1 week"})
    assert weekly.drift_compensation.label == "global, measured every 7 d"


def with_times(device, **axes):
    return device.with_axes(axes)


# --- refresh ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "engine"),
    [
        *(("pcm_like", engine) for engine in ENGINES),
        *(("reram_cmo", engine) for engine in ENGINES),
        ("pcm_like_as_in_aihwkit", "aihwkit"),
    ],
)
def test_a_refreshed_chip_is_programmed_again_and_its_drift_begins_anew(name, engine, network):
    device = load_device(name).with_axes({"refresh_every": MONTH})
    chip = program(network, device, seed=2, engine=engine)
    plain = program(network, name, seed=2, engine=engine)
    before = weights(chip.drift_to(MONTH - DAY))
    assert torch.equal(before, weights(plain.drift_to(MONTH - DAY))), "the first cycle is the chip"
    after = weights(chip.drift_to(MONTH + DAY))
    other = weights(chip.drift_to(2 * MONTH + DAY))
    fresh = weights(plain.drift_to(DAY))
    assert not torch.equal(after, fresh) and not torch.equal(after, other)
    assert torch.equal(weights(chip.drift_to(MONTH + DAY)), after), "in any order of times"
    assert torch.equal(weights(chip.drift_to(MONTH - DAY)), before)
    again = program(network, device, seed=2, engine=engine).drift_to(MONTH + DAY)
    assert torch.equal(weights(again), after)


def test_both_engines_have_the_same_refreshed_cells(network):
    device = with_(refresh_every=WEEK)
    chips = [program(network, device, seed=2, engine=engine) for engine in ENGINES]
    for time in (WEEK + HOUR, 3 * WEEK, YEAR):
        one, other = (chip.drift_to(time) for chip in chips)
        assert torch.equal(weights(one), weights(other))
        assert torch.equal(alphas(one), alphas(other))


@pytest.mark.parametrize("name", ["pcm_like", "pcm_state_independent"])
def test_a_refreshed_chip_has_the_statistics_of_a_fresh_one(name):
    """At t = k T + d: one layer of 200 x 200 weights, k = 1, 2, 3 against four fresh chips at d.

    Mean and standard deviation of the relative error of weights above 0.3 agree within four
    standard errors of a difference, false alarms 6e-5 each.
    """
    with torch.random.fork_rng():
        torch.manual_seed(1)
        layer = nn.Linear(200, 200, bias=False)
    network = nn.Sequential(layer)
    device = load_device(name).with_axes({"refresh_every": MONTH})
    chip = program(network, device, seed=0)
    target = layer.weight.detach()
    chosen = target.abs() > 0.5 * target.abs().max()

    def errors(at):
        return (at.weights()["0"] / target - 1)[chosen].double()

    fresh = [errors(program(network, name, seed=seed).drift_to(5 * DAY)) for seed in (7, 8, 9, 10)]
    own = [errors(chip.drift_to(k * MONTH + 5 * DAY)) for k in (1, 2, 3)]
    pooled, n = torch.cat(fresh), int(chosen.sum())
    for found in own:
        error = float(pooled.std()) * math.sqrt(1 / n + 1 / len(pooled))
        assert abs(float(found.mean() - pooled.mean())) < 4 * error
        kurtosis = float(((pooled - pooled.mean()) ** 4).mean() / pooled.var() ** 2)
        error = math.sqrt((kurtosis - 1) / 4 * (1 / n + 1 / len(pooled)))
        assert abs(float(found.std() / pooled.std()) - 1) < 4 * error


def test_cycles_do_not_share_their_programming_errors():
    """Correlation of 20,000 errors of cells above a third of g_max; five standard errors."""
    with torch.random.fork_rng():
        torch.manual_seed(1)
        network = nn.Sequential(nn.Linear(300, 200, bias=False))
    chip = program(network, load_device("pcm_like").with_axes({"refresh_every": DAY}), seed=0)
    (array,) = chip._conductance_arrays()
    target = array.targets()[0]
    chosen = target > 8.0
    found = []
    for cycle in range(4):
        chip.drift_to(cycle * DAY)
        found.append((array.states[0].programmed_uS - target)[chosen])
    correlation = torch.corrcoef(torch.stack(found)).triu(1).abs().max()
    assert correlation < 5 / math.sqrt(int(chosen.sum()))


def test_stuck_cells_and_variation_stay_with_a_refreshed_chip(network):
    device = with_(stuck_low=0.1, stuck_high=0.05, drift_by_array=0.3, refresh_every=DAY)
    chip = program(network, device, seed=2)
    stuck = [array.states[0].stuck_uS for array in chip._conductance_arrays()]
    scales = [array.physics.noise.drift_scale for array in chip._conductance_arrays()]
    chip.drift_to(3.5 * DAY)
    for array, before, scale in zip(chip._conductance_arrays(), stuck, scales, strict=True):
        assert torch.equal(array.states[0].stuck_uS.nan_to_num(), before.nan_to_num())
        assert array.physics.noise.drift_scale == scale


def test_a_saved_refreshed_chip_is_loaded_with_its_cells(network, tmp_path):
    device = with_(refresh_every=MONTH, compensation_times="1 h")
    chip = program(network, device, seed=2).drift_to(YEAR)
    loaded = load_chip(chip.save(tmp_path / "chip"), network)
    for time in (YEAR, YEAR + DAY, YEAR + MONTH, HOUR):
        assert torch.equal(weights(loaded.drift_to(time)), weights(chip.drift_to(time)))
        assert torch.equal(alphas(loaded), alphas(chip))


def test_cells_of_a_refresh_are_those_of_the_file(network, tmp_path):
    chip = program(network, with_(refresh_every=MONTH), seed=2).drift_to(YEAR)
    path = chip.save(tmp_path / "chip")
    tensors, header = read_tensors(path, "chip")
    name = next(name for name in tensors if name.endswith("programmed_uS"))
    tensors[name] += 0.5
    loaded = load_chip(write_tensors(path, tensors, header), network)
    assert torch.equal(loaded._state()[name], tensors[name])
    assert not torch.equal(weights(loaded), weights(chip))


def test_times_are_judged_by_the_time_since_the_last_programming():
    device = load_device("pcm_like").with_axes({"refresh_every": WEEK})
    assert load_device("pcm_like").is_extrapolated(YEAR) and not device.is_extrapolated(YEAR)
    wan = load_device("reram_wan2022").with_axes({"refresh_every": 2 * DAY})
    with pytest.raises(ValueError, match=r"0 s \(programmed\), the time since the refresh before"):
        wan.check_time(2 * DAY)
    measured = {"compensation": "global", "compensation_times": "every 2 d"}
    sonos = load_device("sonos_agrawal2022").with_axes(measured)
    assert sonos.check_time(5 * DAY) is None
    once = load_device("reram_wan2022").with_axes(measured | {"compensation_times": "1 h"})
    with pytest.raises(ValueError, match="no data at 3600 s .*at which drift compensation is mea"):
        once.check_time(DAY)


# --- measuring times ----------------------------------------------------------------------------


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("kind", ["global", "per_column", "per_layer"])
def test_the_factor_is_that_measured_last(kind, engine, network):
    images = torch.rand(32, 80, generator=torch.Generator().manual_seed(3))
    always = with_(compensation=kind)
    held = with_(compensation=kind, compensation_times="1 h, 7 d")
    given = {"seed": 2, "engine": engine, "calibration": images}
    if kind == "per_layer":
        given["recalibration"] = images
    chip, other = (program(network, device, **given) for device in (held, always))
    for time, measured in ((DAY, HOUR), (HOUR, HOUR), (YEAR, WEEK), (WEEK, WEEK), (DAY, HOUR)):
        chip.drift_to(time)
        assert torch.equal(weights(chip), weights(other.drift_to(time)))
        assert torch.equal(alphas(chip), alphas(other.drift_to(measured))), time
    assert (alphas(chip.drift_to(60.0)) == 1).all(), "before the first it is not measured"
    assert (alphas(other.drift_to(60.0)) != 1).all()
    outputs = chip.drift_to(YEAR)(images)
    assert not torch.equal(outputs, other.drift_to(YEAR)(images))


def test_a_factor_is_measured_in_one_read_and_used_in_all(network):
    device = with_(compensation_times="1 h")
    chip, always = (program(network, one, seed=2) for one in (device, with_()))
    measured = alphas(always.drift_to(HOUR, read=0))
    for read in (0, 1, 2):
        assert torch.equal(alphas(chip.drift_to(DAY, read=read)), measured)


def test_aihwkits_own_path_keeps_its_measured_factor(network):
    name = "pcm_like_as_in_aihwkit"
    device = load_device(name).with_axes({"compensation_times": "1 h"})
    chip, always = (program(network, one, seed=2) for one in (device, name))
    assert torch.equal(alphas(chip.drift_to(YEAR)), alphas(always.drift_to(HOUR)))
    assert torch.equal(weights(chip), weights(always.drift_to(YEAR)))


def test_compensation_is_measured_anew_after_every_refresh(network):
    device = with_(compensation_times="1 h", refresh_every=MONTH)
    chip, always = (program(network, one, seed=2) for one in (device, with_(refresh_every=MONTH)))
    for cycle in (1, 2):
        chip.drift_to(cycle * MONTH + 5 * DAY)
        assert torch.equal(alphas(chip), alphas(always.drift_to(cycle * MONTH + HOUR)))
    assert (alphas(chip.drift_to(MONTH + 60.0)) == 1).all()


def test_an_uncompensated_layer_stays_so_between_measurements(network):
    content = with_(compensation_times="1 h").model_dump()
    content["layers"] = [{"pattern": "2", "drift_compensation": {"kind": "none"}}]
    chip = program(network, validated(content, "mine"), seed=2).drift_to(YEAR)
    factors = chip.compensation()
    assert (factors["2"] == 1).all() and (factors["0"] > 1).all()


# --- studies ------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def study(digits_checkpoint):
    return Study("kept", [digits_checkpoint], ["pcm_like"], ["1 d", "1 y"], n_chips=2, n_test=60)


def test_fields_and_axes_are_the_same_chips(study):
    plain = study.trials()
    assert [t.chip_id for t in replace(study, refresh_every="never").trials()] == [
        t.chip_id for t in plain
    ]
    of_field = replace(study, refresh_every="1 mo", compensation_times=["1 h", "1 week"]).trials()
    axes = {"refresh_every": ["never", "1 mo"], "compensation_times": ["1 h, 1 week"]}
    of_axes = replace(study, axes=axes).trials()
    assert {t.chip_id for t in of_field} < {t.chip_id for t in of_axes}
    assert {t.condition for t in of_axes} == {
        '{"refresh_every": "never"}',
        f'{{"refresh_every": {MONTH}}}',
    }
    assert {t.labels["compensation"] for t in of_axes} == {"global, measured at 1 h, 7 d"}
    assert of_field[0].condition == f'{{"refresh_every": {MONTH}}}'


@pytest.mark.slow
def test_a_study_file_resumes_and_reports_by_refresh_and_measuring_times(study, tmp_path):
    file = tmp_path / "study.toml"
    file.write_text(
        f'name = "kept"\ncheckpoints = ["{study.checkpoints[0]}"]\ndevices = ["pcm_like"]\n'
        'times_s = ["1 d", "1 y"]\nn_chips = 2\nn_test = 60\n'
        'compensation_times = ["1 h", "1 week"]\n'
        '[axes]\nrefresh_every = ["never", "1 y", "1 mo"]\n'
    )
    loaded, folder = load_study(file), tmp_path / "results"
    first = collect(replace(loaded, times_s=["1 y"]), folder)
    rows = collect(loaded, folder)
    assert len(first) == 6 and len(rows) == 12
    alone = collect(replace(loaded, times_s=["1 d", "1 y"]), tmp_path / "once")
    order = ["chip_id", "t_inference_s"]
    counts = [t.sort_values(order)["n_correct"].tolist() for t in (rows, alone)]
    assert counts[0] == counts[1], "times are independent of the order of the work"
    manifest = json.loads((folder / "manifest.json").read_text())["study"]
    assert manifest["compensation_times"] == ["1 h", "1 week"]
    summary = summarise(rows)
    assert len(summary) == 6
    assert "global compensation, measured at 1 h, 7 d" in fixed_text(summary).lower()
    assert condition_text(f'{{"refresh_every": {MONTH}}}') == "refreshed every 1 mo"
    assert condition_text('{"refresh_every": "never"}') == "never refreshed"
    figure = axis_figure(summary, "refresh_every")
    labels = [text.get_text() for text in figure.axes[0].get_xticklabels()]
    assert labels == ["1 mo", "1 y", "never"]
    assert "refreshed every 1 mo" in table(summary).markdown()
    assert has_trajectories(rows).sum() == 4
    with pytest.raises(ValueError, match="programmed again in between"):
        lifetime(rows)


def test_stages_of_a_refreshed_chip_are_those_of_one_programming(digits_checkpoint):
    device = load_device("pcm_like").with_axes(
        {"refresh_every": MONTH, "compensation_times": "1 h", "drift_by_chip": 0.1}
    )
    stages = accuracy_by_stage(digits_checkpoint, device, YEAR, chips=1, n_test=100)
    assert stages["accuracy"].notna().all() and len(stages) == 7


def test_the_datasheet_says_that_chips_are_refreshed():
    device = load_device("pcm_like").with_axes({"refresh_every": "1 mo"})
    page = datasheet(device, analog.moments.measure(device, [DAY, YEAR], n_levels=3, n=20))
    said = " ".join(page._supxlabel.get_text().split()).replace("\u00a0", " ")
    assert "Cells since their last programming; chips are refreshed every 1 mo" in said


WRONG = [
    ({"refresh_every": -5.0}, r"refresh_every = -5.0 is not allowed: input should be 'never', or"),
    ({"refresh_every": "-1 mo"}, r"refresh_every = '-1 mo': A time is a number of seconds or a te"),
    ({"refresh_every": 0}, r"refresh_every = 0 is not allowed"),
    ({"refresh_every": "monthly"}, r"A time is a number of seconds .* got 'monthly'"),
    ({"compensation_times": "1 h", "compensation": "none"}, r"needs a compensation that is measur"),
    ({"compensation_times": "0 s"}, r"measured at times between 1e-12 and 1e\+12 s after program"),
    ({"compensation_times": "1 h, 3600 s"}, r"a time is given twice; give each once"),
    ({"compensation_times": []}, r"give one time or more, 'every 1 week' or 'every time'"),
    ({"compensation_times": "every week"}, r"A time is a number of seconds .* got 'week'"),
    ({"compensation_times": "1 h", "batch_norm": "recalibrated"}, r"needs batch_norm = 'trained'"),
    ({"layers.*.compensation_times": "1 h"}, r"measured_at is one for all layers"),
    ({"layers.*.batch_norm": "recalibrated"}, r"batch_norm is one for all layers"),
    ({"refresh_evry": "1 mo"}, r"did you mean 'refresh_every'"),
]


@pytest.mark.parametrize(("axes", "words"), WRONG)
def test_wrong_maintenance_is_refused_in_one_sentence(axes, words):
    with pytest.raises(ValueError, match=words) as error:
        load_device("pcm_like").with_axes(axes)
    assert "\n" not in str(error.value)


def test_a_study_that_gives_maintenance_twice_or_too_often_is_refused(study):
    with pytest.raises(ValueError, match="sets 'refresh_every' and sweeps it as an axis"):
        replace(study, refresh_every="1 mo", axes={"refresh_every": ["1 y"]}).trials()
    with pytest.raises(ValueError, match="more than 1,000,000 times before 1 y"):
        replace(study, refresh_every=1.0).trials()
    with pytest.raises(ValueError, match=r"refresh_every = \[1.0\] is not allowed"):
        replace(study, refresh_every=[1.0]).trials()


def test_only_extrapolated_times_are_shaded():
    """At 1 d and 1 mo known, at 1 week and 1 y not, as with a refresh every 2 weeks or so."""
    times = [DAY, WEEK, MONTH, YEAR]
    rows = pd.DataFrame({"t_inference_s": times, "extrapolated": [False, True, False, True]})
    ax = Figure().add_subplot()
    axis = TimeAxis(rows["t_inference_s"])
    axis.dress(ax)
    axis.shade(ax, rows)
    spans = [(patch.get_x(), patch.get_x() + patch.get_width()) for patch in ax.patches]
    expected = [
        (math.sqrt(DAY * WEEK), math.sqrt(WEEK * MONTH)),
        (math.sqrt(MONTH * YEAR), ax.get_xlim()[1]),
    ]
    assert np.allclose(spans, expected)
