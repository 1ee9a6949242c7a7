"""What networks predict, for data sets, evaluation and scores; imports no torch."""

from typing import Literal

Task = Literal["classification", "tokens", "regression"]
"""What is predicted: a class a sample, a token a position, or numbers."""

IGNORED = -100
"""Target of positions without one (padding), as in torch; they count in no loss and no score."""
