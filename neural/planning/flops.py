"""Floating-point operations of a network.

The convention is PaLM's (Chowdhery et al. 2022, appendix B) and, but for attention, that of Kaplan et al. (2020,
table 1). Matrix products alone count, a multiplication and an addition each as one; an embedding is a look-up and
counts nothing; every query meets every key of the sequence (of its window, if it has one), a causal mask saving none.
The backward pass does twice the work of the forward pass, and nothing is computed twice.
"""

from __future__ import annotations

from neural.graph.graph import Node
from neural.layers.attention import Attention
from neural.layers.layer import Layer
from neural.layers.values import Value
from neural.planning.sizes import Setting

TRAINING = 3  # forward, gradients of the inputs, gradients of the weights


def forward_flops(node: Node, inputs: tuple[Value, ...], setting: Setting) -> int:
    """Of one primitive node on one row of the batch: a whole sequence, where its input has a T axis."""
    fixed = tuple(setting.fixed(v) for v in inputs)
    if not _multiplies_matrices(node.layer, fixed):
        return 0
    return node.layer.flops(*fixed) * setting.sequence(inputs[0])


def _multiplies_matrices(layer: Layer, inputs: tuple[Value, ...]) -> bool:
    return isinstance(layer, Attention) or any(w.init == "matrix" for w in layer.weights(*inputs))
