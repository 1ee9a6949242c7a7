"""Every example in a docstring of the package gives what it shows."""

import doctest
import importlib

import pytest
from places import ROOT

PACKAGE = ROOT / "analog_samson"
FILES = sorted(p for p in PACKAGE.rglob("*.py") if ">>> " in p.read_text(encoding="utf-8"))
MODULES = [".".join(p.relative_to(ROOT).with_suffix("").parts) for p in FILES]
OBJECTS = ("Chip", "Device", "Study", "TrainingSpec", "collect", "load_device", "perturbed")
OBJECTS += ("program", "read_trials", "score", "summarise", "train")


@pytest.mark.slow
@pytest.mark.parametrize("name", MODULES)
def test_examples_of_a_module_give_what_they_show(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    module = importlib.import_module(name)
    found = doctest.testmod(module, optionflags=doctest.NORMALIZE_WHITESPACE | doctest.ELLIPSIS)
    assert found.attempted and not found.failed


@pytest.mark.parametrize("name", OBJECTS)
def test_the_main_objects_have_an_example(name):
    text = "".join(path.read_text(encoding="utf-8") for path in FILES)
    kind = "class" if name[0].isupper() else "def"
    body = text.partition(f"\n{kind} {name}")[2]
    docstring = body.partition('"""')[2].partition('"""')[0]
    assert ">>> " in docstring
