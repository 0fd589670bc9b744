"""Greedy search, where it is all that is asked: one look at the logits, on the device that has them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from neural.generation.row import Row

APART = frozenset({"cuda"})  # devices from which a row of logits is a copy, and a wait


def greedy(rows: Sequence[Row], logits: Tensor) -> list[int] | None:
    """The next token of each row, of logits (B, V): the largest, of equals the first, as `sample` has it.

    None where a row asks for more than that, and where its largest logit is not finite.
    """
    if not all(row.takes_largest for row in rows):
        return None
    if logits.device.type in APART:
        peaks, first = logits.max(-1)
        tokens = torch.where(peaks.isfinite(), first, -1).tolist()
        return None if -1 in tokens else tokens
    numbers = logits.float().cpu().numpy()
    found = numbers.argmax(-1)  # the first NaN, if there is one
    return found.tolist() if np.isfinite(numbers[np.arange(len(found)), found]).all() else None
