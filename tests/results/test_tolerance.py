"""Claims about tolerances: error rates of the tests, the search, methods and their ratios."""

import math

import numpy as np
import pandas as pd
import pytest
from scipy import stats
from simulated_losses import (
    LinearClassifier,
    Lognormal,
    OneDirection,
    found_by,
    rows_of,
    rule_for,
)

from analog_samson.results.tolerance import (
    FIRST_LOOK,
    N_SCALES,
    SCAN,
    Rule,
    method_tolerances,
    scale_of,
    search,
    tolerance_ratios,
)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("network", "lose", "share"),
    [
        (LinearClassifier(n_inputs=20, n_samples=200), 0.02, None),
        (OneDirection(), 0.01, 0.8),
        (Lognormal(0.5), 0.01, None),
    ],
    ids=["linear classifier", "yield", "skewed"],
)
def test_the_true_tolerance_lies_in_the_interval(network, lose, share):
    """30 searches, seeds 0 to 29; at a coverage of 95 % fewer than 25 hits have p = 3e-3."""
    rule, true = rule_for(network, lose, share, 60), network.tolerance(lose, share)
    found = [found_by(network, rule, seed)[0] for seed in range(30)]
    assert sum(one.low < true < one.high for one in found) >= 25
    assert np.mean([math.log(one.factor / true) for one in found]) == pytest.approx(0, abs=0.15)
    assert all(one.low <= one.factor <= one.high and not one.bound for one in found)


def test_all_tests_together_spend_the_error():
    for confidence, n in ((0.95, 100), (0.8, 20), (0.95, 5), (0.95, 3)):
        rule = Rule(1.0, confidence=confidence, chips_at_most=n)
        assert sum(rule.levels) * N_SCALES == pytest.approx(1 - confidence)
        assert rule.looks[-1] == n and len(rule.levels) == len(rule.looks)


def test_a_scale_at_the_limit_is_rarely_decided():
    """4000 scales with normal losses at the limit, confidence 0: each direction has the level
    1 / 65 over all looks; more than 90 of 4000 in one direction have p = 3e-4 (seed 0)."""
    rule = Rule(1.0, confidence=1e-9, chips_at_most=40)
    losses = np.random.default_rng(0).normal(1.0, 0.3, size=(4000, 40))
    found = [rule.verdict(own)[0] for own in losses]
    assert stats.binom.sf(90, 4000, 1 / N_SCALES) < 1e-3
    for verdict in ("tolerable", "too much"):
        assert 10 < found.count(verdict) <= 90


def test_verdicts_on_shares_are_the_exact_binomial_test():
    rule = Rule(0.01, share=0.9, chips_at_most=100)
    for n_good in range(101):
        losses = np.where(np.arange(100) < n_good, 0.01, 0.02)
        at_last = rule._at_look(losses, len(rule.looks) - 1)
        more = stats.binomtest(n_good, 100, 0.9, alternative="greater").pvalue
        less = stats.binomtest(n_good, 100, 0.9, alternative="less").pvalue
        level = rule.levels[-1]
        expected = "tolerable" if more <= level else "too much" if less <= level else "open"
        assert at_last == expected


def test_verdicts_on_means_are_the_t_test():
    rule = Rule(1.0, chips_at_most=20)
    draws = np.random.default_rng(0)
    seen = set()
    for mean in np.linspace(0.0, 2.0, 41):
        losses = draws.normal(mean, 0.5, size=20)
        p = stats.ttest_1samp(losses, 1.0, alternative="less").pvalue
        level = rule.levels[-1]
        expected = "tolerable" if p < level else "too much" if 1 - p < level else "open"
        assert rule._at_look(losses, len(rule.looks) - 1) == expected
        seen.add(expected)
    assert seen == {"tolerable", "too much", "open"}


def test_equal_losses_are_decided_by_their_resolution():
    rule = Rule(0.01, chips_at_most=20, resolution=1e-4)
    assert rule.verdict(np.full(5, 0.02)) == ("too much", 5)
    assert rule.verdict(np.full(20, 0.01))[0] == "open"
    assert rule.verdict(np.full(20, 0.00999))[0] == "open"  # nearer than the counts can tell


def test_a_search_asks_for_no_chip_twice_and_for_few_where_they_decide():
    network = LinearClassifier(n_samples=300)
    rule = rule_for(network, 0.02)
    found, asked = found_by(network, rule, seed=1)
    assert len(set(asked)) == len(asked)
    for step in {step for step, _ in asked}:
        sizes = [n for other, n in asked if other == step]
        assert sizes == list(rule.looks[: len(sizes)])
    assert all((step, FIRST_LOOK) in asked for step in SCAN)
    far = [n for step, n in asked if abs(step) >= SCAN[-1]]
    assert max(far) == FIRST_LOOK
    assert found.n_chips < 0.3 * found.n_scales * rule.chips_at_most


def test_tolerances_beyond_the_range_are_bounds():
    for at_nominal, bound, ends in (
        (1e-7, "above", (16.0, math.inf)),
        (10.0, "below", (0.0, 1 / 16)),
    ):
        found, _ = found_by(Lognormal(0.3, at_nominal), Rule(0.01, chips_at_most=20), seed=0)
        assert (found.bound, (found.low, found.high)) == (bound, ends)
        assert found.factor == max(found.low, 1 / 16)


def test_a_loss_that_falls_is_said_and_its_first_crossing_is_found():
    """Loss over log2 of the scale: above the limit from -1 to 1, recovered at 2, lost at 4."""
    shape = {-4: 0.0, -2: 0.001, -1: 0.01, 0: 0.02, 1: 0.01, 2: 0.002, 3: 0.01, 4: 0.03}

    class Recovering(Lognormal):
        def losses(self, chips, scale):
            mean = np.interp(math.log2(scale), list(shape), list(shape.values()))
            return mean * np.exp(0.1 * chips)

    found, _ = found_by(Recovering(0.1), Rule(0.01, chips_at_most=40), seed=0)
    assert found.falls == ((1.0, 4.0),)
    assert found.low < 0.5 < found.high < 1.0
    rising, _ = found_by(Lognormal(0.5), Rule(0.01, chips_at_most=40), seed=0)
    assert not rising.falls


def test_a_search_depends_on_the_losses_alone():
    network, rule = Lognormal(0.5), Rule(0.01, chips_at_most=20)
    chips, losses = network.draw(20, 0), {}
    whole, asked = found_by(network, rule, 0)
    for step, n in asked[: len(asked) // 2]:
        losses[step] = network.losses(chips[:n], scale_of(step))
    losses = dict(reversed(losses.items()))
    while isinstance(found := search(losses, rule), list):
        for step, n in found:
            losses[step] = network.losses(chips[:n], scale_of(step))
    assert found == whole


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"lose": 0.0}, "must be above 0"),
        ({"lose": -1.0}, "must be above 0"),
        ({"lose": math.nan}, "must be above 0"),
        ({"share": 1.5}, "fraction between 0 and 1"),
        ({"share": 1.0}, "fraction between 0 and 1"),
        ({"confidence": 95}, "Confidence must be between 0 and 1"),
        ({"chips_at_most": 1}, "One chip shows no spread"),
        ({"share": 0.9, "chips_at_most": 40}, "allow at least 7[0-9] chips"),
    ],
)
def test_wrong_rules_are_refused(wrong, message):
    with pytest.raises(ValueError, match=message):
        Rule(**{"lose": 0.01, **wrong})


def test_the_number_of_chips_that_a_yield_needs_is_right():
    with pytest.raises(ValueError, match="at least") as refused:
        Rule(0.01, share=0.9, chips_at_most=40)
    needed = int(str(refused.value).split("at least ")[1].split()[0])
    assert Rule(0.01, share=0.9, chips_at_most=needed)
    with pytest.raises(ValueError, match="at least"):
        Rule(0.01, share=0.9, chips_at_most=needed - 1)


def test_a_method_is_the_geometric_mean_with_students_interval_on_the_log_scale():
    factors = [1.8, 2.0, 2.6, 2.1]
    found = method_tolerances(rows_of({"sgd": factors})).iloc[0]
    logs = np.log(factors)
    low, high = stats.t.interval(0.95, 3, logs.mean(), logs.std(ddof=1) / 2)
    assert found["factor"] == pytest.approx(stats.gmean(factors))
    assert (found["low"], found["high"]) == pytest.approx((math.exp(low), math.exp(high)))
    assert (found["level"], found["n_networks"]) == ("networks", 4)


def test_methods_are_compared_by_training_seed():
    sgd, samson = [1.0, 2.0, 4.0], [1.5, 3.1, 6.0]
    found = tolerance_ratios(rows_of({"sgd": sgd, "samson": samson})).iloc[0]
    logs = np.log(np.array(samson) / np.array(sgd))
    low, high = stats.t.interval(0.95, 2, logs.mean(), logs.std(ddof=1) / math.sqrt(3))
    assert found["ratio"] == pytest.approx(math.exp(logs.mean()))
    assert (found["low"], found["high"]) == pytest.approx((math.exp(low), math.exp(high)))
    assert found["high"] / found["low"] < 1.2  # the networks differ by a factor of 4, pairs do not
    assert tolerance_ratios(rows_of({"samson": samson})).empty
    both = rows_of({"sgd": sgd, "samson": samson})
    clipped = rows_of({"sgd": [9.0, 9.0, 9.0]}).assign(strength="clip_weights=2")
    for rows in (pd.concat([clipped, both]), pd.concat([both, clipped])):
        ratios = tolerance_ratios(rows.reset_index(drop=True)).set_index("method")["ratio"]
        assert ratios["samson"] == pytest.approx(found["ratio"])
        assert ratios["sgd"] == pytest.approx(stats.gmean([9.0, 4.5, 2.25]))


def test_fewer_than_three_networks_have_their_own_intervals():
    found = method_tolerances(rows_of({"sgd": [2.0, 3.0]})).iloc[0]
    assert found["level"] == "these networks only"
    assert (found["low"], found["high"]) == pytest.approx((2 / 1.1, 3 * 1.1))
    assert math.isnan(tolerance_ratios(rows_of({"sgd": [1, 2], "sam": [2, 3]})).iloc[0]["low"])


def test_a_mean_of_bounds_is_a_bound():
    rows = rows_of({"sgd": [2.0] * 3, "sam": [16.0] * 3}, {"sam": "above"})
    found = method_tolerances(rows).set_index("method")
    assert found.loc["sam", "bound"] == "above" and math.isnan(found.loc["sam", "low"])
    assert found.loc["sgd", "bound"] == ""
    ratio = tolerance_ratios(rows).iloc[0]
    assert (ratio["bound"], ratio["ratio"]) == ("above", pytest.approx(8.0))
    both = rows.assign(bound="above", factor=16.0)
    assert tolerance_ratios(both).iloc[0]["bound"] == "both"
    below = rows_of({"sgd": [16.0] * 3, "sam": [2.0] * 3}, {"sgd": "above"})
    assert tolerance_ratios(below).iloc[0]["bound"] == "below"
    with pytest.raises(ValueError, match="no tolerances"):
        method_tolerances(rows.head(0))


def test_ratios_are_corrected_by_holm():
    sgd, sam, samson = [1.0, 1.2, 0.9], [1.2, 1.6, 0.9], [1.6, 2.0, 1.3]
    found = tolerance_ratios(rows_of({"sgd": sgd, "sam": sam, "samson": samson}))
    p = [stats.ttest_1samp(np.log(np.divide(own, sgd)), 0).pvalue for own in (sam, samson)]
    assert found["p_value"].to_numpy() == pytest.approx(p)
    assert found["p_holm"].to_numpy() == pytest.approx([p[0], 2 * p[1]])
    assert list(found["significant"]) == [False, True]


@pytest.mark.parametrize(("variation", "expected"), [(0.3, 0.3), (2.0, 1.0)])
def test_the_variation_of_losses_is_that_near_the_tolerance(variation, expected):
    """100 chips, one draw: 0.3 to 10 %; at 2 a sample is narrower, but above 1 (seed 0)."""
    found, _ = found_by(Lognormal(variation), Rule(0.01, chips_at_most=100), seed=0)
    if variation < 1:
        assert found.coefficient_of_variation == pytest.approx(expected, rel=0.2)
    else:
        assert found.coefficient_of_variation > expected


@pytest.mark.slow
def test_methods_near_the_end_of_the_range_are_rarely_wrong():
    """60 studies of three networks around the last scale, 10 chips: a printed interval that misses
    the true tolerance, or a bound above that of its networks, in 5 % of all studies at most; more
    than 9 of 60 have p = 2e-3 (seed 0)."""
    draws, wrong = np.random.default_rng(0), 0
    assert stats.binom.sf(9, 60, 0.05) < 3e-3
    for _ in range(60):
        true = 16 * np.exp(0.4 * draws.normal(size=3))
        networks = [Lognormal(0.5, 0.01 / one**2) for one in true]
        rule = Rule(0.01, chips_at_most=10)
        found = [found_by(one, rule, int(draws.integers(2**31)))[0] for one in networks]
        rows = rows_of({"sgd": [one.factor for one in found]})
        for name in ("low", "high", "bound"):
            rows[name] = [getattr(one, name) for one in found]
        method = method_tolerances(rows).iloc[0]
        assert method["bound"] == "above" or max(one.factor for one in found) < 16
        covers = method["low"] <= 16 <= method["high"]
        wrong += method["factor"] > stats.gmean(true) if method["bound"] else not covers
    assert wrong <= 9


def test_tolerances_of_different_questions_are_not_averaged():
    rows = rows_of({"sgd": [2.0, 3.0]})
    other = pd.concat([rows, rows.assign(t_inference_s=7.0)])
    for function in (method_tolerances, tolerance_ratios):
        with pytest.raises(ValueError, match="different questions .* t_inference_s"):
            function(other)
