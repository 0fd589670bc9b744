"""Small programs for the native engine, their PyTorch models, and both run on the same tokens."""

from __future__ import annotations

import numpy as np
import torch
from torch import nn

from neural.backends.module import load_module
from neural.compiler import Program, compile_source
from neural.diagnostics.source import Source
from neural.generation.native.pages import PAGE
from neural.generation.native.program import Program as NativeProgram
from neural.graph.graph import weights
from neural.graph.passes import optimize
from neural.quantization.matrix import QuantizedMatrix
from neural.quantization.rounding import round_to_nearest

CONTEXT, VOCAB_SIZE = 200, 61  # contexts of several pages; a vocabulary that is not whole panels


def block(
    attention: str = "num_heads=4", mlp: str = 'Dense(128, activation="gelu") Dense(96)', norm="LayerNormalization"
):
    return (
        f"Residual {{ {norm}() MultiHeadAttention({attention}, causal=true) Dropout(0.1) }}\n"
        f"Residual {{ {norm}() {mlp} }}\n"
    )


def network(body: str, positions: str = "PositionalEmbedding()", head: str = "tied_to=tokens, use_bias=false") -> str:
    return (
        f"network Lm {{ input: ({CONTEXT},) layers: tokens = Embedding({VOCAB_SIZE}, 96) {positions} {body}"
        f' RMSNormalization() Dense({VOCAB_SIZE}, {head}) loss: "sparse_categorical_crossentropy" }}'
    )


GATED = 'define Gated() { x = RMSNormalization() gate = Dense(x, 128, activation="silu") up = Dense(x, 128) Multiply(gate, up) Dense(96) }\n'
ACTIVATIONS = (
    "relu", "gelu", "gelu_tanh", "silu", "tanh", "sigmoid", "leaky_relu", "elu", "softplus", "mish", "relu_squared",
)  # fmt: skip
PROGRAMS = {
    "gpt2": network(block() * 2),
    "untied, no bias": network(block("num_heads=4, use_bias=false"), head="use_bias=true"),
    "sinusoids": network(block(), positions='PositionalEmbedding(kind="sinusoidal")'),
    "rope, grouped": network(block("num_heads=6, num_kv_heads=2, rope=10000.0", norm="RMSNormalization"), positions=""),
    "one key head": network(block("num_heads=8, num_kv_heads=1, rope=500.0"), positions=""),
    "many heads share a key": network(block("num_heads=16, num_kv_heads=2"), positions=""),
    "window, normed, scaled": network(
        block("num_heads=4, window=30, qk_norm=true, scale=0.4, rope=100.0"), positions=""
    ),
    "gated": GATED + network(block() + "Residual { Gated() }"),
    "rescaled": network("Rescaling(6.9) " + block()),
    "wide head": network("Dense(160) " + block("num_heads=2", mlp="Dense(160)") + "Dense(96)"),
    **{f"activation {name}": network(block(mlp=f'Dense(160, activation="{name}") Dense(96)')) for name in ACTIVATIONS},
}


def compiled(text: str) -> tuple[Program, nn.Module]:
    """The program and its PyTorch model, its weights random and large."""
    program = compile_source(Source("lm.neural", text), {})
    model = getattr(load_module(program.source("pytorch"), program.name), program.name)()
    rng = torch.Generator().manual_seed(0)
    for weight in model.parameters():
        nn.init.normal_(weight, mean=float(weight.ndim == 1) / 2, std=0.25, generator=rng)
    return program, model.eval()


def named_weights(program: Program, model: nn.Module) -> dict[str, np.ndarray]:
    state = model.state_dict()
    return {name: state[name].numpy() for name in weights(optimize(program.graph).block)}


def rounded(
    numbers: dict[str, np.ndarray], bits: int, *, zeros: bool = False
) -> dict[str, np.ndarray | QuantizedMatrix]:
    """Matrices as integers, as `neural quantize` leaves them: not the positions."""
    return {
        n: round_to_nearest(w, bits, zeros=zeros) if w.ndim == 2 and len(w) != CONTEXT else w
        for n, w in numbers.items()
    }


class Reader:
    """A native program with pages for three texts."""

    def __init__(self, program: Program, numbers: dict, threads: int = 1) -> None:
        self.native = NativeProgram(optimize(program.graph), numbers, threads=threads)
        each = -(-CONTEXT // PAGE)
        self.native.make_pages(3 * each)
        self._pages = np.arange(3 * each, dtype=np.int64).reshape(3, each)
        self.tables = [pages.ctypes.data for pages in self._pages]

    def read(self, ids, start: int = 0, text: int = 0) -> np.ndarray:
        """Logits of all tokens, (T, V)."""
        count = len(ids)
        return self.native.run(ids, range(start, start + count), [self.tables[text]] * count, range(count))


def tokens(count: int, seed: int = 0) -> list[int]:
    return np.random.default_rng(seed).integers(0, VOCAB_SIZE, count).tolist()


@torch.no_grad()
def expected(model: nn.Module, ids: list[int]) -> np.ndarray:
    return model(torch.tensor([ids]))[0].numpy()
