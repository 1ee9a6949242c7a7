"""Attention and transformers are rewritten and compute what torch's own compute."""

import warnings
from itertools import product

import pytest
import torch
from torch import Tensor, nn

from analog_samson import program
from analog_samson.models import analog_layers, rewrite

ENGINES = ("aihwkit", "compiled")
pytestmark = [
    pytest.mark.filterwarnings("ignore:.*nested tensors is in prototype:UserWarning"),
    pytest.mark.filterwarnings("ignore:enable_nested_tensor is True:UserWarning"),
]


def seeded(make, *args, **options) -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(7)
        network = make(*args, **options).eval()
        for p in network.parameters():  # biases are zero at first, and gains one
            if p.ndim < 2 or not bool(p.any()):
                nn.init.normal_(p, 1.0 if bool(p.any()) else 0.0, 0.3)
        return network


def draws(*shape: int, seed: int = 3) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def assert_equal(found, expected) -> None:
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


def padding(batch: int, tokens: int) -> Tensor:
    return torch.arange(tokens) >= torch.tensor([tokens - i % 3 for i in range(batch)])[:, None]


OPTIONS = [
    {},
    {"bias": False},
    {"kdim": 6, "vdim": 5},
    {"add_bias_kv": True},
    {"add_zero_attn": True},
    {"add_bias_kv": True, "add_zero_attn": True},
]


@pytest.mark.parametrize("batch_first", [False, True])
@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_attention_computes_what_torch_computes(options, batch_first):
    layer = seeded(nn.MultiheadAttention, 8, 2, batch_first=batch_first, **options)
    network = rewrite(layer).network
    assert list(analog_layers(network)) == ["q_proj", "k_proj", "v_proj", "out_proj"]
    sizes = (8, options.get("kdim", 8), options.get("vdim", 8))
    batch, queries, keys = 3, 4, 6
    given = [draws(batch, n, c) for n, c in zip((queries, keys, keys), sizes, strict=True)]
    if not batch_first:
        given = [x.transpose(0, 1) for x in given]
    causal = torch.ones(queries, keys, dtype=torch.bool).triu(3)
    masks = [None, causal, draws(queries, keys), draws(2 * batch, queries, keys)]
    paddings = [None, padding(batch, keys)]
    for mask, left_out, need, average in product(masks, paddings, (True, False), (True, False)):
        how = {"attn_mask": mask, "need_weights": need, "average_attn_weights": average}
        if mask is not None and mask.dtype != torch.bool and left_out is not None:
            left_out = torch.zeros(left_out.shape).masked_fill(left_out, -torch.inf)
        how["key_padding_mask"] = left_out
        assert_equal(network(*given, **how), layer(*given, **how))
    one = [x[0] if batch_first else x[:, 0] for x in given]
    assert_equal(network(*one), layer(*one))
    mask = {"key_padding_mask": padding(1, keys)[0], "need_weights": False}
    assert_equal(network(*one, **mask), layer(*one, **mask))


LAYERS = list(product((False, True), (False, True), ("relu", "gelu"), (True, False)))


@pytest.mark.parametrize(("batch_first", "norm_first", "activation", "bias"), LAYERS)
def test_encoders_and_decoders_compute_what_torch_computes(
    batch_first, norm_first, activation, bias
):
    how = {"batch_first": batch_first, "norm_first": norm_first, "activation": activation}
    how |= {"dim_feedforward": 12, "bias": bias}
    encoder = seeded(nn.TransformerEncoder, nn.TransformerEncoderLayer(8, 2, **how), 2)
    decoder = seeded(nn.TransformerDecoder, nn.TransformerDecoderLayer(8, 2, **how), 2)
    batch, tokens = 3, 5
    x, memory = draws(batch, tokens, 8), draws(batch, 4, 8, seed=4)
    if not batch_first:
        x, memory = x.transpose(0, 1), memory.transpose(0, 1)
    causal = nn.Transformer.generate_square_subsequent_mask(tokens)
    of_layer, of_encoder, of_decoder = (
        rewrite(network) for network in (encoder.layers[0], encoder, decoder)
    )
    assert of_layer.kinds == {"": "TransformerEncoderLayer"}
    assert len(of_encoder.kinds) == len(of_decoder.kinds) == 2
    assert len(analog_layers(of_encoder.network)) == 12
    assert len(analog_layers(of_decoder.network)) == 20
    with torch.no_grad():  # torch takes its fast path
        for left_out in (None, padding(batch, tokens)):
            expected = encoder(x, src_key_padding_mask=left_out)
            found = of_encoder.network(x, src_key_padding_mask=left_out)
            if left_out is not None:  # the fast path gives zeros for what is padded
                counts = ~(left_out if batch_first else left_out.T)
                expected, found = expected[counts], found[counts]
            assert_equal(found, expected)
        assert_equal(of_encoder.network(x, mask=causal), encoder(x, mask=causal))
        assert_equal(of_layer.network(x), encoder.layers[0](x))
        one = x[0] if batch_first else x[:, 0]
        assert_equal(of_layer.network(one), encoder.layers[0](one))
        masks = {"tgt_mask": causal, "memory_key_padding_mask": padding(batch, 4)}
        assert_equal(of_decoder.network(x, memory, **masks), decoder(x, memory, **masks))


class Encoder(nn.Module):
    """Tokens first or the batch; called without gradients torch would take its fast path."""

    def __init__(self, batch_first: bool) -> None:
        super().__init__()
        layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=batch_first)
        self.body, self.batch_first = nn.TransformerEncoder(layer, 2), batch_first
        self.head = nn.Linear(8, 4)

    def forward(self, x: Tensor) -> Tensor:
        y = self.body(x if self.batch_first else x.transpose(0, 1))
        return self.head(y.mean(1 if self.batch_first else 0))


@pytest.mark.parametrize("batch_first", [False, True])
@pytest.mark.parametrize("engine", ENGINES)
def test_a_chip_without_noise_is_the_network(engine, batch_first):
    network, x = seeded(Encoder, batch_first), draws(5, 6, 8)
    chip = program(network, "ideal", engine=engine)
    with torch.no_grad():
        torch.testing.assert_close(chip(x), network(x), rtol=1e-4, atol=1e-5)
    assert len(chip.weights()) == 13


@pytest.mark.parametrize("batch_first", [False, True])
@pytest.mark.parametrize("engine", ENGINES)
def test_noise_reaches_every_layer_and_does_not_depend_on_the_batch(engine, batch_first):
    network, x = seeded(Encoder, batch_first), draws(70, 6, 8)
    chip = program(network, "pcm_like", calibration=x, engine=engine)
    whole = chip(x)
    parts = torch.cat([chip(part, first) for first, part in ((0, x[:33]), (33, x[33:]))])
    torch.testing.assert_close(parts, whole, rtol=1e-4, atol=1e-4)
    for name in chip.weights():
        others = [other for other in chip.weights() if other != name]
        alone = program(network, "pcm_like", calibration=x, engine=engine, keep_digital=others)
        with torch.no_grad():
            assert float((alone(x) - network(x)).abs().max()) > 1e-4, name


def test_transformers_of_torch_are_rewritten_whole():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        network = seeded(nn.Transformer, 8, 2, 1, 1, 16, batch_first=True)
    rewriting = rewrite(network)
    assert set(rewriting.kinds.values()) == {"TransformerEncoderLayer", "TransformerDecoderLayer"}
    x, y = draws(2, 5, 8), draws(2, 4, 8, seed=4)
    with torch.no_grad():
        assert_equal(rewriting.network(x, y), network(x, y))
