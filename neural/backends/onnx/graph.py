"""The ONNX graph under construction: operators, names, initializers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import onnx_ir as ir

from neural.backends.onnx.quantization import Blocks, group_offsets, to_blocks
from neural.quantization.matrix import QuantizedMatrix

OPSET = 23
IR_VERSION = 11  # the first that has opset 23
ORT = "com.microsoft"  # the domain of onnxruntime's own operators
FLOAT, INT64, BOOL = ir.DataType.FLOAT, ir.DataType.INT64, ir.DataType.BOOL


class GraphBuilder:
    """weights: by our names. quantized: those of them that are stored as integers."""

    def __init__(self, weights: Mapping[str, np.ndarray], quantized: Mapping[str, QuantizedMatrix]) -> None:
        self.weights = weights
        self.quantized = quantized
        self._blocks_of: dict[str, Blocks | None] = {}
        self.nodes: list[ir.Node] = []
        self.initializers: dict[str, ir.Value] = {}
        self.imports = {"": OPSET}
        self._names: dict[str, int] = {}
        self._constants: dict[tuple, ir.Value] = {}

    def op(
        self, scope: str, kind: str, *inputs: ir.Value | None, outputs: int = 1, domain: str = "", **attributes: Any
    ):
        """Add an operator below a scope, such as `blocks.0/attn`; returns its output, or a tuple of several."""
        name = self._fresh(f"{scope}/{kind}")
        while inputs and inputs[-1] is None:
            inputs = inputs[:-1]
        results = [ir.Value(name=f"{name}_output" + (f"_{i}" if outputs > 1 else "")) for i in range(outputs)]
        given = ir.convenience.convert_attributes(attributes)
        self.nodes.append(ir.Node(domain, kind, inputs, given, outputs=results, name=name))
        if domain:
            self.imports[domain] = 1
        return results[0] if outputs == 1 else tuple(results)

    def _fresh(self, name: str) -> str:
        self._names[name] = self._names.get(name, 0) + 1
        return name if self._names[name] == 1 else f"{name}_{self._names[name]}"

    def constant(self, value: Any, dtype: str) -> ir.Value:
        """Small numbers, each set of them once."""
        array = np.asarray(value, dtype)
        key = (dtype, array.shape, array.tobytes())
        if key not in self._constants:
            text = ",".join(f"{n:g}" for n in array.ravel()[:4]) + (",…" if array.size > 4 else "")
            self._constants[key] = self._initializer(self._fresh(f"constants/{text}"), array)
        return self._constants[key]

    def weight(self, name: str) -> ir.Value:
        """A weight in float32."""
        if name in self.initializers:
            return self.initializers[name]
        matrix = self.quantized.get(name)
        numbers = self.weights[name] if matrix is None else matrix.dequantized()
        return self._initializer(name, np.asarray(numbers, np.float32))

    def _initializer(self, name: str, array: np.ndarray) -> ir.Value:
        if name not in self.initializers:
            tensor = ir.tensor(np.asarray(array, order="C"), name=name)
            self.initializers[name] = ir.Value(
                name=name, const_value=tensor, shape=ir.Shape(array.shape), type=ir.TensorType(tensor.dtype)
            )
        return self.initializers[name]

    def linear(
        self, scope: str, x: ir.Value, rank: int, weight: str, transposed: bool, bias: ir.Value | None
    ) -> ir.Value:
        """x · weightᵀ + bias; x · weight + bias for a weight that is tied transposed. rank: of x."""
        blocks = None if transposed else self._blocks(weight)
        if blocks is not None:
            rows, columns = self.quantized[weight].shape
            # accuracy_level 4: products of integers, by far the fastest
            y = self.op(
                scope, "MatMulNBits", x, *self._stored(weight, blocks), None, None, bias, domain=ORT,
                K=columns, N=rows, bits=self.quantized[weight].bits, block_size=blocks.size, accuracy_level=4,
            )  # fmt: skip
            return self._with_zeros(scope, x, rank, weight, y)
        # Stored in PyTorch's layout, (out, in): runtimes turn a constant once, when they load it
        matrix = self.weight(weight) if transposed else self.op(scope, "Transpose", self.weight(weight), perm=[1, 0])
        y = self.op(scope, "MatMul", x, matrix)
        return y if bias is None else self.op(scope, "Add", y, bias)

    def _with_zeros(self, scope: str, x: ir.Value, rank: int, weight: str, y: ir.Value) -> ir.Value:
        """A product by a matrix without its zero points, with what they add."""
        added = group_offsets(self.quantized[weight])
        if added is None:
            return y
        split = self.constant([0] * (rank - 1) + [len(added), self.quantized[weight].group], "int64")
        grouped = self.op(scope, "Reshape", x, split)
        sums = self.op(scope, "ReduceSum", grouped, self.constant([-1], "int64"), keepdims=0)
        matrix = self._initializer(f"{weight}_offset", added)
        return self.op(scope, "Add", y, self.op(scope, "MatMul", sums, matrix))

    def rows(self, scope: str, weight: str, transposed: bool, ids: ir.Value) -> ir.Value:
        """Rows of a table; columns of one that is tied transposed."""
        plain = transposed or weight not in self.quantized or self.quantized[weight].zeros is not None
        blocks = None if plain else self._blocks(weight)
        if blocks is not None:
            values, scales = self._stored(weight, blocks)
            # The same bytes that a tied MatMulNBits reads, as a matrix
            flat = self.op(scope, "Reshape", values, self.constant([len(blocks.values), -1], "int64"))
            return self.op(
                scope, "GatherBlockQuantized", flat, ids, scales, domain=ORT,
                bits=self.quantized[weight].bits, block_size=blocks.size, gather_axis=0, quantize_axis=1,
            )  # fmt: skip
        table = self.weight(weight)
        if transposed:
            table = self.op(scope, "Transpose", table, perm=[1, 0])
        return self.op(scope, "Gather", table, ids, axis=0)

    def _blocks(self, weight: str) -> Blocks | None:
        """Of a matrix that is quantised, and that the operators can read."""
        if weight not in self._blocks_of:
            self._blocks_of[weight] = to_blocks(self.quantized[weight]) if weight in self.quantized else None
        return self._blocks_of[weight]

    def _stored(self, weight: str, blocks: Blocks) -> tuple[ir.Value, ir.Value]:
        return self._initializer(f"{weight}_quantized", blocks.values), self._initializer(
            f"{weight}_scale", blocks.scales
        )
