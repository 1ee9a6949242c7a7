import subprocess
import sys

import pytest

MODULES = [
    "analog_samson",
    "analog_samson.devices",
    "analog_samson.importing",
    "analog_samson.methods",
    "analog_samson.results",
    "analog_samson.report",
    "analog_samson.times",
]


@pytest.mark.slow
@pytest.mark.parametrize("module", MODULES)
def test_reports_load_neither_torch_nor_aihwkit(module):
    program = (
        f"import sys, {module}; "
        "print([m for m in ('torch', 'aihwkit', 'torchvision') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "[]"


@pytest.mark.slow
def test_statistics_and_figures_are_reached_without_torch(tmp_path):
    program = (
        "import sys; from analog_samson import read_trials, summarise; "
        "from analog_samson.report import write_report; print('torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.stdout.strip() == "False", done.stderr
