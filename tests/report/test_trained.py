"""Tables of the networks of a study of methods: every number again by numpy and scipy."""

import json

import numpy as np
import pandas as pd
import pytest
from matplotlib.colors import to_rgb
from scipy import stats
from synthetic_trials import trials_with

from analog_samson.report import networks_table, noisy_gap_figure, noisy_gap_table
from analog_samson.report.advice import uncounted_text
from analog_samson.report.estimates import Estimate
from analog_samson.results.measures import TRAINING_IMAGES, Evidence, IncompleteError

DIGITAL = {
    "sgd": [0.95, 0.96, 0.97],
    "rwp sigma=0.1": [0.951, 0.964, 0.972],
    "rwp sigma=0.2": [0.94, 0.95, 0.97],
    "sam rho=0.1": [0.953, 0.962, 0.973],
}
THREE = ("sgd", "rwp sigma=0.1", "rwp sigma=0.2")
SHARP = ["average_sharpness", "sam_sharpness", "adaptive_sharpness", "hessian_eigenvalue"]


def evidence_in(folder, names=THREE, sizes=(0.05, 0.1), seed=3, times_s=(0.0,)):
    """A study of some methods, three seeds, two chips that have answered both kinds of images."""
    random = np.random.default_rng(seed)
    parts = []
    for size in sizes:
        accuracies = {name: random.uniform(0.80, 0.90, (3, 3)).round(4) for name in names}
        own = {name: DIGITAL[name] for name in names}
        swept = {"device": "gaussian_max", "condition": json.dumps({"sigma": size})}
        parts.append(trials_with(accuracies, digital=own, n_images=10_000, times_s=(0.0,), **swept))
    parts = [part.assign(t_inference_s=time) for time in times_s for part in parts]
    rows = pd.concat(parts, ignore_index=True)
    named = rows.drop_duplicates("checkpoint")
    digests = {c: f"{k:016x}" for k, c in enumerate(named["checkpoint"], start=10)}
    rows["checkpoint"] = rows["checkpoint"].map(digests)
    networks = rows.drop_duplicates("checkpoint")[["method", "strength", "training_seed",
                                                   "checkpoint", "dataset", "model"]]  # fmt: skip
    networks = networks.assign(variant=networks["method"], failure="",
                               digest=networks["checkpoint"] + "f" * 48)  # fmt: skip
    cost = networks["method"].map({"sgd": 1000, "rwp": 1500, "sam": 2000})
    table = networks.drop(columns="checkpoint").assign(gradient_evaluations=cost)
    table.to_csv(folder / "networks.csv", index=False)
    sharp = networks[["checkpoint"]].assign(
        **{name: random.lognormal(-3, 1, len(networks)) for name in SHARP},
        n_training_images=50, sigma=0.05, rho_sam=0.05, rho_adaptive=0.5,
    )  # fmt: skip
    sharp.to_csv(folder / "sharpness.csv", index=False)
    some = rows[rows["chip"] < 2]
    some = some[["checkpoint", "chip_id", "device", "condition", "chip", "t_inference_s"]].assign(
        n_correct_training=random.integers(900, 1000, len(some)), n_training_images=1000
    )
    some.to_csv(folder / TRAINING_IMAGES, index=False)
    kept = ["variant", "strength", "training_seed", "checkpoint"]
    return Evidence(folder, networks[kept], rows, methods=["sgd", "rwp", "sam"])


def t_interval(values):
    """Mean and half-width of a 95 % interval, by scipy."""
    low, high = stats.t.interval(0.95, len(values) - 1, np.mean(values), stats.sem(values))
    return np.mean(values), (high - low) / 2


def test_networks_have_geometric_means_of_sharpness_and_costs_of_the_baseline(tmp_path):
    evidence = evidence_in(tmp_path)
    table = networks_table(evidence)
    sharp = pd.read_csv(tmp_path / "sharpness.csv").merge(
        pd.read_csv(tmp_path / "networks.csv", keep_default_na=False).assign(
            checkpoint=lambda rows: rows["digest"].str[:16]
        ),
        on="checkpoint",
    )
    assert table.data["method"].tolist() == ["sgd", "rwp", "rwp"]
    assert table.data["cost"].tolist() == [1.0, 1.5, 1.5]
    for row in table.data.to_dict("records"):
        own = sharp[(sharp["method"] == row["method"]) & (sharp["strength"] == row["strength"])]
        assert row["n_networks"] == len(own) == 3
        name = f"{row['method']} {row['strength']}".strip()
        mean, half = t_interval(DIGITAL[name])
        found = [row["digital"], row["digital_low"], row["digital_high"]]
        assert found == pytest.approx([mean, mean - half, mean + half])
        for column in SHARP:
            mean, half = t_interval(np.log(own[column]))
            found = [row[column], row[f"{column}_low"], row[f"{column}_high"]]
            assert found == pytest.approx(np.exp([mean, mean - half, mean + half]))
    mean, half = t_interval(DIGITAL["sgd"])
    first = table.blocks[0].cells.iloc[0]
    assert first["digital [%]"] == f"{100 * mean:.2f} ± {100 * half:.2f}"
    assert first["strength"] == "–" and first["cost"] == "1×"
    assert table.caption.endswith("backward passes of a training relative to sgd.")


def test_costs_say_which_passes_they_leave_out():
    assert uncounted_text(["sgd", "sam", "my.package:own"]) == ""
    assert uncounted_text(["sgd", "mesa"]) == (
        " Not counted: forward passes that no backward pass follows (MESA: 1 a step)."
    )


def test_the_gap_is_that_of_chips_that_answered_both_paired_by_training_seed(tmp_path):
    evidence = evidence_in(tmp_path)
    table = noisy_gap_table(evidence)
    images = pd.read_csv(tmp_path / TRAINING_IMAGES)
    test = evidence.rows.set_index("chip_id")
    images["gap"] = images["n_correct_training"] / 1000 - images["chip_id"].map(
        test["n_correct"] / 10_000
    )
    for name in ("method", "strength", "training_seed"):
        images[name] = images["chip_id"].map(test[name])
    gaps = images.groupby(["condition", "method", "strength", "training_seed"])["gap"].mean()
    assert len(table.blocks) == 2 and len(table.data) == 6 and set(table.data["n_chips"]) == {2}
    for row in table.data.to_dict("records"):
        own = gaps[row["condition"], row["method"], row["strength"]]
        assert [row["gap"], row["gap_high"] - row["gap"]] == pytest.approx(t_interval(own))
        over = own - gaps[row["condition"], "sgd", ""]
        found = [row["gap_over"], row["gap_over_high"] - row["gap_over"]]
        assert found == pytest.approx(t_interval(over) if row["method"] == "rwp" else [0.0, 0.0])
    assert table.blocks[0].title == "gaussian_max, sigma = 0.05"
    cells = table.blocks[0].cells
    assert cells["gap − SGD"].tolist()[0] == "–" and "±" in cells["gap − SGD"].tolist()[1]


def test_strengths_of_a_method_have_panels_of_their_own_and_methods_share_theirs(tmp_path):
    strengths = noisy_gap_figure(evidence_in(tmp_path))
    assert len(strengths.axes) == 2 and not strengths.legends
    assert [text.get_text() for text in strengths.axes[1].get_legend().get_texts()] == [
        "SGD", "RWP σ = 0.1", "RWP σ = 0.2"
    ]  # fmt: skip
    alone = noisy_gap_figure(evidence_in(tmp_path, names=("sgd", "rwp sigma=0.1")))
    table = noisy_gap_table(evidence_in(tmp_path, names=("sgd", "rwp sigma=0.1")))
    assert [text.get_text() for text in alone.legends[0].get_texts()] == ["SGD", "RWP"]
    drawn = [line for line in alone.axes[1].lines if line.get_linestyle() == "-"]
    own = table.data[table.data["method"] == "rwp"]["gap"]
    (line,) = [one for one in drawn if to_rgb(one.get_color()) != (0.0, 0.0, 0.0)]
    assert list(line.get_xdata()) == [0.05, 0.1]
    assert list(line.get_ydata()) == pytest.approx(list(100 * own))


def test_a_sharpness_that_is_not_positive_has_no_geometric_mean(tmp_path):
    evidence = evidence_in(tmp_path)
    sharp = pd.read_csv(tmp_path / "sharpness.csv")
    sharp.loc[0, "average_sharpness"] = -0.001
    sharp.to_csv(tmp_path / "sharpness.csv", index=False)
    table = networks_table(evidence)
    assert table.blocks[0].cells["average"].tolist()[0] == "–"
    assert "(" in table.blocks[0].cells["average"].tolist()[1]


def test_one_network_has_no_interval_and_no_baseline_no_comparison(tmp_path):
    evidence = evidence_in(tmp_path, names=("rwp sigma=0.1",))
    cells = noisy_gap_table(evidence).blocks[0].cells
    assert list(cells) == ["method", "n", "training [%]", "test [%]", "gap"]
    first = evidence.networks["checkpoint"].iloc[0]
    rows = evidence.rows[evidence.rows["checkpoint"] == first]
    lone = Evidence(tmp_path, evidence.networks.iloc[:1], rows, methods=["rwp"])
    sharp = pd.read_csv(tmp_path / "sharpness.csv", dtype=str)
    sharp[sharp["checkpoint"] == first].to_csv(tmp_path / "sharpness.csv", index=False)
    assert networks_table(lone).blocks[0].cells["digital [%]"].tolist() == ["95.10"]


def test_times_are_not_averaged_and_blocks_stand_in_the_order_of_numbers(tmp_path):
    table = noisy_gap_table(evidence_in(tmp_path, sizes=(10.0, 2.0), times_s=(0.0, 3600.0)))
    assert [block.title for block in table.blocks] == [
        "gaussian_max, sigma = 2, programmed", "gaussian_max, sigma = 2, 1 h",
        "gaussian_max, sigma = 10, programmed", "gaussian_max, sigma = 10, 1 h",
    ]  # fmt: skip
    assert set(table.data["n_chips"]) == {2}
    assert noisy_gap_figure(evidence_in(tmp_path, times_s=(0.0, 3600.0))) is None


def test_an_axis_of_words_has_a_table_and_no_figure(tmp_path):
    evidence = evidence_in(tmp_path, sizes=("ideal", "noisy"))
    assert len(noisy_gap_table(evidence).blocks) == 2 and noisy_gap_figure(evidence) is None


def test_methods_with_one_strength_stand_beside_those_with_several(tmp_path):
    figure = noisy_gap_figure(evidence_in(tmp_path, names=tuple(DIGITAL)))
    legends = [ax.get_legend() for ax in figure.axes]
    texts = [[text.get_text() for text in one.get_texts()] for one in legends if one is not None]
    assert texts == [["SGD", "RWP σ = 0.1", "RWP σ = 0.2"], ["SGD", "SAM"]]


def test_a_failed_network_leaves_its_seed_out_of_the_comparison_alone(tmp_path):
    evidence = evidence_in(tmp_path)
    gone = evidence.networks[evidence.networks["variant"] == "sgd"]["checkpoint"].iloc[0]
    kept = evidence.networks[evidence.networks["checkpoint"] != gone]
    rows = evidence.rows[evidence.rows["checkpoint"] != gone]
    table = noisy_gap_table(Evidence(tmp_path, kept, rows, methods=["sgd", "rwp"]))
    own = table.data[table.data["method"] == "rwp"]
    assert set(own["n_networks"]) == {3} and set(own["n_pairs"]) == {2}
    assert "paired by training seed (where both have it)" in table.caption


@pytest.mark.parametrize("name", ["sharpness.csv", TRAINING_IMAGES])
def test_a_table_that_lacks_a_network_is_incomplete(tmp_path, name):
    evidence = evidence_in(tmp_path)
    rows = pd.read_csv(tmp_path / name, dtype=str)
    rows[rows["checkpoint"] != rows["checkpoint"].iloc[0]].to_csv(tmp_path / name, index=False)
    with pytest.raises(IncompleteError, match=f"1 networks are not in {name}"):
        networks_table(evidence)
        noisy_gap_table(evidence)


def test_estimates_are_printed_with_signs_and_ends():
    assert Estimate.of([-2e-5, -1e-5]).text("{:+z.2f}", 100) == "+0.00 ± 0.01"
    tiny = Estimate.of([1e-9, 1.5e-9, 2e-9], geometric=True).text("{:.2g}")
    assert tiny == "1.4e-09 (6.1e-10 to 3.4e-09)"
    assert Estimate.of([]).text("{:.2f}") == "–"
    assert Estimate.of([0.5]).text("{:.1f}", 100) == "50.0"
