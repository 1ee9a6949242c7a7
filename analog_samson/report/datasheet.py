"""Datasheet of a device: programming error, drift exponents, read noise, weight error over time."""

import itertools
import textwrap
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib import rcParams
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from analog_samson.devices import Device
from analog_samson.devices.fit import Fit
from analog_samson.devices.maintenance import NEVER
from analog_samson.files import made_folder, replacing
from analog_samson.report.axes import finish
from analog_samson.report.figures import panel_grid, save
from analog_samson.report.style import marker_size, style
from analog_samson.report.typeset import EXTRAPOLATED
from analog_samson.report.words import compensation_text, refresh_text
from analog_samson.times import label

_COLOURS = ("#000000", "#0072B2", "#56B4E9", "#009E73", "#E69F00", "#D55E00", "#CC79A7", "#999999")

_PARAMETERS = {
    "exponent": ("drift exponent", "drift exponent ν"),
    "slope": ("slope of retention", "slope [µS per decade]"),
    "change": ("final change", "change after a long time [µS]"),
}
"""Title and label of the parameter that every cell keeps, by its name in tables of moments."""


def datasheet(device: Device, moments: pd.DataFrame) -> Figure:
    """Draw the page of a device.

    Args:
        device: The device.
        moments: Its moments, as in ``device_<name>.csv``.

    Returns:
        A figure of one page.
    """
    with style("paper"):
        return _datasheet(device, moments)


def _datasheet(device: Device, moments: pd.DataFrame) -> Figure:
    maintenance = refresh_text(device.refresh_every)
    device = device.with_axes({"refresh_every": NEVER})  # cells since their last programming
    figure, axes = panel_grid(4, "two columns", "paper", aspect=0.85, share_y=False)
    draw_programming(axes[0], moments)
    draw_exponents(axes[1], moments)
    draw_read_noise(axes[2], moments)
    draw_weight_error(axes[3], device, moments)
    n = int(moments["n"].min())
    technology = "" if device.technology == "none" else f"{device.technology}, "
    figure.suptitle(
        f"{device.name} ({technology}{device.noise.model})\n{textwrap.fill(device.summary, 95)}",
        fontsize=rcParams["font.size"],
    )
    level = "" if device.noise_level == "conductance" else " at conductance level (see limits)"
    facts = (
        f"n = {n} cells per conductance{level}; {_periphery(device)}; "
        f"{compensation_text(device.drift_compensation.label)}; source: {device.noise.source}."
    )
    if maintenance != refresh_text(NEVER):
        facts += f" Cells since their last programming; chips are {maintenance}."
    if device.variation.is_used:
        facts += (
            f" Not drawn here: variation ({device.variation.label}; {device.variation.source})."
        )
    if warm := device.temperature.label:
        facts += (
            f" At {warm} ({device.temperature.source}): cells are drawn at the effective time, "
            f"{device.temperature.time_factor:.3g} times that since programming."
        )
    if any(device.is_extrapolated(t) for t in _weight_times(moments)):
        facts += f" {EXTRAPOLATED} beyond the time to which the device was measured (extrapolated)."
    finish(figure, {}, f"Limits: {' '.join(device.limits.split())} {facts}")
    return figure


def _weight_times(moments: pd.DataFrame) -> list[float]:
    """Times at which the error of a weight is drawn [s]."""
    return sorted(float(t) for t in moments.loc[moments["quantity"] == "weight", "t_inference_s"])


def _periphery(device: Device) -> str:
    periphery = device.periphery
    if periphery.is_ideal:
        return "exact products"
    bits = f"DAC {periphery.dac_bits} and ADC {periphery.adc_bits} bits"
    parts = [bits.replace("ideal bits", "ideal"), f"output noise {periphery.output_noise:g}"]
    for key, what in (("mvm_read_noise", "read noise per product"), ("ir_drop", "IR drop")):
        if getattr(periphery, key) > 0:
            parts.append(f"{what} {getattr(periphery, key):g}")
    if periphery.mvm_read_noise_uS > 0:
        parts.append(f"read noise of cells per product {periphery.mvm_read_noise_uS:g} µS")
    if any((*periphery.iv_square_powers, *periphery.iv_cube_powers)):
        parts.append(f"nonlinear current to {periphery.iv_voltage_V:g} V")
    parts += [f"effect {effect.model.rpartition(':')[2]}" for effect in periphery.effects]
    return ", ".join(parts)


def save_datasheet(device: Device, moments: pd.DataFrame, folder: str | Path) -> list[Path]:
    """Write ``device_<name>.csv``, ``.pdf`` and ``.png`` into a folder.

    Args:
        device: The device.
        moments: Its moments.
        folder: Made if it does not exist.

    Returns:
        The files written.
    """
    folder = made_folder(folder)
    stem = folder / f"device_{device.name}"
    with replacing(stem.with_suffix(".csv")) as temporary:
        moments.to_csv(temporary, index=False)
    save(datasheet(device, moments), stem)
    return [stem.with_suffix(suffix) for suffix in (".csv", ".pdf", ".png")]


def save_fit(name: str, found: Fit, folder: str | Path) -> list[Path]:
    """Write ``fit_<name>.csv`` and ``.png``: every law at its targets with intervals.

    Args:
        name: Name of the device.
        found: The fit.
        folder: An existing folder.

    Returns:
        The files written.
    """
    stem = Path(folder) / f"fit_{name}"
    with replacing(stem.with_suffix(".csv")) as temporary:
        found.laws.to_csv(temporary, index=False)
    with style("paper"):
        figure = _fit_figure(name, found)
    save(figure, stem, ("png",))
    return [stem.with_suffix(".csv"), stem.with_suffix(".png")]


def _fit_figure(name: str, found: Fit) -> Figure:
    figure, axes = panel_grid(6, "two columns", "paper", aspect=0.9, share_y=False, across=3)
    name_of_parameter = {
        "power_law": "drift exponent",
        "log_linear": "slope [µS per decade]",
        "stretched_exponential": "final change [µS]",
    }[found.shape.law]
    titles = (
        "mean programming error [µS]",
        "spread of programming error [µS]",
        f"mean {name_of_parameter}",
        f"spread of {name_of_parameter}",
        "relative spread of a read, Q",
    )
    at = found.laws["target_uS"]
    for axis, law, title in zip(axes, found.tables, titles, strict=False):
        value = found.laws[law]
        ends = np.abs(np.stack([found.laws[f"{law}{end}"] - value for end in ("_low", "_high")]))
        axis.errorbar(at, value, yerr=ends, marker="o", color=_COLOURS[1])
        axis.set_title(title, weight="normal", fontsize="small")
        axis.set_xlabel("target conductance [µS]")
    axes[5].axis("off")
    shape = found.shape.words.replace(", ", "\n")
    axes[5].text(
        0,
        0.5,
        f"{name}\n{shape}\ndrift explains {found.r_squared:.3f}\n"
        f"residuals normal: p = {found.p_normal:.2g}\n{100 * found.confidence:g} % intervals\n"
        f"n = {', '.join(str(int(n)) for n in found.laws['n'])} cells",
    )
    return figure


def draw_programming(axes: Axes, moments: pd.DataFrame) -> None:
    """Draw mean and spread of the programming error; without exponents, the spread over time."""
    rows = moments[moments["quantity"] == "programming"].set_index("g_uS", drop=False)
    drift = moments[moments["quantity"] == "drift"]
    if len(drift) and not moments["quantity"].isin(_PARAMETERS).any():
        axes.set(title="spread around the mean", xlabel="target conductance [µS]")
        axes.set(ylabel="spread [µS]")
        start = drift["g_uS"] + drift["g_uS"].map(rows["mean"]).fillna(0.0)
        aged = drift.assign(value=drift["spread"] * start.clip(lower=1e-9))
        _by_time(axes, pd.concat([rows.assign(value=rows["spread"]), aged], ignore_index=True))
        axes.set_ylim(bottom=0)
        return
    axes.set(title="programming")
    if not (rows["spread"] > 0).any() and not rows["mean"].any():
        _nothing(axes, "exact")
        return
    if rows["unit"].isna().any() or (rows["unit"] == "").any():
        axes.set(xlabel="weight, relative to the largest", ylabel="error, relative to the largest")
    else:
        axes.set(xlabel="target conductance [µS]", ylabel="error [µS]")
    axes.plot(rows["g_uS"], rows["spread"], color=_COLOURS[1], label="spread")
    axes.plot(rows["g_uS"], rows["mean"], color=_COLOURS[0], linestyle="--", label="mean")
    _legend_above(axes)


def draw_exponents(axes: Axes, moments: pd.DataFrame) -> None:
    """Draw the drift parameters over conductance, or the mean drift where there are none."""
    rows = moments[moments["quantity"].isin(_PARAMETERS)]
    if not rows.empty:
        name, ylabel = _PARAMETERS[rows["quantity"].iloc[0]]
        axes.set(title=f"{name}: mean and spread", ylabel=ylabel)
        axes.set(xlabel="target conductance [µS]")
        axes.plot(rows["g_uS"], rows["mean"], color=_COLOURS[5])
        low, high = rows["mean"] - rows["spread"], rows["mean"] + rows["spread"]
        axes.fill_between(rows["g_uS"], low, high, color=_COLOURS[5], alpha=0.2, linewidth=0)
        axes.set_ylim(bottom=min(0.0, float(low.min())))
        if (high < 0).all():
            axes.set_ylim(top=0.0)
        return
    drift = moments[(moments["quantity"] == "drift") & (moments["g_uS"] > 0)]
    axes.set(title="mean drift")
    if drift.empty:
        _nothing(axes, "none")
        return
    start = "programmed" if (moments["quantity"] == "programming").any() else "the target"
    axes.set(xlabel="target conductance [µS]", ylabel=f"conductance, relative to {start}")
    drift = drift[drift["g_uS"] > 0.04 * drift["g_uS"].max()]
    _by_time(axes, drift.assign(value=drift["mean"]))


def draw_read_noise(axes: Axes, moments: pd.DataFrame) -> None:
    """Draw the spread that a read adds over conductance, one line per time."""
    rows = moments[(moments["quantity"] == "read") & (moments["spread"] > 0)]
    axes.set(title="read noise (1/f)")
    if rows.empty:
        _nothing(axes, "none")
        return
    axes.set(xlabel="target conductance [µS]", ylabel="spread [µS]")
    _by_time(axes, rows.assign(value=rows["spread"]))
    axes.set_ylim(bottom=0)


def draw_weight_error(axes: Axes, device: Device, moments: pd.DataFrame) -> None:
    """Draw the root mean square error of a weight over time, as read and with the best gain."""
    axes.set(title="weight error", ylabel="rms, relative to the largest weight")
    lines = (
        ("weight", _COLOURS[0], "as read", 1.4),
        ("weight, best gain", _COLOURS[3], "best gain", 0.9),
    )
    times: list[float] = []
    for quantity, colour, name, size in lines:
        rows = moments[moments["quantity"] == quantity].sort_values("t_inference_s")
        times = _weight_times(moments)
        rms = np.hypot(rows["mean"], rows["spread"])
        size_pt = marker_size(size)
        axes.plot(range(len(times)), rms, color=colour, marker="o", markersize=size_pt, label=name)
    names = [label(t) + (EXTRAPOLATED if device.is_extrapolated(t) else "") for t in times]
    axes.set_xticks(range(len(times)), names)
    axes.set_ylim(0, max(axes.get_ylim()[1], 1e-3))
    axes.set_xlabel("time since programming")
    _legend_above(axes)


def _by_time(axes: Axes, rows: pd.DataFrame) -> None:
    """Draw ``value`` over conductance, one line per time; dashed: programmed, before any time."""
    colours = itertools.cycle(_COLOURS)
    for t, one in rows.groupby("t_inference_s"):
        name, style = label(float(str(t))), "--" if t == 0 else "-"
        colour = _COLOURS[0] if t == 0 else next(colours)
        axes.plot(one["g_uS"], one["value"], style, color=colour, label=name)
    _legend_above(axes)


def _legend_above(axes: Axes) -> None:
    """Draw the legend above the curves, in space added for it."""
    low, high = axes.get_ylim()
    n = len(axes.get_legend_handles_labels()[0])
    rows = -(-n // 4)
    axes.set_ylim(low, high + (0.04 + 0.08 * rows) * (high - low))
    axes.legend(loc="upper center", ncols=min(n, 4), columnspacing=1.2)


def _nothing(axes: Axes, words: str) -> None:
    axes.text(0.5, 0.5, words, ha="center", va="center", transform=axes.transAxes, color="0.4")
    axes.set(xticks=[], yticks=[])
    for side in axes.spines.values():
        side.set_color("0.8")
