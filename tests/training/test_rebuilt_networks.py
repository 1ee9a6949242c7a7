"""A network of other code must be the one that was trained when it is built from its checkpoint."""

import contextlib
import sys
from dataclasses import replace

import pytest

from analog_samson.checkpoint import TrainingSpec, load_checkpoint, save_checkpoint
from analog_samson.data import load_dataset
from analog_samson.study import Study, collect
from analog_samson.training import checkpoint_of, train

HIDDEN = '''
import torch
from torch import nn


class Hidden(nn.Module):
    """Divides by a mean that it tracks in training."""

    def __init__(self, kind):
        super().__init__()
        self.fc, self.kind = nn.Linear(64, 10), kind
        if kind.endswith("buffer"):
            self.register_buffer("mean", torch.ones(()), persistent=kind == "buffer")
        else:
            self.mean = torch.ones(()) if kind == "tensor" else 1.0

    def forward(self, x):
        x = x.flatten(1)
        if self.training:
            mean = 0.9 * self.mean + x.detach().square().mean()
            self.mean = float(mean) if self.kind == "number" else mean
        return self.fc(x / self.mean)


def digits(image_shape, n_classes, kind="buffer", **options):
    return Hidden(kind)


SIGN = 1.0


def signed(image_shape, n_classes):
    network = nn.Sequential(nn.Flatten(), nn.Linear(64, 10))
    with torch.no_grad():
        network.register_forward_hook(lambda module, inputs, outputs: outputs * SIGN)
    return network
'''
SHORT = {"epochs": 1, "lr": 0.05}
TRUST = ("hidden_state",)


@pytest.fixture
def hidden(tmp_path, monkeypatch):
    folder = tmp_path / "module"
    folder.mkdir()
    (folder / "hidden_state.py").write_text(HIDDEN)
    monkeypatch.syspath_prepend(folder)
    yield
    sys.modules.pop("hidden_state", None)


@pytest.mark.parametrize("kind", ["tensor", "number", "other buffer"])
def test_a_training_does_not_end_in_a_checkpoint_of_another_network(hidden, kind, tmp_path):
    spec = TrainingSpec(model="hidden_state:digits", model_kwargs={"kind": kind}, **SHORT)
    with pytest.raises(ValueError, match="state dict does not hold.*register_buffer"):
        train(spec, tmp_path)
    assert not list(tmp_path.glob("*.safetensors"))


def test_state_in_the_state_dict_is_kept(hidden, tmp_path):
    path = train(TrainingSpec(model="hidden_state:digits", **SHORT), tmp_path)
    checkpoint = load_checkpoint(path, TRUST)
    assert float(checkpoint.build().mean) != 1.0
    study = Study("s", [path], ["ideal"], [1.0], n_chips=1, trust=TRUST)
    row = collect(study, tmp_path / "study").iloc[0]
    assert row["n_correct_digital"] == checkpoint.n_correct_digital


def test_an_import_of_a_network_with_other_state_is_refused(hidden):
    from hidden_state import Hidden

    network = Hidden("tensor")
    network.mean.fill_(-1.0)
    spec = TrainingSpec(model="hidden_state:digits", model_kwargs={"kind": "tensor"},
                        method="external", epochs=0)  # fmt: skip
    with pytest.raises(ValueError, match="state dict does not hold"):
        checkpoint_of(network, spec, load_dataset("digits"), {})


@pytest.mark.parametrize("n_test", [None, 300])
def test_a_study_refuses_a_network_whose_code_has_changed(hidden, tmp_path, monkeypatch, n_test):
    path = train(TrainingSpec(model="hidden_state:signed", **SHORT), tmp_path)
    study = Study("s", [path], ["ideal"], [1.0], n_chips=1, n_test=n_test, trust=TRUST)
    monkeypatch.setattr("hidden_state.SIGN", -1.0)
    with pytest.raises(ValueError, match=r"built again from .* its code has changed"):
        collect(study, tmp_path / "study")


@pytest.mark.parametrize(("more", "is_allowed"), [(-1, True), (1, True), (2, False)])
def test_a_study_allows_the_few_samples_that_differ_between_processors(
    hidden, tmp_path, more, is_allowed
):
    """Of 359."""
    path, trust = train(TrainingSpec(model="hidden_state:signed", **SHORT), tmp_path), TRUST
    checkpoint = load_checkpoint(path, trust)
    other = replace(checkpoint, n_correct_digital=checkpoint.n_correct_digital + more)
    study = Study("s", [save_checkpoint(path, other)], ["ideal"], [1.0], n_chips=1, trust=trust)
    refused = pytest.raises(ValueError, match="built again from")
    with contextlib.nullcontext() if is_allowed else refused:
        collect(study, tmp_path / "study")
