"""Modules of source: classes by name, functions that they call, and the place of one statement among them."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from neural.graph.evaluate import identifier
from neural.graph.graph import Block, Network, Param, count_parameters
from neural.layers.layer import Effect
from neural.layers.values import Arg, Shape

if TYPE_CHECKING:
    from neural.backends.writer import ClassWriter


def write_module(
    network: Network, writer: type[ClassWriter], imports: Callable[[str], str], main: Callable[[Network], str]
) -> str:
    """A module with its docstring, imports, functions, classes, and what it does when it is run by itself.

    imports: of the text of the functions and classes.
    """
    module = Module(network, writer)
    module.add(network.block)
    body = "\n\n".join([*(h.strip("\n") + "\n" for h in module.helpers), *module.classes.values()])
    title = f'"""{network.name}: {count_parameters(network.block):,} parameters. Written by `neural compile`."""'
    return re.sub(r"\n{4,}", "\n\n\n", f"{title}\n\n{imports(body)}\n\n{body}\n\n{main(network)}")


class Module:
    """The source of one network while its classes are written."""

    def __init__(self, network: Network, writer: type[ClassWriter]) -> None:
        self.network, self.writer = network, writer
        self.helpers: dict[str, None] = {}
        self.classes: dict[str, str] = {}  # by name, in the order in which they stand
        self.signatures: dict[str, tuple[str, ...]] = {}
        self.parameters = {p.name for p in _params(network.block)}  # a class of that name could not be called
        self._texts: dict[str, str] = {}  # source with a blank for the name → the name
        if network.cached:
            self.helpers[writer.kv_cache] = None

    def add(self, block: Block) -> str:
        """Write the class of a block, unless the same is there; its name."""
        writer = self.writer(self, block, root=block is self.network.block)
        text = writer.source()
        if text not in self._texts:
            own, n = identifier(block.name), 2
            name = own
            while name in self.classes or name in self.parameters:
                name, n = f"{own}{n}", n + 1
            self._texts[text] = name
            self.classes[name] = text.replace("⟨name⟩", name)
            self.signatures[name] = writer.signature
        return self._texts[text]


@dataclass
class NodeSite:
    """Where one node is spelled: the Site of neural.layers."""

    writer: ClassWriter
    name: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    shapes: tuple[Shape, ...]
    live: frozenset[str] = frozenset()  # variables whose values later statements read
    callee: str | None = None  # in a loop over copies: the loop's variable
    modules: list[str] = field(default_factory=list)
    module_shape: Shape | None = None  # of the input of the last submodule

    @property
    def past(self) -> str:
        return "past" if self.writer.module.network.cached else "0"

    def module(self, expression: str, suffix: str = "", shape: Shape | None = None) -> str:
        self.module_shape = shape or self.shapes[0]
        if self.callee is not None:
            self.modules.append(expression)
            return self.callee
        name = self.name if not suffix else f"{self.name}.{suffix}"
        return self.writer.submodule(name, expression)

    def attribute(self, name: str, value: Arg) -> str:
        if value.literal:
            return value.text
        taken = self.writer.attributes
        if taken.get(name, value.text) != value.text or name in (n.name for n in self.writer.block.nodes):
            name = f"{self.name}_{name}"
        taken[name] = value.text
        return f"self.{name}"

    def cache_layer(self) -> str:
        return self.writer.cache_layer()

    def local(self, name: str, unread: tuple[str, ...] = ()) -> str:
        while name in self.live or name in unread:
            name += "_"
        return name

    def line(self, statement: str) -> None:
        self.writer.forward.extend(statement.split("\n"))

    def uses(self, effect: Effect) -> str:
        return self.writer.effect(effect)

    def helper(self, source: str) -> None:
        self.writer.module.helpers[source] = None

    def initializer(self, kind: str) -> str:
        return self.writer.initializer(kind)


def _params(block: Block) -> Iterator[Param]:
    yield from block.params
    for node in block.nodes:
        if isinstance(node.layer, Block):
            yield from _params(node.layer)
