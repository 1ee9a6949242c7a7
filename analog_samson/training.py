"""Training: a specification in, a checkpoint out, the same one every time.

Every draw comes from a seed derived from the specification's, by purpose and epoch, so a training
that was killed and resumed ends at the weights of one that never was, and two methods with one seed
start at the same weights and see the same batches.
"""

import json
import math
import os
import platform
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from copy import deepcopy
from dataclasses import dataclass, field
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any, TypeVar

import pandas as pd
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils import clip_grads_with_norm_, parametrize
from torch.optim import swa_utils
from tqdm import tqdm

from analog_samson.checkpoint import (
    EXTERNAL,
    METHODS,
    Checkpoint,
    TrainingSpec,
    load_checkpoint,
    load_state,
    read_tensors,
    save_checkpoint,
    write_tensors,
)
from analog_samson.data import Dataset, augment, load_dataset
from analog_samson.evaluation import count_correct
from analog_samson.losses import TrajectoryMemory, trajectory_loss
from analog_samson.models import analog_layers, build_model, input_ranges
from analog_samson.perturbation import (
    MicroRing,
    Rule,
    Tensors,
    arwp,
    asam,
    is_weight,
    perturbed,
    rwp,
    sam,
    samson,
    strength_factor,
    update_fisher,
)
from analog_samson.streams import derive_seed

T = TypeVar("T")

__all__ = ["LOG_COLUMNS", "METHODS", "train"]

LOG_COLUMNS = (
    "epoch",
    "layer",
    "lr",
    "strength",
    "loss",
    "update_gradient_norm",
    "offset_ratio",
    "seconds",
)

# Images for the input ranges and for new batch-normalisation statistics: our choice, enough for a
# percentile and a mean that no longer change, small beside an epoch.
N_RANGE_IMAGES = 1000
N_STATISTICS_IMAGES = 10_000


def train(
    spec: TrainingSpec,
    folder: str | Path,
    *,
    data_folder: str | Path | None = None,
    progress: bool = False,
) -> Path:
    """Train a network and write its checkpoint.

    Beside the checkpoint lies a log with one row an epoch (and one a layer: its perturbation's
    relative size), columns `LOG_COLUMNS`. After each epoch the whole state of the training is
    written to a file ending in ".resume", which a later call continues from and the last epoch
    removes.

    Args:
        spec: What to train.
        folder: Where the checkpoint goes; its name comes from the specification.
        data_folder: Where the data set lies (see `load_dataset`).
        progress: Whether to show a bar over the epochs.

    Returns:
        Path of the checkpoint. If it is there already with the same specification, nothing is done.

    Raises:
        ValueError: If the specification cannot be trained, a file with another specification lies
            in the way, or the training diverges (the state of the last good epoch stays).
        FileNotFoundError: If the data or the checkpoint to start from is missing.
    """
    path = Path(folder) / f"{spec.file_stem}.safetensors"
    resume_path = path.with_suffix(".resume")
    if spec.method == EXTERNAL:
        raise ValueError(
            "Method 'external' marks networks trained elsewhere; it cannot be trained; allowed: "
            f"{', '.join(METHODS)}."
        )
    if path.exists():
        _check_same_spec(load_checkpoint(path).spec, spec, path)
        return path
    dataset = load_dataset(spec.dataset, data_folder, validation_fraction=spec.validation_fraction)
    n_train = len(dataset.train.labels)
    if spec.batch_size > n_train:
        raise ValueError(
            f"batch_size must be at most the {n_train} training images of {spec.dataset!r}; got "
            f"{spec.batch_size}."
        )
    with _own_randomness(spec), ExitStack() as stack:
        if spec.accelerator == "cuda":
            cudnn = torch.backends.cudnn.flags(enabled=True, benchmark=False, deterministic=True)
            stack.enter_context(cudnn)
        state = _begin(spec, dataset)
        if resume_path.exists():
            _resume(state, spec, resume_path)
        epochs = range(state.epoch, spec.epochs)
        for epoch in tqdm(epochs, desc=spec.file_stem, unit="epoch", disable=not progress):
            rows = _train_epoch(state, spec, dataset)
            _check_finite(state, rows[0]["loss"], epoch, resume_path)
            state.log += rows
            state.relative_loss = rows[0]["loss"] / math.log(dataset.n_classes)
            state.epoch = epoch + 1
            _write_resume(state, spec, resume_path)
            _write_log(state.log, path.with_suffix(".csv"))
        save_checkpoint(path, _finished(state, spec, dataset))
    resume_path.unlink(missing_ok=True)
    return path


@dataclass
class _State:
    """What changes while a network is trained: all of it is written after each epoch."""

    model: nn.Module
    forward: Callable[[Tensor], Tensor]
    optimizer: torch.optim.Optimizer
    images: Tensor
    labels: Tensor
    epoch: int = 0
    relative_loss: float = 1.0
    memory: TrajectoryMemory | None = None
    teacher: swa_utils.AveragedModel | None = None
    average: swa_utils.AveragedModel | None = None
    fisher: dict[str, Tensor] = field(default_factory=dict)
    log: list[dict[str, Any]] = field(default_factory=list)

    @property
    def modules(self) -> dict[str, nn.Module]:
        modules = {"model": self.model, "teacher": self.teacher, "average": self.average}
        return {name: module for name, module in modules.items() if module is not None}


@dataclass(frozen=True)
class _Batch:
    """Some training images, normalised, with their labels and their places in the split."""

    images: Tensor
    labels: Tensor
    indices: Tensor

    def parts(self, size: int) -> list["_Batch"]:
        if size == len(self.labels):
            return [self]
        tensors = (self.images, self.labels, self.indices)
        split = zip(*(torch.split(tensor, size) for tensor in tensors), strict=True)
        return [_Batch(*part) for part in split]


def _begin(spec: TrainingSpec, dataset: Dataset) -> _State:
    device = torch.device(spec.accelerator)
    model = build_model(
        spec.model,
        image_shape=dataset.image_shape,
        n_classes=dataset.n_classes,
        seed=derive_seed(spec.seed, "initialisation"),
        **spec.model_kwargs,
    )
    if spec.start_from is not None:
        start = load_checkpoint(spec.start_from)
        load_state(model, start.state, what=f"checkpoint {spec.start_from!r}", name=spec.model)
    layers = analog_layers(model, spec.keep_digital)
    if spec.parametrisation == "microring":
        for layer in layers.values():
            parametrize.register_parametrization(layer, "weight", MicroRing())
    model.to(device).train()
    if spec.channels_last:
        model.to(memory_format=torch.channels_last)
    state = _State(
        model=model,
        forward=torch.compile(model) if spec.compile else model,
        optimizer=_optimizer(model, spec),
        images=dataset.train.images.to(device),
        labels=dataset.train.labels.to(device),
    )
    if spec.method == "saf":
        state.memory = TrajectoryMemory.empty(
            len(state.labels), dataset.n_classes, lag=_given(spec.trajectory_lag), device=device
        )
    if spec.method == "mesa":
        state.teacher = _moving_average(model, _given(spec.teacher_decay)).eval()
    if spec.average_decay:
        state.average = _moving_average(model, spec.average_decay)
    return state


def _train_epoch(state: _State, spec: TrainingSpec, dataset: Dataset) -> list[dict[str, Any]]:
    """Train for one epoch and return its rows of the log, the one of the whole network first."""
    device = state.images.device
    started = time.perf_counter()
    epoch, size = state.epoch, spec.batch_size
    torch.manual_seed(derive_seed(spec.seed, "dropout", epoch))
    draws = {
        purpose: torch.Generator(where).manual_seed(derive_seed(spec.seed, purpose, epoch))
        for purpose, where in (("order", "cpu"), ("augmentation", device), ("perturbation", device))
    }
    order = torch.randperm(len(state.labels), generator=draws["order"]).to(device)
    n_steps = len(order) // size
    last = max(spec.epochs * n_steps - 1, 1)
    losses, norms = [], []
    ratios: dict[str, float | None] = {}
    strength = lr = 0.0
    state.model.train()
    for step in range(n_steps):
        done = (epoch * n_steps + step) / last
        lr = spec.lr * (1 + math.cos(math.pi * done)) / 2
        for group in state.optimizer.param_groups:
            group["lr"] = lr
        factor = strength_factor(spec.schedule, min(done, 1.0), relative_loss=state.relative_loss)
        strength = factor * _full_strength(spec)
        indices = order[step * size : (step + 1) * size]
        images = state.images[indices]
        if spec.augmentation != "none":
            images = augment(
                images, generator=draws["augmentation"], flip=spec.augmentation == "crop_flip"
            )
        batch = _Batch(dataset.normalise(images), state.labels[indices], indices)
        rule = _rule(spec, strength, state, draws["perturbation"])
        if rule is not None and step == n_steps - 1:
            rule = _measured(rule, ratios)
        losses.append(_gradients(state, spec, batch, rule, strength))
        norms.append(_update(state, spec))
    whole = {
        "epoch": epoch,
        "layer": "",
        "lr": lr,
        "strength": strength,
        "loss": float(torch.stack(losses).mean()),
        "update_gradient_norm": float(torch.stack(norms).mean()),
        "offset_ratio": ratios.pop("", None),
        "seconds": round(time.perf_counter() - started, 3),
    }
    return [whole] + [
        {"epoch": epoch, "layer": name, "offset_ratio": ratio} for name, ratio in ratios.items()
    ]


def _gradients(
    state: _State, spec: TrainingSpec, batch: _Batch, rule: Rule | None, strength: float
) -> Tensor:
    """Leave the update gradient of a batch in the parameters' `grad`; return the loss.

    Each part of `m_sharpness` images has its own perturbation; their gradients are averaged.
    """
    parts = batch.parts(spec.m_sharpness or spec.batch_size)
    parameters = [p for p in state.model.parameters() if p.requires_grad]
    loss = _part_gradients(state, spec, parts[0], rule, strength)
    if len(parts) == 1:
        return loss
    total = [_grad(p) for p in parameters]
    for part in parts[1:]:
        loss += _part_gradients(state, spec, part, rule, strength)
        torch._foreach_add_(total, [_grad(p) for p in parameters])
    torch._foreach_div_(total, len(parts))
    for p, gradient in zip(parameters, total, strict=True):
        p.grad = gradient
    return loss / len(parts)


def _part_gradients(
    state: _State, spec: TrainingSpec, part: _Batch, rule: Rule | None, strength: float
) -> Tensor:
    """Gradients of images that share one perturbation: up to two passes, one dropout mask."""

    def backward() -> Tensor:
        state.optimizer.zero_grad(set_to_none=True)
        pieces = part.parts(len(part.labels) // spec.accumulation)
        losses = []
        for piece in pieces:
            loss = _loss(state, spec, piece, strength) / len(pieces)
            torch.autograd.backward(loss)
            losses.append(loss.detach())
        return torch.stack(losses).sum()

    if rule is None:
        return backward()
    share = spec.perturbed_share
    if METHODS[spec.method].strength == "sigma" and share == 1.0:
        with perturbed(state.model, rule, freeze_batch_norm=False):
            return backward()
    dropout = _dropout_state(part.images.device)
    loss = backward()
    parameters = [p for p in state.model.parameters() if p.requires_grad]
    clean = [_grad(p) for p in parameters]
    _set_dropout_state(dropout, part.images.device)
    with perturbed(state.model, rule):
        backward()
    if share != 1.0:
        for p, gradient in zip(parameters, clean, strict=True):
            p.grad = torch.lerp(gradient, _grad(p), share)
    return loss


def _loss(state: _State, spec: TrainingSpec, batch: _Batch, strength: float) -> Tensor:
    images = batch.images
    if spec.channels_last:
        images = images.contiguous(memory_format=torch.channels_last)
    with _autocast(spec):
        logits = state.forward(images)
    logits = logits.float()
    loss = F.cross_entropy(logits, batch.labels, label_smoothing=spec.label_smoothing)
    if METHODS[spec.method].strength != "trajectory_weight":
        return loss
    past = _past(state, spec, batch, images, logits)
    if past is None:
        return loss
    return loss + strength * trajectory_loss(logits, past, temperature=_given(spec.temperature))


def _past(
    state: _State, spec: TrainingSpec, batch: _Batch, images: Tensor, logits: Tensor
) -> Tensor | None:
    """Logits that the trajectory loss compares with; None before its first epoch."""
    past: Tensor | None = None
    has_begun = state.epoch >= math.ceil(_given(spec.trajectory_start) * spec.epochs)
    if state.memory is not None:
        if has_begun:
            past = state.memory.recall(state.epoch, batch.indices)
        state.memory.remember(state.epoch, batch.indices, logits)
    elif state.teacher is not None and has_begun:
        with torch.no_grad(), _autocast(spec):
            past = state.teacher(images)
    return past


def _update(state: _State, spec: TrainingSpec) -> Tensor:
    """Step the optimizer and whatever follows the weights; return the update gradient's norm."""
    named = {n: p for n, p in state.model.named_parameters() if p.requires_grad}
    gradients = {name: _grad(p) for name, p in named.items()}
    norms = torch.stack(torch._foreach_norm(list(gradients.values())))
    norm: Tensor = torch.linalg.vector_norm(norms)
    if spec.method == "arwp":
        state.fisher = update_fisher(state.fisher, gradients, decay=_given(spec.fisher_decay))
    if spec.clip_gradients:
        clip_grads_with_norm_(named.values(), spec.clip_gradients, norm)
    state.optimizer.step()
    if spec.clip_weights:
        with torch.no_grad():
            for name, weight in named.items():
                if weight.ndim >= 2 and is_weight(name):
                    limit = spec.clip_weights * weight.std()
                    weight.clamp_(-limit, limit)
    if state.teacher is not None:
        state.teacher.update_parameters(state.model)
    if state.average is not None:
        state.average.update_parameters(state.model)
    return norm


def _rule(
    spec: TrainingSpec, strength: float, state: _State, generator: torch.Generator
) -> Rule | None:
    if spec.method == "sam":
        return partial(sam, rho=strength)
    if spec.method == "asam":
        return partial(asam, rho=strength, eta=_given(spec.eta), dialect=_given(spec.dialect))
    if spec.method == "samson":
        return partial(
            samson,
            rho=strength,
            eta=_given(spec.eta),
            p=_given(spec.p),
            norm_and_bias=_given(spec.perturb_norm_and_bias),
        )
    if spec.method in ("rwp", "noise_injection"):
        return partial(rwp, sigma=strength, scale=_given(spec.noise_scale), generator=generator)
    if spec.method == "arwp":
        return partial(
            arwp, sigma=strength, fisher=state.fisher, eta=_given(spec.eta), generator=generator
        )
    return None


def _measured(rule: Rule, ratios: dict[str, float | None]) -> Rule:
    """The same rule, leaving ||offset|| / ||w|| in `ratios`, by name and for all ("").

    None where the weights are all zero.
    """

    def measure(weights: Tensors, gradients: Tensors) -> Tensors:
        offsets = rule(weights, gradients)
        squares = {
            name: (float(offset.square().sum()), float(weights[name].square().sum()))
            for name, offset in offsets.items()
        }
        squares[""] = (
            sum(offset for offset, _ in squares.values()),
            sum(weight for _, weight in squares.values()),
        )
        for name, (offset, weight) in squares.items():
            ratios[name] = math.sqrt(offset / weight) if weight > 0 else None
        return offsets

    return measure


def _finished(state: _State, spec: TrainingSpec, dataset: Dataset) -> Checkpoint:
    """The trained network as it will be used, with what later steps need to know about it."""
    model = deepcopy(state.model if state.average is None else state.average.module)
    for module in list(model.modules()):
        if parametrize.is_parametrized(module):
            parametrize.remove_parametrizations(module, "weight")
    if spec.reestimate_batch_norm:
        swa_utils.update_bn(_statistics_batches(state, spec, dataset), model)
    model.cpu().eval()
    n_train = len(dataset.train.labels)
    chosen = torch.linspace(0, n_train - 1, min(N_RANGE_IMAGES, n_train)).long()
    calibration = dataset.normalise(dataset.train.images[chosen])
    with torch.no_grad():
        ranges = input_ranges(model, calibration, spec.keep_digital)
        n_correct = count_correct(
            lambda images, first_index: model(images),
            dataset.test.images,
            dataset.test.labels,
            dataset.normalise,
        )
    return Checkpoint(
        spec=spec,
        state=model.state_dict(),
        input_ranges=ranges,
        n_correct_digital=n_correct,
        n_images=len(dataset.test.labels),
        image_shape=dataset.image_shape,
        n_classes=dataset.n_classes,
        mean=dataset.mean,
        std=dataset.std,
        class_names=dataset.class_names,
        made_with={
            "analog_samson": version("analog-samson"),
            "torch": torch.__version__,
            "python": platform.python_version(),
            "machine": platform.machine(),
            "accelerator": torch.cuda.get_device_name() if spec.accelerator == "cuda" else "cpu",
        },
    )


def _statistics_batches(state: _State, spec: TrainingSpec, dataset: Dataset) -> Iterator[Tensor]:
    n_images = min(len(state.labels), max(N_STATISTICS_IMAGES, spec.batch_size))
    for first in range(0, n_images - spec.batch_size + 1, spec.batch_size):
        yield dataset.normalise(state.images[first : first + spec.batch_size])


def _write_resume(state: _State, spec: TrainingSpec, path: Path) -> None:
    tensors = {
        f"{part}.{name}": tensor
        for part, module in state.modules.items()
        for name, tensor in module.state_dict().items()
    }
    for index, slots in state.optimizer.state_dict()["state"].items():
        tensors |= {f"optimizer.{index}.{k}": v for k, v in slots.items() if v is not None}
    tensors |= {f"fisher.{name}": tensor for name, tensor in state.fisher.items()}
    if state.memory is not None:
        tensors["memory"] = state.memory.logits
    header = {
        "spec": spec.to_json(),
        "start": _start_digest(spec),
        "epoch": state.epoch,
        "relative_loss": state.relative_loss,
        "log": state.log,
    }
    write_tensors(path, tensors, header)


def _resume(state: _State, spec: TrainingSpec, path: Path) -> None:
    tensors, header = read_tensors(path)
    _check_same_spec(TrainingSpec.from_json(header["spec"]), spec, path)
    if header["start"] != _start_digest(spec):
        raise ValueError(
            f"The training in {str(path)!r} began from other weights than {spec.start_from!r} "
            "holds now; remove the file to begin again."
        )
    device = state.images.device
    for part, module in state.modules.items():
        module.load_state_dict(_below(tensors, part))
    slots: dict[int, dict[str, Tensor]] = {}
    for name, tensor in _below(tensors, "optimizer").items():
        index, slot = name.split(".")
        slots.setdefault(int(index), {})[slot] = tensor
    groups = state.optimizer.state_dict()["param_groups"]
    state.optimizer.load_state_dict({"state": slots, "param_groups": groups})
    state.fisher = {name: t.to(device) for name, t in _below(tensors, "fisher").items()}
    if state.memory is not None:
        state.memory = TrajectoryMemory(tensors["memory"].to(device))
    state.epoch, state.relative_loss = header["epoch"], header["relative_loss"]
    state.log = header["log"]


def _write_log(rows: list[dict[str, Any]], path: Path) -> None:
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    pd.DataFrame(rows, columns=list(LOG_COLUMNS)).to_csv(temporary, index=False)
    temporary.replace(path)


def _check_finite(state: _State, loss: float, epoch: int, resume_path: Path) -> None:
    parameters = [p.detach() for p in state.model.parameters()]
    if math.isfinite(loss) and all(bool(p.isfinite().all()) for p in parameters):
        return
    stays = (
        f"the state after epoch {epoch} stays in {str(resume_path)!r}, remove it to begin again"
        if resume_path.exists()
        else "nothing was written"
    )
    raise ValueError(
        f"Training diverged in epoch {epoch + 1} (loss {loss}): {stays}; lower the learning rate, "
        "the strength, or clip the gradients."
    )


def _check_same_spec(there: TrainingSpec, spec: TrainingSpec, path: Path) -> None:
    ours, theirs = json.loads(spec.to_json()), json.loads(there.to_json())
    different = [
        f"{k}: {theirs[k]!r} there, {v!r} asked" for k, v in ours.items() if theirs[k] != v
    ]
    if different:
        raise ValueError(
            f"The file {str(path)!r} was trained with another specification "
            f"({'; '.join(different)}); choose another folder or remove it."
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


def _moving_average(model: nn.Module, decay: float) -> swa_utils.AveragedModel:
    average = swa_utils.get_ema_multi_avg_fn(decay)  # type: ignore[no-untyped-call]
    return swa_utils.AveragedModel(model, multi_avg_fn=average, use_buffers=True)


@contextmanager
def _own_randomness(spec: TrainingSpec) -> Iterator[None]:
    """Leave the caller's random numbers alone, and say so early if there is no such accelerator."""
    if spec.accelerator == "cuda" and not torch.cuda.is_available():
        raise ValueError("accelerator='cuda' was asked and torch finds none; use 'cpu'.")
    with torch.random.fork_rng(devices=[0] if spec.accelerator == "cuda" else []):
        yield


def _dropout_state(device: torch.device) -> Tensor:
    return torch.cuda.get_rng_state() if device.type == "cuda" else torch.get_rng_state()


def _set_dropout_state(state: Tensor, device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.set_rng_state(state)
    else:
        torch.set_rng_state(state)


def _autocast(spec: TrainingSpec) -> AbstractContextManager[Any]:
    if spec.precision == "float32":
        return nullcontext()
    return torch.autocast(spec.accelerator, dtype=torch.bfloat16)


def _full_strength(spec: TrainingSpec) -> float:
    name = METHODS[spec.method].strength
    return float(getattr(spec, name)) if name else 0.0


def _start_digest(spec: TrainingSpec) -> str:
    return "" if spec.start_from is None else load_checkpoint(spec.start_from).digest


def _below(tensors: Mapping[str, Tensor], part: str) -> dict[str, Tensor]:
    prefix = f"{part}."
    return {name.removeprefix(prefix): t for name, t in tensors.items() if name.startswith(prefix)}


def _grad(parameter: Tensor) -> Tensor:
    """The gradient of a parameter, zeros if the loss did not reach it."""
    if parameter.grad is None:
        parameter.grad = torch.zeros_like(parameter)
    return parameter.grad


def _given(value: T | None) -> T:
    """A field that its method has filled in."""
    if value is None:
        raise ValueError("The specification lacks a value that its method reads.")
    return value
