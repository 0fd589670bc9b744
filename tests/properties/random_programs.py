"""Random programs, and what every back end must say of them."""

from __future__ import annotations

import os
import random

import numpy as np

from neural.compiler import compile_source
from neural.diagnostics.source import Source
from neural.graph.interpreter import initial_weights, interpret
from neural.graph.passes import optimize
from neural.verification.peer import BACKENDS

COUNT = int(os.environ.get("NEURAL_PROGRAMS", "200"))
ACTIVATIONS = ("relu", "gelu", "gelu_tanh", "silu", "tanh", "sigmoid", "elu", "mish", "linear")
ROUNDING = 2.0**-23  # of float32


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


class Case:
    """A program with weights, inputs and the answer of the NumPy oracle in float64; all from one seed."""

    def __init__(self, seed: int) -> None:
        self.text = Writer(seed).program()
        self.program = compile_source(Source("random.neural", self.text))
        self.graph = optimize(self.program.graph)
        self.weights = initial_weights(self.graph, seed)
        rng = np.random.default_rng(seed)
        value = self.graph.block.inputs[0]
        shape = (2, *(a.value for a in value.shape[1:]))
        self.ids = value.dtype == "int64"
        self.x = rng.integers(0, 13, shape) if self.ids else rng.normal(size=shape)
        self.expected = interpret(self.graph, self.weights, self.x)
        assert np.isfinite(self.expected).all(), self.text


def holds_on(backend: str, seed: int) -> None:
    """A back end gives what the oracle gives, as far as the program lets float32 say it.

    How far that is shows in the oracle itself, when weights and inputs move by their rounding.
    """
    case = Case(seed)
    narrow = {name: w.astype(np.float32) for name, w in case.weights.items()}
    x = case.x if case.ids else case.x.astype(np.float32)
    rng = np.random.default_rng(seed + 1)
    slack = 0.0
    for _ in range(2):
        near = {name: w * (1 + ROUNDING * rng.choice((-1, 1), w.shape)) for name, w in case.weights.items()}
        near_x = x if case.ids else x * (1 + ROUNDING * rng.choice((-1, 1), x.shape))
        slack = max(slack, float(np.abs(interpret(case.graph, near, near_x) - case.expected).max()))
    ours = BACKENDS[backend].open(case.program, narrow).logits([x])
    scale = max(1.0, float(np.abs(case.expected).max()))
    error = float(np.abs(ours - case.expected).max())
    assert error <= 2e-5 * scale + 16 * slack, f"seed {seed}: off by {error} where {slack} is rounding\n{case.text}"
