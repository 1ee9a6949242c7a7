"""Sharpness agrees with the formula, on losses with a closed form."""

import functools
import math

import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn

from analog_samson.checkpoint import TrainingSpec, load_checkpoint
from analog_samson.landscape import (
    RHO_SAM,
    SHARPNESS_COLUMNS,
    gradient,
    largest_eigenvalue,
    mean_cross_entropy,
    norm,
    pac_bayes,
    rises,
    sharpness,
    value,
)
from analog_samson.perturbation import asam, rwp, sam, samson
from analog_samson.training import train


class Point(nn.Module):
    """A place in weight space."""

    def __init__(self, weight):
        super().__init__()
        self.weight = nn.Parameter(torch.as_tensor(weight, dtype=torch.float64))


def quadratic(matrix):
    """L(w) = w A w / 2, given in two parts."""
    a = torch.as_tensor(matrix, dtype=torch.float64)

    def parts(model):
        w = model.weight.reshape(-1)
        for share in (0.25, 0.75):
            yield share * 0.5 * w @ a @ w

    return parts


A = np.array([[4.0, 1.0, 0.0], [1.0, 3.0, 0.5], [0.0, 0.5, 1.0]])
W = np.array([0.5, -2.0, 1.0])


def test_value_and_gradient_of_a_quadratic():
    point = Point(W)
    assert value(point, quadratic(A)) == pytest.approx(0.5 * W @ A @ W)
    slopes = gradient(point, quadratic(A))
    np.testing.assert_allclose(slopes["weight"], A @ W)
    assert norm(slopes.values()) == pytest.approx(np.linalg.norm(A @ W))
    assert point.weight.grad is None


@pytest.mark.parametrize(
    ("rule", "scale"),
    [
        (functools.partial(sam, rho=0.3), np.ones(3)),
        (functools.partial(asam, rho=0.3, dialect="popular"), np.abs(W)),
        (functools.partial(samson, rho=0.3, eta=0.0), np.abs(W) / np.abs(W).max()),
    ],
)
def test_the_worst_case_rise_is_the_quadratics(rule, scale):
    point = Point(W)
    slope = A @ W
    offset = 0.3 * scale**2 * slope / np.linalg.norm(scale * slope)
    expected = slope @ offset + 0.5 * offset @ A @ offset
    assert rises(point, quadratic(A), [rule])[0] == pytest.approx(expected)
    np.testing.assert_array_equal(point.weight.detach(), W)
    assert point.weight.grad is None


def test_the_average_rise_at_a_minimum_is_half_the_trace_by_the_noise():
    point = Point(np.full((1, 3), 1e-9))
    generator = torch.Generator().manual_seed(0)
    rule = functools.partial(rwp, sigma=0.1, scale="constant", generator=generator)
    found = np.array(rises(point, quadratic(A), [rule] * 4000))
    exact = 0.5 * 0.1**2 * np.trace(A)
    # variance of a Gaussian quadratic form: sigma^4 tr(A^2) / 2; 4000 draws, seed 0, 4 standard
    # errors (false alarm 6e-5)
    error = math.sqrt(0.1**4 * np.trace(A @ A) / 2 / 4000)
    assert abs(found.mean() - exact) < 4 * error


@pytest.mark.parametrize("matrix", [A, np.diag([-7.0, 2.0, 1.0]), np.diag([3.0, 3.0, 3.0])])
def test_the_largest_eigenvalue_is_the_matrix_own(matrix):
    found = largest_eigenvalue(Point(W), quadratic(matrix), tolerance=1e-8)
    assert found == pytest.approx(np.linalg.eigvalsh(matrix)[-1], rel=1e-6)


def test_the_largest_eigenvalue_of_a_network_is_its_hessians():
    torch.manual_seed(0)
    network = nn.Sequential(nn.Flatten(), nn.Linear(6, 4), nn.Tanh(), nn.Linear(4, 3)).double()
    images = torch.randn(20, 1, 2, 3, dtype=torch.float64)
    labels = torch.randint(3, (20,))
    loss = mean_cross_entropy(images, labels, batch_size=7)
    names = [name for name, _ in network.named_parameters()]
    sizes = [p.numel() for p in network.parameters()]

    def of_flat(flat):
        shaped = {
            name: part.view_as(p)
            for name, part, p in zip(names, flat.split(sizes), network.parameters(), strict=True)
        }
        return nn.functional.cross_entropy(
            torch.func.functional_call(network, shaped, images), labels
        )

    flat = torch.cat([p.detach().reshape(-1) for p in network.parameters()])
    hessian = torch.autograd.functional.hessian(of_flat, flat)
    exact = float(torch.linalg.eigvalsh(hessian)[-1])
    assert largest_eigenvalue(network, loss, tolerance=1e-6) == pytest.approx(exact, rel=1e-5)


def test_adaptive_sharpness_does_not_see_a_rescaling_that_changes_nothing():
    torch.manual_seed(0)
    network = nn.Sequential(nn.Flatten(), nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 3)).double()
    loss = mean_cross_entropy(
        torch.randn(30, 1, 2, 3, dtype=torch.float64), torch.randint(3, (30,))
    )
    rules = [functools.partial(asam, rho=0.5, dialect="popular"), functools.partial(sam, rho=0.5)]
    before = rises(network, loss, rules)
    with torch.no_grad():
        network[1].weight.mul_(5.0)
        network[1].bias.mul_(5.0)
        network[3].weight.div_(5.0)
    after = rises(network, loss, rules)
    assert after[0] == pytest.approx(before[0], rel=1e-9)
    assert after[1] != pytest.approx(before[1], rel=0.1)


def test_kl_divergence_is_that_of_two_gaussians():
    w = [torch.randn(4, 5, generator=torch.Generator().manual_seed(0)), torch.ones(3, 2)]
    s = [torch.full_like(w[0], 0.1), torch.full_like(w[1], 0.3)]
    mean, spread = torch.cat([t.flatten() for t in w]), torch.cat([t.flatten() for t in s])
    prior = (mean.square() + spread.square()).mean().sqrt()
    posterior = torch.distributions.Normal(mean, spread)
    exact = torch.distributions.kl_divergence(posterior, torch.distributions.Normal(0.0, prior))
    kl, complexity = pac_bayes(w, s, 1000, confidence=0.9)
    assert kl == pytest.approx(float(exact.sum()), rel=1e-5)
    assert complexity == pytest.approx(math.sqrt((kl + math.log(1e4)) / (2 * 999)))


def test_equal_spreads_give_the_divergence_of_foret():
    w = torch.arange(6.0).reshape(2, 3)
    kl, _ = pac_bayes([w], [torch.full_like(w, 0.5)], 100)
    k, squares = 6, float(w.square().sum())
    assert kl == pytest.approx(0.5 * k * math.log(1 + squares / (k * 0.25)))


def test_noise_without_size_has_no_bound():
    with pytest.raises(ValueError, match="noise on every weight"):
        pac_bayes([torch.ones(2)], [torch.zeros(2)], 100)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    return train(TrainingSpec(epochs=2), tmp_path_factory.mktemp("checkpoints"))


def test_a_trained_network_has_every_measure_and_the_same_each_time(checkpoint):
    row = sharpness(checkpoint, n_training_images=200, draws=3)
    assert tuple(row) == SHARPNESS_COLUMNS
    assert row == sharpness(load_checkpoint(checkpoint), n_training_images=200, draws=3)
    assert np.isfinite(pd.Series(row).iloc[6:].astype(float)).all()
    assert row["n_training_images"] == 200
    # to first order a ball of radius rho raises the loss by rho times the gradient
    assert row["sam_sharpness"] > 0.9 * RHO_SAM * row["gradient_norm"]


def test_nothing_to_measure_on_is_refused(checkpoint):
    with pytest.raises(ValueError, match="At least one image"):
        sharpness(checkpoint, draws=0)
