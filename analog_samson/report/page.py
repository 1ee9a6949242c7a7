"""Report of a study: a self-contained HTML page, and every table and figure as files."""

import base64
import html
import io
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

import matplotlib
import pandas as pd
from matplotlib.figure import Figure

from analog_samson import results
from analog_samson.deprecated import accepts_old_names
from analog_samson.devices import validated
from analog_samson.devices.named import names_in
from analog_samson.files import made_folder, replacing
from analog_samson.report.citations import bibtex
from analog_samson.report.content import Content
from analog_samson.report.contents import select, warnings_of, write_figures, write_tables
from analog_samson.report.datasheet import datasheet
from analog_samson.report.figures import FORMATS
from analog_samson.report.items import Item, with_extra
from analog_samson.report.methods import labelled, shows_methods
from analog_samson.report.style import base_style, style
from analog_samson.report.typeset import Table
from analog_samson.report.words import subset_text
from analog_samson.results import read_trials, score_of, tables_in
from analog_samson.results.columns import DIGEST_LENGTH
from analog_samson.results.scale import Scale
from analog_samson.results.scores import ACCURACY, is_shown_as

_STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem;
  color: #222; }
h1, h2 { line-height: 1.2; } h2 { margin-top: 2.5rem; border-bottom: 1px solid #ccc; }
img { width: 100%; display: block; } figure { margin: 1rem 0; }
figure > div, figure.table { overflow-x: auto; }
figcaption { font-size: 0.85em; color: #444; margin-bottom: 0.5rem; }
figure.table figcaption { position: sticky; left: 0; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; font-size: 0.85em; }
th, td { padding: 0.2rem 0.7rem; text-align: left; border: 0; white-space: nowrap; }
thead th { border-top: 2px solid #222; border-bottom: 1px solid #222; }
tbody tr:last-child td { border-bottom: 2px solid #222; }
.warnings { background: #fff4e0; border-left: 4px solid #e69f00; padding: 0.5rem 1rem; }
pre { background: #f5f5f5; padding: 0.7rem; font-size: 0.8em;
  white-space: pre-wrap; overflow-wrap: anywhere; }
@media print { body { max-width: none; margin: 0; font-size: 10pt; }
  img { min-width: 0 !important; } figure > div, figure.table { overflow: visible; }
  table { font-size: 7.5pt; } th, td { padding: 0.1rem 0.3rem; }
  figure, tr { break-inside: avoid; } h2 { break-after: avoid; } }
"""


@accepts_old_names(trials="rows")
@shows_methods
def write_report(
    folder: str | Path | Sequence[str | Path],
    *,
    out: str | Path | None = None,
    baseline: str = "sgd",
    confidence: float = 0.95,
    look: str = "paper",
    width: str | float = "two columns",
    scale: Scale = "auto",
    target: float | None = None,
    methods: Sequence[str] = (),
    overlay: Sequence[str] = (),
    command: str = "",
    extra_items: Iterable[Item | str] = (),
    shown_as: str = "",
    labels: Mapping[str, str] = MappingProxyType({}),
    details: bool = False,
    rows: pd.DataFrame | None = None,
) -> list[Path]:
    """Redraw all tables and figures of a study, and its page, from the files in its folder.

    Several studies have one page, a part for each score; studies of one score are read together.

    Only ``trials.csv`` is required; these files are shown where they exist: ``manifest.json``,
    ``audit.csv``, ``device_<name>.csv``, ``waterfall.csv``, ``layers.csv``, ``sharpness.csv``,
    ``training_curves.csv``.

    Args:
        folder: Folder of the study, or folders of several.
        out: Where the files are written; by default the folder of the study. Studies of several
            scores have their tables and figures in folders of it, named after the scores.
        baseline: Method that gains are counted from.
        confidence: Probability with which an interval covers the true mean.
        look: "paper", "talk" or the path of a style sheet (.mplstyle).
        width: "one column", "two columns" or inches, of the figures.
        scale: Scale of means, gains and tests: "auto", "accuracy" or "logit" (see `Content`).
        target: Accuracy that chips must reach for the yield, as a fraction; None takes
            `results.default_targets`.
        methods: Methods to keep, with or without strength; empty keeps all.
        overlay: What is laid over each other on one axes, in a figure of its own (see `Content`).
        command: The command that made the study, for the page; empty takes the manifest's.
        extra_items: Figures and tables of other packages, shown after the others: each an `Item`,
            or its import name ("package.module:name").
        shown_as: Name that the score is shown under, such as "bits_per_token" for
            ``cross_entropy`` (see `results.shown_as`); of several scores, those that it is a name
            of.
        labels: Names of methods, devices, networks and data sets to labels (see `labelled`).
        details: Whether captions name engine and precision.
        rows: The rows of its ``trials.csv``, if they have been read already; of one study.

    Returns:
        The files written.

    Raises:
        FileNotFoundError: If the folder has no ``trials.csv``.
        ValueError: If the table is empty or damaged, an extra item is not an `Item`, or several
            studies are given without ``out``, or with rows.

    Example:
        >>> written = write_report("digits/one")
        >>> [path.name for path in written if path.suffix == ".html"]
        ['report.html']
    """
    folders = [Path(one) for one in ([folder] if isinstance(folder, str | Path) else folder)]
    if not folders or (len(folders) > 1 and (out is None or rows is not None)):
        raise ValueError(
            f"A page shows one study, or several with out=...; got {len(folders)} folders."
        )
    items = with_extra(extra_items)
    by_score = {"": (folders, rows)} if rows is not None else _by_score(folders)
    whole = folders[0] if out is None else made_folder(Path(out), "folder of the page")
    paths, bodies, names = [], [], []
    with labelled(labels, details=details):
        for part, (own, found) in by_score.items():
            if found.empty:
                where = str(own[0] / "trials.csv")
                raise ValueError(f"{where!r} holds no rows; run the study first.")
            if shown_as and (len(by_score) == 1 or is_shown_as(found, shown_as)):
                found = results.shown_as(found, shown_as)
            scales = results.scales_of(found, scale)
            content = Content(
                select(found, methods=methods),
                own,
                baseline=baseline,
                confidence=confidence,
                look=look,
                width=width,
                scale=scales,
                target=target,
                overlay=overlay,
            )
            shown = [_Shown(item, item.figures(content), item.tables(content)) for item in items]
            several = len(by_score) > 1
            place = made_folder(whole / part, "folder of a score") if several else whole
            for one in shown:
                paths += write_tables(one.tables, place)
                paths += write_figures(one.figures, place, FORMATS, look=look)
            bodies += _body(content, shown, command, f"{part}-" if several else "")
            names += [name for name in _names(content) if name not in names]
    page = whole / "report.html"
    with replacing(page) as temporary:
        temporary.write_text(_page(names, bodies), encoding="utf-8", newline="\n")
    return [*paths, page]


def _by_score(folders: Sequence[Path]) -> dict[str, tuple[list[Path], pd.DataFrame]]:
    """Column of each score to the folders of its studies and their rows."""
    of_score: dict[str, tuple[list[Path], pd.DataFrame]] = {}
    for folder in folders:
        rows = read_trials(folder)
        own, _ = of_score.setdefault(score_of(rows).name, ([], rows))
        own.append(folder)
    found = {}
    for name, (own, rows) in of_score.items():
        column = score_of(rows).column
        part = column if column not in found else re.sub(r"\W", "_", name)
        found[part] = own, rows if len(own) == 1 else read_trials(*own)
    return found


class _Shown(NamedTuple):
    """An item with its finished figures and tables."""

    item: Item
    figures: Mapping[str, Figure]
    tables: Mapping[str, Table]


def _names(content: Content) -> list[str]:
    """Names of the studies."""
    named = [manifest.get("study", {}).get("name") for manifest in content.manifests]
    return [str(name) for name in dict.fromkeys(filter(None, named))] or [
        str(content.rows["study"].iloc[0])
    ]


def _body(content: Content, shown: Iterable[_Shown], command: str, prefix: str) -> list[str]:
    """The page's part of one score; the prefix is that of its anchors."""
    rows, studies = content.rows, [manifest.get("study", {}) for manifest in content.manifests]
    devices = {k: v for one in content.manifests for k, v in one.get("devices", {}).items()}
    parts = [f"<h1>{html.escape(', '.join(_names(content)))}</h1>"]
    for question in dict.fromkeys(str(study.get("question") or "") for study in studies):
        if question:
            parts.append(f"<p>{html.escape(question)}</p>")
    parts.append(f"<p>{html.escape(_in_short(rows))}</p>")
    warnings = warnings_of(content)
    for folder, manifest in zip(content.folders, content.manifests, strict=True):
        warnings += _unfinished(manifest, rows, folder)
    if warnings:
        items = "".join(f"<li>{html.escape(text)}</li>" for text in warnings)
        parts.append(
            f"<div class='warnings'><b>Before you quote a number</b><ul>{items}</ul></div>"
        )
    for item, figures, tables in shown:
        for stem in {**figures, **tables}:
            title = item.title_of(stem, content.score)
            parts.append(f"<h2 id='{html.escape(prefix + stem)}'>{html.escape(title)}</h2>")
            if stem in figures:
                caption, found = item.caption_of(content), item.finding_of(content)
                size = LETTERS_PT[base_style(content.look)]
                parts.append(_image(figures[stem], title, caption, found, size))
            if stem in tables:
                parts.append(tables[stem].html())
    for folder in content.folders:
        parts += _audit(Path(folder))
    parts += _datasheets(content, devices)
    cite = bibtex(sorted(rows["method"].unique()), devices)
    parts.append(f"<h2>How to cite</h2><pre>{html.escape(cite)}</pre>")
    commands = [str(study.get("command", "")) for study in studies]
    made_by = command or "\n".join(dict.fromkeys(filter(None, commands)))
    if made_by:
        parts.append(f"<h2>Made by</h2><pre>{html.escape(made_by)}</pre>")
    for manifest in filter(None, content.manifests):
        text = json.dumps(manifest, indent=1, sort_keys=True)
        parts.append(
            f"<h2>Manifest</h2><details><summary>Versions, devices, networks, data</summary>"
            f"<pre>{html.escape(text)}</pre></details>"
        )
    return parts


def _page(names: Sequence[str], parts: Sequence[str]) -> str:
    name = ", ".join(names)
    return "\n".join(
        [
            "<!DOCTYPE html>",
            "<html lang='en'><head><meta charset='utf-8'>",
            "<meta name='viewport' content='width=device-width, initial-scale=1'>",
            "<link rel='icon' href='data:,'>",
            f"<title>{html.escape(name)}</title><style>{_STYLE}</style></head><body>",
            *parts,
            "</body></html>\n",
        ]
    )


def _unfinished(manifest: Mapping[str, Any], rows: pd.DataFrame, folder: Path) -> list[str]:
    """Networks of the study that have no row yet; the page may be of some rows of its folder."""
    networks = manifest.get("checkpoints", {})
    digests = {name: network["digest"][:DIGEST_LENGTH] for name, network in networks.items()}
    there = set(rows["checkpoint"])
    if not there.issuperset(digests.values()) and tables_in(folder):
        there |= set(read_trials(folder)["checkpoint"])
    names = [name for name, digest in digests.items() if digest not in there]
    if not names:
        return []
    shown = ", ".join(name.removesuffix(".safetensors") for name in names)
    return [f"The study is not finished: no rows yet of {shown}."]


def _in_short(rows: pd.DataFrame) -> str:
    networks, chips = rows["checkpoint"].nunique(), rows["chip_id"].nunique()
    methods = rows.drop_duplicates(["method", "strength"])
    subset = subset_text(rows)
    score = score_of(rows)
    samples = "images" if score == ACCURACY else f"samples ({score.axis()})"
    return (
        f"{len(methods)} methods, {networks} trained networks, {chips} chips on "
        f"{rows['device'].nunique()} devices, {rows['t_inference_s'].nunique()} times: "
        f"{len(rows)} measurements of {rows['n_images_per_chip'].max()} {samples}"
        f"{f' ({subset})' if subset else ''}."
    )


LETTERS_PT = {"paper": 7.5, "talk": 15.0}
LETTERS_PX = 11.5
"""Least size of a figure's letters on the page, below which it is scrolled instead of shrunk."""


def _image(
    figure: Figure, title: str, caption: str = "", found: str = "", size: float = 7.5
) -> str:
    """A figure of the page.

    Args:
        figure: The figure.
        title: Its title.
        caption: What it shows.
        found: Its main number, in a sentence, for those who do not see it.
        size: Size of its letters [pt].
    """
    file = io.BytesIO()
    with style("paper"), matplotlib.rc_context({"svg.fonttype": "path"}):
        figure.savefig(file, format="svg", metadata={"Date": None})
    data = base64.b64encode(file.getvalue()).decode()
    told = [text.rstrip(".") for text in (title, caption, found) if text]
    alternative = html.escape(". ".join(told) + "." * (len(told) > 1))
    below = f"<figcaption>{html.escape(caption)}</figcaption>" if caption else ""
    least_px = round(figure.get_size_inches()[0] * 72 * LETTERS_PX / size)
    return (
        f"<figure><div><img style='min-width:{least_px}px' alt='{alternative}' "
        f"src='data:image/svg+xml;base64,{data}'></div>{below}</figure>"
    )


def _audit(folder: Path) -> Iterable[str]:
    file = folder / "audit.csv"
    if not file.is_file():
        return []
    audit = pd.read_csv(file, keep_default_na=False)
    if "checkpoint" in audit and len(audit) > 60:
        audit = audit[audit["checkpoint"] == audit["checkpoint"].iloc[0]]
    text = audit.to_html(index=False, border=0)
    summary = "Which layers are analog, and why the others are not (first network)"
    return [
        f"<h2>Audit</h2><details open><summary>{summary}</summary>"
        f"<figure class='table'>{text}</figure></details>"
    ]


def _datasheets(content: Content, devices: Mapping[str, Any]) -> list[str]:
    parts = []
    for name, device in sorted(devices.items()):
        rows = "".join(
            f"<tr><td>{html.escape(key)}</td><td>{html.escape(str(value))}</td></tr>"
            for key, value in _flat(device)
            if key not in ("name", "technology", "summary", "limits")
        )
        parts.append(
            f"<h3>{html.escape(name)} ({html.escape(str(device.get('technology', '')))})</h3>"
            f"<p>{html.escape(str(device.get('summary', '')))} "
            f"<b>Limits:</b> {html.escape(str(device.get('limits', '')))}</p>"
            "<details><summary>Every parameter</summary>"
            f"<table><tbody>{rows}</tbody></table></details>"
        )
        for curves in content.files(f"device_{name}.csv")[:1]:
            parts.append(_datasheet(name, device, pd.read_csv(curves)))
    return ["<h2>Devices</h2>", *parts] if parts else []


def _datasheet(name: str, definition: Mapping[str, Any], moments: pd.DataFrame) -> str:
    why_no_figure = ""
    try:  # what a table names is not imported
        if outside := names_in(definition):
            why_no_figure = f"{outside[0]} is not part of analog-samson"
        else:
            where = f"device {name!r} of manifest.json"
            device = validated(dict(definition), where, from_json=True)
    except ValueError:
        why_no_figure = "the definition is of another version of analog-samson"
    if why_no_figure:
        text = moments.to_html(index=False, border=0, float_format="{:.4g}".format)
        note = f"Moments ({html.escape(why_no_figure)}: no figure)"
        return f"<details><summary>{note}</summary>{text}</details>"
    figure = datasheet(device, moments)
    return _image(figure, f"Datasheet of {name}", found=_found_in(moments))


def _found_in(moments: pd.DataFrame) -> str:
    """The largest spread of the programming error, for those who do not see the datasheet."""
    rows = moments[(moments["quantity"] == "programming") & (moments["unit"] == "µS")]
    if rows.empty:
        return ""
    return f"Largest spread of the programming error: {rows['spread'].max():.3g} µS"


def _flat(definition: Mapping[str, Any], prefix: str = "") -> Iterable[tuple[str, Any]]:
    for key, value in definition.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value
