"""Checkpoints: round trip, digest of the contents, and errors for what does not fit."""

import json
import math
import os
from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from places import GOLDEN
from safetensors.torch import save_file

from analog_samson.checkpoint import (
    METHODS,
    Checkpoint,
    TrainingSpec,
    load_checkpoint,
    read_tensors,
    save_checkpoint,
    write_tensors,
)
from analog_samson.chip import load_chip, program
from analog_samson.files import replacing
from analog_samson.importing import TRUST_VARIABLE
from analog_samson.models import build_model
from analog_samson.study import Study, collect, load_study
from analog_samson.training import train, train_grid

FROZEN = json.loads((GOLDEN / "checkpoints.json").read_text())


def spec_of(method, **changes):
    strength = METHODS[method].strength
    return TrainingSpec(method=method, **({strength: 0.5} if strength else {}), **changes)


def checkpoint(**changes):
    values = {
        "spec": TrainingSpec(model_kwargs={"hidden": [8]}),
        "state": build_model(
            "mlp", image_shape=(1, 8, 8), n_classes=10, seed=0, hidden=[8]
        ).state_dict(),
        "input_ranges": {"fc1": 2.5, "fc2": 1.25},
        "n_correct_digital": 340,
        "n_test": 360,
        "image_shape": (1, 8, 8),
        "n_classes": 10,
        "mean": (0.3,),
        "std": (0.37,),
        "class_names": tuple("0123456789"),
        "made_with": {"torch": "2"},
    }
    return Checkpoint(**{**values, **changes})


def test_what_is_saved_is_loaded(tmp_path):
    saved = checkpoint()
    loaded = load_checkpoint(save_checkpoint(tmp_path / "deeper" / "a.safetensors", saved))
    assert loaded.spec == saved.spec
    assert {n: t.tolist() for n, t in loaded.state.items()} == {
        n: t.tolist() for n, t in saved.state.items()
    }
    assert replace(loaded, state={}) == replace(saved, state={})
    assert [path.name for path in (tmp_path / "deeper").iterdir()] == ["a.safetensors"]


def test_the_old_name_of_the_size_of_the_test_split_works_and_warns(tmp_path):
    now = checkpoint()
    with pytest.warns(FutureWarning, match="Checkpoint.n_images is now named Checkpoint.n_test"):
        assert now.n_images == now.n_test == 360
    values = {name: getattr(now, name) for name in vars(now) if name != "n_test"}
    with pytest.warns(FutureWarning, match="Argument 'n_images' of Checkpoint"):
        assert Checkpoint(**values, n_images=360) == now


def test_built_network_is_the_saved_one_in_eval_mode(tmp_path):
    saved = checkpoint()
    before = torch.get_rng_state()
    model = load_checkpoint(save_checkpoint(tmp_path / "a.safetensors", saved)).build()
    assert not model.training
    assert torch.equal(torch.get_rng_state(), before)
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, saved.state[name])


def test_digest_is_of_the_contents_and_not_of_the_path(tmp_path):
    saved = checkpoint()
    moved = replace(saved, spec=replace(saved.spec, start_from="/elsewhere.safetensors"))
    other_machine = replace(saved, made_with={"torch": "3"})
    for same in (moved, other_machine):
        assert same.digest == saved.digest
    path = save_checkpoint(tmp_path / "a.safetensors", saved)
    assert load_checkpoint(path).digest == saved.digest
    state = {name: tensor.clone() for name, tensor in saved.state.items()}
    state["fc1.bias"][0] += 1e-6
    changed = [
        replace(saved, state=state),
        replace(saved, input_ranges={"fc1": 2.5, "fc2": 1.0}),
        replace(saved, spec=replace(saved.spec, seed=1)),
        replace(saved, mean=(0.31,)),
    ]
    assert len({saved.digest, *(other.digest for other in changed)}) == 5


def test_weights_that_are_not_numbers_are_refused():
    state = dict(checkpoint().state)
    state["fc1.bias"] = torch.full_like(state["fc1.bias"], math.nan)
    with pytest.raises(ValueError, match=r"'fc1\.bias' holds NaN"):
        checkpoint(state=state)


def test_weights_that_do_not_fit_are_named():
    other = TrainingSpec(model_kwargs={"hidden": [9]})
    with pytest.raises(ValueError, match=r"do not fit the model 'mlp'.*\(8, 64\) instead of"):
        checkpoint(spec=other).build()
    state = dict(checkpoint().state)
    del state["fc2.bias"]
    with pytest.raises(ValueError, match=r"without fc2\.bias"):
        checkpoint(state=state).build()


def test_missing_foreign_and_damaged_files_are_told_apart(tmp_path):
    with pytest.raises(FileNotFoundError, match="no checkpoint"):
        load_checkpoint(tmp_path / "none.safetensors")
    foreign = tmp_path / "foreign.safetensors"
    save_file({"a": torch.zeros(1)}, foreign)
    with pytest.raises(ValueError, match="no readable checkpoint"):
        load_checkpoint(foreign)
    path = save_checkpoint(tmp_path / "a.safetensors", checkpoint())
    path.write_bytes(path.read_bytes()[:-10])
    with pytest.raises(ValueError, match="no readable checkpoint"):
        load_checkpoint(path)
    path.write_bytes(b"")
    with pytest.raises(ValueError, match="no readable checkpoint"):
        load_checkpoint(path)


def test_failed_write_leaves_the_old_file_and_nothing_else(tmp_path, monkeypatch):
    path = save_checkpoint(tmp_path / "a.safetensors", checkpoint())
    before = path.read_bytes()

    def full(*args, **kwargs):
        raise OSError("No space left on device")

    monkeypatch.setattr("analog_samson.checkpoint.files.save_file", full)
    with pytest.raises(OSError, match="No space"):
        save_checkpoint(path, checkpoint(n_correct_digital=1))
    assert path.read_bytes() == before
    assert len(list(tmp_path.iterdir())) == 1


def test_tied_tensors_can_be_saved(tmp_path):
    tied = torch.ones(4, 4)
    saved = checkpoint(state={"a.weight": tied, "b.weight": tied.t()})
    loaded = load_checkpoint(save_checkpoint(tmp_path / "a.safetensors", saved))
    assert loaded.digest == saved.digest


@given(
    st.sampled_from(list(METHODS)),
    st.floats(0, 100, allow_nan=False),
    st.integers(0, 2**40),
    st.sampled_from(["constant", "quadratic"]),
)
def test_specification_survives_json(method, strength, seed, schedule):
    name = METHODS[method].strength
    spec = TrainingSpec(
        method=method, seed=seed, schedule=schedule, **({name: strength} if name else {})
    )
    assert TrainingSpec.from_json(spec.to_json()) == spec
    json.loads(spec.to_json(), parse_constant=pytest.fail)


def test_method_fills_in_its_own_values():
    assert spec_of("samson").p == math.inf
    assert spec_of("samson").eta == 0.01
    assert spec_of("rwp").noise_scale == "filter_max"
    assert spec_of("noise_injection").clip_weights == 2.0
    assert spec_of("sgd").options == {}
    assert spec_of("rwp").reestimate_batch_norm
    assert not spec_of("rwp", perturbed_share=0.5).reestimate_batch_norm
    assert not spec_of("sam").reestimate_batch_norm


def test_whole_and_floating_numbers_are_one_specification():
    whole, floating = TrainingSpec(method="sam", rho=1), TrainingSpec(method="sam", rho=1.0)
    assert whole.to_json() == floating.to_json()


@pytest.mark.parametrize(
    ("values", "strength", "stem"),
    [
        ({}, "", "digits-mlp-sgd-seed0"),
        ({"method": "sam", "rho": 0.05}, "rho=0.05", "digits-mlp-sam-rho=0.05-seed0"),
        (
            {"method": "samson", "rho": 0.2, "p": 2, "schedule": "quadratic", "seed": 3},
            "rho=0.2 p=2 quadratic",
            "digits-mlp-samson-rho=0.2,p=2,quadratic-seed3",
        ),
        ({"model": "my.nets:small"}, "", "digits-my.nets_small-sgd-seed0"),
        ({"start_from": "/x/y.safetensors"}, "fine-tuned", "digits-mlp-sgd-finetuned-seed0"),
        (
            {"method": "sam", "rho": 0.05, "start_from": "/x/y.safetensors"},
            "rho=0.05 fine-tuned",
            "digits-mlp-sam-rho=0.05-finetuned-seed0",
        ),
        ({"method": "external"}, "", "digits-mlp-external-seed0"),
    ],
)
def test_strength_and_file_name_distinguish_trainings(values, strength, stem):
    spec = TrainingSpec(**values)
    assert spec.strength == strength
    assert spec.file_stem == stem


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"method": "sammson", "rho": 1.0}, r"Unknown method 'sammson'; did you mean 'samson'"),
        ({"method": "sam"}, "needs its strength rho"),
        ({"method": "sam", "rho": -1.0}, r"rho must be finite and at least 0; got -1\.0"),
        ({"method": "sam", "rho": math.nan}, "rho must be finite"),
        ({"method": "sam", "rho": 1.0, "sigma": 1.0}, r"'sam' does not read sigma"),
        ({"method": "sam", "rho": 1.0, "p": 2}, r"'sam' does not read p "),
        ({"schedule": "qadratic"}, "did you mean 'quadratic'"),
        ({"method": "rwp", "sigma": 0.1, "noise_scale": "max"}, "Unknown noise_scale"),
        ({"method": "sam", "rho": 1.0, "batch_size": 10, "m_sharpness": 20}, "multiple of m_sharp"),
        ({"m_sharpness": 32}, "perturbs no weights"),
        ({"accumulation": 3}, "accumulation must divide the 128"),
        ({"batch_size": 0}, "batch_size must be a whole number of at least 1"),
        ({"epochs": 1.5}, "epochs must be a whole number"),
        ({"lr": math.inf}, "lr must be finite"),
        ({"optimizer": "addam"}, "did you mean 'adam'"),
        ({"model_kwargs": {"act": torch.nn.ReLU}}, "model_kwargs must hold only what JSON can"),
        ({"parametrisation": "microring", "clip_weights": 2.0}, "only control parameters"),
        ({"method": "hardware_aware", "sigma": 1.0, "parametrisation": "microring"}, "acts on w"),
        ({"device": "pcm_like"}, "'sgd' does not read device"),
        ({"device_time_s": 1.0}, "'sgd' does not read device_time_s"),
        ({"validation_fraction": 0.0}, "validation_fraction must lie between"),
    ],
)
def test_wrong_specifications_are_refused(values, message):
    with pytest.raises(ValueError, match=message):
        TrainingSpec(**values)


@pytest.mark.parametrize("frozen", FROZEN, ids=lambda frozen: str(frozen["arguments"]))
def test_header_and_digest_of_a_training_never_change(frozen, tmp_path):
    """Written by version 0.1.0: rows of studies name their networks by these digests."""
    state = {"fc1.weight": torch.arange(6.0).view(2, 3) / 8, "fc1.bias": torch.tensor([1, -1])}
    path = write_tensors(tmp_path / "then.safetensors", state, frozen["header"])
    then = load_checkpoint(path)
    spec = TrainingSpec(**frozen["arguments"])
    assert then.spec == spec
    assert then.digest == frozen["digest"]
    for name in ("file_stem", "gradient_evaluations"):
        assert getattr(spec, name) == frozen[name]
    assert spec.strength == frozen["strength"] + (" fine-tuned" if spec.start_from else "")
    now = save_checkpoint(tmp_path / "now.safetensors", replace(then, spec=spec))
    assert now.read_bytes() == path.read_bytes()


def test_keys_of_another_version_are_refused():
    with pytest.raises(ValueError, match="did you mean 'epochs'"):
        TrainingSpec.from_json('{"epoch": 3}')


def test_a_digest_is_the_same_in_every_version_of_this_package():
    """Stored once: rows of a study name their networks by it. New fields must not change it."""
    state = {name: torch.zeros_like(tensor) for name, tensor in checkpoint().state.items()}
    assert replace(checkpoint(), state=state).digest[:16] == "b301b929ae32398d"


OLD_CHECKPOINT = GOLDEN / "digits-mlp-format1.safetensors"


def test_a_checkpoint_of_an_earlier_version_loads_with_its_digest():
    """Written once by `train` of version 0.1.0; chips of committed studies carry such digests."""
    found = load_checkpoint(OLD_CHECKPOINT)
    assert found.digest == "159287cf5c204813cc7cdc34f87da32a4fc9365983fa41eeb5cf7c9844479e52"
    assert found.spec == TrainingSpec(
        method="samson", rho=0.5, epochs=1, model_kwargs={"hidden": [4]}, seed=3
    )
    assert found.n_correct_digital == 36
    assert [p.numel() for p in found.build().parameters()] == [256, 4, 40, 10]


def with_header(path, **changes):
    """The golden checkpoint with another header; a value of None drops the key."""
    tensors, header = read_tensors(OLD_CHECKPOINT)
    spec = json.loads(header["spec"]) | changes.pop("in_spec", {})
    header = {**header, "spec": json.dumps(spec), **changes}
    header = {key: value for key, value in header.items() if value is not None}
    save_file(tensors, path, metadata={"analog_samson": json.dumps(header)})
    return path


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"input_ranges": {"fc1": -1.0, "fc2": 1.0}}, r"input_ranges\.fc1 = -1\.0 is not allowed"),
        ({"input_ranges": {"fc1": 1e-300, "fc2": 1.0}}, r"fc1 = 1e-300 .*greater than or equal to"),
        ({"input_ranges": {"fc1": 1e300, "fc2": 1.0}}, r"fc1 = 1e\+300 .*less than 10{30}"),
        ({"input_ranges": {"fc1": 0.0, "fc2": 1.0}}, r"input_ranges\.fc1 = 0\.0 is not allowed"),
        ({"input_ranges": {"fc1": math.nan, "fc2": 1.0}}, r"input_ranges\.fc1 = nan is not"),
        ({"input_ranges": {"fc1": math.inf, "fc2": 1.0}}, r"input_ranges\.fc1 = inf is not"),
        ({"input_ranges": {"fc1": True, "fc2": 1.0}}, r"input_ranges\.fc1 = True is not"),
        ({"input_ranges": {"fc1": "1", "fc2": 1.0}}, r"input_ranges\.fc1 = '1' is not"),
        ({"largest_inputs": {"fc1": 1.0}}, "must name the layers that input_ranges names"),
        ({"mean": [math.nan]}, r"mean\.0 = nan is not allowed"),
        ({"mean": [0.1, 0.2]}, r"one number for each of 1 channel\(s\); they hold 2 and 1"),
        ({"mean": None}, "key 'mean' is missing"),
        ({"std": [0.0]}, r"std\.0 = 0\.0 is not allowed.*greater than or equal to"),
        ({"std": "0.3"}, "std = '0.3' is not allowed"),
        ({"n_images": 0}, "n_images = 0 is not allowed"),
        ({"n_images": 5}, "n_correct_digital = 36 must be at most n_images = 5"),
        ({"n_classes": "10"}, "n_classes = '10' is not allowed"),
        ({"n_classes": 11}, "class_names must hold n_classes = 11 names; it holds 10"),
        ({"image_shape": []}, r"image_shape = \[\] is not allowed"),
        ({"made_by": "me"}, "key 'made_by' is unknown"),
        ({"spec": "[]"}, r"must be a JSON object; got '\[\]'"),
        ({"spec": "nul"}, "is not JSON"),
        ({"in_spec": {"lr": True}}, "lr = True is not allowed"),
        ({"in_spec": {"epochs": "3"}}, "epochs = '3' is not allowed"),
        ({"in_spec": {"keep_digital": "fc1"}}, "keep_digital = 'fc1' is not allowed"),
        ({"in_spec": {"mehtod": "sgd"}}, "key 'mehtod' is unknown"),
        ({"in_spec": {"lr": -1.0}}, "lr must be finite and at least 0"),
        ({"format_version": True}, "its version is True"),
        ({"format_version": 2}, "its version is 2"),
    ],
)
def test_a_header_is_checked_whole_when_the_file_is_opened(changes, message, tmp_path):
    path = with_header(tmp_path / "net.safetensors", **changes)
    with pytest.raises(ValueError, match=message) as caught:
        load_checkpoint(path)
    assert repr(str(path)) in str(caught.value)


@pytest.mark.parametrize("header", ["null", "[1]", "3", "{", '"spec"', "[" * 100_000])
def test_a_header_that_is_no_object_is_one_sentence(header, tmp_path):
    path = tmp_path / "net.safetensors"
    save_file({"a": torch.zeros(1)}, path, metadata={"analog_samson": header})
    with pytest.raises(ValueError, match="no readable checkpoint") as caught:
        load_checkpoint(path)
    assert repr(str(path)) in str(caught.value)


def test_a_checkpoint_in_memory_obeys_the_same_rules():
    with pytest.raises(ValueError, match=r"input_ranges\.fc1 = -2\.5 is not allowed"):
        checkpoint(input_ranges={"fc1": -2.5, "fc2": 1.25})


def test_weights_and_options_that_do_not_fit_name_the_file(tmp_path):
    path = with_header(tmp_path / "net.safetensors", in_spec={"model_kwargs": {"hidden": [5]}})
    with pytest.raises(ValueError, match=r"net\.safetensors.*\(4, 64\) instead of"):
        load_checkpoint(path).build()
    path = with_header(tmp_path / "net.safetensors", in_spec={"model_kwargs": {"hidden": "ab"}})
    with pytest.raises(ValueError, match=r"net\.safetensors.*cannot be built.*TypeError"):
        load_checkpoint(path).build()
    tensors, header = read_tensors(OLD_CHECKPOINT)
    whole = {name: tensor.to(torch.int32) for name, tensor in tensors.items()}
    path = write_tensors(tmp_path / "net.safetensors", whole, header)
    with pytest.raises(ValueError, match=r"net\.safetensors.*int32 instead of torch\.float32"):
        load_checkpoint(path).build()


@pytest.mark.parametrize(("umask", "mode"), [(0o022, 0o644), (0o002, 0o664), (0o077, 0o600)])
def test_files_get_the_mode_of_the_umask(umask, mode, tmp_path):
    before = os.umask(umask)
    try:
        path = save_checkpoint(tmp_path / "a.safetensors", checkpoint())
        with replacing(tmp_path / "table.csv") as temporary:
            temporary.write_text("a\n")
    finally:
        os.umask(before)
    assert path.stat().st_mode & 0o777 == mode
    assert (tmp_path / "table.csv").stat().st_mode & 0o777 == mode


def stranger(folder):
    """A package that leaves a trace when it is imported, and a checkpoint that names it."""
    (folder / "stranger_of_a_test.py").write_text(
        "from pathlib import Path\n"
        f"Path({str(folder / 'trace')!r}).touch()\n"
        "from analog_samson.models import build_model\n"
        "def build():\n"
        "    return build_model('mlp', image_shape=(1, 8, 8), n_classes=10, hidden=[4])\n"
    )
    changes = {"model": "stranger_of_a_test:build", "model_kwargs": {}}
    return with_header(folder / "net.safetensors", in_spec=changes)


def test_a_checkpoint_imports_nothing_without_consent(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delenv(TRUST_VARIABLE, raising=False)
    path, trace = stranger(tmp_path), tmp_path / "trace"
    for trust in ((), ("os", "stranger")):
        with pytest.raises(
            ValueError, match=r"net\.safetensors' requires the import of 'stranger_of_a_"
        ):
            load_checkpoint(path, trust)
    with pytest.raises(ValueError, match="requires the import of"):
        program(path, "ideal")
    assert not trace.exists()
    loaded = load_checkpoint(path, ("stranger_of_a_test",))
    assert not trace.exists()  # opened, not built
    loaded.build()
    assert trace.exists()
    chip = program(path, "ideal", trust=["stranger_of_a_test"]).save(tmp_path / "chip")
    with pytest.raises(ValueError, match="requires the import of"):
        load_chip(chip, path)
    load_chip(chip, path, trust=["stranger_of_a_test"])
    monkeypatch.setenv(TRUST_VARIABLE, "other, stranger_of_a_test")
    assert load_checkpoint(path).digest == loaded.digest


@pytest.mark.parametrize("key", ["model", "method", "dataset"])
@pytest.mark.parametrize("name", ["os:system", ":system", "analog_samson.running:run_jobs"])
def test_every_name_of_a_specification_needs_consent(key, name, tmp_path, monkeypatch):
    monkeypatch.delenv(TRUST_VARIABLE, raising=False)
    path = with_header(tmp_path / "net.safetensors", in_spec={key: name})
    with pytest.raises(ValueError, match="requires the import of"):
        load_checkpoint(path)


def test_consent_alone_does_not_make_a_command_a_network(tmp_path):
    trace = tmp_path / "trace"
    commands = {
        "os:system": {"command": f"touch {trace}"},
        "subprocess:Popen": {"args": ["touch", str(trace)]},
    }
    for name, options in commands.items():
        changes = {"model": name, "model_kwargs": options}
        path = with_header(tmp_path / "net.safetensors", in_spec=changes)
        with pytest.raises(ValueError, match=r"net\.safetensors.*(defined in|not an nn\.Module)"):
            load_checkpoint(path, ("os", "subprocess")).build()
    assert not trace.exists()


@pytest.mark.slow
def test_what_one_trains_oneself_needs_no_consent(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delenv(TRUST_VARIABLE, raising=False)
    start = stranger(tmp_path)
    spec = TrainingSpec(model="stranger_of_a_test:build", epochs=1)
    table = train_grid([spec], tmp_path / "nets", noise_sigma=0.1, noise_draws=1)
    assert list(table["failure"]) == [""]
    train(spec, tmp_path / "nets")  # is there already
    (path,) = (tmp_path / "nets").glob("*.safetensors")
    with pytest.raises(ValueError, match="--trust stranger_of_a_test"):
        load_checkpoint(path)
    train(replace(spec, start_from=str(start)), tmp_path / "tuned")
    other = TrainingSpec(model="mlp", model_kwargs={"hidden": [4]}, epochs=1, start_from=str(start))
    with pytest.raises(ValueError, match="requires the import of 'stranger_of_a_test:build'"):
        train(other, tmp_path / "other")
    train(other, tmp_path / "other", trust=("stranger_of_a_test",))


@pytest.mark.slow
def test_trust_is_passed_to_workers_and_a_study_file_cannot_grant_it(tmp_path, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delenv(TRUST_VARIABLE, raising=False)
    study = Study("s", [stranger(tmp_path)], ["ideal"], [0], n_chips=2, n_test=10)
    with pytest.raises(ValueError, match="requires the import of"):
        study.trials()
    trusting = replace(study, trust=("stranger_of_a_test",))
    rows = collect(trusting, tmp_path / "trusted", jobs=2)
    assert len(rows) == 2
    assert "stranger" not in json.dumps(
        json.loads((tmp_path / "trusted" / "manifest.json").read_text())["study"]
    )
    monkeypatch.setenv(TRUST_VARIABLE, "stranger_of_a_test")
    assert [t.chip_id for t in study.trials()] == [t.chip_id for t in trusting.trials()]
    toml = tmp_path / "study.toml"
    toml.write_text(
        'name = "s"\ncheckpoints = ["net.safetensors"]\ndevices = ["ideal"]\ntimes_s = [0.0]\n'
        'trust = ["stranger_of_a_test"]\n'
    )
    with pytest.raises(ValueError, match=r"study\.toml: a study file cannot grant trust"):
        load_study(toml)
