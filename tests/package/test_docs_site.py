"""The built documentation: no warnings, no broken link, no request to the network."""

import json
import os
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest
from places import ROOT

import analog_samson
from analog_samson.devices import device_names

DOCS = ROOT / "docs"
NOTEBOOKS = sorted(DOCS.glob("*.ipynb"))
LOADED = {  # tags whose address a browser requests when it opens a page
    "img": "src", "script": "src", "iframe": "src", "source": "src", "video": "src",
    "audio": "src", "embed": "src", "object": "data", "link": "href", "image": "href",
}  # fmt: skip
LINKS_NOT_LOADED = {"search", "index", "genindex", "next", "prev", "canonical", "author", "help"}


class Page(HTMLParser):
    """Anchors, links and loaded addresses of a page."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.anchors: set[str] = set()
        self.links: list[str] = []
        self.loaded: list[str] = []
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = {name: value or "" for name, value in attrs}
        self.anchors |= {given[key] for key in ("id", "name") if given.get(key)}
        if tag == "a" and "href" in given:
            self.links.append(given["href"])
        relation = set(given.get("rel", "").split())
        if tag in LOADED and LOADED[tag] in given and not relation & LINKS_NOT_LOADED:
            self.loaded.append(given[LOADED[tag]])
        self.loaded += re.findall(r"url\(([^)]+)\)", given.get("style", ""))
        self.loaded += [part.split()[0] for part in given.get("srcset", "").split(",") if part]


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The documentation, built from nothing with warnings as errors."""
    for package in ("furo", "latex2mathml", "myst_nb", "sphinx"):
        pytest.importorskip(package)
    out = tmp_path_factory.mktemp("html")
    command = [sys.executable, "-m", "sphinx", "-W", "--keep-going", "-q", "-d", out / "trees"]
    done = subprocess.run(
        [*command, "-b", "html", DOCS, out / "html"], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return out / "html"


@pytest.fixture(scope="module")
def pages(site: Path) -> dict[Path, Page]:
    found = {path: Page(path) for path in site.rglob("*.html") if "_static" not in path.parts}
    assert len(found) > 30
    return found


@pytest.mark.slow
def test_every_internal_link_and_anchor_is_there(pages):
    broken = []
    for path, page in pages.items():
        for link in page.links + page.loaded:
            parts = urlsplit(link)
            if parts.scheme or parts.netloc:
                continue
            target = (path.parent / unquote(parts.path)).resolve() if parts.path else path
            anchor = unquote(parts.fragment)
            anchors = pages[target].anchors if target in pages else {anchor}
            if not target.is_file() or (anchor and anchor not in anchors):
                broken.append((path.name, link))
    assert not broken


@pytest.mark.slow
def test_no_page_requests_anything_from_the_network(site, pages):
    asked = [
        (path.name, address)
        for path, page in pages.items()
        for address in page.loaded
        if urlsplit(address).scheme in ("http", "https") or address.startswith("//")
    ]
    assert not asked
    for sheet in site.rglob("*.css"):
        text = sheet.read_text(encoding="utf-8")
        assert not re.search(r"(url\(|@import)\s*['\"]?(https?:)?//", text), sheet
    for script in {s for page in pages.values() for s in page.loaded if ".js" in s}:
        (file,) = site.rglob(Path(urlsplit(script).path).name)
        text = file.read_text(encoding="utf-8")
        assert not re.search(r"(fetch|import|src\s*=)\s*\(?['\"`]https?://", text), file


@pytest.mark.slow
def test_formulas_need_no_script(site):
    text = (site / "CHIPS.html").read_text(encoding="utf-8")
    assert text.count("<math") > 20
    assert "mathjax" not in text.lower() and "$" not in re.sub(r"<script.*?</script>", "", text)


@pytest.mark.slow
def test_every_public_name_and_every_device_has_a_place(pages):
    anchors = {anchor for page in pages.values() for anchor in page.anchors}
    for name in set(analog_samson.__all__) - {"__version__"}:
        package = ".".join(getattr(analog_samson, name).__module__.split(".")[:2])
        assert f"{package}.{name}" in anchors
    assert {name.replace("_", "-") for name in device_names()} <= anchors


@pytest.mark.slow
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_runs_and_prints_what_it_shows(path, tmp_path):
    """Prints and tables of numbers may round differently elsewhere: their shape is compared."""
    nbformat = pytest.importorskip("nbformat")
    nbclient = pytest.importorskip("nbclient")
    pytest.importorskip("ipykernel")
    book = nbformat.read(path, 4)
    before = [kinds(cell) for cell in book.cells]
    assert any("image/png" in kind for cell in before for kind in cell)
    os.environ.setdefault("JUPYTER_PLATFORM_DIRS", "1")
    where = {"metadata": {"path": str(tmp_path)}}
    nbclient.NotebookClient(book, timeout=600, kernel_name="python3", resources=where).execute()
    assert [kinds(cell) for cell in book.cells] == before


def kinds(cell) -> list[str]:
    """What a cell gives: kinds of its outputs, with the number of lines that it prints."""
    found, n_lines = [], 0
    for output in cell.get("outputs", []):
        assert output["output_type"] != "error"
        n_lines += output.get("text", "").count("\n")  # a print may come in pieces
        if output["output_type"] != "stream":
            found += [output["output_type"], *sorted(output.get("data", {}))]
    return [f"{n_lines} lines", *found]


def test_committed_notebooks_name_no_path_of_a_machine_and_are_small():
    assert len(NOTEBOOKS) == 2
    for path in NOTEBOOKS:
        text = path.read_text(encoding="utf-8")
        assert not re.search(r"site-packages|/(home|root|Users)/", text)
        assert len(text) < 400_000
        cells = json.loads(text)["cells"]
        assert all(c["outputs"] or c["execution_count"] for c in cells if c["cell_type"] == "code")
