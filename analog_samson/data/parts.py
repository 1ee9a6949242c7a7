"""The parts of a data set, what each data set has to look like, and checks that it does."""

import difflib
import hashlib
import json
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor


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


@dataclass(frozen=True)
class Kind:
    """What a data set of that name has to look like, and torchvision's files of it."""

    n_classes: int
    image_shape: tuple[int, int, int]
    full_scale: float = 255.0
    torchvision_class: str = ""
    torchvision_files: tuple[str, ...] = ()


KINDS = {
    "digits": Kind(10, (1, 8, 8), full_scale=16.0),
    "mnist": Kind(
        10,
        (1, 28, 28),
        torchvision_class="MNIST",
        torchvision_files=tuple(
            f"MNIST/raw/{part}-{what}-ubyte"
            for part in ("train", "t10k")
            for what in ("images-idx3", "labels-idx1")
        ),
    ),
    "cifar10": Kind(
        10,
        (3, 32, 32),
        torchvision_class="CIFAR10",
        torchvision_files=tuple(
            f"cifar-10-batches-py/{file}"
            for file in (*(f"data_batch_{i}" for i in range(1, 6)), "test_batch", "batches.meta")
        ),
    ),
    "cifar100": Kind(
        100,
        (3, 32, 32),
        torchvision_class="CIFAR100",
        torchvision_files=tuple(f"cifar-100-python/{file}" for file in ("train", "test", "meta")),
    ),
}

DATASETS: tuple[str, ...] = tuple(KINDS)
"""Names that `load_dataset` takes."""


@dataclass(frozen=True)
class Source:
    """A data set that has been found: its classes, its parts, and how to read one of them."""

    class_names: tuple[str, ...]
    parts: tuple[str, ...]
    read: Callable[[str], Split]


def kind_of(name: str) -> Kind:
    """Look a data set up by name.

    Raises:
        ValueError: If there is none of that name.
    """
    if name not in KINDS:
        close = difflib.get_close_matches(name, DATASETS, n=1)
        hint = f" Did you mean {close[0]!r}?" if close else ""
        raise ValueError(f"No data set {name!r}; there are {', '.join(DATASETS)}.{hint}")
    return KINDS[name]


def first_line(error: BaseException) -> str:
    """Return what a library says, without its line breaks and full stop."""
    return str(error).strip().split("\n")[0].rstrip(".")


def check_split(split: Split, kind: Kind, where: str) -> None:
    """Check number, shape and labels of what was read.

    Args:
        split: Images and labels.
        kind: What they have to look like.
        where: Which files of which data set, for the message.

    Raises:
        ValueError: If they do not look like that.
    """
    if not len(split.labels) or len(split.images) != len(split.labels):
        raise ValueError(
            f"There are {len(split.images)} images and {len(split.labels)} labels in {where}; "
            "as many of both, and at least one, are needed."
        )
    if tuple(split.images.shape[1:]) != kind.image_shape:
        raise ValueError(
            f"Images of shape {tuple(split.images.shape[1:])} instead of {kind.image_shape} "
            f"in {where}."
        )
    lowest, highest = int(split.labels.min()), int(split.labels.max())
    if lowest < 0 or highest >= kind.n_classes:
        raise ValueError(
            f"Labels from {lowest} to {highest} in {where}; {kind.n_classes} classes allow 0 to "
            f"{kind.n_classes - 1}."
        )


def take(split: Split, chosen: Tensor) -> Split:
    """Return the images where `chosen` (bool, shape (n,)) is true."""
    return Split(split.images[chosen], split.labels[chosen])


def stratified(labels: Tensor, fraction: float, salt: str) -> Tensor:
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
