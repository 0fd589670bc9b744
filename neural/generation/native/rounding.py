"""Where the inputs of products with integers are rounded: with what makes them, wherever that can be."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from neural.generation.native.recording import Attention, Integers, Kind, Operation, Recording, Result, View, Weights
from neural.quantization.matrix import QuantizedMatrix

INPUTS = 32  # that are rounded together, as in source/matrix.h


def round_inputs(recording: Recording, weights: Weights) -> list[Operation]:
    """The operations, of which products with integers read integers. The same numbers as by passes of their own."""
    made: dict[Result, Operation] = {}
    rounded: dict[tuple[View, int], Integers] = {}
    operations: list[Operation] = []
    for operation in recording.operations:
        bits = _bits(operation, weights)
        if bits:
            view = operation.a
            if (view, bits) not in rounded:
                rounded[view, bits] = integers = Integers(view.width, bits)
                maker = made[view.result]
                if view.whole and maker.rounds is None and _can_round(maker, recording.attentions):
                    maker.rounds = integers
                else:
                    operations.append(Operation(Kind.QUANTIZE, a=view, narrow=operation.narrow, rounds=integers))
            operation.a, operation.integers = None, rounded[view, bits]
        operations.append(operation)
        made[operation.out] = operation
    _drop_unread(operations, recording.logits.result)
    return operations


def _bits(operation: Operation, weights: Weights) -> int:
    """Of the integers that a product multiplies by; 0 for floats, as which a matrix that is turned is held."""
    if operation.kind is not Kind.LINEAR or operation.matrix[1]:
        return 0
    matrix = weights[operation.matrix[0]]
    return matrix.bits if isinstance(matrix, QuantizedMatrix) else 0


def _can_round(operation: Operation, attentions: Sequence[Attention]) -> bool:
    """Whether whole groups are made at once: attention is done a head at a time."""
    return operation.kind is not Kind.ATTEND or attentions[operation.number].head_dim % INPUTS == 0


def _drop_unread(operations: Iterable[Operation], logits: Result) -> None:
    """Floats that nobody reads are not written."""
    read = {view.result for operation in operations for view in operation.reads} | {logits}
    for operation in operations:
        operation.kept = operation.out in read
