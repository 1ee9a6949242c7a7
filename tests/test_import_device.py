"""Claims about measured devices: a known device is recovered, and nothing is invented."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from analog_samson import load_device, program
from analog_samson.analog.moments import measure
from analog_samson.devices.fit import (
    LAWS,
    device_file,
    estimate_t_0,
    fit,
    read_measurements,
    resample,
)
from analog_samson.times import DAY, HOUR

SCRIPT = Path(__file__).parents[1] / "experiments" / "import_device.py"
T_0_S, T_READ_S = 20.0, 250e-9
TIMES_S = (1.0, 10.0, 60.0, 600.0, HOUR, 6 * HOUR, DAY)
TRUTH = pd.DataFrame(  # far enough from 0 that nothing is clipped
    {
        "target_uS": [5.0, 10.0, 15.0, 20.0, 25.0],
        "programming_offset_uS": [0.1, 0.0, -0.1, -0.2, -0.3],
        "programming_spread_uS": [0.6, 0.8, 1.0, 1.1, 1.0],
        "nu_mean": [0.07, 0.06, 0.05, 0.045, 0.04],
        "nu_spread": [0.02, 0.015, 0.01, 0.01, 0.008],
        "read_spread_relative": [0.01, 0.008, 0.006, 0.005, 0.004],
    }
).set_index("target_uS")


def synthetic(n=400, seed=0) -> pd.DataFrame:
    """Retention of n devices a target, drawn from the model that the fit assumes."""
    generator = np.random.default_rng(seed)
    t = np.array(TIMES_S)
    parts = []
    for target, law in TRUTH.iterrows():
        error = generator.normal(law["programming_offset_uS"], law["programming_spread_uS"], n)
        nu = generator.normal(law["nu_mean"], law["nu_spread"], n)[:, None]
        drifted = (target + error)[:, None] * ((t + T_0_S) / T_0_S) ** -nu
        q = law["read_spread_relative"] * np.sqrt(np.log((t + T_0_S + T_READ_S) / (2 * T_READ_S)))
        g = drifted * (1 + q * generator.standard_normal((n, len(t))))
        parts.append(
            pd.DataFrame(
                {
                    "device": np.repeat([f"{target:g}-{number}" for number in range(n)], len(t)),
                    "target_uS": target,
                    "time_s": np.tile(t, n),
                    "conductance_uS": g.ravel(),
                }
            )
        )
    return pd.concat(parts, ignore_index=True)


@pytest.fixture(scope="module")
def measured() -> pd.DataFrame:
    return synthetic()


def test_a_known_device_is_recovered_within_its_intervals(measured):
    """25 intervals of 99.99 %: one that misses by chance has a probability of 0.0025."""
    found = fit(measured, t_0_s=T_0_S, t_read_s=T_READ_S, confidence=0.9999)
    laws = found.laws.set_index("target_uS")
    for law in LAWS:
        assert (laws[f"{law}_low"] <= TRUTH[law]).all(), law
        assert (TRUTH[law] <= laws[f"{law}_high"]).all(), law
        width = laws[f"{law}_high"] - laws[f"{law}_low"]
        assert (width < 0.6 * TRUTH[law].abs() + 0.5).all()
    np.testing.assert_allclose(laws["nu_mean"], TRUTH["nu_mean"], rtol=0.1)
    np.testing.assert_allclose(laws["nu_spread"], TRUTH["nu_spread"], rtol=0.25)
    assert found.r_squared > 0.9 and found.p_normal > 1e-4


def test_t_0_is_found(measured):
    assert estimate_t_0(measured) == pytest.approx(T_0_S, rel=0.2)


def test_the_device_file_has_the_moments_of_the_measurements(measured, tmp_path):
    """n = 4000 devices a level in the datasheet, 400 in the measurements: 3.5 % a spread."""
    found = fit(measured, t_0_s=T_0_S, t_read_s=T_READ_S)
    path = tmp_path / "mine.toml"
    prose = {"name": "mine", "technology": "ReRAM", "source": 'wafer "7"'}
    path.write_text(device_file(found, **prose, summary="Ours.", limits="One die."), "utf-8")
    device = load_device(path)
    assert device.times.measured_to_s == DAY and "One die." in device.limits
    moments = measure(device, [DAY], n_levels=6)
    rows = moments[moments["quantity"] == "programming"].set_index("g_uS").loc[5.0:]
    np.testing.assert_allclose(rows["spread"], TRUTH["programming_spread_uS"], rtol=5 * 0.037)
    read = moments[moments["quantity"] == "read"].set_index("g_uS").loc[25.0, "spread"]
    observed = 25 * (DAY / T_0_S) ** -0.04 * 0.004 * np.sqrt(np.log(DAY / (2 * T_READ_S)))
    assert read == pytest.approx(observed, rel=0.1)


def test_a_chip_of_a_measured_device_keeps_its_exponents(measured, tmp_path):
    import torch

    found = fit(measured, t_0_s=T_0_S, t_read_s=T_READ_S)
    path = tmp_path / "mine.toml"
    prose = {"name": "mine", "technology": "ReRAM", "source": "ours"}
    path.write_text(device_file(found, **prose, summary="Ours.", limits="One die."), "utf-8")
    layer = torch.nn.Linear(50, 50)
    quiet = load_device(path).with_axes({"read_noise_1f_scale": 0.0})
    chip = program(layer, quiet)
    g = [chip.drift_to(t).conductances()[""][0][0].double() for t in (0.0, HOUR, DAY)]
    alive = g[0] > 0.5
    nu = [
        -torch.log(aged[alive] / g[0][alive]) / np.log((t + found.t_0_s) / found.t_0_s)
        for aged, t in zip(g[1:], (HOUR, DAY), strict=True)
    ]
    torch.testing.assert_close(nu[0], nu[1], atol=1e-4, rtol=0)


def test_resampled_devices_are_measured_ones_in_log_time(measured):
    drawn = resample(measured, 15.0, [60.0, HOUR], n=1000, seed=1)
    one = measured[measured["target_uS"] == 15.0]
    for column, t in enumerate((60.0, HOUR)):
        assert set(drawn[:, column]) <= set(one.loc[one["time_s"] == t, "conductance_uS"])
    between = resample(measured, 15.0, [60.0, 200.0, 600.0], n=10, seed=1)
    share = (np.log1p(200.0) - np.log1p(60.0)) / (np.log1p(600.0) - np.log1p(60.0))
    expected = between[:, 0] + share * (between[:, 2] - between[:, 0])
    np.testing.assert_allclose(between[:, 1], expected)


def test_a_time_beyond_the_data_is_refused_without_the_flag(measured):
    with pytest.raises(ValueError, match=r"No measurements at 172800 s.* from 1 to 86400 s"):
        resample(measured, 15.0, [2 * DAY], n=5, seed=0)
    assert resample(measured, 15.0, [2 * DAY], n=5, seed=0, extrapolate=True).shape == (5, 1)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda rows: rows.drop(columns="time_s"), "column 'time_s' is missing"),
        (lambda rows: rows.assign(time_s="late"), r"line 2: time_s = late"),
        (lambda rows: rows.assign(conductance_uS=-1.0), r"line 2: conductance_uS = -1.0"),
        (lambda rows: rows.assign(device="one"), "'one' has more than one target"),
    ],
)
def test_wrong_measurements_are_one_sentence(measured, tmp_path, change, words):
    change(measured.iloc[:: len(TIMES_S) * 50]).to_csv(tmp_path / "wrong.csv", index=False)
    with pytest.raises(ValueError, match=rf"wrong.csv.*{words}"):
        read_measurements(tmp_path / "wrong.csv")


def test_too_few_measurements_are_refused(measured):
    with pytest.raises(ValueError, match="fewer than 3 times"):
        fit(measured[measured["time_s"] < 60], t_0_s=T_0_S, t_read_s=T_READ_S)
    with pytest.raises(ValueError, match="1 target; at least 2"):
        fit(measured[measured["target_uS"] == 5], t_0_s=T_0_S, t_read_s=T_READ_S)


def test_the_script_writes_a_device_that_loads(measured, tmp_path):
    small = synthetic(n=40)
    small.to_csv(tmp_path / "retention.csv", index=False)
    command = [sys.executable, str(SCRIPT), "retention.csv", "--name", "mine", "--technology"]
    command += ["ReRAM", "--source", "ours", "--t-read-s", "250e-9"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, check=False)
    assert done.returncode == 0, done.stderr
    assert load_device(tmp_path / "devices" / "mine.toml").noise.g_max_uS == 25.0
    assert (tmp_path / "devices" / "fit_mine.png").stat().st_size > 1000
    missing = subprocess.run(
        [*command[:2], "nothing.csv", *command[3:]],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        check=False,
    )
    assert missing.returncode == 1 and "No measurements nothing.csv" in missing.stderr
    assert "Traceback" not in missing.stderr
