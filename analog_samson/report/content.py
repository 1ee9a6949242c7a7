"""Content of a report: rows of trials, the files beside them, and their summaries."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, TypedDict

import pandas as pd

from analog_samson import results
from analog_samson.deprecated import warn_renamed
from analog_samson.report import words
from analog_samson.report.methods import task_names
from analog_samson.report.nominal import nominal_values
from analog_samson.results.checking import csv_in
from analog_samson.results.scale import Scale
from analog_samson.results.scores import Score, score_of
from analog_samson.results.variants import TASK


class Look(TypedDict):
    """How a figure is drawn: its width, and the name of its style sheet."""

    width: str | float
    look: str


class OverTime(Look):
    """How a figure over time is drawn."""

    programmed: bool
    same_times: bool


BASELINE = "sgd"
"""Default baseline; studies without it have no gains."""


@dataclass(frozen=True, eq=False)
class Content:
    """The data of one or several studies, and the options of their report.

    Every summary is computed at its first use and kept.

    Attributes:
        rows: Rows of ``trials.csv``.
        folders: Folders of the studies, for the files beside ``trials.csv``; may be empty.
        n_classes: Classes of each data set; None reads the manifests in the folders.
        baseline: Method that gains are counted from; without the default one there are no gains.
        confidence: Probability with which intervals cover.
        bootstrap: Whether intervals of the accuracy come from a bootstrap over networks.
        half_width: Target half-width of the planning table, as a fraction; None: no such table.
        scale: Scale of means, gains and tests: "auto", "accuracy" or "logit" (see
            `results.scales_of`).
        target: Accuracy that chips must reach for the yield, as a fraction, or another score as it
            is shown (5.9 is a perplexity); None takes `results.default_targets`.
        interval: "bars" or "band", over time.
        width: "one column", "two columns" or inches.
        look: "paper", "talk" or the path of a style sheet (.mplstyle).
        programmed: Whether figures over time show the programmed state (t = 0), too.
        same_times: Whether all panels of a figure have one time axis.
        overlay: What is laid over each other on one axes, in a figure of its own: columns such as
            "compensation", "device" and "study".

    Example:
        >>> content = Content(rows, target=0.8)
        >>> len(content.summary), len(content.gains)  # (2 methods, 1 gain) x 3 times
        (6, 3)
    """

    rows: pd.DataFrame
    folders: Sequence[Path] = ()
    n_classes: Mapping[str, int] | None = None
    baseline: str = BASELINE
    confidence: float = 0.95
    bootstrap: bool = False
    half_width: float | None = None
    scale: Scale = "auto"
    target: float | None = None
    interval: str = "bars"
    width: str | float = "two columns"
    look: str = "paper"
    programmed: bool = False
    same_times: bool = False
    overlay: Sequence[str] = ()

    def __post_init__(self) -> None:
        """Check the baseline.

        Raises:
            ValueError: If there are several methods, and another baseline than the default is not
                among them or is there in several strengths.
        """
        if self.baseline != BASELINE and self.rows["method"].nunique() > 1:
            results.comparison.baseline_name(self.rows, self.baseline)

    @property
    def trials(self) -> pd.DataFrame:
        """Old name of ``rows``."""
        warn_renamed("report.Content.trials", "report.Content.rows")
        return self.rows

    @property
    def how(self) -> Look:
        """Arguments that every function of a figure takes."""
        return {"width": self.width, "look": self.look}

    @property
    def over_time(self) -> OverTime:
        """Arguments that every function of a figure over time takes."""
        shown: OverTime = {**self.how, "programmed": self.programmed, "same_times": self.same_times}
        return shown

    @cached_property
    def score(self) -> Score:
        """The score of the rows."""
        return score_of(self.rows)

    @cached_property
    def manifests(self) -> list[dict[str, Any]]:
        """Contents of ``manifest.json`` of each folder; empty if there is none."""
        return [_manifest(folder) for folder in self.folders]

    @cached_property
    def known_classes(self) -> Mapping[str, int]:
        """Classes of each data set, where they are known."""
        if self.n_classes is None:
            return results.known_classes(self.manifests)
        return self.n_classes

    @cached_property
    def datasets_without_classes(self) -> list[str]:
        """Data sets whose number of classes is not known."""
        return sorted(set(self.rows["dataset"]) - set(self.known_classes))

    @cached_property
    def guessing(self) -> list[str]:
        """Digital networks that are no better than guessing."""
        return results.no_better_than_guessing(self.rows, self.known_classes)

    @cached_property
    def chips(self) -> pd.DataFrame:
        """Reads averaged: one row per chip and time."""
        return results.chip_means(self.rows)

    @cached_property
    def networks(self) -> pd.DataFrame:
        """Chips averaged: one row per network and time."""
        return results.network_means(self.chips)

    @cached_property
    def names(self) -> Mapping[str, str]:
        """Method with its strength of each network, by its ``checkpoint``."""
        names = words.method_names(self.chips)
        return dict(zip(self.chips["checkpoint"], names, strict=True))

    @cached_property
    def tasks(self) -> Mapping[str, tuple[str, str]]:
        """Data set and model of each network, by its ``checkpoint``."""
        first = self.chips.drop_duplicates("checkpoint").astype(dict.fromkeys(TASK, str))
        tasks = zip(first["dataset"], first["model"], strict=True)
        return dict(zip(first["checkpoint"], tasks, strict=True))

    def by_task(self, rows: pd.DataFrame) -> dict[str, pd.DataFrame]:
        """Rows of each data set and model apart, where the networks are of several.

        Args:
            rows: Rows with the ``checkpoint`` of their network, as beside ``trials.csv``.

        Returns:
            Task in words to its rows; all rows under "" where the study is of one task, and those
            of networks that it does not have.
        """
        names = task_names(self.tasks.values())
        if len(names) < 2:
            return {"": rows}
        of_network = {checkpoint: names[task] for checkpoint, task in self.tasks.items()}
        called = rows["checkpoint"].map(of_network).fillna("")
        return {str(name): own for name, own in rows.groupby(called, sort=True)}

    @cached_property
    def summary(self) -> pd.DataFrame:
        """Accuracy of every group of rows."""
        return results.summarise(
            self.chips, self.confidence, bootstrap=self.bootstrap, scale=self.scales
        )

    @cached_property
    def laid_over(self) -> pd.DataFrame:
        """The summary for `overlay`; where studies are laid over each other, one of each."""
        if "study" not in self.overlay:
            return self.summary
        parts = [
            results.summarise(
                own, self.confidence, bootstrap=self.bootstrap, scale=self.scales
            ).assign(study=study)
            for study, own in self.rows.groupby("study", observed=True, sort=False)
        ]
        return pd.concat(parts, ignore_index=True)

    @cached_property
    def scales(self) -> dict[str, str]:
        """The scale of means, gains and tests of each data set."""
        return results.scales_of(self.chips, self.scale)

    @cached_property
    def primary_endpoints(self) -> list[dict[str, Any]]:
        """Primary endpoints of the studies, in the order in which they were named."""
        return [one for found in self.manifests for one in found.get("primary_endpoints", [])]

    @cached_property
    def primary(self) -> dict[str, Any] | None:
        """The primary endpoint, the first that was named; None where its baseline is not used."""
        if not self.primary_endpoints:
            return None
        first = self.primary_endpoints[0]
        try:
            named, used = (
                results.comparison.baseline_name(self.rows, one)
                for one in (first["baseline"], self.baseline)
            )
        except ValueError:
            return None
        return first if named == used else None

    @cached_property
    def lost(self) -> pd.DataFrame:
        """Accuracy that every group of rows has lost since the digital network."""
        return results.lost(self.chips, self.confidence, scale=self.scales)

    @property
    def table_target(self) -> float | None:
        """The target in the unit of the table of trials; None: the default."""
        return None if self.target is None else self.score.in_table(self.target)

    @cached_property
    def targets(self) -> dict[tuple[str, str], float]:
        """The target of each data set and model; the digital networks of others give none."""
        if self.table_target is not None:
            return dict.fromkeys(sorted(set(self.tasks.values())), self.table_target)
        lowest, highest = self.score.limits
        found = results.default_targets(self.chips)
        return {task: target for task, target in found.items() if lowest < target < highest}

    @cached_property
    def yields(self) -> pd.DataFrame:
        """Share of chips that reach the target; empty where the digital networks give none."""
        if not self.targets:
            return pd.DataFrame()
        return results.yields(self.chips, self.targets, self.confidence)

    @cached_property
    def best(self) -> pd.DataFrame:
        """Which method is the best among those compared."""
        return results.best_methods(self.chips, self.confidence, scale=self.scales)

    @cached_property
    def gains(self) -> pd.DataFrame:
        """Paired gains over the baseline; no rows where the baseline was not simulated."""
        return self._compared("gain")

    @cached_property
    def saved(self) -> pd.DataFrame:
        """How much less each method loses than the baseline, on the same chips."""
        return self._compared("lost")

    def _compared(self, endpoint: str) -> pd.DataFrame:
        if self.baseline not in {*self.names.values(), *self.rows["method"]}:
            return pd.DataFrame()
        return results.paired_gain(
            self.chips,
            self.baseline,
            self.confidence,
            endpoint=endpoint,
            scale=self.scales,
            primary=self.primary,
        )

    def nominal(self, device: str, axis: str) -> float | str | None:
        """A device's own value of a swept setting, by manifest or package; None: not known."""
        value = nominal_values(self.manifests, device, [axis]).get(axis)
        return value if isinstance(value, int | float | str) else None

    @cached_property
    def ageing(self) -> pd.DataFrame:
        """Chips whose cells keep their state over time."""
        return self.chips[results.has_trajectories(self.chips)]

    @cached_property
    def without_lifetime(self) -> list[str]:
        """Networks of a digital score of 0, of which no share can be lost."""
        if self.score.is_exponential or not self.score.has_relative_losses:
            return []
        return sorted(set(self.chips.loc[self.chips[self.score.digital] == 0, "checkpoint"]))

    @cached_property
    def lives(self) -> list[pd.DataFrame]:
        """Lifetimes, a frame for each of the score's losses."""
        chips = self.ageing[~self.ageing["checkpoint"].isin(self.without_lifetime)]
        losses = self.score.losses
        return [results.lifetime(chips, loss, confidence=self.confidence) for loss in losses]

    def beside(self, name: str) -> pd.DataFrame:
        """Rows of the CSV files of a name that lie beside ``trials.csv``.

        Args:
            name: File name, such as "waterfall.csv".

        Returns:
            The rows of all folders, each once.

        Raises:
            FileNotFoundError: If no folder has the file.
        """
        files = self.files(name)
        if not files:
            folders = ", ".join(map(str, self.folders)) or "no folder"
            raise FileNotFoundError(
                f"There is no {name!r} beside the table ({folders}); an item that needs it is "
                f"declared with Item(..., needs=({name!r},))."
            )
        found = [pd.read_csv(file) for file in files]
        return pd.concat(found, ignore_index=True).drop_duplicates()

    def files(self, name: str) -> list[Path]:
        """Files of a name, or their compressed copies, in the folders of the studies."""
        return [file for folder in self.folders if (file := csv_in(Path(folder), name))]


def _manifest(folder: Path) -> dict[str, Any]:
    file = Path(folder) / "manifest.json"
    if not file.is_file():
        return {}
    content = json.loads(file.read_text(encoding="utf-8"))
    return content if isinstance(content, dict) else {}
