"""A study of methods: strengths chosen without test images, networks that come again, rows too."""

import functools
import gzip
import importlib.util
import json
import shutil
import subprocess
import sys
import time
from contextlib import nullcontext
from pathlib import Path

import pandas as pd
import pytest
from places import ROOT

from analog_samson import provenance
from analog_samson.checkpoint import load_checkpoint
from analog_samson.locks import InUseError, sole_writer
from analog_samson.methods_study import (
    MethodsStudy,
    check_studies,
    run,
    tables,
    train_and_validate,
)
from analog_samson.results import COLUMNS, SCORE_COLUMNS, read_trials
from analog_samson.training import load_protocol

EXPERIMENTS = ROOT / "experiments"

PROTOCOL = """
seeds = [10, 11]
kept_seeds = [10]
grid_seed = 100
grid_epochs = 1
noise_sigma = 0.1
noise_draws = 2
studies = ["study.toml"]
sharpness_images = 50

[training_images]
study = "study.toml"
device = "gaussian_max"
n_chips = 1
n_images = 200

[common]
dataset = "digits"
model = "mlp"
epochs = 2

[methods]
sgd = "sgd"
rwp = "rwp:sigma=0.1,0.2"
clipping = "sgd:clip_weights=1.5,2.0"

[claims.gain]
claim = "RWP helps."
endpoint = "gain of rwp over sgd"
"""

STUDY = """
name = "digits-methods"
checkpoints = ["networks/*.safetensors"]
devices = ["gaussian_max"]
times_s = [0.0]
n_chips = 3

[axes]
sigma = [0.05, 0.1]
"""


TUNED = """tuned = "sam:epochs=1:lr=0.01:rho=0.05"

[start_from]
tuned = "sgd"

[only]
"../few/study.toml" = ["sgd"]
"""


def script(name):
    spec = importlib.util.spec_from_file_location(name, EXPERIMENTS / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


methods_study, rerun = script("methods_study"), script("rerun")


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    folder = tmp_path_factory.mktemp("results") / "digits-methods"
    folder.mkdir()
    (folder / "protocol.toml").write_text(PROTOCOL)
    (folder / "study.toml").write_text(STUDY)
    methods_study.main(folder, networks=folder.parent / "networks")
    return folder


@pytest.mark.slow
def test_every_method_has_its_best_strength_on_every_seed(finished):
    candidates = pd.read_csv(finished / "candidates.csv", keep_default_na=False)
    assert len(candidates) == 5 and (candidates["training_seed"] == 100).all()
    candidates["score"] = candidates[["validation_clean", "validation_noisy"]].mean(axis=1)
    best = candidates.loc[candidates.groupby("variant")["score"].idxmax()].set_index("variant")
    networks = pd.read_csv(finished / "networks.csv", keep_default_na=False)
    assert len(networks) == 6 and set(networks["training_seed"]) == {10, 11}
    for row in networks.itertuples():
        assert row.strength == best.loc[row.variant, "strength"]
    rows = read_trials(finished)
    assert len(rows) == 6 * 3 * 2 and not rows.duplicated(["chip_id", "t_inference_s"]).any()
    manifest = json.loads((finished / "manifest.json").read_text())
    assert len(manifest["checkpoints"]) == 6 and "gain" in manifest["claims"]
    assert set(manifest["methods"]) == {"sgd", "rwp"}
    plan = load_protocol(finished)
    keys = ("sharpness_images", "training_images")
    assert manifest["protocol"] == {key: plan[key] for key in keys}
    assert len(pd.read_csv(finished / "sharpness.csv")) == 6
    assert len(pd.read_csv(finished / "training_images.csv")) == 6 * 2
    assert len(list((finished / "networks").iterdir())) == 3


@pytest.mark.slow
def test_a_committed_study_continues_on_another_machine(finished, tmp_path):
    """A clone has no networks but the kept ones; a seed that is taken out comes again."""
    clone = tmp_path / "digits-methods"
    shutil.copytree(finished, clone)
    networks = pd.read_csv(clone / "networks.csv", dtype=str, keep_default_na=False)
    networks[networks["training_seed"] == "10"].to_csv(clone / "networks.csv", index=False)
    gone = set(networks.loc[networks["training_seed"] == "11", "digest"].str[:16])
    rows = pd.read_csv(clone / "trials.csv", dtype=str, keep_default_na=False)
    rows[~rows["checkpoint"].isin(gone)].to_csv(clone / "trials.csv", index=False)
    for step in range(4):
        methods_study.main(clone, networks=tmp_path / "other", steps=1)
        assert len(pd.read_csv(clone / "networks.csv")) == min(4 + step, 6)
    again = pd.read_csv(clone / "networks.csv", dtype=str, keep_default_na=False)
    same = [name for name in networks if name not in ("seconds", "package")]
    pd.testing.assert_frame_equal(again[same], networks[same])
    assert (clone / "trials.csv").read_bytes() == (finished / "trials.csv").read_bytes()
    assert len(list((tmp_path / "other").rglob("*seed10*.safetensors"))) == 0


DRIVER = """
import runpy, sys
from pathlib import Path
script, folder, networks, log = sys.argv[1:]
from analog_samson.methods_study import MethodsStudy, run, train_and_validate

def noted(study, spec, path):
    with open(log, "a") as file:
        file.write(f"{path.name} {spec.strength} {spec.seed} {spec.epochs}\\n")
    return train_and_validate(study, spec, path)

study = MethodsStudy.load(Path(folder), Path(networks), say=print)
run(study, train=noted)
"""


@pytest.mark.slow
def test_three_processes_share_a_study_and_one_is_killed(finished, tmp_path):
    """Each network is trained by one, and what comes out is what one process makes."""
    folder, log = tmp_path / "digits-methods", tmp_path / "log"
    folder.mkdir()
    for name in ("protocol.toml", "study.toml"):
        shutil.copy(finished / name, folder)
    command = [sys.executable, "-c", DRIVER, "", folder, tmp_path / "networks", log]
    start = functools.partial(
        subprocess.Popen, command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    first = start()
    while not log.exists():
        time.sleep(0.05)
    first.kill()  # while it trains the first candidate
    first.communicate()
    processes = [start(), start()]
    said = [process.communicate()[0] for process in processes]
    assert all("finished, 6 networks" in one for one in said), said
    trained = log.read_text().splitlines()
    assert len(trained) == 1 + 5 + 6 and len(set(trained[1:])) == 5 + 6
    both = (finished, folder)
    for name in ("candidates.csv", "networks.csv", "strengths.csv"):
        one, many = (pd.read_csv(one / name, dtype=str, keep_default_na=False) for one in both)
        kept = [column for column in one if column not in ("seconds", "package")]
        keys = ["variant", "strength"] + ["training_seed"] * ("training_seed" in one)
        one, many = (t.sort_values(keys, ignore_index=True)[kept] for t in (one, many))
        pd.testing.assert_frame_equal(one, many)
    for name in ("trials.csv", "training_images.csv"):
        one, many = (sorted((one / name).read_text().splitlines()) for one in both)
        assert one == many, name
    sharp = [pd.read_csv(one / "sharpness.csv", keep_default_na=False) for one in both]
    one, many = (table.sort_values("checkpoint", ignore_index=True) for table in sharp)
    pd.testing.assert_frame_equal(one, many, rtol=1e-6)  # sums depend on the number of threads
    manifests = [json.loads((one / "manifest.json").read_text()) for one in both]
    assert manifests[0]["checkpoints"] == manifests[1]["checkpoints"]
    kept = [{file.name for file in (one / "networks").iterdir()} for one in both]
    assert kept[0] == kept[1]
    assert not [*folder.glob("*.lock"), *folder.glob("*.lease")]


@pytest.mark.slow
def test_a_network_that_another_process_trains_is_left_to_it(tmp_path, monkeypatch, capsys):
    """A table that is never released is an error."""
    protocol = SMALL.replace('[start_from]\ntuned = "sgd"\n', "")
    folder, networks = small_study(tmp_path / "small", protocol), tmp_path / "networks"
    held = MethodsStudy.load(folder).trainings()[0][1]
    with sole_writer(folder / f"sgd-{held.file_stem}"):
        methods_study.main(folder, networks=networks, steps=1)
        assert list(pd.read_csv(folder / "networks.csv")["variant"]) == ["tuned"]
        monkeypatch.setattr(tables, "WRITING_TAKES_S", 0.2)
        refused = pytest.raises(
            InUseError, match=r"training_curves\.csv' is being written by .*; wake that process or"
        )
        with sole_writer(folder / "training_curves.csv"), refused:
            methods_study.main(folder, networks=networks, steps=1)
        assert len(pd.read_csv(folder / "networks.csv")) == 1
    methods_study.main(folder, networks=networks)
    assert "small: finished, 4 networks" in capsys.readouterr().out
    assert not [*folder.glob("*.lock"), *folder.glob("*.lease")]


@pytest.mark.slow
def test_a_protocol_that_changes_meanwhile_stops_the_process(tmp_path):
    folder, networks = small_study(tmp_path / "small"), tmp_path / "networks"

    def changing(*arguments):
        more = SMALL.replace("seeds = [0, 1]", "seeds = [0, 1, 2]", 1)  # may be added
        is_first = not (folder / "networks.csv").exists()
        (folder / "protocol.toml").write_text(more if is_first else more.replace("0.05", "0.1"))
        return train_and_validate(*arguments)

    run(MethodsStudy.load(folder, networks), steps=2, train=changing)
    (folder / "protocol.toml").write_text(SMALL)
    changed = SMALL.replace("sharpness_images = 20", "sharpness_images = 10")

    def fewer_images(*arguments):
        (folder / "protocol.toml").write_text(changed)
        return train_and_validate(*arguments)

    with pytest.raises(ValueError, match="sharpness_images of protocol.toml changed since this pr"):
        run(MethodsStudy.load(folder, networks), train=fewer_images)
    assert len(pd.read_csv(folder / "networks.csv")) == 3


@pytest.mark.slow
def test_candidates_of_other_settings_are_refused_and_a_method_may_be_added(finished, tmp_path):
    clone = tmp_path / "digits-methods"
    shutil.copytree(finished, clone)
    for old, new, message in (
        ("grid_epochs = 1", "grid_epochs = 3", "sgd of seed 100 .*epochs 1 there, 3 asked"),
        ("noise_sigma = 0.1", "noise_sigma = 0.3", "sgd of seed 100 .*noise_sigma 0.1 there, 0.3"),
    ):
        (clone / "protocol.toml").write_text(PROTOCOL.replace(old, new))
        with pytest.raises(ValueError, match=message):
            methods_study.main(clone, networks=tmp_path / "other")
    (clone / "protocol.toml").write_text(
        PROTOCOL.replace("sigma=0.1,0.2", "sigma=0.1,0.2,0.3").replace("1.5,2.0", "1.5,2.0,2.5")
    )
    with pytest.raises(ValueError, match=r"rwp|clipping.* was chosen without its candidate"):
        methods_study.main(clone, networks=tmp_path / "other")
    before = (clone / "strengths.csv").read_text()
    more = PROTOCOL.replace("[claims.gain]", 'asam = "asam:rho=0.5,1.0"\n\n[claims.gain]')
    (clone / "protocol.toml").write_text(more)
    methods_study.main(clone, networks=tmp_path / "other")
    assert (clone / "strengths.csv").read_text().startswith(before)
    networks = pd.read_csv(clone / "networks.csv")
    assert list(networks["variant"].tail(2)) == ["asam"] * 2 and len(networks) == 6 + 2


@pytest.mark.slow
def test_a_shared_folder_may_be_called_by_another_name(tmp_path, monkeypatch):
    """Relative, then absolute: what was fine-tuned is not trained again, nor refused."""
    folder = small_study(tmp_path / "small")
    monkeypatch.chdir(tmp_path)
    methods_study.main(folder, networks=Path("networks"))
    table = (folder / "networks.csv").read_text()
    (folder / "networks.csv").write_text("".join(table.splitlines(keepends=True)[:-1]))
    methods_study.main(folder, networks=tmp_path / "networks")
    assert (folder / "networks.csv").read_text() == table


@pytest.mark.slow
def test_fine_tuning_starts_from_the_network_of_its_seed_and_is_told_apart(tmp_path):
    folder = tmp_path / "digits-methods"
    folder.mkdir()
    protocol = PROTOCOL.replace('clipping = "sgd:clip_weights=1.5,2.0"', TUNED)
    protocol = protocol.replace('"study.toml"]', '"study.toml", "../few/study.toml"]')
    (folder / "protocol.toml").write_text(protocol.partition("[training_images]")[0] + protocol[
        protocol.index("[common]") :
    ])  # fmt: skip
    (folder / "study.toml").write_text(STUDY)
    (tmp_path / "few").mkdir()
    few = STUDY.replace("networks/", "../digits-methods/networks/")
    (tmp_path / "few/study.toml").write_text(few.replace('"digits-methods"', '"few"'))
    methods_study.main(folder, networks=tmp_path / "networks")
    networks = pd.read_csv(folder / "networks.csv", keep_default_na=False)
    tuned = networks[networks["variant"] == "tuned"]
    assert list(tuned["strength"]) == ["rho=0.05 fine-tuned"] * 2
    for row in tuned.itertuples():
        found = load_checkpoint(tmp_path / "networks/digits-methods/tuned" / row.checkpoint)
        (first,) = networks.loc[
            (networks["variant"] == "sgd") & (networks["training_seed"] == row.training_seed),
            "digest",
        ]
        assert load_checkpoint(found.spec.start_from).digest == first
        assert found.spec.epochs == 1
    rows = read_trials(folder)
    assert set(zip(rows["method"], rows["strength"], strict=True)) >= {
        ("sam", "rho=0.05 fine-tuned"), ("sgd", "")
    }  # fmt: skip
    assert set(read_trials(tmp_path / "few")["method"]) == {"sgd"}
    assert not (folder / "training_images.csv").exists()


@pytest.mark.slow
def test_a_compressed_table_is_continued_and_reproduced(finished, tmp_path, capsys):
    clone = tmp_path / "digits-methods"
    shutil.copytree(finished, clone)
    networks = pd.read_csv(clone / "networks.csv", dtype=str, keep_default_na=False)
    networks.iloc[:-1].to_csv(clone / "networks.csv", index=False)
    table = (clone / "trials.csv").read_bytes()
    lines = table.splitlines(keepends=True)
    (clone / "trials.csv").unlink()
    (clone / "trials.csv.gz").write_bytes(gzip.compress(b"".join(lines[:-3])))
    beside = ("sharpness.csv", "training_images.csv", "training_curves.csv")
    for name in beside:
        (clone / f"{name}.gz").write_bytes(gzip.compress((clone / name).read_bytes()))
        (clone / name).unlink()
    methods_study.main(clone, networks=tmp_path / "other")
    for name in beside[:2]:  # the third has seconds
        assert (clone / name).read_bytes() == (finished / name).read_bytes()
        assert not (clone / f"{name}.gz").exists()
    assert (clone / "trials.csv").read_bytes() == b"".join(lines[:1] + lines[-3:])
    pd.testing.assert_frame_equal(read_trials(clone), read_trials(finished))
    (clone / "trials.csv").unlink()
    (clone / "trials.csv.gz").write_bytes(gzip.compress(table))
    rerun.main(clone)
    plain = {file.name: file.read_bytes() for file in clone.glob("*.png")}
    for name in beside:
        (clone / f"{name}.gz").write_bytes(gzip.compress((clone / name).read_bytes()))
        (clone / name).unlink()
    capsys.readouterr()
    rerun.main(clone, verify=True, share=0.2, jobs=1)
    said = capsys.readouterr().out
    assert "4 rows of" in said and "4 equal" in said and " 0 new," in said
    assert {"training.png", "sharpness.png"} <= set(plain)
    assert plain == {file.name: file.read_bytes() for file in clone.glob("*.png")}
    (clone / "sharpness.csv.gz").write_bytes(b"no gzip")
    with pytest.raises(ValueError, match=r"sharpness.csv.gz' cannot be decompressed"):
        rerun.main(clone)


@pytest.mark.slow
def test_kept_networks_are_those_of_the_table(finished):
    digests = set(pd.read_csv(finished / "networks.csv")["digest"])
    assert {load_checkpoint(p).digest for p in (finished / "networks").iterdir()} < digests


@pytest.mark.slow
def test_rows_are_reproduced_and_a_changed_one_is_found(finished, tmp_path, capsys):
    study = tmp_path / "digits-methods"
    shutil.copytree(finished, study)
    rerun.main(study, verify=True, share=1.0, jobs=1)
    assert "18 rows of 3 networks again: 18 equal" in capsys.readouterr().out
    rerun.main(study)
    assert "0 new" in capsys.readouterr().out
    assert {"methods.csv", "noisy_gap.csv", "noisy_gap.pdf"} <= {p.name for p in study.iterdir()}
    (study / "accuracy.csv").write_text("other")
    with pytest.raises(ValueError, match=r"these tables differ: accuracy\.csv"):
        rerun.main(study)
    rows = pd.read_csv(study / "trials.csv")
    kept = rows["training_seed"] == 10
    changed = rows["n_correct"].where(~kept, rows["n_correct"] - 1)
    changed = changed.clip(lower=0)
    rows.assign(n_correct=changed, n_changed=rows["n_changed"] + 1)[list(COLUMNS)].to_csv(
        study / "trials.csv", index=False
    )
    with pytest.raises(ValueError, match="0 equal, largest difference 1 of 359 images"):
        rerun.main(study, verify=True, share=1.0, jobs=1)


@pytest.mark.slow
def test_an_unfinished_study_has_no_tables_of_its_networks(finished, tmp_path, capsys):
    study = tmp_path / "digits-methods"
    shutil.copytree(finished, study)
    networks = (study / "networks.csv").read_text().splitlines(keepends=True)
    (study / "networks.csv").write_text("".join(networks[:-1]))
    (study / "methods.csv").unlink(missing_ok=True)
    rerun.main(study)
    assert "no tables of all networks, 5 of 6 networks are there" in capsys.readouterr().out
    assert not (study / "methods.csv").exists()


@pytest.mark.slow
def test_without_a_grid_every_strength_is_trained(finished, tmp_path):
    folder = tmp_path / "digits-strengths"
    folder.mkdir()
    protocol = PROTOCOL.replace("grid_seed = 100\ngrid_epochs = 1\n", "").replace(
        "seeds = [10, 11]", "seeds = [10]"
    )
    (folder / "protocol.toml").write_text(protocol)
    (folder / "study.toml").write_text(STUDY.replace("-methods", "-strengths"))
    methods_study.main(folder, networks=tmp_path / "networks")
    assert len(pd.read_csv(folder / "networks.csv")) == 5
    assert not (folder / "candidates.csv").exists()


@pytest.mark.slow
def test_a_study_of_another_score_runs_on_a_text(tmp_path):
    folder = tmp_path / "text-methods"
    folder.mkdir()
    (tmp_path / "book.txt").write_text("It was the best of times, it was the worst of times. " * 60)
    data = 'dataset = "book.txt,length=16,test_fraction=0.2"\nmodel = "char_lstm"\nbatch_size = 16'
    protocol = PROTOCOL.replace('dataset = "digits"\nmodel = "mlp"', data)
    protocol = protocol.replace("n_images = 200", "n_images = 40")
    protocol += "\n[common.model_kwargs]\nwidth = 8\nlayers = 1\n"
    (folder / "protocol.toml").write_text(protocol)
    (folder / "study.toml").write_text('score = "cross_entropy"\n' + STUDY)
    methods_study.main(folder, networks=tmp_path / "networks", data_folder=tmp_path)
    rows = read_trials(folder)
    assert tuple(rows.columns) == SCORE_COLUMNS
    training = pd.read_csv(folder / "training_images.csv")
    assert set(training["score"]) == {"cross_entropy"}
    assert (training["sum_training"] / training["n_training_images"]).between(0, 4).all()
    assert len(pd.read_csv(folder / "networks.csv")) == 6


SMALL = """
seeds = [0, 1]
kept_seeds = [1]
noise_sigma = 0.1
noise_draws = 1
studies = ["study.toml"]
sharpness_images = 20

[start_from]
tuned = "sgd"

[common]
dataset = "digits"
model = "mlp"
epochs = 1

[methods]
sgd = "sgd"
tuned = "sam:rho=0.05"
"""


GAIN = """[claims.a]
[[claims.a.tests]]
measure = "gain"
method = "tuned"
over = "{}"
device = "{}"
time_s = {}
above = 0.0
"""


def small_study(folder, protocol=SMALL):
    """A study of two methods and two seeds, without a grid."""
    folder.mkdir(parents=True)
    (folder / "protocol.toml").write_text(protocol)
    study = STUDY.replace("n_chips = 3", "n_chips = 2").partition("[axes]")[0]
    (folder / "study.toml").write_text(study)
    return folder


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('tuned = "sgd"', 'tuned = "sdg"', r"\[start_from\] names \['sdg'\], which are not in"),
        ('tuned = "sgd"', 'tuned = "tuned"', "starts from .'tuned'., which start from a network"),
        ('sgd = "sgd"', 'sgd = "sgd:clip_weights=1.0,2.0"', "'sgd', which has 2 strengths"),
        ("[common]", '[only]\n"o.toml" = ["sgd"]\n[common]', r"\[only\] names .'o.toml'., which"),
        ("[common]", '[only]\n"study.toml" = ["a"]\n[common]', r"\[only\] names .'a'., which are"),
        ("[methods]", "[method]", "unknown key 'method'; did you mean 'methods'"),
        ("kept_seeds = [1]", "", "keys .'kept_seeds'. are missing; add them"),
        ("kept_seeds = [1]", "kept_seeds = [2]", "kept_seeds has .2., which are not in seeds"),
        ("seeds = [0, 1]", "seeds = [0, 1, 1]", "seeds has .1. twice"),
        ("noise_draws", "grid_seed = 1\ngrid_epochs = 1\nnoise_draws", "grid_seed has .1., which"),
        ("noise_draws", "grid_seed = 2\nnoise_draws", "grid_seed and grid_epochs belong together"),
        ("epochs = 1", "", r"keys \['epochs'\] of \[common\] are missing"),
        ("epochs = 1", "epochs = 1\nseed = 3", "'seed' is not an option of .common. or .methods."),
        ('sgd = "sgd"', 'sgd = "sgd"\nslow = "sgd:lr=0.01"', "'sgd' and 'slow' are both 'sgd' in"),
        ("rho=0.05", "rho=0.05,0.05", "'tuned' has the candidate 'sam rho=0.05 fine-tuned' twice"),
        ("rho=0.05", "rhu=0.05", r"\[methods\] tuned: Unknown training specification key 'rhu'"),
        ('"mlp"', '"other:net"', "runs code of the package 'other'. If you trust it"),
        ('["study.toml"]', '["study.toml", "b.toml"]', "each needs a folder of its own"),
        ("[common]", "[claims.a]\nnumber = 1.5\n[common]", "claim 'a': number = 1.5 is not"),
        ("[common]", GAIN.format("sdg", "gaussian_max", 0) + "[common]",
         r"claim 'a', test 1: over = 'sdg' is not in the protocol: ..sgd., .tuned"),
        ("[common]", GAIN.format("sgd", "gausian", 0) + "[common]",
         r"claim 'a': no study has the device 'gausian'; there are .'gaussian_max'"),
        ("[common]", GAIN.format("sgd", "gaussian_max", 60) + "[common]",
         r"claim 'a': no study has 'gaussian_max' at 60; there are .0.0. s"),
        ("[common]", "[common", "protocol.toml: not valid TOML"),
    ],
)  # fmt: skip
def test_a_wrong_protocol_is_refused_before_anything_is_trained(tmp_path, old, new, message):
    assert old in SMALL
    folder = small_study(tmp_path / "small", SMALL.replace(old, new, 1))
    with pytest.raises(ValueError, match=message):
        methods_study.main(folder, networks=tmp_path / "networks")
    assert not (tmp_path / "networks").exists()


def test_a_grid_tunes_all_methods_alike(tmp_path):
    folder = small_study(tmp_path / "small", PROTOCOL.replace("sigma=0.1,0.2", "sigma=0.1,0.2,0.3"))
    with pytest.raises(ValueError, match=r"different numbers of .*'sgd': 1, 'rwp': 3, 'clipping'"):
        load_protocol(folder)


def test_a_folder_without_protocol_and_a_wrong_device_are_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="give the folder of a study, with its protocol"):
        methods_study.main(tmp_path)
    folder = small_study(tmp_path / "small")
    (folder / "study.toml").write_text(STUDY.replace('"gaussian_max"', '"gausian_max"'))
    with pytest.raises(FileNotFoundError, match="did you mean 'gaussian_max'"):
        methods_study.main(folder, networks=tmp_path / "networks")


@pytest.mark.parametrize("folder", sorted(EXPERIMENTS.parent.glob("results/*/protocol.toml")))
def test_committed_protocols_are_valid(folder):
    assert load_protocol(folder.parent)["claims"]


@pytest.mark.slow
def test_lost_rows_and_new_chips_are_computed_and_a_changed_protocol_is_refused(
    tmp_path, monkeypatch
):
    """The first network is not among the kept ones, and the folder is the current one."""
    folder, networks = small_study(tmp_path / "small"), tmp_path / "networks"
    monkeypatch.chdir(folder)
    methods_study.main(Path(), networks=networks)
    assert sorted(path.name for path in (networks / "small").iterdir()) == ["sgd", "tuned"]
    table, trials = Path("networks.csv").read_text(), Path("trials.csv").read_text()
    Path("trials.csv").write_text(trials[: trials.rindex("\n", 0, -1) + 1])
    methods_study.main(Path(), networks=networks)
    assert sorted(Path("trials.csv").read_text().splitlines()) == sorted(trials.splitlines())
    assert Path("networks.csv").read_text().splitlines()[:-1] == table.splitlines()[:-1]
    study = Path("study.toml").read_text()
    Path("study.toml").write_text(study.replace("n_chips = 2", "n_chips = 3"))
    methods_study.main(Path(), networks=networks)
    assert len(read_trials(Path())) == 4 * 3 and len(pd.read_csv("networks.csv")) == 4
    study = study.replace("n_chips = 2", "n_chips = 3")
    Path("study.toml").write_text(study.replace("gaussian_max", "gaussian_max_layer"))
    methods_study.main(Path(), networks=networks)  # as many rows as before, of another device
    rows, both = read_trials(Path()), {"gaussian_max", "gaussian_max_layer"}
    assert dict(rows["device"].value_counts()) == dict.fromkeys(both, 4 * 3)
    manifest = json.loads(Path("manifest.json").read_text())
    assert set(manifest["devices"]) == both == set(manifest["device_digests"])
    assert set(pd.read_csv("audit.csv")["device"]) == both
    Path("study.toml").write_text(study)

    other = SMALL.replace("sharpness_images = 20", "sharpness_images = 10")
    Path("protocol.toml").write_text(other)
    with pytest.raises(ValueError, match="evaluated with other .* .sharpness_images: 20 and 10"):
        methods_study.main(Path(), networks=networks)
    Path("protocol.toml").write_text(SMALL.replace("epochs = 1", "epochs = 2"))
    with pytest.raises(ValueError, match="seed 0 was trained with other settings .epochs 1 there"):
        methods_study.main(Path(), networks=networks)
    Path("protocol.toml").write_text(SMALL)
    with pytest.raises(ValueError, match="--steps must be at least 1; got 0"):
        methods_study.main(Path(), networks=networks, steps=0)
    Path("networks.csv").write_text(table[:-120])
    with pytest.raises(ValueError, match=r"networks\.csv, line 5, is cut off; delete it"):
        methods_study.main(Path(), networks=networks)


@pytest.mark.slow
def test_a_device_or_setting_that_changes_midway_is_refused_not_averaged(tmp_path):
    """Before a network is trained, after one was, and where nothing is left to do."""
    folder, networks = small_study(tmp_path / "small"), tmp_path / "networks"
    own = (ROOT / "device_configs" / "gaussian_max.toml").read_text().replace("{", "{{")
    own = own.replace('"gaussian_max"', '"mine"', 1).replace("sigma = 0.038", "sigma = {}")
    device, study = folder / "mine.toml", folder / "study.toml"
    device.write_text(own.format(0.05))
    text = study.read_text().replace('"gaussian_max"', '"mine.toml"')
    study.write_text(text)
    methods_study.main(folder, networks=networks, steps=1)
    rows = (folder / "trials.csv").read_text()
    changes = {
        device: (own.format(0.2), "'mine' has changed .* .noise.sigma: 0.05 and 0.2"),
        study: (text + "\n[axes]\nsigma = [0.1]\n", r"axes: \[\] and \['sigma'\]"),
    }
    for file, (other, message) in changes.items():
        before = file.read_text()
        file.write_text(other)
        with pytest.raises(ValueError, match=message):
            methods_study.main(folder, networks=networks)
        file.write_text(before)
    assert (folder / "trials.csv").read_text() == rows

    def changed_while_training(*arguments):
        row = train_and_validate(*arguments)
        device.write_text(own.format(0.2))
        return row

    with pytest.raises(ValueError, match="'mine' has changed"):
        run(MethodsStudy.load(folder, networks), train=changed_while_training)
    assert (folder / "trials.csv").read_text() == rows
    device.write_text(own.format(0.05))
    methods_study.main(folder, networks=networks)
    assert len(pd.read_csv(folder / "networks.csv")) == 4
    device.write_text(own.format(0.2))
    with pytest.raises(ValueError, match="'mine' has changed"):
        methods_study.main(folder, networks=networks)


def test_chips_for_training_images_are_named_as_their_device_is(tmp_path):
    images = (
        '\n[training_images]\nstudy = "study.toml"\ndevice = "{}"\nn_chips = 1\nn_images = 20\n'
    )
    folder = small_study(tmp_path / "small")
    own = (ROOT / "device_configs" / "gaussian_max.toml").read_text()
    (folder / "file.toml").write_text(own.replace('"gaussian_max"', '"mine"', 1))
    study = (folder / "study.toml").read_text().replace('"gaussian_max"', '"file.toml"')
    (folder / "study.toml").write_text(study)
    for device, error in (("mine", False), ("file", True)):
        (folder / "protocol.toml").write_text(SMALL + images.format(device))
        study = MethodsStudy.load(folder)
        with pytest.raises(ValueError, match=r"chips of \['mine'\]") if error else nullcontext():
            check_studies(study)


def test_outside_of_its_repository_the_package_has_no_hash(tmp_path, monkeypatch):
    subprocess.run(["git", "init", "-q", tmp_path], check=True)
    (tmp_path / "site").mkdir()
    for folder in ("site", "missing"):
        monkeypatch.setattr(provenance, "__file__", str(tmp_path / folder / "provenance.py"))
        assert provenance.package_tree() == ""


@pytest.mark.slow
def test_a_start_that_diverges_is_a_failure_in_the_table(tmp_path, capsys):
    protocol = SMALL.replace('sgd = "sgd"', 'sgd = "sgd:lr=1e30"').replace("[0, 1]", "[1]")
    folder = small_study(tmp_path / "small", protocol + 'sam = "sam:rho=0.05"\n')
    methods_study.main(folder, networks=tmp_path / "networks")
    assert "3 networks, 2 of which failed" in capsys.readouterr().out
    networks = pd.read_csv(folder / "networks.csv", dtype=str, keep_default_na=False)
    assert networks["failure"].str.contains("diverged").tolist() == [True, True, False]
    assert networks["n_correct_digital"].iloc[-1].isdigit()


@pytest.mark.slow
def test_a_method_of_ones_own_needs_trust(tmp_path):
    own = "tests_own_methods"
    (tmp_path / f"{own}.py").write_text(
        "import torch\nfrom analog_samson.methods import Method\n"
        "def signs(weights, gradients, *, radius):\n"
        "    return {name: radius * torch.sign(g) for name, g in gradients.items()}\n"
        f"own = Method(label='own', step='two passes', build='{own}:signs', strength='radius',\n"
        "             symbol='r', colour='#7A3E9D', marker='H', citation='@misc{a}')\n"
    )
    protocol = SMALL.replace("[0, 1]", "[1]") + f'own = "{own}:own:radius=0.01"\n'
    folder = small_study(tmp_path / "small", protocol)
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(tmp_path)
        with pytest.raises(ValueError, match=f"--trust {own}"):
            methods_study.main(folder, networks=tmp_path / "networks")
        methods_study.main(folder, networks=tmp_path / "networks", trust=(own,))
        rerun.main(folder, verify=True, share=1.0, jobs=1, trust=(own,))
        with pytest.raises(ValueError, match="--share is above 0 and at most 1"):
            rerun.main(folder, share=1.5)
    assert len(pd.read_csv(folder / "networks.csv")) == 3


def test_the_protocol_of_the_page_is_valid_and_its_claims_are_understood(tmp_path):
    page = (EXPERIMENTS.parent / "docs/COMMANDS.md").read_text()
    section = page.partition("## A study of methods")[2]
    protocol, study = (part.partition("```")[0] for part in section.split("```toml\n")[1:3])
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/protocol.toml").write_text(protocol)
    (tmp_path / "mine/study.toml").write_text(study)
    check_studies(MethodsStudy.load(tmp_path / "mine"))
    assert set(script("verdicts").verdicts(tmp_path)["verdict"]) == {"open"}


def test_a_benchmark_of_nothing_is_refused(tmp_path):
    training_step = script("../benchmarks/training_step")
    for wrong, message in (({"models": ("vgg",)}, "got .'vgg'."), ({"rounds": 0}, "got 0 and 5")):
        with pytest.raises(ValueError, match=message):
            training_step.main(out=tmp_path / "steps.json", **wrong)
