"""An LSTM on aihwkit's tiles and on compiled arrays, and aihwkit's own LSTM of the same weights."""

import pytest
import torch
from scipy import stats
from torch import Tensor, nn

from analog_samson import Device, load_device, program
from analog_samson.analog import tile_configuration
from analog_samson.models import input_ranges, rewrite
from analog_samson.times import DAY

FALSE_ALARM = 1e-6
STEPS, INPUTS, HIDDEN = 5, 6, 8


class Network(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.lstm = nn.LSTM(INPUTS, HIDDEN, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.lstm(x.transpose(0, 1))[0].transpose(0, 1)


@pytest.fixture(scope="module")
def network() -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(7)
        network = Network().eval().requires_grad_(False)
        for p in network.parameters():
            if p.ndim == 2:
                p.mul_(3.0)  # gates in their nonlinear part
        return network


def device(**periphery) -> Device:
    content = load_device("pcm_like").model_dump()
    content["periphery"].update(periphery)
    return Device.model_validate(content)


def aihwkits_own(lstm: nn.LSTM, chip, on: Device, ranges) -> nn.Module:
    """aihwkit's `AnalogRNN` of two `AnalogLSTMCell`, with the weights that a chip holds."""
    from aihwkit.nn import AnalogLSTMCell, AnalogRNN

    rnn = AnalogRNN(
        AnalogLSTMCell, INPUTS, HIDDEN, rpu_config=tile_configuration(on), num_layers=2, bias=True
    ).eval()
    for number, layer in enumerate(rnn.rnn.layers):
        for of in ("ih", "hh"):
            name = f"lstm.l{number}.{of}"
            linear, own = getattr(layer.cell, f"weight_{of}"), chip.network.layers[name]
            digital = (getattr(lstm, f"{what}_{of}_l{number}") for what in ("weight", "bias"))
            linear.set_weights(*(values.detach().clone() for values in digital))
            (tile,), (source,) = list(linear.analog_tiles()), list(own.analog_tiles())
            tile.tile.set_weights(source.tile.get_weights())  # as programmed and aged
            tile.alpha = source.alpha
            tile.set_input_range(ranges[name])
    return rnn


def chips(network, on):
    x = torch.randn(20, STEPS, INPUTS, generator=torch.Generator().manual_seed(3))
    ranges = input_ranges(rewrite(network).network, x)
    made = [program(network, on, seed=5, input_ranges=ranges, engine=e).drift_to(DAY)
            for e in ("aihwkit", "compiled")]  # fmt: skip
    return x, ranges, *made


def test_without_forward_noise_all_three_compute_the_same(network):
    """Converters of 14 bits: a tie of a converter moves later steps by less than 1e-3."""
    x, ranges, tiles, compiled = chips(
        network, on := device(output_noise=0.0, dac_bits=14, adc_bits=14)
    )
    weights, expected = compiled.weights(), tiles.weights()
    assert list(weights) == [f"lstm.l{n}.{of}" for n in (0, 1) for of in ("ih", "hh")]
    assert all(torch.equal(weights[name], expected[name]) for name in weights)
    own = aihwkits_own(network.lstm, tiles, on, ranges)
    with torch.no_grad():
        outputs = own(x.transpose(0, 1))[0].transpose(0, 1)
    torch.testing.assert_close(tiles(x), outputs, rtol=0, atol=2e-3)
    torch.testing.assert_close(compiled(x), outputs, rtol=0, atol=2e-3)
    assert float((compiled(x) - network(x)).abs().max()) > 0.01  # it is a chip


def test_the_noise_of_every_step_has_the_moments_of_aihwkits_own_lstm(network):
    """n = 4000 draws of 5 x 8 outputs at seed 5: z test of means, variances, covariances of steps.

    Variances and covariances of a step with the next: the z of their difference from the fourth
    moments; 1e-6 over the 40 + 40 + 32 tests of each of both engines.
    """
    n, on = 4000, device(adc_bits="ideal", dac_bits="ideal", output_noise=0.2)
    x, ranges, tiles, compiled = chips(network, on)
    own, same = aihwkits_own(network.lstm, tiles, on, ranges), x[:1].expand(n, -1, -1)
    with torch.no_grad(), torch.random.fork_rng():
        torch.manual_seed(11)
        expected = own(same.transpose(0, 1))[0].transpose(0, 1).double()
    limit = stats.norm.isf(FALSE_ALARM / 2 / 224)
    for chip in (tiles, compiled):
        found = chip(same).double()
        assert float(found.std(0).min()) > 0.01
        for of in (lambda y: y, _squares, _products):
            a, b = of(expected), of(found)
            error = (a.var(0) / n + b.var(0) / n).sqrt()
            assert float(((a.mean(0) - b.mean(0)) / error).abs().max()) < limit


def _squares(y: Tensor) -> Tensor:
    return (y - y.mean(0)).square()


def _products(y: Tensor) -> Tensor:
    y = y - y.mean(0)
    return y[:, 1:] * y[:, :-1]
