"""Effects of the periphery: functions of the inputs and outputs of the products.

An effect is a section (``devices.EffectSection``) and one implementation per engine; called with
the section, it returns an :class:`Effect`.
"""

import functools
from typing import Any

from torch import Tensor

from analog_samson.devices import Periphery
from analog_samson.importing import import_callable


class Effect:
    """Elementwise functions of normalised inputs and outputs.

    Both functions are deterministic. An input of 0 must stay 0: one engine pads before and the
    other after this function. An implementation overrides one of them or both.
    """

    def inputs(self, x: Tensor) -> Tensor:
        """Inputs of the arrays after the DAC, in units of its range: -1 to 1."""
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
        ValueError: If the object that a section names cannot be imported, or returns no `Effect`.
    """
    found = []
    for section in periphery.effects:
        name = section.implementation(engine)
        effect = import_callable(name, "effect of the periphery")(section)
        if not isinstance(effect, Effect):
            raise ValueError(
                f"{name!r} returned a {type(effect).__name__}; an implementation of an effect "
                "returns an analog_samson.analog.Effect."
            )
        found.append(effect)
    return tuple(found)


class WithEffects:
    """Products of aihwkit's torch tile with effects; replaces its ``AnalogMVM``."""

    def __init__(self, effects: tuple[Effect, ...]) -> None:
        self._effects = effects

    def matmul(self, *arguments: Any, **options: Any) -> Tensor:
        """Compute aihwkit's product, with the effects applied to its inputs and outputs."""
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
