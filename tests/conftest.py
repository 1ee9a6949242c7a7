"""Shared by all tests: one thread each (pytest-xdist uses the cores), real data where it lies."""

from pathlib import Path

import pytest
from places import SHARED_DATA


@pytest.fixture(scope="session", autouse=True)
def one_thread():
    import torch

    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def real_data() -> Path:
    """Folder with mnist/ and cifar10/ in the parquet layout; skips where there is none."""
    if not SHARED_DATA.is_dir():
        pytest.skip(f"no real images in {SHARED_DATA}")
    return SHARED_DATA
