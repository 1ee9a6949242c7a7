"""A trained network in one file: weights in safetensors, everything else as JSON in its header."""

import contextlib
import hashlib
import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, fields
from functools import cached_property
from pathlib import Path
from typing import Any, cast

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from analog_samson.checkpoint.specification import TrainingSpec, listed
from analog_samson.data import full_scale, normalise
from analog_samson.models import build_model

FORMAT_VERSION = 1
_HEADER = "analog_samson"


@dataclass(frozen=True)
class Checkpoint:
    """A trained network and what is known about it.

    Attributes:
        spec: How it was trained.
        state: State dict of the network, on the CPU.
        input_ranges: Largest input of each analog layer on training images (percentile).
        n_correct_digital: Correct answers of the digital network on the test split.
        n_images: Images in that split.
        image_shape: (C, H, W).
        n_classes: Number of classes.
        mean: Per channel, of images / full scale.
        std: Per channel, of images / full scale.
        class_names: In the order of the labels.
        made_with: Versions and machine, for the reader; no part of the digest.
        largest_inputs: Largest |input| of each analog layer on the images of ``input_ranges``; no
            part of the digest. Empty in files of earlier versions.
    """

    spec: TrainingSpec
    state: Mapping[str, Tensor]
    input_ranges: Mapping[str, float]
    n_correct_digital: int
    n_images: int
    image_shape: tuple[int, int, int]
    n_classes: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    class_names: tuple[str, ...]
    made_with: Mapping[str, str] = field(default_factory=dict)
    largest_inputs: Mapping[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Refuse weights that are not numbers.

        Raises:
            ValueError: If a tensor of the state holds NaN or infinity.
        """
        for name, tensor in self.state.items():
            if tensor.is_floating_point() and not bool(torch.isfinite(tensor).all()):
                raise ValueError(
                    f"The tensor {name!r} holds NaN or infinity; a checkpoint must be finite; "
                    "train again with a smaller learning rate or strength."
                )

    @property
    def keep_digital(self) -> tuple[str, ...]:
        """Layers that will not become tiles."""
        return self.spec.keep_digital

    def ranges(self, statistic: str) -> Mapping[str, float]:
        """Input ranges of the analog layers: "percentile", or "largest" (abs-max).

        Raises:
            ValueError: If the largest are wanted and the file is of a version that had none.
        """
        if statistic == "percentile":
            return self.input_ranges
        if not self.largest_inputs:
            raise ValueError(
                f"The checkpoint of {self.spec.file_stem} has no largest inputs, for an earlier "
                "version wrote it; train or import it again, or give program(..., calibration="
                "images of the training set)."
            )
        return self.largest_inputs

    @property
    def accuracy_digital(self) -> float:
        """Accuracy of the digital network on the test split, in [0, 1]."""
        return self.n_correct_digital / self.n_images

    @cached_property
    def digest(self) -> str:
        """SHA-256 (hex) over the tensors and their description: the same wherever the file lies."""
        hashed = hashlib.sha256()
        for name in sorted(self.state):
            tensor = self.state[name].detach().cpu().contiguous()
            hashed.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
            hashed.update(tensor.reshape(-1).view(torch.uint8).numpy().tobytes())
        described = self._described()
        usual = json.loads(TrainingSpec().to_json())
        spec = json.loads(described.pop("spec"))
        # A field that a later version adds counts only where it is used.
        spec = {key: value for key, value in spec.items() if value != usual.get(key)}
        spec.pop("start_from", None)
        del described["made_with"], described["largest_inputs"]
        hashed.update(json.dumps([spec, described], sort_keys=True).encode())
        return hashed.hexdigest()

    def normalise(self, images: Tensor) -> Tensor:
        """Turn stored images, uint8, shape (n, C, H, W), into what this network was trained on."""
        scale = full_scale(self.spec.dataset)
        return normalise(images, mean=self.mean, std=self.std, full_scale=scale)

    def build(self) -> nn.Module:
        """Build the network and load its weights.

        Returns:
            The network in evaluation mode, on the CPU.

        Raises:
            ValueError: If the weights do not fit the network that the specification names.
        """
        spec = self.spec
        with torch.random.fork_rng(devices=[]):
            model: nn.Module = build_model(
                spec.model,
                image_shape=self.image_shape,
                n_classes=self.n_classes,
                options=spec.model_kwargs,
            )
        load_state(model, self.state, what=f"checkpoint ({spec.file_stem})", name=spec.model)
        return model.eval()

    def _described(self) -> dict[str, Any]:
        values = {f.name: getattr(self, f.name) for f in fields(self) if f.name != "state"}
        values["spec"] = self.spec.to_json()
        values["input_ranges"] = dict(self.input_ranges)
        values["made_with"] = dict(self.made_with)
        values["largest_inputs"] = dict(self.largest_inputs)
        return values


def save_checkpoint(path: str | Path, checkpoint: Checkpoint) -> Path:
    """Write a checkpoint; a file of that name is replaced only when the new one is complete.

    Args:
        path: Where to; the folder is made if it is missing.
        checkpoint: What to write.

    Returns:
        The path.

    Raises:
        OSError: If the folder cannot be written or the disk is full.
    """
    header = {"format_version": FORMAT_VERSION, **checkpoint._described()}
    return write_tensors(path, checkpoint.state, header)


def load_checkpoint(path: str | Path) -> Checkpoint:
    """Read a checkpoint.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it is damaged, no checkpoint of this package, or written by a newer version.
    """
    state, header = read_tensors(path)
    version = header.pop("format_version", None)
    if version != FORMAT_VERSION:
        raise ValueError(
            f"The file {str(path)!r} is no checkpoint of format {FORMAT_VERSION} (it says "
            f"{version!r}); networks from elsewhere come in through import_checkpoint.py."
        )
    try:
        header["spec"] = TrainingSpec.from_json(header["spec"])
        for name in ("image_shape", "mean", "std", "class_names"):
            header[name] = tuple(header[name])
        return Checkpoint(state=state, **header)
    except (KeyError, TypeError) as error:
        raise ValueError(
            f"The header of checkpoint {str(path)!r} cannot be read ({error}); it was written by "
            "another version of the package, or changed by hand."
        ) from error


def load_state(model: nn.Module, state: Mapping[str, Tensor], *, what: str, name: str) -> None:
    """Load a state dict, or say in one sentence why it does not fit.

    Args:
        model: Network that is loaded in place.
        state: Tensors by name.
        what: What the state is, for the message.
        name: Name of the network, for the message.

    Raises:
        ValueError: If names or shapes differ.
    """
    own = model.state_dict()
    missing = [key for key in own if key not in state]
    extra = [key for key in state if key not in own]
    shapes = [
        f"{key} is {tuple(state[key].shape)} instead of {tuple(own[key].shape)}"
        for key in own
        if key in state and own[key].shape != state[key].shape
    ]
    faults = [f"without {listed(missing)}"] if missing else []
    faults += [f"with {listed(extra)} too many"] if extra else []
    faults += shapes[:3]
    if faults:
        raise ValueError(
            f"The weights of the {what} do not fit the model {name!r}: {'; '.join(faults)}; give "
            "the model and the keyword arguments that they were trained with."
        )
    model.load_state_dict(dict(state))


def write_tensors(
    path: str | Path, tensors: Mapping[str, Tensor], header: Mapping[str, Any]
) -> Path:
    """Write tensors and a JSON header as one safetensors file, whole or not at all.

    Raises:
        OSError: If the folder cannot be written or the disk is full.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    copied = {name: t.detach().cpu().clone(memory_format=torch.contiguous_format)
              for name, t in tensors.items()}  # fmt: skip
    text = json.dumps(dict(header), sort_keys=True, allow_nan=False)
    try:
        with replacing(path) as temporary:
            save_file(copied, temporary, metadata={_HEADER: text})
            with temporary.open("rb") as file:
                os.fsync(file.fileno())
    except SafetensorError as error:
        raise OSError(f"The file {str(path)!r} could not be written ({error}).") from error
    return path


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Give a temporary path beside a file; if the block ends well, it takes the file's place."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        yield temporary
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def read_tensors(path: str | Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Read what `write_tensors` wrote.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it is damaged or has no header of this package.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"There is no checkpoint {str(path)!r}; train one or import one.")
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        header = json.loads(metadata[_HEADER])
    except (SafetensorError, KeyError, json.JSONDecodeError) as error:
        raise ValueError(
            f"The file {str(path)!r} is no readable checkpoint of this package ({error}); networks "
            "from elsewhere come in through import_checkpoint.py."
        ) from error
    return tensors, cast(dict[str, Any], header)
