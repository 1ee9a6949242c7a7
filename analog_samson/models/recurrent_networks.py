"""A recurrent network that predicts characters."""

from collections.abc import Sequence

from torch import Tensor, nn


def char_lstm(
    image_shape: Sequence[int],
    n_classes: int,
    *,
    width: int = 128,
    layers: int = 2,
    dropout: float = 0.0,
) -> nn.Module:
    """LSTM that predicts the next token at every position.

    The network of char-rnn (github.com/karpathy/char-rnn: two layers of 128, windows of 50, batches
    of 50, a learning rate of 2e-3). An embedding, which is digital, stands for its one-hot inputs.

    Args:
        image_shape: (length of a window,); any length.
        n_classes: Size of the vocabulary.
        width: Units of a layer.
        layers: Layers.
        dropout: Probability in training, between layers.

    Returns:
        A network from tokens, int64 of shape (n, length), to logits, (n, length, vocabulary).
    """
    return _CharLSTM(n_classes, width, layers, dropout)


class _CharLSTM(nn.Module):
    def __init__(self, n_tokens: int, width: int, layers: int, dropout: float) -> None:
        super().__init__()
        self.embedding = nn.Embedding(n_tokens, width)
        self.lstm = nn.LSTM(width, width, layers, batch_first=True, dropout=dropout)
        self.head = nn.Linear(width, n_tokens)

    def forward(self, tokens: Tensor) -> Tensor:
        return self.head(self.lstm(self.embedding(tokens))[0])  # type: ignore[no-any-return]
