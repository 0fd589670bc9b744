"""Fewer and shorter passes over the rows: what follows a product is done with it, and no logits are made in vain."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

from neural.generation.native.recording import Kind, Operation, Recording, Result, View


def fuse(recording: Recording) -> Recording:
    """The same numbers for the rows that are wanted."""
    operations = _fuse_products(recording.operations, recording.logits)
    return replace(recording, operations=_narrow(operations, recording.logits.result))


def _fuse_products(operations: list[Operation], logits: View) -> list[Operation]:
    """A function or a sum whose operand is a product, and is not needed otherwise, becomes part of the product."""
    uses = Counter(view.result for o in operations for view in o.reads) + Counter([logits.result])
    made: dict[Result, Operation] = {}
    place: dict[Result, int] = {}  # in `kept`
    kept: list[Operation] = []
    for operation in operations:
        product, other = _product(operation, made, uses)
        if product is None or (other is not None and place[other.result] > place[product.out]):
            kept.append(operation)
            made[operation.out], place[operation.out] = operation, len(kept)
            continue
        if other is None:
            product.function, product.value = operation.function, operation.value
        else:
            product.b = other
        made[operation.out], place[operation.out] = product, place[product.out]
        product.out = operation.out
    return kept


def _product(
    operation: Operation, made: dict[Result, Operation], uses: Counter[Result]
) -> tuple[Operation | None, View | None]:
    """The product that this one can join, and for a sum what is added to it."""
    pairs = {Kind.UNARY: [(operation.a, None)], Kind.ADD: [(operation.b, operation.a), (operation.a, operation.b)]}
    for view, other in pairs.get(operation.kind, []):
        product = made.get(view.result)
        if product is None or product.kind is not Kind.LINEAR or not view.whole or uses[view.result] > 1:
            continue
        if product.b is None and (operation.kind is Kind.ADD or not product.function):
            return product, other
    return None, None


def _narrow(operations: list[Operation], logits: Result) -> list[Operation]:
    """After the last attention only the rows go on whose logits are wanted: of a prompt, the last."""
    last = max(i for i, o in enumerate(operations) if o.kind in (Kind.ATTEND, Kind.EMBED))
    before, after = operations[: last + 1], operations[last + 1 :]
    older = {o.out for o in before}
    needed = dict.fromkeys(view.result for o in after for view in o.reads if view.result in older)
    selected = {result: Result(result.width) for result in needed}
    for operation in after:
        for name in ("a", "b", "c"):
            view = getattr(operation, name)
            if view is not None and view.result in selected:
                setattr(operation, name, view._replace(result=selected[view.result]))
    picks = [Operation(Kind.SELECT, new, a=View(old, 0, old.width)) for old, new in selected.items()]
    for operation in (*picks, *after):
        operation.narrow = True
    return [*before, *picks, *after]
