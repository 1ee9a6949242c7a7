"""List the committed studies: task, size, cost, and the commands that make and check each.

make studies

The table is that of `docs/STUDIES.md`, the commands are those at the top of each study's page.
"""

import re
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parent.parent


def studies(page: str) -> Iterator[tuple[str, list[str]]]:
    """Folder of every study on the page, and the cells of its line."""
    for line in page.splitlines():
        if match := re.match(r"\| \[[\w-]+\]\(\.\./(results/[\w-]+)\)", line):
            cells = [cell.strip() for cell in line.strip("|").split("|")]
            cells[0] = re.sub(r"\[([\w-]+)\]\([^)]*\)", r"\1", cells[0])
            yield match[1], cells


def commands(page: str) -> list[str]:
    """Lines of the commands that stand on the page of a study."""
    found, is_open = [], False
    for line in page.splitlines():
        if line.startswith("    python") or (is_open and line.startswith("    ")):
            found.append(line)
            is_open = line.endswith("\\")
    return found


def lines(folder: Path) -> list[str]:
    """Commands of a study, the last of them what checks its rows, or else draws its tables."""
    own = commands((folder / "README.md").read_text(encoding="utf-8"))
    if not list(folder.glob("trials.csv*")) or any("rerun.py" in line for line in own):
        return own
    verify = " --verify" * (folder / "networks").is_dir()
    return [*own, f"    python experiments/rerun.py {folder.relative_to(ROOT)}{verify}"]


def text() -> str:
    """All studies with their commands."""
    parts = []
    for folder, cells in studies((ROOT / "docs/STUDIES.md").read_text(encoding="utf-8")):
        names, task, networks, chips, hours = cells
        parts += [
            f"{names}: {task}",
            f"  methods x training seeds: {networks}; chips a device: {chips}; about {hours} h on "
            "one core",
            *lines(ROOT / folder),
            "",
        ]
    return "\n".join([*parts, "--verify takes minutes: it evaluates some rows again."])


if __name__ == "__main__":
    print(text())
