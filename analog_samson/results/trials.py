"""The table of trials: one row per (chip, time, read), appended and never edited."""

import csv
import errno
import io
import os
import re
import zlib
from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import pandas as pd

from analog_samson.results.checking import check_rows, read_table
from analog_samson.results.columns import (
    COLUMNS,
    COUNTS,
    FLOAT_COLUMNS,
    HEADERS,
    KEY,
    columns_of,
    is_header,
    types_of,
)
from analog_samson.results.definitions import check_definitions, check_manifests

_PART = re.compile(r"trials-part([1-9][0-9]*)of([1-9][0-9]*)\.csv")


def read_trials(*paths: str | Path) -> pd.DataFrame:
    """Read one or several tables of trials into one.

    A half-written last row (a run killed while writing) is dropped: its point is pending again.
    Rows that several files share are merged; the study's name is not compared, so that a
    chip computed in two studies counts once. Tables that have not changed since the last call are
    not read again.

    Args:
        paths: Files ``trials.csv``, or the folders of studies; a folder may hold a compressed table
            (``trials.csv.gz``) and the tables of several parts of its study, all of which are read.

    Returns:
        The rows, columns as in `COLUMNS`, or `SCORE_COLUMNS` for a score other than accuracy, in
        the order of the files.

    Raises:
        FileNotFoundError: If a file does not exist.
        ValueError: If a file is not a table of trials, a row is damaged, two rows with the same
            key differ, rows of one chip come from different definitions, or tables are of different
            scores.

    Example:
        >>> from analog_samson import Study, collect
        >>> from analog_samson.checkpoint import TrainingSpec
        >>> from analog_samson.training import train
        >>> network = train(TrainingSpec(dataset="digits", epochs=1), "networks")
        >>> made = collect(Study("example", [network], ["pcm_like"], [1.0], n_chips=2), "results")
        >>> rows = read_trials("results")  # or several folders
        >>> rows[["method", "chip", "n_test"]].to_dict("list")
        {'method': ['sgd', 'sgd'], 'chip': [0, 1], 'n_test': [359, 359]}
    """
    if not paths:
        raise ValueError("read_trials needs at least one path; got none.")
    files = [file for path in paths for file in _table_paths(path)]
    check_manifests(list(dict.fromkeys(file.with_name("manifest.json") for file in files)))
    return _read(tuple((file, *_version(file)) for file in files)).copy()


def read_counted(*paths: str | Path) -> tuple[pd.DataFrame, list["pd.Series[int]"]]:
    """Read tables of trials into one, and count the rows of every network in each of them.

    Args:
        paths: As for `read_trials`.

    Returns:
        The rows, as `read_trials` gives, and for each path the numbers of its rows, by the
        ``checkpoint`` of their network; every file is read once.

    Raises:
        FileNotFoundError: As `read_trials`.
        ValueError: As `read_trials`.

    Example:
        >>> rows, (counts,) = read_counted("digits/one")
        >>> bool(counts.sum() == len(rows))
        True
    """
    if len(set(paths)) == 1:  # it may be the table that was read last
        rows = read_trials(paths[0])
        return rows, [rows["checkpoint"].value_counts()] * len(paths)
    files = [_table_paths(path) for path in paths]
    tables = {file: read_table(file) for own in files for file in own}
    check_manifests(list(dict.fromkeys(file.with_name("manifest.json") for file in tables)))
    key = [*KEY, "condition"]  # by which a chip of several conditions is told apart
    read = (pd.concat([tables[file] for file in own]).drop_duplicates(key) for own in files)
    return _checked(tables), [rows["checkpoint"].value_counts() for rows in read]


@lru_cache(maxsize=1)
def _read(files: tuple[tuple[Path, *tuple[int, ...]], ...]) -> pd.DataFrame:
    """The merged rows of files in these versions."""
    return _checked({file: read_table(file) for file, *_ in files})


def _checked(tables: Mapping[Path, pd.DataFrame]) -> pd.DataFrame:
    """The merged rows of tables."""
    _check_scores(tables)
    rows = pd.concat(tables.values(), ignore_index=True)
    try:
        rows = _merged(rows)
        check_definitions(rows)
    except ValueError as error:
        names = " and ".join(map(str, tables))
        raise ValueError(f"{names}: {error}") from None
    return rows


def _version(file: Path) -> tuple[int, ...]:
    """What changes whenever a file is appended to or replaced; empty if there is none."""
    try:
        status = file.stat()
    except FileNotFoundError:
        return ()
    return status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns


def tables_in(folder: Path) -> list[Path]:
    """The tables of trials in a folder: of the whole study, then of its parts in their order.

    A compressed table, ``trials.csv.gz``, comes first: rows are not added to it, but to a
    ``trials.csv`` beside it.

    Example:
        >>> [path.name for path in tables_in(Path("digits/example"))]
        ['trials.csv']
    """
    parts = [
        (int(found[2]), int(found[1]), file)
        for file in folder.glob("trials-part*of*.csv")
        if (found := _PART.fullmatch(file.name))
    ]
    whole = [folder / "trials.csv.gz", folder / "trials.csv"]
    return [*(file for file in whole if file.is_file()), *(file for *_, file in sorted(parts))]


def append_rows(rows: pd.DataFrame, path: str | Path) -> None:
    """Append rows to a table of trials, all of them or none.

    The rows are written in one call and flushed to disk (fsync) before the function returns. An
    incomplete last line, left by a killed run, is removed first. One process writes; many may
    read.

    Args:
        rows: New rows; the columns are those of `COLUMNS`, or of `SCORE_COLUMNS` for a score
            other than accuracy, in any order.
        path: The table; it is made, with its header, when it does not exist.

    Raises:
        ValueError: If columns are missing or unknown, a value is missing or out of range, or the
            file that is there is not a table of trials.
        FileNotFoundError: If the folder does not exist.
        OSError: If the table cannot be written (no permission, disk full); the table is then as
            it was before.

    Example:
        >>> append_rows(rows[:4], "trials.csv")
        >>> append_rows(rows[4:], "trials.csv")
        >>> len(read_trials("trials.csv")) == len(rows)
        True
    """
    append_lines(as_lines(rows), path, columns_of(rows.columns))


def as_lines(rows: pd.DataFrame | Mapping[str, Sequence[Any]]) -> str:
    """Check rows and write them as lines of a table of trials.

    Args:
        rows: New rows, a table or the values of each column; the columns are those of `COLUMNS`,
            or of `SCORE_COLUMNS` for a score other than accuracy, in any order.

    Raises:
        ValueError: If columns are missing or unknown, or a value is missing or out of range.

    Example:
        >>> len(as_lines(rows).splitlines()) == len(rows)
        True
    """
    wanted = columns_of(rows)
    if set(rows) != set(wanted):
        missing = sorted(set(wanted) - set(rows))
        unknown = sorted(map(str, set(rows) - set(wanted)))
        raise ValueError(
            f"Rows must have the columns of results."
            f"{'COLUMNS' if wanted == COLUMNS else 'SCORE_COLUMNS'}; "
            f"missing: {missing}, unknown: {unknown}."
        )
    check_rows(rows, lambda row: f"Row {row + 1} of the new rows")
    text = io.StringIO()
    columns = [_plain(name, rows[name]) for name in wanted]
    csv.writer(text, lineterminator="\n").writerows(zip(*columns, strict=True))
    return text.getvalue()


def append_lines(lines: str, path: str | Path, columns: Sequence[str] = COLUMNS) -> None:
    """Append lines of :func:`as_lines` to a table of trials, as :func:`append_rows` does.

    Args:
        lines: The lines.
        path: The table.
        columns: Its columns: `COLUMNS` for accuracy, `SCORE_COLUMNS` for other scores.

    Raises:
        ValueError: If the file that is there is not a table of trials with these columns.
        FileNotFoundError: If the folder does not exist.
        OSError: If the table cannot be written; the table is then as it was before.

    Example:
        >>> append_lines(as_lines(rows), "trials.csv")
        >>> len(read_trials("trials.csv"))
        36
    """
    path = Path(path)
    if not lines:
        return
    if not path.parent.is_dir():
        raise FileNotFoundError(f"Folder {str(path.parent)!r} does not exist; make it first.")
    try:
        _append(path, lines.encode(), ",".join(columns).encode())
    except OSError as error:
        why = "the disk is full" if error.errno == errno.ENOSPC else str(error.strerror)
        raise OSError(
            error.errno,
            f"{str(path)!r} cannot be written ({why}); no row was added. Free space or choose "
            "another folder and run again: existing rows are kept",
        ) from error


def _plain(name: str, values: Any) -> list[Any]:
    """Values as the csv module writes them: counts as integers, NaN as an empty field."""
    values = values.tolist() if isinstance(values, pd.Series) else values
    if name in COUNTS:
        return [int(value) for value in values]
    if name in FLOAT_COLUMNS:
        return ["" if pd.isna(value) else value for value in values]
    return list(values)


def _table_paths(path: str | Path) -> list[Path]:
    path = Path(path)
    files = tables_in(path) if path.is_dir() else [path] if path.is_file() else []
    if not files:
        file = path / "trials.csv" if path.is_dir() else path
        raise FileNotFoundError(
            f"No table of trials at {str(file)!r}; give a trials.csv or the folder that holds one."
        )
    return files


def _check_scores(tables: Mapping[Path, pd.DataFrame]) -> None:
    """Refuse tables of different scores."""
    found: dict[str, Path] = {}
    for file, rows in tables.items():
        names = ["accuracy"] if "higher_is_better" not in rows else list(rows["score"].unique())
        for name in names if len(rows) else []:
            found.setdefault(name, file)
    if len(found) > 1:
        (first, file), (second, other), *_ = found.items()
        raise ValueError(
            f"{str(file)!r} holds the score {first!r}, {str(other)!r} {second!r}, and tables of "
            "different scores are not merged; read them separately (a page may show several: "
            "write_report([folder, folder], out=...))."
        )


def _merged(rows: pd.DataFrame) -> pd.DataFrame:
    repeated = rows.duplicated(list(KEY), keep=False)
    if not repeated.any():
        return rows
    copies = rows[repeated]
    content = [name for name in columns_of(rows.columns) if name not in ("study", "condition")]
    kinds = copies.drop_duplicates(content)
    conflict = kinds.duplicated(list(KEY), keep=False)
    if conflict.any():
        first = kinds[conflict].iloc[0]
        same = kinds[(kinds[list(KEY)] == first[list(KEY)]).all(axis=1)]
        differ = [name for name in content if same[name].nunique(dropna=False) > 1]
        raise ValueError(
            f"Chip {first['chip_id']!r} at {first['t_inference_s']} s, read {first['read']}, has "
            f"{len(same)} rows that differ in {', '.join(differ)}; they come from different "
            "machines or versions: read the files separately or delete one of the rows."
        )
    rows = _by_condition(rows)
    return rows.drop_duplicates(list(KEY), ignore_index=True)


def _by_condition(rows: pd.DataFrame) -> pd.DataFrame:
    """Tell apart one chip under several names of its condition, as sweeps of several axes give.

    Where each axis has the device's own value, the chips of the sweeps are the same.
    """
    conditions = rows[["chip_id", "condition"]].drop_duplicates()
    further = conditions[conditions.duplicated("chip_id")]
    if further.empty:
        return rows
    named = {
        (chip, condition): f"{chip}-{zlib.crc32(condition.encode()):08x}"
        for chip, condition in further.itertuples(index=False)
    }
    keys = zip(rows["chip_id"], rows["condition"], strict=True)
    return rows.assign(chip_id=[named.get(key, key[0]) for key in keys])


def _append(path: Path, rows: bytes, new_header: bytes) -> None:
    is_new = not path.exists()
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | getattr(os, "O_CLOEXEC", 0), 0o666)
    try:
        end = _end_of_rows(descriptor, path, types_of(new_header))
        os.ftruncate(descriptor, end)
        header = new_header + b"\n" if end == 0 else b""
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


def _end_of_rows(descriptor: int, path: Path, types: Mapping[str, Any]) -> int:
    """Byte after the last complete line; 0 when not even the header is complete."""
    size = os.fstat(descriptor).st_size
    start = os.pread(descriptor, max(map(len, HEADERS)) + 1, 0)
    first, newline, _ = start.partition(b"\n")
    if not is_header(first, is_complete=bool(newline)):
        raise ValueError(
            f"{str(path)!r} is there and is not a table of trials; choose another folder."
        )
    if not newline:
        return 0
    if types_of(first) is not types:
        raise ValueError(
            f"{str(path)!r} is a table of another score; choose another folder for this one."
        )
    end, block, rows_begin = size, 65536, len(first) + 1
    while end > rows_begin:
        begin = max(rows_begin, end - block)
        found = os.pread(descriptor, end - begin, begin).rfind(b"\n")
        if found >= 0:
            return begin + found + 1
        end = begin
    return rows_begin
