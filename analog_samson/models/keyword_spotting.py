"""Networks that recognise spoken words."""

from collections import OrderedDict
from collections.abc import Sequence

from torch import Tensor, nn


def ds_cnn(
    image_shape: Sequence[int], n_classes: int, *, width: int = 64, n_blocks: int = 4
) -> nn.Module:
    """DS-CNN for keyword spotting (Zhang et al., "Hello Edge", arXiv:1711.07128), the small one.

    A convolution of 10 frames x 4 bands with stride 2, four depthwise separable convolutions of
    3 x 3, mean, `classifier`; BatchNorm and ReLU after every convolution. The paper has 49 frames
    of 10 MFCC features; any spectrogram with frames as columns is taken. Every channel of a
    depthwise convolution is an array of its own.

    Args:
        image_shape: 1, bands and frames of the spectrogram.
        n_classes: Number of outputs.
        width: Channels (172 and 276 in the paper's larger networks).
        n_blocks: Depthwise separable convolutions.
    """
    stem = nn.Conv2d(image_shape[0], width, (4, 10), stride=2, padding=(1, 4), bias=False)
    blocks = [
        nn.Sequential(
            OrderedDict(
                depthwise=_normed(nn.Conv2d(width, width, 3, padding=1, groups=width, bias=False)),
                pointwise=_normed(nn.Conv2d(width, width, 1, bias=False)),
            )
        )
        for _ in range(n_blocks)
    ]
    return nn.Sequential(
        OrderedDict(
            stem=_normed(stem),
            blocks=nn.Sequential(*blocks),
            pool=nn.AdaptiveAvgPool2d(1),
            flatten=nn.Flatten(),
            classifier=nn.Linear(width, n_classes),
        )
    )


def keyword_lstm(
    image_shape: Sequence[int], n_classes: int, *, width: int = 64, layers: int = 1
) -> nn.Module:
    """LSTM for keyword spotting: frames of a spectrogram one by one, mean of its outputs.

    As the LSTM of "Hello Edge" (Zhang et al., arXiv:1711.07128), without its projection; the mean
    over frames instead of the last one, since recordings end in silence.

    Args:
        image_shape: 1, bands and frames of the spectrogram.
        n_classes: Number of outputs.
        width: Units of a layer.
        layers: Layers.
    """
    if len(image_shape) != 3 or image_shape[0] != 1:
        raise ValueError(f"keyword_lstm takes 1 x bands x frames, not {tuple(image_shape)}")
    return _KeywordLSTM(image_shape[1], n_classes, width, layers)


class _KeywordLSTM(nn.Module):
    def __init__(self, n_bands: int, n_classes: int, width: int, layers: int) -> None:
        super().__init__()
        self.lstm = nn.LSTM(n_bands, width, layers, batch_first=True)
        self.classifier = nn.Linear(width, n_classes)

    def forward(self, spectrograms: Tensor) -> Tensor:
        frames = spectrograms.squeeze(1).transpose(1, 2)
        return self.classifier(self.lstm(frames)[0].mean(1))  # type: ignore[no-any-return]


def _normed(conv: nn.Conv2d) -> nn.Sequential:
    layers = OrderedDict(conv=conv, bn=nn.BatchNorm2d(conv.out_channels), relu=nn.ReLU())
    nn.init.kaiming_normal_(conv.weight, mode="fan_out", nonlinearity="relu")
    return nn.Sequential(layers)
