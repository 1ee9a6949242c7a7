"""Fit a device file to retention measurements, and assess the fit.

    python experiments/import_device.py retention.csv --name my_rram --technology ReRAM \
        --source "our wafer 7, March" --t-read-s 1e-6
    python experiments/import_device.py retention.csv --name my_rram --technology ReRAM \
        --source "our wafer 7, March" --resample

Columns of the CSV file: device, target_uS, time_s (since programming), conductance_uS.
With --resample no model is fitted: every simulated device follows a measured one, and times and
conductances beyond the measurements are refused (except with --extrapolate). About a second for
10,000 measurements.
"""

import shutil
from pathlib import Path
from typing import Annotated

import tyro

from analog_samson.commands import run_command, written
from analog_samson.devices import load_device
from analog_samson.devices.fit import LAWS, estimate_t_0, fit
from analog_samson.devices.measurements import read_measurements
from analog_samson.devices.writing import fitted_file, resampled_file
from analog_samson.files import made_folder, replacing
from analog_samson.report.datasheet import save_fit


def main(
    measurements: Annotated[Path, tyro.conf.Positional],
    name: str,
    technology: str,
    source: str,
    t_read_s: float | None = None,
    t_0_s: float | None = None,
    resample: bool = False,
    extrapolate: bool = False,
    summary: str = "A measured device.",
    limits: str = "Temperature is not modelled.",
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
        t_0_s: First read after programming [s]; by default the value that fits best.
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
    path = made_folder(folder) / f"{name}.toml"
    rows = read_measurements(measurements)
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
    if t_read_s is None or extrapolate:
        raise ValueError("A fit needs --t-read-s; --extrapolate belongs to --resample.")
    t_0_s = estimate_t_0(rows) if t_0_s is None else t_0_s
    found = fit(rows, t_0_s=t_0_s, t_read_s=t_read_s, confidence=confidence)
    with replacing(path) as temporary:
        temporary.write_text(fitted_file(found, **prose), encoding="utf-8")
    load_device(path)
    print(found.laws[["target_uS", "n", *LAWS]].to_markdown(index=False, floatfmt=".4g"))
    print(
        f"t_0 = {found.t_0_s:.4g} s; drift explains {found.r_squared:.3f} of the variance within "
        f"devices; residuals normal: p = {found.p_normal:.2g}"
    )
    print(written([path, *save_fit(name, found, folder)]))


if __name__ == "__main__":
    run_command(main)
