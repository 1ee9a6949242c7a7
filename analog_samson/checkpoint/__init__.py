"""Checkpoints: one safetensors file per trained network, with the specification in its header.

`TrainingSpec` describes completely how a network was trained. `Checkpoint` adds the
weights and what later steps need without loading the data again: the input ranges of its analog
layers, the normalisation, the digital accuracy. Nothing is pickled.
"""

from analog_samson.checkpoint.files import (
    FORMAT_VERSION,
    Checkpoint,
    load_checkpoint,
    load_state,
    named_packages,
    read_specification,
    read_tensors,
    save_checkpoint,
    write_tensors,
)
from analog_samson.checkpoint.header import ChipHeader, check_header
from analog_samson.checkpoint.specification import AIHWKIT_TWIN, TrainingSpec
from analog_samson.methods import EXTERNAL, METHODS, Method

__all__ = [
    "AIHWKIT_TWIN",
    "EXTERNAL",
    "FORMAT_VERSION",
    "METHODS",
    "Checkpoint",
    "ChipHeader",
    "Method",
    "TrainingSpec",
    "check_header",
    "load_checkpoint",
    "load_state",
    "named_packages",
    "read_specification",
    "read_tensors",
    "save_checkpoint",
    "write_tensors",
]
