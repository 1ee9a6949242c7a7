"""The examples of docs/DEVICE.md, as a new user runs them: an own law, a log-time device."""

import math
import re

import pytest
import torch
from joblib.externals.loky import get_reusable_executor
from places import ROOT
from torch import nn

from analog_samson import Study, collect, load_device, program
from analog_samson.analog.moments import measure
from analog_samson.checkpoint import TrainingSpec
from analog_samson.devices.describe import parameters
from analog_samson.report.datasheet import save_datasheet
from analog_samson.times import DAY
from analog_samson.training import train

PAGE = (ROOT / "docs" / "DEVICE.md").read_text("utf-8")
BLOCKS = dict(re.findall(r"^```\w+\n# (\S+)\n(.*?)^```", PAGE, re.M | re.S))


@pytest.fixture
def folder(tmp_path, monkeypatch):
    for name, text in BLOCKS.items():
        (tmp_path / name).write_text(text, encoding="utf-8")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    get_reusable_executor().shutdown(wait=True)  # workers of earlier tests have another path
    return tmp_path


def test_an_own_law_is_short_and_needs_consent(folder):
    lines = [line for line in BLOCKS["my_cells.py"].splitlines() if line.strip()]
    assert len(lines) <= 25
    with pytest.raises(ValueError, match=r"requires the import of .*my_cells") as caught:
        load_device(folder / "my_cells.toml")
    assert "\n" not in str(caught.value)


def test_an_own_law_drifts_linearly_in_log_time(folder):
    device = load_device(folder / "my_cells.toml", trust=["my_cells"])
    layer = nn.Linear(400, 20)
    layer.weight.data.fill_(1.0)
    chip = program(layer, device, seed=1)
    g = [chip.drift_to(t).conductances()[""][0][0].double() for t in (0.0, 99.0, DAY)]
    slopes = [(aged - g[0]) / math.log10(1 + t) for t, aged in ((99.0, g[1]), (DAY, g[2]))]
    torch.testing.assert_close(*slopes, atol=1e-5, rtol=0)
    # n = 8000, seed 1; seven standard errors
    assert float(slopes[0].mean()) == pytest.approx(-0.1, abs=7 * 0.02 / math.sqrt(8000))
    assert float(slopes[0].std()) == pytest.approx(0.02, rel=7 / math.sqrt(16000))


@pytest.mark.slow
def test_an_own_law_has_a_datasheet_and_runs_in_workers(folder):
    device = load_device(folder / "my_cells.toml", trust=["my_cells"])
    moments = measure(device, [DAY], n=300, n_levels=5)
    assert set(moments.loc[moments["quantity"] == "slope", "unit"]) == {"µS per decade"}
    assert all(path.stat().st_size > 500 for path in save_datasheet(device, moments, folder))
    assert parameters(device).set_index("parameter").loc["noise.slope_uS", "value"] == "-0.1"
    network = train(TrainingSpec(epochs=0), folder)
    path = folder / "my_cells.toml"
    given = {"n_chips": 2, "n_test": 20, "trust": ["my_cells"]}
    study = Study("mine", [network], [path], [1.0, DAY], **given, axes={"slope_uS": [-0.1, 0.0]})
    alone, shared = (collect(study, folder / str(jobs), jobs=jobs) for jobs in (1, 2))
    key = ["chip_id", "t_inference_s"]
    columns = [*key, "n_correct"]
    both = [rows.sort_values(key)[columns].reset_index(drop=True) for rows in (alone, shared)]
    assert len(alone) == 8 and both[0].equals(both[1])


@pytest.mark.parametrize(
    ("file", "old", "new", "words"),
    [
        ("toml", ":LogTime", ":LogTim", "LogTim'"),
        ("toml", "my_cells:LogTime", "my_cells:LogTimeModel", "is not a section of this kind"),
        ("toml", "slope_uS = -0.1", 'slope_uS = "-0.1"', "slope_uS"),
        ("toml", "slope_uS = -0.1", "slop_uS = -0.1", "unknown key 'slop_uS'; did you mean"),
        ("py", "my_cells:LogTimeModel", "my_cells:Nothing", "Nothing"),
        (
            "py",
            'built_by, drift_parameter = "my_cells:LogTimeModel",',
            "drift_parameter =",
            "names no noise model; give its class the attribute built_by",
        ),
        ("py", "(BaseNoiseModel)", "", "is a class; .* must be derived from aihwkit's BaseNoise"),
        ("py", "apply_drift_noise_to", "apply_drift_to", "has no method 'apply_drift_noise_to_con"),
    ],
)
def test_errors_of_an_own_law_are_one_sentence(folder, monkeypatch, file, old, new, words):
    module = f"cells_{abs(hash((file, old, new)))}"
    for kind in ("py", "toml"):
        text = BLOCKS[f"my_cells.{kind}"]
        text = text.replace(old, new) if kind == file else text
        (folder / f"{module}.{kind}").write_text(text.replace("my_cells", module), "utf-8")
    with pytest.raises(ValueError, match=words) as caught:
        program(nn.Linear(4, 4), folder / f"{module}.toml", trust=[module])
    assert "\n" not in str(caught.value)


def test_the_log_time_file_of_the_page_loads(folder):
    device = load_device(folder / "log_time.toml")
    chip = program(nn.Linear(8, 4), device).drift_to(DAY)
    assert chip.weights()[""].isfinite().all() and device.noise.highest_uS == 22.0
