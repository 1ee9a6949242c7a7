"""Texts as windows of tokens: characters or words, each predicting the next.

A window holds `length` tokens and its targets, the tokens that follow each of them; windows do not
overlap and none spans two parts. One text is divided by position: first training, then validation,
last test. The vocabulary is that of the text before the test part, with "<unknown>" last; targets
that are unknown are `IGNORED`.
"""

import re
from pathlib import Path

import torch
from torch import Tensor

from analog_samson.data.names import OwnName
from analog_samson.data.parts import PART_WORDS, Found, Split
from analog_samson.tasks import IGNORED

UNKNOWN = "<unknown>"
LENGTH = 64
"""Tokens in a window: our choice."""

_WORD = re.compile(r"\w+(?:['’]\w+)*|[^\w\s]|\n")


def read_texts(place: Path, own: OwnName) -> Found:
    """Read a text file, or a folder with `train.txt` and `test.txt`.

    Args:
        place: The file or folder.
        own: Its name, with the options.

    Raises:
        ValueError: If a file is no UTF-8 text, or too short for a window.
    """
    units, length = own.options.get("units", "characters"), own.options.get("length", LENGTH)
    pieces = {part: _pieces(file, units) for part, file in _files(place).items()}
    fraction = own.options.get("test_fraction")
    is_divided = False
    if "test" not in pieces and fraction is not None:
        is_divided = True
        text = pieces["train"]
        first = round((1 - fraction) * len(text))
        pieces |= {"train": text[:first], "test": text[first:]}
    vocabulary = [*sorted(set(pieces["train"]) - {UNKNOWN}), UNKNOWN]
    numbers = {piece: number for number, piece in enumerate(vocabulary)}
    parts = {}
    for part, text in pieces.items():
        tokens = torch.tensor([numbers.get(piece, len(vocabulary) - 1) for piece in text]).long()
        if len(tokens) <= length:
            raise ValueError(
                f"The {part} part of {own.last} has {len(tokens)} {units}; a window of length="
                f"{length} needs {length + 1}: give a longer text or a smaller length."
            )
        inputs, targets = _windows(tokens, length, unknown=len(vocabulary) - 1)
        if own.options.get("targets") == "last":
            targets = targets[:, -1]
        has_targets = (targets != IGNORED).view(len(targets), -1).any(1)
        parts[part] = Split(inputs[has_targets], targets[has_targets])
    return Found(parts, tuple(vocabulary), len(vocabulary), True, is_divided)


def _windows(tokens: Tensor, length: int, unknown: int) -> tuple[Tensor, Tensor]:
    n = (len(tokens) - 1) // length
    inputs = tokens[: n * length].view(n, length)
    targets = tokens[1 : n * length + 1].view(n, length).clone()
    return inputs, targets.masked_fill_(targets == unknown, IGNORED)


def _files(place: Path) -> dict[str, Path]:
    if place.is_file():
        return {"train": place}
    texts = sorted(path for path in place.iterdir() if path.suffix == ".txt")
    named = {PART_WORDS[file.stem]: file for file in texts if file.stem in PART_WORDS}
    if not named and len(texts) == 1:
        return {"train": texts[0]}
    if "train" not in named or len(named) != len(texts):
        raise ValueError(
            f"{place} holds {', '.join(file.name for file in texts)}; it needs train.txt and "
            "test.txt (validation.txt is optional), or a single text."
        )
    return named


def _pieces(file: Path, units: str) -> list[str]:
    try:
        text = file.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"{file} is no UTF-8 text ({error}); convert it.") from error
    return list(text) if units == "characters" else _WORD.findall(text)
