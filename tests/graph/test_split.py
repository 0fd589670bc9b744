"""What tensor parallelism may split, by the graph alone."""

from __future__ import annotations

import pytest

from neural.compiler import compile_source
from neural.diagnostics.source import Source
from neural.graph.passes import optimize
from neural.graph.split import SplitNetwork, split_network

PROGRAM = """
define Gate() {{
  g = Dense(units=64)
  u = Dense(input, units=64)
  Multiply(g, u)
  Dropout(rate=0.1)
  d = Dense(24)
}}
network N {{
  input: (8,)
  layers:
    Embedding(input_dim=50, output_dim=24)
    {}
    head = Dense(units=50)
  loss: "sparse_categorical_crossentropy"
}}
"""


def split(body: str, ways: int = 2) -> SplitNetwork:
    return split_network(optimize(compile_source(Source("n.neural", PROGRAM.format(body))).graph), ways)


@pytest.mark.parametrize(
    ("body", "columns", "rows"),
    [
        ("Residual { a = Dense(units=96, activation='gelu') b = Dense(units=24) }", {"a": (96,)}, {"b"}),
        ("Residual { Gate() }", {"g": (64,), "u": (64,)}, {"d"}),
        (
            "Residual { MultiHeadAttention(num_heads=4, num_kv_heads=2, causal=true, rope=1e4) }",
            {"qkv": (24, 12, 12)},
            {"out"},
        ),
        ("Residual { MultiHeadAttention(num_heads=3, causal=true, rope=1e4) }", {}, set()),  # heads do not divide
        ("Residual { MultiHeadAttention(num_heads=4, num_kv_heads=1, causal=true, rope=1e4) }", {}, set()),
        ("Residual { MultiHeadAttention(num_heads=4, causal=true, qk_norm=true, rope=1e4) }", {}, set()),
        ("Residual { a = Dense(units=95) b = Dense(units=24) }", {}, set()),  # nor does the width
        ("Residual { a = Dense(units=96) LayerNormalization() b = Dense(units=24) }", {}, set()),  # over the width
        ("Residual { a = Dense(units=96) Activation('softmax') b = Dense(units=24) }", {}, set()),
        ("Residual { a = Dense(units=24) c = Dense(units=24) Add(a, c) }", {}, set()),  # the sum leaves the block
    ],
)
def test_what_is_split(body: str, columns: dict, rows: set) -> None:
    made = split(body)
    assert {path.rpartition(".")[2]: widths for path, widths in made.columns.items()} == columns
    assert {path.rpartition(".")[2] for path in made.rows} == rows


def test_a_result_that_is_read_elsewhere_stays_whole() -> None:
    body = "a = Dense(units=24) b = Dense(units=24) c = Dense(units=24) Add(a, c)"
    made = split(body)
    assert (made.columns, made.rows) == ({"b": (24,)}, ("c",))


def test_each_copy_of_a_block_is_named_in_the_order_of_the_graph() -> None:
    made = split("Residual { a = Dense(units=96) b = Dense(units=24) } * 3")
    assert (
        [path.split(".")[1] for path in made.columns] == ["0", "1", "2"] == [path.split(".")[1] for path in made.rows]
    )


def test_the_share_is_narrower_and_sound() -> None:
    from neural.graph.verify import verify

    body = "Residual { MultiHeadAttention(num_heads=4, num_kv_heads=2, causal=true, rope=1e4) } * 2"
    verify(split(body).network)


LANGUAGE = """
network N {{
  input: (8,)
  layers:
    tokens = Embedding(input_dim={vocabulary}, output_dim=24)
    PositionalEmbedding()
    Residual {{ a = Dense(units=96, activation="gelu") b = Dense(units=24) }}
    LayerNormalization()
    head = Dense(units={vocabulary}{more})
  loss: "{loss}"
}}
"""


@pytest.mark.parametrize(
    ("vocabulary", "ways", "more", "names", "most"),
    [
        (50, 2, "", ("tokens", "head"), 25),
        (51, 2, ", use_bias=false, tied_to=tokens", ("tokens", "head"), 26),
        (51, 4, "", ("tokens", "head"), 13),
        (5, 4, "", (), 5),  # 2, 2, 1 and none
        (50, 2, ", activation='relu'", (), 50),  # no plain product
    ],
)
def test_the_vocabulary_is_split(vocabulary: int, ways: int, more: str, names: tuple, most: int) -> None:
    from neural.graph.verify import verify

    text = LANGUAGE.format(vocabulary=vocabulary, more=more, loss="sparse_categorical_crossentropy")
    made = split_network(optimize(compile_source(Source("n.neural", text)).graph), ways)
    network = verify(made.network)
    assert (made.vocabulary, network.vocab_size) == (names, most)
    assert network.block.node("head").layer.units.value == network.block.node("tokens").layer.input_dim.value == most
    assert network.block.value("head").shape[-1].value == most


def test_a_head_that_is_split_by_input_keeps_its_rows() -> None:
    text = LANGUAGE.format(vocabulary=50, more="", loss="sparse_categorical_crossentropy")
    text = text.replace("LayerNormalization()", "c = Dense(units=96, activation='relu')")
    made = split_network(optimize(compile_source(Source("n.neural", text)).graph), 2)
    assert "head" in made.rows and made.vocabulary == ()
