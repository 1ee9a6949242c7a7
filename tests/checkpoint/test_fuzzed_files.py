"""Damaged checkpoints and chip files: the right object, or one sentence that names the file.

Examples are the same in every run; ``ANALOG_SAMSON_FUZZ=10000`` takes as many, at random.
"""

import copy
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from places import GOLDEN
from safetensors.torch import save_file
from torch import Tensor

from analog_samson import load_device
from analog_samson.checkpoint import Checkpoint, load_checkpoint, read_tensors
from analog_samson.chip import Chip, load_chip, program

OLD_CHECKPOINT = GOLDEN / "digits-mlp-format1.safetensors"
N_EXAMPLES = int(os.environ.get("ANALOG_SAMSON_FUZZ", "0"))

fuzzed = settings(
    max_examples=N_EXAMPLES or 150,
    derandomize=not N_EXAMPLES,
    database=None,
    deadline=None,
    suppress_health_check=list(HealthCheck),
)

DTYPES = [
    *(torch.float64, torch.float16, torch.bfloat16, torch.float8_e4m3fn, torch.float8_e5m2),
    *(torch.int8, torch.int16, torch.int32, torch.int64, torch.uint8, torch.uint16, torch.uint64),
    *(torch.bool, torch.complex64),
]

leaves = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-3, 40),
    st.sampled_from([2**31, 2**63, -(2**64), 10**30, 10**400]),
    st.floats(),
    st.sampled_from(["", "10", "inf", "NaN", "digits", "os:system", "a\nb", "\ud800", "../x"]),
    st.text(max_size=5),
)
values = st.recursive(
    leaves,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner),
    max_leaves=4,
)


def places(content: Any, above: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Where something stands in nested lists and dictionaries."""
    inside = (
        content.items()
        if isinstance(content, dict)
        else enumerate(content)
        if isinstance(content, list)
        else ()
    )
    return [p for key, value in inside for p in [(*above, key), *places(value, (*above, key))]]


@st.composite
def mutated(draw: Callable[..., Any], content: Any) -> Any:
    """The content with one to three values replaced, dropped or added anywhere."""
    content = copy.deepcopy(content)
    for _ in range(draw(st.integers(1, 3))):
        found = places(content)
        *way, last = draw(st.sampled_from(found)) if found else [""]
        parent = content
        for key in way:
            parent = parent[key]
        how = draw(st.sampled_from(["replace", "replace", "drop", "add"]))
        if how == "replace" or isinstance(parent, list):
            parent[last] = draw(values)
        elif how == "drop":
            parent.pop(last, None)
        else:
            parent[draw(st.text(max_size=4))] = draw(values)
    return content


@st.composite
def damaged(draw: Callable[..., Any], content: bytes) -> bytes:
    """Bytes cut short, overwritten, or others altogether."""
    how = draw(st.sampled_from(["cut", "overwrite", "insert", "header", "anything"]))
    at = draw(st.integers(0, len(content) - 1))
    some = draw(st.binary(min_size=1, max_size=9))
    if how == "cut":
        return content[:at]
    if how == "overwrite":
        return content[:at] + some + content[at + len(some) :]
    if how == "insert":
        return content[:at] + some + content[at:]
    if how == "header":  # the length of the header stands in the first 8 bytes
        at %= 2500
        return content[:at] + some + content[at + len(some) :]
    return draw(st.binary(max_size=200))


spoiling = st.tuples(
    st.integers(0, 99),
    st.one_of(
        st.sampled_from(["drop", "scalar", *DTYPES]),
        st.text("ab./0", min_size=1, max_size=3),
        st.integers(0, 3),
        st.floats(width=32),
    ),
)
"""Which tensor, and what happens to it: dropped, or another type, name, length or value."""


def spoiled(tensors: dict[str, Tensor], number: int, how: Any) -> dict[str, Tensor]:
    tensors = dict(tensors)
    name = sorted(tensors)[number % len(tensors)]
    tensor = tensors.pop(name)
    match how:
        case "drop":
            pass
        case "scalar":
            tensors[name] = torch.tensor(1.0)
        case torch.dtype():
            tensors[name] = tensor.to(how)
        case str():
            tensors[name + how] = tensor
        case int():
            tensors[name] = tensor.reshape(-1)[:how].clone()
        case _:
            tensors[name] = torch.full_like(tensor, how)
    return tensors


def outcome(path: Path, load: Callable[[], Any]) -> Any:
    """What was loaded, or the sentence."""
    try:
        return load()
    except ValueError as error:
        sentence = str(error)
        assert str(path) in sentence, sentence
        assert len(sentence) < 4000
        return sentence


def open_and_build(path: Path) -> Any:
    def both() -> Checkpoint:
        checkpoint = load_checkpoint(path)
        checkpoint.build()
        return checkpoint

    found = outcome(path, both)
    assert isinstance(found, str | Checkpoint)
    return found


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("fuzzed") / "net.safetensors"


def write(path: Path, tensors: dict[str, Tensor], header: Any) -> None:
    save_file(tensors, path, metadata={"analog_samson": json.dumps(header)})


TENSORS, HEADER = read_tensors(OLD_CHECKPOINT)
OPEN = {**HEADER, "spec": json.loads(HEADER["spec"])}


@fuzzed
@given(content=damaged(OLD_CHECKPOINT.read_bytes()))
def test_a_checkpoint_of_any_bytes(content: bytes, path: Path) -> None:
    path.write_bytes(content)
    open_and_build(path)


@pytest.mark.slow
@fuzzed
@given(header=mutated(OPEN), is_text=st.booleans())
def test_a_checkpoint_with_any_header(header: Any, is_text: bool, path: Path) -> None:
    if isinstance(header, dict) and is_text and "spec" in header:
        header["spec"] = json.dumps(header["spec"])
    write(path, TENSORS, header)
    found = open_and_build(path)
    if isinstance(found, Checkpoint):
        assert all(0 < value < float("inf") for value in found.input_ranges.values())
        assert 0 <= found.accuracy_digital <= 1
        assert len(found.digest) == 64


@pytest.mark.slow
@fuzzed
@given(header=mutated(OPEN["spec"]))
def test_a_checkpoint_with_any_specification(header: Any, path: Path) -> None:
    write(path, TENSORS, HEADER | {"spec": json.dumps(header)})
    open_and_build(path)


@pytest.mark.slow
@fuzzed
@given(header=values)
def test_a_checkpoint_with_a_header_of_any_kind(header: Any, path: Path) -> None:
    write(path, TENSORS, header)
    assert isinstance(open_and_build(path), str)


@pytest.mark.slow
@fuzzed
@given(how=spoiling)
def test_a_checkpoint_with_any_tensors(how: tuple[int, Any], path: Path) -> None:
    write(path, spoiled(TENSORS, *how), HEADER)
    found = open_and_build(path)
    if isinstance(found, Checkpoint):
        assert set(found.state) == set(TENSORS)


@pytest.fixture(scope="module")
def chip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A chip with every kind of state: drift exponents and stuck devices."""
    content = load_device("pcm_like").model_dump() | {"faults": {"stuck_low": 0.1}}
    device = type(load_device("pcm_like")).model_validate(content)
    folder = tmp_path_factory.mktemp("chips")
    return program(OLD_CHECKPOINT, device, seed=1).drift_to(10.0).save(folder / "chip.safetensors")


NETWORK = load_checkpoint(OLD_CHECKPOINT)


def open_chip(path: Path) -> Chip | str:
    found = outcome(path, lambda: load_chip(path, NETWORK))
    assert isinstance(found, str | Chip)
    return found


@pytest.mark.slow
@fuzzed
@given(data=st.data())
def test_a_chip_of_any_bytes(data: st.DataObject, chip: Path, path: Path) -> None:
    path.write_bytes(data.draw(damaged(chip.read_bytes())))
    open_chip(path)


# numpy's warning of a device whose reads last longer than it has existed comes before the sentence
@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:invalid value encountered in sqrt:RuntimeWarning")
@fuzzed
@given(data=st.data())
def test_a_chip_with_any_header(data: st.DataObject, chip: Path, path: Path) -> None:
    tensors, header = read_tensors(chip)
    write(path, tensors, data.draw(mutated(header)))
    open_chip(path)


@pytest.mark.slow
@fuzzed
@given(how=spoiling)
def test_a_chip_with_any_tensors(how: tuple[int, Any], chip: Path, path: Path) -> None:
    tensors, header = read_tensors(chip)
    write(path, spoiled(tensors, *how), header)
    found = open_chip(path)
    if isinstance(found, Chip):
        assert all(bool(w.isfinite().all()) for w in found.weights().values())
