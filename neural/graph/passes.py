"""Graph to graph: the same numbers, in the form that is written out."""

from __future__ import annotations

from dataclasses import replace

from neural.graph.graph import Block, Network, Node
from neural.layers.attention import Attention
from neural.layers.dense import Dense, Projections
from neural.layers.values import Value


def optimize(network: Network) -> Network:
    """All passes."""
    return replace(network, block=fuse_projections(network.block))


def fuse_projections(block: Block) -> Block:
    """The projections to queries, keys and values of one input become one product."""
    nodes = [replace(n, layer=fuse_projections(n.layer)) if isinstance(n.layer, Block) else n for n in block.nodes]
    for attention in [n for n in nodes if isinstance(n.layer, Attention) and len(n.inputs) == 3]:
        sources = [next((n for n in nodes if n.name == name), None) for name in attention.inputs]
        if _fusible(sources, attention, nodes, block):
            first = min(nodes.index(s) for s in sources)
            fused = _fused(sources, {n.name for n in nodes})
            names = dict(zip(attention.inputs, (v.name for v in fused.outputs), strict=True))
            nodes[first] = fused
            nodes = [n for n in nodes if n not in sources]
            nodes = [
                replace(n, inputs=tuple(names.get(i, i) for i in n.inputs)) if n.name == attention.name else n
                for n in nodes
            ]
    return replace(block, nodes=tuple(nodes))


def _fusible(sources: list[Node | None], attention: Node, nodes: list[Node], block: Block) -> bool:
    if None in sources or len({s.name for s in sources}) < 3 or len({s.inputs for s in sources}) > 1:
        return False
    tied = {t.target for t in block.ties} | {t.source for t in block.ties}
    used = [i for n in nodes if n is not attention for i in n.inputs] + list(block.outputs)
    plain = all(
        type(s.layer) is Dense and s.layer.activation.value == "linear" and s.repeat is None and s.name not in tied
        and s.name not in used and s.weights_from is None for s in sources
    )  # fmt: skip
    return plain and len({s.layer.use_bias for s in sources}) == 1


def _fused(sources: list[Node], taken: set[str]) -> Node:
    taken = taken - {s.name for s in sources}
    name = "qkv"
    while name in taken:
        name += "_"
    outputs = tuple(Value(s.name, s.outputs[0].shape) for s in sources)
    layer = Projections(tuple(s.layer.units for s in sources), sources[0].layer.use_bias)
    return Node(layer, name, sources[0].inputs, outputs, sources[0].span)
