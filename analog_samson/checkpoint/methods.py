"""The training methods by name, as far as a specification needs to know them."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any


@dataclass(frozen=True)
class Method:
    """How a training method works, as far as its specification needs to know.

    Attributes:
        summary: One sentence.
        strength: The field of `TrainingSpec` that holds its strength; empty without one.
        options: Further fields that this method reads, with the values it takes by default.
        gradient_evaluations: Backward passes per step.
    """

    summary: str
    strength: str
    options: Mapping[str, Any]
    gradient_evaluations: int


# The default options are those of the authors' code (see the docstrings in perturbation.py and
# losses.py); the strength has no default, because it is what is compared.
METHODS: Mapping[str, Method] = MappingProxyType(
    {
        "sgd": Method("The optimizer alone.", "", {}, 1),
        "sam": Method("Worst case in a ball of radius rho.", "rho", {}, 2),
        "asam": Method(
            "Worst case relative to |w|.", "rho", {"eta": 0.01, "dialect": "authors"}, 2
        ),
        "samson": Method(
            "Worst case relative to |w| and to the range of the layer.",
            "rho",
            {"eta": 0.01, "p": math.inf, "perturb_norm_and_bias": True},
            2,
        ),
        "rwp": Method(
            "Random weight perturbation.",
            "sigma",
            {"noise_scale": "filter_max", "drop_share": 0.0},
            1,
        ),
        "arwp": Method(
            "Random weight perturbation, smaller where gradients were large.",
            "sigma",
            {"eta": 0.1, "fisher_decay": 0.99},
            1,
        ),
        "noise_injection": Method(
            "Gaussian noise relative to the largest weight of a layer, weights clipped.",
            "sigma",
            {"noise_scale": "layer_max", "drop_share": 0.0, "clip_weights": 2.0},
            1,
        ),
        "hardware_aware": Method(
            "Noise of a device on the weights, sigma times as large as it is; some are dropped.",
            "sigma",
            {"device": "pcm_like", "drop_share": 0.01, "clip_weights": 2.0},
            1,
        ),
        "saf": Method(
            "Penalty on departing from the network's own earlier outputs.",
            "trajectory_weight",
            {"temperature": 5.0, "trajectory_start": 0.3, "trajectory_lag": 2},
            1,
        ),
        "mesa": Method(
            "Penalty on departing from the outputs of a moving average of the network.",
            "trajectory_weight",
            {"temperature": 5.0, "trajectory_start": 0.3, "teacher_decay": 0.9995},
            1,
        ),
    }
)
EXTERNAL = "external"
"""Marks networks trained elsewhere."""

STRENGTHS = ("rho", "sigma", "trajectory_weight")
METHOD_OPTIONS = tuple(sorted({name for m in METHODS.values() for name in m.options}))
