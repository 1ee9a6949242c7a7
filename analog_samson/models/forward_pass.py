"""Check that a network with its layers on arrays computes the same as the digital network.

A copy whose analog layers are replaced, as both engines replace them, runs the inputs given. All
its ATen operations are recorded: which tensors depend on the input, and which products have a
factor that does not. Such a factor is a weight; outside an analog layer it must be named in
`keep_digital`. Operations that are neither known products nor known to be none are refused if they
combine what depends on the input with a constant of two or more dimensions.

If values came from outside torch (numpy, lists, another thread), were read as Python numbers, or if
both factors of a product depend on the input, the copy runs a second, different input: values from
outside must not change with it, and factors must.

Limits: only the branches taken for these inputs are checked, and a weight to which a visible part
of the input is added (w + 0.01 * x.sum()) is not recognised as one.
"""

import contextlib
import copy
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple, cast

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from analog_samson.models.auditing import (
    LayerAudit,
    analog_layers,
    in_few_lines,
    is_kept,
    named_tensors,
    patterns_of,
    quoted,
)
from analog_samson.models.calibration import evaluating
from analog_samson.models.packing import Packing
from analog_samson.models.replacing import replace_everywhere
from analog_samson.models.tracking import track_modules

TOLERANCE = 1e-4
"""Largest allowed difference of outputs, relative to the largest output: our choice, 100 times the
effect of another order of summation in fp32 in deep networks."""


def any_input(
    image_shape: Sequence[int], n_tokens: int = 0, packing: Packing | None = None
) -> Tensor:
    """Return one input of a shape, as a batch (1, ...): normal noise, always the same.

    Where `n_tokens` is positive inputs are tokens, and it is the size of their vocabulary. Of a
    network of several inputs `packing` says which ones are tokens.

    Example:
        >>> any_input((1, 8, 8)).shape, any_input((16,), n_tokens=500).dtype
        (torch.Size([1, 1, 8, 8]), torch.int64)
    """
    draws = torch.Generator().manual_seed(0)
    if packing is not None:
        return packing.any_input(draws).reshape(1, *image_shape)
    if n_tokens:
        return torch.randint(n_tokens, (1, *image_shape), generator=draws)
    return torch.randn(1, *image_shape, generator=draws)


@torch.no_grad()
def check_forward(
    network: nn.Module, image: Tensor, keep_digital: Sequence[str] = ()
) -> list[LayerAudit]:
    """Check that a copy with its layers on arrays computes the same as the network.

    Runs one forward pass of the network and one or two of the copy, without autocast.

    Args:
        network: The network; its modes and buffers, and torch's random state, are restored.
        image: One or a few network inputs, shape (n, ...).
        keep_digital: As in `audit`.

    Returns:
        The factors of elementwise products that do not depend on the input (gains, layer scales)
        and are computed digitally: one entry per factor, `n_weights` its number of elements.

    Raises:
        ValueError: If a product or convolution has a factor that does not depend on the input and
            is neither an analog layer nor kept digital (each is named), values take a path outside
            torch, it uses autocast, its outputs are random or depend on earlier calls, the network
            or the copy cannot run, or the outputs differ.

    Example:
        >>> check_forward(model, images[:1])  # no factors outside the arrays
        []
    """
    like = next(iter(analog_layers(network, keep_digital).values())).weight
    assert isinstance(like, Tensor)  # an analog layer has one
    inputs = image.to(like if image.is_floating_point() else like.device)
    watch = _Watch(keep_digital)
    accelerators = [inputs.device] if inputs.device.type == "cuda" else []
    with evaluating(network), torch.autocast(inputs.device.type, enabled=False):
        with torch.random.fork_rng(accelerators):
            try:
                expected = network(inputs.clone())
            except Exception as error:  # whatever the network's own code raises
                raise ValueError(
                    f"The network does not run inputs of shape {tuple(inputs.shape)} and type "
                    f"{inputs.dtype} ({type(error).__name__}: {error}); give images as it was "
                    "trained on."
                ) from error
        twin = watch.follow(network)  # copied after a call: what a call changes gives other outputs
        found = _run(watch, twin, inputs, accelerators)
        watch.raise_if_silent()
        if difference(expected, found):
            with torch.random.fork_rng(accelerators):
                _advance(inputs.device)
                again = network(inputs.clone())
            if differs := difference(expected, again):
                raise ValueError(
                    "The digital network gives different outputs for the same input; they differ "
                    f"{differs}. Make its forward deterministic in evaluation mode: no random "
                    "numbers, and nothing that one call changes for the next."
                )
        _compare(expected, found, any(watch.depends_on_input(t) for t in _tensors(found)))
        watch.note_outputs(found)
        if watch.needs_another_input:
            first = watch.seen
            other = _run(watch, twin, _another(inputs), accelerators)
            watch.note_outputs(other)
            watch.compare(first)
            watch.raise_if_silent()
    return watch.elementwise()


def _run(watch: "_Watch", twin: nn.Module, inputs: Tensor, accelerators: Sequence[Any]) -> Any:
    """Outputs of the copy, recorded, with other random numbers than the network's."""
    watch.start(inputs)
    with torch.random.fork_rng(accelerators):
        _advance(inputs.device)
        with watch, watch.knowing_where():
            try:
                return twin(inputs)
            except Exception as error:  # whatever the network's own code raises
                raise ValueError(
                    "The network does not run with its layers on arrays "
                    f"({type(error).__name__}: {error}). Its forward may only call analog layers "
                    "with one tensor, not read their weights or attributes; keep those it reads "
                    "digital (keep_digital)."
                ) from error


def _advance(device: torch.device) -> None:
    """Move torch's random state on."""
    torch.rand(1)
    torch.rand(1, device=device)


def _another(inputs: Tensor) -> Tensor:
    """Inputs within the range of the given ones, and different from them."""
    other = inputs.flip(-1)
    other = 0.75 * other if inputs.is_floating_point() else other
    return torch.full_like(inputs, 1) if torch.equal(other, inputs) else other


class _Seen(NamedTuple):
    """A tensor that is compared between inputs, to find whether it depends on them.

    Attributes:
        tensor: Its value.
        description: Where it is used.
        name: A name for keep_digital.
        is_outside: Whether it came from outside torch, and should not change; a factor should.
    """

    tensor: Tensor
    description: str
    name: str
    is_outside: bool


class _Watch(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Tracks which tensors depend on the input, and records products with other tensors."""

    def __init__(self, keep_digital: Sequence[str]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.is_on_arrays = False
        self.seen: list[_Seen] = []
        self._reads_numbers = False  # Python numbers, of what depends on the input
        self._transforms = False  # by a Fourier transform
        self._uses_autocast = False
        self._keep_digital = keep_digital
        self._where: list[Sequence[str]] = [("",)]
        self._names: dict[int, Sequence[str]] = {}  # of modules, by id
        self._held: list[Any] = []  # keeps tensors alive, so that ids stay unique
        self._fed: set[int] = set()
        self._from_arrays: set[int] = set()  # outputs of analog layers, each alone
        self._origins: dict[int, frozenset[str]] = {}  # of tensors, by storage
        self._silent: dict[str, str] = {}  # {description of a product: name for keep_digital}
        self._factors: dict[str, LayerAudit] = {}

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        return False  # True, torch's default, imports torch._dynamo: seconds

    def start(self, inputs: Tensor) -> None:
        """Begin a forward pass of an input."""
        self._hold(inputs)
        self._fed, self._from_arrays, self.seen = {_storage(inputs)}, set(), []

    @property
    def needs_another_input(self) -> bool:
        """Whether only a second input shows what depends on the input."""
        return bool(self.seen) or self._reads_numbers

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

    def knowing_where(self) -> contextlib.AbstractContextManager[None]:
        """Track, within a block, which module of the network runs."""
        return track_modules(self._names, self._where)

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        given = list(_tensors((args, kwargs)))
        self._note_outside(given)
        self.note_autocast()
        fed = any(map(self.depends_on_input, given))
        written = list(_written(func, args, kwargs))
        if fed and not self.is_on_arrays:
            self._look(func, args, kwargs, written)
        out = func(*args, **kwargs)
        origins = frozenset().union(*map(self._origin, given))
        is_from_arrays = len(given) == 1 and _storage(given[0]) in self._from_arrays
        for tensor in (*_tensors(out), *written):
            self._hold(tensor)
            if fed:
                self._fed.add(_storage(tensor))
            else:
                self._origins[_storage(tensor)] = self._origin(tensor) | origins
            if is_from_arrays:
                self._from_arrays.add(_storage(tensor))
            elif self._reads_numbers and origins and not fed and not self.is_on_arrays:
                self._see_outside(tensor)
        return out

    def note_autocast(self) -> None:
        """Remember whether autocast is on."""
        self._uses_autocast |= any(map(torch.is_autocast_enabled, ("cpu", "cuda")))

    def note_from_arrays(self, outputs: Tensor) -> None:
        """Remember the outputs of an analog layer."""
        self._from_arrays.add(_storage(outputs))

    def note_outputs(self, outputs: Any) -> None:
        """Remember the outputs of the network that came from outside torch."""
        self._note_outside(_tensors(outputs))

    def compare(self, first: Sequence[_Seen]) -> None:
        """Compare with the same values of another input, as far as the same branches ran.

        Raises:
            ValueError: If a value from outside torch depends on the input.
        """
        for one, other in zip(first, self.seen, strict=False):
            a, b = one.tensor, other.tensor
            if (one.description, a.shape, a.dtype) != (other.description, b.shape, b.dtype):
                return
            is_same = torch.allclose(a, b, rtol=0, atol=0, equal_nan=True)
            if one.is_outside and not is_same:
                raise ValueError(
                    f"{one.description} uses values that depend on the input on a path outside "
                    "torch (numpy, lists, Python numbers or another thread), which cannot be "
                    "followed: write it with torch, in one thread."
                )
            if not one.is_outside and is_same and bool(a.any()):
                self._silent[one.description] = one.name

    def _note_outside(self, tensors: Iterable[Tensor]) -> None:
        for tensor in tensors:
            key = _storage(tensor)
            if key not in self._fed and key not in self._origins:
                self._hold(tensor)
                self._origins[key] = frozenset()
                self._see_outside(tensor)

    def _see_outside(self, tensor: Tensor) -> None:
        is_real = tensor.is_floating_point() or tensor.is_complex()
        place = self._where[-1]
        if is_real and tensor.layout == torch.strided and not is_kept(place, self._keep_digital):
            kept = tensor.detach().clone()
            self.seen.append(_Seen(kept, f"Module {quoted(place[0])}", place[0], is_outside=True))

    def depends_on_input(self, tensor: Tensor) -> bool:
        """Whether a tensor was computed from the input."""
        return _storage(tensor) in self._fed

    def raise_if_silent(self) -> None:
        """Raise ValueError if a weight would stay digital without being in `keep_digital`."""
        if self._uses_autocast:
            raise ValueError(
                "The network's forward uses autocast; chips compute in fp32: remove it, or disable "
                "it (torch.autocast(..., enabled=False))."
            )
        if not self._silent:
            return
        known = [name for names in self._names.values() for name in names]
        wanted = ", ".join(map(repr, patterns_of(dict.fromkeys(self._silent.values(), ""), known)))
        raise ValueError(
            f"{len(self._silent)} product(s) have a factor that does not depend on the input and "
            f"is no analog layer:{in_few_lines(list(self._silent))}. Make each a "
            "Linear, Conv1d or Conv2d that is called and registered as an attribute or in a "
            "ModuleList, or keep it digital: "
            f"keep_digital=[{wanted}]."
        )

    def elementwise(self) -> list[LayerAudit]:
        """The factors of elementwise products."""
        return list(self._factors.values())

    def _hold(self, tensor: Tensor) -> None:
        self._held.append(tensor)

    def _origin(self, tensor: Tensor) -> frozenset[str]:
        return self._origins.get(_storage(tensor), frozenset())

    def _look(
        self, func: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any], written: Sequence[Tensor]
    ) -> None:
        package, operation = func._schema.name.split("::")
        plain = operation.rstrip("_")
        self._transforms |= "_fft_" in operation
        if operation == "_local_scalar_dense":
            self._reads_numbers |= args[0].is_floating_point()
        if plain in _ELEMENTWISE:
            for tensor in _tensors(args):
                if self.depends_on_input(tensor):
                    continue
                if self._is_a_product(tensor, [t for t in _tensors(args) if t is not tensor]):
                    self._refuse_unless_kept(operation, tensor)
                else:
                    self._count(tensor)
            return
        if not _PRODUCT.search(operation) and package in _KNOWN_PACKAGES:
            if not _NO_PRODUCT.fullmatch(plain):
                outputs = {id(tensor) for tensor in written}
                for tensor in _tensors((args, kwargs)):
                    is_weight = _is_matrix(tensor) and id(tensor) not in outputs
                    if is_weight and not self.depends_on_input(tensor):
                        self._refuse_unless_kept(operation, tensor)
            return
        smallest = 1 if _OF_VECTORS.search(operation) else 2
        factors = _factors(operation, args)
        for factor in factors:
            if isinstance(factor, Tensor) and factor.ndim < smallest:
                continue
            if isinstance(factor, Tensor) and self.depends_on_input(factor):
                self._see_factor(operation, factor)
            else:
                self._refuse_unless_kept(operation, factor)

    def _is_a_product(self, constant: Tensor, others: Sequence[Tensor]) -> bool:
        """Whether an elementwise product is part of a product of matrices.

        It is if the input is repeated along a dimension of the constant and not along another, or
        in the frequency domain.
        """
        if not _is_matrix(constant):
            return False
        if constant.is_complex() and self._transforms:
            return True
        for other in others:
            shape = (1,) * (constant.ndim - other.ndim) + other.shape
            pairs = list(zip(reversed(constant.shape), reversed(shape), strict=False))
            is_repeated = any(own > 1 and size == 1 for own, size in pairs)
            is_shared = any(own > 1 and size > 1 for own, size in pairs)
            if self.depends_on_input(other) and is_repeated and is_shared:
                return True
        return False

    def _see_factor(self, operation: str, factor: Tensor) -> None:
        place = self._where[-1]
        is_hidden = factor.layout == torch.strided and _storage(factor) not in self._from_arrays
        if is_hidden and not is_kept(place, self._keep_digital):
            text = (
                f"{quoted(place[0])} multiplies ({operation}) by a "
                f"{' x '.join(map(str, factor.shape))} tensor that is the same for two inputs"
            )
            self.seen.append(_Seen(factor, text, place[0], is_outside=False))

    def _refuse_unless_kept(self, operation: str, factor: Any) -> None:
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
        text = f"{quoted(place)} multiplies ({operation}) by {what}"
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
        self._watch.note_autocast()
        self._watch.is_on_arrays = True
        try:
            outputs = cast(Tensor, kind.forward(layer, x))
            self._watch.note_from_arrays(outputs)
            return outputs
        finally:
            self._watch.is_on_arrays = False


_PRODUCT = re.compile(
    r"mm(?![aiy])|mv(?!l)|conv(?!ert)|linear|matmul|dot|inner|einsum|lstm|gru|rnn|attention"
    r"|transformer|bilinear$"
)
_OF_VECTORS = re.compile(r"mv|dot|inner|einsum")
_ELEMENTWISE = {"mul", "multiply", "div", "divide", "addcmul"}
_NO_PRODUCT = re.compile(
    r"(_foreach_)?(add|sub|rsub|maximum|minimum|fmax|fmin|clamp(_min|_max)?|lerp|pow|copy)"
    r"|where|masked_\w+|_?copy\w*|cat|concat|stack|_?index\w*|_unsafe_index\w*|gather|scatter\w*"
    r"|\w+_scatter|take|embedding|embedding_renorm|grid_sampler\w*|\w*(layer|group|batch|rms)_norm"
    r"|_prelu_kernel|prelu|(eq|ne|lt|le|gt|ge|equal|isclose|logical_\w+|bitwise_\w+)"
    r"|atan2|hypot|copysign|heaviside|remainder|fmod|floor_divide|logaddexp2?|xlogy|special_\w+"
    r"|bucketize|searchsorted|fill|set|expand_as|type_as|broadcast_tensors|\w+_like|polar|complex"
)
"""Operations on several tensors that multiply by none of them, or by numbers only."""
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


def _is_matrix(tensor: Tensor) -> bool:
    """Whether a tensor holds real or complex numbers along two dimensions or more."""
    is_real = tensor.is_floating_point() or tensor.is_complex()
    return is_real and sum(size > 1 for size in tensor.shape) >= 2


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
    """Describe how outputs differ by more than `TOLERANCE`; "" if they do not."""
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
