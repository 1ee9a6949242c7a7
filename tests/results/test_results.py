import errno
import gzip
import json
import os

import numpy as np
import pandas as pd
import pytest
from scipy import stats
from synthetic_trials import make_trials

from analog_samson.results import (
    COLUMNS,
    append_rows,
    best_methods,
    holm,
    paired_gain,
    read_trials,
    summarise,
    trials,
)
from analog_samson.results.checking import read_table
from analog_samson.results.columns import OLD_COLUMNS
from analog_samson.times import DAY, HOUR, YEAR


@pytest.fixture
def rows():
    return make_trials(n_networks=2, n_chips=2, times_s=(0.0, 1.0, YEAR))


# the table


def test_what_is_appended_is_read_back(rows, tmp_path):
    table = tmp_path / "trials.csv"
    append_rows(rows.iloc[:5], table)
    append_rows(rows.iloc[5:][list(reversed(COLUMNS))], table)
    pd.testing.assert_frame_equal(read_trials(table), rows, check_dtype=False)
    pd.testing.assert_frame_equal(read_trials(tmp_path), rows, check_dtype=False)


def test_a_compressed_table_is_read_with_rows_that_were_added_beside_it(rows, tmp_path):
    append_rows(rows.iloc[:5], tmp_path / "trials.csv")
    packed = gzip.compress((tmp_path / "trials.csv").read_bytes())
    (tmp_path / "trials.csv").unlink()
    (tmp_path / "trials.csv.gz").write_bytes(packed)
    pd.testing.assert_frame_equal(read_trials(tmp_path), rows.iloc[:5], check_dtype=False)
    append_rows(rows.iloc[5:], tmp_path / "trials.csv")
    pd.testing.assert_frame_equal(read_trials(tmp_path), rows, check_dtype=False)
    with pytest.raises(ValueError, match=r"trials\.csv\.gz' is there and is not a table of trials"):
        append_rows(rows.iloc[5:], tmp_path / "trials.csv.gz")
    (tmp_path / "trials.csv.gz").write_bytes(packed[:-20])
    with pytest.raises(ValueError, match=r"trials\.csv\.gz' cannot be decompressed .*restore"):
        read_trials(tmp_path)


def test_an_unchanged_table_is_read_once_and_a_changed_one_again(rows, tmp_path, monkeypatch):
    table, reads = tmp_path / "trials.csv", []
    monkeypatch.setattr(trials, "read_table", lambda file: reads.append(file) or read_table(file))
    append_rows(rows.iloc[:5], table)
    first = read_trials(table)
    first["n_correct"] = -1  # what a caller does with its copy reaches nobody else
    pd.testing.assert_frame_equal(read_trials(table), rows.iloc[:5], check_dtype=False)
    assert len(reads) == 1
    append_rows(rows.iloc[5:], table)
    pd.testing.assert_frame_equal(read_trials(tmp_path), rows, check_dtype=False)
    assert len(reads) == 2
    changed = rows.assign(n_correct=rows["n_correct"] - 1)
    other = tmp_path / "other.csv"
    append_rows(changed, other)
    other.replace(table)  # another file of the same size
    pd.testing.assert_frame_equal(read_trials(table), changed, check_dtype=False)
    with pytest.raises(FileNotFoundError):
        read_trials(other)


def test_columns_have_the_types_of_the_design(rows, tmp_path):
    append_rows(rows, tmp_path / "trials.csv")
    kinds = read_trials(tmp_path).dtypes
    assert kinds["n_correct"] == np.int64
    assert kinds["t_inference_s"] == np.float64
    assert kinds["extrapolated"] == np.bool_


def test_floats_survive_the_file_to_the_last_bit(rows, tmp_path):
    rows.loc[0, "alpha"] = 1 / 3
    rows.loc[1, "t_inference_s"] = 0.1 + 0.2
    append_rows(rows, tmp_path / "trials.csv")
    read = read_trials(tmp_path)
    assert read.loc[0, "alpha"] == 1 / 3
    assert read.loc[1, "t_inference_s"] == 0.1 + 0.2


@pytest.mark.parametrize("cut", [1, 10, 40])
def test_a_half_written_last_row_is_dropped_and_repaired(rows, tmp_path, cut):
    table = tmp_path / "trials.csv"
    append_rows(rows, table)
    whole = table.read_bytes()
    table.write_bytes(whole[:-cut])
    assert len(read_trials(table)) == len(rows) - 1
    append_rows(rows.iloc[-1:], table)
    assert table.read_bytes() == whole


@pytest.mark.slow
def test_a_cut_at_any_byte_loses_at_most_the_row_it_hits(rows, tmp_path):
    table = tmp_path / "trials.csv"
    append_rows(rows.iloc[:3], table)
    whole = table.read_bytes()
    ends = [i + 1 for i, byte in enumerate(whole) if byte == ord("\n")]
    for size in range(0, len(whole), 7):
        table.write_bytes(whole[:size])
        n_whole = max(sum(end <= size for end in ends) - 1, 0)
        assert len(read_trials(table)) == n_whole
        append_rows(rows.iloc[n_whole:3], table)
        assert table.read_bytes() == whole


def test_an_empty_table_and_a_lone_header_hold_no_rows(tmp_path):
    table = tmp_path / "trials.csv"
    table.touch()
    assert read_trials(table).empty
    table.write_text(",".join(COLUMNS) + "\n")
    assert list(read_trials(table).columns) == list(COLUMNS)
    assert read_trials(table).empty


def test_a_missing_table_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"trials\.csv"):
        read_trials(tmp_path / "nothing" / "trials.csv")
    with pytest.raises(FileNotFoundError, match="make it first"):
        append_rows(make_trials(n_networks=1, n_chips=1), tmp_path / "nothing" / "trials.csv")


def test_another_file_is_neither_read_nor_overwritten(rows, tmp_path):
    table = tmp_path / "trials.csv"
    table.write_text("a,b\n1,2\n")
    with pytest.raises(ValueError, match="not a table of trials"):
        read_trials(table)
    with pytest.raises(ValueError, match="not a table of trials"):
        append_rows(rows, table)
    assert table.read_text() == "a,b\n1,2\n"


@pytest.mark.parametrize("column", ["n_correct", "chip_id", "extrapolated"])
def test_a_row_with_a_hole_is_not_appended(rows, tmp_path, column):
    rows[column] = rows[column].astype(object)
    rows.loc[3, column] = None
    with pytest.raises(ValueError, match=f"has no {column}"):
        append_rows(rows, tmp_path / "trials.csv")
    assert not (tmp_path / "trials.csv").exists()


def test_more_correct_predictions_than_images_are_refused(rows, tmp_path):
    append_rows(rows, tmp_path / "trials.csv")
    rows.loc[3, "n_correct"] = rows.loc[3, "n_images_per_chip"] + 1
    with pytest.raises(ValueError, match="Row 4 of the new rows"):
        append_rows(rows, tmp_path / "trials.csv")


def test_a_damaged_row_in_the_middle_is_named(rows, tmp_path):
    table = tmp_path / "trials.csv"
    append_rows(rows, table)
    lines = table.read_text().splitlines()
    lines[4] = lines[4][:30]
    table.write_text("\n".join(lines) + "\n")
    with pytest.raises(ValueError, match=r"trials.csv', line 5, is damaged: it has 3 values"):
        read_trials(table)


@pytest.mark.parametrize("value", ["nan", ""])
def test_a_row_without_an_accuracy_is_named_and_never_averaged(rows, tmp_path, value):
    table = tmp_path / "trials.csv"
    append_rows(rows, table)
    column = COLUMNS.index("n_correct")
    lines = [line.split(",") for line in table.read_text().splitlines()]
    lines[4][column] = value
    table.write_text("".join(",".join(line) + "\n" for line in lines))
    with pytest.raises(
        ValueError,
        match=r"line 5(, is damaged: n_correct = 'nan'| has no n_correct).*delete the line",
    ):
        read_trials(table)


WRONG_VALUES = [
    ("alpha", "inf", "it is finite and above 0, or empty"),
    ("alpha", "0.0", "it is finite and above 0, or empty"),
    ("alpha", "-1.0", "it is finite and above 0, or empty"),
    ("analog_share", "2", "a share lies in"),
    ("analog_share", "-0.1", "a share lies in"),
    ("analog_share", "inf", "a share lies in"),
    ("read", "-1", "a whole number of at least 0"),
    ("read", "1.0", "no whole number"),
    ("read", "x", "no whole number"),
    ("read", "99999999999999999999", "no whole number"),
    ("programming_seed", "1.0000000000000002e+16", "no whole number"),
    ("chip", "-1", "a whole number of at least 0"),
    ("training_seed", "-1", "a whole number of at least 0"),
    ("programming_seed", "-1", "a whole number of at least 0"),
    ("n_images_per_chip", "0", "a whole number of at least 1"),
    ("n_test", "1", "which is inconsistent"),
    ("n_correct", "-1", "a whole number of at least 0"),
    ("t_inference_s", "-1.0", "times are finite"),
    ("t_inference_s", "inf", "times are finite"),
    ("t_inference_s", "1 h", "no number"),
    ("t_inference_s", "", "has no t_inference_s"),
    ("study", "", "a text in one line is needed"),
    ("device", "", "a text in one line is needed"),
    ("method", "a\x07b", "a text in one line is needed"),
    ("condition", "{", "a JSON object of numbers and words"),
    ("condition", "[]", "a JSON object of numbers and words"),
    ("condition", '"{""a"": null}"', "a JSON object of numbers and words"),
    ("condition", '"{""a"": [1]}"', "a JSON object of numbers and words"),
    ("extrapolated", "maybe", "neither True nor False"),
    ("reproducible", "", "has no reproducible"),
]


@pytest.mark.parametrize(("column", "value", "words"), WRONG_VALUES)
def test_a_wrong_value_is_refused_with_its_line_and_column(rows, tmp_path, column, value, words):
    """An empty line before it: lines are counted as an editor counts them."""
    table = tmp_path / "trials.csv"
    append_rows(rows, table)
    lines = [line.split(",") for line in table.read_text().splitlines()]
    lines[4][COLUMNS.index(column)] = value
    table.write_text("".join(",".join(line) + "\n" for line in [*lines[:3], [], *lines[3:]]))
    with pytest.raises(ValueError, match=f"{words}.*; delete the line: its point") as error:
        read_trials(table)
    assert f"{str(table)!r}, line 6" in str(error.value)
    assert column in str(error.value)


@pytest.mark.parametrize(
    ("column", "value"),
    [
        ("alpha", np.inf),
        ("alpha", "1"),
        ("analog_share", 2.0),
        ("read", -1),
        ("read", 0.5),
        ("condition", "{"),
        ("device", ""),
        ("device", 5),
        ("method", "two\nlines"),
        ("extrapolated", "no"),
        ("t_inference_s", -1.0),
    ],
)
def test_a_wrong_value_is_not_appended(rows, tmp_path, column, value):
    rows[column] = rows[column].astype(object)
    rows.loc[3, column] = value
    if (column, value) == ("alpha", "1"):  # a number as text is written as the number
        append_rows(rows, tmp_path / "trials.csv")
        return
    with pytest.raises(ValueError, match=rf"Row 4 of the new rows: .*{column}"):
        append_rows(rows, tmp_path / "trials.csv")
    assert not (tmp_path / "trials.csv").exists()


def test_a_factor_of_least_squares_may_be_negative(rows, tmp_path):
    rows["compensation"], rows["alpha"] = "per_layer", -0.5
    append_rows(rows, tmp_path / "trials.csv")
    assert (read_trials(tmp_path)["alpha"] == -0.5).all()


@pytest.mark.parametrize(
    ("column", "value"),
    [
        ("method", "other"),
        ("device", "other"),
        ("condition", '{"drift_scale": 2.0}'),
        ("strength", "rho=1"),
        ("programming_seed", 99),
        ("n_test", 2_000_000),
        ("training_seed", 77),
        ("engine", "compiled"),
    ],
)
def test_an_edited_label_of_a_chip_is_found(rows, tmp_path, column, value):
    """Rows of one chip_id must agree in what they say of the chip, in one file and in several."""
    table = tmp_path / "trials.csv"
    whole = rows.copy()
    rows.loc[7, column] = value
    append_rows(rows, table)
    with pytest.raises(
        ValueError, match=f"line 9: {column} = .* of the same chip_id in line 8; del"
    ):
        read_trials(table)
    append_rows(whole.iloc[:7], tmp_path / "a.csv")
    append_rows(rows.iloc[7:8], tmp_path / "b.csv")
    with pytest.raises(ValueError, match=f"a.csv and .*b.csv: .* have {column} = "):
        read_trials(tmp_path / "a.csv", tmp_path / "b.csv")


def test_a_table_saved_by_another_program_is_refused(rows, tmp_path):
    table = tmp_path / "trials.csv"
    append_rows(rows, table)
    original = table.read_bytes()
    for content in (b"\xef\xbb\xbf" + original, original.replace(b"\n", b"\r\n")):
        table.write_bytes(content)
        with pytest.raises(
            ValueError, match="saved by another program .*; restore the original|rest"
        ):
            read_trials(table)
    for content in (b"hello", original.decode().encode("utf-16"), original[1:]):
        table.write_bytes(content)
        with pytest.raises(ValueError, match=r"trials.csv' (is not a table|was saved by another)"):
            read_trials(table)


def test_missing_and_unknown_columns_are_named(rows, tmp_path):
    wrong = rows.rename(columns={"n_correct": "correct"})
    with pytest.raises(ValueError, match=r"missing: \['n_correct'\], unknown: \['correct'\]"):
        append_rows(wrong, tmp_path / "trials.csv")


def test_a_full_disk_leaves_the_table_as_it_was(rows, tmp_path, monkeypatch):
    table = tmp_path / "trials.csv"
    append_rows(rows.iloc[:4], table)
    before = table.read_bytes()
    write = os.write

    def fill_up(descriptor, content):
        if len(content) > 100:
            return write(descriptor, content[:100])
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "write", lambda d, c: fill_up(d, c[:101] if len(c) > 300 else c[:50]))
    with pytest.raises(OSError, match="the disk is full"):
        append_rows(rows.iloc[4:], table)
    monkeypatch.undo()
    assert table.read_bytes() == before


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_that_cannot_be_written_is_named(rows, tmp_path):
    tmp_path.chmod(0o500)
    with pytest.raises(OSError, match="cannot be written"):
        append_rows(rows, tmp_path / "trials.csv")


def test_halves_from_two_machines_merge_and_shared_rows_count_once(rows, tmp_path):
    append_rows(rows.iloc[:8], tmp_path / "a.csv")
    append_rows(rows.iloc[4:].assign(study="other"), tmp_path / "b.csv")
    merged = read_trials(tmp_path / "a.csv", tmp_path / "b.csv")
    assert len(merged) == len(rows)
    assert (merged["n_correct"] == rows["n_correct"]).all()


def test_rows_that_contradict_each_other_are_refused(rows, tmp_path):
    append_rows(rows, tmp_path / "a.csv")
    rows.loc[5, "n_correct"] -= 1
    append_rows(rows, tmp_path / "b.csv")
    with pytest.raises(ValueError, match="differ in n_correct"):
        read_trials(tmp_path / "a.csv", tmp_path / "b.csv")


def test_one_chip_under_two_definitions_is_refused(rows):
    other = rows.assign(chip_id=rows["chip_id"] + "x")
    with pytest.raises(ValueError, match="device's definition"):
        summarise(pd.concat([rows, other]))
    other["programming_seed"] += 1
    with pytest.raises(ValueError, match="differ in 'programming_seed'"):
        summarise(pd.concat([rows, other]))


def test_studies_that_define_a_device_differently_are_refused(rows, tmp_path):
    for name, g_max in (("a", 25.0), ("b", 20.0)):
        (tmp_path / name).mkdir()
        append_rows(rows[rows["training_seed"] == (name == "b")], tmp_path / name / "trials.csv")
        manifest = {"devices": {"pcm_like": {"noise": {"g_max_uS": g_max}}}}
        (tmp_path / name / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(ValueError, match=r"noise\.g_max_uS: 25\.0 and 20\.0"):
        read_trials(tmp_path / "a", tmp_path / "b")


def test_a_device_described_in_other_words_is_the_same_device(rows, tmp_path):
    """A later version adds keys, neutral where they are not used: the digest is what counts."""
    for name, words in (("a", {}), ("b", {"new_key": 0})):
        (tmp_path / name).mkdir()
        append_rows(rows[rows["training_seed"] == (name == "b")], tmp_path / name / "trials.csv")
        manifest = {"devices": {"pcm_like": words}, "device_digests": {"pcm_like": "5e6f"}}
        (tmp_path / name / "manifest.json").write_text(json.dumps(manifest))
    assert len(read_trials(tmp_path / "a", tmp_path / "b")) == len(rows)


def test_two_networks_of_one_seed_are_not_averaged(rows):
    other = rows.assign(chip_id=rows["chip_id"] + "x", checkpoint=rows["checkpoint"] + "x")
    with pytest.raises(ValueError, match="trained differently"):
        summarise(pd.concat([rows, other]))


def test_evaluation_sets_of_two_sizes_are_not_averaged(rows):
    other = make_trials({"rwp": 0.9}, n_images_per_chip=1000)
    with pytest.raises(ValueError, match=r"\[1000, 1000000\] images"):
        summarise(pd.concat([rows, other]))


# means and intervals


def scores(trials):
    return trials.assign(score=trials["n_correct"] / trials["n_images_per_chip"])


def test_the_interval_is_students_over_network_means():
    trials = make_trials({"sgd": 0.9}, n_networks=5, n_chips=7, n_reads=2, std_reads=0.003)
    at_hour = scores(trials)[trials["t_inference_s"] == HOUR]
    networks = at_hour.groupby("training_seed")["score"].mean()
    low, high = stats.t.interval(0.9, 4, networks.mean(), stats.sem(networks))
    row = summarise(trials, 0.9, scale="accuracy").set_index("t_inference_s").loc[HOUR]
    np.testing.assert_allclose([row["low"], row["high"]], [low, high], rtol=1e-12)
    assert row["accuracy"] == pytest.approx(networks.mean(), rel=1e-12)
    assert (row["level"], row["spread"]) == ("networks", "own")
    assert (row["n_networks"], row["n_chips"], row["n_reads"]) == (5, 7, 2)
    assert row["std_networks"] == pytest.approx(networks.std(ddof=1))
    assert row["clean_accuracy"] == pytest.approx(0.91, abs=1e-6)


def test_one_network_gives_an_interval_over_chips_only_and_is_marked():
    trials = make_trials({"sgd": 0.9}, n_networks=1, n_chips=8, times_s=(1.0,))
    score = scores(trials)["score"]
    row = summarise(trials, scale="accuracy").iloc[0]
    assert row["level"] == "chips only"
    expected = stats.t.ppf(0.975, 7) * score.std(ddof=1) / np.sqrt(8)
    assert row["half_width"] == pytest.approx(expected)


def test_one_chip_of_one_network_has_no_interval():
    row = summarise(make_trials({"sgd": 0.9}, n_networks=1, n_chips=1)).iloc[0]
    assert np.isnan(row["half_width"])
    assert np.isnan(row["low"])
    assert row["accuracy"] == pytest.approx(0.9, abs=0.05)


def test_a_network_with_more_chips_weighs_no_more():
    trials = make_trials({"sgd": 0.9}, n_networks=4, n_chips=6, times_s=(1.0,), std_networks=0.05)
    kept = trials[(trials["training_seed"] > 0) | (trials["chip"] == 0)]
    row = summarise(kept, scale="accuracy").iloc[0]
    networks = scores(kept).groupby("training_seed")["score"].mean()
    assert row["accuracy"] == pytest.approx(networks.mean())
    assert (row["n_chips"], row["n_chips_max"]) == (1, 6)


def test_few_networks_share_their_spread_over_methods():
    methods = {"sgd": 0.9, "sam": 0.91, "rwp": 0.92}
    trials = make_trials(methods, n_networks=3, times_s=(1.0,))
    summary, own = (summarise(trials, pool=pool, scale="accuracy") for pool in (None, False))
    assert set(own["spread"]) == {"own"}
    shared = summary[summary["spread"] == "pooled"]
    assert len(shared) >= 1
    root_mean_square = np.sqrt((own["std_networks"] ** 2).mean()) / np.sqrt(3)
    np.testing.assert_allclose(shared["standard_error"], root_mean_square)
    assert ((shared["dof"] > 2) & (shared["dof"] <= 6)).all()
    widest = own["std_networks"].idxmax()
    assert summary.at[widest, "spread"] == "own"
    alone = summarise(make_trials({"sgd": 0.9}, n_networks=3, times_s=(1.0,)))
    assert set(alone["spread"]) == {"own"}


def test_bounds_stay_between_0_and_1():
    trials = make_trials({"sgd": 0.999}, n_networks=2, std_networks=0.05, times_s=(1.0,))
    row = summarise(trials).iloc[0]
    assert row["high"] == 1.0
    assert row["accuracy"] + row["half_width"] > 1.0


def test_conditions_are_never_averaged_together():
    trials = pd.concat(
        [
            make_trials({"sgd": 0.9}, times_s=(1.0,)),
            make_trials({"sgd": 0.8}, times_s=(1.0,), device="reram_wan2022"),
            make_trials({"sgd": 0.7}, times_s=(1.0,), condition='{"drift_scale": 2.0}').assign(
                chip_id=lambda rows: rows["chip_id"] + "-swept"
            ),
        ]
    )
    assert len(summarise(trials)) == 3


def test_an_empty_table_and_a_wrong_confidence_are_refused(rows):
    with pytest.raises(ValueError, match="no rows to summarise"):
        summarise(rows.iloc[:0])
    with pytest.raises(ValueError, match="between 0 and 1"):
        summarise(rows, 95)


# gains


def test_gain_is_the_paired_t_test_over_networks():
    trials = make_trials(n_networks=6, times_s=(DAY,), std_shared=0.05)
    means = scores(trials).groupby(["method", "training_seed"])["score"].mean()
    test = stats.ttest_rel(means["samson"], means["sgd"])
    row = paired_gain(trials, scale="accuracy").iloc[0]
    interval = test.confidence_interval(0.95)
    np.testing.assert_allclose(
        [row["low"], row["high"], row["p_value"]], [interval.low, interval.high, test.pvalue]
    )
    assert row["p_holm"] == row["p_value"]
    assert row["paired"]


def test_what_a_chip_does_to_all_methods_cancels():
    noisy = make_trials(
        {"sgd": 0.5, "sam": 0.53}, times_s=(1.0,), std_shared=0.05, std_networks=0, std_chips=1e-4
    )
    row = paired_gain(noisy).iloc[0]
    assert row["gain"] == pytest.approx(0.03, abs=3e-4)
    assert row["half_width"] < 3e-4


def test_networks_from_elsewhere_are_compared_by_welch():
    trials = make_trials({"sgd": 0.9, "external": 0.92}, times_s=(1.0,))
    means = scores(trials).groupby(["method", "checkpoint"])["score"].mean()
    test = stats.ttest_ind(means["external"], means["sgd"], equal_var=False)
    row = paired_gain(trials, scale="accuracy").iloc[0]
    assert not row["paired"]
    assert row["p_value"] == pytest.approx(test.pvalue)


def test_chips_only_differences_are_never_called_significant():
    trials = make_trials({"sgd": 0.8, "sam": 0.9}, n_networks=1, std_chips=1e-4)
    gains = paired_gain(trials)
    assert set(gains["level"]) == {"chips only"}
    assert not gains["significant"].any()


def test_only_pairs_measured_on_both_sides_count():
    trials = make_trials(times_s=(1.0,))
    kept = trials[(trials["method"] == "sgd") | (trials["training_seed"] < 3)]
    assert paired_gain(kept).iloc[0]["n_networks"] == 3


def test_an_unknown_or_ambiguous_baseline_is_named(rows):
    with pytest.raises(ValueError, match="Did you mean 'sgd'"):
        paired_gain(rows, "sdg")
    two = pd.concat([rows, make_trials({"samson rho=1.0": 0.9}, n_networks=2, n_chips=2)])
    with pytest.raises(ValueError, match="2 strengths"):
        paired_gain(two, "samson")
    assert set(paired_gain(two, "samson rho=1.0")["baseline"]) == {"samson rho=1.0"}


def test_holm_rejects_exactly_what_the_step_down_procedure_rejects():
    random = np.random.default_rng(0)
    for _ in range(200):
        p = random.beta(0.3, 1.0, size=random.integers(1, 9))
        corrected = holm(p)
        for alpha in (0.01, 0.05, 0.2):
            rejected = np.zeros(len(p), dtype=bool)
            for step, k in enumerate(np.argsort(p)):
                if p[k] >= alpha / (len(p) - step):
                    break
                rejected[k] = True
            assert ((corrected < alpha) == rejected).all()


def test_holm_ignores_tests_that_could_not_be_made():
    np.testing.assert_allclose(holm([0.01, np.nan, 0.04]), [0.02, np.nan, 0.04])


def test_bold_needs_a_real_difference_to_every_other_method():
    clear = best_methods(make_trials({"sgd": 0.8, "sam": 0.82, "rwp": 0.95}, times_s=(1.0,)))
    assert list(clear.loc[clear["is_best"], "method"]) == ["rwp"]
    assert not clear["is_tied"].any()
    close = best_methods(make_trials({"sgd": 0.8, "sam": 0.95, "rwp": 0.951}, times_s=(1.0,)))
    assert not close["is_best"].any()
    assert set(close.loc[close["is_tied"], "method"]) == {"sam", "rwp"}
    one = best_methods(make_trials({"sgd": 0.8, "sam": 0.95}, n_networks=1, times_s=(1.0,)))
    assert not one["is_best"].any()


def with_old_header(path):
    """Give a table the header that version 0.1.0 wrote."""
    header, _, rows = path.read_bytes().partition(b"\n")
    old = header
    for old_name, new_name in OLD_COLUMNS.items():
        assert new_name.encode() in old
        old = old.replace(new_name.encode(), old_name.encode())
    path.write_bytes(old + b"\n" + rows)
    return old


def test_a_table_with_old_column_names_reads_as_before(rows, tmp_path):
    path = tmp_path / "trials.csv"
    append_rows(rows, path)
    before = read_trials(path)
    with_old_header(path)
    pd.testing.assert_frame_equal(read_trials(path), before)


def test_rows_are_appended_below_an_old_header(rows, tmp_path):
    path, whole = tmp_path / "trials.csv", tmp_path / "whole.csv"
    append_rows(rows.iloc[:3], path)
    old = with_old_header(path)
    append_rows(rows.iloc[3:], path)
    append_rows(rows, whole)
    pd.testing.assert_frame_equal(read_trials(path), read_trials(whole))
    assert path.read_bytes().partition(b"\n")[0] == old
    assert path.read_bytes().partition(b"\n")[2] == whole.read_bytes().partition(b"\n")[2]
    path.write_bytes(old[:-20])  # killed while the header was written
    append_rows(rows, path)
    assert path.read_bytes() == whole.read_bytes()
