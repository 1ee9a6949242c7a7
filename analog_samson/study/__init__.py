"""A study: trained networks on devices over time, from a question to a table.

One trial is one chip. The stream of a chip derives from (study seed, training seed, chip number):
every method meets the same chips, so gains are paired, and networks of different training seeds
meet other chips, so that they are independent samples. Nothing else enters: adding a time, a
method, a worker or another order changes no other number.
"""

from analog_samson.deprecated import old_names
from analog_samson.study.breakdown import accuracy_by_layer, accuracy_by_stage
from analog_samson.study.collection import TRIALS_FILE, collect, collect_until, unfinished
from analog_samson.study.cost import CostEstimate, estimate_cost
from analog_samson.study.definition import NUMERICS_VERSION, Study, Trial
from analog_samson.study.files import load_study
from analog_samson.study.trial import run_trial

__all__ = [
    "NUMERICS_VERSION",
    "TRIALS_FILE",
    "CostEstimate",
    "Study",
    "Trial",
    "accuracy_by_layer",
    "accuracy_by_stage",
    "collect",
    "collect_until",
    "estimate_cost",
    "load_study",
    "run_trial",
    "unfinished",
]

__getattr__ = old_names(
    __name__,
    {
        "Estimate": "CostEstimate",
        "estimate": "estimate_cost",
        "layer_sensitivity": "accuracy_by_layer",
        "waterfall": "accuracy_by_stage",
    },
)
