"""Time to summarise and report a sweep of many conditions.

    python benchmarks/large_grid.py                         # 17 x 4 x 12 conditions, 6,528 rows
    python benchmarks/large_grid.py --conditions 100 100 --networks 5 --times 1

The second one is 10,000 conditions, 100,000 rows. Prints the seconds (CPU time of this process) of
each step and the peak memory as JSON.
"""

import json
import resource
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pandas as pd
import tyro

from analog_samson.report import (
    study_figures,
    study_tables,
    write_figures,
    write_report,
    write_tables,
)
from analog_samson.results import (
    COLUMNS,
    append_rows,
    best_methods,
    chip_means,
    paired_gain,
    read_trials,
    summarise,
)
from analog_samson.times import YEAR

METHODS = ("sgd", "sam", "samson", "rwp")
AXES = ("programming_noise_scale", "drift_scale", "noise.g_min_uS", "t_0_s")


def make_rows(
    conditions: tuple[int, ...], methods: int, networks: int, chips: int, times: int
) -> pd.DataFrame:
    """A full grid of conditions of one device; the accuracy falls with every axis and with time."""
    steps = [np.arange(n) / max(n - 1, 1) for n in conditions]
    points = list(np.ndindex(*conditions))
    texts = [
        json.dumps(
            {axis: round(4.0 * s[k], 6) for axis, s, k in zip(AXES, steps, p, strict=False)},
            sort_keys=True,
        )
        for p in points
    ]
    grid = pd.MultiIndex.from_product(
        [
            range(len(points)),
            METHODS[:methods],
            range(networks),
            range(chips),
            np.geomspace(1.0, YEAR, times) if times > 1 else [YEAR],
        ],
        names=["point", "method", "training_seed", "chip", "t_inference_s"],
    )
    rows = grid.to_frame(index=False)
    random = np.random.default_rng(0)
    place = np.array([sum(s[k] for s, k in zip(steps, p, strict=True)) for p in points])
    name = rows["method"] + "-" + rows["training_seed"].astype(str)
    mean = 0.97 - 0.05 * place[rows["point"]] * (1 + np.log10(1 + rows["t_inference_s"]) / 8)
    score = mean + 0.01 * random.standard_normal(len(rows))
    return rows.assign(
        study="benchmark",
        chip_id=rows["point"].astype(str) + name + "-" + rows["chip"].astype(str),
        dataset="digits",
        model="mlp",
        strength="",
        checkpoint=name,
        device="pcm_like",
        compensation="global",
        engine="compiled",
        precision="fp32",
        condition=[texts[k] for k in rows["point"]],
        programming_seed=1_000_000 * rows["training_seed"] + rows["chip"],
        read=0,
        n_correct=(10_000 * score.clip(0, 1)).astype(int),
        n_images_per_chip=10_000,
        n_correct_digital=9700,
        n_changed=lambda r: (9700 - r["n_correct"]).abs(),
        n_test=10_000,
        n_correct_digital_test=9700,
        analog_share=0.997,
        alpha=1.1,
        extrapolated=False,
        reproducible=True,
    )[list(COLUMNS)]


def main(
    conditions: tuple[int, ...] = (17, 4, 12),
    methods: int = 2,
    networks: int = 2,
    chips: int = 1,
    times: int = 2,
    steps: tuple[str, ...] = ("statistics", "tables", "figures", "page"),
) -> None:
    """Measure each step once.

    Args:
        conditions: Number of values of each axis, one to four of them.
        methods: Number of methods, up to four.
        networks: Networks of each method.
        chips: Chips of each network under each condition.
        times: Times of each chip.
        steps: What is measured: any of statistics, tables, figures and page.
    """
    seconds: dict[str, float] = {}

    @contextmanager
    def timed(what: str) -> Iterator[None]:
        before = time.process_time()
        yield
        seconds[what] = round(time.process_time() - before, 2)
        print(f"{what}: {seconds[what]} s", flush=True)

    with tempfile.TemporaryDirectory() as folder:
        table = Path(folder) / "trials.csv"
        append_rows(make_rows(conditions, methods, networks, chips, times), table)
        with timed("read_trials"):
            rows = read_trials(table)
        if "statistics" in steps:
            with timed("chip_means"):
                means = chip_means(rows)
            with timed("summarise"):
                summarise(means)
            with timed("paired_gain"):
                paired_gain(means)
            with timed("best_methods"):
                best_methods(means)
        if "tables" in steps:
            with timed("tables"):
                tables = study_tables(rows, folders=[folder], n_classes={"digits": 10})
            with timed("write_tables"):
                write_tables(tables, folder)
        if "figures" in steps:
            with timed("figures"):
                figures = study_figures(rows, folders=[folder])
            with timed("write_figures"):
                write_figures(figures, folder)
        if "page" in steps:
            with timed("page"):
                paths = write_report(folder)
            page = Path(folder) / "report.html"
            if page in paths:
                print(f"page: {page.stat().st_size / 1e6:.1f} MB")
    peak_gib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    print(json.dumps({"rows": len(rows), "seconds": seconds, "peak_gib": round(peak_gib, 2)}))


if __name__ == "__main__":
    tyro.cli(main)
