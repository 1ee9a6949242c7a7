"""Per-vector computation: input scaling, currents or noise depend on each input vector.

Follows aihwkit's C++ tile. Each input vector (a patch of a convolution) may have its own DAC range;
products that clip may be repeated at half the input; outputs are reduced by the IR drop and get
read noise of the weights. Every row block of a layer has its own scales, ADC and noise. The
computation runs in C (``per_vector.c``), or in torch operations where there is no compiler
(:func:`_outputs_of_array`). Linear layers with a fixed range also run here: they are one C call.
"""

import ctypes
import functools
import itertools
import math
from collections.abc import Sequence
from functools import partial
from typing import Any, Self
from weakref import WeakValueDictionary

import torch
from torch import Tensor
from torch.nn import functional as F

from analog_samson.compiled import kernels, operations
from analog_samson.compiled.computing import CPU, Computing, Pass
from analog_samson.compiled.geometry import Geometry
from analog_samson.compiled.mapped import Array, MappedLayer
from analog_samson.compiled.structs import Constants, Layer, Walk, constants

_NEXT_ROUND = 0xD1B54A32D192ED03  # added to the key of the noise when a product is repeated


class PerVector(Computing):
    """Per-vector computation of a layer, in fp32.

    Attributes:
        n_chips: Chips whose contents are loaded; their inputs lie chip after chip.
    """

    n_chips = 1
    is_batch_invariant = True  # in C: fixed order of summation; torch operations: not guaranteed

    def __init__(self, mapped: MappedLayer) -> None:
        super().__init__(mapped)
        steps = mapped.dac_step, mapped.adc_step
        self._constants = constants(mapped.periphery, mapped.input_range, *steps)
        self._order = _order(mapped.geometry)
        self._bias = torch.zeros(mapped.geometry.shape[0]) if mapped.bias is None else mapped.bias
        self._contents: list[Tensor] = []
        self._sized: dict[tuple[tuple[int, int, int], int], _Sized] = {}

    @property
    def structure(self) -> tuple[object, ...]:
        """What a traced graph depends on in addition to shapes."""
        return ("vectors",)

    def fresh(self) -> Self:
        """A copy for another chip; constants are shared."""
        other = super().fresh()
        other._sized = {}
        return other

    def load(self, arrays: Sequence[Array], where: torch.device) -> None:
        """Load weights in ADC steps per DAC step, also packed for the C library."""
        mapped, n_chips = self.mapped, self.n_chips
        whole = mapped.weights_in_steps(arrays)
        packed = F.pad(whole.reshape(n_chips, -1), (1, 0)).index_select(1, self._order.packing)
        in_range = 1.0 if math.isnan(mapped.input_range) else mapped.input_range
        scales = mapped.scales(arrays) * (in_range * (mapped.adc_step or 1.0))
        scales = scales.reshape(n_chips, -1, scales.shape[-1]).mT
        contents = [whole, packed, self._order.places, scales.contiguous(), self._bias]
        is_here = where == CPU  # calls that copy nothing take time, too
        self._contents = contents if is_here else [tensor.to(where) for tensor in contents]

    def __getstate__(self) -> dict[str, Any]:
        """Leave pointers into memory out of pickles and copies; they are created again."""
        return vars(self) | {"_sized": {}}

    def __call__(self, x: Tensor, now: Pass) -> Tensor:
        """Convert to (images or their windows, height, width, channels), compute, convert back."""
        rank = self.geometry.rank
        if rank == 2:
            inputs = x.permute(0, 2, 3, 1)
        elif rank == 1:
            inputs = x.transpose(1, 2)[:, None]
        else:
            inputs = x.reshape(now.n_images, 1, -1, x.shape[-1])
        out = self._multiply(inputs, now)
        now.call += 1  # the next use of the layer in this pass draws other noise
        if rank == 2:
            out = out.permute(0, 3, 1, 2)
            return out if self.channels_last else out.contiguous()
        if rank == 1:
            return out[:, 0].transpose(1, 2).contiguous()
        return out.view(*x.shape[:-1], -1)

    def _multiply(self, x: Tensor, now: Pass) -> Tensor:
        n, height, width, channels = x.shape
        wanted = self.geometry.shape[1] * self.geometry.groups
        if channels != wanted:
            raise RuntimeError(
                f"Layer {self.mapped.name!r} takes {wanted} channels; got {channels}."
            )
        size = (height, width, channels), n // now.n_images
        given = x, self._contents, now.stream, now.call
        rows, columns = self.geometry.rows, self.geometry.columns
        if torch.compiler.is_compiling():
            sizes = [*self.geometry.walk(*size), len(rows), *rows, *columns]
            out: Tensor = _operation(*given, self._constants, sizes)
            return out
        if size not in self._sized:
            values = Constants(*self._constants.tolist())
            self._sized[size] = _Sized(values, self.geometry.walk(*size), rows, columns)
        return self._sized[size](*given)


class _Order:
    """Order of the rows and of the weights of a layer in the C library; made when first used.

    Args:
        rows: Sizes of the row blocks.
        columns: Sizes of the column blocks of a group.
        n_outputs: Columns of all groups.
        taps: Positions of the kernel.
    """

    def __init__(
        self, rows: tuple[int, ...], columns: tuple[int, ...], n_outputs: int, taps: int
    ) -> None:
        self._rows, self._columns = list(rows), list(columns)
        self._n_outputs, self._taps = n_outputs, taps

    @functools.cached_property
    def _of_blocks(self) -> list[Tensor]:
        """Row order of each block as patches lie in memory: by kernel position, then channel."""
        ends = itertools.accumulate(self._rows, initial=0)
        numbers = (torch.arange(first, end) for first, end in itertools.pairwise(ends))
        return [torch.argsort(each % self._taps, stable=True) for each in numbers]

    @functools.cached_property
    def places(self) -> Tensor:
        """Share of the IR drop of every row."""
        return torch.cat([1 - (1 - order / len(order)) ** 2 for order in self._of_blocks])

    @functools.cached_property
    def packing(self) -> Tensor:
        """Indices of weights, from 1, in the order in which the C library reads them; 0: padding.

        For every block of rows, group and block of columns: panels of columns as wide as a vector
        of the processor, rows in memory order. Empty if there is no C library.
        """
        built = kernels.library()
        if built is None:
            return torch.zeros(0, dtype=torch.int32)
        lanes, n_weights = built.lanes(), self._n_outputs * sum(self._rows)
        numbers = torch.arange(1, 1 + n_weights, dtype=torch.int32).view(self._n_outputs, -1)
        blocks = torch.split(numbers, self._rows, dim=1)
        parts = []
        for block, order in zip(blocks, self._of_blocks, strict=True):
            for group in torch.split(block[:, order], sum(self._columns)):
                for part in torch.split(group, self._columns):
                    panels = F.pad(part, (0, 0, 0, -len(part) % lanes))
                    panels = panels.view(-1, lanes, len(order))
                    parts.append(panels.transpose(1, 2).flatten())
        return torch.cat(parts)


_orders: WeakValueDictionary[tuple[object, ...], _Order] = WeakValueDictionary()


def _order(geometry: Geometry) -> _Order:
    """The order of a layer, which layers of equal geometry share as long as one of them exists."""
    taps = math.prod(geometry.shape[2:])
    key = tuple(geometry.rows), tuple(geometry.columns), geometry.shape[0], taps
    found = _orders.get(key)
    if found is None:
        found = _orders[key] = _Order(*key)
    return found


class _Sized:
    """Computation of a layer for inputs of one size, in C or in torch operations.

    Args:
        values: Constants of the periphery.
        walk: How the kernel moves over the inputs.
        rows: Sizes of the row blocks.
        columns: Sizes of the column blocks.
    """

    def __init__(
        self, values: Constants, walk: Walk, rows: Sequence[int], columns: Sequence[int]
    ) -> None:
        self._values, self._walk = values, walk
        self._rows, self._columns = list(rows), list(columns)
        self._keys = (ctypes.c_uint64 * len(rows))()
        self._layer = Layer(
            *walk,
            len(rows),
            len(columns),
            (ctypes.c_int64 * len(rows))(*rows),
            (ctypes.c_int64 * len(columns))(*columns),
            keys=self._keys,
            **values._asdict(),
        )

    def __call__(self, x: Tensor, contents: Sequence[Tensor], stream: Tensor, call: int) -> Tensor:
        """Outputs, shape (n, out_height, out_width, columns of all groups).

        Args:
            x: Inputs, shape (n, height, width, channels), chip after chip.
            contents: Weights in ADC steps per DAC step, shape (columns of all groups, rows); the
                same, packed, shape (chips, n); share of the IR drop of every row; model units per
                ADC step, shape (chips, row blocks, columns of all groups); offsets, shape (columns
                of all groups,).
            stream: As in ``Pass``; of several chips one each.
            call: Number of earlier uses of the layer in this pass.
        """
        built = kernels.library_for(x) if contents[1].numel() else None
        if built is None:
            return self._in_torch(x, contents, stream, call)
        walk, x = self._walk, x.contiguous()
        out = x.new_empty(len(x), walk.out_height, walk.out_width, walk.groups * walk.columns)
        if not out.numel():
            return out
        layer, (_, weights, places, scales, offsets) = self._layer, contents
        layer.places, layer.offsets = places.data_ptr(), offsets.data_ptr()
        pointer, n_chips = ctypes.byref(layer), len(weights)
        n_images = len(x) // walk.inputs_an_image // n_chips
        # address of the first chip, and bytes of each chip
        held = weights, scales, x, out
        lies = [(each.data_ptr(), 4 * each.numel() // n_chips) for each in held]
        step_a, step_b = (size // n_images for _, size in lies[2:])

        def run(a: int, b: int, first_image: int, first: int, count: int) -> int:
            inputs, outputs = a + first * step_a, b + first * step_b
            return int(built.per_vector(pointer, inputs, outputs, count, first_image + first))

        for chip, (first_image, *keys) in enumerate(stream.view(n_chips, -1).tolist()):
            layer.weights, layer.scales, a, b = (start + chip * size for start, size in lies)
            self._keys[:] = [operations.key_of_call(key, call) for key in keys]
            kernels.share(partial(run, a, b, first_image), n_images)
        return out

    def _in_torch(self, x: Tensor, contents: Sequence[Tensor], stream: Tensor, call: int) -> Tensor:
        """The same in torch operations."""
        walk = self._walk
        weights, _, _, (scales,), offsets = contents
        if self._values.input_range:
            x = (x / self._values.input_range).clamp(-1, 1)
        patches = F.unfold(
            x.movedim(-1, 1),
            (walk.kernel_height, walk.kernel_width),
            dilation=(walk.dilation_y, walk.dilation_x),
            padding=(walk.top, walk.left),
            stride=(walk.stride_y, walk.stride_x),
        )
        # (inputs, positions, groups, rows); weights: (groups, columns, rows)
        patches = patches.transpose(1, 2)
        patches = patches.reshape(*patches.shape[:2], walk.groups, -1)
        whole = weights.view(walk.groups, walk.columns, -1)
        shape = (*patches.shape[:3], walk.columns)
        total = offsets.view(walk.groups, walk.columns).expand(shape)
        for key, block, block_weights, scale in zip(
            operations.key_of_call(stream[1:], call),
            torch.split(patches, self._rows, dim=3),
            torch.split(whole, self._rows, dim=2),
            scales,
            strict=True,
        ):
            outputs = []
            for part in torch.split(torch.arange(walk.columns, device=x.device), self._columns):
                noise = partial(_noise, key, stream[0], shape, walk, part)
                outputs.append(
                    _outputs_of_array(block, block_weights[:, part], noise, self._values)
                )
            total = total + torch.cat(outputs, dim=-1) * scale.view(walk.groups, -1)
        return total.reshape(len(x), walk.out_height, walk.out_width, -1)


def _run(
    x: Tensor, contents: list[Tensor], stream: Tensor, call: int, values: Tensor, sizes: list[int]
) -> Tensor:
    """:class:`_Sized` as an operation of a traced network.

    Args:
        x: As for :class:`_Sized`; so are contents, stream and call.
        contents: See x.
        stream: See x.
        call: See x.
        values: From :func:`~analog_samson.compiled.structs.constants`, on the CPU.
        sizes: Fields of the walk, number of row blocks, sizes of row blocks, of column blocks.
    """
    n = len(Walk._fields)
    walk, (n_rows, *blocks) = Walk(*sizes[:n]), sizes[n:]
    sized = _Sized(Constants(*values.tolist()), walk, blocks[:n_rows], blocks[n_rows:])
    return sized(x, contents, stream, call)


_operation = torch.library.custom_op("analog_samson::per_vector", _run, mutates_args=())


@_operation.register_fake
def _(x: Tensor, *others: object) -> Tensor:
    walk = Walk(*others[-1][: len(Walk._fields)])  # type: ignore[index]
    return x.new_empty(len(x), walk.out_height, walk.out_width, walk.groups * walk.columns)


def _noise(
    key: Tensor,
    first_image: Tensor,
    shape: tuple[int, ...],
    walk: Walk,
    part: Tensor,
    repeated: int,
) -> Tensor:
    """Standard normals of some columns; ``repeated`` counts repetitions of the product."""
    n_images = shape[0] // walk.inputs_an_image
    of_an_image = (n_images, math.prod(shape) // n_images)
    round_key = operations.shifted(key, repeated * _NEXT_ROUND)
    drawn = operations.normals(round_key, first_image, of_an_image, part.device)
    return drawn.view(shape)[..., part]


def _outputs_of_array(
    x: Tensor, weights: Tensor, noise: "partial[Tensor]", values: Constants
) -> Tensor:
    """All steps of the periphery, for one array in every group.

    Args:
        x: Inputs, shape (..., groups, rows).
        weights: ADC steps per DAC step, shape (groups, columns, rows).
        noise: Maps the number of repetitions to standard normals of the outputs.
        values: Constants of the periphery.

    Returns:
        Outputs in ADC steps times the scale of the inputs, shape (..., groups, columns).
    """
    largest = x.new_ones(*x.shape[:-1], 1)
    if not values.input_range:
        largest = x.abs().amax(dim=-1, keepdim=True)
    halving, repeated = torch.ones_like(largest), 0
    done = largest == 0
    out = x.new_zeros(*x.shape[:-1], weights.shape[1])
    while True:
        levels = _dac(x * (1 / largest / halving), values)
        y = _times(levels, weights)
        y = _less_ir_drop(y, levels, weights, values)
        y = _with_noise(y, levels, weights, values, noise, repeated)
        y = y.round() if values.rounds else y  # ADC
        is_clipped = (y.abs() > values.largest_fit).any(dim=-1, keepdim=True)
        y = y.clamp(-values.output_levels, values.output_levels) * (largest * halving)
        out = torch.where(done, out, y)
        done = done | ~is_clipped
        if 2.0**repeated > values.most_halvings or bool(done.all()):
            return out
        repeated += 1  # bound management: repeat clipped products at half the input
        halving = torch.where(done, halving, 2.0**repeated)


def _dac(x: Tensor, values: Constants) -> Tensor:
    if not values.step:
        return x
    return (x / values.step).round().clamp(-values.levels, values.levels)


def _times(x: Tensor, weights: Tensor) -> Tensor:
    return torch.einsum("...gk,gck->...gc", x, weights)


def _less_ir_drop(y: Tensor, levels: Tensor, weights: Tensor, values: Constants) -> Tensor:
    """Subtract the IR drop along columns; it grows with the column current and the distance."""
    if not values.drop:
        return y
    n = weights.shape[-1]
    far = 1 - torch.arange(n, device=weights.device) / n
    a = values.current * n * _times(levels.abs(), weights.abs())
    lost = a * (a * (0.05 * a - 0.2) + 0.5)
    return y - values.drop * lost * _times(levels, weights * (1 - far * far))


def _with_noise(
    y: Tensor,
    levels: Tensor,
    weights: Tensor,
    values: Constants,
    noise: "partial[Tensor]",
    repeated: int,
) -> Tensor:
    """Add output noise and read noise of weights as one normal with the sum of the variances."""
    if not (values.output_noise or values.additive_variance or values.read_variance):
        return y
    variance = torch.full_like(y[..., :1], values.output_noise**2)
    if values.additive_variance:
        variance = variance + values.additive_variance * (levels**2).sum(dim=-1, keepdim=True)
    if values.read_variance:
        variance = variance + values.read_variance * _times(levels**2, weights.abs())
    return y + variance.sqrt() * noise(repeated)
