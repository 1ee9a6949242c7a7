"""Parameters of devices with their sources, and their effect on weights.

    python experiments/describe_device.py pcm_like                # parameters, CSV and datasheet
    python experiments/describe_device.py --all --table device_configs/DEVICES.md

About two seconds per device.
"""

from pathlib import Path
from typing import Annotated

import tyro

from analog_samson.analog.moments import measure
from analog_samson.commands import run_command, written
from analog_samson.devices import device_names, load_device
from analog_samson.devices.describe import device_table, parameters
from analog_samson.files import made_folder, replacing
from analog_samson.report.datasheet import save_datasheet


def main(
    devices: Annotated[tuple[str, ...], tyro.conf.Positional] = (),
    all: bool = False,
    folder: Path = Path("results/devices"),
    table: Path | None = None,
    trust: tuple[str, ...] = (),
) -> None:
    """Print all parameters of devices, measure their moments, and draw their datasheets.

    Args:
        devices: Names of devices, or paths of device files.
        all: Take all devices that come with the package.
        folder: Where device_<name>.csv, .pdf and .png go.
        table: Instead: write the table of the devices (Markdown) here.
        trust: Packages that device files may import from.
    """
    loaded = [load_device(name, trust) for name in (device_names() if all else devices)]
    if not loaded:
        raise ValueError(f"Name a device, or give --all; known: {', '.join(device_names())}.")
    if table is not None:
        text = device_table(loaded).to_markdown(index=False) + "\n"
        with replacing(table) as temporary:
            temporary.write_text(text, encoding="utf-8")
        print(written([table]))
        return
    made_folder(folder)
    for device in loaded:
        print(f"{device.name}: {device.summary}\nLimits: {' '.join(device.limits.split())}\n")
        print(parameters(device).to_markdown(index=False), end="\n\n")
        print(written(save_datasheet(device, measure(device), folder)))


if __name__ == "__main__":
    run_command(main)
