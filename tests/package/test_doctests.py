"""Every example in a docstring of the package gives what it shows, and public objects have one."""

import contextlib
import doctest
import importlib
import inspect
import re
import shutil

import pytest
from matplotlib.figure import Figure
from places import ROOT

import analog_samson

PACKAGE = ROOT / "analog_samson"
FILES = sorted(p for p in PACKAGE.rglob("*.py") if ">>> " in p.read_text(encoding="utf-8"))
MODULES = [".".join(p.relative_to(ROOT).with_suffix("").parts) for p in FILES]
SHARED_NAMES = re.search(
    r"```python\n(.*?)```", (ROOT / "docs/API.md").read_text(encoding="utf-8"), re.S
)
PAGES = sorted((ROOT / "docs" / "api").glob("*.md"))
WITHOUT_EXAMPLE = {
    "analog_samson.checkpoint.ChipHeader": "schema of a file; Chip.save writes it",
    "analog_samson.methods_study.evaluate": "called by run, whose example has one of its own",
    "analog_samson.methods_study.train_and_validate": "called by run",
    "analog_samson.report.networks_table": "takes a finished study of methods; rerun.py shows it",
    "analog_samson.report.noisy_gap_figure": "the same",
    "analog_samson.report.noisy_gap_table": "the same",
    "analog_samson.training.evidence_of": "reads a finished study of methods; verdicts.py shows it",
    "analog_samson.training.ValidationAccuracy": "data class; validation_accuracy returns it",
}


class Finder(doctest.DocTestFinder):
    """Finds the examples of decorated functions, too, whose globals are the decorator's."""

    def _from_module(self, module, object):
        name = getattr(object, "__module__", None)
        return name == module.__name__ or super()._from_module(module, object)


@pytest.fixture(scope="module")
def shared(tmp_path_factory):
    """The names of docs/API.md, and the folder that they were made in."""
    folder, names = tmp_path_factory.mktemp("shared"), {}
    with contextlib.chdir(folder):
        exec(SHARED_NAMES[1], names)
    return folder, names


@pytest.mark.slow
@pytest.mark.parametrize("name", MODULES)
def test_examples_of_a_module_give_what_they_show(name, shared, tmp_path, monkeypatch):
    folder, names = shared
    shutil.copytree(folder, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    module = importlib.import_module(name)
    options = doctest.NORMALIZE_WHITESPACE | doctest.ELLIPSIS
    runner = doctest.DocTestRunner(optionflags=options)
    for test in Finder().find(module, extraglobs={**names, "__name__": name}):
        test.globs["ax"] = Figure().subplots()
        runner.run(test)
    assert runner.tries and not runner.failures


def public_objects():
    """Functions and classes of the API pages and of the package itself, by their full name."""
    found = {f"analog_samson.{n}": getattr(analog_samson, n) for n in analog_samson.__all__}
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        name = re.search(r"automodule:: (\S+)", text)[1]
        module = importlib.import_module(name)
        chosen = re.search(r":members: (.+)", text)
        names = chosen[1].split(", ") if chosen else getattr(module, "__all__", None)
        own = (n for n, it in vars(module).items() if getattr(it, "__module__", "") == name)
        for public in names or (n for n in own if not n.startswith("_")):
            found[f"{name}.{public}"] = getattr(module, public)
    return {name: it for name, it in found.items() if inspect.isclass(it) or inspect.isfunction(it)}


@pytest.mark.slow
def test_public_functions_and_classes_have_an_example():
    lack = {
        name
        for name, it in public_objects().items()
        if ">>> " not in (inspect.getdoc(it) or "")
        and not (inspect.isclass(it) and issubclass(it, BaseException))
    }
    assert lack == set(WITHOUT_EXAMPLE)
