"""Memory that a step frees is kept for the next one.

The C library maps each large array anew and gives it back when it is freed, so that a step pays for a page fault every
4 KiB of every activation: on virtual machines, a tenth of a small GPT's step.
"""

from __future__ import annotations

import ctypes
import platform
from collections.abc import Iterator
from contextlib import contextmanager

# Of glibc's malloc.h, with their defaults.
M_TRIM_THRESHOLD, M_TOP_PAD, M_MMAP_MAX = (-1, 128 * 1024), (-2, 128 * 1024), (-4, 65536)
HELD = 2**31 - 1  # bytes that may lie free
AHEAD = 2**26  # bytes to ask the system for at a time


@contextmanager
def memory_held() -> Iterator[None]:
    """Within it, freed memory stays with the process, where its C library is glibc; elsewhere nothing changes."""
    if platform.libc_ver()[0] != "glibc":
        yield
        return
    library = ctypes.CDLL(None)
    for (parameter, _), value in ((M_MMAP_MAX, 0), (M_TRIM_THRESHOLD, HELD), (M_TOP_PAD, AHEAD)):
        library.mallopt(parameter, value)
    try:
        yield
    finally:
        for parameter, default in (M_MMAP_MAX, M_TRIM_THRESHOLD, M_TOP_PAD):
            library.mallopt(parameter, default)
        library.malloc_trim(0)
