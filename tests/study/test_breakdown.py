"""Claims about the stages of a chip's accuracy."""

import functools

import pytest

from analog_samson import program
from analog_samson.checkpoint import TrainingSpec, load_checkpoint
from analog_samson.data import full_scale, load_test, normalise
from analog_samson.evaluation import count_correct
from analog_samson.streams import derive_seed
from analog_samson.study import Study, accuracy_by_layer, accuracy_by_stage, collect
from analog_samson.study.breakdown import STAGES
from analog_samson.times import DAY, YEAR
from analog_samson.training import train


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    """Where a network trained with a seed other than 0 lies."""
    return train(TrainingSpec(epochs=3, seed=7), tmp_path_factory.mktemp("checkpoints"))


@pytest.fixture(scope="module")
def checkpoint(path):
    return load_checkpoint(path)


def accuracy_of(chip, checkpoint):
    test = load_test("digits")
    as_inputs = functools.partial(
        normalise, mean=checkpoint.mean, std=checkpoint.std, full_scale=full_scale("digits")
    )
    return count_correct(chip, test.images, test.labels, as_inputs) / len(test)


def test_the_first_stage_is_digital_the_last_is_the_chip(checkpoint):
    rows = accuracy_by_stage(checkpoint, "pcm_like", YEAR, chips=2)
    assert tuple(rows["stage"]) == STAGES * 2
    by_stage = rows[rows["chip"] == 1].set_index("stage")["accuracy"]
    assert by_stage["digital"] == checkpoint.accuracy_digital
    assert by_stage["mapped"] == by_stage["digital"]
    chip = program(checkpoint, "pcm_like", seed=derive_seed(0, checkpoint.spec.seed, 1))
    assert by_stage["compensated"] == accuracy_of(chip.drift_to(YEAR), checkpoint)
    uncompensated = accuracy_by_stage(checkpoint, "pcm_like", DAY, chips=1).set_index("stage")[
        "accuracy"
    ]
    assert uncompensated["digital"] == by_stage["digital"]


@pytest.mark.parametrize("seed", [0, 3])
def test_the_last_stage_is_the_chip_of_that_number_in_the_study(path, tmp_path, seed):
    devices = ("pcm_like", "reram_wan2022")
    study = Study("same chips", [path], devices, [DAY], n_chips=2, seed=seed)
    rows = collect(study, tmp_path).set_index(["checkpoint", "device", "t_inference_s", "chip"])
    for device in devices:
        stages = accuracy_by_stage(path, device, DAY, chips=2, seed=seed)
        last = stages[stages["stage"] == "compensated"].set_index(list(rows.index.names))
        both = rows.join(last["accuracy"], how="inner")
        assert len(both) == 2
        assert list(both["n_correct"]) == list((both["accuracy"] * both["n_test"]).round())


def test_a_device_without_programmed_state_has_no_such_stage(checkpoint):
    rows = accuracy_by_stage(checkpoint, "reram_wan2022", DAY, chips=1)
    assert tuple(rows["stage"]) == tuple(stage for stage in STAGES if stage != "programmed")
    accuracy = rows.set_index("stage")["accuracy"]
    assert accuracy["drifted"] == accuracy["read"] == accuracy["compensated"]


def test_one_layer_at_a_time_has_a_row_a_layer_and_chip(checkpoint):
    rows = accuracy_by_layer(checkpoint, "pcm_like", YEAR, chips=2)
    layers = list(checkpoint.input_ranges)
    assert list(rows["layer"]) == layers * 2
    assert (rows["clean_accuracy"] == checkpoint.accuracy_digital).all()


def test_weight_level_devices_cannot_be_split_into_stages(checkpoint):
    with pytest.raises(ValueError, match="weight-level"):
        accuracy_by_stage(checkpoint, "pcm_like_as_in_aihwkit", DAY)
