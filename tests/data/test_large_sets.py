"""Sets that do not fit into memory are decoded batch by batch, and give the same."""

import subprocess
import sys
import textwrap

import numpy as np
import pytest
import torch
from samples import samples, write_folders

from analog_samson import Study, collect
from analog_samson.checkpoint import TrainingSpec, load_checkpoint
from analog_samson.data import encoded, load_dataset, load_test
from analog_samson.data.encoded import batches
from analog_samson.training import train

MLP = {"model": "mlp", "model_kwargs": {"hidden": [8]}, "batch_size": 16, "epochs": 2, "lr": 0.02}


@pytest.fixture
def flowers(tmp_path):
    parts = {"train": samples(90, 0), "test": samples(75, 1)}
    return write_folders(tmp_path / "flowers", parts, "JPEG")


def test_views_index_as_tensors_do(flowers):
    images = load_dataset(str(flowers)).train.images
    whole = images.decoded()
    n = len(whole)
    draws = torch.Generator().manual_seed(0)
    mask = torch.rand(n, generator=draws) < 0.5
    for index in (slice(3, 17, 2), torch.randperm(n, generator=draws)[:9], mask, np.arange(4)):
        view = images[index]
        assert isinstance(view, encoded.EncodedImages)
        assert view.shape == whole[index].shape
        assert view.decoded().equal(whole[index])
        assert view[2:].decoded().equal(whole[index][2:])
    assert torch.cat(list(batches(images, 7))).equal(whole)
    assert (images.numel(), images.ndim, images.dtype) == (whole.numel(), 4, torch.uint8)
    assert images.to("cpu").decoded().equal(whole)


def test_images_that_are_kept_are_decoded_once_and_only_where_used(flowers, monkeypatch):
    test = load_test(str(flowers))
    numbers = []
    decode = encoded.Picture.decoded
    monkeypatch.setattr(
        encoded.Picture, "decoded", lambda *given: numbers.append(given[0]) or decode(*given)
    )
    first = test.images[:10].decoded()
    assert len(numbers) == 10
    assert test.images[5:].decoded()[:5].equal(first[5:])
    assert len(numbers) == len(test) == 75, "none of the training part"


@pytest.mark.slow
def test_decoding_batch_by_batch_changes_no_number(flowers, tmp_path, monkeypatch):
    rows, digests = [], []
    for limit in (encoded.IN_MEMORY_BYTES, 0):
        monkeypatch.setattr(encoded, "IN_MEMORY_BYTES", limit)
        monkeypatch.setattr("analog_samson.study.trial.KEPT_BYTES", limit)
        for cached in ("study.sources.the_test_set", "training.loop._loaded"):
            module, _, name = f"analog_samson.{cached}".rpartition(".")
            getattr(sys.modules[module], name).cache_clear()
        augmented = TrainingSpec(dataset=str(flowers), augmentation="crop_flip", **MLP)
        path = train(augmented, tmp_path / f"networks{limit}")
        digests.append(load_checkpoint(path).digest)
        study = Study("s", [path], ["pcm_like"], [1.0], n_chips=1, n_images_per_chip=50,
                      dataset=flowers)  # fmt: skip
        rows.append(collect(study, tmp_path / f"study{limit}"))
    assert digests[0] == digests[1]
    assert rows[0].equals(rows[1])


MEMORY = """
    import sys
    from pathlib import Path

    import torch
    from analog_samson.data import encoded, load_dataset, load_test
    from analog_samson.evaluation import count_correct

    def memory(kind):  # [MB]
        lines = Path("/proc/self/status").read_text().splitlines()
        return next(int(line.split()[1]) / 1024 for line in lines if line.startswith(kind))

    encoded.IN_MEMORY_BYTES = int(sys.argv[2])
    torch.set_num_threads(1)
    dataset = load_dataset(sys.argv[1])
    network = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(3 * 64 * 64, 3))
    forward = lambda batch, first: network(batch)
    parts = dataset.test, dataset.train, dataset.validation
    count_correct(forward, parts[0].images[:64], parts[0].labels[:64], dataset.normalise)
    Path("/proc/self/clear_refs").write_text("5")  # the peak counts from here
    before = memory("VmRSS")
    for part in parts:
        count_correct(forward, part.images, part.labels, dataset.normalise)
    print(memory("VmHWM") - before, before)
"""


@pytest.mark.slow
def test_evaluating_5000_images_takes_the_memory_of_a_batch(tmp_path):
    """5,000 images of 64 x 64 are 61 MB decoded; a batch of 64 has 0.8 MB, 3 MB as floats."""
    draws = np.random.default_rng(0)
    for part, n in (("train", 3000), ("test", 2000)):
        images = draws.integers(256, size=(n, 3, 16, 16), dtype=np.uint8)
        large = images.repeat(4, axis=2).repeat(4, axis=3)
        write_folders(tmp_path / "flowers", {part: (large, np.arange(n) % 3)}, "JPEG")

    def growth(limit):
        command = [sys.executable, "-c", textwrap.dedent(MEMORY), tmp_path / "flowers", str(limit)]
        done = subprocess.run(command, check=True, capture_output=True, text=True)
        return tuple(map(float, done.stdout.split()))

    lazily, kept = growth(0), growth(2**30)
    assert lazily[0] < 15
    assert kept[1] - lazily[1] > 40
