"""Matrices in blocks of 32 small integers, as onnxruntime's MatMulNBits and GatherBlockQuantized read them."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

BLOCK = 32


class Blocks(NamedTuple):
    """A matrix (rows, columns). A number is (value - zero_point) · scale of its block."""

    values: np.ndarray  # uint8 (rows, blocks, BLOCK · bits / 8); of 4-bit numbers the first is the low half of a byte
    scales: np.ndarray  # float32 (rows, blocks)
    zero_points: np.ndarray  # uint8 (rows, blocks · bits / 8, rounded up), packed as the values are


def fits(shape: tuple[int, ...]) -> bool:
    """Whether a matrix's rows are whole blocks."""
    return shape[-1] % BLOCK == 0


def quantize(matrix: np.ndarray, bits: int) -> Blocks:
    """Round to the nearest of 2^bits even steps from the least to the greatest number of each block, 0 among them."""
    rows, columns = matrix.shape
    parts = [_quantize_rows(matrix[i : i + 4096], bits) for i in range(0, rows, 4096)]
    values, scales, zeros = (np.concatenate(pieces) for pieces in zip(*parts, strict=True))
    if bits == 4:
        values, zeros = _packed(values), _packed(zeros)
    return Blocks(values.reshape(rows, columns // BLOCK, -1), scales, zeros)


def dequantize(blocks: Blocks, bits: int) -> np.ndarray:
    """The matrix (rows, columns), float32."""
    values, zeros = blocks.values, blocks.zero_points
    if bits == 4:
        values, zeros = (np.stack((a & 15, a >> 4), axis=-1).reshape(*a.shape[:-1], -1) for a in (values, zeros))
    zeros = zeros[:, : blocks.scales.shape[1], None]
    matrix = (values.astype(np.float32) - zeros) * blocks.scales[..., None]
    return matrix.reshape(len(matrix), -1)


def _quantize_rows(matrix: np.ndarray, bits: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    blocks = matrix.astype(np.float32).reshape(len(matrix), -1, BLOCK)
    top = 2**bits - 1
    low, high = np.minimum(blocks.min(-1), 0), np.maximum(blocks.max(-1), 0)
    scales = (high - low) / np.float32(top)
    scales[scales == 0] = 1  # a block of zeros
    zeros = np.rint(-low / scales)
    values = np.clip(np.rint(blocks / scales[..., None]) + zeros[..., None], 0, top)
    return values.astype(np.uint8), scales, zeros.astype(np.uint8)


def _packed(values: np.ndarray) -> np.ndarray:
    """Two numbers a byte."""
    if values.shape[-1] % 2:
        values = np.concatenate((values, np.zeros((*values.shape[:-1], 1), np.uint8)), axis=-1)
    return values[..., 0::2] | values[..., 1::2] << 4
