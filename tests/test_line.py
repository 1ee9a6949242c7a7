"""The whole line on real images: train, program, drift, report."""

import subprocess
import sys
from pathlib import Path

import pytest

from analog_samson import Study, collect, summarise
from analog_samson.checkpoint import TrainingSpec
from analog_samson.report import write_report
from analog_samson.times import DAY, YEAR
from analog_samson.training import train

EXPERIMENTS = Path(__file__).parents[1] / "experiments"


def run(script, *arguments, cwd):
    return subprocess.run(
        [sys.executable, EXPERIMENTS / script, *map(str, arguments)],
        cwd=cwd,
        capture_output=True,
        text=True,
    )


def test_quickstart_ends_in_a_table_and_a_figure(tmp_path):
    done = run("quickstart.py", "--seeds", 1, "--chips", 1, "--jobs", 1, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    folder = tmp_path / "results" / "quickstart"
    for name in ("trials.csv", "accuracy.md", "accuracy.tex", "accuracy.pdf", "accuracy.png"):
        assert (folder / name).stat().st_size > 0, name
    table = (folder / "accuracy.md").read_text()
    assert all(method in table for method in ("SGD", "SAM", "SAMSON", "RWP"))
    assert "pcm_like" in table and "reram_wan2022" in table and table in done.stdout


@pytest.mark.parametrize(("dataset", "model"), [("mnist", "lenet5"), ("cifar10", "resnet8")])
def test_real_images_from_parquet_to_a_table(dataset, model, real_data, tmp_path):
    spec = TrainingSpec(dataset=dataset, model=model, epochs=0)
    checkpoint = train(spec, tmp_path, data_folder=real_data)
    study = Study(
        dataset,
        [checkpoint],
        ["pcm_like"],
        [1, YEAR],
        n_chips=1,
        n_test=64,
        data_folder=real_data,
    )
    summary = summarise(collect(study, tmp_path))
    assert summary["accuracy"].between(0, 1).all() and len(summary) == 2
    assert write_report(tmp_path)


@pytest.mark.parametrize(
    ("script", "arguments", "words"),
    [
        ("drift_sweep.py", ["nowhere.safetensors"], "no checkpoint 'nowhere.safetensors'"),
        ("drift_sweep.py", ["x", "--devices", "pcm_lik"], "did you mean 'pcm_like'"),
        ("noise_sweep.py", ["x", "--t-inference-s", "-1"], "at least 0 s"),
        ("drift_sweep.py", ["x", "--times-s", "1e300"], "between 1e-12 and 1e+12 s"),
        ("drift_sweep.py", ["x", "--times-s", "1", "1.0000000001"], "agree to nine digits"),
        ("drift_sweep.py", ["x", "--name", ".."], "a name has at most 100 letters"),
        ("drift_sweep.py", ["x", "--dask-local", "0"], "at least 1 worker; got 0"),
        ("train_methods.py", ["--methods", "sam:rho=abc"], "rho must be a finite number"),
        ("train_methods.py", ["--dataset", "digts"], "Did you mean 'digits'"),
        (
            "noise_sweep.py",
            ["x", "--chips", "0"],
            "n_chips = 0 is not allowed: input should be greater than or equal to 1",
        ),
    ],
)
def test_a_users_mistake_is_one_sentence_and_exit_code_1(script, arguments, words, tmp_path):
    done = run(script, *arguments, cwd=tmp_path)
    assert done.returncode == 1
    assert words in done.stderr
    assert "Traceback" not in done.stderr


def test_a_folder_that_cannot_be_written_is_said(tmp_path):
    blocked = tmp_path / "file"
    blocked.write_text("")
    checkpoint = train(TrainingSpec(epochs=0), tmp_path)
    with pytest.raises(OSError, match="cannot be"):
        collect(Study("s", [checkpoint], ["ideal"], [DAY], n_chips=1), blocked / "results")
