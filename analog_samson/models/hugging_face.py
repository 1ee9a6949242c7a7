"""Networks of Hugging Face's `transformers`, by class and configuration, with random weights.

`transformers` is installed by the extra of that name; this module is imported only where it is
named: `model="analog_samson.models.hugging_face:network"`, and for GPT-2
`rewrites=["analog_samson.models.hugging_face:conv1d"]`.
"""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import transformers
from torch import nn
from transformers.pytorch_utils import Conv1D

from analog_samson.models.rewriting.linear import linear
from analog_samson.models.rewriting.rule import Rewrite


def network(kind: str, config: Mapping[str, Any] = MappingProxyType({})) -> nn.Module:
    """Build a network; take its output "logits".

    Args:
        kind: Class of `transformers`, such as "BertForSequenceClassification".
        config: Values of its configuration that differ from the default.

    Raises:
        ValueError: If there is no such class, or it has no configuration.
    """
    found: Any = getattr(transformers, kind, None)
    if getattr(found, "config_class", None) is None:
        raise ValueError(
            f"transformers has no network {kind!r}; name a class with a configuration, such as "
            "'BertForSequenceClassification' or 'GPT2LMHeadModel'."
        )
    made: nn.Module = found(found.config_class(use_cache=False, **config))
    return made


def _transposed(layer: Any) -> nn.Module:
    return linear(layer.weight.T, layer.bias)


conv1d = Rewrite((Conv1D,), _transposed)
"""GPT-2's linear layers, which hold their weights transposed."""
