"""Rules against their formulas written out one by one; weights that come back bit for bit."""

import math
from functools import partial

import numpy as np
import pytest
import torch
from aihwkit.simulator.parameters.enums import WeightModifierType
from aihwkit.simulator.parameters.inference import WeightModifierParameter
from aihwkit.simulator.tiles.torch_tile import TorchSimulatorTile
from hypothesis import given, settings
from hypothesis import strategies as st
from pytorch_optimizer import SAM
from scipy import stats
from torch import nn
from torch.nn import functional as F
from torch.nn.utils import parametrize

from analog_samson.perturbation import (
    DIALECTS,
    NOISE_SCALES,
    SCHEDULES,
    MicroRing,
    arwp,
    asam,
    frozen_batch_norm,
    is_weight,
    perturbed,
    rwp,
    sam,
    samson,
    strength_factor,
    transposed_groups,
    update_fisher,
)


def network(seed=0, dtype=torch.float64):
    """Convolution, BatchNorm, a layer with zeros in it and a layer of zeros."""
    torch.manual_seed(seed)
    model = nn.Sequential(
        nn.Conv2d(1, 4, 3),
        nn.BatchNorm2d(4),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(4 * 36, 8),
        nn.Linear(8, 8, bias=False),
        nn.Linear(8, 10),
    ).to(dtype)
    with torch.no_grad():
        model[4].weight[::2] = 0
        model[5].weight.zero_()
    return model


def batch(seed=1, dtype=torch.float64):
    generator = torch.Generator().manual_seed(seed)
    images = torch.randn(16, 1, 8, 8, generator=generator, dtype=dtype)
    return images, torch.randint(10, (16,), generator=generator)


def loss(model, data):
    return F.cross_entropy(model(data[0]), data[1])


def weights_and_gradients(model):
    loss(model, batch()).backward()
    weights = {n: p.detach() for n, p in model.named_parameters()}
    return weights, {n: p.grad for n, p in model.named_parameters()}


def by_hand(weights, gradients, rho, scale):
    """offset_i = rho * T_i^2 g_i / sqrt(sum over all parameters of (T_j g_j)^2), one by one."""
    total = 0.0
    for name, g in gradients.items():
        for w_i, g_i in zip(weights[name].flatten(), g.flatten(), strict=True):
            total += (scale(name, weights[name], float(w_i)) * float(g_i)) ** 2
    return {
        name: torch.tensor(
            [
                rho * scale(name, weights[name], float(w_i)) ** 2 * float(g_i) / math.sqrt(total)
                for w_i, g_i in zip(weights[name].flatten(), g.flatten(), strict=True)
            ],
            dtype=g.dtype,
        ).view(g.shape)
        for name, g in gradients.items()
    }


def ends_in_weight(name):
    return name.endswith("weight")


FORMULAS = {
    "sam": (partial(sam, rho=0.3), lambda name, w, w_i: 1.0),
    "asam authors": (
        partial(asam, rho=0.3, eta=0.02),
        lambda name, w, w_i: abs(w_i) + 0.02 if ends_in_weight(name) else 1.0,
    ),
    "asam popular": (partial(asam, rho=0.3, dialect="popular"), lambda name, w, w_i: abs(w_i)),
    "samson inf": (
        partial(samson, rho=0.3, eta=0.02),
        lambda name, w, w_i: (
            0.0 if not w.any() and ends_in_weight(name)
            else (abs(w_i) + 0.02) / float(w.abs().max()) if ends_in_weight(name)
            else 1.0
        ),
    ),
    "samson 2": (
        partial(samson, rho=0.3, eta=0.02, p=2),
        lambda name, w, w_i: (
            0.0 if not w.any() and ends_in_weight(name)
            else (abs(w_i) + 0.02) / math.sqrt(float((w**2).sum())) if ends_in_weight(name)
            else 1.0
        ),
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", FORMULAS)
def test_rule_equals_its_formula(name):
    rule, scale = FORMULAS[name]
    weights, gradients = weights_and_gradients(network())
    offsets = rule(weights, gradients)
    expected = by_hand(weights, gradients, 0.3, scale)
    assert offsets.keys() == expected.keys()
    for key, offset in offsets.items():
        torch.testing.assert_close(offset, expected[key], rtol=1e-10, atol=1e-13)


def test_samson_without_norm_and_bias_leaves_them_out():
    weights, gradients = weights_and_gradients(network())
    matrices = {n: w for n, w in weights.items() if w.ndim > 1}
    offsets = samson(weights, gradients, rho=0.3, norm_and_bias=False)
    assert offsets.keys() == matrices.keys()
    alone = samson(matrices, {n: gradients[n] for n in matrices}, rho=0.3)
    for name, offset in offsets.items():
        torch.testing.assert_close(offset, alone[name], rtol=0, atol=0)


def test_samson_equals_asam_where_all_layers_have_one_maximum():
    """T_samson = T_asam / M, and the offset is of first order in T: rho * M against rho."""
    largest = 0.7
    generator = torch.Generator().manual_seed(0)
    weights = {
        f"{i}.weight": torch.randn(6, 5, generator=generator, dtype=torch.float64) for i in range(3)
    }
    weights = {name: w * largest / w.abs().max() for name, w in weights.items()}
    gradients = {name: torch.randn_like(w) for name, w in weights.items()}
    ours = samson(weights, gradients, rho=0.3 * largest, eta=0.01)
    theirs = asam(weights, gradients, rho=0.3, eta=0.01)
    for name in weights:
        torch.testing.assert_close(ours[name], theirs[name], rtol=1e-12, atol=0)


@settings(deadline=None, max_examples=20)
@given(st.floats(1e-3, 1e3), st.sampled_from([2, math.inf]))
def test_scaling_a_layer_leaves_the_scale_of_samson_unchanged(factor, p):
    weights, gradients = weights_and_gradients(network())
    scaled = {**weights, "4.weight": factor * weights["4.weight"]}
    before = samson(weights, gradients, rho=0.3, eta=0.0, p=p)
    after = samson(scaled, gradients, rho=0.3, eta=0.0, p=p)
    for name in weights:
        torch.testing.assert_close(after[name], before[name], rtol=1e-9, atol=1e-13)


@settings(deadline=None, max_examples=20)
@given(st.floats(0.0, 10.0), st.sampled_from(DIALECTS), st.integers(0, 2**31))
def test_asam_offset_lies_on_its_ellipsoid(rho, dialect, seed):
    """||T^-1 offset||_2 = rho."""
    torch.manual_seed(seed)
    weights = {"a.weight": torch.randn(5, 4, dtype=torch.float64)}
    gradients = {"a.weight": torch.randn(5, 4, dtype=torch.float64)}
    offset = asam(weights, gradients, rho=rho, eta=0.1, dialect=dialect)["a.weight"]
    scale = weights["a.weight"].abs() + (0.1 if dialect == "authors" else 0.0)
    assert float((offset / scale).norm()) == pytest.approx(rho, rel=1e-9, abs=1e-12)


@pytest.mark.parametrize(
    ("rule", "is_adaptive"),
    [(partial(sam, rho=0.05), False), (partial(asam, rho=2.0, dialect="popular"), True)],
)
def test_twenty_steps_equal_those_of_pytorch_optimizer(rule, is_adaptive):
    """Flavour: pytorch_optimizer's `adaptive` is the popular dialect (|w| on all, no eta)."""
    recipe = {"lr": 0.05, "momentum": 0.9, "weight_decay": 5e-4}
    ours, theirs = (network(dtype=torch.float32) for _ in range(2))
    optimizer = torch.optim.SGD(ours.parameters(), **recipe)
    rho = rule.keywords["rho"]
    oracle = SAM(theirs.parameters(), torch.optim.SGD, rho=rho, adaptive=is_adaptive, **recipe)
    for step in range(20):
        data = batch(step, torch.float32)
        optimizer.zero_grad()
        loss(ours, data).backward()
        with perturbed(ours, rule):
            optimizer.zero_grad()
            loss(ours, data).backward()
        optimizer.step()

        def closure(data=data):
            oracle.zero_grad()
            value = loss(theirs, data)
            value.backward()
            return value

        closure()
        oracle.step(closure)
    for a, b in zip(ours.parameters(), theirs.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=1e-6)


def test_offset_of_a_zero_gradient_is_zero():
    weights = {"a.weight": torch.ones(2, 2)}
    for rule in (sam, asam, samson):
        offset = rule(weights, {"a.weight": torch.zeros(2, 2)}, rho=1.0)["a.weight"]
        assert torch.equal(offset, torch.zeros(2, 2))


@pytest.mark.parametrize("scale", NOISE_SCALES)
def test_rwp_spread_follows_its_scale(scale):
    """n = 20000 draws per filter, seed 0, chi-square interval at a false-alarm rate of 1e-6."""
    n, sigma = 20_000, 0.1
    weights = {
        "a.weight": torch.cat([torch.full((1, n), 0.5), torch.full((1, n), -2.0)]),
        "b.weight": torch.full((1, n), 4.0),
        "b.bias": torch.ones(3),
        "norm.weight": torch.ones(3),
    }
    expected = {
        "filter_max": [0.5, 2.0, 4.0],
        "layer_max": [2.0, 2.0, 4.0],
        "network_max": [4.0, 4.0, 4.0],
        "filter_norm": [0.5 * math.sqrt(n), 2.0 * math.sqrt(n), 4.0 * math.sqrt(n)],
        "constant": [1.0, 1.0, 1.0],
    }[scale]
    generator = torch.Generator().manual_seed(0)
    offsets = rwp(weights, sigma=sigma, scale=scale, generator=generator)
    assert offsets.keys() == {"a.weight", "b.weight"}
    rows = np.concatenate([offsets["a.weight"].numpy(), offsets["b.weight"].numpy()])
    low, high = stats.chi2.interval(1 - 1e-6 / 3, n) / np.array(n)
    for row, size in zip(rows.astype(float), expected, strict=True):
        assert low <= np.mean((row / (sigma * size)) ** 2) <= high


def test_rwp_of_one_generator_state_is_one_perturbation():
    weights, _ = weights_and_gradients(network())
    first, again = (
        rwp(weights, sigma=0.1, generator=torch.Generator().manual_seed(3)) for _ in range(2)
    )
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not first["5.weight"].any(), "a layer of zeros has no range"


def test_noise_injection_is_the_weight_modifier_of_aihwkit():
    """Its ADD_NORMAL, relative to the largest weight of the tile, from the same random numbers."""
    weight = network(dtype=torch.float32)[4].weight.detach()
    modifier = WeightModifierParameter(
        type=WeightModifierType.ADD_NORMAL, std_dev=0.07, rel_to_actual_wmax=True
    )
    with torch.random.fork_rng():
        torch.manual_seed(3)
        theirs = TorchSimulatorTile.modify_weight(weight, modifier, 1)
    generator = torch.Generator().manual_seed(3)
    offsets = rwp({"a.weight": weight}, sigma=0.07, scale="layer_max", generator=generator)
    torch.testing.assert_close(weight + offsets["a.weight"], theirs, rtol=1e-6, atol=1e-7)


def test_drop_connect_moves_its_share_of_the_weights_to_zero():
    """n = 40000 weights, seed 0, binomial interval at a false-alarm rate of 1e-6."""
    n, share = 40_000, 0.01
    weights = {"a.weight": torch.linspace(0.5, 1.0, n)[None]}
    generator = torch.Generator().manual_seed(0)
    offset = rwp(weights, sigma=0.1, drop_share=share, generator=generator)["a.weight"]
    low, high = stats.binom.interval(1 - 1e-6, n, share)
    assert low <= int((offset == -weights["a.weight"]).sum()) <= high
    with pytest.raises(ValueError, match="dropped"):
        rwp(weights, sigma=0.1, drop_share=1.5, generator=generator)


def test_arwp_shrinks_where_gradients_were_large():
    weights, gradients = weights_and_gradients(network())
    fisher = update_fisher({}, gradients)
    fisher = update_fisher(fisher, gradients, decay=0.5)
    g = gradients["0.weight"]
    torch.testing.assert_close(fisher["0.weight"], 1.5 * g.pow(2).sum((1, 2, 3)))

    def seeded():
        return torch.Generator().manual_seed(3)

    plain = rwp(weights, sigma=0.1, scale="filter_norm", generator=seeded())
    offsets = arwp(weights, sigma=0.1, fisher=fisher, eta=7.0, generator=seeded())
    for name, offset in offsets.items():
        damping = (1 + 7.0 * fisher[name]).rsqrt().view(-1, *[1] * (offset.ndim - 1))
        torch.testing.assert_close(offset, plain[name] * damping)


TRANSPOSED = [
    nn.ConvTranspose1d(3, 2, 2),
    nn.ConvTranspose2d(6, 4, 3, groups=2),
    nn.ConvTranspose3d(2, 4, 2, groups=2),
]


def reaches(layer):
    """Of every output: the weights that it depends on, from derivatives of the layer itself."""
    x = torch.ones(1, layer.in_channels, *[4] * (layer.weight.ndim - 2))
    outputs = layer(x).flatten(2).sum((0, 2))
    of_outputs = [torch.autograd.grad(y, layer.weight, retain_graph=True)[0] for y in outputs]
    return [gradient != 0 for gradient in of_outputs]


@pytest.mark.parametrize("layer", TRANSPOSED, ids=lambda layer: type(layer).__name__)
def test_filters_of_transposed_convolutions_are_those_of_their_outputs(layer):
    model = nn.Sequential(nn.Conv2d(2, 3, 3), layer)
    groups = transposed_groups(model)
    assert groups == {"1.weight": layer.groups}
    weights = {name: p.detach() for name, p in model.named_parameters() if p.ndim > 1}
    gradients = {name: torch.randn_like(w) for name, w in weights.items()}
    fisher = update_fisher({}, gradients, transposed_groups=groups)
    factors = {name: torch.zeros_like(w) for name, w in weights.items()}
    for output, own in enumerate(reaches(layer)):
        weight = weights["1.weight"][own]
        assert len(weight) == layer.weight[:, 0].numel() // layer.groups
        square = gradients["1.weight"][own].square().sum()
        torch.testing.assert_close(fisher["1.weight"][output], square)
        damping = (1 + 0.3 * square).rsqrt()
        factors["1.weight"][own] = torch.linalg.vector_norm(weight) * damping

    def drawn(rule, **options):
        return rule(weights, sigma=0.2, generator=torch.Generator().manual_seed(3), **options)

    normals = drawn(rwp, scale="constant")
    offsets = drawn(arwp, fisher=fisher, eta=0.3, transposed_groups=groups)
    torch.testing.assert_close(offsets["1.weight"], normals["1.weight"] * factors["1.weight"])
    largest = drawn(rwp, scale="filter_max", transposed_groups=groups)
    for own in reaches(layer):
        expected = normals["1.weight"][own] * weights["1.weight"][own].abs().max()
        torch.testing.assert_close(largest["1.weight"][own], expected)
    without = drawn(rwp, scale="filter_max")
    assert torch.equal(largest["0.weight"], without["0.weight"]), "other layers are as before"


def test_parametrised_transposed_convolutions_are_found():
    layer = nn.ConvTranspose2d(4, 6, 3, groups=2)
    parametrize.register_parametrization(layer, "weight", MicroRing())
    assert transposed_groups(layer) == {"parametrizations.weight.original": 2}


def test_weights_are_names_with_weight_between_dots():
    assert is_weight("fc.weight") and is_weight("fc.parametrizations.weight.original")
    assert not is_weight("fc.bias") and not is_weight("weights.scale") and not is_weight("pos_bias")


@pytest.mark.parametrize("layer", [
    nn.LSTM(3, 4, num_layers=2, bidirectional=True), nn.GRU(3, 4), nn.RNN(3, 4),
    nn.LSTM(3, 4, proj_size=2), nn.MultiheadAttention(4, 2),
    nn.MultiheadAttention(4, 2, kdim=3, vdim=5), nn.TransformerEncoderLayer(4, 2, 8),
])  # fmt: skip
def test_every_matrix_of_recurrent_and_attention_layers_is_a_weight(layer):
    """Perturbed by noise, and by the worst case relative to |w|, where its rule has |w|."""
    weights = {name: p.detach() for name, p in layer.named_parameters()}
    matrices = {name for name, p in weights.items() if p.ndim > 1}
    assert all(is_weight(name) == ("weight" in name) for name in weights)
    noise = rwp(weights, sigma=0.1, generator=torch.Generator().manual_seed(0))
    assert set(noise) == matrices and all(float(noise[name].abs().min()) > 0 for name in matrices)
    gradients = {name: torch.ones_like(p) for name, p in weights.items()}
    for rule in (asam, samson):
        offsets = rule(weights, gradients, rho=0.1)
        for name in matrices:
            assert float(offsets[name].std()) > 0.1 * float(offsets[name].abs().max())


def test_wrong_strengths_and_names_are_refused():
    weights, gradients = weights_and_gradients(network())
    with pytest.raises(ValueError, match=r"rho must be finite and at least 0; got -0\.1"):
        sam(weights, gradients, rho=-0.1)
    with pytest.raises(ValueError, match="sigma"):
        rwp(weights, sigma=math.nan, generator=torch.Generator())
    with pytest.raises(ValueError, match="filter_max"):
        rwp(weights, sigma=0.1, scale="filtermax", generator=torch.Generator())
    with pytest.raises(ValueError, match="popular"):
        asam(weights, gradients, rho=0.1, dialect="mine")
    with pytest.raises(ValueError, match="p must be 2 or inf"):
        samson(weights, gradients, rho=0.1, p=1)
    with pytest.raises(ValueError, match=r"call loss\.backward"):
        sam(weights, {}, rho=0.1)


ALL_RULES = {
    **{name: rule for name, (rule, _) in FORMULAS.items()},
    "rwp": partial(rwp, sigma=0.1, generator=torch.Generator().manual_seed(0)),
}


@pytest.mark.parametrize("name", ALL_RULES)
@pytest.mark.parametrize("raises", [False, True])
def test_weights_and_statistics_return_bit_for_bit(name, raises):
    model = network(dtype=torch.float32)
    data = batch(dtype=torch.float32)
    loss(model, data).backward()
    before = {n: t.clone() for n, t in model.state_dict().items()}
    moved = {}
    try:
        with perturbed(model, ALL_RULES[name]):
            moved = {n: p.detach().clone() for n, p in model.named_parameters()}
            loss(model, data).backward()
            if raises:
                raise KeyboardInterrupt
    except KeyboardInterrupt:
        assert raises
    assert any(not torch.equal(moved[n], before[n]) for n in moved)
    assert all(torch.equal(t, before[n]) for n, t in model.state_dict().items())


def test_one_pass_rules_can_update_batch_norm():
    model, data = network(), batch()
    before = model[1].running_mean.clone()
    with perturbed(model, ALL_RULES["rwp"], freeze_batch_norm=False):
        loss(model, data).backward()
    assert not torch.equal(model[1].running_mean, before)


def test_frozen_batch_norm_still_normalises_with_the_batch():
    model, data = network(), batch()
    expected = network()(data[0])
    with frozen_batch_norm(model):
        torch.testing.assert_close(model(data[0]), expected)
    assert int(model[1].num_batches_tracked) == 0


def test_wrong_offsets_are_refused_and_change_nothing():
    model = network()
    before = {n: p.detach().clone() for n, p in model.named_parameters()}
    for offsets in ({"0.wieght": torch.zeros(1)}, {"0.weight": torch.zeros(1)}):
        with (
            pytest.raises(ValueError, match="names and shapes"),
            perturbed(model, lambda w, g, offsets=offsets: offsets),
        ):
            pass
    assert all(torch.equal(p, before[n]) for n, p in model.named_parameters())


def test_frozen_parameters_are_not_perturbed():
    model = network()
    model[0].weight.requires_grad_(False)
    with perturbed(model, partial(rwp, sigma=0.1, generator=torch.Generator())):
        assert torch.equal(model[0].weight, network()[0].weight)


def test_users_own_loop_with_adam_accumulation_and_autocast():
    """The gradient at the perturbed weights, although autocast keeps a cache of cast weights."""
    model, data = network(dtype=torch.float32), batch(dtype=torch.float32)
    halves = [(data[0][:8], data[1][:8]), (data[0][8:], data[1][8:])]
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    rule = partial(samson, rho=0.5)

    def backward(network):
        for half in halves:
            (loss(network, half) / 2).backward()

    with torch.autocast("cpu", dtype=torch.bfloat16):
        backward(model)
        with perturbed(model, rule):
            there = {n: p.detach().clone() for n, p in model.named_parameters()}
            optimizer.zero_grad()
            backward(model)
    gradients = [p.grad.clone() for p in model.parameters()]
    before = [p.detach().clone() for p in model.parameters()]
    optimizer.step()

    moved = network(dtype=torch.float32)
    moved.load_state_dict(there, strict=False)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        backward(moved)
    for ours, theirs in zip(gradients, moved.parameters(), strict=True):
        assert torch.equal(ours, theirs.grad)
    # Adam's first step is lr * sign(g), from the clean weights.
    for p, w, g in zip(model.parameters(), before, gradients, strict=True):
        torch.testing.assert_close(p.detach(), w - 1e-3 * g / (g.abs() + 1e-8), rtol=0, atol=1e-7)


def test_backward_after_the_block_is_refused():
    """The graph was made of perturbed weights; without them its gradients would be wrong."""
    model, data = network(), batch()
    with perturbed(model, ALL_RULES["rwp"]):
        value = loss(model, data)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        value.backward()


def test_schedules_follow_their_formulas():
    for t in (0.0, 0.25, 0.5, 0.9, 1.0):
        assert strength_factor("constant", t) == 1.0
        assert strength_factor("linear", t) == t
        assert strength_factor("quadratic", t) == t * t
        assert strength_factor("cosine", t) == pytest.approx((1 - math.cos(math.pi * t)) / 2)
        assert strength_factor("step", t) == pytest.approx(min(int(3 * t) + 1, 3) / 3)
        assert strength_factor("adaptive", t, relative_loss=0.4) == pytest.approx(0.6)
    assert strength_factor("adaptive", 0.5, relative_loss=1.7) == 0.0


@given(st.sampled_from(list(SCHEDULES)), st.floats(0, 1), st.floats(0, 10))
def test_schedules_stay_between_zero_and_one(schedule, progress, relative_loss):
    assert 0 <= strength_factor(schedule, progress, relative_loss=relative_loss) <= 1


def test_unknown_schedules_are_refused():
    with pytest.raises(ValueError, match=r"'qadratic'.*quadratic"):
        strength_factor("qadratic", 0.5)
    with pytest.raises(ValueError, match="Progress"):
        strength_factor("linear", 1.5)


def test_the_slope_of_a_micro_ring_is_its_derivative():
    ring = MicroRing(amplitude=0.7, resonance=0.1, width=0.2)
    theta = torch.linspace(-1, 1, 21, dtype=torch.float64, requires_grad=True)
    (slope,) = torch.autograd.grad(ring(theta).sum(), theta)
    torch.testing.assert_close(ring.slope(theta.detach()), slope)


def test_micro_ring_gives_back_its_weights_and_perturbs_theta():
    ring = MicroRing()
    weight = torch.linspace(-0.99, 0.99, 50, dtype=torch.float64)
    torch.testing.assert_close(ring(ring.right_inverse(weight)), weight)
    theta = torch.tensor([0.0, 0.15, 0.3], dtype=torch.float64)
    torch.testing.assert_close(ring(theta), torch.tensor([-1.0, 0.0, 0.6], dtype=torch.float64))

    layer = nn.Linear(4, 3)
    before = layer.weight.detach().clone()
    parametrize.register_parametrization(layer, "weight", MicroRing())
    torch.testing.assert_close(layer.weight, before, rtol=1e-5, atol=1e-6)
    layer(torch.randn(2, 4)).sum().backward()
    with perturbed(layer, partial(samson, rho=0.5)):
        assert not torch.allclose(layer.weight, before, rtol=1e-3)
    torch.testing.assert_close(layer.weight, before, rtol=1e-5, atol=1e-6)
