"""Which training methods are robust on analog memory, each at its best strength, on new seeds?

    python experiments/methods_study.py results/mnist-methods

The folder holds `protocol.toml`: methods with candidate strengths, common settings, seeds, and the
studies (TOML files) in which every network is evaluated. First a grid search: every strength, a
fraction of the epochs, a seed (or a list of seeds) that is not used again; the strength with the
best validation accuracy, clean and under generic weight noise, is chosen. Then all methods are
trained seed by seed; a network is evaluated as soon as it is trained. Devices and test images are
not used before `strengths.csv` is written. Without `grid_seed` there is no grid search: every
strength is trained on every seed.

docs/COMMANDS.md has a whole protocol. Finished steps are in the folder and are not repeated, on any
machine; rows that are missing (lost, or of a study that has grown) are computed; `--steps 1` trains
one more network and ends. Started several times, also on machines that share the folder and
`--networks`, the processes train different networks. In `[start_from]`, `samson_tuned = "sgd"`
starts every network of `samson_tuned` from that of `sgd` with the same seed; in `[only]`,
`"../other/study.toml" = ["sgd"]` restricts a study to some methods. Written: `candidates.csv` and
`candidate_curves.csv` (the grid), `strengths.csv` (the chosen strengths), `networks.csv` (trained
networks, with digests), `sharpness.csv`, `training_curves.csv`, `training_images.csv` (chips on
training images), the studies' `trials.csv` and `manifest.json`, and the networks of a few seeds in
`networks/`.
"""

import json
import math
import shutil
import subprocess
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import pandas as pd
import tyro
from torch import Tensor

from analog_samson.checkpoint import Checkpoint, TrainingSpec, load_checkpoint
from analog_samson.commands import run_command
from analog_samson.data import Dataset, path_in
from analog_samson.evaluation import count_correct, score_by_sample
from analog_samson.files import made_folder, replacing
from analog_samson.landscape import sharpness
from analog_samson.locks import EXPIRES_AFTER_S, InUseError, Lease, sole_writer
from analog_samson.provenance import (
    MANIFEST_FILE,
    read_audit,
    read_manifest,
    union,
    write_audit,
    write_json,
)
from analog_samson.report import training_curves
from analog_samson.results import COLUMNS, append_rows, read_trials, tables_in
from analog_samson.results.checking import csv_in, read_networks, read_text_table
from analog_samson.results.columns import DIGEST_LENGTH, KEY
from analog_samson.results.definitions import first_difference
from analog_samson.results.endpoints import DIGITAL, other_study, with_minus
from analog_samson.study import TRIALS_FILE, Study, collect, load_study
from analog_samson.study.definition import SETTING
from analog_samson.study.scoring import function_of, is_counted
from analog_samson.study.trial import mapped, one_thread
from analog_samson.times import seconds
from analog_samson.training import (
    GRID_COLUMNS,
    OWN_PACKAGE,
    PROTOCOL_FILE,
    DivergedError,
    choose_strengths,
    grid,
    grid_seeds,
    load_protocol,
    methods_in,
    tests_of,
    train,
    train_grid,
)
from analog_samson.training.control import CONTROL
from analog_samson.training.loop import dataset_of

OLD_COLUMNS = {
    "networks.csv": {"n_images": "n_test"},
    "sharpness.csv": {"n_images": "n_training_images"},
    "training_images.csv": {"axes": "condition"},
}
"""Tables of unfinished studies may have columns of earlier names."""

IDENTITY = ("digest", "n_correct_digital", "n_test", "package")
"""Columns of `networks.csv` that `identity` gives; empty where the training failed."""

LOOKED_EVERY_S = 2.0
"""How often a process that waits for others looks whether they have finished."""

WRITING_TAKES_S = 2 * EXPIRES_AFTER_S
"""How long a table is waited for that another process writes: longer than one that has ended."""

SETTINGS = ("common", "grid_epochs", "noise_sigma", "noise_draws", "start_from")
"""Keys of the protocol that may not change while it is worked on; seeds, methods may be added."""

EVALUATED_WITH = ("sharpness_images", "training_images")
"""Keys of the protocol that networks are evaluated with, which may not change either."""

MEASURED = ("noise_sigma", "noise_draws")
"""How candidates are measured: columns of `candidates.csv` and keys of the protocol."""

SAME_ROWS = ("seed", "n_images_per_chip", "n_test", "score", "precision", "refresh_every",
             "compensation_times")  # fmt: skip
"""Settings of a study that all its rows share."""

NEEDED = ("seeds", "kept_seeds", "noise_sigma", "noise_draws", "common", "methods")
"""Keys of the protocol that every study needs."""


def main(
    folder: Annotated[Path, tyro.conf.Positional],
    networks: Path = Path("checkpoints"),
    data_folder: Path | None = None,
    steps: int | None = None,
    trust: tuple[str, ...] = (),
) -> None:
    """Train and evaluate the missing networks of a study of methods.

    Args:
        folder: Folder of the study, with `protocol.toml`.
        networks: Folder for networks and unfinished trainings.
        data_folder: Folder that holds the images.
        steps: Number of networks to train; all by default.
        trust: Packages that networks, methods, data and scores may be imported from.
    """
    plan = load_protocol(folder, [*NEEDED, "studies", "sharpness_images"], trust)
    _check_studies(plan, folder, trust)
    run_study(
        plan,
        folder,
        networks,
        data_folder,
        steps,
        trust,
        evaluated_with=EVALUATED_WITH,
        train=trained,
        evaluate=_evaluated,
    )


def run_study(
    plan: dict[str, Any],
    folder: Path,
    networks: Path,
    data_folder: Path | None,
    steps: int | None,
    trust: Sequence[str] = (),
    *,
    evaluated_with: Sequence[str],
    train: Callable[[dict[str, Any], TrainingSpec, Path, Path | None], dict[str, Any]],
    evaluate: Callable[[dict[str, Any], Path, Path, Path | None], dict[str, Any]],
) -> None:
    """Choose strengths, then train and evaluate network by network; arguments as for `main`.

    Args:
        plan: The protocol.
        folder: See `main`.
        networks: See `main`.
        data_folder: See `main`.
        steps: See `main`.
        trust: See `main`.
        evaluated_with: Keys of the protocol that ``evaluate`` takes; `add_protocol` writes them
            into a manifest.
        train: Called with the protocol, a specification and the folder of its variant; returns a
            row of `candidates.csv` or `networks.csv`.
        evaluate: Called with the protocol, the study's folder and a checkpoint, which lies in a
            folder of its variant's name; writes its tables and returns more columns of the row.

    Raises:
        ValueError: If the number of steps is not positive, or the folder holds networks of another
            protocol.
        InUseError: If another process does not end writing a table.
    """
    if steps is not None and steps < 1:
        raise ValueError(f"--steps must be at least 1; got {steps}.")
    made_folder(folder, "folder of the study")
    networks = networks / folder.resolve().name
    common = dict(plan["common"])
    if "dataset" in common:
        common["dataset"] = path_in(common["dataset"], data_folder)
    own = {"folder": folder, "networks": networks, "trust": (OWN_PACKAGE, *trust), "as_read": plan}
    own |= {"evaluated_with": evaluated_with}
    _run({**plan, **own, "common": common}, folder, data_folder, steps, train, evaluate)


def _run(
    plan: dict[str, Any],
    folder: Path,
    data_folder: Path | None,
    steps: int | None,
    train: Callable[..., dict[str, Any]],
    evaluate: Callable[..., dict[str, Any]],
) -> None:
    networks = plan["networks"]
    _check_unchanged(plan, folder)

    def train_candidate(variant: str, spec: TrainingSpec) -> dict[str, Any]:
        path = networks / "grid" / variant
        row = train(plan, spec, path, data_folder)
        if not row["failure"]:
            checkpoint = path / row["checkpoint"]
            add_curves(folder / "candidate_curves.csv", checkpoint, plan["trust"])
        return row | {"epochs": spec.epochs}

    def train_network(variant: str, spec: TrainingSpec) -> dict[str, Any]:
        path = networks / variant
        row = train(plan, spec, path, data_folder)
        row |= dict.fromkeys(IDENTITY, "")
        if not row["failure"]:
            row |= evaluate(plan, folder, path / row["checkpoint"], data_folder)
        return row

    left = -1 if steps is None else steps
    left = _shared(plan, folder / "candidates.csv", grid_specs(plan), train_candidate, left)
    if not left:
        return
    strengths = folder / "strengths.csv"
    if "grid_seed" in plan:
        _choose_missing(folder / "candidates.csv", strengths)
    wanted = chosen_specs(plan, strengths) if strengths.exists() else all_specs(plan)
    left = _shared(
        plan, folder / "networks.csv", wanted, train_network, left, lambda: _lacking(plan, folder)
    )
    failed = _failed(folder / "networks.csv")
    if left:
        print(f"{folder}: finished, {len(wanted)} networks{failed}.")


def _choose_missing(candidates: Path, strengths: Path) -> None:
    """Choose strengths of the variants that have none yet; those that are chosen stay."""
    with writing(strengths):
        chosen = choose(candidates)
        if strengths.exists():
            there = read_text_table(strengths, ["variant", "strength"])
            new = chosen[~chosen["variant"].isin(there["variant"])]
            if new.empty:
                return
            chosen = pd.concat([there, new], ignore_index=True)
        _write(chosen, strengths)


def _shared(
    plan: dict[str, Any],
    table: Path,
    wanted: Sequence[tuple[str, TrainingSpec]],
    work: Callable[[str, TrainingSpec], dict[str, Any]],
    left: int,
    lacking: Callable[[], set[tuple[str, str, str]]] = set,
) -> int:
    """Add the rows that a table lacks, each by one of the processes that work on the study.

    Args:
        plan: The protocol.
        table: The table.
        wanted: Variants and trainings that it must have.
        work: Trains one; returns its row.
        left: How many this process may still train; negative: all.
        lacking: Gives the trainings whose row is there, but not all that belongs to it.

    Returns:
        How many it may train after these. Those that other processes train are waited for.

    Raises:
        ValueError: If settings of the protocol have changed since networks were trained, or since
            this process started.
    """
    folder, again, told = table.parent, lacking(), ""
    while open_ := _not_in(table, wanted, again):
        n_before, held = left, ""
        for variant, spec in open_:
            if not left:
                return left
            try:
                claim = Lease(_claim_of(folder, variant, spec))
            except InUseError as error:
                held = held or str(error).partition(";")[0]
                continue
            with claim:
                if _key(variant, spec) in again:
                    again &= lacking()  # another process may have made it meanwhile
                if _not_in(table, [(variant, spec)], again):
                    _check_unchanged(plan, folder)
                    _add_row(table, variant, work(variant, spec))
                    print(
                        f"{table}: {' '.join(filter(None, _key(variant, spec)[:2]))} of seed "
                        f"{spec.seed}, {len(_done(table))} of {len(wanted)}.",
                        flush=True,
                    )
                    again.discard(_key(variant, spec))
                    left -= 1
        if left == n_before:
            if held and held != told:
                print(f"{folder}: waiting for networks of other processes: {held}.")
                told = held
            time.sleep(LOOKED_EVERY_S)
    return left


@contextmanager
def _waited_for(claim: Path) -> Iterator[None]:
    """Hold a claim as soon as no other process does; says whom it waits for."""
    with ExitStack() as stack:
        try:
            stack.enter_context(sole_writer(claim))
        except InUseError as error:
            print(f"Waiting for a network to start from: {str(error).partition(';')[0]}.")
            stack.enter_context(sole_writer(claim, wait_s=math.inf))
        yield


def _not_in(
    table: Path, wanted: Sequence[tuple[str, TrainingSpec]], again: set[tuple[str, str, str]]
) -> list[tuple[str, TrainingSpec]]:
    """The trainings without a row, or whose row is made again."""
    done = _done(table) - again
    return [one for one in wanted if _key(*one) not in done]


def _claim_of(folder: Path, variant: str, spec: TrainingSpec) -> Path:
    """What a process holds while it trains a network."""
    return folder / f"{variant}-{spec.file_stem}"


@contextmanager
def writing(table: Path) -> Iterator[None]:
    """Sole access to a table of a study, which is waited for.

    Raises:
        InUseError: If another process does not end writing it.
    """
    with ExitStack() as stack:
        try:
            stack.enter_context(sole_writer(table, wait_s=WRITING_TAKES_S))
        except InUseError as error:
            raise InUseError(
                f"{str(error).partition(';')[0]}, for {WRITING_TAKES_S / 60:.3g} minutes; wake "
                "that process or end it, and start this again: what is trained is kept."
            ) from None
        yield


def _failed(table: Path) -> str:
    """How many trainings failed, in words."""
    failures = _read(table)["failure"] if table.exists() else pd.Series([], dtype=str)
    n = int((failures != "").sum())
    return f", {n} of which failed (column failure of networks.csv)" if n else ""


def _check_studies(plan: dict[str, Any], folder: Path, trust: Sequence[str]) -> None:
    """Read the studies before anything is trained.

    Raises:
        FileNotFoundError: If a study file is missing.
        ValueError: If one cannot be read, or chips for training images are not among its chips.
    """
    studies = {name: load_study(folder / name, trust, checkpoints=[]) for name in plan["studies"]}
    times: dict[str, set[float]] = {}
    for study in studies.values():
        for device in study.loaded_devices():
            given = study.times_s
            own = given.get(device.name, ()) if isinstance(given, Mapping) else given
            times.setdefault(device.name, set()).update(map(float, own))
    for claim, test in tests_of(folder, plan):
        try:
            _check_setting(test, times)
            if "minus" in test and other_study(test) is None:
                _check_setting(with_minus(test), times)
        except ValueError as error:
            raise ValueError(f"{folder / PROTOCOL_FILE}: claim {claim!r}: {error}") from None
    if asked := plan.get("training_images"):
        study = studies[asked["study"]]
        devices = [device.name for device in study.loaded_devices()]
        if asked["device"] not in devices or asked["n_chips"] > study.n_chips:
            raise ValueError(
                f"[training_images] asks for {asked['n_chips']} chips of {asked['device']!r}; "
                f"{asked['study']} has {study.n_chips} chips of {devices}."
            )


def _check_setting(test: Mapping[str, Any], times: Mapping[str, set[float]]) -> None:
    """Raise ValueError if no study simulates the device of a test, or not at its time."""
    device = test.get("device", DIGITAL)
    if device == DIGITAL:
        return
    if device not in times:
        raise ValueError(f"no study has the device {device!r}; there are {sorted(times)}.")
    time_s = test.get("time_s")
    if time_s is not None and not any(
        math.isclose(seconds(time_s), time, rel_tol=1e-9) for time in times[device]
    ):
        raise ValueError(
            f"no study has {device!r} at {time_s!r}; there are {sorted(times[device])} s."
        )


def _check_unchanged(plan: dict[str, Any], folder: Path) -> None:
    """Raise ValueError if networks were trained or evaluated with other settings than asked."""
    _check_protocol(plan, folder)
    _check_candidates(plan, folder)
    for name in plan.get("studies", []):
        _check_definitions(load_study(folder / name, plan["trust"], checkpoints=[]), folder / name)
    table = folder / "networks.csv"
    if not table.exists():
        return
    networks = _read(table)
    digests = dict(zip(_keys(networks), networks["digest"], strict=True))
    settings: dict[str, Any] = {}
    for name in plan.get("studies") or [folder.name]:
        manifest = read_manifest((folder / name).with_name(MANIFEST_FILE))
        _check_evaluated_with(plan, manifest, folder)
        settings |= {one["digest"]: one["spec"] for one in manifest.get("checkpoints", {}).values()}
    for variant, spec in all_specs(plan):
        theirs = settings.get(digests.get(_key(variant, spec), ""), {})
        ours = json.loads(spec.to_json())
        differ = [
            f"{key} {value!r} there, {ours[key]!r} asked" for key, value in theirs.items()
            if key in ours and key not in ("dataset", "start_from") and value != ours[key]
        ]  # fmt: skip
        if differ:
            raise ValueError(
                f"{folder}: {variant} of seed {spec.seed} was trained with other settings "
                f"({'; '.join(differ)}); restore protocol.toml, or give it a folder of its own."
            )


def _check_evaluated_with(
    plan: Mapping[str, Any], manifest: Mapping[str, Any], folder: Path
) -> None:
    """Raise ValueError if networks of a manifest were evaluated with other settings than asked."""
    there, asked = manifest.get("protocol"), _evaluated_with(plan)
    if there is not None and there != asked:
        raise ValueError(
            f"{folder}: networks were evaluated with other settings of {PROTOCOL_FILE} "
            f"({first_difference(there, asked)}); restore it, or give it a folder of its own."
        )


def _check_definitions(study: Study, toml: Path) -> None:
    """Raise ValueError if rows that are there are of other devices or settings of one name."""
    manifest = read_manifest(toml.with_name(MANIFEST_FILE))
    digests, known = manifest.get("device_digests", {}), manifest.get("devices", {})
    for device in study.loaded_devices():
        if digests.get(device.name, device.digest) != device.digest:
            now = json.loads(device.model_dump_json())
            raise ValueError(
                f"{toml}: the device {device.name!r} has changed since the rows of this study were "
                f"computed ({first_difference(known.get(device.name, {}), now)}); restore it, or "
                "give the changed device another name."
            )
    before = manifest.get("study", {})
    if not before:
        return
    asked = {key: getattr(study, key) for key in SAME_ROWS} | {"axes": sorted(study.axes)}
    there = {key: before.get(key) for key in SAME_ROWS} | {"axes": sorted(before.get("axes", {}))}
    there, asked = (json.loads(json.dumps(one, default=str)) for one in (there, asked))
    if there != asked:
        raise ValueError(
            f"{toml}: rows of this study were computed with other settings "
            f"({first_difference(there, asked)}); restore it, or add a study with a folder of its "
            "own to `studies`."
        )


def _check_protocol(plan: dict[str, Any], folder: Path) -> None:
    """Raise ValueError if settings of the protocol changed since this process started."""
    now = load_protocol(folder, trust=plan["trust"])
    keys = (*SETTINGS, *plan["evaluated_with"])
    differ = [key for key in keys if now.get(key) != plan["as_read"].get(key)]
    if differ:
        raise ValueError(
            f"{folder}: {', '.join(differ)} of {PROTOCOL_FILE} changed since this process started; "
            "restore it, or start again, with a folder of its own for other networks."
        )


def _check_candidates(plan: dict[str, Any], folder: Path) -> None:
    """Raise ValueError if candidates were trained for other epochs, or measured otherwise."""
    table, strengths = folder / "candidates.csv", folder / "strengths.csv"
    if not table.exists() or "grid_seed" not in plan:
        return
    rows = _read(table)
    asked = {_key(variant, spec): str(spec.epochs) for variant, spec in grid_specs(plan)}
    if strengths.exists():
        chosen = set(read_text_table(strengths, ["variant"])["variant"])
        for variant, strength, seed in sorted(set(asked) - set(_keys(rows))):
            if variant in chosen:
                raise ValueError(
                    f"{strengths}: {variant} was chosen without its candidate {strength or '–'!r} "
                    f"of seed {seed}; restore {PROTOCOL_FILE} or {table.name}, or give the study a "
                    "folder of its own."
                )
    for key, row in zip(_keys(rows), rows.to_dict("records"), strict=True):
        own = {"epochs": asked.get(key, ""), **{name: plan[name] for name in MEASURED}}
        differ = [
            f"{name} {row[name]} there, {value} asked" for name, value in own.items()
            if row.get(name, "") != "" and value != "" and float(row[name]) != float(value)
        ]  # fmt: skip
        if differ:
            raise ValueError(
                f"{table}: {' '.join(filter(None, key[:2]))} of seed {key[2]} has other settings "
                f"({'; '.join(differ)}); restore {PROTOCOL_FILE}, or give it a folder of its own."
            )


def grid_specs(plan: dict[str, Any]) -> list[tuple[str, TrainingSpec]]:
    """Every candidate of every method, trained for the grid's epochs with the grid's seeds."""
    return [one for seed in grid_seeds(plan) for one in _specs(plan, seed, plan["grid_epochs"])]


def all_specs(plan: dict[str, Any]) -> list[tuple[str, TrainingSpec]]:
    """Every candidate of every method, seed by seed, without a choice."""
    epochs = plan["common"]["epochs"]
    return [one for seed in plan["seeds"] for one in _specs(plan, seed, epochs)]


def _lacking(plan: dict[str, Any], folder: Path) -> set[tuple[str, str, str]]:
    """Networks of the table that lack rows in a study: some were lost, or it has grown."""
    table = folder / "networks.csv"
    networks = _read(table) if table.exists() else pd.DataFrame(columns=["variant"])
    lacking = set()
    for name in plan.get("studies", []) if len(networks) else []:
        study = load_study(folder / name, plan["trust"], checkpoints=[])
        there = (folder / name).parent
        is_asked = networks["variant"].isin(methods_in(plan, name))
        own = networks[is_asked & (networks["failure"] == "")]
        asked = Counter(study.settings_of_rows())
        rows = read_trials(there) if tables_in(there) else pd.DataFrame(columns=COLUMNS)
        n_rows = rows.groupby(["checkpoint", *SETTING]).size().to_dict()
        is_lacking = [
            any(n_rows.get((digest, *one), 0) < n for one, n in asked.items())
            for digest in own["digest"].str[:DIGEST_LENGTH]
        ]
        lacking |= set(_keys(own[is_lacking]))
    return lacking


def _keys(networks: pd.DataFrame) -> list[tuple[str, str, str]]:
    """What identifies a network in a table: variant, strength, training seed."""
    names = (networks[name] for name in ("variant", "strength", "training_seed"))
    return list(zip(*names, strict=True))


def choose(table: Path) -> pd.DataFrame:
    """Choose every method's strength on the validation images, as `train_methods.py` does."""
    rows = read_text_table(table)
    for name in ("validation_clean", "validation_noisy"):
        rows[name] = pd.to_numeric(rows[name], errors="coerce")
        if (wrong := rows[name].isna() & (rows["failure"] == "")).any():
            raise ValueError(f"{table}, line {int(wrong.argmax()) + 2}, has no {name}; delete it.")
    return pd.concat(
        [
            choose_strengths(group.drop(columns="variant")).assign(variant=variant)
            for variant, group in rows.groupby("variant", sort=False)
        ],
        ignore_index=True,
    )


def chosen_specs(plan: dict[str, Any], strengths: Path) -> list[tuple[str, TrainingSpec]]:
    """Trainings with the chosen strengths, seed by seed, with all methods of a seed."""
    table = read_text_table(strengths, ["variant", "strength"])
    chosen = dict(zip(table["variant"], table["strength"], strict=True))
    wanted = [one for one in all_specs(plan) if one[1].strength == chosen.get(one[0])]
    if missing := sorted(set(plan["methods"]) - {variant for variant, _ in wanted}):
        raise ValueError(
            f"{strengths}: no strength of {missing} that protocol.toml has; restore protocol.toml, "
            f"or remove {strengths.name} to choose again."
        )
    return wanted


def _specs(plan: dict[str, Any], seed: int, epochs: int) -> list[tuple[str, TrainingSpec]]:
    common = plan["common"] | {"epochs": epochs}
    return [
        (variant, spec)
        for variant, text in plan["methods"].items()
        for spec in grid([text], [seed], common | _start_of(plan, variant, seed))
    ]


def _start_of(plan: dict[str, Any], variant: str, seed: int) -> dict[str, str]:
    """The network that a training starts from, which is trained in full even for the grid."""
    first = plan.get("start_from", {}).get(variant)
    if first is None:
        return {}
    spec = _first_of(plan, first, seed)
    return {"start_from": str(plan["networks"] / first / f"{spec.file_stem}.safetensors")}


def _first_of(plan: dict[str, Any], first: str, seed: int) -> TrainingSpec:
    """The training of the network that others start from, which has one strength."""
    (spec,) = grid([plan["methods"][first]], [seed], plan["common"])
    return spec


def trained(
    plan: dict[str, Any], spec: TrainingSpec, path: Path, data_folder: Path | None
) -> dict[str, Any]:
    """Train a network, and measure it on validation images under generic weight noise."""
    if spec.start_from is not None:
        first = Path(spec.start_from).parent
        start = _first_of(plan, first.name, spec.seed)
        try:
            with _waited_for(_claim_of(plan["folder"], first.name, start)):
                train(start, first, data_folder=data_folder, trust=plan["trust"])
        except DivergedError as error:
            return _not_started(spec, f"The network to start from: {error}", data_folder)
    table = train_grid(
        [spec],
        path,
        noise_sigma=plan["noise_sigma"],
        noise_draws=plan["noise_draws"],
        data_folder=data_folder,
        trust=plan["trust"],
    )
    return dict(table.iloc[0])


def _not_started(spec: TrainingSpec, failure: str, data_folder: Path | None) -> dict[str, Any]:
    """Row of a training whose first network diverged."""
    known = {
        "dataset": dataset_of(spec.dataset, data_folder, spec.validation_fraction).name,
        "model": spec.model,
        "method": spec.method,
        "strength": spec.strength,
        "training_seed": spec.seed,
        "failure": failure,
    }
    return dict.fromkeys(GRID_COLUMNS, "") | known


def _evaluated(
    plan: dict[str, Any], folder: Path, path: Path, data_folder: Path | None
) -> dict[str, Any]:
    """Evaluate a network in all studies; every file is replaced or appended to as a whole."""
    network = load_checkpoint(path, plan["trust"])
    digest = network.short_digest
    if network.spec.seed in plan["kept_seeds"]:
        keep(path, folder)
    for name in plan["studies"]:
        if path.parent.name in methods_in(plan, name):
            _collect(folder / name, path, data_folder, plan)
    add_curves(folder / "training_curves.csv", path, plan["trust"])
    dataset = dataset_of(network.spec.dataset, data_folder, network.spec.validation_fraction)
    sharp = sharpness(network, dataset, n_training_images=plan["sharpness_images"])
    replace_rows(folder / "sharpness.csv", digest, pd.DataFrame([sharp]))
    if "training_images" in plan:
        on_training = _on_training_images(plan, folder, path, dataset, data_folder)
        replace_rows(folder / "training_images.csv", digest, on_training)
    return identity(network)


def keep(path: Path, folder: Path) -> None:
    """Copy a checkpoint, with its control parameters if there are any, into a study's folder."""
    (folder / "networks").mkdir(exist_ok=True)
    for file in (path, path.with_suffix(CONTROL)):
        if file.exists():
            _copy(file, folder / "networks" / file.name)


def _copy(file: Path, to: Path) -> None:
    with replacing(to) as temporary:
        shutil.copyfile(file, temporary)


def identity(network: Checkpoint) -> dict[str, Any]:
    """Columns of `networks.csv` that identify a network."""
    return {
        "digest": network.digest,
        "n_correct_digital": network.n_correct_digital,
        "n_test": network.n_test,
        "package": _package_tree(),
    }


def _collect(toml: Path, path: Path, data_folder: Path | None, plan: dict[str, Any]) -> None:
    """Evaluate a network in a folder beside the study; then add its rows and manifest."""
    part, study = path.parent / toml.parent.resolve().name / path.stem, toml.parent
    asked = load_study(toml, plan["trust"], checkpoints=[path])
    asked = replace(asked, data_folder=data_folder)
    _check_definitions(asked, toml)
    rows = collect(asked, part)
    with writing(study / TRIALS_FILE):
        _add_rows_of(part, rows, study, plan)


def _add_rows_of(part: Path, rows: pd.DataFrame, study: Path, plan: dict[str, Any]) -> None:
    """Add rows, and the manifest and tables that stand beside them."""
    if tables_in(study):  # also one that is compressed
        there = read_trials(study).set_index(list(KEY)).index
        rows = rows[~rows.set_index(list(KEY)).index.isin(there)]
    append_rows(rows, study / TRIALS_FILE)
    whole = study / MANIFEST_FILE
    manifest = read_manifest(part / MANIFEST_FILE)
    if whole.exists():
        manifest = union(manifest, [read_manifest(whole)])
        manifest["environments"] = _different(manifest["environments"])
    write_json(whole, manifest | _of_protocol(plan))
    for file in part.glob("device_*.csv"):
        if not (study / file.name).exists():
            _copy(file, study / file.name)
    audit, own = read_audit(study), read_audit(part)  # all networks have one architecture
    more = own[~own["device"].isin(audit["device"])]
    write_audit(study, [dict(row) for _, row in more.iterrows()], audit)


def add_protocol(path: Path, plan: Mapping[str, Any]) -> None:
    """Write the claims of a protocol, and what networks are evaluated with, into a manifest."""
    write_json(path, read_manifest(path) | _of_protocol(plan))


def _of_protocol(plan: Mapping[str, Any]) -> dict[str, Any]:
    return {"claims": plan["claims"], "protocol": _evaluated_with(plan)}


def _evaluated_with(plan: Mapping[str, Any]) -> dict[str, Any]:
    return {key: plan[key] for key in plan["evaluated_with"] if key in plan}


def _different(environments: list[dict[str, str]]) -> list[dict[str, str]]:
    """Environments that differ in more than the commit."""
    kinds = {
        json.dumps(one | {"git_commit": ""}, sort_keys=True): one for one in environments[::-1]
    }
    return list(kinds.values())[::-1]


def _on_training_images(
    plan: dict[str, Any],
    folder: Path,
    path: Path,
    dataset: Dataset,
    data_folder: Path | None,
) -> pd.DataFrame:
    """Score of some chips of a study on training images, to compare with test images."""
    asked = plan["training_images"]
    images = dataset.train.images[: asked["n_images"]]
    labels = dataset.train.labels[: asked["n_images"]]
    study = replace(
        load_study(folder / asked["study"], plan["trust"], checkpoints=[path]),
        data_folder=data_folder,
        n_chips=asked["n_chips"],
    )
    rows = []
    with one_thread():
        for trial in study.trials():
            if trial.device.name != asked["device"]:
                continue
            chip = mapped(trial).program(trial.programming_seed)
            for time, read in trial.points:
                forward = chip.drift_to(time, read)
                measured = _measured(study.score, forward, images, labels, dataset.normalise)
                rows.append(
                    {"checkpoint": trial.checkpoint[:DIGEST_LENGTH], "chip_id": trial.chip_id,
                     "device": trial.device.name, "condition": trial.condition, "chip": trial.chip,
                     "t_inference_s": time, **measured, "n_training_images": len(labels)}
                )  # fmt: skip
    return pd.DataFrame(rows)


def _measured(
    score: str,
    forward: Callable[[Tensor, int], Tensor],
    images: Tensor,
    labels: Tensor,
    normalise: Callable[[Tensor], Tensor],
) -> dict[str, float]:
    """Correct predictions, or the sum of another score, of training images."""
    if is_counted(score):
        return {"n_correct_training": count_correct(forward, images, labels, normalise)}
    values = score_by_sample(function_of(score), forward, images, labels, normalise, name=score)
    return {"score": score, "sum_training": float(values.sum())}


def add_curves(table: Path, path: Path, trust: Sequence[str] = ()) -> None:
    """Add the training log of a network."""
    network = load_checkpoint(path, trust)
    curves = training_curves([path.with_suffix(".csv")], [network.spec.method])
    digest = network.short_digest
    replace_rows(table, digest, curves.assign(checkpoint=digest))


def _package_tree() -> str:
    """Git's hash of the package's files at this commit."""
    if shutil.which("git") is None:
        return ""
    command = ["git", "rev-parse", "--verify", "--quiet", "HEAD:analog_samson"]
    answer = subprocess.run(command, cwd=Path(__file__).parents[1], capture_output=True, text=True)
    return answer.stdout.strip() if answer.returncode == 0 else ""


def _done(table: Path) -> set[tuple[str, str, str]]:
    """Networks of a table."""
    return set(_keys(_read(table))) if table.exists() else set()


def _key(variant: str, spec: TrainingSpec) -> tuple[str, str, str]:
    """What identifies a training in a table, as `_keys`."""
    return variant, spec.strength, str(spec.seed)


def _add_row(table: Path, variant: str, row: dict[str, Any]) -> None:
    """Add the row of a network, which replaces an earlier one of it."""
    new = pd.DataFrame([{"variant": variant} | row], dtype=object)
    with writing(table):
        there = []
        if table.exists():
            before = _read(table)
            key = variant, row["strength"], str(row["training_seed"])
            there = [before[[one != key for one in _keys(before)]]]
        _write(pd.concat([*there, new], ignore_index=True), table)


def replace_rows(table: Path, digest: str, rows: pd.DataFrame) -> None:
    """Add the rows of a network, replacing those of an interrupted run.

    A compressed table is written as it is from then on, without compression.
    """
    with writing(table):
        if file := csv_in(table.parent, table.name):
            there = _read(file)
            rows = pd.concat([there[there["checkpoint"] != digest], rows], ignore_index=True)
        _write(rows, table)
        table.with_name(f"{table.name}.gz").unlink(missing_ok=True)


def _read(table: Path) -> pd.DataFrame:
    rows = read_networks(table) if table.name == "networks.csv" else read_text_table(table)
    return rows.rename(columns=OLD_COLUMNS.get(table.name.removesuffix(".gz"), {}))


def _write(rows: pd.DataFrame, table: Path) -> None:
    with replacing(table) as temporary:
        rows.to_csv(temporary, index=False)


if __name__ == "__main__":
    run_command(main)
