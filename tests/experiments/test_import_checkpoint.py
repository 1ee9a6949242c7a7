"""Networks from elsewhere become checkpoints that say the truth about them."""

import importlib.util
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest
import torch
from places import ROOT
from safetensors.torch import save_file
from torch import Tensor

from analog_samson.checkpoint import load_checkpoint
from analog_samson.commands import run_command
from analog_samson.data import load_dataset, normalise
from analog_samson.devices import load_device
from analog_samson.models import build_model

TRUST = ("my_small_network_for_a_test",)
SCRIPT = ROOT / "experiments" / "import_checkpoint.py"


@pytest.fixture(autouse=True)
def factory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A network of somebody else's."""
    (tmp_path / "my_small_network_for_a_test.py").write_text(
        "from analog_samson.models import build_model\n"
        "def build(*, width, n_classes=10, seed=0):\n"
        "    shape = (1, 8, 8)\n"
        "    return build_model('resnet8', image_shape=shape, n_classes=n_classes, width=width)\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    yield
    sys.modules.pop("my_small_network_for_a_test", None)


@pytest.fixture(scope="module")
def script() -> ModuleType:
    spec = importlib.util.spec_from_file_location("import_checkpoint", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def some_state() -> dict[str, Tensor]:
    model = build_model("resnet8", image_shape=(1, 8, 8), n_classes=10, seed=3, width=4)
    return dict(model.state_dict())


def arguments(tmp_path: Path, *more: str) -> list[str]:
    return [
        "--factory", "my_small_network_for_a_test:build",
        "--kwargs", '{"width": 4}',
        "--state", str(tmp_path / "net.pth"),
        "--out", str(tmp_path / "net.safetensors"),
        *more,
    ]  # fmt: skip


def test_an_imported_network_equals_the_original_and_keeps_its_normalisation(
    script: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    state = some_state()
    torch.save(state, tmp_path / "net.pth")
    run_command(script.main, arguments(tmp_path, "--mean", "0.5", "--std", "0.25"))
    assert (
        "commands that open it need --trust my_small_network_for_a_test" in capsys.readouterr().out
    )
    checkpoint = load_checkpoint(tmp_path / "net.safetensors", TRUST)
    model = build_model("resnet8", image_shape=(1, 8, 8), n_classes=10, width=4)
    model.load_state_dict(state)
    test = load_dataset().test
    inputs = normalise(test.images, mean=(0.5,), std=(0.25,), full_scale=16.0)
    with torch.no_grad():
        expected, outputs = model.eval()(inputs), checkpoint.build()(inputs)
    torch.testing.assert_close(outputs, expected)
    assert checkpoint.n_correct_digital == int((expected.argmax(1) == test.labels).sum())
    assert (checkpoint.mean, checkpoint.std) == ((0.5,), (0.25,))
    assert checkpoint.spec.method == "external"


@pytest.mark.parametrize("form", ["nested", "data_parallel", "no_counters", "safetensors"])
def test_usual_forms_of_state_dicts_are_read(
    form: str, script: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    state, more = some_state(), []
    if form == "nested":
        torch.save({"epoch": 3, "state_dict": state}, tmp_path / "net.pth")
    elif form == "data_parallel":
        torch.save({f"module.{name}": value for name, value in state.items()}, tmp_path / "net.pth")
    elif form == "no_counters":
        kept = {name: value for name, value in state.items() if "num_batches" not in name}
        torch.save(kept, tmp_path / "net.pth")
    else:
        save_file(state, tmp_path / "net-state.safetensors")
        more = ["--state", str(tmp_path / "net-state.safetensors")]
    run_command(script.main, arguments(tmp_path, *more, "--keep-digital", "conv1"))
    checkpoint = load_checkpoint(tmp_path / "net.safetensors", TRUST)
    assert all(torch.equal(checkpoint.state[name], value) for name, value in state.items())
    assert checkpoint.keep_digital == ("conv1",)
    assert "conv1" not in checkpoint.input_ranges
    assert "digital: conv1 (Conv2d, 36 weights): kept digital on request" in capsys.readouterr().out


def spoil(state: dict[str, Tensor], how: str) -> object:
    if how == "missing":
        del state["fc.weight"]
    elif how == "shape":
        state["fc.weight"] = state["fc.weight"][:5]
    elif how == "nan":
        state["fc.weight"][0, 0] = torch.nan
    elif how == "zero":
        state["fc.weight"].zero_()
    elif how == "module":
        return build_model("mlp", image_shape=(1, 8, 8), n_classes=10)
    return state


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ("missing", "do not fit"),
        ("shape", "do not fit"),
        ("nan", "layer 'fc' has 1 of 160"),
        ("zero", "All 160 weights of layer 'fc' are zero"),
        ("module", "not a state dict of tensors"),
    ],
)
def test_unusable_weights_end_in_one_sentence_and_no_file(
    how: str, message: str, script: ModuleType, tmp_path: Path
) -> None:
    torch.save(spoil(some_state(), how), tmp_path / "net.pth")
    with pytest.raises(SystemExit) as caught:
        run_command(script.main, arguments(tmp_path))
    assert message in str(caught.value.code)
    assert not (tmp_path / "net.safetensors").exists()


@pytest.mark.parametrize("name", ["net.pth", "net-state.safetensors"])
@pytest.mark.parametrize("content", [b"", b"not a network", bytes(1000)])
def test_damaged_files_end_in_one_sentence(
    name: str, content: bytes, script: ModuleType, tmp_path: Path
) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(SystemExit) as caught:
        run_command(script.main, arguments(tmp_path, "--state", str(tmp_path / name)))
    assert "not a state dict of tensors" in str(caught.value.code)


def test_missing_file_and_bad_options_are_named(script: ModuleType, tmp_path: Path) -> None:
    with pytest.raises(SystemExit) as missing:
        run_command(script.main, arguments(tmp_path))
    assert "There is no file" in str(missing.value.code)
    torch.save(some_state(), tmp_path / "net.pth")
    for more, message in (
        (("--kwargs", "{width: 4}"), "must be a JSON object"),
        (("--kwargs", "[1]"), "must be a JSON object"),
        (("--mean", "0.5"), "belong together"),
        (("--factory", "resnet_8"), "Did you mean 'resnet8'?"),
    ):
        with pytest.raises(SystemExit) as caught:
            run_command(script.main, arguments(tmp_path, *more))
        assert message in str(caught.value.code)


def test_a_factory_may_name_its_arguments_as_this_package_does(
    script: ModuleType, tmp_path: Path
) -> None:
    torch.save(some_state(), tmp_path / "net.pth")
    line = arguments(tmp_path)
    line[line.index('{"width": 4}')] = '{"width": 4, "n_classes": 10, "seed": 1}'
    run_command(script.main, line)
    checkpoint = load_checkpoint(tmp_path / "net.safetensors", TRUST)
    assert checkpoint.spec.model_kwargs == {"width": 4, "n_classes": 10, "seed": 1}
    assert next(checkpoint.build().parameters()).shape[0] == 4


def test_a_network_of_aihwkit_needs_trust_and_brings_its_device(
    script: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from aihwkit.nn.conversion import convert_to_analog
    from aihwkit.simulator.presets import StandardHWATrainingPreset

    digital = build_model("resnet8", image_shape=(1, 8, 8), n_classes=10, seed=3, width=4)
    model = convert_to_analog(
        digital.eval(), StandardHWATrainingPreset(), exclude_modules=["conv1"]
    )
    for tile in model.analog_tiles():
        tile.input_range.data.fill_(1.5)
    torch.save(model.state_dict(), tmp_path / "net.pth")
    command = [
        "--factory", "my_small_network_for_a_test:build",
        "--kwargs", '{"width": 4}',
        "--aihwkit", str(tmp_path / "net.pth"),
        "--out", str(tmp_path / "net.safetensors"),
    ]  # fmt: skip
    with pytest.raises(SystemExit) as caught:
        run_command(script.main, command)
    assert "reading it runs any code" in str(caught.value.code)
    assert "--trust aihwkit" in str(caught.value.code)
    assert not (tmp_path / "net.safetensors").exists()
    with pytest.warns(UserWarning, match="Not carried over"):
        run_command(script.main, [*command, "--trust", "aihwkit"])
    assert "digital: conv1" in capsys.readouterr().out
    device = load_device(tmp_path / "net.toml")
    assert device.digest == load_device("pcm_like_hwa_preset").digest
    checkpoint = load_checkpoint(tmp_path / "net.safetensors", TRUST)
    assert checkpoint.keep_digital == ("conv1",)
    assert set(checkpoint.input_ranges.values()) == {1.5}
    rebuilt = checkpoint.build()
    inputs = torch.randn(4, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        torch.testing.assert_close(rebuilt(inputs), digital(inputs), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("content", "more", "message"),
    [
        ({"weight": torch.ones(2)}, (), "holds no tiles of aihwkit; for the state dict"),
        ([1, 2], (), "holds list, not a state dict"),
        (None, (), "cannot be read"),
        ({}, ("--state", "net.pth"), "Give one file: --state"),
    ],
)
def test_wrong_files_of_aihwkit_end_in_one_sentence(
    content: object, more: tuple[str, ...], message: str, script: ModuleType, tmp_path: Path
) -> None:
    path = tmp_path / "net.pth"
    if content is None:
        path.write_bytes(b"not a network")
    else:
        torch.save(content, path)
    command = [
        "--factory", "my_small_network_for_a_test:build",
        "--kwargs", '{"width": 4}',
        "--aihwkit", str(path),
        "--out", str(tmp_path / "net.safetensors"),
        "--trust", "aihwkit",
        *more,
    ]  # fmt: skip
    with pytest.raises(SystemExit) as caught:
        run_command(script.main, command)
    assert message in str(caught.value.code)
    assert "\n" not in str(caught.value.code)
