"""Tables and figures of a stored study stay as they were looked at.

`PYTHONPATH=tests python tests/report/test_golden.py` writes them anew; look at every one before
committing it.
"""

import dataclasses

import matplotlib
import numpy as np
import pandas as pd
import pytest
from matplotlib.image import imread
from places import GOLDEN
from synthetic_trials import make_trials

from analog_samson.report import accuracy_figure, study_figures, study_tables, write_tables
from analog_samson.results import append_rows, read_trials, summarise
from analog_samson.times import DAY

CLASSES = {"digits": 10}
TABLES = ("accuracy", "gain", "lost", "saved", "yield", "lifetime", "iso_accuracy")
FIGURES = (
    "accuracy",
    "gain",
    "lost",
    "saved",
    "yield",
    "lifetime",
    "chips",
    "strips",
    "scatter",
)
DRAWN_WITH = "3.11"
"""Version of matplotlib that drew the stored figures; others place letters differently."""

DPI = 80
ALLOWED = 0.003
"""Root mean square difference: a pixel of an anti-aliased edge may differ between processors; a
moved point or one letter more makes several times as much."""


@pytest.fixture(scope="module")
def trials():
    return read_trials(GOLDEN / "trials.csv")


@pytest.fixture(scope="module")
def tables(trials):
    return study_tables(trials, n_classes=CLASSES)


@pytest.mark.parametrize("stem", TABLES)
def test_tables_are_the_stored_bytes(tables, stem):
    written = {"md": tables[stem].markdown, "tex": tables[stem].latex, "csv": tables[stem].csv}
    for ending, text in written.items():
        assert text().encode() == (GOLDEN / f"{stem}.{ending}").read_bytes()


def test_other_last_bits_give_the_same_bytes(tables):
    for stored in tables.values():
        numbers = stored.data.select_dtypes("floating")
        shaken = numbers * (1 + 2e-15) + 1e-17
        other = dataclasses.replace(stored, data=stored.data.assign(**shaken))
        assert other.csv() == stored.csv()


def difference(new, old):
    """Root mean square over the pixels of two images of one size, in [0, 1]."""
    assert new.shape == old.shape
    return np.sqrt(np.mean((new - old) ** 2))


pinned = pytest.mark.skipif(
    not matplotlib.__version__.startswith(DRAWN_WITH),
    reason=f"the stored figures were drawn with matplotlib {DRAWN_WITH}",
)


@pytest.mark.slow
@pinned
def test_figures_look_as_stored(trials, tmp_path):
    drawn = study_figures(trials)
    for stem in FIGURES:
        drawn[stem].savefig(tmp_path / f"{stem}.png", dpi=DPI)
        new, old = imread(tmp_path / f"{stem}.png"), imread(GOLDEN / f"{stem}.png")
        assert difference(new, old) < ALLOWED, stem


@pytest.mark.slow
@pinned
def test_a_moved_point_or_another_word_does_not_look_as_stored(trials, tmp_path):
    stored = imread(GOLDEN / "accuracy.png")
    rows = summarise(trials)
    leader = (rows["method"] == "samson") & (rows["t_inference_s"] == DAY)
    moved = rows["accuracy"].where(~leader, rows["accuracy"] - 0.003)
    for other in (
        accuracy_figure(rows.assign(accuracy=moved)),
        accuracy_figure(rows.assign(dataset="digit")),
    ):
        other.savefig(tmp_path / "other.png", dpi=DPI)
        assert difference(imread(tmp_path / "other.png"), stored) > ALLOWED


def rewrite() -> None:
    """Write the stored study, its tables and its figures anew."""
    wan = make_trials(
        {"sgd": 0.90, "samson rho=0.5": 0.95, "rwp sigma=0.02": 0.948},
        seed=2,
        n_networks=4,
        n_chips=4,
        device="reram_wan2022",
        times_s=(1.0, DAY, 2 * DAY),
        measured_to_s=1e9,
        n_images_per_chip=10_000,
    )
    pcm = make_trials(
        {"sgd": 0.90, "samson rho=0.5": 0.95, "rwp sigma=0.02": 0.92, "external": 0.91},
        seed=1,
        n_networks=3,
        n_chips=4,
        n_reads=2,
        std_reads=0.002,
        n_images_per_chip=10_000,
    )
    (GOLDEN / "trials.csv").unlink(missing_ok=True)
    append_rows(pd.concat([wan, pcm]), GOLDEN / "trials.csv")
    trials = read_trials(GOLDEN / "trials.csv")
    tables = study_tables(trials, n_classes=CLASSES)
    write_tables({stem: tables[stem] for stem in TABLES}, GOLDEN)
    for stem, figure in study_figures(trials).items():
        if stem in FIGURES:
            figure.savefig(GOLDEN / f"{stem}.png", dpi=DPI)


if __name__ == "__main__":
    rewrite()
