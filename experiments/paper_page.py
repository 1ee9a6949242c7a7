"""Redraw the page of a study, its figures and its tables: from its files alone, without torch.

    python experiments/paper_page.py results/quickstart
    python experiments/paper_page.py results/quickstart --methods sgd samson --overlay device
    python experiments/paper_page.py results/quickstart --extra-items my_package.figures:latency
    python experiments/paper_page.py results/speech results/text --out results/both

A figure or table of your own is an analog_samson.report.Item. Takes about ten seconds.
"""

from pathlib import Path
from typing import Annotated, Literal

import tyro

from analog_samson.commands import run_command, written
from analog_samson.report import names_in, write_report
from analog_samson.report.methods import labels_from
from analog_samson.results import read_trials


def main(
    studies: Annotated[tuple[Path, ...], tyro.conf.Positional],
    out: Path | None = None,
    methods: tuple[str, ...] = (),
    shown_as: str = "",
    baseline: str = "sgd",
    confidence: float = 0.95,
    scale: Literal["auto", "accuracy", "logit"] = "auto",
    target: float | None = None,
    style: str = "paper",
    width: str = "two columns",
    overlay: tuple[str, ...] = (),
    labels: tuple[str, ...] = (),
    details: bool = False,
    extra_items: tuple[str, ...] = (),
) -> None:
    """Redraw the page of a study, its figures and its tables.

    Args:
        studies: Folder of the study; several have one page in the folder --out.
        out: Where the files go; the study's folder if not given.
        methods: Methods to keep, with or without strength; all if none is named.
        shown_as: bits (bits_per_token of a text) shows a cross entropy in bits instead of as
            perplexity.
        baseline: Method that gains are counted from.
        confidence: Probability with which intervals cover; tests use the rest.
        scale: Scale of means, gains and tests: auto takes logit where the digital networks make at
            most 20 % errors, which fits errors that vary by factors.
        target: Accuracy that chips must reach for the yield, as a fraction, or another score as it
            is shown (5.9 is a perplexity); by default one point below the digital networks.
        style: "paper" (print), "talk" (slides), or a style sheet of your own (my.mplstyle).
        width: Of the figures: "one column", "two columns", or a number of inches (3.5).
        overlay: What is laid over each other on one axes, in a figure of its own: compensation,
            device, condition, model, dataset, study.
        labels: Labels of methods, devices, networks and data sets: samson="SAMSON (ours)".
        details: Captions name engine and precision.
        extra_items: Figures and tables of your own, package.module:name of a report.Item; put the
            folder of the package on PYTHONPATH.
    """
    paths = write_report(
        studies,
        out=out,
        shown_as=shown_as,
        baseline=baseline,
        confidence=confidence,
        look=style,
        width=width,
        overlay=overlay,
        methods=methods,
        scale=scale,
        target=target,
        labels=labels_from(labels, names_in(*(read_trials(study) for study in studies))),
        details=details,
        extra_items=extra_items,
    )
    print(written(paths))


if __name__ == "__main__":
    run_command(main)
