"""Claims about device files: every mistake is one sentence, every file is complete and sourced."""

import importlib.resources
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from analog_samson import devices
from analog_samson.devices import SHORT_AXIS_NAMES, device_names, load_device
from analog_samson.times import DAY, HOUR, YEAR

FILES = importlib.resources.files("analog_samson.device_configs")

WRONG_NAMES = [
    *("", "..", "a/b", "a%", "a$b$", "x^2", "two\nlines", "a|b", "<b>", "n" * 101, "é" * 101),
    *("a\\b", " a", "a ", "a:b", "a\x00b", ".hidden", "ends.", "\u200b", "-x"),
]

# name: (file it starts from, old text, new text, what the sentence must say)
MISTAKES = {
    "unknown key": (
        "pcm_like",
        "t_read_s = 250e-9",
        "t_raed_s = 250e-9",
        ["noise.t_r", "t_raed_s", "did you mean 't_read_s'", "Allowed: "],
    ),
    "unknown section": ("pcm_like", "[mapping]", "[maping]", ["'maping'", "mean 'mapping'"]),
    "missing key": ("pcm_like", "g_max_uS = 25.0", "", ["'noise.g_max_uS' is missing"]),
    "missing source of the noise": (
        "pcm_like",
        'source = "nandakumar2019"',
        "",
        ["'noise.source' is missing"],
    ),
    "missing source of the periphery": (
        "pcm_like",
        'source = "rasch2023"',
        "",
        ["'periphery.source' is missing"],
    ),
    "missing limits": ("ideal", "limits =", "# limits =", ["'limits' is missing"]),
    "unknown model": (
        "pcm_like",
        '"PCMLikeNoiseModel"',
        '"PCMLikeNoisModel"',
        ["noise.model", "did you mean 'PCMLikeNoiseModel'", "Allowed: "],
    ),
    "no model": ("pcm_like", 'model = "PCMLikeNoiseModel"', "", ["'noise.model' is missing"]),
    "negative spread": (
        "pcm_like",
        "t_read_s = 250e-9",
        "t_read_s = 250e-9\nprogramming_noise_scale = -1.0",
        ["noise.programming_noise_scale = -1.0", "greater than or equal to 0"],
    ),
    "spread that is not a number": (
        "pcm_like",
        "output_noise = 0.04",
        "output_noise = nan",
        ["periphery.output_noise = nan", "finite"],
    ),
    "number written as text": (
        "pcm_like",
        "g_max_uS = 25.0",
        'g_max_uS = "large"',
        ["noise.g_max_uS = 'large'", "number"],
    ),
    "zero bits": (
        "pcm_like",
        "adc_bits = 8",
        "adc_bits = 0",
        ["periphery.adc_bits = 0", "greater than or equal to 2", "'ideal'"],
    ),
    "unknown compensation": (
        "pcm_like",
        'kind = "global"',
        'kind = "globl"',
        ["drift_compensation.kind = 'globl'", "'none'", "'global'", "'per_column'"],
    ),
    "g_min above g_max": (
        "reram_cmo",
        "g_min_uS = 9.0",
        "g_min_uS = 90.0",
        ["noise", "g_min_uS = 90", "below g_max_uS = 88.2"],
    ),
    "g_min above g_max in a pair": (
        "reram_milo2021",
        "g_min_uS = 50.0",
        "g_min_uS = 250.0",
        ["noise: g_min_uS = 250", "below g_max_uS = 225"],
    ),
    "negative spread in a table": (
        "pcm_custom_drift",
        "nu_spread = [0.045",
        "nu_spread = [-0.045",
        ["noise: nu_spread holds -0.045", "at least 0"],
    ),
    "a table shorter than its points": (
        "pcm_custom_drift",
        "nu_mean = [0.1, ",
        "nu_mean = [",
        ["noise: nu_mean has 11 entries", "nu_at_uS 12"],
    ),
    "missing source of a measured device": (
        "pcm_joshi2020",
        'fit_source = "crosssim"',
        "",
        ["'noise.fit_source' is missing"],
    ),
    "rescaled layers on aihwkits path": (
        "pcm_like_as_in_aihwkit",
        'kind = "global"',
        'kind = "per_layer"',
        ["'per_layer' needs noise_level = 'conductance'"],
    ),
    "unknown input range": (
        "pcm_like",
        "[drift_compensation]",
        '[input_ranges]\nstatistic = "absmax"\n[drift_compensation]',
        ["input_ranges.statistic = 'absmax'", "'percentile' or 'largest'"],
    ),
    "measurements that are not there": (
        "pcm_like",
        'model = "PCMLikeNoiseModel"',
        'model = "ResampledNoiseModel"\nmeasurements = "gone.csv"',
        ["noise.measurements: No measurements", "gone.csv", "give an existing CSV file"],
    ),
    "g_max beyond the characterised range": (
        "pcm_hermes",
        "g_max_uS = 20.7",
        "g_max_uS = 25.0",
        ["noise", "g_max_uS = 25", "20.7"],
    ),
    "acceptance that is no key": (
        "reram_cmo",
        "acceptance_percent = 2.0",
        "acceptance_percent = 0.02",
        ["noise: acceptance_percent = 0.02", "0.2 or 2"],
    ),
    "a year as a negative time": (
        "pcm_like",
        "measured_to_s = 2e6",
        "measured_to_s = -2e6",
        ["times.measured_to_s = -2000000.0", "greater than or equal to 1e-12"],
    ),
    "no valid time at all": (
        "reram_wan2022",
        "valid_times_s = [1.0, 86400.0, 172800.0]",
        "valid_times_s = []",
        ["times.valid_times_s", "at least 1"],
    ),
    "a valid time without data": (
        "reram_wan2022",
        "valid_times_s = [1.0, 86400.0, 172800.0]",
        "valid_times_s = [1.0, 3600.0]",
        ["valid_times_s", "3600 s is none", "1, 86400, 172800 s"],
    ),
    "not TOML": ("pcm_like", "[noise]", "[noise", ["not valid TOML", "line"]),
    "true as a number of rows": (
        "pcm_like",
        "max_rows = 512",
        "max_rows = true",
        ["mapping.max_rows = True", "valid integer", "'unlimited'"],
    ),
    "a fraction as a number of rows": (
        "pcm_like",
        "max_rows = 512",
        "max_rows = 512.0",
        ["mapping.max_rows = 512.0", "valid integer"],
    ),
    "true as a number of devices": (
        "pcm_hermes",
        "devices_per_conductance = 2",
        "devices_per_conductance = true",
        ["noise.devices_per_conductance = True", "true is not a number"],
    ),
    "true as a number of read-outs": (
        "pcm_like_as_in_aihwkit",
        "read_outs = 1",
        "read_outs = true",
        ["drift_compensation.read_outs = True", "true is not a number"],
    ),
    "digits as text": (
        "pcm_like",
        "g_max_uS = 25.0",
        'g_max_uS = "25.0"',
        ["noise.g_max_uS = '25.0'", "number"],
    ),
    "infinity as text": (
        "ideal",
        "output_bound = inf",
        'output_bound = "Infinity"',
        ["periphery.output_bound = 'Infinity'", "number"],
    ),
    "a number as text in a table": (
        "pcm_custom_drift",
        "nu_mean = [0.1, ",
        'nu_mean = [0.1, "0.1", ',
        ["noise.nu_mean[1] = '0.1'", "number"],
    ),
    "an infinite conductance": (
        "pcm_like",
        "g_max_uS = 25.0",
        "g_max_uS = inf",
        ["noise.g_max_uS = inf", "less than or equal to 1e+06"],
    ),
    "a conductance of nothing": (
        "pcm_like",
        "g_max_uS = 25.0",
        "g_max_uS = 1e-300",
        ["noise.g_max_uS = 1e-300", "greater than or equal to 1e-06"],
    ),
    "a conductance beyond measure": (
        "pcm_like",
        "g_max_uS = 25.0",
        "g_max_uS = 1e300",
        ["noise.g_max_uS = 1e+300", "less than or equal to 1e+06"],
    ),
    "an endless read": (
        "pcm_like",
        "t_read_s = 250e-9",
        "t_read_s = inf",
        ["noise.t_read_s = inf", "less than or equal to 1e+12"],
    ),
    "valid times the wrong way round": (
        "pcm_like",
        "measured_to_s = 2e6",
        "valid_from_s = 10.0\nvalid_to_s = 1.0",
        ["times: valid_from_s = 10 is later than valid_to_s = 1"],
    ),
    "times before those of a law": (
        "reram_cmo",
        "valid_from_s = 1.0\n",
        "",
        ["times.valid_from_s allows 0 s", "holds from 1 s on; give valid_from_s = 1.0"],
    ),
    "an earlier time of a law": (
        "reram_cmo_as_in_aihwkit",
        "valid_from_s = 1.0\n",
        "valid_from_s = 0.1\n",
        ["times.valid_from_s allows 0.1 s", "holds from 1 s on"],
    ),
    "a single time before those of a law": (
        "reram_cmo",
        "valid_from_s = 1.0\nmeasured_to_s = 604800.0",
        "valid_times_s = [0.0, 0.5, 3600.0]",
        ["times.valid_times_s allows 0.5 s", "valid_times_s of 1 s and more"],
    ),
    "times of a device before those of a law of its layers": (
        "pcm_like",
        "[times]\n",
        '[[layers]]\npattern = "fc"\n[layers.noise]\nmodel = "ReRamCMONoiseModel"\n'
        'source = "falcone2025"\ng_min_uS = 9.0\ng_max_uS = 88.2\nacceptance_percent = 2.0\n'
        "[times]\n",
        ["layers, 'fc': ", "times.valid_from_s allows 0 s", "holds from 1 s on"],
    ),
    "a table with nothing in it": (
        "pcm_custom_drift",
        "nu_mean = [0.1, 0.1,",
        "nu_mean = []\n# [",
        ["noise.nu_mean = []", "at least 1 item"],
    ),
    "a wrong key in a layer": (
        "pcm_like",
        "[drift_compensation]",
        '[[layers]]\npatern = "fc1"\ndigital = true\n[drift_compensation]',
        ["unknown key 'layers[0].patern'", "did you mean 'pattern'", "drift_compensation"],
    ),
    "a wrong key in the noise of a layer": (
        "pcm_like",
        "[drift_compensation]",
        '[[layers]]\npattern = "fc1"\nnoise.g_mx_uS = 3.0\n[drift_compensation]',
        ["layers, 'fc1': unknown key 'noise.g_mx_uS'; did you mean 'g_max_uS'?"],
    ),
    "a section that is a number": ("pcm_like", "[mapping]", "[mapping.x]", ["'mapping.x'"]),
    "times that are a number": (
        "pcm_like",
        "[times]\n",
        "[times.x]\n",
        ["unknown key 'times.x'"],
    ),
    "a number of thousands of digits": (
        "pcm_like",
        "g_max_uS = 25.0",
        f"g_max_uS = {'1' * 5000}",
        ["not valid TOML", "4300 digits"],
    ),
    "thousands of hexadecimal digits": (
        "pcm_like",
        "g_max_uS = 25.0",
        f"g_max_uS = 0x{'1' * 5000}",
        ["noise.g_max_uS = a number with too many digits"],
    ),
    "deeply nested": (
        "pcm_like",
        "g_max_uS = 25.0",
        f"g_max_uS = {'[' * 5000}{']' * 5000}",
        ["nested too deeply"],
    ),
} | {
    f"name number {number}": (
        "pcm_like",
        'name = "pcm_like"',
        f"name = {json.dumps(name)}",
        ["name = ", "a name has at most 100 letters"],
    )
    for number, name in enumerate(WRONG_NAMES)
}


@pytest.fixture(scope="module")
def sentences(tmp_path_factory) -> dict[str, str]:
    """What loading every wrong file answers, in one process that cannot import torch."""
    folder = tmp_path_factory.mktemp("wrong")
    for name, (start, old, new, _) in MISTAKES.items():
        text = (FILES / f"{start}.toml").read_text(encoding="utf-8")
        assert old in text, f"{name}: {start}.toml holds no {old!r}"
        (folder / f"{name.replace(' ', '_')}.toml").write_text(text.replace(old, new), "utf-8")
    program = """
import json, sys
from analog_samson import load_device
answers = {}
for path in sys.argv[1:]:
    try:
        load_device(path)
    except (ValueError, FileNotFoundError) as error:
        answers[path] = str(error)
print(json.dumps([answers, [name for name in ("torch", "aihwkit") if name in sys.modules]]))
"""
    paths = sorted(map(str, folder.iterdir()))
    done = subprocess.run(
        [sys.executable, "-c", program, *paths], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    answers, imported = json.loads(done.stdout)
    named = {Path(path).stem: text for path, text in answers.items()}
    return {**named, "imported": " ".join(imported)}


@pytest.mark.slow
@pytest.mark.parametrize("mistake", MISTAKES)
def test_the_message_of_a_wrong_file_names_file_key_and_allowed_values(sentences, mistake):
    file = mistake.replace(" ", "_")
    assert file in sentences, "the file was not refused"
    sentence = sentences[file]
    assert f"{file}.toml: " in sentence
    assert "\n" not in sentence and sentence.endswith(".")
    for words in MISTAKES[mistake][3]:
        assert words in sentence, sentence


def test_wrong_files_are_refused_before_torch_is_imported(sentences):
    assert sentences["imported"] == ""


def test_a_file_that_is_no_utf8_text_is_named(tmp_path):
    text = (FILES / "pcm_like.toml").read_text(encoding="utf-8")
    file = tmp_path / "mine.toml"
    for content in (
        text.encode("utf-16"),
        "# 25 µS\n".encode("latin-1"),
        b"\xff\xfe",
        b"a\x80",
    ):
        file.write_bytes(content)
        with pytest.raises(
            ValueError, match=r"mine\.toml: not UTF-8 text .*save the file as UTF-8"
        ):
            load_device(file)
    file.write_bytes(text.encode("utf-8-sig"))  # as some editors write it
    assert load_device(file) == load_device("pcm_like")


@pytest.mark.parametrize("name", ["pcm_like", "PCM 2 (réf. 5), 20.7 µS", "a", "x-1.0+y=3,z@4"])
def test_names_that_can_be_file_names_are_accepted(name):
    assert load_device("pcm_like").model_copy(update={"name": name})
    content = load_device("pcm_like").model_dump() | {"name": name}
    assert devices.validated(content, "mine").name == name


@pytest.mark.parametrize("name", device_names())
def test_a_device_comes_back_from_json(name):
    device = load_device(name)
    content = json.loads(device.model_dump_json())
    assert devices.validated(content, "manifest.json", from_json=True).digest == device.digest


def test_a_wrong_value_is_shown_shortened():
    content = load_device("pcm_like").model_dump() | {"limits": ["word"] * 1000}
    with pytest.raises(ValueError, match=r"limits = \['word'.*\.\.\. is not allowed") as error:
        devices.validated(content, "mine.toml")
    assert len(str(error.value)) < 200


def test_the_message_of_an_unknown_device_has_the_nearest_and_all_names():
    with pytest.raises(FileNotFoundError, match=r"'pcm_lke'; did you mean 'pcm_like'.*ideal"):
        load_device("pcm_lke")
    with pytest.raises(FileNotFoundError, match=r"No device file .*mine\.toml"):
        load_device("mine.toml")


# --- every file ---------------------------------------------------------------------------------


@pytest.mark.parametrize("name", device_names())
def test_every_file_is_complete(name):
    device = load_device(name)
    assert device.name == name, "the file is named after the device"
    assert device.technology and len(device.summary) > 20
    assert len(device.limits) > 20, "limits say what the model does not hold"
    times = device.times
    assert name.startswith("ideal") or times.measured_to_s or times.valid_times_s, (
        "a device says up to which time it was measured"
    )


@pytest.mark.parametrize("name", device_names())
def test_every_source_is_a_reference(name):
    keys = set(re.findall(r"@\w+\{([^,]+),", (FILES / "references.bib").read_text("utf-8")))
    text = (FILES / f"{name}.toml").read_text(encoding="utf-8")
    given = re.findall(r'^\w*source = "([^"]+)"', text, flags=re.MULTILINE)
    assert name == "ideal" or len(given) >= 2
    for source in given:
        assert source in keys or source.startswith("this project"), source


@pytest.mark.parametrize("name", device_names())
def test_a_device_is_the_same_after_a_copy_through_its_content(name):
    device = load_device(name)
    assert devices.Device.model_validate(device.model_dump()) == device
    assert device.with_axes({}).digest == device.digest


PUBLISHED_DIGESTS = {
    "ideal": "8599cbf31d45",
    "pcm_hermes": "6d4ce4212561",
    "pcm_like": "179ecb1b3b23",
    "pcm_like_as_in_aihwkit": "a869e932c532",
    "reram_cmo": "08855b18402d",
    "reram_wan2022": "721177112e31",
}
"""First digits of the digests that committed tables were made with."""


@pytest.mark.parametrize("name", PUBLISHED_DIGESTS)
def test_the_digest_of_a_device_does_not_change_with_new_keys(name):
    """Rows stay valid when devices learn new keys: neutral values are no part of the identity."""
    assert load_device(name).digest.startswith(PUBLISHED_DIGESTS[name])


def test_the_digest_of_a_device_has_its_numbers_and_not_its_texts():
    device = load_device("pcm_like")
    assert device.model_copy(update={"limits": "other words"}).digest == device.digest
    assert device.with_axes({"t_0_s": 21.0}).digest != device.digest


# --- axes ---------------------------------------------------------------------------------------

DEVICES = {"sigma": "gaussian_max", "times_share": "reram_wan2022"}
VALUES = {
    "times_share": "independent",
    "compensation": "none",
    "batch_norm": "recalibrated",
    "compensation_times": "1 h, 7 d",
    "adc_bits": 6,
    "dac_bits": "ideal",
    "mvm_read_noise_kind": "additive",
    "input_range": "largest",
    "input_range_of": "chip",
}
NEEDED = {"temperature_C": {"reference_C": 25.0, "activation_energy_eV": 0.2}}


@pytest.mark.parametrize("axis", SHORT_AXIS_NAMES)
def test_every_axis_changes_one_setting_only(axis):
    device = load_device(DEVICES.get(axis, "pcm_like")).with_axes(NEEDED.get(axis, {}))
    value = VALUES.get(axis, 0.25)
    section, key = SHORT_AXIS_NAMES[axis]
    swept = device.with_axes({axis: value})
    before, after = device.model_dump(), swept.model_dump()
    assert after[section].pop(key) == value != before[section].pop(key)
    assert after == before
    assert swept.digest != device.digest


def test_a_wrong_axis_is_one_sentence():
    pcm, wan = load_device("pcm_like"), load_device("reram_wan2022")
    with pytest.raises(ValueError, match=r"'drift_scal'; did you mean 'drift_scale'"):
        pcm.with_axes({"drift_scal": 1.0})
    with pytest.raises(ValueError, match=r"'drift_scale' does not apply to device 'reram_wan2022'"):
        wan.with_axes({"drift_scale": 1.0})
    with pytest.raises(ValueError, match=r"output_noise = -0.1.*greater than or equal to 0"):
        pcm.with_axes({"output_noise": -0.1})


# --- times --------------------------------------------------------------------------------------


def test_a_time_outside_the_domain_is_refused_before_torch_is_imported():
    program = """
import sys
sys.modules["torch"] = sys.modules["aihwkit"] = None
from analog_samson import load_device
load_device("sonos_agrawal2022").check_time(6 * 86400.0)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    last = done.stderr.strip().splitlines()[-1]
    assert last.startswith(
        "ValueError: Device 'sonos_agrawal2022_crosssim_3_2' has no data at 518400 s (6 d)"
    )


@pytest.mark.parametrize(
    ("name", "t", "words"),
    [
        ("pcm_like", -1.0, "at least 0 s"),
        ("pcm_like", float("inf"), "finite"),
        ("reram_wan2022", 0.0, r"known only at 1 s .*86400 s \(1 d\).*172800 s"),
        ("reram_wan2022", HOUR, "known only at"),
        ("reram_cmo", 0.5, "programmed.* or times from 1 s"),
    ],
)
def test_the_message_of_a_time_outside_the_domain_names_the_valid_times(name, t, words):
    with pytest.raises(ValueError, match=words):
        load_device(name).check_time(t)


def test_a_time_beyond_the_measurements_is_allowed_and_flagged():
    device = load_device("pcm_like")
    device.check_time(YEAR)
    assert device.is_extrapolated(YEAR) and not device.is_extrapolated(DAY)
    assert not load_device("ideal").is_extrapolated(YEAR)


def test_a_copy_with_other_values_has_its_own_digest():
    """The digest of a device is computed once, and is neither copied nor part of its contents."""
    device, same = load_device("pcm_like"), load_device("pcm_like")
    digest = device.digest
    assert (device, device.model_dump()) == (same, same.model_dump())
    noise = device.noise.model_copy(update={"drift_scale": 0.5})
    for deep in (False, True):
        other = device.model_copy(update={"noise": noise}, deep=deep)
        assert other.digest == device.with_axes({"drift_scale": 0.5}).digest != digest
        assert device.model_copy(deep=deep).digest == digest
