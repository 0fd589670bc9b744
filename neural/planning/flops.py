"""Floating-point operations of a network.

The convention is PaLM's (Chowdhery et al. 2022, appendix B) and, but for attention, that of Kaplan et al. (2020,
table 1). Matrix products alone count, a multiplication and an addition each as one; an embedding is a look-up and
counts nothing; every query meets every key of the sequence (of its window, if it has one), a causal mask saving none.
The backward pass does twice the work of the forward pass. With activation checkpointing blocks are computed twice, but
for the product that nothing keeps the result of: PyTorch stops when it has all that the backward pass reads.
"""

from __future__ import annotations

from neural.graph.graph import Block, Node, primitives
from neural.layers.attention import Attention
from neural.layers.layer import Layer
from neural.layers.values import Value
from neural.planning.saved import saved
from neural.planning.sizes import Setting

TRAINING = 3  # forward, gradients of the inputs, gradients of the weights


def forward_flops(node: Node, inputs: tuple[Value, ...], setting: Setting) -> int:
    """Of one primitive node on one row of the batch: a whole sequence, where its input has a T axis."""
    fixed = tuple(setting.fixed(v) for v in inputs)
    if not _multiplies_matrices(node.layer, fixed):
        return 0
    return node.layer.flops(*fixed) * setting.sequence(inputs[0])


def recomputed_flops(block: Block, setting: Setting) -> int:
    """Of what checkpointing computes again for one row of the batch: the blocks of a network."""
    total = 0
    for node in block.nodes:
        if isinstance(node.layer, Block):
            again = sum(n * forward_flops(p, inputs, setting) for _, p, inputs, n in primitives(node.layer, once=True))
            total += node.copies * (again - (_last_product(node.layer, setting) or 0))
    return total


def _last_product(block: Block, setting: Setting) -> int | None:
    """Operations of the last node that keeps something, if it keeps none of what it gives; None if none keeps any."""
    values = block.values()
    for node in reversed(block.nodes):
        inputs = tuple(values[i] for i in node.inputs)
        if isinstance(node.layer, Block):
            found = _last_product(node.layer, setting)
            if found is not None:
                return found
            continue
        rule = saved(node.layer, inputs, node.outputs, setting)
        if rule.output or rule.extra:
            return 0
        if rule.inputs:
            return forward_flops(node, inputs, setting)
    return None


def _multiplies_matrices(layer: Layer, inputs: tuple[Value, ...]) -> bool:
    return isinstance(layer, Attention) or any(w.init == "matrix" for w in layer.weights(*inputs))
