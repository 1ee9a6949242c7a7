"""The compiled engine: computes what aihwkit's tiles compute, in a fused digital forward pass."""

from analog_samson.compiled.deciding import is_traced_for
from analog_samson.compiled.layers import FunctionalLayer
from analog_samson.compiled.mapped import Array
from analog_samson.compiled.network import LONG_JOB, FunctionalNetwork, Precision, why_not
from analog_samson.compiled.saturation import ArrayCounts, counted
from analog_samson.compiled.stacked import StackedNetwork

__all__ = [
    "LONG_JOB",
    "Array",
    "ArrayCounts",
    "FunctionalLayer",
    "FunctionalNetwork",
    "Precision",
    "StackedNetwork",
    "counted",
    "is_traced_for",
    "why_not",
]
