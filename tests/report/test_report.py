import collections
import csv
import dataclasses
import html
import io
import itertools
import json
import re
import shutil
import subprocess
import sys
import textwrap
from html.parser import HTMLParser

import matplotlib
import matplotlib.colors
import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from synthetic_trials import make_trials

from analog_samson import results
from analog_samson.analog.moments import measure
from analog_samson.devices import load_device
from analog_samson.report import (
    ITEMS,
    Content,
    Item,
    accuracy_figure,
    accuracy_vs_axis,
    accuracy_vs_time,
    captions,
    chip_strips,
    gain_table,
    grid_table,
    heat_map,
    lifetime_table,
    page,
    save,
    select,
    sharpness_figure,
    study_figures,
    study_tables,
    table,
    training_curves,
    training_figure,
    waterfall,
    write_report,
    yield_curves,
)
from analog_samson.report.axes import _legend_columns, finish
from analog_samson.report.citations import bibtex
from analog_samson.report.contents import warnings_of
from analog_samson.report.figures import gain_note
from analog_samson.report.methods import KNOWN_METHODS
from analog_samson.report.networks import MEASURES
from analog_samson.report.style import method_style, plot_options, style
from analog_samson.report.typeset import markdown_text
from analog_samson.report.words import floor_text
from analog_samson.results import (
    append_rows,
    best_methods,
    chip_means,
    lifetime,
    network_means,
    paired_gain,
    read_trials,
    summarise,
)
from analog_samson.results.scores import ACCURACY, SCORES
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
    value, *ends = (f"{100 * row.at[HOUR, name]:.2f}" for name in ("accuracy", "low", "high"))
    cell = f"{value} ({ends[0]} to {ends[1]})"
    line = next(line for line in text.splitlines() if line.startswith("| SAM ρ = 0.05"))
    assert [part.strip() for part in line.split("|")][6] == cell


def test_the_caption_says_what_the_numbers_rest_on(trials, summary):
    caption = table(summary, best_methods(trials)).caption
    for words in (
        "95 % interval",
        "over trained networks",
        "n = trained networks × chips",
        "MLP on digits",
        "global compensation; PCM: pcm_like",
        "1 y = 365 d",
        "† beyond the time to which the device was measured",
        "Bold: better than every other",
    ):
        assert words in caption


def test_captions_say_which_intervals_are_a_bootstrap():
    trials = make_trials(METHODS, n_networks=10, n_chips=2, times_s=(1.0,))
    few = (trials["method"] == "rwp") & (trials["training_seed"] > 2)
    summary = summarise(trials[~few], bootstrap=True, scale="accuracy")
    made = table(summary)
    how = "Mean ± half-width, or bounds, of the 95 % interval (bootstrap over "
    assert how in made.caption
    row = summary[summary["method"] == "sgd"].iloc[0]
    low, high = (f"{100 * row[end]:.2f}" for end in ("low", "high"))
    assert f"({low} to {high})" in made.markdown(), "asymmetric: both bounds"
    assert next(line for line in made.markdown().splitlines() if "RWP" in line).count("±") == 1
    assert "Student t for RWP σ = 0.02)" in accuracy_figure(summary).get_supxlabel().replace(
        "\u00a0", " "
    )


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
    line = next(row for row in finished.markdown().splitlines() if row.startswith("| RWP"))
    assert line.rstrip(" |").endswith("–")
    assert "– no trials" in finished.caption


@pytest.mark.slow
def test_a_caption_says_why_cells_of_yields_gains_and_grids_are_blank():
    many = make_trials({"sgd": 0.9, "sam rho=0.05": 0.9}, n_chips=20, times_s=(1.0, DAY))
    is_sam = many["method"] == "sam"
    few = many[~is_sam | (many["chip"] < 4)]
    worst = "– in the column worst 5 %: fewer than 100 chips of the method."
    made = study_tables(few)
    assert worst in made["yield"].caption
    assert "– no trials" not in made["yield"].caption, "there are trials"
    rwp = few[few["method"] == "sgd"].assign(method="rwp", chip_id=lambda own: own["chip_id"] + "r")
    rwp["checkpoint"] += "r"
    kept = few[(few["method"] == "sgd") | (few["t_inference_s"] == 1.0)]
    gone = study_tables(pd.concat([kept, rwp]))
    assert f"– no trials. {worst}" in gone["yield"].caption
    assert "– no trials that could be compared with SGD." in gone["gain"].caption
    assert "–" not in study_tables(many)["yield"].caption
    one = summarise(few.assign(condition='{"drift_scale": 2.0}', chip_id=few["chip_id"] + "d"))
    both = pd.concat([one, summarise(few.assign(condition='{"adc_bits": 6}'))])
    caption = grid_table(both).caption
    assert "– in the column drift scale: as the device is." in caption
    assert "– in the column adc bits: as the device is." in caption
    assert "no trials" not in caption
    lacks = both[(both["method"] == "sgd") | (both["condition"] == '{"adc_bits": 6}')]
    assert "– no trials. – in the column adc bits" in grid_table(lacks).caption


def test_methods_missing_on_one_device_are_named(trials):
    wan = trials["device"] == "reram_wan2022"
    tables = study_tables(trials[~(wan & trials["method"].isin(["sam", "rwp"]))])
    missing = "Without trials: RWP σ = 0.02, SAM ρ = 0.05 on ReRAM."
    assert missing in tables["accuracy"].caption
    assert missing in tables["gain"].caption
    alone = study_tables(trials[~(wan & (trials["method"] == "sgd"))])
    assert "No SGD on ReRAM, so no gain there." in alone["gain"].caption
    assert list(alone["gain"].data["device"].unique()) == ["pcm_like"]


def test_the_gain_caption_says_whether_a_test_was_made_and_what_it_found():
    equal = make_trials({"sgd": 0.9, "sam": 0.9}, times_s=(1.0,))
    assert "No difference has p < 0.05 after Holm" in study_tables(equal)["gain"].caption
    alone = study_tables(make_trials({"sgd": 0.9, "sam": 0.9}, n_networks=1, n_chips=1))
    assert "No test could be made." in alone["gain"].caption
    assert "No interval: one chip of one trained network" in alone["accuracy"].caption


@pytest.mark.slow
def test_the_page_names_networks_that_have_no_trial_yet(tmp_path):
    rows = make_trials(n_networks=2, n_chips=2, times_s=(1.0,))
    append_rows(rows, tmp_path / "trials.csv")
    done = {f"{name}.safetensors": {"digest": name} for name in rows["checkpoint"].unique()}
    manifest = {"checkpoints": {**done, "sam-late.safetensors": {"digest": "f" * 64}}}
    (tmp_path / "manifest.json").write_text(json.dumps(manifest))
    write_report(tmp_path)
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert "The study is not finished: no rows yet of sam-late." in page
    write_report(tmp_path, methods=["sgd"], out=tmp_path / "sgd")  # others have rows, too
    page = (tmp_path / "sgd" / "report.html").read_text(encoding="utf-8")
    assert "The study is not finished: no rows yet of sam-late." in page


def test_a_figure_says_which_intervals_are_over_chips_only():
    rows = make_trials({"sgd": 0.9, "sam": 0.91, "rwp": 0.92}, n_networks=3, times_s=(1.0,))
    lone = rows[(rows["method"] != "rwp") | (rows["training_seed"] == 0)]
    assert "over trained networks, with one network over chips only." in gain_note(
        paired_gain(lone)
    )
    assert "chips only" not in gain_note(paired_gain(rows))


def test_an_interrupted_study_is_called_incomplete(trials):
    kept = trials[(trials["training_seed"] < 4) | (trials["chip"] < 3)]
    finished = table(summarise(kept))
    assert "5 × 3–10" in finished.markdown()
    assert "incomplete" in finished.caption


def test_csv_holds_fractions_to_ten_digits(summary):
    read = list(csv.DictReader(io.StringIO(table(summary).csv())))
    for column in ("accuracy", "half_width", "t_inference_s"):
        expected = [float(f"{value:.10g}") for value in summary[column]]
        assert [float(row[column]) for row in read] == pytest.approx(expected, abs=1e-10, rel=0)


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
    assert labels == ["digital", "prog.", "1 s", "1 h", "1 d", "1 mo", "1 y"]


def test_the_programmed_state_is_drawn_left_of_the_break(summary):
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
        assert method_style("samson").colour.lower() in colours


def test_no_two_methods_share_colour_or_marker():
    colours, markers = zip(*map(method_style, KNOWN_METHODS), strict=True)
    assert len(set(colours)) == len(colours)
    assert len(set(markers)) == len(markers)
    assert method_style("mine") == method_style("mine")


def test_narrow_panels_name_fewer_times(summary):
    rows = summary.query("device == 'pcm_like'")
    figure = Figure(figsize=(7, 2))
    for ax in figure.subplots(1, 4):
        accuracy_vs_time(ax, rows)
    figure.canvas.draw()
    texts = [text for text in figure.axes[0].get_xticklabels() if text.get_text()]
    assert len(figure.axes[0].get_xticks()) == 7 > len(texts) >= 4  # digital, prog. and five times
    for second in (False, True):
        line = [text for text in texts if text.get_text().startswith("\n") == second]
        boxes = [text.get_window_extent() for text in line]
        assert all(left.x1 < right.x0 for left, right in itertools.pairwise(boxes))


def test_n_and_interval_are_printed_in_the_figure(summary):
    figure = accuracy_figure(summary)
    note = figure.get_supxlabel()
    assert "5 networks × 10 chips" in note
    assert "95 % interval" in note
    assert len(figure.legends[0].get_texts()) == len(METHODS) + 1  # extrapolated


def test_one_condition_only_is_drawn_into_one_axes(summary):
    with pytest.raises(ValueError, match="several in"):
        panel(summary)


def test_unknown_styles_and_widths_are_named(summary):
    with pytest.raises(ValueError, match="Did you mean 'paper'"):
        style("papr")
    with pytest.raises(ValueError, match="one column"):
        accuracy_figure(summary, width="three columns")


@pytest.mark.slow
def test_a_figure_has_the_same_bytes_each_time(summary, tmp_path):
    for name in ("a", "b"):
        save(accuracy_figure(summary), tmp_path / name, ["pdf", "png", "svg"])
    for ending in ("pdf", "png", "svg"):
        a, b = (tmp_path / f"{name}.{ending}" for name in ("a", "b"))
        assert a.read_bytes() == b.read_bytes()


@pytest.mark.slow
def test_tables_and_figures_do_not_depend_on_the_order_of_rows(trials):
    shuffled = trials.sample(frac=1.0, random_state=0)
    ordered, mixed = study_tables(trials), study_tables(shuffled)
    assert [t.csv() for t in ordered.values()] == [t.csv() for t in mixed.values()]
    assert [t.latex() for t in ordered.values()] == [t.latex() for t in mixed.values()]


class Links(HTMLParser):
    """Collects everything that a page would fetch."""

    def __init__(self):
        super().__init__()
        self.found = []

    def handle_starttag(self, tag, attrs):
        self.found += [value for name, value in attrs if name in ("src", "href", "srcset", "data")]


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    """Folder of a small study whose report was written, and the files written."""
    folder = tmp_path_factory.mktemp("study")
    rows = make_trials({"sgd": 0.90, "samson rho=0.5": 0.97}, n_networks=3, n_chips=3)
    pcm = load_device("pcm_like")
    append_rows(rows, folder / "trials.csv")
    old_device = {
        "technology": "PCM",
        "summary": "A model.",
        "limits": "No <heat>.",
        "noise": {"source": "nandakumar2019", "g_max_uS": 25.0},
    }
    manifest = {
        "study": {"name": "drift & <b>more"},
        "devices": {"old": old_device, "pcm_like": pcm.model_dump(mode="json")},
        "checkpoints": {
            name: {"digest": name, "spec": {"dataset": "digits"}, "n_classes": 10}
            for name in rows["checkpoint"].unique()
        },
    }
    (folder / "manifest.json").write_text(json.dumps(manifest))
    (folder / "audit.csv").write_text("layer,kind,analog,reason\nfc,Linear,True,\n")
    stages = "checkpoint,device,t_inference_s,chip,stage,accuracy\n"
    stages += "".join(
        f"net,pcm_like,1.0,{chip},{stage},{accuracy}\n"
        for chip in range(2)
        for stage, accuracy in (("digital", 0.9), ("mapped", 0.89), ("read", 0.8 + 0.01 * chip))
    )
    (folder / "waterfall.csv").write_text(stages)
    (folder / "layers.csv").write_text(
        "checkpoint,device,t_inference_s,chip,layer,accuracy,clean_accuracy\n"
        "net,pcm_like,1.0,0,fc,0.8,0.9\nnet,pcm_like,1.0,1,fc,0.85,0.9\n"
    )
    (folder / "device_old.csv").write_text("g_uS,sigma_prog_uS\n25.0,1.0\n")
    measure(pcm, n=20).to_csv(folder / "device_pcm_like.csv", index=False)
    return folder, write_report(folder)


@pytest.mark.slow
def test_a_report_is_redrawn_from_the_table_alone(study):
    folder, files = study
    names = {path.name for path in files}
    assert names >= {f"accuracy.{kind}" for kind in ("md", "tex", "csv", "pdf", "png")}
    assert names >= {"gain.md", "lifetime.tex", "iso_accuracy.csv", "chips.pdf", "report.html"}
    assert names >= {"waterfall.pdf", "layers.png"}
    assert all(path.stat().st_size > 0 for path in files)
    assert len(read_trials(folder)) == 2 * 3 * 3 * 6


@pytest.mark.slow
def test_files_that_cannot_be_written_leave_the_old_ones_whole(study, tmp_path):
    """The disk is full, as a limit of file sizes, at each size of a written file in turn."""
    folder = tmp_path / "study"
    shutil.copytree(study[0], folder)
    (folder / "trials.csv").touch()
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    sizes = sorted({len(before[path.name]) for path in study[1]})
    limited = textwrap.dedent("""
        import resource, signal, sys
        from pathlib import Path
        from analog_samson.report import write_report
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[2]),) * 2)
        try:
            write_report(sys.argv[1])
        except OSError as error:
            print(error)
    """)
    for size in (sizes[0] - 1, sizes[len(sizes) // 2], sizes[-1] - 1):
        arguments = [sys.executable, "-c", limited, str(folder), str(size)]
        done = subprocess.run(arguments, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        assert f"'{folder}/" in done.stdout and "above the limit of file sizes" in done.stdout
        assert {path.name: path.read_bytes() for path in folder.iterdir()} == before


@pytest.mark.slow
def test_the_page_fetches_nothing(study):
    page = (study[0] / "report.html").read_text()
    links = Links()
    links.feed(page)
    assert all(link.startswith(("data:", "#")) for link in links.found)
    assert "<script" not in page


@pytest.mark.slow
def test_the_page_lists_the_limitations(study):
    page = (study[0] / "report.html").read_text()
    assert "drift &amp; &lt;b&gt;more" in page
    assert "No &lt;heat&gt;." in page
    assert "another version of analog-samson" in page
    assert "alt='Datasheet of pcm_like. Largest spread of the programming error:" in page
    assert "Only 3 trained networks" in page
    assert "extrapolated by the device model" in page
    for key in ("mordido2022", "nandakumar2019", "rasch2021"):
        assert f"{{{key}," in page
    assert "foret2021" not in page


@pytest.mark.slow
def test_the_page_opens_in_a_browser_without_complaint(study, tmp_path):
    browser = next(
        filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None
    )
    if browser is None:
        pytest.skip("no Chromium on this machine")
    done = subprocess.run(
        [
            browser,
            "--headless",
            "--no-sandbox",
            "--disable-gpu",
            "--enable-logging=stderr",
            f"--user-data-dir={tmp_path}",
            f"--screenshot={tmp_path / 'page.png'}",
            (study[0] / "report.html").as_uri(),
        ],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert ":CONSOLE(" not in done.stderr
    assert (tmp_path / "page.png").stat().st_size > 0


def compiled(body, folder):
    """The log of pdflatex on a two-column paper with this body."""
    latex = shutil.which("pdflatex")
    if latex is None:
        pytest.skip("no LaTeX on this machine")
    packages = "booktabs,pgf" if "pgf" in body else "booktabs"
    for package in packages.split(","):
        found = subprocess.run(["kpsewhich", f"{package}.sty"], capture_output=True, check=False)
        if found.returncode:
            pytest.skip(f"no LaTeX package {package} on this machine")
    paper = f"\\documentclass[twocolumn]{{article}}\\usepackage{{{packages}}}"
    (folder / "paper.tex").write_text(f"{paper}\\begin{{document}}{body}\\end{{document}}")
    subprocess.run(
        [latex, "-interaction=nonstopmode", "-halt-on-error", "paper.tex"],
        cwd=folder,
        check=True,
        capture_output=True,
    )
    return (folder / "paper.log").read_text(encoding="latin-1")


@pytest.mark.slow
def test_latex_tables_compile_and_fit_the_page(study, tmp_path):
    log = compiled(
        "".join(f"\\input{{{path}}}" for path in sorted(study[0].glob("*.tex"))), tmp_path
    )
    assert "Overfull" not in log


def test_pgf_figures_compile_with_no_package_but_pgf(summary, tmp_path):
    if shutil.which("pdflatex") is None:
        with pytest.raises(FileNotFoundError, match="choose among pdf, svg and png"):
            save(accuracy_figure(summary), tmp_path / "figure", ["pgf"])
        pytest.skip("no LaTeX on this machine")
    compiled("\\begin{pgfpicture}\\end{pgfpicture}", tmp_path)
    save(accuracy_figure(summary), tmp_path / "figure", ["pgf"])
    text = (tmp_path / "figure.pgf").read_text()
    assert text.isascii()
    assert r"pcm\_like" in text
    compiled("\\begin{figure}\\input{figure.pgf}\\end{figure}", tmp_path)


def test_every_method_of_the_family_has_its_colour_and_its_source():
    for name, method in KNOWN_METHODS.items():
        assert method.label
        assert method.colour
        assert method.marker
        assert bool(method.citation) == (name not in ("sgd", "external"))
    assert "not in the bibliography" not in bibtex(KNOWN_METHODS, {})


def test_filters_name_what_is_not_there(trials):
    kept = select(trials, devices=["pcm_like"], methods=["samson", "sgd"], times_s=[1.0, YEAR])
    assert set(kept["method"]) == {"sgd", "samson"}
    assert set(kept["t_inference_s"]) == {1.0, YEAR}
    with pytest.raises(ValueError, match="Did you mean 'pcm_like'"):
        select(trials, devices=["pcm_lik"])


# other tables and figures


def test_significant_gains_carry_a_star_and_losses_their_sign(trials):
    text = gain_table(paired_gain(trials, "samson", scale="accuracy")).markdown()
    line = next(row for row in text.splitlines() if row.startswith("| SGD"))
    assert "| −6.30 ± " in line
    assert " *" in line
    assert "Holm" in text


def test_lifetimes_say_when_they_are_bounds(trials):
    text = lifetime_table([lifetime(trials, 0.001), lifetime(trials, 0.5)]).markdown()
    assert "< 1 s" in text
    assert "> 1 y† (1 y† to –)" in text
    assert "> 2 d (2 d to –)" in text


def test_confidence_is_in_every_caption_and_95_in_none():
    trials = make_trials({"sgd": 0.9, "sam": 0.91}, n_networks=3, n_chips=2, times_s=(1.0, DAY))
    options = {"confidence": 0.9, "n_classes": {"digits": 10}}
    for stem, table_ in study_tables(trials, **options).items():
        assert "90 %" in table_.caption, stem
        assert "95 %" not in table_.caption
        assert "on these 1,000,000 test samples" in table_.caption


def test_the_primary_endpoint_is_marked_and_its_late_naming_reported(tmp_path):
    trials = make_trials(n_networks=4, n_chips=2, times_s=(1.0, DAY))
    endpoint = {"method": "samson", "device": "pcm_like", "time_s": DAY, "endpoint": "lost"}
    named = [{**endpoint, "baseline": "sgd", "rows_before": 8}]
    (tmp_path / "manifest.json").write_text(json.dumps({"primary_endpoints": named}))
    tables = study_tables(trials, folders=[tmp_path])
    assert "‡ primary endpoint, tested alone: p = " in tables["saved"].caption
    assert "Holm's correction over the 1 other comparison of this table" in tables["saved"].caption
    assert "‡" in tables["saved"].blocks[0].cells.iloc[0]["1 d"]
    assert "‡" not in tables["gain"].caption
    (warning,) = [w for w in warnings_of(Content(trials, [tmp_path])) if "primary" in w]
    assert "was named when 8 rows were there" in warning


def test_the_logit_scale_is_taken_by_rule_and_said_in_captions():
    trials = make_trials({"sgd": 0.97, "sam": 0.98}, n_networks=3, n_chips=2, times_s=(1.0,))
    assert not any("--scale" in warning for warning in warnings_of(Content(trials)))
    plain = Content(trials, scale="accuracy")
    assert any("Prefer --scale auto" in warning for warning in warnings_of(plain))
    said = "Typical chips: accuracy at the mean of log(accuracy / error), not mean accuracy."
    tables = study_tables(trials, n_classes={"digits": 10})
    for name in ("accuracy", "lost", "gain", "saved", "iso_accuracy"):
        assert said in tables[name].caption
    assert " to " in tables["accuracy"].blocks[0].cells.iloc[0]["1 s"]
    assert "Typical chips: " in study_figures(trials)["gain"].get_supxlabel()
    few = make_trials({"sgd": 0.70}, n_networks=3, n_chips=2, times_s=(1.0,))
    assert "Typical" not in study_tables(few)["accuracy"].caption
    few = few.assign(dataset="cifar", **{c: few[c] + "-c" for c in ("chip_id", "checkpoint")})
    mixed = study_tables(pd.concat([trials, few]))["accuracy"].caption
    assert "Mean or typical chip ± half-width, or bounds, of the 95 % interval" in mixed
    assert "Typical chips of digits, and means of cifar: accuracy at" in mixed


def test_the_curve_of_the_yield_falls_by_one_chip_at_its_accuracy():
    chips = chip_means(make_trials({"sgd": 0.9}, n_networks=2, n_chips=3, times_s=(1.0,)))
    ax = Figure().subplots()
    yield_curves(ax, chips, target=0.9)
    x, y = ax.lines[0].get_data()
    np.testing.assert_allclose(np.sort(100 * chips["accuracy"]), x[1:-1])
    np.testing.assert_allclose(y[:-1], 100 * (1 - np.arange(7) / 6))


@pytest.mark.slow
def test_a_study_says_what_its_target_needs():
    few = make_trials({"sgd": 0.5}, n_networks=3, std_networks=0.05, std_chips=0.001)
    text = study_tables(few, half_width=0.01)["planning"].markdown()
    assert "limited by networks: at least " in text
    assert "bring it to 1 percentage points" in text
    wide = study_tables(few, half_width=0.9)["planning"]
    assert set(wide.blocks[0].cells["needed"]) == {"enough"}
    alone = make_trials({"sgd": 0.5}, n_networks=1, n_chips=1)
    assert "unknown" in study_tables(alone, half_width=0.01)["planning"].markdown()


def swept(programming=(0.0, 1.0, 10.0), read=(0.0, 1.0)):
    parts = []
    for p, r in itertools.product(programming, read):
        axes = json.dumps({"programming_noise_scale": p, "read_noise_1f_scale": r})
        rows = make_trials(
            {"sgd": 0.9 - 0.01 * p - 0.02 * r}, n_networks=2, n_chips=2, condition=axes
        )
        parts.append(rows.assign(chip_id=rows["chip_id"] + axes))
    return pd.concat(parts, ignore_index=True)


@pytest.mark.slow
def test_a_noise_grid_is_sorted_by_number_and_a_map_shows_it():
    summary = summarise(swept())
    text = grid_table(summary).markdown()
    head, _, *lines = [row.split("|")[1:3] for row in text.splitlines() if row.startswith("|")]
    assert [name.strip() for name in head] == ["programming noise scale", "read noise 1/f scale"]
    points = [tuple(value.strip() for value in line) for line in lines[:6]]
    assert points == [("0", "0"), ("0", "1"), ("1", "0"), ("1", "1"), ("10", "0"), ("10", "1")]
    figure = Figure()
    image = heat_map(
        figure.subplots(),
        summary[summary["t_inference_s"] == 1.0],
        "programming_noise_scale",
        "read_noise_1f_scale",
    )
    at = summary[summary["t_inference_s"] == 1.0].set_index("condition")["accuracy"]
    key = '{"programming_noise_scale": 10.0, "read_noise_1f_scale": 1.0}'
    assert image.get_array()[1, 2] == pytest.approx(100 * at[key])
    assert {"heat_pcm_like"} <= set(study_figures(swept()))


@pytest.mark.slow
def test_a_setting_of_one_device_alone_is_no_sweep(trials):
    wan = trials["device"] == "reram_wan2022"
    axes = trials["condition"].where(~wan, '{"times_share": "independent"}')
    rows = trials.assign(condition=axes)
    tables, drawn = study_tables(rows), study_figures(rows)
    assert "grid" not in tables
    titles = [ax.get_title(loc="left") for ax in drawn["accuracy"].axes]
    assert titles == ["PCM", "ReRAM, times share = independent"]
    assert set(tables["lifetime"].data["device"]) == {"pcm_like"}


def test_accuracy_along_one_axis_needs_one_time_and_one_axis():
    summary = summarise(swept(read=(1.0,)))
    ax = Figure().subplots()
    with pytest.raises(ValueError, match="one time and one axis"):
        accuracy_vs_axis(ax, summary, "programming_noise_scale")
    accuracy_vs_axis(ax, summary[summary["t_inference_s"] == 1.0], "programming_noise_scale")
    assert list(ax.lines[0].get_xdata()) == [0.0, 1.0, 10.0]
    with pytest.raises(ValueError, match="No trial sweeps"):
        accuracy_vs_axis(ax, summary, "g_max_uS")


def test_every_chip_is_drawn(trials):
    chips = chip_means(trials).query("device == 'pcm_like' and t_inference_s == @YEAR")
    ax = Figure().subplots()
    chip_strips(ax, chips)
    points = np.concatenate([line.get_ydata() for line in ax.lines if line.get_marker() == "."])
    np.testing.assert_allclose(np.sort(points), np.sort(100 * chips["accuracy"]))


@pytest.mark.parametrize("k", [1, 2, 3])
def test_strengths_of_a_method_share_colour_and_marker_but_can_be_told_apart(k):
    names = ["sam rho=0.1", "sam rho=0.2", "sam rho=0.3", "sam rho=0.4"]
    first, other = plot_options(names[0], names), plot_options(names[k], names)
    assert first["marker"] == other["marker"]
    assert first != other


def test_panels_have_the_times_of_their_device_and_share_them_where_asked(summary):
    left, right = accuracy_figure(summary).axes
    assert left.get_xlim()[1] > YEAR
    assert 2 * DAY < right.get_xlim()[1] < 10 * DAY
    left, right = accuracy_figure(summary, same_times=True).axes
    assert left.get_xlim() == right.get_xlim()


def test_training_curves_draw_the_whole_network_only(tmp_path):
    log = "epoch,layer,strength,loss,offset_ratio,update_gradient_norm\n"
    log += "0,,0.1,1.0,0.1,1.0\n0,fc,,,0.2,\n1,,0.2,0.5,0.1,0.9\n1,fc,,,0.2,\n"
    paths = [tmp_path / f"digits-mlp-sam-rho=0.1-seed{seed}.csv" for seed in range(2)]
    for path in paths:
        path.write_text(log)
    curves = training_curves(paths)
    assert set(curves["method"] + " " + curves["strength"]) == {"sam rho=0.1"}
    assert list(curves["training_seed"].unique()) == [0, 1]
    figure = training_figure(curves)
    line = figure.axes[1].lines[0]
    assert list(line.get_ydata()) == [0.1, 0.1]
    assert list(line.get_xdata()) == [1, 2]
    assert len(figure.legends[0].get_texts()) == 1
    with pytest.raises(ValueError, match=r"\['loss'\] are missing"):
        training_figure(curves.drop(columns="loss"))


def _curves(names, n_trainings):
    """Logs of two epochs: the loss of training k is k + 1, then the same again."""
    lines = [name.partition(" ")[::2] for name in names]
    return pd.DataFrame(
        {"method": method, "strength": strength, "training_seed": seed, "epoch": epoch,
         "layer": "", "loss": seed + 1.0, "offset_ratio": 0.1, "update_gradient_norm": 1.0}
        for method, strength in lines for seed in range(n_trainings) for epoch in range(2)
    )  # fmt: skip


def test_many_trainings_of_a_method_are_a_median_and_a_range():
    few, many = (training_figure(_curves(["sgd"], n)).axes[0] for n in (3, 5))
    assert len(few.lines) == 2 * 3 and not few.collections  # a line and its last point each
    assert list(many.lines[0].get_ydata()) == [3.0, 3.0]
    (area,) = many.collections
    heights = area.get_paths()[0].vertices[:, 1]
    assert (heights.min(), heights.max()) == (1.0, 5.0)


def test_trainings_of_one_seed_are_not_averaged():
    logs = pd.concat([_curves(["sgd"], 2), _curves(["sgd"], 2).assign(loss=9.0)])
    logs["checkpoint"] = np.repeat(["a", "b", "c", "d"], 2)
    logs = logs[(logs["checkpoint"] != "d") | (logs["epoch"] == 0)]  # this one ended early
    figure = training_figure(logs)
    assert figure.get_supxlabel().startswith("n\xa0=\xa04 trainings, medians")
    drawn = training_figure(logs[logs["checkpoint"].isin(["b", "c", "d"])]).axes[0].lines
    ends = {(line.get_xdata()[-1], line.get_ydata()[-1]) for line in drawn[1::2]}
    assert ends == {(2, 2.0), (2, 9.0), (1, 9.0)}


def test_rows_of_panels_show_all_that_each_has():
    logs = _curves(
        [*(f"sam rho={k}" for k in (1, 2, 3)), *(f"rwp sigma={k}" for k in (1, 2, 3))], 1
    )
    is_sam = logs["method"] == "sam"
    logs["update_gradient_norm"] = np.where(is_sam, 0.9, 1.2)
    figure = training_figure(logs)
    for ax in (figure.axes[2], figure.axes[5]):
        low, high = ax.get_ylim()
        assert low <= 0.9 and high >= 1.2


def test_a_method_of_many_strengths_has_panels_of_its_own_with_the_baseline():
    sam = [f"sam rho={rho}" for rho in ("0.05", "0.5", "10", "2")]
    figure = training_figure(_curves([*sam, "sgd", "rwp sigma=0.1", "rwp sigma=0.2"], 1))
    assert len(figure.axes) == 6
    (legend,) = [ax.get_legend() for ax in figure.axes if ax.get_legend()]
    shown = ["SGD", "SAM ρ = 0.05", "SAM ρ = 0.5", "SAM ρ = 2", "SAM ρ = 10"]
    assert [text.get_text() for text in legend.get_texts()] == shown
    others = [text.get_text() for text in figure.legends[0].get_texts()]
    assert sorted(others) == ["RWP σ = 0.1", "RWP σ = 0.2", "SGD"]
    assert len(training_figure(_curves([*sam, "sgd"], 1)).axes) == 3


@pytest.mark.parametrize("look", ["paper", "talk"])
@pytest.mark.parametrize("longest", [1, 8, 30])
def test_a_legend_fills_its_width_and_no_more(look, longest):
    names = [f"method {k}" + "m" * (longest if k % 5 == 0 else 1) for k in range(14)]
    with style(look):
        figure = Figure(figsize=(7, 3), layout="constrained")
        figure.subplots()
        finish(figure, {name: Line2D([], []) for name in names}, "", are_methods=False)
        (legend,) = figure.legends
        figure.draw_without_rendering()
        box, whole = legend.get_window_extent(), figure.bbox
        columns = legend._ncols
        if columns > 1:
            assert box.x0 >= whole.x0 and box.x1 <= whole.x1
        assert box.width > 0.45 * whole.width
        assert _legend_columns(["m" * 200] * 3, 72 * 7) == 1


def test_strengths_of_a_method_differ_in_how_their_markers_are_filled():
    names = ["samson rho=0.1 p=2", "samson rho=0.2", "samson rho=0.2 clip_weights=2", "samson x=1"]
    options = [plot_options(name, names) for name in names]
    fills = {(one["fillstyle"], one["markerfacecolor"] == "white") for one in options}
    assert len(fills) == 4


def test_training_logs_are_named_by_their_files(tmp_path):
    with pytest.raises(FileNotFoundError, match="No training log"):
        training_curves([tmp_path / "missing.csv"])
    other = tmp_path / "log.csv"
    other.write_text("epoch,layer,loss\n0,,0.5\n")
    with pytest.raises(ValueError, match="holds no training method"):
        training_curves([other])
    with pytest.raises(ValueError, match="at least one"):
        training_curves([])


def test_sharpness_is_drawn_against_what_chips_lose(trials):
    networks = network_means(chip_means(trials)).query("device == 'pcm_like'")
    late = networks[networks["t_inference_s"] == YEAR]
    lost = 100 * (late["clean_accuracy"] - late["accuracy"])
    table = pd.DataFrame({"checkpoint": late["checkpoint"], "hessian_eigenvalue": 10 * lost})
    figure = sharpness_figure(late, table, measures=("hessian_eigenvalue",))
    ax = figure.axes[0]
    assert ax.get_title(loc="left").strip() == "Spearman +1.00 | +1.00 (p = 0.0001)"
    points = np.concatenate([line.get_ydata() for line in ax.lines])
    np.testing.assert_allclose(np.sort(points), np.sort(lost))
    with pytest.raises(ValueError, match="No network of the study"):
        sharpness_figure(late, table.assign(checkpoint="other"), measures=("hessian_eigenvalue",))


@pytest.mark.slow
def test_what_lies_beside_one_of_two_studies_is_drawn_for_its_own_networks(tmp_path):
    digits = make_trials({"sgd": 0.9, "sam": 0.9}, times_s=(1.0,))
    other = make_trials({"sgd": 0.9}, times_s=(1.0,), dataset="mnist").assign(
        checkpoint=lambda rows: rows["checkpoint"] + "-mnist",
        chip_id=lambda rows: rows["chip_id"] + "-mnist",
    )
    names = digits["checkpoint"].unique()
    sharpness = pd.DataFrame({"checkpoint": names, **dict.fromkeys(MEASURES, range(len(names)))})
    sharpness = sharpness.assign(sigma=0.1, rho_sam=0.1, rho_adaptive=0.1, rho_samson=0.1)
    sharpness.to_csv(tmp_path / "sharpness.csv", index=False)
    both = pd.concat([digits, other], ignore_index=True)
    figure = study_figures(both, folders=[tmp_path, tmp_path / "other"])["sharpness"]
    assert len(figure.axes) == len(MEASURES)
    sam = digits[digits["method"] == "sam"]
    one = study_figures(sam, folders=[tmp_path])["sharpness"]
    assert [text.get_text() for text in one.legends[0].get_texts()] == ["SAM"]
    assert "sharpness" not in study_figures(other, folders=[tmp_path])


def test_a_waterfall_ends_at_the_last_accuracy():
    ax = Figure().subplots()
    stages = pd.DataFrame({"stage": ["digital", "mapped", "read"], "accuracy": [0.95, 0.94, 0.9]})
    waterfall(ax, stages)
    changes = [bar.get_width() for bar in ax.patches]
    np.testing.assert_allclose(changes, [-1, -4])
    assert ax.texts[0].get_text() == "95.0"
    assert ax.texts[-1].get_text() == "−4.0 → 90.0"
    with pytest.raises(ValueError, match="are missing"):
        waterfall(ax, stages.drop(columns="stage"))


@pytest.mark.parametrize(
    "options",
    [
        {"n_networks": 1, "n_chips": 1},
        {"times_s": (0.0,)},
        {"times_s": (HOUR,)},
        {"measured_to_s": 0.5, "n_networks": 2, "n_chips": 1},
    ],
)
def test_a_study_with_little_in_it_still_has_tables_and_figures(options):
    rows = make_trials({"sgd": 0.9, "samson rho=0.5": 0.93}, **{"n_chips": 2, **options})
    tables, drawn = study_tables(rows), study_figures(rows)
    assert "nan" not in tables["accuracy"].markdown()
    assert {"accuracy", "strips", "scatter"} <= set(drawn)
    for figure in drawn.values():
        figure.canvas.draw()


def test_an_empty_study_has_no_report(tmp_path):
    (tmp_path / "trials.csv").touch()
    with pytest.raises(ValueError, match="holds no rows"):
        write_report(tmp_path)


@pytest.mark.slow
def test_a_network_that_only_guesses_is_reported_and_other_tables_are_written(tmp_path):
    trials = make_trials()
    first = trials["checkpoint"] == trials["checkpoint"].iloc[0]
    n = trials["n_images_per_chip"].iloc[0]
    trials.loc[first, ["n_correct_digital", "n_correct_digital_test"]] = n // 20
    trials.loc[first, "n_changed"] = n
    append_rows(trials, tmp_path / "trials.csv")
    network = {"digest": "0" * 64, "spec": {"dataset": "digits"}, "n_classes": 10}
    (tmp_path / "manifest.json").write_text(json.dumps({"checkpoints": {"a": network}}))
    names = {path.name for path in write_report(tmp_path)}
    assert "accuracy.md" in names and "iso_accuracy.md" not in names
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert f"no better than guessing: {trials['checkpoint'].iloc[0]}" in page


@pytest.mark.slow
def test_without_a_manifest_there_is_no_normalised_accuracy_and_a_sentence_says_why(tmp_path):
    rows = make_trials(n_networks=2, n_chips=2)
    assert "iso_accuracy" not in study_tables(rows, folders=[tmp_path])
    assert "number of classes of digits is not known" in " ".join(warnings_of(Content(rows)))
    known = study_tables(rows, n_classes={"digits": 10})
    assert "iso_accuracy" in known


OWN_ITEMS = """
import pandas as pd
from matplotlib.figure import Figure

from analog_samson.report import Item
from analog_samson.report.typeset import Block, Table


def draw(content):
    figure = Figure()
    figure.subplots().plot(content.summary["t_inference_s"], content.beside("energy_nJ.csv")["nJ"])
    return figure


def tabulate(content):
    cells = pd.DataFrame({"method": ["SGD"], "energy": ["3 nJ"]})
    block = Block("pcm_like", cells, cells.map(lambda _: False))
    return Table("Energy [nJ]", "For one image.", (block,), cells, "tab:energy")


def each(content):
    return {device: draw(content) for device in content.summary["device"].unique()}


energy = Item(
    "energy",
    "Energy <of a chip>",
    draw,
    tabulate,
    caption="Energy of an image & its time.",
    needs=("energy_nJ.csv",),
)
several = Item("each", "One for each device", each, caption=lambda content: content.baseline)
nothing = Item("nothing", "Nothing to draw", lambda content: None)
taken = Item("accuracy", "Another", draw)
none = draw
"""


@pytest.fixture(scope="module")
def own(tmp_path_factory):
    """A module outside of the package, and a study with a file for it."""
    folder = tmp_path_factory.mktemp("own")
    (folder / "own_report_items.py").write_text(OWN_ITEMS)
    study = folder / "study"
    study.mkdir()
    rows = make_trials({"sgd": 0.9}, n_networks=2, n_chips=2)
    append_rows(rows, study / "trials.csv")
    pd.DataFrame({"nJ": range(6)}).to_csv(study / "energy_nJ.csv", index=False)
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(folder)
        yield study


@pytest.mark.slow
def test_an_item_from_elsewhere_is_on_the_page_and_exported(own):
    names = [f"own_report_items:{name}" for name in ("energy", "several", "nothing")]
    before = (own / "energy_nJ.csv").read_bytes()
    written = {path.name for path in write_report(own, extra_items=names)}
    assert (own / "energy_nJ.csv").read_bytes() == before
    kinds = ("pdf", "png", "md", "tex")
    assert written >= {f"energy.{kind}" for kind in kinds} | {"each_pcm_like.png"}
    assert not any(name.startswith("nothing") for name in written)
    page = (own / "report.html").read_text(encoding="utf-8")
    assert "<h2 id='energy'>Energy &lt;of a chip&gt;</h2>" in page
    caption = "Energy of an image &amp; its time."
    assert f"alt='Energy &lt;of a chip&gt;. {caption}'" in page
    assert f"<figcaption>{caption}</figcaption>" in page
    assert "For one image." in page
    assert "<h2 id='each_pcm_like'>One for each device: pcm_like</h2>" in page
    assert page.index("id='scatter'") < page.index("id='energy'")


def test_an_item_that_needs_a_missing_file_is_left_out(own, tmp_path):
    trials = read_trials(own)
    drawn = study_figures(trials, extra_items=["own_report_items:energy"])
    assert "energy" not in drawn
    item = Item("needy", "Needs a file", lambda content: content.beside("energy_nJ.csv"))
    with pytest.raises(FileNotFoundError, match=r"needs=\('energy_nJ.csv',\)"):
        study_figures(trials, extra_items=[item])


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("own_report_items:taken", "Two items of the report are called 'accuracy'"),
        ("own_report_items:none", "is a function; give an analog_samson.report.Item"),
        ("own_report_items:enrgy", "Did you mean 'energy'"),
        ("no_such_package:energy", "cannot be imported"),
    ],
)
def test_items_that_cannot_be_shown_are_refused_by_name(own, name, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        study_tables(read_trials(own), extra_items=[name])


def test_an_item_has_a_name_for_files_and_something_to_show():
    with pytest.raises(ValueError, match="stem of its files"):
        Item("../energy", "Energy", lambda content: None)
    for name, needs in (("trials", ()), ("device_x", ()), ("energy", ("energy.csv",))):
        with pytest.raises(ValueError, match=f"would overwrite the file {name}.csv"):
            Item(name, "Energy", table=lambda content: None, needs=needs)
    with pytest.raises(ValueError, match="shows nothing"):
        Item("energy", "Energy")


@pytest.mark.slow
def test_an_item_that_draws_no_figure_is_refused_by_name(trials):
    item = Item("axes", "Axes", lambda content: Figure().subplots())
    with pytest.raises(ValueError, match="item 'axes' is a Axes; return a matplotlib Figure"):
        study_figures(trials, extra_items=[item])


def test_every_item_has_a_title_and_every_figure_a_caption():
    assert len({item.name for item in ITEMS}) == len(ITEMS)
    assert all(item.title for item in ITEMS)
    assert all(item.caption for item in ITEMS if item.figure)


@pytest.mark.slow
def test_the_table_is_read_once_and_each_summary_computed_once(own, monkeypatch):
    """Counts calls: a report needs the rows, the chips' means and the summary once each."""
    calls = collections.Counter()

    def counted(module, name):
        real = getattr(module, name)

        def call(*given, **named):
            calls[name] += 1
            return real(*given, **named)

        monkeypatch.setattr(module, name, call)

    monkeypatch.setattr(page, "write_figures", lambda drawn, folder, *given, **named: [])
    counted(page, "read_trials")
    for name in ("chip_means", "network_means", "summarise", "paired_gain", "best_methods"):
        counted(results, name)
    counted(results.summary, "check_definitions")
    write_report(own)
    assert dict(calls) == dict.fromkeys(
        ("read_trials", "chip_means", "network_means", "summarise", "paired_gain", "best_methods"),
        1,
    ) | {"check_definitions": 1, "paired_gain": 2}  # of accuracies, and of what was lost
    rows = read_trials(own)
    calls.clear()
    write_report(own, rows=rows)
    assert "read_trials" not in calls


def test_a_score_has_a_unit_and_a_direction():
    loss = dataclasses.replace(
        ACCURACY, name="loss", label="loss", unit="nat", scale=1, is_higher_better=False
    )
    assert ACCURACY.axis("1 y") == "accuracy at 1 y [%]"
    assert (loss.axis(), loss.capitalised) == ("loss [nat] (lower is better)", "Loss")
    assert (ACCURACY.shown(0.25), loss.shown(0.25)) == (25.0, 0.25)
    assert (ACCURACY.lost(0.75, 0.5), loss.lost(0.75, 0.5)) == (0.25, -0.25)


# names that mean something to LaTeX, Markdown, HTML or matplotlib

NAMES = ["a$%$ `c` x$^$_{", "|<b>bold</b> [l](t) \\ &amp;"]


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("column", ["device", "method", "strength", "dataset", "condition"])
def test_any_name_is_shown_as_it_is(name, column, tmp_path):
    """Tables of earlier versions, and edited ones, hold names that device files may not have."""
    whole = make_trials({"sgd": 0.9, "sam rho=0.05": 0.92}, n_networks=3, n_chips=2)
    more = whole.assign(chip_id=whole["chip_id"] + "b", condition='{"drift_scale": 2.0}')
    trials = pd.concat([whole, more], ignore_index=True)
    if column == "condition":
        trials["condition"] = [
            json.dumps({"adc_bits": k}) for k in [8] * len(whole) + [name] * len(more)
        ]
    elif column in ("method", "strength"):
        trials.loc[trials["method"] == "sam", column] = name
    else:
        trials[column] = name
    append_rows(trials, tmp_path / "trials.csv")
    write_report(tmp_path)
    page = (tmp_path / "report.html").read_text()
    assert html.escape(name) in page
    assert "<b>bold" not in page
    for path in tmp_path.glob("*.md"):
        lines = [line for line in path.read_text().splitlines() if line.startswith("|")]
        widths = {len(re.findall(r"(?<!\\)\|", line)) for line in lines}
        assert len(widths) <= 2, path.name  # with and without the swept axis
    for text in ((tmp_path / "accuracy.tex").read_text(), (tmp_path / "grid.tex").read_text()):
        assert name not in text


@pytest.mark.parametrize(
    ("text", "written"),
    [
        ("a|b", r"a\|b"),
        ("a$b$", r"a\$b\$"),
        ("<b>", "&lt;b>"),
        ("< 1 s", "< 1 s"),
        ("`x`", r"\`x\`"),
        ("[x](y)", r"[x\](y)"),
        ("[µS]", "[µS]"),
        ("&lt;", "&amp;lt;"),
        ("R&D", "R&D"),
        ("a\\|b", r"a\\\|b"),
    ],
)
def test_markdown_shows_a_text_as_it_is(text, written):
    assert markdown_text(text) == written


@pytest.mark.slow
def test_figures_show_dollars_and_carets_as_they_are(trials, tmp_path):
    renamed = trials.assign(device=trials["device"].map(lambda name: f"{name} $x^2$"))
    figure = study_figures(renamed)["accuracy"]
    assert figure.axes[0].get_title(loc="left").replace("\n", " ").endswith("$x^2$")
    assert "$x^2$" in save_text(figure, tmp_path)


def save_text(figure, folder):
    with matplotlib.rc_context({"svg.fonttype": "none"}):
        figure.savefig(folder / "figure.svg")
    return html.unescape((folder / "figure.svg").read_text())


def test_times_that_have_one_name_have_a_column_each():
    """36,003 s and 36,005 s are both "10 h": neither column may take the other's place."""
    rows = make_trials({"sgd": 0.9}, times_s=(36_003.0, 36_005.0, DAY))
    columns = list(table(summarise(rows)).blocks[0].cells.columns)
    assert columns[-3:] == ["36003 s", "36005 s", "1 d"]
    rows = make_trials({"sgd": 0.9}, times_s=(3600.0, 3605.0, DAY))
    assert list(table(summarise(rows)).blocks[0].cells.columns)[-3:] == ["1 h", "3605 s", "1 d"]


@pytest.mark.slow
def test_an_axis_of_numbers_and_words_is_drawn(tmp_path):
    whole = make_trials({"sgd": 0.9, "rwp": 0.92}, n_networks=3, n_chips=2)
    parts = [
        whole.assign(chip_id=whole["chip_id"] + str(bits), condition=json.dumps({"adc_bits": bits}))
        for bits in ("ideal", 10, 6)
    ]
    drawn = study_figures(pd.concat(parts, ignore_index=True))["axis_adc_bits"]
    labels = [label.get_text() for label in drawn.axes[0].get_xticklabels()]
    assert labels == ["6", "10", "ideal"]


def test_a_primary_endpoint_is_no_part_of_holms_correction_in_the_caption():
    gains = pd.DataFrame(
        {
            "n_networks": 5,
            "confidence": 0.95,
            "p_value": [0.001, 0.2, 0.3],
            "is_primary": [True, False, False],
            "significant": [True, False, False],
        }
    )
    alone = "‡ primary endpoint, tested alone: p = 0.001. * p < 0.05."
    rest = "Holm's correction over the 2 other comparisons of this table."
    assert captions.tests_text(gains) == f"{alone} No other difference has p < 0.05 after {rest}"
    gains["significant"] = [True, True, False]
    assert captions.tests_text(gains) == f"{alone} Others: * p < 0.05 after {rest}"
    gains["significant"] = [False, True, False]
    assert "alone: p = 0.001. * p < 0.05 after" in captions.tests_text(gains)


def test_captions_speak_of_whole_counts_only_where_there_are_any():
    assert "whole counts" in floor_text(SCORES["accuracy"])
    assert floor_text(SCORES["cross_entropy"]) == "at least as wide as the chips' spread makes it"
