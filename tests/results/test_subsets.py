"""Accuracies from a subset of the images: unbiased, with a known variance, in honest intervals."""

import itertools

import numpy as np
import pandas as pd
import pytest
from scipy import stats
from synthetic_trials import make_trials, trials_with

from analog_samson.report import study_figures, study_tables
from analog_samson.results import (
    COLUMNS,
    append_rows,
    chip_means,
    digital_score,
    estimated_score,
    needed,
    network_means,
    paired_gain,
    read_trials,
    sampling_variance,
    summarise,
    variance_components,
)


def counts(chip, digital, chosen):
    """The counts of a row: correctness of chip and digital network, positions of the subset."""
    return {
        "n_correct": chip[chosen].sum(),
        "n_images_per_chip": len(chosen),
        "n_correct_digital": digital[chosen].sum(),
        "n_changed": (chip != digital)[chosen].sum(),
        "n_test": len(digital),
        "n_correct_digital_test": digital.sum(),
    }


@pytest.mark.parametrize(("n", "n_test"), [(2, 9), (4, 10), (10, 11), (6, 6)])
def test_over_all_subsets_the_estimate_is_unbiased_and_its_variance_the_formulas(n, n_test):
    """Every subset once, so that there is no chance in it."""
    random = np.random.default_rng(n)
    digital, chip = random.random(n_test) < 0.7, random.random(n_test) < 0.5
    subsets = itertools.combinations(range(n_test), n)
    rows = pd.DataFrame([counts(chip, digital, list(chosen)) for chosen in subsets])
    accuracies = estimated_score(rows)
    assert accuracies.mean() == pytest.approx(chip.mean(), abs=1e-12)
    assert accuracies.var(ddof=0) == pytest.approx(sampling_variance(rows).mean(), abs=1e-12)
    s2 = (chip.astype(float) - digital).var(ddof=1)
    assert sampling_variance(rows).mean() == pytest.approx(s2 / n * (1 - n / n_test), abs=1e-12)
    assert (digital_score(rows) == digital.mean()).all()


def test_a_chip_evaluated_on_all_images_has_the_plain_ratio_and_no_sampling_variance():
    trials = make_trials()
    assert (estimated_score(trials) == trials["n_correct"] / trials["n_images_per_chip"]).all()
    assert (sampling_variance(trials) == 0).all()
    assert (variance_components(trials)["std_sampling"] == 0).all()


def test_averaging_reads_of_equal_images_does_not_reduce_the_sampling_variance():
    options = {"n_images_per_chip": 100, "n_test": 900, "n_correct_digital_test": 850}
    trials = make_trials(n_networks=1, n_chips=1, n_reads=2, std_reads=0.02, **options)
    by_read = trials.assign(v=sampling_variance(trials)).pivot(
        index=["method", "t_inference_s"], columns="read", values="v"
    )
    assert (by_read[0] != by_read[1]).any()
    chips = chip_means(trials).set_index(["method", "t_inference_s"])["sampling_variance"]
    pd.testing.assert_series_equal(chips, by_read.mean(axis=1).loc[chips.index], check_names=False)


# whole studies, simulated image by image

N_TEST, N_IMAGES = 400, 40
HARDNESS = stats.norm.ppf((np.arange(N_TEST) + 0.5) / N_TEST)
STD_IMAGE, STD_NETWORK, STD_CHIP = 0.4, 0.1, 0.1
STD_OF_ALL = float(np.sqrt(STD_IMAGE**2 + STD_NETWORK**2 + STD_CHIP**2))
EASE = {"sgd": 0.5, "sam": 0.7}
SGD = {"sgd": 0.5}
DIGITAL_EASE = 1.3


def accuracy_of(ease, std):
    """Expected accuracy on the images where the ease of an answer has a standard deviation."""
    return float(stats.norm.cdf((ease - HARDNESS) / std).mean())


def answered(
    n_studies,
    n_networks,
    n_chips,
    *,
    seed,
    eases=SGD,
    shared=False,
    std_network=STD_NETWORK,
    std_chip=STD_CHIP,
):
    """Studies told apart by their axes; an answer is right where its ease exceeds the hardness.

    Methods meet the same chips with the same subsets; so do networks where chips are shared.
    """
    random = np.random.default_rng(seed)
    shape = (n_studies, n_networks, n_chips)
    programmings = (n_studies, 1 if shared else n_networks, n_chips)
    of_chip = std_chip * random.standard_normal((*programmings, 1))
    chosen = random.random((*programmings, N_TEST)).argsort(-1)[..., :N_IMAGES]
    chosen = np.broadcast_to(chosen, (*shape, N_IMAGES))
    study, network, chip = index = np.indices(shape).reshape(3, -1)
    frames = []
    for method, ease in eases.items():
        of_network = std_network * random.standard_normal((n_studies, n_networks, 1, 1))
        own = STD_IMAGE * random.standard_normal((n_studies, n_networks, 1, N_TEST))
        digital = np.broadcast_to(DIGITAL_EASE + of_network + own > HARDNESS, (*shape, N_TEST))
        noise = STD_IMAGE * random.standard_normal((*shape, N_TEST))
        right = ease + of_network + of_chip + noise > HARDNESS
        c, p = (np.take_along_axis(answers, chosen, -1) for answers in (right, digital))
        kind = make_trials({method: 0.5}, n_networks=1, n_chips=1, times_s=(1.0,)).iloc[0]
        columns = {
            "chip_id": [f"{method}-{s}-{n}-{c}" for s, n, c in zip(*index, strict=True)],
            "checkpoint": [f"{method}-{n}" for n in network],
            "training_seed": network,
            "condition": [f'{{"study": {s}}}' for s in study],
            "chip": chip,
            "programming_seed": chip if shared else 1000 * network + chip,
            "n_correct": c.sum(-1).ravel(),
            "n_images_per_chip": N_IMAGES,
            "n_correct_digital": p.sum(-1).ravel(),
            "n_changed": (c != p).sum(-1).ravel(),
            "n_test": N_TEST,
            "n_correct_digital_test": digital.sum(-1).ravel(),
        }
        rows = pd.DataFrame({**kind, **columns, "true_accuracy": right.mean(-1).ravel()})
        frames.append(rows[[*COLUMNS, "true_accuracy"]])
    return pd.concat(frames, ignore_index=True)


def share_covered(rows, truth, value="accuracy"):
    return ((rows[value] - truth).abs() <= rows["half_width"]).mean()


def test_the_spread_of_chips_is_their_own_without_the_images():
    """100 networks x 20 chips, seed 0: the standard error of a variance over all is about 7 %."""
    trials = answered(100, 1, 20, seed=0)
    own = trials.groupby("condition")["true_accuracy"].var()
    networks = network_means(chip_means(trials))
    assert networks["var_measured"].mean() > 2 * own.mean()
    found = (networks["var_measured"] - networks["sampling_variance"]).mean()
    assert found == pytest.approx(own.mean(), rel=0.25)
    chips_own = summarise(trials)["std_chips"] ** 2
    assert chips_own.mean() == pytest.approx(own.mean(), rel=0.25)


def test_chips_that_do_not_differ_still_have_an_interval():
    """50 networks x 10 chips, seed 1."""
    trials = answered(50, 1, 10, seed=1, std_chip=0.0)
    summary = summarise(trials, scale="accuracy").set_index("condition")
    assert summary["std_chips"].eq(0).mean() > 0.2
    measured = estimated_score(trials).groupby(trials["condition"]).std()
    expected = stats.t.ppf(0.975, 9) * measured / np.sqrt(10)
    width, is_floor = summary["half_width"].sort_index(), summary["spread"].sort_index() == "floor"
    pd.testing.assert_series_equal(width[~is_floor], expected[~is_floor], check_names=False)
    assert (width[is_floor] >= expected[is_floor]).all() and is_floor.mean() < 0.1


@pytest.mark.slow
def test_intervals_over_networks_cover_the_accuracy_on_all_images():
    trials = answered(400, 4, 3, seed=2, eases=EASE)
    summary, gains = summarise(trials, pool=False), paired_gain(trials, pool=False)
    truth = {method: accuracy_of(ease, STD_OF_ALL) for method, ease in EASE.items()}
    gain = truth["sam"] - truth["sgd"]
    # binomial, 400 studies: 0.95 - 0.04 is 3.7 standard errors, false alarm 1e-4 (fixed seed); no
    # upper limit, since the floor of the standard error widens intervals of networks that agree
    assert share_covered(summary, summary["method"].map(truth)) > 0.91
    assert share_covered(gains, gain, "gain") > 0.91
    assert abs(gains["gain"].mean() - gain) < 3.7 * gains["gain"].sem()


@pytest.mark.slow
def test_intervals_cover_where_networks_share_chips_and_their_images():
    trials = answered(400, 4, 6, seed=3, shared=True, std_network=0.02)
    truth = accuracy_of(EASE["sgd"], np.sqrt(STD_IMAGE**2 + 0.02**2 + STD_CHIP**2))
    # binomial, 400 studies: 0.95 - 0.04 is 3.7 standard errors, false alarm 1e-4 (fixed seed)
    covered = share_covered(summarise(trials), truth)
    assert covered > 0.91
    as_if_apart = trials.assign(programming_seed=range(len(trials)))
    assert share_covered(summarise(as_if_apart), truth) < covered


def test_intervals_over_chips_cover_and_without_the_variance_of_the_images_would_not():
    trials = answered(400, 1, 8, seed=4, std_network=0.0)
    truth = accuracy_of(EASE["sgd"], np.sqrt(STD_IMAGE**2 + STD_CHIP**2))
    summary = summarise(trials)
    # binomial, 400 studies: 0.95 +- 0.04 is 3.7 standard errors, false alarm 2e-4 (fixed seed)
    assert 0.91 < share_covered(summary, truth) < 0.99
    too_narrow = stats.t.ppf(0.975, 7) * summary["std_chips"] / np.sqrt(8)
    assert share_covered(summary.assign(half_width=too_narrow), truth) < 0.85


def test_the_parts_of_the_spread_add_up_to_what_is_measured():
    trials = answered(1, 5, 20, seed=5)
    parts, row = variance_components(trials).iloc[0], summarise(trials).iloc[0]
    scores = estimated_score(trials).groupby(trials["checkpoint"])
    within = scores.var().mean()
    assert parts["std_sampling"] ** 2 == pytest.approx(sampling_variance(trials).mean())
    assert parts["std_chips"] ** 2 + parts["std_sampling"] ** 2 == pytest.approx(within)
    assert parts["std_chips"] == pytest.approx(row["std_chips"])
    # the textbook's question: how many networks, each with 20 chips that answer 40 images
    variance = parts["std_networks"] ** 2 + within / 20
    target = row["half_width"] / 2
    n = int(needed(trials, target).iloc[0]["needed_networks"])
    half_widths = [stats.t.ppf(0.975, k - 1) * np.sqrt(variance / k) for k in (n - 1, n)]
    assert half_widths[1] <= target < half_widths[0]


def test_a_chip_alone_counts_the_images_once():
    """One chip a network: what differs between networks holds the chip and its images."""
    trials = answered(1, 30, 1, seed=6)
    parts = variance_components(trials).iloc[0]
    between = estimated_score(trials).var()
    assert parts["std_networks"] ** 2 + parts["std_sampling"] ** 2 == pytest.approx(between)
    row = needed(trials, 0.01).iloc[0]
    n = int(row["needed_networks"])
    assert stats.t.ppf(0.975, n - 1) * np.sqrt(between / n) <= 0.01


# the table and what is said


@pytest.mark.parametrize(
    "wrong",
    [
        {"n_test": 39},
        {"n_changed": 41},
        {"n_changed": 0, "n_correct": 10, "n_correct_digital": 12},
        {"n_correct_digital_test": 500},
        {"n_correct_digital_test": 5, "n_correct_digital": 6},
        {"n_correct_digital_test": 370, "n_correct_digital": 5, "n_correct": 5},
    ],
)
def test_counts_that_cannot_be_are_refused(wrong, tmp_path):
    rows = answered(1, 1, 2, seed=7)[list(COLUMNS)]
    append_rows(rows, tmp_path / "trials.csv")
    for column, value in wrong.items():
        rows.loc[1, column] = value
    with pytest.raises(ValueError, match="Row 2 of the new rows: .* which is inconsistent"):
        append_rows(rows, tmp_path / "trials.csv")
    assert len(read_trials(tmp_path)) == 2


def test_chips_evaluated_on_some_and_on_all_images_are_not_averaged():
    some = make_trials(
        {"sgd": 0.9}, n_images_per_chip=1000, n_test=2000, n_correct_digital_test=1820
    )
    every = make_trials({"sam": 0.9}, n_images_per_chip=2000)
    with pytest.raises(
        ValueError, match=r"chips that were evaluated on \[1000, 2000\] images each"
    ):
        summarise(pd.concat([some, every]))
    every = make_trials({"sgd": 0.9}, n_images_per_chip=2000)
    with pytest.raises(ValueError, match=r"two definitions.*differ in 'n_images_per_chip';"):
        summarise(pd.concat([some, every.assign(chip_id=every["chip_id"] + "x")]))


@pytest.mark.slow
def test_every_table_and_figure_says_that_images_were_chosen():
    said = "accuracies estimated from 1,000 of 2,000 test images"
    some = make_trials(n_images_per_chip=1000, n_test=2000, n_correct_digital_test=1820)
    for trials, is_said in ((some, True), (make_trials(n_images_per_chip=2000), False)):
        for table in study_tables(trials, half_width=0.001).values():
            assert (said in table.caption) == is_said, table.title
        for name, figure in study_figures(trials).items():
            text = " ".join(text.get_text() for text in figure.texts).replace("\n", " ")
            assert (said in text) == is_said, name


def test_an_estimate_beyond_the_limits_stays_inside_its_interval():
    """Chips are right on their whole subset, where the digital network is worse than on all."""
    perfect = np.array([[1.0, 1.0], [1.0, 1.0], [0.9999, 1.0]])
    rows = trials_with({"sgd": perfect}, digital=0.95, n_images=10_000, n_test=100_000)
    rows["n_correct_digital_test"] = 96_000  # 96 % of all, 95 % of the subset
    (found,) = summarise(rows, scale="accuracy").to_dict("records")
    assert found["accuracy"] > 1
    assert found["low"] <= found["accuracy"] <= found["high"]
