"""In which precision values stand where products are computed in half precision, and all else as weights are."""

from __future__ import annotations

from dataclasses import replace

from neural.graph.graph import Block, Network, Node
from neural.layers.attention import Attention
from neural.layers.dense import Dense, Projections
from neural.layers.embedding import Embedding, PositionalEmbedding
from neural.layers.layer import Layer
from neural.layers.normalization import BatchNormalization, LayerNormalization, RMSNormalization
from neural.layers.values import Value

FULL, AUTO = "float32", "auto"
SMALL = 2**22  # parameters; a CPU trains a model of fewer in float32 unless told otherwise
HALVED = (Dense, Projections, Attention)
WHOLE = (Embedding, PositionalEmbedding, LayerNormalization, RMSNormalization, BatchNormalization)


def autocast(network: Network, precision: str) -> Network:
    """The network with the dtypes that its values have under torch.autocast; itself in float32."""
    return network if precision == FULL else replace(network, block=_cast(network.block, precision))


def _cast(block: Block, precision: str) -> Block:
    values = {v.name: v for v in block.inputs}
    nodes = []
    for node in block.nodes:
        made = _node(node, tuple(values[i] for i in node.inputs), precision)
        values.update({v.name: v for v in made.outputs})
        nodes.append(made)
    return replace(block, nodes=tuple(nodes))


def _node(node: Node, inputs: tuple[Value, ...], precision: str) -> Node:
    layer = node.layer
    if isinstance(layer, Block):
        given = tuple(own._replace(dtype=v.dtype) for own, v in zip(layer.inputs, inputs, strict=True))
        layer = _cast(replace(layer, inputs=given), precision)
        dtypes = [layer.value(name).dtype for name in layer.outputs]
    else:
        dtypes = [_dtype(layer, inputs, v, precision) for v in node.outputs]
    outputs = tuple(v._replace(dtype=dtype) for v, dtype in zip(node.outputs, dtypes, strict=True))
    return replace(node, layer=layer, outputs=outputs)


def _dtype(layer: Layer, inputs: tuple[Value, ...], output: Value, precision: str) -> str:
    if output.dtype != FULL or isinstance(layer, WHOLE):
        return output.dtype
    if isinstance(layer, HALVED):
        return precision
    return FULL if any(v.dtype == FULL for v in inputs) else precision
