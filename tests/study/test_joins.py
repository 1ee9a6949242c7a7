"""Networks, data and scores that do not fit each other are refused in one sentence."""

import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from analog_samson import Study, collect
from analog_samson.checkpoint import TrainingSpec, load_checkpoint
from analog_samson.data import load_dataset
from analog_samson.models import build_model
from analog_samson.training import grid, read_option, train, train_grid

PARTS = """
import torch
from torch import nn
from analog_samson import score

class Tokens(nn.Module):
    def __init__(self, kind="", size=40, n_out=40):
        super().__init__()
        self.kind, self.embedding, self.head = kind, nn.Embedding(size, 8), nn.Linear(8, n_out)
    def forward(self, x):
        y = self.head(self.embedding(x))
        return {
            "": y, "turned": y.mT, "flat": y[..., 0], "last": y[:, -1], "short": y[:, :-1],
            "two": (y, y),
        }[self.kind]

class Two(nn.Module):
    def __init__(self, n_classes):
        super().__init__()
        self.a, self.b, self.head = nn.Linear(3, 4), nn.Linear(2, 4), nn.Linear(4, n_classes)
    def forward(self, a, b):
        return {"logits": self.head(self.a(a) + self.b(b))}

def broken(n_classes):
    raise RuntimeError("no weights here")
def nothing():
    return None
def linear(n_in=5, n_out=3):
    return nn.Linear(n_in, n_out)
def sized(image_shape, n_classes, width=4):
    return nn.Sequential(nn.Linear(*image_shape, width), nn.Linear(width, n_classes))

@score("lower")
def outputs_alone(outputs, targets):
    return outputs
@score("lower")
def one_number(outputs, targets):
    return outputs.mean()
@score("lower")
def failing(outputs, targets):
    raise KeyError("x")
@score("lower")
def not_a_number(outputs, targets):
    return outputs[:, 0] * float("nan")
@score("lower")
def mixed(outputs, targets):
    return (outputs - outputs.mean(0))[:, 0]
def undeclared(outputs, targets):
    return outputs[:, 0]
"""

BOOK = "book.txt,length=16,test_fraction=0.1"
LSTM = {"model": "char_lstm", "model_kwargs": {"width": 8, "layers": 1}}
HEADS = {"model": "char_transformer", "model_kwargs": {"width": 9, "heads": 4}}
TWO = {"model": "joined:Two", "output": "logits"}


def save(name, x, y, n=100):
    np.savez(name, x_train=x[:-n], y_train=y[:-n], x_test=x[-n:], y_test=y[-n:])


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A working directory with data of every task and a module of networks and scores."""
    folder = tmp_path_factory.mktemp("joins")
    draws = np.random.default_rng(0)
    x, classes = draws.normal(size=(400, 5)).astype(np.float32), np.arange(400) % 3
    tokens = draws.integers(20, size=(400, 12))
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.syspath_prepend(folder)
        Path("joined.py").write_text(PARTS)
        Path("book.txt").write_text("".join(map(chr, draws.integers(97, 115, size=6000))))
        save("classes.npz", x, classes)
        save("numbers.npz", x, x.sum(1))
        save("table.npz", draws.integers(9000, size=(400, 5)), classes)
        save("images.npz", draws.integers(255, size=(400, 3, 10, 9)).astype(np.uint8), classes)
        following = np.roll(tokens, -1, 1)
        following[350] = -100
        save("padded.npz", tokens, following)
        tokens = tokens.copy()
        tokens[399, 3] = 35
        save("words.npz", tokens, classes)
        yield folder
    sys.modules.pop("joined", None)


def trained(dataset, model="mlp", epochs=0, **options):
    spec = TrainingSpec(dataset=dataset, model=model, epochs=epochs, batch_size=16, **options)
    name = f"{abs(hash(spec.to_json())):x}"
    return train(spec, f"networks/{name}")


def studied(dataset, score, to="", trust=("joined",), study=None, **options):
    path = trained(dataset, **options)
    made = Study(
        "s", [path], ["ideal"], [1.0], 1, score=score, data_folder=".", trust=trust, **study or {}
    )
    return collect(made, f"results/{to or score.replace(':', '-')}")


def two_scores():
    studied("classes.npz", "cross_entropy", to="one")
    studied("classes.npz", "accuracy", to="one")


def of_tokens(**options):
    return lambda: trained(BOOK, "joined:Tokens", model_kwargs=options)


WRONG = {
    # a network, and data of another kind
    "features for a network of tokens": (
        lambda: trained("classes.npz", "char_lstm"),
        r"'char_lstm' does not run on inputs of shape \(5,\) .*Long, Int",
    ),
    "images for a network of tokens": (
        lambda: trained("images.npz", "char_transformer"),
        r"'char_transformer' cannot be built for inputs of shape \(3, 10, 9\) with 3 classes",
    ),
    "a text for a network of images": (
        lambda: trained(BOOK, "vit_tiny"),
        r"'vit_tiny' cannot be built for inputs of shape \(16,\) with 19 classes",
    ),
    "a text for a network of numbers": (
        lambda: trained(BOOK, "mlp"),
        r"'mlp' does not run on whole numbers \(tokens\) up to \d+, of shape \(16,\)",
    ),
    "a table of whole numbers": (
        lambda: trained("table.npz"),
        r"'mlp' does not run on whole numbers \(tokens\) .*; give floats, a model",
    ),
    "images that patches do not divide": (
        lambda: trained("images.npz", "vit_tiny"),
        r"into patches of 4 x 4 pixels; got 10 x 9",
    ),
    "a vector for convolutions": (
        lambda: trained("classes.npz", "ds_cnn"),
        r"'ds_cnn' does not run on inputs of shape \(5,\)",
    ),
    "one token to predict, a network of many": (
        lambda: trained(f"{BOOK},targets=last", **LSTM),
        r"gives \(1, 16, 19\) for one input of shape \(16,\); 19 classes need .* \(1, 19\)",
    ),
    "heads that do not divide the width": (
        lambda: trained(BOOK, **HEADS),
        r"cannot be built .*divisible by num_heads\); give a model or model_kwargs",
    ),
    "a width as text": (
        lambda: trained(BOOK, "char_lstm", model_kwargs={"width": "8"}),
        r"'char_lstm' cannot be built .*TypeError",
    ),
    # a network's outputs
    "vocabulary before length": (of_tokens(kind="turned"), r"gives \(1, 40, 16\) .*\(1, 16, 19\)"),
    "no vocabulary": (of_tokens(kind="flat"), r"gives \(1, 16\) .*\(1, 16, 19\)"),
    "one prediction a window": (of_tokens(kind="last"), r"gives \(1, 40\) .*\(1, 16, 19\)"),
    "a token less": (of_tokens(kind="short"), r"gives \(1, 15, 40\) .*\(1, 16, 19\)"),
    "two outputs": (of_tokens(kind="two"), r"gives a tuple of 2; say which to take"),
    "fewer outputs than tokens": (of_tokens(n_out=9), r"gives \(1, 16, 9\) .*\(1, 16, 19\)"),
    "token ids beyond the embedding": (
        of_tokens(size=9),
        r"does not run on whole numbers \(tokens\) up to \d+, .*index out of range",
    ),
    "a token id beyond the embedding in the test part": (
        lambda: trained("words.npz", "joined:Tokens", model_kwargs={"size": 20, "kind": "last"}),
        r"does not run on whole numbers \(tokens\) up to 35, .*index out of range",
    ),
    "more outputs than numbers to predict": (
        lambda: trained("numbers.npz", "joined:linear"),
        r"gives \(1, 3\) for one input of shape \(5,\); 1 numbers need a tensor of .* \(1, 1\)",
    ),
    # a factory
    "a factory that raises": (
        lambda: trained("classes.npz", "joined:broken"),
        r"'joined:broken' cannot be built .*\(RuntimeError: no weights here\)",
    ),
    "a factory that returns nothing": (
        lambda: trained("classes.npz", "joined:nothing"),
        r"'joined:nothing' returned NoneType, not an nn.Module",
    ),
    "an unknown factory": (lambda: trained("classes.npz", "joined:linaer"), r"has no 'linaer'"),
    "an unknown option": (
        lambda: trained("classes.npz", "joined:linear", model_kwargs={"inputs": 5}),
        r"does not take these options .*it takes \(n_in=5, n_out=3\)",
    ),
    # several inputs
    "inputs that do not add up": (
        lambda: trained("classes.npz", inputs={"a": "3", "b": "3"}, **TWO),
        r"a sample holds 5 numbers, and the inputs 'a' \(3,\), 'b' \(3,\) take 6",
    ),
    "inputs of other names": (
        lambda: trained("classes.npz", inputs={"a": "3", "c": "2"}, **TWO),
        r"unexpected keyword argument 'c'\); give a model, model_kwargs, inputs or output",
    ),
    "inputs not said": (lambda: trained("classes.npz", **TWO), r"missing .*argument: 'b'"),
    "an unknown output": (
        lambda: trained(
            "classes.npz", "joined:Two", inputs={"a": "3", "b": "2"}, output="logit"
        ),
        r"a dict with the keys 'logits', and output='logit' is no tensor of it",
    ),
    # targets
    "a window without targets": (
        lambda: trained("padded.npz", **LSTM),
        r"Row 50 of the test part of padded.npz has no target, all are -100; leave it out",
    ),
    # scores
    "accuracy of tokens": (
        lambda: studied(BOOK, "accuracy", **LSTM),
        r"'accuracy' is for classification, .*for tokens; choose cross_entropy, bits_per_token",
    ),
    "squared error of classes": (
        lambda: studied("classes.npz", "mse"),
        r"'mse' is for regression, .*for classification; choose accuracy",
    ),
    "cross entropy of a regression": (
        lambda: studied("numbers.npz", "cross_entropy"),
        r"is for classification and tokens, .*for regression; choose mse",
    ),
    "bits a token of classes": (
        lambda: studied("classes.npz", "bits_per_token"),
        r"'bits_per_token' is for tokens, .*for classification; choose accuracy",
    ),
    "the best five of three": (lambda: studied("classes.npz", "top5"), "always 100 % with the 3"),
    "a misspelled score": (lambda: studied("classes.npz", "acuracy"), "did you mean 'accuracy'"),
    "a score of wrong shape": (
        lambda: studied("classes.npz", "joined:outputs_alone"),
        r"returned \(2, 3\) for outputs \(2, 3\) and targets \(2,\); .*shape \(2,\)",
    ),
    "a score of all samples": (
        lambda: studied("classes.npz", "joined:one_number"),
        r"returned \(\) for outputs",
    ),
    "a score that raises": (
        lambda: studied("classes.npz", "joined:failing"),
        r"raised KeyError for outputs \(2, 3\) and targets \(2,\): 'x'; mend the function",
    ),
    "a score that is NaN": (
        lambda: studied("classes.npz", "joined:not_a_number"),
        r"is nan for sample 0; it must be finite",
    ),
    "a score that mixes samples": (
        lambda: studied("classes.npz", "joined:mixed"),
        r"if each is evaluated alone; the number of a sample must not depend on other samples",
    ),
    "a score without direction": (
        lambda: studied("classes.npz", "joined:undeclared"),
        r"does not say which values are better; put the decorator",
    ),
    "two scores in a folder": (
        two_scores,
        r"holds the score 'cross_entropy', and the study has 'accuracy'; .*another folder",
    ),
    # a study, and other data than those of the training
    "windows of another length": (
        lambda: studied(BOOK, "cross_entropy", study={"dataset": "book.txt,length=32"}, **LSTM),
        r"has dataset='book.txt,length=32', .*trained with other options, 'book.txt,length=16,",
    ),
    "another data set": (
        lambda: studied("classes.npz", "accuracy", study={"dataset": "numbers.npz"}),
        r"numbers.npz is not 'classes.npz' as it was trained on",
    ),
    "a network without trust": (
        lambda: studied("classes.npz", "accuracy", trust=(), model="joined:linear"),
        r"requires the import of 'joined:linear', .*--trust joined",
    ),
}  # fmt: skip


def test_there_are_more_than_30():
    assert len(WRONG) > 30


@pytest.mark.parametrize("case", WRONG)
def test_what_does_not_fit_is_one_sentence(case, folder):
    run, said = WRONG[case]
    with pytest.raises(ValueError, match=said) as caught:
        run()
    assert "\n" not in str(caught.value)
    assert str(caught.value).endswith((".", "?"))


def test_a_function_gets_the_shape_and_the_number_of_outputs_if_it_needs_them(folder):
    path = trained("classes.npz", "joined:sized", model_kwargs={"width": 6})
    checkpoint = load_checkpoint(path, ("joined",))
    assert dict(checkpoint.spec.model_kwargs) == {"width": 6}
    assert [tuple(w.shape) for w in checkpoint.build().parameters()][::2] == [(6, 5), (3, 6)]
    given = {"image_shape": [7], "n_classes": 2}
    network = build_model("joined:sized", image_shape=(5,), n_classes=3, options=given)
    assert network(torch.zeros(1, 7)).shape == (1, 2)


def test_a_grid_trains_a_network_of_several_inputs_as_the_command_line_names_them(folder):
    options = ["model=joined:Two", "output=logits", 'inputs={"a": "3", "b": "2"}', "batch_size=16"]
    common = {"dataset": "classes.npz", "epochs": 1} | dict(map(read_option, options))
    table = train_grid(grid(["sgd"], [0], common), "networks/grid", noise_sigma=0.1)
    assert list(table["failure"]) == [""]


def test_windows_of_a_text_without_known_targets_are_left_out(folder):
    Path("greek.txt").write_text("abcdefgh" * 90 + "xyz" * 20 + "abcdefgh" * 4)
    book = load_dataset("greek.txt,length=8,test_fraction=0.12", validation_fraction=0.05)
    assert len(book.test) > 2
    assert bool((book.test.labels != -100).any(1).all())
    assert not bool((book.test.labels != -100).all())


def test_the_audit_has_each_output_of_a_network(folder):
    kind = {"kind": "two"}
    paths = [
        trained(BOOK, "joined:Tokens", model_kwargs=kind, output=output, seed=output)
        for output in (0, 1)
    ]
    study = Study(
        "outputs", paths, ["ideal"], [1.0], 1, "cross_entropy", data_folder=".", trust=["joined"]
    )
    collect(study, "results/outputs")
    audit = pd.read_csv("results/outputs/audit.csv")
    assert audit["checkpoint"].nunique() == 2
