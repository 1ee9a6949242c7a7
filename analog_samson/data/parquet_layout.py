"""Data sets in the layout of the Hugging Face hub: parquet files with encoded images.

One or more files ("shards") a part; the part is in the file's name or its folder's. Which columns
hold images and labels, and the names of the classes, come from the schema's `huggingface` metadata
where there is some, otherwise from the types of the columns.
"""

import io
import json
import re
import struct
from collections import defaultdict
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor

from analog_samson.data.encoded import Picture, encoded_images, first_line
from analog_samson.data.names import OwnName
from analog_samson.data.parts import (
    Found,
    Kind,
    Source,
    Split,
    check_split,
    encoding_of,
    part_of,
)

_LABEL_COLUMNS = ("label", "labels", "fine_label", "fine_labels", "target", "class", "y")


def parquet_files(place: Path) -> list[Path]:
    """Parquet files in the folder and below that name a part, in the order of their names."""
    return [file for file in all_parquet_files(place) if _part_of(file, place)]


def all_parquet_files(place: Path) -> list[Path]:
    """Parquet files in the folder and below, without hidden ones, in the order of their names."""
    if not place.is_dir():
        return []
    found = (file for file in place.rglob("*.parquet") if file.is_file() or file.is_symlink())
    return sorted(
        file
        for file in found
        if not any(piece.startswith(".") for piece in file.relative_to(place).parts)
    )


def _part_of(file: Path, place: Path) -> str | None:
    """The part that a file belongs to, from its name or else its folders; None if unknown."""
    names = (file.stem, *reversed(file.relative_to(place).parts[:-1]))
    return next((part for name in names if (part := part_of(name))), None)


def read_own_parquet(place: Path, own: OwnName) -> Found:
    """Read a data set of your own, of any number of classes and any size of images.

    The encoded images are kept in memory and decoded when they are needed.

    Args:
        place: A file, or a folder.
        own: Its name, with the options.

    Raises:
        FileNotFoundError: If a shard of a part is missing.
        ValueError: If a file is damaged, some name a part and others do not, or images are of
            several sizes and no size is asked for.
    """
    files = [place] if place.is_file() else all_parquet_files(place)
    by_part: dict[str, list[Path]] = defaultdict(list)
    for file in files:
        by_part[_part_of(file, file.parent if place.is_file() else place) or "none"].append(file)
    if list(by_part) == ["none"] or place.is_file():
        by_part = {"train": files}
    if "none" in by_part or "train" not in by_part:
        raise ValueError(
            f"{place} holds {', '.join(str(file.relative_to(place)) for file in files)}; every "
            "file needs train, validation or test in its name or folder, and one train."
        )
    _check_folders(own.last, by_part)
    pictures: list[Picture] = []
    rows: dict[str, slice] = {}
    labels: list[int] = []
    for part, shards in by_part.items():
        first = len(pictures)
        for file in shards:
            image_column, label_column, _ = _features(file, None)
            row = 0
            for encoded, batch_labels in _batches(file, image_column, label_column):
                for value, label in zip(encoded, batch_labels, strict=True):
                    where = f"{file.name}, row {row}"
                    if label is None:
                        raise ValueError(f"{where}: no label in {label_column!r}; add it.")
                    pictures.append(Picture.of(_bytes_of(value, where), where))
                    labels.append(label)
                    row += 1
        rows[part] = slice(first, len(pictures))
    if not pictures:
        raise ValueError(f"{place} holds no images; give a file with rows.")
    size, resize = own.options.get("image_size"), own.options.get("resize")
    images = cast(Tensor, encoded_images(pictures, size, resize, own.short))  # indexed as one
    encoding = encoding_of(pictures)
    targets = torch.tensor(labels).long()
    parts = {part: Split(images[chosen], targets[chosen], encoding)
             for part, chosen in rows.items()}  # fmt: skip
    return Found(parts, _features(by_part["train"][0], None)[2])


def open_parquet(name: str, kind: Kind, place: Path, files: list[Path]) -> Source:
    """Assign files to parts, and check that none is missing.

    Args:
        name: Name of the data set.
        kind: Its required format.
        place: The folder.
        files: Files from `parquet_files`, at least one.

    Returns:
        The data set, with a function that reads its parts.

    Raises:
        FileNotFoundError: If a part or a shard of it is missing.
        ValueError: If a part exists twice or its columns are not as required.
    """
    by_part: dict[str, list[Path]] = defaultdict(list)
    for file in files:
        by_part[_part_of(file, place) or ""].append(file)
    for part in ("train", "test"):
        if part not in by_part:
            raise FileNotFoundError(
                f"{name} in {place} has no {part} part: looked for {part}-*.parquet and found only "
                f"{', '.join(str(file.relative_to(place)) for file in files)}."
            )
    _check_folders(name, by_part)
    class_names = _features(by_part["train"][0], kind)[2]
    return Source(
        class_names, tuple(by_part), lambda part: _read_parquet(name, kind, by_part[part])
    )


def _check_folders(name: str, by_part: Mapping[str, list[Path]]) -> None:
    """Raise ValueError if a part lies in several folders, and check its shards."""
    for part, shards in by_part.items():
        folders = sorted({str(shard.parent) for shard in shards})
        if len(folders) > 1:
            raise ValueError(
                f"The {part} part of {name} lies in several folders ({', '.join(folders)}), so the "
                "same images may be there twice; pass the one folder to use."
            )
        _check_shards(name, part, shards)


def _check_shards(name: str, part: str, shards: list[Path]) -> None:
    """Raise FileNotFoundError if a shard is missing, by the names (`-00000-of-00005`)."""
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
            f"shard(s) {', '.join(str(number) for number in missing)} missing beside "
            f"{shards[0].name}."
        )


def _features(file: Path, kind: Kind | None) -> tuple[str, str, tuple[str, ...]]:
    """Names of the image column and the label column, and the names of the classes.

    Without a `kind` any number of classes is allowed, and none may be named.
    """
    import pyarrow as pa

    schema = _parquet(file).schema_arrow
    features: dict[str, Any] = {}
    try:
        metadata = json.loads((schema.metadata or {}).get(b"huggingface", b"{}"))
        features = dict(metadata.get("info", {}).get("features", {}))
    except (ValueError, AttributeError, TypeError) as error:
        raise ValueError(f"{file} has unreadable 'huggingface' metadata ({error}).") from error

    def holds_bytes(field: Any) -> bool:
        if pa.types.is_struct(field.type):
            return bool(field.type.get_field_index("bytes") >= 0)
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
    n_classes = None if kind is None else kind.n_classes
    fitting = [column for column, names in labels.items() if len(names) == n_classes]
    preferred = [column for column in _LABEL_COLUMNS if column in (fitting or labels)]
    candidates = preferred[:1] or fitting or list(labels)
    if not images or len(candidates) != 1:
        raise ValueError(
            f"{file} needs one column of encoded images (bytes) and one of class labels (integers, "
            f"for example 'label'); it has {', '.join(f'{f.name}: {f.type}' for f in schema)}."
        )
    names = labels[candidates[0]]
    if n_classes is not None:
        names = names or tuple(str(number) for number in range(n_classes))
        if len(names) != n_classes:
            raise ValueError(
                f"{file} has {len(names)} classes in column {candidates[0]!r} instead of "
                f"{n_classes}; is it another data set? Then give its path as dataset=."
            )
    return (declared or images)[0], candidates[0], names


def _type_of(feature: object) -> object:
    return feature.get("_type") if isinstance(feature, dict) else None


def _parquet(file: Path) -> Any:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        return pq.ParquetFile(file)
    except (pa.ArrowException, OSError) as error:
        raise ValueError(
            f"{file} cannot be read as parquet ({first_line(error)}); copy it again."
        ) from error


def _read_parquet(name: str, kind: Kind, files: list[Path]) -> Split:
    counts = [_parquet(file).metadata.num_rows for file in files]
    images = torch.empty((sum(counts), *kind.image_shape), dtype=torch.uint8)
    labels = torch.empty(sum(counts), dtype=torch.int64)
    pixels = images.numpy()
    row = 0
    encodings: set[bool] = set()
    for file in files:
        image_column, label_column, _ = _features(file, kind)
        first = row
        for encoded, batch_labels in _batches(file, image_column, label_column):
            for value, label in zip(encoded, batch_labels, strict=True):
                if label is None:
                    raise ValueError(f"{file}, row {row - first}: no label in {label_column!r}.")
                where = f"{file}, row {row - first}"
                encoded_bytes = _bytes_of(value, where)
                encodings.add(encoded_bytes[:2] == b"\xff\xd8")
                pixels[row] = _decode(encoded_bytes, kind.image_shape, where)
                labels[row] = label
                row += 1
    split = Split(images, labels, "JPEG" if True in encodings else "")
    check_split(split, kind, f"{name} in {', '.join(str(file) for file in files)}")
    return split


def _batches(
    file: Path, image_column: str, label_column: str
) -> Iterator[tuple[list[Any], list[int | None]]]:
    import pyarrow as pa

    opened = _parquet(file)
    try:
        for batch in opened.iter_batches(batch_size=1024, columns=[image_column, label_column]):
            yield batch.column(image_column).to_pylist(), batch.column(label_column).to_pylist()
    except (pa.ArrowException, OSError) as error:
        raise ValueError(
            f"{file} cannot be read as parquet ({first_line(error)}); copy it again."
        ) from error


def _bytes_of(value: Any, where: str) -> bytes:
    encoded = value.get("bytes") if isinstance(value, dict) else value
    if not encoded:
        raise ValueError(f"{where}: the image has no bytes (only a path?); export it with them.")
    return bytes(encoded)


def _decode(encoded: bytes, image_shape: tuple[int, int, int], where: str) -> np.ndarray[Any, Any]:
    """Decode one image (PNG, JPEG, ...) to uint8, shape `image_shape`."""
    from PIL import Image

    channels, height, width = image_shape
    try:
        with Image.open(io.BytesIO(encoded)) as image:
            decoded = np.asarray(image.convert("RGB" if channels == 3 else "L"))
    except (OSError, SyntaxError, ValueError, EOFError, struct.error) as error:
        raise ValueError(
            f"{where}: the image cannot be decoded ({first_line(error)}); copy the file again."
        ) from error
    if decoded.shape[:2] != (height, width):
        raise ValueError(
            f"{where}: the image has {decoded.shape[0]} x {decoded.shape[1]} pixels instead of "
            f"{height} x {width}; is it another data set? Then give its path as dataset=."
        )
    return decoded[None] if channels == 1 else decoded.transpose(2, 0, 1)
