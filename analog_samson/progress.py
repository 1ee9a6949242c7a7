"""How far a study is: a bar or lines in a log, and a file that ``analog-samson status`` reads."""

import dataclasses
import json
import platform
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

import pandas as pd
from tqdm.auto import tqdm

from analog_samson.files import replacing
from analog_samson.locks import is_in_use
from analog_samson.results import estimated_score, read_trials, score_of
from analog_samson.results.comparison import method_names
from analog_samson.times import duration, label

SAVED_EVERY_S = 5.0
"""Shortest time between two versions of the file [s]: our choice."""

LOGGED_EVERY_S = 60.0
"""Time between two lines where there is no terminal [s]: our choice."""


WHERE = ("dataset", "model", "device", "compensation", "condition")
"""Columns that tell apart what is not averaged; shown where they differ."""


@dataclass(frozen=True)
class Progress:
    """How far one process is with a study, or with its part of it.

    Attributes:
        study: Name of the study.
        table: File name of the table that it appends to.
        n_points: Points that it is responsible for.
        n_there: How many of them were there when it began.
        n_done: How many it has computed.
        seconds: Time since it began [s].
        ended: How it ended, "" while it runs.
        host: Name of its machine.
    """

    study: str
    table: str
    n_points: int
    n_there: int
    n_done: int
    seconds: float
    ended: str = ""
    host: str = ""

    @property
    def points_per_s(self) -> float:
        """Mean speed [points/s]; 0 before the first point."""
        return self.n_done / self.seconds if self.seconds > 0 else 0.0

    def __str__(self) -> str:
        """One line: points done, speed, time left."""
        done, left = self.n_there + self.n_done, self.n_points - self.n_there - self.n_done
        text = f"{done} of {self.n_points} points ({done / max(1, self.n_points):.0%})"
        if self.n_done:
            text += f", {self.points_per_s:.3g} points/s"
        if self.n_done and left and not self.ended:
            text += f", {duration(left / self.points_per_s)} left"
        return text


class Watch:
    """Reports the progress of a process that computes points of a study.

    Args:
        study: Name of the study.
        table: The table that it appends to.
        n_points: Points that it is responsible for.
        n_pending: How many of them are not there yet.
        is_shown: Whether progress is shown: a bar in a terminal or notebook, and otherwise one
            line a minute on the standard error.
    """

    def __init__(
        self, study: str, table: Path, n_points: int, n_pending: int, *, is_shown: bool
    ) -> None:
        self._path = progress_file(table)
        self._now = Progress(
            study, table.name, n_points, n_points - n_pending, 0, 0.0, host=platform.node()
        )
        self._is_logged = is_shown and not _has_display()
        self._bar = tqdm(
            total=n_points,
            initial=n_points - n_pending,
            desc=study,
            unit="point",
            mininterval=1.0,
            disable=not is_shown or self._is_logged,
        )
        self._started = self._saved = self._logged = time.monotonic()

    def __enter__(self) -> Self:
        self._save()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._bar.close()
        self._count(0, ended="finished" if kind is None else "interrupted")
        self._save()
        if self._is_logged:
            self._log()

    def add(self, lines: str) -> None:
        """Count finished points and report them now and then.

        Args:
            lines: Rows as ``results.as_lines`` gives them.
        """
        n_points = lines.count("\n")
        self._count(n_points)
        self._bar.update(n_points)
        now = time.monotonic()
        if now - self._saved >= SAVED_EVERY_S:
            self._saved = now
            self._save()
        if self._is_logged and now - self._logged >= LOGGED_EVERY_S:
            self._logged = now
            self._log()

    def _count(self, n_points: int, ended: str = "") -> None:
        self._now = dataclasses.replace(
            self._now,
            n_done=self._now.n_done + n_points,
            seconds=time.monotonic() - self._started,
            ended=ended,
        )

    def _save(self) -> None:
        with replacing(self._path) as temporary:
            content = json.dumps(dataclasses.asdict(self._now), indent=1)
            temporary.write_text(content + "\n", encoding="utf-8")

    def _log(self) -> None:
        sys.stderr.write(f"{self._now.study}: {self._now}\n")
        sys.stderr.flush()


def progress_file(table: Path) -> Path:
    """The file of the progress of the process that appends to a table of trials."""
    return table.with_name(table.name.replace("trials", "progress", 1)).with_suffix(".json")


def status(folder: str | Path) -> str:
    """What a study has computed so far, here or on another machine.

    Args:
        folder: Folder of the study.

    Returns:
        A line a process, and the means of each method so far, in which nothing is tested.

    Raises:
        FileNotFoundError: If the folder holds no table of trials.
        ValueError: If a table is damaged.
    """
    folder = Path(folder)
    rows = read_trials(folder)
    lines = [_line(path) for path in sorted(folder.glob("progress*.json"))]
    n_chips = rows["chip_id"].nunique()
    lines.append(f"{folder}: {len(rows)} points of {n_chips} chips are there.")
    return "\n".join([*lines, "", means_so_far(rows).to_string(index=False)])


def means_so_far(rows: pd.DataFrame) -> pd.DataFrame:
    """Mean score of every method over its chips and networks, without intervals or tests.

    Args:
        rows: Rows of a table of trials.

    Returns:
        Columns of `WHERE` with more than one value, ``time``, ``method``, the score with its unit,
        ``n_networks``, ``n_chips``.
    """
    score = score_of(rows)
    shown = f"{score.label} [{score.unit}]" if score.unit else score.label
    found = (
        rows.assign(method=method_names(rows), value=estimated_score(rows))
        .groupby([*WHERE, "t_inference_s", "method"], as_index=False)
        .agg(
            value=("value", "mean"),
            n_networks=("checkpoint", "nunique"),
            n_chips=("chip_id", "nunique"),
        )
    )
    found[shown] = score.shown(found["value"]).round(3)
    found["time"] = found["t_inference_s"].map(label)
    where = [name for name in WHERE if found[name].nunique() > 1]
    return found[[*where, "time", "method", shown, "n_networks", "n_chips"]]


def _line(path: Path) -> str:
    try:
        now = Progress(**json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        return f"{path}: damaged; it is written anew when the study goes on."
    state = now.ended
    if not state:
        is_running = is_in_use(path.with_name(now.table))
        age = duration(max(1.0, round(time.time() - path.stat().st_mtime)))
        state = f"runs on {now.host}" if is_running else f"stopped on {now.host}, {age} ago"
    return f"{path.with_name(now.table)}: {state}, {now}"


def _has_display() -> bool:
    """Whether a progress bar can be drawn: in a terminal or a notebook."""
    return sys.stderr.isatty() or "ipykernel" in sys.modules
