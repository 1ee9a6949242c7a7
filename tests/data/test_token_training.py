"""Training on tokens: padded targets, AdamW, warm-up and clipping, against a loop of torch."""

import math

import numpy as np
import pytest
import torch
from torch.nn import functional as F
from torch.nn.utils import clip_grad_norm_

from analog_samson.checkpoint import TrainingSpec, load_checkpoint
from analog_samson.data import load_dataset
from analog_samson.models import build_model
from analog_samson.streams import derive_seed
from analog_samson.training import train

EPOCHS, BATCH = 3, 20


@pytest.fixture(scope="module")
def padded(tmp_path_factory):
    """Sequences of 3 to 10 tokens; behind their end inputs are 0 and targets -100."""
    draws = np.random.default_rng(0)
    x = draws.integers(1, 12, size=(150, 10))
    y = np.roll(x, -1, axis=1)
    y[np.arange(10) >= draws.integers(3, 11, size=(150, 1))] = -100
    file = tmp_path_factory.mktemp("padded") / "padded.npz"
    np.savez(file, x_train=x[:120], y_train=y[:120], x_test=x[120:], y_test=y[120:])
    return file


def spec_of(file, **changes):
    values = {
        "model": "char_lstm",
        "model_kwargs": {"width": 8, "layers": 1},
        "epochs": EPOCHS,
        "batch_size": BATCH,
        "optimizer": "adamw",
        "lr": 0.02,
        "weight_decay": 0.1,
        "clip_gradients": 0.05,
        "warmup_share": 0.3,
    }
    return TrainingSpec(dataset=str(file), **(values | changes))


def trained(file, folder, **changes):
    return load_checkpoint(train(spec_of(file, **changes), folder))


def test_training_is_that_of_torch(padded, tmp_path):
    found = trained(padded, tmp_path).state
    data = load_dataset(str(padded))
    model = build_model(
        "char_lstm",
        image_shape=data.image_shape,
        n_classes=data.n_classes,
        seed=derive_seed(0, "initialisation"),
        options={"width": 8, "layers": 1},
    )
    decayed = [p for p in model.parameters() if p.ndim > 1]
    spared = [p for p in model.parameters() if p.ndim < 2]
    groups = [{"params": decayed}, {"params": spared, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, lr=0.02, weight_decay=0.1)
    n_steps = len(data.train) // BATCH
    n_warm = round(0.3 * EPOCHS * n_steps)
    for epoch in range(EPOCHS):
        generator = torch.Generator().manual_seed(derive_seed(0, "order", epoch))
        order = torch.randperm(len(data.train), generator=generator)
        for step in range(n_steps):
            at = epoch * n_steps + step
            done = (at - n_warm) / (EPOCHS * n_steps - 1 - n_warm)
            factor = (at + 1) / n_warm if at < n_warm else (1 + math.cos(math.pi * done)) / 2
            for group in optimizer.param_groups:
                group["lr"] = 0.02 * factor
            chosen = order[step * BATCH : (step + 1) * BATCH]
            logs = model(data.train.images[chosen]).log_softmax(-1)
            targets = data.train.labels[chosen]
            counted = targets != -100
            loss = F.nll_loss(logs[counted], targets[counted])
            optimizer.zero_grad()
            loss.backward()
            clip_grad_norm_(model.parameters(), 0.05)
            optimizer.step()
    for name, value in model.state_dict().items():
        torch.testing.assert_close(found[name], value, rtol=1e-4, atol=1e-6)


def test_parts_of_a_batch_add_up_whatever_their_padding(padded, tmp_path):
    whole = trained(padded, tmp_path / "1", clip_gradients=0.0, optimizer="sgd").state
    parts = trained(
        padded, tmp_path / "5", clip_gradients=0.0, optimizer="sgd", accumulation=5
    ).state
    for name, value in whole.items():
        torch.testing.assert_close(parts[name], value, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(
    "method",
    [
        {"method": "sgd"},
        {"method": "samson", "rho": 0.1},
        {"method": "saf", "trajectory_weight": 0.3, "trajectory_start": 0.0, "trajectory_lag": 1},
        {"method": "mesa", "trajectory_weight": 0.3, "trajectory_start": 0.0},
    ],
)
def test_inputs_behind_the_end_change_nothing(padded, tmp_path, method):
    """An LSTM reads forwards, so outputs before the end do not depend on what is behind it."""
    parts = dict(np.load(padded))
    parts["x_validation"], parts["y_validation"] = parts["x_train"][:20], parts["y_train"][:20]
    parts["x_train"], parts["y_train"] = parts["x_train"][20:], parts["y_train"][20:]
    states = []
    for padding in (0, 7):
        x = np.where(parts["y_train"] == -100, padding, parts["x_train"])
        np.savez(tmp_path / f"{padding}.npz", **parts | {"x_train": x})
        states.append(trained(tmp_path / f"{padding}.npz", tmp_path, **method).state)
    for name, value in states[0].items():
        torch.testing.assert_close(states[1][name], value, rtol=1e-5, atol=1e-6)


def test_a_specification_without_warm_up_is_written_as_before(padded):
    assert "warmup_share" not in TrainingSpec().to_json()
    spec = spec_of(padded)
    assert TrainingSpec.from_json(spec.to_json()) == spec
    with pytest.raises(ValueError, match=r"warmup_share must lie in \[0, 1\); got 1.0"):
        spec_of(padded, warmup_share=1)


@pytest.mark.parametrize(
    "method",
    [
        {"method": "saf", "trajectory_weight": 0.1},
        {"method": "rwp", "sigma": 0.05},
        {"method": "samson", "rho": 0.1, "schedule": "linear", "ramp_share": 0.5},
    ],
)
def test_padded_targets_give_finite_losses_with_each_kind_of_step(padded, tmp_path, method):
    checkpoint = trained(padded, tmp_path, accumulation=2, label_smoothing=0.1, **method)
    assert all(bool(value.isfinite().all()) for value in checkpoint.state.values())
