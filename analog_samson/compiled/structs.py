"""Data shared by Python and the C library: constants of a periphery and ``struct layer``."""

import ctypes
from typing import NamedTuple

import torch
from torch import Tensor

from analog_samson.devices.array import LARGEST_CELL_S, WIRE_OHM, Periphery

_WIRE_TO_CELL = 1 / WIRE_OHM / LARGEST_CELL_S
"""Conductance of the wire between two cells / conductance of the largest weight (aihwkit)."""
_FINEST_INPUT = 0.25
"""Products are repeated while a DAC step is at most this share of an input (max_bm_res)."""
_MOST_HALVINGS = 1000.0


class Walk(NamedTuple):
    """How a kernel moves over its input; the first fields of ``struct layer`` in C."""

    height: int
    width: int
    channels: int
    out_height: int
    out_width: int
    kernel_height: int
    kernel_width: int
    stride_y: int
    stride_x: int
    top: int
    left: int
    dilation_y: int
    dilation_x: int
    groups: int
    columns: int
    inputs_an_image: int


class Constants(NamedTuple):
    """Constants of a periphery, in DAC and ADC steps; last fields of ``struct layer`` in C."""

    input_range: float
    """Input range of the DAC, model units; 0: per-vector input scaling."""
    step: float
    levels: float
    most_halvings: float
    """Largest factor by which bound management reduces inputs; 0: no bound management."""
    output_noise: float
    output_levels: float
    largest_fit: float
    """Outputs of larger magnitude are clipped, ADC steps."""
    read_variance: float
    """Factor of sum |w| x^2, in steps."""
    additive_variance: float
    """Factor of sum x^2, in steps."""
    drop: float
    current: float
    """Factor of rows * sum |w| |x|, which gives the current of a column."""
    rounds: float


def constants(periphery: Periphery, input_range: float, dac_step: float, adc_step: float) -> Tensor:
    """Collect the constants of a periphery.

    Args:
        periphery: The periphery.
        input_range: Largest input, model units; used where the range is calibrated.
        dac_step: Step of the DAC, normalised; 0: ideal.
        adc_step: Step of the ADC, normalised; 0: ideal.

    Returns:
        The fields of :class:`Constants` as one tensor on the CPU.
    """
    dac, adc = dac_step or 1.0, adc_step or 1.0
    additive = periphery.mvm_read_noise_kind == "additive"
    managed = periphery.bound_management == "iterative"
    finest = _FINEST_INPUT / dac_step if dac_step else _MOST_HALVINGS
    variance = periphery.mvm_read_noise**2
    output_levels = periphery.output_bound / adc
    # aihwkit compares in single precision: the last level itself may lie above the bound
    level = torch.tensor(1 / (2 * output_levels)) * (2 * periphery.output_bound)
    is_above = adc_step > 0 and bool(round(output_levels) * level > periphery.output_bound)
    values = Constants(
        input_range=0.0 if periphery.input_scaling == "per_vector" else input_range,
        step=dac_step,
        levels=round(1 / dac),
        most_halvings=min(finest, _MOST_HALVINGS) if managed else 0.0,
        output_noise=periphery.output_noise / adc,
        output_levels=output_levels,
        largest_fit=output_levels - is_above / 2,
        read_variance=0.0 if additive else variance * dac / adc,
        additive_variance=variance * (dac / adc) ** 2 if additive else 0.0,
        drop=periphery.ir_drop,
        current=adc / _WIRE_TO_CELL,
        rounds=float(adc_step > 0),
    )
    return torch.tensor(values)


class Layer(ctypes.Structure):
    """``struct layer`` of ``per_vector.c``; :func:`check` compares the two."""

    _fields_ = [
        *((name, ctypes.c_int64) for name in Walk._fields),
        ("n_row_blocks", ctypes.c_int64),
        ("n_column_blocks", ctypes.c_int64),
        ("row_blocks", ctypes.POINTER(ctypes.c_int64)),
        ("column_blocks", ctypes.POINTER(ctypes.c_int64)),
        *((name, ctypes.c_void_p) for name in ("weights", "places", "scales", "offsets")),
        ("keys", ctypes.POINTER(ctypes.c_uint64)),
        *((name, ctypes.c_float) for name in Constants._fields),
    ]


def check(built: ctypes.CDLL) -> None:
    """Compare :class:`Layer` with the struct that the C library was built with.

    Raises:
        RuntimeError: If the size or the offset of a field differs.
    """
    ours = [ctypes.sizeof(Layer), *(getattr(Layer, name).offset for name, *_ in Layer._fields_)]
    theirs = (ctypes.c_int64 * len(ours))()
    count = built.layer_layout(theirs, len(ours))
    if count != len(ours) or list(theirs) != ours:
        raise RuntimeError(
            f"struct layer in per_vector.c has the layout {list(theirs)} ({count} numbers: its "
            f"size, then the offset of each field); Python's copy has {ours}. Give both the same "
            "fields in the same order."
        )
