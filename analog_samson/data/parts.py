"""The parts of a data set: their format, checks of a shipped set, and how they are divided."""

import hashlib
import json
import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from analog_samson.data.encoded import EncodedImages, Picture
from analog_samson.tasks import IGNORED, Task

PART_WORDS = {
    "train": "train",
    "training": "train",
    "test": "test",
    "testing": "test",
    "validation": "validation",
    "valid": "validation",
    "val": "validation",
    "dev": "validation",
}
"""Words that name a part."""


@dataclass(frozen=True, eq=False)
class Split:
    """Inputs and targets of one part of a data set.

    Attributes:
        images: The inputs, shape (n, ...): uint8 images (n, C, H, W), or an `EncodedImages`, which
            is indexed like a tensor; float16 or float32 features (n, channels, ...); int64 tokens
            (n, length).
        labels: The targets: int64 of shape (n,), from 0 to the number of classes - 1; int64 of
            shape (n, length) for tokens, `IGNORED` where there is none; float32 of shape
            (n, outputs) for regression.
        encoding: How the images are compressed with loss ("JPEG"); "" where they are not.

    Example:
        >>> split = Split(torch.zeros(20, 3, 8, 8, dtype=torch.uint8), torch.arange(20) % 10)
        >>> len(split), split.task, split.has_tokens
        (20, 'classification', False)
    """

    images: Tensor
    labels: Tensor
    encoding: str = ""

    def __len__(self) -> int:
        """Return the number of samples."""
        return len(self.labels)

    @property
    def task(self) -> Task:
        """What is predicted."""
        if self.labels.is_floating_point():
            return "regression"
        return "classification" if self.labels.ndim == 1 else "tokens"

    @property
    def has_tokens(self) -> bool:
        """Whether the inputs are tokens."""
        return self.images.dtype == torch.int64

    @cached_property
    def digest(self) -> str:
        """SHA-256 (hex) of shape, inputs and targets: the same samples, the same digest."""
        facts: list[Any] = list(self.images.shape)
        if self.images.dtype != torch.uint8 or self.labels.ndim > 1:
            facts += [str(self.images.dtype), list(self.labels.shape), str(self.labels.dtype)]
        if isinstance(self.images, EncodedImages):
            facts.append("encoded")
        digest = hashlib.sha256(json.dumps(facts).encode())
        if isinstance(self.images, EncodedImages):
            digest.update(b"".join(self.images.hashes))
        else:
            digest.update(self.images.contiguous().numpy().tobytes())
        digest.update(self.labels.contiguous().numpy().tobytes())
        return digest.hexdigest()

    def describe(self, row: int) -> str:
        """A sample, for a message."""
        if isinstance(self.images, EncodedImages):
            return self.images.where(row)
        return f"row {row}"

    @cached_property
    def contents(self) -> list[bytes]:
        """A hash of every input, 8 bytes."""
        if isinstance(self.images, EncodedImages):
            return [content[:8] for content in self.images.hashes]
        return [_rank(image.numpy().tobytes()) for image in self.images.contiguous()]


@dataclass(frozen=True)
class Found:
    """A data set of your own as it was read.

    Attributes:
        parts: "train" and, where they are there, "validation" and "test".
        class_names: Names of the classes or tokens; empty where they have none.
        n_tokens: Size of the vocabulary of inputs that are tokens; otherwise 0.
        by_position: Whether parts are consecutive stretches of one text, the test part last.
        is_divided: Whether the test part was divided off while reading.
    """

    parts: Mapping[str, Split]
    class_names: tuple[str, ...] = ()
    n_tokens: int = 0
    by_position: bool = False
    is_divided: bool = False

    @property
    def n_classes(self) -> int:
        """Number of classes, of tokens that are predicted, or of outputs of a regression."""
        train = self.parts["train"]
        if train.task == "regression":
            return train.labels.shape[1]
        if self.class_names:
            return len(self.class_names)
        if train.task == "tokens":
            highest = max(int(split.labels.max()) for split in self.parts.values())
            return max(self.n_tokens if self._predicts_inputs else 0, highest + 1)
        return 1 + int(train.labels.max()) if len(train) else 0

    @property
    def _predicts_inputs(self) -> bool:
        """Whether targets are the tokens that follow, and so of the vocabulary of the inputs."""
        train = self.parts["train"]
        if not train.has_tokens or train.labels.shape != train.images.shape:
            return False
        next_tokens, targets = train.images[:, 1:], train.labels[:, :-1]
        return bool(((targets == next_tokens) | (targets == IGNORED)).all())

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the classes, tokens or outputs; numbers where they have none."""
        return self.class_names or tuple(str(number) for number in range(self.n_classes))

    def name_of(self, label: int) -> str:
        """A class, for a message."""
        named = self.class_names[label : label + 1]
        return f"class {named[0]!r}" if named else f"class {label}"


@dataclass(frozen=True)
class Source:
    """A data set that was found: its classes, its parts, and a function that reads a part."""

    class_names: tuple[str, ...]
    parts: tuple[str, ...]
    read: Callable[[str], Split]


@dataclass(frozen=True)
class Published:
    """Published facts of a data set, by which it is recognised, re-encoded copies too.

    Attributes:
        counts: Samples of each class, by part.
        mean: Mean of the training images, per channel, in units of full scale.
        std: Standard deviation of the same.
    """

    counts: Mapping[str, tuple[int, ...]]
    mean: tuple[float, ...]
    std: tuple[float, ...]


@dataclass(frozen=True)
class Kind:
    """Required format of a data set, and its files.

    Attributes:
        n_classes: Number of classes.
        image_shape: Channels, height and width of its images.
        full_scale: Pixel value that means 1.0.
        torchvision_class: Class of `torchvision.datasets` that reads it; "" if there is none.
        torchvision_files: Files of torchvision's layout.
        published: What the published images are recognised by; None if they need not be.
        embedded: Reads a data set that is part of a package; None if it is read from a folder.
    """

    n_classes: int
    image_shape: tuple[int, int, int]
    full_scale: float = 255.0
    torchvision_class: str = ""
    torchvision_files: tuple[str, ...] = ()
    published: Published | None = None
    embedded: Callable[[], Source] | None = None


def part_of(text: str) -> str | None:
    """The part that a name of a file or folder tells; None if it tells none, or several."""
    words = re.split(r"[^a-z]+", text.lower())
    parts = {PART_WORDS[word] for word in words if word in PART_WORDS}
    return parts.pop() if len(parts) == 1 else None


def encoding_of(pictures: Iterable[Picture]) -> str:
    """How images are compressed with loss, such as "JPEG"; "" where none is."""
    return " and ".join(sorted({p.encoding for p in pictures if p.encoding}))


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
    """Return the samples that are chosen (bool, shape (n,), or indices)."""
    return replace(split, images=split.images[chosen], labels=split.labels[chosen])


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
    """Choose a fixed share of every class by the contents of the inputs, not by their order.

    Of equal inputs either all are chosen, or none. Where the targets are no classes, the share is
    one of all samples.

    Returns:
        bool, shape (n,).
    """
    ranks = split.contents
    classes = split.labels if split.task == "classification" else torch.zeros(len(split)).long()
    chosen = _stratified(classes, fraction, ranks)
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
