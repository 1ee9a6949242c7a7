"""A study of methods: which training makes networks robust on analog memory?

A folder with ``protocol.toml`` becomes a comparison: strengths are chosen by a grid search on
validation samples, then all methods are trained on new seeds, and each network is evaluated as soon
as it is trained. Any number of processes, also on machines that share the folder, train different
networks of one study; what comes out is what one process makes. Changed settings are refused.
"""

from analog_samson.methods_study.checking import check_studies
from analog_samson.methods_study.definition import NEEDED, MethodsStudy
from analog_samson.methods_study.evaluating import (
    add_protocol,
    add_training_curves,
    evaluate,
    keep,
)
from analog_samson.methods_study.running import run
from analog_samson.methods_study.tables import replace_rows, writing
from analog_samson.methods_study.training import train_and_validate

__all__ = [
    "NEEDED",
    "MethodsStudy",
    "add_protocol",
    "add_training_curves",
    "check_studies",
    "evaluate",
    "keep",
    "replace_rows",
    "run",
    "train_and_validate",
    "writing",
]
