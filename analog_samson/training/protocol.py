"""The file ``protocol.toml`` of a study of methods, checked before anything is trained."""

from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import pydantic
from pydantic import Field

from analog_samson.checkpoint import TrainingSpec
from analog_samson.devices.section import Name, Section
from analog_samson.devices.sentences import explain
from analog_samson.devices.toml import parse_toml
from analog_samson.importing import check_trust
from analog_samson.training.grid import grid

PROTOCOL_FILE = "protocol.toml"

OWN_PACKAGE = "analog_samson"
"""The package whose code every protocol may name."""

NEEDED_IN_COMMON = ("dataset", "epochs", "model")
"""Keys of ``[common]`` that a study that trains needs."""

_Seed = Annotated[int, Field(ge=0)]
_Count = Annotated[int, Field(ge=1)]
_Seeds = Annotated[list[_Seed], Field(min_length=1)]
_Tables = Annotated[dict[str, Any], Field(min_length=1)]


class _Claim(Section):
    """A claim: in words, and the tests that ``verdicts.py`` computes."""

    claim: str = ""
    source: str = ""
    endpoint: str = ""
    number: _Count | None = None
    tests: Annotated[list[dict[str, Any]], Field(min_length=1)] | None = None


class _TrainingImages(Section):
    """Chips that are evaluated on training images too."""

    study: str
    device: str
    n_chips: _Count
    n_images: _Count


class _Protocol(Section):
    """All keys of a protocol; which of them are needed depends on the script that reads it."""

    symbol: str = ""
    seeds: _Seeds | None = None
    kept_seeds: list[_Seed] | None = None
    grid_seed: _Seed | _Seeds | None = None
    grid_epochs: _Count | None = None
    noise_sigma: Annotated[float, Field(ge=0, allow_inf_nan=False)] | None = None
    noise_draws: _Count | None = None
    studies: list[str] | None = None
    sharpness_images: _Count | None = None
    curvature_images: _Count | None = None
    training_images: _TrainingImages | None = None
    start_from: dict[str, str] | None = None
    only: dict[str, list[str]] | None = None
    drift: _Tables | None = None
    transfer: _Tables | None = None
    common: _Tables | None = None
    methods: Annotated[dict[Name, str], Field(min_length=1)] | None = None
    claims: dict[str, dict[str, Any]] | None = None


def load_protocol(
    folder: str | Path, needed: Collection[str] = (), trust: Sequence[str] = ()
) -> dict[str, Any]:
    r"""Read the protocol of a study and check it.

    Args:
        folder: Folder of the study.
        needed: Keys that must be there.
        trust: Packages that its networks, data and methods may import from, besides this one.

    Returns:
        Its content; ``claims`` is always there.

    Raises:
        FileNotFoundError: If there is none.
        ValueError: If it is not valid TOML, a key is missing or unknown, a value is wrong, one key
            contradicts another, or it names code that is not trusted; the message names the file.

    Example:
        >>> text = 'seeds = [0, 1]\n[common]\ndataset = "digits"\n[methods]\nsgd = "sgd"\n'
        >>> n_written = Path("protocol.toml").write_text(text)
        >>> load_protocol(".", needed=["methods"])["seeds"]
        [0, 1]
    """
    path = Path(folder) / PROTOCOL_FILE
    if not path.is_file():
        raise FileNotFoundError(
            f"No protocol {str(path)!r}; give the folder of a study, with its {PROTOCOL_FILE}."
        )
    plan = parse_toml(path.read_bytes(), str(path))
    try:
        _check(plan, _Protocol)
        for name, claim in plan.get("claims", {}).items():
            _check(claim, _Claim, f"claim {name!r}: ")
        if missing := [key for key in needed if key not in plan]:
            raise ValueError(f"keys {missing} are missing; add them.")
        if "common" in needed and (missing := sorted(set(NEEDED_IN_COMMON) - set(plan["common"]))):
            raise ValueError(f"keys {missing} of [common] are missing; add them.")
        check_trust(_named_code(plan), source="It", trust=(OWN_PACKAGE, *trust))
        for problem in _problems(plan):
            raise ValueError(problem)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None
    return {"claims": {}, **plan}


def _check(content: Mapping[str, Any], schema: type[Section], where: str = "") -> None:
    try:
        schema.model_validate(content)
    except pydantic.ValidationError as error:
        raise ValueError(f"{where}{explain(error.errors(), schema)}") from None


def candidates(plan: Mapping[str, Any], variant: str, seed: int) -> list[TrainingSpec]:
    """Every candidate of a method of a protocol, for its name and strength.

    Its data set is another one, since paths depend on the machine; where it is fine-tuned, it
    starts from a path "network".

    Args:
        plan: Content of the protocol.
        variant: Name of the method in it.
        seed: Training seed.

    Raises:
        ValueError: If the method cannot be read.

    Example:
        >>> plan = {"methods": {"tuned": "sam:rho=0.1,0.2"}, "start_from": {"tuned": "sgd"}}
        >>> [spec.strength for spec in candidates(plan, "tuned", 0)]
        ['rho=0.1 fine-tuned', 'rho=0.2 fine-tuned']
    """
    common = {**plan.get("common", {}), "dataset": "digits"}
    if variant in plan.get("start_from", {}):
        common = {**common, "start_from": "network"}
    try:
        return grid([plan["methods"][variant]], [seed], common)
    except ValueError as error:
        raise ValueError(f"[methods] {variant}: {error}") from None


def grid_seeds(plan: Mapping[str, Any]) -> list[int]:
    """Training seeds of the grid search; none without one.

    Example:
        >>> grid_seeds({"grid_seed": 100}), grid_seeds({"grid_seed": [100, 101]}), grid_seeds({})
        ([100], [100, 101], [])
    """
    seeds = plan.get("grid_seed", [])
    return seeds if isinstance(seeds, list) else [seeds]


def methods_in(plan: Mapping[str, Any], study: str) -> list[str]:
    """Methods whose networks a study of a protocol evaluates.

    Example:
        >>> plan = {"methods": {"sgd": "sgd", "sam": "sam:rho=0.1"}, "only": {"few.toml": ["sgd"]}}
        >>> methods_in(plan, "few.toml"), methods_in(plan, "study.toml")
        (['sgd'], ['sgd', 'sam'])
    """
    return list(plan.get("only", {}).get(study, plan["methods"]))


def _named_code(plan: Mapping[str, Any]) -> Iterator[str]:
    """Texts of a protocol that may name code."""
    for value in plan.get("common", {}).values():
        yield from (one for one in (value if isinstance(value, list) else [value])
                    if isinstance(one, str))  # fmt: skip
    for text in plan.get("methods", {}).values():
        name, *options = text.split(":")
        yield ":".join([name, *(one for one in options[:1] if "=" not in one)])


def _problems(plan: Mapping[str, Any]) -> Iterator[str]:
    """What contradicts something else, one sentence each."""
    seeds, methods, start_from = (
        plan.get("seeds", []), plan.get("methods", {}), plan.get("start_from", {})
    )  # fmt: skip
    if twice := sorted({seed for seed in seeds if seeds.count(seed) > 1}):
        yield f"seeds has {twice} twice; give each once."
    if other := sorted(set(plan.get("kept_seeds", [])) - set(seeds)):
        yield f"kept_seeds has {other}, which are not in seeds = {seeds}."
    if ("grid_seed" in plan) != ("grid_epochs" in plan):
        yield "grid_seed and grid_epochs belong together; give both, or neither."
    of_grid = grid_seeds(plan)
    if other := sorted(set(of_grid) & set(seeds)):
        yield f"grid_seed has {other}, which are in seeds; strengths are chosen on seeds apart."
    if len(set(of_grid)) < len(of_grid):
        yield f"grid_seed = {of_grid}; give each once."
    studies = plan.get("studies", [])
    places = [str(Path(study).parent) for study in studies]
    if len(set(places)) < len(places):
        yield f"studies = {studies}: each needs a folder of its own, since each has a table."
    if other := sorted(set(plan.get("only", {})) - set(studies)):
        yield f"[only] names {other}, which are not in studies = {studies}."
    asked = plan.get("training_images", {}).get("study")
    if asked is not None and asked not in studies:
        yield f"training_images.study = {asked!r} is not in studies = {studies}."
    named = {"start_from": [*start_from, *start_from.values()],
             "only": [name for some in plan.get("only", {}).values() for name in some]}  # fmt: skip
    for key, names in named.items():
        if other := sorted(set(names) - set(methods)):
            yield f"[{key}] names {other}, which are not in [methods]: {sorted(methods)}."
    if chained := sorted(set(start_from.values()) & set(start_from)):
        yield f"[start_from] starts from {chained}, which start from a network themselves."
    yield from _problems_of_methods(plan)
    numbers = {variant: len(candidates(plan, variant, 0)) for variant in methods}
    if "grid_seed" in plan and len(set(numbers.values()) - {1}) > 1:
        yield (
            f"methods have different numbers of candidate strengths ({numbers}), which favours "
            "those with more; give all as many, or one."
        )


def _problems_of_methods(plan: Mapping[str, Any]) -> Iterator[str]:
    """Methods that cannot be read, or cannot be told apart."""
    first: dict[str, str] = {}
    for variant in plan.get("methods", {}):
        if " " in variant:
            yield f"[methods] {variant!r}: a blank separates method and strength; use '_'."
        text = plan["methods"][variant]
        for key in ("seed", "start_from"):
            if f":{key}=" in text or key in plan.get("common", {}):
                what = "seeds" if key == "seed" else "[start_from]"
                yield f"{key!r} is not an option of [common] or [methods]; use {what}."
        for spec in candidates(plan, variant, 0):
            name = f"{spec.method} {spec.strength}".strip()
            if first.get(name) == variant:
                yield f"[methods] {variant!r} has the candidate {name!r} twice."
            if name in first:
                yield (
                    f"[methods] {first[name]!r} and {variant!r} are both {name!r} in tables, which "
                    "name method and strength; leave one out, or give it a study of its own."
                )
            first[name] = variant
    for variant, start in plan.get("start_from", {}).items():
        if (n := len(candidates(plan, start, 0))) > 1:
            yield (
                f"[start_from] {variant!r} starts from {start!r}, which has {n} strengths; give "
                f"{start!r} one strength, or add a method with one."
            )
