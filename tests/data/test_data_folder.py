"""Data of one's own in the folder of data sets are found by their name alone."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from places import ROOT

from analog_samson.data import path_in


@pytest.fixture
def folder(tmp_path):
    x, y = np.random.default_rng(0).random((90, 4)).astype(np.float32), np.arange(90) % 3
    (tmp_path / "sets").mkdir()
    parts = {"x_train": x[:60], "y_train": y[:60], "x_test": x[60:], "y_test": y[60:]}
    np.savez(tmp_path / "sets" / "a.npz", **parts)
    return tmp_path / "sets"


def test_a_name_is_a_path_only_where_it_lies_in_the_folder(folder):
    assert path_in("a.npz", folder) == str(folder / "a.npz")
    assert path_in("a.npz,normalise=none", folder) == f"{folder}/a.npz,normalise=none"
    for other in ("b.npz", "digits", "mnist", "module:function", "./a.npz"):
        assert path_in(other, folder) == other
    assert path_in("a.npz", None) == "a.npz"


@pytest.mark.slow
def test_train_methods_and_drift_sweep_find_it(folder, tmp_path):
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    place = ["--data-folder", "sets", "--jobs", "1"]
    training = ["--dataset", "a.npz", "--epochs", "1", "--methods", "sgd", "--folder", "networks"]
    network = Path("networks/a.npz-mlp-sgd-seed0.safetensors")
    sweep = [str(network), "--chips", "1", "--times-s", "1"]
    for script, words in (
        ("train_methods.py", [*training, "--options", "batch_size=8"]),
        ("drift_sweep.py", sweep),
    ):
        command = [sys.executable, ROOT / "experiments" / script, *words, *place]
        done = subprocess.run(
            command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr
    assert (tmp_path / network).exists()
