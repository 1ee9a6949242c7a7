"""Networks by name, and what of a network can live on analog tiles.

The names build small networks whose sizes follow the image shape; `package.module:function` builds any other. `audit`
says of every layer whether it becomes tiles and, if not, why; `analog_layers` turns that into an error unless the layer
is named in `keep_digital`, so nothing stays digital in silence.
"""

import contextlib
import difflib
import importlib
import inspect
import math
from collections import OrderedDict, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.modules.batchnorm import _NormBase
from torch.nn.utils import parametrize

ImageShape = tuple[int, int, int]

ANALOG_KINDS: tuple[type[nn.Module], ...] = (nn.Linear, nn.Conv1d, nn.Conv2d)
"""The exact types that become tiles (convolutions only with groups=1 and numbers of zeros as padding)."""


def build_model(
    name: str,
    *,
    image_shape: ImageShape,
    n_classes: int,
    seed: int | None = None,
    **kwargs: Any,
) -> nn.Module:
    """Build a network, freshly initialised.

    Args:
        name: A key of `MODELS`, or `package.module:function` for anything importable.
        image_shape: Channels, height and width of the images.
        n_classes: Number of outputs.
        seed: Seeds the initial weights, torch's global generators left as they were; None draws from those.
        **kwargs: Options of the model. A function from elsewhere gets only these: not the shape, not the classes.

    Returns:
        The network, in training mode.

    Raises:
        ValueError: If there is no such model, it does not take these options or this image shape, or the function from
            elsewhere does not return an `nn.Module`.
    """
    if ":" in name:
        factory, arguments = _import_factory(name), kwargs
    elif name in MODELS:
        factory = MODELS[name]
        arguments = {"image_shape": tuple(image_shape), "n_classes": n_classes, **kwargs}
    else:
        close = difflib.get_close_matches(name, MODELS, n=1)
        hint = f" Did you mean {close[0]!r}?" if close else ""
        raise ValueError(
            f"No model {name!r}; there are {', '.join(MODELS)}, and 'package.module:function' for "
            f"your own.{hint}"
        )
    try:
        inspect.signature(factory).bind(**arguments)
    except TypeError as error:
        raise ValueError(
            f"The model {name!r} does not take these options ({error}); "
            f"it takes {inspect.signature(factory)}."
        ) from error
    except ValueError:  # a callable without a signature, such as a builtin
        pass
    with torch.random.fork_rng(enabled=seed is not None):
        if seed is not None:
            torch.manual_seed(seed)
        model = factory(**arguments)
    if not isinstance(model, nn.Module):
        raise ValueError(
            f"{name!r} returned {type(model).__name__}, not an nn.Module; name a function that "
            "builds and returns the network."
        )
    return model


def mlp(image_shape: ImageShape, n_classes: int, *, hidden: Sequence[int] = (64, 64)) -> nn.Module:
    """Fully connected network with ReLU; layers `fc1`, `fc2`, ...

    Args:
        image_shape: Channels, height and width.
        n_classes: Number of outputs.
        hidden: Widths of the hidden layers (two of 64: our choice, enough for `digits`).
    """
    widths = [math.prod(image_shape), *hidden, n_classes]
    layers: OrderedDict[str, nn.Module] = OrderedDict(flatten=nn.Flatten())
    for number, (n_in, n_out) in enumerate(zip(widths, widths[1:], strict=False), start=1):
        if number > 1:
            layers[f"relu{number - 1}"] = nn.ReLU()
        layers[f"fc{number}"] = nn.Linear(n_in, n_out)
    return nn.Sequential(layers)


def lenet5(image_shape: ImageShape, n_classes: int) -> nn.Module:
    """LeNet-5 (LeCun et al., Proc. IEEE 1998) with ReLU, max pooling and all maps connected, as is usual now.

    The original takes 32 x 32 pixels; 28 x 28 are padded by two in the first layer, which is the same. The 8 x 8 pixels
    of `digits` are too few for two 5 x 5 kernels without padding: there the kernels are 3 x 3 with a padding of one,
    the numbers of maps and units stay.

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
            pool1=nn.MaxPool2d(2),
            conv2=nn.Conv2d(6, 16, kernel, padding=padding2),
            relu2=nn.ReLU(),
            pool2=nn.MaxPool2d(2),
            flatten=nn.Flatten(),
            fc1=nn.Linear(16 * side * side, 120),
            relu3=nn.ReLU(),
            fc2=nn.Linear(120, 84),
            relu4=nn.ReLU(),
            fc3=nn.Linear(84, n_classes),
        )
    )


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
    """A 3 x 3 stem, groups of basic blocks (each group but the first halves the image), mean, one linear layer."""

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
    """ResNet-8 for CIFAR: as `resnet20`, one block in each of the three groups; shortcuts of option A."""
    return _ResNet(image_shape[0], n_classes, (width, 2 * width, 4 * width), 1, shortcut)


def resnet20(
    image_shape: ImageShape, n_classes: int, *, width: int = 16, shortcut: str = "A"
) -> nn.Module:
    """ResNet-20 for CIFAR (He et al., CVPR 2016, section 4.2): 0.27 million weights, shortcuts of option A.

    Args:
        image_shape: Channels, height and width (any size; three groups, of which two halve it).
        n_classes: Number of outputs.
        width: Channels of the first group, twice and four times as many in the others.
        shortcut: "A" (every second pixel, zeros for new channels, no weights: the paper's choice on CIFAR) or "B"
            (1 x 1 convolution and BatchNorm, as many published CIFAR networks have).
    """
    return _ResNet(image_shape[0], n_classes, (width, 2 * width, 4 * width), 3, shortcut)


def resnet32(
    image_shape: ImageShape, n_classes: int, *, width: int = 16, shortcut: str = "A"
) -> nn.Module:
    """ResNet-32 for CIFAR: as `resnet20`, five blocks in each of the three groups; shortcuts of option A."""
    return _ResNet(image_shape[0], n_classes, (width, 2 * width, 4 * width), 5, shortcut)


def resnet18(
    image_shape: ImageShape, n_classes: int, *, width: int = 64, shortcut: str = "B"
) -> nn.Module:
    """ResNet-18 (He et al., CVPR 2016) with the CIFAR stem: 3 x 3, stride 1, no pooling; shortcuts of option B.

    The layers are named as torchvision names them.

    Args:
        image_shape: Channels, height and width (any size; four groups, of which three halve it).
        n_classes: Number of outputs.
        width: Channels of the first group; 2, 4 and 8 times as many in the others.
        shortcut: "A" or "B", as in `resnet20`.
    """
    widths = (width, 2 * width, 4 * width, 8 * width)
    return _ResNet(image_shape[0], n_classes, widths, 2, shortcut)


def vgg11_bn(image_shape: ImageShape, n_classes: int) -> nn.Module:
    """VGG-11 with BatchNorm (Simonyan and Zisserman, ICLR 2015) for CIFAR: one linear layer instead of three.

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
            layers.append(nn.MaxPool2d(2))
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
    """Expand by 1 x 1, filter each channel by 3 x 3, project by 1 x 1; a shortcut where the shape stays."""

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
    """MobileNetV2 (Sandler et al., CVPR 2018) for CIFAR: the stem and the second stage keep the image size.

    Its depthwise convolutions cannot become tiles for now: the audit names them, and `keep_digital` is the way out.

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
            mlp, lenet5, resnet8, resnet20, resnet32, resnet18, vgg11_bn, mobilenet_v2
        )
    }
)  # fmt: skip
"""The networks by name; each takes (image_shape, n_classes, **options)."""


# What of a network becomes tiles.


@dataclass(frozen=True)
class LayerAudit:
    """Where the weights of one layer live, and why.

    Attributes:
        name: As in `named_modules()` ("" is the model itself), or the name of a bare parameter.
        kind: Class of the layer, or "Parameter".
        n_weights: Elements of its weights (parameters of two dimensions or more that are no normalisation); weights
            that an earlier layer shares are counted there.
        analog: Whether it becomes tiles.
        reason: Why not; "" if analog.
        is_refused: Whether it holds weights that cannot become tiles and that nobody asked to keep digital.
    """

    name: str
    kind: str
    n_weights: int
    analog: bool
    reason: str
    is_refused: bool = False


def audit(model: nn.Module, keep_digital: Sequence[str] = ()) -> list[LayerAudit]:
    """Say of every layer with parameters whether it becomes tiles.

    Args:
        model: Any network. A module used under several names is one layer, listed once, under its first name.
        keep_digital: Names of layers to keep digital: exact dotted names, or the beginning of one up to a dot.

    Returns:
        One entry for each module that carries parameters itself, in the order of `named_modules()`; one for each bare
        parameter of two dimensions or more.
    """
    kept = _patterns(keep_digital)
    aliases: dict[int, list[str]] = defaultdict(list)
    for name, module in model.named_modules(remove_duplicate=False):
        aliases[id(module)].append(name)
    owners: dict[int, list[str]] = defaultdict(list)
    layers = list(_layers(model))
    for layer in layers:
        for weight in layer.weights:
            owners[id(weight)].append(layer.name)
    entries = []
    counted: set[int] = set()
    for layer in layers:
        new = {id(weight): weight.numel() for weight in layer.weights if id(weight) not in counted}
        counted.update(new)
        others = sorted(
            {owner for weight in layer.weights for owner in owners[id(weight)]} - {layer.name}
        )
        entry = replace(layer.entry, n_weights=sum(new.values()))
        if others:
            entry = replace(
                entry,
                analog=False,
                is_refused=True,
                reason=f"shares its weights with {', '.join(_shown(other) for other in others)}: one "
                "array of devices cannot be two layers",
            )
        names = [*aliases[id(layer.module)], layer.name]
        if (entry.analog or entry.is_refused) and any(
            _matches(name, pattern) for name in names for pattern in kept
        ):
            reason = "kept digital on request" + (f" ({entry.reason})" if entry.reason else "")
            entry = replace(entry, analog=False, is_refused=False, reason=reason)
        entries.append(entry)
    return entries


def analog_layers(model: nn.Module, keep_digital: Sequence[str] = ()) -> dict[str, nn.Module]:
    """Return the layers that become tiles, by name, in the order of `named_modules()`.

    Args:
        model: Any network.
        keep_digital: As in `audit`.

    Returns:
        {dotted name: module}, of the exact types in `ANALOG_KINDS` (or those types under
        `torch.nn.utils.parametrize`); a module used under several names is there once.

    Raises:
        ValueError: If a layer holds weights that cannot become tiles and is not in `keep_digital` (each is named, with
            its reason), a name in `keep_digital` fits nothing, or no layer is left for tiles.
    """
    entries = audit(model, keep_digital)
    known = {name for name, _ in model.named_modules(remove_duplicate=False)}
    known |= {name for name, _ in model.named_parameters(remove_duplicate=False)}
    for pattern in _patterns(keep_digital):
        if not any(_matches(name, pattern) for name in known):
            close = difflib.get_close_matches(pattern, sorted(known), n=1)
            hint = f" Did you mean {close[0]!r}?" if close else ""
            raise ValueError(
                f"keep_digital names {pattern!r}, and the model has no layer of that name.{hint}"
            )
    if refused := [entry for entry in entries if entry.is_refused]:
        listed = "; ".join(f"{_shown(entry.name)} ({entry.kind}): {entry.reason}" for entry in refused)
        names = ", ".join(repr(entry.name) for entry in refused)
        raise ValueError(
            f"{len(refused)} layer(s) cannot become analog tiles: {listed}. Change them, or keep them "
            f"digital: keep_digital=[{names}]."
        )
    layers = {entry.name: model.get_submodule(entry.name) for entry in entries if entry.analog}
    if not layers:
        raise ValueError(
            "The model has no layer for analog tiles: it holds none of "
            f"{', '.join(kind.__name__ for kind in ANALOG_KINDS)}, or all are kept digital."
        )
    return layers


def analog_share(model: nn.Module, keep_digital: Sequence[str] = ()) -> float:
    """Share of the weights that live on tiles.

    Args:
        model: Any network.
        keep_digital: As in `audit`.

    Returns:
        Elements of analog weights / elements of all weights (parameters of two dimensions or more, without
        normalisation), in [0, 1]; 0 for a model without any.
    """
    entries = audit(model, keep_digital)
    total = sum(entry.n_weights for entry in entries)
    analog = sum(entry.n_weights for entry in entries if entry.analog)
    return analog / total if total else 0.0


def check_weights(model: nn.Module, names: Iterable[str]) -> None:
    """Refuse layers that no device can hold or that say training went wrong.

    Args:
        model: Any network.
        names: Names of layers with a weight, such as the keys of `analog_layers`.

    Raises:
        ValueError: If a weight or bias is NaN or infinite, or all weights of a layer are zero; the layer is named.
    """
    for name in names:
        layer = model.get_submodule(name)
        for what in ("weight", "bias"):
            values = getattr(layer, what, None)
            if not isinstance(values, Tensor):
                continue
            values = values.detach()
            if n_bad := int((~values.isfinite()).sum()):
                raise ValueError(
                    f"The {what} of layer {_shown(name)} has {n_bad} of {values.numel()} values that "
                    "are NaN or infinite; only finite numbers can be used: train or export it again."
                )
            if what == "weight" and not bool(values.any()):
                raise ValueError(
                    f"All {values.numel()} weights of layer {_shown(name)} are zero, so there is no "
                    "scale to map them with; train it, or remove the layer or keep it digital."
                )


def input_ranges(
    model: nn.Module,
    images: Tensor,
    keep_digital: Sequence[str] = (),
    quantile: float = 0.99995,
    batch_size: int = 100,
) -> dict[str, float]:
    """Measure how large the inputs of each analog layer get in the digital network.

    Args:
        model: Any network; run in eval mode, and left as it was found (modes, buffers, hooks).
        images: Normalised inputs, float, shape (n, C, H, W); *training* images.
        keep_digital: As in `audit`.
        quantile: Which quantile of the absolute inputs, in (0, 1] (0.99995 is the default of aihwkit's
            `calibrate_input_ranges`); exact, and never interpolated downwards.
        batch_size: Images in a batch; changes the result by no more than floating point.

    Returns:
        {layer name: largest input}, positive; keys as in `analog_layers`.

    Raises:
        ValueError: If there are no images, the quantile is out of range, or a layer is never called or sees only
            zeros or numbers that are not finite.
    """
    if not 0 < quantile <= 1 or len(images) == 0 or batch_size < 1:
        raise ValueError(
            "Input ranges need at least one image, a quantile in (0, 1] and a batch of at least 1; got "
            f"{len(images)} images, quantile={quantile!r}, batch_size={batch_size}."
        )
    layers = analog_layers(model, keep_digital)
    counts = dict.fromkeys(layers, 0)
    for name, values in _record_inputs(model, layers, images[:1], 1):
        counts[name] += values.numel()
    if unused := [name for name, count in counts.items() if count == 0]:
        raise ValueError(
            f"Layer(s) {', '.join(_shown(name) for name in unused)} are never called in a forward "
            "pass: they are not used, or their weights are read past their forward; keep them digital."
        )
    largest: dict[str, Tensor] = {}
    for name, values in _record_inputs(model, layers, images, batch_size):
        total = counts[name] * len(images)
        n_above = total - math.ceil(quantile * (total - 1))  # this many, and the smallest of them is it
        values = values.topk(min(n_above, values.numel())).values
        if name in largest:
            values = torch.cat([largest[name], values])
            values = values.topk(min(n_above, values.numel())).values
        largest[name] = values
    ranges = {name: float(largest[name][-1]) for name in layers}
    for name, value in ranges.items():
        if not 0 < value < math.inf:
            raise ValueError(
                f"The inputs of layer {_shown(name)} reach {value} on {len(images)} images; a range "
                "must be positive and finite: give other images, or keep the layer digital."
            )
    return ranges


# Helpers.


def _import_factory(name: str) -> Callable[..., nn.Module]:
    module_name, _, attribute = name.partition(":")
    try:
        found: Any = importlib.import_module(module_name)
    except (ImportError, ValueError) as error:
        raise ValueError(
            f"The model {name!r} cannot be imported ({error}); write 'package.module:function' and "
            "make the package importable (install it, or set PYTHONPATH)."
        ) from error
    for piece in attribute.split("."):
        if not hasattr(found, piece):
            close = difflib.get_close_matches(piece, dir(found), n=1)
            hint = f" Did you mean {close[0]!r}?" if close else ""
            raise ValueError(f"{module_name} has no {attribute!r} for the model {name!r}.{hint}")
        found = getattr(found, piece)
    if not callable(found):
        raise ValueError(f"{name!r} is a {type(found).__name__}, not a function that builds a model.")
    factory: Callable[..., nn.Module] = found
    return factory


def _conv_bn(
    n_in: int, n_out: int, kernel: int, *, stride: int = 1, groups: int = 1, relu: bool = True
) -> nn.Sequential:
    conv = nn.Conv2d(
        n_in, n_out, kernel, stride=stride, padding=kernel // 2, groups=groups, bias=False
    )
    layers = OrderedDict(conv=conv, bn=nn.BatchNorm2d(n_out))
    return nn.Sequential(OrderedDict(**layers, relu=nn.ReLU6()) if relu else layers)


def _initialise(model: nn.Module) -> None:
    """Convolutions as in He et al., ICCV 2015 (fan out); linear layers as torch does it."""
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
            if module.bias is not None:
                nn.init.zeros_(module.bias)


_NORMS = (
    _NormBase, nn.LayerNorm, nn.GroupNorm, *([nn.RMSNorm] if hasattr(nn, "RMSNorm") else [])
)  # fmt: skip
_CONTAINERS = (
    nn.Module, nn.Sequential, nn.ModuleList, nn.ModuleDict, nn.ParameterList, nn.ParameterDict
)  # fmt: skip


@dataclass(frozen=True)
class _Layer:
    """What `_layers` finds: where, which module, its weights, and the entry before ties and wishes."""

    name: str
    module: nn.Module
    weights: tuple[Tensor, ...]
    entry: LayerAudit


def _layers(model: nn.Module) -> Iterator[_Layer]:
    """Every module that carries parameters itself (those of its parametrisations included)."""
    hidden: set[int] = set()  # modules inside a parametrisation belong to the layer they change
    for name, module in model.named_modules():
        if id(module) in hidden:
            continue
        own = dict(module.named_parameters(recurse=False, remove_duplicate=False))
        if parametrize.is_parametrized(module):
            inside = module.parametrizations
            assert isinstance(inside, nn.Module)  # noqa: S101 - for the type checker
            hidden.update(id(child) for child in inside.modules())
            own.update(inside.named_parameters())
        if not own:
            continue
        lazy = any(isinstance(p, nn.parameter.UninitializedParameter) for p in own.values())
        large = {} if lazy else {key: p for key, p in own.items() if p.ndim >= 2}
        kind = parametrize.type_before_parametrizations(module)
        if lazy:
            reason = "its shape is not known before the first forward pass: run one batch through it"
            entry = LayerAudit(name, kind.__name__, 0, False, reason, is_refused=True)
            yield _Layer(name, module, (), entry)
        elif isinstance(module, _NORMS):
            entry = LayerAudit(name, kind.__name__, 0, False, "normalisation is digital by nature")
            yield _Layer(name, module, (), entry)
        elif isinstance(module, ANALOG_KINDS):
            reason = _why_not(module, kind)
            entry = LayerAudit(name, kind.__name__, 0, not reason, reason, is_refused=bool(reason))
            yield _Layer(name, module, tuple(large.values()), entry)
        elif not large:
            reason = "scales and offsets are digital by nature"
            yield _Layer(name, module, (), LayerAudit(name, kind.__name__, 0, False, reason))
        elif _torch_kind(kind) not in _CONTAINERS:
            reason = f"{_torch_kind(kind).__name__} has no analog form here"
            entry = LayerAudit(name, kind.__name__, 0, False, reason, is_refused=True)
            yield _Layer(name, module, tuple(large.values()), entry)
        else:
            for key, parameter in large.items():
                full = f"{name}.{key}" if name else key
                reason = f"a bare parameter of {kind.__name__}, used in ways that cannot be known"
                entry = LayerAudit(full, "Parameter", 0, False, reason, is_refused=True)
                yield _Layer(full, module, (parameter,), entry)


def _torch_kind(kind: type) -> type:
    """The nearest class of torch.nn that a class is or comes from."""
    return next(parent for parent in kind.__mro__ if parent.__module__.startswith("torch.nn"))


def _why_not(layer: nn.Module, kind: type) -> str:
    """Why a linear or convolutional layer cannot become tiles; "" if it can."""
    if kind not in ANALOG_KINDS:
        parent = next(parent for parent in ANALOG_KINDS if issubclass(kind, parent))
        return f"a subclass of {parent.__name__}, whose forward may compute something else"
    is_parametrized = parametrize.is_parametrized(layer, "weight")
    if not is_parametrized and not isinstance(layer._parameters.get("weight"), nn.Parameter):
        return (
            "its weight is made by a hook (weight_norm, spectral_norm or prune of torch.nn.utils): make it "
            "permanent first (remove_weight_norm, remove_spectral_norm, prune.remove)"
        )
    if isinstance(layer, nn.Conv1d | nn.Conv2d):
        if layer.groups != 1:
            what = "depthwise" if layer.groups == layer.in_channels else "grouped"
            return f"a {what} convolution (groups={layer.groups})"
        if layer.padding_mode != "zeros":
            return f"padding_mode={layer.padding_mode!r} (only 'zeros' is known)"
        if isinstance(layer.padding, str):
            return f"padding={layer.padding!r} (write it as a number of pixels)"
    return ""


def _patterns(keep_digital: Sequence[str]) -> tuple[str, ...]:
    return (keep_digital,) if isinstance(keep_digital, str) else tuple(keep_digital)


def _matches(name: str, pattern: str) -> bool:
    return name == pattern or name.startswith(f"{pattern}.")


def _shown(name: str) -> str:
    return repr(name) if name else "(the model itself)"


def _record_inputs(
    model: nn.Module, layers: Mapping[str, nn.Module], images: Tensor, batch_size: int
) -> Iterator[tuple[str, Tensor]]:
    """Run the images and yield (layer name, flat absolute inputs), batch by batch."""
    like = next(model.parameters())
    recorded: list[tuple[str, Tensor]] = []

    def record(name: str) -> Callable[[nn.Module, tuple[Any, ...], dict[str, Any]], None]:
        def hook(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            values = args[0] if args else kwargs["input"]
            recorded.append((name, values.detach().abs().flatten()))

        return hook

    with contextlib.ExitStack() as stack, torch.no_grad():
        stack.enter_context(_evaluating(model))
        for name, layer in layers.items():
            handle = layer.register_forward_pre_hook(record(name), with_kwargs=True)
            stack.callback(handle.remove)
        for batch in images.split(batch_size):
            model(batch.to(like))
            yield from recorded
            recorded.clear()


@contextlib.contextmanager
def _evaluating(model: nn.Module) -> Iterator[None]:
    """Eval mode inside; modes and buffers as they were afterwards."""
    modes = [(module, module.training) for module in model.modules()]
    buffers = [
        (module, name, buffer, buffer.clone())
        for module in model.modules()
        for name, buffer in module.named_buffers(recurse=False)
    ]
    model.eval()
    try:
        yield
    finally:
        for module, mode in modes:
            module.training = mode
        for module, name, buffer, value in buffers:
            buffer.copy_(value)
            module._buffers[name] = buffer
