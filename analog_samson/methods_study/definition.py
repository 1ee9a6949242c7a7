"""What a study of methods trains, from its protocol."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from analog_samson.checkpoint import TrainingSpec
from analog_samson.data import path_in
from analog_samson.results.checking import read_text_table
from analog_samson.study import Study, load_study
from analog_samson.training import (
    OWN_PACKAGE,
    PROTOCOL_FILE,
    grid,
    grid_seeds,
    load_protocol,
    methods_in,
)

NEEDED = ("seeds", "kept_seeds", "noise_sigma", "noise_draws", "common", "methods")
"""Keys of the protocol that every study of methods needs."""

EVALUATED_WITH = ("sharpness_images", "training_images")
"""Keys of the protocol that `evaluate` takes."""

CANDIDATES, STRENGTHS, NETWORKS = "candidates.csv", "strengths.csv", "networks.csv"
"""Tables of the grid search, of the strengths that it chose, and of the trained networks."""

Training = tuple[str, TrainingSpec]
"""A method's name in the protocol (the variant), and one training of it."""

Key = tuple[str, str, str]
"""What identifies a training in a table: variant, strength, training seed."""


def _silent(message: str) -> None:
    """Say nothing."""


def key_of(variant: str, spec: TrainingSpec) -> Key:
    """What identifies a training in a table."""
    return variant, spec.strength, str(spec.seed)


@dataclass(frozen=True)
class MethodsStudy:
    """A study of methods.

    Args:
        folder: Its folder, with ``protocol.toml``.
        protocol: The content of that file.
        networks: Where networks and unfinished trainings are, in a folder for each variant.
        data_folder: Folder that holds the data sets.
        trust: Packages that networks, methods, data and scores may be imported from.
        evaluated_with: Keys of the protocol that the evaluation takes, which may not change.
        say: Told, in a sentence, what has been trained and for whom is waited; default: silent.

    Example:
        >>> text = '''
        ... seeds = [0]
        ... kept_seeds = []
        ... noise_sigma = 0.1
        ... noise_draws = 1
        ... common = {dataset = "digits", model = "mlp", epochs = 1}
        ... methods = {sgd = "sgd", sam = "sam:rho=0.05"}
        ... '''
        >>> n_written = Path("protocol.toml").write_text(text)
        >>> study = MethodsStudy.load(Path(), needed=())
        >>> [(variant, spec.strength, spec.seed) for variant, spec in study.trainings()]
        [('sgd', '', 0), ('sam', 'rho=0.05', 0)]
    """

    folder: Path
    protocol: Mapping[str, Any]
    networks: Path
    data_folder: Path | None = None
    trust: tuple[str, ...] = ()
    evaluated_with: tuple[str, ...] = EVALUATED_WITH
    say: Callable[[str], None] = _silent

    @classmethod
    def load(
        cls,
        folder: Path,
        networks: Path = Path("checkpoints"),
        data_folder: Path | None = None,
        trust: Sequence[str] = (),
        *,
        needed: Collection[str] = ("studies", "sharpness_images"),
        evaluated_with: Sequence[str] = EVALUATED_WITH,
        say: Callable[[str], None] = _silent,
    ) -> MethodsStudy:
        """Read the protocol of a study.

        Args:
            folder: Folder of the study, with ``protocol.toml``.
            networks: Folder of all studies' networks; those of this one are in a folder in it.
            data_folder: See the class.
            trust: Packages besides this one.
            needed: Keys that its protocol must have besides `NEEDED`.
            evaluated_with: See the class.
            say: See the class.

        Raises:
            FileNotFoundError: If there is no protocol.
            ValueError: If it is wrong, as `load_protocol` says.
        """
        return cls(
            folder,
            load_protocol(folder, [*NEEDED, *needed], trust),
            networks / folder.resolve().name,
            data_folder,
            (OWN_PACKAGE, *trust),
            tuple(evaluated_with),
            say,
        )

    @property
    def has_grid(self) -> bool:
        """Whether strengths are chosen; otherwise every strength is trained on every seed."""
        return "grid_seed" in self.protocol

    @property
    def evaluation_settings(self) -> dict[str, Any]:
        """What the evaluation takes of the protocol."""
        return {key: self.protocol[key] for key in self.evaluated_with if key in self.protocol}

    def studies(self) -> dict[str, Study]:
        """The studies that networks are evaluated in, without networks, by their file's name.

        Raises:
            FileNotFoundError: If a study file is missing.
            ValueError: If one cannot be read.
        """
        names = self.protocol.get("studies", [])
        return {name: load_study(self.folder / name, self.trust, checkpoints=[]) for name in names}

    def methods_in(self, study: str) -> Collection[str]:
        """The variants that are evaluated in a study, by its file's name."""
        return methods_in(self.protocol, study)

    def candidates(self) -> list[Training]:
        """Every strength of every method, for the grid's epochs, with the grid's seeds."""
        protocol = self.protocol
        return [
            one for seed in grid_seeds(protocol) for one in self._of(seed, protocol["grid_epochs"])
        ]

    def trainings(self) -> list[Training]:
        """Every strength of every method, seed by seed, without a choice."""
        epochs = self.protocol["common"]["epochs"]
        return [one for seed in self.protocol["seeds"] for one in self._of(seed, epochs)]

    def chosen(self) -> list[Training]:
        """The trainings with the strengths that were chosen; all, if none were.

        Raises:
            ValueError: If a method has no strength that was chosen.
        """
        table = self.folder / STRENGTHS
        if not table.exists():
            return self.trainings()
        rows = read_text_table(table, ["variant", "strength"])
        strengths = dict(zip(rows["variant"], rows["strength"], strict=True))
        wanted = [one for one in self.trainings() if one[1].strength == strengths.get(one[0])]
        if missing := sorted(set(self.protocol["methods"]) - {variant for variant, _ in wanted}):
            raise ValueError(
                f"{table}: no strength of {missing} that {PROTOCOL_FILE} has; restore "
                f"{PROTOCOL_FILE}, or remove {table.name} to choose again."
            )
        return wanted

    def first_of(self, variant: str, seed: int) -> TrainingSpec:
        """The training of a network that others start from, which has one strength."""
        (spec,) = grid([self.protocol["methods"][variant]], [seed], self._common())
        return spec

    def claim_of(self, variant: str, spec: TrainingSpec) -> Path:
        """The file that a process holds while it trains a network."""
        return self.folder / f"{variant}-{spec.file_stem}"

    def _of(self, seed: int, epochs: int) -> list[Training]:
        common = self._common() | {"epochs": epochs}
        return [
            (variant, spec)
            for variant, text in self.protocol["methods"].items()
            for spec in grid([text], [seed], common | self._start_of(variant, seed))
        ]

    def _common(self) -> dict[str, Any]:
        common = dict(self.protocol["common"])
        if "dataset" in common:
            common["dataset"] = path_in(common["dataset"], self.data_folder)
        return common

    def _start_of(self, variant: str, seed: int) -> dict[str, str]:
        """The network that a training starts from, which is trained in full even for the grid."""
        first = self.protocol.get("start_from", {}).get(variant)
        if first is None:
            return {}
        stem = self.first_of(first, seed).file_stem
        return {"start_from": str(self.networks / first / f"{stem}.safetensors")}
