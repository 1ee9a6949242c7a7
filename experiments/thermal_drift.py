"""Which training makes networks of micro-rings stand thermal drift?

    python experiments/thermal_drift.py results/microring           # about 90 minutes on one core
    python experiments/thermal_drift.py results/microring --verify  # committed networks again
    python experiments/thermal_drift.py results/microring --figure  # figure, and table of all
    python experiments/thermal_drift.py results/microring --batch-statistics  # batch_statistics.csv

The folder holds `protocol.toml`, as for `methods_study.py`, which chooses strengths and trains;
here the generic noise of the choice is on the control parameters. Thermal drift shifts all rings of
some layers by `nm_per_K` times a temperature: W(theta + shift). Networks whose weights were trained
themselves are set on the branch above the resonance.

Written, each network's rows as soon as it is trained: `thermal_drift.csv`, `curvature.csv`,
`transfer.csv` (devices whose rings differ from the model that was trained with), `manifest.json`,
and what `methods_study.py` writes. Column `mapping`: "as trained"; "layer scaled", trained weights
whose largest of a layer is the end of the range; "one branch", trained control parameters moved to
the branch above the resonance, where the weights are equal and the drift is not.
"""

import functools
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import torch
import tyro
from matplotlib.figure import Figure
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.utils import parametrize

from analog_samson.checkpoint import Checkpoint, TrainingSpec, load_checkpoint
from analog_samson.commands import run_command, written
from analog_samson.data import Dataset, Split
from analog_samson.evaluation import is_correct
from analog_samson.files import replacing
from analog_samson.landscape import largest_eigenvalue, mean_cross_entropy
from analog_samson.methods_study import (
    MethodsStudy,
    add_protocol,
    add_training_curves,
    keep,
    replace_rows,
    run,
    train_and_validate,
    writing,
)
from analog_samson.models import analog_layers
from analog_samson.perturbation import MicroRing
from analog_samson.provenance import (
    MANIFEST_FILE,
    TOLERANCE_ELSEWHERE,
    is_made_here,
    read_manifest,
    write_manifest,
)
from analog_samson.report import Table, check_tables, table_texts, write_figures, write_tables
from analog_samson.report.axes import finish
from analog_samson.report.estimates import INTERVALS, Estimate
from analog_samson.report.methods import dataset_label
from analog_samson.report.style import plot_options, style, width_in
from analog_samson.report.typeset import BLANK, Block
from analog_samson.report.words import range_text
from analog_samson.streams import derive_seed
from analog_samson.study.trial import one_thread
from analog_samson.training import OWN_PACKAGE, control_parameters, load_protocol
from analog_samson.training.loop import dataset_of

EVALUATED_WITH = ("curvature_images", "drift", "transfer")
"""Keys of the protocol that networks are evaluated with."""

DRIFT = "thermal_drift.csv"
TABLE = "micro_rings"

SHOWN = {
    "plain": ("plain, on weights", "sgd"),
    "plain_control": ("plain", "sgd control"),
    "noise_injection": ("noise, on weights", "noise_injection"),
    "noise_control": ("noise", "noise_injection control"),
    "pruning": ("pruning", "mesa"),
    "sat": ("SAT", "asam"),
    "samson": ("SAMSON", "samson"),
}
"""Label of a variant, and the method whose colour and marker it has; hollow: the second one."""
PUBLISHED = {
    "plain": {0.0: 100, -0.5: 66, -1.0: 60, -1.3: 51, -2.0: 2},
    "noise_injection": {0.0: 98, -0.5: 87, -1.0: 75, -1.3: 61, -2.0: 31},
    "pruning": {0.0: 98, -0.5: 95, -1.0: 78, -1.3: 73, -2.0: 36},
    "sat": {0.0: 99, -0.5: 99, -1.0: 98, -1.3: 98, -2.0: 88},
}
"""Accuracy [%] by temperature difference [K] in the notebooks of arXiv 2411.12352; there, batch
normalisation takes the statistics of the 100 drifted test images (no call of `eval()`)."""

PUBLISHED_CURVATURE = {"plain": 745.5, "noise_injection": 414.6, "pruning": 43.0, "sat": 1.05}
"""Largest eigenvalue of the Hessian there; in control parameters of unstated unit, 64 images."""


@dataclass(frozen=True)
class Rings:
    """A trained network and the micro-rings that its weights are set by.

    Attributes:
        model: The network, in evaluation mode.
        theta: Control parameters [nm] by the name of their weight.
        lines: The function W(theta) of each weight.
        normalise: Converts images to inputs of the network.
    """

    model: nn.Module
    theta: Mapping[str, Tensor]
    lines: Mapping[str, MicroRing]
    normalise: Callable[[Tensor], Tensor]

    def weights(self, shift: Mapping[str, Tensor | float], width: float = 1.0) -> dict[str, Tensor]:
        """Return the weights of some rings whose resonances are shifted.

        Args:
            shift: What is added to the control parameters [nm], by the name of the weight.
            width: Width of their lines, relative to that of the model.
        """
        return {
            name: MicroRing(line.amplitude, line.resonance, line.width * width)(
                self.theta[name] + by
            )
            for name, by in shift.items()
            for line in [self.lines[name]]
        }


def main(
    folder: Annotated[Path, tyro.conf.Positional],
    networks: Path = Path("checkpoints"),
    data_folder: Path | None = None,
    steps: int | None = None,
    verify: bool = False,
    figure: bool = False,
    batch_statistics: bool = False,
    trust: tuple[str, ...] = (),
) -> None:
    """Train and evaluate the missing networks of a study of micro-rings.

    Args:
        folder: Folder of the study, with `protocol.toml`.
        networks: Folder for networks and unfinished trainings.
        data_folder: Folder that holds the images.
        steps: Number of networks to train; all by default.
        verify: Instead, compare the table with the rows, evaluate the committed networks again and
            compare the drift.
        figure: Instead, draw accuracy against temperature, and write the table of accuracies,
            curvature and transfer, with the published numbers.
        batch_statistics: Instead, evaluate all trained networks again with batch normalisation by
            the statistics of 100 test images at a time, as the published numbers are.
        trust: Packages that networks, methods and data may be imported from.
    """
    if batch_statistics:
        rows = pd.concat(list(_with_batch_statistics(folder, networks, data_folder, trust)))
        with replacing(folder / "batch_statistics.csv") as temporary:
            rows.to_csv(temporary, index=False)
        print(written([folder / "batch_statistics.csv"]))
        return
    if figure:
        figures, tables = shown(folder)
        print(written([*write_figures(figures, folder), *write_tables(tables, folder)]))
        return
    if verify:
        check_tables(table_texts({TABLE: drift_table(folder)}), folder)
        print(verified(folder, data_folder, trust))
        return
    study = MethodsStudy.load(
        folder,
        networks,
        data_folder,
        trust,
        needed=EVALUATED_WITH,
        evaluated_with=EVALUATED_WITH,
        say=functools.partial(print, flush=True),
    )
    run(study, steps=steps, train=_train_and_validate, evaluate=_evaluate)


def on_rings(path: Path, mapping: str = "as trained", trust: Sequence[str] = ()) -> Rings:
    """Set the weights of a network by micro-rings.

    Args:
        path: Checkpoint, with control parameters beside it if they were trained.
        mapping: "as trained", "layer scaled" or "one branch" (see above).
        trust: Packages that the network may import from, besides this one.

    Raises:
        ValueError: If the network cannot be mapped so.
        FileNotFoundError: If control parameters were trained and are missing.
    """
    network = load_checkpoint(path, (OWN_PACKAGE, *trust))
    model = network.build()
    is_trained = network.spec.parametrisation == "microring"
    if mapping not in mappings(network):
        raise ValueError(
            f"The mapping {mapping!r} is not possible for {str(path)!r}; allowed: "
            f"{', '.join(mappings(network))}."
        )
    names = [f"{name}.weight" for name in analog_layers(model, network.spec.keep_digital)]
    if is_trained:
        theta = control_parameters(path, (OWN_PACKAGE, *trust))
        lines = {name: MicroRing() for name in names}
        if mapping == "one branch":
            theta = {name: own.abs() for name, own in theta.items()}
    else:
        weights = {name: network.state[name] for name in names}
        scaled = mapping == "layer scaled"
        lines = {n: MicroRing(float(w.abs().max()) if scaled else 1.0) for n, w in weights.items()}
        theta = {name: lines[name].right_inverse(w) for name, w in weights.items()}
    return Rings(model, theta, lines, network.normalise)


def mappings(network: Checkpoint) -> tuple[str, str]:
    """Ways to set a network's weights by rings; the first is that of the claims."""
    is_trained = network.spec.parametrisation == "microring"
    return ("as trained", "one branch" if is_trained else "layer scaled")


def n_correct(rings: Rings, settings: Sequence[Mapping[str, Tensor]], part: Split) -> list[int]:
    """Count correct predictions with several settings of the weights.

    Layers in front of the first one that is set are computed once.

    Args:
        rings: The network.
        settings: Weights by name, the same names in all.
        part: Images and labels.
    """
    head, tail = _split(rings.model, settings[0])

    def forward(batch: Tensor, first_index: int) -> Tensor:
        features = head(batch)
        return torch.stack([functional_call(tail, dict(one), (features,)) for one in settings])

    found = is_correct(forward, part.images, part.labels, rings.normalise)
    return [int(n) for n in found.sum(-1)]


def _split(model: nn.Module, changed: Mapping[str, Tensor]) -> tuple[nn.Module, nn.Module]:
    """A network before and from the first layer with a changed weight."""
    if not isinstance(model, nn.Sequential):
        return nn.Identity(), model
    layers = [name.split(".")[0] for name in changed]
    first = min(index for index, name in enumerate(model._modules) if name in layers)
    return model[:first], model[first:]


def drifted(rings: Rings, plan: Mapping[str, Any]) -> dict[float, dict[str, Tensor]]:
    """Weights of the layers that drift, at every temperature.

    Raises:
        ValueError: If a layer that shall drift has no rings.
    """
    drift = plan["drift"]
    unknown = [name for name in drift["layers"] if f"{name}.weight" not in rings.theta]
    if unknown:
        there = ", ".join(name.removesuffix(".weight") for name in rings.theta)
        raise ValueError(f"No layers {unknown} of rings can drift; allowed in [drift]: {there}.")
    return {
        dT: rings.weights({f"{name}.weight": drift["nm_per_K"] * dT for name in drift["layers"]})
        for dT in drift["temperatures_K"]
    }


def drift_rows(rings: Rings, plan: Mapping[str, Any], part: Split) -> list[dict[str, Any]]:
    """Correct predictions at every temperature."""
    settings = drifted(rings, plan)
    counts = n_correct(rings, list(settings.values()), part)
    return [
        {"dT_K": dT, "n_correct": n, "n_images": len(part)}
        for dT, n in zip(settings, counts, strict=True)
    ]


def batch_statistics_rows(
    rings: Rings, plan: Mapping[str, Any], part: Split, size: int = 100
) -> list[dict[str, Any]]:
    """As `drift_rows`, with batch normalisation by the statistics of the images themselves.

    Args:
        rings: The network; its batch normalisation stays in that mode.
        plan: The protocol.
        part: Images and labels.
        size: Images that are normalised together.
    """
    for module in rings.model.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            module.train()
            module.momentum = 0.0  # its stored statistics stay
    blocks = list(zip(part.images.split(size), part.labels.split(size), strict=True))
    with torch.no_grad():
        return [
            {"dT_K": dT, "n_correct": sum(
                int((functional_call(rings.model, dict(setting), (rings.normalise(images),))
                     .argmax(-1) == labels).sum())
                for images, labels in blocks
            ), "n_images": len(part)}
            for dT, setting in drifted(rings, plan).items()
        ]  # fmt: skip


def transfer_rows(
    rings: Rings, plan: Mapping[str, Any], part: Split, training_seed: int
) -> list[dict[str, Any]]:
    """Correct predictions on devices whose rings differ from the model; row 0 is the model.

    All methods of a training seed meet the same devices.
    """
    asked = plan["transfer"]
    chosen = torch.linspace(0, len(part) - 1, min(asked["n_images"], len(part))).long()
    some = Split(part.images[chosen], part.labels[chosen])
    rows = [{"device": "", "offset_nm": 0.0, "relative_width": 1.0}]
    settings = [rings.weights(dict.fromkeys(rings.theta, 0.0))]
    for offset, width in asked["errors"]:
        for device in range(asked["n_devices"]):
            settings.append(rings.weights(_offsets(rings, offset, training_seed, device), width))
            rows.append({"device": str(device), "offset_nm": offset, "relative_width": width})
    counts = n_correct(rings, settings, some)
    return [row | {"n_correct": n, "n_images": len(some)}
            for row, n in zip(rows, counts, strict=True)]  # fmt: skip


def curvature(rings: Rings, dataset: Dataset, n_images: int) -> float:
    """Largest eigenvalue of the Hessian over the control parameters [1 / nm^2].

    Args:
        rings: The network; its weights become functions of the control parameters.
        dataset: Its data set.
        n_images: Training images, evenly spaced.
    """
    model = rings.model.requires_grad_(False)
    for name, theta in rings.theta.items():
        layer = model.get_submodule(name.rpartition(".")[0])
        parametrize.register_parametrization(layer, "weight", rings.lines[name])
        control = layer.parametrizations["weight"].original
        control.data.copy_(theta)
        control.requires_grad_(True)
    chosen = torch.linspace(0, len(dataset.train) - 1, n_images).long()
    images = rings.normalise(dataset.train.images[chosen])
    return largest_eigenvalue(model, mean_cross_entropy(images, dataset.train.labels[chosen]))


def noisy_accuracy(
    rings: Rings, part: Split, *, sigma_nm: float, draws: int, training_seed: int
) -> float:
    """Mean accuracy with an independent Gaussian offset on every ring, in [0, 1]."""
    settings = [
        rings.weights(_offsets(rings, sigma_nm, training_seed, f"choice {draw}"))
        for draw in range(draws)
    ]
    return sum(n_correct(rings, settings, part)) / draws / len(part)


def verified(folder: Path, data_folder: Path | None = None, trust: Sequence[str] = ()) -> str:
    """Evaluate the drift of the committed networks again.

    Raises:
        ValueError: If no network is there, or a count differs by more than it may.
    """
    plan = load_protocol(folder, ["drift"], trust)
    table = pd.read_csv(folder / DRIFT)
    again = []
    for path in sorted((folder / "networks").glob("*.safetensors")):
        network = load_checkpoint(path, (OWN_PACKAGE, *trust))
        dataset = dataset_of(network.spec.dataset, data_folder, network.spec.validation_fraction)
        for mapping in mappings(network):
            rows = pd.DataFrame(drift_rows(on_rings(path, mapping, trust), plan, dataset.test))
            again.append(rows.assign(checkpoint=network.short_digest, mapping=mapping))
    if not again:
        raise ValueError(f"{folder}: no networks are committed; run the study without --verify.")
    is_same = is_made_here(folder)
    allowed = 0 if is_same else math.ceil(TOLERANCE_ELSEWHERE * len(dataset.test))
    keys = ["checkpoint", "mapping", "dT_K"]
    both = pd.concat(again).merge(table, on=keys, suffixes=("", "_committed"))
    off = (both["n_correct"] - both["n_correct_committed"]).abs()
    said = (
        f"{folder}: {len(both)} rows of {both['checkpoint'].nunique()} networks again: "
        f"{int((off == 0).sum())} equal, largest difference {off.max()} of "
        f"{both['n_images'].max()} images."
    )
    if len(both) < sum(map(len, again)) or (off > allowed).any():
        raise ValueError(f"{said} These rows are not those of the networks.")
    return said


def shown(folder: Path) -> tuple[dict[str, Figure], dict[str, Table]]:
    """Figure and table of a study, by the stems of their files."""
    with style():
        figure = drift_figure(pd.read_csv(folder / DRIFT))
    return {"thermal_drift": figure}, {TABLE: drift_table(folder)}


def drift_figure(rows: pd.DataFrame) -> Figure:
    """Accuracy against temperature, by mapping, and the numbers of the paper.

    Args:
        rows: Table of the drift.
    """
    rows = rows.assign(accuracy=100 * rows["n_correct"] / rows["n_images"])
    others = [name for name in rows["mapping"].unique() if name != "as trained"]
    size = (width_in("two columns", "paper"), 3.4)
    figure, panels = plt.subplots(1, 2, sharey=True, figsize=size, layout="constrained")
    for ax, shown in zip(panels, (["as trained"], others), strict=True):
        for variant, own in rows[rows["mapping"].isin(shown)].groupby("variant", sort=False):
            label, name = SHOWN.get(str(variant), (str(variant), str(variant)))
            options = plot_options(name, {name, *(like for _, like in SHOWN.values())})
            by_dT = {dT: Estimate.of(one) for dT, one in own.groupby("dT_K")["accuracy"]}
            mean, low, high = np.array(list(by_dT.values())).T
            ax.errorbar(
                list(by_dT), mean, [mean - low, high - mean], label=label, capsize=0, **options
            )
            if variant in PUBLISHED and shown == ["as trained"]:
                theirs = pd.Series(PUBLISHED[str(variant)])
                like = {"color": options["color"], "marker": options["marker"]}
                ax.scatter(theirs.index, theirs, s=45, **like, alpha=0.35, linewidths=0)
        ax.set_title(" or ".join(shown))
        ax.set_xlabel("temperature difference [K]")
    panels[0].set_ylabel("accuracy [%]")
    counts = rows.groupby("variant")["training_seed"].nunique()
    n = str(counts.min()) if counts.nunique() == 1 else f"{counts.min()} to {counts.max()}"
    said = (
        f"n = {n} trained networks, {rows['n_images'].max():,} test images, 95 % intervals over "
        "networks (Student t). Large pale marks: Xu et al. (arXiv 2411.12352), one network, 100 "
        "images, whose own statistics batch normalisation takes; here those of the training."
    )
    handles, labels = panels[0].get_legend_handles_labels()
    finish(figure, dict(zip(labels, handles, strict=True)), said, are_methods=False)
    return figure


def drift_table(folder: Path) -> Table:
    """Accuracies by temperature, curvature and transfer, and the published numbers.

    Args:
        folder: Folder of the study; without ``batch_statistics.csv`` its block is left out.

    Returns:
        The table; means with intervals over trained networks (Student t).
    """
    drift = pd.read_csv(folder / DRIFT)
    sharp = pd.read_csv(folder / "curvature.csv")
    blocks, data = [], []
    for kind, own in drift.groupby("mapping", sort=False):
        blocks.append(_by_column(f"accuracy [%], {kind}", own, "dT_K", data))
    if (folder / "batch_statistics.csv").is_file():
        rows = pd.read_csv(folder / "batch_statistics.csv")
        title = "accuracy [%], as trained, batch normalisation by 100 drifted test images"
        blocks.append(_by_column(title, rows, "dT_K", data))
    theirs = [
        {"method": SHOWN[name][0]} | {_head("dT_K", dT): str(value) for dT, value in own.items()}
        for name, own in PUBLISHED.items()
    ]
    blocks.append(Block.plain("published (100 images; one network each)", theirs))
    lines = []
    for variant, rows in sharp.groupby("variant", sort=False):
        found = Estimate.of(rows["hessian_eigenvalue"], geometric=True)
        line = {"table": "curvature", "variant": variant, "n_networks": len(rows)}
        data.append(line | found.columns("value"))
        published = PUBLISHED_CURVATURE.get(str(variant))
        lines.append({"method": _label(variant), "n": str(len(rows)),
                      "ours": found.text("{:.3g}"),
                      "published": BLANK if published is None else f"{published:g}"})  # fmt: skip
    blocks.append(Block.plain("largest eigenvalue of the Hessian [1/nm²]", lines))
    transfer = pd.read_csv(folder / "transfer.csv", keep_default_na=False)
    transfer = transfer[transfer["mapping"] == "as trained"]
    kinds = transfer.apply(_device, axis=1)
    title = "accuracy [%] on other devices, as trained, without drift"
    blocks.append(_by_column(title, transfer.assign(on=kinds), "on", data))
    n = drift.groupby("variant")["training_seed"].nunique()
    manifest = read_manifest(folder / MANIFEST_FILE)
    asked, (dataset, *_) = manifest["protocol"], sorted(manifest["datasets"])
    caption = (
        f"Micro-rings on {dataset_label(dataset)}, n = {range_text(n)} trained networks a method, "
        f"{drift['n_images'].max():,} test images. Means with {INTERVALS}, eigenvalues: geometric "
        f"means. Temperatures: difference of the rings of {' and '.join(asked['drift']['layers'])} "
        "to the training; batch normalisation as trained unless said otherwise. Other devices: "
        "resonances of all layers spread by a Gaussian, or lines of another width; "
        f"{transfer['n_images'].max():,} test images, {asked['transfer']['n_devices']} devices a "
        "network. Published: Xu et al. "
        "(arXiv 2411.12352), their batch normalisation takes the statistics of the drifted images."
    )
    title = "Micro-rings: thermal drift, curvature and transfer"
    return Table(title, caption, tuple(blocks), pd.DataFrame(data), "tab:micro-rings")


def _by_column(title: str, rows: pd.DataFrame, column: str, data: list[dict[str, Any]]) -> Block:
    """Mean accuracy of every method, a column for each value; numbers are added to the data."""
    rows = rows.assign(accuracy=rows["n_correct"] / rows["n_images"])
    keys = ["variant", column, "training_seed"]
    means = rows.groupby(keys)["accuracy"].mean()
    values = list(rows[column].unique())
    lines = []
    for variant in rows["variant"].unique():
        line = {"method": _label(variant), "n": str(means[variant].groupby(level=1).ngroups)}
        for value in values:
            own = means.get((variant, value), pd.Series(dtype=float))
            found = Estimate.of(own)
            line[_head(column, value)] = found.text("{:.1f}", 100)
            told = {"table": title, "variant": variant, "n_networks": len(own)}
            data.append(told | {"at": str(value)} | found.columns("value"))
        lines.append(line)
    return Block.plain(title, lines)


def _head(column: str, value: float | str) -> str:
    return (
        f"{value:+g} K".replace("+0 ", "0 ").replace("-", "−") if column == "dT_K" else str(value)
    )


def _label(variant: Any) -> str:
    return SHOWN.get(str(variant), (str(variant), ""))[0]


def _device(row: "pd.Series[Any]") -> str:
    """Kind of a device of the table of transfer."""
    if row["device"] == "":
        return "the model"
    offset = f"{row['offset_nm']:g} nm"
    return offset if row["relative_width"] == 1 else f"{offset}, width ×{row['relative_width']:g}"


def _with_batch_statistics(
    folder: Path, networks: Path, data_folder: Path | None, trust: Sequence[str]
) -> Iterator[pd.DataFrame]:
    """Rows of every trained network, each from its checkpoint.

    Raises:
        FileNotFoundError: If a checkpoint is not there.
    """
    plan = load_protocol(folder, ["drift"], trust)
    table = pd.read_csv(folder / "networks.csv")
    for row in table[table["failure"].isna()].itertuples():
        path = networks / folder.resolve().name / str(row.variant) / str(row.checkpoint)
        network = load_checkpoint(path, (OWN_PACKAGE, *trust))
        dataset = dataset_of(network.spec.dataset, data_folder, network.spec.validation_fraction)
        with one_thread():
            rows = pd.DataFrame(
                batch_statistics_rows(on_rings(path, trust=trust), plan, dataset.test)
            )
        rows.insert(0, "checkpoint", network.short_digest)
        rows.insert(1, "variant", row.variant)
        rows.insert(2, "training_seed", row.training_seed)
        yield rows


def _train_and_validate(study: MethodsStudy, spec: TrainingSpec, folder: Path) -> dict[str, Any]:
    """Train a network; the noise of the choice is on the control parameters [nm]."""
    row = train_and_validate(study, spec, folder, noise_draws=1)
    if row["failure"]:
        return row
    dataset = dataset_of(spec.dataset, study.data_folder, spec.validation_fraction)
    draws = study.protocol["noise_draws"]
    with one_thread():
        noisy = noisy_accuracy(
            on_rings(folder / row["checkpoint"], trust=study.trust),
            dataset.validation,
            sigma_nm=study.protocol["noise_sigma"],
            draws=draws,
            training_seed=spec.seed,
        )
    return row | {"validation_noisy": noisy, "noise_draws": draws}


def _evaluate(study: MethodsStudy, path: Path) -> None:
    """Evaluate a network, which lies in a folder of its variant's name."""
    folder, plan = study.folder, study.protocol
    network = load_checkpoint(path, study.trust)
    dataset = dataset_of(network.spec.dataset, study.data_folder, network.spec.validation_fraction)
    seed = network.spec.seed
    if seed in plan["kept_seeds"]:
        keep(path, folder)
    own = {"checkpoint": network.short_digest, "variant": path.parent.name, "training_seed": seed}
    drift, transfer = [], []
    with one_thread():
        for mapping in mappings(network):
            rings = on_rings(path, mapping, study.trust)
            drift += [own | {"mapping": mapping} | row
                      for row in drift_rows(rings, plan, dataset.test)]  # fmt: skip
            transfer += [own | {"mapping": mapping} | row
                         for row in transfer_rows(rings, plan, dataset.test, seed)]  # fmt: skip
        eigenvalue = curvature(on_rings(path, trust=study.trust), dataset, plan["curvature_images"])
    curved = own | {"n_training_images": plan["curvature_images"], "hessian_eigenvalue": eigenvalue}
    digest = network.short_digest
    replace_rows(folder / DRIFT, digest, pd.DataFrame(drift))
    replace_rows(folder / "transfer.csv", digest, pd.DataFrame(transfer))
    replace_rows(folder / "curvature.csv", digest, pd.DataFrame([curved]))
    add_training_curves(folder / "training_curves.csv", path, study.trust)
    _record(study, path.name, network, dataset.test)


def _record(study: MethodsStudy, name: str, network: Checkpoint, test: Split) -> None:
    """Add a network, versions and kind of machine, and the claims to the study's manifest."""
    manifest = study.folder / MANIFEST_FILE
    with writing(manifest):
        before = read_manifest(manifest).get("study", {})
        write_manifest(
            study.folder,
            study={"name": before.get("name", study.folder.resolve().name)},
            devices=(),
            networks={name: network},
            evaluation_sets={network.spec.dataset: test.digest},
            encodings={network.spec.dataset: test.encoding},
            rows=pd.read_csv(study.folder / DRIFT).assign(device=""),
        )
        add_protocol(manifest, study)


def _offsets(
    rings: Rings, sigma_nm: float, training_seed: int, device: int | str
) -> dict[str, Tensor]:
    """An independent Gaussian offset of every ring [nm]."""
    offsets = {}
    for name, theta in rings.theta.items():
        seed = derive_seed(training_seed, "ring offsets", device, name)
        draw = torch.randn(theta.shape, generator=torch.Generator().manual_seed(seed))
        offsets[name] = sigma_nm * draw
    return offsets


if __name__ == "__main__":
    run_command(main)
