"""Do robust training methods keep networks accurate on analog memory for a year?

Four methods, five trained networks each, ten chips per network, two memory technologies, on
scikit-learn's digits: tables and figures in a few minutes on two cores, without downloads.

    python experiments/quickstart.py
"""

import functools
from pathlib import Path

from analog_samson.checkpoint import TrainingSpec
from analog_samson.commands import run_command, written
from analog_samson.report import write_report
from analog_samson.running import run_jobs
from analog_samson.study import Study, collect
from analog_samson.times import DAY, HOUR, MONTH, YEAR
from analog_samson.training import train

# Strengths are our choice, not tuned; train_methods.py chooses them on validation images.
METHODS = {"sgd": {}, "sam": {"rho": 0.1}, "samson": {"rho": 0.5}, "rwp": {"sigma": 0.1}}
TIMES_S = {
    "pcm_like": [1, HOUR, DAY, MONTH, YEAR],
    "reram_wan2022": [1, DAY, 2 * DAY],
}


def main(
    folder: Path = Path("results/quickstart"), jobs: int = 2, seeds: int = 5, chips: int = 10
) -> None:
    """Train, program, drift, report: digits on PCM and ReRAM from one second to one year.

    Args:
        folder: Where checkpoints, trials.csv, table and figure go; run again to resume.
        jobs: Worker processes.
        seeds: Trained networks per method.
        chips: Chips of every network on every device.
    """
    specs = [
        TrainingSpec(dataset="digits", model="mlp", method=method, seed=seed, epochs=30, **strength)
        for method, strength in METHODS.items()
        for seed in range(seeds)
    ]
    train_one = functools.partial(train, folder=folder / "checkpoints")
    checkpoints = sorted(run_jobs(train_one, specs, jobs=jobs, progress="training"))
    study = Study("quickstart", checkpoints, list(TIMES_S), TIMES_S, n_chips=chips)
    collect(study, folder, jobs=jobs, progress=True)
    print(written(write_report(folder)))


if __name__ == "__main__":
    run_command(main)
