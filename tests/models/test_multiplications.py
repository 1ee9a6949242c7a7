"""Multiplications are counted by formula, and the audit of a study lists all of them."""

from pathlib import Path

import pandas as pd
import pytest
import torch
from torch import Tensor, nn

from analog_samson import program
from analog_samson.checkpoint import TrainingSpec, load_checkpoint
from analog_samson.models import build_model, multiplications, rewrite
from analog_samson.study import Study, collect
from analog_samson.training import train


class Small(nn.Module):
    """A transformer on rows of digits, with bare parameters of every kind."""

    def __init__(self) -> None:
        super().__init__()
        self.patch = nn.Linear(8, 16)
        self.cls = nn.Parameter(torch.zeros(1, 1, 16))
        self.pos = nn.Parameter(0.02 * torch.randn(1, 9, 16))
        self.scale = nn.Parameter(torch.ones(16))
        self.block = nn.TransformerEncoderLayer(16, 2, 32, batch_first=True, norm_first=True)
        self.head = nn.Linear(16, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = self.patch(x.flatten(1, 2))
        x = torch.cat([self.cls.expand(len(x), -1, -1), x], 1) + self.pos
        return self.head(self.scale * self.block(x)[:, 0])


def seeded(make, *args, **options) -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(7)
        return make(*args, **options).eval()


def products(network: nn.Module, image: Tensor) -> int:
    return sum(count.products for count in multiplications(network, image).values())


def test_a_transformer_has_the_multiplications_of_its_formula():
    tokens, width, hidden = 9, 16, 32
    found = multiplications(rewrite(seeded(Small)).network, torch.randn(1, 1, 8, 8))
    assert found["block.self_attn.q_proj"] == (tokens * width**2, 0)
    assert found["block.linear1"] == (tokens * width * hidden, 0)
    assert found["block"] == (2 * tokens**2 * width, 0)  # scores, and sums of values
    assert found["block.norm1"] == (0, 2 * tokens * width)
    assert found["scale"] == (0, width)
    assert "pos" not in found and "cls" not in found


def test_rewriting_changes_no_number_of_products():
    token_nets = {"char_lstm": (12,), "char_transformer": (12,)}
    others = {"vit_tiny": (3, 32, 32), "ds_cnn": (1, 40, 64), "keyword_lstm": (1, 40, 64)}
    for name, shape in {**token_nets, **others}.items():
        network = build_model(name, image_shape=shape, n_classes=10, seed=0).eval()
        x = torch.randint(10, (1, *shape)) if name in token_nets else torch.randn(1, *shape)
        assert products(network, x) == products(rewrite(network).network, x) > 0
    steps, width = 12, 128
    cells = multiplications(
        rewrite(build_model("char_lstm", image_shape=(12,), n_classes=10)).network,
        torch.zeros(1, steps, dtype=torch.long),
    )
    assert cells["lstm.l0"] == (0, 3 * steps * width)
    assert cells["lstm.l0.hh"] == cells["lstm.l0.ih"] == (4 * steps * width**2, 0)


def test_transposed_convolutions_count_their_inputs():
    network = nn.Sequential(nn.ConvTranspose2d(3, 4, 3, stride=2), nn.Conv2d(4, 4, 3, groups=2))
    x = torch.randn(1, 3, 5, 5)
    assert multiplications(network, x)["0"].products == 3 * 25 * 4 * 9
    assert multiplications(network, x)["1"].products == 4 * 81 * 2 * 9


@pytest.mark.slow
@pytest.mark.parametrize("keep_digital", [(), ("pos", "cls", "block.self_attn")])
def test_the_audit_of_a_study_lists_what_is_digital_with_its_share(keep_digital, tmp_path):
    spec = TrainingSpec(
        model=f"{Path(__file__).stem}:Small", epochs=1, optimizer="adamw", keep_digital=keep_digital
    )
    path, trust = train(spec, tmp_path), (Path(__file__).stem,)
    collect(Study("s", [path], ["pcm_like"], [1.0], n_chips=1, trust=trust), tmp_path / "s", jobs=1)
    audit = pd.read_csv(tmp_path / "s" / "audit.csv").set_index("layer")
    assert float(audit["parameter_share"].sum()) == pytest.approx(1.0)
    assert float(audit["multiplication_share"].sum()) == pytest.approx(1.0)
    assert audit.loc["pos", "n_parameters"] == 144 and not audit.loc["pos", "analog"]
    assert audit.loc["scale", "n_multiplications"] == 16
    assert not audit["traced"].any()
    chip = program(load_checkpoint(path, trust), "pcm_like")
    share = audit.loc[audit["analog"], "n_weights"].sum() / audit["n_weights"].sum()
    factors = audit.loc["scale", "n_weights"]
    assert chip.analog_share == pytest.approx(
        audit.loc[audit["analog"], "n_weights"].sum() / (audit["n_weights"].sum() - factors)
    )
    assert share <= chip.analog_share
    assert "compiled engine, tracing not decided yet" in repr(chip)
    chip(torch.randn(1, 1, 8, 8))
    assert "not traced" in repr(chip) and f"{100 * chip.analog_share:.1f} % of the w" in repr(chip)
