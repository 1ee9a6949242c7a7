"""Perturbations of the weights: where in weight space a training step takes its gradient.

A rule maps ({name: weight}, {name: gradient}) to {name: offset}. With the gradient g of a batch and
a diagonal scale T, SAM, ASAM and SAMSON are one formula,

    offset = rho * T^2 g / ||T g||_2        (one norm over all parameters)

    sam      T = 1                                          Foret et al., arXiv 2010.01412
    asam     T = |w| + eta                                  Kwon et al., arXiv 2102.11600
    samson   T = (|w| + eta) / ||w||_p, norm per tensor     Mordido et al., arXiv 2211.11561

and random weight perturbation (rwp) draws N(0, (sigma * scale)^2) without looking at the gradient.
Names are those of `named_parameters()`; a parameter is a *weight* when one dot-component of its
name is "weight" (so a parametrised weight counts); biases and shifts are not.
"""

import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from types import MappingProxyType

import torch
from torch import Tensor, nn

Tensors = Mapping[str, Tensor]
Rule = Callable[[Tensors, Tensors], Tensors]

DIALECTS = ("authors", "popular")
NOISE_SCALES = ("filter_max", "layer_max", "network_max", "filter_norm", "constant")

_TINY = 1e-12  # keeps 0 / 0 out of a step whose gradient is zero


def sam(weights: Tensors, gradients: Tensors, *, rho: float) -> dict[str, Tensor]:
    """Offset of sharpness-aware minimisation: rho * g / ||g||_2.

    The same as the first step of `SAM(adaptive=False)` in davda54/sam and in pytorch_optimizer.

    Args:
        weights: Parameters by name.
        gradients: Their gradients; parameters without one are not perturbed.
        rho: Radius, at least 0. The authors' code takes 0.05.

    Returns:
        Offsets by name.

    Raises:
        ValueError: If rho is negative or there is no gradient.
    """
    return _ascent(dict.fromkeys(_with_gradient(weights, gradients)), gradients, rho)


def asam(
    weights: Tensors,
    gradients: Tensors,
    *,
    rho: float,
    eta: float = 0.01,
    dialect: str = "authors",
) -> dict[str, Tensor]:
    """Offset of adaptive SAM: worst case relative to |w|.

    Args:
        weights: Parameters by name.
        gradients: Their gradients; parameters without one are not perturbed.
        rho: Radius, at least 0: 0.5 in the authors' dialect, 2.0 in the popular one (their best
            values differ by four, so never carry one over).
        eta: Added to |w|; the authors' class takes 0.01, their command line 0.
        dialect: "authors" (SamsungLabs/ASAM): T = |w| + eta for weights, 1 for biases and shifts.
            "popular" (davda54/sam and pytorch_optimizer, `adaptive=True`): T = |w| for every
            parameter, no eta.

    Returns:
        Offsets by name.

    Raises:
        ValueError: If rho is negative, there is no gradient, or the dialect is unknown.
    """
    if dialect not in DIALECTS:
        raise ValueError(f"Unknown dialect {dialect!r} of ASAM; allowed: {', '.join(DIALECTS)}.")
    scales: dict[str, Tensor | None] = {}
    for name in _with_gradient(weights, gradients):
        if dialect == "popular":
            scales[name] = weights[name].abs()
        else:
            scales[name] = weights[name].abs().add_(eta) if is_weight(name) else None
    return _ascent(scales, gradients, rho)


def samson(
    weights: Tensors,
    gradients: Tensors,
    *,
    rho: float,
    eta: float = 0.01,
    p: float = math.inf,
    norm_and_bias: bool = True,
) -> dict[str, Tensor]:
    """Offset of SAMSON: worst case relative to |w| and to the range of the tensor.

    T = (|w| + eta) / ||w||_p for weights and 1 for biases and shifts, as in the first author's
    public optimizer (sebastienwood/SamsonViT). A tensor of zeros has no range and is not perturbed.

    Args:
        weights: Parameters by name.
        gradients: Their gradients; parameters without one are not perturbed.
        rho: Radius, at least 0; the authors' code takes 0.5, their ViT experiments 0.2. The same
            rho means very different offsets for p = 2 and p = inf.
        eta: Added to |w| before the division.
        p: Norm of a weight tensor: inf (its largest |w|) or 2.
        norm_and_bias: Whether parameters with fewer than two dimensions (gains and shifts of
            normalisation layers, biases) are perturbed too, as in the authors' code.

    Returns:
        Offsets by name.

    Raises:
        ValueError: If rho is negative, p is neither 2 nor inf, or there is no gradient.
    """
    if p not in (2, math.inf):
        raise ValueError(f"p must be 2 or inf; got {p!r}.")
    scales: dict[str, Tensor | None] = {}
    for name in _with_gradient(weights, gradients):
        weight = weights[name]
        if weight.ndim < 2 and not norm_and_bias:
            continue
        if is_weight(name):
            size = torch.linalg.vector_norm(weight, ord=p)
            inverse = torch.where(size > 0, 1 / size, torch.zeros_like(size))
            scales[name] = weight.abs().add_(eta).mul_(inverse)
        else:
            scales[name] = None
    return _ascent(scales, gradients, rho)


def rwp(
    weights: Tensors,
    gradients: Tensors | None = None,
    *,
    sigma: float,
    scale: str = "filter_max",
    generator: torch.Generator,
) -> dict[str, Tensor]:
    """Random offset N(0, (sigma * scale)^2) on every weight with two or more dimensions.

    Args:
        weights: Parameters by name.
        gradients: Not read; here so that `rwp` is a rule like the others.
        sigma: Size relative to the scale, at least 0.
        scale: "filter_max", "layer_max", "network_max": the largest |w| of an output filter, a
            tensor or the network; "filter_norm": the 2-norm of an output filter (Li et al., arXiv
            2211.11489); "constant": 1.
        generator: Where the draws come from, on the device of the weights.

    Returns:
        Offsets by name; gains, shifts and biases are not perturbed.

    Raises:
        ValueError: If sigma is negative or the scale is unknown.
    """
    _check_strength("sigma", sigma)
    if scale not in NOISE_SCALES:
        raise ValueError(
            f"Unknown scale {scale!r} of random perturbation; allowed: {', '.join(NOISE_SCALES)}."
        )
    matrices = {name: w for name, w in weights.items() if w.ndim >= 2 and is_weight(name)}
    noise = _normal(matrices, generator)
    if scale == "constant" or not matrices:
        factors = [torch.ones((), device=w.device) for w in matrices.values()]
    elif scale == "filter_max":
        factors = [_per_filter(w, math.inf) for w in matrices.values()]
    elif scale == "filter_norm":
        factors = [_per_filter(w, 2) for w in matrices.values()]
    else:
        factors = list(torch._foreach_norm(list(matrices.values()), math.inf))
        if scale == "network_max":
            factors = [torch.stack(factors).max()] * len(factors)
    torch._foreach_mul_(noise, factors)
    torch._foreach_mul_(noise, sigma)
    return dict(zip(matrices, noise, strict=True))


def arwp(
    weights: Tensors,
    gradients: Tensors | None = None,
    *,
    sigma: float,
    fisher: Tensors,
    eta: float = 0.1,
    generator: torch.Generator,
) -> dict[str, Tensor]:
    """Random offset with the spread sigma * ||w_f||_2 / sqrt(1 + eta * F_f) per output filter f.

    Li et al., "Revisiting random weight perturbation", arXiv 2404.00357.

    Args:
        weights: Parameters by name.
        gradients: Not read.
        sigma: Size relative to the filter's 2-norm, at least 0.
        fisher: F by name, one number per output filter (see `update_fisher`); absent: 0.
        eta: Strength of the adaptation.
        generator: Where the draws come from, on the device of the weights.

    Returns:
        Offsets by name.

    Raises:
        ValueError: If sigma is negative.
    """
    offsets = rwp(weights, sigma=sigma, scale="filter_norm", generator=generator)
    for name, offset in offsets.items():
        if name in fisher:
            damping = torch.rsqrt(1 + eta * fisher[name])
            offset.mul_(damping.reshape(-1, *[1] * (offset.ndim - 1)))
    return offsets


def update_fisher(fisher: Tensors, gradients: Tensors, *, decay: float = 0.99) -> dict[str, Tensor]:
    """Remember squared gradients per output filter: F <- decay * F + sum over the filter of g^2.

    As in the authors' code (nblt/mARWP), without a factor (1 - decay).

    Args:
        fisher: F so far, by name; empty at first.
        gradients: Gradients by name.
        decay: In [0, 1].

    Returns:
        The new F for every weight with two or more dimensions.
    """
    updated = {}
    for name, gradient in gradients.items():
        if gradient.ndim >= 2 and is_weight(name):
            squares = gradient.flatten(1).square().sum(1)
            updated[name] = squares + decay * fisher[name] if name in fisher else squares
    return updated


def is_weight(name: str) -> bool:
    """Whether a parameter counts as a weight: one dot-component of its name is "weight"."""
    return "weight" in name.split(".")


@contextmanager
def perturbed(model: nn.Module, rule: Rule, *, freeze_batch_norm: bool = True) -> Iterator[None]:
    """Move a network's weights to weight + offset for the length of a `with` block.

        loss(model, batch).backward()                       # gradients for the rule
        with perturbed(model, partial(samson, rho=0.5)):
            optimizer.zero_grad()
            loss(model, batch).backward()                   # gradients at the perturbed weights
        optimizer.step()                                    # the weights are back, bit for bit

    Works with every optimizer, with gradient accumulation and under autocast (whose cache of cast
    weights is emptied on the way in and out).

    Args:
        model: Network whose trainable parameters are perturbed in place.
        rule: Maps ({name: weight}, {name: gradient}) to {name: offset}; it must leave both alone.
        freeze_batch_norm: Whether running statistics stay as they are in the block. Right when a
            clean pass has updated them; with a rule that needs no clean pass (`rwp`) pass False,
            and estimate the statistics anew before validating (`torch.optim.swa_utils.update_bn`).

    Raises:
        ValueError: If the rule answers with an unknown name or a wrong shape.
    """
    parameters = {n: p for n, p in model.named_parameters() if p.requires_grad}
    with torch.no_grad():
        offsets = rule(
            MappingProxyType({name: p.detach() for name, p in parameters.items()}),
            MappingProxyType(
                {name: p.grad.detach() for name, p in parameters.items() if p.grad is not None}
            ),
        )
    for name, offset in offsets.items():
        if name not in parameters or offset.shape != parameters[name].shape:
            raise ValueError(
                f"The rule gave an offset {name!r} of shape {tuple(offset.shape)}; allowed are the "
                "names and shapes of the model's trainable parameters."
            )
    moved = [parameters[name].detach() for name in offsets]
    saved = [weight.clone() for weight in moved]
    torch.clear_autocast_cache()
    try:
        with frozen_batch_norm(model, frozen=freeze_batch_norm):
            if moved:
                torch._foreach_add_(moved, list(offsets.values()))
            yield
    finally:
        if moved:
            torch._foreach_copy_(moved, saved)
        torch.clear_autocast_cache()


@contextmanager
def frozen_batch_norm(model: nn.Module, *, frozen: bool = True) -> Iterator[None]:
    """Keep running statistics as they are, although layers in training mode see batches.

    Args:
        model: Network with batch or instance normalisation anywhere inside.
        frozen: False does nothing.
    """
    buffers = [
        buffer
        for module in model.modules()
        if frozen and isinstance(module, nn.modules.batchnorm._NormBase) and module.training
        for buffer in module.buffers(recurse=False)
    ]
    saved = [buffer.clone() for buffer in buffers]
    try:
        yield
    finally:
        for buffer, copy in zip(buffers, saved, strict=True):
            buffer.detach().copy_(copy)


class MicroRing(nn.Module):
    """The weight of a micro-ring as a function of its control parameter: W(theta).

    W = A - 2 A / (1 + ((theta - x0) / gamma)^2), a Lorentzian line between -A and A (Xu et al.,
    Nat. Commun. 17, 1766 (2026); the numbers are their notebooks'). Registered with
    `torch.nn.utils.parametrize.register_parametrization(layer, "weight", MicroRing())`, the control
    parameters are what an optimizer trains and what every rule perturbs.

    Args:
        amplitude: A, the largest |W|, above 0.
        resonance: x0, in units of theta.
        width: gamma, in units of theta, above 0.
    """

    def __init__(self, amplitude: float = 1.0, resonance: float = 0.0, width: float = 0.15) -> None:
        super().__init__()
        self.amplitude, self.resonance, self.width = amplitude, resonance, width

    def forward(self, theta: Tensor) -> Tensor:
        """Return the weights at some control parameters."""
        detuning = (theta - self.resonance) / self.width
        return self.amplitude - 2 * self.amplitude / (1 + detuning**2)

    def right_inverse(self, weight: Tensor) -> Tensor:
        """Return control parameters that give some weights, which are first cut to 0.999 A."""
        w = (weight / self.amplitude).clamp(-0.999, 0.999)
        return self.width * torch.sqrt((1 + w) / (1 - w)) + self.resonance


def _linear(progress: float, relative_loss: float) -> float:
    return progress


def _quadratic(progress: float, relative_loss: float) -> float:
    return progress**2


def _cosine(progress: float, relative_loss: float) -> float:
    return (1 - math.cos(math.pi * progress)) / 2


def _step(progress: float, relative_loss: float) -> float:
    return min(1 + math.floor(3 * progress), 3) / 3


def _adaptive(progress: float, relative_loss: float) -> float:
    return min(max(1 - relative_loss, 0.0), 1.0)


def _constant(progress: float, relative_loss: float) -> float:
    return 1.0


SCHEDULES: Mapping[str, Callable[[float, float], float]] = MappingProxyType(
    {
        "constant": _constant,
        "linear": _linear,
        "quadratic": _quadratic,
        "cosine": _cosine,
        "step": _step,
        "adaptive": _adaptive,
    }
)


def strength_factor(schedule: str, progress: float, *, relative_loss: float = 1.0) -> float:
    """What the strength (rho or sigma) is multiplied by at a point of the training.

    constant 1; linear t; quadratic t^2; cosine (1 - cos(pi t)) / 2; step 1/3, 2/3, 1 in thirds of
    the training; adaptive 1 - relative loss. Strong perturbations early in training make the update
    gradient vanish ("Incorruptible Neural Networks", arXiv 2602.07320, whose tables use a quadratic
    ramp); the ramps' exact forms, and `adaptive`, are our choice. `adaptive` holds itself stable: a
    perturbation that is too strong keeps the loss up, which keeps the perturbation down.

    Args:
        schedule: A name from `SCHEDULES`.
        progress: Share of the training that is done, t in [0, 1].
        relative_loss: Loss of the epoch before, divided by that of guessing, ln(number of classes).

    Returns:
        The factor, in [0, 1].

    Raises:
        ValueError: If the schedule is unknown or the progress out of range.
    """
    if schedule not in SCHEDULES:
        raise ValueError(f"Unknown schedule {schedule!r}; allowed: {', '.join(SCHEDULES)}.")
    if not 0 <= progress <= 1:
        raise ValueError(f"Progress must lie in [0, 1]; got {progress!r}.")
    return SCHEDULES[schedule](progress, relative_loss)


def _ascent(
    scales: Mapping[str, Tensor | None], gradients: Tensors, rho: float
) -> dict[str, Tensor]:
    """Give rho * T^2 g / ||T g||_2, where a scale T of None is the identity."""
    _check_strength("rho", rho)
    if not scales:
        raise ValueError(
            "No parameter has a gradient; rules of the SAM family need the one of a clean pass: "
            "call loss.backward() before perturbed(...)."
        )
    scaled = [gradients[n] if t is None else gradients[n] * t for n, t in scales.items()]
    norm = torch.linalg.vector_norm(torch.stack(torch._foreach_norm(scaled)))
    offsets = [x.clone() if t is None else x.mul_(t)
               for x, t in zip(scaled, scales.values(), strict=True)]  # fmt: skip
    torch._foreach_mul_(offsets, rho / (norm + _TINY))
    return dict(zip(scales, offsets, strict=True))


def _with_gradient(weights: Tensors, gradients: Tensors) -> list[str]:
    return [name for name in weights if name in gradients]


def _per_filter(weight: Tensor, order: float) -> Tensor:
    dims = tuple(range(1, weight.ndim))
    norms: Tensor = torch.linalg.vector_norm(weight, ord=order, dim=dims, keepdim=True)
    return norms


def _normal(weights: Tensors, generator: torch.Generator) -> list[Tensor]:
    """Standard normal tensors like the weights, from one draw."""
    sizes = [w.numel() for w in weights.values()]
    if not sizes:
        return []
    like = next(iter(weights.values()))
    flat = torch.randn(sum(sizes), generator=generator, device=like.device, dtype=like.dtype)
    parts = torch.split(flat, sizes)
    return [x.view(w.shape) for x, w in zip(parts, weights.values(), strict=True)]


def _check_strength(name: str, value: float) -> None:
    if not 0 <= value < math.inf:
        raise ValueError(f"{name} must be finite and at least 0; got {value!r}.")
