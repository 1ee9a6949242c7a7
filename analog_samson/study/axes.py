"""The grid of a study: every combination of the values of its axes, and the settings they mean."""

import itertools
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from pydantic import Discriminator, Field, Tag

from analog_samson.results.definitions import tied_settings

Value = bool | int | float | str

Values = Annotated[Sequence[Value], Field(min_length=1)]

Axis = Annotated[
    Annotated[Values, Tag("values")]
    | Annotated[Mapping[str, Values | Literal["same"]], Tag("tied")],
    Discriminator(lambda given: "tied" if isinstance(given, Mapping) else "values"),
]
"""Values of one setting; or tied settings: each to its values, or to "same"."""


@dataclass(frozen=True)
class GridPoint:
    """One combination of the values of all axes.

    Attributes:
        axes: Name of each axis to its value, as tables show them.
        settings: Name of each setting of a device to its value.
        tied: Names of the axes that set several settings.
    """

    axes: Mapping[str, Value]
    settings: Mapping[str, Value]
    tied: frozenset[str]


def grid_points(axes: Mapping[str, Axis], study: str) -> list[GridPoint]:
    """All combinations of the values of the axes, the last one varying fastest.

    Args:
        axes: Name of each axis to its values, or to the settings it ties: ``{"noise_scale":
            {"programming_noise_scale": [0.5, 1.0], "read_noise_1f_scale": "same"}}``. Lists that
            are tied have one length; the first gives the values that tables show.
        study: Name of the study, for messages.

    Raises:
        ValueError: If tied settings are fewer than two, have no list, lists of different lengths,
            or a value twice; if the name of an axis of tied settings cannot be one; or two axes
            set the same setting.
    """
    tied = frozenset(axis for axis, given in axes.items() if isinstance(given, Mapping))
    steps: list[list[tuple[str, Value, dict[str, Value]]]] = []
    set_by: dict[str, str] = {}
    for axis, given in axes.items():
        if isinstance(given, Mapping):
            what = f"Axis {axis!r} of study {study!r}"
            steps.append([(axis, value, of) for value, of in _tied(what, axis, given)])
        else:
            steps.append([(axis, value, {axis: value}) for value in given])
        for setting in steps[-1][0][2]:
            if setting in set_by:
                raise ValueError(
                    f"Study {study!r} sets {setting!r} by two axes, {set_by[setting]!r} and "
                    f"{axis!r}; leave it in one of them."
                )
            set_by[setting] = axis
    return [
        GridPoint(
            {axis: value for axis, value, _ in step},
            {setting: value for _, _, of in step for setting, value in of.items()},
            tied,
        )
        for step in itertools.product(*steps)
    ]


def plain_axis(given: Axis) -> Any:
    """An axis as JSON types."""
    if isinstance(given, Mapping):
        return {setting: plain_axis(values) for setting, values in given.items()}
    return given if isinstance(given, str) else list(given)


def _tied(what: str, axis: str, given: Mapping[str, Any]) -> list[tuple[Value, dict[str, Value]]]:
    lists = {s: values for s, values in given.items() if not isinstance(values, str)}
    if len(given) < 2:
        quoted = ""
        if len(given) == 1:
            quoted = f' (or quote the name of one setting: "{axis}.{next(iter(given))}" = [...])'
        raise ValueError(
            f"{what} ties {len(given)} settings; give two or more, one with a list of values and "
            f'the others with "same"{quoted}.'
        )
    if not re.fullmatch(r"[A-Za-z]\w*", axis, re.ASCII):
        raise ValueError(
            f"{what} ties settings and needs a name of letters, digits and '_', such as "
            "'noise_scale'."
        )
    if not lists:
        raise ValueError(f'{what} has no values: every setting is "same"; give one a list.')
    sizes = {len(values) for values in lists.values()}
    if len(sizes) > 1:
        found = ", ".join(f"{len(values)} of {setting!r}" for setting, values in lists.items())
        raise ValueError(f"{what} ties lists of different lengths, {found}; give equal lengths.")
    found_pairs = tied_settings(given)
    values = [value for value, _ in found_pairs]
    for k, value in enumerate(values):
        if value in values[:k]:
            raise ValueError(
                f"{what} has the value {value!r} twice in its first list, which names it in "
                "tables; give each value once, or begin with another setting."
            )
    return found_pairs
