"""Scripts as commands: typed arguments, and one sentence for invalid input."""

import contextlib
import math
import re
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from types import FrameType
from typing import Any

import tyro

from analog_samson.deprecated import warn_renamed
from analog_samson.files import top_folder

CLOSING_TAKES_S = 5.0
"""Time for which further SIGTERMs are ignored after the first [s]: our choice."""


UNEXPECTED = (
    "This error was not foreseen; it is a fault of analog-samson, of a library, or of code of your "
    "own that it calls (see the last lines above). If it is ours, please report it with the whole "
    "text and the command."
)

_FILE_IN_TRACEBACK = re.compile(r'^\s*File "([^"]+)", line \d+', re.M)


class _Terminated(KeyboardInterrupt):
    """SIGTERM, as sent by scancel and systemd; handled as Ctrl-C."""


def run_command(
    main: Callable[..., Any],
    arguments: list[str] | None = None,
    *,
    old_options: Mapping[str, str] | None = None,
    program: str | None = None,
) -> None:
    """Run a typed function as a command; its docstring is the help, its parameters the options.

    ``--traceback`` on the command line shows where an error comes from.

    Args:
        main: The function; its result is discarded.
        arguments: The command line; None takes the process's own.
        old_options: Old names of options that still work, with a warning, to their new names.
        program: Name of the command in its help; None takes the script's name.

    Raises:
        SystemExit: With code 1 and one sentence on standard error for invalid input (a wrong value,
            a missing file, a folder that cannot be written, incompatible versions); with code 1
            and the traceback for any other exception; with 130 when interrupted (Ctrl-C), with
            143 when terminated (SIGTERM).
    """
    given = _renamed(sys.argv[1:] if arguments is None else arguments, old_options or {})
    options = [argument for argument in given if argument != "--traceback"]
    try:
        with _terminable():
            tyro.cli(main, args=options, prog=program)
    except Exception as error:
        if is_explained(error) and len(options) == len(given):
            sys.exit(f"{type(error).__name__}: {error}")
        traceback.print_exception(error)
        if not is_explained(error):
            sys.stderr.write(f"\n{UNEXPECTED}\n")
        sys.exit(1)
    except KeyboardInterrupt as interrupt:
        is_terminated = isinstance(interrupt, _Terminated)
        what = "Terminated" if is_terminated else "Interrupted"
        sys.stderr.write(f"{what}; what was finished is kept, start again to resume.\n")
        sys.exit(143 if is_terminated else 130)


def is_explained(error: Exception) -> bool:
    """Whether the message of an error is meant for the user, so that no traceback is needed.

    It is where the code of this package raised it, in this process or in a worker, and for errors
    of the operating system, which name the file.
    """
    if isinstance(error, OSError):
        return True
    if not isinstance(error, ValueError | ImportError | RuntimeError):
        return False
    frames = traceback.extract_tb(error.__traceback__)
    # joblib gives the traceback of a worker as the text of the cause
    files = _FILE_IN_TRACEBACK.findall(str(error.__cause__)) or [frame.filename for frame in frames]
    return bool(files) and _is_own(Path(files[-1]))


def _is_own(file: Path) -> bool:
    folders = (Path(__file__).parent, Path(str(top_folder("experiments"))))
    return any(file.resolve().is_relative_to(folder.resolve()) for folder in folders)


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
