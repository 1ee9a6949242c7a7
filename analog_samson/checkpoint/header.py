"""Schemas of file headers: type and range of every key, and a one-sentence error message."""

import json
from collections.abc import Mapping
from dataclasses import MISSING, fields
from typing import Annotated, Any, Self

import pydantic
from pydantic import Field

from analog_samson.checkpoint.specification import FLAT_OPTIONS, TrainingSpec
from analog_samson.data import Task
from analog_samson.messages import shortened

# single precision covers 1e-38 to 3e38; within these bounds quotients are finite too
Finite = Annotated[float, Field(gt=-1e30, lt=1e30, allow_inf_nan=False)]
Positive = Annotated[float, Field(ge=1e-30, lt=1e30, allow_inf_nan=False)]
Count = Annotated[int, Field(ge=1)]


class Strict(pydantic.BaseModel):
    """A header without unknown keys; booleans and strings are not accepted as numbers."""

    model_config = pydantic.ConfigDict(
        strict=True, frozen=True, extra="forbid", protected_namespaces=()
    )


class ChipHeader(Strict):
    """Header of a saved chip, in addition to the states of its cells; see `Chip.save`."""

    kind: str
    device: dict[str, Any]
    measurements: str | None = None
    seed: int
    engine: str
    precision: str
    keep_digital: tuple[str, ...]
    input_ranges: dict[str, Positive] | None
    array_ranges: dict[str, tuple[tuple[Positive, ...], ...]] = {}
    t_inference_s: Annotated[float, Field(ge=0, allow_inf_nan=False)]
    read: Annotated[int, Field(ge=0)]


class CheckpointHeader(Strict):
    """Header of a checkpoint, in addition to its tensors; see `Checkpoint`."""

    spec: str
    input_ranges: dict[str, Positive]
    n_correct_digital: Annotated[int, Field(ge=0)]
    n_images: Count
    image_shape: Annotated[tuple[Count, ...], Field(min_length=1)]
    n_classes: Count
    mean: tuple[Finite, ...]
    std: tuple[Positive, ...]
    class_names: tuple[str, ...]
    made_with: dict[str, str] = {}
    largest_inputs: dict[str, Positive] = {}
    full_scale: Positive | None = None
    task: Task = "classification"
    n_tokens: Annotated[int, Field(ge=0)] = 0

    @pydantic.model_validator(mode="after")
    def _agrees_with_itself(self) -> Self:
        if self.n_correct_digital > self.n_images:
            raise ValueError(
                f"n_correct_digital = {self.n_correct_digital} must be at most n_images = "
                f"{self.n_images}"
            )
        channels = 0 if self.n_tokens else self.image_shape[0]
        if not len(self.mean) == len(self.std) == channels:
            raise ValueError(
                f"mean and std must hold one number for each of {channels} channel(s); they hold "
                f"{len(self.mean)} and {len(self.std)}"
            )
        if len(self.class_names) != self.n_classes:
            raise ValueError(
                f"class_names must hold n_classes = {self.n_classes} names; it holds "
                f"{len(self.class_names)}"
            )
        if self.largest_inputs and set(self.largest_inputs) != set(self.input_ranges):
            raise ValueError("largest_inputs must name the layers that input_ranges names")
        return self


def check_header(kind: type[Strict], header: Mapping[str, Any], where: str) -> None:
    """Check a header against a schema.

    Args:
        kind: The schema.
        header: The header, in JSON types.
        where: Name of the file, for the message.

    Raises:
        ValueError: If it does not match; one sentence with the name of the file.

    Example:
        >>> class Header(Strict):
        ...     n_classes: int
        >>> check_header(Header, {"n_classes": "10"}, "mine")
        Traceback (most recent call last):
            ...
        ValueError: The header of mine cannot be used: n_classes = '10' is not allowed: ...
    """
    try:
        # in JSON mode a list is accepted as a tuple, but a string not as a number
        kind.model_validate_json(json.dumps(dict(header)))
    except pydantic.ValidationError as error:
        raise ValueError(f"The header of {where} cannot be used: {_sentence(error)}.") from None
    except (TypeError, ValueError, RecursionError) as error:
        raise ValueError(f"The header of {where} is not JSON ({error}).") from error


def specification(text: str, where: str) -> dict[str, Any]:
    """Read the values of a training specification and check their types, not their ranges.

    Raises:
        ValueError: If the text is not a JSON object, or a key is unknown or of another type; one
            sentence with the name of the file.
    """
    try:
        values = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"The specification in {where} is not JSON ({error}).") from error
    if not isinstance(values, dict):
        raise ValueError(f"The specification in {where} must be a JSON object; got {text[:40]!r}.")
    typed = {key: value for key, value in values.items() if (key, value) != ("p", "inf")}
    check_header(_SPECIFICATION, typed, where)
    return values


def _sentence(error: pydantic.ValidationError) -> str:
    problem = error.errors(include_url=False)[0]
    key = ".".join(str(part) for part in problem["loc"]) or "it"
    message = problem["msg"].removeprefix("Value error, ")
    message = message[0].lower() + message[1:]
    match problem["type"]:
        case "missing":
            return f"key {key!r} is missing"
        case "extra_forbidden":
            return f"key {key!r} is unknown to this version of the package"
        case "value_error":
            return message
    return f"{key} = {shortened(problem['input'])} is not allowed: {message}"


_FIELDS: dict[str, Any] = {
    f.name: (
        f.type,
        f.default if f.default_factory is MISSING else Field(default_factory=f.default_factory),
    )
    for f in fields(TrainingSpec)
} | {name: (kind, None) for name, kind in FLAT_OPTIONS.items()}
_SPECIFICATION = pydantic.create_model("_SPECIFICATION", __base__=Strict, **_FIELDS)
