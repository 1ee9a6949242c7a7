"""Scales on which accuracies are averaged and compared.

Where few errors are left, errors of networks and chips vary by factors rather than by points:
accuracies are skewed towards low values, Student's interval of their mean covers too rarely, and
the difference of two means favours the method that varies more. On the logit scale,
``log(accuracy / error)``, such accuracies are close to normal. Counts are moved away from 0 and N
by half an image (Haldane 1956, Annals of Human Genetics 20, 309).
"""

import numpy as np
import pandas as pd
from scipy import special

from analog_samson.results.scores import ACCURACY, Score, score_of

SCALES = ("auto", "accuracy", "logit")
"""Names that `chosen_scale` takes; "auto", the default everywhere, takes the recommended one."""

RECOMMENDED_FROM = 0.8
"""Mean accuracy of the digital networks from which the logit scale is recommended: our choice.
Between 20 and 80 % the logit is close to a straight line (Cox and Snell 1989, Analysis of Binary
Data), and both scales agree. The rule looks at digital networks alone, so that it is fixed before
any chip is simulated."""


def chosen_scale(scale: str, chips: pd.DataFrame) -> str:
    """The scale on which chips are averaged and compared.

    Args:
        scale: One of `SCALES`; "auto" takes what `recommended_scale` names.
        chips: As `chip_means` gives.

    Returns:
        "accuracy" (the score itself) or "logit".

    Raises:
        ValueError: If the scale is unknown, or "logit" for a score other than accuracy.

    Example:
        >>> chosen_scale("auto", chips), chosen_scale("logit", chips)
        ('accuracy', 'logit')
    """
    if scale not in SCALES:
        raise ValueError(f"Scale must be one of {list(SCALES)}; got {scale!r}.")
    if scale == "logit" and (score := score_of(chips)) != ACCURACY:
        raise ValueError(
            f"The logit scale is for accuracies, and these rows are of {score.name!r}; leave the "
            "scale out, which takes the score itself."
        )
    return recommended_scale(chips) if scale == "auto" else scale


def name_of(scale: str, score: Score) -> str:
    """The scale in the column ``scale``: "logit", or the column of the score itself."""
    return scale if scale == "logit" else score.column


def recommended_scale(chips: pd.DataFrame) -> str:
    """The scale that is recommended for a study, by its digital networks alone.

    Args:
        chips: As `chip_means` gives.

    Returns:
        "logit" where the digital networks have a mean accuracy of `RECOMMENDED_FROM` or more.

    Example:
        >>> recommended_scale(chips)
        'accuracy'
    """
    if score_of(chips) != ACCURACY:
        return "accuracy"
    digital = chips.groupby("checkpoint", observed=True)["clean_accuracy"].first()
    return "logit" if digital.mean() >= RECOMMENDED_FROM else "accuracy"


def to_scale(chips: pd.DataFrame, scale: str) -> pd.DataFrame:
    """Chips with their accuracies, digital accuracies and resolution on a scale.

    Args:
        chips: As `chip_means` gives.
        scale: As `chosen_scale` gives.

    Returns:
        A copy.
    """
    if scale == "accuracy":
        return chips.copy()
    scaled = chips.copy()
    n = chips["n_images_per_chip"]
    for column in ("accuracy", "clean_accuracy"):
        moved = (n * chips[column].clip(0.0, 1.0) + 0.5) / (n + 1)
        if column == "accuracy":
            scaled["resolution"] = chips["resolution"] / (moved * (1 - moved))
        scaled[column] = special.logit(moved)
    return scaled


def from_scale(
    values: "pd.Series[float]", scale: str, n_images: "pd.Series[int]"
) -> "pd.Series[float]":
    """Values on a scale as fractions, in [0, 1] where the scale is not the accuracy itself.

    Args:
        values: Values on the scale.
        scale: As `chosen_scale` gives.
        n_images: Images that the chips were evaluated on; the half image is taken off again.
    """
    if scale == "accuracy":
        return values
    moved = 1 / (1 + np.exp(-values))
    return (((n_images + 1) * moved - 0.5) / n_images).clip(0.0, 1.0)
