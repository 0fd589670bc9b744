"""The rules of a legal graph, each broken once."""

from __future__ import annotations

from dataclasses import replace

import pytest

from neural.graph.graph import Block, Network, Tie
from neural.graph.passes import optimize
from neural.graph.verify import IllegalGraph, verify
from neural.layers.values import Arg, Value
from tests.graph.programs import compiled, network

PROGRAM = network(
    "first = Dense(8) second = Dense(8) third = Dense(8, tied_to=second) Block(8) Block2(8) Add(first, second)",
    before="define Block(d) { Dense($d) } define Block2(d) { inner = Block($d) Dense($d) }",
)


def graph() -> Network:
    return compiled(PROGRAM).graph


def with_node(which: str, **changes) -> Network:
    whole = graph()
    nodes = tuple(replace(n, **changes) if n.name == which else n for n in whole.block.nodes)
    return replace(whole, block=replace(whole.block, nodes=nodes))


def wide(name: str) -> tuple[Value, ...]:
    return (Value(name, (Arg(None, "B", "B", "B"), Arg.of(9))),)


def inner(change) -> Network:
    whole = graph()
    node = whole.block.node("block")
    assert isinstance(node.layer, Block)
    return with_node("block", layer=change(node.layer))


BROKEN = {
    "two nodes of one name": lambda: with_node("second", name="first"),
    "a value made twice": lambda: with_node("second", outputs=graph().block.node("first").outputs),
    "a value that stands below": lambda: with_node("first", inputs=("second",)),
    "a value that is nowhere": lambda: with_node("first", inputs=("gone",)),
    "another shape than the layer's": lambda: with_node("first", outputs=wide("first")),
    "an output too many": lambda: with_node("first", outputs=(*graph().block.node("first").outputs, *wide("more"))),
    "copies that change the shape": lambda: with_node("first", repeat=Arg.of(2)),
    "an output of the network that is not made": lambda: replace(
        graph(), block=replace(graph().block, outputs=("gone",))
    ),
    "a tie to nothing": lambda: replace(graph(), block=replace(graph().block, ties=(Tie("first", "gone"),))),
    "a block whose input differs": lambda: inner(lambda b: replace(b, inputs=wide("x"))),
    "a mistake inside a block": lambda: inner(lambda b: replace(b, outputs=("gone",))),
}


@pytest.mark.parametrize("rule", BROKEN)
def test_a_broken_rule_is_found(rule: str) -> None:
    with pytest.raises(IllegalGraph):
        verify(BROKEN[rule]())


def test_a_legal_graph_passes_before_and_after_every_pass() -> None:
    assert verify(graph()) == graph()
    verify(optimize(graph()))
    attention = compiled(
        network(
            "q = Dense(input, 8) k = Dense(input, 8) v = Dense(input, 8) Attention(q, k, v, num_heads=2)",
            input="(4, 8)",
        )
    )
    fused = verify(optimize(attention.graph))
    assert len(fused.block.nodes) == 2
