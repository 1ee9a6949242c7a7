"""Attention and the layers of torch's transformers: projections on arrays, the rest digital.

The products of queries with keys, and of weights with values, multiply activations by activations:
they are digital. torch's fast paths, which read weights past the layers, are not taken.
"""

from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from analog_samson.models.rewriting.linear import linear


def attention(layer: nn.MultiheadAttention) -> nn.Module:
    """Rewrite `nn.MultiheadAttention` as `q_proj`, `k_proj`, `v_proj` and `out_proj`."""
    return Attention(layer)


def encoder_layer(layer: nn.TransformerEncoderLayer) -> nn.Module:
    """Rewrite the attention of `nn.TransformerEncoderLayer`; its linear layers stay."""
    return _EncoderLayer(layer)


def decoder_layer(layer: nn.TransformerDecoderLayer) -> nn.Module:
    """Rewrite both attentions of `nn.TransformerDecoderLayer`; its linear layers stay."""
    return _DecoderLayer(layer)


class Attention(nn.Module):
    """What `nn.MultiheadAttention` computes in evaluation mode."""

    in_proj_bias = None  # torch's encoder layers ask for it, and then take no fast path
    _qkv_same_embed_dim = False

    def __init__(self, layer: nn.MultiheadAttention) -> None:
        super().__init__()
        self.embed_dim, self.num_heads = layer.embed_dim, layer.num_heads
        self.head_dim, self.batch_first = layer.head_dim, layer.batch_first
        self.add_zero_attn = layer.add_zero_attn
        given = layer.q_proj_weight, layer.k_proj_weight, layer.v_proj_weight
        weights = layer.in_proj_weight.chunk(3) if layer._qkv_same_embed_dim else given
        bias = layer.in_proj_bias
        biases = (None, None, None) if bias is None else bias.chunk(3)
        self.q_proj, self.k_proj, self.v_proj = map(linear, weights, biases)
        self.out_proj = linear(layer.out_proj.weight, layer.out_proj.bias)
        self.bias_k, self.bias_v = layer.bias_k, layer.bias_v

    def forward(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        key_padding_mask: Tensor | None = None,
        need_weights: bool = True,
        attn_mask: Tensor | None = None,
        average_attn_weights: bool = True,
        is_causal: bool = False,
    ) -> tuple[Tensor, Tensor | None]:
        """As the layer that was rewritten; ``is_causal`` is only a hint at what the mask holds."""
        is_batched = query.ndim == 3
        if not is_batched:
            query, key, value = (x[None] for x in (query, key, value))
            key_padding_mask = None if key_padding_mask is None else key_padding_mask[None]
        elif not self.batch_first:
            query, key, value = (x.transpose(0, 1) for x in (query, key, value))
        out, weights = self.attend(query, key, value, key_padding_mask, attn_mask, need_weights)
        if weights is not None and average_attn_weights:
            weights = weights.mean(1)
        if not is_batched:
            return out[0], None if weights is None else weights[0]
        return (out if self.batch_first else out.transpose(0, 1)), weights

    def attend(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        key_padding_mask: Tensor | None = None,
        attn_mask: Tensor | None = None,
        need_weights: bool = False,
    ) -> tuple[Tensor, Tensor | None]:
        """Outputs and, if wanted, weights of all heads; the batch is first, as arrays need it."""
        k, v = self.k_proj(key), self.v_proj(value)
        mask = self._mask(attn_mask, key_padding_mask, len(query), query.dtype)
        if self.bias_k is not None and self.bias_v is not None:
            k = torch.cat([k, self.bias_k.expand(len(k), 1, -1)], 1)
            v = torch.cat([v, self.bias_v.expand(len(v), 1, -1)], 1)
            mask = None if mask is None else F.pad(mask, (0, 1))
        q, k, v = map(self._heads, (self.q_proj(query), k, v))
        if self.add_zero_attn:
            k, v = (F.pad(x, (0, 0, 0, 1)) for x in (k, v))
            mask = None if mask is None else F.pad(mask, (0, 1))
        weights = None
        if need_weights:
            scores = (q * self.head_dim**-0.5) @ k.mT
            weights = torch.softmax(scores if mask is None else scores + mask, -1)
            out = weights @ v
        else:
            out = F.scaled_dot_product_attention(q, k, v, mask)
        return self.out_proj(out.transpose(1, 2).flatten(2)), weights

    def _heads(self, x: Tensor) -> Tensor:
        """From (batch, tokens, channels) to (batch, heads, tokens, channels of a head)."""
        return x.reshape(*x.shape[:2], self.num_heads, self.head_dim).transpose(1, 2)

    def _mask(
        self, attention: Tensor | None, padding: Tensor | None, batch: int, dtype: torch.dtype
    ) -> Tensor | None:
        """Both masks as one that is added to the scores, shape (batch or 1, heads or 1, L, S)."""
        masks = []
        if attention is not None:
            whole = _added(attention, dtype)
            shape = (batch, self.num_heads) if attention.ndim == 3 else (1, 1)
            masks.append(whole.view(*shape, *whole.shape[-2:]))
        if padding is not None:
            masks.append(_added(padding, dtype)[:, None, None])
        return sum(masks[1:], masks[0]) if masks else None

    def extra_repr(self) -> str:
        """Heads and layout."""
        return f"num_heads={self.num_heads}, batch_first={self.batch_first}"


class _EncoderLayer(nn.TransformerEncoderLayer):
    """An encoder layer whose attention is rewritten; the batch is first in it."""

    def __init__(self, layer: nn.TransformerEncoderLayer) -> None:
        _take(self, layer, "self_attn")

    def forward(
        self,
        src: Tensor,
        src_mask: Tensor | None = None,
        src_key_padding_mask: Tensor | None = None,
        is_causal: bool = False,
    ) -> Tensor:
        """As the layer that was rewritten."""
        padding = src_key_padding_mask
        x, padding = _batch_first(src, self.self_attn.batch_first), _batched(padding, src)
        if self.norm_first:
            x = x + self._sa_block(self.norm1(x), src_mask, padding)
            x = x + self._ff_block(self.norm2(x))
        else:
            x = self.norm1(x + self._sa_block(x, src_mask, padding))
            x = self.norm2(x + self._ff_block(x))
        return _as_given(x, src, self.self_attn.batch_first)

    def _sa_block(self, x: Tensor, *masks: Any, **_: Any) -> Tensor:
        attn_mask, padding = masks
        return cast(Tensor, self.dropout1(_attend(self.self_attn, x, x, padding, attn_mask)))


class _DecoderLayer(nn.TransformerDecoderLayer):
    """A decoder layer whose attentions are rewritten; the batch is first in it."""

    def __init__(self, layer: nn.TransformerDecoderLayer) -> None:
        _take(self, layer, "self_attn", "multihead_attn")

    def forward(
        self,
        tgt: Tensor,
        memory: Tensor,
        tgt_mask: Tensor | None = None,
        memory_mask: Tensor | None = None,
        tgt_key_padding_mask: Tensor | None = None,
        memory_key_padding_mask: Tensor | None = None,
        tgt_is_causal: bool = False,
        memory_is_causal: bool = False,
    ) -> Tensor:
        """As the layer that was rewritten."""
        x, of = (_batch_first(given, self.self_attn.batch_first) for given in (tgt, memory))
        own = _batched(tgt_key_padding_mask, tgt), tgt_mask
        other = _batched(memory_key_padding_mask, tgt), memory_mask

        def itself(x: Tensor) -> Tensor:
            return cast(Tensor, self.dropout1(_attend(self.self_attn, x, x, *own)))

        def across(x: Tensor) -> Tensor:
            return cast(Tensor, self.dropout2(_attend(self.multihead_attn, x, of, *other)))

        if self.norm_first:
            x = x + itself(self.norm1(x))
            x = x + across(self.norm2(x))
            x = x + self._ff_block(self.norm3(x))
        else:
            x = self.norm1(x + itself(x))
            x = self.norm2(x + across(x))
            x = self.norm3(x + self._ff_block(x))
        return _as_given(x, tgt, self.self_attn.batch_first)


def _take(new: nn.Module, layer: nn.Module, *attentions: str) -> None:
    """Make a module hold what a layer holds, with its attentions rewritten."""
    nn.Module.__init__(new)
    own = vars(nn.Module())
    new.__dict__ |= {key: value for key, value in vars(layer).items() if key not in own}
    for name, child in layer.named_children():
        new.add_module(name, Attention(child) if name in attentions else child)  # type: ignore[arg-type]


def _added(mask: Tensor, dtype: torch.dtype) -> Tensor:
    """A mask as what is added to scores: a boolean one is True where nothing is attended to."""
    if mask.dtype != torch.bool:
        return mask.to(dtype)
    return torch.zeros_like(mask, dtype=dtype).masked_fill(mask, -torch.inf)


def _attend(attention: nn.Module, x: Tensor, other: Tensor, *masks: Tensor | None) -> Tensor:
    """Outputs for queries from one tensor, and keys and values from another."""
    padding, attn_mask = masks
    return cast(Attention, attention).attend(x, other, other, padding, attn_mask)[0]


def _batch_first(x: Tensor, is_first: bool) -> Tensor:
    if x.ndim == 2:
        return x[None]
    return x if is_first else x.transpose(0, 1)


def _batched(padding: Tensor | None, x: Tensor) -> Tensor | None:
    return padding[None] if padding is not None and x.ndim == 2 else padding


def _as_given(x: Tensor, given: Tensor, is_first: bool) -> Tensor:
    if given.ndim == 2:
        return x[0]
    return x if is_first else x.transpose(0, 1)
