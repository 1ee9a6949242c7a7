"""Targets of samples."""

IGNORED = -100
"""Target of a position without one (padding), as in torch; it counts in no loss and no score."""
