"""A folder with a sub-folder a class: `train/rose/1.png`, or `rose/1.png` where there are no parts.

The images of a part are ordered by their contents, so that neither the names of files nor their
order matter and the first images are a fair sample.
"""

from pathlib import Path
from typing import cast

import torch
from torch import Tensor

from analog_samson.data.encoded import Picture, encoded_images
from analog_samson.data.names import OwnName
from analog_samson.data.parts import PART_WORDS, Found, Split, encoding_of

ENDINGS = (".png", ".jpg", ".jpeg", ".webp")


def read_folders(place: Path, own: OwnName) -> Found:
    """Read the headers of all images; they are decoded when they are needed.

    Args:
        place: The folder.
        own: Its name, with the options.

    Raises:
        ValueError: If a class is empty, a file is no image, images are of several sizes and no
            size is asked for, or the test part has other classes.
    """
    folders = _folders(place)
    named = {part: folder for folder in folders if (part := PART_WORDS.get(folder.name.lower()))}
    if named and (len(named) != len(folders) or "train" not in named):
        raise ValueError(
            f"{place} holds the folders {', '.join(folder.name for folder in folders)}; it needs "
            "train and test (validation is optional), or a folder a class and no parts."
        )
    roots = named or {"train": place}
    classes = {part: {folder.name: folder for folder in _folders(root)} for part, root in
               roots.items()}  # fmt: skip
    names = sorted(classes["train"])
    for part, found in classes.items():
        if unknown := sorted(set(found) - set(names)):
            raise ValueError(
                f"The {part} part of {place} has a class {unknown[0]!r}, which the training part "
                "has not; the folders of both need the same names."
            )
    pictures, owners, labels = [], [], []
    for part, found in classes.items():
        inside = [(picture, names.index(name)) for name, folder in sorted(found.items())
                  for picture in _pictures(folder, place)]  # fmt: skip
        for picture, label in sorted(inside, key=lambda one: (one[0].content, one[1])):
            pictures.append(picture)
            owners.append(part)
            labels.append(label)
    if not pictures:
        raise ValueError(
            f"{place} holds no images; put PNG, JPEG or WebP files into a folder a class."
        )
    options = own.options
    images = cast(  # indexed as a tensor is
        Tensor,
        encoded_images(pictures, options.get("image_size"), options.get("resize"), own.short),
    )
    encoding = encoding_of(pictures)
    parts = {}
    for part in roots:
        chosen = torch.tensor([i for i, owner in enumerate(owners) if owner == part]).long()
        parts[part] = Split(images[chosen], torch.tensor(labels).long()[chosen], encoding)
    return Found(parts, tuple(names))


def _folders(place: Path) -> list[Path]:
    if loose := [p for p in _visible(place) if p.is_file() and p.suffix.lower() in ENDINGS]:
        raise ValueError(
            f"{loose[0]} lies in no folder of a class; sort the images into a folder a class."
        )
    return [path for path in _visible(place) if path.is_dir()]


def _visible(place: Path) -> list[Path]:
    return sorted(path for path in place.iterdir() if not path.name.startswith("."))


def _pictures(folder: Path, place: Path) -> list[Picture]:
    """The images of a class, in folders below too."""
    found = []
    for file in sorted(folder.rglob("*")):
        hidden = any(piece.startswith(".") for piece in file.relative_to(folder).parts)
        if hidden or file.is_dir():
            continue
        if file.suffix.lower() not in ENDINGS:
            raise ValueError(
                f"{file} is no image that can be read ({', '.join(ENDINGS)}); convert or remove it."
            )
        found.append(Picture.of(file, str(file.relative_to(place.parent))))
    if not found:
        raise ValueError(f"The class {str(folder)!r} holds no images; add some, or remove it.")
    return found
