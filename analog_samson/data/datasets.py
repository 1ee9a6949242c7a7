"""Find a data set by name, load it, and divide it into parts."""

import hashlib
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor

from analog_samson.data.array_layout import as_targets
from analog_samson.data.catalogue import kind_of
from analog_samson.data.checking import check_parts
from analog_samson.data.encoded import EncodedImages, batches
from analog_samson.data.images import normalise
from analog_samson.data.names import (
    FOLDER_VARIABLE,
    data_folder,
    find,
    function_name,
    own_name,
)
from analog_samson.data.own import open_own
from analog_samson.data.parquet_layout import open_parquet, parquet_files
from analog_samson.data.parts import (
    Found,
    Kind,
    Source,
    Split,
    stratified,
    stratified_by_content,
    take,
)
from analog_samson.data.recognition import check_published
from analog_samson.data.torch_datasets import from_torch, is_pair
from analog_samson.data.torchvision_layout import open_torchvision
from analog_samson.importing import import_callable, is_import_name
from analog_samson.tasks import Task

NORMALISATIONS = ("channel", "none")
"""How features are normalised: by mean and standard deviation of each channel, or not at all."""


@dataclass(frozen=True, eq=False)
class Dataset:
    """A data set in three parts that never overlap, and how its inputs are normalised.

    `dataclasses.replace(dataset, mean=..., std=...)` gives the same data set with the normalisation
    of an imported network.

    Attributes:
        name: One of `DATASETS`, ``package.module:function``, or the stored name of your own data:
            last name of the path, options and digest.
        class_names: Names of the classes, tokens or outputs; the position is the label.
        train: Training part, also used for normalisation and calibration.
        validation: Held out from the published training set.
        test: The published test set (`digits`: a fixed fifth); used only for the final evaluation.
        full_scale: Pixel value that means 1.0 (255; `digits` 16; 1 for features and tokens).
        mean: Mean of images / full_scale, per channel, over the training part; empty for tokens.
        std: Standard deviation of the same.
        n_tokens: Size of the vocabulary of inputs that are tokens; otherwise 0.

    Example:
        >>> pixels = torch.arange(256, dtype=torch.uint8).reshape(64, 1, 2, 2)
        >>> labels = torch.arange(64) % 2
        >>> train, test = Split(pixels[:48], labels[:48]), Split(pixels[48:], labels[48:])
        >>> mine = Dataset.of_splits(train, test, validation_fraction=0.25)
        >>> mine.image_shape, mine.class_names, len(mine.train), len(mine.validation)
        ((1, 2, 2), ('0', '1'), 36, 12)
    """

    name: str
    class_names: tuple[str, ...]
    train: Split
    validation: Split
    test: Split
    full_scale: float
    mean: tuple[float, ...]
    std: tuple[float, ...]
    n_tokens: int = 0

    @classmethod
    def of_splits(
        cls,
        train: Split,
        test: Split,
        *,
        validation: Split | None = None,
        validation_fraction: float = 0.1,
        class_names: Sequence[str] = (),
        full_scale: float = 255.0,
        normalise: str = "channel",
    ) -> Self:
        """Make a data set of samples that are already in memory.

        Mean and standard deviation are those of the training part, per channel.

        Args:
            train: Training part. The validation part is taken from it by content, so it does not
                depend on the order of the samples.
            test: The test part.
            validation: A separate validation part; all training samples then stay in ``train``.
            validation_fraction: Share of each class's training samples that is held out, in (0, 1).
            class_names: Names of the classes; if empty, classes are numbered.
            full_scale: Pixel value that means 1.0; not used by features and tokens.
            normalise: "channel" or "none"; tokens are never normalised.

        Returns:
            The data set, without a name: `load_dataset` gives it the name it was loaded by.

        Raises:
            ValueError: If the parts are inconsistent (see `check_parts`), a channel of the training
                images is constant, or the full scale is not positive.
        """
        if not 0 < full_scale < math.inf:
            raise ValueError(f"full_scale must be positive and finite; got {full_scale!r}.")
        given = {"train": train, "validation": validation, "test": test}
        parts = {part: _with_outputs(split, part) for part, split in given.items() if split}
        n_tokens = 0
        if all(split.has_tokens and split.images.numel() for split in parts.values()):
            n_tokens = 1 + max(int(split.images.max()) for split in parts.values())
        names = tuple(class_names)
        if not names and parts["train"].task == "classification":
            highest = max(int(s.labels.max()) for s in parts.values() if s.labels.numel())
            names = tuple(str(label) for label in range(highest + 1))
        found = Found(parts, names, n_tokens)
        check_parts(found, "the data set")
        return cls._of(found, "", validation_fraction, full_scale, normalise, "the data set")

    @classmethod
    def _of(
        cls,
        found: Found,
        name: str,
        validation_fraction: float,
        full_scale: float,
        normalise: str,
        what: str,
    ) -> Self:
        """A data set of parts that are checked; holds out the validation part if there is none."""
        if normalise not in NORMALISATIONS:
            raise ValueError(
                f"normalise must be one of {', '.join(NORMALISATIONS)}; got {normalise!r}."
            )
        train, validation = found.parts["train"], found.parts.get("validation")
        if validation is None and found.by_position:
            whole = len(train) + (len(found.parts["test"]) if found.is_divided else 0)
            n_validation = round(validation_fraction * whole)
            held_out = torch.arange(len(train)) >= len(train) - n_validation
            train, validation = _held_out(train, held_out, validation_fraction, what)
        elif validation is None:
            held_out = stratified_by_content(train, validation_fraction)
            train, validation = _held_out(train, held_out, validation_fraction, what)
        mean: tuple[float, ...] = ()
        std: tuple[float, ...] = ()
        if train.has_tokens:
            full_scale = 1.0
        elif normalise == "none":
            channels = train.images.shape[1]
            full_scale, mean, std = 1.0, (0.0,) * channels, (1.0,) * channels
        elif train.images.dtype == torch.uint8:
            mean, std = _statistics(train.images, full_scale, what)
        else:
            full_scale = 1.0
            mean, std = _feature_statistics(train.images)
        parts = train, validation, found.parts["test"]
        return cls(name, found.names, *parts, full_scale, mean, std, found.n_tokens)

    @property
    def image_shape(self) -> tuple[int, ...]:
        """Shape of one input: channels, height and width of an image."""
        return tuple(self.test.images.shape[1:])

    @property
    def task(self) -> Task:
        """What is predicted: "classification", "tokens" or "regression"."""
        return self.train.task

    @property
    def n_classes(self) -> int:
        """Number of classes; the vocabulary of tokens, or the outputs of a regression."""
        return len(self.class_names)

    @property
    def digest(self) -> str:
        """SHA-256 (hex) of the test inputs and targets."""
        return self.test.digest

    def normalise(self, images: Tensor) -> Tensor:
        """Convert stored values to network inputs: (images / full_scale - mean) / std.

        Args:
            images: Inputs as `Split.images` holds them, on any accelerator.

        Returns:
            float32 of the same shape, on the same accelerator; tokens as they are.
        """
        return normalise(images, mean=self.mean, std=self.std, full_scale=self.full_scale)


def load_dataset(
    name: str | Path = "digits",
    folder: str | Path | None = None,
    *,
    validation_fraction: float = 0.1,
) -> Dataset:
    """Load a data set.

    Args:
        name: One of `DATASETS`; the path of a file or folder of your own, with options after commas
            (``flowers,image_size=64``; `docs/DATA.md` lists layouts and options); or
            ``package.module:function``: a function that is called with `folder` (or None) and
            `validation_fraction` and returns a `Dataset` (see `Dataset.of_splits`) or a pair of
            torch data sets, the same at every call.
        folder: Folder with the files, or a folder that contains `<name>/`. None: the folder in the
            environment variable `ANALOG_SAMSON_DATA`, or `data` if it is not set. Not used by
            `digits`, nor where the name is a path.
        validation_fraction: Share of each class's training samples that becomes the validation
            part, in (0, 1); not used where there is a validation part already. Of a text that is
            divided by position: share of the whole text.

    Returns:
        The data set; the name of one of your own ends with a digest of its contents, and a name
        with a digest gives these contents or an error. Which images are validation (and, for
        `digits`, test) images depends on the name and the fraction alone; for your own data on the
        contents and the fraction alone.

    Raises:
        ValueError: If the name or the fraction is not allowed, a file is damaged, or the data are
            inconsistent or not what the name says.
        FileNotFoundError: If files are missing; the message names them.

    Example:
        >>> dataset = load_dataset("digits")
        >>> len(dataset.train), len(dataset.validation), len(dataset.test), dataset.image_shape
        (1295, 143, 359, (1, 8, 8))
    """
    name = str(name)
    if not 0 < validation_fraction < 1:
        raise ValueError(
            "validation_fraction must lie between 0 and 1, both excluded; "
            f"got {validation_fraction!r}."
        )
    if own := own_name(name):
        found, stored = open_own(own, folder)
        for split in found.parts.values():  # damaged images are found before a training
            if isinstance(split.images, EncodedImages) and split.images.is_kept:
                split.images.decoded()
        how = own.options.get("normalise", "channel")
        return Dataset._of(found, stored, validation_fraction, 255.0, how, own.short)
    if is_import_name(name):
        return _imported(name, folder, validation_fraction)
    kind = kind_of(name)
    source, place = _open(name, kind, folder)
    train, test = source.read("train"), source.read("test")
    published = {"train": train.labels, "test": test.labels}
    if "validation" in source.parts:
        validation = source.read("validation")
        published["train"] = torch.cat([train.labels, validation.labels])
    else:
        held_out = stratified(train.labels, validation_fraction, salt=f"{name} validation")
        train, validation = _held_out(train, held_out, validation_fraction, name)
    mean, std = _statistics(train.images, kind.full_scale, name)
    check_published(name, kind, place, published, mean, std)
    return Dataset(
        name=name,
        class_names=source.class_names,
        train=train,
        validation=validation,
        test=test,
        full_scale=kind.full_scale,
        mean=mean,
        std=std,
    )


def load_test(name: str | Path = "digits", folder: str | Path | None = None) -> Split:
    """Load only the test part, which needs less memory than the whole data set.

    Args:
        name: As in `load_dataset`.
        folder: As in `load_dataset`.

    Returns:
        The same images and labels as `load_dataset(name, folder).test`.

    Raises:
        ValueError: As `load_dataset`.
        FileNotFoundError: As `load_dataset`.

    Example:
        >>> test = load_test("digits")
        >>> test.images.shape, test.images.dtype, test.labels.shape
        (torch.Size([359, 1, 8, 8]), torch.uint8, torch.Size([359]))
    """
    name = str(name)
    if own := own_name(name):
        return open_own(own, folder)[0].parts["test"]
    if is_import_name(name):
        return _imported(name, folder, 0.1).test
    kind = kind_of(name)
    source, place = _open(name, kind, folder)
    test = source.read("test")
    statistics = _statistics(test.images, kind.full_scale, name)
    check_published(name, kind, place, {"test": test.labels}, *statistics)
    return test


def check_name(name: str) -> None:
    """Check that a name can be one of a data set, without reading it.

    Raises:
        ValueError: If it is unknown, or an option of it is not allowed.
        FileNotFoundError: If it is a path, and nothing lies there.

    Example:
        >>> check_name("digits")
        >>> check_name("digit")
        Traceback (most recent call last):
            ...
        ValueError: No data set 'digit'; there are digits, mnist, ... Did you mean 'digits'?
    """
    own = own_name(name)
    if own is None and not is_import_name(name):
        kind_of(name)
    elif own is not None and not own.digest and not Path(own.path).exists():
        find(own, None)


def full_scale(name: str) -> float:
    """Pixel value that means 1.0 in the data set of that name.

    Raises:
        ValueError: If there is no data set of that name.

    Example:
        >>> full_scale("digits"), full_scale("mnist")
        (16.0, 255.0)
    """
    return kind_of(name).full_scale


def _imported(name: str, folder: str | Path | None, validation_fraction: float) -> Dataset:
    name, digest = function_name(name)
    function = import_callable(name, "data set")
    try:
        found = function(None if folder is None else Path(folder), validation_fraction)
        if is_pair(found):
            found = _of_torch(found, name, validation_fraction)
    except (ValueError, OSError):
        raise
    except Exception as error:  # any exception that a function of another package raises
        raise ValueError(
            f"The data set {name!r} cannot be loaded ({type(error).__name__}: {error}); it is "
            "called with a folder (or None) and the share of validation images."
        ) from error
    if not isinstance(found, Dataset):
        raise ValueError(
            f"The data set {name!r} returned {type(found).__name__}, not a Dataset of "
            "analog_samson.data; return Dataset.of_splits(train, test, ...), or a pair of torch "
            "data sets (training and test part)."
        )
    parts = {part: getattr(found, part) for part in ("train", "validation", "test")}
    check_parts(Found(parts, found.class_names, found.n_tokens), repr(name))
    there = _digest_of(found)
    if digest and there != digest:
        raise ValueError(
            f"The data set {name!r} is not the one that the network was trained on: its contents "
            f"have the digest {there} instead of {digest}; the function must give the same samples "
            "at every call (seed its random numbers), or train again."
        )
    return replace(found, name=f"{name}@{there}")


def _digest_of(dataset: Dataset) -> str:
    """Digest of the contents, whichever training samples are held out for validation."""
    training = sorted(
        content + label.tobytes()
        for split in (dataset.train, dataset.validation)
        for content, label in zip(split.contents, split.labels.numpy(), strict=True)
    )
    facts = json.dumps([dataset.test.digest, *dataset.class_names]).encode()
    return hashlib.sha256(facts + b"".join(training)).hexdigest()[:16]


def _of_torch(parts: Any, name: str, validation_fraction: float) -> Dataset:
    found = from_torch(parts, name)
    check_parts(found, repr(name))
    return Dataset._of(found, name, validation_fraction, 255.0, "channel", repr(name))


def _with_outputs(split: Split, part: str) -> Split:
    """The same with targets of a regression as (n, outputs)."""
    if not isinstance(split.labels, Tensor) or not split.labels.is_floating_point():
        return split
    return replace(split, labels=as_targets(split.labels.numpy(), f"the {part} part"))


def _held_out(train: Split, held_out: Tensor, fraction: float, name: str) -> tuple[Split, Split]:
    """The training part without the held-out images, and the held-out images."""
    rest, validation = take(train, ~held_out), take(train, held_out)
    if not len(rest) or not len(validation):
        raise ValueError(
            f"validation_fraction={fraction!r} leaves {len(rest)} training and "
            f"{len(validation)} validation images of {name}; both need at least one."
        )
    return rest, validation


def _open(name: str, kind: Kind, folder: str | Path | None) -> tuple[Source, Path | None]:
    """The data set, and the folder that it lies in."""
    if kind.embedded is not None:
        return kind.embedded(), None
    root = Path(folder) if folder is not None else data_folder()
    for place in (root / name, root):
        parquet = parquet_files(place)
        has_torchvision = any((place / file).is_file() for file in kind.torchvision_files)
        if parquet and has_torchvision:
            raise ValueError(
                f"{place} holds {name} twice, in torchvision's layout and as parquet files, which "
                "need not be the same images; move one of them to a folder of its own."
            )
        if has_torchvision:
            return open_torchvision(name, kind, place), place
        if parquet:
            return open_parquet(name, kind, place, parquet), place
    raise FileNotFoundError(
        f"No {name} data: neither {root / name} nor {root} holds torchvision's files "
        f"({', '.join(kind.torchvision_files)}) or parquet files with 'train' and 'test' in their "
        f"names (train-*.parquet, test-*.parquet, in subfolders too); put one of the two there, "
        f"pass the folder, or set {FOLDER_VARIABLE} to the folder that holds {name}/."
    )


def _statistics(
    images: Tensor, full_scale: float, name: str
) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Exact mean and standard deviation per channel, from counts of the 256 pixel values."""
    values = np.arange(256, dtype=np.float64) / full_scale
    counts = np.zeros((images.shape[1], 256), dtype=np.int64)
    for batch in batches(images, 1024):
        for channel in range(images.shape[1]):
            counts[channel] += np.bincount(batch[:, channel].reshape(-1).numpy(), minlength=256)
    mean, std = [], []
    for channel, share in enumerate(counts / counts.sum(axis=1, keepdims=True)):
        centre = float(share @ values)
        spread = float(np.sqrt(share @ (values - centre) ** 2))
        if spread == 0 and images.ndim == 4:
            raise ValueError(
                f"All training images of {name} have the same value everywhere in channel "
                f"{channel}; the files are not what they should be."
            )
        mean.append(centre)
        std.append(spread or 1.0)
    return tuple(mean), tuple(std)


def _feature_statistics(images: Tensor) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and standard deviation per channel; 1 for a channel that is constant."""
    by_channel = images.double().transpose(0, 1).flatten(1)
    mean, std = by_channel.mean(1), by_channel.std(1, correction=0)
    is_constant = std <= 1e-12 * by_channel.abs().amax(1)  # rounding of the mean
    std = torch.where(is_constant, torch.ones_like(std), std)
    return tuple(mean.tolist()), tuple(std.tolist())
