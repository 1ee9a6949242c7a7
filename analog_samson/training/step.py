"""One training step: gradients of a batch, perturbed or not, and the update of the weights."""

import math
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.nn.utils import clip_grads_with_norm_

from analog_samson.algorithm import Batch
from analog_samson.checkpoint import TrainingSpec
from analog_samson.data import IGNORED
from analog_samson.losses import task_loss
from analog_samson.perturbation import (
    Rule,
    Tensors,
    is_weight,
    perturbed,
    random_states,
    set_random_states,
)
from analog_samson.training.state import State


def gradients_of(
    state: State, spec: TrainingSpec, batch: Batch, rule: Rule | None, strength: float
) -> Tensor:
    """Compute the update gradient of a batch into `grad` of the parameters; return the loss.

    Each part of `m_sharpness` images has its own perturbation; the gradients are averaged.
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
    state: State, spec: TrainingSpec, part: Batch, rule: Rule | None, strength: float
) -> Tensor:
    """Gradients of images that share one perturbation: up to two passes, one dropout mask."""

    def backward() -> Tensor:
        state.optimizer.zero_grad(set_to_none=True)
        pieces = part.parts(len(part.labels) // spec.accumulation)
        losses = []
        for piece in pieces:
            loss = _loss(state, spec, piece, strength) / _weight(part, piece, len(pieces))
            if not loss.requires_grad:
                raise ValueError(
                    "The outputs of the network do not depend on any trained weight; choose others "
                    "(output=)."
                )
            torch.autograd.backward(loss)
            losses.append(loss.detach())
        return torch.stack(losses).sum()

    if rule is None:
        return backward()
    if not spec.has_clean_pass:
        state.optimizer.zero_grad(
            set_to_none=True
        )  # gradients of the previous step must not be used
        with perturbed(state.model, rule, freeze_batch_norm=False):
            return backward()
    dropout = random_states([part.images.device.type])
    loss = backward()
    parameters = [p for p in state.model.parameters() if p.requires_grad]
    clean = [_grad(p) for p in parameters]
    set_random_states(dropout)
    with perturbed(state.model, rule):
        backward()
    if spec.perturbed_share != 1.0:
        for p, gradient in zip(parameters, clean, strict=True):
            p.grad = torch.lerp(gradient, _grad(p), spec.perturbed_share)
    return loss


def _weight(part: Batch, piece: Batch, n_pieces: int) -> float:
    """What the mean of a piece is divided by, so that the sum is the mean of the whole part."""
    if part.labels.ndim == 1 or part.labels.is_floating_point():
        return n_pieces
    n_targets = [int((one.labels != IGNORED).sum()) for one in (part, piece)]
    return n_targets[0] / n_targets[1]


def _loss(state: State, spec: TrainingSpec, batch: Batch, strength: float) -> Tensor:
    if spec.channels_last and batch.images.ndim == 4:
        images = batch.images.contiguous(memory_format=torch.channels_last)
        batch = replace(batch, images=images)
    with _autocast(spec):
        logits = state.forward(batch.images)
    logits = logits.float()
    loss = task_loss(logits, batch.labels, state.task, label_smoothing=spec.label_smoothing)
    with _autocast(spec):
        penalty = state.algorithm.penalty(batch, logits, state.epoch)
    return loss if penalty is None else loss + strength * penalty


def update(state: State, spec: TrainingSpec) -> Tensor:
    """Update weights and moving averages; return the norm of the update gradient."""
    named = {n: p for n, p in state.model.named_parameters() if p.requires_grad}
    gradients = {name: _grad(p) for name, p in named.items()}
    norms = torch.stack(torch._foreach_norm(list(gradients.values())))
    norm: Tensor = torch.linalg.vector_norm(norms)
    state.algorithm.before_update(gradients)
    if spec.clip_gradients:
        clip_grads_with_norm_(named.values(), spec.clip_gradients, norm)
    state.optimizer.step()
    if spec.clip_weights:
        with torch.no_grad():
            for name, weight in named.items():
                if weight.ndim >= 2 and is_weight(name):
                    limit = spec.clip_weights * weight.std()
                    weight.clamp_(-limit, limit)
    state.algorithm.after_update()
    if state.average is not None:
        state.average.update_parameters(state.model)
    return norm


def rule_of(
    spec: TrainingSpec, strength: float, state: State, generator: torch.Generator
) -> Rule | None:
    """Return the rule of a method at a strength; None if it perturbs no weights."""
    if not spec.entry.perturbs_weights:
        return None
    return partial(state.algorithm.offsets, strength=strength, generator=generator)


def measured(rule: Rule, ratios: dict[str, float | None]) -> Rule:
    """The same rule, which also writes ||offset|| / ||w|| to `ratios`, by name and for all ("").

    None if all weights are zero.
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


def _autocast(spec: TrainingSpec) -> AbstractContextManager[Any]:
    if spec.precision == "float32":
        return nullcontext()
    return torch.autocast(spec.accelerator, dtype=torch.bfloat16)


def _grad(parameter: Tensor) -> Tensor:
    """The gradient of a parameter; zeros if the loss does not depend on it."""
    if parameter.grad is None:
        parameter.grad = torch.zeros_like(parameter)
    return parameter.grad
