"""Many trainings, and the choice of a strength without test images and without a device.

A method is evaluated by the accuracy of its networks on the *validation* split: clean, and with
Gaussian noise on the analog weights, relative to the largest |w| of each layer ("gaussian_max", a
generic noise that does not depend on a device).
"""

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, get_args, get_type_hints

import pandas as pd
import torch

from analog_samson.checkpoint import (
    Checkpoint,
    TrainingSpec,
    load_checkpoint,
    named_packages,
)
from analog_samson.data import IGNORED, Dataset, place_of
from analog_samson.deprecated import accepts_old_names
from analog_samson.evaluation import EVALUATION_BATCH, count_correct
from analog_samson.files import made_folder, replacing
from analog_samson.methods import METHODS, method_of
from analog_samson.models import analog_layers, build_model, select_output, take_packed
from analog_samson.perturbation import perturbed, rwp
from analog_samson.running import run_jobs
from analog_samson.streams import derive_seed
from analog_samson.training.loop import (
    DivergedError,
    check_trainable,
    dataset_of,
    rewriting_of,
    train,
    warn_of_slow_training,
)

GRID_COLUMNS = (
    "dataset",
    "model",
    "method",
    "strength",
    "training_seed",
    "validation_clean",
    "validation_noisy",
    "noise_sigma",
    "noise_draws",
    "gradient_evaluations",
    "seconds",
    "checkpoint",
    "failure",
)
CRITERIA = ("mean", "clean")


def train_grid(
    specs: Sequence[TrainingSpec],
    folder: str | Path,
    *,
    noise_sigma: float,
    noise_draws: int = 5,
    data_folder: str | Path | None = None,
    jobs: int = 1,
    progress: bool = False,
    trust: Sequence[str] = (),
) -> pd.DataFrame:
    """Train many networks and measure each on the validation split.

    Finished trainings are not repeated, and interrupted ones are resumed. The table is also written
    to `training.csv` in the folder.

    Args:
        specs: What to train.
        folder: Where checkpoints, logs and the table go.
        noise_sigma: Standard deviation of the weight noise / largest |w| of the layer.
        noise_draws: Number of draws of the noise; the noisy accuracy is their mean.
        data_folder: Folder of the data set.
        jobs: Worker processes (see `run_jobs`).
        progress: Whether to show a bar.
        trust: As for `train`.

    Returns:
        One row per network, columns `GRID_COLUMNS`: accuracies in [0, 1]; gradient evaluations,
        the number of backward passes over a batch; seconds of the training alone. A training that
        diverged has no accuracy; its column `failure` gives the reason.

    Raises:
        ValueError: If two specifications would be written to one file, a data set or model does
            not exist, or a model does not accept its options. Checked before any training.
        FileNotFoundError: If images are missing.

    Example:
        >>> specs = grid(["sgd"], seeds=[0, 1], common={"dataset": "digits", "epochs": 1})
        >>> table = train_grid(specs, "grid", noise_sigma=0.1)
        >>> table[["method", "training_seed", "failure"]].values.tolist()
        [['sgd', 0, ''], ['sgd', 1, '']]
    """
    stems = [spec.file_stem for spec in specs]
    twice = sorted({stem for stem in stems if stems.count(stem) > 1})
    if twice:
        raise ValueError(
            f"Several specifications would be written to {twice[0]!r}; they differ only in "
            "fields that are not part of file names: use separate folders."
        )
    _check_buildable(specs, data_folder)
    for spec in specs:
        warn_of_slow_training(spec)
    work = partial(
        _row,
        folder=folder,
        sigma=noise_sigma,
        n_draws=noise_draws,
        data_folder=data_folder,
        trust=trust,
    )
    rows = run_jobs(
        work,
        specs,
        jobs=jobs,
        describe=lambda spec: spec.file_stem,
        progress="training" if progress else None,
    )
    keys = ["dataset", "model", "method", "strength", "training_seed"]
    table = pd.DataFrame(list(rows), columns=list(GRID_COLUMNS)).sort_values(keys)
    table = table.reset_index(drop=True)
    with replacing(made_folder(folder) / "training.csv") as temporary:
        table.to_csv(temporary, index=False)
    return table


@accepts_old_names(score="criterion")
def choose_strengths(table: pd.DataFrame, *, criterion: str = "mean") -> pd.DataFrame:
    """Choose each method's strength by its validation accuracy.

    Args:
        table: From `train_grid`; a training that diverged counts as an accuracy of 0, of scores
            that may be negative as 1 less than the lowest.
        criterion: "mean": mean of clean and noisy accuracy; "clean": clean accuracy only.

    Returns:
        One row per data set, model and method: the strength, its accuracies (means over training
        seeds), the value of the criterion (``score``), and the numbers of candidates and of seeds.

    Raises:
        ValueError: If the criterion is unknown, or methods have different numbers of candidates,
            which would favour the method with more candidates. Methods without a strength have
            one.

    Example:
        >>> specs = grid(["sam:rho=0.05,0.1"], [0], {"dataset": "digits", "epochs": 1})
        >>> chosen = choose_strengths(train_grid(specs, "grid", noise_sigma=0.1))
        >>> chosen[["method", "candidates", "training_seeds"]].values.tolist()
        [['sam', 2, 1]]
    """
    if criterion not in CRITERIA:
        raise ValueError(f"Unknown criterion {criterion!r}; allowed: {', '.join(CRITERIA)}.")
    parts = ["validation_clean", "validation_noisy"]
    group = ["dataset", "model", "method"]
    lowest = table[parts].min().min()
    table = table.fillna(dict.fromkeys(parts, lowest - 1.0 if lowest < 0 else 0.0))
    means = table.groupby([*group, "strength"], as_index=False)[parts].mean()
    means["score"] = means[parts].mean(axis=1) if criterion == "mean" else means["validation_clean"]
    seeds = table.groupby([*group, "strength"])["training_seed"].nunique()
    if seeds.nunique() > 1:
        raise ValueError(
            "Every candidate needs the same number of training seeds; got "
            f"{', '.join(str(n) for n in sorted(set(seeds)))}."
        )
    candidates = means.groupby(group)["strength"].transform("size")
    counts = {m: int(n) for m, n in zip(means["method"], candidates, strict=True)
              if method_of(m).strength}  # fmt: skip
    if len(set(counts.values())) > 1:
        raise ValueError(
            "Every method needs the same number of candidate strengths; got "
            f"{', '.join(f'{method}: {n}' for method, n in sorted(counts.items()))}."
        )
    means["candidates"] = candidates
    means["training_seeds"] = int(seeds.iloc[0])
    best = means.groupby(group)["score"].idxmax()
    return means.loc[best].reset_index(drop=True)


@dataclass(frozen=True)
class ValidationAccuracy:
    """Accuracy on the validation split, in [0, 1]: without and with noise on the weights."""

    clean: float
    noisy: float


def validation_accuracy(
    checkpoint: Checkpoint,
    *,
    noise_sigma: float,
    noise_draws: int = 5,
    data_folder: str | Path | None = None,
) -> ValidationAccuracy:
    """Measure a network on the validation split.

    Of tokens the accuracy is the share that is predicted correctly; of a regression it is the
    coefficient of determination, 1 - squared error / variance, which may be negative.

    Args:
        checkpoint: The network.
        noise_sigma: Standard deviation of the noise on analog weights / largest |w| of the layer.
        noise_draws: Number of draws of the noise; the noisy accuracy is their mean. Networks with
            equal training seeds get the same draws.
        data_folder: Folder of the data set.

    Returns:
        Clean and noisy accuracy.

    Raises:
        ValueError: If the sigma is negative or there are no draws.

    Example:
        >>> found = validation_accuracy(checkpoint, noise_sigma=0.1)
        >>> 0.5 < found.noisy < 1, 0.5 < found.clean < 1
        (True, True)
    """
    if noise_draws < 1:
        raise ValueError(f"noise_draws must be at least 1; got {noise_draws}.")
    spec = checkpoint.spec
    dataset = dataset_of(spec.dataset, data_folder, spec.validation_fraction)
    model = checkpoint.build()
    analog = {f"{name}.weight" for name in analog_layers(model, spec.keep_digital)}

    def accuracy() -> float:
        if dataset.task != "classification":
            return _share_predicted(model, dataset)
        n_correct = count_correct(
            lambda images, first_index: model(images),
            dataset.validation.images,
            dataset.validation.labels,
            dataset.normalise,
        )
        return n_correct / len(dataset.validation.labels)

    noisy = []
    for draw in range(noise_draws):
        generator = torch.Generator().manual_seed(derive_seed(spec.seed, "validation noise", draw))

        def noise(weights: Any, gradients: Any, generator: torch.Generator = generator) -> Any:
            chosen = {name: w for name, w in weights.items() if name in analog}
            return rwp(chosen, sigma=noise_sigma, scale="layer_max", generator=generator)

        with perturbed(model, noise):
            noisy.append(accuracy())
    return ValidationAccuracy(clean=accuracy(), noisy=sum(noisy) / noise_draws)


@torch.no_grad()
def _share_predicted(model: torch.nn.Module, dataset: Dataset) -> float:
    """Share of the validation tokens, or of the variance of the targets, that is predicted."""
    part = dataset.validation
    outputs = torch.cat(
        [
            model(dataset.normalise(part.images[first : first + EVALUATION_BATCH]))
            for first in range(0, len(part), EVALUATION_BATCH)
        ]
    )
    if dataset.task == "regression":
        error = (outputs.double() - part.labels).square().sum()
        return 1 - float(error / (part.labels.double() - part.labels.mean(0)).square().sum())
    counted = part.labels != IGNORED
    return float((outputs.argmax(-1) == part.labels)[counted].double().mean())


def grid(
    methods: Iterable[str], seeds: Iterable[int], common: Mapping[str, Any]
) -> list[TrainingSpec]:
    """Build a grid of specifications.

    Args:
        methods: Texts such as "sgd", "samson:rho=0.1,0.2,0.5:p=2" or "package.module:name:rho=1":
            a method, then fields of `TrainingSpec`; every combination of their values is a
            candidate.
        seeds: Training seeds.
        common: Fields with equal values in all specifications.

    Returns:
        One specification per candidate and seed.

    Raises:
        ValueError: If a text cannot be read or a specification is wrong.

    Example:
        >>> specs = grid(["sgd", "samson:rho=0.1,0.2:p=2"], [0, 1], {"dataset": "digits"})
        >>> len(specs), specs[2].file_stem
        (6, 'digits-mlp-samson-rho=0.1,p=2-seed0')
    """
    specs = []
    for text in methods:
        method, *options = text.split(":")
        if method not in METHODS and options and "=" not in options[0]:
            method = f"{method}:{options.pop(0)}"  # package.module:name
        combinations: list[dict[str, Any]] = [{"method": method}]
        for option in options:
            name, values = read_option(option)
            values = values if isinstance(values, list) else [values]
            combinations = [{**one, name: value} for one in combinations for value in values]
        specs += [
            TrainingSpec.from_json(json.dumps({**common, **one, "seed": seed}))
            for one in combinations
            for seed in seeds
        ]
    return specs


def read_option(text: str) -> tuple[str, Any]:
    """Read "field=value": numbers, true, false, JSON or text; "field=1,2" is a list.

    Raises:
        ValueError: If there is no "=", or a value of a field of numbers is no finite number.

    Example:
        >>> read_option("rho=0.1,0.2"), read_option("optimizer=adamw")
        (('rho', [0.1, 0.2]), ('optimizer', 'adamw'))
    """
    name, equals, value = text.partition("=")
    if not equals:
        raise ValueError(f"An option is written field=value; got {text!r}.")
    try:
        read = json.loads(value)
    except (ValueError, RecursionError):
        if "," in value:
            return name, [read_option(f"{name}={part}")[1] for part in value.split(",")]
        read = value
    for one in read if isinstance(read, list) else [read]:
        _check_number(name, one)
    return name, read


def _check_number(name: str, value: Any) -> None:
    """Raise ValueError if a numeric field has no finite number."""
    kind = get_type_hints(TrainingSpec).get(name)
    kinds = {kind, *get_args(kind)}
    if not {float, int} & kinds or (str in kinds and isinstance(value, str)):
        return
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    if value is not None and not (is_number and math.isfinite(value)):
        raise ValueError(f"{name} must be a finite number; got {str(value)[:80]!r}.")


def _check_buildable(specs: Sequence[TrainingSpec], data_folder: str | Path | None) -> None:
    """Load every data set and build every network once, so that errors occur before training."""
    checked = set()
    for spec in specs:
        options = json.dumps(dict(spec.model_kwargs), sort_keys=True)
        data = spec.dataset, spec.validation_fraction
        network = spec.model, options, spec.keep_digital, spec.rewrites, spec.output, spec.inputs
        kind = *data, *network
        if kind in checked:
            continue
        checked.add(kind)
        dataset = dataset_of(spec.dataset, data_folder, spec.validation_fraction)
        model = build_model(
            spec.model,
            image_shape=dataset.image_shape,
            n_classes=dataset.n_classes,
            seed=0,
            options=spec.model_kwargs,
        )
        take_packed(select_output(model, spec.output), spec.packing)
        rewriting_of(model, spec, dataset)
        check_trainable(spec, dataset)


def _row(
    spec: TrainingSpec,
    *,
    folder: str | Path,
    sigma: float,
    n_draws: int,
    data_folder: str | Path | None,
    trust: Sequence[str],
) -> dict[str, Any]:
    path = Path(folder) / f"{spec.file_stem}.safetensors"
    dataset = dataset_of(spec.dataset, data_folder, spec.validation_fraction).name
    accuracy, failure = ValidationAccuracy(math.nan, math.nan), ""
    try:
        train(spec, folder, data_folder=data_folder, trust=trust)
        accuracy = validation_accuracy(
            load_checkpoint(path, named_packages(spec)),
            noise_sigma=sigma,
            noise_draws=n_draws,
            data_folder=place_of(spec.dataset, data_folder),
        )
    except DivergedError as error:
        failure = str(error)
    epochs = pd.DataFrame(columns=["gradient_evaluations", "seconds"])
    if path.with_suffix(".csv").exists():
        log = pd.read_csv(path.with_suffix(".csv"))
        epochs = log[log["layer"].isna()]
    return {
        "dataset": dataset,
        "model": spec.model,
        "method": spec.method,
        "strength": spec.strength,
        "training_seed": spec.seed,
        "validation_clean": accuracy.clean,
        "validation_noisy": accuracy.noisy,
        "noise_sigma": sigma,
        "noise_draws": n_draws,
        "gradient_evaluations": int(epochs["gradient_evaluations"].sum()),
        "seconds": round(float(epochs["seconds"].sum()), 1),
        "checkpoint": "" if failure else path.name,
        "failure": failure,
    }
