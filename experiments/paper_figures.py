"""Redraw every figure of one or several studies: from trials.csv alone, in seconds, without torch.

    python experiments/paper_figures.py results/quickstart
    python experiments/paper_figures.py results/pcm results/reram --out figures --formats pdf svg
    python experiments/paper_figures.py results/quickstart --methods sgd samson --style talk
    python experiments/paper_figures.py results/grid --map noise_scale g_min_uS --at "1 y"
    python experiments/paper_figures.py results/quickstart --style my.mplstyle --width 3.5
    python experiments/paper_figures.py results/quickstart --labels samson="SAMSON (ours)"
    python experiments/paper_figures.py results/pcm results/hermes --overlay device
    python experiments/paper_figures.py results/quickstart --extra-items my_package.figures:latency

Several studies are drawn side by side, a panel per device. Takes about five seconds.
"""

from pathlib import Path
from typing import Annotated, Literal

import tyro

from analog_samson.commands import run_command, written
from analog_samson.files import made_folder
from analog_samson.report import (
    Content,
    names_in,
    select,
    study_figures,
    study_maps,
    write_figures,
    write_tables,
)
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
    interval: str = "bars",
    style: str = "paper",
    width: str = "two columns",
    programmed: bool = False,
    same_times: bool = False,
    overlay: tuple[str, ...] = (),
    formats: tuple[str, ...] = ("pdf", "png"),
    labels: tuple[str, ...] = (),
    details: bool = False,
    extra_items: tuple[str, ...] = (),
    map: tuple[str, ...] = (),
    at: tuple[float | str, ...] = (),
    map_of: Literal["score", "gain", "lost"] = "score",
) -> None:
    """Redraw every figure of one or several studies.

    Args:
        studies: Folders of studies.
        out: Where the figures go; the first study's folder if not given.
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
        interval: "bars" or "band".
        style: "paper" (print), "talk" (slides), or a style sheet of your own (my.mplstyle).
        width: "one column", "two columns", or a number of inches (3.5).
        programmed: Figures over time show the programmed state (t = 0), too.
        same_times: All panels of a figure have one time axis; else each has its own times.
        overlay: What is laid over each other on one axes, in a figure of its own: compensation,
            device, condition, model, dataset, study.
        formats: Any of pdf, png, svg, pgf.
        labels: Labels of methods, devices, networks and data sets: samson="SAMSON (ours)".
        details: Captions name engine and precision.
        extra_items: Figures of your own, package.module:name of a report.Item; put the folder of
            the package on PYTHONPATH.
        map: Draw only a map over two swept settings, or three (noise_scale g_min_uS drift_scale),
            with contour lines and the region that meets --target, and write its points as CSV.
        at: Times of the map, as --times-s ("1 y").
        map_of: What is mapped: the score, its gain over the baseline, or what is lost since the
            digital network.
    """
    if not studies:
        raise ValueError("Give at least one folder of a study; got none.")
    times_s = (*times_s, *at)
    every = read_trials(*studies)
    rows = select(every, devices=devices, methods=methods, times_s=times_s)
    scales = scales_of(every, scale)
    rows = as_named(rows, shown_as) if shown_as else rows
    folder = made_folder(out or studies[0], "folder of --out" if out else "folder of the study")
    if map:
        content = Content(
            rows,
            studies,
            baseline=baseline,
            confidence=confidence,
            bootstrap=bootstrap,
            scale=scales,
            target=target,
            width=width,
            look=style,
        )
        figures, table = study_maps(content, map, of=map_of)
        stem = "_".join(["map", *([] if map_of == "score" else [map_of]), *map])
        paths = [
            *write_tables({stem: table}, folder),
            *write_figures(figures, folder, formats, look=style),
        ]
        print(written(paths))
        return
    drawn = study_figures(
        rows,
        folders=studies,
        baseline=baseline,
        confidence=confidence,
        scale=scales,
        target=target,
        bootstrap=bootstrap,
        interval=interval,
        width=width,
        look=style,
        programmed=programmed,
        same_times=same_times,
        overlay=overlay,
        labels=labels_from(labels, names_in(rows)),
        details=details,
        extra_items=extra_items,
    )
    print(written(write_figures(drawn, folder, formats, look=style)))


if __name__ == "__main__":
    run_command(main)
