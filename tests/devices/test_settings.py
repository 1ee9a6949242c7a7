"""Every setting of a device is an axis by its name, or says why it is none."""

import math
import typing

import pytest

from analog_samson.devices import SHORT_AXIS_NAMES, device_names, load_device, validated

NOT_SWEPT = {
    "text": {
        *("name", "technology", "summary", "limits", "noise.source", "noise.fit_source"),
        *("periphery.source", "variation.source", "temperature.source"),
    },
    "other models": {"noise.model"},
    "the times": {
        f"times.{key}" for key in ("valid_from_s", "valid_to_s", "measured_to_s", "valid_times_s")
    },
    "a list": {
        *("layers", "mapping.pair_significances", "mapping.pair_tables_uS", "periphery.effects"),
        *("noise.nu_at_uS", "noise.nu_mean", "noise.nu_spread"),  # of pcm_custom_drift
        *("noise.spread_powers_uS", "noise.days", "noise.spread_A_nA", "noise.spread_B_nA"),
        *("noise.shift_powers_nA", "noise.splits", "noise.spread_powers"),
        *("periphery.iv_square_powers", "periphery.iv_cube_powers"),
    },
}
"""Of the devices that come with the package, by a word of the reason."""


def field_at(device, path):
    section = device
    for part in path[:-1]:
        section = getattr(section, part)
    return type(section).model_fields[path[-1]], getattr(section, path[-1])


def others(annotation, value):
    """Values of a setting to try in turn."""
    words = [w for part in typing.get_args(annotation) for w in (typing.get_args(part) or (part,))]
    found = [word for word in words if isinstance(word, str | int) and word != value]
    if isinstance(value, bool):
        found = [not value]
    elif isinstance(value, int):
        found += [value - 2, 2]
    elif isinstance(value, float) and math.isfinite(value):
        found += [0.9 * value, 0.25, 1.0, 2.0]
    if value == "every time":
        found = ["1 h"]
    return [*found, 64, 0.5, 1]


@pytest.mark.parametrize("name", device_names())
def test_every_setting_is_swept_by_its_name_or_has_a_reason_why_not(name):
    device = load_device(name)
    swept = {setting for setting, reason in device.settings.items() if not reason}
    listed = {setting for settings in NOT_SWEPT.values() for setting in settings}
    numbers = {"noise.nu_mean", "noise.nu_spread"} if "state_independent" in name else set()
    assert swept == set(device.settings) - (listed - numbers)
    assert {".".join(place) for axis, place in SHORT_AXIS_NAMES.items()} <= swept | {
        ".".join(place) for axis, place in SHORT_AXIS_NAMES.items() if place[0] == "noise"
    }


def test_each_reason_is_in_the_message():
    for setting, device in (("mapping.pair_tables_uS", "pcm_like"), ("noise.days", "sonos")):
        device = load_device(next(n for n in device_names() if n.startswith(device)))
        with pytest.raises(ValueError, match=rf"{setting} cannot be swept: it is a list"):
            device.with_axes({setting: 1.0})
    for word, settings in NOT_SWEPT.items():
        for setting in settings & set(load_device("pcm_like").settings):
            with pytest.raises(ValueError, match=rf"{setting} cannot be swept: .*{word}"):
                load_device("pcm_like").with_axes({setting: 1.0})


def test_each_setting_changes_one_number_only():
    moved, known = set(), set()
    warm = load_device("pcm_like").with_axes({"reference_C": 25, "activation_energy_eV": 0.2})
    for device in [warm, *map(load_device, device_names())]:
        before = device.model_dump()
        for setting, reason in device.settings.items():
            if reason or (device.noise.model, setting) in moved:
                continue
            known.add((device.noise.model, setting))
            path = setting.split(".")
            field, value = field_at(device, path)
            for other in others(field.annotation, value):
                try:
                    swept = device.with_axes({setting: other})
                except ValueError:
                    continue
                after, section = swept.model_dump(), None
                section = after
                for part in path[:-1]:
                    section = section[part]
                if section[path[-1]] == value:
                    continue
                assert section[path[-1]] == other
                section[path[-1]] = value
                if "source" in section:  # an axis says so where the file gives none
                    section["source"] = before[path[0]]["source"]
                assert after == before, setting
                assert swept.digest != device.digest
                moved.add((device.noise.model, setting))
                break
    fit_few = {s for _, s in known} - {s for _, s in moved}
    assert fit_few <= {"drift_compensation.read_outs"}, fit_few
    assert ("PCMLikeNoiseModel", "drift_compensation.read_outs") in known


def test_a_unique_name_needs_no_section_and_tables_have_one_name():
    device = load_device("pcm_like")
    assert device.with_axes({"max_rows": 64}) == device.with_axes({"mapping.max_rows": 64})
    for axis, (section, key) in SHORT_AXIS_NAMES.items():
        device = load_device(
            {"sigma": "gaussian_max", "times_share": "reram_wan2022"}.get(axis, "pcm_like")
        )
        assert device.axis_name(axis) == device.axis_name(f"{section}.{key}") == axis
    assert device.axis_name("max_rows") == "mapping.max_rows"
    assert device.axis_name("mapping.batch_norm") == "mapping.batch_norm"
    assert device.axis_name("batch_norm") == "batch_norm", "of drift compensation, as in tables"


def test_a_name_that_means_two_settings_or_none_or_is_given_twice_is_refused():
    device = load_device("pcm_like")
    with pytest.raises(ValueError, match="'mapping.max_row'; did you mean"):
        device.with_axes({"mapping.max_row": 64})
    with pytest.raises(ValueError, match="is ambiguous: noise.source or periphery.source or"):
        device.with_axes({"source": 1})
    with pytest.raises(ValueError, match="'mapping.max_rows' is given twice, once as 'max_rows'"):
        device.with_axes({"mapping.max_rows": 64, "max_rows": 32})
    with pytest.raises(ValueError, match="max_rows = 2.5 is not allowed"):
        device.with_axes({"max_rows": 2.5})


def test_settings_of_measured_cells_that_the_file_does_not_give_are_swept():
    content = load_device("pcm_like").model_dump()
    content["times"] = {"measured_to_s": 10.0}
    content["noise"] = {
        "model": "ResampledNoiseModel",
        "source": "mine",
        "measurements": "m.csv",
        "sha256": "0",
        "targets_uS": (0.0, 25.0),
        "first_s": 0.0,
        "last_s": 10.0,
        "g_max_uS": 25.0,
        "extrapolate": True,
    }
    device = validated(content, "mine")
    swept = {name for name, reason in device.settings.items() if not reason}
    assert {name for name in swept if name.startswith("noise.")} == {
        *("noise.g_max_uS", "noise.g_min_uS", "noise.extrapolate"),
    }
    with pytest.raises(ValueError, match="noise.last_s cannot be swept: it is read from the file"):
        device.with_axes({"noise.last_s": 5.0})
