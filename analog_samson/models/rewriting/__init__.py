"""Layers of other kinds, rewritten into layers and digital operations that arrays can run.

A rule is one `Rewrite`: the classes that it takes and a function from a module of theirs to the
module that takes its place. Ours are in `RULES`; rules from elsewhere are given by an importable
name, "package.module:name", and come before ours. Rewriting happens once, before anything else
looks at the network.
"""

from analog_samson.models.rewriting.applying import Rewriting, rewrite, trained_weights
from analog_samson.models.rewriting.rule import Rewrite
from analog_samson.models.rewriting.table import RULES

__all__ = ["RULES", "Rewrite", "Rewriting", "rewrite", "trained_weights"]
