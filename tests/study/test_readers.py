"""Any bytes in a device file, a study file or a table are read rightly or refused in a sentence.

Examples are the same at every run (derandomised). More of them: FUZZ_EXAMPLES=10000.
"""

import importlib.resources
import json
import math
import os
import tomllib

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from synthetic_trials import make_trials

from analog_samson.checkpoint import TrainingSpec
from analog_samson.devices import Device, device_names, load_device, validated
from analog_samson.results import COLUMNS, append_rows, read_trials
from analog_samson.results.columns import COUNTS
from analog_samson.study import Study, load_study
from analog_samson.times import YEAR
from analog_samson.training import train

fuzz = settings(
    max_examples=int(os.environ.get("FUZZ_EXAMPLES", "150")),
    derandomize=True,
    deadline=None,
    database=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)

FILES = importlib.resources.files("analog_samson.device_configs")
LAYERS = """
[[layers]]
pattern = "head"
digital = true
[[layers]]
pattern = "stage.*"
faults = {stuck_low = 0.1}
noise = {g_max_uS = 20.0}
"""
DEVICES = [(FILES / f"{name}.toml").read_text(encoding="utf-8") for name in device_names()]
DEVICES.append((FILES / "pcm_like.toml").read_text(encoding="utf-8") + LAYERS)
DEVICES.append(
    (FILES / "pcm_like.toml")
    .read_text(encoding="utf-8")
    .replace('model = "PCMLikeNoiseModel"', 'model = "ResampledNoiseModel"\nmeasurements = "m.csv"')
    .replace("t_0_s = 20.0", "")
    .replace("t_read_s = 250e-9", "")
    .replace("g_max_uS = 25.0", "g_max_uS = 20.0\ng_min_uS = 0.0")
    .replace("measured_to_s = 2e6", "valid_from_s = 1.0\nvalid_to_s = 100.0")
)
MEASUREMENTS = "device,target_uS,time_s,conductance_uS\n" + "".join(
    f"{device},{20 * (device % 2)},{time},{20 * (device % 2) + 0.1 * device}\n"
    for device in range(6)
    for time in (1, 10, 100)
)
STUDY = """
name = "small"
question = "Does it last?"
checkpoints = ["*.safetensors"]
devices = ["pcm_like", "mine.toml"]
n_chips = 2
n_test = 50
[times_s]
pcm_like = "rasch"
mine = [1.0, 3600]
[axes]
drift_scale = [0.0, 1.0]
"""

SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.sampled_from([10**18, 2**63, -(2**63) - 1, 10**400, 0, 1, -1]),
    st.floats(),
    st.sampled_from([math.inf, -math.inf, math.nan, 1e-300, 1e300, 5e-324, -0.0]),
    st.text(max_size=20),
    st.sampled_from(["25.0", "Infinity", "a/b", "..", "a$b", "two\nlines", "x" * 400, "ideal"]),
    st.sampled_from(["rasch", "none", "global", "mine.toml", "gone.toml", "m.csv", "nan", "1 h"]),
)
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner),
    max_leaves=6,
)


def toml(value):
    """Write a value inline."""
    match value:
        case bool():
            return str(value).lower()
        case None:
            return "1979-05-27T07:32:00"
        case int() | float():
            return str(value)
        case str():
            return json.dumps(value, ensure_ascii=False)
        case list():
            return f"[{', '.join(map(toml, value))}]"
        case dict():
            pairs = (f"{json.dumps(str(key), ensure_ascii=False)} = {toml(one)}"
                     for key, one in value.items())  # fmt: skip
            return f"{{{', '.join(pairs)}}}"
    raise TypeError(value)


@st.composite
def changed_structures(draw, texts):
    """A valid file with one to three of its values replaced, removed, renamed or added."""
    content = tomllib.loads(draw(st.sampled_from(texts)))
    for _ in range(draw(st.integers(1, 3))):
        node = content
        while True:
            keys = list(node) if isinstance(node, dict) else list(range(len(node)))
            if not keys:
                break
            key = draw(st.sampled_from(keys))
            if isinstance(node[key], dict | list) and draw(st.booleans()):
                node = node[key]
                continue
            match draw(st.sampled_from(["replace", "replace", "replace", "remove", "rename"])):
                case "replace":
                    node[key] = draw(VALUES)
                case "remove":
                    del node[key]
                case "rename" if isinstance(node, dict):
                    node[draw(st.text(max_size=8))] = node.pop(key)
            break
    lines = (f"{json.dumps(key, ensure_ascii=False)} = {toml(value)}\n"
             for key, value in content.items())  # fmt: skip
    return "".join(lines).encode("utf-8", "replace")


@st.composite
def changed_texts(draw, texts):
    """A valid file with lines or letters removed, doubled, exchanged or put in."""
    text = draw(st.sampled_from(texts))
    for _ in range(draw(st.integers(1, 4))):
        at = draw(st.integers(0, len(text)))
        size = draw(st.sampled_from([0, 1, 1, 2, 5, 20, 200]))
        lines = text.splitlines(keepends=True) or [""]
        line = draw(st.integers(0, len(lines) - 1))
        match draw(st.sampled_from(["letters", "letters", "remove", "double", "exchange"])):
            case "letters":
                put = draw(st.text(max_size=4) | st.sampled_from(list('[]{}="#,\n\r\0-.e19')))
                text = text[:at] + put + text[at + size :]
            case "remove":
                text = "".join(lines[:line] + lines[line + 1 :])
            case "double":
                text = "".join(lines[: line + 1] + lines[line:])
            case "exchange":
                other = draw(st.integers(0, len(lines) - 1))
                lines[line], lines[other] = lines[other], lines[line]
                text = "".join(lines)
    return text.encode("utf-8", "replace")


@st.composite
def changed_bytes(draw, texts):
    """A valid file with bytes put in, in another encoding, or cut off."""
    content = draw(st.sampled_from(texts)).encode(
        draw(st.sampled_from(["utf-8", "utf-8", "utf-8-sig", "utf-16", "latin-1"])), "replace"
    )
    at = draw(st.integers(0, len(content)))
    return content[:at] + draw(st.binary(max_size=4)) + content[at + draw(st.integers(0, 4)) :]


def files_like(texts):
    return st.one_of(
        changed_structures(texts), changed_texts(texts), changed_bytes(texts), st.binary()
    )


def read_or_refused(read, file):
    """What a reader gives; None where it refused in one sentence that names the file."""
    try:
        return read(file)
    except (ValueError, FileNotFoundError) as error:
        assert str(file.name) in str(error), repr(error)
        assert "\n" not in str(error), repr(error)
        assert len(str(error)) < 2000, repr(error)
        return None


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("fuzz")
    train(TrainingSpec(epochs=0), folder)
    (folder / "m.csv").write_text(MEASUREMENTS)
    mine = DEVICES[-2].replace('name = "pcm_like"', 'name = "mine"')
    (folder / "mine.toml").write_text(mine, encoding="utf-8")
    return folder


def test_the_files_that_are_changed_are_sound(folder):
    for number, text in enumerate(DEVICES):
        file = folder / f"sound_{number}.toml"
        file.write_text(text, encoding="utf-8")
        assert load_device(file)
    file = folder / "sound.toml"
    file.write_text(STUDY)
    assert load_study(file).trials()


@pytest.mark.slow
@fuzz
@given(content=files_like(DEVICES))
def test_any_device_file_is_read_or_refused_in_a_sentence(folder, content):
    file = folder / "fuzzed_device.toml"
    file.write_bytes(content)
    device = read_or_refused(load_device, file)
    if device is not None:
        assert isinstance(device, Device)
        assert Device.model_validate(device.model_dump()) == device
        again = validated(json.loads(device.model_dump_json()), "json", from_json=True)
        assert again.digest == device.digest
        assert 0 < getattr(device.noise, "g_max_uS", 1.0) < math.inf
        assert (folder / f"device_{device.name}.csv").parent == folder


@pytest.mark.slow
@fuzz
@given(content=files_like([STUDY]))
def test_any_study_file_is_read_or_refused_in_a_sentence(folder, content):
    """What is read lists its trials, or says why there are none."""
    file = folder / "fuzzed_study.toml"
    file.write_bytes(content)
    study = read_or_refused(load_study, file)
    if study is None:
        return
    assert isinstance(study, Study)
    study.check("a study that was read")
    if study.n_chips * study.n_reads > 1000:
        return
    try:
        trials = study.trials()
    except (ValueError, OSError) as error:
        assert "\n" not in str(error)
        return
    assert trials and all(trial.points and trial.chip_id for trial in trials)


def table_text(path):
    rows = make_trials(n_networks=2, n_chips=2, times_s=(0.0, 1.0, YEAR))
    append_rows(rows, path)
    return path.read_text()


@st.composite
def changed_tables(draw, text):
    """A valid table with values replaced by others, of its own columns or of any kind."""
    header, *lines = text.splitlines()
    rows = [line.split(",") for line in lines]
    for _ in range(draw(st.integers(1, 3))):
        row, column = (draw(st.integers(0, size - 1)) for size in (len(rows), len(COLUMNS)))
        other = draw(st.integers(0, len(rows) - 1))
        rows[row][column] = draw(
            st.sampled_from(
                [rows[other][column], "", "nan", "inf", "-1", "0", "2", "True", '"', "{}"]
            )
            | VALUES.map(str)
            | st.text(max_size=5)
        )
    table = "\n".join([header, *(",".join(row) for row in rows)]) + "\n"
    return table.encode("utf-8", "replace")


@pytest.mark.slow
@fuzz
@given(data=st.data())
def test_any_table_is_read_or_refused_in_a_sentence(folder, data):
    sound = folder / "sound" / "trials.csv"
    if not sound.exists():
        sound.parent.mkdir()
        table_text(sound)
    text = sound.read_text()
    content = data.draw(
        st.one_of(changed_tables(text), changed_texts([text]), changed_bytes([text]), st.binary())
    )
    file = folder / "fuzzed.csv"
    file.write_bytes(content)
    rows = read_or_refused(read_trials, file)
    if rows is None:
        return
    assert tuple(rows.columns) == COLUMNS
    assert (rows[list(COUNTS)] >= 0).all(axis=None)
    assert (rows["n_correct"] <= rows["n_images_per_chip"]).all()
    assert rows["analog_share"].between(0, 1).all()
    assert (rows["alpha"].isna() | (rows["alpha"] > 0) & (rows["alpha"] < math.inf)).all()
    assert rows["condition"].map(json.loads).map(lambda axes: isinstance(axes, dict)).all()
    if rows.empty:
        return
    again = folder / "again.csv"
    again.unlink(missing_ok=True)
    append_rows(rows, again)
    assert len(read_trials(again)) == len(rows)
