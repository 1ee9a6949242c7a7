"""Memory of freed tensors: kept for the next step, or returned to the system."""

import contextlib
import ctypes
from collections.abc import Iterator

_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3  # parameters of mallopt, malloc.h
_MIB = 1 << 20

_depth = 0  # of blocks within blocks


@contextlib.contextmanager
def freed_memory_kept() -> Iterator[None]:
    """Keep memory freed by tensors in the process for reuse, by the next step or the next layer.

    By default the GNU C library returns large blocks to the system when they are freed and gets
    them back page by page, which takes time on CPUs (``docs/MEASUREMENTS.md``). With another C
    library nothing changes. After the outermost block, free memory is returned, and the thresholds
    are those that the library's own adjustment reaches.
    """
    global _depth
    library = ctypes.CDLL(None)
    if not hasattr(library, "mallopt"):
        yield
        return
    if _depth == 0:
        library.mallopt(_TRIM_THRESHOLD, 2**31 - 1)
        if not library.mallopt(_MMAP_THRESHOLD, 1024 * _MIB):  # older versions take at most 32
            library.mallopt(_MMAP_THRESHOLD, 32 * _MIB)
    _depth += 1
    try:
        yield
    finally:
        _depth -= 1
        if _depth == 0:
            library.mallopt(_TRIM_THRESHOLD, 64 * _MIB)
            library.mallopt(_MMAP_THRESHOLD, 32 * _MIB)
            return_freed_memory()


def return_freed_memory() -> None:
    """Return the memory of freed tensors to the system; glibc keeps it otherwise."""
    with contextlib.suppress(OSError, AttributeError):  # another C library
        ctypes.CDLL(None).malloc_trim(0)
