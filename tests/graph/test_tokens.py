"""Where tensor parallelism splits the tokens, by the graph alone."""

from __future__ import annotations

import pytest

from neural.compiler import compile_source
from neural.diagnostics.source import Source
from neural.graph.passes import optimize
from neural.graph.split import split_network
from neural.graph.tokens import TokenChain, token_chain

PROGRAM = """
define Gate() {{
  g = Dense(units=64)
  u = Dense(input, units=64)
  Multiply(g, u)
  d = Dense(24)
}}
define Wide(norm = 1e-5) {{
  Residual {{ LayerNormalization(epsilon=$norm) Dense(units=96, activation="gelu") Dense(units=24) Dropout(0.1) }}
}}
network N {{
  input: ({context},)
  layers:
    Embedding(input_dim=50, output_dim=24)
    {body}
    head = Dense(units=50)
  loss: "sparse_categorical_crossentropy"
}}
"""


def chain(body: str, context: int = 8) -> TokenChain | None:
    program = compile_source(Source("n.neural", PROGRAM.format(body=body, context=context)))
    graph = optimize(program.graph)
    return token_chain(graph, split_network(graph, 2))


@pytest.mark.parametrize(
    ("body", "modules", "norms", "alone"),
    [
        ("w = Wide() * 2 n = LayerNormalization()", ("w.0", "w.1", "n"), 3, True),
        ("e = Dropout(0.1) w = Wide()", ("e", "w"), 1, True),
        ("e = Dropout(0.1) f = Dense(24) w = Wide()", ("w",), 1, False),  # the dropout draws for whole activations
        ("w = Wide() f = Dense(24) v = Wide() * 2", ("v.0", "v.1"), 2, False),  # the longest; `w` draws outside it
        ("w = Wide() Residual { LayerNormalization() Dense(24) }", ("w",), 1, True),
    ],
)
def test_the_chain(body: str, modules: tuple[str, ...], norms: int, alone: bool) -> None:
    found = chain(body)
    assert (found.modules, len(found.norms), found.alone) == (modules, norms, alone)
    assert all(norm.startswith(modules) for norm in found.norms)


@pytest.mark.parametrize(
    ("body", "context"),
    [
        ("w = Wide()", 7),
        ("LayerNormalization() Dense(24)", 8),
        ("Residual { a = Dense(96) b = Dense(24) c = Dense(23) d = Dense(24) }", 8),
    ],
    ids=["tokens do not divide", "nothing is split", "a product that is whole"],
)
def test_no_chain(body: str, context: int) -> None:
    assert chain(body, context) is None


def test_what_two_products_read_is_gathered_once() -> None:
    found = chain("Residual { RMSNormalization() gate = Gate() } * 2")
    assert [path.rpartition(".")[2] for path in found.once] == ["gate", "gate"] and len(found.modules) == 2
