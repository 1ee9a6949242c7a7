"""Appearance of methods in reports: of this package, and of other packages from manifests.

Reports import no method that a table names: label, style and citation of methods of other packages
were written into the manifest when the study ran.
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
from typing import ParamSpec, TypeVar

from analog_samson.methods import EXTERNAL, EXTERNAL_METHOD, METHODS, Appearance

Given = ParamSpec("Given")
Result = TypeVar("Result")

KNOWN_METHODS: Mapping[str, Appearance] = {**METHODS, EXTERNAL: EXTERNAL_METHOD}

_described: ContextVar[Mapping[str, Appearance]] = ContextVar(
    "_described", default=MappingProxyType({})
)


def appearance(method: str) -> Appearance:
    """Appearance of a method; the default label is the last part of its name."""
    found = KNOWN_METHODS.get(method) or _described.get().get(method)
    return found or Appearance(label=method.rpartition(":")[2].replace("_", " ") or "?")


@contextmanager
def described_in(folders: Iterable[str | Path]) -> Iterator[None]:
    """Use the appearance of methods that the manifests of studies describe.

    Args:
        folders: Folders of studies; a manifest is optional.

    Raises:
        ValueError: If a manifest describes a method that cannot be drawn.
    """
    found: dict[str, Appearance] = {}
    for folder in folders:
        found |= _read(Path(folder) / "manifest.json")
    token = _described.set({**_described.get(), **found})
    try:
        yield
    finally:
        _described.reset(token)


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
