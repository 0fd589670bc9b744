"""Rounding to the nearest: what can be done to a matrix without data."""

from __future__ import annotations

import numpy as np

from neural.quantization.matrix import GROUP, ROWS, QuantizedMatrix, bits_for, packed

LARGEST_SCALE = float(np.finfo(np.float16).max)
# What the number of a group that is farthest from 0 may become, -8 being the end: beyond it numbers are clipped, which
# costs little for few of them and makes the steps of all others finer. Positive: the end is 7, on the other side.
EXTREMES = (-8.0, -8.7, -9.4, -8.35, -7.65, -7.3, 7.0, 7.35, 7.7, 8.1)
LOWEST, HIGHEST = {8: -127, 4: -8}, {8: 127, 4: 7}


def round_to_nearest(matrix: np.ndarray, bits: int, group: int = GROUP) -> QuantizedMatrix:
    """A float32 (N, K), each number as the nearest of its group's steps. bits: 8 or 4; as `bits_for` says, 8 for 4."""
    bits = bits_for(matrix.shape[1], bits, group)
    group = matrix.shape[1] if bits == 8 else group
    parts = [_rows(matrix[i : i + ROWS], bits, group) for i in range(0, len(matrix), ROWS)]
    return assembled(bits, group, parts)


def _rows(rows: np.ndarray, bits: int, group: int) -> tuple[np.ndarray, np.ndarray]:
    columns = np.array(rows.T, np.float32, order="C")
    starts = range(0, len(columns), group)
    scales = [best_scales(columns[i : i + group], bits) for i in starts]
    integers = [nearest(columns[i : i + group], s, bits) for i, s in zip(starts, scales, strict=True)]
    return np.concatenate(integers).astype(np.int8), np.stack(scales)


def assembled(bits: int, group: int, parts: list[tuple[np.ndarray, np.ndarray]]) -> QuantizedMatrix:
    """From integers, int8 (K, rows), and scales, float32 (K // group, rows), of one stretch of rows after another."""
    integers = np.concatenate([part.T for part, _ in parts])
    scales = np.concatenate([part.T for _, part in parts])
    if bits == 8:
        return QuantizedMatrix(8, group, integers, scales[:, 0])
    return QuantizedMatrix(4, group, packed(integers), scales.astype(np.float16))


def best_scales(columns: np.ndarray, bits: int) -> np.ndarray:
    """float32 (N,) for the G columns of a group, (G, N), as they will be stored.

    int8: what makes the farthest number 127. int4: of the scales for EXTREMES the ones with the least squared error.
    """
    low, high = columns.min(axis=0), columns.max(axis=0)
    extremes = np.where(-low > high, low, high)
    if bits == 8:
        return np.abs(extremes) / np.float32(127)
    best, scales = np.full(extremes.shape, np.inf, np.float32), np.zeros_like(extremes)
    for end in EXTREMES:
        tried = _as_float16(extremes / np.float32(end))
        total = np.square(nearest(columns, tried, bits) * tried - columns).sum(axis=0)
        better = total < best
        best, scales = np.where(better, total, best), np.where(better, tried, scales)
    return scales


def _as_float16(scales: np.ndarray) -> np.ndarray:
    """float32 as float16 has it; those that it cannot hold become its largest."""
    return np.clip(scales, -LARGEST_SCALE, LARGEST_SCALE).astype(np.float16).astype(np.float32)


def nearest(columns: np.ndarray, scales: np.ndarray, bits: int) -> np.ndarray:
    """The integers, as float32 (G, N) or (N,), that come nearest to the numbers under scales (N,)."""
    steps = columns / np.where(scales == 0, np.float32(1), scales)  # a group of zeros, or of what float16 takes for it
    return np.clip(np.rint(steps, out=steps), LOWEST[bits], HIGHEST[bits], out=steps)
