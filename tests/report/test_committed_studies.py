"""The committed tables of the studies are those of their committed rows."""

import pytest
from analog_samson.experiments import rerun, thermal_drift
from places import ROOT

from analog_samson.report import check_tables, study_tables, table_texts
from analog_samson.report.methods import described_in
from analog_samson.results import read_trials, tables_in

STUDIES = sorted(
    file.parent.name
    for kind in ("accuracy.md", "cross_entropy.md")
    for file in ROOT.glob(f"results/*/{kind}")
)


@pytest.mark.slow
@pytest.mark.parametrize("name", STUDIES)
def test_tables_come_out_again(name):
    folder = ROOT / "results" / name
    assert tables_in(folder)
    with described_in([folder]):
        _, own = rerun.of_methods(folder, ())
        tables = study_tables(read_trials(folder), folders=[folder]) | own
        texts = table_texts(tables)
    assert len([key for key in texts if (folder / key).exists()]) >= 4
    check_tables(texts, folder)
    if name == "mnist-methods":
        assert {"methods", "noisy_gap"} <= set(tables)


@pytest.mark.slow
def test_the_table_of_the_micro_rings_comes_out_again():
    folder = ROOT / "results" / "microring"
    assert (folder / "micro_rings.md").is_file()
    check_tables(table_texts({thermal_drift.TABLE: thermal_drift.drift_table(folder)}), folder)
