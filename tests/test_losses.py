"""The trajectory loss against scipy's entropy; the memory of earlier outputs."""

import numpy as np
import pytest
import torch
from scipy.special import softmax
from scipy.stats import entropy

from analog_samson.losses import TrajectoryMemory, task_loss, trajectory_loss


def logits(seed):
    return torch.randn(6, 4, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_trajectory_loss_is_the_scaled_divergence():
    now, past, temperature = logits(0), logits(1), 5.0
    divergences = [
        entropy(softmax(p / temperature), softmax(q / temperature))
        for p, q in zip(past.numpy(), now.numpy(), strict=True)
    ]
    ours = trajectory_loss(now, past, temperature=temperature)
    np.testing.assert_allclose(float(ours), temperature**2 * np.mean(divergences), rtol=1e-10)


def test_without_departure_loss_and_gradient_are_zero():
    now = logits(0).requires_grad_()
    value = trajectory_loss(now, logits(0))
    value.backward()
    assert abs(value.item()) < 1e-12
    assert float(now.grad.abs().max()) < 1e-12


def test_no_gradient_flows_into_the_past():
    now, past = logits(0).requires_grad_(), logits(1).requires_grad_()
    trajectory_loss(now, past).backward()
    assert past.grad is None
    assert now.grad.abs().sum() > 0


def test_images_without_a_past_count_as_no_departure():
    past = logits(1)
    past[3:] = torch.nan
    half = trajectory_loss(logits(0)[:3], logits(1)[:3])
    torch.testing.assert_close(trajectory_loss(logits(0), past), half / 2)


def test_memory_recalls_the_outputs_of_lag_epochs_ago():
    memory = TrajectoryMemory.empty(6, 4, lag=2)
    indices = torch.tensor([5, 0, 2])
    for epoch in range(5):
        if epoch >= 2:
            assert torch.equal(memory.recall(epoch, indices), logits(epoch - 2)[:3].float())
        else:
            assert memory.recall(epoch, indices).isnan().all()
        memory.remember(epoch, indices, logits(epoch)[:3])
    assert memory.recall(5, torch.tensor([1])).isnan().all()
    assert memory.logits.nbytes == 4 * (2 + 1) * 6 * 4


def test_the_loss_of_a_task_follows_its_formula():
    draws = torch.Generator().manual_seed(0)
    outputs = torch.randn((4, 5, 7), generator=draws)
    targets = torch.randint(7, (4, 5), generator=draws)
    targets[1, 2:] = -100
    likely = outputs.double().log_softmax(-1)
    counted = [(n, t) for n in range(4) for t in range(5) if targets[n, t] >= 0]
    nats = -sum(float(likely[n, t, targets[n, t]]) for n, t in counted)
    assert float(task_loss(outputs, targets, "tokens")) == pytest.approx(nats / 17, rel=1e-5)
    total = task_loss(outputs, targets, "tokens", reduction="sum")
    assert float(total) == pytest.approx(nats, rel=1e-5)
    squares = (outputs[0] - outputs[1]).double().square()
    found = task_loss(outputs[0], outputs[1], "regression")
    assert float(found) == pytest.approx(float(squares.mean()), rel=1e-5)
    logits, labels = outputs[:, 0], targets[:, 0]
    plain = torch.nn.functional.cross_entropy(logits, labels, label_smoothing=0.1)
    assert task_loss(logits, labels, "classification", label_smoothing=0.1).equal(plain)
