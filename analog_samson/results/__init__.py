"""Results: the table of trials and its statistics.

A row is one chip at one time in one read. Chips of one network are not independent samples of
the training method, so reads are averaged first, then chips; intervals are over networks.
"""

from analog_samson.deprecated import old_names
from analog_samson.results.columns import COLUMNS, SCORE_COLUMNS
from analog_samson.results.comparison import best_methods, holm, paired_gain
from analog_samson.results.correlation import rank_correlation
from analog_samson.results.lifetime import (
    has_trajectories,
    iso_accuracy,
    known_classes,
    lifetime,
    no_better_than_guessing,
)
from analog_samson.results.regret import (
    held_out_gains,
    network_gains,
    regret_of_choice,
    simultaneous_gains,
    winners,
)
from analog_samson.results.sample_size import needed, next_look, variance_components
from analog_samson.results.scale import scales_of
from analog_samson.results.scores import SCORES, Score, score, score_of, shown_as
from analog_samson.results.subsets import digital_score, estimated_score, sampling_variance
from analog_samson.results.summary import chip_means, lost, network_means, summarise
from analog_samson.results.tolerance import method_tolerances, tolerance_ratios
from analog_samson.results.trials import (
    append_lines,
    append_rows,
    as_lines,
    read_trials,
    tables_in,
)
from analog_samson.results.variants import training_costs, variants_of, with_variants
from analog_samson.results.yields import default_target, default_targets, yields

__all__ = [
    "COLUMNS",
    "SCORES",
    "SCORE_COLUMNS",
    "Score",
    "append_lines",
    "append_rows",
    "as_lines",
    "best_methods",
    "chip_means",
    "default_target",
    "default_targets",
    "digital_score",
    "estimated_score",
    "has_trajectories",
    "held_out_gains",
    "holm",
    "iso_accuracy",
    "known_classes",
    "lifetime",
    "lost",
    "method_tolerances",
    "needed",
    "network_gains",
    "network_means",
    "next_look",
    "no_better_than_guessing",
    "paired_gain",
    "rank_correlation",
    "read_trials",
    "regret_of_choice",
    "sampling_variance",
    "scales_of",
    "score",
    "score_of",
    "shown_as",
    "simultaneous_gains",
    "summarise",
    "tables_in",
    "tolerance_ratios",
    "training_costs",
    "variance_components",
    "variants_of",
    "winners",
    "with_variants",
    "yields",
]

__getattr__ = old_names(
    __name__,
    {"digital_accuracy": "digital_score", "estimated_accuracy": "estimated_score"},
)
