"""A data set from elsewhere: one function, named "module:name", from the training to the page."""

import json
import os
import re
import subprocess
import sys
import textwrap
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from places import ROOT
from torch import nn

from analog_samson import load_device, program
from analog_samson.checkpoint import TrainingSpec, load_checkpoint, save_checkpoint
from analog_samson.data import load_dataset
from analog_samson.importing import TRUST_VARIABLE
from analog_samson.landscape import sharpness
from analog_samson.models import build_model, check_outputs
from analog_samson.report.methods import dataset_label, described_in
from analog_samson.study import Study, accuracy_by_stage, collect
from analog_samson.training import train

OUTSIDE = """
import torch

from analog_samson.data import Dataset, Split


def part(n, seed, classes=3, channels=2):
    draws = torch.Generator().manual_seed(seed)
    labels = torch.arange(n) % classes
    noise = torch.randint(20, (n, channels, 8, 8), generator=draws)
    bright = torch.arange(1, channels + 1) == labels[:, None]  # one channel, or none
    return Split((noise + 20 * bright[:, :, None, None]).to(torch.uint8), labels)


def stripes_and_dots(folder, validation_fraction):
    return Dataset.of_splits(
        part(240, 0), part(60, 1), validation_fraction=validation_fraction, full_scale=40.0
    )


def failing(folder, validation_fraction):
    return folder["nothing"]
"""

NAME = "outside_images:stripes_and_dots"
TRUST = ("outside_images",)
SHORT = {"model_kwargs": {"hidden": [16]}, "epochs": 4, "batch_size": 32, "lr": 0.02}


@pytest.fixture
def outside(tmp_path, monkeypatch):
    folder = tmp_path / "elsewhere"
    folder.mkdir()
    (folder / "outside_images.py").write_text(OUTSIDE)
    monkeypatch.syspath_prepend(folder)
    yield folder
    sys.modules.pop("outside_images", None)


@pytest.fixture
def path(outside, tmp_path) -> Path:
    spec = TrainingSpec(dataset=NAME, augmentation="crop_flip", **SHORT)
    return train(spec, tmp_path / "networks")


@pytest.mark.slow
def test_images_from_elsewhere_go_from_training_to_the_page(path, outside, tmp_path, monkeypatch):
    """The page is written where the module cannot be imported."""
    assert path.name == "outside_images_stripes_and_dots-mlp-sgd-seed0.safetensors"
    checkpoint = load_checkpoint(path, TRUST)
    dataset = load_dataset(NAME)
    test = dataset.test.images
    assert (checkpoint.full_scale, checkpoint.image_shape) == (40.0, (2, 8, 8))
    assert torch.equal(checkpoint.normalise(test), dataset.normalise(test))
    folder = tmp_path / "study"
    study = Study("outside", [path], ["pcm_like"], [1.0, 3600.0], n_chips=2, trust=TRUST)
    rows = collect(study, folder, jobs=1)
    assert {name.partition("@")[0] for name in rows["dataset"]} == {NAME}
    assert set(rows["n_correct_digital"]) == {checkpoint.n_correct_digital}
    manifest = json.loads((folder / "manifest.json").read_text())
    named = {name.partition("@")[0]: entry for name, entry in manifest["datasets"].items()}
    assert named == {NAME: {"label": "stripes_and_dots", "shipped": False}}
    stages = accuracy_by_stage(checkpoint, "pcm_like", 3600.0, chips=1)
    last = rows[(rows["t_inference_s"] == 3600.0) & (rows["chip"] == 0)]
    assert stages["accuracy"].iloc[-1] == float(
        (last["n_correct"] / last["n_images_per_chip"]).iloc[0]
    )
    script = f"""
        import importlib.util, sys
        from analog_samson.report import write_report
        assert importlib.util.find_spec("outside_images") is None
        write_report(folder={str(folder)!r})
        assert "torch" not in sys.modules
    """
    monkeypatch.delenv("PYTHONPATH", raising=False)
    subprocess.run([sys.executable, "-c", textwrap.dedent(script)], check=True)
    assert " on stripes_and_dots (on these" in (folder / "report.html").read_text()
    assert r" on stripes\_and\_dots (on these" in (folder / "accuracy.tex").read_text()
    assert "outside_images" not in (folder / "accuracy.tex").read_text()
    assert (folder / "iso_accuracy.tex").is_file()  # the manifest knows the number of classes


@pytest.mark.slow
def test_workers_import_it_from_the_path(path, outside, tmp_path):
    script = f"""
        from pathlib import Path
        from analog_samson.study import Study, collect
        study = Study("s", [Path({str(path)!r})], ["ideal"], [1.0], n_chips=2, trust={TRUST})
        print(len(collect(study, Path({str(tmp_path / "study")!r}), jobs=2)))
    """
    environment = os.environ | {"PYTHONPATH": str(outside)}
    command = [sys.executable, "-c", textwrap.dedent(script)]
    done = subprocess.run(command, check=True, capture_output=True, text=True, env=environment)
    assert done.stdout.strip() == "2"


def test_a_file_that_names_a_data_set_needs_consent(path, monkeypatch):
    sys.modules.pop("outside_images", None)
    for opens in (
        lambda: load_checkpoint(path),
        lambda: program(path, "ideal"),
        lambda: Study("s", [path], ["ideal"], [1.0]).trials(),
        lambda: accuracy_by_stage(path, "ideal", 1.0),
        lambda: sharpness(path),
    ):
        with pytest.raises(ValueError, match="--trust outside_images"):
            opens()
    assert "outside_images" not in sys.modules
    monkeypatch.setenv(TRUST_VARIABLE, "outside_images")
    assert sharpness(path, n_training_images=20, draws=1)["loss"] > 0


def test_a_chip_recalibrates_on_its_training_images(path):
    device = load_device("pcm_like").with_axes({"batch_norm": "recalibrated"})
    dataset = load_dataset(NAME)
    chip = program(path, device, recalibration=dataset, trust=TRUST)
    checkpoint = load_checkpoint(path, TRUST)
    assert chip(checkpoint.normalise(dataset.test.images)).shape == (60, 3)


def test_the_scale_is_part_of_the_identity_only_where_no_name_says_it(path, tmp_path):
    checkpoint = load_checkpoint(path, TRUST)
    assert replace(checkpoint, full_scale=41.0).digest != checkpoint.digest
    old = replace(checkpoint, full_scale=None)
    with pytest.raises(ValueError, match="which pixel value of 'outside_images:stripes_and_dots@"):
        old.normalise(torch.zeros(1, 2, 8, 8, dtype=torch.uint8))
    digits = replace(checkpoint, spec=TrainingSpec(**SHORT))
    assert replace(digits, full_scale=16.0) == replace(digits, full_scale=None)
    assert replace(digits, full_scale=16.0).digest == replace(digits, full_scale=None).digest
    assert digits.pixel_scale == 40.0
    assert replace(digits, full_scale=16.0).pixel_scale == 16.0
    written = save_checkpoint(tmp_path / "d.safetensors", replace(digits, full_scale=16.0))
    assert b"full_scale" not in written.read_bytes()
    with pytest.raises(ValueError, match=r"full_scale = -1\.0 is not allowed"):
        replace(checkpoint, full_scale=-1.0)


@pytest.mark.slow
def test_a_network_trained_elsewhere_keeps_the_scale(outside, tmp_path):
    model = build_model("mlp", image_shape=(2, 8, 8), n_classes=3, seed=0, hidden=[16])
    torch.save(model.state_dict(), tmp_path / "net.pth")
    script = ROOT / "experiments" / "import_checkpoint.py"
    out = tmp_path / "net.safetensors"
    options = ["--factory", "mlp", "--kwargs", '{"hidden": [16]}', "--dataset", NAME]
    command = [sys.executable, script, *options, "--state", tmp_path / "net.pth", "--out", out]
    environment = os.environ | {"PYTHONPATH": str(outside)}
    done = subprocess.run(command, check=True, capture_output=True, text=True, env=environment)
    assert "commands that open it need --trust outside_images" in done.stdout
    checkpoint = load_checkpoint(out, TRUST)
    assert checkpoint.full_scale == 40.0
    test = load_dataset(NAME).test
    right = checkpoint.build()(checkpoint.normalise(test.images)).argmax(1) == test.labels
    assert checkpoint.n_correct_digital == int(right.sum())


def changed(path: Path, **facts) -> Path:
    """A checkpoint of a network that fits other images."""
    checkpoint = load_checkpoint(path, TRUST)
    sizes = {"image_shape": (2, 8, 8), "n_classes": 3} | facts
    model = build_model("mlp", **sizes, seed=0, hidden=[16])
    names = tuple(map(str, range(sizes["n_classes"])))
    statistics = dict.fromkeys(("mean", "std"), (0.5,) * sizes["image_shape"][0])
    other = replace(checkpoint, state=model.state_dict(), **sizes, **statistics, class_names=names)
    return save_checkpoint(path.with_name("other.safetensors"), other)


@pytest.mark.parametrize(
    ("facts", "message"),
    [
        ({"n_classes": 2}, "was trained on 2 classes; .* has 3"),
        ({"image_shape": (1, 8, 8)}, r"images of shape \(1, 8, 8\); .* has \(2, 8, 8\)"),
    ],
)
def test_images_that_do_not_fit_are_one_sentence(facts, message, path):
    other = changed(path, **facts)
    dataset = load_dataset(NAME)
    for asks in (
        lambda: Study("s", [other], ["ideal"], [1.0], trust=TRUST).trials(),
        lambda: accuracy_by_stage(other, "ideal", 1.0, trust=TRUST),
        lambda: sharpness(other, trust=TRUST),
        lambda: program(other, "ideal", trust=TRUST, recalibration=dataset),
    ):
        with pytest.raises(ValueError, match=message):
            asks()


class Fixed(nn.Module):
    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.fc = nn.Linear(inputs, outputs)

    def forward(self, x):
        return self.fc(x.flatten(1))


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (Fixed(64, 3), r"'net' does not run on inputs of shape \(2, 8, 8\) .*RuntimeError"),
        (Fixed(128, 2), r"'net' gives \(1, 2\) for one input .*3 classes need"),
        (nn.Sequential(Fixed(128, 3), nn.Flatten(0)), r"'net' gives \(3,\)"),
    ],
)
def test_networks_that_do_not_fit_are_one_sentence(model, message):
    with pytest.raises(ValueError, match=message):
        check_outputs(model, torch.zeros(1, 2, 8, 8), 3, name="net")
    check_outputs(Fixed(128, 3), torch.zeros(1, 2, 8, 8), 3, name="net")


def test_the_data_set_of_the_page_is_loaded(tmp_path, monkeypatch):
    page = (ROOT / "docs" / "DATA.md").read_text(encoding="utf-8")
    blocks = re.findall(r"^```python\n(.*?)^```", page, re.M | re.S)
    (block,) = [text for text in blocks if "Dataset.of_splits" in text]
    assert len([line for line in block.splitlines() if line]) <= 6
    (tmp_path / "data_of_the_page.py").write_text(block)
    monkeypatch.syspath_prepend(tmp_path)
    for part, n in (("train", 40), ("test", 10)):
        images = torch.arange(n, n + n * 4).reshape(n, 1, 2, 2).to(torch.uint8)
        torch.save((images, torch.arange(n) % 2), tmp_path / f"{part}.pt")
    dataset = load_dataset("data_of_the_page:letters", tmp_path)
    assert [len(part) for part in (dataset.train, dataset.validation)] == [36, 4]
    assert len(dataset.test) == 10
    sys.modules.pop("data_of_the_page")


def test_a_function_that_fails_is_one_sentence(outside):
    with pytest.raises(ValueError, match=r"'outside_images:failing' cannot be loaded \(TypeError"):
        load_dataset("outside_images:failing")


def test_labels_come_from_the_manifest(tmp_path):
    content = {"datasets": {"a.b:c": {"label": "My images", "shipped": False}}}
    (tmp_path / "manifest.json").write_text(json.dumps(content))
    with described_in([tmp_path]):
        assert dataset_label("a.b:c") == "My images"
    assert (dataset_label("a.b:c"), dataset_label("digits")) == ("c", "digits")
    (tmp_path / "manifest.json").write_text('{"datasets": {"a.b:c": "c"}}')
    with (
        pytest.raises(ValueError, match="gives the data set 'a.b:c' no label"),
        described_in([tmp_path]),
    ):
        pass
