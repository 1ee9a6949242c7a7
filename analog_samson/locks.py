"""Exclusive write access to a file: an operating-system lock, and a lease for other machines.

On one machine the operating system's lock decides; it is released when its process ends. A shared
file system may not support locks between machines, so a writer also keeps a lease: a file beside
the written one that identifies the writer and is renewed every 30 s. The age of a lease is the
difference of two file-system times, so that the clocks of the machines need not agree.
"""

import contextlib
import errno
import fcntl
import json
import math
import os
import platform
import threading
import time
import uuid
import warnings
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any, Self

from analog_samson.files import naming

RENEWED_EVERY_S = 30.0
EXPIRES_AFTER_S = 300.0
"""A lease of another machine that was not renewed for ten periods has expired."""

_FIELDS = {"process", "host", "boot", "since", "token"}

_PATIENCE_S = 1.0
"""Time for which a held lock is retried [s]: `is_in_use` of other processes holds it briefly."""


class InUseError(OSError):
    """Another process holds the write access to a file."""


class Lease:
    """Exclusive write access to a file; a context manager that releases it.

    ``<file>.lock`` and ``<file>.lease`` exist beside the file while it is held.
    """

    def __init__(self, file: Path) -> None:
        """Acquire the access.

        Args:
            file: The file to be written; its folder exists.

        Raises:
            InUseError: If another process holds it; the message names process, host and start time.
            OSError: If the folder cannot be written.
        """
        self._file = file
        self._path = _lease_of(file)
        self._own = _identity()
        self._lock = _locked(file)
        try:
            self._claim()
        except InUseError:
            if self._lock is not None:  # its file may be that of the holder, on another machine
                os.close(self._lock)
            raise
        except BaseException:
            self._release()
            raise
        self._ended = threading.Event()
        threading.Thread(target=self._keep, name=f"lease of {file.name}", daemon=True).start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._release()

    def check(self) -> None:
        """Check that this process still holds the access.

        Raises:
            InUseError: If another machine has taken it over, as after a suspension of 5 minutes.
        """
        holder = _read(self._path)
        if holder is not None and holder["token"] != self._own["token"]:
            raise InUseError(
                f"{str(self._file)!r} was taken over by {_named(holder)}: this process had not "
                "renewed its lease for 5 minutes. Its last rows are not written; start it again."
            )

    def _claim(self) -> None:
        own = self._path.with_name(f"{self._path.name}.{self._own['token']}")
        try:
            with naming(self._path):
                own.write_text(json.dumps(self._own), encoding="utf-8")
            while not _linked(own, self._path):
                holder, age_s = _read(self._path), _age_s(self._path, own)
                if math.isfinite(age_s):
                    break  # otherwise released meanwhile
            else:
                return
            if self._lock is not None and holder and holder["boot"] == self._own["boot"]:
                own.replace(self._path)  # of a process of this machine that has ended
                return
            if age_s < EXPIRES_AFTER_S:
                raise _in_use(self._file, holder, EXPIRES_AFTER_S - age_s)
            own.replace(self._path)
            time.sleep(_PATIENCE_S)  # who takes it over at once has replaced the file by now
            self.check()
        finally:
            own.unlink(missing_ok=True)
        warnings.warn(
            f"{str(self._file)!r} is taken over from {_named(holder)}, which has not renewed its "
            f"lease for {age_s / 60:.0f} minutes.",
            stacklevel=4,
        )

    def _keep(self) -> None:
        while not self._ended.wait(RENEWED_EVERY_S):
            with contextlib.suppress(OSError):  # file system temporarily unavailable, or taken over
                self.check()
                os.utime(self._path)

    def _release(self) -> None:
        holder = _read(self._path)
        if holder is not None and holder["token"] == self._own["token"]:
            self._path.unlink(missing_ok=True)
        if self._lock is not None:
            _lock_of(self._file).unlink(missing_ok=True)
            os.close(self._lock)


@contextlib.contextmanager
def sole_writer(file: Path, *, wait_s: float = 0.0) -> Iterator[Lease]:
    """Hold exclusive write access to a file among all machines that share it.

    Args:
        file: The file; its folder exists.
        wait_s: How long to wait for another writer to end [s].

    Raises:
        InUseError: If another process holds it; the message names process, host and start time.
        OSError: If the folder cannot be written.
    """
    until = time.monotonic() + wait_s
    while True:
        try:
            lease = Lease(file)
            break
        except InUseError:
            if time.monotonic() >= until:
                raise
        time.sleep(0.1)
    with lease:
        yield lease


def is_in_use(file: Path) -> bool:
    """Whether a process, on this or another machine, writes a file now."""
    holder = _read(_lease_of(file))
    if holder is None:
        return False
    if holder["boot"] != _boot():
        mark = file.with_name(f"{file.name}.{uuid.uuid4().hex}")
        mark.touch()
        try:
            return _age_s(_lease_of(file), mark) < EXPIRES_AFTER_S
        finally:
            mark.unlink(missing_ok=True)
    try:
        descriptor = os.open(_lock_of(file), os.O_RDWR | os.O_CLOEXEC)
    except FileNotFoundError:
        return False
    try:
        return not _flock(descriptor, fcntl.LOCK_SH)
    finally:
        os.close(descriptor)


def _lock_of(file: Path) -> Path:
    return file.with_name(f"{file.name}.lock")


def _lease_of(file: Path) -> Path:
    return file.with_name(f"{file.name}.lease")


def _locked(file: Path) -> int | None:
    """Descriptor that holds the system's lock; None if the file system has no locks."""
    path, until = _lock_of(file), time.monotonic() + _PATIENCE_S
    while True:
        with naming(path):
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        try:
            is_ours = _flock(descriptor, fcntl.LOCK_EX)
        except OSError:
            os.close(descriptor)
            return None
        # A lock on a file that its holder has removed since it was opened is not valid.
        if is_ours and _is_at(path, descriptor):
            return descriptor
        os.close(descriptor)
        if time.monotonic() >= until:
            raise _in_use(file, _read(_lease_of(file)))
        time.sleep(0.05)


def _linked(file: Path, name: Path) -> bool:
    """Whether a file has got a name that none had; of many that try it at once one succeeds."""
    try:
        os.link(file, name)
    except FileExistsError:
        return False
    except OSError:  # a file system without hard links
        try:
            with name.open("xb") as new:
                new.write(file.read_bytes())
        except FileExistsError:
            return False
        except OSError:
            name.unlink(missing_ok=True)
            raise
    return True


def _is_at(path: Path, descriptor: int) -> bool:
    try:
        return os.path.samestat(path.stat(), os.fstat(descriptor))
    except FileNotFoundError:
        return False


def _flock(descriptor: int, kind: int) -> bool:
    try:
        fcntl.flock(descriptor, kind | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno in (errno.EAGAIN, errno.EACCES):
            return False
        raise
    return True


def _identity() -> dict[str, Any]:
    return {
        "process": os.getpid(),
        "host": platform.node(),
        "boot": _boot(),
        "since": datetime.now().astimezone().isoformat(sep=" ", timespec="seconds"),
        "token": uuid.uuid4().hex,
    }


def _boot() -> str:
    """Identifier of the running machine: host names are not unique, as in containers."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    except OSError:
        return f"{platform.node()} {uuid.getnode()}"


def _read(lease: Path) -> dict[str, Any] | None:
    try:
        content = json.loads(lease.read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError):
        return None
    except OSError as error:
        if error.errno == errno.ESTALE:  # replaced on another machine while it was read
            return None
        raise
    known = isinstance(content, dict) and {"process", "host", "boot", "since", "token"} <= {
        *content
    }
    return content if known else None


def _age_s(lease: Path, mark: Path) -> float:
    """Age of a lease relative to a file written just now [s]."""
    try:
        return mark.stat().st_mtime - lease.stat().st_mtime
    except FileNotFoundError:
        return float("inf")


def _named(holder: dict[str, Any] | None) -> str:
    if holder is None:
        return "another process"
    return f"process {holder['process']} on {holder['host']} (since {holder['since']})"


def _in_use(file: Path, holder: dict[str, Any] | None, free_in_s: float = 0.0) -> InUseError:
    expiry = f" If it has ended, the file is released in {free_in_s:.0f} s." if free_in_s else ""
    return InUseError(
        f"{str(file)!r} is being written by {_named(holder)}; one "
        "process writes a table. Wait until it has ended, give another folder, or divide the study"
        f": part='1/2' and part='2/2' (--part 1/2, --part 2/2) may run at once.{expiry}"
    )
