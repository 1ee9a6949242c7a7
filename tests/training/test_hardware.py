"""Noise of a device in training: compensated, by layer and varied as on chips."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy import stats
from torch import nn

from analog_samson import load_device, program
from analog_samson.algorithm import Setting
from analog_samson.devices import Device
from analog_samson.models import layers_of_weights, rewrite
from analog_samson.times import DAY, HOUR
from analog_samson.training.hardware import HardwareAware, HardwareNoise

DEVICES = Path(__file__).parents[2] / "device_configs"
EXACT = {"programming_noise_scale": 0.0, "read_noise_1f_scale": 0.0, "nu_spread": 0.0}


def device(name="pcm_like", layers=(), variation=None, **axes):
    content = load_device(name).with_axes(axes).model_dump()
    content |= {"layers": [{"pattern": pattern, **changes} for pattern, changes in layers]}
    if variation:
        content["variation"] = {"source": "our choice", **variation}
    return Device.model_validate(content)


def drawn(noise, weights, seed=0, factor=1.0):
    draws = torch.Generator().manual_seed(seed)
    return noise(weights, factor=factor, drop_share=0.0, generator=draws)


def weights_of(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize(
    ("axes", "measured_s"),
    [
        ({"drift_compensation.kind": "none"}, None),
        ({"drift_compensation.kind": "global"}, DAY),
        ({"drift_compensation.kind": "per_column"}, DAY),
        ({"measured_at": "1 h"}, HOUR),
        ({"measured_at": "1 week"}, None),
    ],
)
def test_weights_drift_and_are_compensated_as_measured(axes, measured_s):
    """Formula: w ((t + t_0) / (t_m + t_0))^-nu, if all cells have one exponent and no noise."""
    own = device("pcm_state_independent", **EXACT, **axes)
    weight = weights_of(5, 40)
    weight[2] = 0.0
    found = drawn(HardwareNoise(own, ["a.weight"], DAY), {"a.weight": weight}, factor=2.0)
    t_0, nu = own.noise.t_0_s, own.noise.nu_mean
    since = 0.0 if measured_s is None else measured_s
    remaining = ((DAY + t_0) / (since + t_0)) ** -nu
    torch.testing.assert_close(
        found["a.weight"], 2 * weight * (remaining - 1), rtol=1e-4, atol=1e-6
    )


@pytest.mark.parametrize("kind", ["none", "global", "per_column"])
def test_compensated_weights_are_those_of_chips(kind):
    """n = 60 passes and chips, Welch's test of gain and error at a false-alarm rate of 1e-6."""
    layer = nn.Linear(48, 16, bias=False)
    own = device(**{"drift_compensation.kind": kind})
    weight = layer.weight.detach()
    noise = HardwareNoise(own, ["weight"], DAY)
    trained, on_chips = [], []
    for seed in range(60):
        trained.append(drawn(noise, {"weight": weight}, seed)["weight"])
        chip = program(layer, own, seed=seed).drift_to(DAY)
        (held,), (alpha,) = chip.weights().values(), chip.compensation().values()
        on_chips.append(held * alpha[:, None] - weight)
    for statistic in (lambda e: (e * weight).sum() / weight.square().sum(), lambda e: e.std()):
        ours, theirs = ([float(statistic(e)) for e in errors] for errors in (trained, on_chips))
        assert stats.ttest_ind(ours, theirs, equal_var=False).pvalue > 1e-6


def test_factors_by_layer_are_refused_after_programming():
    own = device(**{"drift_compensation.kind": "per_layer"})
    with pytest.raises(ValueError, match=r"'a' of device 'pcm_like' .*'per_layer'.*device_time_s"):
        HardwareNoise(own, ["a.weight"], HOUR)
    plain = HardwareNoise(device(), ["a.weight"], 0.0)
    weights = {"a.weight": weights_of(4, 8)}
    as_programmed = drawn(HardwareNoise(own, ["a.weight"], 0.0), weights)
    assert torch.equal(as_programmed["a.weight"], drawn(plain, weights)["a.weight"])


def test_overrides_apply_to_their_layers():
    """The layer "b" is written without error, "c" stays digital, "a" is as without overrides."""
    own = device(
        layers=[("b", {"noise": {"programming_noise_scale": 0.0}}), ("c", {"digital": True})]
    )
    weights = {f"{name}.weight": weights_of(4, 8) for name in "abc"}
    found = drawn(HardwareNoise(own, list(weights)), weights)
    assert found.keys() == {"a.weight", "b.weight"}
    torch.testing.assert_close(found["b.weight"], torch.zeros(4, 8), rtol=0, atol=1e-6)
    plain = drawn(HardwareNoise(device(), list(weights)), weights)
    assert torch.equal(found["a.weight"], plain["a.weight"])
    other = device(layers=[("a", {"drift_compensation": {"kind": "none"}})])
    found = drawn(HardwareNoise(other, list(weights), DAY), weights)
    plain = drawn(HardwareNoise(device(), list(weights), DAY), weights)
    assert (found["a.weight"] - plain["a.weight"]).abs().max() > 0.1
    assert torch.equal(found["b.weight"], plain["b.weight"])


def test_overrides_of_what_training_does_not_separate_are_refused():
    """The two arrays of an LSTM hold parameters of one module."""
    network = nn.Sequential(nn.LSTM(4, 8, batch_first=True))
    layers = layers_of_weights(rewrite(network))
    changes = {"noise": {"drift_scale": 0.5}}
    HardwareNoise(device(layers=[("0", changes)]), list(layers), layers=layers)
    own = device(layers=[("0.l0.ih", changes)])
    with pytest.raises(
        ValueError, match=r"'0.weight_.h_l0' becomes the layers '0.l0.ih', '0.l0.hh'"
    ):
        HardwareNoise(own, list(layers), layers=layers)


def test_an_override_that_matches_no_layer_is_refused(tmp_path):
    path = tmp_path / "own.toml"
    path.write_text(
        (DEVICES / "pcm_like.toml").read_text()
        + '\n[[layers]]\npattern = "fc"\nnoise = { drift_scale = 0.5 }\n'
    )
    network = nn.Sequential(nn.Linear(4, 2))
    layers = layers_of_weights(rewrite(network))
    setting = Setting(network, frozenset(layers), 9, 2, 1, torch.device("cpu"), layers=layers)
    with pytest.raises(ValueError, match="pattern 'fc' matches no layer"):
        HardwareAware(setting, device=str(path), drop_share=0.0, device_time_s=None)


def test_variation_is_drawn_in_every_pass():
    """Log-normal factors of the error, n = 300 passes, chi-square at a false-alarm rate of 1e-6.

    All weights are the largest, so that errors are proportional to the factor of their array.
    """
    spread, n = 0.3, 300
    weights = {"a.weight": torch.ones(4, 16), "b.weight": torch.ones(2, 16)}
    plain = HardwareNoise(device(), list(weights))

    def logarithms(variation):
        noise = HardwareNoise(device(variation=variation), list(weights))
        found = []
        for seed in range(n):
            ours, theirs = drawn(noise, weights, seed), drawn(plain, weights, seed)
            factors = [
                float((ours[name] * theirs[name]).sum() / theirs[name].square().sum())
                for name in weights
            ]
            for name, factor in zip(weights, factors, strict=True):
                torch.testing.assert_close(ours[name], factor * theirs[name], rtol=0, atol=1e-5)
            found.append([math.log(factor) for factor in factors])
        return np.array(found)

    variance = math.log1p(spread**2)
    of_chips = logarithms({"programming_by_chip": spread})
    assert np.allclose(of_chips[:, 0], of_chips[:, 1], rtol=0, atol=1e-3)
    of_arrays = logarithms({"programming_by_array": spread})
    assert abs(np.corrcoef(of_arrays.T)[0, 1]) < 5 / math.sqrt(n)
    for sample in (of_chips[:, 0], *of_arrays.T):
        z = (sample + variance / 2) / math.sqrt(variance)
        low, high = stats.chi2.interval(1 - 1e-6, n)
        assert low <= np.square(z).sum() <= high and abs(z.mean()) * math.sqrt(n) < 5
