"""Effects of the periphery that device files name: functions before and after the products.

An effect is a section (``devices.EffectSection``) and one implementation an engine: called with the
section, each gives an :class:`Effect`.
"""

import functools
from typing import Any

from torch import Tensor

from analog_samson.devices import Periphery
from analog_samson.importing import import_callable


class Effect:
    """What an effect makes of normalised inputs and outputs, number by number.

    Both functions are deterministic and elementwise: an input of 0 stays 0, since padding is added
    before or after, by engine. An implementation overrides one of them or both.
    """

    def inputs(self, x: Tensor) -> Tensor:
        """Inputs of the arrays behind the DAC, in units of its range: -1 to 1."""
        return x

    def outputs(self, y: Tensor) -> Tensor:
        """Outputs of the arrays, in units of weight x input, before output noise and ADC."""
        return y


def effects_of(periphery: Periphery, engine: str) -> tuple[Effect, ...]:
    """Build the effects of a periphery, in the order of the device file.

    Args:
        periphery: The section of the device file.
        engine: "aihwkit" or "compiled".

    Raises:
        ValueError: If what a section names cannot be imported, or gives no effect.
    """
    found = []
    for section in periphery.effects:
        name = section.implementation(engine)
        effect = import_callable(name, "effect of the periphery")(section)
        if not isinstance(effect, Effect):
            raise ValueError(
                f"{name!r} gave a {type(effect).__name__}; an implementation of an effect gives an "
                "analog_samson.analog.Effect."
            )
        found.append(effect)
    return tuple(found)


class WithEffects:
    """Products of aihwkit's torch tile with effects: takes the place of its ``AnalogMVM``."""

    def __init__(self, effects: tuple[Effect, ...]) -> None:
        self._effects = effects

    def matmul(self, *arguments: Any, **options: Any) -> Tensor:
        """What aihwkit computes, with the effects around the product."""
        product: Tensor = _mvm_with(self._effects).matmul(*arguments, **options)
        return product


@functools.lru_cache(maxsize=16)
def _mvm_with(effects: tuple[Effect, ...]) -> Any:
    from aihwkit.simulator.tiles.analog_mvm import AnalogMVM

    class MVM(AnalogMVM):  # type: ignore[misc]
        @classmethod
        def _matmul(cls, weight: Tensor, input_: Tensor, trans: bool = False) -> Tensor:
            for effect in effects:
                input_ = effect.inputs(input_)
            product: Tensor = super()._matmul(weight, input_, trans)
            for effect in effects:
                product = effect.outputs(product)
            return product

    return MVM
