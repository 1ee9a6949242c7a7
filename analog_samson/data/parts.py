"""The parts of a data set: their format, their checks, and how they are divided."""

import hashlib
import json
from collections import defaultdict
from collections.abc import Callable, Sequence
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
class Source:
    """A data set that was found: its classes, its parts, and a function that reads a part."""

    class_names: tuple[str, ...]
    parts: tuple[str, ...]
    read: Callable[[str], Split]


@dataclass(frozen=True)
class Kind:
    """Required format of a data set, and its files.

    Attributes:
        n_classes: Number of classes.
        image_shape: Channels, height and width of its images.
        full_scale: Pixel value that means 1.0.
        torchvision_class: Class of `torchvision.datasets` that reads it; "" if there is none.
        torchvision_files: Files of torchvision's layout.
        embedded: Reads a data set that is part of a package; None if it is read from a folder.
    """

    n_classes: int
    image_shape: tuple[int, int, int]
    full_scale: float = 255.0
    torchvision_class: str = ""
    torchvision_files: tuple[str, ...] = ()
    embedded: Callable[[], Source] | None = None


def first_line(error: BaseException) -> str:
    """Return the first line of an error message, without its full stop."""
    return str(error).strip().split("\n")[0].rstrip(".")


def check_split(split: Split, kind: Kind, where: str) -> None:
    """Check number, shape and labels of images.

    Args:
        split: Images and labels.
        kind: Their required format.
        where: Files and data set, for the message.

    Raises:
        ValueError: If they do not have that format.
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

    The order is that of a hash of each position, so it does not depend on a random generator.

    Returns:
        bool, shape (n,).
    """
    return _stratified(
        labels, fraction, [_rank(f"{salt} {i}".encode()) for i in range(len(labels))]
    )


def stratified_by_content(split: Split, fraction: float) -> Tensor:
    """Choose a fixed share of every class by the contents of the images, not by their order.

    Of equal images either all are chosen, or none.

    Returns:
        bool, shape (n,).
    """
    ranks = [_rank(image.numpy().tobytes()) for image in split.images.contiguous()]
    chosen = _stratified(split.labels, fraction, ranks)
    taken = {rank for rank, is_chosen in zip(ranks, chosen.tolist(), strict=True) if is_chosen}
    return torch.tensor([rank in taken for rank in ranks])


def _rank(content: bytes) -> bytes:
    return hashlib.blake2b(content, digest_size=8).digest()


def _stratified(labels: Tensor, fraction: float, ranks: Sequence[bytes]) -> Tensor:
    chosen = torch.zeros(len(labels), dtype=torch.bool)
    members: dict[int, list[int]] = defaultdict(list)
    for position in sorted(range(len(labels)), key=ranks.__getitem__):
        members[int(labels[position])].append(position)
    for positions in members.values():
        count = round(fraction * len(positions))
        if len(positions) > 1:
            count = min(max(count, 1), len(positions) - 1)
        chosen[positions[:count]] = True
    return chosen
