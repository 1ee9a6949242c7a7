"""Which layers of a network are mapped onto crossbar arrays, and why the others are not."""

import difflib
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from typing import cast

from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase
from torch.nn.utils import parametrize

ANALOG_KINDS: tuple[type[nn.Module], ...] = (nn.Linear, nn.Conv1d, nn.Conv2d)
"""Exact types that are mapped onto arrays (convolutions: padding a number of zeros).

Every group of a grouped or depthwise convolution is an array of its own, with its own scale and
compensation factor: (outputs / groups) columns of (inputs / groups x kernel) rows.
"""


@dataclass(frozen=True)
class LayerAudit:
    """Whether the weights of one layer are analog or digital, and why.

    Attributes:
        name: As in `named_modules()` ("" is the model itself), or the name of a bare parameter.
        kind: Class of the layer, or "Parameter".
        n_weights: Number of weights (elements of parameters with at least two dimensions, without
            normalisation); weights shared with an earlier layer are counted there.
        analog: Whether it is mapped onto arrays.
        reason: Why it is not; "" if analog.
        is_refused: Whether it holds weights that cannot be mapped onto arrays and is not in
            `keep_digital`.

    Example:
        >>> (entry,) = audit(nn.Sequential(nn.Embedding(10, 4)))
        >>> entry.kind, entry.analog, entry.n_weights
        ('Embedding', False, 40)
    """

    name: str
    kind: str
    n_weights: int
    analog: bool
    reason: str
    is_refused: bool = False


def audit(model: nn.Module, keep_digital: Sequence[str] = ()) -> list[LayerAudit]:
    """Report for every layer with parameters whether it is mapped onto arrays.

    Args:
        model: Any network. A module used under several names is one layer, listed once, under its
            first name.
        keep_digital: Layers to keep digital: dotted names, each including its submodules; `*`
            matches anything (`*.depthwise`).

    Returns:
        One entry for each module that directly owns parameters, in the order of `named_modules()`,
        and one for each bare parameter with at least two dimensions.

    Example:
        >>> [(entry.name, entry.n_weights, entry.analog) for entry in audit(model, ["fc3"])]
        [('fc1', 4096, True), ('fc2', 4096, True), ('fc3', 640, False)]
    """
    aliases: dict[int, list[str]] = defaultdict(list)
    for name, module in model.named_modules(remove_duplicate=False):
        aliases[id(module)].append(name)
    owners: dict[int, list[str]] = defaultdict(list)
    layers = list(_layers(model))
    for layer in layers:
        for weight in layer.weights:
            owners[_memory(weight)].append(layer.name)
    entries = []
    counted: set[int] = set()
    for layer in layers:
        known = sum(weight.numel() for weight in layer.weights if _memory(weight) in counted)
        counted.update(_memory(weight) for weight in layer.weights)
        others = sorted(
            {owner for weight in layer.weights for owner in owners[_memory(weight)]} - {layer.name}
        )
        entry = replace(layer.entry, n_weights=max(0, layer.entry.n_weights - known))
        if others and (entry.analog or entry.is_refused):
            entry = replace(
                entry,
                analog=False,
                is_refused=True,
                reason=f"shares its weights with {', '.join(map(quoted, others))}: one "
                "array cannot be two layers",
            )
        names = [*aliases[id(layer.module)], layer.name]
        if (entry.analog or entry.is_refused) and is_kept(names, keep_digital):
            reason = "kept digital on request" + (f" ({entry.reason})" if entry.reason else "")
            entry = replace(entry, analog=False, is_refused=False, reason=reason)
        entries.append(entry)
    return entries


def analog_layers(model: nn.Module, keep_digital: Sequence[str] = ()) -> dict[str, nn.Module]:
    """Return the layers that are mapped onto arrays, by name, in the order of `named_modules()`.

    Args:
        model: Any network.
        keep_digital: As in `audit`.

    Returns:
        {dotted name: module}, of the exact types in `ANALOG_KINDS` (or those types under
        `torch.nn.utils.parametrize`); a module used under several names is listed once.

    Raises:
        ValueError: If a layer holds weights that cannot be mapped onto arrays and is not in
            `keep_digital` (each is named, with its reason), a name in `keep_digital` matches no
            layer, or no layer is left for arrays.

    Example:
        >>> list(analog_layers(model, keep_digital=["fc3"]))
        ['fc1', 'fc2']
    """
    entries = audit(model, keep_digital)
    known = {name for name, _ in model.named_modules(remove_duplicate=False)}
    known |= {name for name, _ in named_tensors(model)}
    for pattern in _patterns(keep_digital):
        if not any(_matches(name, pattern) for name in known):
            close = difflib.get_close_matches(pattern, sorted(known), n=1)
            hint = f" Did you mean {close[0]!r}?" if close else ""
            raise ValueError(
                f"keep_digital names {pattern!r}, and the model has no layer of that name.{hint}"
            )
    if refused := {entry.name: entry for entry in entries if entry.is_refused}:
        why = {name: (entry.kind, entry.reason) for name, entry in refused.items()}
        alike = patterns_of(why, [entry.name for entry in entries])
        lines = []
        for pattern, names in alike.items():
            entry, count = refused[names[0]], f"{len(names)} x " if len(names) > 1 else ""
            lines.append(f"{quoted(pattern)} ({count}{entry.kind}): {entry.reason}")
        keep = f", or keep them digital: keep_digital={_without_parts(alike)}"
        raise ValueError(
            f"{len(refused)} layer(s) cannot be mapped onto arrays:{in_few_lines(lines)}. Change "
            "them, or rewrite them by a rule of your own (rewrites)"
            f"{'' if '' in refused else keep}."
        )
    layers = {entry.name: model.get_submodule(entry.name) for entry in entries if entry.analog}
    if not layers:
        raise ValueError(
            "The model has no layer for arrays: it holds none of "
            f"{', '.join(kind.__name__ for kind in ANALOG_KINDS)}, or all are kept digital."
        )
    return layers


def analog_share(model: nn.Module, keep_digital: Sequence[str] = ()) -> float:
    """Share of the weights that are on arrays.

    Args:
        model: Any network.
        keep_digital: As in `audit`.

    Returns:
        Number of analog weights / number of all weights (parameters with at least two dimensions,
        without normalisation), in [0, 1]; 0 for a model without weights.

    Example:
        >>> analog_share(nn.Sequential(nn.Linear(8, 2), nn.Linear(2, 8)), keep_digital=["1"])
        0.5
    """
    entries = audit(model, keep_digital)
    total = sum(entry.n_weights for entry in entries)
    analog = sum(entry.n_weights for entry in entries if entry.analog)
    return analog / total if total else 0.0


_NORMS = (
    _NormBase, nn.LayerNorm, nn.GroupNorm, *([nn.RMSNorm] if hasattr(nn, "RMSNorm") else [])
)  # fmt: skip
LOOKUPS = nn.Embedding, nn.EmbeddingBag
_CONTAINERS = (
    nn.Module, nn.Sequential, nn.ModuleList, nn.ModuleDict, nn.ParameterList, nn.ParameterDict
)  # fmt: skip


@dataclass(frozen=True)
class _Layer:
    """A module, its weights, and its entry before shared weights and `keep_digital` count."""

    name: str
    module: nn.Module
    weights: tuple[Tensor, ...]
    entry: LayerAudit


def _memory(weight: Tensor) -> int:
    """Identity of the memory of a weight: equal for tensors that start at the same element."""
    try:
        return weight.data_ptr() or id(weight)
    except (NotImplementedError, RuntimeError):  # sparse, packed
        return id(weight)


def _layers(model: nn.Module) -> Iterator[_Layer]:
    """Every module that directly owns parameters (including those of its parametrisations)."""
    hidden: set[int] = set()  # modules inside a parametrisation belong to the layer they change
    module: nn.Module
    for name, module in model.named_modules():
        if id(module) in hidden:
            continue
        own = dict(module.named_parameters(recurse=False, remove_duplicate=False))
        if parametrize.is_parametrized(module):
            inside = cast(nn.Module, module.parametrizations)
            hidden.update(id(child) for child in inside.modules())
            own.update(inside.named_parameters())
        if not own:
            continue
        lazy = any(isinstance(p, nn.parameter.UninitializedParameter) for p in own.values())
        large = {} if lazy else {key: p for key, p in own.items() if p.ndim >= 2}
        n_weights = sum(parameter.numel() for parameter in large.values())
        kind: type = parametrize.type_before_parametrizations(module)
        if lazy:
            reason = (
                "its shape is not known before the first forward pass: run one batch through it"
            )
            entry = LayerAudit(name, kind.__name__, 0, False, reason, is_refused=True)
            yield _Layer(name, module, (), entry)
        elif isinstance(module, _NORMS):
            entry = LayerAudit(name, kind.__name__, 0, False, "normalisation is digital by nature")
            yield _Layer(name, module, (), entry)
        elif isinstance(module, ANALOG_KINDS):
            reason = _why_not(module, kind)
            if large:  # a parametrisation may store its weight in several tensors
                n_weights = cast(Tensor, module.weight).numel()
            entry = LayerAudit(
                name, kind.__name__, n_weights, not reason, reason, is_refused=bool(reason)
            )
            yield _Layer(name, module, tuple(large.values()), entry)
        elif not large:
            reason = "scales and offsets are digital by nature"
            yield _Layer(name, module, (), LayerAudit(name, kind.__name__, 0, False, reason))
        elif isinstance(module, LOOKUPS):
            reason = "a lookup, which multiplies nothing, is digital by nature"
            entry = LayerAudit(name, kind.__name__, n_weights, False, reason)
            yield _Layer(name, module, tuple(large.values()), entry)
        elif _torch_kind(kind) not in _CONTAINERS:
            reason = f"{_torch_kind(kind).__name__} has no analog form here"
            entry = LayerAudit(name, kind.__name__, n_weights, False, reason, is_refused=True)
            yield _Layer(name, module, tuple(large.values()), entry)
        else:
            for key, parameter in large.items():
                full = f"{name}.{key}" if name else key
                reason = "a parameter outside layers, added or multiplied element by element"
                entry = LayerAudit(full, "Parameter", parameter.numel(), False, reason)
                yield _Layer(full, module, (parameter,), entry)


def _torch_kind(kind: type) -> type:
    """The nearest class of torch.nn in the inheritance of a class."""
    return next(parent for parent in kind.__mro__ if parent.__module__.startswith("torch.nn"))


def _why_not(layer: nn.Module, kind: type) -> str:
    """Why a linear or convolutional layer cannot be mapped onto arrays; "" if it can."""
    if kind not in ANALOG_KINDS:
        parent = next(parent for parent in ANALOG_KINDS if issubclass(kind, parent))
        return f"a subclass of {parent.__name__}, whose forward may compute something else"
    is_parametrized = parametrize.is_parametrized(layer, "weight")
    if not is_parametrized and not isinstance(layer._parameters.get("weight"), nn.Parameter):
        return (
            "its weight is made by a hook (weight_norm, spectral_norm or prune of torch.nn.utils): "
            "make it permanent first (remove_weight_norm, remove_spectral_norm, prune.remove)"
        )
    if "forward" in vars(layer):
        return "its forward is patched, and arrays would not run that: restore it"
    if layer._forward_hooks or layer._forward_pre_hooks:
        return (
            "it has forward hooks, and arrays would not run them: remove them, or make what they "
            "do a module of its own"
        )
    if isinstance(layer, nn.Conv1d | nn.Conv2d):
        if layer.padding_mode != "zeros":
            return f"padding_mode={layer.padding_mode!r} (only 'zeros' is known)"
        if isinstance(layer.padding, str):
            return f"padding={layer.padding!r} (write it as a number of pixels)"
    return ""


def _patterns(keep_digital: Sequence[str]) -> tuple[str, ...]:
    return (keep_digital,) if isinstance(keep_digital, str) else tuple(keep_digital)


def _matches(name: str, pattern: str) -> bool:
    return any(fnmatchcase(name, shape) for shape in (pattern, f"{pattern}.*"))


def is_kept(names: Iterable[str], keep_digital: Sequence[str]) -> bool:
    """Whether one of the names of a layer or tensor is in `keep_digital`."""
    patterns = _patterns(keep_digital)
    return any(_matches(name, pattern) for name in names for pattern in patterns)


def named_tensors(model: nn.Module) -> Iterator[tuple[str, Tensor]]:
    """Every tensor of a network with its name: parameters, buffers, and unregistered tensors.

    Unregistered tensors and modules in attributes, lists or dictionaries are named by attribute and
    position: `heads.0.weight`.
    """
    yield from model.named_parameters(remove_duplicate=False)
    yield from model.named_buffers(remove_duplicate=False)
    usual = vars(nn.Module())
    for name, module in model.named_modules():
        for key, value in vars(module).items():
            if key not in usual:
                yield from _inside(f"{name}.{key}" if name else key, value)


def _inside(name: str, value: object) -> Iterator[tuple[str, Tensor]]:
    if isinstance(value, Tensor):
        yield name, value
    elif isinstance(value, nn.Module):
        for key, tensor in (*value.named_parameters(), *value.named_buffers()):
            yield f"{name}.{key}", tensor
    elif isinstance(value, list | tuple | dict):
        items = value if isinstance(value, dict) else dict(enumerate(value))
        for place, item in items.items():
            yield from _inside(f"{name}.{place}", item)


MOST_LINES = 6
"""Lines of a list in a message, so that all of it fits into ten."""


def in_few_lines(lines: Sequence[str]) -> str:
    """Join what a message lists: two or more on lines of their own, at most `MOST_LINES`."""
    if len(lines) == 1:
        return f" {lines[0]}"
    left = len(lines) - MOST_LINES
    few = [*lines[: MOST_LINES - 1], f"and {left + 1} more"] if left > 0 else lines
    return "\n  " + ";\n  ".join(few)


def _without_parts(patterns: Iterable[str]) -> list[str]:
    """Patterns without those that an earlier one includes."""
    few: list[str] = []
    for pattern in patterns:
        if not is_kept([pattern], few):
            few.append(pattern)
    return few


def patterns_of(names: Mapping[str, object], known: Iterable[str]) -> dict[str, list[str]]:
    """Patterns for `keep_digital` that match names of layers and no others.

    Args:
        names: Names to match, and what is said of each: those that differ in numbers alone, and of
            which the same is said, get one pattern if they can.
        known: Names of all layers.

    Returns:
        {pattern: names that it stands for}, in order.
    """
    others = set(known) - set(names)
    alike: dict[tuple[str, object], list[str]] = defaultdict(list)
    for name, said in names.items():
        alike[re.sub(r"(?<![^.])\d+(?![^.])", "*", name), said].append(name)
    found: dict[str, list[str]] = {}
    for (pattern, _), group in alike.items():
        is_named = pattern.strip("*.") and pattern not in found
        if len(group) > 1 and is_named and not any(_matches(other, pattern) for other in others):
            found[pattern] = group
        else:
            found |= {name: [name] for name in group}
    return found


def quoted(name: str) -> str:
    """Return the name of a layer in quotation marks, for messages."""
    return repr(name) if name else "(the model itself)"
