"""Check that a network with its layers on arrays computes the same as the digital network.

A copy whose analog layers are replaced, as both engines replace them, runs one image. All its ATen
operations are recorded: which tensors depend on the input, and which products have a factor that
does not. Such a factor is a weight; outside an analog layer it must be named in `keep_digital`.
"""

import contextlib
import copy
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn.modules import module as torch_modules
from torch.nn.utils import parametrize
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from analog_samson.models.auditing import (
    LayerAudit,
    analog_layers,
    is_kept,
    named_tensors,
    shown,
)
from analog_samson.models.calibration import evaluating
from analog_samson.models.replacing import replace_everywhere

TOLERANCE = 1e-4
"""Largest allowed difference of outputs, relative to the largest output: our choice, 100 times the
effect of another order of summation in fp32 in deep networks."""


def any_input(image_shape: Sequence[int]) -> Tensor:
    """Return one input of a shape, as a batch (1, ...): normal noise, always the same."""
    draws = torch.Generator().manual_seed(0)
    return torch.randn(1, *image_shape, generator=draws)


@torch.no_grad()
def check_forward(
    network: nn.Module, image: Tensor, keep_digital: Sequence[str] = ()
) -> list[LayerAudit]:
    """Check that a copy with its layers on arrays computes the same as the network.

    Runs one forward pass of the network and one of the copy.

    Args:
        network: The network; its modes and buffers, and torch's random state, are restored.
        image: One network input, shape (1, ...).
        keep_digital: As in `audit`.

    Returns:
        The factors of elementwise products that do not depend on the input (gains, layer scales)
        and are computed digitally: one entry per factor, `n_weights` its number of elements.

    Raises:
        ValueError: If a product or convolution has a factor that does not depend on the input and
            is neither an analog layer nor kept digital (each is named), the copy cannot run, or the
            outputs differ.
    """
    like = next(network.parameters())
    inputs = image.to(like if image.is_floating_point() else like.device)
    watch = _Watch(inputs, keep_digital)
    twin = watch.follow(network)
    accelerators = [inputs.device] if inputs.device.type == "cuda" else []
    with evaluating(network):
        with torch.random.fork_rng(accelerators):
            expected = network(inputs.clone())
        with torch.random.fork_rng(accelerators), watch, watch.knowing_where():
            try:
                found = twin(inputs)
            except Exception as error:  # whatever the network's own code raises
                raise ValueError(
                    "The network does not run with its layers on arrays "
                    f"({type(error).__name__}: {error}). Its forward may only call analog layers "
                    "with one tensor, not read their weights or attributes; keep those it reads "
                    "digital (keep_digital)."
                ) from error
    watch.raise_if_silent()
    _compare(expected, found, any(watch.depends_on_input(t) for t in _tensors(found)))
    return watch.elementwise()


class _Watch(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Tracks which tensors depend on the input, and records products with other tensors."""

    def __init__(self, inputs: Tensor, keep_digital: Sequence[str]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.is_on_arrays = False
        self._keep_digital = keep_digital
        self._where: list[Sequence[str]] = [("",)]
        self._names: dict[int, Sequence[str]] = {}  # of modules, by id
        self._held: list[Any] = [inputs]  # keeps tensors alive, so that ids stay unique
        self._fed = {_storage(inputs)}
        self._origins: dict[int, frozenset[str]] = {}  # of tensors, by storage
        self._silent: dict[str, str] = {}  # {description of a product: name for keep_digital}
        self._factors: dict[str, LayerAudit] = {}

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        return False  # True, torch's default, imports torch._dynamo: seconds

    def follow(self, network: nn.Module) -> nn.Module:
        """Copy a network, with analog layers replaced by modules that only give outputs."""
        twin = copy.deepcopy(network).eval()
        for known in (network, twin):  # a function held by the copy may use the original
            for name, module in known.named_modules(remove_duplicate=False):
                self._names[id(module)] = (*self._names.get(id(module), ()), name)
            for name, tensor in named_tensors(known):
                self._hold(tensor)
                key = _storage(tensor)
                self._origins[key] = self._origins.get(key, frozenset()) | {name}
        layers = analog_layers(twin, self._keep_digital)
        return replace_everywhere(
            twin, {id(layer): _OnArrays(layer, self) for layer in layers.values()}
        )

    @contextlib.contextmanager
    def knowing_where(self) -> Iterator[None]:
        """Track, within a block, which module of the network runs."""

        def enter(module: nn.Module, _: Any) -> None:
            if id(module) in self._names:
                self._where.append(self._names[id(module)])

        def leave(module: nn.Module, *_: Any) -> None:
            if id(module) in self._names:
                self._where.pop()

        before = torch_modules.register_module_forward_pre_hook(enter)
        after = torch_modules.register_module_forward_hook(leave, always_call=True)
        try:
            yield
        finally:
            before.remove()
            after.remove()

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        given = list(_tensors((args, kwargs)))
        fed = any(map(self.depends_on_input, given))
        if fed and not self.is_on_arrays:
            self._look(func, args)
        out = func(*args, **kwargs)
        origins = frozenset().union(*map(self._origin, given))
        for tensor in (*_tensors(out), *_written(func, args, kwargs)):
            self._hold(tensor)
            if fed:
                self._fed.add(_storage(tensor))
            else:
                self._origins[_storage(tensor)] = self._origin(tensor) | origins
        return out

    def depends_on_input(self, tensor: Tensor) -> bool:
        """Whether a tensor was computed from the input."""
        return _storage(tensor) in self._fed

    def raise_if_silent(self) -> None:
        """Raise ValueError if a weight would stay digital without being in `keep_digital`."""
        if not self._silent:
            return
        listed = "; ".join(self._silent)
        wanted = ", ".join(dict.fromkeys(repr(name) for name in self._silent.values()))
        raise ValueError(
            f"{len(self._silent)} product(s) have a factor that does not depend on the input and "
            f"is no analog layer: {listed}. Make each a Linear, Conv1d or Conv2d that is called "
            "and registered as an attribute or in a ModuleList, or keep it digital: "
            f"keep_digital=[{wanted}]."
        )

    def elementwise(self) -> list[LayerAudit]:
        """The factors of elementwise products."""
        return list(self._factors.values())

    def _hold(self, tensor: Tensor) -> None:
        self._held.append(tensor)

    def _origin(self, tensor: Tensor) -> frozenset[str]:
        return self._origins.get(_storage(tensor), frozenset())

    def _look(self, func: Any, args: tuple[Any, ...]) -> None:
        package, operation = func._schema.name.split("::")
        if operation.rstrip("_") in _ELEMENTWISE:
            for tensor in _tensors(args):
                if not self.depends_on_input(tensor):
                    self._count(tensor)
            return
        if not _PRODUCT.search(operation) and package in _KNOWN_PACKAGES:
            return
        smallest = 1 if _OF_VECTORS.search(operation) else 2
        constant = [
            factor
            for factor in _factors(operation, args)
            if not isinstance(factor, Tensor)
            or (factor.ndim >= smallest and not self.depends_on_input(factor))
        ]
        for factor in constant:
            origins = self._origin(factor) if isinstance(factor, Tensor) else frozenset()
            if not self._may_be_digital(origins):
                self._refuse(operation, factor, origins)

    def _may_be_digital(self, origins: frozenset[str]) -> bool:
        kept = self._keep_digital
        if origins and all(is_kept([name], kept) for name in origins):
            return True
        return is_kept(self._where[-1], kept)

    def _refuse(self, operation: str, factor: Any, origins: frozenset[str]) -> None:
        place = self._where[-1][0]
        what = "packed weights" if not isinstance(factor, Tensor) else ""
        what = what or f"a {' x '.join(map(str, factor.shape))} tensor"
        if origins:
            what += f" ({' and '.join(map(repr, sorted(origins)))})"
        text = f"{shown(place)} multiplies ({operation}) by {what}"
        self._silent[text] = min(origins, default=place)

    def _count(self, tensor: Tensor) -> None:
        origins, place = self._origin(tensor), self._where[-1][0]
        name = " and ".join(sorted(origins)) or place
        reason = "an elementwise product is digital by nature"
        kind = "elementwise product"
        entry = LayerAudit(name, kind, tensor.numel(), analog=False, reason=reason)
        known = self._factors.get(name)
        if known is None or known.n_weights < entry.n_weights:
            self._factors[name] = entry


class _OnArrays(nn.Module):
    """An analog layer in the copy: gives its outputs, and hides its hooks and weights."""

    def __init__(self, layer: nn.Module, watch: _Watch) -> None:
        super().__init__()
        self._layer, self._watch = (layer,), watch

    def forward(self, x: Tensor) -> Tensor:
        """Outputs of the layer as its class computes them."""
        (layer,) = self._layer
        kind: Any = parametrize.type_before_parametrizations(layer)
        self._watch.is_on_arrays = True
        try:
            return cast(Tensor, kind.forward(layer, x))
        finally:
            self._watch.is_on_arrays = False


_PRODUCT = re.compile(
    r"mm(?![aiy])|mv(?!l)|conv(?!ert)|linear|matmul|dot|inner|einsum|lstm|gru|rnn|attention"
    r"|transformer|bilinear$"
)
_OF_VECTORS = re.compile(r"mv|dot|inner|einsum")
_ELEMENTWISE = {"mul", "multiply", "div", "divide", "addcmul"}
_KNOWN_PACKAGES = {"aten", "prim", "prims", "profiler", "torchvision"}


def _factors(operation: str, args: Sequence[Any]) -> Iterable[Any]:
    """The arguments of a product that are multiplied: tensors, and weights packed in objects."""
    if "add" in operation:
        args = args[1:]
    elif "conv" in operation:
        args = args[:2]
    elif "scaled_dot_product" in operation:
        args = args[:3]  # a mask follows
    return [
        leaf for leaf in tree_leaves(list(args)) if isinstance(leaf, Tensor | torch.ScriptObject)
    ]


def _tensors(values: Any) -> Iterator[Tensor]:
    return (leaf for leaf in tree_leaves(values) if isinstance(leaf, Tensor))


def _written(func: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Iterator[Tensor]:
    """Tensors that an operation changes in place."""
    schema = func._schema
    if schema.is_mutable:
        for number, argument in enumerate(schema.arguments):
            if argument.alias_info is not None and argument.alias_info.is_write:
                given = args[number] if number < len(args) else kwargs.get(argument.name)
                yield from _tensors(given)


def _storage(tensor: Tensor) -> int:
    """Identity of the memory of a tensor, equal for tensors that share it."""
    try:
        return int(tensor.untyped_storage()._cdata)
    except (NotImplementedError, RuntimeError):  # sparse, packed
        return id(tensor)


def _compare(expected: Any, found: Any, depends_on_input: bool) -> None:
    if not depends_on_input:
        raise ValueError(
            "The network's output does not depend on its input by operations of torch; a forward "
            "pass through other libraries cannot be followed: write it with torch."
        )
    if differs := difference(expected, found):
        raise ValueError(
            "The network with its layers on arrays does not compute what the network does; the "
            f"outputs differ {differs}. Its forward depends on more of an analog layer than its "
            "output (hooks, patched methods, its type); change that, or keep the layer digital."
        )


def difference(expected: Any, found: Any) -> str:
    """Say how outputs differ by more than `TOLERANCE`; "" if they do not."""
    for wanted, got in zip(_tensors(expected), _tensors(found), strict=False):
        wanted, got = wanted.double(), got.double()
        finite = wanted[wanted.isfinite()].abs()
        largest = float(finite.max()) if finite.numel() else 0.0
        if wanted.shape == got.shape and torch.allclose(
            got, wanted, rtol=0, atol=TOLERANCE * largest, equal_nan=True
        ):
            continue
        if wanted.shape != got.shape:
            return f"in shape: {tuple(got.shape)} instead of {tuple(wanted.shape)}"
        return f"by {float((got - wanted).abs().max()):.3g} where the largest is {largest:.3g}"
    return ""
