"""Maps over swept settings: contour lines, regions and nominal points at their known places."""

import json
import shutil
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
from matplotlib.contour import QuadContourSet
from matplotlib.figure import Figure
from places import ROOT
from synthetic_trials import make_trials

from analog_samson.devices import load_device
from analog_samson.report import (
    ITEMS,
    Content,
    draw_map,
    items,
    map_figure,
    map_table,
    study_figures,
    study_maps,
    study_tables,
    tables,
)
from analog_samson.report.contents import warnings_of
from analog_samson.report.maps import chosen_axes, full_name, surface_of
from analog_samson.report.nominal import nominal_values
from analog_samson.results import append_rows, lost, paired_gain, summarise
from analog_samson.times import DAY, YEAR

X, Y, Z = "noise_scale", "noise.g_min_uS", "drift_scale"


def swept(x=(0.0, 1.0, 2.0, 4.0), y=(0.0, 5.0, 10.0), z=(None,), times_s=(1.0, YEAR), **kwargs):
    """Accuracy = 0.95 - 0.02 x - 0.01 y - 0.01 z for SGD, 0.02 more for SAMSON."""
    parts = []
    for values in [(a, b, c) for a in x for b in y for c in z]:
        point = {k: v for k, v in zip((X, Y, Z), values, strict=True) if v is not None}
        mean = 0.95 - 0.02 * values[0] - 0.01 * values[1] - 0.01 * (values[2] or 0.0)
        made = make_trials(
            {"sgd": mean, "samson rho=0.5": mean + 0.02},
            slope=0.0,
            times_s=times_s,
            condition=json.dumps(point, sort_keys=True),
            n_correct_digital=960_000,
            n_correct_digital_test=960_000,
            n_changed=500_000,
            **{"n_networks": 3, "n_chips": 2, "std_networks": 0.0, "std_chips": 0.0} | kwargs,
        )
        made["chip_id"] += "-" + made["condition"]
        parts.append(made)
    return pd.concat(parts, ignore_index=True)


@pytest.fixture(scope="module")
def rows():
    return swept()


def one(frame, t=YEAR, method="sgd"):
    return frame[(frame["t_inference_s"] == t) & (frame["method"] == method)]


def contours(ax):
    return [found for found in ax.collections if isinstance(found, QuadContourSet)]


def test_contour_lines_run_where_the_surface_has_their_value(rows):
    ax = Figure().subplots()
    draw_map(ax, one(summarise(rows)), X, Y, levels=[84.0, 88.0, 92.0])
    (lines,) = contours(ax)
    for level, segments in zip(lines.levels, lines.allsegs, strict=True):
        points = np.concatenate(segments)
        assert len(points) > 2
        np.testing.assert_allclose(95 - 2 * points[:, 0] - points[:, 1], level, atol=1e-6)


def test_the_region_that_meets_a_target_ends_where_the_interval_does(rows):
    """Half-width w of all intervals: the bounds meet the target where the mean is 0.90 +- w."""
    summary = one(summarise(rows))
    summary = summary.assign(low=summary["accuracy"] - 0.015, high=summary["accuracy"] + 0.015)
    ax = Figure().subplots()
    draw_map(ax, summary, X, Y, target=0.90, levels=[])
    faded, dotted, hatched, *mean = contours(ax)
    for region in (faded, dotted):  # missed: the mean is below 88.5 %
        points = np.concatenate([path.vertices for path in region.get_paths()])
        assert (95 - 2 * points[:, 0] - points[:, 1] <= 88.5 + 1e-6).all()
        assert np.isclose(points @ [2.0, 1.0], 6.5).sum() > 5
    points = np.concatenate([path.vertices for path in hatched.get_paths()])
    value = 95 - points @ [2.0, 1.0]
    assert value.min() == pytest.approx(88.5)
    assert value.max() == pytest.approx(91.5)
    for line in mean:
        points = np.concatenate([path.vertices for path in line.get_paths()])
        np.testing.assert_allclose(points @ [2.0, 1.0], 5.0, atol=1e-6)


def test_of_losses_small_values_meet_the_target_and_of_gains_large_ones(rows):
    losses = map_table(lost(rows), [X, Y], 0.055).data
    assert set(losses["meets"]) == {"yes", "no"}
    own = losses[losses["method"] == "sgd"]
    expected = 0.01 + 0.02 * own[X] + 0.01 * own[Y] <= 0.055
    assert ((own["meets"] == "yes") == expected).all()
    gains = map_table(paired_gain(rows), [X, Y], 0.01).data
    assert set(gains["meets"]) == {"yes"}


def test_the_table_counts_points_and_its_csv_has_all(rows):
    summary = summarise(rows)
    made = map_table(summary.assign(low=0.88, high=0.96), ["noise_scale", "g_min_uS"], 0.9)
    assert set(made.data["meets"]) == {"uncertain"}
    assert made.blocks[0].cells.iloc[0].tolist() == ["SGD", "0 to 100", "0 to 100"]
    assert len(made.data) == len(summary) == 12 * 2 * 2
    assert {X, Y, "meets", "target", "low", "high"} <= set(made.data)
    assert "Share of the 12 swept points with accuracy of at least 90 %" in made.caption


def test_values_between_powers_of_ten_are_interpolated_in_the_logarithm():
    rows = one(summarise(swept(x=(0.01, 0.1, 1.0, 10.0), y=(0.0, 1.0, 2.0))))
    surface = surface_of(rows, X, Y)
    np.testing.assert_allclose(surface.across, [-2, -1, 0, 1])
    np.testing.assert_allclose(surface.up, [0, 1, 2])


def test_the_nominal_point_is_that_of_the_device():
    device = json.loads(load_device("pcm_like").model_dump_json())
    tied = {"programming_noise_scale": [0.5, 1.0], "read_noise_1f_scale": "same"}
    manifest = {"devices": {"pcm_like": device}, "study": {"axes": {X: tied}}}
    axes = (X, Y, Z, "mapping.max_rows", "no.such")
    assert nominal_values([manifest], "pcm_like", axes) == {
        X: 1.0,
        Y: 0.0,
        Z: 1.0,
        "mapping.max_rows": device["mapping"]["max_rows"],
    }
    assert nominal_values([manifest], "other", axes) == {}


def test_the_cross_is_at_the_nominal_point_and_left_out_beyond_the_map(rows):
    for nominal, place in (({X: 1.0, Y: 2.5}, (1.0, 2.5)), ({X: 9.0, Y: 0.0}, None), ({}, None)):
        ax = Figure().subplots()
        draw_map(ax, one(summarise(rows)), X, Y, nominal=nominal)
        found = [tuple(np.ravel(line.get_xydata())) for line in ax.lines]
        assert found == ([place] * 2 if place else [])


def test_the_cross_stands_in_the_panel_of_the_nominal_third_value_alone():
    more = summarise(swept(z=(0.5, 1.0, 2.0), times_s=(YEAR,)))
    figure = map_figure(more, [X, Y, Z], nominal={X: 1.0, Y: 0.0, Z: 1.0})
    crosses = {ax.get_title(loc="left"): bool(ax.lines) for ax in figure.axes}
    shown = {title.partition("= ")[2]: found for title, found in crosses.items() if "SGD" in title}
    assert shown == {"0.5": False, "1": True, "2": False}
    unknown = map_figure(more, [X, Y, Z], nominal={X: 1.0, Y: 0.0})
    assert not any(ax.lines for ax in unknown.axes)


def test_extrapolated_times_of_a_map_are_marked():
    rows = swept(times_s=(1.0, YEAR))
    rows["extrapolated"] = rows["t_inference_s"] > DAY
    figure = map_figure(summarise(rows), [X, Y])
    titles = [ax.get_title(loc="left") for ax in figure.axes if ax.get_title(loc="left")]
    assert [title.endswith("1 y†") for title in titles] == ["1 y" in title for title in titles]
    assert any("1 y†" in title for title in titles)
    caption = figure._supxlabel.get_text().replace("\n", " ").replace("\u00a0", " ")
    assert "† beyond the time to which the device was measured" in caption
    table = map_table(summarise(rows), [X, Y], 0.9)
    assert [column for column in table.blocks[0].cells if "1 y" in column] == ["1 y†"]


def test_three_axes_are_small_multiples_and_further_ones_stay_at_the_nominal_value():
    rows = swept(z=(0.0, 1.0, 2.0), x=(0.0, 1.0), y=(0.0, 1.0))
    summary = summarise(rows[rows["t_inference_s"] == YEAR])
    figure = map_figure(summary, [X, Y])
    titles = [ax.get_title(loc="left") for ax in figure.axes if ax.get_title(loc="left")]
    assert titles[:3] == [f"SGD\ndrift scale = {z}" for z in (0, 1, 2)]
    assert len(titles) == 6
    more = pd.concat(
        [
            summary.assign(condition=[json.dumps(json.loads(c) | {"t_0_s": t}) for c in found])
            for t in (10.0, 20.0, 30.0)
            for found in [summary["condition"]]
        ]
    )
    figure = map_figure(more, [X, Y], nominal={"t_0_s": 21.0, Z: 1.0})
    note = figure._supxlabel.get_text().replace("\n", " ").replace("\u00a0", " ")
    assert "At drift scale = 1, t 0 [s] = 20." in note
    assert chosen_axes(more) == [Z, "t_0_s", Y]


WRONG = [
    ([X], r"A map has two axes, or three; got 1: noise_scale"),
    ([X, X], r"A map has different axes; got noise_scale, noise_scale"),
    ([X, "g_mn_uS"], r"No trial sweeps 'g_mn_uS'.*Allowed: noise.g_min_uS, noise_scale"),
    ([X, "noise.g_min_u"], r"did you mean 'noise.g_min_uS'"),
    ([X, Y, Z], r"No trial sweeps 'drift_scale'"),
]


@pytest.mark.parametrize(("axes", "words"), WRONG)
def test_wrong_axes_of_a_map_are_one_sentence(axes, words, rows):
    with pytest.raises(ValueError, match=words) as error:
        map_figure(summarise(rows), axes)
    assert "\n" not in str(error.value)


def test_what_cannot_be_one_map_is_refused(rows):
    summary = summarise(rows)
    three = summarise(swept(z=(0.0, 1.0), x=(0.0, 1.0), y=(0.0, 1.0)))
    for given, axes, words in (
        (summary.iloc[:0], [X, Y], "There are no rows to map"),
        (summary[summary["condition"] == summary["condition"].iloc[0]], [X, Y], "nothing was swe"),
        (pd.concat([summary, summary.assign(device="b")]), [X, Y], "have b, pcm_like: select one"),
        (three, [X, Y, Z], "over three axes shows one time; these rows have 1 s, 1 y"),
        (
            pd.concat([summary.assign(t_inference_s=float(t + 1)) for t in range(20)]),
            [X, Y],
            "2 methods and 20 times has more than 30 panels; select methods or times",
        ),
    ):
        with pytest.raises(ValueError, match=words):
            map_figure(given, axes)
    with pytest.raises(ValueError, match="one method and one time"):
        draw_map(Figure().subplots(), summary, X, Y)
    with pytest.raises(ValueError, match=r"target of a map .* between 0 and 1; got 1.2"):
        study_maps(Content(rows, target=1.2), [X, Y])
    with pytest.raises(ValueError, match="no gains to map: 'sgd' is not among the methods"):
        study_maps(Content(rows[rows["method"] != "sgd"]), [X, Y], of="gain")
    with pytest.raises(ValueError, match="no gains to map: 'sgd' is the only method"):
        study_maps(Content(rows[rows["method"] == "sgd"]), [X, Y], of="gain")
    both = pd.concat([summary, summary.assign(condition='{"noise.a_s": 1, "b.a_s": 1}')])
    both = pd.concat([both, summary.assign(condition='{"noise.a_s": 2, "b.a_s": 2}')])
    with pytest.raises(ValueError, match=r"Axis 'a_s' is b.a_s or noise.a_s; give the whole"):
        full_name(both, "a_s")


@pytest.mark.slow
def test_many_points_have_maps_instead_of_numbers_and_panels_and_tables_are_cut(monkeypatch):
    rows = swept(np.arange(11.0), np.arange(10.0) / 2, n_networks=1, n_chips=1, times_s=(DAY, YEAR))
    drawn, made = study_figures(rows), study_tables(rows)
    assert "map_pcm_like" in drawn
    assert not {"accuracy", "gain", "chips", "heat_pcm_like"} & set(drawn)
    assert len(made["map"].data) == 110 * 2 * 2
    accuracy = made["accuracy"]
    assert len(accuracy.blocks) == 50
    assert "Cut: the first 50 of 110 blocks; all are in the CSV file." in accuracy.caption
    assert len(accuracy.data) == 110 * 2 * 2
    titles = [block.title for block in accuracy.blocks]
    values = [tuple(float(w.split(" = ")[1]) for w in t.split(", ")[1:3]) for t in titles]
    assert values == sorted(values), "numbers by their size, 2 before 10"
    assert {"Cut: " in made[stem].caption for stem in ("gain", "lost", "yield", "lifetime")} == {
        True
    }
    assert len(made["grid"].blocks) == 2
    assert "Cut: " not in made["grid"].caption
    monkeypatch.setattr(tables, "MOST_LINES", 30)
    grid = study_tables(rows)["grid"]
    assert {len(block.cells) for block in grid.blocks} == {30}
    assert "Cut: the first 30 of 110 lines of a block; all are in the CSV file." in grid.caption


def drawn(content, name):
    (item,) = (item for item in ITEMS if item.name == name)
    return item.figures(content)


def mixed(*studies):
    """One page of studies of other devices, settings and tasks."""
    parts = [rows.assign(chip_id=rows["chip_id"] + f"-{k}") for k, rows in enumerate(studies)]
    return Content(pd.concat(parts, ignore_index=True))


FEW = {"x": (0.0, 2.0), "times_s": (DAY,)}


def test_a_page_of_mixed_sweeps_has_a_map_of_each_that_is_crossed():
    crossed = swept(**FEW)
    deep = swept(**FEW, dataset="mnist", model="lenet5")
    deep["checkpoint"] += "-deep"
    other = swept(**FEW, device="pcm_hermes")
    other["condition"] = other["condition"].str.replace(Y, "adc_bits")
    lone = swept(x=(0.0, 2.0), y=(5.0,), times_s=(DAY,), device="reram_wan2022")
    lone["condition"] = lone["condition"].map(lambda text: json.dumps({X: json.loads(text)[X]}))
    content = mixed(crossed, deep, other, lone)
    assert list(drawn(content, "heat")) == [
        "heat_pcm_hermes, digits, mlp",
        "heat_pcm_like, digits, mlp",
        "heat_pcm_like, mnist, lenet5",
    ]
    (axis,) = drawn(content, "axis").values()
    assert [ax.get_title(loc="left") for ax in axis.axes] == ["ReRAM, 1\u00a0d"]
    said = "No map over two settings of ReRAM: one setting was swept at a time there."
    assert said in warnings_of(content)
    assert said not in warnings_of(mixed(crossed, other))
    assert drawn(mixed(crossed), "axis") == {} and list(drawn(mixed(crossed), "heat")) == [
        "heat_pcm_like"
    ]


def test_a_sweep_beside_a_grid_of_the_same_device_does_not_hide_it():
    beside = swept(x=(0.5, 1.0, 2.0), y=(0.0,), times_s=(DAY,))
    beside["condition"] = beside["condition"].map(lambda text: json.dumps({Z: json.loads(text)[X]}))
    content = mixed(swept(**FEW), beside)
    assert list(drawn(content, "heat")) == ["heat_pcm_like"]
    assert list(drawn(content, "axis")) == ["axis_drift_scale"]


def test_maps_of_mixed_pages_are_of_the_devices_that_cross_the_axes(monkeypatch):
    monkeypatch.setattr(items, "MOST_CELLS", 3)
    deep = swept(**FEW, z=(0.0, 1.0), device="pcm_hermes")
    lone = swept(x=(0.0, 2.0), y=(5.0,), times_s=(DAY,), device="reram_wan2022")
    content = mixed(swept(**FEW), deep, lone)
    assert list(drawn(content, "map")) == [
        f"map_pcm_hermes, {Z} and {Y} and {X}",
        f"map_pcm_like, {Y} and {X}",
    ]
    (item,) = (item for item in ITEMS if item.name == "map")
    assert len(item.tables(content)) == 2
    chosen, table = study_maps(content, [X, Y], of="score")
    assert len(chosen) == 2
    left_out = "Not mapped: ReRAM, where noise scale and noise g min [µS] were not swept together."
    assert left_out in table.caption
    with pytest.raises(ValueError, match="noise scale and adc bits were not swept together"):
        apart = lone.assign(condition=lone["condition"].str.replace(X, "adc_bits"))
        study_maps(mixed(swept(**FEW), apart), [X, "adc_bits"])


@pytest.mark.slow
def test_the_command_draws_one_map_and_writes_its_points(rows, tmp_path):
    append_rows(rows, tmp_path / "trials.csv")
    script = ROOT / "experiments" / "paper_figures.py"
    command = [sys.executable, script, tmp_path, "--map", X, "g_min_uS", "--formats", "png"]

    def run(*more):
        return subprocess.run([*command, *more], capture_output=True, text=True, check=False)

    assert run("--at", "1 y").returncode == 0
    names = {path.name for path in tmp_path.iterdir()}
    stem = "map_noise_scale_g_min_uS"
    assert names == {"trials.csv", *(f"{stem}.{end}" for end in ("png", "md", "tex", "csv"))}
    assert set(pd.read_csv(tmp_path / f"{stem}.csv")["t_inference_s"]) == {YEAR}
    for more, words in (
        (["--at", "1 yr"], "with one of the units s, min, h, d, week, mo, y; got '1 yr'"),
        (["--at", "2 y"], "No trial has the time '63072000.0'"),
        (["--target", "90"], "between 0 and 1; got 90.0"),
        (["--map", X], "A map has two axes, or three; got 1"),
        (["--map-of", "gain", "--baseline", "rwp"], "'rwp' is not among the methods"),
    ):
        refused = run(*more)
        assert (refused.returncode, refused.stderr.count("\n")) == (1, 1), refused.stderr
        assert words in refused.stderr
    shutil.rmtree(tmp_path)
