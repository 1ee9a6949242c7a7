"""Find a data set by name, load it, and divide it into parts."""

import math
import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Self

import numpy as np
import torch
from torch import Tensor

from analog_samson.data.catalogue import kind_of
from analog_samson.data.images import normalise
from analog_samson.data.parquet_layout import open_parquet, parquet_files
from analog_samson.data.parts import (
    Kind,
    Source,
    Split,
    check_split,
    stratified,
    stratified_by_content,
    take,
)
from analog_samson.data.torchvision_layout import open_torchvision
from analog_samson.importing import import_callable, is_import_name

FOLDER_VARIABLE = "ANALOG_SAMSON_DATA"
"""Environment variable: a folder that holds one folder a data set (`mnist/`, `cifar10/`, ...)."""


@dataclass(frozen=True, eq=False)
class Dataset:
    """A data set in three parts that never overlap, and how its images are normalised.

    `dataclasses.replace(dataset, mean=..., std=...)` gives the same data set with the normalisation
    of an imported network.

    Attributes:
        name: One of `DATASETS`, or ``package.module:function``.
        class_names: Names of the classes; the position is the label.
        train: Training part, also used for normalisation and calibration.
        validation: Held out from the published training set.
        test: The published test set (`digits`: a fixed fifth); used only for the final evaluation.
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
    ) -> Self:
        """Make a data set of images that are already in memory.

        Mean and standard deviation are those of the training part, per channel.

        Args:
            train: Training part. The validation part is taken from it by content, so it does not
                depend on the order of the images.
            test: The test part.
            validation: A separate validation part; all training images then stay in ``train``.
            validation_fraction: Share of each class's training images that is held out, in (0, 1).
            class_names: Names of the classes; if empty, classes are numbered.
            full_scale: Pixel value that means 1.0.

        Returns:
            The data set, without a name: `load_dataset` gives it the name it was loaded by.

        Raises:
            ValueError: If shapes or labels of the parts are not consistent, a part is empty, a
                channel of the training images is constant, or the full scale is not positive.
        """
        if not 0 < full_scale < math.inf:
            raise ValueError(f"full_scale must be positive and finite; got {full_scale!r}.")
        parts = {"training": train, "validation": validation, "test": test}
        given = {part: split for part, split in parts.items() if split is not None}
        for part, split in given.items():
            shape, dtype = tuple(split.images.shape), split.images.dtype
            if len(shape) != 4 or dtype != torch.uint8 or not len(split):
                raise ValueError(
                    f"Images of the {part} part must be uint8 of shape (n, C, H, W), n at least 1; "
                    f"got {dtype} of shape {shape}."
                )
        n_classes = len(class_names) or 1 + max(int(s.labels.max()) for s in given.values())
        _, channels, height, width = train.images.shape
        kind = Kind(n_classes, (channels, height, width), full_scale)
        for part, split in given.items():
            check_split(split, kind, f"the {part} part")
        if validation is None:
            held_out = stratified_by_content(train, validation_fraction)
            train, validation = _held_out(train, held_out, validation_fraction, "the data set")
        mean, std = _statistics(train.images, full_scale, "the data set")
        names = tuple(class_names) or tuple(str(label) for label in range(n_classes))
        return cls("", names, train, validation, test, full_scale, mean, std)

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
        """Convert pixel values to network inputs: (images / full_scale - mean) / std.

        Args:
            images: uint8, shape (n, C, H, W), on any accelerator.

        Returns:
            float32 of the same shape, on the same accelerator.
        """
        return normalise(images, mean=self.mean, std=self.std, full_scale=self.full_scale)


def load_dataset(
    name: str = "digits", folder: str | Path | None = None, *, validation_fraction: float = 0.1
) -> Dataset:
    """Load a data set into memory.

    Args:
        name: One of `DATASETS`, or ``package.module:function``: a function that is called with
            `folder` (or None) and `validation_fraction` and returns a `Dataset` (see
            `Dataset.of_splits`), the same at every call.
        folder: Folder with the files, or a folder that contains `<name>/`. None: the folder in the
            environment variable `ANALOG_SAMSON_DATA`, or `data` if it is not set. Not used by
            `digits`.
        validation_fraction: Share of each class's training images that becomes the validation part,
            in (0, 1); not used where the folder has a validation part of its own.

    Returns:
        The data set. Which images are validation (and, for `digits`, test) images depends on the
        name and the fraction alone.

    Raises:
        ValueError: If the name or the fraction is not allowed, or a file is damaged.
        FileNotFoundError: If files are missing; the message names them.
    """
    if not 0 < validation_fraction < 1:
        raise ValueError(
            "validation_fraction must lie between 0 and 1, both excluded; "
            f"got {validation_fraction!r}."
        )
    if is_import_name(name):
        return _imported(name, folder, validation_fraction)
    kind = kind_of(name)
    source = _open(name, kind, folder)
    train = source.read("train")
    if "validation" in source.parts:
        validation = source.read("validation")
    else:
        held_out = stratified(train.labels, validation_fraction, salt=f"{name} validation")
        train, validation = _held_out(train, held_out, validation_fraction, name)
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
    """Load only the test part, which needs less memory than the whole data set.

    Args:
        name: As in `load_dataset`.
        folder: As in `load_dataset`.

    Returns:
        The same images and labels as `load_dataset(name, folder).test`.

    Raises:
        ValueError: As `load_dataset`.
        FileNotFoundError: As `load_dataset`.
    """
    if is_import_name(name):
        return _imported(name, folder, 0.1).test
    return _open(name, kind_of(name), folder).read("test")


def full_scale(name: str) -> float:
    """Pixel value that means 1.0 in the data set of that name.

    Raises:
        ValueError: If there is no data set of that name.
    """
    return kind_of(name).full_scale


def _imported(name: str, folder: str | Path | None, validation_fraction: float) -> Dataset:
    function = import_callable(name, "data set")
    try:
        found = function(None if folder is None else Path(folder), validation_fraction)
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
            "analog_samson.data; return Dataset.of_splits(train, test, ...)."
        )
    for part in ("train", "validation", "test"):
        kind = Kind(found.n_classes, found.image_shape)
        check_split(getattr(found, part), kind, f"the {part} part of {name!r}")
    return replace(found, name=name)


def _held_out(train: Split, held_out: Tensor, fraction: float, name: str) -> tuple[Split, Split]:
    """The training part without the held-out images, and the held-out images."""
    rest, validation = take(train, ~held_out), take(train, held_out)
    if not len(rest) or not len(validation):
        raise ValueError(
            f"validation_fraction={fraction!r} leaves {len(rest)} training and "
            f"{len(validation)} validation images of {name}; both need at least one."
        )
    return rest, validation


def _open(name: str, kind: Kind, folder: str | Path | None) -> Source:
    if kind.embedded is not None:
        return kind.embedded()
    root = Path(folder) if folder is not None else Path(os.environ.get(FOLDER_VARIABLE) or "data")
    for place in (root / name, root):
        parquet = parquet_files(place)
        has_torchvision = any((place / file).is_file() for file in kind.torchvision_files)
        if parquet and has_torchvision:
            raise ValueError(
                f"{place} holds {name} twice, in torchvision's layout and as parquet files, which "
                "need not be the same images; move one of them to a folder of its own."
            )
        if has_torchvision:
            return open_torchvision(name, kind, place)
        if parquet:
            return open_parquet(name, kind, place, parquet)
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
    mean, std = [], []
    for channel in range(images.shape[1]):
        counts = np.bincount(images[:, channel].reshape(-1).numpy(), minlength=256)
        share = counts / counts.sum()
        centre = float(share @ values)
        spread = float(np.sqrt(share @ (values - centre) ** 2))
        if spread == 0:
            raise ValueError(
                f"All training images of {name} have the same value everywhere in channel "
                f"{channel}; the files are not what they should be."
            )
        mean.append(centre)
        std.append(spread)
    return tuple(mean), tuple(std)
