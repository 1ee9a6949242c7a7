"""Any network with its analog layers made functional: a digital forward pass, the same numbers.

Short jobs run operation by operation, without a warm-up. Long ones are traced by torch.compile:
weights, keys and ranges are inputs of the graph, so one compilation serves all chips, times and
checkpoints of an architecture, and torch keeps it on disk between processes.
"""

import copy
import functools
import logging
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from analog_samson import models
from analog_samson.analog import check_input_ranges
from analog_samson.compiled.layers import CPU, FunctionalLayer
from analog_samson.compiled.norms import affine_norms
from analog_samson.compiled.pooling import halvings
from analog_samson.devices import Device
from analog_samson.evaluation import exact_products

LONG_JOB = 5e8
"""Multiplications a layer and reading from which tracing pays: our choice.

About 0.05 s of a core a layer and reading; tracing costs 0.3 to 1 s a layer, once.
"""

WIDE = 16
"""Input channels or features from which a layer fills vectors: bf16 and channels last pay there."""

Precision = Literal["fp32", "bf16"]

_log = logging.getLogger(__name__)

_PERIPHERY = {"source", "dac_bits", "adc_bits", "output_bound", "output_noise"}
_PERIPHERY |= {"input_scaling", "bound_management"}
_PERIPHERY |= {"mvm_read_noise", "mvm_read_noise_kind", "ir_drop"}
_MAPPING = {"scale", "max_rows", "max_columns"}
# what acts on weights before they are mapped, or between weights and devices
_MAPPING |= {"clip_quantile", "batch_norm", "pair_significances", "pair_tables_uS"}
_MAPPING |= {"reference_column"}


def why_not(device: Device) -> str:
    """Say why this engine cannot run a device; "" if it can.

    Options of a device that this engine has not heard of must be at their defaults.
    """
    if device.noise_level != "conductance":
        return f"noise_level = {device.noise_level!r} is aihwkit's own path"
    for section, known in ((device.periphery, _PERIPHERY), (device.mapping, _MAPPING)):
        for key, field in type(section).model_fields.items():
            value = getattr(section, key)
            if key not in known and value != field.get_default(call_default_factory=True):
                return f"it does not know {key} = {value!r}"
    return ""


class FunctionalNetwork:
    """A copy of a network whose analog layers compute what their arrays would, without tiles.

    Args:
        network: The digital network; it is copied, not changed.
        device: The device whose mapping and periphery the layers get.
        keep_digital: Names of layers to leave digital.
        input_ranges: Layer name to the largest input its DAC takes, model units; may be None
            where the periphery is ideal or no forward pass is wanted.
        precision: "bf16" rounds weights, inputs and products of wide layers to bfloat16 (8 bits of
            precision; sums within a product are fp32): twice as fast where the processor has
            instructions for it.
        expected_images: How many images every reading will meet; decides whether tracing pays
            (see ``LONG_JOB``), from the network's shapes alone, never from a clock.

    Raises:
        ValueError: If a layer cannot become arrays and is not to be kept digital, weights are NaN,
            infinite or all zero, or a layer has no input range.
    """

    def __init__(
        self,
        network: nn.Module,
        device: Device,
        keep_digital: Sequence[str] = (),
        input_ranges: Mapping[str, float] | None = None,
        precision: Precision = "fp32",
        expected_images: int = 0,
    ) -> None:
        self.device = device
        self.precision = precision
        self.has_input_ranges = input_ranges is not None
        network = copy.deepcopy(network).to(CPU).eval().requires_grad_(False)
        digital = models.analog_layers(network, keep_digital)
        models.check_weights(network, list(digital))
        if input_ranges is not None and device.periphery.needs_input_ranges:
            check_input_ranges(input_ranges, list(digital))
        else:
            input_ranges = dict.fromkeys(digital, math.nan)
        self.layers = {
            name: FunctionalLayer(name, layer, device, float(input_ranges[name]))
            for name, layer in digital.items()
        }
        self.tiles = [array for layer in self.layers.values() for array in layer.arrays]
        kernels = [layer.shape for layer in self.layers.values() if len(layer.shape) == 4]
        # the kernel of what looks at every vector takes channels innermost
        self._is_narrow = bool(kernels) and not device.periphery.is_by_vector
        self._is_narrow &= all(n_out <= WIDE and n_in < WIDE / 2 for n_out, n_in, *_ in kernels)
        norms = affine_norms(network)
        self._norms = tuple(norms.values())
        replaced: dict[int, nn.Module] = {**norms}
        replaced |= halvings(network) if self._is_narrow else {}
        replaced |= {id(layer): self.layers[name] for name, layer in digital.items()}
        self.network = models.replace_everywhere(network, replaced)
        if precision == "bf16":
            for layer in self.layers.values():
                if layer.shape[1] >= WIDE:
                    layer.dtype = torch.bfloat16
        self._where = CPU
        self._expected_images = expected_images
        self._set_layout(channels_last=not self._is_narrow)
        self._is_traced: bool | None = None

    def __getstate__(self) -> dict[str, Any]:
        """Leave the traced function out of pickles and copies: it is found again."""
        return {key: value for key, value in vars(self).items() if key != "_traced"}

    def weights(self) -> dict[str, Tensor]:
        """Weights on the arrays in model units and the layers' shapes, without compensation."""
        return {name: layer.model_weights() for name, layer in self.layers.items()}

    @torch.no_grad()
    def forward(self, images: Tensor, first_index: int, seeds: Callable[..., int]) -> Tensor:
        """Outputs of the network; an image's noise does not depend on its batch.

        It runs where the images are; on a GPU in torch operations that draw the same integers.

        Args:
            images: Network inputs, shape (n, ...).
            first_index: Number of the first image in the whole set.
            seeds: Layer name and number of the row block to the key of its noise.

        Returns:
            Outputs, shape (n, ...).
        """
        if self._is_traced is None:
            self._probe(images[:1], first_index, seeds)
        if images.device != self._where:
            self._where = images.device
            self.network.to(images.device)
        self._prepare(len(images), first_index, seeds)
        if self._channels_last and images.ndim == 4:
            images = images.contiguous(memory_format=torch.channels_last)
        with exact_products(images.device):
            if self._is_traced:
                try:
                    return self._traced(self.network, images)
                except Exception as error:  # control flow that depends on data, no compiler, ...
                    _log.warning("Tracing failed, the network runs step by step: %s", error)
                    self._is_traced = False
                    self._prepare(len(images), first_index, seeds)
            outputs: Tensor = self.network(images)
            return outputs

    def _prepare(self, n_images: int, first_index: int, seeds: Callable[..., int]) -> None:
        for layer in self.layers.values():
            layer.prepare(n_images, first_index, seeds, self._where)
        for norm in self._norms:
            norm.refresh()

    def _set_layout(self, channels_last: bool) -> None:
        self._channels_last = channels_last
        for layer in self.layers.values():
            layer.channels_last = channels_last
        for array in self.tiles:
            array.has_changed = True

    def _probe(self, image: Tensor, first_index: int, seeds: Callable[..., int]) -> None:
        """Run one image: choose the memory layout, count multiplications.

        Narrow convolutions (LeNet-5) are fastest with channels outermost and step by step, unless
        torch pools, which it does fast only with channels innermost (``MaxPool2d(2)`` is ours).
        """
        counts: list[int] = []
        hooks = [
            layer.register_forward_hook(
                lambda layer, _, out: counts.append(out.numel() * math.prod(layer.shape[1:]))
            )
            for layer in self.layers.values()
        ]
        self._is_traced = False
        try:
            with _PoolingSeen() as pooling:
                self.forward(image, first_index, seeds)
            if self._is_narrow and pooling.seen:
                self._is_narrow = False
                self._set_layout(channels_last=True)
                counts.clear()
                self.forward(image, first_index, seeds)
        except RuntimeError:
            if not self._channels_last:
                raise
            # `view` of what is not contiguous, most often
            self._set_layout(channels_last=False)
            counts.clear()
            self.forward(image, first_index, seeds)
        finally:
            for hook in hooks:
                hook.remove()
        is_long = sum(counts) * self._expected_images > LONG_JOB * len(self.layers)
        self._is_traced = is_long and not self._is_narrow

    @functools.cached_property
    def _traced(self) -> Callable[[nn.Module, Tensor], Tensor]:
        structures = [(name, layer.structure) for name, layer in self.layers.items()]
        return _tracer(f"{self.network} {structures}")


class _PoolingSeen(TorchFunctionMode):
    """Whether torch's own two-dimensional pooling runs within a block."""

    def __init__(self) -> None:
        super().__init__()
        self.seen = False

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.seen = self.seen or "pool2d" in getattr(func, "__name__", "")
        return func(*args, **(kwargs or {}))


@functools.lru_cache(maxsize=32)
def _tracer(structure: str) -> Callable[[nn.Module, Tensor], Tensor]:
    """Give every structure a traced function of its own; torch's guards keep them right.

    A code object of its own, too: by these torch counts and searches its graphs, eight at most.
    """

    def run(network: nn.Module, images: Tensor) -> Tensor:
        outputs: Tensor = network(images)
        return outputs

    run.__code__ = run.__code__.replace()
    return torch.compile(run, fullgraph=True, dynamic=False, options={"compile_threads": 1})
