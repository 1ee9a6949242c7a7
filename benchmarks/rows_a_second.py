"""Rows per second that one process writes; each finished chip gives five rows.

    python benchmarks/rows_a_second.py

Prints rows per second as JSON: rows checked and appended by the writer chip by chip; lines, as from
workers, appended in batches; the same lines received from idle workers.
"""

import itertools
import json
import tempfile
import time
from collections.abc import Iterable
from pathlib import Path

from million_rows import make_rows

from analog_samson.commands import run_command
from analog_samson.locks import sole_writer
from analog_samson.results import append_rows, as_lines
from analog_samson.running import run_jobs
from analog_samson.study.writing import TableWriter

ROWS_A_CHIP = 5


def main(chips: int = 20_000, jobs: int = 2) -> None:
    """Measure each way once.

    Args:
        chips: Number of chips; the writer checks one hundredth of them.
        jobs: Worker processes.
    """
    made = make_rows(2 * 4 * 5 * 5 * 2)
    few = [made.iloc[i : i + ROWS_A_CHIP] for i in range(0, len(made), ROWS_A_CHIP)]
    lines = [as_lines(rows) for rows in few]
    with tempfile.TemporaryDirectory() as folder:
        table = Path(folder) / "checked.csv"
        start = time.perf_counter()
        for rows in itertools.islice(itertools.cycle(few), chips // 100):
            append_rows(rows, table)
        checked = ROWS_A_CHIP * (chips // 100) / (time.perf_counter() - start)

        many = list(itertools.islice(itertools.cycle(lines), chips))
        figures = {
            "checked_and_appended_a_chip": checked,
            "lines_in_batches": _rate(many, Path(folder) / "batches.csv"),
            "lines_from_workers": _rate(run_jobs(str, many, jobs=jobs), Path(folder) / "jobs.csv"),
        }
    print(json.dumps({name: round(rate) for name, rate in figures.items()}, indent=1))


def _rate(lines: Iterable[str], table: Path) -> float:
    start, n_chips = time.perf_counter(), 0
    with sole_writer(table) as lease, TableWriter(table, lease) as writer:
        for text in lines:
            writer.add(text)
            n_chips += 1
    return ROWS_A_CHIP * n_chips / (time.perf_counter() - start)


if __name__ == "__main__":
    run_command(main)
