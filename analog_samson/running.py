"""Many independent jobs on many cores: progress, retries and a name for the job that dies.

joblib does the work; studies and training grids share this. Where the caller has chosen a joblib
backend (``joblib.parallel_config(backend="dask")``) the jobs go there.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeVar

import joblib
from joblib.externals.loky.process_executor import TerminatedWorkerError
from tqdm import tqdm

Job = TypeVar("Job")
Result = TypeVar("Result")


def run_jobs(
    function: Callable[[Job], Result],
    pending: Sequence[Job],
    *,
    jobs: int = 1,
    describe: Callable[[Job], str] = str,
    progress: str | None = None,
) -> Iterator[Result]:
    """Run a function over jobs and yield every result as soon as it is there, in any order.

    A worker that dies (out of memory, killed) takes its unfinished jobs with it; they are run again
    once, and then one at a time, so that the job that kills its worker can be named.

    Args:
        function: What to do with a job; picklable.
        pending: The jobs.
        jobs: Worker processes; 1 runs in this process, -1 takes every core.
        describe: A job's name for messages.
        progress: Title of a progress bar with the time left; None shows none.

    Yields:
        Results.

    Raises:
        RuntimeError: If a job kills its worker twice; says which.
        ValueError: If ``jobs`` is 0.
    """
    if jobs == 0:
        raise ValueError("jobs must be at least 1, or -1 for every core; got 0.")
    left = dict(enumerate(pending))
    with tqdm(
        total=len(left), desc=progress, unit="job", mininterval=1.0, disable=progress is None
    ) as bar:
        for groups in (_all_at_once, _all_at_once, _one_by_one):
            try:
                for group in groups(left):
                    for number, result in _run(function, group, jobs):
                        del left[number]
                        bar.update()
                        yield result
            except TerminatedWorkerError as error:
                if groups is _one_by_one:
                    culprit = describe(next(iter(left.values())))
                    raise RuntimeError(
                        f"A worker died three times while it ran {culprit}; it may need more "
                        "memory than there is. What was finished is kept; start again to resume."
                    ) from error
            if not left:
                return


def _all_at_once(left: dict[int, Job]) -> Iterator[dict[int, Job]]:
    yield dict(left)


def _one_by_one(left: dict[int, Job]) -> Iterator[dict[int, Job]]:
    for number, job in list(left.items()):
        yield {number: job}


def _run(
    function: Callable[[Job], Result], group: dict[int, Job], jobs: int
) -> Iterator[tuple[int, Result]]:
    if not group:
        return iter(())
    # No n_jobs unless asked for: a backend that the caller configured brings its own workers.
    parallel = joblib.Parallel(
        **({} if jobs == 1 else {"n_jobs": jobs}), return_as="generator_unordered", batch_size=1
    )
    results: Iterator[tuple[int, Result]] = parallel(
        joblib.delayed(_numbered)(function, number, job) for number, job in group.items()
    )
    return results


def _numbered(function: Callable[[Any], Result], number: int, job: Any) -> tuple[int, Result]:
    return number, function(job)
