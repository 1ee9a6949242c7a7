"""How accurate is a network on analog memory, now and in a year?

Names are imported when they are first used: reading device files or drawing figures imports
neither torch nor aihwkit.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from analog_samson.analog import device_from as device_from
    from analog_samson.analog import rpu_config_of as rpu_config_of
    from analog_samson.chip import Chip as Chip
    from analog_samson.chip import program as program
    from analog_samson.devices import Device as Device
    from analog_samson.devices import load_device as load_device
    from analog_samson.perturbation import Perturbed as Perturbed
    from analog_samson.perturbation import perturbed as perturbed
    from analog_samson.results import read_trials as read_trials
    from analog_samson.results import score as score
    from analog_samson.results import summarise as summarise
    from analog_samson.study import Study as Study
    from analog_samson.study import collect as collect
    from analog_samson.training import checkpoint_from as checkpoint_from

__version__ = "0.1.0"

_HOMES = {
    "Chip": "chip",
    "Device": "devices",
    "Perturbed": "perturbation",
    "Study": "study",
    "checkpoint_from": "training",
    "collect": "study",
    "device_from": "analog",
    "load_device": "devices",
    "perturbed": "perturbation",
    "program": "chip",
    "read_trials": "results",
    "rpu_config_of": "analog",
    "score": "results",
    "summarise": "results",
}

__all__ = sorted([*_HOMES, "__version__"])


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return list(__all__)
