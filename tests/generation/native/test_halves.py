"""Numbers of 16 bits in the C++ against NumPy's, on each path that a processor may take."""

from __future__ import annotations

import ctypes
import subprocess

import numpy as np
import pytest

from neural.generation.native.building import FLAGS, SHARED, SOURCE, compiler

CODE = """
#include "vectors.h"
extern "C" void narrowed(const float *x, Half *out, int64_t n) {
    for (int64_t i = 0; i < n; i += 16) store(out + i, load(x + i));
}
extern "C" void widened(const Half *x, float *out, int64_t n) {
    for (int64_t i = 0; i < n; i += 16) store(out + i, load(x + i));
}
"""
LARGEST = 65504.0
PATHS = {"this machine's": (), "F16C": ("-mno-avx512f",), "plain": ("-mno-avx512f", "-mno-f16c", "-mno-avx2")}


@pytest.fixture(scope="module", params=PATHS)
def halves(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> ctypes.CDLL:
    found, folder = compiler(), tmp_path_factory.mktemp("halves")
    if found is None:
        pytest.skip("no C++ compiler")
    (folder / "halves.cpp").write_text(CODE)
    command = [found, *FLAGS, *PATHS[request.param], "-Wno-psabi", *SHARED, f"-I{SOURCE}", str(folder / "halves.cpp")]
    made = subprocess.run([*command, "-o", str(folder / "halves.so")], capture_output=True, text=True)
    if made.returncode and "unrecognized" in made.stderr:
        pytest.skip("a processor without these paths")
    assert not made.returncode, made.stderr
    return ctypes.CDLL(str(folder / "halves.so"))


def run(function: ctypes._CFuncPtr, x: np.ndarray, dtype: type) -> np.ndarray:
    padded = np.concatenate([x, np.zeros(-len(x) % 16, x.dtype)])
    out = np.empty(len(padded), dtype)
    function(ctypes.c_void_p(padded.ctypes.data), ctypes.c_void_p(out.ctypes.data), ctypes.c_int64(len(padded)))
    return out[: len(x)]


def test_every_half_is_read_as_numpy_does(halves: ctypes.CDLL) -> None:
    bits = np.arange(1 << 16, dtype=np.uint16)
    expected = bits.view(np.float16).astype(np.float32)
    known = np.isfinite(expected)  # infinities are never written
    actual = run(halves.widened, bits, np.float32)
    np.testing.assert_array_equal(actual[known].view(np.uint32), expected[known].view(np.uint32))
    assert not np.isfinite(actual[~known]).any()


def test_floats_are_rounded_as_numpy_does(halves: ctypes.CDLL) -> None:
    """To the nearest, of ties to the even one; what is too large to the largest."""
    rng = np.random.default_rng(0)
    every = np.arange(1 << 16, dtype=np.uint16).view(np.float16).astype(np.float32)
    every = np.sort(every[np.isfinite(every)])
    ties = (every[1:] + every[:-1]) / 2
    near = np.concatenate([np.nextafter(ties, np.float32(-np.inf)), np.nextafter(ties, np.float32(np.inf))])
    bits = rng.integers(0, 1 << 32, 200_000, dtype=np.uint32).view(np.float32)  # of all sizes, subnormal ones too
    usual = rng.normal(0, rng.choice([1e-7, 1e-4, 1, 1e4], 200_000)).astype(np.float32)
    ends = np.float32([np.inf, -np.inf, np.nan, 0.0, -0.0, LARGEST, 65519, 65520, 1e30])
    x = np.concatenate([every, ties, near, bits, usual, ends])
    actual = run(halves.narrowed, x, np.uint16)
    known = ~np.isnan(x)
    expected = np.clip(x, np.float32(-LARGEST), np.float32(LARGEST)).astype(np.float16).view(np.uint16)
    np.testing.assert_array_equal(actual[known], expected[known])
    assert np.isnan(actual.view(np.float16)[~known]).all()
