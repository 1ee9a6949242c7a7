"""Studies come out again whatever command made them."""

import json
import shutil

import pandas as pd
import pytest
from analog_samson.experiments import rerun
from places import ROOT
from synthetic_trials import make_trials

from analog_samson.checkpoint import TrainingSpec
from analog_samson.report import study_tables, write_requirements, write_tables
from analog_samson.report.methods import described_in
from analog_samson.results import append_rows, read_trials
from analog_samson.study import Study, collect, load_study, study_of_manifest, tolerances
from analog_samson.training import train


@pytest.fixture(scope="module")
def networks(tmp_path_factory):
    folder = tmp_path_factory.mktemp("networks")
    return [train(TrainingSpec(epochs=2, seed=seed), folder, progress=False) for seed in (0, 1)]


@pytest.fixture(scope="module")
def requirements(networks, tmp_path_factory):
    folder = tmp_path_factory.mktemp("requirements")
    study = Study("needed", networks, ["pcm_like"], ["1 d"], n_chips=4)
    tolerances(study, folder, lose=5.0, sources=["drift_scale"], others="nominal")
    keep(networks, folder)
    return folder


def keep(networks, folder):
    (folder / "networks").mkdir()
    for path in networks:
        shutil.copy(path, folder / "networks")


@pytest.mark.slow
def test_a_study_without_a_file_is_that_of_its_manifest(networks, tmp_path, capsys):
    settings = {"axes": {"output_noise": [0.0, 0.1]}, "n_images_per_chip": 100, "seed": 3}
    study = Study("own", networks, ["pcm_like", "reram_wan2022"], ["1 s", "1 d"], 2, **settings)
    rows = collect(study, tmp_path)
    keep(networks[:1], tmp_path)
    again = study_of_manifest(tmp_path)
    chips = {trial.chip_id for trial in again.trials()}
    assert chips == set(rows.loc[rows["training_seed"] == 0, "chip_id"])
    rerun.main(tmp_path, verify=True, share=1.0, jobs=1)
    assert f"{len(rows) // 2} rows of 1 networks again" in capsys.readouterr().out


@pytest.mark.slow
def test_a_study_of_requirements_is_searched_again(requirements, tmp_path, capsys):
    folder = tmp_path / "needed"
    shutil.copytree(requirements, folder)
    rerun.main(folder, verify=True, share=1.0, jobs=1)
    said = capsys.readouterr().out
    n = len(pd.read_csv(folder / "trials.csv"))
    assert f"{n} rows of 2 networks again: {n} equal" in said
    assert "2 searches again, with the same tolerances" in said
    assert {"requirements.md", "requirements.pdf"} <= {one.name for one in folder.iterdir()}
    assert not (folder / "accuracy.md").exists()
    kept = next((folder / "networks").iterdir())
    moved = kept.rename(tmp_path / kept.name)  # as a repository that keeps few networks
    rerun.main(folder, verify=True, share=0.1, jobs=1)
    assert "1 searches again" in capsys.readouterr().out
    moved.rename(kept)
    found = pd.read_csv(folder / "tolerances.csv")
    found.assign(factor=2 * found["factor"]).to_csv(folder / "tolerances.csv", index=False)
    with pytest.raises(ValueError, match="end at other tolerances than those of tolerances.csv"):
        rerun.main(folder, verify=True, share=0.1, jobs=1)


@pytest.mark.slow
def test_requirements_with_maintenance_and_another_baseline_come_out_again(
    networks, tmp_path, capsys
):
    study = Study("kept", networks[::-1], ["pcm_like"], ["1 d"], 3, refresh_every="1 week")
    rows = tolerances(study, tmp_path, lose=5.0, sources=["drift_scale"], others="nominal")
    write_requirements(rows, tmp_path, baseline="sam")
    keep(networks, tmp_path)
    rerun.main(tmp_path, verify=True, share=1.0, jobs=1)
    said = capsys.readouterr().out
    assert "2 searches again" in said and "3 tables unchanged" in said


@pytest.mark.slow
def test_without_its_networks_a_study_is_not_verified_but_drawn(requirements, tmp_path, capsys):
    folder = tmp_path / "needed"
    shutil.copytree(requirements, folder, ignore=shutil.ignore_patterns("networks"))
    with pytest.raises(FileNotFoundError, match="None of the networks.* or leave --verify out"):
        rerun.main(folder, verify=True)
    rerun.main(folder)
    assert "3 new, 2 figures" in capsys.readouterr().out
    (folder / "manifest.json").unlink()
    with pytest.raises(FileNotFoundError, match="There is no manifest"):
        rerun.main(folder, verify=True)


@pytest.mark.slow
def test_rings_are_drawn_and_their_table_is_compared(tmp_path, capsys):
    folder = tmp_path / "microring"
    without = shutil.ignore_patterns("networks", "*.tex", "*.png", "*.pdf")
    shutil.copytree(ROOT / "results" / "microring", folder, ignore=without)
    rerun.main(folder)
    assert "2 tables unchanged, 1 new, 2 figures" in capsys.readouterr().out
    (folder / "micro_rings.md").write_text("other")
    with pytest.raises(ValueError, match=r"these tables differ: micro_rings\.md"):
        rerun.main(folder)


def test_a_study_of_other_packages_is_redrawn_with_the_labels_of_its_report(tmp_path):
    names = {"sgd": 0.9, "mine:kick strength=1": 0.92}
    rows = make_trials(names, n_networks=3, n_chips=2, times_s=(1.0,), device="own")
    append_rows(rows.assign(dataset="mine:signs"), tmp_path / "trials.csv")
    manifest = {
        "methods": {"mine:kick": {"label": "Kick", "strength": "strength", "symbol": "k"}},
        "datasets": {"mine:signs": {"label": "traffic signs"}},
        "devices": {"own": {"technology": "FeFET"}},
    }
    (tmp_path / "manifest.json").write_text(json.dumps(manifest))
    rows = read_trials(tmp_path)
    with described_in([tmp_path]):  # as a report does
        written = write_tables(study_tables(rows, folders=[tmp_path]), tmp_path)
    text = (tmp_path / "accuracy.md").read_text()
    assert "Kick k = 1" in text and "traffic signs" in text and "FeFET" in text
    assert f"{len(written)} tables unchanged, 0 new" in rerun.redrawn(tmp_path, rows)


def test_the_file_of_a_study_comes_before_its_manifest(tmp_path):
    (tmp_path / "study.toml").write_text(
        'name = "own"\ncheckpoints = ["nets/*"]\ndevices = ["pcm_like"]\ntimes_s = ["1 s"]\n'
    )
    with pytest.raises(FileNotFoundError, match=r"no checkpoint matches.*nets.*Train them first"):
        rerun.study_in(tmp_path, ())
    (tmp_path / "nets").mkdir()
    (tmp_path / "nets/one").touch()
    (tmp_path / "manifest.json").write_text("this is not read")
    assert rerun.study_in(tmp_path, ()) == load_study(tmp_path / "study.toml")


def test_a_manifest_of_something_else_is_no_study_of_chips():
    with pytest.raises(ValueError, match="is not that of a study of chips"):
        study_of_manifest(ROOT / "results" / "microring")
