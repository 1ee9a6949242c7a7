"""Scores other than accuracy: sums, control variates, intervals, gains, lifetimes, tables."""

import itertools
import json
import re

import numpy as np
import pandas as pd
import pytest
from scipy import stats
from synthetic_trials import make_trials

from analog_samson.results import (
    COLUMNS,
    SCORE_COLUMNS,
    append_rows,
    best_methods,
    chip_means,
    digital_score,
    estimated_score,
    iso_accuracy,
    lifetime,
    needed,
    no_better_than_guessing,
    paired_gain,
    read_trials,
    sampling_variance,
    score,
    score_of,
    shown_as,
    summarise,
    variance_components,
)
from analog_samson.times import DAY, HOUR, YEAR

CE = {"score": "cross_entropy", "higher_is_better": False}


def with_sums(trials, **columns):
    """Rows of accuracy as rows of sums, with other values in some columns."""
    rows = trials.assign(score="top5", higher_is_better=True)
    defaults = {
        "sum": rows["n_correct"],
        "sum_squares": rows["n_correct"],
        "sum_digital": rows["n_correct_digital"],
        "sum_squares_digital": rows["n_correct_digital"],
        "sum_products": (rows["n_correct"] + rows["n_correct_digital"] - rows["n_changed"]) / 2,
        "sum_digital_test": rows["n_correct_digital_test"],
    }
    rows = rows.assign(**{name: value.astype(float) for name, value in defaults.items()})
    rows = rows.assign(**columns)
    return rows[list(SCORE_COLUMNS)]


def of_means(trials, value, digital, n=1000, **columns):
    """Rows whose samples all have one value: of the chip, and of the digital network."""
    value, digital = (np.broadcast_to(x, len(trials)).astype(float) for x in (value, digital))
    sums = {
        "n_images_per_chip": n,
        "n_test": n,
        "sum": n * value,
        "sum_squares": n * value**2,
        "sum_digital": n * digital,
        "sum_squares_digital": n * digital**2,
        "sum_products": n * value * digital,
        "sum_digital_test": n * digital,
    }
    return with_sums(trials, **sums, **CE | columns)


# rows


@pytest.mark.parametrize(("n", "n_test"), [(2, 9), (4, 10), (10, 11), (6, 6)])
def test_over_all_subsets_the_estimate_is_unbiased_and_its_variance_the_formulas(n, n_test):
    """Every subset once, so that there is no chance in it; lognormal losses."""
    random = np.random.default_rng(n)
    digital = random.lognormal(size=n_test)
    chip = digital * random.lognormal(sigma=0.3, size=n_test)
    rows = []
    for subset in itertools.combinations(range(n_test), n):
        c, p = chip[list(subset)], digital[list(subset)]
        rows.append(
            {
                "sum": c.sum(),
                "sum_squares": (c**2).sum(),
                "n_images_per_chip": n,
                "sum_digital": p.sum(),
                "sum_squares_digital": (p**2).sum(),
                "sum_products": (c * p).sum(),
                "n_test": n_test,
                "sum_digital_test": digital.sum(),
            }
        )
    rows = pd.DataFrame(rows)
    estimates = estimated_score(rows)
    assert estimates.mean() == pytest.approx(chip.mean(), rel=1e-12)
    assert estimates.var(ddof=0) == pytest.approx(sampling_variance(rows).mean(), abs=1e-12)
    s2 = (chip - digital).var(ddof=1)
    assert sampling_variance(rows).mean() == pytest.approx(s2 / n * (1 - n / n_test), abs=1e-12)
    assert np.allclose(digital_score(rows), digital.mean(), rtol=1e-12)


def test_a_score_of_zeros_and_ones_has_the_statistics_of_accuracy():
    """The oracle: the same samples, once as counts and once as sums."""
    options = {"n_images_per_chip": 500, "n_test": 900, "n_correct_digital_test": 830}
    trials = make_trials(
        {"sgd": 0.90, "samson rho=0.5": 0.93}, n_networks=3, n_reads=2, std_reads=0.01, **options
    )
    sums = with_sums(trials)

    def same(function, **renamed):
        counted, summed = function(trials), function(sums)
        assert list(summed.columns[:2]) == ["score", "higher_is_better"]
        summed = summed.drop(columns=["score", "higher_is_better"]).rename(columns=renamed)
        if "scale" in summed:
            assert set(summed["scale"]) == {"top5"}
            summed["scale"] = "accuracy"
        pd.testing.assert_frame_equal(counted, summed, rtol=1e-9, atol=1e-12)

    named = {"top5": "accuracy", "clean_top5": "clean_accuracy"}
    same(chip_means, **named)
    same(lambda rows: summarise(rows, scale="accuracy"), **named)
    same(lambda rows: summarise(rows, bootstrap=True, pool=False, scale="accuracy"), **named)
    same(lambda rows: paired_gain(rows, scale="accuracy"))
    same(lifetime)
    same(variance_components)
    same(lambda rows: needed(rows, 0.002))
    best = (best_methods(rows, scale="accuracy") for rows in (trials, sums))
    pd.testing.assert_frame_equal(*best, rtol=1e-9)


def test_what_is_appended_is_read_back_to_the_last_bit(tmp_path):
    random = np.random.default_rng(0)
    trials = make_trials(n_networks=2, n_chips=2)
    rows = of_means(trials, random.lognormal(size=len(trials)), 0.3)
    append_rows(rows.iloc[:5], tmp_path / "trials.csv")
    append_rows(rows.iloc[5:], tmp_path / "trials.csv")
    pd.testing.assert_frame_equal(read_trials(tmp_path), rows, check_exact=True)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"sum": np.nan}, "has no sum"),
        ({"sum": np.inf}, "sum = inf; a finite number is needed"),
        ({"sum_squares": 1.0}, "inconsistent"),
        ({"sum_products": 1e9}, "inconsistent"),
        ({"sum_digital_test": 1.0}, "inconsistent"),
        ({"n_images_per_chip": 2000}, "inconsistent"),
        ({"higher_is_better": 3}, "it is True or False"),
        ({"score": ""}, "a text in one line"),
    ],
)
def test_sums_that_no_samples_have_are_refused(tmp_path, changes, said):
    rows = of_means(make_trials(n_networks=1, n_chips=1), 0.5, 0.3).assign(**changes)
    with pytest.raises(ValueError, match=f"(?s)Row 1 of the new rows.*{said}"):
        append_rows(rows, tmp_path / "trials.csv")
    assert not (tmp_path / "trials.csv").exists()


def test_a_damaged_line_of_sums_is_named(tmp_path):
    rows = of_means(make_trials(n_networks=1, n_chips=1), 0.5, 0.3)
    append_rows(rows, tmp_path / "trials.csv")
    text = (tmp_path / "trials.csv").read_text()
    (tmp_path / "trials.csv").write_text(text.replace(",500.0,", ",5x,", 1))
    with pytest.raises(ValueError, match="line 2, is damaged: sum = '5x' is no number"):
        read_trials(tmp_path)


def test_tables_of_different_scores_are_not_merged(tmp_path):
    trials = make_trials(n_networks=1, n_chips=1)
    kinds = {
        "accuracy": trials,
        "top5": with_sums(trials),
        "cross_entropy": of_means(trials, 0.5, 0.3),
    }
    for name, rows in kinds.items():
        (tmp_path / name).mkdir()
        append_rows(rows, tmp_path / name / "trials.csv")
    for first, second in itertools.permutations(kinds, 2):
        with pytest.raises(ValueError, match=f"score '{first}', .* '{second}', and tables of diff"):
            read_trials(tmp_path / first, tmp_path / second)
        with pytest.raises(ValueError, match="of 2 scores, "):
            summarise(pd.concat([kinds[first], kinds[second]]))
    with pytest.raises(ValueError, match="is a table of another score"):
        append_rows(kinds["top5"], tmp_path / "accuracy" / "trials.csv")
    with pytest.raises(ValueError, match="is a table of another score"):
        append_rows(kinds["accuracy"], tmp_path / "top5" / "trials.csv")
    assert list(read_trials(tmp_path / "accuracy").columns) == list(COLUMNS)


def test_a_half_written_header_of_sums_is_written_anew(tmp_path):
    file = tmp_path / "trials.csv"
    rows = of_means(make_trials(n_networks=1, n_chips=1), 0.5, 0.3)
    append_rows(rows, file)
    whole = file.read_bytes()
    for cut in (10, whole.index(b"score") + 3, whole.index(b"\n"), len(whole) - 5):
        file.write_bytes(whole[:cut])
        append_rows(rows.iloc[-1:] if cut > len(whole) - 10 else rows, file)
        assert file.read_bytes() == whole


# statistics


@pytest.mark.slow
def test_intervals_of_losses_on_subsets_cover_the_mean_of_training():
    """800 studies of 5 networks x 4 chips, 60 of 300 windows each, skewed losses; seed 0.

    95 % intervals of the expected loss; the number covered is binomial if networks are normal, and
    lies within the bounds with probability 1 - 1e-4 (false alarm).
    """
    random = np.random.default_rng(0)
    n_studies, n_networks, n_chips, n, n_test = 800, 5, 4, 60, 300
    shape = (n_studies, n_networks, n_chips)
    ease = random.standard_normal(n_test)
    of_network = 0.05 * random.standard_normal(shape[:2])
    of_chip = 0.03 * random.standard_normal(shape)
    hardness = np.exp(0.5 * (ease - ease.mean()))
    hardness /= hardness.mean()
    digital = (1.0 + of_network)[..., None, None] * hardness
    chip = digital + 0.2 * hardness + of_chip[..., None]
    digital = np.broadcast_to(digital, chip.shape)
    chosen = random.random(chip.shape).argsort(-1)[..., :n]
    c, p = (np.take_along_axis(values, chosen, -1) for values in (chip, digital))
    study, network, number = np.indices(shape).reshape(3, -1)
    kind = make_trials({"sgd": 0.5}, n_networks=1, n_chips=1, times_s=(1.0,)).iloc[0]
    rows = pd.DataFrame(
        dict(kind)
        | CE
        | {
            "chip_id": [f"{s}-{k}-{j}" for s, k, j in zip(study, network, number, strict=True)],
            "checkpoint": network.astype(str),
            "training_seed": network,
            "condition": [json.dumps({"study": int(s)}) for s in study],
            "chip": number,
            "programming_seed": 100 * network + number,
            "n_images_per_chip": n,
            "n_test": n_test,
            "sum": c.sum(-1).ravel(),
            "sum_squares": (c**2).sum(-1).ravel(),
            "sum_digital": p.sum(-1).ravel(),
            "sum_squares_digital": (p**2).sum(-1).ravel(),
            "sum_products": (c * p).sum(-1).ravel(),
            "sum_digital_test": digital.sum(-1).ravel(),
        }
    )[list(SCORE_COLUMNS)]
    summary = summarise(rows)
    covered = int(((summary["low"] <= 1.2) & (summary["high"] >= 1.2)).sum())
    low, high = stats.binom.interval(1 - 1e-4, n_studies, 0.95)
    assert low <= covered <= high
    parts = variance_components(rows)
    assert parts["std_sampling"].mean() < 0.2 * np.exp(0.5 * ease).std() / np.sqrt(n)


def test_lower_is_better_turns_gains_and_the_best_method_round():
    """A score and its negative give the same gains, p-values and decisions."""
    trials = make_trials({"sgd": 0.80, "sam rho=0.1": 0.90}, times_s=(1.0,), n_networks=4)
    loss = 2 - trials["n_correct"] / trials["n_images_per_chip"]
    lower = of_means(trials, loss, 1.0)
    higher = of_means(trials, -loss, -1.0, score="a:negative", higher_is_better=True)
    pd.testing.assert_frame_equal(
        paired_gain(lower).drop(columns=["score", "higher_is_better", "scale"]),
        paired_gain(higher).drop(columns=["score", "higher_is_better", "scale"]),
    )
    assert (paired_gain(lower)["gain"] > 0.08).all()
    best = best_methods(lower)
    assert best.loc[best["is_best"], "method"].tolist() == ["sam"]
    pd.testing.assert_frame_equal(best, best_methods(higher))


def drifting(per_decade, *, score_name="cross_entropy", digital=1.5, relative=False, n_networks=3):
    """Noise-free chips: the score rises by so much a decade of time, from the digital value."""
    times = (1.0, 60.0, HOUR, DAY, YEAR)
    trials = make_trials({"sgd": 0.9}, times_s=times, n_networks=n_networks, n_chips=2)
    rise = per_decade * np.log10(trials["t_inference_s"])
    value = digital * (1 + rise) if relative else digital + rise
    return of_means(trials, value, digital, score=score_name)


def test_the_lifetime_of_perplexity_is_that_of_the_closed_form():
    """log perplexity rises by b a decade: it is 10 % higher after 10^(ln 1.1 / b) seconds."""
    for b in (0.02, 0.05, 0.3):
        life = lifetime(drifting(b), 0.1).iloc[0]
        assert life["lifetime_s"] == pytest.approx(10 ** (np.log(1.1) / b), rel=1e-9)
        assert life["censored"] == ""
    bits = drifting(0.02 * np.log(2), score_name="bits_per_token", digital=np.log(2))
    assert lifetime(bits, 0.1).iloc[0]["lifetime_s"] == pytest.approx(10 ** (0.1 / 0.02), rel=1e-9)
    life = lifetime(drifting(0.001), 0.1).iloc[0]
    assert (life["censored"], life["lifetime_s"]) == ("right", YEAR)
    improving = lifetime(drifting(-0.05), 0.1).iloc[0]
    assert improving["censored"] == "right"


def test_the_lifetime_of_an_error_is_relative_to_the_digital_network_or_the_first_time():
    rows = drifting(0.02, score_name="mse", digital=7e-4, relative=True)
    for loss in (0.05, 0.1):
        found = lifetime(rows, loss).iloc[0]["lifetime_s"]
        assert found == pytest.approx(10 ** (loss / 0.02), rel=1e-9)
    assert lifetime(rows, 0.1, reference="first").iloc[0]["lifetime_s"] == pytest.approx(1e5)
    assert lifetime(rows, 1.5).iloc[0]["censored"] == "right"
    higher = drifting(-0.02, score_name="a:r2", digital=0.9, relative=True)
    higher = higher.assign(higher_is_better=True)
    assert lifetime(higher, 0.1).iloc[0]["lifetime_s"] == pytest.approx(1e5, rel=1e-9)


def test_a_share_of_zero_cannot_be_lost():
    rows = of_means(make_trials(n_networks=2), 0.1, 0.0, score="mse")
    with pytest.raises(ValueError, match="relative to a mean squared error of 0 is not defined"):
        lifetime(rows)
    entropy = of_means(make_trials(n_networks=2), 0.2, 0.0)
    assert (lifetime(entropy, 0.1)["censored"] == "left").all(), "exp(0) = 1 has a share"
    with pytest.raises(ValueError, match="Loss must be positive, such as 0.05; got 0"):
        lifetime(entropy, 0)


def test_the_normalised_score_is_one_for_digital_and_zero_for_guessing():
    trials = make_trials({"sgd": 0.9}, times_s=(1.0,), n_networks=3)
    n_classes = {"digits": 65}
    for value, expected in ((0.5, 1.0), (np.log(65), 0.0), ((0.5 + np.log(65)) / 2, 0.5)):
        rows = of_means(trials, value, 0.5)
        normalised = iso_accuracy(rows, n_classes=n_classes)["normalised"]
        assert normalised.to_numpy() == pytest.approx(expected, abs=1e-9)
    assert no_better_than_guessing(of_means(trials, 1, np.log(65)), n_classes) != []
    assert no_better_than_guessing(of_means(trials, 1, 0.99 * np.log(65)), n_classes) == []
    errors = of_means(trials, 1.0, 0.5, score="mse")
    assert no_better_than_guessing(errors, n_classes) == []
    with pytest.raises(ValueError, match="'mse' has no value for guessing"):
        iso_accuracy(errors, n_classes=n_classes)


def test_intervals_are_cut_at_the_limits_of_the_score():
    trials = make_trials({"sgd": 0.9}, times_s=(1.0,), n_networks=2, n_chips=2)
    value = np.repeat([0.01, 0.4], 2)
    summary = summarise(of_means(trials, value, 0.005))
    assert summary["low"].item() == 0.0
    assert summary["high"].item() > 1.0
    own = summarise(of_means(trials, value, 0.005, score="a:signed"))
    assert own["low"].item() < 0.0


# how a score is shown


def test_cross_entropy_is_shown_as_perplexity_or_in_bits():
    rows = of_means(make_trials(), np.log(8.0), np.log(4.0))
    perplexity, bits = score_of(rows), score_of(shown_as(rows, "bits_per_token"))
    assert perplexity.shown(np.log(8.0)) == pytest.approx(8)
    assert bits.shown(np.log(8.0)) == pytest.approx(3)
    assert perplexity.shown_loss(np.log(2.0)) == pytest.approx(100)
    assert perplexity.shown_gain(np.log(2.0)) == pytest.approx(50)
    assert (perplexity.column, bits.column) == ("cross_entropy", "cross_entropy")
    pd.testing.assert_frame_equal(
        summarise(rows).drop(columns="score"),
        summarise(shown_as(rows, "bits_per_token")).drop(columns="score"),
    )
    of_classes = score_of(shown_as(rows, "bits"))
    assert (of_classes.axis(), of_classes.shown(np.log(8.0))) == (
        "cross entropy [bits] (lower is better)",
        pytest.approx(3),
    )
    with pytest.raises(ValueError, match="'cross_entropy' cannot be shown as 'mse'; allowed: cro"):
        shown_as(rows, "mse")
    with pytest.raises(ValueError, match="'accuracy' cannot be shown as 'top5'; allowed: nothing"):
        shown_as(make_trials(), "top5")


@pytest.mark.parametrize(
    ("values", "decimals"), [([8.3], 3), ([104.2, 3], 1), ([3e-5], 8), ([0.0], 3), ([12345], 0)]
)
def test_values_have_four_significant_digits(values, decimals):
    assert score_of(of_means(make_trials(), 1, 1)).decimals_for(values) == decimals


def test_a_score_needs_a_direction():
    with pytest.raises(ValueError, match="is 'higher' or 'lower'; got 'down'"):
        score("down")
    with pytest.raises(ValueError, match=re.escape("between 0 and 12; got -1")):
        score("lower", decimals=-1)
