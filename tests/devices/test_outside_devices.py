"""Noise models and effects of the periphery from another package, named in a device file."""

import json
import os
import re
import subprocess
import sys
from dataclasses import replace

import pytest
import torch
from places import ROOT
from torch import nn

from analog_samson import Study, collect, load_device, program, read_trials
from analog_samson.algorithm import Setting
from analog_samson.chip import choose_engine, load_chip
from analog_samson.chip.group import why_not_batched
from analog_samson.devices import Device, NoiseSection, validated
from analog_samson.devices.describe import parameters
from analog_samson.devices.named import names_in
from analog_samson.importing import TRUST_VARIABLE
from analog_samson.report import write_report
from analog_samson.training.hardware import HardwareAware

SECTION = '''
"""A section, free of torch."""

from pydantic import Field

from analog_samson.devices import NoiseSection


class Doubling(NoiseSection):
    """Every conductance is written with a normal error and doubles in the first second."""

    built_by = "{package}.models:DoublingModel"

    g_max_uS: float = Field(gt=0, le=100)
    spread_uS: float = Field(ge=0)


class Other(NoiseSection):
    """Another section of the same model."""

    built_by = "{package}.models:DoublingModel"
    cells = "signed"

    spread_uS: float = Field(ge=0)
'''

MODELS = '''
"""The model, with torch."""

import torch
from aihwkit.inference.noise.base import BaseNoiseModel


class DoublingModel(BaseNoiseModel):
    def __init__(self, section, converter):
        super().__init__(converter)
        self.section = section

    def apply_programming_noise_to_conductance(self, g_target):
        return g_target + self.section.spread_uS * torch.randn_like(g_target)

    def apply_drift_noise_to_conductance(self, g_prog, drift_noise_param, t_inference):
        return g_prog * (2 if t_inference >= 1 else 1)
'''

EFFECTS = '''
"""Current through a device grows with the hyperbolic sine of the voltage; a constant current."""

from pydantic import Field

from analog_samson.devices import EffectSection


class Sinh(EffectSection):
    """x becomes sinh(a x) / sinh(a)."""

    aihwkit_by = "{package}.sinh:SinhInputs"
    compiled_by = "{package}.sinh:SinhInputs"

    a: float = Field(gt=0, le=10)


class Offset(EffectSection):
    """Every output is moved by a current."""

    aihwkit_by = "{package}.sinh:Moved"
    compiled_by = "{package}.sinh:Moved"

    current: float


class OnlyOnTiles(Offset):
    """The same, without an implementation on the compiled engine."""

    compiled_by = ""


class Nowhere(EffectSection):
    """No engine has it."""
'''

SINH = """
import math

from analog_samson.analog import Effect


class SinhInputs(Effect):
    def __init__(self, section):
        self.a = section.a

    def inputs(self, x):
        return (self.a * x).sinh() / math.sinh(self.a)


class Moved(Effect):
    def __init__(self, section):
        self.current = section.current

    def outputs(self, y):
        return y + self.current
"""

DEVICE = """
name = "mine"
technology = "test"
summary = "A device of another package."
limits = "A test."

[noise]
model = "{package}.sections:Doubling"
source = "mine"
g_max_uS = 25.0
spread_uS = 0.5

[periphery]
source = "mine"
dac_bits = 8
adc_bits = 8
output_bound = 10.0
output_noise = 0.0

[drift_compensation]
kind = "none"
"""

TORCH_FREE = """
import sys
sys.modules["torch"] = sys.modules["aihwkit"] = None
from analog_samson import load_device
print(load_device(sys.argv[1], trust=(sys.argv[2],)).digest)
"""

PAGE = """
import sys
from analog_samson.report import write_report
from analog_samson.training.hardware import HardwareAware
write_report(sys.argv[1])
assert sys.argv[2] not in sys.modules
"""


CHECKPOINT = ROOT / "tests" / "golden" / "digits-mlp-format1.safetensors"


@pytest.fixture
def package(tmp_path, monkeypatch):
    """A package in a temporary folder, importable in this test."""
    name = re.sub(r"\W", "_", f"outside_{tmp_path.name}")
    folder = tmp_path / "packages" / name
    folder.mkdir(parents=True)
    (folder / "__init__.py").write_text("")
    (folder / "sections.py").write_text(SECTION.format(package=name))
    (folder / "models.py").write_text(MODELS)
    (folder / "effects.py").write_text(EFFECTS.format(package=name))
    (folder / "sinh.py").write_text(SINH)
    monkeypatch.delenv(TRUST_VARIABLE, raising=False)
    monkeypatch.syspath_prepend(str(folder.parent))
    yield name
    for module in [m for m in sys.modules if m.partition(".")[0] == name]:
        del sys.modules[module]


@pytest.fixture
def file(package, tmp_path):
    path = tmp_path / "mine.toml"
    path.write_text(DEVICE.format(package=package))
    return path


def run(program, *arguments, path=""):
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
    return subprocess.run(
        [sys.executable, "-c", program, *map(str, arguments)],
        env=environment | ({"PYTHONPATH": str(path)} if path else {}),
        capture_output=True,
        text=True,
    )


def test_a_device_file_imports_nothing_without_consent(file, package, monkeypatch):
    for read in (load_device, lambda path: program(nn.Linear(4, 2), path)):
        with pytest.raises(
            ValueError, match=rf"mine.toml requires the import of '{package}.*--trust"
        ):
            read(file)
    assert package not in sys.modules
    file.write_text(f'trust = ["{package}"]\n' + file.read_text())
    with pytest.raises(ValueError, match="the key 'trust' is not allowed in a file"):
        load_device(file, trust=(package,))
    file.write_text(DEVICE.format(package=package))
    monkeypatch.setenv(TRUST_VARIABLE, package)
    assert load_device(file).noise.spread_uS == 0.5


def test_an_override_of_a_layer_needs_consent_too(file, package):
    override = (
        '\n[[layers]]\npattern = "head"\nnoise = {model = "'
        + f'{package}.sections:Other", source = "mine", spread_uS = 0.1}}\n'
    )
    file.write_text(DEVICE.format(package="no_package") + override)
    with pytest.raises(ValueError, match="requires the import of 'no_package.sections:Doubling'"):
        load_device(file, trust=(package,))
    shipped = load_device("pcm_like").model_dump_json()
    file.write_text(DEVICE.format(package=package) + override)
    device = load_device(file, trust=(package,))
    assert device.with_overrides_for("head").noise.cells == "signed"
    assert validated(json.loads(shipped), "shipped", from_json=True) == load_device("pcm_like")


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        (":Doubling", ":Doublin", "has no 'Doublin'.*Did you mean 'Doubling'"),
        (":Doubling", ":Field", "is defined in 'pydantic"),
        (".sections:Doubling", ".models:DoublingModel", "derive it from .*NoiseSection"),
        ("spread_uS", "spred_uS", "noise: unknown key 'spred_uS'; did you mean 'spread_uS'"),
        ("spread_uS = 0.5", "", "noise: key 'spread_uS' is missing"),
        ("spread_uS = 0.5", "spread_uS = -1.0", "spread_uS = -1.0 is not allowed"),
    ],
)
def test_a_wrong_section_is_one_sentence(file, package, old, new, words):
    file.write_text(file.read_text().replace(old, new, 1))
    with pytest.raises(ValueError, match=rf"mine.toml: {words}" if "noise" in words else words):
        load_device(file, trust=(package,))


def test_its_digest_has_its_numbers_and_its_name(file, package):
    device = load_device(file, trust=(package,))
    assert device.with_axes({"spread_uS": 0.25}).digest != device.digest
    content = device.model_dump()
    content["noise"]["source"] = "elsewhere"
    assert validated(content, "mine", trust=(package,)).digest == device.digest
    file.write_text(file.read_text().replace('name = "mine"', 'name = "renamed"'))
    assert load_device(file, trust=(package,)).digest == device.digest
    from_json = json.loads(device.model_dump_json())
    assert from_json["noise"]["model"] == f"{package}.sections:Doubling"
    assert validated(from_json, "manifest", from_json=True, trust=(package,)) == device
    free = run(TORCH_FREE, file, package, path=file.parent / "packages")
    assert free.stdout.strip() == device.digest, free.stderr


def test_a_device_made_in_python_needs_no_trust(file, package):
    from importlib import import_module

    section = import_module(f"{package}.sections").Doubling
    given = load_device("pcm_like").model_dump() | {"name": "mine"}
    noise = section(source="mine", g_max_uS=25.0, spread_uS=0.5)
    device = Device.model_validate(given | {"noise": noise})
    assert device.noise.model == f"{package}.sections:Doubling"
    assert device.with_axes({"noise.spread_uS": 0.0}).noise.spread_uS == 0
    weights = program(nn.Linear(8, 8), device.with_axes({"spread_uS": 0.0})).drift_to(1.0)
    assert weights.conductances()[""][0][0].max() == 50.0

    class Local(NoiseSection):
        built_by = f"{package}.models:DoublingModel"

    with pytest.raises(ValueError, match="define it at the top of a module"):
        Local(source="mine")


def test_a_chip_comes_back_from_its_file_with_consent(file, package, tmp_path):
    layer = nn.Linear(8, 4)
    chip = program(layer, file, trust=(package,))
    chip.save(tmp_path / "chip.safetensors")
    with pytest.raises(ValueError, match="requires the import of"):
        load_chip(tmp_path / "chip.safetensors", layer)
    again = load_chip(tmp_path / "chip.safetensors", layer, trust=(package,))
    assert torch.equal(again.weights()[""], chip.weights()[""])


@pytest.mark.slow
def test_a_study_of_it_runs_to_the_page_and_the_page_imports_nothing(file, package, tmp_path):
    asked = {"n_chips": 1, "n_test": 20, "axes": {"spread_uS": [0.0, 0.5], "max_rows": [16, 64]}}
    study = Study("outside", [CHECKPOINT], [file], [0.0, 1.0], **asked)
    with pytest.raises(ValueError, match=rf"{package}.*trust"):
        collect(study, tmp_path / "refused")
    study = Study("outside", [CHECKPOINT], [file], [0.0, 1.0], trust=(package,), **asked)
    collect(study, tmp_path / "results")
    rows = read_trials(tmp_path / "results")
    assert len(rows) == 2 * 4
    assert set(rows["condition"].map(lambda text: tuple(sorted(json.loads(text))))) == {
        ("mapping.max_rows", "noise.spread_uS")
    }
    curves = (tmp_path / "results" / "device_mine.csv").read_text()
    assert "programming" in curves and "drift" in curves
    done = run(PAGE, tmp_path / "results", package)
    assert done.returncode == 0, done.stderr
    page = (tmp_path / "results" / "report.html").read_text()
    assert f"{package}.sections:Doubling is not part of analog-samson" in page
    assert "mapping max rows" in page and "noise spread [µS]" in page
    os.environ[TRUST_VARIABLE] = package
    try:
        write_report(tmp_path / "results")  # consent of the process changes no page
    finally:
        del os.environ[TRUST_VARIABLE]
    assert (tmp_path / "results" / "report.html").read_text() == page


def test_a_training_reads_its_device_with_the_trust_of_its_user(file, package):
    given = {"device": str(file), "drop_share": 0.0, "device_time_s": None}
    setting = Setting(
        model=nn.Linear(8, 8),
        analog_weights=frozenset({"weight"}),
        n_training_images=1,
        n_classes=8,
        epochs=1,
        accelerator=torch.device("cpu"),
    )
    with pytest.raises(ValueError, match="requires the import of"):
        HardwareAware(setting, **given)
    HardwareAware(replace(setting, trust=(package,)), **given)


@pytest.mark.slow
def test_moments_and_page_of_a_device_need_consent_too(file, package, tmp_path):
    script = ROOT / "experiments" / "describe_device.py"
    command = [sys.executable, script, file, "--folder", tmp_path / "described"]
    environment = os.environ | {"PYTHONPATH": str(file.parent / "packages")}
    done = [
        subprocess.run([*command, *more], env=environment, capture_output=True, text=True)
        for more in ((), ("--trust", package))
    ]
    assert done[0].returncode and "--trust" in done[0].stderr
    assert (tmp_path / "described" / "device_mine.png").is_file(), done[1].stderr


def test_the_examples_of_the_documentation_run(tmp_path, monkeypatch):
    text = (ROOT / "device_configs" / "README.md").read_text(encoding="utf-8")
    blocks = re.findall(r"^```(python|toml)\n(.*?)^```", text, re.M | re.S)
    for kind, block in blocks:
        if kind == "python":
            path = tmp_path / re.match(r"# (\S+\.py)", block)[1]
            path.parent.mkdir(exist_ok=True)
            path.write_text(block)
    noise, effect = (block for kind, block in blocks if kind == "toml")
    head, _, rest = DEVICE.partition("[noise]")
    device = f"{head}{noise}[periphery]{rest.partition('[periphery]')[2]}{effect}"
    (tmp_path / "mine.toml").write_text(device)
    monkeypatch.syspath_prepend(str(tmp_path))
    chip = program(nn.Linear(16, 4), tmp_path / "mine.toml", trust=("my_package",),
                   calibration=torch.rand(8, 16))  # fmt: skip
    assert chip(torch.rand(8, 16)).isfinite().all()
    assert chip.device.noise.sigma == 0.1 and chip.device.periphery.effects[0].a == 2.0


def test_sections_of_this_package_need_no_consent():
    own = {"model": "analog_samson.devices.effects:Own"}
    other = {"model": "analog_samson_extra.effects:Own"}
    content = {"periphery": {"effects": [own, other, 3]}, "noise": 4, "layers": "none"}
    assert names_in(content) == ["analog_samson_extra.effects:Own"]


# --- effects of the periphery -------------------------------------------------------------------

ENGINES = ("aihwkit", "compiled")


def with_effects(name, *effects, noise="ideal", **periphery):
    """A device of this name with the noise of another and some effects."""
    content = load_device(noise).model_dump() | {"name": name}
    content["periphery"] |= {"source": "mine", "effects": effects, **periphery}
    return Device.model_validate(content)


def sinh(package, a=2.0):
    return {"model": f"{package}.effects:Sinh", "source": "mine", "a": a}


def offset(package, current=0.25, kind="Offset"):
    return {"model": f"{package}.effects:{kind}", "source": "mine", "current": current}


@pytest.mark.parametrize("engine", ENGINES)
def test_effects_act_after_the_dac_and_before_the_adc(package, engine):
    """y = r s (w f(x / r) + c) in every block of rows, by hand; with converters, their levels."""
    torch.manual_seed(0)
    layer, x, a, c = nn.Linear(24, 5), 2 * torch.rand(40, 24) - 1, 2.0, 0.25
    device = with_effects("exact", sinh(package, a), offset(package, c))
    ranges = {"": 0.8}
    chip = program(layer, device, engine=engine, input_ranges=ranges)
    scale = layer.weight.abs().amax(dim=1)
    inputs = torch.sinh(a * (x / 0.8).clamp(-1, 1)) / torch.sinh(torch.tensor(a))
    expected = inputs @ (layer.weight / scale[:, None]).T + c
    expected = 0.8 * scale * expected + layer.bias
    torch.testing.assert_close(chip(x), expected.detach())
    coarse = device.model_dump()
    coarse["periphery"] |= {"dac_bits": 4, "adc_bits": 5, "output_bound": 4.0}
    chip = program(layer, Device.model_validate(coarse), engine=engine, input_ranges=ranges)
    levels = ((x / 0.8).clamp(-1, 1) * 7).round() / 7
    inputs = torch.sinh(a * levels) / torch.sinh(torch.tensor(a))
    summed = inputs @ (layer.weight / scale[:, None]).T + c
    summed = ((summed / (4 / 15)).round() * (4 / 15)).clamp(-4, 4)
    expected = (0.8 * scale * summed + layer.bias).detach()
    step = float((0.8 * scale * 4 / 15).detach().max())
    difference = (chip(x) - expected).abs()
    assert (difference > 1e-5).float().mean() < 0.02 and difference.max() < 1.01 * step  # ties


def convolutions():
    torch.manual_seed(1)
    return nn.Sequential(
        *(nn.Conv2d(3, 8, 3, padding=1, stride=2), nn.ReLU()),
        *(nn.Flatten(), nn.Linear(8 * 4 * 4, 7)),
    ).eval()


@pytest.mark.parametrize("expected_images", [0, 10**6])
def test_both_engines_compute_the_same_network(package, expected_images):
    """Noise off, arrays of 20 rows; the second case traces the network."""
    network, images = convolutions(), torch.rand(16, 3, 8, 8)
    device = with_effects("fine", sinh(package), offset(package), dac_bits=12, adc_bits=16,
                          output_bound=20.0)  # fmt: skip
    device = device.with_axes({"max_rows": 20})
    theirs, ours = (
        program(
            network, device, engine=engine, calibration=images, expected_images=expected_images
        )(images)
        for engine in ENGINES
    )
    plain = program(network, device.with_axes({"periphery.effects.0.a": 0.01}), calibration=images)
    assert (ours - theirs).abs().max() < 0.02 * ours.std()
    assert (ours - plain(images)).abs().max() > 0.2 * ours.std()


def test_an_effect_without_an_implementation_runs_on_the_other_engine(package):
    device = with_effects("tiles", offset(package, kind="OnlyOnTiles"))
    assert choose_engine(device) == "aihwkit"
    with pytest.raises(ValueError, match="compiled engine cannot run.*has no implementation"):
        choose_engine(device, "compiled")
    both = with_effects("both", offset(package))
    assert choose_engine(both) == "compiled" and choose_engine(both, "aihwkit") == "aihwkit"
    nowhere = {"model": f"{package}.effects:Nowhere", "source": "mine"}
    with pytest.raises(ValueError, match="No engine can run device 'none'.*has no impl"):
        choose_engine(with_effects("none", nowhere))
    by_vector = with_effects("by vector", offset(package), input_scaling="per_vector", dac_bits=8)
    with pytest.raises(ValueError, match="No engine can run.*exclude each other.*torch tile"):
        choose_engine(by_vector)
    assert "for each chip" in why_not_batched(both, "compiled")


def test_an_effect_is_part_of_the_identity_and_needs_consent(file, package):
    plain = file.read_text()
    effect = f"""
[[periphery.effects]]
model = "{package}.effects:Sinh"
source = "mine"
a = 2.0
"""
    file.write_text(plain.replace(f"{package}.sections:Doubling", "PolynomialErrorNoiseModel"))
    file.write_text(file.read_text() + effect)
    with pytest.raises(ValueError, match="requires the import of .*effects:Sinh"):
        load_device(file)
    file.write_text(plain + effect)
    device = load_device(file, trust=(package,))
    without = validated(device.model_dump() | {"periphery": {**device.periphery.model_dump(),
        "effects": ()}}, "mine", trust=(package,))  # fmt: skip
    swept = device.with_axes({"a": 3.0})
    assert swept.periphery.effects[0].a == 3.0
    assert device.axis_name("a") == "periphery.effects.0.a"
    assert len({device.digest, without.digest, swept.digest}) == 3
    listed = parameters(device).set_index("parameter")["value"]
    assert listed["periphery.effects.0.a"] == "2"
    again = json.loads(device.model_dump_json())
    assert validated(again, "manifest", from_json=True, trust=(package,)) == device
    with pytest.raises(ValueError, match="the key 'model' of an effect is its importable name"):
        with_effects("mine", {"a": 1.0})
    with pytest.raises(ValueError, match="key 'a' is missing"):
        with_effects("mine", {"model": f"{package}.effects:Sinh", "source": "mine"})


@pytest.mark.slow
def test_a_study_of_an_effect_runs_to_the_page(package, tmp_path):
    device = with_effects("bent", sinh(package), noise="pcm_like", dac_bits=8)
    study = Study(
        "bent", [CHECKPOINT], [device], [1.0], n_chips=1, n_test=20, axes={"a": [0.5, 4.0]}
    )
    collect(study, tmp_path)
    assert len(read_trials(tmp_path)) == 2
    done = run(PAGE, tmp_path, package)
    assert done.returncode == 0, done.stderr
    page = (tmp_path / "report.html").read_text()
    assert f"{package}.effects:Sinh is not part of analog-samson" in page
