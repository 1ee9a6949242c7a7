"""Citations: the BibTeX entries of every method and device of a study."""

import re
from collections.abc import Iterable, Iterator, Mapping
from importlib import resources

from analog_samson.files import top_folder
from analog_samson.report.methods import appearance

ENGINE_SOURCE = "rasch2021"
"""Keys of the simulator (aihwkit), cited by every study."""


def bibtex(methods: Iterable[str], devices: Mapping[str, object]) -> str:
    """BibTeX entries of methods and devices.

    Args:
        methods: Names of training methods, without strengths.
        devices: Device name to its definition; every ``source`` in it is a key.

    Returns:
        The entries, sorted by key; a key without an entry is named in a comment.
    """
    keys = {ENGINE_SOURCE, *_sources(devices)}
    known = _entries()
    for citation in {appearance(method).citation for method in methods} - {""}:
        given = _split(citation)
        known |= given
        keys |= given.keys() or {citation}
    parts = [known.get(key, f"% {key}: not in the bibliography") for key in sorted(keys)]
    return "\n".join(parts) + "\n"


def _sources(definition: object) -> Iterator[str]:
    if isinstance(definition, Mapping):
        for name, value in definition.items():
            if name == "source" and isinstance(value, str):
                yield value
            else:
                yield from _sources(value)
    elif isinstance(definition, list):
        for value in definition:
            yield from _sources(value)


def _entries() -> dict[str, str]:
    files = (
        resources.files("analog_samson.report") / "methods.bib",
        top_folder("device_configs") / "references.bib",
    )
    entries: dict[str, str] = {}
    for file in files:
        entries |= _split(file.read_text(encoding="utf-8"))
    return entries


def _split(text: str) -> dict[str, str]:
    """The BibTeX entries in a text, by key."""
    entries = {}
    for entry in re.split(r"(?m)^(?=@)", text):
        found = re.match(r"@\w+\{([^,]+),", entry)
        if found:
            entries[found.group(1)] = entry.strip()
    return entries
