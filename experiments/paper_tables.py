"""Rewrite every table of one or several studies as Markdown, LaTeX and CSV, without torch.

    python experiments/paper_tables.py results/quickstart
    python experiments/paper_tables.py results/pcm results/reram --out tables --devices pcm_like
    python experiments/paper_tables.py results/mnist-methods --half-width 0.002

LaTeX needs only the package booktabs. Takes about three seconds.
"""

from pathlib import Path
from typing import Annotated, Literal

import tyro

from analog_samson.commands import run_command, written
from analog_samson.files import made_folder
from analog_samson.report import names_in, select, study_tables, write_tables
from analog_samson.report.methods import labels_from, shows_methods
from analog_samson.results import read_trials, scales_of
from analog_samson.results import shown_as as as_named


@shows_methods
def main(
    studies: Annotated[tuple[Path, ...], tyro.conf.Positional],
    out: Path | None = None,
    devices: tuple[str, ...] = (),
    methods: tuple[str, ...] = (),
    times_s: tuple[float | str, ...] = (),
    shown_as: str = "",
    baseline: str = "sgd",
    confidence: float = 0.95,
    scale: Literal["auto", "accuracy", "logit"] = "auto",
    target: float | None = None,
    bootstrap: bool = False,
    half_width: float | None = None,
    labels: tuple[str, ...] = (),
    details: bool = False,
    extra_items: tuple[str, ...] = (),
) -> None:
    """Rewrite every table of one or several studies.

    Args:
        studies: Folders of studies.
        out: Where the tables go; the first study's folder if not given.
        devices: Devices to keep; all if none is named.
        methods: Methods to keep, with or without strength; all if none is named.
        times_s: Times since programming to keep, in seconds or as "1 h"; all if none is named.
        shown_as: bits (bits_per_token of a text) shows a cross entropy in bits instead of as
            perplexity.
        baseline: Method that gains are counted from.
        confidence: Probability with which intervals cover; tests use the rest.
        scale: Scale of means, gains and tests: auto takes logit where the digital networks make at
            most 20 % errors, which fits errors that vary by factors.
        target: Accuracy that chips must reach for the yield, as a fraction, or another score as it
            is shown (5.9 is a perplexity); by default one point below the digital networks.
        bootstrap: Intervals of the accuracy from a bootstrap over networks (10 or more).
        half_width: Target half-width (0.002 is 0.2 points): number of networks or chips it needs.
        labels: Labels of methods, devices, networks and data sets: samson="SAMSON (ours)".
        details: Captions name engine and precision.
        extra_items: Tables of your own, package.module:name of a report.Item; put the folder of
            the package on PYTHONPATH.
    """
    if not studies:
        raise ValueError("Give at least one folder of a study; got none.")
    every = read_trials(*studies)
    rows = select(every, devices=devices, methods=methods, times_s=times_s)
    scales = scales_of(every, scale)
    rows = as_named(rows, shown_as) if shown_as else rows
    folder = made_folder(out or studies[0], "folder of --out" if out else "folder of the study")
    tables = study_tables(
        rows,
        folders=studies,
        baseline=baseline,
        confidence=confidence,
        scale=scales,
        target=target,
        bootstrap=bootstrap,
        half_width=half_width,
        labels=labels_from(labels, names_in(rows)),
        details=details,
        extra_items=extra_items,
    )
    print(written(write_tables(tables, folder)))


if __name__ == "__main__":
    run_command(main)
