"""One class of source: what all frameworks have in common. A back end is a subclass that says where it differs."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, ClassVar

from neural.backends.source import NodeSite
from neural.backends.variables import name_variables
from neural.backends.wrapping import wrap
from neural.graph.graph import Block, Node, Param, Tie
from neural.layers.effects import Cache
from neural.layers.layer import Effect, Layer, Site
from neural.layers.values import Arg, Shape

if TYPE_CHECKING:
    from neural.backends.source import Module


class ClassWriter:
    """One class: a block, or the network itself (root)."""

    base: ClassVar[str]  # what the class extends
    method: ClassVar[str] = "__call__"  # the forward pass
    array: ClassVar[str]  # the type hint of a value
    hints: ClassVar[dict[str, str]]  # type hints of effects, by `Effect.variable`
    kv_cache: ClassVar[str]  # source of the class KVCache
    checkpointed: ClassVar[str | None] = None  # source of the function that calls a block and keeps no activations
    renamed: ClassVar[dict[str, str]] = {}  # variables of effects whose name means something else to the framework

    def __init__(self, module: Module, block: Block, root: bool) -> None:
        self.module, self.block, self.root = module, block, root
        self.attributes: dict[str, str] = {}
        self.init: list[str] = []
        self.forward: list[str] = []
        cached = module.network.cached
        self.effects = {
            e: v for e, v in effect_names(block, root, self.renamed).items() if cached or not isinstance(e, Cache)
        }
        self.cached = any(isinstance(e, Cache) for e in self.effects)
        self.attentions = Arg.of(0)  # that use the cache, so far
        self.signature: tuple[str, ...] = ()
        self.values = block.values()
        self.variables = name_variables(block, {v.name: v.name for v in block.inputs})
        self.made: list[tuple[str, int]] = []  # values that one line assigns, and the number of that line

    # Where frameworks differ

    def spell(self, layer: Layer, site: Site) -> str | None:
        """The expression of a layer's output; None where its lines already assign the outputs."""
        raise NotImplementedError

    def spell_effect(self, effect: Effect, site: Site) -> str:
        """The expression that makes an effect in the network's forward pass."""
        raise NotImplementedError

    def constructor(self, params: list[Param], init: list[str]) -> list[str]:
        """The lines of `__init__`. params: those that `init` reads."""
        raise NotImplementedError

    def constructor_end(self) -> list[str]:
        """What the constructor of the network does last: initial weights and the like."""
        raise NotImplementedError

    def forward_of_network(self, effects: list[str]) -> list[str]:
        """The lines of the network's forward pass, which begins with `effects`, and of its other methods."""
        raise NotImplementedError

    def copies(self, made: str, index: str, count: str) -> str:
        """The expression of `count` modules, each made by an expression that may read `index`."""
        raise NotImplementedError

    def submodule(self, name: str, expression: str) -> str:
        """Create a module in the constructor; how the forward pass calls it. A dotted name is a part of a node's."""
        raise NotImplementedError

    def tied_product(self, node: Node, tie: Tie, x: str) -> str | None:
        """The product of x with another layer's matrix; None where the constructor shares the weight instead."""
        raise NotImplementedError

    def initializer(self, kind: str) -> str:
        """What draws a new "matrix" or "table", where layers take it in their constructors."""
        raise NotImplementedError

    def ties(self) -> list[str]:
        """What the constructor does to share weights."""
        return []

    def rest(self, params: list[Param]) -> list[str]:
        """Further methods of a class, indented."""
        return []

    def decorators(self) -> list[str]:
        return []

    # The class

    def source(self) -> str:
        for node in self.block.nodes:
            self._node(node)
        effects = self._effect_lines() if self.root else []
        init = [*(f"self.{n} = {t}" for n, t in self.attributes.items()), *self.init, *self.ties()]
        if self.root:
            init += self.constructor_end()
        params = self._used_params("\n".join(init))
        self.signature = tuple(p.name for p in params)
        constructor = self.constructor(params, init)
        lines = [*self.decorators(), f"class ⟨name⟩({self.base}):", *constructor, *([""] if constructor else [])]
        lines += self.forward_of_network(effects) if self.root else self._forward_of_block()
        lines += self.rest(params)
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

    def parameters(self, params: list[Param], init: list[str]) -> tuple[list[str], list[str], list[str]]:
        """What `__init__` takes: parameters that must be given, those with defaults, and the lines that work out
        defaults that are expressions."""
        required = [f"{p.name}: {_hint(p)}" for p in params if p.default is None]
        if self.cached and not self.root and "layer" in "\n".join(init):
            required.append("layer: int")
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
        return required, optional, derived

    # Nodes

    def _node(self, node: Node) -> None:
        if isinstance(node.layer, Block):
            self._block_node(node, node.layer)
            return
        shapes = tuple(self.values[i].shape for i in node.inputs)
        inputs = tuple(self._operand(i, node) for i in node.inputs)
        outputs = tuple(self.variables[v.name] for v in node.outputs)
        if node.repeat is not None:
            self._loop(node, NodeSite(self, node.name, inputs, outputs, shapes, callee="layer"))
            return
        site = NodeSite(self, node.name, inputs, outputs, shapes, self._live(node))
        before = len(self.init)
        result = self.spell(node.layer, site)
        made = len(self.init)
        tie = next((t for t in self.block.ties if t.target == node.name), None)
        called = tie and re.search(rf"self\.{node.name}\((\w+)\)", result)
        product = called and self.tied_product(node, tie, called[1])
        if product:
            del self.init[before:made]
            result = result.replace(called[0], product)
        if result is not None:
            self._assign(node, result)

    def _live(self, node: Node) -> frozenset[str]:
        """The variables of values that stand before a node and that nodes behind it read."""
        at = self.block.nodes.index(node)
        made = {v.name for v in self.block.inputs} | {v.name for n in self.block.nodes[:at] for v in n.outputs}
        later = {i for n in self.block.nodes[at + 1 :] for i in n.inputs} | set(self.block.outputs)
        return frozenset(self.variables[v] for v in made & later)

    def _loop(self, node: Node, site: NodeSite) -> None:
        out = site.outputs[0]
        if site.inputs[0] != out:
            self.forward.append(f"{out} = {site.inputs[0]}")
        site.inputs = (out,)
        result = self.spell(node.layer, site)
        if site.modules:
            self.init.append(f"self.{node.name} = {self.copies(site.modules[0], '_', node.repeat.text)}")
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
        made = self.made_block(name, given)
        effects = self.passed(block)
        x, out = self.variables[node.inputs[0]], self.variables[node.outputs[0].name]
        if node.repeat is None:
            self.init.append(f"self.{node.name} = {made}")
            self._assign(node, self.block_call(f"self.{node.name}", [x, *effects]))
        else:
            index = "i" if re.search(r"layer=.*\bi\b", made) else "_"
            self.init.append(f"self.{node.name} = {self.copies(made, index, node.repeat.text)}")
            if x != out:
                self.forward.append(f"{out} = {x}")
            self.forward.append(f"for block in self.{node.name}:")
            self.forward.append(f"    {out} = {self.block_call('block', [out, *effects])}")
        count = Arg.of(inner) if node.repeat is None else node.repeat.times(inner) if inner else Arg.of(0)
        if count.value:
            self.attentions = self.attentions.plus(count) if self.attentions.value else count

    def block_call(self, callee: str, given: list[str]) -> str:
        """The call of a block in the forward pass; through `checkpointed` where the file asks the network for it."""
        asked = self.root and self.module.network.settings.execution.get("activation_checkpointing")
        if not asked or self.checkpointed is None:
            return f"{callee}({', '.join(given)})"
        self.module.helpers[self.checkpointed] = None
        return f"checkpointed({', '.join([callee, *given])})"

    def passed(self, block: Block) -> list[str]:
        """The arguments that hand the effects of a block over to it."""
        return [self.effects[e] for e in block.effects() if e in self.effects]

    def made_block(self, name: str, given: list[str]) -> str:
        """The expression that makes a block."""
        return f"{name}({', '.join(given)})"

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

    def _effect_lines(self) -> list[str]:
        """What the layers need beside their inputs, made once a forward pass."""
        name = self.module.network.sequence or self.block.inputs[0].name
        site = NodeSite(self, "", (name,), (), (self.values[name].shape,))
        made = ((variable, self.spell_effect(effect, site)) for effect, variable in self.effects.items())
        return [f"{variable} = {expression}" for variable, expression in made if expression != variable]

    def _forward_of_block(self) -> list[str]:
        self._return()
        given = [f"{self.variables[v.name]}: {self.array}" for v in self.block.inputs]
        given += [f"{variable}: {self.hints[type(effect).variable]}" for effect, variable in self.effects.items()]
        head = f"    def {self.method}(self, {', '.join(given)}) -> {self.array}:"
        note = f"{drawn(self.block.inputs[0].shape)} → {drawn(self.values[self.block.outputs[0]].shape)}"
        return [head, f'        """{note}."""', *(f"        {line}" for line in self.forward)]


def drawn(shape: Shape) -> str:
    """A shape for a docstring: (B, T, d_model)."""
    return f"({', '.join(str(a) for a in shape)})"


def effect_names(block: Block, root: bool, renamed: dict[str, str]) -> dict[Effect, str]:
    """A variable for each effect. The network makes what they require, too, and has the cache from its caller."""
    effects = block.effects()
    if root:
        effects = tuple(dict.fromkeys([*(r for e in effects for r in e.requires()), *effects]))
    names: dict[Effect, str] = {}
    for effect in effects:
        own, n = renamed.get(type(effect).variable, type(effect).variable), 2
        name = "past_key_values" if root and isinstance(effect, Cache) else own
        while name in names.values():
            name, n = f"{own}_{n}", n + 1
        names[effect] = name
    return names


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
