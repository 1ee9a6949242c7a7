"""Import of objects named ``package.module:name``, and the trust that it requires.

Importing a module runs its code. A name that the user gives on the command line or in Python is
imported; a name in a file (checkpoint, study, device) is imported only from packages that the user
trusts.
"""

import difflib
import importlib
import inspect
import os
from collections.abc import Callable, Iterable, Sequence
from typing import Any

TRUST_VARIABLE = "ANALOG_SAMSON_TRUST"
"""Environment variable: packages trusted in every process, separated by commas."""


def is_import_name(name: str) -> bool:
    """Whether a text names an object to import, rather than an entry of this package."""
    return ":" in name


def import_named(name: str, what: str) -> Any:
    """Import an object by its name.

    Args:
        name: ``package.module:name``; the part after the colon may hold dots.
        what: Kind of the object, such as "model", for messages.

    Returns:
        The object.

    Raises:
        ValueError: If the module cannot be imported or has no such attribute.
    """
    module_name, _, attribute = name.partition(":")
    try:
        found: Any = importlib.import_module(module_name)
    except Exception as error:  # any exception that the module raises
        said = str(error) if isinstance(error, ImportError) else f"{type(error).__name__}: {error}"
        raise ValueError(
            f"The {what} {name!r} cannot be imported ({said}); write 'package.module:name' and "
            "make the package importable (install it, or set PYTHONPATH)."
        ) from error
    for piece in attribute.split("."):
        if not hasattr(found, piece):
            close = difflib.get_close_matches(piece, dir(found), n=1)
            hint = f" Did you mean {close[0]!r}?" if close else ""
            raise ValueError(f"{module_name} has no {attribute!r} for the {what} {name!r}.{hint}")
        found = getattr(found, piece)
    return found


def import_callable(name: str, what: str) -> Callable[..., Any]:
    """Import a class or function that its own package defines.

    Args:
        name: ``package.module:name``.
        what: Kind of the object, such as "model", for messages.

    Returns:
        The class or function.

    Raises:
        ValueError: If it cannot be imported, is neither a class nor a function, or is defined
            in another package.
    """
    found = import_named(name, what)
    if not (inspect.isclass(found) or inspect.isroutine(found)):
        raise ValueError(
            f"The {what} {name!r} is a {type(found).__name__}; name a class or a function."
        )
    home = str(getattr(found, "__module__", None))
    if _package(home) != _package(name):
        raise ValueError(
            f"The {what} {name!r} is defined in {home!r}, not in {_package(name)!r}; name the "
            "package that defines it."
        )
    named: Callable[..., Any] = found
    return named


def check_trust(names: Iterable[str], *, source: str, trust: Sequence[str] = ()) -> None:
    """Refuse a file that names code of packages that the user does not trust.

    Args:
        names: Names in the file; those without a colon import nothing.
        source: The file, for the message.
        trust: Packages that may be imported, besides those of the variable `TRUST_VARIABLE`:
            ``my_package`` covers all of its modules.

    Raises:
        ValueError: If a name belongs to a package that is not trusted; nothing has been imported.
    """
    if isinstance(trust, str):
        raise ValueError(f"trust is a list of packages; got {trust!r}, write ({trust!r},).")
    allowed = {*trust, *map(str.strip, os.environ.get(TRUST_VARIABLE, "").split(","))} - {""}
    for name in names:
        if is_import_name(name) and (package := _package(name)) not in allowed:
            raise ValueError(
                f"{source} requires the import of {name!r}, which runs code of the package "
                f"{package!r}. If you trust it: trust=({package!r},) in Python, --trust {package} "
                f"on the command line, or {TRUST_VARIABLE}={package} in the environment."
            )


def packages_of(names: Iterable[str]) -> tuple[str, ...]:
    """The packages that names are imported from, each once; those without a colon import none."""
    return tuple(dict.fromkeys(_package(name) for name in names if is_import_name(name)))


def _package(name: str) -> str:
    return name.partition(":")[0].partition(".")[0]
