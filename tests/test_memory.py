"""Freed memory is kept within a block, measured by the pages that a process asks for."""

import platform
import subprocess
import sys
import textwrap

import pytest


@pytest.mark.slow
@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only the GNU C library is adjusted")
def test_freed_memory_is_reused_within_the_outermost_block() -> None:
    """In a process of its own: a heap that other tests have filled has no end to keep."""
    script = textwrap.dedent("""
        import resource
        from pathlib import Path
        import torch
        from analog_samson.memory import freed_memory_kept

        def blocks_asked_for():
            before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
            for _ in range(10):
                torch.ones(12_000_000)  # 48 MB: above every threshold of the library by itself
            pages = resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
            return pages * resource.getpagesize() / 48e6

        def blocks_held():
            pages = int(Path("/proc/self/statm").read_text().split()[1])
            return pages * resource.getpagesize() / 48e6

        print(blocks_asked_for())
        with freed_memory_kept():
            blocks_asked_for()  # up to ten, until holes between other objects fit
            print(blocks_asked_for())
            with freed_memory_kept():
                pass
            print(blocks_asked_for())
            held = blocks_held()
        print(held - blocks_held())
    """)
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    given_back, kept, after_inner_block, returned = map(float, done.stdout.split())
    assert given_back > 9
    assert kept < 2
    assert after_inner_block < 2
    assert returned > 0.9
