"""Device files: one TOML file per device, validated and frozen, read without loading torch.

A device file holds the noise model of the memory cell and its constants, the periphery around the
array, how weights are mapped, how drift is compensated and at which times the model is valid. Units
are part of the key (``g_max_uS``, ``t_0_s``) and every section with numbers names its source, a key
of ``device_configs/references.bib``.
"""

from analog_samson.deprecated import old_names
from analog_samson.devices.array import (
    DriftCompensation,
    EffectSection,
    Faults,
    InputRanges,
    Periphery,
    Times,
    WeightMapping,
)
from analog_samson.devices.device import Device, validated
from analog_samson.devices.files import device_names, load_device
from analog_samson.devices.noise import (
    CustomDriftPCMLike,
    Hermes,
    Ideal,
    LogTime,
    NoiseSection,
    PCMLike,
    PiecewiseWeightError,
    PolynomialError,
    ReRAMCMO,
    ReRAMWan2022,
    Resampled,
    Sonos,
    StateIndependent,
    StretchedExponential,
    Tabulated,
    WeightNoise,
)
from analog_samson.devices.settings import SHORT_AXIS_NAMES
from analog_samson.devices.temperature import Temperature
from analog_samson.devices.variation import Variation

__all__ = [
    "SHORT_AXIS_NAMES",
    "CustomDriftPCMLike",
    "Device",
    "DriftCompensation",
    "EffectSection",
    "Faults",
    "Hermes",
    "Ideal",
    "InputRanges",
    "LogTime",
    "NoiseSection",
    "PCMLike",
    "Periphery",
    "PiecewiseWeightError",
    "PolynomialError",
    "ReRAMCMO",
    "ReRAMWan2022",
    "Resampled",
    "Sonos",
    "StateIndependent",
    "StretchedExponential",
    "Tabulated",
    "Temperature",
    "Times",
    "Variation",
    "WeightMapping",
    "WeightNoise",
    "device_names",
    "load_device",
    "validated",
]

__getattr__ = old_names(__name__, {"AXES": "SHORT_AXIS_NAMES"})
