"""How much of a study's time is not programming, drifting or the forward pass?

LeNet-5 on 10,000 MNIST images, one worker: everything that the harness adds (checking the study,
manifest and audit, reading images, normalising them, counting, writing rows) against the whole.
What is paid once a study (about half a second, most of it for decoding the images) is told apart
from what every point costs, from two studies of different size.

    python benchmarks/study_overhead.py --data-folder folder-with-mnist
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
from analog_samson.chip import Chip
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


def main(data_folder: Path | None = None, chips: int = 100, out: Path | None = None) -> None:
    """Measure the harness's share of a study's wall-clock time.

    Args:
        data_folder: Folder that holds mnist/.
        chips: Chips of the larger study, five times each; the other has a tenth of them.
        out: Where to write the figures as JSON.
    """
    work = Stopwatch()
    trial.program = work.around(trial.program)
    Chip.drift_to = work.around(Chip.drift_to)  # type: ignore[method-assign]
    Chip.__call__ = work.around(Chip.__call__)  # type: ignore[method-assign]
    nn.Sequential.__call__ = work.around(nn.Sequential.__call__)  # the digital network
    measured = []
    with tempfile.TemporaryDirectory() as folder:
        spec = TrainingSpec(dataset="mnist", model="lenet5", epochs=0)
        checkpoint = train(spec, folder, data_folder=data_folder)
        times = (1, HOUR, DAY, MONTH, YEAR)
        for n_chips in (max(chips // 10, 1), chips):
            study = Study(
                "overhead", [checkpoint], ["pcm_like"], times, n_chips, data_folder=data_folder
            )
            the_test_set.cache_clear()
            trial._digital_answers.clear()
            whole, before = Stopwatch(), work.seconds
            whole.around(collect)(study, Path(folder) / str(n_chips))
            spent = work.seconds - before
            measured.append((len(times) * n_chips, whole.seconds - spent, whole.seconds))
    (few, least, _), (points, most, total) = measured
    a_point = (most - least) / (points - few)
    figures = {
        "points": points,
        "total_s": total,
        "overhead_percent": 100 * most / total,
        "overhead_once_s": most - a_point * points,
        "overhead_a_point_s": a_point,
        "program_drift_forward_a_point_s": (total - most) / points,
    }
    print(json.dumps(figures, indent=1))
    if out is not None:
        out.write_text(json.dumps(figures, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    run_command(main)
