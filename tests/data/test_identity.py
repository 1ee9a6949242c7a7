"""What a network was trained on is what it is evaluated on, for data sets that functions return."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import TensorDataset

from analog_samson.checkpoint import TrainingSpec, load_checkpoint, save_checkpoint
from analog_samson.data import label_of, load_dataset, load_test, short_name
from analog_samson.study import Study, collect
from analog_samson.training import train

COLUMN = {"here": 0}
"""Which feature tells the class; a test edits it, as a user edits a function."""

HERE = __name__


def features(folder, validation_fraction):
    """300 samples of five features, two classes."""
    x = torch.randn(300, 5, generator=torch.Generator().manual_seed(0))
    y = (x[:, COLUMN["here"]] > 0).long()
    return TensorDataset(x[:200], y[:200]), TensorDataset(x[200:], y[200:])


def unseeded(folder, validation_fraction):
    """Other samples at every call."""
    x = torch.from_numpy(np.random.default_rng().normal(size=(300, 5)).astype(np.float32))
    y = (x[:, 0] > 0).long()
    return TensorDataset(x[:200], y[:200]), TensorDataset(x[200:], y[200:])


def broken(folder, validation_fraction):
    """A data set whose eighth sample cannot be read."""

    class Broken(TensorDataset):
        def __getitem__(self, row):
            if row == 7:
                raise OSError("file 7 gone")
            return super().__getitem__(row)

    return Broken(torch.randn(20, 5), torch.arange(20) % 2), TensorDataset(
        torch.randn(9, 5), torch.arange(9) % 2
    )


class Mixing(nn.Module):
    """Standardises its inputs over the batch."""

    def __init__(self, n_classes: int = 2) -> None:
        super().__init__()
        self.layer = nn.Linear(5, n_classes)

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x - x.mean(0))


class MixingByWeight(Mixing):
    """Subtracts a trained share of the mean of the batch."""

    def __init__(self, n_classes: int = 2) -> None:
        super().__init__(n_classes)
        self.share = nn.Parameter(torch.zeros(1))

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x - self.share * x.mean(0))


@pytest.fixture
def trained(tmp_path):
    spec = TrainingSpec(dataset=f"{HERE}:features", model="mlp", epochs=1, lr=0.05)
    return train(spec, tmp_path / "networks")


def test_a_function_is_known_by_its_contents(trained, tmp_path, monkeypatch):
    stored = load_checkpoint(trained, (HERE,)).spec.dataset
    name, _, digest = stored.partition("@")
    assert name == f"{HERE}:features" and len(digest) == 16
    assert load_dataset(stored).name == load_dataset(name).name == stored
    assert load_dataset(name, validation_fraction=0.3).name == stored
    assert (short_name(stored), label_of(stored)) == (name, "features")
    with pytest.raises(ValueError, match="requires the import of"):
        load_checkpoint(trained)
    study = Study("s", [trained], ["pcm_like"], [1.0], n_chips=1, trust=(HERE,))
    assert len(collect(study, tmp_path / "s")) == 1
    monkeypatch.setitem(COLUMN, "here", 1)
    for load in (load_dataset, load_test):
        with pytest.raises(ValueError, match=rf"digest \w+ instead of {digest}; .*or train again"):
            load(stored)


def test_a_function_that_gives_other_samples_at_every_call_is_refused():
    stored = load_dataset(f"{HERE}:unseeded").name
    with pytest.raises(ValueError, match=r"the same samples at every call \(seed its random"):
        load_test(stored)


def test_a_sample_that_cannot_be_read_is_named():
    with pytest.raises(ValueError, match=r"Sample 7 of the train part .*OSError: file 7 gone"):
        load_dataset(f"{HERE}:broken")


def test_a_network_that_mixes_samples_is_refused_with_every_score(tmp_path):
    spec = TrainingSpec(dataset=f"{HERE}:features", model=f"{HERE}:Mixing", epochs=1)
    path = train(spec, tmp_path)
    for score in ("accuracy", "cross_entropy"):
        study = Study("s", [path], ["pcm_like"], [1.0], score=score, trust=(HERE,))
        with pytest.raises(ValueError, match="must not depend on others of its batch"):
            study.trials()


def test_a_later_network_of_a_kind_that_mixes_samples_is_refused(tmp_path):
    """By a trained weight, which is zero in the first."""
    spec = TrainingSpec(dataset=f"{HERE}:features", model=f"{HERE}:MixingByWeight", epochs=0)
    first = load_checkpoint(train(spec, tmp_path), (HERE,))
    paths = [
        save_checkpoint(
            tmp_path / f"{n}.safetensors",
            replace(
                first,
                spec=replace(first.spec, seed=n),
                state={**first.state, "share": torch.full((1,), share)},
            ),
        )
        for n, share in enumerate((0.0, 0.5))
    ]
    for given in (paths, paths[::-1]):
        study = Study("s", given, ["pcm_like"], [1.0], trust=(HERE,))
        with pytest.raises(ValueError, match="must not depend on others of its batch"):
            study.trials()
    Study("s", paths[:1], ["pcm_like"], [1.0], trust=(HERE,)).trials()


@pytest.mark.parametrize(("shift", "n_classes"), [(True, 12), (False, 2)])
def test_tags_have_their_own_classes_and_next_tokens_the_vocabulary(shift, n_classes, tmp_path):
    draws = np.random.default_rng(3)
    parts = {}
    for part, n in (("train", 40), ("test", 10)):
        tokens = draws.integers(12, size=(n, 9))
        y = tokens[:, 1:] if shift else tokens[:, :-1] % 2
        parts |= {f"x_{part}": tokens[:, :-1], f"y_{part}": y}
    np.savez(tmp_path / "tags.npz", **parts)
    found = load_dataset(tmp_path / "tags.npz")
    assert (found.n_tokens, found.n_classes) == (12, n_classes)


def test_classes_that_mostly_do_not_occur_are_one_sentence(tmp_path):
    y = np.array([0, 1_000_000, 2_000_000] * 30)
    x = np.random.default_rng(1).normal(size=(90, 4))
    np.savez(tmp_path / "gaps.npz", x_train=x[:60], y_train=y[:60], x_test=x[60:], y_test=y[60:])
    with pytest.raises(ValueError, match=r"up to 2000000, and only 3 .* number the classes 0, 1"):
        load_dataset(tmp_path / "gaps.npz")


def test_a_byte_order_mark_is_no_character(tmp_path):
    (tmp_path / "book.txt").write_text("abcd" * 200, encoding="utf-8-sig")
    found = load_dataset(f"{tmp_path}/book.txt,length=8,test_fraction=0.2")
    assert set(found.class_names) == {"a", "b", "c", "d", "<unknown>"}
