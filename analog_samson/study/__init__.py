"""A study: trained networks on devices over time.

One trial is one chip. The random seed of a chip derives from (study seed, training seed, chip
number): all methods share it, so gains are paired; it differs between training seeds, so that
networks are independent samples. Adding a time, a method or a worker, or another order, changes no
other number.
"""

from analog_samson.deprecated import old_names
from analog_samson.study.breakdown import accuracy_by_layer, accuracy_by_stage
from analog_samson.study.cells import clipping_counts, conductance_counts
from analog_samson.study.collection import TRIALS_FILE, collect, collect_until, unfinished
from analog_samson.study.cost import CostEstimate, estimate_cost
from analog_samson.study.definition import NUMERICS_VERSION, Primary, Study, Trial
from analog_samson.study.files import load_study, study_of_manifest
from analog_samson.study.requirements import estimate_tolerances, tolerances
from analog_samson.study.trial import run_trial

__all__ = [
    "NUMERICS_VERSION",
    "TRIALS_FILE",
    "CostEstimate",
    "Primary",
    "Study",
    "Trial",
    "accuracy_by_layer",
    "accuracy_by_stage",
    "clipping_counts",
    "collect",
    "collect_until",
    "conductance_counts",
    "estimate_cost",
    "estimate_tolerances",
    "load_study",
    "run_trial",
    "study_of_manifest",
    "tolerances",
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
