"""Accuracy of a chip that was evaluated on all test images, or on a random subset of them.

The digital network is evaluated on all N images. The difference between its accuracies on the
subset and on all images corrects the chip's accuracy on the n images of the subset (difference
estimator): with c_i and p_i the correctness (0 or 1) of chip and digital network on image i,

    accuracy = sum over all (p_i) / N + mean over the subset (c_i - p_i)

is unbiased, and its variance over subsets is s^2 / n (1 - n / N), with s^2 the variance of the
differences (Cochran, *Sampling Techniques*, 1977, 2.4 and 7.3). Differences are -1, 0 or 1, so
counts suffice: they add up to ``n_correct - n_correct_digital``, their squares to ``n_changed``.
With n = N the estimate is the plain ratio and its variance 0.
"""

import pandas as pd


def estimated_accuracy(rows: pd.DataFrame) -> "pd.Series[float]":
    """Accuracy on all ``n_test`` images of each row, as a fraction.

    An estimate from a subset may lie outside [0, 1]; it is not clipped, so that means are unbiased.

    Args:
        rows: Rows of trials.
    """
    digital_here = rows["n_correct_digital"] / rows["n_images_per_chip"]
    return rows["n_correct"] / rows["n_images_per_chip"] + (digital_accuracy(rows) - digital_here)


def digital_accuracy(rows: pd.DataFrame) -> "pd.Series[float]":
    """Accuracy of each row's digital network on all ``n_test`` images, as a fraction."""
    return rows["n_correct_digital_test"] / rows["n_test"]


def sampling_variance(rows: pd.DataFrame) -> "pd.Series[float]":
    """Variance of `estimated_accuracy` over subsets of images: 0 where all are used.

    Args:
        rows: Rows of trials.
    """
    n = rows["n_images_per_chip"]
    total = rows["n_correct"] - rows["n_correct_digital"]
    squares = rows["n_changed"] - total**2 / n
    return squares / (n - 1).clip(lower=1) / n * (1 - n / rows["n_test"])
