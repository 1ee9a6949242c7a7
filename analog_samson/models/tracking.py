"""Which module of a network runs."""

import contextlib
from collections.abc import Iterator, Mapping
from typing import TypeVar

from torch import nn
from torch.nn.modules import module as torch_modules

Name = TypeVar("Name")


@contextlib.contextmanager
def track_modules(names: Mapping[int, Name], where: list[Name]) -> Iterator[None]:
    """Append, within a block, the name of each module while it runs.

    Args:
        names: Names of modules, by `id`; others are ignored. Read at each call.
        where: Receives the names; the last one is that of the innermost module.
    """

    def enter(module: nn.Module, _: object) -> None:
        if id(module) in names:
            where.append(names[id(module)])

    def leave(module: nn.Module, *_: object) -> None:
        if id(module) in names:
            where.pop()

    before = torch_modules.register_module_forward_pre_hook(enter)
    after = torch_modules.register_module_forward_hook(leave, always_call=True)
    try:
        yield
    finally:
        before.remove()
        after.remove()
