"""The state of a training: written after each epoch, and restored bit for bit."""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from torch import Tensor, nn
from torch.optim import swa_utils

from analog_samson.algorithm import Algorithm
from analog_samson.checkpoint import (
    TrainingSpec,
    named_packages,
    read_specification,
    read_tensors,
    write_tensors,
)
from analog_samson.files import made_folder, replacing

LOG_COLUMNS = (
    "epoch",
    "layer",
    "lr",
    "strength",
    "loss",
    "update_gradient_norm",
    "offset_ratio",
    "gradient_evaluations",
    "seconds",
)

_PARTS = ("model", "average", "optimizer")


@dataclass
class State:
    """The state of a training; everything that changes is written after each epoch."""

    model: nn.Module
    forward: Callable[[Tensor], Tensor]
    optimizer: torch.optim.Optimizer
    images: Tensor
    labels: Tensor
    algorithm: Algorithm
    task: str = "classification"
    start_digest: str = ""
    epoch: int = 0
    relative_loss: float = 1.0
    average: swa_utils.AveragedModel | None = None
    log: list[dict[str, Any]] = field(default_factory=list)

    @property
    def modules(self) -> dict[str, nn.Module]:
        """The networks whose state is saved, by name."""
        modules = {"model": self.model, "average": self.average}
        return {name: module for name, module in modules.items() if module is not None}


def write_resume(state: State, spec: TrainingSpec, path: Path) -> None:
    """Write the whole state; if that fails, an existing file is not changed."""
    tensors = state.algorithm.tensors()
    if taken := sorted(name for name in tensors if name.split(".")[0] in _PARTS):
        raise ValueError(
            f"Method {spec.method!r} saves a tensor {taken[0]!r}; its name must not begin with "
            f"one of {', '.join(_PARTS)}."
        )
    tensors |= {
        f"{part}.{name}": tensor
        for part, module in state.modules.items()
        for name, tensor in module.state_dict().items()
    }
    for index, slots in state.optimizer.state_dict()["state"].items():
        tensors |= {f"optimizer.{index}.{k}": v for k, v in slots.items() if v is not None}
    header = {
        "spec": spec.to_json(),
        "start": state.start_digest,
        "epoch": state.epoch,
        "relative_loss": state.relative_loss,
        "log": state.log,
    }
    write_tensors(path, tensors, header)


def resume(state: State, spec: TrainingSpec, path: Path) -> None:
    """Restore the state written by `write_resume`.

    Raises:
        ValueError: If it is the state of another training.
    """
    tensors, header = read_tensors(path, "interrupted training")
    there = read_specification(header["spec"], f"training {str(path)!r}", named_packages(spec))
    check_same_spec(there, spec, path)
    if header["start"] != state.start_digest:
        raise ValueError(
            f"The training in {str(path)!r} began from other weights than {spec.start_from!r} "
            "holds now; remove the file to begin again."
        )
    accelerator = state.images.device
    for part, module in state.modules.items():
        module.load_state_dict(_below(tensors, part))
    slots: dict[int, dict[str, Tensor]] = {}
    for name, tensor in _below(tensors, "optimizer").items():
        index, slot = name.split(".")
        slots.setdefault(int(index), {})[slot] = tensor
    groups = state.optimizer.state_dict()["param_groups"]
    state.optimizer.load_state_dict({"state": slots, "param_groups": groups})
    state.algorithm.load(
        {name: t.to(accelerator) for name, t in tensors.items() if name.split(".")[0] not in _PARTS}
    )
    state.epoch, state.relative_loss = header["epoch"], header["relative_loss"]
    state.log = header["log"]


def write_log(rows: list[dict[str, Any]], path: Path) -> None:
    """Write the log rows of all epochs so far, columns `LOG_COLUMNS`."""
    with replacing(made_folder(path.parent) / path.name) as temporary:
        pd.DataFrame(rows, columns=list(LOG_COLUMNS)).to_csv(temporary, index=False)


def check_same_spec(there: TrainingSpec, spec: TrainingSpec, path: Path) -> None:
    """Check that two specifications are equal, but for where the network to start from lies.

    Of that network its folder and name are compared: machines may name a shared folder differently.

    Raises:
        ValueError: If they differ; the message lists the differences.
    """
    ours, theirs = json.loads(spec.to_json()), json.loads(there.to_json())
    starts = [Path(one.start_from or "").parts[-2:] for one in (spec, there)]
    if starts[0] == starts[1]:
        theirs["start_from"] = ours["start_from"]
    different = [
        f"{k}: {theirs[k]!r} there, {v!r} asked" for k, v in ours.items() if theirs[k] != v
    ]
    if different:
        raise ValueError(
            f"The file {str(path)!r} was trained with another specification "
            f"({'; '.join(different)}); choose another folder, or remove it if nothing needs it."
        )


def _below(tensors: Mapping[str, Tensor], part: str) -> dict[str, Tensor]:
    prefix = f"{part}."
    return {name.removeprefix(prefix): t for name, t in tensors.items() if name.startswith(prefix)}
