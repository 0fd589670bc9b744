"""One process's share of a network under tensor parallelism, derived from the graph (Shoeybi et al. 2019)."""

from __future__ import annotations

from dataclasses import dataclass, replace

from neural.graph.graph import Block, Network, Node
from neural.graph.head import head
from neural.layers.activation import Activation
from neural.layers.attention import Attention
from neural.layers.dense import Dense, Output, Projections
from neural.layers.embedding import Embedding
from neural.layers.merging import Add, Multiply
from neural.layers.reshaping import Dropout
from neural.layers.values import Arg, Value

ELEMENTWISE = (Activation, Dropout, Add, Multiply)


@dataclass(frozen=True, slots=True)
class SplitNetwork:
    """`network`: what each of `ways` processes computes, its products narrower and its heads fewer.

    Both in the order of the graph, in which all processes must cut the weights that they exchange.
    columns: products that are split by output, each with the widths of the whole parts of its output, which are split
    one by one. rows: products that are split by input, and whose results are summed over the processes. inner: nodes
    from the ones, included, to the others. vocabulary: the head and the tables of ids, of which each process has some
    rows; in `network` they have as many as the process that has the most.
    """

    network: Network
    columns: dict[str, tuple[int, ...]]
    rows: tuple[str, ...]
    inner: frozenset[str]
    vocabulary: tuple[str, ...]
    ways: int


def split_network(network: Network, ways: int) -> SplitNetwork:
    """Split every product that can be: a region from products by column to one by row, with nothing between them but
    what works element by element, or head by head. What lies outside such a region every process does whole.
    """
    columns: dict[str, tuple[int, ...]] = {}
    rows: list[str] = []
    inner: set[str] = set()
    block = _split_block(network.block, ways, [""], columns, rows, inner)
    share, vocabulary = replace(network, block=block), _vocabulary(network, rows, ways)
    if vocabulary:
        share = _with_fewer_ids(share, vocabulary, -(-network.vocab_size // ways))
    return SplitNetwork(share, columns, tuple(rows), frozenset(inner), vocabulary, ways)


def _vocabulary(network: Network, rows: list[str], ways: int) -> tuple[str, ...]:
    """The head, and the tables that the network's inputs are looked up in; none where these share a weight with others,
    or where a process would have no id.
    """
    last, block, size = head(network), network.block, network.vocab_size
    if last is None or last.name in rows or -(-size // ways) * (ways - 1) >= size:
        return ()
    read = {value.name for value in block.inputs}
    tables = [
        node.name
        for node in block.nodes
        if type(node.layer) is Embedding and node.layer.input_dim.value == size and read & set(node.inputs)
    ]
    found = {*tables, last.name}
    shared = [{tie.source, tie.target} for tie in block.ties]
    return (*tables, last.name) if all(pair <= found or not pair & found for pair in shared) else ()


def _with_fewer_ids(network: Network, names: tuple[str, ...], count: int) -> Network:
    nodes = []
    for node in network.block.nodes:
        layer, outputs = node.layer, node.outputs
        if node.name in names and isinstance(layer, Embedding):
            layer = replace(layer, input_dim=Arg.of(count))
        elif node.name in names:
            layer = replace(layer, units=Arg.of(count))
            outputs = tuple(v._replace(shape=(*v.shape[:-1], layer.units)) for v in outputs)
        nodes.append(replace(node, layer=layer, outputs=outputs))
    return replace(network, block=replace(network.block, nodes=tuple(nodes)), vocab_size=count)


def _split_block(
    block: Block,
    ways: int,
    prefixes: list[str],
    columns: dict[str, tuple[int, ...]],
    rows: list[str],
    inner: set[str],
) -> Block:
    """The block's share; what is split goes into `columns`, `rows` and `inner` under each of the block's prefixes."""
    taken: set[str] = set()
    narrow: set[str] = set()
    for node in block.nodes:
        region = _region(block, node, ways) if _is_product(node, block) and node.name not in taken else None
        if region and not taken & {n.name for n in region}:
            narrow |= {n.name for n in region}
            taken |= {node.name, *narrow}
            rows.extend(prefix + node.name for prefix in prefixes)
            inner |= {prefix + n.name for prefix in prefixes for n in region}
            for column in (n for n in region if isinstance(n.layer, Dense | Projections)):
                columns.update({prefix + column.name: _widths(column) for prefix in prefixes})
    values = {v.name: v for v in block.inputs}
    nodes = []
    for node in block.nodes:
        made = _narrowed(node, ways, values) if node.name in narrow else node
        if isinstance(node.layer, Block):
            paths = [f"{path}." for prefix in prefixes for path in node.paths(prefix)]
            made = replace(node, layer=_split_block(node.layer, ways, paths, columns, rows, inner))
        values.update({v.name: v for v in made.outputs})
        nodes.append(made)
    return replace(block, nodes=tuple(nodes))


def _region(block: Block, row: Node, ways: int) -> list[Node] | None:
    """The nodes whose results are split where `row` is split by input; None if that cannot be."""
    makers = {v.name: n for n in block.nodes for v in n.outputs}
    found: dict[str, Node] = {}
    queue = list(row.inputs)
    while queue:
        node = makers.get(queue.pop())
        if node is None or node.repeat is not None or not _splits(node, block, ways):
            return None
        if node.name not in found:
            found[node.name] = node
            queue += [] if isinstance(node.layer, Dense | Projections) else node.inputs
    split = {v.name for n in found.values() for v in n.outputs}
    outside = [n for n in block.nodes if n.name not in found and n.name != row.name]
    leaks = split & ({i for n in outside for i in n.inputs} | set(block.outputs))
    widths = {v.shape[-1].value for n in found.values() if isinstance(n.layer, Add | Multiply) for v in n.outputs}
    even = all(
        block.value(i).shape[-1].value in widths
        for n in found.values()
        if isinstance(n.layer, Add | Multiply)
        for i in n.inputs
    )
    return None if leaks or not even else list(found.values())


def _splits(node: Node, block: Block, ways: int) -> bool:
    """Whether each process can compute its share of a node's results from its share of the inputs."""
    layer = node.layer
    if isinstance(layer, Attention):
        return len(node.inputs) == 3 and not layer.qk_norm.value and not (
            layer.num_heads.value % ways or layer.kv_heads.value % ways
        )  # fmt: skip
    if isinstance(layer, Projections):
        return not any(u.value % ways for u in layer.units)
    if isinstance(layer, Activation):
        return layer.activation.value != "softmax"
    return isinstance(layer, ELEMENTWISE) or (_is_product(node, block) and not layer.units.value % ways)


def _is_product(node: Node, block: Block) -> bool:
    """A Dense with a weight of its own and no softmax, which looks at the whole width."""
    tied = {name for tie in block.ties for name in (tie.target, tie.source)}
    return (
        type(node.layer) in (Dense, Output)
        and node.name not in tied
        and node.repeat is None
        and node.layer.activation.value != "softmax"
    )


def _widths(node: Node) -> tuple[int, ...]:
    return tuple(v.shape[-1].value for v in node.outputs)


def _narrowed(node: Node, ways: int, values: dict[str, Value]) -> Node:
    """The node on its share of the width. Shapes follow from the inputs."""
    layer = node.layer
    match layer:
        case Attention():
            kv_heads = layer.num_kv_heads if layer.num_kv_heads.value is None else _part(layer.num_kv_heads, ways)
            layer = replace(layer, num_heads=_part(layer.num_heads, ways), num_kv_heads=kv_heads)
        case Projections():
            layer = replace(layer, units=tuple(_part(u, ways) for u in layer.units))
        case Dense():
            layer = replace(layer, units=_part(layer.units, ways))
    shapes = layer.shape(*(values[i] for i in node.inputs))
    return replace(
        node, layer=layer, outputs=tuple(v._replace(shape=s) for v, s in zip(node.outputs, shapes, strict=True))
    )


def _part(size: Arg, ways: int) -> Arg:
    return Arg.of(size.value // ways)
