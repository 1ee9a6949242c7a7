"""The functions of scores against torch's own, and what a wrong function is told."""

import re
from types import SimpleNamespace

import pytest
import torch
from torch.nn import functional

from analog_samson.data import Split
from analog_samson.evaluation import (
    IGNORED,
    cross_entropy,
    score_by_sample,
    squared_error,
    token_accuracy,
    top5,
)
from analog_samson.results import SCORES
from analog_samson.study.scoring import check_score, find_score


def drawn(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def labels(*shape, below, seed=1):
    return torch.randint(below, shape, generator=torch.Generator().manual_seed(seed))


def test_cross_entropy_is_torchs():
    logits, targets = 5 * drawn(200, 10), labels(200, below=10)
    expected = functional.cross_entropy(logits.double(), targets, reduction="none")
    torch.testing.assert_close(cross_entropy(logits, targets), expected, rtol=1e-12, atol=1e-14)


def test_a_sequence_has_the_mean_over_its_tokens_without_ignored_ones():
    logits, targets = drawn(7, 12, 30), labels(7, 12, below=30)
    targets[2, 5:] = IGNORED
    for values, by_token in (
        (cross_entropy(logits, targets), lambda x, y: functional.cross_entropy(x.double(), y)),
        (token_accuracy(logits, targets), lambda x, y: (x.argmax(-1) == y).double().mean()),
    ):
        for sample in range(7):
            kept = targets[sample] != IGNORED
            expected = by_token(logits[sample, kept], targets[sample, kept])
            torch.testing.assert_close(values[sample], expected.double())


def test_top5_is_whether_fewer_than_five_outputs_are_larger():
    logits, targets = drawn(300, 12), labels(300, below=12)
    larger = (logits > logits.gather(1, targets[:, None])).sum(1)
    assert torch.equal(top5(logits, targets), larger < 5)


def test_squared_error_is_the_mean_over_outputs_whatever_their_shape():
    outputs, targets = drawn(50, 3), drawn(50, 3, seed=1)
    expected = functional.mse_loss(outputs, targets, reduction="none").mean(1)
    torch.testing.assert_close(squared_error(outputs, targets).float(), expected)
    single = squared_error(outputs[:, :1], targets[:, 0])
    torch.testing.assert_close(single.float(), (outputs[:, 0] - targets[:, 0]) ** 2)
    with pytest.raises(ValueError, match="as many outputs as targets"):
        squared_error(outputs, targets[:, 0])


@pytest.mark.parametrize("n", [1, 63, 64, 65, 200])
def test_values_do_not_depend_on_batches(n):
    samples, targets = drawn(n, 10), labels(n, below=10)
    whole = cross_entropy(samples, targets)
    for batch_size in (1, 7, 64, 256):
        values = score_by_sample(
            cross_entropy,
            lambda batch, first: batch,
            samples,
            targets,
            lambda x: x,
            name="cross_entropy",
            batch_size=batch_size,
        )
        assert torch.equal(values, whole)


def test_chips_of_a_group_have_the_values_of_each_alone():
    samples, targets = drawn(100, 10), labels(100, below=10)
    scales = (1.0, 0.5, 2.0)
    values = score_by_sample(
        cross_entropy,
        lambda batch, first: torch.stack([scale * batch for scale in scales]),
        samples,
        targets,
        lambda x: x,
        name="cross_entropy",
        n_chips=3,
    )
    expected = torch.stack([cross_entropy(scale * samples, targets) for scale in scales])
    assert torch.equal(values, expected)


def raising(outputs, targets):
    raise KeyError("no such thing")


WRONG = [
    (raising, "The score 'own' raised KeyError for outputs (5, 3) and targets (5,)"),
    (lambda x, y: x, "The score 'own' returned (5, 3) for outputs (5, 3) and targets (5,); a"),
    (lambda x, y: x.mean(), "returned () for"),
    (lambda x, y: 0.5, "returned float for"),
    (lambda x, y: x[:, 0].log() * 0 - torch.inf, "is -inf for sample"),
    (lambda x, y: (x[:, 0] - x[:, 0]) / 0, "is nan for sample 0; it must be finite"),
    (lambda x, y: x[:, 0] + 1j, "returned complex numbers"),
]


@pytest.mark.parametrize(("function", "said"), WRONG)
def test_a_wrong_function_is_told_so_in_a_sentence(function, said):
    samples, targets = drawn(5, 3).abs(), labels(5, below=3)
    with pytest.raises(ValueError, match=re.escape(said)):
        score_by_sample(
            function, lambda x, first: x[:5], samples, targets, lambda x: x, name="own",
            batch_size=5,
        )  # fmt: skip


def test_a_function_that_overwrites_what_it_is_given_leaves_the_data_as_they_are():
    def masked(outputs, targets):
        scored = targets != IGNORED
        targets[~scored] = 0
        wrong = (outputs.argmax(-1) != targets) & scored
        outputs.zero_()
        return wrong.sum(-1) / scored.sum(-1)

    logits, targets = drawn(2, 6, 4, 12), labels(6, 4, below=12)
    targets[3, 2:] = IGNORED
    given = logits.clone(), targets.clone()
    values = score_by_sample(
        masked,
        lambda images, first_index: logits,
        torch.zeros(6, 1),
        targets,
        lambda x: x,
        name="masked",
        n_chips=2,
        batch_size=6,
    )
    assert torch.equal(targets, given[1])
    assert torch.equal(logits, given[0])
    by_chip = [masked(one.clone(), targets.clone()).double() for one in given[0]]
    assert torch.equal(values, torch.stack(by_chip))


def test_a_window_without_tokens_that_count_is_named():
    targets = labels(3, 4, below=5)
    targets[1] = IGNORED
    with pytest.raises(ValueError, match="'cross_entropy' is nan for sample 1"):
        score_by_sample(
            cross_entropy, lambda x, first: x, drawn(3, 4, 5), targets, lambda x: x,
            name="cross_entropy", batch_size=3,
        )  # fmt: skip


def test_outputs_of_another_number_of_samples_are_refused():
    with pytest.raises(ValueError, match=re.escape("have shape (2, 3) for a batch of 4 samples")):
        score_by_sample(
            cross_entropy, lambda x, first: x[:2], drawn(4, 3), labels(4, below=3), lambda x: x,
            name="cross_entropy", batch_size=4,
        )  # fmt: skip
    with pytest.raises(ValueError, match="at least one sample"):
        score_by_sample(top5, None, drawn(0, 3), labels(0, below=3), None, name="top5")


# which score fits which task

TARGETS = {
    "classification": labels(9, below=3),
    "tokens": labels(9, 4, below=30),
    "regression": drawn(9, 2),
}


def fits(name, task, n_classes=30):
    network = SimpleNamespace(spec=SimpleNamespace(dataset="own"), n_classes=n_classes)
    check_score(find_score(name), network, Split(drawn(9, 1), TARGETS[task]))


@pytest.mark.parametrize("name", SCORES)
@pytest.mark.parametrize("task", TARGETS)
def test_a_score_is_refused_where_it_is_not_defined(name, task):
    if task in SCORES[name].tasks:
        fits(name, task)
        return
    with pytest.raises(ValueError, match=f"score '{name}' is for .* data set for {task}; choose"):
        fits(name, task)


def test_top5_of_five_classes_says_nothing():
    fits("top5", "classification", 6)
    with pytest.raises(ValueError, match="'top5' is always 100 % with the 3 classes of 'own'"):
        fits("top5", "classification", 3)
