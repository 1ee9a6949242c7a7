"""Memory management between training steps."""

import ctypes
from collections.abc import Iterator
from contextlib import contextmanager

from analog_samson.running import return_freed_memory

_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3  # parameters of mallopt, malloc.h
_MIB = 1 << 20


@contextmanager
def freed_memory_kept() -> Iterator[None]:
    """Keep memory freed by tensors in the process for reuse by the next step.

    By default the GNU C library returns large blocks to the system after a step and gets them back
    page by page in the next one, which takes time on CPUs (``docs/MEASUREMENTS.md``). With another
    C library nothing changes. After the block, free memory is returned, and the thresholds are
    those that the library's own adjustment reaches.
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
