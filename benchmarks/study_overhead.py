"""How much of a study's time is not programming, drifting or the forward pass?

LeNet-5 on 10,000 MNIST images, one worker: everything that the harness adds (checking the study,
manifest and audit, reading images, normalising them, counting, writing rows) against the whole.
What is paid once a study (about half a second, most of it for decoding the images) is told apart
from what every point costs, from two studies of different size.

    python benchmarks/study_overhead.py --data-folder folder-with-mnist

Beside it a study of many small chips, where calls count, not arithmetic: the network "mlp" on
digits, 359 test images, five times a chip. Without a data folder it alone is measured.

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
    """Adds up the seconds spent inside functions; one called inside another counts once."""

    def __init__(self) -> None:
        self.seconds = 0.0
        self._depth = 0

    def around(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """Wrap a function so that its seconds are added."""

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
    """Seconds that a study of small chips takes, all of it, after one of a single chip."""
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
    """The harness's share of a study's wall-clock time, LeNet-5 on MNIST."""
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
        trial._digital_answers.clear()
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
    """Measure the harness's share of a study's wall-clock time, and a study of small chips.

    Args:
        data_folder: Folder that holds mnist/; None leaves LeNet-5 out.
        chips: Chips of the larger study of LeNet-5, five times each; the other has a tenth of them.
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
