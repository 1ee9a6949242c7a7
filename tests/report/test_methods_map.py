"""The map of methods and the advice: texts, places and colours against the numbers behind them."""

import re
import subprocess
import sys

import matplotlib.colors
import numpy as np
import pandas as pd
import pytest
from matplotlib.lines import Line2D
from matplotlib.patches import Rectangle
from places import ROOT
from synthetic_trials import make_trials

from analog_samson.report import study_advice
from analog_samson.report.advice import networks_beside, situations
from analog_samson.report.methods_map import gain_text, rows_of_map, time_slots
from analog_samson.report.variants import short_labels, variant_labels
from analog_samson.results import append_rows, paired_gain, read_trials, variants_of
from analog_samson.times import DAY, HOUR, YEAR

RASCH, WAN = (1.0, HOUR, DAY, YEAR), (1.0, DAY, 2 * DAY)
MEANS = {
    "sgd": 0.50,
    "sgd clip_weights=1.5": 0.51,
    "sam rho=0.1": 0.52,
    "samson rho=0.2": 0.60,
    "samson rho=0.1 p=2": 0.52,
    "hardware_aware sigma=3 linear ramp=0.5": 0.54,
    "hardware_aware sigma=1 device=reram_wan2022 linear ramp=0.5": 0.54,
    "noise_injection sigma=0.02": 0.53,
}


def study(means=MEANS, dataset="mnist", device="pcm_like", times_s=RASCH, seed=0, **others):
    given = {"n_networks": 5, "n_chips": 2, "slope": 0.0} | others
    rows = make_trials(
        means,
        dataset=dataset,
        device=device,
        times_s=times_s,
        measured_to_s=2e6,
        seed=seed,
        **given,
    )
    rows["checkpoint"] = dataset + rows["checkpoint"]
    rows["chip_id"] += f"-{dataset}-{others.get('compensation', '')}"
    return rows


@pytest.fixture(scope="module")
def rows():
    """Two tasks, the second with fewer methods; ReRAM is there for three other times."""
    few = {name: MEANS[name] for name in ("sgd", "samson rho=0.2", "noise_injection sigma=0.02")}
    few = {"samson rho=0.5" if "samson" in name else name: mean for name, mean in few.items()}
    close = {name: 0.5 + (mean - 0.5) / 50 for name, mean in MEANS.items()}
    return pd.concat(
        [
            study(),
            study(compensation="none", seed=1),
            study(close, device="reram_wan2022", times_s=WAN, seed=2),
            study(few, dataset="cifar10", seed=3),
        ],
        ignore_index=True,
    )


@pytest.fixture(scope="module")
def drawn(rows):
    return study_advice(rows, scale="accuracy")


def map_data(tables):
    return pd.concat([one.data for stem, one in tables.items() if stem != "advice"])


def texts_of(figure):
    figure.draw_without_rendering()
    return [text for text in figure.axes[0].texts if text.get_text()]


def test_every_cell_has_label_and_gain(drawn):
    figures, tables = drawn
    found = [text.get_text() for text in texts_of(figures["methods_map"])]
    best = map_data(tables)
    assert len(best) == 3 * 3 + 3  # mnist: 2 rows of PCM, 1 of ReRAM; CIFAR-10: 1
    shorts = {"SAMSON", "SAM", "HWA PCM", "HWA ReRAM", "NI", "SAMSON p2", "SGD clip", "SGD"}
    assert sum(text in shorts for text in found) == len(best)
    gains = [gain_text(row) for _, row in best.iterrows()]
    assert sorted(t for t in found if re.match(r"[+−]\d|no gain", t)) == sorted(gains)
    assert found.count("–") == 2 * 3 * 3 - len(best)
    means = [f"{100 * mean:.1f} %" for mean in best["best_mean"]]
    assert sorted(text for text in found if text.endswith(" %")) == sorted(means)
    assert "–: not simulated." in figures["methods_map"]._supxlabel.get_text()


def test_the_mean_of_a_cell_is_that_of_its_best_method(rows, drawn):
    best = map_data(drawn[1])
    keys = ["dataset", "device", "compensation", "t_inference_s", "method", "strength"]
    per_network = (rows["n_correct"] / rows["n_test"]).groupby(
        [rows[key] for key in [*keys, "checkpoint"]]
    )
    by_hand = per_network.mean().groupby(keys).mean()
    for cell in best.to_dict("records"):
        strengths = by_hand[tuple(cell[key] for key in keys[:-1])]
        assert cell["best_mean"] == pytest.approx(strengths.max(), abs=1e-9)


def test_times_that_are_not_the_columns_are_named_and_late_ones_marked(drawn):
    found = [text.get_text() for text in texts_of(drawn[0]["methods_map"])]
    assert sorted(text for text in found if text.startswith("at ")) == ["at 1 s", "at 2 d"]
    assert sum(text.endswith("†") for text in found) == 3  # 1 y on PCM
    assert "extrapolated" in drawn[0]["methods_map"]._supxlabel.get_text()


def luminance(colour):
    return float(np.dot(matplotlib.colors.to_rgb(colour), [0.2126, 0.7152, 0.0722]))


def test_decided_cells_are_solid_and_bold_and_others_pale(drawn):
    """A difference of the grey values, too: what is decided can be told in grey."""
    figures, tables = drawn
    n = int(map_data(tables)["is_decided"].sum())
    assert 0 < n < len(map_data(tables))
    texts = texts_of(figures["methods_map"])
    bold = [text for text in texts if text.get_weight() == "bold" and text.get_text() == "SAMSON"]
    assert len(bold) == n
    patches = figures["methods_map"].axes[0].patches
    grounds = [
        p.get_facecolor() for p in patches if isinstance(p, Rectangle) and p.get_width() > 0.5
    ]
    shown = [luminance(ground[:3]) for ground in grounds if ground[3] > 0]
    assert sum(one > 0.75 for one in shown) == len(shown) - n
    assert sum(one < 0.6 for one in shown) == n


@pytest.mark.parametrize(("look", "width"), [("paper", 7.2), ("talk", "two columns")])
def test_texts_lie_within_their_cells_and_the_figure(rows, look, width):
    figure = study_advice(rows, scale="accuracy", look=look, width=width)[0]["methods_map"]
    texts = texts_of(figure)
    (ax,) = figure.axes
    frame = figure.bbox
    cells = [p.get_window_extent() for p in ax.patches if p.get_width() > 0.5]
    for text in texts:
        box = text.get_window_extent()
        assert box.x0 >= frame.x0 - 1
        assert box.x1 <= frame.x1 + 1
        middle = (box.x0 + box.x1) / 2, (box.y0 + box.y1) / 2
        for cell in cells:
            if cell.contains(*middle):
                assert cell.x0 - 1 <= box.x0 <= box.x1 <= cell.x1 + 1


EXACT = {
    "std_networks": 0.0,
    "std_chips": 0.0,
    "times_s": (DAY,),
    "n_correct_digital": 500_000,
    "n_changed": 500_000,
    "n_correct_digital_test": 500_000,
}


def test_the_advice_is_that_by_hand():
    """On PCM sgd 50, sam 54, HWA PCM 55; on ReRAM sgd 50, sam 51, HWA PCM 49 %, exactly."""
    parts = [
        study({"sgd": 0.5, "sam rho=0.1": 0.54, "hardware_aware sigma=1": 0.55}, **EXACT),
        study(
            {"sgd": 0.5, "sam rho=0.1": 0.51, "hardware_aware sigma=1": 0.49},
            device="reram_cmo",
            **EXACT,
        ),
    ]
    table = study_advice(pd.concat(parts, ignore_index=True), scale="accuracy")[1]["advice"]
    first, second = (block.cells.set_index("situation") for block in table.blocks)
    cells = first[["choose", "regret", "mean", "cost"]].join(second)
    assert cells.T.to_dict("list") == {
        "no idea of the hardware": ["SAM", "1.00", "0.50", "2×", "SGD: 5.00", "HWA PCM: 2.00"],
        "PCM, global compensation": ["HWA PCM", "0.00", "0.00", "1×", "the same", "–"],
        "ReRAM, global compensation": ["SAM", "0.00", "0.00", "2×", "SGD: 1.00", "HWA PCM: 2.00"],
    }
    assert [one[:5] for one in first["gain"]] == ["+2.50", "+5.00", "+1.00"]
    assert "HWA PCM: hardware aware (PCM)" in table.caption
    assert table.data["is_choice"].sum() == len(cells)


def test_the_advice_says_what_rests_on_extrapolated_times():
    """At a day sgd 50, sam 52, samson 53 %; at a year (extrapolated) 50, 49, 20 %."""
    parts = [
        study({"sgd": 0.50, "sam rho=0.1": 0.52, "samson rho=0.2": 0.53}, **EXACT),
        study(
            {"sgd": 0.50, "sam rho=0.1": 0.49, "samson rho=0.2": 0.20},
            **EXACT | {"times_s": (YEAR,)},
        ),
    ]
    rows = pd.concat(parts, ignore_index=True)
    table = study_advice(rows, scale="accuracy")[1]["advice"]
    first, second = (block.cells.iloc[0] for block in table.blocks)
    assert first[["choose", "regret"]].tolist() == ["SAM", "1.00"]  # 1.00 at both times
    assert second["at 1×"] == "SGD: 3.00"
    assert second["measured times alone"] == "SAMSON: 0.00"
    late = study_advice(rows[rows["method"] != "samson"], scale="accuracy")[1]["advice"]
    assert late.blocks[0].cells[["choose", "regret"]].iloc[0].tolist() == ["SAM", "1.00†"]
    assert "† in a cell beyond the time to which its device was measured" in late.caption
    early = study_advice(rows[rows["t_inference_s"] == DAY], scale="accuracy")[1]["advice"]
    assert "measured times alone" not in early.blocks[1].cells
    assert "†" not in early.caption


def test_situations_are_all_technologies_and_devices_none_twice(rows):
    found = [one.title for one in situations(rows)]
    assert found == [
        "no idea of the hardware",
        "any hardware, global compensation",
        "PCM, no compensation",
        "PCM, global compensation",
        "ReRAM, global compensation",
        "PCM",
    ]


def test_methods_of_some_tasks_only_are_named(drawn):
    caption = drawn[1]["advice"].caption
    assert re.search(r"Not run in every cell.*SAM, ", caption)
    assert "SAMSON," not in caption.partition("Not run in every cell")[2]


def test_short_labels_are_short_and_none_twice(rows):
    variants = variants_of(rows)
    full, short = variant_labels(variants), short_labels(variants)
    assert short["hardware_aware device=reram_wan2022"] == "HWA ReRAM"
    assert full["hardware_aware"] == "hardware aware (PCM)"
    assert (short["samson"], short["samson p=2"]) == ("SAMSON", "SAMSON p2")
    assert len(set(short.values())) == len(short) == 8
    assert max(map(len, short.values())) <= 11
    hermes = variants[variants["device_known"] == "pcm_like"].assign(device_known="pcm_hermes")
    hermes["variant"] = "device=pcm_hermes"
    both = variant_labels(pd.concat([variants, hermes]))
    assert {"hardware aware (pcm_like)", "hardware aware (pcm_hermes)"} <= {
        label.replace("PCM (", "").replace("))", ")") for label in both.values()
    }


def test_one_network_has_gains_without_intervals_and_says_so():
    rows = study(n_networks=1)
    figures, tables = study_advice(rows, scale="accuracy")
    found = [text.get_text() for text in texts_of(figures["methods_map"])]
    assert not any("±" in text for text in found)
    assert "One trained network: no interval and no test" in tables["methods_map"].caption
    assert "No interval with one trained network" in tables["advice"].caption
    assert "nan" not in tables["advice"].markdown()
    assert tables["advice"].blocks[0].cells["again"].eq("–").all()


def test_columns_take_the_times_that_a_device_has():
    assert time_slots(RASCH) == {HOUR: HOUR, DAY: DAY, YEAR: YEAR}
    assert time_slots(WAN) == {1.0: HOUR, DAY: DAY, 2 * DAY: YEAR}
    assert time_slots((0.0, DAY)) == {DAY: DAY}
    assert time_slots((1.0, HOUR, DAY)) == {HOUR: HOUR, DAY: DAY}
    assert time_slots((0.0, 60.0, 2 * DAY)) == {60.0: HOUR, 2 * DAY: DAY}


def test_rows_without_drift_are_refused():
    with pytest.raises(ValueError, match=r"no rows after programming"):
        rows_of_map(study(times_s=(0.0,)))


def test_two_engines_at_one_place_are_refused():
    two = [study(), study(engine="compiled").assign(precision="fp64")]
    two[1]["chip_id"] += "-compiled"
    with pytest.raises(ValueError, match="Two comparisons would stand at one place"):
        study_advice(pd.concat(two, ignore_index=True))


def test_a_lower_perplexity_is_a_gain():
    rows = read_trials(ROOT / "results" / "shakespeare-lstm")
    tables = study_advice(rows)[1]
    best, gains = map_data(tables), paired_gain(rows).set_index("t_inference_s")
    assert best["higher_is_better"].eq(False).all()
    for row in best[best["method"] == "samson"].itertuples():
        found = gains.loc[[row.t_inference_s]].query("device == @row.device")["gain"]
        assert row.gain == pytest.approx(found.item())
        assert row.gain > 0
    assert "% of perplexity" in tables["advice"].markdown()


def run(*arguments):
    command = [sys.executable, "experiments/methods_map.py", *map(str, arguments)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True)


@pytest.mark.slow
def test_the_script_writes_map_and_advice_and_tells_mistakes(rows, tmp_path):
    folder = tmp_path / "study"
    folder.mkdir()
    append_rows(rows, folder / "trials.csv")
    done = run(folder, "--folder", tmp_path / "map", "--labels", "samson p=2=Euclid")
    assert done.returncode == 0, done.stderr
    tasks = ("mnist_mlp", "cifar10_mlp")
    written = {path.name for path in (tmp_path / "map").iterdir()}
    assert written == {
        *(f"advice.{kind}" for kind in ("md", "tex", "csv")),
        *(f"methods_map_{task}.{kind}" for task in tasks for kind in ("md", "tex", "csv")),
        "methods_map.pdf",
        "methods_map.png",
    }
    for task in tasks:
        text = (tmp_path / "map" / f"methods_map_{task}.tex").read_text()
        assert f"\\label{{tab:methods_map_{task}}}" in text
    assert "SAF" not in (tmp_path / "map" / "advice.md").read_text()
    assert "Euclid" in (tmp_path / "map" / "advice.md").read_text()
    wrong = run(folder, "--baseline", "nope", "--folder", tmp_path / "none")
    assert wrong.returncode == 1
    assert "'nope' is not among the methods" in wrong.stderr
    assert wrong.stderr.count("\n") == 1
    mixed = run("results/spoken-digits", "results/shakespeare-lstm", "--folder", tmp_path / "none")
    assert mixed.returncode == 1
    assert "different scores are not merged" in mixed.stderr
    assert not (tmp_path / "none").exists()


def test_a_fine_tuned_network_costs_what_its_first_network_cost_too(tmp_path):
    (tmp_path / "networks.csv").write_text(
        "variant,training_seed,digest,gradient_evaluations,failure\n"
        "sgd,0,a,100,\ntuned,0,b,40,\nsgd,1,c,100,\ntuned,1,,,diverged\n"
    )
    assert networks_beside([tmp_path])["gradient_evaluations"].tolist()[:2] == [100, 40]
    (tmp_path / "protocol.toml").write_text('[start_from]\ntuned = "sgd"\n')
    found = networks_beside([tmp_path])
    assert found["gradient_evaluations"].tolist()[:3] == [100, 140, 100]
    assert found["gradient_evaluations"].isna().tolist() == [False, False, False, True]


def test_a_map_needs_two_methods(rows):
    with pytest.raises(ValueError, match="Only the method 'sgd' is there"):
        study_advice(rows[rows["method"] == "sgd"].query("strength == ''"))


@pytest.mark.parametrize(
    ("look", "said"),
    [("paper", "not decided, here all of them"), ("talk", "No method is significantly better")],
)
def test_a_map_without_a_decided_cell_says_so(look, said):
    equal = {"sgd": 0.50, "sam rho=0.1": 0.50, "samson rho=0.2": 0.50}
    figures, _ = study_advice(study(equal, n_networks=3), times_s=[HOUR], look=look)
    figure = figures["methods_map"]
    said = {"paper": "not decided, here all of them", "talk": "No method is significantly better"}[
        look
    ]
    assert said in " ".join(figure._supxlabel.get_text().split())
    legend = {text.get_text() for text in figure.legends[0].get_texts()}
    assert not legend & {"not decided", "better than all others"}


def test_the_legend_has_the_bands_of_the_cells(drawn):
    figure = drawn[0]["methods_map"]
    figure.draw_without_rendering()
    legend = figure.legends[0]
    texts = [text.get_text() for text in legend.get_texts()]
    assert texts[-2:] == ["better than all others", "not decided"]
    bands = {p.get_facecolor() for p in figure.axes[0].patches if 0.1 < p.get_width() < 0.2}
    assert {patch.get_facecolor() for patch in legend.get_patches()[:-2]} == bands
    inks = {line.get_markeredgecolor() for line in figure.axes[0].lines}
    assert {line.get_markeredgecolor() for line in legend.findobj(Line2D)} == inks
