"""Time of a training step of each method, and of the training loop, relative to plain SGD.

    python benchmarks/training_step.py                    # about four minutes on one core
    python benchmarks/training_step.py --epochs 0 --table results/training-cost/steps.csv

Steps of all methods are interleaved, batch by batch; the result is the ratio to the SGD step of the
same round, in CPU time, so that other programs do not count. The loop is compared with a loop with
DataLoader and torchvision's transforms on PIL images, in fp32, with the faster number of loading
processes. Every loop runs in its own process, one epoch of each in turn, in wall-clock time.
Written to results/benchmarks/training_step.json: medians and quartiles, and the machine; with
`--table` also the ratios of every round.
"""

import json
import multiprocessing
import os
import platform
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from multiprocessing.connection import Connection
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from torch.nn import functional as F

from analog_samson.checkpoint import TrainingSpec
from analog_samson.commands import run_command
from analog_samson.data import Dataset, Split
from analog_samson.models import build_model
from analog_samson.training import loop, step

METHODS = {
    "sgd": {},
    "sam": {"rho": 0.05},
    "asam": {"rho": 0.5},
    "samson": {"rho": 0.2},
    "rwp": {"sigma": 0.05},
    "saf": {"trajectory_weight": 0.3, "trajectory_start": 0.0},
    "mesa": {"trajectory_weight": 0.8, "trajectory_start": 0.0},
}
ALLOWED = {"sam": 2.1, "asam": 2.1, "samson": 2.1, "rwp": 1.1, "saf": 1.05, "mesa": 1.4}
LOOPS: dict[str, int | dict] = {
    "plain, 0 loading processes": 0,
    "plain, 2 loading processes": 2,
    "ours": {},
    "ours, not channels last": {"channels_last": False},
    "ours, compiled": {"compile": True},
    "ours, bfloat16": {"precision": "bfloat16"},
    "ours, bfloat16, compiled": {"precision": "bfloat16", "compile": True},
}
"""Number of loading processes of a plain loop, or fields of the specification."""
SHAPES = {"resnet20": (3, 32, 32), "lenet5": (1, 28, 28)}


def random_dataset(image_shape: tuple[int, int, int], n_images: int) -> Dataset:
    """Random images: the time of a step does not depend on their content."""
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(256, (n_images, *image_shape), generator=generator, dtype=torch.uint8)
    split = Split(images, torch.randint(10, (n_images,), generator=generator))
    n = image_shape[0]
    names = tuple("0123456789")
    return Dataset("random", names, split, split, split, 255.0, (0.5,) * n, (0.25,) * n)


def stepper(spec: TrainingSpec, dataset: Dataset) -> Callable[[], None]:
    """One step of a method on the next batch, as in `train`."""
    state = loop._begin(spec, dataset, ())
    state.epoch = 1
    generator = torch.Generator().manual_seed(0)
    order = torch.randperm(len(dataset.train), generator=generator)
    place = 0

    def one_step() -> None:
        nonlocal place
        indices = order[place : place + spec.batch_size]
        place = (place + spec.batch_size) % (len(order) - spec.batch_size + 1)
        images = dataset.normalise(state.images[indices])
        batch = step.Batch(images, state.labels[indices], indices)
        rule = step.rule_of(spec, spec.full_strength, state, generator)
        step.gradients_of(state, spec, batch, rule, spec.full_strength)
        step.update(state, spec)

    return one_step


def interleaved(
    steps: dict[str, Callable[[], None]], rounds: int, clock: Callable[[], float]
) -> dict[str, list[float]]:
    """Seconds of every call; all callables in turn, with the order rotated every round."""
    seconds: dict[str, list[float]] = {name: [] for name in steps}
    names = list(steps)
    for round_ in range(-2, rounds):  # two rounds warm up
        for name in names[round_ % len(names) :] + names[: round_ % len(names)]:
            started = clock()
            steps[name]()
            if round_ >= 0:
                seconds[name].append(clock() - started)
    return seconds


def quartiles(values: np.ndarray) -> dict[str, float]:
    """Median and quartiles, rounded to four digits."""
    low, median, high = np.quantile(values, [0.25, 0.5, 0.75])
    return {
        "median": round(float(median), 4),
        "quartiles": [round(float(low), 4), round(float(high), 4)],
    }


def plain_epoch(model_name: str, dataset: Dataset, batch_size: int, workers: int) -> Callable:
    """An epoch of a usual loop: DataLoader, PIL images, transforms image by image."""
    from PIL import Image
    from torchvision import transforms

    n = dataset.image_shape[0]
    transform = transforms.Compose(
        [
            transforms.RandomCrop(dataset.image_shape[1], padding=4),
            transforms.RandomHorizontalFlip(),
            transforms.ToTensor(),
            transforms.Normalize(dataset.mean, dataset.std),
        ]
    )
    arrays = dataset.train.images.permute(0, 2, 3, 1).squeeze(3 if n == 1 else 0).numpy()
    labels = dataset.train.labels.tolist()

    class Images(torch.utils.data.Dataset):
        def __len__(self) -> int:
            return len(labels)

        def __getitem__(self, i: int):
            return transform(Image.fromarray(arrays[i])), labels[i]

    loader = torch.utils.data.DataLoader(
        Images(), batch_size=batch_size, shuffle=True, drop_last=True, num_workers=workers,
        persistent_workers=workers > 0, multiprocessing_context="fork" if workers else None,
    )  # fmt: skip
    model = build_model(model_name, image_shape=dataset.image_shape, n_classes=10, seed=0)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9, weight_decay=5e-4)

    def epoch() -> None:
        model.train()
        for images, targets in loader:
            optimizer.zero_grad()
            F.cross_entropy(model(images), targets).backward()
            optimizer.step()

    return epoch


def our_epoch(spec: TrainingSpec, dataset: Dataset) -> Callable[[], None]:
    """An epoch of `train`."""
    state = loop._begin(spec, dataset, ())

    def epoch() -> None:
        loop._train_epoch(state, spec, dataset)

    return epoch


def run_epochs(calls: Connection, usual: TrainingSpec, name: str) -> None:
    """Run an epoch of a loop for each request, and reply when it is finished."""
    torch.set_num_threads(usual.threads)
    dataset = random_dataset(SHAPES[usual.model], 10 * usual.batch_size)
    how = LOOPS[name]
    if isinstance(how, int):
        epoch = plain_epoch(usual.model, dataset, usual.batch_size, how)
        while calls.recv():
            calls.send(epoch())
        return
    spec = replace(usual, augmentation="crop_flip", **how)
    with loop.own_machine(spec):
        epoch = our_epoch(spec, dataset)
        while calls.recv():
            calls.send(epoch())


@contextmanager
def loops_apart(usual: TrainingSpec) -> Iterator[dict[str, Callable[[], None]]]:
    """Every loop in its own process; a call waits until its epoch is finished."""
    context = multiprocessing.get_context("spawn")
    ours: list[Connection] = []
    processes = []
    for name in LOOPS:
        here, there = context.Pipe()
        processes.append(context.Process(target=run_epochs, args=(there, usual, name)))
        processes[-1].start()
        there.close()  # a process that ends is an EOFError here
        ours.append(here)

    def caller(calls: Connection) -> Callable[[], None]:
        def epoch() -> None:
            calls.send(True)
            calls.recv()

        return epoch

    try:
        yield dict(zip(LOOPS, map(caller, ours), strict=True))
        for calls in ours:
            calls.send(False)
        for process in processes:
            process.join()
    finally:
        for process in processes:
            process.terminate()


def loop_speed(usual: TrainingSpec, epochs: int) -> dict[str, dict[str, float]]:
    """How many times as fast as a plain loop each loop is, epoch by epoch."""
    with loops_apart(usual) as loops:
        spent = {
            name: np.array(s) for name, s in interleaved(loops, epochs, time.perf_counter).items()
        }
    plain = np.minimum(*(s for name, s in spent.items() if isinstance(LOOPS[name], int)))
    speed = {name: quartiles(plain / s) for name, s in spent.items()}
    for name, ratio in speed.items():
        median = ratio["median"]
        print(f"{usual.model:9s} {name:30s} {median:.3f}x as fast as plain", flush=True)
    return speed


def main(
    models: tuple[str, ...] = ("resnet20", "lenet5"),
    rounds: int = 20,
    epochs: int = 5,
    batch_size: int = 128,
    threads: int = 1,
    out: Path = Path("results/benchmarks/training_step.json"),
    table: Path | None = None,
) -> None:
    """Measure steps of all methods and epochs of both loops.

    Args:
        models: Networks to measure.
        rounds: Number of interleaved steps of every method.
        epochs: Number of interleaved epochs of 10 batches of every loop; 0: no loops.
        batch_size: Images a step.
        threads: CPU threads.
        out: JSON file that is written.
        table: CSV file of the ratios to the SGD step of the same round.
    """
    if (unknown := sorted(set(models) - set(SHAPES))) or not models:
        raise ValueError(f"--models are of {sorted(SHAPES)}; got {unknown}.")
    if rounds < 1 or epochs < 0:
        raise ValueError(f"--rounds is at least 1, --epochs 0; got {rounds} and {epochs}.")
    torch.set_num_threads(threads)
    result: dict = {
        "machine": platform.processor() or platform.machine(),
        "cores": os.cpu_count(),
        "load": round(os.getloadavg()[0], 2),
        "torch": torch.__version__,
        "threads": threads,
        "batch_size": batch_size,
        "cpu_capability": torch.backends.cpu.get_cpu_capability(),
        "models": {},
    }
    of_rounds: list[tuple[str, str, int, float]] = []
    for model in models:
        dataset = random_dataset(SHAPES[model], 10 * batch_size)
        usual = TrainingSpec(
            model=model, epochs=10, batch_size=batch_size, threads=threads, lr=1e-3
        )
        steps = {
            name: stepper(
                replace(usual, method=name, reestimate_batch_norm=None, **options), dataset
            )
            for name, options in METHODS.items()
        }
        with loop.own_machine(usual):
            seconds = interleaved(steps, rounds, time.process_time)
        sgd = np.array(seconds["sgd"])
        ratios = {name: quartiles(np.array(s) / sgd) for name, s in seconds.items()}
        for name, spent_s in seconds.items():
            ratio = (np.array(spent_s) / sgd).round(4)
            of_rounds += [(model, name, n, value) for n, value in enumerate(ratio)]
        for name, ratio in ratios.items():
            ratio["limit"] = ALLOWED.get(name)
            print(f"{model:9s} {name:7s} {ratio['median']:.3f} {ratio['quartiles']}", flush=True)
        result["models"][model] = {"sgd_step_s": quartiles(sgd), "ratio_to_sgd_step": ratios}
        if epochs:
            speed = loop_speed(usual, epochs)
            result["models"][model]["times_as_fast_as_plain_loop"] = speed
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(json.dumps(result, indent=1) + "\n")
    print(f"Written: {out}")
    if table is not None:
        columns = ["model", "method", "round", "ratio_to_sgd"]
        table.parent.mkdir(parents=True, exist_ok=True)
        pd.DataFrame(of_rounds, columns=columns).to_csv(table, index=False)
        print(f"Written: {table}")


if __name__ == "__main__":
    run_command(main)
