"""Perturbations of the weights at which a training step computes its gradient.

A rule maps ({name: weight}, {name: gradient}) to {name: offset}. With the gradient g of a batch and
a diagonal scale T, SAM, ASAM and SAMSON are one formula,

    offset = rho * T^2 g / ||T g||_2        (one norm over all parameters)

    sam      T = 1                                          Foret et al., arXiv 2010.01412
    asam     T = |w| + eta                                  Kwon et al., arXiv 2102.11600
    samson   T = (|w| + eta) / ||w||_p, norm per tensor     Mordido et al., arXiv 2211.11561

and random weight perturbation (rwp) draws N(0, (sigma * scale)^2), independent of the gradient.
Names are those of `named_parameters()`; a parameter is a *weight* when one dot-component of its
name is "weight" (so a parametrised weight counts); biases and shifts are not.
"""

from analog_samson.algorithm import Tensors
from analog_samson.methods import DIALECTS, NOISE_SCALES
from analog_samson.perturbation.adaptive import AdaptiveRandomPerturbation
from analog_samson.perturbation.applying import (
    Rule,
    frozen_batch_norm,
    perturbed,
    random_states,
    set_random_states,
)
from analog_samson.perturbation.control import MicroRing
from analog_samson.perturbation.filters import filters_first, transposed_groups
from analog_samson.perturbation.optimizer import Perturbed
from analog_samson.perturbation.rules import (
    arwp,
    asam,
    drop_connect,
    is_weight,
    rwp,
    sam,
    samson,
    update_fisher,
)
from analog_samson.perturbation.schedules import SCHEDULES, strength_factor

__all__ = [
    "DIALECTS",
    "NOISE_SCALES",
    "SCHEDULES",
    "AdaptiveRandomPerturbation",
    "MicroRing",
    "Perturbed",
    "Rule",
    "Tensors",
    "arwp",
    "asam",
    "drop_connect",
    "filters_first",
    "frozen_batch_norm",
    "is_weight",
    "perturbed",
    "random_states",
    "rwp",
    "sam",
    "samson",
    "set_random_states",
    "strength_factor",
    "transposed_groups",
    "update_fisher",
]
