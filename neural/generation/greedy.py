"""Greedy search on the device that has the logits, so that tokens alone come from it and no rows of logits."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from neural.generation.row import Row

APART = frozenset({"cuda"})  # devices from which a row of logits is a copy, and a wait


def greedy(rows: Sequence[Row], logits: Tensor) -> list[int] | None:
    """The next token of each row, of logits (B, V): the largest, of equals the first, as `sample` has it.

    None where a row asks for more than that, where its largest logit is not finite, and on a CPU.
    """
    if logits.device.type not in APART or not all(row.takes_largest for row in rows):
        return None
    peaks, first = logits.max(-1)
    tokens = torch.where(peaks.isfinite(), first, -1).tolist()
    return None if -1 in tokens else tokens
