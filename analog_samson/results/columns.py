"""The columns of the table of trials."""

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

OLD_COLUMNS = {"axes": "condition", "n_images": "n_images_per_chip"}
"""Names of columns in version 0.1.0 to their current names."""

_OLD_NAME_OF = {new: old for old, new in OLD_COLUMNS.items()}

HEADERS = (
    ",".join(COLUMNS).encode(),
    ",".join(_OLD_NAME_OF.get(name, name) for name in COLUMNS).encode(),
)
"""First line of a table: as it is written, and as version 0.1.0 wrote it. Order and number of the
columns are equal, so that old tables are read, and continued under their own header."""

KEY = ("chip_id", "t_inference_s", "read")
"""Columns that identify a row."""

TEXT = tuple(name for name, kind in TYPES.items() if kind == pa.string())
COUNTS = tuple(name for name, kind in TYPES.items() if kind == pa.int64())
MEASURES = tuple(name for name, kind in TYPES.items() if kind == pa.float64())
FLAGS = tuple(name for name, kind in TYPES.items() if kind == pa.bool_())


def is_header(line: bytes, *, is_complete: bool) -> bool:
    """Whether the first line of a file is that of a table of trials.

    Args:
        line: The line, without its end.
        is_complete: Whether it has an end; without, the beginning of a header is enough.
    """
    return any(line == header if is_complete else header.startswith(line) for header in HEADERS)
