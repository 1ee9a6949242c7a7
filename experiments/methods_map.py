"""Which training method to choose? A map of the best method of every cell, and a table of advice.

    python experiments/methods_map.py results/mnist-methods --folder map --scale accuracy
    python experiments/methods_map.py results/mnist-methods results/mine --folder map --style talk

Reads the tables of trials of studies of several methods, of one task or several, and their
`networks.csv` where there is one. Writes `methods_map.pdf` and `.png` (which method is best on
which task, device, compensation and time, by how much), a table for each task, and `advice.md`,
`.tex` and `.csv` (which method to choose with what is known of the hardware). Without torch; 15
seconds.
"""

from pathlib import Path
from typing import Annotated, Literal

import tyro

from analog_samson.commands import run_command, written
from analog_samson.files import made_folder
from analog_samson.report import names_in, select, study_advice, write_figures, write_tables
from analog_samson.report.advice import networks_beside
from analog_samson.report.methods import labels_from, shows_methods
from analog_samson.results import read_trials, scales_of, variants_of, with_variants
from analog_samson.times import seconds


@shows_methods
def main(
    studies: Annotated[tuple[Path, ...], tyro.conf.Positional],
    folder: Path,
    devices: tuple[str, ...] = (),
    methods: tuple[str, ...] = (),
    times_s: tuple[float | str, ...] = ("1 h", "1 d", "1 y"),
    baseline: str = "sgd",
    confidence: float = 0.95,
    scale: Literal["auto", "accuracy", "logit"] = "auto",
    style: str = "paper",
    width: str = "two columns",
    formats: tuple[str, ...] = ("pdf", "png"),
    labels: tuple[str, ...] = (),
) -> None:
    """Draw the map of methods and write the table of advice.

    Args:
        studies: Folders of studies; tasks are shown in their order.
        folder: Where the map and the advice go.
        devices: Devices to keep; all if none is named.
        methods: Methods to keep, with or without strength; all if none is named.
        times_s: Times of the columns, in seconds or as "1 h"; a device without one of them shows
            its nearest other time there.
        baseline: Method that gains are counted from.
        confidence: Probability with which intervals cover; tests use the rest.
        scale: Scale of means, gains and tests: auto takes logit where the digital networks make at
            most 20 % errors.
        style: "paper" (print), "talk" (slides), or a style sheet of your own (my.mplstyle).
        width: "one column", "two columns", or a number of inches (7.2).
        formats: Any of pdf, png, svg, pgf.
        labels: Labels of methods, their variants, devices, networks and data sets:
            "samson p=2"="SAMSON, Euclidean".
    """
    if not studies:
        raise ValueError("Give at least one folder of a study; got none.")
    every = read_trials(*studies)
    rows = select(every, devices=devices, methods=methods)
    named = with_variants(rows, variants_of(rows, networks_beside(studies)))
    figures, tables = study_advice(
        rows,
        folders=studies,
        baseline=baseline,
        confidence=confidence,
        scale=scales_of(every, scale),
        times_s=[seconds(time) for time in times_s],
        width=width,
        look=style,
        labels=labels_from(labels, names_in(rows, named)),
    )
    folder = made_folder(folder, "folder of --folder")
    paths = [*write_tables(tables, folder), *write_figures(figures, folder, formats, look=style)]
    print(written(paths))


if __name__ == "__main__":
    run_command(main)
