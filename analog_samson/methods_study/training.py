"""One training of a study of methods."""

from pathlib import Path
from typing import Any

from analog_samson.checkpoint import TrainingSpec
from analog_samson.methods_study.definition import MethodsStudy
from analog_samson.methods_study.tables import waited_for
from analog_samson.training import GRID_COLUMNS, DivergedError, train, train_grid
from analog_samson.training.loop import dataset_of


def train_and_validate(
    study: MethodsStudy, spec: TrainingSpec, folder: Path, *, noise_draws: int | None = None
) -> dict[str, Any]:
    """Train a network, and measure it on validation samples under generic weight noise.

    Args:
        study: The study; its protocol has the standard deviation of the noise.
        spec: The training.
        folder: Folder of its variant's networks.
        noise_draws: Number of draws of the noise; the protocol's by default.

    Returns:
        Its row, with `GRID_COLUMNS`; a training that diverged has a ``failure``.
    """
    if spec.start_from is not None:
        first = Path(spec.start_from).parent
        start = study.first_of(first.name, spec.seed)
        try:
            with waited_for(study.claim_of(first.name, start), study.say):
                train(start, first, data_folder=study.data_folder, trust=study.trust)
        except DivergedError as error:
            return _not_started(study, spec, f"The network to start from: {error}")
    table = train_grid(
        [spec],
        folder,
        noise_sigma=study.protocol["noise_sigma"],
        noise_draws=noise_draws or study.protocol["noise_draws"],
        data_folder=study.data_folder,
        trust=study.trust,
    )
    return dict(table.iloc[0])


def _not_started(study: MethodsStudy, spec: TrainingSpec, failure: str) -> dict[str, Any]:
    """Row of a training whose first network diverged."""
    known = {
        "dataset": dataset_of(spec.dataset, study.data_folder, spec.validation_fraction).name,
        "model": spec.model,
        "method": spec.method,
        "strength": spec.strength,
        "training_seed": spec.seed,
        "failure": failure,
    }
    return dict.fromkeys(GRID_COLUMNS, "") | known
