"""Small transformers: one for images, one that predicts characters."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn


def vit_tiny(
    image_shape: Sequence[int],
    n_classes: int,
    *,
    patch: int = 4,
    width: int = 96,
    depth: int = 4,
    heads: int = 3,
    mlp_ratio: float = 2.0,
    dropout: float = 0.0,
) -> nn.Module:
    """Vision transformer for small images, after ViT-Lite (Hassani et al., arXiv:2104.05704).

    ViT-Lite-6/4 has this patch and ratio, six layers of four heads and a width of 256; the smaller
    size is our choice, so that an epoch of CIFAR-10 takes less than a minute on two cores.
    Normalisation comes first; a class token and learned positions. The published recipe is AdamW
    with a learning rate of 5e-4 and a weight decay of 3e-2 over 200 epochs.

    Args:
        image_shape: Channels, height and width; multiples of the patch.
        n_classes: Number of outputs.
        patch: Side of a patch [pixels].
        width: Channels of a token.
        depth: Encoder layers.
        heads: Attention heads of a layer.
        mlp_ratio: Hidden channels of the feed-forward part / width.
        dropout: Probability in training.

    Raises:
        ValueError: If the image cannot be divided into patches.
    """
    channels, height, columns = image_shape
    if height % patch or columns % patch:
        raise ValueError(
            f"vit_tiny divides images into patches of {patch} x {patch} pixels; got {height} x "
            f"{columns}: choose another patch."
        )
    n_patches = height * columns // patch**2
    return _VisionTransformer(
        nn.Conv2d(channels, width, patch, stride=patch),
        n_patches,
        _encoder(width, depth, heads, mlp_ratio, dropout),
        nn.Linear(width, n_classes),
    )


class _VisionTransformer(nn.Module):
    def __init__(
        self, patches: nn.Conv2d, n_patches: int, encoder: nn.TransformerEncoder, head: nn.Linear
    ) -> None:
        super().__init__()
        width = head.in_features
        self.patches = patches
        self.class_token = nn.Parameter(torch.zeros(1, 1, width))
        self.positions = nn.Parameter(0.02 * torch.randn(1, 1 + n_patches, width))
        self.encoder = encoder
        self.head = head

    def forward(self, x: Tensor) -> Tensor:
        tokens = self.patches(x).flatten(2).transpose(1, 2)
        tokens = torch.cat([self.class_token.expand(len(x), -1, -1), tokens], dim=1)
        return self.head(self.encoder(tokens + self.positions)[:, 0])  # type: ignore[no-any-return]


def char_transformer(
    image_shape: Sequence[int],
    n_classes: int,
    *,
    width: int = 128,
    depth: int = 4,
    heads: int = 4,
    dropout: float = 0.0,
) -> nn.Module:
    """Causal transformer that predicts the next token at every position, as GPT-2.

    The network of nanoGPT's recipe for Shakespeare's characters on a CPU (github.com/karpathy/
    nanoGPT: 4 layers of 4 heads, width 128, windows of 64, AdamW with a learning rate of 1e-3):
    normalisation first, learned positions, no biases; the output layer has the weights of the
    embedding, and arrays of its own.

    Args:
        image_shape: (length of a window,), the longest that it takes.
        n_classes: Size of the vocabulary.
        width: Channels of a token.
        depth: Layers.
        heads: Attention heads of a layer.
        dropout: Probability in training.

    Returns:
        A network from tokens, int64 of shape (n, length), to logits, (n, length, vocabulary).
    """
    (length,) = image_shape
    return _CharTransformer(n_classes, length, _encoder(width, depth, heads, 4.0, dropout, False))


class _CharTransformer(nn.Module):
    mask: Tensor

    def __init__(self, n_tokens: int, length: int, encoder: nn.TransformerEncoder) -> None:
        super().__init__()
        layers: nn.ModuleList = encoder.layers
        width = layers[0].linear1.in_features  # type: ignore[union-attr]
        self.embedding = nn.Embedding(n_tokens, width)  # type: ignore[arg-type]
        self.positions = nn.Parameter(0.02 * torch.randn(length, width))  # type: ignore[arg-type]
        self.encoder = encoder
        self.head = nn.Linear(width, n_tokens, bias=False)  # type: ignore[arg-type]
        self.head.weight = self.embedding.weight
        nn.init.normal_(self.embedding.weight, std=0.02)
        mask = nn.Transformer.generate_square_subsequent_mask(length)
        self.register_buffer("mask", mask, persistent=False)

    def forward(self, tokens: Tensor) -> Tensor:
        length = tokens.shape[1]
        x = self.embedding(tokens) + self.positions[:length]
        return self.head(self.encoder(x, mask=self.mask[:length, :length]))  # type: ignore[no-any-return]


def _encoder(
    width: int, depth: int, heads: int, mlp_ratio: float, dropout: float, bias: bool = True
) -> nn.TransformerEncoder:
    """Layers with normalisation first; initialised as GPT-2, residual outputs by depth."""
    layer = nn.TransformerEncoderLayer(
        width,
        heads,
        int(width * mlp_ratio),
        dropout,
        "gelu",
        batch_first=True,
        norm_first=True,
        bias=bias,
    )
    norm = nn.LayerNorm(width, bias=bias)
    encoder = nn.TransformerEncoder(layer, depth, norm, enable_nested_tensor=False)
    for name, weight in encoder.named_parameters():
        if weight.ndim == 2:
            is_last = name.endswith(("out_proj.weight", "linear2.weight"))
            nn.init.normal_(weight, std=0.02 / math.sqrt(2 * depth) if is_last else 0.02)
    return encoder
