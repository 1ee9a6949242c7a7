"""The data sets that can be loaded by name: one entry each."""

import difflib

import numpy as np
import torch

from analog_samson.data.parts import Kind, Published, Source, Split, stratified, take


def _digits() -> Source:
    from sklearn.datasets import load_digits

    bunch = load_digits()
    everything = Split(
        torch.from_numpy(bunch.images.astype(np.uint8))[:, None],
        torch.from_numpy(bunch.target.astype(np.int64)),
    )
    is_test = stratified(everything.labels, 0.2, salt="digits test")

    def read(part: str) -> Split:
        return take(everything, is_test if part == "test" else ~is_test)

    return Source(tuple(str(name) for name in bunch.target_names), ("train", "test"), read)


# Counts: LeCun et al. (MNIST), Krizhevsky 2009 (CIFAR). Means and standard deviations: those that
# public training recipes normalise with.
MNIST = Published(
    {
        "train": (5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949),
        "test": (980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009),
    },
    mean=(0.1307,),
    std=(0.3081,),
)
CIFAR10 = Published(
    {"train": (5000,) * 10, "test": (1000,) * 10},
    mean=(0.4914, 0.4822, 0.4465),
    std=(0.2470, 0.2435, 0.2616),
)
CIFAR100 = Published(
    {"train": (500,) * 100, "test": (100,) * 100},
    mean=(0.5071, 0.4865, 0.4409),
    std=(0.2673, 0.2564, 0.2762),
)

KINDS = {
    "digits": Kind(10, (1, 8, 8), full_scale=16.0, embedded=_digits),
    "mnist": Kind(
        10,
        (1, 28, 28),
        published=MNIST,
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
        published=CIFAR10,
        torchvision_class="CIFAR10",
        torchvision_files=tuple(
            f"cifar-10-batches-py/{file}"
            for file in (*(f"data_batch_{i}" for i in range(1, 6)), "test_batch", "batches.meta")
        ),
    ),
    "cifar100": Kind(
        100,
        (3, 32, 32),
        published=CIFAR100,
        torchvision_class="CIFAR100",
        torchvision_files=tuple(f"cifar-100-python/{file}" for file in ("train", "test", "meta")),
    ),
}

DATASETS: tuple[str, ...] = tuple(KINDS)
"""Names that `load_dataset` takes, besides paths and ``package.module:function``."""


def kind_of(name: str) -> Kind:
    """Find a data set by name.

    Raises:
        ValueError: If there is no data set of that name.
    """
    if name not in KINDS:
        close = difflib.get_close_matches(name, DATASETS, n=1)
        hint = f" Did you mean {close[0]!r}?" if close else ""
        raise ValueError(
            f"No data set {name!r}; there are {', '.join(DATASETS)}, and for your own the path of "
            f"a file or folder (./{name}) or 'package.module:function'.{hint}"
        )
    return KINDS[name]


def is_published(name: str) -> bool:
    """Whether it is the name of one of the published sets, of tens of thousands of images.

    Example:
        >>> is_published("mnist"), is_published("digits")
        (True, False)
    """
    return name in KINDS and KINDS[name].published is not None
