"""A small run of benchmarks/coverage.py."""

import importlib.util
import math
import sys

import pytest
from places import ROOT

N_STUDIES = 400


@pytest.fixture(scope="module")
def simulation():
    file = ROOT / "benchmarks" / "coverage.py"
    spec = importlib.util.spec_from_file_location("simulated_coverage", file)
    module = importlib.util.module_from_spec(spec)
    sys.modules["simulated_coverage"] = module
    spec.loader.exec_module(module)
    yield module
    del sys.modules["simulated_coverage"]


@pytest.mark.slow
@pytest.mark.parametrize("crossed", [False, True])
@pytest.mark.parametrize("n_networks", [2, 3, 5])
def test_intervals_cover_and_marks_are_false_in_five_per_cent(simulation, n_networks, crossed):
    """400 studies of four methods, seed 1; 3.3 standard errors, false alarm 5e-4 a claim."""
    cell = simulation.Cell("normal", n_networks, 360, crossed)
    found = simulation.run_cell(cell, N_STUDIES, seed=1)
    if n_networks == 2:  # nothing is tested: run_cell raises otherwise
        assert "star" not in found
        return
    error = math.sqrt(0.05 * 0.95 / N_STUDIES)
    for name in ("mean", "gain", "mean_logit", "gain_logit"):
        assert 0.93 - 3.3 * error < found[name] < 0.975 + 2 * error
    for name in ("star", "bold", "worse", "star_logit", "bold_logit", "worse_logit"):
        assert found[name] < 0.05 + 3.3 * error


@pytest.mark.slow
@pytest.mark.parametrize("n_methods", [2, 3, 8])
def test_pooled_intervals_cover_between_93_and_97_5_per_cent(simulation, n_methods):
    """20,000 studies, seed 1; 3 standard errors of 0.11 (97.5 %) and 0.18 (93 %) points."""
    for shared in (0.0, 0.67):
        found = simulation.run_pooled(n_methods, shared, 20_000, seed=1)
        assert min(found.values()) > 0.93 - 0.0054
        assert found["equal"] < 0.975 + 0.0033


@pytest.mark.slow
def test_studies_of_one_table_are_marked_as_in_tables_of_their_own(simulation):
    cell = simulation.Cell("normal", 3, 360, crossed=False, n_chips=2)
    own, together = simulation.own_tables(cell, 20, seed=9), simulation.run_cell(cell, 20, seed=9)
    assert own == {name: together[name] for name in own}
