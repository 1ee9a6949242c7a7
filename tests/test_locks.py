"""Claims about locks: one writer a file, on one machine and on several; the dead block nobody."""

import contextlib
import errno
import fcntl
import json
import os
import platform
import signal
import subprocess
import sys
import threading
import time
import warnings

import pytest

from analog_samson import locks
from analog_samson.locks import InUseError, is_in_use, sole_writer

ELSEWHERE = {
    "process": 7,
    "host": "node9",
    "boot": "another machine's",
    "since": "2030-01-01 08:00:00+00:00",
    "token": "theirs",
}


@pytest.fixture
def file(tmp_path):
    return tmp_path / "trials.csv"


def lease_of(file, age_s=0.0, **changes):
    """Write the lease of a process on another machine, renewed some time ago."""
    lease = file.with_name("trials.csv.lease")
    lease.write_text(json.dumps(ELSEWHERE | changes))
    os.utime(lease, (time.time() - age_s,) * 2)
    return lease


@pytest.mark.slow
def test_a_second_writer_is_told_who_writes_where_since_when_and_what_to_do(file):
    with sole_writer(file), pytest.raises(InUseError) as caught, sole_writer(file):
        pass
    for words in (
        f"process {os.getpid()} on {platform.node()} (since 20",
        "Wait until it has ended, give another folder, or divide the study",
        "--part 1/2",
        repr(str(file)),
    ):
        assert words in str(caught.value)


def test_nothing_is_left_when_a_writer_has_ended(file):
    with sole_writer(file):
        assert is_in_use(file)
    assert not is_in_use(file)
    assert list(file.parent.iterdir()) == []


def test_other_files_of_the_folder_are_free(file):
    with sole_writer(file), sole_writer(file.with_name("trials-part1of2.csv")):
        pass


@pytest.mark.slow
def test_a_killed_writer_of_this_machine_blocks_nobody(file):
    script = (
        "import sys, time; from pathlib import Path; from analog_samson.locks import sole_writer\n"
        "with sole_writer(Path(sys.argv[1])): print('mine', flush=True); time.sleep(600)"
    )
    arguments = [sys.executable, "-c", script, str(file)]
    with subprocess.Popen(arguments, stdout=subprocess.PIPE) as process:
        assert process.stdout.readline() == b"mine\n"
        with pytest.raises(InUseError, match=f"process {process.pid} on"), sole_writer(file):
            pass
        assert is_in_use(file)
        process.send_signal(signal.SIGKILL)
    assert not is_in_use(file)
    with sole_writer(file):
        pass


def test_a_fresh_lease_of_another_machine_is_respected(file, monkeypatch):
    lease_of(file, age_s=200)
    assert is_in_use(file)
    refused = pytest.raises(InUseError, match=r"process 7 on node9.*released in \d+ s")
    with refused, sole_writer(file):
        pass
    lease_of(file, age_s=locks.EXPIRES_AFTER_S + 1)
    monkeypatch.setattr(locks, "_PATIENCE_S", 0.01)
    with pytest.warns(UserWarning, match="taken over"), sole_writer(file):
        pass
    assert list(file.parent.iterdir()) == []


def test_a_refused_process_leaves_the_lock_of_the_holder(file, monkeypatch):
    """The file system knows no locks between machines: the other one gets the lock, too."""
    with sole_writer(file):
        with monkeypatch.context() as elsewhere:
            elsewhere.setattr(locks, "_flock", lambda descriptor, kind: True)
            elsewhere.setattr(locks, "_boot", lambda: "another machine's")
            with pytest.raises(InUseError), sole_writer(file):
                pass
        with pytest.raises(InUseError), sole_writer(file):
            pass


def test_a_lease_of_another_machine_that_nobody_renewed_is_taken_over_with_a_sentence(
    file, monkeypatch
):
    monkeypatch.setattr(locks, "_PATIENCE_S", 0.01)
    lease = lease_of(file, age_s=locks.EXPIRES_AFTER_S + 1)
    assert not is_in_use(file)
    with pytest.warns(UserWarning, match="taken over from process 7 on node9"), sole_writer(file):
        assert json.loads(lease.read_text())["process"] == os.getpid()


def test_a_writer_that_was_taken_over_says_so_and_leaves_the_lease_of_the_other(file):
    with sole_writer(file) as lease:
        lease.check()
        theirs = lease_of(file)
        with pytest.raises(InUseError, match="taken over by process 7 on node9"):
            lease.check()
    assert json.loads(theirs.read_text()) == ELSEWHERE


def test_a_lease_is_renewed_as_long_as_its_writer_runs(file, monkeypatch):
    monkeypatch.setattr(locks, "RENEWED_EVERY_S", 0.01)
    with sole_writer(file):
        lease = file.with_name("trials.csv.lease")
        os.utime(lease, (0, 0))
        while lease.stat().st_mtime == 0:
            time.sleep(0.01)


def test_without_locks_of_the_file_system_the_lease_alone_decides(file, monkeypatch):
    def unknown(descriptor, kind):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", unknown)
    refused = pytest.raises(InUseError, match=f"process {os.getpid()} on")
    with sole_writer(file), refused, sole_writer(file):
        pass
    assert not file.with_name("trials.csv.lease").exists()


def test_a_waiting_process_gets_the_file_when_it_is_released(file):
    held = threading.Event()

    def hold():
        with sole_writer(file):
            held.set()
            time.sleep(0.2)

    other = threading.Thread(target=hold)
    other.start()
    held.wait()
    with sole_writer(file, wait_s=60):
        pass
    other.join()


def test_machines_that_claim_a_free_file_at_once_do_not_both_get_it(file, monkeypatch):
    """Without locks of the file system, all look at the lease before one of them writes it."""
    n, read = 4, locks._read
    together = threading.Barrier(n)

    def looked(path):
        holder = read(path)
        with contextlib.suppress(threading.BrokenBarrierError):
            together.wait(0.5)
        return holder

    monkeypatch.setattr(locks, "_locked", lambda file: None)
    monkeypatch.setattr(locks, "_read", looked)
    held, refused, ended = [], [], threading.Event()

    def work():
        try:
            with sole_writer(file):
                held.append(1)
                ended.wait(5)
        except InUseError as error:
            refused.append(str(error))
        if len(refused) == n - 1 or len(held) > 1:
            ended.set()

    threads = [threading.Thread(target=work) for _ in range(n)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=30)
    assert (len(held), len(refused)) == (1, n - 1)


def test_a_lease_released_while_it_is_looked_at_is_free_and_not_expired(file, monkeypatch):
    """Without locks of the file system; its holder ends between a look at content and age."""
    lease, read = locks._lease_of(file), locks._read
    lease.write_text(json.dumps(ELSEWHERE))

    def last_look(path):
        holder = read(path)
        if holder and holder["token"] != own:
            path.unlink()
        return holder

    monkeypatch.setattr(locks, "_locked", lambda file: None)
    identity = locks._identity()
    own = identity["token"]
    monkeypatch.setattr(locks, "_identity", lambda: identity)
    monkeypatch.setattr(locks, "_read", last_look)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with sole_writer(file):
            assert read(lease)["token"] == own
    assert not lease.exists()


def test_a_takeover_whose_warning_is_an_error_leaves_no_lease_behind(file, monkeypatch):
    monkeypatch.setattr(locks, "_PATIENCE_S", 0.0)
    monkeypatch.setattr(locks, "EXPIRES_AFTER_S", -1.0)
    lease = locks._lease_of(file)
    lease.write_text(json.dumps(ELSEWHERE))
    with warnings.catch_warnings(), pytest.raises(UserWarning, match="is taken over"):
        warnings.simplefilter("error")
        locks.Lease(file)
    assert not lease.exists()
    with sole_writer(file):
        pass


def test_a_full_disk_without_hard_links_leaves_no_lease_behind(file, monkeypatch):
    """Its name is there before its content is refused."""
    own = file.with_name("own")
    own.write_text("content")
    read_bytes = type(own).read_bytes

    def full(path):
        read_bytes(path)
        raise OSError(errno.ENOSPC, "no space left")

    def impossible(*_):
        raise OSError(errno.EOPNOTSUPP, "not possible on this file system")

    monkeypatch.setattr(os, "link", impossible)
    monkeypatch.setattr(type(own), "read_bytes", full)
    with pytest.raises(OSError, match="no space left"):
        locks._linked(own, locks._lease_of(file))
    assert not locks._lease_of(file).exists()


@pytest.mark.parametrize("has_hard_links", [True, False])
@pytest.mark.parametrize("has_locks", [True, False])
def test_of_many_that_start_at_once_exactly_one_holds_the_file_at_a_time(
    file, monkeypatch, has_hard_links, has_locks
):
    """Eight threads, each four times; who is inside is alone."""
    inside, seen = [], []

    def impossible(*_):
        raise OSError(errno.EOPNOTSUPP, "not possible on this file system")

    if not has_hard_links:
        monkeypatch.setattr(os, "link", impossible)
    if not has_locks:
        monkeypatch.setattr(fcntl, "flock", impossible)

    def work():
        for _ in range(4):
            with sole_writer(file, wait_s=60):
                inside.append(1)
                seen.append(len(inside))
                time.sleep(0.002)
                inside.pop()

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert seen == [1] * 32
