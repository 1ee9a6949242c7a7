"""Training: a specification in, a checkpoint out, the same one every time.

Every draw comes from a seed derived from the specification's, by purpose and epoch, so a training
that was killed and resumed ends at the weights of one that never was, and two methods with one seed
start at the same weights and see the same batches.
"""

from analog_samson.algorithm import Algorithm, Batch, Setting
from analog_samson.checkpoint import METHODS
from analog_samson.training.grid import (
    GRID_COLUMNS,
    SCORES,
    ValidationAccuracy,
    choose_strengths,
    grid,
    read_option,
    train_grid,
    validation_accuracy,
)
from analog_samson.training.loop import N_RANGE_IMAGES, DivergedError, train
from analog_samson.training.state import LOG_COLUMNS

__all__ = [
    "GRID_COLUMNS",
    "LOG_COLUMNS",
    "METHODS",
    "N_RANGE_IMAGES",
    "SCORES",
    "Algorithm",
    "Batch",
    "DivergedError",
    "Setting",
    "ValidationAccuracy",
    "choose_strengths",
    "grid",
    "read_option",
    "train",
    "train_grid",
    "validation_accuracy",
]
