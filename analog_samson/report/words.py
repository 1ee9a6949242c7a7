"""Texts that tables and figures share: names of methods and panels, n, intervals."""

import json
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import lru_cache
from typing import Any

import numpy as np
import pandas as pd

from analog_samson import times
from analog_samson.report.methods import (
    appearance,
    dataset_label,
    device_label,
    label_of,
    model_label,
    shows_details,
    task_names,
)
from analog_samson.results.comparison import method_names
from analog_samson.results.definitions import COMPARED_UNDER
from analog_samson.results.scores import ACCURACY, Score, score_of
from analog_samson.results.variants import TASK
from analog_samson.results.yields import Target

__all__ = [
    "axis_name",
    "condition_text",
    "fixed_text",
    "group_title",
    "interval_text",
    "method_names",
    "method_text",
    "n_text",
]

RAMPS = ("linear", "quadratic", "cosine", "step", "adaptive")
"""Schedules of `perturbation.schedules` other than the constant one."""

_COMPARED_WITHOUT_TIME = COMPARED_UNDER[:-1]

REFRESH = "refresh_every"
"""The axis whose values are intervals [s], or "never"."""


def method_text(name: str) -> str:
    """A method with its strength and settings as in papers.

    Example:
        >>> method_text("samson rho=0.5 clip_weights=2")
        'SAMSON ρ = 0.5, clipped at 2 std'
        >>> method_text("rwp sigma=0.1 quadratic ramp=0.5")
        'RWP σ = 0.1, quadratic ramp over 50 %'
    """
    if label := label_of(name):
        return label
    method, *settings = name.split(" ")
    shown = appearance(method)
    text = shown.label
    for setting in settings:
        key, _, value = setting.partition("=")
        between = "," if text != shown.label else ""
        if value and key == shown.strength:
            text += f"{between} {shown.symbol or shown.strength} = {value}"
        elif key == "ramp" and text.endswith(" ramp") and re.fullmatch(r"\d*\.?\d+", value):
            text += f" over {100 * float(value):g} %"
        elif said := _setting_text(key, value):
            text += f"{between} {said}"
        else:
            text += f" {setting}"
    return text


def _setting_text(key: str, value: str) -> str:
    """A setting of a training in words; "" if it is none."""
    if key in RAMPS and not value:
        return f"{key} ramp"
    if key == "fine-tuned":
        return key
    if not value or not key.isidentifier():
        return ""
    return (
        f"clipped at {value} std" if key == "clip_weights" else f"{key.replace('_', ' ')} = {value}"
    )


def condition_text(condition: str) -> str:
    """A swept point in words: '{"drift_scale": 2.0}' -> "drift scale = 2"; "{}" -> ""."""
    return ", ".join(
        refresh_text(value) if name == REFRESH else f"{axis_name(name)} = {value_text(value, name)}"
        for name, value in json.loads(condition or "{}").items()
    )


def refresh_text(interval: float | str) -> str:
    """An interval [s] of refreshes in words: 2592000.0 -> "refreshed every 1 mo"."""
    if isinstance(interval, str):
        return "never refreshed"
    return f"refreshed every {times.label(interval)}"


def value_text(value: object, axis: str = "") -> str:
    """A value of an axis: 2.0 -> "2", "none" -> "none"; of a time 3600.0 -> "1 h"."""
    if axis == REFRESH and isinstance(value, int | float):
        return times.label(value)
    return f"{value:g}" if isinstance(value, float) else str(value)


def by_value(value: Any) -> tuple[bool, float, str]:
    """Sort key of values of an axis: numbers by size, then words."""
    is_word = isinstance(value, str)
    return (is_word, 0.0 if is_word else float(value), str(value) if is_word else "")


@lru_cache(maxsize=100_000)
def by_number(condition: str) -> tuple[tuple[str, tuple[bool, float, str]], ...]:
    """Sort key of swept points: by the numbers of their axes, not as text."""
    return tuple(sorted((k, by_value(v)) for k, v in json.loads(condition or "{}").items()))


def is_swept(rows: pd.DataFrame) -> bool:
    """Whether some device has more than one value of some axis."""
    return bool(rows.groupby("device", observed=True)["condition"].nunique().max() > 1)


def axis_name(axis: str) -> str:
    """An axis in words: "programming_noise_scale" -> "programming noise scale"."""
    for unit, sign in (("_uS", " [µS]"), ("_s", " [s]"), ("_C", " [°C]"), ("_eV", " [eV]")):
        if axis.endswith(unit):
            return axis.removesuffix(unit).replace("_", " ").replace(".", " ") + sign
    return axis.replace("_1f", " 1/f").replace("_", " ").replace(".", " ")


def varying(rows: pd.DataFrame) -> list[str]:
    """Columns of `COMPARED_UNDER`, other than time and device, in which the rows differ."""
    return [c for c in _COMPARED_WITHOUT_TIME if c != "device" and rows[c].nunique() > 1]


def beyond_text(rows: pd.DataFrame) -> str:
    """What the extrapolated times of rows are; at a temperature effective times are compared."""
    text = "beyond the time to which the device was measured"
    late = rows[rows["extrapolated"]]
    if "condition" in late and late["condition"].astype(str).str.contains("temperature_C").any():
        text += ", which the effective time at a temperature is compared with"
    return f"{text} (extrapolated)."


def group_title(row: pd.Series, columns: Sequence[str], among: Iterable[str] = ()) -> str:
    """Title of a block or panel: the device and other settings that vary.

    Args:
        row: Any row of the block.
        columns: Columns that vary, as `varying` gives.
        among: Names of all devices of the table or figure.
    """
    return ", ".join([device_label(str(row["device"]), among), *settings_text(row, columns)])


def settings_text(row: pd.Series, columns: Sequence[str]) -> list[str]:
    """Settings other than the device in words: ["LeNet-5 on MNIST", "global compensation"]."""
    parts = []
    if {"dataset", "model"} <= set(columns):
        parts.append(f"{_value_said('model', row['model'])} on {dataset_label(row['dataset'])}")
        columns = [column for column in columns if column not in ("dataset", "model")]
    parts += [_value_said(column, row[column]) for column in columns]
    return list(filter(None, parts))


def led_by(task: str) -> str:
    """Data set and network in front of a note: "LeNet-5 on MNIST; "; "" where there is none."""
    return f"{task}; " if task else ""


def device_text(rows: pd.DataFrame) -> str:
    """The one device of some rows, as a sentence."""
    return f"{group_title(rows.iloc[0], [])}."


def fixed_text(rows: pd.DataFrame) -> str:
    """Settings that are the same in all rows: "LeNet-5 on MNIST (on these 10,000 test samples)".

    Where chips were evaluated on a subset of the test images, the sizes follow; then the names of
    device files behind the technologies.
    """
    same = [c for c in _COMPARED_WITHOUT_TIME if c != "device" and rows[c].nunique() == 1]
    said = {column: _value_said(column, rows[column].iloc[0]) for column in same}
    if "dataset" in same and rows["n_test"].nunique() == 1:
        said["dataset"] += f" (on these {rows['n_test'].iloc[0]:,} test samples)"
    if {"dataset", "model"} <= set(same):
        said["dataset"] = f"{said.pop('model')} on {said['dataset']}"
    if not shows_details():
        said = {name: text for name, text in said.items() if name not in ("engine", "precision")}
    text = ", ".join(filter(None, said.values()))
    text = text[:1].upper() + text[1:]
    parts = [text, score_text(rows), subset_text(rows), devices_text(rows)]
    return "; ".join(filter(None, parts))


def devices_text(rows: pd.DataFrame) -> str:
    """Names of the device files behind the labels: "PCM: pcm_like; ReRAM: reram_wan2022"."""
    devices = sorted(rows["device"].unique())
    labels = {device: device_label(device, devices) for device in devices}
    return "; ".join(f"{text}: {name}" for name, text in labels.items() if name not in text)


def devices_note(rows: pd.DataFrame) -> str:
    """As `devices_text`, as a sentence after others; "" where the labels are the names."""
    text = devices_text(rows)
    return f" {text}." if text else ""


def score_text(rows: pd.DataFrame) -> str:
    """What is averaged, where that is not what is shown; "" elsewhere."""
    score = score_of(rows)
    return f"{score.label} = exp(mean {score.averaged})" if score.is_exponential else ""


def compensation_text(compensation: str) -> str:
    """A kind of drift compensation in words: "global" -> "global compensation"."""
    kind, _, rest = compensation.partition(", ")
    words = {
        "none": "no compensation",
        "per_column": "compensation per column",
        "per_layer": "compensation per layer",
    }
    return ", ".join(filter(None, [words.get(kind, f"{kind} compensation"), rest]))


def _value_said(column: str, value: Any) -> str:
    said = {
        "dataset": dataset_label,
        "model": model_label,
        "device": device_label,
        "compensation": compensation_text,
        "condition": condition_text,
        "engine": "{} engine".format,
    }
    return said.get(column, str)(str(value))


def subset_text(rows: pd.DataFrame) -> str:
    """How many images accuracies were estimated from; "" where chips were evaluated on all."""
    pairs = rows.loc[
        rows["n_images_per_chip"] < rows["n_test"], ["n_images_per_chip", "n_test"]
    ].drop_duplicates()
    sizes = [f"{n:,} of {n_test:,}" for n, n_test in pairs.itertuples(index=False)]
    if not sizes:
        return ""
    score = score_of(rows)
    what, samples = "accuracies", "images"
    if score != ACCURACY:
        what, samples = score.label, "samples"
    return (
        f"{what} estimated from {' and '.join(sizes)} test {samples}, drawn for each chip, "
        f"with the digital network's results on the same {samples} and on all"
    )


def names_in(*tables: pd.DataFrame) -> set[str]:
    """Names in rows that a label can be given for: methods, devices, networks, data sets.

    Example:
        >>> sorted(names_in(summary))
        ['digits', 'mlp', 'pcm_like', 'sam', 'sam rho=0.1', 'sgd']
    """
    columns = ("method", "device", "model", "dataset")
    found = {str(name) for rows in tables for column in columns for name in rows[column].unique()}
    return found | {str(name) for rows in tables for name in method_names(rows).unique()}


def missing_text(rows: pd.DataFrame) -> str:
    """Methods that some devices have and others have not: "SAM ρ = 0.1 on reram_wan2022"."""
    names = method_names(rows)
    on = {device: set(own) for device, own in names.groupby(rows["device"], observed=True)}
    return "; ".join(
        f"{', '.join(method_text(name) for name in sorted(set(names) - own))} on "
        f"{device_label(str(device), on)}"
        for device, own in sorted(on.items())
        if own != set(names)
    )


def range_text(values: pd.Series) -> str:
    """One number, or "3 to 5" where values differ."""
    low, high = values.min(), values.max()
    return f"{low:g}" if low == high else f"{low:g} to {high:g}"


def n_text(rows: pd.DataFrame) -> str:
    """Numbers of networks and chips of the rows: "5 networks x 10 chips"."""
    networks, chips = range_text(rows["n_networks"]), _chips(rows)
    return (
        f"{networks} network{'' if networks == '1' else 's'} × "
        f"{chips} chip{'' if chips == '1' else 's'}"
    )


def n_short(rows: pd.DataFrame) -> str:
    """Networks and chips in a table's cell: "5 × 10"."""
    return f"{range_text(rows['n_networks'])} × {_chips(rows)}".replace(" to ", "–")


def _chips(rows: pd.DataFrame) -> str:
    return range_text(pd.concat([rows["n_chips"], rows["n_chips_max"]]))


def floor_text(score: Score) -> str:
    """What the floor under standard errors is made of: a continuous score has no whole counts."""
    made = "spread and whole counts make it" if score.step else "spread makes it"
    return f"at least as wide as the chips' {made}"


def interval_text(summary: pd.DataFrame) -> str:
    """Kind, scale and level of the intervals, and their assumptions."""
    if summary["half_width"].isna().all():
        return "no interval: one chip of one trained network"
    per_cent = per_cent_of(summary)
    over_chips = summary["level"] == "chips only"
    if over_chips.all():
        kind = "over chips only: one trained network; does not cover another training"
    else:
        kind = "over trained networks, after averaging reads and chips"
        pooled = summary["spread"] == "pooled"
        if pooled.any():
            which = "" if pooled.all() else f" of {_listed(summary[pooled])}"
            kind += f"; spread{which} pooled over methods (few networks)"
        if over_chips.any():
            kind += f"; over chips only for {_listed(summary[over_chips])} (one network)"
    if (summary["spread"] == "floor").any():
        kind += f"; {floor_text(score_of(summary))}"
    resampled = summary["spread"] == "bootstrap"
    what = "Student t"
    if resampled.any():
        what = "bootstrap over networks"
        if not (resampled | over_chips).all():
            plain = summary[~resampled & ~over_chips]
            both = set(method_names(plain)) & set(method_names(summary[resampled]))
            partly = method_names(plain).isin(both)
            cells = [_listed(plain[~partly])] if not partly.all() else []
            cells += [f"some times of {_listed(plain[partly])}"] if partly.any() else []
            what += f"; Student t for {' and '.join(cells)}" if cells else ""
    return f"{per_cent} interval ({what}) {kind}"


def returns_text(lives: pd.DataFrame) -> str:
    """Which methods are within the loss again after their lifetime, with a space at the end."""
    back = lives[lives["returns"]]
    devices = sorted(lives["device"].unique())
    named = "; ".join(
        f"{_listed(own)} on {device_label(str(device), devices)}"
        for device, own in back.groupby("device", observed=True)
    )
    return f"Within the limit again at a later time: {named}. " if named else ""


def calendar_text(t_inference_s: Iterable[float]) -> str:
    """Lengths of a month and a year, where labels of the times name them: "1 mo = 30 d"."""
    units = {times.label(t).split()[-1] for t in t_inference_s if np.isfinite(t)}
    lengths = {"mo": "1 mo = 30 d", "y": "1 y = 365 d"}
    return "; ".join(text for unit, text in lengths.items() if unit in units)


def are_typical(rows: pd.DataFrame) -> "pd.Series[bool]":
    """Which rows are of typical chips (logit scale), not means."""
    return rows["scale"] == "logit" if "scale" in rows else pd.Series(False, rows.index)


def typical_text(rows: pd.DataFrame) -> str:
    """What numbers stand for that are not means, as a sentence; "" where all are means."""
    is_typical = are_typical(rows)
    if not is_typical.any():
        return ""
    which = ""
    if not is_typical.all():
        ours, others = (
            ", ".join(sorted({dataset_label(str(name)) for name in part["dataset"].unique()}))
            for part in (rows[is_typical], rows[~is_typical])
        )
        which = f" of {ours}, and means of {others}"
    return (
        f"Typical chips{which}: accuracy at the mean of log(accuracy / error), not mean accuracy."
    )


def with_unit(score: Score, value: float) -> str:
    """A value with its unit, to four digits: "96.9 %", "5.2"."""
    return f"{score.shown(value):.4g} {score.unit}".rstrip()


def target_text(score: Score, target: Target) -> str:
    """What a chip must reach: "accuracy of 96.9 % or more", "perplexity of 5.2 or less"."""
    bound = "more" if score.is_higher_better else "less"
    return f"{score.label} of {each_text(target, lambda one: with_unit(score, one))} or {bound}"


def each_text(target: Target, show: Callable[[float], str]) -> str:
    """Targets in words, where they differ with their data sets and networks.

    Example:
        >>> each_text({("digits", "mlp"): 0.9, ("mnist", "lenet5"): 0.99}, "{:.0%}".format)
        '90% (MLP on digits), 99% (LeNet-5 on MNIST)'
    """
    if not isinstance(target, Mapping):
        return show(target)
    if len(set(target.values())) == 1:
        return show(next(iter(target.values())))
    names = task_names(target)
    return ", ".join(f"{show(target[task])} ({name})" for task, name in names.items())


def targets_in(rows: pd.DataFrame) -> dict[tuple[str, str], float]:
    """The target of each data set and model of rows with a ``target``."""
    first = rows.drop_duplicates(list(TASK))
    tasks = zip(first["dataset"].astype(str), first["model"].astype(str), strict=True)
    return dict(zip(tasks, first["target"].astype(float), strict=True))


def per_cent_of(rows: pd.DataFrame) -> str:
    """Confidence of the intervals: "95 %"."""
    return f"{100 * rows['confidence'].iloc[0]:g} %"


def _listed(rows: pd.DataFrame) -> str:
    return ", ".join(method_text(name) for name in sorted(set(method_names(rows))))
