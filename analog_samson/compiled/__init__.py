"""The compiled engine: the numbers of aihwkit's tiles from a fused digital forward pass."""

from analog_samson.compiled.network import (
    Array,
    FunctionalLayer,
    FunctionalNetwork,
    Precision,
    why_not,
)

__all__ = ["Array", "FunctionalLayer", "FunctionalNetwork", "Precision", "why_not"]
