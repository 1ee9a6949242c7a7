"""Claims about forward passes: what arrays would not compute is refused by name, never dropped."""

import copy
import random
import warnings
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils import parametrizations

from analog_samson import load_device, program
from analog_samson.chip import ChipGroup, load_chip
from analog_samson.models import analog_layers, build_model, check_forward
from analog_samson.times import DAY

ENGINES = ["aihwkit", "compiled"]
N = 8


def images(n=5, *shape, seed=3) -> Tensor:
    return torch.randn(n, *(shape or (N,)), generator=torch.Generator().manual_seed(seed))


def seeded(factory, *args):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return factory(*args).eval()


class Net(nn.Module):
    """Two analog layers and, between them, what a test is about."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(N, N), nn.Linear(N, 4)
        self.add()

    def add(self) -> None:
        pass

    def between(self, x: Tensor) -> Tensor:
        return x

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.between(torch.relu(self.first(x))))


# products with what does not depend on the input


class WithBuffer(Net):
    def add(self):
        self.register_buffer("table", torch.randn(N, N))


class LinearOfBuffer(WithBuffer):
    def between(self, x):
        return F.linear(x, self.table)


class AtBuffer(WithBuffer):
    def between(self, x):
        return x @ self.table


class Inference(WithBuffer):
    def between(self, x):
        with torch.inference_mode():
            return F.linear(x, self.table)


class Einsum(WithBuffer):
    def between(self, x):
        return torch.einsum("bi,ij->bj", x, self.table)


class Bmm(WithBuffer):
    def between(self, x):
        return torch.bmm(x[None], self.table[None])[0]


class Baddbmm(WithBuffer):
    def between(self, x):
        return torch.baddbmm(x[None], x[None], self.table[None])[0]


class Addmm(WithBuffer):
    def between(self, x):
        return torch.addmm(x, x, self.table)


class Sparse(WithBuffer):
    def between(self, x):
        return torch.sparse.mm(self.table.to_sparse(), x.T).T


class ThroughAView(WithBuffer):
    """What depends on the input was written into a part of another tensor."""

    def between(self, x):
        whole = torch.zeros(len(x), 2 * N)
        whole[:, :N].copy_(x)
        return whole[:, :N] @ self.table


class ThroughManyAtOnce(WithBuffer):
    """What depends on the input was written by an operation that returns nothing."""

    def between(self, x):
        whole = torch.zeros(len(x), N)
        torch._foreach_add_([whole], [x])
        return whole @ self.table


class Computed(WithBuffer):
    def between(self, x):
        return x @ (self.table - self.table.mean(0)).T


class Blur(Net):
    def add(self):
        self.register_buffer("table", torch.ones(1, 1, 3) / 3)

    def between(self, x):
        return F.conv1d(x[:, None], self.table, padding=1)[:, 0]


class PlainTensor(Net):
    def add(self):
        self.table = torch.randn(N, N)

    def between(self, x):
        return x @ self.table


class Vector(Net):
    def add(self):
        self.table = torch.randn(N)

    def between(self, x):
        return x + torch.mv(x, self.table)[:, None]


class Attention(Net):
    """A memory that queries are multiplied with."""

    def add(self):
        self.table = torch.randn(1, 6, N)

    def between(self, x):
        return F.scaled_dot_product_attention(x[:, None], *[self.table.expand(len(x), -1, -1)] * 2)[
            :, 0
        ]


PRODUCTS = [LinearOfBuffer, AtBuffer, Inference, Einsum, Bmm, Baddbmm, Addmm, Sparse, ThroughAView]
PRODUCTS += [ThroughManyAtOnce, Computed, Blur, PlainTensor, Vector, Attention]


@pytest.mark.filterwarnings("ignore:Sparse:UserWarning")
@pytest.mark.parametrize("kind", PRODUCTS, ids=lambda kind: kind.__name__)
def test_a_product_with_what_is_no_layer_is_named_and_may_be_kept_digital(kind):
    network, x = seeded(kind), images(1)
    with pytest.raises(ValueError, match=r"'table'.*keep_digital=\['table'\]"):
        check_forward(network, x)
    assert not check_forward(network, x, ["table"])
    assert set(analog_layers(network, ["table"])) == {"first", "last"}


class Hidden(Net):
    def add(self):
        self.blocks = [nn.Linear(N, N)]

    def between(self, x):
        return self.blocks[0](x)


def test_a_layer_in_a_python_list_is_named():
    network = seeded(Hidden)
    with pytest.raises(ValueError, match=r"'blocks\.0\.weight'.*ModuleList"):
        program(network, "ideal", calibration=images())
    program(network, "ideal", calibration=images(), keep_digital=["blocks"])


class Constant(Net):
    def between(self, x):
        return x @ _TABLE


_TABLE = torch.randn(N, N, generator=torch.Generator().manual_seed(7))


def test_a_constant_without_a_name_is_described_by_place_and_shape():
    network = nn.Sequential()
    network.add_module("block", seeded(Constant))
    with pytest.raises(ValueError, match=r"'block' multiplies \(mm\) by a 8 x 8 tensor"):
        check_forward(network, images(1))
    with pytest.raises(ValueError, match="no layer for arrays"):
        check_forward(network, images(1), ["block"])  # all that is below it, too


@pytest.mark.filterwarnings("ignore:torch.ao.quantization is deprecated:DeprecationWarning")
@pytest.mark.filterwarnings("ignore:.*quantize:UserWarning")
def test_quantised_layers_are_named():
    if "fbgemm" not in torch.backends.quantized.supported_engines:
        pytest.skip("no quantised kernels")
    part = nn.Sequential(nn.Linear(N, N), nn.ReLU())
    quantised = torch.ao.quantization.quantize_dynamic(part, {nn.Linear}, dtype=torch.qint8)
    network = nn.Sequential(nn.Linear(N, N), quantised, nn.Linear(N, 4)).eval()
    with pytest.raises(ValueError, match=r"'1\.0' multiplies .* packed weights"):
        check_forward(network, images(1))
    assert not check_forward(network, images(1), ["1"])


class Bilinear(Net):
    def add(self):
        self.odd = nn.Bilinear(N, N, N)

    def between(self, x):
        return self.odd(x, x)


class Recurrent(Net):
    def add(self):
        self.odd = nn.LSTM(N, N, batch_first=True)

    def between(self, x):
        return self.odd(x[:, None])[0][:, 0]


class Heads(Net):
    def add(self):
        self.odd = nn.MultiheadAttention(N, 2, batch_first=True)

    def between(self, x):
        return self.odd(x[:, None], x[:, None], x[:, None])[0][:, 0]


@pytest.mark.parametrize("kind", [Bilinear, Recurrent, Heads], ids=lambda kind: kind.__name__)
def test_modules_kept_digital_may_multiply(kind):
    assert not check_forward(seeded(kind), images(1), ["odd"])


class Scores(Net):
    """Products of two tensors that both depend on the input."""

    def between(self, x):
        q = x.view(-1, 2, N // 2)
        return F.scaled_dot_product_attention(q, q, q).flatten(1) + (q @ q.mT).sum()


class OfConstants(Net):
    """An analog layer with a constant input, and products of constants alone."""

    def add(self):
        self.places = nn.Linear(2, N)
        self.register_buffer("grid", torch.randn(2, 2))

    def between(self, x):
        return x + self.places(self.grid @ self.grid).sum(0)


class Branches(Net):
    def between(self, x):
        return x if float(x.sum()) > 0 else -x


class Several(Net):
    def forward(self, x):
        y = self.first(x)
        return {"logits": self.last(y), "parts": (y, [x > 0])}


class Writes(Net):
    """Statistics in buffers, a generator that is used."""

    def add(self):
        self.norm, self.drop = nn.BatchNorm1d(N), nn.Dropout(0.5)
        self.register_buffer("seen", torch.zeros(()))

    def between(self, x):
        self.seen += 1
        return self.drop(self.norm(x)) + 0 * torch.rand(len(x), N)


@pytest.mark.parametrize(
    "kind", [Scores, OfConstants, Branches, Several, Writes], ids=lambda kind: kind.__name__
)
def test_whatever_else_a_forward_does_passes(kind):
    assert not check_forward(seeded(kind), images(1))


@pytest.mark.parametrize("name", ["mlp", "lenet5", "resnet8", "mobilenet_v2"])
def test_our_networks_pass(name):
    network = build_model(name, image_shape=(1, 28, 28), n_classes=10, seed=0)
    assert not check_forward(network, images(1, 1, 28, 28))


def test_parametrised_layers_pass():
    first = parametrizations.weight_norm(nn.Linear(N, N))
    assert not check_forward(nn.Sequential(first, nn.Linear(N, 4)), images(1))


def test_a_check_changes_nothing():
    network = seeded(Writes).train()
    network.drop.eval()
    before = copy.deepcopy(network.state_dict())
    generators = torch.random.get_rng_state(), random.getstate()
    check_forward(network, images(1))
    assert network.training
    assert not network.drop.training
    assert all(torch.equal(value, before[key]) for key, value in network.state_dict().items())
    assert torch.equal(torch.random.get_rng_state(), generators[0])
    assert random.getstate() == generators[1]
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in network.modules())


# elementwise products


class Gains(Net):
    def add(self):
        self.gamma = nn.Parameter(torch.rand(N))
        self.register_buffer("gain", torch.tensor(0.5))

    def between(self, x):
        return 3 * x * self.gamma / self.gain


def test_elementwise_products_are_digital_and_counted():
    entries = check_forward(seeded(Gains), images(1))
    found = {e.name: (e.kind, e.n_weights, e.analog, e.is_refused) for e in entries}
    kind = "elementwise product"
    assert found == {"gamma": (kind, N, False, False), "gain": (kind, 1, False, False)}
    assert all("digital by nature" in entry.reason for entry in entries)


# products that are hidden from a list of products


class OutOfTorch(WithBuffer):
    def between(self, x):
        return x + torch.from_numpy(x.numpy() @ self.table.numpy())


class OutOfTorchInLists(WithBuffer):
    def between(self, x):
        return x + torch.tensor(x.tolist()) @ self.table


class InNumbers(WithBuffer):
    def between(self, x):
        return x + sum(self.table[i] * float(x[0, i]) for i in range(N))


class InAThread(WithBuffer):
    def between(self, x):
        with ThreadPoolExecutor(1) as pool:
            return x + pool.submit(lambda: x @ self.table).result()


class OutputOutOfTorch(WithBuffer):
    def forward(self, x):
        return super().forward(x), torch.from_numpy(x.numpy() @ self.table.numpy())


OUTSIDE = [OutOfTorch, OutOfTorchInLists, InNumbers, InAThread, OutputOutOfTorch]


@pytest.mark.parametrize("kind", OUTSIDE, ids=lambda kind: kind.__name__)
def test_products_outside_torch_are_refused(kind):
    with pytest.raises(ValueError, match="outside torch|factor that does not depend on the input"):
        program(seeded(kind), "ideal", calibration=images())


class ConstantsFromOutside(Net):
    def between(self, x):
        return (x - torch.tensor([0.5] * N)) / torch.from_numpy(np.ones(N, dtype=np.float32))


def test_constants_from_outside_torch_pass():
    check_forward(seeded(ConstantsFromOutside), images(1))


class Solved(WithBuffer):
    def between(self, x):
        return torch.linalg.solve(self.table, x.T).T


class Distances(WithBuffer):
    def between(self, x):
        return torch.cdist(x, self.table)


class BagOfRows(WithBuffer):
    def between(self, x):
        rows = torch.arange(N).expand(len(x), N)
        return F.embedding_bag(rows, self.table, per_sample_weights=x, mode="sum")


class MultipliedAndSummed(WithBuffer):
    def between(self, x):
        return (x[:, None] * self.table).sum(-1)


class InFrequencies(WithBuffer):
    def between(self, x):
        image = torch.fft.rfft2(x[:, None].expand(-1, N, -1)) * torch.fft.rfft2(self.table)
        return torch.fft.irfft2(image)[:, 0]


class PlusNothing(WithBuffer):
    def between(self, x):
        return x @ (self.table + 0 * x.sum())


class Joined(WithBuffer):
    def between(self, x):
        both = torch.cat([x, self.table])
        return both[: len(x)] @ both[len(x) :]


HIDDEN = [
    Solved, Distances, BagOfRows, MultipliedAndSummed, InFrequencies, PlusNothing, Joined
]  # fmt: skip


@pytest.mark.parametrize("kind", HIDDEN, ids=lambda kind: kind.__name__)
def test_other_products_with_constants_are_refused(kind):
    with pytest.raises(ValueError, match="multiplies"):
        program(seeded(kind), "ideal", calibration=images())
    program(seeded(kind), "ideal", calibration=images(), keep_digital=[""])


class PositionsAndMasks(Net):
    """Constants of two dimensions that multiply nothing."""

    def add(self):
        self.register_buffer("table", torch.randn(4, N))

    def between(self, x):
        y = x[:, None] + self.table
        y = torch.where(self.table > 0, y, self.table)
        y = torch.maximum(torch.cat([y, self.table[None].expand(len(x), -1, -1)]), -self.table)
        rotated = torch.view_as_complex(y.reshape(-1, 4, N // 2, 2)) * torch.polar(
            torch.ones(4, N // 2), self.table[:, : N // 2]
        )
        y = F.layer_norm(torch.view_as_real(rotated).flatten(2) * self.table, (N,))
        return F.scaled_dot_product_attention(y, y, y).mean(1)[: len(x)]


def test_constants_of_two_dimensions_that_multiply_nothing_pass():
    check_forward(seeded(PositionsAndMasks), images(2))


class OnTwoImages(WithBuffer):
    def between(self, x):
        return x if len(x) == 1 else x @ self.table


def test_a_batch_of_two_is_checked():
    with pytest.raises(ValueError, match="'table'"):
        program(seeded(OnTwoImages), "ideal", calibration=images())


class Counts(Net):
    def between(self, x):
        self.calls = getattr(self, "calls", 0) + 1
        return x * self.calls


class CountsInABuffer(Net):
    def add(self):
        self.register_buffer("calls", torch.zeros(()))

    def between(self, x):
        self.calls += 1
        return x * self.calls


class AlwaysDrops(Net):
    def between(self, x):
        return F.dropout(x, 0.5, training=True)


class NoiseOnWeights(nn.Module):
    def forward(self, weight):
        return weight + torch.randn_like(weight)


def with_noise():
    network = Net()
    nn.utils.parametrize.register_parametrization(network.last, "weight", NoiseOnWeights())
    return network


@pytest.mark.parametrize("make", [Counts, CountsInABuffer, AlwaysDrops, with_noise])
def test_networks_that_are_no_function_of_their_input_are_refused(make):
    with pytest.raises(ValueError, match="different outputs for the same input"):
        program(seeded(make), "ideal", calibration=images())


class UnderAutocast(Net):
    def forward(self, x):
        with torch.autocast("cpu", dtype=torch.bfloat16):
            return super().forward(x)


@pytest.mark.parametrize("engine", ENGINES)
def test_autocast_within_a_network_is_refused(engine):
    with pytest.raises(ValueError, match="forward uses autocast"):
        program(seeded(UnderAutocast), "ideal", calibration=images(), engine=engine)


@pytest.mark.parametrize("is_transposed", [False, True])
def test_weights_in_the_same_memory_are_shared(is_transposed):
    first, second = nn.Linear(N, N), nn.Linear(N, N)
    second.weight.data = first.weight.data.T if is_transposed else first.weight.data
    with pytest.raises(ValueError, match="'0' .*shares its weights with '1'"):
        analog_layers(nn.Sequential(first, second))


def test_weights_in_parts_of_one_vector_are_not_shared():
    network = seeded(Net)
    vector = nn.utils.parameters_to_vector(network.parameters())
    nn.utils.vector_to_parameters(vector, network.parameters())
    assert list(analog_layers(network)) == ["first", "last"]


# layers that compute something else


def doubling(_, args):
    return (2 * args[0],)


def test_hooks_and_patched_forwards_of_analog_layers_are_refused_by_name():
    network = seeded(Net)
    for register in (network.last.register_forward_pre_hook, network.last.register_forward_hook):
        handle = register(lambda *_: None)
        with pytest.raises(ValueError, match=r"'last' \(Linear\): it has forward hooks"):
            program(network, "ideal")
        program(network, "ideal", keep_digital=["last"])
        handle.remove()
    plain = network.last.forward
    network.last.forward = lambda x: 2 * plain(x)
    with pytest.raises(ValueError, match=r"'last' \(Linear\): its forward is patched"):
        program(network, "ideal")


@pytest.mark.parametrize("engine", ENGINES)
def test_hooks_of_other_modules_run_on_the_chip(engine):
    network = nn.Sequential(nn.Linear(N, N), nn.ReLU(), nn.Linear(N, 4))
    network[1].register_forward_pre_hook(doubling)
    x = images()
    chip = program(network, "ideal", calibration=x, engine=engine)
    torch.testing.assert_close(chip(x), network(x).detach(), rtol=1e-5, atol=1e-6)


def test_a_patched_forward_that_uses_the_original_network_is_refused():
    network = seeded(Net)
    plain = network.forward
    network.forward = lambda x: 2 * plain(x)  # in a copy it still runs the original
    with pytest.raises(ValueError, match=r"'first\.weight'"):
        program(network, "ideal", calibration=images())


class ByType(Net):
    def between(self, x):
        return 2 * x if isinstance(self.first, nn.Linear) else x


class ReadsWeights(Net):
    def between(self, x):
        return F.linear(x, self.first.weight)


def test_what_depends_on_more_than_a_layers_output_is_refused():
    with pytest.raises(ValueError, match="the outputs differ by"):
        program(seeded(ByType), "ideal", calibration=images())
    with pytest.raises(ValueError, match="not read their weights"):
        program(seeded(ReadsWeights), "ideal", calibration=images())
    program(seeded(ReadsWeights), "ideal", calibration=images(), keep_digital=["first"])


class ThroughNumpy(Net):
    def forward(self, x):
        return torch.from_numpy(super().forward(x).numpy())


def test_what_leaves_torch_cannot_be_followed():
    with pytest.raises(ValueError, match="does not depend on its input"):
        check_forward(seeded(ThroughNumpy), images(1))


@pytest.mark.parametrize("engine", ENGINES)
def test_a_network_is_checked_once_at_the_first_input_known(engine, monkeypatch):
    network, x = seeded(AtBuffer), images()
    with pytest.raises(ValueError, match="'table'"):
        program(network, "ideal", calibration=x, engine=engine)
    chip = program(network, "ideal", engine=engine)
    with pytest.raises(ValueError, match="'table'"):
        chip(x)
    with pytest.raises(ValueError, match="'table'"):
        ChipGroup([program(network, "ideal", engine="compiled")])(x)
    calls = []
    chip = program(network, "ideal", engine=engine, keep_digital=["table"])
    monkeypatch.setattr("analog_samson.chip.chip.check_forward", lambda *a: calls.append(a))
    for _ in range(3):
        chip(x)
    assert len(calls) == 1


# networks as people hand them over


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.*torch.compile.*:UserWarning")
@pytest.mark.parametrize("engine", ENGINES)
def test_compiled_modules_are_unwrapped(engine):
    network, x = seeded(Net), images()
    expected = program(network, "pcm_like", calibration=x, engine=engine)(x)
    inner = copy.deepcopy(network)
    inner.first = torch.compile(inner.first)
    in_place = copy.deepcopy(network)
    in_place.first.compile()
    for wrapped in (torch.compile(network), inner, torch.compile(inner), in_place):
        chip = program(wrapped, "pcm_like", calibration=x, engine=engine, keep_digital=[])
        assert list(chip.weights()) == ["first", "last"]
        assert torch.equal(chip(x), expected)
    assert "_orig_mod" in inner.first._modules  # what was given is left as it was


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("dtype", [torch.float64, torch.float16, torch.bfloat16], ids=str)
def test_other_precisions_are_converted_with_a_warning(engine, dtype):
    network, x = seeded(Net).to(dtype), images()
    with pytest.warns(UserWarning, match="converted to float32"):
        chip = program(network, "pcm_like", calibration=x.to(dtype), engine=engine)
    assert network.first.weight.dtype == dtype
    same = program(network.float(), "pcm_like", calibration=x.to(dtype), engine=engine)
    assert torch.equal(chip(x), same(x))
    assert chip(x.to(dtype)).dtype == torch.float32
    assert torch.equal(chip(x.double()), chip(x))


def test_complex_networks_are_refused():
    with pytest.raises(ValueError, match="complex weights"):
        program(nn.Linear(2, 2, dtype=torch.complex64), "ideal")


@pytest.mark.parametrize("name", ["pcm_like", "ideal"])
@pytest.mark.parametrize("engine", ENGINES)
def test_chips_compute_in_fp32_under_autocast(engine, name):
    network, x = seeded(Net), images(70)

    def made():
        return program(network, name, calibration=x, engine=engine).drift_to(DAY)

    expected, group = made()(x), ChipGroup([program(network, name, calibration=x)])
    together = group(x)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = made()(x)
        assert torch.equal(group(x), together)
        assert torch.is_autocast_enabled("cpu")
    assert found.dtype == torch.float32
    assert torch.equal(found, expected)


def test_inputs_are_one_tensor():
    x = images()
    chip = program(seeded(Net), "ideal")
    for call in (chip, ChipGroup([program(seeded(Net), "ideal", engine="compiled")])):
        with pytest.raises(ValueError, match="takes one tensor of shape .* got tuple"):
            call((x, x))
    with pytest.raises(ValueError, match="calibration is one tensor .* got list"):
        program(seeded(Net), "ideal", calibration=[x])


class Encoder(nn.Module):
    def __init__(self, layers: int) -> None:
        super().__init__()
        layer = nn.TransformerEncoderLayer(N, 2, 16, batch_first=True)
        self.body = nn.TransformerEncoder(layer, layers) if layers else layer
        self.head = nn.Linear(N, 4)

    def forward(self, x):
        return self.head(self.body(x).mean(1))


class Padded(Encoder):
    def forward(self, x):
        padding = torch.zeros(len(x), x.shape[1], dtype=torch.bool)
        return self.head(self.body(x, src_key_padding_mask=padding).mean(1))


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("make", [partial(Encoder, 0), partial(Encoder, 2), partial(Padded, 2)])
def test_a_transformer_encoder_with_digital_attention_is_the_digital_network(engine, make):
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "enable_nested_tensor is True", UserWarning)
        warnings.filterwarnings("ignore", ".*nested tensors is in prototype", UserWarning)
        network, x = seeded(make), images(40, 6, N)
        with torch.no_grad():
            expected = network(x)
        chip = program(network, "ideal", calibration=x, engine=engine, keep_digital=["*self_attn"])
        assert {name.split(".")[-1] for name in chip.weights()} == {"linear1", "linear2", "head"}
        torch.testing.assert_close(chip(x), expected, rtol=1e-5, atol=1e-6)


def test_a_network_handed_over_in_training_mode_runs_as_in_evaluation(tmp_path):
    network = nn.Sequential(nn.Linear(N, N), nn.BatchNorm1d(N), nn.Dropout(0.5), nn.Linear(N, 4))
    with torch.no_grad():
        network(3 + images(100, N, seed=9))  # running statistics far from those of a batch
    x = images()
    for engine in ENGINES:
        chips = [
            program(mode, "pcm_like", seed=5, calibration=x, engine=engine)
            for mode in (copy.deepcopy(network).eval(), network.train())
        ]
        statistics = copy.deepcopy(network.state_dict())
        assert torch.equal(chips[1](x), chips[0](x))
        again = load_chip(chips[0].save(tmp_path / engine), network.train())
        assert torch.equal(again(x), chips[0](x))
        for key, value in network.state_dict().items():
            assert torch.equal(value, statistics[key])
        ideal = load_device("ideal")
        mapping = ideal.mapping.model_copy(update={"batch_norm": "folded"})
        for device in (ideal, ideal.model_copy(update={"mapping": mapping})):
            chip = program(network.train(), device, calibration=x, engine=engine)
            assert network.training
            with torch.no_grad():
                expected = copy.deepcopy(network).eval()(x)
            torch.testing.assert_close(chip(x), expected, rtol=1e-4, atol=1e-5)
