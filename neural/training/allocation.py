"""What the C library does with memory that a training on a CPU frees: hold it for the next step, or give it back.

It maps each large array anew and gives it back when it is freed, so that a step pays for a page fault every 4 KiB of
every activation: a fifth of GPT-2's step. Held memory is sooner there, and more of it: what is free between two arrays
may fit none of the next ones. Where blocks are computed again to need less, it is held within a block.
"""

from __future__ import annotations

import ctypes
import platform
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext

# Of glibc's malloc.h, with their defaults.
M_TRIM_THRESHOLD, M_TOP_PAD, M_MMAP_THRESHOLD, M_MMAP_MAX, M_ARENA_MAX = -1, -2, -3, -4, -8
DEFAULTS = {M_TRIM_THRESHOLD: 128 * 1024, M_TOP_PAD: 128 * 1024, M_MMAP_THRESHOLD: 128 * 1024, M_MMAP_MAX: 65536}
DEFAULTS |= {M_ARENA_MAX: 0}  # by the cores; once a thread asked for a heap, what was said then stays
# Up to 2 GiB may lie free, and 64 MiB are asked for at a time. Threads take heaps that are there and make none: what
# one heap has free no other one has, and a thread's is in pieces of 64 MiB, whose ends fit few arrays. Six layers 384
# wide, 64 x 256, held a seventh more. Said at the start it would save more, but tokenising takes 3.5 times as long.
HELD = {M_MMAP_MAX: 0, M_TRIM_THRESHOLD: 2**31 - 1, M_TOP_PAD: 2**26, M_ARENA_MAX: 1}
RETURNED = {M_MMAP_THRESHOLD: 2**25, M_TRIM_THRESHOLD: 2**26}  # the most, and what the library gives it by itself
GLIBC = platform.libc_ver()[0] == "glibc"


def memory_for(device: str, *, checkpointing: bool) -> AbstractContextManager[None]:
    """How a training on "cpu" or "cuda" has its memory: held, but where it computes again to need less of it, and says
    when it goes back (`give_back`)."""
    if device != "cpu":
        return nullcontext()
    return _memory(RETURNED if checkpointing else HELD)


@contextmanager
def _memory(options: Mapping[int, int]) -> Iterator[None]:
    """Within it they hold, where the C library is glibc; elsewhere nothing changes."""
    if not GLIBC:
        yield
        return
    library = ctypes.CDLL(None)
    give_back()  # what is free of before: a text that was tokenised leaves 80 MiB
    for parameter, value in options.items():
        library.mallopt(parameter, value)
    try:
        yield
    finally:
        for parameter in options:
            library.mallopt(parameter, DEFAULTS[parameter])
        give_back()


def give_back() -> None:
    """All memory that is free, to the system."""
    if GLIBC:
        ctypes.CDLL(None).malloc_trim(0)
