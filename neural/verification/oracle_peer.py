"""The NumPy interpreter, in float64, as a peer."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from neural.compiler import Program
from neural.graph.interpreter import interpret
from neural.graph.passes import optimize


class Peer:
    """It has neither a cache nor gradients: it says what a graph means, and that is all."""

    def __init__(self, program: Program, weights: Mapping[str, np.ndarray]) -> None:
        self._graph = optimize(program.graph)
        self._weights = {name: array.astype(np.float64) for name, array in weights.items()}

    def logits(self, inputs: list[np.ndarray], attention_mask: np.ndarray | None = None) -> np.ndarray:
        return interpret(self._graph, self._weights, *inputs, attention_mask=attention_mask)
