"""Fit a device file to retention measurements, and assess the fit.

    python experiments/import_device.py retention.csv --name my_rram --technology ReRAM \
        --source "our wafer 7, March" --t-read-s 1e-6
    python experiments/import_device.py retention.csv --name my_rram --technology ReRAM \
        --source "our wafer 7, March" --resample

Columns of the CSV file: device, target_uS, time_s (since programming), conductance_uS.
A fit compares three laws of retention (power law, log-linear, stretched exponential) by their
errors at left-out times, and writes the best one; --law chooses another. A weight of zero has the
lowest measured target as its conductance, unless --g-min-uS gives another.
With --resample no model is fitted: every simulated device follows a measured one, and times and
conductances beyond the measurements are refused (except with --extrapolate). Some seconds for
10,000 measurements.
"""

import shutil
from pathlib import Path
from typing import Annotated

import numpy as np
import tyro

from analog_samson.commands import run_command, written
from analog_samson.devices import load_device
from analog_samson.devices.fit import fit, spreads
from analog_samson.devices.measurements import read_measurements
from analog_samson.devices.retention import FEWEST_TIMES, LawName, compare
from analog_samson.devices.writing import fitted_file, resampled_file
from analog_samson.files import made_folder, replacing
from analog_samson.report.datasheet import save_fit
from analog_samson.times import label

MOST_TIMES = 8
"""Columns of the printed table: our choice, for the width of a terminal."""


def main(
    measurements: Annotated[Path, tyro.conf.Positional],
    name: str,
    technology: str,
    source: str,
    t_read_s: float | None = None,
    t_0_s: float | None = None,
    law: LawName | None = None,
    g_min_uS: float | None = None,
    resample: bool = False,
    extrapolate: bool = False,
    summary: str = "A measured device.",
    limits: str = "Without a section [temperature], temperature is not modelled.",
    folder: Path = Path("devices"),
    confidence: float = 0.95,
) -> None:
    """Write a device file, which studies accept by its path, from measurements.

    Args:
        measurements: CSV file.
        name: Name of the device and its file.
        technology: For example PCM or ReRAM.
        source: Where the measurements come from.
        t_read_s: Duration of a read [s]; a fit needs it.
        t_0_s: First read after programming [s]; by default the first time measured, unless a
            smaller one predicts left-out times better.
        law: Law of retention; by default the one that predicts left-out times best.
        g_min_uS: Conductance of a weight of zero [µS]; by default the lowest measured target.
        resample: Instead of a fit: the file refers to a copy of the measurements beside it.
        extrapolate: With resample: devices keep their last value beyond the measurements.
        summary: One sentence on the device.
        limits: Effects that the model does not include.
        folder: Where the device file, the table of the fit and the plot go.
        confidence: Probability with which the printed intervals cover.
    """
    prose = {
        "name": name,
        "technology": technology,
        "source": source,
        "summary": summary,
        "limits": limits,
    }
    of_a_fit = {"law": law, "g-min-uS": g_min_uS, "t-read-s": t_read_s, "t-0-s": t_0_s}
    given = [f"--{option}" for option, value in of_a_fit.items() if value is not None]
    if resample and given:
        belong = "belongs" if len(given) == 1 else "belong"
        raise ValueError(
            f"{', '.join(given)} {belong} to a fit, and --resample follows measured cells; leave "
            "one of them out."
        )
    if not resample and (t_read_s is None or extrapolate):
        raise ValueError("A fit needs --t-read-s; --extrapolate belongs to --resample.")
    rows = read_measurements(measurements)
    path = made_folder(folder) / f"{name}.toml"
    if resample:
        copy = folder / f"{name}.csv"
        if measurements.absolute() != copy.absolute():
            shutil.copyfile(measurements, copy)
        text = resampled_file(copy, **prose, extrapolate=extrapolate)
        with replacing(path) as temporary:
            temporary.write_text(text, encoding="utf-8")
        print(load_device(path).limits)
        print(written([path, copy]))
        return
    compared = rows["time_s"].nunique() >= FEWEST_TIMES
    comparison = compare(rows, t_0_s) if compared else None
    chosen = law or (comparison.chosen if comparison else "power_law")
    is_flat = comparison is not None and not comparison.drifts
    t_0_text = "the first time measured" if t_0_s is None else "that of --t-0-s"
    if is_flat and t_0_s is None:
        t_0_s = float(rows.loc[rows["time_s"] > 0, "time_s"].min())
    found = fit(rows, t_0_s=t_0_s, t_read_s=t_read_s, confidence=confidence, law=chosen)
    text = fitted_file(found, **prose, g_min_uS=g_min_uS, comparison=comparison)
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")
    device = load_device(path)
    if comparison:
        print(f"{comparison.words[0].upper()}{comparison.words[1:]}.")
        if is_flat:
            print(f"No law predicts better than no drift; t_0 is {t_0_text}.")
    else:
        print(f"Fewer than {FEWEST_TIMES} times: laws of retention are not compared.")
    how = " (--law)" if law else f", {comparison.choice}" if comparison else ""
    print(f"Law of retention: {found.shape.words}{how}.")
    low, high = device.noise.conductance_range
    where = "the lowest measured target" if g_min_uS is None else "--g-min-uS"
    print(f"Weights: g_min = {low:g} µS ({where}) to g_max = {high:g} µS (the highest).")
    print(found.laws[["target_uS", "n", *found.tables]].to_markdown(index=False, floatfmt=".4g"))
    ratios = spreads(found, rows).pivot(index="target_uS", columns="time_s", values="ratio")
    few = np.linspace(0, ratios.shape[1] - 1, min(MOST_TIMES, ratios.shape[1])).round().astype(int)
    print("Spread of simulated cells, relative to that of the measured ones:")
    print(ratios.iloc[:, few].rename(columns=label).to_markdown(floatfmt=".2f"))
    conducts = rows.groupby("device")["conductance_uS"].min() > 0
    if not conducts.all():
        print(f"{(~conducts).sum()} of {len(conducts)} cells are left out: they reach 0 µS.")
    print(
        f"Drift explains {found.r_squared:.3f} of the variance within devices; residuals normal: "
        f"p = {found.p_normal:.2g}"
    )
    print(written([path, *save_fit(name, found, folder)]))


if __name__ == "__main__":
    run_command(main)
