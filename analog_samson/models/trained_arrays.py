"""Scales and input ranges of arrays that a layer was trained with, where training fixed them.

Hardware-aware training elsewhere (aihwkit) learns them with the weights, one range an array. The
digital layer then holds them as buffers, so that they are saved with its weights.
"""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

SCALES, RANGES = "array_scales", "array_ranges"

Range = float | Sequence[Sequence[float]]
"""Input range of the DAC of a layer, model units; or of each array: blocks of rows, of columns."""


def hold_arrays(layer: nn.Module, scales: Tensor, ranges: Tensor | None) -> None:
    """Let a digital layer hold the scales and input ranges of the arrays it was trained on.

    Args:
        layer: The layer, changed in place.
        scales: Model units of a normalised weight, shape (row blocks, outputs).
        ranges: Input ranges, model units, shape (row blocks, column blocks); None: not fixed.

    Example:
        >>> layer = nn.Linear(4, 2)
        >>> hold_arrays(layer, scales=torch.ones(1, 2), ranges=torch.tensor([[3.0]]))
        >>> held_ranges({"fc": layer})
        {'fc': ((3.0,),)}
    """
    layer.register_buffer(SCALES, scales)
    if ranges is not None:
        layer.register_buffer(RANGES, ranges)


def held_scales(layer: nn.Module) -> Tensor | None:
    """The scales of `hold_arrays`; None if training did not fix them."""
    return layer._buffers.get(SCALES)


def held_ranges(layers: Mapping[str, nn.Module]) -> dict[str, Range]:
    """The input ranges of `hold_arrays`, of the layers that hold them.

    Example:
        >>> layer = nn.Linear(4, 2)
        >>> hold_arrays(layer, scales=torch.ones(1, 2), ranges=torch.tensor([[3.0]]))
        >>> held_ranges({"fc": layer})
        {'fc': ((3.0,),)}
    """
    return {
        name: tuple(tuple(row) for row in ranges.tolist())
        for name, layer in layers.items()
        if (ranges := layer._buffers.get(RANGES)) is not None
    }


def scales_for(name: str, layer: nn.Module, n_row_blocks: int) -> Tensor | None:
    """The scales that a layer holds, for its arrays on a device.

    Args:
        name: Name of the layer, for messages.
        layer: The layer.
        n_row_blocks: Blocks of rows that the device splits it into.

    Returns:
        Shape (row blocks, outputs); None if the layer holds none.

    Raises:
        ValueError: If it was trained on another number of blocks, with different scales.

    Example:
        >>> layer = nn.Linear(4, 2)
        >>> scales_for("fc", layer, n_row_blocks=1) is None
        True
        >>> hold_arrays(layer, scales=torch.ones(1, 2), ranges=None)
        >>> scales_for("fc", layer, n_row_blocks=1)
        tensor([[1., 1.]])
    """
    scales = held_scales(layer)
    if scales is None or len(scales) == n_row_blocks:
        return scales
    if bool((scales == scales[0]).all()):
        return scales[:1].expand(n_row_blocks, -1)
    raise ValueError(_other_split(name, f"{len(scales)} block(s) of rows", f"{n_row_blocks}"))


def ranges_for(name: str, given: Range, n_row_blocks: int, n_column_blocks: int) -> Tensor:
    """Input ranges of the arrays of a layer on a device.

    Args:
        name: Name of the layer, for messages.
        given: One range, or one for each array.
        n_row_blocks: Blocks of rows that the device splits it into.
        n_column_blocks: Blocks of columns.

    Returns:
        Shape (row blocks, column blocks).

    Raises:
        ValueError: If ranges by array are not of that shape and differ.

    Example:
        >>> ranges_for("fc", 3.0, n_row_blocks=2, n_column_blocks=1)
        tensor([[3.],
                [3.]], dtype=torch.float64)
    """
    ranges = torch.tensor(given, dtype=torch.float64)
    shape = n_row_blocks, n_column_blocks
    if tuple(ranges.shape) == shape or not ranges.ndim or bool((ranges == ranges[0, 0]).all()):
        return ranges.expand(shape) if tuple(ranges.shape) == shape else ranges.max().expand(shape)
    own = " x ".join(map(str, ranges.shape))
    raise ValueError(_other_split(name, f"{own} arrays", " x ".join(map(str, shape))))


def _other_split(name: str, trained: str, here: str) -> str:
    return (
        f"Layer {name!r} was trained on {trained} with scales and input ranges of their own, and "
        f"this device splits it into {here}; give a device with the mapping.max_rows and "
        "max_columns of the training, or import the network without its arrays (own_arrays=False)."
    )
