"""Validation of rows of trials, and of files that hold them."""

import csv
import gzip
import io
import json
import math
import re
import zlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.csv

from analog_samson.messages import shortened
from analog_samson.results.columns import (
    COLUMNS,
    COUNTS,
    FLAGS,
    HEADERS,
    SUMS,
    TEXT,
    columns_of,
    is_header,
    types_of,
)
from analog_samson.results.definitions import two_kinds

ADVICE = "; delete the line: its point is then computed again"

_MAY_BE_EMPTY = ("strength",)
_UNPRINTABLE = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")
_SPELLED = {  # spellings that Arrow reads as a value of a type
    pa.int64(): (r"-?\d+", "no whole number"),
    pa.float64(): (r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?|[+-]?(?i:inf(inity)?|nan)", "no number"),
    pa.bool_(): (r"(?i:true|false)|[01]", "neither True nor False"),
}


def read_table(file: Path) -> pd.DataFrame:
    """Read one file of trials; a half-written last line is dropped.

    Args:
        file: The file; one that ends in ``.gz`` is decompressed.

    Returns:
        Its rows, columns as in `COLUMNS` or `SCORE_COLUMNS`.

    Raises:
        ValueError: If it is not a table of trials, was saved by another program, or a row is
            damaged; the message names the line.
    """
    content = _content(file)
    if content.startswith(b"\xef\xbb\xbf") or b"\r" in content:
        raise ValueError(
            f"{str(file)!r} was saved by another program (it has a byte order mark or Windows line "
            "ends), so that no row can be added to it. Spreadsheets also change numbers: restore "
            f"the original, or, if no number was changed: sed -i 's/^\\xef\\xbb\\xbf//; s/\\r$//' "
            f"{str(file)!r}."
        )
    first, newline, _ = content.partition(b"\n")
    if not is_header(first, is_complete=bool(newline)):
        raise ValueError(
            f"{str(file)!r} is not a table of trials: its first line must be "
            f"'{HEADERS[0].decode()}', not {first[:80].decode(errors='replace')!r}."
        )
    types = types_of(first)
    content = content[: content.rfind(b"\n") + 1]
    if not content:
        return pd.DataFrame(pa.schema(list(types.items())).empty_table().to_pandas())
    try:
        table = pa.csv.read_csv(
            pa.BufferReader(content),
            read_options=pa.csv.ReadOptions(column_names=list(types), skip_rows=1),
            convert_options=pa.csv.ConvertOptions(column_types=types),
        )
    except (pa.ArrowException, UnicodeDecodeError) as error:
        why = _damage(content, types) or f"has a damaged row ({str(error).splitlines()[0][:200]})"
        raise ValueError(f"{str(file)!r}, {why}{ADVICE}.") from None
    rows: pd.DataFrame = table.to_pandas()

    def line(row: int) -> str:
        written = [n for n, text in enumerate(content.split(b"\n"), start=1) if text]
        return f"{str(file)!r}, line {written[row + 1]}"

    check_rows(rows, line, ADVICE)
    found = two_kinds(rows)
    if found is not None:
        row, other, column = found
        raise ValueError(
            f"{line(row)}: {column} = {_shown(rows[column].iloc[row])}, and "
            f"{_shown(rows[column].iloc[other])} of the same chip_id in "
            f"{line(other).rpartition(', ')[2]}{ADVICE}."
        )
    return rows


def _content(file: Path) -> bytes:
    """What a file holds, decompressed if its name ends in ``.gz``."""
    content = file.read_bytes()
    if file.suffix != ".gz":
        return content
    try:
        return gzip.decompress(content)
    except (EOFError, OSError, zlib.error) as error:
        raise ValueError(
            f"{str(file)!r} cannot be decompressed ({error}); restore the original."
        ) from None


def csv_in(folder: Path, name: str) -> Path | None:
    """A CSV file beside a table of trials, or its compressed copy (``name.gz``).

    Args:
        folder: Folder of the study.
        name: File name, such as "sharpness.csv".

    Returns:
        The file; None if neither is there.
    """
    either = (folder / name, folder / f"{name}.gz")
    return next((file for file in either if file.is_file()), None)


def read_text_table(file: Path, columns: Iterable[str] = ()) -> pd.DataFrame:
    """Read a CSV file beside a table of trials, all values as text.

    Args:
        file: The file; one that ends in ``.gz`` is decompressed.
        columns: Columns that it must have.

    Returns:
        Its rows; empty values are "".

    Raises:
        ValueError: If it is damaged (a line is cut off) or lacks a column; the message names the
            file, and the line where that is known.
    """
    content = _content(file)
    try:
        rows = pd.read_csv(io.BytesIO(content), dtype=str, keep_default_na=False)
    except ValueError as error:  # also one of pandas, or bytes that are no UTF-8
        raise ValueError(f"{file} is damaged ({str(error).strip()}); restore it.") from None
    if missing := [name for name in columns if name not in rows]:
        raise ValueError(f"{file} has no columns {missing}; restore it, or remove it.")
    is_cut = rows.isna().any(axis=1)
    if len(rows) and not content.endswith(b"\n"):
        is_cut.iloc[-1] = True
    if is_cut.any():
        raise ValueError(
            f"{file}, line {int(is_cut.argmax()) + 2}, is cut off; delete it, and the line of its "
            "network in networks.csv: that network is then evaluated again."
        )
    return rows


def read_networks(file: Path) -> pd.DataFrame:
    """Read ``networks.csv``, the trained networks of a study of methods, all values as text.

    Raises:
        ValueError: As `read_text_table`, or if a network has no training seed or no digest.
    """
    rows = read_text_table(file, ("variant", "strength", "training_seed", "digest", "failure"))
    has_digest = rows["digest"].str.fullmatch("[0-9a-f]{64}") | (rows["failure"] != "")
    wrong = ~(has_digest & rows["training_seed"].str.fullmatch("[0-9]+"))
    if wrong.any():
        row = int(wrong.argmax())
        raise ValueError(
            f"{file}, line {row + 2}: training_seed = {_shown(rows['training_seed'].iloc[row])}, "
            f"digest = {_shown(rows['digest'].iloc[row])}; delete the line: the network is then "
            "trained again."
        )
    return rows


def check_rows(
    rows: pd.DataFrame | Mapping[str, Sequence[Any]], place: Callable[[int], str], advice: str = ""
) -> None:
    """Refuse rows with an invalid value.

    Args:
        rows: Rows of trials, a table or the values of each column; columns `COLUMNS` or
            `SCORE_COLUMNS`.
        place: Returns file and line of a row from its position.
        advice: What to do; end of the message.

    Raises:
        ValueError: If a value is missing, of a wrong kind or out of range, or counts or sums
            contradict each other; the message names the row and the column.
    """
    names = columns_of(rows)

    def among(some: Iterable[str]) -> list[str]:
        return [name for name in some if name in names]

    # numpy: a table of one chip is checked in a tenth of the time that pandas takes
    columns = {
        name: np.asarray(rows[name], dtype=object if name in TEXT else None) for name in names
    }

    def refuse_where(wrong: Any, column: str, rule: str) -> None:
        if wrong.any():
            row = int(wrong.argmax())
            raise ValueError(
                f"{place(row)}: {column} = {_shown(columns[column][row])}; {rule}{advice}."
            )

    for name in names:
        if name != "alpha" and (missing := _is_missing(columns[name])).any():
            raise ValueError(f"{place(int(missing.argmax()))} has no {name}{advice}.")
    found = {name: set(columns[name].tolist()) for name in among(TEXT)}
    for name in among(TEXT):
        wrong = {value for value in found[name] if not _is_sound(value, name)}
        refuse_where(_is_among(columns[name], wrong), name, "a text in one line is needed")
    no_condition = {value for value in found["condition"] if not _is_condition(value)}
    rule = "a JSON object of numbers and words is needed"
    refuse_where(_is_among(columns["condition"], no_condition), "condition", rule)
    for name in among(FLAGS):
        refuse_where(~_is_among(columns[name], {True, False}), name, "it is True or False")
    measures = ("t_inference_s", "analog_share", "alpha")
    numbers = {name: _numbers(columns[name]) for name in among((*COUNTS, *SUMS, *measures))}
    for name in among(COUNTS):
        least = 1 if name == "n_images_per_chip" else 0
        rule = f"a whole number of at least {least} is needed"
        values = numbers[name]
        is_count = (np.trunc(values) == values) & (values >= least) & (values < math.inf)
        refuse_where(~is_count, name, rule)
    time, share, alpha = (numbers[name] for name in measures)
    rule = "times are finite and at least 0 s"
    refuse_where(~((time >= 0) & (time < math.inf)), "t_inference_s", rule)
    refuse_where(~_lies_in(share, 0, 1), "analog_share", "a share lies in [0, 1]")
    # least squares on a layer's outputs (per_layer) can be negative; ratios of read-outs cannot
    by_layer = {text for text in found["compensation"] if text.startswith("per_layer")}
    lowest = np.where(_is_among(columns["compensation"], by_layer), -math.inf, 0.0)
    sound = (alpha > lowest) & (alpha < math.inf) | _is_missing(columns["alpha"])
    refuse_where(~sound, "alpha", "it is finite and above 0, or empty")
    if names == COLUMNS:
        _check_counts(numbers, place, advice)
        return
    for name in SUMS:
        refuse_where(~np.isfinite(numbers[name]), name, "a finite number is needed")
    _check_sums(numbers, place, advice)


def _is_missing(values: Any) -> Any:
    if values.dtype.kind in "biu" or (values.dtype == object and set(map(type, values)) == {str}):
        return np.zeros(len(values), dtype=bool)
    return pd.isna(values)


def _is_among(values: Any, wanted: set[Any]) -> Any:
    """Whether each value is one of some."""
    if not wanted:
        return np.zeros(len(values), dtype=bool)
    if values.dtype == bool and wanted == {True, False}:
        return np.ones(len(values), dtype=bool)
    return np.array([value in wanted for value in values.tolist()], dtype=bool)


def _numbers(values: Any) -> Any:
    """Values as numbers; NaN where a value is none."""
    if values.dtype.kind in "iuf":
        return values
    return pd.to_numeric(pd.Series(values), errors="coerce").to_numpy().astype(float)


def _lies_in(values: Any, low: Any, high: Any) -> Any:
    return (values >= low) & (values <= high)


def check_text(text: str, where: str) -> None:
    """Refuse a text that a table cannot hold, before anything is computed.

    Args:
        text: A name or label.
        where: Where it comes from; begins the message.

    Raises:
        ValueError: If it holds a line break or another control character.
    """
    if _UNPRINTABLE.search(text):
        raise ValueError(
            f"{where}: {_shown(text)} holds a line break or control character, which a table "
            "cannot hold; remove it."
        )


def _check_counts(counts: dict[str, Any], place: Callable[[int], str], advice: str) -> None:
    n, right, digital = (counts[c] for c in ("n_images_per_chip", "n_correct", "n_correct_digital"))
    elsewhere = counts["n_correct_digital_test"] - digital
    wrong = ~(
        _lies_in(right, 0, n)
        & _lies_in(digital, 0, n)
        & _lies_in(counts["n_changed"], np.abs(right - digital), n)
        & _lies_in(elsewhere, 0, counts["n_test"] - n)
    )
    if wrong.any():
        at = int(wrong.argmax())
        row = {name: int(values[at]) for name, values in counts.items() if name[:2] == "n_"}
        raise ValueError(
            f"{place(at)}: it counts n_correct = {row['n_correct']} "
            f"(n_correct_digital = {row['n_correct_digital']}, n_changed = {row['n_changed']}) of "
            f"n_images_per_chip = {row['n_images_per_chip']}, and n_correct_digital_test = "
            f"{row['n_correct_digital_test']} of n_test = {row['n_test']}, which is "
            f"inconsistent{advice}."
        )


def _check_sums(numbers: dict[str, Any], place: Callable[[int], str], advice: str) -> None:
    """Refuse sums that no values have (Cauchy and Schwarz), beyond rounding errors."""
    n, n_test = numbers["n_images_per_chip"], numbers["n_test"]
    squares, digital = numbers["sum_squares"], numbers["sum_squares_digital"]
    rounding = 1e-9
    unequal = numbers["sum_digital_test"] - numbers["sum_digital"]
    wrong = (
        (n > n_test)
        | (numbers["sum"] ** 2 > n * squares * (1 + rounding))
        | (numbers["sum_digital"] ** 2 > n * digital * (1 + rounding))
        | (np.abs(numbers["sum_products"]) > np.sqrt(squares * digital) * (1 + rounding))
        | ((n == n_test) & (np.abs(unequal) > rounding * np.sqrt(n * digital)))
    )
    if wrong.any():
        at = int(wrong.argmax())
        said = ", ".join(
            f"{name} = {numbers[name][at]:.17g}" for name in (*SUMS, "n_images_per_chip", "n_test")
        )
        raise ValueError(f"{place(at)}: it holds {said}, which is inconsistent{advice}.")


def _is_sound(value: object, column: str) -> bool:
    return (
        isinstance(value, str)
        and (value != "" or column in _MAY_BE_EMPTY)
        and not _UNPRINTABLE.search(value)
    )


def _is_condition(text: str) -> bool:
    try:
        values = json.loads(text)
    except (ValueError, RecursionError):
        return False
    return isinstance(values, dict) and all(
        isinstance(value, int | float | str) and value == value for value in values.values()
    )


def _damage(content: bytes, types: Mapping[str, pa.DataType]) -> str:
    """Line and column of the first value that has not its column's type; "" if all have."""
    for number, line in enumerate(content.decode(errors="replace").split("\n"), start=1):
        if number == 1 or not line:
            continue
        try:
            values = next(csv.reader([line]))
        except csv.Error as error:
            return f"line {number}, is damaged ({error})"
        if len(values) != len(types):
            return f"line {number}, is damaged: it has {len(values)} values, not {len(types)}"
        for (name, kind), value in zip(types.items(), values, strict=True):
            pattern, what = _SPELLED.get(kind, (".*", ""))
            is_sound = not value or re.fullmatch(pattern, value) is not None
            if is_sound and kind == pa.int64() and len(value) > 18:
                is_sound = abs(int(value[:30])) < 2**63
            if not is_sound or "\ufffd" in value:
                what = "no UTF-8 text" if "\ufffd" in value else what
                return f"line {number}, is damaged: {name} = {_shown(value)} is {what}"
    return ""


def _shown(value: object) -> str:
    return shortened(value.item() if isinstance(value, np.generic) else value)
