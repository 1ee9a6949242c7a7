"""Counts of cells and converters of the chips of a study against those chips."""

import numpy as np
import pytest

from analog_samson import program
from analog_samson.checkpoint import TrainingSpec, load_checkpoint
from analog_samson.data import load_test
from analog_samson.devices import load_device
from analog_samson.streams import derive_seed
from analog_samson.study import clipping_counts, conductance_counts
from analog_samson.study.cells import CLIPPING_COLUMNS, CONDUCTANCE_COLUMNS
from analog_samson.times import DAY, YEAR
from analog_samson.training import train


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    return load_checkpoint(train(TrainingSpec(epochs=2, seed=7), tmp_path_factory.mktemp("nets")))


def chip_of(checkpoint, number, device="pcm_like"):
    return program(checkpoint, device, seed=derive_seed(0, checkpoint.spec.seed, number))


def cells(tensors):
    return np.concatenate([c.numpy().ravel() for array in tensors for c in array])


def test_conductances_are_counted_as_by_numpy(checkpoint):
    rows = conductance_counts(checkpoint, "pcm_like", YEAR, chips=2, bins=40)
    assert tuple(rows.columns) == CONDUCTANCE_COLUMNS
    assert rows["extrapolated"].all()
    chip = chip_of(checkpoint, 1)
    edges = np.linspace(0.0, 1.25 * 25.0, 41)
    for state, t in (("programmed", 0.0), ("read", YEAR)):
        aged = chip.drift_to(t)
        for layer, tensors in aged.conductances().items():
            own = rows[(rows["chip"] == 1) & (rows["state"] == state) & (rows["layer"] == layer)]
            for column, values in (
                ("conductance_uS", cells(tensors)),
                ("target_uS", cells(chip.target_conductances()[layer])),
            ):
                expected, _ = np.histogram(values.clip(edges[0], edges[-1]), edges)
                counts = np.zeros(40, int)
                np.add.at(counts, np.digitize(own[column], edges) - 1, own["count"])
                np.testing.assert_array_equal(counts, expected)


def test_targets_are_the_programmed_conductances_of_an_exact_device(checkpoint):
    content = load_device("pcm_like").model_dump()
    content["noise"] |= {"programming_noise_scale": 0.0}
    exact = type(load_device("pcm_like")).model_validate(content)
    chip = chip_of(checkpoint, 0, exact).drift_to(0.0)
    for layer, tensors in chip.conductances().items():
        np.testing.assert_allclose(
            cells(tensors), cells(chip.target_conductances()[layer]), atol=1e-4
        )


def test_a_device_without_data_at_zero_has_no_programmed_state(checkpoint):
    states = set(conductance_counts(checkpoint, "reram_wan2022", DAY)["state"])
    has = load_device("reram_wan2022").noise.has_programmed_state
    assert states == ({"programmed", "read"} if has else {"read"})


def test_what_is_cut_off_is_that_of_the_chip_on_all_images(checkpoint):
    rows = clipping_counts(checkpoint, "pcm_like", DAY, chips=2)
    assert tuple(rows.columns) == CLIPPING_COLUMNS
    images = checkpoint.normalise(load_test("digits").images)
    whole = chip_of(checkpoint, 1).drift_to(DAY).count_clipped(images)
    for layer, arrays in whole.items():
        own = rows[(rows["chip"] == 1) & (rows["layer"] == layer)]
        for number, counts in enumerate(arrays):
            row = own[own["array"] == number].iloc[0]
            assert row["n_inputs"] == counts.n_inputs
            assert row["n_outputs"] == counts.n_outputs
            assert row["n_clipped"] == pytest.approx(counts.n_clipped, abs=1)
            assert row["n_saturated"] == pytest.approx(counts.n_saturated, abs=1)


@pytest.mark.parametrize("given", [{"chips": 0}, {"bins": 0}])
def test_wrong_numbers_are_named(checkpoint, given):
    with pytest.raises(ValueError, match="at least 1"):
        conductance_counts(checkpoint, "pcm_like", DAY, **given)


def test_converters_of_a_language_model_are_counted(tmp_path):
    book = tmp_path / "book.txt"
    book.write_text("so it goes, and on it goes. " * 60)
    options = {"model": "char_lstm", "model_kwargs": {"width": 8, "layers": 1}, "batch_size": 16}
    spec = TrainingSpec(dataset=f"{book},length=16,test_fraction=0.2", epochs=1, **options)
    path = train(spec, tmp_path)
    rows = clipping_counts(path, "pcm_like", DAY, data_folder=tmp_path)
    assert set(rows["layer"]) == {"lstm.l0.ih", "lstm.l0.hh", "head"}
    n_test = len(load_test(load_checkpoint(path).spec.dataset, tmp_path))
    head = rows[rows["layer"] == "head"].iloc[0]
    assert head["n_inputs"] == n_test * 16 * 8 and head["n_saturated"] <= head["n_outputs"]
