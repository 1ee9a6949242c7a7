"""Reproducible training: from a specification to a checkpoint.

Every random stream is derived from the seed of the specification, by purpose and epoch. A training
that was interrupted and resumed therefore gives the same weights as one without interruption, and
two methods with equal seeds start at the same weights and use the same batches.
"""

from analog_samson.algorithm import Algorithm, Batch, Setting
from analog_samson.checkpoint import METHODS
from analog_samson.deprecated import old_names
from analog_samson.training.control import control_parameters
from analog_samson.training.evidence import evidence_of, expected_methods, tests_of
from analog_samson.training.grid import (
    CRITERIA,
    GRID_COLUMNS,
    ValidationAccuracy,
    choose_strengths,
    grid,
    read_option,
    train_grid,
    validation_accuracy,
)
from analog_samson.training.importing import checkpoint_from, checkpoint_of
from analog_samson.training.loop import N_RANGE_IMAGES, DivergedError, check_runs, train
from analog_samson.training.protocol import (
    OWN_PACKAGE,
    PROTOCOL_FILE,
    candidates,
    grid_seeds,
    load_protocol,
    methods_in,
)
from analog_samson.training.state import LOG_COLUMNS

__all__ = [
    "CRITERIA",
    "GRID_COLUMNS",
    "LOG_COLUMNS",
    "METHODS",
    "N_RANGE_IMAGES",
    "OWN_PACKAGE",
    "PROTOCOL_FILE",
    "Algorithm",
    "Batch",
    "DivergedError",
    "Setting",
    "ValidationAccuracy",
    "candidates",
    "check_runs",
    "checkpoint_from",
    "checkpoint_of",
    "choose_strengths",
    "control_parameters",
    "evidence_of",
    "expected_methods",
    "grid",
    "grid_seeds",
    "load_protocol",
    "methods_in",
    "read_option",
    "tests_of",
    "train",
    "train_grid",
    "validation_accuracy",
]

__getattr__ = old_names(__name__, {"SCORES": "CRITERIA"})
