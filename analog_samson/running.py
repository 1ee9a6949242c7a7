"""Independent jobs in parallel with joblib or Dask: progress, retries, errors that name the job.

Studies and training grids use it. If the caller has chosen a joblib backend
(``joblib.parallel_config(backend="dask")``) the jobs run there only: when the scheduler of a
cluster fails, the run ends.
"""

import contextlib
import functools
import os
import sys
import threading
import time
import warnings
from collections.abc import Callable, Generator, Iterator, Sequence
from typing import Any, TypeVar

import joblib
from joblib.externals.loky.process_executor import TerminatedWorkerError
from tqdm.auto import tqdm

Job = TypeVar("Job")
Result = TypeVar("Result")


def run_jobs(
    function: Callable[[Job], Result],
    pending: Sequence[Job],
    *,
    jobs: int = 1,
    describe: Callable[[Job], str] = str,
    progress: str | None = None,
) -> Generator[Result, None, None]:
    """Run a function over jobs and yield every result as soon as it is finished, in any order.

    Unfinished jobs of a worker process that ends (out of memory, killed) are run again once, and
    then one at a time, so that the error can name the job. Workers on this machine end within
    seconds when this process ends.

    Args:
        function: Function of a job; picklable.
        pending: The jobs.
        jobs: Worker processes; 1 runs in this process, -1 takes every core.
        describe: Returns the name of a job for messages.
        progress: Title of a progress bar with the time left; None shows none.

    Yields:
        Results.

    Raises:
        RuntimeError: If the worker process of a job ends three times; names the job.
        ConnectionError: If the scheduler of a Dask cluster fails.
        ValueError: If ``jobs`` is 0.
    """
    check_jobs(jobs)
    left = dict(enumerate(pending))
    with tqdm(
        total=len(left), desc=progress, unit="job", mininterval=1.0, disable=progress is None
    ) as bar:
        for groups in (_all_at_once, _all_at_once, _one_by_one):
            try:
                for group in groups(left):
                    with _aborted_at_the_end(_run(function, group, jobs)) as results:
                        for number, result in results:
                            del left[number]
                            bar.update()
                            yield result
            except _worker_deaths() as error:
                if groups is _one_by_one:
                    failed = describe(next(iter(left.values())))
                    raise RuntimeError(
                        f"A worker process ended three times while running {failed}; it may need "
                        "more memory than is available. Finished rows are kept; start again to "
                        "resume."
                    ) from error
            if not left:
                return


def check_jobs(jobs: int) -> None:
    """Check a number of worker processes.

    Raises:
        ValueError: If it is 0.
    """
    if jobs == 0:
        raise ValueError("jobs must be at least 1, or -1 for every core; got 0.")


def _worker_deaths() -> tuple[type[BaseException], ...]:
    """Exceptions raised when a worker process ends, on this machine or on a Dask cluster."""
    if "distributed" not in sys.modules:
        return (TerminatedWorkerError,)
    from distributed import CancelledError, KilledWorker
    from distributed.comm.core import CommClosedError

    return (TerminatedWorkerError, CancelledError, KilledWorker, CommClosedError)


def _all_at_once(left: dict[int, Job]) -> Iterator[dict[int, Job]]:
    yield dict(left)


def _one_by_one(left: dict[int, Job]) -> Iterator[dict[int, Job]]:
    for number, job in list(left.items()):
        yield {number: job}


def _run(
    function: Callable[[Job], Result], group: dict[int, Job], jobs: int
) -> Generator[tuple[int, Result], None, None]:
    if not group:
        return
    client = _dask_client()
    if client is not None:
        yield from _run_on_dask(client, function, group)
        return
    # n_jobs only if given: a backend that the caller configured has its own workers.
    parallel = joblib.Parallel(
        **({} if jobs == 1 else {"n_jobs": jobs}), return_as="generator_unordered", batch_size=1
    )
    work = functools.partial(_numbered, function, os.getpid())
    yield from parallel(joblib.delayed(work)(number, job) for number, job in group.items())


def _numbered(
    function: Callable[[Any], Result], owner: int, number: int, job: Any
) -> tuple[int, Result]:
    if os.getppid() == owner:
        _end_with(owner)
    return number, function(job)


@functools.cache
def _end_with(owner: int) -> None:
    """End this worker process soon after the process that started it, also if that was killed.

    It begins with the first job: workers of an owner that is killed before end when loky's own
    limit of 5 minutes without a job has passed.
    """

    def watch() -> None:
        while os.getppid() == owner:
            time.sleep(1.0)
        os._exit(1)

    threading.Thread(target=watch, name="end with the owner", daemon=True).start()


@contextlib.contextmanager
def _aborted_at_the_end(
    results: Generator[tuple[int, Result], None, None],
) -> Iterator[Iterator[tuple[int, Result]]]:
    """Stop running jobs when the block ends early."""
    try:
        yield results
    finally:
        with warnings.catch_warnings():
            # joblib warns of results that were computed and not used; expected here.
            warnings.filterwarnings("ignore", category=UserWarning, module="joblib")
            results.close()


def _dask_client() -> Any:
    """The client of the Dask cluster that the caller has chosen; None if there is none."""
    backend, _ = joblib.parallel.get_active_backend()
    return getattr(backend, "client", None)


def _run_on_dask(
    client: Any, function: Callable[[Job], Result], group: dict[int, Job]
) -> Iterator[tuple[int, Result]]:
    """Submit to Dask directly: with one worker joblib would run the jobs in this process."""
    from distributed import as_completed

    address, futures = client.scheduler.address, []
    try:
        if not client.ncores():
            warnings.warn("The Dask cluster has no workers yet; waiting for some.", stacklevel=2)
        futures = [
            client.submit(
                functools.partial(_numbered, function, os.getpid(), number, job), pure=False
            )
            for number, job in group.items()
        ]
        for future in as_completed(futures):  # type: ignore[no-untyped-call]
            yield future.result()
    except Exception as error:
        if _has_scheduler(client):
            raise
        raise ConnectionError(
            f"The Dask scheduler {address!r} is gone. Finished rows are kept; start a scheduler "
            "and give its address, or run without a cluster, to resume."
        ) from error
    finally:
        if client.status == "running":
            client.cancel(futures)


def _has_scheduler(client: Any) -> bool:
    while client.status == "connecting":  # Dask reconnects
        time.sleep(0.1)
    if client.status != "running":
        return False
    try:
        client.ncores()
    except (OSError, RuntimeError, AttributeError):  # the last: the client closes meanwhile
        return False
    return True


@contextlib.contextmanager
def cluster(address: str | None = None, n_local: int | None = None) -> Iterator[None]:
    """Run the jobs of a block on a Dask cluster; without arguments, on this machine.

    Workers read checkpoints and images from the paths of the study (on a shared file system). For
    Slurm, start the cluster with ``dask_jobqueue.SLURMCluster`` and give its address.

    Args:
        address: Address of a running scheduler, such as "tcp://10.0.0.1:8786".
        n_local: Instead: this many worker processes of one thread on this machine.

    Raises:
        ImportError: If dask is not installed.
        ConnectionError: If the scheduler cannot be reached.
        ValueError: If both are given, or less than one local worker.
    """
    if n_local is not None and n_local < 1:
        raise ValueError(f"A local cluster needs at least 1 worker; got {n_local}.")
    if address is None and n_local is None:
        yield
        return
    if address is not None and n_local is not None:
        raise ValueError("Give the address of a cluster or a number of local workers, not both.")
    try:
        from dask.distributed import Client
    except ImportError as error:
        raise ImportError("A cluster needs Dask: pip install 'analog-samson[cluster]'.") from error
    options: dict[str, Any] = (
        {"address": address, "timeout": 10}
        if n_local is None
        else {"n_workers": n_local, "threads_per_worker": 1, "dashboard_address": "127.0.0.1:0"}
    )
    try:
        client: Any = Client(**options)  # type: ignore[no-untyped-call]
    except (OSError, ValueError) as error:
        raise ConnectionError(
            f"The Dask scheduler {address!r} cannot be reached ({error}); start it with "
            "'dask scheduler' and give the address that it prints."
        ) from error
    with client, joblib.parallel_config(backend="dask"):
        yield
