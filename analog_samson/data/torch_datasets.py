"""Data sets of torch: what `"package.module:function"` may return instead of a `Dataset`."""

from typing import Any

import numpy as np
from torch import Tensor
from torch.utils.data import Dataset as TorchDataset

from analog_samson.data.array_layout import found_arrays
from analog_samson.data.parts import Found


def is_pair(found: object) -> bool:
    """Whether an object is a pair of torch data sets, or three of them."""
    return (
        isinstance(found, tuple | list)
        and len(found) in (2, 3)
        and all(isinstance(part, TorchDataset) for part in found)
    )


def from_torch(parts: Any, name: str) -> Found:
    """Read torch data sets into memory, sample by sample.

    Args:
        parts: Training and test part, or training, validation and test part; samples are pairs of
            an input (tensor, array or Pillow image) and a target.
        name: Name of the function, for messages.

    Raises:
        ValueError: If a part has no length, is empty, or its samples are no pairs or of several
            shapes.
    """
    names = ("train", "test") if len(parts) == 2 else ("train", "validation", "test")
    inputs, targets = {}, {}
    for part, dataset in zip(names, parts, strict=True):
        where = f"the {part} part of {name!r}"
        inputs[part], targets[part] = _read(dataset, where)
    class_names = tuple(str(one) for one in getattr(parts[0], "classes", ()))
    return found_arrays(inputs, targets, class_names, name)


def _read(dataset: Any, where: str) -> tuple[Any, Any]:
    try:
        n = len(dataset)
    except (TypeError, NotImplementedError) as error:
        raise ValueError(
            f"{where[0].upper()}{where[1:]} has no length; return data sets with __len__ and "
            "__getitem__."
        ) from error
    if not n:
        raise ValueError(f"{where[0].upper()}{where[1:]} is empty; return at least one sample.")
    inputs, targets = [], []
    for row in range(n):
        try:
            sample = dataset[row]
        except Exception as error:  # whatever the data set of the user raises
            raise ValueError(
                f"Sample {row} of {where} cannot be read ({type(error).__name__}: {error})."
            ) from error
        if not isinstance(sample, tuple | list) or len(sample) != 2:
            raise ValueError(
                f"Sample {row} of {where} is {type(sample).__name__}, not a pair of an input and a "
                "target; return pairs."
            )
        inputs.append(_array(sample[0]))
        targets.append(_array(sample[1]))
        if (inputs[-1].shape, targets[-1].shape) != (inputs[0].shape, targets[0].shape):
            raise ValueError(
                f"Sample {row} of {where} has shapes {inputs[-1].shape} and {targets[-1].shape}, "
                f"the first {inputs[0].shape} and {targets[0].shape}; all need the same: crop, "
                f"pad or resize them."
            )
    return np.stack(inputs), np.stack(targets)


def _array(value: Any) -> np.ndarray[Any, Any]:
    if isinstance(value, Tensor):
        return value.detach().cpu().numpy()
    if hasattr(value, "convert"):  # a Pillow image
        pixels = np.asarray(value if value.mode in ("L", "RGB") else value.convert("RGB"))
        return pixels[None] if pixels.ndim == 2 else pixels.transpose(2, 0, 1)
    return np.asarray(value)
