"""Networks by name, and what of a network can live on analog tiles.

The names build small networks whose sizes follow the image shape; `package.module:function` builds
any other. `audit` says of every layer whether it becomes tiles and, if not, why; `analog_layers`
turns that into an error unless the layer is named in `keep_digital`, so nothing stays digital in
silence. What becomes neither as it is may be rewritten first: see `rewriting`.
"""

from analog_samson.models.auditing import (
    ANALOG_KINDS,
    LayerAudit,
    analog_layers,
    analog_share,
    audit,
)
from analog_samson.models.building import build_model, check_outputs
from analog_samson.models.calibration import check_weights, input_ranges
from analog_samson.models.clipping import clipped
from analog_samson.models.forward_pass import any_input, check_forward
from analog_samson.models.networks import MODELS, ImageShape
from analog_samson.models.replacing import replace_everywhere
from analog_samson.models.rescaling import DigitalProducts
from analog_samson.models.rewriting import RULES, Rewrite, Rewriting, rewrite, trained_weights

__all__ = [
    "ANALOG_KINDS",
    "MODELS",
    "RULES",
    "DigitalProducts",
    "ImageShape",
    "LayerAudit",
    "Rewrite",
    "Rewriting",
    "analog_layers",
    "analog_share",
    "any_input",
    "audit",
    "build_model",
    "check_forward",
    "check_outputs",
    "check_weights",
    "clipped",
    "input_ranges",
    "replace_everywhere",
    "rewrite",
    "trained_weights",
]
