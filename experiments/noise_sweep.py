r"""Which noise source lowers the accuracy: programming, read noise or drift?

One source is scaled from off (0) upward; the others are as the device defines them.

    python experiments/noise_sweep.py checkpoints/*.safetensors --axis programming_noise_scale
    python experiments/noise_sweep.py checkpoints/*.safetensors \
        --axis programming_noise_scale read_noise_1f_scale drift_scale output_noise --relative

Several sources are swept one after another, a study each in a folder of its own, and have one page
with their sensitivities on one axis.
"""

import contextlib
import functools
from pathlib import Path
from typing import Annotated

import tyro

from analog_samson.commands import run_command, written
from analog_samson.devices import Device, load_device
from analog_samson.devices.settings import OF_LAYERS, find_setting
from analog_samson.files import made_folder
from analog_samson.report import write_report
from analog_samson.study import Study, collect, unfinished

OLD_OPTIONS = {"--n-images": "--n-test", "--images": "--n-images-per-chip"}


def main(
    checkpoints: Annotated[tuple[Path, ...], tyro.conf.Positional],
    device: str = "pcm_like",
    axis: tuple[str, ...] = ("programming_noise_scale",),
    values: tuple[int | float | str, ...] = (0.0, 0.5, 1.0, 2.0, 4.0),
    relative: bool = False,
    t_inference_s: float | str = "1 d",
    name: str = "noise",
    folder: Path | None = None,
    chips: int = 10,
    score: str = "accuracy",
    jobs: int = 2,
    part: str | None = None,
    data_folder: Path | None = None,
    n_test: int | None = None,
    n_images_per_chip: int | None = None,
    trust: tuple[str, ...] = (),
) -> None:
    """Sweep one noise source at a fixed time.

    Args:
        checkpoints: Trained networks (.safetensors).
        device: Name of a device, or path of a device file.
        axis: Axis to sweep: programming_noise_scale, drift_scale, output_noise, g_max_uS, or any
            other setting of the device, such as mapping.max_rows; several are swept one by one.
        values: Values of the axis; 0 switches a source off, 1 is the device as it is.
        relative: Values are multiples of what the device has.
        t_inference_s: Time since programming finished, in seconds or as "1 h".
        name: Name of the study.
        folder: Where trials.csv, table and figure go; results/<name> by default.
        chips: Chips of every network at every value.
        score: What is measured: accuracy, top5, cross_entropy, bits, bits_per_token,
            token_accuracy, mse, or package.module:function of your own.
        jobs: Worker processes, one thread each; -1 takes every core.
        part: The part of the study to compute, such as 3/16; other parts may run concurrently.
        data_folder: Folder that holds the images.
        n_test: Test images, counted from the first; all by default.
        n_images_per_chip: How many of those each chip is evaluated on, drawn at random for every
            chip; all by default.
        trust: Packages that checkpoints and device files may import from.
    """
    if not axis or len(set(axis)) < len(axis):
        raise ValueError(f"Give at least one axis, each once; got {list(axis)}.")
    folder = folder or Path("results") / name
    loaded = load_device(device, trust)
    places = {one: folder / one if len(axis) > 1 else folder for one in axis}
    missing = []
    for one, place in places.items():
        own = _own_value(loaded, one) if relative else 1
        if relative and (words := [value for value in values if isinstance(value, str)]):
            raise ValueError(f"--relative multiplies the device's own value; got {words[0]!r}.")
        study = Study(
            f"{name}-{one}" if len(axis) > 1 else name,
            checkpoints,
            [loaded],
            [t_inference_s],
            n_chips=chips,
            score=score,
            axes={
                one: [
                    _of_its_kind(loaded, one, value if own == 1 else own * value)
                    for value in values
                ]
            },
            data_folder=data_folder,
            n_test=n_test,
            n_images_per_chip=n_images_per_chip,
            trust=trust,
        )
        made_folder(place)
        rows = collect(study, place, part=part, jobs=jobs, progress=True)
        missing.append(unfinished(study, rows))
    out = None if len(axis) == 1 else folder
    print("\n".join(filter(None, missing)) or written(write_report(list(places.values()), out=out)))


def _own_value(device: Device, axis: str) -> float:
    """The device's own value of a setting, a number other than 0."""
    if axis.startswith(OF_LAYERS):
        raise ValueError(
            f"--relative multiplies a setting of the whole device, and {axis!r} is one of layers; "
            "give its values without --relative."
        )
    value = functools.reduce(
        lambda part, key: part[key] if isinstance(key, int) else getattr(part, key),
        find_setting(axis, device, device.name)[1],
        device,
    )
    if isinstance(value, bool) or not isinstance(value, int | float) or not value:
        raise ValueError(f"--relative scales numbers other than 0; {axis} is {value!r}.")
    return value


def _of_its_kind(device: Device, axis: str, value: float | str) -> float | str:
    """A whole number as a fraction where the setting may be one: 1 and 1.0 are one condition."""
    if isinstance(value, int):
        with contextlib.suppress(ValueError):  # counts, which are no fractions
            device.with_axes({axis: float(value)})
            return float(value)
    return value


if __name__ == "__main__":
    run_command(main, old_options=OLD_OPTIONS)
