"""Small networks by name; those for small images are here."""

import itertools
import math
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from analog_samson.models.keyword_spotting import ds_cnn, keyword_lstm
from analog_samson.models.recurrent_networks import char_lstm
from analog_samson.models.transformers import char_transformer, vit_tiny

ImageShape = tuple[int, int, int]


def mlp(image_shape: ImageShape, n_classes: int, *, hidden: Sequence[int] = (64, 64)) -> nn.Module:
    """Fully connected network with ReLU; layers `fc1`, `fc2`, ...

    Args:
        image_shape: Channels, height and width.
        n_classes: Number of outputs.
        hidden: Widths of the hidden layers (two of 64: our choice, enough for `digits`).
    """
    widths = [math.prod(image_shape), *hidden, n_classes]
    layers: OrderedDict[str, nn.Module] = OrderedDict(flatten=nn.Flatten())
    for number, (n_in, n_out) in enumerate(itertools.pairwise(widths), start=1):
        if number > 1:
            layers[f"relu{number - 1}"] = nn.ReLU()
        layers[f"fc{number}"] = nn.Linear(n_in, n_out)
    return nn.Sequential(layers)


def lenet5(image_shape: ImageShape, n_classes: int) -> nn.Module:
    """LeNet-5 (LeCun et al., Proc. IEEE 1998).

    With ReLU, max pooling and all maps connected, as is usual now. The original takes 32 x 32
    pixels; 28 x 28 are padded by two in the first layer, which is equivalent. For the 8 x 8 pixels
    of `digits` the kernels are 3 x 3 with a padding of one; numbers of maps and units are equal.

    Args:
        image_shape: Channels, height and width: 8 x 8, 28 x 28 or 32 x 32.
        n_classes: Number of outputs.

    Raises:
        ValueError: If the images have another size.
    """
    sizes = {(8, 8): (3, 1, 1, 2), (28, 28): (5, 2, 0, 5), (32, 32): (5, 0, 0, 5)}
    channels, *size = image_shape
    if tuple(size) not in sizes:
        raise ValueError(
            f"lenet5 takes images of 8 x 8, 28 x 28 or 32 x 32 pixels; got {size[0]} x {size[1]}."
        )
    kernel, padding1, padding2, side = sizes[size[0], size[1]]
    return nn.Sequential(
        OrderedDict(
            conv1=nn.Conv2d(channels, 6, kernel, padding=padding1),
            relu1=nn.ReLU(),
            pool1=_MaxPool2x2(),
            conv2=nn.Conv2d(6, 16, kernel, padding=padding2),
            relu2=nn.ReLU(),
            pool2=_MaxPool2x2(),
            flatten=nn.Flatten(),
            fc1=nn.Linear(16 * side * side, 120),
            relu3=nn.ReLU(),
            fc2=nn.Linear(120, 84),
            relu4=nn.ReLU(),
            fc3=nn.Linear(84, n_classes),
        )
    )


class _MaxPool2x2(nn.MaxPool2d):
    """`MaxPool2d(2)` with the same results, faster on CPUs if there are no gradients."""

    def __init__(self) -> None:
        super().__init__(2)

    def forward(self, x: Tensor) -> Tensor:
        if torch.is_grad_enabled() or x.shape[-1] % 2 or x.shape[-2] % 2:
            return F.max_pool2d(x, 2)
        rows = torch.maximum(x[..., 0::2, :], x[..., 1::2, :])
        return torch.maximum(rows[..., 0::2], rows[..., 1::2])


class _PaddedShortcut(nn.Module):
    """Option A of He et al.: every second pixel, and zeros for the new channels; no parameters."""

    def __init__(self, n_new: int, stride: int) -> None:
        super().__init__()
        self.n_new = n_new
        self.stride = stride

    def forward(self, x: Tensor) -> Tensor:
        x = x[:, :, :: self.stride, :: self.stride]
        return F.pad(x, (0, 0, 0, 0, self.n_new // 2, self.n_new - self.n_new // 2))


class _BasicBlock(nn.Module):
    """Two 3 x 3 convolutions and a shortcut around them."""

    def __init__(self, n_in: int, n_out: int, stride: int, shortcut: str) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(n_in, n_out, 3, stride=stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(n_out)
        self.conv2 = nn.Conv2d(n_out, n_out, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(n_out)
        self.downsample: nn.Module | None = None
        if stride != 1 or n_in != n_out:
            self.downsample = (
                _PaddedShortcut(n_out - n_in, stride)
                if shortcut == "A"
                else nn.Sequential(
                    nn.Conv2d(n_in, n_out, 1, stride=stride, bias=False), nn.BatchNorm2d(n_out)
                )
            )

    def forward(self, x: Tensor) -> Tensor:
        shortcut = x if self.downsample is None else self.downsample(x)
        y = F.relu(self.bn1(self.conv1(x)))
        y = self.bn2(self.conv2(y))
        return F.relu(y + shortcut)


class _ResNet(nn.Module):
    """A 3 x 3 stem, groups of basic blocks (all but the first halve the image), mean, `fc`."""

    def __init__(
        self, n_channels: int, n_classes: int, widths: Sequence[int], n_blocks: int, shortcut: str
    ) -> None:
        super().__init__()
        if shortcut not in ("A", "B"):
            raise ValueError(f"shortcut must be 'A' or 'B'; got {shortcut!r}.")
        self.conv1 = nn.Conv2d(n_channels, widths[0], 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(widths[0])
        self.groups = len(widths)
        n_in = widths[0]
        for group, width in enumerate(widths, start=1):
            blocks = []
            for block in range(n_blocks):
                stride = 2 if group > 1 and block == 0 else 1
                blocks.append(_BasicBlock(n_in, width, stride, shortcut))
                n_in = width
            setattr(self, f"layer{group}", nn.Sequential(*blocks))
        self.fc = nn.Linear(n_in, n_classes)
        _initialise(self)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.bn1(self.conv1(x)))
        for group in range(1, self.groups + 1):
            x = getattr(self, f"layer{group}")(x)
        return self.fc(x.mean(dim=(2, 3)))  # type: ignore[no-any-return]


def resnet8(
    image_shape: ImageShape, n_classes: int, *, width: int = 16, shortcut: str = "A"
) -> nn.Module:
    """ResNet-8 for CIFAR: as `resnet20`, one block in each group; shortcuts of option A."""
    return _ResNet(image_shape[0], n_classes, (width, 2 * width, 4 * width), 1, shortcut)


def resnet20(
    image_shape: ImageShape, n_classes: int, *, width: int = 16, shortcut: str = "A"
) -> nn.Module:
    """ResNet-20 for CIFAR (He et al., CVPR 2016, section 4.2), shortcuts of option A.

    Args:
        image_shape: Channels, height and width (any size; three groups, of which two halve it).
        n_classes: Number of outputs.
        width: Channels of the first group, twice and four times as many in the others.
        shortcut: "A" (every second pixel, zeros for new channels, no weights: the paper's choice on
            CIFAR) or "B" (1 x 1 convolution and BatchNorm, as many published CIFAR networks have).
    """
    return _ResNet(image_shape[0], n_classes, (width, 2 * width, 4 * width), 3, shortcut)


def resnet32(
    image_shape: ImageShape, n_classes: int, *, width: int = 16, shortcut: str = "A"
) -> nn.Module:
    """ResNet-32 for CIFAR: as `resnet20`, five blocks in each group; shortcuts of option A."""
    return _ResNet(image_shape[0], n_classes, (width, 2 * width, 4 * width), 5, shortcut)


def resnet18(
    image_shape: ImageShape, n_classes: int, *, width: int = 64, shortcut: str = "B"
) -> nn.Module:
    """ResNet-18 (He et al., CVPR 2016) with the CIFAR stem; shortcuts of option B.

    The stem is 3 x 3 with stride 1 and no pooling. The layers are named as torchvision names them.

    Args:
        image_shape: Channels, height and width (any size; four groups, of which three halve it).
        n_classes: Number of outputs.
        width: Channels of the first group; 2, 4 and 8 times as many in the others.
        shortcut: "A" or "B", as in `resnet20`.
    """
    widths = (width, 2 * width, 4 * width, 8 * width)
    return _ResNet(image_shape[0], n_classes, widths, 2, shortcut)


def vgg11_bn(image_shape: ImageShape, n_classes: int) -> nn.Module:
    """VGG-11 with BatchNorm (Simonyan and Zisserman, ICLR 2015) for CIFAR.

    One linear layer instead of three.

    Args:
        image_shape: Channels, height and width, at least 32 x 32: five poolings halve it.
        n_classes: Number of outputs.

    Raises:
        ValueError: If the images are too small.
    """
    if min(image_shape[1:]) < 32:
        raise ValueError(
            "vgg11_bn takes images of at least 32 x 32 pixels; "
            f"got {image_shape[1]} x {image_shape[2]}."
        )
    layers: list[nn.Module] = []
    n_in = image_shape[0]
    for width in (64, 0, 128, 0, 256, 256, 0, 512, 512, 0, 512, 512, 0):
        if not width:
            layers.append(_MaxPool2x2())
            continue
        layers += [nn.Conv2d(n_in, width, 3, padding=1), nn.BatchNorm2d(width), nn.ReLU()]
        n_in = width
    model = nn.Sequential(
        OrderedDict(
            features=nn.Sequential(*layers),
            pool=nn.AdaptiveAvgPool2d(1),
            flatten=nn.Flatten(),
            classifier=nn.Linear(n_in, n_classes),
        )
    )
    _initialise(model)
    return model


class _InvertedResidual(nn.Module):
    """Expand by 1 x 1, filter each channel by 3 x 3, project by 1 x 1; a shortcut if shapes fit."""

    def __init__(self, n_in: int, n_out: int, stride: int, expansion: int) -> None:
        super().__init__()
        n_hidden = n_in * expansion
        layers: OrderedDict[str, nn.Module] = OrderedDict()
        if expansion != 1:
            layers["expand"] = _conv_bn(n_in, n_hidden, 1)
        layers["depthwise"] = _conv_bn(n_hidden, n_hidden, 3, stride=stride, groups=n_hidden)
        layers["project"] = _conv_bn(n_hidden, n_out, 1, relu=False)
        self.conv = nn.Sequential(layers)
        self.has_shortcut = stride == 1 and n_in == n_out

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.conv(x)
        return x + y if self.has_shortcut else y


def mobilenet_v2(image_shape: ImageShape, n_classes: int, *, width: float = 1.0) -> nn.Module:
    """MobileNetV2 (Sandler et al., CVPR 2018) for CIFAR.

    The stem and the second stage keep the image size. Every channel of a depthwise convolution is
    an array of its own (`ANALOG_KINDS`).

    Args:
        image_shape: Channels, height and width (three stages halve it).
        n_classes: Number of outputs.
        width: Multiplies the number of channels of every stage.
    """

    def scaled(channels: int) -> int:
        return max(8, round(channels * width / 8) * 8)

    stages = (
        (1, 16, 1, 1),
        (6, 24, 2, 1),
        (6, 32, 3, 2),
        (6, 64, 4, 2),
        (6, 96, 3, 1),
        (6, 160, 3, 2),
        (6, 320, 1, 1),
    )  # expansion, channels, blocks, stride: table 2 of the paper, the second stage's stride 1 here
    n_in = scaled(32)
    stem = _conv_bn(image_shape[0], n_in, 3)
    blocks: list[nn.Module] = []
    for expansion, channels, n_blocks, stride in stages:
        for block in range(n_blocks):
            n_out = scaled(channels)
            blocks.append(_InvertedResidual(n_in, n_out, stride if block == 0 else 1, expansion))
            n_in = n_out
    n_last = max(1280, scaled(1280))
    model = nn.Sequential(
        OrderedDict(
            stem=stem,
            blocks=nn.Sequential(*blocks),
            head=_conv_bn(n_in, n_last, 1),
            pool=nn.AdaptiveAvgPool2d(1),
            flatten=nn.Flatten(),
            classifier=nn.Linear(n_last, n_classes),
        )
    )
    _initialise(model)
    return model


MODELS: Mapping[str, Callable[..., nn.Module]] = MappingProxyType(
    {
        factory.__name__: factory
        for factory in (
            mlp, lenet5, resnet8, resnet20, resnet32, resnet18, vgg11_bn, mobilenet_v2,
            ds_cnn, keyword_lstm, vit_tiny, char_lstm, char_transformer,
        )
    }
)  # fmt: skip
"""The networks by name; each takes (image_shape, n_classes, **options).

`char_lstm` and `char_transformer` take windows of tokens, all others images.
"""


def _conv_bn(
    n_in: int, n_out: int, kernel: int, *, stride: int = 1, groups: int = 1, relu: bool = True
) -> nn.Sequential:
    conv = nn.Conv2d(
        n_in, n_out, kernel, stride=stride, padding=kernel // 2, groups=groups, bias=False
    )
    layers = OrderedDict(conv=conv, bn=nn.BatchNorm2d(n_out))
    return nn.Sequential(OrderedDict(**layers, relu=nn.ReLU6()) if relu else layers)


def _initialise(model: nn.Module) -> None:
    """Convolutions as in He et al., ICCV 2015 (fan out); linear layers as in torch."""
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
            if module.bias is not None:
                nn.init.zeros_(module.bias)
