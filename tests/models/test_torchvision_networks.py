"""Networks of torchvision with random weights: on arrays without noise they are themselves."""

import pytest
import torch
from torch import nn

from analog_samson import program
from analog_samson.models import build_model

SIZES = {"image_size": 32, "patch_size": 8, "num_layers": 2, "num_heads": 2}
SIZES |= {"hidden_dim": 16, "mlp_dim": 24, "num_classes": 10}
NETWORKS = {
    "mobilenet_v3_small": ({}, "compiled"),
    "VisionTransformer": (SIZES, "compiled"),
    "VisionTransformer on tiles": (SIZES, "aihwkit"),
}


@pytest.mark.slow
@pytest.mark.parametrize("case", NETWORKS)
def test_a_chip_without_noise_is_the_network(case):
    options, engine = NETWORKS[case]
    pytest.importorskip("torchvision")
    name = f"torchvision.models:{case.split()[0]}"
    network = build_model(name, image_shape=(3, 32, 32), n_classes=10, seed=0, options=options)
    for p in network.eval().parameters():
        if not bool(p.any()):  # a head of zeros has no scale to map it with
            nn.init.normal_(p, std=0.02)
    x = torch.randn(33, 3, 32, 32, generator=torch.Generator().manual_seed(3))
    with torch.no_grad():
        expected = network(x)
    chip = program(network, "ideal", calibration=x[:2], engine=engine)
    atol = 1e-4 * float(expected.abs().max())
    torch.testing.assert_close(chip(x), expected, rtol=0, atol=atol)
    assert chip.analog_share > 0.95
