"""The functions of scores, and whether a score fits a data set."""

import functools
from collections.abc import Callable

import torch
from torch import Tensor

from analog_samson.checkpoint import Checkpoint
from analog_samson.data import Split
from analog_samson.devices.sentences import did_you_mean
from analog_samson.evaluation import score_by_sample
from analog_samson.importing import import_callable, import_named, is_import_name
from analog_samson.results import SCORE_COLUMNS
from analog_samson.results.scores import ACCURACY, FEWEST_CLASSES, SCORES, Score
from analog_samson.tasks import Task

OF_TASK: dict[Task, str] = {
    "classification": "accuracy, top5 or cross_entropy",
    "tokens": "cross_entropy, bits_per_token or token_accuracy",
    "regression": "mse",
}
"""The scores of this package that fit each task, for messages."""

RESERVED = frozenset(SCORE_COLUMNS) | {
    "accuracy",
    "confidence",
    "dof",
    "gain",
    "half_width",
    "high",
    "layer",
    "level",
    "low",
    "lost",
    "n_chips",
    "n_chips_max",
    "n_networks",
    "n_reads",
    "name",
    "sampling_variance",
    "spread",
    "stage",
    "standard_error",
    "std_chips",
    "std_networks",
    "value",
    "var_measured",
}
"""Columns of tables and summaries that no score may be named after."""


def find_score(name: str) -> Score:
    """Find a score by its name.

    Args:
        name: A name in `results.SCORES`, or "package.module:function", which is imported.

    Raises:
        ValueError: If there is no such score, or the function is not declared as one.
    """
    if name in SCORES:
        return SCORES[name]
    if not is_import_name(name):
        raise ValueError(
            f"Unknown score {name!r}{did_you_mean(name, list(SCORES))} Or name a function of your "
            "own: 'package.module:function'."
        )
    declared = getattr(import_callable(name, "score"), "score", None)
    if not isinstance(declared, Score):
        raise ValueError(
            f"{name!r} does not say which values are better; put the decorator "
            "analog_samson.score('higher') or analog_samson.score('lower') on the function."
        )
    score = Score(**declared.description, name=name, function=name)
    if score.column in RESERVED:
        raise ValueError(
            f"The score {name!r} would be the column {score.column!r} of summaries, which holds "
            "something else; give the function another name."
        )
    return score


@functools.lru_cache(maxsize=8)
def function_of(name: str) -> Callable[[Tensor, Tensor], Tensor]:
    """The function of a score other than accuracy: ``function(outputs, targets)``."""
    function: Callable[[Tensor, Tensor], Tensor] = import_named(find_score(name).function, "score")
    return function


def check_score(score: Score, checkpoint: Checkpoint, test: Split) -> None:
    """Refuse a score that does not fit a network and its data set.

    A score of another package is computed of two test samples, by the digital network.

    Args:
        score: The score.
        checkpoint: The trained network.
        test: Its test set.

    Raises:
        ValueError: If the score is not defined for the task, always takes one value, or its
            function raises, does not return a finite number a sample, or mixes samples.
    """
    dataset, task = checkpoint.spec.dataset, test.task
    if score.tasks and task not in score.tasks:
        raise ValueError(
            f"The score {score.name!r} is for {' and '.join(score.tasks)}, and {dataset!r} is a "
            f"data set for {task}; choose {OF_TASK[task]}, or a function of your own."
        )
    if score.name == "top5" and checkpoint.n_classes < FEWEST_CLASSES:
        raise ValueError(
            f"The score 'top5' is always 100 % with the {checkpoint.n_classes} classes of "
            f"{dataset!r}; choose 'accuracy' or 'cross_entropy'."
        )
    if is_import_name(score.name):
        network = checkpoint.build()
        both, single = (
            score_by_sample(
                function_of(score.name),
                lambda batch, first_index: network(batch),
                test.images[:2],
                test.labels[:2],
                checkpoint.normalise,
                name=score.name,
                batch_size=batch_size,
            )
            for batch_size in (2, 1)
        )
        if not torch.allclose(both, single, rtol=1e-3, atol=1e-6):
            raise ValueError(
                f"The score {score.name!r} of two test samples is {both.tolist()}, and "
                f"{single.tolist()} if each is evaluated alone; the number of a sample must not "
                "depend on other samples."
            )


_checked_apart: set[tuple[str, str]] = set()


@torch.no_grad()
def check_samples_apart(checkpoint: Checkpoint, test: Split) -> None:
    """Refuse a network whose outputs for a sample depend on the others of its batch.

    A network that passed is not evaluated again in the same process.

    Args:
        checkpoint: The trained network.
        test: Its test set, of which two samples are evaluated together and alone.

    Raises:
        ValueError: If the outputs differ.
    """
    key = checkpoint.digest, test.digest
    if key in _checked_apart:
        return
    network, two = checkpoint.build(), checkpoint.normalise(test.images[:2])
    both = network(two)
    alone = torch.cat([network(two[:1]), network(two[1:])])
    if not torch.allclose(both, alone, rtol=1e-3, atol=1e-3 * float(both.abs().max())):
        raise ValueError(
            f"The network {checkpoint.spec.model!r} gives other outputs for two test samples "
            "together than for each alone; the outputs of a sample must not depend on others of "
            "its batch: use statistics of the training, as batch normalisation in evaluation mode."
        )
    _checked_apart.add(key)


def is_counted(score: str) -> bool:
    """Whether rows of a score hold counts, not sums."""
    return score == ACCURACY.name
