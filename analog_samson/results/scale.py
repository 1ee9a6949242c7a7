"""Scales on which accuracies are averaged and compared.

Where few errors are left, errors of networks and chips vary by factors rather than by points:
accuracies are skewed towards low values, Student's interval of their mean covers too rarely, and
the difference of two means favours the method that varies more. On the logit scale,
``log(accuracy / error)``, such accuracies are close to normal. Counts are moved away from 0 and N
by half an image (Haldane 1956, Annals of Human Genetics 20, 309).
"""

from collections.abc import Mapping

import numpy as np
import pandas as pd
from scipy import special

from analog_samson.results.scores import ACCURACY, score_of
from analog_samson.results.subsets import digital_score

Scale = str | Mapping[str, str]
"""A name of `SCALES`, or what `scales_of` gives."""

SCALES = ("auto", "accuracy", "logit")
"""Scales of accuracies: "auto", the default everywhere, is the one that a fixed rule names."""

LOGIT_FROM = 0.8
"""Mean accuracy of the digital networks of a data set from which "auto" is "logit": our choice.
Between 20 and 80 % the logit is close to a straight line (Cox and Snell 1989, Analysis of Binary
Data), and both scales agree. The rule looks at digital networks alone, so that it is fixed before
any chip is simulated."""


def scales_of(rows: pd.DataFrame, scale: Scale = "auto") -> dict[str, str]:
    """The scale on which chips of each data set are averaged and compared.

    Args:
        rows: Rows of trials, or of chips (`chip_means`).
        scale: One of `SCALES`, or what this function gave for more rows, so that the rule does not
            depend on what is selected later.

    Returns:
        Data set to "accuracy" (the score itself) or "logit". "auto" takes "logit" where the
        digital networks of a data set have a mean accuracy of `LOGIT_FROM` or more.

    Raises:
        ValueError: If the scale is unknown, "logit" for a score other than accuracy, or lacks a
            data set.

    Example:
        >>> scales_of(rows), scales_of(rows, "accuracy")
        ({'digits': 'logit'}, {'digits': 'accuracy'})
    """
    score = score_of(rows)
    networks = rows.drop_duplicates("checkpoint")
    datasets = [str(name) for name in networks["dataset"].unique()]
    if not isinstance(scale, str):
        missing = sorted(set(datasets) - set(scale))
        if missing:
            raise ValueError(f"The scales {dict(scale)} lack the data sets {missing}.")
        return {name: scale[name] for name in datasets}
    if scale not in SCALES:
        raise ValueError(f"Scale must be one of {list(SCALES)}; got {scale!r}.")
    if scale == "logit" and score != ACCURACY:
        raise ValueError(
            f"The logit scale is for accuracies, and these rows are of {score.name!r}; leave the "
            "scale out, which takes the score itself."
        )
    if scale != "auto" or score != ACCURACY:
        return dict.fromkeys(datasets, "logit" if scale == "logit" else "accuracy")
    digital = networks[score.digital] if score.digital in networks else digital_score(networks)
    means = digital.groupby(networks["dataset"].astype(str)).mean()
    return {name: "logit" if means[name] >= LOGIT_FROM else "accuracy" for name in datasets}


def is_logit(rows: pd.DataFrame, scales: Mapping[str, str]) -> "pd.Series[bool]":
    """Which rows are of data sets on the logit scale."""
    return rows["dataset"].astype(str).map(scales) == "logit"


def to_logit(chips: pd.DataFrame) -> pd.DataFrame:
    """A copy of chips with accuracies, digital accuracies and resolution on the logit scale."""
    scaled = chips.copy()
    n = chips["n_images_per_chip"]
    for column in ("accuracy", "clean_accuracy"):
        moved = (n * chips[column].clip(0.0, 1.0) + 0.5) / (n + 1)
        if column == "accuracy":
            scaled["resolution"] = chips["resolution"] / (moved * (1 - moved))
        scaled[column] = special.logit(moved)
    return scaled


def from_logit(values: "pd.Series[float]", n_images: "pd.Series[int]") -> "pd.Series[float]":
    """Logits as fractions, in [0, 1].

    Args:
        values: Logits.
        n_images: Images that the chips were evaluated on; the half image is taken off again.
    """
    moved = 1 / (1 + np.exp(-values))
    return (((n_images + 1) * moved - 0.5) / n_images).clip(0.0, 1.0)
