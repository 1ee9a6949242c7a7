"""Claims about chips: aihwkit's plain loop as the oracle, state that stays with the chip."""

import copy
import math
import threading

import pytest
import torch
from torch import nn

from analog_samson import analog, load_device, program
from analog_samson.checkpoint import TrainingSpec, load_checkpoint, read_tensors, write_tensors
from analog_samson.chip import load_chip
from analog_samson.data import load_dataset
from analog_samson.models import input_ranges
from analog_samson.streams import derive_seed
from analog_samson.times import DAY, HOUR, MONTH, YEAR
from analog_samson.training import train

TIMES_S = (1.0, HOUR, DAY, MONTH, YEAR)


class Residual(nn.Module):
    """Own forward code, a residual, a strided convolution, layers of two arrays."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(1, 6, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(6)
        self.second = nn.Conv2d(6, 6, 3, padding=1)
        self.down = nn.Conv2d(6, 8, 3, stride=2)
        self.head = nn.Linear(8 * 9, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = torch.relu(self.norm(self.first(x)))
        x = x + torch.relu(self.second(x))
        return self.head(torch.relu(self.down(x)).flatten(1))


@pytest.fixture(scope="module")
def network() -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return Residual().eval()


@pytest.fixture(scope="module")
def images() -> torch.Tensor:
    return torch.rand(70, 1, 8, 8, generator=torch.Generator().manual_seed(1))


def with_small_arrays(name):
    device = load_device(name)
    return device.model_copy(update={"mapping": device.mapping.model_copy(update={"max_rows": 40})})


@pytest.mark.slow
@pytest.mark.parametrize("products", ["exact", "noisy"])
def test_bf16_changes_the_predictions_of_few_images_only(products, tmp_path):
    """Of 359 digits, 5 chips, 3 networks: exact 1 at most; noisy 2.0 on average, 4 at most."""
    device, digits = load_device("pcm_like"), load_dataset("digits")
    if products == "exact":
        device = device.model_copy(update={"periphery": load_device("ideal").periphery})
    spec = TrainingSpec(model="resnet8", epochs=5)
    checkpoint = load_checkpoint(train(spec, tmp_path))
    images = checkpoint.normalise(digits.test.images)
    changed = []
    for seed in range(5):
        fine, coarse = (
            program(checkpoint, device, seed=seed, precision=p).drift_to(DAY)(images)
            for p in ("fp32", "bf16")
        )
        assert not torch.equal(fine, coarse)
        changed.append(int((fine.argmax(dim=1) != coarse.argmax(dim=1)).sum()))
    assert max(changed) <= {"exact": 4, "noisy": 10}[products]


def test_as_in_aihwkit_is_the_plain_loop_written_by_hand(network, images):
    """aihwkit's own conversion and calls, our documented seeds: equal weights, alphas, outputs."""
    from aihwkit.nn.conversion import convert_to_analog

    seed, device = 11, with_small_arrays("pcm_like_as_in_aihwkit")
    chip = program(network, device, seed=seed, calibration=images)

    ranges = input_ranges(network, images)
    plain = convert_to_analog(copy.deepcopy(network), analog.tile_configuration(device)).eval()
    layers = {name: getattr(plain, name) for name in ranges}
    tiles = [
        ((name, index), tile)
        for name, layer in layers.items()
        for index, tile in enumerate(layer.analog_tiles())
    ]
    assert len(tiles) == 7, "the convolutions of 54 rows and the head of 72 have two arrays each"
    for (name, index), tile in tiles:
        tile.set_input_range(ranges[name])
        torch.manual_seed(derive_seed(seed, name, index, "programming"))
        tile.program_weights()
    for t in TIMES_S:
        chip.drift_to(t)
        for words, tile in tiles:
            torch.manual_seed(derive_seed(seed, *words, "read", t, 0))
            tile.drift_weights(t)
        for name, layer in layers.items():
            own = chip.weights()[name]
            torch.testing.assert_close(own, layer.get_weights()[0].reshape(own.shape))
            alphas = torch.stack([tile.alpha.reshape(()) for tile in layer.analog_tiles()])
            torch.testing.assert_close(chip.compensation()[name], alphas)
        blocks = []
        for number, block in enumerate(images[:64].split(analog.TILE_BLOCK)):
            torch.manual_seed(derive_seed(seed, "forward", t, 0, number))
            with torch.no_grad():
                blocks.append(plain(block))
        torch.testing.assert_close(chip(images[:64]), torch.cat(blocks))


def test_ideal_device_is_the_digital_network(network, images):
    chip = program(network, "ideal")
    with torch.no_grad():
        expected = network(images)
    torch.testing.assert_close(chip(images), expected, rtol=1e-5, atol=1e-6)
    for name, weight in chip.drift_to(YEAR).weights().items():
        torch.testing.assert_close(weight, network.get_submodule(name).weight)


def test_the_model_passed_in_is_not_changed(network, images):
    before = copy.deepcopy(network.state_dict())
    modules = dict(network.named_modules())
    program(network, "pcm_like", calibration=images).drift_to(YEAR)(images)
    assert dict(network.named_modules()) == modules
    assert all(torch.equal(before[key], value) for key, value in network.state_dict().items())
    assert all(parameter.requires_grad for parameter in network.parameters())


@pytest.mark.parametrize("name", ["pcm_like", "reram_cmo", "pcm_like_as_in_aihwkit"])
def test_reading_is_a_pure_function_of_time_and_read(network, images, name):
    chip = program(network, name, seed=3, calibration=images)
    first = [chip.drift_to(t)(images) for t in TIMES_S]
    other_read = chip.drift_to(DAY, read=1)(images)
    again = [chip.drift_to(t)(images) for t in reversed(TIMES_S)][::-1]
    twin = program(network, name, seed=3, calibration=images)
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
    assert torch.equal(twin.drift_to(DAY)(images), first[2])
    assert not torch.equal(other_read, first[2])


def test_nothing_depends_on_the_state_of_the_global_generator(network, images):
    torch.manual_seed(1)
    one = program(network, "pcm_like", seed=3, calibration=images).drift_to(DAY)(images)
    torch.manual_seed(2)
    before = torch.random.get_rng_state()
    two = program(network, "pcm_like", seed=3, calibration=images).drift_to(DAY)(images)
    assert torch.equal(one, two)
    assert torch.equal(before, torch.random.get_rng_state())


def test_an_images_noise_does_not_depend_on_its_batch(network, images):
    chip = program(network, "pcm_like", calibration=images).drift_to(HOUR)
    whole = chip(images)
    parts = [chip(images[a:b], first_index=a) for a, b in ((0, 1), (1, 33), (33, 64), (64, 70))]
    torch.testing.assert_close(torch.cat(parts), whole, rtol=0, atol=0)


def test_every_seed_programs_another_chip(network, images):
    one, two = (program(network, "pcm_like", seed=s).weights()["head"] for s in (0, 1))
    target = network.head.weight
    errors = torch.stack([(one - target).flatten(), (two - target).flatten()]).detach()
    assert errors.std() > 0
    # Independent errors, n = 720: |r| < 5 / sqrt(n) but for a chance of 6e-7.
    assert abs(float(torch.corrcoef(errors)[0, 1])) < 5 / errors.shape[1] ** 0.5


def test_global_compensation_is_the_ratio_of_mean_magnitudes(network):
    """Without read-out noise alpha is mean |w(0)| / mean |w(t)| of an array."""
    chip = program(network, "pcm_like", seed=5)
    programmed = [pair[0] - pair[1] for pair in chip.conductances()["head"]]
    aged = [pair[0] - pair[1] for pair in chip.drift_to(YEAR).conductances()["head"]]
    expected = [a.abs().mean() / b.abs().mean() for a, b in zip(programmed, aged, strict=True)]
    torch.testing.assert_close(chip.compensation()["head"], torch.stack(expected))


def test_shared_layers_stay_shared(images):
    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(64, 64)
            self.alias = self.layer
            self.relu = nn.ReLU()
            self.body = nn.Sequential(self.layer, self.relu, self.alias, self.relu)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.body(x.flatten(1)) + self.alias(x.flatten(1))

    network = Twice().eval()
    chip = program(network, "ideal")
    with torch.no_grad():
        torch.testing.assert_close(chip(images), network(images), rtol=1e-5, atol=1e-6)
    noisy = program(network, "pcm_like", calibration=images)
    assert list(noisy.weights()) == ["layer"]


def test_an_all_zero_column_is_unused_not_noise(images):
    network = nn.Linear(64, 10)
    with torch.no_grad():
        network.weight[3] = 0
    for name in ("pcm_like", "reram_wan2022", "reram_cmo"):
        chip = program(network, name)
        for t in (1.0, DAY):
            assert not chip.drift_to(t).weights()[""][3].any()


def test_a_chip_without_calibration_has_weights_but_no_forward(network, images):
    chip = program(network, "pcm_like").drift_to(YEAR)
    assert chip.weights()["head"].shape == (10, 72)
    with pytest.raises(ValueError, match="not calibrated.*calibration=images"):
        chip(images)


@pytest.mark.parametrize(
    ("name", "t", "words"),
    [
        ("pcm_like", -1.0, "at least 0 s"),
        ("pcm_like", float("nan"), "finite"),
        ("reram_wan2022", 0.0, "no data at 0 s"),
        ("reram_wan2022", HOUR, "known only at 1 s"),
        ("reram_cmo", 0.5, "times from 1 s"),
    ],
)
def test_a_time_without_data_is_refused(network, name, t, words):
    chip = program(network, name)
    state = chip.t_inference_s
    with pytest.raises(ValueError, match=words):
        chip.drift_to(t)
    assert chip.t_inference_s == state


def test_unusable_weights_are_named(network):
    for value, words in ((float("nan"), "NaN"), (0.0, "zero")):
        broken = copy.deepcopy(network)
        with torch.no_grad():
            broken.down.weight.fill_(value)
        with pytest.raises(ValueError, match=rf"down.*{words}|{words}.*down"):
            program(broken, "pcm_like")


def test_what_is_kept_digital_is_not_on_tiles(images):
    network = nn.Sequential(
        nn.Conv2d(1, 4, 3), nn.Conv2d(4, 4, 3, groups=4), nn.Flatten(), nn.Linear(64, 3)
    ).eval()
    assert list(program(network, "ideal", engine="aihwkit").weights()) == ["0", "1", "3"]
    chip = program(network, "ideal", keep_digital=["1"], engine="aihwkit")
    assert list(chip.weights()) == ["0", "3"]
    with torch.no_grad():
        torch.testing.assert_close(chip(images), network(images), rtol=1e-5, atol=1e-6)


def test_wrong_versions_name_what_to_install(monkeypatch):
    versions = {"aihwkit": "1.1.0", "torch": "2.15.0+cu130"}
    monkeypatch.setattr(analog.versions.metadata, "version", versions.__getitem__)
    with pytest.raises(ImportError, match=r"aihwkit 1.1.0 and torch 2.15.0.*pip install"):
        analog.check_versions()


@pytest.mark.parametrize("name", ["pcm_like", "reram_wan2022", "reram_cmo"])
@pytest.mark.parametrize("engine", ["aihwkit", "compiled"])
def test_a_loaded_chip_ages_as_the_one_in_memory(network, images, tmp_path, name, engine):
    chip = program(network, name, seed=9, calibration=images, engine=engine).drift_to(DAY, read=2)
    loaded = load_chip(chip.save(tmp_path / "chip.safetensors"), network)
    assert (loaded.t_inference_s, loaded.read, loaded.engine) == (DAY, 2, engine)
    assert torch.equal(loaded(images), chip(images))
    later = DAY if name == "reram_wan2022" else YEAR
    assert torch.equal(loaded.drift_to(later)(images), chip.drift_to(later)(images))


def test_cells_are_loaded_from_the_file_of_a_chip(network, tmp_path):
    """What was programmed comes from the file, not from the seed again."""
    chip = program(network, "pcm_like", seed=9)
    file = chip.save(tmp_path / "chip.safetensors")
    tensors, header = read_tensors(file)
    tensors["head/0/0/programmed_uS"].fill_(7.0)
    loaded = load_chip(write_tensors(file, tensors, header), network)
    assert (loaded.conductances()["head"][0][0] == 7.0).all()


def test_compensation_of_a_loaded_chip_refers_to_the_cells_of_the_file(network, tmp_path):
    """Cells of 0.8 times the conductance are read as 0.8 at first, too: the factor is 1."""
    chip = program(network, "pcm_like", seed=9)
    file = chip.save(tmp_path / "chip.safetensors")
    tensors, header = read_tensors(file)
    for name in tensors:
        if name.endswith("programmed_uS"):
            tensors[name] *= 0.8
    loaded = load_chip(write_tensors(file, tensors, header), network)
    for alpha in loaded.compensation().values():
        torch.testing.assert_close(alpha, torch.ones_like(alpha))


def test_a_chip_of_another_network_is_refused(network, tmp_path):
    file = program(network, "pcm_like").save(tmp_path / "chip.safetensors")
    other = copy.deepcopy(network)
    with torch.no_grad():
        other.head.weight[0, 0] *= -1
    with pytest.raises(ValueError, match=r"chip\.safetensors.*not those that were prog.*'head'"):
        load_chip(file, other)
    with pytest.raises(FileNotFoundError, match="no chip"):
        load_chip(tmp_path / "nowhere", network)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"kind": "a sofa"}, "holds no chip"),
        ({"read": -1}, r"read = -1 is not allowed"),
        ({"seed": True}, "seed = True is not allowed"),
        ({"t_inference_s": "10"}, "t_inference_s = '10' is not allowed"),
        ({"input_ranges": {"head": 0.0}}, r"input_ranges\.head = 0\.0 is not allowed"),
        ({"engine": "steam"}, "Unknown engine 'steam'"),
        ({"device": {"name": "x"}}, "cannot be loaded: its device: key"),
        ({"device": None}, "device = None is not allowed"),
        ({"axle": 1}, "key 'axle' is unknown"),
    ],
)
def test_a_wrong_header_of_a_chip_is_one_sentence_with_the_file(
    network, tmp_path, changes, message
):
    file = program(network, "pcm_like").save(tmp_path / "chip.safetensors")
    tensors, header = read_tensors(file)
    write_tensors(file, tensors, header | changes)
    with pytest.raises(ValueError, match=message) as caught:
        load_chip(file, network)
    assert repr(str(file)) in str(caught.value)


@pytest.mark.parametrize("value", [math.nan, math.inf, -211.0])
def test_a_chip_file_with_impossible_cells_is_refused(network, tmp_path, value):
    file = program(network, "pcm_like").drift_to(YEAR).save(tmp_path / "chip.safetensors")
    tensors, header = read_tensors(file)
    tensors["head/0/0/drift_exponent"].fill_(value)
    write_tensors(file, tensors, header)
    with pytest.raises(ValueError, match=r"chip\.safetensors.*(NaN|cells of this device)"):
        load_chip(file, network)


# arguments: a wrong one is one sentence that names it


@pytest.mark.parametrize("value", [-1, 0, math.nan, math.inf, 1e300, True, "a"])
def test_input_ranges_given_by_hand_are_checked_by_layer(network, value):
    ranges = dict.fromkeys(["head"], value)
    for device in ("pcm_like", "ideal"):
        with pytest.raises(ValueError, match="input range of layer 'head' is a number from"):
            program(network, device, input_ranges=ranges)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"model": None}, "model is a network .*got NoneType"),
        ({"model": 1}, "model is a network .*got int"),
        ({"model": nn.Linear}, "model is a network .*got the class Linear"),
        ({"model": nn.Linear(2, 2).state_dict()}, "model is a network .*got OrderedDict"),
        ({"model": lambda x: x}, "model is a network .*got function"),
        ({"model": nn.ReLU()}, "no layer for arrays"),
        ({"model": nn.Linear(2, 2, device="meta")}, "meta device"),
        ({"input_ranges": [1]}, "input_ranges is a dictionary .*got list"),
        ({"keep_digital": None}, "keep_digital is a list of names .*got None"),
        ({"keep_digital": [1]}, r"keep_digital is a list of names .*got \[1\]"),
        ({"seed": 1.5}, "seed is a whole number; got 1.5"),
        ({"seed": math.nan}, "seed is a whole number; got nan"),
        ({"seed": None}, "seed is a whole number; got None"),
        ({"seed": "a"}, "seed is a whole number; got 'a'"),
        ({"seed": True}, "seed is a whole number; got True"),
    ],
)
def test_wrong_arguments_of_program(network, images, arguments, message):
    with pytest.raises(ValueError, match=message):
        program(**{"model": network, "device": "pcm_like", "calibration": images} | arguments)


@pytest.mark.parametrize("t", ["1", None, True, 10**400, 1j])
def test_a_time_is_a_number(network, t):
    with pytest.raises(ValueError, match="a number of s; got"):
        program(network, "pcm_like").drift_to(t)


@pytest.mark.parametrize("read", [0.5, math.nan, "a", True, None])
def test_a_read_is_a_whole_number(network, read):
    with pytest.raises(ValueError, match="read is a whole number; got"):
        program(network, "pcm_like").drift_to(10, read)


@pytest.mark.parametrize("engine", ["aihwkit", "compiled"])
def test_images_that_cannot_run_leave_the_chip_as_it_was(network, images, engine):
    chip = program(network, "pcm_like", calibration=images, engine=engine)
    expected = chip(images)
    wrong = {
        "at least one image": images[:0],
        "images hold NaN": images.clone().index_fill_(0, torch.tensor(3), math.nan),
        "on the meta device": images.to("meta"),
        "layout torch.sparse_coo": images.to_sparse(),
        "type torch.complex64": images.to(torch.complex64),
        "was trained on": torch.rand(4, 5),
    }
    for message, given in wrong.items():
        with pytest.raises(ValueError, match=message):
            chip(given)
    with pytest.raises(ValueError, match="first_index is a whole number"):
        chip(images, 0.5)
    assert torch.equal(chip(images), expected)


def test_an_attribute_that_cannot_be_copied_is_named(tmp_path):
    with (tmp_path / "log").open("w") as log:
        for value in (log, torch.ones(2, requires_grad=True) * 2, threading.Lock()):
            network = nn.Sequential(nn.Linear(4, 4), nn.ReLU())
            network[1].kept = value
            with pytest.raises(ValueError, match=r"its attribute '1\.kept'"):
                program(network, "ideal")


def test_batch_normalisation_without_statistics_is_not_folded():
    network = nn.Sequential(
        nn.Conv1d(1, 4, 3), nn.BatchNorm1d(4, track_running_stats=False), nn.Conv1d(4, 2, 3)
    )
    device = load_device("ideal")
    mapping = device.mapping.model_copy(update={"batch_norm": "folded"})
    x = torch.rand(5, 1, 9)
    chip = program(network, device.model_copy(update={"mapping": mapping}), calibration=x)
    torch.testing.assert_close(chip(x), network(x).detach(), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("engine", ["aihwkit", "compiled"])
def test_the_default_type_and_inference_mode_of_torch_do_not_matter(network, images, engine):
    def made():
        return program(network, "pcm_like", calibration=images, engine=engine).drift_to(DAY)

    expected, later = made()(images), made().drift_to(YEAR)(images)
    torch.set_default_dtype(torch.float64)
    try:
        assert torch.equal(made()(images), expected)
        assert torch.get_default_dtype() == torch.float64
    finally:
        torch.set_default_dtype(torch.float32)
    with torch.inference_mode():
        chip = made()
        assert torch.equal(chip(images), expected)
    assert torch.equal(chip(images), expected)
    assert torch.equal(chip.drift_to(YEAR)(images), later)


@pytest.mark.parametrize(
    ("quantity", "value"),
    [("programmed_uS", -1000.0), ("programmed_uS", 1e30), ("drift_exponent", 1e30)],
)
def test_a_chip_file_with_implausible_cells_is_refused(network, tmp_path, quantity, value):
    file = program(network, "pcm_like").save(tmp_path / "chip.safetensors")
    tensors, header = read_tensors(file)
    tensors[f"head/0/0/{quantity}"][0, 0] = value
    write_tensors(file, tensors, header)
    with pytest.raises(ValueError, match=rf"head/0/0/{quantity}' holds .*cells of this device"):
        load_chip(file, network)
