"""A network as an ONNX model: its inputs and outputs, its effects, and its nodes one after another.

A causal network has the interface that Hugging Face's exports have, so that runtimes know how to drive it: `input_ids`,
`attention_mask` over past and present, `position_ids` where the network has positions (optimum is to drop models
without), and `past_key_values.{i}.key` and `.value` (B, kv_heads, past, head_dim), which may be of length 0. It gives
`logits` and `present.{i}.key` and `.value`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib.metadata import version
from types import MappingProxyType
from typing import Any

import numpy as np
import onnx_ir as ir

from neural.backends.onnx.graph import BOOL, FLOAT, INT64, IR_VERSION, GraphBuilder
from neural.graph.graph import Block, Network, Node, count_parameters
from neural.graph.head import head
from neural.layers.effects import Cache, Positions, RealTokens
from neural.layers.layer import Effect
from neural.layers.masks import CausalMask, PaddingMask
from neural.layers.values import Shape
from neural.quantization.matrix import QuantizedMatrix

BATCH, LENGTH, PAST, KEPT = "batch_size", "sequence_length", "past_sequence_length", "logits_to_keep"
TOTAL = f"{PAST} + {LENGTH}"
TYPES = {"float32": FLOAT, "int64": INT64, "bool": BOOL}


def emit(
    network: Network,
    weights: Mapping[str, np.ndarray],
    quantized: Mapping[str, QuantizedMatrix] = MappingProxyType({}),
    *,
    logits_to_keep: bool = False,
) -> ir.Model:
    """The model, in evaluation mode.

    network: after `optimize`. weights: by the names of `graph.weights(network.block)`. quantized: those of them that
    are stored as integers, for onnxruntime; one that its operators cannot read is stored as float32. The others are
    all that is read of `weights`. logits_to_keep: of a causal network, with an input of that name, int64 (1,): logits
    are given of so many of the last tokens, or of all where the network has no `head`. A prompt needs those of one,
    and exports of others have no such input.
    """
    return Writer(network, weights, quantized, logits_to_keep).model()


class Writer:
    """The flat walk over a network's blocks."""

    def __init__(
        self,
        network: Network,
        weights: Mapping[str, np.ndarray],
        quantized: Mapping[str, QuantizedMatrix],
        logits_to_keep: bool,
    ) -> None:
        self.network = network
        self.cut = head(network) if logits_to_keep else None  # the node that reads the last tokens only
        self.graph = GraphBuilder(weights, quantized)
        self.inputs: list[ir.Value] = []
        self.presents: list[ir.Value] = []
        self.ties: dict[str, tuple[str, bool]] = {}
        self.effects: dict[Effect, Any] = {}
        self.attention_mask: ir.Value | None = None
        self.position_ids: ir.Value | None = None

    def model(self) -> ir.Model:
        block = self.network.block
        given = {v.name: self._input(self._name(v.name), _axes(v.shape), TYPES[v.dtype]) for v in block.inputs}
        self._make_effects(given)
        result = self._output(self._block(block, given, "", ""))
        graph = ir.Graph(
            self.inputs, [result, *self.presents], nodes=self.graph.nodes, opset_imports=self.graph.imports,
            initializers=list(self.graph.initializers.values()), name=self.network.name,
        )  # fmt: skip
        return ir.Model(
            graph, ir_version=IR_VERSION, producer_name="neural-dsl", producer_version=version("neural-dsl"),
            doc_string=f"{self.network.name}: {count_parameters(block):,} parameters. Written by `neural compile`.",
        )  # fmt: skip

    # The interface

    def _name(self, name: str) -> str:
        """Of an input. A causal network has one, and runtimes look for it under this name."""
        return "input_ids" if self.network.cached else name

    def _input(self, name: str, axes: list[int | str], dtype: ir.DataType) -> ir.Value:
        value = ir.val(self._free(name), dtype, ir.Shape(axes))
        self.inputs.append(value)
        return value

    def _free(self, name: str) -> str:
        """The name, or one like it where the author gave it to an input."""
        while any(i.name == name for i in self.inputs):
            name += "_"
        return name

    def _output(self, value: ir.Value) -> ir.Value:
        network = self.network
        if value.producer() is None or value in self.presents:
            value = self.graph.op(network.name, "Identity", value)
        value.name = self._free("logits" if network.activation or network.cached else "output")
        axes = _axes(network.block.value(network.block.outputs[0]).shape)
        value.shape = ir.Shape([KEPT if self.cut and axis == LENGTH else axis for axis in axes])
        value.type = ir.TensorType(FLOAT)
        return value

    # Effects

    def _make_effects(self, given: dict[str, ir.Value]) -> None:
        needed = self.network.block.effects()
        needed = dict.fromkeys([*(r for e in needed for r in e.requires()), *needed])
        if self.network.sequence is None:
            return
        source = self.network.block.value(self.network.sequence)
        if any(isinstance(e, CausalMask | PaddingMask | RealTokens) for e in needed):
            axes = [BATCH, TOTAL] if self.network.cached else _axes(source.shape[:2])
            self.attention_mask = self._input("attention_mask", axes, INT64)
        if self.network.cached and Positions() in needed:
            self.position_ids = self._input("position_ids", [BATCH, LENGTH], INT64)
        for effect in needed:
            if not isinstance(effect, Cache):
                scope = f"{self.network.name}/{effect.variable}"
                site = Site(self, scope, "", (given[self.network.sequence],), (source.shape,))
                self.effects[effect] = effect.onnx(site)

    def cache(self, heads: int, head_dim: int) -> tuple[ir.Value, ir.Value]:
        """The past keys and values of the next attention."""
        i = len(self.presents) // 2
        axes = [BATCH, heads, PAST, head_dim]
        return tuple(self._input(f"past_key_values.{i}.{part}", axes, FLOAT) for part in ("key", "value"))

    def keep(self, heads: int, head_dim: int, *present: ir.Value) -> None:
        """Hand out the keys and values of an attention, past and present."""
        i = len(self.presents) // 2
        for part, value in zip(("key", "value"), present, strict=True):
            value.name = f"present.{i}.{part}"
            value.shape = ir.Shape([BATCH, heads, TOTAL, head_dim])
            value.type = ir.TensorType(FLOAT)
            self.presents.append(value)

    # Nodes

    def _block(self, block: Block, values: dict[str, ir.Value], prefix: str, scope: str) -> ir.Value:
        """prefix: of the weights' names, "blocks.0.". scope: of the operators' names, "blocks.0/"."""
        values = dict(values)
        for tie in block.ties:
            target, source = f"{prefix}{tie.target}.weight", f"{prefix}{tie.source}.weight"
            self.ties[target] = (source, tie.transposed)
        shapes = block.values()
        for node in block.nodes:
            given = tuple(values[i] for i in node.inputs)
            for i in range(node.copies):
                name = f"{node.name}.{i}" if node.repeat is not None else node.name
                out = self._node(node, given, tuple(shapes[i].shape for i in node.inputs), prefix + name, scope + name)
                given = (out,)
            outputs = out if isinstance(out, tuple) else (out,)
            values.update(zip((v.name for v in node.outputs), outputs, strict=True))
        return values[block.outputs[0]]

    def _node(self, node: Node, given: tuple, shapes: tuple[Shape, ...], path: str, scope: str) -> Any:
        if node is self.cut:
            given = (self._last_tokens(scope, given[0]),)
        if isinstance(node.layer, Block):
            inner = dict(zip((v.name for v in node.layer.inputs), given, strict=True))
            return self._block(node.layer, inner, f"{path}.", f"{scope}/")
        return node.layer.onnx(Site(self, scope, f"{path}.", given, shapes))

    def _last_tokens(self, scope: str, x: ir.Value) -> ir.Value:
        begin = self.graph.op(scope, "Neg", self._input(KEPT, [1], INT64))
        end, axis = self.graph.constant([2**63 - 1], "int64"), self.graph.constant([1], "int64")
        return self.graph.op(scope, "Slice", x, begin, end, axis)


def _axes(shape: Shape) -> list[int | str]:
    """Numbers, and names for what a call decides."""
    return [{"B": BATCH, "T": LENGTH}.get(a.axis, a.value) for a in shape]


@dataclass
class Site:
    """What neural.layers.onnx_site.OnnxSite says."""

    writer: Writer
    scope: str
    prefix: str
    inputs: tuple[ir.Value, ...]
    shapes: tuple[Shape, ...]
    np: Any = field(default=np, repr=False)

    @property
    def attention_mask(self) -> ir.Value | None:
        return self.writer.attention_mask

    @property
    def position_ids(self) -> ir.Value | None:
        return self.writer.position_ids

    def op(self, kind: str, *inputs: ir.Value | None, outputs: int = 1, **attributes: Any) -> Any:
        return self.writer.graph.op(self.scope, kind, *inputs, outputs=outputs, **attributes)

    def constant(self, value: Any, dtype: str = "float32") -> ir.Value:
        return self.writer.graph.constant(value, dtype)

    def cast(self, x: ir.Value, dtype: str) -> ir.Value:
        return self.op("Cast", x, to=TYPES[dtype])

    def _stored(self, name: str) -> tuple[str, bool]:
        full = f"{self.prefix}{name}"
        return self.writer.ties.get(full, (full, False))

    def weight(self, name: str) -> ir.Value:
        return self.writer.graph.weight(self._stored(name)[0])

    def linear(self, x: ir.Value, weight: str, bias: str | None) -> ir.Value:
        rank = len(self.shapes[0])
        return self.writer.graph.linear(self.scope, x, rank, *self._stored(weight), bias and self.weight(bias))

    def rows(self, weight: str, ids: ir.Value) -> ir.Value:
        return self.writer.graph.rows(self.scope, *self._stored(weight), ids)

    def uses(self, effect: Effect) -> Any:
        return self.writer.effects[effect]

    def length(self, x: ir.Value | None = None) -> ir.Value:
        sizes = self.op("Shape", self.inputs[0] if x is None else x)
        return self.op("Gather", sizes, self.constant(1, "int64"))

    def attend(self, *inputs: ir.Value, kv_num_heads: int, head_dim: int, **attributes: Any) -> ir.Value:
        attributes["kv_num_heads"] = kv_num_heads
        if not self.writer.network.cached:
            return self.op("Attention", *inputs, **attributes)
        past = self.writer.cache(kv_num_heads, head_dim)
        y, *present = self.op("Attention", *inputs, *past, outputs=3, **attributes)
        self.writer.keep(kv_num_heads, head_dim, *present)
        return y
