"""The noise sections of device files: one class a model of the memory cell."""

from typing import Annotated, Literal

import pydantic
from pydantic import Field, NonNegativeFloat, PositiveFloat

from analog_samson.devices.section import Scale, Section
from analog_samson.times import DAY


class NoiseSection(Section):
    """What the noise sections of all models have in common."""

    source: str = Field(description="key of references.bib")

    @property
    def has_programmed_state(self) -> bool:
        """Whether the model describes the devices right after programming (t = 0)."""
        return True

    @property
    def known_times_s(self) -> tuple[float, ...] | None:
        """The only times the model has data for; None: any."""
        return None

    @property
    def drifts(self) -> bool:
        """Whether anything changes with time."""
        return True


class Ideal(NoiseSection):
    """No noise of any kind: what is programmed is what is read, for ever."""

    model: Literal["Ideal"]
    source: str = "this project's reference device"
    g_max_uS: PositiveFloat = 25.0

    @property
    def drifts(self) -> bool:
        """Whether anything changes with time: no."""
        return False


class PCMLike(NoiseSection):
    """aihwkit's ``PCMLikeNoiseModel``: programming noise, power-law drift, 1/f noise."""

    model: Literal["PCMLikeNoiseModel"]
    g_max_uS: PositiveFloat = Field(description="conductance of the largest weight of a column")
    t_0_s: PositiveFloat = Field(description="first read after programming, drift fit")
    t_read_s: PositiveFloat = Field(description="duration of a read, 1/f fit")
    programming_noise_scale: Scale = 1.0
    read_noise_1f_scale: Scale = 1.0
    drift_scale: Scale = 1.0


class Hermes(NoiseSection):
    """aihwkit's ``HermesNoiseModel``: one or two devices a conductance, HERMES chip."""

    model: Literal["HermesNoiseModel"]
    devices_per_conductance: Literal[1, 2]
    g_max_uS: PositiveFloat
    t_0_s: PositiveFloat
    t_read_s: PositiveFloat
    programming_noise_scale: Scale = 1.0
    read_noise_1f_scale: Scale = 1.0
    drift_scale: Scale = 1.0

    @pydantic.model_validator(mode="after")
    def _characterised(self) -> "Hermes":
        largest = 20.7 if self.devices_per_conductance == 2 else 10.35
        if self.g_max_uS > largest:
            raise ValueError(
                f"g_max_uS = {self.g_max_uS} lies above {largest}, the largest conductance "
                f"characterised with {self.devices_per_conductance} device(s) a conductance"
            )
        return self


class ReRAMWan2022(NoiseSection):
    """aihwkit's ``ReRamWan2022NoiseModel``: spread around the target at three measured times."""

    model: Literal["ReRamWan2022NoiseModel"]
    g_max_uS: PositiveFloat
    g_max_reference_uS: PositiveFloat = Field(description="g_max of the published fit")
    times_share: Literal["one_normal_a_device", "independent"] = "one_normal_a_device"
    programming_noise_scale: Scale = 1.0

    @property
    def has_programmed_state(self) -> bool:
        """Whether the state right after programming was measured: no."""
        return False

    @property
    def known_times_s(self) -> tuple[float, ...]:
        """One second, one day and two days."""
        return (1.0, DAY, 2 * DAY)


class ReRAMCMO(NoiseSection):
    """aihwkit's ``ReRamCMONoiseModel``: one device a weight, no reference device."""

    model: Literal["ReRamCMONoiseModel"]
    g_min_uS: NonNegativeFloat
    g_max_uS: PositiveFloat
    acceptance_percent: float = Field(description="program-and-verify acceptance, 0.2 or 2.0")
    programming_noise_scale: Scale = 1.0
    read_noise_1f_scale: Scale = 1.0
    drift_scale: Scale = 1.0

    @pydantic.model_validator(mode="after")
    def _range(self) -> "ReRAMCMO":
        if self.acceptance_percent not in (0.2, 2.0):
            raise ValueError(
                f"acceptance_percent = {self.acceptance_percent} was not measured; "
                "allowed: 0.2 or 2"
            )
        if self.g_min_uS >= self.g_max_uS:
            raise ValueError(f"g_min_uS = {self.g_min_uS} must be below g_max_uS = {self.g_max_uS}")
        return self


Noise = Annotated[Ideal | PCMLike | Hermes | ReRAMWan2022 | ReRAMCMO, Field(discriminator="model")]
