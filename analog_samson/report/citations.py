"""What to cite: the BibTeX of every method and device that a study used."""

import re
from collections.abc import Iterable, Iterator, Mapping
from importlib import resources

METHOD_SOURCES: Mapping[str, tuple[str, ...]] = {
    "sam": ("foret2021",),
    "asam": ("kwon2021",),
    "samson": ("mordido2022",),
    "rwp": ("li2022",),
    "m_rwp": ("li2024",),
    "arwp": ("li2024",),
    "m_arwp": ("li2024",),
    "saf": ("du2022",),
    "mesa": ("du2022",),
    "noise_injection": ("joshi2020",),
    "hardware_aware": ("rasch2023",),
}
"""Keys of ``methods.bib`` or ``references.bib``; SGD and networks from elsewhere have none."""

ENGINE_SOURCE = "rasch2021"
"""The simulator under every chip (aihwkit)."""


def bibtex(methods: Iterable[str], devices: Mapping[str, object]) -> str:
    """BibTeX entries of methods and devices.

    Args:
        methods: Names of training methods, without strengths.
        devices: Device name to its definition; every ``source`` in it is a key.

    Returns:
        The entries, sorted by key; a key without an entry is named in a comment.
    """
    keys = {ENGINE_SOURCE, *_sources(devices)}
    keys.update(key for method in methods for key in METHOD_SOURCES.get(method, ()))
    known = _entries()
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
        resources.files("analog_samson.device_configs") / "references.bib",
    )
    entries = {}
    for file in files:
        for entry in re.split(r"(?m)^(?=@)", file.read_text(encoding="utf-8")):
            found = re.match(r"@\w+\{([^,]+),", entry)
            if found:
                entries[found.group(1)] = entry.strip()
    return entries
