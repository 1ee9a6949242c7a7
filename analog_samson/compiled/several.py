"""Several chips of one network in one forward pass, for devices that a chip alone does not fill.

The first dimension holds chips x images, chip after chip, so whatever is digital runs on it as it
is. A layer multiplies all chips at once: a convolution in groups of channels, one or more a chip; a
linear layer as a batch of matrices. Every chip meets the integers it draws alone. Where the
periphery looks at every vector, a layer runs chip after chip.
"""

import copy
from collections.abc import Callable, Sequence
from operator import is_

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from analog_samson.compiled import operations
from analog_samson.compiled.layers import CPU, FunctionalLayer, Pass
from analog_samson.compiled.network import FunctionalNetwork

Seeds = Callable[..., int]


class StackedNetwork(FunctionalNetwork):
    """The networks of several chips, whose digital parts and devices are the same.

    Args:
        networks: One a chip; they keep their arrays and can still run alone.
    """

    def __init__(self, networks: Sequence[FunctionalNetwork]) -> None:
        first = networks[0]
        self.networks = tuple(networks)
        self.device, self.precision = first.device, first.precision
        self.has_input_ranges = first.has_input_ranges
        self.stacks = {
            name: StackedLayer([network.layers[name] for network in networks])
            for name in first.layers
        }
        self.layers = dict(self.stacks)
        self.tiles = [tile for network in networks for tile in network.tiles]
        # the digital part is copied; a stack takes the place of every analog layer
        in_place = {id(layer): self.stacks[name] for name, layer in first.layers.items()}
        self.network = copy.deepcopy(first.network, in_place).to(CPU)
        self._where = CPU
        self._is_traced: bool | None = None
        self._channels_last = first._channels_last
        self._seeds: Sequence[Seeds] = ()

    def answers(self, images: Tensor, first_index: int, seeds: Sequence[Seeds]) -> Tensor:
        """Outputs of all chips for the same images.

        Args:
            images: Network inputs, shape (n, ...).
            first_index: Number of the first image in the whole set.
            seeds: One a chip, as for one network: another object whenever a chip was read anew.

        Returns:
            Outputs, shape (chips, n, ...).
        """
        n_chips = len(self.networks)
        if self._is_traced is None:
            self._choose_layout(images[:1], seeds)
        every = images.repeat(n_chips, *[1] * (images.ndim - 1))
        if self._channels_last and every.ndim == 4:
            every = every.contiguous(memory_format=torch.channels_last)
        for layer in self.stacks.values():
            layer.images = every
        self._seeds = seeds
        outputs = self.forward(every, first_index, seeds[0])
        return outputs.view(n_chips, len(images), *outputs.shape[1:])

    def _prepare(self, n_images: int, first_index: int, seeds: Seeds) -> None:
        for layer in self.stacks.values():
            n = n_images // len(self.networks)
            layer.prepare_all(n, first_index, self._seeds, self._where)

    def _choose_layout(self, image: Tensor, seeds: Sequence[Seeds]) -> None:
        """Take layout and tracing from the first chip: how it runs alone, so do all together."""
        first = self.networks[0]
        if first._is_traced is None:
            with torch.no_grad():
                first._probe(torch.zeros_like(image, device=CPU), 0, seeds[0])
        for network in (*self.networks, self):
            network._set_layout(first._channels_last)
        self._is_traced = first._is_traced


class StackedLayer(FunctionalLayer):
    """One layer of several chips: as the layer of the first, weights of all along the outputs.

    Args:
        parts: The layer of every chip.

    Attributes:
        images: What the network was given. Where the layer sees that, and not what chips made of
            it, it is the same for all of them and multiplied once.
    """

    def __init__(self, parts: Sequence[FunctionalLayer]) -> None:
        nn.Module.__init__(self)
        vars(self).update({**vars(parts[0]), **vars(self)})  # its shape, blocks and converters
        self._by_vector = self._is_by_vector
        biases = [part.bias.to(CPU) for part in parts if part.bias is not None]
        self.register_buffer("bias", torch.stack(biases) if biases else None)
        self.arrays = [array for part in parts for array in part.arrays]
        self.images: Tensor | None = None
        self._parts = tuple(parts)
        self._now = Pass()
        self._chip_seeds: Sequence[Seeds] = ()
        self._is_shared = False

    def extra_repr(self) -> str:
        """Say how many chips."""
        return f"chips={len(self._parts)}"

    def model_weights(self) -> Tensor:
        """Weights in model units, shape (chips, *the layer's shape), without compensation."""
        return torch.stack([part.model_weights() for part in self._parts])

    def prepare_all(
        self, n_images: int, first_image: int, seeds: Sequence[Seeds], where: torch.device
    ) -> None:
        """Set what the next forward pass needs, of every chip.

        Args:
            n_images: Images a chip.
            first_image: Number of the first.
            seeds: One a chip; where they are the objects of the last time, no chip was read since.
            where: Device of the inputs.
        """
        self._now.call = 0
        if self._is_by_vector:
            for part, own in zip(self._parts, seeds, strict=True):
                part.prepare(n_images, first_image, own, where)
            return
        self._now.n_images = n_images * len(self._parts)
        is_known = len(seeds) == len(self._chip_seeds) and where == self._where
        if not (is_known and all(map(is_, seeds, self._chip_seeds))):
            for part, own in zip(self._parts, seeds, strict=True):
                part.prepare(n_images, first_image, own, in_blocks=True)
            self._stack()
            self._move_to(where)
            self._chip_seeds = tuple(seeds)
        self._stream[:, 0].fill_(first_image)

    def _stack(self) -> None:
        parts = self._parts
        self._weights, self._scales, self._offsets = (
            [combine(of_block) for of_block in zip(*contents, strict=True)]
            for combine, contents in (
                (torch.cat, [part._weights for part in parts]),
                (torch.stack, [part._scales for part in parts]),
                (torch.stack, [part._offsets for part in parts]),
            )
        )
        self._weights = [self._laid_out(weight) for weight in self._weights]
        self._stream = torch.stack([part._stream for part in parts])

    def forward(self, x: Tensor) -> Tensor:
        """Outputs of the layer for all chips, shape (chips x images, ...)."""
        if self._is_by_vector:
            pieces = x.chunk(len(self._parts))
            return torch.cat([part(piece) for part, piece in zip(self._parts, pieces, strict=True)])
        self._is_shared = x is self.images and self.groups == 1
        return super().forward(x[: len(x) // len(self._parts)] if self._is_shared else x)

    def _convert(
        self, product: Tensor, previous: Tensor | None, number: int, innermost: bool
    ) -> Tensor:
        return operations.adc(
            product.float(),
            previous,
            self._scales[number],
            self._offsets[number],
            operations.key_of_call(self._stream[:, 1 + number], self._now.call),
            self._stream[0, 0],
            self._limits,
            rounds=self._rounds,
            innermost=innermost,
            draws=self._is_noisy,
        )

    def _multiply(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        product = super()._multiply(x, weight, None)
        if bias is None:
            return product
        each = self._by_chip(product)
        ones = [1] * (each.ndim - 2)
        shape = (len(bias), 1, -1, *ones[1:]) if self._rank else (len(bias), *ones, -1)
        return (each + bias.view(shape)).flatten(0, 1)

    def _product(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        n_chips = len(self._parts)
        if not self._rank:
            matrices = weight.view(n_chips, -1, weight.shape[1])
            vectors = x.reshape(1 if self._is_shared else n_chips, -1, x.shape[-1])
            out = torch.bmm(vectors.expand(n_chips, -1, -1), matrices.mT)
            return out.view(-1, *x.shape[1:-1], matrices.shape[1])
        groups = self.groups
        if not self._is_shared:
            x, groups = self._side_by_side(x), groups * n_chips
        how = *self._how[:3], groups
        convolution = F.conv2d if self._rank == 2 else F.conv1d
        return self._one_by_one(convolution(x, weight, None, *how))

    def _by_chip(self, x: Tensor) -> Tensor:
        n_chips = len(self._parts)
        return x.view(n_chips, len(x) // n_chips, *x.shape[1:])

    def _side_by_side(self, x: Tensor) -> Tensor:
        """(chips x images, channels, ...) to (images, chips x channels, ...)."""
        each = self._by_chip(x)
        if self._rank == 2 and self.channels_last:
            return each.permute(1, 3, 4, 0, 2).flatten(3).movedim(-1, 1)
        return each.transpose(0, 1).flatten(1, 2)

    def _one_by_one(self, x: Tensor) -> Tensor:
        """(images, chips x channels, ...) to (chips x images, channels, ...)."""
        each = x.view(len(x), len(self._parts), -1, *x.shape[2:]).transpose(0, 1)
        if self._rank == 2 and self.channels_last:
            return each.movedim(2, -1).flatten(0, 1).movedim(-1, 1)
        return each.flatten(0, 1)
