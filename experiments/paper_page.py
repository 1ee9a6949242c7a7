"""Redraw the page of a study, its figures and its tables: from its files alone, without torch.

    python experiments/paper_page.py results/quickstart
    python experiments/paper_page.py results/quickstart --extra-items my_package.figures:latency

A figure or table of your own is an analog_samson.report.Item. Takes about ten seconds.
"""

from pathlib import Path
from typing import Annotated

import tyro

from analog_samson.commands import run_command, written
from analog_samson.report import write_report


def main(
    study: Annotated[Path, tyro.conf.Positional],
    baseline: str = "sgd",
    style: str = "paper",
    extra_items: tuple[str, ...] = (),
) -> None:
    """Redraw the page of a study, its figures and its tables.

    Args:
        study: Folder of the study.
        baseline: Method that gains are counted from.
        style: "paper" (print) or "talk" (slides).
        extra_items: Figures and tables of your own, package.module:name of a report.Item; put the
            folder of the package on PYTHONPATH.
    """
    print(written(write_report(study, baseline=baseline, look=style, extra_items=extra_items)))


if __name__ == "__main__":
    run_command(main)
