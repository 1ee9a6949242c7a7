"""Why is the accuracy low? Stage by stage, and layer by layer.

python experiments/why_low.py checkpoints/network.safetensors --device pcm_like
"""

from pathlib import Path
from typing import Annotated

import matplotlib.pyplot as plt
import tyro

from analog_samson import report
from analog_samson.commands import run_command
from analog_samson.report.style import style
from analog_samson.study import layer_sensitivity, waterfall
from analog_samson.times import YEAR


def main(
    checkpoint: Annotated[Path, tyro.conf.Positional],
    device: str = "pcm_like",
    t_inference_s: float = YEAR,
    folder: Path = Path("results/why_low"),
    chips: int = 3,
    data_folder: Path | None = None,
    n_images: int | None = None,
) -> None:
    """Split the loss of accuracy of a chip into its causes, and into its layers.

    Args:
        checkpoint: Trained network (.safetensors).
        device: Name of a device, or path of a device file.
        t_inference_s: Time since programming finished [s].
        folder: Where waterfall.csv, layers.csv and their figures go.
        chips: Number of chips.
        data_folder: Folder that holds the images.
        n_images: Test images, counted from the first; all by default.
    """
    folder.mkdir(parents=True, exist_ok=True)
    options = {"chips": chips, "data_folder": data_folder, "n_images": n_images}
    stages = waterfall(checkpoint, device, t_inference_s, **options)
    layers = layer_sensitivity(checkpoint, device, t_inference_s, **options)
    for name, rows, draw in (
        ("waterfall", stages, report.waterfall),
        ("layers", layers, report.layer_sensitivity),
    ):
        rows.to_csv(folder / f"{name}.csv", index=False)
        with style("paper"):
            figure, ax = plt.subplots(figsize=(7.0, 3.0), layout="constrained")
            draw(ax, rows)
            print(*report.save(figure, folder / name), sep="\n")
    print(stages.groupby("stage", sort=False)["accuracy"].mean().to_markdown())
    print(layers.groupby("layer", sort=False)["accuracy"].mean().to_markdown())


if __name__ == "__main__":
    run_command(main)
