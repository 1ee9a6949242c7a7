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

COLUMNS: tuple[str, ...] = tuple(TYPES)
"""Columns of ``trials.csv``, in this order.

Of the ``n_test`` test images a chip answered ``n_images``, ``n_correct`` of these rightly; the
digital network, on the same images, ``n_correct_digital``; ``n_changed`` are those that only one of
the two got right. ``n_correct_digital_test`` is the digital network's count on all ``n_test``.
"""

KEY = ("chip_id", "t_inference_s", "read")
"""What makes a row one of a kind."""

TEXT = tuple(name for name, kind in TYPES.items() if kind == pa.string())
COUNTS = tuple(name for name, kind in TYPES.items() if kind == pa.int64())
MEASURES = tuple(name for name, kind in TYPES.items() if kind == pa.float64())
FLAGS = tuple(name for name, kind in TYPES.items() if kind == pa.bool_())
