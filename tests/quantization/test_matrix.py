"""The form of a quantised matrix, against loops over its numbers."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from neural.interop.tensor_files import read_tensors, write_file
from neural.quantization.matrix import QuantizedMatrix, size
from neural.quantization.rounding import round_to_nearest


def drawn(rows: int, columns: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((rows, columns), np.float32)


def one_by_one(m: QuantizedMatrix) -> np.ndarray:
    """The meaning of the form, spelled out for each number."""
    rows, columns = m.shape
    found = np.empty((rows, columns), np.float32)
    for i in range(rows):
        for j in range(columns):
            if m.bits == 8:
                found[i, j] = int(m.values[i, j]) * m.scales[i]
                continue
            byte = int(m.values[i, j // 2])
            half = byte >> 4 if j % 2 else byte & 15
            zero = 8 if m.zeros is None else int(m.zeros[i, j // m.group]) / 16
            found[i, j] = (half - zero) * float(m.scales[i, j // m.group])
    return found


FORMS = [
    pytest.param(8, 32, 5, 7, id="int8"),
    pytest.param(4, 32, 3, 96, id="int4 in groups of 32"),
    pytest.param(4, 64, 3, 128, id="int4 in groups of 64"),
    pytest.param(4, 32, 2500, 32, id="more rows than are done at a time"),
]


@pytest.mark.parametrize("zeros", [False, True])
@pytest.mark.parametrize(("bits", "group", "rows", "columns"), FORMS)
def test_the_form_means_what_it_says(bits: int, group: int, rows: int, columns: int, zeros: bool) -> None:
    matrix = drawn(rows, columns)
    made = round_to_nearest(matrix, bits, group, zeros=zeros)
    made.require_sound("w")
    assert (made.zeros is not None) == (zeros and bits == 4)
    assert made.shape == matrix.shape
    assert np.array_equal(made.dequantized(), one_by_one(made))
    assert np.array_equal(made.dequantized(slice(1, 3)), made.dequantized()[1:3])


def rounded_one_by_one(matrix: np.ndarray, bits: int, group: int) -> np.ndarray:
    """With the scale that gives each group's extreme the last step."""
    found = np.empty_like(matrix)
    size = matrix.shape[1] if bits == 8 else group
    for i in range(len(matrix)):
        for j in range(0, matrix.shape[1], size):
            numbers = matrix[i, j : j + size]
            extreme = max(numbers, key=abs)
            scale = abs(extreme) / np.float32(127) if bits == 8 else np.float32(np.float16(extreme / -8))
            low, high = (-127, 127) if bits == 8 else (-8, 7)
            found[i, j : j + size] = [min(max(round(float(n / scale)), low), high) * scale for n in numbers]
    return found


@pytest.mark.parametrize(("bits", "group", "rows", "columns"), FORMS)
def test_rounding_is_as_good_as_the_plain_way_or_better(bits: int, group: int, rows: int, columns: int) -> None:
    matrix = drawn(rows, columns)
    plain, ours = (
        np.square(m - matrix).reshape(rows, -1, group if bits == 4 else columns).sum(-1)
        for m in (rounded_one_by_one(matrix, bits, group), round_to_nearest(matrix, bits, group).dequantized())
    )
    assert ours.sum() > 0.5 * plain.sum()
    if bits == 4:
        assert (ours <= plain * (1 + 1e-4)).all()
        assert ours.sum() < plain.sum()
    else:  # whose steps are wider by up to a thousandth
        assert ours.sum() < 1.02 * plain.sum()


@pytest.mark.parametrize(
    ("bits", "zeros", "row"),
    [(8, False, 256 + 4), (8, True, 256 + 4), (4, False, 128 + 256 // 32 * 2), (4, True, 128 + 256 // 32 * 3)],
)
def test_bytes(bits: int, zeros: bool, row: int) -> None:
    made = round_to_nearest(drawn(256, 256), bits, zeros=zeros)
    assert made.nbytes == size((256, 256), bits, zeros=zeros) == 256 * row


def with_minima(rows: int, columns: int, seed: int = 0) -> np.ndarray:
    """As Q4_1 of GGUF holds numbers: steps 0 to 15, a scale and a minimum in half precision for 32 of them."""
    rng = np.random.default_rng(seed)
    steps = rng.integers(0, 16, (rows, columns // 32, 32))
    steps[..., 3], steps[..., 20] = 0, 15
    scales = rng.uniform(0.01, 0.02, (rows, columns // 32, 1)).astype(np.float16)
    minima = (-scales * rng.uniform(1, 14, scales.shape)).astype(np.float16)
    return (steps * scales.astype(np.float32) + minima).astype(np.float32).reshape(rows, columns)


def test_numbers_of_4_bits_with_a_minimum_are_met() -> None:
    matrix = with_minima(64, 96)
    steps = round_to_nearest(matrix, 4, zeros=True)
    error = np.abs(steps.dequantized() - matrix).reshape(64, 3, 32).max(axis=-1)
    assert (error <= steps.scales.astype(np.float32) / 32 * 1.001).all()


@pytest.mark.parametrize("value", [0.0, 1e-30, -3.0, 7.0, 1e9, -1e9])
def test_groups_on_one_side_of_zero(value: float) -> None:
    matrix = np.full((2, 32), value, np.float32)
    matrix[:, 0] /= 2
    found = round_to_nearest(matrix, 4, zeros=True).dequantized()
    expected = 0 if abs(value) < 1e-8 else np.clip(matrix, -15 * 65504.0, 15 * 65504.0)
    assert np.allclose(found, expected, rtol=0.07, atol=0)


@pytest.mark.parametrize("bits", [8, 4])
@pytest.mark.parametrize("value", [0.0, 1e-30, -3.0, 1e9])
def test_rows_of_one_number(bits: int, value: float) -> None:
    matrix = np.full((2, 32), value, np.float32)
    found = round_to_nearest(matrix, bits).dequantized()
    expected = 0.0 if abs(value) < 1e-8 and bits == 4 else min(value, 8 * 65504.0) if bits == 4 else value
    assert np.allclose(found, expected, rtol=1e-2 if bits == 4 else 1e-3, atol=0)


@pytest.mark.parametrize(("factor", "exact"), [(1.0, True), (1e-9, False), (1e9, False)])
def test_scales_of_int8_are_of_half_precision_where_that_can_hold_them(factor: float, exact: bool) -> None:
    made = round_to_nearest(drawn(50, 96) * np.float32(factor), 8)
    with np.errstate(over="ignore"):
        assert np.array_equal(made.scales, made.scales.astype(np.float16)) == exact
    assert np.abs(made.integers()).max(axis=1).min() == 127


def test_rows_that_are_no_whole_groups_are_int8() -> None:
    assert round_to_nearest(drawn(2, 48), 4).bits == 8
    assert round_to_nearest(drawn(2, 96), 4, group=64).bits == 8


@pytest.mark.parametrize(
    ("bits", "zeros", "parts"),
    [(8, False, ["int8", "scales"]), (4, False, ["int4", "scales"]), (4, True, ["int4", "scales", "zeros"])],
)
def test_tensors_there_and_back(bits: int, zeros: bool, parts: list[str], tmp_path: Path) -> None:
    made = round_to_nearest(drawn(4, 64), bits, zeros=zeros)
    tensors = made.to_tensors("blocks.0.mlp.weight")
    assert sorted(tensors) == [f"blocks.0.mlp.weight.{part}" for part in parts]
    write_file(tensors, tmp_path / "model.safetensors")
    read = read_tensors(tmp_path / "model.safetensors")
    assert list(read) == ["blocks.0.mlp.weight"]
    again = read.quantized()["blocks.0.mlp.weight"]
    assert (again.bits, again.group) == (made.bits, made.group)
    assert np.array_equal(again.dequantized(), made.dequantized())


BROKEN = [
    pytest.param({"w.int8": np.zeros((2, 4), np.int8), "w.scales": np.ones(3, np.float32)}, id="scales of other rows"),
    pytest.param({"w.int8": np.zeros((2, 4), np.uint8), "w.scales": np.ones(2, np.float32)}, id="unsigned"),
    pytest.param({"w.int4": np.zeros((2, 16), np.uint8), "w.scales": np.ones((2, 1), np.float32)}, id="wide scales"),
    pytest.param({"w.int4": np.zeros((2, 16), np.uint8), "w.scales": np.ones((2, 2), np.float16)}, id="groups of 16"),
    pytest.param({"w.int4": np.zeros((2, 24), np.uint8), "w.scales": np.ones((2, 1), np.float16)}, id="groups of 48"),
    pytest.param(
        {
            "w.int4": np.zeros((2, 16), np.uint8),
            "w.scales": np.ones((2, 1), np.float16),
            "w.zeros": np.ones((2, 2), np.uint8),
        },
        id="zero points of other groups",
    ),
    pytest.param(
        {"w.int8": np.zeros((2, 4), np.int8), "w.scales": np.ones(2, np.float32), "w.zeros": np.ones(2, np.uint8)},
        id="zero points of int8",
    ),
    pytest.param({"w.int4": np.zeros(16, np.uint8), "w.scales": np.ones(1, np.float16)}, id="no matrix"),
]


@pytest.mark.parametrize("tensors", BROKEN)
def test_what_does_not_fit_is_refused(tensors: dict[str, np.ndarray]) -> None:
    with pytest.raises(ValueError, match="`w`"):
        QuantizedMatrix.from_tensors("w", tensors)
