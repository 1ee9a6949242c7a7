"""Networks that give several outputs, and networks of other types of numbers."""

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from analog_samson import program
from analog_samson.checkpoint import TrainingSpec, load_checkpoint
from analog_samson.chip import load_chip
from analog_samson.models import build_model
from analog_samson.study import Study, collect
from analog_samson.training import train

ENGINES = ("aihwkit", "compiled")


class Several(nn.Module):
    """Logits beside features, in a dictionary or in a tuple."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.kind = kind
        self.body, self.head = nn.Linear(64, 16), nn.Linear(16, 10)

    def forward(self, x: Tensor):
        features = torch.relu(self.body(x.flatten(1)))
        logits = self.head(features)
        return {"logits": logits, "x": features} if self.kind == "dict" else (features, logits)


def in_bfloat16() -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 10)).bfloat16()


def seeded(make, *args) -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(7)
        return make(*args).eval()


X = torch.randn(40, 1, 8, 8, generator=torch.Generator().manual_seed(3))


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize(("kind", "output"), [("dict", "logits"), ("tuple", 1), ("tuple", -1)])
def test_a_chip_gives_the_output_that_is_named(kind, output, engine, tmp_path):
    network = seeded(Several, kind)
    how = {"calibration": X, "engine": engine, "output": output}
    chip = program(network, "ideal", **how)
    expected = network(X)[output]
    torch.testing.assert_close(chip(X), expected, rtol=1e-4, atol=1e-5)
    noisy = program(network, "pcm_like", **how)
    again = load_chip(noisy.save(tmp_path / "chip"), network, output=output)
    assert torch.equal(again(X), noisy(X))
    assert not network._forward_hooks


@pytest.mark.parametrize("engine", ENGINES)
def test_several_outputs_without_a_name_are_refused(engine):
    chip = program(seeded(Several, "dict"), "ideal", engine=engine)
    with pytest.raises(ValueError, match="gives a dict with the keys 'logits', 'x'; say which"):
        chip(X)
    with pytest.raises(ValueError, match="a tuple of 2, and output=2 is no tensor of it"):
        program(seeded(Several, "tuple"), "ideal", engine=engine, output=2)(X)
    with pytest.raises(ValueError, match="output is the index or the name .* got True"):
        program(seeded(Several, "tuple"), "ideal", engine=engine, output=True)


@pytest.mark.parametrize(("kind", "output"), [("dict", "logits"), ("tuple", 1)])
def test_training_and_a_study_use_the_output_that_is_named(kind, output, tmp_path):
    name = f"{Path(__file__).stem}:Several"
    how = {"model": name, "model_kwargs": {"kind": kind}, "epochs": 4}
    with pytest.raises(ValueError, match=r"The network gives a (dict|tuple) .*; say which"):
        train(TrainingSpec(**how), tmp_path)
    spec = TrainingSpec(**how, output=output)
    assert TrainingSpec.from_json(spec.to_json()) == spec
    path = train(spec, tmp_path)
    trust = (Path(__file__).stem,)
    checkpoint = load_checkpoint(path, trust)
    assert checkpoint.accuracy_digital > 0.8
    study = Study("outputs", [path], ["pcm_like"], [1.0], n_chips=1, trust=trust)
    rows = collect(study, tmp_path / "study", jobs=1)
    assert float(rows["n_correct"].iloc[0]) > 0.7 * checkpoint.n_test
    with pytest.raises(ValueError, match="A checkpoint names its own output"):
        program(checkpoint, "ideal", output=0)


def test_a_specification_without_an_output_has_no_such_key():
    assert "output" not in TrainingSpec().to_json()


def test_networks_of_other_types_are_converted_with_a_word():
    name = f"{Path(__file__).stem}:in_bfloat16"
    with pytest.warns(UserWarning, match="is of bfloat16 and converted to float32"):
        network = build_model(name, image_shape=(1, 8, 8), n_classes=10, seed=0)
    assert {p.dtype for p in network.parameters()} == {torch.float32}
    with pytest.warns(UserWarning, match="holds float64 and is converted"):
        chip = program(network.double(), "ideal")
    assert chip(X.double()).dtype == torch.float32
