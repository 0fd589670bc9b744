"""Which weights are quantised, and to what: the matrices, nearly all of a model's bytes. The rest stays float32."""

from __future__ import annotations

from math import prod
from typing import NamedTuple

from neural.graph.graph import Block, primitives, tied, weights
from neural.layers.dense import Dense, Projections
from neural.layers.embedding import Embedding
from neural.quantization.matrix import BITS, size

LARGEST = {"int8": 0.27, "int4": 0.17}  # of the float32 size, with all that is not quantised


class Matrix(NamedTuple):
    """table: whether rows of it are looked up, whatever else it is used for."""

    shape: tuple[int, int]
    table: bool


def quantizable(block: Block) -> dict[str, Matrix]:
    """The matrices of products and the tables of embeddings, by name, in the order of their first use.

    block: after `optimize`. A head that is tied to a table is that table. Norms, biases and positions are not among
    them, nor is a matrix that another layer uses transposed: its groups would lie across the rows of that product.
    """
    shared, transposed = tied(block), _transposed(block)
    products, tables = set(), set()
    for path, node, _, _ in primitives(block):
        name = f"{path}.weight"
        if isinstance(node.layer, Embedding):
            tables.add(name)
        elif isinstance(node.layer, Dense | Projections):
            products.add(shared.get(name, name))
    return {
        name: Matrix(weight.shape, name in tables)
        for name, weight in weights(block).items()
        if name in products | tables and name not in transposed
    }


def widths(block: Block, to: str) -> dict[str, int]:
    """The bits of each of `quantizable(block)`: those of `to`, but 8 for tables in int4 where LARGEST allows it.

    A table loses most by 4 bits: each of its rows is read alone, so that no errors cancel, and no column makes up for
    another. In a small model of a large vocabulary that is ten times what all other matrices lose together.
    """
    chosen = quantizable(block)
    wider = {name: 8 if matrix.table else BITS[to] for name, matrix in chosen.items()}
    floats = {name: 4 * prod(weight.shape) for name, weight in weights(block).items()}
    sizes = {name: size(chosen[name].shape, bits) for name, bits in wider.items()}
    fits = sum((floats | sizes).values()) <= LARGEST[to] * sum(floats.values())
    return wider if fits else dict.fromkeys(chosen, BITS[to])


def _transposed(block: Block, prefix: str = "") -> set[str]:
    """The names of matrices that are used transposed, too."""
    found = {f"{prefix}{tie.source}.weight" for tie in block.ties if tie.transposed}
    for node in block.nodes:
        if isinstance(node.layer, Block):
            for i in range(node.copies):
                path = f"{prefix}{node.name}" + (f".{i}" if node.repeat is not None else "")
                found |= _transposed(node.layer, f"{path}.")
    return found
