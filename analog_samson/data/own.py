"""Data sets of your own: what lies at a path, read into parts that never overlap."""

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from analog_samson.data.array_layout import idx_files, read_arrays, read_idx
from analog_samson.data.checking import check_divided, check_inputs
from analog_samson.data.folder_layout import read_folders
from analog_samson.data.names import OwnName, find
from analog_samson.data.parquet_layout import all_parquet_files, read_own_parquet
from analog_samson.data.parts import PART_WORDS, Found, stratified_by_content, take
from analog_samson.data.text_layout import read_texts


@dataclass(frozen=True)
class _Layout:
    """A way in which data lie at a path: how they are read, and the options that apply."""

    read: Callable[[Path, OwnName], Found]
    options: tuple[str, ...]


_ARRAYS = ("normalise", "overlap", "test_fraction")
_PICTURES = ("image_size", "resize", *_ARRAYS)
_LAYOUTS = {
    "class folders": _Layout(read_folders, _PICTURES),
    "parquet files": _Layout(read_own_parquet, _PICTURES),
    ".npz files": _Layout(read_arrays, _ARRAYS),
    "idx files": _Layout(read_idx, _ARRAYS),
    "texts": _Layout(read_texts, ("units", "length", "targets", "test_fraction")),
}
_ALLOWED = (
    "a folder with a sub-folder a class (in train/ and test/, or without parts), an .npz file, a "
    "folder with train.npz and test.npz, parquet files with encoded images, idx files, a text "
    "file (.txt), or a folder with train.txt and test.txt"
)


def open_own(own: OwnName, folder: str | Path | None) -> tuple[Found, str]:
    """Read a data set of your own and check it.

    Args:
        own: Its name.
        folder: As for `find`.

    Returns:
        Its parts, "train" and "test" among them, and the name that is stored.

    Raises:
        FileNotFoundError: If there is no such file or folder, or a file of it is missing.
        ValueError: If it cannot be read, is inconsistent, has no test part, or is not the data set
            that the name describes.
    """
    place = find(own, folder)
    try:
        found, digest = _read(place, own)
    except (ValueError, OSError) as error:
        if own.digest and place.name != own.last:
            raise FileNotFoundError(
                f"There is no data set {own.last!r} in {place}, and {place} is none itself "
                f"({error}); give its path (dataset= or data_folder=)."
            ) from error
        raise
    if own.digest and digest[:16] != own.digest:
        raise ValueError(
            f"The data set in {place} is not {own.short!r} as it was trained on: its contents have "
            f"the digest {digest[:16]} instead of {own.digest}; give the path of that one "
            "(dataset= or data_folder=), or train again."
        )
    return found, own.stored(digest)


def _read(place: Path, own: OwnName) -> tuple[Found, str]:
    """The data set at a path, and the digest of its contents and options."""
    name = _layout_of(place)
    layout = _LAYOUTS[name]
    if foreign := [option for option in own.options if option not in layout.options]:
        raise ValueError(
            f"The option {foreign[0]} does not apply to {place}, which holds {name}; those take "
            f"{', '.join(layout.options)}."
        )
    found = layout.read(place, own)
    check_inputs(found, own.short)
    found = with_test_part(found, own)
    if own.options.get("overlap") == "drop":
        found = without_overlap(found)
    check_divided(found, own.short)
    facts = [own.options, *(f"{part} {found.parts[part].digest}" for part in sorted(found.parts))]
    return found, hashlib.sha256(json.dumps([*facts, *found.class_names]).encode()).hexdigest()


def with_test_part(found: Found, own: OwnName) -> Found:
    """The same with a test part: its own, or the share of the training part that was asked for.

    Raises:
        ValueError: If it has none and none was asked for, or it has one and one was.
    """
    fraction = own.options.get("test_fraction")
    if "test" in found.parts:
        if fraction is not None and not found.is_divided:
            raise ValueError(
                f"test_fraction={fraction} is for data without a test part, and {own.last} has one "
                f"of {len(found.parts['test'])} samples; leave it out."
            )
        return found
    if fraction is None:
        raise ValueError(
            f"{own.last} has no test part; add one, or write {own.short},test_fraction=0.2 to test "
            f"on a fifth of it, {'the end' if found.by_position else 'chosen by content'} (every "
            "table then says so)."
        )
    train = found.parts["train"]
    is_test = stratified_by_content(train, fraction)
    if is_test.all() or not is_test.any():
        raise ValueError(
            f"test_fraction={fraction} leaves {int((~is_test).sum())} training and "
            f"{int(is_test.sum())} test samples of {own.last}; both need at least one."
        )
    parts = {**found.parts, "train": take(train, ~is_test), "test": take(train, is_test)}
    return replace(found, parts=parts)


def without_overlap(found: Found) -> Found:
    """The same, without training and validation samples that a later part holds, too."""
    parts, seen = dict(found.parts), set[bytes]()
    for part in ("test", "validation", "train"):
        if part in parts:
            contents = parts[part].contents
            parts[part] = take(parts[part], torch.tensor([one not in seen for one in contents]))
            seen |= set(contents)
    return replace(found, parts=parts)


def _layout_of(place: Path) -> str:
    if place.is_file():
        by_ending = {".npz": ".npz files", ".txt": "texts", ".parquet": "parquet files"}
        if place.suffix not in by_ending:
            raise ValueError(f"{place} is no data set; allowed: {_ALLOWED}.")
        return by_ending[place.suffix]
    visible = [path for path in place.iterdir() if not path.name.startswith(".")]
    texts = [path for path in visible if path.suffix == ".txt"]
    there: Mapping[str, bool] = {
        "parquet files": bool(all_parquet_files(place)),
        ".npz files": any(path.suffix == ".npz" for path in visible),
        "idx files": bool(idx_files(place)),
        "texts": any(path.stem in PART_WORDS for path in texts) or len(texts) == 1 == len(visible),
    }
    kinds = [kind for kind, is_there in there.items() if is_there]
    if not kinds and any(path.is_dir() for path in visible):
        kinds = ["class folders"]
    if len(kinds) != 1:
        holds = " and ".join(kinds) if kinds else "none of these"
        raise ValueError(f"{place} holds {holds}; a data set is one of: {_ALLOWED}.")
    return kinds[0]


def file_state(place: Path) -> tuple[tuple[str, int, int], ...]:
    """Names, sizes and times of the files: a set that has changed is read again.

    Example:
        >>> n_written = Path("mine.csv").write_text("1,2")
        >>> [(name, size) for name, size, changed in file_state(Path("mine.csv"))]
        [('mine.csv', 3)]
    """
    files = sorted(place.rglob("*")) if place.is_dir() else [place]
    described = ((str(file), file.stat()) for file in files if file.is_file())
    return tuple((name, stat.st_size, stat.st_mtime_ns) for name, stat in described)
