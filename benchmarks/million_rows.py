"""Time to read and summarise 1,000,000 rows.

    python benchmarks/million_rows.py            # about 30 s, mostly for generating the rows

Prints the seconds of each step and the peak memory as JSON.
"""

import json
import resource
import tempfile
import time
from pathlib import Path

import numpy as np
import pandas as pd

from analog_samson.results import COLUMNS, append_rows, paired_gain, read_trials, summarise
from analog_samson.times import DAY, HOUR, MONTH, YEAR


def make_rows(n_rows: int) -> pd.DataFrame:
    """Four methods x 5 networks x chips x 5 times x 2 reads, on two devices."""
    n_chips = n_rows // (2 * 4 * 5 * 5 * 2)
    axes = [["pcm_like", "reram_wan2022"], ["sgd", "sam", "samson", "rwp"], range(5)]
    grid = pd.MultiIndex.from_product(
        [*axes, range(n_chips), [1.0, HOUR, DAY, MONTH, YEAR], range(2)],
        names=["device", "method", "training_seed", "chip", "t_inference_s", "read"],
    )
    rows = grid.to_frame(index=False)
    name = rows["method"] + "-" + rows["training_seed"].astype(str)
    random = np.random.default_rng(0)
    return rows.assign(
        study="benchmark",
        chip_id=rows["device"].str[:4] + name + "-" + rows["chip"].astype(str),
        dataset="cifar10",
        model="resnet20",
        strength="",
        checkpoint=name,
        compensation="global",
        engine="compiled",
        precision="fp32",
        condition='{"g_max_uS": 25.0, "programming_noise": 1.0}',
        programming_seed=1_000_000 * rows["training_seed"] + rows["chip"],
        n_correct=random.integers(8000, 9500, len(rows)),
        n_images_per_chip=10_000,
        n_correct_digital=9500,
        n_changed=1500,
        n_test=10_000,
        n_correct_digital_test=9500,
        analog_share=0.997,
        alpha=random.uniform(1.0, 1.2, len(rows)),
        extrapolated=False,
        reproducible=True,
    )[list(COLUMNS)]


def main() -> None:
    """Measure each step once."""
    seconds = {}
    with tempfile.TemporaryDirectory() as folder:
        table = Path(folder) / "trials.csv"
        append_rows(make_rows(1_000_000), table)
        before = time.perf_counter()
        rows = read_trials(table)
        seconds["read_trials"] = time.perf_counter() - before
        before = time.perf_counter()
        summarise(rows)
        seconds["summarise"] = time.perf_counter() - before
        before = time.perf_counter()
        paired_gain(rows)
        seconds["paired_gain"] = time.perf_counter() - before
    peak_gib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    print(json.dumps({"rows": len(rows), "seconds": seconds, "peak_gib": peak_gib}, indent=2))


if __name__ == "__main__":
    main()
