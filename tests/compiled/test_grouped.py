"""Grouped layers, whose arrays are drawn and aged together: each is as if it were alone."""

from functools import partial

import pytest
import torch
from scipy import stats
from torch import nn

from analog_samson import load_device, program
from analog_samson.analog import seeded
from analog_samson.analog.noise_models import noise_model
from analog_samson.chip import choose_engine, load_chip
from analog_samson.devices import device_names, validated
from analog_samson.streams import derive_seed
from analog_samson.times import DAY

FALSE_ALARM = 1e-6
ROWS, COLUMNS = 9, 2
NAMES = [name for name in device_names() if choose_engine(load_device(name)) == "compiled"]


def own_weights(n, seed=0):
    """Weights of n groups, shape (n, COLUMNS, ROWS), of sizes that span three decades."""
    generator = torch.Generator().manual_seed(seed)
    sizes = 10 ** (3 * torch.rand(n, 1, 1, generator=generator) - 3)
    return sizes * torch.randn(n, COLUMNS, ROWS, generator=generator)


def grouped(weights):
    n, columns, _ = weights.shape
    layer = nn.Conv2d(n, n * columns, 3, groups=n, bias=False)
    with torch.no_grad():
        layer.weight.copy_(weights.reshape(layer.weight.shape))
    return nn.Sequential(layer).eval()


def alone(weights):
    layer = nn.Linear(ROWS, COLUMNS, bias=False)
    with torch.no_grad():
        layer.weight.copy_(weights)
    return nn.Sequential(layer).eval()


def aged(network, device, seed=0):
    device = load_device(device) if isinstance(device, str) else device
    chip = program(network, device, seed=seed, engine="compiled")
    try:
        device.check_time(DAY)
    except ValueError:
        return chip
    return chip.drift_to(DAY)


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_the_arrays_of_groups_are_distributed_as_arrays_alone(name):
    """Two weights (largest and middling) and the factor of one array: 500 groups, 60 chips.

    Two-sample KS tests, 1e-6 over all devices. Exact arrays are equal.
    """
    weights = own_weights(1)[0]
    many = aged(grouped(weights.expand(500, -1, -1)), name)
    singles = [aged(alone(weights), name, seed) for seed in range(60)]
    found = many.weights()["0"].view(500, -1)
    expected = torch.stack([chip.weights()["0"].view(-1) for chip in singles])
    order = weights.abs().flatten().argsort()
    factors = many.compensation()["0"].view(500, -1)[:, 0]
    of_singles = torch.stack([chip.compensation()["0"][0] for chip in singles])
    pairs = [(found[:, order[i]], expected[:, order[i]]) for i in (-1, len(order) // 2)]
    for ours, theirs in (*pairs, (factors, of_singles)):
        if theirs.unique().numel() == 1:
            torch.testing.assert_close(ours, theirs[:1].expand(500), rtol=1e-4, atol=1e-6)
        else:
            p = stats.ks_2samp(ours.numpy(), theirs.numpy()).pvalue
            assert p > FALSE_ALARM / 3 / len(NAMES)


def test_groups_have_the_draws_of_one_call_of_the_noise_model():
    """The documented seed of (chip, layer, first array, device, purpose), by hand."""
    weights = own_weights(40)
    device = load_device("pcm_like")
    chip = aged(grouped(weights), device, seed=7)
    model, largest = noise_model(device), weights.abs().amax(dim=2, keepdim=True)
    signed = weights / largest * 25.0
    read = []
    for number, target in enumerate((signed.clamp(min=0), (-signed).clamp(min=0))):
        seed = partial(derive_seed, 7, "0", 0, number)
        with seeded(seed("programming")):
            programmed = model.apply_programming_noise_to_conductance(target.clone())
        with seeded(seed("drift")):
            exponents = model.generate_drift_coefficients(target.clone())
        with seeded(seed("read", DAY, 0)):
            read.append(model.apply_drift_noise_to_conductance(programmed, exponents, DAY))
    expected = ((read[0] - read[1]) / 25.0 * largest).view(chip.weights()["0"].shape)
    torch.testing.assert_close(chip.weights()["0"], expected, rtol=1e-5, atol=1e-7)


def test_groups_share_no_draw():
    """Correlation of errors of neighbouring groups: n = 18,000, 1e-6."""
    weights = own_weights(1).expand(1000, -1, -1)
    errors = aged(grouped(weights), "pcm_like").weights()["0"].view(1000, -1).double()
    errors = (errors - errors.mean(0)) / errors.std(0)
    n = errors[1:].numel()
    together = float((errors[1:] * errors[:-1]).mean()) * n**0.5
    assert abs(together) < stats.norm.isf(FALSE_ALARM / 2)


@pytest.mark.parametrize("kind", ["global", "per_column"])
def test_every_array_has_the_factor_of_its_own_columns_in_use(kind):
    """Mean |w| of the array, or of each column, as programmed over now."""
    weights = own_weights(30)
    weights[3, 0] = 0  # one column, and a whole array, in no use
    weights[5] = 0
    content = load_device("pcm_like").model_dump()
    content["drift_compensation"]["kind"] = kind
    chip = program(grouped(weights), validated(content, "mine"), engine="compiled")
    largest = weights.abs().amax(dim=2, keepdim=True)
    sizes = []
    for t in (0.0, DAY):
        now = chip.drift_to(t).weights()["0"].view(weights.shape)
        assert not now[3, 0].any() and not now[5].any()
        size = (now / largest.where(largest > 0, 1)).abs().sum(2)
        used = (weights.abs().amax(2) > 0).sum(1, keepdim=True).clamp(min=1)
        sizes.append(size.sum(1, keepdim=True) / used if kind == "global" else size)
    expected = (sizes[0] / ROWS).clamp(min=1e-4) / (sizes[1] / ROWS).clamp(min=1e-4)
    factors = chip.compensation()["0"].view(30, -1)
    torch.testing.assert_close(factors, expected, rtol=1e-4, atol=0)


def test_single_cells_map_every_array_by_its_own_range():
    """Smallest and largest weight of an array lie at both ends of the range; no error: exact."""
    weights = own_weights(20)
    weights[4] = weights[4].abs() + 0.1  # all of one sign
    weights[7] = 0  # in no use: it stays so
    content = load_device("reram_cmo").model_dump()
    content["noise"]["programming_noise_scale"] = 0.0
    chip = program(grouped(weights), validated(content, "quiet"), engine="compiled")
    arrays = chip.conductances()["0"]
    assert len(arrays) == 20
    for (conductances,) in arrays[:7] + arrays[8:]:
        assert float(conductances.min()) == pytest.approx(content["noise"]["g_min_uS"])
        assert float(conductances.max()) == pytest.approx(content["noise"]["g_max_uS"])
    found = chip.weights()["0"].view(weights.shape)
    torch.testing.assert_close(found, weights, rtol=1e-3, atol=1e-5)


def test_a_saved_chip_of_groups_comes_back(tmp_path):
    network = grouped(own_weights(12))
    chip = aged(network, "pcm_like", seed=3)
    again = load_chip(chip.save(tmp_path / "chip.safetensors"), network)
    for t in (DAY, 10 * DAY):
        first, second = chip.drift_to(t).weights()["0"], again.drift_to(t).weights()["0"]
        assert torch.equal(first, second)
