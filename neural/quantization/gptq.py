"""GPTQ (Frantar et al. 2023): round a matrix column by column, and let later columns make up for each one's error."""

from __future__ import annotations

import numpy as np

from neural.quantization.matrix import GROUP, ROWS, QuantizedMatrix, bits_for
from neural.quantization.rounding import assembled, best_scales, nearest

DAMPING = 0.01  # of the mean of the Hessian's diagonal, added to it
BLOCK = 64  # columns between two corrections of all that follow


def gptq(matrix: np.ndarray, second_moment: np.ndarray, bits: int, group: int = GROUP) -> QuantizedMatrix:
    """A float32 (N, K) such that its products with what it really reads change little. bits: as `bits_for` says.

    second_moment: (K, K), the mean of x xᵀ over the inputs x: half the Hessian of the squared error of x · matrixᵀ,
    which all rows share. The scale of a group is chosen when its first column is reached, for the columns as they have
    become by then, each counting as much as later ones cannot make up for. Inputs that are always 0 do no harm:
    damping makes the Hessian positive definite.
    """
    bits = bits_for(matrix.shape[1], bits, group)
    group = matrix.shape[1] if bits == 8 else group
    factor = _inverse_factor(second_moment)
    parts = [_rows(matrix[i : i + ROWS], factor, bits, group) for i in range(0, len(matrix), ROWS)]
    return assembled(bits, group, parts)


def _inverse_factor(second_moment: np.ndarray) -> np.ndarray:
    """U, upper triangular float32, with UᵀU the inverse of the damped Hessian."""
    hessian = second_moment.astype(np.float64)
    mean = np.trace(hessian) / len(hessian)
    hessian[np.diag_indices_from(hessian)] += DAMPING * mean if mean > 0 else 1.0
    inverse = np.linalg.inv(np.linalg.cholesky(hessian))
    return np.linalg.cholesky(inverse.T @ inverse).T.astype(np.float32)


def _rows(rows: np.ndarray, factor: np.ndarray, bits: int, group: int) -> tuple[np.ndarray, np.ndarray]:
    """int8 (K, N) and float32 (K // group, N) of some rows."""
    columns = np.array(rows.T, np.float32, order="C")  # changed as we go
    integers, scales = np.empty(columns.shape, np.int8), []
    for start in range(0, len(columns), min(group, BLOCK)):
        if start % group == 0:
            scales.append(best_scales(columns[start : start + group], bits, _importance(factor, start, group)))
        end = min(start + min(group, BLOCK), len(columns))
        block, own = columns[start:end], factor[start:end, start:end]
        errors = np.empty_like(block)
        for i in range(end - start):
            rounded = nearest(block[i], scales[-1], bits)
            integers[start + i] = rounded
            errors[i] = (block[i] - rounded * scales[-1]) / own[i, i]
            block[i + 1 :] -= own[i, i + 1 :, None] * errors[i]
        columns[end:] -= factor[start:end, end:].T @ errors
    return integers, np.stack(scales)


def _importance(factor: np.ndarray, start: int, group: int) -> np.ndarray:
    """float32 (G,): how much an error in each column of a group costs that later columns cannot make up for."""
    return np.diag(factor)[start : start + group] ** -2.0
