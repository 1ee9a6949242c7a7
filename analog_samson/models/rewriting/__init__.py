"""Layers of other kinds, rewritten into layers and digital operations that arrays can run.

A rule is one `Rewrite`: the classes that it takes and a function from a module of theirs to the
module that replaces it. Those of this package are in `RULES`; others are given by an importable
name, "package.module:name", and are tried first. Rewriting happens once, before the network is
audited or mapped.
"""

from analog_samson.models.rewriting.applying import (
    Rewriting,
    layers_of_weights,
    rewrite,
    trained_weights,
)
from analog_samson.models.rewriting.rule import Rewrite
from analog_samson.models.rewriting.table import RULES

__all__ = ["RULES", "Rewrite", "Rewriting", "layers_of_weights", "rewrite", "trained_weights"]
