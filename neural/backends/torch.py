"""Graphs to PyTorch source."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field

from neural.backends import torch_network
from neural.backends.variables import name_variables
from neural.backends.wrapping import wrap
from neural.graph.evaluate import identifier
from neural.graph.graph import Block, Network, Node, Param
from neural.layers.effects import Cache
from neural.layers.layer import Effect
from neural.layers.values import Arg, Shape

HINTS = {"mask": "Tensor | None", "padding": "Tensor | None", "attention_mask": "Tensor | None", "positions": "Tensor"}
HINTS |= {"rope": "tuple[Tensor, Tensor]", "cache": "KVCache | None"}


def emit(network: Network) -> str:
    """One module that needs PyTorch and nothing else."""
    module = Module(network)
    module.add(network.block)
    body = "\n\n".join([*(h.strip("\n") + "\n" for h in module.helpers), *module.classes.values()])
    source = f"{torch_network.docstring(network)}\n\n{_imports(body)}\n\n{body}\n\n{torch_network.main_lines(network)}"
    return re.sub(r"\n{4,}", "\n\n\n", source)


def _imports(body: str) -> str:
    lines = [f"import {name}" for name in ("math", "re") if f" {name}." in body or f"({name}." in body]
    lines += [""] if lines else []
    lines.append("import torch\nfrom torch import Tensor, nn")
    if re.search(r"\bF\.", body):
        lines.append("from torch.nn import functional as F")
    return "\n".join(lines) + "\n"


class Module:
    """The source of one network while its classes are written."""

    def __init__(self, network: Network) -> None:
        self.network = network
        self.helpers: dict[str, None] = {}
        self.classes: dict[str, str] = {}  # by name, in the order in which they stand
        self.signatures: dict[str, tuple[str, ...]] = {}
        self.parameters = {p.name for p in _params(network.block)}  # a class of that name could not be called
        self._texts: dict[str, str] = {}  # source with a blank for the name → the name
        if network.cached:
            self.helpers[torch_network.KV_CACHE] = None

    def add(self, block: Block) -> str:
        """Write the class of a block, unless the same is there; its name."""
        writer = ClassWriter(self, block, root=block is self.network.block)
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

    @property
    def past(self) -> str:
        return "past" if self.writer.module.network.cached else "0"

    def module(self, expression: str, suffix: str = "") -> str:
        if self.callee is not None:
            self.modules.append(expression)
            return self.callee
        name = self.name if not suffix else f"{self.name}.{suffix}"
        return self.writer.submodule(name, expression)

    def attribute(self, name: str, value: Arg) -> str:
        if value.literal:
            return value.text
        taken = self.writer.attributes
        if taken.get(name, value.text) != value.text:
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


class ClassWriter:
    """One class: a block, or the network itself (root)."""

    def __init__(self, module: Module, block: Block, root: bool) -> None:
        self.module, self.block, self.root = module, block, root
        self.attributes: dict[str, str] = {}
        self.init: list[str] = []
        self.forward: list[str] = []
        self.lists: dict[str, list[str]] = {}
        cached = module.network.cached
        self.effects = {e: v for e, v in _effect_names(block, root).items() if cached or not isinstance(e, Cache)}
        self.cached = any(isinstance(e, Cache) for e in self.effects)
        self.attentions = Arg.of(0)  # that use the cache, so far
        self.signature: tuple[str, ...] = ()
        self.values = block.values()
        self.variables = name_variables(block, {v.name: v.name for v in block.inputs})
        self.made: list[tuple[str, int]] = []  # values that one line assigns, and the number of that line

    def source(self) -> str:
        for node in self.block.nodes:
            self._node(node)
        effects = torch_network.effect_lines(self) if self.root else []
        init = [*(f"self.{n} = {t}" for n, t in self.attributes.items()), *self.init, *self._ties()]
        if self.root:
            init += torch_network.constructor_end(self)
        params = self._used_params("\n".join(init))
        self.signature = tuple(p.name for p in params)
        lines = ["class ⟨name⟩(nn.Module):", *self._constructor(params, init), ""]
        lines += torch_network.forward(self, effects) if self.root else self._forward_of_block()
        return "\n".join(piece for line in lines for piece in wrap(line)) + "\n"

    # Constructor

    def _used_params(self, init: str) -> list[Param]:
        """The parameters that the constructor reads, directly or through a default."""
        wanted: set[str] = set()
        text = init
        for param in reversed(self.block.params):
            if re.search(rf"\b{param.name}\b", text):
                wanted.add(param.name)
                text += f" {param.default}"
        return [p for p in self.block.params if p.name in wanted]

    def _constructor(self, params: list[Param], init: list[str]) -> list[str]:
        required = [f"{p.name}: {_hint(p)}" for p in params if p.default is None]
        layer = ["layer: int"] if self.cached and not self.root and "layer" in "\n".join(init) else []
        if layer:
            self.signature += ("layer",)
        optional, derived = [], []
        for p in params:
            if p.default is None:
                continue
            if re.search(r"[A-Za-z_]", re.sub(r"'[^']*'|\"[^\"]*\"|True|False|None|\d[\d.]*e-?\d+", "", p.default)):
                optional.append(f"{p.name}: {_hint(p)} | None = None")
                derived.append(f"{p.name} = {p.default} if {p.name} is None else {p.name}")
            else:
                optional.append(f"{p.name}: {_hint(p)} = {p.default}")
        head = f"    def __init__({', '.join(['self', *required, *layer, *optional])}) -> None:"
        return [head, "        super().__init__()", *(f"        {line}" for line in (*derived, *init))]

    def _ties(self) -> list[str]:
        return [f"self.{t.target}.weight = self.{t.source}.weight" for t in self.block.ties if not t.transposed]

    # Nodes

    def _node(self, node: Node) -> None:
        if isinstance(node.layer, Block):
            self._block_node(node, node.layer)
            return
        shapes = tuple(self.values[i].shape for i in node.inputs)
        inputs = tuple(self._operand(i, node) for i in node.inputs)
        outputs = tuple(self.variables[v.name] for v in node.outputs)
        transposed = next((t for t in self.block.ties if t.target == node.name and t.transposed), None)
        if node.repeat is not None:
            self._loop(node, NodeSite(self, node.name, inputs, outputs, shapes, callee="layer"))
            return
        site = NodeSite(self, node.name, inputs, outputs, shapes, self._live(node))
        before = len(self.init)
        result = node.layer.torch(site)
        if transposed:
            result = self._transposed(node, transposed, result, before)
        if result is not None:
            self._assign(node, result)

    def _live(self, node: Node) -> frozenset[str]:
        """The variables of values that stand before a node and that nodes behind it read."""
        at = self.block.nodes.index(node)
        made = {v.name for v in self.block.inputs} | {v.name for n in self.block.nodes[:at] for v in n.outputs}
        later = {i for n in self.block.nodes[at + 1 :] for i in n.inputs} | set(self.block.outputs)
        return frozenset(self.variables[v] for v in made & later)

    def _transposed(self, node: Node, tie, result: str, before: int) -> str:
        """A product with another layer's matrix, the other way round."""
        del self.init[before:]
        bias = ""
        if node.layer.use_bias.value:
            self.init.append(
                f"self.{node.name} = nn.ParameterDict({{'bias': nn.Parameter(torch.zeros({node.layer.units.text}))}})"
            )
            bias = f", self.{node.name}['bias']"
        x = self.variables[node.inputs[0]]
        return result.replace(f"self.{node.name}({x})", f"F.linear({x}, self.{tie.source}.weight.T{bias})")

    def _loop(self, node: Node, site: NodeSite) -> None:
        out = site.outputs[0]
        if site.inputs[0] != out:
            self.forward.append(f"{out} = {site.inputs[0]}")
        site.inputs = (out,)
        result = node.layer.torch(site)
        if site.modules:
            self.init.append(f"self.{node.name} = nn.ModuleList({site.modules[0]} for _ in range({node.repeat.text}))")
            self.forward.append(f"for layer in self.{node.name}:")
        else:
            self.forward.append(f"for _ in range({site.attribute(f'{node.name}_count', node.repeat)}):")
        self.forward.append(f"    {out} = {result}")

    def _block_node(self, node: Node, block: Block) -> None:
        name = self.module.add(block)
        signature = self.module.signatures[name]
        given = [f"{n}={a.text}" for n, a in node.arguments if n in signature]
        inner = _cached_attentions(block) if self.module.network.cached else 0
        if "layer" in signature:
            given.append(f"layer={self._place(node, inner)}")
        made = f"{name}({', '.join(given)})"
        effects = [self.effects[e] for e in block.effects() if e in self.effects]
        x, out = self.variables[node.inputs[0]], self.variables[node.outputs[0].name]
        if node.repeat is None:
            self.init.append(f"self.{node.name} = {made}")
            self._assign(node, f"self.{node.name}({', '.join([x, *effects])})")
        else:
            index = "i" if re.search(r"layer=.*\bi\b", made) else "_"
            self.init.append(f"self.{node.name} = nn.ModuleList({made} for {index} in range({node.repeat.text}))")
            if x != out:
                self.forward.append(f"{out} = {x}")
            self.forward.append(f"for block in self.{node.name}:")
            self.forward.append(f"    {out} = block({', '.join([out, *effects])})")
        count = Arg.of(inner) if node.repeat is None else node.repeat.times(inner) if inner else Arg.of(0)
        if count.value:
            self.attentions = self.attentions.plus(count) if self.attentions.value else count

    def _place(self, node: Node, inner: int) -> str:
        """The number, among the network's attentions, of the first in a block."""
        parts = [] if self.root else ["layer"]
        if self.attentions.value:
            parts.append(self.attentions.text)
        if node.repeat is not None:
            parts.append("i" if inner == 1 else f"{inner} * i")
        return " + ".join(parts) or "0"

    def cache_layer(self) -> str:
        before = self.attentions
        self.attentions = before.plus(1) if before.value else Arg.of(1)
        if self.root:
            return before.text
        self.attributes["layer"] = "layer"
        return "self.layer" if not before.value else f"self.layer + {before.text}"

    def submodule(self, name: str, expression: str) -> str:
        """`self.name = expression`; a dotted name goes into a ModuleDict."""
        owner, _, part = name.partition(".")
        if not part:
            self.init.append(f"self.{name} = {expression}")
            return f"self.{name}"
        if owner not in self.lists:
            self.lists[owner] = []
            self.init.append(f"self.{owner} = nn.ModuleDict()")
        self.init.append(f'self.{owner}["{part}"] = {expression}')
        return f'self.{owner}["{part}"]'

    def effect(self, effect: Effect) -> str:
        return self.effects.get(effect, "")

    # Forward

    def _assign(self, node: Node, expression: str) -> None:
        variable = self.variables[node.outputs[0].name]
        if variable != expression:
            self.forward.append(f"{variable} = {expression}")
            self.made.append((node.outputs[0].name, len(self.forward)))

    def _operand(self, value: str, node: Node) -> str:
        """The variable of a value; in a sum, the expression of a branch that the lines just above compute."""
        if (
            isinstance(node.layer, Block)
            or not node.layer.inlined
            or (value != node.inputs[-1] and len(node.inputs) > 1)
        ):
            return self.variables[value]
        expression = self._taken_back(value)
        while expression is not None and expression.count("(") == 1 and self.made:
            inner = self.made[-1][0]
            arguments = re.findall(rf"(?<![\w.]){self.variables[inner]}(?!\w)", expression)
            before = self._taken_back(inner) if len(arguments) == 1 and self._feeds(inner, value) else None
            if before is None:
                break
            expression = re.sub(rf"(?<![\w.]){self.variables[inner]}(?!\w)", before.replace("\\", r"\\"), expression)
        return self.variables[value] if expression is None else expression

    def _feeds(self, inner: str, value: str) -> bool:
        maker = next(n for n in self.block.nodes if value in (v.name for v in n.outputs))
        return inner in maker.inputs

    def _taken_back(self, value: str) -> str | None:
        """The expression of a value that is read once and was assigned by the last line, which is removed."""
        readers = sum(n.inputs.count(value) for n in self.block.nodes) + self.block.outputs.count(value)
        if not self.made or self.made[-1] != (value, len(self.forward)) or readers != 1:
            return None
        code = self.forward[-1].removeprefix(f"{self.variables[value]} = ")
        if "  #" in code or code.count("(") > 2:
            return None
        self.forward.pop()
        self.made.pop()
        return code

    def _return(self) -> None:
        """`return expression` in place of an assignment that nothing else reads."""
        result = self.variables[self.block.outputs[0]]
        last = self.forward[-1] if self.forward else ""
        if last.startswith(f"{result} = "):
            self.forward[-1] = f"return {last.removeprefix(f'{result} = ')}"
        else:
            self.forward.append(f"return {result}")

    def site_of_network(self) -> NodeSite:
        """For effects, which belong to no node."""
        name = self.module.network.sequence or self.block.inputs[0].name
        return NodeSite(self, "", (name,), (), (self.values[name].shape,))

    def _forward_of_block(self) -> list[str]:
        self._return()
        given = [f"{self.variables[v.name]}: Tensor" for v in self.block.inputs]
        given += [f"{variable}: {HINTS[type(effect).variable]}" for effect, variable in self.effects.items()]
        head = f"    def forward(self, {', '.join(given)}) -> Tensor:"
        shapes = [self.block.inputs[0].shape, self.values[self.block.outputs[0]].shape]
        note = " → ".join(f"({', '.join(str(a) for a in s)})" for s in shapes)
        return [head, f'        """{note}."""', *(f"        {line}" for line in self.forward)]


def _effect_names(block: Block, root: bool) -> dict[Effect, str]:
    """A variable for each effect. The network makes what they require, too, and has the cache from its caller."""
    effects = block.effects()
    if root:
        effects = tuple(dict.fromkeys([*(r for e in effects for r in e.requires()), *effects]))
    names: dict[Effect, str] = {}
    for effect in effects:
        name, n = "past_key_values" if root and isinstance(effect, Cache) else type(effect).variable, 2
        while name in names.values():
            name, n = f"{type(effect).variable}_{n}", n + 1
        names[effect] = name
    return names


def _params(block: Block) -> Iterator[Param]:
    yield from block.params
    for node in block.nodes:
        if isinstance(node.layer, Block):
            yield from _params(node.layer)


def _cached_attentions(block: Block) -> int:
    total = 0
    values = block.values()
    for node in block.nodes:
        if isinstance(node.layer, Block):
            total += node.copies * _cached_attentions(node.layer)
        else:
            total += any(isinstance(e, Cache) for e in node.layer.effects(*(values[i] for i in node.inputs)))
    return total


def _hint(param: Param) -> str:
    value = param.arg.value
    return "None" if value is None else type(value).__name__
