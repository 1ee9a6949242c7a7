"""The columns of the table of trials: of accuracy, and of any other score."""

from collections.abc import Iterable
from typing import Any

import pyarrow as pa

TYPES = {
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
    "condition": pa.string(),
    "chip": pa.int64(),
    "programming_seed": pa.int64(),
    "t_inference_s": pa.float64(),
    "read": pa.int64(),
    "n_correct": pa.int64(),
    "n_images_per_chip": pa.int64(),
    "n_correct_digital": pa.int64(),
    "n_changed": pa.int64(),
    "n_test": pa.int64(),
    "n_correct_digital_test": pa.int64(),
    "analog_share": pa.float64(),
    "alpha": pa.float64(),
    "extrapolated": pa.bool_(),
    "reproducible": pa.bool_(),
}

COLUMNS: tuple[str, ...] = tuple(TYPES)
"""Columns of ``trials.csv``, in this order.

The study uses ``n_test`` test images and evaluates a chip on ``n_images_per_chip`` of them. On
these, ``n_correct`` and ``n_correct_digital`` count the correct predictions of the chip and of the
digital network, ``n_changed`` the images that only one of the two classifies correctly.
``n_correct_digital_test`` is the digital network's count on all ``n_test``.
"""

_SUMS = {
    "score": pa.string(),
    "higher_is_better": pa.bool_(),
    "sum": pa.float64(),
    "sum_squares": pa.float64(),
    "n_images_per_chip": pa.int64(),
    "sum_digital": pa.float64(),
    "sum_squares_digital": pa.float64(),
    "sum_products": pa.float64(),
    "n_test": pa.int64(),
    "sum_digital_test": pa.float64(),
}

_COUNTED = (
    "n_correct",
    "n_images_per_chip",
    "n_correct_digital",
    "n_changed",
    "n_test",
    "n_correct_digital_test",
)

SCORE_TYPES = {
    name: kind
    for column, own in TYPES.items()
    if column == "n_correct" or column not in _COUNTED
    for name, kind in (_SUMS if column == "n_correct" else {column: own}).items()
}

SCORE_COLUMNS: tuple[str, ...] = tuple(SCORE_TYPES)
"""Columns of ``trials.csv`` of a score other than accuracy.

In place of the counts, of the values of the chip and of the digital network on the same
``n_images_per_chip`` samples: their sums, the sums of their squares and of their products; and the
sum of the digital network's values on all ``n_test`` samples.
"""

SUMS = tuple(name for name, kind in _SUMS.items() if kind == pa.float64())
"""The columns that hold sums."""

OLD_COLUMNS = {"axes": "condition", "n_images": "n_images_per_chip"}
"""Names of columns in version 0.1.0 to their current names."""

_OLD_NAME_OF = {new: old for old, new in OLD_COLUMNS.items()}

HEADERS = (
    ",".join(COLUMNS).encode(),
    ",".join(_OLD_NAME_OF.get(name, name) for name in COLUMNS).encode(),
    ",".join(SCORE_COLUMNS).encode(),
)
"""First line of a table: as it is written for accuracy, as version 0.1.0 wrote it, and as it is
written for other scores. Order and number of the columns of the first two are equal, so that old
tables are read, and continued under their own header."""

DIGEST_LENGTH = 16
"""Letters of a network's digest in the column ``checkpoint``."""

KEY = ("chip_id", "t_inference_s", "read")
"""Columns that identify a row."""

_EVERY = {**TYPES, **SCORE_TYPES}
TEXT = tuple(name for name, kind in _EVERY.items() if kind == pa.string())
COUNTS = tuple(name for name, kind in _EVERY.items() if kind == pa.int64())
FLOAT_COLUMNS = tuple(name for name, kind in _EVERY.items() if kind == pa.float64())
FLAGS = tuple(name for name, kind in _EVERY.items() if kind == pa.bool_())


def columns_of(names: Iterable[Any]) -> tuple[str, ...]:
    """The columns of the kind of table that has these: with sums, or with counts."""
    return SCORE_COLUMNS if "sum" in set(names) else COLUMNS


def types_of(header: bytes) -> dict[str, pa.DataType]:
    """Columns and their types of a table with this first line."""
    return SCORE_TYPES if header == HEADERS[2] else TYPES


def is_header(line: bytes, *, is_complete: bool) -> bool:
    """Whether the first line of a file is that of a table of trials.

    Args:
        line: The line, without its end.
        is_complete: Whether it has an end; without, the beginning of a header is enough.
    """
    return any(line == header if is_complete else header.startswith(line) for header in HEADERS)
