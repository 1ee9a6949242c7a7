"""How devices and studies are shown at a prompt and in a notebook."""

from analog_samson import load_device
from analog_samson.devices.describe import parameters
from analog_samson.study import Study

TIED = {"programming_noise_scale": [0.5, 1.0, 2.0], "read_noise_1f_scale": "same"}


def test_a_device_is_one_line_and_a_table_of_all_its_parameters():
    device = load_device("pcm_like")
    assert repr(device) == "Device(pcm_like: PCM, PCMLikeNoiseModel, measured to 23.1 d)"
    shown = device._repr_html_()
    for name in parameters(device)["parameter"]:
        assert f"<td>{name}</td>" in shown


def test_a_study_is_shown_by_what_it_combines():
    study = Study(
        "grid",
        ["networks/a.safetensors", "networks/b.safetensors"],
        [load_device("pcm_like"), "reram_wan2022"],
        {"pcm_like": ["1 s", "1 y"], "reram_wan2022": ["1 s", "1 d"]},
        n_chips=25,
        axes={"noise_scale": TIED, "adc_bits": [6, 8]},
        question="accuracy < 90 %?",
    )
    assert repr(study) == (
        "Study('grid', accuracy; networks: 2, devices: 2, values of noise_scale: 3, values of "
        "adc_bits: 2, times: 3, chips of each: 25, seed: 0)"
    )
    shown = study._repr_html_()
    assert "accuracy &lt; 90 %?" in shown
    assert "<tr><th>values of noise_scale</th><td>0.5, 1.0, 2.0</td></tr>" in shown
    assert "<tr><th>times</th><td>1 s, 1 d, 1 y</td></tr>" in shown
