"""The table of trials: one row per (chip, time, read), appended and never edited."""

import csv
import errno
import io
import os
import re
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.csv

from analog_samson.results.definitions import check_definitions, check_manifests

_TYPES = {
    "study": pa.string(),
    "chip_id": pa.string(),
    "dataset": pa.string(),
    "model": pa.string(),
    "method": pa.string(),
    "strength": pa.string(),
    "training_seed": pa.int64(),
    "checkpoint": pa.string(),
    "device": pa.string(),
    "compensation": pa.string(),
    "engine": pa.string(),
    "precision": pa.string(),
    "axes": pa.string(),
    "chip": pa.int64(),
    "programming_seed": pa.int64(),
    "t_inference_s": pa.float64(),
    "read": pa.int64(),
    "n_correct": pa.int64(),
    "n_images": pa.int64(),
    "n_correct_digital": pa.int64(),
    "n_changed": pa.int64(),
    "n_test": pa.int64(),
    "n_correct_digital_test": pa.int64(),
    "analog_share": pa.float64(),
    "alpha": pa.float64(),
    "extrapolated": pa.bool_(),
    "reproducible": pa.bool_(),
}

COLUMNS: tuple[str, ...] = tuple(_TYPES)
"""Columns of ``trials.csv``, in this order.

Of the ``n_test`` test images a chip answered ``n_images``, ``n_correct`` of these rightly; the
digital network, on the same images, ``n_correct_digital``; ``n_changed`` are those that only one of
the two got right. ``n_correct_digital_test`` is the digital network's count on all ``n_test``.
"""

KEY = ("chip_id", "t_inference_s", "read")
"""What makes a row one of a kind."""

_PART = re.compile(r"trials-part([1-9][0-9]*)of([1-9][0-9]*)\.csv")

_LINE_BREAK = re.compile(r"[\r\n]")

_TEXT = tuple(name for name, kind in _TYPES.items() if kind == pa.string())
_COUNTS = tuple(name for name, kind in _TYPES.items() if kind == pa.int64())
_FLAGS = tuple(name for name, kind in _TYPES.items() if kind == pa.bool_())


def read_trials(*paths: str | Path) -> pd.DataFrame:
    """Read one or several tables of trials into one.

    A half-written last row (a run killed while writing) is dropped: its point is pending again.
    Rows that several files share are merged; the study's name is no part of a result, so that
    the same chip computed in two studies counts once.

    Args:
        paths: Files ``trials.csv``, or the folders of studies; a folder may hold the tables of
            several parts of its study, all of which are read.

    Returns:
        The rows, columns as in `COLUMNS`, in the order of the files.

    Raises:
        FileNotFoundError: If a file does not exist.
        ValueError: If a file is not a table of trials, a row is damaged, two rows with the same
            key differ, or rows of one chip come from different definitions.
    """
    if not paths:
        raise ValueError("read_trials needs at least one path; got none.")
    files = [file for path in paths for file in _table_paths(path)]
    check_manifests(list(dict.fromkeys(file.with_name("manifest.json") for file in files)))
    trials = pd.concat([_read_one(file) for file in files], ignore_index=True)
    trials = _merged(trials)
    check_definitions(trials)
    return trials


def tables_in(folder: Path) -> list[Path]:
    """The tables of trials in a folder: of the whole study, then of its parts in their order."""
    parts = [
        (int(found[2]), int(found[1]), file)
        for file in folder.glob("trials-part*of*.csv")
        if (found := _PART.fullmatch(file.name))
    ]
    whole = folder / "trials.csv"
    return [*([whole] if whole.is_file() else []), *(file for *_, file in sorted(parts))]


def append_rows(rows: pd.DataFrame, path: str | Path) -> None:
    """Append rows to a table of trials, all of them or none.

    The rows are written at once and forced to disk before the function returns. A half-written
    last line, left by a killed run, is cut off first. One process writes; many may read.

    Args:
        rows: New rows; the columns are those of `COLUMNS`, in any order.
        path: The table; it is made, with its header, when it does not exist.

    Raises:
        ValueError: If columns are missing or unknown, a value is missing or out of range, or the
            file that is there is not a table of trials.
        FileNotFoundError: If the folder does not exist.
        OSError: If the table cannot be written (no permission, disk full); the table is then as
            it was before.
    """
    append_lines(as_lines(rows), path)


def as_lines(rows: pd.DataFrame) -> str:
    """Check rows and write them as lines of a table of trials.

    Args:
        rows: New rows; the columns are those of `COLUMNS`, in any order.

    Raises:
        ValueError: If columns are missing or unknown, or a value is missing or out of range.
    """
    if set(rows.columns) != set(COLUMNS):
        missing = sorted(set(COLUMNS) - set(rows.columns))
        unknown = sorted(set(rows.columns) - set(COLUMNS))
        raise ValueError(
            "Rows must have the columns of results.COLUMNS; "
            f"missing: {missing}, unknown: {unknown}."
        )
    if rows.empty:
        return ""
    _check_values(rows, "the new rows")
    for name in _TEXT:
        if _LINE_BREAK.search("".join(map(str, rows[name]))):
            raise ValueError(f"Column {name!r} of the new rows holds a line break; take it out.")
    text = io.StringIO()
    columns = [_plain(name, rows[name].tolist()) for name in COLUMNS]
    csv.writer(text, lineterminator="\n").writerows(zip(*columns, strict=True))
    return text.getvalue()


def append_lines(lines: str, path: str | Path) -> None:
    """Append lines of :func:`as_lines` to a table of trials, as :func:`append_rows` does.

    Raises:
        ValueError: If the file that is there is not a table of trials.
        FileNotFoundError: If the folder does not exist.
        OSError: If the table cannot be written; the table is then as it was before.
    """
    path = Path(path)
    if not lines:
        return
    if not path.parent.is_dir():
        raise FileNotFoundError(f"Folder {str(path.parent)!r} does not exist; make it first.")
    try:
        _append(path, lines.encode())
    except OSError as error:
        why = "the disk is full" if error.errno == errno.ENOSPC else str(error.strerror)
        raise OSError(
            error.errno,
            f"{str(path)!r} cannot be written ({why}); no row was added. Free space or choose "
            "another folder and run again: what is there is kept",
        ) from error


def _plain(name: str, values: list[Any]) -> list[Any]:
    """Values as the csv module writes them: whole numbers as such, NaN as nothing."""
    if name in _COUNTS:
        return [int(value) for value in values]
    if _TYPES[name] == pa.float64():
        return ["" if pd.isna(value) else value for value in values]
    return values


def _table_paths(path: str | Path) -> list[Path]:
    path = Path(path)
    files = tables_in(path) if path.is_dir() else [path] if path.is_file() else []
    if not files:
        file = path / "trials.csv" if path.is_dir() else path
        raise FileNotFoundError(
            f"No table of trials at {str(file)!r}; give a trials.csv or the folder that holds one."
        )
    return files


def _read_one(file: Path) -> pd.DataFrame:
    content = file.read_bytes()
    content = content[: content.rfind(b"\n") + 1]
    header, _, _ = content.partition(b"\n")
    if not content:
        return _empty()
    if tuple(header.decode(errors="replace").rstrip("\r").split(",")) != COLUMNS:
        raise ValueError(
            f"{str(file)!r} is not a table of trials: its first line must be "
            f"'{','.join(COLUMNS)}', not {header.decode(errors='replace')[:80]!r}."
        )
    try:
        table = pa.csv.read_csv(
            pa.BufferReader(content),
            convert_options=pa.csv.ConvertOptions(column_types=_TYPES),
        )
    except (pa.ArrowInvalid, UnicodeDecodeError) as error:
        raise ValueError(
            f"{str(file)!r} has a damaged row ({str(error).splitlines()[0]}); delete the line: "
            "its point is then computed again."
        ) from error
    trials: pd.DataFrame = table.to_pandas()
    _check_values(trials, repr(str(file)))
    return trials


def _empty() -> pd.DataFrame:
    return pd.DataFrame(pa.schema(list(_TYPES.items())).empty_table().to_pandas())


def _check_values(trials: pd.DataFrame, where: str) -> None:
    needed = [name for name in COLUMNS if name != "alpha"]
    lacking = trials[needed].isna().any()
    if lacking.any():
        name = lacking.idxmax()
        line = int(np.flatnonzero(trials[name].isna())[0])
        raise ValueError(f"Row {line + 1} of {where} has no {name}; delete the row.")
    for name in _COUNTS:
        if not np.issubdtype(trials[name].dtype.type, np.integer):
            whole = pd.to_numeric(trials[name], errors="coerce")
            if not (whole % 1 == 0).all():
                raise ValueError(f"Column {name!r} of {where} must hold whole numbers.")
    for name in _FLAGS:
        if not trials[name].isin([True, False]).all():
            raise ValueError(f"Column {name!r} of {where} must hold True or False.")
    _check_counts(trials, where)
    times = trials["t_inference_s"]
    wrong = ~((times >= 0) & (times < np.inf))
    if wrong.any():
        raise ValueError(
            f"Row {int(np.flatnonzero(wrong)[0]) + 1} of {where} has the time "
            f"{times[wrong].iloc[0]} s; times are finite and at least 0 s."
        )


def _check_counts(trials: pd.DataFrame, where: str) -> None:
    n, right, digital = (trials[c] for c in ("n_images", "n_correct", "n_correct_digital"))
    elsewhere = trials["n_correct_digital_test"] - digital
    wrong = (
        (n < 1)
        | ~right.between(0, n)
        | ~digital.between(0, n)
        | ~trials["n_changed"].between((right - digital).abs(), n)
        | ~elsewhere.between(0, trials["n_test"] - n)
    )
    if wrong.any():
        row = trials[wrong].iloc[0]
        raise ValueError(
            f"Row {int(np.flatnonzero(wrong)[0]) + 1} of {where} counts {row['n_correct']} correct "
            f"(digital {row['n_correct_digital']}, changed {row['n_changed']}) of "
            f"{row['n_images']} images, and {row['n_correct_digital_test']} digital of all "
            f"{row['n_test']}, which cannot be; delete the row: its point is then computed again."
        )


def _merged(trials: pd.DataFrame) -> pd.DataFrame:
    repeated = trials.duplicated(list(KEY), keep=False)
    if not repeated.any():
        return trials
    copies = trials[repeated]
    content = [name for name in COLUMNS if name != "study"]
    kinds = copies.drop_duplicates(content)
    conflict = kinds.duplicated(list(KEY), keep=False)
    if conflict.any():
        first = kinds[conflict].iloc[0]
        same = kinds[(kinds[list(KEY)] == first[list(KEY)]).all(axis=1)]
        differ = [name for name in content if same[name].nunique(dropna=False) > 1]
        raise ValueError(
            f"Chip {first['chip_id']!r} at {first['t_inference_s']} s, read {first['read']}, has "
            f"{len(same)} rows that differ in {', '.join(differ)}; they come from different "
            "machines or versions: read the files apart or delete one of the rows."
        )
    return trials.drop_duplicates(list(KEY), ignore_index=True)


def _append(path: Path, rows: bytes) -> None:
    is_new = not path.exists()
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | getattr(os, "O_CLOEXEC", 0), 0o666)
    try:
        end = _end_of_rows(descriptor, path)
        os.ftruncate(descriptor, end)
        header = f"{','.join(COLUMNS)}\n".encode() if end == 0 else b""
        try:
            os.lseek(descriptor, end, os.SEEK_SET)
            _write_all(descriptor, header + rows)
            os.fsync(descriptor)
        except OSError:
            os.ftruncate(descriptor, end)
            raise
    finally:
        os.close(descriptor)
    if is_new:
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)


def _write_all(descriptor: int, content: bytes) -> None:
    view = memoryview(content)
    while view:
        view = view[os.write(descriptor, view) :]


def _end_of_rows(descriptor: int, path: Path) -> int:
    """Byte after the last complete line; 0 when not even the header is complete."""
    header = f"{','.join(COLUMNS)}\n".encode()
    size = os.fstat(descriptor).st_size
    start = os.pread(descriptor, len(header), 0)
    if start != header[: len(start)]:
        raise ValueError(
            f"{str(path)!r} is there and is not a table of trials; choose another folder."
        )
    if len(start) < len(header):
        return 0
    end, block = size, 65536
    while end > len(header):
        begin = max(len(header), end - block)
        found = os.pread(descriptor, end - begin, begin).rfind(b"\n")
        if found >= 0:
            return begin + found + 1
        end = begin
    return len(header)
