"""Rank correlation of two properties of networks, overall and within methods."""

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from analog_samson.results import spread

PERMUTATIONS = 9999
"""Random permutations of a test: p-values to 0.004 at p = 0.05 (two standard errors)."""


class Correlation(NamedTuple):
    """Rank correlations of two properties.

    Attributes:
        overall: Spearman's correlation over all networks, differences between methods included.
        within: Correlation of the ranks after each method's mean rank is subtracted; NaN where
            no method has two networks, or there is one method.
        p_within: Two-sided p-value of ``within``, by permutations within methods.
    """

    overall: float
    within: float
    p_within: float


def rank_correlation(
    first: NDArray[Any], second: NDArray[Any], methods: NDArray[Any], *, seed: int = 0
) -> Correlation:
    """Correlate two properties of networks, overall and within methods.

    A correlation over networks of several methods can be one between the methods alone: it then
    has as many points as there are methods. Permutations within methods test what is left (the
    permutation test in strata: Good 2005, Permutation, Parametric and Bootstrap Tests, 3.7).

    Args:
        first: A property of each network, shape (n,).
        second: Another one.
        methods: Method of each network.
        seed: Seed of the permutations.

    Returns:
        Both correlations and the p-value.

    Example:
        >>> methods = np.array(["sgd"] * 3 + ["sam"] * 3)
        >>> rank_correlation(np.arange(6.0), np.arange(6.0) ** 2, methods)
        Correlation(overall=1.0, within=1.0, p_within=0.057)
    """
    ranks = np.stack([stats.rankdata(first), stats.rankdata(second)])
    overall = float(np.corrcoef(ranks)[0, 1]) if len(first) > 1 else float("nan")
    _, method = np.unique(methods, return_inverse=True)
    sizes = np.bincount(method)
    own = np.stack([r - (np.bincount(method, r) / sizes)[method] for r in ranks])
    lengths = np.sqrt((own**2).sum(axis=1))
    if len(sizes) < 2 or sizes.max() < 2 or not (lengths > 0).all():
        return Correlation(overall, float("nan"), float("nan"))
    within = float(own[0] @ own[1] / lengths.prod())
    order = np.argsort(method, kind="stable")
    x, y = own[0][order], own[1][order]
    keys = np.random.default_rng(seed).random((PERMUTATIONS, len(x))) + method[order]
    shuffled = (y[np.argsort(keys, axis=1)] @ x) / lengths.prod()
    n_extreme = int(np.sum(np.abs(shuffled) >= abs(within) * (1 - spread.ROUNDING)))
    return Correlation(overall, within, (n_extreme + 1) / (PERMUTATIONS + 1))
