"""Which variable of a forward pass holds which value."""

from __future__ import annotations

from neural.graph.evaluate import identifier
from neural.graph.graph import Block, Node

RUNNING = ("x", "h")  # the value that flows on, and the branch of a residual


def name_variables(block: Block, inputs: dict[str, str]) -> dict[str, str]:
    """A variable for each value.

    The running value is `x`, and `h` while `x` is needed again. A value that waits, and that the author named, keeps
    its name.
    """
    uses: dict[str, list[int]] = {v.name: [] for v in block.inputs} | {
        v.name: [] for n in block.nodes for v in n.outputs
    }
    for i, node in enumerate(block.nodes):
        for name in node.inputs:
            uses[name].append(i)
    for name in block.outputs:
        uses[name].append(len(block.nodes))
    variables = dict(inputs)
    for i, node in enumerate(block.nodes):
        live = {variables[v] for v in variables if uses[v] and max(uses[v]) > i}
        for j, value in enumerate(node.outputs):
            name = _own(node, value.name, j) if _waits(node, i, uses[value.name], block) else None
            if name is None:
                name = next((n for n in RUNNING if n not in live), _own(node, value.name, j))
            while name in live:
                name += "_"
            variables[value.name] = name
            live.add(name)
    return variables


def _own(node: Node, value: str, index: int) -> str:
    return identifier(value if "." not in value else f"{node.name}_{index}")


def _waits(node: Node, i: int, uses: list[int], block: Block) -> bool:
    """Several outputs, or a value by the author's name that more than the next statement reads."""
    if len(node.outputs) > 1:
        return True
    return node.named and (
        len(uses) != 1 or uses[0] != i + 1 or (i + 1 < len(block.nodes) and len(block.nodes[i + 1].inputs) > 1)
    )
