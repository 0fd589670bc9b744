"""Shapes: what each layer makes of its input, and what it refuses."""

from __future__ import annotations

import pytest

from neural.compiler import compile_source
from neural.diagnostics.diagnostic import NeuralError
from neural.diagnostics.source import Source
from neural.layers import REGISTRY
from tests.graph.programs import codes, compiled, network, output, told

SHAPES = [
    ("(16,)", "Dense(8)", (8,)),
    ("(3, 4, 16)", "Dense(8)", (3, 4, 8)),
    ("(16,)", "Output(8)", (8,)),
    ("(16,)", "Embedding(100, 8)", ("T", 8)),
    ("(16,)", "Embedding(100, 8) PositionalEmbedding()", ("T", 8)),
    ("(16,)", 'Embedding(100, 8) PositionalEncoding(kind="sinusoidal")', ("T", 8)),
    ("(16, 8)", "PositionalEmbedding(max_length=20)", (16, 8)),
    ("(16, 8)", "Attention(num_heads=2)", (16, 8)),
    ("(16, 8)", "MultiHeadAttention(num_heads=2, key_dim=5)", (16, 8)),
    ("(16, 8)", "LayerNormalization()", (16, 8)),
    ("(16, 8)", "RMSNormalization()", (16, 8)),
    ("(16, 8)", "Rescaling(0.5)", (16, 8)),
    ("(16, 8)", "BatchNormalization()", (16, 8)),
    ("(16, 8)", "Dropout(0.1)", (16, 8)),
    ("(16, 8)", 'Activation("relu")', (16, 8)),
    ("(16, 8)", "Flatten()", (128,)),
    ("(16,)", "Embedding(100, 8) Flatten()", (128,)),
    ("(16, 8)", "Reshape((8, 16))", (8, 16)),
    ("(16, 8)", "Reshape((4, -1, 2))", (4, 16, 2)),
    ("(16, 8)", "GlobalAveragePooling1D()", (8,)),
    ("(16, 8)", "GlobalMaxPooling1D()", (8,)),
    ("(16,)", "Embedding(100, 8) LastToken()", (8,)),
    ("(16, 8)", "a = Dense(4) Concatenate(a, input)", (16, 12)),
    ("(16, 8)", "a = Dense(8) Concatenate(a, input, axis=1)", (32, 8)),
    ("(16, 8)", "a = Dense(8) Add(a, input)", (16, 8)),
    ("(16, 8)", "a = Dense(8) Multiply(a, input, a)", (16, 8)),
]


@pytest.mark.parametrize(("given", "layers", "shape"), SHAPES)
def test_shapes(given: str, layers: str, shape: tuple[object, ...]) -> None:
    assert output(network(layers, input=given)) == shape


def test_every_layer_has_a_shape_tested() -> None:
    every = {name for name, cls in REGISTRY.items() if name == cls.__name__}
    assert every <= {word.split("(")[0] for _, layers, _ in SHAPES for word in layers.split()} | {"PositionalEmbedding"}


REFUSED = [
    ("(16, 100)", "MultiHeadAttention(num_heads=12)", "N402", "12"),
    ("(16, 100)", "Attention(12)", "N402", "12"),
    ("(16, 64)", "MultiHeadAttention(num_heads=8, num_kv_heads=3)", "N409", "3"),
    ("(16, 64)", "MultiHeadAttention(num_heads=2, num_kv_heads=4)", "N409", "4"),
    ("(16, 64)", "q = Dense(input, 64) k = Dense(input, 32) Attention(q, k, k, num_heads=4)", "N410", "Attention"),
    (
        "(16, 64)",
        "q = Dense(input, 64) k = Dense(input, 32) v = Dense(input, 16) Attention(q, k, v, num_heads=4, num_kv_heads=2)",
        "N410",
        "Attention",
    ),
    ("(16, 64)", "q = Dense(input, 64) Attention(q, input, num_heads=4)", "N403", "Attention"),
    ("(16, 64)", "Attention(num_heads=4, window=3)", "N411", "3"),
    ("(16, 12)", "Attention(num_heads=4, rope=10.0)", "N408", "10.0"),
    ("(16,)", 'Embedding(100, 9) PositionalEmbedding(kind="sinusoidal")', "N408", '"sinusoidal"'),
    ("(16,)", "Attention(num_heads=4)", "N406", "Attention"),
    ("(16,)", "PositionalEmbedding()", "N406", "PositionalEmbedding"),
    ("(16,)", "LastToken()", "N406", "LastToken"),
    ("(16,)", "Embedding(100, 8) PositionalEmbedding(max_length=15)", "N407", "15"),
    ("(16, 8)", "Embedding(100, 8)", "N405", "Embedding"),
    ("(16,)", "Dense(4) Embedding(100, 8)", "N405", "Embedding"),
    ("(16,)", "Embedding(100, 8) Dense(input, 4)", "N405", "Dense"),
    ("(16,)", "Embedding(100, 8) Dropout(input, 0.1)", "N405", "Dropout"),
    ("(16,)", "Embedding(100, 8) Add(input, input)", "N405", "Add"),
    ("(16,)", "Embedding(100, 8) MultiHeadAttention(input, num_heads=2)", "N405", "MultiHeadAttention"),
    ("(16,)", "Embedding(100, 8) Flatten(input)", "N405", "Flatten"),
    ("(16,)", "a = Dense(8) Add(a, input)", "N401", "Add"),
    ("(16, 8)", "a = Flatten() Add(a, input)", "N401", "Add"),
    ("(16, 8)", "a = Dense(4) b = Flatten(input) Concatenate(a, b)", "N401", "Concatenate"),
    ("(16, 8)", "a = Dense(4) Concatenate(a, input, axis=1)", "N401", "Concatenate"),
    ("(16, 8)", "Concatenate(input, input, axis=0)", "N404", "0"),
    ("(16, 8)", "Concatenate(input, input, axis=-4)", "N404", "-4"),
    ("(16,)", "a = Embedding(100, 8) Concatenate(a, a, axis=1)", "N404", "1"),
    ("(16, 8)", "Reshape((5, 5))", "N404", "(5, 5)"),
    ("(16, 8)", "Reshape((3, -1))", "N404", "(3, -1)"),
    ("(16,)", "Residual { Dense(8) }", "N401", "Residual"),
    ("(16, 8)", "Residual { GlobalAveragePooling1D() }", "N401", "Residual"),
    ("(4294967296,)", "Dense(4294967296)", "N412", "Dense"),
]


@pytest.mark.parametrize(("given", "layers", "code", "place"), REFUSED)
def test_shapes_that_are_refused(given: str, layers: str, code: str, place: str) -> None:
    assert told(network(layers, input=given)) == [(code, place)]


def message(text: str) -> str:
    with pytest.raises(NeuralError) as caught:
        compile_source(Source("program.neural", text))
    (found,) = caught.value.diagnostics
    labels = [found.primary.text, *(label.text for label in found.secondary)]
    return "\n".join([found.title, *labels, found.hint or ""])


def test_both_sides_are_named_in_the_authors_terms() -> None:
    text = message(network("a = Dense(2 * $d) Add(a, input)", before="param d = 8", input="($d,)"))
    assert "(B, 2 * d = 16)" in text
    assert "(B, d = 8)" in text


def test_a_mistake_in_a_define_names_the_calls_that_led_there() -> None:
    before = "define Inner(w) { a = Dense($w) Add(a, input) } define Outer(w) { Inner(2 * $w) }"
    with pytest.raises(NeuralError) as caught:
        compiled(network("Outer(4)", before=before))
    (found,) = caught.value.diagnostics
    assert [label.span.text for label in found.secondary if label.text == "called here"] == ["Inner", "Outer"]


def test_a_bad_value_is_told_where_it_is_given() -> None:
    before = "define Inner(w) { Dense($w) } define Outer(w) { Inner($w) }"
    assert told(network("Outer(4) Outer(-3)", before=before)) == [("N311", "-3")]
    before = "define Block(h) { MultiHeadAttention(num_heads=$h) }"
    assert told(network("Block(5)", input="(4, 8)", before=before)) == [("N402", "5")]


def test_symbols_stand_for_the_batch_and_the_length() -> None:
    block = compiled(network("Embedding(100, 8) Dense(4)")).graph.block
    assert [str(a) for a in block.value(block.outputs[0]).shape] == ["B", "T", "4"]
    assert [v.dtype for v in block.inputs] == ["int64"]
    block = compiled(network("Dense(4)", input="(16, 8)")).graph.block
    assert [str(a) for a in block.value(block.outputs[0]).shape] == ["B", "16", "4"]
    assert [v.dtype for v in block.inputs] == ["float32"]


def test_an_embedding_in_a_define_reads_ids_too() -> None:
    before = "define Embed(v) { Embedding($v, 8) PositionalEmbedding() } define Deep(v) { Embed($v) Dropout(0.1) }"
    for layers in ("Embed(100) Dense(100)", "Deep(100) Dense(100)", "Embed(input, 100) Dense(100)"):
        program = compiled(network(layers, before=before, sections='loss: "sparse_categorical_crossentropy"'))
        assert (program.context, program.vocab_size) == (16, 100)
        compile(program.source(), "generated", "exec")


def test_bytes_are_counted_not_numbers() -> None:
    assert told(network("Dense(1, use_bias=false)", input="(2305843009213693951,)")) == []  # 2 ** 63 - 4 bytes
    assert codes(network("Dense(1, use_bias=false)", input="(2305843009213693952,)")) == ["N412"]


def test_the_total_is_counted_too() -> None:
    assert told(network("Dense(65536) * 9223372036854775807", input="(65536,)")) == [("N412", "layers")]


def test_attention_lengths() -> None:
    text = "Attention(a, b, b, num_heads=2, causal={causal})"
    two = "{ a: (4, 8), b: (6, 8) }"
    assert codes(network(text.format(causal="true"), input=two)) == ["N410"]
    three = "{ a: (4, 8), b: (6, 8), c: (5, 8) }"
    assert codes(network("Attention(a, b, c, num_heads=2)", input=three)) == ["N410"]


# Inputs


@pytest.mark.parametrize(
    ("given", "code", "place"),
    [
        ("16", "N513", "16"), ("()", "N513", "()"), ("(0,)", "N513", "0"), ("(-1,)", "N513", "-1"), ("(none, 16)", "N513", "none"),
        ("(1.5,)", "N513", "1.5"), ('"16"', "N513", '"16"'), ("{ }", "N513", "{ }"), ("{ a: 16 }", "N513", "16"),
        ("{ a: (16,), a: (4,) }", "N513", "a"), ("(9223372036854775807, 2)", "N412", "(9223372036854775807, 2)"), ("($n,)", "N201", "$n"),
    ],
)  # fmt: skip
def test_inputs_that_are_refused(given: str, code: str, place: str) -> None:
    assert told(network("Dense(4)", input=given)) == [(code, place)]


@pytest.mark.parametrize(
    "given", ["{ left: (16,), right: (8,) }", "{ left: (16,) right: (8,) }", "{\n left: (16,)\n right: (8,)\n }"]
)
def test_several_inputs_have_names(given: str) -> None:
    text = network("a = Dense(left, 4) b = Dense(right, 4) Add(a, b)", input=given)
    assert [(v.name, v.shape[1].value) for v in compiled(text).graph.block.inputs] == [("left", 16), ("right", 8)]


def test_one_of_several_inputs_is_named() -> None:
    given = "{ left: (16,), right: (8,) }"
    assert told(network("Dense(4) Add(left, left)", input=given)) == [("N403", "Dense")]
    assert told(network("a = Dense(left, 4) Dense(input, 4)", input=given))[0] == ("N209", "input")
    assert output(network("Dense(4)", input="{ only: (16,) }")) == (4,)
    assert output(network("Dense(8) Dense(input, 4)", input="{ only: (16,) }")) == (4,)
