"""Methods from elsewhere: one file, named "module:name", from the training to the page."""

import json
import subprocess
import sys
import textwrap
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest
import torch

from analog_samson.checkpoint import TrainingSpec, load_checkpoint
from analog_samson.importing import TRUST_VARIABLE
from analog_samson.methods import METHODS, Appearance, Method, Option, method_of
from analog_samson.report.citations import bibtex
from analog_samson.report.methods import described_in
from analog_samson.report.style import method_style
from analog_samson.report.words import method_text
from analog_samson.study import Study, collect
from analog_samson.training import grid, loop, train

OUTSIDE = '''
import torch

from analog_samson.methods import Method, Option
from analog_samson.training import Algorithm


def ascent(weights, gradients, *, radius, only_matrices):
    chosen = {n: g for n, g in gradients.items() if g.ndim > 1 or not only_matrices}
    norm = sum(float(g.square().sum()) for g in chosen.values()) ** 0.5
    return {name: g * (radius / norm) for name, g in chosen.items()}


kick = Method(
    summary="Ascent along the gradient.",
    label="Kick & Run",
    step="two passes",
    build="outside_methods:ascent",
    strength="radius",
    symbol="r",
    options={"only_matrices": Option(False)},
    colour="#123456",
    marker="H",
    dashes=(2.0, 1.0),
    citation="@article{outside2026, title = {Kick and run}}",
)


def jitter(weights, gradients, *, size, generator):
    draws = {n: torch.randn(w.shape, generator=generator) for n, w in weights.items()}
    return {name: size * draw for name, draw in draws.items()}


jittered = Method(
    label="Jitter", step="one pass", build="outside_methods:jitter", strength="size"
)


def confidence(logits, labels):
    return logits.square().mean()


confident = Method(
    label="Confidence", step="loss", build="outside_methods:confidence", strength="weight"
)


class Momentum(Algorithm):
    """Moves the weights along the gradients of the steps before."""

    def __init__(self, setting, *, decay):
        self.decay, self.past = decay, {}

    def offsets(self, weights, gradients, *, strength, generator):
        assert not gradients  # of one pass there are none
        return {name: strength * past for name, past in self.past.items()}

    def before_update(self, gradients):
        keep = self.decay
        self.past = {n: g + keep * self.past.get(n, 0.0) for n, g in gradients.items()}

    def tensors(self):
        return {f"past.{name}": tensor for name, tensor in self.past.items()}

    def load(self, tensors):
        self.past = {name.removeprefix("past."): t for name, t in tensors.items()}


remembering = Method(
    label="Memory",
    step="one pass",
    build="outside_methods:Momentum",
    strength="push",
    options={"decay": Option(0.5, least=0.0, most=1.0)},
)

overwriting = Method(
    label="x", step="one pass", build="outside_methods:Overwriting", strength="push"
)


class Overwriting(Algorithm):
    def tensors(self):
        return {"model.fc1.weight": torch.zeros(1)}


no_rule = Method(label="x", step="loss", build="outside_methods:kick", strength="weight")
clashing = Method(
    label="x", step="loss", build="a:b", strength="weight", options={"lr": Option(0.1)}
)
'''

SHORT = {"model_kwargs": {"hidden": [16]}, "epochs": 3, "batch_size": 64}
METHODS_OUTSIDE = {
    "kick": {"radius": 0.05, "only_matrices": True},
    "jittered": {"size": 0.02},
    "confident": {"weight": 0.01},
    "remembering": {"push": 0.01, "decay": 0.9},
}


@pytest.fixture
def outside(tmp_path, monkeypatch) -> Path:
    """A folder with the module `outside_methods`, which can be imported from here."""
    folder = tmp_path / "elsewhere"
    folder.mkdir()
    (folder / "outside_methods.py").write_text(OUTSIDE)
    monkeypatch.syspath_prepend(folder)
    monkeypatch.setenv(TRUST_VARIABLE, "outside_methods")
    yield folder
    sys.modules.pop("outside_methods", None)


def spec_of(method, **changes):
    options = METHODS_OUTSIDE[method]
    return TrainingSpec(method=f"outside_methods:{method}", **{**SHORT, **options, **changes})


def test_a_rule_from_elsewhere_is_sam_where_it_has_its_formula(outside, tmp_path):
    ours = TrainingSpec(method="sam", rho=0.05, **SHORT)
    theirs = spec_of("kick", only_matrices=False)
    states = [load_checkpoint(train(spec, tmp_path)).state for spec in (ours, theirs)]
    for name, tensor in states[0].items():
        torch.testing.assert_close(states[1][name], tensor, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("method", METHODS_OUTSIDE)
def test_an_interrupted_training_from_elsewhere_ends_at_the_same_bytes(
    method, outside, tmp_path, monkeypatch
):
    spec = spec_of(method)
    whole = train(spec, tmp_path / "whole")
    strength = method_of(spec.method).strength
    zero = train(replace(spec, **{strength: 0.0}), tmp_path / "zero")
    assert load_checkpoint(zero).digest != load_checkpoint(whole).digest
    epoch_of = loop._train_epoch

    def interrupted(state, *rest):
        if state.epoch == 2:
            raise KeyboardInterrupt
        return epoch_of(state, *rest)

    monkeypatch.setattr(loop, "_train_epoch", interrupted)
    with pytest.raises(KeyboardInterrupt):
        train(spec, tmp_path / "parts")
    monkeypatch.setattr(loop, "_train_epoch", epoch_of)
    assert train(spec, tmp_path / "parts").read_bytes() == whole.read_bytes()


@pytest.mark.slow
def test_a_study_of_a_method_from_elsewhere_reaches_the_page(outside, tmp_path, monkeypatch):
    """The page is written where the module cannot be imported."""
    specs = grid(["sgd", "outside_methods:kick:radius=0.05"], [0], SHORT)
    paths = [train(spec, tmp_path / "networks") for spec in specs]
    assert paths[1].name == "digits-mlp-outside_methods_kick-radius=0.05-seed0.safetensors"
    folder = tmp_path / "study"
    study = Study("outside", paths, ["pcm_like"], [1.0, 3600.0], n_chips=2, n_test=64)
    rows = collect(study, folder)
    assert set(rows["method"]) == {"sgd", "outside_methods:kick"}
    assert set(rows["strength"]) == {"", "radius=0.05"}
    described = json.loads((folder / "manifest.json").read_text())["methods"]
    assert described["sgd"] == METHODS["sgd"].description
    script = f"""
        import importlib.util, sys
        from analog_samson.report import write_report
        assert importlib.util.find_spec("outside_methods") is None
        write_report(folder={str(folder)!r})
        assert "torch" not in sys.modules
    """
    monkeypatch.delenv("PYTHONPATH", raising=False)
    subprocess.run([sys.executable, "-c", textwrap.dedent(script)], check=True)
    page = (folder / "report.html").read_text()
    assert "Kick &amp; Run r = 0.05" in page
    assert "@article{outside2026, title = {Kick and run}}" in page
    assert "Kick & Run r = 0.05" in (folder / "accuracy.md").read_text()
    assert r"Kick \& Run r = 0.05" in (folder / "accuracy.tex").read_text()
    with described_in([folder]):
        assert method_style("outside_methods:kick") == ("#123456", "H")
        assert method_text("outside_methods:kick radius=0.05") == "Kick & Run r = 0.05"
    assert method_text("outside_methods:kick radius=0.05") == "kick radius = 0.05"
    assert "outside2026" not in bibtex(["outside_methods:kick"], {})


def test_the_header_of_a_method_from_elsewhere_holds_its_options_apart(outside):
    header = json.loads(spec_of("kick").to_json())
    assert header["options"] == {"radius": 0.05, "only_matrices": True}
    assert header.keys() - {"options"} == json.loads(TrainingSpec().to_json()).keys()
    assert TrainingSpec.from_json(json.dumps(header)) == spec_of("kick")


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"method": "outside_methods:kik"}, "Did you mean 'kick'"),
        ({"method": "outside_methods:ascent"}, "is a function; name an object of the class"),
        ({"method": "no_such_module:kick"}, "cannot be imported"),
        ({"method": "outside_methods:kick"}, "needs its strength radius"),
        ({"method": "outside_methods:kick", "radius": -1}, "radius must be finite and at least 0"),
        ({"method": "outside_methods:kick", "radius": "big"}, "radius must be finite"),
        ({"method": "outside_methods:kick", "radius": 1, "rho": 1}, "does not read rho"),
        ({"method": "outside_methods:kick", "radius": 1, "radios": 1}, "did you mean 'radius'"),
        ({"method": "outside_methods:clashing", "weight": 1}, "an option 'lr', which is an attr"),
        (
            {"method": "outside_methods:kick", "radius": 1, "only_matrices": "yes"},
            "only_matrices must be true or false; got 'yes'",
        ),
        (
            {"method": "outside_methods:remembering", "push": 1, "decay": 2},
            "decay must be finite and at least 0 and at most 1; got 2",
        ),
    ],
)
def test_wrong_specifications_are_refused_before_anything_is_trained(values, message, outside):
    with pytest.raises(ValueError, match=message):
        TrainingSpec(**values)


def test_a_method_that_is_built_from_no_rule_is_refused(outside, tmp_path):
    spec = TrainingSpec(method="outside_methods:no_rule", weight=1.0, **SHORT)
    with pytest.raises(ValueError, match="neither a function nor a class derived from"):
        train(spec, tmp_path)
    spec = TrainingSpec(method="outside_methods:overwriting", push=1.0, **SHORT)
    with pytest.raises(ValueError, match=r"'model\.fc1\.weight'; its name must not begin with"):
        train(spec, tmp_path)


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ({"step": "two steps", "build": "a:b", "strength": "r"}, "Unknown step of method 'x'"),
        ({"step": "loss", "build": "a:b"}, "every step but 'plain' needs a strength"),
        ({"build": "a:b"}, "'plain' has none"),
        ({"colour": "red"}, "write it as '#rrggbb'"),
        ({"marker": "?"}, "Unknown marker of method 'x'"),
        ({"dashes": (1.0,)}, "dashes and gaps in turn"),
        ({"label": ""}, "needs a label"),
        ({"label": 3}, "label of a method must be a text"),
    ],
)
def test_wrong_entries_are_refused(entry, message):
    with pytest.raises(ValueError, match=message):
        Method(**{"label": "x", **entry})


def test_a_manifest_that_describes_what_cannot_be_drawn_is_named(tmp_path):
    manifest = {"methods": {"a:b": {"label": "B", "colour": "red", "of a later version": 1}}}
    (tmp_path / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(ValueError, match=r"manifest\.json' cannot describe 'a:b'.*#rrggbb"):
        described_in([tmp_path]).__enter__()


def test_a_description_survives_json():
    for method in METHODS.values():
        again = Appearance(**json.loads(json.dumps(method.description)))
        assert again.description == method.description


def test_every_default_is_a_value_of_its_option():
    for method in METHODS.values():
        for name, option in method.options.items():
            assert option.checked(name, option.default) == option.default
    assert Option(1.0).checked("a", 2) == 2.0
    with pytest.raises(ValueError, match="a must be a whole number"):
        Option(1, least=1).checked("a", 1.5)
    with pytest.raises(ValueError, match="a must be a text"):
        Option("x").checked("a", 1)


def test_curves_of_a_method_from_elsewhere_carry_its_name(outside, tmp_path):
    from analog_samson.report import training_curves

    path = train(spec_of("kick"), tmp_path).with_suffix(".csv")
    curves = training_curves([path], ["outside_methods:kick"])
    assert set(curves["method"]) == {"outside_methods:kick"}
    assert isinstance(curves, pd.DataFrame)
