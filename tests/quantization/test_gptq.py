"""GPTQ against a loop that follows the paper, and against rounding to the nearest."""

from __future__ import annotations

import numpy as np
import pytest

from neural.quantization import gptq as ours
from neural.quantization.choice import Form
from neural.quantization.matrix import QuantizedMatrix
from neural.quantization.quantize import quantize_matrix
from neural.quantization.rounding import round_to_nearest


def problem(rows: int, columns: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """A matrix, and inputs (1000, columns) whose columns go together."""
    rng = np.random.default_rng(seed)
    mixing = rng.standard_normal((columns, columns)) + 2 * rng.standard_normal((1, columns))
    return rng.standard_normal((rows, columns), np.float32), (rng.standard_normal((1000, columns)) @ mixing).astype(
        np.float32
    )


def moment(inputs: np.ndarray) -> np.ndarray:
    return inputs.T @ inputs / len(inputs)


def output_error(made: QuantizedMatrix, matrix: np.ndarray, inputs: np.ndarray) -> float:
    return float(np.linalg.norm(inputs @ (made.dequantized() - matrix).T) / np.linalg.norm(inputs @ matrix.T))


def follow_the_paper(
    matrix: np.ndarray, hessian: np.ndarray, scales: np.ndarray, zeros: np.ndarray, low: int, high: int
) -> np.ndarray:
    """Section 3.3 without blocks, in float64: the inverse is updated column by column, and the columns are taken by the
    Hessian's diagonal (`act-order` in the paper's code). scales, zeros: (N, K), given.
    """
    w, inverse = matrix.astype(np.float64), np.linalg.inv(hessian)
    found, left = np.empty_like(w), list(np.argsort(-np.diag(hessian)))
    while left:
        j = left.pop(0)
        found[:, j] = np.clip(np.rint(w[:, j] / scales[:, j] + zeros[:, j]), low, high)
        error = (w[:, j] - (found[:, j] - zeros[:, j]) * scales[:, j]) / inverse[j, j]
        w[:, left] -= np.outer(error, inverse[j, left])
        inverse -= np.outer(inverse[:, j], inverse[j]) / inverse[j, j]
    return found


@pytest.mark.parametrize(
    ("bits", "columns", "group", "with_zeros"),
    [(4, 64, 32, False), (4, 128, 64, False), (4, 64, 32, True), (8, 80, 80, False), (8, 200, 200, False)],
)
def test_the_integers_are_those_of_the_paper(bits: int, columns: int, group: int, with_zeros: bool) -> None:
    matrix, inputs = problem(5, columns)
    made = ours.gptq(matrix, moment(inputs), bits, group if bits == 4 else 32, zeros=with_zeros)
    assert (made.bits, made.group) == (bits, group)
    hessian = moment(inputs).astype(np.float64)
    hessian += np.eye(columns) * ours.DAMPING * np.trace(hessian) / columns
    scales = np.repeat(made.scales.astype(np.float64).reshape(5, -1), group, axis=1)
    low, high = (-127, 127) if bits == 8 else (-8, 7)
    zeros = np.zeros_like(scales) if made.zeros is None else np.repeat(made.zeros / 16.0 - 8, group, axis=1)
    expected = follow_the_paper(matrix, hessian, scales, zeros, low, high)
    agree = made.integers() == expected
    assert agree.mean() > 0.97  # a number halfway between two steps may fall to either side, and all after it with it


@pytest.mark.parametrize(("bits", "zeros"), [(8, False), (4, False), (4, True)])
def test_the_output_changes_less_than_by_rounding(bits: int, zeros: bool) -> None:
    matrix, inputs = problem(64, 96)
    by_rounding = output_error(round_to_nearest(matrix, bits, zeros=zeros), matrix, inputs)
    by_gptq = output_error(ours.gptq(matrix, moment(inputs), bits, zeros=zeros), matrix, inputs)
    assert by_gptq < 0.7 * by_rounding


@pytest.mark.parametrize("dead", [slice(3, 40), slice(None)], ids=["some", "all"])
def test_inputs_that_are_always_zero(dead: slice) -> None:
    matrix, inputs = problem(3, 64)
    inputs[:, dead] = 0
    made = ours.gptq(matrix, moment(inputs), 4)
    assert np.isfinite(made.dequantized()).all()
    assert np.abs(made.dequantized() - matrix)[:, dead].max() < 0.5


def test_more_rows_than_are_done_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    matrix, inputs = problem(7, 64)
    whole = ours.gptq(matrix, moment(inputs), 4)
    monkeypatch.setattr(ours, "ROWS", 3)
    assert np.array_equal(ours.gptq(matrix, moment(inputs), 4).integers(), whole.integers())


@pytest.mark.parametrize("form", [Form(8), Form(4), Form(4, zeros=True)])
@pytest.mark.parametrize(("table", "text"), [(False, True), (True, True), (False, False)])
def test_the_errors_that_are_told(form: Form, table: bool, text: bool) -> None:
    matrix, inputs = problem(16, 64)
    made, error = quantize_matrix("w", matrix, form, moment(inputs) if text else None, table=table)
    assert (error.bits, error.zeros) == form == (made.bits, made.zeros is not None)
    assert error.method == ("gptq" if text and not table else "rounding")
    assert error.weight == pytest.approx(np.linalg.norm(made.dequantized() - matrix) / np.linalg.norm(matrix), rel=1e-4)
    if text:
        assert error.output == pytest.approx(output_error(made, matrix, inputs), rel=1e-3)
    else:
        assert error.output is None


@pytest.mark.parametrize("columns", [1, 64, 129, 300])
def test_the_factor_of_the_inverse(columns: int) -> None:
    _, inputs = problem(1, columns)
    hessian = moment(inputs).astype(np.float64)
    factor = ours._inverse_factor(moment(inputs)).astype(np.float64)
    hessian += np.eye(columns) * ours.DAMPING * np.trace(hessian) / columns
    assert not np.tril(factor, -1).any()
    np.testing.assert_allclose(factor @ hessian @ factor.T, np.eye(columns), atol=1e-5)
