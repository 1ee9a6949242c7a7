"""How much of a study's time is not programming, drifting or the forward pass?

LeNet-5 on 10,000 MNIST images, one worker: everything that the harness adds (checking the study,
manifest and audit, reading images, normalising them, counting, writing rows) against the whole.

    python benchmarks/study_overhead.py --data-folder folder-with-mnist
"""

import json
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from analog_samson import Study, collect
from analog_samson.checkpoint import TrainingSpec
from analog_samson.chip import Chip
from analog_samson.commands import run_command
from analog_samson.study import trial
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


def main(data_folder: Path | None = None, chips: int = 10, out: Path | None = None) -> None:
    """Measure the harness's share of a study's wall-clock time.

    Args:
        data_folder: Folder that holds mnist/.
        chips: Chips of the study; five times each.
        out: Where to write the figures as JSON.
    """
    work, whole = Stopwatch(), Stopwatch()
    trial.program = work.around(trial.program)
    Chip.drift_to = work.around(Chip.drift_to)  # type: ignore[method-assign]
    Chip.__call__ = work.around(Chip.__call__)  # type: ignore[method-assign]
    with tempfile.TemporaryDirectory() as folder:
        spec = TrainingSpec(dataset="mnist", model="lenet5", epochs=0)
        checkpoint = train(spec, folder, data_folder=data_folder)
        study = Study(
            "overhead",
            [checkpoint],
            ["pcm_like"],
            [1, HOUR, DAY, MONTH, YEAR],
            n_chips=chips,
            data_folder=data_folder,
        )
        whole.around(collect)(study, folder)
    figures = {
        "chips": chips,
        "points": 5 * chips,
        "total_s": whole.seconds,
        "program_drift_forward_s": work.seconds,
        "overhead_percent": 100 * (1 - work.seconds / whole.seconds),
    }
    print(json.dumps(figures, indent=1))
    if out is not None:
        out.write_text(json.dumps(figures, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    run_command(main)
