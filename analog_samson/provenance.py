"""Provenance of a table: versions, machine, devices, networks and data, as files beside it."""

import json
import math
import platform
import subprocess
from collections import defaultdict
from collections.abc import Container, Iterable, Mapping, Sequence
from importlib import metadata
from pathlib import Path
from types import MappingProxyType
from typing import Any

import pandas as pd
import torch
from torch import nn

from analog_samson import models
from analog_samson.analog import Tile, TiledNetwork, TilesOfGroups
from analog_samson.checkpoint import Checkpoint
from analog_samson.chip import Engine, input_for
from analog_samson.compiled import Array, FunctionalLayer, is_traced_for, kernels
from analog_samson.data import DATASETS, label_of
from analog_samson.devices import Device
from analog_samson.files import replacing
from analog_samson.locks import is_in_use
from analog_samson.results import Score
from analog_samson.results.columns import DIGEST_LENGTH
from analog_samson.times import YEAR

MANIFEST_FILE = "manifest.json"
AUDIT_FILE = "audit.csv"

TOLERANCE_ELSEWHERE = 5 / 10_000
"""Largest share of images that may differ on another processor or with other versions; of a sum
its difference, relative to the number of samples times the root of their mean square."""

_PACKAGES = ("analog-samson", "aihwkit", "torch", "numpy", "pandas", "scipy")

AUDIT_COLUMNS = (
    "checkpoint",
    "device",
    "layer",
    "kind",
    "n_weights",
    "analog",
    "reason",
    "n_arrays",
    "array_rows",
    "array_columns",
    "unused_columns",
    "largest_weight",
    "input_range",
    "n_parameters",
    "parameter_share",
    "n_multiplications",
    "multiplication_share",
    "traced",
)
"""Columns of ``audit.csv``: one row per layer of a network on a device."""


def environment(accelerator: str = "cpu") -> dict[str, str]:
    """Versions, kernels and kind of machine; with these equal, rows are equal byte for byte."""
    found = {
        "python": platform.python_version(),
        "machine": platform.machine(),
        "processor": _cpu(),
    }
    for package in _PACKAGES:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            found[package] = "not installed"
    found["kernels"] = "torch" if kernels.library() is None else "C"
    if accelerator == "cuda":
        found |= {"kernels": "torch", "accelerator": torch.cuda.get_device_name()}
    found["git_commit"] = _git_commit()
    return found


def write_manifest(
    folder: Path,
    *,
    study: Mapping[str, Any],
    devices: Iterable[Device],
    networks: Mapping[str, Checkpoint],
    evaluation_sets: Mapping[str, str],
    scores: Mapping[str, Score] = MappingProxyType({}),
    encodings: Mapping[str, str] = MappingProxyType({}),
    part: str = "",
    rows: pd.DataFrame | None = None,
) -> None:
    """Write the definition of a study to ``manifest.json``, and that of a part to its own manifest.

    Existing entries are kept: environments that added rows; networks and devices with rows, or that
    another process is computing; primary endpoints, each with the number of rows that were there
    when it was named (``primary_endpoints``: a later one is a change). The caller holds
    ``sole_writer`` of the manifest.

    Args:
        folder: Folder of the study.
        study: The fields of the study, as JSON types.
        devices: Devices as defined in their files, before axes are applied.
        networks: File name to trained network.
        evaluation_sets: Data set to the SHA-256 of its test images.
        scores: Name of the study's score to the score, if it is not accuracy.
        encodings: Data set to the encoding of its images, if that loses information.
        part: The part of the study that this process computes, such as "part3of16".
        rows: Rows of all tables in the folder; None if there are none.

    Raises:
        OSError: If the folder cannot be written.
        ValueError: If an existing manifest cannot be read, belongs to another study that a process
            is computing, or defines a device of the same name differently.
    """
    path = folder / MANIFEST_FILE
    own_path = manifest_of(folder, part)
    own: dict[str, Any] = {
        "study": dict(study),
        "environments": [environment(study.get("accelerator", "cpu"))],
        "year_s": int(YEAR),
        "devices": {device.name: json.loads(device.model_dump_json()) for device in devices},
        "device_digests": {device.name: device.digest for device in devices},
        "checkpoints": {
            name: {
                "digest": network.digest,
                "spec": json.loads(network.spec.to_json()),
                "input_ranges": dict(network.input_ranges),
                "keep_digital": list(network.keep_digital),
                "accuracy_digital": network.accuracy_digital,
                "n_classes": network.n_classes,
            }
            for name, network in networks.items()
        },
        "methods": {
            network.spec.method: network.spec.entry.description for network in networks.values()
        },
        "evaluation_sets": dict(evaluation_sets),
        "datasets": {
            name: {"label": _label(name, encodings.get(name, "")), "shipped": name in DATASETS}
            for name in evaluation_sets
        },
    }
    if scores:
        own["scores"] = {name: score.description for name, score in scores.items()}
    if "primary" in study:
        n_rows = 0 if rows is None else len(rows)
        own["primary_endpoints"] = [{**study["primary"], "rows_before": n_rows}]
    others = [
        _kept(read_manifest(file), file, table_of(own_path), study["name"], rows)
        for file in [path, *sorted(folder.glob("manifest-part*of*.json"))]
        if file != own_path or not part
    ]
    if part:
        own["environments"] = _distinct(
            [*read_manifest(own_path).get("environments", []), *own["environments"]]
        )
        write_json(own_path, own)
    write_json(path, union(own, others))


def _label(dataset: str, encoding: str) -> str:
    """What a data set is called; a copy of a published one that lost information says so."""
    return f"{dataset} ({encoding})" if dataset in DATASETS and encoding else label_of(dataset)


def read_manifest(path: Path) -> dict[str, Any]:
    """Contents of a manifest; empty if there is none.

    Raises:
        ValueError: If it is damaged.
    """
    if not path.exists():
        return {}
    try:
        return dict(json.loads(path.read_text(encoding="utf-8")))
    except (ValueError, TypeError) as error:
        raise ValueError(
            f"{str(path)!r} cannot be read ({error}); move it away or restore it, then start again."
        ) from error


def package_tree() -> str:
    """Git's hash of the package's files at this commit; empty outside of its repository.

    Example:
        >>> package_tree() == "" or len(package_tree()) == 40
        True
    """
    return _git("rev-parse", "--verify", "--quiet", "HEAD:./")


def is_made_here(folder: Path) -> bool:
    """Whether all rows of a study come from this processor and these versions.

    Args:
        folder: Folder of the study, with its manifest.

    Example:
        >>> from analog_samson import Study, collect
        >>> from analog_samson.checkpoint import TrainingSpec
        >>> from analog_samson.training import train
        >>> network = train(TrainingSpec(dataset="digits", epochs=1), "networks")
        >>> made = collect(Study("example", [network], ["pcm_like"], [1.0], n_chips=2), "results")
        >>> is_made_here(Path("results")), is_made_here(Path("elsewhere"))
        (True, False)
    """
    here = environment() | {"git_commit": ""}
    there = read_manifest(folder / MANIFEST_FILE).get("environments", [])
    return bool(there) and all(one | {"git_commit": ""} == here for one in there)


def manifest_of(folder: Path, part: str = "") -> Path:
    """The manifest of a study, or of a part of it such as "part3of16"."""
    return folder / (f"manifest-{part}.json" if part else MANIFEST_FILE)


def table_of(manifest: Path) -> Path:
    """The table of trials that a manifest belongs to."""
    return manifest.with_name(manifest.name.replace("manifest", "trials", 1)).with_suffix(".csv")


def _kept(
    manifest: dict[str, Any], file: Path, own: Path, study: str, rows: pd.DataFrame | None
) -> dict[str, Any]:
    """Entries of an existing manifest to keep: those that have rows, or are being computed."""
    table = table_of(file)
    is_of_another = manifest.get("study", {}).get("name", study) != study
    if table != own and is_in_use(table):
        if is_of_another:
            raise ValueError(
                f"{str(table)!r} is being written for the study {manifest['study']['name']!r}, not "
                f"{study!r}; give another folder."
            )
        return manifest
    if is_of_another:  # without rows
        return {}
    networks = set() if rows is None else set(rows["checkpoint"])
    devices = set() if rows is None else set(rows["device"])
    kept = dict(manifest)
    for what in ("devices", "device_digests"):
        kept[what] = {n: entry for n, entry in manifest.get(what, {}).items() if n in devices}
    kept["checkpoints"] = {
        name: entry
        for name, entry in manifest.get("checkpoints", {}).items()
        if entry["digest"][:DIGEST_LENGTH] in networks
    }
    methods = {entry["spec"]["method"] for entry in kept["checkpoints"].values()}
    kept["methods"] = {n: one for n, one in manifest.get("methods", {}).items() if n in methods}
    return kept


def union(own: dict[str, Any], others: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Merge the manifest of a process with existing manifests of its study.

    Raises:
        ValueError: If they define a device of the same name differently.
    """
    by_name = ("devices", "evaluation_sets", "datasets", "methods", "scores")
    whole = {w: dict(own.get(w, {})) for w in (*by_name, "device_digests", "checkpoints")}
    for other in others:
        for name, digest in other.get("device_digests", {}).items():
            if whole["device_digests"].setdefault(name, digest) != digest:
                raise ValueError(
                    f"Device {name!r} differs from that of the same name in earlier rows of the "
                    "folder; give the device another name, or another folder."
                )
        for what in by_name:
            whole[what] = {**other.get(what, {}), **whole[what]}
        for name, network in other.get("checkpoints", {}).items():
            if whole["checkpoints"].setdefault(name, network)["digest"] != network["digest"]:
                whole["checkpoints"][f"{name} {network['digest'][:DIGEST_LENGTH]}"] = network
    if not whole["scores"]:
        del whole["scores"]
    studies = [*(other.get("study", {}) for other in others), own["study"]]
    commands = [line for study in studies for line in study.get("command", "").splitlines()]
    environments = [one for other in others for one in other.get("environments", [])]
    named = [one for other in others for one in other.get("primary_endpoints", [])]
    named += own.get("primary_endpoints", [])
    return {
        **own,
        **whole,
        **({"primary_endpoints": _named_first(named)} if named else {}),
        "study": own["study"]
        | {
            "checkpoints": sorted(whole["checkpoints"]),
            "devices": [*own["devices"], *(n for n in whole["devices"] if n not in own["devices"])],
            "command": "\n".join(dict.fromkeys(commands)),
        },
        "environments": _distinct([*environments, *own["environments"]]),
    }


def _named_first(endpoints: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Primary endpoints in the order in which they were named, each at its first time.

    More than one, or one with ``rows_before``, was named after rows had been seen.
    """
    first: dict[str, dict[str, Any]] = {}
    for endpoint in endpoints:
        key = json.dumps({k: v for k, v in endpoint.items() if k != "rows_before"}, sort_keys=True)
        if key not in first or endpoint["rows_before"] < first[key]["rows_before"]:
            first[key] = dict(endpoint)
    in_time = [endpoint for endpoint in first.values() if endpoint["rows_before"] == 0]
    late = [endpoint for endpoint in first.values() if endpoint["rows_before"] > 0]
    return [*in_time[-1:], *sorted(late, key=lambda endpoint: int(endpoint["rows_before"]))]


def _distinct(entries: Iterable[dict[str, str]]) -> list[dict[str, str]]:
    return [
        dict(entry) for entry in dict.fromkeys(tuple(sorted(entry.items())) for entry in entries)
    ]


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Write a manifest, its keys sorted, whole or not at all."""
    text = json.dumps(content, indent=1, sort_keys=True, allow_nan=False) + "\n"
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def audit_rows(
    name: str, checkpoint: Checkpoint, device: Device, engine: Engine, expected_images: int = 0
) -> list[dict[str, Any]]:
    """How every layer of a network is mapped to a device.

    Elementwise products with tensors that do not depend on the input have separate rows, named
    after the parameter or buffer if it has a name; ``n_weights`` is its number of elements. Modules
    that multiply activations by activations, which is digital, have rows of their own.
    Multiplications are those of one input; shares are of the whole network.

    Args:
        name: Name of the network for the column ``checkpoint``.
        checkpoint: The trained network.
        device: The device.
        engine: Implementation of the forward pass; None as in ``choose_engine``.
        expected_images: Images evaluated after each read, which decide whether a chip is traced.

    Returns:
        Rows with the columns ``AUDIT_COLUMNS``.

    Raises:
        ValueError: If a layer cannot be mapped to arrays and is not kept digital, no layer is
            analog, or the forward pass has a product with a tensor that is neither the weight
            of an analog layer nor kept digital.
    """
    rewriting = checkpoint.rewriting()
    network = rewriting.network
    keep_digital = (*checkpoint.keep_digital, *device.digital_layers)
    analog = models.analog_layers(network, keep_digital)
    is_compiled = engine == "compiled"
    tiled = [] if is_compiled else TiledNetwork(network, device, keep_digital).arrays
    entries = models.audit(network, keep_digital)
    listed = {entry.name for entry in entries}
    image = input_for(checkpoint)
    factors = models.check_forward(network, image, keep_digital)
    entries += [factor for factor in factors if factor.name not in listed]
    counts = models.multiplications(network, image)
    entries += _of_activations(counts, {entry.name for entry in entries})
    n_multiplications = sum(count.all for count in counts.values())
    parameters = _parameters_of(network, {entry.name for entry in entries})
    n_parameters = sum(p.numel() for p in network.parameters())
    ranges = checkpoint.ranges(device.input_ranges.statistic)
    traced = is_compiled and is_traced_for(
        network, device, image, keep_digital, expected_images, ranges
    )
    rows = []
    for layer in entries:
        count = counts[layer.name].all if layer.name in counts else 0
        arrays: Sequence[Tile | TilesOfGroups | Array] = [
            array for array in tiled if array.layer == layer.name
        ]
        if is_compiled and layer.analog:  # one layer at a time: networks may be large
            arrays = FunctionalLayer(layer.name, analog[layer.name], device, math.nan).arrays
        rows.append(
            {
                "checkpoint": name,
                "device": device.name,
                "layer": layer.name,
                "kind": layer.kind,
                "n_weights": layer.n_weights,
                "analog": layer.analog,
                "reason": _reason(layer, rewriting),
                "n_arrays": sum(math.prod(array.target.shape[:-2]) for array in arrays),
                "array_rows": max((array.target.shape[-1] for array in arrays), default=0),
                "array_columns": max((array.target.shape[-2] for array in arrays), default=0),
                "unused_columns": sum(int((~array.used).sum()) for array in arrays),
                "largest_weight": _largest_weight(network, layer.name),
                "input_range": ranges.get(layer.name),
                "n_parameters": parameters.get(layer.name, 0),
                "parameter_share": parameters.get(layer.name, 0) / n_parameters,
                "n_multiplications": count,
                "multiplication_share": count / max(n_multiplications, 1),
                "traced": traced,
            }
        )
    return rows


def _of_activations(
    counts: Mapping[str, models.Multiplications], listed: Container[str]
) -> list[models.LayerAudit]:
    """Entries of modules that multiply and hold no weights for it."""
    kind = "product of activations"
    reason = "a product of activations with activations or numbers is digital"
    return [
        models.LayerAudit(name, kind, 0, analog=False, reason=reason)
        for name in counts
        if name not in listed
    ]


def _parameters_of(network: nn.Module, listed: Container[str]) -> dict[str, int]:
    """Elements of the parameters of each entry: those named as it, or held by its module."""
    found: dict[str, int] = defaultdict(int)
    for name, parameter in network.named_parameters():
        module = name.rpartition(".")[0].removesuffix(".parametrizations")
        found[name if name in listed else module] += parameter.numel()
    return found


def _reason(layer: models.LayerAudit, rewriting: models.Rewriting) -> str:
    """Why a layer is digital, and what it was before it was rewritten."""
    kind = rewriting.origin(layer.name)
    return "; ".join(filter(None, [layer.reason, f"rewritten from {kind}" if kind else ""]))


def read_audit(folder: Path) -> pd.DataFrame:
    """The existing audit, as text; no rows if there is none or it has other columns."""
    file = folder / AUDIT_FILE
    nothing = pd.DataFrame(columns=list(AUDIT_COLUMNS), dtype=object)
    if not file.is_file():
        return nothing
    audit = pd.read_csv(file, dtype=str, keep_default_na=False)
    return audit if tuple(audit.columns) == AUDIT_COLUMNS else nothing


def write_audit(
    folder: Path, rows: Sequence[Mapping[str, Any]], kept: pd.DataFrame | None = None
) -> None:
    """Write rows of :func:`audit_rows` to ``audit.csv``, after those of :func:`read_audit`."""
    table = pd.DataFrame(rows, columns=list(AUDIT_COLUMNS))
    if kept is not None and len(kept):
        table = pd.concat([kept, table.astype(object)], ignore_index=True)
    with replacing(folder / AUDIT_FILE) as temporary:
        table.to_csv(temporary, index=False, lineterminator="\n")


def _largest_weight(network: nn.Module, layer: str) -> float | None:
    weight = getattr(dict(network.named_modules()).get(layer), "weight", None)
    return None if weight is None else float(weight.detach().abs().max())


def _cpu() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor()
    return next((line.split(":", 1)[1].strip() for line in lines if "model name" in line), "")


def _git_commit() -> str:
    return _git("describe", "--always", "--dirty", "--abbrev=40", "--exclude", "*") or "unknown"


def _git(*arguments: str) -> str:
    """What git says of the package's repository; empty if it fails."""
    try:
        done = subprocess.run(
            ["git", *arguments],
            cwd=Path(__file__).parent,
            capture_output=True,
            text=True,
            check=True,
        )
    except (OSError, subprocess.CalledProcessError):
        return ""
    return done.stdout.strip()
