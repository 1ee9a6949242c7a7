"""All noise off is the digital network to the image, for every network."""

import pytest
import torch
from torch import nn

from analog_samson import program
from analog_samson.models import MODELS, build_model

SHAPES = {"mlp": (1, 8, 8), "lenet5": (1, 28, 28)}
SHAPES |= {"ds_cnn": (1, 40, 64), "keyword_lstm": (1, 40, 64)}
SHAPES |= {"char_lstm": (12,), "char_transformer": (12,)}


class Own(nn.Module):
    """Not of this package: a gate, a skip over a strided convolution, a layer used twice."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 8, 3, stride=2, padding=1)
        self.gate = nn.Linear(8, 8)
        self.head = nn.Linear(8, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = torch.relu(self.first(x)).mean(dim=(2, 3))
        x = x * torch.sigmoid(self.gate(x))
        return self.head(x * torch.sigmoid(self.gate(x)))


@pytest.mark.slow
@pytest.mark.parametrize("engine", ["aihwkit", "compiled"])
@pytest.mark.parametrize("name", [*MODELS, "own"])
def test_without_noise_the_chip_equals_the_digital_network(name, engine):
    shape = SHAPES.get(name, (3, 32, 32))
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = Own() if name == "own" else build_model(name, image_shape=shape, n_classes=10)
        images = torch.rand(32, *shape)
        if name.startswith("char_"):
            images = torch.randint(10, (32, *shape))
    network.eval()
    chip = program(network, "ideal", engine=engine)
    with torch.no_grad():
        expected = network(images)
    for t in (0.0, 3.15e7):
        outputs = chip.drift_to(t)(images)
        torch.testing.assert_close(outputs, expected, rtol=1e-3, atol=1e-4)
        assert torch.equal(outputs.argmax(dim=-1), expected.argmax(dim=-1))
