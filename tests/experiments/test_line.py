"""The whole line on real images: train, program, drift, report."""

import json
import subprocess
import sys

import pytest
from analog_samson.experiments import noise_sweep
from places import ROOT
from synthetic_trials import make_trials

from analog_samson import Study, collect, summarise
from analog_samson.checkpoint import TrainingSpec
from analog_samson.report import write_report
from analog_samson.results import append_rows, read_trials
from analog_samson.times import DAY, YEAR
from analog_samson.training import train

EXPERIMENTS = ROOT / "experiments"


def run(script, *arguments, cwd):
    return subprocess.run(
        [sys.executable, EXPERIMENTS / script, *map(str, arguments)],
        cwd=cwd,
        capture_output=True,
        text=True,
    )


@pytest.mark.slow
def test_quickstart_ends_in_a_table_and_a_figure(tmp_path):
    done = run("quickstart.py", "--seeds", 1, "--chips", 1, "--jobs", 1, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    folder = tmp_path / "results" / "quickstart"
    for name in ("trials.csv", "accuracy.md", "accuracy.tex", "accuracy.pdf", "accuracy.png"):
        assert (folder / name).stat().st_size > 0, name
    table = (folder / "accuracy.md").read_text()
    assert all(method in table for method in ("SGD", "SAM", "SAMSON", "RWP"))
    assert "pcm_like" in table and "reram_wan2022" in table and table in done.stdout


@pytest.mark.slow
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


@pytest.mark.slow
@pytest.mark.parametrize(
    ("script", "arguments", "words"),
    [
        (
            "drift_sweep.py",
            ["--study", "s.toml", "--chips", "3", "--seed", "1"],
            "s.toml defines the study; say there what --chips, --seed says here",
        ),
        ("drift_sweep.py", ["nowhere.safetensors"], "no checkpoint 'nowhere.safetensors'"),
        ("drift_sweep.py", ["x", "--devices", "pcm_lik"], "did you mean 'pcm_like'"),
        ("noise_sweep.py", ["x", "--t-inference-s", "-1"], "at least 0 s"),
        ("drift_sweep.py", ["x", "--times-s", "1e300"], "between 1e-12 and 1e+12 s"),
        ("drift_sweep.py", ["x", "--times-s", "1", "1.0000000001"], "agree to nine digits"),
        ("drift_sweep.py", ["x", "--name", ".."], "a name has at most 100 letters"),
        ("drift_sweep.py", ["x", "--dask-local", "0"], "at least 1 worker; got 0"),
        ("train_methods.py", ["--methods", "sam:rho=abc"], "rho must be finite and at least 0"),
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


@pytest.fixture(scope="module")
def network(tmp_path_factory):
    return train(TrainingSpec(epochs=0), tmp_path_factory.mktemp("network"))


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"values": ("abc",)}, "'abc' is not allowed: input should be a valid number"),
        ({"values": (1, "abc"), "relative": True}, "the device's own value; got 'abc'"),
        ({"axis": ("layers.*.drift_scale",), "relative": True}, "without --relative"),
    ],
)
def test_a_sweep_names_the_value_that_it_cannot_take(options, words, network, tmp_path):
    with pytest.raises(ValueError, match=words):
        noise_sweep.main((network,), folder=tmp_path, **options)


@pytest.fixture(scope="module")
def folder_of_study(tmp_path_factory):
    folder = tmp_path_factory.mktemp("study")
    rows = make_trials({"sgd": 0.90, "samson rho=0.5": 0.97}, n_networks=2, n_chips=2)
    append_rows(rows, folder / "trials.csv")
    return folder


@pytest.mark.slow
@pytest.mark.parametrize(
    ("script", "options"),
    [
        ("drift_sweep.py", ["--chips", 1, "--times-s", "36 h"]),
        ("requirements.py", ["--lose", 50, "--at", "36 h", "--sources", "drift_scale",
                             "--chips-at-most", 2]),
    ],
)  # fmt: skip
def test_maintenance_is_an_option(script, options, network, tmp_path):
    given = [network, *options, "--n-test", 50, "--jobs", 1, "--folder", tmp_path]
    maintained = ["--refresh-every", "1 d", "--compensation-times", "1 h, 6 h"]
    done = run(script, *given, *maintained, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    rows = read_trials(tmp_path)
    assert (rows["compensation"] == "global, measured at 1 h, 6 h").all()
    assert {json.loads(text)["refresh_every"] for text in rows["condition"]} == {DAY}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("script", "arguments", "words"),
    [
        ("drift_sweep.py", ["--folder", "{there}"], "checkpoints = () is not allowed"),
        ("noise_sweep.py", ["--folder", "{there}"], "checkpoints = () is not allowed"),
        ("why_low.py", ["--folder", "{there}"], "at least one trained network"),
        ("landscape.py", ["--folder", "{there}"], "at least one trained network"),
        (
            "why_low.py",
            ["{net}", "--chips", "0", "--folder", "{there}"],
            "--chips must be at least",
        ),
        ("landscape.py", ["{net}", "--folder", "{there}"], "is a study of methods, whose networks"),
        ("landscape.py", ["x", "--n-images", "0", "--folder", "{there}"], "At least one image"),
        ("train_methods.py", ["--epochs", "0", "--folder", "{there}"], "--epochs must be at least"),
        (
            "drift_sweep.py",
            ["{net}", "--jobs", "0", "--folder", "{there}"],
            "jobs must be at least",
        ),
        ("drift_sweep.py", ["{net}", "--chips", "1", "--folder", "r\udcff"], "is not UTF-8"),
        ("why_low.py", ["{net}", "--folder", "r\udcff"], "is not UTF-8"),
        ("describe_device.py", ["pcm_like", "--folder", "/proc/z"], "'/proc/z' cannot be made"),
        ("describe_device.py", ["ideal", "--table", "/proc/z"], "'/proc/z' cannot be written"),
        ("paper_tables.py", ["{study}", "--out", "/proc/y"], "'/proc/y' cannot be made"),
        ("paper_figures.py", ["{study}", "--out", "{net}"], "safetensors' cannot be made"),
        ("paper_tables.py", ["{study}", "--baseline", "nope"], "'nope' is not among the methods"),
        ("paper_figures.py", ["{study}", "--baseline", "nope"], "'nope' is not among the methods"),
        ("paper_page.py", ["{study}", "--baseline", "sg"], "Did you mean 'sgd'?"),
        ("paper_tables.py", [], "at least one folder of a study"),
        ("methods_map.py", ["--folder", "{there}"], "at least one folder of a study"),
        (
            "methods_map.py",
            ["{study}", "--baseline", "nope", "--folder", "{there}"],
            "'nope' is not among the methods",
        ),
        ("methods_map.py", ["{there}", "--folder", "{there}"], "No table of trials"),
        ("train_methods.py", ["--seeds"], "at least one method and one training seed"),
        ("describe_device.py", ["ideal", "--table", "."], "'.' cannot be written (Is a directory)"),
        (
            "train_methods.py",
            [
                "--epochs",
                "1",
                "--methods",
                "sgd",
                "--options",
                "lr=1e30",
                "--folder",
                "{there}/new",
            ],
            "every training diverged",
        ),
    ],
)
def test_a_mistake_is_refused_before_a_file_is_touched(
    script, arguments, words, network, folder_of_study, tmp_path
):
    there = tmp_path / "there"
    there.mkdir()
    names = ("sharpness.csv", "waterfall.csv", "layers.csv", "strengths.csv", "networks.csv")
    for name in names:
        (there / name).write_text("of an earlier run")
    known = {"there": there, "net": network, "study": folder_of_study}
    done = run(script, *(text.format(**known) for text in arguments), cwd=tmp_path)
    assert done.returncode == 1, done.stdout + done.stderr
    assert words in done.stderr
    assert "Traceback" not in done.stderr
    left = {path.name for path in there.iterdir()} - {"new"}
    assert left == set(names)
    assert {(there / name).read_text() for name in names} == {"of an earlier run"}


@pytest.mark.slow
def test_a_diverged_training_is_named_in_the_output(tmp_path):
    arguments = ["--epochs", "1", "--methods", "sgd", "--options", "lr=1e30", "--folder", "new"]
    done = run("train_methods.py", *arguments, cwd=tmp_path)
    assert "diverged" in done.stdout
    assert "diverged" in (tmp_path / "new" / "training.csv").read_text()
    assert not (tmp_path / "new" / "strengths.csv").exists()


def test_a_folder_that_cannot_be_written_is_said(tmp_path):
    blocked = tmp_path / "file"
    blocked.write_text("")
    checkpoint = train(TrainingSpec(epochs=0), tmp_path)
    with pytest.raises(OSError, match="cannot be"):
        collect(Study("s", [checkpoint], ["ideal"], [DAY], n_chips=1), blocked / "results")


def test_a_study_file_is_told_where_the_data_lie(tmp_path, monkeypatch):
    """The folder of the data depends on the machine, and so comes before the study file."""
    from analog_samson.experiments import drift_sweep

    (tmp_path / "study.toml").write_text("", encoding="utf-8")
    asked = []
    monkeypatch.setattr(drift_sweep, "load_study", lambda *_: Study("s", ["x"], ["pcm_like"], [1]))
    monkeypatch.setattr(drift_sweep, "collect", lambda study, *_, **__: asked.append(study))
    monkeypatch.setattr(drift_sweep, "unfinished", lambda *_: "not yet")
    drift_sweep.main(study=tmp_path / "study.toml", data_folder=tmp_path, chips_together=2)
    assert (asked[0].data_folder, asked[0].chips_together, asked[0].name) == (tmp_path, 2, "s")
