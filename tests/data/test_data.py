"""Data sets: the parts never overlap, the layouts agree, and damage is one clear sentence."""

import io
import json
import pickle
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image
from places import SHARED_DATA

from analog_samson.data import DATASETS, Dataset, Split, augment, load_dataset, load_test, normalise

SHAPES = {"mnist": (1, 28, 28), "cifar10": (3, 32, 32), "cifar100": (3, 32, 32)}
N_CLASSES = {"mnist": 10, "cifar10": 10, "cifar100": 100}


def tiny(name: str, n: int, seed: int) -> Split:
    """Random images, every class there as often as any other."""
    generator = torch.Generator().manual_seed(seed)
    images = torch.randint(256, (n, *SHAPES[name]), generator=generator, dtype=torch.uint8)
    return Split(images, torch.arange(n) % N_CLASSES[name])


def write_parquet(
    file: Path,
    split: Split,
    *,
    columns: tuple[str, str] = ("image", "label"),
    class_names: list[str] | None = None,
    coarse: bool = False,
    raw: bool = False,
) -> None:
    """Write images as PNG in the Hugging Face hub's layout."""
    encoded = []
    for image in split.images:
        buffer = io.BytesIO()
        pixels = image[0].numpy() if len(image) == 1 else image.permute(1, 2, 0).numpy()
        Image.fromarray(np.ascontiguousarray(pixels)).save(buffer, format="PNG")
        encoded.append(buffer.getvalue())
    image_column, label_column = columns
    table: dict[str, pa.Array] = {
        image_column: pa.array(encoded if raw else [{"bytes": e, "path": None} for e in encoded])
    }
    features: dict[str, object] = {image_column: {"_type": "Image"}}
    if coarse:
        table["coarse_label"] = pa.array((split.labels % 20).tolist(), pa.int64())
        features["coarse_label"] = {"_type": "ClassLabel", "names": [f"s{i}" for i in range(20)]}
    table[label_column] = pa.array(split.labels.tolist(), pa.int64())
    if class_names:
        features[label_column] = {"_type": "ClassLabel", "names": class_names}
    written = pa.table(table)
    if class_names:
        metadata = {"huggingface": json.dumps({"info": {"features": features}})}
        written = written.replace_schema_metadata(metadata)
    file.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(written, file)


def write_mnist(root: Path, train: Split, test: Split) -> None:
    """Write the four files of torchvision's MNIST layout."""
    raw = root / "MNIST" / "raw"
    raw.mkdir(parents=True)
    for part, split in (("train", train), ("t10k", test)):
        n = len(split)
        pixels = split.images.numpy().tobytes()
        header = b"".join(number.to_bytes(4, "big") for number in (0x803, n, 28, 28))
        (raw / f"{part}-images-idx3-ubyte").write_bytes(header + pixels)
        header = b"".join(number.to_bytes(4, "big") for number in (0x801, n))
        labels = split.labels.to(torch.uint8).numpy().tobytes()
        (raw / f"{part}-labels-idx1-ubyte").write_bytes(header + labels)


def write_cifar(root: Path, name: str, train: Split, test: Split) -> None:
    """Write the pickled batches of torchvision's CIFAR layouts."""
    hundred = name == "cifar100"
    folder = root / ("cifar-100-python" if hundred else "cifar-10-batches-py")
    folder.mkdir(parents=True)
    label_key = "fine_labels" if hundred else "labels"
    files = {"test" if hundred else "test_batch": test}
    if hundred:
        files["train"] = train
    else:
        pieces = np.array_split(np.arange(len(train)), 5)
        files |= {
            f"data_batch_{i}": Split(train.images[rows], train.labels[rows])
            for i, rows in enumerate(pieces, start=1)
        }
    for file, split in files.items():
        batch = {
            "data": split.images.reshape(len(split), -1).numpy(),
            label_key: split.labels.tolist(),
        }
        (folder / file).write_bytes(pickle.dumps(batch))
    names = [f"class {i}" for i in range(N_CLASSES[name])]
    meta = {"fine_label_names" if hundred else "label_names": names}
    (folder / ("meta" if hundred else "batches.meta")).write_bytes(pickle.dumps(meta))


@pytest.fixture(autouse=True)
def made_up_images_pass(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let made-up images stand for published ones, except in tests of the real ones."""
    if "real" not in request.node.name:
        monkeypatch.setattr("analog_samson.data.datasets.check_published", lambda *_: None)


def together(*splits: Split) -> set[tuple[bytes, int]]:
    return {
        (image.numpy().tobytes(), int(label))
        for split in splits
        for image, label in zip(split.images, split.labels, strict=True)
    }


def equal(one: Split, other: Split) -> bool:
    return torch.equal(one.images, other.images) and torch.equal(one.labels, other.labels)


# digits


def test_digits_parts_cover_all_images_once_and_never_overlap() -> None:
    from sklearn.datasets import load_digits

    bunch = load_digits()
    dataset = load_dataset()
    parts = (dataset.train, dataset.validation, dataset.test)
    everything = np.concatenate([part.images[:, 0].reshape(-1, 64).numpy() for part in parts])
    labels = np.concatenate([part.labels.numpy() for part in parts])
    assert len(np.unique(bunch.data, axis=0)) == 1797, "no image is there twice, so sets compare"
    rows = np.c_[everything, labels]
    expected = np.c_[bunch.data, bunch.target]
    np.testing.assert_array_equal(np.unique(rows, axis=0), np.unique(expected, axis=0))
    assert len(rows) == 1797


def test_digits_hold_every_class_in_every_part_in_proportion() -> None:
    dataset = load_dataset("digits", validation_fraction=0.1)
    n_all = sum(
        part.labels.bincount(minlength=10)
        for part in (dataset.train, dataset.validation, dataset.test)
    )
    assert isinstance(n_all, torch.Tensor)
    torch.testing.assert_close(
        dataset.test.labels.bincount() / n_all, torch.full((10,), 0.2), atol=0.005, rtol=0
    )
    torch.testing.assert_close(
        dataset.validation.labels.bincount() / (0.8 * n_all),
        torch.full((10,), 0.1),
        atol=0.006,
        rtol=0,
    )


def test_digits_test_part_does_not_depend_on_the_validation_fraction() -> None:
    few, many = load_dataset(validation_fraction=0.05), load_dataset(validation_fraction=0.3)
    assert few.digest == many.digest
    assert len(few.validation) < len(many.validation)
    assert equal(load_test("digits"), few.test)


def test_digest_changes_with_one_pixel_and_one_label() -> None:
    test = load_test("digits")
    images, labels = test.images.clone(), test.labels.clone()
    assert Split(images, labels).digest == test.digest
    images[0, 0, 0, 0] += 1
    assert Split(images, test.labels).digest != test.digest
    labels[0] = (labels[0] + 1) % 10
    assert Split(test.images, labels).digest != test.digest


def test_normalised_training_images_have_mean_0_and_spread_1() -> None:
    dataset = load_dataset()
    inputs = dataset.normalise(dataset.train.images).double()
    assert abs(float(inputs.mean())) < 1e-6
    assert abs(float(inputs.std(correction=0)) - 1) < 1e-6
    assert dataset.normalise(dataset.test.images).dtype == torch.float32


def test_normalisation_follows_its_formula_per_channel() -> None:
    images = tiny("cifar10", 4, seed=0).images
    mean, std = (0.1, 0.2, 0.3), (0.4, 0.5, 0.6)
    inputs = normalise(images, mean=mean, std=std)
    for channel in range(3):
        expected = (images[:, channel].double() / 255 - mean[channel]) / std[channel]
        torch.testing.assert_close(inputs[:, channel].double(), expected, atol=1e-6, rtol=1e-6)
    with pytest.raises(ValueError, match=r"3 channel"):
        normalise(images, mean=(0.1,), std=(0.4,))


# layouts


def test_parquet_and_torchvision_layouts_give_the_same_mnist(tmp_path: Path) -> None:
    train, test = tiny("mnist", 60, seed=1), tiny("mnist", 20, seed=2)
    write_mnist(tmp_path / "a" / "mnist", train, test)
    write_parquet(tmp_path / "b" / "mnist" / "train-00000-of-00001.parquet", train)
    write_parquet(tmp_path / "b" / "mnist" / "test-00000-of-00001.parquet", test)
    one, other = (load_dataset("mnist", tmp_path / root) for root in "ab")
    assert equal(one.train, other.train)
    assert equal(one.validation, other.validation)
    assert equal(one.test, other.test)
    assert equal(one.test, test)
    assert (one.mean, one.std, one.class_names) == (other.mean, other.std, other.class_names)
    assert together(one.train, one.validation) == together(train)
    assert not together(one.train) & together(one.validation)


@pytest.mark.parametrize("name", ["cifar10", "cifar100"])
def test_torchvision_cifar_folders_load(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    train, test = tiny(name, 300, seed=1), tiny(name, 100, seed=2)
    write_cifar(tmp_path, name, train, test)
    with pytest.raises(ValueError, match=r"damaged.*checksum"):
        load_dataset(name, tmp_path)
    # Made-up files cannot have the published checksums.
    monkeypatch.setattr("torchvision.datasets.cifar.check_integrity", lambda *_: True)
    dataset = load_dataset(name, tmp_path)
    assert equal(dataset.test, test)
    assert together(dataset.train, dataset.validation) == together(train)
    assert dataset.class_names == tuple(f"class {i}" for i in range(N_CLASSES[name]))


def test_parquet_columns_and_class_names_come_from_the_metadata(tmp_path: Path) -> None:
    train, test = tiny("cifar10", 40, seed=1), tiny("cifar10", 20, seed=2)
    names = [f"thing {i}" for i in range(10)]
    for part, split in (("train", train), ("test", test)):
        write_parquet(
            tmp_path / f"{part}.parquet", split, columns=("pic", "what"), class_names=names
        )
    dataset = load_dataset("cifar10", tmp_path)
    assert dataset.class_names == tuple(names)
    assert equal(dataset.test, test)


def test_parquet_without_metadata_finds_columns_by_type(tmp_path: Path) -> None:
    train, test = tiny("cifar10", 40, seed=1), tiny("cifar10", 20, seed=2)
    for part, split in (("train", train), ("test", test)):
        write_parquet(tmp_path / f"{part}.parquet", split, columns=("x", "number"), raw=True)
    assert equal(load_dataset("cifar10", tmp_path).test, test)


@pytest.mark.parametrize("with_names", [True, False])
def test_cifar100_uses_the_fine_labels(tmp_path: Path, with_names: bool) -> None:
    train, test = tiny("cifar100", 300, seed=1), tiny("cifar100", 100, seed=2)
    names = [f"f{i}" for i in range(100)] if with_names else None
    for part, split in (("train", train), ("test", test)):
        write_parquet(
            tmp_path / "cifar100" / f"{part}-00000-of-00001.parquet",
            split,
            columns=("img", "fine_label"),
            coarse=True,
            class_names=names,
        )
    dataset = load_dataset("cifar100", tmp_path)
    assert equal(dataset.test, test)
    assert dataset.n_classes == 100


def test_shards_in_nested_folders_are_put_together_in_order(tmp_path: Path) -> None:
    train, test = tiny("mnist", 60, seed=1), tiny("mnist", 20, seed=2)
    folder = tmp_path / "mnist" / "data"
    for i, rows in enumerate(np.array_split(np.arange(60), 3)):
        shard = Split(train.images[rows], train.labels[rows])
        write_parquet(folder / f"train-0000{i}-of-00003.parquet", shard)
    write_parquet(folder / "test-00000-of-00001.parquet", test)
    dataset = load_dataset("mnist", tmp_path)
    assert together(dataset.train, dataset.validation) == together(train)
    (folder / "train-00001-of-00003.parquet").unlink()
    with pytest.raises(FileNotFoundError, match=r"shard\(s\) 1 missing"):
        load_dataset("mnist", tmp_path)


def test_part_may_be_named_by_its_folder(tmp_path: Path) -> None:
    train, test = tiny("mnist", 30, seed=1), tiny("mnist", 20, seed=2)
    write_parquet(tmp_path / "mnist" / "train" / "0000.parquet", train)
    write_parquet(tmp_path / "mnist" / "test" / "0000.parquet", test)
    assert equal(load_test("mnist", tmp_path / "mnist"), test)


def test_published_validation_part_is_used_as_it_is(tmp_path: Path) -> None:
    parts = {part: tiny("mnist", 30, seed=i) for i, part in enumerate(("train", "valid", "test"))}
    for part, split in parts.items():
        write_parquet(tmp_path / f"{part}-00000-of-00001.parquet", split)
    dataset = load_dataset("mnist", tmp_path)
    assert equal(dataset.train, parts["train"])
    assert equal(dataset.validation, parts["valid"])


def test_environment_variable_names_the_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    test = tiny("mnist", 20, seed=2)
    write_mnist(tmp_path / "mnist", tiny("mnist", 30, seed=1), test)
    monkeypatch.setenv("ANALOG_SAMSON_DATA", str(tmp_path))
    assert equal(load_test("mnist"), test)
    monkeypatch.delenv("ANALOG_SAMSON_DATA")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mnist").rename(tmp_path / "data")
    assert equal(load_test("mnist"), test)


# bad input


def test_the_message_of_an_unknown_name_has_the_nearest() -> None:
    with pytest.raises(ValueError, match=r"Did you mean 'cifar10'\?"):
        load_dataset("cifar-10")
    assert DATASETS == ("digits", "mnist", "cifar10", "cifar100")


@pytest.mark.parametrize("fraction", [0.0, 1.0, -0.1, float("nan")])
def test_validation_fraction_outside_0_to_1_is_refused(fraction: float) -> None:
    with pytest.raises(ValueError, match="validation_fraction"):
        load_dataset(validation_fraction=fraction)


OWN = """
import torch
from analog_samson.data import Dataset, Split

def some(n, seed):
    draws = torch.Generator().manual_seed(seed)
    images = torch.randint(256, (n, 3, 6, 5), generator=draws, dtype=torch.uint8)
    return Split(images, torch.arange(n) % 4)

def build(folder, validation_fraction):
    train = some(80, 0)
    order = torch.randperm(80) if folder else torch.arange(80)
    train = Split(train.images[order], train.labels[order])
    options = {"validation_fraction": validation_fraction, "class_names": ("a", "b", "c", "d")}
    return Dataset.of_splits(train, some(20, 1), **options)

def nothing(folder, validation_fraction):
    return None
"""


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    (tmp_path / "my_images_for_a_test.py").write_text(OWN)
    monkeypatch.syspath_prepend(tmp_path)
    return "my_images_for_a_test"


def test_a_data_set_of_ones_own_is_loaded_by_its_import_name(own: str, tmp_path: Path) -> None:
    dataset = load_dataset(f"{own}:build", validation_fraction=0.25)
    assert (dataset.name.split("@")[0], dataset.image_shape) == (f"{own}:build", (3, 6, 5))
    assert dataset.class_names == ("a", "b", "c", "d")
    assert [len(s) for s in (dataset.train, dataset.validation, dataset.test)] == [60, 20, 20]
    assert torch.bincount(dataset.validation.labels).tolist() == [5] * 4
    assert not together(dataset.train) & together(dataset.validation)
    assert equal(load_test(f"{own}:build"), dataset.test)
    inputs = dataset.normalise(dataset.train.images).double()
    torch.testing.assert_close(inputs.mean((0, 2, 3)), torch.zeros(3).double(), atol=1e-6, rtol=0)
    shuffled = load_dataset(f"{own}:build", tmp_path, validation_fraction=0.25)
    assert not equal(shuffled.train, dataset.train)
    assert together(shuffled.train) == together(dataset.train)


def test_equal_images_stay_in_one_part() -> None:
    images = tiny("mnist", 40, seed=0)
    double = Split(images.images.repeat(3, 1, 1, 1), images.labels.repeat(3))
    dataset = Dataset.of_splits(double, tiny("mnist", 10, seed=1), validation_fraction=0.2)
    assert len(dataset.train) + len(dataset.validation) == 120
    assert not together(dataset.train) & together(dataset.validation)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"name": "no_such_module:build"}, "cannot be imported"),
        ({"name": ":nothing"}, "returned NoneType, not a Dataset"),
        ({"images": torch.zeros(4, 5, 5)}, r"shape \(5, 5\) and type torch.float32, those of"),
        ({"images": torch.zeros(4, 1, 5, 5, dtype=torch.uint8)}, r"have shape \(1, 5, 5\)"),
        ({"labels": torch.tensor([0, 1, 2, 10])}, "Labels from 0 to 10"),
        ({"labels": torch.tensor([0, 1])}, "4 inputs and 2 targets"),
        ({"full_scale": 0.0}, "full_scale must be positive"),
    ],
)
def test_a_wrong_data_set_of_ones_own_is_one_sentence(
    change: dict[str, object], said: str, own: str
) -> None:
    with pytest.raises(ValueError, match=said):
        if "name" in change:
            name = str(change["name"])
            load_dataset(f"{own}{name}" if name.startswith(":") else name)
        options = {"full_scale": change.pop("full_scale", 255.0)}
        wrong = replace(tiny("mnist", 4, seed=1), **change)
        train = tiny("mnist", 20, seed=0)
        Dataset.of_splits(train, wrong, class_names=list("abcdefghij"), **options)


def test_the_message_of_a_missing_set_names_the_files(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError) as caught:
        load_dataset("mnist", tmp_path)
    for piece in ("train-images-idx3-ubyte", "train-*.parquet", str(tmp_path), "ANALOG_SAMSON"):
        assert piece in str(caught.value)


def test_incomplete_torchvision_folder_names_the_missing_file(tmp_path: Path) -> None:
    write_mnist(tmp_path, tiny("mnist", 30, seed=1), tiny("mnist", 20, seed=2))
    (tmp_path / "MNIST" / "raw" / "t10k-labels-idx1-ubyte").unlink()
    with pytest.raises(FileNotFoundError, match=r"t10k-labels-idx1-ubyte missing"):
        load_dataset("mnist", tmp_path)


@pytest.mark.parametrize("kept", [0, 3, 100, 5000])
def test_truncated_torchvision_file_is_damaged(tmp_path: Path, kept: int) -> None:
    write_mnist(tmp_path, tiny("mnist", 30, seed=1), tiny("mnist", 20, seed=2))
    file = tmp_path / "MNIST" / "raw" / "t10k-images-idx3-ubyte"
    file.write_bytes(file.read_bytes()[:kept])
    with pytest.raises(ValueError, match=r"damaged: .*t10k-images"):
        load_dataset("mnist", tmp_path)


def test_both_layouts_in_one_folder_are_refused(tmp_path: Path) -> None:
    train, test = tiny("mnist", 30, seed=1), tiny("mnist", 20, seed=2)
    write_mnist(tmp_path, train, test)
    write_parquet(tmp_path / "train.parquet", train)
    with pytest.raises(ValueError, match="twice"):
        load_dataset("mnist", tmp_path)


def test_same_part_in_two_folders_is_refused(tmp_path: Path) -> None:
    train = tiny("mnist", 30, seed=1)
    for folder in "ab":
        for part in ("train", "test"):
            write_parquet(tmp_path / folder / f"{part}.parquet", train)
    with pytest.raises(ValueError, match="several folders"):
        load_dataset("mnist", tmp_path)


def test_missing_test_part_is_named(tmp_path: Path) -> None:
    write_parquet(tmp_path / "train.parquet", tiny("mnist", 30, seed=1))
    with pytest.raises(FileNotFoundError, match=r"no test part"):
        load_dataset("mnist", tmp_path)


@pytest.mark.parametrize("kept", [0, 100, -1000])
def test_truncated_parquet_is_named(tmp_path: Path, kept: int) -> None:
    for part in ("train", "test"):
        write_parquet(tmp_path / f"{part}.parquet", tiny("mnist", 30, seed=1))
    file = tmp_path / "test.parquet"
    file.write_bytes(file.read_bytes()[:kept])
    with pytest.raises(ValueError, match=r"test\.parquet cannot be read as parquet"):
        load_dataset("mnist", tmp_path)


def test_flipped_bytes_in_a_parquet_file_are_noticed(tmp_path: Path) -> None:
    for part in ("train", "test"):
        write_parquet(tmp_path / f"{part}.parquet", tiny("mnist", 30, seed=1))
    file = tmp_path / "test.parquet"
    content = bytearray(file.read_bytes())
    content[4:1000] = bytes(996)
    file.write_bytes(content)
    with pytest.raises(ValueError, match=r"test\.parquet"):
        load_dataset("mnist", tmp_path)


@pytest.mark.parametrize("encoded", [b"no image", None, b"\x89PNG\r\n\x1a\n" + bytes(50)])
def test_image_that_cannot_be_decoded_is_named_with_its_row(
    tmp_path: Path, encoded: bytes | None
) -> None:
    for part in ("train", "test"):
        write_parquet(tmp_path / f"{part}.parquet", tiny("mnist", 30, seed=1))
    rows = pq.read_table(tmp_path / "test.parquet").to_pylist()
    rows[7]["image"]["bytes"] = encoded
    schema = pq.read_schema(tmp_path / "test.parquet")
    pq.write_table(pa.Table.from_pylist(rows, schema=schema), tmp_path / "test.parquet")
    with pytest.raises(ValueError, match=r"test\.parquet, row 7: the image"):
        load_dataset("mnist", tmp_path)


def test_truncated_image_is_named_with_its_row(tmp_path: Path) -> None:
    for part in ("train", "test"):
        write_parquet(tmp_path / f"{part}.parquet", tiny("mnist", 30, seed=1))
    rows = pq.read_table(tmp_path / "test.parquet").to_pylist()
    rows[3]["image"]["bytes"] = rows[3]["image"]["bytes"][:300]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "test.parquet")
    with pytest.raises(ValueError, match=r"test\.parquet, row 3: the image cannot be decoded"):
        load_dataset("mnist", tmp_path)


@pytest.mark.parametrize("label", [-1, 10])
def test_labels_out_of_range_are_refused(tmp_path: Path, label: int) -> None:
    split = tiny("mnist", 30, seed=1)
    write_parquet(tmp_path / "train.parquet", split)
    split.labels[4] = label
    write_parquet(tmp_path / "test.parquet", split)
    with pytest.raises(ValueError, match=r"Labels from .*10 classes allow 0 to 9"):
        load_dataset("mnist", tmp_path)


def test_another_data_set_in_the_folder_is_noticed(tmp_path: Path) -> None:
    for part in ("train", "test"):
        write_parquet(tmp_path / f"{part}.parquet", tiny("mnist", 30, seed=1))
    with pytest.raises(ValueError, match=r"28 x 28 pixels instead of 32 x 32"):
        load_dataset("cifar10", tmp_path)
    for part in ("train", "test"):
        write_parquet(
            tmp_path / f"{part}.parquet", tiny("mnist", 30, seed=1), class_names=["a", "b"]
        )
    with pytest.raises(ValueError, match=r"2 classes"):
        load_dataset("mnist", tmp_path)


def test_parquet_without_labels_is_refused_with_its_columns(tmp_path: Path) -> None:
    for part in ("train", "test"):
        pq.write_table(pa.table({"a": ["x"], "b": [1.5]}), tmp_path / f"{part}.parquet")
    with pytest.raises(ValueError, match=r"it has a: string, b: double"):
        load_dataset("mnist", tmp_path)


# augmentation


def shifted(image: torch.Tensor, down: int, right: int, mirrored: bool) -> torch.Tensor:
    """One image by plain slicing: zeros around it, cut, mirror."""
    padding = max(abs(down), abs(right), 1)
    padded = torch.nn.functional.pad(image, (padding,) * 4)
    _, height, width = image.shape
    top, left = padding + down, padding + right
    cut = padded[:, top : top + height, left : left + width]
    return cut.flip(2) if mirrored else cut


def test_augmented_images_are_shifts_and_mirrors_of_their_own_original() -> None:
    images = tiny("cifar10", 200, seed=3).images
    augmented = augment(images, generator=torch.Generator().manual_seed(0), padding=2)
    assert augmented.shape == images.shape
    assert augmented.dtype == torch.uint8
    seen = set()
    for image, result in zip(images, augmented, strict=True):
        fits = [
            (down, right, mirrored)
            for down in range(-2, 3)
            for right in range(-2, 3)
            for mirrored in (False, True)
            if torch.equal(shifted(image, down, right, mirrored), result)
        ]
        assert len(fits) == 1
        seen.add(fits[0])
    # 50 kinds, 200 draws: fewer than 40 different ones has a chance below 1e-6.
    assert len(seen) >= 40


def test_augmentation_repeats_with_its_seed_and_can_be_turned_off() -> None:
    images = tiny("cifar10", 20, seed=3).images
    first, second = (augment(images, generator=torch.Generator().manual_seed(5)) for _ in range(2))
    assert torch.equal(first, second)
    generator = torch.Generator().manual_seed(5)
    assert torch.equal(augment(images, generator=generator, padding=0, flip=False), images)
    with pytest.raises(ValueError, match="padding"):
        augment(images, generator=generator, padding=-1)


# real data


@pytest.mark.slow
@pytest.mark.skipif(not SHARED_DATA.is_dir(), reason="no real data in ../shared/data")
@pytest.mark.parametrize(
    ("name", "first", "n_test"), [("mnist", "0", 10_000), ("cifar10", "airplane", 10_000)]
)
def test_real_test_parts_load_from_parquet(name: str, first: str, n_test: int) -> None:
    test = load_test(name, SHARED_DATA)
    assert test.images.shape == (n_test, *SHAPES[name])
    assert test.images.dtype == torch.uint8
    assert test.labels.bincount().min() > 850
    if name == "mnist":
        # Published counts of the MNIST test set.
        assert test.labels.bincount().tolist() == [
            980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009
        ]  # fmt: skip


@pytest.mark.slow
@pytest.mark.skipif(not SHARED_DATA.is_dir(), reason="no real data in ../shared/data")
def test_real_mnist_has_its_published_statistics_and_disjoint_parts() -> None:
    dataset = load_dataset("mnist", SHARED_DATA)
    assert len(dataset.train) + len(dataset.validation) == 60_000
    # 0.1307 and 0.3081 over all 60,000; the training part is nine tenths of them.
    assert dataset.mean == pytest.approx((0.1307,), abs=5e-4)
    assert dataset.std == pytest.approx((0.3081,), abs=5e-4)
    assert not together(dataset.train) & together(dataset.validation, dataset.test)
    assert replace(dataset, mean=(0.0,), std=(1.0,)).normalise(dataset.test.images).max() == 1.0
