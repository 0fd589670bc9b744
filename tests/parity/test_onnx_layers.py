"""Every primitive × its samples: ONNX in onnxruntime against the NumPy interpreter."""

from __future__ import annotations

import numpy as np
import pytest

from neural.backends.onnx import emit
from neural.compiler import compile_source
from neural.diagnostics.source import Source
from neural.graph.interpreter import initial_weights, interpret
from neural.graph.passes import optimize
from neural.layers import REGISTRY
from tests.parity.onnx_runs import run
from tests.parity.programs import sample_program

ROWS = [(name, i) for name, cls in REGISTRY.items() if name == cls.__name__ for i in range(len(cls.samples))]
POOLED = ("GlobalAveragePooling1D()", "GlobalMaxPooling1D()", "LastToken()")


def inputs_of(graph, rows: int = 3) -> list[np.ndarray]:
    rng = np.random.default_rng(1)
    shapes = [(rows, *(a.value for a in value.shape[1:])) for value in graph.block.inputs]
    return [
        rng.integers(0, 11, shape) if value.dtype == "int64" else rng.normal(size=shape).astype(np.float32)
        for value, shape in zip(graph.block.inputs, shapes, strict=True)
    ]


def assert_equal(ours: np.ndarray, expected: np.ndarray) -> None:
    assert ours.shape == expected.shape
    assert np.abs(ours - expected).max() <= 2e-5 * max(1, np.abs(expected).max())


@pytest.mark.parity("ONNX", "float32", "values")
@pytest.mark.parametrize(("name", "index"), ROWS)
def test_values_equal_the_oracle(name: str, index: int) -> None:
    graph = optimize(sample_program(REGISTRY[name].samples[index]).graph)
    own, inputs = initial_weights(graph, seed=7), inputs_of(graph)
    assert_equal(run(emit(graph, own), inputs), interpret(graph, own, *inputs))


@pytest.mark.parametrize("scale", [-0.3, 0.0])
def test_a_scale_that_the_operator_has_no_word_for(scale: float) -> None:
    text = f"network N {{ input: (6, 8) layers: Attention(num_heads=2, causal=true, scale={scale}) }}"
    graph = optimize(compile_source(Source("scale.neural", text)).graph)
    inputs = inputs_of(graph)
    assert_equal(run(emit(graph, {}), inputs), interpret(graph, {}, *inputs))


@pytest.mark.parametrize("pooling", POOLED)
def test_padding_on_the_right_is_not_seen(pooling: str) -> None:
    text = f"network N {{ input: (9,) layers: Embedding(11, 8) PositionalEmbedding() MultiHeadAttention(num_heads=2) {pooling} }}"
    graph = optimize(compile_source(Source("pooled.neural", text)).graph)
    own, (ids,) = initial_weights(graph, seed=7), inputs_of(graph)
    mask = (np.arange(9) < np.array([[9], [4], [1]])).astype(np.int64)
    padded = run(emit(graph, own), [ids], mask)
    assert_equal(padded, interpret(graph, own, ids, attention_mask=mask))
    for row, length in enumerate((9, 4, 1)):
        assert_equal(padded[row : row + 1], interpret(graph, own, ids[row : row + 1, :length]))
