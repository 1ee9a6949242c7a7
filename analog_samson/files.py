"""Files written whole or not at all, and errors that name the file."""

import contextlib
import errno
import importlib.resources
import os
import stat
import uuid
from collections.abc import Iterator
from importlib.resources.abc import Traversable
from pathlib import Path


def top_folder(name: str) -> Traversable:
    """A folder at the top of the checkout that the installed package holds as its own.

    A checkout takes its own folder, whatever else is installed.

    Args:
        name: ``device_configs`` or ``experiments``.
    """
    package = Path(__file__).parent
    beside = package.parent / name
    if (package.parent / "setup.cfg").is_file() and beside.is_dir():
        return beside
    return importlib.resources.files(f"{package.name}.{name}")


def _own_name() -> str:
    """A name that no other process gives, whatever machine or container it runs in."""
    return f"{os.getpid()}-{uuid.uuid4().hex[:8]}"


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Give a temporary path next to a file; it replaces the file if the block ends without error.

    The mode of the file is that of any new file (given by the umask).

    Raises:
        OSError: If the file cannot be written; an existing one is then as it was.
    """
    with naming(path):
        if path.is_dir():
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
        temporary = path.with_name(f".{path.name}.{_own_name()}.tmp")
        try:
            temporary.touch()
            mode = stat.S_IMODE(temporary.stat().st_mode)
            yield temporary
            temporary.chmod(mode)
            temporary.replace(path)
        finally:
            with contextlib.suppress(OSError):  # there is none, or its folder is gone
                temporary.unlink()


@contextlib.contextmanager
def naming(path: Path) -> Iterator[None]:
    """Errors of the operating system in a block that writes a file, as a sentence with its path.

    Raises:
        OSError: Of the same number, and so of the same class.
    """
    try:
        yield
    except OSError as error:
        if error.errno is None:  # a sentence of this package
            raise
        full = {errno.ENOSPC: "the disk is full", errno.EFBIG: "above the limit of file sizes"}
        why = full.get(error.errno, error.strerror)
        raise OSError(
            error.errno,
            f"{str(path)!r} cannot be written ({why}); an existing file is kept. Free space, or "
            "give another folder, and run again",
        ) from error


def made_folder(folder: str | Path, what: str = "folder") -> Path:
    """Make a folder for results before they are computed.

    Args:
        folder: The folder; its parents are made too.
        what: What it is, for messages.

    Returns:
        Its path.

    Raises:
        ValueError: If the name is not UTF-8, which pages and tables that name it are written in.
        OSError: If it cannot be made, or no file can be made in it.
    """
    folder = Path(folder)
    try:
        str(folder).encode()
    except UnicodeEncodeError as error:
        raise ValueError(
            f"The name of the {what} {str(folder)!r} is not UTF-8; give another name."
        ) from error
    mark = folder / f".{_own_name()}.tmp"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        mark.touch()
        mark.unlink()
    except OSError as error:
        raise OSError(
            f"The {what} {str(folder)!r} cannot be made or written ({error.strerror}); give a "
            "folder that can be written."
        ) from error
    return folder
