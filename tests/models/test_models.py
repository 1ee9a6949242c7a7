"""Networks by name, and the audit: no layer stays digital unnoticed, shared layers stay shared."""

import ast
import math
import sys
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrizations, parametrize, prune

from analog_samson.models import (
    MODELS,
    analog_layers,
    analog_share,
    audit,
    build_model,
    check_weights,
    input_ranges,
)

DEPTHWISE = "*.depthwise"


def n_parameters(model: nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


def refused(model: nn.Module, *keep_digital: str) -> dict[str, str]:
    return {entry.name: entry.reason for entry in audit(model, keep_digital) if entry.is_refused}


# networks

OF_OTHERS = ("char_lstm", "char_transformer", "keyword_lstm")  # tokens, spectrograms
OF_IMAGES = [name for name in MODELS if name not in OF_OTHERS]


@pytest.mark.parametrize("name", OF_IMAGES)
def test_every_model_has_outputs_for_cifar_images(name: str) -> None:
    model = build_model(name, image_shape=(3, 32, 32), n_classes=7, seed=0)
    assert model(torch.zeros(2, 3, 32, 32)).shape == (2, 7)


@pytest.mark.parametrize("name", [name for name in OF_IMAGES if name != "vgg11_bn"])
@pytest.mark.parametrize("shape", [(1, 8, 8), (1, 28, 28)])
def test_models_adapt_to_small_grey_images(name: str, shape: tuple[int, int, int]) -> None:
    model = build_model(name, image_shape=shape, n_classes=10, seed=0)
    assert model(torch.zeros(2, *shape)).shape == (2, 10)


def test_keyword_lstm_reads_frames_in_order_and_refuses_colours() -> None:
    model = build_model("keyword_lstm", image_shape=(1, 40, 64), n_classes=7, seed=0)
    x = torch.randn(2, 1, 40, 64, generator=torch.Generator().manual_seed(0))
    by_hand = model.lstm(x[:, 0].permute(0, 2, 1))[0].mean(1) @ model.classifier.weight.T
    torch.testing.assert_close(model(x), by_hand + model.classifier.bias)
    assert not torch.allclose(model(x), model(x.flip(-1)), atol=1e-3)
    with pytest.raises(ValueError, match="takes 1 x bands x frames, not"):
        build_model("keyword_lstm", image_shape=(3, 32, 32), n_classes=7)


@pytest.mark.parametrize(
    ("name", "shape", "options", "expected"),
    [
        # LeCun et al. 1998, figure 2, with all maps connected: 61,706 parameters.
        ("lenet5", (1, 28, 28), {}, 61_706),
        ("lenet5", (1, 32, 32), {}, 61_706),
        # He et al. 2016, table 6: 0.27 M and 0.46 M; the exact numbers are layer arithmetic.
        ("resnet20", (3, 32, 32), {}, 269_722),
        ("resnet32", (3, 32, 32), {}, 464_154),
        # Option B adds a 1 x 1 convolution and BatchNorm at each of the two changes of width.
        (
            "resnet20",
            (3, 32, 32),
            {"shortcut": "B"},
            269_722 + 16 * 32 + 2 * 32 + 32 * 64 + 2 * 64,
        ),
        # Widely published sizes of these CIFAR networks.
        ("resnet18", (3, 32, 32), {}, 11_173_962),
        ("vgg11_bn", (3, 32, 32), {}, 9_231_114),
    ],
)
def test_sizes_are_the_published_ones(
    name: str, shape: tuple[int, int, int], options: dict[str, str], expected: int
) -> None:
    model = build_model(name, image_shape=shape, n_classes=10, **options)
    assert n_parameters(model) == expected


def test_mobilenet_has_the_channels_of_torchvisions() -> None:
    torchvision = pytest.importorskip("torchvision")
    reference = torchvision.models.mobilenet_v2(num_classes=10)
    ours = build_model("mobilenet_v2", image_shape=(3, 32, 32), n_classes=10)
    assert [p.shape for p in ours.parameters()] == [p.shape for p in reference.parameters()]


def test_resnet18_loads_torchvisions_names_except_for_the_stem() -> None:
    torchvision = pytest.importorskip("torchvision")
    reference = torchvision.models.resnet18(num_classes=10)
    ours = build_model("resnet18", image_shape=(3, 32, 32), n_classes=10, seed=0)
    # A stem of 3 x 3 and no pooling is all that differs, so with it replaced the outputs agree.
    reference.conv1, reference.maxpool = nn.Conv2d(3, 64, 3, padding=1, bias=False), nn.Identity()
    reference.load_state_dict(ours.state_dict())
    images = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        torch.testing.assert_close(ours.eval()(images), reference.eval()(images))


@pytest.mark.parametrize("size", [(8, 6), (7, 9)])
def test_pooling_without_gradients_is_max_pooling_bit_for_bit(size: tuple[int, int]) -> None:
    pool = build_model("lenet5", image_shape=(1, 28, 28), n_classes=10).pool1
    x = torch.randn(3, 5, *size, generator=torch.Generator().manual_seed(0))
    x[0, 0, 0, 0] = torch.nan
    with torch.no_grad():
        fast = pool(x)
    torch.testing.assert_close(fast, nn.functional.max_pool2d(x, 2), rtol=0, atol=0, equal_nan=True)
    torch.testing.assert_close(pool(x), fast, rtol=0, atol=0, equal_nan=True)


def test_mlp_takes_its_widths() -> None:
    model = build_model("mlp", image_shape=(1, 8, 8), n_classes=10, hidden=[5, 6, 7])
    shapes = [(m.in_features, m.out_features) for m in model.modules() if isinstance(m, nn.Linear)]
    assert shapes == [(64, 5), (5, 6), (6, 7), (7, 10)]


def test_seed_fixes_the_weights_and_leaves_the_global_generator_alone() -> None:
    def build(seed: int) -> Tensor:
        model = build_model("lenet5", image_shape=(1, 8, 8), n_classes=10, seed=seed)
        return nn.utils.parameters_to_vector(model.parameters())

    before = torch.random.get_rng_state()
    assert torch.equal(build(1), build(1))
    assert not torch.equal(build(1), build(2))
    assert torch.equal(torch.random.get_rng_state(), before)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("resnet-20", r"Did you mean 'resnet20'\?"),
        ("no_such_package:build", "cannot be imported"),
        ("math:sqroot", r"Did you mean 'sqrt'\?"),
        ("math:pi", "name a class or a function"),
        ("builtins:dict", "not an nn.Module"),
    ],
)
def test_the_message_of_an_unknown_model_states_what_to_do(name: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        build_model(name, image_shape=(1, 8, 8), n_classes=10)


def test_wrong_options_and_shapes_are_named() -> None:
    with pytest.raises(ValueError, match="widht"):
        build_model("resnet8", image_shape=(3, 32, 32), n_classes=10, widht=4)
    with pytest.raises(ValueError, match="got 16 x 16"):
        build_model("lenet5", image_shape=(1, 16, 16), n_classes=10)
    with pytest.raises(ValueError, match="at least 32 x 32"):
        build_model("vgg11_bn", image_shape=(1, 28, 28), n_classes=10)
    with pytest.raises(ValueError, match="'A' or 'B'"):
        build_model("resnet8", image_shape=(3, 32, 32), n_classes=10, shortcut="C")


def test_factory_from_elsewhere_gets_its_keyword_arguments_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "my_networks_for_a_test.py").write_text(
        "from torch import nn\ndef wide(*, width):\n    return nn.Linear(width, 2)\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    name = "my_networks_for_a_test:wide"
    try:
        model = build_model(name, image_shape=(1, 8, 8), n_classes=10, width=3)
        assert isinstance(model, nn.Linear)
        assert model.in_features == 3
        with pytest.raises(ValueError, match="does not take these options"):
            build_model(name, image_shape=(1, 8, 8), n_classes=10)
    finally:
        sys.modules.pop("my_networks_for_a_test", None)


def test_options_may_be_named_like_our_own_arguments() -> None:
    model = build_model(
        "analog_samson.models.networks:mlp",
        image_shape=(3, 32, 32),
        n_classes=10,
        options={"image_shape": (1, 2, 2), "n_classes": 3, "hidden": ()},
    )
    assert model(torch.zeros(1, 1, 2, 2)).shape == (1, 3)


# audit


@pytest.mark.parametrize("name", [name for name in OF_IMAGES if name != "vit_tiny"])
def test_audit_counts_every_weight_once(name: str) -> None:
    model = build_model(name, image_shape=(3, 32, 32), n_classes=10)
    entries = audit(model)
    assert sum(e.n_weights for e in entries) == sum(
        p.numel() for p in model.parameters() if p.ndim >= 2
    )
    names = dict(model.named_modules())
    assert all(entry.name in names for entry in entries)
    assert all(entry.analog == (entry.reason == "") for entry in entries)


def test_depthwise_layers_are_analog_unless_they_are_kept_digital() -> None:
    model = build_model("mobilenet_v2", image_shape=(3, 32, 32), n_classes=10)
    depthwise = {
        name: module.weight.numel()
        for name, module in model.named_modules()
        if isinstance(module, nn.Conv2d) and module.groups > 1
    }
    assert len(depthwise) == 17
    assert set(depthwise) < set(analog_layers(model))
    assert analog_share(model) == 1.0
    assert not set(analog_layers(model, [DEPTHWISE])) & set(depthwise)
    assert analog_layers(model, list(depthwise)).keys() == analog_layers(model, [DEPTHWISE]).keys()
    n_weights = sum(p.numel() for p in model.parameters() if p.ndim >= 2)
    expected = 1 - sum(depthwise.values()) / n_weights
    assert analog_share(model, [DEPTHWISE]) == pytest.approx(expected, rel=1e-12)


class Scaled(nn.Linear):
    def forward(self, x: Tensor) -> Tensor:
        return 2 * super().forward(x)


class WithBareParameters(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(4, 4)
        self.position = nn.Parameter(torch.zeros(3, 4))
        self.scale = nn.Parameter(torch.ones(4))


@pytest.mark.parametrize(
    ("layer", "reason"),
    [
        (nn.Conv2d(4, 4, 3, padding=1, padding_mode="circular"), "padding_mode='circular'"),
        (nn.Conv2d(4, 4, 3, padding="same"), "padding='same'"),
        (nn.ConvTranspose2d(4, 4, 3), "ConvTranspose2d"),
        (nn.Conv3d(4, 4, 3), "Conv3d"),
        (nn.LSTM(4, 4), "LSTM"),
        (nn.GRUCell(4, 4), "GRUCell"),
        (nn.Bilinear(4, 4, 4), "Bilinear"),
        (nn.MultiheadAttention(4, 2), "MultiheadAttention"),
        (Scaled(4, 4), "a subclass of Linear"),
        (nn.LazyLinear(4), "run one batch"),
        (prune.random_unstructured(nn.Linear(4, 4), "weight", 0.5), "made by a hook"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, nn.Module) else "",
)
@pytest.mark.filterwarnings("ignore:Lazy modules:UserWarning")
def test_layers_that_cannot_be_mapped_are_refused_with_the_reason(
    layer: nn.Module, reason: str
) -> None:
    model = nn.Sequential()
    model.add_module("fc", nn.Linear(4, 4))
    model.add_module("odd", layer)
    reasons = refused(model)
    assert any(reason in text for text in reasons.values())
    assert all(name.startswith("odd") for name in reasons)
    with pytest.raises(ValueError, match=r"cannot be mapped onto arrays:\s+'odd") as caught:
        analog_layers(model)
    assert "keep_digital=['odd']" in str(caught.value)
    assert len(str(caught.value).splitlines()) <= 10
    assert list(analog_layers(model, ["odd"])) == ["fc"]
    kept = [entry for entry in audit(model, ["odd"]) if entry.name.startswith("odd")]
    assert all("kept digital on request" in entry.reason for entry in kept if entry.n_weights)


def test_bare_parameters_and_lookups_are_digital_and_listed() -> None:
    model = nn.Sequential()
    model.add_module("own", WithBareParameters())
    model.add_module("lookup", nn.Embedding(5, 4))
    assert refused(model) == {}
    entries = {entry.name: entry for entry in audit(model) if not entry.analog}
    assert "added or multiplied element by element" in entries["own.position"].reason
    assert "multiplies nothing" in entries["lookup"].reason
    assert [entries[name].n_weights for name in ("own.position", "lookup")] == [12, 20]
    assert analog_share(model) == pytest.approx(16 / 48)


def test_the_error_for_many_layers_is_ten_lines_and_its_patterns_can_be_pasted() -> None:
    def block() -> nn.Module:
        layers = {"a": nn.Conv3d(1, 1, 1), "b": nn.Bilinear(2, 2, 2), "c": nn.Linear(2, 2)}
        return nn.ModuleDict(layers)

    odd = {f"odd{n}": nn.Conv3d(1, 1, 1) for n in range(9)}
    model = nn.ModuleDict({"blocks": nn.ModuleList(block() for _ in range(30)), **odd})
    model["blocks"][7]["a"] = nn.Linear(2, 2)  # blocks.*.a would match it
    with pytest.raises(ValueError, match="68 layer.s. cannot be mapped") as caught:
        analog_layers(model)
    message = str(caught.value)
    assert len(message.splitlines()) <= 10 and "'blocks.*.b'" in message
    pasted = ast.literal_eval(message.split("keep_digital=")[1].removesuffix("."))
    assert len(analog_layers(model, pasted)) == 31


@pytest.mark.parametrize(
    "norm",
    [nn.BatchNorm1d(4), nn.LayerNorm((2, 4)), nn.GroupNorm(2, 4), nn.PReLU(4)],
    ids=lambda norm: type(norm).__name__,
)
def test_normalisation_and_scales_are_digital_by_default(norm: nn.Module) -> None:
    model = nn.Sequential(nn.Linear(4, 4), norm)
    assert list(analog_layers(model)) == ["0"]
    assert analog_share(model) == 1.0
    (entry,) = [entry for entry in audit(model) if entry.name == "1"]
    assert entry.n_weights == 0
    assert "by nature" in entry.reason


def test_plain_linear_is_a_model_of_one_layer() -> None:
    model = nn.Linear(3, 2)
    assert analog_layers(model) == {"": model}


def test_keep_digital_takes_a_whole_branch_and_no_lookalike() -> None:
    model = build_model("resnet8", image_shape=(3, 32, 32), n_classes=10)
    every = set(analog_layers(model))
    assert every - set(analog_layers(model, ["layer1"])) == {
        "layer1.0.conv1",
        "layer1.0.conv2",
    }
    assert every - set(analog_layers(model, ["conv1"])) == {"conv1"}
    with pytest.raises(ValueError, match=r"names 'layer_1'.*Did you mean 'layer1'\?"):
        analog_layers(model, ["layer_1"])


def test_model_without_anything_analog_is_refused() -> None:
    with pytest.raises(ValueError, match="no layer for arrays"):
        analog_layers(nn.Sequential(nn.ReLU()))
    with pytest.raises(ValueError, match="no layer for arrays"):
        analog_layers(nn.Sequential(nn.Linear(2, 2)), ["0"])
    assert analog_share(nn.Sequential(nn.ReLU())) == 0.0


# shared and tied


class UsedTwice(nn.Module):
    """One linear layer under two names, and called twice in a forward."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(4, 4)
        self.again = self.first

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.again(10 * self.first(x))
        return y


class Tied(nn.Module):
    """Two linear layers with one parameter."""

    def __init__(self) -> None:
        super().__init__()
        self.encode = nn.Linear(4, 4)
        self.decode = nn.Linear(4, 4)
        self.decode.weight = self.encode.weight
        self.fc = nn.Linear(4, 2)


def test_a_module_used_twice_is_one_layer_with_two_names() -> None:
    model = nn.Sequential(UsedTwice(), nn.Linear(4, 2))
    assert list(analog_layers(model)) == ["0.first", "1"]
    assert [entry.name for entry in audit(model)] == ["0.first", "1"]
    assert analog_share(model) == 1.0
    for name in ("0.first", "0.again"):
        assert list(analog_layers(model, [name])) == ["1"]
        assert analog_share(model, [name]) == pytest.approx(8 / 24)


def test_tied_parameters_are_refused_unless_kept_digital() -> None:
    model = Tied()
    reasons = refused(model)
    assert "shares its weights with 'decode'" in reasons["encode"]
    assert "shares its weights with 'encode'" in reasons["decode"]
    with pytest.raises(ValueError, match=r"keep_digital=\['encode', 'decode'\]"):
        analog_layers(model)
    assert list(analog_layers(model, ["encode", "decode"])) == ["fc"]
    assert analog_share(model, ["encode", "decode"]) == pytest.approx(8 / 24)


def test_embedding_tied_to_the_output_layer_is_refused() -> None:
    model = nn.ModuleDict({"embed": nn.Embedding(5, 4), "head": nn.Linear(4, 5, bias=False)})
    model["head"].weight = model["embed"].weight
    assert set(refused(model)) == {"head"}


# parametrised


class Doubled(nn.Module):
    def forward(self, weight: Tensor) -> Tensor:
        return 2 * weight


def test_parametrised_layers_count_as_their_original_kind() -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten(), nn.Linear(4, 2))
    parametrize.register_parametrization(model[0], "weight", Doubled())
    parametrizations.weight_norm(model[2])
    entries = {entry.name: entry for entry in audit(model)}
    assert list(entries) == ["0", "2"]
    assert [entry.kind for entry in entries.values()] == ["Conv2d", "Linear"]
    assert [entry.n_weights for entry in entries.values()] == [108, 8]
    assert list(analog_layers(model)) == ["0", "2"]
    assert list(input_ranges(model, torch.ones(2, 3, 3, 3))) == ["0", "2"]


def test_parametrised_subclass_is_still_a_subclass() -> None:
    layer = Scaled(4, 4)
    parametrize.register_parametrization(layer, "weight", Doubled())
    assert "a subclass of Linear" in refused(nn.Sequential(layer))["0"]


# checks


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_weights_that_are_no_numbers_are_refused_by_layer(value: float) -> None:
    model = build_model("mlp", image_shape=(1, 8, 8), n_classes=10)
    check_weights(model, analog_layers(model))
    with torch.no_grad():
        model.get_submodule("fc2").weight[0, 0] = value  # type: ignore[index, operator]
    with pytest.raises(ValueError, match=r"weight of layer 'fc2' has 1 of 4096"):
        check_weights(model, analog_layers(model))
    check_weights(model, ["fc1", "fc3"])


def test_all_zero_layer_and_nan_bias_are_refused() -> None:
    model = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 2))
    with torch.no_grad():
        model[1].weight.zero_()
    with pytest.raises(ValueError, match=r"All 8 weights of layer '1' are zero"):
        check_weights(model, ["0", "1"])
    with torch.no_grad():
        model[0].bias[2] = math.nan
    with pytest.raises(ValueError, match=r"bias of layer '0' has 1 of 4"):
        check_weights(model, ["0"])


# input ranges


def inputs_of(model: nn.Module, name: str, images: Tensor) -> Tensor:
    """All inputs of a layer in eval mode, by a hook of the test's own."""
    seen = []
    handle = model.get_submodule(name).register_forward_pre_hook(
        lambda _, args: seen.append(args[0].detach().abs().flatten())
    )
    with torch.no_grad():
        model.eval()(images)
    handle.remove()
    return torch.cat(seen)


@pytest.mark.parametrize("quantile", [0.5, 0.99, 0.9999, 1.0])
@pytest.mark.parametrize("batch_size", [3, 7, 100])
def test_input_ranges_are_exact_quantiles(quantile: float, batch_size: int) -> None:
    model = build_model("lenet5", image_shape=(1, 8, 8), n_classes=10, seed=0)
    images = torch.randn(20, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    ranges = input_ranges(model, images, quantile=quantile, batch_size=batch_size)
    assert list(ranges) == list(analog_layers(model))
    for name, value in ranges.items():
        every = inputs_of(model, name, images)
        expected = torch.quantile(every.double(), quantile, interpolation="higher")
        assert value == pytest.approx(float(expected), rel=1e-5)


def test_input_range_of_a_shared_layer_covers_all_its_calls() -> None:
    model = UsedTwice()
    images = torch.randn(9, 4, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        expected = max(images.abs().max(), (10 * model.first(images)).abs().max())
    assert input_ranges(model, images, quantile=1.0)["first"] == pytest.approx(float(expected))


def test_input_ranges_leave_the_model_as_it_was() -> None:
    model = build_model("resnet8", image_shape=(3, 32, 32), n_classes=10, seed=0)
    model.get_submodule("layer2").eval()
    modes = [module.training for module in model.modules()]
    state = {name: value.clone() for name, value in model.state_dict().items()}
    input_ranges(model, torch.randn(4, 3, 32, 32, generator=torch.Generator().manual_seed(0)))
    assert [module.training for module in model.modules()] == modes
    assert all(torch.equal(value, state[name]) for name, value in model.state_dict().items())
    assert not any(module._forward_pre_hooks for module in model.modules())


def test_input_ranges_refuse_what_has_no_range() -> None:
    model = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 2))
    with pytest.raises(ValueError, match=r"layer '0' reach 0\.0"):
        input_ranges(model, torch.zeros(3, 4))
    with pytest.raises(ValueError, match=r"layer '0' reach nan"):
        input_ranges(model, torch.full((3, 4), math.nan))
    with pytest.raises(ValueError, match="at least one image"):
        input_ranges(model, torch.zeros(0, 4))
    with pytest.raises(ValueError, match="quantile=2"):
        input_ranges(model, torch.zeros(3, 4), quantile=2.0)
    with pytest.raises(ValueError, match=r"'encode', 'decode' are never called"):
        unused = nn.Module()
        unused.encode, unused.decode = nn.Linear(2, 2), nn.Linear(2, 2)
        unused.forward = lambda x: x
        input_ranges(unused, torch.ones(2, 2))
