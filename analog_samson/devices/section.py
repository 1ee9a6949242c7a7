"""The base class of the sections of device files: strict types, frozen, no unknown keys."""

import re
from collections.abc import Mapping
from typing import Annotated, Any, ClassVar

import pydantic
from pydantic import AfterValidator, Field

from analog_samson.times import LONGEST_S, SHORTEST_S

MAX_NAME_LETTERS = 100
MAX_NAME_BYTES = 200
"""Our choice: with the prefix "device_" and a suffix, a file name stays within 255 bytes, the limit
of file systems."""


def portable_name(name: str) -> str:
    """Check a name, which must be valid in file names on every system and printable.

    Raises:
        ValueError: If it is empty, too long, or has a character that is not allowed.
    """
    is_sound = re.fullmatch(r"\w(?:[\w .+=,@()-]*[\w+)])?", name) is not None
    if not (
        is_sound
        and len(name) <= MAX_NAME_LETTERS
        and len(name.encode(errors="replace")) <= MAX_NAME_BYTES
    ):
        raise ValueError(
            "a name has at most 100 letters, digits and signs of '_ . - + = , @ ( )' or blanks, "
            "and begins and ends with a letter or digit, since it is part of file names"
        )
    return name


Name = Annotated[str, AfterValidator(portable_name)]
"""Name of a device or study; part of file names."""

Scale = Annotated[float, Field(ge=0, le=1e6, allow_inf_nan=False)]
"""A standard deviation or a scale factor of one: 0 (off) or more."""

Conductance = Annotated[float, Field(ge=1e-6, le=1e6)]
"""A largest conductance [µS], 1 pS to 1 S; those of memory cells lie far within."""

LowConductance = Annotated[float, Field(ge=0, le=1e6)]
"""A smallest conductance [µS], or 0."""

Voltage = Annotated[float, Field(ge=1e-6, le=1e3)]
"""A read voltage [V]."""

Duration = Annotated[float, Field(ge=SHORTEST_S, le=LONGEST_S)]
"""A time [s] that cannot be 0."""

Moment = Annotated[float, Field(ge=0, le=LONGEST_S)]
"""A time since programming [s]; 0 is the programmed state."""

Exponent = Annotated[float, Field(ge=0, le=10)]
"""A drift exponent or its spread; measured ones are below 1."""

Number = Annotated[float, Field(ge=-1e12, le=1e12, allow_inf_nan=False)]

Table = Annotated[tuple[Number, ...], Field(strict=False, min_length=1)]
"""Values of a law at the points of another table."""


def neutral(default: Any, description: str) -> Any:
    """A key of a later version: its default changes nothing and is not part of the digest."""
    return Field(
        default=default, description=description, json_schema_extra={"neutral_at_default": True}
    )


PROSE = "it is a text and does not change results"
"""Why names, descriptions and sources are not swept."""


class Section(pydantic.BaseModel):
    """A section of a device file; booleans and strings are not numbers, fractions no counts."""

    model_config = pydantic.ConfigDict(
        frozen=True,
        extra="forbid",
        strict=True,
        ser_json_inf_nan="strings",
        allow_inf_nan=True,
        protected_namespaces=(),
    )

    not_swept: ClassVar[Mapping[str, str]] = {"source": PROSE, "fit_source": PROSE}
    """Keys that cannot be swept, and why."""
