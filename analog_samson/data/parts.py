"""The parts of a data set, what they have to look like, and how they are divided."""

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
    """A data set that has been found: its classes, its parts, and how to read one of them."""

    class_names: tuple[str, ...]
    parts: tuple[str, ...]
    read: Callable[[str], Split]


@dataclass(frozen=True)
class Kind:
    """What a data set has to look like, and where its files are.

    Attributes:
        n_classes: Number of classes.
        image_shape: Channels, height and width of its images.
        full_scale: Pixel value that means 1.0.
        torchvision_class: Class of `torchvision.datasets` that reads it; "" if none does.
        torchvision_files: Files of torchvision's layout.
        embedded: Reads a data set that comes with a package; None where it lies in a folder.
    """

    n_classes: int
    image_shape: tuple[int, int, int]
    full_scale: float = 255.0
    torchvision_class: str = ""
    torchvision_files: tuple[str, ...] = ()
    embedded: Callable[[], Source] | None = None


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
    return _stratified(
        labels, fraction, [_rank(f"{salt} {i}".encode()) for i in range(len(labels))]
    )


def stratified_by_content(split: Split, fraction: float) -> Tensor:
    """Choose a fixed share of every class by the contents of the images, whatever their order.

    Equal images stay together: all of them are chosen, or none.

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
