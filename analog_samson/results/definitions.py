"""Consistency of rows: which columns make rows comparable, and which rows may not be mixed."""

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from analog_samson.results.scores import score_of

COMPARED_UNDER = (
    "dataset",
    "model",
    "device",
    "compensation",
    "condition",
    "engine",
    "precision",
    "t_inference_s",
)
"""Methods are compared between rows that agree in all of these columns."""

METHOD = ("method", "strength")
"""Columns that identify a method."""

_CHIP = (*COMPARED_UNDER[:-1], *METHOD, "training_seed", "checkpoint", "chip")
_SEED = ("dataset", "model", *METHOD, "training_seed")
_DEFINED = ("programming_seed", "n_images_per_chip", "n_test")


def check_definitions(rows: pd.DataFrame) -> None:
    """Refuse rows that use one name for different chips, networks or test sets.

    Args:
        rows: Rows of trials.

    Raises:
        ValueError: If columns are missing; if one chip of one network on one device has two
            definitions (another device file, study seed or evaluation set under the same name),
            or one definition has two names; if one method and training seed has two networks; if
            one model and data set was evaluated on test sets, or subsets, of different size; if
            they are of several scores.
    """
    value = "sum" if "higher_is_better" in rows else "n_correct"
    needed = {*_CHIP, *_DEFINED, "chip_id", value, "t_inference_s"}
    missing = sorted(needed - set(rows.columns))
    if missing:
        raise ValueError(f"These are not rows of trials: columns {missing} are missing.")
    score_of(rows)  # raises where there are several
    found = two_kinds(rows)
    if found is not None:
        row, other, column = found
        raise ValueError(
            f"Rows of chip {rows['chip_id'].iloc[row]!r} have {column} = "
            f"{rows[column].iloc[other]!r} and {rows[column].iloc[row]!r}; one chip has two "
            "names, or rows were edited: delete the wrong rows, or read the two studies separately."
        )
    chips = rows.drop_duplicates("chip_id")
    _check_chips(chips)
    _check_sizes(chips)
    _check_networks(chips)


def two_kinds(rows: pd.DataFrame) -> tuple[int, int, str] | None:
    """Find a row whose definition of its chip differs from that in the chip's first row.

    Args:
        rows: Rows of trials.

    Returns:
        Position of the row, of the first row of its chip, and the column in which they differ;
        None where all rows of every chip agree.
    """
    codes, _ = pd.factorize(rows["chip_id"])
    _, first = np.unique(codes, return_index=True)
    of_first = first[codes]
    for column in (*_CHIP, *_DEFINED):
        values = rows[column].array
        differs = np.asarray(values != values.take(of_first), dtype=bool)
        if differs.any():
            row = int(differs.argmax())
            return row, int(of_first[row]), column
    return None


def _check_chips(chips: pd.DataFrame) -> None:
    twice = _first_repeated(chips, _CHIP)
    if twice.empty:
        return
    first, second = twice.iloc[0], twice.iloc[1]
    differ = [repr(c) for c in _DEFINED if first[c] != second[c]]
    what = " and ".join(differ) or "the device's definition or the version of the numerics"
    raise ValueError(
        f"Chip {first['chip']} of {_named(first)} (training seed {first['training_seed']}) on "
        f"device {first['device']!r} has two definitions, {first['chip_id']!r} and "
        f"{second['chip_id']!r}, which differ in {what}; summarise the two studies separately."
    )


def _check_sizes(chips: pd.DataFrame) -> None:
    sizes = chips.drop_duplicates(["dataset", "model", "n_images_per_chip", "n_test"])
    mixed = _first_repeated(sizes, ("dataset", "model"))
    if mixed.empty:
        return
    what, column = "evaluation sets of {} images", "n_test"
    if mixed["n_test"].nunique() == 1:
        what, column = "chips that were evaluated on {} images each", "n_images_per_chip"
    numbers = sorted({int(n) for n in mixed[column]})
    raise ValueError(
        f"Trials of {mixed['model'].iloc[0]!r} on {mixed['dataset'].iloc[0]!r} mix "
        f"{what.format(numbers)}; choose one, such as rows[rows.{column} == {numbers[-1]}]."
    )


def _check_networks(chips: pd.DataFrame) -> None:
    own = chips[chips["method"] != "external"].drop_duplicates([*_SEED, "checkpoint"])
    twice = _first_repeated(own, _SEED)
    if twice.empty:
        return
    raise ValueError(
        f"Training seed {twice['training_seed'].iloc[0]} of {_named(twice.iloc[0])} has "
        f"{len(twice)} networks (checkpoints {', '.join(twice['checkpoint'])}), which were trained "
        "differently; keep one kind by filtering on 'checkpoint'."
    )


def _first_repeated(rows: pd.DataFrame, columns: Sequence[str]) -> pd.DataFrame:
    """All rows that agree with the first repeated row in the columns; empty if none repeats."""
    repeated = rows[rows.duplicated(list(columns), keep=False)]
    return repeated.merge(repeated.head(1)[list(columns)], on=list(columns))


def _named(row: "pd.Series[str]") -> str:
    return f"method {' '.join(filter(None, (row['method'], row['strength'])))!r}"


def check_manifests(manifests: Sequence[Path]) -> None:
    """Refuse studies with different definitions of a device, or of tied settings, of one name.

    Args:
        manifests: Paths of the studies' ``manifest.json``; a study without one passes.

    Raises:
        ValueError: If two manifests define a device or an axis of tied settings differently, or one
            is damaged.
    """
    _check_tied(manifests)
    known: dict[str, tuple[Path, object, object]] = {}
    for file in manifests:
        for name, definition, digest in _devices_of(file):
            other, first, first_digest = known.setdefault(name, (file, definition, digest))
            if first != definition and (digest is None or first_digest != digest):
                raise ValueError(
                    f"Device {name!r} is defined differently in {str(other.parent)!r} and "
                    f"{str(file.parent)!r} ({first_difference(first, definition)}); read the two "
                    "studies separately."
                )


def tied_settings(given: Mapping[str, Any]) -> list[tuple[Any, dict[str, Any]]]:
    """Each value of an axis of tied settings, and the settings that it means.

    Args:
        given: Each setting to its values, or to "same"; at least one list, lists of one length.
            The first list gives the values of the axis.
    """
    lists = {setting: list(values) for setting, values in given.items() if values != "same"}
    first = next(iter(lists.values()))
    return [
        (value, {setting: lists.get(setting, first)[k] for setting in given})
        for k, value in enumerate(first)
    ]


def _check_tied(manifests: Sequence[Path]) -> None:
    """Refuse studies in which one value of an axis of tied settings means different settings."""
    known: dict[tuple[str, Any], tuple[Path, dict[str, Any]]] = {}
    for file in manifests:
        study = _content_of(file).get("study")
        axes = study.get("axes") if isinstance(study, dict) else None
        for axis, given in axes.items() if isinstance(axes, dict) else ():
            if not isinstance(given, dict):
                continue
            for value, settings in tied_settings(given):
                other, first = known.setdefault((axis, value), (file, settings))
                if first != settings:
                    raise ValueError(
                        f"Axis {axis!r} = {value!r} means {first} in {str(other.parent)!r} and "
                        f"{settings} in {str(file.parent)!r}; read the two studies separately."
                    )


def _content_of(manifest: Path) -> dict[str, Any]:
    if not manifest.is_file():
        return {}
    try:
        content = json.loads(manifest.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(
            f"{str(manifest)!r} is not valid JSON ({error}); move it away or restore it."
        ) from error
    return content if isinstance(content, dict) else {}


def _devices_of(manifest: Path) -> Iterator[tuple[str, object, object]]:
    """Name, definition and digest of every device; studies of earlier versions had no digests."""
    content = _content_of(manifest)
    devices, digests = content.get("devices", {}), content.get("device_digests", {})
    if isinstance(devices, dict):
        yield from ((name, definition, digests.get(name)) for name, definition in devices.items())


def first_difference(first: object, second: object, where: str = "") -> str:
    """The first setting in which two definitions differ: "noise.g_max_uS: 25.0 and 20.0"."""
    if isinstance(first, dict) and isinstance(second, dict):
        for key in sorted(set(first) | set(second)):
            if first.get(key) != second.get(key):
                return first_difference(
                    first.get(key), second.get(key), f"{where}.{key}".strip(".")
                )
    return f"{where or 'definition'}: {first!r} and {second!r}"
