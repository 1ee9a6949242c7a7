"""Tied axes, named times and settings of layers, in Python, TOML and on the command line."""

import contextlib
import json
from dataclasses import replace

import pandas as pd
import pytest

from analog_samson.devices import load_device
from analog_samson.results import read_trials, summarise
from analog_samson.study import Primary, Study, collect, load_study
from analog_samson.study.axes import grid_points
from analog_samson.times import DAY, HOUR, MONTH, TIME_GRIDS, WEEK, YEAR, seconds

NOISE = {"programming_noise_scale": [0.5, 1, 2.0], "read_noise_1f_scale": "same"}


@pytest.fixture(scope="module")
def study(checkpoints):
    return Study("axes", checkpoints[:1], ["pcm_like"], ["1 d"], n_chips=1, n_test=50)


def test_one_value_sets_all_tied_settings(study):
    trials = replace(study, axes={"noise_scale": NOISE, "drift_scale": [0.0, 1.0]}).trials()
    assert len(trials) == 6
    found = {trial.condition: trial.device.noise for trial in trials}
    for value in NOISE["programming_noise_scale"]:
        for drift in (0.0, 1.0):
            noise = found[json.dumps({"drift_scale": drift, "noise_scale": value})]
            assert noise.programming_noise_scale == noise.read_noise_1f_scale == value
            assert noise.drift_scale == drift


def test_tied_lists_are_tied_value_by_value_and_named_by_the_first():
    tied = {"programming_noise_scale": [0.5, 1.0], "g_max_uS": [20.0, 25.0], "t_0_s": "same"}
    points = grid_points({"corner": tied}, "s")
    assert [point.axes for point in points] == [{"corner": 0.5}, {"corner": 1.0}]
    assert [point.settings["g_max_uS"] for point in points] == [20.0, 25.0]
    assert [point.settings["t_0_s"] for point in points] == [0.5, 1.0]


def test_a_tied_axis_is_the_same_chip_as_two_axes_with_equal_values(study):
    tied = replace(study, axes={"noise_scale": NOISE}).trials()
    both = dict.fromkeys(NOISE, NOISE["programming_noise_scale"])
    single = replace(study, axes=both).trials()
    assert {trial.chip_id for trial in tied} < {trial.chip_id for trial in single}


WRONG = [
    ({"n": {}}, r"Axis 'n' of study 'axes' ties 0 settings; give two or more"),
    (
        {"mapping": {"max_rows": [64]}},
        r'ties 1 settings; .* quote the name of one setting: "mapping.max_rows" = ',
    ),
    ({"n": dict.fromkeys(NOISE, "same")}, r'has no values: every setting is "same"'),
    (
        {"n": {"programming_noise_scale": [1.0], "drift_scale": [0.0, 1.0]}},
        r"different lengths, 1 of 'programming_noise_scale', 2 of 'drift_scale'; give equal",
    ),
    (
        {"n": {"programming_noise_scale": [1.0, 1.0], "drift_scale": "same"}},
        r"has the value 1.0 twice in its first list",
    ),
    ({"n": {**NOISE, "drift_scale": "sme"}}, r"axes = 'sme' is not allowed: .*'same'"),
    ({"n": {**NOISE, "drift_scale": []}}, r"axes = \[\] is not allowed: .*at least 1 item"),
    ({"n": {**NOISE, "drift_scal": "same"}}, r"'drift_scal'; did you mean 'drift_scale'"),
    ({"drift_scale": NOISE}, r"ties settings, and device 'pcm_like' has a setting of that name"),
    ({"max_rows": NOISE}, r"ties settings, and device 'pcm_like' has a setting of that name"),
    ({"noise scale": NOISE}, r"needs a name of letters, digits and '_'"),
    (
        {"n": NOISE, "read_noise_1f_scale": [1.0]},
        r"sets 'read_noise_1f_scale' by two axes, 'n' and 'read_noise_1f_scale'",
    ),
    ({"layers.0.drift_scal": [1.0]}, r"unknown key 'drift_scal'; did you mean 'drift_scale'"),
    ({"layers.0.max_rows": [64]}, r"a setting of layers is named 'layers.PATTERN.key'"),
    ({"layers.drift_scale": [1.0]}, r"a setting of layers is named 'layers.PATTERN.key'"),
]


@pytest.mark.parametrize(("axes", "words"), WRONG)
def test_wrong_axes_are_refused_in_one_sentence(axes, words, study):
    with pytest.raises(ValueError, match=words) as error:
        replace(study, axes=axes).trials()
    assert "\n" not in str(error.value)


def test_a_study_file_ties_settings_names_times_and_remembers_both(study, tmp_path):
    file = tmp_path / "study.toml"
    file.write_text(
        f'name = "tied"\ncheckpoints = ["{study.checkpoints[0]}"]\ndevices = ["pcm_like"]\n'
        'times_s = ["1 s", "1 h", "1 week", 100.0]\nn_chips = 1\nn_test = 50\n[axes]\n'
        'noise_scale = {programming_noise_scale = [2.0, 10.0], read_noise_1f_scale = "same"}\n'
    )
    loaded = load_study(file)
    assert loaded.times_s == [1.0, HOUR, WEEK, 100.0]
    folder = tmp_path / "results"
    rows = collect(replace(loaded, times_s=["1 s"]), folder)
    assert set(rows["condition"]) == {'{"noise_scale": 2.0}', '{"noise_scale": 10.0}'}
    manifest = json.loads((folder / "manifest.json").read_text())
    axis = {"programming_noise_scale": [2.0, 10.0], "read_noise_1f_scale": "same"}
    assert manifest["study"]["axes"] == {"noise_scale": axis}
    assert manifest["study"]["times_s"] == [1.0]
    assert len(summarise(rows)) == 2


@pytest.mark.parametrize(
    ("other", "is_refused"),
    [
        ({"programming_noise_scale": [0.5, 2.0], "drift_scale": "same"}, True),
        ({"programming_noise_scale": [1, 3], "read_noise_1f_scale": [1, 4]}, False),
        ({"programming_noise_scale": [1, 2], "read_noise_1f_scale": [1, 3]}, True),
        ({"programming_noise_scale": [4.0], "read_noise_1f_scale": "same"}, False),
    ],
)
def test_studies_whose_tied_axes_mean_different_settings_are_not_merged(
    other, is_refused, tmp_path
):
    for name, tied in (("a", NOISE), ("b", other)):
        (tmp_path / name).mkdir()
        manifest = {"study": {"axes": {"noise_scale": tied, "t_0_s": [20.0]}}}
        (tmp_path / name / "manifest.json").write_text(json.dumps(manifest))
        (tmp_path / name / "trials.csv").write_text("")
    refused = pytest.raises(ValueError, match="read the two studies separately")
    with refused if is_refused else contextlib.nullcontext():
        read_trials(tmp_path / "a", tmp_path / "b")


@pytest.mark.parametrize(
    ("text", "time"),
    [
        *(("1 s", 1.0), ("1 min", 60.0), ("1 h", HOUR), ("1 d", DAY), ("1 week", WEEK)),
        *(("1 mo", MONTH), ("1 y", YEAR), ("10y", 10 * YEAR), ("1.5 h", 5400.0), ("2e-3 s", 0.002)),
        *((20, 20.0), (1.5, 1.5), ("0 s", 0.0)),
    ],
)
def test_a_time_is_read_from_its_name(text, time):
    assert seconds(text) == time


@pytest.mark.parametrize(
    "text", ["1", "1 year", "h", "-1 s", "1 h 30 min", "one hour", "1  h", "nan s", "", True, None]
)
def test_a_text_that_is_no_time_is_refused_with_the_units(text):
    with pytest.raises(ValueError, match="one of the units s, min, h, d, week, mo, y; got"):
        seconds(text)


def test_named_times_are_the_same_study(study):
    device = {"pcm_like": ["1 h", 1.0]}
    assert replace(study, times_s=device).times_s == {"pcm_like": [HOUR, 1.0]}
    assert replace(study, times_s="rasch").times_s == TIME_GRIDS["rasch"]
    assert Primary("samson", "pcm_like", "1 y") == Primary("samson", "pcm_like", YEAR)
    for given, words in ((["1 yr"], "got '1 yr'"), ("rash", "unknown time grid 'rash'")):
        with pytest.raises(ValueError, match=words):
            replace(study, times_s=given)


def test_settings_of_layers_are_axes():
    device = load_device("pcm_like")
    for axis in ("layers.conv*.drift_scale", "layers.conv*.noise.drift_scale"):
        swept = device.with_axes({axis: 0.5})
        assert device.axis_name(axis) == "layers.conv*.drift_scale"
        assert swept.with_overrides_for("conv1").noise.drift_scale == 0.5
        assert swept.with_overrides_for("head") is swept
        assert swept.noise == device.noise
    digital = device.with_axes({"layers.a.b.digital": True})
    assert digital.digital_layers == ("a.b",)
    assert device.with_axes({"layers.a.b.digital": False}) == device
    twice = swept.with_axes({"layers.conv*.stuck_low": 0.1, "layers.conv1.drift_scale": 2.0})
    assert twice.with_overrides_for("conv1").noise.drift_scale == 2.0, "the new one goes first"
    assert twice.with_overrides_for("conv2").faults.stuck_low == 0.1
    assert twice.with_overrides_for("conv2").noise.drift_scale == 0.5


@pytest.mark.slow
def test_a_layer_without_noise_is_more_accurate_than_with_ten_times_as_much(study, tmp_path):
    axes = {"layers.*.programming_noise_scale": [0.0, 10.0]}
    rows = collect(replace(study, axes=axes, n_chips=3), tmp_path / "layers")
    found = pd.Series(
        rows["n_correct"].to_numpy(),
        index=rows["condition"].map(lambda c: max(json.loads(c).values())),
    )
    assert found[0.0].min() > found[10.0].max()
