"""The rules: pure functions from weights and gradients to offsets (formulas in the package)."""

import math
from collections.abc import Mapping
from types import MappingProxyType

import torch
from torch import Tensor

from analog_samson.algorithm import Tensors
from analog_samson.methods import DIALECTS, NOISE_SCALES
from analog_samson.perturbation.filters import filters_first, for_weight

_NONE: Mapping[str, int] = MappingProxyType({})
_TINY = 1e-12  # avoids 0 / 0 if the gradient is zero


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

    Example:
        >>> weights, gradients = {"weight": torch.zeros(2)}, {"weight": torch.tensor([3.0, 4.0])}
        >>> sam(weights, gradients, rho=0.5)["weight"]
        tensor([0.3000, 0.4000])
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
        rho: Radius, at least 0: usually 0.5 in the authors' dialect and 2.0 in the popular one. A
            value tuned for one dialect is not valid for the other.
        eta: Added to |w|; the authors' class takes 0.01, their command line 0.
        dialect: "authors" (SamsungLabs/ASAM): T = |w| + eta for weights, 1 for biases and shifts.
            "popular" (davda54/sam and pytorch_optimizer, `adaptive=True`): T = |w| for every
            parameter, no eta.

    Returns:
        Offsets by name.

    Raises:
        ValueError: If rho is negative, there is no gradient, or the dialect is unknown.

    Example:
        >>> weights, gradients = {"weight": torch.tensor([[3.0, 1]])}, {"weight": torch.ones(1, 2)}
        >>> asam(weights, gradients, rho=1.0, eta=0.0)["weight"]  # in proportion to w^2
        tensor([[2.8460, 0.3162]])
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

    Example:
        >>> weights, gradients = {"weight": torch.tensor([[2.0, 1]])}, {"weight": torch.ones(1, 2)}
        >>> samson(weights, gradients, rho=1.0, eta=0.0)["weight"]
        tensor([[0.8944, 0.2236]])
    """
    if p not in (2, math.inf):
        raise ValueError(f"p must be 2 or inf; got {p!r}.")
    names = [n for n in _with_gradient(weights, gradients) if norm_and_bias or weights[n].ndim > 1]
    scales: dict[str, Tensor | None] = dict.fromkeys(names)
    chosen = [name for name in names if is_weight(name)]
    if chosen:
        tensors = [weights[name] for name in chosen]
        sized = torch._foreach_abs(tensors)
        sizes = torch.stack([t.max() for t in sized] if p == math.inf else _norms(tensors))
        inverse = torch.where(sizes > 0, 1 / sizes, torch.zeros_like(sizes))
        torch._foreach_add_(sized, eta)
        torch._foreach_mul_(sized, list(inverse.unbind()))
        scales |= zip(chosen, sized, strict=True)
    return _ascent(scales, gradients, rho)


def rwp(
    weights: Tensors,
    gradients: Tensors | None = None,
    *,
    sigma: float,
    scale: str = "filter_max",
    drop_share: float = 0.0,
    transposed_groups: Mapping[str, int] = _NONE,
    generator: torch.Generator,
) -> dict[str, Tensor]:
    """Random offset N(0, (sigma * scale)^2) on every weight with two or more dimensions.

    With the scale "layer_max" and drop-connect it is what aihwkit's ADD_NORMAL weight modifier does
    in training (one tile per layer), the noise of Joshi et al. (2020) and Rasch et al. (2023).

    Args:
        weights: Parameters by name.
        gradients: Not used; part of the signature of every rule.
        sigma: Size relative to the scale, at least 0.
        scale: "filter_max", "layer_max", "network_max": the largest |w| of an output filter, a
            tensor or the network; "filter_norm": the 2-norm of an output filter (Li et al., arXiv
            2211.11489); "constant": 1.
        drop_share: Probability that a weight is moved to zero instead (drop-connect).
        transposed_groups: Groups of the transposed convolutions by name, whose filters are not
            their rows (see `transposed_groups`).
        generator: Random generator, on the accelerator of the weights.

    Returns:
        Offsets by name; gains, shifts and biases are not perturbed.

    Raises:
        ValueError: If sigma is negative, the scale is unknown or drop_share is not in [0, 1].

    Example:
        >>> generator = torch.Generator().manual_seed(0)
        >>> offsets = rwp({"weight": torch.ones(4, 8)}, sigma=0.1, generator=generator)
        >>> offsets["weight"].shape
        torch.Size([4, 8])
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
        factors = [
            _per_filter(w, math.inf, transposed_groups.get(name)) for name, w in matrices.items()
        ]
    elif scale == "filter_norm":
        factors = [_per_filter(w, 2, transposed_groups.get(name)) for name, w in matrices.items()]
    else:
        factors = [w.abs().max() for w in matrices.values()]
        if scale == "network_max":
            factors = [torch.stack(factors).max()] * len(factors)
    torch._foreach_mul_(noise, factors)
    torch._foreach_mul_(noise, sigma)
    offsets = dict(zip(matrices, noise, strict=True))
    drop_connect(offsets, matrices, share=drop_share, generator=generator)
    return offsets


def arwp(
    weights: Tensors,
    gradients: Tensors | None = None,
    *,
    sigma: float,
    fisher: Tensors,
    eta: float = 0.1,
    transposed_groups: Mapping[str, int] = _NONE,
    generator: torch.Generator,
) -> dict[str, Tensor]:
    """Random offset with the spread sigma * ||w_f||_2 / sqrt(1 + eta * F_f) per output filter f.

    Li et al., "Revisiting random weight perturbation", arXiv 2404.00357.

    Args:
        weights: Parameters by name.
        gradients: Not used.
        sigma: Size relative to the filter's 2-norm, at least 0.
        fisher: F by name, one number per output filter (see `update_fisher`); absent: 0.
        eta: Strength of the adaptation.
        transposed_groups: As for `rwp`.
        generator: Random generator, on the accelerator of the weights.

    Returns:
        Offsets by name.

    Raises:
        ValueError: If sigma is negative.

    Example:
        >>> generator = torch.Generator().manual_seed(0)
        >>> offsets = arwp({"weight": torch.ones(4, 8)}, sigma=0.1, fisher={}, generator=generator)
        >>> offsets["weight"].shape
        torch.Size([4, 8])
    """
    offsets = rwp(
        weights,
        sigma=sigma,
        scale="filter_norm",
        transposed_groups=transposed_groups,
        generator=generator,
    )
    for name, offset in offsets.items():
        if name in fisher:
            damping = torch.rsqrt(1 + eta * fisher[name]).reshape(-1, *[1] * (offset.ndim - 1))
            offset.mul_(for_weight(damping, offset, transposed_groups.get(name)))
    return offsets


def update_fisher(
    fisher: Tensors,
    gradients: Tensors,
    *,
    decay: float = 0.99,
    transposed_groups: Mapping[str, int] = _NONE,
) -> dict[str, Tensor]:
    """Update squared gradients per output filter: F <- decay * F + sum over the filter of g^2.

    As in the authors' code (nblt/mARWP), without a factor (1 - decay).

    Args:
        fisher: F so far, by name; empty at first.
        gradients: Gradients by name.
        decay: In [0, 1].
        transposed_groups: As for `rwp`.

    Returns:
        The new F for every weight with two or more dimensions.

    Example:
        >>> gradients = {"weight": torch.tensor([[3.0, 4.0], [0.0, 1.0]])}
        >>> update_fisher({}, gradients)["weight"].flatten()
        tensor([25.,  1.])
    """
    updated = {}
    for name, gradient in gradients.items():
        if gradient.ndim >= 2 and is_weight(name):
            filters = filters_first(gradient, transposed_groups.get(name))
            squares = filters.flatten(1).square().sum(1)
            updated[name] = squares + decay * fisher[name] if name in fisher else squares
    return updated


def drop_connect(
    offsets: Tensors, weights: Tensors, *, share: float, generator: torch.Generator
) -> None:
    """Change offsets in place so that randomly chosen weights become zero.

    Args:
        offsets: Offsets by name.
        weights: Weights of the same names.
        share: Probability that a weight becomes zero, in [0, 1]; 0 draws no random numbers.
        generator: Random generator, on the accelerator of the weights.

    Raises:
        ValueError: If the share is not in [0, 1].

    Example:
        >>> weights = {"weight": torch.ones(2, 2)}
        >>> offsets = {"weight": torch.zeros(2, 2)}
        >>> drop_connect(offsets, weights, share=1.0, generator=torch.Generator())
        >>> offsets["weight"]
        tensor([[-1., -1.],
                [-1., -1.]])
    """
    if not 0 <= share <= 1:
        raise ValueError(f"The share of dropped weights must lie in [0, 1]; got {share!r}.")
    if share == 0:
        return
    for name, offset in offsets.items():
        weight = weights[name]
        draw = torch.rand(weight.shape, generator=generator, device=weight.device)
        torch.where(draw < share, -weight, offset, out=offset)


def is_weight(name: str) -> bool:
    """Whether a parameter counts as a weight: "weight" is a word of one part of its name.

    So it is in the names that torch gives recurrent and attention layers, too.

    Example:
        >>> [is_weight(name) for name in ("fc1.weight", "lstm.weight_hh_l0", "attn.in_proj_weight")]
        [True, True, True]
        >>> is_weight("fc1.bias"), is_weight("lstm.bias_hh_l0")
        (False, False)
    """
    return any("weight" in part.split("_") for part in name.split("."))


def _ascent(
    scales: Mapping[str, Tensor | None], gradients: Tensors, rho: float
) -> dict[str, Tensor]:
    """Return rho * T^2 g / ||T g||_2, where a scale T of None is the identity."""
    _check_strength("rho", rho)
    if not scales:
        raise ValueError(
            "No parameter has a gradient; rules of the SAM family need that of a clean pass: "
            "call loss.backward() before perturbed(...)."
        )
    scaled = [gradients[n] if t is None else gradients[n] * t for n, t in scales.items()]
    norm = torch.linalg.vector_norm(torch.stack(_norms(scaled)))
    offsets = [x.clone() if t is None else x.mul_(t)
               for x, t in zip(scaled, scales.values(), strict=True)]  # fmt: skip
    torch._foreach_mul_(offsets, rho / (norm + _TINY))
    return dict(zip(scales, offsets, strict=True))


def _with_gradient(weights: Tensors, gradients: Tensors) -> list[str]:
    return [name for name in weights if name in gradients]


def _norms(tensors: list[Tensor]) -> list[Tensor]:
    return list(torch._foreach_norm(tensors))


def _per_filter(weight: Tensor, order: float, groups: int | None) -> Tensor:
    filters, dims = filters_first(weight, groups), tuple(range(1, weight.ndim))
    if order == math.inf:  # faster than the norm of infinite order
        norms = filters.abs().amax(dims, keepdim=True)
    else:
        norms = torch.linalg.vector_norm(filters, ord=order, dim=dims, keepdim=True)
    return for_weight(norms, weight, groups)


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
