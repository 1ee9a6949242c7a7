"""Networks by name, and which of their layers can be mapped onto arrays.

The names build small networks whose sizes follow the image shape; `package.module:function` builds
any other. `audit` reports for every layer whether it is mapped onto arrays and, if not, why.
`analog_layers` raises an error for layers that cannot be mapped, unless they are named in
`keep_digital`: no layer stays digital unnoticed.
Layers of other kinds may be rewritten first: see `rewriting`.
"""

from analog_samson.models.auditing import (
    ANALOG_KINDS,
    LayerAudit,
    analog_layers,
    analog_share,
    audit,
)
from analog_samson.models.building import build_model, check_outputs, other_types
from analog_samson.models.calibration import check_weights, input_ranges, record_inputs
from analog_samson.models.clipping import clipped
from analog_samson.models.forward_pass import any_input, check_forward
from analog_samson.models.multiplications import Multiplications, multiplications
from analog_samson.models.networks import MODELS, ImageShape
from analog_samson.models.packing import Packing, packing_of, take_packed
from analog_samson.models.replacing import replace_everywhere
from analog_samson.models.rescaling import DigitalProducts
from analog_samson.models.rewriting import (
    RULES,
    Rewrite,
    Rewriting,
    layers_of_weights,
    rewrite,
    trained_weights,
)
from analog_samson.models.selecting import Output, check_output, one_tensor, select_output
from analog_samson.models.trained_arrays import (
    Range,
    held_ranges,
    hold_arrays,
    ranges_for,
    scales_for,
)

__all__ = [
    "ANALOG_KINDS",
    "MODELS",
    "RULES",
    "DigitalProducts",
    "ImageShape",
    "LayerAudit",
    "Multiplications",
    "Output",
    "Packing",
    "Range",
    "Rewrite",
    "Rewriting",
    "analog_layers",
    "analog_share",
    "any_input",
    "audit",
    "build_model",
    "check_forward",
    "check_output",
    "check_outputs",
    "check_weights",
    "clipped",
    "held_ranges",
    "hold_arrays",
    "input_ranges",
    "layers_of_weights",
    "multiplications",
    "one_tensor",
    "other_types",
    "packing_of",
    "ranges_for",
    "record_inputs",
    "replace_everywhere",
    "rewrite",
    "scales_for",
    "select_output",
    "take_packed",
    "trained_weights",
]
