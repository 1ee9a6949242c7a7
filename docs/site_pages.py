"""Sphinx extension: formulas without scripts, pages made from files of the project, links.

- Formulas are written into the pages as MathML.
- ``<!-- include: PATH -->`` takes a file of the project as (part of) a page, and
  ``<!-- devices -->`` the catalogue of the device files.
- Links to files of the project become links to the page that holds them; what is no page, such as
  the folder of a study, is named and not linked.
"""

import re
from pathlib import Path
from typing import Any

from docutils import nodes
from latex2mathml.converter import convert
from pygments.lexers.shell import BashLexer
from sphinx.application import Sphinx

from analog_samson.devices import Device, device_names, load_device
from analog_samson.devices.describe import device_table, parameters

DOCS = Path(__file__).parent
ROOT = DOCS.parent
PAGES = {  # files of the project outside docs/ that are pages
    "README.md": "index.md",
    "CHANGELOG.md": "CHANGES.md",
    "CONTRIBUTING.md": "CONTRIBUTING.md",
    "device_configs/README.md": "DEVICE_FILES.md",
    "device_configs/DEVICES.md": "DEVICES.md",
}

LINK = re.compile(r"(?<!!)\[([^\]\n]+)\]\(([^)\s]+)\)")
FENCE = re.compile(r"^(```.*?^```)", re.M | re.S)


def setup(app: Sphinx) -> dict[str, Any]:
    """Register with Sphinx."""
    app.add_html_math_renderer(
        "mathml", inline_renderers=(_inline, None), block_renderers=(_block, None)
    )
    app.add_lexer("console", BashLexer)  # commands without prompts
    app.connect("source-read", _complete)
    app.connect("autodoc-process-docstring", _as_markdown, priority=100)  # before napoleon
    return {"parallel_read_safe": True}


def _inline(writer: Any, node: nodes.math) -> None:
    writer.body.append(convert(node.astext()))
    raise nodes.SkipNode


def _block(writer: Any, node: nodes.math_block) -> None:
    writer.body.append(f'<div class="math">{convert(node.astext(), display="block")}</div>')
    raise nodes.SkipNode


def _as_markdown(
    app: Sphinx, what: str, name: str, thing: Any, options: Any, lines: list[str]
) -> None:
    """Read docstrings as they are written: `code` in backticks, indented code, bare | and *."""
    found: list[str] = []
    margin, is_code, is_example = 0, False, False
    for number, line in enumerate(lines):
        indent = len(line) - len(line.lstrip())
        after_blank = number > 0 and not lines[number - 1].strip()
        is_example = bool(line.strip()) and (is_example or line.lstrip().startswith(">>>"))
        if line.strip() and is_code and indent <= margin:
            is_code = False
        if line.strip() and not is_code:
            starts_code = after_blank and indent >= margin + 4
            if starts_code and not is_example and not line.lstrip().startswith("- "):
                found += [f"{' ' * margin}::", ""]
                is_code = True
            else:
                margin = indent
        found.append(line if is_code or is_example else _escaped(line))
    lines[:] = found


def _escaped(line: str) -> str:
    """A line with code in double backticks, and | and * outside of it that mean themselves."""
    parts = re.split(r"(``.+?``|:\w+:`[^`]+`|`[^`]+`)", line)
    for at, part in enumerate(parts):
        if at % 2 == 0:
            parts[at] = re.sub(r"(?<!\\)([|*])", r"\\\1", part)
        elif part.startswith("`") and not part.startswith("``"):
            parts[at] = f"`{part}`"
    return "".join(parts)


def _complete(app: Sphinx, page: str, source: list[str]) -> None:
    """Insert what a page takes from elsewhere, and set its links."""
    if not (DOCS / f"{page}.md").is_file():
        return  # a notebook
    text = source[0]
    for marker, path in re.findall(r"(<!-- include: (.+?) -->)", text):
        file = ROOT / path
        text = text.replace(marker, with_links(file.read_text(encoding="utf-8"), file.parent))
    if "<!-- devices -->" in text:
        text = text.replace("<!-- devices -->", catalogue())
    source[0] = with_links(text, DOCS)


def with_links(text: str, folder: Path) -> str:
    """Set the links of a text as if it stood in ``docs``.

    Args:
        text: Markdown; blocks of code stay as they are.
        folder: Folder that its links are relative to.
    """

    def link(match: re.Match[str]) -> str:
        label, target = match.groups()
        path, _, anchor = target.partition("#")
        if not path or ":" in path:
            return match[0]
        file = (folder / path).resolve()
        if file.parent == DOCS:
            return f"[{label}]({file.name}{'#' * bool(anchor)}{anchor})"
        inside = file.relative_to(ROOT).as_posix() if file.is_relative_to(ROOT) else path
        page = PAGES.get(inside)
        if page is None:
            return label if file.exists() else match[0]  # Sphinx reports the second
        return f"[{label}]({page}{'#' * bool(anchor)}{anchor})"

    parts = FENCE.split(text)
    return "".join(part if part.startswith("```") else LINK.sub(link, part) for part in parts)


def catalogue() -> str:
    """All devices that come with the package: a table, then every one with its parameters."""
    devices = [load_device(name) for name in device_names()]
    table = device_table(devices).drop(columns=["model", "source", "what it is"])
    table["device"] = [f"[{device.name}](#{_anchor(device)})" for device in devices]
    by_technology = sorted({device.technology for device in devices})
    parts = [table.to_markdown(index=False)]
    for technology in by_technology:
        parts.append(f"## {'Generic' if technology == 'none' else technology}")
        parts += [_section(device) for device in devices if device.technology == technology]
    parts += ["## Sources", "```{literalinclude} ../device_configs/references.bib\n```"]
    return "\n\n".join(parts)


def _anchor(device: Device) -> str:
    return device.name.replace("_", "-")


def _section(device: Device) -> str:
    rows = parameters(device).fillna("")
    is_given = (rows["source"] != "") | (rows["value"] != rows["default"])
    rows = rows[is_given].drop(columns=["default"])
    rows["parameter"] = [f"`{name}`" for name in rows["parameter"]]
    rows["value"] = [_short(value) for value in rows["value"]]
    cells = rows.map(lambda cell: str(cell).replace("|", "\\|"))
    return "\n\n".join(
        [
            f"({_anchor(device)})=\n### `{device.name}`",
            device.summary,
            f"**Not modelled, and assumptions.** {' '.join(device.limits.split())}",
            cells.to_markdown(index=False),
        ]
    )


def _short(value: str) -> str:
    return value if len(value) <= 80 else f"{value[:77]}..."
