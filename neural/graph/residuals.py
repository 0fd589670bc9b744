"""Which matrices write into the residual stream, and how often the stream is added to.

GPT-2 starts these with a standard deviation of 0.02 / sqrt(number of additions), so that the stream's variance does not
grow with depth (Radford et al. 2019, section 2.3).
"""

from __future__ import annotations

from neural.graph.graph import Block, Node, primitives
from neural.layers.dense import Dense
from neural.layers.merging import Add
from neural.layers.reshaping import Dropout
from neural.layers.values import Arg


def additions(block: Block) -> Arg | None:
    """How often something is added to the stream, in the terms of the network; None where nothing is."""
    total: Arg | None = None
    for node in block.nodes:
        inner = (
            additions(node.layer) if isinstance(node.layer, Block) else Arg.of(1) if _projection(node, block) else None
        )
        if inner is not None:
            here = inner if node.repeat is None else inner.times(node.repeat.named(node.repeat.root))
            total = here if total is None else total.plus(here)
    return total


def _projection(node: Node, block: Block) -> str | None:
    """The path, within the block, of the Dense whose result an Add brings into the stream."""
    if not isinstance(node.layer, Add) or len(node.inputs) != 2:
        return None
    makers = {v.name: n for n in block.nodes for v in n.outputs}
    source, name = node.inputs
    reaches = _reaches(name, source, makers)
    return _last_dense(block, name) if reaches else None


def _reaches(name: str, source: str, makers: dict[str, Node]) -> bool:
    """Whether a value is computed from another: a branch of it."""
    queue, seen = [name], set()
    while queue:
        value = queue.pop()
        if value == source:
            return True
        if value in makers and value not in seen:
            seen.add(value)
            queue += makers[value].inputs
    return False


def _last_dense(block: Block, name: str) -> str | None:
    makers = {v.name: n for n in block.nodes for v in n.outputs}
    while name in makers:
        node = makers[name]
        if isinstance(node.layer, Block):
            inner = _last_dense(node.layer, node.layer.outputs[0])
            return (inner and node.repeat is None and f"{node.name}.{inner}") or None
        if isinstance(node.layer, Dense):
            return node.name if node.repeat is None and node.layer.activation.value == "linear" else None
        if not isinstance(node.layer, Dropout):
            return None
        name = node.inputs[0]
    return None


def residual_suffixes(network: Block) -> tuple[str, ...]:
    """The ends of the names of those matrices, as short as sets them apart from all others; names without indices."""
    targets = {f"{prefix}{path}.weight" for prefix, path in _walk(network, "")}
    every = (f"{p.path}.{w.name}" for p in primitives(network, once=True) for w in p.node.layer.weights(*p.inputs))
    others = {without_indices(name) for name in every} - targets
    suffixes: dict[str, None] = {}
    for target in sorted(targets):
        parts = target.split(".")
        for n in range(2, len(parts) + 1):
            suffix = ".".join(parts[-n:])
            if not any(o.endswith(suffix) for o in others):
                suffixes[suffix] = None
                break
    return tuple(suffixes)


def without_indices(name: str) -> str:
    """blocks.3.attn.weight → blocks.attn.weight."""
    return ".".join(part for part in name.split(".") if not part.isdigit())


def indexed_within(network: Block, suffixes: tuple[str, ...]) -> bool:
    """Whether an index stands inside one of the ends, so that names must be matched without their indices."""
    every = (f"{p.path}.{w.name}" for p in primitives(network, once=True) for w in p.node.layer.weights(*p.inputs))
    return any(without_indices(name).endswith(suffixes) and not name.endswith(suffixes) for name in every)


def _walk(block: Block, prefix: str):
    for node in block.nodes:
        if isinstance(node.layer, Block):
            yield from _walk(node.layer, f"{prefix}{node.name}.")
        elif path := _projection(node, block):
            yield prefix, path
