"""GPTQ (Frantar et al. 2023): round a matrix column by column, and let later columns make up for each one's error."""

from __future__ import annotations

import numpy as np

from neural.quantization.matrix import GROUP, ROWS, QuantizedMatrix, bits_for
from neural.quantization.rounding import Part, assembled, best_steps, nearest, part

DAMPING = 0.01  # of the mean of the Hessian's diagonal, added to it
BLOCK = 32  # columns between two corrections of all that follow
SMALL = 64  # columns that are not halved further


def gptq(
    matrix: np.ndarray, second_moment: np.ndarray, bits: int, group: int = GROUP, *, zeros: bool = False
) -> QuantizedMatrix:
    """A float32 (N, K) such that its products with what it really reads change little. bits: as `bits_for` says.
    zeros: with zero points, if it is of 4 bits.

    second_moment: (K, K), the mean of x xᵀ over the inputs x: half the Hessian of the squared error of x · matrixᵀ,
    which all rows share. Columns are taken by the size of what they are multiplied by, largest first, while there are
    many left to make up for them; steps are those of rounding to the nearest, so that groups stay neighbours. Inputs
    that are always 0 do no harm: damping makes the Hessian positive definite.
    """
    bits = bits_for(matrix.shape[1], bits, group)
    group = matrix.shape[1] if bits == 8 else group
    order = np.argsort(-np.diag(second_moment), kind="stable")
    factor = _inverse_factor(second_moment[np.ix_(order, order)])
    parts = [_rows(matrix[i : i + ROWS], factor, order, bits, group, zeros) for i in range(0, len(matrix), ROWS)]
    return assembled(bits, group, parts)


def _inverse_factor(second_moment: np.ndarray) -> np.ndarray:
    """U, upper triangular float32, with UᵀU the inverse of the damped Hessian H.

    Of H with its rows and columns turned round Cholesky's factor, turned back, is an upper R with H = R Rᵀ: U is R⁻¹.
    """
    hessian = second_moment.astype(np.float64)
    mean = np.trace(hessian) / len(hessian)
    hessian[np.diag_indices_from(hessian)] += DAMPING * mean if mean > 0 else 1.0
    return _inverse(np.linalg.cholesky(hessian[::-1, ::-1])[::-1, ::-1]).astype(np.float32)


def _inverse(upper: np.ndarray) -> np.ndarray:
    """Of an upper triangular matrix, by halves: products take a fifth of the time of a general inverse."""
    half = len(upper) // 2
    if half < SMALL:
        return np.linalg.inv(upper)
    first, last = _inverse(upper[:half, :half]), _inverse(upper[half:, half:])
    inverse = np.zeros_like(upper)
    inverse[:half, :half], inverse[half:, half:] = first, last
    inverse[:half, half:] = -first @ (upper[:half, half:] @ last)
    return inverse


def _rows(rows: np.ndarray, factor: np.ndarray, order: np.ndarray, bits: int, group: int, zeros: bool) -> Part:
    """Of some rows. order (K,): the columns in the order of `factor`."""
    columns = np.array(rows.T, np.float32, order="C")
    steps = best_steps(columns, bits, group, zeros)
    integers, left = np.empty(columns.shape, np.int8), columns[order]
    for start in range(0, len(left), BLOCK):
        block, own = left[start : start + BLOCK], factor[start : start + BLOCK, start : start + BLOCK]
        errors = np.empty_like(block)
        for i, column in enumerate(order[start : start + BLOCK].tolist()):
            own_steps = steps[column // group]
            rounded = nearest(block[i], own_steps, bits)
            integers[column] = rounded
            errors[i] = (block[i] - (rounded + own_steps.offsets) * own_steps.scales) / own[i, i]
            block[i + 1 :] -= own[i, i + 1 :, None] * errors[i]
        end = start + len(block)
        left[end:] -= factor[start:end, end:].T @ errors
    return part(integers, steps)
