"""Results: the table of trials and its statistics.

A row is one chip at one time in one read. Chips of one network are not independent samples of
the training method, so reads are averaged first, then chips; intervals are over networks.
"""

from analog_samson.results.columns import COLUMNS
from analog_samson.results.comparison import best_methods, holm, paired_gain
from analog_samson.results.correlation import rank_correlation
from analog_samson.results.lifetime import (
    has_trajectories,
    iso_accuracy,
    known_classes,
    lifetime,
    no_better_than_guessing,
)
from analog_samson.results.sample_size import needed, next_look, variance_components
from analog_samson.results.scale import recommended_scale
from analog_samson.results.subsets import (
    digital_accuracy,
    estimated_accuracy,
    sampling_variance,
)
from analog_samson.results.summary import chip_means, lost, network_means, summarise
from analog_samson.results.trials import (
    append_lines,
    append_rows,
    as_lines,
    read_trials,
    tables_in,
)
from analog_samson.results.yields import default_target, yields

__all__ = [
    "COLUMNS",
    "append_lines",
    "append_rows",
    "as_lines",
    "best_methods",
    "chip_means",
    "default_target",
    "digital_accuracy",
    "estimated_accuracy",
    "has_trajectories",
    "holm",
    "iso_accuracy",
    "known_classes",
    "lifetime",
    "lost",
    "needed",
    "network_means",
    "next_look",
    "no_better_than_guessing",
    "paired_gain",
    "rank_correlation",
    "read_trials",
    "recommended_scale",
    "sampling_variance",
    "summarise",
    "tables_in",
    "variance_components",
    "yields",
]
