"""Memory between the steps of a training."""

import ctypes
from collections.abc import Iterator
from contextlib import contextmanager

from analog_samson.running import return_freed_memory

_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3  # parameters of mallopt, malloc.h
_MIB = 1 << 20


@contextmanager
def freed_memory_kept() -> Iterator[None]:
    """Let the process keep the memory that tensors free, for the tensors of the next step.

    The GNU C library gives large blocks back to the system at the end of a step and is handed them
    page by page in the next one: up to a fifth of a step's time on CPUs. With another C library
    nothing changes. Afterwards what is free goes back, and the thresholds are those that the
    library's own adjustment arrives at.
    """
    library = ctypes.CDLL(None)
    if not hasattr(library, "mallopt"):
        yield
        return
    library.mallopt(_TRIM_THRESHOLD, 2**31 - 1)
    if not library.mallopt(_MMAP_THRESHOLD, 1024 * _MIB):  # older versions take no more than 32
        library.mallopt(_MMAP_THRESHOLD, 32 * _MIB)
    try:
        yield
    finally:
        library.mallopt(_TRIM_THRESHOLD, 64 * _MIB)
        library.mallopt(_MMAP_THRESHOLD, 32 * _MIB)
        return_freed_memory()
