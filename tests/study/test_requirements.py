"""Claims about requirements: known tolerances, resumed searches, chips as those of any study."""

import importlib
import json
import math
import shutil
import sys
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from scipy import optimize, stats

from analog_samson import Study, collect, load_device, read_trials
from analog_samson.analog.moments import measure
from analog_samson.checkpoint import TrainingSpec, load_checkpoint
from analog_samson.data import load_test
from analog_samson.devices import Device
from analog_samson.devices.noise_sources import noise_sources
from analog_samson.devices.writing import resampled_file
from analog_samson.study import estimate_tolerances, tolerances
from analog_samson.study.requirements import physical
from analog_samson.study.sources import the_checkpoint
from analog_samson.training import train

LINEAR = """
from torch import nn

def linear(image_shape, n_classes):
    return nn.Linear(image_shape[0], n_classes)
"""


@pytest.fixture
def study(checkpoints):
    return Study("needed", checkpoints[:1], ["pcm_like"], ["1 d"], n_chips=5, n_test=200)


@pytest.fixture
def linear(tmp_path, monkeypatch):
    """A trained linear classifier of 20 inputs and 2 outputs, its data in a file."""
    draws = np.random.default_rng(0)
    x = draws.normal(size=(1500, 20)).astype("float32")
    y = (x @ draws.normal(size=20) > 0).astype("int64")
    arrays = {"x_train": x[:500], "y_train": y[:500], "x_test": x[500:], "y_test": y[500:]}
    np.savez(tmp_path / "halves.npz", **arrays)
    (tmp_path / "linear_model.py").write_text(LINEAR)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.chdir(tmp_path)
    importlib.invalidate_caches()
    spec = TrainingSpec(dataset="halves.npz", model="linear_model:linear", epochs=3, lr=0.05)
    yield train(spec, tmp_path)
    sys.modules.pop("linear_model", None)


@pytest.mark.slow
def test_a_linear_classifier_has_the_tolerance_of_the_formula(linear, tmp_path):
    """Gaussian weight noise s sigma max|w| by output: sample k is right with the probability
    Phi(margin_k / (s sigma |x_k| sqrt(m_0^2 + m_1^2))). One search, 40 chips, seed 0: the interval
    of one network covers it with at least 95 %."""
    network = load_checkpoint(linear, trust=["linear_model"])
    test = load_test(network.spec.dataset)
    model = network.build()
    x = network.normalise(test.images)
    outputs = model(x).detach().double().numpy()
    margin = np.where(test.labels.numpy() == 1, 1, -1) * (outputs[:, 1] - outputs[:, 0])
    width = np.linalg.norm(model.weight.detach().abs().amax(dim=1).numpy())
    device = load_device("gaussian_max").with_axes({"sigma": 0.15})
    spread = device.noise.sigma * width * np.linalg.norm(x.numpy(), axis=1)
    clean = (margin > 0).mean()

    def lost(scale):
        return clean - stats.norm.cdf(margin / (scale * spread)).mean()

    true = optimize.brentq(lambda scale: lost(scale) - 0.02, 1e-3, 1e3)
    study = Study("line", [linear], [device], [0.0], n_chips=40, trust=["linear_model"])
    found = tolerances(study, tmp_path / "found", 2.0).iloc[0]
    assert 0.5 < found["low"] < true < found["high"] < 16
    assert found["factor"] == pytest.approx(true, rel=0.4)
    assert (found["nominal"], found["unit"]) == (15.0, "% of the largest weight")


@pytest.mark.slow
def test_a_stopped_search_continues_and_asks_for_no_chip_twice(study, tmp_path):
    options = {"sources": ["drift_scale"]}
    whole = tolerances(study, tmp_path / "whole", 3.0, **options)
    table = tmp_path / "whole" / "trials.csv"
    before = table.read_bytes()
    pd.testing.assert_frame_equal(tolerances(study, tmp_path / "whole", 3.0, **options), whole)
    assert table.read_bytes() == before
    shutil.copytree(tmp_path / "whole", tmp_path / "killed")
    half = before[: len(before) // 2]  # in the middle of a row
    (tmp_path / "killed" / "trials.csv").write_bytes(half)
    again = tolerances(study, tmp_path / "killed", 3.0, **options, jobs=2)
    pd.testing.assert_frame_equal(again, whole)
    rows = [
        (tmp_path / name / "trials.csv").read_text().splitlines() for name in ("whole", "killed")
    ]
    assert sorted(rows[0]) == sorted(rows[1]) and len(set(rows[0])) == len(rows[0])


@pytest.mark.slow
def test_chips_at_a_scale_of_one_are_those_of_a_plain_study(study, tmp_path):
    tolerances(study, tmp_path / "found", 3.0, sources=["drift_scale"], others="nominal")
    rows = read_trials(tmp_path / "found")
    own = noise_sources(load_device("pcm_like"))
    at_one = rows[[json.loads(text) == own for text in rows["condition"]]]
    n = at_one.groupby("checkpoint").size().max()
    plain = collect(replace(study, n_chips=int(n)), tmp_path / "plain")
    both = at_one.merge(plain, on=["chip_id", "t_inference_s", "read"], suffixes=("", "_plain"))
    assert len(both) == len(at_one) == 5
    assert (both["n_correct"] == both["n_correct_plain"]).all()
    manifest = json.loads((tmp_path / "found" / "manifest.json").read_text())
    assert manifest["study"]["name"] == "needed" and "pcm_like" in manifest["devices"]


@pytest.mark.slow
def test_other_sources_at_nominal_leave_less_room(study, tmp_path):
    of = {"lose": 4.0, "sources": ["drift_scale", "output_noise"]}
    alone = tolerances(study, tmp_path, **of)
    together = tolerances(study, tmp_path, **of, others="nominal")  # in the same table
    assert together["factor"].mean() < alone["factor"].mean()


@pytest.mark.slow
def test_other_sources_that_miss_the_target_alone_are_said(study, tmp_path):
    """At ten times its output noise the device loses far more than 3 points without any drift."""
    loud = load_device("pcm_like").with_axes({"output_noise": 2.0})
    loud_study = replace(study, devices=[loud])
    of = {"lose": 3.0, "sources": ["drift_scale", "output_noise"], "others": "nominal"}
    found = tolerances(loud_study, tmp_path, **of).set_index("source")
    assert found["missed"].to_dict() == {"drift_scale": True, "output_noise": False}
    assert found.loc["drift_scale", "bound"] == "below"


@pytest.mark.slow
def test_other_scores_lose_in_their_own_unit_and_direction(study, tmp_path):
    entropy = replace(study, score="cross_entropy")
    found = tolerances(entropy, tmp_path / "found", 20.0, sources=["all together"])
    assert found["lose"].iloc[0] == pytest.approx(math.log(1.2))
    assert not found["higher_is_better"].any()
    assert (found["low"] < found["factor"]).all() and (found["high"] < 16).all()


@pytest.mark.slow
def test_a_yield_is_stricter_than_the_mean(study, tmp_path):
    many = replace(study, n_chips=20)
    of = {"lose": 5.0, "sources": ["all together"], "confidence": 0.5}
    mean = tolerances(many, tmp_path, **of)["factor"].iloc[0]
    share = tolerances(many, tmp_path, **of, share=0.7).iloc[0]
    assert share["low"] < mean and share["factor"] < 1.1 * mean and share["share"] == 0.7


@pytest.mark.slow
def test_costs_are_stated_before_anything_runs(study, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    cost = estimate_tolerances(study, 3.0)
    assert 5 * 25 < cost.n_chips < 5 * 20 * 5 and cost.seconds > 0
    more = estimate_tolerances(replace(study, n_chips=100), 3.0, share=0.9)
    assert more.n_chips > 5 * cost.n_chips
    assert not list(tmp_path.iterdir())


def test_physical_values_are_those_of_the_devices_laws():
    device = load_device("pcm_like")
    text, spread, unit = physical(device, "programming_noise_scale", 1.0, 86400.0)
    law = -1.1731 + 1.9650 + 0.2635  # Nandakumar et al. 2019, as in aihwkit, at g = g_max
    assert (text, unit) == ("programming spread at 25 µS", "µS")
    assert spread == pytest.approx(law, rel=0.02)  # 20,000 cells: 0.5 %
    assert physical(device, "drift_scale", 1.0, 86400.0)[1] == pytest.approx(0.049, rel=0.02)
    _, read, _ = physical(device, "read_noise_1f_scale", 1.0, 86400.0, "nominal")
    moments = measure(device.with_axes({"read_noise_1f_scale": 2.0}), [86400.0], n_levels=2)
    doubled = moments[moments["quantity"] == "read"].iloc[-1]["spread"]
    assert doubled == pytest.approx(2 * read, rel=0.06)
    stuck = device.with_axes({"stuck_low": 0.1, "stuck_high": 0.1})
    found = physical(stuck, "programming_noise_scale", 1.0, 86400.0)  # of cells that can be written
    assert found == (text, spread, unit)
    assert physical(device, "output_noise", 0.04, 1.0)[1:] == (0.04, "normalised")
    assert physical(load_device("gaussian_max"), "sigma", 0.038, 0.0)[1] == pytest.approx(3.8)
    assert physical(device, "all together", 1.0, 1.0)[0] == ""
    fields = {"model": "LogTimeNoiseModel", "source": "made up", "t_0_s": 1.0, "t_read_s": 1e-6}
    tables = dict.fromkeys(("programming_offset_uS", "programming_spread_uS"), (0.0, 0.0))
    tables |= {"table_uS": (0.0, 25.0), "read_spread_relative": (0.0, 0.0)}
    slopes = {"slope_mean_uS": (0.0, -0.2), "slope_spread_uS": (0.0, 0.0)}
    noise = fields | tables | slopes | {"g_max_uS": 25.0}
    content = {**device.model_dump(exclude_defaults=True), "noise": noise}
    text, slope, unit = physical(Device(**content), "drift_scale", 1.0, 86400.0)
    assert (text, unit) == ("mean decline at 25 µS", "µS per decade")
    assert slope == pytest.approx(0.2)
    noisy = load_device("sonos_agrawal2022_read_noise")
    found = physical(noisy, "mvm_read_noise_uS", 0.1, 86400.0)
    assert found == ("read noise of a cell in a product", 0.1, "µS")
    for name in ("reram_wan2022", "reram_cmo", "sonos_agrawal2022_crosssim_3_2"):
        other = load_device(name)
        text, value, _ = physical(other, "programming_noise_scale", 1.0, 86400.0)
        assert "spread at" in text and value > 0


def test_read_noise_is_that_of_the_cells_that_were_searched():
    """With drift off a cell keeps its conductance, and the noise is relative to that."""
    device = load_device("pcm_like")
    year = 31_536_000.0
    q = 0.0088  # at g = g_max, Nandakumar et al. 2019, as in aihwkit
    still = 25.0 * q * math.sqrt(math.log((year + 20 + 250e-9) / (2 * 250e-9)))
    found = {
        others: physical(device, "read_noise_1f_scale", 1.0, year, others)[1]
        for others in ("off", "nominal")
    }
    assert found["off"] == pytest.approx(still, rel=0.02)  # 20,000 cells: 0.5 %
    drifted = 20 / (year + 20)
    assert found["nominal"] == pytest.approx(still * drifted**0.049, rel=0.03)


def test_scaled_chips_are_those_of_a_study_with_axes(study):
    settings = {"drift_scale": 2.0, "output_noise": 0.0}
    axes = {axis: [value] for axis, value in settings.items()}
    with_axes = replace(study, axes=axes).trials()
    assert study.under(settings, study.trials()) == with_axes
    assert [t.chip_id for t in study.under(settings, study.trials())] == [
        trial.chip_id for trial in with_axes
    ]


@pytest.mark.slow
def test_a_finished_search_reads_every_network_once(study, tmp_path, monkeypatch):
    tolerances(study, tmp_path, 3.0, sources=["drift_scale"])
    from_files = []

    def counted(path, *args, **kwargs):
        from_files.append(path)
        return the_checkpoint(path, *args, **kwargs)

    monkeypatch.setattr("analog_samson.study.definition.the_checkpoint", counted)
    tolerances(study, tmp_path, 3.0, sources=["drift_scale"])
    assert from_files == list(study.checkpoints)


@pytest.mark.parametrize(
    ("changes", "options", "message"),
    [
        ({}, {"lose": 0.0}, "must be above 0"),
        ({}, {"share": 2.0}, "fraction between 0 and 1"),
        ({}, {"sources": ["drift"]}, "Unknown noise source 'drift'"),
        ({}, {"others": "on"}, "'off' or 'nominal'"),
        ({"n_chips": 1}, {}, "One chip shows no spread"),
        ({"devices": ["ideal"]}, {}, "no noise source to scale"),
        ({"devices": ["reram_wan2022"], "times_s": ["1 y"]}, {}, "has no data at"),
        ({"devices": ["pcm_like", "pcm_hermes"]}, {}, "must have one device and one time"),
        ({"times_s": [1.0, 2.0]}, {}, "must have one device and one time"),
        ({"axes": {"drift_scale": [1.0]}}, {}, "leave them out"),
        ({"score": "mse"}, {}, "is for regression"),
        ({}, {"lose": 100.0}, "more than any chip can lose"),
    ],
)
def test_wrong_requirements_are_refused_before_any_chip(study, tmp_path, changes, options, message):
    with pytest.raises(ValueError, match=message):
        tolerances(replace(study, **changes), tmp_path / "no", **{"lose": 1.0, **options})
    assert not (tmp_path / "no").exists()


def test_cells_whose_noise_has_no_scale_are_not_called_off(study, tmp_path):
    """Trajectories of measured cells are no noise source, and stay with every scale."""
    cells = ["device,target_uS,time_s,conductance_uS"]
    cells += [f"{g}-{k},{g},{t},{g + k}" for g in (1, 20) for k in (0, 1) for t in (0, 1e6)]
    (tmp_path / "cells.csv").write_text("\n".join(cells))
    prose = dict.fromkeys(("technology", "source", "summary", "limits"), "made up")
    text = resampled_file(tmp_path / "cells.csv", name="cells", **prose)
    (tmp_path / "cells.toml").write_text(text, encoding="utf-8")
    measured = replace(study, devices=[tmp_path / "cells.toml"])
    with pytest.raises(ValueError, match="ResampledNoiseModel.*others='nominal'"):
        estimate_tolerances(measured, 5.0)
    assert estimate_tolerances(measured, 5.0, others="nominal").n_chips > 0


@pytest.mark.slow
def test_a_network_that_loses_too_much_without_noise_is_named(study, tmp_path):
    coarse = load_device("pcm_like").with_axes({"adc_bits": 3, "dac_bits": 2})
    with pytest.raises(ValueError, match=r"loses .* with all noise sources .* off") as refused:
        tolerances(replace(study, devices=[coarse]), tmp_path, 0.5)
    assert study.checkpoints[0].name in str(refused.value)
