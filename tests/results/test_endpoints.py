"""Endpoints of claims, against numbers computed by hand from small tables."""

import json
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from scipy import stats
from synthetic_trials import trials_with as rows_of

from analog_samson.results import measures
from analog_samson.results.endpoints import check_test, described, endpoint, verdict
from analog_samson.results.measures import (
    Evidence,
    IncompleteError,
    OtherIncompleteError,
    _error_of_z,
)

T2 = 0.95 * (2 / (1 - 0.95**2)) ** 0.5  # 97.5 % quantile of Student's t, 2 degrees of freedom
N = 1_000_000  # images a chip


def evidence(rows, folder=None, failed=()):
    networks = rows[["checkpoint", "method", "strength", "training_seed"]].drop_duplicates()
    networks = networks.rename(columns={"method": "variant"})
    networks = networks[~networks["checkpoint"].isin(failed)]
    return Evidence(folder, networks, rows)


def ended(test, rows, folder=None, **others):
    check_test(test)
    return endpoint(test, evidence(rows, folder, **others))


GAIN = {"measure": "gain", "method": "sam", "over": "sgd", "device": "pcm_like", "above": 0.0}

ONE_TWO_THREE = {  # differences of 1, 2 and 3 points, each the mean of two chips
    "sgd": [[0.80, 0.82], [0.70, 0.70], [0.85, 0.75]],
    "sam": [[0.82, 0.82], [0.72, 0.72], [0.84, 0.82]],
}


def test_a_gain_is_paired_by_seed_with_students_interval():
    found = ended(GAIN, rows_of(ONE_TWO_THREE))
    np.testing.assert_allclose(found[:3], [2, 2 - T2 / 3**0.5, 2 + T2 / 3**0.5], rtol=1e-12)
    assert (found.n, found.n_chips, found.unit) == (3, 2, "points")
    assert found.verdict == "not shown"


@pytest.mark.parametrize(("limit", "at"), [
    ({"above": 0.5}, 0.5), ({"below": 4.0}, 4.0), ({"at_least": 0.0, "margin": 1.0}, -1.0),
])  # fmt: skip
def test_the_p_value_is_of_the_limit(limit, at):
    test = {key: value for key, value in GAIN.items() if key != "above"} | limit
    found = ended(test, rows_of(ONE_TWO_THREE))
    assert found.p_value == pytest.approx(stats.ttest_1samp([1, 2, 3], at).pvalue, rel=1e-9)
    assert (found.p_value < 0.05) == (found.verdict == "holds")


def test_without_spread_the_p_value_decides_as_the_interval_does():
    equal = rows_of({"sgd": [[0.5], [0.5]], "sam": [[0.5], [0.5]]})
    assert ended(GAIN, equal)[-3:-1] == ("not shown", 1.0)
    assert ended(GAIN | {"above": 0.1}, equal)[-3:-1] == ("the opposite", 0.0)
    one = rows_of({"sgd": [[0.5]], "sam": [[0.6]]})
    assert np.isnan(ended(GAIN, one).p_value)


def test_chips_without_a_partner_are_left_out():
    rows = rows_of(ONE_TWO_THREE)
    lone = (rows["method"] == "sam") & (rows["training_seed"] == 0) & (rows["chip"] == 1)
    found = ended(GAIN, rows[~lone])
    assert found.value == pytest.approx((2 + 2 + 3) / 3) and found.n_chips == 1


def test_the_seed_of_a_failed_network_leaves_the_comparison():
    found = ended(GAIN, rows_of(ONE_TWO_THREE), failed=["sgd--0"])
    assert (found.value, found.n) == (pytest.approx(2.5), 2)
    alone = ended(GAIN, rows_of(ONE_TWO_THREE), failed=["sgd--0", "sgd--1"])
    assert (alone.n, alone.verdict) == (1, "too few networks") and np.isnan(alone.low)


@pytest.mark.parametrize("device", ["pcm_like", "digital"])
@pytest.mark.parametrize(
    "failed", [["sam--0", "sam--1"], ["sgd--0", "sgd--1"], ["sam--0", "sgd--1"]]
)
def test_without_a_common_seed_nothing_is_shown(device, failed):
    rows = rows_of({"sgd": [[0.80], [0.82]], "sam": [[0.82], [0.86]]})
    there = replace(evidence(rows, failed=failed), methods=["sam", "sgd"])
    found = endpoint(GAIN | {"device": device}, there)
    assert (found.n, found.n_chips, found.verdict) == (0, 0, "too few networks")
    assert np.isnan(found[:3]).all()


def test_methods_that_met_other_chips_are_refused():
    rows = rows_of(ONE_TWO_THREE)
    rows["programming_seed"] += (rows["method"] == "sam") & (rows["training_seed"] == 1)
    with pytest.raises(ValueError, match=r"sam and sgd have no chip in common in \[1\]; evaluate"):
        ended(GAIN, rows)


def test_a_subset_is_corrected_by_the_digital_network():
    """0.91 on all 10,000 images and 0.90 on the chip's 1,000: one point is added to each chip."""
    rows = rows_of(ONE_TWO_THREE, n_images=1000, n_test=10_000, digital=0.90)
    more = (rows["method"] == "sam") * 100
    rows["n_correct_digital_test"] += more
    assert ended(GAIN, rows).value == pytest.approx(2 + 1)


def test_a_digital_gain_counts_every_network_once():
    digital = {"sgd": [0.90, 0.91, 0.92], "sam": [0.905, 0.91, 0.935]}
    found = ended(GAIN | {"device": "digital"}, rows_of(ONE_TWO_THREE, digital=digital))
    np.testing.assert_allclose(found.value, (0.5 + 0 + 1.5) / 3)
    assert (found.n, found.n_chips) == (3, 0)


def test_two_gains_on_two_devices_are_subtracted_by_seed():
    second = {"sgd": [[0.5], [0.5], [0.5]], "sam": [[0.505], [0.515], [0.525]]}
    rows = pd.concat(
        [rows_of(ONE_TWO_THREE), rows_of(second, device="reram_wan2022", times_s=(86400.0,))]
    )
    test = GAIN | {"compensation": "global", "time_s": "1 s", "differs_from": 0.0,
                   "minus": {"device": "reram_wan2022", "time_s": "1 d"}}  # fmt: skip
    del test["above"]
    found = ended(test, rows)
    np.testing.assert_allclose(found[:3], [0.5] * 3)  # 1 - 0.5, 2 - 1.5, 3 - 2.5: no spread
    assert found.verdict == "holds"


def test_two_conditions_are_subtracted_on_the_same_chips():
    again = [[0.83, 0.85], [0.70, 0.70], [0.85, 0.75]]
    label = "global, batch norm recalibrated"
    condition = '{"batch_norm": "recalibrated"}'
    trained = rows_of({"sgd": ONE_TWO_THREE["sgd"]})
    rows = pd.concat([trained, rows_of({"sgd": again}, compensation=label, condition=condition)])
    test = {"measure": "gain", "method": "sgd", "device": "pcm_like", "compensation": label,
            "condition": {"batch_norm": "recalibrated"}, "below": 0.0,
            "minus": {"compensation": "global", "condition": {}}}  # fmt: skip
    found = ended(test, rows)
    assert (found.value, found.n, found.n_chips) == (pytest.approx(1.0), 3, 2)


def test_networks_of_another_study_are_subtracted_by_seed():
    """0.8, 0.85, 0.9 of the way from chance to digital here, 0.75 in each network there."""
    here = rows_of({"sgd": [[0.74], [0.78], [0.82]]}, digital=0.9)
    there = evidence(rows_of({"sgd": [[0.7]] * 3}, digital=0.9))
    test = {"measure": "normalised", "method": "sgd", "reference": "sgd", "n_classes": 10,
            "device": "pcm_like", "minus": {"study": "../other"}, "above": 0.0}  # fmt: skip
    check_test(test)
    found = endpoint(test, replace(evidence(here), beside={"../other": there}))
    np.testing.assert_allclose(found[:2], [0.1, 0.1 - T2 * 0.05 / 3**0.5], rtol=1e-9)
    assert described(test).endswith("minus ../other")


def test_normalised_accuracy_is_between_chance_and_the_other_methods_digital_network():
    digital = {"sgd": [0.9, 0.6, 0.8], "sam": 0.99}
    rows = rows_of({"sgd": [[0.1]] * 3, "sam": [[0.9], [0.35], [0.45]]}, digital=digital)
    test = {"measure": "normalised", "method": "sam", "reference": "sgd", "n_classes": 10,
            "device": "pcm_like", "below": 0.99}  # fmt: skip
    found = ended(test, rows)
    assert found.value == pytest.approx((1 + 0.25 / 0.5 + 0.35 / 0.7) / 3) and found.n_chips == 1


def test_the_gap_compares_the_same_chips_on_both_sets_of_images(tmp_path):
    rows = rows_of(ONE_TWO_THREE, condition='{"sigma": 0.1}')
    first = rows[rows["chip"] == 0]
    more = np.where(first["method"] == "sam", 0.01, 0.03)
    pd.DataFrame(
        {"checkpoint": first["checkpoint"], "chip_id": first["chip_id"], "device": "pcm_like",
         "condition": '{"sigma": 0.1}', "chip": 0, "t_inference_s": 1.0,
         "n_correct_training": np.round((first["n_correct"] / N + more) * 1000).astype(int),
         "n_training_images": 1000}
    ).to_csv(tmp_path / "training_images.csv", index=False)  # fmt: skip
    test = {"measure": "gap", "method": "sam", "over": "sgd", "device": "pcm_like",
            "condition": {"sigma": 0.1}, "below": 0.0}  # fmt: skip
    found = ended(test, rows, tmp_path)
    assert found.value == pytest.approx(1 - 3) and (found.n, found.n_chips) == (3, 1)
    assert found.verdict == "holds"
    images = pd.read_csv(tmp_path / "training_images.csv")
    reads = [images.assign(n_correct_training=images["n_correct_training"] + k) for k in (-20, 20)]
    (tmp_path / "reads").mkdir()
    pd.concat(reads).to_csv(tmp_path / "reads" / "training_images.csv", index=False)
    assert ended(test, rows, tmp_path / "reads")[:4] == pytest.approx(found[:4])
    between = test | {"minus": {"study": "../other"}}
    bare = evidence(rows, tmp_path / "bare")
    with pytest.raises(OtherIncompleteError, match=r"\.\./other: .*training_images.csv is not"):
        endpoint(between, replace(evidence(rows, tmp_path), beside={"../other": bare}))
    with pytest.raises(IncompleteError) as own:
        endpoint(between, replace(bare, beside={"../other": evidence(rows, tmp_path)}))
    assert own.type is IncompleteError


def test_a_column_is_averaged_over_epochs_before_its_logarithm(tmp_path):
    rows = rows_of(ONE_TWO_THREE)
    text = "checkpoint,epoch,layer,norm\n"
    for seed in range(3):
        text += f"sgd--{seed},0,,50\nsgd--{seed},1,,150\n"  # mean 100
        text += f"sam--{seed},0,,1\nsam--{seed},1,,19\nsam--{seed},1,fc1,\n"  # mean 10
    (tmp_path / "curves.csv").write_text(text)
    test = {"measure": "table", "table": "curves.csv", "column": "norm", "where": {"layer": ""},
            "log10": True, "method": "sam", "over": "sgd", "below": 0.0}  # fmt: skip
    found = ended(test, rows, tmp_path)
    np.testing.assert_allclose(found[:3], [-1.0] * 3)
    assert (found.n, found.n_chips, found.unit, found.verdict) == (3, 0, "", "holds")
    with pytest.raises(
        ValueError, match="3 of 9 values of norm in curves.csv are no finite numbers"
    ):
        ended(test | {"where": {}}, rows, tmp_path)
    (tmp_path / "curves.csv").write_text(text.replace(",19", ",inf"))
    with pytest.raises(ValueError, match="3 of 6 values of norm in curves.csv are no finite"):
        ended(test, rows, tmp_path)
    (tmp_path / "curves.csv").write_text(text.replace("sam--2,", "other,"))
    with pytest.raises(IncompleteError, match=r"sam has no value of the seeds \[2\]"):
        ended(test, rows, tmp_path)


def test_a_table_of_repeats_needs_no_networks(tmp_path):
    (tmp_path / "steps.csv").write_text(
        "repeat,method,kelvin,ratio\n"
        "a,sam,-1,2.0\nb,sam,-1,2.1\nc,sam,-1,2.2\na,sgd,-1,1.0\nb,sgd,-1,1.2\nc,sgd,-1,1.1\n"
        "a,sam,0,1.5\nb,sam,0,1.5\nc,sam,0,1.5\n"
    )
    alone = Evidence(tmp_path, pd.DataFrame(), pd.DataFrame())
    test = {"measure": "table", "table": "steps.csv", "column": "ratio", "method": "sam",
            "where": {"kelvin": -1}, "by": "repeat", "above": 1.8, "unit": "x"}  # fmt: skip
    check_test(test)
    found = endpoint(test, alone)
    np.testing.assert_allclose(found[:3], [2.1, 2.1 - 0.1 * T2 / 3**0.5, 2.1 + 0.1 * T2 / 3**0.5])
    assert (found.n, found.unit, found.verdict) == (3, "x", "holds")
    over = endpoint(test | {"over": "sgd", "scale": 100}, alone)
    assert over.value == pytest.approx(100 * (1.0 + 0.9 + 1.1) / 3)
    minus = endpoint(test | {"minus": {"kelvin": 0}}, alone)
    assert minus.value == pytest.approx((0.5 + 0.6 + 0.7) / 3)
    with pytest.raises(ValueError, match=r"No row of 'rwp'; there are \['sam', 'sgd'\]"):
        endpoint(test | {"method": "rwp"}, alone)
    with pytest.raises(
        ValueError, match=r"steps.csv has no row with kelvin = -2; there are \['-1'"
    ):
        endpoint(test | {"where": {"kelvin": -2}}, alone)
    with pytest.raises(IncompleteError, match="other.csv is not there"):
        endpoint(test | {"table": "other.csv"}, alone)
    (tmp_path / "late.csv").write_text("repeat,late,ratio\na,True,1\na,False,3\nb,True,2\n")
    late = {"measure": "table", "table": "late.csv", "column": "ratio", "where": {"late": True},
            "by": "repeat", "above": 0.0}  # fmt: skip
    assert endpoint(late, alone).value == 1.5
    with pytest.raises(ValueError, match=r"no row with late = 'yes'; there are \['False', 'True'"):
        endpoint(late | {"where": {"late": "yes"}}, alone)


def test_a_correlation_resamples_training_seeds(tmp_path):
    """With two seeds the resamples are 00, 01, 10 and 11: the spread of their z by hand."""
    methods = ["sgd", "sam", "rwp", "saf"]
    lost = np.array([[0.01, 0.02], [0.03, 0.06], [0.02, 0.05], [0.04, 0.03]])
    sharp = np.array([[1.0, 2.0], [4.0, 1.0], [3.0, 6.0], [2.0, 5.0]])
    rows = rows_of({m: 0.95 - lost[k][:, None] + [[0.001, -0.001]] for k, m in enumerate(methods)})
    pd.DataFrame(
        {"checkpoint": [f"{m}--{s}" for m in methods for s in (0, 1)], "sharp": sharp.ravel()}
    ).to_csv(tmp_path / "sharp.csv", index=False)
    test = {"measure": "rank_correlation", "table": "sharp.csv", "column": "sharp",
            "device": "pcm_like", "above": 0.5}  # fmt: skip
    found = ended(test, rows, tmp_path)
    assert found.value == pytest.approx(stats.spearmanr(sharp.ravel(), lost.ravel())[0])
    drawn = [
        stats.spearmanr(sharp[:, picked].ravel(), lost[:, picked].ravel())[0]
        for picked in ([0, 0], [0, 1], [1, 1])
    ]
    z = np.arctanh(drawn)
    middle, share = np.arctanh(found.value), np.array([0.25, 0.5, 0.25])
    half = 12.7062 * 2**0.5 * np.sqrt(share @ z**2 - (share @ z) ** 2)
    ends = np.arctanh([found.low, found.high]) - middle
    assert ends == pytest.approx([-half, half], rel=0.02)  # 9,999 resamples
    p = 2 * stats.t.sf(abs(middle - np.arctanh(0.5)) / half * 12.7062, 1)
    assert found.p_value == pytest.approx(p, rel=0.02)
    assert (found.n, found.n_chips) == (8, 2)
    between = stats.spearmanr(sharp.mean(axis=1), lost.mean(axis=1))[0]
    assert f"between methods {between:.2f} (4 methods), within methods" in found.beside


@pytest.mark.slow
@pytest.mark.parametrize("n_seeds", [5, 10])
def test_the_interval_of_a_correlation_covers(monkeypatch, n_seeds):
    """150 studies of 7 methods, seed 2: 95 % wanted; below 90 % by chance once in 150 times.

    999 resamples, by which a half-width varies 2 %, are as good as 9,999 here.
    """
    monkeypatch.setattr(measures, "DRAWS", 999)
    draws = np.random.default_rng(2)
    centres = draws.normal(size=(2, 7, 1))
    centres[1] = 0.8 * centres[0] + 0.6 * centres[1]

    def study(n):
        x, y = centres + 0.5 * draws.normal(size=(2, 7, n))
        return x.T.ravel(), (y + 0.3 * x).T.ravel()  # seed by seed

    truth = stats.spearmanr(*study(20_000))[0]
    of_seed = np.arange(7 * n_seeds).reshape(n_seeds, 7)
    studies = [study(n_seeds) for _ in range(150)]
    distances = [np.arctanh(stats.spearmanr(*one)[0]) - np.arctanh(truth) for one in studies]
    half_widths = [_error_of_z(*one, of_seed).half_width(0.95) for one in studies]
    assert np.mean(np.abs(distances) <= half_widths) >= 0.9


@pytest.mark.parametrize(("low", "high", "limit", "said"), [
    (0.1, 0.3, {"above": 0}, "holds"),
    (-0.1, 0.3, {"above": 0}, "not shown"),
    (0.0, 0.3, {"above": 0}, "not shown"),
    (-0.3, -0.1, {"above": 0}, "the opposite"),
    (-0.3, -0.1, {"below": 0}, "holds"),
    (0.1, 0.3, {"below": 0}, "the opposite"),
    (-0.1, 0.3, {"below": 0}, "not shown"),
    (-0.3, -0.1, {"differs_from": 0}, "holds"),
    (0.1, 0.3, {"differs_from": 0}, "holds"),
    (-0.1, 0.3, {"differs_from": 0}, "not shown"),
    (-0.1, 0.3, {"at_least": 0, "margin": 0.2}, "holds"),
    (-0.2, 0.3, {"at_least": 0, "margin": 0.2}, "not shown"),
    (-0.4, -0.3, {"at_least": 0, "margin": 0.2}, "the opposite"),
    (np.nan, np.nan, {"above": 0}, "too few networks"),
])  # fmt: skip
def test_a_claim_holds_if_the_interval_lies_wholly_on_its_side(low, high, limit, said):
    assert verdict(low, high, limit) == said


@pytest.mark.parametrize(("change", "message"), [
    ({"measure": "accuracy"}, r"measure must be one of .*'table'\]; got 'accuracy'"),
    ({"device": None}, r"A test of 'gain' needs the keys \['device'\]"),
    ({"time": "1 d"}, r"Unknown keys \['time'\] of a test of 'gain'; allowed are .*'time_s'"),
    ({"over": None}, "'gain' needs one of the keys .'over', 'minus'."),
    ({"above": None}, r"needs one limit of \['above', 'below', .*got \[\]"),
    ({"below": 0.0}, r"needs one limit .*got \['above', 'below'\]"),
    ({"above": None, "at_least": 0.0}, r"'margin' with 'at_least' only; got \['at_least'\]"),
    ({"margin": 0.1}, r"got \['above', 'margin'\]"),
    ({"device": "digital", "time_s": "1 d"}, r"Digital networks have no \['time_s'\]"),
    ({"minus": {}}, r"'minus' is a table of settings that differ; got \{\}"),
    ({"minus": "../other"}, r"'minus' is a table of settings that differ; got '../other'"),
    ({"minus": {"study": 3}}, r"'study' of 'minus' is the folder of a study; got 3"),
    ({"minus": {"study": ""}}, r"'study' of 'minus' is the folder of a study; got ''"),
    ({"minus": {"time": "2 d"}}, r"Unknown keys \['time'\] of 'minus'; allowed are"),
    ({"over": "rwp"}, r"over = 'rwp' is not in the protocol: \['sam', 'sgd'\]"),
])  # fmt: skip
def test_a_test_that_cannot_be_understood_is_refused(change, message):
    test = {key: value for key, value in (GAIN | change).items() if value is not None}
    with pytest.raises(ValueError, match=message):
        check_test(test, ["sam", "sgd"])


def test_a_setting_must_mean_one_kind_of_rows():
    kinds = [{"condition": json.dumps({"sigma": sigma})} for sigma in (0.1, 0.2)]
    rows = pd.concat([rows_of(ONE_TWO_THREE, **kind) for kind in kinds])
    with pytest.raises(ValueError, match="Rows of 'pcm_like' differ in condition: .*; name one"):
        ended(GAIN, rows)
    with pytest.raises(IncompleteError, match="no row of 'pcm_like, sigma 0.3'"):
        ended(GAIN | {"condition": {"sigma": 0.3}}, rows)
    assert ended(GAIN | {"condition": {"sigma": 0.2}}, rows).value == pytest.approx(2)


def test_gains_are_of_accuracies():
    rows = rows_of(ONE_TWO_THREE).drop(columns=["n_correct", "n_correct_digital", "n_changed"])
    rows = rows.assign(score="cross_entropy", higher_is_better=False, sum=1.0)
    with pytest.raises(ValueError, match="these rows are of 'cross_entropy'; write a CSV file"):
        ended(GAIN, rows)


def test_a_method_of_several_strengths_is_named_with_one():
    rows = rows_of({"sgd": [[0.8]] * 3, "sam rho=1": [[0.81]] * 3, "sam rho=2": [[0.83]] * 3})
    with pytest.raises(ValueError, match="'sam' is there in 2 strengths; give one of"):
        ended(GAIN, rows)
    assert ended(GAIN | {"method": "sam rho=2"}, rows).value == pytest.approx(3)


def test_tests_are_described_in_words():
    minus = {"device": "reram_wan2022", "time_s": "2 d"}
    test = GAIN | {"compensation": "global", "time_s": "1 y", "minus": minus}
    said = "gain of sam over sgd, pcm_like, compensation global, 1 y minus reram_wan2022, 2 d"
    assert described(test) == said
