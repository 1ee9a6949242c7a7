"""An output layer that shares its weights with an embedding lies on arrays, with a copy of them."""

import pytest
import torch
from torch import Tensor, nn

from analog_samson import program
from analog_samson.models import analog_layers, input_ranges, rewrite, trained_weights


class Tied(nn.Module):
    """A language model of one layer: the embedding is also the output layer."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(7, 6)
        self.fc = nn.Linear(6, 6)
        self.head = nn.Linear(6, 7, bias=False)
        self.head.weight = self.embed.weight

    def forward(self, tokens: Tensor) -> Tensor:
        return self.head(torch.relu(self.fc(self.embed(tokens))))


@pytest.fixture
def network() -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(7)
        return Tied().eval()


TOKENS = torch.randint(7, (40, 5), generator=torch.Generator().manual_seed(3))


@pytest.mark.parametrize("engine", ["aihwkit", "compiled"])
def test_a_chip_without_noise_is_the_network_on_tokens(network, engine):
    chip = program(network, "ideal", engine=engine)
    with torch.no_grad():
        torch.testing.assert_close(chip(TOKENS), network(TOKENS), rtol=1e-4, atol=1e-5)
    assert list(chip.weights()) == ["fc", "head"]
    noisy = program(network, "pcm_like", calibration=TOKENS, engine=engine)
    assert noisy(TOKENS).shape == (40, 5, 7)
    assert torch.equal(network.embed.weight, network.head.weight)


def test_what_is_trained_is_named_as_the_network_names_it(network):
    rewriting = rewrite(network)
    assert rewriting.kinds == {"head": "Linear tied to embed"}
    assert [name for *_, name in trained_weights(rewriting)] == ["fc.weight", "embed.weight"]
    assert set(dict(network.named_parameters())) >= {"fc.weight", "embed.weight"}
    assert list(input_ranges(rewriting.network, TOKENS)) == ["fc", "head"]
    assert rewriting.network.head.weight is not rewriting.network.embed.weight


def test_kept_digital_it_stays_tied(network):
    kept = rewrite(network, keep_digital=["head"]).network
    assert list(analog_layers(kept, ["head"])) == ["fc"]
    assert kept.head.weight is kept.embed.weight
