"""Shared by all tests: one thread each (pytest-xdist uses the cores), real data where it lies."""

from pathlib import Path

import pytest


@pytest.fixture(scope="session", autouse=True)
def one_thread():
    import torch

    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def real_data() -> Path:
    """Folder with mnist/ and cifar10/ in the parquet layout; skips where there is none."""
    folder = Path(__file__).parents[2] / "shared" / "data"
    if not folder.is_dir():
        pytest.skip(f"no real images in {folder}")
    return folder
