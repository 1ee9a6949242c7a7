"""Image data sets by name, decoded once and held in memory as uint8.

`digits` comes with scikit-learn. `mnist`, `cifar10` and `cifar100` are read from a folder in one of two layouts,
whichever lies there: torchvision's (`MNIST/raw`, `cifar-10-batches-py`, `cifar-100-python`) or the parquet files
of the Hugging Face hub (encoded images, class names in the schema's metadata). Nothing is ever downloaded.

Training, validation and test images never overlap: the validation images are a fixed, stratified part of the
published training set (or the published validation set where there is one), the same on every machine; what is
fitted to data (mean and standard deviation) is fitted to the training images alone.
"""

import difflib
import hashlib
import io
import json
import os
import re
import struct
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

FOLDER_VARIABLE = "ANALOG_SAMSON_DATA"
"""Environment variable: a folder that holds one folder a data set, `mnist/`, `cifar10/` and so on."""


@dataclass(frozen=True, eq=False)
class Split:
    """Images and labels of one part of a data set.

    Attributes:
        images: uint8, shape (n, C, H, W).
        labels: int64, shape (n,), from 0 to the number of classes - 1.
    """

    images: Tensor
    labels: Tensor

    def __len__(self) -> int:
        """Return the number of images."""
        return len(self.labels)

    @cached_property
    def digest(self) -> str:
        """SHA-256 (hex) of shape, pixels and labels: the same images, the same digest."""
        digest = hashlib.sha256(json.dumps(list(self.images.shape)).encode())
        digest.update(self.images.contiguous().numpy().tobytes())
        digest.update(self.labels.contiguous().numpy().tobytes())
        return digest.hexdigest()


@dataclass(frozen=True, eq=False)
class Dataset:
    """A data set in three parts that never overlap, and how its images are normalised.

    `dataclasses.replace(dataset, mean=..., std=...)` is the same data set normalised for a network from elsewhere.

    Attributes:
        name: One of `DATASETS`.
        class_names: Names of the classes; the position is the label.
        train: What networks are fitted to, and where normalisation and calibration come from.
        validation: Held out from the published training set.
        test: The published test set (`digits`: a fixed fifth), looked at once.
        full_scale: Pixel value that means 1.0 (255; `digits` 16).
        mean: Mean of images / full_scale, per channel, over the training part.
        std: Standard deviation of the same.
    """

    name: str
    class_names: tuple[str, ...]
    train: Split
    validation: Split
    test: Split
    full_scale: float
    mean: tuple[float, ...]
    std: tuple[float, ...]

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """Channels, height and width of one image."""
        channels, height, width = self.test.images.shape[1:]
        return channels, height, width

    @property
    def n_classes(self) -> int:
        """Number of classes."""
        return len(self.class_names)

    @property
    def digest(self) -> str:
        """SHA-256 (hex) of the test images and labels."""
        return self.test.digest

    def normalise(self, images: Tensor) -> Tensor:
        """Turn pixel values into network inputs: (images / full_scale - mean) / std.

        Args:
            images: uint8, shape (n, C, H, W), on any device.

        Returns:
            float32 of the same shape, on the same device.
        """
        return normalise(images, mean=self.mean, std=self.std, full_scale=self.full_scale)


def load_dataset(
    name: str = "digits", folder: str | Path | None = None, *, validation_fraction: float = 0.1
) -> Dataset:
    """Load a data set into memory.

    Args:
        name: One of `DATASETS`.
        folder: Folder with the files, or a folder that holds `<name>/`; without it the folder that the environment
            variable `ANALOG_SAMSON_DATA` names, without that `data`. Not used by `digits`.
        validation_fraction: Share of each class's training images that becomes the validation part, in (0, 1);
            not used where the folder has a validation part of its own.

    Returns:
        The data set. Which images are validation (and, for `digits`, test) images depends on the name and the
        fraction alone.

    Raises:
        ValueError: If the name or the fraction is not allowed, or a file is damaged.
        FileNotFoundError: If files are missing; the message says which were looked for.
    """
    kind = _kind(name)
    if not 0 < validation_fraction < 1:
        raise ValueError(
            "validation_fraction must lie between 0 and 1, both excluded; "
            f"got {validation_fraction!r}."
        )
    source = _open(name, kind, folder)
    train = source.read("train")
    if "validation" in source.parts:
        validation = source.read("validation")
    else:
        held_out = _stratified(train.labels, validation_fraction, salt=f"{name} validation")
        validation = _take(train, held_out)
        train = _take(train, ~held_out)
        if not len(train) or not len(validation):
            raise ValueError(
                f"validation_fraction={validation_fraction!r} leaves {len(train)} training and "
                f"{len(validation)} validation images of {name}; both need at least one."
            )
    mean, std = _statistics(train.images, kind.full_scale, name)
    return Dataset(
        name=name,
        class_names=source.class_names,
        train=train,
        validation=validation,
        test=source.read("test"),
        full_scale=kind.full_scale,
        mean=mean,
        std=std,
    )


def load_test(name: str = "digits", folder: str | Path | None = None) -> Split:
    """Load the test part alone: what a worker that only evaluates needs, a sixth of the memory.

    Args:
        name: As in `load_dataset`.
        folder: As in `load_dataset`.

    Returns:
        The same images and labels as `load_dataset(name, folder).test`.

    Raises:
        ValueError: As `load_dataset`.
        FileNotFoundError: As `load_dataset`.
    """
    return _open(name, _kind(name), folder).read("test")


def full_scale(name: str) -> float:
    """Pixel value that means 1.0 in the data set of that name.

    Raises:
        ValueError: If there is no data set of that name.
    """
    return _kind(name).full_scale


def normalise(
    images: Tensor, *, mean: Sequence[float], std: Sequence[float], full_scale: float = 255.0
) -> Tensor:
    """Turn pixel values into network inputs: (images / full_scale - mean) / std.

    Args:
        images: uint8, shape (n, C, H, W), on any device.
        mean: One number a channel, in units of full scale.
        std: One positive number a channel, in units of full scale.
        full_scale: Pixel value that means 1.0.

    Returns:
        float32 of the same shape, on the same device.

    Raises:
        ValueError: If there are not as many numbers as channels, or a standard deviation is not positive.
    """
    channels = images.shape[1]
    if len(mean) != channels or len(std) != channels or not all(value > 0 for value in std):
        raise ValueError(
            f"Images with {channels} channel(s) need {channels} mean(s) and as many positive "
            f"standard deviations; got mean={tuple(mean)}, std={tuple(std)}."
        )
    shape = (1, channels, 1, 1)
    centre = torch.tensor(mean, dtype=torch.float32, device=images.device).view(shape)
    spread = torch.tensor(std, dtype=torch.float32, device=images.device).view(shape)
    return images.to(torch.float32).div_(full_scale).sub_(centre).div_(spread)


def augment(
    images: Tensor, *, generator: torch.Generator, padding: int = 4, flip: bool = True
) -> Tensor:
    """Shift each image at random and mirror every second one, drawn apart for each image.

    The usual augmentation of CIFAR (He et al., CVPR 2016, section 4.2): zeros all around, a random crop of the
    original size, a horizontal flip with probability 1/2. Give uint8 images, so that the border is black.

    Args:
        images: Shape (n, C, H, W), any dtype and device.
        generator: Where the draws come from: three for each image, always in the same order.
        padding: Largest shift in each direction [pixels]; 0 for none.
        flip: Whether to mirror; not for digits.

    Returns:
        New images of the same shape and dtype.

    Raises:
        ValueError: If the padding is negative.
    """
    if padding < 0:
        raise ValueError(f"padding must be at least 0 pixels; got {padding}.")
    n, _, height, width = images.shape
    device = images.device

    def draw(values: int) -> Tensor:
        drawn = torch.randint(values, (n, 1), generator=generator, device=generator.device)
        return drawn.to(device)

    top, left, mirrored = draw(2 * padding + 1), draw(2 * padding + 1), draw(2)
    rows = top + torch.arange(height, device=device)
    columns = torch.arange(width, device=device).expand(n, width)
    if flip:
        columns = torch.where(mirrored.bool(), width - 1 - columns, columns)
    columns = left + columns
    padded = torch.nn.functional.pad(images, (padding,) * 4).permute(0, 2, 3, 1)
    picture = torch.arange(n, device=device)[:, None, None]
    cropped = padded[picture, rows[:, :, None], columns[:, None, :]]
    return cropped.permute(0, 3, 1, 2).contiguous()


# What is known about each data set by name.


@dataclass(frozen=True)
class _Kind:
    """What a data set of that name has to look like, and torchvision's files of it."""

    n_classes: int
    image_shape: tuple[int, int, int]
    full_scale: float = 255.0
    torchvision_class: str = ""
    torchvision_files: tuple[str, ...] = ()


_KINDS = {
    "digits": _Kind(10, (1, 8, 8), full_scale=16.0),
    "mnist": _Kind(
        10,
        (1, 28, 28),
        torchvision_class="MNIST",
        torchvision_files=tuple(
            f"MNIST/raw/{part}-{what}-ubyte"
            for part in ("train", "t10k")
            for what in ("images-idx3", "labels-idx1")
        ),
    ),
    "cifar10": _Kind(
        10,
        (3, 32, 32),
        torchvision_class="CIFAR10",
        torchvision_files=tuple(
            f"cifar-10-batches-py/{file}"
            for file in (*(f"data_batch_{i}" for i in range(1, 6)), "test_batch", "batches.meta")
        ),
    ),
    "cifar100": _Kind(
        100,
        (3, 32, 32),
        torchvision_class="CIFAR100",
        torchvision_files=tuple(f"cifar-100-python/{file}" for file in ("train", "test", "meta")),
    ),
}

DATASETS: tuple[str, ...] = tuple(_KINDS)
"""Names that `load_dataset` takes."""


@dataclass(frozen=True)
class _Source:
    """A data set that has been found: its classes, its parts, and how to read one of them."""

    class_names: tuple[str, ...]
    parts: tuple[str, ...]
    read: Callable[[str], Split]


def _kind(name: str) -> _Kind:
    if name not in _KINDS:
        close = difflib.get_close_matches(name, DATASETS, n=1)
        hint = f" Did you mean {close[0]!r}?" if close else ""
        raise ValueError(f"No data set {name!r}; there are {', '.join(DATASETS)}.{hint}")
    return _KINDS[name]


def _open(name: str, kind: _Kind, folder: str | Path | None) -> _Source:
    if name == "digits":
        return _open_digits()
    root = Path(folder) if folder is not None else Path(os.environ.get(FOLDER_VARIABLE) or "data")
    for place in (root / name, root):
        parquet = _parquet_files(place)
        has_torchvision = any((place / file).is_file() for file in kind.torchvision_files)
        if parquet and has_torchvision:
            raise ValueError(
                f"{place} holds {name} twice, in torchvision's layout and as parquet files, which "
                "need not be the same images; move one of them to a folder of its own."
            )
        if has_torchvision:
            return _open_torchvision(name, kind, place)
        if parquet:
            return _open_parquet(name, kind, place, parquet)
    raise FileNotFoundError(
        f"No {name} data: neither {root / name} nor {root} holds torchvision's files "
        f"({', '.join(kind.torchvision_files)}) or parquet files with 'train' and 'test' in their names "
        f"(train-*.parquet, test-*.parquet, in subfolders too); put one of the two there, pass the "
        f"folder, or set {FOLDER_VARIABLE} to the folder that holds {name}/."
    )


def _open_digits() -> _Source:
    from sklearn.datasets import load_digits  # noqa: PLC0415 - takes a second, only needed here

    bunch = load_digits()
    everything = Split(
        torch.from_numpy(bunch.images.astype(np.uint8))[:, None],
        torch.from_numpy(bunch.target.astype(np.int64)),
    )
    is_test = _stratified(everything.labels, 0.2, salt="digits test")

    def read(part: str) -> Split:
        return _take(everything, is_test if part == "test" else ~is_test)

    return _Source(tuple(str(name) for name in bunch.target_names), ("train", "test"), read)


# torchvision's layout.


def _open_torchvision(name: str, kind: _Kind, place: Path) -> _Source:
    missing = [file for file in kind.torchvision_files if not (place / file).is_file()]
    if missing:
        raise FileNotFoundError(
            f"{name} in {place} is not complete: {', '.join(missing)} missing; "
            "unpack the whole archive there."
        )
    try:
        from torchvision import datasets  # noqa: PLC0415 - its import can fail, and few need it
    except (ImportError, RuntimeError, OSError) as error:
        raise ImportError(
            f"torchvision, which reads {name} in {place}, cannot be imported beside torch "
            f"{torch.__version__} ({error}); install the torchvision that belongs to this torch, or "
            "use the data as parquet files."
        ) from error

    def read_whole(part: str) -> tuple[Split, tuple[str, ...]]:
        try:
            found = getattr(datasets, kind.torchvision_class)(
                str(place), train=part == "train", download=False
            )
            images = torch.as_tensor(found.data)
            labels = torch.as_tensor(found.targets, dtype=torch.int64)
        except (
            RuntimeError, ValueError, AssertionError, IndexError, EOFError, OSError
        ) as error:  # fmt: skip
            raise ValueError(
                f"{name} in {place} is damaged: {_blame(datasets, kind, place, part)} cannot be read "
                f"({error}); unpack the archive again."
            ) from error
        images = images[:, None] if images.ndim == 3 else images.permute(0, 3, 1, 2).contiguous()
        names = tuple(re.sub(r"^\d+ - ", "", str(label)) for label in found.classes)
        split = Split(images, labels)
        _check_split(split, kind, f"the {part} files of {name} in {place}")
        if name == "mnist":
            names = tuple(str(digit) for digit in range(10))
        return split, names

    test, class_names = read_whole("test")
    if len(class_names) != kind.n_classes:
        raise ValueError(
            f"{name} in {place} names {len(class_names)} classes instead of {kind.n_classes}; "
            "unpack the archive again."
        )
    return _Source(
        class_names,
        ("train", "test"),
        lambda part: test if part == "test" else read_whole("train")[0],
    )


def _blame(datasets: Any, kind: _Kind, place: Path, part: str) -> str:
    """Name the files whose checksums are wrong, or else all of that part."""
    known = getattr(datasets, kind.torchvision_class)
    if hasattr(known, "base_folder"):
        listed = [*known.train_list, *known.test_list]
        listed.append((known.meta["filename"], known.meta["md5"]))
        wrong = [
            f"{known.base_folder}/{file}"
            for file, checksum in listed
            if hashlib.md5(
                (place / known.base_folder / file).read_bytes(), usedforsecurity=False
            ).hexdigest()
            != checksum
        ]
        return f"{', '.join(wrong)} (wrong checksum)" if wrong else known.base_folder
    prefix = "MNIST/raw/train" if part == "train" else "MNIST/raw/t10k"
    return " or ".join(file for file in kind.torchvision_files if file.startswith(prefix))


# The Hugging Face hub's layout.

_PART_WORDS = {
    "train": "train",
    "training": "train",
    "test": "test",
    "testing": "test",
    "validation": "validation",
    "valid": "validation",
    "val": "validation",
    "dev": "validation",
}
_LABEL_COLUMNS = ("label", "labels", "fine_label", "fine_labels", "target", "class", "y")


def _parquet_files(place: Path) -> list[Path]:
    """Parquet files in the folder and below, without hidden ones, in the order of their names."""
    if not place.is_dir():
        return []
    found = (file for file in place.rglob("*.parquet") if file.is_file() or file.is_symlink())
    return sorted(
        file
        for file in found
        if not any(piece.startswith(".") for piece in file.relative_to(place).parts)
        and _part_of(file, place)
    )


def _part_of(file: Path, place: Path) -> str | None:
    """Which part a file belongs to, from its name or else its nearest folder; None if neither says."""
    for piece in (file.stem, *reversed(file.relative_to(place).parts[:-1])):
        words = re.split(r"[^a-z]+", piece.lower())
        parts = {_PART_WORDS[word] for word in words if word in _PART_WORDS}
        if len(parts) == 1:
            return parts.pop()
    return None


def _open_parquet(name: str, kind: _Kind, place: Path, files: list[Path]) -> _Source:
    by_part: dict[str, list[Path]] = defaultdict(list)
    for file in files:
        by_part[_part_of(file, place) or ""].append(file)
    for part in ("train", "test"):
        if part not in by_part:
            raise FileNotFoundError(
                f"{name} in {place} has no {part} part: looked for {part}-*.parquet and found only "
                f"{', '.join(str(file.relative_to(place)) for file in files)}."
            )
    for part, shards in by_part.items():
        folders = sorted({str(shard.parent) for shard in shards})
        if len(folders) > 1:
            raise ValueError(
                f"The {part} part of {name} lies in several folders ({', '.join(folders)}), so the "
                "same images may be there twice; pass the one folder to use."
            )
        _check_shards(name, part, shards)
    class_names = _features(by_part["train"][0], kind)[2]
    return _Source(
        class_names, tuple(by_part), lambda part: _read_parquet(name, kind, by_part[part])
    )


def _check_shards(name: str, part: str, shards: list[Path]) -> None:
    """Complain about a shard that its neighbours' names (`-00000-of-00005`) promise and that is missing."""
    counts: set[int] = set()
    present: set[int] = set()
    for shard in shards:
        if numbers := re.search(r"(\d+)-of-(\d+)", shard.stem):
            present.add(int(numbers[1]))
            counts.add(int(numbers[2]))
    if not counts:
        return
    if len(counts) > 1 or len(present) != len(shards):
        raise ValueError(
            f"The {part} part of {name} mixes several exports: "
            f"{', '.join(str(shard) for shard in shards)}; keep one."
        )
    if missing := sorted(set(range(counts.pop())) - present):
        raise FileNotFoundError(
            f"The {part} part of {name} in {shards[0].parent} is not complete: "
            f"shard(s) {', '.join(str(number) for number in missing)} missing beside {shards[0].name}."
        )


def _features(file: Path, kind: _Kind) -> tuple[str, str, tuple[str, ...]]:
    """Names of the image column and the label column, and the names of the classes."""
    import pyarrow as pa  # noqa: PLC0415 - only this layout needs it

    schema = _parquet(file).schema_arrow
    features: dict[str, Any] = {}
    try:
        metadata = json.loads((schema.metadata or {}).get(b"huggingface", b"{}"))
        features = dict(metadata.get("info", {}).get("features", {}))
    except (ValueError, AttributeError, TypeError) as error:
        raise ValueError(f"{file} has unreadable 'huggingface' metadata ({error}).") from error

    def holds_bytes(field: Any) -> bool:
        if pa.types.is_struct(field.type):
            return field.type.get_field_index("bytes") >= 0
        return bool(pa.types.is_binary(field.type) or pa.types.is_large_binary(field.type))

    images = [field.name for field in schema if holds_bytes(field)]
    declared = [column for column in images if _type_of(features.get(column)) == "Image"]
    labels = {
        column: tuple(str(label) for label in features[column].get("names", ()))
        for column in schema.names
        if _type_of(features.get(column)) == "ClassLabel"
    }
    if not labels:
        labels = {field.name: () for field in schema if pa.types.is_integer(field.type)}
    fitting = [column for column, names in labels.items() if len(names) == kind.n_classes]
    preferred = [column for column in _LABEL_COLUMNS if column in (fitting or labels)]
    candidates = preferred[:1] or fitting or list(labels)
    if not images or len(candidates) != 1:
        raise ValueError(
            f"{file} needs one column of encoded images (bytes) and one of class labels (integers, "
            f"for example 'label'); it has {', '.join(f'{f.name}: {f.type}' for f in schema)}."
        )
    names = labels[candidates[0]] or tuple(str(number) for number in range(kind.n_classes))
    if len(names) != kind.n_classes:
        raise ValueError(
            f"{file} has {len(names)} classes in column {candidates[0]!r} instead of "
            f"{kind.n_classes}; is it another data set?"
        )
    return (declared or images)[0], candidates[0], names


def _type_of(feature: object) -> object:
    return feature.get("_type") if isinstance(feature, dict) else None


def _parquet(file: Path) -> Any:
    import pyarrow as pa  # noqa: PLC0415 - only this layout needs it
    import pyarrow.parquet as pq  # noqa: PLC0415

    try:
        return pq.ParquetFile(file)
    except (pa.ArrowException, OSError) as error:
        raise ValueError(
            f"{file} cannot be read as parquet ({_first_line(error)}); copy it again."
        ) from error


def _read_parquet(name: str, kind: _Kind, files: list[Path]) -> Split:
    counts = [_parquet(file).metadata.num_rows for file in files]
    images = torch.empty((sum(counts), *kind.image_shape), dtype=torch.uint8)
    labels = torch.empty(sum(counts), dtype=torch.int64)
    pixels = images.numpy()
    row = 0
    for file in files:
        image_column, label_column, _ = _features(file, kind)
        first = row
        for encoded, batch_labels in _batches(file, image_column, label_column):
            for value, label in zip(encoded, batch_labels, strict=True):
                if label is None:
                    raise ValueError(f"{file}, row {row - first}: no label in {label_column!r}.")
                pixels[row] = _decode(value, kind.image_shape, f"{file}, row {row - first}")
                labels[row] = label
                row += 1
    split = Split(images, labels)
    _check_split(split, kind, f"{name} in {', '.join(str(file) for file in files)}")
    return split


def _batches(
    file: Path, image_column: str, label_column: str
) -> Iterator[tuple[list[Any], list[int | None]]]:
    import pyarrow as pa  # noqa: PLC0415 - only this layout needs it

    opened = _parquet(file)
    try:
        for batch in opened.iter_batches(batch_size=1024, columns=[image_column, label_column]):
            yield batch.column(image_column).to_pylist(), batch.column(label_column).to_pylist()
    except (pa.ArrowException, OSError) as error:
        raise ValueError(
            f"{file} cannot be read as parquet ({_first_line(error)}); copy it again."
        ) from error


def _decode(value: Any, image_shape: tuple[int, int, int], where: str) -> np.ndarray[Any, Any]:
    """Decode one image (PNG, JPEG, ...) to uint8, shape `image_shape`."""
    from PIL import Image  # noqa: PLC0415 - only this layout needs it

    encoded = value.get("bytes") if isinstance(value, dict) else value
    if not encoded:
        raise ValueError(f"{where}: the image has no bytes (only a path?); export it with them.")
    channels, height, width = image_shape
    try:
        with Image.open(io.BytesIO(encoded)) as image:
            decoded = np.asarray(image.convert("RGB" if channels == 3 else "L"))
    except (OSError, SyntaxError, ValueError, EOFError, struct.error) as error:
        raise ValueError(
            f"{where}: the image cannot be decoded ({_first_line(error)}); copy the file again."
        ) from error
    if decoded.shape[:2] != (height, width):
        raise ValueError(
            f"{where}: the image has {decoded.shape[0]} x {decoded.shape[1]} pixels instead of "
            f"{height} x {width}; is it another data set?"
        )
    return decoded[None] if channels == 1 else decoded.transpose(2, 0, 1)


# What every layout shares.


def _first_line(error: BaseException) -> str:
    return str(error).strip().split("\n")[0].rstrip(".")


def _check_split(split: Split, kind: _Kind, where: str) -> None:
    if not len(split.labels) or len(split.images) != len(split.labels):
        raise ValueError(
            f"There are {len(split.images)} images and {len(split.labels)} labels in {where}; "
            "as many of both, and at least one, are needed."
        )
    if tuple(split.images.shape[1:]) != kind.image_shape:
        raise ValueError(
            f"Images of shape {tuple(split.images.shape[1:])} instead of {kind.image_shape} in {where}."
        )
    lowest, highest = int(split.labels.min()), int(split.labels.max())
    if lowest < 0 or highest >= kind.n_classes:
        raise ValueError(
            f"Labels from {lowest} to {highest} in {where}; {kind.n_classes} classes allow 0 to "
            f"{kind.n_classes - 1}."
        )


def _take(split: Split, chosen: Tensor) -> Split:
    return Split(split.images[chosen], split.labels[chosen])


def _stratified(labels: Tensor, fraction: float, salt: str) -> Tensor:
    """Choose a fixed share of every class, at least one image of it where it has two.

    The order is that of a hash of each position, so it depends on no library's random numbers.

    Returns:
        bool, shape (n,).
    """
    chosen = torch.zeros(len(labels), dtype=torch.bool)
    ranks = [
        hashlib.blake2b(f"{salt} {position}".encode(), digest_size=8).digest()
        for position in range(len(labels))
    ]
    members: dict[int, list[int]] = defaultdict(list)
    for position in sorted(range(len(labels)), key=ranks.__getitem__):
        members[int(labels[position])].append(position)
    for positions in members.values():
        count = round(fraction * len(positions))
        if len(positions) > 1:
            count = min(max(count, 1), len(positions) - 1)
        chosen[positions[:count]] = True
    return chosen


def _statistics(
    images: Tensor, full_scale: float, name: str
) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and standard deviation a channel, exact: from the counts of the 256 pixel values."""
    values = np.arange(256, dtype=np.float64) / full_scale
    mean, std = [], []
    for channel in range(images.shape[1]):
        counts = np.bincount(images[:, channel].reshape(-1).numpy(), minlength=256)
        share = counts / counts.sum()
        centre = float(share @ values)
        spread = float(np.sqrt(share @ (values - centre) ** 2))
        if spread == 0:
            raise ValueError(
                f"All training images of {name} have the same value everywhere in channel {channel}; "
                "the files are not what they should be."
            )
        mean.append(centre)
        std.append(spread)
    return tuple(mean), tuple(std)
