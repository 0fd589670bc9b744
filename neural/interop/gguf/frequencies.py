"""Llama 3's scaling of RoPE, which a GGUF file has as a tensor of factors that the frequencies are divided by."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from neural.interop.decoder import Rotary
from neural.interop.gguf.container import decimal

if TYPE_CHECKING:
    import numpy

    Array = numpy.ndarray

NAME = "rope_freqs.weight"
LOW, HIGH = 1.0, 4.0  # Llama 3's; the factors alone do not tell them from others with another original length
ROUNDING = 1e-5  # relative: the factors are float32


def factors(rope: Rotary, head_dim: int) -> Array:
    """(head_dim / 2,) float32: what each frequency is divided by (Llama 3's `apply_scaling`)."""
    import numpy as np

    turns = rope.original_max_length / _wavelengths(rope.base, head_dim)  # within the original context
    smooth = (turns - rope.low_frequency_factor) / (rope.high_frequency_factor - rope.low_frequency_factor)
    smooth = np.clip(smooth, 0.0, 1.0)
    return (1 / ((1 - smooth) / rope.factor + smooth)).astype(np.float32)


def scaling(base: float, head_dim: int, found: Array) -> Rotary | None:
    """The RoPE whose factors these are; None if they are not Llama 3's."""
    import numpy as np

    found = found.astype(np.float64)
    if found.shape != (head_dim // 2,) or not np.all(np.isfinite(found)) or found.min() < 1:
        return None
    factor = float(found.max())
    if factor == 1:
        return Rotary(base)
    between = (found > 1 + ROUNDING) & (found < factor * (1 - ROUNDING))
    lengths = [Rotary().original_max_length]
    if between.any():
        smooth = (1 / found[between] - 1 / factor) / (1 - 1 / factor)
        turns = LOW + smooth * (HIGH - LOW)
        lengths.append(round(float(np.median(turns * _wavelengths(base, head_dim)[between]))))
    for length in lengths:
        rope = Rotary(base, "llama3", decimal(factor), LOW, HIGH, length)
        if np.allclose(factors(rope, head_dim), found, rtol=ROUNDING, atol=0):
            return rope
    return None


def _wavelengths(base: float, head_dim: int) -> Array:
    """In tokens, of each pair of a head, the fastest first."""
    import numpy as np

    return 2 * math.pi * base ** (np.arange(0, head_dim, 2) / head_dim)
