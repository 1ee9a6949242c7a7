"""Micro-rings: drift is a shift of the resonance, and zero drift changes nothing."""

import json
import shutil
from functools import lru_cache
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from analog_samson.experiments import micro_rings, rerun, thermal_drift
from torch import nn
from torch.func import functional_call
from torch.nn.utils import parametrize

from analog_samson.algorithm import Batch, Setting
from analog_samson.checkpoint import TrainingSpec, load_checkpoint
from analog_samson.data import Dataset, Split, load_dataset
from analog_samson.evaluation import count_correct
from analog_samson.perturbation import MicroRing
from analog_samson.provenance import environment
from analog_samson.report.style import style
from analog_samson.training import control_parameters, load_protocol, train

METHODS = "analog_samson.experiments.micro_rings"
RINGS = {"parametrisation": "microring", "optimizer": "adam", "weight_decay": 0.0, "lr": 0.01}
PLAN = {
    "drift": {"layers": ["fc2", "fc3"], "nm_per_K": 0.08, "temperatures_K": [0.0, -1.0, 1.0]},
    "transfer": {"n_devices": 2, "n_images": 100, "errors": [[0.0, 1.0], [0.02, 1.1]]},
}

PROTOCOL = f"""
seeds = [30, 31]
kept_seeds = [30]
grid_seed = 100
grid_epochs = 1
noise_sigma = 0.04
noise_draws = 2
curvature_images = 20

[drift]
layers = ["fc2", "fc3"]
nm_per_K = 0.08
temperatures_K = [0.0, -1.0]

[transfer]
n_devices = 2
n_images = 100
errors = [[0.02, 1.0]]

[common]
dataset = "digits"
model = "{METHODS}:lenet5_bn"
epochs = 1

[methods]
plain = "sgd"
sat = "sam:parametrisation=microring:optimizer=adam:weight_decay=0.0:lr=0.01:rho=0.1,0.2"
pruning = "{METHODS}:pruning:parametrisation=microring:optimizer=adam:lr=0.01:slope_weight=0.01"

[claims.gain]
claim = "SAT helps."
endpoint = "gain of sat over plain at -1 K"
"""


def spec_of(method="sgd", **changes):
    values = {"model": f"{METHODS}:lenet5_bn", "epochs": 1, "batch_size": 64, "method": method}
    return TrainingSpec(**{**values, **changes})


@lru_cache(maxsize=1)
def digits():
    return load_dataset("digits")


@pytest.fixture(scope="module")
def networks(tmp_path_factory):
    """A network of trained control parameters, and one of trained weights."""
    folder = tmp_path_factory.mktemp("rings")
    return {name: train(spec_of(seed=900, **how), folder / name)
            for name, how in (("control", RINGS), ("weights", {}))}  # fmt: skip


def digital(path):
    return load_checkpoint(path, ("analog_samson",)).n_correct_digital


def linear_rings(theta):
    """A linear network of one ring a weight, without a bias."""
    theta = torch.as_tensor(theta)
    model = nn.Sequential()
    model.add_module("fc", nn.Linear(theta.shape[1], theta.shape[0], bias=False))
    model.to(theta.dtype).eval()
    return thermal_drift.Rings(
        model, {"fc.weight": theta}, {"fc.weight": MicroRing()}, lambda images: images
    )


def test_a_shifted_ring_follows_the_lorentzian_line():
    """W = 1 - 2 / (1 + (theta / 0.15)^2); one kelvin is 0.08 nm, and the branches differ."""
    rings = linear_rings(torch.tensor([[0.15, -0.15, 0.05]], dtype=torch.float64))
    shifted = rings.weights({"fc.weight": 0.08 * -1.0})["fc.weight"][0]
    expected = [1 - 2 / (1 + (t / 0.15) ** 2) for t in (0.07, -0.23, -0.03)]
    assert shifted.tolist() == pytest.approx(expected, rel=1e-12)
    wide = rings.weights({"fc.weight": 0.0}, width=2.0)["fc.weight"][0]
    assert wide.tolist() == pytest.approx(
        [1 - 2 / (1 + (t / 0.3) ** 2) for t in (0.15, 0.15, 0.05)]
    )


@pytest.mark.slow
def test_without_drift_control_parameters_give_the_digital_network(networks):
    for mapping in ("as trained", "one branch"):
        rings = thermal_drift.on_rings(networks["control"], mapping)
        saved = load_checkpoint(networks["control"], ("analog_samson",)).state
        again = rings.weights(dict.fromkeys(rings.theta, 0.0))
        assert len(again) == 5
        for name, weight in again.items():
            assert torch.equal(weight, saved[name])
        rows = thermal_drift.drift_rows(rings, PLAN, digits().test)
        assert rows[0] == {
            "dT_K": 0.0, "n_correct": digital(networks["control"]), "n_images": 359
        }  # fmt: skip


@pytest.mark.slow
def test_trained_weights_come_back_from_their_rings(networks):
    saved = load_checkpoint(networks["weights"], ("analog_samson",)).state
    for mapping in ("as trained", "layer scaled"):
        rings = thermal_drift.on_rings(networks["weights"], mapping)
        for name, weight in rings.weights(dict.fromkeys(rings.theta, 0.0)).items():
            largest = float(saved[name].abs().max())
            kept = 0.999 * (largest if mapping == "layer scaled" else 1.0)
            torch.testing.assert_close(weight, saved[name].clamp(-kept, kept), rtol=0, atol=1e-6)
        assert all((theta > 0).all() for theta in rings.theta.values())


@pytest.mark.slow
def test_counts_are_those_of_a_network_with_the_shifted_weights(networks):
    rings = thermal_drift.on_rings(networks["control"])
    names = ["fc2.weight", "fc3.weight"]
    found = thermal_drift.drift_rows(rings, PLAN, digits().test)
    for row in found:
        weights = {n: MicroRing()(rings.theta[n] + 0.08 * row["dT_K"]) for n in names}
        whole = count_correct(
            lambda x, _, weights=weights: functional_call(rings.model, weights, (x,)),
            digits().test.images,
            digits().test.labels,
            rings.normalise,
        )
        assert row["n_correct"] == whole
    assert len({row["n_correct"] for row in found}) > 1


@pytest.mark.slow
def test_devices_without_an_error_are_the_model(networks):
    rings = thermal_drift.on_rings(networks["control"])
    rows = pd.DataFrame(thermal_drift.transfer_rows(rings, PLAN, digits().test, 900))
    assert list(rows["device"]) == ["", "0", "1", "0", "1"]
    assert rows["n_correct"][:3].nunique() == 1 and (rows["n_images"] == 100).all()
    again = pd.DataFrame(thermal_drift.transfer_rows(rings, PLAN, digits().test, 900))
    pd.testing.assert_frame_equal(rows, again)


def test_drift_of_a_layer_without_rings_is_refused():
    plan = {"drift": {**PLAN["drift"], "layers": ["fc9"]}}
    part = Split(torch.zeros(2, 3), torch.tensor([0, 1]))
    with pytest.raises(ValueError, match=r"No layers \['fc9'\] .* allowed in \[drift\]: fc\."):
        thermal_drift.drift_rows(linear_rings(torch.ones(2, 3)), plan, part)


@pytest.mark.slow
@pytest.mark.parametrize(("name", "mapping"), [("weights", "one branch"), ("control", "linear")])
def test_impossible_mappings_are_refused(networks, name, mapping):
    with pytest.raises(ValueError, match="is not possible for .*; allowed: as trained, "):
        thermal_drift.on_rings(networks[name], mapping)


@pytest.mark.slow
def test_missing_and_foreign_control_parameters_are_refused(networks, tmp_path):
    path = Path(shutil.copy(networks["control"], tmp_path / "mine.safetensors"))
    with pytest.raises(FileNotFoundError, match=r"no control parameters .*mine\.control"):
        control_parameters(path, ("analog_samson",))
    shutil.copy(networks["control"].with_suffix(".control"), path.with_suffix(".control"))
    assert control_parameters(path, ("analog_samson",))
    shutil.copy(networks["weights"], path)
    with pytest.raises(ValueError, match="belong to another network"):
        control_parameters(path, ("analog_samson",))


def test_curvature_is_the_hessian_over_control_parameters():
    """Against the exact Hessian of two rings a class, by autograd and numpy."""
    torch.manual_seed(0)
    theta = 0.3 * torch.randn(3, 4, dtype=torch.float64)
    images, labels = torch.randn(30, 4, dtype=torch.float64), torch.randint(3, (30,))
    part = Split(images, labels)
    dataset = Dataset("own", ("0", "1", "2"), part, part, part, 1.0, (0.0,), (1.0,))

    def loss(flat):
        weights = 1 - 2 / (1 + (flat.view(3, 4) / 0.15) ** 2)
        return nn.functional.cross_entropy(images @ weights.T, labels)

    hessian = torch.autograd.functional.hessian(loss, theta.reshape(-1)).numpy()
    found = thermal_drift.curvature(linear_rings(theta), dataset, 30)
    assert found == pytest.approx(np.linalg.eigvalsh(hessian)[-1], rel=1e-3)


def test_generic_noise_of_zero_is_the_accuracy_itself():
    theta = torch.randn(3, 4, generator=torch.Generator().manual_seed(0))
    part = Split(
        torch.randn(20, 4, generator=torch.Generator().manual_seed(1)), torch.arange(20) % 3
    )
    rings = linear_rings(theta)
    clean = float(((part.images @ MicroRing()(theta).T).argmax(1) == part.labels).double().mean())
    kwargs = {"draws": 2, "training_seed": 1}
    assert thermal_drift.noisy_accuracy(rings, part, sigma_nm=0.0, **kwargs) == clean
    assert thermal_drift.noisy_accuracy(rings, part, sigma_nm=5.0, **kwargs) != clean


def setting_of(model, analog=("fc.weight",)):
    return Setting(model, frozenset(analog), 10, 3, 1, torch.device("cpu"))


def test_the_penalty_is_the_norm_of_the_slopes():
    """Against dW/dtheta by autograd, and its gradient against finite differences."""
    model = nn.Sequential()
    model.add_module("fc", nn.Linear(4, 3).double())
    parametrize.register_parametrization(model.fc, "weight", MicroRing())
    theta = model.fc.parametrizations["weight"].original
    theta.data.copy_(0.2 * torch.randn(3, 4, generator=torch.Generator().manual_seed(0)))
    penalty = micro_rings.Steepness(setting_of(model))
    none = Batch(torch.zeros(0), torch.zeros(0), torch.zeros(0))

    at = theta.detach().clone().requires_grad_()
    (slopes,) = torch.autograd.grad(MicroRing()(at).sum(), at)
    value = penalty.penalty(none, torch.zeros(0), 0)
    assert value.item() == pytest.approx(float(slopes.norm()), rel=1e-12)
    (gradient,) = torch.autograd.grad(value, theta)
    for index in ((0, 0), (1, 2), (2, 3)):
        ends = []
        for step in (1e-6, -1e-6):
            with torch.no_grad():
                theta[index] += step
                ends.append(penalty.penalty(none, torch.zeros(0), 0).item())
                theta[index] -= step
        assert float(gradient[index]) == pytest.approx((ends[0] - ends[1]) / 2e-6, rel=1e-5)


def test_pruning_needs_micro_rings():
    with pytest.raises(ValueError, match="add parametrisation='microring'"):
        micro_rings.Steepness(setting_of(nn.Sequential(nn.Linear(4, 3))))


def test_lenet_of_other_images_is_refused():
    with pytest.raises(ValueError, match="28 x 28 or 8 x 8 pixels; got"):
        micro_rings.lenet5_bn((1, 32, 32), 10)


@pytest.mark.slow
def test_weights_under_noise_stay_in_the_range_of_a_ring(tmp_path):
    spec = spec_of(f"{METHODS}:noise_injection", sigma=3.0, lr=2.0)
    state = load_checkpoint(train(spec, tmp_path), ("analog_samson",)).state
    assert float(state["fc2.weight"].abs().max()) == pytest.approx(0.999)
    with pytest.raises(ValueError, match="acts on weights"):
        spec_of(f"{METHODS}:noise_injection", sigma=3.0, parametrisation="microring")


@pytest.mark.slow
def test_pruning_makes_rings_flatter(tmp_path):
    slopes = []
    for weight in (0.0, 0.1):
        spec = spec_of(f"{METHODS}:pruning", slope_weight=weight, epochs=3, **RINGS)
        theta = control_parameters(train(spec, tmp_path), ("analog_samson",))
        slopes.append(sum(float(MicroRing().slope(t).norm()) for t in theta.values()))
    assert slopes[1] < slopes[0]


def assert_table_is_of(table, rows, curvature):
    """Means and eigenvalues of the table again, by numpy."""
    rows = rows.assign(accuracy=rows["n_correct"] / rows["n_images"])
    for (mapping, variant, dT), own in rows.groupby(["mapping", "variant", "dT_K"]):
        is_own = (table["variant"] == variant) & (table["at"] == str(dT))
        (row,) = table[is_own & (table["table"] == f"accuracy [%], {mapping}")].to_dict("records")
        assert row["n_networks"] == 2
        assert row["value"] == pytest.approx(np.mean(own["accuracy"]))
        half = 12.70620474 * np.std(own["accuracy"], ddof=1) / 2**0.5
        assert row["value_high"] - row["value"] == pytest.approx(half, abs=1e-9)
    for variant, own in curvature.groupby("variant"):
        (row,) = table[(table["table"] == "curvature") & (table["variant"] == variant)].to_dict(
            "records"
        )
        eigenvalues = own["hessian_eigenvalue"]
        expected = np.exp(np.mean(np.log(eigenvalues))) if (eigenvalues > 0).all() else np.nan
        assert row["value"] == pytest.approx(expected, nan_ok=True)


@pytest.mark.slow
def test_a_study_is_resumed_network_by_network_and_verified(tmp_path, capsys):
    whole, parts = tmp_path / "whole" / "rings", tmp_path / "parts" / "rings"
    for folder in (whole, parts):
        folder.mkdir(parents=True)
        (folder / "protocol.toml").write_text(PROTOCOL)
    thermal_drift.main(whole, networks=tmp_path / "a")
    for step in range(10):
        thermal_drift.main(parts, networks=tmp_path / "b", steps=1)
        assert len(pd.read_csv(parts / "candidates.csv")) == min(step + 1, 4)
    for name in (thermal_drift.DRIFT, "curvature.csv", "transfer.csv", "strengths.csv"):
        assert (parts / name).read_bytes() == (whole / name).read_bytes()
    rows = pd.read_csv(whole / thermal_drift.DRIFT)
    assert len(rows) == 6 * 2 * 2 and set(rows["variant"]) == {"plain", "sat", "pruning"}
    assert set(rows["training_seed"]) == {30, 31}
    assert not rows.duplicated(["variant", "training_seed", "mapping", "dT_K"]).any()

    manifest = json.loads((whole / "manifest.json").read_text())
    digests = set(pd.read_csv(whole / "networks.csv")["digest"])
    assert {one["digest"] for one in manifest["checkpoints"].values()} == digests
    assert len(digests) == 6 and manifest["environments"] == [environment()]
    protocol = load_protocol(whole)
    assert manifest["claims"] == protocol["claims"] and manifest["claims"]
    assert manifest["protocol"] == {key: protocol[key] for key in thermal_drift.EVALUATED_WITH}
    (parts / "protocol.toml").write_text(PROTOCOL.replace("nm_per_K = 0.08", "nm_per_K = 0.8"))
    with pytest.raises(ValueError, match=r"evaluated with other .*drift.nm_per_K: 0.08 and 0.8"):
        thermal_drift.main(parts, networks=tmp_path / "b")
    (parts / "protocol.toml").write_text(PROTOCOL.replace("\nepochs = 1", "\nepochs = 2"))
    with pytest.raises(ValueError, match="trained with other settings .*epochs 1 there, 2 asked"):
        thermal_drift.main(parts, networks=tmp_path / "b")

    thermal_drift.main(whole, figure=True)
    thermal_drift.main(whole, verify=True)
    rerun.main(whole, verify=True)
    said = capsys.readouterr().out
    assert said.count("12 rows of 3 networks again: 12 equal") == 2 and "3 tables unchanged" in said
    table = pd.read_csv(whole / "micro_rings.csv", dtype={"at": str})
    assert_table_is_of(table, rows, pd.read_csv(whole / "curvature.csv"))
    text = (whole / "micro_rings.md").read_text()
    (whole / "micro_rings.md").write_text(text + "\n")
    with pytest.raises(ValueError, match=r"tables differ: micro_rings\.md\. Restore the rows"):
        thermal_drift.main(whole, verify=True)
    rows["n_correct"] = (rows["n_correct"] - 50).abs()
    rows.to_csv(whole / thermal_drift.DRIFT, index=False)
    with pytest.raises(ValueError, match="not those of the networks"):
        thermal_drift.verified(whole)
    shutil.rmtree(whole / "networks")
    with pytest.raises(ValueError, match="no networks are committed"):
        thermal_drift.verified(whole)


@pytest.mark.slow
def test_a_network_of_another_package_needs_trust(tmp_path, monkeypatch):
    (tmp_path / "own_rings.py").write_text(
        f"from {METHODS} import lenet5_bn\n"
        "def net(image_shape, n_classes):\n    return lenet5_bn(image_shape, n_classes)\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    folder = tmp_path / "rings"
    folder.mkdir()
    own = PROTOCOL.replace(f"{METHODS}:lenet5_bn", "own_rings:net")
    own = own.replace("grid_seed = 100\ngrid_epochs = 1\n", "").replace("0.1,0.2", "0.1")
    (folder / "protocol.toml").write_text(own)
    with pytest.raises(ValueError, match="own_rings"):
        thermal_drift.main(folder, networks=tmp_path / "a")
    thermal_drift.main(folder, networks=tmp_path / "a", steps=2, trust=("own_rings",))
    assert len(pd.read_csv(folder / "networks.csv")) == 2
    said = thermal_drift.verified(folder, trust=("own_rings",))
    assert "8 rows of 2 networks again: 8 equal" in said


def test_the_figure_shows_means_and_intervals_of_networks():
    """Three networks with 1, 2 and 3 of 100 images right: 2 +- 4.303 / sqrt(3) per cent."""
    rows = pd.DataFrame(
        [
            {"variant": variant, "training_seed": seed, "mapping": mapping, "dT_K": dT,
             "n_correct": seed, "n_images": 100}
            for variant in ("plain", "sat") for seed in (1, 2, 3) for dT in (-1.0, 0.0)
            for mapping in ("as trained", "one branch" if variant == "sat" else "layer scaled")
        ]
    )  # fmt: skip
    with style():
        figure = thermal_drift.drift_figure(rows)
    trained, _ = figure.axes
    titles = [ax.get_title(loc="left") or ax.get_title() for ax in figure.axes]
    assert titles == ["as trained", "layer scaled or one branch"]
    for ax in figure.axes:
        assert len(ax.containers) == 2
        (bars,) = ax.containers[0].lines[2]
        (low, high), _ = (segment[:, 1] for segment in bars.get_segments())
        assert [low, high] == pytest.approx([2 - 4.30265 / 3**0.5, 2 + 4.30265 / 3**0.5], abs=1e-4)
    published = [tuple(offset) for one in trained.collections for offset in one.get_offsets()]
    assert (-1.0, 98.0) in published and (-1.0, 60.0) in published


def test_batch_statistics_are_those_of_a_hundred_images_and_are_not_stored():
    model = micro_rings.lenet5_bn((1, 8, 8), 10).eval()
    names = ("fc2.weight", "fc3.weight")
    weights = {name: model.state_dict()[name].clone() for name in names}
    theta = {name: MicroRing().right_inverse(weight) for name, weight in weights.items()}
    rings = thermal_drift.Rings(model, theta, dict.fromkeys(names, MicroRing()), lambda x: x)
    draws = torch.Generator().manual_seed(0)
    part = Split(torch.rand(200, 1, 8, 8, generator=draws), torch.randint(10, (200,)))
    before = {name: buffer.clone() for name, buffer in model.named_buffers()}
    rows = thermal_drift.batch_statistics_rows(rings, PLAN, part)
    by_hand = micro_rings.lenet5_bn((1, 8, 8), 10).train()
    by_hand.load_state_dict(model.state_dict())
    for row in rows:
        shift = 0.08 * row["dT_K"]
        state = {name: MicroRing()(theta[name] + shift) for name in names}
        by_hand.load_state_dict(state, strict=False)
        logits = torch.cat([by_hand(images) for images in part.images.split(100)])
        assert row["n_correct"] == int((logits.argmax(-1) == part.labels).sum())
    for name, buffer in model.named_buffers():
        if "num_batches" not in name:
            assert torch.equal(buffer, before[name])
