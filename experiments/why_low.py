"""Where is accuracy lost? Stage by stage, layer by layer, cell by cell, converter by converter.

    python experiments/why_low.py checkpoints/network.safetensors --device pcm_like
    python experiments/why_low.py checkpoints/*-seed0.safetensors --folder results/drift

Networks of one method are averaged; methods are drawn side by side. The chips are those of a study
with the same seed. In the folder of a study the figures become part of its report. About ten
seconds per network and chip for LeNet-5 on MNIST.
"""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated

import pandas as pd
import tyro
from matplotlib.figure import Figure

from analog_samson.checkpoint import load_checkpoint
from analog_samson.commands import run_command
from analog_samson.devices import load_device
from analog_samson.files import made_folder, replacing
from analog_samson.report import (
    arrays_figure,
    clipping_figure,
    conductances_figure,
    layers_figure,
    save,
    waterfall_figure,
)
from analog_samson.results import score_of
from analog_samson.study import (
    accuracy_by_layer,
    accuracy_by_stage,
    clipping_counts,
    conductance_counts,
)
from analog_samson.times import seconds

OLD_OPTIONS = {"--n-images": "--n-test"}


def main(
    checkpoints: Annotated[tuple[Path, ...], tyro.conf.Positional],
    device: str = "pcm_like",
    t_inference_s: float | str = "1 y",
    folder: Path = Path("results/why_low"),
    chips: int = 3,
    seed: int = 0,
    data_folder: Path | None = None,
    n_test: int | None = None,
    score: str = "accuracy",
    trust: tuple[str, ...] = (),
) -> None:
    """Break the loss of accuracy of chips down by cause, and by layer.

    Args:
        checkpoints: Trained networks (.safetensors).
        device: Name of a device, or path of a device file.
        t_inference_s: Time since programming finished, in seconds or as "1 h".
        folder: Where waterfall.csv, layers.csv, conductances.csv, clipping.csv and their figures
            go.
        chips: Number of chips of every network.
        seed: Random seed of the study whose chips are used.
        data_folder: Folder that holds the images.
        n_test: Test images, counted from the first; all by default.
        score: What is measured, as in a study.
        trust: Packages that checkpoints and device files may import from.
    """
    if not checkpoints:
        raise ValueError("Give at least one trained network (.safetensors); got none.")
    if chips < 1:
        raise ValueError(f"--chips must be at least 1; got {chips}.")
    made_folder(folder)
    networks = [load_checkpoint(path, trust) for path in checkpoints]
    names = {n.short_digest: f"{n.spec.method} {n.spec.strength}".strip() for n in networks}
    options = {"chips": chips, "seed": seed, "data_folder": data_folder, "n_test": n_test}
    options["score"], time_s = score, seconds(t_inference_s)
    for stem, split, draw in (
        ("waterfall", accuracy_by_stage, waterfall_figure),
        ("layers", accuracy_by_layer, layers_figure),
    ):
        rows = pd.concat([split(n, device, time_s, **options) for n in networks])
        with replacing(folder / f"{stem}.csv") as temporary:
            rows.to_csv(temporary, index=False)
        print(*save(draw(rows, names), folder / stem), sep="\n")
        rows["network"] = rows["checkpoint"].map(names)
        what = "stage" if stem == "waterfall" else "layer"
        value = score_of(rows).column
        table = rows.pivot_table(index=what, columns="network", values=value, sort=False)
        print(table.to_markdown())
    where = {"chips": chips, "seed": seed, "trust": trust}
    on_images = {**where, "data_folder": data_folder, "n_test": n_test}
    loaded = load_device(device, trust)
    if loaded.noise_level == "conductance":
        counts = [conductance_counts(n, loaded, time_s, **where) for n in networks]
        _write(pd.concat(counts), names, folder, {"conductances": conductances_figure})
    if loaded.periphery.has_fixed_ranges:
        clipped = [clipping_counts(n, loaded, time_s, **on_images) for n in networks]
        several = max(one["array"].max() for one in clipped) > 0
        figures = {"clipping": clipping_figure} | ({"arrays": arrays_figure} if several else {})
        _write(pd.concat(clipped), names, folder, figures)


def _write(
    rows: pd.DataFrame,
    names: Mapping[str, str],
    folder: Path,
    figures: Mapping[str, Callable[[pd.DataFrame, Mapping[str, str]], Figure]],
) -> None:
    """Write counts, named as the first figure, and their figures."""
    with replacing(folder / f"{next(iter(figures))}.csv") as temporary:
        rows.to_csv(temporary, index=False)
    for stem, draw in figures.items():
        print(*save(draw(rows, names), folder / stem), sep="\n")


if __name__ == "__main__":
    run_command(main, old_options=OLD_OPTIONS)
