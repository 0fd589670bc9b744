"""The meaning of a graph in NumPy: the oracle that back ends are held against."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from neural.graph.graph import Block, Network, Node, tied, weights


def initial_weights(network: Network, seed: int, dtype: type = np.float64) -> dict[str, np.ndarray]:
    """Weights for tests, from one seed: all random, so that a swapped pair shows. Variances are positive."""
    rng = np.random.default_rng(seed)
    made = {}
    for name, weight in weights(network.block).items():
        values = rng.normal(size=weight.shape) * (0.3 if len(weight.shape) > 1 else 0.5)
        values = values + (1.0 if weight.init == "ones" else 0.0)
        made[name] = (np.abs(values) + 0.1 if name.endswith("running_var") else values).astype(dtype)
    return made


def interpret(
    network: Network, weights: Mapping[str, np.ndarray], *inputs: np.ndarray, attention_mask: np.ndarray | None = None
) -> np.ndarray:
    """The network's output, in evaluation mode and in the weights' precision.

    weights: by PyTorch's names, tied ones once. attention_mask: (B, T), 1 for tokens and 0 for padding.
    """
    shared = tied(network.block)
    full = {
        **weights,
        **{target: _tied_value(weights, target, source, network.block) for target, source in shared.items()},
    }
    names = [v.name for v in network.block.inputs]
    length = inputs[names.index(network.sequence)].shape[1] if network.sequence else 0
    state = {"attention_mask": attention_mask, "positions": np.arange(length)}
    return _run(network.block, full, inputs, state, "")


def _tied_value(weights: Mapping[str, np.ndarray], target: str, source: str, block: Block) -> np.ndarray:
    transposed = {f"{t.target}.weight" for t in block.ties if t.transposed}
    return weights[source].T if target in transposed else weights[source]


def _run(
    block: Block, weights: Mapping[str, np.ndarray], inputs: tuple[np.ndarray, ...], state: dict[str, Any], prefix: str
) -> np.ndarray:
    values = dict(zip((v.name for v in block.inputs), inputs, strict=True))
    for node in block.nodes:
        given = tuple(values[i] for i in node.inputs)
        for i in range(node.copies):
            path = f"{prefix}{node.name}" + (f".{i}" if node.repeat is not None else "")
            out = _apply(node, weights, given, state, f"{path}.")
            given = (out,)
        outputs = out if isinstance(out, tuple) else (out,)
        values.update(zip((v.name for v in node.outputs), outputs, strict=True))
    return values[block.outputs[0]]


def _apply(
    node: Node, weights: Mapping[str, np.ndarray], inputs: tuple[np.ndarray, ...], state: dict[str, Any], prefix: str
) -> Any:
    if isinstance(node.layer, Block):
        return _run(node.layer, weights, inputs, state, prefix)
    own = {n.removeprefix(prefix): w for n, w in weights.items() if n.startswith(prefix)}
    return node.layer.numpy(np, own, *inputs, state=state)
