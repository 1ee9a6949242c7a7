"""Which training methods are robust on analog memory, each at its best strength, on new seeds?

    python experiments/methods_study.py results/mnist-methods

The folder holds `protocol.toml`: methods with candidate strengths, common settings, seeds, and the
studies (TOML files) in which every network is evaluated. First a grid search: every strength, a
fraction of the epochs, a seed (or a list of seeds) that is not used again; the strength with the
best validation accuracy, clean and under generic weight noise, is chosen. Then all methods are
trained seed by seed; a network is evaluated as soon as it is trained. Devices and test images are
not used before `strengths.csv` is written. Without `grid_seed` there is no grid search: every
strength is trained on every seed.

docs/COMMANDS.md has a whole protocol. Finished steps are in the folder and are not repeated, on any
machine; rows that are missing (lost, or of a study that has grown) are computed; `--steps 1` trains
one more network and ends. Started several times, also on machines that share the folder and
`--networks`, the processes train different networks. In `[start_from]`, `samson_tuned = "sgd"`
starts every network of `samson_tuned` from that of `sgd` with the same seed; in `[only]`,
`"../other/study.toml" = ["sgd"]` restricts a study to some methods. Written: `candidates.csv` and
`candidate_curves.csv` (the grid), `strengths.csv` (the chosen strengths), `networks.csv` (trained
networks, with digests), `sharpness.csv`, `training_curves.csv`, `training_images.csv` (chips on
training images), the studies' `trials.csv` and `manifest.json`, and the networks of a few seeds in
`networks/`.
"""

import functools
from pathlib import Path
from typing import Annotated

import tyro

from analog_samson.commands import run_command
from analog_samson.methods_study import MethodsStudy, check_studies, run


def main(
    folder: Annotated[Path, tyro.conf.Positional],
    networks: Path = Path("checkpoints"),
    data_folder: Path | None = None,
    steps: int | None = None,
    trust: tuple[str, ...] = (),
) -> None:
    """Train and evaluate the missing networks of a study of methods.

    Args:
        folder: Folder of the study, with `protocol.toml`.
        networks: Folder for networks and unfinished trainings.
        data_folder: Folder that holds the images.
        steps: Number of networks to train; all by default.
        trust: Packages that networks, methods, data and scores may be imported from.
    """
    say = functools.partial(print, flush=True)  # also where the output is a file
    study = MethodsStudy.load(folder, networks, data_folder, trust, say=say)
    check_studies(study)
    run(study, steps=steps)


if __name__ == "__main__":
    run_command(main)
