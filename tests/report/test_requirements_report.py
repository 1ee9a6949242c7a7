"""Claims about the table and the figure of requirements."""

import math

import pandas as pd
import pytest
from matplotlib.figure import Figure
from simulated_losses import rows_of

from analog_samson.report import requirements_figure, requirements_table, write_requirements

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
    assert lines["SAMSON"]["relative to SGD"] == "1.60 (1.60 to 1.60)"
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
    assert "falls from drift, SAMSON: 4 to 16" in made.caption
    below = rows_of({"sgd": [1 / 16]}, {"sgd": "below"})
    assert requirements_table(below).blocks[0].cells["scale at 1 d"][0] == "< 1/16"


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
