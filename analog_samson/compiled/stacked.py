"""Batched inference over several chips of one network, for GPUs and small networks.

The first dimension of tensors is chips x images, chip after chip; digital layers are not changed.
An analog layer multiplies all chips in one call: a convolution as a grouped convolution, a linear
layer as a batch of matrices. Random integers are those of every chip alone. Layers with per-vector
computation run chip after chip; on a CPU only networks of such layers are stacked, which saves all
other calls. The rest of the engine does not depend on this file; its entry is
:class:`StackedNetwork`.
"""

import copy
from collections.abc import Callable, Sequence
from operator import is_

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from analog_samson.compiled import operations
from analog_samson.compiled.computing import CPU, Computing, Ideal, Pass
from analog_samson.compiled.layers import FunctionalLayer, Seeds, computing_for
from analog_samson.compiled.mapped import Array
from analog_samson.compiled.network import FunctionalNetwork
from analog_samson.compiled.operations import Converter
from analog_samson.compiled.per_vector import PerVector
from analog_samson.compiled.static_range import StaticRange
from analog_samson.compiled.tracing import Runner
from analog_samson.evaluation import exact_products

_ANYWHERE_BUT_IN_C = torch.device("meta")


class StackedNetwork:
    """The networks of several chips with equal digital parts and devices.

    Args:
        networks: One per chip; each can still run alone.
        in_c: Whether analog layers run in C, chip after chip, with the bits of each chip.
    """

    def __init__(self, networks: Sequence[FunctionalNetwork], in_c: bool = False) -> None:
        first = self._first = networks[0]
        self._n_chips = len(networks)
        self._layers = {
            name: StackedLayer([network.layers[name] for network in networks], in_c)
            for name in first.layers
        }
        # the digital part is copied; a stacked layer replaces every analog layer
        in_place = {id(layer): self._layers[name] for name, layer in first.layers.items()}
        network = copy.deepcopy(first.network, in_place).to(CPU)
        self._runner = Runner(network, first.execution, self._structure)
        self._where = CPU

    def _structure(self) -> tuple[object, ...]:
        return tuple((name, layer.structure) for name, layer in self._layers.items())

    @torch.no_grad()
    def forward(self, images: Tensor, first_index: int, seeds: Sequence[Seeds]) -> Tensor:
        """Outputs of all chips for the same images.

        Args:
            images: Network inputs, shape (n, ...).
            first_index: Index of the first image in the whole set.
            seeds: One per chip, as for one network; a new object after every read of a chip.

        Returns:
            Outputs, shape (chips, n, ...).
        """
        with self._first.eager(torch.zeros_like(images[:1], device=CPU), seeds[0]):
            pass  # decides layout and tracing as for the first chip alone
        if images.device != self._where:
            self._where = images.device
            self._runner.network.to(images.device)
        every = images.repeat(self._n_chips, *[1] * (images.ndim - 1))
        if self._runner.execution.channels_last and every.ndim == 4:
            every = every.contiguous(memory_format=torch.channels_last)

        def prepare() -> None:
            for layer in self._layers.values():
                layer.prepare(every, first_index, seeds, self._runner.execution.channels_last)

        with exact_products(images.device):
            outputs = self._runner(every, prepare, eager=False)
        return outputs.view(self._n_chips, len(images), *outputs.shape[1:])


class StackedLayer(nn.Module):
    """One layer of several chips.

    Args:
        parts: The layer of each chip.
        in_c: As for :class:`StackedNetwork`.
    """

    def __init__(self, parts: Sequence[FunctionalLayer], in_c: bool = False) -> None:
        super().__init__()
        first = parts[0]
        self._parts = tuple(parts)
        self._every: Tensor | None = None
        self._seeds: Sequence[Seeds] = ()
        self._where: torch.device | None = None
        self._now = Pass(len(first.mapped.geometry.rows))
        self._single: list[Computing] = []
        self._computing: _StackedIdeal | _StackedStaticRange | _StackedPerVector | None = None
        if in_c:
            if type(first.computing) is PerVector:
                self._computing = _StackedPerVector(first, len(parts))
            return
        # one per chip; their tensors are stacked
        self._single = [computing_for(part.mapped, _ANYWHERE_BUT_IN_C) for part in parts]
        if isinstance(self._single[0], Ideal):
            self._computing = _StackedIdeal(first, len(parts))
        elif isinstance(self._single[0], StaticRange):
            self._computing = _StackedStaticRange(first, len(parts))

    @property
    def structure(self) -> tuple[object, ...]:
        """What a traced graph of this layer depends on; everything else is a tensor."""
        first, n_chips = self._parts[0], len(self._parts)
        how = first.computing if self._computing is None else self._computing
        settings = how.channels_last, first.mapped.dtype
        return n_chips, *first.mapped.geometry.structure, *settings, *how.structure

    def prepare(
        self, every: Tensor, first_image: int, seeds: Sequence[Seeds], channels_last: bool
    ) -> None:
        """Prepare the next forward pass for every chip.

        Args:
            every: Inputs of the network. A layer whose input is this tensor, equal for all chips,
                converts it only once.
            first_image: Index of the first image.
            seeds: One per chip; the same objects as in the previous call mean that no chip was
                read in between.
            channels_last: Whether channels are the innermost dimension of images.
        """
        n_images, where = len(every) // len(self._parts), every.device
        self._every, self._now.call = every, 0
        if self._computing is None:
            for part, own in zip(self._parts, seeds, strict=True):
                part.prepare(n_images, first_image, own, where)
            return
        self._now.n_images = len(every)
        is_known = len(seeds) == len(self._seeds) and where == self._where
        if not (is_known and all(map(is_, seeds, self._seeds))):
            for single in (*self._single, self._computing):
                single.channels_last = channels_last
            if isinstance(self._computing, _StackedPerVector):
                self._computing.load(_stacked_arrays(self._parts), where)
            else:
                for part, single in zip(self._parts, self._single, strict=True):
                    single.load(part.arrays, CPU)
                self._computing.stack(self._single, where)
            keys = [part.keys(own) for part, own in zip(self._parts, seeds, strict=True)]
            self._now.stream = torch.tensor([[first_image, *each] for each in keys]).to(where)
            self._seeds, self._where = tuple(seeds), where
        self._now.stream[:, 0].fill_(first_image)

    def forward(self, x: Tensor) -> Tensor:
        """Outputs of the layer for all chips, shape (chips x images, ...)."""
        if self._computing is None:
            pieces = x.chunk(len(self._parts))
            return torch.cat([part(piece) for part, piece in zip(self._parts, pieces, strict=True)])
        is_shared = x is self._every and self._computing.shares_inputs
        self._computing.is_shared = is_shared
        return self._computing(x[: len(x) // len(self._parts)] if is_shared else x, self._now)

    def extra_repr(self) -> str:
        """The number of chips, for ``repr``."""
        return f"chips={len(self._parts)}"


def _stacked_arrays(parts: Sequence[FunctionalLayer]) -> list[Array]:
    """The arrays of a layer with the weights and factors of all chips, shape (chips, ...)."""
    found = []
    for arrays in zip(*[part.arrays for part in parts], strict=True):
        together = copy.copy(arrays[0])
        together.weights = torch.stack([array.weights for array in arrays])
        together.alpha = torch.stack([array.alpha for array in arrays])
        found.append(together)
    return found


class _OfChips(Computing):
    """Common part of the computations of several chips.

    Attributes:
        n_chips: Number of chips.
        shares_inputs: Whether inputs that are equal for all chips may be given once.
        is_shared: Whether they are.
    """

    def __init__(self, first: FunctionalLayer, n_chips: int) -> None:
        super().__init__(first.mapped)
        self.n_chips, self.is_shared = n_chips, False
        self.shares_inputs = self.geometry.groups == 1

    def _product(self, x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
        """The products of all chips in one call, without bias."""
        x, geometry, n_chips = x.to(self.mapped.dtype), self.geometry, self.n_chips
        if not geometry.rank:
            matrices = weight.view(n_chips, -1, weight.shape[1])
            vectors = x.reshape(1 if self.is_shared else n_chips, -1, x.shape[-1])
            out = torch.bmm(vectors.expand(n_chips, -1, -1), matrices.mT)
            return out.view(-1, *x.shape[1:-1], matrices.shape[1])
        groups = geometry.groups
        if not self.is_shared:
            x, groups = self._side_by_side(x), groups * n_chips
        convolution: Callable[..., Tensor] = F.conv2d if geometry.rank == 2 else F.conv1d
        return self._one_by_one(convolution(x, weight, None, *geometry.how[:3], groups))

    def _by_chip(self, x: Tensor) -> Tensor:
        return x.view(self.n_chips, len(x) // self.n_chips, *x.shape[1:])

    def _side_by_side(self, x: Tensor) -> Tensor:
        """(chips x images, channels, ...) to (images, chips x channels, ...)."""
        each = self._by_chip(x)
        if self.geometry.rank == 2 and self.channels_last:
            return each.permute(1, 3, 4, 0, 2).flatten(3).movedim(-1, 1)
        return each.transpose(0, 1).flatten(1, 2)

    def _one_by_one(self, x: Tensor) -> Tensor:
        """(images, chips x channels, ...) to (chips x images, channels, ...)."""
        each = x.view(len(x), self.n_chips, -1, *x.shape[2:]).transpose(0, 1)
        if self.geometry.rank == 2 and self.channels_last:
            return each.movedim(2, -1).flatten(0, 1).movedim(-1, 1)
        return each.flatten(0, 1)


class _StackedIdeal(_OfChips, Ideal):
    def stack(self, chips: Sequence[Computing], where: torch.device) -> None:
        """Stack the tensors of all chips."""
        ideal = [chip for chip in chips if isinstance(chip, Ideal)]
        weight = torch.cat([chip._weight for chip in ideal])
        self._weight = self._laid_out(weight).to(where)
        biases = [chip._bias for chip in ideal if chip._bias is not None]
        self._bias = torch.stack(biases).to(where) if biases else None

    def __call__(self, x: Tensor, now: Pass) -> Tensor:
        """Product and bias."""
        product = self._product(x, self._weight).to(x.dtype)
        if self._bias is None:
            return product
        each, rank = self._by_chip(product), self.geometry.rank
        ones = [1] * (each.ndim - 2)
        shape = (self.n_chips, 1, -1, *ones[1:]) if rank else (self.n_chips, *ones, -1)
        return (each + self._bias.view(shape)).flatten(0, 1)


class _StackedPerVector(_OfChips, PerVector):
    """Per-vector computation in C, chip after chip."""

    def __init__(self, first: FunctionalLayer, n_chips: int) -> None:
        super().__init__(first, n_chips)
        self.shares_inputs = False


class _StackedStaticRange(_OfChips, StaticRange):
    def stack(self, chips: Sequence[Computing], where: torch.device) -> None:
        """Stack the tensors of all chips; every quantity has one tensor per row block."""
        static = [chip for chip in chips if isinstance(chip, StaticRange)]
        self._blocks = []
        for of_chips in zip(*[chip._blocks for chip in static], strict=True):
            weights, converters = zip(*of_chips, strict=True)
            weight = self._laid_out(torch.cat(weights)).to(where)
            scale, offset = (
                torch.stack(each).to(where)
                for each in zip(*[how[:2] for how in converters], strict=True)
            )
            limits = converters[0].noise_and_bound.to(where)
            how = converters[0]._replace(scale=scale, offset=offset, noise_and_bound=limits)
            self._blocks.append((weight, how))
        self._dac_gain = static[0]._dac_gain.to(where)

    def _adc(
        self, product: Tensor, previous: Tensor | None, how: Converter, now: Pass, block: int
    ) -> Tensor:
        """Noise, ADC, bound and scale of a block of rows, added to the sum of earlier blocks."""
        keys = operations.key_of_call(now.stream[:, 1 + block], now.call)
        return operations.adc(product.float(), previous, how, keys, now.stream[0, 0])
