"""Memory that the forward pass leaves to the backward pass."""

from __future__ import annotations

from dataclasses import dataclass, field

from neural.graph.graph import Block, Node
from neural.layers.values import Value
from neural.planning.saved import Saved, saved
from neural.planning.sizes import Setting


@dataclass
class _Memory:
    """The pieces of memory that the values of one block stand in. A piece has the name of the node that made it."""

    of_value: dict[str, str]  # the piece that a value stands in
    bytes: dict[str, int] = field(default_factory=dict)
    kept: dict[str, str] = field(default_factory=dict)  # pieces that are kept, and the node that first keeps them
    dropped: int = 0  # bytes that blocks among the nodes do not keep, or what stands between copies

    def keep(self, value: str, node: Node) -> None:
        self.kept.setdefault(self.of_value[value], node.name)


def activations(block: Block, setting: Setting, *, checkpointing: bool = False) -> dict[str, int]:
    """Bytes that one forward pass keeps for the backward pass, by the path of the node that makes them.

    A path has no numbers of copies: "blocks" is all copies together, "blocks.attn" what it is in one of them. An input
    counts for the node that keeps it; the network's output is the loss's and not counted. Float32.

    checkpointing: each block of the network keeps its input alone; the largest counts once more for what it keeps while
    the backward pass computes it again.
    """
    found: dict[str, int] = {}
    _walk(block, setting, "", found, checkpointing=checkpointing)
    return found


def recomputed(block: Block, setting: Setting) -> int:
    """Bytes of the activations of one block, the largest, which checkpointing computes again in the backward pass."""
    return max((_walk(n.layer, setting, "", {})[0].extra for n in block.nodes if isinstance(n.layer, Block)), default=0)


def dropped(block: Block, setting: Setting) -> int:
    """Bytes of what the nodes give in one forward pass and nothing keeps: a product that is added to its input."""
    return _walk(block, setting, "", {})[1]


def _walk(
    block: Block, setting: Setting, prefix: str, found: dict[str, int], *, checkpointing: bool = False
) -> tuple[Saved, int]:
    """What a block keeps, seen from outside, and in `found` what each of its nodes does; bytes that it does not keep.

    The block's output is none of either.
    """
    values, memory = block.values(), _Memory({v.name: f"input {v.name}" for v in block.inputs})
    own: dict[str, int] = {}
    again: dict[str, int] = {}
    for node in block.nodes:
        inputs = tuple(values[i] for i in node.inputs)
        if isinstance(node.layer, Block):
            rule, inner = _walk(node.layer, setting, f"{prefix}{node.name}.", found)
            memory.dropped += node.copies * inner
            if checkpointing:
                again[node.name] = rule.extra
                rule = Saved(tuple(range(len(inputs))))
        else:
            rule = saved(node.layer, inputs, node.outputs, setting)
        own[node.name] = _place(node, inputs, rule, memory, setting)
    if again:
        largest = max(again, key=again.__getitem__)
        own[largest] += again[largest]
    output = memory.of_value[block.outputs[0]]
    given = [memory.of_value[v.name] for v in block.inputs]
    for piece, keeper in memory.kept.items():
        if piece in given and not prefix:
            own[keeper] += setting.bytes(block.inputs[given.index(piece)])
        elif piece not in given and piece != output:
            own[piece] += memory.bytes[piece]
    found.update((f"{prefix}{name}", n) for name, n in own.items())
    inputs = tuple(i for i, piece in enumerate(given) if piece in memory.kept)
    view_of = given.index(output) if output in given else None
    passed = sum(n for piece, n in memory.bytes.items() if piece not in memory.kept and piece != output)
    return Saved(inputs, output in memory.kept and view_of is None, sum(own.values()), view_of), memory.dropped + passed


def _place(node: Node, inputs: tuple[Value, ...], rule: Saved, memory: _Memory, setting: Setting) -> int:
    """Note what a node makes and keeps; gives the bytes of its own, those between its copies among them."""
    if rule.view_of is None:
        piece = node.name
        memory.bytes[piece] = setting.bytes(*node.outputs)
    else:
        piece = memory.of_value[inputs[rule.view_of].name]
    memory.of_value.update((v.name, piece) for v in node.outputs)
    for i in rule.inputs:
        memory.keep(inputs[i].name, node)
    if rule.output:
        memory.keep(node.outputs[0].name, node)
    kept = rule.output or bool(rule.inputs)
    between = 0 if rule.view_of is not None else (node.copies - 1) * setting.bytes(*node.outputs)
    memory.dropped += 0 if kept else between
    return node.copies * rule.extra + (between if kept else 0)
