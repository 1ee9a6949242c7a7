"""The training loop: from a specification to a checkpoint, epoch by epoch."""

import math
import platform
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import replace
from functools import lru_cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize
from torch.optim import swa_utils
from tqdm import tqdm

from analog_samson.algorithm import Batch, Setting, build_algorithm
from analog_samson.checkpoint import (
    EXTERNAL,
    METHODS,
    Checkpoint,
    TrainingSpec,
    load_checkpoint,
    load_state,
    named_packages,
    save_checkpoint,
)
from analog_samson.data import (
    Dataset,
    augmented,
    check_augmentation,
    file_state,
    find,
    load_dataset,
    own_name,
)
from analog_samson.evaluation import count_correct, find_accelerator, warn_of_slow_bf16
from analog_samson.importing import is_import_name
from analog_samson.losses import moving_average
from analog_samson.memory import freed_memory_kept
from analog_samson.models import (
    Rewriting,
    build_model,
    check_forward,
    check_outputs,
    input_ranges,
    layers_of_weights,
    packing_of,
    rewrite,
    select_output,
    take_packed,
    trained_weights,
)
from analog_samson.models.forward_pass import difference
from analog_samson.perturbation import MicroRing, strength_factor, transposed_groups
from analog_samson.streams import derive_seed
from analog_samson.training.control import control_of, parametrised, write_control
from analog_samson.training.state import State, check_same_spec, resume, write_log, write_resume
from analog_samson.training.step import gradients_of, measured, rule_of, update

# Images for the input ranges and for batch-normalisation statistics: our choice, enough for a
# stable percentile and mean, few compared with an epoch.
N_RANGE_IMAGES = 1000
N_STATISTICS_IMAGES = 10_000


class DivergedError(ValueError):
    """Training ended with weights that are not finite, or with constant zero activations."""


def train(
    spec: TrainingSpec,
    folder: str | Path,
    *,
    data_folder: str | Path | None = None,
    progress: bool = False,
    trust: Sequence[str] = (),
) -> Path:
    """Train a network and write its checkpoint.

    A log is written next to the checkpoint, columns `LOG_COLUMNS`: one row per epoch, and one per
    layer with the relative size of its perturbation. After each epoch the state of the training is
    written to a file ending in ".resume". A later call resumes from it; it is removed after the
    last epoch. Control parameters are written to a file ending in ".control" (see
    `control_parameters`).

    Args:
        spec: The specification of the training.
        folder: Folder of the checkpoint, whose name is derived from the specification.
        data_folder: Folder of the data set (see `load_dataset`).
        progress: Whether to show a progress bar over the epochs.
        trust: Packages that the checkpoint to start from and a device file may import from, in
            addition to those that the specification itself names (see `load_checkpoint`).

    Returns:
        Path of the checkpoint. If it already exists with the same specification, nothing is done.

    Raises:
        ValueError: If the specification cannot be trained, or the file exists with another
            specification.
        DivergedError: If the training diverges; the state of the last good epoch is kept.
        FileNotFoundError: If the data or the checkpoint to start from is missing.

    Example:
        >>> train(TrainingSpec(dataset="digits", method="sam", rho=0.1, epochs=1), "networks").name
        'digits-mlp-sam-rho=0.1-seed0.safetensors'
    """
    path = Path(folder) / f"{spec.file_stem}.safetensors"
    resume_path = path.with_suffix(".resume")
    data_name = spec.dataset
    if spec.method == EXTERNAL:
        raise ValueError(
            "Method 'external' marks networks trained elsewhere; it cannot be trained; allowed: "
            f"{', '.join(METHODS)}."
        )
    trust = (*trust, *named_packages(spec))
    if own_name(data_name) is not None or is_import_name(
        data_name
    ):  # its contents belong to the specification
        stored = dataset_of(data_name, data_folder, spec.validation_fraction).name
        spec = replace(spec, dataset=stored)
    if path.exists():
        check_same_spec(load_checkpoint(path, trust).spec, spec, path)
        resume_path.unlink(missing_ok=True)
        return path
    warn_of_slow_training(spec)
    dataset = dataset_of(data_name, data_folder, spec.validation_fraction)
    check_trainable(spec, dataset)
    with own_machine(spec):
        state = _begin(spec, dataset, trust)
        if resume_path.exists():
            resume(state, spec, resume_path)
        epochs = range(state.epoch, spec.epochs)
        for epoch in tqdm(epochs, desc=spec.file_stem, unit="epoch", disable=not progress):
            rows = _train_epoch(state, spec, dataset)
            _check_finite(state, rows[0]["loss"], epoch, resume_path)
            state.log += rows
            state.relative_loss = rows[0]["loss"] / guessing_loss(dataset)
            state.epoch = epoch + 1
            write_log(state.log, path.with_suffix(".csv"))  # killed here, it is written again
            write_resume(state, spec, resume_path)
        network = _finished(state, spec, dataset)
        if control := control_of(_trained_model(state)):
            write_control(path, control, network.digest)
        save_checkpoint(path, network)
    resume_path.unlink(missing_ok=True)
    return path


def check_trainable(spec: TrainingSpec, dataset: Dataset) -> None:
    """Check that a specification can be trained on a data set.

    Raises:
        ValueError: If the batch is larger than the training part, inputs that are not images would
            be augmented, or numbers would be smoothed as labels are.
    """
    n_train = len(dataset.train.labels)
    if spec.batch_size > n_train:
        raise ValueError(
            f"batch_size must be at most the {n_train} training images of {dataset.name!r}; got "
            f"{spec.batch_size}."
        )
    check_augmentation(spec.augmentation, dataset.train.images)
    if dataset.task == "regression" and spec.label_smoothing:
        raise ValueError(
            f"label_smoothing={spec.label_smoothing:g} is for classes, and the targets of "
            f"{dataset.name!r} are numbers; leave it out."
        )


def guessing_loss(dataset: Dataset) -> float:
    """Loss of guessing: that of equal probabilities, or of the mean of the training targets."""
    if dataset.task == "regression":
        return float(dataset.train.labels.var(0, correction=0).mean().clamp_min(1e-30))
    return math.log(dataset.n_classes)


def positions_of(dataset: Dataset) -> tuple[int, ...]:
    """(length,) where a token a position is predicted; otherwise empty."""
    return tuple(dataset.train.labels.shape[1:]) if dataset.task == "tokens" else ()


CHECKED_AT_ONCE = 4096
"""Samples whose tokens are checked at once: our choice."""


def check_runs(model: nn.Module, image: Tensor, dataset: Dataset, *, name: str) -> None:
    """Raise ValueError unless a network has the outputs that a data set needs.

    Args:
        model: The network.
        image: One input as it takes it, shape (1, ...).
        dataset: The data set; the network must take the last token of its vocabulary, too.
        name: Name of the network, for messages.

    Example:
        >>> check_runs(model, images[:1], dataset, name="mine")
        >>> check_runs(nn.Sequential(nn.Flatten(), nn.Linear(64, 5)), images[:1], dataset, name="x")
        Traceback (most recent call last):
            ...
        ValueError: The model 'x' gives (1, 5) for one input of shape (1, 8, 8); 10 classes need ...
    """
    inputs = [image]
    if dataset.n_tokens:
        inputs.append(torch.full_like(image, dataset.n_tokens - 1))
    packing = packing_of(model)
    if packing is not None and packing.n_tokens:
        inputs.append(packing.with_last_tokens(image))
        for part in (dataset.train, dataset.validation, dataset.test):
            for first in range(0, len(part), CHECKED_AT_ONCE):
                images = part.images[first : first + CHECKED_AT_ONCE]
                packing.check(dataset.normalise(images))
    for one in inputs:
        check_outputs(
            model,
            one,
            dataset.n_classes,
            name=name,
            positions=positions_of(dataset),
            is_exact=dataset.task == "regression",
        )


def warn_of_slow_training(spec: TrainingSpec) -> None:
    """Log a warning if a specification trains in bfloat16 on a processor without support."""
    if spec.precision == "bfloat16" and spec.accelerator == "cpu":
        warn_of_slow_bf16('precision="bfloat16"')


def dataset_of(name: str, data_folder: str | Path | None, validation_fraction: float) -> Dataset:
    """Load a data set; the last one is cached, so that a grid of trainings decodes it once."""
    own = own_name(name)
    if own is None:
        return _loaded(name, data_folder, validation_fraction, None)
    place = find(own, data_folder)
    dataset = _loaded(own.at(place), None, validation_fraction, file_state(place))
    if own.digest and not dataset.name.endswith(f"@{own.digest}"):
        return load_dataset(name, data_folder)  # explains which contents were expected
    return replace(dataset, name=name) if own.digest else dataset


@lru_cache(maxsize=1)
def _loaded(
    name: str, data_folder: str | Path | None, validation_fraction: float, state: object
) -> Dataset:
    return load_dataset(name, data_folder, validation_fraction=validation_fraction)


def _begin(spec: TrainingSpec, dataset: Dataset, trust: Sequence[str]) -> State:
    accelerator = torch.device(spec.accelerator)
    model = build_model(
        spec.model,
        image_shape=dataset.image_shape,
        n_classes=dataset.n_classes,
        seed=derive_seed(spec.seed, "initialisation"),
        options=spec.model_kwargs,
    )
    start_digest = ""
    if spec.start_from is not None:
        start = load_checkpoint(spec.start_from, trust)
        start_digest = start.digest
        load_state(model, start.state, what=f"checkpoint {spec.start_from!r}", name=spec.model)
    take_packed(select_output(model, spec.output), spec.packing)
    rewriting = rewriting_of(model, spec, dataset)
    weights = trained_weights(rewriting, spec.keep_digital)
    layers = layers_of_weights(rewriting, spec.keep_digital)
    if spec.parametrisation == "microring":
        for module, key, _ in weights:
            parametrize.register_parametrization(module, key, MicroRing())
    model.to(accelerator).train()
    if spec.channels_last:
        untyped: Any = model  # older stubs of torch lack memory_format
        untyped.to(memory_format=torch.channels_last)
    setting = Setting(
        model=model,
        analog_weights=frozenset(name for *_, name in weights),
        n_training_images=len(dataset.train.labels),
        n_classes=dataset.n_classes,
        epochs=spec.epochs,
        accelerator=accelerator,
        trust=tuple(trust),
        task=dataset.task,
        positions=positions_of(dataset),
        transposed_groups=transposed_groups(model),
        layers=layers,
    )
    state = State(
        model=model,
        forward=torch.compile(model) if spec.compile else model,
        optimizer=_optimizer(model, spec),
        images=dataset.train.images.to(accelerator),
        labels=dataset.train.labels.to(accelerator),
        algorithm=build_algorithm(spec.entry, spec.options, setting),
        task=dataset.task,
        start_digest=start_digest,
    )
    if spec.average_decay:
        state.average = moving_average(model, spec.average_decay)
    return state


def rewriting_of(model: nn.Module, spec: TrainingSpec, dataset: Dataset) -> Rewriting:
    """Rewrite a network for arrays and check that it runs on them, before any training.

    Raises:
        ValueError: If a layer cannot be mapped to arrays and is not kept digital, the network
            computes something else when its layers are rewritten or lie on arrays, multiplies by
            weights outside layers, or does not fit the images or classes.
    """
    rewriting = rewrite(model, spec.rewrites, spec.keep_digital)
    trained_weights(rewriting, spec.keep_digital)  # raises for layers that cannot be mapped
    image = dataset.normalise(dataset.train.images[:1])
    check_runs(model, image, dataset, name=spec.model)
    rewriting.check(image)
    check_forward(rewriting.network, image, spec.keep_digital)
    return rewriting


def _train_epoch(state: State, spec: TrainingSpec, dataset: Dataset) -> list[dict[str, Any]]:
    """Train for one epoch; return its log rows, the first for the whole network."""
    accelerator = state.images.device
    started = time.perf_counter()
    epoch, size = state.epoch, spec.batch_size
    torch.manual_seed(derive_seed(spec.seed, "dropout", epoch))
    draws = {
        purpose: torch.Generator(place).manual_seed(derive_seed(spec.seed, purpose, epoch))
        for purpose, place in (
            ("order", "cpu"),
            ("augmentation", accelerator),
            ("perturbation", accelerator),
        )
    }
    order = torch.randperm(len(state.labels), generator=draws["order"]).to(accelerator)
    n_steps = len(order) // size
    last = max(spec.epochs * n_steps - 1, 1)
    losses, norms = [], []
    ratios: dict[str, float | None] = {}
    strength = lr = 0.0
    state.model.train()
    for step in range(n_steps):
        done = (epoch * n_steps + step) / last
        lr = spec.lr * _lr_factor(epoch * n_steps + step, last, spec.warmup_share)
        for group in state.optimizer.param_groups:
            group["lr"] = lr
        ramped = min(done / spec.ramp_share, 1.0)
        factor = strength_factor(spec.schedule, ramped, relative_loss=state.relative_loss)
        strength = factor * spec.full_strength
        indices = order[step * size : (step + 1) * size]
        images = augmented(state.images[indices], spec.augmentation, draws["augmentation"])
        batch = Batch(dataset.normalise(images), state.labels[indices], indices)
        rule = rule_of(spec, strength, state, draws["perturbation"])
        if rule is not None and step == n_steps - 1:
            rule = measured(rule, ratios)
        losses.append(gradients_of(state, spec, batch, rule, strength))
        norms.append(update(state, spec))
    whole = {
        "epoch": epoch,
        "layer": "",
        "lr": lr,
        "strength": strength,
        "loss": float(torch.stack(losses).mean()),
        "update_gradient_norm": float(torch.stack(norms).mean()),
        "offset_ratio": ratios.pop("", None),
        "gradient_evaluations": n_steps * spec.gradient_evaluations,
        "seconds": round(time.perf_counter() - started, 3),
    }
    return [whole] + [
        {"epoch": epoch, "layer": name, "offset_ratio": ratio} for name, ratio in ratios.items()
    ]


def _lr_factor(step: int, last: int, warmup_share: float) -> float:
    """Learning rate of a step / the largest one: a linear rise, then half a cosine."""
    n_warm = round(warmup_share * (last + 1))
    if step < n_warm:
        return (step + 1) / n_warm
    done = (step - n_warm) / max(last - n_warm, 1)
    return (1 + math.cos(math.pi * done)) / 2


def _trained_model(state: State) -> nn.Module:
    """The network that is saved: as trained, or the moving average of its parameters."""
    return state.model if state.average is None else state.average.module


def _finished(state: State, spec: TrainingSpec, dataset: Dataset) -> Checkpoint:
    """The checkpoint of a trained network, with input ranges and digital accuracy."""
    model = deepcopy(_trained_model(state))
    for module, key, _ in list(parametrised(model)):
        parametrize.remove_parametrizations(module, key)
    if spec.reestimate_batch_norm:
        swa_utils.update_bn(_statistics_batches(state, spec, dataset), model)
    model.cpu().eval()
    calibration = range_images(dataset)
    rewriting = rewrite(model, spec.rewrites, spec.keep_digital)
    rewriting.check(calibration[:1])
    network = rewriting.network
    try:
        ranges = input_ranges(network, calibration, spec.keep_digital)
        largest = input_ranges(network, calibration, spec.keep_digital, quantile=1.0)
    except ValueError as error:
        raise DivergedError(
            f"Training ended in a network with unusable activations ({error}) Lower the learning "
            "rate or the strength, or clip the gradients."
        ) from error
    made_with = {
        "analog_samson": version("analog-samson"),
        "torch": torch.__version__,
        "python": platform.python_version(),
        "machine": platform.machine(),
        "accelerator": torch.cuda.get_device_name() if spec.accelerator == "cuda" else "cpu",
    }
    return digital_checkpoint(model, network, spec, dataset, ranges, largest, made_with)


def range_images(dataset: Dataset) -> Tensor:
    """Training images, as network inputs, on which input ranges are measured: evenly spaced."""
    n_train = len(dataset.train)
    chosen = torch.linspace(0, n_train - 1, min(N_RANGE_IMAGES, n_train)).long()
    return dataset.normalise(dataset.train.images[chosen])


def digital_checkpoint(
    model: nn.Module,
    network: nn.Module,
    spec: TrainingSpec,
    dataset: Dataset,
    ranges: Mapping[str, float],
    largest: Mapping[str, float],
    made_with: Mapping[str, str],
) -> Checkpoint:
    """The checkpoint of a network, with its digital accuracy.

    Args:
        model: The network, as the specification builds it.
        network: The network with its layers rewritten, which is evaluated.
        spec: The specification.
        dataset: Its data set.
        ranges: Layer name to its input range, model units.
        largest: Layer name to its largest input, model units.
        made_with: For information.

    Raises:
        ValueError: If an output is NaN, or the network of other code is another one when it is
            built from the checkpoint.
    """
    n_correct = 0
    if dataset.task == "classification":
        n_correct = count_correct(
            lambda images, first_index: network(images),
            dataset.test.images,
            dataset.test.labels,
            dataset.normalise,
        )
    checkpoint = Checkpoint(
        spec=spec,
        state=model.state_dict(),
        input_ranges=dict(ranges),
        largest_inputs=dict(largest),
        n_correct_digital=n_correct,
        n_test=len(dataset.test),
        image_shape=dataset.image_shape,
        n_classes=dataset.n_classes,
        mean=dataset.mean,
        std=dataset.std,
        class_names=dataset.class_names,
        full_scale=dataset.full_scale,
        task=dataset.task,
        n_tokens=dataset.n_tokens,
        made_with=made_with,
    )
    if is_import_name(spec.model):
        _check_is_rebuilt(checkpoint, network, dataset)
    return checkpoint


@torch.no_grad()
def _check_is_rebuilt(checkpoint: Checkpoint, network: nn.Module, dataset: Dataset) -> None:
    """Raise ValueError unless a checkpoint gives the network that it was made of."""
    image = dataset.normalise(dataset.train.images[:1])
    with torch.random.fork_rng(devices=[]):
        expected = network(image)
    if differs := difference(expected, checkpoint.build()(image)):
        raise ValueError(
            f"The network {checkpoint.spec.model!r}, built again from its state dict, computes "
            f"something else: its outputs differ {differs}. It has state that its state dict does "
            "not hold, such as a tensor or number that training changes; make that a parameter or "
            "a persistent buffer (register_buffer)."
        )


def _statistics_batches(state: State, spec: TrainingSpec, dataset: Dataset) -> Iterator[Tensor]:
    """Batches of training images, augmented as in training, for batch-normalisation statistics.

    Statistics of images that are not augmented reduce the accuracy (``docs/MEASUREMENTS.md``).
    """
    generator = torch.Generator().manual_seed(derive_seed(spec.seed, "statistics"))
    order = torch.randperm(len(state.labels), generator=generator).to(state.images.device)
    draws = torch.Generator(state.images.device)
    draws.manual_seed(derive_seed(spec.seed, "statistics", "augmentation"))
    n_batches = max(min(len(order), N_STATISTICS_IMAGES) // spec.batch_size, 1)
    for chosen in order[: n_batches * spec.batch_size].chunk(n_batches):
        yield dataset.normalise(augmented(state.images[chosen], spec.augmentation, draws))


def _check_finite(state: State, loss: float, epoch: int, resume_path: Path) -> None:
    parameters = [p.detach() for p in state.model.parameters()]
    if math.isfinite(loss) and all(bool(p.isfinite().all()) for p in parameters):
        return
    stays = (
        f"the state after epoch {epoch} stays in {str(resume_path)!r}, remove it to begin again"
        if resume_path.exists()
        else "nothing was written"
    )
    raise DivergedError(
        f"Training diverged in epoch {epoch + 1} (loss {loss}): {stays}; lower the learning rate, "
        "the strength, or clip the gradients."
    )


def _optimizer(model: nn.Module, spec: TrainingSpec) -> torch.optim.Optimizer:
    parameters = [p for p in model.parameters() if p.requires_grad]
    spared = [] if spec.decay_norm_and_bias else [p for p in parameters if p.ndim < 2]
    spared_ids = {id(p) for p in spared}
    groups: list[dict[str, Any]] = [
        {"params": [p for p in parameters if id(p) not in spared_ids]},
        {"params": spared, "weight_decay": 0.0},
    ]
    groups = [group for group in groups if group["params"]]
    usual: dict[str, Any] = {"lr": spec.lr, "weight_decay": spec.weight_decay, "foreach": True}
    if spec.optimizer == "sgd":
        return torch.optim.SGD(groups, momentum=spec.momentum, **usual)
    if spec.optimizer == "adam":
        return torch.optim.Adam(groups, **usual)
    return torch.optim.AdamW(groups, **usual)


@contextmanager
def own_machine(spec: TrainingSpec) -> Iterator[None]:
    """Set threads and cuDNN for reproducible bits; restore threads and random state afterwards."""
    is_cuda = find_accelerator(spec.accelerator).type == "cuda"
    n_threads = torch.get_num_threads()
    torch.set_num_threads(spec.threads)
    try:
        with (
            freed_memory_kept(),
            torch.random.fork_rng(devices=[0] if is_cuda else []),
            torch.backends.cudnn.flags(enabled=True, benchmark=False, deterministic=True),
        ):
            yield
    finally:
        torch.set_num_threads(n_threads)
