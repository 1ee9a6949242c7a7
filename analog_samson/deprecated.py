"""Old names of public objects and arguments: they keep working for one version, with a warning."""

import functools
import importlib
import warnings
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

Callee = TypeVar("Callee", bound=Callable[..., Any])


def accepts_old_names(**new_of: str) -> Callable[[Callee], Callee]:
    """Decorate a function, or a class, so that it accepts old names of its keyword arguments.

    Args:
        **new_of: Old name to new name. The new argument's default value is None, so that both
            names in one call are an error unless the new one is None.

    Returns:
        The decorator. Every use of an old name gives a `FutureWarning` that names the new one.
    """

    def renamed(arguments: dict[str, Any], what: str) -> dict[str, Any]:
        for old in [name for name in arguments if name in new_of]:
            new, value = new_of[old], arguments.pop(old)
            if arguments.get(new) is not None:
                raise ValueError(
                    f"{what} was given {new!r} and {old!r}, its old name; give {new!r} only."
                )
            warn_renamed(f"Argument {old!r} of {what}", repr(new), stacklevel=3)
            arguments[new] = value
        return arguments

    def decorate(callee: Callee) -> Callee:
        what = callee.__name__
        function: Callable[..., Any] = callee.__init__ if isinstance(callee, type) else callee  # type: ignore[misc]

        @functools.wraps(function)
        def call(*positional: Any, **arguments: Any) -> Any:
            return function(*positional, **renamed(arguments, what))

        if isinstance(callee, type):
            callee.__init__ = call  # type: ignore[misc]
            return callee
        return call  # type: ignore[return-value]

    return decorate


def old_names(module: str, new_of: Mapping[str, str]) -> Callable[[str], Any]:
    """A module's ``__getattr__`` that still gives objects by their old names.

    Args:
        module: The module's ``__name__``.
        new_of: Old name to new name.
    """

    def find(name: str) -> Any:
        if name not in new_of:
            raise AttributeError(f"module {module!r} has no attribute {name!r}")
        warn_renamed(f"{module}.{name}", f"{module}.{new_of[name]}", stacklevel=2)
        return getattr(importlib.import_module(module), new_of[name])

    return find


def warn_renamed(old: str, new: str, *, stacklevel: int = 2) -> None:
    """Warn that a name has changed; the old one is removed in the next version.

    Args:
        old: The old name and what it is a name of.
        new: The new name.
        stacklevel: As for `warnings.warn`, counted from the caller.
    """
    warnings.warn(
        f"{old} is now named {new}; the old name is removed in the next version.",
        FutureWarning,
        stacklevel=stacklevel + 1,
    )
