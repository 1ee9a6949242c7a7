"""Networks of several inputs: their numbers in a row are one input."""

from dataclasses import replace
from pathlib import Path

import numpy as np
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
    with pytest.raises(ValueError, match="floating-point or, for tokens, of integers"):
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


@pytest.mark.parametrize(
    "inputs",
    [{"a": "4"}, {"a": "4", "b": "0"}, {"a": [4], "b": "4"}, "4", {"a": "4 of 0", "b": "4"},
     {"a": "4 of 17000000", "b": "4"}],
)  # fmt: skip
def test_wrong_shapes_are_refused(inputs):
    with pytest.raises(ValueError, match="inputs gives the shapes of two or more inputs"):
        TrainingSpec(inputs=inputs)


class Described(nn.Module):
    """A row of numbers and three words about it."""

    def __init__(self, n_classes: int = 4) -> None:
        super().__init__()
        self.words, self.numbers = nn.Embedding(7, 8), nn.Linear(5, 24)
        self.head = nn.Linear(24, n_classes)

    def forward(self, numbers: Tensor, words: Tensor) -> Tensor:
        return self.head(torch.relu(self.numbers(numbers) + self.words(words).flatten(1)))


def described(n: int = 600) -> tuple[Tensor, Tensor, Tensor]:
    """Numbers, words, and classes that only both together tell."""
    words = torch.randint(7, (n, 3), generator=torch.Generator().manual_seed(5))
    numbers = draws(n, 5)
    return numbers, words, 2 * (numbers[:, 0] > 0).long() + (words[:, 1] > 3).long()


@pytest.mark.parametrize("engine", ["aihwkit", "compiled"])
def test_tokens_and_real_numbers_together_on_a_chip(engine):
    with torch.random.fork_rng():
        torch.manual_seed(7)
        network = Described().eval()
    numbers, words, _ = described(40)
    chip = program(network, "ideal", engine=engine, calibration=(numbers, words))
    expected = network(numbers, words)
    torch.testing.assert_close(chip((numbers, words)), expected, rtol=1e-4, atol=1e-5)
    with pytest.raises(ValueError, match=r"'1' \(3,\) of tokens, .* tokens, of integers; got"):
        chip((numbers, words.float()))


def test_tokens_and_real_numbers_together_in_a_study(tmp_path):
    numbers, words, y = described()
    x = torch.cat([numbers, words.float()], 1).numpy()
    data, name = tmp_path / "described.npz", Path(__file__).stem
    np.savez(data, x_train=x[:400], y_train=y[:400], x_test=x[400:], y_test=y[400:])
    inputs = {"numbers": "5", "words": "3 of 7"}
    options = {"model": f"{name}:Described", "optimizer": "adam", "lr": 0.01, "epochs": 50}
    spec = TrainingSpec(dataset=f"{data},normalise=none", inputs=inputs, **options)
    path = train(spec, tmp_path)
    study = Study("s", [path], ["pcm_like"], [1.0], n_chips=1, data_folder=tmp_path, trust=(name,))
    rows = collect(study, tmp_path / "study", jobs=1)
    assert int(rows["n_correct"].iloc[0]) > 0.8 * int(rows["n_test"].iloc[0])
    with pytest.raises(ValueError, match=r"'words' holds tokens, .* from 0 to 5; got 6\."):
        train(replace(spec, inputs=inputs | {"words": "3 of 6"}), tmp_path / "few")
    with pytest.raises(ValueError, match=r"'words' holds tokens.*load it with normalise=none"):
        train(replace(spec, dataset=str(data)), tmp_path / "normalised")
