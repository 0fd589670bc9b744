"""Memory for logits on a CPU, which is kept from one set of them to the next.

Freed memory would not do, although the C library holds it (`neural.training.allocation`): to align an array, glibc
looks for a hole of 96 bytes more than the array, so that what a set of logits leaves takes no other one where arrays
stand on both sides, and each thread has holes of its own. A model of 64 × 50,257 held 1,450 MiB, and 640 with this.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from neural.planning.memory import DEPTH


class LogitsMemory:
    """As many pieces as there were sets of logits at a time, in threads."""

    def __init__(self) -> None:
        self._free: list[torch.Tensor] = []

    @contextmanager
    def piece(self, rows: int, weight: torch.Tensor | None) -> Iterator[torch.Tensor | None]:
        """float32 memory, of any content, for so many rows of logits by the head's weight (V, D).

        None without a weight, on a GPU, whose allocator finds its own again, and for a deep head, whose fastest product
        takes its own memory.
        """
        if weight is None or weight.device.type != "cpu" or weight.size(1) >= DEPTH:
            yield None
            return
        found = self._free.pop() if self._free else torch.empty(0)
        if found.numel() < rows * len(weight):
            found = torch.empty(rows * len(weight))
        try:
            yield found
        finally:
            self._free.append(found)
