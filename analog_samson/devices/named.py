"""Sections of other packages, named in a device file by ``"package.module:Section"``."""

from collections.abc import Mapping
from typing import Any, ClassVar, TypeVar

import pydantic

from analog_samson.devices.section import Section
from analog_samson.devices.sentences import explain
from analog_samson.importing import import_callable, is_import_name


class OpenSection(Section):
    """A section whose class is named by the key ``model``.

    For a class of another package, ``model`` is its importable name.
    """

    not_swept: ClassVar[Mapping[str, str]] = {
        **Section.not_swept,
        "model": "other models have other keys; give one device file for each",
    }

    model: str

    @pydantic.model_validator(mode="before")
    @classmethod
    def _by_its_name(cls, given: Any) -> Any:
        if cls.model_fields["model"].annotation is not str or not isinstance(given, dict):
            return given
        name = f"{cls.__module__}:{cls.__qualname__}"
        if cls.__module__ == "__main__" or "<locals>" in name:
            raise ValueError(
                f"the section {cls.__qualname__} cannot be imported by name; define it at the top "
                "of a module, not in a script or function"
            )
        return {"model": name} | given


Kind = TypeVar("Kind", bound=OpenSection)


def named_section(given: Any, kind: type[Kind]) -> Kind | None:
    """Read a section whose key ``model`` is an importable name; the module is imported.

    Args:
        given: Content of the section, or the section itself.
        kind: Its required base class.

    Returns:
        The section; None if its ``model`` is not an importable name.

    Raises:
        ValueError: If it cannot be imported, is no such section, or a key is invalid.
    """
    if isinstance(given, kind):
        return given if is_import_name(given.model) else None
    name = given.get("model") if isinstance(given, Mapping) else None
    if not isinstance(name, str) or not is_import_name(name):
        return None
    found = import_callable(name, "section")
    if not (isinstance(found, type) and issubclass(found, kind)):
        raise ValueError(
            f"{name!r} is not a section of this kind; derive it from "
            f"analog_samson.devices.{kind.__name__}"
        )
    try:
        return found.model_validate(dict(given))
    except pydantic.ValidationError as error:
        raise ValueError(explain(error.errors(), found)) from None


def names_in(content: Mapping[str, Any]) -> list[str]:
    """Importable names of other packages in the content of a device file, valid or not."""
    layers, periphery = content.get("layers"), content.get("periphery")
    effects = periphery.get("effects") if isinstance(periphery, Mapping) else None
    overrides = layers if isinstance(layers, list | tuple) else ()
    sections = [
        content.get("noise"),
        *(override.get("noise") for override in overrides if isinstance(override, Mapping)),
        *(effects if isinstance(effects, list | tuple) else ()),
    ]
    names = [section.get("model") for section in sections if isinstance(section, Mapping)]
    named = [name for name in names if isinstance(name, str) and is_import_name(name)]
    return [name for name in named if not name.startswith(f"{__package__}.")]
