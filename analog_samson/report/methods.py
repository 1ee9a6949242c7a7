"""Appearance of methods, data sets and scores in reports, of other packages from manifests.

Reports import nothing that a table names: label, style and citation of methods of other packages,
labels of data sets, and label, unit, direction and digits of scores were written into the manifest
when the study ran.
"""

import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import fields
from functools import wraps
from inspect import signature
from pathlib import Path
from types import MappingProxyType
from typing import Any, ParamSpec, TypeVar

from analog_samson.methods import EXTERNAL, EXTERNAL_METHOD, METHODS, Appearance
from analog_samson.results.scores import described

Given = ParamSpec("Given")
Result = TypeVar("Result")

KNOWN_METHODS: Mapping[str, Appearance] = {**METHODS, EXTERNAL: EXTERNAL_METHOD}

_described: ContextVar[Mapping[str, Appearance]] = ContextVar(
    "_described", default=MappingProxyType({})
)
_labels: ContextVar[Mapping[str, str]] = ContextVar("_labels", default=MappingProxyType({}))


def dataset_label(dataset: str) -> str:
    """What a data set is called in reports; one that nothing describes has the end of its name."""
    return _labels.get().get(dataset) or dataset.rpartition(":")[2].partition("@")[0]


def appearance(method: str) -> Appearance:
    """Appearance of a method; the default label is the last part of its name."""
    found = KNOWN_METHODS.get(method) or _described.get().get(method)
    return found or Appearance(label=method.rpartition(":")[2].replace("_", " ") or "?")


@contextmanager
def described_in(folders: Iterable[str | Path]) -> Iterator[None]:
    """Use the appearance of methods, data sets and scores that the manifests of studies describe.

    Args:
        folders: Folders of studies; a manifest is optional.

    Raises:
        ValueError: If a manifest describes a method that cannot be drawn, or gives a data set a
            label that is no text, or describes a score wrongly.
    """
    found: dict[str, Appearance] = {}
    labels: dict[str, str] = {}
    scores: dict[str, Any] = {}
    for folder in folders:
        manifest = Path(folder) / "manifest.json"
        scores |= _read_scores(manifest)
        found |= _read(manifest)
        labels |= _read_labels(manifest)
    given = list(labels.values())
    labels = {
        dataset: f"{label} [{dataset.rpartition('@')[2][:6]}]"  # other contents, the same name
        if "@" in dataset and given.count(label) > 1
        else label
        for dataset, label in labels.items()
    }
    token = _described.set({**_described.get(), **found})
    labelled = _labels.set({**_labels.get(), **labels})
    try:
        with described(scores):
            yield
    finally:
        _described.reset(token)
        _labels.reset(labelled)


def shows_methods(function: Callable[Given, Result]) -> Callable[Given, Result]:
    """Decorate a function to use the appearances described by the studies in its first argument."""
    arguments = signature(function)

    @wraps(function)
    def inside(*args: Given.args, **kwargs: Given.kwargs) -> Result:
        folders = next(iter(arguments.bind(*args, **kwargs).arguments.values()))
        with described_in([folders] if isinstance(folders, str | Path) else folders):
            return function(*args, **kwargs)

    return inside


def _read(manifest: Path) -> dict[str, Appearance]:
    if not manifest.is_file():
        return {}
    content = json.loads(manifest.read_text(encoding="utf-8"))
    names = {f.name for f in fields(Appearance)}
    found = {}
    for method, description in content.get("methods", {}).items():
        try:
            known = {name: value for name, value in description.items() if name in names}
            found[method] = Appearance(**known)
        except (AttributeError, TypeError, ValueError) as error:
            raise ValueError(f"{str(manifest)!r} cannot describe {method!r}: {error}") from error
    return found


def _read_labels(manifest: Path) -> dict[str, str]:
    if not manifest.is_file():
        return {}
    content = json.loads(manifest.read_text(encoding="utf-8"))
    found = {}
    for dataset, description in content.get("datasets", {}).items():
        label = description.get("label") if isinstance(description, dict) else None
        if not isinstance(label, str):
            raise ValueError(
                f"{str(manifest)!r} gives the data set {dataset!r} no label; it needs a text."
            )
        found[dataset] = label
    return found


def _read_scores(manifest: Path) -> dict[str, Any]:
    if not manifest.is_file():
        return {}
    return dict(json.loads(manifest.read_text(encoding="utf-8")).get("scores", {}))
