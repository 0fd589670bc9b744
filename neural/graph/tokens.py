"""Where the processes of tensor parallelism may each take a part of the tokens (Korthikanti et al. 2022)."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

from neural.graph.graph import Block, Network, Node, primitives
from neural.graph.split import ELEMENTWISE, SplitNetwork
from neural.layers.attention import Attention
from neural.layers.normalization import LayerNormalization, RMSNormalization
from neural.layers.reshaping import Dropout

NORMS = (LayerNormalization, RMSNormalization)


@dataclass(frozen=True, slots=True)
class TokenChain:
    """A chain of the network's nodes that work on each token for itself, but for the products that are split.

    modules: theirs, in order. norms: those within that have weights. once: modules whose input several split products
    read, and nothing else, so that its tokens are gathered once for all. alone: nothing else draws random numbers.
    """

    modules: tuple[str, ...]
    norms: tuple[str, ...]
    once: tuple[str, ...]
    alone: bool


def token_chain(network: Network, plan: SplitNetwork) -> TokenChain | None:
    """The longest such chain with a split product in it; None without, or where the tokens do not divide."""
    nodes = max(_chains(network.block, plan), key=lambda chain: sum(n.copies for n in chain), default=[])
    if not nodes or network.context is None or network.context % plan.ways:
        return None
    modules = tuple(path for node in nodes for path in node.paths())
    placed = {place.path: place.node for place in primitives(network.block)}
    within = {path for path in placed if within_any(path, modules)}
    return TokenChain(
        modules,
        tuple(path for path in placed if path in within and isinstance(placed[path].layer, NORMS)),
        tuple(path for node in nodes for path in _gathered_once(node, "", plan)),
        not any(_draws(node) for path, node in placed.items() if path not in within),
    )


def within_any(path: str, modules: tuple[str, ...]) -> bool:
    """Whether `path` is one of the modules, or in one."""
    return any(path == module or path.startswith(f"{module}.") for module in modules)


def _chains(block: Block, plan: SplitNetwork) -> list[list[Node]]:
    """Runs of nodes, each the only one that reads the one before, that hold split products."""
    readers = Counter(name for node in block.nodes for name in node.inputs)
    found: list[list[Node]] = [[]]
    for node in block.nodes:
        split = node.name in plan.inner or node.name in plan.rows
        if split or len(node.inputs) > 1 or len(node.outputs) > 1 or not _by_token(node, "", plan):
            found.append([])
            continue
        last = found[-1][-1].outputs[0].name if found[-1] else None
        if node.inputs != (last,) or readers[last] > 1:
            found.append([])
        found[-1].append(node)
    return [
        chain
        for chain in found
        if any(row.startswith(f"{path}.") for node in chain for path in node.paths() for row in plan.rows)
    ]


def _by_token(node: Node, prefix: str, plan: SplitNetwork) -> bool:
    """Whether it works on each token for itself, but for the products that are split."""
    path = node.paths(prefix)[0]
    if isinstance(node.layer, Block):
        return all(_by_token(inner, f"{path}.", plan) for inner in node.layer.nodes)
    return path in plan.inner or path in plan.rows or isinstance(node.layer, (*NORMS, *ELEMENTWISE))


def _gathered_once(node: Node, prefix: str, plan: SplitNetwork) -> list[str]:
    if not isinstance(node.layer, Block):
        return []
    found = []
    for path in node.paths(prefix):
        inner = node.layer.nodes
        read = {value.name for value in node.layer.inputs}
        first = [f"{path}.{n.name}" for n in inner if read & set(n.inputs)]
        if len(read) == 1 and len(first) > 1 and all(name in plan.columns for name in first):
            found.append(path)
        found += [name for n in inner for name in _gathered_once(n, f"{path}.", plan)]
    return found


def _draws(node: Node) -> bool:
    layer = node.layer
    rate = layer.rate if isinstance(layer, Dropout) else layer.dropout if isinstance(layer, Attention) else None
    return rate is not None and bool(rate.value)
