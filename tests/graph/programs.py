"""Programs of a few lines, and what the compiler makes of them."""

from __future__ import annotations

from typing import Any

from neural.compiler import Program, compile_source
from neural.diagnostics.diagnostic import NeuralError
from neural.diagnostics.source import Source
from neural.graph.graph import Block
from neural.layers.arguments import parameters


def compiled(text: str, sets: dict[str, object] | None = None, **options: Any) -> Program:
    """A sound program of this text."""
    return compile_source(Source("program.neural", text), sets, **options)


def network(layers: str, input: str = "(16,)", sections: str = "", before: str = "") -> str:
    """A program whose network has these layers."""
    return f"{before}\nnetwork Net {{\n  input: {input}\n  layers:\n    {layers}\n  {sections}\n}}\n"


def told(text: str, sets: dict[str, object] | None = None, **options: Any) -> list[tuple[str, str]]:
    """The code of each message and the text that its caret is under."""
    try:
        found = compiled(text, sets, **options).messages
    except NeuralError as error:
        found = error.diagnostics
    return [(d.code, d.primary.span.text if d.primary else "") for d in found]


def codes(text: str, sets: dict[str, object] | None = None, **options: Any) -> list[str]:
    return [code for code, _ in told(text, sets, **options)]


def output(text: str, sets: dict[str, object] | None = None) -> tuple[object, ...]:
    """The shape of a network's result without the batch; a sequence's length by its symbol."""
    block = compiled(text, sets).graph.block
    return tuple(a.axis or a.value for a in block.value(block.outputs[0]).shape[1:])


def values(text: str, sets: dict[str, object] | None = None) -> dict[str, object]:
    """The parameters of a program."""
    return compiled(text, sets).parameters


def structure(block: Block) -> tuple:
    """A block without any name: layers with the values of their arguments, and which value each reads."""
    places = {v.name: i for i, v in enumerate(block.inputs)}
    rows = []
    for node in block.nodes:
        inputs = tuple(places[name] for name in node.inputs)
        for value in node.outputs:
            places[value.name] = len(places)
        layer = node.layer
        if isinstance(layer, Block):
            what: tuple = structure(layer)
        else:
            what = (type(layer).__name__, *(getattr(layer, p.name).value for p in parameters(type(layer))))
        rows.append((what, inputs, node.copies))
    nodes = [n.name for n in block.nodes]
    ties = tuple((nodes.index(t.target), nodes.index(t.source), t.transposed) for t in block.ties)
    shapes = tuple(tuple(a.axis or a.value for a in v.shape) for v in block.inputs)
    return (shapes, tuple(rows), tuple(places[name] for name in block.outputs), ties)
