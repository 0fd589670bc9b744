"""What the C++ keeps in fewer bits against NumPy, on each path that a processor may take."""

from __future__ import annotations

import ctypes
import subprocess

import numpy as np
import pytest

from neural.cpp.building import FLAGS, SHARED, compiler
from neural.generation.native.library import ENGINE

CODE = """
#include "kept.h"
extern "C" void widened(const Half *x, float *out, int64_t n) {
    for (int64_t i = 0; i < n; i += 16) store(out + i, load(x + i));
}
// keys, values (tokens, dim), rows (3, dim): scores (3, tokens to whole sixteens), sums of the values (3, 64)
extern "C" void looked_up(int64_t dim, int64_t tokens, const float *keys, const float *values, const float *rows,
                          float *scores, float *sums) {
    int64_t padded = (dim + 15) / 16 * 16;
    std::vector<uint8_t> block(Integers8::bytes(dim, padded));
    for (int64_t i = 0; i < tokens; i++)
        Integers8::keep(block.data(), dim, padded, i, keys + i * dim, values + i * dim);
    const float *at[] = {rows, rows + dim, rows + 2 * dim};
    Queries queries;
    queries.quantize(3, at, dim);
    Integers8::scores(3, at, queries, block.data(), dim, tokens, scores, PAGE, nullptr, 0);
    std::vector<float> ones(3 * PAGE, 1.0f);
    Integers8::weigh(3, block.data(), ones.data(), PAGE);
    const float *weights[] = {ones.data(), ones.data() + PAGE, ones.data() + 2 * PAGE};
    float_product<int8_t>(padded)(3, weights, Integers8::values(block.data(), dim), padded, tokens, sums, 64, false, {});
}
"""
PATHS = {"this machine's": (), "AVX2": ("-mno-avx512f",), "plain": ("-mno-avx512f", "-mno-f16c", "-mno-avx2")}


@pytest.fixture(scope="module", params=PATHS)
def library(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> ctypes.CDLL:
    found, folder = compiler(), tmp_path_factory.mktemp("kept")
    if found is None:
        pytest.skip("no C++ compiler")
    (folder / "kept.cpp").write_text(CODE)
    command = [
        found,
        *FLAGS,
        *PATHS[request.param],
        "-Wno-psabi",
        *SHARED,
        f"-I{ENGINE.folder}",
        str(folder / "kept.cpp"),
    ]
    made = subprocess.run([*command, "-o", str(folder / "kept.so")], capture_output=True, text=True)
    if made.returncode and "unrecognized" in made.stderr:
        pytest.skip("a processor without these paths")
    assert not made.returncode, made.stderr
    return ctypes.CDLL(str(folder / "kept.so"))


def at(array: np.ndarray) -> ctypes.c_void_p:
    return ctypes.c_void_p(array.ctypes.data)


def test_every_half_is_read_as_numpy_does(library: ctypes.CDLL) -> None:
    bits = np.arange(1 << 16, dtype=np.uint16)
    expected = bits.view(np.float16).astype(np.float32)
    known = np.isfinite(expected)  # infinities are never written
    actual = np.empty(1 << 16, np.float32)
    library.widened(at(bits), at(actual), ctypes.c_int64(len(bits)))
    np.testing.assert_array_equal(actual[known].view(np.uint32), expected[known].view(np.uint32))
    assert not np.isfinite(actual[~known]).any()


def as_integers(x: np.ndarray, most: int) -> np.ndarray:
    """float64 rows after each was rounded by a scale of its own, its largest number `most` steps."""
    largest = np.abs(x).max(axis=1, keepdims=True)
    inverse = np.divide(np.float32(most), largest, out=np.zeros_like(largest), where=largest > 0)
    return np.rint(x * inverse) * (largest.astype(np.float64) / most)


@pytest.mark.parametrize(("dim", "tokens"), [(64, 64), (64, 33), (80, 7), (6, 50), (256, 64)])
def test_keys_and_values_as_integers(library: ctypes.CDLL, dim: int, tokens: int) -> None:
    rng = np.random.default_rng(dim)
    keys, values = rng.normal(0, 10.0 ** rng.integers(-3, 3, (2, tokens, 1)), (2, tokens, dim)).astype(np.float32)
    rows = rng.normal(0, 3, (3, dim)).astype(np.float32)
    keys[0], values[1], rows[2] = 0, 0, 0
    rows[1] = keys[2] = 7  # all of them the largest that there is
    scores, sums = np.empty((3, 64), np.float32), np.empty((3, 64), np.float32)
    numbers = np.ascontiguousarray(keys), np.ascontiguousarray(values), rows, scores, sums
    library.looked_up(ctypes.c_int64(dim), ctypes.c_int64(tokens), *map(at, numbers))
    kept = as_integers(keys, 127), as_integers(values, 127)
    expected = as_integers(rows, 32512) @ kept[0].T
    np.testing.assert_allclose(scores[:, :tokens], expected, rtol=2e-6, atol=1e-6 * np.abs(expected).max())
    width = min(dim, 64)
    total = kept[1].sum(axis=0)[:width]
    np.testing.assert_allclose(sums[0, :width], total, rtol=1e-5, atol=1e-5 * np.abs(kept[1]).max())
