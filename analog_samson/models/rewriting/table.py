"""Our rules: one entry each."""

from torch import nn

from analog_samson.models.rewriting.attention import attention, decoder_layer, encoder_layer
from analog_samson.models.rewriting.padding import padded_digitally
from analog_samson.models.rewriting.recurrent import cell, unrolled
from analog_samson.models.rewriting.rule import Rewrite
from analog_samson.models.rewriting.transposed import zeros_inserted

RULES: tuple[Rewrite, ...] = (
    Rewrite((nn.Conv1d, nn.Conv2d), padded_digitally),
    Rewrite((nn.ConvTranspose1d, nn.ConvTranspose2d), zeros_inserted),
    Rewrite((nn.LSTM, nn.GRU, nn.RNN), unrolled),
    Rewrite((nn.LSTMCell, nn.GRUCell, nn.RNNCell), cell),
    Rewrite((nn.MultiheadAttention,), attention),
    Rewrite((nn.TransformerEncoderLayer,), encoder_layer),
    Rewrite((nn.TransformerDecoderLayer,), decoder_layer),
)
"""The first rule that takes a layer rewrites it."""
