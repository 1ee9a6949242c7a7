"""Arrays: `.npz` files, and idx files as MNIST and its relatives are published in.

One `.npz` file holds `x_train`, `y_train`, `x_test`, `y_test` (and `x_validation`, `y_validation`),
or `x` and `y` where there are no parts; a folder holds `train.npz` and `test.npz` with `x` and `y`.
`class_names` in any of them names the classes; other arrays are not read.
"""

import math
import zipfile
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from analog_samson.data.encoded import first_line
from analog_samson.data.names import OwnName
from analog_samson.data.parts import PART_WORDS, Found, Split, part_of

Array = np.ndarray[Any, Any]


def read_arrays(place: Path, own: OwnName) -> Found:
    """Read one `.npz` file or a folder of them.

    Args:
        place: The file or folder.
        own: Its name, with the options.

    Raises:
        ValueError: If a file is damaged, arrays are missing, or are no numbers.
    """
    if place.is_file():
        whole = _load(place)
        by_part = {part: (f"x_{word}", f"y_{word}") for word, part in PART_WORDS.items()
                   if f"x_{word}" in whole}  # fmt: skip
        if not by_part and "x" in whole:
            by_part = {"train": ("x", "y")}
        if "train" not in by_part:
            raise ValueError(
                f"{place} holds {', '.join(whole) or 'nothing'}; it needs x_train, y_train, x_test "
                "and y_test, or x and y."
            )
        arrays = {part: (whole, keys, place) for part, keys in by_part.items()}
    else:
        files = sorted(path for path in place.iterdir() if path.suffix == ".npz")
        if len(files) == 1 and part_of(files[0].stem) is None:
            return read_arrays(files[0], own)
        named = {part_of(file.stem) or "": file for file in files}
        if "" in named or len(named) != len(files) or "train" not in named:
            raise ValueError(
                f"{place} holds {', '.join(file.name for file in files)}; it needs train.npz and "
                "test.npz (validation.npz is optional), or a single file."
            )
        arrays = {part: (_load(file), ("x", "y"), file) for part, file in named.items()}
    inputs = {part: _array(*given, 0) for part, given in arrays.items()}
    targets = {part: _array(*given, 1) for part, given in arrays.items()}
    names = _class_names(arrays["train"][0], targets)
    return found_arrays(inputs, targets, names, place)


def read_idx(place: Path, own: OwnName) -> Found:
    """Read idx files (`train-images-idx3-ubyte`, ...), anywhere below a folder.

    Args:
        place: The folder.
        own: Its name.

    Raises:
        ValueError: If a file is damaged, or a packed one beside it holds something else.
        FileNotFoundError: If one of a pair is missing.
    """
    files = idx_files(place)
    inputs: dict[str, Array] = {}
    targets: dict[str, Array] = {}
    for part in sorted({part for part, _ in files}):
        for what, held in (("images", inputs), ("labels", targets)):
            if (part, what) not in files:
                raise FileNotFoundError(f"{place} has no idx file of the {part} {what}; add it.")
            held[part] = _idx(files[part, what])
            check_packed(files[part, what])
    if "train" not in inputs:
        raise FileNotFoundError(f"{place} has no idx files of the training part; add them.")
    return found_arrays(inputs, targets, (), place)


def check_packed(file: Path) -> None:
    """Check that a packed file (.gz) beside a file, which is not read, holds the same.

    Raises:
        ValueError: If it holds something else.
    """
    packed = file.with_name(f"{file.name}.gz")
    if not packed.is_file():
        return
    content = file.read_bytes()
    whole = zlib.crc32(content).to_bytes(4, "little") + (len(content) % 2**32).to_bytes(4, "little")
    if packed.read_bytes()[-8:] != whole:  # as gzip ends
        raise ValueError(
            f"{packed} is not {file.name} packed, which lies beside it and is read; remove the one "
            "that does not belong to the data set."
        )


def idx_files(place: Path) -> dict[tuple[str, str], Path]:
    """The idx files below a folder, by part and "images" or "labels"."""
    found: dict[tuple[str, str], Path] = {}
    for file in sorted(place.rglob("*-idx*-ubyte")):
        part = "test" if file.name.startswith("t10k") else part_of(file.name)
        what = next((word for word in ("images", "labels") if word in file.name), None)
        if part and what and found.setdefault((part, what), file) != file:
            raise ValueError(
                f"{place} has the {part} {what} twice, {found[part, what]} and {file}; give the "
                "folder of one data set."
            )
    return found


def found_arrays(
    inputs: dict[str, Array],
    targets: dict[str, Array],
    class_names: tuple[str, ...],
    place: Path | str,
) -> Found:
    """A data set of arrays.

    Args:
        inputs: By part. uint8 of shape (n, H, W), (n, C, H, W) or (n, H, W, 1 or 3) are images,
            floats features, other whole numbers tokens.
        targets: By part, shape (n,), (n, 1), (n, length) or (n, outputs).
        class_names: Names of the classes, if they have any.
        place: Where they lie, for messages.

    Raises:
        ValueError: If an array has another type or shape.
    """
    parts = {}
    for part, array in inputs.items():
        where = f"the {part} part of {place}"
        parts[part] = Split(as_inputs(array, where), as_targets(targets[part], where))
    n_tokens = 0
    if all(split.has_tokens and len(split) and split.images.numel() for split in parts.values()):
        n_tokens = 1 + max(int(split.images.max()) for split in parts.values())
    return Found(parts, class_names, n_tokens)


def as_inputs(array: Array, where: str) -> Tensor:
    """Inputs as `Split.images` holds them.

    Raises:
        ValueError: If they are no numbers, of no shape (n, ...), or images whose channels may be
            the last dimension, and are not 1 or 3.
    """
    if array.ndim == 0 or array.dtype.kind not in "biuf":
        raise ValueError(
            f"The inputs of {where} are {array.dtype} of shape {array.shape}; they must be numbers "
            "of shape (n, ...): uint8 (images), floats (features) or whole numbers (tokens)."
        )
    if array.ndim == 1:
        array = array[:, None]
    if array.dtype == np.uint8:
        if array.ndim == 3:
            array = array[:, None]
        elif array.ndim == 4 and array.shape[1] not in (1, 3) and array.shape[3] in (1, 3):
            array = array.transpose(0, 3, 1, 2)
        elif array.ndim == 4 and min(array.shape[1:3]) > 4 and (last := array.shape[3]) in (2, 4):
            raise ValueError(
                f"The inputs of {where} are uint8 of shape {array.shape}: {last} channels a pixel, "
                f"as with transparency, or images that are {last} pixels wide. Give 1 or 3 "
                f"channels (x[..., :{last - 1}]) or channels first (x.transpose(0, 3, 1, 2)); "
                "images so narrow as floats."
            )
        return torch.from_numpy(np.require(array, requirements=["C", "W"]))
    if array.dtype.kind == "f":
        wanted = np.float16 if array.dtype == np.float16 else np.float32
        with np.errstate(over="ignore"):
            return torch.from_numpy(np.require(array, wanted, ["C", "W"]))
    return torch.from_numpy(np.require(array, np.int64, ["C", "W"]))


def as_targets(array: Array, where: str) -> Tensor:
    """Targets as `Split.labels` holds them.

    Raises:
        ValueError: If they are no numbers, or of more than two dimensions.
    """
    if array.ndim == 2 and array.shape[1] == 1 and array.dtype.kind in "biu":
        array = array[:, 0]
    if array.ndim not in (1, 2) or array.dtype.kind not in "biuf":
        raise ValueError(
            f"The targets of {where} are {array.dtype} of shape {array.shape}; they must be whole "
            "numbers of shape (n,) (classes) or (n, length) (tokens), or floats of shape (n,) or "
            "(n, outputs) (regression)."
        )
    if array.dtype.kind == "f":
        return torch.from_numpy(array.astype(np.float32).reshape(len(array), -1))
    return torch.from_numpy(array.astype(np.int64))


def _load(file: Path) -> dict[str, Array]:
    if not zipfile.is_zipfile(file):
        raise ValueError(
            f"{file} cannot be read as arrays of numbers (it is no .npz file, or not all of it); "
            "write it with numpy.savez."
        )
    try:
        with np.load(file, allow_pickle=False) as arrays:
            return {name: arrays[name] for name in arrays.files}
    except (ValueError, OSError, EOFError, zipfile.BadZipFile, KeyError, AttributeError) as error:
        raise ValueError(
            f"{file} cannot be read as arrays of numbers ({first_line(error)}); write it with "
            "numpy.savez, without objects."
        ) from error


def _array(whole: dict[str, Array], keys: tuple[str, str], file: Path, which: int) -> Array:
    if keys[which] not in whole:
        raise ValueError(
            f"{file} has no array {keys[which]!r} (it has {', '.join(whole) or 'none'}); inputs "
            f"and targets are called {keys[0]} and {keys[1]}."
        )
    return whole[keys[which]]


def _class_names(whole: dict[str, Array], targets: dict[str, Array]) -> tuple[str, ...]:
    """Names of the classes; targets that are names are replaced by numbers, in place."""
    if all(array.dtype.kind in "US" and array.ndim == 1 for array in targets.values()):
        names = np.unique(targets["train"].astype(str))
        for part, array in targets.items():
            if unknown := sorted(set(array.astype(str).tolist()) - set(names.tolist())):
                raise ValueError(
                    f"The {part} part has a class {unknown[0]!r}, which the training part has not."
                )
            targets[part] = np.searchsorted(names, array.astype(str))
        return tuple(names.tolist())
    if "class_names" not in whole:
        return ()
    return tuple(str(name) for name in whole["class_names"].reshape(-1).tolist())


def _idx(file: Path) -> Array:
    content = file.read_bytes()
    is_known = len(content) > 4 and content[:3] == b"\0\0\x08"
    shape = [int.from_bytes(content[4 + 4 * i : 8 + 4 * i], "big")
             for i in range(content[3] if is_known else 0)]  # fmt: skip
    first = 4 + 4 * len(shape)
    if not shape or len(content) - first != math.prod(shape):
        raise ValueError(
            f"{file} is damaged, or no idx file of bytes: shape {tuple(shape)} and "
            f"{max(len(content) - first, 0)} values; copy it again."
        )
    return np.frombuffer(content, np.uint8, offset=first).reshape(shape)
