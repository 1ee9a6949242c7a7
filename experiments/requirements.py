r"""How good must the device be? The largest scale of each noise source that a network tolerates.

Each noise source of the device is scaled alone, then all together, until the network loses more
than it may, at one time; or, with a yield, until too few chips lose no more than that.

    python experiments/requirements.py networks/*.safetensors --lose 1 --at "1 y" --dry-run
    python experiments/requirements.py networks/*.safetensors --lose 1 --at "1 y"
    python experiments/requirements.py networks/*.safetensors --lose 2 --at "1 d" --yield 0.9

Written: `tolerances.csv` (a line per network and source), the table `requirements` (.md, .csv,
.tex) and its figure. A run that was stopped continues. About 100 chips per network and source with
`--chips-at-most 20`, ten times as many with a yield.
"""

from pathlib import Path
from typing import Annotated

import tyro
from joblib import cpu_count

from analog_samson.commands import run_command, written
from analog_samson.devices.noise_sources import Others
from analog_samson.evaluation import Accelerator
from analog_samson.files import made_folder
from analog_samson.report import write_requirements
from analog_samson.study import Study
from analog_samson.study.requirements import estimate_tolerances, tolerances


def main(
    checkpoints: Annotated[tuple[Path, ...], tyro.conf.Positional],
    lose: float,
    device: str = "pcm_like",
    at: float | str = "1 y",
    share: Annotated[float | None, tyro.conf.arg(name="yield")] = None,
    confidence: float = 0.95,
    sources: tuple[str, ...] = (),
    others: Others = "off",
    refresh_every: str | None = None,
    compensation_times: str | None = None,
    baseline: str = "sgd",
    name: str = "requirements",
    folder: Path | None = None,
    chips_at_most: int = 100,
    score: str = "accuracy",
    seed: int = 0,
    jobs: int = 2,
    data_folder: Path | None = None,
    dataset: str | None = None,
    n_test: int | None = None,
    n_images_per_chip: int | None = None,
    accelerator: Accelerator = "cpu",
    chips_together: int = 1,
    dry_run: bool = False,
    trust: tuple[str, ...] = (),
) -> None:
    """Find the tolerance of every network for every noise source of a device.

    Args:
        checkpoints: Trained networks (.safetensors).
        lose: What a network may lose since its digital version: points of accuracy, % of
            perplexity, or the unit of another score.
        device: Name of a device, or path of a device file.
        at: Time since programming finished, in seconds or as "1 h".
        share: Share of the chips that may lose no more than that, such as 0.9; by default the mean
            over chips is what may lose no more.
        confidence: Probability with which an interval contains the tolerance.
        sources: Noise sources to scale, such as drift_scale or "all together"; all by default.
        others: The sources that are not scaled: off, or nominal, as on the device.
        refresh_every: Interval after which chips are programmed again, such as "1 mo", or never; by
            default as the device says.
        compensation_times: When drift compensation is measured since the last programming: "1 h,
            1 week", "every 1 week" or "every time"; by default as the device says.
        baseline: Method that the others are compared with, by training seed.
        name: Name of the study.
        folder: Where trials.csv, table and figure go; results/<name> by default.
        chips_at_most: Most chips of a network at a scale; few are used where they decide.
        score: What is measured, as in a study.
        seed: Random seed of the study, from which the seeds of its chips derive.
        jobs: Worker processes, one thread each; -1 takes every core.
        data_folder: Folder that holds the images.
        dataset: Path of the data set of your own that the networks were trained on.
        n_test: Test images, counted from the first; all by default.
        n_images_per_chip: How many of those each chip is evaluated on, drawn at random for every
            chip; all by default.
        accelerator: cpu or cuda.
        chips_together: Chips of a network whose inference is batched, to use a GPU fully.
        dry_run: Only estimate chips and duration, by timing some chips.
        trust: Packages that checkpoints and device files may import from.
    """
    study = Study(
        name,
        checkpoints,
        [device],
        [at],
        n_chips=chips_at_most,
        score=score,
        refresh_every=refresh_every,
        compensation_times=compensation_times,
        seed=seed,
        data_folder=data_folder,
        dataset=dataset,
        n_test=n_test,
        n_images_per_chip=n_images_per_chip,
        accelerator=accelerator,
        chips_together=chips_together,
        question=f"How good must {device} be, so that no more than {lose:g} is lost at {at}?",
        trust=trust,
    )
    asked = {"share": share, "confidence": confidence, "sources": sources, "others": others}
    cost = estimate_tolerances(study, lose, **asked, jobs=cpu_count() if jobs == -1 else jobs)
    print(f"{cost} (estimated for losses that grow with the square of the scale).")
    if dry_run:
        return
    folder = made_folder(folder or Path("results") / name)
    rows = tolerances(study, folder, lose, **asked, jobs=jobs, progress=True)
    print(written(write_requirements(rows, folder, baseline=baseline)))


if __name__ == "__main__":
    run_command(main)
