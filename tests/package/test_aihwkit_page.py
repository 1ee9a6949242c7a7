"""The code of docs/AIHWKIT.md runs as it stands."""

import re
import subprocess
import sys

import pytest
from places import ROOT

PAGE = (ROOT / "docs" / "AIHWKIT.md").read_text(encoding="utf-8")


@pytest.mark.slow
def test_the_code_prints_what_the_page_says(tmp_path):
    code = "\n".join(re.findall(r"^```python\n(.*?)^```", PAGE, re.M | re.S))
    expected = re.findall(r"print\(.*\)  # (.*)$", code, re.M)
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == expected == ["torch.Size([8, 10])"] * 2
    assert (tmp_path / "my_device.toml").is_file()


def test_every_command_of_the_page_is_an_option_of_the_script():
    script = (ROOT / "experiments" / "import_checkpoint.py").read_text(encoding="utf-8")
    for option in set(re.findall(r"--([a-z][a-z-]+)", PAGE)) - {"no-own-arrays"}:
        assert f"    {option.replace('-', '_')}: " in script, option
