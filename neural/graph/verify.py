"""What a legal graph is; run between stages. A failure here is a fault of the compiler, not of the program."""

from __future__ import annotations

from neural.graph.builder import outward
from neural.graph.graph import Block, Network
from neural.layers.values import same


class IllegalGraph(AssertionError):
    """A stage of the compiler broke a rule of the graph."""


def verify(network: Network) -> Network:
    """The same network; raises IllegalGraph."""
    _verify_block(network.block)
    return network


def _verify_block(block: Block) -> None:
    known = {v.name: v for v in block.inputs}
    names: set[str] = set()
    for node in block.nodes:
        _rule(node.name not in names, f"{block.name}: two nodes are called {node.name}")
        names.add(node.name)
        for name in node.inputs:
            _rule(name in known, f"{block.name}.{node.name} reads {name}, which does not stand above it")
        inputs = tuple(known[n] for n in node.inputs)
        if isinstance(node.layer, Block):
            _verify_block(node.layer)
            given = node.layer.inputs
            _rule(
                all(same(a.shape, b.shape) for a, b in zip(inputs, given, strict=True)),
                f"{block.name}.{node.name}: an input's shape differs",
            )
            shapes = (outward(node.layer.value(node.layer.outputs[0]).shape, inputs, node.arguments),)
        else:
            shapes = node.layer.shape(*inputs)
        _rule(len(shapes) == len(node.outputs), f"{block.name}.{node.name}: the number of outputs differs")
        for value, shape in zip(node.outputs, shapes, strict=True):
            _rule(
                same(value.shape, shape),
                f"{block.name}.{node.name}: {value.name} has another shape than its layer gives",
            )
            _rule(value.name not in known, f"{block.name}: the value {value.name} is made twice")
            known[value.name] = value
        _rule(
            node.repeat is None or same(inputs[0].shape, node.outputs[0].shape),
            f"{block.name}.{node.name}: copies change the shape",
        )
    for name in block.outputs:
        _rule(name in known, f"{block.name}: the output {name} is not made")
    for tie in block.ties:
        _rule(
            {tie.source, tie.target} <= names,
            f"{block.name}: a tie of {tie.target} to {tie.source}, and one is missing",
        )


def _rule(holds: bool, text: str) -> None:
    if not holds:
        raise IllegalGraph(text)
