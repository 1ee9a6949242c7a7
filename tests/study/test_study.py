"""Claims about studies: the same table whatever the order, the workers or the kills."""

import json
import os
import random
import signal
import subprocess
import sys
import textwrap
import threading
import time
from dataclasses import replace

import pandas as pd
import pytest
import torch
from scipy import stats

from analog_samson import Study, collect, load_device, read_trials
from analog_samson.checkpoint import TrainingSpec, load_checkpoint, save_checkpoint
from analog_samson.chip import program
from analog_samson.compiled import kernels
from analog_samson.data import load_test
from analog_samson.provenance import environment
from analog_samson.results import COLUMNS
from analog_samson.running import cluster
from analog_samson.study import collect_until, cost, estimate_cost, load_study, run_trial
from analog_samson.study.jobs import jobs_of, jobs_to_run
from analog_samson.study.sources import the_test_images, the_test_set
from analog_samson.study.trial import images_of, run_together
from analog_samson.times import DAY, HOUR, YEAR
from analog_samson.training import train


@pytest.fixture
def study(checkpoints):
    times = {"pcm_like": [0, 1, YEAR], "reram_wan2022": [1, DAY]}
    return Study("small", checkpoints, list(times), times, n_chips=2, n_test=100)


def table_of(folder):
    """The table as text, sorted."""
    lines = (folder / "trials.csv").read_text().splitlines()
    return [lines[0], *sorted(lines[1:])]


@pytest.mark.slow
def test_workers_and_order_change_no_byte(study, tmp_path):
    collect(study, tmp_path / "one", jobs=1)
    collect(study, tmp_path / "two", jobs=2)
    backwards = replace(
        study,
        checkpoints=study.checkpoints[::-1],
        devices=study.devices[::-1],
        times_s={name: times[::-1] for name, times in study.times_s.items()},
    )
    collect(backwards, tmp_path / "backwards")
    assert table_of(tmp_path / "one") == table_of(tmp_path / "two")
    assert table_of(tmp_path / "one") == table_of(tmp_path / "backwards")


@pytest.mark.slow
def test_killed_studies_resume_to_the_same_table(study, tmp_path):
    """kill -9 at three moments of a two-worker run (seed 0), then once to the end."""
    collect(study, tmp_path / "whole")
    script = textwrap.dedent(f"""
        from pathlib import Path
        from analog_samson import Study, collect
        study = Study(
            "small", {[str(path) for path in study.checkpoints]!r}, {list(study.devices)!r},
            {study.times_s!r}, n_chips=2, n_test=100,
        )
        if __name__ == "__main__":
            collect(study, {str(tmp_path / "killed")!r}, jobs=2)
    """)
    file = tmp_path / "script.py"
    file.write_text(script)
    moments, rows_before = random.Random(0), 0
    for _ in range(3):
        process = subprocess.Popen([sys.executable, file], start_new_session=True)
        table = tmp_path / "killed" / "trials.csv"
        while process.poll() is None and (
            not table.exists() or len(table.read_bytes().splitlines()) <= rows_before + 3
        ):
            time.sleep(0.01)
        time.sleep(moments.uniform(0, 0.05))
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        rows_before = len(table.read_bytes().splitlines())
    collect(study, tmp_path / "killed")
    assert table_of(tmp_path / "killed") == table_of(tmp_path / "whole")


@pytest.mark.slow
def test_adding_a_time_computes_only_that_time(study, tmp_path, monkeypatch):
    first = replace(study, devices=["pcm_like"], times_s=[1, YEAR])
    collect(first, tmp_path)
    before = (tmp_path / "trials.csv").read_bytes()
    asked = []
    monkeypatch.setattr(
        "analog_samson.study.collection.run_together",
        lambda trials, points, size: (
            asked.extend(points * len(trials)) or run_together(trials, points, size)
        ),
    )
    collect(replace(first, times_s=[HOUR, 1, YEAR]), tmp_path)
    assert asked == [(HOUR, 0)] * 8
    assert (tmp_path / "trials.csv").read_bytes().startswith(before)
    assert collect(first, tmp_path)["t_inference_s"].tolist().count(HOUR) == 0


@pytest.mark.slow
def test_a_row_cut_in_the_middle_is_computed_again(study, tmp_path):
    collect(study, tmp_path)
    whole = table_of(tmp_path)
    file = tmp_path / "trials.csv"
    file.write_bytes(file.read_bytes()[:-40])
    assert len(read_trials(file)) == len(whole) - 2
    collect(study, tmp_path)
    assert table_of(tmp_path) == whole


def test_methods_meet_the_same_chips_and_training_seeds_others(study):
    seeds = {}
    for trial in study.trials():
        spec = load_checkpoint(trial.checkpoint_path).spec
        seeds.setdefault((spec.seed, trial.chip), set()).add(trial.programming_seed)
    assert all(len(shared) == 1 for shared in seeds.values())
    assert len({seed for shared in seeds.values() for seed in shared}) == len(seeds) == 4


def test_a_chips_identity_is_its_contents_not_its_paths_or_times(study, tmp_path):
    original = study.trials()[0]
    moved = save_checkpoint(tmp_path / "moved", load_checkpoint(original.checkpoint_path))
    elsewhere = replace(
        study, checkpoints=[moved], times_s={"pcm_like": [HOUR]}, devices=["pcm_like"]
    )
    assert elsewhere.trials()[0].chip_id == original.chip_id
    assert replace(elsewhere, seed=1).trials()[0].chip_id != original.chip_id
    assert replace(elsewhere, n_test=99).trials()[0].chip_id != original.chip_id
    swept = replace(elsewhere, axes={"drift_scale": [0.5]}).trials()[0]
    assert swept.chip_id != original.chip_id
    assert json.loads(swept.condition) == {"drift_scale": 0.5}


def test_all_noise_off_gives_digital_accuracy_to_the_image(checkpoints, tmp_path):
    rows = collect(Study("ideal", checkpoints, ["ideal"], [YEAR], n_chips=1), tmp_path)
    assert (rows["n_correct"] == rows["n_correct_digital"]).all()
    assert tuple(rows.columns) == COLUMNS
    assert (rows["n_images_per_chip"] == rows["n_images_per_chip"].iloc[0]).all()


def test_sources_off_by_axis_leave_the_programmed_state(checkpoints, tmp_path):
    """Without drift and read noise a chip at one year is the chip as programmed."""
    study = Study(
        "off",
        checkpoints[:1],
        ["pcm_like"],
        [0, YEAR],
        n_chips=3,
        axes={"drift_scale": [0.0, 1.0], "read_noise_1f_scale": [0.0], "output_noise": [0.0]},
    )
    rows = collect(study, tmp_path)
    rows = rows[rows["condition"].str.contains('"drift_scale": 0.0')]
    by_time = rows.pivot(index="chip", columns="t_inference_s", values="n_correct")
    pd.testing.assert_series_equal(by_time[0.0], by_time[YEAR], check_names=False)
    assert (rows["alpha"] == 1).all()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (
            {"checkpoints": []},
            r"checkpoints = \[\] is not allowed: value should have at least 1 item",
        ),
        ({"devices": []}, r"devices = \[\] is not allowed: value should have at least 1 item"),
        ({"devices": ["pcm_like"], "times_s": []}, "has no times"),
        ({"times_s": {"pcm_like": [1]}}, "no entry for device 'reram_wan2022'"),
        ({"times_s": [HOUR]}, "no data at 3600 s"),
        ({"n_chips": True}, "n_chips = True is not allowed: input should be a valid integer"),
        ({"n_reads": 1.0}, "n_reads = 1.0 is not allowed: input should be a valid integer"),
        ({"seed": "a"}, "seed = 'a' is not allowed: input should be a valid integer"),
        ({"name": ".."}, r"name = '\.\.': a name has at most 100 letters"),
        ({"name": "a/b"}, "name = 'a/b': a name has at most 100 letters"),
        ({"name": "a$b$"}, r"name = 'a\$b\$': a name has at most 100 letters"),
        ({"times_s": ["5"]}, "units s, min, h, d, week, mo, y; got '5'"),
        ({"times_s": {"pcm_like": [1, True]}}, r"times_s\[1\] = True is not allowed"),
        ({"times_s": [1e300]}, r"A time lies between 1e-12 and 1e\+12 s .* got 1e\+300"),
        ({"devices": ["pcm_like"], "times_s": [1.0, 1.000000001]}, "agree to nine digits"),
        ({"devices": ["pcm_like"], "times_s": [1, 1.0]}, "agree to nine digits"),
        ({"axes": {"drift_scale": []}}, r"axes = \[\] is not allowed: .* at least 1 item"),
        ({"axes": {"drift_scale": [True]}}, r"noise\.drift_scale = True is not allowed"),
        ({"axes": {"drift_scale": 1.0}}, "axes = 1.0 is not allowed: input should be a list"),
        ({"engine": "fast"}, "engine = 'fast' is not allowed: input should be 'aihwkit' or"),
        ({"checkpoints": "a"}, "checkpoints = 'a' is not allowed: input should be a list"),
        ({"n_chips": 0}, "n_chips = 0 is not allowed: input should be greater than or equal to 1"),
        ({"n_test": 10_000}, "n_test must lie between 1 and"),
        ({"chips_together": 0}, "chips_together = 0 is not allowed: .* greater than or equal to 1"),
        (
            {"accelerator": "tpu"},
            "accelerator = 'tpu' is not allowed: input should be 'cpu' or 'cuda'",
        ),
        ({"accelerator": "cuda"}, "accelerator='cuda', and torch finds no CUDA device"),
        ({"n_images_per_chip": 0}, "n_images_per_chip must lie between 2 and 100"),
        ({"n_images_per_chip": 1}, "n_images_per_chip must lie between 2 and 100"),
        ({"n_images_per_chip": 101}, "n_images_per_chip must lie between 2 and 100"),
        ({"axes": {"drift_scal": [1]}}, "did you mean 'drift_scale'"),
        ({"axes": {"t_0_s": [1]}}, "does not apply to device 'reram_wan2022'"),
        ({"devices": ["pcm_like", "pcm_like"], "times_s": [1]}, "twice"),
        ({"devices": ["ideal"], "times_s": [1, 2]}, "nothing changes with time on ideal"),
        (
            {
                "devices": ["pcm_like"],
                "times_s": [1, 2],
                "axes": {"drift_scale": [0], "read_noise_1f_scale": [0]},
            },
            "nothing changes with time on pcm_like",
        ),
    ],
)
def test_an_unsound_study_is_refused_before_anything_runs(
    study, tmp_path, change, words, monkeypatch
):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(ValueError, match=words):
        collect(replace(study, **change), tmp_path / "folder")
    assert not (tmp_path / "folder").exists()


def test_a_folder_of_another_study_is_refused(study, tmp_path):
    small = replace(study, devices=["ideal"], times_s=[1], n_chips=1)
    collect(small, tmp_path)
    before = (tmp_path / "trials.csv").read_bytes()
    with pytest.raises(ValueError, match="holds the study 'small', not 'other'"):
        collect(replace(small, name="other"), tmp_path)
    assert (tmp_path / "trials.csv").read_bytes() == before


def test_a_checkpoint_with_nan_weights_is_refused(checkpoints):
    checkpoint = load_checkpoint(checkpoints[0])
    state = {
        name: torch.full_like(tensor, float("nan")) for name, tensor in checkpoint.state.items()
    }
    with pytest.raises(ValueError, match="NaN"):
        replace(checkpoint, state=state)


def test_own_device_objects_and_files_work_alike(study, tmp_path):
    device = load_device("pcm_like")
    small = replace(study, times_s=[1], n_chips=1)
    by_name = replace(small, devices=["pcm_like"]).trials()
    by_object = replace(small, devices=[device]).trials()
    assert [t.chip_id for t in by_name] == [t.chip_id for t in by_object]


def test_a_study_file_is_the_same_study(study, tmp_path):
    folder = tmp_path / "nets"
    folder.mkdir()
    for number, path in enumerate(study.checkpoints):
        (folder / f"{number}.safetensors").write_bytes(path.read_bytes())
    file = tmp_path / "study.toml"
    file.write_text(
        'name = "small"\nquestion = "Does it last?"\n'
        'checkpoints = ["nets/*.safetensors"]\ndevices = ["pcm_like"]\n'
        'times_s = "rasch"\nn_chips = 2\nn_test = 100\n[axes]\ndrift_scale = [0.0, 1.0]\n'
    )
    by_hand = replace(
        study,
        devices=["pcm_like"],
        times_s=[1, HOUR, DAY, YEAR],
        axes={"drift_scale": [0.0, 1.0]},
    )
    assert [(t.chip_id, t.points) for t in load_study(file).trials()] == [
        (t.chip_id, t.points) for t in by_hand.trials()
    ]


@pytest.mark.slow
def test_the_primary_endpoint_is_recorded_before_the_first_row_and_its_change_flagged(
    study, tmp_path
):
    file = tmp_path / "study.toml"
    networks = ", ".join(f'"{path}"' for path in study.checkpoints)
    file.write_text(
        f'name = "small"\ncheckpoints = [{networks}]\ndevices = ["pcm_like"]\n'
        "times_s = [1.0]\nn_chips = 1\nn_test = 100\n"
        '[primary]\nmethod = "rwp"\ndevice = "pcm_like"\ntime_s = 1.0\nendpoint = "lost"\n'
    )
    named = load_study(file)
    collect(named, tmp_path / "rows")
    changed = replace(named.primary, endpoint="gain")
    collect(replace(named, n_chips=2, primary=changed), tmp_path / "rows")
    collect(replace(named, n_chips=3), tmp_path / "rows")
    manifest = json.loads((tmp_path / "rows" / "manifest.json").read_text())
    found = [(one["endpoint"], one["rows_before"]) for one in manifest["primary_endpoints"]]
    assert found == [("lost", 0), ("gain", 4)]
    late = replace(named.primary, time_s=1.0, method="rwp sigma=0.05")
    complete = replace(named, n_chips=3, primary=late, question="Named when all rows were there?")
    rows = (tmp_path / "rows" / "trials.csv").read_bytes()
    collect(complete, tmp_path / "rows")
    manifest = json.loads((tmp_path / "rows" / "manifest.json").read_text())
    assert manifest["primary_endpoints"][-1]["rows_before"] == 12
    assert manifest["study"]["question"] == "Named when all rows were there?"
    assert (tmp_path / "rows" / "trials.csv").read_bytes() == rows
    for wrong, words in (
        ({"method": "sam"}, "names the method 'sam'"),
        ({"device": "pcm"}, "names the device 'pcm'"),
        ({"time_s": 2.0}, "names the time 2.0 s"),
        ({"endpoint": "best"}, "'gain' or 'lost'"),
    ):
        with pytest.raises(ValueError, match=words):
            replace(named, primary=replace(named.primary, **wrong)).trials()
    file.write_text(file.read_text().replace("endpoint", "end_point"))
    with pytest.raises(ValueError, match=r"unknown key 'primary.end_point'"):
        load_study(file)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("name = ", "not valid TOML"),
        ('nam = "x"', "did you mean 'name'"),
        ('name = "x"', "'checkpoints' is missing"),
        ('name="x"\ncheckpoints=["a*"]\ndevices=["ideal"]\ntimes_s=[1]', "no checkpoint matches"),
        ('name="x"\ncheckpoints=[]\ndevices=[]\ntimes_s="rash"', "unknown time grid"),
    ],
)
def test_a_wrong_study_file_is_one_sentence(text, words, tmp_path):
    file = tmp_path / "study.toml"
    file.write_text(text)
    with pytest.raises((ValueError, FileNotFoundError), match=words):
        load_study(file)


COMPLETE = {
    "name": "small",
    "checkpoints": ["0.safetensors"],
    "devices": ["pcm_like"],
    "times_s": [1.0],
    "n_test": 100,
}


def write_toml(file, content):
    """Numbers, texts, truth values and lists are written alike in JSON and TOML."""
    lines = [f"{key} = {json.dumps(value)}" for key, value in content.items()]
    file.write_text("\n".join(lines) + "\n", encoding="utf-8")


@pytest.mark.parametrize(
    ("key", "value", "words"),
    [
        ("seed", "a", "seed = 'a' is not allowed: input should be a valid integer"),
        ("seed", 1.5, "seed = 1.5 is not allowed: input should be a valid integer"),
        ("n_chips", True, "n_chips = True is not allowed"),
        ("n_chips", "10", "n_chips = '10' is not allowed"),
        ("n_chips", 0, "n_chips = 0 is not allowed: input should be greater than or equal to 1"),
        ("n_chips", 10**9, "less than or equal to 1000000"),
        ("n_reads", 2.0, "n_reads = 2.0 is not allowed"),
        ("n_test", True, "n_test = True is not allowed"),
        ("n_images_per_chip", "all", "n_images_per_chip = 'all' is not allowed"),
        ("chips_together", False, "chips_together = False is not allowed"),
        ("times_s", ["5"], "units s, min, h, d, week, mo, y; got '5'"),
        ("times_s", [1.0, True], r"times_s\[1\] = True is not allowed"),
        ("times_s", 5, "times_s = 5 is not allowed: input should be a list"),
        ("times_s", True, "times_s = True is not allowed"),
        ("times_s", "rash", "unknown time grid 'rash'"),
        ("name", 5, "name = 5 is not allowed: input should be a valid string"),
        ("name", "..", "a name has at most 100 letters"),
        ("name", "a/b", "a name has at most 100 letters"),
        ("name", "n" * 400, "a name has at most 100 letters"),
        ("question", 5, "question = 5 is not allowed"),
        ("checkpoints", "0.safetensors", "checkpoints = .* input should be a list"),
        ("checkpoints", [], "checkpoints = .* at least 1 item"),
        (
            "checkpoints",
            [5],
            r"checkpoints\[0\] = 5 is not allowed: input should be a valid string",
        ),
        ("checkpoints", ["1.safetensors"], "no checkpoint matches '1.safetensors'"),
        ("checkpoints", ["x\0"], "no checkpoint matches"),
        ("checkpoints", ["x" * 5000], "no checkpoint matches"),
        ("devices", "pcm_like", "devices = 'pcm_like' is not allowed: input should be a list"),
        ("devices", [], "devices = .* at least 1 item"),
        ("devices", [True], r"devices\[0\] = True is not allowed: input should be a valid string"),
        ("axes", [1], r"axes = \[1\] is not allowed: input should be a valid table"),
        ("engine", "fast", "engine = 'fast' is not allowed: input should be 'aihwkit' or 'compi"),
        ("precision", 16, "precision = 16 is not allowed"),
        ("accelerator", "tpu", "accelerator = 'tpu' is not allowed: input should be 'cpu' or"),
        ("data_folder", 5, "data_folder = 5 is not allowed"),
        ("n_chip", 5, "unknown key 'n_chip'; did you mean 'n_chips'"),
    ],
)
def test_a_wrong_value_in_a_study_file_is_one_sentence_with_file_and_key(
    key, value, words, study, tmp_path
):
    (tmp_path / "0.safetensors").write_bytes(study.checkpoints[0].read_bytes())
    write_toml(tmp_path / "study.toml", COMPLETE)
    assert len(load_study(tmp_path / "study.toml").trials()) == 10
    write_toml(tmp_path / "study.toml", COMPLETE | {key: value})
    with pytest.raises((ValueError, FileNotFoundError), match=rf"study\.toml: .*{words}") as error:
        load_study(tmp_path / "study.toml")
    assert "\n" not in str(error.value)


def test_a_study_file_in_another_encoding_is_named(tmp_path):
    file = tmp_path / "study.toml"
    for content in ('name = "µ"'.encode("utf-16"), b'name = "\xb5"'):
        file.write_bytes(content)
        with pytest.raises(ValueError, match=r"study\.toml: not UTF-8 text"):
            load_study(file)
    file.write_bytes(b"a = " + b"[" * 5000)
    with pytest.raises(ValueError, match=r"study\.toml: .* nested too deeply"):
        load_study(file)


def test_checkpoints_are_found_by_absolute_paths_and_by_names_that_look_like_patterns(
    study, tmp_path
):
    folder = tmp_path / "nets [1]"
    folder.mkdir()
    names = ["net[1].safetensors", "net1.safetensors", "net2.safetensors"]
    for name, path in zip(names, study.checkpoints, strict=False):
        (folder / name).write_bytes(path.read_bytes())
    file = folder / "study.toml"
    for given, found in (
        (["net[1].safetensors"], names[:1]),
        (["net[12].safetensors"], names[1:]),
        ([str(folder / "net[1].safetensors")], names[:1]),
        ([f"{tmp_path}/*/net?.safetensors"], names[1:]),
        (["net[[]1].safetensors"], names[:1]),
    ):
        write_toml(file, COMPLETE | {"checkpoints": given})
        assert load_study(file).checkpoints == [folder / name for name in found]
        assert load_study(file).trials()


def test_a_network_whose_name_no_row_could_hold_is_refused_before_anything_runs(study, tmp_path):
    checkpoint = load_checkpoint(study.checkpoints[0])
    wrong = replace(checkpoint, spec=replace(checkpoint.spec, model="mine:two\nlines"))
    path = save_checkpoint(tmp_path / "wrong", wrong)
    with pytest.raises(ValueError, match=r"two\\nlines' holds a line break"):
        replace(study, checkpoints=[path], trust=["mine"]).trials()


def test_one_chip_under_two_names_is_refused_before_anything_runs(study, tmp_path):
    small = replace(study, devices=["pcm_like"], times_s=[1], n_chips=1)
    collect(small, tmp_path)
    before = (tmp_path / "trials.csv").read_bytes()
    with pytest.raises(
        ValueError, match="have condition = '{}' and '.*drift_scale.*one chip has two n"
    ):
        collect(replace(small, axes={"drift_scale": [0.5, 1.0]}, times_s=[HOUR]), tmp_path)
    assert (tmp_path / "trials.csv").read_bytes() == before


@pytest.mark.parametrize(
    "change", [lambda text: b"\xef\xbb\xbf" + text, lambda text: text.replace(b"\n", b"\r\n")]
)
def test_a_table_saved_on_windows_is_refused_before_anything_runs(
    study, tmp_path, change, monkeypatch
):
    small = replace(study, devices=["pcm_like"], times_s=[1], n_chips=1)
    collect(small, tmp_path)
    file = tmp_path / "trials.csv"
    original = file.read_bytes()
    file.write_bytes(change(original))
    monkeypatch.setattr("analog_samson.study.collection.run_jobs", pytest.fail)
    with pytest.raises(ValueError, match="was saved by another program.*sed -i") as error:
        collect(replace(small, times_s=[HOUR]), tmp_path)
    command = str(error.value).split("changed: ")[1].rstrip(".")
    subprocess.run(command, shell=True, check=True)
    assert file.read_bytes() == original


def test_a_changed_device_under_the_same_name_is_refused_before_anything_runs(study, tmp_path):
    small = replace(study, devices=["pcm_like"], times_s=[1], n_chips=1)
    collect(small, tmp_path)
    before = (tmp_path / "trials.csv").read_bytes()
    changed = load_device("pcm_like").with_axes({"g_max_uS": 20.0})
    with pytest.raises(ValueError, match="two definitions"):
        collect(replace(small, devices=[changed]), tmp_path)
    assert (tmp_path / "trials.csv").read_bytes() == before


@pytest.mark.slow
def test_manifest_and_audit_record_the_origin_of_the_table(study, tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["drift_sweep.py", "--question", "Does it last?"])
    collect(replace(study, question="Does it last?"), tmp_path)
    manifest = json.loads((tmp_path / "manifest.json").read_text())
    assert manifest["study"]["n_chips"] == 2
    assert manifest["study"]["question"] == "Does it last?"
    assert (manifest["study"]["accelerator"], manifest["study"]["chips_together"]) == ("cpu", 1)
    assert manifest["study"]["command"] == "python drift_sweep.py --question 'Does it last?'"
    assert manifest["devices"]["pcm_like"]["noise"]["g_max_uS"] == 25.0
    assert len(manifest["checkpoints"]) == 4
    assert {network["n_classes"] for network in manifest["checkpoints"].values()} == {10}
    assert manifest["environments"][0]["aihwkit"]
    assert manifest["environments"][0]["kernels"] in ("C", "torch")
    audit = pd.read_csv(tmp_path / "audit.csv")
    assert set(audit["device"]) == {"pcm_like", "reram_wan2022"}
    assert audit["analog"].all() and (audit["n_arrays"] == 1).all()


@pytest.mark.slow
def test_a_study_stops_at_a_look_when_its_intervals_are_narrow(study, tmp_path):
    small = replace(study, devices=["pcm_like"], times_s=[1])
    rows = collect_until(small, tmp_path / "wide", half_width=1.0, looks=(2, 3))
    assert rows["chip"].nunique() == 2
    rows = collect_until(small, tmp_path / "narrow", half_width=1e-9, looks=(2, 3))
    assert rows["chip"].nunique() in (2, 3)


@pytest.mark.slow
def test_a_dask_cluster_of_two_processes_gives_the_same_table_after_a_kill(study, tmp_path):
    distributed = pytest.importorskip("distributed")
    many = replace(study, n_chips=10)
    collect(many, tmp_path / "here")
    with cluster(n_local=2):
        victim = next(iter(distributed.get_client().run(os.getpid).values()))
        timer = threading.Timer(0.5, os.kill, (victim, signal.SIGKILL))
        timer.start()
        collect(many, tmp_path / "there")
        timer.join()
    assert table_of(tmp_path / "here") == table_of(tmp_path / "there")


@pytest.mark.slow
def test_two_half_studies_merge_to_the_whole(study, tmp_path):
    whole = collect(study, tmp_path / "whole")
    for number, half in enumerate((study.checkpoints[:2], study.checkpoints[2:])):
        collect(replace(study, checkpoints=half), tmp_path / str(number))
    merged = read_trials(tmp_path / "0", tmp_path / "1")
    merged = merged.sort_values(list(COLUMNS), ignore_index=True)
    pd.testing.assert_frame_equal(merged, whole)


def test_an_estimate_counts_what_the_study_will_write(study, tmp_path):
    study = replace(study, devices=["pcm_like"], times_s=[0, 1, YEAR])
    planned = estimate_cost(study, jobs=2)
    rows = collect(study, tmp_path)
    assert planned.n_points == len(rows) == 3 * planned.n_chips
    size = (tmp_path / "trials.csv").stat().st_size
    assert planned.table_bytes == pytest.approx(size, rel=0.2)
    assert planned.seconds > 0
    with pytest.raises(ValueError, match="at least one worker"):
        estimate_cost(study, jobs=0)


# old names


def test_old_field_names_of_a_study_work_and_warn(study):
    with pytest.warns(FutureWarning, match="Argument 'n_images' of Study is now named 'n_test'"):
        old = Study("s", study.checkpoints, ["pcm_like"], [1], n_images=50)
    assert old == Study("s", study.checkpoints, ["pcm_like"], [1], n_test=50)
    with pytest.warns(FutureWarning, match="'images' of Study is now named 'n_images_per_chip'"):
        assert replace(old, images=20) == replace(old, n_images_per_chip=20)


def test_old_keys_of_a_study_file_work_and_warn(study, tmp_path):
    path = tmp_path / "study.toml"
    text = f"name = 's'\ncheckpoints = {[str(c) for c in study.checkpoints]}\n"
    text += "devices = ['pcm_like']\ntimes_s = [1]\n"
    path.write_text(text + "n_test = 50\nn_images_per_chip = 20\n")
    new = load_study(path)
    path.write_text(text + "n_images = 50\nimages = 20\n")
    with pytest.warns(FutureWarning, match="is now named") as caught:
        assert load_study(path) == new
    assert [str(w.message).split(": ")[1].split(";")[0] for w in caught] == [
        "key 'n_images' is now named 'n_test'",
        "key 'images' is now named 'n_images_per_chip'",
    ]
    path.write_text(text + "images = 50\nn_images_per_chip = 20\n")
    with pytest.raises(ValueError, match="'images' is the old name of 'n_images_per_chip'"):
        load_study(path)


# a subset of the images


def test_a_subset_is_the_same_for_all_methods_and_another_for_every_chip_and_training_seed(study):
    trials = replace(study, n_images_per_chip=20).trials()
    subsets = {}
    for trial in trials:
        chosen = images_of(trial).tolist()
        assert chosen == sorted(set(chosen)) and len(chosen) == 20 and chosen[-1] < 100
        subsets.setdefault((trial.spec.seed, trial.chip), set()).add(tuple(chosen))
    assert len(trials) == 4 * len(subsets) == 16
    assert all(len(shared) == 1 for shared in subsets.values())
    assert len(set().union(*subsets.values())) == len(subsets)


def test_every_image_is_chosen_equally_often(study):
    """2,000 chips x 20 of 100 images: chi-square below its quantile at 1e-4 (fixed seeds)."""
    small = replace(study, checkpoints=study.checkpoints[:1], devices=["pcm_like"], n_chips=2000)
    trials = replace(small, n_images_per_chip=20, times_s=[1]).trials()
    counts = torch.stack([images_of(trial) for trial in trials]).flatten().bincount(minlength=100)
    # variance of a count without replacement: 2000 x 0.2 x 0.8, and their sum is fixed
    chi_square = float(((counts - 400) ** 2).sum() / (2000 * 0.2 * 0.8) * 99 / 100)
    assert chi_square < stats.chi2.ppf(1 - 1e-4, 99)


def test_a_subset_counts_the_predictions_of_the_chip_on_these_images(study):
    """Without forward noise a chip's answers do not depend on which images stand beside them."""
    test = load_test("digits")
    quiet = replace(study, devices=["pcm_like"], times_s=[1, YEAR], axes={"output_noise": [0.0]})
    for trial in replace(quiet, n_images_per_chip=20).trials()[::3]:
        rows = run_trial(trial).set_index("t_inference_s")
        checkpoint = load_checkpoint(trial.checkpoint_path)
        images, labels = checkpoint.normalise(test.images[:100]), test.labels[:100]
        digital = checkpoint.build()(images).argmax(1) == labels
        chip = program(checkpoint, trial.device, seed=trial.programming_seed)
        for t_inference_s, row in rows.iterrows():
            right = chip.drift_to(t_inference_s)(images).argmax(1) == labels
            chosen = images_of(trial)
            assert row["n_correct"] == right[chosen].sum()
            assert row["n_correct_digital"] == digital[chosen].sum()
            assert row["n_changed"] == (right != digital)[chosen].sum()
            assert (row["n_images_per_chip"], row["n_test"]) == (20, 100)
            assert row["n_correct_digital_test"] == digital.sum()


def test_a_subset_of_all_images_is_the_exact_evaluation(study, monkeypatch):
    exact, whole = study.trials(), replace(study, n_images_per_chip=100).trials()
    assert [trial.chip_id for trial in exact] == [trial.chip_id for trial in whole]
    some = replace(study, n_images_per_chip=99).trials()
    assert not {trial.chip_id for trial in some} & {trial.chip_id for trial in exact}
    before = run_trial(exact[0])
    assert (before["n_images_per_chip"] == before["n_test"]).all()
    assert (before["n_correct_digital"] == before["n_correct_digital_test"]).all()
    monkeypatch.setattr("analog_samson.study.trial.images_of", lambda trial: torch.arange(100))
    pd.testing.assert_frame_equal(run_trial(whole[0]), before)


@pytest.mark.slow
def test_studies_of_subsets_resume_and_merge_whatever_the_workers(study, tmp_path):
    few = replace(study, devices=["pcm_like"], times_s=[1, YEAR], n_images_per_chip=20)
    whole = collect(few, tmp_path / "whole", jobs=2)
    for number, half in enumerate((few.checkpoints[:2], few.checkpoints[2:])):
        for times in ([YEAR], [1, YEAR]):
            collect(replace(few, checkpoints=half, times_s=times), tmp_path / str(number))
    merged = read_trials(tmp_path / "0", tmp_path / "1")
    merged = merged.sort_values(list(COLUMNS), ignore_index=True)
    pd.testing.assert_frame_equal(merged, whole)
    manifest = json.loads((tmp_path / "whole" / "manifest.json").read_text())
    said = manifest["study"]
    assert (said["n_images_per_chip"], said["n_test"]) == (20, 100)
    with pytest.raises(ValueError, match="two definitions.*differ in 'n_images_per_chip'"):
        collect(replace(few, n_images_per_chip=None), tmp_path / "whole")


def test_an_estimate_includes_that_chips_are_evaluated_on_fewer_images(study, monkeypatch):
    """Every step takes a second: 8 chips, 3 times, 4 networks that answer 100 images once.

    Two small chips of a network take every step together.
    """
    study = replace(study, devices=["pcm_like"], times_s=[0, 1, YEAR])
    monkeypatch.setattr(cost, "_seconds", lambda work: (work(), 1.0))
    assert estimate_cost(study).seconds == 4 * 1 + 12 * (1 + 1) + 4
    monkeypatch.setattr("analog_samson.study.jobs.SMALL", 0)
    assert estimate_cost(study).seconds == 8 * 1 + 24 * (1 + 1) + 4
    assert (
        estimate_cost(replace(study, n_images_per_chip=25)).seconds == 8 * 1 + 24 * (1 + 0.25) + 4
    )
    assert estimate_cost(study, jobs=2).seconds == (8 * 1 + 24 * (1 + 1)) / 2 + 4


# several chips a forward pass


@pytest.mark.slow
def test_batched_inference_over_chips_gives_the_rows_of_single_chips(study, tmp_path):
    """Three chips, two at a time: the second group is filled up."""
    many = replace(study, n_chips=3)
    collect(many, tmp_path / "alone")
    collect(replace(many, chips_together=2), tmp_path / "together", jobs=2)
    assert table_of(tmp_path / "together") == table_of(tmp_path / "alone")
    planned = estimate_cost(replace(many, chips_together=2))
    assert planned.n_chips == 12 * len(study.devices) and planned.seconds > 0


@pytest.mark.slow
def test_groups_that_were_cut_short_end_with_the_same_table(study, tmp_path, monkeypatch):
    """In the operations that a GPU runs, where shapes would decide the last bits."""
    monkeypatch.setattr(kernels, "library", lambda: None)
    two = replace(study, devices=["pcm_like"], times_s=[1, YEAR], n_chips=3, chips_together=2)
    rows = collect(two, tmp_path / "whole")
    collect(replace(two, n_chips=1), tmp_path / "parts")
    collect(replace(two, n_chips=2, times_s=[1]), tmp_path / "parts")
    collect(two, tmp_path / "parts")
    assert table_of(tmp_path / "parts") == table_of(tmp_path / "whole")
    alone = collect(replace(two, chips_together=1), tmp_path / "alone")
    assert (rows["n_correct"] - alone["n_correct"]).abs().sum() <= 1


def test_only_what_a_group_lacks_is_computed(study):
    """Chips of one network, device and axis value that lack the same points share a job."""
    swept = replace(study, n_chips=5, axes={"programming_noise_scale": [0.0, 1.0]})
    pending = [(trial, trial.points[: 1 + (trial.chip == 2)]) for trial in swept.trials()]
    jobs = jobs_of(pending, 3)
    done = sorted((trial.chip_id, job.points) for job in jobs for trial in job.trials)
    assert done == sorted((trial.chip_id, points) for trial, points in pending)
    for job in jobs:
        kinds = {(trial.checkpoint, trial.device.digest, trial.condition) for trial in job.trials}
        assert len(kinds) == 1 and job.chips_together == 3
    sizes = [len(job.trials) for job in jobs]
    assert sorted(set(sizes)) == [1, 3] and sizes.count(3) == len(sizes) // 3
    assert all(len(job.trials) == job.chips_together == 1 for job in jobs_of(pending, 1))


def test_small_chips_share_jobs_on_a_cpu_and_have_the_rows_of_single_chips(study, monkeypatch):
    swept = replace(study, n_chips=3, axes={"programming_noise_scale": [0.5, 1.0]})
    pending = [(trial, trial.points) for trial in swept.trials()]
    monkeypatch.setattr("analog_samson.study.jobs.SMALL_CHIPS_TOGETHER", 2)
    shared = jobs_to_run(pending, 1)
    assert sorted({len(job.trials) for job in shared}) == [1, 2]
    assert len(shared) == 2 * len(pending) // 3
    assert all(job.chips_together == len(job.trials) for job in shared)
    monkeypatch.setattr("analog_samson.study.jobs.SMALL", 0)
    single = jobs_to_run(pending, 1)
    assert single == jobs_of(pending, 1)
    found, expected = (
        pd.concat([pd.DataFrame(run_together(*job)) for job in jobs]).sort_values(list(COLUMNS))
        for jobs in (shared, single)
    )
    pd.testing.assert_frame_equal(
        found.reset_index(drop=True), expected.reset_index(drop=True), check_exact=True
    )


def test_chips_on_a_gpu_or_of_large_networks_share_no_jobs_unless_asked(study, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    there = [(t, t.points) for t in replace(study, accelerator="cuda").trials()]
    assert jobs_to_run(there, 1) == jobs_of(there, 1)
    here = [(t, t.points) for t in study.trials()]
    assert jobs_to_run(here, 4) == jobs_of(here, 4)
    monkeypatch.setattr("analog_samson.study.jobs.SMALL", 0)
    assert jobs_to_run(here, 1) == jobs_of(here, 1)


def test_chips_with_their_own_images_or_on_tiles_are_not_batched(study):
    for change in ({"n_images_per_chip": 20}, {"engine": "aihwkit"}):
        trials = replace(study, **change, chips_together=4).trials()
        jobs = jobs_of([(trial, trial.points) for trial in trials], 4)
        assert [len(job.trials) for job in jobs] == [1] * len(trials)
        assert {job.chips_together for job in jobs} == {1}


def test_an_accelerator_runs_the_compiled_engine_and_changes_no_identity(study, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    there = replace(study, accelerator="cuda", chips_together=8).trials()
    assert {trial.accelerator for trial in there} == {"cuda"}
    assert [trial.chip_id for trial in there] == [trial.chip_id for trial in study.trials()]
    with pytest.raises(ValueError, match="is for the compiled engine only, and device 'pcm_like'"):
        replace(study, accelerator="cuda", engine="aihwkit").trials()


def test_the_engine_is_chosen_and_checked_for_the_device_as_swept(study):
    """A value of an axis that the precision does not allow is found before anything runs."""
    swept = replace(study, precision="bf16", axes={"mvm_read_noise": (0.0, 0.1)})
    with pytest.raises(ValueError, match="computed in fp32 only"):
        swept.trials()


def test_the_manifest_names_the_gpu(monkeypatch):
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "a GPU")
    assert "accelerator" not in environment()
    assert environment("cuda") == environment() | {"kernels": "torch", "accelerator": "a GPU"}


def test_test_images_go_to_their_device_once_a_process_and_stay_where_they_are_on_a_cpu():
    there = the_test_images("digits", None, "meta")
    assert there.device.type == "meta"
    assert the_test_images("digits", None, "meta") is there
    assert the_test_images("digits", None, "cpu") is the_test_set("digits", None).images


@pytest.mark.parametrize("of", ["networks", "devices"])
def test_definitions_that_collide_are_refused_before_anything_is_computed(study, tmp_path, of):
    if of == "networks":
        longer = train(TrainingSpec(method="sgd", seed=0, epochs=2), tmp_path / "longer")
        wrong = replace(study, checkpoints=[*study.checkpoints, longer])
    else:
        twice = load_device("pcm_like").with_axes({"drift_scale": 2.0})
        wrong = replace(study, devices=["pcm_like", twice], times_s=[1.0])
    with pytest.raises(ValueError, match="2 networks" if of == "networks" else "two definitions"):
        collect(wrong, tmp_path / "rows")
    assert not (tmp_path / "rows" / "trials.csv").exists()
