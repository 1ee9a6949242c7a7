"""Claims about running jobs: every result once, a dying worker is survived or named."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import joblib
import pytest

from analog_samson.running import cluster, run_jobs


def square(job):
    return job * job


def die_at_three(job):
    if job == 3:
        os.kill(os.getpid(), signal.SIGKILL)
    return job


def die_once(job):
    number, folder = job
    mark = Path(folder) / "died"
    if number == 3 and not mark.exists():
        mark.touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return number


@pytest.mark.parametrize("jobs", [1, 2])
def test_every_job_gives_one_result(jobs):
    assert sorted(run_jobs(square, range(7), jobs=jobs)) == [n * n for n in range(7)]
    assert list(run_jobs(square, [], jobs=jobs)) == []


def test_a_worker_that_dies_once_is_retried(tmp_path):
    pending = [(number, str(tmp_path)) for number in range(6)]
    assert sorted(run_jobs(die_once, pending, jobs=2)) == list(range(6))


def test_the_job_that_kills_its_worker_is_named():
    found = run_jobs(die_at_three, range(6), jobs=2, describe=lambda job: f"job {job}")
    with pytest.raises(RuntimeError, match="A worker process ended three times .* job 3"):
        list(found)


def test_errors_of_a_job_come_through():
    with pytest.raises(ZeroDivisionError):
        list(run_jobs(lambda job: 1 / job, [1, 0], jobs=1))


def test_no_workers_at_all_is_refused():
    with pytest.raises(ValueError, match="at least 1"):
        list(run_jobs(square, [1], jobs=0))


def test_a_cluster_that_cannot_be_reached_is_said():
    pytest.importorskip("dask.distributed")
    with (
        pytest.raises(ConnectionError, match=r"tcp://127.0.0.1:1.*cannot be reached"),
        cluster("tcp://127.0.0.1:1"),
    ):
        pass


@pytest.mark.parametrize("n_local", [0, -1])
def test_a_local_cluster_without_workers_is_refused(n_local):
    with (
        pytest.raises(ValueError, match=f"at least 1 worker; got {n_local}"),
        cluster(None, n_local),
    ):
        pytest.fail("the block has begun")


@pytest.mark.parametrize("jobs", [1, 2])
@pytest.mark.parametrize("backend", ["loky", "threading"])
def test_every_joblib_backend_runs_the_jobs(backend, jobs):
    with joblib.parallel_config(backend=backend):
        assert sorted(run_jobs(square, range(5), jobs=jobs)) == [n * n for n in range(5)]


def work_slowly(number):
    time.sleep(0.05)
    return number, os.getpid()


@pytest.fixture
def scheduler(tmp_path):
    """A Dask scheduler and one worker: their processes, and a client that gives up in a second."""
    distributed = pytest.importorskip("distributed")
    file = tmp_path / "scheduler.json"
    where = [f"--scheduler-file={file}", "--dashboard-address=127.0.0.1:0"]
    commands = (["dask_scheduler", "--host=127.0.0.1", "--port=0"], ["dask_worker", "--nthreads=1"])
    processes = [
        subprocess.Popen(
            [sys.executable, "-m", f"distributed.cli.{name}", *options, *where],
            stderr=subprocess.DEVNULL,
            env=os.environ | {"PYTHONPATH": str(Path(__file__).parent)},
        )
        for name, *options in commands
    ]
    while not file.exists():
        time.sleep(0.05)
    with (
        distributed.Client(scheduler_file=str(file), timeout=30) as client,
        joblib.parallel_config(backend="dask"),
    ):
        client.wait_for_workers(1)
        client._timeout = 1
        yield processes[0]
    for process in processes:
        process.kill()
        process.wait()


def test_a_cluster_of_one_worker_works_there_and_not_in_this_process(scheduler):
    found = dict(run_jobs(work_slowly, range(5)))
    assert sorted(found) == list(range(5))
    assert os.getpid() not in found.values()


def test_a_scheduler_that_dies_is_said_and_ends_the_run(scheduler):
    results = run_jobs(work_slowly, range(1000))
    next(results)
    scheduler.kill()
    with pytest.raises(
        ConnectionError, match=r"The Dask scheduler 'tcp://127.* is gone. Finished rows"
    ):
        list(results)
