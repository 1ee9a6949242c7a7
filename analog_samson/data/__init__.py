"""Data sets: shipped ones by name, your own by their path, or by a function of yours.

`digits` is part of scikit-learn. `mnist`, `cifar10` and `cifar100` are read from a folder in one of
two layouts, whichever is found: torchvision's (`MNIST/raw`, `cifar-10-batches-py`,
`cifar-100-python`) or the parquet files of the Hugging Face hub (encoded images, class names in the
schema's metadata). They are recognised by their contents; re-encoded copies are allowed and named.
Nothing is downloaded. Your own data are class folders of images, `.npz` arrays, parquet, idx or
text files, or what a function returns (`docs/DATA.md`).

Training, validation and test samples never overlap: the validation part is a fixed, stratified part
of the training set (or the validation set where there is one), the same on every machine; what is
fitted to data (mean and standard deviation) is fitted to the training part alone.
"""

from analog_samson.data.catalogue import DATASETS, is_published
from analog_samson.data.datasets import (
    Dataset,
    check_name,
    full_scale,
    load_dataset,
    load_test,
)
from analog_samson.data.encoded import EncodedImages
from analog_samson.data.images import (
    AUGMENTATIONS,
    augment,
    augmented,
    check_augmentation,
    normalise,
)
from analog_samson.data.names import (
    FOLDER_VARIABLE,
    find,
    function_name,
    label_of,
    own_name,
    path_in,
    place_of,
    short_name,
)
from analog_samson.data.own import file_state
from analog_samson.data.parts import Split
from analog_samson.tasks import IGNORED, Task

__all__ = [
    "AUGMENTATIONS",
    "DATASETS",
    "FOLDER_VARIABLE",
    "IGNORED",
    "Dataset",
    "EncodedImages",
    "Split",
    "Task",
    "augment",
    "augmented",
    "check_augmentation",
    "check_name",
    "file_state",
    "find",
    "full_scale",
    "function_name",
    "is_published",
    "label_of",
    "load_dataset",
    "load_test",
    "normalise",
    "own_name",
    "path_in",
    "place_of",
    "short_name",
]
