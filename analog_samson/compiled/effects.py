"""A fixed-range periphery with effects that its device file names."""

import json

from torch import Tensor

from analog_samson.analog import effects_of
from analog_samson.compiled.computing import Pass
from analog_samson.compiled.mapped import MappedLayer
from analog_samson.compiled.static_range import StaticRange


class WithEffects(StaticRange):
    """Elementwise functions after the DAC, and before noise and ADC."""

    def __init__(self, mapped: MappedLayer) -> None:
        super().__init__(mapped)
        self._effects = effects_of(mapped.periphery, "compiled")
        sections = [effect.model_dump(mode="json") for effect in mapped.periphery.effects]
        self._described = json.dumps(sections, sort_keys=True)
        self._dac_step, self._adc_step = mapped.dac_step or 1.0, mapped.adc_step or 1.0

    @property
    def structure(self) -> tuple[object, ...]:
        """What a traced graph depends on in addition to shapes, including settings of effects."""
        return *super().structure, self._described, self._dac_step, self._adc_step

    def _inputs(self, levels: Tensor) -> Tensor:
        x = levels * self._dac_step
        for effect in self._effects:
            x = effect.inputs(x)
        return x / self._dac_step

    def _outputs(self, product: Tensor, levels: Tensor, block: int, now: Pass) -> Tensor:
        y = product * self._adc_step
        for effect in self._effects:
            y = effect.outputs(y)
        return y / self._adc_step
