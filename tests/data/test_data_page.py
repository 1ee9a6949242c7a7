"""Every example of docs/DATA.md runs as it stands, and its options are those there are."""

import os
import re
import subprocess
import sys

import pytest
from places import ROOT

from analog_samson.data.names import OPTIONS

PAGE = (ROOT / "docs" / "DATA.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```python\n(.*?)^```", PAGE, re.M | re.S)
SAID = {  # a text of each block, and what it prints
    "data/speech": r"3600\.0 +0\.\d+ +0\.\d+",
    "data/flowers": r"@[0-9a-f]{16}\n\('lily', 'rose'\) \(3, 32, 32\)\n26 4 10",
    "physics.npz": "regression",
    "book.txt": r"tokens 18\n[\w ,.\n]{32}",
    "my_data:letters": "3",
}


@pytest.mark.slow
@pytest.mark.parametrize("name", SAID)
def test_examples_run_as_they_stand(name, tmp_path):
    (block,) = [text for text in BLOCKS if f'"{name}' in text]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    environment.pop("ANALOG_SAMSON_DATA", None)  # the page's data lie in its own folder
    command = [sys.executable, "-c", block]
    done = subprocess.run(
        command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert re.search(SAID[name], done.stdout), done.stdout


def test_the_page_names_every_option_and_no_other():
    assert len(BLOCKS) == len(SAID) + 1  # test_own_data.py loads the other one
    table = PAGE.partition("## Options")[2].partition("```")[0]
    assert set(re.findall(r"^\| `(\w+)=", table, re.M)) == set(OPTIONS)
