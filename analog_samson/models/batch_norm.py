"""Batch normalisation on analog memory: folding into the weights, and recalibration.

Recalibration after Joshi et al., Nature Communications 11, 2473 (2020), "adaptive batch
normalisation statistics update": running statistics are recomputed on training images with the
weights as they are on the chip at that time.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, fx, nn
from torch.nn.modules.batchnorm import _BatchNorm

from analog_samson.models.calibration import evaluating
from analog_samson.models.forward_pass import difference
from analog_samson.models.replacing import with_plain_weights
from analog_samson.models.trained_arrays import held_scales

RECALIBRATION_BATCH = 32
"""Images per batch for statistics: the block size of aihwkit's tiles, equal for both engines."""

Statistics = dict[str, tuple[Tensor, Tensor, Tensor]]
"""Layer name to running mean, running variance and number of batches."""


def batch_norms(network: nn.Module) -> dict[str, _BatchNorm]:
    """The batch normalisations of a network with running statistics, by name."""
    return {
        name: module
        for name, module in network.named_modules()
        if isinstance(module, _BatchNorm) and module.running_mean is not None
    }


def statistics(network: nn.Module) -> Statistics:
    """Copy the running statistics of a network."""
    return {
        name: (
            _tensor(norm.running_mean).clone(),
            _tensor(norm.running_var).clone(),
            _tensor(norm.num_batches_tracked).clone(),
        )
        for name, norm in batch_norms(network).items()
    }


def restore(network: nn.Module, kept: Statistics) -> None:
    """Restore running statistics, in place."""
    for name, norm in batch_norms(network).items():
        _tensor(norm.running_mean).copy_(kept[name][0])
        _tensor(norm.running_var).copy_(kept[name][1])
        _tensor(norm.num_batches_tracked).copy_(kept[name][2])


@torch.no_grad()
def recalibrate(
    network: nn.Module, forward: Callable[[Tensor, int], Tensor], images: Tensor
) -> None:
    """Replace the running statistics by averages over images, in place.

    Args:
        network: Contains the batch normalisations; other modules are not changed.
        forward: Runs it on a batch of images; the second argument is the index of the first image.
        images: Training images as network inputs, shape (n, ...). The last n modulo
            ``RECALIBRATION_BATCH`` are not used.

    Raises:
        ValueError: If there are fewer images than one batch.
    """
    if len(images) < RECALIBRATION_BATCH:
        raise ValueError(
            f"Recalibration needs {RECALIBRATION_BATCH} or more training images; got {len(images)}."
        )
    norms = batch_norms(network).values()
    momenta = [norm.momentum for norm in norms]
    try:
        for norm in norms:
            norm.reset_running_stats()
            norm.momentum = None  # a plain average over batches
            norm.train()
        for first in range(0, len(images) - RECALIBRATION_BATCH + 1, RECALIBRATION_BATCH):
            forward(images[first : first + RECALIBRATION_BATCH], first)
    finally:
        for norm, momentum in zip(norms, momenta, strict=True):
            norm.eval()
            norm.momentum = momentum


@dataclass(frozen=True)
class Folding:
    """A network before and after its batch normalisation was folded.

    Attributes:
        original: The network as it was given.
        network: A copy with folded normalisation; the network itself where none is folded.
    """

    original: nn.Module
    network: nn.Module

    @torch.no_grad()
    def check(self, image: Tensor) -> None:
        """Raise unless both networks compute the same.

        Args:
            image: One or a few inputs as the network takes them, shape (n, ...).

        Raises:
            ValueError: If the outputs differ by more than `forward_pass.TOLERANCE`.
        """
        if self.network is self.original:
            return
        like = next(self.network.parameters())
        image = image.to(like if image.is_floating_point() else like.device)
        outputs = []
        for network in (self.original, self.network):
            with torch.random.fork_rng([]), evaluating(network):
                outputs.append(network(image.clone()))
        if differs := difference(*outputs):
            raise ValueError(
                "The network with folded batch normalisation does not compute what the network "
                f"does; the outputs differ {differs}. It can be folded into a layer only where its "
                "channels are the layer's outputs (not positions) and nothing else acts on them; "
                "use mapping.batch_norm = 'digital'."
            )


@torch.no_grad()
def fold(network: nn.Module) -> nn.Module:
    """Fold every batch normalisation that follows a linear or convolution layer into its weights.

    The digital network computes the same (`Folding.check`). On a chip the weights, and therefore
    the noise, differ.

    Args:
        network: A network that ``torch.fx`` can trace; left unchanged.

    Returns:
        A copy in eval mode; folded normalisations are identities, layers keep their names. Those
        with other channels than the layer has outputs stay.

    Raises:
        ValueError: If the network cannot be traced.
    """
    folded = with_plain_weights(network).eval()
    try:
        graph = fx.Tracer().trace(folded)
    except Exception as error:  # whatever the network's own code raises
        raise ValueError(
            f"Batch normalisation cannot be folded: the network cannot be traced ({error}). Use "
            "mapping.batch_norm = 'digital'."
        ) from error
    modules = dict(folded.named_modules())
    calls: dict[str, int] = {}
    for node in graph.nodes:
        if node.op == "call_module":
            calls[node.target] = calls.get(node.target, 0) + 1
    for node in graph.nodes:
        if node.op != "call_module" or not isinstance(modules.get(node.target), _BatchNorm):
            continue
        source = node.args[0]
        if not isinstance(source, fx.Node) or source.op != "call_module":
            continue
        layer, norm = modules[str(source.target)], modules[node.target]
        alone = len(source.users) == 1 and calls[str(source.target)] == calls[node.target] == 1
        has_statistics = norm.running_mean is not None
        if (
            alone
            and has_statistics
            and isinstance(layer, nn.Linear | nn.Conv1d | nn.Conv2d | nn.Conv3d)
            and norm.num_features in (1, len(_tensor(layer.weight)))
        ):
            _fold_into(layer, norm)
            folded.set_submodule(node.target, nn.Identity())
    return folded


def _fold_into(layer: nn.Module, norm: nn.Module) -> None:
    mean, variance = _tensor(norm.running_mean), _tensor(norm.running_var)
    gain = torch.rsqrt(variance + float(norm.eps))  # type: ignore[arg-type]
    if norm.weight is not None:
        gain = gain * _tensor(norm.weight)
    shift = torch.zeros_like(mean) if norm.bias is None else _tensor(norm.bias)
    bias = torch.zeros_like(mean) if layer.bias is None else _tensor(layer.bias)
    weight = _tensor(layer.weight)
    folded = weight.clone().mul_(gain.reshape(-1, *[1] * (weight.ndim - 1)))
    layer.weight = nn.Parameter(folded, weight.requires_grad)  # another layer may share the old one
    if (scales := held_scales(layer)) is not None:
        scales.mul_(gain)  # the normalised weights stay
    layer.bias = nn.Parameter((bias - mean) * gain + shift)


def _tensor(value: object) -> Tensor:
    assert isinstance(value, Tensor)  # a module with running statistics has them
    return value
