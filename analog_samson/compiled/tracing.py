"""Tracing of a network by torch.compile, and its memory layout."""

import functools
import logging
from collections.abc import Callable, Hashable
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

_log = logging.getLogger(__name__)

_VIEWS = (torch.Tensor.view, torch.Tensor.view_as)


class Execution:
    """How a network runs; decided once for all its chips.

    Attributes:
        has_few_channels: Whether the kernels for few channels are used, channels outermost.
        channels_last: Whether channels are the innermost dimension of images.
        is_traced: Whether it is traced; None: not decided yet.
    """

    def __init__(self, has_few_channels: bool) -> None:
        self.has_few_channels = has_few_channels
        self.channels_last = not has_few_channels
        self.is_traced: bool | None = None


class LayoutObserver(TorchFunctionMode):
    """Records, within a block, what a forward pass requires of the memory layout.

    Attributes:
        pools: Whether torch's own two-dimensional pooling ran.
        needs_contiguous: Whether ``view`` was called with a shape that the layout does not allow.
            It is then replaced by ``reshape``, so that the pass can complete.
    """

    def __init__(self) -> None:
        super().__init__()
        self.pools = self.needs_contiguous = False

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.pools |= "pool2d" in getattr(func, "__name__", "")
        if func in _VIEWS and not kwargs and not isinstance(args[1], torch.dtype):
            x, *shape = args
            shape = shape[0].shape if isinstance(shape[0], Tensor) else shape
            out = x.reshape(*shape)
            memory = (tensor.untyped_storage().data_ptr() for tensor in (x, out))
            self.needs_contiguous |= len(set(memory)) > 1
            return out
        return func(*args, **(kwargs or {}))


class Runner:
    """Runs a network eagerly or traced.

    Args:
        network: The network.
        execution: How it runs.
        structure: Returns what its graph depends on.
    """

    def __init__(
        self, network: nn.Module, execution: Execution, structure: Callable[[], Hashable]
    ) -> None:
        self.network, self.execution = network, execution
        self._structure = structure
        self._traced: Callable[[nn.Module, Tensor], Tensor] | None = None

    def __getstate__(self) -> dict[str, Any]:
        """Leave the traced function out of pickles and copies; it is looked up again."""
        return vars(self) | {"_traced": None}

    def __call__(self, images: Tensor, prepare: Callable[[], None], eager: bool) -> Tensor:
        """Outputs of the network; ``prepare`` is called before each attempt."""
        prepare()
        if self.execution.channels_last and images.ndim == 4:
            images = images.contiguous(memory_format=torch.channels_last)
        if self.execution.is_traced and not eager:
            if self._traced is None:
                self._traced = _tracer((_modules(self.network), self._structure()))
            try:
                return self._traced(self.network, images)
            except Exception as error:  # data-dependent control flow, no compiler, ...
                _log.warning("Tracing failed, falling back to eager execution: %s", error)
                self.execution.is_traced = False
                prepare()
        outputs: Tensor = self.network(images)
        return outputs


def _modules(network: nn.Module) -> Hashable:
    """Names, kinds and settings of the modules of a network."""
    return tuple(
        (name, type(module), tuple(sorted(_settings(module))))
        for name, module in network.named_modules()
    )


def _settings(module: nn.Module) -> list[tuple[str, str]]:
    return [
        (key, repr(value))
        for key, value in vars(module).items()
        if isinstance(value, bool | int | float | str | tuple) and not key.startswith("_")
    ]


@functools.lru_cache(maxsize=32)
def _tracer(structure: Hashable) -> Callable[[nn.Module, Tensor], Tensor]:
    """The traced function of a structure; torch's guards ensure that its graphs fit.

    Each function has its own code object, because torch keeps at most eight graphs per code object.
    """

    def run(network: nn.Module, images: Tensor) -> Tensor:
        outputs: Tensor = network(images)
        return outputs

    run.__code__ = run.__code__.replace()
    return torch.compile(run, fullgraph=True, dynamic=False, options={"compile_threads": 1})
