"""The examples of docs/NETWORKS.md run, and print what they say."""

import re

import pytest
from places import ROOT


@pytest.mark.slow
def test_the_examples_run_and_print_what_they_say(capsys):
    text = (ROOT / "docs" / "NETWORKS.md").read_text(encoding="utf-8")
    examples = re.findall(r"```python\n(.*?)```", text, flags=re.DOTALL)
    names: dict[str, object] = {}
    for example in examples:
        exec(compile(example, "NETWORKS.md", "exec"), names)  # one page, one module
        printed = capsys.readouterr().out.splitlines()
        said = re.findall(r"^print\(.*\)  # (.*)$", example, flags=re.MULTILINE)
        assert printed[: len(said)] == said
    assert len(examples) == 4
