"""Our rules: one entry each."""

from torch import nn

from analog_samson.models.rewriting.padding import padded_digitally
from analog_samson.models.rewriting.rule import Rewrite
from analog_samson.models.rewriting.transposed import zeros_inserted

RULES: tuple[Rewrite, ...] = (
    Rewrite((nn.Conv1d, nn.Conv2d), padded_digitally),
    Rewrite((nn.ConvTranspose1d, nn.ConvTranspose2d), zeros_inserted),
)
"""The first rule that takes a layer rewrites it."""
