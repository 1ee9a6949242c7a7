"""Networks of several inputs: their numbers in a row are one input."""

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from analog_samson import program
from analog_samson.checkpoint import TrainingSpec, load_checkpoint
from analog_samson.study import Study, collect
from analog_samson.training import train

INPUTS = {"upper": "4x8", "lower": "32"}


class Halves(nn.Module):
    """The halves of a digit, one as an image and one as a row of numbers."""

    def __init__(self) -> None:
        super().__init__()
        self.upper, self.lower = nn.Linear(32, 16), nn.Linear(32, 16)
        self.head = nn.Linear(32, 10)

    def forward(self, upper: Tensor, lower: Tensor) -> Tensor:
        y = torch.cat([self.upper(upper.flatten(1)), self.lower(lower)], 1)
        return self.head(torch.relu(y))


def draws(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(sum(shape)))


@pytest.mark.parametrize("engine", ["aihwkit", "compiled"])
def test_a_chip_takes_what_the_network_takes(engine):
    with torch.random.fork_rng():
        torch.manual_seed(7)
        network = Halves().eval()
    upper, lower = draws(40, 4, 8), draws(40, 32)
    expected = network(upper, lower)
    chip = program(network, "ideal", engine=engine, calibration=(upper, lower))
    torch.testing.assert_close(chip((upper, lower)), expected, rtol=1e-4, atol=1e-5)
    named = {"lower": lower, "upper": upper}
    chip = program(network, "ideal", engine=engine, calibration=named)
    torch.testing.assert_close(chip(named), expected, rtol=1e-4, atol=1e-5)
    assert list(chip.weights()) == ["upper", "lower", "head"]
    with pytest.raises(ValueError, match=r"takes inputs 'lower' .* got .*'0': \(40, 4, 8\)"):
        chip((upper, lower))
    with pytest.raises(ValueError, match="floating-point tensors"):
        chip({"lower": lower.long(), "upper": upper})


def test_training_and_a_study_run_a_network_of_several_inputs(tmp_path):
    name = Path(__file__).stem
    spec = TrainingSpec(model=f"{name}:Halves", inputs=INPUTS, epochs=6)
    assert TrainingSpec.from_json(spec.to_json()) == spec
    assert "inputs" not in TrainingSpec().to_json()
    path = train(spec, tmp_path)
    study = Study("halves", [path], ["pcm_like"], [1.0], n_chips=1, trust=(name,))
    assert load_checkpoint(path, (name,)).spec.inputs == tuple(INPUTS.items())
    rows = collect(study, tmp_path / "study", jobs=1)
    assert int(rows["n_correct_digital"].iloc[0]) > 0.8 * int(rows["n_test"].iloc[0])
    assert int(rows["n_correct"].iloc[0]) > 0.7 * int(rows["n_test"].iloc[0])


@pytest.mark.parametrize("inputs", [{"a": "4"}, {"a": "4", "b": "0"}, {"a": [4], "b": "4"}, "4"])
def test_wrong_shapes_are_refused(inputs):
    with pytest.raises(ValueError, match="inputs gives the shapes of two or more inputs"):
        TrainingSpec(inputs=inputs)
