"""Each way to give a data set runs from the training to a results table."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from places import ROOT, SHARED_DATA
from samples import CLASSES, samples, write_folders, write_parquet

from analog_samson import Study, collect
from analog_samson.checkpoint import TrainingSpec, load_checkpoint
from analog_samson.data import load_dataset
from analog_samson.models import build_model
from analog_samson.report import write_report
from analog_samson.study import load_study
from analog_samson.training import train, train_grid

MODULE = """
import torch
from torch import nn
from torch.utils.data import TensorDataset

from analog_samson.data import Dataset, Split


def part(n, seed):
    draws = torch.Generator().manual_seed(seed)
    labels = torch.arange(n) % 3
    return torch.randn((n, 6), generator=draws) + 3 * labels[:, None], labels


def ours(folder, validation_fraction):
    return Dataset.of_splits(Split(*part(120, 0)), Split(*part(60, 1)),
                             validation_fraction=validation_fraction)


def pair(folder, validation_fraction):
    return TensorDataset(*part(120, 0)), TensorDataset(*part(60, 1))


class Next(nn.Module):
    \"\"\"The token after a window, or after each of its positions.\"\"\"

    def __init__(self, n_tokens, length, everywhere=False):
        super().__init__()
        self.embedding = nn.Embedding(n_tokens, 8)
        self.fc1 = nn.Linear(8 if everywhere else 8 * length, 32)
        self.fc2 = nn.Linear(32, n_tokens)
        self.everywhere = everywhere

    def forward(self, tokens):
        x = self.embedding(tokens)
        x = x if self.everywhere else x.flatten(1)
        return self.fc2(torch.relu(self.fc1(x)))
"""

SHORT = {"batch_size": 16, "epochs": 6, "lr": 0.05}
MLP = {"model": "mlp", "model_kwargs": {"hidden": [16]}, **SHORT}
PARTS = {"train": samples(150, 0), "test": samples(60, 1)}
TRUST = ("ways_for_a_test",)


@pytest.fixture
def module(tmp_path, monkeypatch):
    folder = tmp_path / "elsewhere"
    folder.mkdir()
    (folder / "ways_for_a_test.py").write_text(MODULE)
    monkeypatch.syspath_prepend(folder)
    yield folder
    sys.modules.pop("ways_for_a_test", None)


def book(folder: Path) -> Path:
    """A text in which each character tells the next one, 95 times of a hundred."""
    draws, text = np.random.default_rng(0), "ab"
    for _ in range(2000):
        follows = "abc"[("abc".index(text[-1]) + 1) % 3]
        text += follows if draws.random() < 0.95 else "abc"[draws.integers(3)]
    (folder / "book.txt").write_text(text)
    return folder / "book.txt"


def npz(folder: Path) -> Path:
    arrays = {f"{axis}_{part}": array for part, pair in PARTS.items()
              for axis, array in zip("xy", pair, strict=True)}  # fmt: skip
    np.savez(folder / "a.npz", class_names=np.array(CLASSES), **arrays)
    return folder / "a.npz"


NEXT = {
    "model": "ways_for_a_test:Next",
    "model_kwargs": {"n_tokens": 4, "length": 4},
    "keep_digital": ["embedding"],
    **SHORT,
}
WAYS = {
    "a name": (lambda _: "digits", "digits", MLP),
    "class folders": (lambda f: write_folders(f / "a", PARTS, "JPEG"), "a", MLP),
    ".npz": (npz, "a.npz", MLP),
    "parquet": (lambda f: write_parquet(f / "a", PARTS, names=CLASSES), "a", MLP),
    "text": (
        lambda f: f"{book(f)},length=4,targets=last,test_fraction=0.2",
        "book.txt (length 4, targets last, test_fraction 0.2)",
        NEXT,
    ),
    "function": (lambda _: "ways_for_a_test:ours", "ours", MLP),
    "pair of torch data sets": (lambda _: "ways_for_a_test:pair", "pair", MLP),
}


@pytest.mark.slow
@pytest.mark.parametrize("way", WAYS)
def test_each_way_runs_to_a_table(way, module, tmp_path):
    build, label, training = WAYS[way]
    home = tmp_path / "home"
    home.mkdir()
    given = str(build(home))
    path = train(TrainingSpec(dataset=given, **training), tmp_path / "networks")
    checkpoint = load_checkpoint(path, TRUST)
    folder = tmp_path / "study"
    study = Study("ways", [path], ["pcm_like"], [1.0], n_chips=2, trust=TRUST, data_folder=home)
    rows = collect(study, folder)
    assert set(rows["dataset"]) == {checkpoint.spec.dataset}
    assert rows["n_correct_digital"].iloc[0] == checkpoint.n_correct_digital
    assert checkpoint.accuracy_digital > 0.7, "a third, or a tenth, by guessing"
    assert (rows["n_correct"] / rows["n_images_per_chip"]).min() > 0.5
    dataset = load_dataset(given)
    assert dataset.name == checkpoint.spec.dataset
    assert (checkpoint.mean, checkpoint.std) == (dataset.mean, dataset.std)
    assert checkpoint.class_names == dataset.class_names
    written = [path.read_bytes(), *(f.read_bytes() for f in folder.iterdir() if f.is_file())]
    assert not any(str(home).encode() in content for content in written)
    manifest = json.loads((folder / "manifest.json").read_text())
    assert [d["label"] for d in manifest["datasets"].values()] == [label]
    write_report(folder)
    assert f" on {label} (on these" in (folder / "report.html").read_text()
    assert "@" not in (folder / "accuracy.md").read_text()


@pytest.mark.slow
def test_a_study_file_and_the_study_name_the_data_by_a_path(tmp_path):
    data = npz(tmp_path)
    path = train(TrainingSpec(dataset=str(data), **MLP), tmp_path / "networks")
    text = 'name = "s"\ncheckpoints = ["networks/*.safetensors"]\ndevices = ["ideal"]\n'
    (tmp_path / "s.toml").write_text(text + 'times_s = [1.0]\nn_chips = 1\ndataset = "a.npz"\n')
    from_file = collect(load_study(tmp_path / "s.toml"), tmp_path / "one")
    data.rename(tmp_path / "renamed.npz")
    study = Study("s", [path], ["ideal"], [1.0], n_chips=1, dataset=tmp_path / "renamed.npz")
    assert collect(study, tmp_path / "two").equals(from_file)


@pytest.mark.slow
def test_a_network_trained_elsewhere_is_imported_with_the_path_of_its_data(tmp_path):
    data = npz(tmp_path)
    model = build_model("mlp", image_shape=(3, 8, 8), n_classes=3, seed=0, hidden=[16])
    torch.save(model.state_dict(), tmp_path / "net.pth")
    out = tmp_path / "net.safetensors"
    options = ["--factory", "mlp", "--kwargs", '{"hidden": [16]}', "--dataset", str(data)]
    command = [sys.executable, ROOT / "experiments" / "import_checkpoint.py", *options]
    command += ["--state", tmp_path / "net.pth", "--out", out]
    subprocess.run(command, check=True, capture_output=True, env=os.environ)
    checkpoint = load_checkpoint(out)
    assert checkpoint.spec.dataset == load_dataset(str(data)).name
    rows = collect(Study("s", [out], ["ideal"], [1.0], n_chips=1, dataset=data), tmp_path / "s")
    assert set(rows["n_correct_digital"]) == {checkpoint.n_correct_digital}


@pytest.mark.slow
def test_a_grid_of_trainings_names_the_data_by_their_contents(tmp_path):
    data = npz(tmp_path)
    spec = TrainingSpec(dataset=str(data), **MLP)
    table = train_grid([spec], tmp_path / "networks", noise_sigma=0.05)
    assert set(table["dataset"]) == {load_dataset(str(data)).name}
    assert table["validation_clean"].iloc[0] > 0.7
    again = train(spec, tmp_path / "networks")
    assert again.name == table["checkpoint"].iloc[0] == "a.npz-mlp-sgd-seed0.safetensors"
    np.savez(data, x_train=PARTS["train"][0], y_train=PARTS["train"][1], x_test=PARTS["test"][0],
             y_test=PARTS["test"][1])  # fmt: skip
    with pytest.raises(ValueError, match=r"trained with another specification \(dataset: 'a.npz@"):
        train(spec, tmp_path / "networks")


# tasks


def test_a_token_a_position_is_trained_with_its_own_loss(module, tmp_path):
    name = f"{book(tmp_path)},length=4,test_fraction=0.2"
    kwargs = {"n_tokens": 4, "length": 4, "everywhere": True}
    spec = TrainingSpec(dataset=name, **(NEXT | {"model_kwargs": kwargs, "epochs": 3}))
    path = train(spec, tmp_path / "networks")
    checkpoint = load_checkpoint(path, TRUST)
    assert (checkpoint.task, checkpoint.n_tokens, checkpoint.n_classes) == ("tokens", 4, 4)
    dataset = load_dataset(name)
    with torch.no_grad():
        outputs = checkpoint.build()(dataset.test.images)
    assert outputs.shape == (*dataset.test.labels.shape, 4)
    log = np.genfromtxt(path.with_suffix(".csv"), delimiter=",", names=True, dtype=None,
                        encoding="utf-8")  # fmt: skip
    loss = log["loss"][np.isfinite(log["loss"])]
    assert loss[-1] < np.log(3) / 2, "the entropy of this text is 0.27, guessing among three 1.1"
    grid = train_grid([spec], tmp_path / "again", noise_sigma=0.0)
    assert load_checkpoint(tmp_path / "again" / path.name, TRUST).digest == checkpoint.digest
    assert grid["validation_clean"].iloc[0] > 0.9, "0.97 of the tokens can be known"


@pytest.mark.parametrize("method", [{"method": "samson", "rho": 0.1},
                                    {"method": "saf", "trajectory_weight": 0.3},
                                    {"method": "mesa", "trajectory_weight": 0.3}])  # fmt: skip
def test_methods_train_tokens(method, module, tmp_path):
    name = f"{book(tmp_path)},length=4,test_fraction=0.2"
    kwargs = {"n_tokens": 4, "length": 4, "everywhere": True}
    spec = TrainingSpec(dataset=name, **(NEXT | {"model_kwargs": kwargs, "epochs": 2}), **method)
    assert load_checkpoint(train(spec, tmp_path), TRUST).task == "tokens"


def test_a_regression_is_trained_with_the_squared_error(tmp_path):
    """A linear function of the features is found: error far below the variance of the targets."""
    x = np.random.default_rng(0).standard_normal((400, 5)).astype(np.float32)
    y = x @ np.array([[1.0, 0.5], [-2.0, 0.0], [0.5, 1.0], [0.0, 0.2], [0.3, -1.0]], np.float32)
    np.savez(tmp_path / "a.npz", x_train=x[:300], y_train=y[:300], x_test=x[300:], y_test=y[300:])
    spec = TrainingSpec(
        dataset=str(tmp_path / "a.npz"), model="mlp", model_kwargs={"hidden": []}, lr=0.05,
        epochs=10, batch_size=16, schedule="adaptive", method="samson", rho=0.01, weight_decay=0.0,
    )  # fmt: skip
    checkpoint = load_checkpoint(train(spec, tmp_path))
    assert (checkpoint.task, checkpoint.n_classes) == ("regression", 2)
    grid = train_grid([spec], tmp_path, noise_sigma=0.0)
    assert grid["validation_clean"].iloc[0] > 0.99, "share of the variance"
    dataset = load_dataset(str(tmp_path / "a.npz"))
    with torch.no_grad():
        found = checkpoint.build()(checkpoint.normalise(dataset.test.images))
    error = (found - dataset.test.labels).square().mean()
    assert error < 0.01 * dataset.test.labels.var()


# re-encoded copies


@pytest.mark.slow
@pytest.mark.skipif(not SHARED_DATA.is_dir(), reason="no real data in ../shared/data")
def test_cifar10_as_jpeg_keeps_its_name_and_is_shown_as_what_it_is(tmp_path):
    spec = TrainingSpec(dataset="cifar10", epochs=0)
    path = train(spec, tmp_path, data_folder=SHARED_DATA)
    study = Study("s", [path], ["ideal"], [1.0], n_chips=1, n_test=64, data_folder=SHARED_DATA)
    rows = collect(study, tmp_path / "s")
    assert set(rows["dataset"]) == {"cifar10"}
    manifest = json.loads((tmp_path / "s" / "manifest.json").read_text())
    assert manifest["datasets"] == {"cifar10": {"label": "cifar10 (JPEG)", "shipped": True}}
    write_report(tmp_path / "s")
    assert " on CIFAR-10 (JPEG) (on these" in (tmp_path / "s" / "report.html").read_text()
