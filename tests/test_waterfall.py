"""Claims about the stages of a chip's accuracy."""

import functools

import pytest

from analog_samson import program
from analog_samson.checkpoint import TrainingSpec, load_checkpoint
from analog_samson.data import full_scale, load_test, normalise
from analog_samson.evaluation import count_correct
from analog_samson.study import layer_sensitivity, waterfall
from analog_samson.study.waterfall import STAGES
from analog_samson.times import DAY, YEAR
from analog_samson.training import train


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    spec = TrainingSpec(epochs=3)
    return load_checkpoint(train(spec, tmp_path_factory.mktemp("checkpoints")))


def accuracy_of(chip, checkpoint):
    test = load_test("digits")
    as_inputs = functools.partial(
        normalise, mean=checkpoint.mean, std=checkpoint.std, full_scale=full_scale("digits")
    )
    return count_correct(chip, test.images, test.labels, as_inputs) / len(test)


def test_the_first_stage_is_digital_the_last_is_the_chip(checkpoint):
    rows = waterfall(checkpoint, "pcm_like", YEAR, chips=2)
    assert tuple(rows["stage"]) == STAGES * 2
    by_stage = rows[rows["chip"] == 1].set_index("stage")["accuracy"]
    assert by_stage["digital"] == checkpoint.accuracy_digital
    assert by_stage["mapped"] == by_stage["digital"]
    chip = program(checkpoint, "pcm_like", seed=1)
    assert by_stage["compensated"] == accuracy_of(chip.drift_to(YEAR), checkpoint)
    uncompensated = waterfall(checkpoint, "pcm_like", DAY, chips=1).set_index("stage")["accuracy"]
    assert uncompensated["digital"] == by_stage["digital"]


def test_a_device_without_programmed_state_has_no_such_stage(checkpoint):
    rows = waterfall(checkpoint, "reram_wan2022", DAY, chips=1)
    assert tuple(rows["stage"]) == tuple(stage for stage in STAGES if stage != "programmed")
    accuracy = rows.set_index("stage")["accuracy"]
    assert accuracy["drifted"] == accuracy["read"] == accuracy["compensated"]


def test_one_layer_at_a_time_has_a_row_a_layer_and_chip(checkpoint):
    rows = layer_sensitivity(checkpoint, "pcm_like", YEAR, chips=2)
    layers = list(checkpoint.input_ranges)
    assert list(rows["layer"]) == layers * 2
    assert (rows["clean_accuracy"] == checkpoint.accuracy_digital).all()


def test_weight_level_devices_cannot_be_split_into_stages(checkpoint):
    with pytest.raises(ValueError, match="weight-level"):
        waterfall(checkpoint, "pcm_like_as_in_aihwkit", DAY)
