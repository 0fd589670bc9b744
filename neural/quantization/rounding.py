"""Rounding to the nearest: what can be done to a matrix without data."""

from __future__ import annotations

import numpy as np

from neural.quantization.matrix import GROUP, ROWS, QuantizedMatrix, bits_for, packed

LARGEST_SCALE = float(np.finfo(np.float16).max)


def round_to_nearest(matrix: np.ndarray, bits: int, group: int = GROUP) -> QuantizedMatrix:
    """A float32 (N, K), each number as the nearest of its group's steps. bits: 8 or 4; as `bits_for` says, 8 for 4."""
    bits = bits_for(matrix.shape[1], bits, group)
    rounded = _rows_int8 if bits == 8 else _rows_int4
    parts = [rounded(matrix[i : i + ROWS].astype(np.float32), group) for i in range(0, len(matrix), ROWS)]
    values, scales = (np.concatenate(pieces) for pieces in zip(*parts, strict=True))
    return QuantizedMatrix(bits, matrix.shape[1] if bits == 8 else group, values, scales)


def _rows_int8(rows: np.ndarray, _: int) -> tuple[np.ndarray, np.ndarray]:
    scales = np.abs(rows).max(axis=1) / np.float32(127)
    scales[scales == 0] = 1  # a row of zeros
    return np.rint(rows / scales[:, None]).astype(np.int8), scales


def _rows_int4(rows: np.ndarray, group: int) -> tuple[np.ndarray, np.ndarray]:
    groups = rows.reshape(len(rows), -1, group)
    scales = extreme(groups) / np.float32(-8)
    return packed(nearest_int4(groups, scales).reshape(rows.shape)), stored(scales)


def extreme(groups: np.ndarray) -> np.ndarray:
    """The number that is farthest from 0, with its sign, of each group (…, G) -> (…)."""
    low, high = groups.min(-1), groups.max(-1)
    return np.where(-low > high, low, high)


def stored(scales: np.ndarray) -> np.ndarray:
    """Scales as float16; those that it cannot hold become its largest."""
    return np.clip(scales, -LARGEST_SCALE, LARGEST_SCALE).astype(np.float16)


def nearest_int4(groups: np.ndarray, scales: np.ndarray) -> np.ndarray:
    """int8 (…, G) under scales (…) as they will be stored."""
    scales = stored(scales).astype(np.float32)
    scales[scales == 0] = 1  # a group of zeros, or of what float16 takes for it
    return np.clip(np.rint(groups / scales[..., None]), -8, 7).astype(np.int8)
