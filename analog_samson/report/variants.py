"""Names of variants of methods on maps: in full, and short enough for a cell."""

import re
from collections.abc import Mapping
from typing import Any

import pandas as pd

from analog_samson.report.methods import appearance, device_label, label_of
from analog_samson.report.style import order
from analog_samson.report.words import method_text
from analog_samson.results.comparison import method_names

SHORT = {"noise_injection": "NI", "hardware_aware": "HWA"}
"""Short labels of methods whose label is too long for a cell."""

LONGEST = 8
"""Letters of a label that is its own short one: our choice."""


def variant_labels(variants: pd.DataFrame) -> dict[str, str]:
    """Label of every variant: "SAMSON p=2", "hardware aware (ReRAM)".

    Args:
        variants: As `results.variants_of` gives.

    Returns:
        Name ("samson p=2") to label, in the usual order of methods.
    """
    return {name: _label(name, one) for name, one in _by_name(variants).items()}


def short_labels(variants: pd.DataFrame) -> dict[str, str]:
    """Short label of every variant, none twice: "SAMSON p2", "HWA ReRAM"."""
    kinds = _by_name(variants)
    full = variant_labels(variants)
    short = {name: _short(name, one) for name, one in kinds.items()}
    taken = list(short.values())
    return {name: full[name] if taken.count(text) > 1 else text for name, text in short.items()}


def _by_name(variants: pd.DataFrame) -> dict[str, Mapping[str, Any]]:
    """Method, variant and device known of every name; ``is_told``: the device is label enough."""
    kinds = variants[["method", "variant", "device_known"]].drop_duplicates()
    kinds = kinds.drop_duplicates(["method", "variant"])
    known = set(kinds["device_known"]) - {""}
    kinds["device"] = [device_label(one, known) if one else "" for one in kinds["device_known"]]
    alone = ~kinds.duplicated(["method", "device_known"], keep=False)
    kinds["is_told"] = alone & (kinds["device_known"] != "")
    names = method_names(kinds.rename(columns={"variant": "strength"}))
    columns = (kinds[name].tolist() for name in kinds)
    heads = [str(name) for name in kinds]
    records = [dict(zip(heads, row, strict=True)) for row in zip(*columns, strict=True)]
    found: dict[str, dict[str, Any]] = dict(zip(names, records, strict=True))
    return {name: found[name] for name in sorted(found, key=order)}


def _label(name: str, kind: Mapping[str, Any]) -> str:
    if given := label_of(name):
        return given
    if kind["is_told"]:
        return f"{appearance(kind['method']).label} ({kind['device']})"
    rest = f" ({kind['device']})" if kind["device"] else ""
    return method_text(name).replace("_", " ") + rest


def _short(name: str, kind: Mapping[str, Any]) -> str:
    label = appearance(kind["method"]).label
    if given := label_of(name):
        label = given
    if len(label) > LONGEST and label != given:
        words = re.split(r"[\s_-]+", label)
        label = SHORT.get(kind["method"]) or "".join(word[0] for word in words).upper()
    if given:
        return label
    parts = [label]
    if kind["device"]:
        parts.append(kind["device"])
    if not kind["is_told"]:
        parts += [_shortened(one) for one in kind["variant"].split() if "device=" not in one]
    return " ".join(filter(None, parts))


def _shortened(setting: str) -> str:
    """A setting in at most four letters and its value: "p=2" -> "p2", "clip_weights" -> "clip"."""
    name, _, value = setting.partition("=")
    return name.partition("_")[0][:4] + ("" if "_" in name else value)
