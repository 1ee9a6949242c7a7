"""`make studies` lists every committed study with commands that are there."""

import importlib.util
import re

from places import ROOT

SPEC = importlib.util.spec_from_file_location("studies", ROOT / "docs" / "studies.py")
listing = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(listing)

LISTED = dict(listing.studies((ROOT / "docs" / "STUDIES.md").read_text(encoding="utf-8")))


def test_every_folder_of_results_is_on_the_list():
    named = set(re.findall(r"[\w-]+", " ".join(cells[0] for cells in LISTED.values())))
    there = {page.parent.name for page in ROOT.glob("results/*/README.md")}
    assert len(there) > 15
    assert not there - named


def test_every_study_has_its_cost_and_commands_that_exist():
    for folder, cells in LISTED.items():
        assert len(cells) == 5 and float(cells[-1]) > 0, folder
        commands = listing.lines(ROOT / folder)
        assert commands, folder
        for script in re.findall(r"python (\S+\.py)", "\n".join(commands)):
            assert (ROOT / script).is_file(), (folder, script)
        for name in re.findall(r"results/[\w-]+", "\n".join(commands)):
            assert (ROOT / name).is_dir(), (folder, name)


def test_commands_of_several_lines_stay_whole():
    page = "Text\n\n    python a.py \\\n        --b\n    other\n\nText\n    python c.py\n"
    assert listing.commands(page) == ["    python a.py \\", "        --b", "    python c.py"]
