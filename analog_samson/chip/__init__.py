"""A chip: one programming of one trained network on one device, and its ageing.

Programming error, drift exponents and faults belong to the chip and stay with it; read noise
belongs to a read at a time. ``drift_to`` is a pure function of (time, read): any order, never
cumulative, and t = 0 is the programmed state before any read.
"""

from analog_samson.chip.chip import Chip
from analog_samson.chip.engines import Engine, check_precision, choose_engine
from analog_samson.chip.group import ChipGroup, why_alone
from analog_samson.chip.programming import MappedNetwork, load_chip, program
from analog_samson.chip.training_images import any_input, evenly_spread

__all__ = [
    "Chip",
    "ChipGroup",
    "Engine",
    "MappedNetwork",
    "any_input",
    "check_precision",
    "choose_engine",
    "evenly_spread",
    "load_chip",
    "program",
    "why_alone",
]
