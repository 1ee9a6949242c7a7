"""Data sets in torchvision's layout, read by torchvision without downloading."""

import hashlib
import re
from pathlib import Path
from typing import Any

import torch

from analog_samson.data.array_layout import check_packed
from analog_samson.data.parts import Kind, Source, Split, check_split


def open_torchvision(name: str, kind: Kind, place: Path) -> Source:
    """Check that all files exist and read the test part.

    Args:
        name: Name of the data set.
        kind: Its required format, and its files.
        place: Folder that torchvision calls `root`.

    Returns:
        The data set, with a function that reads its parts.

    Raises:
        FileNotFoundError: If files are missing.
        ValueError: If files are damaged, or a packed one beside a file holds something else.
        ImportError: If torchvision cannot be imported.
    """
    missing = [file for file in kind.torchvision_files if not (place / file).is_file()]
    if missing:
        raise FileNotFoundError(
            f"{name} in {place} is not complete: {', '.join(missing)} missing; "
            "unpack the whole archive there."
        )
    for file in kind.torchvision_files:
        check_packed(place / file)
    try:
        from torchvision import datasets
    except (ImportError, RuntimeError, OSError) as error:
        raise ImportError(
            f"torchvision, which reads {name} in {place}, cannot be imported beside torch "
            f"{torch.__version__} ({error}); install the torchvision that belongs to this torch, "
            "or use the data as parquet files."
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
                f"{name} in {place} is damaged: {_blame(datasets, kind, place, part)} cannot be "
                f"read ({error}); unpack the archive again."
            ) from error
        images = images[:, None] if images.ndim == 3 else images.permute(0, 3, 1, 2).contiguous()
        names = tuple(re.sub(r"^\d+ - ", "", str(label)) for label in found.classes)
        split = Split(images, labels)
        check_split(split, kind, f"the {part} files of {name} in {place}")
        if name == "mnist":
            names = tuple(str(digit) for digit in range(10))
        return split, names

    test, class_names = read_whole("test")
    if len(class_names) != kind.n_classes:
        raise ValueError(
            f"{name} in {place} names {len(class_names)} classes instead of {kind.n_classes}; "
            "unpack the archive again."
        )
    return Source(
        class_names,
        ("train", "test"),
        lambda part: test if part == "test" else read_whole("train")[0],
    )


def _blame(datasets: Any, kind: Kind, place: Path, part: str) -> str:
    """List the files with a wrong checksum, or else all files of that part."""
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
