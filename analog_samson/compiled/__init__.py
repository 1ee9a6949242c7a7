"""The compiled engine: the numbers of aihwkit's tiles from a fused digital forward pass."""

from analog_samson.compiled.layers import Array, FunctionalLayer
from analog_samson.compiled.network import LONG_JOB, FunctionalNetwork, Precision, why_not
from analog_samson.compiled.several import StackedNetwork

__all__ = [
    "LONG_JOB",
    "Array",
    "FunctionalLayer",
    "FunctionalNetwork",
    "Precision",
    "StackedNetwork",
    "why_not",
]
