"""Text of device files: of any device, of fitted laws, of resampled trajectories."""

import json
import textwrap
from pathlib import Path

from analog_samson.devices.device import Device
from analog_samson.devices.fit import Fit
from analog_samson.devices.measurements import digest_of, load_trajectories
from analog_samson.devices.retention import Comparison, words_of
from analog_samson.devices.section import portable_name


def device_file(device: Device) -> str:
    """Write a device as the text of a device file; keys at their defaults are left out.

    Args:
        device: The device.

    Returns:
        TOML, from which ``load_device`` reads an equal device.
    """
    content = device.model_dump(mode="python", exclude_defaults=True)
    layers = content.pop("layers", ())
    tables = [(f"[{name}]", one) for name, one in content.items() if isinstance(one, dict)]
    tables += [("[[layers]]", one) for one in layers]
    values = {key: value for key, value in content.items() if not isinstance(value, dict)}
    lines = [f"{key} = {_toml(value)}" for key, value in values.items()]
    for head, table in tables:
        lines += ["", head, *(f"{key} = {_toml(value)}" for key, value in table.items())]
    return "\n".join(lines) + "\n"


def fitted_file(
    found: Fit,
    *,
    name: str,
    technology: str,
    source: str,
    summary: str,
    limits: str,
    g_min_uS: float | None = None,
    comparison: Comparison | None = None,
) -> str:
    """Write a fit as the text of a device file; laws are held constant beyond the targets.

    Args:
        found: The fit.
        name: Name of the device.
        technology: For example "PCM".
        source: Where the measurements come from.
        summary: One sentence.
        limits: Effects that the model does not include; added to the limits of every fit.
        g_min_uS: Conductance of a weight of zero; None: the lowest target.
        comparison: How well each law predicts the measurements, stated in the file.

    Returns:
        TOML.

    Raises:
        ValueError: If g_min is negative or not below the highest target.
    """
    laws = found.laws.sort_values("target_uS")
    targets = [float(t) for t in laws["target_uS"]]
    lowest = targets[0] if g_min_uS is None else g_min_uS
    if not 0 <= lowest < targets[-1]:
        raise ValueError(
            f"g_min is at least 0 and below the highest target, {targets[-1]:g} µS; got "
            f"{lowest:g} µS."
        )
    below = [lowest] if lowest < targets[0] else []
    tables = {"table_uS": [*below, *targets]}
    for law in found.tables:
        values = [float(value) for value in laws[law]]
        tables[law] = [*values[: len(below)], *values]
    spelled = "\n".join(
        f"{key} = [{', '.join(f'{value:.6g}' for value in values)}]"
        for key, values in tables.items()
    )
    of_law = _law_sentence(found, comparison)
    holds_not = (
        f"Fitted to measurements of {_listed(laws['n'])} cells at {_listed(targets)} µS up to "
        f"{found.last_s:g} s; linear between these targets"
        + (f" and constant from {lowest:g} µS to the lowest" if below else "")
        + f". {of_law} Drift explains {found.r_squared:.3f} of the variance within cells; the "
        f"residuals are normal with p = {found.p_normal:.2g}. Errors and drift parameters are "
        f"assumed to be normal and independent. {limits}"
    )
    model, constants = _MODELS[found.shape.law]
    shared = "".join(f"\n{key} = {getattr(found.shape, key):.6g}" for key in constants)
    noise = f"""model = "{model}"
source = {_quoted(source)}
g_min_uS = {lowest:g}
g_max_uS = {max(targets):g}
t_0_s = {found.t_0_s:.6g}
t_read_s = {found.t_read_s:g}{shared}
{spelled}

[times]
measured_to_s = {found.last_s:g}"""
    prose = {"name": name, "technology": technology, "summary": summary, "limits": holds_not}
    wrapped = textwrap.wrap(of_law, 98, break_on_hyphens=False)
    comment = "\n".join(f"# {line}" for line in wrapped)
    return f"{comment}\n{_file(noise, **prose)}"


_MODELS: dict[str, tuple[str, tuple[str, ...]]] = {
    "power_law": ("TabulatedNoiseModel", ()),
    "log_linear": ("LogTimeNoiseModel", ()),
    "stretched_exponential": ("StretchedExponentialNoiseModel", ("tau_s", "beta")),
}
"""Noise model of each law of retention, and its constants in addition to t_0."""


def _law_sentence(found: Fit, comparison: Comparison | None) -> str:
    law = words_of(found.shape.law)
    if comparison is None:
        return f"Law of retention: {law}, not compared with others."
    if found.shape.law != comparison.chosen:
        how = f"given by the user ({words_of(comparison.chosen)} would be chosen)"
    else:
        how = comparison.choice
    return f"Law of retention: {law}, {how}; {comparison.words}."


def resampled_file(
    measurements: str | Path,
    *,
    name: str,
    technology: str,
    source: str,
    summary: str,
    limits: str,
    extrapolate: bool = False,
) -> str:
    """Write the text of a device file whose cells follow measured ones.

    Args:
        measurements: The CSV file, in the folder of the device file.
        name: As for :func:`fitted_file`, like the following arguments.
        technology: For example "PCM".
        source: Where the measurements come from.
        summary: One sentence.
        limits: Effects that the model does not include; added to the limits of all
            measurements.
        extrapolate: Whether cells may keep their last value at times after the measurements.

    Returns:
        TOML.

    Raises:
        FileNotFoundError: If there are no such measurements.
        ValueError: If they are invalid, or have one target only.
    """
    digest = digest_of(measurements)
    measured = load_trajectories(measurements, digest)
    targets = [float(target) for target in measured.targets_uS]
    if len(targets) < 2:
        raise ValueError(f"The measurements have {len(targets)} target; at least 2 are needed.")
    holds_not = (
        f"Measurements of {_listed(measured.counts)} cells at {_listed(targets)} µS, from "
        f"{measured.first_s:g} to {measured.last_s:g} s. A simulated cell follows a measured one "
        "of the two nearest targets, scaled to its own, and many follow the same one; all reads "
        "at a time are equal. "
        + ("After the measurements a cell keeps its last value. " if extrapolate else "")
        + limits
    )
    noise = f"""model = "ResampledNoiseModel"
source = {_quoted(source)}
measurements = {_quoted(Path(measurements).name)}
sha256 = "{digest}"
g_min_uS = {targets[0]:g}
g_max_uS = {targets[-1]:g}
extrapolate = {str(extrapolate).lower()}"""
    return _file(noise, name=name, technology=technology, summary=summary, limits=holds_not)


def _file(noise: str, **prose: str) -> str:
    portable_name(prose["name"])
    head = "\n".join(f"{key} = {_quoted(text)}" for key, text in prose.items())
    return f"""{head}

[noise]
{noise}

[periphery]
source = "rasch2023"
dac_bits = 8
adc_bits = 8
output_bound = 10.0
output_noise = 0.04

[drift_compensation]
kind = "global"
"""


def _toml(value: object) -> str:
    """A value in TOML; tables within a section are written in one line."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str):
        return _quoted(value)
    if isinstance(value, dict):
        return "{" + ", ".join(f"{_quoted(k)} = {_toml(v)}" for k, v in value.items()) + "}"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(map(_toml, value)) + "]"
    return repr(value)


def _quoted(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)


def _listed(numbers: object) -> str:
    return ", ".join(f"{number:g}" for number in numbers)  # type: ignore[attr-defined]
