"""Losses of simulated chips whose tolerance is known in closed form."""

import math

import numpy as np
import pandas as pd
from scipy import optimize, stats

from analog_samson.results.tolerance import Rule, scale_of, search


class LinearClassifier:
    """A linear classifier under Gaussian weight noise: w + s sigma e, e standard normal.

    Sample k is right with probability Phi(margin_k / (s sigma |x_k|)), so that the mean loss of a
    chip is one minus the mean of these probabilities.
    """

    def __init__(self, n_inputs=50, n_samples=1000, sigma=0.05, seed=0):
        draws = np.random.default_rng(seed)
        self.x = draws.normal(size=(n_samples, n_inputs))
        weights = draws.normal(size=n_inputs) / math.sqrt(n_inputs)
        self.margin, self.sigma = np.abs(self.x @ weights) + 0.3, sigma
        self.length = np.linalg.norm(self.x, axis=1)
        self.step = 1 / n_samples

    def draw(self, n_chips, seed):
        return np.random.default_rng(seed).normal(size=(n_chips, self.x.shape[1]))

    def losses(self, chips, scale):
        return (self.margin + scale * self.sigma * (chips @ self.x.T) < 0).mean(axis=1)

    def tolerance(self, lose, share=None):
        assert share is None

        def excess(log_scale):
            spread = math.exp(log_scale) * self.sigma * self.length
            return stats.norm.sf(self.margin / spread).mean() - lose

        return math.exp(optimize.brentq(excess, -9, 9))


class OneDirection:
    """Samples in one direction with margins evenly spread over 0 to 1, under the same noise.

    A chip with the normal error z loses the fraction max(0, -s sigma z): no more than ``lose`` with
    probability Phi(lose / (s sigma)).
    """

    step = 0.0

    def __init__(self, sigma=0.01):
        self.sigma = sigma

    def draw(self, n_chips, seed):
        return np.random.default_rng(seed).normal(size=n_chips)

    def losses(self, chips, scale):
        return np.clip(-scale * self.sigma * chips, 0.0, 1.0)

    def tolerance(self, lose, share):
        return lose / (self.sigma * stats.norm.ppf(share))


class Lognormal:
    """Losses c s^2 times lognormal factors of mean 1 and a coefficient of variation."""

    step = 0.0

    def __init__(self, variation, at_nominal=0.005):
        self.width, self.at_nominal = math.sqrt(math.log1p(variation**2)), at_nominal

    def draw(self, n_chips, seed):
        return np.random.default_rng(seed).normal(size=n_chips)

    def losses(self, chips, scale):
        factors = np.exp(self.width * chips - self.width**2 / 2)
        return self.at_nominal * scale**2 * factors

    def tolerance(self, lose, share=None):
        if share is None:
            return math.sqrt(lose / self.at_nominal)
        worst = math.exp(self.width * stats.norm.ppf(share) - self.width**2 / 2)
        return math.sqrt(lose / self.at_nominal / worst)


def found_by(network, rule, seed):
    """The tolerance that a search finds, and the numbers of chips asked for at each scale."""
    chips, losses, asked = network.draw(rule.chips_at_most, seed), {}, []
    while isinstance(found := search(losses, rule), list):
        asked += found
        for step, n in found:
            losses[step] = network.losses(chips[:n], scale_of(step))
    return found, asked


def rule_for(network, lose, share=None, chips_at_most=100, confidence=0.95):
    return Rule(lose, share, confidence, chips_at_most, network.step)


def rows_of(factors, bounds=None):
    """Rows of networks: method to the factors of its training seeds, and to their bound."""
    bounds = bounds or {}
    records = [
        {
            "score": "accuracy", "higher_is_better": True, "dataset": "mnist", "model": "lenet5",
            "device": "pcm_like", "compensation": "global", "engine": "compiled",
            "precision": "fp32", "n_images_per_chip": 10_000, "n_test": 10_000,
            "t_inference_s": 86400.0, "extrapolated": False, "source": "drift_scale",
            "others": "off", "lose": 0.01, "share": math.nan, "confidence": 0.95,
            "chips_at_most": 20, "quantity": "mean drift exponent at 25 µS", "nominal": 0.049,
            "unit": "", "method": method, "strength": "", "training_seed": seed,
            "checkpoint": f"{method}{seed}", "factor": factor,
            "low": {"below": 0.0, "above": factor}.get(bounds.get(method, ""), factor / 1.1),
            "high": {"below": factor, "above": math.inf}.get(bounds.get(method, ""), factor * 1.1),
            "bound": bounds.get(method, ""), "falls": "",
            "coefficient_of_variation": 0.4, "missed": False, "condition": "{}", "chips_vary": "",
            "n_chips": 100, "n_scales": 11,
        }
        for method, own in factors.items()
        for seed, factor in enumerate(own)
    ]  # fmt: skip
    return pd.DataFrame(records)
