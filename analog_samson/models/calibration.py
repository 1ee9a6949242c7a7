"""Measurements and checks on a trained network before it is mapped onto arrays."""

import contextlib
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from analog_samson.models.auditing import analog_layers, quoted


def check_weights(model: nn.Module, names: Iterable[str]) -> None:
    """Refuse layers whose weights cannot be mapped: NaN, infinite or all zero.

    Args:
        model: Any network.
        names: Names of layers with a weight, such as the keys of `analog_layers`.

    Raises:
        ValueError: If a weight or bias is NaN or infinite, or all weights of a layer are zero; the
            layer is named.

    Example:
        >>> check_weights(model, ["fc1", "fc2"])
        >>> layer = nn.Linear(2, 1)
        >>> weight = nn.init.zeros_(layer.weight)
        >>> check_weights(nn.Sequential(layer), ["0"])
        Traceback (most recent call last):
            ...
        ValueError: All 2 weights of layer '0' are zero, so there is no scale to map them with; ...
    """
    for name in names:
        layer = model.get_submodule(name)
        for what in ("weight", "bias"):
            values = getattr(layer, what, None)
            if not isinstance(values, Tensor):
                continue
            values = values.detach()
            total = float(values.sum())  # one pass: finite, and not 0, for nearly all weights
            n_bad = 0 if math.isfinite(total) else int((~values.isfinite()).sum())
            if n_bad:
                raise ValueError(
                    f"The {what} of layer {quoted(name)} has {n_bad} of {values.numel()} values "
                    "that are NaN or infinite; only finite numbers can be used: train or export it "
                    "again."
                )
            if what == "weight" and total == 0 and not bool(values.any()):
                raise ValueError(
                    f"All {values.numel()} weights of layer {quoted(name)} are zero, so there is "
                    "no scale to map them with; train it, or remove the layer or keep it digital."
                )


def input_ranges(
    model: nn.Module,
    images: Tensor,
    keep_digital: Sequence[str] = (),
    quantile: float = 0.99995,
    batch_size: int = 100,
) -> dict[str, float]:
    """Measure the input range of each analog layer in the digital network.

    Args:
        model: Any network; run in evaluation mode, then restored (modes, buffers, hooks).
        images: Normalised inputs, float, shape (n, C, H, W); *training* images.
        keep_digital: As in `audit`.
        quantile: Quantile of the absolute inputs, in (0, 1] (0.99995 is the default of aihwkit's
            `calibrate_input_ranges`); exact, the next larger value without interpolation.
        batch_size: Images in a batch; affects the result only by floating-point rounding.

    Returns:
        {layer name: input range, model units}, positive; keys as in `analog_layers`.

    Raises:
        ValueError: If there are no images, the quantile is out of range, or a layer is never called
            or its inputs are only zeros or not finite.

    Example:
        >>> list(input_ranges(model, images, quantile=0.999))
        ['fc1', 'fc2', 'fc3']
    """
    if not 0 < quantile <= 1 or len(images) == 0 or batch_size < 1:
        raise ValueError(
            "Input ranges need at least one image, a quantile in (0, 1] and a batch of at least 1; "
            f"got {len(images)} images, quantile={quantile!r}, batch_size={batch_size}."
        )
    layers = analog_layers(model, keep_digital)
    counts = dict.fromkeys(layers, 0)
    for name, values in record_inputs(model, layers, images[:1], 1):
        counts[name] += values.numel()
    if unused := [name for name, count in counts.items() if count == 0]:
        raise ValueError(
            f"Layer(s) {', '.join(quoted(name) for name in unused)} are never called in a forward "
            "pass: they are not used, or their weights are read past their forward; keep them "
            "digital."
        )
    largest: dict[str, Tensor] = {}
    for name, inputs in record_inputs(model, layers, images, batch_size):
        values = inputs.abs().flatten()
        total = counts[name] * len(images)
        # the quantile is the smallest of the n_above largest values
        n_above = total - math.ceil(quantile * (total - 1))
        values = values.topk(min(n_above, values.numel())).values
        if name in largest:
            values = torch.cat([largest[name], values])
            values = values.topk(min(n_above, values.numel())).values
        largest[name] = values
    ranges = {name: float(largest[name][-1]) for name in layers}
    for name, value in ranges.items():
        if not 0 < value < math.inf:
            raise ValueError(
                f"The inputs of layer {quoted(name)} reach {value} on {len(images)} images; a "
                "range must be positive and finite: give other images, or keep the layer digital."
            )
    return ranges


def record_inputs(
    model: nn.Module, layers: Mapping[str, nn.Module], images: Tensor, batch_size: int
) -> Iterator[tuple[str, Tensor]]:
    """Run images batch by batch and yield (layer name, inputs of one call of the layer).

    Example:
        >>> calls = record_inputs(model, {"fc3": model.fc3}, images[:100], batch_size=50)
        >>> [(name, inputs.shape) for name, inputs in calls]
        [('fc3', torch.Size([50, 64])), ('fc3', torch.Size([50, 64]))]
    """
    like = next(model.parameters())
    recorded: list[tuple[str, Tensor]] = []

    def record(name: str) -> Callable[[nn.Module, tuple[Any, ...], dict[str, Any]], None]:
        def hook(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            values = args[0] if args else kwargs["input"]
            recorded.append((name, values.detach().clone()))

        return hook

    with contextlib.ExitStack() as stack, torch.no_grad():
        stack.enter_context(evaluating(model))
        for name, layer in layers.items():
            handle = layer.register_forward_pre_hook(record(name), with_kwargs=True)
            stack.callback(handle.remove)
        for batch in torch.split(images, batch_size):
            model(batch.to(like if batch.is_floating_point() else like.device))
            yield from recorded
            recorded.clear()


@contextlib.contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Evaluation mode within a block; modes and buffers are restored afterwards."""
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
