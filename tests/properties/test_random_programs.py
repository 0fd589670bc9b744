"""Random programs: generated PyTorch against the NumPy oracle, and the graph before the passes against the graph after."""

from __future__ import annotations

import os
import random

import numpy as np
import pytest
import torch

from neural.backends.module import load_module
from neural.compiler import compile_source
from neural.diagnostics.source import Source
from neural.graph.interpreter import initial_weights, interpret
from neural.graph.passes import optimize

COUNT = int(os.environ.get("NEURAL_PROGRAMS", "60"))
ACTIVATIONS = ("relu", "gelu", "gelu_tanh", "silu", "tanh", "sigmoid", "elu", "mish", "linear")


class Writer:
    """Writes a random program that is sound: layers, branches, residuals, repeats, ties, defines within defines."""

    def __init__(self, seed: int) -> None:
        self.rng = random.Random(seed)
        self.width = self.rng.choice((8, 16))
        self.sequence = self.rng.random() < 0.7
        self.ids = self.sequence and self.rng.random() < 0.7
        self.defines: list[str] = []
        self.names = 0

    def program(self) -> str:
        shape = "(7,)" if self.ids else f"(7, {self.width})" if self.sequence else f"({self.width},)"
        head = (
            f"tokens = Embedding(13, {self.width}) " + self.rng.choice(("PositionalEmbedding() ", ""))
            if self.ids
            else ""
        )
        body = " ".join(self.statement(0) for _ in range(self.rng.randint(2, 5)))
        tail = self.rng.choice(("Dense(13, use_bias=false, tied_to=tokens)", "Dense(5)")) if self.ids else "Dense(5)"
        return " ".join(self.defines) + f" network N {{ input: {shape} layers: {head}{body} {tail} }}"

    def statement(self, depth: int) -> str:
        options = [self.dense, self.norm, self.activation, self.branch, self.gate]
        if self.sequence:
            options += [self.attention, self.attention]
        if depth < 3:
            options += [self.residual, self.residual, self.define]
        return self.rng.choice(options)(depth)

    def name(self) -> str:
        self.names += 1
        return f"v{self.names}"

    def count(self) -> str:
        return self.rng.choice(("", "", f" * {self.rng.randint(1, 3)}"))

    def dense(self, depth: int) -> str:
        bias = self.rng.choice(("", ", use_bias=false"))
        return f'Dense({self.width}, activation="{self.rng.choice(ACTIVATIONS)}"{bias}){self.count()}'

    def norm(self, depth: int) -> str:
        return self.rng.choice(
            (
                "LayerNormalization()",
                "RMSNormalization(epsilon=1e-5)",
                "LayerNormalization(use_bias=false)",
                "Dropout(0.3)",
            )
        )

    def activation(self, depth: int) -> str:
        return f'Activation("{self.rng.choice(ACTIVATIONS)}")'

    def branch(self, depth: int) -> str:
        a, b, c, d, e = (self.name() for _ in range(5))
        return f"{a} = LayerNormalization() {b} = Dense({a}, 6) {c} = Dense({a}, 4) {d} = Concatenate({b}, {c}) {e} = Dense({d}, {self.width}) Add({a}, {e})"

    def gate(self, depth: int) -> str:
        a, b, c = self.name(), self.name(), self.name()
        return f'{a} = RMSNormalization() {b} = Dense({a}, 12, activation="silu") {c} = Dense({a}, 12) Multiply({b}, {c}) Dense({self.width})'

    def attention(self, depth: int) -> str:
        options = [f"num_heads={self.rng.choice((2, 4))}"]
        options += [
            o
            for o in ("num_kv_heads=2", "causal=true", "rope=50.0", "qk_norm=true", "use_bias=false")
            if self.rng.random() < 0.4
        ]
        if "causal=true" in options and self.rng.random() < 0.3:
            options.append("window=3")
        return f"MultiHeadAttention({', '.join(options)})"

    def residual(self, depth: int) -> str:
        body = " ".join(self.statement(depth + 1) for _ in range(self.rng.randint(1, 3)))
        return f"Residual {{ {body} }}{self.count()}"

    def define(self, depth: int) -> str:
        body = " ".join(self.statement(depth + 1) for _ in range(self.rng.randint(1, 3)))
        name = f"D{len(self.defines)}"
        self.defines.append(f"define {name}(width) {{ {body} Dense($width) }}")
        return f"{name}({self.width}){self.count()}"


@pytest.fixture(autouse=True)
def double_precision():
    """Rotary angles, too, so that nothing is amplified but a fault."""
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


@pytest.mark.parametrize("seed", range(COUNT))
def test_pytorch_equals_the_oracle(seed: int) -> None:
    text = Writer(seed).program()
    program = compile_source(Source("random.neural", text))
    graph = optimize(program.graph)
    model = load_module(program.source(), "random").N().double().eval()
    own = initial_weights(graph, seed)
    model.load_state_dict({k: torch.from_numpy(v) for k, v in own.items()}, strict=False)
    rng = np.random.default_rng(seed)
    value = graph.block.inputs[0]
    shape = (2, *(a.value for a in value.shape[1:]))
    x = rng.integers(0, 13, shape) if value.dtype == "int64" else rng.normal(size=shape)
    with torch.no_grad():
        ours = model(torch.from_numpy(x)).numpy()
    expected = interpret(graph, own, x)
    assert np.isfinite(expected).all(), text
    np.testing.assert_allclose(ours, expected, rtol=1e-8, atol=1e-8 * max(1, np.abs(expected).max()), err_msg=text)
