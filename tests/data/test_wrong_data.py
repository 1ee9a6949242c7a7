"""What is wrong with a data set is one sentence: what was found, what is allowed, what to do."""

import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from samples import CLASSES, encoded, samples, write_folders, write_idx, write_parquet

from analog_samson.checkpoint import TrainingSpec, load_checkpoint
from analog_samson.data import load_dataset, load_test
from analog_samson.study import Study
from analog_samson.training import train, train_grid

TRAIN, TEST = samples(60, 0), samples(21, 1)
PARTS = {"train": TRAIN, "test": TEST}


def arrays(folder: Path, **changes) -> str:
    """An .npz file with some arrays changed; None leaves one out."""
    given = {"x_train": TRAIN[0], "y_train": TRAIN[1], "x_test": TEST[0], "y_test": TEST[1]}
    given = {name: array for name, array in (given | changes).items() if array is not None}
    np.savez(folder / "a.npz", **given)
    return str(folder / "a.npz")


def features(n: int, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).random((n, 4)).astype(np.float32)


def with_nan(folder):
    x = features(60, 0)
    x[7, 2] = np.nan
    return arrays(folder, x_train=x, x_test=features(21, 1))


def with_infinite_targets(folder):
    y = np.linspace(0, 1, 21)
    y[3] = np.inf
    return arrays(folder, y_train=np.linspace(0, 1, 60), y_test=y)


def changed(array, row, value):
    array = array.copy()
    array[row] = value
    return array


def overlapping(folder):
    return arrays(folder, x_test=np.concatenate([TEST[0][:20], TRAIN[0][4:5]]))


def folders(folder, **options):
    return write_folders(folder / "flowers", PARTS, **options)


def with_file(name, content, text="{}/flowers"):
    """Class folders with one more file."""

    def build(folder):
        file = folders(folder) / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(content)
        return text.format(folder)

    return build


def empty_class(folder):
    (folders(folder) / "train" / "empty").mkdir()
    return f"{folder}/flowers"


def empty_folder(folder):
    (folder / "flowers").mkdir()
    return f"{folder}/flowers"


def one_class(folder):
    return arrays(folder, y_train=np.zeros(60, int), y_test=np.zeros(21, int))


def no_test_folder(folder):
    return str(write_folders(folder / "flowers", {"train": TRAIN}))


def loose_images(folder):
    (folder / "flowers").mkdir()
    (folder / "flowers" / "sub").mkdir()
    (folder / "flowers" / "1.png").write_bytes(encoded(TRAIN[0][0]))
    return f"{folder}/flowers"


def two_layouts(folder):
    path = write_parquet(folder / "flowers", PARTS)
    np.savez(path / "train.npz", x=TRAIN[0], y=TRAIN[1])
    return str(path)


def sixteen_bits(folder):
    from PIL import Image

    path = folders(folder)
    image = Image.fromarray(np.arange(64, dtype=np.uint16).reshape(8, 8) * 1000)
    image.save(path / "train" / "dark" / "deep.png")
    return str(path)


def text(content, name="book.txt"):
    def build(folder):
        file = folder / name
        file.write_bytes(content)
        return str(file)

    return build


def pickled(folder):
    np.savez(folder / "a.npz", x=np.array([{}, 1], object), y=np.zeros(2))
    return f"{folder}/a.npz"


def renamed(name):
    def build(folder):
        np.savez(folder / name, x=TRAIN[0], y=TRAIN[1])
        return str(folder / name)

    return build


def parquet_without_parts(folder):
    path = write_parquet(folder / "flowers", PARTS)
    (path / "train-00000-of-00001.parquet").rename(path / "0000.parquet")
    return str(path)


def idx_without_labels(folder):
    grey = {"train": (TRAIN[0][:, 0], TRAIN[1]), "t10k": (TEST[0][:, 0], TEST[1])}
    path = write_idx(folder / "fashion", grey)
    (path / "MNIST" / "raw" / "train-labels-idx1-ubyte").unlink()
    return str(path)


def idx_cut(folder):
    path = Path(idx_without_labels(folder))
    file = path / "MNIST" / "raw" / "t10k-images-idx3-ubyte"
    file.write_bytes(file.read_bytes()[:-3])
    return str(path)


WRONG = {
    "labels out of range": (
        lambda f: arrays(f, y_test=changed(TEST[1], 3, 9)),
        r"Labels from 0 to 9 in the test part of a.npz; 3 classes allow 0 to 2",
    ),
    "negative labels": (
        lambda f: arrays(f, y_train=changed(TRAIN[1], 3, -1)),
        r"Labels from -1 to 2 in the training part",
    ),
    "NaN features": (with_nan, r"inputs of the training part .* NaN or infinity, first in row 7"),
    "infinite targets": (with_infinite_targets, r"targets of the test part .* first in row 3"),
    "other shape in the test part": (
        lambda f: arrays(f, x_test=TEST[0][:, :, :6]),
        r"inputs of the test part .* shape \(3, 6, 8\) .* training part \(3, 8, 8\)",
    ),
    "other type in the test part": (
        lambda f: arrays(f, x_test=TEST[0].astype(np.float32)),
        r"type torch.float32, those of the training part .* torch.uint8",
    ),
    "targets of another task": (
        lambda f: arrays(f, y_test=TEST[1].astype(float)),
        r"targets of the test part .* have shape \(1,\) and type torch.float32",
    ),
    "one class": (one_class, r"belong to one class, class 0; a classifier needs two"),
    "a class only in the test part": (
        lambda f: arrays(f, y_train=np.where(TRAIN[1] == 1, 2, TRAIN[1])),
        r"test part of a.npz has samples of class 1, of which the training part has none",
    ),
    "fewer targets than inputs": (
        lambda f: arrays(f, y_train=TRAIN[1][:50]),
        r"60 inputs and 50 targets in the training part",
    ),
    "an empty part": (
        lambda f: arrays(f, x_test=TEST[0][:0], y_test=TEST[1][:0]),
        r"0 inputs and 0 targets in the test part",
    ),
    "fewer targets than inputs, before parts are divided": (
        lambda f: arrays(f, y_train=TRAIN[1][:50], x_test=None, y_test=None) + ",test_fraction=0.2",
        r"60 inputs and 50 targets in the training part",
    ),
    "nothing, before parts are divided": (
        lambda f: (
            arrays(f, x_train=TRAIN[0][:0], y_train=TRAIN[1][:0], x_test=None, y_test=None)
            + ",test_fraction=0.2"
        ),
        r"0 inputs and 0 targets in the training part",
    ),
    "no test part": (
        lambda f: arrays(f, x_test=None, y_test=None),
        r"a.npz has no test part; add one, or write a.npz,test_fraction=0.2",
    ),
    "no test folder": (no_test_folder, r"flowers has no test part; add one"),
    "test_fraction beside a test part": (
        lambda f: arrays(f) + ",test_fraction=0.2",
        r"test_fraction=0.2 is for data without a test part, and a.npz has one of 21",
    ),
    "overlapping parts": (
        overlapping,
        r"1 of the 21 test samples of a.npz lie in its training part, too \(first: row 20\)",
    ),
    "x without y": (lambda f: arrays(f, y_train=None), r"has no array 'y_train' \(it has x_train"),
    "other arrays": (
        lambda f: arrays(f, x_train=None, y_train=None),
        r"holds x_test, y_test; it needs x_train, y_train",
    ),
    "pickled objects": (pickled, r"a.npz cannot be read as arrays of numbers .*without objects"),
    "a damaged array file": (text(b"PK no zip", "a.npz"), r"a.npz cannot be read as arrays"),
    "negative tokens": (
        lambda f: arrays(f, x_train=TRAIN[0][:, 0, 0].astype(int) - 60,
                         x_test=TEST[0][:, 0, 0].astype(int)),
        r"whole numbers, which are tokens, and go down to -",
    ),
    "complex inputs": (
        lambda f: arrays(f, x_train=TRAIN[0] * 1j),
        r"are complex128 of shape .* must be numbers",
    ),
    "targets of three dimensions": (
        lambda f: arrays(f, y_train=np.zeros((60, 2, 2), int)),
        r"targets of the train part .* \(60, 2, 2\); they must be",
    ),
    "all targets ignored": (
        lambda f: arrays(f, y_train=np.full((60, 2), -100), y_test=np.zeros((21, 2), int)),
        r"All targets of the training part of a.npz are -100",
    ),
    "an empty folder": (empty_folder, r"holds none of these; a data set is one of: a folder with"),
    "an empty class": (empty_class, r"train/empty' holds no images; add some, or remove it"),
    "mixed sizes": (
        with_file("train/dark/big.png", encoded(samples(1, 3, (3, 9, 8))[0][0])),
        r"several sizes \(.*8 x 8.*9 x 8\); .*flowers,image_size=8",
    ),
    "a corrupt image": (
        with_file("train/dark/x.png", b"\x89PNG\r\n\x1a\n" + bytes(60)),
        r"flowers/train/dark/x.png: the image cannot be decoded",
    ),
    "a corrupt test image": (
        with_file("test/grey/x.webp", encoded(samples(1, 3)[0][0], "WEBP")[:-20]),
        r"flowers/test/grey/x.webp: the image cannot be decoded",
    ),
    "a truncated image": (
        with_file("train/dark/x.jpeg", encoded(samples(1, 3)[0][0], "JPEG")[:-200]),
        r"flowers/train/dark/x.jpeg: the image cannot be decoded",
    ),
    "a file that is no image": (
        with_file("test/grey/notes.doc", b"x"),
        r"test/grey/notes.doc is no image that can be read \(.png, .jpg",
    ),
    "an unknown class in the test part": (
        with_file("test/violet/1.png", encoded(samples(1, 3)[0][0])),
        r"test part .* has a class 'violet', which the training part has not",
    ),
    "parts beside classes": (
        with_file("dark/1.png", encoded(samples(1, 3)[0][0])),
        r"holds the folders dark, test, train; it needs train and test",
    ),
    "images outside of classes": (loose_images, r"1.png lies in no folder of a class"),
    "two layouts in a folder": (two_layouts, r"holds parquet files and .npz files"),
    "16 bits a channel": (sixteen_bits, r"deep.png: the image has more than 8 bits a channel"),
    "an unknown option": (
        lambda f: f"{folders(f)},image_sise=8",
        r"unknown option 'image_sise'; did you mean 'image_size'",
    ),
    "an option of another layout": (
        lambda f: arrays(f) + ",image_size=8",
        r"image_size does not apply to .*a.npz, which holds .npz files; those take normalise",
    ),
    "an option out of range": (
        lambda f: arrays(f) + ",test_fraction=1.5",
        r"test_fraction=1.5, which is not allowed; allowed: a number between 0 and 1",
    ),
    "an option of a shipped set": (
        lambda f: "digits,image_size=8",
        r"for data of your own, .*'digits' .* write ./digits",
    ),
    "a name with a colon": (renamed("a:b.npz"), r"is called 'a:b.npz'; rename it"),
    "another ending": (text(b"x", "a.csv"), r"a.csv is no data set; allowed: a folder with"),
    "a text too short": (text(b"short"), r"has 5 characters; a window of length=64 needs 65"),
    "a text that is no UTF-8": (text(b"\xff" * 200), r"book.txt is no UTF-8 text"),
    "a parquet file of no part": (parquet_without_parts, r"every file needs train, validation"),
    "idx files that are damaged": (idx_cut, r"t10k-images-idx3-ubyte is damaged"),
}  # fmt: skip


@pytest.mark.parametrize("case", WRONG)
def test_wrong_data_are_one_sentence(case, tmp_path):
    build, said = WRONG[case]
    name = build(tmp_path)
    with pytest.raises(ValueError, match=said) as caught:
        dataset = load_dataset(name)
        dataset.normalise(dataset.train.images)
    message = str(caught.value)
    assert "\n" not in message
    assert message.endswith(".")
    assert message.count(". ") == 0, "one sentence"


def test_a_missing_idx_file_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="no idx file of the train labels"):
        load_dataset(idx_without_labels(tmp_path))


def test_overlapping_samples_can_be_left_out_of_training(tmp_path):
    dataset = load_dataset(overlapping(tmp_path) + ",overlap=drop")
    assert (len(dataset.train) + len(dataset.validation), len(dataset.test)) == (59, 21)
    assert "overlap=drop" in dataset.name


# names


def test_an_unknown_data_set_is_said_before_any_worker_starts(tmp_path, monkeypatch):
    monkeypatch.setattr("analog_samson.running.run_jobs", None)
    with pytest.raises(ValueError, match=r"No data set 'mnits'; .*Did you mean 'mnist'"):
        TrainingSpec(dataset="mnits")
    with pytest.raises(FileNotFoundError, match="There is no data set '/no/such/flowers'"):
        TrainingSpec(dataset="/no/such/flowers")
    with pytest.raises(ValueError, match="has no test part"):
        train_grid([TrainingSpec(dataset=no_test_folder(tmp_path))], tmp_path, noise_sigma=0.1)


def test_a_data_set_that_changed_or_is_not_there_is_refused(tmp_path):
    path = train(
        TrainingSpec(dataset=str(folders(tmp_path / "a")), epochs=0, batch_size=8), tmp_path
    )
    stored = load_checkpoint(path).spec.dataset
    with pytest.raises(FileNotFoundError, match="looked for .*b/flowers"):
        Study("s", [path], ["ideal"], [1.0], data_folder=tmp_path / "b" / "flowers").trials()
    write_folders(tmp_path / "b" / "flowers", {**PARTS, "test": samples(21, 2)})
    for where in ({"data_folder": tmp_path / "b"}, {"dataset": tmp_path / "b" / "flowers"}):
        with pytest.raises(ValueError, match=r"is not 'flowers' as it was trained on: .* digest"):
            Study("s", [path], ["ideal"], [1.0], **where).trials()
    (tmp_path / "b" / "other").mkdir()
    with pytest.raises(FileNotFoundError, match=r"b/other is none itself .*holds none of these"):
        load_test(stored, tmp_path / "b" / "other")
    with pytest.raises(ValueError, match=r"has dataset='digits', and a network of it was trained"):
        Study("s", [path], ["ideal"], [1.0], dataset="digits").trials()
    assert str(tmp_path) not in path.read_bytes().decode("latin1")


# what is published under a name


def test_idx_files_of_another_set_do_not_pass_as_mnist(tmp_path):
    """Labels of ten classes and images of MNIST's size, as Fashion-MNIST has."""
    parts = {}
    for part, n in (("train", 100), ("t10k", 20)):
        images, _ = samples(n, n, (1, 28, 28))
        parts[part] = images, np.arange(n) % 10
    path = write_idx(tmp_path / "mnist", parts)
    for load in (load_dataset, load_test):
        with pytest.raises(ValueError, match=r"are not mnist \(.*dataset='.*/mnist'") as caught:
            load("mnist", tmp_path)
    named = str(caught.value).split("dataset=")[1].strip("'.")
    assert load_dataset(named).name.startswith("mnist@")
    assert len(load_test(named)) == 20
    assert path.is_dir()


def test_three_classes_of_ones_own_do_not_pass_as_cifar10(tmp_path):
    parts = {"train": samples(60, 0, (3, 32, 32)), "test": samples(21, 1, (3, 32, 32))}
    write_parquet(tmp_path / "cifar10", parts)
    for load in (load_dataset, load_test):
        with pytest.raises(ValueError, match=r"are not cifar10 \(.*21 test images"):
            load("cifar10", tmp_path)
    dataset = load_dataset(str(tmp_path / "cifar10"))
    assert dataset.class_names == ("0", "1", "2")
    with pytest.raises(ValueError, match=r"3 classes .* instead of 10; .*give its path"):
        write_parquet(tmp_path / "cifar10", parts, names=CLASSES)
        load_dataset("cifar10", tmp_path)


# functions


FUNCTIONS = """
import torch
from torch.utils.data import Dataset, TensorDataset
from analog_samson.data import Dataset as Ours, Split

def raises(folder, fraction):
    raise RuntimeError("the disk is gone")

def nothing(folder, fraction):
    return None

def pair(n=60, m=21, **changes):
    x, y = torch.rand(n + m, 4), torch.arange(n + m) % 3
    return TensorDataset(x[:n], y[:n]), TensorDataset(x[n:], y[n:])

def empty(folder, fraction):
    return pair(m=0)

def single(folder, fraction):
    train, _ = pair()
    return train, TensorDataset(torch.rand(5, 4))

class Ragged(Dataset):
    def __len__(self):
        return 4
    def __getitem__(self, i):
        return torch.rand(3 + i), 0

def ragged(folder, fraction):
    return pair()[0], Ragged()

class Endless(Dataset):
    def __getitem__(self, i):
        return torch.rand(3), 0

def endless(folder, fraction):
    return Endless(), pair()[1]

def overlap(folder, fraction):
    train, _ = pair()
    return train, train

def nan(folder, fraction):
    train, test = pair()
    train.tensors[0][5, 1] = torch.nan
    return train, test
"""

RETURNED = {
    "raises": r"cannot be loaded \(RuntimeError: the disk is gone\)",
    "nothing": r"returned NoneType, not a Dataset .*or a pair of torch data sets",
    "empty": r"The test part of 'functions_for_a_test:empty' is empty",
    "single": r"Sample 0 of the test part .* is tuple, not a pair",
    "ragged": r"Sample 1 of the test part .* has shapes \(4,\) .* the first \(3,\)",
    "endless": r"The training part|The train part of .* has no length",
    "overlap": r"60 of the 60 test samples",
    "nan": r"training part .* NaN or infinity, first in row 5",
}


@pytest.fixture
def functions(tmp_path, monkeypatch):
    (tmp_path / "functions_for_a_test.py").write_text(FUNCTIONS)
    monkeypatch.syspath_prepend(tmp_path)
    yield "functions_for_a_test"
    sys.modules.pop("functions_for_a_test", None)


@pytest.mark.parametrize("function", RETURNED)
def test_a_function_that_returns_something_wrong_is_one_sentence(function, functions):
    with pytest.raises(ValueError, match=RETURNED[function]):
        load_dataset(f"{functions}:{function}")


# training


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"augmentation": "crop"}, r"augmentation='crop' shifts and mirrors images, and the inp"),
        ({"batch_size": 100}, "batch_size must be at most the 54 training"),
    ],
)
def test_what_cannot_be_trained_on_is_said_first(options, said, tmp_path):
    x = {"x_train": features(60, 0), "x_test": features(21, 1)}
    name = arrays(tmp_path, **x)
    with pytest.raises(ValueError, match=said):
        train(TrainingSpec(dataset=name, **{"batch_size": 8, **options}), tmp_path)


def test_labels_of_a_regression_are_not_smoothed_and_have_no_trajectory_loss(tmp_path):
    x = features(60, 0)
    y = {"y_train": x.sum(1), "y_test": features(21, 1).sum(1)}
    name = arrays(tmp_path, x_train=x, x_test=features(21, 1), **y)
    base = {"dataset": name, "batch_size": 8, "epochs": 1}
    with pytest.raises(ValueError, match=r"label_smoothing=0.1 is for classes"):
        train(TrainingSpec(**base, label_smoothing=0.1), tmp_path)
    with pytest.raises(ValueError, match=r"compares probabilities of classes"):
        train(TrainingSpec(**base, method="saf", trajectory_weight=0.3), tmp_path)


def test_a_network_of_another_shape_is_one_sentence(tmp_path):
    torch.manual_seed(0)
    name = arrays(tmp_path, x_train=features(60, 0), x_test=features(21, 1))
    with pytest.raises(ValueError, match=r"'lenet5' cannot be built for inputs of shape \(4,\)"):
        train(TrainingSpec(dataset=name, model="lenet5", batch_size=8), tmp_path)
