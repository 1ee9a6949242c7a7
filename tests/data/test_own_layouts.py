"""Every layout of a data set of one's own is read as it was written, whatever its file names."""

import functools
import gzip
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from places import SHARED_DATA
from samples import CLASSES, encoded, samples, write_folders, write_idx, write_parquet

from analog_samson.data import (
    IGNORED,
    checking,
    label_of,
    load_dataset,
    load_test,
    own_name,
    short_name,
)
from analog_samson.data.datasets import Dataset
from analog_samson.data.encoded import decoded
from analog_samson.report.methods import dataset_label, described_in

TRAIN, TEST = samples(60, 0), samples(21, 1)
PARTS = {"train": TRAIN, "test": TEST}


def contents(*splits) -> list[tuple[bytes, object]]:
    """Inputs and targets, sorted."""
    return sorted(
        (image.numpy().tobytes(), label.tolist())
        for split in splits
        for image, label in zip(decoded(split.images), split.labels, strict=True)
    )


def expected(images, labels) -> list[tuple[bytes, object]]:
    return sorted((i.tobytes(), int(y)) for i, y in zip(images, labels, strict=True))


def check_whole(dataset: Dataset) -> None:
    """All samples are there once, and the parts share none."""
    assert contents(dataset.train, dataset.validation) == expected(*TRAIN)
    assert contents(dataset.test) == expected(*TEST)
    assert not set(contents(dataset.train)) & set(contents(dataset.validation))


def write(layout: str, root: Path) -> Path:
    """The data set in one of the layouts; returns its path."""
    if layout == "folders":
        return write_folders(root / "flowers", PARTS)
    if layout == "parquet":
        return write_parquet(root / "flowers", PARTS, names=CLASSES)
    arrays = {f"{axis}_{part}": a for part, pair in PARTS.items()
              for axis, a in zip("xy", pair, strict=True)}  # fmt: skip
    if layout == "one npz":
        np.savez(root / "flowers.npz", class_names=np.array(CLASSES), **arrays)
        return root / "flowers.npz"
    (root / "flowers").mkdir()
    for part, (x, y) in PARTS.items():
        names = np.array(CLASSES)[y] if layout == "named npz" else y
        np.savez(root / "flowers" / f"{part}.npz", x=x, y=names, class_names=np.array(CLASSES))
    return root / "flowers"


LAYOUTS = ("folders", "parquet", "one npz", "two npz", "named npz")


@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_layout_gives_the_samples_that_were_written(layout, tmp_path):
    path = write(layout, tmp_path)
    dataset = load_dataset(str(path))
    assert dataset.class_names == CLASSES
    assert (dataset.task, dataset.image_shape, dataset.n_tokens) == ("classification", (3, 8, 8), 0)
    check_whole(dataset)
    inputs = dataset.normalise(dataset.train.images).double()
    torch.testing.assert_close(inputs.mean((0, 2, 3)), torch.zeros(3).double(), atol=1e-5, rtol=0)
    spread = inputs.std((0, 2, 3), correction=0)
    torch.testing.assert_close(spread, torch.ones(3).double(), atol=1e-5, rtol=0)
    name, _, digest = dataset.name.partition("@")
    assert (name, len(digest)) == (path.name, 16)
    assert load_test(dataset.name, tmp_path).digest == dataset.digest
    assert load_test(dataset.name, path).digest == dataset.digest


@pytest.mark.parametrize("kind", ["JPEG", "WEBP"])
def test_other_encodings_are_decoded_as_pillow_decodes_them(kind, tmp_path):
    from PIL import Image

    path = write_folders(tmp_path / "flowers", PARTS, kind)
    dataset = load_dataset(str(path))
    assert dataset.test.encoding == kind
    files = sorted((path / "test" / "grey").iterdir())
    wanted = {np.asarray(Image.open(file)).transpose(2, 0, 1).tobytes() for file in files}
    assert {c for c, label in contents(dataset.test) if label == 1} == wanted


def test_names_and_order_of_files_do_not_matter_and_contents_do(tmp_path):
    one = write_folders(tmp_path / "a" / "flowers", PARTS)
    other = write_folders(tmp_path / "b" / "flowers", PARTS)
    for i, file in enumerate(sorted(other.rglob("*.png"), reverse=True)):
        file.rename(file.with_name(f"picture{i}.png"))
    first, second = load_dataset(str(one)), load_dataset(str(other))
    assert first.name == second.name
    assert first.test.images.decoded().equal(second.test.images.decoded())
    assert contents(first.validation) == contents(second.validation)
    next(other.rglob("*.png")).write_bytes(encoded(samples(1, 9)[0][0]))
    assert load_dataset(str(other)).name != first.name


def test_the_first_test_images_of_folders_are_no_class_of_their_own(tmp_path):
    """Of 21 images in the order of random hashes the first 12 are of one class with p < 1e-6."""
    test = load_dataset(str(write_folders(tmp_path / "flowers", PARTS))).test
    assert len(set(test.labels[:12].tolist())) > 1


def test_a_test_fraction_is_taken_by_content_and_stands_in_the_name(tmp_path):
    images, labels = samples(90, 0)
    double = np.concatenate([images, images[:9]]), np.concatenate([labels, labels[:9]])
    np.savez(tmp_path / "all.npz", x=double[0], y=double[1])
    order = np.random.default_rng(0).permutation(99)
    np.savez(tmp_path / "shuffled.npz", x=double[0][order], y=double[1][order])
    dataset = load_dataset(f"{tmp_path}/all.npz,test_fraction=0.2")
    assert dataset.name.startswith("all.npz,test_fraction=0.2@")
    other = load_dataset(f"{tmp_path}/shuffled.npz,test_fraction=0.2")
    assert contents(dataset.test) == contents(other.test)
    counts = dataset.test.labels.bincount().tolist()
    assert all(6 <= n <= 8 for n in counts), "a fifth of 33, equal images together"
    parts = [set(contents(p)) for p in (dataset.train, dataset.validation, dataset.test)]
    assert not (parts[0] & parts[1] or parts[0] & parts[2] or parts[1] & parts[2])


def test_a_validation_part_is_used_as_it_is(tmp_path):
    parts = {**PARTS, "val": samples(15, 5)}
    dataset = load_dataset(str(write_folders(tmp_path / "flowers", parts)))
    assert contents(dataset.validation) == expected(*parts["val"])
    assert contents(dataset.train) == expected(*TRAIN)


def test_images_of_several_sizes_are_resized_and_cropped_as_torchvision_does(tmp_path):
    from PIL import Image
    from torchvision import transforms

    for i, (height, width) in enumerate([(20, 30), (41, 23), (32, 32), (70, 33)] * 4):
        draws = np.random.default_rng(i)
        image = draws.integers(256, size=(3, height, width), dtype=np.uint8)
        file = tmp_path / "flowers" / ("train" if i < 8 else "test") / f"c{i % 2}" / f"{i}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(encoded(image))
    for options, shorter in (("image_size=14", 16), ("image_size=14,resize=20", 20)):
        dataset = load_dataset(f"{tmp_path}/flowers,{options}")
        assert dataset.image_shape == (3, 14, 14)
        like = transforms.Compose([transforms.Resize(shorter), transforms.CenterCrop(14)])
        wanted = set()
        for file in (tmp_path / "flowers" / "test").rglob("*.png"):
            pixels = np.asarray(like(Image.open(file))).transpose(2, 0, 1)
            wanted.add((pixels.tobytes(), int(file.parent.name[1])))
        assert set(contents(dataset.test)) == wanted


def test_grey_images_have_one_channel_and_mixed_ones_three(tmp_path):
    grey = {part: (images[:, :1], labels) for part, (images, labels) in PARTS.items()}
    path = write_folders(tmp_path / "flowers", grey)
    assert load_dataset(str(path)).image_shape == (1, 8, 8)
    (path / "test" / "dark" / "colour.png").write_bytes(encoded(samples(1, 7)[0][0]))
    assert load_dataset(str(path)).image_shape == (3, 8, 8)


@pytest.mark.parametrize("name", ["fashion", "mnist"])
def test_idx_files_beside_packed_ones_of_other_contents_are_refused(name, tmp_path):
    """torchvision leaves the packed files that it unpacked; they are not read."""
    grey = {"train": (TRAIN[0][:, 0], TRAIN[1]), "t10k": (TEST[0][:, 0], TEST[1])}
    path = write_idx(tmp_path / name, grey)
    names = [name] if name == "mnist" else [str(path)]
    load = functools.partial(load_dataset, *names, tmp_path)
    for file in list(path.rglob("*ubyte")):
        file.with_name(f"{file.name}.gz").write_bytes(gzip.compress(file.read_bytes()))
    if name == "fashion":
        assert len(load().train)
    packed = file.with_name(f"{file.name}.gz")
    packed.write_bytes(gzip.compress(file.read_bytes()[::-1]))
    with pytest.raises(ValueError, match=rf"{packed.name} is not .* packed.*remove"):
        load()


def test_idx_files_of_another_set_are_read_by_their_path(tmp_path):
    grey = {"train": (TRAIN[0][:, 0], TRAIN[1]), "t10k": (TEST[0][:, 0], TEST[1])}
    path = write_idx(tmp_path / "fashion", grey)
    dataset = load_dataset(str(path))
    assert dataset.image_shape == (1, 8, 8)
    assert contents(dataset.test) == expected(*grey["t10k"])
    write_idx(tmp_path / "digits", grey)
    with pytest.raises(ValueError, match=r"has the .* twice, .*digits.* and .*fashion.*give the"):
        load_dataset(str(tmp_path))


ARRAYS = {
    "channels last": (np.uint8, (8, 8, 3), (3, 8, 8)),
    "grey": (np.uint8, (8, 8), (1, 8, 8)),
    "half": (np.float16, (2, 5), (2, 5)),
    "single": (np.float32, (7,), (7,)),
    "double": (np.float64, (1, 4, 4), (1, 4, 4)),
    "tokens": (np.int32, (6,), (6,)),
}


@pytest.mark.parametrize("kind", ARRAYS)
def test_arrays_of_any_type_and_shape(kind, tmp_path):
    dtype, shape, wanted = ARRAYS[kind]
    draws = np.random.default_rng(0)
    x = (draws.random((80, *shape)) * 200).astype(dtype)
    y = np.arange(80) % 4
    np.savez(tmp_path / "a.npz", x_train=x[:60], y_train=y[:60], x_test=x[60:], y_test=y[60:])
    dataset = load_dataset(str(tmp_path / "a.npz"))
    assert (dataset.image_shape, dataset.n_classes) == (wanted, 4)
    inputs = dataset.normalise(dataset.test.images)
    if kind == "tokens":
        assert dataset.n_tokens == 1 + int(x.max())
        assert inputs.equal(torch.from_numpy(x[60:].astype(np.int64)))
        assert (dataset.mean, dataset.std) == ((), ())
        return
    assert inputs.dtype == torch.float32
    plain = dataset.test.images.double()
    scale = 255.0 if dtype == np.uint8 else 1.0
    assert dataset.full_scale == scale
    train = dataset.train.images.double() / scale
    others = [d for d in range(train.ndim) if d != 1]
    shape_ = (1, -1, *[1] * (train.ndim - 2))
    mean, std = train.mean(others), train.std(others, correction=0)
    formula = (plain / scale - mean.view(shape_)) / std.view(shape_)
    torch.testing.assert_close(inputs.double(), formula, atol=2e-5, rtol=2e-5)
    unchanged = load_dataset(f"{tmp_path}/a.npz,normalise=none")
    torch.testing.assert_close(unchanged.normalise(unchanged.test.images).double(), plain)
    assert unchanged.normalise(unchanged.test.images) is not unchanged.test.images


@pytest.mark.parametrize(
    ("shape", "wanted"),
    [
        ((32, 32, 4), None),
        ((28, 32, 2), None),
        ((4, 32, 32), (4, 32, 32)),
        ((2, 8, 8), (2, 8, 8)),
        ((16, 4, 4), (16, 4, 4)),
        ((3, 8, 4), (3, 8, 4)),
    ],
)
def test_images_of_2_or_4_channels_come_with_the_channels_first(shape, wanted, tmp_path):
    x = np.random.default_rng(0).integers(256, size=(60, *shape), dtype=np.uint8)
    y, path = np.arange(60) % 2, tmp_path / "a.npz"
    np.savez(path, x_train=x[:40], y_train=y[:40], x_test=x[40:], y_test=y[40:])
    if wanted:
        assert load_dataset(path).image_shape == wanted
        return
    with pytest.raises(ValueError, match=rf"{shape[-1]} channels a pixel.*transpose\(0, 3, 1, 2\)"):
        load_dataset(path)
    np.savez(path, x=x.transpose(0, 3, 1, 2), y=y)
    assert load_dataset(f"{path},test_fraction=0.2").image_shape == (shape[2], *shape[:2])


def test_inputs_are_checked_once(tmp_path, monkeypatch):
    checked = []
    check = checking.check_finite
    monkeypatch.setattr(
        checking, "check_finite", lambda x, what: (checked.append(len(x)), check(x, what))
    )
    x = np.random.default_rng(0).normal(size=(50, 3))
    np.savez(tmp_path / "a.npz", x=x, y=np.arange(50) % 2)
    load_test(f"{tmp_path}/a.npz,test_fraction=0.2")
    assert checked == [50]


def test_a_constant_feature_is_centred_and_not_divided_by_zero(tmp_path):
    x = np.random.default_rng(0).random((40, 3)).astype(np.float32)
    x[:, 1] = 0.1
    np.savez(tmp_path / "a.npz", x=x, y=np.arange(40) % 2)
    dataset = load_dataset(f"{tmp_path}/a.npz,test_fraction=0.25")
    inputs = dataset.normalise(dataset.train.images)
    assert inputs[:, 1].abs().max() < 1e-6
    assert dataset.std[1] == 1.0


def test_numbers_as_targets_are_a_regression(tmp_path):
    x = np.random.default_rng(0).random((50, 3))
    np.savez(tmp_path / "a.npz", x_train=x[:40], y_train=x[:40].sum(1), x_test=x[40:],
             y_test=x[40:].sum(1))  # fmt: skip
    dataset = load_dataset(str(tmp_path / "a.npz"))
    assert (dataset.task, dataset.n_classes, dataset.class_names) == ("regression", 1, ("0",))
    assert dataset.test.labels.shape == (10, 1)
    np.testing.assert_allclose(dataset.test.labels[:, 0], x[40:].sum(1), rtol=1e-6)


# texts


def test_windows_of_a_text_predict_the_next_character_and_share_none(tmp_path):
    text = "".join(np.random.default_rng(0).choice(list("abcd \n"), 1000))
    (tmp_path / "book.txt").write_text(text)
    dataset = load_dataset(
        f"{tmp_path}/book.txt,length=10,test_fraction=0.05", validation_fraction=0.05
    )
    assert (dataset.task, dataset.n_tokens) == ("tokens", 7)
    assert dataset.class_names == (*sorted(set(text)), "<unknown>")

    def spoken(split):
        pieces = ["".join(dataset.class_names[i] for i in row) for row in split.images]
        following = ["".join(dataset.class_names[i] for i in row) for row in split.labels]
        for piece, after in zip(pieces, following, strict=True):
            assert piece[1:] == after[:-1]
        return "".join(pieces)

    assert spoken(dataset.train) + spoken(dataset.validation) == text[:940]
    assert spoken(dataset.test) == text[950:990]
    assert len(dataset.validation) == 5
    assert dataset.test.labels[0, -1] == dataset.class_names.index(text[960])
    last = load_dataset(f"{tmp_path}/book.txt,length=10,targets=last,test_fraction=0.05")
    assert last.test.labels.equal(dataset.test.labels[:, -1])
    assert last.task == "classification"


def test_words_that_training_does_not_know_are_unknown_and_ignored(tmp_path):
    folder = tmp_path / "book"
    folder.mkdir()
    (folder / "train.txt").write_text("the cat sat. " * 20)
    (folder / "test.txt").write_text("the dog sat. the cat ran. " * 5)
    dataset = load_dataset(f"{folder},units=words,length=4")
    assert dataset.class_names == (".", "cat", "sat", "the", "<unknown>")
    assert dataset.test.images[0].tolist() == [3, 4, 2, 0]
    assert dataset.test.labels[0].tolist() == [IGNORED, 2, 0, 3]
    assert dataset.test.labels[1].tolist() == [1, IGNORED, 0, 3]


# real data


@pytest.mark.skipif(not SHARED_DATA.is_dir(), reason="no real data in ../shared/data")
def test_real_spoken_digits_and_shakespeare():
    digits = load_dataset(str(SHARED_DATA / "spoken_digits"))
    assert [len(p) for p in (digits.train, digits.validation, digits.test)] == [2160, 240, 600]
    assert digits.image_shape == (1, 40, 64)
    text = f"{SHARED_DATA}/shakespeare/input.txt,test_fraction=0.05"
    play = load_dataset(text, validation_fraction=0.05)
    assert play.n_classes == 66, "65 characters and the unknown one"
    lengths = [len(p) * 64 for p in (play.train, play.validation, play.test)]
    for n, share in zip(lengths, (0.9, 0.05, 0.05), strict=True):
        assert abs(n - share * 1_115_394) <= 128


@pytest.mark.skipif(not SHARED_DATA.is_dir(), reason="no real data in ../shared/data")
@pytest.mark.slow
def test_real_cifar10_by_its_path_is_the_shipped_one_but_for_the_split():
    own = load_test(str(SHARED_DATA / "cifar10"))
    shipped = load_test("cifar10", SHARED_DATA)
    assert own.labels.equal(shipped.labels)
    assert decoded(own.images).equal(shipped.images)
    assert (own.encoding, shipped.encoding) == ("JPEG", "JPEG")


# functions


PICTURES = """
from PIL import Image
from torch.utils.data import Dataset
from samples import samples

class Pictures(Dataset):
    classes = ["dark", "grey", "light"]

    def __init__(self, n, seed):
        self.images, self.labels = samples(n, seed)

    def __len__(self):
        return len(self.images)

    def __getitem__(self, i):
        return Image.fromarray(self.images[i].transpose(1, 2, 0)), int(self.labels[i])

def pictures(folder, validation_fraction):
    return Pictures(60, 0), Pictures(21, 1)
"""


def test_a_pair_of_torch_data_sets_gives_its_images_and_classes(tmp_path, monkeypatch):
    (tmp_path / "pictures_for_a_test.py").write_text(PICTURES)
    monkeypatch.syspath_prepend(tmp_path)
    dataset = load_dataset("pictures_for_a_test:pictures")
    name = dataset.name.split("@")[0]
    assert (name, dataset.class_names) == ("pictures_for_a_test:pictures", CLASSES)
    check_whole(dataset)


# names


def test_data_of_equal_names_and_other_contents_have_labels_of_their_own(tmp_path):
    for i, digest in enumerate(("a1b2c3d4e5f60718", "0123456789abcdef")):
        (tmp_path / str(i)).mkdir()
        about = {"datasets": {f"flowers@{digest}": {"label": "flowers", "shipped": False}}}
        (tmp_path / str(i) / "manifest.json").write_text(json.dumps(about))
    with described_in([tmp_path / "0"]):
        assert dataset_label("flowers@a1b2c3d4e5f60718") == "flowers"
    with described_in([tmp_path / "0", tmp_path / "1"]):
        assert dataset_label("flowers@a1b2c3d4e5f60718") == "flowers [a1b2c3]"
        assert dataset_label("flowers@0123456789abcdef") == "flowers [012345]"
    assert dataset_label("flowers,image_size=8@a1b2c3d4e5f60718") == "flowers,image_size=8"


def test_names_of_every_kind_are_told_apart(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("flowers", "digits"):
        (tmp_path / name).mkdir()
    assert own_name("digits") is None, "a shipped name is the shipped set"
    assert own_name("./digits").last == "digits"
    assert own_name("package.module:function") is None
    assert own_name("roses") is None, "there is none"
    assert own_name("flowers").short == "flowers"
    assert own_name("flowers,test_fraction=0.2,image_size=8").short == (
        "flowers,image_size=8,test_fraction=0.2"
    )
    stored = own_name("flowers,image_size=8@a1b2c3d4e5f60718")
    assert (stored.path, stored.digest) == ("flowers", "a1b2c3d4e5f60718")
    assert label_of("flowers,image_size=8@a1b2c3d4e5f60718") == "flowers (image_size 8)"
    (tmp_path / "a,b").mkdir()
    with pytest.raises(ValueError, match="is called 'a,b'; rename it"):
        short_name("a,b")
