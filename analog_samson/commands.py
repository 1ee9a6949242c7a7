"""How a script becomes a command: typed arguments, and one sentence for a user's mistake."""

import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import tyro


def run_command(main: Callable[..., Any], arguments: list[str] | None = None) -> None:
    """Run a typed function as a command; its docstring is the help, its parameters the options.

    Args:
        main: The function; what it returns is dropped.
        arguments: The command line; None takes the process's own.

    Raises:
        SystemExit: With code 1 and one sentence on standard error for a user's mistake (a wrong
            value, a missing file, a folder that cannot be written, versions that do not work
            together), with 130 when interrupted.
    """
    try:
        tyro.cli(main, args=arguments)
    except (ValueError, OSError, ImportError, RuntimeError) as error:
        sys.exit(f"{type(error).__name__}: {error}")
    except KeyboardInterrupt:
        sys.stderr.write("Interrupted; what was finished is kept, start again to resume.\n")
        sys.exit(130)


def written(paths: Iterable[Path]) -> str:
    """What a command shows of the files it wrote: the Markdown tables, then every path."""
    paths = list(paths)
    tables = [path.read_text(encoding="utf-8") for path in paths if path.suffix == ".md"]
    return "\n".join([*tables, "Written:", *(f"  {path}" for path in paths)])
