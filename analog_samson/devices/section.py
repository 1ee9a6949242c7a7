"""What all sections of a device file have in common: frozen, no unknown keys."""

from typing import Annotated, Any

import pydantic
from pydantic import Field

Scale = Annotated[float, Field(ge=0, allow_inf_nan=False)]
"""A spread or its multiple: 0 (off) or more."""

Table = tuple[Annotated[float, Field(allow_inf_nan=False)], ...]
"""Numbers in a row, at points given beside them."""


def neutral(default: Any, description: str) -> Any:
    """A key added later: at its default nothing changes, and it is no part of the digest."""
    return Field(
        default=default, description=description, json_schema_extra={"neutral_at_default": True}
    )


class Section(pydantic.BaseModel):
    """A part of a device file."""

    model_config = pydantic.ConfigDict(
        frozen=True,
        extra="forbid",
        ser_json_inf_nan="strings",
        allow_inf_nan=True,
        protected_namespaces=(),
    )
