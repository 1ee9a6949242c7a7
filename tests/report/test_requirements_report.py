"""Claims about the table and the figure of requirements."""

import math

import pandas as pd
import pytest
from matplotlib.figure import Figure
from simulated_losses import rows_of

from analog_samson.report import (
    requirements_figure,
    requirements_table,
    write_figures,
    write_requirements,
)
from analog_samson.report.methods import dataset_label

FACTORS = {"sgd": [1.0, 1.25, 0.8], "samson": [1.6, 2.0, 1.28]}


def text_of(figure: Figure) -> str:
    assert figure._supxlabel is not None
    return figure._supxlabel.get_text().replace("\n", " ").replace("\u00a0", " ")


def test_the_table_has_factor_physical_value_and_ratio():
    made = requirements_table(rows_of(FACTORS))
    (block,) = made.blocks
    lines = {line["method"]: line for line in block.cells.to_dict("records")}
    assert lines["SGD"]["scale at 1 d"].startswith("1.00 (0.57")  # 1 exp(-4.303 x 0.2231 / 3^0.5)
    assert lines["SAMSON"]["that is, up to"].startswith("mean drift exponent at 25 µS: 0.0784 (")
    assert lines["SAMSON"]["relative to SGD"] == "1.60 (1.60 to 1.60)*"
    assert "* p < 0.05." in made.caption
    two = requirements_table(rows_of(FACTORS | {"sam": [1.1, 1.3, 0.9]}))
    assert "* p < 0.05 after Holm's correction over the 2 ratios of this table" in two.caption
    assert lines["SGD"]["relative to SGD"] == "1"
    for part in ("1 percentage point", "after 1 d", "95 %", "(3)", "10,000 test", "off"):
        assert part in made.caption
    assert "no trials" not in made.caption
    assert math.isclose(made.data["ratio"].dropna().iloc[0], 1.6)


def test_bounds_and_falls_are_said():
    rows = rows_of(FACTORS | {"sam": [16.0] * 3}, {"sam": "above"})
    rows.loc[rows["method"] == "samson", "falls"] = "4 to 16"
    made = requirements_table(rows)
    lines = {line["method"]: line for line in made.blocks[0].cells.to_dict("records")}
    assert lines["SAM"]["scale at 1 d"] == "> 16"
    assert lines["SAM"]["that is, up to"] == "mean drift exponent at 25 µS: > 0.784"
    assert "was shown to fall from drift, SAMSON: 4 to 16" in made.caption
    below = rows_of({"sgd": [1 / 16]}, {"sgd": "below"})
    assert requirements_table(below).blocks[0].cells["scale at 1 d"][0] == "< 1/16"


def test_a_network_that_may_be_beyond_the_range_makes_the_mean_a_bound():
    """Of an estimate at the last scale, shown tolerable up to 8 only, no more than 8 is claimed."""
    rows = rows_of({"sgd": [4.0, 8.0, 16.0], "sam": [2.0, 4.0, 1.0]})
    rows.loc[rows["factor"] == 16, ["low", "high"]] = 8.0, math.inf
    made = requirements_table(rows)
    lines = {line["method"]: line for line in made.blocks[0].cells.to_dict("records")}
    assert lines["SGD"]["scale at 1 d"] == "> 6.35"  # (4 x 8 x 8)^(1/3)
    assert lines["SAM"]["relative to SGD"] == "< 0.315"  # (2 x 4 x 1)^(1/3) / 6.35
    one = requirements_table(rows[rows["factor"] == 16])
    assert one.blocks[0].cells["scale at 1 d"][0] == "> 8"
    drawn = [line for line in requirements_figure(rows).axes[0].lines if line.get_marker() == ">"]
    assert sorted(float(line.get_xdata()[0]) for line in drawn) == pytest.approx([6.35, 8.0], 1e-3)


def test_what_was_never_shown_is_not_determined():
    rows = rows_of({"sgd": [4.67]})
    rows[["low", "high"]] = 0.0, math.inf
    made = requirements_table(rows)
    assert made.blocks[0].cells["scale at 1 d"][0] == "not determined"
    assert made.blocks[0].cells["that is, up to"][0] == "–"
    assert "Not determined: with so few chips no scale was shown" in made.caption
    assert len(requirements_figure(rows).axes) == 1


def test_an_open_interval_ends_in_an_arrow():
    rows = rows_of({"sgd": [4.0]})
    rows["high"] = math.inf
    marks = {line.get_marker(): line for line in requirements_figure(rows).axes[0].lines}
    assert list(marks[">"].get_xdata()) == [16.0]
    assert "4.00 (3.64 to > 16.0)" in requirements_table(rows).markdown()


def test_two_networks_have_a_ratio_without_a_test():
    rows = rows_of({method: own[:2] for method, own in FACTORS.items()})
    made = requirements_table(rows)
    lines = {line["method"]: line for line in made.blocks[0].cells.to_dict("records")}
    assert lines["SAMSON"]["relative to SGD"] == "1.60"
    assert "Nothing is tested with fewer than 3 pairs" in made.caption
    assert "Holm" not in made.caption


def test_the_caption_names_skewed_losses_and_what_the_device_has():
    rows = rows_of(FACTORS)
    assert "skewed" not in requirements_table(rows).caption
    rows.loc[rows["method"] == "samson", "coefficient_of_variation"] = 1.8
    rows["condition"] = '{"refresh_every": 2592000.0, "temperature_C": 55.0}'
    rows["chips_vary"] = "drift 20 % by chip"
    rows.loc[rows["method"] == "sgd", "missed"] = True
    caption = requirements_table(rows).caption
    for part in (
        "skewed (their coefficient of variation is up to 1.8: drift, SAMSON)",
        "refreshed every 1 mo",
        "temperature [°C] = 55",
        "drift 20 % by chip",
        "other sources alone lose more than that (mean over the first chips of a network): "
        "drift, SGD",
    ):
        assert part in caption
    assert "refreshed every 1 mo" in text_of(requirements_figure(rows))
    assert "skewed" not in requirements_table(rows.assign(share=0.9)).caption


def test_a_kind_of_a_known_data_set_keeps_its_name():
    assert dataset_label("cifar10 (JPEG)") == "CIFAR-10 (JPEG)"
    assert (dataset_label("cifar10"), dataset_label("flowers (a)")) == ("CIFAR-10", "flowers (a)")


def test_tables_of_an_earlier_version_are_read():
    rows = rows_of(FACTORS)
    added = ["coefficient_of_variation", "missed", "condition", "chips_vary"]
    old = requirements_table(rows.drop(columns=added))
    assert old.markdown() == requirements_table(rows).markdown()


def test_yield_and_other_sources_are_said():
    rows = rows_of(FACTORS).assign(share=0.9, others="nominal")
    caption = requirements_table(rows).caption
    assert "90 % of the chips lose" in caption and "other sources are as on the device" in caption


def test_the_programmed_state_and_a_missing_baseline_are_said():
    made = requirements_table(rows_of(FACTORS).assign(t_inference_s=0.0), baseline="asam")
    assert (
        "scale as programmed" in made.blocks[0].cells and "relative to ASAM" not in made.markdown()
    )
    assert "of accuracy as programmed, since the digital" in made.caption
    assert "Not compared: no network was trained by ASAM." in made.caption


@pytest.mark.parametrize("n", [1, 2, 3])
def test_the_figure_names_method_time_n_and_confidence(n):
    rows = rows_of({method: own[:n] for method, own in FACTORS.items()})
    figure = requirements_figure(rows)
    (ax,) = figure.axes
    assert [tick.get_text() for tick in ax.get_yticklabels()] == ["drift"]
    assert ax.get_xscale() == "log"
    assert any(list(line.get_xdata()) == [1.0, 1.0] for line in ax.lines)  # the device
    note = text_of(figure)
    for part in ("after 1 d", "95 %", f"({n})", "10,000 test"):
        assert part in note
    assert ("these networks only" in note) == (n < 3)


def test_files_are_written_whole(tmp_path):
    written = write_requirements(rows_of(FACTORS), tmp_path)
    assert {path.name for path in written} == {
        f"requirements.{ending}" for ending in ("md", "csv", "tex", "pdf", "png")
    }
    data = pd.read_csv(tmp_path / "requirements.csv")
    assert list(data["factor"]) == pytest.approx([1.0, 1.6])
    rows_of(FACTORS).to_csv(tmp_path / "tolerances.csv", index=False)
    again = requirements_table(pd.read_csv(tmp_path / "tolerances.csv"))
    assert again.markdown() == (tmp_path / "requirements.md").read_text()
    with pytest.raises(ValueError, match="no tolerances"):
        write_requirements(rows_of(FACTORS).head(0), tmp_path)


def test_a_figure_for_a_talk_is_written_as_one(tmp_path):
    (tmp_path / "own").mkdir()
    rows = rows_of(FACTORS)
    write_requirements(rows, tmp_path, look="talk")
    figure = requirements_figure(rows, look="talk")
    (own, _) = write_figures(
        {"requirements": figure}, tmp_path / "own", ("png", "pdf"), look="talk"
    )
    (other,) = write_figures({"paper": figure}, tmp_path / "own", ("png",), look="paper")
    written = (tmp_path / "requirements.png").read_bytes()
    assert written == own.read_bytes() != other.read_bytes()
