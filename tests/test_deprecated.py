import importlib

import pytest

from analog_samson.commands import run_command
from analog_samson.deprecated import accepts_old_names
from analog_samson.devices import load_device


@accepts_old_names(images="n_images_per_chip")
def function(name, n_images_per_chip=None):
    return name, n_images_per_chip


@accepts_old_names(images="n_images_per_chip")
class Class:
    def __init__(self, name, n_images_per_chip=None):
        self.given = name, n_images_per_chip


@pytest.mark.parametrize("call", [function, lambda *a, **k: Class(*a, **k).given])
def test_an_old_argument_name_works_and_warns_with_the_new_name(call):
    message = "Argument 'images' of .* is now named 'n_images_per_chip'"
    with pytest.warns(FutureWarning, match=message):
        assert call("a", images=3) == ("a", 3)
    assert call("a", n_images_per_chip=3) == call("a", 3) == ("a", 3)
    with pytest.raises(ValueError, match="give 'n_images_per_chip' only"):
        call("a", images=3, n_images_per_chip=3)


def test_a_warning_points_to_the_line_that_uses_the_old_name():
    with pytest.warns(FutureWarning) as caught:
        function("a", images=3)
    assert caught[0].filename == __file__


@pytest.mark.parametrize(
    ("module", "old", "new"),
    [
        ("analog_samson.analog", "DeviceState", "CellState"),
        ("analog_samson.devices", "AXES", "SHORT_AXIS_NAMES"),
        ("analog_samson.landscape", "cross_entropy", "mean_cross_entropy"),
        ("analog_samson.training", "SCORES", "CRITERIA"),
        ("analog_samson.results", "digital_accuracy", "digital_score"),
        ("analog_samson.results", "estimated_accuracy", "estimated_score"),
        ("analog_samson.study", "estimate", "estimate_cost"),
        ("analog_samson.study", "Estimate", "CostEstimate"),
        ("analog_samson.study", "waterfall", "accuracy_by_stage"),
        ("analog_samson.study", "layer_sensitivity", "accuracy_by_layer"),
    ],
)
def test_an_old_public_name_works_and_warns_with_the_new_name(module, old, new):
    found = importlib.import_module(module)
    with pytest.warns(FutureWarning, match=f"{module}.{old} is now named {module}.{new}"):
        assert getattr(found, old) is getattr(found, new)
    with pytest.raises(AttributeError, match="has no attribute 'no_such_name'"):
        found.no_such_name  # noqa: B018


@pytest.mark.parametrize(
    ("section", "old", "new"),
    [
        ("Device", "said_in_every_row", "always_recorded_axes"),
        ("Periphery", "is_by_vector", "is_per_vector"),
        ("NoiseSection", "keeps_its_place", "keeps_quantile"),
    ],
)
def test_an_old_property_of_a_device_works_and_warns_with_the_new_name(section, old, new):
    device = load_device("reram_wan2022")
    found = {"Device": device, "Periphery": device.periphery, "NoiseSection": device.noise}[section]
    with pytest.warns(FutureWarning, match=f"{section}.{old} is now named {section}.{new}"):
        assert getattr(found, old) == getattr(found, new)


def test_the_old_method_for_the_device_of_a_layer_works_and_warns():
    device = load_device("pcm_like")
    with pytest.warns(FutureWarning, match="now named Device.with_overrides_for"):
        assert device.for_layer("fc1") == device


@pytest.mark.parametrize("arguments", [["--images", "3"], ["--images=3"]])
def test_an_old_option_works_and_warns_with_the_new_name(arguments):
    given = []

    def main(n_images_per_chip: int = 0) -> None:
        given.append(n_images_per_chip)

    with pytest.warns(FutureWarning, match="Option --images is now named --n-images-per-chip"):
        run_command(main, arguments, old_options={"--images": "--n-images-per-chip"})
    assert given == [3]
