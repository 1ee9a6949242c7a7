"""A trained network in one safetensors file: weights as tensors, the rest as JSON in its header."""

import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from functools import cached_property
from pathlib import Path
from typing import Any, cast

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from analog_samson.checkpoint.header import CheckpointHeader, check_header, specification
from analog_samson.checkpoint.specification import AIHWKIT_TWIN, TrainingSpec, listed
from analog_samson.data import DATASETS, Split, Task, full_scale, label_of, normalise
from analog_samson.deprecated import accepts_old_names, warn_renamed
from analog_samson.files import naming, replacing
from analog_samson.importing import check_trust, packages_of
from analog_samson.models import (
    Rewriting,
    any_input,
    build_model,
    rewrite,
    select_output,
    take_packed,
)
from analog_samson.results.columns import DIGEST_LENGTH

FORMAT_VERSION = 1
_HEADER = "analog_samson"

_DTYPES = (
    *(torch.float32, torch.float64, torch.float16, torch.bfloat16, torch.bool),
    *(torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64),
)

_HEADER_KEYS = {"n_test": "n_images"}
"""Fields whose key in the header, which enters the digest, differs from their name."""

_NO_CODE = ("device", "start_from", "keep_digital")
"""Texts of a specification that name files or layers; any other with a colon names code."""


@accepts_old_names(n_images="n_test")
@dataclass(frozen=True)
class Checkpoint:
    """A trained network with its specification, input ranges and digital accuracy.

    Attributes:
        spec: How it was trained.
        state: State dict of the network, on the CPU.
        input_ranges: Largest input of each analog layer on training images (percentile).
        n_correct_digital: Test images that the digital network classifies correctly; 0 for other
            tasks, whose digital network is evaluated by the study.
        n_test: Samples in the test split.
        image_shape: Shape of one input: (C, H, W) of an image.
        n_classes: Number of classes; the vocabulary of tokens, or the outputs of a regression.
        mean: Per channel, of images / full scale; empty for tokens.
        std: Per channel, of images / full scale.
        class_names: In the order of the labels.
        made_with: Versions and machine, for information; not in the digest.
        largest_inputs: Largest |input| of each analog layer on the images of ``input_ranges``; not
            in the digest. Empty in files of earlier versions.
        full_scale: Pixel value that means 1.0; None: that of the data set of this package.
        task: "classification", "tokens" or "regression".
        n_tokens: Size of the vocabulary of inputs that are tokens; otherwise 0.
        source: The file that it was read from, for messages; not saved.

    Example:
        >>> checkpoint = load_checkpoint(network)
        >>> checkpoint.spec.method, checkpoint.image_shape, checkpoint.n_classes
        ('sgd', (1, 8, 8), 10)
        >>> checkpoint.build()(images).shape
        torch.Size([359, 10])
    """

    spec: TrainingSpec
    state: Mapping[str, Tensor]
    input_ranges: Mapping[str, float]
    n_correct_digital: int
    n_test: int
    image_shape: tuple[int, ...]
    n_classes: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    class_names: tuple[str, ...]
    made_with: Mapping[str, str] = field(default_factory=dict)
    largest_inputs: Mapping[str, float] = field(default_factory=dict)
    full_scale: float | None = None
    task: Task = "classification"
    n_tokens: int = 0
    source: str = field(default="", compare=False)

    def __post_init__(self) -> None:
        """Check that weights are finite and that values have the right type and range.

        Raises:
            ValueError: If a tensor of the state holds NaN or infinity or is of a type that no
                network has, or a value has another type or range than its meaning allows.
        """
        if self.spec.dataset in DATASETS and self.full_scale == full_scale(self.spec.dataset):
            object.__setattr__(self, "full_scale", None)  # given by the name of the data set
        check_header(CheckpointHeader, self._described(), self._where)
        for name, tensor in self.state.items():
            if tensor.dtype not in _DTYPES:
                raise ValueError(
                    f"The tensor {name!r} of {self._where} is of {tensor.dtype}; a checkpoint "
                    "holds real numbers of 16 bits or more, whole numbers and booleans."
                )
            if tensor.is_floating_point() and not bool(torch.isfinite(tensor).all()):
                raise ValueError(
                    f"The tensor {name!r} holds NaN or infinity in {self._where}; a checkpoint "
                    "must be finite; train again with a smaller learning rate or strength."
                )

    @property
    def keep_digital(self) -> tuple[str, ...]:
        """Layers that are not mapped onto arrays."""
        return self.spec.keep_digital

    def ranges(self, statistic: str) -> Mapping[str, float]:
        """Input ranges of the analog layers: "percentile", or "largest" (abs-max).

        Raises:
            ValueError: If the largest are requested and the file is of a version without them.
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
        return self.n_correct_digital / self.n_test

    @property
    def n_images(self) -> int:
        """The old name of ``n_test``."""
        warn_renamed("Checkpoint.n_images", "Checkpoint.n_test")
        return self.n_test

    @property
    def short_digest(self) -> str:
        """The beginning of the digest, which tables have in their column ``checkpoint``."""
        return self.digest[:DIGEST_LENGTH]

    @cached_property
    def digest(self) -> str:
        """SHA-256 (hex) over the tensors and their description; independent of the path."""
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
        """Normalise inputs, as `Split.images` holds them, as for the training of this network."""
        return normalise(images, mean=self.mean, std=self.std, full_scale=self.pixel_scale)

    @property
    def pixel_scale(self) -> float:
        """Pixel value that means 1.0 to this network.

        Raises:
            ValueError: If the file is of a version that did not store that of other data sets.
        """
        if self.full_scale is None and self.spec.dataset not in DATASETS:
            raise ValueError(
                f"The {self._where} does not state which pixel value of {self.spec.dataset!r} is "
                "1.0, for an earlier version wrote it; train or import it again."
            )
        return full_scale(self.spec.dataset) if self.full_scale is None else self.full_scale

    def check_fits(self, part: Split) -> None:
        """Raise ValueError if inputs or targets cannot be those that it was trained for."""
        shape, dataset = tuple(part.images.shape[1:]), label_of(self.spec.dataset)
        if part.task != self.task:
            raise ValueError(
                f"The {self._where} was trained for {self.task}; {dataset} has targets of "
                f"{part.task}."
            )
        if shape != self.image_shape:
            raise ValueError(
                f"The {self._where} was trained on images of shape {self.image_shape}; {dataset} "
                f"has {shape}."
            )
        is_regression = part.task == "regression"
        n_classes = part.labels.shape[1] if is_regression else 1 + int(part.labels.max())
        if n_classes > self.n_classes:
            raise ValueError(
                f"The {self._where} was trained on {self.n_classes} classes; {dataset} has "
                f"{n_classes}."
            )

    def build(self) -> nn.Module:
        """Build the network, load its weights and rewrite what layers have a rule for it.

        Returns:
            The network in evaluation mode, on the CPU.

        Raises:
            ValueError: If the network that the specification names cannot be built, the weights do
                not fit it, or it computes something else when it is rewritten.
        """
        return self.rewriting().network

    def rewriting(self) -> Rewriting:
        """The network as it was trained, the network that `build` gives, and what was rewritten.

        Raises:
            ValueError: As `build`.
        """
        model = self._as_trained()
        try:
            rewriting = rewrite(model, self.spec.rewrites, self.keep_digital)
            rewriting.check(any_input(self.image_shape, self.n_tokens, self.spec.packing))
        except ValueError as error:
            raise ValueError(f"The network of {self._where} cannot be used: {error}") from error
        return rewriting

    def _as_trained(self) -> nn.Module:
        spec = self.spec
        try:
            with torch.random.fork_rng(devices=[]):
                model: nn.Module = build_model(
                    spec.model,
                    image_shape=self.image_shape,
                    n_classes=self.n_classes,
                    options=spec.model_kwargs,
                )
        except Exception as error:  # what builds it may be anybody's
            said = (
                str(error) if isinstance(error, ValueError) else f"{type(error).__name__}: {error}"
            )
            raise ValueError(
                f"The network {spec.model!r} of {self._where} cannot be built with model_kwargs="
                f"{dict(spec.model_kwargs)}: {said}"
            ) from error
        load_state(model, self.state, what=self._where, name=spec.model)
        return take_packed(select_output(model, spec.output), spec.packing).eval()

    @property
    def _where(self) -> str:
        return (
            f"checkpoint {self.source!r}" if self.source else f"checkpoint ({self.spec.file_stem})"
        )

    def _described(self) -> dict[str, Any]:
        described = [f.name for f in fields(self) if f.name not in ("state", "source")]
        values = {_HEADER_KEYS.get(name, name): getattr(self, name) for name in described}
        values["spec"] = self.spec.to_json()
        values["input_ranges"] = dict(self.input_ranges)
        values["made_with"] = dict(self.made_with)
        values["largest_inputs"] = dict(self.largest_inputs)
        if self.full_scale is None:  # a key of a later version is written only if it is used
            del values["full_scale"]
        if self.task == "classification":
            del values["task"]
        if not self.n_tokens:
            del values["n_tokens"]
        return values


def save_checkpoint(path: str | Path, checkpoint: Checkpoint) -> Path:
    """Write a checkpoint; an existing file is replaced only when the new one is complete.

    Args:
        path: The file; a missing folder is created.
        checkpoint: The checkpoint.

    Returns:
        The path.

    Raises:
        OSError: If the folder cannot be written or the disk is full.

    Example:
        >>> copy = save_checkpoint("copies/mine.safetensors", checkpoint)
        >>> load_checkpoint(copy).digest == checkpoint.digest
        True
    """
    header = {"format_version": FORMAT_VERSION, **checkpoint._described()}
    return write_tensors(path, checkpoint.state, header)


def load_checkpoint(path: str | Path, trust: Sequence[str] = ()) -> Checkpoint:
    """Read a checkpoint; nothing is imported before its header is checked and trusted.

    Args:
        path: The file.
        trust: Packages that it may import from, in addition to those of the environment variable
            `ANALOG_SAMSON_TRUST`; needed if its network is defined outside this package.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it is damaged, no checkpoint of this package, written by a newer version, or
            names code of a package that is not trusted.

    Example:
        >>> load_checkpoint(network).spec.model
        'mlp'
    """
    state, header = read_tensors(path)
    version = header.pop("format_version", None)
    if version != FORMAT_VERSION or type(version) is not int:
        raise ValueError(
            f"The file {str(path)!r} is no checkpoint of format {FORMAT_VERSION} (its version is "
            f"{version!r}); networks from elsewhere come in through import_checkpoint.py."
        )
    where = f"checkpoint {str(path)!r}"
    check_header(CheckpointHeader, header, where)
    header["spec"] = read_specification(header["spec"], where, trust)
    for name in ("image_shape", "mean", "std", "class_names"):
        header[name] = tuple(header[name])
    for name, key in _HEADER_KEYS.items():
        header[name] = header.pop(key)
    return Checkpoint(state=state, source=str(path), **header)


def read_specification(text: str, where: str, trust: Sequence[str]) -> TrainingSpec:
    """Read the specification in a file; code that it names is imported only if trusted.

    Args:
        text: What `TrainingSpec.to_json` gave.
        where: Name of the file, for messages.
        trust: As for `load_checkpoint`.

    Raises:
        ValueError: If it is damaged, of another version, or names code that is not trusted.

    Example:
        >>> read_specification(checkpoint.spec.to_json(), "my file", trust=()).method
        'sgd'
    """
    check_trust(_named(specification(text, where)), source=f"The {where}", trust=trust)
    try:
        return TrainingSpec.from_json(text)
    except (ValueError, TypeError, OverflowError) as error:
        raise ValueError(f"The specification in {where} cannot be used: {error}") from error


def named_packages(spec: TrainingSpec) -> tuple[str, ...]:
    """Packages that a specification imports from: whoever writes it in Python trusts them.

    Example:
        >>> named_packages(TrainingSpec(dataset="digits", model="torchvision.models:resnet18"))
        ('torchvision',)
    """
    return packages_of(_named(json.loads(spec.to_json())))


def _named(values: Mapping[str, Any]) -> list[str]:
    """The strings of a specification, in lists too, that may name code."""
    found = [value for key, value in values.items() if key not in _NO_CODE]
    if values.get("model") == AIHWKIT_TWIN:
        found.remove(AIHWKIT_TWIN)
        options = values.get("model_kwargs")
        found.append(options.get("factory") if isinstance(options, Mapping) else None)
    listed = [text for value in found if isinstance(value, list | tuple) for text in value]
    return [text for text in (*found, *listed) if isinstance(text, str)]


def load_state(model: nn.Module, state: Mapping[str, Tensor], *, what: str, name: str) -> None:
    """Load a state dict, or raise an error that lists how it differs.

    Args:
        model: Network that is loaded in place.
        state: Tensors by name.
        what: What the state is, for the message.
        name: Name of the network, for the message.

    Raises:
        ValueError: If names, shapes or kinds of numbers differ.

    Example:
        >>> layer = torch.nn.Linear(2, 1, bias=False)
        >>> load_state(layer, {"weight": torch.tensor([[1.0, 2.0]])}, what="weights", name="layer")
        >>> layer.weight.tolist()
        [[1.0, 2.0]]
    """
    own = model.state_dict()
    missing = [key for key in own if key not in state]
    extra = [key for key in state if key not in own]
    shapes = [
        f"{key} is {tuple(state[key].shape)} instead of {tuple(own[key].shape)}"
        for key in own
        if key in state and own[key].shape != state[key].shape
    ]
    shapes += [
        f"{key} is of {state[key].dtype} instead of {own[key].dtype}"
        for key in own
        if key in state and own[key].is_floating_point() != state[key].is_floating_point()
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
    """Write tensors and a JSON header as one safetensors file, atomically.

    Raises:
        OSError: If the folder cannot be written or the disk is full.

    Example:
        >>> path = write_tensors("mine.safetensors", {"g": torch.ones(3)}, {"unit": "uS"})
        >>> read_tensors(path)
        ({'g': tensor([1., 1., 1.])}, {'unit': 'uS'})
    """
    path = Path(path)
    with naming(path):
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


def read_tensors(
    path: str | Path, what: str = "checkpoint"
) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Read a file written by `write_tensors`.

    Args:
        path: The file.
        what: Expected kind of file, for messages.

    Returns:
        The tensors by name, and the header.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it is damaged or has no header of this package.

    Example:
        >>> tensors, header = read_tensors(network)
        >>> tensors["fc1.weight"].shape, header["n_classes"]
        (torch.Size([64, 64]), 10)
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"There is no {what} {str(path)!r}; give the path of one.")
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        header = json.loads(metadata[_HEADER])
        if not isinstance(header, dict):
            raise ValueError(f"its header is a {type(header).__name__}, not an object")
    except (
        *(SafetensorError, KeyError, ValueError, TypeError, AttributeError),
        *(RuntimeError, MemoryError),  # as safetensors, torch and json let them through
    ) as error:
        hint = (
            "networks from elsewhere come in through import_checkpoint.py"
            if what == "checkpoint"
            else "write it again"
        )
        raise ValueError(
            f"The file {str(path)!r} is no readable {what} of this package ({error}); {hint}."
        ) from error
    return tensors, cast(dict[str, Any], header)
