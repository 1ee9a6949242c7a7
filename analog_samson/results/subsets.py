"""Score of a chip that was evaluated on all test samples, or on a random subset of them.

The digital network is evaluated on all N samples. The difference between its means on the subset
and on all samples corrects the chip's mean on the n samples of the subset (difference estimator):
with c_i and p_i the values of chip and digital network on sample i (accuracy: 0 or 1),

    score = sum over all (p_i) / N + mean over the subset (c_i - p_i)

is unbiased, and its variance over subsets is s^2 / n (1 - n / N), with s^2 the variance of the
differences (Cochran, *Sampling Techniques*, 1977, 2.4 and 7.3). For accuracy differences are -1, 0
or 1, so counts suffice: they add up to ``n_correct - n_correct_digital``, their squares to
``n_changed``. For other scores they add up to ``sum - sum_digital``, and their squares to
``sum_squares - 2 sum_products + sum_squares_digital``. With n = N the estimate is the plain mean
and its variance 0.
"""

import pandas as pd


def estimated_score(rows: pd.DataFrame) -> "pd.Series[float]":
    """Score on all ``n_test`` samples of each row; accuracy as a fraction.

    An estimate from a subset may lie beyond the limits of the score (an accuracy outside [0, 1]);
    it is not clipped, so that means are unbiased.

    Args:
        rows: Rows of trials.

    Example:
        >>> score = estimated_score(rows)
        >>> score.index.equals(rows.index), bool(score.between(0, 1).all())
        (True, True)
    """
    total, digital, _ = _totals(rows)
    digital_here = digital / rows["n_images_per_chip"]
    return total / rows["n_images_per_chip"] + (digital_score(rows) - digital_here)


def digital_score(rows: pd.DataFrame) -> "pd.Series[float]":
    """Score of each row's digital network on all ``n_test`` samples; accuracy as a fraction.

    Example:
        >>> n_correct = digital_score(rows) * rows["n_test"]
        >>> bool((n_correct.round() == rows["n_correct_digital"]).all())
        True
    """
    return _totals(rows)[2] / rows["n_test"]


def sampling_variance(rows: pd.DataFrame) -> "pd.Series[float]":
    """Variance of `estimated_score` over subsets of samples: 0 where all are used.

    Args:
        rows: Rows of trials.

    Example:
        >>> float(sampling_variance(rows).max())  # every chip is evaluated on all images
        0.0
    """
    n = rows["n_images_per_chip"]
    total, digital, _ = _totals(rows)
    if "sum" in rows:
        squares = rows["sum_squares"] - 2 * rows["sum_products"] + rows["sum_squares_digital"]
        squares = (squares - (total - digital) ** 2 / n).clip(lower=0.0)  # rounding errors
    else:
        squares = rows["n_changed"] - (total - digital) ** 2 / n
    return squares / (n - 1).clip(lower=1) / n * (1 - n / rows["n_test"])


def _totals(rows: pd.DataFrame) -> tuple["pd.Series[float]", ...]:
    """Sums of the chip, of the digital network on the same samples, and of it on all."""
    if "sum" in rows:
        return rows["sum"], rows["sum_digital"], rows["sum_digital_test"]
    return rows["n_correct"], rows["n_correct_digital"], rows["n_correct_digital_test"]
