"""Every example in a docstring of the package gives what it shows."""

import contextlib
import doctest
import importlib
import re
import shutil

import pytest
from matplotlib.figure import Figure
from places import ROOT

PACKAGE = ROOT / "analog_samson"
FILES = sorted(p for p in PACKAGE.rglob("*.py") if ">>> " in p.read_text(encoding="utf-8"))
MODULES = [".".join(p.relative_to(ROOT).with_suffix("").parts) for p in FILES]
SHARED_NAMES = re.search(
    r"```python\n(.*?)```", (ROOT / "docs/API.md").read_text(encoding="utf-8"), re.S
)


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
