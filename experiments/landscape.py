"""Sharpness of the minima of trained networks, and their training curves.

    python experiments/landscape.py checkpoints/*.safetensors --folder results/drift

Writes sharpness.csv (one row per network) and training_curves.csv beside a study, whose report then
shows sharpness against accuracy and the curves. About ten seconds per network for LeNet-5.
"""

from pathlib import Path
from typing import Annotated

import pandas as pd
import tyro
from tqdm import tqdm

from analog_samson.checkpoint import load_checkpoint
from analog_samson.commands import run_command, written
from analog_samson.data import load_dataset
from analog_samson.files import made_folder, replacing
from analog_samson.landscape import sharpness
from analog_samson.report import training_curves, write_report
from analog_samson.results import read_trials, tables_in


def main(
    checkpoints: Annotated[tuple[Path, ...], tyro.conf.Positional],
    folder: Path,
    data_folder: Path | None = None,
    n_training_images: int = 1000,
    draws: int = 10,
    trust: tuple[str, ...] = (),
) -> None:
    """Measure the sharpness of trained networks; write the results beside a study.

    Args:
        checkpoints: Trained networks (.safetensors); a log of the same name (.csv) is drawn too.
        folder: Folder of the study whose networks these are.
        data_folder: Folder that holds the images.
        n_training_images: Training images that sharpness is measured on.
        draws: Draws of Gaussian weight noise for the average rise of the loss.
        trust: Packages that the checkpoints may import their networks from.
    """
    if not checkpoints:
        raise ValueError("Give at least one trained network (.safetensors); got none.")
    if n_training_images < 1 or draws < 1:
        raise ValueError(
            "At least one image and one draw are needed; got --n-training-images "
            f"{n_training_images} and --draws {draws}."
        )
    networks = [load_checkpoint(path, trust) for path in checkpoints]
    tables = tables_in(folder)
    digests = {network.short_digest for network in networks}
    rows = read_trials(*tables) if tables else None
    if rows is not None and digests.isdisjoint(rows["checkpoint"]):
        raise ValueError(
            f"The study in {folder} has none of these networks; give networks of the study."
        )
    if (folder / "networks.csv").is_file():
        raise ValueError(
            f"{folder} is a study of methods, whose networks are measured as they are trained "
            "(analog-samson methods); give another folder."
        )
    made_folder(folder)
    names = sorted({network.spec.dataset for network in networks})
    datasets = {name: load_dataset(name, data_folder) for name in names}
    records = [
        sharpness(
            network,
            datasets[network.spec.dataset],
            n_training_images=n_training_images,
            draws=draws,
        )
        for network in tqdm(networks, desc="sharpness", unit="network")
    ]
    with replacing(folder / "sharpness.csv") as temporary:
        pd.DataFrame(records).to_csv(temporary, index=False)
    logs = [path.with_suffix(".csv") for path in checkpoints if path.with_suffix(".csv").is_file()]
    if logs:
        methods = {network.spec.method for network in networks}
        with replacing(folder / "training_curves.csv") as temporary:
            training_curves(logs, methods).to_csv(temporary, index=False)
    if rows is not None:
        print(written(write_report(folder, rows=rows)))


if __name__ == "__main__":
    run_command(main, old_options={"--n-images": "--n-training-images"})
