"""Claims about what a chip takes from training images: input ranges, and one factor a layer."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from analog_samson import Study, collect, load_device, program
from analog_samson.checkpoint import TrainingSpec, load_checkpoint, save_checkpoint
from analog_samson.chip import load_chip
from analog_samson.data import load_dataset
from analog_samson.devices import validated
from analog_samson.models import input_ranges
from analog_samson.study import accuracy_by_layer, accuracy_by_stage
from analog_samson.times import DAY, YEAR
from analog_samson.training import N_RANGE_IMAGES, train

ENGINES = ["aihwkit", "compiled"]


class Network(nn.Module):
    """A convolution of two arrays at 40 rows, a linear layer used twice, a head; all with bias."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(1, 6, 3, padding=1)
        self.second = nn.Conv2d(6, 4, 3)
        self.twice = nn.Linear(144, 144)
        self.head = nn.Linear(144, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = torch.relu_(self.first(x))
        x = torch.relu_(self.second(x)).flatten(1)
        return self.head(torch.relu(self.twice(torch.relu(self.twice(x)))))


@pytest.fixture(scope="module")
def network() -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return Network().eval()


@pytest.fixture(scope="module")
def images() -> torch.Tensor:
    return torch.rand(64, 1, 8, 8, generator=torch.Generator().manual_seed(1))


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    return train(TrainingSpec(model="mlp", epochs=1), tmp_path_factory.mktemp("network"))


def device_of(name, **sections):
    content = load_device(name).model_dump()
    for section, keys in sections.items():
        content[section] |= keys
    return validated(content, name)


EXACT = load_device("ideal").periphery.model_dump()
PER_LAYER = {"kind": "per_layer"}


# --- one factor a layer -------------------------------------------------------------------------


def one_gain():
    """Every device of the array drifts by the same exponent, and nothing else happens."""
    quiet = {"programming_noise_scale": 0.0, "read_noise_1f_scale": 0.0}
    table = {"nu_at_uS": (0.0, 25.0), "nu_mean": (0.05, 0.05), "nu_spread": (0.0, 0.0)}
    return device_of(
        "pcm_custom_drift",
        noise=quiet | table,
        periphery=EXACT,
        mapping={"max_rows": 40},
        drift_compensation=PER_LAYER,
    )


@pytest.mark.parametrize("engine", ENGINES)
def test_a_gain_of_a_layer_is_removed_exactly(network, images, engine):
    chip = program(network, one_gain(), engine=engine, recalibration=images).drift_to(YEAR)
    factor = ((YEAR + 20) / 20) ** 0.05
    for alphas in chip.compensation().values():
        torch.testing.assert_close(alphas, torch.full_like(alphas, factor), rtol=1e-5, atol=0)
    with torch.no_grad():
        torch.testing.assert_close(chip(images), network(images), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("engine", ENGINES)
def test_the_factor_is_the_least_squares_one_of_the_layers_products(network, images, engine):
    """The oracle: inputs of the layer by hand, numpy's least squares, bias left out."""
    device = device_of("pcm_like", mapping={"max_rows": 40}, drift_compensation=PER_LAYER)
    options = {"calibration": images, "recalibration": images, "engine": engine, "seed": 2}
    chip = program(network, device, **options).drift_to(YEAR)
    with torch.no_grad():
        x = torch.relu(network.first(images))
        products = {"first": images, "second": x}
        x = torch.relu(network.second(x)).flatten(1)
        again = torch.relu(network.twice(x))
        products |= {"twice": torch.cat([x, again]), "head": torch.relu(network.twice(again))}
    for name, inputs in products.items():
        layer, aged = network.get_submodule(name), chip.weights()[name]
        wanted, found = (
            nn.functional.conv2d(inputs, weight, padding=layer.padding)
            if isinstance(layer, nn.Conv2d)
            else inputs @ weight.T
            for weight in (layer.weight.detach(), aged)
        )
        y, target = (values.double().flatten().numpy() for values in (found, wanted))
        best = np.linalg.lstsq(y[:, None], target, rcond=None)[0][0]
        alphas = chip.compensation()[name]
        assert len(alphas) >= 1
        np.testing.assert_allclose(alphas, best, rtol=1e-5)


def test_rescaled_layers_are_closer_to_the_digital_ones_than_by_mean_magnitudes(network, images):
    errors = {}
    for kind in ("none", "global", "per_layer"):
        device = device_of("pcm_like", periphery=EXACT, drift_compensation={"kind": kind})
        chips = [program(network, device, seed=s, recalibration=images) for s in range(3)]
        with torch.no_grad():
            errors[kind] = sum(
                float((chip.drift_to(YEAR)(images) - network(images)).square().mean())
                for chip in chips
            )
    assert errors["per_layer"] < errors["global"] < errors["none"]


def test_layers_can_be_rescaled_by_name(network, images):
    head = {"pattern": "head", "drift_compensation": PER_LAYER}
    content = {**load_device("pcm_like").model_dump(), "layers": [head]}
    plain = program(network, "pcm_like", seed=1).drift_to(YEAR).compensation()
    device = validated(content, "mine")
    assert device.needs_training_images
    mixed = program(network, device, seed=1, recalibration=images).drift_to(YEAR).compensation()
    assert not torch.equal(mixed["head"], plain["head"])
    for layer in ("first", "second", "twice"):
        assert torch.equal(mixed[layer], plain[layer])


def test_rescaling_without_images_or_on_aihwkits_path_is_one_sentence(network):
    with pytest.raises(ValueError, match=r"rescales layers and has no training images"):
        program(network, load_device("pcm_like").with_axes({"compensation": "per_layer"}))
    with pytest.raises(ValueError, match=r"'per_layer' needs noise_level = 'conductance'"):
        load_device("pcm_like_as_in_aihwkit").with_axes({"compensation": "per_layer"})


def test_a_study_rescales_layers(path, tmp_path):
    study = Study(
        "s",
        [path],
        ["pcm_like"],
        [DAY],
        n_chips=1,
        n_test=60,
        axes={"compensation": ["global", "per_layer"]},
    )
    rows = collect(study, tmp_path)
    assert set(rows["compensation"]) == {"global", "per_layer"}
    assert rows["alpha"].nunique() == 2 and (rows["alpha"] > 1).all()


@pytest.mark.parametrize(
    "device",
    [
        device_of("pcm_like", drift_compensation=PER_LAYER),
        device_of("pcm_like", input_ranges={"of": "chip"}),
        load_device("reram_cmo_reference_column"),
    ],
    ids=["rescaled layers", "ranges of a chip", "reference column"],
)
def test_stages_and_layers_can_be_told_apart(path, device):
    rows = accuracy_by_stage(path, device, DAY, chips=1, n_test=60)
    assert rows.set_index("stage").loc["mapped", "accuracy"] == rows["accuracy"].iloc[0]
    assert len(accuracy_by_layer(path, device, DAY, chips=1, n_test=60)) == 3


# --- input ranges -------------------------------------------------------------------------------


def test_ranges_are_a_percentile_or_the_largest_input(network, images):
    with torch.no_grad():
        inputs = torch.relu(network.first(images)).flatten()
    largest = {"input_ranges": {"statistic": "largest"}}
    chip = program(network, device_of("pcm_like", **largest), calibration=images)
    assert chip.input_ranges["second"] == float(inputs.max())
    plain = program(network, "pcm_like", calibration=images)
    rank = math.ceil(0.99995 * (len(inputs) - 1))
    assert plain.input_ranges["second"] == float(inputs.sort().values[rank])
    assert plain.input_ranges["second"] < chip.input_ranges["second"]


def test_both_kinds_of_ranges_are_measured_once_and_stored_with_the_network(path, tmp_path):
    checkpoint, digits = load_checkpoint(path), load_dataset("digits")
    n_train = len(digits.train)
    chosen = torch.linspace(0, n_train - 1, min(N_RANGE_IMAGES, n_train)).long()
    shown = checkpoint.normalise(digits.train.images[chosen])
    assert dict(checkpoint.input_ranges) == input_ranges(checkpoint.build(), shown)
    largest = input_ranges(checkpoint.build(), shown, quantile=1.0)
    assert dict(checkpoint.largest_inputs) == largest != dict(checkpoint.input_ranges)
    device = device_of("pcm_like", input_ranges={"statistic": "largest"})
    for engine in ENGINES:
        for seed in (0, 1):
            assert dict(program(path, device, seed=seed, engine=engine).input_ranges) == largest
    before = replace(checkpoint, largest_inputs={})
    assert before.digest == checkpoint.digest, "older files stay the networks they were"
    old = save_checkpoint(tmp_path / "old.safetensors", before)
    program(old, "pcm_like")
    with pytest.raises(ValueError, match="no largest inputs.*train or import it again"):
        program(old, device)
    program(old, device, calibration=shown)


@pytest.mark.parametrize("engine", ENGINES)
def test_ranges_of_a_chip_are_those_of_its_programmed_weights(network, images, engine):
    """Only the first layer has equal inputs on every chip; others depend on the chip's outputs."""
    device = device_of("pcm_like", input_ranges={"of": "chip"})
    one, two = (
        program(network, device, seed=seed, calibration=images, engine=engine) for seed in (0, 1)
    )
    shared = program(network, "pcm_like", calibration=images, engine=engine).input_ranges
    assert one.input_ranges["first"] == two.input_ranges["first"] == shared["first"]
    held = Network().eval()
    held.load_state_dict(network.state_dict())
    with torch.no_grad():
        for name, weight in one.weights().items():
            held.get_submodule(name).weight.copy_(weight)
    expected = input_ranges(held, images)
    for layer in ("second", "twice", "head"):
        assert one.input_ranges[layer] == pytest.approx(expected[layer], rel=1e-6)
        assert (
            len({chip_range[layer] for chip_range in (one.input_ranges, two.input_ranges, shared)})
            == 3
        )
    assert torch.equal(one.drift_to(YEAR).drift_to(0.0)(images), one(images))


def test_a_saved_chip_keeps_its_own_ranges(network, images, tmp_path):
    device = device_of("pcm_like", input_ranges={"of": "chip"})
    chip = program(network, device, recalibration=images)
    loaded = load_chip(chip.save(tmp_path / "chip.safetensors"), network)
    assert loaded.input_ranges == chip.input_ranges
    assert torch.equal(loaded(images), chip(images))


def test_a_study_finds_ranges_chip_by_chip(path, tmp_path):
    study = Study(
        "s",
        [path],
        ["pcm_like"],
        [DAY],
        n_chips=2,
        n_test=60,
        axes={"input_range": ["percentile", "largest"], "input_range_of": ["network", "chip"]},
    )
    rows = collect(study, tmp_path)
    assert rows["chip_id"].nunique() == 8
    assert (rows["n_correct"] > 15).all(), "a range that is no range leaves 6 of 60"


def test_ranges_chip_by_chip_without_images_are_one_sentence(network):
    with pytest.raises(ValueError, match="input ranges for each chip and has no training images"):
        program(network, device_of("pcm_like", input_ranges={"of": "chip"}))
