"""Random programs: ONNX in onnxruntime against the NumPy oracle."""

from __future__ import annotations

import numpy as np
import pytest

from neural.backends.onnx import emit
from neural.compiler import compile_source
from neural.diagnostics.source import Source
from neural.graph.interpreter import initial_weights, interpret
from neural.graph.passes import optimize
from tests.parity.onnx_runs import run
from tests.properties.test_random_programs import COUNT, Writer


@pytest.mark.parametrize("seed", range(COUNT))
def test_onnx_equals_the_oracle(seed: int) -> None:
    text = Writer(seed).program()
    network = optimize(compile_source(Source("random.neural", text)).graph)
    own = initial_weights(network, seed)
    rng = np.random.default_rng(seed)
    value = network.block.inputs[0]
    shape = (2, *(a.value for a in value.shape[1:]))
    x = rng.integers(0, 13, shape) if value.dtype == "int64" else rng.normal(size=shape).astype(np.float32)
    expected = interpret(network, own, x)
    ours = run(emit(network, own), network, [x])
    # float32 against float64: random layers amplify rounding, and so does the oracle in float32
    narrow = interpret(network, {n: w.astype(np.float32) for n, w in own.items()}, x)
    allowed = 2e-5 * max(1, np.abs(expected).max()) + 4 * np.abs(narrow - expected).max()
    assert np.abs(ours - expected).max() <= allowed, text
