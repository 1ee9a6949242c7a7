import pytest

from analog_samson.checkpoint import TrainingSpec
from analog_samson.training import train


@pytest.fixture(scope="session")
def digits_checkpoint(tmp_path_factory):
    """A network that is trained in two seconds."""
    return train(TrainingSpec(epochs=5), tmp_path_factory.mktemp("digits"))
