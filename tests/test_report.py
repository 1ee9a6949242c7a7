import csv
import io

import matplotlib.colors
import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure
from synthetic_trials import make_trials

from analog_samson.report import accuracy_figure, accuracy_vs_time, save, table, write_report
from analog_samson.report.style import METHOD_STYLES, method_style, style
from analog_samson.results import append_rows, best_methods, read_trials, summarise
from analog_samson.times import DAY, HOUR, MONTH, YEAR

METHODS = {"sgd": 0.90, "sam rho=0.05": 0.92, "samson rho=0.5": 0.97, "rwp sigma=0.02": 0.91}


@pytest.fixture(scope="module")
def trials():
    pcm = make_trials(METHODS, seed=1)
    wan = make_trials(
        METHODS, seed=2, device="reram_wan2022", times_s=(1.0, DAY, 2 * DAY), measured_to_s=1e9
    )
    return pd.concat([pcm, wan], ignore_index=True)


@pytest.fixture(scope="module")
def summary(trials):
    return summarise(trials)


# tables


def test_every_cell_is_the_summary_in_per_cent(summary):
    text = table(summary).markdown()
    row = summary.query("device == 'pcm_like' and method == 'sam'").set_index("t_inference_s")
    cell = f"{100 * row.at[HOUR, 'accuracy']:.2f} ± {100 * row.at[HOUR, 'half_width']:.2f}"
    line = next(line for line in text.splitlines() if line.startswith("| sam rho=0.05"))
    assert [part.strip() for part in line.split("|")][6] == cell


def test_the_caption_says_what_the_numbers_rest_on(trials, summary):
    caption = table(summary, best_methods(trials)).caption
    for words in (
        "95 % interval",
        "over trained networks",
        "n = trained networks × chips",
        "compensation global",
        "1 y = 365 d",
        "† beyond the time to which the device was measured",
        "Bold: better than every other",
    ):
        assert words in caption


def test_one_network_is_called_one_network():
    one = summarise(make_trials({"sgd": 0.9}, n_networks=1))
    assert "over chips only: one trained network" in table(one).caption
    assert "1 × 10" in table(one).markdown()


def test_extrapolated_times_carry_a_mark(summary):
    header = table(summary).markdown().splitlines()[4]
    assert "1 mo†" in header
    assert "1 y†" in header
    assert "1 d†" not in header


def test_missing_cells_are_blank_and_said(trials):
    kept = trials[~((trials["method"] == "rwp") & (trials["t_inference_s"] == YEAR))]
    kept = kept[~((kept["method"] == "sam") & (kept["device"] == "reram_wan2022"))]
    finished = table(summarise(kept))
    assert len(finished.blocks[1].cells) == 3
    line = next(row for row in finished.markdown().splitlines() if row.startswith("| rwp"))
    assert line.rstrip(" |").endswith("–")
    assert "– no trials" in finished.caption


def test_an_interrupted_study_is_called_incomplete(trials):
    kept = trials[(trials["training_seed"] < 4) | (trials["chip"] < 3)]
    finished = table(summarise(kept))
    assert "5 × 3–10" in finished.markdown()
    assert "incomplete" in finished.caption


def test_csv_holds_full_precision_fractions(summary):
    read = list(csv.DictReader(io.StringIO(table(summary).csv())))
    assert [float(row["accuracy"]) for row in read] == list(summary["accuracy"])
    assert [float(row["half_width"]) for row in read] == list(summary["half_width"])


def test_latex_escapes_names_and_uses_booktabs_only(trials, summary):
    text = table(summary, best_methods(trials)).latex()
    assert r"pcm\_like" in text
    assert r"\toprule" in text
    assert r"\textbf{" in text
    assert "±" not in text
    assert "†" not in text
    assert text.isascii()


def test_an_empty_summary_is_refused(summary):
    for draw in (table, accuracy_figure):
        with pytest.raises(ValueError, match="summary is empty"):
            draw(summary.iloc[:0])


# figures


def panel(summary, **options):
    figure = Figure()
    ax = figure.subplots()
    accuracy_vs_time(ax, summary, **options)
    figure.canvas.draw()
    return ax


def test_points_of_a_figure_are_the_summary(summary):
    one = summary.query("device == 'pcm_like' and method == 'sgd'")
    ax = panel(one)
    markers = next(line for line in ax.lines if line.get_marker() == "o")
    np.testing.assert_allclose(markers.get_ydata(), 100 * one["accuracy"])
    np.testing.assert_allclose(markers.get_xdata()[1:], one["t_inference_s"].iloc[1:])


def test_the_time_axis_is_logarithmic_with_named_times(summary):
    ax = panel(summary.query("device == 'pcm_like'"))
    assert ax.get_xscale() == "log"
    labels = [text.get_text() for text in ax.get_xticklabels()]
    assert labels == ["prog.", "1 s", "1 min", "1 h", "1 d", "1 mo", "1 y"]


def test_the_programmed_state_stands_left_of_the_break(summary):
    ax = panel(summary.query("device == 'pcm_like' and method == 'sgd'"))
    markers = next(line for line in ax.lines if line.get_marker() == "o")
    assert ax.get_xlim()[0] < markers.get_xdata()[0] < 1.0
    assert any(not line.get_clip_on() for line in ax.lines)


def test_extrapolated_times_are_shaded_and_named(summary):
    ax = panel(summary.query("device == 'pcm_like'"))
    assert [text.get_text() for text in ax.texts] == ["extrapolated"]
    left = ax.patches[0].get_x()
    assert DAY < left < MONTH
    assert not panel(summary.query("device == 'reram_wan2022'")).texts


def test_a_method_keeps_its_colour_whatever_else_is_drawn(summary):
    for rows in (summary, summary[summary["method"] == "samson"]):
        ax = panel(rows.query("device == 'pcm_like'"))
        colours = {matplotlib.colors.to_hex(line.get_color()) for line in ax.lines}
        assert METHOD_STYLES["samson"].colour.lower() in colours


def test_no_two_methods_share_colour_or_marker():
    colours, markers = zip(*METHOD_STYLES.values(), strict=True)
    assert len(set(colours)) == len(colours)
    assert len(set(markers)) == len(markers)
    assert method_style("mine") == method_style("mine")


def test_n_and_interval_stand_in_the_figure(summary):
    figure = accuracy_figure(summary)
    note = figure.get_supxlabel()
    assert "5 networks × 10 chips" in note
    assert "95 % interval" in note
    assert len(figure.legends[0].get_texts()) == len(METHODS)


def test_one_condition_only_is_drawn_into_one_axes(summary):
    with pytest.raises(ValueError, match="several in"):
        panel(summary)


def test_unknown_styles_and_widths_are_named(summary):
    with pytest.raises(ValueError, match="Did you mean 'paper'"):
        style("papr")
    with pytest.raises(ValueError, match="one column"):
        accuracy_figure(summary, width="three columns")


def test_a_figure_has_the_same_bytes_each_time(summary, tmp_path):
    for name in ("a", "b"):
        save(accuracy_figure(summary), tmp_path / name, ["pdf", "png", "svg"])
    for ending in ("pdf", "png", "svg"):
        a, b = (tmp_path / f"{name}.{ending}" for name in ("a", "b"))
        assert a.read_bytes() == b.read_bytes()


def test_a_report_is_redrawn_from_the_table_alone(trials, tmp_path):
    append_rows(trials, tmp_path / "trials.csv")
    before = (tmp_path / "trials.csv").read_bytes()
    files = write_report(tmp_path)
    assert {path.name for path in files} >= {
        "accuracy.md",
        "accuracy.tex",
        "accuracy.csv",
        "accuracy.pdf",
        "accuracy.png",
    }
    assert all(path.stat().st_size > 0 for path in files)
    assert (tmp_path / "trials.csv").read_bytes() == before
    again = {path: path.read_bytes() for path in files}
    append_rows(read_trials(tmp_path).iloc[::-1], tmp_path / "shuffled.csv")
    (tmp_path / "shuffled.csv").rename(tmp_path / "trials.csv")
    write_report(tmp_path)
    assert {path: path.read_bytes() for path in files} == again


def test_an_empty_study_has_no_report(tmp_path):
    (tmp_path / "trials.csv").touch()
    with pytest.raises(ValueError, match="holds no trials"):
        write_report(tmp_path)
