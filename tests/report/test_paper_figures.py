"""Figures, tables and page as a paper and its readers need them."""

import dataclasses
import html
import io
import json
import re
from types import SimpleNamespace

import matplotlib
import matplotlib.image
import numpy as np
import pandas as pd
import pytest
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from synthetic_trials import make_trials

from analog_samson.analog.moments import measure
from analog_samson.devices import load_device
from analog_samson.report import (
    ITEMS,
    Content,
    accuracy_figure,
    accuracy_vs_axis,
    accuracy_vs_time,
    arrays_figure,
    chip_strips,
    chips_figure,
    clean_vs_late,
    clipping_by_layer,
    clipping_figure,
    clipping_map,
    conductance_histogram,
    conductance_map,
    conductances_figure,
    findings,
    gain_figure,
    labelled,
    layers_figure,
    lifetime_figure,
    lifetime_table,
    lost_figure,
    overlay_figure,
    overview_table,
    page,
    sensitivity_figure,
    sharpness_figure,
    strips_figure,
    study_figures,
    study_tables,
    table,
    training_figure,
    waterfall,
    waterfall_figure,
    write_report,
    yield_figure,
)
from analog_samson.report.axes import GAP, TimeAxis, log_axis
from analog_samson.report.datasheet import datasheet
from analog_samson.report.diagnostics import are_chips_of
from analog_samson.report.methods import KNOWN_METHODS, described_in, device_label, labels_from
from analog_samson.report.networks import MEASURES, correlations
from analog_samson.report.panels import LATE
from analog_samson.report.style import (
    _SPARE_MARKERS,
    marker_size,
    method_style,
    plot_options,
    style,
)
from analog_samson.report.words import interval_text
from analog_samson.results import (
    append_rows,
    best_methods,
    chip_means,
    lifetime,
    lost,
    network_means,
    paired_gain,
    read_trials,
    summarise,
)
from analog_samson.times import DAY, HOUR, MONTH, YEAR

METHODS = {"sgd": 0.95, "sam rho=0.1": 0.95, "samson rho=0.5": 0.95}


@pytest.fixture(scope="module")
def trials():
    pcm = make_trials(METHODS, seed=1, n_networks=3, n_chips=3)
    wan = make_trials(
        METHODS,
        seed=2,
        n_networks=3,
        n_chips=3,
        device="reram_wan2022",
        compensation="none",
        times_s=(1.0, DAY, 2 * DAY),
        measured_to_s=1e9,
    )
    return pd.concat([pcm, wan], ignore_index=True)


@pytest.fixture(scope="module")
def summary(trials):
    return summarise(trials)


def note(figure):
    return figure.get_supxlabel().replace("\u00a0", " ").replace("\n", " ")


def titles(figure):
    found = [ax.get_title(loc="left").replace("\u00a0", " ") for ax in figure.axes]
    return [title for title in found if title]


# over time


def test_markers_of_methods_that_coincide_stand_side_by_side(summary):
    rows = summary.query("device == 'pcm_like' and t_inference_s > 0")
    figure = Figure(figsize=(4, 3), dpi=100)
    with style("paper"):
        ax = figure.subplots()
        accuracy_vs_time(ax, rows.assign(accuracy=0.95, low=0.94, high=0.96))
        size_px = matplotlib.rcParams["lines.markersize"] / 72 * figure.dpi
    markers = [
        line for line in ax.lines if line.get_marker() in "osDv" and len(line.get_xdata()) > 1
    ]
    first = sorted(ax.transData.transform(line.get_xydata()[0])[0] for line in markers)
    assert len(first) == 3
    assert np.diff(first).min() >= 0.9 * size_px
    low, high = ax.get_xlim()
    inside = np.concatenate([line.get_xdata() for line in markers])
    assert low < inside.min() < inside.max() < high


def test_lines_between_extrapolated_times_are_dashed(summary):
    ax = Figure().subplots()
    accuracy_vs_time(ax, summary.query("device == 'pcm_like' and t_inference_s > 0"))
    color = plot_options("sgd", ["sgd"])["color"]
    own = [
        line
        for line in ax.lines
        if line.get_color() == color and len(line.get_xdata()) > 1 and line.get_marker() == "None"
    ]
    known, late = (line for line in own if line.get_xdata()[0] > 0.5)  # not that of digital ones
    assert not known.is_dashed()
    assert late.is_dashed()
    assert known.get_xdata()[-1] == late.get_xdata()[0] < 2 * DAY
    assert late.get_xdata()[-1] > YEAR / 2
    assert tuple(late._unscaled_dash_pattern[1]) == LATE


def test_every_method_has_the_line_of_its_digital_networks(summary):
    rows = summary.query("device == 'pcm_like'")
    ax = Figure().subplots()
    accuracy_vs_time(ax, rows)
    place = dict(zip([t.get_text() for t in ax.get_xticklabels()], ax.get_xticks(), strict=True))
    at_digital = [line for line in ax.lines if max(line.get_xdata()) < 3 * place["digital"]]
    lines = [line for line in at_digital if line.get_marker() == "None"]
    marks = [line for line in at_digital if line.get_marker() in "osDv"]
    assert len(lines) == len(marks) == len(METHODS)
    names = sorted(METHODS)
    expected = {
        (
            plot_options(name, names)["color"],
            plot_options(name, names)["marker"],
            round(100 * own["clean_accuracy"].mean(), 6),
        )
        for name in names
        for own in [rows[rows["method"] == name.split(" ")[0]]]
    }
    found = {(m.get_color(), m.get_marker(), round(float(m.get_ydata()[0]), 6)) for m in marks}
    assert found == expected
    assert {(c, y) for c, _, y in expected} == {
        (line.get_color(), round(line.get_ydata()[0], 6)) for line in lines
    }


def test_dashes_mean_extrapolation_and_nothing_else(trials, summary):
    chips = chip_means(trials)
    figures = (
        accuracy_figure(summary),
        lost_figure(lost(trials)),
        overlay_figure(summary, ["device"]),
        yield_figure(chips, 0.9),
    )
    for figure in figures:
        dashed = [
            (ax, line) for ax in figure.axes for line in ax.lines if line.get_linestyle() == "--"
        ]
        known = [(ax, line) for ax, line in dashed if line.get_xdata()[-1] < MONTH]
        assert not known
        entries = figure.legends[0].legend_handles
        named = [h.get_label() for h in entries if h.get_linestyle() == "--"]
        assert named == (["extrapolated"] if dashed else [])
    assert "extrapolated" not in [
        text.get_text()
        for text in accuracy_figure(summary.query("not extrapolated")).legends[0].get_texts()
    ]


def maintained(times_s, is_late):
    """A summary of one method and device, with times beyond its measurements."""
    rows = make_trials({"sgd": 0.9}, n_networks=3, n_chips=2, times_s=times_s)
    rows["extrapolated"] = rows["t_inference_s"].map(dict(zip(times_s, is_late, strict=True)))
    return summarise(rows)


def test_points_of_a_refreshed_chip_are_connected_in_the_order_of_time():
    times_s, is_late = (DAY, 29 * DAY, MONTH, 359 * DAY, YEAR), (False, True, False, True, False)
    ax = Figure().subplots()
    accuracy_vs_time(ax, maintained(times_s, is_late))
    lines = [line for line in ax.lines if line.get_marker() == "None"]
    drawn = [line for line in lines if len(set(line.get_ydata())) > 1 or len(line.get_xdata()) > 2]
    (line,) = [line for line in drawn if len(line.get_xdata()) == len(times_s)]
    assert line.get_linestyle() == "--" and (np.diff(line.get_xdata()) > 0).all()


@pytest.mark.parametrize(
    ("condition", "expected"),
    [
        ("{}", [(10.3, 365)]),
        ('{"temperature_C": 25.0}', [(30, 365)]),
        ('{"refresh_every": 7776000.0}', [(10.3, 90), (100.3, 180), (190.3, 270), (280.3, 360)]),
    ],
)
def test_shading_begins_at_the_limit_of_the_device(tmp_path, condition, expected):
    """30 d at 25 °C are 10.3 d at 55 °C with 0.3 eV: a factor of 2.91; after a refresh, again."""
    temperature = {"reference_C": 25.0, "activation_energy_eV": 0.3, "source": "ours"}
    device = {
        "technology": "FeFET",
        "times": {"measured_to_s": MONTH},
        "temperature": {**temperature, "temperature_C": 55.0},
        "refresh_every": "never",
    }
    (tmp_path / "manifest.json").write_text(json.dumps({"devices": {"pcm_like": device}}))
    rows = maintained((DAY, MONTH, YEAR), (False, True, True)).assign(condition=condition)
    ax = Figure().subplots()
    with described_in([tmp_path]):
        accuracy_vs_time(ax, rows)
    spans = [(one.get_x() / DAY, (one.get_x() + one.get_width()) / DAY) for one in ax.patches]
    assert len(spans) >= len(expected)
    for (begin, end), (true_begin, true_end) in zip(spans, expected, strict=False):
        assert begin == pytest.approx(true_begin, rel=0.01)
        assert end >= 0.99 * true_end


def test_ticks_are_at_the_times_that_were_measured(summary):
    rows = summary.query("device == 'reram_wan2022' and t_inference_s > 0")
    ax = accuracy_figure(rows, width="one column").axes[0]
    texts = [text.get_text().strip() for text in ax.get_xticklabels()]
    assert texts == ["digital", "1 s", "1 d", "2 d"]
    np.testing.assert_allclose(ax.get_xticks()[1:], [1.0, DAY, 2 * DAY])


@pytest.mark.parametrize("times_s", [
    (20.0, 60.0, 200.0, 600.0, HOUR, 6 * HOUR, DAY, MONTH, YEAR),
    tuple(10.0**k for k in range(1, 11)),
])  # fmt: skip
def test_many_times_that_do_not_begin_at_a_second_have_an_axis(times_s):
    rows = make_trials({"sgd": 0.9}, n_networks=3, n_chips=2, times_s=times_s)
    figure = accuracy_figure(summarise(rows), width="one column")
    texts = [text.get_text() for text in figure.axes[0].get_xticklabels()]
    assert sum(map(bool, texts)) >= 3
    early = make_trials({"sgd": 0.9}, n_networks=3, n_chips=2, times_s=(0.1, HOUR))
    assert lifetime_figure(lifetime(early, 0.005)).axes


def test_arrows_of_lifetimes_go_from_the_bound_to_the_edge(trials):
    lives = lifetime(trials, 0.5)
    assert set(lives["censored"]) == {"right"}
    figure = lifetime_figure(lives)
    figure.draw_without_rendering()
    for ax, last in zip(figure.axes, (YEAR, 2 * DAY), strict=True):
        arrows = [text for text in ax.texts if text.arrow_patch is not None]
        assert len(arrows) == len(METHODS)
        assert {text.get_position()[0] for text in arrows} == {last}
        ends = [text.arrow_patch.get_window_extent() for text in arrows]
        bound, right = ax.transData.transform((last, 0))[0], ax.get_window_extent().x1
        drawn = [(own.x0, own.x1) for own in ends]
        np.testing.assert_allclose(drawn, [(bound, right)] * len(METHODS), atol=5)  # pixels
        assert ax.get_xlabel() == "time until 50 points of accuracy are lost"
    late, known = ({text.get_text() for text in ax.texts} - {""} for ax in figure.axes)
    assert (late, known) == ({"> 1 y†"}, {"> 2 d"})
    assert [len(ax.patches) for ax in figure.axes] == [1, 0]  # shaded
    assert "Shaded and †: beyond the time" in note(figure)
    assert "1 mo = 30 d; 1 y = 365 d" in note(figure)


def test_intervals_without_lower_bound_are_drawn_to_the_edge():
    rows = make_trials({"sgd": 0.5}, slope=0.005, std_networks=0.03, times_s=(1.0, HOUR, YEAR))
    lives = lifetime(rows, 0.04)
    assert lives[["low_s", "censored"]].to_numpy().tolist() == [[0.0, ""]]
    figure = lifetime_figure(lives)
    figure.draw_without_rendering()
    ax = figure.axes[0]
    lefts = [text.arrow_patch.get_window_extent().x0 for text in ax.texts if text.arrow_patch]
    assert min(lefts) == pytest.approx(ax.get_window_extent().x0, abs=5)


def test_extrapolated_bounds_of_lifetimes_carry_the_mark():
    options = {"times_s": (1.0, HOUR, YEAR), "std_networks": 0.0, "std_chips": 0.0}
    rows = make_trials({"sgd": 0.5}, slope=0.005, n_images_per_chip=10**9, **options)
    (found,) = lifetime(rows, 0.035).to_dict("records")
    assert (found["low_s"], found["high_s"], found["measured_s"]) == (HOUR, YEAR, HOUR)
    made = lifetime_table([lifetime(rows, 0.035)])
    assert "(1 h to 1 y†)" in made.markdown()
    assert "† beyond the time" in made.caption


def test_captions_say_that_methods_stand_side_by_side(summary):
    assert "Methods of one time stand side by side." in note(accuracy_figure(summary))


def test_captions_give_the_length_of_a_month_and_a_year(summary):
    assert "1 mo = 30 d; 1 y = 365 d." in note(accuracy_figure(summary))
    short = summary.query("device == 'reram_wan2022'")
    assert "365 d" not in note(accuracy_figure(short))


def test_the_programmed_state_is_drawn_where_asked(summary):
    with_break = [
        any("prog." in tick.get_text() for tick in ax.get_xticklabels())
        for asked in (False, True)
        for ax in accuracy_figure(summary, programmed=asked).axes
    ]
    assert with_break == [False, False, True, False]


def test_the_scatter_shows_digital_scores_where_they_are_and_the_line_of_no_loss(trials):
    late = network_means(chip_means(trials)).query(
        "device == 'pcm_like' and t_inference_s == @YEAR"
    )
    figure = Figure()
    ax = figure.subplots()
    clean_vs_late(ax, late)
    points = [line for line in ax.lines if line.get_marker() not in ("None", "")]
    x = [
        ax.transData.inverted().transform(line.get_transform().transform(line.get_xydata()))[:, 0]
        for line in points
    ]
    np.testing.assert_allclose(np.sort(np.concatenate(x)), np.sort(100 * late["clean_accuracy"]))
    (line,) = [line for line in ax.lines if line not in points]
    np.testing.assert_array_equal(line.get_xdata(), line.get_ydata())


def test_strips_have_the_networks_of_one_seed_at_one_place(trials):
    late = chip_means(trials).query("device == 'pcm_like' and t_inference_s == @YEAR")
    late = late[~((late["method"] == "sam") & (late["training_seed"] == 1))]
    names = {"a": 2, "b": 1, "c": 0}  # names in another order than the seeds
    codes = {seed: name for name, seed in names.items()}
    late = late.assign(checkpoint=late["method"] + late["training_seed"].map(codes))
    ax = Figure().subplots()
    chip_strips(ax, late)
    means = [line for line in ax.lines if line.get_marker() == "None"]
    places = [float(np.mean(line.get_xdata())) for line in means]
    values = [line.get_ydata()[0] for line in means]
    of_seed = {}
    for place, value in zip(places, values, strict=True):
        for (_, seed), own in late.groupby(["method", "training_seed"]):
            if abs(100 * own["accuracy"].mean() - value) < 1e-9:
                of_seed.setdefault(seed, set()).add(round(place - round(place), 6))
    assert all(len(offsets) == 1 for offsets in of_seed.values())
    assert [min(of_seed[seed]) for seed in (0, 1, 2)] == sorted(min(o) for o in of_seed.values())


@pytest.mark.slow
def test_every_figure_says_n(trials):
    drawn = study_figures(trials)
    assert len(drawn) > 7
    for stem, figure in drawn.items():
        assert "n = 3 networks × 3 chips" in note(figure), stem


# stages, layers, sweeps


def stages(**columns):
    names = ("digital", "mapped", "programmed", "drifted", "compensated")
    return pd.DataFrame(
        [
            {"stage": name, "accuracy": value + 0.001 * chip, "chip": chip}
            for chip in range(2)
            for name, value in zip(names, (0.99, 0.99, 0.9895, 0.30, 0.985), strict=True)
        ]
    ).assign(checkpoint="a", device="pcm_like", t_inference_s=YEAR, **columns)


def test_small_and_large_changes_by_stage_are_both_visible():
    figure = Figure(figsize=(4, 3))
    ax = figure.subplots()
    waterfall(ax, stages())
    np.testing.assert_allclose(
        [bar.get_width() for bar in ax.patches], [0, -0.05, -68.95, 68.5], atol=1e-9
    )
    widths = [bar.get_window_extent().width for bar in ax.patches]
    whole = ax.get_window_extent().width
    assert widths[1] > 0.03 * whole
    assert widths[2] < whole / 2
    assert [text.get_text() for text in ax.texts][-1] == "+68.5 → 98.6"


def test_bars_of_changes_are_paired_by_chip():
    ax = Figure().subplots()
    waterfall(ax, stages())  # both chips change by the same, and differ by 0.1 points
    (bars,) = ax.containers[-1].errorbar.lines[2]
    ends = np.array([segment[:, 0] for segment in bars.get_segments()])
    np.testing.assert_allclose(ends[:, 0], ends[:, 1], atol=1e-9)


@pytest.mark.parametrize("extrapolated", [True, False])
def test_extrapolated_times_of_stages_and_layers_are_marked(extrapolated):
    rows = stages(extrapolated=extrapolated)
    layers = rows.rename(columns={"stage": "layer"}).assign(clean_accuracy=0.99)
    for figure in (
        waterfall_figure(rows, {"a": "sgd"}),
        layers_figure(layers, {"a": "sgd"}),
    ):
        assert titles(figure) == [f"SGD\nPCM, 1 y{'†' if extrapolated else ''}"]
        assert ("† beyond the time" in note(figure)) == extrapolated
        assert note(figure).startswith("n = 1 network × 2 chips")


@pytest.mark.slow
def test_stages_of_earlier_versions_take_the_mark_from_the_rows(trials, tmp_path):
    stages().assign(checkpoint="sgd--0").to_csv(tmp_path / "waterfall.csv", index=False)
    drawn = study_figures(trials, folders=[tmp_path])
    assert "1 y†" in titles(drawn["waterfall"])[0]


@pytest.mark.slow
def test_titles_mark_extrapolated_times_as_tables_do(trials):
    drawn = study_figures(trials)
    assert titles(drawn["strips"]) == [
        "PCM, global compensation, 1 y†",
        "ReRAM, no compensation, 2 d",
    ]
    assert "† beyond the time" in note(drawn["scatter"])


def swept(axis, values, **others):
    return pd.concat(
        [
            make_trials(
                {"sgd": 0.95 - 0.02 * value, "sam": 0.95},
                seed=k,
                n_networks=2,
                n_chips=2,
                times_s=(DAY,),
                condition=json.dumps({axis: value}),
                **others,
            ).assign(chip_id=lambda rows, k=k: rows["chip_id"] + f"{axis}{k}")
            for k, value in enumerate(values)
        ],
        ignore_index=True,
    )


@pytest.mark.slow
def test_numbers_of_a_sweep_are_at_their_place_and_the_nominal_value_is_marked():
    rows = swept("drift_scale", [0.0, 0.5, 2.0])
    ax = Figure().subplots()
    accuracy_vs_axis(ax, summarise(rows), "drift_scale", nominal=1.0)
    for line in ax.lines:
        if line.get_marker() in ("o", "s"):
            assert line.get_transform() == ax.transData
            assert list(line.get_xdata()) == [0.0, 0.5, 2.0]
    assert any(list(line.get_xdata()) == [1.0, 1.0] for line in ax.lines)
    assert "Vertical line" in note(study_figures(rows)["axis_drift_scale"])


def test_the_nominal_value_is_that_of_the_device(trials):
    content = Content(trials)
    pcm = load_device("pcm_like")
    assert content.nominal("pcm_like", "drift_scale") == 1.0
    assert content.nominal("pcm_like", "output_noise") == pcm.periphery.output_noise
    assert content.nominal("pcm_like", "mapping.max_rows") == pcm.mapping.max_rows
    assert content.nominal("unknown", "drift_scale") is None


@pytest.mark.slow
def test_sensitivities_share_one_relative_axis():
    own = load_device("pcm_like").periphery.output_noise
    rows = pd.concat(
        [swept("drift_scale", [0.0, 1.0, 2.0]), swept("output_noise", [0.0, own, 2 * own])]
    )
    figure = study_figures(rows)["sensitivity"]
    third = study_figures(pd.concat([rows, swept("read_noise_1f_scale", [0.0, 1.0])]))
    assert "sensitivity" in third and not [name for name in third if "map" in name]  # no grid
    assert len(figure.axes) == 2  # a panel a method
    for ax in figure.axes:
        curves = [line for line in ax.lines if len(line.get_xdata()) == 3]
        curves = [line for line in curves if line.get_marker() not in ("None", "_", "|")]
        assert len(curves) == 2
        for line in curves:
            np.testing.assert_allclose(line.get_xdata(), [0.0, 1.0, 2.0])
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["drift", "output noise"]
    assert "sensitivity" not in study_figures(rows.iloc[: len(rows) // 2])


def test_sources_without_a_size_are_named():
    rows = pd.concat([swept("drift_scale", [0.0, 1.0]), swept("ir_drop", [0.0, 1.0])])
    summary = summarise(rows)
    figure = sensitivity_figure(summary, {("pcm_like", "drift_scale"): 1.0})
    assert "Not shown, of no size or unknown: ir drop" in note(figure)
    with pytest.raises(ValueError, match="No numeric setting"):
        sensitivity_figure(summary, {})


def test_sweeps_that_share_the_device_as_it_is_are_read_together(tmp_path):
    first, second = swept("drift_scale", [1.0]), swept("programming_noise_scale", [1.0])
    second["chip_id"] = first["chip_id"]
    for name, rows in (("a", first), ("b", second)):
        (tmp_path / name).mkdir()
        append_rows(rows, tmp_path / name / "trials.csv")
    both = read_trials(tmp_path / "a", tmp_path / "b")
    assert len(both) == len(first) + len(second)
    assert both.groupby("condition")["n_correct"].sum().nunique() == 1
    (tmp_path / "c").mkdir()
    append_rows(second.assign(n_correct=second["n_correct"] - 1), tmp_path / "c" / "trials.csv")
    with pytest.raises(ValueError, match="differ in n_correct"):
        read_trials(tmp_path / "a", tmp_path / "c")


# words, styles, widths, labels


@pytest.mark.slow
def test_captions_have_the_words_of_a_paper():
    rows = make_trials(
        {"sgd": 0.9}, dataset="mnist", model="lenet5", engine="compiled", n_networks=3
    )
    made = study_tables(rows)["accuracy"]
    assert made.caption.startswith("LeNet-5 on MNIST (on these 1,000,000 test samples), global")
    assert made.blocks[0].title == "PCM"
    assert "fp32" not in made.caption
    with_details = study_tables(rows, details=True)["accuracy"]
    assert "compiled engine, fp32" in with_details.caption


def test_devices_of_one_technology_keep_their_names(trials):
    both = pd.concat([trials, make_trials(METHODS, device="pcm_hermes", n_networks=3, n_chips=3)])
    names = [block.title for block in table(summarise(both)).blocks]
    assert names == [
        "PCM (pcm_hermes), global compensation",
        "PCM (pcm_like), global compensation",
        "ReRAM, no compensation",
    ]


@pytest.mark.slow
def test_no_two_devices_of_a_figure_have_one_label():
    with labelled({"pcm_like": "ours", "reram_wan2022": "ours"}):
        devices = ["pcm_like", "reram_wan2022", "pcm_hermes"]
        assert [device_label(one, devices) for one in devices] == [
            "ours (pcm_like)",
            "ours (reram_wan2022)",
            "PCM (pcm_hermes)",
        ]
        assert device_label("pcm_like", ["pcm_like"]) == "ours"
    names = ["PCM", "pcm_like"]  # a device of no technology that is called as one
    assert [device_label(one, names) for one in names] == ["PCM", "PCM (pcm_like)"]


def test_labels_of_the_caller_are_used_everywhere(trials):
    labels = {"samson": "SAMSON (ours)", "pcm_like": "our PCM", "sam rho=0.1": "SAM"}
    tables, drawn = study_tables(trials, labels=labels), study_figures(trials, labels=labels)
    assert list(tables["accuracy"].blocks[0].cells["method"]) == [
        "SGD",
        "SAM",
        "SAMSON (ours) ρ = 0.5",
    ]
    assert titles(drawn["accuracy"])[0] == "our PCM, global compensation"
    legend = [text.get_text() for text in drawn["accuracy"].legends[0].get_texts()]
    assert "SAMSON (ours) ρ = 0.5" in legend
    with pytest.raises(ValueError, match="must be a text"), labelled({"sgd": " "}):
        pass


def test_labels_are_read_from_the_command_line():
    known = ["samson", "samson rho=0.5", "sam rho=0.1"]
    given = ["samson=SAMSON (ours)", "sam rho=0.1=SAM, ρ = 0.1"]
    assert labels_from(given, known) == {
        "samson": "SAMSON (ours)",
        "sam rho=0.1": "SAM, ρ = 0.1",
    }
    with pytest.raises(ValueError, match="Did you mean 'samson'"):
        labels_from(["samsun=x"], known)
    with pytest.raises(ValueError, match="got 'samson', without '='. Write samson=\"Label\""):
        labels_from(["samson"], known)


def test_a_figure_displays_itself_in_a_notebook_without_a_backend(summary):
    figure = accuracy_figure(summary)
    data, size = figure._repr_png_()
    image = matplotlib.image.imread(io.BytesIO(data))
    width, height = figure.get_size_inches() * figure.dpi
    assert image.shape[:2] == (int(height), int(width))
    assert size["width"] == round(100 * figure.get_size_inches()[0])
    formatter = pytest.importorskip("IPython.core.formatters").DisplayFormatter()
    shown, _ = formatter.format(figure)
    assert shown["image/png"] == data


def test_the_correlation_with_sharpness_is_corrected_over_the_panels(trials):
    late = network_means(chip_means(trials)).query("t_inference_s in (@YEAR, 2 * @DAY)")
    late = late[(late["device"] == "reram_wan2022") | (late["t_inference_s"] == YEAR)]
    random = np.random.default_rng(0)
    names = late["checkpoint"].unique()
    columns = {measure: random.uniform(1, 2, len(names)) for measure in MEASURES}
    sharpness = pd.DataFrame({"checkpoint": names, "sigma": 0.05, "rho_adaptive": 0.5, **columns})
    panels = [(part, measure) for _, part in late.groupby("device") for measure in MEASURES]
    alone = [correlations([panel], sharpness)[0].p_within for panel in panels]
    together = [one.p_within for one in correlations(panels, sharpness)]
    smallest = int(np.argmin(alone))
    assert together[smallest] == pytest.approx(min(1.0, 6 * alone[smallest]))
    assert min(together) > 0
    figure = sharpness_figure(late, sharpness)
    assert "Holm's correction over the 6 panels" in note(figure)
    texts = " ".join(titles(figure))
    for p in together:
        assert f"(p = {p:.2g})" in texts


@pytest.mark.parametrize("moved", [0.0, 0.001])
def test_the_waterfall_says_whether_its_chips_are_those_of_the_table(trials, moved):
    chips = chip_means(trials).query("device == 'pcm_like' and t_inference_s == @YEAR")
    last = chips[["checkpoint", "device", "t_inference_s", "chip", "accuracy"]]
    last = last.assign(stage="compensated", accuracy=last["accuracy"] + moved)
    rows = pd.concat([last.assign(stage="digital", accuracy=0.95), last])
    assert are_chips_of(rows, chips) == (moved == 0)


def test_changes_by_stage_have_as_many_digits_as_the_chips_justify():
    random = np.random.default_rng(0)
    names = ("digital", "programmed", "drifted")
    rows = pd.DataFrame(
        [
            {"stage": name, "chip": chip, "accuracy": 0.9 - 0.1 * k + 0.2 * random.uniform()}
            for chip in range(4)
            for k, name in enumerate(names)
        ]
    )
    ax = Figure().subplots()
    waterfall(ax, rows.assign(checkpoint="a"))
    texts = [text.get_text() for text in ax.texts]
    assert all("." not in text for text in texts), "the standard errors are about 4 points"


def test_a_style_sheet_and_a_width_of_ones_own(summary, tmp_path):
    sheet = tmp_path / "my.mplstyle"
    sheet.write_text("axes.titlesize: 5\nfont.family: serif\n")
    figure = accuracy_figure(summary, look=str(sheet), width="3.5")
    assert figure.get_size_inches()[0] == 3.5
    first, second = figure.axes
    assert first.title.get_fontsize() == 5
    assert first._left_title.get_fontfamily() == ["serif"]
    assert first.get_position().y0 > second.get_position().y0  # one panel below the other
    assert len({ax.get_position().y0 for ax in accuracy_figure(summary, width=7).axes}) == 1
    with pytest.raises(ValueError, match="1 to 40 inches"):
        accuracy_figure(summary, width=0.1)
    with pytest.raises(FileNotFoundError, match="no style sheet"):
        accuracy_figure(summary, look="none.mplstyle")


def test_fonts_and_colours_of_the_caller_are_kept(summary):
    own = {
        "font.family": "monospace",
        "axes.labelsize": 13,
        "text.color": "#123456",
        "axes.prop_cycle": matplotlib.cycler(color=["#ff0000", "#00ff00", "#0000ff"]),
    }
    with matplotlib.rc_context(own):
        figure = accuracy_figure(summary)
    ax = figure.axes[0]
    assert ax.yaxis.label.get_fontsize() == 13
    assert ax.yaxis.label.get_fontfamily() == ["monospace"]
    assert figure.legends[0].get_texts()[0].get_color() == "#123456"
    handles = figure.legends[0].legend_handles[:3]  # then "extrapolated"
    assert [handle.get_color() for handle in handles] == [
        (1.0, 0.0, 0.0),
        (0.0, 1.0, 0.0),
        (0.0, 0.0, 1.0),
    ]


@pytest.mark.slow
def test_compensations_and_devices_are_laid_over_each_other(trials):
    other = trials.query("device == 'pcm_like'").assign(compensation="none")
    other["chip_id"] += "-none"
    rows = pd.concat([trials.query("device == 'pcm_like'"), other])
    figure = study_figures(rows, overlay=["compensation"])["overlay"]
    assert len(figure.axes) == 1
    legend = [text.get_text() for text in figure.legends[0].get_texts()]
    assert len(legend) == 7
    assert {"SGD, no compensation", "extrapolated"} < set(legend)
    looks = {(h.get_color(), h.get_marker()) for h in figure.legends[0].legend_handles}
    assert len(looks) == 7
    drawn = dict(zip(legend, figure.legends[0].legend_handles, strict=True))
    for method in ("sgd", "sam", "samson"):  # of the first compensation as in all other figures
        (own,) = [h for t, h in drawn.items() if f"{method.upper()} " in f"{t} ".replace(",", " ")
                  and "global" in t]  # fmt: skip
        assert (to_hex(own.get_color()).upper(), own.get_marker()) == method_style(method)
    alone = overlay_figure(summarise(trials.query("method == 'sgd'")), ["device"])
    assert [text.get_text() for text in alone.legends[0].get_texts()] == [
        "PCM, global compensation",
        "ReRAM, no compensation",
        "extrapolated",
    ]
    assert "overlay" not in study_figures(trials)
    with pytest.raises(ValueError, match="Overlay takes some of"):
        overlay_figure(summarise(trials), ["method"])


@pytest.mark.slow
def test_studies_are_laid_over_each_other_each_with_its_own_mean(trials):
    one = trials.query("device == 'pcm_like' and method == 'sgd'").assign(study="first")
    two = one.assign(study="second", n_correct=one["n_correct"] - 50_000)
    two[["chip_id", "checkpoint"]] += "-2"
    two["training_seed"] += 10
    figure = study_figures(pd.concat([one, two]), overlay=["study"], scale="accuracy")["overlay"]
    legend = figure.legends[0]
    assert [text.get_text() for text in legend.get_texts()] == ["first", "second", "extrapolated"]
    colours = [handle.get_color() for handle in legend.legend_handles[:2]]
    late = []
    for colour in colours:
        lines = [line for line in figure.axes[0].lines if line.get_color() == colour]
        late.append(next(x.get_ydata()[-1] for x in lines if x.get_marker() in ("o", "D")))
    assert late[0] - late[1] == pytest.approx(5.0)


@pytest.mark.slow
def test_a_table_stays_in_one_column_where_it_fits():
    def lines(times_s):
        rows = make_trials({"sgd": 0.9, "sam": 0.9}, times_s=times_s, n_networks=3)
        return study_tables(rows)["gain"].latex()

    assert r"\begin{table}" in lines((1.0,))
    assert r"\small" in lines((1.0,))
    middle = lines((1.0, DAY, MONTH))
    assert r"\begin{table}" in middle
    assert r"\footnotesize" in middle
    assert r"\begin{table*}" in lines((0.0, 1.0, HOUR, DAY, MONTH, YEAR))


def test_datasheets_mark_extrapolated_times_and_have_the_style_of_papers():
    figure = datasheet(load_device("pcm_like"), measure(load_device("pcm_like"), n=20))
    named = [text.get_text() for text in figure.axes[3].get_xticklabels()]
    assert "1 y†" in named
    assert not any("*" in name for name in named)
    assert "† beyond the time" in note(figure)
    assert "n = 20 cells" in note(figure)
    assert figure.get_size_inches()[0] == 7.0
    assert not figure.axes[0].spines["top"].get_visible()


# page


@pytest.fixture(scope="module")
def written(trials, tmp_path_factory):
    folder = tmp_path_factory.mktemp("study")
    append_rows(trials.query("method != 'sam'"), folder / "trials.csv")
    stages().assign(checkpoint="sgd--0").to_csv(folder / "waterfall.csv", index=False)
    write_report(folder)
    return (folder / "report.html").read_text(encoding="utf-8")


@pytest.mark.slow
def test_figures_of_the_page_keep_their_letters_readable(written):
    least = [int(px) for px in re.findall(r"<img style='min-width:(\d+)px'", written)]
    assert len(least) == written.count("<img ")
    for px in least:  # the smallest letters are 6.4 pt where the figure is 7 in wide
        assert px / (7.0 * 72) * 6.4 > 9.5
    assert "figure > div, figure.table { overflow-x: auto; }" in written
    assert "img { min-width: 0 !important; }" in written
    slim = page._image(Figure(figsize=(3.4, 2)), "one column")
    assert int(re.search(r"min-width:(\d+)px", slim)[1]) < 390


def test_alternative_texts_of_layers_and_stages_tell_methods_apart():
    names = {"a": "sgd", "b": "samson rho=0.5"}
    content = SimpleNamespace(names=names, by_task=lambda rows: {"": rows})
    rows = pd.DataFrame(
        {
            "checkpoint": ["a", "a", "b", "b"],
            "layer": ["fc1", "fc2"] * 2,
            "accuracy": [0.90, 0.80, 0.94, 0.95],
            "clean_accuracy": 0.96,
        }
    )
    assert findings.layers(content, rows) == (
        "SGD: most is lost by fc2: 16 percentage points. "
        "SAMSON ρ = 0.5: most is lost by fc1: 2 percentage points"
    )
    assert findings.layers(content, rows[:2]) == "Most is lost by fc2: 16 percentage points"


@pytest.mark.slow
def test_alternative_texts_say_the_main_number(written, trials):
    texts = [html.unescape(text) for text in re.findall(r"alt='([^']*)'", written)]
    accuracy = summarise(trials).query("t_inference_s == @YEAR and method != 'sam'")
    best = accuracy.loc[accuracy["accuracy"].idxmax()]
    assert "PCM, global compensation at 1 y (extrapolated): highest" in texts[0]
    assert f"{100 * best['accuracy']:.4g} %" in texts[0]
    assert all(re.search(r"\d", text) for text in texts)
    waterfall_text = next(text for text in texts if "stage by stage" in text)
    assert "the largest change is that of the stage drifted, −68.95" in waterfall_text


# cells, converters, networks


def counts():
    rows = []
    for state, shift in (("programmed", 0.0), ("read", -1.0)):
        for target in (0.5, 1.5, 2.5):
            value = max(target + shift, 0.5)
            rows.append(("a", "pcm_like", YEAR, True, 0, "fc", state, target, value, 1.0, 10))
    names = ("checkpoint", "device", "t_inference_s", "extrapolated", "chip", "layer", "state")
    return pd.DataFrame(rows, columns=[*names, "target_uS", "conductance_uS", "width_uS", "count"])


def test_histograms_of_conductances_have_the_counts():
    ax = Figure().subplots()
    conductance_histogram(ax, counts())
    assert [bar.get_height() for bar in ax.patches] == [10, 10, 10]
    programmed, read = ax.lines
    assert list(programmed.get_ydata()) == [10, 10, 10, 0]
    assert list(read.get_ydata()) == [20, 10, 0]
    assert list(read.get_xdata()) == [0, 1, 2]


def test_the_map_of_conductances_has_targets_across():
    ax = Figure().subplots()
    image = conductance_map(ax, counts(), "read")
    np.testing.assert_array_equal(
        np.nan_to_num(image.get_array().filled(0)), [[10, 10, 0], [0, 0, 10], [0, 0, 0]]
    )
    figure = conductances_figure(counts(), {"a": "sgd"})
    assert "n = 1 network × 1 chip, together 30 cells" in note(figure)
    assert titles(figure)[1:] == ["programmed", "after 1 y†"]


def clipped():
    keys = {"checkpoint": "a", "device": "pcm_like", "t_inference_s": YEAR, "extrapolated": True}
    rows = [
        {**keys, "chip": chip, "layer": layer, "array": array, "n_inputs": 100, "n_clipped": cut,
         "n_outputs": 50, "n_saturated": cut + chip}
        for chip in range(2)
        for layer, array, cut in (("conv", 0, 10), ("fc", 0, 0), ("fc", 1, 20))
    ]  # fmt: skip
    return pd.DataFrame(rows)


def test_a_figure_with_fewer_panels_than_networks_says_so():
    strengths = [f"rwp sigma={k / 100}" for k in range(1, 14)]
    many = pd.concat([clipped().assign(checkpoint=name) for name in strengths])
    figure = clipping_figure(many, {name: name for name in strengths})
    assert len(figure.axes) == 12 and "Drawn are the first 12 of 13." in note(figure)
    assert "Drawn" not in note(clipping_figure(clipped(), {"a": "sgd"}))


def test_shares_of_what_is_cut_off_by_layer_and_array():
    ax = Figure().subplots()
    clipping_by_layer(ax, clipped())
    inputs, outputs = ax.containers[1], ax.containers[3]
    assert [bar.get_width() for bar in inputs] == pytest.approx([10, 10])
    assert [bar.get_width() for bar in outputs] == pytest.approx([21, 21])
    shares = clipping_map(Figure().subplots(), clipped()).get_array()
    assert shares[0, 0] == pytest.approx(21)
    assert not np.isfinite(np.ma.filled(shares, np.nan)[0, 1])  # conv has one array
    assert list(shares[1]) == pytest.approx([1, 41])
    assert "n = 1 network × 2 chips" in note(arrays_figure(clipped(), {"a": "sgd"}))


@pytest.mark.slow
def test_files_beside_a_study_are_drawn(trials, tmp_path):
    clipped().assign(checkpoint="sgd--0").to_csv(tmp_path / "clipping.csv", index=False)
    counts().assign(checkpoint="sgd--0").to_csv(tmp_path / "conductances.csv", index=False)
    drawn = study_figures(trials, folders=[tmp_path])
    assert {"clipping", "arrays", "conductances"} <= set(drawn)
    assert titles(drawn["clipping"]) == ["SGD\nPCM, 1 y†"]


@pytest.fixture
def two_tasks(tmp_path):
    """Rows of one method on two data sets, of equal names otherwise, and what lies beside them."""
    digits = make_trials({"sgd": 0.9}, n_networks=1, n_chips=2, times_s=(1.0, YEAR))
    mnist = digits.assign(dataset="mnist", model="lenet5", chip_id=digits["chip_id"] + "-mnist")
    mnist["checkpoint"] = "b"
    rows = pd.concat([digits.assign(checkpoint="a"), mnist], ignore_index=True)
    late = stages(extrapolated=True)
    layers = late.rename(columns={"stage": "layer"}).assign(clean_accuracy=0.99)
    curves = pd.DataFrame(
        {"method": "sgd", "strength": "", "training_seed": 0, "epoch": range(3), "layer": "",
         "loss": [1.0, 0.5, 0.1], "offset_ratio": np.nan, "update_gradient_norm": 1.0,
         "checkpoint": "a"}
    )  # fmt: skip
    of_mnist = late.assign(accuracy=late["accuracy"] - 0.2)
    beside = {
        "waterfall": (late, of_mnist),
        "layers": (layers, layers.assign(accuracy=layers["accuracy"] / 2)),
        "conductances": (counts(), counts().assign(count=30)),
        "clipping": (clipped(), clipped().assign(n_saturated=50)),
        "training_curves": (curves, curves.assign(loss=2 * curves["loss"])),
    }
    for name, (first, other) in beside.items():
        both = pd.concat([first.assign(checkpoint="a"), other.assign(checkpoint="b")])
        both.to_csv(tmp_path / f"{name}.csv", index=False)
    return Content(rows, [tmp_path]), beside


ALONE = {
    "waterfall": lambda rows: waterfall_figure(rows, {"a": "sgd"}, are_of_study=False),
    "layers": lambda rows: layers_figure(rows, {"a": "sgd"}),
    "conductances": lambda rows: conductances_figure(rows, {"a": "sgd"}),
    "clipping": lambda rows: clipping_figure(rows, {"a": "sgd"}),
    "arrays": lambda rows: arrays_figure(rows, {"a": "sgd"}),
    "training": training_figure,
}


@pytest.mark.parametrize("name", ALONE)
def test_each_data_set_and_network_has_a_figure_of_its_own(two_tasks, name):
    content, beside = two_tasks
    (item,) = (item for item in ITEMS if item.name == name)
    drawn = item.figures(content)
    tasks = {"LeNet-5 on MNIST": 1, "MLP on digits": 0}
    assert list(drawn) == [f"{name}_{task}" for task in tasks]
    files = {"arrays": "clipping", "training": "training_curves"}
    for task, number in tasks.items():
        alone = ALONE[name](beside[files.get(name, name)][number].assign(checkpoint="a"))
        own = drawn[f"{name}_{task}"]
        assert shown(own) == shown(alone), "nothing of the other task"
        assert note(own) == f"{task}; {note(alone)}"
        assert item.title_of(f"{name}_{task}").endswith(f": {task}")
    told = item.finding_of(content)
    assert all(f"{task}: " in told for task in tasks)
    one = dataclasses.replace(content, rows=content.rows[content.rows["dataset"] == "digits"])
    assert list(item.figures(one)) == [name]
    assert "MLP" not in item.finding_of(one)


def shown(figure):
    """What the panels of a figure show: bars, lines, maps and their texts."""
    return [
        [
            [bar.get_width() for bar in ax.patches],
            [bar.get_height() for bar in ax.patches],
            [list(line.get_ydata()) for line in ax.lines],
            [np.ma.filled(image.get_array(), -1.0).tolist() for image in ax.images],
            [text.get_text() for text in ax.texts],
            ax.get_title(),
        ]
        for ax in figure.axes
    ]


def test_curves_that_name_no_network_are_drawn_where_one_task_has_them(two_tasks, tmp_path):
    content, _ = two_tasks
    file = tmp_path / "training_curves.csv"
    curves = pd.read_csv(file).query("checkpoint == 'a'").drop(columns="checkpoint")
    others = curves.assign(training_seed=1)  # a seed of one data set alone
    pd.concat([curves, others]).to_csv(file, index=False)
    mine = content.rows[content.rows["dataset"] == "digits"]
    more = mine.assign(training_seed=1, checkpoint="c", chip_id=mine["chip_id"] + "c")
    content = dataclasses.replace(content, rows=pd.concat([content.rows, more]))
    (item,) = (item for item in ITEMS if item.name == "training")
    (figure,) = item.figures(content).values()
    assert "n = 1 trainings" in note(figure)


def test_tasks_of_one_label_are_told_apart(two_tasks):
    content, _ = two_tasks
    alike = content.rows.assign(model="mlp", dataset=content.rows["dataset"] + ":signs")
    drawn = Content(alike, content.folders).by_task(pd.DataFrame({"checkpoint": ["a", "b"]}))
    assert list(drawn) == ["MLP on signs (mlp, digits:signs)", "MLP on signs (mlp, mnist:signs)"]


def test_the_yield_of_a_page_of_several_tasks_names_the_target_of_each(two_tasks):
    content, _ = two_tasks
    less = np.where(content.rows["dataset"] == "mnist", 300_000, 0)
    rows = content.rows.assign(n_correct=np.where(content.rows["chip"] == 0, 890_000, 920_000))
    names = ["n_correct", "n_correct_digital", "n_correct_digital_test"]
    content = Content(rows.assign(**{name: rows[name] - less for name in names}))
    goal = "accuracy of 90 % (MLP on digits), 60 % (LeNet-5 on MNIST) or more"
    (item,) = (item for item in ITEMS if item.name == "yield")
    (made,) = item.tables(content).values()
    assert made.title == f"Yield: chips with {goal} [%]"
    assert f"Share of chips with {goal}, with its" in made.caption
    assert made.data.groupby("dataset")["target"].unique().map(list).to_dict() == {
        "digits": [0.9], "mnist": [0.6]}  # fmt: skip
    assert goal in item.finding_of(content)
    (figure,) = item.figures(content).values()
    said = "Vertical line, where in range: 90 % (MLP on digits), 60 % (LeNet-5 on MNIST), the"
    assert said in note(figure)
    marked = {
        title.split(", ")[1]: [x.get_xdata()[0] for x in ax.lines if x.get_linestyle() == ":"]
        for title, ax in zip(titles(figure), figure.axes, strict=True)
    }
    assert marked == {"MLP on digits": [90.0], "LeNet-5 on MNIST": [60.0]}
    given = dataclasses.replace(content, target=0.7)
    assert "accuracy of 70 % or more [%]" in item.tables(given)["yield"].title


@pytest.mark.slow
def test_one_table_holds_every_network_and_data_set(trials):
    other = trials.assign(dataset="mnist", model="lenet5")
    other[["chip_id", "checkpoint"]] += "-mnist"
    rows = pd.concat([trials, other])
    made = study_tables(rows)["overview"]
    assert [block.title for block in made.blocks] == [
        "PCM, global compensation, 1 y†",
        "ReRAM, no compensation, 2 d",
    ]
    cells = made.blocks[0].cells
    assert list(cells["network"]) == ["MLP on digits", "LeNet-5 on MNIST"]
    late = summarise(rows).query("device == 'pcm_like' and t_inference_s == @YEAR")
    row = late.query("method == 'sgd' and dataset == 'mnist'").iloc[0]
    ends = f"({100 * row['low']:.2f} to {100 * row['high']:.2f})"
    assert cells["SGD"][1] == f"{100 * row['accuracy']:.2f} {ends}"
    assert "overview" not in study_tables(trials)
    shorter = rows[(rows["dataset"] == "digits") | (rows["t_inference_s"] <= DAY)]
    made = study_tables(shorter)["overview"]  # every task at its own last time
    assert [block.title for block in made.blocks] == [
        "PCM, global compensation, 1 d",
        "PCM, global compensation, 1 y†",
        "ReRAM, no compensation, 1 d",
        "ReRAM, no compensation, 2 d",
    ]
    drawn = strips_figure(chip_means(shorter))
    assert len(titles(drawn)) == 4 and any("MNIST" in title for title in titles(drawn))
    clear = pd.concat(
        [
            make_trials({"sgd": 0.8, "sam": 0.95}, dataset=name, times_s=(1.0,)).assign(
                chip_id=lambda own, name=name: own["chip_id"] + name,
                checkpoint=lambda own, name=name: own["checkpoint"] + name,
            )
            for name in ("digits", "mnist")
        ]
    )
    bold = overview_table(summarise(clear), best_methods(clear)).blocks[0].bold
    assert bold["SAM"].all()
    assert not bold["SGD"].any()


def test_the_caption_names_the_cells_that_are_not_resampled():
    """Methods with both kinds of intervals are named apart."""
    summary = pd.DataFrame(
        {"method": ["sgd", "sam", "sam", "rwp"], "strength": "", "level": "networks",
         "spread": ["bootstrap", "bootstrap", "floor", "between"], "half_width": 0.01,
         "confidence": 0.95}
    )  # fmt: skip
    said = interval_text(summary)
    assert "(bootstrap over networks; Student t for RWP and some times of SAM)" in said


@pytest.mark.parametrize("stem", ["gain", "saved"])
def test_bars_of_extrapolated_times_end_below_the_word(stem):
    pcm = make_trials(n_networks=4, n_chips=2, times_s=(1.0, DAY, YEAR))
    wan = make_trials(n_networks=4, n_chips=2, device="reram_wan2022", times_s=(1.0, DAY))
    figure = study_figures(pd.concat([pcm, wan], ignore_index=True))[stem]
    figure.canvas.draw()
    for ax in figure.axes:
        words = [text for text in ax.texts if text.get_text() == "extrapolated"]
        tops = [
            ax.transData.transform(path)[:, 1].max()
            for lines in ax.collections
            if hasattr(lines, "get_segments")
            for path in lines.get_segments()
        ]
        for word in words:
            assert max(tops) <= word.get_window_extent().y0


@pytest.mark.parametrize(
    ("low", "high", "is_shared"), [(0.80, 0.90, True), (0.10, 0.90, False), (0.10, 0.13, False)]
)
def test_panels_share_an_axis_that_all_can_be_read_on(summary, low, high, is_shared):
    rows = summary.query("t_inference_s > 0")
    pcm = rows["device"] == "pcm_like"
    rows = rows.assign(
        accuracy=np.where(pcm, np.linspace(low, high, len(rows)), np.linspace(0.8, 0.9, len(rows))),
        clean_accuracy=np.where(pcm, high, 0.9),
    )
    figure = accuracy_figure(rows.assign(low=rows["accuracy"] - 0.01, high=rows["accuracy"] + 0.01))
    left, right = figure.axes
    assert (left.get_ylim() == right.get_ylim()) is is_shared
    assert ("Vertical axes differ." in note(figure)) is not is_shared
    shown = [label.get_visible() for label in right.yaxis.get_ticklabels()]
    assert any(shown) is not is_shared
    for ax in figure.axes:
        ends = ax.get_ylim()
        drawn = np.concatenate([line.get_ydata() for line in ax.lines if len(line.get_xdata()) > 2])
        assert ends[0] <= drawn.min() and drawn.max() <= ends[1]


def test_a_row_of_chips_is_labelled_where_its_device_lacks_the_first_method(trials):
    lacks = (trials["device"] == "reram_wan2022") & (trials["method"] == "sgd")
    figure = chips_figure(chip_means(trials[~lacks]))
    labelled_panels = [ax for ax in figure.axes if ax.axison and ax.get_ylabel()]
    assert len(labelled_panels) == 2


def test_spare_markers_have_a_face_whose_colour_is_seen():
    assert set(_SPARE_MARKERS) <= set(matplotlib.lines.Line2D.filled_markers)
    shown = {method_style(method).marker for method in KNOWN_METHODS}
    assert not shown & set(_SPARE_MARKERS)


def test_methods_of_other_packages_are_told_apart_whatever_their_names():
    names = [f"mine:method{k}" for k in range(40)]
    alike = [name for name in names if method_style(name) == method_style(names[0])][:2]
    drawn = ["sgd", "samson rho=0.5", *alike]
    first, other = (plot_options(name, drawn) for name in alike)
    assert first["color"] != other["color"]
    assert plot_options(alike[1], drawn[::-1]) == other, "the same in any order"
    assert (to_hex(first["color"]).upper(), first["marker"]) == method_style(alike[0])
    for name in (alike[1], "samson rho=0.5"):  # alone, and a method of ours beside others
        beside = [name] if name in alike else drawn
        options = plot_options(name, beside)
        own = method_style(name.split(" ")[0])
        assert (to_hex(options["color"]).upper(), options["marker"]) == own
    twenty = {(look["color"], look["marker"]) for name in names[:20]
              for look in [plot_options(name, names[:20])]}  # fmt: skip
    assert len(twenty) == 20


def test_the_style_that_a_method_states_is_kept_and_others_give_way(tmp_path):
    auto, colour, _ = "mine:auto", *method_style("mine:auto")
    stated = {"mine:stated": {"label": "Stated", "colour": colour.lower(), "marker": "H"}}
    (tmp_path / "manifest.json").write_text(json.dumps({"methods": stated}))
    with described_in([tmp_path]):
        first, other = (plot_options(name, ["mine:stated", auto]) for name in ("mine:stated", auto))
    assert (to_hex(first["color"]).upper(), first["marker"]) == (colour, "H")
    assert to_hex(other["color"]).upper() != colour


def test_a_method_keeps_its_marker_where_the_baseline_is_not_drawn(trials):
    clipped = trials[trials["method"] == "sgd"].assign(strength="clip_weights=2")
    clipped = clipped.assign(
        chip_id=clipped["chip_id"] + "c", checkpoint=clipped["checkpoint"] + "c"
    )
    rows = pd.concat([trials, clipped])
    gains = paired_gain(chip_means(rows))
    faces = []
    for figure in (accuracy_figure(summarise(chip_means(rows))), gain_figure(gains)):
        (entry,) = [
            handle
            for legend in figure.legends
            for handle, text in zip(legend.legend_handles, legend.get_texts(), strict=True)
            if text.get_text() == "SGD clipped at 2 std"
        ]
        faces.append(entry.get_markerfacecolor())
    assert faces == ["white", "white"]


@pytest.mark.parametrize("draw", [lifetime_figure, strips_figure])
def test_many_methods_are_named_by_their_markers(draw):
    means = {f"samson rho={k}": 0.9 for k in range(1, 9)}
    rows = make_trials(means, n_networks=2, n_chips=2)
    given = lifetime(rows, 0.05) if draw is lifetime_figure else chip_means(rows)
    figure = draw(given)
    assert len(figure.legends[0].get_texts()) == 8
    (ax,) = figure.axes
    axis = ax.yaxis if draw is lifetime_figure else ax.xaxis
    assert not axis.get_ticklabels()
    few = given[given["strength"].isin(["rho=1", "rho=2"])]
    figure = draw(few)
    assert not figure.legends


@pytest.mark.parametrize(
    ("low", "high", "shown"),
    [
        (0.0208, 0.0362, ["0.025", "0.03", "0.035"]),  # between 2 and 5: none of 1, 2, 5
        (0.083, 0.119, ["0.09", "0.1", "0.11"]),  # one of them
        (0.02, 0.09, ["0.02", "0.05"]),
        (0.5, 500, ["1", "10", "100"]),
    ],
)
def test_a_narrow_logarithmic_axis_has_few_ticks_and_more_than_one(low, high, shown):
    figure = Figure()
    ax = figure.subplots()
    log_axis(ax.set_xscale, ax.xaxis)
    ax.set_xlim(low, high)
    figure.canvas.draw()
    ticks = [t.get_text() for t in ax.get_xticklabels() if low <= t.get_position()[0] <= high]
    assert ticks == shown


def test_digital_networks_stay_left_of_the_break_of_the_axis():
    """Nine methods beside each other in half of a page, and few, whose markers are not moved."""
    axis = TimeAxis(pd.Series([3600.0, 86400.0, YEAR]))
    with style():
        figure = Figure(figsize=(3.4, 2.5))
        ax = figure.subplots()
        many, few = (axis.shifts(n, ax) for n in (9, 3))
        step = 1.1 * marker_size(1.0) / (72 * ax.get_window_extent().width / figure.dpi)
    for shift in many:
        assert axis.digital_s * 10 ** (shift * axis.decades) < np.sqrt(axis.digital_s * 3600.0)
        assert axis.place(np.array([3600.0]), shift)[0] > np.sqrt(axis.digital_s * 3600.0)
    np.testing.assert_allclose(np.diff(few), step * (1.08 + GAP))
