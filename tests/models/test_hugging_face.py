"""Networks of transformers, where it is installed: an encoder and a small decoder."""

import pytest
import torch

from analog_samson import program
from analog_samson.models import build_model

pytest.importorskip("transformers")
NAME = "analog_samson.models.hugging_face"
SMALL = {
    "BertForSequenceClassification": {
        "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2,
        "intermediate_size": 24, "vocab_size": 30, "num_labels": 3,
    },
    "GPT2LMHeadModel": {"n_embd": 16, "n_layer": 2, "n_head": 2, "vocab_size": 30},
}  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("engine", ["aihwkit", "compiled"])
@pytest.mark.parametrize("kind", SMALL)
def test_a_chip_without_noise_is_the_network(kind, engine):
    options = {"kind": kind, "config": SMALL[kind]}
    network = build_model(
        f"{NAME}:network", image_shape=(8,), n_classes=30, seed=0, options=options
    ).eval()
    tokens = torch.randint(30, (33, 8), generator=torch.Generator().manual_seed(3))
    how = {"engine": engine, "output": "logits", "rewrites": [f"{NAME}:conv1d"]}
    chip = program(network, "ideal", calibration=tokens, **how)
    with torch.no_grad():
        expected = network(tokens)["logits"]
    torch.testing.assert_close(chip(tokens), expected, rtol=1e-4, atol=1e-5)
    noisy = program(network, "pcm_like", calibration=tokens, **how)
    assert float((noisy(tokens) - expected).abs().max()) > 1e-3


def test_an_unknown_class_is_one_sentence():
    with pytest.raises(ValueError, match="transformers has no network 'Nothing'; name a class"):
        build_model(f"{NAME}:network", image_shape=(8,), n_classes=3, options={"kind": "Nothing"})
