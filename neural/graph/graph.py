"""The graph: blocks of nodes whose values know their shapes."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

from neural.diagnostics.source import Span
from neural.graph.settings import Settings
from neural.layers.layer import Effect, Layer, Weight
from neural.layers.values import Arg, Value


class Param(NamedTuple):
    """A constructor argument of a block. default: its expression in the block's terms, None where it must be given."""

    name: str
    arg: Arg
    default: str | None = None


class Tie(NamedTuple):
    """The weight of node `target` is the weight of node `source`; transposed where their axes are swapped."""

    target: str
    source: str
    transposed: bool = False


@dataclass(frozen=True, slots=True)
class Node:
    layer: Layer | Block
    name: str  # "attn": self.attn, and the prefix of its weights
    inputs: tuple[str, ...]
    outputs: tuple[Value, ...]  # shapes known at birth
    span: Span | None = field(default=None, compare=False, repr=False)
    repeat: Arg | None = None
    arguments: tuple[tuple[str, Arg], ...] = ()  # of a block: what is given to its constructor
    weights_from: str | None = None  # `weights="…"`
    named: bool = False  # by the author

    @property
    def copies(self) -> int:
        return 1 if self.repeat is None else self.repeat.value

    def paths(self, prefix: str = "") -> list[str]:
        """Of the modules that it is: "blocks.0", "blocks.1"; `prefix` ends with a dot, or is empty."""
        if self.repeat is None:
            return [f"{prefix}{self.name}"]
        return [f"{prefix}{self.name}.{i}" for i in range(self.copies)]


@dataclass(frozen=True, slots=True)
class Block:
    """One `define`, or the network: one class in the generated source."""

    name: str
    params: tuple[Param, ...]
    inputs: tuple[Value, ...]
    nodes: tuple[Node, ...]  # in topological order
    outputs: tuple[str, ...]
    ties: tuple[Tie, ...] = ()

    def value(self, name: str) -> Value:
        """The value of that name."""
        return self.values()[name]

    def values(self) -> dict[str, Value]:
        return {v.name: v for v in (*self.inputs, *(v for n in self.nodes for v in n.outputs))}

    def node(self, name: str) -> Node:
        return next(n for n in self.nodes if n.name == name)

    def effects(self) -> tuple[Effect, ...]:
        """What its layers need, each once, in the order of first use."""
        values, found = self.values(), {}
        for node in self.nodes:
            inner = (
                node.layer.effects()
                if isinstance(node.layer, Block)
                else node.layer.effects(*(values[i] for i in node.inputs))
            )
            found.update(dict.fromkeys(inner))
        return tuple(found)


@dataclass(frozen=True, slots=True)
class Network:
    """The graph of a network with what its sections say."""

    block: Block
    settings: Settings
    context: int | None  # the longest sequence of ids that it reads
    vocab_size: int | None  # of a language model: the width of logits over its own vocabulary
    cached: bool  # causal throughout: takes past_key_values
    activation: str | None  # its output is logits, and this makes probabilities of them: "softmax" or "sigmoid"
    init: str  # "gpt2" or "glorot"
    sequence: str | None = None  # the input whose length masks and positions have

    @property
    def name(self) -> str:
        return self.block.name


class Placed(NamedTuple):
    """A primitive node in the flat network."""

    path: str  # prefix of its weights: "blocks.3.attn.qkv"
    node: Node
    inputs: tuple[Value, ...]
    copies: int  # how often it stands there, in blocks of `once` walks


def primitives(block: Block, *, once: bool = False, prefix: str = "", copies: int = 1) -> Iterator[Placed]:
    """All primitive nodes. once: a repeated node is given a single time, with the number of its copies."""
    values = block.values()
    for node in block.nodes:
        inputs = tuple(values[i] for i in node.inputs)
        rounds = range(1 if once else node.copies)
        for i in rounds:
            path = f"{prefix}{node.name}" + (f".{i}" if node.repeat is not None else "")
            n = copies * node.copies if once else copies
            if isinstance(node.layer, Block):
                yield from primitives(node.layer, once=once, prefix=f"{path}.", copies=n)
            else:
                yield Placed(path, node, inputs, n)


def tied(block: Block, prefix: str = "") -> dict[str, str]:
    """The full name of each tied weight that owns no numbers, and the weight whose numbers it has."""
    found = {f"{prefix}{t.target}.weight": f"{prefix}{t.source}.weight" for t in block.ties}
    for node in block.nodes:
        if isinstance(node.layer, Block) and node.layer:
            for i in range(node.copies):
                path = f"{prefix}{node.name}" + (f".{i}" if node.repeat is not None else "")
                found.update(tied(node.layer, f"{path}."))
    return found


def weights(block: Block) -> dict[str, Weight]:
    """Every weight that owns numbers, under PyTorch's name for it."""
    shared = tied(block)
    return {
        name: weight
        for path, node, inputs, _ in primitives(block)
        for weight in node.layer.weights(*inputs)
        if (name := f"{path}.{weight.name}") not in shared
    }


def count_parameters(block: Block) -> int:
    """Numbers that training changes, tied ones once, without a walk over the copies."""
    values, total = block.values(), 0
    shared = {f"{t.target}.weight" for t in block.ties}
    for node in block.nodes:
        if isinstance(node.layer, Block):
            total += node.copies * count_parameters(node.layer)
            continue
        for weight in node.layer.weights(*(values[i] for i in node.inputs)):
            if weight.trained and f"{node.name}.{weight.name}" not in shared:
                numbers = 1
                for n in weight.shape:
                    numbers *= n
                total += node.copies * numbers
    return total
