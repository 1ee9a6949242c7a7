"""Tables of a study of methods, which several processes write."""

import math
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pandas as pd

from analog_samson.files import replacing
from analog_samson.locks import EXPIRES_AFTER_S, InUseError, sole_writer
from analog_samson.methods_study.definition import NETWORKS, Key
from analog_samson.results.checking import csv_in, read_networks, read_text_table

OLD_COLUMNS = {
    NETWORKS: {"n_images": "n_test"},
    "sharpness.csv": {"n_images": "n_training_images"},
    "training_images.csv": {"axes": "condition"},
}
"""Tables of unfinished studies may have columns of earlier names."""

WRITING_TAKES_S = 2 * EXPIRES_AFTER_S
"""How long a table is waited for that another process writes: longer than one that has ended."""


@contextmanager
def writing(table: Path) -> Iterator[None]:
    """Sole access to a table of a study, which is waited for.

    Raises:
        InUseError: If another process does not end writing it.
    """
    with ExitStack() as stack:
        try:
            stack.enter_context(sole_writer(table, wait_s=WRITING_TAKES_S))
        except InUseError as error:
            raise InUseError(
                f"{holder(error)}, for {WRITING_TAKES_S / 60:.3g} minutes; wake that process or "
                "end it, and start this again: what is trained is kept."
            ) from None
        yield


@contextmanager
def waited_for(claim: Path, say: Callable[[str], None]) -> Iterator[None]:
    """Hold a claim as soon as no other process does; says whom it waits for."""
    with ExitStack() as stack:
        try:
            stack.enter_context(sole_writer(claim))
        except InUseError as error:
            say(f"Waiting for a network to start from: {holder(error)}.")
            stack.enter_context(sole_writer(claim, wait_s=math.inf))
        yield


def read_table(table: Path) -> pd.DataFrame:
    """Read a table of texts, with columns of today's names."""
    rows = read_networks(table) if table.name == NETWORKS else read_text_table(table)
    return rows.rename(columns=OLD_COLUMNS.get(table.name.removesuffix(".gz"), {}))


def write_table(rows: pd.DataFrame, table: Path) -> None:
    """Replace a table as a whole."""
    with replacing(table) as temporary:
        rows.to_csv(temporary, index=False)


def keys(networks: pd.DataFrame) -> list[Key]:
    """What identifies each training of a table, as `key_of`."""
    names = (networks[name] for name in ("variant", "strength", "training_seed"))
    return list(zip(*names, strict=True))


def done(table: Path) -> set[Key]:
    """Trainings that have a row."""
    return set(keys(read_table(table))) if table.exists() else set()


def failures(table: Path) -> str:
    """How many trainings failed, in words."""
    failed = read_table(table)["failure"] if table.exists() else pd.Series([], dtype=str)
    n = int((failed != "").sum())
    return f", {n} of which failed (column failure of {table.name})" if n else ""


def add_row(table: Path, variant: str, row: dict[str, Any]) -> None:
    """Add the row of a training, which replaces an earlier one of it."""
    new = pd.DataFrame([{"variant": variant} | row], dtype=object)
    with writing(table):
        there = []
        if table.exists():
            before = read_table(table)
            key = variant, row["strength"], str(row["training_seed"])
            there = [before[[one != key for one in keys(before)]]]
        write_table(pd.concat([*there, new], ignore_index=True), table)


def replace_rows(table: Path, digest: str, rows: pd.DataFrame) -> None:
    """Add the rows of a network, replacing those of an interrupted run.

    A compressed table is written as it is from then on, without compression.

    Args:
        table: The table; column ``checkpoint`` has digests.
        digest: The network's, as in that column.
        rows: Its rows.

    Raises:
        InUseError: If another process does not end writing the table.
    """
    with writing(table):
        if file := csv_in(table.parent, table.name):
            there = read_table(file)
            rows = pd.concat([there[there["checkpoint"] != digest], rows], ignore_index=True)
        write_table(rows, table)
        table.with_name(f"{table.name}.gz").unlink(missing_ok=True)


def holder(error: InUseError) -> str:
    """Who holds a file, in words."""
    return str(error).partition(";")[0]
