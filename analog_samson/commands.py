"""Scripts as commands: typed arguments, and one sentence for invalid input."""

import contextlib
import math
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from types import FrameType
from typing import Any

import tyro

from analog_samson.deprecated import warn_renamed

CLOSING_TAKES_S = 5.0
"""Time for which further SIGTERMs are ignored after the first [s]: our choice."""


class _Terminated(KeyboardInterrupt):
    """SIGTERM, as sent by scancel and systemd; handled as Ctrl-C."""


def run_command(
    main: Callable[..., Any],
    arguments: list[str] | None = None,
    *,
    old_options: Mapping[str, str] | None = None,
) -> None:
    """Run a typed function as a command; its docstring is the help, its parameters the options.

    Args:
        main: The function; its result is discarded.
        arguments: The command line; None takes the process's own.
        old_options: Old names of options that still work, with a warning, to their new names.

    Raises:
        SystemExit: With code 1 and one sentence on standard error for invalid input (a wrong value,
            a missing file, a folder that cannot be written, incompatible versions), with 130 when
            interrupted (Ctrl-C), with 143 when terminated (SIGTERM).
    """
    given = sys.argv[1:] if arguments is None else arguments
    try:
        with _terminable():
            tyro.cli(main, args=_renamed(given, old_options or {}))
    except (ValueError, OSError, ImportError, RuntimeError) as error:
        sys.exit(f"{type(error).__name__}: {error}")
    except KeyboardInterrupt as interrupt:
        is_terminated = isinstance(interrupt, _Terminated)
        what = "Terminated" if is_terminated else "Interrupted"
        sys.stderr.write(f"{what}; what was finished is kept, start again to resume.\n")
        sys.exit(143 if is_terminated else 130)


def _renamed(arguments: Sequence[str], new_of: Mapping[str, str]) -> list[str]:
    """The command line with the new names of its options."""
    renamed = []
    for argument in arguments:
        option, equals, value = argument.partition("=")
        new = new_of.get(option.replace("_", "-"))
        if new is not None:
            warn_renamed(f"Option {option}", new)
        renamed.append(argument if new is None else f"{new}{equals}{value}")
    return renamed


@contextlib.contextmanager
def _terminable() -> Iterator[None]:
    """Raise at SIGTERM; further ones within 5 s are ignored, while files and workers are closed."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    since = -math.inf

    def terminate(number: int, frame: FrameType | None) -> None:
        nonlocal since
        if time.monotonic() - since > CLOSING_TAKES_S:
            since = time.monotonic()
            raise _Terminated

    before = signal.signal(signal.SIGTERM, terminate)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def written(paths: Iterable[Path]) -> str:
    """Text that a command prints of the files it wrote: Markdown tables, then all paths."""
    paths = list(paths)
    tables = [path.read_text(encoding="utf-8") for path in paths if path.suffix == ".md"]
    return "\n".join([*tables, "Written:", *(f"  {path}" for path in paths)])
