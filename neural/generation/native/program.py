"""A network with its weights, ready to run in C++."""

from __future__ import annotations

import ctypes
from collections.abc import Iterable, Sequence
from dataclasses import replace

import numpy as np

from neural.generation.native.building import library
from neural.generation.native.fusing import fuse
from neural.generation.native.recording import Kind, Operation, Recording, Result, View, Weights, record
from neural.graph.graph import Network
from neural.quantization.matrix import QuantizedMatrix

GROUP = 32  # of int4, as in source/matrix.h
WIDEST_HEAD = 512  # sums of so many products of 16 by 8 bits, as in source/kept.h, are held by 32 whatever they are


class Program:
    """network: after `optimize`. weights: by the names of `graph.weights`; float32, or integers for matrices. Beside
    integers keys and values are kept in 8 bits, those of a token in a head by a scale of its own; else, and where heads
    are wider than WIDEST_HEAD, in float32.

    Raises Unsupported for what the C++ cannot do, MemoryError, and NeuralError N970 and N971 (no compiler).
    """

    def __init__(self, network: Network, weights: Weights, *, threads: int) -> None:
        recording = fuse(record(network, weights))
        self._library = library()
        narrow = all(attention.head_dim <= WIDEST_HEAD for attention in recording.attentions)
        integers = narrow and any(isinstance(matrix, QuantizedMatrix) for matrix in weights.values())
        self._engine = self._library.engine_new(threads, network.context, integers)
        self.width = recording.logits.width
        self._matrices: dict[tuple[str, bool], int] = {}
        self._vectors: dict[bytes, int] = {}
        for attention in recording.attentions:
            self._library.engine_layer(self._engine, *attention)
        self._write(recording, weights)

    def __del__(self) -> None:
        if getattr(self, "_engine", None):
            self._library.engine_delete(self._engine)

    def make_pages(self, count: int) -> None:
        """Room for so many pages; memory is taken as they are written. Called once. MemoryError."""
        if not self._library.engine_make_pages(self._engine, count):
            raise MemoryError(f"no room for {count} pages of keys and values")

    @property
    def page_bytes(self) -> int:
        """Of keys and values of 64 tokens in every layer."""
        return self._library.engine_page_bytes(self._engine)

    def copy_page(self, source: int, target: int) -> None:
        self._library.engine_copy_page(self._engine, source, target)

    def run(
        self,
        ids: Sequence[int],
        positions: Sequence[int],
        tables: Sequence[np.ndarray],
        selected: Sequence[int],
        out: np.ndarray | None = None,
    ) -> np.ndarray:
        """Read tokens: logits float32 (len(selected), V), in `out` where it is given.

        ids: of any number of texts, those of one text together and in order. tables: of each token the pages of its
        text, int64, one for 64 tokens; the same array for all tokens of a text. selected: which tokens' logits.
        """
        logits = np.empty((len(selected), self.width), np.float32) if out is None else out
        given = [np.ascontiguousarray(a, np.int64) for a in (ids, positions, selected)]
        addresses = np.array([t.ctypes.data for t in tables], np.int64)
        self._library.engine_run(
            self._engine, len(given[0]), _at(given[0]), _at(given[1]), _at(addresses), _at(given[2]), len(selected),
            _at(logits),
        )  # fmt: skip
        return logits

    def _write(self, recording: Recording, weights: Weights) -> None:
        logits = recording.logits.result
        buffers = _assigned(recording.operations, logits)
        numbers: dict[int, int] = {}
        for result, buffer in buffers.items():
            if buffer not in numbers:
                numbers[buffer] = self._library.engine_buffer(self._engine, result.width)
        for operation in recording.operations:
            for step in _steps(operation, weights):
                self._write_operation(step, {r: numbers[b] for r, b in buffers.items()}, weights)
        self._library.engine_logits(self._engine, numbers[buffers[logits]])

    def _write_operation(self, o: Operation, buffers: dict[Result, int], weights: Weights) -> None:
        out = None if o.out is None else View(o.out, 0, o.out.width)
        fields = [int(o.kind)]
        for view in (out, o.a, o.b, o.c):
            fields += [-1, 0, 0] if view is None else [buffers[view.result], view.offset, view.width]
        fields += [
            -1 if o.matrix is None else self._matrix(o.matrix, weights), self._vector(o.vector),
            self._vector(o.second), o.number, o.function, int(o.narrow),
        ]  # fmt: skip
        self._library.engine_operation(self._engine, _at(np.array(fields, np.int64)), o.value)

    def _matrix(self, stored: tuple[str, bool], weights: Weights) -> int:
        """A weight's number. One that is tied is held once, unless it is turned."""
        if stored not in self._matrices:
            name, turned = stored
            matrix = weights[name]
            if turned:
                matrix = (matrix.dequantized() if isinstance(matrix, QuantizedMatrix) else matrix).T
            self._matrices[stored] = self._hold(matrix)
        return self._matrices[stored]

    def _hold(self, matrix: np.ndarray | QuantizedMatrix) -> int:
        if isinstance(matrix, QuantizedMatrix):
            bits, values, scales, zeros = matrix.bits, matrix.values, matrix.scales, matrix.zeros
            if bits == 4 and matrix.group != GROUP:
                scales = np.repeat(scales, matrix.group // GROUP, axis=1)
                zeros = None if zeros is None else np.repeat(zeros, matrix.group // GROUP, axis=1)
            scales = np.ascontiguousarray(scales, np.float16 if bits == 4 else np.float32)
        else:
            bits, values, scales, zeros = 32, np.asarray(matrix, np.float32), np.empty(0, np.float32), None
        values, zeros = np.ascontiguousarray(values), None if zeros is None else np.ascontiguousarray(zeros)
        rows, columns = matrix.shape
        number = self._library.engine_matrix(
            self._engine, bits, rows, columns, _at(values), _at(scales), None if zeros is None else _at(zeros)
        )
        if number < 0:
            raise MemoryError(f"no room for a matrix of {rows} x {columns}")
        return number

    def _vector(self, values: np.ndarray | None) -> int:
        if values is None:
            return -1
        values = np.ascontiguousarray(values, np.float32)
        key = values.tobytes()
        if key not in self._vectors:
            self._vectors[key] = self._library.engine_vector(self._engine, values.size, _at(values))
        return self._vectors[key]


def _steps(operation: Operation, weights: Weights) -> list[Operation]:
    """What must be whole before an operation begins, and the operation."""
    if operation.kind is Kind.ATTEND:
        return [replace(operation, kind=Kind.KEEP, out=None), operation]
    if operation.kind is Kind.LINEAR and isinstance(weights[operation.matrix[0]], QuantizedMatrix):
        if operation.matrix[1]:  # turned, it is held in float32
            return [operation]
        rounded = Operation(Kind.QUANTIZE, a=operation.a, matrix=operation.matrix, narrow=operation.narrow)
        return [rounded, operation]
    return [operation]


def _at(array: np.ndarray) -> ctypes.c_void_p:
    return array.ctypes.data


def _assigned(operations: Iterable[Operation], logits: Result) -> dict[Result, int]:
    """A buffer for each result, used again where its numbers are needed no more. The logits have one of their own."""
    operations = list(operations)
    last = {view.result: i for i, o in enumerate(operations) for view in o.reads}
    free: dict[int, list[int]] = {}
    buffers: dict[Result, int] = {}
    count = 0
    for i, operation in enumerate(operations):
        if operation.out is None:
            continue
        available = free.setdefault(operation.out.width, [])
        if available and operation.out is not logits:
            buffers[operation.out] = available.pop()
        else:
            buffers[operation.out], count = count, count + 1
        for result in {view.result for view in operation.reads}:
            if last[result] == i:
                free.setdefault(result.width, []).append(buffers[result])
    return buffers
