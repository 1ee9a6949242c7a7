"""A chip: one programming of one trained network on one device, and its ageing.

Programming errors, drift exponents and faults are drawn once per chip; read noise is drawn once per
time and read. The state after ``drift_to`` depends on (time, read) only, not on earlier calls.
t = 0 is the programmed state before any read.
"""

import warnings
from typing import Any

from analog_samson.chip.chip import Chip
from analog_samson.chip.engines import Engine, check_precision, choose_engine
from analog_samson.chip.group import ChipGroup, why_not_batched
from analog_samson.chip.programming import MappedNetwork, load_chip, program
from analog_samson.chip.training_images import evenly_spread, input_for, spreads_over_all

__all__ = [
    "Chip",
    "ChipGroup",
    "Engine",
    "MappedNetwork",
    "check_precision",
    "choose_engine",
    "evenly_spread",
    "input_for",
    "load_chip",
    "program",
    "spreads_over_all",
    "why_not_batched",
]

_NEW_NAMES = {"why_alone": "why_not_batched"}


def __getattr__(name: str) -> Any:
    """Return an object by its old name, with a warning."""
    if name not in _NEW_NAMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    new = _NEW_NAMES[name]
    warnings.warn(
        f"{__name__}.{name} is now named {new}; the old name is removed in the next version.",
        FutureWarning,
        stacklevel=2,
    )
    return globals()[new]
