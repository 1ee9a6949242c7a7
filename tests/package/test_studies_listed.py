"""`make studies` lists every committed study with commands that are there."""

import importlib.util
import re

from places import ROOT

SPEC = importlib.util.spec_from_file_location("studies", ROOT / "docs" / "studies.py")
listing = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(listing)

LISTED = list(listing.studies((ROOT / "docs" / "STUDIES.md").read_text(encoding="utf-8")))


def test_every_folder_of_results_is_on_the_list():
    named = {name for names, _ in LISTED for name in names}
    there = {page.parent.name for page in ROOT.glob("results/*/README.md")}
    assert len(there) > 15
    assert there == named


def test_every_study_has_its_cost_and_commands_that_exist():
    for names, cells in LISTED:
        assert len(cells) == 4 and float(cells[-1]) > 0, names
        for name in names:
            folder = ROOT / "results" / name
            commands = "\n".join(listing.lines(folder))
            assert commands or not list(folder.glob("trials.csv*")), name
            for script in re.findall(r"python (\S+\.py)", commands):
                assert (ROOT / script).is_file(), (name, script)
            for other in re.findall(r"results/[\w-]+", commands):
                assert (ROOT / other).is_dir(), (name, other)
        assert any(listing.lines(ROOT / "results" / name) for name in names)


def test_commands_of_several_lines_stay_whole():
    page = "Text\n\n    python a.py \\\n        --b\n    other\n\nText\n    python c.py\n"
    assert listing.commands(page) == ["    python a.py \\", "        --b", "    python c.py"]
