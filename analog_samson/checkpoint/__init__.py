"""What was trained and what came out of it: one safetensors file, the specification in its header.

`TrainingSpec` says how a network was trained, completely and in plain values. `Checkpoint` adds the
weights and what every later step needs to know without loading the data again: the input ranges of
its analog layers, the normalisation, the digital accuracy. Nothing here is pickled.
"""

from analog_samson.checkpoint.files import (
    FORMAT_VERSION,
    Checkpoint,
    load_checkpoint,
    load_state,
    named_packages,
    read_specification,
    read_tensors,
    replacing,
    save_checkpoint,
    write_tensors,
)
from analog_samson.checkpoint.header import ChipHeader, check_header
from analog_samson.checkpoint.specification import TrainingSpec
from analog_samson.methods import EXTERNAL, METHODS, Method

__all__ = [
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
    "replacing",
    "save_checkpoint",
    "write_tensors",
]
