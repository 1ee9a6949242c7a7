"""Appearance of methods, data sets, networks, devices and scores in reports.

Reports import nothing that a table names: label, style and citation of methods of other packages,
labels of data sets, technologies of devices, and label, unit, direction and digits of scores were
written into the manifest when the study ran. Labels that a caller gives (`labelled`) come first.
"""

import difflib
import json
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import fields, replace
from functools import cache, wraps
from inspect import signature
from pathlib import Path
from types import MappingProxyType
from typing import Any, ParamSpec, TypeVar

from analog_samson.devices import device_names, load_device
from analog_samson.devices.maintenance import NEVER
from analog_samson.devices.temperature import Temperature
from analog_samson.methods import EXTERNAL, EXTERNAL_METHOD, METHODS, Appearance
from analog_samson.results.scores import described

Given = ParamSpec("Given")
Result = TypeVar("Result")

KNOWN_METHODS: Mapping[str, Appearance] = {**METHODS, EXTERNAL: EXTERNAL_METHOD}

_described: ContextVar[Mapping[str, Appearance]] = ContextVar(
    "_described", default=MappingProxyType({})
)
_labels: ContextVar[Mapping[str, str]] = ContextVar("_labels", default=MappingProxyType({}))


_technologies: ContextVar[Mapping[str, str]] = ContextVar(
    "_technologies", default=MappingProxyType({})
)
_devices: ContextVar[Mapping[str, Mapping[str, Any]]] = ContextVar(
    "_devices", default=MappingProxyType({})
)
_given: ContextVar[Mapping[str, str]] = ContextVar("_given", default=MappingProxyType({}))
_details: ContextVar[bool] = ContextVar("_details", default=False)

DATASETS = {"digits": "digits", "mnist": "MNIST", "cifar10": "CIFAR-10", "cifar100": "CIFAR-100"}
MODELS = {
    "mlp": "MLP",
    "lenet5": "LeNet-5",
    "resnet8": "ResNet-8",
    "resnet20": "ResNet-20",
    "resnet32": "ResNet-32",
    "resnet18": "ResNet-18",
    "vgg11_bn": "VGG-11",
    "mobilenet_v2": "MobileNetV2",
    "ds_cnn": "DS-CNN",
    "keyword_lstm": "LSTM",
    "vit_tiny": "ViT-Tiny",
    "char_lstm": "character LSTM",
    "char_transformer": "character transformer",
}


def dataset_label(dataset: str) -> str:
    """What a data set is called in reports; one that nothing describes has the end of its name."""
    known = _given.get().get(dataset) or _labels.get().get(dataset, dataset)
    name, sign, kind = known.partition(" (")  # "cifar10 (JPEG)"
    label = DATASETS.get(name)
    return f"{label}{sign}{kind}" if label else known.rpartition(":")[2].partition("@")[0]


def model_label(model: str) -> str:
    """What a network is called in reports: "LeNet-5"; one of another package by its name."""
    return _given.get().get(model) or MODELS.get(model) or model.rpartition(":")[2]


def task_text(task: Sequence[Any]) -> str:
    """A task in words: ("mnist", "lenet5") -> "LeNet-5 on MNIST"."""
    return f"{model_label(str(task[1]))} on {dataset_label(str(task[0]))}"


def task_names(tasks: Iterable[tuple[str, str]]) -> dict[tuple[str, str], str]:
    """Tasks in words, no two alike: where texts are, the whole names follow.

    Example:
        >>> list(task_names([("mnist", "lenet5"), ("a:signs", "mlp"), ("b:signs", "mlp")]).values())
        ['MLP on signs (mlp, a:signs)', 'MLP on signs (mlp, b:signs)', 'LeNet-5 on MNIST']
    """
    texts = {task: task_text(task) for task in sorted(set(tasks))}
    alike = [text for text in texts.values() if list(texts.values()).count(text) > 1]
    return {
        task: f"{text} ({task[1]}, {task[0]})" if text in alike else text
        for task, text in texts.items()
    }


def device_label(device: str, among: Iterable[str] = ()) -> str:
    """What a device is called in reports: its technology, with its name where others share it.

    Args:
        device: Name of the device.
        among: Names of the devices that are shown together.

    Returns:
        A label given by the caller, "PCM", "PCM (pcm_hermes)", or the name where there is no
        technology; with the name where another device has the same.
    """
    others = set(among)
    label = _device_label(device, others)
    alike = any(_device_label(one, others) == label for one in others if one != device)
    return f"{label} ({device})" if alike and label != device else label


def _device_label(device: str, among: Iterable[str]) -> str:
    if device in _given.get():
        return _given.get()[device]
    technology = technology_of(device)
    if not technology:
        return device
    shared = [other for other in among if technology_of(other) == technology]
    return f"{technology} ({device})" if len(shared) > 1 else technology


def measured_age_s(device: str, condition: str) -> tuple[float, float] | None:
    """Until when a device was measured, as its file says; None if no manifest describes it.

    Args:
        device: Name of the device.
        condition: Swept axes and their values, as in tables.

    Returns:
        The longest time since the last programming that is not extrapolated [s], at the temperature
        of the chip, and the interval of refreshes [s]; infinity where there is no limit, or no
        refresh.

    Raises:
        ValueError: If the manifest describes an impossible temperature.
    """
    content = _devices.get().get(device)
    if content is None:
        return None
    axes = json.loads(condition or "{}")
    given = content.get("temperature", {})
    swept = {name: axes[name] for name in given if name in axes}
    temperature = Temperature.model_validate({**given, **swept})
    measured_to = content.get("times", {}).get("measured_to_s")
    refresh = axes.get("refresh_every", content.get("refresh_every", NEVER))
    return (
        math.inf if measured_to is None else measured_to / temperature.time_factor,
        math.inf if refresh == NEVER else float(refresh),
    )


def shows_details() -> bool:
    """Whether captions name engine and precision where all rows have the same."""
    return _details.get()


def appearance(method: str) -> Appearance:
    """Appearance of a method; the default label is the last part of its name."""
    found = KNOWN_METHODS.get(method) or _described.get().get(method)
    found = found or Appearance(label=method.rpartition(":")[2].replace("_", " ") or "?")
    label = _given.get().get(method)
    return replace(found, label=label) if label else found


def label_of(name: str) -> str:
    """Label that the caller gave a method with its strength ("sam rho=0.1"); "" if none."""
    return _given.get().get(name, "") if " " in name else ""


@contextmanager
def labelled(
    labels: Mapping[str, str] = MappingProxyType({}), *, details: bool = False
) -> Iterator[None]:
    """Use labels of the caller's in all tables and figures made inside.

    Args:
        labels: Name of a method ("samson", or with its strength "samson rho=0.5"), device, network
            or data set to its label.
        details: Whether captions name engine and precision also where all rows have the same.

    Raises:
        ValueError: If a label is no text, or empty.

    Example:
        >>> from analog_samson.report import table
        >>> with labelled({"sam": "tuned SAM"}):
        ...     finished = table(summary)
        >>> finished.blocks[0].cells["method"].tolist()
        ['SGD', 'tuned SAM ρ = 0.1']
    """
    for name, label in labels.items():
        if not isinstance(label, str) or not label.strip():
            raise ValueError(f"The label of {name!r} must be a text; got {label!r}.")
    tokens = _given.set({**_given.get(), **labels}), _details.set(details or _details.get())
    try:
        yield
    finally:
        _given.reset(tokens[0])
        _details.reset(tokens[1])


def labels_from(texts: Iterable[str], known: Iterable[str]) -> dict[str, str]:
    """Labels from texts such as 'samson=SAMSON (ours)'.

    Args:
        texts: ``name=label``; names may hold "=", as "sam rho=0.1=SAM" does.
        known: Names that may be given a label.

    Returns:
        Name to label.

    Raises:
        ValueError: If a text gives none of the names a label.
    """
    names, found = sorted(set(known), key=len, reverse=True), {}
    for text in texts:
        name = next((name for name in names if text.startswith(f"{name}=")), None)
        if "=" not in text:
            raise ValueError(
                f"A label is given as name=label; got {text!r}, without '='. Write "
                f'{text}="Label".'
            )
        if name is None:
            close = difflib.get_close_matches(text.partition("=")[0], names, n=1)
            hint = f" Did you mean {close[0]!r}?" if close else ""
            raise ValueError(
                f"A label is given as name=label, with a method, device, network or data set of "
                f"the study ({', '.join(sorted(names))}); got {text!r}.{hint}"
            )
        found[name] = text.removeprefix(f"{name}=")
    return found


def technology_of(device: str) -> str:
    """Technology of a device by the manifest of its study, or the package; "" if none is known."""
    known = _technologies.get().get(device) or _of_package(device)
    return "" if known == "none" else known


@cache
def _of_package(device: str) -> str:
    """Technology of a device that comes with the package; "" of any other."""
    return load_device(device).technology if device in device_names() else ""


@contextmanager
def described_in(folders: Iterable[str | Path]) -> Iterator[None]:
    """Use the appearance of methods, data sets and scores that the manifests of studies describe.

    Args:
        folders: Folders of studies; a manifest is optional.

    Raises:
        ValueError: If a manifest describes a method that cannot be drawn, or gives a data set a
            label that is no text, or describes a score wrongly.
    """
    found: dict[str, Appearance] = {}
    labels: dict[str, str] = {}
    scores: dict[str, Any] = {}
    technologies: dict[str, str] = {}
    devices: dict[str, Mapping[str, Any]] = {}
    for folder in folders:
        manifest = Path(folder) / "manifest.json"
        own = _read_devices(manifest)
        technologies |= {name: str(one.get("technology", "")) for name, one in own.items()}
        devices |= own
        scores |= _read_scores(manifest)
        found |= _read(manifest)
        labels |= _read_labels(manifest)
    given = list(labels.values())
    labels = {
        dataset: f"{label} [{dataset.rpartition('@')[2][:6]}]"  # other contents, the same name
        if "@" in dataset and given.count(label) > 1
        else label
        for dataset, label in labels.items()
    }
    token = _described.set({**_described.get(), **found})
    of_data = _labels.set({**_labels.get(), **labels})
    of_devices = _technologies.set({**_technologies.get(), **technologies})
    contents = _devices.set({**_devices.get(), **devices})
    try:
        with described(scores):
            yield
    finally:
        _described.reset(token)
        _labels.reset(of_data)
        _technologies.reset(of_devices)
        _devices.reset(contents)


def shows_methods(function: Callable[Given, Result]) -> Callable[Given, Result]:
    """Decorate a function to use the appearances described by the studies in its first argument."""
    arguments = signature(function)

    @wraps(function)
    def inside(*args: Given.args, **kwargs: Given.kwargs) -> Result:
        folders = next(iter(arguments.bind(*args, **kwargs).arguments.values()))
        with described_in([folders] if isinstance(folders, str | Path) else folders):
            return function(*args, **kwargs)

    return inside


def _read(manifest: Path) -> dict[str, Appearance]:
    if not manifest.is_file():
        return {}
    content = json.loads(manifest.read_text(encoding="utf-8"))
    names = {f.name for f in fields(Appearance)}
    found = {}
    for method, description in content.get("methods", {}).items():
        try:
            known = {name: value for name, value in description.items() if name in names}
            found[method] = Appearance(**known)
        except (AttributeError, TypeError, ValueError) as error:
            raise ValueError(f"{str(manifest)!r} cannot describe {method!r}: {error}") from error
    return found


def _read_labels(manifest: Path) -> dict[str, str]:
    if not manifest.is_file():
        return {}
    content = json.loads(manifest.read_text(encoding="utf-8"))
    found = {}
    for dataset, description in content.get("datasets", {}).items():
        label = description.get("label") if isinstance(description, dict) else None
        if not isinstance(label, str):
            raise ValueError(
                f"{str(manifest)!r} gives the data set {dataset!r} no label; it needs a text."
            )
        found[dataset] = label
    return found


def _read_scores(manifest: Path) -> dict[str, Any]:
    if not manifest.is_file():
        return {}
    return dict(json.loads(manifest.read_text(encoding="utf-8")).get("scores", {}))


def _read_devices(manifest: Path) -> dict[str, Mapping[str, Any]]:
    if not manifest.is_file():
        return {}
    return dict(json.loads(manifest.read_text(encoding="utf-8")).get("devices", {}))
