"""Which inputs are ids, and where they are embedded: in the network, or in a `define` that it calls."""

from __future__ import annotations

from collections.abc import Mapping

from neural.graph.graph import Block
from neural.layers.embedding import Embedding
from neural.syntax.tree import Define, Ref, Statement


def embeds(
    statement: Statement, names: tuple[str, ...], *, flows: bool, defines: Mapping[str, Define], depth: int = 8
) -> bool:
    """Whether a statement embeds a value of one of these names, or, where nothing is named, the one that flows in."""
    named = [
        a.value.name for a in statement.arguments if a.name is None and isinstance(a.value, Ref) and not a.value.dollar
    ]
    if not (flows and not named) and not set(names) & set(named):
        return False
    define = defines.get(statement.layer.text)
    if define is None:
        return statement.layer.text == "Embedding"
    return depth > 0 and embedder(define.body, ("input",), True, defines, depth - 1) is not None


def embedder(
    statements: tuple[Statement, ...],
    names: tuple[str, ...],
    flows: bool,
    defines: Mapping[str, Define],
    depth: int = 8,
) -> int | None:
    """The place of the first statement that embeds a value. flows: the first statement reads it where it names none."""
    found = (
        i for i, s in enumerate(statements) if embeds(s, names, flows=flows and i == 0, defines=defines, depth=depth)
    )
    return next(found, None)


def embedding(block: Block, name: str) -> Embedding | None:
    """The first Embedding that reads a value of a block."""
    for node in block.nodes:
        if name not in node.inputs:
            continue
        if isinstance(node.layer, Embedding):
            return node.layer
        if isinstance(node.layer, Block) and (inside := embedding(node.layer, node.layer.inputs[0].name)):
            return inside
    return None
