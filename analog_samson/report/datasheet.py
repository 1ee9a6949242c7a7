"""One page a device: spread of programming, drift exponents, read noise, weight error over time."""

import textwrap
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from analog_samson.devices import Device
from analog_samson.devices.fit import LAWS, Fit
from analog_samson.times import label

_COLOURS = ("#000000", "#0072B2", "#56B4E9", "#009E73", "#E69F00", "#D55E00", "#CC79A7", "#999999")


def datasheet(device: Device, moments: pd.DataFrame) -> Figure:
    """Draw the page of a device.

    Args:
        device: The device.
        moments: Its moments, as in ``device_<name>.csv``.

    Returns:
        A figure of one page.
    """
    figure, axes = plt.subplots(2, 2, figsize=(8.3, 8.3), layout="constrained")
    draw_programming(axes[0, 0], moments)
    draw_exponents(axes[0, 1], moments)
    draw_read_noise(axes[1, 0], moments)
    draw_weight_error(axes[1, 1], device, moments)
    n = int(moments["n"].min())
    figure.suptitle(
        f"{device.name} ({device.technology}, {device.noise.model})\n"
        + textwrap.fill(device.summary, 110),
        fontsize=9,
    )
    level = "" if device.noise_level == "conductance" else " at conductance level (see limits)"
    figure.supxlabel(
        textwrap.fill(f"Limits: {' '.join(device.limits.split())}", 125)
        + f"\nMoments of {n} devices a conductance{level}; compensation: "
        f"{device.drift_compensation.label}; source: {device.noise.source}.",
        fontsize=7.5,
    )
    return figure


def save_datasheet(device: Device, moments: pd.DataFrame, folder: str | Path) -> list[Path]:
    """Write ``device_<name>.csv``, ``.pdf`` and ``.png`` into a folder.

    Args:
        device: The device.
        moments: Its moments.
        folder: Made if it does not exist.

    Returns:
        The files written.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    stem = folder / f"device_{device.name}"
    moments.to_csv(stem.with_suffix(".csv"), index=False)
    figure = datasheet(device, moments)
    for suffix in (".pdf", ".png"):
        figure.savefig(stem.with_suffix(suffix), dpi=150)
    plt.close(figure)
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
    found.laws.to_csv(stem.with_suffix(".csv"), index=False)
    figure, axes = plt.subplots(2, 3, figsize=(10, 6), layout="constrained")
    at = found.laws["target_uS"]
    for axis, law in zip(axes.flat, LAWS, strict=False):
        value = found.laws[law]
        ends = np.abs(np.stack([found.laws[f"{law}{end}"] - value for end in ("_low", "_high")]))
        axis.errorbar(at, value, yerr=ends, marker="o", color=_COLOURS[1], capsize=3)
        axis.set(title=law, xlabel="target conductance [µS]")
    axes[1, 2].axis("off")
    axes[1, 2].text(
        0,
        0.5,
        f"{name}\nt_0 = {found.t_0_s:.3g} s\ndrift explains {found.r_squared:.3f}\n"
        f"residuals normal: p = {found.p_normal:.2g}\n{100 * found.confidence:g} % intervals\n"
        f"n = {', '.join(str(int(n)) for n in found.laws['n'])} devices",
    )
    figure.savefig(stem.with_suffix(".png"), dpi=150)
    plt.close(figure)
    return [stem.with_suffix(".csv"), stem.with_suffix(".png")]


def draw_programming(axes: Axes, moments: pd.DataFrame) -> None:
    """Draw mean and spread of the programming error over the target conductance."""
    rows = moments[moments["quantity"] == "programming"]
    axes.set(title="programming", xlabel="target conductance [µS]", ylabel="error [µS]")
    if rows.empty:
        _nothing(axes, "the programmed state was not measured")
        return
    if rows["unit"].isna().any() or (rows["unit"] == "").any():
        axes.set(xlabel="weight, relative to the largest", ylabel="error, relative to the largest")
    axes.plot(rows["g_uS"], rows["spread"], color=_COLOURS[1], label="spread")
    axes.plot(rows["g_uS"], rows["mean"], color=_COLOURS[0], linestyle="--", label="mean")
    axes.legend(frameon=False)


def draw_exponents(axes: Axes, moments: pd.DataFrame) -> None:
    """Draw the drift exponents over conductance, or the mean drift where there are none."""
    rows = moments[moments["quantity"] == "exponent"]
    axes.set(xlabel="target conductance [µS]")
    if not rows.empty:
        axes.set(title="drift exponent, mean and spread", ylabel=r"$\nu$")
        axes.plot(rows["g_uS"], rows["mean"], color=_COLOURS[5])
        low, high = rows["mean"] - rows["spread"], rows["mean"] + rows["spread"]
        axes.fill_between(rows["g_uS"], low, high, color=_COLOURS[5], alpha=0.2, linewidth=0)
        axes.set_ylim(bottom=min(0.0, float(low.min())))
        return
    drift = moments[(moments["quantity"] == "drift") & (moments["g_uS"] > 0)]
    axes.set(title="mean drift", ylabel="conductance, relative to programmed")
    if drift.empty:
        _nothing(axes, "no drift")
        return
    drift = drift[drift["g_uS"] > 0.04 * drift["g_uS"].max()]
    for colour, (t, rows) in zip(_COLOURS, drift.groupby("t_inference_s"), strict=False):
        axes.plot(rows["g_uS"], rows["mean"], color=colour, label=label(float(str(t))))
    axes.legend(frameon=False)


def draw_read_noise(axes: Axes, moments: pd.DataFrame) -> None:
    """Draw the spread that a read adds over conductance, one line a time."""
    rows = moments[(moments["quantity"] == "read") & (moments["spread"] > 0)]
    axes.set(title="read noise (1/f)", xlabel="target conductance [µS]", ylabel="spread [µS]")
    if rows.empty:
        _nothing(axes, "none")
        return
    for colour, (t, one) in zip(_COLOURS, rows.groupby("t_inference_s"), strict=False):
        axes.plot(one["g_uS"], one["spread"], color=colour, label=label(float(str(t))))
    axes.legend(frameon=False)


def draw_weight_error(axes: Axes, device: Device, moments: pd.DataFrame) -> None:
    """Draw the root mean square error of a weight over time, as read and with the best gain."""
    axes.set(title="weight error", ylabel="rms, relative to the largest weight")
    looks = (("weight", _COLOURS[0], "as read"), ("weight, best gain", _COLOURS[3], "best gain"))
    times: list[float] = []
    for quantity, colour, name in looks:
        rows = moments[moments["quantity"] == quantity].sort_values("t_inference_s")
        times = [float(t) for t in rows["t_inference_s"]]
        rms = np.hypot(rows["mean"], rows["spread"])
        axes.plot(range(len(times)), rms, color=colour, marker="o", label=name)
    names = [label(t) + ("*" if device.is_extrapolated(t) else "") for t in times]
    axes.set_xticks(range(len(times)), names)
    axes.set_ylim(0, 1.15 * axes.get_ylim()[1])
    axes.set_xlabel(
        "time after programming" + (" (* extrapolated)" if "*" in "".join(names) else "")
    )
    axes.legend(frameon=False)


def _nothing(axes: Axes, words: str) -> None:
    axes.text(0.5, 0.5, words, ha="center", va="center", transform=axes.transAxes, color="0.4")
