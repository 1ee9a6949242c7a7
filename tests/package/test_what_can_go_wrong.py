"""Every line of the table of docs/FAILURES.md: each is provoked and its message is compared."""

import errno
import logging
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from places import ROOT
from safetensors.torch import load_file, save_file
from torch import nn

from analog_samson import Study, collect, evaluation, load_device, program
from analog_samson.checkpoint import TrainingSpec, load_checkpoint
from analog_samson.compiled import kernels
from analog_samson.locks import sole_writer
from analog_samson.study import load_study
from analog_samson.study.sources import the_checkpoint
from analog_samson.training import train

PAGE = (ROOT / "docs" / "FAILURES.md").read_text(encoding="utf-8")
SECTION = PAGE.partition("## Failures")[2].partition("\n## ")[0]
LINES = dict(re.findall(r"^\| (?!failure \|)([^|:][^|]*?) \| (.*?) \|$", SECTION, re.M))

CASES: dict[str, Callable[..., str]] = {}


def line(name: str) -> Callable[[Callable[..., str]], Callable[..., str]]:
    def add(case: Callable[..., str]) -> Callable[..., str]:
        CASES[name] = case
        return case

    return add


def said(kind: type[Exception], action: Callable[[], object]) -> str:
    with pytest.raises(kind) as error:
        action()
    return str(error.value)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return train(TrainingSpec(epochs=1), tmp_path_factory.mktemp("networks"))


@pytest.fixture
def study(checkpoint: Path) -> Study:
    return Study("some", [checkpoint], ["pcm_like"], [1, 3600], n_chips=2, n_test=50)


@pytest.mark.slow
@pytest.mark.parametrize("name", LINES)
def test_it_happens_as_the_readme_says(name, study, tmp_path, monkeypatch, caplog):
    message = CASES[name](study=study, folder=tmp_path, patch=monkeypatch, log=caplog)
    for words in re.findall("“(.*?)”", LINES[name]):
        assert words in message


def test_the_table_has_a_case_for_every_line():
    assert list(LINES) == list(CASES)


@line("A study is killed, or the power fails, in the middle of a row")
def killed(study, folder, **_):
    collect(study, folder / "whole")
    whole = (folder / "whole" / "trials.csv").read_bytes()
    (folder / "cut").mkdir()
    (folder / "cut" / "trials.csv").write_bytes(whole[: int(0.7 * len(whole))])
    collect(study, folder / "cut")
    assert (folder / "cut" / "trials.csv").read_bytes() == whole
    return ""


@line("`scancel`, or Ctrl-C, while workers run")
def terminated(folder, **_):
    script = """
import sys, time
from analog_samson.commands import run_command
from analog_samson.running import run_jobs

def work(number):
    time.sleep(0.1 if number < 2 else 60)
    return number

def main() -> None:
    for number in run_jobs(work, range(4), jobs=2):
        print(number, flush=True)

if __name__ == "__main__":
    run_command(main, [])
"""
    (folder / "script.py").write_text(script)
    messages = []
    for number, code in ((signal.SIGTERM, 143), (signal.SIGINT, 130)):
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
        with subprocess.Popen([sys.executable, folder / "script.py"], **pipes) as process:
            assert process.stdout.readline()
            process.send_signal(number)
            messages.append(process.communicate()[1])
            assert process.returncode == code
    assert all("start again to resume" in message for message in messages)
    return messages[0]


@line("A second process writes the same table")
def second_writer(study, folder, **_):
    with sole_writer(folder / "trials.csv"):
        return said(OSError, lambda: collect(study, folder))


@line("Another study is written into the folder")
def another_study(study, folder, **_):
    collect(study, folder)
    return said(ValueError, lambda: collect(replace(study, name="other"), folder))


@line("The disk is full")
def disk_full(study, folder, patch, **_):
    collect(replace(study, n_chips=1), folder)
    before = (folder / "trials.csv").read_bytes()
    write = os.write

    def full(descriptor: int, data: bytes) -> int:
        if Path(f"/proc/self/fd/{descriptor}").readlink().name == "trials.csv":
            write(descriptor, bytes(data[:10]))
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return write(descriptor, data)

    with patch.context() as patched:
        patched.setattr(os, "write", full)
        message = said(OSError, lambda: collect(study, folder))
    assert (folder / "trials.csv").read_bytes() == before
    return message


@line("A row of `trials.csv` was edited")
def edited(study, folder, **_):
    collect(study, folder)
    table = folder / "trials.csv"
    rows = table.read_text().splitlines()
    rows[2] = rows[2].replace(",50,", ",-50,", 1)
    table.write_text("\n".join(rows) + "\n")
    return said(ValueError, lambda: collect(study, folder))


@line("`trials.csv` was saved by a spreadsheet")
def spreadsheet(study, folder, patch, **_):
    collect(study, folder)
    table = folder / "trials.csv"
    table.write_bytes(table.read_bytes().replace(b"\n", b"\r\n"))
    patch.setattr("analog_samson.study.collection.run_jobs", pytest.fail)
    return said(ValueError, lambda: collect(replace(study, n_chips=3), folder))


@line("The checkpoint changes while the study runs")
def changed_checkpoint(study, folder, **_):
    path = shutil.copy(study.checkpoints[0], folder)
    (trial, *_) = replace(study, checkpoints=[path]).trials()
    shutil.copy(train(TrainingSpec(epochs=1, seed=1), folder / "other"), path)
    return said(ValueError, lambda: the_checkpoint(trial.checkpoint_path, trial.checkpoint))


@line("A device was changed under its old name")
def changed_device(study, folder, **_):
    collect(study, folder)
    device = load_device("pcm_like")
    noise = device.noise.model_copy(update={"programming_noise_scale": 2.0})
    changed = replace(study, devices=[device.model_copy(update={"noise": noise})])
    return said(ValueError, lambda: collect(changed, folder))


def device_file(folder: Path, before: str, after: str) -> Path:
    text = (ROOT / "device_configs" / "pcm_like.toml").read_text()
    assert before in text
    (folder / "mine.toml").write_text(text.replace(before, after))
    return folder / "mine.toml"


@line("A typing error in a device file")
def misspelt(folder, **_):
    path = device_file(folder, "t_read_s", "read_noise_1f_skale = 1.0\nt_read_s")
    return said(ValueError, lambda: load_device(path))


@line("A number of the wrong kind in a device or study file")
def wrong_kind(folder, **_):
    path = folder / "study.toml"
    path.write_text('name="a"\ncheckpoints=["a"]\ndevices=["pcm_like"]\ntimes_s=["5"]\n')
    assert "times_s" in said((ValueError, FileNotFoundError), lambda: load_study(path))
    return said(
        ValueError, lambda: load_device(device_file(folder, "max_rows = 512", "max_rows = true"))
    )


@line("A time at which the device was not measured")
def unmeasured(study, folder, patch, **_):
    patch.setattr("analog_samson.study.collection.run_jobs", pytest.fail)
    return said(ValueError, lambda: collect(replace(study, devices=["reram_wan2022"]), folder))


@line("A checkpoint is truncated, or its header was edited")
def damaged_checkpoint(study, folder, **_):
    whole = study.checkpoints[0].read_bytes()
    cut, edited = folder / "cut.safetensors", folder / "edited.safetensors"
    cut.write_bytes(whole[:2000])
    edited.write_bytes(whole.replace(b'\\"n_classes\\": 10', b'\\"n_classes\\": -1'))
    messages = [said(ValueError, lambda path=path: load_checkpoint(path)) for path in (cut, edited)]
    assert all(str(folder) in message for message in messages)
    return " ".join(messages)


@line("Weights of a network are NaN")
def nan_weights(study, folder, **_):
    from safetensors import safe_open

    tensors = load_file(study.checkpoints[0])
    next(iter(tensors.values())).fill_(torch.nan)
    with safe_open(study.checkpoints[0], framework="pt") as file:
        save_file(tensors, folder / "nan.safetensors", metadata=file.metadata())
    return said(ValueError, lambda: load_checkpoint(folder / "nan.safetensors"))


@line("A checkpoint names code of an untrusted package")
def foreign_code(study, folder, **_):
    from safetensors import safe_open

    with safe_open(study.checkpoints[0], framework="pt") as file:
        header = {
            key: text.replace('\\"mlp\\"', '\\"os:system\\"')
            for key, text in file.metadata().items()
        }
    save_file(load_file(study.checkpoints[0]), folder / "os.safetensors", metadata=header)
    return said(ValueError, lambda: load_checkpoint(folder / "os.safetensors"))


@line("A layer cannot be mapped to arrays")
def no_analog_form(**_):
    model = nn.Sequential(nn.Linear(8, 8), nn.Bilinear(8, 8, 4))
    return said(ValueError, lambda: program(model, "ideal"))


class Hidden(nn.Module):
    """A matrix product with a buffer, beside an ordinary layer."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(8, 8)
        self.register_buffer("table", torch.ones(4, 8))

    def forward(self, x):
        return nn.functional.linear(self.layer(x), self.table)


@line("A product outside any layer, such as `F.linear` with a buffer")
def hidden_product(**_):
    return said(ValueError, lambda: program(Hidden(), "ideal", calibration=torch.rand(4, 8)))


@line("A network in float64 or half precision")
def other_precision(**_):
    with pytest.warns(UserWarning) as warned:
        program(nn.Sequential(nn.Linear(8, 8)).double(), "ideal")
    return str(warned[0].message)


@line("No C compiler")
def no_compiler(folder, patch, log, **_):
    patch.setenv("PATH", "")
    patch.setenv("XDG_CACHE_HOME", str(folder))
    with log.at_level(logging.WARNING):
        assert kernels.library.__wrapped__() is None
    return log.text


@line("bfloat16 on a processor without its instructions")
def no_bf16(study, patch, log, **_):
    patch.setattr(evaluation, "has_bf16_instructions", lambda: False)
    evaluation._warn_once.cache_clear()
    with log.at_level(logging.WARNING):
        replace(study, precision="bf16").trials()
    return log.text
