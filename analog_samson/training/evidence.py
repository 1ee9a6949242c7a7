"""The tables of a finished study of methods, joined for its endpoints and its tables."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from analog_samson.results import tables_in
from analog_samson.results.checking import read_networks
from analog_samson.results.columns import DIGEST_LENGTH
from analog_samson.results.endpoints import check_test
from analog_samson.results.measures import Evidence, IncompleteError, other_study
from analog_samson.results.trials import read_counted
from analog_samson.training.protocol import PROTOCOL_FILE, candidates, load_protocol, methods_in


def expected_methods(plan: Mapping[str, Any]) -> list[tuple[str, str | None]]:
    """Methods of a protocol, with strengths where all of them are trained.

    Example:
        >>> expected_methods({"grid_seed": 100, "methods": {"sgd": "sgd", "sam": "sam:rho=0.1"}})
        [('sgd', None), ('sam', None)]
    """
    methods = plan.get("methods", {})
    if "grid_seed" in plan:
        return [(variant, None) for variant in methods]
    return [
        (variant, spec.strength) for variant in methods for spec in candidates(plan, variant, 0)
    ]


def tests_of(folder: Path, plan: Mapping[str, Any]) -> list[tuple[str, dict[str, Any]]]:
    """Claim and test of all tests of a protocol, checked.

    Args:
        folder: Folder of the study.
        plan: Its protocol.

    Raises:
        ValueError: If a test cannot be understood, or names a method or study that is not there.

    Example:
        >>> test = {"measure": "gain", "method": "sam", "over": "sgd", "device": "digital"}
        >>> claims = {"better": {"tests": [test | {"above": 0.0}]}}
        >>> plan = {"methods": {"sgd": "sgd", "sam": "sam:rho=0.1"}, "claims": claims}
        >>> [claim for claim, _ in tests_of(Path("."), plan)]
        ['better']
    """
    file = folder / PROTOCOL_FILE
    expected = expected_methods(plan)
    variants = [variant for variant, _ in expected]
    names = {
        variant if variants.count(variant) == 1 else f"{variant} {strength}"
        for variant, strength in expected
    }
    tests = []
    for claim, content in plan.get("claims", {}).items():
        for number, test in enumerate(content.get("tests", ()), start=1):
            try:
                check_test(test, names)
                other = other_study(test)
                if other is not None and not (folder / other / PROTOCOL_FILE).is_file():
                    raise ValueError(
                        f"minus.study = {other!r}: no {PROTOCOL_FILE} there; give the folder of "
                        f"another study, relative to {str(folder)!r}."
                    )
                if other is not None and (folder / other).resolve() == folder.resolve():
                    raise ValueError(f"minus.study = {other!r} is this study; leave it out.")
            except ValueError as error:
                raise ValueError(f"{file}: claim {claim!r}, test {number}: {error}") from None
            tests.append((claim, test))
    return tests


def evidence_of(
    folder: Path, plan: Mapping[str, Any] | None = None, trust: Sequence[str] = ()
) -> Evidence:
    """The tables of a study; its plan is read from its protocol if it is not given.

    Raises:
        IncompleteError: If a network of the protocol, or rows of it, are not there yet.
        ValueError: If a network is there twice.
    """
    plan = plan or load_protocol(folder, trust=trust)
    networks = _networks(folder, plan) if "methods" in plan else None
    studies = [(folder / name).parent for name in plan.get("studies", [])]
    missing = [study.name for study in studies if not tables_in(study)]
    if missing:
        raise IncompleteError(f"no table of trials of {missing}")
    rows, counted = read_counted(*studies) if studies else (pd.DataFrame(), [])
    if networks is None:
        return Evidence(folder, _networks_of(rows, plan), rows, plan.get("seeds", ()))
    if studies:
        rows = rows[rows["checkpoint"].isin(networks["checkpoint"])]
        for name, counts in zip(plan.get("studies", []), counted, strict=True):
            asked = networks.loc[networks["variant"].isin(methods_in(plan, name)), "checkpoint"]
            counts = counts.reindex(asked)
            if counts.nunique(dropna=False) > 1 or counts.isna().any():
                raise IncompleteError(f"not every network has the same rows in {name}")
    return Evidence(folder, networks, rows, methods=plan["methods"])


def _networks(folder: Path, plan: Mapping[str, Any]) -> pd.DataFrame:
    """Networks of a protocol, without those whose training failed; raises if some are missing."""
    table = folder / "networks.csv"
    names = ["variant", "strength", "training_seed", "digest", "failure"]
    there = pd.DataFrame(columns=names)
    if table.is_file():
        there = read_networks(table)[names]
    there = there.assign(training_seed=there["training_seed"].astype(int),
                         checkpoint=there["digest"].str[:DIGEST_LENGTH])  # fmt: skip
    key = ["variant", "training_seed"] + ["strength"] * ("grid_seed" not in plan)
    methods = expected_methods(plan)
    wanted = pd.DataFrame(
        [(variant, seed, strength) for seed in plan["seeds"] for variant, strength in methods],
        columns=["variant", "training_seed", "strength"],
    )[key]
    found = wanted.merge(there, on=key)
    if found.duplicated(key).any():
        raise ValueError(f"{table}: {found[found.duplicated(key)][key].iloc[0].to_dict()} twice.")
    if len(found) < len(wanted):
        raise IncompleteError(f"{len(found)} of {len(wanted)} networks are there")
    return found[found["failure"] == ""]


def _networks_of(rows: pd.DataFrame, plan: Mapping[str, Any]) -> pd.DataFrame:
    """Networks of trials, their method as the variant; raises if one lacks a seed."""
    names = ["checkpoint", "variant", "strength", "training_seed"]
    if rows.empty:
        return pd.DataFrame(columns=names)
    networks = rows.rename(columns={"method": "variant"})[names].drop_duplicates()
    for (variant, strength), own in networks.groupby(["variant", "strength"]):
        missing = set(plan.get("seeds", ())) - set(own["training_seed"])
        if missing:
            raise IncompleteError(f"{variant} {strength} lacks the seeds {sorted(missing)}")
    return networks
