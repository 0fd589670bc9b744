"""Memory of training and of generating, in bytes; everything is float32."""

from __future__ import annotations

from dataclasses import dataclass

from neural.graph.graph import Block, Network, count_parameters, primitives, tied, weights
from neural.graph.sections import CROSS_ENTROPIES
from neural.layers.attention import Attention
from neural.layers.dense import Dense, Projections
from neural.layers.layer import width
from neural.planning.sizes import FLOAT, Setting


@dataclass(frozen=True, slots=True)
class TrainingMemory:
    """Bytes that one training step needs, at its peak: the start of the backward pass.

    activations: what the forward pass keeps for the backward pass.
    logits: under a cross-entropy the log-probabilities, their gradient and that of the logits; else the output and its
    gradient.
    What kernels use for a moment, fragments of the allocator and the framework itself come on top.
    """

    weights: int
    gradients: int
    optimizer: int
    activations: int
    logits: int

    @property
    def total(self) -> int:
        return self.weights + self.gradients + self.optimizer + self.activations + self.logits


@dataclass(frozen=True, slots=True)
class GenerationMemory:
    """Bytes for generating: the weights, and the keys and values of every sequence at full context.

    cache_in_window: what the cache would hold if it dropped keys that no window reaches; `neural generate` keeps them.
    """

    weights: int
    cache: int
    cache_in_window: int

    @property
    def total(self) -> int:
        return self.weights + self.cache


def optimizer_bytes(network: Network) -> int:
    """What the optimizer keeps beside the weights: Adam's two moments, the velocity of SGD with momentum, one moment
    of Lion, one of Muon for matrices between layers, Adafactor's sums over rows and columns.
    """
    optimizer, block = network.settings.optimizer, network.block
    match optimizer.name:
        case "Adam" | "AdamW":
            return 2 * FLOAT * count_parameters(block)
        case "Lion":
            return FLOAT * count_parameters(block)
        case "Adafactor":
            trained = [w.shape for w in weights(block).values() if w.trained]
            return FLOAT * sum((s[-2] + s[-1]) * _product(s[:-2]) if len(s) > 1 else _product(s) for s in trained)
        case "Muon":
            return FLOAT * (2 * count_parameters(block) - sum(_hidden_matrices(block)))
    return FLOAT * count_parameters(block) if optimizer.arguments["momentum"] > 0 else 0


def _hidden_matrices(block: Block) -> list[int]:
    """Numbers in the weight of each product but the head, which is the last."""
    shared = tied(block)
    products = [p for p in primitives(block) if isinstance(p.node.layer, Dense | Projections)]
    own = [p for p in products[:-1] if f"{p.path}.weight" not in shared]
    return [_product(p.node.layer.weights(*p.inputs)[0].shape) for p in own]


def buffer_bytes(block: Block) -> int:
    """Weights that training does not change, such as running means."""
    return sum(
        FLOAT * _product(w.shape) * copies
        for _, node, inputs, copies in primitives(block, once=True)
        for w in node.layer.weights(*inputs)
        if not w.trained
    )


def logits_bytes(network: Network, setting: Setting) -> int:
    """What the loss needs beside the network's activations."""
    output = setting.bytes(network.block.value(network.block.outputs[0]))
    return output * (3 if network.settings.loss in CROSS_ENTROPIES else 2)


def cache_bytes(network: Network, setting: Setting, *, windowed: bool) -> int:
    """Keys and values (B, kv heads, T, head_dim) of all attention layers.

    windowed: no more of T than the window of a layer reaches.
    """
    if not network.cached:
        return 0
    total = 0
    for _, node, inputs, copies in primitives(network.block, once=True):
        if isinstance(node.layer, Attention):
            k = inputs[1] if len(inputs) > 1 else inputs[0]
            length = setting.axis(k.shape[1])
            kept = min(length, node.layer.window.value or length) if windowed else length
            total += copies * 2 * FLOAT * setting.batch * kept * width(k).value
    return total


def _product(shape: tuple[int, ...]) -> int:
    product = 1
    for n in shape:
        product *= n
    return product
