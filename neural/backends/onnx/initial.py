"""Weights to start from, drawn in NumPy by the rules that the generated source has."""

from __future__ import annotations

import math

import numpy as np

from neural.graph.graph import Network, weights
from neural.graph.residuals import additions, residual_suffixes, without_indices
from neural.layers.layer import Weight


def fresh_weights(network: Network, seed: int) -> dict[str, np.ndarray]:
    """float32, by our names. "gpt2": std 0.02, less into the residual stream; "glorot": Keras' uniform ones."""
    rng = np.random.default_rng(seed)
    draw = _gpt2 if network.init == "gpt2" else _glorot
    count, suffixes = additions(network.block), residual_suffixes(network.block)
    found = {}
    for name, weight in weights(network.block).items():
        found[name] = draw(rng, weight)
        if network.init == "gpt2" and count is not None and suffixes and without_indices(name).endswith(suffixes):
            found[name] /= np.float32(math.sqrt(count.value))
    return found


def _gpt2(rng: np.random.Generator, weight: Weight) -> np.ndarray:
    if weight.init in ("matrix", "embedding"):
        return rng.standard_normal(weight.shape, np.float32) * np.float32(0.02)
    return _constant(weight)


def _glorot(rng: np.random.Generator, weight: Weight) -> np.ndarray:
    if weight.init not in ("matrix", "embedding"):
        return _constant(weight)
    limit = 0.05 if weight.init == "embedding" else math.sqrt(6 / sum(weight.shape))
    return (rng.random(weight.shape, np.float32) * 2 - 1) * np.float32(limit)


def _constant(weight: Weight) -> np.ndarray:
    return np.full(weight.shape, {"zeros": 0, "ones": 1}[weight.init], np.float32)
