"""The product that makes a language model's logits of its hidden states."""

from __future__ import annotations

from neural.graph.graph import Network, Node
from neural.layers.dense import Dense


def head(network: Network) -> Node | None:
    """The last node, where it is a Dense and nothing else; None where the logits come otherwise."""
    node, block = network.block.nodes[-1], network.block
    if network.vocab_size is None or not isinstance(node.layer, Dense) or node.repeat is not None:
        return None
    last = block.outputs == (node.outputs[0].name,) and node.layer.activation.value == "linear"
    return node if last and len(block.nodes) > 1 else None
