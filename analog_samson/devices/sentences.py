"""One sentence for every mistake in a device file: the key, what was given, what is allowed."""

import difflib
from collections.abc import Iterable, Sequence
from typing import Any, get_args

import pydantic

from analog_samson.devices.noise import Noise, NoiseSection


def explain(
    problems: Sequence[Any], content: dict[str, Any], device: type[pydantic.BaseModel]
) -> str:
    """Say in one sentence what is wrong with the first key that is.

    Args:
        problems: What pydantic found.
        content: The content of the file.
        device: The model it was validated by.

    Returns:
        The sentence, without the file's name.
    """
    # A misspelled key is also a missing one; the misspelling is what the user has to see.
    problem = min(problems, key=lambda one: one["type"] != "extra_forbidden")
    models = {_model_name(noise) for noise in _noise_sections()}
    sections = set(_sections(device))
    keys = _key_path(problem["loc"], models, sections)
    spelled = ".".join(keys) or "device"
    match problem["type"]:
        case "extra_forbidden":
            allowed = _allowed_keys(keys[:-1], content, device)
            return f"unknown key {spelled!r}{did_you_mean(keys[-1], allowed)}"
        case "missing":
            return f"key {spelled!r} is missing; add it."
        case "union_tag_invalid":
            given = problem["ctx"]["tag"]
            return f"unknown noise.model {given!r}{did_you_mean(given, models)}"
        case "union_tag_not_found":
            return f"key 'noise.model' is missing; allowed: {', '.join(sorted(models))}."
        case "value_error":
            section = f"{keys[0]}: " if keys else ""
            return f"{section}{problem['msg'].removeprefix('Value error, ')}."
    # A key that may be of several kinds (a number or a word) has one complaint a kind.
    same = [one["msg"] for one in problems if _key_path(one["loc"], models, sections) == keys]
    rules = ", or ".join(dict.fromkeys(message[0].lower() + message[1:] for message in same))
    return f"{spelled} = {problem['input']!r} is not allowed: {rules}."


def _key_path(location: tuple[str | int, ...], models: set[str], sections: set[str]) -> list[str]:
    """Keep a section and a key of pydantic's location, not its words for branches of a union."""
    keys = [part for part in location if isinstance(part, str) and part not in models]
    in_section = bool(keys) and keys[0] in sections
    return keys[: 2 if in_section else 1]


def _sections(device: type[pydantic.BaseModel]) -> dict[str, type[pydantic.BaseModel]]:
    """Sections of a device file; the one of the noise has many kinds and stands for itself."""
    found = {"noise": device}
    for name, field in device.model_fields.items():
        if isinstance(field.annotation, type) and issubclass(field.annotation, pydantic.BaseModel):
            found[name] = field.annotation
    return found


def _model_name(noise: type[NoiseSection]) -> str:
    name: str = get_args(noise.model_fields["model"].annotation)[0]
    return name


def _noise_sections() -> tuple[type[NoiseSection], ...]:
    return get_args(get_args(Noise)[0])


def _allowed_keys(
    section: list[str], content: dict[str, Any], device: type[pydantic.BaseModel]
) -> list[str]:
    if section == ["noise"]:
        named = content.get("noise", {}).get("model")
        kinds = {_model_name(noise): noise for noise in _noise_sections()}
        return list(kinds[named].model_fields)
    return list((_sections(device)[section[0]] if section else device).model_fields)


def did_you_mean(given: str, allowed: Iterable[str]) -> str:
    """End a sentence about an unknown name with the closest allowed one and all of them."""
    names = sorted(allowed)
    close = difflib.get_close_matches(given, names, n=1)
    guess = f"; did you mean {close[0]!r}?" if close else "."
    return f"{guess} Allowed: {', '.join(names)}."
