"""The code and the commands of docs/OWN.md run as they stand."""

import os
import re
import shlex
import subprocess
import sys

import pytest
from places import ROOT

from analog_samson import read_trials

PAGE = (ROOT / "docs" / "OWN.md").read_text(encoding="utf-8")
MODULE, SCRIPT = re.findall(r"^```python\n(.*?)^```", PAGE, re.M | re.S)
(COMMANDS,) = re.findall(r"^```console\nexport PYTHONPATH=.\n(.*?)^```", PAGE, re.M | re.S)
(FILE,) = re.findall(r"^```toml\n(.*?)^```", PAGE, re.M | re.S)


def run(arguments, folder):
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": "."}
    command = [sys.executable, *arguments]
    done = subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_code_has_at_most_25_lines():
    lines = [line for line in (MODULE + SCRIPT).splitlines() if line.strip()]
    assert len([line for line in lines if not line.startswith("#")]) <= 25


@pytest.mark.slow
def test_code_commands_and_file_give_the_same_rows(tmp_path):
    for way in ("python", "console"):
        (tmp_path / way).mkdir()
        (tmp_path / way / "mine.py").write_text(MODULE)
    run(["-c", SCRIPT], tmp_path / "python")
    rows = read_trials(tmp_path / "python/results/mine")
    assert len(rows) == 2 * 2 * 2 * 2  # methods, seeds, chips, times
    assert rows["score"].unique() == ["mine:brier"]
    assert (rows["sum_digital_test"] / rows["n_test"]).max() < 0.5  # 0.5 is guessing
    page = (tmp_path / "python/results/mine/report.html").read_text(encoding="utf-8")
    assert "Brier score (lower is better)" in page

    console = tmp_path / "console"
    for line in COMMANDS.replace("\\\n", "").splitlines():
        program, script, *arguments = shlex.split(line)
        assert program == "python"
        files = sorted(str(f.relative_to(console)) for f in console.glob("networks/*.safetensors"))
        arguments = [
            path
            for word in arguments
            for path in (files if word == "networks/*.safetensors" else [word])
        ]
        run([str(ROOT / script), *arguments, "--jobs", "1"], console)
    again = read_trials(console / "results/mine")
    both = rows.merge(again, on=["chip_id", "t_inference_s", "read"])
    assert len(both) == len(rows)
    assert (both["sum_x"] == both["sum_y"]).all()

    (console / "study.toml").write_text(FILE)
    study = ["--study", "study.toml", "--trust", "mine", "--jobs", "1"]
    assert "Brier score" in run([str(ROOT / "experiments/drift_sweep.py"), *study], console)
