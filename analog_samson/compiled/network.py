"""A network whose analog layers are replaced by functions that compute the same as its arrays.

Short jobs run eagerly, without a warm-up. Long jobs are traced by torch.compile: weights, keys and
ranges are inputs of the graph, so one compilation is used for all chips, times and checkpoints of
an architecture, and torch stores it on disk between processes.
"""

import contextlib
import copy
import math
from collections.abc import Hashable, Iterator, Mapping, Sequence
from functools import partial
from typing import Literal, Self

import torch
from torch import Tensor, nn

from analog_samson import models
from analog_samson.analog import check_input_ranges
from analog_samson.compiled import few_channels, kernels
from analog_samson.compiled.computing import CPU
from analog_samson.compiled.layers import FunctionalLayer, Seeds
from analog_samson.compiled.norms import AffineNorm, affine_norms
from analog_samson.compiled.tracing import Execution, LayoutObserver, Runner
from analog_samson.devices import Device
from analog_samson.evaluation import exact_products

LONG_JOB = 2e7
"""Outputs per layer and read above which a network is traced: our choice.

Tracing joins the elementwise operations between products, which saves about 0.6 ns per output on
one core, and takes 0.1 to 0.5 s per layer and process: it has paid back after at most 10 to 40
reads. The numbers of chips and times do not matter, so that a chip answers alike in all studies.
"""

MANY_USES = 8
"""Uses of a layer in one pass, on average, above which a network is not traced: our choice.

A graph holds every use: for a recurrent network tracing takes minutes and saves little.
"""

Precision = Literal["fp32", "bf16"]

_PERIPHERY = {"source", "dac_bits", "adc_bits", "output_bound", "output_noise"}
_PERIPHERY |= {"input_scaling", "bound_management", "effects", "dac_steps", "adc_steps"}
_PERIPHERY |= {"mvm_read_noise", "mvm_read_noise_kind", "ir_drop"}
_PERIPHERY |= {"mvm_read_noise_uS", "mvm_read_noise_knee_uS"}
_PERIPHERY |= {"iv_voltage_V", "iv_square_powers", "iv_cube_powers"}
_MAPPING = {"scale", "max_rows", "max_columns"}
# settings that act on weights before they are mapped, or between weights and conductances
_MAPPING |= {"clip_quantile", "batch_norm", "pair_significances", "pair_tables_uS"}
_MAPPING |= {"reference_column"}


def why_not(device: Device) -> str:
    """Return the reason why this engine does not support a device; "" if it does.

    Options of a device that this engine does not implement must have their default values.
    """
    if device.noise_level != "conductance":
        return f"noise_level = {device.noise_level!r} is aihwkit's weight-level path"
    for section, known in ((device.periphery, _PERIPHERY), (device.mapping, _MAPPING)):
        for key, field in type(section).model_fields.items():
            value = getattr(section, key)
            if key not in known and value != field.get_default(call_default_factory=True):
                return f"it does not support {key} = {value!r}"
    if device.periphery.effects and device.periphery.is_per_vector:
        return "effects of the periphery and per-vector computation exclude each other"
    return device.periphery.without_implementation("compiled")


class FunctionalNetwork:
    """A copy of a network whose analog layers compute what their arrays compute, without tiles.

    Args:
        network: The digital network; it is copied, not changed.
        device: The device, which gives mapping and periphery.
        keep_digital: Names of layers that stay digital.
        input_ranges: {layer: input range of its DAC, or of each array, model units}; may be None if
            the periphery is ideal or no forward pass is run.
        precision: "bf16" rounds weights, inputs and products of layers with many inputs to bfloat16
            (8 bits of precision; sums within a product are fp32), which is faster on processors
            with bf16 instructions.
        expected_images: Number of images evaluated after each read; decides whether the network is
            traced (see ``LONG_JOB``), from shapes only, never from measured time.

    Attributes:
        layers: Layer name to the layer on arrays.
        arrays: The arrays of all layers.
        network: The network that runs.

    Raises:
        ValueError: If a layer cannot be mapped onto arrays and is not kept digital, weights are
            NaN, infinite or all zero, or a layer has no input range.
    """

    def __init__(
        self,
        network: nn.Module,
        device: Device,
        keep_digital: Sequence[str] = (),
        input_ranges: Mapping[str, models.Range] | None = None,
        precision: Precision = "fp32",
        expected_images: int = 0,
    ) -> None:
        self.device = device
        self.precision = precision
        self.has_input_ranges = input_ranges is not None
        self._expected_images = expected_images
        network = copy.deepcopy(network).to(CPU).eval().requires_grad_(False)
        digital = models.analog_layers(network, keep_digital)
        models.check_weights(network, list(digital))
        if input_ranges is not None and device.periphery.needs_input_ranges:
            check_input_ranges(input_ranges, list(digital))
        else:
            input_ranges = dict.fromkeys(digital, math.nan)
        layers = {}
        for name, layer in digital.items():
            is_wide = layer.weight.shape[1] >= few_channels.MANY_CHANNELS  # type: ignore[index]
            dtype = torch.bfloat16 if precision == "bf16" and is_wide else torch.float32
            layers[name] = FunctionalLayer(name, layer, device, input_ranges[name], dtype)
        # per-vector computation needs channels innermost
        has_few_channels = not device.periphery.is_per_vector
        has_few_channels &= few_channels.has_few_channels(
            layer.mapped.geometry.shape for layer in layers.values()
        )
        self.execution = Execution(has_few_channels)
        replaced: dict[int, nn.Module] = {**affine_norms(network)}
        replaced |= few_channels.max_pools(network) if has_few_channels else {}
        replaced |= {id(layer): layers[name] for name, layer in digital.items()}
        network = models.replace_everywhere(network, replaced)
        self._has_invariant_modules = all(
            type(module) in _BATCH_INVARIANT for module in network.modules()
        )
        self._start(layers, network)

    def fresh(self) -> Self:
        """A copy for another chip, on arrays that hold their target weights.

        Everything that no chip changes is shared, and so are the decisions on layout and tracing.
        """
        other = copy.copy(self)
        layers = {name: layer.fresh() for name, layer in self.layers.items()}
        in_place: dict[int, object] = {id(self.layers[name]): new for name, new in layers.items()}
        in_place |= {id(m): m for m in self.network.modules() if type(m) in _WITHOUT_TENSORS}
        other._start(layers, copy.deepcopy(self.network, in_place))
        return other

    def _start(self, layers: dict[str, FunctionalLayer], network: nn.Module) -> None:
        self.layers, self.network = layers, network
        self.arrays = [array for layer in layers.values() for array in layer.arrays]
        self._norms = [norm for norm in network.modules() if isinstance(norm, AffineNorm)]
        self._runner = Runner(network, self.execution, self._structure)
        self._where = CPU
        self._is_eager = False
        self._is_last: bool | None = None  # layout of the layers

    def _structure(self) -> Hashable:
        return tuple((name, layer.structure) for name, layer in self.layers.items())

    def weights(self) -> dict[str, Tensor]:
        """Weights on the arrays in model units and the layers' shapes, without compensation."""
        return {name: layer.model_weights() for name, layer in self.layers.items()}

    @property
    def is_batch_invariant(self) -> bool:
        """Whether outputs are known to be bit-identical for every batch size, on a CPU.

        This holds if analog layers run per vector in C, all other modules are elementwise, and the
        network is not traced. It is known after the first forward pass.
        """
        return (
            self.execution.is_traced is False
            and kernels.library() is not None
            and all(layer.computing.is_batch_invariant for layer in self.layers.values())
            and self._has_invariant_modules
        )

    @torch.no_grad()
    def forward(self, images: Tensor, first_index: int, seeds: Seeds) -> Tensor:
        """Outputs of the network; the noise of an image does not depend on its batch.

        Runs on the accelerator of the images; on a GPU in torch operations with the same random
        integers.

        Args:
            images: Network inputs, shape (n, ...).
            first_index: Index of the first image in the whole set.
            seeds: Maps layer name and index of the row block to the key of its noise.

        Returns:
            Outputs, shape (n, ...).
        """
        if self.execution.is_traced is None:
            self._decide(images[:1], seeds)
        if images.device != self._where:
            self._where = images.device
            self.network.to(images.device)
        prepare = partial(self._prepare, len(images), first_index, seeds)
        with exact_products(images.device):
            return models.one_tensor(self._runner(images, prepare, self._is_eager))

    def _prepare(self, n_images: int, first_index: int, seeds: Seeds) -> None:
        if self._is_last != self.execution.channels_last:
            self._is_last = self.execution.channels_last
            for layer in self.layers.values():
                layer.set_layout(self._is_last)
        for layer in self.layers.values():
            layer.prepare(n_images, first_index, seeds, self._where)
        for norm in self._norms:
            norm.refresh()

    @contextlib.contextmanager
    def eager(self, image: Tensor, seeds: Seeds) -> Iterator[None]:
        """Run eagerly within a block, in which modules may be in training mode.

        Args:
            image: One input, on which layout and tracing are decided before the block.
            seeds: As for :meth:`forward`.
        """
        if self.execution.is_traced is None:
            self._decide(image, seeds)
        with self.untraced():
            yield

    @contextlib.contextmanager
    def untraced(self) -> Iterator[None]:
        """Run eagerly within a block, after layout and tracing were decided."""
        was_eager, self._is_eager = self._is_eager, True
        try:
            yield
        finally:
            self._is_eager = was_eager

    @torch.no_grad()
    def _decide(self, image: Tensor, seeds: Seeds) -> None:
        """Run one image to choose the memory layout and to count outputs of layers.

        Convolutions of few channels are fastest untraced and with channels outermost, unless the
        network uses torch's own pooling, which is fast only with channels innermost. ``view`` of a
        tensor that is not contiguous needs channels outermost.
        """
        counts: list[int] = []
        hooks = [
            layer.register_forward_hook(lambda layer, _, out: counts.append(out.numel()))
            for layer in self.layers.values()
        ]
        execution, is_long = self.execution, None
        execution.is_traced = False
        try:
            with LayoutObserver() as seen:
                self.forward(image, 0, seeds)
                n_uses, n_outputs = len(counts), sum(counts)
                if execution.has_few_channels and seen.pools:
                    execution.has_few_channels, execution.channels_last = False, True
                    seen.needs_contiguous = False
                    self.forward(image, 0, seeds)
            execution.channels_last &= not seen.needs_contiguous
            is_long = is_long_job(n_outputs * self._expected_images, n_uses, len(self.layers))
        finally:
            for hook in hooks:
                hook.remove()
            execution.is_traced = (
                None if is_long is None else is_long and not execution.has_few_channels
            )


def is_long_job(n_outputs: int, n_uses: int, n_layers: int) -> bool:
    """Whether a network is traced, unless it has few channels.

    Args:
        n_outputs: Outputs of the layers for all images of a read.
        n_uses: Uses of its layers in one pass.
        n_layers: Number of layers.
    """
    return n_outputs > LONG_JOB * n_layers and n_uses <= MANY_USES * n_layers


_WITHOUT_TENSORS = (nn.ReLU, nn.ReLU6, nn.Identity, nn.Dropout, nn.Flatten)
_BATCH_INVARIANT = (nn.Sequential, FunctionalLayer, *_WITHOUT_TENSORS)
