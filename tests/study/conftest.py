import pytest

from analog_samson.checkpoint import TrainingSpec
from analog_samson.training import train


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory):
    """Two networks of each of two methods."""
    folder = tmp_path_factory.mktemp("checkpoints")
    return [
        train(TrainingSpec(method=method, seed=seed, epochs=1, **strength), folder)
        for method, strength in (("sgd", {}), ("rwp", {"sigma": 0.05}))
        for seed in (0, 1)
    ]
