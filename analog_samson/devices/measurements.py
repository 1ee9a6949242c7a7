"""Retention measurements of single cells: read, checked, interpolated in log time."""

import functools
import hashlib
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd

from analog_samson.times import LONGEST_S

COLUMNS = ("device", "target_uS", "time_s", "conductance_uS")
"""Columns of a file of measurements."""

LARGEST_uS = 1e6
"""Largest conductance [µS]: that of device files."""

_OTHER_UNIT = 500.0
"""Ratio of conductance and target from which one of them has another unit: our choice."""


def read_measurements(path: str | Path) -> pd.DataFrame:
    """Read a CSV file of retention measurements and check it.

    Args:
        path: File with columns ``COLUMNS``: a name or number of the cell, its target [µS], the time
            since programming [s] and the conductance [µS].

    Returns:
        The measurements, a data frame sorted by cell and time.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it is no CSV file, a column or the name of a cell is missing, a value is not
            a number or out of range, most conductances are far from their targets, or a cell has
            several targets or two values at one time.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"No measurements {path}; give an existing CSV file.")
    try:
        rows = pd.read_csv(path)
    except (pd.errors.ParserError, pd.errors.EmptyDataError, UnicodeDecodeError) as error:
        why = str(error).strip().splitlines()[0]
        raise ValueError(f"{path} is no CSV file ({why}); its columns are {COLUMNS}.") from None
    missing = [column for column in COLUMNS if column not in rows]
    if missing:
        raise ValueError(
            f"{path}: column {missing[0]!r} is missing; it has {', '.join(map(str, rows))} and "
            f"needs {', '.join(COLUMNS)}."
        )
    for column in COLUMNS[1:]:
        numbers = pd.to_numeric(rows[column], errors="coerce")
        largest = LONGEST_S if column == "time_s" else LARGEST_uS
        wrong = rows.index[~((numbers >= 0) & (numbers <= largest))]
        if len(wrong):
            raise ValueError(
                f"{path}, line {wrong[0] + 2}: {column} = {rows.loc[wrong[0], column]}; a number "
                f"from 0 to {largest:g} is needed."
            )
        rows[column] = numbers
    if rows.empty:
        raise ValueError(f"{path} holds no measurements; at least one line is needed.")
    unnamed = rows.index[rows["device"].isna()]
    if len(unnamed):
        raise ValueError(
            f"{path}, line {unnamed[0] + 2}: device is empty; give the name or number of the cell."
        )
    both = rows[(rows["target_uS"] > 0) & (rows["conductance_uS"] > 0)]
    ratio = float((both["conductance_uS"] / both["target_uS"]).median())
    if not both.empty and not 1 / _OTHER_UNIT < ratio < _OTHER_UNIT:
        raise ValueError(
            f"{path}: conductances are about {ratio:.2g} of their targets; give both in µS."
        )
    several = rows.groupby("device")["target_uS"].nunique()
    if (several > 1).any():
        raise ValueError(f"{path}: device {several.idxmax()!r} has more than one target; give one.")
    twice = rows[rows.duplicated(["device", "time_s"])]
    if len(twice):
        raise ValueError(
            f"{path}, line {twice.index[0] + 2}: device {twice['device'].iloc[0]!r} has two "
            f"conductances at {twice['time_s'].iloc[0]:g} s; give one."
        )
    return rows[list(COLUMNS)].sort_values(["device", "time_s"], ignore_index=True)


@dataclass(frozen=True, eq=False)
class Trajectories:
    """Trajectories of measured cells, ordered by target.

    Attributes:
        targets_uS: Targets, ascending, shape (targets,).
        counts: Number of cells at each.
        first_s: Earliest time at which every cell was measured [s].
        last_s: Latest time at which every cell was measured [s].
        curves: For every cell, times [s] and conductances [µS].
    """

    targets_uS: np.ndarray
    counts: np.ndarray
    first_s: float
    last_s: float
    curves: tuple[tuple[np.ndarray, np.ndarray], ...]
    _known: dict[float, np.ndarray] = field(default_factory=dict)

    def at(self, t_s: float) -> np.ndarray:
        """Conductances of all cells [µS], interpolated linearly in ln(1 + t).

        Before the first and after the last measurement the conductance is constant.
        """
        if t_s not in self._known:
            self._known[t_s] = np.array(
                [np.interp(np.log1p(t_s), np.log1p(times), g) for times, g in self.curves]
            )
        return self._known[t_s]


def load_trajectories(path: str | Path, sha256: str) -> Trajectories:
    """Read measurements, cached in the process.

    Args:
        path: As for :func:`read_measurements`.
        sha256: Digest that the file must have.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If the file has changed, or as :func:`read_measurements`.
    """
    return _load_trajectories(str(Path(path).absolute()), sha256)


@functools.lru_cache(maxsize=8)
def _load_trajectories(path: str, sha256: str) -> Trajectories:
    found = digest_of(path)
    if found != sha256:
        raise ValueError(
            f"{path} has changed: its SHA-256 is {found}, and the device was made with {sha256}; "
            "give the file it was made with, or load the device again."
        )
    rows = read_measurements(path)
    devices = [one for _, one in rows.sort_values(["target_uS", "device", "time_s"], kind="stable")
               .groupby(["target_uS", "device"])]  # fmt: skip
    targets, counts = np.unique([one["target_uS"].iloc[0] for one in devices], return_counts=True)
    return Trajectories(
        targets_uS=targets,
        counts=counts,
        first_s=max(float(one["time_s"].min()) for one in devices),
        last_s=min(float(one["time_s"].max()) for one in devices),
        curves=tuple(
            (one["time_s"].to_numpy(dtype=float), one["conductance_uS"].to_numpy(dtype=float))
            for one in devices
        ),
    )


def digest_of(path: str | Path) -> str:
    """SHA-256 of a file's content.

    Raises:
        FileNotFoundError: If there is no such file.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"No measurements {path}; give an existing CSV file.")
    return hashlib.sha256(path.read_bytes()).hexdigest()
