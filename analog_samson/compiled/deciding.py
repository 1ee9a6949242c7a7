"""Whether chips of a network will be traced, found before any chip is programmed."""

import math
from collections.abc import Mapping, Sequence
from functools import partial

import torch
from torch import Tensor, nn

from analog_samson import models
from analog_samson.compiled.few_channels import has_few_channels
from analog_samson.compiled.network import FunctionalNetwork, is_long_job
from analog_samson.devices import Device
from analog_samson.streams import derive_seed


@torch.no_grad()
def is_traced_for(
    network: nn.Module,
    device: Device,
    image: Tensor,
    keep_digital: Sequence[str],
    expected_images: int,
    input_ranges: Mapping[str, models.Range],
) -> bool:
    """Whether the compiled engine traces a network, as its chips decide at their first input.

    Args:
        network: The digital network, rewritten.
        device: The device.
        image: One input, shape (1, ...).
        keep_digital: Layers that stay digital.
        expected_images: Images evaluated after each read.
        input_ranges: Input ranges of the layers.
    """
    layers = models.analog_layers(network, keep_digital)
    counts = models.multiplications(network, image)
    n_outputs = sum(
        counts[name].products // math.prod(layer.weight.shape[1:])  # type: ignore[index, misc]
        for name, layer in layers.items()
        if name in counts
    )
    n_uses = sum(1 for _ in models.record_inputs(network, layers, image, 1))
    if not is_long_job(n_outputs * expected_images, n_uses, len(layers)):
        return False
    shapes = [layer.weight.shape for layer in layers.values()]
    if device.periphery.is_per_vector or not has_few_channels(shapes):  # type: ignore[arg-type]
        return True
    small = FunctionalNetwork(
        network, device, keep_digital, input_ranges, expected_images=expected_images
    )
    with small.eager(image, partial(derive_seed, "tracing")):
        return bool(small.execution.is_traced)
