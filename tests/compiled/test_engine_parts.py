"""Claims about parts of the compiled engine: the struct C shares, layout, copies, batches."""

import ctypes

import pytest
import torch
from torch import nn

from analog_samson import load_device, program
from analog_samson.chip import MappedNetwork
from analog_samson.compiled import kernels, structs
from analog_samson.compiled.tracing import LayoutObserver
from analog_samson.models import build_model
from analog_samson.times import DAY, YEAR


class LibraryOf:
    """A C library whose struct layer has the layout given."""

    def __init__(self, layout):
        self.layout = layout

    def layer_layout(self, out, most):
        out[: len(self.layout)] = self.layout
        return len(self.layout)


def own_layout():
    fields = structs.Layer._fields_
    offsets = [getattr(structs.Layer, name).offset for name, *_ in fields]
    return [ctypes.sizeof(structs.Layer), *offsets]


def test_the_struct_of_the_c_library_is_compared_with_pythons():
    right = own_layout()
    structs.check(LibraryOf(right))
    if (built := kernels.library()) is not None:
        structs.check(built)
    moved, fewer = right.copy(), right[:-1]
    moved[3] += 8
    for wrong in (moved, fewer):
        with pytest.raises(RuntimeError, match="Give both the same fields"):
            structs.check(LibraryOf(wrong))


def last(x):
    return x.contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize(
    ("use", "pools", "needs_contiguous"),
    [
        (lambda x: torch.relu(x), False, False),
        (lambda x: nn.functional.max_pool2d(x, 2), True, False),
        (lambda x: nn.functional.adaptive_avg_pool2d(x, 1), True, False),
        (lambda x: x.view(len(x), -1), False, True),
        (lambda x: x.view_as(torch.zeros(2, 48)), False, True),
        (lambda x: x.reshape(len(x), -1), False, False),
        (lambda x: x.view(2, 3, 4, 2, 2), False, False),
        (lambda x: x.view(torch.int32), False, False),
    ],
)
def test_requirements_on_the_memory_layout_are_found_and_keep_the_numbers(
    use, pools, needs_contiguous
):
    x = torch.randn(2, 3, 4, 4, generator=torch.Generator().manual_seed(0))
    with LayoutObserver() as seen:
        found = use(last(x))
    assert (seen.pools, seen.needs_contiguous) == (pools, needs_contiguous)
    if needs_contiguous:
        with pytest.raises(RuntimeError):
            use(last(x))
    torch.testing.assert_close(found, use(x))


def digits_mlp():
    network = build_model("mlp", image_shape=(1, 8, 8), n_classes=10, seed=0).eval()
    return network, torch.rand(200, 1, 8, 8, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("on", ["ideal", "pcm_like", "pcm_like_hwa_preset", "reram_cmo"])
def test_chips_of_one_mapping_are_those_programmed_alone_and_independent(on):
    network, images = digits_mlp()
    mapped = MappedNetwork(network, on, calibration=images, engine="compiled")
    chips = [mapped.program(seed) for seed in (0, 1)]
    for time in (DAY, 1.0, DAY):
        chips[0].drift_to(time)
        for seed, chip in enumerate(chips):
            alone = program(network, on, seed=seed, calibration=images, engine="compiled")
            alone.drift_to(chip.t_inference_s)
            assert torch.equal(chip(images), alone(images))
            for layer, weight in alone.weights().items():
                assert torch.equal(chip.weights()[layer], weight)


def test_statistics_that_a_chip_recalibrates_are_its_own():
    content = load_device("pcm_like").model_dump()
    content["drift_compensation"]["batch_norm"] = "recalibrated"
    on = type(load_device("pcm_like")).model_validate(content)
    network = build_model("resnet8", image_shape=(3, 8, 8), n_classes=10, seed=0).eval()
    images = torch.rand(64, 3, 8, 8, generator=torch.Generator().manual_seed(1))
    given = {"calibration": images, "recalibration": images}
    mapped = MappedNetwork(network, on, **given)
    first, second = mapped.program(0), mapped.program(1)
    before = first.drift_to(DAY)(images)
    second.drift_to(YEAR)(images)
    assert torch.equal(first(images), before)
    alone = program(network, on, seed=1, **given).drift_to(YEAR)
    assert torch.equal(second(images), alone(images))


@pytest.mark.parametrize("on", ["pcm_like", "pcm_like_abs_max", "pcm_like_hwa_preset"])
def test_where_it_says_so_the_size_of_the_batch_changes_no_bit(on):
    if kernels.library() is None:
        pytest.skip("no C compiler here")
    network, images = digits_mlp()
    chip = program(network, on, calibration=images, engine="compiled").drift_to(DAY)
    parts = torch.cat([chip(part, 64 * i) for i, part in enumerate(images.split(64))])
    assert chip.is_batch_invariant
    assert torch.equal(chip(images), parts)
    convolutions = build_model("lenet5", image_shape=(1, 8, 8), n_classes=10, seed=0).eval()
    other = program(convolutions, on, calibration=images, engine="compiled")
    other(images)
    assert not other.is_batch_invariant
    assert not program(network, "ideal", engine="compiled").is_batch_invariant
