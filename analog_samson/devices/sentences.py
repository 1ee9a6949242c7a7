"""One sentence for an error in a file: the key, what was given, what is allowed."""

import dataclasses
import difflib
import typing
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, get_args

from analog_samson.devices.section import Section
from analog_samson.messages import SHOWN_LENGTH, shortened

_WORDS = {
    "an instance of Sequence": "a list",
    "'str' instances are not allowed as a Sequence value": "input should be a list",
    "dictionary": "table",
    " after validation": "",
}


def explain(problems: Sequence[Any], schema: type) -> str:
    """Describe the first error in one sentence.

    Args:
        problems: The errors that pydantic returned.
        schema: The model or dataclass that a file was validated by.

    Returns:
        The sentence, without the file's name.
    """
    # A misspelled key is also reported as a missing one; the misspelling is shown. For unions, the
    # error deepest in the value belongs to the branch that was meant.
    problem = min(problems, key=lambda one: (one["type"] != "extra_forbidden", -len(one["loc"])))
    key, section = _follow(problem, schema)
    match problem["type"]:
        case "extra_forbidden":
            return f"unknown key {key!r}{did_you_mean(str(problem['loc'][-1]), _keys(section))}"
        case "missing":
            return f"key {key!r} is missing; add it."
        case "union_tag_invalid":
            given = problem["ctx"]["tag"]
            return f"unknown {key}.model {given!r}{did_you_mean(given, _models(section))}"
        case "union_tag_not_found":
            allowed = ", ".join(sorted(_models(section)))
            return f"key '{key}.model' is missing; allowed: {allowed}."
        case "value_error":
            words = problem["msg"].removeprefix("Value error, ").rstrip(".")
            is_section = not key or isinstance(problem["input"], dict)
            at = f"{key} = {shortened(problem['input'])}: " if not is_section else f"{key}: "
            return f"{at.removeprefix(': ')}{words}."
    # A key of several allowed types (a number or a string) has one error per type.
    same = [_rule(one) for one in problems if _follow(one, schema)[0] == key]
    rules = ", or ".join(dict.fromkeys(same))
    return f"{key or 'content'} = {shortened(problem['input'])} is not allowed: {rules}."


def did_you_mean(given: str, allowed: Iterable[str]) -> str:
    """End a sentence about an unknown name with the closest allowed one and all of them."""
    names = sorted(allowed)
    close = difflib.get_close_matches(given[:SHOWN_LENGTH], names, n=1)
    guess = f"; did you mean {close[0]!r}?" if close else "."
    return f"{guess} Allowed: {', '.join(names)}."


def _rule(problem: Any) -> str:
    """What is allowed, from pydantic's message, in plain words and with short numbers."""
    text: str = problem["msg"][0].lower() + problem["msg"][1:]
    for limit in problem.get("ctx", {}).values():
        if isinstance(limit, float):
            text = f"{text.rpartition(' ')[0]} {limit:g}"
    for words, plain in _WORDS.items():
        text = text.replace(words, plain)
    return text


def _follow(problem: Any, schema: type) -> tuple[str, Any]:
    """Name of the key of an error, "noise.table_uS[2]", and the section that contains it.

    Pydantic's names for the branches of a union are left out.
    """
    key, section = "", schema
    last = len(problem["loc"]) - 1
    for depth, part in enumerate(problem["loc"]):
        if isinstance(part, int):
            key += f"[{part}]"
        elif part in _keys(section) or (
            depth == last and problem["type"] in ("extra_forbidden", "missing")
        ):
            key += f".{part}" if key else part
            section = _keys(section).get(part, section)
        else:
            section = _models(section).get(part, section)
    return key, section


def _keys(section: Any) -> dict[str, Any]:
    """Keys of a section, and the annotation of each."""
    kinds = list(_sections(section))
    if len(kinds) == 1:
        return {key: field.rebuild_annotation() for key, field in kinds[0].model_fields.items()}
    if dataclasses.is_dataclass(section):
        return {field.name: field.type for field in dataclasses.fields(section)}
    return {}


def _models(section: Any) -> dict[str, Any]:
    """Names that a section's key "model" may have, and the class of each."""
    return {
        get_args(kind.model_fields["model"].annotation)[0]: kind
        for kind in _sections(section)
        if "model" in kind.model_fields
    }


def _sections(annotation: Any) -> Iterator[type[Section]]:
    """The section classes that an annotation allows, in a list or not."""
    if isinstance(annotation, type) and not typing.get_origin(annotation):
        if issubclass(annotation, Section):
            yield annotation
    else:
        for part in get_args(annotation):
            yield from _sections(part)
