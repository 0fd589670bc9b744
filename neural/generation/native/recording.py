"""A network's graph as a list of operations on rows: what the C++ runs.

The layers say what they compute where they are spelled in ONNX; here those operators are written down. What depends on
nothing but the position of a token (sines, cosines, learned positions) is computed now, for every position. What the
C++ has no operation for is refused.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Any, NamedTuple

import numpy as np

from neural.graph.graph import Block, Network, Node
from neural.layers.effects import Positions
from neural.layers.layer import Effect
from neural.layers.masks import CausalMask
from neural.layers.rotary import Rotary
from neural.layers.values import Shape
from neural.quantization.matrix import QuantizedMatrix

Weights = Mapping[str, np.ndarray | QuantizedMatrix]


class Kind(IntEnum):
    """As in source/engine.cpp."""

    EMBED, POSITION, LINEAR, LAYER_NORM, RMS_NORM, ROTATE, ATTEND = range(7)
    ADD, MULTIPLY, SCALE, UNARY, SELECT, QUANTIZE, KEEP = range(7, 14)


FUNCTIONS = ("Identity", "Relu", "Gelu", "GeluTanh", "Silu", "Tanh", "Sigmoid", "LeakyRelu", "Elu", "Softplus", "Mish",
             "ReluSquared")  # fmt: skip


class Unsupported(Exception):
    """What the network has and the C++ has not."""


@dataclass(eq=False, slots=True)
class Result:
    """What an operation gives: rows of `width` numbers."""

    width: int


class View(NamedTuple):
    """Columns of a result. heads: how many parts of equal width they are, each a vector of its own."""

    result: Result
    offset: int
    width: int
    heads: int = 1

    @property
    def whole(self) -> bool:
        return self.width == self.result.width


@dataclass(eq=False, slots=True)
class Integers:
    """Rows of `width` numbers, rounded for products with integers of so many bits."""

    width: int
    bits: int


class WeightName(NamedTuple):
    name: str


class Mask(NamedTuple):
    window: int | None


class Attention(NamedTuple):
    """heads, kv_heads, head_dim, window (0: none), scale."""

    heads: int
    kv_heads: int
    head_dim: int
    window: int
    scale: float


@dataclass(eq=False, slots=True)
class Operation:
    """out = kind(a, b, c). matrix, vector, second: a weight's name, or numbers. number: heads, or which attention.
    integers: what a product reads in place of `a`. rounds: what the result is rounded to. kept: whether as floats, too.
    """

    kind: Kind
    out: Result | None = None
    a: View | None = None
    b: View | None = None
    c: View | None = None
    matrix: tuple[str, bool] | None = None  # its name, and whether it is turned
    vector: np.ndarray | None = None
    second: np.ndarray | None = None
    number: int = 0
    function: int = 0
    narrow: bool = False  # on the rows alone whose logits are wanted
    value: float = 0.0
    integers: Integers | None = None
    rounds: Integers | None = None
    kept: bool = True

    @property
    def reads(self) -> list[View]:
        return [view for view in (self.a, self.b, self.c) if view is not None]


@dataclass(slots=True)
class Recording:
    operations: list[Operation] = field(default_factory=list)
    attentions: list[Attention] = field(default_factory=list)
    logits: View | None = None


def record(network: Network, weights: Weights) -> Recording:
    """The operations of a causal language model, after `optimize`.

    weights: by the names of `graph.weights`. Matrices of products are named, and not looked at. Raises Unsupported.
    """
    if not network.cached:
        raise Unsupported("a network without a cache of keys and values")
    recorder = _Recorder(network, weights)
    recorder.recording.logits = recorder.network_output()
    return recorder.recording


IDS = object()  # the input


class _Recorder:
    def __init__(self, network: Network, weights: Weights) -> None:
        self.network, self.weights = network, weights
        self.recording = Recording()
        self.ties: dict[str, tuple[str, bool]] = {}
        self.effects: dict[Effect, Any] = {}
        self.table = np.arange(network.context)[None]  # positions, int64 (1, context)

    def network_output(self) -> View:
        block = self.network.block
        value = self.block(block, {v.name: IDS for v in block.inputs}, "")
        if not isinstance(value, View) or not value.whole:
            raise Unsupported("logits that are no result of their own")
        return value

    def block(self, block: Block, values: dict[str, Any], prefix: str) -> Any:
        values, shapes = dict(values), block.values()
        for tie in block.ties:
            self.ties[f"{prefix}{tie.target}.weight"] = f"{prefix}{tie.source}.weight", tie.transposed
        for node in block.nodes:
            given = tuple(values[i] for i in node.inputs)
            for i in range(node.copies):
                path = prefix + (node.name if node.repeat is None else f"{node.name}.{i}")
                out = self.node(node, given, tuple(shapes[i].shape for i in node.inputs), path)
                given = (out,)
            values.update(zip((v.name for v in node.outputs), out if isinstance(out, list) else [out], strict=True))
        return values[block.outputs[0]]

    def node(self, node: Node, given: tuple, shapes: tuple[Shape, ...], path: str) -> Any:
        if isinstance(node.layer, Block):
            return self.block(
                node.layer, dict(zip((v.name for v in node.layer.inputs), given, strict=True)), f"{path}."
            )
        return node.layer.onnx(_Site(self, f"{path}.", given, shapes))

    def add(self, kind: Kind, width: int, **given: Any) -> View:
        result = Result(width)
        self.recording.operations.append(Operation(kind, result, **given))
        return View(result, 0, width)

    def effect(self, effect: Effect) -> Any:
        if effect not in self.effects:
            self.effects[effect] = self._made(effect)
        return self.effects[effect]

    def _made(self, effect: Effect) -> Any:
        match effect:
            case Positions():
                return self.table
            case CausalMask():
                return Mask(effect.window)
            case Rotary():
                return effect.onnx(_Site(self, "", (), ()))
        raise Unsupported(f"the effect {type(effect).__name__}")


@dataclass
class _Site:
    """What neural.layers.onnx_site.OnnxSite says. A tensor is a View, IDS, a WeightName, or an array: a constant, or a
    table (1, context, …) over positions.
    """

    recorder: _Recorder
    prefix: str
    inputs: tuple[Any, ...]
    shapes: tuple[Shape, ...]
    attention_mask: None = None
    position_ids: None = None
    np: Any = field(default=np, repr=False)

    def op(self, kind: str, *inputs: Any, outputs: int = 1, **attributes: Any) -> Any:
        if all(isinstance(x, np.ndarray | WeightName) for x in inputs) and kind in FOLDED:
            return FOLDED[kind](*(self._array(x) for x in inputs), **attributes)
        write = OPERATORS.get(kind)
        if write is None:
            raise Unsupported(f"the operator {kind}")
        return write(self, *inputs, **attributes)

    def _array(self, x: np.ndarray | WeightName) -> np.ndarray:
        found = self.recorder.weights[x.name] if isinstance(x, WeightName) else x
        return found.dequantized() if isinstance(found, QuantizedMatrix) else found

    def constant(self, value: Any, dtype: str = "float32") -> np.ndarray:
        return np.asarray(value, dtype)

    def cast(self, x: Any, dtype: str) -> Any:
        if not isinstance(x, np.ndarray):
            raise Unsupported(f"a cast to {dtype}")
        return x.astype(dtype)

    def _stored(self, name: str) -> tuple[str, bool]:
        full = f"{self.prefix}{name}"
        return self.recorder.ties.get(full, (full, False))

    def weight(self, name: str) -> WeightName:
        return WeightName(self._stored(name)[0])

    def linear(self, x: View, weight: str, bias: str | None) -> View:
        vector = None if bias is None else self._array(self.weight(bias))
        stored = self._stored(weight)
        rows, columns = self.recorder.weights[stored[0]].shape
        return self.recorder.add(Kind.LINEAR, columns if stored[1] else rows, a=x, matrix=stored, vector=vector)

    def rows(self, weight: str, ids: Any) -> View:
        if ids is not IDS:
            raise Unsupported("an embedding of anything but the tokens")
        stored = self._stored(weight)
        rows, columns = self.recorder.weights[stored[0]].shape
        return self.recorder.add(Kind.EMBED, rows if stored[1] else columns, matrix=stored)

    def uses(self, effect: Effect) -> Any:
        return self.recorder.effect(effect)

    def length(self, x: Any = None) -> Any:
        raise Unsupported("the length of a text as a number")

    def attend(
        self, q: View, k: View, v: View, mask: Any, *, q_num_heads: int, kv_num_heads: int, head_dim: int,
        scale: float | None = None,
    ) -> View:  # fmt: skip
        if not isinstance(mask, Mask):
            raise Unsupported("attention that is not causal")
        kept = self.recorder.recording.attentions
        scale = head_dim**-0.5 if scale is None else scale
        kept.append(Attention(q_num_heads, kv_num_heads, head_dim, mask.window or 0, scale))
        return self.recorder.add(Kind.ATTEND, q.width, a=q, b=k, c=v, number=len(kept) - 1)

    # Operators

    def _unary(self, function: str, x: View, value: float = 0.0) -> View:
        return self.recorder.add(Kind.UNARY, x.width, a=x, function=FUNCTIONS.index(function), value=value)

    def _add(self, a: Any, b: Any) -> View:
        a, b = (b, a) if isinstance(a, np.ndarray) else (a, b)
        if isinstance(b, View):
            return self.recorder.add(Kind.ADD, a.width, a=a, b=b)
        if isinstance(b, np.ndarray) and b.shape == (1, self.recorder.network.context, a.width):
            return self.recorder.add(Kind.POSITION, a.width, a=a, vector=b[0])
        raise Unsupported("a sum with anything but a value or positions")

    def _multiply(self, a: Any, b: Any) -> View:
        a, b = (b, a) if isinstance(a, np.ndarray) else (a, b)
        if isinstance(b, np.ndarray):
            if b.size != 1:
                raise Unsupported("a product with a vector")
            return self.recorder.add(Kind.SCALE, a.width, a=a, value=float(b))
        last = self.recorder.recording.operations[-1]
        if last.out is b.result and last.kind is Kind.UNARY:  # x · sigmoid(x) and relu(x)² are one function each
            name = FUNCTIONS[last.function]
            if (name, last.a) == ("Sigmoid", a) or (name == "Relu" and a == b):
                last.function = FUNCTIONS.index("Silu" if name == "Sigmoid" else "ReluSquared")
                return b
        return self.recorder.add(Kind.MULTIPLY, a.width, a=a, b=b)

    def _layer_norm(self, x: View, gain: WeightName, bias: WeightName | None, epsilon: float) -> View:
        second = None if bias is None else self._array(bias)
        return self.recorder.add(Kind.LAYER_NORM, x.width, a=x, vector=self._array(gain), second=second, value=epsilon)

    def _rms_norm(self, x: View, gain: WeightName, epsilon: float) -> View:
        normal = self.recorder.add(
            Kind.RMS_NORM, x.width, a=x._replace(heads=1), vector=self._array(gain), number=x.heads, value=epsilon
        )
        return normal._replace(heads=x.heads)

    def _rotate(self, x: View, cosines: np.ndarray, sines: np.ndarray, num_heads: int) -> View:
        if x.width // num_heads != 2 * cosines.shape[-1]:
            raise Unsupported("a rotation of a part of each head")
        return self.recorder.add(Kind.ROTATE, x.width, a=x, vector=cosines[0], second=sines[0], number=num_heads)

    def _split(self, x: View, widths: np.ndarray, axis: int) -> list[View]:
        starts = np.cumsum([0, *widths[:-1]]).tolist()
        return [View(x.result, x.offset + start, int(width)) for start, width in zip(starts, widths, strict=True)]

    def _reshape(self, x: View, shape: np.ndarray) -> View:
        match shape.tolist():
            case [0, 0, -1]:
                return x._replace(heads=1)
            case [0, 0, heads, -1]:
                return x._replace(heads=heads)
        raise Unsupported("another shape than rows of numbers")


OPERATORS = {
    "Add": _Site._add,
    "Mul": _Site._multiply,
    "LayerNormalization": _Site._layer_norm,
    "RMSNormalization": _Site._rms_norm,
    "RotaryEmbedding": _Site._rotate,
    "Split": _Site._split,
    "Reshape": _Site._reshape,
    "Gelu": lambda site, x, approximate="none": site._unary("GeluTanh" if approximate == "tanh" else "Gelu", x),
    "LeakyRelu": lambda site, x, alpha: site._unary("LeakyRelu", x, alpha),
    **{n: lambda site, x, n=n: site._unary(n, x) for n in ("Relu", "Tanh", "Sigmoid", "Elu", "Softplus", "Mish")},
}  # fmt: skip

FOLDED = {  # of constants and tables over positions
    "Add": np.add,
    "Mul": np.multiply,
    "Div": np.divide,
    "Sin": np.sin,
    "Cos": np.cos,
    "Gather": lambda table, indices: table[indices],
    "Unsqueeze": lambda x, axes: np.expand_dims(x, tuple(axes.tolist())),
    "Concat": lambda *parts, axis: np.concatenate(parts, axis),
    "Reshape": lambda x, shape: x.reshape([x.shape[i] if n == 0 else n for i, n in enumerate(shape.tolist())]),
}
