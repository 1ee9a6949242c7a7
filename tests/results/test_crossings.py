"""Crossings of many curves at once are those of each interpolating polynomial."""

import numpy as np
import pytest
from scipy.interpolate import PchipInterpolator

from analog_samson.results.lifetime import _crossings
from analog_samson.times import DAY, HOUR, MONTH, YEAR


@pytest.mark.parametrize("t", [(1.0, DAY), (1.0, HOUR, DAY, YEAR), (1.0, HOUR, DAY, MONTH, YEAR)])
def test_crossings_are_the_first_roots_of_the_interpolating_polynomials(t):
    """500 random walks, seed 0; scipy's roots are those of a companion matrix."""
    t = np.array(t)
    curves = np.random.default_rng(0).normal(0.004, 0.01, (500, len(t))).cumsum(axis=1)
    found, censored = _crossings(t, curves, 0.01)
    assert {"", "left", "right"} == set(censored)
    for curve, crossing, kind in zip(curves, found, censored, strict=True):
        if kind == "left":
            assert curve[0] > 0.01
            assert crossing == t[0]
        elif kind == "right":
            assert (curve <= 0.01).all()
            assert crossing == t[-1]
        else:
            roots = PchipInterpolator(np.log(t), curve - 0.01).roots(extrapolate=False)
            assert crossing == pytest.approx(np.exp(roots[0]), rel=1e-10)


def test_a_curve_that_stays_at_the_level_crosses_it_where_it_leaves():
    t = np.array([1.0, 10.0, 100.0])
    found, censored = _crossings(t, np.array([[0.0, 1.0, 2.0], [1.0, 1.0, 2.0]]), 1.0)
    assert censored.tolist() == ["", ""]
    np.testing.assert_allclose(found, [10.0, 10.0])
