"""A study: trained networks on devices over time, from a question to a table.

One trial is one chip. The stream of a chip derives from (study seed, training seed, chip number):
every method meets the same chips, so gains are paired, and networks of different training seeds
meet other chips, so that they are independent samples. Nothing else enters: adding a time, a
method, a worker or another order changes no other number.
"""

from analog_samson.study.collection import TRIALS_FILE, collect, collect_until, unfinished
from analog_samson.study.definition import NUMERICS_VERSION, Study, Trial
from analog_samson.study.files import load_study
from analog_samson.study.planning import Estimate, estimate
from analog_samson.study.trial import run_trial
from analog_samson.study.waterfall import layer_sensitivity, waterfall

__all__ = [
    "NUMERICS_VERSION",
    "TRIALS_FILE",
    "Estimate",
    "Study",
    "Trial",
    "collect",
    "collect_until",
    "estimate",
    "layer_sensitivity",
    "load_study",
    "run_trial",
    "unfinished",
    "waterfall",
]
