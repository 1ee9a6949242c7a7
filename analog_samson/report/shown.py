"""Figures that notebooks display by themselves, whatever backend of matplotlib is chosen."""

import io
from typing import Any

from matplotlib.figure import Figure


class ShownFigure(Figure):
    """A figure that a notebook displays where it is the last expression of a cell.

    Figures of reports are made without pyplot, so that none stays in memory; matplotlib's own
    figures are then displayed only after ``%matplotlib inline``.
    """

    def _repr_png_(self) -> tuple[bytes, dict[str, Any]]:
        """The figure as PNG at its own resolution, and its size on the page, 100 px an inch."""
        file = io.BytesIO()
        self.savefig(file, format="png", dpi=self.dpi)
        width_in, height_in = self.get_size_inches()
        return file.getvalue(), {"width": round(100 * width_in), "height": round(100 * height_in)}
