"""Checks of data from elsewhere: one sentence says what is wrong, and what to do."""

from collections.abc import Mapping

import torch
from torch import Tensor

from analog_samson.data.encoded import EncodedImages, batches
from analog_samson.data.parts import Found, Split
from analog_samson.tasks import IGNORED

_WORDS = {"train": "training"}


def check_parts(found: Found, name: str) -> None:
    """Check the inputs of a data set, and its parts against each other.

    Args:
        found: The data set.
        name: Its name, for messages.

    Raises:
        ValueError: If a part is empty, inputs are not finite or differ in shape or type between
            parts, targets are out of range, classes are missing in the training part, or a sample
            lies in two parts.
    """
    check_inputs(found, name)
    check_divided(found, name)


def check_divided(found: Found, name: str) -> None:
    """Check the parts of a data set against each other, and their targets; its inputs are checked.

    Raises:
        ValueError: As `check_parts`, but for inputs.
    """
    train = found.parts["train"]
    for part, split in found.parts.items():
        where = f"the {_WORDS.get(part, part)} part of {name}"
        _check_counts(split, where)
        _check_alike(train, split, where)
        _check_targets(split, found.n_classes, found.n_tokens, where)
    if train.task == "classification":
        _check_classes(found, name)
    if not found.by_position:
        _check_apart(found.parts, name)


def check_inputs(found: Found, name: str) -> None:
    """Raise ValueError unless every part has inputs that can be used, and as many targets."""
    for part, split in found.parts.items():
        _check_inputs(split, f"the {_WORDS.get(part, part)} part of {name}")


def _check_counts(split: Split, where: str) -> None:
    images, labels = split.images, split.labels
    if not len(labels) or len(images) != len(labels):
        raise ValueError(
            f"There are {len(images)} inputs and {len(labels)} targets in {where}; as many of "
            "both, and at least one, are needed."
        )


def _check_inputs(split: Split, where: str) -> None:
    _check_counts(split, where)
    images = split.images
    if isinstance(images, EncodedImages):
        return
    allowed = (torch.uint8, torch.float16, torch.float32, torch.int64)
    if images.dtype not in allowed or images.ndim < 2 or not all(images.shape):
        raise ValueError(
            f"The inputs of {where} are {images.dtype} of shape {tuple(images.shape)}; they must "
            "be uint8 (images), float16 or float32 (features) or int64 (tokens), of shape (n, ...)."
        )
    if images.is_floating_point():
        check_finite(images, f"inputs of {where}")
    if split.has_tokens and int(images.min()) < 0:
        raise ValueError(
            f"The inputs of {where} are whole numbers, which are tokens, and go down to "
            f"{int(images.min())}; tokens count from 0, and features must be floats."
        )


def check_finite(values: Tensor, what: str) -> None:
    """Raise ValueError if a tensor of shape (n, ...) holds NaN or infinity."""
    for number, batch in enumerate(batches(values, 1024)):
        is_finite = batch.isfinite().flatten(1).all(1)
        if not bool(is_finite.all()):
            row = 1024 * number + int((~is_finite).nonzero()[0])
            raise ValueError(
                f"The {what} hold NaN or infinity, first in row {row}; give finite numbers, or "
                "leave those rows out."
            )


def _check_alike(train: Split, split: Split, where: str) -> None:
    for what, ours, theirs in (
        ("inputs", train.images, split.images),
        ("targets", train.labels, split.labels),
    ):
        if (ours.shape[1:], ours.dtype) != (theirs.shape[1:], theirs.dtype):
            raise ValueError(
                f"The {what} of {where} have shape {tuple(theirs.shape[1:])} and type "
                f"{theirs.dtype}, those of the training part {tuple(ours.shape[1:])} and "
                f"{ours.dtype}; all parts need the same."
            )


def _check_targets(split: Split, n_classes: int, n_tokens: int, where: str) -> None:
    labels = split.labels
    if split.task == "regression":
        check_finite(labels, f"targets of {where}")
        return
    if split.has_tokens and int(split.images.max()) >= n_tokens:
        raise ValueError(
            f"Tokens up to {int(split.images.max())} in {where}; a vocabulary of {n_tokens} allows "
            f"0 to {n_tokens - 1}."
        )
    counted = labels[labels != IGNORED] if split.task == "tokens" else labels
    if not len(counted):
        raise ValueError(f"All targets of {where} are {IGNORED}, which is ignored; give some.")
    if split.task == "tokens" and bool((empty := (labels == IGNORED).all(1)).any()):
        raise ValueError(
            f"Row {int(empty.nonzero()[0])} of {where} has no target, all are {IGNORED}; leave it "
            "out."
        )
    lowest, highest = int(counted.min()), int(counted.max())
    if lowest < 0 or highest >= n_classes:
        ignored = f", and {IGNORED} for none" if split.task == "tokens" else ""
        raise ValueError(
            f"Labels from {lowest} to {highest} in {where}; {n_classes} classes allow 0 to "
            f"{n_classes - 1}{ignored}."
        )


def _check_classes(found: Found, name: str) -> None:
    present = _labels_of(found.parts["train"])
    for part, split in found.parts.items():
        if missing := sorted(_labels_of(split) - present):
            classes = ", ".join(str(found.name_of(label)) for label in missing[:3])
            raise ValueError(
                f"The {part} part of {name} has samples of {classes}, of which the training part "
                "has none; add some there, or leave them out."
            )
    n_classes = 1 + max(present)
    if not found.class_names and n_classes > max(100, 10 * len(present)):
        raise ValueError(
            f"Labels of {name} go up to {max(present)}, and only {len(present)} of these "
            f"{n_classes} classes occur; number the classes 0, 1, 2, ..., or give their names "
            "(class_names)."
        )
    if len(present) < 2:
        raise ValueError(
            f"All training samples of {name} belong to one class, "
            f"{found.name_of(next(iter(present)))}; a classifier needs two or more."
        )


def _labels_of(split: Split) -> set[int]:
    return set(split.labels.tolist())


def _check_apart(parts: Mapping[str, Split], name: str) -> None:
    for part, other in (("test", "train"), ("validation", "train"), ("test", "validation")):
        if part not in parts or other not in parts:
            continue
        seen = set(parts[other].contents)
        twice = [row for row, content in enumerate(parts[part].contents) if content in seen]
        if twice:
            raise ValueError(
                f"{len(twice)} of the {len(parts[part])} {part} samples of {name} lie in its "
                f"{_WORDS.get(other, other)} part, too (first: {parts[part].describe(twice[0])}); "
                "remove them from one part; the option overlap=drop of a path leaves them out of "
                "training."
            )
