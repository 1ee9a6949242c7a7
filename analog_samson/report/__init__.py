"""Report: tables and figures that go into a paper as they are, drawn from ``trials.csv`` alone.

Nothing here loads torch or aihwkit: a figure redraws on a laptop, from any machine's data.
"""

from analog_samson.report.figures import accuracy_figure, accuracy_vs_time, save
from analog_samson.report.page import write_report
from analog_samson.report.tables import Table, table

__all__ = ["Table", "accuracy_figure", "accuracy_vs_time", "save", "table", "write_report"]
