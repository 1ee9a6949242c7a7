"""Overhead of a study: time that is not programming, drift or the forward pass.

LeNet-5 on 10,000 MNIST images, one worker: time of the harness (checks, manifest and audit, reading
and normalising images, counting, writing rows) relative to the whole. Two studies of different size
separate the overhead per study (mostly decoding of images) from the overhead per point.

    python benchmarks/study_overhead.py --data-folder folder-with-mnist

Also a study of many small chips, whose time is dominated by calls, not by arithmetic: the network
"mlp" on digits, 359 test images, five times per chip. Without a data folder only this is measured.

    python benchmarks/study_overhead.py --small-chips 1000 --jobs 2
"""

import json
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from torch import nn

from analog_samson import Study, collect
from analog_samson.checkpoint import TrainingSpec
from analog_samson.chip import Chip, MappedNetwork
from analog_samson.commands import run_command
from analog_samson.study import trial
from analog_samson.study.sources import the_test_set
from analog_samson.times import DAY, HOUR, MONTH, YEAR
from analog_samson.training import train


class Stopwatch:
    """Sums the seconds spent in functions; nested calls are counted once."""

    def __init__(self) -> None:
        self.seconds = 0.0
        self._depth = 0

    def around(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """Wrap a function so that its time is added."""

        def timed(*arguments: Any, **options: Any) -> Any:
            start = time.perf_counter()
            self._depth += 1
            try:
                return function(*arguments, **options)
            finally:
                self._depth -= 1
                if self._depth == 0:
                    self.seconds += time.perf_counter() - start

        return timed


TIMES = (1, HOUR, DAY, MONTH, YEAR)


def small(folder: Path, chips: int, jobs: int) -> dict[str, float]:
    """Total seconds of a study of small chips, and per chip (less a study of one chip)."""
    checkpoint = train(TrainingSpec(dataset="digits", model="mlp", epochs=1), folder)
    spent = {}
    for n_chips in (1, chips):
        study = Study("small", [checkpoint], ["pcm_like"], TIMES, n_chips)
        whole = Stopwatch()
        whole.around(collect)(study, folder / f"small-{n_chips}", jobs=jobs)
        spent[n_chips] = whole.seconds
    return {
        "chips": chips,
        "jobs": jobs,
        "total_s": spent[chips],
        "a_chip_ms": 1e3 * (spent[chips] - spent[1]) / max(chips - 1, 1),
    }


def overhead(folder: Path, data_folder: Path, chips: int) -> dict[str, float]:
    """Share of the harness in the wall-clock time of a study, LeNet-5 on MNIST."""
    work = Stopwatch()
    MappedNetwork.__init__ = work.around(MappedNetwork.__init__)  # type: ignore[method-assign]
    MappedNetwork.program = work.around(MappedNetwork.program)  # type: ignore[method-assign]
    Chip.drift_to = work.around(Chip.drift_to)  # type: ignore[method-assign]
    Chip.__call__ = work.around(Chip.__call__)  # type: ignore[method-assign]
    nn.Sequential.__call__ = work.around(nn.Sequential.__call__)  # the digital network
    measured = []
    spec = TrainingSpec(dataset="mnist", model="lenet5", epochs=0)
    checkpoint = train(spec, folder, data_folder=data_folder)
    for n_chips in (max(chips // 10, 1), chips):
        study = Study(
            "overhead", [checkpoint], ["pcm_like"], TIMES, n_chips, data_folder=data_folder
        )
        the_test_set.cache_clear()
        trial._digital_results.clear()
        trial._latest_mapped.clear()
        whole, before = Stopwatch(), work.seconds
        whole.around(collect)(study, folder / str(n_chips))
        spent = work.seconds - before
        measured.append((len(TIMES) * n_chips, whole.seconds - spent, whole.seconds))
    (few, least, _), (points, most, total) = measured
    a_point = (most - least) / (points - few)
    return {
        "points": points,
        "total_s": total,
        "overhead_percent": 100 * most / total,
        "overhead_once_s": most - a_point * points,
        "overhead_a_point_s": a_point,
        "program_drift_forward_a_point_s": (total - most) / points,
    }


def main(
    data_folder: Path | None = None,
    chips: int = 100,
    small_chips: int = 10_000,
    jobs: int = 1,
    out: Path | None = None,
) -> None:
    """Measure the share of the harness in the time of a study, and a study of small chips.

    Args:
        data_folder: Folder that contains mnist/; None: without LeNet-5.
        chips: Chips of the larger study of LeNet-5, five times each; the smaller has a tenth.
        small_chips: Chips of the study of small chips, five times each.
        jobs: Worker processes of the study of small chips.
        out: Where to write the figures as JSON.
    """
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        figures = {"mlp on digits": small(folder, small_chips, jobs)}
        if data_folder is not None:
            figures["LeNet-5 on MNIST"] = overhead(folder, data_folder, chips)
    print(json.dumps(figures, indent=1))
    if out is not None:
        out.write_text(json.dumps(figures, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    run_command(main)
