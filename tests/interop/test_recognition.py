"""What a network is in the terms of other formats, and what has no equal there."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from neural.compiler import Program, compile_source, load
from neural.diagnostics.diagnostic import NeuralError
from neural.diagnostics.source import Source
from neural.graph.graph import weights
from neural.graph.interpreter import initial_weights
from neural.graph.passes import optimize
from neural.interop.decoder import Decoder, Rotary, tensor_shapes
from neural.interop.recognition import from_network, recognize, to_network

GPT2 = Decoder(
    vocab_size=50257, context=1024, d_model=768, n_layer=12, n_head=12, n_kv_head=12, head_dim=64, d_ff=3072,
    norm="layer", epsilon=1e-5, activation="gelu_tanh", gated=False, tied=True, qkv_bias=True, out_bias=True,
    mlp_bias=True, dropout=0.1,
)  # fmt: skip
EXPECTED = {
    "examples/gpt2.neural": GPT2,
    "examples/gpt_decoder.neural": replace(GPT2, activation="gelu"),
    "examples/llama.neural": Decoder(
        vocab_size=32000, context=2048, d_model=2048, n_layer=22, n_head=32, n_kv_head=4, head_dim=64, d_ff=5632,
        norm="rms", epsilon=1e-5, activation="silu", gated=True, tied=False, rope=Rotary(10000.0),
    ),
    "examples/shakespeare_char.neural": Decoder(
        vocab_size=65, context=64, d_model=128, n_layer=4, n_head=4, n_kv_head=4, head_dim=32, d_ff=512,
        norm="layer", epsilon=1e-5, activation="gelu", gated=False, tied=True,
    ),
    "tests/fixtures/tutorial/gpt_decoder.neural": replace(
        GPT2, activation="gelu", tied=False, head_bias=True
    ),
}  # fmt: skip


@pytest.mark.parametrize("file", EXPECTED)
def test_examples_are_what_they_are(file: str) -> None:
    program = load(file)
    recognized = recognize(program.graph)
    assert recognized.decoder == EXPECTED[file]
    assert recognized.weights.keys() == weights(optimize(program.graph).block).keys()


def test_every_example_is_among_them() -> None:
    assert set(map(str, Path("examples").glob("*.neural"))) <= EXPECTED.keys()


def program(text: str) -> Program:
    return compile_source(Source("test.neural", text))


def network(layers: str) -> Program:
    return program(
        f'network Net {{ input: (8,) layers: t = Embedding(11, 8) {layers} loss: "sparse_categorical_crossentropy" }}'
    )


BLOCK = (
    "Residual { n1 = RMSNormalization() q = Dense(8, use_bias=false) k = Dense(n1, 8) v = Dense(n1, 8) "
    "att = Attention(q, k, v, num_heads=2, causal=true, rope=10.0) out = Dense(8, use_bias=false) } "
    'Residual { n2 = RMSNormalization() u = Dense(12) g = Dense(n2, 12, activation="swish") m = Multiply(u, g) d = Dense(8) } '
)


def test_operands_in_any_order_and_projections_that_are_not_alike() -> None:
    """q has no bias and k has one, so that the three stay apart; the gate is written second."""
    found = network(BLOCK + "RMSNormalization() Dense(11)")
    recognized = recognize(found.graph)
    assert recognized.decoder.gated
    assert recognized.decoder.activation == "silu"
    assert recognized.decoder.qkv_bias
    assert not recognized.decoder.out_bias
    assert recognized.decoder.head_bias
    assert recognized.weights["g.weight"] == "blocks.0.gate.weight"
    assert recognized.weights["u.weight"] == "blocks.0.up.weight"
    ours = initial_weights(optimize(found.graph), 0, np.float32)
    theirs = from_network(recognized, ours)
    assert {n: t.shape for n, t in theirs.items()} == tensor_shapes(recognized.decoder)
    assert not theirs["blocks.0.q.bias"].any()
    back = to_network(recognized, theirs)
    assert all(np.array_equal(back[n], ours[n]) for n in ours)


def test_a_bias_without_place_must_be_zero() -> None:
    recognized = recognize(network(BLOCK + "RMSNormalization() Dense(11)").graph)
    tensors = {n: np.ones(s, np.float32) for n, s in tensor_shapes(recognized.decoder).items()}
    with pytest.raises(NeuralError, match=r"N861: the network has no place for `blocks.0.q.bias`"):
        to_network(recognized, tensors)


def test_a_fused_product_is_cut_into_three() -> None:
    found = load("examples/llama.neural", {"n_layer": 1, "d_model": 8, "n_head": 4, "n_kv_head": 2, "d_ff": 4})
    recognized = recognize(found.graph)
    ours = {n: np.zeros(w.shape, np.float32) for n, w in weights(optimize(found.graph).block).items()}
    ours["blocks.0.attention.qkv.weight"] = np.arange(16.0, dtype=np.float32)[:, None].repeat(8, 1)
    theirs = from_network(recognized, ours)
    rows = {part: theirs[f"blocks.0.{part}.weight"][:, 0].tolist() for part in "qkv"}
    assert rows == {"q": list(range(8)), "k": [8, 9, 10, 11], "v": [12, 13, 14, 15]}


MLP = 'Residual { LayerNormalization() Dense(16, activation="gelu") Dense(8) } '
ATTENTION = "Residual { LayerNormalization() MultiHeadAttention(num_heads=2, causal=true) } "
END = "LayerNormalization() Dense(11, use_bias=false)"
P = "PositionalEmbedding() "

# What stands in the network, the path that the message names, and a part of the reason.
REFUSED = [
    (P + "Residual { MultiHeadAttention(num_heads=2, causal=true) } " + MLP + END, "attention.qkv", "a norm is expected"),
    (P + "Residual { LayerNormalization() MultiHeadAttention(num_heads=2) } " + MLP + END, "attention.attention", "not causal"),
    (P + MLP + ATTENTION + END, "dense_1", "attention, then MLP"),
    (P + ATTENTION + END, "layer_norm_2", "a residual MLP is expected"),
    (P + ATTENTION + MLP + "Dense(11)", "dense_3", "LayerNormalization or RMSNormalization is expected"),
    (P + ATTENTION + MLP + "LayerNormalization() Dense(8) Dense(11)", "dense_3", "something else"),
    (P + ATTENTION + MLP + "LayerNormalization() Dense(12)", "dense_3", "12 numbers, and the vocabulary has 11"),
    (P + ATTENTION + "Residual { LayerNormalization() Dense(16) Dense(8) } " + END, "dense_2", "Activation is expected"),
    (P + ATTENTION + 'Residual { LayerNormalization() Dense(16, activation="relu") Dense(8, activation="relu") } ' + END, "dense_2", "it reads the branch's result"),
    ('PositionalEmbedding(kind="sinusoidal") ' + ATTENTION + MLP + END, "positional_embedding", "sinusoidal"),
    (ATTENTION.replace("causal=true", "causal=true, rope=10.0") + MLP + ATTENTION + MLP + END, "attention_2.attention", "rotary positions is None"),
    (P + ATTENTION.replace("num_heads=2", "num_heads=2, rope=1e4") + MLP + END, "positional_embedding", "learned and rotary at once"),
    (P + ATTENTION + MLP + ATTENTION.replace("num_heads=2", "num_heads=4") + MLP + END, "attention_2.attention", "heads is 4"),
    (P + ATTENTION + MLP.replace("()", "(epsilon=1e-6)", 1) + END, "layer_norm_2", "epsilon is 1e-06"),
    (P + ATTENTION + MLP + 'LayerNormalization() z = Dense(8, activation="relu") Add(z, t) Dense(11)', "add_3", "it reads the embedding"),
    (P + END, "layer_norm", "no block of attention and MLP"),
    (P + "x = LayerNormalization() Attention(num_heads=2, causal=true) y = Dense(8) Add(x, y) " + MLP + END, "x", "no block of attention and MLP"),
    (P + "Residual { LayerNormalization() Attention(num_heads=2, causal=true) Dense(8) } " + MLP + END, "attention", "not projections of their own"),
    (P + ATTENTION + 'Residual { n = LayerNormalization() a = Dense(16, activation="relu") b = Dense(n, 16, activation="relu") Multiply(a, b) Dense(8) } ' + END, "b", "one activation, on the gate"),
    (P + "Residual { n = LayerNormalization() q = Dense(8) k = Dense(n, 8) v = Dense(n, 8) a = Attention(q, k, v, num_heads=2, causal=true) b = Dense(a, 8) c = Dense(a, 8) Add(b, c) } " + MLP + END, "c", "another use beside `b`"),
]  # fmt: skip


@pytest.mark.parametrize(("layers", "path", "reason"), REFUSED)
def test_the_first_layer_without_equal_is_named(layers: str, path: str, reason: str) -> None:
    found = network(layers)
    with pytest.raises(NeuralError) as error:
        recognize(found.graph)
    (diagnostic,) = error.value.diagnostics
    assert diagnostic.code == "N860"
    assert diagnostic.title.startswith(f"`{path}`")
    assert reason in diagnostic.title
    assert diagnostic.primary.span.text


def test_a_network_of_two_inputs() -> None:
    two = program("network Net { input: { a: (4,), b: (4,) } layers: x = Dense(a, 3) y = Dense(b, 3) Add(x, y) }")
    with pytest.raises(NeuralError, match="N860: Net has several inputs, `a`, `b`"):
        recognize(two.graph)
