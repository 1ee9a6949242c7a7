"""Noise models and effects of the periphery from another package, named in a device file."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

from analog_samson import Study, collect, load_device, program, read_trials
from analog_samson.chip import load_chip
from analog_samson.devices import Device, NoiseSection, validated
from analog_samson.importing import TRUST_VARIABLE
from analog_samson.report import write_report

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
write_report(sys.argv[1])
assert sys.argv[2] not in sys.modules
"""


CHECKPOINT = Path(__file__).parent / "golden" / "digits-mlp-format1.safetensors"


@pytest.fixture
def package(tmp_path, monkeypatch):
    """A package in a temporary folder, importable in this test."""
    name = re.sub(r"\W", "_", f"outside_{tmp_path.name}")
    folder = tmp_path / "packages" / name
    folder.mkdir(parents=True)
    (folder / "__init__.py").write_text("")
    (folder / "sections.py").write_text(SECTION.format(package=name))
    (folder / "models.py").write_text(MODELS)
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
        with pytest.raises(ValueError, match=rf"mine.toml wants to import '{package}.*--trust"):
            read(file)
    assert package not in sys.modules
    file.write_text(f'trust = ["{package}"]\n' + file.read_text())
    with pytest.raises(ValueError, match="a file cannot trust packages"):
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
    with pytest.raises(ValueError, match="wants to import 'no_package.sections:Doubling'"):
        load_device(file, trust=(package,))
    shipped = load_device("pcm_like").model_dump_json()
    file.write_text(DEVICE.format(package=package) + override)
    device = load_device(file, trust=(package,))
    assert device.for_layer("head").noise.cells == "signed"
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


def test_its_numbers_and_its_name_are_its_identity(file, package):
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


def test_a_device_given_in_python_is_the_users_own_word(file, package):
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
    with pytest.raises(ValueError, match="wants to import"):
        load_chip(tmp_path / "chip.safetensors", layer)
    again = load_chip(tmp_path / "chip.safetensors", layer, trust=(package,))
    assert torch.equal(again.weights()[""], chip.weights()[""])


def test_a_study_of_it_runs_to_the_page_and_the_page_imports_nothing(file, package, tmp_path):
    asked = {"n_chips": 2, "n_images": 50, "axes": {"spread_uS": [0.0, 0.5], "max_rows": [16, 64]}}
    study = Study("outside", [CHECKPOINT], [file], [0.0, 1.0], **asked)
    with pytest.raises(ValueError, match=rf"{package}.*trust"):
        collect(study, tmp_path / "refused")
    study = Study("outside", [CHECKPOINT], [file], [0.0, 1.0], trust=(package,), **asked)
    collect(study, tmp_path / "results")
    rows = read_trials(tmp_path / "results")
    assert len(rows) == 2 * 2 * 4
    assert set(rows["axes"].map(lambda text: tuple(sorted(json.loads(text))))) == {
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
