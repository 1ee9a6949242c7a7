"""Writer of a table: finished rows are written to disk in batches."""

import threading
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

from analog_samson.locks import Lease
from analog_samson.results import COLUMNS, append_lines

BATCHES_EVERY_S = 0.5
"""Interval of the batches [s], our choice: a kill loses the rows of half a second at most."""


class TableWriter:
    """Appends lines to a table from a thread; pending lines are written when the block ends."""

    def __init__(self, table: Path, lease: Lease, columns: Sequence[str] = COLUMNS) -> None:
        """Prepare to write.

        Args:
            table: The table.
            lease: Checked before every batch: whether this process still holds the table.
            columns: Columns of the table.
        """
        self._table, self._lease, self._columns = table, lease, columns
        self._waiting: list[str] = []
        self._ended = False
        self._failure: Exception | None = None
        self._changed = threading.Condition()
        self._thread = threading.Thread(target=self._write, name=f"writer of {table}", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        with self._changed:
            self._ended = True
            self._changed.notify()
        self._thread.join()
        if self._failure is not None and error is not self._failure:
            raise self._failure

    def add(self, lines: str) -> None:
        """Queue finished rows, as ``results.as_lines`` gives them; returns at once.

        Raises:
            OSError: If an earlier batch could not be written.
        """
        with self._changed:
            if self._failure is not None:
                raise self._failure
            self._waiting.append(lines)
            self._changed.notify()

    def _write(self) -> None:
        while not self._ended or self._waiting:
            with self._changed:
                self._changed.wait_for(lambda: self._waiting or self._ended)
                lines, self._waiting = "".join(self._waiting), []
            try:
                self._lease.check()
                append_lines(lines, self._table, self._columns)
            except Exception as error:
                self._failure = error
                return
            with self._changed:
                self._changed.wait_for(lambda: self._ended, timeout=BATCHES_EVERY_S)
