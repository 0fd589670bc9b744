"""Quantised matrices as onnxruntime's MatMulNBits and GatherBlockQuantized read them: the same integers, in blocks.

Their zero points are whole steps (those of fractions are computed in float32, 100 times slower). What ours add to a
product is one of its own, of the sums of the input's groups with a matrix a 32nd of the size.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from neural.quantization.matrix import QuantizedMatrix, offsets

LARGEST_BLOCK = 32  # of an int8 row, whose blocks all have its scale: what is read is rounded to 8 bits by blocks, too
SMALLEST_BLOCK = 16  # that the operators know


class Blocks(NamedTuple):
    """A matrix (rows, columns). A number is (value - 2^(bits - 1)) · scale of its block: the operators' zero point."""

    size: int  # numbers in a block
    values: np.ndarray  # uint8 (rows, blocks, size · bits / 8); of 4-bit numbers the first is the low half of a byte
    scales: np.ndarray  # float32 (rows, blocks)


def to_blocks(matrix: QuantizedMatrix) -> Blocks | None:
    """None where the rows are not whole blocks: an operator for that there is none."""
    rows, columns = matrix.shape
    size = min(columns & -columns, LARGEST_BLOCK) if matrix.bits == 8 else matrix.group
    if size < SMALLEST_BLOCK:
        return None
    values = matrix.values.view(np.uint8) ^ np.uint8(128) if matrix.bits == 8 else matrix.values
    scales = matrix.scales.astype(np.float32).reshape(rows, -1)
    if matrix.bits == 8:
        scales = np.repeat(scales, columns // size, axis=1)
    return Blocks(size, values.reshape(rows, columns // size, -1), scales)


def group_offsets(matrix: QuantizedMatrix) -> np.ndarray | None:
    """float32 (K // group, N): what times the sums of a row's groups its zero points add to the row's product."""
    if matrix.zeros is None:
        return None
    return (offsets(matrix.zeros) * matrix.scales.astype(np.float32)).T


def from_blocks(values: np.ndarray, scales: np.ndarray, bits: int) -> np.ndarray:
    """The matrix (rows, columns), float32, of a Blocks' values and scales."""
    if bits == 4:
        values = np.stack((values & 15, values >> 4), axis=-1).reshape(*scales.shape, -1)
    numbers = (values.astype(np.float32) - 2 ** (bits - 1)) * scales[..., None]
    return numbers.reshape(len(numbers), -1)
