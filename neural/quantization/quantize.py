"""One matrix after another: the best integers for it, and the error that they make."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from neural.graph.graph import Block
from neural.quantization.choice import Form, forms
from neural.quantization.gptq import gptq
from neural.quantization.matrix import ROWS, QuantizedMatrix
from neural.quantization.rounding import round_to_nearest


@dataclass(frozen=True, slots=True)
class MatrixError:
    """output: the norm of the change of what the matrix gives, over the norm of what it gives, on the text of the
    calibration; None for a table and where there is no text. weight: the same of its numbers.
    """

    name: str
    shape: tuple[int, int]
    bits: int
    zeros: bool  # whether it has zero points
    method: str  # "rounding" or "gptq"
    weight: float
    output: float | None


def quantize_matrix(
    name: str, matrix: np.ndarray, form: Form, second_moment: np.ndarray | None, *, table: bool = False
) -> tuple[QuantizedMatrix, MatrixError]:
    """A float32 (N, K) in some form. second_moment: (K, K), as `gptq` takes it; None where there is no text.

    table: rows of it are looked up. Then it is rounded to the nearest even if it is a tied head, too: GPTQ would change
    the rows for the sake of the head's products, and loses more where they are read than it wins there.
    """
    by_gptq = second_moment is not None and not table
    bits, zeros = form
    made = gptq(matrix, second_moment, bits, zeros=zeros) if by_gptq else round_to_nearest(matrix, bits, zeros=zeros)
    weight, output = _errors(matrix, made, second_moment)
    method, has_zeros = "gptq" if by_gptq else "rounding", made.zeros is not None
    return made, MatrixError(name, made.shape, made.bits, has_zeros, method, weight, output)


def round_all(block: Block, weights: Mapping[str, np.ndarray], to: str) -> dict[str, QuantizedMatrix]:
    """The matrices of a network (after `optimize`) rounded to the nearest, for who has no text to calibrate on."""
    found = forms(block, weights, to)
    return {name: round_to_nearest(weights[name], form.bits, zeros=form.zeros) for name, form in found.items()}


def _errors(matrix: np.ndarray, made: QuantizedMatrix, second_moment: np.ndarray | None) -> tuple[float, float | None]:
    changes, norms = np.zeros(2), np.zeros(2)  # of the numbers, and of the output
    for start in range(0, len(matrix), ROWS):
        rows = slice(start, start + ROWS)
        for sums, part in ((changes, made.dequantized(rows) - matrix[rows]), (norms, matrix[rows])):
            sums[0] += np.square(part, dtype=np.float64).sum()
            if second_moment is not None:
                sums[1] += np.einsum("nk,nk->", part @ second_moment, part, dtype=np.float64)
    weight, output = np.sqrt(np.maximum(changes, 0) / np.where(norms > 0, norms, 1)).tolist()
    return weight, output if second_moment is not None else None
