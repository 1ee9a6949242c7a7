"""Recurrent layers are rewritten into linear layers and compute what torch's own compute."""

from itertools import product

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence

from analog_samson import load_device, program
from analog_samson.models import analog_layers, analog_share, audit, check_forward, rewrite

ENGINES = ("aihwkit", "compiled")


def seeded(make, *args, **options) -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(7)
        return make(*args, **options).eval()


def draws(*shape: int, seed: int = 3) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def assert_equal(found, expected) -> None:
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)


def first_state(layer: nn.RNNBase, *batch: int):
    directions = layer.num_layers * (1 + layer.bidirectional)
    h = draws(directions, *batch, layer.proj_size or layer.hidden_size, seed=4)
    if not isinstance(layer, nn.LSTM):
        return h
    return h, draws(directions, *batch, layer.hidden_size, seed=5)


LAYERS = [
    *product((nn.LSTM, nn.GRU, nn.RNN), (1, 3), (False, True), (False, True), (False, True)),
]


@pytest.mark.parametrize(("kind", "layers", "both_ways", "batch_first", "bias"), LAYERS)
def test_layers_compute_what_torch_computes(kind, layers, both_ways, batch_first, bias):
    options = {"num_layers": layers, "bidirectional": both_ways, "batch_first": batch_first}
    layer = seeded(kind, 5, 6, bias=bias, **options)
    rewriting = rewrite(layer)
    assert rewriting.kinds == {"": kind.__name__}
    network = rewriting.network
    n_layers = layers * (1 + both_ways) * 2
    assert len(analog_layers(network)) == n_layers and analog_share(network) == 1.0
    for x in (draws(4, 7, 5), draws(7, 5)):
        assert_equal(network(x), layer(x))
        batch = () if x.ndim == 2 else ((x.shape[0] if batch_first else x.shape[1]),)
        hx = first_state(layer, *batch)
        assert_equal(network(x, hx), layer(x, hx))


@pytest.mark.filterwarnings("ignore:LSTM with projections is not supported:UserWarning")
def test_projections_and_relu_compute_what_torch_computes():
    for both_ways in (False, True):
        layer = seeded(nn.LSTM, 5, 6, num_layers=2, proj_size=3, bidirectional=both_ways)
        network, x = rewrite(layer).network, draws(7, 4, 5)
        assert_equal(network(x), layer(x))
        assert_equal(network(x, first_state(layer, 4)), layer(x, first_state(layer, 4)))
        assert [n for n in analog_layers(network) if n.startswith("l1.")] == [
            "l1.ih", "l1.hh", "l1.hr"
        ]  # fmt: skip
    layer = seeded(nn.RNN, 5, 6, nonlinearity="relu")
    assert_equal(rewrite(layer).network(draws(7, 4, 5)), layer(draws(7, 4, 5)))


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("kind", [nn.LSTMCell, nn.GRUCell, nn.RNNCell])
def test_cells_compute_what_torch_computes(kind, bias):
    layer = seeded(kind, 5, 6, bias=bias)
    network = rewrite(layer).network
    assert list(analog_layers(network)) == ["ih", "hh"]
    for batch in ((4,), ()):
        x, h, c = draws(*batch, 5), draws(*batch, 6, seed=4), draws(*batch, 6, seed=5)
        state = (h, c) if kind is nn.LSTMCell else h
        assert_equal(network(x), layer(x))
        assert_equal(network(x, state), layer(x, state))


def test_packed_sequences_are_refused():
    layer = seeded(nn.LSTM, 5, 6)
    packed = pack_padded_sequence(draws(7, 2, 5), [7, 4])
    with pytest.raises(ValueError, match="Packed sequences cannot run on arrays; give padded"):
        rewrite(layer).network(packed)


class Tagger(nn.Module):
    """Bidirectional, the input with time first, and a cell in a loop of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.lstm = nn.LSTM(5, 6, bidirectional=True)
        self.cell = nn.GRUCell(12, 8)
        self.fc = nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        self.lstm.flatten_parameters()
        y, _ = self.lstm(x.transpose(0, 1))
        h = x.new_zeros(len(x), self.cell.hidden_size)
        for step in y:
            h = self.cell(step, h)
        return self.fc(h)


NAMES = ["lstm.l0.ih", "lstm.l0.hh", "lstm.l0_reverse.ih", "lstm.l0_reverse.hh"]
NAMES += ["cell.ih", "cell.hh", "fc"]


@pytest.mark.parametrize("engine", ENGINES)
def test_a_chip_without_noise_is_the_network(engine):
    network, x = seeded(Tagger), draws(5, 9, 5)
    chip = program(network, "ideal", engine=engine)
    with torch.no_grad():
        torch.testing.assert_close(chip(x), network(x), rtol=1e-4, atol=1e-5)
    assert list(chip.weights()) == NAMES


def test_the_audit_lists_the_layers_and_no_digital_product():
    network = rewrite(seeded(Tagger)).network
    assert [entry.name for entry in audit(network) if entry.analog] == NAMES
    assert check_forward(network, draws(2, 9, 5)) == []


@pytest.mark.parametrize("engine", ENGINES)
def test_an_image_has_the_same_noise_in_every_batch(engine):
    network, x = seeded(Tagger), draws(70, 9, 5)
    chip = program(network, "pcm_like", calibration=x, engine=engine)
    whole = chip(x)
    parts = torch.cat([chip(part, first) for first, part in ((0, x[:33]), (33, x[33:]))])
    torch.testing.assert_close(parts, whole, rtol=1e-4, atol=1e-4)
    assert not torch.equal(chip(x[:1]), chip(x[:1], 1))


@pytest.mark.parametrize("engine", ENGINES)
def test_every_use_of_a_layer_draws_its_noise_anew(engine):
    """A cell whose state is kept at zero and whose input is constant: only noise differs.

    n = 2000 images of 6 steps, correlations of steps: |r| sqrt(n) is a standard normal, 15 pairs
    and 4 outputs, 60 tests at 1e-6 over all.
    """

    class Uses(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.rnn = nn.RNN(3, 4, nonlinearity="relu", batch_first=True)

        def forward(self, x: Tensor) -> Tensor:
            return self.rnn(x)[0]

    network = seeded(Uses)
    with torch.no_grad():
        network.rnn.weight_hh_l0.copy_(1e-6 * network.rnn.weight_hh_l0)
        network.rnn.bias_ih_l0.add_(10.0)  # the rectifier never acts
    device = load_device("pcm_like")
    periphery = device.periphery.model_copy(update={"adc_bits": "ideal", "dac_bits": "ideal"})
    device = device.model_copy(update={"periphery": periphery})
    n, x = 2000, draws(1, 1, 3).expand(2000, 6, 3)
    chip = program(network, device, calibration=x[:2], engine=engine)
    outputs = chip(x).double()
    outputs = (outputs - outputs.mean(0)) / outputs.std(0)
    limit = torch.distributions.Normal(0, 1).icdf(torch.tensor(1 - 0.5e-6 / 60, dtype=torch.double))
    for channel in outputs.unbind(-1):
        r = channel.T @ channel / n
        off = r[~torch.eye(6, dtype=torch.bool)]
        assert float(off.abs().max()) * n**0.5 < float(limit)
    assert torch.equal(chip(x), chip(x))


def test_a_layer_kept_digital_stays_torchs_own():
    chip = program(seeded(Tagger), "ideal", keep_digital=["lstm"])
    assert list(chip.weights()) == ["cell.ih", "cell.hh", "fc"]
    x = draws(5, 9, 5)
    with torch.no_grad():
        torch.testing.assert_close(chip(x), seeded(Tagger)(x), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("kind", [nn.LSTM, nn.GRU, nn.RNN])
def test_arrays_of_exact_products_run_all_steps_in_one_call_and_compute_the_same(kind, bias):
    layer = seeded(kind, 5, 6, num_layers=2, bidirectional=True, bias=bias)
    device = load_device("pcm_like")
    periphery = device.periphery.model_copy(
        update={"adc_bits": "ideal", "dac_bits": "ideal", "output_noise": 0.0}
        | {"output_bound": float("inf")}
    )
    device = device.model_copy(update={"periphery": periphery})
    x = draws(7, 4, 5).transpose(0, 1)  # programmed as a network whose batch is first
    network = nn.Sequential(Swapped(layer))
    chip = program(network, device, calibration=x).drift_to(3600.0)
    step_by_step = program(network, device, calibration=x, engine="aihwkit").drift_to(3600.0)
    torch.testing.assert_close(chip(x), step_by_step(x), rtol=1e-4, atol=1e-5)
    calls = []
    for each in chip.network.layers.values():
        each.register_forward_hook(lambda *_: calls.append(1))
    hooked = chip(x)
    torch.testing.assert_close(hooked, chip(x), rtol=1e-4, atol=1e-5)
    assert len(calls) == 2 * 4 * (1 + 7)
    with torch.no_grad():
        assert float((chip(x) - network(x)).abs().max()) > 1e-3


class Swapped(nn.Module):
    def __init__(self, layer: nn.RNNBase) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x.transpose(0, 1))[0].transpose(0, 1)


def test_a_network_that_uses_layers_at_every_step_is_not_traced():
    network = nn.Sequential(Swapped(seeded(nn.RNN, 5, 6)), nn.Linear(6, 3)).eval()
    x = draws(2, 30, 5)
    chip = program(network, "pcm_like", calibration=x, expected_images=10**9)
    chip(x)
    assert chip.is_traced is False
