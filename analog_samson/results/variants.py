"""Variants of training methods: one training recipe over tasks, whatever its strength on each.

Strengths are tuned for each task, so that a method has another ``strength`` on every task. A
variant is what stays: "samson", "samson p=2", "sgd clip_weights".
"""

import pandas as pd

from analog_samson.methods import METHODS
from analog_samson.results.columns import DIGEST_LENGTH
from analog_samson.results.definitions import METHOD

TASK = ("dataset", "model")
"""Columns that identify a task."""

_OF_NETWORKS = ("variant", "dataset", "model", "digest", "gradient_evaluations")


def variants_of(rows: pd.DataFrame, networks: pd.DataFrame | None = None) -> pd.DataFrame:
    """The variant of every method and strength of every task, and what it costs to train.

    A variant has the name that ``networks.csv`` gives it, where that lists every network of the
    rows. Otherwise it is told by its settings: the value of the strength is left out, and so are
    settings that all trainings of the method share. Where a task has several strengths of one
    variant, each is a variant of its own.

    Args:
        rows: Rows of trials, or of chips.
        networks: Networks as in ``networks.csv``, of one or several studies; None if there are
            none.

    Returns:
        One row per data set, model, method and strength: ``variant`` (what distinguishes it from
        the method's other variants; "" for the usual one), ``device_known`` (the device whose
        noise it is trained with; "" if none) and ``gradient_evaluations`` (backward passes of a
        training, or of a step where ``networks`` does not list every network of the rows; NaN if
        unknown).

    Raises:
        ValueError: If columns of the networks are missing.

    Example:
        >>> variants_of(rows)[["method", "strength", "variant"]].values.tolist()
        [['sam', 'rho=0.1', ''], ['sgd', '', '']]
    """
    found = rows[[*TASK, *METHOD]].astype(str).drop_duplicates().sort_values([*TASK, *METHOD])
    found = found.reset_index(drop=True)
    given = _named(rows, networks)
    if given is not None:
        found = found.merge(given, on=[*TASK, *METHOD], how="left")
    else:
        found["variant"] = _by_settings(found)
        found["gradient_evaluations"] = [
            METHODS[name].gradient_evaluations if name in METHODS else float("nan")
            for name in found["method"]
        ]
    several = found.duplicated([*TASK, "method", "variant"], keep=False)
    ambiguous = found["method"].isin(found.loc[several, "method"])
    found["variant"] = found["variant"].where(~ambiguous, found["strength"])
    found["device_known"] = [
        _device_known(*names) for names in zip(found["method"], found["strength"], strict=True)
    ]
    return found[[*TASK, *METHOD, "variant", "device_known", "gradient_evaluations"]]


def with_variants(rows: pd.DataFrame, variants: pd.DataFrame) -> pd.DataFrame:
    """A copy of rows whose ``strength`` is their variant, so that tasks agree in it.

    Args:
        rows: Rows of trials, or of chips.
        variants: As `variants_of` gives for them.

    Example:
        >>> with_variants(rows, variants_of(rows))["strength"].unique().tolist()
        ['']
    """
    keys = [*TASK, *METHOD]
    names = variants.set_index(keys)["variant"].to_dict()
    kinds = zip(*(rows[key].astype(str) for key in keys), strict=True)
    return rows.assign(strength=[names[kind] for kind in kinds])


def training_costs(variants: pd.DataFrame, baseline: str) -> pd.DataFrame:
    """Backward passes of every variant relative to those of the baseline.

    Args:
        variants: As `variants_of` gives.
        baseline: Method with its variant.

    Returns:
        One row per method and variant (its column is ``strength``): ``cost``, the mean over tasks,
        ``cost_low`` and ``cost_high``.

    Example:
        >>> training_costs(variants_of(rows), "sgd")[["method", "cost"]].values.tolist()
        [['sam', 2.0], ['sgd', 1.0]]
    """
    names = variants["method"] + (" " + variants["variant"]).where(variants["variant"] != "", "")
    own = variants[names == baseline].set_index(list(TASK))["gradient_evaluations"]
    tasks = pd.MultiIndex.from_frame(variants[list(TASK)])
    costs = variants.assign(cost=variants["gradient_evaluations"] / own.reindex(tasks).to_numpy())
    costs = costs.drop(columns="strength").rename(columns={"variant": "strength"})
    grouped = costs.groupby(list(METHOD), sort=True)["cost"]
    return grouped.agg(cost="mean", cost_low="min", cost_high="max").reset_index()


def _named(rows: pd.DataFrame, networks: pd.DataFrame | None) -> pd.DataFrame | None:
    """Variants and backward passes by the table of networks; None where it lacks some network."""
    if networks is None:
        return None
    missing = [column for column in _OF_NETWORKS if column not in networks]
    if missing:
        raise ValueError(
            f"The table of networks has no columns {missing}; give networks.csv as "
            "experiments/methods_study.py writes it."
        )
    trained = networks[networks["digest"].notna()]
    digests = trained["digest"].astype(str).str[:DIGEST_LENGTH]
    known = trained.set_index(digests)[["variant", "gradient_evaluations"]]
    known = known[~known.index.duplicated()]
    used = rows[[*TASK, *METHOD, "checkpoint"]].astype(str).drop_duplicates()
    if not used["checkpoint"].isin(known.index).all():
        return None
    used = used.join(known, on="checkpoint")
    used["variant"] = [
        str(key).removeprefix(method).strip("_ ").replace("_", " ")
        for key, method in zip(used["variant"], used["method"], strict=True)
    ]
    grouped = used.groupby([*TASK, *METHOD], as_index=False)
    return grouped.agg(
        variant=("variant", "first"), gradient_evaluations=("gradient_evaluations", "mean")
    )


def _by_settings(found: pd.DataFrame) -> list[str]:
    """What distinguishes every row from the other trainings of its method."""
    settings = [_settings(*names) for names in zip(found["method"], found["strength"], strict=True)]
    shared = {
        method: set.intersection(*(set(settings[row]) for row in own))
        for method, own in found.groupby("method").groups.items()
    }
    return [
        " ".join(one for one in own if one not in shared[method])
        for own, method in zip(settings, found["method"], strict=True)
    ]


def _settings(method: str, strength: str) -> list[str]:
    """Settings of a training without the value that was tuned, the first one."""
    first, *others = strength.split(" ")
    name, _, value = first.partition("=")
    if method in METHODS and not METHODS[method].strength:
        return [name, *others] if value else list(filter(None, [first, *others]))
    return others


def _device_known(method: str, strength: str) -> str:
    """The device whose noise a method is trained with."""
    option = METHODS[method].options.get("device") if method in METHODS else None
    if option is None:
        return ""
    given = [one.removeprefix("device=") for one in strength.split(" ") if "device=" in one]
    return given[0] if given else str(option.default)
