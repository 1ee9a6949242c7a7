"""Claims that known errors of simulators would break: one test an error."""

import copy
import io
import math
import pickle

import pandas as pd
import pytest
import torch
from aihwkit.inference.converter.conductance import SingleDeviceConductanceConverter
from synthetic_trials import make_trials
from torch import nn

from analog_samson import load_device, program
from analog_samson.analog.own_models import SingleCellConverter
from analog_samson.checkpoint import Checkpoint, TrainingSpec
from analog_samson.compiled import tracing
from analog_samson.devices import validated
from analog_samson.provenance import audit_rows
from analog_samson.report import Content, write_report
from analog_samson.report.contents import study_tables, warnings_of
from analog_samson.times import DAY, HOUR, YEAR

ENGINES = ["aihwkit", "compiled"]
CMO = ["reram_cmo", "reram_cmo_fine", "reram_cmo_as_in_aihwkit"]


def seeded(factory):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return factory().eval()


def mlp():
    return nn.Sequential(nn.Linear(30, 20), nn.BatchNorm1d(20), nn.ReLU(), nn.Linear(20, 4))


def inputs(n=40, width=30, seed=1):
    return torch.rand(n, width, generator=torch.Generator().manual_seed(seed))


def changed(name, **sections):
    content = load_device(name).model_dump()
    for section, keys in sections.items():
        content[section].update(keys)
    return validated(content, "mine")


# constant arrays on single devices between 9 and 88.2 µS


def constant(value, n=400):
    layer = nn.Linear(1, n, bias=False)
    with torch.no_grad():
        layer.weight.fill_(value)
    return layer


@pytest.mark.parametrize("value", [0.5, -0.5])
@pytest.mark.parametrize("name", CMO)
def test_a_constant_array_has_its_constant_except_for_noise(name, value):
    """Its devices are those of an array with a zero in it: spread and shift are of 79.2 µS.

    n = 400, seed 1: a mean or spread 6 standard errors off has a probability under 1e-8.
    """
    chip = program(constant(value), name, seed=1)
    g = 88.2 if value > 0 else 9.0
    spread_uS = {
        "reram_cmo": 0.0112185391 + 0.01129027418 * g,
        "reram_cmo_fine": 0.00081107 + 0.00106879 * g,
    }.get(name)
    weights = chip.drift_to(0.0).weights()[""] / abs(value)
    error_uS = 79.2 * (weights - math.copysign(1, value))
    if spread_uS is not None:
        assert abs(error_uS.mean()) < 6 * spread_uS / 20
        assert abs(error_uS.std() / spread_uS - 1) < 6 / math.sqrt(2 * 400)
    for t in (HOUR, DAY):
        weights = chip.drift_to(t).weights()[""]
        assert bool(weights.isfinite().all())
        assert abs(float(weights.mean()) / value - 1) < 0.05


@pytest.mark.parametrize("name", CMO[:2])
def test_a_pointwise_depthwise_convolution_is_finite_and_near_its_weights(name):
    """Every channel is an array of one weight; one of them is zero, and unused."""
    layer = nn.Conv2d(4, 4, 1, groups=4, bias=False)
    with torch.no_grad():
        layer.weight.copy_(torch.tensor([0.5, -2.0, 0.0, 1e-6]).view(4, 1, 1, 1))
    chip = program(layer, name, engine="compiled").drift_to(HOUR)
    weight = layer.weight.detach()
    torch.testing.assert_close(chip.weights()[""], weight, rtol=0.06, atol=0)
    assert all(g.isfinite().all() for pair in chip.conductances()[""] for g in pair)


def test_other_arrays_are_mapped_as_by_aihwkit_bit_for_bit():
    ours, theirs = (
        kind(88.2, 9.0) for kind in (SingleCellConverter, SingleDeviceConductanceConverter)
    )
    draws = torch.Generator().manual_seed(0)
    for low, high in ((-1, 1), (0.3, 1), (-1, -0.9), (0, 1)):
        weights = low + (high - low) * torch.rand(20, 30, generator=draws)
        found, scale = ours.convert_to_conductances(weights)
        expected, their_scale = theirs.convert_to_conductances(weights)
        assert torch.equal(found, expected)
        noisy = found + torch.randn(20, 30, generator=draws)
        back = theirs.convert_back_to_weights(noisy, their_scale)
        assert torch.equal(ours.convert_back_to_weights(noisy, scale), back)


@pytest.mark.parametrize("name", ["pcm_like", "pcm_like_as_in_aihwkit"])
def test_weights_that_are_not_finite_are_refused(name, monkeypatch):
    from aihwkit.inference.noise.pcm import PCMLikeNoiseModel

    network = seeded(mlp)
    chip = program(network, name)
    for method in (
        "apply_drift_noise_to_conductance",
        "apply_programming_noise_to_conductance",
    ):
        with monkeypatch.context() as patch:
            plain = getattr(PCMLikeNoiseModel, method)

            def one_nan(*args, plain=plain):
                values = plain(*args).clone()
                values.view(-1)[3] = math.nan
                return values

            patch.setattr(PCMLikeNoiseModel, method, one_nan)
            with pytest.raises(ValueError, match=r"Layer '0' .* NaN or infinite"):
                (program(network, name) if "programming" in method else chip).drift_to(DAY)
    chip.drift_to(DAY)


# scales


@pytest.mark.parametrize("g_max_uS", [10.0, 25.0, 100.0])
@pytest.mark.parametrize("t", [1.0, DAY])
def test_wans_relative_spread_does_not_depend_on_the_largest_conductance(g_max_uS, t):
    """The fit is of 40 µS and scales with the range: the same draws, the same relative errors."""
    network, device = seeded(mlp), load_device("reram_wan2022")
    at_40, other = (
        program(network, device.with_axes({"g_max_uS": g}), seed=2).drift_to(t).conductances()
        for g in (40.0, g_max_uS)
    )
    for layer, arrays in at_40.items():
        for one, two in zip(arrays, other[layer], strict=True):
            for g, h in zip(one, two, strict=True):
                assert (g / 40).std() > 0.02
                torch.testing.assert_close(h / g_max_uS, g / 40, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("engine", ENGINES)
def test_calibration_does_not_switch_off_per_vector_input_scaling(engine):
    device = changed(
        "pcm_like",
        periphery={"input_scaling": "per_vector", "output_noise": 0.0},
        noise={"programming_noise_scale": 0.0, "read_noise_1f_scale": 0.0, "drift_scale": 0.0},
    )
    network, x = seeded(mlp), inputs() * torch.logspace(-3, 3, 40)[:, None]
    plain = program(network, device, engine=engine)(x)
    for given in ({"calibration": x}, {"input_ranges": {"0": 0.01, "3": 0.01}}):
        assert torch.equal(program(network, device, engine=engine, **given)(x), plain)
    layer = nn.Sequential(network[0])
    with torch.no_grad():
        exact = layer(x) - layer[0].bias
    found = program(layer, device, engine=engine, calibration=x)(x) - layer[0].bias.detach()
    error = (found - exact).norm(dim=1) / exact.norm(dim=1)
    assert float(error.max()) < 0.1, "inputs of every size fill the range"


# states of a chip


@pytest.mark.parametrize("name", ["pcm_like", "pcm_like_as_in_aihwkit", "reram_cmo"])
def test_a_network_trained_further_is_programmed_with_its_new_weights(name):
    network = seeded(mlp)
    old = network[0].weight.detach().clone()
    program(network, name, engine="aihwkit").drift_to(YEAR)
    with torch.no_grad():
        network[0].weight.copy_(-old)
    chip = program(network, name, engine="aihwkit")
    for t in (0.0, DAY, YEAR):
        held = chip.drift_to(t).weights()["0"]
        assert (held + old).norm() < 0.7 * old.norm(), "near the new weights"
        assert (held - old).norm() > 1.3 * old.norm(), "far from the old ones"


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("kind", ["global", "per_column", "none"])
def test_products_use_the_weights_and_factors_of_the_current_time(engine, kind):
    device = changed(
        "pcm_like",
        drift_compensation={"kind": kind},
        periphery=load_device("ideal").periphery.model_dump(),
    )
    layer, x = seeded(lambda: nn.Linear(30, 20)), inputs()
    chip = program(layer, device, engine=engine)
    largest = layer.weight.detach().abs().amax(1, keepdim=True)
    for t in (YEAR, 0.0, DAY, YEAR):
        ((plus, minus),) = chip.drift_to(t).conductances()[""]
        weights = (plus - minus) / 25 * largest
        torch.testing.assert_close(chip.weights()[""], weights, rtol=1e-4, atol=1e-6)
        with torch.no_grad():
            products = nn.functional.linear(x, weights) * chip.compensation()[""]
        torch.testing.assert_close(chip(x), products + layer.bias.detach(), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("kind", ["global", "per_column"])
def test_compensation_is_one_again_at_the_programmed_state(engine, kind):
    device = changed("pcm_like", drift_compensation={"kind": kind})
    network, x = seeded(mlp), inputs()
    chip = program(network, device, calibration=x, engine=engine)
    before = chip(x)
    aged = chip.drift_to(YEAR).compensation()
    assert all(bool((alpha > 1.2).all()) for alpha in aged.values())
    for alpha in chip.drift_to(0.0).compensation().values():
        assert torch.equal(alpha, torch.ones_like(alpha))
    assert torch.equal(chip(x), before)


@pytest.mark.parametrize(
    ("name", "engine", "expected_images"),
    [
        ("pcm_like", "compiled", 0),
        ("pcm_like", "compiled", 10**9),  # traced
        ("pcm_like", "aihwkit", 0),
        ("pcm_like_as_in_aihwkit", "aihwkit", 0),
        ("reram_cmo", "compiled", 0),
    ],
)
def test_a_chip_can_be_copied_and_pickled(name, engine, expected_images, monkeypatch):
    # what torch.compile gives is no more than another function here: it does not pickle either
    monkeypatch.setattr(tracing, "_tracer", lambda _: lambda network, images: network(images))
    network, x = seeded(mlp), inputs()
    chip = program(
        network, name, calibration=x, engine=engine, expected_images=expected_images
    ).drift_to(DAY)
    expected, at_first = chip(x), program(network, name, calibration=x, engine=engine)(x)
    for duplicate in (copy.deepcopy, lambda chip: pickle.loads(pickle.dumps(chip))):
        other = duplicate(chip)
        assert torch.equal(other(x), expected)
        other.drift_to(0.0)
        torch.testing.assert_close(other(x), at_first, rtol=1e-4, atol=1e-5)
        assert torch.equal(chip(x), expected), "ageing a copy leaves the chip where it is"
        assert torch.equal(other.drift_to(DAY)(x), expected)
    fresh = pickle.loads(pickle.dumps(program(network, name, engine=engine)))
    assert list(fresh.weights()) == ["0", "3"]


# what tables and pages say


def test_alpha_is_in_the_tables_as_measured():
    trials = make_trials(n_networks=3, n_chips=4)
    trials["alpha"] += trials["chip"] / 7
    text = study_tables(trials)["accuracy"].csv()
    found = pd.read_csv(io.StringIO(text)).set_index(["method", "t_inference_s"])["alpha"]
    expected = trials.groupby(["method", "t_inference_s"])["alpha"].mean()
    assert len(found) == len(expected) == 12
    pd.testing.assert_series_equal(found.sort_index(), expected, check_exact=False, rtol=1e-9)


@pytest.mark.slow
def test_the_page_warns_where_compensation_is_off(tmp_path, monkeypatch):
    monkeypatch.setattr("analog_samson.report.page.write_figures", lambda *_, **__: [])  # slow
    words = "No drift compensation on bare."
    trials = pd.concat(
        [make_trials(), make_trials(device="bare", compensation="none")], ignore_index=True
    )
    trials.to_csv(tmp_path / "trials.csv", index=False)
    write_report(tmp_path)
    assert words in (tmp_path / "report.html").read_text()
    only_programmed = trials[trials["t_inference_s"] == 0]
    assert words not in warnings_of(Content(only_programmed))
    assert not any("compensation" in text for text in warnings_of(Content(make_trials())))


class Gain(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.fc, self.gamma = nn.Linear(64, 10), nn.Parameter(torch.ones(10))

    def forward(self, x):
        return self.gamma * self.fc(x.flatten(1))


class Table(Gain):
    def forward(self, x):
        return super().forward(x) @ torch.eye(10)


def checkpoint_of(kind):
    return Checkpoint(
        spec=TrainingSpec(model=f"{__name__}:{kind.__name__}"),
        state=kind().state_dict(),
        input_ranges={"fc": 1.0},
        n_correct_digital=1,
        n_test=1,
        image_shape=(1, 8, 8),
        n_classes=10,
        mean=(0.0,),
        std=(1.0,),
        class_names=tuple("0123456789"),
    )


def test_the_audit_counts_elementwise_factors_and_refuses_silent_products():
    ideal = load_device("ideal")
    rows = {row["layer"]: row for row in audit_rows("net", checkpoint_of(Gain), ideal, "compiled")}
    assert rows["fc"]["analog"] and rows["fc"]["n_weights"] == 640
    gain = rows["gamma"]
    assert (gain["kind"], gain["n_weights"], gain["analog"]) == ("elementwise product", 10, False)
    for refuses in (
        lambda network: audit_rows("net", network, ideal, "compiled"),
        lambda network: program(network, ideal),
    ):
        with pytest.raises(ValueError, match=r"multiplies \(mm\) by a 10 x 10 tensor"):
            refuses(checkpoint_of(Table))


def test_a_checkpoint_is_checked_once_a_process(monkeypatch):
    from analog_samson import models

    calls = []
    monkeypatch.setattr(models, "check_forward", lambda *given: calls.append(given))
    checkpoint = checkpoint_of(Gain)
    for seed in range(3):
        program(checkpoint, "ideal", seed=seed)(inputs(2, 64).view(2, 1, 8, 8))
    assert len(calls) == 1
    program(checkpoint, "ideal", keep_digital=["gamma"])  # more is digital than before
    assert len(calls) == 1
    program(checkpoint_of(Gain), "ideal")
    assert len(calls) == 2
