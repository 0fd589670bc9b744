"""A network with its weights, ready to run in C++."""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Hashable, Sequence
from dataclasses import replace
from typing import TypeVar

import numpy as np

from neural.cpp.building import load
from neural.generation.native.fusing import fuse
from neural.generation.native.library import ENGINE
from neural.generation.native.recording import Integers, Kind, Operation, Recording, Result, View, Weights, record
from neural.generation.native.rounding import round_inputs
from neural.graph.graph import Network
from neural.quantization.matrix import QuantizedMatrix

GROUP = 32  # of int4, as in source/matrix.h
T = TypeVar("T")
WIDEST_HEAD = 512  # sums of so many products of 16 by 8 bits, as in source/kept.h, are held by 32 whatever they are


class Program:
    """network: after `optimize`. weights: by the names of `graph.weights`; float32, or integers for matrices. Beside
    integers keys and values are kept in 8 bits, those of a token in a head by a scale of its own; else, and where heads
    are wider than WIDEST_HEAD, in float32.

    Raises Unsupported for what the C++ cannot do, MemoryError, and NeuralError N970 and N971 (no compiler).
    """

    def __init__(self, network: Network, weights: Weights, *, threads: int) -> None:
        recording = fuse(record(network, weights))
        self._library = load(ENGINE)
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
        tables: Sequence[int],
        selected: Sequence[int],
        out: np.ndarray | None = None,
    ) -> np.ndarray:
        """Read tokens: logits float32 (len(selected), V), in `out` where it is given.

        ids: of any number of texts, those of one text together and in order. tables: of each token the address of its
        text's pages, int64, one for 64 tokens. selected: which tokens' logits.
        """
        logits = np.empty((len(selected), self.width), np.float32) if out is None else out
        given = [np.ascontiguousarray(a, np.int64) for a in (ids, positions, tables, selected)]
        self._library.engine_run(self._engine, len(ids), *map(_at, given), len(selected), _at(logits))
        return logits

    def _write(self, recording: Recording, weights: Weights) -> None:
        operations, logits = round_inputs(recording, weights), recording.logits.result
        floats = [(o.out if o.kept else None, [view.result for view in o.reads]) for o in operations]
        results = _assigned(floats, lambda result: (result.width, result is logits))
        integers = _assigned([(o.rounds, [o.integers]) for o in operations], lambda rows: (rows.width, rows.bits))
        for result in _firsts(results):
            self._library.engine_buffer(self._engine, result.width)
        for rounded in _firsts(integers):
            self._library.engine_integers(self._engine, rounded.width, rounded.bits)
        for operation in operations:
            for step in _steps(operation):
                self._write_operation(step, results, integers, weights)
        self._library.engine_logits(self._engine, results[logits])

    def _write_operation(
        self, o: Operation, buffers: dict[Result, int], integers: dict[Integers, int], weights: Weights
    ) -> None:
        out = None if o.out is None else View(o.out, 0, o.out.width)
        fields = [int(o.kind)]
        for view in (out, o.a, o.b, o.c):
            fields += [-1, 0, 0] if view is None else [buffers.get(view.result, -1), view.offset, view.width]
        fields += [
            -1 if o.matrix is None else self._matrix(o.matrix, weights), self._vector(o.vector),
            self._vector(o.second), o.number, o.function, int(o.narrow), integers.get(o.integers, -1),
            integers.get(o.rounds, -1),
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


def _steps(operation: Operation) -> list[Operation]:
    """What must be whole before an operation begins, and the operation."""
    if operation.kind is Kind.ATTEND:
        return [replace(operation, kind=Kind.KEEP, out=None, rounds=None), operation]
    return [operation]


def _at(array: np.ndarray) -> ctypes.c_void_p:
    return array.ctypes.data


def _assigned(steps: Sequence[tuple[T | None, Sequence[T | None]]], kind: Callable[[T], Hashable]) -> dict[T, int]:
    """A number for what each step makes, used again for the like where what had it is read no more.

    steps: what is made, and what is read. kind: of like things.
    """
    last = {thing: i for i, (_, read) in enumerate(steps) for thing in read}
    free: dict[Hashable, list[int]] = {}
    numbers: dict[T, int] = {}
    count = 0
    for i, (made, read) in enumerate(steps):
        if made is not None:
            available = free.setdefault(kind(made), [])
            numbers[made] = available.pop() if available else count
            count = max(count, numbers[made] + 1)
        for thing in {thing for thing in read if thing is not None and last[thing] == i}:
            free.setdefault(kind(thing), []).append(numbers[thing])
    return numbers


def _firsts(numbers: dict[T, int]) -> list[T]:
    """For each number what had it first, in the order of the numbers."""
    firsts: dict[int, T] = {}
    for thing, number in numbers.items():
        firsts.setdefault(number, thing)
    return [firsts[number] for number in sorted(firsts)]
