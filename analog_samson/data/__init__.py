"""Image data sets by name, decoded once and held in memory as uint8.

`digits` is part of scikit-learn. `mnist`, `cifar10` and `cifar100` are read from a folder in one of
two layouts, whichever is found: torchvision's (`MNIST/raw`, `cifar-10-batches-py`,
`cifar-100-python`) or the parquet files of the Hugging Face hub (encoded images, class names in the
schema's metadata). Nothing is downloaded.

Training, validation and test images never overlap: the validation images are a fixed, stratified
part of the published training set (or the published validation set where there is one), the same on
every machine; what is fitted to data (mean and standard deviation) is fitted to the training images
alone.
"""

from analog_samson.data.catalogue import DATASETS
from analog_samson.data.datasets import (
    FOLDER_VARIABLE,
    Dataset,
    full_scale,
    load_dataset,
    load_test,
)
from analog_samson.data.images import AUGMENTATIONS, augment, augmented, normalise
from analog_samson.data.parts import Split

__all__ = [
    "AUGMENTATIONS",
    "DATASETS",
    "FOLDER_VARIABLE",
    "Dataset",
    "Split",
    "augment",
    "augmented",
    "full_scale",
    "load_dataset",
    "load_test",
    "normalise",
]
