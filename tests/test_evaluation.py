"""Counting correct predictions: fixed batches, padding that is never counted."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from analog_samson import evaluation
from analog_samson.checkpoint import TrainingSpec
from analog_samson.chip import program
from analog_samson.evaluation import EVALUATION_BATCH, count_correct, is_correct
from analog_samson.study import Study, estimate_cost
from analog_samson.training import train, train_grid


def as_float(images: Tensor) -> Tensor:
    return images.float()


def numbered(n: int) -> Tensor:
    """Images that hold nothing but their own position (two bytes)."""
    positions = torch.arange(n)
    return torch.stack([positions // 256, positions % 256], dim=1).to(torch.uint8)[:, :, None, None]


@pytest.mark.parametrize("n", [1, 127, 128, 129, 360])
def test_every_image_is_counted_once_whatever_the_padding(n: int) -> None:
    labels = torch.randint(10, (n,), generator=torch.Generator().manual_seed(n))
    wrong = torch.rand(n, generator=torch.Generator().manual_seed(1)) < 0.3
    predicted = torch.where(wrong, (labels + 1) % 10, labels)
    calls = []

    def forward(batch: Tensor, first_index: int) -> Tensor:
        calls.append((len(batch), first_index))
        positions = (256 * batch[:, 0] + batch[:, 1]).flatten().long()
        assert int(positions[0]) == first_index
        return F.one_hot(predicted[positions], 10).float()

    assert count_correct(forward, numbered(n), labels, as_float) == n - int(wrong.sum())
    assert calls == [(EVALUATION_BATCH, first) for first in range(0, n, EVALUATION_BATCH)]
    assert torch.equal(is_correct(forward, numbered(n), labels, as_float), ~wrong)


def test_forward_runs_without_gradients_on_normalised_images() -> None:
    def forward(batch: Tensor, _: int) -> Tensor:
        assert not torch.is_grad_enabled()
        assert batch.dtype == torch.float32
        return torch.zeros(len(batch), 2)

    labels = torch.tensor([0, 1, 0])
    # Of equal outputs the first counts.
    assert count_correct(forward, numbered(3), labels, as_float, batch_size=2) == 2


def test_nan_and_wrong_shapes_are_refused() -> None:
    images, labels = numbered(150), torch.full((150,), 9)
    nan = torch.full((EVALUATION_BATCH, 10), float("nan"))
    with pytest.raises(ValueError, match="NaN for image 0"):
        count_correct(lambda *_: nan, images, labels, as_float)
    with pytest.raises(ValueError, match="labels go up to 9"):
        count_correct(lambda *_: nan[:, :5], images, labels, as_float)
    with pytest.raises(ValueError, match="150 images, 149 labels"):
        count_correct(lambda *_: nan, images, labels[1:], as_float)
    with pytest.raises(ValueError, match="at least one image"):
        count_correct(lambda *_: nan, images[:0], labels[:0], as_float)


def test_nan_in_the_padding_does_no_harm() -> None:
    def forward(batch: Tensor, _: int) -> Tensor:
        outputs = F.one_hot(torch.zeros(len(batch), dtype=torch.long), 2).float()
        outputs[3:] = float("nan")
        return outputs

    assert count_correct(forward, numbered(3), torch.zeros(3, dtype=torch.long), as_float) == 3


def test_several_chips_are_counted_separately_and_nan_names_the_image() -> None:
    n, n_chips = 150, 3
    labels = torch.randint(10, (n,), generator=torch.Generator().manual_seed(0))
    wrong = torch.rand(n_chips, n, generator=torch.Generator().manual_seed(1)) < 0.3
    predicted = torch.where(wrong, (labels + 1) % 10, labels)

    def forward(batch: Tensor, _: int) -> Tensor:
        positions = (256 * batch[:, 0] + batch[:, 1]).flatten().long()
        return F.one_hot(predicted[:, positions], 10).float()

    assert torch.equal(is_correct(forward, numbered(n), labels, as_float), ~wrong)
    nan = torch.zeros(n_chips, EVALUATION_BATCH, 10)
    nan[2, 7] = float("nan")
    with pytest.raises(ValueError, match="NaN for image 7"):
        is_correct(lambda *_: nan, numbered(n), labels, as_float)


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ("processor : 0\nflags\t\t: fpu avx2 avx512f\n", False),
        ("processor : 0\nflags\t\t: fpu avx2 avx512_bf16\n", True),
        ("flags\t\t: fpu amx_bf16\n", True),
        ("Features\t: fp asimd bf16\n", True),
        ("Features\t: fp asimd\n", False),
        ("nothing of the kind\n", True),
        (None, True),
    ],
)
def test_bf16_instructions_are_read_from_what_linux_says(
    content: str | None, expected: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if content is not None:
        (tmp_path / "cpuinfo").write_text(content)
    monkeypatch.setattr(evaluation, "_PROCESSOR", tmp_path / "cpuinfo")
    assert evaluation.has_bf16_instructions() == expected


@pytest.fixture
def no_bf16(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(evaluation, "has_bf16_instructions", lambda: False)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    evaluation._warn_once.cache_clear()


def warnings_of(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [r.getMessage() for r in caplog.records if "bf16 instructions" in r.getMessage()]


@pytest.mark.usefixtures("no_bf16")
def test_bf16_without_instructions_is_said_once_before_chips_run(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = train(TrainingSpec(epochs=0, model_kwargs={"hidden": [4]}), tmp_path)
    study = Study("s", [path], ["pcm_like"], [1.0], n_chips=2, n_test=10)
    estimate_cost(study)
    assert not warnings_of(caplog)
    bf16 = replace(study, precision="bf16")
    bf16.trials()
    (sentence,) = warnings_of(caplog)
    assert 'precision="bf16"' in sentence and "10 times" in sentence
    estimate_cost(bf16)
    program(path, "pcm_like", precision="bf16")
    assert len(warnings_of(caplog)) == 1


@pytest.mark.slow
@pytest.mark.usefixtures("no_bf16")
def test_bf16_without_instructions_is_said_once_before_training(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    spec = TrainingSpec(epochs=0, model_kwargs={"hidden": [4]}, precision="bfloat16")
    train_grid([spec, replace(spec, seed=1)], tmp_path, noise_sigma=0.1, noise_draws=1, jobs=2)
    (sentence,) = warnings_of(caplog)
    assert 'precision="bfloat16"' in sentence


def test_bf16_with_instructions_is_used_without_warning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(evaluation, "has_bf16_instructions", lambda: True)
    path = train(TrainingSpec(epochs=0, model_kwargs={"hidden": [4]}), tmp_path)
    program(path, "pcm_like", precision="bf16")
    assert not warnings_of(caplog)
