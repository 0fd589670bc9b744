"""Where a layer is spelled as nodes of an ONNX graph."""

from __future__ import annotations

from typing import Any, Protocol

from neural.layers.layer import Effect
from neural.layers.values import Shape

Tensor = Any  # a value of the ONNX graph: onnx_ir.Value


class OnnxSite(Protocol):
    """One node of our graph, or an effect of the network. Operators are those of opset 23."""

    np: Any  # the numpy module, which files of layers must not import
    inputs: tuple[Tensor, ...]
    shapes: tuple[Shape, ...]  # of the inputs
    attention_mask: Tensor | None  # int64 (B, past + T), 1 for tokens and 0 for padding; None where nothing heeds it

    position_ids: Tensor | None  # int64 (B, T), where the caller gives them

    def op(self, kind: str, *inputs: Tensor | None, outputs: int = 1, **attributes: Any) -> Any:
        """Add an operator; returns its output, or a tuple where it has several."""

    def constant(self, value: Any, dtype: str = "float32") -> Tensor:
        """Numbers that stand in the graph: one, a list, or an array."""

    def cast(self, x: Tensor, dtype: str) -> Tensor:
        """The same numbers as "float32", "int64" or "bool"."""

    def weight(self, name: str) -> Tensor:
        """A weight of the layer as it is stored."""

    def linear(self, x: Tensor, weight: str, bias: str | None) -> Tensor:
        """x · weightᵀ + bias."""

    def rows(self, weight: str, ids: Tensor) -> Tensor:
        """The rows of a table that ids name."""

    def uses(self, effect: Effect) -> Any:
        """What the network made for an effect."""

    def length(self, x: Tensor | None = None) -> Tensor:
        """The second axis of a value, by default of the first input: int64 ()."""

    def attend(self, *inputs: Tensor, kv_num_heads: int, head_dim: int, **attributes: Any) -> Tensor:
        """The operator Attention on q, k, v (B, T, heads · head_dim) and a mask; with the cache where there is one."""
