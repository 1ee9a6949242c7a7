"""How accurate is a trained network on analog memory, from one second to one year?

    python experiments/drift_sweep.py checkpoints/*.safetensors --devices pcm_like pcm_hermes
    python experiments/drift_sweep.py --study study.toml
    python experiments/drift_sweep.py --study study.toml --part 3/16
    python experiments/drift_sweep.py networks/*.safetensors --accelerator cuda --chips-together 8

About 0.14 s per chip and time for LeNet-5 on 10,000 images and one core.
"""

import inspect
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import tyro
from joblib import cpu_count

from analog_samson.commands import run_command, written
from analog_samson.devices import load_device
from analog_samson.evaluation import Accelerator
from analog_samson.report import write_report
from analog_samson.running import cluster as dask_cluster
from analog_samson.study import Study, collect, estimate_cost, load_study, unfinished

IN_FILE = ("checkpoints", "devices", "times_s", "name", "chips", "score", "reads", "compensation",
           "refresh_every", "compensation_times", "seed", "n_test", "n_images_per_chip",
           "question")  # fmt: skip
"""Arguments that a study file says itself."""

BESIDE_FILE = ("data_folder", "dataset", "accelerator", "chips_together")
"""Arguments that come before what a study file says: they depend on the machine."""

OLD_OPTIONS = {"--n-images": "--n-test", "--images": "--n-images-per-chip"}


def main(
    checkpoints: Annotated[tuple[Path, ...], tyro.conf.Positional] = (),
    study: Path | None = None,
    devices: tuple[str, ...] = ("pcm_like",),
    times_s: tuple[float | str, ...] = ("1 s", "1 h", "1 d", "1 mo", "1 y"),
    name: str = "drift",
    folder: Path | None = None,
    chips: int = 10,
    score: str = "accuracy",
    reads: int = 1,
    compensation: tuple[str, ...] = (),
    refresh_every: str | None = None,
    compensation_times: str | None = None,
    seed: int = 0,
    jobs: int = 2,
    part: str | None = None,
    cluster: str | None = None,
    dask_local: int | None = None,
    data_folder: Path | None = None,
    dataset: str | None = None,
    n_test: int | None = None,
    n_images_per_chip: int | None = None,
    accelerator: Accelerator = "cpu",
    chips_together: int = 1,
    question: str = "",
    estimate_only: bool = False,
    trust: tuple[str, ...] = (),
) -> None:
    """Sweep time: program chips of every network on every device and evaluate them over time.

    Args:
        checkpoints: Trained networks (.safetensors).
        study: TOML file that defines the study, instead of the options; only those of the machine
            (--data-folder, --dataset, --accelerator, --chips-together) go before it.
        devices: Names of devices, or paths of device files.
        times_s: Times since programming, in seconds or as "1 h"; a device known only at certain
            times uses those.
        name: Name of the study.
        folder: Where trials.csv, table and figure go; results/<name> by default.
        chips: Chips of every network on every device.
        score: What is measured: accuracy, top5, cross_entropy, bits, bits_per_token,
            token_accuracy, mse, or package.module:function of your own.
        reads: Reads of every chip at every time.
        compensation: Kinds of drift compensation to compare; by default the device's own.
        refresh_every: Interval after which chips are programmed again, such as "1 mo", or never; by
            default as the device says.
        compensation_times: When drift compensation is measured since the last programming: "1 h,
            1 week", "every 1 week" or "every time"; by default as the device says.
        seed: Random seed of the study, from which the seeds of its chips derive.
        jobs: Worker processes, one thread each; -1 takes every core.
        part: The part of the study to compute, such as 3/16; other parts may run concurrently.
        cluster: Address of a Dask scheduler (tcp://...) whose workers compute the chips.
        dask_local: Instead: this many Dask worker processes on this machine.
        data_folder: Folder that holds the images.
        dataset: Path of the data set of your own that the networks were trained on.
        n_test: Test images, counted from the first; all by default.
        n_images_per_chip: How many of those each chip is evaluated on, drawn at random for every
            chip; all by default.
        accelerator: cpu or cuda.
        chips_together: Chips of a network whose inference is batched, to use a GPU fully.
        question: Question of the study, printed at the top of its report.
        estimate_only: Only estimate the duration of the study, by timing one chip of every kind.
        trust: Packages that checkpoints and device files may import from.
    """
    given = _not_default(locals())
    if study is not None:
        if foreign := [name for name in IN_FILE if name in given]:
            options = ", ".join(f"--{name.replace('_', '-')}" for name in foreign)
            raise ValueError(f"{study} defines the study; say there what {options} says here.")
        own = {name: given[name] for name in BESIDE_FILE if name in given}
        chosen = replace(load_study(study, trust), **own)
    else:
        loaded = [load_device(device, trust) for device in devices]
        chosen = Study(
            name,
            checkpoints,
            loaded,
            times_s={device.name: device.times.valid_times_s or times_s for device in loaded},
            n_chips=chips,
            score=score,
            n_reads=reads,
            axes={"compensation": compensation} if compensation else {},
            refresh_every=refresh_every,
            compensation_times=compensation_times,
            seed=seed,
            data_folder=data_folder,
            dataset=dataset,
            n_test=n_test,
            n_images_per_chip=n_images_per_chip,
            accelerator=accelerator,
            chips_together=chips_together,
            question=question,
            trust=trust,
        )
    if estimate_only:
        print(estimate_cost(chosen, jobs=cpu_count() if jobs == -1 else jobs))
        return
    folder = folder or Path("results") / chosen.name
    with dask_cluster(cluster, dask_local):
        workers = 1 if cluster or dask_local else jobs
        rows = collect(chosen, folder, part=part, jobs=workers, progress=True)
    print(unfinished(chosen, rows) or written(write_report(folder)))


def _not_default(arguments: dict[str, Any]) -> dict[str, Any]:
    """The arguments of `main` that were given."""
    defaults = inspect.signature(main).parameters
    return {name: value for name, value in arguments.items() if value != defaults[name].default}


if __name__ == "__main__":
    run_command(main, old_options=OLD_OPTIONS)
