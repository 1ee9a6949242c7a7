"""The commands of docs/NETWORKS.md, on a few samples and with small networks."""

import re
import shlex
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from places import ROOT

from analog_samson.models import MODELS
from analog_samson.training import grid, read_option, train_grid

PAGE = (ROOT / "docs" / "NETWORKS.md").read_text(encoding="utf-8")
(BLOCK,) = re.findall(r"^```console\n(.*?)^```", PAGE, re.M | re.S)
COMMANDS = {
    words[words.index("--model") + 1]: words
    for line in BLOCK.replace("\\\n", "").splitlines()
    if (words := shlex.split(line))
}
SMALL = {
    "resnet18": {"width": 8},
    "mobilenet_v2": {"width": 0.25},
    "ds_cnn": {"width": 8, "n_blocks": 1},
    "keyword_lstm": {"width": 8},
    "vit_tiny": {"width": 12, "depth": 1, "patch": 8},
    "char_lstm": {"width": 8, "layers": 1},
    "char_transformer": {"width": 8, "depth": 1},
}
SHAPES = {"mnist": (1, 28, 28), "cifar10": (3, 32, 32)}


def after(words, option):
    """The values of an option of a command line."""
    rest = words[words.index(option) + 1 :]
    last = next((i for i, word in enumerate(rest) if word.startswith("--")), len(rest))
    return rest[:last]


def few_samples(name):
    """A data set like the named one, in the working directory; returns its name."""
    draws = np.random.default_rng(0)
    if name.partition(",")[0].endswith(".txt"):
        Path("few.txt").write_text("".join(draws.choice(list("abcdefgh"), 4000)))
        return "few.txt," + name.partition(",")[2].replace("0.05", "0.2")
    x = draws.random((48, *SHAPES.get(name, (1, 40, 64)))).astype(np.float32)
    x = (255 * x).astype(np.uint8) if name in SHAPES else x
    y = np.arange(48) % 3
    np.savez("few.npz", x_train=x[:36], y_train=y[:36], x_test=x[36:], y_test=y[36:])
    return "few.npz"


def test_there_is_a_command_for_each_network():
    assert {*COMMANDS, "mlp"} == set(MODELS)


@pytest.mark.slow
@pytest.mark.parametrize("model", COMMANDS)
def test_the_command_trains(model, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    words = COMMANDS[model]
    options = dict(map(read_option, after(words, "--options")))
    small = {"epochs": 2, "batch_size": 6, "model_kwargs": SMALL.get(model, {})}
    (dataset,) = after(words, "--dataset")
    common = {"dataset": few_samples(dataset), "model": model, **options, **small}
    table = train_grid(grid(after(words, "--methods"), [0], common), "networks", noise_sigma=0.05)
    assert list(table["method"]) == ["samson", "sgd"]
    assert not table["failure"].any()
    assert float(after(words, "--epochs")[0]) >= 10
    for row in table["checkpoint"]:
        log = pd.read_csv(f"networks/{Path(row).with_suffix('.csv')}")
        assert np.isfinite(log["loss"].dropna()).all()
