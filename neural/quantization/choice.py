"""Which weights are quantised, and to what: the matrices, nearly all of a model's bytes. The rest stays float32."""

from __future__ import annotations

from collections.abc import Mapping
from math import prod
from typing import NamedTuple

import numpy as np

from neural.graph.graph import Block, primitives, tied, weights
from neural.layers.dense import Dense, Projections
from neural.layers.embedding import Embedding
from neural.quantization.matrix import BITS, bits_for, size
from neural.quantization.rounding import round_to_nearest

LARGEST = {"int8": 0.27, "int4": 0.17}  # of the float32 size, with all that is not quantised
PAYS = 0.8  # of the error without zero points: their quarter of a bit, spent on finer steps, would leave 0.84 of it
SAMPLED = 128  # rows of a matrix, for what zero points would do to it


class Matrix(NamedTuple):
    """table: whether rows of it are looked up, whatever else it is used for."""

    shape: tuple[int, int]
    table: bool


class Form(NamedTuple):
    """What a matrix becomes. zeros: with zero points, of 4 bits alone."""

    bits: int
    zeros: bool = False


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
    return wider if _room(block, wider, to) >= 0 else dict.fromkeys(chosen, BITS[to])


def forms(block: Block, weights: Mapping[str, np.ndarray], to: str) -> dict[str, Form]:
    """The form of each of `quantizable(block)`, whose numbers are among `weights`.

    Zero points are for matrices that lose much less with them, those first that win most, as long as LARGEST allows it.
    Tables go without: runtimes look rows up in symmetric ones.
    """
    chosen, bits = quantizable(block), widths(block, to)
    room, found = _room(block, bits, to), {name: Form(n) for name, n in bits.items()}
    products = [n for n, matrix in chosen.items() if not matrix.table and bits_for(matrix.shape[1], bits[n]) == 4]
    left = {name: _left_by_zeros(weights[name]) for name in products}
    for name in sorted((name for name in products if left[name] < PAYS), key=left.__getitem__):
        room -= size(chosen[name].shape, 4, zeros=True) - size(chosen[name].shape, 4)
        if room < 0:
            break
        found[name] = Form(4, zeros=True)
    return found


def _left_by_zeros(matrix: np.ndarray) -> float:
    """The error of rounding with zero points, over the error without."""
    rows = matrix[:: max(1, len(matrix) // SAMPLED)]
    with_them, without = (
        np.linalg.norm(round_to_nearest(rows, 4, zeros=zeros).dequantized() - rows) for zeros in (True, False)
    )
    return float(with_them / without) if without > 0 else 1.0


def _room(block: Block, bits: Mapping[str, int], to: str) -> float:
    """Bytes below LARGEST that matrices of such widths leave."""
    shapes = {name: weight.shape for name, weight in weights(block).items()}
    floats = {name: 4 * prod(shape) for name, shape in shapes.items()}
    sizes = {name: size(shapes[name], n) for name, n in bits.items()}
    return LARGEST[to] * sum(floats.values()) - sum((floats | sizes).values())


def _transposed(block: Block, prefix: str = "") -> set[str]:
    """The names of matrices that are used transposed, too."""
    found = {f"{prefix}{tie.source}.weight" for tie in block.ties if tie.transposed}
    for node in block.nodes:
        if isinstance(node.layer, Block):
            for i in range(node.copies):
                path = f"{prefix}{node.name}" + (f".{i}" if node.repeat is not None else "")
                found |= _transposed(node.layer, f"{path}.")
    return found
