"""List the committed studies: task, size, cost, and the commands that make and check each.

make studies

The table is that of `docs/STUDIES.md`, the commands are those at the top of each study's page.
"""

import re
import tomllib
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parent.parent


def studies(page: str) -> Iterator[tuple[list[str], list[str]]]:
    """Names of the studies of every line on the page, and the further cells of the line."""
    for line in page.splitlines():
        if re.match(r"\| \[[\w-]+\]\(\.\./results/", line):
            first, *cells = [cell.strip() for cell in line.strip("|").split("|")]
            names = re.sub(r"\[([\w-]+)\]\([^)]*\)", r"\1", first)
            yield names.split(", "), cells


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
    study = folder / "study.toml"
    given = tomllib.loads(study.read_text(encoding="utf-8")) if study.is_file() else {}
    patterns = given.get("checkpoints", ["networks/*"])
    is_there = any(any(folder.glob(pattern)) for pattern in patterns)
    verify = " --verify" * is_there
    return [*own, f"    python experiments/rerun.py {folder.relative_to(ROOT)}{verify}"]


def text() -> str:
    """All studies with their commands."""
    parts = []
    for names, cells in studies((ROOT / "docs/STUDIES.md").read_text(encoding="utf-8")):
        task, networks, chips, hours = cells
        parts += [
            f"{', '.join(names)}: {task}",
            f"  methods x training seeds: {networks}; chips a device: {chips}; hours on one core: "
            f"{hours}",
            *dict.fromkeys(line for name in names for line in lines(ROOT / "results" / name)),
            "",
        ]
    return "\n".join([*parts, "--verify takes minutes: it evaluates some rows again."])


if __name__ == "__main__":
    print(text())
