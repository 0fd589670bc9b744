"""A back end as verification sees it: one model, run by one framework."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from importlib.util import find_spec
from typing import TYPE_CHECKING, NamedTuple, Protocol

if TYPE_CHECKING:
    import numpy

    from neural.compiler import Program

    Array = numpy.ndarray


class Peer(Protocol):
    """A program's model with given weights. A peer has the methods that its framework can do, beside `logits`.

    weights: by our names, in PyTorch's layout, float32. inputs: one array for each input of the network.
    """

    def __init__(self, program: Program, weights: Mapping[str, Array]) -> None: ...

    def logits(self, inputs: list[Array], attention_mask: Array | None = None) -> Array:
        """The output in evaluation mode. attention_mask: (B, T), 1 for tokens and 0 for padding."""

    def cached(self, ids: Array) -> Array:
        """The logits (B, T, V) of ids (B, T) that are read one by one through the cache."""

    def decode(self, ids: Array, n: int) -> Array:
        """The n most likely next ids (B, n), one after another through the cache, after the prompt ids (B, T)."""

    def gradients(self, inputs: list[Array], targets: Array) -> dict[str, Array]:
        """The gradient of the file's loss, without dropout, by our names and in our layout; tied weights once."""

    def steps(self, inputs: list[Array], targets: Array, n: int) -> list[float]:
        """The losses before each of n optimizer steps on one batch: no dropout, but batch statistics as in training."""


class Backend(NamedTuple):
    """Where a peer stands, what it imports, and which extra brings that."""

    title: str
    module: str
    needs: tuple[str, ...]
    extra: str

    @property
    def missing(self) -> str | None:
        """The first package that is not installed."""
        return next((name for name in self.needs if find_spec(name) is None), None)

    def open(self, program: Program, weights: Mapping[str, Array]) -> Peer:
        return import_module(self.module).Peer(program, weights)


BACKENDS = {
    "pytorch": Backend("PyTorch", "neural.verification.torch_peer", ("torch",), "torch"),
    "tensorflow": Backend("TensorFlow", "neural.verification.keras_peer", ("keras", "tensorflow"), "tensorflow"),
    "jax": Backend("JAX", "neural.verification.jax_peer", ("jax", "flax", "optax"), "jax"),
    "onnx": Backend("ONNX", "neural.verification.onnx_peer", ("onnx_ir", "onnxruntime"), "onnx"),
    "numpy": Backend("NumPy oracle", "neural.verification.oracle_peer", ("numpy",), "torch"),
}
EXACT = "exact"  # no back end: what a difference is held against that may be one of rounding
PEERS = BACKENDS | {EXACT: Backend("PyTorch in float64", "neural.verification.exact_peer", ("torch",), "torch")}
