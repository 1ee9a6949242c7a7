"""Check that images found where a published data set is expected are that data set."""

from collections.abc import Mapping
from pathlib import Path

from torch import Tensor

from analog_samson.data.parts import Kind

TOLERANCE = 0.01
"""Largest difference of a mean or standard deviation from the published one, in units of full
scale: our choice. Training and test parts differ by up to 0.004, JPEG copies by less than 0.003."""


def check_published(
    name: str,
    kind: Kind,
    place: Path | None,
    labels: Mapping[str, Tensor],
    mean: tuple[float, ...],
    std: tuple[float, ...],
) -> None:
    """Check the number of images of every class, and the statistics of the pixels.

    Args:
        name: Name of the data set.
        kind: What it is recognised by.
        place: Folder of the files.
        labels: Labels by part.
        mean: Mean of the images, per channel.
        std: Standard deviation of the same.

    Raises:
        ValueError: If they are other images; the message says how to name them.
    """
    published = kind.published
    if published is None:
        return
    differences = []
    for part, found in labels.items():
        expected = published.counts[part]
        counts = tuple(found.bincount(minlength=kind.n_classes).tolist())
        if counts != expected:
            label = next(i for i, pair in enumerate(zip(counts, expected, strict=True))
                         if pair[0] != pair[1])  # fmt: skip
            differences.append(
                f"{sum(counts)} {part} images, {counts[label]} of class {label}, instead of "
                f"{sum(expected)} and {expected[label]}"
            )
    for what, ours, theirs in (("mean", mean, published.mean), ("std", std, published.std)):
        if any(abs(a - b) > TOLERANCE for a, b in zip(ours, theirs, strict=True)):
            differences.append(f"{what} {_rounded(ours)} instead of {_rounded(theirs)}")
    if differences:
        path = "." if place is None else str(place)
        path = path if "/" in path else f"./{path}"
        raise ValueError(
            f"The images in {path} are not {name} ({'; '.join(differences)}); give them their own "
            f"name by their path: dataset={path!r}."
        )


def _rounded(values: tuple[float, ...]) -> str:
    return ", ".join(f"{value:.3f}" for value in values)
