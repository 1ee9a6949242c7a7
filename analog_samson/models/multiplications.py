"""Multiplications of a forward pass, counted where they happen."""

import contextlib
from collections import defaultdict
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from analog_samson.models.calibration import evaluating
from analog_samson.models.tracking import track_modules


class Multiplications(NamedTuple):
    """Multiplications of one module, or with one tensor of its own, for one input.

    Attributes:
        products: In products of matrices and convolutions.
        elementwise: In elementwise products and normalisations.

    Example:
        >>> Multiplications(products=640, elementwise=10).all
        650
    """

    products: int
    elementwise: int

    @property
    def all(self) -> int:
        """Both together."""
        return self.products + self.elementwise


@torch.no_grad()
def multiplications(network: nn.Module, image: Tensor) -> dict[str, Multiplications]:
    """Count the multiplications of a digital network.

    Args:
        network: The network; left as it was.
        image: One input, shape (1, ...).

    Returns:
        {dotted name of a module, or of a parameter or buffer that multiplies element by element:
        its multiplications}; those of a module without those inside it. A module has an entry only
        if it multiplies.

    Example:
        >>> multiplications(nn.Sequential(nn.Linear(64, 10)), images[:1].flatten(1))
        {'0': Multiplications(products=640, elementwise=0)}
    """
    like = next(network.parameters())
    image = image.to(like if image.is_floating_point() else like.device)
    count = _Count(network)
    # torch's fast paths and oneDNN's recurrent layers are single operations
    fast = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    mkldnn: Any = torch.backends.mkldnn  # torch has no types for it
    had_mkldnn = mkldnn.set_flags(_enabled=False)[0]
    try:
        with (
            torch.random.fork_rng([]),
            evaluating(network),
            count,
            count.knowing_where(),
        ):
            network(image)
    finally:
        torch.backends.mha.set_fastpath_enabled(fast)
        mkldnn.set_flags(_enabled=had_mkldnn)
    names = dict.fromkeys([*count.products, *count.elementwise])
    return {name: Multiplications(count.products[name], count.elementwise[name]) for name in names}


class _Count(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Counts the multiplications of operations, by module or tensor."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.products: dict[str, int] = defaultdict(int)
        self.elementwise: dict[str, int] = defaultdict(int)
        self._modules = {id(module): name for name, module in network.named_modules()}
        named = [*network.named_parameters(), *network.named_buffers()]
        self._tensors = {tensor.untyped_storage()._cdata: name for name, tensor in named}
        self._where = [""]

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        return False  # True, torch's default, imports torch._dynamo: seconds

    def knowing_where(self) -> contextlib.AbstractContextManager[None]:
        """Track, within a block, which module of the network runs."""
        return track_modules(self._modules, self._where)

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        out = func(*args, **(kwargs or {}))
        operation = func._schema.name.split("::")[1].rstrip("_")
        if found := _of_product(operation, args, out):
            self.products[self._where[-1]] += found
        elif operation in ("mul", "multiply", "div", "divide", "addcmul") and _is_real(out):
            self.elementwise[self._owner(args)] += out.numel()
        elif "_norm" in operation and _is_real(args[0]) and args[0].ndim > 1:
            self.elementwise[self._where[-1]] += 2 * args[0].numel()  # by 1 / spread, and the gain
        return out

    def _owner(self, args: Sequence[Any]) -> str:
        """The tensor of the network that multiplies; else the module that runs."""
        for tensor in args:
            if isinstance(tensor, Tensor) and tensor.layout == torch.strided:
                name = self._tensors.get(tensor.untyped_storage()._cdata)
                if name is not None:
                    return name
        return self._where[-1]


def _is_real(out: Any) -> bool:
    return isinstance(out, Tensor) and out.is_floating_point()


def _of_product(operation: str, args: Sequence[Any], out: Any) -> int:
    """Multiplications of a product of matrices or a convolution; 0 for other operations."""
    if operation in ("mm", "bmm", "mv", "dot"):
        a, b = args[:2]
    elif operation in ("addmm", "baddbmm", "addmv", "addbmm"):
        a, b = args[1:3]
    elif operation == "convolution":
        x, weight, transposed = args[0], args[1], args[6]
        return int((x if transposed else out).numel() * weight[0].numel())
    elif "scaled_dot_product" in operation:
        q, k, v = args[:3]
        return int(q.numel() * k.shape[-2] + q[..., 0].numel() * v.shape[-2] * v.shape[-1])
    else:
        leaves = tree_leaves(list(args))
        is_linear = operation == "linear" and isinstance(leaves[1], Tensor)
        return int(out.numel() * leaves[1].shape[-1]) if is_linear else 0
    columns = b.shape[-1] if b.ndim > 1 else 1
    return int(a.numel() * columns)
