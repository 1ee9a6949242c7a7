"""The C library in its cache: only a whole library that nobody else can write is ever loaded."""

import logging
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from analog_samson.compiled import kernels

Compiler = Callable[..., None]


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The library, built once by the compiler of this machine."""
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None:
        pytest.skip("no C compiler here")
    with pytest.MonkeyPatch.context() as patch:
        folder = tmp_path_factory.mktemp("cache")
        patch.setenv("XDG_CACHE_HOME", str(folder))
        assert kernels.library.__wrapped__() is not None
    (library,) = (folder / "analog-samson" / "kernels").glob("*.so")
    return library


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "analog-samson" / "kernels"


@pytest.fixture
def compiler(tmp_path: Path, built: Path, monkeypatch: pytest.MonkeyPatch) -> Compiler:
    """Puts a compiler in place that copies the library; it counts its builds."""

    def place(version: str = "cc 1", build: str = f'cp "{built}" "$out"') -> None:
        script = tmp_path / "cc"
        script.write_text(
            f'#!/bin/sh\nif [ "$1" = --version ]; then echo "{version}"; exit; fi\n'
            'while [ "$1" != -o ]; do shift; done; out=$2\n'
            f'echo built >> "{tmp_path / "builds"}"\n{build}\n'
        )
        script.chmod(0o755)
        monkeypatch.setenv("CC", str(script))

    place()
    return place


def n_builds(tmp_path: Path) -> int:
    log = tmp_path / "builds"
    return len(log.read_text().splitlines()) if log.exists() else 0


def start() -> bool:
    """What a process does at its start; whether it then has the library."""
    return kernels.library.__wrapped__() is not None


@pytest.mark.slow
@pytest.mark.usefixtures("compiler")
def test_the_library_is_built_once_and_kept_for_this_user_alone(
    tmp_path: Path, cache: Path, built: Path
) -> None:
    before = os.umask(0o002)  # the usual one where every user has a group
    try:
        assert start() and start()
    finally:
        os.umask(before)
    assert n_builds(tmp_path) == 1
    (kept,) = cache.iterdir()
    assert kept.read_bytes() == built.read_bytes()
    assert [path.stat().st_mode & 0o777 for path in (cache, kept)] == [0o700, 0o700]


@pytest.mark.usefixtures("compiler")
@pytest.mark.parametrize("length", [0, 100, 30_000, None])
def test_a_damaged_library_is_not_loaded_but_built_again(
    length: int | None, tmp_path: Path, cache: Path, built: Path
) -> None:
    assert start()
    (kept,) = cache.iterdir()
    kept.unlink()  # the file that is mapped must stay whole
    kept.write_bytes(b"not a library" if length is None else built.read_bytes()[:length])
    kept.chmod(0o700)
    assert start()
    assert n_builds(tmp_path) == 2
    assert kept.read_bytes() == built.read_bytes()


@pytest.mark.usefixtures("compiler")
@pytest.mark.parametrize("mode", [0o720, 0o702])
@pytest.mark.parametrize("what", ["file", "folder"])
def test_what_others_can_write_is_not_loaded(
    what: str, mode: int, tmp_path: Path, cache: Path, caplog: pytest.LogCaptureFixture
) -> None:
    assert start()
    (kept,) = cache.iterdir()
    (kept if what == "file" else cache).chmod(mode)
    assert start()
    assert n_builds(tmp_path) == 2
    assert ("can be written by others" in caplog.text) == (what == "folder")
    assert start()
    assert n_builds(tmp_path) == (2 if what == "file" else 3)


@pytest.mark.usefixtures("compiler")
def test_what_another_user_owns_is_not_loaded(
    tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert start()
    somebody = os.geteuid() + 1
    monkeypatch.setattr(kernels.os, "geteuid", lambda: somebody)
    assert start()
    assert n_builds(tmp_path) == 2
    assert len(list(cache.iterdir())) == 1


@pytest.mark.usefixtures("cache")
def test_another_version_of_the_compiler_builds_its_own(tmp_path: Path, compiler: Compiler) -> None:
    assert start()
    compiler(version="cc 2")
    assert start() and start()
    assert n_builds(tmp_path) == 2


def test_a_build_that_breaks_off_leaves_nothing(cache: Path, compiler: Compiler) -> None:
    compiler(build='echo half > "$out"; exit 1')
    assert not start()
    assert list(cache.iterdir()) == []


@pytest.mark.usefixtures("cache", "compiler")
def test_without_a_compiler_the_cached_library_is_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    assert start()
    monkeypatch.delenv("CC")
    monkeypatch.setenv("PATH", str(tmp_path))
    (tmp_path / "cc").unlink()
    assert start()
    assert not caplog.records


@pytest.mark.usefixtures("cache")
def test_without_compiler_and_library_it_is_said_once_that_this_is_slow(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.delenv("CC", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))
    kernels.library.cache_clear()
    try:
        assert kernels.library() is None and kernels.library() is None
    finally:
        kernels.library.cache_clear()
    (record,) = caplog.records
    assert record.levelno == logging.WARNING
    assert "no C compiler on PATH" in caplog.text and "many times slower" in caplog.text


@pytest.mark.slow
@pytest.mark.usefixtures("cache")
@pytest.mark.parametrize("hangs_at", ["version", "build"])
def test_a_compiler_that_hangs_is_ended_and_torch_operations_are_used(
    hangs_at: str,
    tmp_path: Path,
    compiler: Compiler,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    hang = f"echo $$ > '{tmp_path / 'process'}'; sleep 1000"
    compiler(**({"version": f'$({hang})"; echo "'} if hangs_at == "version" else {"build": hang}))
    monkeypatch.setattr(kernels, "COMPILER_TAKES_S", 1.0)
    assert not start()
    (record,) = caplog.records
    assert "did not end within 1 s: torch operations are used instead" in record.getMessage()
    with pytest.raises(ProcessLookupError):
        os.killpg(os.getpgid(int((tmp_path / "process").read_text())), 0)
