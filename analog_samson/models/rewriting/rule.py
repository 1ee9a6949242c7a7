"""What a rule is."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch import nn


@dataclass(frozen=True)
class Rewrite:
    """How layers of some classes become layers that arrays can run.

    Attributes:
        kinds: The classes whose modules it takes; not classes derived from them, whose forward may
            compute something else.
        build: Returns the replacement of a module: a new module that computes the same, made of
            Linear, Conv1d and Conv2d layers and digital operations; or None where the rule does not
            apply. It must not change what it is given; parameters may be held by both, for the new
            module is copied.

    Example:
        >>> rule = Rewrite(kinds=(nn.Bilinear,), build=lambda layer: None)
        >>> rule.build(nn.Bilinear(2, 2, 1)) is None  # this rule does not apply to it
        True
    """

    kinds: tuple[type[nn.Module], ...]
    build: Callable[[Any], nn.Module | None]

    def __post_init__(self) -> None:
        """Refuse what is no rule.

        Raises:
            ValueError: If `kinds` is no tuple of module classes, or `build` cannot be called.
        """
        are_kinds = isinstance(self.kinds, tuple) and all(
            isinstance(kind, type) and issubclass(kind, nn.Module) for kind in self.kinds
        )
        if not (are_kinds and self.kinds and callable(self.build)):
            raise ValueError(
                "A Rewrite takes kinds, a tuple of classes of modules, and build, a function from "
                f"a module to a module; got kinds={self.kinds!r}, build={self.build!r}."
            )
