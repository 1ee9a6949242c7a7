"""Best methods, regrets and variants, against numbers by hand and on equal methods."""

import numpy as np
import pandas as pd
import pytest
from scipy import stats
from synthetic_trials import make_trials

from analog_samson.results import (
    best_methods,
    chip_means,
    held_out_gains,
    network_gains,
    paired_gain,
    regret_of_choice,
    simultaneous_gains,
    training_costs,
    variants_of,
    winners,
    with_variants,
)
from analog_samson.results.regret import CELL, _chosen_share
from analog_samson.times import DAY, YEAR

EXACT = {
    "slope": 0.0,
    "std_networks": 0.0,
    "std_chips": 0.0,
    "n_chips": 2,
    "times_s": (DAY,),
    "n_correct_digital": 500_000,
    "n_correct_digital_test": 500_000,
    "n_changed": 500_000,
}


def cells(**means_of):
    """One cell a device, exact means."""
    parts = []
    for device, means in means_of.items():
        own = make_trials(means, device=device, **EXACT)
        parts.append(own)
    return pd.concat(parts, ignore_index=True)


@pytest.fixture(scope="module")
def by_hand():
    """On a: sgd .80, sam .84, samson .85; on b: sgd .80, sam .79, samson .70."""
    return cells(
        a={"sgd": 0.80, "sam": 0.84, "samson": 0.85}, b={"sgd": 0.80, "sam": 0.79, "samson": 0.70}
    )


def test_winner_gain_and_margin_are_those_by_hand(by_hand):
    best = winners(by_hand, scale="accuracy").set_index("device")
    assert best["method"].to_dict() == {"a": "samson", "b": "sgd"}
    assert best["gain"].to_dict() == pytest.approx({"a": 0.05, "b": 0.0})
    assert best["runner_up"].to_dict() == {"a": "sam", "b": "sam"}
    assert best["margin"].to_dict() == pytest.approx({"a": 0.01, "b": 0.01})
    assert best["n_methods"].tolist() == [3, 3]


def test_regrets_and_the_smallest_largest_one_are_those_by_hand(by_hand):
    found = regret_of_choice(network_gains(by_hand, scale="accuracy")).set_index("name")
    assert found.index.tolist() == ["sam", "sgd", "samson"]
    assert found["largest_regret"].to_dict() == pytest.approx(
        {"sam": 0.01, "sgd": 0.05, "samson": 0.10}
    )
    assert found["mean_regret"].to_dict() == pytest.approx(
        {"sam": 0.01, "sgd": 0.025, "samson": 0.05}
    )
    assert found["mean_gain"].to_dict() == pytest.approx(
        {"sam": 0.015, "sgd": 0.0, "samson": -0.025}
    )
    assert found["chosen_share"].to_dict() == {"sam": 1.0, "sgd": 0.0, "samson": 0.0}


def test_methods_that_may_not_be_chosen_count_as_rivals(by_hand):
    found = regret_of_choice(network_gains(by_hand, scale="accuracy"), ["sgd", "sam"])
    assert found["name"].tolist() == ["sam", "sgd"]
    assert found["largest_regret"].tolist() == pytest.approx([0.01, 0.05])


def test_the_largest_regret_says_whether_its_own_cell_is_extrapolated(by_hand):
    rows = by_hand.assign(extrapolated=by_hand["device"] == "a")
    found = regret_of_choice(network_gains(rows, scale="accuracy")).set_index("name")
    assert found.loc[["sgd", "samson"], "extrapolated"].tolist() == [True, False]


def test_a_method_that_lacks_a_cell_is_not_chosen(by_hand):
    rows = by_hand[(by_hand["device"] == "a") | (by_hand["method"] != "sam")]
    found = regret_of_choice(network_gains(rows, scale="accuracy")).set_index("name")
    assert found["largest_regret"].to_dict() == pytest.approx({"sgd": 0.05, "samson": 0.10})


def test_a_cell_without_the_baseline_is_not_compared(by_hand):
    rows = by_hand[(by_hand["device"] == "a") | (by_hand["method"] != "sgd")]
    assert winners(rows, scale="accuracy")["device"].tolist() == ["a"]


def noisy(seed=3, **others):
    means = {"sgd": 0.90, "sam rho=0.1": 0.902, "samson rho=0.2": 0.903, "rwp sigma=0.1": 0.93}
    return make_trials(means, seed=seed, n_chips=3, **others)


@pytest.mark.parametrize("scale", ["accuracy", "logit"])
def test_marks_are_those_of_best_methods_where_no_network_is_missing(scale):
    """30 cells of close means, 6 networks: leader, p values and ties are the same."""
    parts = []
    for k in range(30):
        own = noisy(seed=k, n_networks=6, times_s=(1.0,), condition=f'{{"drift_scale": {k}.0}}')
        parts.append(own.assign(chip_id=own["chip_id"] + f"-{k}"))
    rows = pd.concat(parts, ignore_index=True)
    best, marks = winners(rows, scale=scale), best_methods(rows, scale=scale)
    first = marks.drop_duplicates(CELL).set_index("condition").loc[best["condition"]]
    assert best["method"].tolist() == first["method"].tolist()
    np.testing.assert_allclose(best["p_value"], first["p_value"], rtol=1e-9)
    np.testing.assert_allclose(best["p_holm"], first["p_holm"], rtol=1e-9)
    assert best["is_decided"].tolist() == first["is_best"].tolist()
    tied = marks.groupby("condition")["is_tied"].sum().loc[best["condition"]]
    assert best["n_tied"].tolist() == (tied - 1).clip(lower=0).tolist()
    assert best["is_decided"].any()
    assert not best["is_decided"].all()


def test_equal_methods_are_not_decided():
    """Three methods of one mean: n = 5 networks, seed 3; a false decision has p < 0.05."""
    same = {"sgd": 0.9, "sam": 0.9, "samson": 0.9}
    (best,) = winners(make_trials(same, seed=3, times_s=(1.0,))).itertuples()
    assert not best.is_decided
    assert best.n_tied == 2


def test_intervals_are_bonferronis():
    """Half-width = t(1 - 0.05 / 2 / 3, 4) s / sqrt(5) of the paired differences."""
    rows = noisy(n_networks=5, times_s=(1.0,))
    gains = network_gains(rows, scale="accuracy")
    own = gains.loc[gains["method"] == "rwp", "gain"]
    expected = stats.t.ppf(1 - 0.05 / 6, 4) * own.std(ddof=1) / np.sqrt(5)
    (best,) = winners(rows, scale="accuracy").itertuples()
    assert best.method == "rwp"
    assert best.half_width == pytest.approx(expected)
    assert best.gain == pytest.approx(own.mean())


def test_gains_of_networks_average_to_paired_gains():
    for scale in ("accuracy", "logit"):
        rows = noisy()
        means = network_gains(rows, scale=scale).groupby(["method", "t_inference_s"])["gain"].mean()
        for row in paired_gain(rows, scale=scale).itertuples():
            assert means[row.method, row.t_inference_s] == pytest.approx(row.gain)


def test_a_diverged_training_leaves_its_seed_out_of_the_comparison_of_its_method():
    """Seed 0 is worse for all by 0.1; without it SAM's plain mean would lead."""
    means = {"sgd": 0.90, "sam": 0.91, "samson": 0.92}
    rows = make_trials(means, **EXACT | {"times_s": (1.0,)})
    rows.loc[rows["training_seed"] == 0, "n_correct"] -= 100_000
    rows = rows[(rows["method"] != "sam") | (rows["training_seed"] != 0)]
    chips = chip_means(rows)
    plain = chips.groupby("method")["accuracy"].mean()
    assert plain["sam"] > plain["samson"]
    (best,) = winners(rows, scale="accuracy").itertuples()
    assert best.method == "samson"
    assert best.gain == pytest.approx(0.02)


def test_mean_gain_is_that_of_tasks_weighted_by_their_cells():
    """Two cells of one task, one of another: variance (4 s1^2 / n1 + s2^2 / n2) / 9, Welch."""
    parts = [
        noisy(seed=1, n_networks=6, times_s=(1.0, DAY)),
        noisy(seed=2, n_networks=4, times_s=(1.0,), dataset="mnist"),
    ]
    parts[1]["chip_id"] += "-mnist"
    parts[1]["checkpoint"] += "-mnist"
    gains = network_gains(pd.concat(parts, ignore_index=True), scale="accuracy")
    own = gains[gains["method"] == "rwp"]
    by_task = [part.groupby("training_seed")["gain"].mean() for _, part in own.groupby("dataset")]
    weighted = zip((2 / 3, 1 / 3), by_task, strict=True)
    variances = [(weight * own.std(ddof=1)) ** 2 / len(own) for weight, own in weighted]
    per_dof = [v**2 / (len(own) - 1) for v, own in zip(variances, by_task, strict=True)]
    dof = sum(variances) ** 2 / sum(per_dof)
    found = regret_of_choice(gains).set_index("name").loc["rwp sigma=0.1"]
    assert found["mean_gain"] == pytest.approx((2 * by_task[0].mean() + by_task[1].mean()) / 3)
    expected = stats.t.ppf(1 - 0.025 / 3, dof) * np.sqrt(sum(variances))
    assert found["half_width"] == pytest.approx(expected)


def test_one_network_has_no_test_and_no_interval_over_cells():
    rows = noisy(n_networks=1)
    best = winners(rows, scale="accuracy")
    assert not best["is_tested"].any()
    assert not best["is_decided"].any()
    assert (best["level"] == "chips only").all()
    gains = network_gains(rows, scale="accuracy")
    assert held_out_gains(gains)["gain_held_out"].isna().all()
    found = regret_of_choice(gains)
    assert found[["low", "chosen_share"]].isna().all(axis=None)


def test_held_out_gain_is_that_by_hand():
    """Gains of a: 3, 0, 0; of b: 0, 2, 2. Without the first b (2 > 0): 0; without another a or b.

    Without the second: a 1.5, b 1 -> a: 0; without the third likewise: 0. Mean 0.
    """
    base = dict.fromkeys(CELL, "x") | {"t_inference_s": 1.0, "strength": ""}
    values = {"a": (3.0, 0.0, 0.0), "b": (0.0, 2.0, 2.0), "sgd": (0.0, 0.0, 0.0)}
    rows = [
        base | {"method": method, "training_seed": k, "gain": gain}
        for method, own in values.items()
        for k, gain in enumerate(own)
    ]
    assert held_out_gains(pd.DataFrame(rows))["gain_held_out"].tolist() == [0.0]


def equal_chips(n_cells, n_methods, n_networks, seed):
    """Chips of equal methods: seeds' and networks' effects are normal, one chip a network."""
    random = np.random.default_rng(seed)
    shape = (n_cells, n_methods, n_networks)
    shared = random.standard_normal((n_cells, 1, n_networks))
    values = 0.5 + 0.01 * (shared + random.standard_normal(shape))
    cell, method, network = (index.ravel() for index in np.indices(shape))
    rows = make_trials({"sgd": 0.5}, n_networks=1, n_chips=1, times_s=(1.0,))
    first = chip_means(rows).iloc[[0] * values.size].reset_index(drop=True)
    names = np.array(["sgd", *(f"m{k}" for k in range(1, n_methods))])
    number = pd.Series(cell).astype(str)
    return first.assign(
        condition='{"drift_scale": ' + number + "}",
        method=names[method],
        training_seed=network,
        checkpoint=pd.Series(names[method]) + "-" + pd.Series(network).astype(str) + "-" + number,
        chip_id=np.arange(values.size).astype(str),
        programming_seed=network,
        accuracy=values.ravel(),
    )


@pytest.mark.slow
@pytest.mark.parametrize(("n_networks", "plain_below"), [(5, 0.90), (10, 0.90)])
def test_intervals_of_the_chosen_method_cover_where_plain_ones_do_not(n_networks, plain_below):
    """2,000 cells of 14 equal methods, seed 1; 3.3 standard errors, false alarm 5e-4 a claim.

    The true gain of whichever is chosen is 0. Plain intervals of the best one cover it too rarely,
    and its gain is too large on average; the simultaneous interval covers, and the gain held out
    is 0 on average. At most 5 % of the cells are decided (uncorrected over cells).
    """
    n_cells = 2000
    chips = equal_chips(n_cells, 14, n_networks, seed=1)
    best = winners(chips, scale="accuracy")
    best = best[best["method"] != "sgd"]
    covered = (best["low"] <= 0) & (best["high"] >= 0)
    error = 3.3 * np.sqrt(0.05 * 0.95 / len(best))
    assert covered.mean() > 0.95 - error
    plain = paired_gain(chips, scale="accuracy").merge(best[[*CELL, "method"]])
    assert ((plain["low"] <= 0) & (plain["high"] >= 0)).mean() < plain_below
    assert (best["p_value"] < 0.05).mean() < 0.05 + error
    held_out = held_out_gains(network_gains(chips, scale="accuracy"))["gain_held_out"]
    spread = held_out.std() / np.sqrt(n_cells)
    assert abs(held_out.mean()) < 3.3 * spread
    assert best["gain"].mean() > 10 * spread


def task_rows(names, dataset, **others):
    rows = make_trials(
        dict.fromkeys(names, 0.9), n_networks=1, n_chips=1, times_s=(1.0,), dataset=dataset
    )
    rows["checkpoint"] = dataset + rows["checkpoint"]
    rows["chip_id"] = dataset + rows["chip_id"]
    return rows.assign(**others)


NAMES = (
    "sgd",
    "sgd clip_weights=1.5",
    "samson rho=0.2",
    "samson rho=0.1 p=2",
    "samson rho=0.2 clip_weights=2",
    "rwp sigma=0.1",
    "rwp sigma=0.2 quadratic",
    "hardware_aware sigma=3 linear ramp=0.5",
    "hardware_aware sigma=1 device=reram_wan2022 linear ramp=0.5",
    "mesa trajectory_weight=1 teacher_decay=0.99",
)


def test_variants_agree_over_tasks_whatever_the_tuned_strengths():
    other = ["sgd", "samson rho=0.5", "rwp sigma=0.02", "hardware_aware sigma=1 linear ramp=0.5"]
    rows = pd.concat([task_rows(NAMES, "mnist"), task_rows(other, "cifar10")])
    variants = variants_of(rows)
    found = {
        dataset: set(zip(own["method"], own["variant"], strict=True))
        for dataset, own in variants.groupby("dataset")
    }
    assert found["cifar10"] == {
        ("sgd", ""), ("samson", ""), ("rwp", ""), ("hardware_aware", "")
    }  # fmt: skip
    assert found["mnist"] == found["cifar10"] | {
        ("sgd", "clip_weights"),
        ("samson", "p=2"),
        ("samson", "clip_weights=2"),
        ("rwp", "quadratic"),
        ("hardware_aware", "device=reram_wan2022"),
        ("mesa", ""),
    }
    known = variants[variants["method"] == "hardware_aware"]
    assert set(known["device_known"]) == {"pcm_like", "reram_wan2022"}
    assert (variants.loc[variants["method"] != "hardware_aware", "device_known"] == "").all()
    assert set(with_variants(rows, variants)["strength"]) == set(variants["variant"])


def test_several_strengths_of_one_task_are_variants_of_their_own():
    rows = task_rows(["sgd", "sam rho=0.1", "sam rho=0.2"], "mnist")
    assert variants_of(rows)["variant"].tolist() == ["rho=0.1", "rho=0.2", ""]


def networks_of(rows, keys, passes):
    used = rows.drop_duplicates("checkpoint")
    names = (used["method"] + " " + used["strength"]).str.strip()
    return pd.DataFrame(
        {
            "variant": names.map(keys),
            "dataset": used["dataset"],
            "model": used["model"],
            "digest": used["checkpoint"] + "0123456789",
            "gradient_evaluations": names.map(passes),
        }
    )


def test_networks_csv_names_variants_and_has_their_costs():
    names = ["sgd", "sgd clip_weights=1.5", "samson rho=0.1 p=2", "samson rho=0.2"]
    rows = task_rows(names, "mnist")
    rows["checkpoint"] = [f"{k:016d}" for k in range(len(rows))]
    keys = dict(zip(names, ("sgd", "clipping", "samson_p2", "samson"), strict=True))
    networks = networks_of(rows, keys, dict(zip(names, (400, 400, 800, 600), strict=True)))
    variants = variants_of(rows, networks)
    assert variants["variant"].tolist() == ["p2", "", "", "clipping"]
    costs = training_costs(variants, "sgd")
    named = zip(costs["method"], costs["strength"], costs["cost"], strict=True)
    assert {(m, s): c for m, s, c in named} == {
        ("samson", ""): 1.5, ("samson", "p2"): 2.0, ("sgd", ""): 1.0, ("sgd", "clipping"): 1.0
    }  # fmt: skip
    with pytest.raises(ValueError, match=r"no columns \['digest'\]"):
        variants_of(rows, networks.drop(columns="digest"))
    nominal = training_costs(variants_of(rows, networks.iloc[1:]), "sgd")  # one is not listed
    assert nominal["cost"].tolist() == [2.0, 2.0, 1.0, 1.0]


def test_mistakes_are_told(by_hand):
    with pytest.raises(ValueError, match="'nope' is not among the methods"):
        winners(by_hand, "nope")
    with pytest.raises(ValueError, match="from elsewhere"):
        winners(by_hand.assign(method="external"))
    with pytest.raises(ValueError, match="no rows to compare"):
        simultaneous_gains(by_hand.iloc[:0])


def test_a_year_is_marked_extrapolated_with_its_cell():
    best = winners(noisy(times_s=(DAY, YEAR))).set_index("t_inference_s")
    assert best["extrapolated"].to_dict() == {DAY: False, YEAR: True}


def test_a_method_none_of_whose_networks_is_drawn_is_not_chosen():
    """Three networks, of "bad" one: it is the worst in every cell, and absent in 8 of 27 draws."""
    good, bad = np.array([0.02, 0.02, 0.02]), np.array([-0.05, np.nan, np.nan])
    shares = _chosen_share([np.stack([good, bad])[None]], np.array([True, True]), 500, 0)
    assert shares.tolist() == [1.0, 0.0]
