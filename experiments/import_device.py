"""My lab measured retention: what device file describes it, and how well?

    python experiments/import_device.py retention.csv --name my_rram --technology ReRAM \
        --source "our wafer 7, March" --t-read-s 1e-6

Columns of the CSV file: device, target_uS, time_s (since programming), conductance_uS.
A second for 10,000 measurements.
"""

from pathlib import Path
from typing import Annotated

import tyro

from analog_samson.commands import run_command, written
from analog_samson.devices import load_device
from analog_samson.devices.fit import LAWS, device_file, estimate_t_0, fit, read_measurements
from analog_samson.report.datasheet import save_fit


def main(
    measurements: Annotated[Path, tyro.conf.Positional],
    name: str,
    technology: str,
    source: str,
    t_read_s: float,
    t_0_s: float | None = None,
    summary: str = "A measured device.",
    limits: str = "Temperature is not modelled.",
    folder: Path = Path("devices"),
    confidence: float = 0.95,
) -> None:
    """Fit measurements and write a device file that every study accepts by its path.

    Args:
        measurements: CSV file.
        name: Name of the device and its file.
        technology: For example PCM or ReRAM.
        source: Where the measurements come from.
        t_read_s: Duration of a read [s].
        t_0_s: First read after programming [s]; by default the value that fits best.
        summary: One sentence on the device.
        limits: What the model does not hold.
        folder: Where the device file, the table of the fit and the plot go.
        confidence: Probability with which the printed intervals cover.
    """
    rows = read_measurements(measurements)
    found = fit(
        rows,
        t_0_s=estimate_t_0(rows) if t_0_s is None else t_0_s,
        t_read_s=t_read_s,
        confidence=confidence,
    )
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}.toml"
    text = device_file(
        found, name=name, technology=technology, source=source, summary=summary, limits=limits
    )
    path.write_text(text, encoding="utf-8")
    load_device(path)
    print(found.laws[["target_uS", "n", *LAWS]].to_markdown(index=False, floatfmt=".4g"))
    print(
        f"t_0 = {found.t_0_s:.4g} s; drift explains {found.r_squared:.3f} of the variance within "
        f"devices; residuals normal: p = {found.p_normal:.2g}"
    )
    print(written([path, *save_fit(name, found, folder)]))


if __name__ == "__main__":
    run_command(main)
