"""Claims about the noise sources of devices, and the settings that scale them."""

import pytest

from analog_samson.devices import device_names, load_device
from analog_samson.devices.noise_sources import (
    ALL_TOGETHER,
    NOISE_SOURCES,
    chosen_sources,
    noise_sources,
    scaled_settings,
)

PCM = {
    "programming_noise_scale": 1.0,
    "read_noise_1f_scale": 1.0,
    "drift_scale": 1.0,
    "output_noise": 0.04,
}


def test_every_shipped_device_but_the_ideal_one_has_noise_sources():
    without = []
    for name in device_names():
        try:
            found = noise_sources(load_device(name))
        except ValueError:
            without.append(name)
        else:
            assert set(found) <= set(NOISE_SOURCES) and min(found.values()) > 0
    assert without == ["ideal"]
    assert noise_sources(load_device("pcm_like")) == PCM


def test_one_source_alone_has_the_others_off_or_as_they_are():
    device = load_device("pcm_like")
    off = scaled_settings(device, "output_noise", 2.0)
    assert off == {**dict.fromkeys(PCM, 0.0), "output_noise": 0.08}
    nominal = scaled_settings(device, "output_noise", 2.0, "nominal")
    assert nominal == {**PCM, "output_noise": 0.08}
    both = scaled_settings(device, ALL_TOGETHER, 0.5)
    assert both == {name: value / 2 for name, value in PCM.items()}
    assert device.with_axes(off).periphery.output_noise == 0.08


def test_a_scale_of_one_is_the_device_itself():
    for name in ("pcm_like", "reram_cmo", "gaussian_max", "pcm_like_hwa_preset"):
        device = load_device(name)
        for others in ("off", "nominal"):
            settings = scaled_settings(device, ALL_TOGETHER, 1.0, others)
            assert device.with_axes(settings).digest == device.digest


def test_equal_devices_have_equal_settings_whichever_source_is_scaled():
    device = load_device("pcm_like")
    at_one = [scaled_settings(device, name, 1.0, "nominal") for name in (*PCM, ALL_TOGETHER)]
    assert all(settings == PCM for settings in at_one)


def test_read_noise_of_cells_in_every_product_is_a_source():
    device = load_device("sonos_agrawal2022_read_noise")
    assert "mvm_read_noise_uS" in noise_sources(device)
    off = device.with_axes(scaled_settings(device, "output_noise", 1.0))
    assert off.periphery.mvm_read_noise_uS == 0 == off.noise.programming_noise_scale


def test_fractions_of_stuck_cells_are_scaled_up_to_all_cells():
    device = load_device("pcm_like").with_axes({"stuck_low": 0.1, "stuck_high": 0.3})
    for source, expected in (("stuck_low", (1, 0)), ("stuck_high", (0, 1)), (ALL_TOGETHER, None)):
        faults = device.with_axes(scaled_settings(device, source, 16.0)).faults
        assert faults.stuck_low + faults.stuck_high == pytest.approx(1, abs=1e-6)
        if expected:
            assert (faults.stuck_low, faults.stuck_high) == expected
    assert scaled_settings(device, ALL_TOGETHER, 16.0)["stuck_low"] == 0.25
    # beside cells stuck high that stay as they are, only the others can be stuck low
    nominal = scaled_settings(device, "stuck_low", 16.0, "nominal")
    assert (nominal["stuck_low"], nominal["stuck_high"]) == (0.7, 0.3)


def test_sources_are_chosen_by_name():
    device = load_device("pcm_like")
    assert chosen_sources(device, ()) == PCM | {ALL_TOGETHER: 1.0}
    assert chosen_sources(device, ["drift_scale"]) == {"drift_scale": 1.0}
    assert chosen_sources(load_device("gaussian_max"), ()) == {"sigma": 0.038}


@pytest.mark.parametrize(
    ("device", "names", "message"),
    [
        ("ideal", (), "no noise source to scale"),
        ("pcm_like", ("drfit_scale",), "did you mean 'drift_scale'"),
        ("pcm_like", ("drift_scale", "drift_scale"), "every noise source once"),
        ("pcm_like", ("ir_drop",), "'ir_drop' is off on device 'pcm_like'"),
        ("gaussian_max", ("drift_scale",), "off on device 'gaussian_max', or not part of it"),
    ],
)
def test_wrong_sources_are_refused(device, names, message):
    with pytest.raises(ValueError, match=message):
        chosen_sources(load_device(device), names)


def test_layers_with_noise_of_their_own_are_refused():
    device = load_device("pcm_like").with_axes({"layers.conv*.drift_scale": 0.5})
    with pytest.raises(ValueError, match="noise of its own for the layers 'conv\\*'"):
        noise_sources(device)
    digital = load_device("pcm_like").with_axes({"layers.conv1.digital": True})
    assert noise_sources(digital) == PCM
