"""Layers of other kinds are rewritten before anything is mapped, and compute what they computed."""

import subprocess
import sys
import textwrap
from dataclasses import replace
from itertools import product

import pandas as pd
import pytest
import torch
from places import ROOT
from torch import Tensor, nn
from torch.nn.utils import parametrizations

from analog_samson import load_device, program
from analog_samson.checkpoint import TrainingSpec, load_checkpoint, save_checkpoint
from analog_samson.chip import load_chip
from analog_samson.importing import TRUST_VARIABLE
from analog_samson.models import Rewrite, analog_layers, rewrite, trained_weights
from analog_samson.provenance import audit_rows
from analog_samson.study import Study, accuracy_by_layer, accuracy_by_stage, collect
from analog_samson.training import loop, train


def seeded(make, *args, **options) -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(7)
        return make(*args, **options).eval()


def images(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(3))


MODES = ("zeros", "reflect", "replicate", "circular")
CONVOLUTIONS = {
    f"{mode} {padding} kernel {k} dilation {d} groups {g}": (
        {"padding_mode": mode, "padding": padding, "dilation": d, "groups": g},
        k,
    )
    for mode, padding, k, d, g in product(MODES, (0, 2, "same", "valid"), (3, 4), (1, 2), (1, 2))
    if not (mode == "zeros" and isinstance(padding, int))
}


@pytest.mark.parametrize("ndim", [1, 2])
@pytest.mark.parametrize("case", CONVOLUTIONS)
@pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel:UserWarning")
def test_padding_is_that_of_torch(case, ndim):
    options, kernel = CONVOLUTIONS[case]
    kind = (nn.Conv1d, nn.Conv2d)[ndim - 1]
    kernel = (kernel, 3)[:ndim]
    for stride, bias in ((1, True), (1 if options["padding"] == "same" else 2, False)):
        layer = seeded(kind, 4, 6, kernel, stride=stride, bias=bias, **options)
        network = rewrite(nn.Sequential(layer)).network
        x = images(2, 4, *(11, 9)[:ndim])
        torch.testing.assert_close(network(x), layer(x), rtol=1e-5, atol=1e-6)
        assert len(analog_layers(network)) == 1


TRANSPOSED = {
    f"stride {s} padding {p} output_padding {o} dilation {d} groups {g} kernel {k}": {
        "stride": s, "padding": p, "output_padding": o, "dilation": d, "groups": g,
        "kernel_size": k,
    }
    for s, p, o, d, g, k in product((1, 2, 3), (0, 1, 3), (0, 1), (1, 2), (1, 2), (1, 3, 4))
    if o < max(s, d) and d * (k - 1) + 1 + 10 > 2 * p
}  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("ndim", [1, 2])
def test_transposed_convolutions_are_those_of_torch(ndim):
    kind = (nn.ConvTranspose1d, nn.ConvTranspose2d)[ndim - 1]
    x = images(2, 4, *(6, 5)[:ndim])
    for case, options in TRANSPOSED.items():
        layer = seeded(kind, 4, 6, **options)
        try:
            expected = layer(x)
        except RuntimeError:  # the output would be empty
            continue
        if not expected.numel():
            continue
        network = rewrite(nn.Sequential(layer)).network
        torch.testing.assert_close(network(x), expected, rtol=1e-5, atol=1e-6, msg=case)
        assert list(analog_layers(network)) == ["0.conv"]
    layer = seeded(nn.ConvTranspose2d, 4, 6, (3, 2), stride=(1, 3), padding=(2, 0), bias=False)
    x = images(4, 6, 5)  # without a batch
    torch.testing.assert_close(rewrite(nn.Sequential(layer)).network(x), layer(x))


class UpAndDown(nn.Module):
    """An encoder and decoder with one layer of each kind, on digits."""

    def __init__(self) -> None:
        super().__init__()
        self.down = nn.Conv2d(1, 4, 4, padding="same")
        self.norm = nn.BatchNorm2d(4)
        self.mirror = nn.Conv2d(4, 6, 3, stride=2, padding=1, padding_mode="reflect")
        self.up = nn.ConvTranspose2d(6, 4, 3, stride=2, padding=1, output_padding=1)
        self.fc = nn.Linear(256, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.norm(self.down(x)))
        return self.fc(torch.relu(self.up(torch.relu(self.mirror(x)))).flatten(1))


REWRITTEN = ["down.conv", "mirror.conv", "up.conv", "fc"]
quiet = pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel:UserWarning")


@quiet
@pytest.mark.parametrize("engine", ["aihwkit", "compiled"])
@pytest.mark.parametrize("folded", ["digital", "folded"])
def test_a_chip_without_noise_is_the_network(engine, folded):
    network, x = seeded(UpAndDown), images(5, 1, 8, 8)
    ideal = load_device("ideal")
    device = ideal.model_copy(
        update={"mapping": ideal.mapping.model_copy(update={"batch_norm": folded})}
    )
    chip = program(network, device, engine=engine)  # checked at the first input
    torch.testing.assert_close(chip(x), network(x), rtol=1e-4, atol=1e-5)
    assert list(chip.weights()) == REWRITTEN
    assert type(network.up) is nn.ConvTranspose2d


@quiet
@pytest.mark.parametrize("engine", ["aihwkit", "compiled"])
def test_what_is_named_digital_stays_digital_with_all_it_was_rewritten_into(engine, tmp_path):
    network, x = seeded(UpAndDown), images(5, 1, 8, 8)
    chip = program(network, "pcm_like", calibration=x, engine=engine, keep_digital=["up", "m*r"])
    assert list(chip.weights()) == ["down.conv", "fc"] == list(chip.input_ranges)
    again = load_chip(chip.save(tmp_path / "chip.safetensors"), network)
    assert torch.equal(again(x), chip(x))
    device = load_device("pcm_like")
    device = type(device).model_validate(
        device.model_dump() | {"layers": [{"pattern": "up", "digital": True}]}
    )
    chip = program(network, device, calibration=x, engine=engine)
    assert list(chip.weights()) == ["down.conv", "mirror.conv", "fc"]


def test_nothing_to_rewrite_leaves_the_network_itself():
    network = nn.Sequential(nn.Conv2d(1, 2, 3, padding=1), nn.Linear(4, 2))
    assert rewrite(network).network is network


def test_what_a_rewritten_layer_would_lose_keeps_it_from_being_rewritten():
    hooked = seeded(nn.ConvTranspose2d, 2, 2, 3)
    hooked.register_forward_hook(lambda module, given, out: 2 * out)
    patched = seeded(nn.ConvTranspose2d, 2, 2, 3)
    patched.forward = lambda x: x
    tied, one = seeded(nn.ConvTranspose2d, 2, 2, 3), seeded(nn.Conv2d, 2, 2, 3)
    tied.weight = one.weight
    network = nn.Sequential(hooked, patched, tied, one)
    assert not rewrite(network).kinds
    with pytest.raises(ValueError, match=r"'2' \(ConvTranspose2d\): shares its weights with '3'"):
        program(network, "ideal")


def test_used_twice_is_rewritten_once_and_parametrised_as_it_is_now():
    up = parametrizations.weight_norm(seeded(nn.ConvTranspose2d, 2, 2, 3, padding=1))
    network, x = nn.Sequential(up, nn.ReLU(), up), images(2, 2, 4, 4)
    rewriting = rewrite(network)
    assert rewriting.kinds == {"0": "ConvTranspose2d"}
    assert rewriting.network[0] is rewriting.network[2]
    torch.testing.assert_close(rewriting.network(x), network(x))
    rewriting.check(x[:1])


class Reads(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.up = nn.ConvTranspose2d(1, 2, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.up(x) * self.up.weight.mean()


def test_a_network_that_reads_what_was_rewritten_is_named():
    with pytest.raises(ValueError, match=r"layers 'up' \(ConvTranspose2d\) rewritten .*weight"):
        program(seeded(Reads), "ideal", calibration=images(1, 1, 4, 4))


@pytest.mark.parametrize(
    "layer", [nn.Bilinear(4, 4, 4), nn.ConvTranspose3d(2, 2, 3), nn.Conv3d(2, 2, 3)]
)
def test_other_kinds_are_refused_by_name(layer):
    network = nn.Sequential(nn.Linear(4, 4), layer)
    match = rf"'1' \({type(layer).__name__}\).*rule of your own \(rewrites\).*keep_digital=\['1'\]"
    with pytest.raises(ValueError, match=match):
        program(network, "ideal")


# rules from elsewhere

OUTSIDE = '''
import torch
from torch import nn

from analog_samson.models import Rewrite


class LowRank(nn.Module):
    """A product of two matrices, held as bare parameters."""

    def __init__(self, inputs, outputs, rank):
        super().__init__()
        self.down = nn.Parameter(torch.randn(rank, inputs) / inputs**0.5)
        self.up = nn.Parameter(torch.randn(outputs, rank) / rank**0.5)

    def forward(self, x):
        return x @ self.down.T @ self.up.T


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.low = LowRank(64, 32, 8)
        self.fc = nn.Linear(32, 10)

    def forward(self, x):
        return self.fc(torch.relu(self.low(x.flatten(1))))


def linear(weight):
    layer = nn.Linear(weight.shape[1], weight.shape[0], bias=False)
    layer.weight.data.copy_(weight)
    return layer


def two_layers(low):
    both = nn.Sequential(linear(low.down), linear(low.up))
    both[0].weight = low.down  # held by both: what takes the place is a copy
    return both


low_rank = Rewrite((LowRank,), two_layers)
class Recurrent(nn.Module):
    def __init__(self, inputs, hidden):
        super().__init__()
        self.from_input = nn.Parameter(torch.randn(hidden, inputs) / inputs**0.5)
        self.from_state = nn.Parameter(torch.randn(hidden, hidden) / hidden**0.5)

    def forward(self, x, state):
        states = []
        for step in x.unbind(1):
            state = torch.tanh(step @ self.from_input.T + state @ self.from_state.T)
            states.append(state)
        return torch.stack(states, 1), state


class OfLinears(nn.Module):
    def __init__(self, from_input, from_state):
        super().__init__()
        self.from_input, self.from_state = linear(from_input), linear(from_state)

    def forward(self, x, state):
        states = []
        for step in x.unbind(1):
            state = torch.tanh(self.from_input(step) + self.from_state(state))
            states.append(state)
        return torch.stack(states, 1), state


class Sequences(nn.Module):
    def __init__(self):
        super().__init__()
        self.recurrent = Recurrent(8, 12)
        self.fc = nn.Linear(24, 10)

    def forward(self, x):
        states, last = self.recurrent(x.flatten(1, 2), x.new_zeros(len(x), 12))
        return self.fc(torch.cat([states.mean(1), last], 1))


recurrent = Rewrite((Recurrent,), lambda layer: OfLinears(layer.from_input, layer.from_state))
wrong = Rewrite((LowRank,), lambda low: nn.Sequential(linear(low.down), linear(2 * low.up)))
failing = Rewrite((LowRank,), lambda low: low.nothing)
itself = Rewrite((LowRank,), lambda low: low)
text = Rewrite((LowRank,), lambda low: "text")
'''


@pytest.fixture
def outside(tmp_path, monkeypatch):
    folder = tmp_path / "elsewhere"
    folder.mkdir()
    (folder / "outside_layers.py").write_text(OUTSIDE)
    monkeypatch.syspath_prepend(folder)
    monkeypatch.setenv("PYTHONPATH", str(folder))
    yield "outside_layers"
    sys.modules.pop("outside_layers", None)


def spec_of(module, **changes):
    values = {"model": f"{module}:Net", "rewrites": [f"{module}:low_rank"], "epochs": 2}
    return TrainingSpec(**{**values, **changes})


LOW = ["low.0", "low.1", "fc"]


@pytest.mark.slow
def test_a_layer_kind_of_another_package_runs_from_training_to_the_page(
    outside, tmp_path, monkeypatch
):
    path = train(spec_of(outside), tmp_path)
    with pytest.raises(ValueError, match="--trust outside_layers"):
        load_checkpoint(path)
    checkpoint = load_checkpoint(path, (outside,))
    assert set(checkpoint.state) == {"low.down", "low.up", "fc.weight", "fc.bias"}
    assert set(checkpoint.input_ranges) == set(checkpoint.largest_inputs) == set(LOW)
    folder = tmp_path / "study"
    study = Study("outside", [path], ["pcm_like"], [1.0, 3600.0], n_chips=2, trust=(outside,))
    rows = collect(study, folder, jobs=1)
    assert set(rows["analog_share"]) == {1.0} and len(rows) == 4
    assert set(rows["n_correct_digital"]) == {checkpoint.n_correct_digital}
    audit = pd.read_csv(folder / "audit.csv").set_index("layer")
    assert list(audit.index) == LOW
    assert audit.loc["low.1", "reason"] == "rewritten from LowRank"
    assert audit.loc["low.1", "n_arrays"] == 1 and audit.loc["low.1", "input_range"] > 0
    stages = accuracy_by_stage(checkpoint, "pcm_like", 3600.0, chips=1)
    last = rows[(rows["t_inference_s"] == 3600.0) & (rows["chip"] == 0)]
    assert stages["accuracy"].iloc[-1] == float(
        (last["n_correct"] / last["n_images_per_chip"]).iloc[0]
    )
    layers = accuracy_by_layer(checkpoint, "pcm_like", 1.0, chips=1, n_test=50)
    assert list(layers["layer"]) == LOW
    script = f"""
        import importlib.util
        from analog_samson.report import write_report
        assert importlib.util.find_spec("outside_layers") is None
        write_report(folder={str(folder)!r})
    """
    monkeypatch.delenv("PYTHONPATH")
    subprocess.run([sys.executable, "-c", textwrap.dedent(script)], check=True)
    assert "rewritten from LowRank" in (folder / "report.html").read_text()


@pytest.mark.slow
def test_a_layer_kind_of_another_package_is_imported(outside, tmp_path):
    network = __import__(outside).Net()
    torch.save(network.state_dict(), tmp_path / "net.pth")
    script = ROOT / "experiments" / "import_checkpoint.py"
    out = str(tmp_path / "net.safetensors")
    names = ["--factory", f"{outside}:Net", "--rewrites", f"{outside}:low_rank"]
    command = [sys.executable, script, *names, "--state", tmp_path / "net.pth", "--out", out]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    assert "3 analog layers with 100.0 % of the weights" in done.stdout
    checkpoint = load_checkpoint(out, (outside,))
    assert checkpoint.spec.rewrites == (f"{outside}:low_rank",)
    rows = audit_rows("net", checkpoint, load_device("ideal"), "aihwkit")
    assert [row["reason"] for row in rows] == ["rewritten from LowRank"] * 2 + [""]


def test_what_is_trained_with_the_noise_of_arrays_is_the_original_layer(outside, tmp_path):
    network = __import__(outside).Net()
    rewriting = rewrite(network, [f"{outside}:low_rank"])
    names = [name for *_, name in trained_weights(rewriting)]
    assert names == ["low.down", "low.up", "fc.weight"]
    assert rewriting.network.low[0].weight is not network.low.down
    assert [n for *_, n in trained_weights(rewriting, ["low"])] == ["fc.weight"]
    microring = spec_of(outside, parametrisation="microring", epochs=1)
    state = load_checkpoint(train(microring, tmp_path), (outside,)).state
    assert set(state) == set(network.state_dict())
    noisy = spec_of(outside, method="hardware_aware", sigma=1.0, device="pcm_like", epochs=1)
    train(noisy, tmp_path)


def test_layers_kept_digital_need_no_rule(outside, tmp_path):
    kept = spec_of(outside, rewrites=(), keep_digital=("low.down", "low.up"))
    checkpoint = load_checkpoint(train(kept, tmp_path), (outside,))
    assert list(checkpoint.input_ranges) == ["fc"]


@pytest.mark.parametrize(
    ("rule", "message"),
    [
        ("wrong", r"layers 'low' \(LowRank\) rewritten does not compute .* differ by"),
        ("failing", r"rule 'outside_layers:failing' fails for layer 'low' .*AttributeError"),
        ("itself", "gives the module itself"),
        ("text", "gives a str for layer 'low'"),
        ("Net", "is a type; name an object of the class analog_samson.models.Rewrite"),
        ("nothing", "has no 'nothing'"),
    ],
)
def test_wrong_rules_are_one_sentence_before_anything_is_trained(
    rule, message, outside, tmp_path, monkeypatch
):
    monkeypatch.setattr(loop, "_train_epoch", None)
    with pytest.raises(ValueError, match=message):
        train(spec_of(outside, rewrites=[f"{outside}:{rule}"]), tmp_path)


def test_a_rule_that_is_wrong_is_found_at_a_chips_first_input(outside):
    chip = program(__import__(outside).Net(), "ideal", rewrites=[f"{outside}:wrong"])
    with pytest.raises(ValueError, match="does not compute"):
        chip(images(1, 1, 8, 8))
    chip = program(__import__(outside).Net(), "ideal")  # without its rule
    with pytest.raises(ValueError, match=r"'low' multiplies \(mm\) by .* \('low\.down'\)"):
        chip(images(1, 1, 8, 8))


@pytest.mark.parametrize("engine", ["aihwkit", "compiled"])
def test_a_layer_of_several_inputs_and_outputs_may_become_another_module(outside, engine):
    network, x = seeded(__import__(outside).Sequences), images(5, 1, 8, 8)
    options = {"engine": engine, "rewrites": [f"{outside}:recurrent"], "calibration": x}
    chip = program(network, "ideal", **options)
    torch.testing.assert_close(chip(x), network(x), rtol=1e-4, atol=1e-5)
    assert list(chip.weights()) == ["recurrent.from_input", "recurrent.from_state", "fc"]
    kept = program(network, "ideal", **options, keep_digital=["recurrent"])
    assert list(kept.weights()) == ["fc"]


class Twice(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(8, 6)

    def forward(self, x: Tensor) -> Tensor:
        return torch.stack([self.fc(x), self.fc(x)], 1)


@pytest.mark.parametrize("engine", ["aihwkit", "compiled"])
def test_every_use_of_a_layer_draws_its_noise_anew(engine):
    x = images(64, 8)
    out = program(seeded(Twice), "pcm_like", calibration=x, engine=engine)(x)
    assert (out[:, 0] != out[:, 1]).float().mean() > 0.5


def test_a_checkpoint_names_its_own_rules(outside, tmp_path):
    checkpoint = load_checkpoint(train(spec_of(outside, epochs=1), tmp_path), (outside,))
    with pytest.raises(ValueError, match="names its own rewrites"):
        program(checkpoint, "ideal", rewrites=[f"{outside}:wrong"])
    other = replace(checkpoint, spec=spec_of(outside, epochs=1, rewrites=[f"{outside}:wrong"]))
    assert other.digest != checkpoint.digest
    with pytest.raises(ValueError, match="does not compute"):
        other.build()


def test_a_rule_that_a_file_names_is_imported_with_consent_alone(tmp_path, monkeypatch):
    checkpoint = load_checkpoint(train(TrainingSpec(epochs=1), tmp_path))
    spec = TrainingSpec(epochs=1, rewrites=["elsewhere_too:rule"])
    path = save_checkpoint(tmp_path / "a.safetensors", replace(checkpoint, spec=spec))
    with pytest.raises(ValueError, match="--trust elsewhere_too"):
        load_checkpoint(path)
    monkeypatch.setenv(TRUST_VARIABLE, "elsewhere_too")
    with pytest.raises(ValueError, match="cannot be imported"):
        load_checkpoint(path).build()


def test_a_specification_without_rules_says_nothing_of_them():
    assert "rewrites" not in TrainingSpec().to_json()
    spec = TrainingSpec(rewrites=["a:b"])
    assert TrainingSpec.from_json(spec.to_json()) == spec
    for wrong in ("a:b", ["low_rank"], [1], None):
        with pytest.raises(ValueError, match="rewrites is a list of importable names"):
            TrainingSpec(rewrites=wrong)


def test_wrong_entries_are_refused():
    for kinds, build in (((int,), print), ([nn.Linear], print), ((), print), ((nn.Linear,), None)):
        with pytest.raises(ValueError, match="A Rewrite takes kinds"):
            Rewrite(kinds, build)


def test_a_weight_outside_layers_is_refused_before_anything_is_trained(
    outside, tmp_path, monkeypatch
):
    monkeypatch.setattr(loop, "_train_epoch", None)
    with pytest.raises(ValueError, match=r"multiplies \(mm\) by .* \('low\.down'\)"):
        train(spec_of(outside, rewrites=()), tmp_path)
